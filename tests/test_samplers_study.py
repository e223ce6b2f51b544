"""The study samplers: equal budgets, twins that are twins, a distance that is one, fair verdicts.

Statistical limits are false-alarm rates of 1e-6 (|z| < 4.9); seeds are stated.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import (
    VP,
    GaussianMixture,
    Network,
    Oracle,
    distances,
    gallery,
    grids,
    metrics,
    nets,
    runner,
    samplers,
)  # fmt: skip
from diffscience import train as training
from diffscience.errors import ArgumentError
from diffscience.estimates import mean_and_error
from diffscience.study import Run

STUDY, _ = runner.load(Path(__file__).parents[1] / "studies" / "samplers.py")
study: Any = sys.modules["diffscience_studies.samplers"]

TINY = study.Config(
    targets=("julia_bimodal", "two_moons"), budgets=(4, 8, 12), seeds=3, points=30,
    directions=6, reference=16, floors=6, train_steps=6, batch=16, width=8, shown="two_moons",
    shown_budgets=(8,), seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def line(points: int, seeds: int) -> Any:
    """A config on the line alone."""
    return dataclasses.replace(TINY, points=points, seeds=seeds)


# ------------------------------------------------------------------ samplers and budgets


def test_every_sampler_is_run_or_the_twin_of_one() -> None:
    assert not set(study.NAMES) & set(study.TWINS)
    assert {*study.NAMES, *study.TWINS} == set(samplers.ALL)
    assert {*study.FLOWS, *study.NOISY} == set(study.NAMES)
    for name in study.NAMES:
        assert samplers.ALL[name].random == (name in study.NOISY) == (name not in study.FLOWS)
        assert name in study.WORDS


@pytest.mark.parametrize(("twin", "name"), study.TWINS.items())
def test_twins_are_the_same_to_rounding(twin: str, name: str) -> None:
    """1e-9 relative, on the same noise; Euler's of the same kind are not."""
    model, run = Oracle(gallery.julia_bimodal(), VP()), Run(1)
    start = study.starts(line(50, 3), "julia_bimodal", run)

    def end(name: str) -> np.ndarray:
        return np.asarray(study.sampled(model, name, 6, start, run, "julia_bimodal")[0])

    np.testing.assert_allclose(end(twin), end(name), rtol=1e-9, atol=1e-9)
    other = "euler_maruyama" if samplers.ALL[twin].random else "euler"
    assert np.abs(end(other) - end(name)).max() > 1e-2


@pytest.mark.parametrize("name", study.NAMES)
def test_a_budget_buys_the_most_steps_that_it_can(name: str) -> None:
    model, run = Oracle(gallery.julia_bimodal(), VP()), Run(1)
    start = study.starts(line(10, 2), "julia_bimodal", run)
    for budget in (3, 4, 8, 11):
        steps = study.steps_of(name, budget)
        calls = study.sampled(model, name, budget, start, run, "julia_bimodal")[1]
        assert calls == study.calls_of(name, steps) <= budget
        assert study.calls_of(name, steps + 1) > budget
        nominal = samplers.ALL[name].evaluations * steps
        assert abs(calls - nominal) <= 1


def test_the_calls_of_the_arrays(arrays: dict[str, np.ndarray]) -> None:
    assert len(study.cases(TINY, arrays)) == 4
    budgets = np.array(TINY.budgets)
    for calls in arrays["calls"]:
        assert np.all((budgets - 1 <= calls) & (calls <= budgets))
    assert np.all(arrays["error"] > 0)
    for target, score, i in study.cases(TINY, arrays):  # with the exact score nothing is exchanged
        same = np.array_equal(arrays["first"][i], arrays["error"][i, :, 0])
        assert same == (score == "exact"), (target, score)


def test_moons_are_the_two_moons() -> None:
    """log p to 1e-9 at 500 points of it, and the moments; with 40 nodes they are others. Seed 1."""
    law, x = gallery.two_moons(), gallery.two_moons().sample(500, 1)
    exact = law.log_prob(x)
    np.testing.assert_allclose(study.moons().log_prob(x), exact, atol=1e-9)
    np.testing.assert_allclose(study.moons().score(x), law.score(x), atol=1e-7)
    np.testing.assert_allclose(study.moons().cov, law.cov, atol=1e-12)
    assert np.abs(study.moons(40).log_prob(x) - exact).max() > 1e-6


