"""Sweeps: the same table from every engine, bit for bit; nothing that is finished is ever lost."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import threadpoolctl

import diffscience
from diffscience import __main__ as command
from diffscience import engines, fused, runner, store, sweep
from diffscience.errors import ArgumentError, CellError
from diffscience.study import Run

TOY = Path(__file__).parent / "toy_sweep.py"
ROOT = str(Path(diffscience.__file__).resolve().parent.parent)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
CELLS = [
    f"{target}-{steps}-{i}" for target in ("grid", "rings") for steps in (4, 8) for i in (0, 1)
]

toy: Any = sweep.imported(TOY, TOY.read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with studies/toy.py, a cache, and one for the marks of begun cells."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "marks").mkdir()
    shutil.copy(TOY, tmp_path / "studies" / "toy.py")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_MARKS", str(tmp_path / "marks"))
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(executor: Any = None, **parts: Any) -> Run:
    """A run that keeps its cells in the cache of the test."""
    return Run(7, "cpu", store.Cache(), parts, executor=executor)


def swept(executor: Any = None, function: Any = toy.product, **changes: Any) -> bytes:
    """The bytes of the toy's columns."""
    config = dataclasses.replace(toy.Config(), **changes)
    return store.pack(run(executor).sweep("toy", function, config.axes, config))


def begun(folder: Path) -> Counter[str]:
    """Cell -> how many times it was begun."""
    return Counter(path.name.split(".")[0] for path in (folder / "marks").iterdir())


def places(folder: Path) -> set[int]:
    """The processes in which cells were begun."""
    return {int(path.name.split(".")[1]) for path in (folder / "marks").iterdir()}


