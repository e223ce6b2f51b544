"""The study memorisation: what is measured of exact models is known, and so are its criteria.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import gallery, metrics, nets, runner, train
from diffscience.errors import ArgumentError
from diffscience.models import Model
from diffscience.network import Network
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "memorisation.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.memorisation"]

TINY = study.Config(
    target="julia_trimodal", points=(4, 32), widths=(4, 8), seeds=2, train_steps=4, batch=8,
    steps=8, levels=(1, 3, 5, 7), draws=64, samples=24, floors=2, seed=3,
)  # fmt: skip
LAW = gallery.julia_trimodal()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def yardstick(config: Any, seed: int) -> Any:
    """The points all models are held against, from a seed."""
    return study.yardstick(config, Run(seed), 0)


class Between(Model):
    """(1 - way) of the first model's eps, way of the other's, times a factor."""

    def __init__(self, one: Model, other: Model, way: float, factor: float = 1.0) -> None:
        self.process = one.process
        self.one, self.other, self.way, self.factor = one, other, way, factor

    def eps(self, x: Any, t: Any) -> Any:
        mixed = (1 - self.way) * self.one.eps(x, t) + self.way * self.other.eps(x, t)
        return self.factor * mixed


# ------------------------------------------------------------------ the chain and the points


def test_the_chain_has_even_log_snr() -> None:
    chain = study.chain_of(TINY)
    levels = chain.log_snr(np.arange(1, 9))
    np.testing.assert_allclose(levels, np.linspace(study.TOP, -study.TOP, 8), atol=1e-9)
    np.testing.assert_allclose(study.sigmas(TINY), np.exp(-0.5 * levels[[0, 2, 4, 6]]))


def test_every_training_point_is_seen_equally_often() -> None:
    points = LAW.sample(4, 1)
    x = study.noised(TINY, points, np.zeros((4, 64, 2)))
    chain = study.chain_of(TINY)
    for k, own in zip(TINY.levels, x):
        clean = own / float(chain.alpha(k))
        counts = [np.sum(np.all(np.abs(clean - p) < 1e-9, axis=1)) for p in points]
        assert counts == [16] * 4


def test_the_yardstick_is_the_truth() -> None:
    """eps at fresh noised points is that of the law; the start has the moments of p_K. Seed 4."""
    config = dataclasses.replace(TINY, draws=32, samples=4000)
    at, oracle = yardstick(config, 4), study.truth(TINY)
    x = study.noised(config, at.fresh, at.noise)
    for i, k in enumerate(config.levels):
        np.testing.assert_allclose(at.eps[i], oracle.eps(x[i], k), rtol=1e-12)
    end = oracle.at(config.steps)
    z = (at.start.mean(axis=0) - end.mean) / np.sqrt(np.diag(end.cov) / 4000)
    assert np.abs(z).max() < 4.9


def test_the_information_of_the_law() -> None:
    """That of one Gaussian in closed form is 1/2 log det(I + SNR C); of three, at most log 3 more
    than that of one of them where the noise is small beside their distance.
    """
    found = np.array([study.information(TINY, Run(0), k)["information"] for k in TINY.levels])
    snr = 1 / study.sigmas(TINY) ** 2
    one = np.log1p(snr)
    H = -sum(w * math.log(w) for w in (0.4, 0.4, 0.2))
    assert np.all((one < found) & (found < one + H))
    assert found[0] == pytest.approx(one[0] + H, abs=0.1)
    assert found[-1] < 0.05
    assert np.all(np.diff(found) < 0)


# ------------------------------------------------------------------ what is measured


def measured(config: Any, model: Model, points: np.ndarray, at: Any, sample: Any) -> Any:
    """`judged` of a model with a sample that is given."""
    about = {key: value[0] for key, value in study.facts(config, points[None], [at.noise]).items()}
    x, seen = (study.noised(config, p, at.noise) for p in (at.fresh, points))
    answers = study.predicted(config, model, x), study.predicted(config, model, seen), sample
    return study.judged(config, answers, points, tuple(about.values()), at, 1)


def test_exact_models_are_measured_exactly(arrays: dict[str, np.ndarray]) -> None:
    """The truth has no error to itself and is at 0 of the way, the memory at 1."""
    for n in TINY.points:
        for name, way, own in (("true score", 0, "truth"), ("empirical score", 1, "memory")):
            np.testing.assert_allclose(arrays[f"{n} {name} way"], way, atol=1e-10)
            np.testing.assert_allclose(arrays[f"{n} {name} to {own}"], 0.0, atol=1e-20)
        assert np.all(arrays[f"{n} empirical score to truth"][:, :3] > 1e-3)
        assert np.all(arrays[f"{n} true score to memory"][:, :3] > 1e-3)


def test_a_model_between_is_between() -> None:
    """0.3 of the way: way 0.3, and 0.3^2 of the memory's error to the truth; 1.1 times s: 0.01."""
    at, points = yardstick(TINY, 1), LAW.sample(4, 2)
    oracle, memory = study.truth(TINY), study.memory_of(TINY, points)
    full = measured(TINY, memory, points, at, at.fresh)
    part = measured(TINY, Between(oracle, memory, 0.3), points, at, at.fresh)
    np.testing.assert_allclose(part["way"], 0.3, rtol=1e-9)
    np.testing.assert_allclose(part["to truth"], 0.09 * full["to truth"], rtol=1e-9)
    more = measured(TINY, Between(oracle, oracle, 0.0, 1.1), points, at, at.fresh)
    np.testing.assert_allclose(more["to truth"], 0.01, rtol=1e-9)
    losses = np.sum((at.eps - at.noise) ** 2, axis=(1, 2)) / TINY.draws
    true = measured(TINY, oracle, points, at, at.fresh)
    np.testing.assert_allclose(true["test loss"], losses, rtol=1e-12)
    far = measured(TINY, oracle, points, at, at.fresh + 2.0)
    assert true["W2"] < far["W2"] - 0.2  # true points in the place of samples, and moved ones


