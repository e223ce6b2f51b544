"""The study summary: a line for every study, told from the tables alone, and the README's table."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffscience import runner
from diffscience.errors import ArgumentError
from diffscience.study import Run

ROOT = Path(__file__).parents[1]
STUDY, _ = runner.load(ROOT / "studies" / "summary.py")
study: Any = sys.modules["diffscience_studies.summary"]
OTHERS = {path.stem for path in (ROOT / "studies").glob("*.py")} - {"summary"}


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    """The committed tables of the other studies."""
    paths = (ROOT / "figures").glob("*.csv")
    return {p.stem: p.read_text("utf-8") for p in paths if not p.stem.startswith("summary")}


@pytest.fixture(scope="module")
def arrays(tables: dict[str, str]) -> dict[str, np.ndarray]:
    found = STUDY.compute(STUDY.config, Run(0, tables=tables))
    return {name: np.asarray(value) for name, value in found.items()}


def test_every_study_has_an_answer(arrays: dict[str, np.ndarray]) -> None:
    assert set(study.ANSWERS) == set(arrays["study"]) == OTHERS
    assert set(study.NUMBERS) <= OTHERS
    assert STUDY.last
    for asked, answer in zip(arrays["question"], arrays["answer"]):
        assert asked.endswith("?") and answer.endswith(".")


def test_answers_follow_the_tables(tables: dict[str, str]) -> None:
    """Another number in a table is another number in its answer, and in its headline."""
    rows = list(csv.DictReader(tables["ncsn"].splitlines()))
    wanted = {"pace": "slow", "faults": "no fault", "score": "exact"}
    [one] = [r for r in rows if wanted.items() <= r.items()]
    moved = tables["ncsn"].replace(one["left weight"], "0.777")
    run = Run(0, tables={"ncsn": moved})
    assert "0.777" in study.ncsn(study.Tables(run))
    assert next(study.of_ncsn(study.Tables(run))).value == 0.777


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_every_number_of_an_answer_is_of_a_table(name: str, tables: dict[str, str]) -> None:
    """With every measured number of its tables times 1.37 or more, an answer keeps few of its own
    of two digits or more: those of the method (rates, times, bounds), and chance.
    """

    def moved(text: str) -> str:
        rows = list(csv.reader(text.splitlines()))
        numbers = itertools.count()
        body = [[_moved(cell, next(numbers)) for cell in row] for row in rows[1:]]
        lines = io.StringIO()
        csv.writer(lines).writerows([rows[0], *body])
        return lines.getvalue()

    told = study.ANSWERS[name](study.Tables(Run(0, tables=tables)))
    other = {key: moved(text) if key.startswith(name) else text for key, text in tables.items()}
    try:
        changed = study.ANSWERS[name](study.Tables(Run(0, tables=other)))
    except (LookupError, ValueError) as error:
        pytest.skip(f"a row is chosen by a measured number: {error}")
    numbers, left = (
        set(re.findall(r"[1-9]\d*\.\d+|0\.0*[1-9]\d+", text)) for text in (told, changed)
    )
    same = numbers & left
    assert same < numbers and len(same) <= max(3, len(numbers) // 4), same


def _moved(cell: str, k: int) -> str:
    """A measured number, of more than five digits, times 1.37, 1.371, ...; else as it was."""
    measured = re.fullmatch(r"-?[\d.]{7,}(e[+-]?\d+)?", cell)
    return repr(float(cell) * (1.37 + 1e-3 * (k % 97))) if measured else cell


def test_headlines_are_what_they_should_be(arrays: dict[str, np.ndarray]) -> None:
    """Exact and theoretical ones within 4.9 errors or 2 %, floors within 4.9."""
    held = arrays["of"] != study.NOTHING
    value, error, wanted = arrays["numbers"][held].T
    near = np.abs(value - wanted) < np.maximum(4.9 * error, 0.02 * wanted)
    assert near.all(), arrays["headline"][held][~near]
    assert len(value) >= 20
    assert np.isnan(arrays["numbers"][~held, 2]).all()
    assert np.isfinite(arrays["numbers"][:, 0]).all()
    assert np.isfinite(error).all()
    assert set(arrays["of"]) == set(study.LOOKS)
    assert set(arrays["headline study"]) == set(arrays["study"])


def test_what_tables_do_not_tell() -> None:
    """An error in full mode; said so in the quick one."""
    with pytest.raises(ArgumentError, match="tables of julia_ddpm must answer its question"):
        STUDY.compute(STUDY.config, Run(0))
    found = STUDY.compute(STUDY.quick, Run(0))
    assert all(answer.startswith("(Not told") for answer in found["answer"])
    text = "pace,faults\nslow,no fault\n"
    with pytest.raises(LookupError, match="ncsn has no row with"):
        study.Tables(Run(0, tables={"ncsn": text})).row("ncsn", pace="fast")
    for config in (STUDY.config, STUDY.quick):
        table = STUDY.table(config, {name: np.asarray(value) for name, value in found.items()})
        assert len(table[""]) == len(OTHERS)
        nothing: Any = STUDY.draw(
            config, {name: np.asarray(value) for name, value in found.items()}
        )
        assert [len(axes.texts) for axes in nothing.axes] == [1, 0]
    assert dataclasses.asdict(STUDY.quick) == {"strict": False}


def test_a_study_without_its_headline_has_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick tables may answer and lack a number, or the other way round."""

    def lacking(tables: Any) -> Any:
        raise LookupError
        yield

    for where, told in (("ANSWERS", lambda tables: "told"), ("NUMBERS", lacking)):
        monkeypatch.setitem(getattr(study, where), "ncsn", told)
        found = STUDY.compute(STUDY.quick, Run(0))
        assert len(found["answer"]) == len(found["study"]) == len(study.ANSWERS)
    assert found["answer"][found["study"].index("ncsn")].startswith("(Not told")


def test_tables_and_figure(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    page = STUDY.table(STUDY.config, arrays)
    assert page[""].columns.tolist() == ["study", "question", "answer", "headline numbers"]
    rows = page[""].set_index("study")["headline numbers"]
    for name, what, of in zip(arrays["headline study"], arrays["headline"], arrays["of"]):
        assert what in rows[name] and (of == study.NOTHING or f"({of}: " in rows[name])
    assert study.measured(0.12344, 0.02) == "0.1234 ± 0.02"
    assert study.measured(2.0, np.nan) == "2.000"
    assert len(page["headlines"]) == len(arrays["numbers"])
    figure: Any = STUDY.draw(STUDY.config, arrays)
    held = arrays["of"] != study.NOTHING
    value, _, wanted = arrays["numbers"].T
    for axes, some, unit in zip(figure.axes, (held, ~held), (wanted, np.ones(len(wanted)))):
        shown = np.concatenate([
            line.get_xdata() for line in axes.lines if line.get_linestyle() == "None"
        ])  # fmt: skip
        assert np.isin((value / unit)[some], shown).all()
        assert not np.isin((value / unit)[~some], shown).any()


def test_the_committed_page_and_the_readme(arrays: dict[str, np.ndarray]) -> None:
    """`python tests/readme.py` brings the README up; the page is that of the committed tables."""
    with (ROOT / "figures" / "summary.csv").open(encoding="utf-8") as file:
        assert [r["answer"] for r in csv.DictReader(file)] == arrays["answer"].tolist()
    readme = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "readme.py")))
    text = readme.README.read_text(encoding="utf-8")
    assert text == readme.written(text)
    assert readme.written(text.replace("published losses", "losses")) == text  # it does write
