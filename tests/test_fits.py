"""Closed-form score matching: true parameters recovered, and the same objective as `losses`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import fits, gallery, losses
from diffscience.errors import ArgumentError

Pair = tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def power(k: int) -> Pair:
    """grad and Laplacian of x^k in one dimension."""
    return (lambda x: k * x ** (k - 1)), (lambda x: k * (k - 1) * x[:, 0] ** max(k - 2, 0))


def quadratic(i: int, j: int) -> Pair:
    """grad and Laplacian of x_i x_j."""

    def field(x: np.ndarray) -> np.ndarray:
        g = np.zeros_like(x)
        g[:, i] += x[:, j]
        g[:, j] += x[:, i]
        return g

    return field, lambda x: np.full(len(x), 2.0 * (i == j))


def axis(i: int) -> Pair:
    return (lambda x: np.broadcast_to(np.eye(x.shape[1])[i], x.shape)), lambda x: np.zeros(len(x))


def grid(log_q: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of the law q on a line; the trapezium rule, exact to rounding here."""
    x = np.linspace(-9, 9, 4001)
    w = np.exp(log_q(x) - log_q(x).max())
    return x[:, None], w / w.sum()


TRUE = np.array([0.4, 0.9, -0.2, -0.15])  # of x, x^2, x^3, x^4: two wells, skewed


def log_quartic(x: np.ndarray) -> np.ndarray:
    return sum(a * x**k for k, a in enumerate(TRUE, start=1))


# ---------------------------------------------------------------- exponential families


def test_a_quartic_family_is_recovered_by_quadrature() -> None:
    x, w = grid(log_quartic)
    fit = fits.linear_score([power(k) for k in (1, 2, 3, 4)], x, weights=w)
    np.testing.assert_allclose(fit.minimiser, TRUE, rtol=1e-9)
    # A part of the score may be known: it stays out of the fit.
    g, d = power(4)
    base = (lambda x: TRUE[3] * g(x)), (lambda x: TRUE[3] * d(x))
    rest = fits.linear_score([power(k) for k in (1, 2, 3)], x, base, w)
    np.testing.assert_allclose(rest.minimiser, TRUE[:3], rtol=1e-9)
    np.testing.assert_allclose(rest(TRUE[:3]), fit(TRUE), rtol=1e-10)
    # The twins: divergences with a factor 2, a sign, or 5 % off; and without the base.
    for factor in (2.0, -1.0, 1.05):
        pairs = [(power(k)[0], lambda x, k=k: factor * power(k)[1](x)) for k in (1, 2, 3, 4)]  # noqa: B023
        assert not np.allclose(fits.linear_score(pairs, x, weights=w).minimiser, TRUE, rtol=1e-2)
    wrong = fits.linear_score([power(k) for k in (1, 2, 3)], x, weights=w)
    assert not np.allclose(wrong.minimiser, TRUE[:3], rtol=1e-2)


def test_a_quartic_family_is_recovered_from_samples() -> None:
    """400,000 points by inversion, seed 1; |z| < 4.9 with the sandwich variance of the estimate."""
    x, w = grid(log_quartic)
    u = np.random.default_rng(1).random(400_000)
    sample = np.interp(u, np.cumsum(w) - w / 2, x[:, 0])[:, None]
    pairs = [power(k) for k in (1, 2, 3, 4)]
    fit = fits.linear_score(pairs, sample)
    g = np.stack([f(sample)[:, 0] for f, _ in pairs])
    d = np.stack([f(sample) for _, f in pairs])
    rows = g * (fit.minimiser @ g) + d  # the gradient of each point's objective
    inverse = np.linalg.inv(fit.A)
    error = np.sqrt(np.diag(inverse @ np.cov(rows) @ inverse) / len(sample))
    z = (fit.minimiser - TRUE) / error
    assert np.abs(z).max() < 4.9
    assert np.abs((fit.minimiser - 1.05 * TRUE) / error).max() > 4.9


