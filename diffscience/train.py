"""Training: one loop for every network and objective.

    theta <- Adam(grad of the mean over a batch of loss(model, x0, t, noise))
    ema   <- decay ema + (1 - decay) theta

Everything random comes from one seed, on the device of the network, and nothing global is read or
set: the same seed gives the same bits again on the same machine. Ctrl-C ends the training between
two updates and returns what was reached.
"""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from . import losses
from .errors import ArgumentError, function, instance, number, whole
from .nets import SEEDS
from .network import Network
from .targets import Target
from .times import uniform as uniform_times

State = dict[str, torch.Tensor]


@dataclass
class History:
    """What a training left behind.

    losses : (steps,) the loss of each step, before its update.
    snapshots : step -> weights before the update of that step (`steps` itself: at the end).
    ema : the averaged weights, None without averaging.
    interrupted : whether Ctrl-C ended it early.
    """

    losses: np.ndarray
    snapshots: dict[int, State] = field(default_factory=dict)
    ema: State | None = None
    interrupted: bool = False


Objective = Callable[[torch.nn.Module, torch.Tensor, torch.Generator], torch.Tensor]
Progress = Callable[[Iterable[int]], Iterable[int]]


def train(
    network: Network,
    data: Target | torch.Tensor,
    *,
    steps: int,
    seed: int,
    batch: int | None = 1024,
    rate: float = 1e-3,
    final_rate: float | None = None,
    loss: losses.Loss = losses.denoising,
    times: Callable[[int, torch.Generator], torch.Tensor] | None = None,
    ema: float | None = None,
    snapshots: Iterable[int] = (),
    progress: Progress | None = None,
) -> History:
    """Train a network of (x, t) in place with Adam: `fit` with fresh times and noise every step.

    Parameters
    ----------
    network : the model; its net is changed.
    loss : (network, x0, t, noise) -> (batch,); its mean is minimised.
    times : (n, generator) -> (n,), such as a law of `times`; `times.uniform` by default.
    data, steps, ... : as for `fit`, which says what is raised.
    """
    for name, value in (("loss", loss), ("times", times)):
        if value is not None:
            function(name, value)
    instance("network", network, Network)
    draw_times = times or uniform_times(network.process)

    def objective(
        net: torch.nn.Module, x0: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        noise = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        return loss(network, x0, times_of(draw_times, len(x0), generator), noise)

    return fit(
        network.net,
        data,
        objective,
        steps=steps,
        seed=seed,
        batch=batch,
        rate=rate,
        final_rate=final_rate,
        ema=ema,
        snapshots=snapshots,
        progress=progress,
    )


def fit(
    net: torch.nn.Module,
    data: Target | torch.Tensor,
    objective: Objective,
    *,
    steps: int,
    seed: int,
    batch: int | None = 1024,
    rate: float = 1e-3,
    final_rate: float | None = None,
    ema: float | None = None,
    snapshots: Iterable[int] = (),
    progress: Progress | None = None,
) -> History:
    """Minimise the mean of an objective over batches of data, with Adam, in place.

    Parameters
    ----------
    net : any torch module with parameters; changed.
    data : a `Target`, from which every batch is drawn afresh, or points (n, D), from which batches
        are drawn with replacement; all of them, in their order, where batch is None.
    objective : (net, x (batch, D), generator) -> rows (batch,), such as those of `losses`.
    steps, seed, batch, rate : numbers of steps and points a step, the seed of everything random,
        and Adam's learning rate.
    final_rate : where given, at most `rate`, which falls to it along half a cosine.
    ema : decay of the averaged weights, None for no averaging.
    snapshots : steps before whose update the weights are kept.
    progress : wraps the range of steps, such as `run.progress` of a study; by default a bar on
        stderr, quiet where that is no terminal.

    Raises
    ------
    ArgumentError : numbers out of range, data of another kind, or a loss that is not finite; the
        step is said.

    >>> import diffscience as ds
    >>> net = ds.nets.Score(1, widths=(16,), seed=0)
    >>> law = ds.gallery.julia_bimodal()
    >>> rows = lambda net, x, generator: ds.losses.implicit(net, x)
    >>> len(fit(net, law, rows, steps=3, seed=0, batch=32).losses)
    3
    """
    floor = rate if final_rate is None else final_rate
    size = 1 if batch is None else batch
    check_numbers(steps=steps, batch=size, seed=seed, rate=rate, final_rate=floor, ema=ema)
    check_data(data, batch)
    function("objective", objective)
    if progress is not None:
        function("progress", progress)
    wanted = steps_of(snapshots, steps)
    instance("net", net, torch.nn.Module)
    home = next(net.parameters(), None)
    if home is None:
        raise ArgumentError("net", "have parameters to train", net)
    generator = torch.Generator(home.device).manual_seed(seed)
    adam = torch.optim.Adam(net.parameters(), lr=rate)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=floor)
    average = (
        None
        if ema is None
        else torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )
    )
    history = History(np.full(steps, np.nan))

    def evaluate(step: int) -> None:
        if step in wanted:
            history.snapshots[step] = _state(net)
        x = _batch(data, batch, generator).to(home)
        value = objective(net, x, generator).mean()
        history.losses[step] = value.item()
        if not np.isfinite(history.losses[step]):
            raise ArgumentError("loss", f"be finite (step {step})", history.losses[step])
        adam.zero_grad()
        value.backward()

    def update(step: int) -> None:
        adam.step()
        fall.step()
        if average is not None:
            average.update_parameters(net)

    done, history.interrupted = updates(steps, evaluate, update, progress)
    history.losses = history.losses[:done]
    if steps in wanted and not history.interrupted:
        history.snapshots[steps] = _state(net)
    if average is not None:
        history.ema = _state(average.module)
    return history


