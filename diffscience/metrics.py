"""Metrics: how far a model is from the truth, each with its standard error and its floor.

    fisher_error              of a score, in the Fisher norm at each t    (see `divergences`)
    kl_on_grid, kl_by_samples of a density                                (see `divergences`)
    wasserstein_1, _2, sliced_wasserstein, mmd, energy_distance, ks
                              of samples, against a law                   (see `distances`)
    mode_weights              E r_k(x) against w_k, r_k(x) = P(component k | x)

A sample metric is a function `(samples, law, generator) -> Estimate`; `SAMPLE_METRICS` lists those
that give one number for every law. The *floor* is the same metric computed on fresh true samples of
the same size: no sampler can be expected below it, and a value means nothing without it.

Conventions: samples (n, D), arrays or tensors, n >= 2, finite; all is computed in float64 NumPy.
`generator` is a `numpy.random.Generator` or an integer seed; a seed gives common true samples to
two models. Distances are in the units of the data; MMD^2 has none. Adding a metric: one function
below, one entry in the tuple, and the law tests cover it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import distances
from .arrays import Array, finite, numpy, softmax
from .divergences import fisher_error, kl_by_samples, kl_on_grid
from .errors import ArgumentError, instance, number, whole
from .estimates import Estimate, random_numbers, row_blocks
from .mixture import GaussianMixture
from .targets import Target

__all__ = [
    "SAMPLE_METRICS",
    "Estimate",
    "energy_distance",
    "fisher_error",
    "kl_by_samples",
    "kl_on_grid",
    "ks",
    "mmd",
    "mode_weights",
    "responsibilities",
    "sliced_wasserstein",
    "wasserstein",
    "wasserstein_1",
    "wasserstein_2",
]

Draw = Callable[[], np.ndarray]  # a fresh true sample of the size of the samples


# ---------------------------------------------------------------- samples against a law


def wasserstein(
    samples: Array,
    law: Target,
    generator: Any,
    p: int = 2,
    *,
    repeats: int = 8,
    most: int = 2000,
) -> Estimate:
    """W_p between samples and a law: exact in one dimension, between samples elsewhere.

    D = 1: against the exact quantile function, int |F_n^-1(u) - Q(u)|^p du, every sample.
    D >= 2: exact optimal transport to a fresh true sample of the same size, by POT; the cost
    grows like n^2.5, so of more than `most` samples a random subset of that size is taken (`n` in
    the answer says so). For all of many points see `sliced_wasserstein`.

    samples (n, D); p 1 or 2; repeats: true draws for the floor, 0 for none. Errors:
    `distances.wasserstein_to_quantiles`, `distances.wasserstein_between`.

    Examples
    --------
    >>> import numpy as np
    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> samples = 3 + np.random.default_rng(0).standard_normal((1000, 1))
    >>> bool(abs(wasserstein(samples, law, 1, p=1).value - 3) < 0.1)
    True
    """
    distances.check_order(p)
    x, draws = _samples(samples, law), random_numbers(generator)
    if law.dim == 1:
        cells = distances.QuantileCells.of(law, len(x))
        return _versus(
            x, law, draws, lambda a, _: distances.wasserstein_to_quantiles(a, cells, p), repeats
        )
    x = _subset(x, most, draws)
    return _versus(
        x, law, draws, lambda a, fresh: distances.wasserstein_between(a, fresh(), p), repeats
    )


def wasserstein_1(samples: Array, law: Target, generator: Any) -> Estimate:
    """`wasserstein` of order 1, E|X - Y| under the best coupling.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> right, wrong = law.sample(1000, 0), law.sample(1000, 0) + 1.0
    >>> wasserstein_1(right, law, 1).excess() < 3 < wasserstein_1(wrong, law, 1).excess()
    True
    """
    return wasserstein(samples, law, generator, 1)


def wasserstein_2(samples: Array, law: Target, generator: Any) -> Estimate:
    """`wasserstein` of order 2, the root of E|X - Y|^2 under the best coupling.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> right, wrong = law.sample(1000, 0), law.sample(1000, 0) + 1.0
    >>> wasserstein_2(right, law, 1).excess() < 3 < wasserstein_2(wrong, law, 1).excess()
    True
    """
    return wasserstein(samples, law, generator, 2)


def sliced_wasserstein(
    samples: Array,
    law: Target,
    generator: Any,
    p: int = 2,
    *,
    directions: int = 64,
    repeats: int = 8,
) -> Estimate:
    """SW_p between samples and a fresh true sample of the same size, for many points.

    samples (n, D); p 1 or 2; directions: number of unit vectors, equal angles with a random offset
    in the plane, the same ones for value and floor (1 where D = 1). Errors:
    `distances.sliced_between`.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_trimodal()
    >>> right, wrong = law.sample(1000, 0), law.sample(1000, 0) + 1.0
    >>> sliced_wasserstein(right, law, 1).excess() < 3 < sliced_wasserstein(wrong, law, 1).excess()
    True
    """
    distances.check_order(p)
    x, draws = _samples(samples, law), random_numbers(generator)
    whole("directions", directions, 1)
    vectors = distances.unit_directions(law.dim, directions, draws)
    return _versus(
        x, law, draws, lambda a, fresh: distances.sliced_between(a, fresh(), vectors, p), repeats
    )


def mmd(
    samples: Array,
    law: Target,
    generator: Any,
    *,
    bandwidth: float | None = None,
    permutations: int = 0,
    repeats: int = 8,
    most: int = 2000,
) -> Estimate:
    """Squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / 2 h^2), unbiased.

    samples (n, D), of which at most `most` at random; a fresh true sample of the same size stands
    for the law. bandwidth: h, or None for the median distance between true points (found on pairs
    of their own, so that it depends on the law alone and the test below stays exact).
    permutations: relabelings for the p-value, 0 for none. The value may be negative: its mean over
    true samples is 0. Errors: `distances.kernel_distance`.

    Gretton et al., "A kernel two-sample test", JMLR 13 (2012) 723.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_trimodal()
    >>> right, wrong = law.sample(400, 0), law.sample(400, 0) + 2.0
    >>> mmd(right, law, 1).excess() < 3 < mmd(wrong, law, 1).excess()
    True
    """
    if bandwidth is not None:
        number("bandwidth", bandwidth, 0, ends="()")
    x, draws = _samples(samples, law), random_numbers(generator)
    h = bandwidth or _median_distance(law, draws)
    kernel = distances.gaussian_kernel(h)
    return _kernel_metric(_subset(x, most, draws), law, draws, kernel, permutations, repeats)


def energy_distance(
    samples: Array,
    law: Target,
    generator: Any,
    *,
    permutations: int = 0,
    repeats: int = 8,
    most: int = 2000,
) -> Estimate:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'|, unbiased, against a fresh true sample of the same size.

    samples (n, D), of which at most `most` at random; in one dimension, where sorting does it in
    O(n log n), all, unless a test by `permutations` is asked for. The value may be negative: its
    mean over true samples is 0. In one dimension it is 2 int (F - G)^2 dx. Errors:
    `distances.kernel_distance`.

    Szekely and Rizzo, J. Stat. Planning and Inference 143 (2013) 1249. (SciPy's function of the
    name gives the root, and of the biased version.)

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_trimodal()
    >>> right, wrong = law.sample(400, 0), law.sample(400, 0) + 2.0
    >>> energy_distance(right, law, 1).excess() < 3 < energy_distance(wrong, law, 1).excess()
    True
    """
    x, draws = _samples(samples, law), random_numbers(generator)
    x = x if law.dim == 1 and not permutations else _subset(x, most, draws)
    return _kernel_metric(x, law, draws, distances.minus_distance, permutations, repeats)


