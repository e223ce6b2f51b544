"""Studies and their runner: same config, same bytes; a second run draws at once; a broken run
continues; stale code is not believed."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from diffscience import files, options, plots, provenance, runner, store
from diffscience.errors import ArgumentError
from diffscience.study import Run, Study, plain_arrays

TOY = Path(__file__).parent / "toy_study.py"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with studies/toy.py, a cache of its own, and a log of computed cells."""
    (tmp_path / "studies").mkdir()
    shutil.copy(TOY, tmp_path / "studies" / "toy.py")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "log"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path, **how: Any) -> tuple[runner.Result, dict[str, bytes]]:
    """Run the toy; (result, its files without the provenance, which tells the time)."""
    plan = runner.prepare("toy", studies=folder / "studies", device="cpu", **how)
    result = runner.execute(plan)
    outputs = {f: (result.folder / f).read_bytes() for f in result.files if f != "toy.json"}
    return result, outputs


def computed(folder: Path) -> list[str]:
    """The cells computed so far."""
    log = folder / "log"
    return log.read_text().split() if log.exists() else []


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "studies" / "toy.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# ------------------------------------------------------------------ runs


def test_the_files_of_a_run(folder: Path) -> None:
    result, outputs = run(folder)
    assert result.folder == Path("figures")
    assert list(outputs) == [
        "toy.csv", "toy.md", "toy_total.csv", "toy_total.md", "toy.png", "toy.svg", "toy_film.gif"
    ]  # fmt: skip
    assert sorted(p.name for p in result.folder.iterdir()) == sorted(result.files)
    record = json.loads((result.folder / "toy.json").read_bytes())
    assert record["mode"] == "full"
    assert record["changed"] == []
    assert record["seed"] == record["config"]["seed"] == 7
    assert record["config"]["shifts"] == [0.0, 1.0]
    assert record["device"] == "cpu"
    assert record["seconds"] >= 0
    assert {"python", "numpy", "torch", "matplotlib"} <= set(record["versions"])
    assert record["outputs"] == {name: files.sha256(data) for name, data in outputs.items()}
    assert record["code"] == provenance.code_version(TOY.read_text())
    assert record["commit"] is None  # a temporary folder is no repository
    assert outputs["toy.csv"].startswith(b"row,mean,std\n0,")
    assert outputs["toy.md"].startswith(b"|   row |")


def test_same_config_same_bytes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, first = run(folder, quick=True)
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(folder / "other cache"))
    np.random.seed(5)  # noqa: NPY002  a global generator decides nothing
    _, second = run(folder, quick=True, out=folder / "elsewhere")
    assert first == second
    assert len(computed(folder)) == 4  # both computed
    _, other = run(folder, quick=True, seed=8)
    assert other["toy.csv"] != first["toy.csv"]


