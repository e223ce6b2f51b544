"""What does the choice of noise schedule change: the training, the sampling, or neither?

A schedule says how much noise there is after a share u of the way from data to noise, and both
training times and sampling steps are even in u.  With the log-SNR lambda = log(alpha^2/sigma^2),

    signal share  abar(u) = alpha^2/(alpha^2 + sigma^2) = 1/(1 + e^-lambda)
    beta(u)       = -d log abar/du, which is that of Ho et al. 2020 where alpha^2 + sigma^2 = 1
    density       p(lambda) = -du/dlambda, the share of steps for each unit of log-SNR

Two processes X_t = alpha X_0 + sigma Z with equal lambda differ by a factor on X alone (Kingma et
al. 2021, section 5.1; Karras et al. 2022, section 2), so a schedule is p(lambda) and its two ends,
and nothing else, for whatever does not look at t or at that factor:

    sampling   ancestral, DDIM and DPM++ steps between given log-SNRs are the same for every
               process (checked in continuous time, beside Euler's on the flow, which are not)
    training   E_u |eps - eps_model|^2 = int p(lambda) E|eps - eps_model|^2 dlambda: a schedule is a
               weight (Kingma and Gao 2023); divided by 2 p, every schedule has the loss
               int E|eps - eps_model|^2 dlambda/2 of the bound, and changes its variance alone

Compared at equal budget: linear (the chain of 1000 steps of Ho et al. 2020, its beta constant over
each step), VP (its limit, Song et al. 2021), VE geometric (theirs) and VE with g = 25^t (of their
tutorial),
cosine (Nichol and Dhariwal 2021), sigmoid (Jabri et al. 2022), polynomial (Hoogeboom et al. 2022),
rectified flow (Liu et al. 2023), the steps of EDM, even in sigma^(1/7) from 80 to 0.002, the
log-normal law of its training, log(sigma/sigma_data) ~ N(-1.2 + log 2, 1.2^2) between the same ends
(Karras et al. 2022), and steps even in lambda between the ends of VP.  N steps are N evaluations,
from N(0, sigma^2 I) at the end of the schedule to data without noise.

Here every run and every network is in the coordinates alpha = cos, sigma = sin of pi t/2, `ANGLE`.
Networks predict v there, see x and -lambda/8, held within what their schedule has shown them, and
start from common weights with common data, noise and u.  So a network can be sampled along any
schedule:  training effect    its steps even in lambda, beside those of other networks
           sampling effect    exact score, the schedule's own steps
Targets are scaled to mean 0 and, on average, variance 1 a coordinate.  The score changes, in this
study, where E tr Cov[X_0 | X_t] is between 5 % and 95 % of tr Cov[X_0], the band.

    W1     between samples and the law: on the line to the means of the n pieces of equal mass into
           which the law is cut (off by at most their width); in the plane the mean over 16
           directions of that of the projections, which are exact mixtures too
    KL     1/2 int E|eps_model - eps|^2 dlambda over a common window, in nats: by Girsanov what the
           score adds to the KL of the reverse SDE; by quadrature.  Under the simple weighting some
           schedules see less than the window, g = 25^t up to 6.9, and are asked beyond

Starts are scrambled Sobol points, so that a deterministic sampler's W1 has a floor of some 3e-3 on
the line and 1e-2 in the plane: that of a run of many steps.  The floor of ancestral sampling is
that of true samples, which has an error of its own.  Errors are standard errors over seeds: of
weights, data and starts; those of ratios by leaving out one seed at a time (jackknife).  The
largest over the least of many noisy means is above 1 by chance; the tables say by how much, for
schedules that are all equal with the same scatter.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from scipy.special import ndtr, ndtri

from diffscience import gallery, losses, metrics, nets, plots, samplers, times, weightings
from diffscience.arrays import Array
from diffscience.chain import Chain
from diffscience.distances import QuantileCells
from diffscience.ensembles import Ensemble, together
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import (
    EDM,
    VE,
    VP,
    Cosine,
    Polynomial,
    Process,
    RectifiedFlow,
    Sigmoid,
    VEGeometric,
)
from diffscience.study import Run, Study, run_file

Arrays = dict[str, np.ndarray]

ANGLE = Cosine(0.0)  # alpha = cos(pi t/2), sigma = sin(pi t/2)
EARLY = 1e-3  # where training times begin and even log-SNRs end, as a share of u
FLIPS = 1000  # of signs, behind a ratio by chance
RHO, SIGMA_MIN = 7.0, 0.002  # of EDM's steps
MEAN, STD = -1.2 + math.log(2), 1.2  # of log sigma in EDM's training, for data of variance 1
SEEN = 10.0  # log-SNRs beyond which networks see no difference
BAND = (0.95, 0.05)  # of the prior variance
DIRECTIONS = 16
WEIGHTINGS = ("simple", "bound")
WORDS = {
    "julia_bimodal": "two modes on a line", "julia_trimodal": "three modes in the plane",
    "ddim": "DDIM", "dpm_2m": "DPM++ 2M",
}  # fmt: skip


# ---------------------------------------------------------------- schedules

MEASURES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "log-SNR": (lambda level: level, lambda even: even),
    "rho": (lambda level: np.exp(-level / (2 * RHO)), lambda even: -2 * RHO * np.log(even)),
    "normal": (
        lambda level: ndtr((-level / 2 - MEAN) / STD),
        lambda even: -2 * (MEAN + STD * ndtri(even)),
    ),
}
"""What steps can be even in besides the time: of log-SNRs, and back."""


def minus_log_abar(chain: Chain) -> np.ndarray:
    """-log abar after 0, ..., K steps, (K + 1,)."""
    return np.concatenate([[0.0], np.cumsum(-np.log1p(-chain.betas))])


def log_snr_at(process: Process, t: Any) -> Any:
    """The log-SNR at any time; within a step of a chain beta is constant."""
    if not isinstance(process, Chain):
        return process.log_snr(t)
    off = np.interp(t, np.arange(process.K + 1), minus_log_abar(process))
    with np.errstate(divide="ignore"):
        return -off - np.log(-np.expm1(-off))


def time_at(process: Process, level: Any) -> Any:
    """The time with a log-SNR, back from `log_snr_at`."""
    if not isinstance(process, Chain):
        return process.time_of_log_snr(level)
    off = np.logaddexp(0, -np.asarray(level, float))
    return np.interp(off, minus_log_abar(process), np.arange(process.K + 1))


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A process and what its steps are even in: "time", or one of `MEASURES` from `first` on."""

    process: Process
    measure: str = "time"
    first: float = 0.0

    def _even(self, level: Any) -> Any:
        """What steps are even in, of log-SNRs."""
        if self.measure == "time":
            return np.asarray(time_at(self.process, level))
        return MEASURES[self.measure][0](np.asarray(level))

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        """What steps are even in, at u = 0 and u = 1."""
        if self.measure == "time":
            return 0.0, self.process.T
        first, last = (self._even(self.process.log_snr(t)) for t in (self.first, self.process.T))
        return float(first), float(last)

    def log_snr(self, u: Any) -> Any:
        """lambda(u), for u in [0, 1]."""
        start, end = self._ends
        even = start + (end - start) * np.asarray(u, float)
        if self.measure == "time":
            return log_snr_at(self.process, even)
        return MEASURES[self.measure][1](even)

    def place(self, level: Any) -> np.ndarray:
        """The share u at which the log-SNR is `level`; 0 above all that there are, 1 below."""
        start, end = self._ends
        return np.clip((self._even(level) - start) / (end - start), 0.0, 1.0)

    def density(self, level: Any) -> np.ndarray:
        """p(lambda)."""
        h = 1e-4
        return (self.place(np.asarray(level) - h) - self.place(np.asarray(level) + h)) / (2 * h)

    def angle(self, u: Any) -> np.ndarray:
        """The time of `ANGLE` with the log-SNR of u."""
        return np.asarray(ANGLE.time_of_log_snr(np.clip(self.log_snr(u), -700, 700)))

    def steps(self, count: int) -> np.ndarray:
        """Times of `ANGLE` from the end of the schedule to 0 in so many steps, as its users have.

        Where u = 0 has noise left, the last step goes from there to the data.
        """
        if self.measure == "time":
            return np.append(self.angle(np.linspace(1, 0, count + 1)[:-1]), 0.0)
        return np.append(self.angle(np.linspace(1, 0, count)), 0.0)


