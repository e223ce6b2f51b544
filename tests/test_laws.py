"""The laws of exact diffusion, over every target of the gallery and every process.

Targets and processes are found, not listed: what is new is tested by being there. Every law stands
beside a wrong twin (a sign, a factor 2, 5 % off) that must fail it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, testing

PROCESSES = testing.processes()
CONTINUOUS = {name: p for name, p in PROCESSES.items() if not isinstance(p, ds.Chain)}
# (scale, var) of single noises: none, little, half and half, nearly all, variance exploding.
NOISES = [(1.0, 0.0), (0.98, 0.04), (0.6, 0.64), (0.01, 1.0), (1.0, 400.0)]

targets = pytest.mark.parametrize("target", gallery.ALL)
processes = pytest.mark.parametrize("process", PROCESSES)
continuous = pytest.mark.parametrize("process", CONTINUOUS)


@cache
def law_of(target: str) -> Any:
    return gallery.ALL[target]()


@cache
def diffused(target: str, scale: float, var: float) -> Any:
    """The same object for the same noise, so that its quadrature is computed once."""
    return law_of(target).diffuse(ds.Transition(scale, var))


def tensor(x: Any) -> torch.Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def has_density(law: Any) -> bool:
    try:
        law.log_prob(np.zeros((1, law.dim)))
    except ds.ArgumentError:
        return False
    return True


class Twin:
    """A law with some of its answers replaced."""

    def __init__(self, law: Any, **answers: Callable[..., Any]) -> None:
        self._law = law
        for name, answer in answers.items():
            setattr(self, name, answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._law, name)


class WrongProcess:
    """A process with some of its answers replaced by a function of the right ones."""

    def __init__(self, process: Any, **changes: Callable[[Any], Any]) -> None:
        self._process, self._changes = process, changes

    def __getattr__(self, name: str) -> Any:
        answer = getattr(self._process, name)
        change = self._changes.get(name)
        return answer if change is None else lambda *t: change(answer(*t))


# ---------------------------------------------------------------- what there is


def test_every_target_and_process_is_found() -> None:
    assert {"VP", "SubVP", "EDM", "Chain.linear"} <= set(PROCESSES)
    kinds = {type(p) for p in PROCESSES.values()}
    public = [getattr(ds, name) for name in ds.__all__ if name[0].isupper()]
    assert {k for k in public if issubclass(k, ds.Process) and k is not ds.Process} == kinds
    assert {type(law_of(name)) for name in gallery.ALL} == {
        k for k in public if issubclass(k, ds.Target) and k is not ds.Target
    }


# ---------------------------------------------------------------- 1: derivatives


@targets
@processes
def test_score_is_gradient_and_hessian_its_jacobian(target: str, process: str) -> None:
    x, t = testing.states(law_of(target), PROCESSES[process])
    law = law_of(target).diffuse(PROCESSES[process].at(t))
    testing.assert_score_is_gradient(law, tensor(x), 1e-12)
    testing.assert_hessian_is_jacobian(law, tensor(x), 2e-12)


@targets
def test_derivatives_by_differences_agree(target: str) -> None:
    law = law_of(target).diffuse(ds.Transition(0.8, 0.36))
    x = law.sample(20, 1)
    testing.assert_score_is_gradient(law, x, 1e-9, step=0.02)
    testing.assert_hessian_is_jacobian(law, x, 1e-8, step=0.02)


@targets
def test_log_prob_and_score_at_once_are_the_two(target: str) -> None:
    law = law_of(target).diffuse(ds.Transition(0.8, 0.36))
    x = law.sample(200, 2).reshape(20, 10, law.dim)
    log_prob, score = law.log_prob_and_score(x)
    np.testing.assert_allclose(log_prob, law.log_prob(x), rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(score, law.score(x), rtol=1e-13, atol=1e-13)


@targets
@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.05, 1.0 + 1e-9])
def test_wrong_scores_are_caught(target: str, factor: float) -> None:
    law = law_of(target).diffuse(ds.Transition(0.8, 0.36))
    x = tensor(law.sample(20, 1))
    twin = Twin(law, score=lambda x: factor * law.score(x))
    with pytest.raises(AssertionError, match="score = grad log p"):
        testing.assert_score_is_gradient(twin, x)
    bent = Twin(law, hessian=lambda x: factor * law.hessian(x))
    with pytest.raises(AssertionError, match="Hessian = grad score"):
        testing.assert_hessian_is_jacobian(bent, x)


# ---------------------------------------------------------------- 3: mass


@targets
@pytest.mark.parametrize(("scale", "var"), NOISES)
def test_mass_is_one(target: str, scale: float, var: float) -> None:
    law = diffused(target, scale, var)
    if var == 0 and (target == "checkerboard" or not has_density(law)):
        return  # jumps and points: `test_mass_of_what_no_lattice_sees`
    box = None
    if isinstance(law, ds.Curve):  # what there is beyond the curve is blur alone
        x, blur = law.sample(4096, 0), 7 * np.sqrt(law.noise.var)
        box = (x.min(axis=0) - blur, x.max(axis=0) + blur)
    testing.assert_mass_one(law, 1e-10, box)


def test_mass_of_what_no_lattice_sees() -> None:
    board = gallery.checkerboard()
    middles = np.stack(np.meshgrid(*[np.arange(-7.75, 8, 0.5)] * 2, indexing="ij"), -1)
    assert abs(np.exp(board.log_prob(middles)).sum() * 0.25 - 1) < 1e-13
    # A cloud that is hardly blurred: around each point its own weight, on a lattice of its own.
    cloud = law_of("empirical").diffuse(ds.Transition(1.0, 1e-10))
    mesh = 0.5 * np.stack(np.meshgrid(*[np.arange(-18, 19)] * 2, indexing="ij"), -1)
    near = cloud.means[:, None, None] + 1e-5 * mesh
    mass = np.exp(cloud.log_prob(near)).sum(axis=(1, 2)) * 0.25 * 1e-10
    np.testing.assert_allclose(mass, 1 / 64, rtol=1e-10)


@pytest.mark.parametrize("factor", [0.5, 1.05, 1 + 1e-9])
@pytest.mark.parametrize("target", ["rings", "julia_bimodal", "checkerboard"])
def test_wrong_masses_are_caught(target: str, factor: float) -> None:
    law = diffused(target, 0.6, 0.64)
    twin = Twin(law, log_prob=lambda x: law.log_prob(x) + np.log(factor))
    with pytest.raises(AssertionError, match="mass = 1"):
        testing.assert_mass_one(twin)


# ---------------------------------------------------------------- 4: Fokker-Planck


@targets
@continuous
def test_fokker_planck(target: str, process: str) -> None:
    testing.assert_fokker_planck(law_of(target), PROCESSES[process], tolerance=1e-11)


WRONG = [
    (process, answer, factor)
    for process, path in CONTINUOUS.items()
    for answer in ("drift", "diffusion")
    for factor in ((-1.0, 2.0, 1.05) if answer == "drift" else (2.0, 1.05))
    if np.any(getattr(path, answer)([0.25, 0.5]))  # no drift cannot be wrong by a factor
]


@pytest.mark.parametrize(("process", "answer", "factor"), WRONG)
@pytest.mark.parametrize("target", ["julia_bimodal", "rings"])
def test_wrong_equations_are_caught(target: str, process: str, answer: str, factor: float) -> None:
    twin: Any = WrongProcess(PROCESSES[process], **{answer: lambda value: factor * value})
    with pytest.raises(AssertionError, match="Fokker-Planck"):
        testing.assert_fokker_planck(law_of(target), twin)


# ---------------------------------------------------------------- 5: semigroup and symmetries


@targets
@processes
def test_semigroup(target: str, process: str) -> None:
    testing.assert_semigroup(law_of(target), PROCESSES[process])


@processes
@pytest.mark.parametrize("part", ["scale", "var"])
@pytest.mark.parametrize("factor", [2.0, 1.05])
def test_wrong_steps_are_caught(process: str, part: str, factor: float) -> None:
    def bent(step: ds.Transition) -> ds.Transition:
        scale, var = step.scale, step.var
        return (
            ds.Transition(factor * scale, var)
            if part == "scale"
            else ds.Transition(scale, factor * var)
        )

    twin: Any = WrongProcess(PROCESSES[process], between=bent)
    with pytest.raises(AssertionError, match="semigroup"):
        testing.assert_semigroup(law_of("two_moons"), twin)


@targets
@pytest.mark.parametrize("factor", [-2.5, 0.25, 1e3])
def test_rescaling(target: str, factor: float) -> None:
    law = law_of(target).diffuse(ds.Transition(1.0, 0.09))
    moved = law.diffuse(ds.Transition(factor, 0.0))
    x = law.sample(50, 3)
    shift = law.dim * np.log(abs(factor))
    np.testing.assert_allclose(
        moved.log_prob(factor * x), law.log_prob(x) - shift, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(
        factor * moved.score(factor * x), law.score(x), rtol=1e-11, atol=1e-11
    )


def _same(one: Any, other: Any, x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> None:
    np.testing.assert_allclose(other.log_prob(y), one.log_prob(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other.score(y), one.score(x) @ turn.T, rtol=1e-12, atol=1e-11)
    wanted = turn @ one.hessian(x) @ turn.T
    np.testing.assert_allclose(other.hessian(y), wanted, rtol=1e-11, atol=1e-10)


def _mixture(dim: int = 2, seed: int = 0) -> ds.GaussianMixture:
    random = np.random.default_rng(seed)
    root = random.standard_normal((4, dim, dim))
    return ds.GaussianMixture(
        random.uniform(0.1, 1, 4), 2 * random.standard_normal((4, dim)), root @ root.swapaxes(1, 2)
    )


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_rotation_of_a_mixture(dim: int) -> None:
    law = _mixture(dim)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))[0]
    turned = ds.GaussianMixture(law.weights, law.means @ turn.T, turn @ law.covs @ turn.T)
    x = law.sample(50, 4)
    _same(law, turned, x, x @ turn.T, turn)


def test_rotation_of_rings() -> None:
    law = gallery.rings()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    x = law.sample(50, 4)
    _same(law, law, x, x @ turn.T, turn)


def test_order_of_components_is_nothing() -> None:
    order = [2, 0, 3, 1]
    law = _mixture()
    other = ds.GaussianMixture(law.weights[order], law.means[order], law.covs[order])
    x = law.sample(50, 5)
    _same(law, other, x, x, np.eye(2))
    lows, highs = np.array([[0.0, 0], [2, 1], [5, 5]]), np.array([[1.0, 1], [3, 4], [6, 7]])
    boxes = ds.Boxes(lows, highs).diffuse(ds.Transition(1.0, 0.1))
    mixed = ds.Boxes(lows[::-1], highs[::-1]).diffuse(ds.Transition(1.0, 0.1))
    _same(boxes, mixed, y := boxes.sample(50, 5), y, np.eye(2))


def test_repeated_components_merge() -> None:
    law = _mixture()
    weights = np.concatenate([0.3 * law.weights, 0.7 * law.weights])
    double = ds.GaussianMixture(weights, np.tile(law.means, (2, 1)), np.tile(law.covs, (2, 1, 1)))
    x = law.sample(50, 6)
    _same(law, double, x, x, np.eye(2))
    rings = ds.Rings([1.0, 2.0, 1.0], [0.2, 0.5, 0.3]).diffuse(ds.Transition(1.0, 0.04))
    merged = ds.Rings([1.0, 2.0], [0.5, 0.5]).diffuse(ds.Transition(1.0, 0.04))
    _same(rings, merged, y := rings.sample(50, 6), y, np.eye(2))
    # Two boxes side by side are the box they make.
    halves = ds.Boxes([[0.0], [1.0]], [[1.0], [3.0]]).diffuse(ds.Transition(1.0, 0.01))
    whole = ds.Boxes([[0.0]], [[3.0]]).diffuse(ds.Transition(1.0, 0.01))
    _same(halves, whole, z := np.linspace(-0.5, 3.5, 41)[:, None], z, np.eye(1))


def test_moments_follow_the_transition() -> None:
    for target in gallery.ALL:
        law = law_of(target)
        moved = diffused(target, 0.6, 0.64)
        np.testing.assert_allclose(moved.mean, 0.6 * law.mean, rtol=1e-14, atol=1e-15)
        wanted = 0.36 * law.cov + 0.64 * np.eye(law.dim)
        np.testing.assert_allclose(moved.cov, wanted, rtol=1e-14, atol=1e-15)
        x, weights = testing._quadrature(moved)
        np.testing.assert_allclose(weights @ x, moved.mean, rtol=0, atol=1e-9)
        off = x - weights @ x
        np.testing.assert_allclose(
            (weights[:, None] * off).T @ off, moved.cov, rtol=1e-9, atol=1e-9
        )


# ---------------------------------------------------------------- 6: Tweedie


@targets
@processes
def test_tweedie(target: str, process: str) -> None:
    law = law_of(target)
    if target == "checkerboard":  # an edge is too sharp for a lattice
        law = _BOARD
    testing.assert_tweedie(ds.Oracle(law, PROCESSES[process]), law, n=2)


_BOARD = gallery.checkerboard().diffuse(ds.Transition(1.0, 0.04))


@processes
@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.05])
@pytest.mark.parametrize("answer", ["x0", "score", "eps", "v", "posterior_cov"])
def test_wrong_posteriors_are_caught(process: str, answer: str, factor: float) -> None:
    law = law_of("julia_bimodal")
    oracle = ds.Oracle(law, PROCESSES[process])
    right = getattr(oracle, answer)
    twin = copy.copy(oracle)
    setattr(twin, answer, lambda x, t: factor * right(x, t))
    with pytest.raises(AssertionError, match="Tweedie"):
        testing.assert_tweedie(twin, law)


@targets
@processes
def test_posterior_covariance_by_the_hessian(target: str, process: str) -> None:
    """Cov[X_0 | x] = var/alpha^2 (I + var Hessian), symmetric and positive semi-definite."""
    law, path = law_of(target), PROCESSES[process]
    x, t = testing.states(law, path)
    cov = ds.Oracle(law, path).posterior_cov(x, t)
    step = path.at(t)
    scale, var = step.scale[:, None, None], step.var[:, None, None]
    wanted = var / scale**2 * (np.eye(law.dim) + var * law.diffuse(step).hessian(x))
    # The right side cancels: I + var H loses what 1e-12 of I is worth, in units of var/alpha^2.
    assert np.all(np.abs(cov - wanted) <= 1e-11 * (np.abs(cov) + var / scale**2))
    assert np.all(np.abs(cov - cov.swapaxes(-1, -2)) <= 1e-14 * np.abs(cov).max())
    lowest = np.linalg.eigvalsh(cov).min(axis=-1)
    assert np.all(lowest >= -1e-14 * np.abs(cov).max(axis=(-1, -2)))


@targets
@processes
def test_answers_are_consistent(target: str, process: str) -> None:
    """x = alpha x0 + sigma eps, and v, velocity written from x0 and eps."""
    path = PROCESSES[process]
    oracle = ds.Oracle(law_of(target), path)
    x, t = testing.states(oracle.law, path)
    alpha, var = (a[:, None] for a in (path.alpha(t), path.var(t)))
    sigma = np.sqrt(var)
    x0, eps, score = oracle.x0(x, t), oracle.eps(x, t), oracle.score(x, t)
    size = 1 + np.abs(alpha * x0) + np.abs(x)
    assert np.all(np.abs(alpha * x0 + sigma * eps - x) <= 1e-12 * size)
    assert np.all(np.abs(eps + sigma * score) <= 1e-13 * (1 + np.abs(eps)))
    v = oracle.v(x, t)
    assert np.all(
        np.abs(v - (alpha * eps - sigma * x0)) <= 1e-12 * (1 + np.abs(v) + sigma * np.abs(x0))
    )
    if process in CONTINUOUS:
        velocity = oracle.velocity(x, t)
        f, g = path.drift(t)[:, None], path.diffusion(t)[:, None]
        wanted = f * x - 0.5 * g**2 * score
        size = np.abs(f * x) + np.abs(g**2 * score) + np.abs(velocity)
        assert np.all(np.abs(velocity - wanted) <= 1e-11 * size)
        dsigma = path.dvar(t)[:, None] / (2 * sigma)
        slope = path.dalpha(t)[:, None] * x0 + dsigma * eps
        assert np.all(
            np.abs(velocity - slope) <= 1e-12 * (np.abs(dsigma * eps) + np.abs(slope) + 1)
        )


MIXTURES = [name for name in gallery.ALL if isinstance(law_of(name), ds.GaussianMixture)]


@pytest.mark.parametrize("target", MIXTURES)
@processes
def test_conditioning_is_bayes_rule(target: str, process: str) -> None:
    """p(y | x) p(x) = p(x | y) p(y) at every y, and the posterior has the oracle's moments."""
    law, path = law_of(target), PROCESSES[process]
    oracle = ds.Oracle(law, path)
    for x, t in zip(*testing.states(law, path, n=2), strict=True):
        posterior, step = oracle.posterior(x, t), path.at(t)
        np.testing.assert_allclose(posterior.mean, oracle.x0(x, t), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(posterior.cov, oracle.posterior_cov(x, t), rtol=1e-9, atol=1e-12)
        if target == "empirical":
            continue
        y = posterior.sample(8, 7)
        off = x - step.scale * y
        kernel = -0.5 * np.sum(off**2, -1) / step.var - 0.5 * law.dim * np.log(2 * np.pi * step.var)
        joint = kernel + law.log_prob(y)
        other = posterior.log_prob(y) + law.diffuse(step).log_prob(x)
        np.testing.assert_allclose(other, joint, rtol=1e-10, atol=1e-10)


def test_wrong_conditionals_are_caught() -> None:
    """What Bayes' rule above would see of a gain 5 % off: five orders more than its tolerance."""
    law, step = law_of("julia_trimodal"), ds.Transition(0.8, 0.36)
    y, x = law.sample(8, 7), np.array([0.5, -0.3])
    right = law.condition(x, step)
    wrong = ds.GaussianMixture(right.weights, 1.05 * right.means, right.covs)
    assert np.max(np.abs(wrong.log_prob(y) - right.log_prob(y))) > 1e-3


# ---------------------------------------------------------------- 7: Stein


@targets
@pytest.mark.parametrize(("scale", "var"), [(0.8, 0.36), (0.6, 0.64), (0.01, 1.0)])
def test_stein(target: str, scale: float, var: float) -> None:
    testing.assert_stein(diffused(target, scale, var), 1e-7)


@targets
def test_stein_by_samples(target: str) -> None:
    """E score = 0 and E score (x - m)^T = -I within 4.9 standard errors (1e-6 each), seed 8."""
    law = law_of(target).diffuse(ds.Transition(0.8, 0.36))
    x = law.sample(20_000, 8)
    score = law.score(x)
    products = score[:, :, None] * (x - law.mean)[:, None, :] + np.eye(law.dim)
    for values in (score, products.reshape(len(x), -1)):
        z = values.mean(axis=0) / (values.std(axis=0) / np.sqrt(len(x)))
        assert np.all(np.abs(z) < 4.9)
    for factor in (-1.0, 2.0, 1.05):  # the wrong twins
        wrong = products - np.eye(law.dim)
        wrong = factor * wrong + np.eye(law.dim)
        z = wrong.mean(axis=0) / (wrong.std(axis=0) / np.sqrt(len(x)))
        assert np.max(np.abs(np.diagonal(z))) > (4.9 if factor != 1.05 else 2.0)


@pytest.mark.parametrize("target", ["rings", "julia_bimodal", "eight_gaussians"])
@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.05, 1 + 1e-5])
def test_wrong_stein_is_caught(target: str, factor: float) -> None:
    law = diffused(target, 0.6, 0.64)
    twin = Twin(law, score=lambda x: factor * law.score(x))
    with pytest.raises(AssertionError, match="E score"):
        testing.assert_stein(twin, 1e-7)
