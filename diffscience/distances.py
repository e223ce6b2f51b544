"""Distances between two samples, or between a sample and a quantile function, with standard errors.

    W_p^p(P, Q)  = inf over couplings of E|X - Y|^p                   p = 1, 2
                 = int_0^1 |F^-1(u) - G^-1(u)|^p du                   in one dimension
    SW_p^p(P, Q) = mean over unit vectors a of W_p^p(a.P, a.Q)        sliced
    D_k(P, Q)    = E k(X, X') + E k(Y, Y') - 2 E k(X, Y)              kernel distance
        k = exp(-|x - y|^2 / 2 h^2): squared maximum mean discrepancy (MMD)
        k = -|x - y|: energy distance

Every function gives `(value, error)`: the distance between the samples, and an estimate of its
standard deviation over fresh samples of the same sizes.

Errors. Transport: the dual (Kantorovich) potentials f, g are the first variation of W_p^p, so its
variance is Var f(X) / n + Var g(Y) / m (del Barrio and Loubes, Annals of Probability 47 (2019) 926,
for p = 2; Sommerfeld and Munk, JRSS B 80 (2018) 219); a root follows by the delta method. Where the
two laws agree the first variation vanishes and the formula, fed with the potentials of the samples
themselves, errs on the safe side (in one dimension, p = 2, by a factor near sqrt 2). Kernels: the
full variance of a U-statistic, first and second order (see `kernel_distance`).

Conventions: samples are float64 NumPy arrays (n, D), n >= 2, checked by the caller. The empirical
distance is biased upwards (all but `kernel_distance`); `metrics` sets a floor beside it.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .arrays import numpy
from .errors import ArgumentError
from .estimates import BLOCK

if TYPE_CHECKING:
    from .targets import Target

Kernel = Callable[[np.ndarray], np.ndarray]  # squared distances -> kernel values


# ---------------------------------------------------------------- transport, one dimension


@dataclass(frozen=True, eq=False)
class QuantileCells:
    """The quantile function Q of a law on R, cut into n cells of equal mass.

    law : the law, of dimension 1, with finite variance.
    edges : (n + 1,) the quantiles Q(0), Q(1/n), ..., Q(1); the outermost two where all but 1e-16 of
        the mass lies between them.
    mean : (n,) the means of Q over each cell, n int Q du.
    spread : (n,) int (Q - mean)^2 du over each cell.

    Only cdf values are integrated: over a cell [a, b] that ends at mass u,
    int (Q - a) du = int_a^b (u - F) dy and int (Q - a)^2 du = 2 int_a^b (y - a) (u - F) dy, by
    Gauss-Lobatto rules that are halved until they settle. So tails, gaps between modes and atoms
    are met to about 1e-10 of the law's variance, all cells together.
    """

    law: Target
    edges: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def of(cls, law: Target, n: int) -> QuantileCells:
        """The n cells of a law of dimension 1, in n + 1 quantiles and about 20 n cdf values."""
        mass = np.arange(n + 1) / n
        mass[0], mass[-1] = 1e-20, 1 - 2.0**-53
        edges = np.concatenate([numpy(law.quantile(u))[:, 0] for u in _pieces(mass)])
        mass[-1] = 1.0
        cells = zip(_pieces(edges[:-1]), _pieces(edges[1:]), _pieces(mass[1:]), strict=True)
        blocks = [_cdf_moments(law, a, b, level, n) for a, b, level in cells]
        first, second = -np.concatenate(blocks).T  # of Q - a, over each cell
        spread = np.maximum(2 * second - n * first**2, 0.0)
        return cls(law, edges, edges[:-1] + n * first, spread)


def _pieces(values: np.ndarray) -> list[np.ndarray]:
    return [values[i : i + 65536] for i in range(0, len(values), 65536)]


def _lobatto(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [-1, 1], the ends included: a jump next to an end does not hide."""
    legendre = np.polynomial.Legendre.basis(count - 1)
    nodes = np.concatenate([[-1.0], np.sort(legendre.deriv().roots().real), [1.0]])
    return nodes, 2 / (count * (count - 1) * legendre(nodes) ** 2)


