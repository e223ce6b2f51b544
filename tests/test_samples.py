"""Samples against exact laws, and the exact flow of one dimension.

Every test has a fixed seed and a false-alarm rate of 1e-6 or less; beside it stands a twin that
must fail: samples 5 % too wide, or with one component too heavy.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

import diffscience as ds
from diffscience import gallery, metrics, testing

N = 100_000
targets = pytest.mark.parametrize("target", gallery.ALL)
LEVELS = {"none": (1.0, 0.0), "half": (0.8, 0.36), "wide": (0.6, 0.16)}


@cache
def law_of(target: str, level: str) -> Any:
    """The same object each time, so that its quadrature is computed once."""
    return gallery.ALL[target]().diffuse(ds.Transition(*LEVELS[level]))


# ---------------------------------------------------------------- 8: samples


@targets
@pytest.mark.parametrize(
    ("level", "kind"), [("none", "numpy"), ("half", "numpy"), ("half", "torch")]
)
def test_samples_follow_the_law(target: str, level: str, kind: str) -> None:
    law = law_of(target, level)
    generator: Any = np.random.default_rng(1)
    if kind == "torch":
        generator = torch.Generator().manual_seed(1)
    x = law.sample(N if kind == "numpy" else 20_000, generator)
    assert isinstance(x, torch.Tensor if kind == "torch" else np.ndarray)
    testing.assert_samples_follow(x, law)


@targets
def test_wrong_samples_are_caught(target: str) -> None:
    law = law_of(target, "half")
    x = law.sample(N, 1)
    for twin in (1.05 * (x - law.mean) + law.mean, x + 0.05 * math.sqrt(np.trace(law.cov))):
        with pytest.raises(AssertionError, match="cdfs differ"):
            testing.assert_samples_follow(twin, law)
    x[3] = np.nan
    with pytest.raises(AssertionError, match=f"1 of {N} rows are not finite"):
        testing.assert_samples_follow(x, law)


@targets
def test_moments_of_samples(target: str) -> None:
    """Mean and covariance within 4.9 standard errors (1e-6 each), seed 2."""
    law = gallery.ALL[target]()
    x = law.sample(N, 2)
    off = x - law.mean
    products = np.stack([off[:, i] * off[:, j] for i in range(law.dim) for j in range(i + 1)])
    wanted = np.array([law.cov[i, j] for i in range(law.dim) for j in range(i + 1)])
    assert np.all(np.abs(off.mean(0)) < 4.9 * off.std(0) / math.sqrt(N))
    error = products.std(1) / math.sqrt(N)
    assert np.all(np.abs(products.mean(1) - wanted) < 4.9 * error)
    assert np.any(np.abs(1.05**2 * products.mean(1) - wanted) > 4.9 * error)


def draw(law: Any, kind: str, seed: int, n: int = N) -> np.ndarray:
    generator: Any = seed if kind == "numpy" else torch.Generator().manual_seed(seed)
    return np.asarray(law.sample(n, generator))


def counts_p_value(owner: np.ndarray, weights: np.ndarray) -> float:
    counts = np.bincount(owner, minlength=len(weights))
    return float(scipy.stats.chisquare(counts, len(owner) * weights / weights.sum()).pvalue)


kinds = pytest.mark.parametrize("kind", ["numpy", "torch"])


@kinds
@pytest.mark.parametrize("target", ["eight_gaussians", "grid", "empirical", "checkerboard"])
def test_counts_of_components(target: str, kind: str) -> None:
    """Multinomial chi-square over components that do not overlap, at 1e-6, seed 3.

    The twin has its first component half as heavy again: of 64, 5 % of one are 2 standard errors.
    """
    law = gallery.ALL[target]()
    x = draw(law, kind, 3)
    if isinstance(law, ds.Boxes):
        cell = np.floor((x + 4) / 2).astype(int)
        assert np.all((cell.sum(1) % 2) == 0)
        owner = cell[:, 0] * 4 + cell[:, 1]
        owner = np.unique(owner, return_inverse=True)[1]
        weights = np.full(8, 1 / 8)
    else:
        off = x[:, None, :] - law.means
        owner = np.argmin(np.sum(off * off, -1), axis=1)
        weights = law.weights
    assert counts_p_value(owner, weights) > 1e-6
    every_other = np.where(np.arange(len(weights)) % 2, 1.1, 1.0)
    one = np.where(np.arange(len(weights)) == 0, 1.5, 1.0)
    for wrong in (every_other, one):
        assert counts_p_value(owner, weights * wrong) < 1e-6


def share_scores(x: np.ndarray, law: ds.GaussianMixture, weights: np.ndarray) -> float:
    """The largest |z| of E r_k(X) = w_k, with r_k the responsibilities under the law."""
    shares = metrics.responsibilities(x, law)
    error = shares.std(axis=0) / math.sqrt(len(x))
    return float(np.max(np.abs(shares.mean(axis=0) - weights) / error))


WIDE = [name for name, make in gallery.ALL.items()
        if isinstance(make(), ds.GaussianMixture) and np.any(make().covs)]  # fmt: skip


@kinds
@pytest.mark.parametrize("target", WIDE)
def test_shares_of_components_that_overlap(target: str, kind: str) -> None:
    """E r_k(X) = w_k within 4.9 standard errors (1e-6 each), seed 3; the rarest half as heavy."""
    law = gallery.ALL[target]()
    x = draw(law, kind, 3)
    assert share_scores(x, law, law.weights) < 4.9
    wrong = law.weights * np.where(np.arange(len(law.weights)) == np.argmin(law.weights), 1.5, 1.0)
    assert share_scores(x, law, wrong / wrong.sum()) > 4.9


@kinds
@pytest.mark.parametrize("target", [t for t, make in gallery.ALL.items() if make().dim == 2])
def test_chi_square_on_a_grid(target: str, kind: str) -> None:
    """Cells of a lattice, their masses by Gauss and Legendre's rule on the density; seed 4."""
    law = law_of(target, "wide")
    low, high, mass = cells_of(target)

    def p_value(x: np.ndarray) -> float:
        edges = [np.linspace(a, b, CELLS + 1) for a, b in zip(low, high, strict=True)]
        counts = np.histogram2d(x[:, 0], x[:, 1], edges)[0].ravel()
        big = mass * N > 20
        counts = np.append(counts[big], len(x) - counts[big].sum())
        expected = np.append(mass[big], 1 - mass[big].sum()) * N
        return float(scipy.stats.chisquare(counts, expected, sum_check=False).pvalue)

    samples = draw(law, kind, 4)
    assert p_value(samples) > 1e-6
    assert p_value(1.05 * (samples - law.mean) + law.mean) < 1e-6


