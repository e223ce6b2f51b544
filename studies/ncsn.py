"""Noise-conditional score networks: the note "mdsm" replayed, its four faults, and none of them.

Levels sigma_1 > ... > sigma_L, s(x, sigma) the score of p_sigma = p * N(0, sigma^2).  Training
minimises the mean over the levels of sigma_i^2 |s(x + sigma_i z, sigma_i) + z/sigma_i|^2 / 2;
sampling walks down the levels, n_i steps x <- x + h_i s(x, sigma_i) + sqrt(2 h_i) z at each (Song
and Ermon 2019).

The page *Multiple denoising score matching* of R. Rosa's random_notes (CC BY 4.0; built with Julia
1.12.1) does so on 0.1 N(-3, 1) + 0.9 N(3, 1), and its samples have too much mass on the left.  Its
training and its 256 samples are replayed here from their random streams (`PUBLISHED`, `BARS`:
what the page shows, to be compared with and nothing else).  Then its four faults are switched on
and off, with the exact score and with a network:

    shared noise        one z for all levels of a point (training only: nothing to the exact score)
    unequal counts      the level at step k is div(k, M + 1) + 1: M - 1, M + 1, ..., M + 1, the rest
    sigma_min = 0.5     the samples keep the variance 0.25 of the last level
    start N(0, 1)       at sigma_1 = 2, where p_sigma has mean 2.4 and variance 8.24

at two paces.  "note": 50 steps of h = 0.0125 at each level, whatever sigma; its start is mended by
one from p_sigma_1 itself.  "slow": NCSN's rule h_i = c sigma_i^2, n steps at each level; its start
is mended by a first level so large that N(0, sigma_1^2) is as good as p_sigma_1.  What is left with
all faults off is annealing's own bias, since the modes stop to exchange mass at some level: table
"steps" has it against the number of steps, beside its limit for small h by Fokker-Planck.

One network of (x, log sigma) is trained on all levels of the slow pace, and with shared noise
another one; they serve every setting.  In one dimension a score is read off a table by linear
interpolation.  Standard errors are over seeds, or of sampling where that is larger.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import fokker_planck, gallery, losses, metrics, nets, notes, plots
from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network
from diffscience.langevin import annealed
from diffscience.mixture import GaussianMixture
from diffscience.regression import Params, Regression, apply
from diffscience.study import Run, Study, run_file
from diffscience.train import fit
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

NOTE_LEVELS, NOTE_FIRST, NOTE_LAST, NOTE_STEPS, NOTE_TIME = 16, 2.0, 0.5, 50, 10.0
NOTE_EPOCHS = 1000
FAULTS = ("shared noise", "unequal counts", "sigma_min = 0.5", "start N(0, 1)")
SHARED, COUNTS, LAST, START = FAULTS
SETTINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("note", FAULTS),
    *(("note", tuple(f for f in FAULTS if f != mended)) for mended in FAULTS),
    ("slow", ()),
    *(("slow", (fault,)) for fault in FAULTS),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    epochs : of the replay; the note's 1000 for its samples to come out.
    first, last, levels : sigma_1, sigma_L and L of the slow pace.
    steps, step : n and c of the slow pace, h_i = c sigma_i^2.
    particles, seeds : points of a run, and runs (networks, where learned) of every setting.
    repeats, draws : true samples behind a floor, and draws of the note's loss.
    training_steps, batch, picked, width : of the networks; each step takes `batch` points, each
        with z and -z, and `picked` of the levels, one at random from each of that many groups.
    ema : decay of their averaged weights.
    fewer : the other n of the table "steps".
    plane_steps, plane_particles, plane_training : steps at each level, points and training steps in
        two dimensions.
    frames : of the animation, at most; one for each level where there are fewer.
    """

    epochs: int = 1000
    first: float = 10.0
    last: float = 0.05
    levels: int = 20
    steps: int = 150
    step: float = 0.25
    particles: int = 6000
    seeds: int = 3
    repeats: int = 8
    draws: int = 40
    training_steps: int = 12000
    batch: int = 256
    ema: float = 0.999
    picked: int = 4
    width: int = 64
    fewer: tuple[int, ...] = (5, 10, 20, 40, 80)
    plane_steps: int = 100
    plane_particles: int = 4000
    plane_training: int = 4000
    frames: int = 41
    seed: int = 30

    def __post_init__(self) -> None:
        least = {"epochs": 1, "levels": 2, "steps": 2, "particles": 2, "seeds": 2}
        least |= {"repeats": 2, "draws": 2}
        least |= {"training_steps": 1, "batch": 1, "picked": 1, "width": 1, "plane_steps": 1}
        least |= {"plane_particles": 2, "plane_training": 1, "frames": 2}
        given = [(name, getattr(self, name), low) for name, low in least.items()]
        for name, value, low in given + [("fewer", n, 1) for n in self.fewer]:
            if type(value) is not int or value < low:
                raise ArgumentError(name, f"be whole and at least {low}", value)
        if not 0 < self.last < NOTE_LAST < NOTE_FIRST < self.first:
            rule = f"lie outside {NOTE_LAST} ... {NOTE_FIRST}, the levels of the note"
            raise ArgumentError("last, first", rule, (self.last, self.first))
        if self.levels % self.picked:
            raise ArgumentError("picked", f"divide levels = {self.levels}", self.picked)
        if not 0 <= self.ema < 1:
            raise ArgumentError("ema", "lie in [0, 1)", self.ema)
        if not 0 < self.step < 2:
            raise ArgumentError("step", "lie in (0, 2), where a step is stable", self.step)