def forget(folder: Path) -> None:
    """Empty the cache and the marks."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    for mark in (folder / "marks").iterdir():
        mark.unlink()


# ------------------------------------------------------------------ cells and columns


def test_columns_have_one_row_for_each_cell() -> None:
    axes = {"target": ("grid", "rings"), "rate": (0.5, 1), "on": (True, False), "seed": range(2)}
    columns = Run(1).sweep("a", echo, axes, 3, where=lambda cell: cell["on"] or cell["rate"] < 1)
    assert list(columns) == ["target", "rate", "on", "seed", "sum", "pair"]
    assert columns["target"].tolist() == ["grid"] * 6 + ["rings"] * 6
    assert columns["rate"].tolist() == [0.5, 0.5, 0.5, 0.5, 1.0, 1.0] * 2
    assert columns["on"].tolist() == [True, True, False, False, True, True] * 2
    assert columns["seed"].tolist() == [0, 1] * 6
    assert columns["sum"].tolist() == [3.5, 4.5, 3.5, 4.5, 4.0, 5.0] * 2
    assert columns["pair"].shape == (12, 2)
    assert np.array_equal(columns["pair"][:, 1], 2 * columns["sum"])


def echo(config: int, run: Run, target: str, rate: float, on: bool, seed: int) -> dict[str, Any]:
    """A sum of what was given; the whole number of an axis of numbers stays whole."""
    assert type(rate) is (int if rate == 1 else float)
    assert type(on) is bool
    total = config + rate + seed
    return {"sum": total, "pair": [0.0, 2 * total]}


def test_a_cell_has_its_own_fresh_run() -> None:
    one = Run(5, "cpu", quiet=False)
    columns = one.sweep("a", draws, {"seed": (3, 4)}, None)
    assert columns["x"].tolist() == [Run(5).generator("x", s).random() for s in (3, 4)]
    with pytest.raises(ArgumentError, match="sweep must have a name of its own in its run; got a"):
        one.sweep("a", draws, {"seed": (3, 4)}, None)


def draws(config: Any, run: Run, seed: int) -> dict[str, Any]:
    """One number."""
    assert run.executor is None and not run.parts
    run.cell("one name", dict)  # no cell hinders another's names
    return {"x": run.generator("x", seed).random()}


def test_the_table_is_tidy() -> None:
    columns = {
        "x": np.arange(12.0).reshape(2, 2, 3),
        "s": np.array([1, 2]),
        "a": np.array(["u", "v"]),
    }
    table = sweep.frame(columns, {"a": ("u", "v")})
    cells = [f"x[{i}, {j}]" for i in range(2) for j in range(3)]
    assert list(table) == ["a", *cells, "s"]
    assert table[cells].to_numpy().tolist() == columns["x"].reshape(2, 6).tolist()
    for axes, more, message in (
        ("b", {}, "axes must name columns .*; got b"),
        ((), {}, "axes must name at least one column"),
        ("x", {}, "axes must name columns"),
        ("a", {"y": np.zeros(3)}, r"column y must have 2 rows; got shape \(3,\)"),
    ):
        with pytest.raises(ArgumentError, match=message):
            sweep.frame({**columns, **more}, axes)


@pytest.mark.parametrize(
    ("axes", "sentence"),
    [
        (None, "axes must be a mapping of names to values, at least one; got None"),
        ({}, "axes must be a mapping .*; got {}"),
        ({"two words": (1,)}, "axes must have names that a function's .* can have.*; got two"),
        ({"run": (1,)}, "axes must have names .*other than config and run; got run"),
        ({1: (1,)}, "axes must have names .*; got 1"),
        ({"a": "text"}, "axis a must be a sequence of values; got text"),
        ({"a": 3}, "axis a must be a sequence of values; got 3"),
        ({"a": ()}, "axis a must hold values of one kind.*; got nothing"),
        ({"a": (1, "x")}, "axis a must hold values of one kind.*"),
        ({"a": (1, True)}, "axis a must hold values of one kind.*"),
        ({"a": (None,)}, "axis a must hold values of one kind.*"),
        ({"a": ((1, 2), (3, 4))}, "axis a must hold values of one kind.*"),
        ({"a": (2**63,)}, "axis a must hold values of one kind.*below 2.63.*"),
        ({"a": (1, 2, 1.0)}, r"axis a must hold each value once; got \[1, 2, 1.0\]"),
    ],
)  # fmt: skip
def test_bad_axes_are_one_sentence(axes: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError) as told:
        sweep.expand(axes)
    assert re.fullmatch(sentence, str(told.value).partition(" words")[0]), told.value


def test_where_must_leave_a_cell() -> None:
    with pytest.raises(ArgumentError, match="where must leave at least one cell; got none"):
        sweep.expand({"a": (1,)}, lambda cell: False)
    with pytest.raises(ArgumentError, match="where must be a function; got 3"):
        sweep.expand({"a": (1,)}, 3)  # type: ignore[arg-type]


def test_bad_functions_are_one_sentence(folder: Path) -> None:
    def nested(config: Any, run: Run, a: int) -> dict[str, Any]:
        return {}

    bad: list[tuple[Any, str]] = [
        (None, "function must be a function; got None"),
        (lambda config, run, a: {}, "function must be a top-level function .*; got .*<lambda>"),
        (nested, "function must be a top-level function of its file; got .*nested"),
        (len, r"function must take \(config, run, a\); got len\(obj, /\)"),
        (draws, r"function must take \(config, run, a\); got draws\(config"),
    ]
    for function, message in bad:
        with pytest.raises(ArgumentError, match=message):
            Run(1).sweep("a", function, {"a": (1,)}, None)
    with pytest.raises(ArgumentError, match=r"config must be a number, string, .*; got <object"):
        Run(1).sweep("a", draws, {"seed": (1,)}, object())
    changed = types.FunctionType(draws.__code__, globals(), "draws")  # another of the same name
    with engines.Processes(1) as executor:
        rule = (
            "function must be a top-level function of its file, with a config that can be pickled"
        )
        with pytest.raises(ArgumentError, match=rule):
            Run(1, executor=executor).sweep("a", changed, {"seed": (1,)}, None)


def unlike(config: Any, run: Run, kind: str, seed: int) -> dict[str, Any]:
    """The second cell is unlike the first."""
    first = {"x": 1.0, "y": [1, 2]}
    other: dict[str, dict[str, Any]] = {
        "names": {"x": 1.0},
        "shapes": {"x": 1.0, "y": [1, 2, 3]},
        "text": {"x": "1", "y": [1, 2]},
        "dtypes": {"x": 1, "y": [1.5, 2.5]},
    }
    return other[kind] if seed else first


def test_cells_must_be_alike() -> None:
    for kind, message in (
        ("names", r"function must return the same names for all cells \(x, y\); got x for {'kind'"),
        ("shapes", r"return y with the same shape and kind for all cells; got int64 \(3,\) for"),
        ("text", r"return x with the same shape and kind for all cells; got <U1 \(\) for"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Run(1).sweep("a", unlike, {"kind": (kind,), "seed": (0, 1)}, None)
    mixed = Run(1).sweep("a", unlike, {"kind": ("dtypes",), "seed": (0, 1)}, None)
    assert mixed["y"].tolist() == [[1.0, 2.0], [1.5, 2.5]]
    with pytest.raises(ArgumentError, match="other names than those of axes; got seed"):
        Run(1).sweep("a", shadow, {"seed": (0, 1)}, None)


def shadow(config: Any, run: Run, seed: int) -> dict[str, Any]:
    """A value with the name of an axis."""
    return {"seed": seed}


# ------------------------------------------------------------------ the cache


def test_each_cell_is_kept_by_what_decides_it(folder: Path) -> None:
    first = swept()
    assert begun(folder) == dict.fromkeys(CELLS, 1)
    assert swept() == first
    assert begun(folder) == dict.fromkeys(CELLS, 1)  # nothing again
    config = toy.Config()
    run().sweep("toy", toy.product, {**config.axes, "index": range(3)}, config)
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), **{f"{c[:-1]}2": 1 for c in CELLS}}
    forget(folder)
    wider = dataclasses.replace(config, scale=2.0)
    for i, change in enumerate(
        (
            lambda: run().sweep("toy", toy.product, config.axes, config),
            lambda: run().sweep("another", toy.product, config.axes, config),
            lambda: run().sweep("toy", toy.product, config.axes, wider),
            lambda: run(code="another").sweep("toy", toy.product, config.axes, config),
            lambda: run(device="cuda").sweep("toy", toy.product, config.axes, config),
            lambda: Run(8, "cpu", store.Cache()).sweep("toy", toy.product, config.axes, config),
        )
    ):  # fmt: skip
        change()
        assert begun(folder) == dict.fromkeys(CELLS, i + 1), i
    # The study's whole config is not among them, but only what the function sees.
    run(config={"other": 1}).sweep("toy", toy.product, config.axes, config)
    assert set(begun(folder).values()) == {6}


def test_a_damaged_cell_is_computed_again(folder: Path) -> None:
    whole = swept()
    broken = sorted((folder / "cache").glob("*.json"))[3]
    broken.write_bytes(broken.read_bytes()[:-2])
    with pytest.warns(store.CacheWarning, match="damaged"):
        assert swept() == whole
    assert sorted(begun(folder).values()) == [1] * 7 + [2]


def test_seconds_are_those_of_the_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed here, side by side, or found in the cache: the same seconds within the pauses."""
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    for executor in (contextlib.nullcontext(), engines.Processes(2)):
        forget(folder)
        with executor as pool:
            for name in ("first", "second"):
                one, config = run(pool), toy.Config()
                compute = functools.partial(one.sweep, "toy", toy.product, config.axes, config)
                _, seconds, cached = one.kept(name, compute)
                assert seconds >= 0.8  # a pause for each of 8 cells, however many at once
                assert not cached
        assert begun(folder) == dict.fromkeys(CELLS, 1)


