"""Which sampler is best at which budget of evaluations, with the exact score and a learned one?

Every sampler of `samplers.ALL` runs back from the exact p_T, so that nothing but its steps and the
score is in error, along times even in the log-SNR (`grids.log_snr`: from T down to T/1000, then to
0), with the options that the table gives it.  Other grids and options rank otherwise.  A budget of
B evaluations of the model buys the most steps n that make at most B calls:

    calls = n              of one evaluation a step;  n + 1 of dpm_3m, whose first step makes two
    calls = 2 n - 1        of two, since the step to no noise at all makes one

so B/2 steps for an even B (B - 1 for dpm_3m), 1000 of two calls at the largest budget.  Calls are
counted, and the tables show them.

The error is the Wasserstein-1 distance to the law of the data, in its units: on the line
int |F_n^-1 - Q| du, in the plane its mean over projections on even angles,

    W1 = mean over directions u of 1/n sum_i mean_j |u.x_(i) - q_ij|,  q_ij quantiles of u.X, of
         mass (i - 1 + (j - 1/2)/k)/n, exact on the line, else of a large true sample

(sliced: Bonneel et al. 2015).  Its floor is the same number for n true samples: mean over `floors`
draws, and spread.

Learned: for every seed a network of its own (eps, plain denoising loss); all seeds are trained as
one batched computation and sampled as one model (`ensembles`).  All samplers start from the same
points of p_T and see the same stream of noise, and the networks are the same, so that differences
between samplers are taken seed by seed.  Errors are standard errors over seeds.

    at the floor   mean - floor < 3 spreads, those that the mean of as many true samples has
    apart          the mean difference is above t errors: Student's, 1 % two-sided, and not both at
                   the floor; with the best picked among all, more than 1 % are by chance (4 % of
                   15 that are all the same), and the W1 of the best is that of a picked one
    tie            not apart from the best, or both at the floor
    close          within 2 errors of the best, whatever the floor

Why some fail in few steps, with r = sigma/alpha, 150 at T:

    exponential_ode   holds the score over a step, which grows as 1/r; next to a point y = x/alpha
                      becomes y (1 + (r'/r)^2)/2 instead of y r'/r, half of y at best
    multistep         an error e of eps is r e in x0 = (x - sigma eps)/alpha; 2M and 3M bring the x0
                      of T into later steps, where alpha is larger.  The tables give rms errors at
                      the times of the fewest steps, and runs whose first step the exact score makes

Nor need an error fall with every step: a spread too small with one number of steps and too large
with the next passes the right one by chance.

Two moons are taken as a mixture of 2 x 80 Gaussians, Gauss-Legendre nodes along the curve: another
law by less than 1e-9 in log p, and one whose score costs the same wherever a sampler strays.

Three samplers are others by another name, to rounding, as are their noises: DPM-Solver++ 1S is DDIM
(Lu et al. 2022), and its SDE and DDIM with eta = 1 (Song, Meng and Ermon 2021) are ancestral
sampling.  They are run once (`TWINS`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffscience import distances, gallery, grids, nets, plots, samplers, train
from diffscience.ensembles import Ensemble, together
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Counted, Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target

Arrays = dict[str, np.ndarray]


def moons(nodes: int = 80) -> GaussianMixture:
    """`gallery.two_moons` as a mixture of Gaussians at so many nodes of each half."""
    u, weights = np.polynomial.legendre.leggauss(nodes)
    t = 0.5 * math.pi * (1 + u)
    upper, lower = (np.cos(t), np.sin(t)), (1 - np.cos(t), 0.5 - np.sin(t))
    means = np.concatenate([np.stack(upper, axis=1), np.stack(lower, axis=1)])
    return GaussianMixture(np.tile(weights, 2), means, np.full((2 * nodes, 2), 0.1**2))


TARGETS: dict[str, Callable[[], Target]] = {**gallery.ALL, "two_moons": moons}

SCORES = ("exact", "learned")
TWINS = {"dpm_1s": "ddim", "dpm_1s_sde": "ancestral", "ddim_sde": "ancestral"}
FLOWS, NOISY = (
    tuple(n for n, s in samplers.ALL.items() if s.random == noisy and n not in TWINS)
    for noisy in (False, True)
)
NAMES = (*FLOWS, *NOISY)
"""Samplers of the flow, then those that draw noise, their likes in the same order; all are run."""

SURE = 0.99  # of the two-sided test for a difference
NEAR = 3.0  # spreads of the floor within which a mean is at the floor
QUANTILES = 8  # k, of the law for each point of a sample


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : names in `TARGETS`, on the line or in the plane.
    budgets : increasing numbers of evaluations, 3 or more.
    seeds : runs, and networks of each target.
    points : of a run.
    directions : of the projections in the plane; reference : true points for each of a run.
    floors : true samples behind a floor.
    train_steps, batch, rate, final_rate, ema, width : of the training; two layers.
    shown, shown_budgets : target and budgets of the pictured samples, of the first seed.
    """

    targets: tuple[str, ...] = ("julia_bimodal", "eight_gaussians", "two_moons")
    budgets: tuple[int, ...] = (4, 6, 8, 12, 16, 32, 100, 400, 2000)
    seeds: int = 8
    points: int = 400
    directions: int = 32
    reference: int = 128
    floors: int = 64
    train_steps: int = 2500
    batch: int = 256
    rate: float = 5e-3
    final_rate: float = 1e-5
    ema: float = 0.99
    width: int = 48
    shown: str = "two_moons"
    shown_budgets: tuple[int, ...] = (8, 16)
    seed: int = 61

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in TARGETS:
                raise ArgumentError("targets", "name laws of the gallery", name)
        plane = [name for name in self.targets if TARGETS[name]().dim == 2]
        if self.shown not in plane:
            raise ArgumentError("shown", "be one of the targets in the plane", self.shown)
        for name in ("budgets", "shown_budgets"):
            if not getattr(self, name):
                raise ArgumentError(name, "hold at least one number", getattr(self, name))
            for n in getattr(self, name):
                whole(name, n, 3)
        if not set(self.shown_budgets) <= set(self.budgets):
            raise ArgumentError("shown_budgets", f"be among {self.budgets}", self.shown_budgets)
        if list(self.budgets) != sorted(set(self.budgets)):
            raise ArgumentError("budgets", "increase", self.budgets)
        least = {
            "seeds": 2, "points": 10, "directions": 1, "floors": 2,
            "train_steps": 1, "batch": 1, "width": 1,
        }  # fmt: skip
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        whole("reference", self.reference, QUANTILES)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("ema", self.ema, 0, 1, "[)")


