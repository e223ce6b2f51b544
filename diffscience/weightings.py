"""Weightings: how much the error of a denoiser counts at each time, and the least it can be.

    loss = E over t, x0, eps of   w(t) |eps - eps_model(x_t, t)|^2

At one x_t the error e of eps fixes all others. With a = alpha, s^2 = var, SNR = a^2/s^2,
r = log SNR and -r' = g^2/s^2, the same loss is

    on x0        w a^2/s^2          |x0 error|^2 = (s/a)^2 |e|^2
    on score     w s^2              |score error|^2 = |e|^2/s^2
    on v         w/(a + s^2/a)^2    |v error|^2 = (a + s^2/a)^2 |e|^2
    on velocity  w (2s/g^2)^2       |velocity error|^2 = (g^2/2s)^2 |e|^2

A weighting is a function (process, t) -> w (*b) in float64; `ALL` has the customary ones, and
functools.partial sets their numbers. `losses.weighted` trains with any of them, whatever the
network predicts. A training time that is not uniform weighs too: by its density (see `times`).

What |e|^2 cannot fall below, for any model, is E|eps - E[eps|x_t]|^2 = a^2/s^2 E tr Cov[x0|x_t].

Conventions: t is a number or an array (*b). Some weights are infinite, and some are 0/0, where the
process has no noise or no data left; so t is held within 1e-18 and 1 - 2^-53 of T, close enough to
give every limit that exists. On a chain w stands at the integers 1..K; what needs a derivative in t
asks for continuous time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, finite, is_traced, namespace
from .chain import Chain
from .errors import ArgumentError, function, instance, number
from .models import Oracle
from .process import Process

Weighting = Callable[[Process, Array], Array]


def inside(process: Process, t: Array) -> Array:
    """The times in float64, held where the process has both noise and data; 1..K on a chain.

    >>> import diffscience as ds
    >>> bool(0 < inside(ds.VP(), 0.0) < 1e-15)
    True
    """
    instance("process", process, Process)
    times = process._times("t", t)
    xp = namespace(times)
    if not isinstance(process, Chain):
        return xp.clip(times, 1e-18 * process.T, (1 - 2.0**-53) * process.T)
    if not is_traced(times) and bool(xp.any(times < 1)):
        raise ArgumentError("t", "lie where the process has noise", t)
    return times


def _snr(process: Process, t: Array) -> Array:
    return process.alpha(t) ** 2 / process.var(t)


def _speed(process: Process, t: Array) -> Array:
    """-r' = g^2/s^2."""
    return process.dvar(t) / process.var(t) - 2 * process.dalpha(t) / process.alpha(t)


# ---------------------------------------------------------------- uniform in each currency


def simple(process: Process, t: Array) -> Array:
    """1: |eps error|^2, L_simple (Ho et al. 2020, eq. 14); s^2 on the score (Song et al. 2021).

    >>> import diffscience as ds
    >>> simple(ds.VP(), np.array([0.0, 0.5])).tolist()
    [1.0, 1.0]
    """
    return 0.0 * inside(process, t) + 1.0


def x0(process: Process, t: Array) -> Array:
    """1/SNR: |x0 error|^2.

    >>> import diffscience as ds
    >>> float(x0(ds.EDM(), 3.0))
    9.0
    """
    return 1 / _snr(process, inside(process, t))


def score(process: Process, t: Array) -> Array:
    """1/s^2: |score error|^2, explicit score matching without a weight.

    >>> import diffscience as ds
    >>> float(score(ds.EDM(), 4.0))
    0.0625
    """
    return 1 / process.var(inside(process, t))


def v(process: Process, t: Array) -> Array:
    """(a + s^2/a)^2: |v error|^2; "SNR + 1" on x0 where a^2 + s^2 = 1 (Salimans and Ho 2022, 4).

    >>> import diffscience as ds
    >>> float(v(ds.EDM(), 2.0))
    25.0
    """
    t = inside(process, t)
    return (process.alpha(t) + process.var(t) / process.alpha(t)) ** 2


