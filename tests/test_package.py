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
curves gallery models network nets losses bounds fits train samplers langevin fokker_planck
estimates distances divergences metrics plots files provenance options store study runner xoshiro
julia regression notes scorenotes testing doctor
__main__
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


def _numbers() -> dict[str, str]:
    """The numbers of the README's table of studies, from the committed tables."""

    def rows(name: str) -> list[dict[str, str]]:
        with (ROOT / "figures" / f"{name}.csv").open() as file:
            return list(csv.DictReader(file))

    def row(name: str, **wanted: str) -> dict[str, str]:
        return next(
            r for r in rows(name) if all(r[k.replace("_", " ")] == v for k, v in wanted.items())
        )

    def shown(value: str, digits: int) -> str:
        return f"{float(value):.{digits}g}"

    printed = [r for r in rows("julia_ddpm") if r["published"]]
    truth = row("julia_ddpm_samples", samples_of="the truth")
    beta = row("julia_ddpm_samples", samples_of="as the note samples", schedule="first")
    mended = row("julia_ddpm_samples", samples_of="mended, fresh data")
    speed = {"task": "oracle, 1000000 points"}
    times = {
        name: row("speed", contender=contender, **speed)["ms (median)"]
        for name, contender in (
            ("ours", "ours"),
            ("peer", "torch.distributions, autograd"),
            ("limit", "limit: C for this machine"),
        )
    }
    return {
        "losses": str(len(printed)),
        "worst": f"{max(float(r['relative difference']) for r in printed):.0e}",
        "beta_std": shown(beta["std"], 2),
        "std": shown(truth["std"], 3),
        "w1": shown(mended["W1"], 2),
        "w1_error": shown(mended["W1 error"], 1),
        "floor": shown(mended["W1 floor"], 2),
        "spread": shown(mended["W1 floor spread"], 2),
        "excess": shown(
            max((r["largest excess"] for r in rows("forward_reverse_final")), key=float), 2
        ),
        **{name: f"{float(ms):.0f}" for name, ms in times.items()},
        "steps": f"{float(row('speed_training', contender='ours')['steps a second']):.0f}",
    }


def test_readme_numbers_are_those_of_the_tables() -> None:
    numbers, text = _numbers(), (ROOT / "README.md").read_text()
    sentences = (
        "All {losses} published losses come out, to {worst} relative.",
        "std {beta_std} instead of {std}",
        "W1 to the truth is {w1} ± {w1_error}, its floor {floor} ± {spread}.",
        "at the end is {excess} standard errors",
        "take {ours} ms (torch.distributions {peer}, a C loop for this one machine {limit})",
        "makes {steps} steps a second",
    )
    for sentence in sentences:
        assert sentence.format(**numbers) in text, sentence.format(**numbers)


@pytest.mark.parametrize("study", sorted((ROOT / "studies").glob("*.py")), ids=lambda p: p.stem)
def test_committed_figures_are_made_by_the_committed_code(study: Path) -> None:
    state = runner.results(ROOT / "figures", study.stem, study)
    assert state == "full", f"{study.stem}: {state}; run `diffscience run {study.stem}`"