QUICK = Config(
    targets=("julia_bimodal", "eight_gaussians"), budgets=(4, 8), seeds=2, points=80, directions=4,
    reference=8, floors=6, train_steps=60, batch=64, width=16, shown="eight_gaussians",
    shown_budgets=(8,),
)  # fmt: skip


# ---------------------------------------------------------------- compute


def calls_of(name: str, steps: int) -> int:
    """Evaluations of the model in so many steps to a time without noise."""
    each = int(samplers.ALL[name].evaluations)
    return each * steps - (each - 1) + (name == "dpm_3m")


def steps_of(name: str, budget: int) -> int:
    """The most steps with at most so many evaluations."""
    each = int(samplers.ALL[name].evaluations)
    return (budget + each - 1 - (name == "dpm_3m")) // each


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """Quantiles of a law in some directions, and the distances of samples from them.

    directions : (D, L) unit columns. quantiles : (n, k, L), increasing along n and k.
    """

    directions: np.ndarray
    quantiles: np.ndarray

    @classmethod
    def of(cls, config: Config, target: str, run: Run) -> Yardstick:
        """That of a target for samples of the size of a run."""
        law, n = TARGETS[target](), config.points
        mass = (np.arange(n * QUANTILES) + 0.5) / (n * QUANTILES)
        if law.dim == 1:
            return cls(np.ones((1, 1)), law.quantile(mass).reshape(n, QUANTILES, 1))
        generator = run.generator(target, "reference")
        directions = distances.unit_directions(2, config.directions, generator)
        true = law.sample(n * config.reference, generator) @ directions
        found = np.quantile(true, mass, axis=0, method="hazen")  # value i of m: mass (i - 1/2)/m
        return cls(directions, found.reshape(n, QUANTILES, -1))

    def distance(self, x: np.ndarray) -> np.ndarray:
        """W1 of samples (..., n, D) from the law, (...)."""
        seen = np.sort(x @ self.directions, axis=-2)
        return np.asarray(np.abs(seen[..., None, :] - self.quantiles).mean(axis=(-3, -2, -1)))


