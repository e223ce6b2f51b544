"""The study langevin: its exact answers against independent ones, and that its verdicts can fail.

Langevin with the exact score must follow the exact law of X_t; noise of half the variance, and a
score twice as large, must not.
"""

from __future__ import annotations

import dataclasses
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import GaussianMixture, gallery, langevin, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "langevin.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.langevin"]

TINY = study.Config(
    particles=200, step=0.05, times=(0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), horizon=10.0, frames=3,
    drawn=50, cells=60, side=16, substep=0.25, starts=60, climb=80, ascent_step=0.2, pixels=12,
    steps=(0.4, 1.2), time=2.0, chains=100, kernel=300, repeats=2, seed=3,
)  # fmt: skip
LIMIT = 4.9  # standard errors: a false-alarm rate of 1e-6


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


# ------------------------------------------------------------------ exact answers


def test_the_lattice_keeps_the_law_and_its_mass() -> None:
    law = gallery.julia_trimodal()
    points, Q, H = study.lattice(law, -8.0, 8.0, 24)
    p = np.exp(law.log_prob(points))
    np.testing.assert_allclose(Q @ p, 0.0, atol=1e-15)
    np.testing.assert_allclose(np.asarray(Q.sum(axis=0)), 0.0, atol=1e-12)
    assert abs(H - H.T).max() == 0


def test_the_relaxation_time_of_a_gaussian_is_its_variance() -> None:
    """Ornstein-Uhlenbeck: lambda_1 = 1/variance; the error falls with the square of the cells."""
    law = study.normal(0.0, 2.0)
    case = study.Case(law, law, -12.0, 12.0, "", "")
    coarse, fine = (abs(study.relaxation(case, n) - 2) for n in (100, 200))
    assert fine < 2e-3
    assert coarse / fine == pytest.approx(4, rel=0.05)


def test_lattice_and_finite_volumes_agree_on_the_plane_s_own_diagonal() -> None:
    """A product law: the share of its modes along one axis is that of the law on the line."""
    line = GaussianMixture([0.3, 0.7], [[-2.0], [2.0]], [[[1.0]], [[1.0]]])
    flat = GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], np.ones((2, 2)))
    kept = np.array([0.0, 0.5, 2.0, 5.0])
    one = study.Case(line, study.normal(0.5, 1.0), -7.0, 7.0, "", "")
    start = GaussianMixture([1.0], [[0.5, 0.0]], np.ones((1, 2)))
    two = study.Case(flat, start, -7.0, 7.0, "", "")
    share = study.line(one, 300, kept, 0.01)["share"]
    np.testing.assert_allclose(study.plane(two, 56, kept, 0.05)["share"], share, atol=2e-3)


def test_times_between_are_even_and_the_kept_ones_are_met() -> None:
    kept = np.array([0.0, 0.3, 10.0, 20.0])
    grid = study.grid_of(kept, 0.1)
    assert np.isclose(grid[:, None], kept).any(axis=0).all()
    assert np.diff(grid).max() == pytest.approx(1.0)
    assert np.diff(grid[grid <= 10]).max() < 0.1 + 1e-9


@pytest.mark.parametrize("h", [0.1, 0.5, 1.5])
def test_the_kernel_of_a_gaussian(h: float) -> None:
    """Its law is N(0, 1/(1 - h/2)); a variance 5 % off is not."""
    facts = study.kept_law(study.normal(0.0, 1.0), h, 500)
    true = 1 / (1 - h / 2) - 1
    assert facts["variance"] == pytest.approx(true, abs=1e-9)
    assert facts["variance"] != pytest.approx(1.05 * (1 + true) - 1, abs=1e-2)
    # W1 between two centred normals is the difference of their deviations times E|Z|.
    w1 = (math.sqrt(1 + true) - 1) * math.sqrt(2 / math.pi)
    assert facts["w1"] == pytest.approx(w1, rel=1e-3)


def test_a_kernel_too_coarse_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"kernel must be at least \d+ for the step 0.01"):
        study.kept_law(study.note_law(), 0.01, 200)


def test_acceptance_of_a_gaussian_falls_with_the_cube_of_the_step() -> None:
    lost = [1 - study.kept_law(study.normal(0.0, 1.0), h, 700)["accepted"] for h in (0.1, 0.2)]
    assert lost[1] / lost[0] == pytest.approx(2**1.5, rel=0.15)


def test_the_basins_of_the_line_are_cut_at_the_minimum() -> None:
    law = study.note_law()
    edge = study.basin_edge(law)
    x = np.array([[edge - 1e-2], [edge + 1e-2], [-4.0], [12.0]])
    mode, end = study.basins(law, x, 800, 0.1)
    assert mode.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(end, study.modes_of(law)[mode], atol=1e-9)
    assert (
        law.log_prob(np.array([[edge]]))
        < law.log_prob(np.array([[edge + 0.1], [edge - 0.1]])).min()
    )


# ------------------------------------------------------------------ particles


