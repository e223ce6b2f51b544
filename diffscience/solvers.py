"""Solvers: SDEs through torchsde and ODEs through torchdiffeq; the one file that knows either.

    forward    dX = f(t) X dt + g(t) dW                         the process itself, t increasing
    reverse    dX = drift dt + eta g dW                         of a `Model`, t decreasing
    ito        dX = b(X, t) dt + s(X, t) dW                     any, diagonal or additive noise
    flow       dx/dt = velocity(x, t)                           of a `Model`, either direction
    ode        dy/dt = b(y, t)                                  any

SDEs are posed on an index clock: u = 0, 1, ..., n counts the steps of a time grid t_0 ... t_n,
drift and noise are scaled by the length h of the step at hand,

    dX = h b(X, t(u)) du + sqrt|h| s(X, t(u)) dw,    t(u) = t_k + (u - k) h_k  in step k

so step counts are exact, any grid is a grid of steps, and time may run backwards. The noise is ours
(`noise`): torchsde's own can hang on a remainder step of 1e-14 (T = 5, 19.99, 80, 0.998), changes
its path with the batch and costs up to 28 times the loop. Steps of ODEs are float64 whatever the
dtype of the states (torchdiffeq rounds the times that it hands on to that dtype), and nothing is
asked beyond the ends of a run, where a process may not exist.
Adaptive steps of the flow are taken on the clock u = t^(1/3), dx/du = 3 u^2 velocity(x, u^3): near
the data a flow needs steps that shrink with t, which torchdiffeq, whose steps do not shrink before
one has failed, pays for with every second step.

Conventions: states (n, D) keep the device and dtype of the start; a NumPy start goes to `device`,
the CPU where left out, and comes back as NumPy. Rows go through in chunks of whole noise blocks; no
answer depends on the chunks, but for adaptive steps, which follow the worst of the rows that are
solved together; those of a model of several `members` are not cut. A bar on stderr shows what takes
long. Every solver returns a `Solution`, which counts the evaluations.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchdiffeq
import torchsde
from tqdm import tqdm

from . import fused, prior, states
from .arrays import Array, finite, is_torch, numpy
from .errors import ArgumentError, _real, function, instance, number, whole
from .models import Model, Oracle
from .noise import BLOCK, Bridge, Noise, Sequential, Stored, monotone
from .process import Process

Field = Callable[[torch.Tensor, float], torch.Tensor]
Start = tuple[torch.Tensor, Callable[[torch.Tensor], Any]]  # states, and the way back from tensors

SDE_METHODS = ("euler", "milstein", "srk")
"""Of torchsde, for Ito equations; strong orders 1 (1/2 unless additive), 1 and 3/2."""
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
"""Of torchdiffeq. Its Adams methods diverge or are wrong on uneven grids, fehlberg2 is inexact."""

CHUNK = 32 * BLOCK  # rows that are solved together where nothing else is asked for
SHORTEST = 1e-5  # adaptive step of an SDE, as a part of its interval
ROOT = 3  # the flow's clock; 2 and 4 do about as well, and 1 takes up to 1.8 times the evaluations
FINEST = 1e-7  # tolerance of adaptive steps of an SDE: torchsde takes a smaller one for this


@dataclass(frozen=True)
class Solution:
    """Where a run went.

    times : (T,) float64, those that were kept. states : (T, n, D).
    evaluations : of the drift for one row, the most of any chunk.
    steps : those taken, the most of any chunk; adaptive SDE steps count with the rejected ones.
    reached : the time that every row reached; the last of `times` unless the run was cut off.
    """

    times: np.ndarray
    states: Any
    evaluations: int
    steps: int
    reached: float

    @property
    def last(self) -> Any:
        """The states at the last time, (n, D)."""
        return self.states[-1]


# ---------------------------------------------------------------- SDEs


def forward(
    process: Process,
    x0: Array,
    times: Sequence[float] | np.ndarray,
    noise: Noise | int,
    *,
    method: str = "euler",
    tolerance: float | None = None,
    keep: Sequence[int] | None = None,
    chunk: int | None = None,
    device: str | None = None,
) -> Solution:
    """Paths of the process itself from points at times[0], for increasing times; see `ito`.

    >>> import diffscience as ds
    >>> law, process = ds.gallery.julia_bimodal(), ds.VP()
    >>> run = forward(process, law.sample(500, 0), np.linspace(0, 1, 51), 1)
    >>> run.states.shape, run.evaluations
    ((2, 500, 1), 50)
    """
    instance("process", process, Process)
    grid = _inside(process, times, increasing=True)

    def drift(x: torch.Tensor, t: float) -> torch.Tensor:
        return states.checked(process.drift(t) * x, x, t, "drift", "process")

    start = placed(x0, device)
    return _sde(drift, process.diffusion, start, grid, noise, method, tolerance, keep, chunk)


def reverse(
    model: Model,
    x: Array,
    times: Sequence[float] | np.ndarray,
    noise: Noise | int,
    *,
    eta: float = 1.0,
    method: str = "euler",
    tolerance: float | None = None,
    keep: Sequence[int] | None = None,
    chunk: int | None = None,
    device: str | None = None,
    engine: str = "torchsde",
) -> Solution:
    """The reverse SDE of noise level eta from points at times[0], for decreasing times.

    Parameters
    ----------
    model : exact or learned. eta : 0 is the probability flow, 1 Anderson's reversal; any >= 0.
    engine : "torchsde", or "fused" for a compiled loop over all steps that takes the same steps
        with the same noise (see `fused_steps`): Euler on an `Oracle` of a Gaussian mixture in one
        or two dimensions, on the CPU.
    others : see `ito`.

    Warns with a `PriorWarning` where an `Oracle` says that the start is not of its law at times[0].

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> start = oracle.at(1.0).sample(500, 0)
    >>> reverse(oracle, start, np.linspace(1, 0, 101), 1).last.shape
    (500, 1)
    """
    instance("model", model, Model)
    number("eta", eta, 0)
    process, grid = model.process, _inside(model.process, times, increasing=False)
    if engine not in ("torchsde", "fused"):
        raise ArgumentError("engine", "be torchsde or fused", engine)
    if eta > 0 and process.alpha(grid[0]) == 0:
        raise ArgumentError("times", "start before alpha is 0, where g is infinite", float(grid[0]))
    y, back = placed(x, device)
    if isinstance(model, Oracle):
        prior.compare(model, y, float(grid[0]))
    chunk = uncut(model, y, chunk)
    if engine == "fused":
        from .fused_steps import euler_maruyama

        chunk_size(chunk)  # the loop goes block by block whatever it is
        return euler_maruyama(model, (y, back), grid, noise, eta, method, tolerance, keep)

    def drift(x: torch.Tensor, t: float) -> torch.Tensor:
        value = states.asked(lambda x, t: model.drift(x, t, eta), x, t)
        return states.checked(value, x, t, "drift")

    def size(t: float) -> float:
        return eta * process.diffusion(t) if eta else 0.0

    return _sde(drift, size, (y, back), grid, noise, method, tolerance, keep, chunk)


def ito(
    drift: Field,
    diffusion: Callable[..., Any],
    x: Array,
    times: Sequence[float] | np.ndarray,
    noise: Noise | int,
    *,
    diagonal: bool = False,
    method: str = "euler",
    tolerance: float | None = None,
    keep: Sequence[int] | None = None,
    chunk: int | None = None,
    device: str | None = None,
) -> Solution:
    """dX = b(X, t) dt + s dW in Ito's sense, for increasing or decreasing times.

    Parameters
    ----------
    drift : (x (n, D), t) -> (n, D).
    diffusion : t -> a number (additive noise); with `diagonal` (x, t) -> (n, D).
    times : monotone; each interval is one step, or one adaptive run where `tolerance` is given.
    noise : a `noise.Sequential`, read from its start, or a `noise.Stored` on these times, or a
        seed for the former.
    method : one of `SDE_METHODS`; "srk" asks the noise for the areas of its steps too, and the
        drift twice a step (9 times where the noise is diagonal).
    tolerance : of adaptive steps, relative and absolute, 1e-7 or more; the noise is then given by
        its seed.
    keep : places in `times` whose states are kept; the first and last where left out.
    chunk : rows solved together, a multiple of `noise.BLOCK`.
    device : where a NumPy start is computed on; a tensor stays where it is.

    Raises ArgumentError for unknown methods, times that are not monotone, a drift that is not
    finite (at which t, for how many rows) and adaptive steps that become too short.

    An Ornstein-Uhlenbeck process has the variance 1/2 in the end:

    >>> run = ito(lambda x, t: -x, lambda t: 1.0, np.zeros((4000, 1)), np.linspace(0, 4, 401), 0)
    >>> bool(abs(run.last.var() - 0.5) < 0.05)
    True
    """
    function("drift", drift)
    function("diffusion", diffusion)
    grid = monotone("times", times)

    def checked(x: torch.Tensor, t: float) -> torch.Tensor:
        return states.checked(drift(x, t), x, t, "value", "drift")

    start = placed(x, device)
    return _sde(checked, diffusion, start, grid, noise, method, tolerance, keep, chunk, diagonal)


def _sde(
    drift: Field,
    diffusion: Callable[..., Any],
    start: Start,
    grid: np.ndarray,
    noise: Noise | int,
    method: str,
    tolerance: float | None,
    keep: Sequence[int] | None,
    chunk: int | None,
    diagonal: bool = False,
) -> Solution:
    if method not in SDE_METHODS:
        raise ArgumentError("method", f"be one of {', '.join(SDE_METHODS)}", method)
    y, back = start
    places = kept_places(keep, len(grid))
    size = chunk_size(chunk)
    if isinstance(noise, Stored) and chunk is None:
        size = max(size, -(-len(y) // BLOCK) * BLOCK)  # a path is not cut
    if isinstance(noise, Stored) and not np.array_equal(noise.times, grid):
        raise ArgumentError("noise", "be stored on the times of the run, as noise.on(times)", noise)
    if tolerance is not None:
        number("tolerance", tolerance, FINEST)
        whole("noise", noise, 0)
    firsts = range(0, max(len(y), 1), size)
    with _bar(len(firsts) * (len(grid) - 1)) as bar:

        def part(first: int) -> tuple[torch.Tensor, _Clock]:
            rows, run = y[first : first + size], _Clock(drift, diffusion, grid, diagonal, bar)
            with fused.counted_as(len(y)):
                if tolerance is None:
                    source = noise_for(noise, first, rows, len(y))
                    return _fixed_steps(run, rows, source, method, places), run
                # Adaptive steps take no Noise: it is a whole number, as was checked above.
                seed = int(noise)  # type: ignore[arg-type]
                return _adaptive(run, rows, seed, first, method, tolerance, places), run

        parts, runs = zip(*map(part, firsts))
    most, steps = max(run.evaluations for run in runs), max(run.steps for run in runs)
    found = torch.cat(parts, dim=1)
    return Solution(grid[places], back(found), most, steps, float(grid[-1]))


class _Clock:
    """An SDE on the clock that counts the steps of a grid, as torchsde wants it."""

    sde_type = "ito"

    def __init__(
        self,
        drift: Field,
        diffusion: Callable[..., Any],
        grid: np.ndarray,
        diagonal: bool,
        bar: Any,
    ) -> None:
        self.drift, self.diffusion, self.grid, self.bar = drift, diffusion, grid, bar
        self.noise_type = "diagonal" if diagonal else "additive"
        self.cell, self.low, self.evaluations, self.steps = 0, 0.0, 0, 0
        self._asked: tuple[float, Any, Any] | None = None

    def opens(self, cell: int, low: float = 0.0) -> None:
        """The step that is taken now; the noise is asked first, so it says so."""
        self.cell, self.low = cell, low

    def _at(self, u: Any) -> tuple[float, float]:
        """(t, h) on the clock; a stage at the end of a step belongs to that step."""
        a, b = float(self.grid[self.cell]), float(self.grid[self.cell + 1])
        share = float(u) - self.low
        return (b if share >= 1 else a + share * (b - a)), b - a

    def f(self, u: Any, y: torch.Tensor) -> torch.Tensor:
        """h b(y, t(u)); torchsde looks at the shape of the first answer, which is kept for it."""
        t, h = self._at(u)
        if self._asked is None or self._asked[0] != t or self._asked[1] is not y:
            self.evaluations += 1
            self._asked = (t, y, self.drift(y, t))
        return h * self._asked[2]

    def _size(self, u: Any, y: torch.Tensor) -> Any:
        t, h = self._at(u)
        root = math.sqrt(abs(h))
        if self.noise_type == "diagonal":
            return root * states.checked(self.diffusion(y, t), y, t, "value", "diffusion")
        value = self.diffusion(t)
        if not math.isfinite(_real(value)):
            raise ArgumentError("diffusion", f"be a finite number at t = {t:g}", value)
        return root * float(value)

    def g(self, u: Any, y: torch.Tensor) -> torch.Tensor:
        """The diffusion: (n, D) where diagonal, else (n, D, D) without its memory."""
        size = self._size(u, y)
        if self.noise_type == "diagonal":
            return size
        eye = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        return (size * eye).expand(len(y), -1, -1)

    def g_prod(self, u: Any, y: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """The diffusion times v (n, D)."""
        return self._size(u, y) * v

    def f_and_g_prod(self, u: Any, y: torch.Tensor, v: torch.Tensor) -> Any:
        """Both."""
        return self.f(u, y), self.g_prod(u, y, v)


class _Steps(torchsde.BaseBrownian):
    """Noise for whole steps, as torchsde asks for it; tells the clock which step is taken."""

    def __init__(self, noise: Noise, clock: _Clock, area: bool, dtype: torch.dtype) -> None:
        self.noise, self.clock, self._area, self._dtype = noise, clock, area, dtype

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False):
        cell = round(float(ta))
        if float(ta) != cell or float(tb) != cell + 1:
            raise ArgumentError("noise", "be asked for whole steps", f"{float(ta)}, {float(tb)}")
        self.clock.opens(cell, float(cell))
        self.clock.steps += 1
        self.clock.bar.update()
        z = self.noise.normal(*self.shape).to(self._dtype)
        if not return_U:
            return z
        return z, 0.5 * z + self.noise.area(*self.shape).to(self._dtype)

    def __repr__(self) -> str:
        return f"_Steps({self.noise!r})"

    @property
    def shape(self) -> tuple[int, int]:
        return self.noise.n, self.noise.dim

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def device(self) -> torch.device:
        return self.noise.device

    @property
    def levy_area_approximation(self) -> str:
        return "space-time" if self._area else "none"


class _Anywhere(_Steps):
    """A Brownian path on [0, 1] that adaptive steps may ask anywhere, for one interval of times."""

    def __init__(self, bridge: Bridge, clock: _Clock, area: bool) -> None:
        super().__init__(bridge.source, clock, area, bridge.source.dtype)
        self.bridge, self._calls = bridge, 0

    def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False):
        self._calls += 1
        self.clock.steps += self._calls % 3 == 1  # a whole step and two halves are one attempt
        h, W, H = self.bridge.over(float(ta), float(tb))
        return (W, h * (0.5 * W + H)) if return_U else W


def _fixed_steps(
    clock: _Clock, y: torch.Tensor, noise: Noise, method: str, places: list[int]
) -> torch.Tensor:
    wanted = sorted({0, *places, len(clock.grid) - 1})
    path = _Steps(noise, clock, method == "srk", y.dtype)
    found = _sdeint(clock, y, wanted, path, method=method, dt=1.0)
    return found[[wanted.index(place) for place in places]]


def _adaptive(
    clock: _Clock,
    y: torch.Tensor,
    seed: int,
    first: int,
    method: str,
    tolerance: float,
    places: list[int],
) -> torch.Tensor:
    """One adaptive run for each interval of the grid, so that no time is interpolated."""
    kept = {0: y}
    if y.numel() == 0:  # torchsde takes the error of no rows for NaN
        return y.expand(len(places), *y.shape)
    for cell in range(len(clock.grid) - 1):
        clock.opens(cell)
        words = np.random.SeedSequence((seed, cell)).generate_state(1)
        n, dim = y.shape
        bridge = Bridge(int(words[0]), n, dim, y.dtype, str(y.device), first=first // BLOCK)
        path = _Anywhere(bridge, clock, method == "srk")
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Hitting minimum")
            try:
                y = _sdeint(
                    clock, y, [0, 1], path, method=method, dt=0.1, adaptive=True,
                    rtol=tolerance, atol=tolerance, dt_min=SHORTEST,
                )[-1]  # fmt: skip
            except UserWarning as warning:
                t = clock.grid[cell]
                rule = f"be large enough for steps of 1e-5 of the interval from t = {t:g}"
                raise ArgumentError("tolerance", rule, tolerance) from warning
        clock.bar.update()
        kept[cell + 1] = y
    return torch.stack([kept[place] for place in places])


def _sdeint(clock: _Clock, y: torch.Tensor, at: list[int], path: _Steps, **options: Any) -> Any:
    """torchsde.sdeint, whose check of the shapes draws from torch's global generator."""
    ts = torch.tensor(at, dtype=torch.float64)
    devices = [y.device] if y.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        return torchsde.sdeint(clock, y, ts, bm=path, **options)