# ------------------------------------------------------------------ the distance


def test_on_the_line_it_is_the_exact_distance() -> None:
    """`metrics.wasserstein_1` within 1e-3 of it, 400 points; points 1 % wider are not. Seed 2."""
    config, law = line(400, 2), gallery.julia_bimodal()
    yardstick = study.Yardstick.of(config, "julia_bimodal", Run(1))
    for x in (law.sample(400, 2), law.sample(400, 2) + 0.3):
        exact = metrics.wasserstein(x, law, 0, 1, repeats=0).value
        assert yardstick.distance(x) == pytest.approx(exact, rel=1e-3)
        assert yardstick.distance(1.01 * x) != pytest.approx(exact, rel=1e-3)


def test_in_the_plane_it_is_the_sliced_distance() -> None:
    """Of the sample, each point 8 times, from the reference of as many points: to rounding."""
    config = dataclasses.replace(TINY, reference=study.QUANTILES)
    yardstick = study.Yardstick.of(config, "two_moons", Run(1))
    generator, law = Run(1).generator("two_moons", "reference"), study.moons()
    directions = distances.unit_directions(2, config.directions, generator)
    true = law.sample(30 * study.QUANTILES, generator)
    x = law.sample(60, 2).reshape(2, 30, 2)
    for own, found in zip(x, yardstick.distance(x)):
        many = np.repeat(own, study.QUANTILES, axis=0)
        assert found == pytest.approx(distances.sliced_between(many, true, directions, 1)[0])
        assert found != pytest.approx(distances.sliced_between(many, true, directions, 2)[0])


def test_a_shift_is_seen_in_full() -> None:
    """In the plane a shift by d costs 2 d/pi on average over directions: 2 % at d = 50. Seed 3."""
    config = dataclasses.replace(TINY, directions=64)
    yardstick = study.Yardstick.of(config, "two_moons", Run(1))
    x = gallery.two_moons().sample(30, 3) + np.array([30.0, 40.0])
    assert yardstick.distance(x) == pytest.approx(100 / math.pi, rel=0.02)


# ------------------------------------------------------------------ runs


def test_starts_are_of_the_exact_prior_and_every_seed_has_its_own() -> None:
    """Mean and variance of 3 x 4000 points of p_T, |z| < 4.9; the data have others. Seed 1."""
    law = Oracle(gallery.julia_bimodal(), VP()).at(1.0)
    x = study.starts(line(4000, 3), "julia_bimodal", Run(1))
    mean, var = float(law.mean[0]), float(law.cov[0, 0])
    assert abs(x.mean() - mean) < 4.9 * math.sqrt(var / x.size)
    assert abs(x.var() - var) < 4.9 * var * math.sqrt(2 / x.size)
    assert not np.array_equal(x[0], x[1])
    assert abs(x.var() - float(gallery.julia_bimodal().cov[0, 0])) > 1


def test_better_samplers_are_better() -> None:
    """8 evaluations with the exact score on the line: 2M, then DDIM, then ancestral; paired, 4.9
    errors of 24 seeds each. With their names changed round it fails. Seed 1.
    """
    config, run = line(500, 24), Run(1)
    model = Oracle(gallery.julia_bimodal(), VP())
    yardstick = study.Yardstick.of(config, "julia_bimodal", run)
    start = study.starts(config, "julia_bimodal", run)
    found = [
        yardstick.distance(study.sampled(model, name, 8, start, run, "julia_bimodal")[0])
        for name in ("dpm_2m", "ddim", "ancestral")
    ]
    for better, worse in zip(found[:-1], found[1:]):
        mean, error = mean_and_error(worse - better)
        assert mean > 4.9 * error


