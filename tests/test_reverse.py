"""The exact reverse kernel: Bayes' rule by brute force, cumulants, divergences, and the bound.

What is compared shares no formula with `reverse`: quadrature of p_s(y) N(x_t; a y, b), the
posterior of x_0 pushed through q(x_s | x_t, x_0), automatic differentiation, mpmath, and `bounds`.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import bounds, gallery, reverse
from diffscience.errors import ArgumentError

SLANTED = ds.GaussianMixture(
    [0.5, 0.3, 0.2],
    [[0.0, 0.0], [1.5, -1.0], [-1.0, 2.0]],
    [[[0.5, 0.3], [0.3, 0.4]], [[0.2, 0.0], [0.0, 0.6]], [[0.3, -0.1], [-0.1, 0.2]]],
)
UNEQUAL = ds.GaussianMixture([0.2, 0.5, 0.3], [[-1.0], [0.5], [2.0]], [[[0.04]], [[0.3]], [[1.0]]])
PAIR = ds.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.2, 0.0]], np.full((2, 2), 0.4))
CASES = [
    (gallery.julia_bimodal(), ds.VP(), 0.2, 0.35),
    (UNEQUAL, ds.VP(), 0.0, 0.1),
    (UNEQUAL, ds.EDM(), 0.5, 2.0),
    (UNEQUAL, ds.RectifiedFlow(), 0.3, 0.301),
    (gallery.julia_trimodal(), ds.Chain.cosine(20), 9.0, 10.0),
    (SLANTED, ds.SubVP(), 0.1, 0.5),
    (SLANTED, ds.VP(), 0.0, 0.02),
]
IDS = [f"{law!r}-{type(p).__name__}-{t}" for law, p, _, t in CASES]


def some(oracle: ds.Oracle, t: float, n: int = 6) -> np.ndarray:
    """Points of p_t, seed 1, and one far from the law."""
    x = oracle.at(t).sample(n, 1)
    x[-1] = 6.0
    return x


def fine(law: Any, n: int, reach: float = 9.0) -> tuple[np.ndarray, float]:
    """An even grid (m, D) that holds a mixture, and the volume of its cells."""
    std = np.sqrt(np.linalg.eigvalsh(law.covs)).max()
    low, high = law.means.min(axis=0) - reach * std, law.means.max(axis=0) + reach * std
    axes = [np.linspace(a, b, n) for a, b in zip(low, high)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, law.dim)
    return x, math.prod(float(axis[1] - axis[0]) for axis in axes)


def posterior_pushed(oracle: ds.Oracle, x: np.ndarray, s: float, t: float) -> ds.GaussianMixture:
    """int q(x_s | x_t = x, x_0) p(x_0 | x_t = x) dx_0 by the algebra of transitions."""
    process, step = oracle.process, oracle.process.between(s, t)
    posterior = oracle.posterior(x, t)
    share = process.alpha(s) * step.var / process.var(t)
    pushed = posterior.diffuse(ds.Transition(share, step.var * process.var(s) / process.var(t)))
    offset = step.scale * process.var(s) / process.var(t) * x
    return ds.GaussianMixture(pushed.weights, pushed.means + offset, pushed.covs)


# ------------------------------------------------------------------ the law


@pytest.mark.parametrize(("law", "process", "s", "t"), CASES, ids=IDS)
def test_the_kernel_is_the_posterior_pushed_through_the_bridge(
    law: Any, process: Any, s: float, t: float
) -> None:
    oracle = ds.Oracle(law, process)
    x = some(oracle, t)
    found = reverse.kernels(oracle, x, s, t)
    for i in range(len(x)):
        ours, theirs = found.law(i), posterior_pushed(oracle, x[i], s, t)
        np.testing.assert_allclose(ours.weights, theirs.weights, rtol=1e-10, atol=1e-290)
        np.testing.assert_allclose(ours.means, theirs.means, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours.covs, theirs.covs, rtol=1e-10, atol=1e-13)
        wrong = posterior_pushed(oracle, 1.05 * x[i], s, t)
        assert not np.allclose(ours.means, wrong.means, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("law", "process", "s", "t"), CASES, ids=IDS)
def test_the_kernel_is_bayes_rule_by_brute_force(
    law: Any, process: Any, s: float, t: float
) -> None:
    """p_s(y) N(x_t; a y, b) over its integral, and mass 1, to 1e-10; b 5 % too large fails."""
    oracle, step = ds.Oracle(law, process), process.between(s, t)
    x = some(oracle, t)
    found, start = reverse.kernels(oracle, x, s, t), oracle.at(s)
    for i in range(len(x)):
        ours = found.law(i)
        y, cell = fine(ours, 2001 if law.dim == 1 else 221)
        density = np.exp(ours.log_prob(y))
        assert density.sum() * cell == pytest.approx(1.0, abs=1e-10)

        def bayes(b: float, y: np.ndarray = y, cell: float = cell, i: int = i) -> np.ndarray:
            off = np.sum((x[i] - step.scale * y) ** 2, axis=-1)
            log_joint = start.log_prob(y) - off / (2 * b)
            joint = np.exp(log_joint - log_joint.max())
            return np.asarray(joint / (joint.sum() * cell))

        tolerance = 1e-10 * density.max()
        np.testing.assert_allclose(density, bayes(step.var), rtol=0, atol=tolerance)
        assert np.abs(density - bayes(1.05 * step.var)).max() > 1e3 * tolerance


@pytest.mark.parametrize("law", [gallery.julia_bimodal(), SLANTED], ids=["line", "plane"])
def test_kernels_carry_p_t_back_to_p_s(law: Any) -> None:
    """int p(y | x) p_t(x) dx = p_s(y) to 1e-9; with Gaussians in the place of kernels it fails."""
    oracle = ds.Oracle(law, ds.VP())
    x, w = oracle.at(0.6).quadrature()
    x, w = x[w > 1e-13], w[w > 1e-13]
    found = reverse.kernels(oracle, x, 0.3, 0.6)
    y = oracle.at(0.3).sample(5, 2)
    exact = np.exp(oracle.at(0.3).log_prob(y))

    def back(weights: np.ndarray, means: np.ndarray, covs: np.ndarray) -> np.ndarray:
        off = y[:, None, None, :] - means
        inverse = np.linalg.inv(covs)
        square = np.einsum("mnki,nkij,mnkj->mnk", off, inverse, off)
        scale = np.sqrt(np.linalg.det(2 * math.pi * covs))
        return np.einsum("n,nk,mnk->m", w, weights, np.exp(-0.5 * square) / scale)

    means = found.centre[:, None] + found.offsets
    covs = np.broadcast_to(found.covs, (len(x), *found.covs.shape))
    np.testing.assert_allclose(back(found.weights, means, covs), exact, rtol=1e-9)
    gaussian = back(np.ones((len(x), 1)), found.mean[:, None], found.cov[:, None])
    assert np.abs(gaussian / exact - 1).max() > 1e-3


# ------------------------------------------------------------------ cumulants


@pytest.mark.parametrize(("law", "process", "s", "t"), CASES, ids=IDS)
def test_moments_by_brute_force(law: Any, process: Any, s: float, t: float) -> None:
    oracle = ds.Oracle(law, process)
    x = some(oracle, t)
    found = reverse.kernels(oracle, x, s, t)
    for i in range(len(x)):
        y, cell = fine(found.law(i), 2001 if law.dim == 1 else 221)
        p = np.exp(found.law(i).log_prob(y)) * cell
        off = y - p @ y
        scale = math.sqrt(np.trace(found.cov[i]))
        np.testing.assert_allclose(found.mean[i], p @ y, atol=1e-9 * (1 + abs(x[i]).max()))
        second = np.einsum("m,mi,mj->ij", p, off, off)
        third = np.einsum("m,mi,mj,ml->ijl", p, off, off, off)
        np.testing.assert_allclose(found.cov[i], second, atol=1e-10 * scale**2)
        np.testing.assert_allclose(found.third[i], third, atol=1e-9 * scale**3)
        again = found.tau * (np.eye(law.dim) + found.bend[i])
        np.testing.assert_allclose(found.cov[i], again, rtol=1e-9, atol=1e-13 * found.tau)


@pytest.mark.parametrize(("law", "process", "s", "t"), CASES, ids=IDS)
def test_cumulants_are_derivatives_of_the_log_density(
    law: Any, process: Any, s: float, t: float
) -> None:
    """kappa_n = (b/a)^n grad^n log p_t and the Gaussian part, for steps of any size.

    The third derivatives are those of the Hessian by automatic differentiation.
    """
    oracle, step = ds.Oracle(law, process), process.between(s, t)
    x, end = some(oracle, t)[:-1], oracle.at(t)
    found, ratio = reverse.kernels(oracle, x, s, t), step.var / step.scale
    np.testing.assert_allclose(found.mean, x / step.scale + ratio * end.score(x), rtol=1e-10)
    np.testing.assert_allclose(found.bend, step.var * end.hessian(x), rtol=1e-9, atol=1e-13)
    third = np.stack([
        torch.autograd.functional.jacobian(
            lambda y: end.hessian(y[None])[0], torch.as_tensor(point)
        ).numpy()
        for point in x
    ])  # fmt: skip
    size = np.abs(third).max()
    np.testing.assert_allclose(found.third / ratio**3, third, rtol=1e-8, atol=1e-9 * size)
    np.testing.assert_allclose(
        reverse.third_derivatives(oracle, x, t), third, rtol=1e-8, atol=1e-9 * size
    )
    assert not np.allclose(1.05 * found.third / ratio**3, third, rtol=1e-8, atol=1e-9 * size)


# ------------------------------------------------------------------ divergences


@pytest.mark.parametrize(("law", "process", "s", "t"), CASES, ids=IDS)
def test_non_gaussianity_is_the_difference_of_entropies(
    law: Any, process: Any, s: float, t: float
) -> None:
    """Of `Target.entropy`, which takes other nodes: to 1e-9 and, at the default step, to 1e-6."""
    oracle = ds.Oracle(law, process)
    x = some(oracle, t)
    found = reverse.kernels(oracle, x, s, t)
    normal = 0.5 * np.linalg.slogdet(2 * math.pi * math.e * found.cov)[1]
    wanted = [normal[i] - found.law(i).entropy() for i in range(len(x))]
    np.testing.assert_allclose(found.non_gaussianity(0.25), wanted, atol=2e-9)
    np.testing.assert_allclose(found.non_gaussianity(), wanted, atol=1e-6)
    assert np.all(found.non_gaussianity() >= 0)


@mp.workdps(50)
def test_small_divergences_keep_their_digits() -> None:
    """Against mpmath at 50 digits: 1e-7 of a divergence of 1e-15, where entropies have none."""
    level, b = mp.mpf("0.3"), mp.mpf("0.000005")
    law = gallery.julia_bimodal()
    before = (level - b) / (1 - b)
    oracle = ds.Oracle(law, ds.Chain([float(before), float(b)]))
    x = -0.31
    found = reverse.kernels(oracle, [[x]], 1, 2).non_gaussianity().item()
    # The kernel again, from the definition.
    a, alpha = mp.sqrt(1 - b), mp.sqrt(1 - before)
    weights, means = [mp.mpf("0.1"), mp.mpf("0.9")], [-3 * alpha, 3 * alpha]
    total = a * a + b  # of both components, whose variance at s is 1

    def joint(y: Any) -> Any:
        prior = mp.fsum(w * mp.exp(-((y - m) ** 2) / 2) for w, m in zip(weights, means))
        return prior * mp.exp(-((mp.mpf(x) - a * y) ** 2) / (2 * b))

    middle, std = mp.mpf(x) / a, mp.sqrt(b / total)
    nodes = [middle + std * k for k in range(-12, 13, 2)]
    moments = [mp.quad(lambda y, n=n: joint(y) * (y - middle) ** n, nodes) for n in range(3)]
    mean, var = moments[1] / moments[0], moments[2] / moments[0] - (moments[1] / moments[0]) ** 2

    def integrand(y: Any) -> Any:
        log_normal = -((y - middle - mean) ** 2) / (2 * var) - mp.log(2 * mp.pi * var) / 2
        return joint(y) / moments[0] * (mp.log(joint(y) / moments[0]) - log_normal)

    exact = float(mp.quad(integrand, nodes))
    assert 1e-16 < exact < 1e-14
    assert abs(found / exact - 1) < 1e-7
    assert abs(reverse.kernels(oracle, [[x + 1e-6]], 1, 2).non_gaussianity()[0] / exact - 1) > 1e-7


def test_a_gaussian_kernel_has_no_divergence() -> None:
    for law in (
        ds.GaussianMixture([1.0], [[0.3, 1.0]], [[[2.0, 0.5], [0.5, 0.7]]]),
        ds.GaussianMixture([0.4, 0.6], [[0.5], [0.5]], [[[2.0]], [[2.0]]]),
    ):
        oracle = ds.Oracle(law, ds.VP())
        found = reverse.kernels(oracle, some(oracle, 0.4), 0.1, 0.4)
        assert np.all(np.abs(found.non_gaussianity()) < 1e-25)
        assert np.all(np.abs(found.third) < 1e-15)


def test_modes_far_apart_have_the_divergence_of_their_choice() -> None:
    """H = -sum r log r + sum r H_k where components do not overlap: 1e-7, of any widths."""
    law = ds.GaussianMixture([0.3, 0.7], [[-40.0], [40.0]], [[[0.01]], [[1.0]]])
    oracle = ds.Oracle(law, ds.VE(25.0))
    found = reverse.kernels(oracle, [[2.0], [-1.0]], 0.0, 1.0)
    r, v = found.weights, found.covs[:, 0, 0]
    own = -np.sum(r * np.log(r), axis=1) + r @ (0.5 * np.log(2 * math.pi * math.e * v))
    wanted = 0.5 * np.log(2 * math.pi * math.e * found.cov[:, 0, 0]) - own
    np.testing.assert_allclose(found.non_gaussianity(), wanted, rtol=1e-7)


def test_the_divergence_does_not_depend_on_units_axes_or_company() -> None:
    """A rotated and rescaled plane, another order of points, and one point alone: 1e-10."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    moved = ds.GaussianMixture(
        SLANTED.weights, 3 * SLANTED.means @ turn.T, 9 * turn @ SLANTED.covs @ turn.T
    )
    ve = ds.EDM()
    one, other = ds.Oracle(SLANTED, ve), ds.Oracle(moved, ve)
    x = some(one, 1.0)
    found = reverse.kernels(one, x, 0.5, 1.0)
    kl = found.non_gaussianity(0.3)
    again = reverse.kernels(other, 3 * x @ turn.T, 1.5, 3.0).non_gaussianity(0.3)
    np.testing.assert_allclose(again, kl, rtol=1e-9, atol=1e-12)
    back = reverse.kernels(one, x[::-1], 0.5, 1.0).non_gaussianity(0.3)
    np.testing.assert_allclose(back[::-1], kl, rtol=1e-13)
    alone = reverse.kernels(one, x[2:3], 0.5, 1.0).non_gaussianity(0.3)
    np.testing.assert_allclose(alone, kl[2:3], rtol=1e-13)


