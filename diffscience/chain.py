"""The discrete chain of denoising diffusion probabilistic models (Ho et al. 2020).

    X_k = sqrt(1 - beta_k) X_(k-1) + sqrt(beta_k) Z_k,   k = 1 ... K
    alpha(k)^2 = abar_k = product of (1 - beta_i) over i <= k,   var(k) = 1 - abar_k

A `Process` whose times are the integers 0 (data) to K: `at` and `between` are the same two methods.
Products are kept as sums of log(1 - beta), so that var keeps its digits for small beta and long
chains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from .arrays import Array, finite, is_traced, like, namespace, numpy
from .errors import ArgumentError, instance, number, whole
from .process import Cosine, Process, _answer, _shown


@dataclass(frozen=True, eq=False, repr=False)
class Chain(Process):
    """The discrete chain of Ho et al. 2020: X_k = sqrt(1 - beta_k) X_(k-1) + sqrt(beta_k) Z_k.

    alpha(k) = sqrt(prod_(i <= k) (1 - beta_i)),  var(k) = 1 - alpha(k)^2,  k = 0 ... K

    Parameters
    ----------
    betas : (K,) numbers strictly between 0 and 1; beta_1 comes first.

    The times are the integers 0 (data) to K; there is no drift, diffusion or velocity.

    >>> chain = Chain.linear(1000, 1e-4, 0.02)
    >>> chain.K, bool(chain.var(1000) > 0.9999)
    (1000, True)
    """

    betas: Any = field()
    DISCRETE: ClassVar[bool] = True

    def __post_init__(self) -> None:
        betas = numpy(finite("betas", self.betas, (None,)))
        if betas.size == 0:
            raise ArgumentError("betas", "hold at least one step", "an empty array")
        wrong = (betas <= 0) | (betas >= 1)
        if wrong.any():
            k = int(np.argmax(wrong))
            raise ArgumentError("betas", "lie in (0, 1)", f"beta_{k + 1} = {betas[k]}")
        object.__setattr__(self, "betas", betas)
        object.__setattr__(self, "T", float(betas.size))
        # log of the cumulated product: sums keep the digits that 1 - product would lose.
        object.__setattr__(self, "_log", np.concatenate([[0.0], np.cumsum(np.log1p(-betas))]))

    def __repr__(self) -> str:
        b = self.betas
        return f"Chain(K={self.K}, betas {b[0]:.4g} to {b[-1]:.4g})"

    @property
    def K(self) -> int:
        """The number of steps."""
        return int(self.T)

    @classmethod
    def linear(cls, K: int, beta_1: float = 1e-4, beta_K: float = 0.02) -> Chain:
        """beta_k evenly spaced from beta_1 to beta_K (Ho et al. 2020, section 4)."""
        number("beta_1", beta_1)
        number("beta_K", beta_K)
        return cls(np.linspace(beta_1, beta_K, _steps(K)))

    @classmethod
    def cosine(cls, K: int, s: float = 0.008, beta_max: float = 0.999) -> Chain:
        """beta_k = min(1 - abar_k / abar_(k-1), beta_max), abar the squared alpha of `Cosine(s)`.

        Nichol and Dhariwal 2021, eq. 17.
        """
        number("beta_max", beta_max, 0, 1, "()")
        return cls.of(Cosine(s), np.arange(_steps(K) + 1) / K, beta_max)

    @classmethod
    def sigmoid(
        cls, K: int, beta_1: float = 1e-4, beta_K: float = 0.02, reach: float = 6.0
    ) -> Chain:
        """beta_k = beta_1 + (beta_K - beta_1) / (1 + exp(-u_k)), u_k even in [-reach, reach].

        The chain of the process `Sigmoid` is another one: `Chain.of(Sigmoid(), times, 0.999)`.
        """
        for name, value in (("beta_1", beta_1), ("beta_K", beta_K), ("reach", reach)):
            number(name, value)
        u = np.linspace(-reach, reach, _steps(K))
        return cls(beta_1 + (beta_K - beta_1) / (1 + np.exp(-u)))

    @classmethod
    def polynomial(cls, K: int, power: int = 5, top: float = 0.75) -> Chain:
        """beta_k = top b^p (2 - b) / (m^p (2 - m)),  b = m k/(K + 1),  m = 2p/(p + 1).

        The schedule of the second run of the note "ddpm" (R. Rosa, random_notes, CC BY 4.0).
        """
        number("power", power, 0, ends="()")
        number("top", top, 0, ends="()")
        m = 2 * power / (power + 1)
        b = np.arange(1, _steps(K) + 1) * (m / (K + 1))
        return cls(top * b**power * (2 - b) / (m**power * (2 - m)))

    @classmethod
    def of(cls, process: Process, times: Array, beta_max: float = 1.0) -> Chain:
        """A variance-preserving process looked at on a grid 0 = t_0 < ... < t_K.

        beta_max : a ceiling on beta, below 1 where alpha(t_K) = 0, whose beta_K would be 1.

        Raises ArgumentError where the process does not preserve variance: no betas describe it.

        >>> from diffscience import Polynomial
        >>> Chain.of(Polynomial(), [0.0, 0.5, 1.0], 0.999).betas.tolist()
        [0.4375, 0.999]
        """
        number("beta_max", beta_max, 0, 1, "(]")
        instance("process", process, Process)
        t = numpy(finite("times", times, (None,)))
        # At the times: what rounding leaves of a step is large beside steps of 1e-5.
        if not np.allclose(process.alpha(t) ** 2 + process.var(t), 1.0, rtol=0, atol=1e-12):
            raise ArgumentError("process", "preserve variance", process)
        return cls(np.minimum(process.between(t[:-1], t[1:]).var, beta_max))

    def _times(self, name: str, t: Array) -> Array:
        times = super()._times(name, t)
        xp = namespace(times)
        if not is_traced(times) and bool(xp.any(xp.round(times) != times)):
            raise ArgumentError(name, f"be a whole number of steps of {self!r}", _shown(times))
        return times

    def variances(self, mix: float = 0.0) -> np.ndarray:
        """s_k^2 for k = 1..K, (K,): log s_k^2 = mix log beta_k + (1 - mix) log btilde_k.

        btilde_k = beta_k var(k - 1)/var(k) is the variance of q(x_(k-1) | x_k, x0); btilde_1 = 0 is
        replaced by btilde_2 (Nichol and Dhariwal 2021, section 3.1).

        >>> bool(np.allclose(Chain.linear(10).variances(1.0), Chain.linear(10).betas))
        True
        """
        number("mix", mix, 0, 1)
        k = np.arange(1, self.K + 1)
        small = self.betas * self.var(k - 1) / self.var(k)
        small[0] = small[1] if self.K > 1 else self.betas[0]
        return self.betas**mix * small ** (1 - mix)

    def entry(self, table: np.ndarray, k: Array) -> Array:
        """table[k] for the times k (*b) in 0..K, in float64 beside them."""
        xp = namespace(k)
        index = xp.reshape(xp.astype(k, xp.int64), (-1,))
        return xp.reshape(xp.take(like(table, k), index, axis=0), k.shape)

    def _sum(self, k: Array) -> Array:
        # _log is set for the frozen dataclass by object.__setattr__, which types do not see.
        return self.entry(self._log, k)  # type: ignore[attr-defined]

    def _alpha(self, t: Array) -> Array:
        return namespace(t).exp(0.5 * self._sum(t))

    def _var(self, t: Array) -> Array:
        return 0.0 - namespace(t).expm1(self._sum(t))

    def _gap(self, s: Array, t: Array) -> Array:
        return 0.0 - namespace(t).expm1(self._sum(t) - self._sum(s))

    def _dalpha(self, t: Array) -> Array:
        raise ArgumentError("process", "be continuous in time to have derivatives", self)

    _dvar = _dalpha

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The first k with log_snr(k) at or below each value (K where there is none)."""

        def search(wanted: Array) -> Array:
            xp = namespace(wanted)
            levels = like(self.log_snr(np.arange(1, self.K + 1)), wanted)
            passed = xp.sum(xp.astype(levels > wanted[..., None], xp.float64), axis=-1)
            return xp.where(passed + 1 > self.K, xp.full_like(passed, self.T), passed + 1)

        return _answer(search, finite("log_snr", log_snr), log_snr)


def _steps(K: int) -> int:
    whole("K", K, 1)
    return int(K)
