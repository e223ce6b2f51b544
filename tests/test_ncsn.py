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

from diffscience import GaussianMixture, gallery, losses, runner
from diffscience.errors import ArgumentError
from diffscience.langevin import annealed, langevin
from diffscience.study import Run
from diffscience.targets import Target

FILE = Path(__file__).parents[1] / "studies" / "ncsn.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.ncsn"]

TINY = study.Config(
    epochs=50, levels=4, steps=3, particles=60, seeds=2, repeats=2, draws=2, training_steps=3,
    batch=8, picked=2, width=8, fewer=(2,), plane_steps=2, plane_particles=60, plane_training=2,
    frames=3, seed=3,
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
    assert loss == pytest.approx(study.PUBLISHED, rel=1e-5)
    assert list(loss.values())[:10] == pytest.approx(list(study.PUBLISHED.values())[:10], rel=1e-8)
    edges, counts = study.bars(found["samples"])
    assert counts.tolist() == list(study.BARS)
    assert sum(study.BARS) == len(found["samples"]) == 256
    assert edges[[0, -1]].tolist() == [-5.5, 8.5]
    assert np.sum(found["samples"] < 0) == 38


def test_a_stream_off_by_one_draw_is_another_note(monkeypatch: pytest.MonkeyPatch) -> None:
    true = study.noisy

    def late(rng: Any, points: np.ndarray) -> Any:
        rng.randn()
        return true(rng, points)

    monkeypatch.setattr(study, "noisy", late)
    found = study.replay(50)
    assert found["checked"] != pytest.approx(study.PUBLISHED_FIRST_GRADIENT, rel=1e-3)
    assert found["loss"][49] != pytest.approx(study.PUBLISHED[50], rel=1e-4)


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
    mended = tuple(f for f in study.FAULTS if f != study.START)
    plan = study.plan_of(config, "note", mended)
    x = plan.start(40_000, LAW, np.random.default_rng(2))
    assert abs(x.mean() - 2.4) < 4.9 * np.sqrt(8.24 / 40_000)  # seed 2; mean of p_2
    assert len(study.SETTINGS) == 10
    assert len(study.runs_of()) == 19


def test_the_walk_is_langevin() -> None:
    """The same noise gives the same path as the package's samplers; a step 5 % longer does not."""
    plan = study.with_steps(study.plan_of(TINY, "slow", ()), 4)
    laws = {float(s): study.blurred(LAW, s) for s in plan.levels}
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
    exact = study.Table(
        levels, study.tabulated(lambda x, s: study.blurred(LAW, s).score(x), levels)
    )
    x = np.random.default_rng(0).uniform(-9, 9, (500, 1))
    for s in levels.tolist():
        true = study.blurred(LAW, s).score(x)
        assert np.abs(exact(x, s) - true).max() < 2e-4
        assert np.abs(1.05 * exact(x, s) - true).max() > 0.001  # the wrong twin: 5 %


# ------------------------------------------------------------------ the verdict


def sample(pace: str, faults: tuple[str, ...], factor: float = 1.0, **changes: Any) -> np.ndarray:
    """The numbers of 4000 points with `factor` times the exact score; seed 5."""
    config = study.Config(particles=4000, repeats=2, **changes)
    levels = study.all_levels(config)
    values = factor * study.tabulated(lambda x, s: study.blurred(LAW, s).score(x), levels)
    plan = study.plan_of(config, pace, faults)
    found = study.sampled(config, plan, values, 0, np.random.default_rng(5))
    return found["numbers"]


def test_the_note_has_too_much_on_the_left_and_the_slow_walk_has_not() -> None:
    """0.1 within 4.9 errors, the bias of n = 60 given by Fokker-Planck; twins far outside."""
    config = study.Config(steps=60)
    bias = float(study.limit(config, 60)["limit 60"]) - 0.1
    assert 0 < bias < 0.01
    left, error, w1, _, floor, _ = sample("slow", (), steps=60)
    assert abs(left - 0.1 - bias) < 4.9 * error
    assert w1 < 5 * floor
    note = sample("note", study.FAULTS)
    assert abs(note[0] - 0.187) < 4.9 * note[1]  # Fokker-Planck's 0.187 for the note's pace
    assert (note[0] - 0.1) / note[1] > 4.9
    wrong = sample("slow", (), factor=0.8, steps=60)
    assert (wrong[0] - 0.1 - bias) / wrong[1] > 4.9  # the wrong twin: 20 % less score


def test_the_bias_of_annealing_falls_with_the_steps() -> None:
    config = study.Config()
    found = [float(study.limit(config, n)[f"limit {n}"]) for n in (5, 60)]
    assert found[0] > found[1] + 0.01 > 0.11
    assert found[1] == pytest.approx(0.1, abs=0.004)


# ------------------------------------------------------------------ the network


def test_the_objective_is_ncsns_loss() -> None:
    """With every level its own group it is `multilevel` on z and -z; shared z is one z."""
    config = dataclasses.replace(TINY, picked=4)
    levels = study.levels_of(config)
    net = study.Conditional(LAW, 8, seed=1)
    x = LAW.sample(6, torch.Generator().manual_seed(0)).to(torch.float32)
    for shared in (False, True):
        rows = study.objective(config, levels, shared)(net, x, torch.Generator().manual_seed(4))
        again = torch.Generator().manual_seed(4)
        torch.randint(1, (4,), generator=again)
        z = torch.randn((6, 1) if shared else (4, 6, 1), generator=again)
        both = torch.cat([z, -z], dim=-2)
        direct = losses.multilevel(net, torch.cat([x, x]), both, levels.tolist())
        torch.testing.assert_close(rows, direct)
        twin = losses.multilevel(net, torch.cat([x, x]), 1.05 * both, levels.tolist())
        assert not torch.allclose(rows, twin, rtol=1e-3)


def test_relative_fisher_error() -> None:
    """A score that is c times the true one has the error (c - 1)^2 at every level."""
    for c in (1.0, 1.05, -1.0):
        score = lambda x, s, c=c: c * study.blurred(LAW, s).score(x)  # noqa: E731
        found = study.relative_fisher(score, LAW, np.array([3.0, 0.1]))
        np.testing.assert_allclose(found, (c - 1) ** 2, atol=1e-12)


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "parity", "samples", "steps", "fisher", "noise", "plane"]
    main = tables[""]
    assert len(main) == 19
    assert list(main["faults"]).count("no fault") == 2
    assert (main["error"] > 0).all()
    np.testing.assert_allclose(
        main["errors off 0.1"], (main["left weight"] - 0.1) / main["error"], rtol=1e-12
    )
    assert len(tables["parity"]) == 2
    assert tables["parity"]["relative difference"].max() < 1e-8
    assert "published" not in tables["samples"]  # of 1000 epochs, and these are fewer
    assert tables["steps"]["steps a level"].tolist() == [2, 3]
    assert np.isfinite(tables["fisher"].to_numpy()).all()
    plane = tables["plane"]
    np.testing.assert_allclose(plane.groupby("score")["share"].sum(), 1.0)


