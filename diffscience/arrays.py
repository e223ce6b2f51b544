"""Arrays of any library: which namespace they belong to, and what the array API leaves out.

The exact core is written once against the array API standard. This file holds the four things it
needs beyond that: finding the namespace, the special functions, random draws, and the checks at the
door. Conventions:

- everything inside the core is computed in float64 and returned in the dtype of the caller's array,
  so that a float32 caller loses no more than the rounding of his own points;
- parameters (weights, means, ...) are held in the namespace in which they were given;
- a Python number or list counts as a NumPy array.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from .errors import ArgumentError

Array = Any  # a NumPy array, a torch tensor, a JAX array, or any other of the array API

# What most calls are about is known by its type: a look through all libraries takes 20 times as
# long, and a step of a sampler asks some fifty times.
_NUMPY = array_api_compat.array_namespace(np.empty(0))
_PLAIN = frozenset({np.ndarray, np.float64, np.float32, float, int})


def namespace(*arrays: object) -> Any:
    """The array-API namespace of the arrays among the arguments, NumPy if there is none.

    Tensors win over NumPy arrays, so that NumPy parameters meet tensors on the tensors' side.
    """
    if _PLAIN.issuperset(map(type, arrays)):
        return _NUMPY
    held = [a for a in arrays if array_api_compat.is_array_api_obj(a)]
    foreign = [a for a in held if not isinstance(a, (np.ndarray, np.generic))]
    return array_api_compat.array_namespace(*(foreign or [np.empty(0)]))


def is_torch(array: object) -> bool:
    """Whether this is a torch tensor; never imports torch."""
    return "torch" in sys.modules and array_api_compat.is_torch_array(array)


def is_traced(array: object) -> bool:
    """Whether the values cannot be looked at: inside `torch.func.vmap`, `jax.jit` and the like."""
    if is_torch(array):
        functorch = sys.modules["torch"]._C._functorch
        return bool(functorch.is_functorch_wrapped_tensor(array))
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(array, jax.core.Tracer)


def _widest(array: Array) -> Any:
    """float64, or float32 where there is none: Apple's devices, and JAX as it comes."""
    xp = namespace(array)
    if is_torch(array):
        return xp.float32 if array.device.type == "mps" else xp.float64
    narrow = array_api_compat.is_jax_array(array) and not sys.modules["jax"].config.jax_enable_x64
    return xp.float32 if narrow else xp.float64


def wide(array: Array) -> Array:
    """The array in float64, where its library and device have it."""
    return namespace(array).astype(array, _widest(array), copy=False)


def like(value: Any, x: Array) -> Array:
    """`value` as a wide array in the namespace and on the device of x."""
    xp = namespace(x)
    if is_torch(value) and not is_torch(x):
        value = value.detach().cpu().numpy()
    if is_torch(x):
        # Not through `asarray` where it is a tensor: that would cut its graph of derivatives.
        # Nor straight from a stranger: torch sees the bytes of what has a buffer, not its shape.
        tensor = value if is_torch(value) else xp.asarray(numpy(value), dtype=xp.float64)
        return tensor.to(device=x.device, dtype=_widest(x))
    if isinstance(x, np.ndarray) or array_api_compat.is_jax_array(x):
        return xp.asarray(value, dtype=_widest(x))  # JAX moves a constant to its partners itself
    return array_api_compat.to_device(xp.asarray(value, dtype=_widest(x)), x.device)


def index_like(index: Any, x: Array) -> Array:
    """`index` as int64 indices in the namespace and on the device of x."""
    xp = namespace(x)
    if isinstance(x, np.ndarray) or array_api_compat.is_jax_array(x):
        return xp.asarray(index)
    if is_torch(x) and not is_torch(index):
        index = numpy(index)
    return array_api_compat.to_device(xp.asarray(index), x.device)


def numpy(array: Array) -> np.ndarray:
    """The values as a NumPy array, outside every graph of derivatives."""
    if is_torch(array):
        return array.detach().cpu().numpy()
    if not isinstance(array, (np.ndarray, np.generic)) and hasattr(array, "to_device"):
        home = namespace(array).__array_namespace_info__().default_device()
        array = array_api_compat.to_device(array, home)
    return np.asarray(array)


# ---------------------------------------------------------------- special functions


def _special(name: str) -> Callable[[Array], Array]:
    """One function under one name: SciPy's for NumPy, torch's for tensors, JAX's for JAX arrays."""

    def function(x: Array) -> Array:
        if is_torch(x):
            import torch

            return getattr(torch.special, name)(x)
        if array_api_compat.is_jax_array(x):
            import jax

            return getattr(jax.scipy.special, name)(x)
        import scipy.special

        result = getattr(scipy.special, name)(numpy(x))
        if isinstance(x, np.ndarray):
            return result
        return array_api_compat.to_device(namespace(x).asarray(result), x.device)

    function.__name__ = name
    function.__doc__ = f"{name}(x), elementwise."
    return function


log_ndtr = _special("log_ndtr")  # log of the standard normal cdf
ndtr = _special("ndtr")  # the standard normal cdf
ndtri = _special("ndtri")  # its inverse
_erfcx = _special("erfcx")
i0e = _special("i0e")  # exp(-|x|) I_0(x)
i1e = _special("i1e")  # exp(-|x|) I_1(x)


def mills(u: Array) -> Array:
    """The normal law's Mills ratio, (1 - Phi(u))/phi(u), for u > -30; about 1/u for large u."""
    if array_api_compat.is_jax_array(u):  # JAX has no scaled complementary error function
        return namespace(u).exp(log_ndtr(-u) + 0.5 * u * u) * math.sqrt(2 * math.pi)
    return _erfcx(u * math.sqrt(0.5)) * math.sqrt(0.5 * math.pi)


