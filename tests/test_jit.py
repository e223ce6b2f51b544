"""Compiled code on disk: whatever happens to its files, the answer is right and the damage told."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import pytest

from diffscience.errors import CacheWarning

ROOT = Path(__file__).resolve().parent.parent
OURS = "from diffscience.jit import compiled\nf = compiled(lambda x: 3 * x + 1)\n"
NUMBAS = "import numba\nf = numba.njit(lambda x: 3 * x + 1, cache=True)\n"
LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"


def loaded(program: Path) -> Any:
    """f of a program, as a fresh interpreter would make it."""
    spec = importlib.util.spec_from_file_location("program", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.f


def answer(program: Path) -> tuple[float, int, list[str]]:
    """(f(2.0), whether it came from the disk, what was warned of)."""
    f = loaded(program)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = f(2.0)
    told = [str(w.message) for w in caught if w.category is CacheWarning]
    assert len(told) == len(caught)
    return value, sum(f.stats.cache_hits.values()), told


def apart(folder: Path, make: str, before: str = "", **variables: str) -> tuple[str, str, int]:
    """(stdout, stderr, exit status) of a process of its own that makes f and prints f(2.0)."""
    (folder / "program.py").write_text(make)
    code = f"{before}from program import f\nprint(f(2.0), sum(f.stats.cache_hits.values()))"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=kept | {"PYTHONPATH": f"{ROOT}:{folder}"} | variables,
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr, done.returncode


def flipped(place: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        i = int(place * (len(data) - 1))
        return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]

    return flip


HARM: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "a byte more": lambda data: data + b"\0",
    "first byte": flipped(0.0),
    "middle byte": flipped(0.5),
    "last byte": flipped(1.0),
}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that makes f, which was compiled once and kept in cache/ beside it."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "program.py"
    path.write_text(OURS)
    assert answer(path) == (7.0, 0, [])
    assert answer(path) == (7.0, 1, [])
    return path


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damage_is_told_and_mended(program: Path, kind: str, harm: str) -> None:
    [path] = (program.parent / "cache").rglob(f"*.{kind}")
    path.write_bytes(HARM[harm](path.read_bytes()))
    told = f"the compiled code {path} is damaged and is compiled again"
    assert answer(program) == (7.0, 0, [told])
    assert answer(program) == (7.0, 1, [])


def test_other_code_is_compiled_again(program: Path) -> None:
    program.write_text(OURS.replace("3 * x", "5 * x"))
    assert answer(program) == (11.0, 0, [])


def test_numbas_own_files_are_the_wrong_twin(program: Path) -> None:
    program.write_text(NUMBAS)
    assert loaded(program)(2.0) == 7.0
    [path] = [p for p in (program.parent / "cache").rglob("*.nbc") if "sealed" not in p.name]
    path.write_bytes(HARM["cut"](path.read_bytes()))
    with pytest.raises(Exception, match=r"truncated|ran out|invalid|pickle"):
        loaded(program)(2.0)


@pytest.mark.parametrize("user_cache", [True, False])
def test_a_folder_that_cannot_be_written(tmp_path: Path, user_cache: bool) -> None:
    """The cache moves to the user's folder, or is done without: the answer is the same."""
    (tmp_path / "__pycache__").touch()  # a file: no cache can be made there, whoever runs this
    cache = tmp_path / "cache"
    cache.mkdir() if user_cache else cache.touch()
    homes = {"HOME": str(cache), "XDG_CACHE_HOME": str(cache)}
    assert apart(tmp_path, OURS, **homes) == ("7.0 0", "", 0)
    assert len(list(cache.rglob("*.nbc"))) == user_cache


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE there")
def test_a_full_disk_is_done_without(tmp_path: Path) -> None:
    folder = {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    assert apart(tmp_path, OURS, LIMITED, **folder) == ("7.0 0", "", 0)
    assert "File too large" in apart(tmp_path, NUMBAS, LIMITED, **folder)[1]