def worst(case: Any, score: Any, noise: float = 1.0) -> float:
    """The largest distance of a particle share from the exact one, in standard errors; seed 7."""
    kept, n, h = np.array([0.0, 0.5, 1.0, 2.0]), 6000, 0.01
    exact = study.line(case, 400, kept, 0.01)["share"][:, 0]
    generator = np.random.default_rng(7)
    x, found = case.start.sample(n, generator), []
    for k in range(201):
        if k:
            x = x + h * score(x) + noise * math.sqrt(2 * h) * generator.standard_normal(x.shape)
        if k in (0, 50, 100, 200):
            found.append(study.share(case.law, x)[0])
    value, error = np.array(found).T
    return float(np.max(np.abs(value - exact) / error))


def test_particles_follow_the_exact_law_and_wrong_ones_do_not() -> None:
    case = study.cases()["note"]
    assert worst(case, case.law.score) < LIMIT
    assert worst(case, case.law.score, math.sqrt(0.5)) > LIMIT
    assert worst(case, lambda x: 2 * case.law.score(x)) > LIMIT


def test_the_study_s_own_particles_follow_it_too(arrays: dict[str, np.ndarray]) -> None:
    """Seed 3. Early shares have a spread that a step of 0.05 and coarse cells are far below."""
    for name in study.cases():
        value, error = arrays[f"{name} particles share"][-1].T
        exact = arrays[f"{name} exact exact"][-1]
        grid = arrays[f"{name} exact grid error"][-1]
        assert (np.abs(value - exact) / np.hypot(error, grid) < LIMIT).all()


def test_the_note_s_run_from_its_stream() -> None:
    """Half of the 1024 particles lie nearest to the lightest mode at the note's t = 10."""
    found = study.replay("trimodal", 10.0)
    assert round(found["count"][0, 2] * 1024) == 513
    assert found["count"][0].sum() == pytest.approx(1.0)
    assert abs(found["count"][0, 2] - study.RECORDED[10.0]) < 0.005


def test_the_note_s_scheme_loses_mass() -> None:
    found = study.absorbed()
    assert found["time"] == pytest.approx(10.0, rel=5e-3)
    assert 0.97 < found["mass"] < 0.98 < 0.9999 < found["first"]


def test_the_step_conventions_are_one(arrays: dict[str, np.ndarray]) -> None:
    off = arrays["conventions"][:, 2]
    assert off[0] == 0
    assert (off[1:3] < 1e-9).all()
    assert off[3] > 0.1
    big = study.conventions(dataclasses.replace(TINY, chains=4000), 5)["rows"]
    z = (big[:, 0] - big[:, 3]) / big[:, 1]
    assert (np.abs(z) < LIMIT).all()
    assert abs(big[3, 0] - big[0, 3]) / big[3, 1] > LIMIT  # noise of step h is another law


def test_a_step_too_long_is_said() -> None:
    run = langevin.langevin(study.normal(0.0, 1.0).score, np.ones((4, 1)), 200, 0, step=2.5)
    with pytest.raises(ArgumentError, match="step must be small enough"):
        list(run)


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    parts = ["", "ascent", "relaxation", "note", "bias", "kernel", "conventions"]
    assert list(tables) == parts
    main = tables[""]
    assert np.isfinite(main.select_dtypes("number").to_numpy()).all()
    np.testing.assert_allclose(main["t of the note"], 2 * main["t"])
    spread = np.hypot(main["error"], main["grid error"])
    np.testing.assert_allclose(main["excess"], (main["share"] - main["exact share"]) / spread)
    ascent = tables["ascent"]
    assert (ascent.groupby(["law", "start"])["share"].sum().round(9) == 1).all()
    assert len(tables["bias"]) == 2 * len(TINY.steps)
    unadjusted = tables["bias"][tables["bias"]["method"] == "unadjusted"]
    assert (unadjusted["exact"] > 0).all()
    assert unadjusted["exact"].is_monotonic_increasing
    assert len(tables["conventions"]) == len(study.STEP_RULES)


def test_drawing(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and films without a step of computing."""
    from PIL import Image

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("drawing computes")

    for name in ("ascent", "langevin", "mala"):
        monkeypatch.setattr(langevin, name, refuse)
    figures = study.draw(TINY, arrays)
    assert list(figures) == ["", "ascent", "note", "evolution", "plane", "bias"]
    films = study.animate(TINY, arrays)
    for name, film in (("note", "note"), ("trimodal", "plane")):
        with Image.open(io.BytesIO(films[film])) as image:
            assert getattr(image, "n_frames", 1) == len(study.film_of(TINY, name))


def test_the_same_seed_gives_the_same_numbers() -> None:
    case, kept = study.cases()["trimodal"], np.array([0.0, 0.1])
    first, second, other = (
        study.particles(TINY, case, kept, Run(seed).generator("x"))["states"] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", 0.03),
        ("step", -0.05),
        ("substep", 0.0),
        ("times", (0.0, 1.0, 10.0)),
        ("times", (0.0, 5.0, 2.0)),
        ("times", (0.0, 0.101, 5.0, 100.0)),
        ("horizon", 11.0),
        ("steps", (0.5, 2.5)),
        ("particles", 1),
        ("cells", 15),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