@pytest.mark.parametrize("law", [gallery.julia_bimodal(), UNEQUAL, SLANTED])
def test_the_expansion_for_small_steps(law: Any) -> None:
    """KL/b^3 = |grad^3 h|^2/12 + O(b) at each x_t, the rest halving with b; 1/6 or b^4 fail."""
    level, kl = 0.4, []
    betas = (1e-3, 5e-4, 2.5e-4)
    x = None
    for b in betas:
        oracle = ds.Oracle(law, ds.Chain([(level - b) / (1 - b), b]))
        x = oracle.at(2).sample(8, 3) if x is None else x
        kl.append(reverse.kernels(oracle, x, 1, 2).non_gaussianity() / b**3)
    leading = np.sum(reverse.third_derivatives(oracle, x, 2) ** 2, axis=(1, 2, 3)) / 12
    some_left = leading > 1e-8 * leading.max()
    off = [np.max(np.abs(k - leading)[some_left] / leading.max()) for k in kl]
    assert off[2] < 0.05
    for near, far in zip(off[1:], off):
        assert near == pytest.approx(far / 2, rel=0.05)
    extrapolated = 2 * kl[2] - kl[1]
    tolerance = 0.1 * off[2] * leading.max()
    assert np.all(np.abs(extrapolated - leading) < tolerance)
    assert not np.all(np.abs(extrapolated - 2 * leading) < tolerance)
    assert not np.all(np.abs(extrapolated - leading * betas[2]) < tolerance)


