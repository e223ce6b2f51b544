"""Labelled laws, guidance by a model and by a classifier, and the tilted law that neither samples.

Closed forms for Gaussians (Bradley and Nakkiran 2024), Bayes' rule by quadrature, and the laws of
exact diffusion for the tilted law. Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6;
seeds are stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate
from scipy.special import ive, ndtr

import diffscience as ds
from diffscience import gallery, likelihood, nets, samplers, solvers, testing, train
from diffscience.guidance import ClassifierGuided, Guided, Labelled, label_dropout
from diffscience.tilted import Tilted

LIMIT = 4.9
ANSWERS = ("x0", "score", "eps", "v", "velocity", "drift")
VP = ds.VP()
PROCESSES: dict[str, ds.Process] = {
    "VP": VP,
    "Cosine": ds.Cosine(),
    "EDM": ds.EDM(),
    "RectifiedFlow": ds.RectifiedFlow(),
    "VE": ds.VE(),
}
X = np.linspace(-4.0, 5.0, 19)[:, None]


def line() -> Labelled:
    """Two modes of one class, the nearer one next to the other class."""
    means, var = [[0.0], [3.0], [-1.2]], [[0.25], [0.16], [0.36]]
    return Labelled(ds.GaussianMixture([0.35, 0.25, 0.4], means, var), [0, 0, 1])


def plane() -> Labelled:
    """Four slanted modes of two classes."""
    means = [[-2.0, 0.0], [0.5, 1.5], [0.0, -1.2], [2.0, 0.5]]
    covs = [[[0.3, 0.1], [0.1, 0.2]], [[0.2, 0.0], [0.0, 0.3]], [[0.25, -0.1], [-0.1, 0.25]]]
    weights = [0.2, 0.4, 0.25, 0.15]
    return Labelled(ds.GaussianMixture(weights, means, [*covs, np.eye(2) / 3]), [0, 0, 1, 1])


LAWS: dict[str, Callable[[], Labelled]] = {"line": line, "plane": plane}


@cache
def tilted(name: str, gamma: float, label: int = 0) -> Tilted:
    return Tilted(LAWS[name](), label, gamma)


def guided(law: Labelled, process: ds.Process, gamma: float, label: int = 0) -> Guided:
    oracle = ds.Oracle(law.classes[label], process)
    return Guided(oracle, ds.Oracle(law.law, process), gamma)


# ---------------------------------------------------------------- labelled laws


@pytest.mark.parametrize("name", LAWS)
def test_classes_make_up_the_law(name: str) -> None:
    """At every noise level; with the weights of another class they do not."""
    law = LAWS[name]()
    x = law.law.sample(20, 0)
    for t in (0.0, 0.3, 1.0):
        moved = law.diffuse(VP.at(t))
        parts = np.stack([p.log_prob(x) for p in moved.classes]) + np.log(law.weights)[:, None]
        whole = moved.law.log_prob(x)
        np.testing.assert_allclose(np.logaddexp.reduce(parts), whole, rtol=1e-13)
        np.testing.assert_allclose(moved.posterior(x), np.exp(parts - whole).T, atol=1e-13)
        np.testing.assert_allclose(moved.posterior(x).sum(axis=1), 1.0, atol=1e-14)
    swapped = np.logaddexp.reduce(parts - np.log(law.weights / law.weights[::-1])[:, None])
    assert np.abs(swapped - whole).max() > 1e-3


@pytest.mark.parametrize("name", LAWS)
def test_the_classifier_is_the_mean_of_the_clean_one(name: str) -> None:
    """p_t(c|x) = E[p(c|X_0) | X_t = x], by the exact posterior; not p(c|x) itself."""
    law = LAWS[name]()
    oracle, classifier = ds.Oracle(law.law, VP), law.classifier(VP, 1)
    for point in law.law.sample(4, 1):
        for t in (0.05, 0.4):
            y, weights = oracle.posterior(point, t).quadrature()
            mean = weights @ law.posterior(y)[:, 1]
            assert math.exp(float(classifier(point, t))) == pytest.approx(mean, abs=1e-6)
    assert abs(mean - law.posterior(point)[1]) > 1e-3


def test_far_points_have_a_class_too() -> None:
    """Where every density is 0: the ratio of two densities of unit width is exp(2 m x)."""
    law = Labelled(ds.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[1.0], [1.0]]), [0, 1])
    log_p = law.log_posterior(np.array([[-1e3], [0.0], [1e3]]))
    np.testing.assert_allclose(log_p[:, 1], [-2000.0, math.log(0.5), 0.0], atol=1e-9)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_samples_have_their_classes(name: str, library: str) -> None:
    """Class counts, and points of each class of its law and not of the other's. Seed 3."""
    law, n = LAWS[name](), 4000
    draws: Any = 3 if library == "numpy" else torch.Generator().manual_seed(3)
    x, labels = (np.asarray(a) for a in law.sample(n, draws))
    assert x.shape == (n, law.law.dim)
    share = np.bincount(labels, minlength=2) / n
    spread = np.sqrt(law.weights * (1 - law.weights) / n)
    assert np.all(np.abs(share - law.weights) < LIMIT * spread)
    for c in (0, 1):
        testing.assert_samples_follow(x[labels == c], law.classes[c])
        with pytest.raises(AssertionError):
            testing.assert_samples_follow(x[labels == c], law.classes[1 - c])


