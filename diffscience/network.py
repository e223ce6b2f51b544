"""Learned models: a network, what it predicts, and the other four answers that follow from it.

With a = alpha, s^2 = var at t, and x = a x0 + s eps, each prediction fixes the pair (x0, eps):

    eps       x0 = (x - s eps)/a
    x0        eps = (x - a x0)/s
    score     eps = -s score,  x0 = (x + s^2 score)/a
    v         v = a eps - s x0:
              x0 = (a x - s v)/(a^2 + s^2),  eps = (s x + a v)/(a^2 + s^2)
    velocity  u = a' x0 + (s^2)'/(2s) eps:
              x0 = (x (s^2)'/2 - s^2 u)/q,  eps = s (a u - a' x)/q,  q = a (s^2)'/2 - s^2 a'

(eps: Ho et al. 2020; v: Salimans and Ho 2022; velocity: Lipman et al. 2023.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import torch

from .arrays import Array, finite, is_torch, numpy, paired, points
from .errors import ArgumentError, function, instance
from .models import Model
from .process import Process


@dataclass(frozen=True)
class Coefficients:
    """alpha, sigma, var and the derivatives alpha', (sigma^2)' at t, as columns beside x."""

    process: Process
    x: Array
    t: Array

    def _column(self, formula: Callable[[Array], Array]) -> Array:
        t = self.t if is_torch(self.t) else torch.as_tensor(self.t, dtype=torch.float64)
        value = formula(t.to(torch.float64)).to(device=self.x.device, dtype=self.x.dtype)
        return value[..., None] if value.ndim else value

    @property
    def alpha(self) -> Array:
        """alpha(t)."""
        return self._column(self.process.alpha)

    @property
    def var(self) -> Array:
        """sigma(t)^2."""
        return self._column(self.process.var)

    @property
    def sigma(self) -> Array:
        """sigma(t), rooted in float64."""
        return self._column(lambda t: torch.sqrt(self.process.var(t)))

    @property
    def dalpha(self) -> Array:
        """alpha'(t)."""
        return self._column(self.process.dalpha)

    @property
    def dvar(self) -> Array:
        """(sigma^2)'(t)."""
        return self._column(self.process.dvar)

    @property
    def diffusion(self) -> Array:
        """g(t)."""
        return self._column(self.process.diffusion)


@dataclass(frozen=True)
class Parameterisation:
    """How x0 and eps follow from a prediction, and the prediction from x0 and eps."""

    x0: Callable[[Array, Array, Coefficients], Array]
    eps: Callable[[Array, Array, Coefficients], Array]
    target: Callable[[Array, Array, Coefficients], Array]


def _both(c: Coefficients) -> Array:
    return c.alpha**2 + c.var


def _q(c: Coefficients) -> Array:
    return 0.5 * c.alpha * c.dvar - c.var * c.dalpha


PREDICTIONS: dict[str, Parameterisation] = {
    "eps": Parameterisation(
        x0=lambda y, x, c: (x - c.sigma * y) / c.alpha,
        eps=lambda y, x, c: y,
        target=lambda x0, eps, c: eps,
    ),
    "x0": Parameterisation(
        x0=lambda y, x, c: y,
        eps=lambda y, x, c: (x - c.alpha * y) / c.sigma,
        target=lambda x0, eps, c: x0,
    ),
    "score": Parameterisation(
        x0=lambda y, x, c: (x + c.var * y) / c.alpha,
        eps=lambda y, x, c: -c.sigma * y,
        target=lambda x0, eps, c: -eps / c.sigma,
    ),
    "v": Parameterisation(
        x0=lambda y, x, c: (c.alpha * x - c.sigma * y) / _both(c),
        eps=lambda y, x, c: (c.sigma * x + c.alpha * y) / _both(c),
        target=lambda x0, eps, c: c.alpha * eps - c.sigma * x0,
    ),
    "velocity": Parameterisation(
        x0=lambda y, x, c: (0.5 * c.dvar * x - c.var * y) / _q(c),
        eps=lambda y, x, c: c.sigma * (c.alpha * y - c.dalpha * x) / _q(c),
        target=lambda x0, eps, c: c.dalpha * x0 + 0.5 * c.dvar / c.sigma * eps,
    ),
}
"""What a network may predict; the one place to add another parameterisation."""


