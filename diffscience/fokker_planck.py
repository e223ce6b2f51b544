"""The Fokker-Planck equation in one dimension, by finite volumes.

    d_t p = -d_x J,   J = b p - D d_x p        b(x, t) the drift, D = g(t)^2/2 the diffusion

on cells [e_i, e_(i+1)] with no flux through the outer walls. Between the centres of neighbours, at
distance w, the flux is that of a constant drift solved exactly (Scharfetter and Gummel 1969; Chang
and Cooper 1970):

    J = D/w (B(-z) p_left - B(z) p_right),   z = b w/D,   B(z) = z/(e^z - 1)

so that what leaves a cell enters its neighbour, p stays positive, the stationary law of
b = D grad log q is q to second order in w, and D = 0 is upwinding. A solve of a long step rounds to
some 1e-16 times the step over the explicit limit: the mass is set back to what it was, and a loss
beyond that raises an ArithmeticError. Time steps: implicit (any length, first order) or the
Crank-Nicolson mean (second order), by tridiagonal solves; explicit, with its limit enforced:

    dt <= min over cells of width / (sum of the outgoing rates)

An implicit step of any length keeps p positive, an explicit one within its limit, and one of
Crank-Nicolson within twice that limit; a longer one is stable, but may ring behind a sharp front.

Langevin dynamics has b = s = grad log q and D = 1; a forward process b = f(t) x and D = g(t)^2/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from .arrays import Array, finite, numpy
from .errors import ArgumentError, function, instance, number, whole
from .process import Process
from .targets import Target

Drift = Callable[[np.ndarray, float], np.ndarray]
Evolution = Iterator[tuple[float, np.ndarray]]
_ROUNDING = 1e-10  # how far below 0, of the largest, a run that is continued may have come
_LOST = 1e-9  # of the mass in a short step: beyond it the generator leaks

METHODS = {"explicit": 0.0, "crank-nicolson": 0.5, "implicit": 1.0}
"""The weight of the later time in each step."""


def cells(low: float, high: float, n: int) -> np.ndarray:
    """The edges (n + 1,) of n equal cells.

    >>> cells(0.0, 1.0, 4)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    """
    number("low", low)
    number("high", high)
    whole("n", n, 2)
    if not low < high:
        raise ArgumentError("low", f"be a number below high = {high}", low)
    return np.linspace(low, high, n + 1)


def averages(law: Target, edges: Array) -> np.ndarray:
    """The mean density of a 1-D law over each cell, from its cdf: (n,).

    >>> import diffscience as ds
    >>> p = averages(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), cells(-9.0, 9.0, 300))
    >>> round(float(p.max()), 3)
    0.399
    """
    instance("law", law, Target)
    e = _grid("edges", edges)
    return np.diff(numpy(law.cdf(e[:, None]))) / np.diff(e)


def evolve(
    density: Array,
    edges: Array,
    drift: Drift,
    diffusion: Callable[[float], float],
    times: Array,
    *,
    method: str = "crank-nicolson",
    stationary: bool = False,
) -> Evolution:
    """The evolution of a law: yields (t, mean densities over the cells (n,)) at each of `times`.

    Parameters
    ----------
    density : (n,) mean densities over the cells at times[0], at least 0.
    edges : (n + 1,) increasing.
    drift : (x (m,), t) -> (m,), asked for at the inner edges.
    diffusion : t -> D >= 0 (g(t)^2/2).
    times : increasing; each interval is one step.
    method : "implicit", "crank-nicolson" or "explicit".
    stationary : drift and diffusion are those of times[0] for ever, and asked for there alone.

    Raises
    ------
    ArgumentError : shapes, a negative density, times that do not increase, and for "explicit" a
        step past the stability limit.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> e = cells(-9.0, 9.0, 300)
    >>> run = langevin(law, averages(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), e), e,
    ...                np.linspace(0, 2, 101))
    >>> *_, (t, p) = run
    >>> t, abs(float(p @ np.diff(e)) - 1) < 1e-12
    (2.0, True)
    """
    e, grid = _grid("edges", edges), _grid("times", times)
    p = numpy(finite("density", density, (len(e) - 1,)))
    if np.any(p < -_ROUNDING * p.max(initial=0.0)):
        raise ArgumentError("density", "be at least 0 in every cell", float(p.min()))
    function("drift", drift)
    function("diffusion", diffusion)
    if method not in METHODS:
        raise ArgumentError("method", f"be one of {', '.join(METHODS)}", method)
    theta = METHODS[method]
    yield float(grid[0]), p
    rates = _rates(e, drift, diffusion, float(grid[0]))
    for t, s in zip(grid[:-1], grid[1:]):
        later = rates if stationary else _rates(e, drift, diffusion, float(s))
        p = _step(p, e, rates, later, float(s - t), theta)
        rates = later
        yield float(s), p


def langevin(
    law: Target, density: Array, edges: Array, times: Array, *, method: str = "crank-nicolson"
) -> Evolution:
    """The law of dX = s(X) dt + sqrt(2) dW with the exact score of a 1-D law; see `evolve`.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> e = cells(-9.0, 9.0, 300)
    >>> *_, (t, p) = langevin(law, averages(law, e), e, [0.0, 0.1, 0.2])  # its own law stays
    >>> bool(np.abs(p - averages(law, e)).max() < 1e-3)
    True
    """
    instance("law", law, Target)

    def score(x: np.ndarray, t: float) -> np.ndarray:
        return numpy(law.score(x[:, None]))[:, 0]

    return evolve(density, edges, score, lambda t: 1.0, times, method=method, stationary=True)


def forward(
    process: Process,
    density: Array,
    edges: Array,
    times: Array,
    *,
    method: str = "crank-nicolson",
) -> Evolution:
    """The law of a continuous process dX = f(t) X dt + g(t) dW; see `evolve`.

    >>> import diffscience as ds
    >>> law, process = ds.gallery.julia_bimodal(), ds.VP()
    >>> e = cells(-9.0, 9.0, 600)
    >>> *_, (t, p) = forward(process, averages(law, e), e, np.linspace(0, 1, 201))
    >>> bool(np.abs(p - averages(ds.Oracle(law, process).at(1.0), e)).max() < 2e-3)
    True
    """
    instance("process", process, Process)

    def drift(x: np.ndarray, t: float) -> np.ndarray:
        return float(process.drift(t)) * x

    def diffusion(t: float) -> float:
        return 0.5 * float(process.diffusion(t)) ** 2

    return evolve(density, edges, drift, diffusion, times, method=method)


Rates = tuple[np.ndarray, np.ndarray]


def _rates(e: np.ndarray, drift: Drift, diffusion: Callable[[float], float], t: float) -> Rates:
    """How fast mass density moves right and left across each inner edge, (n - 1,) each."""
    centres = 0.5 * (e[1:] + e[:-1])
    w, D = np.diff(centres), float(diffusion(t))
    b = np.asarray(drift(e[1:-1], t), float)
    if b.shape != w.shape or not np.all(np.isfinite(b)):
        found = f"shape {b.shape}" if b.shape != w.shape else f"{b[~np.isfinite(b)][0]}"
        raise ArgumentError("drift", f"give {len(w)} finite numbers (t = {t:g})", found)
    if not 0 <= D < math.inf:
        raise ArgumentError("diffusion", f"be at least 0 (t = {t:g})", D)
    if D == 0:
        return np.maximum(b, 0.0), np.maximum(-b, 0.0)
    z = b * w / D
    return D / w * _bernoulli(-z), D / w * _bernoulli(z)


def _bernoulli(z: np.ndarray) -> np.ndarray:
    """z/(e^z - 1), 1 at 0."""
    small = np.abs(z) < 1e-8
    safe = np.where(small, 1.0, np.minimum(z, 700.0))  # e^700 is near the largest number
    return np.where(small, 1 - z / 2, safe / np.expm1(safe))


def _matrix(e: np.ndarray, rates: Rates) -> np.ndarray:
    """The generator A of dp/dt = A p as its three diagonals (upper, main, lower), (3, n)."""
    (right, left), size = rates, np.diff(e)
    bands = np.zeros((3, len(size)))
    bands[0, 1:] = left / size[:-1]
    bands[1, :-1] -= right / size[:-1]
    bands[1, 1:] -= left / size[1:]
    bands[2, :-1] = right / size[1:]
    return bands


def _applied(bands: np.ndarray, p: np.ndarray) -> np.ndarray:
    value = bands[1] * p
    value[:-1] += bands[0, 1:] * p[1:]
    value[1:] += bands[2, :-1] * p[:-1]
    return value


def _step(
    p: np.ndarray, e: np.ndarray, now: Rates, later: Rates, dt: float, theta: float
) -> np.ndarray:
    from scipy.linalg import solve_banded

    mass = float(p @ np.diff(e))
    if theta < 1:
        bands = _matrix(e, now)
        fastest = _fastest(bands)
        if theta == 0 and dt * fastest > 1 + 1e-12:
            rule = f"have steps of at most {1 / fastest:.6g}, the explicit stability limit"
            raise ArgumentError("times", rule, dt)
        p = p + (1 - theta) * dt * _applied(bands, p)
    if theta > 0:
        bands = _matrix(e, later)
        rounding = np.finfo(float).eps * dt * _fastest(bands)
        bands *= -theta * dt
        bands[1] += 1
        p = solve_banded((1, 1), bands, p, check_finite=False)
        p = _refilled(p, e, mass, _LOST + 4 * rounding)
    return p


def _fastest(bands: np.ndarray) -> float:
    """The largest rate at which a cell empties; 0 where nothing moves."""
    return float(np.max(-bands[1]))


def _refilled(p: np.ndarray, e: np.ndarray, mass: float, most: float) -> np.ndarray:
    """p with its mass from before the step, of which a share of at most `most` may be lost."""
    if mass <= 0:
        return p
    left = float(p @ np.diff(e)) / mass
    if not abs(left - 1) <= most:
        raise ArithmeticError(f"a step left {left!r} of the mass, which rounding does not explain")
    return p / left


def _grid(name: str, values: Array) -> np.ndarray:
    grid = numpy(finite(name, values, (None,)))
    if len(grid) < 2 or np.any(np.diff(grid) <= 0):
        raise ArgumentError(name, "be two or more increasing numbers", grid)
    return grid