# ------------------------------------------------------------------ cells that fail


def test_a_cell_that_fails_once_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept()
    forget(folder)
    monkeypatch.setenv("TOY_FAIL", "grid-8-1:1")
    assert swept() == whole
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), "grid-8-1": 2}


@pytest.mark.parametrize("workers", [0, 2])
def test_cells_that_stay_failed_are_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    whole = swept()
    forget(folder)
    monkeypatch.setenv("TOY_FAIL", "rings-8-0:9 grid-4-1:2")
    engine = engines.Processes(workers) if workers else contextlib.nullcontext()
    with engine as executor, pytest.raises(CellError) as told:
        swept(executor)
    assert str(told.value) == (
        "sweep toy failed in 2 of its 8 cells, the others are kept:"
        " target=grid, steps=4, index=1 (ZeroDivisionError: bad luck in grid-4-1);"
        " target=rings, steps=8, index=0 (ZeroDivisionError: bad luck in rings-8-0)"
    )
    assert "in product\n" in told.value.trace and "toy_sweep.py" in told.value.trace
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), "rings-8-0": 2, "grid-4-1": 2}
    monkeypatch.delenv("TOY_FAIL")
    assert swept() == whole
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), "rings-8-0": 3, "grid-4-1": 3}


def test_the_sentence_is_short_and_survives_a_pickle() -> None:
    error = CellError("s", [({"a": i}, "E: " + "x" * 999) for i in range(5)], 9, "trace")
    assert str(error).count("E: xxx") == 3
    assert str(error).endswith("...); and 2 more")
    assert len(str(error)) < 800
    twin = pickle.loads(pickle.dumps(error))
    assert (str(twin), twin.trace, twin.failed) == (str(error), "trace", error.failed)


