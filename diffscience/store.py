"""A cache of arrays that knows its own bytes, and model files that do too.

Definition.  The cache is a map  key -> arrays,

    key    = sha256(canonical JSON of all that decides the arrays)
    record = key.json:  the key, what it is about, sha256 of the arrays' file, and a seal
             (sha256 of the record itself without the seal)
    arrays = HASH.npz,  HASH = sha256 of its bytes

so a flipped, missing or added byte in either file shows, and two writers of one key cannot mix:
a record names the bytes that it belongs to.

Conventions.  Nothing read from disk is ever executed: pickles are refused in both directions.
A damaged cache entry is a warning of one sentence and is then absent; a damaged model file is an
error.  The cache lies in the system's folder for caches or in $DIFFSCIENCE_CACHE; it may be
deleted at any time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError, CacheWarning
from .files import (
    as_path,
    canonical,
    check_folder,
    read_bytes,
    sha256,
    to_json,
    write_bytes,
)

if TYPE_CHECKING:
    import numpy as np
    import torch

    Arrays = dict[str, np.ndarray]

__all__ = [
    "Cache",
    "CacheWarning",
    "cache_folder",
    "load_model",
    "pack",
    "save_model",
    "unpack",
    "write_bytes",
]

_STALE_SECONDS = 24 * 3600.0  # age at which a temporary file must be a killed run's


# ------------------------------------------------------------------ arrays as bytes


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Arrays as the bytes of an .npz file; the same arrays give the same bytes.

    Raises ArgumentError for arrays of Python objects, which only a pickle could hold.

    >>> import numpy as np
    >>> unpack(pack({"x": np.arange(3)}))["x"]
    array([0, 1, 2])
    """
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            array = np.asanyarray(array)
            if array.dtype.hasobject:
                raise ArgumentError(
                    f"array {name!r}", "hold numbers or text, not Python objects", array
                )
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            # A ZipInfo made by hand carries 1980-01-01 instead of the time of day.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())
    return buffer.getvalue()


def unpack(data: bytes) -> Arrays:
    """The arrays in the bytes of an .npz file; ValueError if there is a pickle or a cut in it."""
    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # what altered bytes raise in zipfile and NumPy has no common class
        text = " ".join(str(error).split())
        raise ValueError(f"not an .npz file of plain arrays: {text}") from None


# ------------------------------------------------------------------ the cache


