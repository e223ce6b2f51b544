"""Langevin dynamics: sampling a law by its score alone.

    dX = s(X) dt + sqrt(2) dW                                   leaves p invariant, s = grad log p
    ascent      x <- x + h s(x)                                 no noise: climbs to a mode
    langevin    x <- x + h s(x) + sqrt(2 h) z                   its Euler step of length h
    mala        the same as a proposal y, accepted with probability
                min(1, p(y) q(x|y) / p(x) q(y|x)),  q(y|x) = N(y; x + h s(x), 2 h I)
    annealed    at levels sigma_1 > ... > sigma_L, n_i steps of h_i = e sigma_i^2 / (2 sigma_L^2)

Two conventions of the step are in use: h, with noise sqrt(2 h), and e = 2 h (Song and Ermon 2019),
x <- x + (e/2) s + sqrt(e) z. They are one dynamics; `step=h` and `epsilon=e` say which is meant.

Conventions: a score is a function x (n, D) -> (n, D), or a `Model` looked at at time t, beside
which `mala` wants a density. Every generator yields (time, x), the start at time 0 included, where
time is the sum of the steps h; `mala` yields the share of accepted proposals too, `annealed` the
level in the place of the time. States keep the library, device and dtype of the start. A state that
runs away, beyond 1e8 times max(1, the largest coordinate of the start), ends the run with a
sentence that names the step.

Sources: Roberts and Tweedie, Bernoulli 2 (1996) 341; Song and Ermon 2019, algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import states
from .arrays import Array, Draws, is_traced, like, namespace, numpy, wide
from .errors import ArgumentError, function, number, whole
from .losses import decreasing
from .models import Model
from .states import States

Score = Callable[[Array], Array]

_FAR = 1e8  # a chain that is this many times further out than it started will not come back


def ascent(score: Score | Model, x: Array, steps: int, *, step: float, t: Any = None) -> States:
    """Gradient ascent of log p: x <- x + h s(x). Every point ends on a mode.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> *_, (time, x) = ascent(law.score, np.array([[-1.0], [1.0]]), 200, step=0.1)
    >>> x.round(3).tolist()
    [[-3.0], [3.0]]
    """
    s, h, x = _score(score, t), _length("step", step), states.start("x", x)
    far = _far(x)
    for k in range(_count("steps", steps) + 1):
        if k:
            x = states.kept(wide(x) + h * wide(_at(s, x)), x)
            _stays(x, far, "step", h, f"step {k}")
        yield k * h, x


def langevin(
    score: Score | Model,
    x: Array,
    steps: int,
    generator: Any,
    *,
    step: float | None = None,
    epsilon: float | None = None,
    t: Any = None,
) -> States:
    """The unadjusted Langevin algorithm: x <- x + h s(x) + sqrt(2 h) z, h = step = epsilon/2.

    Its stationary law differs from p by O(h): `mala` has no such bias.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> *_, (time, x) = langevin(law.score, np.zeros((2000, 1)), 100, 0, step=0.05)
    >>> round(time, 9), bool(abs(x.var() - 1 / (1 - 0.05 / 2)) < 0.1)
    (5.0, True)
    """
    s, h, draws = _score(score, t), _one_of(step, epsilon), Draws(generator)
    x = states.start("x", x)
    name, given = ("step", step) if epsilon is None else ("epsilon", epsilon)
    far = _far(x)
    for k in range(_count("steps", steps) + 1):
        if k:
            x = _moved(s, x, h, draws)
            _stays(x, far, name, given, f"step {k}")
        yield k * h, x


def mala(
    log_prob: Callable[..., Array],
    score: Score | Model,
    x: Array,
    steps: int,
    generator: Any,
    *,
    step: float,
    t: Any = None,
) -> Iterator[tuple[float, Array, float]]:
    """The Metropolis-adjusted Langevin algorithm; yields (time, x, share accepted so far).

    p is invariant for every h; a proposal that runs away is refused like any other.

    log_prob : x (n, D) -> (n,), up to a constant; with a Model for a score it is asked at (x, t),
        as `oracle.log_prob` wants it.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> *_, (time, x, accepted) = mala(law.log_prob, law.score, np.zeros((500, 1)), 50, 0, step=0.5)
    >>> bool(0.8 < accepted < 1)
    True
    """
    h, draws, kept, asked = _length("step", step), Draws(generator), 0, 0
    function("log_prob", log_prob)
    force, x = _score(score, t), states.start("x", x)
    density = (lambda x: log_prob(x, t)) if isinstance(score, Model) else log_prob
    xp, log_p, s = namespace(x), _density(density, x), _at(force, x)
    for k in range(_count("steps", steps) + 1):
        if k:
            y = states.kept(
                wide(x) + h * wide(s) + math.sqrt(2 * h) * wide(states.noise(draws, x)), x
            )
            here = xp.all(xp.isfinite(y), axis=-1)  # nothing is asked of a point at infinity
            y = xp.where(here[:, None], y, x)
            log_q, s_y = _density(density, y), _at(force, y)
            ratio = wide(log_q) - wide(log_p) + _log_q(x, y, s_y, h) - _log_q(y, x, s, h)
            u = like(draws.uniform(x.shape[0]), x)
            accept = here & (xp.log1p(-u) < ratio)  # 1 - u is never 0
            x, s = xp.where(accept[:, None], y, x), xp.where(accept[:, None], s_y, s)
            log_p = xp.where(accept, log_q, log_p)
            kept, asked = kept + int(xp.sum(xp.astype(accept, xp.int64))), asked + x.shape[0]
        yield k * h, x, kept / asked if asked else math.nan


def annealed(
    score: Callable[[Array, float], Array] | Model,
    x: Array,
    levels: Sequence[float] | Array,
    counts: int | Sequence[int],
    generator: Any,
    *,
    epsilon: float,
    denoise: bool = False,
) -> Iterator[tuple[float, Array]]:
    """Annealed Langevin dynamics (Song and Ermon 2019, algorithm 1); yields (level, x).

    At level sigma_i, n_i steps x <- x + (a_i/2) s(x, sigma_i) + sqrt(a_i) z with
    a_i = epsilon sigma_i^2 / sigma_L^2. The start is yielded with the first level, then the state
    after the last step at each level.

    Parameters
    ----------
    score : (x, sigma) -> (n, D), or a Model, whose times are then the levels and
        sigma_i^2 = var at them.
    levels : sigma_1 > ... > sigma_L > 0.
    counts : n_i, one number for all levels or one for each.
    epsilon : a_L, the step at the last level.
    denoise : end with x <- (x + sigma_L^2 s(x, sigma_L))/alpha_L, the posterior mean under the last
        level; alpha_L is 1 but for a Model whose process scales the data.

    Raises
    ------
    ArgumentError : levels that do not decrease, counts of another length, an epsilon under which
        the states run away.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.EDM())
    >>> levels = np.geomspace(10.0, 0.3, 8)
    >>> run = annealed(oracle, np.zeros((2000, 1)), levels, 20, 0, epsilon=0.05)
    >>> *_, (level, x) = run
    >>> round(level, 9), bool(abs(np.mean(x < 0) - 0.1) < 0.05)
    (0.3, True)
    """
    names, alphas, sigmas, ask = _levels(score, levels)
    steps = _counts(counts, len(names))
    draws, e, x = Draws(generator), _length("epsilon", epsilon), states.start("x", x)
    far = _far(x)
    yield names[0], x
    for level, alpha, sigma, n in zip(names, alphas, sigmas, steps):
        s, h = partial(ask, level=level), 0.5 * e * (sigma / sigmas[-1]) ** 2
        for k in range(n):
            x = _moved(s, x, h, draws)
            _stays(x, far, "epsilon", e, f"step {k + 1} at level {level:g}")
        if denoise and level == names[-1]:
            x = states.kept((wide(x) + sigma * sigma * wide(_at(s, x))) / alpha, x)
        yield level, x


# ---------------------------------------------------------------- what they share


def _score(score: Score | Model, t: Any) -> Score:
    if isinstance(score, Model):
        if t is None:
            raise ArgumentError("t", "be given for the score of a Model", t)
        return lambda x: score.score(x, t)
    function("score", score)
    if t is not None:
        raise ArgumentError("t", "be left out for a score that is a function of x", t)
    return score


def _levels(
    score: Callable[[Array, float], Array] | Model, levels: Sequence[float] | Array
) -> tuple[list[float], list[float], list[float], Callable[..., Array]]:
    """The levels, their alphas and sigmas, and the score as a function (x, level)."""
    values = decreasing("levels", levels)
    if isinstance(score, Model):
        step = score.process.at(np.asarray(values))
        alphas, sigmas = numpy(step.scale).tolist(), np.sqrt(numpy(step.var)).tolist()
        return values, alphas, sigmas, lambda x, level: score.score(x, level)
    function("score", score)
    return values, [1.0] * len(values), values, lambda x, level: score(x, level)


def _counts(counts: int | Sequence[int], levels: int) -> list[int]:
    """n_i of each level."""
    several = isinstance(counts, (Sequence, np.ndarray))
    given: list[Any] = [*np.ravel(counts)] if several else [counts] * levels
    if len(given) != levels:
        raise ArgumentError("counts", f"be one number, or one for each of {levels} levels", counts)
    return [_count("counts", n) for n in given]


def _at(score: Score, x: Array) -> Array:
    """The score at x, of the shape of x; without a graph of derivatives unless x has one."""
    s = states.asked(lambda x, _: score(x), x, 0.0)
    shape = tuple(getattr(s, "shape", ()))
    if shape != tuple(x.shape):
        raise ArgumentError("score", f"answer with shape {tuple(x.shape)}", f"shape {shape}")
    return s


def _density(log_prob: Callable[[Array], Array], x: Array) -> Array:
    """log p at x (n, D), (n,): a column would pair every point with every other."""
    log_p = states.asked(lambda x, _: log_prob(x), x, 0.0)
    shape = tuple(getattr(log_p, "shape", ()))
    if shape != tuple(x.shape[:1]):
        raise ArgumentError("log_prob", f"answer with shape ({x.shape[0]},)", f"shape {shape}")
    return log_p


def _moved(s: Score, x: Array, h: float, draws: Draws) -> Array:
    return states.kept(
        wide(x) + h * wide(_at(s, x)) + math.sqrt(2 * h) * wide(states.noise(draws, x)), x
    )


def _log_q(y: Array, x: Array, s: Array, h: float) -> Array:
    """log N(y; x + h s, 2 h I) up to its constant, (n)."""
    off = wide(y) - wide(x) - h * wide(s)
    return -namespace(off).sum(off * off, axis=-1) / (4 * h)


def _one_of(step: float | None, epsilon: float | None) -> float:
    if (step is None) == (epsilon is None):
        raise ArgumentError("step", "be given, or epsilon = 2 step, and not both", (step, epsilon))
    if step is not None:
        return _length("step", step)
    assert epsilon is not None
    return 0.5 * _length("epsilon", epsilon)


def _length(name: str, value: float) -> float:
    number(name, value, 0, ends="()")
    return float(value)


def _count(name: str, n: int) -> int:
    whole(name, n, 0)
    return int(n)


def _size(x: Array) -> float:
    """The largest coordinate, NaN if there is one."""
    xp = namespace(x)
    return float(xp.max(xp.abs(x))) if 0 not in x.shape else 0.0


def _far(x: Array) -> float:
    return math.inf if is_traced(x) else _FAR * max(1.0, _size(x))


def _stays(x: Array, far: float, name: str, value: Any, when: str) -> None:
    """Raise ArgumentError where a state has run away: what h is too long for diverges fast."""
    if not is_traced(x) and not _size(x) < far:
        rule = f"be small enough for the states to stay finite (they run away by {when})"
        raise ArgumentError(name, rule, value)