EVEN = "even log-SNR"
SCHEDULES = {
    "linear": Schedule(Chain.linear(1000)), "VP": Schedule(VP()),
    "cosine": Schedule(Cosine()), "sigmoid": Schedule(Sigmoid()),
    "polynomial": Schedule(Polynomial()), "rectified flow": Schedule(RectifiedFlow()),
    "VE, 25^t": Schedule(VE()), "VE geometric": Schedule(VEGeometric()),
    "EDM steps": Schedule(EDM(), "rho", SIGMA_MIN),
    "EDM log-normal": Schedule(EDM(), "normal", SIGMA_MIN), EVEN: Schedule(VP(), "log-SNR", EARLY),
}  # fmt: skip


# ---------------------------------------------------------------- config

INVARIANT = ("ancestral", "ddim", "ddim_sde", "dpm_1s", "dpm_2m", "dpm_3m")
"""Samplers of one evaluation a step whose steps depend on log-SNRs alone."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : mixtures in `gallery.ALL`; the bound's weighting is trained for the last of them.
    schedules : names in `SCHEDULES`, with `EVEN`.
    samplers : among `INVARIANT`; the last is deterministic and is that of all pairs of schedules.
    steps : increasing numbers of steps with the exact score; few : those of them for networks,
        which the first and the last sampler run.
    pairs : the one of `few` at which every network is sampled along every schedule.
    seeds : networks of each schedule, and starts.
    points : of a run; a power of 2.
    window : log-SNRs over which errors of scores count. levels : how many are asked.
    width, updates, batch, rate, final_rate : of the networks (two layers) and of their training.
    fine : steps of the run that is the floor of deterministic samplers.
    """

    targets: tuple[str, ...] = ("julia_bimodal", "julia_trimodal")
    schedules: tuple[str, ...] = tuple(SCHEDULES)
    samplers: tuple[str, ...] = ("ancestral", "ddim", "dpm_2m")
    steps: tuple[int, ...] = (8, 16, 32, 64, 128)
    few: tuple[int, ...] = (8, 16, 32)
    pairs: int = 16
    seeds: int = 8
    points: int = 512
    window: tuple[float, float] = (-4.5, 8.0)
    levels: int = 26
    width: int = 64
    updates: int = 1000
    batch: int = 128
    rate: float = 5e-3
    final_rate: float = 5e-5
    fine: int = 400
    seed: int = 61

    @property
    def taught_samplers(self) -> tuple[str, ...]:
        """The first sampler and the last, by which networks are sampled."""
        return tuple(dict.fromkeys((self.samplers[0], self.samplers[-1])))

    def __post_init__(self) -> None:
        known: dict[str, Collection[str]] = {
            "targets": gallery.ALL,
            "schedules": SCHEDULES,
            "samplers": INVARIANT,
        }
        for name, table in known.items():
            given = getattr(self, name)
            for item in given:
                if item not in table:
                    raise ArgumentError(name, f"be among {', '.join(table)}", item)
            if not given or len(set(given)) < len(given):
                raise ArgumentError(name, "name one or more, each once", given)
        for name in self.targets:
            if not isinstance(gallery.ALL[name](), GaussianMixture):
                raise ArgumentError("targets", "be mixtures", name)
        if EVEN not in self.schedules:
            raise ArgumentError("schedules", f"hold {EVEN}", self.schedules)
        if samplers.ALL[self.samplers[-1]].random:
            raise ArgumentError("samplers", "have a deterministic one last", self.samplers)
        for name in ("steps", "few"):
            given = getattr(self, name)
            for count in given:
                whole(name, count, 3)
            if not given or list(given) != sorted(set(given)):
                raise ArgumentError(name, "be increasing whole numbers", given)
        if not set(self.few) <= set(self.steps):
            raise ArgumentError("few", f"be among the steps {self.steps}", self.few)
        if self.pairs not in self.few:
            raise ArgumentError("pairs", f"be one of few = {self.few}", self.pairs)
        least = {"seeds": 2, "levels": 3, "width": 1, "updates": 1, "batch": 1, "fine": 8}
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        whole("points", self.points, 16)
        if self.points & (self.points - 1):
            raise ArgumentError("points", "be a power of 2", self.points)
        number("window", self.window[0], -SEEN, SEEN)
        number("window", self.window[1], self.window[0], SEEN, "(]")
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")


