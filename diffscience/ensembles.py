"""Ensembles: many small networks evaluated and trained as one batched computation.

    Ensemble    S networks of one shape:  h_s <- silu(h_s W_s + b_s),  all s in one product
    together    theta_s <- Adam(grad of L_s),  L_s the mean of member s's loss over its own batch

The gradient of the sum of all L_s in theta_s is that of L_s alone, and Adam works entry by entry,
so each member moves as it would alone. It draws from its own seed what `train.train` would draw, in
the same order: `together` gives what `train.train` gives, within rounding.

Conventions: rows come in blocks, [s n, (s+1) n) those of member s. A `Network` over an `Ensemble`
answers for x (S, n, D), or for those rows (S n, D), with one time or one for each point.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import losses
from . import times as laws
from .arrays import Draws
from .chain import Chain
from .errors import ArgumentError, function, instance, whole
from .nets import MLP, SEEDS, Batched
from .network import Network
from .targets import Target
from .train import (
    History,
    Progress,
    State,
    check_data,
    check_numbers,
    steps_of,
    times_of,
    unbroken,
    updates,
)

Data = Target | torch.Tensor
Times = Callable[[int, torch.Generator], torch.Tensor]

CHECKED = (0, 10, 100, 1000)  # steps at which a loss is asked for some rows alone too


class Ensemble(Batched):
    """S time-conditioned networks of one shape as one: net(x, t) on rows in blocks.

    Parameters
    ----------
    members : `nets.MLP` of one dimension, equal widths and numbers of frequencies, in one dtype on
        one device; copied.

    Raises ArgumentError for members that differ in shape, have classes, or are no `nets.MLP`.

    >>> import diffscience as ds
    >>> net = Ensemble([MLP(2, widths=(8,), seed=k) for k in range(3)])
    >>> net(torch.zeros(12, 2), torch.zeros(12)).shape
    torch.Size([12, 2])
    >>> model = ds.Network(net, ds.VP(), predicts="x0")
    >>> model.score(np.zeros((3, 5, 2)), 0.5).shape
    (3, 5, 2)
    """

    frequencies: torch.Tensor

    kind = MLP

    def __init__(self, members: Sequence[MLP]) -> None:
        super().__init__(members)
        if any(member.classes for member in members):
            raise ArgumentError("members", "have no classes", [m.classes for m in members])
        self.register_buffer("frequencies", torch.stack([m.frequencies for m in members]))

    @property
    def members(self) -> int:
        """S, by which a `Network` knows that the first axis of its points counts members."""
        return self.size

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x (S n, D), t (S n,) -> (S n, outputs); rows [s n, (s+1) n) through member s."""
        if x.ndim != 2 or len(x) % self.size or t.shape != x.shape[:1]:
            rule = f"be rows (n, D) with times (n,), n a multiple of the {self.size} members"
            raise ArgumentError("x", rule, f"shapes {tuple(x.shape)} and {tuple(t.shape)}")
        n = len(x) // self.size
        times = t.reshape(self.size, n, 1)
        angle = 2 * torch.pi * times * self.frequencies[:, None]
        seen = [x.reshape(self.size, n, x.shape[1]), times, torch.sin(angle), torch.cos(angle)]
        return self.through(torch.cat(seen, dim=-1)).flatten(0, 1)

    def state(self, i: int) -> State:
        """The weights of member i, 0 <= i < S, as `nets.MLP` names them; copies."""
        whole("i", i, 0, self.size - 1)
        names = [*(f"hidden.{k}" for k in range(len(self.weights) - 1)), "out"]
        found = {"frequencies": self.frequencies[i].clone()}
        for name, weight, bias in zip(names, self.weights, self.biases):
            found[f"{name}.weight"] = weight[i].detach().T.clone()
            found[f"{name}.bias"] = bias[i, 0].detach().clone()
        return found

    def member(self, i: int) -> MLP:
        """Member i, 0 <= i < S, as a network of its own; a copy."""
        state = self.state(i)
        *widths, outputs = (bias.shape[-1] for bias in self.biases)
        frequencies = state["frequencies"].tolist()
        dim = self.weights[0].shape[1] - 1 - 2 * len(frequencies)
        net = MLP(dim, widths, frequencies, outputs=outputs).to(self.weights[0])
        net.load_state_dict(state)
        return net

    def part(self, i: int, j: int) -> Ensemble:
        """Members i to j - 1, 0 <= i < j <= S; a copy.

        >>> Ensemble([MLP(1, widths=(8,), seed=k) for k in range(3)]).part(1, 3).members
        2
        """
        whole("i", i, 0, self.size - 1)
        whole("j", j, i + 1, self.size)
        return Ensemble([self.member(k) for k in range(i, j)])


