"""The exact reverse kernel of a mixture target, and how far from Gaussian it is.

Forward, X_t = a X_s + sqrt(b) Z; with X_s ~ sum_k w_k N(m_k, C_k), of which T_k = a^2 C_k + b I,

    p(x_s | x_t) = sum_k r_k N(x_t/a + (b/a) g_k, b C_k T_k^-1),
    g_k = -T_k^-1 (x_t - a m_k),   r_k proportional to w_k N(x_t; a m_k, T_k)

a mixture again; int q(x_s | x_t, x_0) p(x_0 | x_t) dx_0 is the same law. Means are kept as offsets
from x_t/a, since differences of the order of b would be lost in the means themselves.

Cumulants. With u = x_t/a and tau = b/a^2, p(y | x_t) is proportional to exp(u y/tau) p_s(y)
exp(-y^2/2 tau), an exponential family in u/tau. The derivatives of its normaliser are cumulants, of
all orders, exactly, for steps of any size (n = 1 and 2 are Tweedie's formula; Efron 2011):

    mean = x_t/a + (b/a) grad log p_t,   cov = tau (I + b grad^2 log p_t),
    kappa_n = (b/a)^n grad^n log p_t(x_t)   for n >= 3

Small steps. At a fixed noise level the standardised third cumulant is therefore of the order of
b^(3/2) and the n-th of b^(n/2), so that the Edgeworth series of the divergence from the Gaussian of
the same mean and covariance, kappa_3^2/12 + kappa_4^2/48 + ... (Comon 1994), begins

    KL(p(. | x_t) || N(mean, cov)) = b^3/12 |grad^3 log p_t(x_t)|^2 + O(b^4)

That is the sense of "Gaussian for small beta" (Feller 1949; Sohl-Dickstein et al. 2015, section
2.2). From any other Gaussian with the right mean the divergence is the sum of two (Pythagoras),

    KL(p || N(mean, s^2 I)) = KL(p || N(mean, cov)) + 1/2 (tr cov/s^2 - D - log det cov/s^2)

where the second is b^2/4 |grad^2 log p_t + c I|^2 + O(b^3) for s^2 = tau (1 - c b): with a variance
that is the same at every x_t the steps are right to second order only.

Conventions: NumPy, float64; points x (n, D) of X_t; s < t, and b > 0; divergences in nats; those
that need an integral have D <= 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array, finite, numpy, softmax
from .chain import Chain
from .errors import ArgumentError, instance, number
from .mixture import GaussianMixture
from .models import Oracle
from .targets import LOG_2PI, log_weights

_REACH = 8.0  # standard deviations after which a Gaussian counts for nothing
_ROOM = 1 << 14  # numbers in a temporary, so that the ten there are stay in the cache


@dataclass(frozen=True)
class Kernels:
    """n reverse kernels p(x_s | x_t), mixtures of K components; what `kernels` answers.

    weights : (n, K).
    centre : (n, D), x_t/a.
    offsets : (n, K, D), means of the components minus the centre.
    covs : (K, D, D), the same at every x_t.
    bend : (n, D, D), b grad^2 log p_t = cov/tau - I.
    tau : b/a^2.
    """

    weights: np.ndarray
    centre: np.ndarray
    offsets: np.ndarray
    covs: np.ndarray
    bend: np.ndarray
    tau: float

    @property
    def dim(self) -> int:
        """D."""
        return int(self.centre.shape[1])

    @property
    def _shift(self) -> np.ndarray:
        """The mean minus the centre, (n, D)."""
        return np.einsum("nk,nki->ni", self.weights, self.offsets)

    @property
    def _away(self) -> np.ndarray:
        """Means of the components minus the mean, (n, K, D)."""
        return self.offsets - self._shift[:, None, :]

    @property
    def mean(self) -> np.ndarray:
        """E[X_s | x_t], (n, D)."""
        return self.centre + self._shift

    @property
    def cov(self) -> np.ndarray:
        """Cov[X_s | x_t], (n, D, D)."""
        d = self._away
        within = np.einsum("nk,kij->nij", self.weights, self.covs)
        return within + np.einsum("nk,nki,nkj->nij", self.weights, d, d)

    @property
    def third(self) -> np.ndarray:
        """The third cumulant of X_s given x_t, (n, D, D, D), symmetric."""
        d, r = self._away, self.weights
        # sum_k r_k d_k = 0, so that what the covariances have in common drops out.
        apart = self.covs - np.einsum("nk,kij->nij", r, self.covs)[:, None]
        mixed = np.einsum("nk,nki,nkjl->nijl", r, d, apart)
        mixed = mixed + np.transpose(mixed, (0, 2, 1, 3)) + np.transpose(mixed, (0, 2, 3, 1))
        return np.asarray(np.einsum("nk,nki,nkj,nkl->nijl", r, d, d, d) + mixed)

    def law(self, i: int) -> GaussianMixture:
        """The kernel at the i-th point as a target."""
        return GaussianMixture(self.weights[i], self.centre[i] + self.offsets[i], self.covs)

    def non_gaussianity(self, step: float = 0.5) -> np.ndarray:
        """KL(p(. | x_t) || N(mean, cov)), the difference of the two entropies: (n,), D <= 2.

        Summed as int p log(p/N) - p + N, which is nowhere negative, so that divergences of 1e-20
        keep their digits; by the trapezoidal rule in coordinates in which N is standard.

        step : of the rule, in standard deviations of the narrowest component. At 0.5 an error of
            1e-7 remains where modes are apart, of 1e-11 of the value where b is small.

        >>> import diffscience as ds
        >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.Chain.linear(10, 0.1, 0.5))
        >>> found = kernels(oracle, np.array([[0.0]]), 4, 5)
        >>> law = found.law(0)
        >>> gap = 0.5 * math.log(2 * math.pi * math.e * law.cov.item()) - law.entropy()
        >>> bool(abs(found.non_gaussianity()[0] - gap) < 1e-9)
        True
        """
        number("step", step, 0, 2, "(]")
        if self.dim > 2:
            raise ArgumentError("kernels", "have D <= 2 for a quadrature", f"D = {self.dim}")
        return _non_gaussianity(self, step)


def kernels(oracle: Oracle, x: Array, s: float, t: float) -> Kernels:
    """The laws of X_s given X_t = x, exactly, for s < t and a Gaussian mixture as the target.

    Parameters
    ----------
    oracle : of a `GaussianMixture`, under any process (in a `Chain` s and t are whole numbers).
    x : (n, D).

    Raises ArgumentError for another kind of target, and where no noise lies between s and t.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> found = kernels(oracle, np.array([[0.0]]), 0.0, 0.5)
    >>> bool(np.allclose(found.mean, oracle.x0([[0.0]], 0.5)))  # with s = 0 it is the posterior
    True
    """
    law = _mixture(oracle)
    x = np.asarray(numpy(finite("x", x, (None, law.dim))), dtype=np.float64)
    step = oracle.process.between(s, t)
    a, b = float(step.scale), float(step.var)
    if not b > 0:
        raise ArgumentError("t", "lie after s, with noise between them", (s, t))
    start = law.diffuse(oracle.process.at(s))
    m, C = (np.asarray(numpy(v), dtype=np.float64) for v in (start.means, start.covs))
    total = a * a * C + b * np.eye(law.dim)
    precision = np.linalg.inv(total)
    off = x[:, None, :] - a * m
    grads = -np.einsum("kij,nkj->nki", precision, off)
    log_w = log_weights(np.asarray(numpy(law.weights))) - 0.5 * np.linalg.slogdet(total)[1]
    r = np.asarray(softmax(log_w + 0.5 * np.sum(off * grads, axis=-1)))
    covs = b * np.matmul(C, precision)
    apart = grads - np.einsum("nk,nki->ni", r, grads)[:, None, :]
    hessian = np.einsum("nk,nki,nkj->nij", r, apart, apart) - np.einsum("nk,kij->nij", r, precision)
    covs = 0.5 * (covs + np.swapaxes(covs, 1, 2))
    return Kernels(r, x / a, (b / a) * grads, covs, b * hessian, b / (a * a))


def third_derivatives(oracle: Oracle, x: Array, t: float) -> np.ndarray:
    """The third derivatives of log p_t at x (n, D): (n, D, D, D), by the cumulant for s = 0.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[2.0]]]), ds.VP())
    >>> third_derivatives(oracle, np.array([[1.0]]), 0.5).item()  # log p_t is quadratic
    0.0
    """
    third = kernels(oracle, x, 0.0, t).third
    return third * float(oracle.process.alpha(t) / oracle.process.var(t)) ** 3


@dataclass(frozen=True)
class Price:
    """What Gaussian steps cost on average over x_t ~ p_t, of one step or of many, (...).

    best : E KL(kernel || N(mean, cov)): mean and covariance right at every x_t.
    slope : E tr bend/D, by which the mean variance of the kernel exceeds tau, relatively.
    curve : E [tr bend - log det (I + bend)] >= 0.
    tau : b/a^2.
    dim : D.
    """

    best: np.ndarray
    slope: np.ndarray
    curve: np.ndarray
    tau: np.ndarray
    dim: int

    def given(self, var: Array) -> np.ndarray:
        """E KL(kernel || N(mean, var I)), the same var at every x_t: for each of the steps.

        Raises ArgumentError for variances that are not positive.
        """
        s2 = numpy(finite("var", var))
        if not np.all(s2 > 0):
            raise ArgumentError("var", "be positive", float(np.min(s2)))
        rho = s2 / self.tau - 1
        share = np.log1p(rho) - rho * (1 + self.slope) / (1 + rho)
        return np.asarray(self.best + 0.5 * (self.dim * share + self.curve))

    @property
    def optimal(self) -> np.ndarray:
        """E tr cov/D, the var for which `given` is least (Bao et al. 2022, theorem 1)."""
        return self.tau * (1 + self.slope)


def price(
    oracle: Oracle,
    s: float,
    t: float,
    points: tuple[np.ndarray, np.ndarray] | None = None,
    step: float = 0.5,
) -> Price:
    """The `Price` of the step from t back to s; D <= 2.

    points : x (n, D) and weights (n,) with sum_i w_i f(x_i) = E f(X_t); by default the quadrature
        of p_t. Those below 1e-13 of the largest are left out.
    step : as in `Kernels.non_gaussianity`.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.Chain.linear(10, 0.1, 0.5))
    >>> found = price(oracle, 4, 5)
    >>> bool(0 < found.best < found.given(found.optimal) < found.given(oracle.process.betas[4]))
    True
    """
    if points is None:
        points = _mixture(oracle).diffuse(oracle.process.at(t)).quadrature()
    x, w = points
    kept = w > 1e-13 * w.max()
    x, w = x[kept], w[kept] / w[kept].sum()
    found = kernels(oracle, x, s, t)
    widened = np.linalg.eigvalsh(found.bend)
    return Price(
        np.asarray(w @ found.non_gaussianity(step)),
        np.asarray(w @ widened.mean(axis=1)),
        np.asarray(w @ np.sum(widened - np.log1p(widened), axis=1)),
        np.asarray(found.tau),
        found.dim,
    )


def chain_price(oracle: Oracle) -> Price:
    """The `Price` of every step k -> k - 1 of a chain, (K,), exactly; D <= 2.

    With the exact mean and variances s_k^2 the variational bound lies above the entropy of the law
    by KL(p_K || N(0, I)) + sum_k given(s^2)_k, the divergence between the joint laws of the two
    chains; `bounds.best_bound` comes to the same without a kernel:

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), Chain.linear(10, 0.1, 0.5))
    >>> total = chain_price(oracle).given(ds.bounds.variances(oracle.process)).sum()
    >>> gap = ds.bounds.best_bound(oracle).total - oracle.law.entropy()
    >>> bool(abs(prior_gap(oracle) + total - gap) < 1e-10)
    True
    """
    instance("oracle", oracle, Oracle)
    if not isinstance(oracle.process, Chain):
        raise ArgumentError("oracle", "belong to a discrete Chain", oracle.process)
    return together([price(oracle, k - 1.0, float(k)) for k in range(1, oracle.process.K + 1)])


def together(prices: Sequence[Price]) -> Price:
    """Prices of several steps as one `Price` of arrays, (K,)."""
    names = ("best", "slope", "curve", "tau")
    best, slope, curve, tau = (np.stack([getattr(p, name) for p in prices]) for name in names)
    return Price(best, slope, curve, tau, prices[0].dim)


def prior_gap(oracle: Oracle) -> float:
    """KL(p_T || N(0, I)), what starting from the prior costs; D <= 2.

    >>> import diffscience as ds
    >>> normal = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> abs(round(prior_gap(ds.Oracle(normal, ds.Chain.linear(10))), 12))
    0.0
    """
    instance("oracle", oracle, Oracle)
    end = oracle.at(oracle.process.T)
    mean, cov = numpy(end.mean), numpy(end.cov)
    return 0.5 * (float(mean @ mean + np.trace(cov)) + end.dim * LOG_2PI) - float(end.entropy())


def _mixture(oracle: Oracle) -> GaussianMixture:
    instance("oracle", oracle, Oracle)
    if not isinstance(oracle.law, GaussianMixture):
        raise ArgumentError("oracle", "have a Gaussian mixture as its law", oracle.law)
    return oracle.law


# ---------------------------------------------------------------- quadrature


def _non_gaussianity(found: Kernels, step: float) -> np.ndarray:
    """The integral in whitened coordinates u = L^-1 (y - mean), grids of one size together."""
    if not np.all(np.linalg.eigvalsh(found.covs)[:, 0] > 0):
        raise ArgumentError("kernels", "have a density", "a component without width")
    white = np.linalg.inv(np.linalg.cholesky(found.cov))
    d = np.einsum("nij,nkj->nki", white, found._away)
    S = np.einsum("nij,kjl,nml->nkim", white, found.covs, white)
    A = np.linalg.inv(np.linalg.cholesky(S))
    log_w = log_weights(found.weights) + np.linalg.slogdet(A)[1]
    # A component that neither weighs nor reaches far enough to matter asks for no grid of its own.
    counts = found.weights * (1 + np.sum(d * d, axis=-1)) > 1e-17
    reach = _REACH * np.sqrt(np.diagonal(S, axis1=2, axis2=3))
    low = np.min(np.where(counts[..., None], d - reach, -_REACH), axis=1)
    high = np.max(np.where(counts[..., None], d + reach, _REACH), axis=1)
    low, high = np.minimum(low, -_REACH), np.maximum(high, _REACH)
    narrow = np.where(counts, np.sqrt(np.linalg.eigvalsh(S)[..., 0]), 1.0).min(axis=1)
    # In eights, so that many points share a size; each keeps its own whatever the others are.
    sides = 8 * np.ceil((high - low) / (8 * step * narrow[:, None])).astype(int) + 1
    value = np.empty(len(sides))
    for size in np.unique(sides, axis=0):
        alike = np.flatnonzero(np.all(sides == size, axis=1))
        take = max(1, _ROOM // int(np.prod(size)))
        for rows in (alike[i : i + take] for i in range(0, len(alike), take)):
            ends = zip(low[rows].T, high[rows].T, size.tolist())
            axes = [np.linspace(start, stop, count, axis=1) for start, stop, count in ends]
            value[rows] = _divergence(d[rows], A[rows], log_w[rows], axes)
    return value


def _divergence(
    d: np.ndarray, A: np.ndarray, log_w: np.ndarray, axes: list[np.ndarray]
) -> np.ndarray:
    """int p log(p/N) - p + N by the trapezoidal rule, for rows of mixtures p: (n,).

    d (n, K, D) means; A (n, K, D, D) lower triangular with A^T A the precisions; log_w (n, K) with
    log det A in it; axes: even steps (n, m_i) along each of the D axes.
    """
    n, dim, first, last = len(d), len(axes), axes[0], axes[-1]
    far, normal = 0.5 * first**2, np.exp(-0.5 * first**2)  # both N and p without (2 pi)^(-D/2)
    if dim == 2:
        far = far[:, :, None] + 0.5 * last[:, None, :] ** 2
        normal = normal[:, :, None] * np.exp(-0.5 * last[:, None, :] ** 2)
    p = np.zeros_like(far)
    for k in range(d.shape[1]):
        off = first - d[:, k, 0, None]
        logit = log_w[:, k, None] - 0.5 * (A[:, k, 0, 0, None] * off) ** 2
        if dim == 2:
            across = A[:, k, 1, 0, None] * off
            along = A[:, k, 1, 1, None] * (last - d[:, k, 1, None])
            square = across[:, :, None] + along[:, None, :]
            square *= square
            square *= -0.5
            logit = np.add(square, logit[:, :, None], out=square)
        p += np.exp(np.maximum(logit, -700.0, out=logit), out=logit)
    ratio = np.log(p) + far
    fall = np.expm1(-np.abs(ratio))  # the smaller of p and N over the larger, minus 1
    # p (l + e^-l - 1) where p is larger, N (l e^l - e^l + 1), l < 0, where N is.
    integrand = np.where(ratio > 0, p * (ratio + fall), normal * (ratio * (1 + fall) - fall))
    cell = math.prod(axis[:, 1] - axis[:, 0] for axis in axes) * (2 * math.pi) ** (-0.5 * dim)
    return np.asarray(integrand.reshape(n, -1).sum(axis=1) * cell)


__all__ = [
    "Kernels",
    "Price",
    "chain_price",
    "kernels",
    "price",
    "prior_gap",
    "third_derivatives",
    "together",
]
