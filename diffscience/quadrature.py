"""Gauss-Legendre quadrature of laws that vary at known places and on known scales.

- `panels` and `edges`: a density that is smooth except within a few sigma of known marks, panel by
  panel, with panels of a fraction of sigma around each mark and long ones in between;
- `tree`: lumps of very different widths, by cells that are halved until each is small beside every
  lump that reaches into it.
"""

from __future__ import annotations

import itertools

import numpy as np

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
