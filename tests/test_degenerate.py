"""Laws at the edge: zero weights, repeated components, covariances short of full rank, nothing."""

from __future__ import annotations

import itertools
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
        0.5 * np.linalg.slogdet(2 * np.pi * np.exp(1.0) * law.covs[0])[1]
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


def stays_near(law: Any) -> bool:
    return bool(np.abs(law.sample(1000, 1)).max() < 1e3)


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
    heavy = ds.GaussianMixture(np.append(law.weights, 0.05), means, covs)
    with pytest.raises(AssertionError):
        same(law, heavy, x)
    away = np.concatenate([law.means, np.full((1, dim), 1e4)])
    assert stays_near(ds.GaussianMixture(weights, away, covs))
    assert not stays_near(ds.GaussianMixture(heavy.weights, away, covs))
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


@pytest.mark.parametrize("count", [2, 3, 1000])
def test_repeated_components_are_one(count: int) -> None:
    law = ds.GaussianMixture([1.0], [[1.0, -1.0]], [[[1.0, 0.6], [0.6, 2.0]]])
    many = ds.GaussianMixture(
        np.ones(count), np.tile(law.means, (count, 1)), np.tile(law.covs, (count, 1, 1))
    )
    same(law, many, law.sample(10, 1))
    moved = many.means.copy()
    moved[0, 0] += 1.0
    with pytest.raises(AssertionError):
        same(law, ds.GaussianMixture(many.weights, moved, many.covs), law.sample(10, 1))
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
    # `wide` rounds C + 1e-4 I at 1e-16 of an eigenvalue near 10: 1e-11 of its least one, in
    # scores near 1e2 and Hessians near 1e4, whose entries are held one by one.
    same(wide, blurred, x, 1e-8)
    with pytest.raises(AssertionError):
        same(wide, law.diffuse(ds.Transition(1.0, 1e-4 * (1 + 1e-6))), x, 1e-8)
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


# ---------------------------------------------------------------- no noise, and hardly any


def blur_error(law: Any, x: np.ndarray, sigma: float, factor: float = 1.0) -> float:
    """The error of a hardly blurred score, over what the heat equation allows it to differ.

    d/dV score = grad (tr H + |score|^2)/2 = grad tr H/2 + H score, taken at twice its size, and
    1e-12 of the score for rounding.
    """
    near = law.diffuse(ds.Transition(1.0, sigma**2))
    score, h = law.score(x), 1e-4
    grad_trace = np.stack(
        [
            (law.hessian(x + e) - law.hessian(x - e)).trace(axis1=-2, axis2=-1) / (2 * h)
            for e in h * np.eye(law.dim)
        ],
        axis=-1,
    )
    slope = 0.5 * grad_trace + (law.hessian(x) @ score[..., None])[..., 0]
    allowed = 2 * sigma**2 * np.linalg.norm(slope, axis=-1)
    allowed += 1e-12 * (1 + np.linalg.norm(score, axis=-1))
    return float(np.max(np.linalg.norm(factor * near.score(x) - score, axis=-1) / allowed))


DENSE = [name for name in gallery.ALL if name not in ("empirical", "checkerboard")]


@pytest.mark.parametrize("target", DENSE)
@pytest.mark.parametrize("sigma", [1e-4, 1e-5])
def test_a_score_moves_as_the_heat_equation_says(target: str, sigma: float) -> None:
    law = gallery.ALL[target]()
    x = law.sample(50, 9)
    assert blur_error(law, x, sigma) <= 1
    for wrong in (-1.0, 1.05, 1.0 + 1e-4):
        assert blur_error(law, x, sigma, wrong) > 1


def test_a_checkerboard_without_noise() -> None:
    """Its jumps: log p = -inf and a score that is not a number outside, log 1/32 and 0 inside."""
    board = gallery.checkerboard()
    x = np.array([[-3.0, -3.0], [1.0, 0.5], [-3.0, -1.0], [5.0, 0.0], [1e6, -1e6]])
    inside = np.array([True, True, False, False, False])
    log_prob, score = board.log_prob(x), board.score(x)
    np.testing.assert_allclose(log_prob[inside], -math.log(32), rtol=1e-14)
    assert np.all(log_prob[~inside] == -np.inf)
    assert np.all(score[inside] == 0)
    assert np.all(np.isnan(score[~inside]))
    blurred = board.diffuse(ds.Transition(1.0, 1e-4))  # which has no such places
    assert np.all(np.isfinite(blurred.log_prob(x)))
    assert np.all(np.isfinite(blurred.score(x)))


@pytest.mark.parametrize(
    "bare", [gallery.swiss_roll(0.0), gallery.s_curve(0.0), gallery.two_moons(0.0),
             gallery.rings(noise=0.0)],
    ids=["swiss_roll", "s_curve", "two_moons", "rings"],
)  # fmt: skip
def test_a_bare_curve_names_the_noise_it_wants(bare: Any) -> None:
    x = bare.sample(5, 1)
    for ask in ("log_prob", "score", "hessian"):
        with pytest.raises(ds.ArgumentError, match="noise variance must be positive"):
            getattr(bare, ask)(x)
        assert np.all(np.isfinite(getattr(bare.diffuse(ds.Transition(1.0, 1e-6)), ask)(x)))