def velocity(process: Process, t: Array) -> Array:
    """(g^2/2s)^2: |velocity error|^2, flow matching (Lipman et al. 2023); in continuous time.

    >>> import diffscience as ds
    >>> float(velocity(ds.EDM(), 2.0))  # the velocity is eps
    1.0
    """
    t = inside(process, t)
    return 0.25 * process.var(t) * _speed(process, t) ** 2


# ---------------------------------------------------------------- those of the bounds


def likelihood(process: Process, t: Array) -> Array:
    """g^2/s^2: g^2 on the score, the likelihood weighting (Song et al. 2021b, theorem 1).

    Continuous time; equal to twice `bound`.

    >>> import diffscience as ds
    >>> float(likelihood(ds.EDM(), 0.5))  # g^2 = 2t
    4.0
    """
    t = inside(process, t)
    return _speed(process, t)


def bound(process: Process, t: Array, mix: float = 0.0) -> Array:
    """-r'/2, whose integral over t is the variational bound (Kingma et al. 2021, section 4).

    On a chain beta_k^2/(2 s_k^2 (1 - beta_k) var(k)), whose sum over k = 1..K is that part of the
    bound which depends on the model (Ho et al. 2020, eq. 12); with s_k^2 = btilde_k, that is
    (SNR(k - 1)/SNR(k) - 1)/2.

    mix : on a chain, of s_k^2 = chain.variances(mix).

    >>> import diffscience as ds
    >>> chain = ds.Chain.linear(10)
    >>> r = chain.log_snr(np.array([6.0, 7.0]))
    >>> bool(np.isclose(bound(chain, 7.0), (np.exp(r[0] - r[1]) - 1) / 2))
    True
    """
    number("mix", mix, 0, 1)
    t = inside(process, t)
    if not isinstance(process, Chain):
        return 0.5 * _speed(process, t)
    beta, var = process.betas, process.var(np.arange(1, process.K + 1))
    return process.entry(beta**2 / (2 * process.variances(mix) * (1 - beta) * var), t - 1)


def sigmoid(process: Process, t: Array, bias: float = 2.0) -> Array:
    """`bound` times S(bias - r), S(u) = 1/(1 + e^-u): less weight where there is little noise.

    Kingma and Gao 2023, who write S(-r + k), and Hoogeboom et al. 2024, S(b - r): the same sign of
    the bias, and r the log of a^2/s^2, not of a/s. Both put it beside -r'/2, so that the loss does
    not depend on the process.

    >>> import diffscience as ds
    >>> float(sigmoid(ds.EDM(), 1.0, bias=0.0) / bound(ds.EDM(), 1.0))  # r = 0
    0.5
    """
    number("bias", bias)
    inner = inside(process, t)
    xp, r = namespace(inner), process.log_snr(inner)
    return bound(process, t) * xp.exp(-xp.logaddexp(0.0 * r, r - bias))


# ---------------------------------------------------------------- by the signal-to-noise ratio


def edm(process: Process, t: Array, sigma_data: float = 0.5) -> Array:
    """(s^2 + a^2 d^2)/(a d)^2, d = sigma_data: |F error|^2 (Karras et al. 2022, table 1).

    There (sigma^2 + d^2)/(sigma d)^2 on x0, and log-normal noise levels: `times.log_normal`.

    >>> import diffscience as ds
    >>> float(edm(ds.EDM(), 2.0, sigma_data=1.0))
    5.0
    """
    number("sigma_data", sigma_data, 0, ends="()")
    return 1 + 1 / (sigma_data**2 * _snr(process, inside(process, t)))