def logsumexp(logits: Array, axis: int = -1) -> Array:
    """log sum exp along an axis; -inf where every term is -inf."""
    xp = namespace(logits)
    peak = xp.max(logits, axis=axis, keepdims=True)
    peak = xp.where(xp.isfinite(peak), peak, xp.zeros_like(peak))
    total = xp.sum(xp.exp(logits - peak), axis=axis)
    safe = xp.where(total > 0, total, xp.ones_like(total))
    log_total = xp.where(total > 0, xp.log(safe), xp.full_like(total, -math.inf))
    return log_total + xp.squeeze(peak, axis=axis)


def softmax(logits: Array) -> Array:
    """exp(logits) normalised along the last axis; NaN where every logit is -inf."""
    xp = namespace(logits)
    peak = xp.max(logits, axis=-1, keepdims=True)
    some = peak > -math.inf
    powers = xp.exp(logits - xp.where(some, peak, xp.zeros_like(peak)))
    total = xp.sum(powers, axis=-1, keepdims=True)
    return powers / xp.where(some, total, xp.full_like(total, math.nan))


# ---------------------------------------------------------------- randomness


class Draws:
    """Uniform and normal float64 numbers from a generator that the caller owns.

    generator : a `numpy.random.Generator` or an integer seed (NumPy arrays out), or a
        `torch.Generator` (tensors out, on its device). Nothing else is random in the package.
    """

    def __init__(self, generator: Any) -> None:
        if isinstance(generator, bool) or not (
            isinstance(generator, (int, np.integer, np.random.Generator))
            or ("torch" in sys.modules and isinstance(generator, sys.modules["torch"].Generator))
        ):
            raise ArgumentError(
                "generator", "be a numpy.random.Generator, a torch.Generator or a seed", generator
            )
        if isinstance(generator, (int, np.integer)):
            generator = np.random.default_rng(int(generator))
        self.generator = generator
        self._numpy = isinstance(generator, np.random.Generator)

    def _torch(self, name: str, shape: tuple[int, ...]) -> Array:
        torch = sys.modules["torch"]
        g = self.generator
        return getattr(torch, name)(shape, generator=g, device=g.device, dtype=torch.float64)

    def uniform(self, *shape: int) -> Array:
        """Uniform on [0, 1)."""
        return self.generator.random(shape) if self._numpy else self._torch("rand", shape)

    def normal(self, *shape: int) -> Array:
        """Standard normal."""
        return self.generator.standard_normal(shape) if self._numpy else self._torch("randn", shape)

    def choice(self, weights: np.ndarray, n: int) -> Array:
        """n indices drawn with probabilities `weights` (K,), by inversion of the cumulated sum."""
        uniform = self.uniform(n)
        edges = like(np.cumsum(weights) / np.sum(weights), uniform)[:-1]
        return namespace(uniform).searchsorted(edges, uniform, side="right")


# ---------------------------------------------------------------- checks at the door


def finite(argument: str, value: Any, shape: tuple[int | None, ...] | None = None) -> Array:
    """`value` as a float64 array in its own namespace: finite, and of the given shape.

    None in `shape` allows any length. Raises ArgumentError naming the argument.
    """
    if type(value) in (float, np.float64) and shape is None and math.isfinite(value):
        return np.asarray(value)
    if not array_api_compat.is_array_api_obj(value):
        try:
            value = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise ArgumentError(argument, "be an array of numbers", value) from None
    xp = namespace(value)
    if not xp.isdtype(value.dtype, "numeric") or xp.isdtype(value.dtype, "complex floating"):
        raise ArgumentError(argument, "be an array of real numbers", str(value.dtype))
    array = wide(value)
    if shape is not None and (
        array.ndim != len(shape)
        or any(want is not None and want != got for want, got in zip(shape, array.shape))
    ):
        words = ", ".join("any" if n is None else str(n) for n in shape)
        raise ArgumentError(argument, f"have shape ({words})", f"shape {tuple(array.shape)}")
    if not is_traced(array) and not bool(xp.all(xp.isfinite(array))):
        bad = numpy(array)[~np.isfinite(numpy(array))]
        raise ArgumentError(argument, "be finite", f"{bad.size} values such as {bad.flat[0]}")
    return array


def all_finite(x: Array) -> bool:
    """Whether every number is finite; a tensor on the CPU is looked at through NumPy, for speed."""
    if is_torch(x) and x.device.type == "cpu":
        return bool(np.isfinite(x.detach().numpy()).all())
    xp = namespace(x)
    return bool(xp.all(xp.isfinite(x)))


def paired(argument: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape of arrays that pair row by row; raises ArgumentError naming the argument."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        words = " and ".join(map(str, shapes))
        raise ArgumentError(argument, "pair row by row with the rest", f"shapes {words}") from None


def points(x: Any, dim: int) -> Array:
    """The points x (*b, D) as given, checked: floating, of the right dimension, finite.

    A list of numbers becomes a NumPy array in float64.
    """
    if not array_api_compat.is_array_api_obj(x):
        x = finite("x", x)
    xp = namespace(x)
    if not xp.isdtype(x.dtype, "real floating"):
        raise ArgumentError("x", "be a floating-point array", str(x.dtype))
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ArgumentError("x", f"have shape (..., {dim})", f"shape {tuple(x.shape)}")
    if not is_traced(x) and not all_finite(x):
        rows = ~np.isfinite(numpy(x)).all(axis=-1)
        raise ArgumentError("x", "be finite", f"{int(rows.sum())} rows with NaN or infinity")
    return x
