"""The study parameterisations: its losses weigh as it says, its networks train as they would alone.

Nothing here is a statistical test: expectations are quadratures, and draws are held against the
same draws.
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
    sweep,
    train,
)
from diffscience.ensembles import Ensemble
from diffscience.errors import ArgumentError
from diffscience.network import PREDICTIONS
from diffscience.quadrature import panels
from diffscience.study import Run

STUDY, _ = runner.load(Path(__file__).parents[1] / "studies" / "parameterisations.py")
study: Any = sys.modules["diffscience_studies.parameterisations"]

LINE, PLANE = gallery.julia_bimodal(), gallery.eight_gaussians()
TINY = study.Config(
    predicts=("eps", "x0", "preconditioned"), shape="8", raw=("eps", "x0"), logged=("x0",),
    sized=("x0",), shapes=("4-4",), rates=(1e-3, 1e-2), steps=4, batch=16, seeds=2, panels=1,
    samples=40, sampler_steps=4, seed=3,
)  # fmt: skip
FULL = STUDY.config


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def network(predicts: str, law: Any = LINE, seed: int = 0) -> Network:
    """A contender with fresh weights, in double precision."""
    net = nets.MLP(law.dim, (8,), study.FREQUENCIES, seed=seed).double()
    found: Network = study.network_of(net, law, predicts, study.own_view(predicts))
    return found


# ------------------------------------------------------------------ weights and times


@pytest.mark.parametrize("predicts", study.CONTENDERS)
def test_the_native_loss_weighs_as_is_said(predicts: str) -> None:
    """Row by row to 1e-8, and by no weight of another parameterisation."""
    generator = torch.Generator().manual_seed(1)
    x0 = torch.as_tensor(LINE.sample(50, 2))
    t = torch.linspace(1e-3, 1.0, 50, dtype=torch.float64)
    noise = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    model = network(predicts)
    native = losses.denoising(model, x0, t, noise).detach()
    off = losses.simple(model, x0, t, noise).detach()
    families = [{"eps", "scaled_score"}, {"edm", "preconditioned"}]
    for other in study.CONTENDERS:
        same = other == predicts or any({other, predicts} == family for family in families)
        weight = study.native_weight(other, study.spread(LINE))(study.PROCESS, t)
        assert torch.allclose(weight * off, native, rtol=1e-8, atol=0.0) == same


@pytest.mark.parametrize("predicts", study.CONTENDERS)
def test_the_implied_weight_is_that_of_the_native_loss(predicts: str) -> None:
    """Moments of r under w p dt are those under the weight by unit of r: 1e-5; without p, not."""
    edges = np.geomspace(FULL.end, 1.0, 400)
    t, dt = panels(edges, 8)
    law = study.times_of(FULL, LINE, predicts, study.NATIVE)
    by_time = study.native_weight(predicts, study.spread(LINE))(study.PROCESS, t) * dt
    low, high = (float(study.PROCESS.log_snr(t)) for t in edges[[-1, 0]])
    r, dr = panels(np.linspace(low, high, 400), 8)
    by_level = study.implied(FULL, LINE, predicts, r) * dr

    def moment(weight: np.ndarray, level: np.ndarray) -> float:
        return float(weight @ level / weight.sum())

    found = moment(by_level, r)
    assert moment(by_time * law.density(t), study.PROCESS.log_snr(t)) == pytest.approx(
        found, rel=1e-5, abs=1e-4
    )
    twin = study.native_weight(predicts, study.spread(LINE))(
        study.PROCESS, study.PROCESS.time_of_log_snr(r)
    )
    assert moment(twin * dr, r) != pytest.approx(found, rel=1e-3, abs=1e-3)


def test_common_times_are_even_in_the_log_snr() -> None:
    """To a hundredth of the range's 19; uniform times are off by more than 2."""
    u = np.linspace(0.05, 0.95, 19)
    low, high = (float(study.PROCESS.log_snr(t)) for t in (1.0, FULL.end))
    even = high + (low - high) * u
    for objective, off in ((study.COMMON, 0.02), (study.NATIVE, 2.0)):
        law = study.times_of(FULL, LINE, "x0", objective)
        r = study.PROCESS.log_snr(np.asarray(law.quantile(u)))
        assert (np.abs(r - even).max() < off) == (objective == study.COMMON)


