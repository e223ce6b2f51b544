"""Models: whatever answers x0, score, eps, v and velocity at (x, t); and the exact one.

For X_t = alpha X_0 + sigma Z with alpha, sigma^2 = var of the process at t:

    x0       = E[X_0 | X_t = x]
    score    = grad log p_t(x)                      = (alpha x0 - x) / sigma^2
    eps      = E[Z | X_t = x]                       = -sigma score
    v        = alpha eps - sigma x0                 (Salimans and Ho 2022)
    velocity = alpha' x0 - (sigma^2)'/2 score       (probability flow; = E[dX_t/dt | x])

Each is a linear function of x and any one of the others, but neither x0 nor the score is a safe
currency in float32 at both ends of time, so an `Oracle` computes each answer directly. Everything
downstream takes a `Model` and cannot tell which kind it got.

Run backwards in time, the process has the law of its forward path at every noise level eta >= 0:

    dX = drift dt + eta g dW,   drift = velocity - eta^2 g^2/2 score
    eta = 0 the probability flow, eta = 1 the time reversal of Anderson 1982     (Song et al. 2021)

Conventions: x (*b, D); t a number or an array (*b) that pairs with the points row by row.
"""

from __future__ import annotations

import math
from typing import Any

from .arrays import Array, finite, like, namespace, points, wide
from .errors import ArgumentError, instance
from .process import Process
from .targets import Target
from .transition import Transition


class Model:
    """A process and the five answers. Abstract: see `Oracle` and `Network`."""

    process: Process

    @property
    def members(self) -> int | None:
        """S where the rows belong to S models in blocks, as over an `ensembles.Ensemble`."""
        return None

    def x0(self, x: Array, t: Array) -> Array:
        """The denoised point E[X_0 | X_t = x], (*b, D)."""
        raise NotImplementedError

    def score(self, x: Array, t: Array) -> Array:
        """The gradient of log p_t, (*b, D)."""
        raise NotImplementedError

    def eps(self, x: Array, t: Array) -> Array:
        """The expected noise E[Z | X_t = x], (*b, D)."""
        raise NotImplementedError

    def v(self, x: Array, t: Array) -> Array:
        """alpha eps - sigma x0, (*b, D)."""
        raise NotImplementedError

    def velocity(self, x: Array, t: Array) -> Array:
        """The drift of the probability flow dx/dt, (*b, D)."""
        raise NotImplementedError

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """velocity - eta^2 g^2/2 score, the drift of the reverse SDE of noise level eta, (*b, D).

        Kinds that can do so answer with one evaluation.
        """
        velocity = self.velocity(x, t)
        if eta == 0:
            return velocity
        half = 0.5 * eta * eta * _column(_exact(self.process.diffusion, t), velocity) ** 2
        value = wide(velocity) - half * wide(self.score(x, t))
        return namespace(velocity).astype(value, velocity.dtype, copy=False)


class Counted(Model):
    """A model that counts how often it was asked, and for how many points in all.

    >>> import diffscience as ds
    >>> model = Counted(Oracle(ds.gallery.julia_bimodal(), ds.VP()))
    >>> _ = model.score([[0.0], [1.0]], 0.5), model.drift([[0.0]], 0.5)
    >>> model.calls, model.points
    (2, 3)
    """

    def __init__(self, model: Model) -> None:
        instance("model", model, Model)
        self.model, self.process = model, model.process
        self.calls, self.points = 0, 0

    @property
    def members(self) -> int | None:
        """Those of the model."""
        return self.model.members

    def _ask(self, name: str, x: Array, *rest: Any) -> Array:
        value = getattr(self.model, name)(x, *rest)
        self.calls += 1
        self.points += math.prod(value.shape[:-1])
        return value

    def x0(self, x: Array, t: Array) -> Array:
        """The model's x0, counted."""
        return self._ask("x0", x, t)

    def score(self, x: Array, t: Array) -> Array:
        """The model's score, counted."""
        return self._ask("score", x, t)

    def eps(self, x: Array, t: Array) -> Array:
        """The model's eps, counted."""
        return self._ask("eps", x, t)

    def v(self, x: Array, t: Array) -> Array:
        """The model's v, counted."""
        return self._ask("v", x, t)

    def velocity(self, x: Array, t: Array) -> Array:
        """The model's velocity, counted."""
        return self._ask("velocity", x, t)

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """The model's drift, counted once."""
        return self._ask("drift", x, t, eta)


