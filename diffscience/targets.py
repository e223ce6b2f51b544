"""Targets: laws that are known exactly at every noise level.

A target is the law of S Y + sqrt(V) Z, where Y has a base law, Z is standard normal, and (S, V) is
the `noise` that it has been through. Diffusing it composes the noise and nothing else:

    target.diffuse(T).noise = target.noise.then(T)

Every base law is a mixture of K components whose blurred versions are known in closed form, and
with responsibilities r_k = w_k p_k / sum w_j p_j and g_k = grad log p_k:

    log p   = log sum_k w_k p_k                                     (log-sum-exp)
    score   = sum_k r_k g_k
    Hessian = sum_k r_k (H_k + (g_k - score)(g_k - score)^T)
    E[Y|x]  = sum_k r_k E_k[Y|x],     Cov[Y|x] by the law of total variance

Conventions: points are (*b, D); a noise of batch shape (*b) pairs with the points row by row;
log is natural; everything is computed in float64 and returned in the dtype and on the device of x.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import array_api_compat
import numpy as np

from .arrays import (
    Array,
    Draws,
    finite,
    is_traced,
    like,
    logsumexp,
    namespace,
    numpy,
    paired,
    points,
    softmax,
    wide,
)
from .errors import ArgumentError, instance, number
from .quadrature import expectation
from .transition import Transition

CHUNK = 2**18  # numbers in the largest temporary of a chunk: 2 MB, so that it stays in the cache
LOG_2PI = math.log(2 * math.pi)


class Target:
    """A law known exactly at every noise level. Abstract; see the module for the formulas.

    Families give `_logits`, `_grads`, `_curvatures`, `_means`, `_covs` of their components on rows
    x (n, D) with S, V numbers or (n, 1); `_sample`, `_moments`, `quadrature`; and for D = 1
    `_log_cdfs` and `_reach`.
    """

    dim: int
    noise: Transition = Transition.identity()
    _count: int  # number of components, for the size of chunks

    # ---- what a family declares

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        """log(w_k p_k(x)), (n, K)."""
        raise NotImplementedError

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        """The gradients of log p_k, (n, K, D)."""
        raise NotImplementedError

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        """The Hessians of log p_k, (n, K, D, D)."""
        raise NotImplementedError

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        """E_k[Y | x], (n, K, D)."""
        raise NotImplementedError

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        """Cov_k[Y | x], (n, K, D, D)."""
        raise NotImplementedError

    def _sample(self, n: int, draws: Draws) -> Array:
        """Base points Y, (n, D)."""
        raise NotImplementedError

    def _moments(self) -> tuple[Array, Array]:
        """Mean (D,) and covariance (D, D) of Y."""
        raise NotImplementedError

    def _log_cdfs(self, x: Array, S: Array, V: Array, upper: bool) -> Array:
        """log w_k + log P_k(X <= x), or > x, for D = 1 and x (n,): (n, K)."""
        raise ArgumentError("target", "be one of the 1-D families with a cdf", type(self).__name__)

    def _reach(self, S: Array, V: Array) -> tuple[Array, Array]:
        """For D = 1, an interval that holds all but 1e-300 of the mass."""
        raise ArgumentError("target", "be one of the 1-D families with a cdf", type(self).__name__)

    def _zero_width(self) -> bool:
        """Whether the base law has no density."""
        return False

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (M, D) and weights (M,) with sum_i w_i f(x_i) = E f(X) for smooth f.

        Exact to about 1e-12 where f varies no faster than the density does; D <= 2; NumPy float64.
        """
        raise NotImplementedError

    # ---- densities

    def diffuse(self, transition: Transition) -> Any:
        """The law after a transition, a target of the same kind."""
        instance("transition", transition, Transition)
        moved = copy.copy(self)
        moved.noise = self.noise.then(transition)
        return moved

    def blurred(self, sigma: float) -> Any:
        """p * N(0, sigma^2 I), the law of X + sigma Z: `diffuse` with scale 1; sigma >= 0."""
        number("sigma", sigma, 0)
        return self.diffuse(Transition(1.0, float(sigma) ** 2))

    def log_prob(self, x: Array) -> Array:
        """Natural log-density, (*b, D) -> (*b).

        Raises ArgumentError for points of the wrong shape or not finite, and where the law has no
        density because neither its base nor its noise has any width.
        """
        return self._over_rows(self._rows_log_prob, x, ())

    def score(self, x: Array) -> Array:
        """The gradient of `log_prob`, (*b, D) -> (*b, D)."""
        return self._over_rows(lambda *a: self._rows_both(*a)[1], x, (self.dim,))

    def log_prob_and_score(self, x: Array) -> tuple[Array, Array]:
        """Both at once, for the price of one."""
        held: list[Array] = []

        def rows(x: Array, S: Array, V: Array) -> Array:
            log_prob, score = self._rows_both(x, S, V)
            held.append(log_prob)
            return score

        score = self._over_rows(rows, x, (self.dim,))
        xp = namespace(score)
        return xp.astype(xp.reshape(held[0], score.shape[:-1]), score.dtype, copy=False), score

    def hessian(self, x: Array) -> Array:
        """The Hessian of `log_prob`, (*b, D) -> (*b, D, D), symmetric."""
        return self._over_rows(self._rows_hessian, x, (self.dim, self.dim))

    def denoise(self, x: Array, transition: Transition) -> Array:
        """E[X | scale X + sqrt(var) Z = x], (*b, D) -> (*b, D): the posterior mean under this law.

        With own noise (s0, v0), further noise (s, v), and (S, V) their composition,
        E[X|x] = (v s0 E[Y|x] + s v0 x) / V.
        """
        diffused, x = self.diffuse(transition), points(x, self.dim)
        s0, v0, s, v = diffused._columns_for(x, self.noise, transition)

        def rows(x: Array, S: Array, V: Array) -> Array:
            mean = diffused._rows_mean(x, S, V)
            if isinstance(v0, float) and v0 == 0 and isinstance(v, float) and v > 0:
                return mean if s0 == 1 else s0 * mean  # no noise of its own: X = s0 Y
            return _ratio(v * s0 * mean + s * v0 * wide(x), V, wide(x) / _nonzero(s * s0))

        return diffused._over_rows(rows, x, (self.dim,))

    def combined(self, x: Array, transition: Transition, on_mean: float, on_score: float) -> Array:
        """on_mean E[X | x] + on_score grad log p(x) for x = scale X + sqrt(var) Z ~ p, (*b, D).

        One evaluation, for one transition. Of the two the well-conditioned one is asked for and the
        other follows by score = (scale E[X|x] - x)/var, so that no digit is lost in the difference.
        """
        s, v = transition.scale, transition.var
        if not isinstance(s, float) or not isinstance(v, float):
            raise ArgumentError("transition", "be a single one", f"shape {transition.shape}")
        x = points(x, self.dim)
        if s * s >= v:
            score = self.diffuse(transition).score(x)
            return on_mean / s * x + (on_mean * v / s + on_score) * score
        mean = self.denoise(x, transition)
        return (on_mean + on_score * s / v) * mean - on_score / v * x

    def posterior_cov(self, x: Array, transition: Transition) -> Array:
        """Cov[X | scale X + sqrt(var) Z = x], (*b, D) -> (*b, D, D), positive semi-definite.

        (v v0 / V) I + (v s0 / V)^2 Cov[Y|x], in the notation of `denoise`.
        """
        diffused, x = self.diffuse(transition), points(x, self.dim)
        s0, v0, _, v = diffused._columns_for(x, self.noise, transition)

        def rows(x: Array, S: Array, V: Array) -> Array:
            cov = diffused._rows_cov(wide(x), S, V)
            share = over(_ratio(v, V, 0.0 * V))
            return share * over(v0) * like(np.eye(self.dim), x) + (share * over(s0)) ** 2 * cov

        return diffused._over_rows(rows, x, (self.dim, self.dim))

    # ---- the law as a whole

    @property
    def mean(self) -> Array:
        """The mean, (D,); (*b, D) for a batch of noises."""
        mean = self._moments()[0]
        S, _ = self._noise_like(mean)
        return (S[..., None] if S.ndim else S) * mean

    @property
    def cov(self) -> Array:
        """The covariance, (D, D); (*b, D, D) for a batch of noises."""
        cov = self._moments()[1]
        S, V = self._noise_like(cov)
        S, V = (a[..., None, None] if a.ndim else a for a in (S, V))
        return S * S * cov + V * like(np.eye(self.dim), cov)

    def sample(self, n: int, generator: Any) -> Array:
        """n independent points, (n, D), float64.

        generator : a numpy.random.Generator or a seed (NumPy array), a torch.Generator (tensor).
        """
        if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0:
            raise ArgumentError("n", "be a whole number of at least 0", n)
        return self._drawn(int(n), Draws(generator))

    def _drawn(self, n: int, draws: Draws) -> Array:
        base = self._sample(n, draws)
        S, V = self._single_noise()
        return S * base if V == 0 else S * base + math.sqrt(V) * draws.normal(n, self.dim)

    def entropy(self, error: float = 1e-4) -> float:
        """-E log p in nats: by `quadrature` for D <= 2, to about 1e-12.

        For D > 2 by randomised quasi-Monte Carlo until the standard error is at most `error`.
        Raises ArgumentError where there is no density, and where that error is out of reach.
        """
        self._require_density(self._single_noise()[1])
        if self.dim > 2:
            columns = 1 + 2 * self.dim  # a component, the base and the noise
            return -expectation(self._drawn, self.log_prob, columns, error)
        x, weights = self.quadrature()
        return -float(np.sum(weights * self.log_prob(x)))

    def cdf(self, x: Array) -> Array:
        """P(X <= x) for D = 1, (*b, 1) -> (*b)."""
        xp, log_cdf = namespace(x := points(x, self._line())), self._log_cdf(x, upper=False)
        return xp.exp(xp.where(log_cdf < 0, log_cdf, xp.zeros_like(log_cdf)))

    def quantile(self, u: Array) -> Array:
        """The x with cdf(x) = u for D = 1, (*b) -> (*b, 1); u strictly between 0 and 1."""
        self._line()
        wanted = finite("u", u)
        xp = namespace(wanted)
        if not is_traced(wanted) and bool(xp.any((wanted <= 0) | (wanted >= 1))):
            raise ArgumentError("u", "lie strictly between 0 and 1", u)
        upper = wanted > 0.5
        level = xp.where(upper, xp.log1p(-wanted), xp.log(wanted))
        found = self._invert(level, upper)
        is_array = hasattr(u, "dtype") and namespace(u).isdtype(u.dtype, "real floating")
        return xp.astype(found, u.dtype, copy=False) if is_array else found

    # ---- rows

    def _over_rows(
        self,
        work: Callable[[Array, Array, Array], Array],
        x: Array,
        tail: tuple[int, ...],
        density: bool = True,
    ) -> Array:
        """work(x, S, V) on rows (n, D), folded back to (*b, *tail) in the dtype of x."""
        x = points(x, self.dim)
        xp = namespace(x)
        if density:
            self._require_density(self.noise.var)
        batch = tuple(x.shape[:-1])
        if self.noise.shape:
            batch = paired("x", batch, self.noise.shape)
            x = xp.broadcast_to(x, (*batch, self.dim))
            S, V = (xp.reshape(xp.broadcast_to(a, batch), (-1, 1)) for a in self._noise_like(x))
        else:  # floats, or numbers that carry a derivative
            S, V = self.noise.scale, self.noise.var
        rows = work(xp.reshape(x, (-1, self.dim)), S, V)
        return xp.astype(xp.reshape(rows, (*batch, *tail)), x.dtype, copy=False)

    def _columns_for(self, x: Array, own: Transition, further: Transition) -> list[Array]:
        """Scales and variances of two noises as (n, 1) columns beside the rows of x, or numbers."""
        values = [own.scale, own.var, further.scale, further.var]
        if not self.noise.shape:
            return values
        xp = namespace(x)
        batch = paired("x", tuple(x.shape[:-1]), self.noise.shape)
        return [xp.reshape(xp.broadcast_to(like(v, x), batch), (-1, 1)) for v in values]

    def _chunks(
        self, work: Callable[[Array, Array, Array], Array], x: Array, S: Array, V: Array, width: int
    ) -> Array:
        """work on chunks of float64 rows, joined in the dtype of x.

        width : numbers in each row's largest temporary array.
        """
        xp, n = namespace(x), x.shape[0]
        # An accelerator wants long rows of work, 64 MB at a time; a processor those of its cache.
        room = CHUNK if str(array_api_compat.device(x)) == "cpu" else 32 * CHUNK
        size = max(1, room // max(width, 1))
        if n <= size or is_traced(x):
            return work(wide(x), S, V)

        def part(i: int) -> Array:
            noise = [a[i : i + size] if getattr(a, "ndim", 0) else a for a in (S, V)]
            return xp.astype(work(wide(x[i : i + size]), *noise), x.dtype, copy=False)

        first = part(0)
        if not isinstance(first, np.ndarray):
            return xp.concat([first, *map(part, range(size, n, size))], axis=0)
        joined = np.empty((n, *first.shape[1:]), x.dtype)  # in place, so that nothing stands twice
        joined[:size] = first
        for i in range(size, n, size):
            joined[i : i + size] = part(i)
        return joined

    def _rows_log_prob(self, x: Array, S: Array, V: Array) -> Array:
        width = self._count * self.dim
        return self._chunks(lambda *a: logsumexp(self._logits(*a)), x, S, V, width)

    def _rows_both(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        def both(x: Array, S: Array, V: Array) -> Array:
            xp, logits = namespace(x), self._logits(x, S, V)
            score = _average(softmax(logits), self._grads(x, S, V))
            return xp.concat([logsumexp(logits)[:, None], score], axis=-1)

        rows = self._chunks(both, x, S, V, self._count * self.dim**2)
        return rows[:, 0], rows[:, 1:]

    def _rows_mean(self, x: Array, S: Array, V: Array) -> Array:
        def mean(x: Array, S: Array, V: Array) -> Array:
            return _average(softmax(self._logits(x, S, V)), self._means(x, S, V))

        return self._chunks(mean, x, S, V, self._count * self.dim**2)

    def _rows_hessian(self, x: Array, S: Array, V: Array) -> Array:
        def hessian(x: Array, S: Array, V: Array) -> Array:
            r, grads = softmax(self._logits(x, S, V)), self._grads(x, S, V)
            return _total(r, grads, self._curvatures(x, S, V))

        return self._chunks(hessian, x, S, V, self._count * self.dim**2)

    def _rows_cov(self, x: Array, S: Array, V: Array) -> Array:
        def cov(x: Array, S: Array, V: Array) -> Array:
            r = softmax(self._logits(x, S, V))
            return _total(r, self._means(x, S, V), self._covs(x, S, V))

        return self._chunks(cov, x, S, V, self._count * self.dim**2)

    # ---- one dimension

    def _log_cdf(self, x: Array, upper: bool) -> Array:
        """log P(X <= x), or of > x, for x (*b, 1)."""

        def rows(x: Array, S: Array, V: Array) -> Array:
            S, V = (a[:, 0] if getattr(a, "ndim", 0) else a for a in (S, V))
            return logsumexp(self._log_cdfs(wide(x)[:, 0], S, V, upper))

        return self._over_rows(rows, x, (), density=False)

    def _invert(self, level: Array, upper: Array) -> Array:
        """The x (*b, 1) with log cdf(x) = level, or log sf(x) = level where `upper`.

        Newton's method on the logarithm, kept inside a bracket that shrinks with every step.
        """
        xp = namespace(level)
        S, V = self._noise_like(level)
        low, high = (xp.zeros_like(level) + end for end in self._reach(S, V))

        def gap(x: Array) -> Array:
            """Positive where x lies too far to the right."""
            down, up = self._log_cdf(x[..., None], False), self._log_cdf(x[..., None], True)
            return xp.where(upper, level - up, down - level)

        width = high - low
        for _ in range(60):  # a point further out than the reach widens the bracket
            low_bad, high_bad = gap(low) > 0, gap(high) < 0
            if not bool(xp.any(low_bad | high_bad)):
                break
            low, high = xp.where(low_bad, low - width, low), xp.where(high_bad, high + width, high)
            width = 2 * width
        if not self.noise.shape and int(np.prod(level.shape)) > 64:
            low, high = self._narrowed(low, high, level, upper)
        smooth = not self._zero_width() or bool(xp.all(V > 0))
        x = low + 0.5 * (high - low)
        for _ in range(100):
            off = gap(x)
            low, high = xp.where(off < 0, x, low), xp.where(off < 0, high, x)
            solved = xp.abs(off) <= 1e-15 * (1 + xp.abs(level))
            tight = high - low <= 4e-16 * xp.maximum(xp.abs(low), xp.abs(high))
            if bool(xp.all(solved | tight)):
                break
            x, before = low + 0.5 * (high - low), x
            if smooth:
                tail = xp.where(upper, level - off, level + off)
                slope = xp.exp(self.log_prob(before[..., None]) - tail)
                good = (slope > 0) & (slope < math.inf)
                newton = before - off / xp.where(good, slope, xp.ones_like(slope))
                x = xp.where(good & (newton > low) & (newton < high), newton, x)
            x = xp.where(solved, before, x)
        return x[..., None]

    def _narrowed(self, low: Array, high: Array, level: Array, upper: Array) -> tuple[Array, Array]:
        """Brackets from a table of the cdf, which spares many points most of their halvings."""
        grid = np.linspace(float(numpy(low).min()), float(numpy(high).max()), 4097)
        down, up = (self._log_cdf(grid[:, None], upper=side) for side in (False, True))
        wanted, above = numpy(level), numpy(upper)
        i = np.where(above, np.searchsorted(-up, -wanted), np.searchsorted(down, wanted))
        i = np.clip(i, 1, len(grid) - 1)
        return like(grid[i - 1], low), like(grid[i], low)

    def _line(self) -> int:
        if self.dim != 1:
            raise ArgumentError("target", "have D = 1 for a cdf", f"D = {self.dim}")
        return 1

    # ---- noise

    def _noise_like(self, x: Array) -> tuple[Array, Array]:
        return like(self.noise.scale, x), like(self.noise.var, x)

    def _single_noise(self) -> tuple[float, float]:
        if self.noise.shape:
            raise ArgumentError("noise", "be one transition here", f"a batch {self.noise.shape}")
        return float(self.noise.scale), float(self.noise.var)

    def _require_density(self, V: Array) -> None:
        if not self._zero_width() or is_traced(V):
            return
        if bool(np.any(numpy(V) <= 0)):
            raise ArgumentError(
                "noise variance", "be positive for a law without width to have a density", 0.0
            )

    def __repr__(self) -> str:
        S, V = self.noise.scale, self.noise.var
        noise = (
            f"scale={S:.4g}, var={V:.4g}" if not self.noise.shape else f"batch {self.noise.shape}"
        )
        return f"{type(self).__name__}(D={self.dim}, components={self._count}, {noise})"


def _average(r: Array, values: Array) -> Array:
    """sum_k r_k values_k: (n, K), (n, K, D) -> (n, D)."""
    return namespace(values).sum(r[..., None] * values, axis=-2)


def _total(r: Array, values: Array, covs: Array) -> Array:
    """The law of total variance: sum_k r_k (covs_k + (values_k - mean)(values_k - mean)^T)."""
    xp = namespace(values)
    off = values - _average(r, values)[:, None, :]
    spread = off[..., :, None] * off[..., None, :]
    return xp.sum(r[..., None, None] * (covs + spread), axis=1)


def _nonzero(a: Array) -> Array:
    if isinstance(a, float):
        return a or 1.0
    xp = namespace(a)
    return xp.where(a != 0, a, xp.ones_like(a))


def _ratio(a: Array, b: Array, otherwise: Array) -> Array:
    """a / b, and `otherwise` where b is 0."""
    if isinstance(b, float):
        return a / b if b else otherwise
    xp = namespace(b)
    return xp.where(b != 0, a / _nonzero(b), otherwise)


def over(a: Array) -> Array:
    """(n, 1) noise beside (n, K, D) components: (n, 1, 1)."""
    return a[..., None] if getattr(a, "ndim", 0) else a


def log_weights(w: Array) -> Array:
    """log w, with -1e37 for a weight of 0, so that nothing turns NaN."""
    xp = namespace(w)
    positive = w > 0
    return xp.where(
        positive, xp.log(xp.where(positive, w, xp.ones_like(w))), xp.full_like(w, -1e37)
    )