def test_the_times_of_edm_move_with_the_data() -> None:
    """The median of log sigma/alpha is -1.2 for data of spread 1/2, and follows their size."""
    law = study.times_of(FULL, LINE, study.WHOLE, study.NATIVE)
    median = -0.5 * float(study.PROCESS.log_snr(law.quantile(np.array([0.5])))[0])
    assert study.spread(LINE) == pytest.approx(math.sqrt(10.0))
    assert median == pytest.approx(-1.2 + math.log(math.sqrt(10.0) / 0.5), abs=1e-3)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0])
def test_preconditioning_makes_everything_of_size_one(t: float) -> None:
    """E|x/m|^2 and E|F|^2 over D are 1, x0 by quadrature and eps = +-1; with the deviation not."""
    for law in (LINE, PLANE):
        x0, w = law.quadrature()
        for d, fits in ((study.spread(law), True), (0.5 * study.spread(law), False)):
            model = study.network_of(nets.MLP(law.dim, (4,), ()), law, study.WHOLE, "log")
            model.sigma_data = d
            points = torch.as_tensor(x0)
            c = model.coefficients(points, t)
            sizes = []
            for sign in (1.0, -1.0):
                eps = torch.full_like(points, sign)
                F = PREDICTIONS["edm"].target(points, eps, c)
                sizes.append(float(w @ (F**2).sum(dim=-1).numpy()) / law.dim)
            assert (abs(np.mean(sizes) - 1) < 1e-9) == fits
        m = float(model.scale(torch.tensor(t, dtype=torch.float64)))
        noised, weights = law.diffuse(study.PROCESS.at(t)).quadrature()
        size = float(weights @ np.sum((m * noised) ** 2, axis=-1)) / law.dim
        assert size == pytest.approx(1.0, rel=1e-9)


# ------------------------------------------------------------------ what is measured


def nats_by_time(model: Any, law: Any, end: float) -> np.ndarray:
    """1/2 int g^2 E|s_model - s|^2 dt from `end` to T, (members,), by a quadrature in log t."""
    log_t, weight = panels(np.linspace(math.log(end), 0.0, 31), 4)
    t = np.exp(log_t)
    error = metrics.fisher_error(model, Oracle(law, study.PROCESS), t).value
    rate = np.asarray(study.PROCESS.diffusion(t)) ** 2
    return np.asarray(0.5 * (weight * t * rate) @ error)


def test_nats_are_girsanovs_bound() -> None:
    """As an integral over the time, for two networks at once, each its own; exchanged, not.

    To 1e-5 with 20 panels, and to 1 % with those of the study.
    """
    pair = [nets.MLP(1, (8,), study.FREQUENCIES, seed=k).double() for k in (1, 2)]
    model = network("v").with_net(Ensemble(pair).requires_grad_(False))
    alone = [network("v").with_net(net.requires_grad_(False)) for net in pair]
    exact = np.array([float(nats_by_time(one, LINE, FULL.end)) for one in alone])
    for panels_, within in ((20, 1e-5), (FULL.panels, 1e-2)):
        nodes = study.nodes_of(dataclasses.replace(FULL, panels=panels_))
        error = evaluation.eps_errors(model, Oracle(LINE, study.PROCESS), nodes.t)
        nats = 0.5 * error @ nodes.width
        np.testing.assert_allclose(nats, exact, rtol=within)
        assert not np.allclose(nats, exact[::-1], rtol=10 * within)


def test_the_samples_of_the_exact_score_are_the_floor() -> None:
    """More steps leave less of W1 on the line; the size of eps is D where only noise is left."""
    config = dataclasses.replace(TINY, samples=400, panels=4)
    few, many = (
        study.exact(dataclasses.replace(config, sampler_steps=n), Run(1), "julia_bimodal")
        for n in (8, 64)
    )
    assert np.all(many["floor"] < 0.1 * few["floor"])
    assert few["size"][0] == pytest.approx(1.0, abs=1e-2)
    assert few["size"][-1] < 1e-3
    start = study.starts(config, Run(1), "julia_bimodal")
    assert np.all(study.distances(config, Run(1), "julia_bimodal", start) > 1.0)


def test_the_starts_are_points_of_the_last_law() -> None:
    """Even quantiles on the line; each seed has its own, every contender the same."""
    config = dataclasses.replace(TINY, samples=500)
    line = study.starts(config, Run(1), "julia_bimodal")
    even = np.asarray(Oracle(LINE, study.PROCESS).at(1.0).cdf(line[0]))
    np.testing.assert_allclose(np.diff(even.ravel()), 1 / 500, atol=1e-9)
    for target, dim in (("julia_bimodal", 1), ("eight_gaussians", 2)):
        found = study.starts(config, Run(1), target)
        assert found.shape == (2, 500, dim)
        assert not np.array_equal(found[0], found[1])
        np.testing.assert_array_equal(found, study.starts(config, Run(1), target))


