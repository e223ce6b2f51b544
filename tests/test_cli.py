"""The command: each error is one sentence and status 2; runs survive kills, jobs and full disks."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import diffscience
from diffscience import files
from diffscience.__main__ import main

TOY = Path(__file__).parent / "toy_study.py"
ROOT = str(Path(diffscience.__file__).resolve().parent.parent)
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits and signals")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with studies/toy.py, which is where the command runs, and a cache of its own."""
    (tmp_path / "studies").mkdir()
    shutil.copy(TOY, tmp_path / "studies" / "toy.py")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*words: str) -> list[str]:
    return ["run", *words, "--studies", "studies", "--device", "cpu", "--quiet"]


def start(*words: str, **environment: str) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "diffscience", *words],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def contents(folder: Path, name: str = "") -> dict[str, bytes]:
    """The files of a folder, without provenances, which tell the time."""
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name.startswith(name)}
    return {name: data for name, data in found.items() if not name.endswith(".json")}


# ------------------------------------------------------------------ what it says


def test_a_run_says_where_its_files_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pattern = r"toy: figures-quick.toy.json and 7 files beside it, \d+\.\d s of computing, {}\n"
    for source in ("computed", "from the cache"):
        assert main(arguments("toy", "--quick")) == 0
        said = capsys.readouterr()
        assert re.fullmatch(pattern.format(source), said.out)
        assert said.err == ""


def test_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "studies" / "broken.py").write_text("def")
    assert main(["list", "--studies", "studies"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "broken  no results",
        "toy     no results       Does the toy run?",
    ]
    main(arguments("toy"))
    (folder / "figures" / "broken.json").write_text("{}")
    capsys.readouterr()
    main(["list", "--studies", "studies"])
    assert capsys.readouterr().out.splitlines() == [
        "broken  results damaged",
        "toy     full results     Does the toy run?",
    ]


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["run", "--help"], ["list", "--help"], ["doctor", "--help"]):
        assert main(words) == 0
        said = capsys.readouterr()
        assert said.out.startswith("usage: diffscience")
        assert said.err == ""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffscience {diffscience.__version__}\n"


