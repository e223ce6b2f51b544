"""Divergences of a model's score or density from the truth, with standard errors.

    Fisher divergence at t    E_{x ~ p_t} |s_model(x, t) - s(x, t)|^2
    KL divergence             E_{x ~ p} [log p(x) - log q(x)],   p the truth, q the model

Each is an expectation under the truth: by the law's own quadrature (D <= 2), or by Monte Carlo over
true points with the standard error of a mean. The floor of both is 0 exactly, since the truth
against itself gives 0 at every point.

Conventions: models and densities are called with float64 NumPy points (M, D), at most 65,536 at a
time, and may answer with arrays or tensors. Fisher divergences in 1/distance^2, KL in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array, finite, numpy
from .errors import ArgumentError, function, instance, whole
from .estimates import BLOCK, ROWS, Estimate, random_numbers, row_blocks
from .models import Model, Oracle
from .targets import Target


def fisher_error(
    model: Model,
    oracle: Oracle,
    t: Array,
    n: int | None = None,
    generator: Any = None,
    *,
    relative: bool = False,
) -> Estimate:
    """E_{x ~ p_t} |s_model(x, t) - s(x, t)|^2, the squared error of a score in the Fisher norm.

    Parameters
    ----------
    model : anything with `score(x, t)`; it is called with float64 NumPy points (M, D). One of S
        `members` is called with (S, M, D), the same points for all; the answer is (*t.shape, S).
    oracle : the exact model; p_t is its law at t.
    t : a time, or times (T,): one answer for each.
    n : number of points x ~ p_t for Monte Carlo; None for the quadrature of p_t (D <= 2), exact.
    generator : for Monte Carlo. The same seed gives common points to two models.
    relative : divide by the Fisher information E|s|^2: a score that is c times the true one scores
        (c - 1)^2 at every t.

    Returns
    -------
    Estimate : standard error from the variance of the mean, and of the ratio by the delta method
        (Cochran, "Sampling Techniques", 1977, 6.4); 0 by quadrature. The floor is 0 exactly: the
        true score has no error on any points.

    Hyvarinen, JMLR 6 (2005) 695, equation 2; the norm in which the KL divergence falls along a
    diffusion (Song et al., arXiv:2101.09258, theorem 1).

    Examples
    --------
    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> print(fisher_error(oracle, oracle, 0.5))
    0 ± 0 (floor 0 ± 0)
    """
    if not callable(getattr(model, "score", None)):
        raise ArgumentError("model", "have a function score(x, t)", model)
    instance("oracle", oracle, Oracle)
    times = numpy(finite("t", t))
    if n is not None:
        whole("n", n, 2)
    draws = None if n is None else random_numbers(generator)
    rows = [_fisher_error_at(model, oracle, float(s), n or 0, draws, relative) for s in times.flat]
    found = np.asarray(rows).reshape(times.size, 2, *_crowd(model))
    value, error = np.moveaxis(found, 1, 0).reshape(2, *times.shape, *_crowd(model))
    zero = np.zeros_like(value)
    return Estimate(value[()], error[()], zero[()], zero[()], n or 0)


def _fisher_error_at(
    model: Model,
    oracle: Oracle,
    t: float,
    n: int,
    generator: np.random.Generator | None,
    relative: bool,
) -> tuple[Any, Any]:
    law = oracle.law.diffuse(oracle.process.at(t))
    if generator is None:
        x, weights = law.quadrature()
    else:
        x, weights = law.sample(n, generator), np.full(n, 1 / n)
    crowd = _crowd(model)
    errors, squares = np.empty((*crowd, len(x))), np.empty(len(x))
    for rows in row_blocks(len(x), BLOCK // ROWS * math.prod(crowd)):
        truth = numpy(oracle.score(x[rows], t))
        score = numpy(model.score(np.tile(x[rows], (*crowd, 1, 1)), t))
        if score.shape != (*crowd, *truth.shape):
            rule = f"answer with shape {(*crowd, *truth.shape)}"
            raise ArgumentError("model", rule, f"a score of shape {score.shape}")
        if not np.isfinite(score).all():
            bad = int(np.sum(~np.isfinite(score).all(axis=-1)))
            rule = f"answer with a finite score at t = {t:g}"
            raise ArgumentError("model", rule, f"{bad} rows with NaN or infinity")
        errors[..., rows] = np.sum((score - truth) ** 2, axis=-1)
        squares[rows] = np.sum(truth**2, axis=-1)
    information = float(weights @ squares) if relative else 1.0
    value = errors @ weights / information
    if generator is None:
        return value, np.zeros_like(value)
    residual = errors - np.multiply.outer(value, squares) if relative else errors
    return value, np.std(residual, axis=-1, ddof=1) / math.sqrt(len(x)) / information


def _crowd(model: Any) -> tuple[int, ...]:
    """(S,) of a model of S members, else ()."""
    members = getattr(model, "members", None)
    return () if members is None else (members,)


def kl_on_grid(
    log_density: Callable[[np.ndarray], Array], law: Target, *, normalised: bool = True
) -> Estimate:
    """KL(truth || model) = E_p[log p - log q] by the law's own quadrature, D <= 2.

    log_density : x (M, D) -> log q(x) (M,), in nats.
    normalised : False if q is known up to a factor: the answer is then a *lower bound*, the
        divergence from q restricted to where p has mass, and its error is NaN. log Z is added with
        Z = E_p[q / p] on the same points, which see none of the mass that q has elsewhere; no
        finite grid sees all of it. The bound is below the divergence by -log of the share of q's
        mass that p's points see; for the divergence itself give a normalised density.

    The error is 0 up to the quadrature's own where q is normalised. So is the floor: the truth
    against itself gives 0 at every point. A model without mass at a true point gives infinity.

    Examples
    --------
    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> model = ds.GaussianMixture([1.0], [[0.5]], [[[1.0]]])
    >>> print(kl_on_grid(model.log_prob, law))
    0.125 ± 0 (floor 0 ± 0)
    """
    function("log_density", log_density)
    instance("law", law, Target)
    x, weights = law.quadrature()
    gap = _log_ratio(log_density, law, x)
    value = float(weights @ gap)
    if not normalised:
        value += float(np.logaddexp.reduce(np.log(weights) - gap))
        return Estimate(value, math.nan, 0.0, 0.0)
    return Estimate(value, 0.0, 0.0, 0.0)


def kl_by_samples(
    log_density: Callable[[np.ndarray], Array], law: Target, n: int, generator: Any
) -> Estimate:
    """KL(truth || model) = E_p[log p - log q] over n true points, any dimension.

    log_density : x (M, D) -> log q(x) (M,), normalised, in nats. The standard error is that of a
    mean; the floor is 0 exactly, as in `kl_on_grid`. The estimate itself may be negative.

    Examples
    --------
    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> print(kl_by_samples(law.log_prob, law, 1000, 0))
    0 ± 0 (floor 0 ± 0)
    """
    function("log_density", log_density)
    instance("law", law, Target)
    whole("n", n, 2)
    gap = _log_ratio(log_density, law, law.sample(n, random_numbers(generator)))
    return Estimate(float(np.mean(gap)), float(np.std(gap, ddof=1)) / math.sqrt(n), 0.0, 0.0, n)


def _log_ratio(
    log_density: Callable[[np.ndarray], Array], law: Target, x: np.ndarray
) -> np.ndarray:
    """log p - log q at the points x (M, D), by blocks."""
    gap = np.empty(len(x))
    for rows in row_blocks(len(x)):
        log_q = numpy(log_density(x[rows]))
        if log_q.shape != (len(x[rows]),):
            raise ArgumentError("log_density", "give one number per point", f"shape {log_q.shape}")
        gap[rows] = numpy(law.log_prob(x[rows])) - log_q
    if np.isnan(gap).any():
        raise ArgumentError("log_density", "give no NaN", f"{np.isnan(gap).sum()} of {len(gap)}")
    return gap
