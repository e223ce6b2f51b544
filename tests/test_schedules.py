"""The study schedules: densities and weights in closed form, equal steps, and what is taught.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import (
    VP,
    Chain,
    Network,
    Oracle,
    grids,
    losses,
    metrics,
    nets,
    process,
    runner,
    train,
    weightings,
)
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "schedules.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.schedules"]

TINY = study.Config(
    schedules=("linear", "rectified flow", "EDM steps", study.EVEN),
    samplers=("ancestral", "dpm_2m"), steps=(4, 8), few=(4, 8), pairs=4, seeds=2, points=64,
    levels=4, width=8, updates=3, batch=8, fine=16, seed=3,
)  # fmt: skip
LINE, PLANE = TINY.targets
ALL = list(study.SCHEDULES)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------ schedules


def test_densities_of_log_snr_in_closed_form() -> None:
    """Rectified flow sech^2(r/4)/8, cosine without offset sech(r/2)/2 pi; neither is the other."""
    r = np.linspace(-9, 9, 37)
    known = {
        study.Schedule(process.RectifiedFlow()): 1 / (8 * np.cosh(r / 4) ** 2),
        study.Schedule(process.Cosine(0.0)): 1 / (2 * math.pi * np.cosh(r / 2)),
    }
    for schedule, density in known.items():
        found = (schedule.place(r - 1e-4) - schedule.place(r + 1e-4)) / 2e-4
        np.testing.assert_allclose(found, density, rtol=1e-6)
        assert sum(np.abs(other / found - 1).max() > 0.1 for other in known.values()) == 1


@pytest.mark.parametrize("name", ALL)
def test_place_is_that_of_the_curve(name: str) -> None:
    schedule, u = study.SCHEDULES[name], np.linspace(0.0205, 0.9805, 25)  # within steps of a chain
    level = schedule.log_snr(u)
    np.testing.assert_allclose(schedule.place(level), u, rtol=1e-9)
    np.testing.assert_allclose(study.ANGLE.log_snr(schedule.angle(u)), level, atol=1e-9)
    slope = -np.gradient(schedule.log_snr(u + np.array([[-1e-5], [0.0], [1e-5]])), 1e-5, axis=0)[1]
    np.testing.assert_allclose(schedule.density(level), 1 / slope, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_steps_are_those_of_the_grids_of_the_process(name: str) -> None:
    """Uniform, karras or log_snr; the log-normal's have even shares. Not those of another grid."""
    schedule, process = study.SCHEDULES[name], study.SCHEDULES[name].process
    steps = schedule.steps(10)
    assert len(steps) == 11
    assert steps[-1] == 0
    assert np.all(np.diff(steps) < 0)
    if isinstance(
        process, Chain
    ):  # the whole steps of the chain, and between them its beta is constant
        k = np.arange(1000, 0, -100)
        np.testing.assert_allclose(study.ANGLE.log_snr(steps[:-1]), process.log_snr(k), atol=1e-9)
        logs = [study.log_snr_at(process, t) for t in (40.0, 40.25, 41.0)]
        first, part, whole = (-np.logaddexp(0, -level) for level in logs)
        assert first - part == pytest.approx((first - whole) / 4, rel=1e-9)
        return
    first = schedule.first / process.T
    known = {
        "time": grids.uniform(process, 10),
        "rho": grids.karras(process, 10, least=first or 1e-3, rho=7.0),
        "log-SNR": grids.log_snr(process, 10, least=first or 1e-3),
    }
    if schedule.measure == "normal":
        log_sigma = -0.5 * study.ANGLE.log_snr(steps[:-1])
        assert log_sigma[[0, -1]] == pytest.approx(np.log([80, 0.002]))
        shares = [NormalDist(-1.2 + math.log(2), 1.2).cdf(v) for v in log_sigma]
        np.testing.assert_allclose(np.diff(shares), (shares[-1] - shares[0]) / 9, rtol=1e-9)
        return
    for measure, times in known.items():
        alpha, var = process.alpha(times), process.var(times)
        same = np.abs(np.arctan2(np.sqrt(var), alpha) * (2 / math.pi) - steps).max()
        assert (same < 1e-7) == (measure == schedule.measure)