def test_an_unseeded_study_shows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong twin of the test above: fresh entropy gives other bytes, and the check sees it."""
    edit(folder, 'run.generator("row", i)', "np.random.default_rng()")
    _, first = run(folder, quick=True)
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(folder / "other cache"))
    _, second = run(folder, quick=True, out=folder / "elsewhere")
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} >= {"toy.csv", "toy.png"}


def test_a_second_run_computes_nothing(folder: Path) -> None:
    first, outputs = run(folder)
    record = json.loads((first.folder / "toy.json").read_bytes())
    second, again = run(folder)
    assert not first.cached
    assert second.cached
    assert len(computed(folder)) == 8
    assert outputs == again
    assert json.loads((first.folder / "toy.json").read_bytes()) == record


def test_pictures_hold_their_provenance_and_no_date(folder: Path) -> None:
    from PIL import Image

    _, outputs = run(folder, quick=True)
    with Image.open(io.BytesIO(outputs["toy.png"])) as picture:
        note = json.loads(picture.info["Description"])
    assert note["config"]["cells"] == 2
    assert note["code"] == provenance.code_version(TOY.read_text())
    assert b"<dc:date>" not in outputs["toy.svg"]
    assert note["code"].encode() in outputs["toy.svg"]
    with Image.open(io.BytesIO(outputs["toy_film.gif"])) as film:
        assert getattr(film, "n_frames", 1) == 2


def test_an_interrupted_run_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole = run(folder, out=folder / "whole")
    monkeypatch.setenv("DIFFSCIENCE_CACHE", str(folder / "other cache"))
    (folder / "log").unlink()
    usual = Run.cell
    for stop in (3, 6):

        def cell(self: Run, name: str, function: Any, *args: Any, stop: int = stop) -> Any:
            if name == f"row {stop}":
                raise KeyboardInterrupt
            return usual(self, name, function, *args)

        monkeypatch.setattr(Run, "cell", cell)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
        assert not list(Path("figures").iterdir())
    monkeypatch.setattr(Run, "cell", usual)
    _, resumed = run(folder)
    assert resumed == whole
    assert computed(folder) == [str(i) for i in range(8)]  # none twice


def test_a_generator_shared_by_cells_is_refused() -> None:
    """It would make a continued run differ from an uninterrupted one: the twin shows how."""
    import torch

    def work(generator: np.random.Generator) -> dict[str, Any]:
        return {"x": generator.random()}

    def ones(_: Any) -> dict[str, Any]:
        return {"x": torch.ones(1)}

    for shared in (Run(1).generator("all"), Run(1).torch_generator("all")):
        one = Run(1)
        function = (
            work if isinstance(shared, np.random.Generator) else lambda g: {"x": torch.ones(1)}
        )
        one.cell("a", function, shared)
        with pytest.raises(ArgumentError, match="generator of its own"):
            one.cell("b", function, shared)
    both, late = np.random.default_rng(1), np.random.default_rng(1)
    work(both)
    assert work(both) != work(late)  # second cell after the first, and without it


def test_a_cell_needs_a_name_of_its_own() -> None:
    one = Run(1)
    one.cell("a", lambda: {"x": 1})
    with pytest.raises(ArgumentError, match="name of its own"):
        one.cell("a", lambda: {"x": 2})


def test_damaged_cells_are_computed_again(folder: Path) -> None:
    _, whole = run(folder)
    for path in list((folder / "cache").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-7])
    with pytest.warns(store.CacheWarning, match="damaged"):
        result, again = run(folder)
    assert again == whole
    assert not result.cached
    assert len(computed(folder)) == 16
    run(folder)
    assert len(computed(folder)) == 16  # and are good again


# ------------------------------------------------------------------ code versions


def stds(outputs: dict[str, bytes]) -> np.ndarray:
    return np.loadtxt(io.BytesIO(outputs["toy.csv"]), delimiter=",", skiprows=1, usecols=2)


def test_other_code_is_computed_again(folder: Path) -> None:
    _, before = run(folder)
    edit(folder, "config.scale * generator", "2 * config.scale * generator")
    assert runner.results(Path("figures"), "toy", folder / "studies" / "toy.py") == "stale"
    result, after = run(folder)
    assert not result.cached
    assert len(computed(folder)) == 16
    assert np.allclose(stds(after), 2 * stds(before), rtol=1e-12)  # the new code's numbers
    assert runner.results(Path("figures"), "toy", folder / "studies" / "toy.py") == "full"


def test_other_drawing_is_drawn_from_the_cache(folder: Path) -> None:
    _, first = run(folder)
    edit(folder, "axes[0, 0].set_title(config.label)", 'axes[0, 0].set_title("other")')
    assert runner.results(Path("figures"), "toy", folder / "studies" / "toy.py") == "stale"
    result, second = run(folder)
    assert result.cached
    assert first["toy.png"] != second["toy.png"]
    assert first["toy.csv"] == second["toy.csv"]


def test_comments_and_docstrings_change_nothing(folder: Path) -> None:
    run(folder)
    edit(folder, '"""All rows, each a cell."""', "# every row is a cell")
    edit(folder, '    return {"x": np.stack(rows)}', "    return {\n        'x': np.stack(rows)}")
    assert runner.results(Path("figures"), "toy", folder / "studies" / "toy.py") == "full"
    assert run(folder)[0].cached


STUDY = """
import numpy as np
import diffscience as ds
from diffscience import plots, Transition
{top}
SCALE = 2.0
def helper(x):
    return SCALE * x