def test_the_first_step_is_of_another_model() -> None:
    """The end is that of a run in two parts, and no run of one model; the model itself in its own
    first step changes nothing. Seed 1.
    """
    run, process = Run(1), VP()
    other = GaussianMixture([1.0], [[0.5]], [[[2.0]]])
    good, bad = Oracle(gallery.julia_bimodal(), process), Oracle(other, process)
    start = study.starts(line(50, 3), "julia_bimodal", run)
    for name in ("dpm_2m", "heun", "ancestral"):

        def end(model: Any, first: Any = None, name: str = name) -> np.ndarray:
            return np.asarray(study.sampled(model, name, 6, start, run, "julia_bimodal", first)[0])

        np.testing.assert_array_equal(end(good, good), end(good))
        ends = [end(good), end(good, bad), end(bad, good), end(bad)]
        for a, b in itertools.combinations(ends, 2):
            assert np.abs(a - b).max() > 1e-3
        times = grids.log_snr(process, study.steps_of(name, 6))
        if name != "dpm_2m":  # it remembers
            noise = run.generator("julia_bimodal", "noise", 6)
            half = samplers.last(samplers.ALL[name].run(bad, start, times[:2], noise))
            rest = samplers.last(samplers.ALL[name].run(good, half, times[1:], noise))
            np.testing.assert_allclose(rest, ends[1], rtol=1e-12)


class Shifted(Oracle):
    """Off by 0.3 in each coordinate of x0."""

    def x0(self, x: Any, t: Any) -> Any:
        return super().x0(x, t) + 0.3


def test_how_far_a_model_is_off() -> None:
    """0.3 sqrt(2) at every time for one off by 0.3 in x0 in the plane, and 0 for the exact one."""
    exact = Oracle(study.moons(), VP())
    found = study.off(TINY, Shifted(exact.law, VP()), exact, Run(1), "two_moons")
    assert found.shape == (TINY.budgets[0], TINY.seeds)
    np.testing.assert_allclose(found, 0.3 * math.sqrt(2), rtol=1e-12)
    assert not study.off(TINY, exact, exact, Run(1), "two_moons").any()


def test_all_networks_are_sampled_as_each_alone() -> None:
    """Member 1 trained and run by itself gives row 1 of the ensemble, to float32; row 0 it is not.

    The seeds of weights and training are those of the study.
    """
    run, law = Run(5), study.moons()
    model = study.learned(TINY, "two_moons", run)
    start = study.starts(TINY, "two_moons", run)
    together = study.sampled(model, "dpm_2m", 8, start, run, "two_moons")[0]
    net = nets.MLP(2, (TINY.width,) * 2, seed=run.seed_for("two_moons", "weights", 1))
    alone = Network(net, VP())
    history = training.train(
        alone, law, steps=TINY.train_steps, seed=run.seed_for("two_moons", "training", 1),
        batch=TINY.batch, rate=TINY.rate, final_rate=TINY.final_rate, ema=TINY.ema,
    )  # fmt: skip
    training.averaged(net, history)
    end = study.sampled(alone, "dpm_2m", 8, start[1], run, "two_moons")[0]
    scale = np.abs(end).max()
    np.testing.assert_allclose(together[1], end, atol=1e-3 * scale)
    other = study.sampled(alone, "dpm_2m", 8, start[0], run, "two_moons")[0]
    assert np.abs(together[0] - other).max() > 1e-2 * scale


def test_the_same_seed_gives_the_same_bytes(arrays: dict[str, np.ndarray]) -> None:
    again = study.case(TINY, Run(TINY.seed), "two_moons", "exact")
    other = study.case(TINY, Run(4), "two_moons", "exact")
    [i] = [i for target, score, i in study.cases(TINY, arrays)
           if (target, score) == ("two_moons", "exact")]  # fmt: skip
    for key, value in again.items():
        assert np.asarray(value).tobytes() == arrays[key][i].tobytes()
    assert not np.array_equal(other["floor"], again["floor"])
    errors = again["error"][:, 0]
    assert not np.any(errors[:, 0] == errors[:, 1])


# ------------------------------------------------------------------ verdicts


FLOOR = np.array([0.1, 0.11, 0.12, 0.09, 0.08])


def test_students_t() -> None:
    assert study.sure(8) == pytest.approx(3.4995, abs=1e-4)
    assert study.sure(2) == pytest.approx(63.657, abs=1e-3)


