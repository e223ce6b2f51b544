"""Processes: paths in the monoid of Gaussian transitions.

    X_t = alpha(t) X_0 + sqrt(var(t)) Z
    at(t)         = (alpha(t), var(t))
    between(s, t) = (a, var(t) - a^2 var(s)),   a = alpha(t) / alpha(s),   s <= t
    at(s).then(between(s, t)) = at(t)

A continuous process declares alpha, var and their time derivatives; everything else is derived:

    dX = f(t) X dt + g(t) dW,   f = alpha' / alpha,   g^2 = var' - 2 f var
    log_snr(t) = log(alpha(t)^2 / var(t)),   decreasing in t
    time_of_log_snr(log_snr(t)) = t,         in closed form where a kind has one

Conventions: time runs from 0 (data) to `T` (noise), in the units of each process; a discrete chain
has the integers 0 ... K for times. Numbers in, floats out; arrays in, arrays out, on their device
and in their dtype (computed in float64). `between` is written without cancellation for every kind,
so that short steps keep their digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import array_api_compat
import numpy as np

from .arrays import Array, finite, is_traced, like, namespace, numpy, paired
from .errors import ArgumentError, number
from .transition import Transition


class Process:
    """A path of Gaussian transitions from data (t = 0) to noise (t = T). Abstract.

    A kind gives `_alpha`, `_var`, `_dalpha`, `_dvar` and `_gap` on float64 arrays of checked times.

    >>> isinstance(VP(), Process), VP().T
    (True, 1.0)
    """

    T: float = 1.0

    # ---- what a kind declares

    def _alpha(self, t: Array) -> Array:
        raise NotImplementedError

    def _var(self, t: Array) -> Array:
        raise NotImplementedError

    def _dalpha(self, t: Array) -> Array:
        raise NotImplementedError

    def _dvar(self, t: Array) -> Array:
        raise NotImplementedError

    def _gap(self, s: Array, t: Array) -> Array:
        """var(t) - (alpha(t) / alpha(s))^2 var(s), free of cancellation."""
        raise NotImplementedError

    def _time(self, log_snr: Array) -> Array:
        """The inverse of log_snr, unbounded where it leaves [0, T]; a kind may have a closed form.

        Here by bisection, exact to the last digits of float64: the bracket [0, T] is halved 130
        times, which leaves full relative precision down to t = T / 2^78.
        """
        xp = namespace(log_snr)
        low, high = xp.zeros_like(log_snr), xp.full_like(log_snr, self.T)
        for _ in range(130):
            middle = (low + high) / 2
            alpha = self._alpha(middle)
            early = _log(alpha * alpha) - _log(self._var(middle)) > log_snr
            low, high = xp.where(early, middle, low), xp.where(early, high, middle)
        return (low + high) / 2

    # ---- what follows

    def alpha(self, t: Array) -> Array:
        """The factor on the data, alpha(t); t in [0, T], shape kept."""
        return self._answer(self._alpha, t)

    def var(self, t: Array) -> Array:
        """The variance of the noise, var(t), in squared units of the data."""
        return self._answer(self._var, t)

    def dalpha(self, t: Array) -> Array:
        """The time derivative of alpha."""
        return self._answer(self._dalpha, t)

    def dvar(self, t: Array) -> Array:
        """The time derivative of var."""
        return self._answer(self._dvar, t)

    def drift(self, t: Array) -> Array:
        """f(t) = alpha'(t) / alpha(t), the linear drift of dX = f X dt + g dW."""
        return self._answer(lambda t: self._dalpha(t) / self._alpha(t), t)

    def diffusion(self, t: Array) -> Array:
        """g(t) >= 0 with g^2 = var' - 2 f var."""

        def g(t: Array) -> Array:
            xp = namespace(t)
            squared = self._dvar(t) - 2 * self._dalpha(t) / self._alpha(t) * self._var(t)
            return xp.sqrt(xp.where(squared > 0, squared, xp.zeros_like(squared)))

        return self._answer(g, t)

    def log_snr(self, t: Array) -> Array:
        """log(alpha(t)^2 / var(t)); +inf at t = 0 where var is 0, -inf where alpha is."""

        def ratio(t: Array) -> Array:
            alpha, var = self._alpha(t), self._var(t)
            return _log(alpha * alpha) - _log(var)

        return self._answer(ratio, t)

    def time_of_log_snr(self, log_snr: Array) -> Array:
        """The time t in [0, T] at which `log_snr(t)` takes the given values.

        Values above log_snr(0) give 0, values below log_snr(T) give T.
        """

        def solve(wanted: Array) -> Array:
            xp = namespace(wanted)
            t = xp.clip(self._time(xp.clip(wanted, -1400.0, 1400.0)), 0.0, self.T)
            # var/alpha^2 = e^1400 overflows: every process has come to its end before.
            return xp.where(wanted < -1400.0, xp.full_like(t, self.T), t)

        return _answer(solve, finite("log_snr", log_snr), log_snr)

    def at(self, t: Array) -> Transition:
        """The transition from time 0 to t; for t of shape (*b), one for each row."""
        times = self._times("t", t)
        scale, var = self._alpha(times), self._var(times)
        return Transition(float(scale), float(var)) if type(t) is float else Transition(scale, var)

    def between(self, s: Array, t: Array) -> Transition:
        """The transition from time s to time t, 0 <= s <= t <= T."""
        s, t = self._times("s", s), self._times("t", t)
        home = s if namespace(s, t) is namespace(s) else t
        s, t = like(s, home), like(t, home)
        paired("s", tuple(s.shape), tuple(t.shape))
        xp = namespace(home)
        if not is_traced(s) and not is_traced(t) and bool(xp.any(s > t)):
            raise ArgumentError("s", "be at most t", f"s = {_shown(s)}, t = {_shown(t)}")
        start = self._alpha(s)
        alive = start > 0  # a process may end with alpha = 0, where only the identity is left
        scale = xp.where(
            alive, self._alpha(t) / xp.where(alive, start, xp.ones_like(start)), xp.ones_like(start)
        )
        gap = xp.where(alive, self._gap(s, t), xp.zeros_like(start))
        return Transition(scale, xp.where(gap > 0, gap, xp.zeros_like(gap)))

    # ---- the door

    def _answer(self, formula: Callable[[Array], Array], t: Array) -> Array:
        return _answer(formula, self._times("t", t), t)

    def _times(self, name: str, t: Array) -> Array:
        """The times in float64, checked to lie in [0, T]."""
        if type(t) is float and 0 <= t <= self.T:
            return np.asarray(t)
        times = finite(name, t)
        xp = namespace(times)
        if not is_traced(times) and bool(xp.any((times < 0) | (times > self.T))):
            raise ArgumentError(
                name, f"lie in [0, {self.T:g}], the times of {self!r}", _shown(times)
            )
        return times