def _cdf_moments(
    law: Target, a: np.ndarray, b: np.ndarray, level: np.ndarray, n: int
) -> np.ndarray:
    """int_a^b (F(y) - level) dy and int_a^b (y - a) (F(y) - level) dy; a, b, level (N,) -> (N, 2).

    Tolerances 1e-10 / n of the deviation and of the variance.
    """
    nodes, weights = _lobatto(7)
    variance = float(numpy(law.cov)[0, 0])
    tolerance = 1e-10 / n * np.array([np.sqrt(variance), variance])

    def rule(low: np.ndarray, high: np.ndarray, cell: np.ndarray) -> np.ndarray:
        y = low[:, None] + (high - low)[:, None] * (nodes + 1) / 2
        gap = numpy(law.cdf(y[..., None])) - level[cell, None]
        sums = np.stack([gap @ weights, (gap * (y - a[cell, None])) @ weights], axis=1)
        return (high - low)[:, None] / 2 * sums

    total, cell = np.zeros((len(a), 2)), np.arange(len(a))
    low, high, coarse = a, b, rule(a, b, cell)
    for _ in range(60):
        middle = (low + high) / 2
        left, right = rule(low, middle, cell), rule(middle, high, cell)
        on = (np.abs(left + right - coarse) > tolerance).any(axis=1)
        np.add.at(total, cell[~on], (left + right)[~on])
        if not on.any():
            return total
        low, high = np.concatenate([low[on], middle[on]]), np.concatenate([middle[on], high[on]])
        cell, coarse = np.tile(cell[on], 2), np.concatenate([left[on], right[on]])
    np.add.at(total, cell, coarse)
    return total


def wasserstein_to_quantiles(x: np.ndarray, cells: QuantileCells, p: int) -> tuple[float, float]:
    """W_p between n points on R and a law, exact: int |F_n^-1(u) - Q(u)|^p du over the n cells.

    x (n, 1); cells = QuantileCells.of(law, n); p 1 or 2. For p = 2 each cell costs
    (x_i - mean_i)^2 / n + spread_i, free of cancellation; for p = 1 a cell that contains its point
    is cut at F(x_i). The potential needs no solver: neighbours share the cell edge between them,
    f(x_{i+1}) - f(x_i) = |x_{i+1} - edge_i|^p - |x_i - edge_i|^p.
    """
    n, x = len(x), np.sort(x[:, 0])
    if p == 2:
        power = np.sum((x - cells.mean) ** 2) / n + np.sum(cells.spread)
    else:
        power = np.sum(_absolute_costs(x, cells))
    error = np.std(_potential(x, cells.edges[1:-1], p), ddof=1) / np.sqrt(n)
    return _root(float(power), float(error), p)


def _absolute_costs(x: np.ndarray, cells: QuantileCells) -> np.ndarray:
    """int |x_i - Q(u)| du over cell i, for sorted x (n,)."""
    n = len(x)
    cost = np.abs(x - cells.mean) / n
    low, high = cells.edges[:-1], cells.edges[1:]
    inside = np.flatnonzero((x > low) & (x < high))
    if inside.size:
        point, a, b = x[inside], low[inside], high[inside]
        below = _cdf_moments(cells.law, a, point, inside / n, n)[:, 0]
        above = -_cdf_moments(cells.law, point, b, (inside + 1) / n, n)[:, 0]
        cost[inside] = below + above
    return np.maximum(cost, 0.0)


def _potential(x: np.ndarray, edges: np.ndarray, p: int) -> np.ndarray:
    """The dual potential at sorted points x (..., n) whose cells meet at `edges` (..., n - 1)."""
    steps = np.abs(x[..., 1:] - edges) ** p - np.abs(x[..., :-1] - edges) ** p
    return np.concatenate([np.zeros_like(x[..., :1]), np.cumsum(steps, axis=-1)], axis=-1)


def _root(power: float, error: float, p: int) -> tuple[float, float]:
    """(W^p, its error) -> (W, its error), by the delta method."""
    value = max(power, 0.0) ** (1 / p)
    return value, error / (p * value ** (p - 1)) if value > 0 else 0.0


# ---------------------------------------------------------------- transport, any dimension


def wasserstein_between(x: np.ndarray, y: np.ndarray, p: int) -> tuple[float, float]:
    """W_p between two samples, exact, by POT's network simplex (`ot.emd2`).

    x (n, D), y (m, D); p 1 or 2. Memory 8 n m bytes, time about n^2.5 (2000 points: 0.7 s).
    Flamary et al., "POT: Python Optimal Transport", JMLR 22 (2021) 78. Raises RuntimeError where
    the solver stops short of the optimum.
    """
    import ot
    from scipy.spatial.distance import cdist

    # Dual potentials between atoms are not unique: a fixed order makes the error a function of
    # the two sets of points.
    x, y = x[np.lexsort(x.T)], y[np.lexsort(y.T)]
    cost = cdist(x, y, "sqeuclidean" if p == 2 else "euclidean")
    power, log = ot.emd2([], [], cost, numItermax=100_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"optimal transport of {len(x)} points: {log['warning']}")
    error = np.sqrt(np.var(log["u"], ddof=1) / len(x) + np.var(log["v"], ddof=1) / len(y))
    return _root(float(power), float(error), p)


