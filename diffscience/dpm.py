"""DPM-Solver++: samplers that step in the log-SNR with the denoised point as what is integrated.

With l = log(alpha/sigma) and D the model's x0, the reverse SDE of noise level eta (eta = 0 the
probability flow) is linear in y = x/sigma, with p = 1 + eta^2 (Lu et al. 2022, sections 4 and 5):

    dy = (p e^l D - eta^2 y) dl + sqrt(2) eta dw
    x_s = sigma_s/sigma_t e^(-eta^2 h) x_t + alpha_s int p e^(-p(l_s - l)) D dl
          + sigma_s sqrt(1 - e^(-2 eta^2 h)) z,      h = l_s - l_t > 0

    1S    D = D_t                                    = DDIM for eta = 0
    2S    D = D_t + (D_u - D_t)/(2 r)                from one more evaluation at l_u = l_t + r h
    2M    D = D_t + (D_t - D_-1) h/(2 h_-1)          from the evaluation before
    3M    D quadratic in l through the last three evaluations, integrated exactly

The published programs of 3M give the quadratic term half of its weight and start with a step of
1S, each of which leaves the method at order 2; here it has Taylor's weight and starts with one of
2S. With noise the strong order is 1 for all of them, the weak order 1 for 1S and 2 for the others.

Conventions: as in `samplers`; both ends of time are allowed (alpha = 0 at the start, sigma = 0 at
the end), and a step from or to one of them is of first order, as is a step of a chain for which no
whole time is left between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import states
from .arrays import Array, wide
from .errors import ArgumentError, instance, number
from .models import Model
from .process import Process
from .states import States, Times


@dataclass(frozen=True)
class Level:
    """alpha, sigma and l = log(alpha/sigma) of a process at a time."""

    t: float
    alpha: float
    sigma: float
    log_ratio: float

    @classmethod
    def of(cls, process: Process, t: float) -> Level:
        """The level at time t; l is infinite where alpha or sigma is 0."""
        alpha, sigma = process.alpha(t), math.sqrt(process.var(t))
        return cls(t, alpha, sigma, 0.5 * process.log_snr(t))


def dpm_1s(
    model: Model, x: Array, times: Times, generator: Any = None, *, eta: float = 0.0
) -> States:
    """DPM-Solver++ of first order; order 1.

    Parameters
    ----------
    eta : noise level, 0 or more; 0 needs no generator.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = dpm_1s(oracle, x, times)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    levels, draws, x = _begin(model, x, times, generator, eta)
    yield levels[0].t, x
    for now, then in zip(levels[:-1], levels[1:]):
        D = wide(states.guess(model, x, now.t))
        x = _step(x, now, then, eta, (D,), draws)
        yield then.t, x


def dpm_2s(
    model: Model,
    x: Array,
    times: Times,
    generator: Any = None,
    *,
    eta: float = 0.0,
    ratio: float = 0.5,
) -> States:
    """DPM-Solver++ 2S: two evaluations a step, the second at l_t + ratio h; order 2, weakly too.

    ratio : r in (0, 1]; of a chain the whole time next to it. With eta > 0 a step draws twice, for
        both of its parts.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = dpm_2s(oracle, x, times)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    number("ratio", ratio, 0, 1, "(]")
    levels, draws, x = _begin(model, x, times, generator, eta)
    middles = _middles(model.process, levels, ratio)
    yield levels[0].t, x
    for now, between, then in zip(levels[:-1], middles, levels[1:]):
        D = wide(states.guess(model, x, now.t))
        x = _two_stages(model, x, now, between, then, eta, D, draws)
        yield then.t, x


def _middles(process: Process, levels: Sequence[Level], ratio: float) -> list[Level]:
    """The level at l_t + ratio h of each step; that of its start for a step from or to an end."""
    # l stands for the lambda of the paper.
    l = np.array([level.log_ratio for level in levels])  # noqa: E741
    inner = np.isfinite(l[:-1]) & np.isfinite(l[1:])
    a, b = np.where(inner, l[:-1], 0.0), np.where(inner, l[1:], 0.0)
    times = process.time_of_log_snr(2 * (a + ratio * (b - a))).tolist()
    return [
        Level.of(process, t) if finite else level
        for t, finite, level in zip(times, inner, levels[:-1])
    ]


def _two_stages(
    model: Model,
    x: Array,
    now: Level,
    between: Level,
    then: Level,
    eta: float,
    D: Array,
    draws: Any,
) -> Array:
    """One step of 2S, its noise that of both parts; of 1S where nothing lies between."""
    if between.t == now.t:
        return _step(x, now, then, eta, (D,), draws)
    h, part = then.log_ratio - now.log_ratio, between.log_ratio - now.log_ratio
    rest = then.log_ratio - between.log_ratio
    noise = _noise(x, between, eta, part, draws)
    middle = states.kept(_mean(x, now, between, eta, (D,)) + noise, x)
    there = wide(states.guess(model, middle, between.t))
    noise = noise * (then.sigma / between.sigma * math.exp(-eta * eta * rest))
    noise = noise + _noise(x, then, eta, max(rest, 0.0), draws)
    mixed = D + (there - D) * (0.5 * h / part)
    return states.kept(_mean(x, now, then, eta, (mixed,)) + noise, x)


def dpm_2m(
    model: Model, x: Array, times: Times, generator: Any = None, *, eta: float = 0.0
) -> States:
    """DPM-Solver++ 2M: one evaluation a step and the one before; order 2, for eta > 0 weakly.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = dpm_2m(oracle, x, times, 1, eta=1.0)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    levels, draws, x = _begin(model, x, times, generator, eta)
    before: tuple[Level, Array] | None = None
    yield levels[0].t, x
    for now, then in zip(levels[:-1], levels[1:]):
        D = mixed = wide(states.guess(model, x, now.t))
        h = then.log_ratio - now.log_ratio
        if before is not None and math.isfinite(h):
            mixed = D + 0.5 * h / (now.log_ratio - before[0].log_ratio) * (D - before[1])
        x = _step(x, now, then, eta, (mixed,), draws)
        before = (now, D)
        yield then.t, x