def _answer(formula: Callable[[Array], Array], wide_t: Array, t: Array) -> Array:
    """formula(t) in the dtype of the caller's t; a float for a number."""
    value = formula(wide_t)
    if type(t) is float:
        return float(value)
    if not array_api_compat.is_array_api_obj(t):
        return float(value) if value.ndim == 0 else value
    xp = namespace(t)
    floating = xp.isdtype(t.dtype, "real floating")
    return xp.astype(value, t.dtype if floating else xp.float64, copy=False)


def _log(x: Array) -> Array:
    xp = namespace(x)
    positive = x > 0
    return xp.where(
        positive, xp.log(xp.where(positive, x, xp.ones_like(x))), xp.full_like(x, -math.inf)
    )


def _shown(t: Array) -> str:
    values = np.unique(numpy(t))
    return str(values[0]) if values.size == 1 else f"values from {values[0]} to {values[-1]}"


def _one(process: Process, t: Array) -> Array:
    """alpha of the processes that leave the data where they are."""
    return 0.0 * t + 1.0


def _zero(process: Process, t: Array) -> Array:
    return 0.0 * t


@dataclass(frozen=True)
class VP(Process):
    """Variance-preserving process with linear beta (Song et al. 2021, eq. 32; T = 1).

    B(t) = beta_min t + (beta_max - beta_min) t^2 / 2,  alpha = exp(-B/2),  var = 1 - exp(-B)

    >>> VP().var(1.0) > 0.9999
    True
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        number("beta_min", self.beta_min, 0, ends="()")
        number("beta_max", self.beta_max, 0, ends="()")

    def _beta(self, t: Array) -> Array:
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def _integral(self, s: Array, t: Array) -> Array:
        """The integral of beta from s to t."""
        return (t - s) * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * (s + t))

    def _alpha(self, t: Array) -> Array:
        return namespace(t).exp(-0.5 * self._integral(0.0, t))

    def _var(self, t: Array) -> Array:
        return 0.0 - namespace(t).expm1(-self._integral(0.0, t))

    def _dalpha(self, t: Array) -> Array:
        return -0.5 * self._beta(t) * self._alpha(t)

    def _dvar(self, t: Array) -> Array:
        return self._beta(t) * namespace(t).exp(-self._integral(0.0, t))

    def _gap(self, s: Array, t: Array) -> Array:
        return 0.0 - namespace(t).expm1(-self._integral(s, t))

    def _time(self, log_snr: Array) -> Array:
        # var/alpha^2 = e^B - 1
        return self._time_of_integral(namespace(log_snr).logaddexp(0.0 * log_snr, -log_snr))

    def _time_of_integral(self, B: Array) -> Array:
        """t with B(t) = B, the root of a quadratic without cancellation."""
        slope = 2 * (self.beta_max - self.beta_min)
        root = self.beta_min**2 + slope * B
        # A beta that falls to below 0 after T has no root there: T is as good.
        xp = namespace(B)
        root = xp.sqrt(xp.where(root > 0, root, xp.zeros_like(root)))
        return 2 * B / (self.beta_min + root)


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP process (Song et al. 2021, eq. 29): alpha of `VP`, var = (1 - exp(-B(t)))^2.

    >>> process = SubVP()
    >>> round(process.alpha(1.0), 6), round(process.var(1.0), 6)
    (0.006572, 0.999914)
    """

    def _var(self, t: Array) -> Array:
        return super()._var(t) ** 2

    def _dvar(self, t: Array) -> Array:
        return 2 * VP._var(self, t) * VP._dvar(self, t)

    def _gap(self, s: Array, t: Array) -> Array:
        # (1 - e^-Bt)^2 - q^2 (1 - e^-Bs)^2 as a product of sum and difference, q = e^-(Bt-Bs)/2.
        xp = namespace(t)
        half = 0.5 * self._integral(s, t)
        q, keep = xp.exp(-half), xp.exp(-self._integral(0.0, s))
        difference = -xp.expm1(-half) * (1 + keep * q)
        return difference * (VP._var(self, t) + q * VP._var(self, s))

    def _time(self, log_snr: Array) -> Array:
        # sqrt(var)/alpha = 2 sinh(B/2)
        xp = namespace(log_snr)
        return self._time_of_integral(2 * xp.asinh(0.5 * xp.exp(-0.5 * log_snr)))