# ------------------------------------------------------------------ processes


def test_processes_give_the_serial_table(folder: Path) -> None:
    whole = swept()
    for workers in (1, 2):
        forget(folder)
        with engines.opened(f"processes={workers}") as executor:
            assert swept(executor) == whole
        assert begun(folder) == dict.fromkeys(CELLS, 1)
        assert os.getpid() not in places(folder)
        assert len(places(folder)) <= workers
        # Wrong twin: without a seed the tables differ, and so they are compared in earnest.
        with engines.opened(f"processes={workers}") as executor:
            assert swept(executor, toy.unseeded) != swept(None, toy.unseeded, scale=2.0)


@POSIX
def test_a_killed_process_costs_its_own_cell(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = swept()
    forget(folder)
    monkeypatch.setenv("TOY_KILL", "grid-8-0:1 rings-4-1:2")
    monkeypatch.setenv("TOY_PAUSE", "0.05")
    with engines.Processes(2) as executor:
        assert swept(executor) == whole
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), "grid-8-0": 2, "rings-4-1": 3}


@POSIX
def test_a_cell_that_kills_every_process_is_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = swept()
    forget(folder)
    monkeypatch.setenv("TOY_KILL", "rings-8-1:3")
    with engines.Processes(2) as executor:
        with pytest.raises(CellError, match=r"1 of its 8 cells.*index=1 \(BrokenProcessPool: "):
            swept(executor)
        assert begun(folder) == {**dict.fromkeys(CELLS, 1), "rings-8-1": 3}
        assert swept(executor) == whole  # a new process has taken its place
    assert begun(folder) == {**dict.fromkeys(CELLS, 1), "rings-8-1": 4}


@POSIX
def test_idle_processes_put_away_what_they_hold(folder: Path) -> None:
    """A lock of a worker that is done is no leak; of one that is ended amid its work it is."""
    text = (
        "import time\nfrom diffscience import engines\nif __name__ == '__main__':\n"
        "    held = 'globals().update(lock=__import__(\"multiprocessing\").RLock())'\n"
        "    with engines.Processes(1) as executor:\n"
        "        executor.submit(eval, held).result()\n"
        "        if {busy}:\n"
        "            executor.submit(time.sleep, 60)\n"
        "            time.sleep(1.0)\n"
    )
    for busy in (False, True):
        (folder / "held.py").write_text(text.replace("{busy}", str(busy)))
        done = subprocess.run(
            [sys.executable, "held.py"], capture_output=True, text=True, timeout=50
        )
        assert done.returncode == 0 and ("leaked semaphore" in done.stderr) == busy, done.stderr


