"""The study ncsn: the note comes out of its stream, its faults bias the modes, and without them
the mode weights are those of the truth.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import gallery, losses, nets, runner
from diffscience.ensembles import Ensemble
from diffscience.errors import ArgumentError
from diffscience.langevin import annealed, langevin
from diffscience.network import Network
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "ncsn.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.ncsn"]

TINY = study.Config(
    epochs=50, levels=4, steps=3, particles=60, seeds=2, repeats=2, draws=2, training_steps=3,
    batch=8, width=8, fewer=(2, 3), intervals=4, plane_steps=2, plane_particles=60,
    plane_training=2, frames=3, seed=3,
)  # fmt: skip
LAW = gallery.julia_bimodal()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return dict(STUDY.compute(TINY, Run(TINY.seed)))


# ------------------------------------------------------------------ the note


def test_the_note_comes_out_of_its_stream() -> None:
    """All losses and all bars that the page shows; rounding moves nothing in 1000 epochs."""
    found = study.replay(study.NOTE_EPOCHS)
    assert found["checked"] == pytest.approx(study.PUBLISHED_FIRST_GRADIENT, rel=1e-12)
    loss = {epoch: found["loss"][epoch - 1] for epoch in study.PUBLISHED}
    assert loss == pytest.approx(study.PUBLISHED, rel=1e-12)
    edges, counts = study.bars(found["samples"])
    assert counts.tolist() == list(study.BARS)
    assert sum(study.BARS) == len(found["samples"]) == 256
    assert edges[[0, -1]].tolist() == [-5.5, 8.5]
    assert np.sum(found["samples"] < 0) == 38
    weight, error = found["left"]
    assert weight == pytest.approx(38 / 256, abs=0.02)  # the modes lie apart, but for a few samples
    assert error == pytest.approx(np.sqrt(weight * (1 - weight) / 256), rel=0.1)


def test_a_stream_off_by_one_draw_is_another_note(monkeypatch: pytest.MonkeyPatch) -> None:
    true = study.noisy

    def late(rng: Any, points: np.ndarray) -> Any:
        rng.randn()
        return true(rng, points)

    monkeypatch.setattr(study, "noisy", late)
    found = study.replay(50)
    assert found["checked"] != pytest.approx(study.PUBLISHED_FIRST_GRADIENT, rel=1e-3)
    assert found["loss"][49] != pytest.approx(study.PUBLISHED[50], rel=1e-4)


def test_a_short_replay_is_not_called_the_note() -> None:
    assert study.note_name(study.Config()) == "the note's network"
    assert study.note_name(TINY) == "the note's network after 50 epochs"
    assert study.in_note(study.shown_levels(study.Config())).tolist() == [False, True, True, False]


def test_the_notes_levels_and_counts() -> None:
    levels = study.note_levels()
    printed = [2.0, 1.8234449771164336, 1.2599210498948732, 0.5]
    assert levels[[0, 1, 5, -1]] == pytest.approx(printed, rel=1e-15)
    assert study.note_counts(16, 50).tolist() == [49, *14 * [51], 36]
    full = study.plan_of(study.Config(), "note", study.FAULTS)
    np.testing.assert_allclose(full.levels, levels, rtol=1e-14)
    assert full.h.tolist() == 16 * [0.0125]
    assert full.variance == 1.0


# ------------------------------------------------------------------ plans and walks


def test_the_plans() -> None:
    config = study.Config()
    slow = study.plan_of(config, "slow", ())
    assert (slow.levels[0], slow.levels[-1], len(slow.levels)) == pytest.approx((10, 0.05, 20))
    np.testing.assert_allclose(slow.h / slow.levels**2, config.step)
    assert slow.variance == 100.0
    assert set(slow.counts) == {config.steps}
    assert study.plan_of(config, "slow", (study.LAST,)).levels[-1] == pytest.approx(0.5)
    assert study.plan_of(config, "slow", (study.START,)).levels[0] == pytest.approx(2.0)
    uneven = study.plan_of(config, "slow", (study.COUNTS,)).counts
    assert uneven.sum() == 20 * config.steps - 1
    assert study.plan_of(config, "slow", (study.TRUE_START,)).variance is None
    assert len(study.SETTINGS) == 13
    assert len(study.runs_of()) == 24


def test_the_note_takes_its_time_whatever_its_levels() -> None:
    """A smaller sigma_min alone leaves T = 10; the longer time is that of the note's own step."""
    config = study.Config()
    for mended in study.FAULTS:
        plan = study.plan_of(config, "note", tuple(f for f in study.FAULTS if f != mended))
        assert plan.time == pytest.approx(10.0, rel=2e-3)  # unequal counts lose a step
        assert len(plan.levels) == (41 if mended == study.LAST else 16)
    few, many = (study.plan_of(config, "longer", f) for f in (study.FAULTS, study.WIDER))
    np.testing.assert_allclose(many.h, 0.0125)
    assert few.time == pytest.approx(many.time, rel=2e-3)
    assert many.time == pytest.approx(25.6, abs=0.02)