def test_curves_of_the_linear_schedule(arrays: dict[str, np.ndarray]) -> None:
    """abar = prod (1 - beta_k) and its limit exp(-(0.1 u + 9.95 u^2)), VP; densities sum to 1.

    Twice the chain's last beta, the wrong twin, is far.
    """
    i, u = TINY.schedules.index("linear"), arrays["u"]
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[1::2]
    np.testing.assert_allclose(arrays["abar"][i], [1.0, *kept], rtol=1e-9)
    middle = (u[:-1] + u[1:]) / 2
    np.testing.assert_allclose(arrays["beta"][i], 0.1 + 19.9 * middle, rtol=0.02, atol=0.01)
    limit = np.exp(-(0.1 * u + 9.95 * u * u))
    log_snr = study.SCHEDULES["VP"].log_snr(u[1:])
    np.testing.assert_allclose(1 / (1 + np.exp(-log_snr)), limit[1:], rtol=1e-9)
    apart = np.abs(arrays["abar"][i] - limit).max()
    assert 1e-5 < apart < 1e-3
    mass = np.trapezoid(arrays["density"], arrays["level"], axis=1)
    np.testing.assert_allclose(mass, 1.0, atol=1e-2)
    assert arrays["linear chain"][9:].max() < 0.1
    other = Chain.linear(1000, 1e-4, 0.04).log_snr(np.arange(1, 1001))
    vp = Chain.of(VP(), np.arange(1001) / 1000).log_snr(np.arange(1, 1001))
    assert np.abs(other - vp)[9:].max() > 1


def test_shares_of_scaled_data() -> None:
    """Three parts of 1; even log-SNRs have the band's length over their range, wherever it is."""
    band = np.array([-1.0, 3.0])
    for name in ALL:
        assert sum(study.shares(study.SCHEDULES[name], band)) == pytest.approx(1.0)
    even = study.SCHEDULES[study.EVEN]
    length = 4 / float(even.log_snr(0.0) - even.log_snr(1.0))
    scales = np.array([0.3, 1.0, 3.0])
    np.testing.assert_allclose(study.shares(even, band, scales)[1], length, rtol=1e-9)
    moved = study.shares(study.SCHEDULES["cosine"], band + 2 * math.log(3.0))[1]
    assert study.shares(study.SCHEDULES["cosine"], band, 1 / 3)[1] == pytest.approx(moved)


def test_the_band_of_the_score(arrays: dict[str, np.ndarray]) -> None:
    """Between 95 % and 5 % of the prior variance are left; laws have mean 0 and variance 1."""
    for target in TINY.targets:
        law = study.law_of(target)
        np.testing.assert_allclose(law.mean, 0.0, atol=1e-12)
        assert np.trace(law.cov) == pytest.approx(law.dim)
        times = study.ANGLE.time_of_log_snr(arrays[f"{target} band"])
        found = [weightings.uncertainty(Oracle(law, study.ANGLE), float(t)) for t in times]
        np.testing.assert_allclose(np.array(found) / law.dim, [0.95, 0.05], atol=1e-6)


def test_what_the_prior_costs(arrays: dict[str, np.ndarray]) -> None:
    """Data of covariance C under noise of variance v: tr C^2/4v^2; 0 where alpha is."""
    v = float(process.VE().var(1.0))
    for target in TINY.targets:
        found = study.prior_gap(study.SCHEDULES["VE, 25^t"], target)
        cov = study.law_of(target).cov
        assert found == pytest.approx(np.sum(cov * cov) / (4 * v * v), rel=0.05)
        gap = dict(zip(TINY.schedules, arrays[f"{target} prior"]))
        assert abs(gap["rectified flow"]) < 1e-9
        assert max(abs(gap[name]) for name in ("EDM steps", "linear")) < 1e-7


# ------------------------------------------------------------------ equal steps


def test_steps_between_equal_log_snrs_are_the_same_for_all() -> None:
    """All processes in continuous time; Euler's steps on the flow, the wrong twin, are not."""
    config = dataclasses.replace(TINY, schedules=tuple(ALL), samplers=study.INVARIANT)
    found = study.invariance(config, PLANE, Run(4))
    assert found[:-1].max() < 1e-9
    assert found[-1] > 1e-2