@POSIX
def test_any_executor_will_do(folder: Path) -> None:
    """One that is broken for good ends the sweep, which tells of the cells that it lacks."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert swept(pool) == swept()
        number = pool.submit(os.getpid).result()
        os.kill(number, signal.SIGKILL)
        with pytest.raises(CellError, match=r"8 of its 8 cells.*BrokenProcessPool"):
            swept(pool, scale=2.0)


def test_a_cell_computes_on_one_thread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libraries = ("BLAS", "torch", "numba", "kernel")
    for name in engines.THREADS:
        monkeypatch.setenv(name, "2")
    config = toy.Config()
    with engines.Processes(1) as executor:
        found = Run(1, executor=executor).sweep("a", toy.threads, {"library": libraries}, config)
        assert {name: os.environ[name] for name in engines.THREADS} == dict.fromkeys(
            engines.THREADS, "2"
        )
    assert dict(zip(found["library"], found["threads"])) == dict.fromkeys(libraries, 1)
    # In this process, too, for as long as the sweep takes.
    with threadpoolctl.threadpool_limits(2):
        assert Run(1).sweep("a", toy.threads, {"library": ("BLAS",)}, config)["threads"] == 1
        assert toy.threads(config, Run(1), "BLAS") == {"threads": 2}
    # Wrong twin: a process without this care.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(eval, "__import__('torch').get_num_threads()").result() == 2


def test_a_worker_with_other_code_refuses(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "one_thread", lambda: None)  # this process is no worker
    twin = sweep.imported(folder / "studies" / "twin.py", TOY.read_text(encoding="utf-8"))
    home, cell = sweep._HOMES[twin.__name__], {"target": "grid", "steps": 4, "index": 0}
    call = pickle.dumps((twin.product, twin.Config(), 7, "cpu", cell))
    arrays, _, failure = sweep.work(home, call)
    assert failure is None and arrays is not None
    assert sys.modules[twin.__name__] is twin  # not loaded again
    other = dataclasses.replace(home, fingerprint={**home.fingerprint, "numpy": "0.1"})
    with pytest.raises(
        ArgumentError, match=r"worker must have the files .* \(numpy\); got {'numpy'"
    ):
        sweep.work(other, call)
    # What was sent is what runs, whatever lies in the worker's files.
    text = home.source.replace("config.scale * run", "2 * config.scale * run")
    moved, _, _ = sweep.work(dataclasses.replace(home, source=text), call)
    assert moved is not None and np.isclose(moved["mean"], 2 * arrays["mean"])


def test_a_sweep_brings_no_more_code_than_its_own() -> None:
    """A study that tabulates with `frame` is as old as `sweep`, not as engines and runner."""
    from diffscience import provenance

    assert provenance._closure({"sweep"}).keys() == {"sweep"}
    assert provenance._closure({"engines"}).keys() > {"engines", "errors", "fused"}


def test_the_fingerprint_sees_a_changed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffscience import provenance

    (tmp_path / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    before = provenance.fingerprint()
    assert before == provenance.fingerprint()
    (tmp_path / "a.py").write_text("x = 2\n")
    assert {k for k, v in provenance.fingerprint().items() if v != before[k]} == {"diffscience"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("threads", "--engine must be serial, processes, processes=N, dask=.*, slurm or .*; got t"),
        ("processes=0", "--engine must be serial.*; got processes=0"),
        ("processes=", "--engine must be serial.*; got processes="),
        ("dask", "--engine must be serial.*; got dask"),
        ("dask=127.0.0.1:8786", "--engine must be serial.*; got dask=127.0.0.1:8786"),
        ("", "--engine must be serial.*; got "),
        (None, "--engine must be serial.*; got None"),
    ],
)  # fmt: skip
def test_bad_engines_are_one_sentence(name: Any, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{sentence}"), engines.opened(name):
        pass


def test_missing_extras_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    for name in ("dask=tcp://127.0.0.1:1", "slurm"):
        kind = name.partition("=")[0]
        rule = rf"^--engine {kind} must find its package \(pip install 'diffscience\[cluster\]'"
        with pytest.raises(ArgumentError, match=rule), engines.opened(name):
            pass


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    rule = "^--engine slurm must find Slurm's command sbatch"
    with pytest.raises(ArgumentError, match=rule), engines.opened("slurm"):
        pass
    pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "_ANSWER_SECONDS", 0.3)
    rule = "^--engine must name a Dask scheduler that answers .*; got dask=tcp://127.0.0.1:1$"
    with pytest.raises(ArgumentError, match=rule), engines.opened("dask=tcp://127.0.0.1:1"):
        pass


def test_auto_is_processes_where_they_pay() -> None:
    def chosen(engine: str = "auto", quick: bool = False, device: str = "cpu") -> str:
        options: Any = SimpleNamespace(engine=engine, quick=quick)
        plans: Any = [SimpleNamespace(device="cpu"), SimpleNamespace(device=device)]
        return command._engine(plans, options)

    assert chosen() == "processes"
    assert chosen(quick=True) == chosen(device="cuda") == "serial"
    assert chosen("processes=3", quick=True) == "processes=3"


def test_cpus_are_no_more_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    for text, count in (("1", 1), ("3", 3), ("99", 8), ("0", 8), ("", 8), ("many", 8)):
        monkeypatch.setenv("NUMBA_NUM_THREADS", text)
        assert fused.cpus() == count


# ------------------------------------------------------------------ clusters


@contextlib.contextmanager
def dask(folder: Path, **environment: str) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler on this machine, and two workers of one thread each."""
    pytest.importorskip("distributed")
    contact = folder / "scheduler.json"
    host, file = ["--host", "127.0.0.1", "--no-dashboard"], ["--scheduler-file", str(contact)]
    log = (folder / "dask.log").open("wb")
    commands = [["scheduler", *host, *file, "--port", "0"]]
    commands += [["worker", *host, *file, "--nthreads", "1", "--no-nanny"]] * 2
    processes = []
    try:
        for words in commands:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words],
                env={**os.environ, **environment}, stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip
            processes.append(process)
            wait(contact.exists, processes)
        yield json.loads(contact.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()


def wait(happened: Callable[[], bool], alive: list[Any]) -> None:
    """Until something happens, as long as the processes live."""
    while not happened():
        assert all(process.poll() is None for process in alive)
        time.sleep(0.01)


@POSIX
def test_dask_gives_the_serial_table_though_a_worker_is_killed(folder: Path) -> None:
    whole = swept()
    forget(folder)
    environment = {"TOY_KILL": "rings-4-0:1", "TOY_PAUSE": "0.05", "OMP_NUM_THREADS": "2"}
    with (
        dask(folder, **environment) as (address, workers),
        engines.opened(f"dask={address}") as executor,
    ):
        assert swept(executor) == whole
        dead = [process for process in workers if process.poll() is not None]
        assert [process.returncode for process in dead] == [-signal.SIGKILL]
        count = begun(folder)
        # A cell that the dead worker had done, but not yet told of, is done again as well.
        assert count.keys() == set(CELLS)
        assert count["rings-4-0"] == 2
        assert sum(count.values()) <= len(CELLS) + 2
        config = toy.Config()
        found = Run(1, executor=executor).sweep("a", toy.threads, {"library": ("BLAS",)}, config)
        assert found["threads"] == 1
    assert swept() == whole  # from the cache
    assert begun(folder) == count


def test_a_scheduler_that_goes_ends_the_sweep(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed, config = pytest.importorskip("distributed"), pytest.importorskip("dask.config")
    monkeypatch.setattr(engines, "one_thread", lambda: None)  # the worker is a thread of ours
    monkeypatch.setattr(engines, "_ANSWER_SECONDS", 2.0)
    monkeypatch.setenv("TOY_STOP", "3")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
        protocol="tcp://", host="127.0.0.1", silence_logs=50,
    )  # fmt: skip

    def close() -> None:
        wait(lambda: kept(folder) >= 3, [])
        cluster.sync(cluster.scheduler.close)
        (folder / "go").touch()

    with engines.opened(f"dask={cluster.scheduler_address}") as executor:
        closing = threading.Thread(target=close)
        closing.start()
        with pytest.raises(CellError, match="BrokenExecutor: the Dask scheduler is gone") as told:
            swept(executor)
        closing.join()
    with config.set({"distributed.comm.timeouts.connect": "1s"}):  # it looks for its scheduler
        cluster.close()
    assert kept(folder) == len(CELLS) - len(told.value.failed) >= 3


def test_jobs_give_the_serial_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit's own processes stand for a cluster: the same pickles, folders and polls."""
    pytest.importorskip("submitit")
    whole = swept(targets=("grid",), seeds=1)
    forget(folder)
    monkeypatch.setenv("TOY_FAIL", "grid-8-0:1")
    with engines.Jobs(folder / "jobs", "local", jobs=2, pause=0.05) as executor:
        assert swept(executor, targets=("grid",), seeds=1) == whole
    assert begun(folder) == {"grid-4-0": 1, "grid-8-0": 2}
    assert os.getpid() not in places(folder)
    assert len(places(folder)) == 3


SLURM = {
    "sbatch": """#!{python}
import os, re, subprocess, sys
from pathlib import Path
home, file = Path(__file__).parent, sys.argv[1]
text = Path(file).read_text()
number = str(len(list(home.glob("*.sh"))) + 1)
(home / (number + ".sh")).write_text(text)
array = re.search("--array=0-([0-9]+)%", text)
for task in range(int(array[1]) + 1) if array else [None]:
    own = {{"SLURM_JOB_ID": number, "SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}}
    own = {{"SLURM_JOB_ID": number}} if task is None else own
    log = open(home / "log", "ab")
    subprocess.Popen(["bash", file], env={{**os.environ, **own}}, stdout=log, stderr=log)
print("Submitted batch job " + number)
""",
    "srun": """#!/bin/bash
while [[ $1 == --* ]]; do [[ $1 == --unbuffered ]] && shift || shift 2; done
exec "$@"
""",
    "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n",
    "scancel": '#!/bin/bash\necho "scancel $@" >> "$(dirname "$0")/log"\n',
}


@POSIX
def test_slurm_gets_arrays_of_jobs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """submitit's own way to Slurm, whose four commands are played by scripts."""
    pytest.importorskip("submitit")
    whole = swept(targets=("grid",), seeds=1)
    forget(folder)
    place = folder / "bin"
    place.mkdir()
    for name, text in SLURM.items():
        (place / name).write_text(text.format(python=sys.executable) if name == "sbatch" else text)
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TOY_FAIL", "grid-8-0:1")
    with engines.opened("slurm") as executor:
        assert list((folder / "cache").glob(".slurm-*"))
        assert swept(executor, targets=("grid",), seeds=1) == whole
    assert begun(folder) == {"grid-4-0": 1, "grid-8-0": 2}
    assert os.getpid() not in places(folder)
    assert not list((folder / "cache").glob(".slurm-*"))
    first, second = ((place / f"{i}.sh").read_text() for i in (1, 2))
    for line in ("--cpus-per-task=1", "--time=240", "--job-name=diffscience"):
        assert f"#SBATCH {line}\n" in first and f"#SBATCH {line}\n" in second
    assert "--array=0-1%2\n" in first and "--array" not in second  # the second is the other try


def test_jobs_that_cannot_be_submitted_are_told_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")

    def refuse(*_: Any) -> None:
        raise RuntimeError("no such partition")

    monkeypatch.setattr(submitit.LocalExecutor, "_submit_command", refuse)
    with engines.Jobs(folder / "jobs", "local", pause=0.01) as executor:
        with pytest.raises(CellError, match=r"8 of its 8 cells.*RuntimeError: no such partition"):
            swept(executor)
        with pytest.raises(ArgumentError, match="submit must be given arguments by position"):
            executor.submit(dict, a=1)
    with pytest.raises(ArgumentError, match="jobs must be a whole number of at least 1; got 0"):
        engines.Jobs(folder, "local", 0)


# ------------------------------------------------------------------ whole runs


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "diffscience", "run", "toy", "--studies", "studies", *words],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip


