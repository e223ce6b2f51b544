"""The study forward_sde: its exact laws against independent ones, and that its verdicts can fail.

The law that `response` finds for a method must be that of its paths; the law of another process,
drift or noise must not.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import (
    VP,
    GaussianMixture,
    Process,
    SubVP,
    Transition,
    metrics,
    runner,
    solvers,
)
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "forward_sde.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.forward_sde"]

TINY = study.Config(
    particles=400, steps=12, kept=4, shown=(0.5, 1.0), cut=0.05, bins=20, drawn=3, counts=(6, 12),
    cuts=(0.2, 0.05), pixels=8, note_steps=8, seed=3,
)  # fmt: skip
LIMIT = 4.9  # standard errors: a false-alarm rate of 1e-6
PROCESSES: dict[str, Process] = study.processes()
RUNS = study.all_runs()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


def normal(mean: float, var: float) -> GaussianMixture:
    return GaussianMixture([1.0], [[mean]], [[[var]]])


# ------------------------------------------------------------------ the exact law of a method


@pytest.mark.parametrize("name", PROCESSES)
def test_the_law_of_euler_is_the_product_of_its_steps(name: str) -> None:
    """Each step sends X to (1 + f h) X + g sqrt(h) Z, a transition; all of them composed."""
    process = PROCESSES[name]
    times = study.mesh_of(process, "uniform", 10, 0.9 * process.T)
    law = Transition.identity()
    laws = [law]
    for s, t in zip(times[:-1].tolist(), times[1:].tolist()):
        f, g = process.drift(s), process.diffusion(s)
        law = law.then(Transition(1 + f * (t - s), g * g * (t - s)))
        laws.append(law)
    scale, var = study.response(process, times, "euler", [0, 4, 10])
    np.testing.assert_allclose(scale, [laws[k].scale for k in (0, 4, 10)], rtol=1e-12)
    np.testing.assert_allclose(var, [laws[k].var for k in (0, 4, 10)], rtol=1e-12)


@pytest.mark.parametrize("name", PROCESSES)
def test_methods_go_to_the_exact_law_at_their_orders(name: str) -> None:
    """Order 1 by Euler, 2 by SRK, on graded steps where it must be."""
    process = PROCESSES[name]
    mesh = "graded" if study.is_singular(process) else "uniform"
    end = study.end_of(process, 0.1)
    for method, order in (("euler", 1.0), ("srk", 2.0)):
        few, many = (
            study.off(process, study.mesh_of(process, mesh, n, end), method) for n in (40, 80)
        )
        found = np.log2(np.abs(few / many))
        assert found == pytest.approx(order, abs=0.25), method
        assert abs(many[0]) < 0.08 and many[1] < 0.02


def test_the_distance_of_two_laws() -> None:
    """sup |F - G| = 2 Phi(m/2) - 1 for N(0, 1) and N(m, 1), and at the crossing of densities."""
    from scipy.stats import norm

    for m in (0.01, 1.0, 5.0):
        exact = 2 * norm.cdf(m / 2) - 1
        assert study.apart(normal(0.0, 1.0), normal(m, 1.0)) == pytest.approx(exact, rel=1e-4)
    for s in (1.01, 3.0, 1e4):
        x = math.sqrt(2 * math.log(s) / (1 - 1 / s**2))
        exact = norm.cdf(x) - norm.cdf(x / s)
        assert study.apart(normal(0.0, 1.0), normal(0.0, s * s)) == pytest.approx(exact, rel=1e-4)
    assert study.apart(normal(2.0, 3.0), normal(2.0, 3.0)) == 0


@pytest.mark.parametrize("n", [200, 1000])
def test_the_floor_of_the_distance(n: int) -> None:
    """Of Kolmogorov's law for n points, by its tail function; 5 % more is not."""
    from scipy.stats import kstwo

    d = np.linspace(0, 2.5, 251) / math.sqrt(n)
    tail = kstwo.sf(d, n)
    mean = np.trapezoid(tail, d)
    spread = math.sqrt(2 * np.trapezoid(d * tail, d) - mean**2)
    found = study.floor(n)
    assert found == pytest.approx((mean, spread), rel=5e-3)
    assert found != pytest.approx((1.05 * mean, 1.05 * spread), rel=5e-3)


