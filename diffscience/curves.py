"""Curves: a law spread evenly over the parameter of a plane curve, blurred by noise.

    p(x) = 1/(b - a)  integral of N(x; S gamma(t), V I) over t in [a, b]

The integral is taken by Gauss-Legendre panels of 32 nodes, so short that each sum is
exact to about 1e-13: with phi(t) = |x - S gamma(t)|^2 / 2V and

    |phi''| <= omega^2 = (S^2 |gamma'|^2 + |S| |gamma''| |x - S gamma|) / V,

a panel of length 8/omega over which phi changes by at most 60 is exact to 5e-14. Two ways:

- near the curve (within about 7 sqrt V) all points share one set of nodes, and the blurred curve is
  a Gaussian mixture, compiled like any other;
- elsewhere, and where the blur is so small that no shared set would do, each point gets panels of
  its own: intervals are halved and dropped by the rigorous bound phi >= min(phi_a, phi_b) - omega^2
  h^2/8 on an interval of length h, until those within 45 nats of the best are fine enough.

So every blur above 0 is served, at any distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from .arrays import Array, Draws, finite, index_like, is_traced, like, namespace, numpy, wide
from .errors import ArgumentError
from .mixture import GaussianMixture
from .targets import CHUNK, Target

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_PANEL, _RANGE, _NATS = 8.0, 60.0, 45.0
_SHARED = 8192  # nodes at most in a shared set
_NEAR = 25.0  # nats below a point's own peak at which the shared nodes give way


class Curve(Target):
    """The law of gamma(t), t uniform on [breaks[0], breaks[-1]], in the plane.

    Parameters
    ----------
    point : t (*b) -> (*b, 2), written with the functions of the array's namespace.
    breaks : increasing; gamma is smooth on [breaks[i], breaks[i + 1]) and may jump between.
    speed, bend : |gamma'(t)| and |gamma''(t)| as functions of NumPy arrays t; on any interval
        without a break they must be largest at one of its ends.

    The curve has no width: blur it (`diffuse`) before asking for a density.
    """

    dim = 2

    def __init__(
        self,
        point: Callable[[Array], Array],
        breaks: Sequence[float],
        speed: Callable[[np.ndarray], np.ndarray],
        bend: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self._breaks = numpy(finite("breaks", breaks, (None,)))
        if len(self._breaks) < 2 or np.any(np.diff(self._breaks) <= 0):
            raise ArgumentError("breaks", "be two or more increasing numbers", breaks)
        self._point, self._speed, self._bend = point, speed, bend
        nodes, _ = self._along(np.linspace(0, 1, 65))
        self._radius = 1.01 * float(np.max(np.hypot(*nodes.T)))
        self._count = 1024

    def _zero_width(self) -> bool:
        return True

    # ---- nodes

    def _along(self, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes (M, 2) and weights (M,) on panels that split every piece at these fractions."""
        points, weights = [], []
        for a, b in zip(self._breaks[:-1], self._breaks[1:]):
            t, w = _panel_nodes(a + (b - a) * fractions[:-1], a + (b - a) * fractions[1:])
            points.append(self._point(t.ravel()))
            weights.append(w.ravel())
        w = np.concatenate(weights)
        return np.concatenate(points), w / w.sum()

    def _shared(self, S: float, V: float) -> GaussianMixture | None:
        """The blurred curve as a mixture of points, or None where that takes too many."""
        return _shared_nodes(self, abs(S), _coarser(V)) if V > 0 else None

    def _omega(
        self, a: np.ndarray, b: np.ndarray, far: np.ndarray, S: Array, V: Array
    ) -> np.ndarray:
        """The bound omega on intervals [a, b] for points at most `far` from the scaled curve."""
        speed = np.maximum(self._speed(a), self._speed(b))
        bend = np.maximum(self._bend(a), self._bend(b))
        return np.sqrt((S * S * speed * speed + np.abs(S) * bend * far) / V)

    def _plan(self, x: np.ndarray, S: np.ndarray, V: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nodes t and weights, both (n, M), fit for each row's integrand; padded with weight 0."""
        n = len(x)
        far = np.hypot(*x.T) + np.abs(S) * self._radius

        def phi(i: np.ndarray, t: np.ndarray) -> np.ndarray:
            off = x[i] - S[i, None] * self._point(t)
            return np.sum(off * off, axis=-1) / (2 * V[i])

        edges = [np.linspace(a, b, 25) for a, b in zip(self._breaks[:-1], self._breaks[1:])]
        a = np.tile(np.concatenate([e[:-1] for e in edges]), n)
        b = np.tile(np.concatenate([e[1:] for e in edges]), n)
        i = np.repeat(np.arange(n), sum(len(e) - 1 for e in edges))
        best = np.full(n, np.inf)
        while True:
            # A piece is closed on the left and open on the right: the curve may jump at a break.
            phi_a, phi_b = phi(i, a), phi(i, np.nextafter(b, a))
            low = np.minimum(phi_a, phi_b)
            np.minimum.at(best, i, low)
            turn = (b - a) * self._omega(a, b, far[i], S[i], V[i])
            keep = low - turn * turn / 8 <= best[i] + _NATS
            fine = (turn <= _PANEL) & (np.abs(phi_a - phi_b) <= _RANGE)
            split = keep & ~fine
            if not split.any():
                break
            middle = 0.5 * (a[split] + b[split])
            done = keep & fine
            i = np.concatenate([i[done], i[split], i[split]])
            a, b = (
                np.concatenate([a[done], a[split], middle]),
                np.concatenate([b[done], middle, b[split]]),
            )
        return _padded(n, i[keep], a[keep], b[keep], self._breaks[-1] - self._breaks[0])

    # ---- rows

    def _own(self, method: str, x: Array, S: Array, V: Array) -> Array:
        """A method of `Target` on rows with nodes of their own, chunk by chunk."""
        xp, n = namespace(x), x.shape[0]
        if is_traced(x):
            raise ArgumentError(
                "x", "be concrete near a curve of this blur, not traced", "a tracer"
            )
        s, v = (np.broadcast_to(numpy(a).reshape(-1), (n,)) for a in (like(S, x), like(V, x)))
        found: list[Array] = []
        start, size = 0, 512
        while start < n or not found:
            rows = slice(start, min(start + size, n))
            t, w = self._plan(numpy(wide(x[rows, :])), s[rows], v[rows])
            cloud = _cloud(like(w, x), self._point(like(t, x)))
            part = [a[rows, ...] if getattr(a, "ndim", 0) else a for a in (S, V)]
            found.append(getattr(Target, method)(cloud, wide(x[rows, :]), *part))
            start += size
            size = max(16, min(4096, 4 * CHUNK // max(t.shape[1], 1)))
        if isinstance(found[0], tuple):
            return tuple(xp.concat(parts, axis=0) for parts in zip(*found))
        return xp.concat(found, axis=0)

    def _rows(self, method: str, x: Array, S: Array, V: Array) -> Array:
        """Shared nodes for the points near the curve, nodes of their own for the others."""
        shared = self._shared(S, V) if isinstance(S, float) and isinstance(V, float) else None
        if shared is None:
            return self._own(method, x, S, V)
        value = getattr(shared, method)(x, S, V)
        if is_traced(x):
            return value
        log_prob = value[0] if isinstance(value, tuple) else shared._rows_log_prob(x, S, V)
        peak = -math.log(2 * math.pi * V) - _NEAR
        far = numpy(log_prob) < peak
        if not far.any():
            return value
        index = index_like(np.flatnonzero(far), x)
        redone = self._own(method, namespace(x).take(x, index, axis=0), S, V)
        if isinstance(value, tuple):
            return tuple(_replaced(a, index, b) for a, b in zip(value, redone))
        return _replaced(value, index, redone)

    def _rows_log_prob(self, x: Array, S: Array, V: Array) -> Array:
        return self._rows("_rows_log_prob", x, S, V)

    def _rows_both(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        return self._rows("_rows_both", x, S, V)

    def _rows_mean(self, x: Array, S: Array, V: Array) -> Array:
        return self._rows("_rows_mean", x, S, V)

    def _rows_hessian(self, x: Array, S: Array, V: Array) -> Array:
        return self._rows("_rows_hessian", x, S, V)

    def _rows_cov(self, x: Array, S: Array, V: Array) -> Array:
        return self._rows("_rows_cov", x, S, V)

    # ---- the law as a whole

    def _moments(self) -> tuple[Array, Array]:
        x, w = self._along(np.linspace(0, 1, 33))
        mean = w @ x
        return mean, (w[:, None] * (x - mean)).T @ (x - mean)

    def _sample(self, n: int, draws: Draws) -> Array:
        a, b = float(self._breaks[0]), float(self._breaks[-1])
        return self._point(a + (b - a) * draws.uniform(n))

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """A grid over the blurred curve; where that is too fine, Gauss-Hermite points around nodes
        along the curve that are graded towards its ends. See `Target.quadrature`.
        """
        S, V = self._single_noise()
        if V == 0:
            x, w = self._along(np.linspace(0, 1, 33))
            return S * x, w
        sigma, reach = math.sqrt(V), abs(S) * self._radius
        side = math.ceil(2 * (reach + 8.7 * sigma) / (0.3 * sigma))
        if side <= 1500:
            axis = 0.3 * sigma * (np.arange(side + 1) - side / 2)
            x = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
            near, _ = self._along(np.linspace(0, 1, 33))
            keep = _within(x, S * near, 9 * sigma + reach / 64)
            x = x[keep]
            weights = np.exp(self.log_prob(x))
            return x, weights / weights.sum()
        grade = 2.0 ** -np.arange(26, 1, -1.0)
        inner = np.linspace(0.5, 1, 9)[:-1] - 0.25
        fractions = np.unique(np.concatenate([[0.0], grade, inner, 1 - grade, [1.0]]))
        nodes, w = self._along(fractions)
        z, mass = np.polynomial.hermite_e.hermegauss(16)
        mesh = sigma * np.stack(np.meshgrid(z, z, indexing="ij"), -1).reshape(-1, 2)
        mass = np.outer(mass, mass).ravel() / mass.sum() ** 2
        x = S * nodes[:, None, :] + mesh
        return x.reshape(-1, 2), (w[:, None] * mass).ravel()


def _panel_nodes(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on the intervals [a, b]: (*b, 32) each."""
    half = 0.5 * (b - a)[..., None]
    return a[..., None] + half * (1 + _NODES), half * _WEIGHTS


def _padded(
    n: int, i: np.ndarray, a: np.ndarray, b: np.ndarray, length: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals [a, b] of rows i as nodes and weights (n, M), M the need of the greediest row."""
    order = np.argsort(i, kind="stable")
    i, a, b = i[order], a[order], b[order]
    count = np.bincount(i, minlength=n)
    place = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    left = np.zeros((n, count.max(initial=1)))
    right = np.zeros_like(left)
    left[i, place], right[i, place] = a, b
    empty = np.arange(left.shape[1]) >= count[:, None]
    left = np.where(empty, left[:, :1], left)
    right = np.where(empty, left, right)
    t, w = _panel_nodes(left, right)
    nodes = left.shape[1] * len(_NODES)
    return t.reshape(n, nodes), w.reshape(n, nodes) / length


def _cloud(weights: Array, means: Array) -> GaussianMixture:
    """A mixture of points that differs from row to row: weights (n, M), means (n, M, 2)."""
    cloud = GaussianMixture([1.0], [[0.0, 0.0]], 0)
    cloud._w, cloud._m = weights, means
    cloud._lam, cloud._count = like(np.zeros((1, 2)), means), 1  # the rows are a chunk already
    return cloud


def _coarser(V: float) -> float:
    """V rounded down to a power of sqrt 2, so that nearby noise levels share their nodes."""
    return 2.0 ** (math.floor(2 * math.log2(V)) / 2)


@lru_cache(maxsize=512)
def _shared_nodes(curve: Curve, S: float, V: float) -> GaussianMixture | None:
    """Panels of at most 8/omega along the curve for the points within reach of it."""
    far = np.asarray(2 * S * curve._radius + 8 * math.sqrt(V))
    edges = []
    for a, b in zip(curve._breaks[:-1], curve._breaks[1:]):
        t = np.linspace(a, b, 513)
        rate = curve._omega(t[:-1], t[1:], far, S, V) / _PANEL
        load = np.concatenate([[0.0], np.cumsum(rate * np.diff(t))])
        if load[-1] == 0:  # S = 0: nothing varies along the curve
            load = t - a
        panels = max(1, math.ceil(load[-1]))
        if panels * len(_NODES) > _SHARED:
            return None
        edges.append(np.interp(np.linspace(0, load[-1], panels + 1), load, t))
    parts = [_panel_nodes(e[:-1], e[1:]) for e in edges]
    t = np.concatenate([p[0].ravel() for p in parts])
    w = np.concatenate([p[1].ravel() for p in parts])
    return GaussianMixture(w, curve._point(t), 0)


def _replaced(value: Array, index: Array, rows: Array) -> Array:
    """`value` with these rows put in; out of place where a derivative or JAX needs it."""
    if isinstance(value, np.ndarray):
        value[index] = rows
        return value
    xp = namespace(value)
    source = np.arange(value.shape[0])
    source[numpy(index)] = value.shape[0] + np.arange(len(numpy(index)))
    return xp.take(
        xp.concat([value, xp.astype(rows, value.dtype)], axis=0), index_like(source, value), axis=0
    )


def _within(x: np.ndarray, centres: np.ndarray, reach: float) -> np.ndarray:
    """Which points lie within `reach` of some centre."""
    from scipy.spatial import cKDTree

    return np.isfinite(cKDTree(centres).query(x, distance_upper_bound=reach)[0])
