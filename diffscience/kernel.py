"""The compiled loop behind `fused.mixture`: one pass over the points, nothing stored per pair.

For a block of points and all components k, in base-2 logarithms (so that no ln 2 is multiplied
into an exponent),

    l_k = a_k − |W_k (x − μ_k)|²,    top = max_k l_k,    r_k = 2^(l_k − top),
    log p = ln 2 · (top + log2 Σ r_k),    value = Σ r_k (G_k (x − μ_k) + o_k) / Σ r_k.

Conventions: everything inside is float64, whatever the dtype of the points; only the degree of
the exponential's polynomial follows that dtype. A block holds BLOCK points, padded with zeros at
the end of the array, and every point goes through the same instructions: a result depends on its
own point and on the parameters, never on the batch, the chunk or the thread. Components come TILE
at a time and the sums are rescaled when the maximum grows (an online log-sum-exp), so scratch is
100 kB whatever their number.

This module imports numba at its top and is therefore imported late, by `fused` alone. Machine
code is kept on disk (see `jit`); where no folder is writable, it is compiled again in each process
(4 s).
"""

from __future__ import annotations

import functools
import math
import threading
from typing import Any

import numba
import numba.extending
import numpy as np
from llvmlite import ir
from numpy.polynomial import Chebyshev, Polynomial

from . import jit

# Untyped on purpose: numba's annotations came late and change with its versions.
njit: Any = numba.njit
types: Any = numba.types
intrinsic: Any = numba.extending.intrinsic

BLOCK = 320  # points in flight; a multiple of every vector width, no power of two (cache sets)
TILE = 32  # components between two rescalings; even, because the loops take them in pairs
PARAMETERS = 13  # numbers per component: a, μ (2), W (4), G (4), o (2)

# 2^-600 is nothing beside a sum that is at least 1, and no product with it is a denormal number
# (those cost up to a hundred times the time).
LOWEST = -600.0
NOTHING = -1.7e308  # "no logit yet": finite, so that differences with it are not NaN
LN2 = math.log(2.0)

# 2^f for |f| <= 1/2, to 3e-9 for float32 results (interpolation at Chebyshev points, which keeps
# 2^0 = 1) and to 4e-18 for float64 ones (Taylor).
_HALF = [-0.5, 0.5]
_FITTED = Chebyshev.interpolate(np.exp2, 6, domain=_HALF).convert(kind=Polynomial).coef
POWER = {
    types.float32: [1.0, *map(float, _FITTED[1:])],
    types.float64: [LN2**j / math.factorial(j) for j in range(14)],
}

_BITS, _REAL = ir.IntType(64), ir.DoubleType()


@intrinsic
def exp2(context: Any, exponent: Any, like: Any) -> Any:
    """2^exponent for exponents in [−1000, 1000]; `like`, a number, sets the accuracy by its type.

    Adding 1.5·2^52 leaves the nearest integer in the low bits of the sum; shifted by 52 they are
    added to the exponent field of 2^f.
    """
    coefficients = POWER[like]

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        magic = ir.Constant(_REAL, 1.5 * 2.0**52)
        shifted = b.fadd(args[0], magic)
        f = b.fsub(args[0], b.fsub(shifted, magic))
        power = ir.Constant(_REAL, coefficients[-1])
        for c in coefficients[-2::-1]:
            power = b.fadd(b.fmul(power, f), ir.Constant(_REAL, c))
        whole = b.shl(b.bitcast(shifted, _BITS), ir.Constant(_BITS, 52))
        return b.bitcast(b.add(b.bitcast(power, _BITS), whole), _REAL)

    return types.float64(types.float64, like), generate


@intrinsic
def bits_of(context: Any, number: Any) -> Any:
    """The 64 bits of a float64, as an integer."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        return b.bitcast(args[0], _BITS)

    return types.int64(types.float64), generate


@intrinsic
def float_of(context: Any, bits: Any) -> Any:
    """The float64 that has these 64 bits."""

    def generate(_context: Any, b: ir.IRBuilder, _signature: Any, args: Any) -> Any:
        return b.bitcast(args[0], _REAL)

    return types.float64(types.int64), generate


# "contract" lets a·b + c be one instruction; nothing else is reordered.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
_loop = njit(**_OPTIONS)


@_loop
def _logits(p, q, x, y, top, lp, lq):
    """Logits of the components p and q at the block's points, and the running maximum."""
    p0, p1, p2, p3, p4, p5, p6 = p[0], p[1], p[2], p[3], p[4], p[5], p[6]
    q0, q1, q2, q3, q4, q5, q6 = q[0], q[1], q[2], q[3], q[4], q[5], q[6]
    for i in range(BLOCK):
        dx, dy = x[i] - p1, y[i] - p2
        u, w = p3 * dx + p4 * dy, p5 * dx + p6 * dy
        logit = p0 - (u * u + w * w)
        lp[i] = logit
        high = top[i]
        high = logit if logit > high else high
        dx, dy = x[i] - q1, y[i] - q2
        u, w = q3 * dx + q4 * dy, q5 * dx + q6 * dy
        logit = q0 - (u * u + w * w)
        lq[i] = logit
        top[i] = logit if logit > high else high


@_loop
def _accumulate(p, q, x, y, top, lp, lq, s, v, w, like):
    """s += r, (v, w) += r·(G (x − μ) + o) for the components p and q."""
    p1, p2, p7, p8, p9, p10, p11, p12 = p[1], p[2], p[7], p[8], p[9], p[10], p[11], p[12]
    q1, q2, q7, q8, q9, q10, q11, q12 = q[1], q[2], q[7], q[8], q[9], q[10], q[11], q[12]
    for i in range(BLOCK):
        e, g = lp[i] - top[i], lq[i] - top[i]
        r = exp2(LOWEST if e < LOWEST else e, like)
        t = exp2(LOWEST if g < LOWEST else g, like)
        dx, dy = x[i] - p1, y[i] - p2
        ex, ey = x[i] - q1, y[i] - q2
        s[i] += r + t
        v[i] += r * (p7 * dx + (p8 * dy + p11)) + t * (q7 * ex + (q8 * ey + q11))
        w[i] += r * (p9 * dx + (p10 * dy + p12)) + t * (q9 * ex + (q10 * ey + q12))


