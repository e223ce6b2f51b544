"""The cache, whole-file writing and model files: nothing damaged is believed, nothing executed."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import files, store
from diffscience.errors import ArgumentError

ARRAYS = {"x": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "bc"]), "n": np.array(3)}
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")
ROOT = str(Path(store.__file__).resolve().parent.parent)


def python(code: str, *words: str) -> subprocess.Popen[bytes]:
    """A process that runs `code` with the package on its path."""
    environment = {**os.environ, "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen([sys.executable, "-c", code, *words], env=environment)


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Same names in the same order, same bits, same dtypes."""
    return list(a) == list(b) and all(
        a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a
    )


class Bomb:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.mark), "w")


# ------------------------------------------------------------------ cache


@pytest.fixture
def cache(tmp_path: Path) -> store.Cache:
    return store.Cache(tmp_path / "cache")


@pytest.fixture
def key(cache: store.Cache) -> str:
    key = cache.key({"study": "toy", "seed": 1})
    cache.write(key, ARRAYS, {"seconds": 1.5})
    return key


def test_what_is_written_is_read(cache: store.Cache, key: str) -> None:
    found = cache.read(key)
    assert found is not None
    assert equal(found[0], ARRAYS)
    assert found[1] == {"seconds": 1.5}
    assert cache.read(cache.key({"study": "toy", "seed": 2})) is None
    assert not list(cache.folder.glob(".*"))


def test_keys_follow_values_alone() -> None:
    same: list[dict[str, Any]] = [{"a": 1, "b": (1.0, None)}, {"b": [1.0, None], "a": 1}]
    assert len({store.Cache.key(parts) for parts in same}) == 1
    other: list[dict[str, Any]] = [
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"a": [1]},
        {"b": 1},
    ]
    assert len({store.Cache.key(parts) for parts in other}) == len(other)


def test_packing_gives_the_same_bytes() -> None:
    assert store.pack(ARRAYS) == store.pack({k: v.copy() for k, v in ARRAYS.items()})


def test_every_damaged_byte_is_seen(cache: store.Cache, key: str) -> None:
    for path in sorted(cache.folder.iterdir()):
        whole = path.read_bytes()
        rng = random.Random(1)
        for place in rng.sample(range(len(whole)), 60):
            flipped = bytes([whole[place] ^ (1 << rng.randrange(8))])
            for bad in (
                whole[:place] + flipped + whole[place + 1 :],
                whole[:place] + whole[place + 1 :],
                whole[:place],
            ):
                path.write_bytes(bad)
                with pytest.warns(store.CacheWarning, match="damaged"):
                    assert cache.read(key) is None
        path.write_bytes(whole + b"\n")
        with pytest.warns(store.CacheWarning):
            assert cache.read(key) is None
        path.write_bytes(whole)
        assert cache.read(key) is not None


def test_missing_arrays_and_exchanged_records(cache: store.Cache, key: str) -> None:
    other = cache.key({"study": "toy", "seed": 2})
    record = (cache.folder / f"{key}.json").read_bytes()
    (cache.folder / f"{other}.json").write_bytes(record)
    with pytest.warns(store.CacheWarning, match="not the one"):
        assert cache.read(other) is None
    next(cache.folder.glob("*.npz")).unlink()
    with pytest.warns(store.CacheWarning, match="No such file"):
        assert cache.read(key) is None


def test_a_warning_is_one_sentence(cache: store.Cache, key: str) -> None:
    (cache.folder / f"{key}.json").write_bytes(b"{}")
    with pytest.warns(store.CacheWarning) as seen:
        cache.read(key)
    text = str(seen[0].message)
    assert "\n" not in text
    assert key in text


def test_pickles_are_refused(cache: store.Cache, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="not Python objects"):
        cache.write("0" * 64, {"x": np.array([Bomb(tmp_path / "mark")])}, {})
    # A forger who seals a pickle as the cache would: still nothing is executed.
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([Bomb(tmp_path / "mark")], dtype=object))
    for data in (buffer.getvalue(), pickle.dumps(Bomb(tmp_path / "mark"))):
        record = {"key": "1" * 64, "npz": files.sha256(data), "about": {}}
        record["seal"] = files.sha256(files.to_json(record))
        (cache.folder / f"{record['npz']}.npz").write_bytes(data)
        (cache.folder / f"{'1' * 64}.json").write_bytes(files.to_json(record))
        with pytest.warns(store.CacheWarning, match="damaged"):
            assert cache.read("1" * 64) is None
    assert not (tmp_path / "mark").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "mark"))).close()
    assert (tmp_path / "mark").exists()  # the bomb itself works