class Crowd(Draws):
    """`Draws` for S members at once: block s of n rows is what generator s alone would draw.

    >>> crowd = Crowd([torch.Generator().manual_seed(seed) for seed in (5, 6)])
    >>> alone = Draws(torch.Generator().manual_seed(6))
    >>> torch.equal(crowd.uniform(8)[4:], alone.uniform(4))
    True
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__(generators[0])
        self.generators = generators

    def filled(
        self, fill: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """A tensor (S n, ...) each of whose blocks fill(block, generator=...) has filled."""
        out = torch.empty(shape, dtype=dtype, device=self.generator.device)
        for block, generator in zip(out.chunk(len(self.generators)), self.generators):
            fill(block, generator=generator)
        return out

    def _torch(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        fill = {"rand": torch.Tensor.uniform_, "randn": torch.Tensor.normal_}[name]
        return self.filled(fill, shape, torch.float64)


def together(
    networks: Sequence[Network],
    data: Data | Sequence[Data],
    *,
    steps: int,
    seeds: Sequence[int],
    batch: int = 256,
    rate: float | Sequence[float] = 1e-3,
    final_rate: float | Sequence[float] | None = None,
    loss: losses.Loss | Sequence[losses.Loss] = losses.denoising,
    times: Times | Sequence[Times | None] | None = None,
    ema: float | Sequence[float | None] | None = None,
    snapshots: Iterable[int] = (),
    progress: Progress | None = None,
) -> list[History]:
    """Train many networks in place, each as `train.train` does alone, as one batched computation.

    Network s becomes what `train.train(networks[s], data, seed=seeds[s], ...)` makes of it: points,
    noise and times are the same numbers, and weights agree within the rounding of their dtype,
    whoever else is trained and in whatever order. Networks of one shape that share process,
    prediction, loss and times are evaluated in one call, others group by group.

    Parameters
    ----------
    networks : S models over `nets.MLP`, all on one device; no net twice.
    data : a `Target`, from which every batch is drawn afresh, or points (n, D), from which batches
        are drawn with replacement; one for all or a list with one for each network.
    seeds : S whole numbers, each of all that is random in the training of its network.
    batch : points a step for each network.
    rate, final_rate, loss, times, ema : as for `train.train`, one for all or a list with one for
        each network. A loss treats its rows one by one, which some steps make sure of; networks
        share a call where it is one and the same function.
    steps, snapshots, progress : as for `train.fit`.

    Returns the `train.History` of each network. Ctrl-C ends the training of all between two updates
    and marks all as interrupted. Raises ArgumentError for bad arguments, and for a loss that is not
    finite, with its network and step; the weights are then those before that step.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> nets = [ds.Network(MLP(1, widths=(8,), seed=k), ds.VP()) for k in (0, 1, 2, 1)]
    >>> found = together(nets[:3], law, steps=2, seeds=[5, 6, 7], batch=16)
    >>> alone = ds.train.train(nets[3], law, steps=2, seed=6, batch=16)
    >>> bool(np.allclose(found[1].losses, alone.losses, rtol=1e-5))
    True
    """
    members = _members(networks, data, seeds, rate, final_rate, loss, times, ema)
    for one in members:
        whole("seeds", one.seed, *SEEDS)
        check_numbers(steps, batch, one.seed, one.rate, one.floor, one.ema)
        check_data(one.data, batch)
        function("loss", one.loss)
        if one.times is not None:
            function("times", one.times)
    if progress is not None:
        function("progress", progress)
    wanted = steps_of(snapshots, steps)
    groups: dict[Any, list[_Member]] = {}
    for one in members:
        groups.setdefault(one.key(), []).append(one)
    crews = [_Crew(group, batch) for group in groups.values()]
    adam = torch.optim.Adam([way for crew in crews for way in crew.ways], lr=1.0, fused=True)
    histories = [History(np.full(steps, np.nan)) for _ in members]

    def keep(step: int) -> None:
        for crew in crews:
            for i, one in enumerate(crew.members):
                histories[one.place].snapshots[step] = crew.net.state(i)

    def evaluate(step: int) -> None:
        if step in wanted:
            keep(step)
        means = torch.cat([crew.means(check=step in CHECKED) for crew in crews])
        for one, value in zip((one for crew in crews for one in crew.members), means.tolist()):
            histories[one.place].losses[step] = value
            if not math.isfinite(value):
                raise ArgumentError("loss", f"be finite (network {one.place}, step {step})", value)
        for crew in crews:
            crew.net.zero_grad()
        means.sum().backward()

    def update(step: int) -> None:
        for crew in crews:
            crew.aim()
        adam.step()
        for crew in crews:
            crew.move(0.5 + 0.5 * math.cos(math.pi * step / steps))

    try:
        done, interrupted = updates(steps, evaluate, update, progress)
    finally:
        with unbroken():
            for crew in crews:
                crew.hand_back()
    if steps in wanted and not interrupted:
        keep(steps)
    for crew in crews:
        for i, one in enumerate(crew.members):
            if crew.average is not None and one.ema is not None:
                histories[one.place].ema = crew.average.state(i)
    for history in histories:
        history.losses, history.interrupted = history.losses[:done], interrupted
    return histories


# ---------------------------------------------------------------- members, and those of one call


@dataclass(frozen=True)
class _Member:
    """A network and all that its training has of its own; place: in the caller's list."""

    place: int
    network: Network
    data: Data
    seed: int
    rate: float
    floor: float
    loss: losses.Loss
    times: Times | None
    ema: float | None

    def key(self) -> tuple[Any, ...]:
        """What members of one call share: shape, loss, times, and all of a network but its net."""
        shape = tuple((p.shape, p.dtype, p.device) for p in self.network.net.parameters())
        about = [value for name, value in sorted(vars(self.network).items()) if name != "net"]
        return (type(self.network), shape, *map(_mark, [*about, self.loss, self.times]))