def test_a_labelled_law_in_other_libraries() -> None:
    law, x = plane(), plane().law.sample(5, 0)
    far = law.diffuse(VP.at(np.array([0.1, 0.2, 0.3, 0.4, 0.5])))
    found = far.log_posterior(torch.as_tensor(x))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found, far.log_posterior(x), rtol=1e-12)
    one = law.diffuse(VP.at(0.3)).log_posterior(x[2])
    np.testing.assert_allclose(far.log_posterior(x)[2], one, rtol=1e-12)
    assert law.log_posterior(x.astype(np.float32)).dtype == np.float32


# ---------------------------------------------------------------- guided models


@pytest.mark.parametrize("name", PROCESSES)
def test_guidance_mixes_every_answer(name: str) -> None:
    """Each answer is the one that follows from eps_u + gamma (eps_c - eps_u); 1 and 0 exactly."""
    process, law = PROCESSES[name], line()
    u, c = (ds.Oracle(p, process) for p in (law.law, law.classes[0]))
    gamma, t = 2.5, 0.3 * process.T
    model = Guided(c, u, gamma)
    step = process.at(t)
    alpha, sigma = step.scale, math.sqrt(step.var)
    eps = u.eps(X, t) + gamma * (c.eps(X, t) - u.eps(X, t))
    x0 = (X - sigma * eps) / alpha
    g2, growth = process.diffusion(t) ** 2, process.dvar(t) / (2 * sigma)
    wanted = {
        "eps": eps,
        "score": -eps / sigma,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "velocity": process.dalpha(t) * x0 + growth * eps,
        "drift": process.dalpha(t) * x0 + (growth + g2 / (2 * sigma)) * eps,
    }
    for answer in ANSWERS:
        scale = 1 + np.abs(wanted[answer]).max()
        assert np.abs(getattr(model, answer)(X, t) - wanted[answer]).max() < 1e-11 * scale
        for end, own in ((1.0, c), (0.0, u)):
            edge = getattr(Guided(c, u, end), answer)(X, t)
            np.testing.assert_array_equal(edge, getattr(own, answer)(X, t))
        # Ho and Salimans's w is gamma - 1: read as gamma it is another model.
        other = getattr(Guided(c, u, gamma - 1), answer)(X, t)
        assert np.abs(other - wanted[answer]).max() > 1e-4


@pytest.mark.parametrize("name", PROCESSES)
def test_the_exact_classifier_guides_as_the_models_do(name: str) -> None:
    """Every answer to 1e-10, its gradient being automatic; a classifier 5 % off is seen."""
    process, law = PROCESSES[name], line()
    u, exact = ds.Oracle(law.law, process), law.classifier(process, 0)
    for gamma in (-1.0, 1.0, 3.0, 8.0):
        one = guided(law, process, gamma)
        two = ClassifierGuided(u, exact, gamma)
        off = ClassifierGuided(u, lambda x, t: 1.05 * exact(x, t), gamma)
        for t in (0.03 * process.T, 0.5 * process.T):
            for answer in ANSWERS:
                wanted = getattr(one, answer)(X, t)
                size = 1 + np.abs(wanted).max()
                assert np.abs(getattr(two, answer)(X, t) - wanted).max() < 1e-10 * size
        assert np.abs(off.score(X, t) - one.score(X, t)).max() > 1e-6