QUICK = Config(
    targets=("julia_trimodal",), schedules=("linear", "rectified flow", EVEN),
    samplers=("ancestral", "dpm_2m"), steps=(4, 8), few=(4, 8), pairs=8, seeds=2, points=64,
    levels=4, width=16, updates=5, batch=32, fine=16,
)  # fmt: skip


# ---------------------------------------------------------------- laws and distances


@functools.cache
def law_of(target: str) -> GaussianMixture:
    """The mixture with mean 0 and mean variance 1 a coordinate."""
    law: Any = gallery.ALL[target]()
    size = float(np.trace(law.cov)) / law.dim
    return GaussianMixture(law.weights, (law.means - law.mean) / math.sqrt(size), law.covs / size)


@functools.cache
def pieces(target: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions (d, D), and the means of the n pieces of the law of each projection, (d, n)."""
    law = law_of(target)
    if law.dim == 1:
        return np.ones((1, 1)), QuantileCells.of(law, n).mean[None]
    turn = (np.arange(DIRECTIONS) + 0.5) * (math.pi / DIRECTIONS)
    directions = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    covs = law.covs if law.covs.ndim == 3 else [np.diag(c) for c in law.covs]
    found = []
    for v in directions:
        spread = np.array([[v @ c @ v] for c in covs])
        along = GaussianMixture(law.weights, law.means @ v[:, None], spread)
        found.append(QuantileCells.of(along, n).mean)
    return directions, np.stack(found)


def distance(target: str, x: np.ndarray) -> np.ndarray:
    """W1 of samples (S, n, D) from the law, (S,)."""
    directions, means = pieces(target, x.shape[1])
    along = np.sort(np.moveaxis(np.asarray(x, float) @ directions.T, 1, -1), axis=-1)
    return np.asarray(np.mean(np.abs(along - means), axis=(1, 2)))


def starts(config: Config, target: str, run: Run) -> np.ndarray:
    """Normal numbers (seeds, points, D), scrambled Sobol points, the same for all schedules."""
    from scipy.stats import qmc

    dim = law_of(target).dim
    draws = (
        qmc.Sobol(dim, bits=50, seed=run.generator("start", target, s)).random(config.points)
        for s in range(config.seeds)
    )
    return np.stack([ndtri(np.clip(u, 1e-15, 1 - 1e-15)) for u in draws])


def carried(model: Model, sampler: str, grid: np.ndarray, z: np.ndarray, seed: int) -> np.ndarray:
    """Where the prior's points, of z (S, n, D), come to along decreasing times of `ANGLE`."""
    x = math.sqrt(ANGLE.var(float(grid[0]))) * z
    return np.asarray(samplers.last(samplers.ALL[sampler].run(model, x, grid, seed)))


# ---------------------------------------------------------------- what schedules are


def levels_of(config: Config) -> np.ndarray:
    """Log-SNRs at which errors of scores are asked, increasing."""
    return np.linspace(*config.window, config.levels)


def curves(config: Config) -> Arrays:
    """abar and lambda of every schedule at even u, beta between them, and densities.

    u (m + 1,); abar, log_snr (schedules, m + 1); beta (schedules, m); at the log-SNRs level (c,)
    density (schedules, c).  Beside them the differences in log-SNR of the linear chain and VP.
    """
    u, level = np.linspace(0, 1, 501), np.linspace(-14, 14, 281)
    chosen = [SCHEDULES[name] for name in config.schedules]
    with np.errstate(divide="ignore", over="ignore"):
        log_snr = np.stack([schedule.log_snr(u) for schedule in chosen])
        log_abar = -np.logaddexp(0, -log_snr)
        beta = -np.diff(log_abar, axis=1) * (len(u) - 1)
    k = np.arange(1, 1001)
    chains = [c.log_snr(k) for c in (Chain.linear(1000), Chain.of(VP(), np.arange(1001) / 1000))]
    return {
        "u": u, "abar": np.exp(log_abar), "log_snr": log_snr, "beta": beta, "level": level,
        "density": np.stack([schedule.density(level) for schedule in chosen]),
        "linear chain": np.abs(chains[0] - chains[1]),
    }  # fmt: skip


def band_of(target: str) -> np.ndarray:
    """The log-SNRs between which the score of a target changes, (2,)."""
    from scipy.optimize import brentq

    oracle = Oracle(law_of(target), ANGLE)
    prior = float(np.trace(oracle.law.cov))

    def left(level: float, share: float) -> float:
        return weightings.uncertainty(oracle, float(ANGLE.time_of_log_snr(level))) / prior - share

    return np.array([brentq(left, -SEEN, SEEN, args=(share,), xtol=1e-6) for share in BAND])


def shares(schedule: Schedule, band: np.ndarray, scale: Array = 1.0) -> tuple[Array, Array, Array]:
    """Shares of the steps below, within and above the band, for data times a scale."""
    low, high = (schedule.place(b - 2 * np.log(scale)) for b in band)
    return 1 - low, low - high, high


def prior_gap(schedule: Schedule, target: str) -> float:
    """KL(p_T || N(0, sigma^2 I)), what the start costs."""
    t = float(schedule.angle(1.0))
    end, var = law_of(target).diffuse(ANGLE.at(t)), float(ANGLE.var(t))
    squares = float(end.mean @ end.mean + np.trace(end.cov)) / var
    return 0.5 * (squares + end.dim * math.log(2 * math.pi * var)) - float(end.entropy())


def invariance(config: Config, target: str, run: Run) -> np.ndarray:
    """Largest differences between schedules in runs between equal log-SNRs, (samplers + Euler,).

    Each process in its own coordinates and times, from common points with common noise; but for the
    chain, which has VP's coordinates and only its own log-SNRs.
    """
    law, names = law_of(target), [*config.samplers, "euler"]
    levels = np.linspace(-4.5, 8.0, 16)
    z = run.generator("invariance", target).standard_normal((100, law.dim))
    first = float(ANGLE.time_of_log_snr(levels[0]))
    start = law.diffuse(ANGLE.at(first))
    x = start.mean + math.sqrt(float(np.trace(start.cov)) / law.dim) * z
    found = []
    for process in {SCHEDULES[name].process: None for name in config.schedules}:
        if isinstance(process, Chain):
            continue
        grid = np.append(process.time_of_log_snr(levels), 0.0)
        size = process.alpha(float(grid[0])) / ANGLE.alpha(first)
        oracle = Oracle(law, process)
        ends = (samplers.last(samplers.ALL[s].run(oracle, size * x, grid, 5)) for s in names)
        found.append(np.stack([np.asarray(end) for end in ends]))
    return np.asarray(np.ptp(np.stack(found), axis=0).max(axis=(1, 2)))


def facts(config: Config, target: str, run: Run) -> Arrays:
    """Band, prior and invariance of a target; floors: of true samples and of a long run."""
    oracle, z = Oracle(law_of(target), ANGLE), starts(config, target, run)
    grid = np.append(ANGLE.time_of_log_snr(np.linspace(-14, 14, config.fine)), 0.0)
    fine = carried(oracle, "dpm_3m", grid, z, 0)
    true = oracle.law.sample(z[..., 0].size, run.generator("truth", target)).reshape(z.shape)
    return {
        "band": band_of(target), "invariance": invariance(config, target, run),
        "prior": np.array([prior_gap(SCHEDULES[name], target) for name in config.schedules]),
        "floor": np.stack([distance(target, true), distance(target, fine)]),
    }  # fmt: skip


# ---------------------------------------------------------------- cells


def exact_cell(config: Config, run: Run, target: str, schedule: str, sampler: str) -> Arrays:
    """W1 of runs with the exact score along a schedule, (steps, seeds)."""
    oracle, z = Oracle(law_of(target), ANGLE), starts(config, target, run)
    seed, way = run.seed_for("noise", target), SCHEDULES[schedule]
    ends = (carried(oracle, sampler, way.steps(count), z, seed) for count in config.steps)
    return {"W1": np.stack([distance(target, x) for x in ends])}


@dataclasses.dataclass(frozen=True)
class Lesson:
    """How a schedule is taught: the log-SNRs that are seen, and how much each counts.

    The simple weighting has all u from EARLY on; that of the bound has the window,
    where it gives every schedule the same expected loss.
    """

    schedule: Schedule
    weighting: str
    window: tuple[float, float]

    @functools.cached_property
    def levels(self) -> tuple[float, float]:
        """The least log-SNR and the largest."""
        simple = self.weighting == "simple"
        low, high = (float(self.schedule.log_snr(u)) for u in (1.0, EARLY if simple else 0.0))
        return (low, high) if simple else (max(low, self.window[0]), min(high, self.window[1]))

    def law(self) -> times.Times:
        """Times of `ANGLE` with the log-SNRs of the schedule."""

        def weight(process: Process, t: Array) -> Array:
            level = np.clip(process.log_snr(t), -700, 700)
            inside = (self.levels[0] <= level) & (level <= self.levels[1])
            return self.schedule.density(level) * inside * weightings.likelihood(process, t)

        return times.importance(ANGLE, weight, EARLY)

    def loss(self, law: times.Times) -> losses.Loss:
        """Of the rows whose times have this law."""
        if self.weighting == "simple":
            return losses.weighted
        return functools.partial(losses.weighted, weight=law.corrected(weightings.bound))

    def seen(self, t: torch.Tensor) -> torch.Tensor:
        """What the network sees of a time of `ANGLE`: -lambda/8, held within `levels`."""
        level = -2 * torch.log(torch.tan(0.5 * math.pi * t))
        low, high = self.levels
        return torch.clamp(level, max(low, -SEEN), min(high, SEEN)) / -8


def taught(config: Config, target: str, lessons: Sequence[Lesson], run: Run) -> list[Network]:
    """The networks of each lesson, all seeds as one."""
    dim, widths, seeds = law_of(target).dim, (config.width, config.width), range(config.seeds)
    laws = [lesson.law() for lesson in lessons]
    groups = [
        [
            nets.MLP(dim, widths, seed=run.seed_for("weights", target, s)).to(run.device)
            for s in seeds
        ]
        for _ in lessons
    ]

    def each(values: Sequence[Any]) -> list[Any]:
        """One for each network."""
        return [value for value in values for _ in seeds]

    together(
        [Network(n, ANGLE, "v", own.seen) for own, nets_ in zip(lessons, groups) for n in nets_],
        law_of(target),
        steps=config.updates,
        seeds=[run.seed_for("training", target, s) for _ in lessons for s in seeds],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        loss=each([lesson.loss(law) for lesson, law in zip(lessons, laws)]),
        times=each(laws),
        progress=lambda steps: run.progress(steps, f"{target}, {lessons[0].weighting}"),
    )
    return [
        Network(Ensemble(group), ANGLE, "v", lesson.seen) for lesson, group in zip(lessons, groups)
    ]


def learned_cell(config: Config, run: Run, target: str, weighting: str) -> Arrays:
    """Networks taught by every schedule, all seeds: their errors, and what they sample.

    eps (schedules, levels, seeds): E|eps_model - eps|^2.  W1 (schedules, ways, `taught_samplers`,
    few, seeds): of runs along each schedule, NaN for those that are not `wanted`.
    """
    oracle, z = Oracle(law_of(target), ANGLE), starts(config, target, run)
    lessons = [Lesson(SCHEDULES[name], weighting, config.window) for name in config.schedules]
    models = taught(config, target, lessons, run)
    grid, seed = ANGLE.time_of_log_snr(levels_of(config)), run.seed_for("noise", target)
    axes = (config.schedules, config.schedules, config.taught_samplers, config.few)
    reached = np.full((*map(len, axes), config.seeds), math.nan)
    for place, (name, way, sampler, count) in indexed(*axes):
        if wanted(config, weighting, name, way, sampler, count):
            model, steps = models[place[0]], SCHEDULES[way].steps(count)
            reached[place] = distance(target, carried(model, sampler, steps, z, seed))
    errors = [metrics.fisher_error(model, oracle, grid).value for model in models]
    return {"eps": ANGLE.var(grid)[:, None] * np.stack(errors), "W1": reached}


def indexed(*axes: Sequence[Any]) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...]]]:
    """The places in a product of axes, and what is there."""
    return zip(itertools.product(*(range(len(axis)) for axis in axes)), itertools.product(*axes))


