"""Estimates: a number, its standard error, its floor; and what all metrics draw with.

    excess = (value - floor) / sqrt(error^2 + floor_error^2)

Conventions: `error` is the standard deviation that the value would have over fresh samples; `floor`
is what the same metric gives for the truth itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import Draws
from .errors import ArgumentError

ROWS = 1 << 16  # points handed to a model at once
BLOCK = 1 << 21  # numbers held at once by the chunked loops: 16 MiB of float64


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error, and its floor with its spread.

    Parameters
    ----------
    value : the metric: a number, or one number per time or mode.
    error : standard error of `value`, an estimate of its deviation over fresh samples.
    floor : mean of the same metric over fresh true samples of the same size; NaN if not asked for.
    floor_error : standard deviation of one such draw, which is how far a perfect sampler strays.
    n : number of samples used; 0 where the answer comes from a quadrature.
    p_value : of the test "the samples come from the law"; NaN where no test was made.

    Examples
    --------
    >>> print(Estimate(0.1234, 0.0041, 0.119, 0.003))
    0.123 ± 0.004 (floor 0.119 ± 0.003)
    >>> Estimate(0.5, 0.03, 0.1, 0.04).excess()
    8.0
    """

    value: Any
    error: Any
    floor: Any = math.nan
    floor_error: Any = math.nan
    n: int = 0
    p_value: float = math.nan

    def excess(self) -> Any:
        """(value - floor) / sqrt(error^2 + floor_error^2), the distance to the floor in errors.

        Cautious near the floor, where both terms measure one and the same spread.
        """
        spread = np.hypot(self.error, np.nan_to_num(self.floor_error))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = (np.asarray(self.value) - self.floor) / spread
        # A metric exactly at an exact floor has no excess, not an undefined one.
        excess = np.where(np.equal(self.value, self.floor), 0.0, ratio)
        return excess if excess.ndim else float(excess)

    def __str__(self) -> str:
        parts = np.broadcast_arrays(self.value, self.error, self.floor, self.floor_error)
        rows = zip(*(a.flat for a in parts), strict=True)
        return "\n".join(_words(*map(float, row)) for row in rows)


def _words(value: float, error: float, floor: float, floor_error: float) -> str:
    words = _plus_minus(value, error)
    return words if math.isnan(floor) else f"{words} (floor {_plus_minus(floor, floor_error)})"


def _plus_minus(value: float, error: float) -> str:
    """The value to the digits that its error leaves: one of the error's own, two after a 1."""
    if not (math.isfinite(error) and math.isfinite(value)) or error == 0:
        return f"{value:.6g}" + (" ± 0" if error == 0 else "")
    power = math.floor(math.log10(error))
    digits = (error < 2 * 10.0**power) - power
    if digits > 6 or digits < -3:
        lead = max(0, math.floor(math.log10(abs(value) or error)) + digits)
        return f"{value:.{lead}e} ± {error:.{digits + power}e}"
    return f"{round(value, digits):.{max(digits, 0)}f} ± {round(error, digits):.{max(digits, 0)}f}"


def mean_and_error(values: Any, axis: int = 0) -> tuple[Any, Any]:
    """The mean of independent values along an axis, and its standard error.

    >>> mean_and_error([1.0, 2.0, 3.0, 6.0])[0]
    3.0
    """
    x = np.asarray(values, float)
    if x.ndim == 0 or x.shape[axis] < 2:
        raise ArgumentError("values", "be two or more along the axis", f"shape {x.shape}")
    mean, error = x.mean(axis=axis), x.std(axis=axis, ddof=1) / math.sqrt(x.shape[axis])
    return (mean, error) if mean.ndim else (float(mean), float(error))


def random_numbers(generator: Any) -> np.random.Generator:
    """The NumPy generator for a generator or a seed; anything else raises ArgumentError."""
    random = Draws(generator).generator
    if not isinstance(random, np.random.Generator):
        raise ArgumentError("generator", "be a numpy.random.Generator or a seed", generator)
    return random


def row_blocks(n: int, width: int = 1) -> Iterator[slice]:
    """Slices over n rows, shorter where a row makes `width` numbers."""
    size = max(1, min(ROWS, BLOCK // width))
    return (slice(i, i + size) for i in range(0, n, size))
