"""Options of a run as people write them: a device's name, and FIELD=VALUE for a config.

Conventions.  A value is read as the kind of the value that it replaces: a whole number for a whole
number, any number for a float, true or false for a bool, the text itself for a string, and values
separated by commas for a tuple.  Nothing is evaluated but literals.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import ArgumentError

__all__ = ["changed_config", "nearest", "resolve_device"]


def nearest(name: str, known: Iterable[str]) -> str:
    """The words " (did you mean NAME?)" for the nearest spelling in `known`, or "".

    >>> nearest("swis_roll", ["swiss_roll", "rings"])
    ' (did you mean swiss_roll?)'
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f" (did you mean {near[0]}?)" if near else ""


def resolve_device(name: str) -> str:
    """`name` as a device of this machine; "auto" is cuda if there is one, else cpu.

    Raises ArgumentError for an unknown word and for a device that is not there.
    """
    if not isinstance(name, str) or not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ArgumentError("--device", "be cpu, cuda, cuda:N, mps or auto", name)
    if name == "cpu":
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    present = ["cpu", *(f"cuda:{i}" for i in range(count))]
    if torch.backends.mps.is_available():
        present.append("mps")
    if name == "auto":
        return "cuda" if count else "cpu"
    if name not in present and not (name == "cuda" and count):
        rule = f"be a device of this machine ({', '.join(present)})"
        raise ArgumentError("--device", rule, name)
    return name


def _as_float(value: Any) -> Any:
    """A whole number as a float, unless it is too large for one; anything else as it is."""
    with contextlib.suppress(OverflowError):
        return float(value) if type(value) is int else value
    return value


def _parsed(text: str, current: Any, argument: str) -> Any:
    """`text` as a value of the kind of `current`."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number"}
    if isinstance(current, str):
        return text
    if isinstance(current, bool):
        value: Any = {"true": True, "false": False}.get(text.lower())
    else:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            value = float(text) if text in ("inf", "-inf", "nan") else text
    if type(current) is float:
        value = _as_float(value)
    if isinstance(current, tuple):
        value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
        if current and all(type(item) is float for item in current):
            value = tuple(map(_as_float, value))
        alike = not current or {type(v) for v in value} <= {type(v) for v in current}
        if not alike:
            raise ArgumentError(argument, f"be values like {current}, separated by commas", text)
    elif current is not None and type(value) is not type(current):
        raise ArgumentError(argument, f"be {kinds.get(type(current), type(current))}", text)
    return value


def changed_config(config: Any, changes: Mapping[str, str]) -> Any:
    """`config` with fields replaced by the values written in `changes`.

    Raises ArgumentError for a field that does not exist (with the nearest one) or a value of
    another kind.
    """
    names = [field.name for field in dataclasses.fields(config)]
    values = {}
    for name, text in changes.items():
        if name not in names:
            rule = f"name one of: {', '.join(names)}{nearest(name, names)}"
            raise ArgumentError("--set", rule, name)
        values[name] = _parsed(text, getattr(config, name), f"--set {name}")
    return dataclasses.replace(config, **values)