def test_the_fourth_order_in_one_dimension() -> None:
    """KL = b^3 h3^2/12 + b^4 (h4^2/48 - h3^2 h2/4) + ... in units where a = 1 (a VE step)."""
    law, x = UNEQUAL, np.array([[0.2], [1.4], [-0.8]])
    oracle = ds.Oracle(law, ds.EDM())

    def kl(b: float) -> np.ndarray:
        return reverse.kernels(oracle, x, math.sqrt(1 - b), 1.0).non_gaussianity()

    def derivative(y: torch.Tensor) -> torch.Tensor:
        return oracle.at(1.0).hessian(y)[:, 0, 0]

    h2 = oracle.at(1.0).hessian(x)[:, 0, 0]
    points = torch.as_tensor(x).requires_grad_()
    slope = torch.autograd.grad(derivative(points).sum(), points, create_graph=True)[0]
    h4 = torch.autograd.grad(slope.sum(), points)[0].numpy()[:, 0]
    h3 = slope.detach().numpy()[:, 0]
    np.testing.assert_allclose(reverse.third_derivatives(oracle, x, 1.0)[:, 0, 0, 0], h3, rtol=1e-9)
    b = 1e-3
    rest = [(kl(c) - c**3 * h3**2 / 12) / c**4 for c in (b, b / 2)]
    wanted = h4**2 / 48 - h3**2 * h2 / 4
    np.testing.assert_allclose(2 * rest[1] - rest[0], wanted, rtol=1e-3, atol=1e-5)
    assert not np.allclose(2 * rest[1] - rest[0], h4**2 / 48, rtol=1e-3, atol=1e-5)


