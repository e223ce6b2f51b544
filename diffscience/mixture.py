"""Gaussian mixtures: closed under diffusion, and under conditioning on a noisy observation.

    sum_k w_k N(mu_k, C_k) after the noise (S, V) is sum_k w_k N(S mu_k, S^2 C_k + V I)

Each covariance is taken apart once, C = Q diag(lambda) Q^T, so that a noise level is a change of
eigenvalues, S^2 lambda + V, and widths from 1e-6 to 1e5 live side by side. Differences are taken
directly (not as expanded squares) and everything is summed in the log domain.
"""

from __future__ import annotations

import copy
import math

import numpy as np

from . import fused
from .arrays import (
    Array,
    Draws,
    finite,
    is_torch,
    is_traced,
    like,
    log_ndtr,
    namespace,
    numpy,
    points,
    softmax,
    wide,
)
from .errors import ArgumentError
from .quadrature import tree
from .targets import LOG_2PI, Target, log_weights, over
from .transition import Transition


class GaussianMixture(Target):
    """sum_k w_k N(mu_k, C_k) in any dimension; closed under diffusion and conditioning.

    Parameters
    ----------
    weights : (K,) numbers >= 0, not all 0; normalised to sum 1.
    means : (K, D).
    covs : (K, D, D) symmetric positive semi-definite, (K, D) diagonals, or 0 for points; zero and
        rank-deficient covariances are allowed, and such a law has a density once it is diffused.

    Raises
    ------
    ArgumentError : wrong shapes, NaN or infinity, negative weights or none positive, a covariance
        that is not symmetric or has a negative eigenvalue.

    Examples
    --------
    >>> law = GaussianMixture([0.1, 0.9], [[-3.0], [3.0]], [[[1.0]], [[1.0]]])
    >>> round(float(law.log_prob(np.array([3.0]))), 6)
    -1.024299
    """

    def __init__(self, weights: Array, means: Array, covs: Array) -> None:
        w = finite("weights", weights, (None,))
        m = finite("means", means, (w.shape[0], None))
        xp = namespace(w)
        if w.shape[0] == 0 or bool(xp.any(w < 0)) or not bool(xp.sum(w) > 0):
            raise ArgumentError("weights", "be at least 0 and not all 0", numpy(w).tolist())
        self.dim, self._count = int(m.shape[1]), int(w.shape[0])
        if self.dim < 1:
            raise ArgumentError("means", "have at least one column", tuple(m.shape))
        self._w, self._m = w / xp.sum(w), m
        self._lam, self._q = self._axes(covs)

    def _axes(self, covs: Array) -> tuple[Array, Array | None]:
        """Variances (K, D) along axes (K, D, D), None for the coordinate axes."""
        K, D = self._count, self.dim
        c = finite("covs", covs)
        xp = namespace(c)
        if c.ndim == 0 and float(c) == 0.0:
            return xp.zeros((K, D), dtype=c.dtype), None
        if c.ndim == 2:
            c = finite("covs", c, (K, D))
            if bool(xp.any(c < 0)):
                raise ArgumentError("covs", "have variances of at least 0", float(xp.min(c)))
            return c, None
        c = finite("covs", c, (K, D, D))
        if not np.allclose(numpy(c), np.swapaxes(numpy(c), -1, -2), rtol=1e-9, atol=0):
            raise ArgumentError("covs", "be symmetric", "a matrix that is not")
        if D == 1:
            lam, q = c[:, 0], None
        elif not np.any(numpy(c)[:, ~np.eye(D, dtype=bool)]):
            lam, q = xp.stack([c[:, i, i] for i in range(D)], axis=-1), None
        else:
            lam, q = xp.linalg.eigh(c)
        floor = -1e-12 * numpy(xp.max(xp.abs(lam), axis=-1))
        if np.any(numpy(xp.min(lam, axis=-1)) < floor):
            raise ArgumentError(
                "covs", "be positive semi-definite", f"an eigenvalue of {float(xp.min(lam)):.6g}"
            )
        return xp.where(lam > 0, lam, xp.zeros_like(lam)), q

    # ---- parameters of the law as it stands

    @property
    def weights(self) -> Array:
        """(K,), summing to 1."""
        return self._w

    @property
    def means(self) -> Array:
        """(K, D), after the noise."""
        S, _ = self._noise_like(self._m)
        return (S[..., None, None] if S.ndim else S) * self._m

    @property
    def covs(self) -> Array:
        """(K, D, D), after the noise."""
        return self._base_covs(*self._columns(self._m))

    def _columns(self, x: Array) -> tuple[Array, Array]:
        S, V = self._noise_like(x)
        return (S[..., None], V[..., None]) if S.ndim or V.ndim else (S, V)

    def _base_covs(self, S: Array, V: Array) -> Array:
        return self._matrix(over(S) ** 2 * self._lam + over(V))

    def _matrix(self, diagonal: Array) -> Array:
        """Q diag(d) Q^T for d (*b, K, D): (*b, K, D, D)."""
        xp = namespace(diagonal)
        if self._q is None:
            return diagonal[..., None] * like(np.eye(self.dim), diagonal)
        q = like(self._q, diagonal)
        return xp.matmul(q * diagonal[..., None, :], xp.matrix_transpose(q))

    def condition(self, x: Array, transition: Transition) -> GaussianMixture:
        """The exact posterior of X given scale X + sqrt(var) Z = x, for one point x (D,).

        Again a mixture: weights r_k(x), means mu_k + G_k (x - s mu_k), covariances C_k - s G_k C_k,
        with the gain G_k = s C_k (s^2 C_k + v)^-1.
        """
        x = points(x, self.dim)
        if x.ndim != 1:
            raise ArgumentError(
                "x", f"be one point of shape ({self.dim},)", f"shape {tuple(x.shape)}"
            )
        diffused = self.diffuse(transition)
        s0, v0 = self._single_noise()
        s, v = transition.scale, transition.var
        S, V = diffused._single_noise()
        diffused._require_density(like(V, x))
        r = softmax(diffused._logits(wide(x)[None], S, V))[0]
        lam = s0 * s0 * like(self._lam, x) + v0
        total = S * S * like(self._lam, x) + V
        off = self._along(wide(x) - S * like(self._m, x))
        means = s0 * like(self._m, x) + self._across(s * lam / total * off)
        q = None if self._q is None else like(self._q, x)
        posterior = copy.copy(self)
        posterior.noise = Transition.identity()
        posterior._w, posterior._m, posterior._q = r, means, q
        posterior._lam = lam * (v / total)
        return posterior

    def _along(self, off: Array) -> Array:
        """Coordinates of off (*b, K, D) along the axes of each component."""
        if self._q is None:
            return off
        return namespace(off).sum(off[..., :, None] * like(self._q, off), axis=-2)

    def _across(self, u: Array) -> Array:
        """Back from coordinates along the axes to space."""
        if self._q is None:
            return u
        return namespace(u).sum(u[..., None, :] * like(self._q, u), axis=-1)

    # ---- components

    def _split(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        """x - S mu_k along each axis, (n, K, D), and the variances there."""
        off = x[:, None, :] - over(S) * like(self._m, x)
        return self._along(off), over(S) ** 2 * like(self._lam, x) + over(V)

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        xp = namespace(x)
        off, var = self._split(x, S, V)
        log_w = log_weights(like(self._w, x))
        return (
            log_w
            - 0.5 * xp.sum(off * (off / var) + xp.log(var), axis=-1)
            - 0.5 * self.dim * LOG_2PI
        )

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        off, var = self._split(x, S, V)
        return -self._across(off / var)

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        return -self._matrix(1.0 / (over(S) ** 2 * like(self._lam, x) + over(V)))

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        off, var = self._split(x, S, V)
        gain = over(S) * like(self._lam, x) / var
        return like(self._m, x) + self._across(gain * off)

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        lam = like(self._lam, x)
        return self._matrix(lam * (over(V) / (over(S) ** 2 * lam + over(V))))

    # ---- the compiled path: one noise for all rows, plain arrays on the CPU, D <= 2

    def _rows_both(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        if not self._fusible(x, S, V):
            return super()._rows_both(x, S, V)
        log_weight, means, whitening = self._whitening(S, V)
        gain = -np.swapaxes(whitening, -1, -2) @ whitening
        return _fused(x, log_weight, means, whitening, gain, np.zeros_like(means))

    def _rows_log_prob(self, x: Array, S: Array, V: Array) -> Array:
        return (
            self._rows_both(x, S, V)[0]
            if self._fusible(x, S, V)
            else super()._rows_log_prob(x, S, V)
        )

    def _rows_mean(self, x: Array, S: Array, V: Array) -> Array:
        if not self._fusible(x, S, V):
            return super()._rows_mean(x, S, V)
        log_weight, means, whitening = self._whitening(S, V)
        lam = numpy(self._lam)
        gain = numpy(self._matrix(S * lam / (S * S * lam + V)))
        return _fused(x, log_weight, means, whitening, gain, numpy(self._m))[1]

    def combined(self, x: Array, transition: Transition, on_mean: float, on_score: float) -> Array:
        """As of every target; where it can be, the combination itself is what is compiled."""
        diffused, x = self.diffuse(transition), points(x, self.dim)
        if not diffused._fusible(x, diffused.noise.scale, diffused.noise.var):
            return super().combined(x, transition, on_mean, on_score)

        def rows(x: Array, S: float, V: float) -> Array:
            parts = self._combination(transition, on_mean, on_score)
            return _fused(x, *parts)[1]

        return diffused._over_rows(rows, x, (self.dim,))

    def _combination(
        self, transition: Transition, on_mean: float, on_score: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`combined` as the five parameters of `fused.evaluate`.

        With C_k the covariances of this law and T_k = s^2 C_k + v: gains on_mean s C_k T_k^-1 -
        on_score T_k^-1, offsets on_mean m_k.
        """
        diffused, (S0, V0) = self.diffuse(transition), self._single_noise()
        S, V = diffused._single_noise()
        log_weight, means, whitening = diffused._whitening(S, V)
        lam, s = S0 * S0 * numpy(self._lam) + V0, float(transition.scale)
        gain = numpy(self._matrix((on_mean * s * lam - on_score) / (S * S * numpy(self._lam) + V)))
        return log_weight, means, whitening, gain, on_mean * S0 * numpy(self._m)

    def _fusible(self, x: Array, S: Array, V: Array) -> bool:
        return (
            self.dim <= 2
            and isinstance(S, float)
            and isinstance(V, float)
            and isinstance(self._w, np.ndarray)
            and (isinstance(x, np.ndarray) or (is_torch(x) and _plain_tensor(x)))
            and str(x.dtype).rpartition(".")[2] in ("float32", "float64")
        )

    def _whitening(self, S: float, V: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """log weights with their normalisers, means and W_k with W_k^T W_k = C_k^-1."""
        var = S * S * self._lam + V
        if self._q is None:
            whitening = np.eye(self.dim) / np.sqrt(var)[:, :, None]
        else:
            whitening = np.swapaxes(self._q, -1, -2) / np.sqrt(var)[:, :, None]
        norm = 0.5 * np.sum(np.log(var), axis=-1) + 0.5 * self.dim * LOG_2PI
        return log_weights(self._w) - norm, S * self._m, whitening

    # ---- the law as a whole

    def _zero_width(self) -> bool:
        return bool(np.any(numpy(self._lam)[numpy(self._w) > 0] <= 0))

    def _moments(self) -> tuple[Array, Array]:
        xp = namespace(self._m)
        mean = xp.sum(self._w[:, None] * self._m, axis=0)
        off = self._m - mean
        spread = off[:, :, None] * off[:, None, :]
        return mean, xp.sum(self._w[:, None, None] * (self._matrix(self._lam) + spread), axis=0)

    def _sample(self, n: int, draws: Draws) -> Array:
        k = draws.choice(numpy(self._w), n)
        z = draws.normal(n, self.dim)
        u = namespace(z).sqrt(like(self._lam, z))[k] * z
        if self._q is not None:
            u = namespace(z).sum(u[:, None, :] * like(self._q, z)[k], axis=-1)
        return like(self._m, z)[k] + u

    def entropy(self, error: float = 1e-4) -> float:
        """-E log p in nats: closed form for one component, else see `Target.entropy`.

        Where components differ in fewer than D directions, what is common to them is split off in
        closed form: three components of one covariance are a matter of two dimensions in any D.
        """
        self._require_density(self._single_noise()[1])
        if self._count > 1 and self.dim <= 2:
            return super().entropy()
        core, rest = self._without_common_part()
        if core is None:
            return rest
        whole = core.dim == self.dim
        return super().entropy(error) if whole else rest + core.entropy(error)

    def _without_common_part(self) -> tuple[GaussianMixture | None, float]:
        """The mixture in the directions in which its components differ, and H of what they share.

        Let y = L^-1 (x - m_1) make the first component standard, A_k = L^-1 C_k L^-T and
        d_k = L^-1 (m_k - m_1). All components are N(0, I) across the range of (A_k - I, d_k), and
        independent of what lies within.
        """
        w = numpy(self._w)
        m, covs = numpy(self.means)[w > 0], numpy(self.covs)[w > 0]
        L = np.linalg.cholesky(covs[0])
        A = np.linalg.solve(L, np.swapaxes(np.linalg.solve(L, covs), -1, -2))
        d = np.linalg.solve(L, (m - m[0]).T).T
        span = np.concatenate([*(A - np.eye(self.dim)), d.T], axis=1)
        axes, size, _ = np.linalg.svd(span, full_matrices=False)
        U = axes[:, size > 1e-12 * max(1.0, float(size.max()))]
        shared = 0.5 * (self.dim - U.shape[1]) * (LOG_2PI + 1) + float(np.log(np.diag(L)).sum())
        if U.shape[1] == 0:
            return None, shared
        A = U.T @ A @ U
        return GaussianMixture(w[w > 0], d @ U, 0.5 * (A + np.swapaxes(A, -1, -2))), shared

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """One grid, or a grid along the axes of each component, or cells where widths differ.

        The trapezoidal rule converges geometrically for such integrands: a spacing of 0.3 standard
        deviations out to 8.7 leaves 1e-13. Where a narrow component lies in the reach of a broad
        one, no grid of either suits both: `quadrature.tree` does. See `Target.quadrature`.
        """
        if self.dim > 2:
            raise ArgumentError("target", "have D <= 2 for quadrature", f"D = {self.dim}")
        S, V = self._single_noise()
        var, means, w = S * S * numpy(self._lam) + V, S * numpy(self._m), numpy(self._w)
        if not np.any(var):
            return means, w
        std = np.sqrt(var)
        if std.min() > 0 and self._count > 1 and (self.dim == 1 or std.max() > 2 * std.min()):
            longest = 0.6 if self.dim == 1 else 2.5
            x, volumes = tree(means, std.min(axis=1), std.max(axis=1), longest)
            weights = volumes * np.exp(self.log_prob(x))
            return x[weights > 0], weights[weights > 0]
        z = np.arange(-29, 30) * 0.3
        density = np.exp(-0.5 * z * z)
        density /= density.sum()
        mesh = np.stack(np.meshgrid(*[z] * self.dim, indexing="ij"), -1).reshape(-1, self.dim)
        mass = np.prod(np.stack(np.meshgrid(*[density] * self.dim, indexing="ij")), 0).ravel()
        grid = self._grid(means, std, len(mesh) * self._count)
        if grid is not None:
            return grid
        offsets = std[:, None, :] * mesh
        if self._q is not None:
            offsets = np.einsum("kij,kmj->kmi", numpy(self._q), offsets)
        x = (means[:, None, :] + offsets).reshape(-1, self.dim)
        return x, (w[:, None] * mass).reshape(-1)

    def _grid(
        self, means: np.ndarray, width: np.ndarray, budget: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """One grid over all components if it takes fewer points than `budget`."""
        step = 0.3 * width.min()
        reach = 8.7 * width.max()
        low, high = means.min(0) - reach, means.max(0) + reach
        if step == 0 or np.prod(np.ceil((high - low) / step) + 1) > budget:
            return None
        axes = [a + step * np.arange(math.ceil((b - a) / step) + 1) for a, b in zip(low, high)]
        x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, self.dim)
        weights = np.exp(self.log_prob(x)) * step**self.dim
        keep = weights > 1e-18 * weights.max()
        return x[keep], weights[keep] / weights[keep].sum()

    def _log_cdfs(self, x: Array, S: Array, V: Array, upper: bool) -> Array:
        xp = namespace(x)
        S, V = (a[:, None] if getattr(a, "ndim", 0) else a for a in (S, V))
        var = S * S * like(self._lam, x)[:, 0] + V
        off = x[:, None] - S * like(self._m, x)[:, 0]
        off = -off if upper else off
        blurred = var > 0
        safe = xp.where(blurred, var, xp.ones_like(var))
        step = xp.where(
            off > 0 if upper else off >= 0, xp.zeros_like(off), xp.full_like(off, -math.inf)
        )
        log_cdf = xp.where(blurred, log_ndtr(off / xp.sqrt(safe)), step)
        return log_weights(like(self._w, x)) + log_cdf

    def _reach(self, S: Array, V: Array) -> tuple[Array, Array]:
        xp = namespace(S)
        S, V = S[..., None], V[..., None]
        width = 39 * xp.sqrt(S * S * like(self._lam, S)[:, 0] + V)
        mean = S * like(self._m, S)[:, 0]
        return xp.min(mean - width, axis=-1), xp.max(mean + width, axis=-1)


def _plain_tensor(x: Array) -> bool:
    import torch

    tracked = x.requires_grad and torch.is_grad_enabled()
    return x.device.type == "cpu" and not tracked and not is_traced(x)


def _fused(x: Array, *parameters: np.ndarray) -> tuple[Array, Array]:
    if isinstance(x, np.ndarray):
        return fused.evaluate(x, *parameters)
    import torch

    log_prob, value = fused.evaluate(x.detach().numpy(), *parameters)
    return torch.from_numpy(log_prob), torch.from_numpy(value)
