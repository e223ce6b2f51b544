"""The study time_reversal: closed forms, a Wbar that is Brownian, and wrong ones that are not.

With the score of the wrong sign, twice or half the score, the covariance of Wbar is another one and
knows of the end of the path; with a wrong area, sign or noise the way back leaves the path.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import EDM, VE, VP, Cosine, Process, runner, solvers
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "time_reversal.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.time_reversal"]

TINY = study.Config(
    paths=300, steps=16, few=10, many=40, most=200, kept=30, fine=32, counts=(8, 16),
    fresh_steps=8, drawn=10, frames=4, seed=3,
)  # fmt: skip
LIMIT = 4.9  # standard errors: a false-alarm rate of 1e-6
BEST, NOTE = study.BEST, study.NOTE


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


def final_variance(scheme: tuple[str, str, str], n: int, factor: float = 1.0) -> float:
    """The exact Var W_l(1) of n steps."""
    mesh, step, rule = scheme
    return float(study.covariance(study.mesh_of(mesh, n), step, rule, [n], factor)[0][0, 0])


# ------------------------------------------------------------------ closed forms


def test_the_squeezed_variances() -> None:
    """The note's 100 steps, 1600 of them, and 100 graded ones with exact increments."""
    assert final_variance(NOTE, 100) == pytest.approx(0.675, abs=0.003)
    assert final_variance(NOTE, 1600) == pytest.approx(0.954, abs=0.003)
    assert final_variance(BEST, 100) == pytest.approx(1.003, abs=0.003)


def test_the_note_s_variance_by_its_own_loops() -> None:
    """The sum of the note written out: X and V step by step, as a linear map of the numbers."""
    n, h = 20, 1 / 20
    X = V = W = np.zeros(n)
    for j in range(1, n + 1):
        z = math.sqrt(h) * np.eye(n)[j - 1]
        V = V - math.sqrt(2 * j * h) / (j * h) ** 2 * X * h
        X, W = X + math.sqrt(2 * (j - 1) * h) * z, W + z
    assert final_variance(NOTE, n) == pytest.approx(float(np.sum((W + V) ** 2)), rel=1e-12)


def test_the_deficit_is_18_log_n_over_n() -> None:
    """And 6 with the trapezium, 12 with exact increments; with both, or graded, none."""
    n = np.array([20_000, 80_000])
    for scheme, rate in (
        (NOTE, 18.0), (("uniform", "Euler", "trapezium"), 6.0),
        (("uniform", "exact", "note"), 12.0), (("uniform", "exact", "trapezium"), 0.0),
        (("graded", "Euler", "note"), 0.0), (BEST, 0.0),
    ):  # fmt: skip
        lost = n * [1 - final_variance(scheme, k) for k in n.tolist()]
        growth = (lost[1] - lost[0]) / math.log(4)
        assert growth == pytest.approx(rate, rel=0.02, abs=0.1), scheme


