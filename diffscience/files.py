"""Files that are whole or absent, and the one text that stands for a value.

Definition.  A file is written under another name in the same folder and then renamed, and a rename
replaces a file in one step:  path <- data  is seen as before or as after, never between.  Several
files that belong together are written under a lock, moved one after the other, and put back if any
move fails.

Conventions.  A place that cannot be written is an ArgumentError with the system's reason (no
permission, full disk, file-size limit); what stood there before is then intact.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ArgumentError

__all__ = ["canonical", "check_folder", "publish", "sha256", "to_json", "write_bytes"]

_LOCK_SECONDS = 60.0  # replacing a handful of small files takes milliseconds


# ------------------------------------------------------------------ canonical JSON


def canonical(value: Any, name: str = "config") -> Any:
    """`value` as plain JSON data: the same value always gives the same data.

    Dataclasses become objects by field, tuples become lists, NumPy scalars become numbers, and the
    three floats that JSON lacks become the strings "nan", "inf" and "-inf".
    Raises ArgumentError for anything else, because it would have no stable text.

    >>> canonical({"steps": (1, 2), "rate": float("inf")})
    {'steps': [1, 2], 'rate': 'inf'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {f.name: canonical(getattr(value, f.name), f"{name}.{f.name}") for f in fields}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: canonical(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(
        name, "be a number, string, None, dataclass, or a tuple or mapping of these", value
    )


def to_json(data: Any) -> bytes:
    """Canonical JSON text of `data`: keys sorted, ends in a newline, UTF-8.

    >>> to_json({"b": 1, "a": None}).decode().split()
    ['{', '"a":', 'null,', '"b":', '1', '}']
    """
    text = json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def sha256(data: bytes) -> str:
    """The SHA-256 of `data` in 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


# ------------------------------------------------------------------ whole files


def _refusal(argument: str, folder: Path, error: OSError) -> ArgumentError:
    reason = error.strerror or type(error).__name__
    return ArgumentError(
        argument, f"name a place that can be written (the system says: {reason})", str(folder)
    )


def write_bytes(path: str | os.PathLike[str], data: bytes, argument: str = "path") -> None:
    """Write `data` to `path`, whole or not at all; folders are made as needed.

    A temporary file in the same folder is filled, flushed to the disk and renamed.  Whatever goes
    wrong (no permission, full disk, file-size limit, Ctrl-C), an old file at `path` stays as it was
    and the temporary one is removed.  Raises ArgumentError(`argument`, ...) with the reason.
    """
    try:
        _write_whole(Path(path), data)
    except OSError as error:
        raise _refusal(argument, Path(path), error) from None


def _write_whole(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def check_folder(folder: str | os.PathLike[str], argument: str = "--out") -> None:
    """Make sure that files can be made in `folder`, creating it; ArgumentError if they cannot."""
    folder = Path(folder)
    probe = folder / f".{secrets.token_hex(6)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise _refusal(argument, folder, error) from None


def _try_lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when its holder dies, however it dies."""
    give_up = time.monotonic() + _LOCK_SECONDS
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if _try_lock(file):
            # A former holder may have removed this very file between our open and our lock.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(path)):
                    break
        os.close(file)
        if time.monotonic() > give_up:
            rule = f"be free within {_LOCK_SECONDS:.0f} s (another run is writing there)"
            raise ArgumentError("output lock", rule, str(path))
        time.sleep(0.01)
    try:
        yield
    finally:
        if sys.platform != "win32":  # Windows cannot remove an open file: there it stays
            with contextlib.suppress(OSError):
                path.unlink()
        os.close(file)


def publish(
    folder: str | os.PathLike[str],
    name: str,
    files: Mapping[str, bytes],
    *,
    check: Callable[[], Iterable[str]] = tuple,
    argument: str = "--out",
) -> None:
    """Put the files of one result into `folder` together: all of them or none.

    Parameters
    ----------
    name : of the result; one writer at a time for each (folder, name).
    files : file name -> bytes, moved into place in this order.
    check : called when the lock is held; raises if the result may not be written here, returns
        the names of files of the former result, which are removed if the new one lacks them.
    argument : named by the ArgumentError when the folder cannot be written.

    Under the lock every file is first written whole into the hidden
    folder .NAME.partial, then moved to its place in the given order, the last one last.  If any
    step fails, the files already moved are put back as they were.  Two writers of one result take
    turns, so the result is one's or the other's.  A killed writer leaves .NAME.partial, which the
    next one removes; if it was killed while moving, the last file (the provenance with every
    file's sha256) does not fit the others, and so the damage shows.
    Raises ArgumentError(`argument`, ...).
    """
    folder = Path(folder)
    partial = folder / f".{name}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / f".{name}.lock"):
            shutil.rmtree(partial, ignore_errors=True)
            former = set(check())
            try:
                for file, data in files.items():
                    _write_whole(partial / "new" / file, data)
                _move_all(folder, partial, list(files))
                for file in former - files.keys():
                    (folder / file).unlink(missing_ok=True)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise _refusal(argument, folder, error) from None


def _move_all(folder: Path, partial: Path, files: list[str]) -> None:
    """Move partial/new/* to `folder`; on failure put back what stood there before."""
    old = partial / "old"
    old.mkdir()
    for file in files:
        if (folder / file).is_file():
            shutil.copy2(folder / file, old / file)
    moved = []
    try:
        for file in files:
            os.replace(partial / "new" / file, folder / file)
            moved.append(file)
    except BaseException:
        for file in moved:
            if (old / file).exists():
                os.replace(old / file, folder / file)
            else:
                (folder / file).unlink()
        raise