def wanted(config: Config, weighting: str, name: str, way: str, sampler: str, count: int) -> bool:
    """Whether networks taught by `name` are sampled along `way`.

    All pairs by the last sampler in `config.pairs` steps; their own schedules by both samplers in
    every number of steps.  Networks of the bound only along even log-SNRs.
    """
    crossed = sampler == config.samplers[-1] and count == config.pairs
    if weighting == "bound":
        return crossed and way == EVEN
    return crossed or name == way


def compute(config: Config, run: Run) -> Arrays:
    """What schedules are; exact runs along them; networks taught by them."""
    arrays = dict(run.cell("curves", curves, config))
    for target in config.targets:
        found = run.cell(f"facts {target}", facts, config, target, run)
        arrays |= {f"{target} {key}": value for key, value in found.items()}
    axes: dict[str, Any] = {"target": config.targets, "schedule": config.schedules}
    exact = run.sweep("exact", exact_cell, axes | {"sampler": config.samplers}, config)
    learned = run.sweep(
        "learned", learned_cell, {"target": config.targets, "weighting": WEIGHTINGS}, config,
        where=lambda cell: cell["weighting"] in taught_by(config, cell["target"]),
    )  # fmt: skip
    for name, found in (("exact", exact), ("learned", learned)):
        arrays |= {f"{name} {key}": value for key, value in found.items()}
    return arrays