@dataclass(frozen=True)
class Cosine(Process):
    """Cosine process (Nichol and Dhariwal 2021, eq. 17, in continuous time; T = 1).

    theta(t) = (t + s)/(1 + s) pi/2,  alpha = cos theta(t) / cos theta(0),  var = 1 - alpha^2

    >>> process = Cosine()
    >>> round(process.alpha(0.5), 6), round(process.var(0.5), 6)
    (0.70274, 0.506156)
    """

    s: float = 0.008

    def __post_init__(self) -> None:
        number("s", self.s, 0)

    @property
    def _speed(self) -> float:
        return 0.5 * math.pi / (1 + self.s)

    def _alpha(self, t: Array) -> Array:
        # cos theta(t) as the sine of the angle that is left, which is 0 and not 6e-17 at t = 1.
        return namespace(t).sin(self._speed * (1 - t)) / math.cos(self._speed * self.s)

    def _var(self, t: Array) -> Array:
        return self._gap(0.0 * t, t)

    def _dalpha(self, t: Array) -> Array:
        return (
            -self._speed * namespace(t).cos(self._speed * (1 - t)) / math.cos(self._speed * self.s)
        )

    def _dvar(self, t: Array) -> Array:
        return -2 * self._alpha(t) * self._dalpha(t)

    def _gap(self, s: Array, t: Array) -> Array:
        # cos^2 a - cos^2 b = sin(b - a) sin(b + a)
        xp = namespace(t)
        start = xp.sin(self._speed * (1 - s))
        angle = self._speed * (s + t + 2 * self.s)
        return xp.sin(self._speed * (t - s)) * xp.sin(angle) / (start * start)

    def _time(self, log_snr: Array) -> Array:
        # With d = theta(t) - theta(0), A = 2 theta(0): sin d sin(d + A) = c = cos^2 theta(0) var,
        # a quadratic in tan d, whose root loses digits only where alpha is the small one.
        xp, start, A = namespace(log_snr), math.cos(self._speed * self.s), 2 * self._speed * self.s
        zero = 0.0 * log_snr
        early = log_snr > 0
        var = xp.exp(-xp.logaddexp(zero, xp.clip(log_snr, 0.0, 700.0)))
        c, alpha = start**2 * var, xp.exp(-0.5 * xp.logaddexp(zero, -log_snr))
        tangent = 2 * c / (math.sin(A) + xp.sqrt(math.sin(A) ** 2 + 4 * c * (math.cos(A) - c)))
        late = 1 - xp.asin(start * alpha) / self._speed
        return xp.where(early, xp.atan(tangent) / self._speed, late)