def outputs(folder: Path) -> dict[str, bytes]:
    """The files of a result, without the provenance, which tells the time."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".json"}


def kept(folder: Path) -> int:
    """How many entries the cache has."""
    return len(list((folder / "cache").glob("[!.]*.json")))


def executed(folder: Path, out: str = "out", **how: Any) -> dict[str, bytes]:
    """The files of a run in this process."""
    plan = runner.prepare("toy", studies=folder / "studies", device="cpu", out=folder / out, **how)
    runner.execute(plan, quiet=True)
    return outputs(folder / out)


@POSIX
def test_a_main_process_that_is_killed_loses_nothing_finished(folder: Path) -> None:
    whole = executed(folder, "whole")
    forget(folder)
    words = ("--engine", "processes=2", "--out", "out")
    process = start(*words, TOY_STOP="4")  # of two at one time, the fourth may stop as well
    wait(lambda: kept(folder) >= 3, [process])
    process.kill()
    process.communicate()
    wait(lambda: not any(map(lives, places(folder))), [])  # no worker outlives it
    before, finished = begun(folder), kept(folder)
    assert 3 <= finished <= 4
    assert not list((folder / "out").glob("toy*"))
    again = start(*words)
    assert again.communicate()[1] == ""
    assert again.returncode == 0
    assert outputs(folder / "out") == whole
    after = begun(folder)
    assert sum(after.values()) - sum(before.values()) == len(CELLS) - finished


def lives(number: int) -> bool:
    """Whether there is a process of this number, other than one that waits to be buried."""
    try:
        return ") Z" not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return Path("/proc/self").exists() is False and _answers(number)


def _answers(number: int) -> bool:
    try:
        os.kill(number, 0)
    except OSError:
        return False
    return True


@POSIX
def test_ctrl_c_loses_nothing_finished(folder: Path) -> None:
    process = start("--engine", "processes=2", TOY_STOP="4")
    wait(lambda: kept(folder) >= 3, [process])
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch("diffscience: interrupted; finished cells are kept, .*\n", err), err
    wait(lambda: not any(map(lives, places(folder))), [])
    before, finished = begun(folder), kept(folder)
    executed(folder)
    assert sum(begun(folder).values()) - sum(before.values()) == len(CELLS) - finished


class Full(engines.Serial):
    """An executor whose cells are all done when Ctrl-C is pressed, and not yet taken."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == 4:
            raise KeyboardInterrupt
        future = super().submit(function, *args, **kwargs)
        future.add_done_callback = lambda fn: None  # type: ignore[method-assign]
        return future