def test_the_distance_is_w1(arrays: dict[str, np.ndarray]) -> None:
    """Beside `metrics.wasserstein`, on shifted points, and of the projections. Seeds 1 and 2."""
    x = study.law_of(LINE).sample(512, 1)
    theirs = metrics.wasserstein(x, study.law_of(LINE), 0, 1, repeats=0).value
    assert study.distance(LINE, x[None])[0] == pytest.approx(theirs, abs=4e-3)
    assert abs(study.distance(LINE, 1.1 * x[None])[0] - theirs) > 1e-2
    y = study.law_of(PLANE).sample(512, 2)
    directions, means = study.pieces(PLANE, 512)
    law = study.law_of(PLANE)
    for i in (0, 5):
        along = np.sort(y @ directions[i])
        assert np.mean(along) == pytest.approx(means[i].mean(), abs=4.9 / math.sqrt(512))
        assert np.var(means[i]) == pytest.approx(directions[i] @ law.cov @ directions[i], rel=1e-2)
    far = study.distance(PLANE, np.stack([y, y + np.array([3.0, 0.0])]))
    assert far[1] == pytest.approx(3 * np.abs(directions[:, 0]).mean(), rel=0.1)
    assert far[0] < 0.1


def test_runs_with_the_exact_score_come_to_the_floor(arrays: dict[str, np.ndarray]) -> None:
    config = dataclasses.replace(TINY, points=256, steps=(4, 100), few=(4,), fine=200)
    run = Run(5)
    floor = study.facts(config, LINE, run)["floor"][1].mean()
    found = study.exact_cell(config, run, LINE, "linear", "dpm_2m")["W1"].mean(axis=1)
    assert floor < 0.02
    assert abs(found[1] - floor) < 0.01
    assert found[0] > found[1] + 0.02
    alone = study.exact_cell(config, Run(5), LINE, "linear", "dpm_2m")["W1"]
    assert np.array_equal(alone.mean(axis=1), found)


# ------------------------------------------------------------------ training


def lesson(name: str, weighting: str) -> Any:
    """The lesson of a schedule."""
    return study.Lesson(study.SCHEDULES[name], weighting, TINY.window)


@pytest.mark.parametrize("name", ALL)
def test_the_weight_of_the_bound_gives_all_the_same_loss(name: str) -> None:
    """E weight f = int f dlambda/2 over the window, by the midpoint rule in u; not with 1."""
    law = lesson(name, "bound").law()
    t = law.quantile(torch.as_tensor((np.arange(65_536) + 0.5) / 65_536))
    level = study.ANGLE.log_snr(t)
    low, high = lesson(name, "bound").levels
    known = np.linspace(low, high, 20_001)
    wanted = 0.5 * np.trapezoid(np.exp(-0.1 * (known - 1.0) ** 2), known)
    f = torch.exp(-0.1 * (level - 1.0) ** 2)
    weight = law.corrected(weightings.bound)(law.process, t)
    assert float((weight * f).mean()) == pytest.approx(wanted, rel=2e-3)
    simple = float(f.mean()) * (high - low) / 2
    assert name in (study.EVEN, "VE geometric") or abs(simple / wanted - 1) > 1e-2


def test_times_have_the_density_of_their_schedule() -> None:
    """The share in a band, 20,000 times, seed 7; and not that of another schedule."""
    band = np.array([-1.0, 2.0])
    for name, other in (("linear", "rectified flow"), ("EDM log-normal", "EDM steps")):
        law = lesson(name, "simple").law()
        level = study.ANGLE.log_snr(law(20_000, torch.Generator().manual_seed(7))).numpy()
        share = np.mean((band[0] < level) & (level < band[1]))
        true, wrong = (study.shares(study.SCHEDULES[s], band)[1] for s in (name, other))
        error = math.sqrt(true * (1 - true) / 20_000)
        assert abs(share - true) < 4.9 * error + study.EARLY
        assert abs(share - wrong) > 4.9 * error + study.EARLY