def ks(samples: Array, law: Target, generator: Any, *, repeats: int = 8) -> Estimate:
    """sup |F_n - F|, the Kolmogorov-Smirnov distance to the exact cdf; one dimension.

    samples (n, 1). The error is that of F_n at the point of largest distance,
    sqrt(F_n (1 - F_n) / n) (the limit law where F_n's own law differs from F: Raghavachari, Annals
    of Statistics 1 (1973) 67); the p-value is exact for a continuous law (Kolmogorov's finite-n
    law) and on the safe side for one with atoms.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> right, wrong = law.sample(1000, 0), law.sample(1000, 0) + 1.0
    >>> ks(right, law, 1).excess() < 3 < ks(wrong, law, 1).excess()
    True
    """
    import scipy.stats

    if isinstance(law, Target) and law.dim != 1:
        raise ArgumentError("law", "have dimension 1", f"dimension {law.dim}")
    x = _samples(samples, law)
    estimate = _versus(x, law, random_numbers(generator), lambda a, _: _ks(a, law), repeats)
    p_value = float(scipy.stats.kstwo.sf(estimate.value, len(x)))
    return Estimate(
        estimate.value, estimate.error, estimate.floor, estimate.floor_error, len(x), p_value
    )


def _ks(x: np.ndarray, law: Target) -> tuple[float, float]:
    n, x = len(x), np.sort(x, axis=0)
    rank = np.arange(1, n + 1)
    # F just below the point: at an atom F jumps, and so may F_n.
    before = numpy(law.cdf(np.nextafter(x, -np.inf)))
    after = numpy(law.cdf(x))
    up, down = rank / n - after, before - (rank - 1) / n
    last, first = x[:, 0] != np.append(x[1:, 0], np.inf), x[:, 0] != np.append(-np.inf, x[:-1, 0])
    gaps = np.stack([np.where(last, up, 0.0), np.where(first, down, 0.0)])
    side, i = np.unravel_index(np.argmax(gaps), gaps.shape)
    share = (rank[i] - side) / n
    return float(gaps.max()), math.sqrt(share * (1 - share) / n)


