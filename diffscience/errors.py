"""The error class of the package, and that of a sweep that could not be finished.

    ArgumentError(argument, rule, value)   reads   "ARGUMENT must RULE; got VALUE"

Every function checks its arguments at the door and raises nothing else for a bad one; the command
line prints the sentence alone and exits with status 2. `CellError` tells which cells of a sweep
failed, and why. `whole`, `number` and `instance` are the
checks that most of them share; arrays have theirs in `arrays`.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any


def _short(text: str, limit: int) -> str:
    """The text on one line of at most `limit` signs."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


class ArgumentError(ValueError):
    """A bad argument, said in one sentence: which argument, which rule, which value.

    Parameters
    ----------
    argument : name of the argument as the caller wrote it.
    rule : what it must do or be, completing the words "ARGUMENT must".
    value : what was given; shortened to 80 characters.

    Examples
    --------
    >>> raise ArgumentError("beta", "lie in (0, 1)", 1.5)
    Traceback (most recent call last):
    ...
    diffscience.errors.ArgumentError: beta must lie in (0, 1); got 1.5
    """

    def __init__(self, argument: str, rule: str, value: object) -> None:
        self.argument, self.rule, self.value = argument, rule, value
        shown = value if isinstance(value, str) else repr(value)
        super().__init__(f"{argument} must {rule}; got {_short(shown, 80)}")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, object]]:
        # The three parts, not the sentence: what multiprocessing sends between processes.
        return type(self), (self.argument, self.rule, self.value)


class CellError(RuntimeError):
    """Cells of a sweep failed when they were tried again; all others are done and kept.

    Parameters
    ----------
    sweep : its name.
    failed : (cell, reason) of each that failed; the sentence tells of the first three.
    cells : how many the sweep has.
    trace : the traceback of the first, as text.

    Examples
    --------
    >>> raise CellError("toy", [({"steps": 4, "seed": 0}, "ValueError: bad luck")], 16)
    Traceback (most recent call last):
    ...
    diffscience.errors.CellError: sweep toy failed in 1 of its 16 cells, the others are kept: \
steps=4, seed=0 (ValueError: bad luck)
    """

    def __init__(
        self,
        sweep: str,
        failed: Sequence[tuple[Mapping[str, Any], str]],
        cells: int,
        trace: str = "",
    ) -> None:
        self.sweep, self.failed, self.cells, self.trace = sweep, list(failed), cells, trace
        told = [
            f"{', '.join(f'{k}={v}' for k, v in cell.items())} ({_short(reason, 200)})"
            for cell, reason in self.failed[:3]
        ]
        more = [f"and {len(self.failed) - 3} more"] * (len(self.failed) > 3)
        super().__init__(
            f"sweep {sweep} failed in {len(self.failed)} of its {cells} cells,"
            f" the others are kept: {'; '.join(told + more)}"
        )

    def __reduce__(self) -> tuple[type[CellError], tuple[Any, ...]]:
        return type(self), (self.sweep, self.failed, self.cells, self.trace)


class CacheWarning(UserWarning):
    """A file of a cache was damaged, and what it held is made again."""


def whole(argument: str, value: Any, least: int, most: int | None = None) -> None:
    """Raise ArgumentError unless `value` is an integer from `least` to `most`; True is none.

    >>> whole("n", 2.5, 0)
    Traceback (most recent call last):
    ...
    diffscience.errors.ArgumentError: n must be a whole number of at least 0; got 2.5
    """
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integer or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ArgumentError(argument, f"be a whole number {bounds}", value)


def number(
    argument: str, value: Any, low: float = -math.inf, high: float = math.inf, ends: str = "[]"
) -> None:
    """Raise ArgumentError unless `value` is a finite real number between `low` and `high`.

    value : a Python or NumPy number, or an array of shape (); True is none.
    ends : "[]", "()", "[)" or "(]", whether the interval holds its ends.

    >>> number("mix", 1.5, 0, 1)
    Traceback (most recent call last):
    ...
    diffscience.errors.ArgumentError: mix must lie in [0, 1]; got 1.5
    """
    x = _real(value)
    above = x > low if ends[0] == "(" else x >= low
    below = x < high if ends[1] == ")" else x <= high
    if above and below and math.isfinite(x):
        return
    if high < math.inf:
        rule = f"lie in {ends[0]}{low:g}, {high:g}{ends[1]}"
    elif low > -math.inf:
        rule = "be a positive number" if ends[0] == "(" else f"be a number of at least {low:g}"
    else:
        rule = "be a finite number"
    raise ArgumentError(argument, rule, value)


def _real(value: Any) -> float:
    """The number as a float; NaN for what is none."""
    if isinstance(value, bool):
        return math.nan
    if not isinstance(value, numbers.Real) and getattr(value, "ndim", None) != 0:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


def instance(argument: str, value: Any, kind: type) -> None:
    """Raise ArgumentError unless `value` is of the given class.

    >>> instance("law", "normal", dict)
    Traceback (most recent call last):
    ...
    diffscience.errors.ArgumentError: law must be a dict; got normal
    """
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise ArgumentError(argument, f"be {article} {kind.__name__}", value)


def function(argument: str, value: Any) -> None:
    """Raise ArgumentError unless `value` can be called."""
    if not callable(value):
        raise ArgumentError(argument, "be a function", value)