# ---------------------------------------------------------------- ODEs


def flow(
    model: Model,
    x: Array,
    times: Sequence[float] | np.ndarray,
    *,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-6,
    keep: Sequence[int] | None = None,
    chunk: int | None = None,
    limit: int = 100_000,
    device: str | None = None,
) -> Solution:
    """The probability flow dx/dt = velocity(x, t), in either direction of time; see `ode`.

    From data (t = 0) to noise the end is the latent code of the start; the way back decodes it.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> x = np.array([[-3.0], [2.0]])
    >>> code = flow(oracle, x, [0.0, 1.0], rtol=1e-8, atol=1e-8).last
    >>> bool(np.abs(code - oracle.flow(x, 0.0, 1.0)).max() < 1e-6)
    True
    """
    instance("model", model, Model)
    grid = _inside(model.process, times)

    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return states.checked(states.asked(model.velocity, x, t), x, t, "velocity")

    chunk = uncut(model, x, chunk)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "chunk": chunk, "limit": limit}
    return ode(velocity, x, grid, method=method, keep=keep, device=device, root=ROOT, **options)


def reference(model: Model, x: Array, times: Sequence[float] | np.ndarray) -> np.ndarray:
    """The flow at the last time in float64 at tolerance 1e-12, (n, D): what others are held to.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[4.0]]]), ds.EDM())
    >>> x = reference(oracle, np.array([[3.0]]), [3.0, 0.0])  # exactly 3 sqrt(4/13)
    >>> bool(abs(x[0, 0] - 3 * (4 / 13) ** 0.5) < 1e-10)
    True
    """
    start = numpy(finite("x", x, (None, None)))
    return np.asarray(flow(model, start, times, method="dopri8", rtol=1e-12, atol=1e-12).last)


