"""Score matching in closed form: models whose objective is quadratic in their parameters.

A score that is linear in theta, psi(x) = sum_j theta_j g_j(x) + g_0(x), has the implicit objective

    J(theta) = 1/2 theta^T A theta + b^T theta + c,   minimised by  theta = -A^-1 b
    A_jk = E g_j.g_k,   b_j = E (div g_j + g_j.g_0),   c = E (div g_0 + 1/2 |g_0|^2)

which covers exponential families log q = sum_j theta_j T_j + T_0 with g_j = grad T_j (Hyvarinen
2007, "Some extensions of score matching", section 4). The Gaussian, whose precision enters
linearly, is fitted by its sample mean and covariance (Hyvarinen 2005, section 3.1).

Conventions: NumPy, float64; points x (n, D), n >= 1; fields are functions x -> (n, D), their
divergences x -> (n,).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Array, finite, numpy
from .errors import ArgumentError

Field = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Quadratic:
    """J(theta) = 1/2 theta^T A theta + b^T theta + c, and its minimum.

    A : (m, m); b : (m,); c : a number.

    >>> J = Quadratic(np.array([[2.0]]), np.array([-2.0]), 0.0)
    >>> J.minimiser.tolist(), J([1.0])
    ([1.0], -1.0)
    """

    A: np.ndarray
    b: np.ndarray
    c: float

    def __call__(self, theta: Array) -> float:
        """J at theta (m,)."""
        theta = numpy(finite("theta", theta, self.b.shape))
        return float(0.5 * theta @ self.A @ theta + self.b @ theta + self.c)

    @property
    def minimiser(self) -> np.ndarray:
        """-A^-1 b, (m,). Raises ArgumentError where the fields are dependent on the data."""
        size = np.sqrt(np.diag(self.A))  # the units of the fields do not count
        if np.any(size == 0) or np.linalg.cond(self.A / np.outer(size, size)) > 1e14:
            raise ArgumentError("fields", "be linearly independent on the data", self.A.tolist())
        return -np.linalg.solve(self.A, self.b)


def linear_score(
    fields: Sequence[tuple[Field, Field]],
    x: Array,
    base: tuple[Field, Field] | None = None,
    weights: Array | None = None,
) -> Quadratic:
    """The implicit objective of psi = sum_j theta_j g_j + g_0 on points x.

    Parameters
    ----------
    fields : pairs (g_j, div g_j), x (n, D) -> (n, D) and (n,).
    base : the pair of g_0, zero where left out.
    weights : (n,) of the points, as `Target.quadrature` gives them; 1/n where left out.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[4.0]]])
    >>> x, w = law.quadrature()
    >>> fit = linear_score([(lambda x: -x, lambda x: -np.ones(len(x)))], x, weights=w)
    >>> round(float(fit.minimiser[0]), 9)
    0.25
    """
    x = _points(x)
    if not fields:
        raise ArgumentError("fields", "be one or more", "none")
    w = np.full(len(x), 1 / len(x)) if weights is None else finite("weights", weights, (len(x),))
    g = np.stack([_field("fields", f, x) for f, _ in fields])
    divergence = np.stack([_divergence("fields", d, x) for _, d in fields])
    g0 = np.zeros_like(x) if base is None else _field("base", base[0], x)
    d0 = np.zeros(len(x)) if base is None else _divergence("base", base[1], x)
    w = numpy(w)
    A = np.einsum("n,jnd,knd->jk", w, g, g, optimize=True)
    b = (divergence + np.einsum("jnd,nd->jn", g, g0)) @ w
    return Quadratic(A, b, float(w @ (d0 + 0.5 * np.sum(g0 * g0, axis=-1))))


def gaussian(x: Array) -> tuple[np.ndarray, np.ndarray]:
    """The Gaussian (mean, covariance) that score matching fits to points (n, D): their own moments.

    >>> mean, cov = gaussian([[0.0], [2.0]])
    >>> mean.tolist(), cov.tolist()
    ([1.0], [[1.0]])
    """
    x = _points(x)
    mean = x.mean(axis=0)
    return mean, (x - mean).T @ (x - mean) / len(x)


def gaussian_objective(x: Array, mean: Array, cov: Array) -> float:
    """The implicit objective of N(mean, cov): -tr P + 1/2 E|P (x - mean)|^2, P = cov^-1.

    >>> gaussian_objective([[-1.0], [1.0]], [0.0], [[1.0]])
    -0.5
    """
    x = _points(x)
    S = numpy(finite("cov", cov, (x.shape[1], x.shape[1])))
    if not np.allclose(S, S.T) or np.linalg.eigvalsh(S)[0] <= 0:
        raise ArgumentError("cov", "be symmetric and positive definite", S.tolist())
    P = np.linalg.inv(S)
    off = (x - numpy(finite("mean", mean, (x.shape[1],)))) @ P
    return float(-np.trace(P) + 0.5 * np.mean(np.sum(off * off, axis=-1)))


def _points(x: Array) -> np.ndarray:
    x = numpy(finite("x", x, (None, None)))
    if 0 in x.shape:
        raise ArgumentError("x", "hold one or more points", f"shape {x.shape}")
    return x


def _field(name: str, f: Field, x: np.ndarray) -> np.ndarray:
    value = np.asarray(f(x), float)
    if value.shape != x.shape:
        raise ArgumentError(name, f"answer with shape {x.shape}", f"shape {value.shape}")
    return finite(name, value)


def _divergence(name: str, f: Field, x: np.ndarray) -> np.ndarray:
    value = np.asarray(f(x), float)
    if value.shape != x.shape[:1]:
        raise ArgumentError(name, f"have divergences ({len(x)},)", f"shape {value.shape}")
    return finite(name, value)
