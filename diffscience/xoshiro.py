"""xoshiro256++, its bulk lanes and the ziggurat, compiled: the kernels under `julia.Xoshiro`.

    state  (s0, s1, s2, s3), 64-bit each;  word  u = rotl(s0 + s3, 23) + s0
    s2 ^= s0, s3 ^= s1, s1 ^= s2, s0 ^= s3, s2 ^= s1_old << 17, s3 = rotl(s3, 45)

Every kernel changes the state in place. All kernels are in this one file, as Numba's cache on disk
follows changes of the file of a kernel, not of the files that it calls.

Conventions: words are uint64; kernels check nothing, `julia` does.

Sources: D. Blackman and S. Vigna, *Scrambled linear pseudorandom number generators*, ACM TOMS 47
(2021); G. Marsaglia and W. W. Tsang, *The ziggurat method*, J. Stat. Software 5 (2000); D. Lemire,
*Fast random integer generation in an interval*, ACM TOMACS 29 (2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffscience import jit

Words = NDArray[np.uint64]

# Numba turns uint64 with int64 into float64, so every constant is a uint64.
_U1, _U8, _U11, _U12, _U32 = (np.uint64(k) for k in (1, 8, 11, 12, 32))
_U17, _U19, _U23, _U41, _U45 = (np.uint64(k) for k in (17, 19, 23, 41, 45))
_LOW32, _LAYERS = np.uint64(0xFFFFFFFF), np.uint64(255)
_FORK = np.array(
    [0x02011CE34BCE797F, 0x5A94851FB48A6E05, 0x3688CF5D48899FA7, 0x867B4BB4C42E5661], np.uint64
)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled at its first call, cached on disk where a place is found.

    Examples
    --------
    >>> double = compiled(lambda x: 2 * x)
    >>> double(21)
    42
    """
    return jit.compiled(function, nogil=True)


