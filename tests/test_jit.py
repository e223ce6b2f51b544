"""Compiled code on disk: whatever happens to its files, the answer is right and the damage told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = "from diffscience.jit import compiled\nf = compiled(lambda x: 3 * x + 1)\n"
NUMBAS = "import numba\nf = numba.njit(lambda x: 3 * x + 1, cache=True)\n"
LIMITED = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"


def answer(folder: Path, make: str, before: str = "") -> tuple[str, str, int]:
    """(stdout, stderr, exit status) of a program in `folder` that compiles f and prints f(2.0)."""
    program = folder / "program.py"
    if not program.exists():
        program.write_text(make)
    code = f"{before}from program import f\nprint(f(2.0), sum(f._cache_hits.values()))"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env=kept | {"PYTHONPATH": f"{ROOT}:{folder}", "NUMBA_CACHE_DIR": str(folder / "cache")},
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


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which f was compiled and kept."""
    folder = tmp_path_factory.mktemp("jit")
    assert answer(folder, OURS) == ("7.0 0", "", 0)
    assert answer(folder, OURS) == ("7.0 1", "", 0)
    return folder


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_damage_is_told_and_mended(kept: Path, kind: str, harm: str) -> None:
    [path] = (kept / "cache").rglob(f"*.{kind}")
    path.write_bytes(HARM[harm](path.read_bytes()))
    out, err, status = answer(kept, OURS)
    assert (out, status) == ("7.0 0", 0)
    assert err.count("CacheWarning") == 1
    assert f"{path} is damaged and is compiled again" in err
    assert answer(kept, OURS) == ("7.0 1", "", 0)


def test_numbas_own_files_are_the_wrong_twin(tmp_path: Path) -> None:
    assert answer(tmp_path, NUMBAS)[0] == "7.0 0"
    [path] = (tmp_path / "cache").rglob("*.nbc")
    path.write_bytes(HARM["cut"](path.read_bytes()))
    assert answer(tmp_path, NUMBAS)[2] != 0


def test_a_folder_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cache", "__pycache__"):  # files: no cache can be made there, whoever runs this
        (tmp_path / name).touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    for _ in range(2):
        assert answer(tmp_path, OURS) == ("7.0 0", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="no RLIMIT_FSIZE there")
def test_a_full_disk_is_done_without(tmp_path: Path) -> None:
    assert answer(tmp_path, OURS, LIMITED) == ("7.0 0", "", 0)
    assert answer(tmp_path, OURS) == ("7.0 0", "", 0)
    other = tmp_path / "twin"
    other.mkdir()
    assert "File too large" in answer(other, NUMBAS, LIMITED)[1]
