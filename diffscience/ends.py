"""Ends: how far the end of a run is from the data, and what is left of the way to it.

    Line               of a map of a known start on a line, by quadrature: no chance in it
    paired_energy      of points that were made in pairs with exact ones: unbiased, common noise out
    posterior_draws    points of p(x0 | x_t), which end a reverse SDE of a Gaussian mixture exactly

Conventions: points (n, D), float64 NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from . import distances, metrics
from .arrays import numpy
from .errors import ArgumentError
from .mixture import GaussianMixture
from .models import Oracle
from .targets import Target

METRICS = ("energy", "w1", "w2", "kl")
"""The energy distance, W_1, W_2^2 and KL(law || q)."""
REACH = 7.0  # standard deviations of the start on either side


@dataclass(frozen=True, eq=False)
class Line:
    """A quadrature over a start on a line, for the law of x(Z), Z ~ start, against a law.

    nodes : (n, 1), even, over seven deviations of the start on either side.
    log_density : of the start at the nodes. mass : below each node. quantiles : of the law there.
    """

    law: Target
    nodes: np.ndarray
    log_density: np.ndarray
    mass: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, law: Target, start: Target, n: int) -> Line:
        """The quadrature of n nodes; law and start of dimension 1."""
        mean, root = float(numpy(start.mean)[0]), math.sqrt(float(numpy(start.cov)[0, 0]))
        z = (mean + root * np.linspace(-REACH, REACH, n))[:, None]
        mass = numpy(start.cdf(z))
        return cls(law, z, numpy(start.log_prob(z)), mass, _quantiles(law, mass))

    def distance(self, metric: str, x: np.ndarray) -> float:
        """One of `METRICS` from the law to the law of x(Z), for x (n, 1) at the nodes.

        For "kl" x must increase. Errors are of second order in the distance of the nodes times the
        steepness of the map, and of third for "kl".

        >>> import diffscience as ds
        >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
        >>> line = Line.of(law, law, 1000)
        >>> [round(line.distance(metric, line.nodes + 0.5), 6) for metric in ("w1", "w2", "kl")]
        [0.5, 0.25, 0.125]
        """
        z, x, u, wanted = self.nodes[:, 0], x[:, 0], self.mass, self.quantiles
        weights = np.exp(self.log_density) * (z[1] - z[0])
        rises = bool(np.all(np.diff(x) > 0))
        if metric == "kl":
            if not rises:
                raise ArgumentError("metric", "be no kl where a run changes the order", metric)
            from scipy.interpolate import CubicSpline

            slope = CubicSpline(z, x)(z, 1)
            if not np.all(slope > 0):
                raise ArgumentError("nodes", "be so near that a spline through them rises", len(z))
            log_p = numpy(self.law.log_prob(x[:, None]))
            log_q = self.log_density - np.log(slope)
            gap = np.exp(log_p) * (log_p - log_q - 1) + np.exp(log_q)
            return float(gap @ slope * (z[1] - z[0]))
        if not rises:
            order = np.argsort(x, kind="stable")
            x, weights = x[order], weights[order]
            u = np.cumsum(weights) - 0.5 * weights
            wanted = _quantiles(self.law, u)
        if metric != "energy":
            return float(weights @ np.abs(x - wanted) ** (1 if metric == "w1" else 2))
        at = np.sort(np.concatenate([x, wanted]))
        gap = np.interp(at, x, u, left=0.0, right=1.0) - numpy(self.law.cdf(at[:, None]))
        return float(np.sum((gap[1:] ** 2 + gap[:-1] ** 2) * np.diff(at)))


def _quantiles(law: Target, u: np.ndarray) -> np.ndarray:
    return numpy(law.quantile(np.clip(u, 1e-300, 1 - 2.0**-53)))[:, 0]


def paired_energy(x: np.ndarray, y: np.ndarray) -> float:
    """The energy distance between the laws of X and Y from n independent pairs, without bias.

    The mean over i != j of |x_i - y_j| + |y_i - x_j| - |x_i - x_j| - |y_i - y_j|. What x_i and y_i
    have in common moves it as little as their difference does; 0 exactly for x = y. x, y (n, D).

    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> paired_energy(x, x), round(paired_energy(x, x + 2.0), 9)
    (0.0, 0.666666667)
    """
    n = len(x)
    cross = _distance_sum(x, y) - float(np.linalg.norm(x - y, axis=1).sum())
    return (2 * cross - _distance_sum(x, x) - _distance_sum(y, y)) / (n * (n - 1))


def _distance_sum(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of |x_i - y_j| over all i and j."""
    if x.shape[1] == 1:
        return -float(distances.pair_sums(x, y, distances.minus_distance)[0].sum())
    from scipy.spatial.distance import cdist

    return float(sum(cdist(x[i : i + 256], y).sum() for i in range(0, len(x), 256)))


def posterior_draws(
    oracle: Oracle, x: np.ndarray, t: float, u: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """A point of the posterior p(x0 | X_t = x) of a Gaussian mixture for each row x (n, D).

    u (n,) uniform on [0, 1), which chooses the component; z (n, D) normal.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> posterior_draws(oracle, np.ones((1, 1)), 1e-9, np.zeros(1), np.zeros((1, 1))).round(6)
    array([[1.]])
    """
    law, step = oracle.law, oracle.process.at(float(t))
    if not isinstance(law, GaussianMixture):
        raise ArgumentError("oracle", "have a Gaussian mixture for its law", law)
    s, v = step.scale, step.var
    shares = np.cumsum(metrics.responsibilities(x, law.diffuse(step)), axis=1)
    k = np.minimum((u[:, None] >= shares).sum(axis=1), shares.shape[1] - 1)
    means, covs = numpy(law.means), numpy(law.covs)
    kept = covs @ np.linalg.inv(s * s * covs + v * np.eye(law.dim))  # C (s^2 C + v)^-1
    spread, axes = np.linalg.eigh(0.5 * v * (kept + np.swapaxes(kept, -1, -2)))
    roots = axes * np.sqrt(np.maximum(spread, 0.0))[:, None, :]
    pull = np.einsum("nij,nj->ni", s * kept[k], x - s * means[k])
    return means[k] + pull + np.einsum("nij,nj->ni", roots[k], z)