def test_classifier_guidance_of_tensors_of_rows_and_of_chains() -> None:
    """Tensors keep their dtype, times pair with rows, and derivatives go on through the classifier.

    The likelihood along the flow asks for them.
    """
    law, t = plane(), torch.tensor([0.1, 0.2, 0.3])
    x = torch.as_tensor(law.law.sample(3, 0), dtype=torch.float32)
    two = ClassifierGuided(ds.Oracle(law.law, VP), law.classifier(VP, 0), 3.0)
    assert two.eps(x, t).dtype == torch.float32
    np.testing.assert_allclose(two.eps(x, t), guided(law, VP, 3.0).eps(x, t), atol=1e-5)
    chain = ds.Chain.linear(20)
    own = ClassifierGuided(ds.Oracle(law.law, chain), law.classifier(chain, 0), 3.0)
    np.testing.assert_allclose(own.x0(x, 7.0), guided(law, chain, 3.0).x0(x, 7.0), atol=1e-5)
    y = line().law.sample(3, 0)
    one = guided(line(), VP, 2.0)
    two = ClassifierGuided(ds.Oracle(line().law, VP), line().classifier(VP, 0), 2.0)
    first, second = (likelihood.log_prob(m, y, rtol=1e-3, atol=1e-3).log_prob for m in (one, two))
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_guided_models_are_models() -> None:
    """Counted, sampled and solved like any other. Seed 1."""
    law = line()
    model = guided(law, VP, 3.0)
    counted = ds.Counted(model)
    start = law.classes[0].diffuse(VP.at(1.0)).sample(50, 1)
    x = samplers.last(samplers.ddim(counted, start, ds.grids.log_snr(VP, 20)))
    assert (counted.calls, counted.points) == (20, 1000)
    solved = solvers.flow(model, start, [1.0, 0.0]).last
    assert np.median(np.abs(x - solved)) < 0.1
    plain = samplers.last(samplers.ddim(model.conditional, start, ds.grids.log_snr(VP, 20)))
    assert np.median(np.abs(plain - solved)) > 0.1


# ---------------------------------------------------------------- what is known of guidance


def spread_after(model: ds.Model, eta: float) -> float:
    """The variance that a linear reverse SDE dX = a X dt + eta g dW makes of N(0, 1 + T^2).

    exp(-A(T)) (1 + T^2) + int eta^2 g^2 exp(-A(t)) dt, A = int 2 a: on the clock t^(1/3).
    """
    T, u = model.process.T, np.linspace(0.0, model.process.T ** (1 / 3), 20_001)
    t, speed = np.minimum(u**3, T), 3 * u * u
    slope = np.asarray(model.drift(np.ones((len(u), 1)), t, eta))[:, 0]
    A = integrate.cumulative_simpson(2 * slope * speed, x=u, initial=0.0)
    fresh = (eta * np.asarray(model.process.diffusion(t))) ** 2 * np.exp(-A) * speed
    return float((1 + T * T) * np.exp(-A[-1]) + integrate.simpson(fresh, x=u))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 4.0])
def test_guided_gaussians_have_their_published_variances(gamma: float) -> None:
    """p(.|c) = N(0, 1), p = N(0, 2), variance exploding (Bradley and Nakkiran 2024, theorem 2).

    The flow ends with 2^(1 - gamma), the SDE with (2 - 2^(2 - 2 gamma))/(2 gamma - 1), and the
    tilted law has 2/(gamma + 1); the limits of T to infinity, from which T = 80 is 1/T^2 away.
    """
    process = ds.EDM(80.0)
    c, u = (ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[v]]), process) for v in (1.0, 2.0))
    model = Guided(c, u, gamma)
    flow, tilt = 2 ** (1 - gamma), 2 / (gamma + 1)
    sde = (2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1) if gamma != 0.5 else 2 * math.log(2)
    assert spread_after(model, 0.0) == pytest.approx(flow, rel=1e-3)
    assert spread_after(model, 1.0) == pytest.approx(sde, rel=1e-3)
    assert -1 / float(model.score(np.ones((1, 1)), 0.0)[0, 0]) == pytest.approx(tilt, rel=1e-12)
    if gamma != 1:
        assert min(abs(flow / sde - 1), abs(flow / tilt - 1), abs(sde / tilt - 1)) > 0.01


def test_guidance_is_right_for_gaussians_of_one_width() -> None:
    """N(m, 1) against N(0, 1): flow and tilted law are N(gamma m, 1); with 5 % more not."""
    c, u = (ds.Oracle(ds.GaussianMixture([1.0], [[m]], [[1.0]]), VP) for m in (0.7, 0.0))
    alpha = float(VP.alpha(1.0))
    start = np.array([[-1.0], [0.0], [2.0]]) + 3.0 * alpha * 0.7
    found = solvers.flow(Guided(c, u, 3.0), start, [1.0, 0.0], rtol=1e-9, atol=1e-9).last
    np.testing.assert_allclose(found[:, 0], [-1 + 2.1, 2.1, 2 + 2.1], atol=1e-6)
    found = solvers.flow(Guided(c, u, 3.15), start, [1.0, 0.0], rtol=1e-9, atol=1e-9).last
    assert np.abs(found[:, 0] - [1.1, 2.1, 4.1]).max() > 0.05


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_a_guided_sde_is_the_conditional_flow_with_langevin_steps(gamma: float) -> None:
    """drift(gamma) = velocity(1) - g^2/2 score(2 gamma - 1), and with 2 gamma it is not."""
    law = line()
    for t in (0.02, 0.4, 0.9):
        half = 0.5 * float(VP.diffusion(t)) ** 2
        drift = guided(law, VP, gamma).drift(X, t)
        flow = ds.Oracle(law.classes[0], VP).velocity(X, t)
        wanted = flow - half * guided(law, VP, 2 * gamma - 1).score(X, t)
        np.testing.assert_allclose(drift, wanted, rtol=1e-10, atol=1e-10)
        other = flow - half * guided(law, VP, 2 * gamma).score(X, t)
        assert np.abs(drift - other).max() > 1e-3