@pytest.mark.parametrize(
    "code",
    [
        "import diffscience",
        "from diffscience.__main__ import main; main(['--help']); main(['run', '--help'])",
        "from diffscience.__main__ import main; main(['list'])",
    ],
)
def test_what_must_be_light_is_light(code: str) -> None:
    heavy = ["torch", "matplotlib", "pandas", "scipy.stats", "torchsde", "torchdiffeq", "numba"]
    check = f"import sys; {code}; print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == "[]\n"


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "toi"], r"study must be one of: toy \(did you mean toy\?\); got toi"),
        (["run", "toy", "xyz"], "study must be one of: toy; got xyz"),
        (["run", "../toy"], r"study must be one of: toy .*; got \.\./toy"),
        (["run", "toy", "--qick"], r"option must .*\(did you mean --quick\?\); got --qick"),
        (["list", "--quick"], r"option must be one of those in .*; got --quick"),
        (["run", "toy", "--quic"], "option must .*; got --quic"),
        (["run"], "the following arguments are required: NAME"),
        ([], "COMMAND must be one of: list, run, doctor; got nothing"),
        (["rum"], "argument COMMAND: invalid choice: 'rum'.*list.*run.*doctor.*"),
        (["run", "toy", "--jobs", "0"], "argument --jobs: must be a whole number >= 1; got 0"),
        (["run", "toy", "--jobs", "two"], "argument --jobs: must be .*; got two"),
        (["run", "toy", "--seed", "-1"], "argument --seed: must be a whole number >= 0; got -1"),
        (["run", "toy", "--seed", "1e3"], "argument --seed: must be .*; got 1e3"),
        (["run", "toy", "--seed", str(2**63)], f"seed must be a whole number .*; got {2**63}"),
        (["run", "toy", "--seed"], "argument --seed: expected one argument"),
        (["run", "toy", "--engine", "gpu"], "--engine must be serial, .* slurm or auto; got gpu"),
        (["run", "toy", "--engine", "processes=0"], "--engine must be serial, .*; got processes=0"),
        (["run", "toy", "--engine"], "argument --engine: expected one argument"),
        (["run", "toy", "--device", "tpu"], "--device must be cpu, cuda, .*; got tpu"),
        (["run", "toy", "--device", "cuda:77"], "--device must be a device .*; got cuda:77"),
        (["run", "toy", "--set", "n"], "argument --set: must read FIELD=VALUE; got n"),
        (["run", "toy", "--set", "m=1"], "--set must name one of: cells, n, .*; got m"),
        (["run", "toy", "--set", "cells=x"], "--set cells must be a whole number; got x"),
        (["run", "toy", "--set", "cells=0"], "cells must be 1 or more; got 0"),
        (["run", "toy", "--out", "file"], r"--out must name a place .*\(.*exists.*\); got file"),
        (["run", "toy", "--out", "file/in"], "--out must name a place .*; got file/in"),
        (["run", "toy", "--quick", "--out", "file"], r"--out must name a place .*; got file"),
        (["run", "toy", "--quick", "--out", "file/in"], "--out must name a place .*; got file/in"),
        (
            ["run", "toy", "--quick", "--out", "a" * 300],
            r"--out must .*too long\); got a{77}\.\.\.",
        ),
        (["list", "--out", "file"], "--out must be a folder of results; got file"),
        (["run", "toy", "--set", "n=-3"], "n must be 1 or more; got -3"),
        (["run", "toy", "--set", "shifts=()"], r"shifts must hold .*; got \(\)"),
        (["run", "toy", "--set", "seed=-3"], "seed must be a whole number .*; got -3"),
        (
            ["run", "toy", "--set", "scale=1" + "0" * 400],
            "--set scale must be a number; got 10*...",
        ),
        (["run", "toy", "--set", "label=\udcff"], r"config.label must be text .*; got '\\udcff'"),
        (["run", "toy", "--out", "/proc/none"], "--out must name a place .*; got /proc/none"),
        (["run", "toy", "--studies", "none"], "--studies must be a folder .*; got none"),
        (["run", "toy", "--studies", "empty"], "study must be one of: none is there; got toy"),
        (["run", "bare", "--studies", "bare"], r"study bare.py must define STUDY = .*; got None"),
        (["run", "toy", "--quick", "--out", "full"], "--out must not hold the full .*; got full"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    if "/proc/none" in words and not os.path.isdir("/proc/self"):
        pytest.skip("needs /proc")
    (folder / "file").write_text("mine")
    (folder / "empty").mkdir()
    (folder / "bare").mkdir()
    (folder / "bare" / "bare.py").write_text("x = 1\n")
    (folder / "full").mkdir()
    (folder / "full" / "toy.json").write_text('{"mode": "full", "changed": [], "outputs": {}}')
    if words[:1] == ["run"] and "--studies" not in words:
        words = [*words, "--studies", "studies"]
    before = sorted(str(p) for p in folder.rglob("*"))
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(f"diffscience: {sentence}\n", said.err), said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1
    assert (folder / "file").read_text() == "mine"
    assert [p for p in sorted(str(p) for p in folder.rglob("*")) if p not in before] == []
    assert not (folder / "log").exists()  # nothing was computed


def test_an_unwritable_cache_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").write_text("")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(folder / "file" / "in"))
    assert main(arguments("toy", "--quick")) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"diffscience: cache folder \(\$DIFFSCIENCE_CACHE\) must .*\n", said)


class Full(io.StringIO):
    """A stdout on a full disk."""

    def flush(self) -> None:
        if self.getvalue():
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_result_that_cannot_be_told_is_there(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments("toy", "--quick", "--out", "whole")) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Full())
    assert main(arguments("toy", "--quick")) == 2
    sentence = "diffscience: stdout must take what is printed; got No space left on device\n"
    assert capsys.readouterr().err == sentence
    assert contents(folder / "figures-quick") == contents(folder / "whole")