@dataclass(frozen=True)
class VE(Process):
    """Variance-exploding process with g(t) = sigma^t (Song et al. 2021's tutorial; T = 1).

    alpha = 1,  var = (sigma^(2t) - 1) / (2 log sigma),  sigma > 0 and not 1

    >>> process = VE()
    >>> round(process.alpha(1.0), 6), round(process.var(1.0), 6)
    (1.0, 96.92825)
    """

    sigma: float = 25.0

    def __post_init__(self) -> None:
        number("sigma", self.sigma, 0, ends="()")
        if self.sigma == 1:
            raise ArgumentError("sigma", "differ from 1, where g is constant", self.sigma)

    _alpha, _dalpha = _one, _zero

    def _var(self, t: Array) -> Array:
        return self._gap(0.0 * t, t)

    def _dvar(self, t: Array) -> Array:
        return namespace(t).exp(2 * math.log(self.sigma) * t)

    def _gap(self, s: Array, t: Array) -> Array:
        xp, rate = namespace(t), 2 * math.log(self.sigma)
        return xp.exp(rate * s) * xp.expm1(rate * (t - s)) / rate

    def _time(self, log_snr: Array) -> Array:
        xp, rate = namespace(log_snr), 2 * math.log(self.sigma)
        grown = rate * xp.exp(-xp.clip(log_snr, -700.0, 1400.0))
        # sigma < 1: the variance stays below -1/rate.
        return xp.log1p(xp.clip(grown, 2.0**-53 - 1, None)) / rate