# ------------------------------------------------------------------ prices


@pytest.mark.parametrize("law", [gallery.julia_bimodal(), UNEQUAL, SLANTED])
def test_the_price_of_one_variance_by_brute_force(law: Any) -> None:
    """E int p log(p/N(mean, s^2 I)) over a few x_t by quadrature of the kernels themselves."""
    oracle = ds.Oracle(law, ds.Chain.linear(6, 0.05, 0.4))
    x = oracle.at(4).sample(4, 4)
    w = np.array([0.1, 0.2, 0.3, 0.4])
    found, kernel = reverse.price(oracle, 3, 4, (x, w), 0.25), reverse.kernels(oracle, x, 3, 4)
    for s2 in (0.1, 0.4, float(found.optimal)):
        total = 0.0
        for i in range(4):
            one = kernel.law(i)
            y, cell = fine(one, 2001 if law.dim == 1 else 221)
            log_p = one.log_prob(y)
            square = np.sum((y - kernel.mean[i]) ** 2, axis=1)
            log_normal = -0.5 * square / s2 - 0.5 * law.dim * math.log(2 * math.pi * s2)
            total += w[i] * float(np.exp(log_p) @ (log_p - log_normal)) * cell
        assert found.given(s2) == pytest.approx(total, abs=1e-8)
        assert found.given(1.05 * s2) != pytest.approx(total, abs=1e-8)
    least = found.given(found.optimal)
    assert found.best < least < min(found.given(0.99 * found.optimal), found.given(0.1))
    assert least < found.given(1.01 * found.optimal)
    trace = np.trace(kernel.cov, axis1=1, axis2=2)
    assert found.optimal == pytest.approx(w @ trace / law.dim, rel=1e-10)


