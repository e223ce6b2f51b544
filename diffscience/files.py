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
import errno
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

__all__ = [
    "as_path",
    "canonical",
    "check_folder",
    "publish",
    "read_bytes",
    "sha256",
    "to_json",
    "write_bytes",
]

_LOCK_SECONDS = 60.0  # replacing a handful of small files takes milliseconds
_BUSY = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)  # a lock that somebody else holds


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
    if isinstance(value, str) and not _has_bytes(value):
        raise ArgumentError(name, "be text that UTF-8 can hold", ascii(value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(
        name, "be a number, string, None, dataclass, or a tuple or mapping of these", value
    )


def _has_bytes(text: str) -> bool:
    """Whether UTF-8 can hold `text`; broken bytes on a command line give text that it cannot."""
    return text.encode("utf-8", "ignore").decode() == text


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


def as_path(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """`path` as a Path; ArgumentError if it is none.

    >>> as_path("figures").name
    'figures'
    """
    if isinstance(path, (str, os.PathLike)):
        plain = os.fspath(path)
        if isinstance(plain, str) and "\0" not in plain:
            return Path(plain)
    raise ArgumentError(argument, "be a path", path)


def _check_regular(path: Path) -> None:
    """OSError if `path` is a device, pipe or socket: to read may hang, to replace would lose it."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "it is a device, pipe or socket")


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file; OSError for anything else, where reading might never end."""
    _check_regular(path)
    return path.read_bytes()


def _refusal(argument: str, folder: Path, error: OSError) -> ArgumentError:
    reason = error.strerror or type(error).__name__
    return ArgumentError(
        argument, f"name a place that can be written (the system says: {reason})", str(folder)
    )


def write_bytes(path: str | os.PathLike[str], data: bytes, argument: str = "path") -> None:
    """Write `data` to `path`, whole or not at all; folders are made as needed.

    A temporary file in the same folder is filled, flushed to the disk and renamed.  Whatever goes
    wrong (no permission, full disk, file-size limit, Ctrl-C), an old file at `path` stays as it was
    and the temporary one is removed.  A device, pipe or socket is never replaced.
    Raises ArgumentError(`argument`, ...) with the reason.
    """
    path = as_path(path, argument)
    try:
        _write_whole(path, data)
    except OSError as error:
        raise _refusal(argument, path, error) from None


def _write_whole(path: Path, data: bytes) -> None:
    _check_regular(path)
    # A name of its own, not path.name and more, which might be too long where path.name is not.
    partial = path.with_name(f".{secrets.token_hex(8)}.tmp")
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


def check_folder(
    folder: str | os.PathLike[str], argument: str = "--out", *, locks: bool = False
) -> None:
    """Make sure that files can be made in `folder`, creating it; ArgumentError if they cannot.

    locks : make sure, too, that files can be locked there, as `publish` does.
    """
    folder = as_path(folder, argument)
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(probe, "xb") as file:
            try:
                if locks:
                    _try_lock(file.fileno())
            finally:
                if sys.platform != "win32":  # Windows cannot remove an open file
                    probe.unlink(missing_ok=True)
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise _refusal(argument, folder, error) from None


def _try_lock(file: int) -> bool:
    """Whether the lock was free and is now held; OSError where there are no locks at all."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise OSError(error.errno, f"no file can be locked there: {error.strerror}") from None
    return True


def _is_file(file: int, path: Path) -> bool:
    """Whether `path` is still the open file: a former holder may have removed it meanwhile."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; the system lets go of it when its holder dies, however it dies."""
    give_up = time.monotonic() + _LOCK_SECONDS
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            held = _try_lock(file) and _is_file(file, path)
        except BaseException:
            os.close(file)
            raise
        if held:
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
    folder = as_path(folder, argument)
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
        _check_regular(folder / file)
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