def learned(config: Config, target: str, run: Run) -> Network:
    """The networks of all seeds as one model."""
    law, process = TARGETS[target](), VP()
    crowd = [
        Network(
            nets.MLP(law.dim, (config.width,) * 2, seed=run.seed_for(target, "weights", k)),
            process,
        )
        for k in range(config.seeds)
    ]
    histories = together(
        crowd,
        law,
        steps=config.train_steps,
        seeds=[run.seed_for(target, "training", k) for k in range(config.seeds)],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        ema=config.ema,
    )
    for network, history in zip(crowd, histories):
        train.averaged(network.net, history)
    # To the types the net is any module; here it is an MLP.
    return Network(Ensemble([network.net for network in crowd]), process)  # type: ignore[misc]


def starts(config: Config, target: str, run: Run) -> np.ndarray:
    """Points of the exact p_T, (seeds, n, D)."""
    law, n = Oracle(TARGETS[target](), VP()).at(VP().T), config.points
    return np.stack([law.sample(n, run.generator(target, "start", k)) for k in range(config.seeds)])


def sampled(
    model: Model,
    name: str,
    budget: int,
    start: np.ndarray,
    run: Run,
    target: str,
    first: Model | None = None,
) -> tuple[np.ndarray, int]:
    """The end of one sampler for all seeds, (seeds, n, D), and the calls that it made.

    first : the model that answers in the first step, in the place of `model`.
    """
    counted = Counted(first or model)
    times = grids.log_snr(model.process, steps_of(name, budget))
    noise = run.generator(target, "noise", budget)
    states = samplers.ALL[name].run(counted, start, times, noise)
    for _ in range(2):  # the start, and where the first step leads
        next(states)
    counted.model = model
    return np.asarray(samplers.last(states)), counted.calls


def off(config: Config, model: Model, exact: Oracle, run: Run, target: str) -> np.ndarray:
    """rms error of x0 under p_t at the times of the fewest steps of one call, (times, seeds)."""
    rows = []
    for t in grids.log_snr(VP(), config.budgets[0])[:-1]:
        law = exact.at(t)
        x = np.stack([
            law.sample(config.points, run.generator(target, "off", float(t), k))
            for k in range(config.seeds)
        ])  # fmt: skip
        square = np.sum((np.asarray(model.x0(x, t)) - exact.x0(x, t)) ** 2, axis=-1)
        rows.append(np.sqrt(square.mean(axis=1)))
    return np.array(rows)


def case(config: Config, run: Run, target: str, score: str) -> Arrays:
    """All samplers at all budgets: error (samplers, budgets, seeds) and calls.

    floor (floors) is the error of true samples; sample (shown budgets, samplers, n, 2) the ends of
    the first seed, of the target that is shown and NaN of others; first (samplers, seeds) the error
    at the least budget when the exact score makes the first step; off: see there.
    """
    exact = Oracle(TARGETS[target](), VP())
    model = exact if score == "exact" else learned(config, target, run)
    yardstick, start = Yardstick.of(config, target, run), starts(config, target, run)
    error = np.empty((len(NAMES), len(config.budgets), config.seeds))
    calls = np.empty((len(NAMES), len(config.budgets)), int)
    shown = (len(config.shown_budgets), len(NAMES), config.points, 2)
    sample = np.full(shown, math.nan, np.float32)
    for (i, name), (j, budget) in itertools.product(enumerate(NAMES), enumerate(config.budgets)):
        end, calls[i, j] = sampled(model, name, budget, start, run, target)
        error[i, j] = yardstick.distance(end)
        if target == config.shown and budget in config.shown_budgets:
            sample[config.shown_budgets.index(budget), i] = end[0]
    first = [
        yardstick.distance(sampled(model, name, config.budgets[0], start, run, target, exact)[0])
        for name in NAMES
    ]
    true = [
        exact.law.sample(config.points, run.generator(target, "floor", i))
        for i in range(config.floors)
    ]
    floor = np.array([yardstick.distance(x) for x in true])
    return {
        "error": error, "calls": calls, "floor": floor, "sample": sample,
        "first": np.array(first), "off": off(config, model, exact, run, target),
    }  # fmt: skip