@pytest.mark.parametrize(
    ("law", "chain"),
    [
        (gallery.julia_bimodal(), ds.Chain.linear(12, 0.02, 0.5)),
        (gallery.julia_bimodal(), ds.Chain.cosine(12)),
        (UNEQUAL, ds.Chain.linear(8, 0.05, 0.6)),
        (PAIR, ds.Chain([0.3, 0.4, 0.5])),
    ],
    ids=["linear", "cosine", "unequal", "plane"],
)
def test_the_bound_is_the_entropy_and_the_prices(law: Any, chain: ds.Chain) -> None:
    """`bounds.best_bound` - entropy = prior + all steps, to 1e-8; without a part it is not."""
    oracle = ds.Oracle(law, chain)
    found, prior = reverse.chain_price(oracle), reverse.prior_gap(oracle)
    assert prior > 1e-6
    for mix in (0.0, 0.5, 1.0):
        gap = bounds.best_bound(oracle, mix=mix).total - law.entropy()
        steps = found.given(bounds.variances(chain, mix))
        assert steps.shape == (chain.K,)
        assert prior + steps.sum() == pytest.approx(gap, abs=1e-8)
        assert steps.sum() != pytest.approx(gap, abs=1e-8)
        assert prior + steps[1:].sum() != pytest.approx(gap, abs=1e-8)
        assert np.all(found.best <= steps)
        assert np.all(found.given(found.optimal) <= steps + 1e-15)


