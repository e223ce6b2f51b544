"""The laws of exact diffusion, over every target of the gallery and every process.

Targets and processes are found, not listed: what is new is tested by being there. Every law stands
beside a wrong twin (a sign, a factor 2, 5 % off) that must fail it.
"""

from __future__ import annotations

import copy
import inspect
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
# Numbers at which a formula takes another branch, or a path another shape.
OTHERS: dict[str, Any] = {
    "VE falling": ds.VE(0.5),
    "VP constant": ds.VP(2.0, 2.0),
    "Cosine from 0": ds.Cosine(0.0),
    "Sigmoid late": ds.Sigmoid(0.0, 3.0, 0.7),
    "Polynomial of a half power": ds.Polynomial(1.5),
    "Chain of a sigmoid": ds.Chain.of(ds.Sigmoid(), np.linspace(0, 1, 21), 0.999),
    "Chain of one": ds.Chain.linear(1),
    "Chain of one leap": ds.Chain([0.9]),
}
# (scale, var) of single noises: none, 1e-5, little, half and half, nearly all, 20 and 1e5.
NOISES = [
    *((1.0, 0.0), (1.0, 1e-10), (0.98, 0.04), (0.6, 0.64)),
    *((0.01, 1.0), (1.0, 400.0), (1.0, 1e10)),
]

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


def left_out(table: dict[str, Any]) -> set[str]:
    """The public functions of the gallery that the table does not hold."""
    functions = inspect.getmembers(gallery, inspect.isfunction)
    own = {n for n, f in functions if f.__module__ == gallery.__name__ and n[0] != "_"}
    return own - {"empirical"} - set(table)  # which makes a target of any points


def test_every_function_of_the_gallery_is_in_its_table() -> None:
    assert left_out(gallery.ALL) == set()
    assert left_out({name: 0 for name in gallery.ALL if name != "rings"}) == {"rings"}


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


def sharp(target: str) -> bool:
    """Jumps and points: `test_mass_of_what_no_lattice_sees`."""
    return isinstance(law_of(target), ds.Boxes) or not has_density(law_of(target))


SEEN = [(name, *noise) for name in gallery.ALL for noise in NOISES
        if noise[1] > 1e-9 or not sharp(name)]  # fmt: skip


def mass_error(law: Any, density: Any) -> float:
    box = None
    if isinstance(law, ds.Curve):  # what there is beyond the curve is blur alone
        x, blur = law.sample(4096, 0), 7 * np.sqrt(law.noise.var)
        box = (x.min(axis=0) - blur, x.max(axis=0) + blur)
    return testing.assert_mass_one(density, 1e-10, box)


@pytest.mark.parametrize(("target", "scale", "var"), SEEN)
def test_mass_is_one(target: str, scale: float, var: float) -> None:
    law = diffused(target, scale, var)
    mass_error(law, law)


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
@pytest.mark.parametrize(
    ("target", "scale", "var"),
    [case for case in SEEN if case[0] in ("rings", "julia_bimodal", "checkerboard")],
)
def test_wrong_masses_are_caught(target: str, scale: float, var: float, factor: float) -> None:
    law = diffused(target, scale, var)
    twin = Twin(law, log_prob=lambda x: law.log_prob(x) + np.log(factor))
    with pytest.raises(AssertionError, match="mass = 1"):
        mass_error(law, twin)


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


def rescaled_alike(law: Any, moved: Any, factor: float, shift: float, x: np.ndarray) -> None:
    """p(x) dx = p'(factor x) d(factor x), with `shift` the logarithm of the volume's change."""
    wanted = law.log_prob(x) - shift
    np.testing.assert_allclose(moved.log_prob(factor * x), wanted, rtol=1e-12, atol=1e-12)
    near(factor * moved.score(factor * x), law.score(x))


@targets
@pytest.mark.parametrize("factor", [-2.5, 0.25, 1e3])
def test_rescaling(target: str, factor: float) -> None:
    law = law_of(target).diffuse(ds.Transition(1.0, 0.09))
    moved = law.diffuse(ds.Transition(factor, 0.0))
    x, shift = law.sample(50, 3), law.dim * np.log(abs(factor))
    rescaled_alike(law, moved, factor, shift, x)
    wider = law.diffuse(ds.Transition(1.05 * factor, 0.0))
    for twin, change in ((moved, 0.0), (wider, shift)):
        with pytest.raises(AssertionError):
            rescaled_alike(law, twin, factor, change, x)


