"""Evaluation: quadratures against closed forms, gradients against autograd, and known distances.

Statistical tests have fixed seeds and 4.9 standard errors: 1e-6 of a false alarm at each.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import diffscience as ds
from diffscience import evaluation, gallery, losses, metrics, nets, weightings
from diffscience.ensembles import Ensemble
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.network import Network

PROCESS = ds.VP()
LINE, PLANE = (Oracle(law, PROCESS) for law in (gallery.julia_bimodal(), gallery.eight_gaussians()))


# ------------------------------------------------------------------ times


@pytest.mark.parametrize(("process", "earliest", "order", "pieces"), [
    (PROCESS, 1e-3, 16, 1), (PROCESS, 1e-3, 24, 1), (PROCESS, 1e-2, 4, 6),
    (ds.SubVP(), 1e-2, 24, 1), (ds.EDM(), 1e-2, 24, 1),
])  # fmt: skip
def test_the_integrals_over_time(
    process: ds.Process, earliest: float, order: int, pieces: int
) -> None:
    """E_t 1 and E_t t, t from the earliest time on; E_t of -dr/dt = (r_max - r_min)/(T - first)."""
    nodes, first = evaluation.Nodes.of(process, earliest, order, pieces), earliest * process.T
    assert len(nodes.t) == order * pieces
    low, high = (float(process.log_snr(t)) for t in (process.T, first))
    slope = np.asarray(weightings.likelihood(process, nodes.t))
    for f, exact in (
        (np.ones(order * pieces), 1.0),
        (nodes.t, 0.5 * (process.T + first)),
        (slope, (high - low) / (process.T - first)),
    ):
        assert nodes.share @ f == pytest.approx(exact, rel=1e-4)
    np.testing.assert_allclose(process.log_snr(nodes.t), nodes.level, atol=1e-8)
    assert np.all(np.diff(nodes.level) > 0)
    assert nodes.width.sum() == pytest.approx(high - low)


@pytest.mark.parametrize(("name", "value"), [
    ("earliest", 0.0), ("earliest", 1.0), ("order", 0), ("pieces", 0),
])  # fmt: skip
def test_bad_nodes_are_named(name: str, value: float) -> None:
    given = {"earliest": 1e-3, "order": 4, "pieces": 1, name: value}
    with pytest.raises(ArgumentError, match=name):
        evaluation.Nodes.of(PROCESS, **given)  # type: ignore[arg-type]


def test_a_process_without_data_at_its_end_is_refused() -> None:
    with pytest.raises(ArgumentError, match="process"):
        evaluation.Nodes.of(ds.RectifiedFlow(), 1e-3, 4)


# ------------------------------------------------------------------ errors of eps


def test_errors_of_a_normal_law_that_is_too_wide() -> None:
    """eps = sigma x/v for N(0, v): e = sigma^2 v (1/w - 1/v)^2, and E|eps|^2 = sigma^2/v."""
    t = np.array([0.05, 0.3, 1.0])
    right, wide = (
        Oracle(ds.GaussianMixture([1.0], [[0.0]], [[var]]), PROCESS) for var in (1.0, 4.0)
    )
    alpha, var = np.asarray(PROCESS.alpha(t)), np.asarray(PROCESS.var(t))
    v, w = alpha**2 + var, 4 * alpha**2 + var
    found = evaluation.eps_errors(wide, right, t)
    np.testing.assert_allclose(found, var * v * (1 / w - 1 / v) ** 2, rtol=1e-9)
    assert not np.allclose(found, evaluation.eps_errors(right, wide, t), rtol=0.1)
    np.testing.assert_allclose(evaluation.eps_energy(right, t), var / v, rtol=1e-9)
    np.testing.assert_allclose(evaluation.eps_energy(wide, t), var / w, rtol=1e-9)


@pytest.mark.parametrize("oracle", [LINE, PLANE])
def test_members_come_first_and_each_has_its_own_error(oracle: Oracle) -> None:
    """By quadrature those of each network alone; from points, the same points for all."""
    t = np.array([0.2, 0.6, 0.9])
    members = [nets.MLP(oracle.law.dim, (8,), seed=k).requires_grad_(False) for k in (1, 2)]
    model = Network(Ensemble(members).requires_grad_(False), PROCESS)
    found = evaluation.eps_errors(model, oracle, t)
    drawn = evaluation.eps_errors(model, oracle, t, 200, 5)
    assert found.shape == drawn.shape == (2, 3)
    for own, other, net in zip(found, drawn, members):
        alone = Network(net, PROCESS)
        np.testing.assert_allclose(own, evaluation.eps_errors(alone, oracle, t), rtol=1e-5)
        np.testing.assert_allclose(
            other, evaluation.eps_errors(alone, oracle, t, 200, 5), rtol=1e-5
        )
    assert not np.allclose(found[0], found[1], rtol=1e-2)
    assert not np.allclose(found, drawn, rtol=1e-3)


# ------------------------------------------------------------------ samples


def test_starts_are_those_of_the_last_law() -> None:
    """A lattice with its own shift on the line, seen through the cdf; points in the plane."""
    draws = [np.random.default_rng(k) for k in range(3)]
    line = evaluation.starts(LINE, 500, draws)
    assert line.shape == (3, 500, 1)
    mass = np.stack([np.asarray(LINE.at(1.0).cdf(row)).ravel() for row in line])
    np.testing.assert_allclose(np.diff(mass), 1 / 500, atol=1e-9)
    shift = np.array([np.random.default_rng(k).random() for k in range(3)]) / 500
    np.testing.assert_allclose(mass[:, 0], shift, atol=1e-9)
    plane = evaluation.starts(PLANE, 500, [np.random.default_rng(k) for k in range(2)])
    law = PLANE.at(1.0)
    np.testing.assert_array_equal(plane[1], law.sample(500, np.random.default_rng(1)))
    assert not np.array_equal(plane[0], plane[1])
    p = stats.kstest(plane[0, :, 0], stats.norm(0, float(law.cov[0, 0]) ** 0.5).cdf).pvalue
    assert p > 1e-6


def test_distances_on_the_line_are_exact() -> None:
    """Laws moved by a and by b, in the places where they stand; no seed has a say."""
    law, n = gallery.julia_bimodal(), 400
    even = np.asarray(law.quantile((np.arange(n) + 0.5) / n)).reshape(n, 1)
    x = np.array([[0.3, -0.5], [2.0, 4.0]])[:, :, None, None] + even
    found = evaluation.distances(x, law, [1, 2])
    np.testing.assert_allclose(found, [[0.3, 0.5], [2.0, 4.0]], rtol=2e-3)
    np.testing.assert_array_equal(found, evaluation.distances(x, law, [3, 4]))


@pytest.mark.parametrize("metric", [metrics.energy_distance, metrics.sliced_wasserstein])
def test_distances_in_the_plane_are_the_metrics(metric: evaluation.Metric) -> None:
    """With the seed of the member, the same for every model; far samples are farther."""
    law = gallery.eight_gaussians()
    x = np.stack([law.sample(200, seed) for seed in (1, 2)])
    found = evaluation.distances(np.stack([x, x + 1.0]), law, [7, 8], metric)
    assert found.shape == (2, 2)
    for own, value, seed in zip(x, found[0], (7, 8)):
        assert value == metric(own, law, seed, repeats=0).value
    assert np.all(found[1] > 2 * np.abs(found[0]))


@pytest.mark.parametrize("x", [
    np.zeros((3, 10, 1)), np.zeros((2, 10, 2)), np.zeros((10, 1)), np.full((2, 10, 1), np.nan),
])  # fmt: skip
def test_samples_that_fit_neither_seeds_nor_law_are_refused(x: np.ndarray) -> None:
    with pytest.raises(ArgumentError, match="x must"):
        evaluation.distances(x, gallery.julia_bimodal(), [1, 2])


# ------------------------------------------------------------------ gradients


def rows_at(
    oracle: Oracle, t: list[float], n: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """n rows at each of the times, seed 1."""
    draws = np.random.default_rng(1)
    x0 = oracle.law.sample(len(t) * n, draws)
    noise = draws.standard_normal(x0.shape)
    return torch.as_tensor(x0), torch.as_tensor(np.repeat(t, n)), torch.as_tensor(noise)


@pytest.mark.parametrize("oracle", [LINE, PLANE])
def test_row_gradients_are_those_of_every_row(oracle: Oracle) -> None:
    """Two hidden layers, 2 times of 6 rows, row by row through autograd; blocks in their places."""
    network = Network(nets.MLP(oracle.law.dim, (8, 8), seed=1), PROCESS)
    given, found = rows_at(oracle, [0.1, 0.8], 6), []
    for row in zip(*given):
        value = losses.weighted(network, *(a[None] for a in row)).sum()
        slopes = torch.autograd.grad(value, list(network.net.parameters()))
        found.append(torch.cat([g.flatten() for g in slopes]))
    exact = torch.stack(found).double().numpy().reshape(2, 6, -1)
    square, means = evaluation.row_gradients(network, *given, blocks=2)
    np.testing.assert_allclose(square, np.sum(exact**2, axis=-1).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(means, exact.mean(axis=1), rtol=1e-3, atol=1e-5)
    assert not np.allclose(square, square[::-1], rtol=1e-2)
    assert not network.net.hidden[0]._forward_hooks  # type: ignore[union-attr, index]


class Twice(torch.nn.Module):
    """A layer that every row passes twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.layer(self.layer(x))


