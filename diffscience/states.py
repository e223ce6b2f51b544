"""States: what every sampler does at its door and at each step.

    grid        the times, checked            start   the points that a run begins with, checked
    asked       a model's answer at (x, t)    guess   its x0, bounded and finite
    draws       what the run draws from       noise   normal numbers like x
    kept        the new state in the dtype of the old one

Conventions: a sampler yields (t, x) for each time of its grid. States keep the array library, the
device and the dtype of the start; what is between two states is computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from .arrays import Array, Draws, all_finite, finite, is_torch, is_traced, like, namespace, numpy
from .errors import ArgumentError, number
from .models import Model
from .process import Process
from .transition import floating

States = Iterator[tuple[float, Array]]
Times = Sequence[float] | np.ndarray


def grid(process: Process, times: Times, decreasing: bool = True) -> list[float]:
    """The times, checked: at least two, monotone, inside the process."""
    checked = numpy(finite("times", times, (None,)))
    way = "decreasing" if decreasing else "increasing"
    steps = np.diff(checked) * (-1 if decreasing else 1)
    if len(checked) < 2 or np.any(steps <= 0):
        raise ArgumentError("times", f"be two or more {way} numbers", checked)
    process._times("times", checked)
    return [float(t) for t in checked]


def start(argument: str, x: Array, clip: float | None = None) -> Array:
    """The points of the start as given, floating and finite; and a look at the bound on x0."""
    x = floating(argument, x)
    finite(argument, x)
    if clip is not None:
        number("clip", clip, 0, ends="()")
    return x


def draws(generator: Any) -> Any:
    """What a run draws from: a noise object (see `noise`) as it is, all else as `Draws`."""
    return generator if hasattr(generator, "area") else Draws(generator)


def noise(draws: Any, x: Array) -> Array:
    """Normal numbers shaped like x, in its library; those of a noise object serve any library."""
    z = draws.normal(*x.shape)
    if isinstance(draws, Draws) and is_torch(z) and not is_torch(x):
        raise ArgumentError("generator", "be a NumPy generator for NumPy points", draws.generator)
    return like(z, x)


def guess(model: Model, x: Array, t: float, clip: float | None = None) -> Array:
    """The model's x0 within the bound: of the shape of x and finite, so that no NaN is sampled."""
    return bounded(asked(model.x0, x, t), x, t, clip)


def bounded(x0: Array, x: Array, t: float, clip: float | None = None) -> Array:
    """An x0 within the bound, checked as `guess` does."""
    if clip is not None and getattr(x0, "shape", None) == x.shape:
        x0 = namespace(x0).clip(x0, -clip, clip)
    return checked(x0, x, t, "x0")


def checked(value: Array, x: Array, t: float, what: str, argument: str = "model") -> Array:
    """A model's answer, of the shape of x and finite; says at which t and for how many rows not.

    argument : what an error names, where it is no model that answers.
    """
    if getattr(value, "shape", None) != x.shape:
        shape = tuple(getattr(value, "shape", ()))
        raise ArgumentError(argument, f"answer with shape {tuple(x.shape)}", f"shape {shape}")
    if not is_traced(value) and not all_finite(value):
        rows = int((~np.isfinite(numpy(value)).all(axis=-1)).sum())
        rule = f"answer with a finite {what} at t = {t:g}"
        raise ArgumentError(argument, rule, f"{rows} rows with NaN or infinity")
    return value


def asked(answer: Callable[[Array, float], Array], x: Array, t: float) -> Array:
    """The model's answer; without a graph of derivatives unless x itself carries one."""
    if not is_torch(x) or x.requires_grad:
        return answer(x, t)
    import torch

    with torch.no_grad():
        return answer(x, t)


def kept(value: Array, x: Array) -> Array:
    """The value in the dtype of x."""
    return namespace(x).astype(value, x.dtype, copy=False)