CELLS = 12


@cache
def cells_of(target: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends (2,) twice, 2.5 standard deviations from the mean, and the masses of the cells."""
    law, order = law_of(target, "wide"), 10
    low, high = (law.mean + s * 2.5 * np.sqrt(np.diag(law.cov)) for s in (-1, 1))
    y, w = np.polynomial.legendre.leggauss(order)
    width = (high - low) / CELLS
    axes = [
        a + h * (np.arange(CELLS)[:, None] + 0.5 + 0.5 * y) for a, h in zip(low, width, strict=True)
    ]
    x = np.stack(np.meshgrid(axes[0].ravel(), axes[1].ravel(), indexing="ij"), -1)
    p = np.exp(law.log_prob(x)).reshape(CELLS, order, CELLS, order)
    return low, high, (np.einsum("aibj,i,j->ab", p, w, w) * np.prod(width) / 4).ravel()


@pytest.mark.parametrize("dim", [1, 3, 5])
def test_samples_of_mixtures_in_other_dimensions(dim: int) -> None:
    random = np.random.default_rng(5)
    root = random.standard_normal((3, dim, dim))
    law = ds.GaussianMixture(
        [0.5, 0.3, 0.2], 2 * random.standard_normal((3, dim)), root @ root.swapaxes(1, 2)
    )
    x = law.diffuse(ds.Transition(0.8, 0.36)).sample(N, random)
    testing.assert_samples_follow(x, law.diffuse(ds.Transition(0.8, 0.36)))
    with pytest.raises(AssertionError, match="cdfs differ"):
        testing.assert_samples_follow(x, law)


@targets
def test_same_seed_same_samples(target: str) -> None:
    law = gallery.ALL[target]().diffuse(ds.Transition(0.8, 0.36))
    assert np.array_equal(law.sample(10, 7), law.sample(10, np.random.default_rng(7)))
    assert not np.array_equal(law.sample(10, 7), law.sample(10, 8))
    assert law.sample(0, 7).shape == (0, law.dim)
    first = torch.Generator().manual_seed(7)
    again = torch.Generator().manual_seed(7)
    assert torch.equal(law.sample(10, first), law.sample(10, again))


@targets
def test_posterior_samples_have_the_posterior_mean(target: str) -> None:
    """X_0 among pairs with X_t in a small cell has mean x0, 4.9 standard errors, seed 6."""
    law, step = gallery.ALL[target](), ds.Transition(0.8, 0.36)
    random = np.random.default_rng(6)
    x0 = law.sample(N, random)
    xt = step.apply(x0, random.standard_normal(x0.shape))
    denoised = law.denoise(xt, step)
    for test in (np.ones(N), np.tanh(xt[:, 0]), np.cos(2 * xt[:, -1])):
        product = test[:, None] * (x0 - denoised)
        assert np.all(np.abs(product.mean(0)) < 4.9 * product.std(0) / math.sqrt(N))
    product = xt * (x0 - 1.05 * denoised)
    assert np.max(np.abs(product.mean(0)) / (product.std(0) / math.sqrt(N))) > 4.9


# ---------------------------------------------------------------- the flow in one dimension

FLOWS = {name: p for name, p in testing.processes().items() if not isinstance(p, ds.Chain)}


@pytest.mark.parametrize("name", FLOWS)
def test_flow_there_and_back(name: str) -> None:
    process = FLOWS[name]
    oracle = ds.Oracle(gallery.julia_bimodal(), process)
    x = np.linspace(-9, 9, 37)[:, None]
    s, t = 0.05 * process.T, 0.6 * process.T
    there = oracle.flow(x, s, t)
    assert np.all(np.diff(there[:, 0]) > 0)
    np.testing.assert_allclose(oracle.flow(there, t, s), x, rtol=1e-10, atol=1e-10)
    middle = oracle.flow(oracle.flow(x, s, 0.3 * process.T), 0.3 * process.T, t)
    np.testing.assert_allclose(middle, there, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_of_one_gaussian_is_linear(name: str) -> None:
    """x_t = m_t + (sd_t/sd_s)(x_s - m_s)."""
    process = FLOWS[name]
    law = ds.GaussianMixture([1.0], [[1.5]], [[[0.49]]])
    oracle = ds.Oracle(law, process)
    x = 1.5 + np.linspace(-30, 30, 25)[:, None]
    s, t = 0.1 * process.T, 0.8 * process.T
    start, end = oracle.at(s), oracle.at(t)
    ratio = math.sqrt(end.cov[0, 0] / start.cov[0, 0])
    wanted = end.mean + ratio * (x - start.mean)
    got = oracle.flow(x, s, t)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)
    for twin in (end.mean + 1.05 * ratio * (x - start.mean), end.mean + (x - start.mean) / ratio):
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(got, twin, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_solves_its_equation(name: str) -> None:
    """d/dt flow = velocity, by central differences of order 8."""
    process = FLOWS[name]
    oracle = ds.Oracle(gallery.julia_bimodal(), process)
    x, t, h = np.linspace(-5, 5, 11)[:, None], 0.4 * process.T, 0.002 * process.T
    slope = sum(
        c * (oracle.flow(x, t, t + j * h) - oracle.flow(x, t, t - j * h)) / h
        for j, c in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), 1)
    )
    velocity = oracle.velocity(x, t)
    np.testing.assert_allclose(slope, velocity, rtol=1e-8, atol=1e-8)
    assert np.max(np.abs(slope - 1.05 * velocity)) > 1e-3