def updates(
    steps: int,
    evaluate: Callable[[int], None],
    update: Callable[[int], None],
    progress: Progress | None,
) -> tuple[int, bool]:
    """evaluate(step), then update(step), for each step; how many updates, and whether Ctrl-C came.

    An update is made whole or not at all.
    """
    done = 0
    try:
        for step in (progress or _bar)(range(steps)):
            evaluate(step)
            with unbroken():
                update(step)
                done = step + 1
    except KeyboardInterrupt:
        return done, True
    return done, False


def averaged(net: torch.nn.Module, history: History) -> torch.nn.Module:
    """The net itself, now with the averaged weights of its training.

    Raises KeyboardInterrupt where Ctrl-C had ended the training: half of one is no result.
    """
    instance("history", history, History)
    if history.interrupted:
        raise KeyboardInterrupt
    if history.ema is None:
        raise ArgumentError("history", "hold averaged weights; train with ema", history.ema)
    net.load_state_dict(history.ema)
    return net


def with_state(network: Network, state: State) -> Network:
    """A copy of a network with other weights, such as a snapshot or the average."""
    instance("network", network, Network)
    net = copy.deepcopy(network.net)
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ArgumentError("state", "hold the weights of the network", str(error)) from error
    return network.with_net(net)


def check_numbers(
    steps: int, batch: int, seed: int, rate: float, final_rate: float, ema: float | None
) -> None:
    """ArgumentError for a number that no training can have."""
    whole("steps", steps, 1)
    whole("batch", batch, 1)
    whole("seed", seed, *SEEDS)
    number("rate", rate, 0, ends="()")
    number("final_rate", final_rate, 0, ends="()")
    if final_rate > rate:
        raise ArgumentError("final_rate", f"be at most rate = {rate:g}", final_rate)
    if ema is not None:
        number("ema", ema, 0, 1, "[)")


def check_data(data: Target | torch.Tensor, batch: int | None) -> None:
    """ArgumentError for data that are neither a law nor points, and a law without a batch."""
    if batch is None and isinstance(data, Target):
        raise ArgumentError("batch", "be a number where the data are a law", batch)
    points = isinstance(data, torch.Tensor) and data.ndim == 2 and len(data) > 0
    if not points and not isinstance(data, Target):
        raise ArgumentError("data", "be a Target or a tensor of points (n, D), n >= 1", data)


def times_of(
    draw: Callable[[int, torch.Generator], torch.Tensor], n: int, generator: torch.Generator
) -> torch.Tensor:
    """draw(n, generator), of shape (n,): others would pair rows with each other."""
    t = draw(n, generator)
    shape = tuple(getattr(t, "shape", ()))
    if shape != (n,):
        raise ArgumentError("times", f"give an array of shape ({n},)", f"shape {shape}")
    return t


def steps_of(snapshots: Iterable[int], steps: int) -> set[int]:
    """The steps whose weights are kept, checked."""
    if not isinstance(snapshots, Iterable):
        raise ArgumentError("snapshots", "be a list of steps", snapshots)
    kept = list(snapshots)
    for step in kept:
        whole("snapshots", step, 0, steps)
    return set(kept)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Ctrl-C waits for the end of the block, so that an update is made whole or not at all."""
    former = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or former is None:
        yield  # Ctrl-C reaches the main thread alone; None: a handler that Python cannot set again
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if pressed:
        signal.raise_signal(signal.SIGINT)


def _bar(steps: Iterable[int]) -> Iterable[int]:
    return tqdm(steps, "training", disable=None, leave=False)


def _state(net: torch.nn.Module) -> State:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _batch(data: Target | torch.Tensor, n: int | None, generator: torch.Generator) -> torch.Tensor:
    if isinstance(data, Target):
        assert n is not None
        return data.sample(n, generator)
    if n is None:
        return data.to(generator.device)
    pick = torch.randint(len(data), (n,), generator=generator, device=generator.device)
    return data.to(generator.device)[pick]