def compute(config, run):
    {body}
    return helper(1)
def draw(config, arrays):
    return {draw}
STUDY = ds.study.Study(1, 2, compute, None, draw, "Why?")
"""


def version(top: str = "", body: str = "pass", draw: str = "1", **edits: str) -> str:
    text = STUDY.format(top=top, body=body, draw=draw)
    for old, new in edits.items():
        text = text.replace(old, new)
    return provenance.code_version(text, computation=True)


def test_computation_is_what_compute_reaches() -> None:
    base = version()
    assert version(draw="2") == base
    assert version(draw="ds.plots.COLORS") == base
    assert version(top="def unused(): return 1") == base
    assert version(top="import os") == base
    assert version(SCALE="OTHER") != base
    assert version(helper="other") != base
    assert version(**{"2.0": "2.5"}) != base
    assert version(body="x = 1") != base
    assert version(top="np.seterr(all='raise')") != base  # an effect without a name
    assert version(body="eval('draw')", draw="1") != version(body="eval('draw')", draw="2")
    assert provenance.code_version("x = 1", computation=True) != provenance.code_version(
        "x = 2", computation=True
    )  # without a STUDY everything counts


@pytest.mark.parametrize(
    ("use", "modules"),
    [
        ("import diffscience as ds\nds.Transition", {"transition"}),
        ("import diffscience\ndiffscience.julia.randn", {"julia"}),
        ("import diffscience as ds\ndef f():\n    return ds.VP()", {"process"}),
        ("from diffscience import Transition as T, julia", {"transition", "julia"}),
        ("from diffscience.process import VP", {"process"}),
        ("def f():\n    from diffscience import process", {"process"}),
        ("import diffscience.julia as j", {"julia"}),
        ("from .errors import ArgumentError", {"errors"}),
        ("from . import errors, VP", {"errors", "process"}),
        ("import importlib\nimportlib.import_module('diffscience.julia')", {"julia"}),
        ("import numpy as ds\nds.Transition", set()),
        ("from numpy import errors", set()),
        ("import diffscience as ds\nds.__version__", set()),
    ],
)
def test_imports_resolve_to_modules(use: str, modules: set[str]) -> None:
    statements = provenance._parse(use)
    assert provenance._imported(statements, statements) == modules


@pytest.mark.parametrize(
    "use",
    [
        "from diffscience import *",
        "import diffscience as ds\ngetattr(ds, 'V' + 'P')",
        "import diffscience as ds\nds.no_such_name",
    ],
)
def test_unclear_imports_count_everything(use: str) -> None:
    statements = provenance._parse(use)
    assert provenance._imported(statements, statements) == provenance._modules()


def test_the_graph_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """study -> a -> b counts; c does not; study.py counts without what it imports."""
    sources = {
        "a": "def f():\n    from .b import g\n    return g",
        "b": "g = 1",
        "c": "h = 1",
        "study": "from . import c",
        "plots": "from . import c",
    }
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)

    def versions() -> tuple[str, str]:
        use = "from diffscience.a import f"
        return provenance.code_version(use, computation=True), provenance.code_version(use)

    for name, text in sources.items():
        (tmp_path / f"{name}.py").write_text(text)
    base = versions()
    changes = {"a": (True, True), "b": (True, True), "c": (False, False)}
    for name, expected in {**changes, "study": (True, True), "plots": (False, True)}.items():
        (tmp_path / f"{name}.py").write_text(sources[name] + "\nmore = 12345")
        assert tuple(x != y for x, y in zip(versions(), base, strict=True)) == expected
        (tmp_path / f"{name}.py").write_text(sources[name] + "  # a comment")
        assert versions() == base


def test_normal_form_keeps_what_counts() -> None:
    texts = ["f('', 1)", "f(1)", "f(1.0)", "f(True)", "f(None)", "f(b'')", "f(x=1)", "f(*a)"]
    texts += ["def f(a, /): pass", "def f(a): pass", "def f(*, a): pass", "lambda a=None: a"]
    texts += ["f'{a}'", "f'{a!r}'", "f'{a:3}'", "x: int", "x: int = 1", "return_ = ...", "-1", "+1"]
    forms = {provenance._normal(provenance._parse(text)) for text in texts}
    assert len(forms) == len(texts)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_a_tracked_file(tmp_path: Path) -> None:
    path, stranger = tmp_path / "toy.py", tmp_path / "untracked.py"
    for file in (path, stranger):
        file.write_text("x = 1\n")
    unknown = {"commit": None, "modified": None}
    assert provenance.commit(path) == unknown
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]

    def git(*words: str) -> str:
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    git("init")
    git("add", "toy.py")
    git("commit", "-m", "first")
    assert provenance.commit(path) == {"commit": git("rev-parse", "HEAD"), "modified": False}
    assert provenance.commit(stranger) == unknown
    path.write_text("x = 2\n")
    assert provenance.commit(path)["modified"] is True


def test_versions_are_those_installed() -> None:
    assert provenance.packages(["numpy", "no-such-distribution"]) == {"numpy": np.__version__}


# ------------------------------------------------------------------ random streams


def test_streams_depend_on_seed_and_key_alone() -> None:
    keys: list[tuple[str | int | float, ...]] = [(), ("a",), ("a", 1), ("a", "1"), (1,), (1.5,)]
    draws = [Run(seed).generator(*key).integers(2**62) for seed in (1, 2) for key in keys]
    assert len(set(draws)) == len(draws)
    one = Run(1)
    one.generator("b").random(5)
    assert one.generator("a").integers(2**62) == Run(1).generator("a").integers(2**62)
    torch = pytest.importorskip("torch")
    before = torch.get_rng_state()
    x = torch.rand(3, generator=one.torch_generator("a"))
    assert torch.equal(x, torch.rand(3, generator=Run(1).torch_generator("a")))
    assert not torch.equal(x, torch.rand(3, generator=Run(2).torch_generator("a")))
    assert torch.equal(before, torch.get_rng_state())


def test_streams_are_fixed_for_ever() -> None:
    """Values of NumPy's PCG64 seeded by sha256('[7, "row", 0]'), worked out apart from Run."""
    import hashlib

    bits = int(hashlib.sha256(b'[7, "row", 0]').hexdigest(), 16)
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(bits))).random(3)
    assert np.array_equal(Run(7).generator("row", 0).random(3), expected)


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**63, "1"])
def test_bad_seeds(seed: Any) -> None:
    with pytest.raises(ArgumentError, match="seed must be a whole number"):
        Run(seed)