def test_errors_are_those_of_the_metric() -> None:
    """`metrics.fisher_error` on points of its own, 20,000; ours 16,384. Seeds 5, 6; |z| < 4.9."""
    config = dataclasses.replace(TINY, draws=16384, levels=(3, 5))
    at, points = yardstick(config, 5), LAW.sample(32, 2)
    about, oracle = study.facts(config, points[None], [at.noise]), study.truth(config)
    memory = study.memory_of(config, points)
    model = Between(oracle, memory, 0.5)
    scores = Between(oracle, memory, 0.5)
    scores.score = lambda x, t: -model.eps(x, t) / math.sqrt(oracle.process.var(t))  # type: ignore[method-assign]
    x, seen = (study.noised(config, p, at.noise) for p in (at.fresh, points))
    for i, k in enumerate(config.levels):
        for own, exact, there in (
            (at.eps[i], oracle, x[i]),
            (about["memory"][0, i], memory, seen[i]),
        ):
            ours = model.eps(there, k)
            off = np.sum((ours - own) ** 2, axis=1)
            size = np.sum(own**2, axis=1)
            value = off.sum() / size.sum()
            error = np.std(off - value * size) / math.sqrt(len(off)) / size.mean()
            theirs = metrics.fisher_error(scores, exact, k, 20_000, 6, relative=True)
            spread = math.hypot(error, theirs.error)
            assert abs(value - theirs.value) < 4.9 * spread
            assert abs(2 * value - theirs.value) > 4.9 * spread


def test_losses_are_least_at_their_own_score() -> None:
    """train: loss(s) - loss(s^) = var E|s - s^|^2 under p^; test: the other way round. Seed 7.

    Both on the same draws, so that the error is that of the difference; twice the value fails.
    """
    config = dataclasses.replace(TINY, draws=16384, levels=(3, 5))
    at, points = yardstick(config, 7), LAW.sample(32, 2)
    about = study.facts(config, points[None], [at.noise])
    memory = study.memory_of(config, points)
    x = study.noised(config, at.fresh, at.noise)
    for i, k in enumerate(config.levels):
        for good, bad in (
            (about["memory"][0, i], about["true"][0, i]), (at.eps[i], memory.eps(x[i], k)),
        ):  # fmt: skip
            z = at.noise[i]
            rows = np.sum((bad - z) ** 2, axis=1) - np.sum((good - z) ** 2, axis=1)
            gap = np.sum((bad - good) ** 2, axis=1)
            off = rows - gap
            assert abs(off.mean()) < 4.9 * off.std() / 128
            assert abs((rows - 2 * gap).mean()) > 4.9 * (rows - 2 * gap).std() / 128