QUICK = Config(
    epochs=50, levels=12, steps=20, particles=300, seeds=2, repeats=2, draws=4,
    training_steps=40, batch=64, ema=0.9, width=32, fewer=(5,), plane_steps=15, plane_particles=400,
    plane_training=40, frames=4,
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

    def start(self, n: int, law: GaussianMixture, generator: np.random.Generator) -> np.ndarray:
        """n points (n, D) where the annealing begins."""
        if self.variance is None:
            return np.asarray(blurred(law, self.levels[0]).sample(n, generator))
        return math.sqrt(self.variance) * generator.standard_normal((n, law.dim))


def blurred(law: GaussianMixture, sigma: float) -> GaussianMixture:
    """p_sigma = p * N(0, sigma^2)."""
    return law.diffuse(Transition(1.0, float(sigma) ** 2))


def ladder(first: float, last: float, ratio: float) -> np.ndarray:
    """Geometric levels from first to last, each about `ratio` times the one before."""
    return np.geomspace(first, last, 1 + max(1, round(math.log(last / first) / math.log(ratio))))


def note_counts(levels: int, steps: int) -> np.ndarray:
    """Steps at each level where step k = 2, ..., L M is at level div(k, M + 1) + 1."""
    return np.bincount(np.arange(2, levels * steps + 1) // (steps + 1), minlength=levels)


def plan_of(config: Config, pace: str, faults: tuple[str, ...]) -> Plan:
    """How a setting samples."""
    last = NOTE_LAST if LAST in faults else config.last
    first = NOTE_FIRST if pace == "note" or START in faults else config.first
    ratio = (config.last / config.first) ** (1 / (config.levels - 1))
    if pace == "note":
        ratio = (NOTE_LAST / NOTE_FIRST) ** (1 / (NOTE_LEVELS - 1))
    levels = ladder(first, last, ratio)
    steps = NOTE_STEPS if pace == "note" else config.steps
    equal = np.full(len(levels), steps)
    counts = note_counts(len(levels), steps) if COUNTS in faults else equal
    h = config.step * levels**2
    variance: float | None = 1.0 if START in faults else first**2
    if pace == "note":
        h = np.full(len(levels), NOTE_TIME / NOTE_LEVELS / NOTE_STEPS)
        variance = 1.0 if START in faults else None
    return Plan(levels, h, counts, variance)


def with_steps(plan: Plan, n: int) -> Plan:
    """The same with n steps at every level."""
    return dataclasses.replace(plan, counts=np.full(len(plan.levels), n))


def all_levels(config: Config) -> np.ndarray:
    """Every level of every setting, decreasing."""
    found = [plan_of(config, pace, faults).levels for pace, faults in SETTINGS]
    return np.unique(np.concatenate(found))[::-1]


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
    points = notes.sample_points(rng)
    start = network(rng, (2, 64, 1))
    half = math.sqrt(0.5)  # its loss is half a mean of squares
    fitted = Regression(start, 0.01)
    inputs, target, factor = noisy(rng, points)
    checked = fitted.gradient(inputs, half * target, half * factor)[0]
    found = []
    for _ in range(epochs):
        inputs, target, factor = noisy(rng, points)
        found.append(fitted.step(inputs, half * target, half * factor))
    params = fitted.params
    h, levels = NOTE_TIME / NOTE_LEVELS / NOTE_STEPS, note_levels()
    x = rng.randn(256)
    for i, count in enumerate(note_counts(NOTE_LEVELS, NOTE_STEPS)):
        for _ in range(count):
            s = note_score(params, x[:, None], levels[i])[:, 0]
            x = x + s * h + math.sqrt(2 * h) * rng.randn(256)
    packed = {f"{kind}{i}": a for i, pair in enumerate(params) for kind, a in zip("wb", pair)}
    return {
        "points": points,
        "checked": np.array(checked),
        "loss": np.array(found),
        "samples": x,
        **packed,
    }


def note_score(params: Params, x: np.ndarray, sigma: float) -> np.ndarray:
    """The note's network at x (n, 1)."""
    return apply(params, np.concatenate([x, np.full_like(x, sigma)], -1))


# ---------------------------------------------------------------- the network


class Conditional(torch.nn.Module):
    """s(x, sigma) = net(x/sqrt(m^2 + sigma^2), log sigma)/sqrt(1 + sigma^2), m^2 = E|x|^2/D.

    The factors keep what goes in and what comes out of size 1 at every level.
    """

    def __init__(self, law: GaussianMixture, width: int, seed: int) -> None:
        super().__init__()
        self.net = nets.MLP(law.dim, (width, width), frequencies=(), seed=seed)
        second = np.trace(np.asarray(law.cov)) + np.sum(np.asarray(law.mean) ** 2)
        self.spread = float(second) / law.dim

    def forward(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """x (n, D), one level -> (n, D)."""
        time = torch.full((len(x),), math.log(sigma), dtype=x.dtype)
        u = x / math.sqrt(self.spread + sigma * sigma)
        return self.net(u, time) / math.sqrt(1 + sigma * sigma)

    def numpy(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """The same for arrays."""
        return self(torch.as_tensor(x, dtype=torch.float32), sigma).detach().double().numpy()


def objective(config: Config, levels: np.ndarray, shared: bool) -> Callable[..., torch.Tensor]:
    """NCSN's loss on one level of each group, with z and -z for every point."""
    groups = levels.reshape(config.picked, -1)

    def rows(net: Any, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size = (config.picked,)
        pick = torch.randint(groups.shape[1], size, generator=generator).numpy()
        z = torch.randn((*x.shape,) if shared else (*size, *x.shape), generator=generator)
        sigmas = groups[np.arange(config.picked), pick]
        return losses.multilevel(net, torch.cat([x, x]), torch.cat([z, -z], dim=-2), sigmas)

    return rows


def levels_of(config: Config) -> np.ndarray:
    """The levels of the slow pace."""
    return plan_of(config, "slow", ()).levels


def trained(
    config: Config, law: GaussianMixture, shared: bool, steps: int, seed: int, run: Run
) -> tuple[Conditional, np.ndarray]:
    """A network with averaged weights, and its losses."""
    net = Conditional(law, config.width, seed)
    history = fit(
        net,
        law,
        objective(config, levels_of(config), shared),
        steps=steps,
        seed=seed,
        batch=config.batch,
        rate=5e-3,
        final_rate=1e-5,
        ema=config.ema,
        progress=lambda steps: run.progress(steps, f"training, seed {seed}"),
    )
    assert history.ema is not None
    net.load_state_dict(history.ema)
    return net.requires_grad_(False), history.losses


def relative_fisher(score: Score, law: GaussianMixture, levels: np.ndarray) -> np.ndarray:
    """E|s_model - s|^2/E|s|^2 under p_sigma at each level, by quadrature."""
    found = []
    for sigma in levels:
        here = blurred(law, sigma)
        x, w = here.quadrature()
        s = here.score(x)
        off = score(x, float(sigma)) - s
        found.append((w @ (off**2).sum(-1)) / (w @ (s**2).sum(-1)))
    return np.array(found)


def loss_spread(net: Conditional, law: GaussianMixture, draws: int, seed: int) -> np.ndarray:
    """Standard deviation of the note's loss (16 levels, 1024 points) with own and shared noise."""
    generator = torch.Generator().manual_seed(seed)
    found = np.empty((2, draws))
    for i in range(found.shape[1]):
        x = law.sample(1024, generator).to(torch.float32)
        z = torch.randn((NOTE_LEVELS, *x.shape), generator=generator)
        for row, noise in enumerate((z, z[0])):
            found[row, i] = losses.multilevel(net, x, noise, note_levels().tolist()).mean().item()
    return found.std(axis=1, ddof=1)


def learned(config: Config, shared: bool, seed: int, run: Run) -> Arrays:
    """A 1-D network as a table of its score, with its Fisher errors."""
    law = gallery.julia_bimodal()
    net, history = trained(config, law, shared, config.training_steps, seed, run)
    found = {
        "table": tabulated(net.numpy, all_levels(config)),
        "fisher": relative_fisher(net.numpy, law, levels_of(config)),
        "loss": history,
    }
    return found if shared else found | {"spread": loss_spread(net, law, config.draws, seed)}


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
    config: Config, plan: Plan, values: np.ndarray, keep: int, generator: np.random.Generator
) -> Arrays:
    """One run of a setting in one dimension: points, metrics, and a few points of every level."""
    law = gallery.julia_bimodal()
    x = plan.start(config.particles, law, generator)
    x, kept = walk(Table(all_levels(config), values), plan, x, generator, keep)
    return {"x": x[:, 0], "kept": kept[..., 0], "numbers": measure(config, x, generator)}


def measure(config: Config, x: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(left weight, its error, W1, its error, its floor, the spread of the floor)."""
    law = gallery.julia_bimodal()
    left = metrics.mode_weights(x, law, generator)
    w1 = metrics.wasserstein(x, law, generator, 1, repeats=config.repeats)
    return np.array([left.value[0], left.error[0], w1.value, w1.error, w1.floor, w1.floor_error])


def limit(config: Config, n: int) -> Arrays:
    """The left weight after the slow pace with n steps a level, in the limit of small h.

    By Fokker-Planck: the law of dX = s(X, sigma_i) dt + sqrt(2) dW for the time n c sigma_i^2 at
    each level.
    """
    law, plan = gallery.julia_bimodal(), plan_of(config, "slow", ())
    r = 6 * config.first
    outer = np.geomspace(12, r, 60)[1:]
    edges = np.concatenate([-outer[::-1], np.linspace(-12, 12, 801), outer])
    assert plan.variance is not None
    start = GaussianMixture([1.0], [[0.0]], [[[plan.variance]]])
    density = fokker_planck.averages(start, edges)
    for sigma in plan.levels:
        times = config.step * sigma**2 * n * np.linspace(0, 1, 41) ** 2
        here = blurred(law, sigma)
        *_, (_, density) = fokker_planck.langevin(here, density, edges, times, method="implicit")
        density = np.maximum(density, 0.0)  # rounding leaves -1e-13 here and there
    centres = 0.5 * (edges[1:] + edges[:-1])
    share = metrics.responsibilities(centres[:, None], law)[:, 0]
    return {f"limit {n}": (density * np.diff(edges)) @ share}


def plane(config: Config, kind: str, seed: int, generator: Any, run: Run) -> Arrays:
    """Samples of the three modes in the plane, with the exact score or a network."""
    law = gallery.julia_trimodal()
    n = config.plane_steps
    plan = with_steps(plan_of(config, "slow", ()), n)
    x = plan.start(config.plane_particles, law, generator)
    errors = np.zeros(len(plan.levels))
    if kind == "exact":
        laws = {float(s): blurred(law, s) for s in plan.levels}
        x, _ = walk(lambda x, s: laws[s].score(x), plan, x, generator)
    else:
        net, _ = trained(config, law, False, config.plane_training, seed, run)
        errors = relative_fisher(net.numpy, law, plan.levels)
        noise = torch.Generator().manual_seed(seed)
        epsilon = 2 * config.step * plan.levels[-1] ** 2
        start = torch.as_tensor(x, dtype=torch.float32)
        *_, (_, end) = annealed(net, start, plan.levels, n, noise, epsilon=epsilon)
        x = end.double().numpy()
    weights = metrics.mode_weights(x, law, generator)
    off = metrics.sliced_wasserstein(x, law, generator, p=1, repeats=config.repeats)
    return {
        "x": x,
        "fisher": errors,
        "weights": np.stack([weights.value, weights.error]),
        "distance": np.array([off.value, off.error, off.floor, off.floor_error]),
    }


# ---------------------------------------------------------------- compute


def key_of(score: str, pace: str, faults: tuple[str, ...]) -> str:
    """The name of a setting in the arrays."""
    return f"{score} {pace} {','.join(str(FAULTS.index(f)) for f in faults)}"


def runs_of() -> list[tuple[str, str, tuple[str, ...]]]:
    """(score, pace, faults) of all rows: the noise of training is nothing to the exact score."""
    found = []
    for pace, faults in SETTINGS:
        if (pace, faults) == ("note", FAULTS):
            found.append(("note's", pace, faults))
        if (SHARED in faults) == (pace == "note"):
            found.append(("exact", pace, faults))
        found.append(("learned", pace, faults))
    return found


def compute(config: Config, run: Run) -> Arrays:
    """Every run as a cell of its own."""
    arrays = {f"note_{k}": v for k, v in run.cell("replay", replay, config.epochs).items()}
    law, levels = gallery.julia_bimodal(), all_levels(config)
    params = [(arrays.pop(f"note_w{i}"), arrays.pop(f"note_b{i}")) for i in range(2)]
    tables = {
        "exact": tabulated(lambda x, s: blurred(law, s).score(x), levels),
        "note's": tabulated(lambda x, s: note_score(params, x, s), levels),
    }
    for seed in run.progress(config.seeds, "networks"):
        for noise in ("own", "shared"):
            found = run.cell(
                f"network {noise} {seed}", learned, config, noise == "shared", run.seed + seed, run
            )
            tables[f"{noise} {seed}"] = found.pop("table")
            arrays |= {f"{k} {noise} {seed}": v for k, v in found.items()}
    arrays["grid"] = np.linspace(-8, 8, 321)
    arrays["levels"] = levels
    shown = ["exact", "note's", *(f"own {seed}" for seed in range(config.seeds))]
    for name in shown:
        score = Table(levels, tables[name])
        arrays[f"score {name}"] = np.stack(
            [score(arrays["grid"][:, None], s)[:, 0] for s in shown_levels(config)]
        )
    jobs = [(*row, seed) for row in runs_of() for seed in range(config.seeds)]
    for score_name, pace, faults, seed in run.progress(jobs, "settings"):
        key = f"{key_of(score_name, pace, faults)} {seed}"
        values = (
            tables[score_name]
            if score_name != "learned"
            else tables[f"{'shared' if SHARED in faults else 'own'} {seed}"]
        )
        keep = FILMED if seed == 0 and (pace, faults) in FILMS else 0
        given = (config, plan_of(config, pace, faults), values, keep)
        found = run.cell(key, sampled, *given, run.generator(key))
        if seed == 0:
            arrays[f"x {key}"] = found["x"]
        if keep:
            arrays[f"film {key}"] = found["kept"].astype(np.float32)
        arrays[f"numbers {key}"] = found["numbers"]
    for n in run.progress([*config.fewer, config.steps], "numbers of steps"):
        arrays |= run.cell(f"limit {n}", limit, config, n)
        for seed in range(config.seeds if n != config.steps else 0):
            plan = with_steps(plan_of(config, "slow", ()), n)
            key = f"steps {n} {seed}"
            given = (config, plan, tables["exact"], 0)
            arrays[key] = run.cell(key, sampled, *given, run.generator(key))["numbers"]
    for kind in ("exact", "learned"):
        for seed in run.progress(config.seeds, f"plane, {kind}"):
            key = f"plane {kind} {seed}"
            found = run.cell(key, plane, config, kind, run.seed + seed, run.generator(key), run)
            arrays |= {f"{key} {name}": value for name, value in found.items() if name != "x"}
            if seed == 0:
                arrays[f"{key} x"] = found["x"].astype(np.float32)
    half = 7.0 * ((2 * np.arange(160) + 1) / 160 - 1)
    window = np.stack(np.meshgrid(half, half), axis=-1)
    arrays["plane density"] = gallery.julia_trimodal().log_prob(window).astype(np.float32)
    film = [plan_of(config, pace, faults).levels for pace, faults in FILMS]
    for (pace, _), steps in zip(FILMS, film, strict=True):
        p = [np.exp(blurred(law, s).log_prob(arrays["grid"][:, None])) for s in steps]
        arrays[f"density {pace}"] = np.stack(p)
    arrays["density"] = np.exp(law.log_prob(arrays["grid"][:, None]))
    return arrays


FILMED = 4000
FILMS = (("note", FAULTS), ("slow", ()))


def shown_levels(config: Config) -> np.ndarray:
    """Four levels of the slow pace, from one above the note's to the last."""
    levels = levels_of(config)
    wanted = (4.0, 1.5, 0.5, config.last)
    return np.array([levels[np.argmin(np.abs(np.log(levels / s)))] for s in wanted])


# ---------------------------------------------------------------- tables


def over_seeds(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(mean over seeds, its standard error) of (value, error) pairs; rows (2,) or (2, K).

    The error is the larger of what the seeds differ by and what one run's own errors add up to.
    """
    values, errors = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
    between = values.std(axis=0, ddof=1)
    within = np.sqrt(np.mean(errors**2, axis=0))
    return values.mean(axis=0), np.maximum(between, within) / math.sqrt(len(rows))


def weight_row(numbers: list[np.ndarray]) -> dict[str, float]:
    """Left weight and W1 over the seeds, each with its error, its floor and its excess."""
    left, error = over_seeds([r[:2] for r in numbers])
    w1, w1_error = over_seeds([r[2:4] for r in numbers])
    floor = float(np.mean([r[4] for r in numbers]))
    spread = float(np.mean([r[5] for r in numbers])) / math.sqrt(len(numbers))
    return {
        "left weight": float(left),
        "error": float(error),
        "errors off 0.1": float((left - 0.1) / error),
        "W1": float(w1),
        "W1 error": float(w1_error),
        "W1 floor": floor,
        "W1 excess": float((w1 - floor) / math.hypot(w1_error, spread)),
    }


def numbers_of(config: Config, arrays: Arrays, key: str) -> list[np.ndarray]:
    """The numbers of a setting, seed by seed."""
    return [arrays[f"numbers {key} {seed}"] for seed in range(config.seeds)]


def label(pace: str, faults: tuple[str, ...]) -> str:
    """A setting in words."""
    if not faults:
        return "no fault"
    if len(faults) == len(FAULTS):
        return "all faults"
    off = [f for f in FAULTS if f not in faults]
    return f"all but {off[0]}" if pace == "note" else f"only {faults[0]}"


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every setting with the exact and the learned score."""
    rows: list[dict[str, Any]] = []
    for score, pace, faults in runs_of():
        plan = plan_of(config, pace, faults)
        row: dict[str, Any] = {"pace": pace, "faults": label(pace, faults), "score": score}
        row |= {"levels": len(plan.levels), "steps": int(plan.counts.sum())}
        rows.append(row | weight_row(numbers_of(config, arrays, key_of(score, pace, faults))))
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {"errors off 0.1": 2, "W1 excess": 2, "error": 2, "W1 error": 2}
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
    edges = -5.5 + 0.5 * np.arange(len(BARS) + 1)
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
    for n in sorted({*config.fewer, config.steps}):
        numbers = (
            numbers_of(config, arrays, key_of("exact", "slow", ()))
            if n == config.steps
            else [arrays[f"steps {n} {seed}"] for seed in range(config.seeds)]
        )
        row: dict[str, Any] = {"steps a level": n, "steps": n * config.levels}
        row |= {"left weight, small h": float(arrays[f"limit {n}"])}
        rows.append(row | weight_row(numbers))
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {"errors off 0.1": 2, "W1 excess": 2, "error": 2, "W1 error": 2}
    return frame


def fisher_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Relative Fisher error of the networks by level, with own and with shared noise."""
    columns: dict[str, Any] = {"sigma": levels_of(config)}
    for noise in ("own", "shared"):
        rows = [arrays[f"fisher {noise} {seed}"] for seed in range(config.seeds)]
        mean, error = over_seeds([np.stack([r, 0 * r]) for r in rows])
        columns |= {f"Fisher error, {noise} noise": mean, f"{noise}, error": error}
    rows = [
        np.stack([f, 0 * f])
        for f in (arrays[f"plane learned {seed} fisher"] for seed in range(config.seeds))
    ]
    columns["in the plane"], columns["plane, error"] = over_seeds(rows)
    frame = pd.DataFrame(columns)
    digits = {"own, error": 2, "shared, error": 2, "plane, error": 2, "in the plane": 3}
    frame.attrs["digits"] = digits | {f"Fisher error, {n} noise": 3 for n in ("own", "shared")}
    return frame


def noise_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What a shared z costs: the spread of the note's loss from draw to draw."""
    found = np.stack([arrays[f"spread own {seed}"] for seed in range(config.seeds)])
    rows = [
        {"noise": noise, "std of the loss": mean, "error": error}
        for noise, mean, error in zip(
            ("own", "shared"),
            found.mean(0),
            found.std(0, ddof=1) / math.sqrt(len(found)),
            strict=True,
        )
    ]
    return pd.DataFrame(rows)


def plane_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Mode weights in the plane."""
    law, rows = gallery.julia_trimodal(), []
    for kind in ("exact", "learned"):
        keys = [f"plane {kind} {seed}" for seed in range(config.seeds)]
        mean, error = over_seeds([arrays[f"{key} weights"] for key in keys])
        distance = [arrays[f"{key} distance"] for key in keys]
        sliced, spread = over_seeds([d[:2] for d in distance])
        for mode, (weight, m, e) in enumerate(zip(np.asarray(law.weights), mean, error)):
            centre = ", ".join(f"{c:g}" for c in np.asarray(law.means)[mode])
            row: dict[str, Any] = {"score": kind, "mode": f"({centre})", "weight": weight}
            row |= {"share": m, "error": e, "errors off": (m - weight) / e}
            row |= {"sliced W1": float(sliced), "its error": float(spread)}
            rows.append(row | {"floor": float(np.mean([d[2] for d in distance]))})
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
        "noise": noise_table(config, arrays),
        "plane": plane_table(config, arrays),
    }


# ---------------------------------------------------------------- figures


EXACT, LEARNED = plots.COLORS[0], plots.COLORS[2]


def histogram(ax: Any, x: np.ndarray, arrays: Arrays, color: str) -> None:
    """Samples over the exact density of the target, from -8 to 8."""
    edges = np.linspace(-8, 8, 81)
    ax.stairs(
        np.histogram(x, edges)[0] / (len(x) * np.diff(edges)), edges, fill=True, color=color,
        alpha=0.5,
    )  # fmt: skip
    ax.plot(arrays["grid"], arrays["density"], color="black", linewidth=1.2)
    ax.set(xlim=(-8, 8), ylim=(0, 0.42), xticks=(-6, -3, 0, 3, 6))


def draw_samples(config: Config, arrays: Arrays) -> Figure:
    """Samples with and without the faults, exact and learned score."""
    fig, axes = plots.figure(2, 2, height=5.0, share=True)
    panels = (
        ("note", FAULTS, "all faults"),
        ("slow", (), "no fault"),
    )
    for column, (pace, faults, words) in zip(axes.T, panels, strict=True):
        words = f"{words}, {plan_of(config, pace, faults).counts.sum()} steps"
        rows = (("exact", EXACT), ("note's" if faults else "learned", LEARNED))
        for ax, (score, color) in zip(column, rows, strict=True):
            key = key_of(score, pace, faults)
            histogram(ax, arrays[f"x {key} 0"], arrays, color)
            row = weight_row(numbers_of(config, arrays, key))
            ax.text(
                0.03, 0.95, f"left mode: {row['left weight']:.3f} ± {row['error']:.3f}\n"
                f"$W_1$: {row['W1']:.3f} (floor {row['W1 floor']:.3f})",
                transform=ax.transAxes, va="top",
            )  # fmt: skip
            name = {"exact": "exact score", "note's": "the note's network"}.get(score, "network")
            ax.set_title(f"{name}, {words}", fontsize=10)
        column[-1].set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    fig.suptitle("Annealed Langevin beside the exact density (black); the left mode weighs 0.1")
    return fig


def draw_weights(config: Config, arrays: Arrays) -> Figure:
    """The left weight and W1 of every setting."""
    fig, axes = plots.figure(1, 2, height=5.2)
    rows = main_table(config, arrays)
    place: dict[tuple[str, str], float] = {}
    for pace, faults in SETTINGS:
        place[pace, label(pace, faults)] = -float(len(place)) - 0.7 * (pace == "slow")
    names, at = [faults for _, faults in place], list(place.values())
    styles = {"exact": (EXACT, "o", 0.15), "learned": (LEARNED, "s", -0.15)}
    styles["note's"] = (plots.COLORS[4], "D", -0.38)
    for score, (color, marker, shift) in styles.items():
        some = rows[rows["score"] == score]
        ys = [place[pace, faults] + shift for pace, faults in zip(some["pace"], some["faults"])]
        for ax, value, error in (
            (axes[0, 0], "left weight", "error"),
            (axes[0, 1], "W1", "W1 error"),
        ):
            ax.errorbar(
                some[value], ys, xerr=some[error], fmt=marker, color=color, markersize=4.5,
                capsize=2, label="the note's network" if score == "note's" else score,
            )  # fmt: skip
    axes[0, 0].axvline(0.1, color="black", linewidth=1.2, label="exact weight; floor")
    axes[0, 1].axvline(float(rows["W1 floor"].mean()), color="black", linewidth=1.2)
    axes[0, 0].set(xlabel="weight of the left mode", yticks=at, yticklabels=names)
    axes[0, 1].set(xlabel="Wasserstein-1", yticks=at, yticklabels=[], xscale="log")
    marks = [0.02, 0.05, 0.1, 0.2, 0.5]
    axes[0, 1].set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes[0, 1].set_xticks([], minor=True)
    for ax in axes[0]:
        ax.set_ylim(at[-1] - 0.6, 0.5)
        ax.axhline(place["slow", "no fault"] + 0.85, color="0.6", linewidth=0.8)
    axes[0, 0].set_title("above: the note's pace; below: slow", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4)
    fig.suptitle("The four faults, all on but one, and one alone")
    return fig


def draw_score(config: Config, arrays: Arrays) -> Figure:
    """Learned scores beside the exact one at four levels."""
    fig, axes = plots.figure(2, 2, height=5.0, share=True)
    for i, (ax, sigma) in enumerate(zip(axes.flat, shown_levels(config), strict=True)):
        inside = NOTE_LAST * 0.9 <= sigma <= NOTE_FIRST * 1.1
        for seed in range(config.seeds):
            ax.plot(
                arrays["grid"], arrays[f"score own {seed}"][i], color=LEARNED, linewidth=1.0,
                label="networks, one a seed" if seed == 0 else None,
            )  # fmt: skip
        if inside:
            ax.plot(
                arrays["grid"], arrays["score note's"][i], color=plots.COLORS[4], linewidth=1.2,
                linestyle="--",
            )  # fmt: skip
        ax.plot(arrays["grid"], arrays["score exact"][i], color="black", linewidth=1.0,
                label="exact")  # fmt: skip
        ax.set_title(f"$\\sigma = {sigma:.3g}$", fontsize=10)
        ax.set(ylim=(-6, 6), xlim=(-8, 8))
    axes[0, 1].plot([], [], color=plots.COLORS[4], linestyle="--", label="the note's network")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3)
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
    right.plot(arrays["grid"], 128 * arrays["density"], color="black", linewidth=1.0,
               label="exact density")  # fmt: skip
    share = np.mean(arrays["note_samples"] < 0)
    right.set(xlabel="x", ylabel="samples in a bin", xlim=(-6, 9))
    right.set_title(f"256 samples, {share:.3f} left of 0")
    right.legend(loc="upper left")
    fig.suptitle("The note replayed from its random stream")
    return fig


def draw_steps(config: Config, arrays: Arrays) -> Figure:
    """Annealing's own bias."""
    fig, axes = plots.figure(1, 2, height=3.4)
    rows = steps_table(config, arrays)
    left, right = axes[0]
    left.errorbar(rows["steps"], rows["left weight"], rows["error"], fmt="o", color=EXACT,
                  capsize=2, label="Langevin steps")  # fmt: skip
    left.plot(rows["steps"], rows["left weight, small h"], color="black", linewidth=1.2,
              label="Fokker-Planck, small h")  # fmt: skip
    left.axhline(0.1, color="black", linestyle=":", linewidth=1.2, label="true weight")
    left.set(xscale="log", xlabel="steps in all", ylabel="weight of the left mode")
    left.legend()
    for ax in axes[0]:
        ax.set_xscale("log")
        ax.set_xticks(rows["steps"], [str(n) for n in rows["steps"]])
        ax.minorticks_off()
    right.errorbar(rows["steps"], rows["W1"], rows["W1 error"], fmt="o-", color=EXACT, capsize=2,
                   label="samples")  # fmt: skip
    right.plot(rows["steps"], rows["W1 floor"], color="black", linewidth=1.2, label="floor")
    right.set(yscale="log", xlabel="steps in all", ylabel="Wasserstein-1")
    right.legend()
    fig.suptitle("Exact score, no fault: what too few steps cost")
    return fig


def draw_plane(config: Config, arrays: Arrays) -> Figure:
    """Samples of the three modes over the exact density."""
    fig, axes = plots.figure(1, 2, height=5.1, share=True)
    rows = plane_table(config, arrays)
    for ax, kind in zip(axes[0], ("exact", "learned"), strict=True):
        plots.background(ax, arrays["plane density"], (-7, 7, -7, 7))
        x = arrays[f"plane {kind} 0 x"][:1500]
        ax.scatter(x[:, 0], x[:, 1], s=2, c="black", linewidths=0, alpha=0.7, rasterized=True)
        ax.set(xlim=(-7, 7), ylim=(-7, 7), aspect="equal", xlabel="$x_1$")
        some = rows[rows["score"] == kind]
        words = ", ".join(
            f"{share:.3f} ± {error:.3f}" for share, error in zip(some["share"], some["error"])
        )
        ax.set_title(f"{kind} score\n{words}", fontsize=10)
    axes[0, 0].set_ylabel("$x_2$")
    fig.suptitle("Annealed Langevin in the plane; the modes weigh 0.4, 0.4 and 0.2")
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


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """Both walks with the exact score, down the levels side by side."""
    fig, axes = plots.figure(1, 2, height=3.2, share=True)
    found, edges = [], np.linspace(-8, 8, 65)
    walks = []
    for pace, faults in FILMS:
        key = f"{key_of('exact', pace, faults)} 0"
        walks.append((plan_of(config, pace, faults).levels, arrays[f"film {key}"]))
    count = max(len(levels) for levels, _ in walks) + 1
    shown = np.unique(np.linspace(0, count - 1, min(count, config.frames)).round().astype(int))
    for frame in shown.tolist():
        for ax, (pace, _), (levels, states) in zip(axes[0], FILMS, walks, strict=True):
            i = min(frame, len(levels))
            x, now = states[i], max(i - 1, 0)
            ax.clear()
            height = np.histogram(x, edges)[0] / (len(x) * np.diff(edges))
            ax.stairs(height, edges, fill=True, color=EXACT, alpha=0.5)
            ax.plot(arrays["grid"], arrays[f"density {pace}"][now], color="black", linewidth=1.2)
            ax.plot(arrays["grid"], arrays["density"], color="0.5", linewidth=0.8, linestyle=":")
            ax.set(xlim=(-8, 8), ylim=(0, 0.42), xlabel="x")
            name = "the note, all faults" if pace == "note" else "no fault"
            words = "start" if i == 0 else f"$\\sigma = {levels[now]:.2f}$"
            ax.set_title(f"{name}: {words}, {np.mean(x < 0):.3f} left of 0", fontsize=10)
        axes[0, 0].set_ylabel("density")
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