def test_networks_see_only_what_their_schedule_has_shown() -> None:
    own = lesson("VE, 25^t", "simple")
    low, high = own.levels
    assert low == pytest.approx(float(process.VE().log_snr(1.0)))
    ends = own.seen(torch.tensor([0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(ends, [-high / 8, -low / 8])
    far = lesson("rectified flow", "simple").seen(torch.tensor([0.0, 1.0], dtype=torch.float64))
    np.testing.assert_allclose(far, [-study.SEEN / 8, study.SEEN / 8])
    assert lesson("linear", "bound").levels == pytest.approx(TINY.window)


def test_networks_are_those_trained_alone() -> None:
    """And networks of another schedule or weighting are others."""
    pair = [lesson("linear", "simple"), lesson("rectified flow", "simple")]
    models, run = study.taught(TINY, PLANE, pair, Run(8)), Run(8)
    x = study.law_of(PLANE).sample(20, 9)
    found = [model.eps(np.stack([x, x]), 0.4)[1] for model in models]
    for own, ours in zip(pair, found):
        net = nets.MLP(2, (8, 8), seed=run.seed_for("weights", PLANE, 1))
        alone = Network(net, study.ANGLE, "v", own.seen)
        train.train(
            alone, study.law_of(PLANE), steps=3, seed=run.seed_for("training", PLANE, 1), batch=8,
            rate=TINY.rate, final_rate=TINY.final_rate, loss=losses.weighted, times=own.law(),
        )  # fmt: skip
        np.testing.assert_allclose(ours, alone.eps(x, 0.4), atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-4
    [other] = study.taught(TINY, PLANE, [lesson("linear", "bound")], Run(8))
    assert np.abs(other.eps(np.stack([x, x]), 0.4)[1] - found[0]).max() > 1e-4


# ------------------------------------------------------------------ numbers


def test_parts_and_spread() -> None:
    rows, columns = np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 9.0, 27.0])
    table = np.repeat((rows[:, None] * columns)[..., None], 2, axis=2)
    a, b = np.var(np.log(rows)), np.var(np.log(columns))
    np.testing.assert_allclose(study.parts(table), [a / (a + b), b / (a + b), 0], atol=1e-12)
    table[0, 0] *= 3
    assert study.parts(table)[2] > 0.02
    assert study.spread(np.array([[1.0, 3.0], [2.0, 6.0], [4.5, 11.5]])) == pytest.approx(4.0)


def test_chance_has_no_part_and_its_ratio_is_told() -> None:
    """400 tables, seed 6: equal rows with chances of their own have a share of 0 on average, above
    0 without the mend; the ratio by chance is that of equal schedules, and not that of others.
    """
    random, shares = np.random.default_rng(6), []
    ratios, told = np.empty(400), np.empty(400)
    columns = np.array([1.0, 2.0, 4.0, 8.0])[:, None]
    for k in range(400):
        own = np.exp(0.1 * random.standard_normal((5, 1, 8)))  # a network has one chance for all
        shares.append(study.parts(own * columns))
        ratios[k], told[k] = study.spread(own[:, 0]), study.by_chance(own[:, 0])
    training = np.array(shares)[:, 0]
    assert abs(training.mean()) < 4.9 * training.std() / 20
    assert 0.1**2 * 4 / 5 / 8 / np.var(np.log(columns)) > 4.9 * training.std() / 20
    assert told.mean() == pytest.approx(ratios.mean(), abs=0.01)
    apart = study.by_chance(own[:, 0] * np.array([1.0, 1.0, 1.0, 1.0, 3.0])[:, None])
    assert apart == pytest.approx(told[-1], rel=1e-9)


def test_the_jackknife_is_the_standard_error() -> None:
    """Of a mean exactly; of a ratio as the delta method, which forgets neither covariance."""
    values = np.random.default_rng(5).standard_normal((2, 400)) * 0.1 + [[2.0], [1.0]]
    values[1] += 0.3 * (values[0] - 2.0)
    mean, error = study.jackknife(lambda v: v.mean(axis=-1), values)
    np.testing.assert_allclose(mean, values.mean(axis=1))
    np.testing.assert_allclose(error, values.std(axis=1, ddof=1) / math.sqrt(400))
    ratio, error = study.jackknife(study.spread, values)
    away = (values[0] - ratio * values[1]) / values[1].mean()
    assert error == pytest.approx(away.std(ddof=1) / math.sqrt(400), rel=1e-2)
    apart = math.hypot(*(v.std(ddof=1) / math.sqrt(400) / v.mean() for v in values)) * ratio
    assert apart != pytest.approx(error, rel=1e-2)


def test_kl_is_half_the_area(arrays: dict[str, np.ndarray]) -> None:
    changed = dict(arrays)
    changed["learned eps"] = np.ones_like(arrays["learned eps"]) * [1.0, 2.0]
    length = TINY.window[1] - TINY.window[0]
    found = study.kl(TINY, changed, LINE)
    np.testing.assert_allclose(found, np.full((4, 2), [length / 2, length]))


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "effects", "schedules", "training", "steps", "checks", "cells"]
    main = tables[""].set_index(["target", "schedule"])
    assert len(main) == 2 * 4
    at = (arrays["learned target"] == PLANE) & (arrays["learned weighting"] == "simple")
    [values] = arrays["learned W1"][at]
    row, own = main.loc[(PLANE, "linear")], values[0, 0, 1, 0]
    assert row["W1 trained, own steps"] == pytest.approx(own.mean())
    assert row["W1 trained, own steps, error"] == pytest.approx(abs(own[0] - own[1]) / 2)
    assert row["W1 trained, even steps"] == pytest.approx(values[0, 3, 1, 0].mean())
    even = main.loc[(LINE, study.EVEN)]
    assert even["W1 trained, own steps"] == even["W1 trained, even steps"]
    training = tables["training"]
    assert len(training) == 3 * 4
    same = training[training["schedule"] == study.EVEN]
    assert (same["KL above that of even"] == 0).all()
    cells = tables["cells"]
    # exact; all pairs, and own ways in other steps or by the other sampler; of the bound even ones
    assert len(cells) == 2 * (2 * 4 * 2 * 2 + 2 * (4 * 4 + 4 * 3) + 4)
    assert np.isfinite(cells["W1"]).all()
    assert not cells.duplicated(cells.columns[:-1].tolist()).any()
    wanted = {
        "target": PLANE, "score": "simple", "trained by": "linear", "way": "linear",
        "sampler": "dpm_2m", "steps": 4,
    }  # fmt: skip
    asked = cells[np.all([cells[key] == value for key, value in wanted.items()], axis=0)]
    np.testing.assert_array_equal(asked["W1"], own)
    effects = tables["effects"].set_index(["target", "effect on", "measure"])
    exact = [study.exact_of(arrays, PLANE, s, "dpm_2m")[0].mean() for s in TINY.schedules]
    assert effects.loc[(PLANE, "sampling", "W1"), "largest"] == pytest.approx(max(exact))
    share = effects.loc[(PLANE, "training", "W1"), "share of var log W1"]
    assert share == pytest.approx(study.parts(values[:, :, 1, 0])[0])
    assert (LINE, "training, bound", "KL") not in effects.index
    steps = tables["steps"]
    assert len(steps) == 2 * 4 * 2 * 2
    assert tables["checks"]["largest difference"].iloc[:2].max() < 1e-9


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    at = (arrays["learned target"] == LINE) & (arrays["learned weighting"] == "simple")
    again = study.learned_cell(TINY, Run(TINY.seed), LINE, "simple")
    for key, value in again.items():
        np.testing.assert_array_equal(value, arrays[f"learned {key}"][at][0])
    facts = study.facts(TINY, LINE, Run(TINY.seed))
    assert all(np.array_equal(value, arrays[f"{LINE} {key}"]) for key, value in facts.items())
    other = study.learned_cell(TINY, Run(4), LINE, "simple")
    assert not np.array_equal(other["W1"], arrays["learned W1"][at][0], equal_nan=True)
    assert not np.array_equal(other["eps"][..., 0], other["eps"][..., 1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures["pairs"], {})
    assert list(figures) == ["", "curves", "steps", "training", "pairs"]
    alone = dataclasses.replace(TINY, targets=(PLANE,))
    panels = study.draw_curves(alone, arrays).axes
    assert [bool(ax.lines) for ax in panels] == [True] * 5 + [False]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ()),
        ("targets", ("rolls",)),
        ("targets", ("swiss_roll",)),
        ("targets", ("grid", "grid")),
        ("schedules", ("linear",)),
        ("schedules", ("straight", study.EVEN)),
        ("samplers", ("heun", "ddim")),
        ("samplers", ("ddim", "ancestral")),
        ("steps", (8, 4)),
        ("steps", (2, 4, 8)),
        ("few", (4, 5)),
        ("pairs", 16),
        ("seeds", 1),
        ("points", 100),
        ("window", (2.0, 1.0)),
        ("window", (-4.5, 12.0)),
        ("levels", 2),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("fine", 4),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})