def ode(
    b: Field,
    y: Array,
    times: Sequence[float] | np.ndarray,
    *,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-6,
    keep: Sequence[int] | None = None,
    chunk: int | None = None,
    limit: int = 100_000,
    device: str | None = None,
    root: int = 1,
) -> Solution:
    """dy/dt = b(y, t) for states (n, D).

    Parameters
    ----------
    b : (y (n, D), t) -> (n, D).
    times : monotone. A method of `FIXED` takes each interval in one step; one of `ADAPTIVE` chooses
        its own steps and hits every time exactly.
    rtol, atol : of the error of a step, in root mean square over all rows that are solved together.
    keep : places in `times` whose states are kept; the first and last where left out.
    chunk : rows solved together; a smaller chunk keeps hard rows from easy ones.
    limit : evaluations at most. A run that needs more is cut off: `reached` says where, and for
        the times beyond it the states are those of the last accepted step (of each chunk its own).
    device : where a NumPy start is computed on; a tensor stays where it is.
    root : adaptive methods take their steps in t^(1/root); more than 1 for times from 0 on, where
        steps shall shrink towards 0.

    Raises ArgumentError for unknown methods, times that are not monotone, answers that are not
    finite (at which t, for how many rows), and steps that become too short.

    >>> run = ode(lambda y, t: -y, np.ones((1, 1)), [0.0, 1.0], rtol=1e-9, atol=1e-9)
    >>> bool(abs(run.last[0, 0] - np.exp(-1)) < 1e-8)
    True
    """
    function("b", b)
    if method not in ADAPTIVE + FIXED:
        raise ArgumentError("method", f"be one of {', '.join(ADAPTIVE + FIXED)}", method)
    number("rtol", rtol, 0, ends="()")
    number("atol", atol, 0, ends="()")
    whole("limit", limit, 1)
    whole("root", root, 1)
    grid = monotone("times", times)
    if root > 1 and min(grid[0], grid[-1]) < 0:
        raise ArgumentError("times", f"be 0 or more for root = {root}", grid)
    start, back = placed(y, device)
    places = kept_places(keep, len(grid))
    power = root if method in ADAPTIVE else 1
    size = (CHUNK if method in FIXED else max(len(start), 1)) if chunk is None else chunk
    whole("chunk", size, 1)
    parts, runs = [], []
    with _bar(None) as bar:
        for first in range(0, max(len(start), 1), size):
            rows = start[first : first + size]
            run = _Flow(b, rows, places, grid, power, limit, bar)
            with fused.counted_as(len(start)):
                parts.append(_odeint(run, rows, places, method, rtol, atol))
            runs.append(run)
    reached = min((run.reached for run in runs), key=lambda t: abs(t - grid[0]))
    return Solution(
        grid[places],
        back(torch.cat(parts, dim=1)),
        max(run.evaluations for run in runs),
        max(run.steps for run in runs),
        float(reached),
    )