def near(got: np.ndarray, wanted: np.ndarray) -> None:
    """Rows within 1e-12 of their own size, or of 1: an entry may be 0 by cancellation."""
    got, wanted = (a.reshape(len(a), -1) for a in (got, wanted))
    error = np.linalg.norm(got - wanted, axis=-1)
    assert np.all(error <= 1e-12 * np.maximum(1.0, np.linalg.norm(wanted, axis=-1)))


def _same(one: Any, other: Any, x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> None:
    np.testing.assert_allclose(other.log_prob(y), one.log_prob(x), rtol=1e-12, atol=1e-12)
    near(other.score(y), one.score(x) @ turn.T)
    near(other.hessian(y), turn @ one.hessian(x) @ turn.T)


def differ(one: Any, other: Any, x: np.ndarray, y: np.ndarray, turn: np.ndarray) -> None:
    """The twin of `_same`."""
    with pytest.raises(AssertionError):
        _same(one, other, x, y, turn)


def _mixture(dim: int = 2, seed: int = 0) -> ds.GaussianMixture:
    random = np.random.default_rng(seed)
    root = random.standard_normal((4, dim, dim))
    covs = root @ root.swapaxes(1, 2) + 0.1 * np.eye(dim)
    return ds.GaussianMixture(random.uniform(0.1, 1, 4), 2 * random.standard_normal((4, dim)), covs)


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_rotation_of_a_mixture(dim: int) -> None:
    law = _mixture(dim)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((dim, dim)))[0]
    turn[0] *= np.linalg.det(turn)  # no mirror, which would be its own inverse
    turned = ds.GaussianMixture(law.weights, law.means @ turn.T, turn @ law.covs @ turn.T)
    x = law.sample(50, 4)
    _same(law, turned, x, x @ turn.T, turn)
    differ(law, turned, x, x @ turn, turn.T)  # the other way round


ROOT = np.sqrt(0.5)
SYMMETRIES = {  # orthogonal maps that leave a law as it is
    "rings": [[0.6, -0.8], [0.8, 0.6]],
    "s_curve": [[-1.0, 0.0], [0.0, -1.0]],
    "checkerboard": [[-1.0, 0.0], [0.0, -1.0]],
    "eight_gaussians": [[ROOT, -ROOT], [ROOT, ROOT]],
    "grid": [[0.0, -1.0], [1.0, 0.0]],
}


@pytest.mark.parametrize("target", SYMMETRIES)
def test_symmetric_laws(target: str) -> None:
    law, turn = diffused(target, 0.8, 0.09), np.array(SYMMETRIES[target])
    x = law.sample(50, 4)
    _same(law, law, x, x @ turn.T, turn)
    if target != "rings":  # which every turn leaves as they are
        wrong = np.array([[0.6, -0.8], [0.8, 0.6]])
        differ(law, law, x, x @ wrong.T, wrong)
    differ(law, law, x, x @ turn.T + [0.05, 0.0], turn)


def test_rotation_of_a_curve() -> None:
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])

    def curve(turn: np.ndarray) -> Any:
        def parabola(t: Any) -> Any:
            rows = [row[0] * t + row[1] * t * t for row in turn.tolist()]
            return ds.arrays.namespace(t).stack(rows, axis=-1)

        return ds.Curve(parabola, [-1.0, 0.5], np.ones_like, lambda t: np.sqrt(1 + 4 * t * t))

    law, turned = (curve(q).diffuse(ds.Transition(1.0, 0.04)) for q in (np.eye(2), turn))
    x = law.sample(50, 4)
    _same(law, turned, x, x @ turn.T, turn)
    differ(law, turned, x, x @ turn, turn.T)