# ---------------------------------------------------------------- entropies in many dimensions


def product(dim: int) -> tuple[ds.GaussianMixture, float]:
    """The product of `dim` lines of two components each, and the sum of their entropies."""
    random = np.random.default_rng(dim)
    lines = [
        ds.GaussianMixture(
            random.dirichlet(np.ones(2)),
            1.5 * random.standard_normal((2, 1)),
            random.uniform(0.2, 1, (2, 1)),
        )
        for _ in range(dim)
    ]
    weights, means, covs = [], [], []
    for choice in itertools.product(range(2), repeat=dim):
        pairs = list(zip(lines, choice, strict=True))
        weights.append(math.prod(line.weights[i] for line, i in pairs))
        means.append([line.means[i, 0] for line, i in pairs])
        covs.append([line.covs[i, 0, 0] for line, i in pairs])
    law = ds.GaussianMixture(np.array(weights), np.array(means), np.array(covs))
    return law, sum(line.entropy() for line in lines)


def entropy_agrees(got: float, wanted: float) -> bool:
    """Within 4.9 of the standard errors asked for, 1e-4 (1e-6)."""
    return abs(got - wanted) <= 4.9e-4


@pytest.mark.parametrize("dim", [3, 4])
def test_entropy_of_a_product_is_the_sum(dim: int) -> None:
    law, wanted = product(dim)
    assert entropy_agrees(law.entropy(error=1e-4), wanted)
    means = law.means.copy()
    means[np.argmax(law.weights), 0] += 1.0
    moved = ds.GaussianMixture(law.weights, means, law.covs)
    assert not entropy_agrees(moved.entropy(error=1e-3), wanted)


def test_entropy_of_boxes_is_the_sum() -> None:
    step = ds.Transition(1.0, 0.04)
    sides = (1.0, 2.0, 3.0)
    wanted = sum(ds.Boxes([[0.0]], [[side]]).diffuse(step).entropy() for side in sides)
    for last, agree in ((3.0, True), (3.15, False)):
        box = ds.Boxes([[0.0] * 3], [[1.0, 2.0, last]]).diffuse(step)
        assert entropy_agrees(box.entropy(error=1e-4), wanted) is agree


def embedded(law: Any, M: np.ndarray, shift: np.ndarray) -> ds.GaussianMixture:
    """The law of M (X, Z) + shift, Z standard normal in the directions that the law has not."""
    rest = len(M) - law.dim
    means = np.pad(law.means, ((0, 0), (0, rest)))
    covs = np.pad(law.covs, ((0, 0), (0, rest), (0, rest)))
    covs += np.diag([0.0] * law.dim + [1.0] * rest)
    covs = M @ covs @ M.T
    return ds.GaussianMixture(
        law.weights, means @ M.T + shift, 0.5 * (covs + covs.swapaxes(-1, -2))
    )


@pytest.mark.parametrize("target", ["julia_trimodal", "skewed_pair"])
def test_what_components_share_is_split_off(target: str) -> None:
    """H of a plane mixture among five common dimensions, through an affine map, to 1e-10."""
    law, random = gallery.ALL[target](), np.random.default_rng(3)
    M, shift = random.standard_normal((7, 7)), random.standard_normal(7)
    common = 2.5 * math.log(2 * math.pi * math.e) + float(np.linalg.slogdet(M)[1])
    wanted = law.entropy() + common
    seven = embedded(law, M, shift)
    assert abs(seven.entropy() - wanted) < 1e-10
    # With one mean moved onto another, or the map 1e-6 longer.
    means = law.means.copy()
    means[0] = means[1]
    other = ds.GaussianMixture(law.weights, means, law.covs)
    for twin in (embedded(other, M, shift), embedded(law, (1 + 1e-6) * M, shift)):
        assert abs(twin.entropy() - wanted) > 1e-7


def test_entropy_of_one_component_repeated_is_that_of_one() -> None:
    root = np.random.default_rng(4).standard_normal((5, 5))
    one = ds.GaussianMixture([1.0], [[1.0] * 5], [root @ root.T + 0.1 * np.eye(5)])
    two = ds.GaussianMixture([0.3, 0.7], np.tile(one.means, (2, 1)), np.tile(one.covs, (2, 1, 1)))
    closed = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * one.covs[0])[1]
    assert abs(one.entropy() - closed) < 1e-12
    assert abs(two.entropy() - closed) < 1e-12
    apart = ds.GaussianMixture([0.3, 0.7], two.means * [[1.0], [1.1]], two.covs)
    assert abs(apart.entropy() - closed) > 1e-6


def test_an_error_out_of_reach_is_named() -> None:
    law = ds.GaussianMixture(
        [0.5, 0.5], [[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]], [[1.0] * 3, [1.0, 2.0, 0.5]]
    )
    with pytest.raises(ds.ArgumentError, match=r"error must be at least .* got 1e-09"):
        law.entropy(error=1e-9)
    # One that is in reach is reached.
    assert abs(law.entropy(error=1e-3) - law.entropy(error=1e-4)) < 4.9 * 1.1e-3
