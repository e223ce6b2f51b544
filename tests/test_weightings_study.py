"""The study weightings: its integrals, errors, KL and gradients against other ways to them.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import (
    GaussianMixture,
    Network,
    Oracle,
    evaluation,
    gallery,
    losses,
    metrics,
    nets,
    runner,
    train,
    weightings,
)
from diffscience.errors import ArgumentError
from diffscience.study import Run

STUDY, _ = runner.load(Path(__file__).parents[1] / "studies" / "weightings.py")
study: Any = sys.modules["diffscience_studies.weightings"]

TINY = study.Config(
    laws=("julia_bimodal", "julia_trimodal"), weightings=("simple", "likelihood", "bound"), seeds=2,
    steps=4, widths=(8,), batch=8, nodes=4, rows=8, start_rows=16, samples=20, solver_steps=4,
    points=8, tolerance=1e-2, seed=3,
)  # fmt: skip
FULL = STUDY.config
LINE, PLANE = TINY.laws


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def crowd(config: Any, run: Run, law: str) -> tuple[list[Network], Network]:
    """Networks before training, alone and side by side."""
    networks = study.fresh_networks(config, run, law)
    return networks, networks[0].with_net(ds.ensembles.Ensemble([n.net for n in networks]))


# ------------------------------------------------------------------ times


def test_the_nodes_are_enough_for_the_least_losses() -> None:
    """E_t w best of every weighting, that with a kink too, with 24 and with 60, to 1 %; not 6."""
    oracle = study.oracle_of(LINE)

    def least(nodes: int) -> np.ndarray:
        config = dataclasses.replace(FULL, nodes=nodes)
        at = study.nodes_of(config)
        return study.weights_of(config, LINE) * at.share @ weightings.best(oracle, at.t)

    few, some, many = (least(nodes) for nodes in (6, FULL.nodes, 60))
    np.testing.assert_allclose(some, many, rtol=1e-2)
    assert np.abs(few / many - 1).max() > 1e-2


def test_edm_is_scaled_to_the_law() -> None:
    """A law c times as wide, noised c times as much, weighs alike; a weighting for 0.5 does not.

    EDM's levels, log(s/a) ~ N(-1.2, 1.2^2) for a law of deviation 1/2, in the log-SNR.
    """
    t, std = study.nodes_of(FULL).t, float(gallery.julia_bimodal().cov[0, 0]) ** 0.5
    noise = np.exp(-0.5 * study.PROCESS.log_snr(t)) / (2 * std)  # for a law of deviation 1/2
    plain = study.weighting_of(LINE, "edm")(study.PROCESS, t)
    np.testing.assert_allclose(plain, (noise**2 + 0.25) / 0.25, rtol=1e-9)
    assert not np.allclose(plain, weightings.edm(study.PROCESS, t), rtol=0.1)
    levels = study.weighting_of(LINE, study.LEVELS)(study.PROCESS, t) / plain
    by_level = levels * study.nodes_of(FULL).share / study.nodes_of(FULL).width
    normal = np.exp(-0.5 * ((np.log(noise) + 1.2) / 1.2) ** 2)
    np.testing.assert_allclose(by_level / by_level.max(), normal / normal.max(), rtol=1e-6)
    for name in ("p2", "sigmoid"):
        assert study.weighting_of(LINE, name) is weightings.ALL[name]


# ------------------------------------------------------------------ errors and losses


@pytest.mark.parametrize("law", TINY.laws)
def test_relative_errors_are_those_of_the_metric(law: str) -> None:
    """Of `metrics.fisher_error`; not the plain ones."""
    _, model = crowd(TINY, Run(1), law)
    t, oracle = study.nodes_of(TINY).t, study.oracle_of(law)
    found = evaluation.eps_errors(model, oracle, t)
    about = study.facts(law, t)
    both = {f"{law} error": found, f"{law} exact energy": about["energy"]}
    theirs = metrics.fisher_error(model, oracle, t, relative=True).value.T
    np.testing.assert_allclose(study.relative(TINY, both, law), theirs, rtol=1e-5)
    assert np.abs(found / theirs - 1).max() > 0.1


def test_the_loss_is_the_least_loss_and_the_excess() -> None:
    """Means of 200,000 weighted rows at uniform times; without the excess they are not. Seed 1."""
    config = dataclasses.replace(FULL, seeds=2, widths=(8,), weightings=("simple", "min_snr", "p2"))
    networks, model = crowd(config, Run(1), LINE)
    t = study.nodes_of(config).t
    about = study.facts(LINE, t)
    error = evaluation.eps_errors(model, study.oracle_of(LINE), t)
    both = {f"{LINE} error": np.tile(error, (3, 1, 1))}
    both[f"{LINE} exact best"] = about["best"]
    excess = study.excess(config, both, LINE)[0, 0]
    share = study.weights_of(config, LINE) * study.nodes_of(config).share
    generator = torch.Generator().manual_seed(1)
    t = ds.times.uniform(study.PROCESS, config.earliest)(200_000, generator)
    x0 = gallery.julia_bimodal().sample(200_000, generator)
    noise = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
    for j, name in enumerate(config.weightings):
        with torch.no_grad():
            rows = losses.weighted(networks[0], x0, t, noise, weightings.ALL[name]).numpy()
        least, error = share[j] @ about["best"], rows.std() / rows.size**0.5
        assert abs(rows.mean() - least * (1 + excess[j])) < 4.9 * error
        assert abs(rows.mean() - least) > 4.9 * error


def test_the_excess_of_the_bound_in_nats() -> None:
    """1/2 int e dr is what `bound` weighs, and half of what `likelihood` does."""
    nodes = study.nodes_of(FULL)
    error = np.random.default_rng(1).uniform(size=(2, 3, FULL.nodes))
    found = study.bound_excess(FULL, {"law error": error}, "law")
    weight = weightings.bound(study.PROCESS, nodes.t)
    by_time = (1 - FULL.earliest) * error @ (nodes.share * weight)
    np.testing.assert_allclose(found, by_time, rtol=1e-12)


# ------------------------------------------------------------------ likelihood and samples


@pytest.mark.parametrize("law", TINY.laws)
def test_the_kl_of_exact_models(law: str) -> None:
    """0 for the truth; for laws of four times the variance the exact one, to 1 % or 4.9 errors."""
    config = dataclasses.replace(TINY, tolerance=1e-6, points=400)
    oracle = study.oracle_of(law)
    assert np.abs(study.kl_of(config, Run(1), oracle, law)).max() < 1e-5
    true = oracle.law
    wide = Oracle(GaussianMixture(true.weights, true.means, 4 * true.covs), study.PROCESS)
    found = study.kl_of(config, Run(1), wide, law)
    first = oracle.at(config.earliest)
    exact = metrics.kl_on_grid(wide.at(config.earliest).log_prob, first).value
    if true.dim == 1:
        np.testing.assert_allclose(found, exact, rtol=1e-2)
        assert found[0] != pytest.approx(2 * exact, rel=1e-2)
        return
    x, w = first.quadrature()
    gap = first.log_prob(x) - wide.at(config.earliest).log_prob(x)
    spread = np.sqrt(w @ gap**2 - exact**2) / 400**0.5
    assert np.all(np.abs(found - exact) < 4.9 * spread)
    assert np.all(np.abs(found - 2 * exact) > 4.9 * spread)
    assert found[0] != found[1]


def test_exact_samples_are_at_the_floor_and_moved_ones_are_not() -> None:
    """On the line a lattice of 400 misses by its own width; in the plane the distance is 0 ± 5 s.

    Seeds 1, 2.
    """
    config = dataclasses.replace(TINY, samples=400, solver_steps=40)
    for law in TINY.laws:
        begin = study.starts(config, Run(1), law)
        dim = begin.shape[-1]
        exact = study.sampled(config, study.oracle_of(law), begin.reshape(-1, dim))
        x = exact.reshape(begin.shape)
        near = study.distances(config, Run(2), law, x)
        far = study.distances(config, Run(2), law, x + 1.0)
        if dim == 1:
            assert near.max() < 0.03
            np.testing.assert_allclose(far, 1.0, atol=0.03)
        else:
            true = metrics.energy_distance(x[0], study.oracle_of(law).at(config.earliest), 3)
            assert np.abs(near).max() < 4.9 * true.floor_error + 1e-9
            assert far.min() > 4.9 * true.floor_error


# ------------------------------------------------------------------ gradients


def rows_at(law: str, t: np.ndarray, n: int, seed: int) -> tuple[torch.Tensor, ...]:
    """n rows at each of the times, in single precision."""
    draws = np.random.default_rng(seed)
    x0 = gallery.ALL[law]().sample(len(t) * n, draws)
    given = x0, np.repeat(t, n), draws.standard_normal(x0.shape)
    return tuple(torch.as_tensor(a) for a in given)


def one_by_one(network: Network, given: tuple[torch.Tensor, ...]) -> np.ndarray:
    """The gradient of every row by itself, (rows, parameters), in the order of `row_gradients`."""
    found = []
    weights = list(network.net.parameters())
    for row in zip(*given):
        value = losses.weighted(network, *(a[None] for a in row)).sum()
        found.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, weights)]))
    return torch.stack(found).double().numpy()


def test_products_of_means_have_no_bias() -> None:
    """Diagonals from 4 rows, 300 times, against one of 20,000; the plain square is too large."""
    t = np.array([0.2, 0.7])
    network = Network(nets.MLP(1, (8,), seed=1), study.PROCESS)
    few = [study.gradients(Run(k), [network], LINE, t, 4) for k in range(300)]
    diagonal = np.array([np.diag(one["products"][0]) for one in few])
    plain = diagonal + np.array([one["square"][0] - np.diag(one["products"][0]) for one in few]) / 4
    many = np.diag(study.gradients(Run(1000), [network], LINE, t, 20_000)["products"][0])
    for values, right in ((diagonal, True), (plain, False)):
        z = (values.mean(axis=0) - many) / (values.std(axis=0) / 300**0.5)
        assert (np.abs(z).max() < 4.9) == right


def test_the_noise_scale_is_that_of_rows_at_uniform_times() -> None:
    """Variance of 1,000 whole rows over |mean|^2, both weighted, within 4.9 errors. Seed 5."""
    config = dataclasses.replace(FULL, seeds=2)
    nodes = study.nodes_of(config)
    net = nets.MLP(1, (8,), seed=1)
    torch.nn.init.ones_(net.out.bias)  # far off at all times, so that there is much to learn
    networks = [Network(net, study.PROCESS)] * 2
    found = study.gradients(Run(1), networks, LINE, nodes.t, 4000)
    generator = np.random.default_rng(5)
    t = config.earliest + (1 - config.earliest) * generator.random(1000)
    given = rows_at(LINE, t, 1, 6)
    g = one_by_one(networks[0], given)
    for name, other in (("p2", "x0"), ("simple", "x0")):
        rows = g * weightings.ALL[name](study.PROCESS, t)[:, None]
        blocks = rows.reshape(20, 50, -1)
        variance = blocks.var(axis=1, ddof=1).sum(axis=-1)
        signal = np.sum(blocks.mean(axis=1) ** 2, axis=-1) - variance / 50
        value, error = evaluation.ratio(variance, signal)
        for ours, right in ((name, True), (other, False)):
            weight = weightings.ALL[ours](study.PROCESS, nodes.t)
            scale = study.noise_scale(found["square"], found["products"], nodes.share, weight)
            z = (scale[0] - value) / np.hypot(error, scale[1])
            assert (abs(z) < 4.9) == right


def test_the_cost_of_even_times() -> None:
    """1 where w^2 E|g|^2 is the same at all times, else more; known for two times."""
    square = np.array([[4.0, 1.0]])
    share = np.array([0.5, 0.5])
    assert study.cost(square, share, np.array([1.0, 2.0]))[0] == pytest.approx(1.0)
    assert study.cost(square, share, np.ones(2))[0] == pytest.approx(2.5 / 1.5**2)
    drawn = np.random.default_rng(1).uniform(size=(50, FULL.nodes))
    nodes = study.nodes_of(FULL)
    for weight in study.weights_of(FULL, LINE):
        assert study.cost(drawn, nodes.share / nodes.share.sum(), weight).min() >= 1.0


# ------------------------------------------------------------------ training


def test_a_weighting_trains_as_it_would_alone() -> None:
    """Weights of the second network after 4 steps; those of another weighting differ."""
    run = Run(2)
    together = study.trained(TINY, run, LINE, "bound")[1].state()
    for name, right in (("bound", True), ("simple", False)):
        alone = study.fresh_networks(TINY, run, LINE)[1]
        train.train(
            alone, gallery.ALL[LINE](), steps=TINY.steps,
            seed=run.seed_for("training", LINE, 1), batch=TINY.batch, rate=TINY.rate,
            final_rate=TINY.final_rate, times=ds.times.uniform(study.PROCESS, TINY.earliest),
            loss=functools.partial(losses.weighted, weight=weightings.ALL[name]),
        )  # fmt: skip
        state = alone.state()
        same = all(np.allclose(together[k], state[k], rtol=1e-3, atol=1e-6) for k in state)
        assert same == right


# ------------------------------------------------------------------ tables and pictures


def test_how_far_behind() -> None:
    """The least mean is the best; differences are taken seed by seed."""
    values = np.array([[1.0, 3.0], [2.0, 6.0], [1.5, 3.5]])
    best, gap, error = study.behind(values)
    assert best == 0
    np.testing.assert_allclose(gap, [0.0, 2.0, 0.5])
    np.testing.assert_allclose(error, [0.0, 1.0, 0.0])
    value, spread = evaluation.ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    assert (value, spread) == (2.0, 0.0)


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "scores", "objectives", "matrix", "times", "cells"]
    sizes = [len(found) for found in tables.values()]
    assert sizes == [6, 6, 6, 6, 6 * TINY.nodes, 6 * TINY.seeds]
    main = tables[""].set_index(["law", "weighting"])
    for law in TINY.laws:
        kl = arrays[f"{law} kl"]
        row = main.loc[(law, "bound")]
        assert row["KL"] == pytest.approx(kl[2].mean())
        assert row["KL error"] == pytest.approx(kl[2].std(ddof=1) / 2**0.5)
        behind = kl[2] - kl[np.argmin(kl.mean(axis=1))]
        assert row["KL behind the best"] == pytest.approx(behind.mean())
        far = arrays[f"{law} distance"]
        behind = far[2] - far[np.argmin(far.mean(axis=1))]
        assert row["distance behind the best"] == pytest.approx(behind.mean())
        assert row["floor"] == pytest.approx(arrays[f"{law} exact distance"].mean())
    objectives = tables["objectives"].set_index(["law", "objective"])
    matrix = tables["matrix"].set_index(["law", "trained with"])
    for (law, name), row in objectives.iterrows():
        assert row["excess, own"] == pytest.approx(matrix.loc[law].loc[name, name])
        assert row["excess, least"] == pytest.approx(matrix.loc[law][name].min())
        assert row["own behind"] == pytest.approx(row["excess, own"] - row["excess, least"])
    likelihood, bound = (objectives.loc[(LINE, name)] for name in ("likelihood", "bound"))
    assert likelihood["least value"] == pytest.approx(2 * bound["least value"])
    times = tables["times"]
    one = times[(times["law"] == PLANE) & (times["weighting"] == "simple")]
    nodes, weight = study.nodes_of(TINY), study.weights_of(TINY, PLANE)[0]
    square, signal = (arrays[f"{PLANE} {key}"][0] for key in ("square", "signal"))
    cost = study.measured(TINY, arrays, PLANE)["cost of even t"][0]
    taken = signal @ (nodes.share * weight**2) / (np.sqrt(square) @ (nodes.share * weight)) ** 2
    held = one["variance by log-SNR"] @ nodes.width
    assert held == pytest.approx((cost - taken).mean()) and held != pytest.approx(cost.mean())
    likelihood, bound = study.variance_density(TINY, arrays, PLANE)[1:]
    np.testing.assert_allclose(likelihood, bound, rtol=1e-2)  # the same networks, twice the weight
    cells = tables["cells"]
    some = cells[(cells["law"] == PLANE) & (cells["weighting"] == "simple")]
    assert some["KL"].tolist() == arrays[f"{PLANE} kl"][0].tolist()


def test_twice_a_weighting_is_the_same_weighting(arrays: dict[str, np.ndarray]) -> None:
    """`likelihood` is twice `bound`: Adam makes the same networks of them, and others of simple."""
    for law in TINY.laws:
        simple, twice, once = arrays[f"{law} error"]
        np.testing.assert_allclose(twice, once, rtol=1e-4)
        assert not np.allclose(simple, once, rtol=1e-4)


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    config = dataclasses.replace(TINY, laws=(PLANE,), weightings=("simple", "bound"))
    again, other = (STUDY.compute(config, Run(seed)) for seed in (TINY.seed, 4))
    for key in ("error", "kl", "distance", "square"):
        assert np.array_equal(again[f"{PLANE} {key}"], arrays[f"{PLANE} {key}"][[0, 2]])
        assert not np.array_equal(again[f"{PLANE} {key}"], other[f"{PLANE} {key}"])
    networks = again[f"{PLANE} error"][0]
    assert not np.array_equal(networks[0], networks[1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    tables = study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures["quality"], {})
    assert len(tables) == 6
    assert list(figures) == ["", "quality", "variance", "matrix"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


def test_no_two_weightings_look_alike() -> None:
    """Not by their names alone."""
    looks = [study.look(FULL, i) for i in range(len(FULL.weightings))]
    assert len({look.pop("label") for look in looks}) == len(looks)
    assert len({tuple(look.items()) for look in looks}) == len(looks)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("laws", ("two_moons",)),
        ("laws", ("no law",)),
        ("laws", ()),
        ("laws", (LINE, LINE)),
        ("weightings", ("simple", "best")),
        ("weightings", ("simple",)),
        ("seeds", 1),
        ("steps", 0),
        ("widths", (0,)),
        ("batch", 0),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("earliest", 0.0),
        ("nodes", 2),
        ("rows", 1),
        ("start_rows", 1),
        ("samples", 1),
        ("solver_steps", 1),
        ("points", 1),
        ("tolerance", 0.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(FULL, **{field: value})
