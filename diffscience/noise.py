"""Noise: the normal numbers that drive a run, drawn in blocks or kept as a Brownian path.

A step of length h needs the increment W = sqrt(h) z and, for methods of order 1.5, the space-time
Levy area H = U/h - W/2 with U = int (W_s - W_0) ds:

    z ~ N(0, 1),   H = sqrt(h) a,   a ~ N(0, 1/12),   independent of each other
    joined steps (h, W, H), (k, V, G):   U = h (W/2 + H) + k W + k (V/2 + G)

    Sequential    fresh numbers for one step after the other; nothing is kept
    Stored        a path on fine times, which runs of different step counts share
    Bridge        a path that may be asked anywhere, for adaptive steps

Conventions: W and H are (n, D) tensors. Rows come in blocks of BLOCK; the numbers of a row are a
function of (seed, its block, its place in the block) alone, so that no result depends on how many
rows there are, on chunks or on threads. torch draws differently on each kind of device: give
`drawn_on="cpu"` to have the numbers of the CPU elsewhere. Source of the area: Foster, Lyons and
Oberhauser, SIAM J. Numer. Anal. 58 (2020) 1500.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .arrays import finite, numpy
from .errors import ArgumentError, whole

BLOCK = 4096  # rows that share a generator
Piece = tuple[Any, torch.Tensor, torch.Tensor]  # (h, W, H)


def generators(seed: int, blocks: Sequence[int], device: str = "cpu") -> list[torch.Generator]:
    """A generator for each block of rows, a function of the seed and the block alone."""
    whole("seed", seed, 0)
    words = [int(np.random.SeedSequence((seed, b)).generate_state(1)[0]) for b in blocks]
    return [torch.Generator(device).manual_seed(word) for word in words]


class Noise:
    """Numbers for n rows of D columns, one step after the other. Abstract.

    A kind gives `_next`. `normal` opens a step, `area` adds to the step that is open.
    """

    def __init__(self, n: int, dim: int, dtype: torch.dtype, device: str) -> None:
        whole("n", n, 0)
        whole("dim", dim, 1)
        if dtype not in (torch.float32, torch.float64):
            raise ArgumentError("dtype", "be torch.float32 or torch.float64", dtype)
        self.n, self.dim, self.dtype, self.device = n, dim, dtype, torch.device(device)
        self.generator = self  # what an error names

    def _next(self, area: bool) -> torch.Tensor:
        raise NotImplementedError

    def normal(self, *shape: int) -> torch.Tensor:
        """z of the next step, (n, D)."""
        self._fits(shape)
        return self._next(False)

    def area(self, *shape: int) -> torch.Tensor:
        """a = H/sqrt(h) of the step that `normal` has opened, (n, D)."""
        self._fits(shape)
        return self._next(True)

    def _fits(self, shape: tuple[int, ...]) -> None:
        if shape != (self.n, self.dim):
            rule = f"be for points of shape {tuple(shape)}"
            raise ArgumentError("noise", rule, f"noise of shape {(self.n, self.dim)}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.n}, dim={self.dim}, {self.dtype}, {self.device})"


class Sequential(Noise):
    """Fresh numbers for one step after the other.

    Parameters
    ----------
    seed : whole number >= 0.
    n, dim : rows and columns. dtype, device : of the numbers.
    first : the number of the first block; rows start at first * BLOCK of the whole.
    drawn_on : the device whose generator draws; `device` where left out.

    >>> whole, few = Sequential(1, 5000, 2), Sequential(1, 3, 2)
    >>> bool((whole.normal(5000, 2)[:3] == few.normal(3, 2)).all())
    True
    """

    def __init__(
        self,
        seed: int,
        n: int,
        dim: int,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        *,
        first: int = 0,
        drawn_on: str | None = None,
    ) -> None:
        super().__init__(n, dim, dtype, device)
        whole("first", first, 0)
        self.seed, self.first, self.drawn_on = seed, first, drawn_on or device
        blocks = range(first, first - (-n // BLOCK))
        self._generators = generators(seed, blocks, self.drawn_on)

    def _next(self, area: bool) -> torch.Tensor:
        shape = (len(self._generators), BLOCK, self.dim)
        room = torch.empty(shape, dtype=self.dtype, device=self.drawn_on)
        for block, generator in zip(room, self._generators):
            torch.randn(block.shape, generator=generator, out=block)
        z = room.reshape(-1, self.dim)[: self.n].to(self.device)
        return z / math.sqrt(12) if area else z

    def part(self, first: int, last: int) -> Sequential:
        """The noise of rows first ... last - 1; `first` is a multiple of BLOCK. From the start."""
        whole("first", first, 0, self.n)
        whole("last", last, first, self.n)
        if first % BLOCK:
            raise ArgumentError("first", f"be a multiple of {BLOCK}", first)
        return Sequential(
            self.seed,
            last - first,
            self.dim,
            self.dtype,
            str(self.device),
            first=self.first + first // BLOCK,
            drawn_on=self.drawn_on,
        )


class Stored(Noise):
    """A Brownian path kept on fine times, read step by step on any of them.

    Parameters
    ----------
    times : (M + 1,) monotone; the path runs in their order.
    W, H : (M, n, D) increments and areas of the fine steps; `drawn` makes them.
    """

    def __init__(self, times: Any, W: torch.Tensor, H: torch.Tensor) -> None:
        self.times = monotone("times", times)
        if W.ndim != 3 or W.shape[0] != len(self.times) - 1 or H.shape != W.shape:
            rule = f"have shape ({len(self.times) - 1}, n, D) each"
            raise ArgumentError("W, H", rule, f"{tuple(W.shape)}, {tuple(H.shape)}")
        super().__init__(W.shape[1], W.shape[2], W.dtype, str(W.device))
        self.W, self.H, self._at = W, H, -1

    @classmethod
    def drawn(
        cls,
        seed: int,
        n: int,
        dim: int,
        times: Any,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
    ) -> Stored:
        """A fresh path on the times.

        >>> fine = np.linspace(1.0, 0.0, 65)
        >>> path = Stored.drawn(0, 10, 2, fine)
        >>> coarse = path.on(fine[::8])
        >>> bool(torch.allclose(coarse.W.sum(0), path.W.sum(0), atol=1e-12))
        True
        """
        checked = monotone("times", times)
        source = Sequential(seed, n, dim, dtype, device)
        pairs = [(source.normal(n, dim), source.area(n, dim)) for _ in checked[1:]]
        root = torch.as_tensor(np.sqrt(np.abs(np.diff(checked))), dtype=dtype, device=device)
        W, H = (torch.stack([pair[i] for pair in pairs]) for i in range(2))
        return cls(checked, root[:, None, None] * W, root[:, None, None] * H)

    def on(self, times: Any) -> Stored:
        """The same path on some of its times, read from the start."""
        coarse = monotone("times", times)
        sign = 1.0 if self.times[-1] > self.times[0] else -1.0
        next_one = np.searchsorted(sign * self.times[1:-1], sign * coarse) + 1
        around = np.stack([next_one - 1, next_one])
        nearer = np.argmin(np.abs(self.times[around] - coarse), axis=0)
        places = np.take_along_axis(around, nearer[None], axis=0)[0]
        step = np.abs(np.diff(self.times)).min()
        off = np.abs(self.times[places] - coarse).max()
        if off > 1e-9 * step or np.any(np.diff(places) <= 0):
            raise ArgumentError("times", "be among the times of the path, in its order", coarse)
        return Stored(coarse, *self._joined(places[:-1], places[1:]))

    def _joined(self, first: np.ndarray, last: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """W and H of the steps from times[first] to times[last], all at once."""
        lengths = torch.from_numpy(np.abs(np.diff(self.times))).to(self.W)[:, None, None]
        h, W, H = lengths[first], self.W[first], self.H[first]
        for k in range(1, int(np.max(last - first))):
            rows = np.flatnonzero(last - first > k)
            i = first[rows] + k
            more = joined((h[rows], W[rows], H[rows]), (lengths[i], self.W[i], self.H[i]))
            h[rows], W[rows], H[rows] = more
        return W, H

    def _next(self, area: bool) -> torch.Tensor:
        self._at += not area
        if not 0 <= self._at < len(self.W):
            raise ArgumentError("noise", f"be asked for at most {len(self.W)} steps", self._at + 1)
        step = abs(float(self.times[self._at + 1] - self.times[self._at]))
        return (self.H if area else self.W)[self._at] / math.sqrt(step)


class Bridge:
    """A Brownian path on [0, 1] that may be asked for any interval, in any order.

    What was asked before is kept; a new time is put between its neighbours by the exact
    conditional law of (W, H). Every new time draws from the generator of each block of rows.

    >>> path = Bridge(0, 4, 1)
    >>> left, right = path.over(0.0, 0.3), path.over(0.3, 1.0)
    >>> bool(torch.allclose(joined(left, right)[1], path.over(0.0, 1.0)[1]))
    True
    """

    def __init__(
        self,
        seed: int,
        n: int,
        dim: int,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        *,
        first: int = 0,
        drawn_on: str | None = None,
    ) -> None:
        self.source = Sequential(seed, n, dim, dtype, device, first=first, drawn_on=drawn_on)
        z, a = self._two()
        self.times, self.pieces = [0.0, 1.0], [(1.0, z, a / math.sqrt(12))]

    def _two(self) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (self.source.n, self.source.dim)
        return self.source.normal(*shape), self.source.normal(*shape)

    def over(self, start: float, end: float) -> Piece:
        """(h, W, H) of the path from `start` to `end`, 0 <= start < end <= 1."""
        if not 0 <= start < end <= 1:
            raise ArgumentError("start", f"lie in [0, end), end = {end} <= 1", start)
        i, j = self._cut(start), self._cut(end)
        total = self.pieces[i]
        for piece in self.pieces[i + 1 : j]:
            total = joined(total, piece)
        return total

    def _cut(self, t: float) -> int:
        """The place of a time among those that are known; a new one is put there."""
        i = int(np.searchsorted(self.times, t))
        if self.times[i] != t:
            h, W, H = self.pieces[i - 1]
            self.pieces[i - 1 : i] = split((h, W, H), t - self.times[i - 1], *self._two())
            self.times.insert(i, t)
        return i


def joined(first: Piece, second: Piece) -> Piece:
    """One step made of two that follow each other."""
    (h, W, H), (k, V, G) = first, second
    U, total = h * (0.5 * W + H) + k * W + k * (0.5 * V + G), h + k
    return total, W + V, U / total - 0.5 * (W + V)


def split(piece: Piece, a: float, x: torch.Tensor, y: torch.Tensor) -> list[Piece]:
    """Two steps, a and h - a, of which one is made; x, y standard normal numbers.

    The shorter one is drawn from its Gaussian law given (W, H), and the other follows from both:
    what a remainder of 1e-9 owes to the whole would drown in rounding.
    """
    h, W, H = piece
    b = h - a
    prior = np.diag([a, a / 12, b, b / 12])
    A = np.array([[1, 0, 1, 0], [(0.5 * a + b) / h - 0.5, a / h, 0.5 * b / h - 0.5, b / h]])
    gain = prior @ A.T @ np.linalg.inv(A @ prior @ A.T)
    short = slice(0, 2) if a <= b else slice(2, 4)
    law = (prior - gain @ A @ prior)[short, short]
    root = np.linalg.cholesky(0.5 * (law + law.T)).tolist()
    m = gain[short].tolist()
    V = m[0][0] * W + m[0][1] * H + root[0][0] * x
    G = m[1][0] * W + m[1][1] * H + root[1][0] * x + root[1][1] * y
    U, rest = h * (0.5 * W + H), W - V
    if a <= b:
        U = U - a * (0.5 * V + G) - b * V
        return [(a, V, G), (b, rest, U / b - 0.5 * rest)]
    U = U - b * (0.5 * V + G) - b * rest
    return [(a, rest, U / a - 0.5 * rest), (b, V, G)]


def monotone(name: str, times: Any) -> np.ndarray:
    """Two or more times in float64, strictly monotone; ArgumentError if they are not."""
    grid = numpy(finite(name, times, (None,)))
    steps = np.diff(grid)
    if len(grid) < 2 or not (np.all(steps > 0) or np.all(steps < 0)):
        raise ArgumentError(name, "be two or more numbers, increasing or decreasing", grid)
    return np.ascontiguousarray(grid)  # torch takes no reversed view