def test_what_is_done_when_ctrl_c_is_pressed_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "one_thread", lambda: None)
    config = toy.Config()
    one = Run(7, "cpu", store.Cache(), executor=Full(), interrupted=lambda: True)
    with pytest.raises(KeyboardInterrupt):
        one.sweep("toy", toy.product, config.axes, config)
    assert kept(folder) == 3
    # A cell computed here may be half of what it should be: Ctrl-C may have ended its training.
    with pytest.raises(KeyboardInterrupt):
        Run(7, "cpu", store.Cache(), interrupted=lambda: True).sweep(
            "toy", toy.product, config.axes, config
        )
    assert kept(folder) == 3


def test_a_study_tells_of_failed_cells(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["run", "toy", "--studies", "studies", "--quick", "--device", "cpu", "--quiet"]
    monkeypatch.setenv("TOY_FAIL", "grid-8-0:2")
    assert command.main([*words, "--engine", "processes=1"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("Traceback") and said.err.count("Traceback") == 1
    assert said.err.splitlines()[-1] == (
        "diffscience: study toy failed with CellError: sweep toy failed in 1 of its 4 cells,"
        " the others are kept: target=grid, steps=8, index=0"
        " (ZeroDivisionError: bad luck in grid-8-0)"
    )
    assert command.main(words) == 0
    assert begun(folder) == {**dict.fromkeys((f"{c[:-1]}0" for c in CELLS), 1), "grid-8-0": 3}


def test_jobs_hand_their_engine_on() -> None:
    for engine, handed in (("auto", "serial"), ("dask=tcp://h:1", "dask=tcp://h:1")):
        options: Any = SimpleNamespace(
            engine=engine, device="cpu", quick=False, seed=None, out=None, studies=None, changes=[]
        )
        words = command._command("toy", options)
        assert words[words.index("--engine") + 1] == handed


class Terminal(io.StringIO):
    """A stderr that is looked at."""

    def isatty(self) -> bool:
        return True


def test_one_bar_shows_all_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = toy.Config()
    run().sweep("toy", toy.product, config.axes, config, where=lambda cell: cell["index"] == 0)
    for quiet in (False, True):
        stderr = Terminal()
        monkeypatch.setattr(sys, "stderr", stderr)
        one = Run(7, "cpu", store.Cache(folder / "copy" if quiet else None), quiet=quiet)
        one.sweep("toy", toy.product, config.axes, config)
        shown = stderr.getvalue()
        assert ("toy:" in shown) == ("4/8" in shown) == (not quiet)  # half of them were kept


# ------------------------------------------------------------------ the tidy table as files


def test_cells_are_written_as_csv_and_parquet(folder: Path) -> None:
    found = executed(folder)
    assert set(found) == {
        *("toy.csv", "toy.md", "toy.png", "toy.svg"),
        *("toy_cells.csv", "toy_cells.parquet"),
    }
    table = pd.read_parquet(io.BytesIO(found["toy_cells.parquet"]))
    assert list(table) == [
        "target",
        "steps",
        "index",
        "mean",
        "some[0]",
        "some[1]",
        "some[2]",
        "label",
    ]
    assert table.attrs == {"digits": {"mean": 3}}
    csv = pd.read_csv(io.BytesIO(found["toy_cells.csv"]), float_precision="round_trip")
    pd.testing.assert_frame_equal(table, csv, check_exact=True)
    exact = [toy.product(toy.Config(), Run(7), "rings", 8, i)["mean"] for i in (0, 1)]
    assert table["mean"].tolist()[-2:] == exact
    forget(folder)
    assert executed(folder, "again") == found
    forget(folder)
    assert executed(folder, "other", seed=8)["toy_cells.parquet"] != found["toy_cells.parquet"]


def test_former_parquet_files_are_known(folder: Path) -> None:
    executed(folder)
    study = folder / "studies" / "toy.py"
    assert runner.results(folder / "out", "toy", study) == "full"
    path = folder / "out" / "toy_cells.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert runner.results(folder / "out", "toy", study) == "damaged"
    path.write_bytes(data)
    text = study.read_text().replace('"cells": cells}', '"points": cells}')
    study.write_text(text)
    names = executed(folder)
    assert "toy_points.md" in names
    assert not [name for name in names if "cells" in name]