def taught_by(config: Config, target: str) -> tuple[str, ...]:
    """The weightings that networks of a target are trained with."""
    return WEIGHTINGS if target == config.targets[-1] else WEIGHTINGS[:1]


# ---------------------------------------------------------------- numbers


def found_in(arrays: Arrays, sweep: str, key: str, **asked: str) -> np.ndarray:
    """The value of the cell of a sweep at the given places of its axes."""
    at = np.all([arrays[f"{sweep} {axis}"] == value for axis, value in asked.items()], axis=0)
    found: np.ndarray = arrays[f"{sweep} {key}"][int(np.flatnonzero(at)[0])]
    return found


def exact_of(arrays: Arrays, target: str, schedule: str, sampler: str) -> np.ndarray:
    """W1 with the exact score, (steps, seeds)."""
    return found_in(arrays, "exact", "W1", target=target, schedule=schedule, sampler=sampler)


def learned_of(arrays: Arrays, key: str, target: str, weighting: str = "simple") -> np.ndarray:
    """ "eps" or "W1" of the networks of all schedules."""
    return found_in(arrays, "learned", key, target=target, weighting=weighting)


def floors_of(arrays: Arrays, target: str, sampler: str) -> np.ndarray:
    """W1 of what a sampler can reach at best, (seeds,)."""
    found: np.ndarray = arrays[f"{target} floor"][0 if samplers.ALL[sampler].random else 1]
    return found


def kl(config: Config, arrays: Arrays, target: str, weighting: str = "simple") -> np.ndarray:
    """1/2 int E|eps_model - eps|^2 dlambda over the window, (schedules, seeds)."""
    eps = learned_of(arrays, "eps", target, weighting)
    return np.asarray(0.5 * np.trapezoid(eps, levels_of(config), axis=1))


def exact_row(config: Config, arrays: Arrays, target: str) -> np.ndarray:
    """W1 along each schedule with the exact score, as in `pairs_of`, (schedules, seeds)."""
    at, last = config.steps.index(config.pairs), config.samplers[-1]
    return np.stack([exact_of(arrays, target, s, last)[at] for s in config.schedules])


def pairs_of(config: Config, arrays: Arrays, target: str, weighting: str = "simple") -> np.ndarray:
    """W1 (taught by, way, seeds) of networks in `config.pairs` steps of the last sampler."""
    return learned_of(arrays, "W1", target, weighting)[:, :, -1, config.few.index(config.pairs)]


def effects(config: Config, arrays: Arrays, target: str) -> dict[tuple[str, str], np.ndarray]:
    """What each effect is read from: (effect, measure) -> (schedules, seeds)."""
    pairs, even = pairs_of(config, arrays, target), config.schedules.index(EVEN)
    found = {
        ("sampling", "W1"): exact_row(config, arrays, target),
        ("training", "W1"): pairs[:, even],
        ("both", "W1"): np.stack([pairs[i, i] for i in range(len(pairs))]),
    }
    for weighting in taught_by(config, target):
        found[f"training, {weighting}", "KL"] = kl(config, arrays, target, weighting)
    return found


