"""Samplers: short generator functions from a model and a starting point to a stream of states.

Each step goes from time t to an earlier time s through the Gaussian bridge q(x_s | x_t, x0): with
a = alpha(t)/alpha(s) and b = var(t) - a^2 var(s) (for one step of a chain, b = beta_k),

    mean = a var(s)/var(t) x_t + alpha(s) b/var(t) x0,   btilde = b var(s)/var(t)

(Ho et al. 2020, eq. 7) and x0 the model's answer. Nothing asks that s and t be neighbours, so the
same functions serve strided chains and continuous processes.

Conventions: `times` decreases, from where the run starts to where it ends; every generator yields
(t, x) for each of them, the start included, and the caller keeps what it wants. States keep the
array library, device and dtype of the start. Randomness comes from `generator` (a NumPy or torch
generator, or a seed) and nowhere else. A start or an answer of the model that is not finite ends
the run with an ArgumentError; it is never handed on.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np

from . import states
from .arrays import Array, Draws, wide
from .chain import Chain
from .errors import ArgumentError, instance, number, whole
from .models import Model
from .process import Process
from .states import States, Times


def strided(chain: Chain, steps: int) -> np.ndarray:
    """The times K = tau_0 > ... > tau_steps = 0 of a strided chain, as even as integers allow.

    Nichol and Dhariwal 2021, section 4.

    >>> strided(Chain.linear(10), 5)
    array([10.,  8.,  6.,  4.,  2.,  0.])
    """
    instance("chain", chain, Chain)
    whole("steps", steps, 1, chain.K)
    return np.round(np.linspace(chain.K, 0, int(steps) + 1))


def prior(process: Process, n: int, dim: int, generator: Any) -> Array:
    """n points of N(0, var(T) I), (n, D), float64: where the reverse process is started."""
    instance("process", process, Process)
    whole("n", n, 0)
    whole("dim", dim, 1)
    return math.sqrt(process.var(process.T)) * Draws(generator).normal(n, dim)


def forward(process: Process, x0: Array, times: Times, generator: Any) -> States:
    """The noising path itself: x at increasing times from 0, each step through `between`."""
    instance("process", process, Process)
    grid = states.grid(process, times, decreasing=False)
    x0, draws = states.start("x0", x0), Draws(generator)
    x = process.at(grid[0]).apply(x0, states.noise(draws, x0)) if grid[0] > 0 else x0
    yield grid[0], x
    for s, t in zip(grid[:-1], grid[1:]):
        x = process.between(s, t).apply(x, states.noise(draws, x))
        yield t, x


def ancestral(
    model: Model,
    x: Array,
    times: Times,
    generator: Any,
    *,
    mix: float = 0.0,
    clip: float | None = None,
) -> States:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): x_s = mean + sqrt(sigma^2) z.

    Parameters
    ----------
    mix : log sigma^2 = mix log b + (1 - mix) log btilde (Nichol and Dhariwal 2021, eq. 15):
        0 for sigma^2 = btilde, 1 for sigma^2 = b (beta_k in a chain), or between. The step to a
        time without noise adds none.
    clip : bound on every coordinate of the model's x0, None for none.

    >>> import diffscience as ds
    >>> chain = ds.Chain.cosine(50)
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), chain)
    >>> *_, (t, x) = ancestral(oracle, prior(chain, 100, 1, 0), strided(chain, 50), 1)
    >>> t, x.shape
    (0.0, (100, 1))
    """
    instance("model", model, Model)
    number("mix", mix, 0, 1)
    process, draws = model.process, Draws(generator)
    grid, x = states.grid(process, times), states.start("x", x, clip)
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        step, var_s, var_t = process.between(s, t), process.var(s), process.var(t)
        x0 = states.guess(model, x, t, clip)
        mean = step.scale * var_s / var_t * wide(x) + process.alpha(s) * step.var / var_t * wide(x0)
        small = step.var * var_s / var_t
        var = step.var**mix * small ** (1 - mix) if small > 0 else 0.0
        x = states.kept(
            mean + math.sqrt(var) * wide(states.noise(draws, x)) if var > 0 else mean, x
        )
        yield s, x


def ddim(
    model: Model,
    x: Array,
    times: Times,
    generator: Any = None,
    *,
    eta: float = 0.0,
    clip: float | None = None,
) -> States:
    """DDIM (Song, Meng and Ermon 2021, eq. 12): x_s = alpha(s) x0 + sqrt(var(s) - w^2) eps + w z.

    Parameters
    ----------
    eta : w^2 = eta^2 btilde; 0 is deterministic and needs no generator, 1 is `ancestral`.
    clip : bound on every coordinate of the model's x0, None for none; eps follows it.
    """
    instance("model", model, Model)
    number("eta", eta, 0, 1)
    if eta > 0 and generator is None:
        raise ArgumentError("generator", "be given where eta > 0", generator)
    process, draws = model.process, Draws(0 if generator is None else generator)
    grid, x = states.grid(process, times), states.start("x", x, clip)
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        step, var_s, var_t = process.between(s, t), process.var(s), process.var(t)
        x0 = states.guess(model, x, t, clip)
        eps = (wide(x) - process.alpha(t) * wide(x0)) / math.sqrt(var_t)
        small = step.var * var_s / var_t
        # var(s) - w^2 with no difference: var(s) - btilde = (a var(s))^2/var(t).
        w2, rest = eta * eta * small, (1 - eta * eta) * small + (step.scale * var_s) ** 2 / var_t
        mean = process.alpha(s) * wide(x0) + math.sqrt(rest) * eps
        x = states.kept(mean + math.sqrt(w2) * wide(states.noise(draws, x)) if w2 > 0 else mean, x)
        yield s, x


def last(states: States) -> Array:
    """The state at the end of a run; none of the others is kept."""
    kept = deque(states, maxlen=1)
    if not kept:
        raise ArgumentError("states", "hold at least one state", "none")
    return kept[0][1]