def dpm_3m(
    model: Model, x: Array, times: Times, generator: Any = None, *, eta: float = 0.0
) -> States:
    """DPM-Solver++ 3M: one evaluation a step and the two before; order 3, for eta > 0 weakly 2.

    For eta = 0 the first step is one of 2S: by 1S it would leave an error of order 2.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = dpm_3m(oracle, x, times)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    levels, draws, x = _begin(model, x, times, generator, eta)
    seen: list[tuple[Level, Array]] = []
    yield levels[0].t, x
    for now, then in zip(levels[:-1], levels[1:]):
        D = wide(states.guess(model, x, now.t))
        seen = [(now, D), *seen[:2]]
        h = then.log_ratio - now.log_ratio
        if len(seen) == 1 and eta == 0:
            [between] = _middles(model.process, [now, then], 0.5)
            x = _two_stages(model, x, now, between, then, eta, D, draws)
        else:
            x = _step(x, now, then, eta, _taylor(seen, h) if math.isfinite(h) else (D,), draws)
        yield then.t, x


def _taylor(seen: Sequence[tuple[Level, Array]], h: float) -> tuple[Array, ...]:
    """D, h D' and h^2 D''/2 at the newest of one to three evaluations, newest first."""
    (now, D), *older = seen
    if not older:
        return (D,)
    (one, E), *oldest = older
    r0 = (now.log_ratio - one.log_ratio) / h
    first = (D - E) / r0
    if not oldest:
        return D, first
    [(two, F)] = oldest
    r1 = (one.log_ratio - two.log_ratio) / h
    change = first - (E - F) / r1
    return D, first + r0 / (r0 + r1) * change, change / (r0 + r1)


def _begin(
    model: Model, x: Array, times: Times, generator: Any, eta: float
) -> tuple[list[Level], Any, Array]:
    instance("model", model, Model)
    number("eta", eta, 0)
    if eta > 0 and generator is None:
        raise ArgumentError("generator", "be given where eta > 0", generator)
    levels = [Level.of(model.process, t) for t in states.grid(model.process, times)]
    return levels, states.draws(0 if generator is None else generator), states.start("x", x)


def _step(
    x: Array, now: Level, then: Level, eta: float, terms: Sequence[Array], draws: Any
) -> Array:
    h = then.log_ratio - now.log_ratio
    return states.kept(_mean(x, now, then, eta, terms) + _noise(x, then, eta, h, draws), x)


def _mean(x: Array, now: Level, then: Level, eta: float, terms: Sequence[Array]) -> Array:
    """The deterministic part for D = terms[0] + terms[1] v + terms[2] v^2, v = (l - l_t)/h."""
    h = then.log_ratio - now.log_ratio
    p = (1 + eta * eta) * h
    keep = math.exp(-eta * eta * h) if eta else 1.0
    weight, total = -math.expm1(-p), 0.0
    for k, term in enumerate(terms):
        total = total + weight * term
        weight = 1 - (k + 1) * weight / p
    return (then.sigma / now.sigma * keep) * wide(x) + then.alpha * total


def _noise(x: Array, then: Level, eta: float, h: float, draws: Any) -> Any:
    if eta == 0 or then.sigma == 0:
        return 0.0
    size = then.sigma * math.sqrt(-math.expm1(-2 * eta * eta * h))
    return size * wide(states.noise(draws, x))
