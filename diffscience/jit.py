"""Functions compiled by numba and kept on disk in files that know their own bytes.

    file = sha256(rest), rest

Numba keeps machine code beside the source, or in the user's cache folder where that cannot be
written, and would run whatever lies there. Here each of its files carries a seal: one that was cut
short or changed is told of in a warning and compiled again, and a place that cannot be written is
done without. The seal shows damage, not forgery: who may write there may write the package too.

This module imports numba at its top and is therefore imported late.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numba.core.caching

from .errors import CacheWarning

_SEAL = 32  # bytes of a sha256


class Sealed(numba.core.caching.IndexDataCacheFile):
    """Numba's index and data files of one function, each behind a seal."""

    def save(self, key: Any, data: Any) -> None:
        """Keep the machine code, where the disk lets us."""
        with contextlib.suppress(OSError):
            super().save(key, data)

    def _load_index(self) -> Any:
        found = self._opened(self._index_path) if os.path.exists(self._index_path) else None
        if found is None or found[:2] != (self._version, self._source_stamp):
            return {}
        return found[2]

    def _save_index(self, overloads: Any) -> None:
        self._write(self._index_path, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        return self._opened(self._data_path(name))

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), self._dump(data))

    def _write(self, path: str, data: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(data).digest() + data)

    def _opened(self, path: str) -> Any:
        """What the file holds; None, with a warning, where it is not what was written."""
        raw = Path(path).read_bytes()
        if hashlib.sha256(raw[_SEAL:]).digest() == raw[:_SEAL]:
            return pickle.loads(raw[_SEAL:])
        words = f"the compiled code {path} is damaged and is compiled again"
        warnings.warn(words, CacheWarning, stacklevel=2)
        with contextlib.suppress(OSError):
            os.unlink(path)
        return None


def compiled(function: Callable[..., Any], *signature: Any, **options: Any) -> Callable[..., Any]:
    """The function compiled by numba at its first call, or at once where a signature is given.

    signature : compiled alone. Numba would otherwise compile again for each layout of an array
        that the signature has room for, and two machine codes of one function may differ in the
        last place.
    options : those of `numba.njit`, but for the cache, which is ours.

    >>> double = compiled(lambda x: 2 * x)
    >>> double(21)
    42
    """
    dispatcher = numba.njit(**options)(function)
    with contextlib.suppress(RuntimeError):  # neither place can be written: compiled each time
        dispatcher.enable_caching()
        cache = dispatcher._cache
        # A name of its own, so that files of numba's own making are not taken for damaged ones.
        name, stamp = cache._impl.filename_base, cache._impl.locator.get_source_stamp()
        cache._cache_file = Sealed(cache.cache_path, f"{name}.sealed", stamp)
    if signature:
        dispatcher.compile(*signature)
        dispatcher.disable_compile()
    return dispatcher
