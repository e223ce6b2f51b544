"""Laws at the edge: zero weights, repeated components, covariances short of full rank, nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, testing

HALF = ds.Transition(0.8, 0.36)
dims = pytest.mark.parametrize("dim", [1, 2, 3, 5])


def mixture(dim: int, rank: int | None = None, count: int = 4) -> ds.GaussianMixture:
    random = np.random.default_rng(dim)
    root = random.standard_normal((count, dim, dim if rank is None else rank))
    means = 2 * random.standard_normal((count, dim))
    covs = root @ root.swapaxes(1, 2) + (0.1 * np.eye(dim) if rank is None else 0)
    return ds.GaussianMixture(random.uniform(0.1, 1, count), means, covs)


def same(one: Any, other: Any, x: np.ndarray, tolerance: float = 1e-12) -> None:
    for ask in ("log_prob", "score", "hessian"):
        wanted = getattr(one, ask)(x)
        np.testing.assert_allclose(
            getattr(other, ask)(x), wanted, rtol=tolerance, atol=10 * tolerance
        )


def all_laws(law: Any, x: np.ndarray) -> None:
    """The laws that need no particular target, at points x."""
    points = torch.tensor(x)
    testing.assert_score_is_gradient(law, points, 1e-11)
    testing.assert_hessian_is_jacobian(law, points, 1e-11)


# ---------------------------------------------------------------- dimensions


@dims
def test_every_dimension_obeys_the_laws(dim: int) -> None:
    law = mixture(dim)
    x = 2 * np.random.default_rng(1).standard_normal((10, dim))
    all_laws(law, x)
    testing.assert_semigroup(law, ds.VP())
    testing.assert_fokker_planck(law, ds.VP())
    # One component against the closed form.
    one = ds.GaussianMixture([2.0], law.means[:1], law.covs[:1])
    inverse = np.linalg.inv(law.covs[0])
    off = x - law.means[0]
    np.testing.assert_allclose(one.score(x), -off @ inverse, rtol=1e-9, atol=1e-9)
    log_p = -0.5 * np.einsum("ni,ij,nj->n", off, inverse, off)
    log_p -= 0.5 * np.linalg.slogdet(2 * np.pi * law.covs[0])[1]
    np.testing.assert_allclose(one.log_prob(x), log_p, rtol=1e-10)
    assert one.entropy() == pytest.approx(
        0.5 * np.linalg.slogdet(2 * np.pi * np.e * law.covs[0])[1]
    )
    # The posterior of one Gaussian: the textbook's gain.
    s, v = HALF.scale, HALF.var
    gain = s * law.covs[0] @ np.linalg.inv(s * s * law.covs[0] + v * np.eye(dim))
    mean = law.means[0] + (x - s * law.means[0]) @ gain.T
    np.testing.assert_allclose(one.denoise(x, HALF), mean, rtol=1e-10, atol=1e-10)
    cov = law.covs[0] - s * gain @ law.covs[0]
    np.testing.assert_allclose(one.posterior_cov(x, HALF)[3], cov, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(one.condition(x[3], HALF).cov, cov, rtol=1e-9, atol=1e-11)


@dims
def test_diagonal_and_full_covariances_agree(dim: int) -> None:
    law = mixture(dim)
    variances = np.random.default_rng(2).uniform(0.1, 2, (4, dim))
    flat = ds.GaussianMixture(law.weights, law.means, variances)
    full = ds.GaussianMixture(law.weights, law.means, variances[:, :, None] * np.eye(dim))
    x = np.random.default_rng(3).standard_normal((10, dim))
    same(flat.diffuse(HALF), full.diffuse(HALF), x)
    np.testing.assert_allclose(flat.covs, full.covs)


@dims
def test_boxes_of_every_dimension_are_products(dim: int) -> None:
    box = ds.Boxes([[-1.0] * dim], [[2.0] * dim]).diffuse(HALF)
    line = ds.Boxes([[-1.0]], [[2.0]]).diffuse(HALF)
    x = np.random.default_rng(4).standard_normal((10, dim))
    log_p = line.log_prob(x.reshape(-1, 1)).reshape(10, dim).sum(-1)
    np.testing.assert_allclose(box.log_prob(x), log_p, rtol=1e-13)
    np.testing.assert_allclose(
        box.score(x), line.score(x.reshape(-1, 1)).reshape(10, dim), rtol=1e-12
    )
    all_laws(box, x)


# ---------------------------------------------------------------- weights


@dims
@pytest.mark.parametrize("weight", [0.0, 1e-300])
def test_a_weight_of_nothing_is_nothing(dim: int, weight: float) -> None:
    law = mixture(dim)
    weights = np.append(law.weights, weight)
    means = np.concatenate([law.means, np.full((1, dim), 7.0)])
    covs = np.concatenate([law.covs, np.eye(dim)[None]])
    x = np.random.default_rng(5).standard_normal((10, dim))
    more = ds.GaussianMixture(weights, means, covs)
    same(law, more, x)
    assert np.all(np.abs(more.sample(1000, 1)).max(0) < 30)
    if weight:  # where nothing else is, the weight of 1e-300 is the law
        near = ds.GaussianMixture(
            [1.0, weight], [[0.0] * dim, [100.0] * dim], np.full((2, dim), 1.0)
        )
        got = near.log_prob(np.full(dim, 100.0))
        assert got == pytest.approx(math.log(1e-300) - 0.5 * dim * math.log(2 * math.pi), rel=1e-13)
    else:
        # A component without weight needs no width, and has no say however close.
        sharp = ds.GaussianMixture(
            weights, means, np.concatenate([law.covs, np.zeros((1, dim, dim))])
        )
        same(law.diffuse(HALF), sharp.diffuse(HALF), x)


def test_weights_are_normalised_and_scale_free() -> None:
    law = gallery.julia_trimodal()
    x = law.sample(10, 1)
    for factor in (1e-200, 1e200):
        same(law, ds.GaussianMixture(factor * law.weights, law.means, law.covs), x)
    rings = ds.Rings([1.0, 2.0], [0.0, 1e-250]).diffuse(HALF)
    same(ds.Rings([2.0]).diffuse(HALF), rings, x)
    boxes = ds.Boxes([[0.0, 0.0], [5.0, 5.0]], [[1.0, 1.0], [6.0, 6.0]], [1e-250, 0.0]).diffuse(
        HALF
    )
    same(ds.Boxes([[0.0, 0.0]], [[1.0, 1.0]]).diffuse(HALF), boxes, x)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_repeated_components_are_one(count: int) -> None:
    law = ds.GaussianMixture([1.0], [[1.0, -1.0]], [[[1.0, 0.6], [0.6, 2.0]]])
    many = ds.GaussianMixture(
        np.ones(count), np.tile(law.means, (count, 1)), np.tile(law.covs, (count, 1, 1))
    )
    same(law, many, law.sample(10, 1))
    np.testing.assert_allclose(many.cov, law.cov, rtol=1e-12)


# ---------------------------------------------------------------- covariances


@pytest.mark.parametrize(("dim", "rank"), [(2, 1), (3, 1), (3, 2), (5, 2)])
def test_less_than_full_rank(dim: int, rank: int) -> None:
    law = mixture(dim, rank)
    for ask in (law.log_prob, law.score, law.hessian):
        with pytest.raises(ds.ArgumentError, match="noise variance must be positive"):
            ask(np.zeros((2, dim)))
    x = law.sample(10, 1)
    blurred = law.diffuse(ds.Transition(1.0, 1e-4))
    wide = ds.GaussianMixture(law.weights, law.means, law.covs + 1e-4 * np.eye(dim))
    same(wide, blurred, x, 1e-8)
    all_laws(law.diffuse(HALF), x)
    testing.assert_semigroup(law, ds.VP())
    # The posterior stays in the subspaces, and is positive semi-definite.
    posterior = law.condition(x[0], HALF)
    lowest = np.linalg.eigvalsh(posterior.covs)
    assert np.all(lowest > -1e-12)
    assert np.all(np.sum(lowest > 1e-9, -1) == rank)


@dims
def test_points_without_width(dim: int) -> None:
    points = np.random.default_rng(6).standard_normal((5, dim))
    cloud = gallery.empirical(points)
    for covs in (0, np.zeros((5, dim)), np.zeros((5, dim, dim))):
        other = ds.GaussianMixture(np.ones(5), points, covs)
        same(cloud.diffuse(HALF), other.diffuse(HALF), points)
    x = 3 * np.random.default_rng(7).standard_normal((8, dim))
    logits = -0.5 * np.sum((x[:, None] - 0.8 * points) ** 2, -1) / 0.36
    mass = np.exp(logits - logits.max(-1, keepdims=True))
    mass /= mass.sum(-1, keepdims=True)
    np.testing.assert_allclose(cloud.denoise(x, HALF), mass @ points, rtol=1e-12, atol=1e-13)
    hull = np.abs(cloud.denoise(1e6 * x, HALF)).max()
    assert hull <= np.abs(points).max() + 1e-12
    for sample in cloud.sample(20, 1):
        assert np.any(np.all(sample == points, axis=-1))
    # Almost no noise: the nearest point, whatever the distance.
    near = cloud.denoise(points + 1e-3, ds.Transition(1.0, 1e-12))
    np.testing.assert_allclose(near, points, atol=1e-12)
    if dim == 1:
        order = np.sort(points[:, 0])
        np.testing.assert_allclose(cloud.cdf(order[:, None]), np.arange(1, 6) / 5, rtol=1e-14)
        np.testing.assert_allclose(
            cloud.quantile([0.1, 0.5, 0.9])[:, 0], order[[0, 2, 4]], rtol=1e-12
        )


def test_one_point() -> None:
    law = gallery.empirical([[1.0, 2.0]]).diffuse(HALF)
    one = ds.GaussianMixture([1.0], [[0.8, 1.6]], [0.36 * np.eye(2)])
    same(one, law, law.sample(10, 1))
    assert law.entropy() == pytest.approx(math.log(2 * math.pi * math.e * 0.36), rel=1e-12)


# ---------------------------------------------------------------- batches of nothing


@pytest.mark.parametrize("target", gallery.ALL)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_batches(target: str, shape: tuple[int, ...]) -> None:
    law = gallery.ALL[target]().diffuse(HALF)
    oracle = ds.Oracle(gallery.ALL[target](), ds.VP())
    d = law.dim
    for x in (np.zeros((*shape, d)), torch.zeros((*shape, d))):
        assert tuple(law.log_prob(x).shape) == shape
        assert tuple(law.score(x).shape) == (*shape, d)
        assert tuple(law.hessian(x).shape) == (*shape, d, d)
        assert [tuple(a.shape) for a in law.log_prob_and_score(x)] == [shape, (*shape, d)]
        for answer in ("score", "x0", "eps", "v", "velocity"):
            got = getattr(oracle, answer)(x, 0.5)
            assert tuple(got.shape) == (*shape, d)
            assert got.dtype == x.dtype
        assert tuple(oracle.posterior_cov(x, 0.5).shape) == (*shape, d, d)
    t = np.zeros(shape)
    assert oracle.score(np.zeros((*shape, d)), t + 0.5).shape == (*shape, d)
    if d == 1:
        assert law.cdf(np.zeros((*shape, 1))).shape == shape
        assert law.quantile(np.zeros(shape)).shape == (*shape, 1)


# ---------------------------------------------------------------- extreme transitions


@pytest.mark.parametrize("target", gallery.ALL)
def test_a_scale_of_zero_forgets_everything(target: str) -> None:
    law = gallery.ALL[target]().diffuse(ds.Transition(0.0, 0.49))
    x = np.random.default_rng(8).standard_normal((6, law.dim))
    np.testing.assert_allclose(law.score(x), -x / 0.49, rtol=1e-12)
    log_p = -0.5 * np.sum(x * x, -1) / 0.49 - 0.5 * law.dim * math.log(2 * math.pi * 0.49)
    np.testing.assert_allclose(law.log_prob(x), log_p, rtol=1e-12)
    np.testing.assert_allclose(law.mean, np.zeros(law.dim), atol=1e-300)


@pytest.mark.parametrize("target", gallery.ALL)
def test_a_negative_scale_mirrors(target: str) -> None:
    law, mirror = (gallery.ALL[target]().diffuse(ds.Transition(s, 0.36)) for s in (0.8, -0.8))
    x = law.sample(10, 1)
    np.testing.assert_allclose(mirror.log_prob(-x), law.log_prob(x), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(mirror.score(-x), -law.score(x), rtol=1e-12, atol=1e-12)
    step = ds.Transition(-0.8, 0.36)
    base = gallery.ALL[target]()
    np.testing.assert_allclose(
        base.denoise(-x, step), base.denoise(x, ds.Transition(0.8, 0.36)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("target", gallery.ALL)
def test_answers_at_both_ends_of_time(target: str) -> None:
    """At t = 0 the denoiser is the identity; at t = T with alpha = 0 it is the mean."""
    law = gallery.ALL[target]()
    x = law.sample(5, 1)
    for name, process in testing.processes().items():
        oracle = ds.Oracle(law, process)
        if target != "empirical":
            np.testing.assert_allclose(oracle.x0(x, 0.0), x, rtol=1e-14)
            assert np.array_equal(oracle.eps(x, 0.0), 0 * x)
            np.testing.assert_allclose(oracle.posterior_cov(x, 0.0), 0.0, atol=1e-14)
        end = oracle.x0(x, process.T)
        assert np.all(np.isfinite(end)), name
        assert np.all(np.isfinite(oracle.v(x, process.T)))
        if not isinstance(process, ds.Chain) and process.alpha(process.T) > 0:
            assert np.all(np.isfinite(oracle.velocity(x, process.T)))
