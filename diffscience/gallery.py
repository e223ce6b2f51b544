"""The gallery: named targets, each a function of a few numbers, and `ALL` of them.

Noise is part of the target: `swiss_roll(noise=0.05)` is the bare curve after the transition
(1, 0.05^2). Lengths are in the units of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, finite, like, namespace
from .boxes import Boxes
from .curves import Curve
from .errors import ArgumentError
from .mixture import GaussianMixture
from .rings import Rings
from .transition import Transition


def _blur(scale: float, noise: float) -> Transition:
    for name, value in (("scale", scale), ("noise", noise)):
        if not (isinstance(value, (int, float, np.number)) and 0 <= value < math.inf):
            raise ArgumentError(name, "be a number of at least 0", value)
    return Transition(float(scale), float(noise) ** 2)


def _spiral(t: Array) -> Array:
    xp = namespace(t)
    return xp.stack([t * xp.cos(t), t * xp.sin(t)], axis=-1)


def _moons(t: Array) -> Array:
    # The upper half for t in [0, pi], the lower one for t - pi in [0, pi].
    xp = namespace(t)
    first, u = t < math.pi, t - math.pi
    across = xp.where(first, xp.cos(t), 1 - xp.cos(u))
    return xp.stack([across, xp.where(first, xp.sin(t), 0.5 - xp.sin(u))], axis=-1)


def _s(t: Array) -> Array:
    xp = namespace(t)
    return xp.stack([xp.sin(t), xp.sign(t) * (xp.cos(t) - 1)], axis=-1)


def _ones(t: np.ndarray) -> np.ndarray:
    return np.ones_like(t)


_SPIRAL = Curve(
    _spiral,
    [1.5 * math.pi, 4.5 * math.pi],
    lambda t: np.sqrt(1 + t * t),
    lambda t: np.sqrt(4 + t * t),
)
_MOONS = Curve(_moons, [0.0, math.pi, 2 * math.pi], _ones, _ones)
_S = Curve(_s, [-1.5 * math.pi, 0.0, 1.5 * math.pi], _ones, _ones)


def swiss_roll(noise: float = 0.05, scale: float = 0.1) -> Curve:
    """scale (t cos t, t sin t) + noise N(0, I), t = 1.5 pi (1 + 2U), U uniform on [0, 1].

    >>> swiss_roll().sample(3, 0).shape
    (3, 2)
    """
    return _SPIRAL.diffuse(_blur(scale, noise))


def two_moons(noise: float = 0.1) -> Curve:
    """Halves (cos t, sin t) and (1 - cos t, 1/2 - sin t), t uniform on [0, pi], + noise N(0, I).

    >>> two_moons().sample(3, 0).shape
    (3, 2)
    """
    return _MOONS.diffuse(_blur(1.0, noise))


def s_curve(noise: float = 0.1) -> Curve:
    """(sin t, sign(t)(cos t - 1)) + noise N(0, I), t uniform on [-3 pi/2, 3 pi/2].

    >>> s_curve().sample(3, 0).shape
    (3, 2)
    """
    return _S.diffuse(_blur(1.0, noise))


def rings(
    radii: Sequence[float] = (1.0, 2.0, 3.0),
    weights: Sequence[float] | None = None,
    noise: float = 0.1,
) -> Rings:
    """Uniform on circles around the origin, plus noise N(0, I); equal weights when left out.

    >>> rings().sample(3, 0).shape
    (3, 2)
    """
    return Rings(radii, weights).diffuse(_blur(1.0, noise))


def checkerboard() -> Boxes:
    """Uniform on the 8 squares of side 2 in [-4, 4]^2 with i + j even, counted from (-4, -4).

    >>> checkerboard().sample(3, 0).shape
    (3, 2)
    """
    lows = np.array(
        [[2.0 * i - 4, 2.0 * j - 4] for i in range(4) for j in range(4) if (i + j) % 2 == 0]
    )
    return Boxes(lows, lows + 2)


def empirical(points: Array) -> GaussianMixture:
    """The empirical measure of points (n, D): equal weights, no width until it is diffused.

    >>> empirical([[0.0], [4.0]]).blurred(1.0).score([[2.0]]).round(12).tolist()
    [[0.0]]
    """
    points = finite("points", points, (None, None))
    xp = namespace(points)
    weights = like(np.full(points.shape[0], 1.0 / max(points.shape[0], 1)), points)
    return GaussianMixture(weights, points, xp.zeros_like(points))


def julia_bimodal() -> GaussianMixture:
    """0.1 N(-3, 1) + 0.9 N(3, 1), the 1-D target of R. Rosa's notes (random_notes, CC BY 4.0).

    >>> julia_bimodal().mean.round(12).tolist()
    [2.4]
    """
    return GaussianMixture([0.1, 0.9], [[-3.0], [3.0]], [[[1.0]], [[1.0]]])


def julia_trimodal() -> GaussianMixture:
    """0.4 N((-3,-3), I) + 0.4 N((3,3), I) + 0.2 N((-1,1), I), the 2-D target of the same notes.

    >>> julia_trimodal().sample(3, 0).shape
    (3, 2)
    """
    means = [[-3.0, -3.0], [3.0, 3.0], [-1.0, 1.0]]
    return GaussianMixture([0.4, 0.4, 0.2], means, np.ones((3, 2)))


def eight_gaussians(radius: float = 2.0, std: float = 0.2) -> GaussianMixture:
    """Eight equal Gaussians on a circle.

    >>> eight_gaussians().sample(3, 0).shape
    (3, 2)
    """
    turn = np.arange(8) * (math.pi / 4)
    means = radius * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    return GaussianMixture(np.ones(8), means, np.full((8, 2), float(std) ** 2))


def grid(std: float = 0.1) -> GaussianMixture:
    """Twenty-five equal Gaussians on the 5 x 5 grid of the points {-2, -1, 0, 1, 2}^2.

    >>> grid().sample(3, 0).shape
    (3, 2)
    """
    axis = np.arange(-2.0, 3.0)
    means = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    return GaussianMixture(np.ones(25), means, np.full((25, 2), float(std) ** 2))


def skewed_pair() -> GaussianMixture:
    """0.99 N((2, 0), C) + 0.01 N((-2, 0), 0.05^2 I): a broad slanted mode and a rare narrow one.

    C = [[1, 0.95], [0.95, 1]].

    >>> skewed_pair().sample(3, 0).shape
    (3, 2)
    """
    covs = np.array([[[1.0, 0.95], [0.95, 1.0]], [[0.0025, 0.0], [0.0, 0.0025]]])
    return GaussianMixture([0.99, 0.01], [[2.0, 0.0], [-2.0, 0.0]], covs)


def _cloud() -> GaussianMixture:
    """The empirical measure of 64 points of a swiss roll."""
    return empirical(swiss_roll().sample(64, 64))


ALL: dict[str, Callable[[], Any]] = {
    "swiss_roll": swiss_roll,
    "two_moons": two_moons,
    "s_curve": s_curve,
    "rings": rings,
    "checkerboard": checkerboard,
    "empirical": _cloud,
    "julia_bimodal": julia_bimodal,
    "julia_trimodal": julia_trimodal,
    "eight_gaussians": eight_gaussians,
    "grid": grid,
    "skewed_pair": skewed_pair,
}
"""Every target by name, with its default numbers; the law tests run over this table."""

__all__ = ["ALL", "empirical", *(name for name in ALL if name != "empirical")]
