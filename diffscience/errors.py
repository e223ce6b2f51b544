"""The one error class of the package.

    ArgumentError(argument, rule, value)   reads   "ARGUMENT must RULE; got VALUE"

Every function checks its arguments at the door and raises nothing else for a bad one; the command
line prints the sentence alone and exits with status 2. `whole`, `number` and `instance` are the
checks that most of them share; arrays have theirs in `arrays`.
"""

from __future__ import annotations

import math
import numbers
from typing import Any


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
        shown = " ".join(shown.split())
        super().__init__(f"{argument} must {rule}; got {shown[:77] + '...' * (len(shown) > 80)}")

    def __reduce__(self) -> tuple[type[ArgumentError], tuple[str, str, object]]:
        # The three parts, not the sentence: what multiprocessing sends between processes.
        return type(self), (self.argument, self.rule, self.value)


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
