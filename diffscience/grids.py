"""Time grids: the decreasing times t_0 > ... > t_n at which a sampler stops.

With r = log(alpha^2/var) the log-SNR and s = sqrt(var)/alpha the relative noise level:

    uniform    t_i = a + (b - a) i/n
    cosine     t_i = b + (a - b)(1 - cos(pi/2 (1 - i/n)))        shorter steps towards the data
    log_snr    r(t_i) even from r(a) to r(c), then b
    karras     s(t_i)^(1/rho) even from s(a) to s(c), then b     (Karras et al. 2022, eq. 5)
    strided    a chain's times, as even as integers allow

Conventions: from `start` (a, T where left out) to `end` (b, 0 where left out); `least` (c) is the
last time before the end where the end has no finite log-SNR.
Each gives n + 1 float64 numbers. On a chain the times are rounded to whole steps, and a grid that
would stop twice at one of them is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .chain import Chain
from .errors import ArgumentError, instance, number, whole
from .process import Process

Grid = Callable[..., np.ndarray]


def uniform(
    process: Process, steps: int, *, start: float | None = None, end: float = 0.0
) -> np.ndarray:
    """Times that are even in t.

    >>> from diffscience import VP
    >>> uniform(VP(), 4)
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """
    a, b = _ends(process, steps, start, end)
    return _whole(process, np.linspace(a, b, steps + 1))


def cosine(
    process: Process, steps: int, *, start: float | None = None, end: float = 0.0
) -> np.ndarray:
    """Times along a quarter of a cosine, closer together towards the end.

    >>> from diffscience import VP
    >>> cosine(VP(), 3).round(12)
    array([1.       , 0.5      , 0.1339746, 0.       ])
    """
    a, b = _ends(process, steps, start, end)
    left = 1 - np.arange(steps + 1) / steps
    times = b + (a - b) * (1 - np.cos(0.5 * math.pi * left))
    times[0] = a  # cos(pi/2) is 6e-17
    return _whole(process, times)


def log_snr(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float = 0.0,
    least: float = 1e-3,
) -> np.ndarray:
    """Times that are even in the log-SNR, down to `least` T, then the end.

    A start where the log-SNR is -infinity counts as the time T (1 - 1e-3).

    >>> from diffscience import EDM
    >>> log_snr(EDM(8.0), 3, end=1.0).round(12)
    array([8., 4., 2., 1.])
    """
    a, b = _ends(process, steps, start, end)
    return _by_level(process, steps, a, b, least, lambda r: r, lambda u: u)


def karras(
    process: Process,
    steps: int,
    *,
    start: float | None = None,
    end: float = 0.0,
    least: float = 1e-3,
    rho: float = 7.0,
) -> np.ndarray:
    """Times that are even in (sqrt(var)/alpha)^(1/rho), down to `least` T, then the end.

    >>> from diffscience import EDM
    >>> karras(EDM(9.0), 2, end=1.0, rho=2.0).round(12)
    array([9., 4., 1.])
    """
    number("rho", rho, 0, ends="()")
    a, b = _ends(process, steps, start, end)
    return _by_level(
        process,
        steps,
        a,
        b,
        least,
        lambda r: np.exp(-0.5 * r / rho),
        lambda u: -2 * rho * np.log(u),
    )


def strided(chain: Chain, steps: int) -> np.ndarray:
    """The times K = tau_0 > ... > tau_steps = 0 of a strided chain, as even as integers allow.

    Nichol and Dhariwal 2021, section 4.

    >>> strided(Chain.linear(10), 5)
    array([10.,  8.,  6.,  4.,  2.,  0.])
    """
    instance("chain", chain, Chain)
    whole("steps", steps, 1, chain.K)
    return np.round(np.linspace(chain.K, 0, int(steps) + 1))


ALL: dict[str, Grid] = {
    "uniform": uniform,
    "cosine": cosine,
    "log_snr": log_snr,
    "karras": karras,
}
"""Every grid that takes any process, by name."""


def _ends(process: Process, steps: int, start: float | None, end: float) -> tuple[float, float]:
    instance("process", process, Process)
    whole("steps", steps, 1)
    a = process.T if start is None else start
    number("start", a, 0, process.T)
    number("end", end, 0, process.T)
    if not end < a:
        raise ArgumentError("end", f"lie below start = {a:g}", end)
    return float(a), float(end)


def _by_level(
    process: Process,
    steps: int,
    a: float,
    b: float,
    least: float,
    forth: Callable[[Any], Any],
    back: Callable[[Any], Any],
) -> np.ndarray:
    """Times even in forth(log-SNR) from a to the last level, then b if that has no level."""
    number("least", least, 0, 1, "()")
    bare = process.var(b) == 0
    c = least * process.T if bare else b
    top = (
        a
        if math.isfinite(process.log_snr(a))
        else (a - 1 if isinstance(process, Chain) else a * (1 - 1e-3))
    )
    if isinstance(process, Chain):
        c = max(1.0, round(c))
    if not c < top:
        raise ArgumentError("least", f"leave room below the start at {a:g}", least)
    inner = steps - bare
    if inner == 0:
        return np.array([a, b])
    u = np.linspace(forth(process.log_snr(top)), forth(process.log_snr(c)), inner + 1)
    times = np.asarray(process.time_of_log_snr(back(u)))
    times[0], times[-1] = a, c
    return _whole(process, np.append(times, b) if bare else times)


def _whole(process: Process, times: np.ndarray) -> np.ndarray:
    """The times, on a chain rounded to its steps."""
    if isinstance(process, Chain):
        times = np.round(times)
    if np.any(np.diff(times) >= 0):
        raise ArgumentError("steps", "be few enough for the times to differ", len(times) - 1)
    return times