def compute(config: Config, run: Run) -> Arrays:
    """Every target with every score; learned ones first, which take longest."""
    axes = {"score": SCORES[::-1], "target": config.targets}
    return run.sweep("cases", case, axes, config)


# ---------------------------------------------------------------- who is ahead


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Samplers at one budget of one case, by mean error.

    order : (samplers,) indices into `NAMES`, the best first.
    behind : (samplers,) mean difference to the best, in the order of `NAMES`; error : its own.
    tied : (samplers,) whether it is not apart from the best; even : the same by the t-test alone.
    close : (samplers,) whether it is within 2 errors of the best.
    floored : (samplers,) whether it is at the floor.
    """

    order: np.ndarray
    behind: np.ndarray
    error: np.ndarray
    tied: np.ndarray
    even: np.ndarray
    close: np.ndarray
    floored: np.ndarray

    @classmethod
    def of(cls, error: np.ndarray, floor: np.ndarray) -> Ranking:
        """Of errors (samplers, seeds), seeds in common, and of true samples (floors)."""
        order = np.argsort(error.mean(axis=1), kind="stable")
        behind, spread = mean_and_error(error - error[order[0]], axis=1)
        floored = excess(estimate(error, floor)) < NEAR
        apart = behind > sure(error.shape[1]) * spread
        tied = ~apart | (floored & floored[order[0]])
        return cls(order, behind, spread, tied, ~apart, behind <= 2 * spread, floored)


@functools.cache
def sure(seeds: int) -> float:
    """Student's t for a difference over so many seeds."""
    from scipy.special import stdtrit

    return float(stdtrit(seeds - 1, 0.5 + 0.5 * SURE))


def estimate(error: np.ndarray, floor: np.ndarray) -> Estimate:
    """Mean over seeds, the last axis, beside what the mean of as many true samples is."""
    mean, spread = mean_and_error(error, axis=-1)
    of_means = float(np.std(floor, ddof=1)) / math.sqrt(error.shape[-1])
    return Estimate(mean, spread, float(np.mean(floor)), of_means)


def in_floors(error: np.ndarray, floor: np.ndarray) -> tuple[float, float]:
    """Mean over seeds (seeds,) in units of the mean floor (floors,), and the error of both."""
    (mean, spread), (unit, doubt) = mean_and_error(error), mean_and_error(floor)
    return mean / unit, math.hypot(spread, mean / unit * doubt) / unit


def excess(found: Estimate) -> Any:
    """(value - floor) in spreads of the floor: large chance of its own takes nothing to it."""
    return (found.value - found.floor) / found.floor_error


def cases(config: Config, arrays: Arrays) -> list[tuple[str, str, int]]:
    """Targets and scores with their rows in the arrays, exact ones first."""
    found = zip(arrays["score"].tolist(), arrays["target"].tolist())
    rows = [(target, score, i) for i, (score, target) in enumerate(found)]
    return sorted(rows, key=lambda r: (SCORES.index(r[1]), config.targets.index(r[0])))


def ranking(arrays: Arrays, i: int, j: int) -> Ranking:
    """That of case i at budget j."""
    return Ranking.of(arrays["error"][i, :, j], arrays["floor"][i])


# ---------------------------------------------------------------- tables


