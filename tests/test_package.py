"""The package as a whole: what importing it costs, who imports whom, and what its pages promise."""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import diffscience as ds
from diffscience import runner

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "diffscience"

HEAVY = (
    "torch",
    "matplotlib",
    "pandas",
    "scipy.stats",
    "torchsde",
    "torchdiffeq",
    "numba",
    "ot",
    "sklearn",
)

ORDER = """
errors arrays transition process chain jit kernel fused quadrature targets mixture boxes rings
curves gallery models weightings times nets network losses variances bounds reverse fits train
ensembles guidance tilted states grids noise prior dpm samplers langevin fokker_planck solvers
fused_steps estimates likelihood distances divergences metrics evaluation girsanov ends budget
plots files provenance options store study engines sweep runner xoshiro julia regression notes
scorenotes testing doctor __main__
""".split()
"""Each module may import from those before it, at its top level; nothing imports a study."""


def _loaded(code: str) -> set[str]:
    """The heavy modules that are loaded after some lines of code in a fresh interpreter."""
    listing = f"import sys\n{code}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return set(ast.literal_eval(out.stdout))


def test_import_is_light() -> None:
    assert _loaded("import diffscience") == set()


def test_oracles_need_no_torch() -> None:
    code = """
import numpy as np, diffscience as ds
for make in ds.gallery.ALL.values():
    oracle = ds.Oracle(make(), ds.VP())
    oracle.velocity(oracle.at(0.5).sample(3, 0), 0.5)
"""
    assert not _loaded(code) & {"torch", "matplotlib", "pandas", "torchsde", "torchdiffeq", "ot"}


def test_the_check_sees_a_heavy_import() -> None:
    assert "matplotlib" in _loaded("import diffscience, matplotlib")


@pytest.mark.parametrize("name", ds.__all__)
def test_public_names_resolve_and_are_documented(name: str) -> None:
    value = getattr(ds, name)
    assert name == "__version__" or value.__doc__


def _imports(path: Path) -> set[str]:
    """The package's modules that a file imports at its top level, outside TYPE_CHECKING."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("diffscience").lstrip(".")
            if node.level == 1 or (node.module or "").startswith("diffscience"):
                names = {alias.name for alias in node.names} - {"__version__"}
                found |= {module} if module else names
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_import_directions(path: Path) -> None:
    if path.stem == "__init__":
        assert _imports(path) == set()
        return
    assert path.stem in ORDER, f"{path.stem} has no place in the order of modules"
    later = _imports(path) - set(ORDER[: ORDER.index(path.stem)])
    assert not later, f"{path.stem} imports {later}, which come after it"


def test_one_file_knows_the_solver_libraries() -> None:
    known = re.compile(r"^\s*(import|from) (torchsde|torchdiffeq)\b", re.M)
    assert [p.stem for p in PACKAGE.glob("*.py") if known.search(p.read_text())] == ["solvers"]


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_nothing_imports_a_study(path: Path) -> None:
    assert not re.search(r"^\s*(from|import) (diffscience\.)?studies\b", path.read_text(), re.M)


def _examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)


def test_readme_examples_run() -> None:
    assert _examples()
    shared: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for example in _examples():
            exec(compile(example, "README.md", "exec"), shared)


def test_readme_names_every_study_and_shows_only_what_exists() -> None:
    text = (ROOT / "README.md").read_text()
    for study in (ROOT / "studies").glob("*.py"):
        assert f"`{study.stem}`" in text
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_ci_requires_every_study_in_the_list() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    found = re.search(r"^lists_every_study\(\) \{.*?^\}", script, re.M | re.S)
    assert found is not None
    assert re.search(r"bin/diffscience list\) \| lists_every_study$", script, re.M)
    listed = "".join(f"{p.stem}  full results\n" for p in (ROOT / "studies").glob("*.py"))
    for text, fails in ((listed, False), ("", True), (listed.replace("speed ", "sped "), True)):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{found[0]}\nlists_every_study"],
            cwd=ROOT, input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == fails
        assert done.stdout.strip() == text.strip()


def test_committed_figures_are_small() -> None:
    """Films below 3 MB, other files below 1 MB."""
    sizes = {path.name: path.stat().st_size for path in (ROOT / "figures").iterdir()}
    large = {name: n for name, n in sizes.items() if n >= (3e6 if name.endswith(".gif") else 1e6)}
    assert not large


COMPARISONS = (
    "samplers schedules weightings parameterisations learned_variance memorisation guidance ema"
    " antithetic error_budget"
).split()


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_have_eight_seeds_or_more(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In full mode, and in the committed table that keeps them apart."""
    # Loading puts a new module in the place of the one whose functions other tests pickle by name.
    monkeypatch.delitem(sys.modules, f"diffscience_studies.{name}", raising=False)
    study, _ = runner.load(ROOT / "studies" / f"{name}.py")
    assert study.config.seeds >= 8 > study.quick.seeds
    with (ROOT / "figures" / f"{name}_cells.csv").open(encoding="utf-8") as file:
        seeds = {row["seed"] for row in csv.DictReader(file)}
    assert len(seeds) >= 8


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.py")), ids=lambda p: p.stem)
def test_committed_figures_are_made_by_the_committed_code(study: Path) -> None:
    state = runner.results(ROOT / "figures", study.stem, study)
    assert state == "full", f"{study.stem}: {state}; run `diffscience run {study.stem}`"
