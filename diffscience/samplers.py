"""Samplers: short generator functions from a model and a starting point to a stream of states.

Through the Gaussian bridge q(x_s | x_t, x0) from time t to an earlier time s: with
a = alpha(t)/alpha(s) and b = var(t) - a^2 var(s) (for one step of a chain, b = beta_k),

    mean = a var(s)/var(t) x_t + alpha(s) b/var(t) x0,   btilde = b var(s)/var(t)

(Ho et al. 2020, eq. 7) and x0 the model's answer: `ancestral`, `ddim`. Nothing asks that s and t be
neighbours, so the same functions serve strided chains and continuous processes.

Through the reverse SDE dX = drift dt + eta g dW of any noise level eta (see `models`), h = t - s:

    euler_maruyama         x_s = x_t - h drift(x_t, t) + eta g(t) sqrt(h) z
    exponential            y = x/alpha:  y_s = y_t + (1 + eta^2)/2 d alpha(t) score + eta sqrt(d) z,
                           d = (var/alpha^2)(t) - (var/alpha^2)(s): the linear part exactly
    heun                   x_s = x_t - h (velocity(x_t, t) + velocity(x_t - h velocity, s))/2
    edm                    forward a little with fresh noise, then `heun` (Karras et al., alg. 2)
    predictor_corrector    a step of another sampler, then Langevin steps at s
    dpm_1s, 2s, 2m, 3m     in the log-SNR, see `dpm`

Conventions: `times` decreases, from where the run starts to where it ends; every generator yields
(t, x) for each of them, the start included, and the caller keeps what it wants. States keep the
array library, device and dtype of the start. Randomness comes from `generator` (a NumPy or torch
generator, a seed, or a `noise` object, asked once a step) and nowhere else. A start or an answer of
the model that is not finite ends the run with an ArgumentError; it is never handed on.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import states
from .arrays import Array, wide
from .dpm import dpm_1s, dpm_2m, dpm_2s, dpm_3m
from .errors import ArgumentError, function, instance, number, whole
from .models import Model
from .prior import prior as prior  # a run starts here
from .process import Process
from .states import States, Times
from .variances import Spread, Variance, alone, bridge


def forward(process: Process, x0: Array, times: Times, generator: Any) -> States:
    """The noising path itself: x at increasing times from 0, each step through `between`."""
    instance("process", process, Process)
    grid = states.grid(process, times, decreasing=False)
    x0, draws = states.start("x0", x0), states.draws(generator)
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
    variance: Variance | None = None,
    clip: float | None = None,
) -> States:
    """Ancestral sampling (Ho et al. 2020, algorithm 2): x_s = mean + sqrt(sigma^2) z.

    Parameters
    ----------
    mix : log sigma^2 = mix log b + (1 - mix) log btilde (Nichol and Dhariwal 2021, eq. 15):
        0 for sigma^2 = btilde, 1 for sigma^2 = b (beta_k in a chain), or between. The step to a
        time without noise adds none.
    variance : of `variances`, in the place of `mix`; it decides about the last step too.
    clip : bound on every coordinate of the model's x0, None for none.

    >>> import diffscience as ds
    >>> chain = ds.Chain.cosine(50)
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), chain)
    >>> x = prior(chain, 100, 1, 0)
    >>> *_, (t, x) = ancestral(oracle, x, ds.grids.strided(chain, 50), 1)
    >>> t, x.shape
    (0.0, (100, 1))
    """
    instance("model", model, Model)
    number("mix", mix, 0, 1)
    choose = _mixed(mix) if variance is None else alone(mix, variance)
    process, draws = model.process, states.draws(generator)
    grid, x = states.grid(process, times), states.start("x", x, clip)
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        step, var_s, var_t = process.between(s, t), process.var(s), process.var(t)
        x0, s2 = states.asked(partial(_step_to, choose, model, s), x, t)
        x0 = states.bounded(x0, x, t, clip)
        mean = step.scale * var_s / var_t * wide(x) + process.alpha(s) * step.var / var_t * wide(x0)
        x = states.kept(mean + _noise_of(s2, draws, x, t), x)
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

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = ddim(oracle, x, times)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    instance("model", model, Model)
    number("eta", eta, 0, 1)
    if eta > 0 and generator is None:
        raise ArgumentError("generator", "be given where eta > 0", generator)
    process, draws = model.process, states.draws(0 if generator is None else generator)
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


def euler_maruyama(
    model: Model, x: Array, times: Times, generator: Any = None, *, eta: float = 1.0
) -> States:
    """Euler-Maruyama on the reverse SDE of noise level eta; Euler on the probability flow for 0.

    eta : 0 or more; 0 needs no generator.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = prior(oracle.process, 100, 1, 0)
    >>> last(euler_maruyama(oracle, x, ds.grids.uniform(oracle.process, 50), 1)).shape
    (100, 1)
    """
    process, draws, grid, x = _begin(model, x, times, generator, eta)
    if eta > 0 and process.alpha(grid[0]) == 0:
        raise ArgumentError("times", "start before alpha is 0, where g is infinite", grid[0])
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        step = (s - t) * wide(_drift(model, x, t, eta))
        if eta > 0:
            size = eta * process.diffusion(t) * math.sqrt(t - s)
            step = step + size * wide(states.noise(draws, x))
        x = states.kept(wide(x) + step, x)
        yield s, x


def exponential(
    model: Model, x: Array, times: Times, generator: Any = None, *, eta: float = 1.0
) -> States:
    """The exponential integrator of the reverse SDE: exact for a constant alpha score.

    Zhang and Chen 2023 (with the score, not eps, held over a step). alpha must be positive where
    it starts. eta : as for `euler_maruyama`.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = exponential(oracle, x, times, 1)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    process, draws, grid, x = _begin(model, x, times, generator, eta)
    if process.alpha(grid[0]) == 0:
        raise ArgumentError("times", "start where alpha is positive", grid[0])
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        a, b = process.alpha(t), process.alpha(s)
        d = process.between(s, t).var / (a * a)
        score = states.checked(states.asked(model.score, x, t), x, t, "score")
        y = wide(x) / a + 0.5 * (1 + eta * eta) * d * a * wide(score)
        if eta > 0:
            y = y + eta * math.sqrt(d) * wide(states.noise(draws, x))
        x = states.kept(b * y, x)
        yield s, x


