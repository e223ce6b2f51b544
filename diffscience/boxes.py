"""Boxes: uniform laws on boxes, whose blurred densities have closed forms.

A uniform interval of half-width h, scaled by S and blurred by V = sigma^2, seen from a point at
distance z >= 0 of its centre, with u = (z - |S| h)/sigma and omega = 2 |S| h/sigma:

    p = phi(u) R / (2 |S| h),   R = integral over s in [0, omega] of exp(-u s - s^2/2)
    d/dz log p = -(u + E s)/sigma,   d2/dz2 log p = (Var s - 1)/V

where s is the distance of the data point from the near edge, in units of sigma, under its
posterior. Nothing cancels in R, in the tails or when the box is narrow; well inside a wide box the
same is written with the normal cdf.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array, Draws, finite, like, log_ndtr, logsumexp, namespace, numpy
from .errors import ArgumentError
from .quadrature import edges, panels
from .targets import LOG_2PI, Target, log_weights, over

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1), 0.5 * _WEIGHTS  # on [0, 1], weights summing to 1


class Boxes(Target):
    """sum_k w_k Uniform(box_k), in any dimension; closed forms at every noise level.

    Parameters
    ----------
    lows, highs : (K, D) corners, lows < highs.
    weights : (K,) numbers >= 0, not all 0; proportional to the volumes when left out.

    At noise variance 0 the density is piecewise constant: log_prob is -inf outside the boxes, and
    the score there, which does not exist, is NaN. Boxes must not overlap at noise 0 and where they
    do the densities add.

    Examples
    --------
    >>> square = Boxes([[0.0, 0.0]], [[2.0, 2.0]])
    >>> round(float(square.log_prob(np.array([1.0, 1.0]))), 6)
    -1.386294
    """

    def __init__(self, lows: Array, highs: Array, weights: Array | None = None) -> None:
        a, b = numpy(finite("lows", lows, (None, None))), numpy(finite("highs", highs))
        if b.shape != a.shape:
            raise ArgumentError("highs", f"have shape {a.shape}", f"shape {b.shape}")
        if a.size == 0 or not np.all(a < b):
            raise ArgumentError("lows", "lie below highs", f"{a.tolist()} and {b.tolist()}")
        w = np.prod(b - a, axis=1) if weights is None else weights
        w = numpy(finite("weights", w, (a.shape[0],)))
        if np.any(w < 0) or not w.sum() > 0:
            raise ArgumentError("weights", "be at least 0 and not all 0", w.tolist())
        self.dim, self._boxes = int(a.shape[1]), int(a.shape[0])
        self._count = self._boxes * len(_NODES)
        self._w, self._a, self._b = w / w.sum(), a, b

    # ---- one blurred interval in each dimension of each box

    def _posterior(self, x: Array, S: Array, V: Array) -> tuple[Array, ...]:
        """log p, E[Y | x] and Var[Y | x], and S E - x over V and S^2 Var / V - 1 over V: (n, K, D)."""
        xp = namespace(x)
        S, V = over(S), over(V)
        a, b = like(self._a, x), like(self._b, x)
        half, centre = 0.5 * (b - a), 0.5 * (a + b)
        blurred = (V > 0) if not isinstance(V, float) else xp.asarray(V > 0)
        v = xp.where(like(blurred, x) > 0, like(V, x), xp.ones_like(like(V, x)))
        sigma, H = xp.sqrt(v), xp.abs(like(S, x)) * half
        off = x[:, None, :] - S * centre
        side = xp.where(off < 0, -xp.ones_like(off), xp.ones_like(off))
        toward = xp.where(like(S, x) < 0, -side, side)  # the same side, seen from the data
        z = side * off
        u, omega = (z - H) / sigma, 2 * H / sigma + xp.zeros_like(z)
        log_p, mean_s, var_s = _truncated(u, omega)
        log_p = log_p - xp.log(sigma)
        inside = (u < 2) & (omega > 9)
        wide_p, wide_s, wide_var = _inside(xp.where(inside, u, -5 + 0 * u), omega)
        log_p = xp.where(inside, wide_p - xp.log(sigma), log_p)
        mean_s, var_s = xp.where(inside, wide_s, mean_s), xp.where(inside, wide_var, var_s)
        # Shares of the box's width: finite also where S = 0, when s and omega both vanish.
        share, spread = _shares(omega, mean_s, var_s)
        mean = centre + toward * half * (1 - 2 * share)
        cov = 4 * half * half * spread
        grad = -side * (u + mean_s) / sigma
        curvature = (var_s - 1) / v
        # Noise 0: the density itself.
        exact = xp.zeros_like(off) + like(blurred, x) == 0
        held = z <= H
        level = -xp.log(2 * xp.where(H > 0, H, xp.ones_like(H)))
        flat = xp.where(held, level + 0 * z, xp.full_like(z, -math.inf))
        slope = xp.zeros_like(z)  # outside of every box the responsibilities are NaN, and so is all
        S_safe = xp.where(like(S, x) != 0, like(S, x), xp.ones_like(like(S, x)))
        return (
            xp.where(exact, flat, log_p),
            xp.where(exact, x[:, None, :] / S_safe + 0 * mean, mean),
            xp.where(exact, xp.zeros_like(cov), cov),
            xp.where(exact, slope, grad),
            xp.where(exact, slope, curvature),
        )

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        return log_weights(like(self._w, x)) + namespace(x).sum(self._posterior(x, S, V)[0], axis=-1)

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        return self._posterior(x, S, V)[3]

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        return self._posterior(x, S, V)[4][..., None] * like(np.eye(self.dim), x)

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        return self._posterior(x, S, V)[1]

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        return self._posterior(x, S, V)[2][..., None] * like(np.eye(self.dim), x)

    # ---- the law as a whole

    def _moments(self) -> tuple[Array, Array]:
        centre = 0.5 * (self._a + self._b)
        mean = self._w @ centre
        off = centre - mean
        own = np.einsum("k,kd,de->de", self._w, (self._b - self._a) ** 2 / 12, np.eye(self.dim))
        return mean, own + np.einsum("k,kd,ke->de", self._w, off, off)

    def _sample(self, n: int, draws: Draws) -> Array:
        k = draws.choice(self._w, n)
        uniform = draws.uniform(n, self.dim)
        a, b = like(self._a, uniform), like(self._b, uniform)
        return a[k] + (b - a)[k] * uniform

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Gauss-Legendre panels graded towards the edges. See `Target.quadrature`."""
        if self.dim > 2:
            raise ArgumentError("target", "have D <= 2 for quadrature", f"D = {self.dim}")
        S, V = self._single_noise()
        axes = []
        for d in range(self.dim):
            marks = S * np.unique(np.concatenate([self._a[:, d], self._b[:, d]]))
            axes.append(panels(edges(marks, math.sqrt(V)) if V else np.sort(marks)))
        x = np.stack(np.meshgrid(*[a for a, _ in axes], indexing="ij"), -1).reshape(-1, self.dim)
        cell = np.prod(np.stack(np.meshgrid(*[w for _, w in axes], indexing="ij")), 0).ravel()
        mass = cell * np.exp(self.log_prob(x))
        keep = mass > 0
        return x[keep], mass[keep]

    def _log_cdfs(self, x: Array, S: Array, V: Array, upper: bool) -> Array:
        xp = namespace(x)
        S, V = (like(a, x)[..., None] if getattr(a, "ndim", 0) else like(a, x) for a in (S, V))
        ends = [S * like(e, x)[:, 0] for e in (self._a, self._b)]
        sign = -1.0 if upper else 1.0
        x = sign * x[:, None]
        A = xp.minimum(sign * ends[0], sign * ends[1])
        B = xp.maximum(sign * ends[0], sign * ends[1])
        sigma = xp.sqrt(V)
        safe = xp.where(sigma > 0, sigma, xp.ones_like(sigma))
        # All of the box below x - 9.5 sigma counts in full; a window around the edge is integrated.
        low = xp.minimum(xp.maximum(A, x - 9.5 * sigma), B)
        u = xp.where(A > x, (A - x) / safe, xp.zeros_like(A - x))
        high = xp.minimum(B, xp.maximum(A, x) + sigma * 90 / (u + xp.sqrt(u * u + 90)))
        span = xp.maximum(high - low, 0 * low)
        y = low[..., None] + span[..., None] * like(_NODES, x)
        inner = log_ndtr((x[..., None] - y) / safe[..., None]) + like(np.log(_WEIGHTS), x)
        width = xp.where(B > A, B - A, xp.ones_like(B))
        window = logsumexp(inner) + log_weights(span / width)
        full = log_weights((low - A) / width)
        blurred = logsumexp(xp.stack([window, full], axis=-1))
        sharp = log_weights(xp.clip((x - A) / width, 0.0, 1.0))
        blurred = xp.where(B > A, blurred, log_ndtr((x - A) / safe))
        return log_weights(like(self._w, x)) + xp.where(sigma > 0, blurred, sharp)

    def _reach(self, S: Array, V: Array) -> tuple[Array, Array]:
        xp = namespace(S)
        ends = [S * float(e) for e in (self._a.min(), self._b.max())]
        width = 39 * xp.sqrt(V)
        return xp.minimum(*ends) - width, xp.maximum(*ends) + width