def test_the_starts() -> None:
    """Seed 2; p_2 has mean 2.4 and variance 8.24."""
    mended = tuple(f for f in study.FAULTS if f != study.START)
    plan = study.plan_of(study.Config(), "note", mended)
    x = plan.start(LAW).sample(40_000, np.random.default_rng(2))
    assert abs(x.mean() - 2.4) < 4.9 * np.sqrt(8.24 / 40_000)
    wide = study.plan_of(study.Config(), "slow", ()).start(gallery.julia_trimodal())
    assert np.asarray(wide.cov).tolist() == [[100.0, 0.0], [0.0, 100.0]]


def test_the_walk_is_langevin() -> None:
    """The same noise gives the same path as the package's samplers; a step 5 % longer does not."""
    plan = study.with_steps(study.plan_of(TINY, "slow", ()), 4)
    laws = {float(s): LAW.blurred(s) for s in plan.levels}
    x = np.linspace(-5.0, 5.0, 11)[:, None]
    score = lambda x, s: laws[s].score(x)  # noqa: E731
    found, kept = study.walk(score, plan, x, np.random.default_rng(7), keep=3)
    epsilon = 2 * TINY.step * plan.levels[-1] ** 2
    run = annealed(score, x, plan.levels, 4, np.random.default_rng(7), epsilon=epsilon)
    states = [state for _, state in run]
    np.testing.assert_allclose(found, states[-1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kept, np.stack(states)[:, :3], rtol=1e-12, atol=1e-12)
    longer = dataclasses.replace(plan, h=1.05 * plan.h)
    other, _ = study.walk(score, longer, x, np.random.default_rng(7))
    assert not np.allclose(other, states[-1], atol=1e-3)
    one = study.Plan(np.array([1.0]), np.array([0.1]), np.array([5]), 1.0)
    exact: Any = laws[float(plan.levels[0])].score
    *_, (_, end) = langevin(exact, x, 5, np.random.default_rng(1), step=0.1)
    found, _ = study.walk(lambda x, s: exact(x), one, x, np.random.default_rng(1))
    np.testing.assert_allclose(found, end, rtol=1e-12)


def test_a_step_that_runs_away_is_named() -> None:
    plan = study.Plan(np.array([1.0]), np.array([5.0]), np.array([80]), 1.0)
    with pytest.raises(ArgumentError, match="h must be small enough"):
        study.walk(lambda x, s: -x, plan, np.ones((3, 1)), np.random.default_rng(0))


def test_a_table_is_the_score() -> None:
    levels = np.array([10.0, 0.05])
    exact = study.Table(levels, study.tabulated(lambda x, s: LAW.blurred(s).score(x), levels))
    x = np.random.default_rng(0).uniform(-9, 9, (500, 1))
    for s in levels.tolist():
        true = LAW.blurred(s).score(x)
        assert np.abs(exact(x, s) - true).max() < 2e-4
        assert np.abs(1.05 * exact(x, s) - true).max() > 0.001  # the wrong twin: 5 %


# ------------------------------------------------------------------ the verdict


CONFIG = study.Config(particles=4000, repeats=2, steps=60)


def exact_table(factor: float = 1.0) -> Any:
    """`factor` times the exact score at every level."""
    levels = study.all_levels(CONFIG)
    return study.Table(levels, factor * study.tabulated(study.exact, levels))


def sample(plan: Any, score: Any, **changes: Any) -> np.ndarray:
    """The numbers of a run; seed 5."""
    config = dataclasses.replace(CONFIG, **changes)
    return study.sampled(config, plan, score, 0, np.random.default_rng(5))["numbers"]


def limit(plan: Any, score: Any, intervals: int = 40) -> float:
    """The left weight of a plan with infinitely short steps."""
    return float(study.limit(plan, score, intervals)["left"])


def test_the_note_has_too_much_on_the_left_and_the_slow_walk_has_not() -> None:
    """Both within 4.9 errors of Fokker-Planck; twins far outside."""
    score, slow = exact_table(), study.plan_of(CONFIG, "slow", ())
    small = limit(slow, score)
    assert 0 < small - 0.1 < 0.01
    left, error, w1, _, floor, _ = sample(slow, score)
    assert abs(left - small) < 4.9 * error
    assert w1 < 5 * floor
    note = study.plan_of(CONFIG, "note", study.FAULTS)
    left, error = sample(note, score)[:2]
    assert abs(left - limit(note, score)) < 4.9 * error
    assert (left - 0.1) / error > 4.9
    wrong = sample(slow, exact_table(0.8))  # the wrong twin: 20 % less score
    assert (wrong[0] - small) / wrong[1] > 4.9


def test_short_steps_reach_the_limit() -> None:
    """5 steps a level, cut into 30 of a sixth; limits of other times, or without bias, are none."""
    score, plan = exact_table(), study.with_steps(study.plan_of(CONFIG, "slow", ()), 5)
    short = dataclasses.replace(plan, h=plan.h / 6, counts=6 * plan.counts)
    small = limit(short, score)
    assert small == pytest.approx(limit(plan, score), rel=1e-12)
    left, error = sample(short, score, particles=12_000)[:2]
    assert abs(left - small) < 4.9 * error
    twice = limit(study.with_steps(plan, 10), score)
    for twin in (twice, 0.1):
        assert abs(left - twin) > 4.9 * error


def test_the_limit_is_resolved() -> None:
    """Four times the steps of time change 1e-5 at most, where the bias is large."""
    score = exact_table()
    for pace, faults, n in (("slow", (), 5), ("note", study.FAULTS, 50)):
        plan = study.with_steps(study.plan_of(CONFIG, pace, faults), n)
        coarse, fine = (limit(plan, score, n) for n in (40, 160))
        assert coarse == pytest.approx(fine, abs=1e-5)
        assert coarse != pytest.approx(0.1, abs=0.03)


def test_a_smaller_sigma_min_helps_only_with_more_time() -> None:
    """Exact score, small h: in the note's time it makes the weights worse."""
    score = exact_table()
    note, worse, longer, both = (
        limit(study.plan_of(CONFIG, pace, faults), score)
        for pace in ("note", "longer")
        for faults in (study.FAULTS, study.WIDER)
    )
    assert longer < both < note < worse
    mended, true = (
        limit(study.plan_of(CONFIG, "slow", faults), score) for faults in ((), (study.TRUE_START,))
    )
    assert mended == pytest.approx(true, abs=1e-5)


# ------------------------------------------------------------------ the network


def two_networks() -> tuple[Network, list[nets.Scaled]]:
    """Two networks as one, as they are trained, and each by its formula; seeds 1 and 2."""
    members = study.networks_of(TINY, LAW, [1, 2])
    alone = [nets.Scaled(one.net, LAW) for one in members]
    return members[0].with_net(Ensemble([one.net for one in members])), alone


@pytest.mark.parametrize("noise", ["own", "shared", "apart"])
def test_the_loss_is_ncsns(noise: str) -> None:
    """It is `multilevel` at all levels for each member; a shared z is one z for all levels."""
    levels = study.levels_of(TINY).tolist()
    both, alone = two_networks()
    generator = torch.Generator().manual_seed(4)
    x = LAW.sample(48, generator).to(torch.float32)
    z = torch.randn((48, 1), generator=generator)
    t = torch.tensor(levels, dtype=torch.float64).repeat_interleave(6).repeat(2)
    rows = study.loss_of(levels, noise)(both, x, t, z).reshape(2, 4, 6)
    x, z = x.reshape(2, 4, 6, 1), z.reshape(2, 4, 6, 1)
    for net, own, points, noises in zip(alone, rows, x, z, strict=True):
        if noise == "apart":
            for k, sigma in enumerate(levels):
                direct = losses.multilevel(net, points[k], noises[k], [sigma])
                torch.testing.assert_close(own[k], direct)
            continue
        one, found = noises[0], own.mean(0)
        right, wrong = (noises, one) if noise == "own" else (one, noises)
        torch.testing.assert_close(found, losses.multilevel(net, points[0], right, levels))
        for twin in (wrong, 1.05 * right):
            assert not torch.allclose(
                found, losses.multilevel(net, points[0], twin, levels), rtol=1e-3
            )


def test_networks_side_by_side_move_as_each_alone() -> None:
    """A network is what it is, whoever is trained with it; another seed is another network."""
    run, x = Run(TINY.seed), np.linspace(-4.0, 4.0, 5)[:, None]
    keys = ["own 0", "own 1"]
    both = study.trained(TINY, LAW, "own", 3, keys, run)
    for net, key in zip(both, keys, strict=True):
        [alone] = study.trained(TINY, LAW, "own", 3, [key], run)
        np.testing.assert_allclose(net.score(x, 0.5), alone.score(x, 0.5), rtol=1e-4)
    assert not np.allclose(both[0].score(x, 0.5), both[1].score(x, 0.5), rtol=1e-2)


def test_a_scaled_network_is_its_formula() -> None:
    """One level for each row is the same as one at a time; sigma = 0 for a net of x alone."""
    law = gallery.julia_trimodal()
    mlp, alone = nets.MLP(2, (8,), (), seed=1).double(), nets.Score(2, (8,), seed=1).double()
    x = torch.randn((5, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = float(np.trace(law.cov) + np.asarray(law.mean) @ np.asarray(law.mean)) / 2
    sigmas = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0], dtype=torch.float64)
    for net in (mlp, alone):
        scaled = nets.Scaled(net, law)
        rows = scaled(x, sigmas)
        for i, sigma in enumerate(sigmas.tolist()):
            u = x[i : i + 1] / np.sqrt(second + sigma**2)
            y = net(u, torch.tensor([np.log(sigma)])) if net is mlp else net(u)
            torch.testing.assert_close(rows[i : i + 1], y / np.sqrt(1 + sigma**2))
            found = scaled.score(x[i].numpy(), sigma)
            np.testing.assert_allclose(found, rows[i].detach(), rtol=1e-12)
    still = nets.Scaled(alone, law)
    torch.testing.assert_close(still(x, 0.0), alone(x / np.sqrt(second)))


def test_no_seed_serves_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, training and the noise beside it, of every network and every seed of a run."""
    seeds: list[int] = []
    make, train, spread = study.networks_of, study.together, study.loss_spread

    def noted(config: Any, law: Any, own: list[int]) -> Any:
        seeds.extend(own)
        return make(config, law, own)

    def trained(*given: Any, **options: Any) -> Any:
        seeds.extend(options["seeds"])
        return train(*given, **options)

    def spread_of(*given: Any) -> Any:
        seeds.append(given[-1].initial_seed())
        return spread(*given)

    monkeypatch.setattr(study, "networks_of", noted)
    monkeypatch.setattr(study, "together", trained)
    monkeypatch.setattr(study, "loss_spread", spread_of)
    for seed in (30, 31):
        for noise in ("own", "shared"):
            study.learned(TINY, noise, Run(seed))
    assert len(set(seeds)) == len(seeds) == 24


def test_relative_fisher_error() -> None:
    """A score that is c times the true one has the error (c - 1)^2 at every level."""
    for c in (1.0, 1.05, -1.0):
        score = lambda x, s, c=c: c * study.exact(x, s)  # noqa: E731
        found = study.relative_fisher(score, LAW, np.array([3.0, 0.1]))
        np.testing.assert_allclose(found, (c - 1) ** 2, atol=1e-12)


def test_the_spread_of_the_notes_loss() -> None:
    """A score of 0 has the loss |z|^2/2: sqrt(1/2/1024), and a quarter with 16 z a point. Seed 6.

    The standard deviation of 60 draws has a relative error of 9 %.
    """
    zero = lambda x, sigma: 0 * x  # noqa: E731
    own, shared = study.loss_spread(zero, 60, torch.Generator().manual_seed(6))
    assert abs(shared / np.sqrt(0.5 / 1024) - 1) < 4.9 / np.sqrt(120)
    assert abs(4 * own / np.sqrt(0.5 / 1024) - 1) < 4.9 / np.sqrt(120)


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "parity", "samples", "steps", "fisher", "noise", "plane"]
    main = tables[""]
    assert len(main) == 24
    assert list(main["faults"]).count("no fault") == 2
    assert (main["error"] > 0).all()
    np.testing.assert_allclose(
        main["errors off"], (main["left weight"] - 0.1) / main["error"], rtol=1e-12
    )
    assert len(tables["parity"]) == 2
    assert tables["parity"]["relative difference"].max() < 1e-12
    assert "published" not in tables["samples"]  # of 1000 epochs, and these are fewer
    assert tables["steps"]["steps a level"].tolist() == [2, 3]
    plane = tables["plane"]
    np.testing.assert_allclose(plane.groupby("score")["share"].sum(), 1.0)


def test_the_tables_of_networks(arrays: dict[str, np.ndarray]) -> None:
    """Which column comes from which arrays, by hand."""
    fisher = study.fisher_table(TINY, arrays)
    for column, key in (
        ("own noise", "fisher own"),
        ("shared noise", "fisher shared"),
        ("in the plane", "plane learned fisher"),
    ):
        one, other = arrays[key]
        np.testing.assert_allclose(fisher[column], (one + other) / 2)
        np.testing.assert_allclose(fisher[f"{column}, error"], np.abs(one - other) / 2)
    inside = (fisher["sigma"] >= 0.5) & (fisher["sigma"] <= 2.0)
    assert np.isfinite(fisher["the note's"]).tolist() == inside.tolist()
    noise, spreads = study.noise_table(arrays), arrays["spread own"]
    assert noise["noise"].tolist() == ["own", "shared"]
    np.testing.assert_allclose(noise["std of the loss"], spreads.mean(0))
    np.testing.assert_allclose(noise["error"], np.abs(spreads[0] - spreads[1]) / 2)


def test_the_notes_network_is_worse_than_its_loss_allows() -> None:
    """Its relative Fisher error, where the exact score has none: what the table holds is this."""
    levels = study.note_levels()[[0, -1]]
    assert not study.relative_fisher(study.exact, LAW, levels).any()
    params = [(np.zeros((4, 2)), np.zeros(4)), (np.zeros((1, 4)), np.zeros(1))]
    still = lambda x, s: study.note_score(params, x, s)  # noqa: E731
    np.testing.assert_allclose(study.relative_fisher(still, LAW, levels), 1.0)


def test_a_row_by_hand() -> None:
    """Three runs: their own errors are 0.03, 0.04 and 0.05 for the weight, 0.2 each for W1."""
    numbers = [
        np.array([left, error, w1, 0.2, floor, 0.3])
        for left, error, w1, floor in (
            (0.1, 0.03, 1.0, 0.5),
            (0.2, 0.04, 2.0, 0.6),
            (0.6, 0.05, 3.0, 0.7),
        )
    ]
    own, spread = np.sqrt(0.005 / 3 / 3), np.std([0.1, 0.2, 0.6], ddof=1) / np.sqrt(3)
    row = study.weight_row(numbers, [0.2], False)
    assert row["left weight"] == pytest.approx(0.3)
    assert row["error"] == pytest.approx(own)
    assert row["errors off"] == pytest.approx(0.2 / own)
    assert (row["small h"], row["errors off small h"]) == pytest.approx((0.2, 0.1 / own))
    assert (row["W1"], row["W1 floor"]) == pytest.approx((2.0, 0.6))
    assert row["W1 error"] == pytest.approx(0.2 / np.sqrt(3))
    assert row["W1 excess"] == pytest.approx(1.4 / np.sqrt((0.2**2 + 0.3**2) / 3))
    row = study.weight_row(numbers, [0.1, 0.2, 0.5], True)  # of networks, each with its limit
    assert row["error"] == pytest.approx(spread)
    assert (row["small h"], row["errors off small h"]) == pytest.approx((0.8 / 3, 0.1 / 3 / own))
    assert row["W1 error"] == pytest.approx(1 / np.sqrt(3))


def test_errors_over_seeds() -> None:
    """Of sampling for one score; for networks the larger of that and their spread."""
    rows = [np.array([v, 0.3]) for v in (1.0, 2.0, 3.0)]
    assert study.over_seeds(rows, True) == pytest.approx((2.0, 1 / np.sqrt(3)))
    assert study.over_seeds(rows, False) == pytest.approx((2.0, 0.3 / np.sqrt(3)))
    rows = [np.array([v, 3.0]) for v in (1.0, 2.0, 3.0)]
    assert study.over_seeds(rows, True) == pytest.approx((2.0, 3 / np.sqrt(3)))


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again = study.plane(TINY, "learned", Run(TINY.seed))
    assert np.array_equal(again["weights"], arrays["plane learned weights"])
    assert not np.array_equal(*again["weights"])  # two runs are two
    key = f"{study.key_of('exact', 'slow', ())} 1"
    levels, plan = study.all_levels(TINY), study.plan_of(TINY, "slow", ())
    score = study.Table(levels, study.tabulated(study.exact, levels))
    for seed in (TINY.seed, 4):
        found = study.sampled(TINY, plan, score, 0, Run(seed).generator(key))["numbers"]
        assert np.array_equal(found, arrays[f"numbers {key}"]) == (seed == TINY.seed)


def test_the_film_says_the_weight_of_its_points(arrays: dict[str, np.ndarray]) -> None:
    """The measure of the tables, at the start and after each level."""
    for pace, faults in study.FILMS:
        key = f"{study.key_of('exact', pace, faults)} 0"
        assert len(arrays[f"lefts {key}"]) == 1 + len(study.ladder_of(TINY, pace, faults))
        # 60 points, all of them filmed
        assert arrays[f"lefts {key}"][-1] == pytest.approx(arrays[f"numbers {key}"][0], rel=1e-12)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from PIL import Image

    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "weights", "score", "replay", "steps", "plane"]
        png, _ = plots.save(figures["weights"], {})
        [film] = study.animate(TINY, arrays).values()
    assert len(png) < 1_000_000
    with Image.open(io.BytesIO(film)) as image:
        assert getattr(image, "n_frames", 1) == TINY.frames


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("seeds", 1),
        ("particles", 1.5),
        ("first", 1.0),
        ("first", 100.0),
        ("last", 0.7),
        ("step", 2.0),
        ("rate", 0.0),
        ("final_rate", 0.1),
        ("ema", 1.0),
        ("fewer", (0,)),
        ("fewer", [5]),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