def test_steps_are_graded_where_f_is_infinite() -> None:
    """f h stays below what the mesh promises; uniform steps do not."""
    for name, process in PROCESSES.items():
        if not study.is_singular(process):
            assert study.runs_of(process) == [("euler", "uniform"), ("srk", "uniform")]
            continue
        end, bound = 0.99, 2 * math.log(1 / process.alpha(0.99)) / 100
        graded, even = (study.mesh_of(process, mesh, 100, end) for mesh in ("graded", "uniform"))
        for times in (graded, even):
            assert times[0] == 0 and times[-1] == end and (np.diff(times) > 0).all()
        assert (np.diff(np.log(process.alpha(graded))) > -1.0001 * bound).all(), name
        assert not (np.diff(np.log(process.alpha(even))) > -bound).all()
        assert np.diff(graded).max() <= 2.0001 * end / 100


# ------------------------------------------------------------------ paths


@functools.cache
def rows(name: str, method: str, mesh: str) -> dict[str, np.ndarray]:
    """What 3000 paths in 12 steps say; seed 31."""
    config = dataclasses.replace(TINY, particles=3000)
    generator = np.random.default_rng(31)
    facts = study.simulate(config, PROCESSES[name], method, mesh, generator, 32)
    return {key: np.asarray(value) for key, value in facts.items()}


@pytest.mark.parametrize("run", RUNS, ids=lambda run: "-".join(run))
def test_paths_have_the_law_of_their_method(run: tuple[str, str, str]) -> None:
    mean, mean_error, var, var_error, *_, own_mean, own = rows(*run)["rows"].T
    assert (np.abs(mean - own_mean) < LIMIT * mean_error).all()
    assert (np.abs(var - own) < LIMIT * var_error).all()


@pytest.mark.parametrize("name", PROCESSES)
def test_the_best_paths_have_the_exact_law(name: str) -> None:
    """SRK at all times but the last, where twelve steps are too few; KS at 1e-6."""
    found = rows(name, *study.runs_of(PROCESSES[name])[-1])
    mean, mean_error, var, var_error, exact_mean, exact, *_ = found["rows"][:-1].T
    assert (np.abs(mean - exact_mean) < LIMIT * mean_error).all()
    assert (np.abs(var - exact) < LIMIT * var_error).all()
    assert (found["ks"][:-1, 3] > 1e-6).all()


def test_the_verdict_fails_where_it_should() -> None:
    """Coarse Euler of a steep process; and SRK against another process."""
    for run in (("VE geometric", "euler", "uniform"), ("cosine", "euler", "uniform")):
        _, _, var, error, _, exact, _, _ = rows(*run)["rows"][-1]
        assert abs(var - exact) > LIMIT * error
    found, law = rows("VP", "srk", "uniform"), study.law_of_data()
    mean, mean_error, var, var_error, *_ = found["rows"][:-1].T
    for process, holds in ((VP(), True), (SubVP(), False), (VP(0.1, 10.0), False)):
        exact = [study.moments(law.diffuse(process.at(t))) for t in found["times"][:-1].tolist()]
        z = (np.stack([mean, var]) - np.transpose(exact)) / np.stack([mean_error, var_error])
        assert (np.abs(z).max() < LIMIT) == holds


def test_the_error_of_a_variance() -> None:
    """Of a normal: sqrt(2/n) v; seed 14, to 5 %."""
    x = 3 * np.random.default_rng(14).standard_normal(40_000)
    value, error = study.variance(x)
    assert value == pytest.approx(x.var(ddof=1))
    assert error == pytest.approx(9 * math.sqrt(2 / 40_000), rel=0.05)


# ------------------------------------------------------------------ the note