def listed(names: list[str]) -> str:
    """The first three of some names, and how many more."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def verdict(rank: Ranking) -> str:
    """Whether the best is ahead, and of whom it is not."""
    others = [NAMES[k] for k in rank.order[1:] if rank.tied[k]]
    where = " at the floor" if rank.floored[rank.order[0]] else ""
    return f"tie{where} with {listed(others)}" if others else f"ahead{where}"


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The best at each budget, and by how much it leads."""
    rows = []
    for target, score, i in cases(config, arrays):
        for j, budget in enumerate(config.budgets):
            rank = ranking(arrays, i, j)
            best, second = rank.order[:2]
            found = estimate(arrays["error"][i, best, j], arrays["floor"][i])
            rows.append({
                "target": target, "score": score, "evaluations": budget, "best": NAMES[best],
                "W1": found.value, "error": found.error, "floor": found.floor,
                "excess": excess(found), "next": NAMES[second], "lead": rank.behind[second],
                "lead error": rank.error[second], "within 2 errors": rank.close.sum(),
                "verdict": verdict(rank),
            })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(("error", "excess", "lead", "lead error"), 2) | {
        "W1": 3, "floor": 3
    }  # fmt: skip
    return frame


def all_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every sampler at every budget: its error, its excess and its distance from the best."""
    rows = []
    for target, score, i in cases(config, arrays):
        for j, budget in enumerate(config.budgets):
            rank = ranking(arrays, i, j)
            for k in rank.order:
                errors, floor = arrays["error"][i, k, j], arrays["floor"][i]
                found, (ratio, doubt) = estimate(errors, floor), in_floors(errors, floor)
                rows.append({
                    "target": target, "score": score, "evaluations": budget, "sampler": NAMES[k],
                    "steps": steps_of(NAMES[k], budget), "calls": arrays["calls"][i, k, j],
                    "W1": found.value, "error": found.error, "floor": found.floor,
                    "floor error": found.floor_error, "W1/floor": ratio, "ratio error": doubt,
                    "excess": excess(found),
                    "at the floor": rank.floored[k], "behind": rank.behind[k],
                    "behind error": rank.error[k], "tied with the best": rank.tied[k],
                    "within 2 errors of the best": rank.close[k],
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    errors = ("error", "floor error", "ratio error", "excess", "behind", "behind error")
    frame.attrs["digits"] = dict.fromkeys(errors, 2) | {"W1": 3, "floor": 3, "W1/floor": 3}
    return frame


def ties_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """All names behind the counts: those within 2 errors of the best, and the others that tie."""
    rows = []
    for target, score, i in cases(config, arrays):
        for j, budget in enumerate(config.budgets):
            rank = ranking(arrays, i, j)
            close = [NAMES[k] for k in rank.order if rank.close[k]]
            rest = [NAMES[k] for k in rank.order if rank.tied[k] and not rank.close[k]]
            rows.append({
                "target": target, "score": score, "evaluations": budget,
                "within 2 errors of the best": ", ".join(close),
                "also tied with it": ", ".join(rest),
            })  # fmt: skip
    return pd.DataFrame(rows)


def first_at_floor(config: Config, arrays: Arrays, i: int, k: int) -> float:
    """The least budget from which on sampler k of case i is at the floor; NaN for none."""
    found = estimate(arrays["error"][i, k], arrays["floor"][i])
    above = np.flatnonzero(excess(found) >= NEAR)
    first = int(above[-1]) + 1 if len(above) else 0
    return config.budgets[first] if first < len(config.budgets) else math.nan


def floor_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """With the exact score: the evaluations from which on each sampler is at the floor."""
    rows = []
    for k, name in enumerate(NAMES):
        twins = [twin for twin, other in TWINS.items() if other == name]
        row: dict[str, Any] = {"sampler": name, "the same": ", ".join(twins)}
        for target, score, i in cases(config, arrays):
            if score == "exact":
                row[target] = first_at_floor(config, arrays, i, k)
        rows.append(row)
    return pd.DataFrame(rows)


def wins_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """How often each sampler is the best or ties with it, and how often it is ahead of all."""
    rows = []
    for score in SCORES:
        ranks = [
            ranking(arrays, i, j)
            for _, own, i in cases(config, arrays)
            for j in range(len(config.budgets))
            if own == score
        ]
        tied, even, close = (
            np.array([getattr(r, key) for r in ranks]) for key in ("tied", "even", "close")
        )
        ahead = tied & (tied.sum(axis=1) == 1)[:, None]
        for k, name in enumerate(NAMES):
            rows.append({
                "score": score, "sampler": name, "best or tied": tied[:, k].sum(),
                "best or tied, by t alone": even[:, k].sum(), "within 2 errors": close[:, k].sum(),
                "ahead of all": ahead[:, k].sum(),
                "of": len(ranks),
            })  # fmt: skip
    return pd.DataFrame(rows)


def favourite(config: Config, arrays: Arrays) -> pd.Series:
    """The row of `wins_table`, both scores together, that is best or ties most often."""
    wins = wins_table(config, arrays).drop(columns="score").groupby("sampler").sum()
    return wins.sort_values(["best or tied", "ahead of all"]).iloc[-1]


def first_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The least budget: the exact score, the learned one, and that with an exact first step."""
    rows, found = [], {(target, score): i for target, score, i in cases(config, arrays)}
    for target, (k, name) in itertools.product(config.targets, enumerate(NAMES)):
        i, j = (found[target, score] for score in SCORES)
        row: dict[str, Any] = {"target": target, "sampler": name, "evaluations": config.budgets[0]}
        for words, errors in (
            ("exact score", arrays["error"][i, k, 0]),
            ("learned score", arrays["error"][j, k, 0]),
            ("exact first step", arrays["first"][j, k]),
        ):
            row[words], row[f"{words}, error"] = in_floors(errors, arrays["floor"][i])
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {name: 2 if "error" in name else 3 for name in frame.columns[3:]}
    return frame