# ------------------------------------------------------------------ copies


def test_copies_are_seen_and_strangers_pass_as_the_plane_lets_them() -> None:
    """Points on a training point, all; in a square of many points 1/9 by ratio. Seeds 1 and 2."""
    points = np.random.default_rng(1).uniform(size=(4000, 2))
    x = np.random.default_rng(2).uniform(0.1, 0.9, size=(20_000, 2))
    ratio, distance = study.copies(x, points, 0.004)
    assert abs(ratio - 1 / 9) < 4.9 * math.sqrt(8 / 81 / 4000)  # neighbours share their points
    near = 1 - math.exp(-4000 * math.pi * 0.004**2)
    assert abs(distance - near) < 4.9 * math.sqrt(near * (1 - near) / 4000)
    assert study.copies(points[:500] + 1e-9, points, 1e-8).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("n", [4, 200])
def test_chance_is_the_share_of_true_samples(n: int) -> None:
    """50,000 of them, |z| < 4.9; that of other points fails. Seeds n, n + 1 and 10."""
    points, others = LAW.sample(n, n), LAW.sample(n, n + 1)
    [near] = study.near_of(LAW, points[None])
    found = study.chance(LAW, points, near)
    x = LAW.sample(50_000, 10)
    limit = 4.9 * np.sqrt(found * (1 - found) / len(x))
    assert np.all(np.abs(study.copies(x, points, near) - found) < limit)
    assert np.any(np.abs(study.copies(x, others, 1.1 * near) - found) > limit)


def test_what_is_near_holds_its_share_of_the_law_of_the_study() -> None:
    """Of two moons, 64 points; twice the distance does not. Seed 11."""
    law = study.truth(STUDY.config).law
    points = law.sample(64, 11)
    [near] = study.near_of(law, points[None])
    assert study.chance(law, points, near)[1] == pytest.approx(study.SHARE, abs=0.003)
    assert study.chance(law, points, 2 * near)[1] != pytest.approx(study.SHARE, abs=0.003)


