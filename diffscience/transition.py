"""Gaussian transitions, the monoid that forward noising is made of.

    T = (scale, var) sends X to scale X + sqrt(var) Z,   Z ~ N(0, I) independent of X
    T1.then(T2) = (scale1 scale2, scale2^2 var1 + var2)
    identity = (1, 0)

`then` reads in the order of time: first T1, then T2. The variance is the primitive, not its root:
variances add along the monoid and are smooth at time 0, where the root has an infinite slope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import array_api_compat
import numpy as np

from .arrays import Array, finite, is_traced, like, namespace, numpy, paired, wide
from .errors import ArgumentError, instance


@dataclass(frozen=True, eq=False)
class Transition:
    """A Gaussian transition X -> scale X + sqrt(var) Z.

    Parameters
    ----------
    scale : any finite number, or an array (*b): one transition for each row.
    var : a number >= 0 or an array (*b), in squared units of X.

    Raises
    ------
    ArgumentError : a NaN or an infinity, or a negative variance.

    Examples
    --------
    >>> Transition(0.5, 1.0).then(Transition(2.0, 3.0))
    Transition(scale=1.0, var=7.0)
    """

    scale: Array = 1.0
    var: Array = 0.0

    def __post_init__(self) -> None:
        numbers = type(self.scale) is type(self.var) is float
        if numbers and math.isfinite(self.scale) and 0 <= self.var < math.inf:
            return  # a sampler makes some ten of these a step
        for name in ("scale", "var"):
            array = finite(name, getattr(self, name))
            object.__setattr__(self, name, float(array) if _is_number(array) else array)
        if not is_traced(self.var) and bool(np.any(numpy(self.var) < 0)):
            raise ArgumentError("var", "be at least 0", float(np.min(numpy(self.var))))
        paired("var", _shape(self.scale), _shape(self.var))

    @classmethod
    def identity(cls) -> Transition:
        """The transition that changes nothing, (1, 0)."""
        return cls(1.0, 0.0)

    def then(self, later: Transition) -> Transition:
        """This transition followed by a later one (composition, associative)."""
        instance("later", later, Transition)
        paired("later", self.shape, later.shape)
        s1, v1, s2, v2 = _together(self.scale, self.var, later.scale, later.var)
        return Transition(s1 * s2, s2 * s2 * v1 + v2)

    def apply(self, x: Array, noise: Array) -> Array:
        """scale x + sqrt(var) noise, for x and noise of shape (*b, D), in the dtype of x.

        Raises ArgumentError for x that are no floating-point points, and noise of another shape.
        NaN goes through: a look at every number would double the cost of a step.
        """
        x, noise = floating("x", x), floating("noise", noise)
        if noise.shape != x.shape:
            raise ArgumentError("noise", "have the shape of x", tuple(noise.shape))
        xp = namespace(x)
        paired("x", tuple(x.shape[:-1]), self.shape)
        scale, var = like(self.scale, x), like(self.var, x)
        if scale.ndim or var.ndim:
            scale, var = scale[..., None], var[..., None]
        moved = scale * wide(x) + xp.sqrt(var) * wide(noise)
        return xp.astype(moved, x.dtype, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape (*b), () for a single transition."""
        if type(self.scale) is type(self.var) is float:
            return ()
        return paired("var", _shape(self.scale), _shape(self.var))


def floating(argument: str, x: Array) -> Array:
    """Points (*b, D) as given, of a floating dtype: an integer one would round what is written.

    A list becomes a NumPy array. Only shape and dtype are looked at.
    """
    if not array_api_compat.is_array_api_obj(x):
        x = finite(argument, x)
    if x.ndim < 1 or not namespace(x).isdtype(x.dtype, "real floating"):
        raise ArgumentError(
            argument,
            "be floating-point points of shape (..., D)",
            f"{x.dtype} of shape {tuple(x.shape)}",
        )
    return x


def _shape(value: Array) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _is_number(array: Array) -> bool:
    """A zero-dimensional array that carries no derivative may as well be a float."""
    return array.ndim == 0 and not is_traced(array) and not getattr(array, "requires_grad", False)


def _together(*values: Array) -> list[Array]:
    """The values in one namespace and on one device; plain floats stay floats."""
    arrays = [v for v in values if not isinstance(v, float)]
    if not arrays:
        return list(values)
    xp = namespace(*arrays)
    home = next(a for a in arrays if namespace(a) is xp)
    return [like(v, home) for v in values]