def jackknife(statistic: Callable[[np.ndarray], Any], values: np.ndarray) -> tuple[Any, Any]:
    """A statistic of values (..., seeds), and its standard error by leaving out each seed."""
    n = values.shape[-1]
    without = np.array([statistic(np.delete(values, s, axis=-1)) for s in range(n)])
    return statistic(values), np.sqrt((n - 1) * np.var(without, axis=0))


def spread(values: np.ndarray) -> float:
    """The largest over the least mean of (schedules, seeds)."""
    mean = values.mean(axis=-1)
    return float(mean.max() / mean.min())


def by_chance(values: np.ndarray) -> float:
    """`spread` of schedules that are all equal, with the scatter over seeds of (schedules, seeds).

    Deviations of the logarithms within each seed, under random signs.
    """
    n, logs = values.shape[-1], np.log(values)
    off = logs - logs.mean(axis=0)
    off = (off - off.mean(axis=1, keepdims=True)) * math.sqrt(n / (n - 1))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (FLIPS, *off.shape))
    return float(np.exp(np.ptp((signs * off).mean(axis=-1), axis=1)).mean())


def parts(table: np.ndarray) -> np.ndarray:
    """Shares of the variance of log W1 (taught by, way, seeds): of training, way, and the rest.

    Two-way analysis of variance of the means over seeds, less what the scatter over seeds adds to
    the two (nothing is known of it from one seed); the rest is interaction and chance.
    """
    logs, n = np.log(table), table.shape[2]
    total, found = np.var(logs.mean(axis=2)), []
    for own in (logs.mean(axis=1), logs.mean(axis=0)):  # a network's chance is that of all its ways
        own = own - own.mean(axis=0)
        noise = np.var(own, axis=1, ddof=1).mean() / n if n > 1 else 0.0
        found.append((np.var(own.mean(axis=1)) - noise) / total)
    return np.array([*found, 1 - sum(found)])


# ---------------------------------------------------------------- tables


def _told(row: dict[str, Any], name: str, values: np.ndarray) -> None:
    """The mean over seeds and its standard error into a row."""
    row[name], row[f"{name}, error"] = mean_and_error(values)