def test_chance_of_two_points_in_closed_form() -> None:
    """By ratio each owns a disc of radius 3/8 d about a place d/8 behind it, of an even law."""

    class Even:
        def log_prob(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(x.shape[:-1])

    points = np.array([[0.0, 0.0], [2.0, 0.0]])
    ratio, distance = study.chance(Even(), points, 0.7)
    assert ratio == pytest.approx(2 * math.pi * 0.75**2, rel=1e-9)
    assert distance == pytest.approx(2 * math.pi * 0.7**2, rel=1e-9)
    half = 2 * (math.pi - math.acos(1 / 1.5) + 1 / 1.5 * math.sqrt(1 - 1 / 2.25)) * 2.25
    assert study.chance(Even(), points, 1.5)[1] == pytest.approx(half, rel=1e-4)  # discs overlap


def test_nearest_points_by_brute_force() -> None:
    x, points = LAW.sample(20, 1), LAW.sample(9, 2)
    apart = np.sort(np.linalg.norm(x[:, None] - points[None], axis=-1), axis=1)
    np.testing.assert_allclose(study.two_nearest(x, points), apart[:, :2], rtol=1e-12)


def test_the_empirical_score_samples_the_data_and_the_true_one_does_not() -> None:
    """Full chain of 100 steps, 16 points; nearest distances and both criteria. Seed 8."""
    config = dataclasses.replace(
        TINY, points=(16, 32), steps=100, levels=(1, 50), samples=200, draws=64
    )
    at, points = yardstick(config, 8), LAW.sample(16, 9)
    memory = study.memory_of(config, points)
    copied = measured(config, memory, points, at, study.sampled(memory, at.start))
    assert copied["copies"].min() > 0.98
    assert copied["nearest"] < 1e-6
    true = measured(config, study.truth(config), points, at, at.sample)
    assert true["copies"].max() < 0.4
    assert true["W2"] < copied["W2"]


# ------------------------------------------------------------------ training


def test_a_wide_network_goes_further_to_the_memory() -> None:
    """Four points, 200 steps: at middle noise the wide one is nearer to s^. Seed 1."""
    config = dataclasses.replace(
        TINY, points=(4, 8), train_steps=200, batch=64, rate=1e-2, final_rate=1e-4, widths=(2, 32)
    )
    at = yardstick(config, 1)
    sets = [np.stack([LAW.sample(n, s) for s in range(2)]) for n in (4, 8)]
    about = study.facts(config, sets[0], [at.noise, at.noise])
    found = []
    for width in config.widths:
        weights = study.trained(config, width, [points for own in sets for points in own], Run(1))
        assert weights["hidden.0.weight"].shape == (4, width, 11)
        ours = {name: value[:2] for name, value in weights.items()}
        own = study.learned(config, width, ours, sets[0], about, [at, at], Run(1))
        found.append(own["to memory"].mean(axis=0))
    narrow, wide = found
    assert np.all(wide[1:3] < narrow[1:3])
    assert wide[2] < 0.3


# ------------------------------------------------------------------ tables and pictures


def test_the_collapse_is_where_the_information_is_log_n() -> None:
    sigma = study.sigmas(TINY)
    arrays = {"information": -2 * np.log(sigma) + 1.0}
    for n in (4, 32):
        where = study.collapse(TINY, arrays, n)
        assert math.log(n) == pytest.approx(1 - 2 * math.log(where))
    beyond = {"information": 0.01 * arrays["information"]}
    assert math.isnan(study.collapse(TINY, beyond, 4))
    assert study.nearest_level(TINY, beyond, 4) == 2
    assert study.crossing(sigma, sigma**-2.0, 0.5) == pytest.approx(math.sqrt(2))
    assert math.isnan(study.crossing(sigma, 0 * sigma, 0.5))


def test_a_jackknifed_error() -> None:
    """Of the mean itself its standard error; of a crossing, where e = c sigma^-2, that of sqrt(2 c)
    by the derivative; NaN where one seed carries the crossing alone.
    """
    c = 1 + 0.1 * np.random.default_rng(1).standard_normal(8)
    value, error = study.jackknifed(float, c)
    assert (value, error) == pytest.approx((c.mean(), c.std(ddof=1) / math.sqrt(8)), rel=1e-12)
    sigma = np.geomspace(0.1, 10, 9)

    def where(e: np.ndarray) -> float:
        return study.crossing(sigma, e, 0.5)

    found, its = study.jackknifed(where, c[:, None] * sigma**-2.0)
    assert found == pytest.approx(math.sqrt(2 * c.mean()))
    assert its == pytest.approx(error / found, rel=0.02)
    assert its != pytest.approx(error, rel=0.02)
    one = np.zeros((8, 9)) + sigma**-2.0 * np.eye(8, 1)
    assert math.isfinite(where(one.mean(axis=0))) and math.isnan(study.jackknifed(where, one)[1])


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "levels", "collapse", "cells"]
    cells = tables["cells"]
    assert len(cells) == 2 * 5 * TINY.seeds
    one = cells[(cells["n"] == 32) & (cells["model"] == "width 8")]
    np.testing.assert_array_equal(one["copies by distance"], arrays["32 width 8 copies"][:, 1])
    way = arrays["32 width 8 way"][:, 2]
    np.testing.assert_array_equal(one[f"way, k = {TINY.levels[2]}"], way)
    assert len(tables[""]) == 2 * 5
    assert len(tables["levels"]) == 2 * 4 * 4
    main = tables[""].set_index(["n", "model"])
    row = main.loc[(32, "width 8")]
    found = arrays["32 width 8 copies"][:, 1]
    assert row["copies by distance"] == pytest.approx(found.mean())
    assert row["distance, error"] == pytest.approx(found.std(ddof=1) / math.sqrt(2))
    assert row["chance by distance"] == pytest.approx(arrays["32 floor chance"][:, 1].mean())
    assert row["W2 floor"] == pytest.approx(arrays["32 floor W2"].mean())
    assert math.isnan(main.loc[(4, "true samples"), "nearest/true nearest"])
    above = found - arrays["32 floor chance"][:, 1]
    assert row["distance - chance"] == pytest.approx(above.mean())
    assert row["distance - chance, error"] == pytest.approx(above.std(ddof=1) / math.sqrt(2))
    assert main.loc[(4, "true score"), "to truth"] == pytest.approx(0.0, abs=1e-20)
    where = study.collapse(TINY, arrays, 4)
    i = int(np.argmin(np.abs(np.log(study.sigmas(TINY)) - math.log(where))))
    gap = arrays["4 width 4 test loss"] - arrays["4 width 4 train loss"]
    assert main.loc[(4, "width 4"), "gap"] == pytest.approx(gap[:, i].mean())
    assert main.loc[(4, "width 4"), "at sigma/alpha"] == study.sigmas(TINY)[i]
    levels = tables["levels"]
    one = levels[(levels["n"] == 4) & (levels["model"] == "empirical score")]
    np.testing.assert_allclose(one["way"], 1.0, rtol=1e-9)
    assert (one["gap"].iloc[:3] > 0).all()
    collapse = tables["collapse"]
    assert collapse["log n"].tolist() == pytest.approx([math.log(4), math.log(32)])
    off = arrays["32 empirical score to truth"]
    one, two = (study.crossing(study.sigmas(TINY), e, 0.5) for e in off)
    row, name = collapse.iloc[1], "where s^ is off by 1/2 under p"
    both = study.crossing(study.sigmas(TINY), off.mean(axis=0), 0.5)
    assert row[name] == pytest.approx(both) and min(one, two) < both < max(one, two)
    assert row[f"{name}, error"] == pytest.approx(0.5 * abs(one - two)) and one != two
    for end in ("", ", error"):
        ratio = row[f"{name}{end}"] / row["sigma/alpha where I = log n"]
        assert row[f"s^, over where I = log n{end}"] == pytest.approx(ratio)
    back = study.crossing(study.sigmas(TINY), arrays["4 true score to memory"].mean(axis=0), 0.5)
    assert collapse.iloc[0]["where s is off by 1/2 under p^"] == pytest.approx(back)