def test_the_right_recipe_and_what_the_others_are() -> None:
    """The variance in the place of the deviation is sub-VP; t^4 ends where t^2 does."""
    for t in (0.0, 0.2, 0.7, 1.0):
        for process, faults in ((VP(), ()), (SubVP(), ("variance as std",))):
            found, exact = study.recipe(t, faults), process.at(t)
            assert (found.scale, found.var) == pytest.approx((exact.scale, exact.var))
    end, late = study.recipe(1.0, ("t^4",)), study.recipe(0.5, ("t^4",))
    assert (end.scale, end.var) == pytest.approx((VP().alpha(1.0), VP().var(1.0)))
    assert late.var < 0.6 * VP().var(0.5)


@pytest.mark.parametrize("faults", [(), ("drift sign",), ("t^4",), ("drift sign", "t^4")], ids=str)
def test_a_recipe_is_the_law_of_its_sde(faults: tuple[str, ...]) -> None:
    """m' = -+ beta/2 m and v' = -+ beta v + beta from (1, 0), by an independent solver."""
    from scipy.integrate import solve_ivp

    sign = 1.0 if "drift sign" in faults else -1.0

    def slope(t: float, y: np.ndarray) -> list[float]:
        beta = study.clock(t, faults)
        return [0.5 * sign * beta * y[0], sign * beta * y[1] + beta]

    run = solve_ivp(slope, (0.0, 0.8), [1.0, 0.0], rtol=1e-10, atol=1e-12)
    found = study.recipe(0.8, faults)
    np.testing.assert_allclose([found.scale, found.var], run.y[:, -1], rtol=1e-7)


def test_the_note_s_points_tell_its_recipes_apart() -> None:
    """1024 points have the law of their recipe, and not the right one, where the two are apart."""
    config = dataclasses.replace(TINY, note_steps=48, note_times=(0.25, 0.5))
    found = study.note(config, 8, np.random.default_rng(9))
    for name in study.RECIPES:
        apart, own, right = found[f"{name} rows"][:, [2, 8, 11]].T
        assert (own > 1e-6).all()
        assert ((right < 1e-6) == (apart > 0.1)).all()


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "end", "steps", "cut", "note"]
    main = tables[""]
    assert len(main) == len(RUNS) * len(TINY.shown)
    assert np.isfinite(main.select_dtypes("number").to_numpy()).all()
    spread = main["variance error"]
    np.testing.assert_allclose(
        main["z of the variance"], (main["variance"] - main["exact variance"]) / spread
    )
    assert (main["z to the method's variance"].abs() < LIMIT).all()
    assert len(tables["end"]) == len(RUNS)
    assert (tables["end"]["evaluations"] >= TINY.steps).all()
    assert len(tables["steps"]) == len(RUNS) * len(TINY.counts)
    assert len(tables["cut"]) == 8 * len(TINY.cuts)
    note = tables["note"].set_index("recipe")
    assert (note.loc["right", "KS to the right law, exact"] == 0).all()
    assert (note.loc["drift sign", "KS to the right law, exact"] > 0.2).all()


@pytest.mark.usefixtures("only_drawing")
def test_drawing(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("drawing computes")

    for module, name in ((solvers, "forward"), (solvers, "ito"), (metrics, "ks")):
        monkeypatch.setattr(module, name, refuse)
    for name in ("response", "apart", "density", "law_of_data"):
        monkeypatch.setattr(study, name, refuse)
    study.table(TINY, arrays)
    figures = study.draw(TINY, arrays)
    assert list(figures) == ["", "histograms", "moments", "ks", "steps", "cut", "note"]


def test_the_same_seed_gives_the_same_numbers() -> None:
    process = PROCESSES["VP"]
    first, second, other = (
        study.simulate(TINY, process, "srk", "uniform", Run(seed).generator("x"), seed)
        for seed in (3, 3, 4)
    )
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["rows"], other["rows"])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("particles", 1),
        ("steps", 2.5),
        ("kept", 30),
        ("shown", ()),
        ("shown", (0.51,)),
        ("shown", (0.0, 1.0)),
        ("cut", 0.0),
        ("cut", 1.0),
        ("cuts", (0.1, 1.0)),
        ("cuts", (0.0,)),
        ("counts", (10,)),
        ("counts", (20, 10)),
        ("counts", (1, 10)),
        ("note_times", (0.333,)),
        ("note_times", (1.5,)),
        ("drawn", 0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