@_loop
def _rescale(before, top, s, v, w, like):
    """Bring the sums from the maximum `before` to the maximum `top`."""
    for i in range(BLOCK):
        e = before[i] - top[i]
        r = exp2(LOWEST if e < LOWEST else e, like)
        s[i] *= r
        v[i] *= r
        w[i] *= r


@_loop
def _finish(top, s, v, w):
    """top <- ln 2·(top + log2 s), (v, w) <- (v, w)/s, where a logit was seen; else −inf, NaN.

    s = 2^j·m with m in [√½, √2]; ln m = 2 artanh z = 2 Σ z^i/i over odd i, z = (m − 1)/(m + 1).
    """
    for i in range(BLOCK):
        bits = bits_of(s[i])
        # The exponent field, read as a float64 through the mantissa of 2^52.
        j = float_of(((bits >> 52) & 0x7FF) | 0x4330000000000000) - (2.0**52 + 1023.0)
        m = float_of((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000)
        big = m > 1.4142135623730951
        m = 0.5 * m if big else m
        j = j + 1.0 if big else j
        z = (m - 1.0) / (m + 1.0)
        zz = z * z
        series = 1.0 / 19.0
        for odd in (17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
            series = series * zz + 1.0 / odd
        seen = top[i] > NOTHING
        scale = 1.0 / s[i] if seen else np.nan
        v[i] *= scale
        w[i] *= scale
        top[i] = LN2 * (top[i] + j) + 2.0 * z * series if seen else -np.inf


def chunk(x, components, log_prob, value, first, last):
    """Fill log_prob and value for the points first..last−1; `first` is a multiple of BLOCK.

    x (n, D), components (K, PARAMETERS) as `pack` makes them, log_prob (n,), value (n, D);
    D = 1 or 2. A point that is not finite has log_prob −inf (NaN if it is NaN) and value NaN.
    """
    count, dim = components.shape[0], x.shape[1]
    logits = np.empty((TILE, BLOCK))
    scratch = np.empty((7, BLOCK))
    a, b, top, before = scratch[0], scratch[1], scratch[2], scratch[3]
    s, v, w = scratch[4], scratch[5], scratch[6]
    like = log_prob[0]
    for start in range(first, last, BLOCK):
        points = min(BLOCK, last - start)
        a[:], b[:] = 0.0, 0.0
        for i in range(points):
            a[i] = x[start + i, 0]
        if dim == 2:
            for i in range(points):
                b[i] = x[start + i, 1]
        top[:], s[:], v[:], w[:] = NOTHING, 0.0, 0.0, 0.0
        for low in range(0, count, TILE):
            high = min(count, low + TILE)
            before[:] = top
            for k in range(low, high, 2):
                p, q, row = components[k], components[k + 1], k - low
                _logits(p, q, a, b, top, logits[row], logits[row + 1])
            if low > 0:
                _rescale(before, top, s, v, w, like)
            for k in range(low, high, 2):
                p, q, row = components[k], components[k + 1], k - low
                _accumulate(p, q, a, b, top, logits[row], logits[row + 1], s, v, w, like)
        _finish(top, s, v, w)
        for i in range(points):
            finite = (a[i] - a[i]) + (b[i] - b[i]) == 0.0
            unknown = a[i] != a[i] or b[i] != b[i]
            log_prob[start + i] = top[i] if finite else (np.nan if unknown else -np.inf)
            value[start + i, 0] = v[i] if finite else np.nan
            if dim == 2:
                value[start + i, 1] = w[i] if finite else np.nan


def pack(
    log_weight: np.ndarray,
    means: np.ndarray,
    whitening: np.ndarray,
    gain: np.ndarray,
    offset: np.ndarray,
) -> np.ndarray:
    """One row of PARAMETERS numbers per component, D = 1 embedded in D = 2, K made even.

    Log weights are in base 2 and whitenings carry √(log2(e)/2), so that a logit is a − |W d|².
    The component that makes K even has log weight −inf and takes no part.
    """
    count, dim = means.shape
    packed = np.zeros((count + count % 2, PARAMETERS))
    packed[:, 0] = -np.inf
    packed[:count, 0] = log_weight / LN2
    packed[:count, 1 : 1 + dim] = means
    for row in range(dim):
        for column in range(dim):
            at = 2 * row + column
            packed[:count, 3 + at] = whitening[:, row, column] * math.sqrt(0.5 / LN2)
            packed[:count, 7 + at] = gain[:, row, column]
        packed[:count, 11 + row] = offset[:, row]
    return packed


_compiling = threading.Lock()


@functools.cache
def _compile(dtype: np.dtype) -> Any:
    number = {4: types.float32, 8: types.float64}[dtype.itemsize]
    # Any layout, read-only or not: one machine code for them all.
    points = types.Array(number, 2, "A", readonly=True)
    signature = types.void(points, types.float64[:, ::1], number[::1], number[:, ::1],
                           types.int64, types.int64)  # fmt: skip
    return jit.compiled(chunk, signature, **_OPTIONS)


def compiled(dtype: np.dtype) -> Any:
    """`chunk` as machine code for points of this dtype, float32 or float64; made or loaded once."""
    with _compiling:
        return _compile(np.dtype(dtype))
