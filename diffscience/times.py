"""Times for training: how often each time is drawn, and how the draws of a batch hang together.

    t_i = Q(u_i),   u_1 ... u_n of a stream on [0, 1],   Q the quantile function of a law

    independent   u_i uniform, each on its own
    stratified    u_i = (u + i/n) mod 1, u uniform: a lattice with one shift   (Kingma et al. 2021)
    antithetic    u and 1 - u in pairs: t and (1 + e) T - t where the law is uniform on [e T, T],
                  k and K + 1 - k on a chain

Under every stream each u_i is uniform, so that the mean of a batch has one expectation and only
its variance differs. Under another law p than the uniform one the expectation differs too, unless
each row is divided by

    density(t) = p(t)/uniform(t),   E_p f(t)/density(t) = E_uniform f(t)

`corrected` makes a weighting of that. Left out, the density weighs as if it were in the weight.

Conventions: a law of times is called with (n, generator) and answers n times (n,) in float64, on
the device of the generator: what `train.train` takes for `times`. Continuous times lie in
[earliest T, T], uniform(t) is uniform there, and a chain has 1..K with uniform weight 1/K, whatever
`earliest` is. `ALL` makes each law from a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from . import weightings
from .arrays import Array, Draws, finite, index_like, like, namespace, ndtr, ndtri, numpy
from .chain import Chain
from .errors import ArgumentError, function, instance, number, whole
from .process import Process, _log
from .quadrature import panels
from .weightings import Weighting, inside

Stream = Callable[[int, Draws], Array]
Loss = Callable[[Any, Array, Array, Array], Array]

_LAST = 1 - 2.0**-53


# ---------------------------------------------------------------- streams


def independent(n: int, draws: Draws) -> Array:
    """n uniform numbers, each on its own.

    >>> independent(3, Draws(0)).shape
    (3,)
    """
    return draws.uniform(n)


def stratified(n: int, draws: Draws) -> Array:
    """(u + i/n) mod 1, i < n: one in every interval of length 1/n (Kingma et al. 2021, app. I).

    The mean of f over them has variance (f(1) - f(0))^2/12n^2 + o(1/n^2) for a smooth f.

    >>> u = np.sort(stratified(4, Draws(0)))
    >>> bool(np.allclose(np.diff(u), 0.25))
    True
    """
    u = draws.uniform(1)
    u = u + like(np.arange(n) / max(n, 1), u)
    return u - namespace(u).floor(u)


def antithetic(n: int, draws: Draws) -> Array:
    """u_1 ... u_m, then 1 - u_1, 1 - u_2, ..., n in all; m half of n, rounded up.

    >>> u = antithetic(4, Draws(0))
    >>> bool(np.allclose(u[:2] + u[2:], 1.0))
    True
    """
    u = draws.uniform((n + 1) // 2)
    return namespace(u).concat([u, 1 - u])[:n]


STREAMS: dict[str, Stream] = {
    "independent": independent,
    "stratified": stratified,
    "antithetic": antithetic,
}
"""Every stream, by name."""


# ---------------------------------------------------------------- laws


@dataclass(frozen=True)
class Times:
    """A law of times, made by the functions below.

    process : whose times they are.
    quantile : u (m,) in [0, 1] -> t (m,).
    density : t (m,) -> p(t)/uniform(t), (m,).
    stream : of `STREAMS`.

    >>> import diffscience as ds
    >>> law = uniform(ds.VP(), stream=stratified)
    >>> law(4, 0).shape, law.density(np.array([0.5])).tolist()
    ((4,), [1.0])
    """

    process: Process
    quantile: Callable[[Array], Array]
    density: Callable[[Array], Array]
    stream: Stream = independent

    def __call__(self, n: int, generator: Any) -> Array:
        """n times, (n,)."""
        whole("n", n, 0)
        return self.quantile(self.stream(n, Draws(generator)))

    def correction(self, t: Array) -> Array:
        """1/density, which makes the expectation that of uniform times."""
        return 1 / self.density(t)

    def corrected(self, weight: Weighting) -> Weighting:
        """The weighting under which these times give the loss that uniform times give `weight`."""
        function("weight", weight)
        return lambda process, t: weight(process, t) * self.correction(t)


def uniform(process: Process, earliest: float = 1e-3, stream: Stream = independent) -> Times:
    """Uniform on 1..K of a chain, else uniform on [earliest T, T].

    >>> import diffscience as ds
    >>> sorted(set(uniform(ds.Chain.linear(3))(100, 0).tolist()))
    [1.0, 2.0, 3.0]
    """
    _check(process, earliest, stream)

    def quantile(u: Array) -> Array:
        xp = namespace(u)
        if isinstance(process, Chain):
            return xp.floor(xp.clip(u, 0.0, _LAST) * process.K) + 1
        return process.T * (earliest + (1 - earliest) * u)

    return Times(process, quantile, lambda t: 0.0 * finite("t", t) + 1.0, stream)


def log_normal(
    process: Process,
    mean: float = -1.2,
    std: float = 1.2,
    earliest: float = 1e-6,
    stream: Stream = independent,
) -> Times:
    """log(s/a) ~ N(mean, std^2), the noise levels of EDM (Karras et al. 2022, table 1).

    Cut off outside [earliest T, T]; a chain's step k has the levels between k - 1 and k.

    >>> import diffscience as ds
    >>> t = log_normal(ds.EDM())(1000, 0)
    >>> bool(abs(np.mean(np.log(t)) + 1.2) < 5 * 1.2 / 1000**0.5)
    True
    """
    number("mean", mean)
    number("std", std, 0, ends="()")

    def place(t: Array) -> Array:
        return (-0.5 * process.log_snr(t) - mean) / std

    def inverse(p: Array) -> Array:
        return process.time_of_log_snr(-2 * (mean + std * ndtri(p)))

    def slope(t: Array) -> Array:
        return _bell(place(t)) / std * weightings.bound(process, t)

    return _smooth(process, earliest, stream, lambda t: ndtr(place(t)), inverse, slope)


def logit_normal(
    process: Process,
    mean: float = 0.0,
    std: float = 1.0,
    earliest: float = 1e-3,
    stream: Stream = independent,
) -> Times:
    """log(t/(T - t)) ~ N(mean, std^2), for rectified flows (Esser et al. 2024, section 3.1).

    Cut off outside [earliest T, T]; a chain's step k has the times between k - 1 and k.

    >>> import diffscience as ds
    >>> t = logit_normal(ds.RectifiedFlow())(1000, 0)
    >>> bool(abs(np.mean(t) - 0.5) < 5 * 0.21 / 1000**0.5)
    True
    """
    number("mean", mean)
    number("std", std, 0, ends="()")

    def place(t: Array) -> Array:
        share = finite("t", t) / process.T
        return (_log(share) - _log(1 - share) - mean) / std

    def inverse(p: Array) -> Array:
        xp, level = namespace(p), mean + std * ndtri(p)
        return process.T * xp.exp(-xp.logaddexp(0.0 * level, -level))

    def slope(t: Array) -> Array:
        return _bell(place(t)) / std / (t * (1 - t / process.T))

    return _smooth(process, earliest, stream, lambda t: ndtr(place(t)), inverse, slope)


def importance(
    process: Process,
    weight: Weighting = weightings.bound,
    earliest: float = 1e-3,
    stream: Stream = independent,
) -> Times:
    """Density in proportion to a weight, such as that of the bound (Song et al. 2021b, section 5).

    In continuous time constant on some 1500 cells, which are short at both ends: `density` is that
    of the law which is drawn, so that the correction is exact however the weight bends.

    weight : (process, t) -> (m,), at least 0 and not all 0.

    >>> import diffscience as ds
    >>> law = importance(ds.Chain.linear(3), lambda process, t: t)
    >>> law.density(np.array([1.0, 2.0, 3.0])).tolist()  # 3 p_k
    [0.5, 1.0, 1.5]
    """
    _check(process, earliest, stream)
    function("weight", weight)
    if isinstance(process, Chain):
        return _cells(process, None, weight(process, np.arange(1.0, process.K + 1)), stream)
    ends = np.geomspace(earliest, 1, 513)
    shares = np.concatenate([ends, 1 + earliest - ends, np.linspace(earliest, 1, 513)])
    edges = process.T * np.unique(np.clip(shares, earliest, 1))
    nodes, volumes = panels(edges, 4)
    masses = np.sum((volumes * numpy(weight(process, nodes))).reshape(-1, 4), axis=1)
    return _cells(process, edges, masses, stream)


class Adaptive:
    """Importance by the losses seen: p ~ sqrt(E L^2) (Nichol and Dhariwal 2021, section 3.3).

    E L^2 is the mean of the last `history` squared losses of each bucket of times; until every
    bucket has that many the law is uniform. It changes with `update`; nothing else is remembered.

    Parameters
    ----------
    buckets : cells of equal length in continuous time; a chain has its K steps.
    history : losses kept for each.
    floor : share of the law that stays uniform.

    Train with `train.train(network, data, times=law, loss=law.watching(loss), ...)`.

    >>> import diffscience as ds
    >>> law = Adaptive(ds.Chain.linear(2), history=1, floor=0.0)
    >>> law.update(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    >>> law.density(np.array([1.0, 2.0])).tolist()  # 2 p_k
    [0.5, 1.5]
    """

    def __init__(
        self,
        process: Process,
        buckets: int = 64,
        history: int = 10,
        floor: float = 1e-3,
        earliest: float = 1e-3,
        stream: Stream = independent,
    ) -> None:
        _check(process, earliest, stream)
        whole("buckets", buckets, 1)
        whole("history", history, 1)
        number("floor", floor, 0, 1)
        self.process, self.floor, self.stream = process, floor, stream
        chain = isinstance(process, Chain)
        size = process.K if isinstance(process, Chain) else int(buckets)
        self._edges = None if chain else np.linspace(earliest, 1, size + 1) * process.T
        self._recent = np.zeros((size, int(history)))
        self._seen = np.zeros(size, dtype=int)
        self._law = _cells(process, self._edges, np.ones(size), stream)

    def __call__(self, n: int, generator: Any) -> Array:
        """n times, (n,), by the law as it is now."""
        return self._law(n, generator)

    def density(self, t: Array) -> Array:
        """p(t)/uniform(t) as it is now, (m,)."""
        return self._law.density(t)

    def correction(self, t: Array) -> Array:
        """1/density as it is now."""
        return self._law.correction(t)

    def update(self, t: Array, losses: Array) -> None:
        """Remember the losses (m,) of the times t (m,), in their order."""
        times, rows = numpy(finite("t", t, (None,))), numpy(finite("losses", losses, (None,)))
        if rows.shape != times.shape:
            raise ArgumentError("losses", f"have shape {times.shape}, as t has", rows.shape)
        size, history = self._recent.shape
        bucket = _bucket(self.process, self._edges, times)
        order = np.argsort(bucket, kind="stable")
        bucket, rows = bucket[order], rows[order]
        new = np.bincount(bucket, minlength=size)
        turn = np.arange(len(rows)) - (np.cumsum(new) - new)[bucket]  # its place in its bucket
        kept = turn >= new[bucket] - history
        slot = (self._seen[bucket] + turn) % history
        self._recent[bucket[kept], slot[kept]] = rows[kept]
        self._seen += new
        if np.all(self._seen >= history):
            size_of_loss = np.sqrt(np.mean(self._recent**2, axis=1))
            share = size_of_loss / max(float(np.sum(size_of_loss)), 1e-300)
            masses = (1 - self.floor) * share + self.floor / size
            # No loss anywhere: nothing tells the times apart.
            masses = masses if np.sum(share) > 0 else np.ones(size)
            self._law = _cells(self.process, self._edges, masses, self.stream)

    def watching(self, loss: Loss) -> Loss:
        """The loss (network, x0, t, noise) -> rows with each row corrected and remembered."""
        function("loss", loss)

        def rows(network: Any, x0: Array, t: Array, noise: Array) -> Array:
            value = loss(network, x0, t, noise)
            factor = namespace(value).astype(like(self.correction(t), value), value.dtype)
            self.update(t, numpy(value))
            return factor * value

        return rows


ALL: dict[str, Callable[[Process], Times | Adaptive]] = {
    "uniform": uniform,
    "stratified": partial(uniform, stream=stratified),
    "antithetic": partial(uniform, stream=antithetic),
    "log_normal": log_normal,
    "logit_normal": logit_normal,
    "importance": importance,
    "adaptive": Adaptive,
}
"""Every law of times with its customary numbers, by name."""


# ---------------------------------------------------------------- what they share


def _check(process: Process, earliest: float, stream: Stream) -> None:
    instance("process", process, Process)
    number("earliest", earliest, 0, 1, "()")
    function("stream", stream)


def _bell(z: Array) -> Array:
    """The standard normal density."""
    return namespace(z).exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def _smooth(
    process: Process,
    earliest: float,
    stream: Stream,
    cdf: Callable[[Array], Array],
    inverse: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> Times:
    """A law by its cdf on (0, T), cut off: on a chain p_k in proportion to cdf(k) - cdf(k - 1)."""
    _check(process, earliest, stream)
    if isinstance(process, Chain):
        return _cells(process, None, np.diff(cdf(np.arange(process.K + 1.0))), stream)
    first, T = earliest * process.T, process.T
    low, high = (float(cdf(np.asarray(t))) for t in (first, T))
    if not high > low:
        raise ArgumentError("mean", "leave some of the law between earliest and T", f"{high - low}")

    def quantile(u: Array) -> Array:
        xp = namespace(u)
        return xp.clip(inverse(xp.clip(low + u * (high - low), 1e-300, _LAST)), first, T)

    def density(t: Array) -> Array:
        return slope(inside(process, t)) * ((T - first) / (high - low))

    return Times(process, quantile, density, stream)


def _cells(process: Process, edges: np.ndarray | None, masses: Array, stream: Stream) -> Times:
    """A law that is constant on cells between edges (m + 1,); on the steps of a chain, without."""
    masses = numpy(finite("weight", masses, (None,)))
    if np.any(masses < 0) or not np.sum(masses) > 0:
        raise ArgumentError("weight", "be at least 0 and not all 0", masses)
    p = masses / np.sum(masses)
    below = np.cumsum(p) - p
    widths = np.ones(len(p)) if edges is None else np.diff(edges)
    ratio = p / (widths / np.sum(widths))

    def quantile(u: Array) -> Array:
        xp, u = namespace(u), namespace(u).clip(u, 0.0, _LAST)
        i = xp.searchsorted(like(below[1:], u), u, side="right")
        if edges is None:
            return xp.astype(i, u.dtype) + 1
        share = (u - xp.take(like(below, u), i)) / xp.take(like(np.where(p > 0, p, 1.0), u), i)
        left, width = (xp.take(like(a, u), i) for a in (edges[:-1], widths))
        return left + width * xp.clip(share, 0.0, 1.0)

    def density(t: Array) -> Array:
        times = process._times("t", t)
        i = index_like(_bucket(process, edges, numpy(times)), times)
        table = like(ratio, times)
        return namespace(times).reshape(namespace(times).take(table, i), times.shape)

    return Times(process, quantile, density, stream)


def _bucket(process: Process, edges: np.ndarray | None, times: np.ndarray) -> np.ndarray:
    """The cell of each time, flat; the ends belong to the first and the last."""
    if edges is not None:
        return np.searchsorted(edges[1:-1], times.ravel(), side="right")
    steps = times.ravel()
    if np.any(steps < 1):
        raise ArgumentError("t", "be one of the steps 1..K", float(steps.min()))
    return steps.astype(int) - 1