@dataclass(frozen=True)
class VEGeometric(Process):
    """Variance-exploding process with geometric levels, started at the data (T = 1).

    alpha = 1,  var = sigma_min^2 ((sigma_max/sigma_min)^(2t) - 1)

    The offset -1 makes the kernel agree with its own SDE; without it (Song et al. 2021, eq. 31) the
    variance at t = 0 is sigma_min^2 instead of 0.

    >>> process = VEGeometric()
    >>> round(process.alpha(1.0), 6), round(process.var(1.0), 6)
    (1.0, 2499.9999)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        number("sigma_min", self.sigma_min, 0, ends="()")
        number("sigma_max", self.sigma_max, 0, ends="()")
        if self.sigma_max <= self.sigma_min:
            raise ArgumentError("sigma_max", f"exceed sigma_min = {self.sigma_min}", self.sigma_max)

    @property
    def _rate(self) -> float:
        return 2 * math.log(self.sigma_max / self.sigma_min)

    _alpha, _dalpha = _one, _zero

    def _var(self, t: Array) -> Array:
        return self._gap(0.0 * t, t)

    def _dvar(self, t: Array) -> Array:
        return self.sigma_min**2 * self._rate * namespace(t).exp(self._rate * t)

    def _gap(self, s: Array, t: Array) -> Array:
        xp = namespace(t)
        return self.sigma_min**2 * xp.exp(self._rate * s) * xp.expm1(self._rate * (t - s))

    def _time(self, log_snr: Array) -> Array:
        xp = namespace(log_snr)
        return xp.logaddexp(0.0 * log_snr, -log_snr - 2 * math.log(self.sigma_min)) / self._rate


@dataclass(frozen=True)
class EDM(Process):
    """The process of Karras et al. 2022: alpha = 1, var = t^2, time is the noise level (T = 80).

    >>> process = EDM()
    >>> round(process.alpha(3.0), 6), round(process.var(3.0), 6)
    (1.0, 9.0)
    """

    T: float = 80.0

    def __post_init__(self) -> None:
        number("T", self.T, 0, ends="()")

    _alpha, _dalpha = _one, _zero

    def _var(self, t: Array) -> Array:
        return t * t

    def _dvar(self, t: Array) -> Array:
        return 2 * t

    def _gap(self, s: Array, t: Array) -> Array:
        return (t - s) * (t + s)

    def _time(self, log_snr: Array) -> Array:
        return namespace(log_snr).exp(-0.5 * log_snr)


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """Straight paths X_t = (1 - t) X_0 + t Z (Liu et al. 2023; Lipman et al. 2023; T = 1).

    >>> process = RectifiedFlow()
    >>> round(process.alpha(0.25), 6), round(process.var(0.25), 6)
    (0.75, 0.0625)
    """

    def _alpha(self, t: Array) -> Array:
        return 1 - t

    def _dalpha(self, t: Array) -> Array:
        return 0.0 * t - 1.0

    def _var(self, t: Array) -> Array:
        return t * t

    def _dvar(self, t: Array) -> Array:
        return 2 * t

    def _gap(self, s: Array, t: Array) -> Array:
        xp = namespace(t)
        left = xp.where(s < 1, 1 - s, xp.ones_like(1 - s))
        return (t - s) * (t + s - 2 * s * t) / (left * left)

    def _time(self, log_snr: Array) -> Array:
        # t/(1 - t) = e^(-log_snr/2)
        return 1 / (1 + namespace(log_snr).exp(0.5 * log_snr))


@dataclass(frozen=True)
class Sigmoid(Process):
    """Variance-preserving process whose alpha^2 falls along a sigmoid (Jabri et al. 2022; T = 1).

    alpha^2 = (S(u(1)) - S(u(t)))/(S(u(1)) - S(u(0))),  var = 1 - alpha^2,
    u(t) = (start + (end - start) t)/tau,  S(u) = 1/(1 + e^-u)

    Their figure 8 and algorithm 1 of Chen 2023, without the floor of 1e-9 that both put under
    alpha^2: alpha is 0 at T, where its slope is infinite. `Chain.sigmoid` is another one: its betas
    follow a sigmoid.

    >>> process = Sigmoid()
    >>> round(process.alpha(0.5), 6), round(process.var(0.5), 6)
    (0.707107, 0.5)
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        number("tau", self.tau, 0, ends="()")
        number("start", self.start, -100 * self.tau, 100 * self.tau)
        number("end", self.end, -100 * self.tau, 100 * self.tau)
        if self.end <= self.start:
            raise ArgumentError("end", f"exceed start = {self.start}", self.end)

    @property
    def _speed(self) -> float:
        return (self.end - self.start) / self.tau

    def _u(self, t: Array) -> Array:
        return self.start / self.tau + self._speed * t

    def _fall(self, s: Array, t: Array) -> Array:
        """S(u(t)) - S(u(s)), free of cancellation."""
        xp = namespace(s + t)
        cosines = xp.cosh(0.5 * self._u(s + 0.0 * t)) * xp.cosh(0.5 * self._u(t + 0.0 * s))
        return 0.5 * xp.sinh(0.5 * self._speed * (t - s)) / cosines

    @property
    def _whole(self) -> float:
        low, high = self._u(0.0), self._u(1.0)
        return 0.5 * math.sinh(0.5 * (high - low)) / math.cosh(0.5 * low) / math.cosh(0.5 * high)

    def _alpha(self, t: Array) -> Array:
        xp, var = namespace(t), self._var(t)  # 1 - var is 1 at t = 0, to the last digit
        return xp.sqrt(xp.where(var < 0.5, 1 - var, self._fall(t, 1.0) / self._whole))

    def _var(self, t: Array) -> Array:
        return self._fall(0.0, t) / self._whole

    def _dalpha(self, t: Array) -> Array:
        xp, alpha = namespace(t), self._alpha(t)
        safe = xp.where(alpha > 0, alpha, xp.ones_like(alpha))
        slope = -0.5 * self._dvar(t) / safe
        return xp.where(alpha > 0, slope, xp.full_like(slope, -math.inf))

    def _dvar(self, t: Array) -> Array:
        return 0.25 * self._speed / namespace(t).cosh(0.5 * self._u(t)) ** 2 / self._whole

    def _gap(self, s: Array, t: Array) -> Array:
        # 1 - alpha(t)^2/alpha(s)^2
        xp, left = namespace(t), self._fall(s, 1.0)
        return self._fall(s, t) / xp.where(left > 0, left, xp.ones_like(left))

    def _time(self, log_snr: Array) -> Array:
        # u(t) = logit(S(u(0)) + var (S(u(1)) - S(u(0)))), as a step from whichever end is nearer.
        xp, zero = namespace(log_snr), 0.0 * log_snr

        def step(edge: float, share: Array) -> Array:
            rise = share * self._whole
            here, rest = 1 / (1 + math.exp(-edge)), 1 / (1 + math.exp(edge))
            return (xp.log1p(rise / here) - xp.log1p(-rise / rest)) / self._speed

        var, left = (xp.exp(-xp.logaddexp(zero, sign * log_snr)) for sign in (1, -1))
        early = log_snr > 0
        half = xp.full_like(var, 0.5)
        first = step(self._u(0.0), xp.where(early, var, half))
        last = step(-self._u(1.0), xp.where(early, half, left))
        return xp.where(early, first, 1 - last)