def heun(model: Model, x: Array, times: Times) -> States:
    """Heun's method on the probability flow (Karras et al. 2022, algorithm 1).

    Two evaluations a step; one, by Euler, in a step to a time without noise.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = heun(oracle, x, times)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    process, _, grid, x = _begin(model, x, times, None, 0.0)
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        x = _heun_step(model, x, t, s, process.var(s) == 0)
        yield s, x


def edm(
    model: Model,
    x: Array,
    times: Times,
    generator: Any,
    *,
    churn: float = 40.0,
    inflation: float = 1.0,
    low: float = 0.0,
    high: float = math.inf,
) -> States:
    """The stochastic sampler of EDM (Karras et al. 2022, algorithm 2), for any process.

    At each time the relative noise level s = sqrt(var)/alpha is raised to (1 + gamma) s by fresh
    noise, as the process itself would add it, and a Heun step goes from there.

    Parameters
    ----------
    churn : S_churn; gamma = min(S_churn/steps, sqrt(2) - 1). Never beyond the end of the process.
    inflation : S_noise, the factor on the standard deviation of the fresh noise.
    low, high : S_min and S_max, the levels s between which noise is added.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = edm(oracle, x, times, 1)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    number("churn", churn, 0)
    number("inflation", inflation, 0, ends="()")
    process, draws, grid, x = _begin(model, x, times, generator, 1.0)
    gamma = min(churn / (len(grid) - 1), math.sqrt(2) - 1)
    log_snr = np.array([process.log_snr(t) for t in grid[:-1]])
    inside = (low <= np.exp(-0.5 * log_snr)) & (np.exp(-0.5 * log_snr) <= high)
    raised = np.where(np.isfinite(log_snr), log_snr, 0.0) - 2 * math.log1p(gamma)
    ups = np.maximum(grid[:-1], process.time_of_log_snr(raised))
    yield grid[0], x
    for t, s, up, noisy in zip(grid[:-1], grid[1:], ups.tolist(), inside.tolist()):
        if gamma > 0 and noisy and t < process.T:
            step, z = process.between(t, up), wide(states.noise(draws, x))
            x = states.kept(step.scale * wide(x) + inflation * math.sqrt(step.var) * z, x)
            t = up
        x = _heun_step(model, x, t, s, process.var(s) == 0)
        yield s, x


def predictor_corrector(
    model: Model,
    x: Array,
    times: Times,
    generator: Any,
    *,
    snr: float = 0.1,
    corrections: int = 1,
    predictor: Callable[..., States] | None = None,
) -> States:
    """A predictor's step, then Langevin steps at the new time (Song et al. 2021, algorithm 1).

    x <- x + e s(x) + sqrt(2 e) z with e = 2 (snr sigma)^2: the step rule of their algorithms 4 and
    5 with |z|/|s| at its value sigma for pure noise, so that no point depends on the others of its
    batch. None is made at a time without noise. The corrector's own bias, of the order of e, stays
    however many steps there are.

    Parameters
    ----------
    snr : r > 0; corrections : Langevin steps at each time.
    predictor : a sampler (model, x, times, generator); `euler_maruyama` where left out.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = oracle.at(1.0).sample(1000, 0)
    >>> times = ds.grids.log_snr(oracle.process, 40)
    >>> *_, (t, y) = predictor_corrector(oracle, x, times, 1)
    >>> t, bool(abs(np.mean(y < 0) - 0.1) < 0.05)
    (0.0, True)
    """
    number("snr", snr, 0, ends="()")
    whole("corrections", corrections, 0)
    step_by = euler_maruyama if predictor is None else predictor
    function("predictor", step_by)
    process, draws, grid, x = _begin(model, x, times, generator, 1.0)
    source = draws if hasattr(draws, "area") else draws.generator
    yield grid[0], x
    for t, s in zip(grid[:-1], grid[1:]):
        x = last(step_by(model, x, [t, s], source))
        e = 2 * snr * snr * process.var(s)
        for _ in range(corrections if e > 0 else 0):
            score = states.checked(states.asked(model.score, x, s), x, s, "score")
            z = wide(states.noise(draws, x))
            x = states.kept(wide(x) + e * wide(score) + math.sqrt(2 * e) * z, x)
        yield s, x