@pytest.mark.parametrize("name", LAWS)
def test_the_guided_score_is_that_of_the_tilted_law_at_each_level(name: str) -> None:
    """q_t, the tilt of p_t, and not the diffused tilt of p_0 (but at t = 0, and gamma = 0 or 1)."""
    law = LAWS[name]()
    x = law.law.sample(4, 2)
    for gamma in (0.0, 0.5, 1.0, 3.0) if name == "line" else (1.0, 3.0):
        model = guided(law, VP, gamma)
        right = ds.Oracle(tilted(name, gamma), VP)
        np.testing.assert_allclose(right.score(x, 0.0), model.score(x, 0.0), rtol=1e-11, atol=1e-11)
        for t in (0.1, 0.4):
            level = Tilted(law.diffuse(VP.at(t)), 0, gamma)
            np.testing.assert_allclose(level.score(x), model.score(x, t), rtol=1e-10, atol=1e-10)
            gap = np.abs(right.score(x, t) - model.score(x, t)).max()
            assert gap < 1e-9 if gamma in (0, 1) else gap > 1e-2


def test_the_gap_is_jensens() -> None:
    """Guided minus right score = grad(gamma log E[r|x] - log E[r^gamma|x]), by differences."""
    law, gamma, t, h = line(), 3.0, 0.15, 1e-3
    oracle = ds.Oracle(law.law, VP)

    def jensen(x: float) -> float:
        posterior = oracle.posterior(np.array([x]), t)
        y = np.linspace(-8.0, 9.0, 4001)[:, None]
        weights = np.exp(posterior.log_prob(y))
        r = law.posterior(y)[:, 0]
        return gamma * math.log(weights @ r) - math.log(weights @ r**gamma)

    gap = guided(law, VP, gamma).score(X, t) - ds.Oracle(tilted("line", gamma), VP).score(X, t)
    for x, found in zip(X[5:13, 0], gap[5:13, 0]):
        slope = (jensen(x + h) - jensen(x - h)) * 2 / 3 - (
            jensen(x + 2 * h) - jensen(x - 2 * h)
        ) / 12
        assert found == pytest.approx(slope / h, abs=1e-7)
    assert np.abs(gap).max() > 0.1


# ---------------------------------------------------------------- the tilted law


@pytest.mark.parametrize("gamma", [0.0, 1.0])
@pytest.mark.parametrize("name", LAWS)
def test_a_tilt_of_0_is_the_law_and_of_1_its_class(name: str, gamma: float) -> None:
    """Every answer, under noise and without; a tilt of 1.001 is not the class."""
    law = LAWS[name]()
    whole: Any = law.law if gamma == 0 else law.classes[0]
    x = whole.sample(5, 0)
    for step in (ds.Transition(1.0, 0.0), VP.at(0.3)):
        found, wanted = tilted(name, gamma).diffuse(step), whole.diffuse(step)
        for answer in ("log_prob", "score", "hessian"):
            a, b = getattr(found, answer)(x), getattr(wanted, answer)(x)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        close = Tilted(law, 0, gamma + 1e-3).diffuse(step).log_prob(x)
        assert np.abs(close - wanted.log_prob(x)).max() > 1e-5
    more = VP.at(0.2)
    for answer in ("denoise", "posterior_cov"):
        a, b = (getattr(p, answer)(x, more) for p in (tilted(name, gamma), whole))
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(tilted(name, gamma).mean, whole.mean, atol=1e-9)
    np.testing.assert_allclose(tilted(name, gamma).cov, whole.cov, atol=1e-9)
    if law.law.dim == 1:
        assert tilted(name, gamma).entropy() == pytest.approx(whole.entropy(), abs=1e-9)
        u = np.array([1e-12, 1e-3, 0.5, 0.9, 1 - 1e-9])
        for step in (ds.Transition(1.0, 0.0), VP.at(0.3)):
            a, b = (p.diffuse(step) for p in (tilted(name, gamma), whole))
            np.testing.assert_allclose(a.cdf(X), b.cdf(X), atol=1e-12)
            np.testing.assert_allclose(a.quantile(u), b.quantile(u), atol=1e-10)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 8.0])