class Network(Model):
    """A learned model.

    Parameters
    ----------
    net : a torch module, net(x, time) -> (n, D) for x (n, D) and time (n,).
    process : the process it is trained for.
    predicts : one of the names of `PREDICTIONS`.
    time : what the network sees of t; t/T by default, so that it lies in [0, 1].

    Answers to tensors are tensors in their dtype, with derivatives; answers to NumPy arrays are
    NumPy arrays. The network itself runs in its own dtype on its own device. NaN that the net
    itself answers goes through, as in any function of arrays: `train`, the samplers and the metrics
    stop at it, and a look at every answer here would make each call on a GPU wait for its end.

    Examples
    --------
    >>> import diffscience as ds
    >>> net = ds.nets.MLP(1, widths=(8,), seed=0)
    >>> model = Network(net, ds.VP(), predicts="x0")
    >>> model.score(np.zeros((3, 1)), 0.5).shape
    (3, 1)
    """

    def __init__(
        self,
        net: torch.nn.Module,
        process: Process,
        predicts: str = "eps",
        time: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if not isinstance(predicts, str) or predicts not in PREDICTIONS:
            raise ArgumentError("predicts", f"be one of {', '.join(PREDICTIONS)}", predicts)
        instance("net", net, torch.nn.Module)
        instance("process", process, Process)
        if time is not None:
            function("time", time)
        self.net, self.process, self.predicts, self.time = net, process, predicts, time

    def prediction(self, x: torch.Tensor, t: Array) -> torch.Tensor:
        """The bare output of the network at tensors x (*b, D) and t, in the dtype of x.

        Raises ArgumentError for points that are not finite floating-point numbers, times outside
        the process, and where the network answers with another shape than that of x.
        """
        instance("x", x, torch.Tensor)
        x = points(x, x.shape[-1] if x.ndim else 1)
        weight = next(self.net.parameters(), None)
        home = x if weight is None else weight
        on_mps = x.device.type == "mps"  # which has no float64
        times = torch.as_tensor(
            _tensor_of_times(t), dtype=torch.float64, device="cpu" if on_mps else x.device
        )
        times = _paired("t", self.process._times("t", times), x)
        seen = times / self.process.T
        if self.time is not None:
            seen = _paired("time", self.time(times), x)
        seen = torch.broadcast_to(seen, x.shape[:-1]).reshape(-1)
        rows = x.reshape(-1, x.shape[-1])
        return self._run(rows.to(home), seen.to(home)).to(x).reshape(x.shape)

    def _run(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """net(x, t), checked; what torch raises inside it, points of another D first of all."""
        try:
            y = self.net(x, t)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            rule = f"take points {tuple(x.shape)} and times {tuple(t.shape)}"
            raise ArgumentError("net", rule, str(error)) from error
        shape = tuple(getattr(y, "shape", ()))
        if shape != x.shape:
            raise ArgumentError("net", f"answer with shape {tuple(x.shape)}", f"shape {shape}")
        return y

    def _answer(
        self, formula: Callable[[Array, Array, Coefficients], Array], x: Array, t: Array
    ) -> Array:
        if not is_torch(x):
            with torch.no_grad():
                return self._answer(formula, _tensor(x), t).numpy()
        t = _tensor_of_times(t)
        return formula(self.prediction(x, t), x, Coefficients(self.process, x, t))

    def x0(self, x: Array, t: Array) -> Array:
        """The denoised point, (*b, D)."""
        return self._answer(PREDICTIONS[self.predicts].x0, x, t)

    def eps(self, x: Array, t: Array) -> Array:
        """The expected noise, (*b, D)."""
        return self._answer(PREDICTIONS[self.predicts].eps, x, t)

    def score(self, x: Array, t: Array) -> Array:
        """-eps/sigma, (*b, D)."""
        if self.predicts == "score":
            return self._answer(lambda y, x, c: y, x, t)
        eps = PREDICTIONS[self.predicts].eps
        return self._answer(lambda y, x, c: -eps(y, x, c) / c.sigma, x, t)

    def v(self, x: Array, t: Array) -> Array:
        """alpha eps - sigma x0, (*b, D)."""
        return self._through("v", x, t)

    def velocity(self, x: Array, t: Array) -> Array:
        """alpha' x0 + (sigma^2)'/(2 sigma) eps, (*b, D)."""
        return self._through("velocity", x, t)

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """alpha' x0 + ((sigma^2)' + eta^2 g^2)/(2 sigma) eps, (*b, D), with one evaluation."""
        if eta == 0:
            return self.velocity(x, t)
        own = PREDICTIONS[self.predicts]

        def formula(y: Array, x: Array, c: Coefficients) -> Array:
            growth = 0.5 * (c.dvar + eta * eta * c.diffusion**2) / c.sigma
            return c.dalpha * own.x0(y, x, c) + growth * own.eps(y, x, c)

        return self._answer(formula, x, t)

    def _through(self, name: str, x: Array, t: Array) -> Array:
        own, wanted = PREDICTIONS[self.predicts], PREDICTIONS[name]
        if self.predicts == name:
            return self._answer(lambda y, x, c: y, x, t)
        return self._answer(
            lambda y, x, c: wanted.target(own.x0(y, x, c), own.eps(y, x, c), c), x, t
        )

    def state(self) -> dict[str, Any]:
        """The weights by name, as NumPy arrays."""
        return {k: v.detach().cpu().numpy() for k, v in self.net.state_dict().items()}


def _paired(argument: str, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The times as given: one, or one for each of the points x (*b, D)."""
    instance(argument, t, torch.Tensor)
    rows = tuple(x.shape[:-1])
    if t.ndim and paired(argument, tuple(t.shape), rows) != rows:
        raise ArgumentError(argument, f"have shape {rows}, as the points do", tuple(t.shape))
    return t


def _tensor_of_times(t: Array) -> torch.Tensor:
    """Tensors as given; numbers and other arrays in float64, copied, as torch takes them."""
    return t if is_torch(t) else torch.from_numpy(np.array(numpy(finite("t", t))))


def _tensor(x: Array) -> torch.Tensor:
    """Points of another library as a tensor in their dtype, if torch has it."""
    array = numpy(x) if array_api_compat.is_array_api_obj(x) else finite("x", x)
    if array.dtype.kind != "f" or array.itemsize > 8:
        raise ArgumentError("x", "be a floating-point array that torch has", str(array.dtype))
    if any(step < 0 for step in array.strides) or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # torch takes neither
    return torch.as_tensor(array)
