"""The variational bound of denoising diffusion, term by term, and the best values attainable.

    bound       = L_0 + sum over k = 2..K of L_(k-1) + L_K  >=  -log p_model(x0)
    L_K         = KL(q(x_K | x0) || N(0, I))
    L_(k-1)     = KL(q(x_(k-1) | x_k, x0) || N(mean_model, s_k^2 I))
                = D/2 (r - 1 - log r) + w_k E |eps - eps_model|^2,   r = btilde_k / s_k^2,
                  w_k = beta_k^2 / (2 s_k^2 (1 - beta_k)(1 - abar_k))
    L_0         = -log N(x0; mean_model(x_1, 1), s_1^2 I)

(Ho et al. 2020, eqs. 5, 8 and 12; the square in w_k is missing from the note "ddpm".) The variances
are log s_k^2 = mix log beta_k + (1 - mix) log btilde_k, with btilde_1, which is 0, replaced by
btilde_2 (Nichol and Dhariwal 2021); or any of `variances`, with S in the place of s_k^2 I:

    L_(k-1)     = (btilde_k tr S^-1 - D + log det S - D log btilde_k + d^T S^-1 d)/2,
                  d = c (x0 - x0_model)

Bounds are in nats per point; `Bound.in_bits` converts.

With the exact model E |eps - E[eps|x]|^2 = alpha^2/sigma^2 E tr Cov(x0 | x_k), which gives the best
value that any model can attain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import weightings
from .arrays import Array, Draws, finite, like, namespace, numpy, wide
from .chain import Chain
from .errors import ArgumentError, instance
from .losses import noised, simple
from .models import Model, Oracle
from .transition import floating
from .variances import Spread, Variance, alone, bridge, on_chain
from .weightings import best_simple as best_simple  # what any model can attain of L_simple


@dataclass(frozen=True)
class Bound:
    """The variational bound, term by term: in nats a point, or in bits a dimension.

    terms : (K + 1,) L_0, L_1, ..., L_(K-1), L_K.
    errors : (K + 1,) standard errors of the terms, 0 where they are exact.
    total, error : their sum and its standard error (the terms share their data).
    dim : D.
    unit : "nats", natural and per point; or "bits", per dimension, as `in_bits` gives them.
    """

    terms: np.ndarray
    errors: np.ndarray
    total: float
    error: float
    dim: int
    unit: str = "nats"

    @property
    def L_0(self) -> float:
        """-E log p(x0 | x_1)."""
        return float(self.terms[0])

    @property
    def L_between(self) -> float:
        """The sum of L_1 ... L_(K-1)."""
        return float(np.sum(self.terms[1:-1]))

    @property
    def L_K(self) -> float:
        """The mismatch with the prior at K."""
        return float(self.terms[-1])

    @property
    def bits(self) -> float:
        """The total in bits per dimension."""
        return self.in_bits().total

    def in_bits(self) -> Bound:
        """The same bound, every term and error of it, in bits per dimension.

        >>> Bound(np.array([1.0, 2.0]), np.zeros(2), 3.0, 0.0, 2).in_bits().L_K == 1 / math.log(2)
        True
        """
        if self.unit == "bits":
            return self
        nats = self.dim * math.log(2)
        return Bound(
            self.terms / nats, self.errors / nats, self.total / nats, self.error / nats,
            self.dim, "bits",
        )  # fmt: skip


def variances(chain: Chain, mix: float = 0.0) -> np.ndarray:
    """s_k^2 for k = 1..K, (K,), between btilde (mix = 0) and beta (mix = 1) on the log scale.

    >>> bool(np.allclose(variances(Chain.linear(10), 1.0), Chain.linear(10).betas))
    True
    """
    instance("chain", chain, Chain)
    return chain.variances(mix)


def _weights(chain: Chain, mix: float) -> tuple[np.ndarray, np.ndarray]:
    """w_k and the model-free part of each term per dimension, for k = 1..K."""
    s2 = variances(chain, mix)
    k = np.arange(1, chain.K + 1)
    w = weightings.bound(chain, k, mix)
    r = np.ones(chain.K)
    r[1:] = (chain.betas * chain.var(k - 1) / chain.var(k))[1:] / s2[1:]
    free = 0.5 * (r - 1 - np.log(r))
    free[0] = 0.5 * np.log(2 * math.pi * s2[0])  # L_0 is a log-density, not a divergence
    return w, free


def _prior(chain: Chain, squared: Array, dim: int) -> Array:
    """KL(N(alpha x0, var I) || N(0, I)) for |x0|^2 = squared."""
    var = chain.var(chain.K)
    return 0.5 * (chain.alpha(chain.K) ** 2 * squared + dim * (var - 1 - math.log(var)))


def bound(
    model: Model,
    x0: Array,
    generator: Any,
    *,
    mix: float = 0.0,
    variance: Variance | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Bound:
    """The bound of a model of a `Chain` on data x0 (n, D), one noise per point and step.

    Every term of every point is drawn independently; `error` is that of the mean over the points.

    variance : of `variances`, in the place of `mix`.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), Chain.cosine(50))
    >>> drawn = bound(oracle, oracle.law.sample(2000, 0), 1)
    >>> bool(abs(drawn.total - best_bound(oracle).total) < 5 * drawn.error)
    True
    """
    chain = on_chain(model)
    w, free = _weights(chain, mix)
    if variance is not None:
        alone(mix, variance)
    x0 = floating("x0", x0)
    finite("x0", x0)
    if x0.ndim != 2 or len(x0) < 2:
        raise ArgumentError("x0", "be two or more points (n, D)", tuple(x0.shape))
    n, dim = x0.shape
    draws = Draws(generator)
    rows = np.empty((n, chain.K + 1))
    for k in progress(range(1, chain.K + 1)):
        noise = namespace(x0).astype(like(draws.normal(n, dim), x0), x0.dtype, copy=False)
        if variance is None:
            off = numpy(simple(model, x0, float(k), noise))
            rows[:, k - 1] = dim * free[k - 1] + w[k - 1] * off
        else:
            rows[:, k - 1] = numpy(_term(model, x0, float(k), noise, variance))
    rows[:, -1] = _prior(chain, np.sum(numpy(wide(x0)) ** 2, axis=-1), dim)
    if not np.isfinite(rows).all():
        k = int(np.argmin(np.isfinite(rows).all(axis=0))) + 1
        what = "eps" if variance is None else "x0, and the variance be positive"
        raise ArgumentError("model", f"answer with a finite {what} (step {k})", "NaN or infinity")
    totals, root = rows.sum(axis=1), math.sqrt(n)
    errors = rows.std(axis=0, ddof=1) / root
    return Bound(
        rows.mean(axis=0), errors, float(totals.mean()), float(totals.std(ddof=1)) / root, dim
    )


def _divergence(k: float, small: float, spread: Spread, off: Array) -> Array:
    """A term of the bound, (n,), with btilde and d^T S^-1 d; for k = 1 a log-density."""
    dim = spread.values.shape[-1]
    if k == 1:
        return 0.5 * (dim * math.log(2 * math.pi) + spread.log_det + off)
    inverse = namespace(off).sum(1 / spread.values, axis=-1)
    return 0.5 * (small * inverse - dim + spread.log_det - dim * math.log(small) + off)


def _term(model: Model, x0: Array, k: float, noise: Array, variance: Variance) -> Array:
    """The term of step k for each point and its noise, (n,)."""
    x = noised(model.process, x0, k, noise)
    guess, s2 = variance(model, x, k - 1, k)
    c, _, small = bridge(model.process, k - 1, k)
    spread = Spread.of(s2, x)
    return _divergence(k, small, spread, spread.squared(c * (wide(x0) - wide(guess))))


def _best_term(oracle: Oracle, k: float, variance: Variance) -> float:
    """The mean of `_term` for the exact model, by quadrature."""
    x, w = oracle.at(k).quadrature()
    _, s2 = variance(oracle, x, k - 1, k)
    c, _, small = bridge(oracle.process, k - 1, k)
    spread = Spread.of(s2, x)
    off = spread.ratio(c * c * oracle.posterior_cov(x, k))
    return float(np.sum(w * _divergence(k, small, spread, off)))


def best_bound(oracle: Oracle, *, mix: float = 0.0, variance: Variance | None = None) -> Bound:
    """The least bound that any model of the chain can attain with these variances, exactly.

    By quadrature (D <= 2). It lies above the entropy of the law by the price of Gaussian steps.

    variance : of `variances`, in the place of `mix`; `variances.exact(oracle)` gives the least of
        all.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> best = best_bound(ds.Oracle(law, Chain.linear(10, 0.1, 0.5)))
    >>> bool(best.total > law.entropy())
    True
    """
    instance("oracle", oracle, Oracle)
    chain = on_chain(oracle)
    w, free = _weights(chain, mix)
    if variance is not None:
        alone(mix, variance)
    dim, steps = oracle.law.dim, range(1, chain.K + 1)
    mean, cov = numpy(oracle.law.mean), numpy(oracle.law.cov)
    prior = _prior(chain, float(mean @ mean + np.trace(cov)), dim)
    if variance is None:
        between = dim * free + w * np.array([best_simple(oracle, float(k)) for k in steps])
    else:
        between = np.array([_best_term(oracle, float(k), variance) for k in steps])
    terms = np.append(between, prior)
    return Bound(terms, np.zeros(len(terms)), float(terms.sum()), 0.0, dim)


__all__ = ["Bound", "best_bound", "best_simple", "bound", "variances"]
