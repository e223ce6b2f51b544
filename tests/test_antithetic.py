"""The study antithetic: unbiased batches, and their scatter by theory and as drawn.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import Network, gallery, losses, metrics, nets, runner, weightings
from diffscience.errors import ArgumentError
from diffscience.study import Run

STUDY, _ = runner.load(Path(__file__).parents[1] / "studies" / "antithetic.py")
study: Any = sys.modules["diffscience_studies.antithetic"]

TINY = study.Config(
    laws=("julia_bimodal", "julia_trimodal"), seeds=2, steps=4, widths=(8,), batch=8, batches=6,
    nodes=4, rows=8, points=16, samples=20, solver_steps=4, seed=3,
)  # fmt: skip
FULL = STUDY.config
LINE, PLANE = TINY.laws


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def small(seed: int = 1) -> Network:
    """A network of a few weights on the line, off by much: its last bias is 1."""
    net = nets.MLP(1, (6,), seed=seed)
    torch.nn.init.ones_(net.out.bias)
    return Network(net, study.PROCESS)


# ------------------------------------------------------------------ times


def test_pairs_are_mirror_images() -> None:
    law = study.law_of(FULL, "antithetic", "simple")
    t = law(10, np.random.default_rng(1))
    np.testing.assert_allclose(study.mirrored(FULL, t[:5]), t[5:], rtol=1e-12)
    assert not np.allclose(study.PROCESS.T - t[:5], t[5:], rtol=1e-12)
    k = 1000 * np.asarray(study.law_of(FULL, study.ON_STEPS, "simple")(10, 1)) - 1  # from 0
    np.testing.assert_allclose(k, np.round(k), atol=1e-9)
    np.testing.assert_allclose(k[:5] + k[5:], 999)
    assert not np.allclose(1000 * t, np.round(1000 * t), atol=1e-9)


def test_every_way_is_a_way_of_its_own() -> None:
    """Not importance by a constant, nor adaptive times on the second law; all others."""
    points = [{"law": LINE, "objective": "simple", "way": way} for way in study.WAYS]

    def asked(**other: str) -> list[bool]:
        return [study.makes_sense(TINY, point | other) for point in points]

    assert asked() == [True] * 4 + [False] * 3
    assert asked(objective="bound") == [True] * 7
    assert asked(objective="bound", law=PLANE) == [True] * 6 + [False]


def test_adaptive_times_have_seen_the_network() -> None:
    """p ~ sqrt(E L^2): 20 times rarer in the middle of `bound`; of `simple` it follows the loss.

    Seed 1.
    """
    network, t = small(), np.array([0.002, 0.5])
    fresh = study.law_of(FULL, "adaptive", "bound").density(t)
    np.testing.assert_allclose(fresh, 1.0)
    for objective, least in (("bound", 20.0), ("simple", 0.2)):
        law = study.seen(FULL, network, LINE, objective, torch.Generator().manual_seed(1))
        density = law.density(t)
        assert least < density[0] / density[1]
    assert density[0] / density[1] < 20


def test_each_seed_has_adaptive_times_of_its_own() -> None:
    options = study.how(TINY, "bound", "adaptive")
    assert len({id(law) for law in options["times"]}) == TINY.seeds
    assert len(options["loss"]) == TINY.seeds
    one = study.how(TINY, "bound", "importance")
    assert callable(one["loss"])
    assert callable(one["times"])


# ------------------------------------------------------------------ gradients


def of_batches(way: str, objective: str, batches: int, batch: int, seed: int) -> np.ndarray:
    """Gradients of whole batches of the small network, (batches, parameters)."""
    config = dataclasses.replace(FULL, batches=batches, batch=batch)
    network, generator = small(), torch.Generator().manual_seed(seed)
    law = study.law_of(config, way, objective)
    if way == "adaptive":
        law = study.seen(config, network, LINE, objective, generator)
    found = study.batch_gradients(config, network, LINE, objective, law, generator)
    return np.asarray(found)


def test_a_batch_has_the_gradient_of_its_mean_loss() -> None:
    """Copies side by side against each batch by itself, drawn again from the same seed."""
    config = dataclasses.replace(FULL, batches=3, batch=5)
    network, law = small(), study.law_of(FULL, "stratified", "bound")
    found = of_batches("stratified", "bound", 3, 5, 1)
    generator = torch.Generator().manual_seed(1)
    t = torch.cat([law(5, generator) for _ in range(3)])
    x0, t, noise = study.rows_of(config, LINE, t, generator)
    rows = losses.weighted(network, x0, t, noise, weightings.bound).reshape(3, 5)
    for b in (0, 2):
        slopes = torch.autograd.grad(
            rows[b].mean(), list(network.net.parameters()), retain_graph=True
        )
        by_name = {
            name: g for (name, _), g in zip(network.net.named_parameters(), slopes, strict=True)
        }
        size = sum(float((g.double() ** 2).sum()) for g in by_name.values())
        assert float(np.sum(found[b] ** 2)) == pytest.approx(size, rel=1e-4)
    assert not np.allclose(found[0], found[2], rtol=1e-2)


@pytest.mark.parametrize("objective", ["simple", "bound"])
def test_every_way_has_the_same_mean(objective: str) -> None:
    """Along the mean of independent times, 2,000 batches of 16; seeds 1, 2.

    Importance without its correction is another mean.
    """
    even = of_batches("independent", objective, 2000, 16, 1)
    along = even.mean(axis=0) / np.linalg.norm(even.mean(axis=0))

    def z(gradients: np.ndarray, even: np.ndarray = even) -> float:
        own, other = gradients @ along, even @ along
        spread = np.hypot(own.std(), other.std()) / 2000**0.5
        return float((own.mean() - other.mean()) / spread)

    steps = study.even_law(FULL, study.ON_STEPS, objective)
    assert np.allclose(1000 * np.asarray(steps(9, 1)) % 1, 0, atol=1e-9)
    ways = study.EVEN[1:] if objective == study.FLAT else study.WAYS[1:]
    for way in ways:
        on_steps = way == study.ON_STEPS  # its mean is that of the steps
        beside = of_batches("independent, steps", objective, 2000, 16, 3) if on_steps else even
        assert abs(z(of_batches(way, objective, 2000, 16, 2), beside)) < 4.9
    wrong = dataclasses.replace(FULL, batches=2000, batch=16)
    law = ds.times.importance(study.PROCESS, weightings.bound, FULL.earliest)
    bare = dataclasses.replace(law, density=lambda t: 0.0 * t + 1.0)
    twin = study.batch_gradients(
        wrong, small(), LINE, objective, bare, torch.Generator().manual_seed(2)
    )
    assert abs(z(np.asarray(twin))) > 4.9


def test_scatter_is_that_of_theory() -> None:
    """Batches of 32, 4,000 of them, against the integrals over t; a lattice is not as independent
    times are. Errors from blocks, and 2 % for the integrals; seeds 0 to 4.
    """
    config = dataclasses.replace(FULL, rows=4096)
    t = study.nodes_of(config).t
    for objective in ("simple", "bound"):
        at = study.gradients(config, small(), LINE, objective, torch.Generator().manual_seed(3))
        ways = study.EVEN if objective == study.FLAT else study.WAYS
        theory = {
            way: at.variance(way, np.asarray(study.law_of(config, way, objective).density(t)))
            for way in ways
            if way not in ("adaptive", study.ON_STEPS)
        }
        for k, way in enumerate(theory):
            found = of_batches(way, objective, 4000, 32, k).reshape(20, 200, -1)
            scatter = 32 * found.var(axis=1, ddof=1).sum(axis=-1)
            value, error = scatter.mean(), scatter.std(ddof=1) / 20**0.5
            error = np.hypot(error, 0.02 * value)  # of the integrals, from 4,096 rows a node
            assert abs(value - theory[way]) < 4.9 * error
            if way == "stratified":
                assert abs(value - theory["independent"]) > 4 * error


def test_the_best_law_of_times_is_the_best() -> None:
    """Its variance is that of p ~ sqrt(E|g|^2), and below that of 50 others."""
    nodes = study.nodes_of(FULL)
    draws = np.random.default_rng(1)
    means = draws.standard_normal((FULL.nodes, 3))
    square = np.sum(means**2, axis=1) + draws.uniform(0.1, 9.0, FULL.nodes)
    share = nodes.share / nodes.share.sum()
    at = study.Gradients(share, square, means @ means.T, np.zeros(FULL.nodes))
    root = np.sqrt(square)
    assert at.variance("importance", root / (share @ root)) == pytest.approx(at.least())
    for p in draws.uniform(0.05, 1.0, (50, FULL.nodes)):
        assert at.variance("importance", p / (share @ p)) > at.least()


def test_theory_for_two_times() -> None:
    """m = +-1 at two equally likely times that mirror each other, and no noise: all is known."""
    share = np.array([0.5, 0.5])
    m = np.array([[1.0], [-1.0]])
    at = study.Gradients(share, np.ones(2), m @ m.T, np.array([-1.0, -1.0]))
    flat = np.ones(2)
    assert at.signal == 0.0
    assert at.variance("independent", flat) == 1.0
    assert at.variance("antithetic", flat) == 0.0  # pairs cancel
    assert at.variance("stratified", flat) == 0.0
    same = study.Gradients(share, np.ones(2), np.ones((2, 2)), np.ones(2))
    assert same.variance("independent", flat) == same.variance("antithetic", flat) == 0.0
    worse = study.Gradients(share, np.array([1.0, 9.0]), np.diag([1.0, 9.0]), np.array([1.0, 9.0]))
    assert worse.variance("antithetic", flat) > worse.variance("independent", flat)


def test_products_of_means_have_no_bias() -> None:
    """Diagonals from 4 rows, 200 times, against one of 20,000; the plain square is too large."""
    config = dataclasses.replace(FULL, rows=4, nodes=3)
    generator = torch.Generator().manual_seed(1)
    few = [study.gradients(config, small(), LINE, "simple", generator) for _ in range(200)]
    many = study.gradients(
        dataclasses.replace(config, rows=20_000), small(), LINE, "simple", generator
    )
    diagonal = np.array([np.diag(one.products) for one in few])
    plain = diagonal + np.array([one.square - np.diag(one.products) for one in few]) / 4
    for values, right in ((diagonal, True), (plain, False)):
        z = (values.mean(axis=0) - np.diag(many.products)) / (values.std(axis=0) / 200**0.5)
        assert (np.abs(z).max() < 4.9) == right


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize("law", TINY.laws)
def test_errors_are_those_of_the_metric(law: str) -> None:
    """sigma^2 times `metrics.fisher_error`; in the plane on the points of the study."""
    run = Run(1)
    dim = gallery.ALL[law]().dim
    members = [nets.MLP(dim, (8,), seed=k) for k in range(2)]
    model = Network(ds.ensembles.Ensemble(members), study.PROCESS)
    found = study.errors_of(TINY, run, model, law)
    n = None if dim == 1 else TINY.points
    for s, net in enumerate(members):
        for j, t in enumerate(study.nodes_of(TINY).t):
            if n is not None and j > 0:
                break  # the points of later times follow those of earlier ones
            alone = Network(net, study.PROCESS)
            off = metrics.fisher_error(
                alone, study.oracle_of(law), float(t), n, run.seed_for("score", law)
            )
            assert found[s, j] == pytest.approx(off.value * float(study.PROCESS.var(t)), rel=1e-5)


def test_an_ending_is_known_for_known_errors() -> None:
    """e = best at all times: the excess is 1, and 2 for twice that; the bound is half its area."""
    nodes = study.nodes_of(TINY)
    best = weightings.best(study.oracle_of(LINE), nodes.t)
    arrays = {
        "error": np.stack([best, 2 * best])[None], "distance": np.zeros((1, 2)),
        "law": np.array([LINE]), "objective": np.array(["bound"]), f"exact {LINE} best": best,
    }  # fmt: skip
    end = study.ending(TINY, arrays, 0)
    np.testing.assert_allclose(end.excess, [1.0, 2.0])
    np.testing.assert_allclose(end.bound, 0.5 * (nodes.width @ best) * np.array([1.0, 2.0]))


def test_exact_samples_are_at_the_floor_and_moved_ones_are_not() -> None:
    config = dataclasses.replace(TINY, samples=400, solver_steps=40)
    begin = study.starts(config, Run(1), LINE)
    exact = study.sampled(config, study.oracle_of(LINE), begin.reshape(-1, 1))
    x = exact.reshape(begin.shape)
    assert study.distances(config, Run(2), LINE, x).max() < 0.03
    np.testing.assert_allclose(study.distances(config, Run(2), LINE, x + 0.5), 0.5, atol=0.03)


# ------------------------------------------------------------------ the whole study


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "theory", "times", "cells"]
    cells = 2 * (4 + 7) - 1
    assert [len(found) for found in tables.values()] == [
        cells, 2 * cells, TINY.nodes * cells, 2 * cells
    ]  # fmt: skip
    main = tables[""]
    first = main.iloc[0]
    assert (first["way"], first["excess/independent"]) == ("independent", 1.0)
    assert first["distance - independent"] == 0.0
    own, even = arrays["scatter"][5, 1].T
    assert main.iloc[5]["variance, end"] == pytest.approx(np.exp(np.log(own / even).mean()))
    assert study.reference(arrays, 5) == 4
    theory = tables["theory"]
    assert (
        theory["theory"].isna().tolist()
        == theory["way"].isin(["adaptive", study.ON_STEPS]).tolist()
    )
    same = theory[theory["way"] == "independent"]
    np.testing.assert_allclose(same["theory"], 1.0)
    assert (theory["least"] <= 1 + 1e-9).all()
    times = tables["times"]
    share = study.nodes_of(TINY).share
    best = times["best density"].to_numpy().reshape(cells, -1)
    np.testing.assert_allclose(best @ share, 1.0)


def test_networks_of_all_ways_begin_alike(arrays: dict[str, np.ndarray]) -> None:
    """The states are those of the training: the first is the same for all ways, the last is not."""
    run = Run(TINY.seed)
    _, one = study.trained(TINY, run, LINE, "bound", "independent")
    networks, other = study.trained(TINY, run, LINE, "bound", "stratified")
    name = "out.weight"
    for s in range(2):
        assert torch.equal(one[s][0][name], other[s][0][name])
        assert not torch.equal(one[s][1][name], other[s][1][name])
        assert not torch.equal(other[s][0][name], other[s][1][name])
        assert torch.equal(other[s][1][name], networks[s].net.state_dict()[name])


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    config = dataclasses.replace(TINY, laws=(LINE,), objectives=("bound",))
    again, other = (STUDY.compute(config, Run(seed)) for seed in (TINY.seed, 4))
    some = (arrays["law"] == LINE) & (arrays["objective"] == "bound")
    for key in ("scatter", "error", "distance", "square", "theory"):
        assert np.array_equal(again[key], arrays[key][some], equal_nan=True)
        assert not np.array_equal(again[key], other[key], equal_nan=True)
    assert not np.array_equal(again["error"][0, 0], again["error"][0, 1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    tables = study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert len(tables) == 4
    assert list(figures) == ["", "end", "density"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("laws", ("two_moons",)),
        ("laws", ()),
        ("objectives", ("best",)),
        ("objectives", ("simple", "simple")),
        ("ways", ("independent", "often")),
        ("ways", ("stratified", "independent")),
        ("ways", ("independent",)),
        ("seeds", 1),
        ("steps", 1),
        ("widths", (0,)),
        ("batch", 1),
        ("batches", 1),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("earliest", 0.5),
        ("nodes", 1),
        ("rows", 1),
        ("points", 1),
        ("samples", 1),
        ("solver_steps", 1),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(FULL, **{field: value})