@pytest.mark.parametrize("objective", study.OBJECTIVES)
def test_networks_train_as_they_would_alone(objective: str) -> None:
    """The second seed at the second rate, of two contenders: same weights at first, same draws."""
    run, rate = Run(5), TINY.rates[1]
    for predicts in ("eps", "preconditioned"):
        sees = study.own_view(predicts)
        together = study.trained(TINY, run, "eight_gaussians", predicts, sees, "8", objective)
        frequencies = study.FREQUENCIES if sees == "fourier" else ()
        results = []
        for k in (1, 0):
            seed = run.seed_for("weights", "eight_gaussians", k)
            net = nets.MLP(2, (8,), frequencies, seed=seed)
            alone = study.network_of(net, PLANE, predicts, sees)
            train.train(
                alone, PLANE, steps=TINY.steps, rate=rate, final_rate=TINY.fall * rate,
                seed=run.seed_for("training", "eight_gaussians", k), batch=TINY.batch,
                loss=losses.simple if objective == study.COMMON else losses.denoising,
                times=study.times_of(TINY, PLANE, predicts, objective),
            )  # fmt: skip
            results.append(alone.state()["out.weight"])
        found = together.net.state(3)["out.weight"].numpy()
        np.testing.assert_allclose(found, results[0], rtol=1e-3, atol=1e-5)
        assert not np.allclose(found, results[1], rtol=1e-3, atol=1e-5)


def test_the_cells_are_those_that_are_wanted() -> None:
    def count(config: Any, **wanted: str) -> int:
        axes = {
            "target": config.targets, "predicts": config.predicts, "sees": study.VIEWS,
            "shape": (config.shape, *config.shapes), "objective": study.OBJECTIVES,
        }  # fmt: skip
        cells = sweep.expand(axes, lambda at: study.wanted(config, at))
        return sum(all(cell[name] == value for name, value in wanted.items()) for cell in cells)

    n, targets = len(FULL.predicts), len(FULL.targets)
    assert count(FULL, objective=study.NATIVE) == n * targets
    assert count(FULL, sees="raw", shape=FULL.shape) == len(FULL.raw) * targets
    assert count(FULL, predicts=study.WHOLE) == 2 * targets
    assert count(FULL, predicts=study.CONTROL) == 3 * targets
    assert count(FULL, shape=FULL.shapes[0]) == len(FULL.sized) * targets
    assert count(FULL, sees="log", predicts="v") == 0
    assert count(TINY, sees="log", predicts="x0") == targets


# ------------------------------------------------------------------ tables and pictures


def test_the_best_rate_counts(arrays: dict[str, np.ndarray]) -> None:
    """That of the least mean nats; its own W1 and relative error go with it."""
    np.testing.assert_array_equal(arrays["best"], study.nats_of(arrays).mean(axis=2).argmin(axis=1))
    at = ("julia_bimodal", "x0", "raw", "8", study.COMMON)
    changed = {name: value.copy() for name, value in arrays.items()}
    i = next(
        i for i in range(len(arrays["target"]))
        if tuple(str(arrays[axis][i]) for axis in study.AXES) == at
    )  # fmt: skip
    for better in (0, 1):
        changed["error"][i, better], changed["error"][i, 1 - better] = 1.0, 2.0
        changed["best"][i], changed["W1"][i] = better, 3.0 + better
        found = study.found_at(TINY, changed, at)
        assert found.rate == TINY.rates[better]
        np.testing.assert_allclose(found.nats, 0.5 * arrays["weight"].sum())
        np.testing.assert_allclose(found.W1, 3.0 + better)
        size = study.known(arrays, "julia_bimodal", "size")
        np.testing.assert_allclose(found.relative, np.stack([1 / size] * 2))
        np.testing.assert_allclose(
            found.off, arrays["weight"] @ (1 / size) / arrays["weight"].sum()
        )


