"""Rings: uniform laws on circles around the origin, blurred in closed form by Bessel functions.

A circle of radius R, scaled by S and blurred by V, with r = |x|, z = S R r/V and A = I_1/I_0:

    p = exp(-(r - S R)^2 / 2V) (I_0(z) e^-z) / (2 pi V)
    score = ((S R/V)^2 A(z)/z - 1/V) x
    E[Y|x] = R A(z) x/r,   Cov[Y|x] = R^2 (A'(z) e e^T + A(z)/z (I - e e^T)),   e = x/r

The scaled Bessel functions stay finite at every z.
"""

from __future__ import annotations

import math

import numpy as np

from .arrays import Array, Draws, finite, i0e, i1e, like, namespace, numpy
from .errors import ArgumentError
from .quadrature import edges, panels
from .targets import LOG_2PI, Target, log_weights


class Rings(Target):
    """sum_k w_k Uniform(circle of radius R_k), in the plane; closed forms with Bessel functions.

    Parameters
    ----------
    radii : (K,) positive.
    weights : (K,) numbers >= 0, not all 0; equal when left out.

    The circles have no width: blur them (`diffuse`) before asking for a density.
    """

    dim = 2

    def __init__(self, radii: Array, weights: Array | None = None) -> None:
        r = numpy(finite("radii", radii, (None,)))
        if r.size == 0 or not np.all(r > 0):
            raise ArgumentError("radii", "be positive", r.tolist())
        w = numpy(finite("weights", np.ones(r.size) if weights is None else weights, (r.size,)))
        if np.any(w < 0) or not w.sum() > 0:
            raise ArgumentError("weights", "be at least 0 and not all 0", w.tolist())
        self._count, self._w, self._r = int(r.size), w / w.sum(), r

    def _zero_width(self) -> bool:
        return True

    def _radial(self, x: Array, S: Array, V: Array) -> tuple[Array, ...]:
        """r, S R and z = S R r/V, shapes (n, 1), (n or 1, K), (n, K)."""
        r = namespace(x).sqrt(namespace(x).sum(x * x, axis=-1))[:, None]
        SR = namespace(x).abs(like(S, x)) * like(self._r, x)
        return r, SR, SR * r / V

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        xp = namespace(x)
        r, SR, z = self._radial(x, S, V)
        log_v = xp.log(like(V, x))
        gap = r - SR
        return (
            log_weights(like(self._w, x)) - gap * (gap / V) / 2 - log_v - LOG_2PI + xp.log(i0e(z))
        )

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        _, SR, z = self._radial(x, S, V)
        factor = (SR / V) ** 2 * _bessel_over(z) - 1 / V
        return factor[..., None] * x[:, None, :]

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        _, SR, z = self._radial(x, S, V)
        scale = (SR / V) ** 2
        return self._matrices(x, scale * _bessel_slope(z) - 1 / V, scale * _bessel_over(z) - 1 / V)

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        _, SR, z = self._radial(x, S, V)
        sign = namespace(x).where(like(S, x) < 0, -1.0 + 0 * like(S, x), 1.0 + 0 * like(S, x))
        factor = sign * like(self._r, x) * (SR / V) * _bessel_over(z)
        return factor[..., None] * x[:, None, :]

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        _, _, z = self._radial(x, S, V)
        squared = like(self._r, x) ** 2
        return self._matrices(x, squared * _bessel_slope(z), squared * _bessel_over(z))

    def _matrices(self, x: Array, radial: Array, tangential: Array) -> Array:
        """radial e e^T + tangential (I - e e^T) with e = x/|x|: (n, K, 2, 2)."""
        xp = namespace(x)
        squared = xp.sum(x * x, axis=-1)[:, None, None]
        e = x[:, :, None] * x[:, None, :] / xp.where(squared > 0, squared, xp.ones_like(squared))
        gap = xp.where(squared > 0, (radial - tangential)[..., None], xp.zeros_like(squared))
        eye = like(np.eye(2), x)
        return tangential[..., None, None] * eye + gap[..., None] * e[:, None, :, :]

    def _moments(self) -> tuple[Array, Array]:
        return np.zeros(2), 0.5 * float(self._w @ self._r**2) * np.eye(2)

    def _sample(self, n: int, draws: Draws) -> Array:
        k = draws.choice(self._w, n)
        angle = 2 * math.pi * draws.uniform(n)
        xp = namespace(angle)
        return like(self._r, angle)[k][:, None] * xp.stack([xp.cos(angle), xp.sin(angle)], axis=-1)

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Polar: Gauss-Legendre panels in the radius, 64 angles. See `Target.quadrature`."""
        S, V = self._single_noise()
        turn = np.arange(64) * (2 * math.pi / 64)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
        if V == 0:
            r, mass = abs(S) * self._r, self._w / 64
        else:
            marks = edges(np.concatenate([[0.0], abs(S) * self._r]), math.sqrt(V))
            r, mass = panels(np.unique(np.maximum(marks, 0.0)))
            mass = mass * r * np.exp(self.log_prob(r[:, None] * circle[0])) * (2 * math.pi / 64)
        return (r[:, None, None] * circle).reshape(-1, 2), np.repeat(mass, 64)


def _bessel_over(z: Array) -> Array:
    """A(z)/z with A = I_1/I_0; 1/2 at z = 0."""
    xp = namespace(z)
    small = z < 1e-4
    safe = xp.where(small, xp.ones_like(z), z)
    return xp.where(small, 0.5 - z * z / 16, i1e(safe) / i0e(safe) / safe)


def _bessel_slope(z: Array) -> Array:
    """A'(z) = 1 - A/z - A^2, by its asymptotic series from z = 300 on, where the sum cancels."""
    xp = namespace(z)
    far = z > 300
    near = xp.where(far, xp.ones_like(z), z)
    over = _bessel_over(near)
    direct = 1 - over - (near * over) ** 2
    y = 1 / xp.where(far, z, xp.full_like(z, 300.0))
    series = y * y * (1 / 2 + y * (1 / 4 + y * (3 / 8 + y * (25 / 32 + y * (65 / 32)))))
    return xp.where(far, series, direct)