def _digits(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    digits = {str(name): 2 if str(name).endswith("error") else 3 for name in frame.columns}
    frame.attrs["digits"] = digits
    return frame


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Each schedule's share in the band, what it does to sampling, to training, and to both."""
    rows = []
    for target in config.targets:
        found = effects(config, arrays, target)
        for i, name in enumerate(config.schedules):
            row: dict[str, Any] = {"target": target, "schedule": name}
            row["share in band"] = shares(SCHEDULES[name], arrays[f"{target} band"])[1]
            _told(row, "W1 exact", found["sampling", "W1"][i])
            _told(row, "W1 trained, even steps", found["training", "W1"][i])
            _told(row, "W1 trained, own steps", found["both", "W1"][i])
            _told(row, "floor", floors_of(arrays, target, config.samplers[-1]))
            _told(row, "KL", found["training, simple", "KL"][i])
            rows.append(row)
    return _digits(rows)


def effects_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """How much schedules matter: the largest over the least, and shares of var log W1."""
    rows = []
    for target in config.targets:
        names = np.array(config.schedules)
        part = dict(zip(("training", "sampling"), np.transpose(
            jackknife(parts, pairs_of(config, arrays, target)))))  # fmt: skip
        for (effect, measure), values in effects(config, arrays, target).items():
            mean = values.mean(axis=1)
            row: dict[str, Any] = {"target": target, "effect on": effect, "measure": measure}
            row["least"], row["of"] = mean.min(), names[np.argmin(mean)]
            row["largest"], row["of it"] = mean.max(), names[np.argmax(mean)]
            row["largest/least"], row["ratio, error"] = jackknife(spread, values)
            row["by chance"] = by_chance(values)
            row["steps"] = config.pairs if measure == "W1" else math.nan
            row["share of var log W1"], row["share, error"] = part.get(effect, (math.nan,) * 2)
            rows.append(row)
    return _digits(rows)


def schedules_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Ends of every schedule, where its steps fall, and its prior."""
    rows = []
    for target, (i, name) in itertools.product(config.targets, enumerate(config.schedules)):
        schedule = SCHEDULES[name]
        row: dict[str, Any] = {"target": target, "schedule": name}
        row["log-SNR at u = 1"] = float(schedule.log_snr(1.0))
        row[f"log-SNR at u = {EARLY:g}"] = float(schedule.log_snr(EARLY))
        found = shares(schedule, arrays[f"{target} band"])
        row |= dict(zip(("noisier", "in band", "cleaner"), map(float, found)))
        rows.append(row | {"KL of the prior": arrays[f"{target} prior"][i]})
    return _digits(rows)


def training_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """KL and W1 of networks by weighting, and their difference from those of even log-SNRs."""
    rows, even = [], config.schedules.index(EVEN)
    for target in config.targets:
        for weighting in taught_by(config, target):
            found = {
                "KL": kl(config, arrays, target, weighting),
                "W1": pairs_of(config, arrays, target, weighting)[:, even],
            }
            for i, name in enumerate(config.schedules):
                row: dict[str, Any] = {"target": target, "weighting": weighting, "schedule": name}
                for what, values in found.items():
                    _told(row, what, values[i])
                    _told(row, f"{what} above that of even", values[i] - values[even])
                rows.append(row)
    return _digits(rows)


def steps_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """W1 of every kind of run along its own schedule, beside its floor."""
    rows = []
    axes = (config.targets, config.schedules, config.samplers, config.steps)
    for (_, i, _, at), (target, name, sampler, count) in indexed(*axes):
        row: dict[str, Any] = {"target": target, "schedule": name, "sampler": sampler}
        row["steps"] = count
        _told(row, "W1 exact", exact_of(arrays, target, name, sampler)[at])
        trained = np.full(config.seeds, math.nan)
        if count in config.few and sampler in config.taught_samplers:
            place = config.taught_samplers.index(sampler), config.few.index(count)
            trained = learned_of(arrays, "W1", target)[(i, i, *place)]
        _told(row, "W1 trained", trained)
        _told(row, "floor", floors_of(arrays, target, sampler))
        rows.append(row)
    return _digits(rows)


def checks_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """How far runs between equal log-SNRs differ between processes in continuous time."""
    rows = [
        {"target": target, "check": f"{name}, equal log-SNRs", "largest difference": value}
        for target in config.targets
        for name, value in zip([*config.samplers, "euler"], arrays[f"{target} invariance"])
    ]
    check = "log-SNR of the linear chain of 1000 steps and of VP, from step 10 on"
    found = arrays["linear chain"][9:].max()
    return _digits([*rows, {"target": "", "check": check, "largest difference": found}])


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every run, seeds kept apart."""
    rows: list[dict[str, Any]] = []

    def add(values: np.ndarray, *about: Any) -> None:
        names = ("target", "score", "trained by", "way", "sampler", "steps")
        if np.isfinite(values).all():
            rows.extend(
                {**dict(zip(names, about)), "seed": s, "W1": v} for s, v in enumerate(values)
            )

    for target in config.targets:
        for name, sampler in itertools.product(config.schedules, config.samplers):
            for count, values in zip(config.steps, exact_of(arrays, target, name, sampler)):
                add(values, target, "exact", "", name, sampler, count)
        for kind in taught_by(config, target):
            found = learned_of(arrays, "W1", target, kind)
            axes = (config.schedules, config.schedules, config.taught_samplers, config.few)
            for place, about in indexed(*axes):
                add(found[place], target, kind, *about)
    return pd.DataFrame(rows)


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Schedules and their effects; the rest in parts."""
    return {
        "": main_table(config, arrays), "effects": effects_table(config, arrays),
        "schedules": schedules_table(config, arrays), "training": training_table(config, arrays),
        "steps": steps_table(config, arrays), "checks": checks_table(config, arrays),
        "cells": cells_table(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


def look(name: str) -> dict[str, Any]:
    """Colour and line of a schedule: full ones preserve variance, dashed ones explode it.

    VP is dotted, since it lies on the chain whose limit it is.
    """
    process = SCHEDULES[name].process
    color = "black" if name == EVEN else plots.COLORS[list(SCHEDULES).index(name)]
    if name == "VP":
        return {"color": color, "ls": (0, (1, 1.5)), "lw": 2.2}
    return {"color": color, "ls": "--" if process.alpha(process.T) == 1 else "-"}


def plain(axis: Any) -> None:
    """Logarithmic ticks at 1, 2 and 5, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def words(name: str) -> str:
    """A target or sampler in words."""
    return WORDS.get(name, name.replace("_", " "))


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Sampling, training and both, by schedule."""
    fig, (axes,) = plots.figure(1, len(config.targets), height=4.6)
    kinds = {
        "W1 exact": ("sampling: exact score, own steps", "o"),
        "W1 trained, even steps": ("training: networks, even steps", "s"),
        "W1 trained, own steps": ("both: networks, own steps", "D"),
    }
    rows = main_table(config, arrays)
    for ax, target in zip(axes, config.targets):
        some = rows[rows["target"] == target]
        y = np.arange(len(some))[::-1]
        for (kind, (label, marker)), color, lift in zip(
            kinds.items(), plots.COLORS, (0.22, 0.0, -0.22)
        ):
            ax.errorbar(
                some[kind], y + lift, xerr=some[f"{kind}, error"], fmt=marker, color=color,
                capsize=2, ms=5, label=label,
            )  # fmt: skip
        ax.axvline(some["floor"].iloc[0], color="0.4", ls=":", label="floor")
        ax.set(xscale="log", xlabel="$W_1$ to the law")
        plain(ax.xaxis)
        ax.set_yticks(y, some["schedule"] if ax is axes[0] else [""] * len(y))
        found = effects(config, arrays, target)
        by = [jackknife(spread, found[effect, "W1"]) for effect in ("sampling", "training")]
        ax.set_title(
            f"{words(target)}: largest/least {by[0][0]:.1f} ± {by[0][1]:.1f}\nby sampling,"
            f" {by[1][0]:.2f} ± {by[1][1]:.2f} by training", fontsize=9.5,
        )  # fmt: skip
    plots.legend_below(fig, axes[0], columns=2)
    fig.suptitle(
        f"What a schedule does in {config.pairs} steps of {words(config.samplers[-1])}"
        f" ({config.seeds} seeds ± standard error)",
        fontsize=11,
    )
    return fig


def draw_curves(config: Config, arrays: Arrays) -> Figure:
    """abar, lambda and beta against u; where steps are spent, and how many in the bands."""
    fig, (top, low) = plots.figure(2, max(3, 1 + len(config.targets)), height=6.6)
    for ax in (*top[3:], *low[1 + len(config.targets) :]):
        ax.set_axis_off()
    u, lines = arrays["u"], itertools.cycle((":", "-.", "--"))
    scale = np.geomspace(1 / 16, 16, 65)
    for i, name in enumerate(config.schedules):
        top[0].plot(u, arrays["abar"][i], label=name, **look(name))
        top[1].plot(u, arrays["log_snr"][i], **look(name))
        top[2].plot((u[:-1] + u[1:]) / 2, arrays["beta"][i], **look(name))
        low[0].plot(arrays["level"], arrays["density"][i], **look(name))
        for ax, target in zip(low[1:], config.targets):
            found = shares(SCHEDULES[name], arrays[f"{target} band"], scale)[1]
            ax.plot(scale, found, **look(name))
            ax.set(xscale="log", ylim=(0, 1), xlabel="standard deviation of the data")
            ax.set_title(f"share of steps in the band:\n{words(target)}", fontsize=9.5)
    for ls, target in zip(lines, config.targets):
        for edge in arrays[f"{target} band"]:
            top[1].axhline(edge, color="0.35", ls=ls, lw=1.0, label=f"band of {words(target)}")
            low[0].axvline(edge, color="0.35", ls=ls, lw=1.0)
    top[0].set(title="signal share $\\bar\\alpha$", ylim=(-0.02, 1.02))
    top[1].set(title="log-SNR $\\lambda$", ylim=(-14, 20))
    top[2].set(title="$\\beta = -d\\log\\bar\\alpha/du$", yscale="log", ylim=(0.02, 300))
    low[0].set(xlabel="log-SNR $\\lambda$: noise left, data right", ylim=(0, 0.25))
    low[0].set_title("share of steps for each unit, $p(\\lambda)$", fontsize=9.5)
    for ax in top[:3]:
        ax.set_xlabel("u: data 0, noise 1")
    plots.legend_below(fig, *top[:2])
    band = arrays[f"{config.targets[-1]} band"]
    inside = [float(100 * shares(SCHEDULES[name], band)[1]) for name in config.schedules]
    fig.suptitle(
        f"The schedules spend {min(inside):.0f} to {max(inside):.0f} % of their steps in the band"
        f" of {words(config.targets[-1])}",
        fontsize=11,
    )
    return fig


def draw_steps(config: Config, arrays: Arrays) -> Figure:
    """W1 with the exact score against steps."""
    shape = len(config.targets), len(config.samplers)
    fig, axes = plots.figure(*shape, height=2.7 * shape[0] + 1.2)
    for place, (target, sampler) in indexed(config.targets, config.samplers):
        ax = axes[place]
        for name in config.schedules:
            mean, error = mean_and_error(exact_of(arrays, target, name, sampler), axis=1)
            ax.errorbar(config.steps, mean, error, label=name, capsize=1.5, **look(name))
        floor, doubt = mean_and_error(floors_of(arrays, target, sampler))
        ax.axhline(floor, color="0.4", ls=":", label="floor ± 2 errors")
        ax.axhspan(floor - 2 * doubt, floor + 2 * doubt, color="0.85", lw=0)
        ax.set(xscale="log", yscale="log")
        plain(ax.yaxis)
        ax.set_xticks(config.steps, config.steps)
        ax.xaxis.minorticks_off()
        at = config.steps.index(config.pairs)
        found = [exact_of(arrays, target, name, sampler)[at] for name in config.schedules]
        ax.set_title(
            f"{words(target)},\n{words(sampler)}: {spread(np.stack(found)):.2g}", fontsize=9
        )
    for ax in axes[-1]:
        ax.set_xlabel("steps")
    for ax in axes[:, 0]:
        ax.set_ylabel("$W_1$ to the law")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        f"Exact score, steps even in each schedule's u ({config.seeds} seeds ± standard error);"
        f"\nin the titles largest/least after {config.pairs} steps",
        fontsize=11,
    )
    return fig


def draw_training(config: Config, arrays: Arrays) -> Figure:
    """Error of networks by log-SNR."""
    done = [(target, kind) for target in config.targets for kind in taught_by(config, target)]
    fig, (axes,) = plots.figure(1, len(done), height=4.4)
    for ax, (target, weighting) in zip(axes, done):
        for name, eps in zip(config.schedules, learned_of(arrays, "eps", target, weighting)):
            mean, error = mean_and_error(eps, axis=1)
            ax.errorbar(levels_of(config), mean, error, label=name, elinewidth=0.8, **look(name))
        found, error = jackknife(spread, kl(config, arrays, target, weighting))
        ax.set(yscale="log", xlabel="log-SNR $\\lambda$")
        weight = "uniform u" if weighting == "simple" else "same loss for all"
        ax.set_title(
            f"{words(target)},\n{weight}: KL\nlargest/least {found:.2g} ± {error:.1g}", fontsize=9
        )
    axes[0].set_ylabel("$E|\\epsilon_{model} - \\epsilon|^2$")
    plots.legend_below(fig, axes[0])
    fig.suptitle("Training: errors of networks of each schedule (floor: 0)", fontsize=11)
    return fig


def draw_pairs(config: Config, arrays: Arrays) -> Figure:
    """W1 for every training schedule and every sampling schedule."""
    fig, (axes,) = plots.figure(1, len(config.targets), height=4.9)
    for ax, target in zip(axes, config.targets):
        pairs = pairs_of(config, arrays, target)
        mean = np.stack([exact_row(config, arrays, target), *pairs]).mean(axis=2)
        image = ax.imshow(np.log10(mean), origin="upper", aspect="auto", cmap=plots.DENSITY)
        for (i, j), value in np.ndenumerate(mean):
            dark = np.log10(value) < np.mean(image.get_clim())
            ax.text(
                j, i, f"{value:.2g}".replace("0.", "."), ha="center", va="center", fontsize=6,
                color="white" if dark else "black",
            )  # fmt: skip
        ax.set_xticks(range(len(config.schedules)), config.schedules, rotation=60, ha="right")
        rows = ["exact score", *config.schedules] if ax is axes[0] else [""] * len(mean)
        ax.set_yticks(range(len(mean)), rows)
        ax.grid(False)
        part, error = (100 * found for found in jackknife(parts, pairs))
        ax.set_title(
            f"{words(target)}: of var log $W_1$\n{part[1]:.0f} ± {error[1]:.0f} %"
            f" sampling, {part[0]:.0f} ± {error[0]:.0f} % training", fontsize=9,
        )  # fmt: skip
        ax.set_xlabel("sampled along")
    axes[0].set_ylabel("trained by")
    fig.suptitle(
        f"$W_1$ in {config.pairs} steps of {words(config.samplers[-1])} (mean of {config.seeds}"
        " seeds)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Effects; the schedules; steps; training; all pairs."""
    return {
        "": draw_main(config, arrays), "curves": draw_curves(config, arrays),
        "steps": draw_steps(config, arrays), "training": draw_training(config, arrays),
        "pairs": draw_pairs(config, arrays),
    }  # fmt: skip


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What does the choice of noise schedule change: the training, the sampling, or neither, and by"
    " how much?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