def test_unpack_refuses_what_is_no_archive() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00")
    for data in (b"", b"PK", store.pack(ARRAYS)[:-30], buffer.getvalue()):
        with pytest.raises(ValueError, match=r".+"):
            store.unpack(data)


def test_old_temporary_files_are_swept(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.npz.00.tmp", tmp_path / ".b.npz.11.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    store.Cache(tmp_path)
    assert not old.exists()
    assert new.exists()


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(tmp_path / "here"))
    assert store.cache_folder() == tmp_path / "here"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(tmp_path / "file" / "in"))
    with pytest.raises(ArgumentError, match="DIFFSCIENCE_CACHE"):
        store.Cache()


# ------------------------------------------------------------------ canonical JSON


def test_canonical_refuses_what_has_no_text() -> None:
    assert files.canonical({"a": np.float64(2), "b": np.int64(3)}) == {"a": 2.0, "b": 3}
    for bad in (object(), {1: 2}, {1, 2}, np.arange(2), 1j, b"x"):
        with pytest.raises(ArgumentError, match="config"):
            files.canonical({"field": bad})


# ------------------------------------------------------------------ whole files


def test_a_refused_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    files.write_bytes(path, b"old")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder.csv" / "inside").write_bytes(b"")
    for bad in (path / "under_a_file.csv", tmp_path / "folder.csv", Path("/dev/full/x")):
        if bad.parts[1] != "dev" or os.path.exists("/dev/full"):
            with pytest.raises(ArgumentError, match=r"written \(the system says: "):
                files.write_bytes(bad, b"new")
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.csv", "old.csv"]


LIMITED = """
import resource, sys
from diffscience import files
from diffscience.errors import ArgumentError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    new = {"toy.csv": b"n" * 10, "toy.png": b"n" * 5000, "toy.json": b"n"}
    files.publish(sys.argv[1], "toy", new)
except ArgumentError as error:
    assert "File too large" in str(error), error
    sys.exit(2)
"""


@POSIX
def test_a_full_disk_leaves_the_old_result(tmp_path: Path) -> None:
    old = {"toy.csv": b"old csv", "toy.png": b"old png", "toy.json": b"{}"}
    files.publish(tmp_path, "toy", old)
    assert python(LIMITED, str(tmp_path)).wait(60) == 2
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == old
    # Wrong twin: writing in place under the same limit destroys the old file.
    naive = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "open(sys.argv[1], 'wb').write(b'n' * 5000)"
    )
    python(naive, str(tmp_path / "toy.png")).wait(60)
    assert (tmp_path / "toy.png").read_bytes() != b"old png"


