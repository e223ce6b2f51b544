"""The cache, whole-file writing and model files: nothing damaged is believed, nothing executed."""

from __future__ import annotations

import errno
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
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import files, runner, store
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


def test_altered_archives_give_one_kind_of_error() -> None:
    """zipfile and NumPy raise a dozen kinds; a flag of encryption, say, a RuntimeError."""
    whole = store.pack(ARRAYS)
    rng = random.Random(2)
    raised = 0
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            store.unpack(bytes(data))
        except ValueError as error:
            raised += "\n" not in str(error)
    assert raised > 100
    encrypted, packed = bytearray(whole), bytearray(whole)
    central = whole.index(b"PK\x01\x02")
    encrypted[central + 8] |= 1  # RuntimeError in zipfile
    packed[central + 10] = 99  # NotImplementedError
    for bad in (bytes(encrypted), bytes(packed)):
        with pytest.raises(ValueError, match=r"not an \.npz file"):
            store.unpack(bad)


def test_a_record_nested_without_end_is_damaged(cache: store.Cache, key: str) -> None:
    (cache.folder / f"{key}.json").write_bytes(b"[" * 200_000)
    with pytest.warns(store.CacheWarning, match="damaged") as seen:
        assert cache.read(key) is None
    assert "\n" not in str(seen[0].message)


SHARED = """
import sys, time, warnings
from pathlib import Path
import numpy as np
from diffscience import files, store
warnings.simplefilter("error", store.CacheWarning)
folder, mark, way = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
cache = store.Cache(folder)
key = cache.key({"study": "toy"})

def naive(arrays):  # one name for the arrays of both writers, who meet before their records
    data = store.pack(arrays)
    record = {"key": key, "npz": "x", "about": {}, "sha": files.sha256(data)}
    (folder / "x.npz").write_bytes(data)
    (folder / f"met{turn} {mark}").touch()
    while len(list(folder.glob(f"met{turn} *"))) < 2:
        time.sleep(0.0005)
    (folder / "x.json").write_bytes(files.to_json(record))

def mixed():
    if way == "cache":
        found = cache.read(key)
        return found is None or len(set(found[0]["x"])) != 1 or found[1]["mark"] != found[0]["x"][0]
    return files.sha256((folder / "x.npz").read_bytes()).encode() not in (
        folder / "x.json").read_bytes()

(folder / sys.argv[2]).touch()
while len(list(folder.glob("?.0"))) < 2:
    time.sleep(0.001)
seen = 0
for turn in range(60):
    arrays = {"x": np.full(20_000, mark)}
    cache.write(key, arrays, {"mark": mark}) if way == "cache" else naive(arrays)
    seen += mixed()
sys.exit(int(seen > 0))
"""


def test_two_writers_of_one_key_never_mix(tmp_path: Path) -> None:
    found = []
    for way in ("cache", "naive"):
        (tmp_path / way).mkdir()
        writers = [python(SHARED, str(tmp_path / way), mark, way) for mark in ("1.0", "2.0")]
        found.append([writer.wait(60) for writer in writers])
    assert found[0] == [0, 0]
    assert 1 in found[1]  # wrong twin: the same, with one file name for both writers
    cache = store.Cache(tmp_path / "cache")
    last = cache.read(cache.key({"study": "toy"}))
    assert last is not None
    assert set(last[0]["x"]) in ({1.0}, {2.0})


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
    for bad in (object(), {1: 2}, {1, 2}, np.arange(2), 1j, b"x", "\udcff"):
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


@pytest.mark.parametrize("path", [None, 3, b"bytes", "nul\0"])
def test_what_is_no_path_is_refused(path: Any) -> None:
    acts: list[Any] = [
        lambda: files.write_bytes(path, b""),
        lambda: files.check_folder(path),
        lambda: files.publish(path, "toy", {}),
        lambda: store.save_model(path, {}, {}),
        lambda: store.load_model(path),
        lambda: store.Cache(3 if path is None else path),  # type: ignore[arg-type]
    ]
    for act in acts:
        with pytest.raises(ArgumentError, match="must be a path; got"):
            act()


