"""The study langevin: its exact answers against independent ones, and that its verdicts can fail.

Langevin with the exact score must follow the exact law of X_t; steps twice as long, noise of half
the variance, and a score twice as large, must not.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import GaussianMixture, gallery, langevin, metrics, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "langevin.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.langevin"]

TINY = study.Config(
    particles=200, step=0.05, times=(0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), horizon=10.0, frames=3,
    drawn=50, cells=60, side=16, substep=0.25, starts=60, climb=80, ascent_step=0.2, pixels=12,
    steps=(0.4, 1.2), time=2.4, chains=100, groups=10, kernel=300, repeats=2, seed=3,
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
    coarse, fine = (study.relaxation([case], n)[0] for n in (100, 200))
    assert abs(fine[0] - 2) < 2e-3
    assert abs(coarse[0] - 2) / abs(fine[0] - 2) == pytest.approx(4, rel=0.05)
    assert np.isnan(fine[1])  # nothing relaxes from the law itself
    case = study.Case(study.close_law(), law, -10.0, 16.0, "", "")
    assert study.relaxation([case], 400)[0] == pytest.approx(2.03, abs=5e-3)


def test_shares_relax_with_the_slowest_time_that_the_start_excites() -> None:
    """A symmetric start does not make the outer modes of the plane unlike; one beside it does."""
    law, start = gallery.julia_trimodal(), study.normal(0.0, 1.0, 2)
    beside = GaussianMixture([1.0], [[0.5, 0.0]], np.ones((1, 2)))
    same = [study.Case(law, s, -8.0, 8.0, "", "") for s in (start, beside)]
    (slow, own), (again, other) = study.relaxation(same, 48)
    assert slow == again == other
    assert slow == pytest.approx(39.3, abs=0.5) and own == pytest.approx(6.7, abs=0.1)
    kept = np.array([0.0, 10.0, 20.0, 60.0, 80.0])
    for case, time, twin in zip(same, (own, other), (other, own), strict=True):
        off = study.plane(case, 48, kept, 0.1)["share"] - law.weights
        last = off[1:3] if time == own else off[3:]
        rate = np.log(last[0, 0] / last[1, 0]) / (10 if time == own else 20)
        assert 1 / rate == pytest.approx(time, rel=1e-2)
        assert 1 / rate != pytest.approx(twin, rel=0.5)


def test_lattice_and_finite_volumes_agree_on_a_product_law() -> None:
    """Its shares are those of one axis; the twin starts 5 % further out."""
    line = GaussianMixture([0.3, 0.7], [[-2.0], [2.0]], [[[1.0]], [[1.0]]])
    flat = GaussianMixture([0.3, 0.7], [[-2.0, 0.0], [2.0, 0.0]], np.ones((2, 2)))
    kept = np.array([0.0, 0.5, 2.0, 5.0])
    one = study.Case(line, study.normal(0.5, 1.0), -7.0, 7.0, "", "")
    shares = []
    for start in (0.5, 0.525):
        from_there = GaussianMixture([1.0], [[start, 0.0]], np.ones((1, 2)))
        two = study.Case(flat, from_there, -7.0, 7.0, "", "")
        shares.append(study.plane(two, 56, kept, 0.05)["share"])
    share = study.line(one, 300, kept, 0.01)["share"]
    np.testing.assert_allclose(shares[0], share, atol=2e-3)
    assert (np.abs(shares[1] - share).max(axis=1) > 2e-3).all()


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


def test_refusals_of_a_gaussian_grow_with_the_power_3_2_of_the_step() -> None:
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


KEPT = np.array([0.0, 0.2, 0.5, 1.0, 2.0, 5.0])


def worst(name: str) -> float:
    """The largest distance of the study's particle shares from the exact ones, over all times.

    In standard errors; 4000 particles, seed 7.
    """
    case, config = study.cases()[name], dataclasses.replace(TINY, particles=4000, step=0.0125)
    solve, n = (study.line, 400) if case.law.dim == 1 else (study.plane, 64)
    exact = solve(case, n, KEPT, 0.02)["share"]
    found = study.particles(config, case, KEPT, np.random.default_rng(7))["share"]
    value, error = found[..., 0], found[..., 1]
    return float(np.max(np.abs(value - exact) / error))


def altered(force: float, pace: float) -> Any:
    """`langevin.langevin` with its score and its step multiplied."""
    true = langevin.langevin
    return lambda s, x, n, g, *, step: true(lambda y: force * s(y), x, n, g, step=pace * step)


TWINS = {
    "twice as fast": (1.0, 2.0), "half the noise": (2.0, 0.5), "twice the score": (2.0, 1.0),
}  # fmt: skip


@pytest.mark.parametrize("name", ["note", "bimodal", "trimodal", "uniform"])
def test_particles_follow_the_exact_law(name: str) -> None:
    assert worst(name) < LIMIT


@pytest.mark.parametrize("twin", TWINS)
def test_wrong_particles_do_not(twin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(langevin, "langevin", altered(*TWINS[twin]))
    assert worst("trimodal") > LIMIT


def test_every_kept_time_of_the_study_follows(arrays: dict[str, np.ndarray]) -> None:
    """Seed 3. Early shares have a spread that a step of 0.05 and coarse cells are far below."""
    for name in study.cases():
        value, error = np.moveaxis(arrays[f"{name} particles share"], -1, 0)
        exact, grid = arrays[f"{name} exact exact"], arrays[f"{name} exact grid error"]
        assert (np.abs(value - exact) / np.hypot(error, grid) < LIMIT).all()


def test_the_note_s_run_from_its_stream() -> None:
    """Counts at its t = 10 against the exact ones; the twin, of the middle mode, at t = 20."""
    found = study.replay("trimodal", 20.0)
    case = study.cases()["trimodal"]
    exact = study.plane(case, 64, np.array([0.0, 5.0]), 0.05)["count"][1]
    error = np.sqrt(exact * (1 - exact) / study.NOTE_PARTICLES)
    assert found["count"][0].sum() == pytest.approx(1.0)
    assert (np.abs(found["count"][0] - exact) < LIMIT * error).all()
    assert abs(found["count"][1, 2] - exact[2]) > LIMIT * error[2]


def test_the_note_s_scheme_loses_mass(arrays: dict[str, np.ndarray]) -> None:
    """Its walls absorb: 2 % is gone where the exact law has lost 1e-3."""
    found = study.absorbed()
    first, last = arrays["absorbed exact"]
    assert found["time"] == pytest.approx(10.0, rel=5e-3)
    assert found["first"] == pytest.approx(first, abs=1e-4)
    assert found["mass"] < 0.98 < 0.999 < last < 1
    law, x = study.note_law(), np.array([[0.0], [10.0]])
    assert last == pytest.approx(float(np.diff(law.cdf(x))[0]), abs=2e-4)


def test_acceptance_is_that_of_the_kernel() -> None:
    """40 groups, seed 11, Student's limit at 1e-6; the twins: steps 5 % longer, and all the run.

    The start N(5, 1) is refused more often than the law, so the first half does not count.
    """
    from scipy import stats

    config = dataclasses.replace(TINY, chains=16000, groups=40, time=20.0)
    limit = float(stats.t.isf(5e-7, 39))
    h, law = 0.8, study.close_law()
    value, error = study.chains(config, h, True, np.random.default_rng(11))["accepted"]
    exact, longer = (study.kept_law(law, s, 700)["accepted"] for s in (h, 1.05 * h))
    assert abs(value - exact) < limit * error
    assert abs(value - longer) > limit * error
    start = study.normal(5.0, 1.0).sample(16000, 12)
    *_, (_, _, early) = langevin.mala(law.log_prob, law.score, start, 4, 13, step=h)
    assert abs(early - exact) > limit * error


def test_the_error_of_a_variance() -> None:
    """Of a normal: sqrt(2/n) v; seed 14, to 5 %, and not that of a mean."""
    x = 3 * np.random.default_rng(14).standard_normal(40_000)
    value, error = study.variance(x)
    assert value == pytest.approx(x.var())
    assert error == pytest.approx(9 * math.sqrt(2 / 40_000), rel=0.05)


def test_the_step_conventions_are_one(arrays: dict[str, np.ndarray]) -> None:
    off = arrays["conventions"][:, 2]
    assert off[0] == 0
    assert (off[1:3] < 1e-9).all()
    assert off[3] > 0.1
    big = dataclasses.replace(TINY, chains=4000)
    big = study.conventions(big, np.random.default_rng(5), 6)["rows"]
    z = (big[:, 0] - big[:, 3]) / big[:, 1]
    assert (np.abs(z) < LIMIT).all()
    assert abs(big[3, 0] - big[0, 3]) / big[3, 1] > LIMIT  # noise of step h is another law


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
    assert ascent.filter(like="of them within").to_numpy().max() <= 1
    relaxed = tables["relaxation"]
    assert (relaxed["slowest from this start"] <= relaxed["slowest time"]).all()
    assert len(tables["bias"]) == 2 * len(TINY.steps)
    bias = tables["bias"]
    np.testing.assert_allclose(
        bias["excess"], (bias["var/true - 1"] - bias["exact"]) / bias["error"]
    )
    unadjusted, adjusted = (
        bias[bias["method"] == m] for m in ("unadjusted", "Metropolis-adjusted")
    )
    assert adjusted.filter(like="accepted").notna().all(axis=None)
    assert unadjusted.filter(like="accepted").isna().all(axis=None)
    assert (unadjusted["exact"] > 0).all()
    assert unadjusted["exact"].is_monotonic_increasing
    assert len(tables["conventions"]) == len(study.STEP_RULES)


@pytest.mark.usefixtures("only_drawing")
def test_drawing(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, films and tables without a step of computing."""
    from PIL import Image

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("drawing computes")

    for module, name in itertools.chain(
        ((langevin, name) for name in ("ascent", "langevin", "mala")),
        [(metrics, "responsibilities"), (study, "relaxation"), (study, "kept_law")],
    ):
        monkeypatch.setattr(module, name, refuse)
    study.table(TINY, arrays)
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
        ("side", 40),
        ("chains", 1001),
        ("groups", 1),
        ("kernel", 300.5),
        ("time", 2.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