def _mark(value: Any) -> Any:
    """Equal for values that are the same to a network, as chains of the same betas are."""
    if isinstance(value, Chain):
        return value.betas.tobytes()
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value


def _members(
    networks: Any, data: Any, seeds: Any, rate: Any, final_rate: Any, *others: Any
) -> list[_Member]:
    """Each network with its own of what may be one for all; nets and lengths are checked."""
    if not isinstance(networks, Sequence) or len(networks) == 0:
        raise ArgumentError("networks", "be a list of one or more networks", networks)
    for network in networks:
        instance("networks", network, Network)
        if type(network.net) is not MLP:
            raise ArgumentError("networks", "be over nets.MLP", type(network.net).__name__)
    devices = {next(network.net.parameters()).device for network in networks}
    if len(devices) > 1:
        raise ArgumentError("networks", "be on one device", ", ".join(map(str, devices)))
    size = len(networks)
    if len({id(network.net) for network in networks}) < size:
        raise ArgumentError("networks", "have a net each, since all are changed", "one net twice")
    if not isinstance(seeds, (Sequence, np.ndarray)):
        raise ArgumentError("seeds", "be a list with one for each network", seeds)
    names = ("data", "seeds", "rate", "final_rate", "loss", "times", "ema")
    columns = []
    for name, value in zip(names, (data, seeds, rate, final_rate, *others)):
        if name == "final_rate" and value is None:
            value = rate
        column = list(value) if isinstance(value, (Sequence, np.ndarray)) else [value] * size
        if len(column) != size:
            rule = f"be one for all or one for each of the {size} networks"
            raise ArgumentError(name, rule, f"{len(column)}")
        columns.append(column)
    return [_Member(place, *own) for place, own in enumerate(zip(networks, *columns))]