def test_nets_of_other_layers_are_refused() -> None:
    """Many at once, with no dense layer; a parameter outside of them; a layer passed twice."""
    more = nets.MLP(1, (8,), seed=1)
    more.register_parameter("scale", torch.nn.Parameter(torch.ones(1)))
    for net in (Ensemble([nets.MLP(1, (8,), seed=1)]), more, Twice()):
        with pytest.raises(ArgumentError, match="network"):
            evaluation.row_gradients(Network(net, PROCESS), *rows_at(LINE, [0.1], 6), blocks=1)


def test_blocks_that_do_not_divide_the_rows_are_refused() -> None:
    network = Network(nets.MLP(1, (8,), seed=1), PROCESS)
    with pytest.raises(ArgumentError, match="blocks"):
        evaluation.row_gradients(network, *rows_at(LINE, [0.1], 7), blocks=2)


# ------------------------------------------------------------------ ratios


def test_the_error_of_a_ratio() -> None:
    """None where seeds agree; else the spread of 2,000 ratios, entry by entry. Seed 1."""
    assert evaluation.ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0])) == (2.0, 0.0)
    draws = np.random.default_rng(1)
    over, under = draws.normal(2.0, 0.2, (2000, 8, 2)), draws.normal(1.0, 0.1, (2000, 8, 2))
    over[..., 1] *= 3
    found = np.array([evaluation.ratio(a, b) for a, b in zip(over, under)])
    np.testing.assert_allclose(found[:, 0].mean(axis=0), [2.0, 6.0], rtol=0.02)
    np.testing.assert_allclose(found[:, 0].std(axis=0), found[:, 1].mean(axis=0), rtol=0.1)


def test_geometric_ratios_are_paired() -> None:
    """(2, 8)/(1, 4) is 2 exactly, although the values spread; and the spread of 2,000 of them."""
    assert evaluation.times_worse(np.array([2.0, 8.0]), np.array([1.0, 4.0])) == (2.0, 0.0)
    value, error = evaluation.times_worse(np.array([2.0, 8.0]), np.array([4.0, 1.0]))
    assert value == pytest.approx(2.0)
    assert error > 1.0
    ours = np.exp(np.random.default_rng(1).normal(1.0, 0.3, (2000, 8)))
    found = np.array([evaluation.times_worse(row, np.ones(8)) for row in ours])
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.1)