def test_order_of_components_is_nothing() -> None:
    order = [2, 0, 3, 1]
    law = _mixture()
    other = ds.GaussianMixture(law.weights[order], law.means[order], law.covs[order])
    x = law.sample(50, 5)
    _same(law, other, x, x, np.eye(2))
    heavy, flip = np.array([1.05, 1, 1, 1]), np.array([[-1.0], [1], [1], [1]])
    for weights, means in ((heavy * law.weights, law.means), (law.weights, flip * law.means)):
        twin = ds.GaussianMixture(weights[order], means[order], law.covs[order])
        differ(law, twin, x, x, np.eye(2))
    differ(law, ds.GaussianMixture(law.weights, law.means[order], law.covs), x, x, np.eye(2))
    lows, highs = np.array([[0.0, 0], [2, 1], [5, 5]]), np.array([[1.0, 1], [3, 4], [6, 7]])
    boxes = ds.Boxes(lows, highs).diffuse(ds.Transition(1.0, 0.1))
    mixed = ds.Boxes(lows[::-1], highs[::-1]).diffuse(ds.Transition(1.0, 0.1))
    _same(boxes, mixed, y := boxes.sample(50, 5), y, np.eye(2))
    heavy_box = ds.Boxes(lows, highs, [1.05, 6.0, 2.0]).diffuse(ds.Transition(1.0, 0.1))
    differ(boxes, heavy_box, y, y, np.eye(2))


def test_repeated_components_merge() -> None:
    law = _mixture()
    weights = np.concatenate([0.3 * law.weights, 0.7 * law.weights])
    double = ds.GaussianMixture(weights, np.tile(law.means, (2, 1)), np.tile(law.covs, (2, 1, 1)))
    x = law.sample(50, 6)
    _same(law, double, x, x, np.eye(2))
    weights[0] *= 1.05
    twin = ds.GaussianMixture(weights, double.means, double.covs)
    differ(law, twin, x, x, np.eye(2))
    rings = ds.Rings([1.0, 2.0, 1.0], [0.2, 0.5, 0.3]).diffuse(ds.Transition(1.0, 0.04))
    merged = ds.Rings([1.0, 2.0], [0.5, 0.5]).diffuse(ds.Transition(1.0, 0.04))
    _same(rings, merged, y := rings.sample(50, 6), y, np.eye(2))
    apart = ds.Rings([1.0, 2.0], [0.525, 0.475]).diffuse(ds.Transition(1.0, 0.04))
    differ(rings, apart, y, y, np.eye(2))
    # Two boxes side by side are the box they make.
    halves = ds.Boxes([[0.0], [1.0]], [[1.0], [3.0]]).diffuse(ds.Transition(1.0, 0.01))
    whole = ds.Boxes([[0.0]], [[3.0]]).diffuse(ds.Transition(1.0, 0.01))
    _same(halves, whole, z := np.linspace(-0.5, 3.5, 41)[:, None], z, np.eye(1))
    gap = ds.Boxes([[0.0], [1.05]], [[1.0], [3.0]]).diffuse(ds.Transition(1.0, 0.01))
    differ(gap, whole, z, z, np.eye(1))


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
    testing.assert_tweedie(ds.Oracle(law, PROCESSES[process]), law, n=2, least=1.0)


_BOARD = gallery.checkerboard().diffuse(ds.Transition(1.0, 0.04))


# In one dimension under every process, in two under one of each kind of time.
WHERE = [("julia_bimodal", process) for process in PROCESSES]
WHERE += [("skewed_pair", process) for process in ("VP", "EDM", "Chain.linear")]
FLIP = np.array([[1.0, -1.0], [-1.0, 1.0]])  # the sign of what two coordinates have in common


def assert_caught(target: str, process: str, answer: str, factor: Any, match: str) -> None:
    law, path = law_of(target), PROCESSES[process]
    oracle = ds.Oracle(law, path)
    right, twin = getattr(oracle, answer), copy.copy(oracle)
    setattr(twin, answer, lambda x, t: factor * right(x, t))
    middle = testing._middle_times(path)[1:2]
    testing.assert_tweedie(oracle, law, middle, n=1, least=1.0)
    with pytest.raises(AssertionError, match=match):
        testing.assert_tweedie(twin, law, middle, n=1, least=1.0)


