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

from .arrays import (
    Array,
    Draws,
    finite,
    like,
    log_ndtr,
    logsumexp,
    mills,
    namespace,
    numpy,
    softmax,
)
from .errors import ArgumentError
from .quadrature import edges, panels
from .targets import LOG_2PI, Target, log_weights, over

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)
_NODES, _WEIGHTS = 0.5 * (_NODES + 1), 0.5 * _WEIGHTS  # on [0, 1], weights summing to 1
_FEW, _FEW_W = np.polynomial.legendre.leggauss(10)
_FEW, _FEW_W = 0.5 * (_FEW + 1), 0.5 * _FEW_W


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
        self.dim, self._count = int(a.shape[1]), int(a.shape[0]) * len(_NODES)
        self._w, self._a, self._b = w / w.sum(), a, b
        self._lows, self._highs, self._index = _distinct(a, b)

    # ---- one blurred interval in each dimension of each box

    def _each(self, values: Array) -> Array:
        """From the distinct intervals (n, J, D) to the boxes (n, K, D)."""
        xp = namespace(values)
        index = [like(i, values) for i in self._index.T]
        columns = [
            xp.take(values[..., d], xp.astype(i, xp.int64), axis=1) for d, i in enumerate(index)
        ]
        return xp.stack(columns, axis=-1)

    def _place(self, x: Array, S: Array, V: Array) -> _Place:
        """Where the rows stand to the distinct intervals; noise 0 is looked at with unit noise."""
        S, V = like(over(S), x), like(over(V), x)
        return _Place(x[:, None, :], like(self._lows, x), like(self._highs, x), S, V)

    def _densities(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        """log(w_k p_k), (n, K), and the gradients of log p_k, (n, K, D)."""
        xp, at = namespace(x), self._place(x, S, V)
        log_p, slope = _density(at.u, at.omega)
        log_p = xp.where(at.blurred, log_p - xp.log(at.sigma), at.sharp)
        grads = xp.where(at.blurred, -at.side * slope / at.sigma, xp.zeros_like(slope))
        logits = xp.sum(self._each(log_p), axis=-1)
        return log_weights(like(self._w, x)) + logits, self._each(grads)

    def _rows_both(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        def both(x: Array, S: Array, V: Array) -> Array:
            xp = namespace(x)
            logits, grads = self._densities(x, S, V)
            score = xp.sum(softmax(logits)[..., None] * grads, axis=-2)
            return xp.concat([logsumexp(logits)[:, None], score], axis=-1)

        rows = self._chunks(both, x, S, V, 4 * len(self._lows) * self.dim)
        return rows[:, 0], rows[:, 1:]

    def _rows_log_prob(self, x: Array, S: Array, V: Array) -> Array:
        return self._rows_both(x, S, V)[0]

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        return self._densities(x, S, V)[0]

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        return self._densities(x, S, V)[1]

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        xp, at = namespace(x), self._place(x, S, V)
        _, var = _distance(at.u, at.omega)
        curvature = xp.where(at.blurred, (var - 1) / at.sigma**2, xp.zeros_like(var))
        return self._each(curvature)[..., None] * like(np.eye(self.dim), x)

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        xp, at = namespace(x), self._place(x, S, V)
        share, _ = _shares(at.omega, *_distance(at.u, at.omega))
        mean = at.centre + at.toward * at.half * (1 - 2 * share)
        return self._each(xp.where(at.blurred, mean, at.data))

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        xp, at = namespace(x), self._place(x, S, V)
        _, spread = _shares(at.omega, *_distance(at.u, at.omega))
        var = xp.where(at.blurred, 4 * at.half**2 * spread, xp.zeros_like(spread))
        return self._each(var)[..., None] * like(np.eye(self.dim), x)

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
        u = xp.where(x < A, (A - x) / safe, xp.zeros_like(A - x))
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


def _distinct(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct intervals along each axis, (J, D) twice, and the one of each box, (K, D).

    Boxes on a lattice share their sides; axes with fewer intervals repeat their last one.
    """
    found = [
        np.unique(np.stack([a[:, d], b[:, d]], -1), axis=0, return_inverse=True)
        for d in range(a.shape[1])
    ]
    most = max(len(pairs) for pairs, _ in found)
    padded = np.stack(
        [np.pad(p, ((0, most - len(p)), (0, 0)), mode="edge") for p, _ in found], axis=-1
    )
    return padded[:, 0], padded[:, 1], np.stack([i.reshape(-1) for _, i in found], axis=-1)


class _Place:
    """Rows x (n, 1, D) seen from intervals (J, D) that are scaled by S and blurred by V."""

    def __init__(self, x: Array, lows: Array, highs: Array, S: Array, V: Array) -> None:
        xp = namespace(x)
        self.half, self.centre = 0.5 * (highs - lows), 0.5 * (lows + highs)
        off = x - S * self.centre
        self.blurred = (V > 0) & (off == off)
        self.sigma = xp.sqrt(xp.where(V > 0, V, xp.ones_like(V)))
        self.side = xp.where(off < 0, -xp.ones_like(off), xp.ones_like(off))
        self.toward = xp.where(S < 0, -self.side, self.side)  # the same side, seen from the data
        H, z = xp.abs(S) * self.half, self.side * off
        self.u, self.omega = (z - H) / self.sigma, 2 * H / self.sigma + xp.zeros_like(z)
        level = -xp.log(2 * xp.where(H > 0, H, xp.ones_like(H))) + xp.zeros_like(z)
        self.sharp = xp.where(z <= H, level, xp.full_like(z, -math.inf))
        self.data = x / xp.where(S != 0, S, xp.ones_like(S)) + xp.zeros_like(z)


def _density(u: Array, omega: Array) -> tuple[Array, Array]:
    """log(phi(u) R/omega) and u + E s, for u >= -omega/2, through the Mills ratio M:

    R = M(u) - exp(-w) M(u + omega),   u + E s = (1 - exp(-w))/R,   w = omega (u + omega/2)
    """
    xp = namespace(u)
    inside, short = u < -4, (omega < 1) & (omega * (u + 0.5 * omega) < 1)
    w = omega * (u + 0.5 * omega)
    near = xp.where(inside, xp.zeros_like(u), u)
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    R = mills(near) - xp.exp(-w) * mills(near + omega)
    R = xp.where(short, xp.ones_like(R), R)
    log_p = -0.5 * u * u - 0.5 * LOG_2PI + xp.log(R / safe)
    slope = -xp.expm1(-w) / R
    # A box much narrower than the blur, where R is a small difference: ten nodes are exact.
    s = xp.where(short, omega, xp.zeros_like(omega))[..., None] * like(_FEW, u)
    mass = xp.exp(-s * (xp.where(short, u, xp.zeros_like(u))[..., None] + 0.5 * s)) * like(
        _FEW_W, u
    )
    total = xp.sum(mass, axis=-1)
    log_p = xp.where(short, -0.5 * u * u - 0.5 * LOG_2PI + xp.log(total), log_p)
    slope = xp.where(short, u + xp.sum(mass * s, axis=-1) / total, slope)
    deep_p, deep_slope, _ = _inside(*_where_inside(inside, u, omega))
    return xp.where(inside, deep_p, log_p), xp.where(inside, deep_slope, slope)


def _distance(u: Array, omega: Array) -> tuple[Array, Array]:
    """Mean and variance of s, density proportional to exp(-u s - s^2/2) on [0, omega]."""
    xp = namespace(u)
    inside = (u < 2) & (omega > 9)
    tail = xp.maximum(u, 0 * u)
    reach = 100 / (tail + xp.sqrt(tail * tail + 100))  # where the exponent has fallen by 50
    length = xp.minimum(omega, xp.where(u < 2, 9 + 0 * u, reach))
    s = length[..., None] * like(_NODES, u)
    logits = -s * (xp.where(inside, 0 * u, u)[..., None] + 0.5 * s)
    mass = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True)) * like(_WEIGHTS, u)
    total = xp.sum(mass, axis=-1)
    mean = xp.sum(mass * s, axis=-1) / total
    off = s - mean[..., None]
    var = xp.sum(mass * off * off, axis=-1) / total
    _, deep, deep_var = _inside(*_where_inside(inside, u, omega))
    return xp.where(inside, deep - u, mean), xp.where(inside, deep_var, var)


def _where_inside(inside: Array, u: Array, omega: Array) -> tuple[Array, Array]:
    """u and omega where `inside`, and elsewhere a place at which nothing overflows."""
    where = namespace(u).where
    return where(inside, u, -5 + 0 * u), where(inside, omega, 20 + 0 * omega)


def _inside(u: Array, omega: Array) -> tuple[Array, Array, Array]:
    """log(phi(u) R/omega), u + E s and Var s well inside a wide box, by the normal cdf."""
    xp = namespace(u)
    log_z = log_ndtr(-u) + xp.log1p(-xp.exp(log_ndtr(-(u + omega)) - log_ndtr(-u)))
    q1 = xp.exp(-0.5 * u * u - 0.5 * LOG_2PI - log_z)
    q2 = xp.exp(-0.5 * (u + omega) ** 2 - 0.5 * LOG_2PI - log_z)
    slope = q1 - q2
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    return log_z - xp.log(safe), slope, 1 + u * q1 - (u + omega) * q2 - slope * slope


def _shares(omega: Array, mean: Array, var: Array) -> tuple[Array, Array]:
    """Mean and variance of s/omega; those of the uniform law where omega = 0."""
    xp = namespace(omega)
    safe = xp.where(omega > 0, omega, xp.ones_like(omega))
    share = xp.where(omega > 0, mean / safe, 0.5 + 0 * omega)
    return share, xp.where(omega > 0, var / (safe * safe), 1 / 12 + 0 * omega)
