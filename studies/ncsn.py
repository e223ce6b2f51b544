"""Noise-conditional score networks: the note "mdsm" replayed, its four faults, and none of them.

Levels sigma_1 > ... > sigma_L, s(x, sigma) the score of p_sigma = p * N(0, sigma^2).  Training
minimises the mean over the levels of sigma_i^2 |s(x + sigma_i z, sigma_i) + z/sigma_i|^2 / 2;
sampling walks down the levels, n_i steps x <- x + h_i s(x, sigma_i) + sqrt(2 h_i) z at each (Song
and Ermon 2019), which takes the time T = sum n_i h_i.

The page *Multiple denoising score matching* of R. Rosa's random_notes (CC BY 4.0; built with Julia
1.12.1) does so on 0.1 N(-3, 1) + 0.9 N(3, 1), and its samples have too much mass on the left.  Its
training and its 256 samples are replayed here from their random streams (`PUBLISHED`, `BARS`:
what the page shows, to be compared with and nothing else).  Then its four faults are switched on
and off, with the exact score and with a network:

    shared noise        one z for all levels of a point (training only: nothing to the exact score)
    unequal counts      the level at step k is div(k, M + 1) + 1: M - 1, M + 1, ..., M + 1, the rest
    sigma_min = 0.5     the samples keep the variance 0.25 of the last level
    start N(0, 1)       at sigma_1 = 2, where p_sigma has mean 2.4 and variance 8.24

at three paces.  "note": 50 steps at each level, all of one length, that take the note's time T = 10
together, however many levels there are; its start is mended by one from p_sigma_1 itself.
"longer": the same in the time that the note's own step h = 0.0125 takes when its levels go on to
the smaller sigma_min, T = 25.6.  So it is seen that a smaller sigma_min mends the width of the
samples and not the weights of the modes: in the same time it makes those worse, because it takes
time from the levels where modes exchange mass, and only the longer time makes them better.
"slow": NCSN's rule h_i = c sigma_i^2, n steps at each level; its start is mended by a first level
so large that N(0, sigma_1^2) is as good as p_sigma_1, which one row starts from for comparison.
What is left with all faults off is annealing's own bias, since the modes stop to exchange mass at
some level: table "steps" has it against the number of steps.

Beside every left weight stands its limit for infinitely short steps, by Fokker-Planck with the very
score that made the samples.  Where learned and exact scores leave different weights, so do their
limits: it is the score in the gap between the modes that differs, where few points fall, not the
sampling.

One network of (x, log sigma) is trained on all levels of the slow pace at once, every point with a
z of its own for each level; another one with one z for all levels of a point, and else alike.  They
serve every setting.  In the plane every level has points of its own, too, from which as many rows
teach more.  In one dimension a score is read off a table by linear interpolation.  Runs of one
score differ by sampling alone, and their errors are of that; runs of several networks have the
larger of it and the spread between them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import fokker_planck, gallery, losses, metrics, nets, notes, plots
from diffscience.ensembles import together
from diffscience.errors import ArgumentError, instance, number, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro, network
from diffscience.mixture import GaussianMixture
from diffscience.models import Oracle
from diffscience.network import Network
from diffscience.process import EDM
from diffscience.regression import Params, Regression, apply
from diffscience.study import Run, Study, run_file
from diffscience.train import averaged
from diffscience.transition import Transition

Arrays = dict[str, np.ndarray]
Score = Callable[[Any, float], Any]

PUBLISHED_FIRST_GRADIENT = 22.073953377107767
PUBLISHED = {  # epoch -> loss
    50 * (i + 1): float(loss)
    for i, loss in enumerate(
        """
        0.421606670713073 0.37060237037864924 0.3510065271952816 0.32678324360457717
        0.31034354146437804 0.33423218941198585 0.31526974973273664 0.3188117558846085
        0.2975144744482348 0.30187425098577436 0.29523852672237094 0.30701505890355335
        0.31595139324544913 0.2944143912928159 0.3077361268326157 0.2953219121051579
        0.2717302253257928 0.3038028954737932 0.31559779118806014 0.3002877469733034
        """.split()
    )
}
# The bars of the histogram of its 256 samples, of width 0.5 from -5.5 on, read off the figure.
BARS = (2, 2, 3, 8, 5, 5, 3, 1, 3, 1, 5, 4, 12, 19, 22, 44, 39, 19, 21, 25, 8, 3, 1, 0, 0, 0, 0, 1)
BAR, FIRST_BAR = 0.5, -5.5

NOTE_LEVELS, NOTE_FIRST, NOTE_LAST, NOTE_STEPS, NOTE_TIME = 16, 2.0, 0.5, 50, 10.0
NOTE_EPOCHS, NOTE_POINTS, NOTE_SAMPLES = 1000, 1024, 256
FAULTS = ("shared noise", "unequal counts", "sigma_min = 0.5", "start N(0, 1)")
SHARED, COUNTS, LAST, START = FAULTS
TRUE_START = "start p_sigma_1"  # no fault, but what the mended start is compared with
WIDER = tuple(fault for fault in FAULTS if fault != LAST)
SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("note", FAULTS),
    *(("note", tuple(f for f in FAULTS if f != mended)) for mended in FAULTS),
    ("longer", FAULTS),
    ("longer", WIDER),
    ("slow", ()),
    *(("slow", (fault,)) for fault in FAULTS),
    ("slow", (TRUE_START,)),
)
LAW = gallery.julia_bimodal()
WEIGHT = float(np.asarray(LAW.weights)[0])  # of the left mode


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    epochs : of the replay; the note's for its samples to come out.
    first, last, levels : sigma_1, sigma_L and L of the slow pace.
    steps, step : n and c of the slow pace, h_i = c sigma_i^2.
    particles, seeds : points of a run, and runs (networks, where learned) of every setting; the
        networks of one kind are trained side by side.
    repeats, draws : true samples behind a floor, and draws of the note's loss.
    training_steps, batch, width : of the networks; each step takes `batch` points at every level.
    rate, final_rate, ema : Adam's learning rate, what it falls to, and the decay of the averaged
        weights.
    fewer : the other n of the table "steps".
    intervals : steps of Crank-Nicolson at each level in the limits for small h.
    plane_steps, plane_particles, plane_training : steps at each level, points and training steps in
        two dimensions, where every level has points of its own.
    frames : of the animation, at most; one for each level where there are fewer.
    """

    epochs: int = NOTE_EPOCHS
    first: float = 10.0
    last: float = 0.05
    levels: int = 20
    steps: int = 150
    step: float = 0.25
    particles: int = 2500
    seeds: int = 8
    repeats: int = 8
    draws: int = 16
    training_steps: int = 8000
    batch: int = 32
    rate: float = 2e-2
    final_rate: float = 1e-5
    ema: float = 0.999
    width: int = 64
    fewer: tuple[int, ...] = (5, 10, 20, 40, 80)
    intervals: int = 40
    plane_steps: int = 100
    plane_particles: int = 1600
    plane_training: int = 5000
    frames: int = 41
    seed: int = 30

    def __post_init__(self) -> None:
        two = ("levels", "steps", "particles", "seeds", "repeats", "draws", "plane_particles")
        one = ("epochs", "training_steps", "batch", "width", "plane_steps", "plane_training")
        for name in (*two, *one, "intervals", "frames"):
            whole(name, getattr(self, name), 1 if name in one else 2)
        instance("fewer", self.fewer, tuple)
        for n in self.fewer:
            whole("fewer", n, 1)
        number("first", self.first, NOTE_FIRST, EDM().T, "(]")
        number("last", self.last, 0, NOTE_LAST, "()")
        number("step", self.step, 0, 2, "()")  # where a step is stable
        number("ema", self.ema, 0, 1, "[)")
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")


