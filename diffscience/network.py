"""Learned models: a network, what it predicts, and the other four answers that follow from it.

With a = alpha, s^2 = var at t, and x = a x0 + s eps, each prediction fixes the pair (x0, eps):

    eps       x0 = (x - s eps)/a
    x0        eps = (x - a x0)/s
    score     eps = -s score,  x0 = (x + s^2 score)/a
    v         v = a eps - s x0:
              x0 = (a x - s v)/(a^2 + s^2),  eps = (s x + a v)/(a^2 + s^2)
    velocity  u = a' x0 + (s^2)'/(2s) eps:
              x0 = (x (s^2)'/2 - s^2 u)/q,  eps = s (a u - a' x)/q,  q = a (s^2)'/2 - s^2 a'
    edm       F = (s x0 - a d^2 eps)/(d m),  m^2 = s^2 + a^2 d^2,  d = sigma_data:
              x0 = a d^2/m^2 x + s d/m F,  eps = s/m^2 x - a d/m F
    scaled_score   y = s score = -eps: a score network whose output is divided by s

(eps: Ho et al. 2020; v: Salimans and Ho 2022; velocity: Lipman et al. 2023. edm: Karras et al.
2022, eq. 7 and table 1, where a = 1: c_skip = a d^2/m^2, c_out = s d/m, and `preconditioned` adds
c_in = 1/m and c_noise = log(s/a)/4; for d = 1 and a^2 + s^2 = 1 it is -v. scaled_score: the
tutorial of Song et al. 2021; it learns as eps does, but for the sign of its last layer.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import array_api_compat
import numpy as np
import torch

from .arrays import Array, finite, is_torch, numpy, paired, points, wide
from .errors import ArgumentError, function, instance, number
from .models import Model
from .nets import Given
from .process import Process


@dataclass(frozen=True)
class Coefficients:
    """alpha, sigma, var and the derivatives alpha', (sigma^2)' at t, as columns beside x.

    sigma_data : d of the prediction edm.
    """

    process: Process
    x: Array
    t: Array
    sigma_data: float = 1.0

    def _column(self, formula: Callable[[Array], Array]) -> Array:
        t = self.t if is_torch(self.t) else torch.as_tensor(self.t, dtype=torch.float64)
        value = formula(t.to(torch.float64)).to(device=self.x.device, dtype=self.x.dtype)
        return value[..., None] if value.ndim else value

    @cached_property
    def alpha(self) -> Array:
        """alpha(t)."""
        return self._column(self.process.alpha)

    @cached_property
    def var(self) -> Array:
        """sigma(t)^2."""
        return self._column(self.process.var)

    @cached_property
    def sigma(self) -> Array:
        """sigma(t), rooted in float64."""
        return self._column(lambda t: torch.sqrt(self.process.var(t)))

    @cached_property
    def dalpha(self) -> Array:
        """alpha'(t)."""
        return self._column(self.process.dalpha)

    @cached_property
    def dvar(self) -> Array:
        """(sigma^2)'(t)."""
        return self._column(self.process.dvar)

    @cached_property
    def diffusion(self) -> Array:
        """g(t)."""
        return self._column(self.process.diffusion)

    @cached_property
    def size(self) -> Array:
        """m = sqrt(sigma^2 + alpha^2 sigma_data^2), the spread of x where d is that of the data."""
        squared = self.sigma_data**2
        return self._column(
            lambda t: torch.sqrt(self.process.var(t) + squared * self.process.alpha(t) ** 2)
        )


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
    "edm": Parameterisation(
        x0=lambda y, x, c: (
            c.sigma_data / c.size * (c.alpha * c.sigma_data / c.size * x + c.sigma * y)
        ),
        eps=lambda y, x, c: (c.sigma / c.size * x - c.alpha * c.sigma_data * y) / c.size,
        target=lambda x0, eps, c: (
            (c.sigma / c.sigma_data * x0 - c.alpha * c.sigma_data * eps) / c.size
        ),
    ),
    "scaled_score": Parameterisation(
        x0=lambda y, x, c: (x + c.sigma * y) / c.alpha,
        eps=lambda y, x, c: -y,
        target=lambda x0, eps, c: -eps,
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
    scale : of t, the factor on the x that the network sees; 1 by default.
    sigma_data : d of the prediction edm, the spread of the data; a positive number.
    variance : whether net answers (n, 2 D), the prediction and the v of a learned variance beside
        it; see `variances`.

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
        *,
        scale: Callable[[torch.Tensor], torch.Tensor] | None = None,
        sigma_data: float = 1.0,
        variance: bool = False,
    ) -> None:
        if not isinstance(predicts, str) or predicts not in PREDICTIONS:
            raise ArgumentError("predicts", f"be one of {', '.join(PREDICTIONS)}", predicts)
        instance("net", net, torch.nn.Module)
        instance("process", process, Process)
        for name, value in (("time", time), ("scale", scale)):
            if value is not None:
                function(name, value)
        number("sigma_data", sigma_data, 0, ends="()")
        instance("variance", variance, bool)
        self.net, self.process, self.predicts, self.time = net, process, predicts, time
        self.scale, self.sigma_data, self.variance = scale, sigma_data, variance

    def with_net(self, net: torch.nn.Module) -> Network:
        """The same model around another net."""
        instance("net", net, torch.nn.Module)
        other = copy.copy(self)
        other.net = net
        return other

    def coefficients(self, x: Array, t: Array) -> Coefficients:
        """alpha, sigma, ... of its process at t, beside points x (*b, D)."""
        return Coefficients(self.process, x, t, self.sigma_data)

    def slope(self, x: Array, t: Array) -> Array:
        """d eps/d prediction at t, a column (*b, 1) beside points x (*b, D), in float64.

        >>> import diffscience as ds
        >>> model = Network(ds.nets.MLP(1, widths=(8,)), ds.EDM(), "x0")
        >>> model.slope(torch.zeros(2, 1), 4.0).tolist()  # eps = (x - x0)/sigma
        [[-0.25], [-0.25]]
        """
        one = wide(torch.ones_like(x[..., :1]))
        return PREDICTIONS[self.predicts].eps(one, 0.0 * one, self.coefficients(one, t))

    @property
    def members(self) -> int | None:
        """S of an `ensembles.Ensemble`, None of any other net."""
        found = getattr(self.net, "members", None)
        return found if isinstance(found, int) else None

    def prediction(self, x: torch.Tensor, t: Array) -> torch.Tensor:
        """The bare output of the network at tensors x (*b, D) and t, in the dtype of x.

        Of a network with a learned variance the first half of it.

        Raises ArgumentError for points that are not finite floating-point numbers, times outside
        the process, and where the network answers with another shape than that of x.
        """
        y = self._bare(x, t)
        return y[..., : x.shape[-1]] if self.variance else y

    def halves(self, x: torch.Tensor, t: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """`prediction` and what stands beside it, (*b, D) each, with one evaluation.

        Raises ArgumentError for a network without a learned variance.
        """
        if not self.variance:
            raise ArgumentError("network", "have a learned variance", "variance=False")
        y = self._bare(x, t)
        return y[..., : x.shape[-1]], y[..., x.shape[-1] :]

    def _bare(self, x: torch.Tensor, t: Array) -> torch.Tensor:
        instance("x", x, torch.Tensor)
        x = points(x, x.shape[-1] if x.ndim else 1)
        if self.members is not None and x.ndim != 2 and x.shape[:-2][:1] != (self.members,):
            rule = f"be points (S, n, D), or rows (S n, D), of the S = {self.members} members"
            raise ArgumentError("x", rule, f"shape {tuple(x.shape)}")
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
        shown = x
        if self.scale is not None:
            shown = x * _paired("scale", self.scale(times), x).to(x)[..., None]
        rows = shown.reshape(-1, x.shape[-1])
        y = self._run(rows.to(home), seen.to(home)).to(x)
        return y.reshape(*x.shape[:-1], y.shape[-1])

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
        wanted = (len(x), (1 + self.variance) * x.shape[-1])
        if shape != wanted:
            raise ArgumentError("net", f"answer with shape {wanted}", f"shape {shape}")
        return y

    def _answer(
        self, formula: Callable[[Array, Array, Coefficients], Array], x: Array, t: Array
    ) -> Array:
        if not is_torch(x):
            with torch.no_grad():
                return self._answer(formula, _tensor(x), t).numpy()
        t = _tensor_of_times(t)
        return formula(self.prediction(x, t), x, self.coefficients(x, t))

    def x0(self, x: Array, t: Array) -> Array:
        """The denoised point, (*b, D)."""
        return self._answer(PREDICTIONS[self.predicts].x0, x, t)

    def x0_and_half(self, x: Array, t: Array) -> tuple[Array, Array]:
        """x0 and what stands beside the prediction, (*b, D) each, with one evaluation."""
        if not is_torch(x):
            with torch.no_grad():
                x0, half = self.x0_and_half(_tensor(x), t)
            return x0.numpy(), half.numpy()
        t = _tensor_of_times(t)
        y, half = self.halves(x, t)
        return PREDICTIONS[self.predicts].x0(y, x, self.coefficients(x, t)), half

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

    def given(self, label: int | torch.Tensor | None) -> Network:
        """The same network told a class, or none: a model of p(x|c), or of p(x).

        label : as for `nets.Given`; the net must have classes. Nothing is copied.

        >>> import diffscience as ds
        >>> network = Network(ds.nets.MLP(1, widths=(8,), classes=2), ds.VP())
        >>> network.given(1).eps(np.zeros((3, 1)), 0.5).shape
        (3, 1)
        """
        return self.with_net(Given(self.net, label))

    def state(self) -> dict[str, Any]:
        """The weights by name, as NumPy arrays."""
        return {k: v.detach().cpu().numpy() for k, v in self.net.state_dict().items()}


def preconditioned(
    net: torch.nn.Module, process: Process, sigma_data: float, *, variance: bool = False
) -> Network:
    """The network of EDM (Karras et al. 2022, table 1): predicts F, sees x/m and log(s/a)/4.

    m as above. For data of mean 0 and standard deviation sigma_data in each coordinate, what goes
    in and what is to come out have variance 1 at every time. log(s/a) is held within +-40, so that
    the ends of time are finite.

    >>> import diffscience as ds
    >>> model = preconditioned(ds.nets.MLP(1, widths=(8,), seed=0), ds.EDM(), 0.5)
    >>> model.x0(np.full((3, 1), 2.0), 0.0).tolist()  # without noise, x itself
    [[2.0], [2.0], [2.0]]
    """
    number("sigma_data", sigma_data, 0, ends="()")

    def scale(t: torch.Tensor) -> torch.Tensor:
        return 1 / torch.sqrt(process.var(t) + sigma_data**2 * process.alpha(t) ** 2)

    def time(t: torch.Tensor) -> torch.Tensor:
        return -torch.clamp(process.log_snr(t), -80.0, 80.0) / 8

    return Network(net, process, "edm", time, scale=scale, sigma_data=sigma_data, variance=variance)


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