class _Enough(Exception):
    """The limit of evaluations is reached."""


class _Flow:
    """A right-hand side on the clock u = t^(1/root), as torchdiffeq wants it.

    It counts, looks at the answers, and never leaves the run's times.
    """

    def __init__(
        self,
        b: Field,
        y: torch.Tensor,
        places: list[int],
        grid: np.ndarray,
        root: int,
        limit: int,
        bar: Any,
    ) -> None:
        self.b, self.root, self.limit, self.bar = b, root, limit, bar
        self.clock = grid ** (1 / root)
        self.low, self.high = float(grid.min()), float(grid.max())
        self.times = dict(zip(self.clock.tolist(), grid.tolist()))
        self.evaluations, self.steps, self.reached = 0, 0, float(grid[0])
        self.state, self.kept = y, grid[places].tolist()
        self.passed: dict[float, torch.Tensor] = {}

    def time(self, u: float) -> float:
        """t(u), inside the run; the times that were asked for come back bit for bit."""
        return self.times.get(u, min(max(u**self.root, self.low), self.high))

    def __call__(self, u: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.evaluations >= self.limit:
            raise _Enough
        at = self.time(float(u))
        self.evaluations += 1
        self.bar.update()
        value = states.checked(self.b(y, at), y, at, "value", "b")
        if self.root == 1:
            return value
        return value * (self.root * at ** (1 - 1 / self.root))

    def callback_step(self, u0: torch.Tensor, y0: torch.Tensor, du: torch.Tensor) -> None:
        """Called before every attempt at a step with its start."""
        t = self.time(float(u0))
        self.steps += t != self.reached
        self.state, self.reached = y0, t
        if t in self.kept:
            self.passed[t] = y0

    def so_far(self) -> torch.Tensor:
        """The states at the times that are kept; for those that are still ahead the last ones."""
        return torch.stack([self.passed.get(t, self.state) for t in self.kept])


def _odeint(
    run: _Flow, y: torch.Tensor, places: list[int], method: str, rtol: float, atol: float
) -> torch.Tensor:
    if y.numel() == 0:
        run.reached = run.time(float(run.clock[-1]))
        return y.expand(len(places), *y.shape)
    u = torch.as_tensor(run.clock, dtype=torch.float64, device=y.device)
    options = {"step_t": u} if method in ADAPTIVE else {}
    try:
        with torch.no_grad():
            found = torchdiffeq.odeint(
                run, y, u, method=method, rtol=rtol, atol=atol, options=options
            )
    except _Enough:
        return run.so_far()
    except AssertionError as error:
        rule = f"be large enough for a step from t = {run.reached:g}"
        raise ArgumentError("rtol", rule, f"{rtol:g} ({str(error)[:60]})") from error
    run.reached, run.steps = run.time(float(run.clock[-1])), run.steps + 1
    return found[places]


# ---------------------------------------------------------------- what they share


def kept_places(keep: Sequence[int] | None, count: int) -> list[int]:
    """Places among `count` times, each in range; the ends where left out."""
    if keep is None:
        return [0, count - 1]
    if not isinstance(keep, (Sequence, range, np.ndarray)) or not len(keep):
        raise ArgumentError("keep", "be a list of one or more places", keep)
    for k in keep:
        whole("keep", k, 0, count - 1)
    return [int(k) for k in keep]


def chunk_size(chunk: int | None) -> int:
    """Rows that are solved together, a multiple of BLOCK; CHUNK where left out."""
    size = CHUNK if chunk is None else chunk
    whole("chunk", size, BLOCK)
    if size % BLOCK:
        raise ArgumentError("chunk", f"be a multiple of {BLOCK}", size)
    return size


def uncut(model: Model, x: Array, chunk: int | None) -> int | None:
    """The chunk; for a model of several members all rows, whose blocks a cut would mistake."""
    n = max(1, *np.shape(x)[:1])
    if model.members is None:
        return chunk
    if chunk is not None:
        whole("chunk", chunk, n)
    return -(-n // BLOCK) * BLOCK


def noise_for(noise: Noise | int, first: int, rows: torch.Tensor, n: int) -> Noise:
    """The noise of the rows from `first` on of n."""
    dim = rows.shape[1]
    if not isinstance(noise, Noise):
        whole("noise", noise, 0)
        noise = Sequential(int(noise), n, dim, rows.dtype, str(rows.device))
    if (noise.n, noise.dim) != (n, dim):
        raise ArgumentError("noise", f"have {n} rows of {dim}", (noise.n, noise.dim))
    if isinstance(noise, Sequential):
        return noise.part(first, first + len(rows))
    if len(rows) < n:
        raise ArgumentError("chunk", f"be at least {n} rows for stored noise", len(rows))
    return noise


def placed(x: Array, device: str | None = None) -> Start:
    """The start as a tensor (n, D) of 32 or 64 bits, and the way back to its library and place."""
    dtype = str(getattr(x, "dtype", "float64")).removeprefix("torch.")
    if "float" in dtype and dtype not in ("float32", "float64"):
        raise ArgumentError("x", "be float32 or float64", dtype)
    start = states.start("x", x)
    if start.ndim != 2:
        raise ArgumentError("x", "be points of shape (n, D)", f"shape {tuple(start.shape)}")
    if is_torch(start):
        if device is not None:
            raise ArgumentError("device", "be left out for a start that has one", device)
        return start.detach(), lambda y: y
    array = np.array(numpy(start))
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(native).to(device), lambda y: y.cpu().numpy()
    except (RuntimeError, AssertionError) as error:  # no such name; or no such device here
        words = str(error).splitlines()[0]
        raise ArgumentError(
            "device", f"be one that torch knows and has ({words})", device
        ) from error


def _inside(
    process: Process, times: Sequence[float] | np.ndarray, increasing: bool | None = None
) -> np.ndarray:
    """Monotone times inside a process."""
    grid = monotone("times", times)
    if increasing is not None and (grid[1] > grid[0]) != increasing:
        raise ArgumentError("times", f"be {'in' if increasing else 'de'}creasing", grid)
    process._times("times", grid)
    return grid


@contextmanager
def _bar(total: int | None) -> Iterator[Any]:
    with tqdm(total=total, desc="solving", disable=None, leave=False, delay=3) as bar:
        yield bar