# ------------------------------------------------------------------ bad input


@dataclasses.dataclass(frozen=True)
class Config:
    n: int = 1
    rate: float = 0.5
    label: str = "a"
    flag: bool = True
    ks: tuple[int, ...] = (1, 2)
    seed: int = 3


@dataclasses.dataclass
class Loose:
    n: int = 1


def nothing(*_: Any) -> Any:
    return {}


def test_a_study_is_checked() -> None:
    good = (Config(), Config(), nothing, nothing, nothing, "Why?")
    assert Study(*good).seed == 3
    bad: list[tuple[int, Any, str]] = [
        (0, Loose(), "config"),
        (0, {"n": 1}, "config"),
        (1, runner.Result("a", Path(), (), 0.0, False), "quick"),
        (2, None, "compute"),
        (4, 1, "draw"),
        (5, "Because.", "question"),
        (0, Config(seed=-1), "seed"),
        (1, Config(seed=1.5), "seed"),  # type: ignore[arg-type]
    ]
    for place, value, name in bad:
        args: list[Any] = list(good)
        args[place] = value
        with pytest.raises(ArgumentError, match=f"{name} must"):
            Study(*args)
    with pytest.raises(ArgumentError, match="animate"):
        Study(*good, animate=1)  # type: ignore[arg-type]