def mode_weights(samples: Array, law: GaussianMixture, generator: Any) -> Estimate:
    """The share of the samples in each mode, beside the mode's true weight.

    The share is the mean of the exact posterior probability r_k(x) of component k given x, which
    under the truth has mean w_k however much the modes overlap; counts of the likeliest component
    have not, and agree where modes lie apart.

    samples (n, D); law with K components. Returns arrays (K,): value, its standard error (that of
    a mean, binomial for modes apart), floor = the weights w_k (exactly what true samples give on
    average), floor_error = the standard error on a fresh true sample of the same size, which keeps
    `excess()` finite for a mode that the samples miss.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> shares = mode_weights(law.sample(10_000, 0), law, 1)
    >>> bool(np.all(np.abs(shares.value - [0.1, 0.9]) < 4 * shares.error))
    True
    """
    instance("law", law, GaussianMixture)
    x = _samples(samples, law)
    fresh = law.sample(len(x), random_numbers(generator))
    shares, true_shares = _mean_shares(law, x), _mean_shares(law, fresh)
    return Estimate(*shares, np.array(numpy(law.weights)), true_shares[1], len(x))


def responsibilities(x: np.ndarray, law: GaussianMixture) -> np.ndarray:
    """r_k(x) = P(component k | x) for points x (n, D): (n, K), rows summing to 1.

    Raises ArgumentError where a component has no width: diffuse the law a little first.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> responsibilities(np.array([[0.0]]), law).round(12).tolist()
    [[0.1, 0.9]]
    """
    instance("law", law, GaussianMixture)
    weights, means, covs = (np.asarray(numpy(a)) for a in (law.weights, law.means, law.covs))
    logits = np.full((len(x), len(weights)), -np.inf)
    for k in np.flatnonzero(weights):
        part = type(law)([1.0], means[k : k + 1], covs[k : k + 1])
        logits[:, k] = np.log(weights[k]) + part.log_prob(x)
    return softmax(logits)


def _mean_shares(law: GaussianMixture, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.zeros(len(law.weights)), np.zeros(len(law.weights))
    for rows in row_blocks(len(x), len(law.weights)):
        posterior = responsibilities(x[rows], law)
        first += posterior.sum(axis=0)
        second += (posterior**2).sum(axis=0)
    mean = first / len(x)
    return mean, np.sqrt(np.maximum(second / len(x) - mean**2, 0.0) / (len(x) - 1))


SAMPLE_METRICS: tuple[Callable[[Array, Target, Any], Estimate], ...] = (
    wasserstein_1,
    wasserstein_2,
    sliced_wasserstein,
    mmd,
    energy_distance,
)
"""The metrics (samples, law, generator) -> Estimate that give one number for every law."""


# ---------------------------------------------------------------- what they share


def _versus(
    x: np.ndarray,
    law: Target,
    generator: np.random.Generator,
    distance: Callable[[np.ndarray, Draw], tuple[float, float]],
    repeats: int,
) -> Estimate:
    """`distance(x, fresh)` and its floor, the same with true samples in the place of x."""
    _check_repeats(repeats)

    def fresh() -> np.ndarray:
        return np.asarray(law.sample(len(x), generator), dtype=np.float64)

    value, error = distance(x, fresh)
    return Estimate(value, error, *_floor(distance, fresh, repeats), len(x))


def _check_repeats(repeats: int) -> None:
    whole("repeats", repeats, 0)
    if repeats == 1:
        raise ArgumentError("repeats", "be 0 (no floor) or at least 2", repeats)


def _floor(
    distance: Callable[[np.ndarray, Draw], tuple[float, float]], fresh: Draw, repeats: int
) -> tuple[float, float]:
    """Mean and standard deviation of the distance between two true samples."""
    if not repeats:
        return math.nan, math.nan
    floors = [distance(fresh(), fresh)[0] for _ in range(repeats)]
    return float(np.mean(floors)), float(np.std(floors, ddof=1))


def _kernel_metric(
    x: np.ndarray,
    law: Target,
    generator: np.random.Generator,
    kernel: distances.Kernel,
    permutations: int,
    repeats: int,
) -> Estimate:
    whole("permutations", permutations, 0)
    _check_repeats(repeats)

    def fresh() -> np.ndarray:
        return np.asarray(law.sample(len(x), generator), dtype=np.float64)

    truth = fresh()
    value, error = distances.kernel_distance(x, truth, kernel)
    p_value = math.nan
    if permutations:
        p_value = distances.permutation_p_value(x, truth, kernel, permutations, generator)
    floor = _floor(lambda a, b: distances.kernel_distance(a, b(), kernel), fresh, repeats)
    return Estimate(value, error, *floor, len(x), p_value)


def _median_distance(law: Target, generator: np.random.Generator) -> float:
    pairs = law.sample(20_000, generator)
    distance = float(np.median(np.linalg.norm(pairs[::2] - pairs[1::2], axis=1)))
    return distance or math.sqrt(float(np.trace(numpy(law.cov)))) or 1.0


def _samples(samples: Array, law: Target) -> np.ndarray:
    instance("law", law, Target)
    x = numpy(finite("samples", samples, (None, law.dim)))
    if len(x) < 2:
        raise ArgumentError("samples", "hold at least 2 points", f"{len(x)}")
    return np.asarray(x, dtype=np.float64)


def _subset(x: np.ndarray, most: int, generator: np.random.Generator) -> np.ndarray:
    whole("most", most, 2)
    return x if len(x) <= most else x[generator.choice(len(x), most, replace=False)]