def test_a_gaussian_as_an_exponential_family() -> None:
    """log q = -1/2 x^T P x + h^T x: five parameters in two dimensions, from the quadrature."""
    mean, cov = np.array([0.5, -1.0]), np.array([[1.5, 0.4], [0.4, 0.7]])
    x, w = ds.GaussianMixture([1.0], [mean], [cov]).quadrature()
    pairs = [quadratic(0, 0), quadratic(0, 1), quadratic(1, 1), axis(0), axis(1)]
    fit = fits.linear_score(pairs, x, weights=w)
    P = np.linalg.inv(cov)
    wanted = [-P[0, 0] / 2, -P[0, 1], -P[1, 1] / 2, *(P @ mean)]
    np.testing.assert_allclose(fit.minimiser, wanted, rtol=1e-9)
    assert not np.allclose(fit.minimiser, 2 * np.array(wanted), rtol=0.1)
    # At its minimum the objective is -C; the twin is the explicit constant with the other sign.
    C = losses.explicit_constant(ds.GaussianMixture([1.0], [mean], [cov]))
    assert fit(fit.minimiser) == pytest.approx(-C, rel=1e-10)
    assert C > 0.1 and fit(fit.minimiser) != pytest.approx(C, rel=0.1)


@pytest.mark.parametrize("with_base", [False, True])
def test_the_quadratic_is_the_implicit_objective(with_base: bool) -> None:
    """At any parameters, against derivatives taken by torch; points of a law that is not fitted."""
    x = gallery.julia_bimodal().sample(300, 2)
    base = ((lambda x: np.sin(x)), (lambda x: np.cos(x[:, 0]))) if with_base else None
    fit = fits.linear_score([power(k) for k in (1, 2, 3, 4)], x, base)
    for theta in (TRUE, np.array([0.1, -0.4, 0.3, 0.2])):
        psi: Any = lambda y, theta=theta: (  # noqa: E731
            sum(float(a) * k * y ** (k - 1) for k, a in enumerate(theta, start=1))
            + with_base * torch.sin(y)
        )
        wanted = float(losses.implicit(psi, torch.as_tensor(x)).mean().detach())
        assert fit(theta) == pytest.approx(wanted, rel=1e-11)
        assert fit(1.05 * theta) != pytest.approx(wanted, rel=1e-4)
    at, step = fit.minimiser, 1e-3
    for direction in np.eye(4):
        assert fit(at + step * direction) > fit(at) < fit(at - step * direction)


def test_the_units_of_the_fields_do_not_matter() -> None:
    x, w = grid(log_quartic)
    scale = np.array([1e6, 1.0, 1e-5, 1e-8])
    pairs = [
        (lambda x, k=k, c=c: c * power(k)[0](x), lambda x, k=k, c=c: c * power(k)[1](x))
        for k, c in zip((1, 2, 3, 4), scale)
    ]
    fit = fits.linear_score(pairs, x, weights=w)
    np.testing.assert_allclose(fit.minimiser * scale, TRUE, rtol=1e-6)