class Oracle(Model):
    """The exact model of a target under a process.

    Parameters
    ----------
    law : the law of the data, any `Target`.
    process : any `Process`; a discrete `Chain` has no velocity.

    Examples
    --------
    >>> import diffscience as ds
    >>> oracle = Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> float(oracle.x0([3.0], 0.0)[0])
    3.0
    """

    def __init__(self, law: Target, process: Process) -> None:
        instance("law", law, Target)
        instance("process", process, Process)
        self.law, self.process = law, process

    def at(self, t: Array) -> Target:
        """The law of X_t, a target of the same kind."""
        return self.law.diffuse(self.process.at(t))

    def log_prob(self, x: Array, t: Array) -> Array:
        """log p_t(x), (*b)."""
        return self.at(t).log_prob(x)

    def score(self, x: Array, t: Array) -> Array:
        """The gradient of log p_t, (*b, D)."""
        return self.at(t).score(x)

    def x0(self, x: Array, t: Array) -> Array:
        """E[X_0 | X_t = x], (*b, D)."""
        return self.law.denoise(x, self.process.at(t))

    def eps(self, x: Array, t: Array) -> Array:
        """E[Z | X_t = x] = -sigma score, (*b, D)."""
        score = self.score(x, t)
        xp = namespace(score)
        sigma = xp.sqrt(_column(self.process.at(t).var, score))
        return xp.astype(-sigma * wide(score), score.dtype, copy=False)

    def v(self, x: Array, t: Array) -> Array:
        """alpha eps - sigma x0, (*b, D)."""
        score, x0 = self.score(x, t), self.x0(x, t)
        xp, step = namespace(score), self.process.at(t)
        alpha, sigma = _column(step.scale, score), xp.sqrt(_column(step.var, score))
        return xp.astype(-sigma * (alpha * wide(score) + wide(x0)), score.dtype, copy=False)

    def velocity(self, x: Array, t: Array) -> Array:
        """alpha' x0 - (sigma^2)'/2 score, (*b, D); needs no division and is accurate to t = 0."""
        return self.drift(x, t, 0.0)

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """alpha' x0 - ((sigma^2)' + eta^2 g^2)/2 score, (*b, D), with one evaluation at one t."""
        process, step = self.process, self.process.at(t)
        if step.shape or not isinstance(step.scale, float) or not isinstance(step.var, float):
            return self._drift_by_rows(x, t, eta)
        slope, growth = float(process.dalpha(t)), 0.5 * float(process.dvar(t))
        if eta:
            growth += 0.5 * (eta * float(process.diffusion(t))) ** 2
        return self.law.combined(x, step, slope, -growth)

    def _drift_by_rows(self, x: Array, t: Array, eta: float) -> Array:
        """The same with a time for each row."""
        process, score, x0 = self.process, self.score(x, t), self.x0(x, t)
        slope, growth = (_column(_exact(d, t), score) for d in (process.dalpha, process.dvar))
        if eta:
            growth = growth + eta * eta * _column(_exact(process.diffusion, t), score) ** 2
        value = slope * wide(x0) - 0.5 * growth * wide(score)
        return namespace(score).astype(value, score.dtype, copy=False)

    def posterior(self, x: Array, t: Array) -> Target:
        """The law of X_0 given X_t = x, for one point x (D,) and a Gaussian mixture."""
        from .mixture import GaussianMixture

        if not isinstance(self.law, GaussianMixture):
            raise ArgumentError("law", "be a Gaussian mixture to have a posterior", self.law)
        return self.law.condition(x, self.process.at(t))

    def posterior_cov(self, x: Array, t: Array) -> Array:
        """Cov[X_0 | X_t = x], (*b, D, D)."""
        return self.law.posterior_cov(x, self.process.at(t))

    def flow(self, x: Array, s: Array, t: Array) -> Array:
        """The probability flow from time s to time t, exactly, for D = 1: F_t^-1(F_s(x)).

        x (*b, 1) -> (*b, 1), either direction of time; the tail that is matched is the smaller one,
        so that far points keep their digits.
        """
        x = points(x, self.law._line())
        start, end = self.at(s), self.at(t)
        wide_x = wide(x)
        down, up = start._log_cdf(wide_x, upper=False), start._log_cdf(wide_x, upper=True)
        xp = namespace(x)
        moved = end._invert(xp.minimum(down, up), up < down)
        return xp.astype(moved, x.dtype, copy=False)


def _exact(formula: Any, t: Array) -> Array:
    """A derivative of the process in float64 whatever the dtype of t."""
    return formula(finite("t", t))


def _column(value: Array, x: Array) -> Array:
    """A coefficient (*b) as a column beside points (*b, D), in float64."""
    array = like(value, x)
    return array[..., None] if array.ndim else array


def coefficients(process: Process, x: Array, t: Array) -> tuple[Array, Array]:
    """alpha and var at t as columns beside x, in float64."""
    step: Transition = process.at(t)
    return _column(step.scale, x), _column(step.var, x)
