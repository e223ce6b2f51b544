"""Random streams of Julia 1.11 and 1.12, bit for bit, and what the Julia notes draw from them.

    seed          s0..s3 = SHA-256 of the seed's little-endian 32-bit words, as four 64-bit words
    word          u = rotl(s0 + s3, 23) + s0, then the xoshiro256++ step (Blackman and Vigna, 2021)
    rand          (u >> 11)·2⁻⁵³;  Float32: (upper 32 bits >> 8)·2⁻²⁴
    rand(1:n)     floor(u·n / 2⁶⁴) + 1, rejecting the short remainder (Lemire, 2019)
    randn         ziggurat of 256 layers of equal area (Marsaglia and Tsang, 2000)
    mixture       component by an alias table in 64-bit fixed point, then μ + σ·randn
    gamma, beta   squeeze and rejection (Marsaglia and Tsang, ACM TOMS 26, 2000); G_a/(G_a + G_b)
    Dense layer   weight ~ U(±gain·√3/√fan_in), bias ~ U(±1/√fan_in), both Float32 (Lux ≥ 1.0)

An array of 64 bytes or more is filled in bulk: eight generators are forked from the parent (each
word of their states is a parent word times an odd constant), their words are interleaved, and what
is left over comes from the parent. Views, ranges and samplers of distributions are scalar loops.
Arrays are filled in column-major order, as Julia does.

Conventions: float64 and the shapes of Julia, `rand((80, 1024))` being 80 rows in Fortran order.
Julia promises no stability of streams between versions: this is "Julia 1.11/1.12 compatible".
The one step outside IEEE arithmetic is log1p in the tail |x| > 3.654 of the normal (one draw in
4,000), whose last bit belongs to the C library; the logarithms of `gamma` only decide whether a
candidate is kept.

Sources: facts documented by Julia (Random), AliasTables.jl, Distributions.jl and Lux.jl.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from diffscience import xoshiro
from diffscience.errors import ArgumentError

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]


class Xoshiro:
    """Julia's `Xoshiro(seed)`: a generator of the streams of Julia 1.11 and 1.12.

    Parameters
    ----------
    seed : a non-negative integer of any size.

    Raises
    ------
    ArgumentError : seed is not a non-negative integer.

    Examples
    --------
    >>> rng = Xoshiro(1234)
    >>> rng.rand(), rng.rand()
    (0.32597672886359486, 0.5490511363155669)
    >>> print(Xoshiro(123).randn(5)[:2])
    [-0.64573067 -1.46325138]
    >>> print(Xoshiro(12345).integers(80, 3).shape)
    (3,)
    """

    def __init__(self, seed: int | np.integer[Any]) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
            raise ArgumentError("seed", "be a non-negative integer", seed)
        value = int(seed)
        size = max(1, (value.bit_length() + 31) // 32) * 4
        digest = hashlib.sha256(value.to_bytes(size, "little")).digest()
        self.state: xoshiro.Words = np.frombuffer(digest, "<u8").astype(np.uint64)

    def copy(self) -> Xoshiro:
        """A generator that goes on from the same state, independent of this one."""
        twin = Xoshiro(0)
        twin.state = self.state.copy()
        return twin

    def word(self) -> int:
        """The next 64-bit word: Julia's `rand(rng, UInt64)`."""
        return int(xoshiro.next_word(self.state))

    def rand(
        self,
        shape: int | Sequence[int] | None = None,
        dtype: DTypeLike = np.float64,
        bulk: bool = True,
    ) -> Any:
        """Uniform numbers on [0, 1): Julia's `rand(rng, T)` and `rand(rng, T, dims)`.

        Parameters
        ----------
        shape : None for one number, else the shape of an array filled in column-major order.
        dtype : float64 or float32.
        bulk : False draws number by number, as Julia does into a view.

        Examples
        --------
        >>> Xoshiro(1234).rand(2)
        array([0.32597673, 0.54905114])
        """
        kind = _kind(dtype)
        if shape is None:
            word = self.word()
            return (word >> 11) * 2.0**-53 if kind is np.float64 else _single(word >> 32)
        n, dims = _size(shape)
        if kind is np.float64:
            flat = (self._words(n, 8, bulk) >> np.uint64(11)) * 2.0**-53
        elif bulk:
            words = self._words(n, 4, True)
            # Two numbers a word, the lower half first.
            halves = words.astype("<u8", copy=False).view("<u4")[:n]
            flat = (halves >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        else:
            words = self._words(n, 8, False)
            flat = (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return flat.reshape(dims, order="F")

    def randn(
        self,
        shape: int | Sequence[int] | None = None,
        dtype: DTypeLike = np.float64,
        bulk: bool = True,
    ) -> Any:
        """Standard normal numbers: Julia's `randn(rng, T)` and `randn(rng, T, dims)`.

        A float64 array of 7 numbers or more takes its words in bulk, and what its ziggurat rejects
        is drawn again from the parent; everything else is a scalar loop. Float32 is rounded from
        float64.

        Parameters
        ----------
        shape, dtype, bulk : as for `rand`.

        Examples
        --------
        >>> Xoshiro(123).randn()
        -0.6457306721039767
        """
        kind = _kind(dtype)
        n, dims = (1, ()) if shape is None else _size(shape)
        whole = bulk and shape is not None and kind is np.float64 and n >= 7
        words = self._words(n, 8, True) if whole else np.empty(0, np.uint64)
        out = np.empty(n)
        xoshiro.fill_normal(self.state, words, *xoshiro.tables(), out)
        if shape is None:
            return float(out[0]) if kind is np.float64 else np.float32(out[0])
        return out.astype(kind, copy=False).reshape(dims, order="F")

    def integers(self, n: int, shape: int | Sequence[int] | None = None) -> Any:
        """Uniform integers on 1, …, n: Julia's `rand(rng, 1:n)` and `rand(rng, 1:n, dims)`.

        Examples
        --------
        >>> rolls = Xoshiro(1).integers(6, 1000)
        >>> int(rolls.min()), int(rolls.max())
        (1, 6)
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 0 < n < 2**63:
            raise ArgumentError("n", "be an integer in [1, 2⁶³)", n)
        count, dims = (1, ()) if shape is None else _size(shape)
        out = np.empty(count, np.int64)
        xoshiro.fill_integers(self.state, np.uint64(n), out)
        return int(out[0]) if shape is None else out.reshape(dims, order="F")

    def mixture(
        self, weights: ArrayLike, means: ArrayLike, scales: ArrayLike, n: int
    ) -> NDArray[np.float64]:
        """A sample of a Gaussian mixture: `rand(rng, MixtureModel(…), n)` of Distributions.jl.

        Parameters
        ----------
        weights : (K,), non-negative.
        means : (K,), or (K, D).
        scales : (K,) standard deviations, or (K, D, D) lower Cholesky factors of the covariances.
        n : number of points.

        Returns
        -------
        (n,) where the means are (K,), else (n, D).

        Examples
        --------
        >>> x = Xoshiro(12345).mixture([0.1, 0.9], [-3, 3], [1, 1], 1024)
        >>> float(x[0]), float(x[-1])
        (2.303077959422043, 2.488464630750972)
        """
        table = AliasTable(weights)
        mu = np.asarray(means, float)
        flat = mu.ndim == 1
        mu = mu[:, None] if flat else mu
        chol = np.asarray(scales, float)
        chol = chol[:, None, None] if flat else chol
        count, dim = len(table.probabilities), mu.shape[-1]
        if mu.shape != (count, dim):
            raise ArgumentError("means", "have one row a weight", np.shape(means))
        if chol.shape != (count, dim, dim):
            raise ArgumentError("scales", "be (K,), or (K, D, D) as means is (K, D)", chol.shape)
        out = np.empty((_size(n)[0], dim))
        tables = (*xoshiro.tables(), table.share, table.offset)
        xoshiro.fill_mixture(self.state, *tables, mu.copy(), chol.copy(), out)
        return out[:, 0] if flat else out

    def gamma(self, shape: float, scale: float = 1.0) -> float:
        """One number of a Gamma law: `rand(rng, Gamma(shape, scale))` of Distributions.jl.

            scale·d·V,   d = shape − 1/3,   V = (1 + Z/(3√d))³ > 0,
            kept if log U < Z²/2 + d·(1 − V + log V)

        Parameters
        ----------
        shape : > 1; at 1 and below Distributions.jl draws by another method.
        scale : > 0.

        Examples
        --------
        >>> rng = Xoshiro(4321)
        >>> round(sum(rng.gamma(20.0, 0.04) for _ in range(4000)) / 4000, 2)
        0.8
        """
        if not 1 < shape < math.inf:
            raise ArgumentError("shape", "be a number above 1", shape)
        if not 0 < scale < math.inf:
            raise ArgumentError("scale", "be a number above 0", scale)
        d = shape - 1 / 3
        c, kappa = 1 / (3 * math.sqrt(d)), d * scale
        while True:
            z = self.randn()
            root = 1 + c * z
            if root <= 0:
                continue  # only the normal number is drawn again
            v = root * root * root
            u = self.rand()
            square = z * z
            if u < 1 - 0.0331 * (square * square):
                break
            if u == 0 or math.log(u) < square / 2 + d * (1 - v + math.log(v)):
                break
        return float(v * kappa)

    def beta(self, a: float, b: float) -> float:
        """One number of a Beta law: `rand(rng, Beta(a, b))` of Distributions.jl, for a, b > 1.

            G_a / (G_a + G_b), the two numbers of unit scale drawn in this order

        Examples
        --------
        >>> rng = Xoshiro(4321)
        >>> round(sum(rng.beta(3.0, 10.0) for _ in range(4000)) / 4000, 2)
        0.23
        """
        for name, value in (("a", a), ("b", b)):
            if not 1 < value < math.inf:
                raise ArgumentError(name, "be a number above 1", value)
        first = self.gamma(a)
        return first / (first + self.gamma(b))

    def blend(
        self, weights: ArrayLike, draws: Sequence[Callable[[Xoshiro], float]], n: int
    ) -> NDArray[np.float64]:
        """A sample of a mixture of any laws: `rand(rng, MixtureModel([…], weights), n)`.

        Parameters
        ----------
        weights : (K,), non-negative.
        draws : K functions from this generator to one number, one a component.
        n : number of points.

        Returns
        -------
        (n,).

        Examples
        --------
        >>> draws = [lambda rng: rng.beta(3.0, 10.0), lambda rng: 2 + 0.2 * rng.randn()]
        >>> Xoshiro(4321).blend([0.3, 0.7], draws, 5).shape
        (5,)
        """
        table = AliasTable(weights)
        if len(draws) != len(table.probabilities):
            raise ArgumentError("draws", "be one function a weight", len(draws))
        count = _size(n)[0]
        return np.array([draws[table(self.word())](self) for _ in range(count)], float)

    def _words(self, count: int, size: int, bulk: bool) -> xoshiro.Words:
        """Words for `count` numbers of `size` bytes; whole blocks of 64 bytes come from forks."""
        out = np.empty(-(-count * size // 8), np.uint64)
        xoshiro.fill_words(self.state, count * size // 64 * 8 if bulk else 0, out)
        return out


class AliasTable:
    """A discrete law on 0, …, K−1 in 64-bit fixed point, drawn from one word: AliasTables.jl.

    The weights are rounded to integers p_i with Σ p_i = 2⁶⁴ (what rounding down leaves goes to the
    first ones). There are 2^m ≥ K cells of 2^{64−m} points; the upper m bits of a word name a cell,
    and where its lower bits are below the cell's share the answer is the cell plus an offset.

    Parameters
    ----------
    weights : (K,) non-negative numbers, not all zero; integers and floats are treated as Julia
        treats its own.

    Attributes
    ----------
    probabilities : list of K integers p_i, summing to 2⁶⁴.
    share, offset : (2^m,) uint64 and int64.

    Raises
    ------
    ArgumentError : the weights are not finite, or negative, or all zero.

    Examples
    --------
    >>> [hex(p) for p in AliasTable([1, 3, 1]).probabilities]
    ['0x3333333333333334', '0x9999999999999999', '0x3333333333333333']
    """

    def __init__(self, weights: ArrayLike) -> None:
        values = np.asarray(weights)
        rule = "be a vector of finite numbers >= 0, not all zero"
        if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iuf":
            raise ArgumentError("weights", rule, weights)
        if not np.all(np.isfinite(values)) or values.min() < 0 or values.max() == 0:
            raise ArgumentError("weights", rule, weights)
        self.probabilities = _fixed_point(values)
        self.share, self.offset = _cells(self.probabilities)

    def __call__(self, word: int) -> int:
        """The index that a 64-bit word falls on.

        Examples
        --------
        >>> table = AliasTable([1, 3, 1])
        >>> [table(word << 60) for word in (0, 5, 9, 15)]
        [1, 1, 2, 1]
        """
        bits = np.uint64(len(self.share).bit_length() - 1)
        return int(xoshiro.alias(np.uint64(word), bits, self.share, self.offset))


def dense(rng: Xoshiro, fan_in: int, fan_out: int, gain: float = 1.0) -> Layer:
    """Initial (weight, bias) of a Lux `Dense(fan_in => fan_out)` layer, Lux ≥ 1.0.

        weight ~ U(−b, b), b = gain·√3/√fan_in;   bias ~ U(±1/√fan_in)

    Parameters
    ----------
    gain : 2 where the layer is followed by relu, 1 after identity and sigmoid.

    Returns
    -------
    (weight, bias) : float32, (fan_out, fan_in) and (fan_out,).

    Examples
    --------
    >>> weight, bias = dense(Xoshiro(0), 2, 64, gain=2.0)
    >>> weight.shape, bias.shape, weight.dtype.name
    ((64, 2), (64,), 'float32')
    """
    if fan_in < 1 or fan_out < 1:
        raise ArgumentError("fan_in, fan_out", "be at least 1", (fan_in, fan_out))
    half, two = np.float32(0.5), np.float32(2)
    bound = np.sqrt(np.float32(3)) * np.float32(gain) / np.sqrt(np.float32(fan_in))
    weight = (rng.rand((fan_out, fan_in), np.float32) - half) * (two * bound)
    # Lux takes the bound of the weights in Float32 and that of the biases in Float64.
    bias = ((rng.rand(fan_out, np.float32) - half) * two).astype(float) / math.sqrt(fan_in)
    return weight, bias.astype(np.float32)


def network(rng: Xoshiro, widths: Sequence[int], gain: float = 2.0) -> list[Layer]:
    """Initial parameters of a Lux chain of Dense layers: `Lux.setup(rng, Chain(Dense(…), …))`.

    Parameters
    ----------
    widths : (inputs, hidden …, outputs).
    gain : of the hidden layers: 2 for relu, 1 for sigmoid; the last layer is linear, gain 1.

    Examples
    --------
    >>> [weight.shape for weight, _ in network(Xoshiro(0), (2, 32, 32, 1))]
    [(32, 2), (32, 32), (1, 32)]
    """
    if len(widths) < 2:
        raise ArgumentError("widths", "name at least inputs and outputs", widths)
    gains = [gain] * (len(widths) - 2) + [1.0]
    pairs = zip(pairwise(widths), gains, strict=True)
    return [dense(rng, fan_in, fan_out, g) for (fan_in, fan_out), g in pairs]


def span(start: float, stop: float, length: int) -> NDArray[np.float64]:
    """Julia's `range(start, stop, length)`: each point the float nearest to the exact one.

        x_i = start + i·(stop − start)/(length − 1), with start and stop read as decimals

    Examples
    --------
    >>> float(span(-10, 10, 200)[1])
    -9.899497487437186
    """
    if length < 2:
        raise ArgumentError("length", "be at least 2", length)
    first, last = Fraction(repr(float(start))), Fraction(repr(float(stop)))
    return np.array([float(first + (last - first) * i / (length - 1)) for i in range(length)])


# Helpers ------------------------------------------------------------------------------------------
def _single(half: int) -> np.float32:
    return np.float32(half >> 8) * np.float32(2.0**-24)


def _kind(dtype: DTypeLike) -> type[np.float64] | type[np.float32]:
    kind = np.dtype(dtype).type
    if kind is np.float64 or kind is np.float32:
        return kind
    raise ArgumentError("dtype", "be float64 or float32", dtype)


def _size(shape: int | Sequence[int]) -> tuple[int, tuple[int, ...]]:
    dims = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if any(not isinstance(d, (int, np.integer)) or d < 0 for d in dims):
        raise ArgumentError("shape", "be non-negative integers", shape)
    return math.prod(int(d) for d in dims), tuple(int(d) for d in dims)


def _fixed_point(values: NDArray[Any]) -> list[int]:
    """Integers p_i ∝ weights with Σ p_i = 2⁶⁴; what rounding down leaves goes to the first ones."""
    positive = np.flatnonzero(values)
    if positive.size == 1:
        return [2**64 if i == positive[0] else 0 for i in range(values.size)]
    if values.dtype.kind == "f":
        total = 0.0
        for value in values:
            total += float(value)
        # Floats are first rounded up to 64 bits at the scale of their sum (with a margin).
        scale = 64 - math.frexp(total + math.sqrt(math.ulp(total)))[1]
        whole = [math.ceil(Fraction(float(v)) * Fraction(2) ** scale) for v in values]
    else:
        whole = [int(v) for v in values]
    parts = [(w << 64) // sum(whole) for w in whole]
    missing = 2**64 - sum(parts)
    return [p + (i < missing) for i, p in enumerate(parts)]


def _cells(parts: list[int]) -> tuple[xoshiro.Words, NDArray[np.int64]]:
    """Shares and offsets of the cells: two sweeps, one over cells with room, one over the others.

    The order of the sweeps decides which words go where, so it is AliasTables.jl's: walk on from
    the present cell; where it has room fill it from the next cell that has not, where it has none
    give its surplus to the next cell that has; lastly the cells that only pad to a power of two.
    """
    size = 1 << (len(parts) - 1).bit_length()
    points = 2**64 // size
    share, offset = np.zeros(size, np.uint64), np.zeros(size, np.int64)
    if sum(p > 0 for p in parts) == 1:
        only = next(i for i, p in enumerate(parts) if p > 0)
        return np.full(size, 2**63, np.uint64), only - np.arange(size)
    padded = parts + [0] * (size - len(parts))
    full = (i for i in range(1, len(parts)) if padded[i] >= points)
    roomy = (i for i in range(1, size) if padded[i] < points)
    present, wanted = 0, parts[0]
    while True:
        if wanted < points:
            giver = next(full)
            share[present], offset[present] = points - wanted, giver - present
            present, wanted = giver, padded[giver] - (points - wanted)
        else:
            taker = next(roomy, None)
            if taker is None:
                return share, offset
            share[taker], offset[taker] = points - padded[taker], present - taker
            wanted -= points - padded[taker]