# ---------------------------------------------------------------- the Gaussian


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_moments_minimise_the_objective_of_the_gaussian(dim: int) -> None:
    random = np.random.default_rng(dim)
    x = random.standard_normal((200, dim)) @ random.standard_normal((dim, dim)) + 1.0
    mean, cov = fits.gaussian(x)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(cov, np.atleast_2d(np.cov(x.T, ddof=0)), rtol=1e-12, atol=1e-14)
    best = fits.gaussian_objective(x, mean, cov)
    assert best == pytest.approx(-0.5 * np.trace(np.linalg.inv(cov)), rel=1e-10)
    for twin in (1.05 * cov, 0.95 * cov, 2 * cov):
        assert fits.gaussian_objective(x, mean, twin) > best + 1e-6 * abs(best)
    for i in range(dim):
        shift = 1e-3 * np.eye(dim)[i]
        for side in (shift, -shift):
            assert fits.gaussian_objective(x, mean + side, cov) > best
        bend = 1e-3 * np.abs(cov).max() * np.outer(np.eye(dim)[i], np.eye(dim)[0])
        bend = 0.1 * (bend + bend.T)
        assert fits.gaussian_objective(x, mean, cov + bend) > best


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_objective_of_the_gaussian_is_the_implicit_one(dim: int) -> None:
    random = np.random.default_rng(10 + dim)
    x, mean = random.standard_normal((50, dim)), random.standard_normal(dim)
    root = random.standard_normal((dim, dim))
    cov = root @ root.T + np.eye(dim)
    P = torch.as_tensor(np.linalg.inv(cov))
    psi: Any = lambda y: -(y - torch.as_tensor(mean)) @ P  # noqa: E731
    wanted = float(losses.implicit(psi, torch.as_tensor(x)).mean().detach())
    assert fits.gaussian_objective(x, mean, cov) == pytest.approx(wanted, rel=1e-12)
    assert fits.gaussian_objective(torch.as_tensor(x), mean, cov) == pytest.approx(wanted)
    assert fits.gaussian_objective(x, -mean, cov) != pytest.approx(wanted, rel=1e-3)
    assert fits.gaussian_objective(x, mean, 1.05 * cov) != pytest.approx(wanted, rel=1e-3)


# ---------------------------------------------------------------- bad input

X = np.linspace(-1, 1, 5)[:, None]
FIT = fits.Quadratic(np.eye(2), np.zeros(2), 0.0)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no points": (lambda: fits.linear_score([power(2)], X[:0]), "x must hold one or more points"),
    "no points, Gaussian": (lambda: fits.gaussian(X[:0]), "x must hold one or more points"),
    "no fields": (lambda: fits.linear_score([], X), "fields must be one or more"),
    "a flat field": (
        lambda: fits.linear_score([(lambda x: x[:, 0], power(2)[1])], X),
        r"fields must answer with shape \(5, 1\)",
    ),
    "a divergence with columns": (
        lambda: fits.linear_score([(power(2)[0], lambda x: x)], X),
        r"fields must have divergences \(5,\)",
    ),
    "a field of NaN": (
        lambda: fits.linear_score([(lambda x: np.nan * x, power(2)[1])], X),
        "fields must be finite",
    ),
    "a flat base": (
        lambda: fits.linear_score([power(2)], X, (lambda x: x[:, 0], power(2)[1])),
        r"base must answer with shape \(5, 1\)",
    ),
    "a base whose divergence has columns": (
        lambda: fits.linear_score([power(2)], X, (power(2)[0], lambda x: x)),
        r"base must have divergences \(5,\)",
    ),
    "a base of NaN": (
        lambda: fits.linear_score([power(2)], X, (lambda x: np.nan * x, power(2)[1])),
        "base must be finite",
    ),
    "few weights": (
        lambda: fits.linear_score([power(2)], X, weights=[1.0]), r"weights must have shape \(5\)"),
    "the same field twice": (
        lambda: fits.linear_score([power(2), power(2)], X).minimiser, "fields must be linearly"),
    "a field of zeros": (
        lambda: fits.linear_score([(lambda x: 0 * x, power(1)[1])], X).minimiser,
        "fields must be linearly independent"),
    "three parameters": (lambda: FIT([1.0, 2.0, 3.0]), r"theta must have shape \(2\)"),
    "a flat covariance": (
        lambda: fits.gaussian_objective(X, [0.0], [[0.0]]), "cov must be symmetric and positive"),
    "a lopsided covariance": (
        lambda: fits.gaussian_objective(np.ones((3, 2)), [0, 0], [[1, 1], [0, 1]]),
        "cov must be symmetric and positive"),
    "another mean": (
        lambda: fits.gaussian_objective(X, [0.0, 1.0], [[1.0]]), r"mean must have shape \(1\)"),
    "a line of points": (lambda: fits.gaussian(X[:, 0]), "x must have shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, sentence = BAD[name]
    with pytest.raises(ArgumentError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