@POSIX
def test_special_files_are_neither_replaced_nor_read(tmp_path: Path, cache: store.Cache) -> None:
    pipe, link, plain = tmp_path / "pipe", tmp_path / "link", tmp_path / "plain"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(ArgumentError, match="device, pipe or socket"):
            files.write_bytes(path, b"new")
        with pytest.raises(ArgumentError, match="device, pipe or socket"):
            files.publish(tmp_path, "toy", {"a": b"1", path.name: b"2"})
        with pytest.raises(ArgumentError, match="device, pipe or socket"):
            store.load_model(path)  # would wait for a writer for ever
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert not (tmp_path / "a").exists()
    os.mkfifo(cache.folder / "0.json")
    with pytest.warns(store.CacheWarning, match="device, pipe or socket"):
        assert cache.read("0") is None
    # A link to a regular file is one.
    plain.write_bytes(b"old")
    link.unlink()
    link.symlink_to(plain)
    files.write_bytes(link, b"new")
    assert link.read_bytes() == b"new"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_left_leaves_the_old_files(
    tmp_path: Path, cache: store.Cache, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"toy.csv": b"old csv", "toy.json": b"{}"}
    files.publish(tmp_path / "out", "toy", old)
    path = tmp_path / "net.safetensors"
    whole = model(path)
    kept = {p.name: p.read_bytes() for p in cache.folder.iterdir()}
    monkeypatch.setattr(files, "open", lambda *_: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    acts: list[Any] = [
        lambda: files.write_bytes(tmp_path / "out" / "toy.csv", b"new"),
        lambda: files.publish(tmp_path / "out", "toy", {"toy.csv": b"new", "toy.json": b"{1}"}),
        lambda: cache.write(key, {"x": np.zeros(3)}, {}),
        lambda: model(path),
    ]
    for act in acts:
        with pytest.raises(ArgumentError, match="No space left on device"):
            act()
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == old
    assert {p.name: p.read_bytes() for p in cache.folder.iterdir()} == kept
    assert path.read_bytes() == whole


READ_ONLY = """
import os, sys
from diffscience import files
from diffscience.errors import ArgumentError
if os.geteuid() == 0:  # root may write anywhere: become nobody
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    except OSError:
        sys.exit(77)
if os.access(".", os.W_OK):
    sys.exit(77)
for act in (
    lambda: files.check_folder("."),
    lambda: files.write_bytes("toy.csv", b"new"),
    lambda: files.write_bytes("new/toy.csv", b"new"),
    lambda: files.publish(".", "toy", {"toy.csv": b"new", "toy.json": b"new"}),
):
    try:
        act()
    except ArgumentError as error:
        assert "Permission denied" in str(error), error
    else:
        sys.exit(1)
"""


@POSIX
def test_a_read_only_folder_keeps_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = {"toy.csv": b"old csv", "toy.json": b"{}"}
    files.publish(tmp_path / "out", "toy", old)
    (tmp_path / "out").chmod(0o555)
    monkeypatch.chdir(tmp_path / "out")  # nobody may stand here, but not walk here
    status = python(READ_ONLY).wait(60)
    if status == 77:
        pytest.skip("this user may write anywhere and cannot become another")
    assert status == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == old
    (tmp_path / "out").chmod(0o755)


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
import json, sys, time
from pathlib import Path
from diffscience import files
folder, marks, rounds, way = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]

def result(mark):
    found = {f"toy_{i}.csv": mark.encode() * 3000 for i in range(6)}
    outputs = {name: files.sha256(data) for name, data in found.items()}
    record = {"mode": "full", "changed": [], "mark": mark, "outputs": outputs}
    return {**found, "toy.json": files.to_json(record)}

def naive(folder, name, found):
    # File by file; each writer lets the other go first at every second file.
    folder.mkdir(exist_ok=True)
    mark = json.loads(found["toy.json"])["mark"]
    for i, (file, data) in enumerate(found.items()):
        other = folder / f".{file}.{'BA'['AB'.index(mark)]}"
        while (i + (mark == "B")) % 2 and not other.exists():
            time.sleep(0.0005)
        (folder / file).write_bytes(data)
        (folder / f".{file}.{mark}").touch()

if way != "again":
    (folder / f"ready{marks}").touch()
    while len(list(folder.glob("ready?"))) < 2:
        time.sleep(0.001)
for i in range(rounds):
    for mark in marks:
        place = folder if way == "again" else folder / f"round{i}"
        (naive if way == "naive" else files.publish)(place, "toy", result(mark))