QUICK = Config(
    epochs=50, levels=12, steps=20, particles=300, seeds=2, repeats=2, draws=4,
    training_steps=40, batch=64, ema=0.9, width=32, fewer=(5,), intervals=10, plane_steps=15,
    plane_particles=400, plane_training=40, frames=4,
)  # fmt: skip


# ---------------------------------------------------------------- levels and plans


@dataclasses.dataclass(frozen=True)
class Plan:
    """levels sigma_i; h and counts n_i of the steps at each; variance of the Gaussian start.

    variance : None for a start from p_sigma_1 itself.
    """

    levels: np.ndarray
    h: np.ndarray
    counts: np.ndarray
    variance: float | None

    @property
    def time(self) -> float:
        """T = sum n_i h_i."""
        return float(self.counts @ self.h)

    def start(self, law: GaussianMixture) -> GaussianMixture:
        """The law that the annealing begins with."""
        if self.variance is None:
            return law.blurred(self.levels[0])
        centre = np.zeros((1, law.dim))
        return GaussianMixture([1.0], centre, self.variance * np.eye(law.dim)[None])


def ladder(first: float, last: float, ratio: float) -> np.ndarray:
    """Geometric levels from first to last, each about `ratio` times the one before."""
    return np.geomspace(first, last, 1 + max(1, round(math.log(last / first) / math.log(ratio))))


