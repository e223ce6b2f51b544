"""The study ema: its averages are those of the training, and hold what the formulas say.

Nothing here is a statistical test: all averages are held against the same trajectories.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import (
    Network,
    Oracle,
    evaluation,
    gallery,
    losses,
    metrics,
    nets,
    runner,
    times,
    train,
)
from diffscience.ensembles import Ensemble
from diffscience.errors import ArgumentError
from diffscience.models import Model
from diffscience.quadrature import panels
from diffscience.study import Run
from diffscience.train import History

STUDY, _ = runner.load(Path(__file__).parents[1] / "studies" / "ema.py")
study: Any = sys.modules["diffscience_studies.ema"]

LINE, PLANE = gallery.julia_bimodal(), gallery.eight_gaussians()
TINY = study.Config(
    decays=(0.0, 0.5, 0.9), lengths=(3, 6), widths=(8,), batch=16, seeds=2, panels=1, samples=40,
    sampler_steps=4, seed=3,
)  # fmt: skip
FULL = STUDY.config


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def history(values: np.ndarray) -> History:
    """A trajectory of one number, theta_1, theta_2, ..."""
    kept = {
        n: {"w": torch.tensor([[v]], dtype=torch.float64)}
        for n, v in enumerate(values.tolist(), start=1)
    }
    return History(np.zeros(len(values)), kept)


def averages(values: np.ndarray, decays: Any, marks: Any) -> np.ndarray:
    """The averages of a trajectory of one number, (marks, decays + 1)."""
    return np.stack(list(study.averages([history(values)], decays, marks)))[:, :, 0, 0]


# ------------------------------------------------------------------ averages


def test_plain_averages_are_the_sum_of_the_docstring() -> None:
    """To 1e-13 at two lengths; with theta_1 weighed as the others, not."""
    theta, decays = np.random.default_rng(1).standard_normal(9), (0.0, 0.3, 0.95)
    found = averages(theta, decays, (4, 9))
    for n, row in zip((4, 9), found):
        for d, mean in zip(decays, row[:-1]):
            later = (1 - d) * sum(d ** (n - j) * theta[j - 1] for j in range(2, n + 1))
            assert mean == pytest.approx(study.first_share(d, n) * theta[0] + later, abs=1e-13)
            if d:
                assert abs((1 - d) * d ** (n - 1) * theta[0] + later - mean) > 1e-6
        assert row[0] == theta[n - 1]


def test_the_warm_up_is_that_of_the_docstring() -> None:
    """Update by update; the plain rule differs, and so does a warm-up one update late."""
    theta, d = np.random.default_rng(2).standard_normal(30), 0.9
    ((plain, warm),) = averages(theta, (d,), (30,))
    means = []
    for late in (0, 1):
        mean = theta[0]
        for n in range(2, 31):
            keep = min(d, (1 + n - late) / (10 + n - late))
            mean = keep * mean + (1 - keep) * theta[n - 1]
        means.append(mean)
    assert warm == pytest.approx(means[0], abs=1e-13)
    assert abs(warm - means[1]) > 1e-6
    assert abs(warm - plain) > 1e-3


def test_an_average_of_one_number_is_that_number() -> None:
    found = averages(np.full(12, 0.7), (0.0, 0.5, 0.99), (1, 12))
    np.testing.assert_allclose(found, 0.7, rtol=1e-14)


def test_a_plain_average_lags_and_a_warm_up_less() -> None:
    """Of theta_n = n, the lag is (d - d^n)/(1 - d), that of the warm-up (n + 1)/10."""
    n, d = 80, 0.99
    ((plain, warm),) = averages(np.arange(1.0, n + 1), (d,), (n,))
    assert n - plain == pytest.approx((d - d**n) / (1 - d))
    assert n - warm == pytest.approx((n + 1) / 10, rel=1e-6)
    assert n - plain > 3 * (n - warm)


@pytest.mark.parametrize("schedule", study.SCHEDULES)
def test_averages_are_those_of_the_training(schedule: str) -> None:
    """Those of `train.train` alone, at a short and at the full length; of another decay, not."""
    run, (rate, last) = Run(5), study.rate_of(TINY, schedule)
    for length in TINY.lengths if schedule == study.FALLING else TINY.lengths[-1:]:
        histories = study.trajectories(TINY, run, "eight_gaussians", schedule, length)
        marks = TINY.lengths[: TINY.lengths.index(length) + 1]
        *_, found = study.averages(histories, TINY.decays, marks)
        for i, d in enumerate(TINY.decays):
            alone = Network(
                nets.MLP(2, (8,), seed=run.seed_for("weights", "eight_gaussians", 1)), study.PROCESS
            )
            seed = run.seed_for("training", "eight_gaussians", 1)
            own = train.train(
                alone, PLANE, steps=length, seed=seed, batch=TINY.batch, rate=rate,
                final_rate=last, loss=losses.simple, times=times.uniform(study.PROCESS, TINY.end),
                ema=d,
            )  # fmt: skip
            assert own.ema is not None
            kept = {name: own.ema[name] for name in histories[0].snapshots[1]}
            exact = study.flat([kept])[0].numpy()
            np.testing.assert_allclose(found[i, 1], exact, rtol=0, atol=1e-4)
            assert np.abs(found[i - 1, 1] - exact).max() > 3e-4


def test_shorter_trainings_at_a_constant_rate_are_the_beginning_of_longer_ones() -> None:
    """Where it falls they are not."""
    for schedule in (study.HIGH, study.FALLING):
        short, long = (
            study.flat(
                [study.trajectories(TINY, Run(5), "julia_bimodal", schedule, n)[0].snapshots[3]]
            )
            for n in (3, 6)
        )
        assert torch.allclose(short, long, rtol=1e-4, atol=1e-6) == (schedule == study.HIGH)


def test_weights_find_their_places() -> None:
    """`ensemble_of` undoes `flat`: every member answers as the network that it was."""
    config = dataclasses.replace(TINY, widths=(6, 5))
    members = [nets.MLP(2, (6, 5), seed=k) for k in range(3)]
    together = Ensemble(members)
    weights = study.flat([together.state(k) for k in range(3)]).numpy()
    model = study.ensemble_of(config, Run(0), PLANE, weights)
    x = np.random.default_rng(1).standard_normal((3, 7, 2))
    for k, net in enumerate(members):
        alone = Network(net.requires_grad_(False), study.PROCESS)
        np.testing.assert_allclose(model.eps(x, 0.3)[k], alone.eps(x[k], 0.3), rtol=1e-5, atol=1e-6)


# ------------------------------------------------------------------ what is measured


def nats_by_time(model: Any, law: Any, end: float) -> np.ndarray:
    """1/2 int g^2 E|s_model - s|^2 dt from `end` to T, (members,), by a quadrature in log t."""
    log_t, weight = panels(np.linspace(math.log(end), 0.0, 121), 4)
    t = np.exp(log_t)
    error = metrics.fisher_error(model, Oracle(law, study.PROCESS), t).value
    rate = np.asarray(study.PROCESS.diffusion(t)) ** 2
    return np.asarray(0.5 * (weight * t * rate) @ error)


def test_nats_are_girsanovs_bound() -> None:
    """Of an average of a cell, as an integral over the time: to 1e-4; twice that is not it."""
    config = dataclasses.replace(TINY, panels=40, lengths=(6,))
    histories = study.trajectories(config, Run(3), "julia_bimodal", study.LOW, 6)
    (weights,) = study.averages(histories, config.decays, (6,))
    found = study.judged(config, Run(3), "julia_bimodal", weights)
    nats = 0.5 * found["error"] @ study.nodes_of(config).width
    assert nats.shape == (4, 2)
    net = study.ensemble_of(config, Run(3), LINE, weights[2]).net.member(1)
    alone = Network(net.double().requires_grad_(False), study.PROCESS)
    exact = float(nats_by_time(alone, LINE, config.end))
    assert nats[2, 1] == pytest.approx(exact, rel=1e-4)
    assert 2 * nats[2, 1] != pytest.approx(exact, rel=1e-4)


def test_distances_and_sizes_are_those_of_the_law() -> None:
    """Even quantiles moved by 0.3 are 0.3 away, and a model that answers 0 is off by the size."""
    config = dataclasses.replace(TINY, samples=400, panels=2)
    even = LINE.quantile((np.arange(400) + 0.5) / 400).reshape(1, 400, 1)
    moved = np.concatenate([even + 0.3, even - 0.3])
    found = study.distances(config, Run(1), "julia_bimodal", moved)
    np.testing.assert_allclose(found, 0.3, rtol=2e-3)

    class Nothing(Model):
        process = study.PROCESS

        def score(self, x: Any, t: Any) -> Any:
            return 0.0 * x

    t = study.nodes_of(config).t
    for target, law in (("julia_bimodal", LINE), ("eight_gaussians", PLANE)):
        size = study.exact(config, Run(1), target)["size"]
        found = evaluation.eps_errors(Nothing(), Oracle(law, study.PROCESS), t)
        np.testing.assert_allclose(found, size, rtol=1e-6)


def test_a_cell_has_every_average_in_its_place(arrays: dict[str, np.ndarray]) -> None:
    """The plain average 0.5 after 3 of 6 updates, judged on its own; not after 6."""
    run = Run(TINY.seed)
    histories = study.trajectories(TINY, run, "julia_bimodal", study.HIGH, 6)
    first, second = study.averages(histories, TINY.decays, (3, 6))
    found = study.found_at(TINY, arrays, "julia_bimodal", study.HIGH, 3)
    weight = arrays["weight"]
    for weights, same in ((first, True), (second, False)):
        own = study.judged(TINY, run, "julia_bimodal", weights)
        nats = 0.5 * own["error"] @ weight
        assert np.allclose(nats[1], found.nats[1], rtol=1e-6) == same
        assert np.allclose(own["W1"][1], found.W1[1], rtol=1e-6) == same


# ------------------------------------------------------------------ tables and pictures


def test_the_best_decay_and_those_as_good() -> None:
    """Paired: 1 % more in every seed is worse, however much the seeds differ."""
    seeds = np.array([1.0, 2.0, 4.0, 8.0])
    wave = np.array([1.02, 0.98, 1.03, 0.99])
    nats = np.stack([1.01 * seeds, seeds, wave * seeds, 2 * seeds, 0.5 * seeds])  # and a warm-up
    found = study.Found(nats, nats, nats, nats[..., None])
    assert found.best == 1
    assert found.as_good() == [1, 2]


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "decays", "levels", "cells"]
    main, decays = tables[""], tables["decays"]
    assert len(main) == 6
    assert len(decays) == 2 * 3 * 2 * 4
    found = study.found_at(TINY, arrays, "eight_gaussians", study.FALLING, 6)
    row = main[(main["target"] == "eight_gaussians") & (main["rate"] == study.FALLING)].iloc[0]
    assert row["nats"] == pytest.approx(found.nats[0].mean())
    assert row["nats error"] == pytest.approx(found.nats[0].std(ddof=1) / math.sqrt(2))
    assert row["best decay"] == TINY.decays[found.best]
    assert row["best nats"] == found.nats[:-1].mean(axis=1).min()
    for column, i in (("longest/none", 2), ("warm-up/none", 3)):
        ratio = float(np.exp(np.mean(np.log(found.nats[i] / found.nats[0]))))
        assert row[column] == pytest.approx(ratio)
    assert row["W1 floor"] == pytest.approx(arrays["exact floor"][1].mean())
    plain = decays[decays["average"] == "0.9"]
    assert plain["of theta_1"].unique().tolist() == pytest.approx([0.9**2, 0.9**5])
    assert (decays[decays["average"] == "0"]["to none"] == 1).all()
    assert len(tables["cells"]) == len(decays) * TINY.seeds
    assert len(tables["levels"]) == 6 * 4 * 4


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    one = dataclasses.replace(TINY, targets=("julia_bimodal",))
    again, other = STUDY.compute(one, Run(TINY.seed)), STUDY.compute(one, Run(4))
    for key in ("error", "W1"):
        np.testing.assert_array_equal(again[key], arrays[key][:3])
        assert not np.array_equal(other[key], again[key])
        assert not np.array_equal(again[key][..., 0], again[key][..., 1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "lengths", "levels"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("rolls",)),
        ("targets", ("empirical",)),
        ("targets", ()),
        ("decays", (0.5, 0.9)),
        ("decays", (0.0, 0.9, 0.5)),
        ("decays", (0.0, 1.0)),
        ("lengths", (6, 3)),
        ("lengths", (1, 3)),
        ("lengths", ()),
        ("widths", ()),
        ("widths", (0,)),
        ("rate", 0.0),
        ("fall", 2.0),
        ("end", 0.0),
        ("seeds", 1),
        ("samples", 5),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})