@POSIX
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["list"], ["--help"], ["run", "--help"], ["--version"]])
def test_a_stdout_that_takes_nothing(folder: Path, words: list[str], unbuffered: str) -> None:
    if words == ["list"]:
        words = ["list", "--studies", "studies"]
    reader, closed = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full, os.fdopen(closed, "wb") as pipe:
        found = []
        for stdout in (full, pipe):
            done = subprocess.run(
                [sys.executable, "-m", "diffscience", *words],
                env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            found.append((done.returncode, done.stderr))
    sentence = "diffscience: stdout must take what is printed; got No space left on device\n"
    assert found == [(2, sentence), (141, "")]


@POSIX
def test_a_stderr_that_takes_nothing(folder: Path) -> None:
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "diffscience", "run", "toi", "--studies", "studies"]
        assert subprocess.run(words, stderr=full, check=False).returncode == 2


def test_signs_that_stdout_lacks_are_escaped(folder: Path) -> None:
    text = (folder / "studies" / "toy.py").read_text().replace("the toy run?", "σ run?")
    (folder / "studies" / "toy.py").write_text(text, encoding="utf-8")
    process = start("list", "--studies", "studies", PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("Does \\u03c3 run?\n")


def test_files_that_cannot_be_read_spare_the_list(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(arguments("toy", "--quick", "--out", "figures"))
    (folder / "figures" / "deep.json").write_bytes(b"[" * 200_000)
    (folder / "figures" / "nul.json").write_text('{"outputs": {"a\\u0000": ""}}')
    for name in ("deep", "nul", "null"):
        (folder / "studies" / f"{name}.py").write_bytes(b"x = 1\n" + b"\0" * (name == "null"))
    shutil.copy(folder / "figures" / "toy.json", folder / "figures" / "null.json")
    capsys.readouterr()
    assert main(["list", "--studies", "studies"]) == 0
    states = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert states[:2] == ["deep results damaged", "nul results damaged"]
    assert states[3] == "toy no full results Does the toy run?"
    assert main(arguments("deep", "--quick", "--out", "figures")) == 2  # nor is it replaced


def test_no_traceback_from_the_process_itself(folder: Path) -> None:
    process = start("run", "toi", "--studies", "studies")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)


def test_a_damaged_cache_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(arguments("toy", "--quick"))
    whole = contents(folder / "figures-quick")
    for path in (folder / "cache").glob("*.npz"):
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    process = start(*arguments("toy", "--quick"))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "computed" in out
    lines = err.splitlines()
    assert len(lines) == 3  # the whole, and both cells
    assert all(line.startswith("diffscience: warning: the cache entry") for line in lines)
    assert contents(folder / "figures-quick") == whole


# ------------------------------------------------------------------ several studies


def several(folder: Path) -> None:
    """Two studies more; one raises."""
    text = TOY.read_text()
    other = text.replace("seed: int = 7", "seed: int = 9")
    (folder / "studies" / "other.py").write_text(other)
    bad = text.replace("    rows = [", '    raise ZeroDivisionError("bad luck")\n    rows = [')
    (folder / "studies" / "bad.py").write_text(bad)


def test_one_failure_spares_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several(folder)
    (folder / "studies" / "broken.py").write_text("def")
    assert main(arguments("all", "--quick")) == 1
    said = capsys.readouterr()
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["other", "toy"]
    assert "study bad failed with ZeroDivisionError: bad luck" in said.err
    assert "study broken failed with SyntaxError" in said.err
    assert not list((folder / "figures-quick").glob("bad*"))


def test_any_number_of_jobs_gives_the_same_bytes(folder: Path) -> None:
    several(folder)
    found = []
    for jobs in ("1", "2", "4"):
        words = ("all", "--quick", "--out", f"out{jobs}", "--jobs", jobs)
        process = start(*arguments(*words), DIFFSCIENCE_CACHE=str(folder / f"cache{jobs}"))
        out, err = process.communicate(timeout=240)
        assert process.returncode == 1
        assert sorted(line.split(":")[0] for line in out.splitlines()) == ["other", "toy"]
        assert "study bad failed" in err
        found.append(contents(folder / f"out{jobs}"))
    assert len(found[0]) == 14
    assert found[0] == found[1] == found[2]
    assert found[0]["toy.csv"] != found[0]["other.csv"]  # a seed of its own shows


def test_the_longest_come_first_and_times_are_taken_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the seconds of the last results; unknown ones after them, readers of others at the end."""
    text = (folder / "studies" / "toy.py").read_text()
    for name, more in (
        ("long", ""),
        ("timed", "alone"),
        ("new", ""),
        ("short", ""),
        ("reader", "last"),
    ):
        more = (
            f"\nimport dataclasses\nSTUDY = dataclasses.replace(STUDY, {more}=True)\n"
            if more
            else ""
        )
        (folder / "studies" / f"{name}.py").write_text(text + more)
    (folder / "figures-quick").mkdir()
    for name, seconds in (("long", 9.0), ("short", 2.0), ("toy", 5.0), ("timed", 99.0)):
        record = {"mode": "quick", "outputs": {}, "seconds": seconds}
        (folder / "figures-quick" / f"{name}.json").write_text(json.dumps(record))
    ran: list[list[str]] = []

    def apart(names: list[str], _: object) -> int:
        ran.append(names)
        return 0

    monkeypatch.setattr("diffscience.__main__._run_apart", apart)
    assert main(arguments("all", "--quick", "--jobs", "2")) == 0
    assert ran == [["long", "toy", "short", "new"], ["timed"], ["reader"]]


def test_the_file_runs_as_the_command_does(folder: Path) -> None:
    assert main(arguments("toy", "--quick", "--out", "a")) == 0
    environment = {**os.environ, "DIFFSCIENCE_CACHE": str(folder / "other cache")}
    words = [sys.executable, "studies/toy.py", "--quick", "--device", "cpu", "--out", "b"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("toy: b")
    assert contents(folder / "a") == contents(folder / "b")


# ------------------------------------------------------------------ rough treatment


def wait_for_cells(log: Path, count: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        if log.exists() and len(log.read_text().splitlines()) >= count:
            return
        time.sleep(0.005)


@POSIX
@pytest.mark.parametrize(("jobs", "stop"), [("1", "SIGINT"), ("2", "SIGINT"), ("2", "SIGTERM")])
def test_ctrl_c_keeps_finished_cells(folder: Path, jobs: str, stop: str) -> None:
    several(folder)
    process = start(*arguments("toy", "other", "--jobs", jobs), TOY_SLEEP="0.3")
    wait_for_cells(folder / "log", 3, process)
    process.send_signal(getattr(signal, stop))
    out, err = process.communicate(timeout=60)  # the pipes close when no child is left
    assert process.returncode == 130
    assert out == ""
    assert err == (
        "diffscience: interrupted; finished cells are kept, and the same command continues"
        " from there\n"
    )
    assert list((folder / "cache").glob("*.json"))
    assert not list((folder / "figures").iterdir())


LIMITED = """
import resource, sys
import matplotlib.font_manager, pandas
from diffscience.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
sys.exit(main(sys.argv[2:]))
"""


@POSIX
@pytest.mark.parametrize(
    ("limit", "place"), [(6000, "cache folder"), (12_000, "--out")], ids=["cache", "output"]
)
def test_a_full_disk_is_one_sentence(folder: Path, limit: int, place: str) -> None:
    assert main(arguments("toy", "--quick", "--out", "out")) == 0
    before = contents(folder / "out")
    size = "n=2000" if place == "cache folder" else "n=60"
    words = arguments("toy", "--quick", "--out", "out", "--set", size)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *words],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(
        rf"diffscience: {re.escape(place)}.* must name a place .*File too large.*\n", done.stderr
    )
    assert contents(folder / "out") == before
    assert main(arguments("toy", "--quick", "--out", "out", "--set", size)) == 0
    assert contents(folder / "out") != before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_space_left_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(arguments("toy", "--quick", "--out", "out")) == 0
    before = contents(folder / "out")
    capsys.readouterr()
    monkeypatch.setattr(files, "open", lambda *_: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    assert main(arguments("toy", "--quick", "--out", "out")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"diffscience: .* must name a place .*No space left.*\n", said.err)
    assert contents(folder / "out") == before


READ_ONLY = """
import os, sys
import matplotlib.figure, PIL.Image, pandas, tabulate
from diffscience import files, plots, runner, store
from diffscience.__main__ import main
if os.geteuid() == 0:  # root may write anywhere: become nobody
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    except OSError:
        sys.exit(77)
sys.exit(77 if os.access("out", os.W_OK) else main(sys.argv[1:]))
"""


@POSIX
def test_a_read_only_folder_is_one_sentence(folder: Path) -> None:
    assert main(arguments("toy", "--quick", "--out", "out")) == 0
    before = contents(folder / "out")
    (folder / "out").chmod(0o555)
    folder.chmod(0o755)  # nobody stands here; where the folders above let it walk is no matter
    words = arguments("toy", "--quick", "--out", "out", "--set", "n=60")
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, *words], capture_output=True, text=True, check=False
    )
    (folder / "out").chmod(0o755)
    if done.returncode == 77:
        pytest.skip("this user may write anywhere and cannot become another")
    sentence = r"diffscience: --out must name a place .*Permission denied\); got out\n"
    assert done.returncode == 2
    assert re.fullmatch(sentence, done.stderr), done.stderr
    assert contents(folder / "out") == before


KILLER = """
import json, os, random, signal, sys, time
import matplotlib.figure, PIL.Image, pandas, tabulate
from diffscience import plots, runner, store
from diffscience.__main__ import main

def run(name, delay=None):
    begin, child = time.monotonic(), os.fork()
    if child == 0:
        os.makedirs(name, exist_ok=True)
        os.environ["TOY_LOG"] = f"{name}/log"
        os.environ["DIFFSCIENCE_CACHE"] = f"{name}/cache"
        os._exit(main(sys.argv[1:] + ["--out", f"{name}/out"]))
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return status, time.monotonic() - begin

run("warm")
status, seconds = run("whole")
assert status == 0
rng, found = random.Random(4), []
for i in range(6):
    status, _ = run(f"part{i}", (i + rng.random()) / 6 * seconds)
    records = len([name for name in os.listdir(f"part{i}/cache") if name.endswith(".json")]
                  if os.path.isdir(f"part{i}/cache") else [])
    state = runner.results(runner.Path(f"part{i}/out"), "toy")
    found.append((status, records, state))
    assert run(f"part{i}")[0] == 0
print(json.dumps(found), file=sys.stderr)
"""


@POSIX
def test_a_run_killed_at_any_time_continues(folder: Path) -> None:
    """Kills over the whole of a run: before, between and after its cells, while it draws."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, *arguments("toy", "--quiet", "--quick", "--set", "cells=8")],
        env={**os.environ, "TOY_SLEEP": "0.02", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stderr.splitlines()[-1])
    whole = contents(folder / "whole" / "out")
    for i, (status, _, state) in enumerate(kills):
        assert state in (("other", "damaged", "none") if status else ("other",))
        assert contents(folder / f"part{i}" / "out") == whole
        assert not list((folder / f"part{i}" / "out").glob(".*"))  # what a kill left is removed
        cells = (folder / f"part{i}" / "log").read_text().split()
        assert set(cells) == set("01234567")
        assert len(cells) <= 9  # none but the cell under way was computed again
    killed = [records for status, records, _ in kills if status == signal.SIGKILL]
    assert len(killed) >= 4
    assert min(killed) < 9 == max(killed)  # eight cells and the whole: some kills met the drawing


def test_two_runs_of_one_output(folder: Path) -> None:
    """Two seeds into one folder at once: the files are one run's or the other's."""
    alone = []
    for seed in ("1", "2"):
        assert main(arguments("toy", "--quick", "--seed", seed, "--out", f"alone{seed}")) == 0
        alone.append(contents(folder / f"alone{seed}"))
    assert alone[0] != alone[1]
    (folder / "meeting").mkdir()
    processes = [
        start(
            *arguments("toy", "--quick", "--seed", seed, "--out", "both"),
            TOY_MEET=str(folder / "meeting"),
        )
        for seed in "12"
    ]
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    assert len(list((folder / "meeting").iterdir())) == 2  # they wrote at the same time
    assert contents(folder / "both") in alone