def test_differences_are_taken_seed_by_seed() -> None:
    """A lead of 0.02 in each seed is seen under a common spread of 0.3; unpaired it is not."""
    common = 1 + 0.3 * np.random.default_rng(1).standard_normal(8)
    own = 0.002 * np.random.default_rng(2).standard_normal((3, 8))
    error = common + own + np.array([[0.02], [0.0], [0.5]])
    rank = study.Ranking.of(error, FLOOR)
    assert rank.order.tolist() == [1, 0, 2]
    assert rank.tied.tolist() == rank.close.tolist() == [False, True, False]
    assert rank.behind[0] == pytest.approx(0.02, abs=0.005)
    unpaired = np.stack([np.roll(row, k) for k, row in enumerate(error)])
    assert study.Ranking.of(unpaired, FLOOR).tied[0]


def test_close_is_within_two_errors() -> None:
    """Behind by 1.9 and by 2.1 errors of its own; both tie, since t is 3.5 for 8 seeds."""
    noise = np.array([1.0, -1.0] * 4)  # of mean 0
    error = 0.01 * float(mean_and_error(noise)[1])
    found = [5 + 0 * noise, *(5 + times * error + 0.01 * noise for times in (1.9, 2.1, 4.0))]
    rank = study.Ranking.of(np.stack(found), FLOOR)
    assert rank.close.tolist() == [True, True, False, False]
    assert rank.tied.tolist() == [True, True, True, False]


def test_what_is_the_same_ties() -> None:
    """2000 null pairs, seed 3: apart in 1 %, within 4.9 binomial errors; at half of t in more."""
    draws = np.random.default_rng(3).standard_normal((2000, 2, 8)) + 10
    apart = sum(not study.Ranking.of(pair, FLOOR).tied.all() for pair in draws)
    limit = 4.9 * math.sqrt(2000 * 0.01 * 0.99)
    assert abs(apart - 20) < limit
    mean, error = mean_and_error(draws[:, 0] - draws[:, 1], axis=1)
    assert np.sum(np.abs(mean) > 0.5 * study.sure(8) * error) > 20 + limit


def test_of_many_the_same_more_are_apart_from_the_picked_best() -> None:
    """4 % of 15, within 4.9 binomial errors of 1,000 columns: 3.6 % of 28,000 others. Seed 3."""
    draws = np.random.default_rng(3).standard_normal((2000, 15, 8)) + 10
    apart = np.mean([np.sum(~study.Ranking.of(rows, FLOOR).tied) for rows in draws]) / 14
    assert apart == pytest.approx(0.036, abs=4.9 * math.sqrt(0.036 * 0.964 / 14_000))


def test_the_floor_has_an_error_too() -> None:
    error, floor = np.array([4.0, 6.0]), np.array([1.0, 1.0, 4.0])
    value, doubt = study.in_floors(error, floor)
    assert value == 2.5
    assert doubt == pytest.approx(math.hypot(1.0 / 5, 1.0 / 2) * 2.5)
    assert study.in_floors(error, np.ones(3))[1] == pytest.approx(1.0)


def test_two_at_the_floor_tie_and_chance_takes_nothing_there() -> None:
    """Small leads at the floor are none; one far off with a large error is not at the floor."""
    near = np.full(8, 0.1) + 1e-4 * np.arange(8)
    error = np.stack([near, near + 0.003, np.geomspace(0.1, 100, 8)])
    rank = study.Ranking.of(error, FLOOR)
    assert rank.floored.tolist() == [True, True, False]
    assert rank.tied[:2].all()
    assert rank.even.tolist() == [True, False, True]
    above = study.Ranking.of(error + 0.2, FLOOR)
    assert not above.floored.any()
    assert above.tied.tolist() == [True, False, True]


def test_true_samples_are_at_the_floor() -> None:
    """Of 4000 means of 8 true errors 0.13 % are beyond 3 spreads; moved by 4, most. Seed 4."""
    rng = np.random.default_rng(4)
    floor = rng.standard_normal(4000) + 9
    error = rng.standard_normal((4000, 8)) + 9
    beyond = np.sum(study.excess(study.estimate(error, floor)) >= study.NEAR)
    assert beyond < 5.4 + 4.9 * math.sqrt(5.4) + 5  # 5: the mean of the floor is itself drawn
    moved = study.excess(study.estimate(error + 4 / math.sqrt(8), floor)) >= study.NEAR
    assert moved.mean() > 0.8