def test_fields_are_set_as_their_kind() -> None:
    changes = {"n": "5", "rate": "2", "label": "7", "flag": "false", "ks": "3,4"}
    assert options.changed_config(Config(), changes) == Config(5, 2.0, "7", False, (3, 4))
    assert type(options.changed_config(Config(), changes).rate) is float
    assert options.changed_config(Config(), {"rate": "inf", "ks": "9"}).ks == (9,)
    bad = {"n": "2.5", "rate": "fast", "flag": "yes", "ks": "1.5,x", "m": "1"}
    for name, text in bad.items():
        with pytest.raises(ArgumentError, match="--set"):
            options.changed_config(Config(), {name: text})
    with pytest.raises(ArgumentError, match="did you mean label"):
        options.changed_config(Config(), {"labl": "x"})
    with pytest.raises(ArgumentError, match="--set"):
        options.changed_config(Config(), {"n": "__import__('os').getpid()"})


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:-1", "CPU", "", "cuda:99", "cpu:0", None])
def test_bad_devices(name: Any) -> None:
    with pytest.raises(ArgumentError, match="--device must be"):
        options.resolve_device(name)


def test_what_is_no_array_is_refused() -> None:
    for bad in (None, [1], {"x": object()}, {1: 2}, {"": 1}):
        with pytest.raises(ArgumentError, match="compute must return"):
            plain_arrays(bad)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"total": pd', '"Total/..": pd', "part must be lower-case"),
        ('"total": pd', '"": 1, "total": pd', "table must return"),
        ('return {"": fig}', "return {}", "draw must return"),
        ('return {"": fig}', 'return {"total": fig, "x": 1}', "draw must return"),
        ('{"film": plots.gif(frames, 100)}', '{"film": b"0" * 3_000_000}', "smaller than 3 MB"),
        ('return {"x": np.stack(rows)}', "return [1]", "compute must return"),
        ("STUDY = Study(", "OTHER = Study(", "must define STUDY"),
    ],
)
def test_outputs_are_checked(folder: Path, old: str, new: str, message: str) -> None:
    run(folder, quick=True)
    before = {p.name: p.read_bytes() for p in Path("figures-quick").iterdir()}
    edit(folder, old, new)
    with pytest.raises(ArgumentError, match=message):
        run(folder, quick=True)
    assert {p.name: p.read_bytes() for p in Path("figures-quick").iterdir()} == before


def test_names_of_two_studies_do_not_collide(folder: Path) -> None:
    shutil.copy(folder / "studies" / "toy.py", folder / "studies" / "toy_total.py")
    with pytest.raises(ArgumentError, match="collide with the files of study toy_total"):
        run(folder, quick=True)


# ------------------------------------------------------------------ full results are safe


@pytest.mark.parametrize("how", [{"quick": True}, {"seed": 8}, {"changes": {"n": "900"}}])
def test_no_other_run_replaces_full_results(folder: Path, how: dict[str, Any]) -> None:
    _, whole = run(folder)
    result, _ = run(folder, **how)
    assert result.folder == Path("figures-quick")
    with pytest.raises(ArgumentError, match="only its own full run"):
        run(folder, out=Path("figures"), **how)
    (Path("figures") / "toy.json").write_bytes(b"{")  # nor results that cannot be understood
    with pytest.raises(ArgumentError, match="only its own full run"):
        run(folder, out=Path("figures"), **how)
    assert run(folder)[1] == whole


def test_results_of_a_folder(folder: Path) -> None:
    def state() -> str:
        return runner.results(Path("figures"), "toy", folder / "studies" / "toy.py")

    assert state() == "none"
    run(folder, quick=True, out=Path("figures"))
    assert state() == "other"
    run(folder)
    assert state() == "full"
    (Path("figures") / "toy.csv").write_text("row,mean\n")
    assert state() == "damaged"


LAST = """
import dataclasses

import pandas as pd
from matplotlib.figure import Figure

from diffscience.study import Study


@dataclasses.dataclass(frozen=True)
class Config:
    table: str = "toy"


def compute(config, run):
    return {"std": [float(row["std"]) for row in run.table(config.table)]}


STUDY = Study(
    Config(), Config(), compute, lambda config, arrays: pd.DataFrame(arrays),
    lambda config, arrays: Figure(), "What do the others say?", last=True,
)
"""


