"""Euler steps of the reverse SDE of a Gaussian mixture, all of them in one compiled loop.

A step of length h = t_(k+1) - t_k < 0 from time t, with (S, V) = (alpha, var) of the noised law,

    x <- x + h drift(x, t) + eta g sqrt|h| z
    h drift = sum_j r_j(x) (G_j (x - S m_j) + o_j)
    G_j = h (alpha' S C_j + ((sigma^2)' + eta^2 g^2)/2 I) (S^2 C_j + V)^-1,   o_j = h alpha' m_j

is one evaluation of the loop in `kernel`, exact at both ends of time. Rows go through in the blocks
of their noise, one block after the other through all steps, so that states never leave the cache;
several threads take several blocks. The same steps with the same noise as `solvers.reverse` with
torchsde, equal to the rounding of the states.

This module imports torch at its top and numba when it is used.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from . import fused, jit
from .arrays import points
from .errors import ArgumentError
from .mixture import GaussianMixture
from .models import Oracle
from .noise import BLOCK, Noise, Sequential
from .solvers import Solution, Start, _bar, kept_places, noise_for

_SLAB = 16  # steps whose noise is drawn at once: a block of it stays in the cache


def euler_maruyama(
    oracle: Any,
    start: Start,
    grid: np.ndarray,
    noise: Noise | int,
    eta: float,
    method: str = "euler",
    tolerance: float | None = None,
    keep: Sequence[int] | None = None,
) -> Solution:
    """The fused engine of `solvers.reverse`, which says what the arguments are.

    Raises ArgumentError where it has no way: it serves an `Oracle` of a `GaussianMixture` with
    D <= 2 on the CPU, Euler steps, and noise drawn in sequence.
    """
    y, back = start
    source = noise_for(noise, 0, y, len(y))
    law = getattr(oracle, "law", None)
    for fits, need in (
        (type(oracle) is Oracle and isinstance(law, GaussianMixture), "an Oracle of a mixture"),
        (getattr(law, "dim", 3) <= 2 and fused.available(), "D <= 2 and a compiler"),
        (method == "euler" and tolerance is None, "method 'euler' with fixed steps"),
        (y.device.type == "cpu" and isinstance(source, Sequential), "sequential noise on the CPU"),
    ):
        if not fits:
            raise ArgumentError("engine", f"be torchsde but for {need}", "fused")
    assert isinstance(source, Sequential)
    points(y, oracle.law.dim)
    places = kept_places(keep, len(grid))
    packed, sizes = _tables(oracle, grid, eta)
    found = torch.empty((len(places), *y.shape), dtype=y.dtype)
    firsts = range(0, len(y), BLOCK)
    with _bar(len(firsts)) as bar, ThreadPoolExecutor(min(fused.cpus(), len(firsts) or 1)) as pool:

        def task(first: int) -> None:
            rows = slice(first, min(first + BLOCK, len(y)))
            part = source.part(rows.start, rows.stop)
            _block(y[rows], part, packed, sizes, places, found[:, rows])
            bar.update()

        list(pool.map(task, firsts))
    steps = len(grid) - 1
    return Solution(grid[places], back(found), steps, steps, float(grid[-1]))


def _block(
    y: torch.Tensor,
    noise: Sequential,
    packed: np.ndarray,
    sizes: np.ndarray,
    places: list[int],
    found: torch.Tensor,
) -> None:
    """All steps of one block of rows; the states at `places` are written to `found`."""
    x = y.clone().numpy()
    run, n = compiled(x.dtype), len(sizes)
    room = np.empty(len(x), x.dtype), np.empty(x.shape, x.dtype)
    stops = sorted({*places, n, *range(0, n, _SLAB)})
    for place, k in enumerate(places):
        if k == 0:
            found[place] = torch.from_numpy(x)
    for first, last in zip([0, *stops], stops):
        if first == last:
            continue
        z = np.zeros((last - first, *x.shape), x.dtype)
        if np.any(sizes):
            for row in z:
                row[:] = noise.normal(*x.shape).numpy()
        run(x, packed[first:last], sizes[first:last], z, *room)
        for place, k in enumerate(places):
            if k == last:
                found[place] = torch.from_numpy(x)
    if not np.isfinite(x).all():
        rows = int((~np.isfinite(x)).any(axis=1).sum())
        raise ArgumentError("x", "stay finite; shorter steps may help", f"{rows} rows did not")


def _tables(oracle: Any, grid: np.ndarray, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """Components of every step, (n, K, PARAMETERS), and the sizes of its noise, (n,)."""
    from . import kernel

    process, tables, sizes = oracle.process, [], []
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        h, g = s - t, process.diffusion(t) if eta else 0.0
        slope, growth = process.dalpha(t), 0.5 * (process.dvar(t) + (eta * g) ** 2)
        tables.append(kernel.pack(*oracle.law._combination(process.at(t), h * slope, -h * growth)))
        sizes.append(eta * g * math.sqrt(-h))
    return np.stack(tables), np.array(sizes)


def steps(x, packed, sizes, z, log_prob, value):
    """Steps of one block in place: x += value(x), the mixture's, + size z."""
    n, dim = x.shape
    for k in range(len(sizes)):
        _chunk(x, packed[k], log_prob, value, 0, n)
        for i in range(n):
            for j in range(dim):
                x[i, j] = x[i, j] + value[i, j] + sizes[k] * z[k, i, j]


_chunk: Any = None
_compiling = threading.Lock()


@functools.cache
def _compile(dtype: np.dtype) -> Any:
    global _chunk
    from . import kernel

    types = kernel.types
    number = {4: types.float32, 8: types.float64}[dtype.itemsize]
    _chunk = kernel._loop(kernel.chunk)
    signature = types.void(
        number[:, ::1], types.float64[:, :, ::1], types.float64[::1], number[:, :, ::1],
        number[::1], number[:, ::1],
    )  # fmt: skip
    return jit.compiled(steps, signature, **kernel._OPTIONS)


def compiled(dtype: np.dtype) -> Any:
    """`steps` as machine code for states of this dtype; made or loaded once."""
    with _compiling:
        return _compile(np.dtype(dtype))