def _truncated(u: Array, omega: Array) -> tuple[Array, Array, Array]:
    """log(phi(u) R/omega) and the mean and variance of s, density exp(-u s - s^2/2) on [0, omega]."""
    xp = namespace(u)
    tail = xp.maximum(u, 0 * u)
    reach = 100 / (tail + xp.sqrt(tail * tail + 100))  # where the exponent has fallen by 50
    length = xp.minimum(omega, xp.where(u < 2, 9 + 0 * u, reach))
    s = length[..., None] * like(_NODES, u)
    logits = -s * (u[..., None] + 0.5 * s) + like(np.log(_WEIGHTS), u)
    peak = xp.max(logits, axis=-1, keepdims=True)
    mass = xp.exp(logits - peak)
    total = xp.sum(mass, axis=-1)
    mean = xp.sum(mass * s, axis=-1) / total
    off = s - mean[..., None]
    var = xp.sum(mass * off * off, axis=-1) / total
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    fraction = xp.where(omega > 0, length / safe, xp.ones_like(omega))
    log_p = -0.5 * u * u - 0.5 * LOG_2PI + xp.log(total * fraction) + xp.squeeze(peak, axis=-1)
    return log_p, mean, var


def _inside(u: Array, omega: Array) -> tuple[Array, Array, Array]:
    """The same for u < 2 and omega > 9, through the normal cdf, where no digit is lost."""
    xp = namespace(u)
    log_z = log_ndtr(-u) + xp.log1p(-xp.exp(log_ndtr(-(u + omega)) - log_ndtr(-u)))
    q1 = xp.exp(-0.5 * u * u - 0.5 * LOG_2PI - log_z)
    q2 = xp.exp(-0.5 * (u + omega) ** 2 - 0.5 * LOG_2PI - log_z)
    slope = q2 - q1
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    return log_z - xp.log(safe), -u - slope, 1 + u * q1 - (u + omega) * q2 - slope * slope


def _shares(omega: Array, mean: Array, var: Array) -> tuple[Array, Array]:
    """Mean and variance of s/omega; those of the uniform law where omega = 0."""
    xp = namespace(omega)
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    share = xp.where(omega > 0, mean / safe, 0.5 + 0 * omega)
    return share, xp.where(omega > 0, var / (safe * safe), 1 / 12 + 0 * omega)