def test_the_laws_of_diffusion_hold_for_a_tilt(gamma: float) -> None:
    """As `test_laws` for the gallery; the tilted law undiffused, in the place of itself, fails."""
    law = tilted("line", gamma)
    for process in (VP, ds.EDM()):
        x, t = testing.states(law, process, n=2)
        moved = law.diffuse(process.at(t))
        testing.assert_score_is_gradient(moved, torch.as_tensor(x), 1e-11)
        testing.assert_hessian_is_jacobian(moved, torch.as_tensor(x), 1e-11)
        testing.assert_semigroup(law, process, n=2)
        testing.assert_tweedie(ds.Oracle(law, process), law, n=2)
    testing.assert_fokker_planck(law, VP, n=2)
    for step in (ds.Transition(1.0, 0.0), VP.at(0.02), VP.at(0.5)):
        testing.assert_mass_one(law.diffuse(step))
        testing.assert_stein(law.diffuse(step))
    level = Tilted(line().diffuse(VP.at(0.3)), 0, gamma)
    with pytest.raises(AssertionError, match="Tweedie"):
        testing.assert_tweedie(ds.Oracle(level, VP), law, n=2)


@pytest.mark.parametrize("gamma", [2.0, 8.0])
def test_the_laws_of_a_tilt_in_the_plane(gamma: float) -> None:
    law = tilted("plane", gamma)
    x = torch.as_tensor(law.sample(5, 0))
    testing.assert_score_is_gradient(law, x)
    testing.assert_hessian_is_jacobian(law, x)
    testing.assert_mass_one(law)
    testing.assert_stein(law)
    moved, point = law.diffuse(VP.at(0.2)), law.sample(2, 1)
    testing.assert_score_is_gradient(moved, point, 1e-7, step=0.02)


@pytest.mark.parametrize("gamma", [0.5, 3.0, 8.0])
def test_a_diffused_tilt_by_brute_force(gamma: float) -> None:
    """log p_t by a fine sum over the line, also where it is 1e-100; and log Z by SciPy."""
    law, base = tilted("line", gamma), line()
    y = np.linspace(-14.0, 16.0, 30_001)
    log_q = base.law.log_prob(y[:, None]) + gamma * base.log_posterior(y[:, None])[:, 0]
    z = integrate.quad(lambda x: math.exp(float(np.interp(x, y, log_q))), -6, 8, limit=400)[0]
    assert law.log_z == pytest.approx(math.log(z), abs=1e-5)
    log_q -= np.logaddexp.reduce(log_q)
    for scale, var in ((0.999, 1e-3), (0.8, 0.36), (0.01, 1.0)):
        found = law.diffuse(ds.Transition(scale, var)).log_prob(X)
        for x, value in zip(X[:, 0], found):
            terms = log_q - 0.5 * (x - scale * y) ** 2 / var
            wanted = np.logaddexp.reduce(terms) - 0.5 * math.log(2 * math.pi * var)
            assert value == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("inside", "outside"), [(4.0, 0.01), (0.01, 4.0), (1.0, 0.001)])
def test_a_diffused_tilt_of_unequal_widths_about_one_mean(inside: float, outside: float) -> None:
    """Density, score and cdf by sums over a graded line; log h bends most where the two balance."""
    base = Labelled(ds.GaussianMixture([0.5, 0.5], [[0.0], [0.0]], [[inside], [outside]]), [0, 1])
    law = Tilted(base, 0, 3.0)
    y = np.geomspace(1e-6, 30.0, 100_001)
    y = np.concatenate([-y[::-1], y])
    q = np.exp(base.law.log_prob(y[:, None]) + 3 * base.log_posterior(y[:, None])[:, 0])
    q /= np.trapezoid(q, y)
    for var in (0.01, 1.0):
        moved, x = law.diffuse(ds.Transition(1.0, var)), np.array([-1.5, -0.1, 0.03, 0.7])
        off = y - x[:, None]
        terms = q * np.exp(-0.5 * off**2 / var) / math.sqrt(2 * math.pi * var)
        p = np.trapezoid(terms, y, axis=1)
        np.testing.assert_allclose(np.exp(moved.log_prob(x[:, None])), p, rtol=1e-7, atol=1e-30)
        score = np.trapezoid(terms * off, y, axis=1) / var / p
        np.testing.assert_allclose(moved.score(x[:, None])[:, 0], score, rtol=1e-7, atol=1e-7)
        below = np.trapezoid(q * ndtr(-off / math.sqrt(var)), y, axis=1)
        np.testing.assert_allclose(moved.cdf(x[:, None]).ravel(), below, atol=1e-8)