"""


def marks(folder: Path) -> set[bytes]:
    """The writers whose bytes are in the files; a file that is not whole counts by itself."""
    found = set()
    for name in NAMES:
        data = (folder / name).read_bytes()
        found.add(data[:1] if data == data[:1] * 3000 else data)
    return found


def two_writers(folder: Path, way: str) -> list[int]:
    """How many writers' bytes are in the result of each of 30 rounds that two writers began."""
    folder.mkdir()
    writers = [python(WRITER, str(folder), mark, "30", way) for mark in "AB"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    rounds = [folder / f"round{i}" for i in range(30)]
    if way == "publish":
        assert all(sorted(p.name for p in r.iterdir()) == sorted(result("A")) for r in rounds)
        assert all(runner.results(r, "toy") == "full" for r in rounds)
    return [len(marks(r)) for r in rounds]


def test_two_writers_never_mix(tmp_path: Path) -> None:
    assert two_writers(tmp_path / "one", "publish") == [1] * 30
    # Wrong twin: two writers that go file by file.
    assert two_writers(tmp_path / "two", "naive") == [2] * 30


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


def check_state(folder: Path) -> str:
    """The state of a result after a kill; a mixture is never called full."""
    state, found = runner.results(folder, "toy"), marks(folder)
    claimed = json.loads((folder / "toy.json").read_bytes())["mark"].encode()
    assert all(len(mark) == 1 for mark in found)  # each file whole
    assert state == ("full" if found == {claimed} else "damaged")
    return state


def result(mark: str) -> dict[str, bytes]:
    found = {name: mark.encode() * 3000 for name in NAMES}
    outputs = {name: files.sha256(data) for name, data in found.items()}
    record = {"mode": "full", "changed": [], "mark": mark, "outputs": outputs}
    return {**found, "toy.json": files.to_json(record)}


@POSIX
def test_a_killed_writer_leaves_whole_files_and_no_lock(tmp_path: Path) -> None:
    files.publish(tmp_path, "toy", result("O"))
    rng = random.Random(3)
    for _ in range(6):
        writer = python(WRITER, str(tmp_path), "ABC", "100000", "again")
        while not (tmp_path / ".toy.partial").exists() and writer.poll() is None:
            time.sleep(0.001)
        time.sleep(0.05 * rng.random())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        check_state(tmp_path)
    files.publish(tmp_path, "toy", result("D"))  # no lock is in the way
    assert (check_state(tmp_path), marks(tmp_path)) == ("full", {b"D"})
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(result("D"))


KILLED = """
import os, signal, sys
from pathlib import Path
from diffscience import files
old_move, left = os.replace, int(sys.argv[2])

def move(*paths):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    old_move(*paths)

new = {p.name: p.read_bytes() for p in Path(sys.argv[3]).iterdir()}
order = sorted(new, key=lambda name: name == "toy.json")
files.os.replace = move
files.publish(sys.argv[1], "toy", {name: new[name] for name in order})
"""


@POSIX
def test_a_kill_before_any_move_shows(tmp_path: Path) -> None:
    """Seven files are written, then moved: fourteen renames, a kill before each of them."""
    states = []
    files.publish(tmp_path / "new", "toy", result("N"))
    for kill in range(15):
        folder = tmp_path / f"killed{kill}"
        files.publish(folder, "toy", result("O"))
        writer = python(KILLED, str(folder), str(kill), str(tmp_path / "new"))
        assert writer.wait(60) == (-signal.SIGKILL if kill < 14 else 0)
        states.append((check_state(folder), len(marks(folder))))
    assert states[:8] == [("full", 1)] * 8
    assert states[8:13] == [("damaged", 2)] * 5
    assert states[13:] == [("damaged", 1), ("full", 1)]  # the old provenance, then the new
    # Wrong twin: a provenance that names no hash vouches for a mixture.
    (tmp_path / "killed9" / "toy.json").write_bytes(b'{"mode": "full", "outputs": {}}')
    assert runner.results(tmp_path / "killed9", "toy") == "full"


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


@POSIX
def test_a_folder_without_locks_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    start = time.monotonic()
    for act in (
        lambda: files.publish(tmp_path, "toy", {"a": b"1"}),
        lambda: files.check_folder(tmp_path, locks=True),
    ):
        with pytest.raises(ArgumentError, match=r"no file can be locked there: No locks") as seen:
            act()
        assert "another run" not in str(seen.value)
    assert time.monotonic() < start + 5
    files.check_folder(tmp_path)  # a cache needs no lock
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".lock")] == []


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


def test_states_that_cannot_be_kept_are_one_sentence(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.safetensors"
    bad: list[Any] = [
        [torch.ones(2)],
        None,
        torch.nn.Linear(1, 1),
        {"w": np.ones(2, dtype=np.longdouble)},
        {"w": np.ones(2, dtype=complex)},
        {"w": torch.ones(2, dtype=torch.complex64)},
        {"w": torch.eye(2).to_sparse()},
        {"w": torch.empty(2, device="meta")},
        {"w": np.array(["a"])},
        {1: np.ones(2)},
        {"__metadata__": np.ones(2)},
        {'"sha256": "': np.ones(2)},
    ]
    for state in bad:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about sparse tensors
            with pytest.raises(ArgumentError, match=r"^state.* must .*; got ") as seen:
                store.save_model(path, state, {})
        assert "\n" not in str(seen.value)
    assert not path.exists()
    store.save_model(path, {"w": np.arange(3, dtype=">f4")}, {})  # the numbers, not the layout
    assert store.load_model(path)[0]["w"].tolist() == [0.0, 1.0, 2.0]


def test_a_sealed_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The digest is right, but what it vouches for is no model."""
    path = tmp_path / "forged"
    for header in (b'{"x \\"sha256\\": \\"%s\\"": 1}', b"[" * 100_000 + b'\\"sha256\\": \\"%s\\"'):
        body = header % (b"0" * 64)
        blank = len(body).to_bytes(8, "little") + body
        place = blank.rindex(b"0" * 64)
        digest = files.sha256(blank).encode()
        path.write_bytes(blank[:place] + digest + blank[place + 64 :])
        with pytest.raises(ArgumentError, match="whole file written by save_model"):
            store.load_model(path)


def test_records_are_plain_json(cache: store.Cache, key: str) -> None:
    record = json.loads((cache.folder / f"{key}.json").read_text())
    assert set(record) == {"key", "npz", "about", "seal"}