class _Crew:
    """Members that are evaluated in one call: what they draw, and what moves them."""

    def __init__(self, members: list[_Member], batch: int) -> None:
        # Members with the same data side by side, so that these are drawn in one call.
        data = {id(one.data): one.data for one in members}
        self.members = [one for law in data for one in members if id(one.data) == law]
        # To the types the net is any module; here it is an MLP.
        self.net = Ensemble([one.network.net for one in self.members])  # type: ignore[misc]
        self.network = members[0].network.with_net(self.net)
        self.loss, self.times, self.batch = members[0].loss, members[0].times, batch
        self.home = self.net.weights[0]
        drawing = [torch.Generator(self.home.device).manual_seed(m.seed) for m in self.members]
        self.crowd = Crowd(drawing)
        self.sources = [
            (law, Crowd([g for one, g in zip(self.members, drawing) if one.data is law]))
            for law in data.values()
        ]
        # Adam has one rate for a tensor: it takes a step of rate 1 along `ways`, from 0, and each
        # member goes along it at its own rate.
        self.ways = [torch.nn.Parameter(torch.zeros_like(p)) for p in self.net.parameters()]
        self.floor = self._column([one.floor for one in self.members])
        self.fall = self._column([one.rate for one in self.members]) - self.floor
        averaged = any(one.ema is not None for one in members)
        self.average, self.moved = copy.deepcopy(self.net) if averaged else None, False
        self.fresh = self._column([1 - (one.ema or 0.0) for one in self.members])

    def _column(self, numbers: list[float]) -> torch.Tensor:
        """A number for each member beside its weights, (S, 1, 1)."""
        return torch.tensor(numbers, dtype=torch.float64)[:, None, None].to(self.home)

    def _drawn(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Points, noise and times of all members; each draws them in this order."""
        x0 = torch.cat([_points(law, self.batch, crowd) for law, crowd in self.sources])
        x0 = x0.to(self.home)
        noise = self.crowd.filled(torch.Tensor.normal_, tuple(x0.shape), x0.dtype)
        law = self.times or laws.uniform(self.network.process)
        if isinstance(law, laws.Times) and law.stream is laws.independent:
            t = law.quantile(self.crowd.uniform(len(x0)))
        else:
            t = torch.cat([times_of(law, self.batch, g) for g in self.crowd.generators])
        return x0, t, noise

    def means(self, check: bool) -> torch.Tensor:
        """The mean loss of each member, (S,), over what it draws."""
        drawn = self._drawn()
        rows = self._rows(self.network, *drawn)
        if check:
            self._check(rows, *drawn)
        return rows.reshape(self.net.size, -1).mean(dim=1)

    def _rows(self, network: Network, x0: Any, t: Any, noise: Any) -> torch.Tensor:
        rows = self.loss(network, x0, t, noise)
        shape = tuple(getattr(rows, "shape", ()))
        if shape != (len(x0),):
            raise ArgumentError("loss", f"give an array of shape ({len(x0)},)", f"shape {shape}")
        return rows

    def _check(self, rows: torch.Tensor, *drawn: torch.Tensor) -> None:
        """The loss of the first and of the last member alone is the same."""
        for i in {0, self.net.size - 1} if self.net.size > 1 else ():
            own = slice(i * self.batch, (i + 1) * self.batch)
            network = self.network.with_net(self.net.part(i, i + 1))
            alone, here = self._rows(network, *(a[own] for a in drawn)).detach(), rows[own].detach()
            off = (alone - here).abs() > 1e-3 * (here.abs() + here.abs().mean())
            if bool(off.any()):
                found = f"{int(off.sum())} of {self.batch} rows that differ when a member is alone"
                raise ArgumentError("loss", "treat its rows one by one", found)

    def aim(self) -> None:
        """The gradients of the weights for Adam to step along."""
        for weight, way in zip(self.net.parameters(), self.ways):
            way.grad = weight.grad
            way.detach().zero_()

    @torch.no_grad()
    def move(self, share: float) -> None:
        """A step of each member at floor + share (rate - floor), and the averages."""
        rate = self.floor + share * self.fall
        for weight, way in zip(self.net.parameters(), self.ways):
            weight.addcmul_(way, rate)
        if self.average is not None:
            fresh = self.fresh if self.moved else torch.ones_like(self.fresh)
            for mean, weight in zip(self.average.parameters(), self.net.parameters()):
                mean.lerp_(weight, fresh)
        self.moved = True

    @torch.no_grad()
    def hand_back(self) -> None:
        """The weights into the nets that the members came with."""
        for i, one in enumerate(self.members):
            one.network.net.load_state_dict(self.net.state(i))


def _points(data: Data, batch: int, crowd: Crowd) -> torch.Tensor:
    """Points for the members of a crowd, those of each as `train.fit` draws them for it alone."""
    size = batch * len(crowd.generators)
    if isinstance(data, Target):
        return data._drawn(size, crowd)
    data = data.to(crowd.generator.device)

    def pick(block: torch.Tensor, generator: torch.Generator) -> None:
        block.random_(0, len(data), generator=generator)

    return data[crowd.filled(pick, (size,), torch.int64)]