def reordered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Like `compiled`, and sums may be taken in any order: eight or more terms side by side.

    Examples
    --------
    >>> reordered(lambda x: x + x)(0.5)
    1.0
    """
    return jit.compiled(function, nogil=True, fastmath={"reassoc", "nsz"})


# The ziggurat ------------------------------------------------------------------------------------
# Right edge of the base layer as Julia defines it. The exact root of "256 layers of equal area
# reach the top of the bell" is 3.65415288536100877164…: equal in float64, not in the 17th digit.
_EDGE = "3.654152885361008796351947251856046648127"


def ziggurat(edge: Decimal) -> tuple[list[Decimal], list[Decimal], Decimal]:
    """Edges and heights of 256 layers of equal area under exp(−x²/2), and the area.

        area  v = R·f(R) + ∫_R^∞ f,   f(x) = exp(−x²/2)
        x_255 = R,  f(x_{i−1}) = f(x_i) + v/x_i

    The tail is f(R)/(R + 1/(R + 2/(R + …))). Forty digits are carried. The exact R closes the
    ziggurat: f(x_1) + v/x_1 = 1.

    Parameters
    ----------
    edge : R.

    Returns
    -------
    (x, f, v) : x[1..255] and f[1..255]; x[0] = v/f(R) is the width of the base, f[0] = 1.
    """
    with localcontext() as context:
        context.prec = 40
        fraction = edge
        for n in range(200, 0, -1):
            fraction = edge + n / fraction
        bell = (-edge * edge / 2).exp()
        area = bell * (edge + 1 / fraction)
        x, f = [Decimal(0)] * 256, [Decimal(1)] * 256
        x[0], x[255], f[255] = area / bell, edge, bell
        for i in range(254, 0, -1):
            f[i] = f[i + 1] + area / x[i + 1]
            x[i] = (-2 * f[i].ln()).sqrt()
    return x, f, area


@lru_cache(maxsize=1)
def tables() -> tuple[Words, NDArray[np.float64], NDArray[np.float64]]:
    """(acceptance thresholds, widths per unit of 2⁻⁵¹, heights), one entry a layer."""
    x, f, area = ziggurat(Decimal(_EDGE))
    unit = 2**51
    inner = [x[255] * f[255] / area, Decimal(0)] + [x[i - 1] / x[i] for i in range(2, 256)]
    accept = np.array([int(ratio * unit) for ratio in inner], np.uint64)
    return accept, np.array([float(a / unit) for a in x]), np.array([float(a) for a in f])


_R = float(_EDGE)
_INVERSE_R = 1.0 / _R


# Kernels: `state` is the four words s0..s3, changed in place --------------------------------------
@compiled
def next_word(state: Words) -> Any:
    """The next 64-bit word of the generator."""
    s0, s1, s2, s3 = state[0], state[1], state[2], state[3]
    total = s0 + s3
    word = ((total << _U23) | (total >> _U41)) + s0
    s2 ^= s0
    s3 ^= s1
    state[1] = s1 ^ s2
    state[0] = s0 ^ s3
    state[2] = s2 ^ (s1 << _U17)
    state[3] = (s3 << _U45) | (s3 >> _U19)
    return word


@compiled
def fill_words(state: Words, bulk: int, out: Words) -> None:
    """The first `bulk` words (a multiple of 8) from eight forks, the rest from the parent."""
    if bulk > 0:
        lanes = np.empty((4, 8), np.uint64)
        for i in range(4):
            for lane in range(8):
                lanes[i, lane] = _FORK[i] * next_word(state)
        a, b, c, d = lanes[0], lanes[1], lanes[2], lanes[3]
        for start in range(0, bulk, 8):
            for lane in range(8):
                s0, s1, s2, s3 = a[lane], b[lane], c[lane], d[lane]
                total = s0 + s3
                out[start + lane] = ((total << _U23) | (total >> _U41)) + s0
                s2 ^= s0
                s3 ^= s1
                b[lane] = s1 ^ s2
                a[lane] = s0 ^ s3
                c[lane] = s2 ^ (s1 << _U17)
                d[lane] = (s3 << _U45) | (s3 >> _U19)
    for i in range(bulk, out.size):
        out[i] = next_word(state)


@compiled
def uniform(state: Words) -> Any:
    """A number on [0, 1), of the upper 53 bits of the next word."""
    return np.float64(next_word(state) >> _U11) * 2.0**-53


@compiled
def normal(
    state: Words, word: Any, accept: Words, width: NDArray[Any], height: NDArray[Any]
) -> Any:
    """A normal number from one word, and from further words of the state where it is rejected."""
    while True:
        r = word >> _U12
        rabs = r >> _U1
        layer = np.int64(rabs & _LAYERS)
        # The sign as a factor: a branch taken half the time costs more than the rest.
        x = np.float64(1 - 2 * np.int64(r & _U1)) * np.float64(np.int64(rabs)) * width[layer]
        if rabs < accept[layer]:
            return x
        if layer == 0:
            while True:
                xx = -_INVERSE_R * math.log1p(-uniform(state))
                yy = -math.log1p(-uniform(state))
                if yy + yy > xx * xx:
                    return -_R - xx if (rabs >> _U8) & _U1 else _R + xx
        u = uniform(state)
        if (height[layer - 1] - height[layer]) * u + height[layer] < math.exp(-0.5 * x * x):
            return x
        word = next_word(state)


@compiled
def fill_normal(
    state: Words,
    words: Words,
    accept: Words,
    width: NDArray[Any],
    height: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """One normal number a word, or a word at a time from the state where there are no words."""
    for i in range(out.size):
        word = words[i] if words.size else next_word(state)
        out[i] = normal(state, word, accept, width, height)


@compiled
def fill_integers(state: Words, n: Any, out: NDArray[np.int64]) -> None:
    """floor(u·n/2⁶⁴) + 1 with the 128-bit product in four parts (Lemire's method)."""
    n_low, n_high = n & _LOW32, n >> _U32
    short = (~n + _U1) % n  # 2⁶⁴ mod n
    for i in range(out.size):
        while True:
            u = next_word(state)
            if u * n >= short:
                break
        low, high = u & _LOW32, u >> _U32
        middle = high * n_low + ((low * n_low) >> _U32)
        carry = (low * n_high + (middle & _LOW32)) >> _U32
        out[i] = np.int64(high * n_high + (middle >> _U32) + carry) + 1


@compiled
def fill_mixture(
    state: Words,
    accept: Words,
    width: NDArray[Any],
    height: NDArray[Any],
    share: Words,
    offset: NDArray[Any],
    means: NDArray[Any],
    scales: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """Component by the alias table, then mean + (lower triangular scale)·(normal numbers)."""
    bits = np.uint64(0)
    while (1 << np.int64(bits)) < share.size:
        bits += _U1
    n, dim = out.shape
    z = np.empty(dim)
    for i in range(n):
        k = alias(next_word(state), bits, share, offset)
        for d in range(dim):
            z[d] = normal(state, next_word(state), accept, width, height)
        for d in range(dim):
            total = 0.0
            for e in range(d + 1):
                total += scales[k, d, e] * z[e]
            out[i, d] = means[k, d] + total


@compiled
def alias(word: Any, bits: Any, share: Words, offset: NDArray[Any]) -> Any:
    """Upper bits choose the cell; the lower ones, compared with its share, move on to the alias."""
    cell = np.int64(0)
    rest = word
    if bits > np.uint64(0):
        shift = np.uint64(64) - bits
        cell = np.int64(word >> shift)
        rest = word & ((_U1 << shift) - _U1)
    return cell + offset[cell] if rest < share[cell] else cell
