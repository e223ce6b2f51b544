"""Girsanov's bound: what the error of a score along time can cost in KL, and what it does cost.

The reverse SDE of noise level eta > 0 of a model, run from the prior N(0, s^2 I) at time T down to
t_end in continuous time, ends in a law q_end. Two paths of one diffusion and two drifts b apart by
(1 + eta^2)/2 g^2 (s_model - s) have the KL divergence E int |b' - b|^2/(2 eta^2 g^2) dt, hence

    KL(p_end || q_end) <= KL(p_T || N(0, s^2 I)) + c/2 int g^2 E_{p_t}|s_model - s|^2 dt
    c = ((1 + eta^2)/(2 eta))^2,    1 for eta = 1, where it is least

(Song et al. 2021, "Maximum likelihood training of score-based diffusion models", theorem 1; Chen et
al. 2023, "Sampling is as easy as learning the score", section 5). With r the log-SNR,

    g^2 dt = -var dr,    1/2 int g^2 E|s_model - s|^2 dt = 1/2 int E|eps_model - eps|^2 dr

The bound speaks of prior and score alone: of no steps, of nothing after t_end, and not of the
probability flow, whose KL it need not bound. What it bounds is known on a line, by Fokker-Planck.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from . import fokker_planck
from .arrays import numpy
from .chain import Chain
from .divergences import fisher_error, kl_on_grid
from .errors import ArgumentError, instance, number, whole
from .mixture import GaussianMixture
from .models import Model, Oracle
from .quadrature import panels

END = 1e-3  # of T, where nothing else is asked for
_ORDER = 6  # nodes of a panel
_REACH = 10.0  # standard deviations, of the widest law, that the cells of Fokker-Planck span
_MASS = 1e-12  # of the largest density, below which a cell has no part in a KL


class Bound(NamedTuple):
    """The two terms of the bound in nats, and their sum."""

    prior: float
    score: float

    @property
    def total(self) -> float:
        """prior + score."""
        return self.prior + self.score


def prior_law(oracle: Oracle, t: float, variance: float | None = None) -> GaussianMixture:
    """The prior N(0, variance I) of runs that start at t; var(t) where the variance is left out.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.EDM(10.0))
    >>> prior_law(oracle, 10.0).cov
    array([[100.]])
    """
    instance("oracle", oracle, Oracle)
    number("start", t, 0, oracle.process.T, "(]")
    if isinstance(oracle.process, Chain):
        raise ArgumentError("oracle", "belong to a process in continuous time", oracle.process)
    s2 = float(oracle.process.var(t)) if variance is None else variance
    number("variance", s2, 0, ends="()")
    dim = oracle.law.dim
    return GaussianMixture([1.0], np.zeros((1, dim)), np.full((1, dim), float(s2)))


def bound(
    model: Model,
    oracle: Oracle,
    *,
    start: float | None = None,
    end: float | None = None,
    variance: float | None = None,
    eta: float = 1.0,
    intervals: int = 12,
) -> Bound:
    """Girsanov's bound of KL(p_end || q_end) for the reverse SDE of a model, by quadrature, D <= 2.

    Parameters
    ----------
    model : anything with `score(x, t)`. oracle : of a process in continuous time.
    start, end : T and T/1000 where left out; alpha > 0 at the start and var > 0 at the end.
    variance : s^2 of the prior, var(start) where left out.
    eta : noise level, above 0.
    intervals : panels in the log-SNR, of six Gauss-Legendre nodes each.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> exact = bound(oracle, oracle)
    >>> exact.score, 0 < exact.prior < 1e-3
    (0.0, True)
    """
    number("eta", eta, 0, ends="()")
    whole("intervals", intervals, 1)
    a, b, prior = _ends(oracle, start, end, variance)
    process = oracle.process
    low, high = float(process.log_snr(a)), float(process.log_snr(b))
    if not math.isfinite(low):
        raise ArgumentError("start", "be a time at which alpha is positive", a)
    r, weights = panels(np.linspace(low, high, intervals + 1), _ORDER)
    times = np.clip(process.time_of_log_snr(r), b, a)
    rates = process.var(times) * fisher_error(model, oracle, times).value
    c = (0.5 * (1 + eta * eta) / eta) ** 2
    first = float(kl_on_grid(prior.log_prob, oracle.at(a)).value)
    return Bound(first, 0.5 * c * float(weights @ rates))


def kl(
    model: Model,
    oracle: Oracle,
    *,
    start: float | None = None,
    end: float | None = None,
    variance: float | None = None,
    eta: float = 1.0,
    cells: int = 1200,
    steps: int = 200,
) -> float:
    """KL(p_end || q_end) itself, on a line, q_end by the Fokker-Planck equation of the reverse SDE.

    No points are drawn and no density is fitted: both laws are given as masses of cells, whose KL
    is at most that of the laws and reaches it as the cells shrink. The error is of second order in
    both cells and steps; with the exact score and start what is left is the floor of the
    measurement, 1e-7 nats on two modes. Steps too long for a stiff model make the density ring
    below 0, where it has no logarithm: an ArgumentError.

    Parameters
    ----------
    cells : equal ones, over ten deviations of the widest of p_start, the prior and p_end.
    steps : of Crank-Nicolson, even in t^(1/3).
    others : as for `bound`.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> 0 <= kl(oracle, oracle, cells=300, steps=100) < 1e-3
    True
    """
    from scipy.special import rel_entr

    number("eta", eta, 0, ends="()")
    a, b, prior = _ends(oracle, start, end, variance)
    if oracle.law.dim != 1:
        raise ArgumentError("oracle", "have a law on a line", f"dimension {oracle.law.dim}")
    whole("cells", cells, 2)
    whole("steps", steps, 1)
    process = oracle.process
    laws = [prior, oracle.at(a), oracle.at(b)]
    means = [float(numpy(law.mean)[0]) for law in laws]
    reach = _REACH * max(math.sqrt(float(numpy(law.cov)[0, 0])) for law in laws)
    edges = fokker_planck.cells(min(means) - reach, max(means) + reach, cells)
    times = np.linspace(a ** (1 / 3), b ** (1 / 3), steps + 1) ** 3
    times[[0, -1]] = a, b

    def back(u: float) -> float:
        return min(max(a - u, b), a)

    def drift(x: np.ndarray, u: float) -> np.ndarray:
        return -numpy(model.drift(x[:, None], back(u), eta))[:, 0]

    def diffusion(u: float) -> float:
        return 0.5 * (eta * float(process.diffusion(back(u)))) ** 2

    run = fokker_planck.evolve(
        fokker_planck.averages(prior, edges), edges, drift, diffusion, a - times
    )
    *_, (_, density) = run
    p = fokker_planck.averages(laws[2], edges)
    if np.any(density[p > _MASS * p.max()] <= 0):
        rule = "be so many that the density stays above 0 where the law has mass"
        raise ArgumentError("steps", rule, steps)
    gap = rel_entr(p, np.maximum(density, np.finfo(float).tiny)) - p + density
    return float(gap @ np.diff(edges))


def _ends(
    oracle: Oracle, start: float | None, end: float | None, variance: float | None
) -> tuple[float, float, GaussianMixture]:
    """The times of a run and its prior, checked."""
    instance("oracle", oracle, Oracle)
    T = oracle.process.T
    a, b = T if start is None else start, END * T if end is None else end
    prior = prior_law(oracle, a, variance)
    number("end", b, 0, a, "()")
    return float(a), float(b), prior