def test_a_study_that_runs_last_reads_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes after them, sees those of its own mode alone, and is stale when they change."""
    from diffscience.__main__ import main

    path = folder / "studies" / "a_page.py"
    path.write_text(LAST)
    options = ["--studies", "studies", "--device", "cpu"]
    assert main(["run", "a_page", *options]) == 2
    assert (
        "table must be one that another study has left (none); got toy" in capsys.readouterr().err
    )
    for jobs in ("1", "2"):
        assert main(["run", "all", "--out", f"figures-{jobs}", "--jobs", jobs, *options]) == 0
        told, wanted = (
            pd.read_csv(f"figures-{jobs}/{name}.csv")["std"] for name in ("a_page", "toy")
        )
        assert told.tolist() == wanted.tolist()
    run(folder)
    assert main(["run", "a_page", *options]) == 0
    assert runner.results(Path("figures"), "a_page", path) == "full"
    assert main(["run", "a_page", "--quick", "--out", "figures-quick", *options]) == 2
    edit(folder, "config.scale *", "2 * config.scale *")
    run(folder)
    assert runner.results(Path("figures"), "a_page", path) == "stale"
    assert main(["run", "a_page", *options]) == 0
    assert runner.results(Path("figures"), "a_page", path) == "full"
    (Path("figures") / "toy.csv").write_text("row,mean,std\n")
    capsys.readouterr()
    assert main(["run", "a_page", *options]) == 2
    assert "toy.csv must be as its study has written it" in capsys.readouterr().err


def test_outputs_that_are_gone_are_removed(folder: Path) -> None:
    run(folder)
    edit(folder, '"total": pd', '"sum": pd')
    run(folder)
    names = {p.name for p in Path("figures").iterdir()}
    assert "toy_sum.csv" in names
    assert "toy_total.csv" not in names
    # A provenance that was tampered with removes nothing else.
    (Path("precious.csv")).write_text("mine")
    record = json.loads((Path("figures") / "toy.json").read_bytes())
    record["outputs"] |= {"../precious.csv": "", "precious.csv": "", "toy_/../../precious.csv": ""}
    (Path("figures") / "toy.json").write_bytes(files.to_json(record))
    run(folder)
    assert Path("precious.csv").read_text() == "mine"


# ------------------------------------------------------------------ pictures


class Bell:
    """The standard Gaussian, as far as a plot asks."""

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        return -0.5 * np.sum(x**2 + np.log(2 * np.pi), axis=-1)


def drawn(draw: Callable[[], Any]) -> tuple[bytes, bytes]:
    with plots.style():
        return plots.save(draw(), {"name": "test"})


def test_density_shows_the_law_where_it_is() -> None:
    with plots.style():
        fig, axes = plots.figure(height=3.0)
        image = plots.density(axes[0, 0], Bell(), (-1.0, 3.0, -2.0, 2.0), n=40, depth=4.0)
    values = np.asarray(image.get_array())
    assert values.shape == (40, 40)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert abs(-1.0 + 4.0 * (column + 0.5) / 40) < 0.051  # the peak is drawn at the origin
    assert abs(-2.0 + 4.0 * (row + 0.5) / 40) < 0.051
    assert np.isclose(np.ptp(values), 4.0)
    assert image.origin == "lower"
    with pytest.raises(ArgumentError, match="box"):
        plots.density(axes[0, 0], Bell(), (1.0, 0.0, 0.0, 1.0))
    assert fig.axes[0] is axes[0, 0]


def test_histogram_has_mass_one_beside_the_density() -> None:
    x = Run(1).generator().standard_normal((5000, 1))
    with plots.style():
        _, axes = plots.figure()
        plots.histogram_beside_density(axes[0, 0], x, Bell())
    steps = axes[0, 0].patches[0].get_data()
    assert np.isclose(np.sum(steps.values * np.diff(steps.edges)), 1.0)
    line = axes[0, 0].lines[0]
    assert np.allclose(line.get_ydata(), np.exp(Bell().log_prob(line.get_xdata()[:, None])))
    with pytest.raises(ArgumentError, match="samples"):
        plots.histogram_beside_density(axes[0, 0], np.array([np.nan]), Bell())


def test_the_same_figure_has_the_same_bytes_whatever_the_user_set() -> None:
    import matplotlib

    def draw() -> Any:
        fig, axes = plots.figure(1, 2, height=3.0)
        x = Run(1).generator().standard_normal((5000, 2))
        axes[0, 0].scatter(*x.T, s=1)
        axes[0, 1].fill_between([0, 1], [0, 1], label="area")
        axes[0, 1].legend()
        return fig

    first = drawn(draw)
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "x"}):
        before = dict(matplotlib.rcParams)
        assert drawn(draw) == first
        assert dict(matplotlib.rcParams) == before
    assert len(first[1]) < 300_000  # 5000 points are one image, not 5000 elements


def test_gif_is_deterministic_and_checked() -> None:
    from PIL import Image

    frames = [Image.new("RGB", (20, 10), (i * 20, 0, 255 - i * 20)) for i in range(10)]
    data = plots.gif(frames, 50)
    assert data == plots.gif(frames, [50] * 10)
    with Image.open(io.BytesIO(data)) as film:
        assert getattr(film, "n_frames", 1) == 10
        assert film.info["duration"] == 50
        assert film.info["loop"] == 0
    for bad, ms in (([], 50), ([frames[0], Image.new("RGB", (5, 5))], 50), (frames, 0)):
        with pytest.raises(ArgumentError):
            plots.gif(bad, ms)


def test_the_toy_runs_without_a_runner() -> None:
    spec = importlib.util.spec_from_file_location("toy_alone", TOY)
    assert spec is not None
    assert spec.loader is not None
    toy = importlib.util.module_from_spec(spec)
    sys.modules["toy_alone"] = toy
    spec.loader.exec_module(toy)
    arrays = toy.STUDY.compute(toy.STUDY.quick, Run(toy.STUDY.seed))
    assert arrays["x"].shape == (2, 50)


SWALLOWS = """
import dataclasses, signal
import numpy as np, pandas as pd
from diffscience import plots
from diffscience.study import Study