def test_the_first_budget_at_the_floor() -> None:
    """From it on all are there: one that leaves it again does not count before."""
    error = np.full((1, 3, 3, 4), 0.1)
    error[0, 0, 0] = error[0, 1, 1] = error[0, 2, 2] = 5.0
    made = {"error": error, "floor": FLOOR[None]}
    assert study.first_at_floor(TINY, made, 0, 0) == 8
    assert study.first_at_floor(TINY, made, 0, 1) == 12
    assert math.isnan(study.first_at_floor(TINY, made, 0, 2))


def test_verdicts_in_words() -> None:
    far = np.linspace(1, 3, len(study.NAMES))[:, None] + np.zeros(4)
    assert study.verdict(study.Ranking.of(far, FLOOR)) == "ahead"
    assert study.verdict(study.Ranking.of(0 * far + 1, FLOOR)).startswith("tie with ")
    low = study.Ranking.of(0 * far + 0.1, FLOOR)
    assert study.verdict(low) == "tie at the floor with exponential_ode, ddim, heun and 11 more"


# ------------------------------------------------------------------ tables and figures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "ties", "wins", "floor", "first", "off", "all", "cells"]
    assert len(tables["first"]) == 2 * len(study.NAMES)
    assert len(tables["off"]) == 2 * TINY.budgets[0]
    same = tables["first"]["exact score"] == tables["first"]["learned score"]
    assert not same.any()
    columns, n = 2 * 2 * 3, len(study.NAMES)
    assert len(tables[""]) == columns
    assert len(tables["all"]) == columns * n
    assert len(tables["cells"]) == columns * n * TINY.seeds
    assert len(tables["floor"]) == n
    wins = tables["wins"]
    assert len(wins) == 2 * n
    assert set(wins["of"]) == {6}
    assert wins["best or tied"].sum() == tables["all"]["tied with the best"].sum()
    close = "within 2 errors of the best"
    assert wins["within 2 errors"].sum() == tables["all"][close].sum()
    most = study.favourite(TINY, arrays)
    both = wins.groupby("sampler")["best or tied"].sum()
    assert (most["best or tied"], most["of"]) == (both.max(), columns)
    assert both[most.name] == both.max()
    assert wins["ahead of all"].sum() == tables[""]["verdict"].str.startswith("ahead").sum()
    every, cells = tables["all"], tables["cells"]
    means = cells.groupby(["target", "score", "evaluations", "sampler"])["W1"].mean()
    for _, row in every.iterrows():
        key = (row["target"], row["score"], row["evaluations"], row["sampler"])
        assert row["W1"] == pytest.approx(means[key], rel=1e-12)
    for (_, row), (_, ties) in zip(tables[""].iterrows(), tables["ties"].iterrows()):
        same = every[(every["target"] == row["target"]) & (every["score"] == row["score"])]
        same = same[same["evaluations"] == row["evaluations"]]
        assert row["W1"] == same["W1"].min()
        assert row["best"] == same.loc[same["W1"].idxmin(), "sampler"]
        assert row["lead"] == pytest.approx(np.sort(same["W1"])[1] - row["W1"])
        assert row["verdict"].startswith("ahead") == (same["tied with the best"].sum() == 1)
        assert same["tied with the best"].iloc[0]
        names = ties[close].split(", ")
        assert names == same["sampler"][same[close]].tolist()
        assert len(names) == row["within 2 errors"]
        assert names[0] == row["best"]
        rest = same["sampler"][same["tied with the best"] & ~same[close]].tolist()
        assert ties["also tied with it"] == ", ".join(rest)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "exact", "learned", "samples"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("rolls",)),
        ("shown", "grid"),
        ("shown", "julia_bimodal"),
        ("budgets", (2, 4)),
        ("budgets", (8, 4)),
        ("budgets", (4.5,)),
        ("shown_budgets", (16,)),
        ("shown_budgets", ()),
        ("seeds", 1),
        ("points", 5),
        ("reference", 4),
        ("floors", 1),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("ema", 1.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})