def cache_folder() -> Path:
    """$DIFFSCIENCE_CACHE if it is set, else the system's folder for this package's cache."""
    chosen = os.environ.get("DIFFSCIENCE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("diffscience", appauthor=False))


class Cache:
    """Arrays kept on disk under the hash of all that decides them.

    Parameters
    ----------
    folder : where the files lie; None means `cache_folder()`.  ArgumentError if not writable.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> cache = Cache(tempfile.mkdtemp())
    >>> key = cache.key({"study": "toy", "seed": 1})
    >>> cache.read(key) is None
    True
    >>> cache.write(key, {"x": np.ones(2)}, {"seconds": 0.5})
    >>> arrays, about = cache.read(key)
    >>> arrays["x"], about
    (array([1., 1.]), {'seconds': 0.5})
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.argument = "cache folder ($DIFFSCIENCE_CACHE)"
        self.folder = cache_folder() if folder is None else as_path(folder, self.argument)
        check_folder(self.folder, self.argument)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what runs killed in the middle of a write left behind."""
        for partial in self.folder.glob(".*.tmp"):
            with contextlib.suppress(OSError):
                if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                    partial.unlink()

    @staticmethod
    def key(parts: Mapping[str, Any]) -> str:
        """The key of what `parts` decide: 64 hexadecimal digits."""
        return sha256(to_json(canonical(parts, "cache key")))

    def write(self, key: str, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Keep `arrays` under `key`, with a note `about` them (JSON data)."""
        data = pack(arrays)
        digest = sha256(data)
        write_bytes(self.folder / f"{digest}.npz", data, self.argument)
        record = {"key": key, "npz": digest, "about": canonical(about, "about")}
        record["seal"] = sha256(to_json(record))
        write_bytes(self.folder / f"{key}.json", to_json(record), self.argument)

    def read(self, key: str) -> tuple[Arrays, dict[str, Any]] | None:
        """(arrays, about) kept under `key`; None if absent, or damaged (with a CacheWarning)."""
        path = self.folder / f"{key}.json"
        if not path.exists():
            return None
        try:
            record = _opened(read_bytes(path), key)
            data = read_bytes(self.folder / f"{record['npz']}.npz")
            if sha256(data) != record["npz"]:
                raise ValueError("its arrays do not have the bytes that were written")
            return unpack(data), record["about"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            warnings.warn(
                f"the cache entry {path} is damaged ({reason}) and is computed again",
                CacheWarning,
                stacklevel=2,
            )
            return None


def _opened(raw: bytes, key: str) -> dict[str, Any]:
    """The record in `raw` if every byte is as written and it belongs to `key`; else ValueError."""
    record = json.loads(raw)
    seal = record.pop("seal", None) if isinstance(record, dict) else None
    if seal is None or seal != sha256(to_json(record)):
        raise ValueError("its record does not fit its seal")
    if to_json({**record, "seal": seal}) != raw or record["key"] != key:
        raise ValueError("its record is not the one that was written")
    return record


# ------------------------------------------------------------------ model files

_BLANK = "0" * 64  # stands where the digest will be while the digest is taken
_DIGEST = re.compile(rb'"([0-9a-f]{64})\\?"')


def save_model(
    path: str | os.PathLike[str],
    state: Mapping[str, np.ndarray | torch.Tensor],
    meta: Mapping[str, Any],
) -> None:
    """Write tensors and a note about them as a safetensors file that knows its own sha256.

    The file's metadata hold `meta` as JSON and the sha256 of the whole file in which the digest's
    own place is filled with zeros.  The same content gives the same bytes.

    Parameters
    ----------
    state : name -> array or tensor (any device; stored as it is, from the CPU).
    meta : JSON data, for example the arguments that rebuild the network.

    Raises ArgumentError for a state that is no mapping to arrays, for an array that the format
    cannot hold (complex, sparse, longdouble, ...), and for a path that cannot be written (an old
    file there stays).

    >>> import numpy as np, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> save_model(path, {"w": np.ones(2)}, {"width": 64})
    >>> load_model(path)
    ({'w': tensor([1., 1.], dtype=torch.float64)}, {'width': 64})
    """
    import safetensors.torch

    as_path(path, "model file")
    if not isinstance(state, Mapping):
        raise ArgumentError("state", "be a mapping of names to arrays or tensors", state)
    tensors = {name: _tensor(name, value) for name, value in state.items()}
    # One metadata entry only: safetensors writes several in no fixed order.
    note = {"meta": canonical(meta, "meta"), "sha256": _BLANK}
    text = json.dumps(note, sort_keys=True, allow_nan=False)
    data = safetensors.torch.save(tensors, {"diffscience": text})
    start = _place_of_digest(data)
    digest = sha256(data).encode()
    write_bytes(path, data[:start] + digest + data[start + 64 :], "model file")


def _tensor(name: Any, value: Any) -> torch.Tensor:
    """`value` as a tensor that a safetensors file can hold; ArgumentError if it cannot."""
    import numpy as np
    import safetensors.torch
    import torch

    # A quote in a name could imitate the digest's place; the format keeps the other for itself.
    if not isinstance(name, str) or '"' in name or name == "__metadata__":
        raise ArgumentError("state", "have names without quotes, none of them __metadata__", name)
    if not isinstance(value, (np.ndarray, torch.Tensor)) or (
        isinstance(value, np.ndarray) and value.dtype.kind not in "biuf"
    ):
        raise ArgumentError(f"state[{name!r}]", "be an array or tensor of numbers", value)
    try:
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value.astype(value.dtype.newbyteorder("=")))
        if value.is_complex() or value.layout is not torch.strided:
            raise TypeError
        # A copy of its own: safetensors refuses tensors that share memory (tied weights).
        tensor = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        safetensors.torch.save({name: tensor.new_empty(0)})  # whether its kind can be written
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        rule = "be dense and real, of a kind of number that safetensors can hold"
        raise ArgumentError(f"state[{name!r}]", rule, f"{value.dtype} {type(value)}") from None
    return tensor


def _place_of_digest(data: bytes) -> int:
    """Where the 64 digits stand: after the header's last \\"sha256\\" key; ValueError if none."""
    end = 8 + int.from_bytes(data[:8], "little")
    mark = rb"\"sha256\": \""
    start = data.rfind(mark, 8, min(end, len(data)))
    if start < 0 or not _DIGEST.match(data, start + len(mark) - 1):
        raise ValueError("it holds no digest of itself")
    return start + len(mark)


def load_model(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(state, meta) of a file written by `save_model`; tensors on the CPU.  Executes nothing.

    Raises ArgumentError if the file is missing, cut short, changed in any byte, or another kind
    of file (a pickle, say).
    """
    import safetensors
    import safetensors.torch

    broken = (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError)
    path = as_path(path, "model file")
    try:
        data = read_bytes(path)
        start = _place_of_digest(data)
        blank = data[:start] + _BLANK.encode() + data[start + 64 :]
        if sha256(blank).encode() != data[start : start + 64]:
            raise ValueError("its bytes are not the ones that were written")
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        note = json.loads(header["__metadata__"]["diffscience"])
        return safetensors.torch.load(data), note["meta"]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ArgumentError("model file", f"be readable ({reason})", str(path)) from None
    except broken as error:
        rule = f"be a whole file written by save_model ({error})"
        raise ArgumentError("model file", rule, str(path)) from None
