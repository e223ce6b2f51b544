"""Quadrature of laws that vary at known places and on known scales, by Gauss-Legendre rules:

- `panels` and `edges`: a density that is smooth except within a few sigma of known marks, panel by
  panel, with panels of a fraction of sigma around each mark and long ones in between;
- `tree`: lumps of very different widths, by cells that are halved until each is small beside every
  lump that reaches into it.

In more than two dimensions no grid is small enough; `expectation` averages over scrambled Sobol
points instead, whose independent scrambles show the error (Owen 1997).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Draws
from .errors import ArgumentError

_REACH = 9.0  # standard deviations after which a Gaussian counts for nothing


def panels(edges: np.ndarray, order: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights, (M,) each, on every interval between sorted edges.

    >>> x, w = panels(np.array([0.0, 1.0, 3.0]))
    >>> round(float(w @ x**3), 9)
    20.25
    """
    y, w = np.polynomial.legendre.leggauss(order)
    a, b = edges[:-1, None], edges[1:, None]
    return (0.5 * (a + b) + 0.5 * (b - a) * y).ravel(), (0.5 * (b - a) * w).ravel()


def edges(marks: np.ndarray, sigma: float) -> np.ndarray:
    """Sorted panel edges for marks (K,) around which something happens within 9 sigma."""
    near = np.array([0.0, 0.8, 1.7, 2.7, 3.9, 5.3, 7.0, 9.0])
    found = np.unique(marks[:, None] + sigma * np.concatenate([-near, near]))
    kept = [found[0]]
    for edge in found[1:]:  # where marks lie close, their panels would be needlessly short
        if edge - kept[-1] >= 0.6 * sigma or edge == found[-1]:
            kept.append(edge)
    return np.array(kept)


def tree(
    means: np.ndarray, narrow: np.ndarray, broad: np.ndarray, longest: float = 2.5
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (M, D) and volumes (M,) that resolve Gaussian lumps of any widths.

    means : (K, D); narrow, broad : (K,) least and greatest standard deviation of each lump, > 0.

    Cells are halved until none is longer than `longest` times narrow of any lump within 9 broad of
    it; cells out of every lump's reach are dropped. Ten nodes along each side leave about 1e-13 of
    a smooth integrand at 2.5; log p, with singularities off the real line, wants shorter cells.
    """
    dim = means.shape[1]
    low = (means - _REACH * broad[:, None]).min(0)
    half = 0.5 * ((means + _REACH * broad[:, None]).max(0) - low).max()
    centres, kept = (low + half)[None], []
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=dim)))
    while len(centres):
        gap = np.maximum(np.abs(centres[:, None, :] - means) - half, 0.0)
        reached = np.sum(gap * gap, axis=-1) < (_REACH * broad) ** 2
        coarse = (reached & (2 * half > longest * narrow)).any(axis=1)
        done = centres[reached.any(axis=1) & ~coarse]
        if len(done):
            kept.append((done, half))
        centres = (centres[coarse][:, None, :] + half * corners).reshape(-1, dim)
        half *= 0.5
    y, w = np.polynomial.legendre.leggauss(10)
    mesh = np.stack(np.meshgrid(*[y] * dim, indexing="ij"), -1).reshape(-1, dim)
    mass = np.prod(np.stack(np.meshgrid(*[w] * dim, indexing="ij")), 0).ravel()
    nodes = [(c[:, None, :] + h * mesh).reshape(-1, dim) for c, h in kept]
    volumes = [np.tile(h**dim * mass, len(c)) for c, h in kept]
    return np.concatenate(nodes), np.concatenate(volumes)


class Sobol(Draws):
    """2^power scrambled Sobol points in the place of random numbers: a column for each that a point
    asks for, at most `columns` in all.
    """

    def __init__(self, power: int, columns: int, seed: int) -> None:
        super().__init__(seed)
        from scipy.stats import qmc

        points = qmc.Sobol(columns, bits=50, seed=self.generator).random_base2(power)
        self._columns = iter(points.T + 2.0**-51)  # never 0, where the normal law has -infinity

    def uniform(self, *shape: int) -> np.ndarray:
        """Uniform on (0, 1), (n) or (n, m)."""
        return np.stack([next(self._columns) for _ in range(int(np.prod(shape[1:])))], -1).reshape(
            shape
        )

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal, (n) or (n, m)."""
        from scipy.special import ndtri

        return ndtri(self.uniform(*shape))


def expectation(
    sample: Callable[[int, Any], np.ndarray],
    f: Callable[[np.ndarray], np.ndarray],
    columns: int,
    error: float,
) -> float:
    """E f(X) over 16 independent scrambles, doubled until its standard error is at most `error`.

    sample(n, draws) gives n points from at most `columns` numbers each. Always the same answer.

    >>> normal = lambda n, draws: draws.normal(n, 3)
    >>> abs(expectation(normal, lambda x: np.sum(x * x, axis=1), 3, 1e-3) - 3) < 5e-3
    True
    """
    for power in range(10, 19):
        means = [
            float(np.mean(f(sample(2**power, Sobol(power, columns, seed))))) for seed in range(16)
        ]
        reached = float(np.std(means, ddof=1)) / 4
        if reached <= error:
            return float(np.mean(means))
    raise ArgumentError("error", f"be at least {reached:.1e}, which 4 million points reach", error)