def test_errors_over_seeds() -> None:
    rows = [np.array([v, 0.3]) for v in (1.0, 2.0, 3.0)]
    assert study.over_seeds(rows) == pytest.approx((2.0, 1 / np.sqrt(3)))
    rows = [np.array([v, 3.0]) for v in (1.0, 2.0, 3.0)]
    assert study.over_seeds(rows) == pytest.approx((2.0, 3 / np.sqrt(3)))


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    key = "plane learned 1"
    run = Run(TINY.seed)
    again = study.plane(TINY, "learned", run.seed + 1, run.generator(key), run)
    assert np.array_equal(again["weights"], arrays[f"{key} weights"])
    key = f"{study.key_of('exact', 'slow', ())} 1"
    levels, plan = study.all_levels(TINY), study.plan_of(TINY, "slow", ())
    values = study.tabulated(lambda x, s: study.blurred(LAW, s).score(x), levels)
    for seed in (TINY.seed, 4):
        found = study.sampled(TINY, plan, values, 0, Run(seed).generator(key))["numbers"]
        assert np.array_equal(found, arrays[f"numbers {key}"]) == (seed == TINY.seed)


def test_drawing_computes_nothing(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from diffscience import plots

    def refuse(*_: Any) -> None:
        raise AssertionError("drawing asked a law")

    for name in ("log_prob", "score", "sample", "quadrature"):
        monkeypatch.setattr(Target, name, refuse)
        monkeypatch.setattr(GaussianMixture, name, refuse, raising=False)
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
        ("last", 0.7),
        ("picked", 3),
        ("step", 2.0),
        ("fewer", (0,)),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