@pytest.mark.parametrize(("target", "process"), WHERE)
@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.05])
@pytest.mark.parametrize("answer", ["x0", "score", "eps", "v", "posterior_cov"])
def test_wrong_posteriors_are_caught(target: str, process: str, answer: str, factor: float) -> None:
    assert_caught(target, process, answer, factor, "Tweedie: ")


@pytest.mark.parametrize("process", ["VP", "EDM", "Chain.linear"])
def test_wrong_correlations_are_caught(process: str) -> None:
    assert_caught("skewed_pair", process, "posterior_cov", FLIP, "Tweedie: Cov")


@targets
@processes
def test_posterior_covariance_by_the_hessian(target: str, process: str) -> None:
    """Cov[X_0 | x] = var/alpha^2 (I + var Hessian), symmetric and positive semi-definite."""
    law, path = law_of(target), PROCESSES[process]
    x, t = testing.states(law, path)
    step = path.at(t)
    unit, hessian = step.var / step.scale**2, law.diffuse(step).hessian(x)
    cov = ds.Oracle(law, path).posterior_cov(x, t)
    covariances_follow(cov, unit, step.var[:, None, None] * hessian)
    # An eigenvalue of -0.05 on top; what is 5 % off; and what is not symmetric.
    lowest = np.linalg.eigvalsh(cov).min(axis=-1)[:, None, None]
    indefinite = cov - (lowest + 0.05 * unit[:, None, None]) * np.eye(law.dim)
    with pytest.raises(AssertionError, match="indefinite"):
        positive(indefinite)
    twins = [1.05 * cov, indefinite]
    twins += [cov + 1e-6 * unit[:, None, None] * [[0, 1], [0, 0]]] if law.dim == 2 else []
    for twin in twins:
        with pytest.raises(AssertionError):
            covariances_follow(twin, unit, step.var[:, None, None] * hessian)


def covariances_follow(cov: np.ndarray, unit: np.ndarray, bent: np.ndarray) -> None:
    """cov = unit (I + bent), symmetric and positive semi-definite."""
    unit = unit[:, None, None]
    wanted = unit * (np.eye(cov.shape[-1]) + bent)
    # The right side cancels: I + var H loses what 1e-12 of I is worth, in units of var/alpha^2.
    assert np.all(np.abs(cov - wanted) <= 1e-11 * (np.abs(cov) + unit))
    assert np.all(np.abs(cov - cov.swapaxes(-1, -2)) <= 1e-14 * np.abs(cov).max())
    positive(cov)


def positive(cov: np.ndarray) -> None:
    lowest = np.linalg.eigvalsh(cov).min(axis=-1)
    assert np.all(lowest >= -1e-14 * np.abs(cov).max(axis=(-1, -2))), "indefinite"


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


def bayes_gap(law: Any, step: Any, x: np.ndarray, posterior: Any) -> float:
    """The largest error of p(y | x) p(x) = p(x | y) p(y) over eight y, relative above 1."""
    y = posterior.sample(8, 7)
    off = x - step.scale * y
    kernel = -0.5 * np.sum(off**2, -1) / step.var - 0.5 * law.dim * np.log(2 * np.pi * step.var)
    joint = kernel + law.log_prob(y)
    other = posterior.log_prob(y) + law.diffuse(step).log_prob(x)
    return float(np.max(np.abs(other - joint) / np.maximum(1.0, np.abs(joint))))