def note_counts(levels: int, steps: int) -> np.ndarray:
    """Steps at each level where step k = 2, ..., L M is at level div(k, M + 1) + 1."""
    return np.bincount(np.arange(2, levels * steps + 1) // (steps + 1), minlength=levels)


def ladder_of(config: Config, pace: str, faults: tuple[str, ...]) -> np.ndarray:
    """The levels of a setting."""
    last = NOTE_LAST if LAST in faults else config.last
    if pace == "slow":
        ratio = (config.last / config.first) ** (1 / (config.levels - 1))
        return ladder(NOTE_FIRST if START in faults else config.first, last, ratio)
    return ladder(NOTE_FIRST, last, (NOTE_LAST / NOTE_FIRST) ** (1 / (NOTE_LEVELS - 1)))


def plan_of(config: Config, pace: str, faults: tuple[str, ...]) -> Plan:
    """How a setting samples."""
    levels = ladder_of(config, pace, faults)
    size, steps = len(levels), config.steps if pace == "slow" else NOTE_STEPS
    counts = note_counts(size, steps) if COUNTS in faults else np.full(size, steps)
    if pace == "slow":
        h, mended = config.step * levels**2, None if TRUE_START in faults else config.first**2
    else:
        time = NOTE_TIME
        if pace == "longer":
            time *= len(ladder_of(config, "note", WIDER)) / NOTE_LEVELS
        h, mended = np.full(size, time / size / steps), None
    return Plan(levels, h, counts, 1.0 if START in faults else mended)


def with_steps(plan: Plan, n: int) -> Plan:
    """The same with n steps at every level."""
    return dataclasses.replace(plan, counts=np.full(len(plan.levels), n))


def levels_of(config: Config) -> np.ndarray:
    """The levels of the slow pace."""
    return ladder_of(config, "slow", ())


def all_levels(config: Config) -> np.ndarray:
    """Every level of every setting, decreasing."""
    return np.unique(np.concatenate([ladder_of(config, *setting) for setting in SETTINGS]))[::-1]


class Table:
    """A 1-D score s(x, sigma) at the levels given, linear between `nodes` and constant outside.

    nodes (L, M): increasing, even; values (L, M).
    """

    def __init__(self, levels: np.ndarray, values: np.ndarray) -> None:
        self.levels, self.values = levels, np.asarray(values, float)
        self.nodes = nodes_of(levels, self.values.shape[1])

    def __call__(self, x: np.ndarray, level: float) -> np.ndarray:
        """The score at x (n, 1)."""
        [i] = np.flatnonzero(self.levels == level)
        return np.interp(x[:, 0], self.nodes[i], self.values[i])[:, None]


def nodes_of(levels: np.ndarray, m: int = 3001) -> np.ndarray:
    """(L, m) nodes on [-r, r], r = 9 + 6 sigma: six deviations and more of every p_sigma."""
    return (9 + 6 * levels[:, None]) * np.linspace(-1, 1, m)


def tabulated(score: Score, levels: np.ndarray, m: int = 3001) -> np.ndarray:
    """The values (L, m) of a `Table`."""
    grid = nodes_of(levels, m)
    rows = [score(x[:, None], float(s))[:, 0] for x, s in zip(grid, levels, strict=True)]
    return np.stack(rows)


def exact(x: np.ndarray, sigma: float) -> np.ndarray:
    """The score of p_sigma in one dimension."""
    return LAW.blurred(sigma).score(x)


def left_share(x: np.ndarray) -> np.ndarray:
    """P(left mode | x) at points x (n,): its mean is the left weight."""
    return metrics.responsibilities(x[:, None], LAW)[:, 0]


# ---------------------------------------------------------------- the note


def noisy(rng: Xoshiro, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (x', sigma), targets (x - x')/sigma and factors sigma: one z for all levels."""
    sigmas = note_levels()
    x = points[:, None] + sigmas * rng.randn((1, len(points))).T
    target = (points[:, None] - x) / sigmas
    sigma = np.tile(sigmas, len(points))
    return np.stack([x.ravel(), sigma], -1), target.reshape(-1, 1), sigma[:, None]


def note_levels() -> np.ndarray:
    """2.0 theta^(i - 1), theta = (0.5/2.0)^(1/15): the note's own arithmetic."""
    theta = (NOTE_LAST / NOTE_FIRST) ** (1 / (NOTE_LEVELS - 1))
    return NOTE_FIRST * theta ** np.arange(NOTE_LEVELS)


def replay(epochs: int) -> Arrays:
    """Training and sampling in the order of the note's stream: losses, weights, 256 samples."""
    rng = Xoshiro(12345)
    points = notes.sample_points(rng, NOTE_POINTS)
    start = network(rng, (2, 64, 1))
    half = math.sqrt(0.5)  # its loss is half a mean of squares
    fitted = Regression(start, 0.01)
    inputs, target, factor = noisy(rng, points)
    checked = fitted.gradient(inputs, half * target, half * factor)[0]
    found = []
    for _ in range(epochs):
        inputs, target, factor = noisy(rng, points)
        found.append(fitted.step(inputs, half * target, half * factor))
    x = note_samples(fitted.params, rng)
    packed = {
        f"{kind}{i}": a for i, pair in enumerate(fitted.params) for kind, a in zip("wb", pair)
    }
    facts = {"points": points, "checked": np.array(checked), "loss": np.array(found), "samples": x}
    return {**facts, "left": np.array(mean_and_error(left_share(x))), **packed}


def note_samples(params: Params, rng: Xoshiro) -> np.ndarray:
    """Where the note's annealing ends."""
    h, levels = NOTE_TIME / NOTE_LEVELS / NOTE_STEPS, note_levels()
    x = rng.randn(NOTE_SAMPLES)
    for i, count in enumerate(note_counts(NOTE_LEVELS, NOTE_STEPS)):
        for _ in range(count):
            s = note_score(params, x[:, None], levels[i])[:, 0]
            x = x + s * h + math.sqrt(2 * h) * rng.randn(NOTE_SAMPLES)
    return x


def note_score(params: Params, x: np.ndarray, sigma: float) -> np.ndarray:
    """The note's network at x (n, 1)."""
    return apply(params, np.concatenate([x, np.full_like(x, sigma)], -1))


def in_note(levels: np.ndarray) -> np.ndarray:
    """Which levels lie in the range that the note's network was trained on."""
    return (levels >= NOTE_LAST) & (levels <= NOTE_FIRST)


# ---------------------------------------------------------------- the network


def loss_of(levels: np.ndarray, noise: str) -> losses.Loss:
    """(network, x0, t, noise) -> rows of NCSN's loss, as many at each level, level by level.

    noise : "own", all points at every level, one z for each point and level; "shared", one z for
        all levels of a point; "apart", a part of the points at each level, no two at one.
    """

    def rows(network: Network, x: Any, t: Any, z: Any) -> torch.Tensor:
        def alike(a: torch.Tensor) -> torch.Tensor:
            """Each member's rows of the first level at all levels."""
            a = a.reshape(network.members or 1, len(levels), -1, a.shape[-1])
            return a[:, :1].expand(a.shape).reshape(x.shape)

        var = t.to(x) ** 2
        size = torch.sqrt(1 + var)[:, None]  # of the rest `networks_of` takes care
        x, z = x if noise == "apart" else alike(x), alike(z) if noise == "shared" else z
        psi = lambda y: network.prediction(y, t) / size  # noqa: E731
        return var * losses.denoising_at(psi, x, z, Transition(1.0, var))

    return rows


def networks_of(config: Config, law: GaussianMixture, seeds: list[int]) -> list[Network]:
    """Networks that answer sqrt(1 + sigma^2) times what a `nets.Scaled` of their net does."""
    found = [nets.MLP(law.dim, (config.width, config.width), (), seed) for seed in seeds]
    second = nets.Scaled(found[0], law).second

    def scale(sigma: torch.Tensor) -> torch.Tensor:
        return 1 / torch.sqrt(second + sigma**2)

    return [Network(net, EDM(), time=torch.log, scale=scale) for net in found]


def trained(
    config: Config, law: GaussianMixture, noise: str, steps: int, keys: list[str], run: Run
) -> list[nets.Scaled]:
    """A network with averaged weights for each key, trained side by side."""
    levels = torch.from_numpy(levels_of(config))
    networks = networks_of(config, law, [run.seed_for(key, "weights") for key in keys])
    for one in networks:
        one.net.to(run.device)
    histories = together(
        networks,
        law,
        loss=loss_of(levels_of(config), noise),
        times=lambda n, generator: levels.to(generator.device).repeat_interleave(n // len(levels)),
        steps=steps,
        seeds=[run.seed_for(key, "training") for key in keys],
        batch=config.batch * len(levels),
        rate=config.rate,
        final_rate=config.final_rate,
        ema=config.ema,
        progress=lambda steps: run.progress(steps, f"training, {keys[0]} to {keys[-1]}"),
    )
    for one, history in zip(networks, histories, strict=True):
        averaged(one.net, history).cpu().requires_grad_(False)
    # To the types the net is any module; here it is an MLP.
    return [nets.Scaled(one.net, law) for one in networks]  # type: ignore[arg-type]


def relative_fisher(score: Score, law: GaussianMixture, levels: np.ndarray) -> np.ndarray:
    """E|s_model - s|^2/E|s|^2 under p_sigma at each level, by quadrature; EDM: t = sigma."""
    model: Any = SimpleNamespace(score=score)
    return metrics.fisher_error(model, Oracle(law, EDM()), levels, relative=True).value


def loss_spread(score: Score, draws: int, generator: torch.Generator) -> np.ndarray:
    """Standard deviation of the note's loss (16 levels, 1024 points) with own and shared noise."""
    found = np.empty((2, draws))
    for i in range(draws):
        x = LAW.sample(NOTE_POINTS, generator).to(torch.float32)
        z = torch.randn((NOTE_LEVELS, *x.shape), generator=generator)
        for row, noise in enumerate((z, z[0])):
            found[row, i] = losses.multilevel(score, x, noise, note_levels().tolist()).mean().item()
    return found.std(axis=1, ddof=1)


def learned(config: Config, noise: str, run: Run) -> Arrays:
    """1-D networks as tables of their scores, with their Fisher errors; all (seeds, ...)."""
    keys = [f"{noise} {k}" for k in range(config.seeds)]
    found = trained(config, LAW, noise, config.training_steps, keys, run)
    streams = [run.torch_generator(key, "spread", device="cpu") for key in keys]
    levels = levels_of(config)
    return {
        "table": np.stack([tabulated(net.score, all_levels(config)) for net in found]),
        "fisher": np.stack([relative_fisher(net.score, LAW, levels) for net in found]),
        "spread": np.stack([loss_spread(net, config.draws, g) for net, g in zip(found, streams)]),
    }


# ---------------------------------------------------------------- sampling


def walk(
    score: Score, plan: Plan, x: np.ndarray, generator: np.random.Generator, keep: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """(where the walk of arrays ends, the first `keep` points at the start and after each level).

    The steps of `langevin.langevin` without its checks, which would take most of the time here.
    """
    kept = [x[:keep]]
    for sigma, h, n in zip(plan.levels.tolist(), plan.h, plan.counts, strict=True):
        size = math.sqrt(2 * h)
        for _ in range(n):
            x = x + h * score(x, sigma) + size * generator.standard_normal(x.shape)
        kept.append(x[:keep])
    if not np.all(np.abs(x) < 1e8):
        raise ArgumentError("h", "be small enough for the states to stay finite", plan.h.max())
    return x, np.stack(kept)


def sampled(
    config: Config, plan: Plan, score: Score, keep: int, generator: np.random.Generator
) -> Arrays:
    """One run of a setting in one dimension: points, metrics, and a few points of every level."""
    x = plan.start(LAW).sample(config.particles, generator)
    x, kept = walk(score, plan, x, generator, keep)
    found = {"x": x[:, 0], "numbers": measure(config, x, generator)}
    if not keep:
        return found
    lefts = [left_share(states[:, 0]).mean() for states in kept]
    return found | {"kept": kept[..., 0].astype(np.float32), "lefts": np.array(lefts)}


def measure(config: Config, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(left weight, its error, W1, its error, its floor, the spread of the floor)."""
    left = metrics.mode_weights(x, LAW, generator)
    w1 = metrics.wasserstein(x, LAW, generator, 1, repeats=config.repeats)
    return np.array([left.value[0], left.error[0], w1.value, w1.error, w1.floor, w1.floor_error])


def drift(score: Score, sigma: float, x: np.ndarray, t: float) -> np.ndarray:
    """The score as `fokker_planck` asks for it, x (n,)."""
    return score(x[:, None], sigma)[:, 0]


def limit(plan: Plan, score: Score, intervals: int) -> Arrays:
    """The left weight after a plan whose steps are made infinitely short, by Fokker-Planck.

    The law of dX = s(X, sigma_i) dt + sqrt(2) dW for the time n_i h_i at each level, by steps of
    Crank-Nicolson that grow from 0.
    """
    outer = np.geomspace(12, 9 + 6 * plan.levels[0], 60)[1:]
    edges = np.concatenate([-outer[::-1], np.linspace(-12, 12, 801), outer])
    density = fokker_planck.averages(plan.start(LAW), edges)
    for sigma, time in zip(plan.levels.tolist(), plan.h * plan.counts, strict=True):
        run = fokker_planck.evolve(
            density,
            edges,
            partial(drift, score, sigma),
            lambda t: 1.0,
            time * np.linspace(0, 1, intervals + 1) ** 2,
            stationary=True,
        )
        *_, (_, density) = run
        density = np.maximum(density, 0.0)  # long steps leave -1e-6 of the largest here and there
    mass = density * np.diff(edges)
    return {"left": mass @ left_share(0.5 * (edges[1:] + edges[:-1])) / mass.sum()}


def plane(config: Config, kind: str, run: Run) -> Arrays:
    """Samples of the three modes in the plane, with the exact score or networks: (seeds, ...)."""
    law, keys = gallery.julia_trimodal(), [f"plane {kind} {k}" for k in range(config.seeds)]
    plan = with_steps(plan_of(config, "slow", ()), config.plane_steps)
    laws = {float(sigma): law.blurred(sigma) for sigma in plan.levels}
    scores: list[Score] = [lambda x, sigma: laws[sigma].score(x)] * config.seeds
    if kind == "learned":
        found = trained(config, law, "apart", config.plane_training, keys, run)
        scores = [net.score for net in found]
    rows = []
    for key, score in zip(run.progress(keys, f"plane, {kind} score"), scores, strict=True):
        generator = run.generator(key)
        x = plan.start(law).sample(config.plane_particles, generator)
        x, _ = walk(score, plan, x, generator)
        weights = metrics.mode_weights(x, law, generator)
        off = metrics.sliced_wasserstein(x, law, generator, p=1, repeats=config.repeats)
        rows.append({
            "x": x.astype(np.float32),
            "weights": np.stack([weights.value, weights.error]),
            "distance": np.array([off.value, off.error, off.floor, off.floor_error]),
        })  # fmt: skip
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    if kind == "learned":
        arrays["fisher"] = np.stack([relative_fisher(s, law, plan.levels) for s in scores])
    return arrays


# ---------------------------------------------------------------- compute


MARKS = (*FAULTS, TRUE_START)
FILMED = 2500
FILMS = (("note", FAULTS), ("slow", ()))


def key_of(score: str, pace: str, faults: tuple[str, ...]) -> str:
    """The name of a setting in the arrays."""
    return f"{score} {pace} {','.join(str(MARKS.index(f)) for f in faults)}"


def runs_of() -> list[tuple[str, str, tuple[str, ...]]]:
    """(score, pace, faults) of all rows: the noise of training is nothing to the exact score."""
    found = []
    for pace, faults in SETTINGS:
        if (pace, faults) == ("note", FAULTS):
            found.append(("note's", pace, faults))
        if (SHARED in faults) == (pace != "slow"):
            found.append(("exact", pace, faults))
        if TRUE_START not in faults:
            found.append(("learned", pace, faults))
    return found


def networks(config: Config, note: Score, run: Run) -> tuple[Arrays, Arrays]:
    """(tables of every score, what is known of the networks)."""
    levels, own = all_levels(config), levels_of(config)
    tables = {"exact": tabulated(exact, levels), "note's": tabulated(note, levels)}
    facts = {"fisher note's": np.full(len(own), np.nan)}
    facts["fisher note's"][in_note(own)] = relative_fisher(note, LAW, own[in_note(own)])
    for noise in run.progress(["own", "shared"], "networks"):
        found = run.cell(f"networks {noise}", learned, config, noise, run)
        tables |= {f"{noise} {k}": values for k, values in enumerate(found.pop("table"))}
        facts |= {f"{name} {noise}": value for name, value in found.items()}
    return tables, facts


def table_of(score: str, faults: tuple[str, ...], k: int) -> str:
    """Which table run k of a setting reads its score from."""
    return score if score != "learned" else f"{'shared' if SHARED in faults else 'own'} {k}"


def settings(config: Config, tables: Arrays, run: Run) -> Arrays:
    """All runs of all settings, and the limit of each for every score."""
    arrays, levels = {}, all_levels(config)
    jobs = [(*row, k) for row in runs_of() for k in range(config.seeds)]
    for name, pace, faults, k in run.progress(jobs, "settings"):
        key = f"{key_of(name, pace, faults)} {k}"
        plan, score = (
            plan_of(config, pace, faults),
            Table(levels, tables[table_of(name, faults, k)]),
        )
        film = name == "exact" and k == 0 and (pace, faults) in FILMS
        given = (config, plan, score, FILMED if film else 0, run.generator(key))
        found = run.cell(key, sampled, *given)
        arrays[f"numbers {key}"] = found["numbers"]
        if k == 0:
            arrays |= {f"{part} {key}": v for part, v in found.items() if part != "numbers"}
        if k == 0 or name == "learned":
            arrays[f"limit {key}"] = run.cell(f"limit {key}", limit, plan, score, config.intervals)[
                "left"
            ]
    return arrays


def numbers_of_steps(config: Config) -> list[int]:
    """The n of the table "steps"."""
    return sorted({*config.fewer, config.steps})


def fewer_steps(config: Config, values: np.ndarray, run: Run) -> Arrays:
    """The slow pace with fewer (or more) steps at each level, exact score."""
    arrays, score = {}, Table(all_levels(config), values)
    for n in run.progress([n for n in numbers_of_steps(config) if n != config.steps], "steps"):
        plan = with_steps(plan_of(config, "slow", ()), n)
        arrays[f"limit {n}"] = run.cell(f"limit {n}", limit, plan, score, config.intervals)["left"]
        for k in range(config.seeds):
            key = f"steps {n} {k}"
            given = (config, plan, score, 0, run.generator(key))
            arrays[key] = run.cell(key, sampled, *given)["numbers"]
    return arrays


def planes(config: Config, run: Run) -> Arrays:
    """All runs in the plane; the points of the first alone."""
    arrays: Arrays = {}
    for kind in run.progress(["exact", "learned"], "plane"):
        found = run.cell(f"plane {kind}", plane, config, kind, run)
        found["x"] = found["x"][0]
        arrays |= {f"plane {kind} {name}": value for name, value in found.items()}
    return arrays


def fields(config: Config, tables: Arrays) -> Arrays:
    """Exact densities and all scores where they are drawn."""
    grid, levels = np.linspace(-8, 8, 321), all_levels(config)
    half = 7.0 * ((2 * np.arange(160) + 1) / 160 - 1)
    window = np.stack(np.meshgrid(half, half), axis=-1)
    arrays = {"grid": grid, "density": np.exp(LAW.log_prob(grid[:, None]))}
    arrays["plane density"] = gallery.julia_trimodal().log_prob(window).astype(np.float32)
    for name in ["exact", "note's", *(f"own {k}" for k in range(config.seeds))]:
        score = Table(levels, tables[name])
        rows = [score(grid[:, None], s)[:, 0] for s in shown_levels(config)]
        arrays[f"score {name}"] = np.stack(rows)
    for pace, faults in FILMS:
        laws = [LAW.blurred(s) for s in ladder_of(config, pace, faults)]
        arrays[f"density {pace}"] = np.stack([np.exp(p.log_prob(grid[:, None])) for p in laws])
    return arrays


def compute(config: Config, run: Run) -> Arrays:
    """Every run as a cell of its own."""
    note = run.cell("replay", replay, config.epochs)
    params = [(note.pop(f"w{i}"), note.pop(f"b{i}")) for i in range(2)]
    tables, facts = networks(config, partial(note_score, params), run)
    return {
        **{f"note_{name}": value for name, value in note.items()},
        **facts,
        **settings(config, tables, run),
        **fewer_steps(config, tables["exact"], run),
        **planes(config, run),
        **fields(config, tables),
    }


def shown_levels(config: Config) -> np.ndarray:
    """Four levels of the slow pace: one above the note's, two among them, the last."""
    levels = levels_of(config)
    wanted = (4.0, 1.5, 0.6, config.last)
    return np.array([levels[np.argmin(np.abs(np.log(levels / s)))] for s in wanted])


# ---------------------------------------------------------------- tables


def over_seeds(
    rows: Sequence[np.ndarray] | np.ndarray, trained: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(mean over runs, its standard error) of (value, error) pairs; rows (2,) or (2, K).

    Runs of one score differ by sampling alone, which the runs' own errors measure better than the
    spread of a few runs. Networks differ too: there the error is the larger of the two, on average
    a tenth too large for eight networks that do not differ.
    """
    values, errors = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    error = np.sqrt(np.mean(errors**2, axis=0) / len(rows))
    mean, spread = mean_and_error(values)
    return mean, np.maximum(error, spread) if trained else error


def weight_row(numbers: list[np.ndarray], limits: list[float], trained: bool) -> dict[str, float]:
    """Left weight and W1 over the runs, each with its error, and what each is to be held against.

    limits : for infinitely short steps, of every run or one for all; off them in errors of sampling
        alone, since both have the same score.
    """
    pairs = [r[:2] for r in numbers]
    left, error = over_seeds(pairs, trained)
    small = np.broadcast_to(limits, len(numbers))
    off, sampling = over_seeds([p - [s, 0] for p, s in zip(pairs, small, strict=True)], False)
    w1, w1_error = over_seeds([r[2:4] for r in numbers], trained)
    floor = float(np.mean([r[4] for r in numbers]))
    spread = float(np.mean([r[5] for r in numbers])) / math.sqrt(len(numbers))
    return {
        "left weight": float(left),
        "error": float(error),
        "errors off": float((left - WEIGHT) / error),
        "small h": float(np.mean(limits)),
        "errors off small h": float(off / sampling),
        "W1": float(w1),
        "W1 error": float(w1_error),
        "W1 floor": floor,
        "W1 excess": float((w1 - floor) / math.hypot(w1_error, spread)),
    }


DIGITS = {
    "errors off": 2,
    "errors off small h": 2,
    "W1 excess": 2,
    "error": 2,
    "W1 error": 2,
    "time": 4,
}


def setting_row(
    config: Config, arrays: Arrays, score: str, pace: str, faults: tuple[str, ...]
) -> dict[str, float]:
    """The `weight_row` of a setting."""
    key = key_of(score, pace, faults)
    numbers = [arrays[f"numbers {key} {k}"] for k in range(config.seeds)]
    trained = score == "learned"
    limits = [float(arrays[f"limit {key} {k}"]) for k in range(config.seeds if trained else 1)]
    return weight_row(numbers, limits, trained)


def label(pace: str, faults: tuple[str, ...]) -> str:
    """A setting in words."""
    if faults == (TRUE_START,):
        return f"no fault, {TRUE_START}"
    if not faults:
        return "no fault"
    if len(faults) == len(FAULTS):
        return "all faults"
    off = [f for f in FAULTS if f not in faults]
    return f"only {faults[0]}" if pace == "slow" else f"all but {off[0]}"


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every setting with the exact and the learned score."""
    rows: list[dict[str, Any]] = []
    for score, pace, faults in runs_of():
        plan = plan_of(config, pace, faults)
        row: dict[str, Any] = {"pace": pace, "faults": label(pace, faults), "score": score}
        row |= {"levels": len(plan.levels), "steps": int(plan.counts.sum()), "time": plan.time}
        rows.append(row | setting_row(config, arrays, score, pace, faults))
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = DIGITS
    return frame


def parity_table(arrays: Arrays) -> pd.DataFrame:
    """Losses beside the published ones."""
    loss = arrays["note_loss"]
    rows = [("first gradient", float(arrays["note_checked"]), PUBLISHED_FIRST_GRADIENT)]
    rows += [(str(e), float(loss[e - 1]), p) for e, p in PUBLISHED.items() if e <= len(loss)]
    frame = pd.DataFrame(rows, columns=["epoch", "loss", "published"])
    frame["relative difference"] = (frame["loss"] / frame["published"] - 1).abs()
    frame.attrs["digits"] = {"loss": 16, "published": 16, "relative difference": 2}
    return frame


def bars(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(edges, counts) of the published histogram's bins."""
    edges = FIRST_BAR + BAR * np.arange(len(BARS) + 1)
    return edges, np.histogram(samples, edges)[0]


def samples_table(arrays: Arrays) -> pd.DataFrame:
    """The bars of the histogram of the 256 samples beside the published ones."""
    edges, counts = bars(arrays["note_samples"])
    frame = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "count": counts})
    if len(arrays["note_loss"]) == NOTE_EPOCHS:
        frame["published"] = BARS
    return frame


def steps_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The bias of annealing against the number of steps, exact score, no fault."""
    rows = []
    for n in numbers_of_steps(config):
        if n == config.steps:
            row = setting_row(config, arrays, "exact", "slow", ())
        else:
            numbers = [arrays[f"steps {n} {k}"] for k in range(config.seeds)]
            row = weight_row(numbers, [float(arrays[f"limit {n}"])], False)
        rows.append({"steps a level": n, "steps": n * config.levels} | row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = DIGITS
    return frame


def fisher_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Relative Fisher error of every network by level; the note's where it was trained."""
    frame = pd.DataFrame({"sigma": levels_of(config)})
    groups = {
        "own noise": "fisher own",
        "shared noise": "fisher shared",
        "in the plane": "plane learned fisher",
    }
    for name, key in groups.items():
        frame[name], frame[f"{name}, error"] = mean_and_error(arrays[key])
    frame["the note's"] = arrays["fisher note's"]
    digits = dict.fromkeys(frame.columns[1:], 3)
    frame.attrs["digits"] = digits | {f"{name}, error": 2 for name in groups}
    return frame


def noise_table(arrays: Arrays) -> pd.DataFrame:
    """What a shared z costs: the spread of the note's loss from draw to draw."""
    mean, error = mean_and_error(arrays["spread own"])
    frame = pd.DataFrame({"noise": ("own", "shared"), "std of the loss": mean, "error": error})
    frame.attrs["digits"] = {"std of the loss": 3, "error": 2}
    return frame


def plane_table(arrays: Arrays) -> pd.DataFrame:
    """Mode weights in the plane."""
    law, rows = gallery.julia_trimodal(), []
    for kind in ("exact", "learned"):
        trained = kind == "learned"
        mean, error = over_seeds(arrays[f"plane {kind} weights"], trained)
        distance = arrays[f"plane {kind} distance"]
        sliced, spread = over_seeds(distance[:, :2], trained)
        for mode, (weight, m, e) in enumerate(zip(np.asarray(law.weights), mean, error)):
            centre = ", ".join(f"{c:g}" for c in np.asarray(law.means)[mode])
            row: dict[str, Any] = {"score": kind, "mode": f"({centre})", "weight": weight}
            row |= {"share": m, "error": e, "errors off": (m - weight) / e}
            row |= {"sliced W1": float(sliced), "its error": float(spread)}
            rows.append(row | {"floor": float(distance[:, 2].mean())})
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {"errors off": 2, "error": 2, "its error": 2}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """The settings; parity of losses and samples; steps; Fisher errors; noise; the plane."""
    return {
        "": main_table(config, arrays),
        "parity": parity_table(arrays),
        "samples": samples_table(arrays),
        "steps": steps_table(config, arrays),
        "fisher": fisher_table(config, arrays),
        "noise": noise_table(arrays),
        "plane": plane_table(arrays),
    }


# ---------------------------------------------------------------- figures


EXACT, LEARNED, NOTES = plots.COLORS[0], plots.COLORS[2], plots.COLORS[4]
SHOWN = (-8, 8)
HEIGHT = (0, 0.42)
MARKED = (0.02, 0.05, 0.1, 0.2, 0.5)  # of Wasserstein-1, on its axis


def note_name(config: Config) -> str:
    """The note's network, or what fewer epochs make of it."""
    epochs = "" if config.epochs == NOTE_EPOCHS else f" after {config.epochs} epochs"
    return f"the note's network{epochs}"


def histogram(ax: Any, x: np.ndarray, bins: int, color: str, label: str | None = None) -> None:
    """Samples as a density over what is shown."""
    edges = np.linspace(*SHOWN, bins + 1)
    height = np.histogram(x, edges)[0] / (len(x) * np.diff(edges))
    ax.stairs(height, edges, fill=True, color=color, alpha=0.5, label=label)


def draw_samples(config: Config, arrays: Arrays) -> Figure:
    """Samples with and without the faults, exact and learned score."""
    fig, axes = plots.figure(2, 2, height=5.4, share=True)
    panels = (("note", FAULTS, "all faults"), ("slow", (), "no fault"))
    for column, (pace, faults, words) in zip(axes.T, panels, strict=True):
        words = f"{words}, {plan_of(config, pace, faults).counts.sum()} steps"
        rows = (("exact", EXACT), ("note's" if faults else "learned", LEARNED))
        for ax, (score, color) in zip(column, rows, strict=True):
            histogram(ax, arrays[f"x {key_of(score, pace, faults)} 0"], 80, color)
            ax.plot(arrays["grid"], arrays["density"], color="black", linewidth=1.2)
            ax.set(xlim=SHOWN, ylim=HEIGHT, xticks=(-6, -3, 0, 3, 6))
            row = setting_row(config, arrays, score, pace, faults)
            ax.text(
                0.03, 0.95, f"left mode: {row['left weight']:.3f} ± {row['error']:.3f}\n"
                f"$W_1$: {row['W1']:.3f} (floor {row['W1 floor']:.3f})",
                transform=ax.transAxes, va="top",
            )  # fmt: skip
            names = {"exact": "exact score", "note's": note_name(config), "learned": "network"}
            ax.set_title(f"{names[score]}, {words}", fontsize=10)
        column[-1].set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    fig.suptitle(
        f"Annealed Langevin beside the exact density (black); the left mode weighs {WEIGHT:g}\n"
        f"(bars: the first of {config.seeds} runs; numbers: over all of them)",
        fontsize=11,
    )
    return fig


def places(config: Config) -> tuple[dict[tuple[str, str], float], list[str]]:
    """Where each setting stands in the figure of weights, and its name there."""
    place: dict[tuple[str, str], float] = {}
    names, last, y = [], "note", 0.0
    for pace, faults in SETTINGS:
        y -= 1.7 if pace != last else 1.0
        place[pace, label(pace, faults)], last = y, pace
        time = f", T = {plan_of(config, pace, faults).time:.3g}" if pace != "slow" else ""
        names.append(label(pace, faults).replace("sigma_min", "$\\sigma_{min}$") + time)
    return place, [name.replace("p_sigma_1", "$p_{\\sigma_1}$") for name in names]


def draw_weights(config: Config, arrays: Arrays) -> Figure:
    """The left weight and W1 of every setting."""
    fig, axes = plots.figure(1, 2, height=6.4)
    rows = main_table(config, arrays)
    place, names = places(config)
    left, right = axes[0]
    shifts = {"exact": (EXACT, "o", 0.17), "learned": (LEARNED, "s", -0.17)}
    for score, (color, marker, shift) in (shifts | {"note's": (NOTES, "D", -0.42)}).items():
        some = rows[rows["score"] == score]
        ys = [place[pace, faults] + shift for pace, faults in zip(some["pace"], some["faults"])]
        style = {"fmt": marker, "color": color, "markersize": 4.5, "capsize": 2}
        name = note_name(config) if score == "note's" else score
        left.errorbar(some["left weight"], ys, xerr=some["error"], label=name, **style)
        right.errorbar(some["W1"], ys, xerr=some["W1 error"], **style)
        left.plot(
            some["small h"],
            ys,
            "|",
            color="black",
            markersize=9,
            label="small h (Fokker-Planck), same score",
        )
    left.axvline(WEIGHT, color="black", linewidth=1.2, label="exact weight; floor")
    right.axvline(float(rows["W1 floor"].mean()), color="black", linewidth=1.2)
    left.set(xlabel="weight of the left mode", yticks=list(place.values()), yticklabels=names)
    right.set(xlabel="Wasserstein-1", yticks=list(place.values()), yticklabels=[], xscale="log")
    right.set_xticks(MARKED, [f"{mark:g}" for mark in MARKED])
    right.set_xticks([], minor=True)
    for ax in axes[0]:
        ax.set_ylim(min(place.values()) - 0.6, -0.4)
        for pace in ("longer", "slow"):
            border = max(y for (its, _), y in place.items() if its == pace) + 0.85
            ax.axhline(border, color="0.6", linewidth=0.8)
    plots.legend_below(fig, left, columns=3)
    fig.suptitle(
        "The four faults: all on but one (above: the note's time; middle: a longer one),\n"
        "and one alone at the slow pace (below)",
        fontsize=11,
    )
    return fig


def draw_score(config: Config, arrays: Arrays) -> Figure:
    """Learned scores beside the exact one at four levels."""
    fig, axes = plots.figure(2, 2, height=5.0, share=True)
    levels = shown_levels(config)
    for i, (ax, inside) in enumerate(zip(axes.flat, in_note(levels), strict=True)):
        for k in range(config.seeds):
            score = arrays[f"score own {k}"][i]
            ax.plot(arrays["grid"], score, color=LEARNED, linewidth=1.0, label="networks, all runs")
        if inside:
            ax.plot(
                arrays["grid"], arrays["score note's"][i], color=NOTES, linewidth=1.2,
                linestyle="--", label=f"{note_name(config)}, among its own levels",
            )  # fmt: skip
        ax.plot(arrays["grid"], arrays["score exact"][i], color="black", linewidth=1.0,
                label="exact")  # fmt: skip
        ax.set_title(f"$\\sigma = {levels[i]:.3g}$", fontsize=10)
        ax.set(ylim=(-6, 6), xlim=SHOWN)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    plots.legend_below(fig, *axes.flat, columns=3)
    fig.suptitle("The score of $p_\\sigma$, learned beside exact")
    return fig


def draw_replay(config: Config, arrays: Arrays) -> Figure:
    """The replay of the note beside what its page shows."""
    fig, axes = plots.figure(1, 2, height=3.4)
    loss = arrays["note_loss"]
    left, right = axes[0]
    left.plot(1 + np.arange(len(loss)), loss, color=LEARNED, linewidth=0.8, label="replayed")
    printed = {e: p for e, p in PUBLISHED.items() if e <= len(loss)}
    left.plot(list(printed), list(printed.values()), "k.", markersize=5, label="published")
    left.set(yscale="log", xlabel="epoch", ylabel="loss", title="Training")
    left.legend()
    edges, counts = bars(arrays["note_samples"])
    right.stairs(counts, edges, fill=True, color=LEARNED, alpha=0.5, label="replayed")
    if len(loss) == NOTE_EPOCHS:
        middle = 0.5 * (edges[1:] + edges[:-1])
        right.plot(middle, BARS, "k.", markersize=5, label="published bars")
    expected = NOTE_SAMPLES * BAR * arrays["density"]
    right.plot(arrays["grid"], expected, color="black", linewidth=1.0, label="exact density")
    weight, error = arrays["note_left"]
    right.set(xlabel="x", ylabel="samples in a bin", xlim=(-6, 9))
    right.set_title(f"{NOTE_SAMPLES} samples, left mode: {weight:.3f} ± {error:.3f}")
    right.legend(loc="upper left")
    fig.suptitle(f"The note replayed from its random stream, {len(loss)} epochs")
    return fig


def draw_steps(config: Config, arrays: Arrays) -> Figure:
    """Annealing's own bias."""
    fig, axes = plots.figure(1, 2, height=3.4)
    rows = steps_table(config, arrays)
    left, right = axes[0]
    left.errorbar(rows["steps"], rows["left weight"], rows["error"], fmt="o", color=EXACT,
                  capsize=2, label="Langevin steps")  # fmt: skip
    left.plot(rows["steps"], rows["small h"], color="black", linewidth=1.2,
              label="Fokker-Planck, small h")  # fmt: skip
    left.axhline(WEIGHT, color="black", linestyle=":", linewidth=1.2, label="true weight")
    left.set(ylabel="weight of the left mode")
    right.errorbar(rows["steps"], rows["W1"], rows["W1 error"], fmt="o-", color=EXACT, capsize=2,
                   label="samples")  # fmt: skip
    right.plot(rows["steps"], rows["W1 floor"], color="black", linewidth=1.2, label="floor")
    right.set(yscale="log", ylabel="Wasserstein-1", ylim=(0.015, None))
    right.set_yticks(MARKED, [f"{mark:g}" for mark in MARKED])
    right.yaxis.minorticks_off()
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="steps in all")
        ax.set_xticks(rows["steps"], [str(n) for n in rows["steps"]])
        ax.xaxis.minorticks_off()
        ax.legend()
    fig.suptitle("Exact score, no fault: what too few steps cost")
    return fig


def draw_plane(config: Config, arrays: Arrays) -> Figure:
    """Samples of the three modes over the exact density."""
    fig, axes = plots.figure(1, 2, height=5.1, share=True)
    rows = plane_table(arrays)
    for ax, kind in zip(axes[0], ("exact", "learned"), strict=True):
        plots.background(ax, arrays["plane density"], (-7, 7, -7, 7))
        x = arrays[f"plane {kind} x"][:1500]
        ax.scatter(x[:, 0], x[:, 1], s=2, c="black", linewidths=0, alpha=0.7, rasterized=True)
        ax.set(xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xlabel="$x_1$")
        some = rows[rows["score"] == kind]
        words = ", ".join(
            f"{share:.3f} ± {error:.3f}" for share, error in zip(some["share"], some["error"])
        )
        ax.set_title(f"{kind} score\n{words}", fontsize=10)
    axes[0, 0].set_ylabel("$x_2$")
    weights = ", ".join(f"{weight:g}" for weight in rows["weight"][rows["score"] == "exact"])
    fig.suptitle(
        f"Annealed Langevin in the plane; the modes weigh {weights}\n"
        f"(points: of the first of {config.seeds} runs; numbers: over all of them)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Samples, weights, scores, replay, steps, the plane."""
    return {
        "": draw_samples(config, arrays),
        "weights": draw_weights(config, arrays),
        "score": draw_score(config, arrays),
        "replay": draw_replay(config, arrays),
        "steps": draw_steps(config, arrays),
        "plane": draw_plane(config, arrays),
    }


def draw_state(
    ax: Any, arrays: Arrays, pace: str, faults: tuple[str, ...], i: int, title: str
) -> None:
    """The points before any step (i = 0) or after the steps at level i."""
    key = f"{key_of('exact', pace, faults)} 0"
    ax.clear()
    histogram(ax, arrays[f"kept {key}"][i], 64, EXACT, "samples")
    density = arrays[f"density {pace}"][max(i - 1, 0)]
    ax.plot(arrays["grid"], density, color="black", linewidth=1.2, label="$p_\\sigma$, exact")
    ax.plot(arrays["grid"], arrays["density"], color="0.3", linewidth=1.0, linestyle=":",
            label="$p$, the target")  # fmt: skip
    ax.set(xlim=SHOWN, ylim=HEIGHT, xlabel="x")
    ax.set_title(f"{title}, left mode: {arrays[f'lefts {key}'][i]:.3f}", fontsize=10)


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """Both walks with the exact score, down the levels side by side."""
    fig, axes = plots.figure(1, 2, height=3.5, share=True)
    found: list[Any] = []
    ladders = [ladder_of(config, pace, faults) for pace, faults in FILMS]
    count = max(len(levels) for levels in ladders) + 1
    shown = np.unique(np.linspace(0, count - 1, min(count, config.frames)).round().astype(int))
    for frame in shown.tolist():
        for ax, (pace, faults), levels in zip(axes[0], FILMS, ladders, strict=True):
            i = min(frame, len(levels))
            name = "the note, all faults" if faults else "no fault"
            words = "start" if i == 0 else f"$\\sigma = {levels[i - 1]:.2f}$"
            draw_state(ax, arrays, pace, faults, i, f"{name}: {words}")
        axes[0, 0].set_ylabel("density")
        if not found:
            plots.legend_below(fig, axes[0, 0], columns=3)
        found.append(plots.frame(fig))
        fig.set_layout_engine("none")
    ms = [350.0] * len(shown)
    ms[0], ms[-1] = 1000.0, 2500.0
    return {"annealing": plots.gif(found, ms)}


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Why do the samples of a noise-conditional score network weigh the modes wrongly, "
    "and what mends it?",
    animate,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