def test_a_tilt_of_round_laws_of_one_width() -> None:
    """Planes between the components, which rays along the axes miss; log h is a logistic curve."""
    base = Labelled(
        ds.GaussianMixture([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.0]], np.ones((2, 2))), [0, 1]
    )
    x, y = np.array([[0.3, 2.0]]), np.linspace(-12.0, 12.0, 20_001)
    q = np.exp(-0.5 * (y - 1) ** 2) * (1 + np.exp(-2 * y)) ** -2.0  # N(1, 1) p(c|y)^2
    moved, var = Tilted(base, 0, 3.0).diffuse(ds.Transition(1.0, 0.5)), 0.5
    p = np.trapezoid(q * np.exp(-0.5 * (x[0, 0] - y) ** 2 / var), y) / np.trapezoid(q, y)
    p *= math.exp(-0.5 * 4.0 / 1.5) / (2 * math.pi) / math.sqrt(var * 1.5)
    assert float(moved.log_prob(x)[0]) == pytest.approx(math.log(p), abs=1e-6)


def test_a_diffused_tilt_of_unequal_widths_in_the_plane() -> None:
    """Round laws about one mean: density and score by sums over radii and Bessel's function."""
    base = Labelled(
        ds.GaussianMixture([0.5, 0.5], np.zeros((2, 2)), [[1.0, 1.0], [0.09, 0.09]]), [0, 1]
    )
    law, var = Tilted(base, 0, 3.0), 0.2
    r = np.linspace(0.0, 9.0, 200_001)
    at = np.stack([r, 0 * r], axis=-1)
    q = r * np.exp(base.law.log_prob(at) + 3 * base.log_posterior(at)[:, 0])
    q /= 2 * math.pi * np.trapezoid(q, r)
    moved = law.diffuse(ds.Transition(1.0, var))
    for x in (0.05, 0.6, 1.5):
        kernel = q * np.exp(-0.5 * (r - x) ** 2 / var) / var
        p = np.trapezoid(kernel * ive(0, r * x / var), r)
        slope = np.trapezoid(kernel * (r * ive(1, r * x / var) - x * ive(0, r * x / var)), r) / var
        point = np.array([[x * math.cos(1.0), x * math.sin(1.0)]])
        assert float(moved.log_prob(point)[0]) == pytest.approx(math.log(p), abs=1e-5)
        assert np.hypot(*moved.score(point)[0]) == pytest.approx(abs(slope / p), abs=1e-5)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("gamma", [0.5, 4.0])
def test_samples_of_a_tilt(name: str, gamma: float) -> None:
    """They follow it, and those of the class do not. Seed 4."""
    law = tilted(name, gamma)
    n = 4000 if law.dim == 1 else 1500
    testing.assert_samples_follow(law.sample(n, 4), law)
    draws = torch.Generator().manual_seed(4)
    testing.assert_samples_follow(law.sample(n, draws), law)
    other = LAWS[name]().classes[0 if law.dim == 1 else 1]  # a tilt of 1, or of the other class
    with pytest.raises(AssertionError):
        testing.assert_samples_follow(other.sample(4 * n, 4), law)


def test_the_right_guided_model_samples_the_tilted_law() -> None:
    """Its flow, solved, is the exact F_0^-1(F_T(x)); that of the guided model ends elsewhere."""
    oracle = ds.Oracle(tilted("line", 3.0), VP)
    x = oracle.at(1.0).quantile(np.array([0.05, 0.5, 0.95]))
    wanted = tilted("line", 3.0).quantile(np.array([0.05, 0.5, 0.95]))
    found = solvers.flow(oracle, x, [1.0, 0.0], rtol=1e-6, atol=1e-6).last
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    other = solvers.flow(guided(line(), VP, 3.0), x, [1.0, 0.0], rtol=1e-6, atol=1e-6).last
    assert np.abs(other - wanted).max() > 0.1


def test_more_tilt_is_more_of_the_class() -> None:
    """E p(c|X) grows with gamma, and its logarithm is the slope of log Z."""
    base, share = line(), []
    for gamma in (0.0, 0.5, 1.0, 2.0, 4.0):
        x, weights = tilted("line", gamma).quadrature()
        share.append(weights @ base.posterior(x)[:, 0])
        h = 1e-4
        slope = (Tilted(base, 0, gamma + h).log_z - Tilted(base, 0, gamma).log_z) / h
        assert slope == pytest.approx(weights @ base.log_posterior(x)[:, 0], abs=1e-2)
    assert np.all(np.diff(share) > 0)


# ---------------------------------------------------------------- networks with labels


def test_a_class_is_seen_as_its_unit_vector() -> None:
    """The first layer adds a column for a class and nothing for none."""
    net = nets.MLP(1, widths=(6,), frequencies=(), seed=1, classes=2)
    x, t = torch.randn(4, 1, generator=torch.Generator().manual_seed(0)), torch.full((4,), 0.3)
    label = torch.tensor([0, 1, 2, 2])
    seen = torch.cat([x, t[:, None], torch.eye(3)[label][:, :2]], dim=1)
    torch.testing.assert_close(net(x, t, label), net.through(seen))
    torch.testing.assert_close(net(x, t), net(x, t, torch.full((4,), 2)))
    assert not torch.equal(net(x, t), net(x, t, torch.zeros(4, dtype=torch.int64)))
    plain = nets.MLP(1, widths=(6,), frequencies=(), seed=1)
    torch.testing.assert_close(plain(x, t), plain.through(seen[:, :2]))