def test_samples_are_those_of_the_best_rate(arrays: dict[str, np.ndarray]) -> None:
    """Sampled on their own, the networks of that rate have that W1; those of the other, not."""
    at = ("eight_gaussians", "x0", "raw", "8", study.COMMON)
    run, found = Run(TINY.seed), study.found_at(TINY, arrays, at)
    model = study.trained(TINY, run, *at)
    start = study.starts(TINY, run, at[0])
    for j, rate in enumerate(TINY.rates):
        own = model.with_net(model.net.part(2 * j, 2 * j + 2).requires_grad_(False))
        W1 = study.distances(TINY, run, at[0], study.sampled(TINY, own, start))
        assert np.allclose(W1, found.W1, rtol=1e-4) == (rate == found.rate)


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "views", "shapes", "levels", "cells"]
    main = tables[""].set_index(["target", "predicts"])
    assert len(main) == 6
    found = study.contender(TINY, arrays, "eight_gaussians", "eps")
    row = main.loc[("eight_gaussians", "eps")]
    assert row["nats"] == pytest.approx(found.nats.mean())
    assert row["nats error"] == pytest.approx(found.nats.std(ddof=1) / math.sqrt(2))
    assert row["W1 floor"] == pytest.approx(arrays["exact floor"][1].mean())
    apart = study.contender(TINY, arrays, "eight_gaussians", "eps", study.NATIVE).W1 - found.W1
    assert row["native W1 - W1"] == pytest.approx(apart.mean())
    assert row["native W1 - W1 error"] == pytest.approx(apart.std(ddof=1) / math.sqrt(2))
    native = study.contender(TINY, arrays, "eight_gaussians", "eps", study.NATIVE).nats
    times = np.exp(np.log(native / found.nats).mean())
    assert row["native/common"] == pytest.approx(times) and times != pytest.approx(1.0)
    for target in TINY.targets:
        rows = main.loc[target]
        assert rows["nats"].idxmin() == rows["to the least"].idxmin()
        assert rows["to the least"].min() == pytest.approx(1.0)
    views, shapes = tables["views"], tables["shapes"]
    assert views["sees"].tolist()[:5] == ["fourier", "raw", "fourier", "raw", "log"]
    assert study.WHOLE not in set(views["predicts"])
    own = views[views["sees"] == "fourier"]
    np.testing.assert_allclose(own["to the own"], 1.0)
    assert shapes["shape"].tolist()[:2] == ["8", "4-4"]
    assert shapes["parameters"].tolist()[:2] == [97, 69]
    cells = tables["cells"]
    assert len(cells) == len(arrays["target"]) * 4
    one = cells[
        (cells["target"] == "julia_bimodal") & (cells["predicts"] == "x0")
        & (cells["objective"] == study.NATIVE) & (cells["rate"] == 1e-2)
    ]  # fmt: skip
    i = int(np.flatnonzero((arrays["predicts"] == "x0") & (arrays["objective"] == study.NATIVE))[0])
    np.testing.assert_allclose(one["nats"], 0.5 * arrays["error"][i, 1] @ arrays["weight"])
    levels = tables["levels"]
    weight = levels[levels["objective"] == study.NATIVE]["weight"].to_numpy().reshape(6, -1)
    np.testing.assert_allclose(weight @ arrays["weight"], 1.0)


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    one = dataclasses.replace(TINY, targets=("julia_bimodal",))
    again, other = STUDY.compute(one, Run(TINY.seed)), STUDY.compute(one, Run(4))
    n = len(again["target"])
    for key in ("error", "W1"):
        np.testing.assert_array_equal(again[key], arrays[key][:n])
        assert not np.array_equal(other[key], again[key])
    assert not np.array_equal(again["error"][:, :, 0], again["error"][:, :, 1])
    assert not np.array_equal(again["W1"][:, 0], again["W1"][:, 1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "levels", "views", "shapes"]
    for figure in figures.values():
        assert [legend for legend in figure.legends if legend.get_texts()]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("rolls",)),
        ("targets", ("empirical",)),
        ("targets", ()),
        ("predicts", ("eps", "noise")),
        ("predicts", ("eps",)),
        ("predicts", ("eps", "x0", "x0")),
        ("raw", ()),
        ("raw", ("preconditioned",)),
        ("logged", ("v",)),
        ("sized", ()),
        ("shape", "8-0"),
        ("shapes", ("a",)),
        ("shapes", ("8",)),
        ("shapes", ()),
        ("rates", (1e-2, 1e-3)),
        ("rates", (0.0, 1e-3)),
        ("fall", 2.0),
        ("end", 0.0),
        ("seeds", 1),
        ("steps", 0),
        ("samples", 5),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field[:5]):
        dataclasses.replace(TINY, **{field: value})