def test_the_covariance_of_many_steps_is_min() -> None:
    """And Cov(X, Wbar) is 0; of lambda, the closed forms; the wrong factors differ from 1."""
    n = 4000
    times, places = study.mesh_of("graded", n), [n // 4, n // 2, n]
    cov, with_x = study.covariance(times, "exact", "trapezium", places)
    t = times[places]
    np.testing.assert_allclose(cov, np.minimum(t[:, None], t), atol=2e-6)
    np.testing.assert_allclose(with_x, 0.0, atol=1e-6)
    for factor in (-1.0, 0.0, 0.5, 2.0):
        cov, with_x = study.covariance(times, "exact", "trapezium", [n], factor)
        variance, end, _ = study.of_factor(factor)
        assert cov[0, 0] == pytest.approx(variance, abs=1e-5)
        assert with_x[0] == pytest.approx(end, abs=1e-5)
        assert max(abs(variance - 1), abs(end)) > 0.4
    assert study.of_factor(1.0) == pytest.approx((1.0, 0.0, 0.25))


def test_a_place_before_the_end_has_the_covariance_of_its_own_end() -> None:
    """The first eight of sixteen steps are a run of eight steps, in law; time 0 has none."""
    times = study.mesh_of("uniform", 16)
    for step in study.INCREMENTS:
        for rule in study.RULES:
            cov, with_x = study.covariance(times, step, rule, [0, 8, 16])
            short, end = study.covariance(times[:9], step, rule, [8])
            assert cov[1, 1] == pytest.approx(short[0, 0])
            assert with_x[1] == pytest.approx(end[0])
            assert not cov[0].any() and not cov[:, 0].any()
            np.testing.assert_allclose(cov, cov.T, atol=1e-14)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_variance_with_fresh_noise(factor: float) -> None:
    """d Var/dt = 4 l Var/t - 2 t from 1 at t = 1, by an independent solver."""
    from scipy.integrate import solve_ivp

    run = solve_ivp(
        lambda t, v: 4 * factor * v / t - 2 * t, (1.0, study.HALF), [1.0], rtol=1e-10, atol=1e-12
    )
    assert study.of_factor(factor)[2] == pytest.approx(float(run.y[0, -1]), rel=1e-8)


@pytest.mark.parametrize("process", [VP(), EDM(T=1.0), VE(5.0), Cosine()], ids=lambda p: str(p))
def test_the_joint_law_of_a_step(process: Process) -> None:
    """Joined over two parts of a step it is that of the step; c has a closed form for EDM."""
    whole, halves = np.array([0.0, 0.04]), np.array([0.0, 0.015, 0.04])
    one, two = (study.cells(process, t, "exact") for t in (whole, halves))
    assert two.a.prod() == pytest.approx(one.a[0])
    assert two.a[1] ** 2 * two.b[0] + two.b[1] == pytest.approx(one.b[0])
    assert two.a[1] * two.c[0] + two.c[1] == pytest.approx(one.c[0], rel=1e-9)
    assert (one.b >= one.c**2 / one.h).all()
    if isinstance(process, EDM):
        assert one.c[0] == pytest.approx(math.sqrt(2) * 0.04**1.5 / 1.5, rel=1e-12)


# ------------------------------------------------------------------ sampling

STEPS, PATHS = 96, 4000


@functools.cache
def sample(name: str) -> tuple[np.ndarray, ...]:
    """(times, X, W, int g s dt) at the eight places of graded runs; seed 21."""
    n = STEPS
    times, places = study.mesh_of("graded", n), np.arange(n // 8, n + 1, n // 8)
    oracle, random = study.cases()[name], np.random.default_rng(21)
    return times[places], *study.recorded(
        oracle, times, PATHS, random, "exact", "trapezium", places
    )


def verdict(name: str, factor: float) -> tuple[float, float]:
    """The largest |z| of the covariances of W_l against min(s, t), and of Cov(X_1, W_l(t))."""
    t, X, W, S = sample(name)
    bar = W + factor * S
    cov, error = study.second_moments(bar, bar)
    with_x, with_x_error = study.second_moments(X[-1:], bar)
    z = (cov - np.minimum(t[:, None], t)) / error
    return float(np.abs(z).max()), float(np.abs(with_x / with_x_error).max())


@pytest.mark.parametrize("name", ["note", "bimodal"])
def test_wbar_is_a_brownian_motion_that_the_end_does_not_know(name: str) -> None:
    assert max(verdict(name, 1.0)) < LIMIT


@pytest.mark.parametrize("name", ["note", "bimodal"])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_wrong_ones_are_not(name: str, factor: float) -> None:
    """The score of the wrong sign, none, half and twice: W itself is one, but not independent."""
    cov, with_x = verdict(name, factor)
    assert with_x > LIMIT
    assert (cov > LIMIT) == (factor != 0)


@pytest.mark.parametrize("scheme", [NOTE, ("uniform", "exact", "note"), BEST], ids=str)
def test_sampled_variances_are_the_exact_ones(scheme: tuple[str, str, str]) -> None:
    """4000 paths of 40 steps, seed 22; the twin is the exact variance of twice the steps."""
    config = dataclasses.replace(TINY, paths=PATHS)
    found = study.squeezed(config, *scheme, 40, np.random.default_rng(22))
    value, error = found["variance"]
    assert abs(value - found["exact"]) < LIMIT * error
    assert found["exact"] == final_variance(scheme, 40)
    if scheme != BEST:
        assert abs(value - final_variance(scheme, 160)) > LIMIT * error


@pytest.mark.parametrize("factor", [0.0, 1.0, 2.0])
def test_fresh_noise_gives_the_law_for_one_factor(factor: float) -> None:
    """Seed 23; only lambda = 1 has the variance 1/4 of the forward path."""
    config = dataclasses.replace(TINY, paths=PATHS, fresh_steps=40)
    found = study.with_fresh_noise(config, factor, np.random.default_rng(23), 24)
    value, error = found["variance"]
    assert abs(value - study.of_factor(factor)[2]) < LIMIT * error
    assert (abs(value - 0.25) < LIMIT * error) == (factor == 1)


# ------------------------------------------------------------------ back


STEPS_BACK = 128


@functools.cache
def forward(name: str, mesh: str) -> Any:
    """60 paths; seed 25."""
    oracle, random = study.cases()[name], np.random.default_rng(25)
    times = study.mesh_of(mesh, STEPS_BACK)
    return study.Forward.of(oracle, times, 60, random, "exact", "area")


def far(name: str, mesh: str, noise: Any, stride: int, method: str = "euler") -> float:
    """The mean of the largest distance of a way back."""
    path = forward(name, mesh)
    back = study.way_back(study.cases()[name], path, noise, stride, method)
    return float(study.distance(path, back, stride)[0])


@pytest.mark.parametrize("name", ["note", "bimodal"])
@pytest.mark.parametrize("mesh", study.MESHES)
def test_the_way_back_is_the_path(name: str, mesh: str) -> None:
    """Of order one by Euler; with fresh noise, or the drift and noise of two lambdas, it is not."""
    path = forward(name, mesh)
    coarse, fine = (far(name, mesh, path.noise(), stride) for stride in (8, 2))
    assert 0.8 < math.log(coarse / fine) / math.log(4) < 1.25
    twins = [
        far(name, mesh, noise, 2)
        for noise in (7, path.noise(0.0), path.noise(-1.0), path.noise(2.0))
    ]
    assert min(twins) > 8 * fine


def test_srk_is_of_a_higher_order_with_the_areas_alone() -> None:
    """With areas of the wrong sign, and with a Wbar that does not know them, it is not."""
    oracle, times = study.cases()["note"], study.mesh_of("graded", STEPS_BACK)
    path, right = forward("note", "graded"), forward("note", "graded").noise()
    coarse, fine = (far("note", "graded", right, stride, "srk") for stride in (8, 2))
    assert math.log(coarse / fine) / math.log(4) > 1.4
    best = far("note", "graded", right, 1, "srk")
    assert far("note", "graded", dataclasses.replace(path, H=-path.H).noise(), 1, "srk") > 5 * best
    random = np.random.default_rng(25)
    blind = study.Forward.of(oracle, times, 60, random, "exact", "trapezium")
    back = study.way_back(oracle, blind, blind.noise(), 1, "srk")
    assert study.distance(blind, back, 1)[0] > 5 * best


def test_every_factor_leads_back() -> None:
    path, oracle = forward("note", "graded"), study.cases()["note"]
    for factor in (-1.0, 0.0, 0.5, 2.0):
        gaps = []
        for stride in (8, 2):
            back = study.way_back(oracle, path, path.noise(factor), stride, "euler", factor)
            gaps.append(study.distance(path, back, stride, study.HALF)[0])
        assert gaps[0] / gaps[1] > 2
        assert gaps[1] < 0.2


def test_the_solver_takes_the_note_s_steps() -> None:
    """X_(j-1) = X_j - 2 X_j h/t_j - g(t_j) (Wbar_j - Wbar_(j-1)), by the note's loop."""
    oracle, times = study.cases()["note"], study.mesh_of("uniform", 20)
    path = study.Forward.of(oracle, times, 12, np.random.default_rng(1), "Euler", "note")
    back = study.way_back(oracle, path, path.noise(), 1, "euler")
    x, h = path.X[-1], 1 / 20
    for j in range(20, 0, -1):
        t = times[j]
        x = x - 2 * x * h / t - math.sqrt(2 * t) * (path.W + path.S)[j - 1]
        np.testing.assert_allclose(back[j - 1], x, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "limit", "brownian", "covariance", "factor", "back"]
    main = tables[""]
    assert len(main) == len(study.SCHEMES) + 1
    np.testing.assert_allclose(
        main["z"], (main["measured"] - main["Var Wbar_1, exact"]) / main["error"]
    )
    assert (main["error"] > 0).all() and (main["z"].abs() < LIMIT).all()
    assert len(tables["covariance"]) == 4 * 8 * 9 / 2
    exact = tables["covariance"].set_index("case")["exact for the steps"]
    assert exact["note"].notna().all() and exact["bimodal"].isna().all()
    factor = tables["factor"].set_index("lambda")
    assert np.isfinite(factor.to_numpy()).all()
    assert factor.loc[1.0, "exact"] == 1 and factor.loc[1.0, "its exact"] == 0
    back = tables["back"]
    assert len(back) == 2 * 2 * 3 * len(TINY.counts) + 2
    assert (back["mean of the largest distance"] <= back["largest of all paths"]).all()


@pytest.mark.usefixtures("only_drawing")
def test_drawing(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from diffscience import plots

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("drawing computes")

    for module, names in ((solvers, ("ito", "reverse")), (study, ("walk", "covariance"))):
        for name in names:
            monkeypatch.setattr(module, name, refuse)
    study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "covariance", "factor", "back", "bimodal"]
        films = study.animate(TINY, arrays)
    assert list(films) == ["note", "bimodal"]
    for film in films.values():
        with Image.open(io.BytesIO(film)) as image:
            assert getattr(image, "n_frames", 1) == 2 * TINY.frames - 1


def test_the_same_seed_gives_the_same_numbers() -> None:
    config = dataclasses.replace(TINY, kept=12, counts=(8, 16))
    first, second, other = (
        study.retraced(config, "bimodal", "graded", Run(seed).generator("x"), seed)
        for seed in (3, 3, 4)
    )
    for key in first:
        assert np.array_equal(first[key], second[key])
        assert not np.array_equal(first[key], other[key])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("paths", 5),
        ("steps", 100),
        ("steps", 0),
        ("few", 2.5),
        ("many", 3),
        ("most", 1599),
        ("counts", (8, 24)),
        ("counts", (16, 8)),
        ("counts", (8,)),
        ("factors", (0.0, 2.0)),
        ("factors", (1.0, 0.0)),
        ("factors", (1.0, 9.0)),
        ("fresh_steps", 1),
        ("drawn", 3),
        ("frames", 3),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