def test_a_network_is_told_a_class() -> None:
    network = ds.Network(nets.MLP(1, widths=(6,), seed=1, classes=2), VP)
    rows = network.given(torch.tensor([0, 1, 2]))
    x = torch.tensor([[0.5], [0.5], [0.5]])
    for i, label in enumerate((0, 1, None)):
        torch.testing.assert_close(rows.eps(x, 0.4)[i], network.given(label).eps(x, 0.4)[i])
    assert network.given(1).net.net is network.net
    model = Guided(network.given(0), network.given(None), 2.0)
    assert model.velocity(np.zeros((3, 1)), 0.5).shape == (3, 1)
    told = network.given(1)
    again = train.with_state(told, told.net.state_dict())
    torch.testing.assert_close(again.eps(x, 0.4), told.eps(x, 0.4))


def seen_in_training(n: int, dropped: float, seed: int) -> dict[str, torch.Tensor]:
    """What the loss of one step of training is given."""
    law = line()
    held: dict[str, torch.Tensor] = {}

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> torch.Tensor:
        held.update(label=model.net.label, x0=x0, t=t, noise=noise)
        return torch.zeros(len(x0))

    net = nets.MLP(1, widths=(4,), classes=2)
    rows = label_dropout(ds.Network(net, VP), law, dropped=dropped, loss=loss)
    generator = torch.Generator().manual_seed(seed)
    rows(net, law.law.sample(n, generator), generator)
    return held


def test_labels_are_dropped_and_else_those_of_their_points() -> None:
    """Share of none, and label against p(c|x) in every fifth of the line; both limits. Seed 5."""
    n, dropped = 100_000, 0.2
    seen = seen_in_training(n, dropped, 5)
    label, x0 = seen["label"].numpy(), seen["x0"].numpy()

    def z(share: float) -> float:
        return abs(np.mean(label == 2) - share) / math.sqrt(dropped * (1 - dropped) / n)

    assert z(dropped) < LIMIT < z(1.05 * dropped)
    known = label < 2
    p = line().posterior(x0)[:, 1]
    for probability, passes in ((p, True), (np.full(n, p.mean()), False)):
        worst = 0.0
        for part in np.array_split(np.argsort(x0[:, 0]), 5):
            rows = part[known[part]]
            off = np.sum((label[rows] == 1) - probability[rows])
            spread = math.sqrt(np.sum(probability[rows] * (1 - probability[rows])))
            worst = max(worst, abs(off) / max(spread, 1.0))
        assert (worst < LIMIT) == passes


def test_the_objective_has_the_exact_models_as_its_minimum() -> None:
    """E[(eps(x_t, t) - noise) f(x_t)] = 0 for rows of a class and the eps of that class. Seed 6."""
    law, seen = line(), seen_in_training(60_000, 0.3, 6)
    x0, t, noise = (seen[k].double().numpy() for k in ("x0", "t", "noise"))
    x = VP.at(t).apply(x0, noise)
    label = seen["label"].numpy()
    for c, right in enumerate((*law.classes, law.law)):
        rows = label == c
        for own in (*law.classes, law.law):
            eps = ds.Oracle(own, VP).eps(x[rows], t[rows])
            worst = 0.0
            for f in (np.sin(x[rows]), np.cos(2 * x[rows]), np.ones_like(x[rows])):
                value = (eps - noise[rows]) * f
                worst = max(worst, abs(value.mean()) / (value.std() / math.sqrt(rows.sum())))
            assert (worst < LIMIT) == (own is right)


def test_training_goes_through_fit() -> None:
    """The loss falls, and the two models that come of one network differ. Seed 0."""
    law, net = line(), nets.MLP(1, widths=(16,), seed=0, classes=2)
    network = ds.Network(net, VP)
    rows = label_dropout(network, law, dropped=0.2)
    found = train.fit(net, law.law, rows, steps=60, seed=0, batch=64, rate=1e-2)
    assert found.losses[-20:].mean() < found.losses[:5].mean()
    left, right = (network.given(c).x0(np.array([[0.0]]), 0.9)[0, 0] for c in (1, 0))
    assert right > left


# ---------------------------------------------------------------- bad arguments