def test_the_numbers_of_a_seed_come_from_its_own_streams(arrays: dict[str, np.ndarray]) -> None:
    """The second data set of 32 points and a network of width 8 on it, trained alone; the W2 of the
    second floor; streams of the first data set give other numbers.
    """
    run, oracle, found = Run(TINY.seed), study.truth(TINY), []
    for s in (1, 0):
        points, at = LAW.sample(32, run.generator("data", 32, s)), study.yardstick(TINY, run, s)
        empirical = study.memory_of(TINY, points)
        net = nets.MLP(2, (8,) * 3, seed=run.seed_for("weights", 8, 32, s))
        network = Network(net, study.chain_of(TINY), "v")
        history = train.train(
            network, torch.as_tensor(points, dtype=torch.float32), steps=TINY.train_steps,
            batch=TINY.batch, seed=run.seed_for("training", 8, 32, s), rate=TINY.rate,
            final_rate=TINY.final_rate, ema=TINY.ema,
        )  # fmt: skip
        train.averaged(net, history)
        net.double()
        models = {"empirical score": empirical, "width 8": network}
        found.append({
            name: measured(TINY, model, points, at, study.sampled(model, at.start))
            for name, model in models.items()
        })  # fmt: skip
        fresh = LAW.sample(TINY.samples, run.generator("floor", s))
        same = study.copies(fresh, points, study.near_of(LAW, [points])[0])
        assert np.array_equal(same, arrays["32 floor copies"][s])
    for name in found[0]:
        for key in ("to truth", "train loss", "test loss"):
            own, other = (one[name][key] for one in found)
            np.testing.assert_allclose(arrays[f"32 {name} {key}"][1], own, rtol=1e-3)
            assert not np.allclose(other, own, rtol=1e-3)
    for name in found[0]:
        W2 = [
            metrics.wasserstein(
                found[0][name]["sample"], oracle.law, run.seed_for("distance", s), repeats=0
            ).value
            for s in (1, 0)
        ]
        assert arrays[f"32 {name} W2"][1] == pytest.approx(W2[0], rel=1e-3)
        assert W2[1] != pytest.approx(W2[0], rel=1e-3)
    fresh = LAW.sample(TINY.samples, run.generator("floor", 1))
    own = metrics.wasserstein(fresh, oracle.law, run.generator("floor of W2", 1), repeats=0)
    for n in TINY.points:
        assert arrays[f"{n} floor W2"][1] == own.value != arrays[f"{n} floor W2"][0]


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray], lossy: Any) -> None:
    """By the executor of the run too, to which every noise level, width and seed goes, and goes
    again where a worker dies.
    """
    again = STUDY.compute(TINY, Run(TINY.seed, executor=lossy))
    assert lossy.counts() == {"information": 2 * 4, "one_width": 2 * 2, "one_seed": 2 * 2}
    other = STUDY.compute(TINY, Run(4))
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)
    for key in ("4 data", "32 width 8 to truth", "4 floor W2", "4 true score sample"):
        assert not np.array_equal(other[key], arrays[key])
    for key in ("4 width 8 to truth", "4 true score test loss"):  # each seed has its own points
        assert not np.array_equal(arrays[key][0], arrays[key][1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "levels", "way", "copies"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


def test_the_committed_tables() -> None:
    """Full mode: what is exact is exact, losses are least at their own score, the empirical score
    gives back its points, and wide networks copy few points alone. Student's law of 7 degrees of
    freedom is above 15 with probability 7e-7.
    """

    def rows(name: str) -> list[dict[str, str]]:
        text = (FILE.parents[1] / "figures" / f"memorisation{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    main = {(int(r["n"]), r["model"]): r for r in rows("")}
    levels, cells, collapse = rows("_levels"), rows("_cells"), rows("_collapse")
    points = sorted({n for n, _ in main})
    assert len(points) >= 3 and points[0] <= 4 and points[-1] >= 1000
    for n, model in main:
        own = [r for r in cells if (int(r["n"]), r["model"]) == (n, model)]
        assert len({r["seed"] for r in own}) == len(own) >= 8
        seeds = np.array([float(r["W2"]) for r in own])
        assert float(main[n, model]["W2"]) == pytest.approx(seeds.mean(), rel=1e-9)
        if model == "empirical score" and n <= 16:  # points further apart than the least noise
            assert max(float(r["nearest"]) for r in own) < 1e-6
            assert min(float(r["copies by distance"]) for r in own) == 1
    for r in levels:
        place = {"true score": ("to truth", 0.0), "empirical score": ("to memory", 1.0)}
        if r["model"] in place:
            error, way = place[r["model"]]
            assert float(r[error]) < 1e-20 and abs(float(r["way"]) - way) < 1e-9

    def seen(n: int, model: str, column: str) -> np.ndarray:
        own = [r for r in cells if (int(r["n"]), r["model"]) == (n, model)]
        return np.array([[float(r[c]) for c in r if c.startswith(column)] for r in own])

    for n in points:
        for column, least in (("train loss", "empirical score"), ("test loss", "true score")):
            for model in {model for _, model in main} - {least, "true samples"}:
                more = seen(n, model, column) - seen(n, least, column)
                error = more.std(axis=0, ddof=1) / math.sqrt(len(more))
                assert np.all(more.mean(axis=0) > -15 * error)
                assert np.all(more[:, 0] > 0)  # at the least noise
        for model in ("true samples", "true score", "empirical score"):
            for kind in ("ratio", "distance"):
                r = main[n, model]
                z = float(r[f"{kind} - chance"]) / float(r[f"{kind} - chance, error"])
                assert z > 15 if model == "empirical score" else abs(z) < 15
    wide = max((model for _, model in main if "width" in model), key=lambda m: int(m.split()[1]))
    few, many = main[points[0], wide], main[points[-1], wide]
    assert float(few["distance - chance"]) > 15 * float(few["distance - chance, error"])
    assert float(many["distance - chance"]) < 15 * float(many["distance - chance, error"])
    assert float(few["copies by distance"]) > 0.5 > float(many["copies by distance"])
    found = np.array([[float(value) for value in r.values()] for r in collapse])
    assert found[:, 0].tolist() == points
    np.testing.assert_allclose(found[:, 1], np.log(found[:, 0]), rtol=1e-9)
    balance, there, back = (
        np.array([float(r[c]) for r in collapse])
        for c in ("sigma/alpha where I = log n", "where s^ is off by 1/2 under p",
                  "where s is off by 1/2 under p^")
    )  # fmt: skip
    assert np.all(np.diff([balance, there, back]) < 0)  # more points, less noise
    assert np.all(there > balance) and np.all(there > back)
    assert there[-1] / balance[-1] > 1.3 * there[0] / balance[0]


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target", "rolls"),
        ("target", "empirical"),
        ("target", "julia_bimodal"),
        ("points", (32, 4)),
        ("points", (1, 4)),
        ("points", (4, 30)),
        ("widths", (8,)),
        ("widths", (0, 8)),
        ("levels", (1, 9)),
        ("levels", ()),
        ("seeds", 1),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("ema", 1.0),
        ("samples", 5),
        ("floors", 1),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})
