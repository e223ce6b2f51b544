"""Training: one loop for every network and objective.

    theta <- Adam(grad of the mean over a batch of loss(model, x0, t, noise))
    ema   <- decay ema + (1 - decay) theta

Everything random comes from one seed, on the device of the network, and nothing global is read or
set: the same seed gives the same bits again on the same machine. Ctrl-C ends the training and
returns what was reached.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm import tqdm

from . import losses
from .chain import Chain
from .errors import ArgumentError
from .network import Network
from .process import Process
from .targets import Target

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


def uniform_times(process: Process, earliest: float = 1e-3) -> Callable[..., torch.Tensor]:
    """Times for training: uniform on 1..K of a chain, else uniform on [earliest T, T]."""

    if not 0 < earliest < 1:
        raise ArgumentError("earliest", "lie in (0, 1)", earliest)

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        u = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64)
        if isinstance(process, Chain):
            return torch.floor(u * process.K) + 1
        return process.T * (earliest + (1 - earliest) * u)

    return draw


def train(
    network: Network,
    data: Target | torch.Tensor,
    *,
    steps: int,
    seed: int,
    batch: int = 1024,
    rate: float = 1e-3,
    final_rate: float | None = None,
    loss: losses.Loss = losses.denoising,
    times: Callable[[int, torch.Generator], torch.Tensor] | None = None,
    ema: float | None = None,
    snapshots: Iterable[int] = (),
    progress: Callable[[Iterable[int]], Iterable[int]] | None = None,
) -> History:
    """Train a network in place with Adam.

    Parameters
    ----------
    network : the model; its net is changed.
    data : a `Target`, from which every batch is drawn afresh, or points (n, D), from which batches
        are drawn with replacement.
    steps, seed, batch, rate : numbers of steps and points a step, the seed of everything random,
        and Adam's learning rate.
    final_rate : where given, the rate falls to it along half a cosine.
    loss : (network, x0, t, noise) -> (batch,); its mean is minimised.
    times : (n, generator) -> (n,); `uniform_times` by default.
    ema : decay of the averaged weights, None for no averaging.
    snapshots : steps before whose update the weights are kept.
    progress : wraps the range of steps, such as `run.progress` of a study; by default a bar on
        stderr, quiet where that is no terminal.

    Raises
    ------
    ArgumentError : numbers out of range, data of another kind, or a loss that is not finite; the
        step is said.
    """
    for name, value in (("steps", steps), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ArgumentError(name, "be a whole number of at least 1", value)
    if ema is not None and not 0 <= ema < 1:
        raise ArgumentError("ema", "lie in [0, 1)", ema)
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise ArgumentError("seed", "be a whole number", seed)
    floor = rate if final_rate is None else final_rate
    for name, number in (("rate", rate), ("final_rate", floor)):
        if not 0 < number < np.inf:
            raise ArgumentError(name, "be a positive number", number)
    wanted = set(snapshots)
    if any(not 0 <= step <= steps for step in wanted):
        raise ArgumentError("snapshots", f"lie in 0 ... {steps}", sorted(wanted))
    points = isinstance(data, torch.Tensor) and data.ndim == 2 and len(data) > 0
    if not points and not isinstance(data, Target):
        raise ArgumentError("data", "be a Target or a tensor of points (n, D), n >= 1", data)
    home = next(network.net.parameters())
    generator = torch.Generator(home.device).manual_seed(seed)
    draw_times = times or uniform_times(network.process)
    adam = torch.optim.Adam(network.net.parameters(), lr=rate)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps, eta_min=floor)
    average = (
        None
        if ema is None
        else torch.optim.swa_utils.AveragedModel(
            network.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        )
    )
    history = History(np.full(steps, np.nan))
    done = 0
    try:
        for step in (progress or _bar)(range(steps)):
            if step in wanted:
                history.snapshots[step] = _state(network.net)
            x0 = _batch(data, batch, generator).to(home)
            noise = torch.randn(x0.shape, generator=generator, device=home.device, dtype=home.dtype)
            value = loss(network, x0, draw_times(batch, generator), noise).mean()
            history.losses[step] = value.item()
            if not np.isfinite(history.losses[step]):
                raise ArgumentError("loss", f"be finite (step {step})", history.losses[step])
            adam.zero_grad()
            value.backward()
            adam.step()
            fall.step()
            if average is not None:
                average.update_parameters(network.net)
            done = step + 1
    except KeyboardInterrupt:
        history.interrupted = True
        history.losses = history.losses[:done]
    if steps in wanted and not history.interrupted:
        history.snapshots[steps] = _state(network.net)
    if average is not None:
        history.ema = _state(average.module)
    return history


def with_state(network: Network, state: State) -> Network:
    """A copy of a network with other weights, such as a snapshot or the average."""
    net = copy.deepcopy(network.net)
    net.load_state_dict(state)
    return Network(net, network.process, network.predicts, network.time)


def _bar(steps: Iterable[int]) -> Iterable[int]:
    return tqdm(steps, "training", disable=None, leave=False)


def _state(net: torch.nn.Module) -> State:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def _batch(data: Target | torch.Tensor, n: int, generator: torch.Generator) -> torch.Tensor:
    if isinstance(data, Target):
        return data.sample(n, generator)
    pick = torch.randint(len(data), (n,), generator=generator, device=generator.device)
    return data.to(generator.device)[pick]