def test_the_prior_gap_of_a_gaussian() -> None:
    """KL(N(m, v) || N(0, 1)) in closed form."""
    chain = ds.Chain.linear(5, 0.1, 0.3)
    oracle = ds.Oracle(ds.GaussianMixture([1.0], [[2.0, 0.0]], [[3.0, 0.5]]), chain)
    a2, var = float(chain.alpha(5)) ** 2, float(chain.var(5))
    wanted = 0.5 * (4.0 * a2)
    for v in (3.0, 0.5):
        wanted += 0.5 * (a2 * v + var - 1 - math.log(a2 * v + var))
    assert reverse.prior_gap(oracle) == pytest.approx(wanted, abs=1e-10)


# ------------------------------------------------------------------ bad input


def test_bad_arguments_are_one_sentence() -> None:
    oracle = ds.Oracle(gallery.julia_bimodal(), ds.VP())
    with pytest.raises(ArgumentError, match="Gaussian mixture as its law"):
        reverse.kernels(ds.Oracle(gallery.two_moons(), ds.VP()), [[0.0, 0.0]], 0.1, 0.2)
    with pytest.raises(ArgumentError, match="oracle must be an Oracle"):
        reverse.kernels(oracle.law, [[0.0]], 0.1, 0.2)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="t must lie after s"):
        reverse.kernels(oracle, [[0.0]], 0.2, 0.2)
    with pytest.raises(ArgumentError, match="x must"):
        reverse.kernels(oracle, [[0.0, 1.0]], 0.1, 0.2)
    with pytest.raises(ArgumentError, match="x must"):
        reverse.kernels(oracle, [[math.nan]], 0.1, 0.2)
    found = reverse.kernels(oracle, [[0.0]], 0.1, 0.2)
    for step in (0.0, 3.0, math.nan):
        with pytest.raises(ArgumentError, match="step must"):
            found.non_gaussianity(step)
    with pytest.raises(ArgumentError, match="var must be positive"):
        reverse.price(oracle, 0.1, 0.2).given(0.0)
    with pytest.raises(ArgumentError, match="discrete Chain"):
        reverse.chain_price(oracle)
    cloud = ds.Oracle(gallery.empirical([[0.0], [1.0]]), ds.VP())
    with pytest.raises(ArgumentError, match="without width"):
        reverse.kernels(cloud, [[0.3]], 0.0, 0.2).non_gaussianity()
    assert np.all(reverse.kernels(cloud, [[0.3]], 0.1, 0.2).non_gaussianity() > 0)
    deep = ds.GaussianMixture([0.5, 0.5], np.zeros((2, 3)), np.ones((2, 3)))
    with pytest.raises(ArgumentError, match="D <= 2"):
        reverse.kernels(ds.Oracle(deep, ds.VP()), np.zeros((1, 3)), 0.1, 0.2).non_gaussianity()


def test_float32_points_are_answered_in_float64() -> None:
    oracle = ds.Oracle(gallery.julia_bimodal(), ds.VP())
    x = np.array([[0.5], [-1.0]])
    for given in (x.astype(np.float32), torch.as_tensor(x), x.tolist()):
        found = reverse.kernels(oracle, given, 0.1, 0.2)
        for field in dataclasses.fields(found):
            value = getattr(found, field.name)
            assert isinstance(value, float) or value.dtype == np.float64
        np.testing.assert_allclose(found.mean, reverse.kernels(oracle, x, 0.1, 0.2).mean)