@pytest.mark.parametrize("target", MIXTURES)
@processes
def test_conditioning_is_bayes_rule(target: str, process: str) -> None:
    """At every y, and the posterior has the oracle's moments."""
    law, path = law_of(target), PROCESSES[process]
    oracle = ds.Oracle(law, path)
    for x, t in zip(*testing.states(law, path, n=2), strict=True):
        posterior, step = oracle.posterior(x, t), path.at(t)
        np.testing.assert_allclose(posterior.mean, oracle.x0(x, t), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(posterior.cov, oracle.posterior_cov(x, t), rtol=1e-9, atol=1e-12)
        if has_density(law):
            assert bayes_gap(law, step, x, posterior) < 1e-10


@pytest.mark.parametrize("target", [name for name in MIXTURES if has_density(law_of(name))])
def test_wrong_conditionals_are_caught(target: str) -> None:
    """A gain, a width or the weights 5 % off: seven orders above the limit."""
    law, step = law_of(target), ds.Transition(0.8, 0.36)
    x = np.array([0.5, -0.3])[: law.dim]
    right = law.condition(x, step)
    even = 0.95 * right.weights + 0.05 / len(right.weights)
    for parts in (
        (right.weights, 1.05 * right.means, right.covs),
        (right.weights, right.means, 1.05 * right.covs),
        (even, right.means, right.covs),
    ):
        assert bayes_gap(law, step, x, ds.GaussianMixture(*parts)) > 1e-3


# ---------------------------------------------------------------- 7: Stein


@targets
@pytest.mark.parametrize(("scale", "var"), [(0.8, 0.36), (0.6, 0.64), (0.01, 1.0)])
def test_stein(target: str, scale: float, var: float) -> None:
    testing.assert_stein(diffused(target, scale, var), 1e-7)


def stein_scores(x: np.ndarray, score: np.ndarray, mean: np.ndarray) -> float:
    """The largest |z| of E score = 0 and E score (x - m)^T = -I."""
    products = score[:, :, None] * (x - mean)[:, None, :] + np.eye(len(mean))
    both = np.concatenate([score, products.reshape(len(x), -1)], axis=1)
    return float(np.max(np.abs(both.mean(axis=0) / both.std(axis=0)))) * np.sqrt(len(x))


@targets
def test_stein_by_samples(target: str) -> None:
    """Within 4.9 standard errors (1e-6 each), seed 8; a score 5 % off is seen by 1e5 points."""
    law = diffused(target, 0.8, 0.36)
    x = law.sample(100_000, 8)
    score = law.score(x)
    assert stein_scores(x, score, law.mean) < 4.9
    for wrong in (-score, 2 * score, 1.05 * score, score + 0.05 * score.std(axis=0)):
        assert stein_scores(x, wrong, law.mean) > 4.9


@pytest.mark.parametrize("shift", [0.05, 1e-5])
def test_a_shifted_score_is_caught(shift: float) -> None:
    law = diffused("rings", 0.6, 0.64)
    with pytest.raises(AssertionError, match="E score = 0"):
        testing.assert_stein(Twin(law, score=lambda x: law.score(x) + shift), 1e-7)


@pytest.mark.parametrize("target", ["rings", "julia_bimodal", "eight_gaussians"])
@pytest.mark.parametrize("factor", [-1.0, 2.0, 1.05, 1 + 1e-5])
def test_wrong_stein_is_caught(target: str, factor: float) -> None:
    law = diffused(target, 0.6, 0.64)
    twin = Twin(law, score=lambda x: factor * law.score(x))
    with pytest.raises(AssertionError, match=r"E score x\^T"):
        testing.assert_stein(twin, 1e-7)


# ---------------------------------------------------------------- other numbers


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("target", ["julia_bimodal", "skewed_pair", "rings"])
def test_processes_with_other_numbers(target: str, name: str) -> None:
    """Kinds 1 and 4 to 6, where a process has numbers far from its default ones."""
    law, path = law_of(target), OTHERS[name]
    x, t = testing.states(law, path)
    moved = law.diffuse(path.at(t))
    testing.assert_score_is_gradient(moved, tensor(x), 1e-12)
    testing.assert_hessian_is_jacobian(moved, tensor(x), 2e-12)
    testing.assert_semigroup(law, path)
    testing.assert_tweedie(ds.Oracle(law, path), law, n=2, least=1.0)
    wider = lambda step: ds.Transition(step.scale, 1.05 * step.var)  # noqa: E731
    late: Any = WrongProcess(path, between=wider)
    with pytest.raises(AssertionError, match="semigroup"):
        testing.assert_semigroup(law, late)
    if not isinstance(path, ds.Chain):
        testing.assert_fokker_planck(law, path, tolerance=1e-11)
        strong: Any = WrongProcess(path, diffusion=lambda g: 1.05 * g)
        with pytest.raises(AssertionError, match="Fokker-Planck"):
            testing.assert_fokker_planck(law, strong)