@dataclass(frozen=True)
class Polynomial(Process):
    """Variance-preserving process with alpha = 1 - t^power (Hoogeboom et al. 2022; T = 1).

    var = t^power (2 - t^power); power >= 1, 2 in their appendix B, whose offset s of 1e-5 at both
    ends is left out. `Chain.polynomial` is another one: its betas follow a polynomial.

    >>> process = Polynomial()
    >>> round(process.alpha(0.5), 6), round(process.var(0.5), 6)
    (0.75, 0.4375)
    """

    power: float = 2.0

    def __post_init__(self) -> None:
        number("power", self.power, 1)

    def _rise(self, s: Array, t: Array) -> Array:
        """t^power - s^power for s <= t, free of cancellation."""
        xp, zero = namespace(t), 0.0 * t
        gap = (t - s) / xp.where(t > 0, t, 1.0 + zero)
        near = gap < 0.5
        close = -xp.expm1(self.power * xp.log1p(xp.where(near, -gap, zero)))
        return t**self.power * xp.where(near, close, 1 - (1 - gap) ** self.power)

    def _alpha(self, t: Array) -> Array:
        return self._rise(t, 0.0 * t + 1.0)

    def _var(self, t: Array) -> Array:
        return t**self.power * (1 + self._alpha(t))

    def _dalpha(self, t: Array) -> Array:
        return -self.power * t ** (self.power - 1)

    def _dvar(self, t: Array) -> Array:
        return -2 * self._dalpha(t) * self._alpha(t)

    def _gap(self, s: Array, t: Array) -> Array:
        # 1 - alpha(t)^2/alpha(s)^2 as a product of difference and sum
        xp, start = namespace(t), self._alpha(s)
        safe = xp.where(start > 0, start, xp.ones_like(start))
        return self._rise(s, t) * (start + self._alpha(t)) / (safe * safe)

    def _time(self, log_snr: Array) -> Array:
        # t^power = 1 - alpha = var/(1 + alpha)
        xp, zero = namespace(log_snr), 0.0 * log_snr
        var = xp.exp(-xp.logaddexp(zero, log_snr))
        alpha = xp.exp(-0.5 * xp.logaddexp(zero, -log_snr))
        return (var / (1 + alpha)) ** (1 / self.power)