@dataclasses.dataclass(frozen=True)
class Config:
    press: bool = True

def training():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass  # as a training does, which returns what it has reached
    return {"x": np.ones(1)}

def compute(config, run):
    return run.cell("training", training)

STUDY = Study(Config(), Config(), compute, lambda c, a: pd.DataFrame(a),
              lambda c, a: plots.figure()[0], "Is half a training kept?")
"""


def test_what_an_interrupted_training_returns_is_not_kept(tmp_path: Path) -> None:
    studies, cache = tmp_path / "studies", store.Cache(tmp_path / "cache")
    studies.mkdir()
    (studies / "swallows.py").write_text(SWALLOWS)
    plan = runner.prepare("swallows", studies=studies, out=tmp_path / "out", device="cpu")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        runner.execute(plan, cache=cache, quiet=True)
    assert not list((tmp_path / "cache").glob("*.npz"))
    assert not list((tmp_path / "out").glob("swallows*"))
    assert signal.getsignal(signal.SIGINT) is before
    # Wrong twin: the cache itself keeps the half of it.
    found = Run(0, "cpu", cache, {}).cell("training", plan.study.compute, None, Run(0))
    assert found["x"] == 1
    assert list((tmp_path / "cache").glob("*.npz"))


def test_bars_in_a_table_end_no_cell() -> None:
    """Of names and of text; numbers keep their digits, and what is lacking is empty."""
    table = pd.DataFrame({"|x|": ["p(c|x)", "y"], "n": [1.23456, float("nan")]})
    table.attrs["digits"] = {"n": 3}
    first, _, second, third = runner._markdown(table).splitlines()
    assert [cell.strip() for cell in first[1:-1].split(" | ")] == [r"\|x\|", "n"]
    assert [cell.strip() for cell in second[1:-1].split(" | ")] == [r"p(c\|x)", "1.23"]
    assert [cell.strip() for cell in third[1:-1].split(" | ")] == ["y", ""]