ORACLE = ds.Oracle(gallery.julia_bimodal(), VP)
PAIR: Any = Labelled(gallery.julia_bimodal(), [0, 1])
ANY: Any = Labelled
POINTS = gallery.empirical(np.array([[0.0], [1.0]]))
NETWORK = ds.Network(nets.MLP(1, widths=(4,), classes=2), VP)
PLAIN = ds.Network(nets.MLP(1, widths=(4,)), VP)
FAR = ds.GaussianMixture([1.0, 1.0], [[0.0], [1e4]], [[1.0], [1.0]])
SPACE = ds.GaussianMixture([1.0], np.zeros((1, 3)), np.ones((1, 3)))
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "too few labels": (lambda: ANY(gallery.julia_bimodal(), [0]), "labels must be 2 whole numbers"),
    "half labels": (lambda: ANY(gallery.julia_bimodal(), [0.5, 1]), "labels must be 2 whole"),
    "a class left out": (lambda: ANY(gallery.julia_bimodal(), [0, 2]), "labels must be classes 0"),
    "negative label": (lambda: ANY(gallery.julia_bimodal(), [-1, 0]), "labels must be classes 0"),
    "no mixture": (lambda: ANY(gallery.rings(), [0]), "law must be a GaussianMixture"),
    "batch of noises": (
        lambda: ANY(gallery.julia_bimodal().diffuse(VP.at(np.array([0.1, 0.2]))), [0, 1]),
        "law must be under one noise",
    ),
    "unknown class": (lambda: PAIR.classifier(VP, 2), "label must be a whole number from 0 to 1"),
    "two processes": (
        lambda: Guided(ORACLE, ds.Oracle(gallery.julia_bimodal(), ds.EDM()), 2.0),
        "unconditional must have the process",
    ),
    "gamma NaN": (lambda: Guided(ORACLE, ORACLE, math.nan), "gamma must be a finite number"),
    "no classifier": (lambda: ClassifierGuided(ORACLE, ANY(PAIR.law, [0, 1]), 1.0),
                      "classifier must be a function"),
    "classifier of another shape": (
        lambda: ClassifierGuided(ORACLE, lambda x, t: x, 1.0).eps(np.zeros((3, 1)), 0.5),
        "classifier must answer with shape",
    ),
    "no data left": (
        lambda: ClassifierGuided(
            ds.Oracle(PAIR.law, ds.RectifiedFlow()), PAIR.classifier(ds.RectifiedFlow(), 0), 1.0
        ).x0(np.zeros((3, 1)), 1.0),
        "t must be a time at which alpha is positive",
    ),
    "tilt below 0": (lambda: Tilted(PAIR, 0, -1.0), "gamma must be a number of at least 0"),
    "tilt of points": (lambda: Tilted(ANY(POINTS, [0, 1]), 0, 2.0), "law must have one noise"),
    "tilt in space": (
        lambda: Tilted(ANY(SPACE, [0]), 0, 2.0),
        "law must have D <= 2",
    ),
    "tilt of what lies far apart": (lambda: Tilted(ANY(FAR, [0, 1]), 0, 2.0), "law must have comp"),
    "cdf of a batch": (
        lambda: Tilted(PAIR, 0, 2.0).diffuse(VP.at(np.array([0.1, 0.2]))).cdf(np.zeros((2, 1))),
        "noise must be one transition",
    ),
    "nothing left to sample": (lambda: Tilted(overlapping(), 0, 60.0).sample(3, 0), "gamma must"),
    "classes below 0": (lambda: nets.MLP(1, classes=-1), "classes must be a whole number"),
    "a label without classes": (lambda: PLAIN.given(0), "net must have classes"),
    "a label that is none": (lambda: NETWORK.given(2), "label must be a whole number from 0 to 1"),
    "labels that are no numbers": (lambda: NETWORK.given(torch.zeros(3)), "label must be whole"),
    "labels of other rows": (
        lambda: NETWORK.given(torch.tensor([0, 1])).eps(np.zeros((3, 1)), 0.5), "net must take"
    ),
    "a label to a net of none": (
        lambda: PLAIN.net(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1)), "label must be left"
    ),
    "dropout of none": (lambda: label_dropout(NETWORK, PAIR, dropped=0.0), r"dropped must lie in"),
    "dropout of another law": (lambda: label_dropout(PLAIN, PAIR), "network must know 2 classes"),
}  # fmt: skip


def overlapping() -> Labelled:
    """Two classes that cannot be told apart."""
    return Labelled(ds.GaussianMixture([0.5, 0.5], [[0.0], [0.1]], [[1.0], [1.0]]), [0, 1])


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(ds.ArgumentError, match=words) as caught:
        call()
    assert "; got " in str(caught.value)


def test_the_tests_of_samples_can_fail() -> None:
    """A tilt of 5 in the place of 4: their cdfs are 0.029 apart, 20,000 points see it. Seed 7."""
    x = Tilted(line(), 0, 5.0).sample(20_000, 7)
    with pytest.raises(AssertionError):
        testing.assert_samples_follow(x, tilted("line", 4.0))