def min_snr(process: Process, t: Array, gamma: float = 5.0) -> Array:
    """min(SNR, gamma)/SNR: min(SNR, gamma) on x0 (Hang et al. 2023, section 3).

    >>> import diffscience as ds
    >>> float(min_snr(ds.EDM(), 0.25)), float(min_snr(ds.EDM(), 2.0))  # SNR = 16 and 1/4
    (0.3125, 1.0)
    """
    number("gamma", gamma, 0, ends="()")
    level = gamma / _snr(process, inside(process, t))
    return namespace(level).clip(level, None, 1.0)


def truncated_snr(process: Process, t: Array) -> Array:
    """max(SNR, 1)/SNR: max(SNR, 1) on x0 (Salimans and Ho 2022, section 4).

    >>> import diffscience as ds
    >>> float(truncated_snr(ds.EDM(), 0.25)), float(truncated_snr(ds.EDM(), 2.0))
    (1.0, 4.0)
    """
    inverse = 1 / _snr(process, inside(process, t))
    return namespace(inverse).clip(inverse, 1.0, None)


def p2(process: Process, t: Array, k: float = 1.0, gamma: float = 1.0) -> Array:
    """1/(k + SNR)^gamma (Choi et al. 2022, section 3).

    >>> import diffscience as ds
    >>> float(p2(ds.EDM(), 0.5))
    0.2
    """
    number("k", k, 0, ends="()")
    number("gamma", gamma, 0)
    return (k + _snr(process, inside(process, t))) ** -gamma


ALL: dict[str, Weighting] = {
    "simple": simple,
    "x0": x0,
    "score": score,
    "v": v,
    "velocity": velocity,
    "likelihood": likelihood,
    "bound": bound,
    "sigmoid": sigmoid,
    "edm": edm,
    "min_snr": min_snr,
    "truncated_snr": truncated_snr,
    "p2": p2,
}
"""Every weighting with its customary numbers, by name."""


# ---------------------------------------------------------------- the least value of each


def uncertainty(oracle: Oracle, t: float) -> float:
    """E tr Cov[x0 | x_t], the mean squared error of the best denoiser, by quadrature; D <= 2.

    >>> import diffscience as ds
    >>> normal = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> round(uncertainty(ds.Oracle(normal, ds.EDM()), 1.0), 12)
    0.5
    """
    instance("oracle", oracle, Oracle)
    finite("t", t, ())
    x, w = oracle.at(t).quadrature()
    return float(np.sum(w * np.trace(oracle.posterior_cov(x, t), axis1=-2, axis2=-1)))


def best_simple(oracle: Oracle, t: float) -> float:
    """The least value of L_simple at time t, alpha^2/sigma^2 E tr Cov[x0 | x_t]; D <= 2.

    >>> import diffscience as ds
    >>> chain = ds.Chain.linear(10, 0.1, 0.5)
    >>> normal = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> round(best_simple(ds.Oracle(normal, chain), 3), 9) == round(float(chain.alpha(3)) ** 2, 9)
    True
    """
    instance("oracle", oracle, Oracle)
    process = oracle.process
    finite("t", t, ())
    if not process.var(t) > 0:
        raise ArgumentError("t", "lie where the process has noise", t)
    return float(process.alpha(t) ** 2 / process.var(t) * uncertainty(oracle, t))


def best(oracle: Oracle, t: Any, weight: Weighting = simple) -> np.ndarray:
    """The least mean that `losses.weighted` can have at each of the times t (m,), for any model.

    w(t) E|eps - E[eps|x_t]|^2, by quadrature (D <= 2). What a model's loss has above it is its
    excess, w(t) E|E[eps|x_t] - eps_model|^2.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> found = best(oracle, [0.2, 0.4], likelihood)
    >>> bool(np.isclose(found[1], likelihood(oracle.process, 0.4) * best_simple(oracle, 0.4)))
    True
    """
    instance("oracle", oracle, Oracle)
    function("weight", weight)
    times = np.asarray(finite("t", t, (None,)))
    least = np.array([best_simple(oracle, float(u)) for u in times])
    return np.asarray(weight(oracle.process, times)) * least