def off_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """rms errors of the networks, as eps and as x0, at the times of the fewest steps."""
    rows, process = [], VP()
    for target, score, i in cases(config, arrays):
        if score == "learned":
            for t, errors in zip(grids.log_snr(process, config.budgets[0]), arrays["off"][i]):
                ratio = process.alpha(t) / math.sqrt(process.var(t))
                mean, error = mean_and_error(errors)
                rows.append({
                    "target": target, "t": float(t), "alpha/sigma": ratio, "eps": ratio * mean,
                    "eps, error": ratio * error, "x0": mean, "x0, error": error,
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns[1:], 3)
    return frame


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every run of every seed."""
    parts = []
    k, j, s = (index.ravel() for index in np.indices(arrays["error"].shape[1:]))
    budgets = np.array(config.budgets)[j]
    for target, score, i in cases(config, arrays):
        parts.append(pd.DataFrame({
            "target": target, "score": score, "sampler": np.array(NAMES)[k],
            "evaluations": budgets, "seed": s,
            "steps": [steps_of(NAMES[a], int(b)) for a, b in zip(k, budgets)],
            "calls": arrays["calls"][i, k, j], "W1": arrays["error"][i, k, j, s],
        }))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """The best at each budget, its ties, how often who is; the floor; why few steps of a learned
    score are bad; all samplers; every run.
    """
    return {
        "": main_table(config, arrays), "ties": ties_table(config, arrays),
        "wins": wins_table(config, arrays), "floor": floor_table(config, arrays),
        "first": first_table(config, arrays), "off": off_table(config, arrays),
        "all": all_table(config, arrays), "cells": cells_table(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


WORDS = {
    "euler": "Euler", "exponential_ode": "exponential ODE", "ddim": "DDIM", "heun": "Heun",
    "dpm_2s": "DPM++ 2S", "dpm_2m": "DPM++ 2M", "dpm_3m": "DPM++ 3M",
    "euler_maruyama": "Euler–Maruyama", "exponential": "exponential SDE",
    "ancestral": "ancestral", "edm": "EDM, churned", "dpm_2s_sde": "DPM++ 2S SDE",
    "dpm_2m_sde": "DPM++ 2M SDE", "dpm_3m_sde": "DPM++ 3M SDE",
    "predictor_corrector": "predictor–corrector",
}  # fmt: skip
TITLES = {
    "julia_bimodal": "two modes on a line", "eight_gaussians": "eight Gaussians",
    "two_moons": "two moons",
}  # fmt: skip
MARKERS = "osD^vP*X"


def worded(name: str) -> str:
    """A sampler in words."""
    return WORDS.get(name, name.replace("_", " "))


def title_of(target: str) -> str:
    """A target in words."""
    return TITLES.get(target, target.replace("_", " "))


def draw_best(config: Config, arrays: Arrays) -> Figure:
    """All samplers at all budgets as colours, the best and what ties with it marked."""
    columns, rows = len(config.targets), len(SCORES)
    fig, axes = plots.figure(rows, columns, height=0.9 + 3.8 * rows)
    for (target, score, i), ax in zip(cases(config, arrays), axes.flat):
        ratio = arrays["error"][i].mean(axis=2) / arrays["floor"][i].mean()
        image = ax.imshow(
            np.log10(ratio), origin="upper", aspect="auto", cmap="cividis_r", vmin=0, vmax=1.5
        )
        for j in range(len(config.budgets)):
            rank = ranking(arrays, i, j)
            for k in np.flatnonzero(rank.tied):
                best = k == rank.order[0]
                dark = ratio[k, j] > 6
                ax.plot(
                    j, k, "*" if best else "o", ms=9 if best else 5, mew=1.0, color="white"
                    if dark else "#bd1f01", mfc=None if best else "none",
                )  # fmt: skip
        ax.axhline(len(FLOWS) - 0.5, color="white", lw=2.0)
        words = list(map(str, config.budgets))
        ax.set_xticks(range(len(words)), words, fontsize=7, rotation=45)
        ax.set_yticks(range(len(NAMES)), [worded(name) for name in NAMES], fontsize=8)
        ax.tick_params(labelleft=ax in axes[:, 0], length=0)
        ax.set_title(f"{title_of(target)}\n{score} score", fontsize=9)
        ax.grid(visible=False)
        if ax in axes[-1]:
            ax.set_xlabel("evaluations")
    bar = fig.colorbar(image, ax=axes.ravel().tolist(), extend="both", shrink=0.6)
    bar.set_label("$W_1$ / its floor")
    ticks = (1, 2, 5, 10, 20)
    bar.set_ticks(np.log10(ticks).tolist(), labels=list(map(str, ticks)))
    most = favourite(config, arrays)
    counts = f"{most['best or tied']} of {most['of']} columns, ahead of all in"
    fig.suptitle(
        "The best sampler at each budget (star) and those that tie with it (circles):\n"
        f"{worded(str(most.name))} is best or ties in {counts} {most['ahead of all']}"
        f" ({config.seeds} seeds, t-test at 1 %, or both at the floor)",
        fontsize=10,
    )
    return fig


def draw_curves(config: Config, arrays: Arrays, score: str) -> Figure:
    """Error against evaluations: flows above, samplers that draw noise below."""
    some = [(target, i) for target, own, i in cases(config, arrays) if own == score]
    fig, axes = plots.figure(2, len(some), height=6.6)
    for column, (target, i) in enumerate(some):
        floor = arrays["floor"][i]
        for ax, names in zip(axes[:, column], (FLOWS, NOISY)):
            for n, name in enumerate(names):
                found = estimate(arrays["error"][i, NAMES.index(name)], floor)
                ax.errorbar(
                    config.budgets, found.value, found.error, marker=MARKERS[n], ms=4, lw=1.2,
                    capsize=2, color=plots.COLORS[n], label=worded(name),
                )  # fmt: skip
                if score == "learned":
                    k, open_ = NAMES.index(name), {"mfc": "white", "color": plots.COLORS[n]}
                    ax.plot(config.budgets[0], arrays["first"][i, k].mean(), MARKERS[n], **open_)
            mark_floor(ax, floor, config.seeds)
            ax.set(xscale="log", yscale="log")
            ax.set_xticks(config.budgets, spaced(config.budgets), fontsize=8)
            ax.set_xticks([], minor=True)
        low = min(ax.get_ylim()[0] for ax in axes[:, column])
        high = max(ax.get_ylim()[1] for ax in axes[:, column])
        for ax in axes[:, column]:
            ax.set_ylim(low, high)
        axes[0, column].set_title(title_of(target), fontsize=10)
        axes[1, column].set_xlabel("evaluations of the model")
    for ax, words in zip(axes[:, 0], ("flow: no noise", "noise in every step")):
        ax.set_ylabel(f"{words}\n$W_1$ to the law")
    plots.legend_below(fig, axes[0, 0], axes[1, 0], columns=4)
    fig.suptitle(heading(config, arrays, score), fontsize=10)
    return fig


def spaced(budgets: tuple[int, ...]) -> list[str]:
    """Budgets in words; none so near to the last that they would overlap on a log axis."""
    words, last = [], 0.0
    for budget in budgets:
        apart = budget > 1.4 * last
        words.append(str(budget) if apart else "")
        last = budget if apart else last
    return words


def mark_floor(ax: Any, floor: np.ndarray, seeds: int) -> None:
    """Where the mean of true samples lies, and by how much that of so many seeds strays."""
    mean, spread = floor.mean(), np.std(floor, ddof=1) / math.sqrt(seeds)
    ax.axhspan(mean - 2 * spread, mean + 2 * spread, color="0.85", lw=0)
    ax.axhline(mean, color="0.4", lw=1.0, ls="--", label="floor: true samples (± 2 errors)")


def heading(config: Config, arrays: Arrays, score: str) -> str:
    """What the curves of a score show, in numbers."""
    some = [(title_of(target), i) for target, own, i in cases(config, arrays) if own == score]
    parts = []
    if score == "exact":
        for title, i in some:
            first = [first_at_floor(config, arrays, i, k) for k in range(len(NAMES))]
            least = min(n for n in (*first, math.inf) if not math.isnan(n))
            parts.append(f"{title} {least:g} ({first.count(least)} samplers)")
        return (
            "Exact score: the fewest evaluations from which on a sampler stays at the floor:\n"
            + ", ".join(parts)
        )
    name = str(favourite(config, arrays).name)
    for title, i in some:
        errors = arrays["error"][i, NAMES.index(name), -1]
        ratio, error = in_floors(errors, arrays["floor"][i])
        parts.append(f"{title} {ratio:.2f} ± {error:.2f}")
    return (
        f"Learned score ({config.seeds} networks, {config.train_steps} updates): floors left by"
        f" {worded(name)} in {config.budgets[-1]} evaluations:\n"
        + ", ".join(parts)
        + f"\nOpen: {config.budgets[0]} evaluations, the first step made by the exact score"
    )


def draw_samples(config: Config, arrays: Arrays) -> Figure:
    """Samples of the first seed at few evaluations."""
    names = ("ddim", "heun", "dpm_2m", "ancestral", "dpm_2m_sde")
    ks = [NAMES.index(name) for name in names]
    found = {score: i for target, score, i in cases(config, arrays) if target == config.shown}
    lines = list(itertools.product(SCORES, range(len(config.shown_budgets))))
    fig, axes = plots.figure(len(lines), len(names), height=0.7 + 1.3 * len(lines), share=True)
    for (score, b), row in zip(lines, axes):
        budget, i = config.shown_budgets[b], found[score]
        j = config.budgets.index(budget)
        for name, k, ax in zip(names, ks, row):
            ax.plot(*arrays["sample"][i, b, k].T, ".", ms=1.8, color=plots.COLORS[0])
            mean = arrays["error"][i, k, j].mean() / arrays["floor"][i].mean()
            ax.set_title(f"{worded(name)}: {mean:.1f}", fontsize=9)
            ax.set(aspect="equal")
        row[0].set_ylabel(f"{score}, {budget}", fontsize=9)
    box = arrays["sample"][list(found.values())][:, :, ks].reshape(-1, 2)
    low, high = np.quantile(box, [0.002, 0.998], axis=0)
    axes[0, 0].set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    fig.suptitle(
        f"{title_of(config.shown).capitalize()} in"
        f" {' and '.join(map(str, config.shown_budgets))} evaluations: samples of the first seed"
        " (numbers: $W_1$/floor, mean of all seeds;\nat least 99 % of all points are inside)",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """The best at each budget; curves with either score; samples."""
    return {
        "": draw_best(config, arrays),
        "exact": draw_curves(config, arrays, "exact"),
        "learned": draw_curves(config, arrays, "learned"),
        "samples": draw_samples(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Which sampler is best at which budget of evaluations, with the exact score and with a learned"
    " one?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