def test_a_move_that_fails_is_undone(tmp_path: Path) -> None:
    files.publish(tmp_path, "toy", {"a": b"old a", "b": b"old b"})
    (tmp_path / "c").mkdir()  # the third file cannot be moved onto a folder
    (tmp_path / "c" / "inside").write_bytes(b"")
    with pytest.raises(ArgumentError, match="--out"):
        files.publish(tmp_path, "toy", {"a": b"new", "new": b"new", "c": b"new", "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old a"
    assert (tmp_path / "b").read_bytes() == b"old b"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]


def test_publish_removes_what_the_new_result_lacks(tmp_path: Path) -> None:
    files.publish(tmp_path, "toy", {"a": b"1", "b": b"1"})
    (tmp_path / "other").write_bytes(b"stays")
    files.publish(tmp_path, "toy", {"a": b"2"}, check=lambda: ["a", "b"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "other"]


NAMES = [f"toy_{i}.csv" for i in range(6)]
WRITER = """
import sys
from diffscience import files
folder, mark, times = sys.argv[1], sys.argv[2].encode(), int(sys.argv[3])
for _ in range(times):
    files.publish(folder, "toy", {f"toy_{i}.csv": mark * 3000 for i in range(6)})
"""


def marks(folder: Path) -> set[bytes]:
    """The writers whose bytes are in the files; a file that is not whole counts by itself."""
    found = set()
    for name in NAMES:
        data = (folder / name).read_bytes()
        found.add(data[:1] if data == data[:1] * 3000 else data)
    return found


def test_two_writers_never_mix(tmp_path: Path) -> None:
    for times in (1, 5, 25):
        writers = [python(WRITER, str(tmp_path), mark, str(times)) for mark in "AB"]
        assert [writer.wait(60) for writer in writers] == [0, 0]
        assert len(marks(tmp_path)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == NAMES
    # Wrong twin: taking turns file by file mixes.
    files.write_bytes(tmp_path / NAMES[0], b"A" * 3000)
    files.write_bytes(tmp_path / NAMES[1], b"B" * 3000)
    assert len(marks(tmp_path)) == 2


def test_threads_take_turns_too(tmp_path: Path) -> None:
    def publish(mark: bytes) -> None:
        for _ in range(10):
            files.publish(tmp_path, "toy", dict.fromkeys(NAMES, mark * 3000))

    threads = [threading.Thread(target=publish, args=(mark,)) for mark in (b"A", b"B", b"C")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(marks(tmp_path)) == 1


@POSIX
def test_a_killed_writer_leaves_whole_files_and_no_lock(tmp_path: Path) -> None:
    files.publish(tmp_path, "toy", dict.fromkeys(NAMES, b"O" * 3000))
    rng = random.Random(3)
    for _ in range(6):
        writer = python(WRITER, str(tmp_path), "A", "100000")
        while not (tmp_path / ".toy.partial").exists() and writer.poll() is None:
            time.sleep(0.001)
        time.sleep(0.05 * rng.random())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert marks(tmp_path) <= {b"O", b"A"}  # each file whole
    files.publish(tmp_path, "toy", dict.fromkeys(NAMES, b"B" * 3000))  # no lock is in the way
    assert marks(tmp_path) == {b"B"}
    assert sorted(p.name for p in tmp_path.iterdir()) == NAMES


def test_a_lock_that_stays_taken_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOCK_SECONDS", 0.05)
    with (
        files._locked(tmp_path / ".toy.lock"),
        pytest.raises(ArgumentError, match="another run"),
    ):
        files.publish(tmp_path, "toy", {"a": b"1"})
    files.publish(tmp_path, "toy", {"a": b"1"})


# ------------------------------------------------------------------ model files


def model(path: Path) -> bytes:
    torch = pytest.importorskip("torch")
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"weight": weight.T, "tied": weight, "bias": np.ones(2, dtype=np.float32)}
    store.save_model(path, state, {"width": 3, "kind": 'a "sha256": "quoted" word', "z": None})
    return path.read_bytes()


def test_models_come_back(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    whole = model(path)
    state, meta = store.load_model(path)
    assert meta == {"width": 3, "kind": 'a "sha256": "quoted" word', "z": None}
    assert state["weight"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    assert state["bias"].dtype is state["tied"].dtype
    assert model(tmp_path / "again") == whole
    import safetensors.torch

    assert set(safetensors.torch.load_file(path)) == set(state)  # others can read it as well


def test_every_damaged_byte_of_a_model_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    whole = model(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArgumentError, match="model file must be a whole file"):
            store.load_model(path)
    for cut in (0, 1, 8, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ArgumentError, match="whole file"):
            store.load_model(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ArgumentError, match="whole file"):
        store.load_model(path)
    # Wrong twin: safetensors alone believes a flipped bit among the numbers.
    import safetensors.torch

    safetensors.torch.load(whole[:-1] + bytes([whole[-1] ^ 4]))


def test_pickled_models_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pt"
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "mark")))
    with pytest.raises(ArgumentError, match="whole file"):
        store.load_model(path)
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(ArgumentError, match="whole file"):
        store.load_model(path)
    assert not (tmp_path / "mark").exists()
    with pytest.raises(ArgumentError, match="readable"):
        store.load_model(tmp_path / "absent")
    with pytest.raises(ArgumentError, match="array or tensor"):
        store.save_model(path, {"w": [1.0]}, {})  # type: ignore[dict-item]


def test_records_are_plain_json(cache: store.Cache, key: str) -> None:
    record = json.loads((cache.folder / f"{key}.json").read_text())
    assert set(record) == {"key", "npz", "about", "seal"}