def unit_directions(dim: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` unit vectors (dim, count) on which to slice.

    In the plane: equal angles turned by a random offset, a trapezoid rule on the half circle, whose
    error falls faster than that of independent directions. Otherwise independent and uniform.
    """
    if dim == 1:
        return np.ones((1, 1))
    if dim == 2:
        angles = (np.arange(count) + generator.random()) * np.pi / count
        return np.stack([np.cos(angles), np.sin(angles)])
    vectors = generator.standard_normal((dim, count))
    return vectors / np.linalg.norm(vectors, axis=0)


def sliced_between(
    x: np.ndarray, y: np.ndarray, directions: np.ndarray, p: int
) -> tuple[float, float]:
    """SW_p between two samples of one size: project, sort, compare.

    x, y (n, D); directions (D, L), unit columns; p 1 or 2. Bonneel, Rabin, Peyre and Pfister,
    J. Math. Imaging and Vision 51 (2015) 22. O(L n log n), a few directions in memory at a time.
    The error is of the samples at the given directions.
    """
    power, f, g = 0.0, np.zeros(len(x)), np.zeros(len(y))
    count = directions.shape[1]
    block = max(1, BLOCK // (4 * len(x)))
    for i in range(0, count, block):
        a = np.ascontiguousarray((x @ directions[:, i : i + block]).T)
        b = np.ascontiguousarray((y @ directions[:, i : i + block]).T)
        rows, columns = np.argsort(a, axis=1), np.argsort(b, axis=1)
        a, b = np.take_along_axis(a, rows, axis=1), np.take_along_axis(b, columns, axis=1)
        power += np.sum(np.abs(a - b) ** p) / (len(x) * count)
        # Two atoms share no cell edge: any point between neighbours serves, here the middle.
        f += _unsorted_sum(_potential(a, (b[:, 1:] + b[:, :-1]) / 2, p), rows) / count
        g += _unsorted_sum(_potential(b, (a[:, 1:] + a[:, :-1]) / 2, p), columns) / count
    error = np.sqrt((np.var(f, ddof=1) + np.var(g, ddof=1)) / len(x))
    return _root(float(power), float(error), p)


def _unsorted_sum(potential: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Centred potentials (L, n) of sorted points, put back in the points' own order and added."""
    back = np.empty_like(potential)
    np.put_along_axis(back, order, potential - potential.mean(axis=1, keepdims=True), axis=1)
    return back.sum(axis=0)


# ---------------------------------------------------------------- kernels


def gaussian_kernel(bandwidth: float) -> Kernel:
    """k(x, y) = exp(-|x - y|^2 / 2 h^2), as a function of |x - y|^2."""
    return lambda squared: np.exp(squared / (-2.0 * bandwidth**2))


def minus_distance(squared: np.ndarray) -> np.ndarray:
    """k(x, y) = -|x - y|, as a function of |x - y|^2: the kernel of the energy distance."""
    return -np.sqrt(squared)


def kernel_distance(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> tuple[float, float]:
    """The unbiased kernel distance D_k between two samples; it may be negative.

    x (n, D), y (m, D). Gretton et al., "A kernel two-sample test", JMLR 13 (2012) 723, Lemma 6;
    Szekely and Rizzo, J. Stat. Planning and Inference 143 (2013) 1249 for the energy distance.

    Error by Hoeffding's decomposition (Serfling, "Approximation Theorems", 1980, 5.2.1; Sutherland
    and Deka, arXiv:1906.02104): with g the witness E k(., X) - E k(., Y) and kc the kernel centred
    in both arguments,
        Var = 4 Var g(X) / n + 4 Var g(Y) / m
              + 2 E kc(X, X')^2 / n(n-1) + 2 E kc(Y, Y')^2 / m(m-1) + 4 E kc(X, Y)^2 / n m,
    each term estimated by its sample version, the noise of the means inside g taken off. The
    second line is what is left where the two laws agree. Memory bounded, time O((n + m)^2); in one
    dimension the energy distance is found by sorting, O(n log n).
    """
    n, m = len(x), len(y)
    diagonal = float(kernel(np.zeros(1))[0])
    xx, _, xx_square = pair_sums(x, x, kernel)
    yy, _, yy_square = pair_sums(y, y, kernel)
    xy, yx, xy_square = pair_sums(x, y, kernel)
    a, c = (xx - diagonal) / (n - 1), (yy - diagonal) / (m - 1)  # means over the own sample
    b, d = xy / m, yx / n  # means over the other sample
    value = a.mean() + c.mean() - 2 * b.mean()
    own_x = _centred_square((xx_square - n * diagonal**2) / (n * (n - 1)), a, a)
    own_y = _centred_square((yy_square - m * diagonal**2) / (m * (m - 1)), c, c)
    cross = _centred_square(xy_square / (n * m), b, d)
    first_x = max(float(np.var(a - b, ddof=1)) - own_x / (n - 1) - cross / m, 0.0)
    first_y = max(float(np.var(c - d, ddof=1)) - own_y / (m - 1) - cross / n, 0.0)
    second = 2 * own_x / (n * (n - 1)) + 2 * own_y / (m * (m - 1)) + 4 * cross / (n * m)
    return float(value), float(np.sqrt(4 * first_x / n + 4 * first_y / m + second))


def _centred_square(mean_square: float, rows: np.ndarray, columns: np.ndarray) -> float:
    """E kc^2 = E k^2 - Var(row means) - Var(column means) - (E k)^2."""
    rest = mean_square - np.var(rows) - np.var(columns) - np.mean(rows) ** 2
    return max(float(rest), 0.0)


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    squared = np.subtract.outer(x[:, 0], y[:, 0]) ** 2
    for d in range(1, x.shape[1]):
        squared += np.subtract.outer(x[:, d], y[:, d]) ** 2
    return squared


def pair_sums(x: np.ndarray, y: np.ndarray, kernel: Kernel) -> tuple[np.ndarray, np.ndarray, float]:
    """Sums of k(x_i, y_j) over j (n,) and over i (m,), and of its square over all pairs."""
    if kernel is minus_distance and x.shape[1] == 1:
        u, v = x[:, 0] - x.mean(), y[:, 0] - x.mean()
        square = len(v) * (u @ u) + len(u) * (v @ v) - 2 * u.sum() * v.sum()
        return -_distance_sums(u, v), -_distance_sums(v, u), float(square)
    rows, columns, square = np.empty(len(x)), np.zeros(len(y)), 0.0
    block = max(1, BLOCK // len(y))
    for i in range(0, len(x), block):
        k = kernel(_squared_distances(x[i : i + block], y))
        rows[i : i + block] = k.sum(axis=1)
        columns += k.sum(axis=0)
        square += float(np.vdot(k, k))
    return rows, columns, square


def _distance_sums(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """sum_j |u_i - v_j| for points on a line, by sorting."""
    v = np.sort(v)
    below = np.concatenate([[0.0], np.cumsum(v)])
    rank = np.searchsorted(v, u)
    return u * (2 * rank - len(v)) + below[-1] - 2 * below[rank]


def permutation_p_value(
    x: np.ndarray, y: np.ndarray, kernel: Kernel, count: int, generator: np.random.Generator
) -> float:
    """p-value of "x and y come from one law" by `count` random relabelings of the pooled sample.

    p = (1 + number of relabelings with D_k at least as large) / (count + 1), which is exact at any
    sample size (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010) 39). The kernel matrix is
    made once, block by block: memory O((n + m) count).
    """
    pooled, n, m = np.concatenate([x, y]), len(x), len(y)
    size = n + m
    labels = np.zeros((size, count + 1))
    labels[:n] = 1.0  # column 0: the true labels
    labels[:, 1:] = generator.permuted(labels[:, 1:], axis=0)
    rows, within = np.empty(size), np.zeros(count + 1)
    block = max(1, BLOCK // size)
    for i in range(0, size, block):
        k = kernel(_squared_distances(pooled[i : i + block], pooled))
        k[np.arange(len(k)), i + np.arange(len(k))] = 0.0  # pairs of a point with itself
        rows[i : i + block] = k.sum(axis=1)
        within += np.sum(labels[i : i + block] * (k @ labels), axis=0)
    cross = rows @ labels - within
    other = rows.sum() - within - 2 * cross
    statistic = within / (n * (n - 1)) + other / (m * (m - 1)) - 2 * cross / (n * m)
    # Equal relabelings must tie whatever the order of summation.
    slack = 1e-12 * np.abs(rows).sum() / size**2
    return float(np.sum(statistic >= statistic[0] - slack) / (count + 1))


def check_order(p: int) -> None:
    """Raise ArgumentError unless p is 1 or 2."""
    if not isinstance(p, numbers.Real) or p not in (1, 2):
        raise ArgumentError("p", "be 1 or 2", p)