@dataclass(frozen=True)
class Sampler:
    """A sampler by name, and how fast its error falls with the number of steps in theory.

    Parameters
    ----------
    run : (model, x, times, generator) -> states.
    strong : order of the root-mean-square error on a shared path, None where none holds. 2S draws
        for both parts of a step, so that its path needs the time between them too.
    weak : order of the error of expectations; of the flow map itself for a deterministic one.
    evaluations : of the model in one step.
    random : whether it draws noise.
    """

    run: Callable[..., States]
    weak: float | None
    strong: float | None = None
    evaluations: float = 1
    random: bool = False


def _plain(sampler: Callable[..., States], **options: Any) -> Callable[..., States]:
    """A deterministic sampler that is handed a generator all the same."""
    return lambda model, x, times, generator=None: sampler(model, x, times, **options)


def last(states: States) -> Array:
    """The state at the end of a run; none of the others is kept."""
    kept = deque(states, maxlen=1)
    if not kept:
        raise ArgumentError("states", "hold at least one state", "none")
    return kept[0][1]


ALL: dict[str, Sampler] = {
    "euler": Sampler(_plain(euler_maruyama, eta=0.0), 1),
    "exponential_ode": Sampler(_plain(exponential, eta=0.0), 1),
    "ddim": Sampler(_plain(ddim), 1),
    "heun": Sampler(_plain(heun), 2, evaluations=2),
    "dpm_1s": Sampler(_plain(dpm_1s), 1),
    "dpm_2s": Sampler(_plain(dpm_2s), 2, evaluations=2),
    "dpm_2m": Sampler(_plain(dpm_2m), 2),
    "dpm_3m": Sampler(_plain(dpm_3m), 3),
    "euler_maruyama": Sampler(euler_maruyama, 1, 1, random=True),
    "exponential": Sampler(exponential, 1, 1, random=True),
    "ancestral": Sampler(ancestral, 1, 1, random=True),
    "ddim_sde": Sampler(partial(ddim, eta=1.0), 1, 1, random=True),
    "edm": Sampler(edm, 2, evaluations=2, random=True),
    "dpm_1s_sde": Sampler(partial(dpm_1s, eta=1.0), 1, 1, random=True),
    "dpm_2s_sde": Sampler(partial(dpm_2s, eta=1.0), 2, 1, evaluations=2, random=True),
    "dpm_2m_sde": Sampler(partial(dpm_2m, eta=1.0), 2, 1, random=True),
    "dpm_3m_sde": Sampler(partial(dpm_3m, eta=1.0), 2, 1, random=True),
    "predictor_corrector": Sampler(predictor_corrector, None, evaluations=2, random=True),
}
"""Every sampler, by name. Orders are in the longest step; see `studies/solver_orders.py`."""


# ---------------------------------------------------------------- what they share


def _mixed(mix: float) -> Variance:
    """b^mix btilde^(1 - mix), and 0 in the step to a time without noise."""

    def variance(model: Model, x: Array, s: float, t: float) -> tuple[Array, float]:
        _, b, small = bridge(model.process, s, t)
        return model.x0(x, t), b**mix * small ** (1 - mix) if small > 0 else 0.0

    return variance


def _step_to(variance: Variance, model: Model, s: float, x: Array, t: float) -> Any:
    return variance(model, x, s, t)


def _noise_of(s2: Any, draws: Any, x: Array, t: float) -> Any:
    """Fresh noise of the variance s2, (*b, D); none is drawn for 0."""
    if isinstance(s2, float):
        number("variance", s2, 0)
        return math.sqrt(s2) * wide(states.noise(draws, x)) if s2 > 0 else 0.0
    noise = Spread.of(s2, x).root(wide(states.noise(draws, x)))
    return states.checked(noise, x, t, "root", "variance")


def _begin(
    model: Model, x: Array, times: Times, generator: Any, eta: float
) -> tuple[Process, Any, list[float], Array]:
    instance("model", model, Model)
    number("eta", eta, 0)
    if eta > 0 and generator is None:
        raise ArgumentError("generator", "be given where noise is drawn", generator)
    process, grid = model.process, states.grid(model.process, times)
    draws = states.draws(0 if generator is None else generator)
    return process, draws, grid, states.start("x", x)


def _drift(model: Model, x: Array, t: float, eta: float) -> Array:
    drift = states.asked(lambda x, t: model.drift(x, t, eta), x, t)
    return states.checked(drift, x, t, "drift")


def _heun_step(model: Model, x: Array, t: float, s: float, euler: bool) -> Array:
    first = wide(_drift(model, x, t, 0.0))
    guess = states.kept(wide(x) + (s - t) * first, x)
    if euler:
        return guess
    second = wide(_drift(model, guess, s, 0.0))
    return states.kept(wide(x) + 0.5 * (s - t) * (first + second), x)
