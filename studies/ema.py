"""What does averaging the weights buy, and at which decay?

After update n = 1, 2, ... the average of the weights theta_n is, from theta_1 on,

    plain      average <- d average + (1 - d) theta_n:
               average = d^(n-1) theta_1 + (1 - d) sum_(j = 2..n) d^(n-j) theta_j
    warm-up    the same with min(d, (1 + n)/(10 + n)) in the place of d, as TensorFlow's
               ExponentialMovingAverage has it and the programs of Song et al. 2021 after it

d = 0 is no average.  A plain one looks back on 1/(1 - d) updates.  It takes out what the noise of
the gradient leaves in the weights (Polyak and Juditsky 1992 for the even mean), and it lags: as
long as n is not many times 1/(1 - d), it holds the share d^(n-1) of theta_1, which has learned
nothing.  One with a warm-up is of mean age (n + 1)/10 until its decay reaches d; here it has the
longest.  Ho et al. 2020 use d = 0.9999 (appendix B), Song and Ermon 2020 d = 0.999,
both over some 10^5 updates and more.

Three schedules of Adam's rate, of `steps` updates at most:

    high       constant
    low        constant, a tenth of that
    falling    from high to `fall` of it along half a cosine, to the end of the training

All averages of a seed are of one trajectory, so that what they buy is known to its paired error;
trainings of other lengths are the same trajectory where the rate is constant, and trajectories of
their own where it falls.  Networks predict eps, by its squared error at uniform times (L_simple of
Ho et al. 2020).

Measured at the nodes of even panels of the log-SNR r from t = T to `end`, by the quadrature of p_t:

    relative error  E|s_model - s|^2/E|s|^2 at r, and its mean over r
    nats            1/2 int E|eps_model - eps|^2 dr = 1/2 int g^2 E|s_model - s|^2 dt, Girsanov's
                    bound on what the score costs the reverse SDE (Song et al. 2021b, theorem 1)
    W1              of samples by DPM-Solver++ 2M from p_T: on the line from a lattice of
                    quantiles, against all quantiles; in the plane sliced, against true samples

The floor of the first two is 0.  The floor of W1 is what the exact score has with the same starts,
steps and true samples.  Errors are standard errors over seeds, those of ratios paired; the best
decay is that of the least mean nats of the same seeds.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import (
    ensembles,
    evaluation,
    gallery,
    grids,
    losses,
    metrics,
    nets,
    plots,
    samplers,
    times,
)
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.evaluation import times_worse
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target
from diffscience.train import History

Arrays = dict[str, np.ndarray]

PROCESS = VP()
SCHEDULES = HIGH, LOW, FALLING = ("high", "low", "falling")
WARM = "warm-up"
NODES = 4  # of a panel
SLICED = functools.partial(metrics.sliced_wasserstein, p=1)
WORDS = {
    "julia_bimodal": "two modes on a line", "julia_trimodal": "three modes",
    "eight_gaussians": "eight Gaussians", "two_moons": "two moons",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : names in `gallery.ALL`, of laws with a density.
    decays : increasing from 0, which is no average.
    lengths : increasing numbers of updates.
    rate : the high one. fall : of it, where it falls to.
    widths, batch : of the networks and of their training.
    seeds : trajectories of each schedule.
    end : least time of training and of the errors, in units of T.
    panels : of the quadrature in the log-SNR, each of `NODES` nodes.
    samples, sampler_steps : of each network.
    """

    targets: tuple[str, ...] = ("julia_bimodal", "eight_gaussians")
    decays: tuple[float, ...] = (0.0, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999)
    lengths: tuple[int, ...] = (100, 400, 1600)
    rate: float = 1e-2
    fall: float = 0.01
    widths: tuple[int, ...] = (32, 32)
    batch: int = 128
    seeds: int = 8
    end: float = 1e-3
    panels: int = 6
    samples: int = 1000
    sampler_steps: int = 30
    seed: int = 44

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in gallery.ALL or name == "empirical":
                raise ArgumentError("targets", "name laws of the gallery with a density", name)
        if not self.targets or len(set(self.targets)) < len(self.targets):
            raise ArgumentError("targets", "be one or more different names", self.targets)
        for d in self.decays:
            number("decays", d, 0, 1, "[)")
        if self.decays[:1] != (0.0,) or list(self.decays) != sorted({*self.decays, 0.0}):
            raise ArgumentError("decays", "increase from 0", self.decays)
        for n in self.lengths:
            whole("lengths", n, 2)
        if not self.lengths or list(self.lengths) != sorted(set(self.lengths)):
            raise ArgumentError("lengths", "be increasing whole numbers", self.lengths)
        for width in self.widths or (0,):
            whole("widths", width, 1)
        number("rate", self.rate, 0, ends="()")
        number("fall", self.fall, 0, 1, "(]")
        number("end", self.end, 0, 0.5, "()")
        least = {"batch": 1, "seeds": 2, "panels": 1, "samples": 10, "sampler_steps": 2}
        for name, low in least.items():
            whole(name, getattr(self, name), low)


QUICK = Config(
    decays=(0.0, 0.9, 0.99), lengths=(10, 40), widths=(16, 16), batch=32, seeds=2, panels=1,
    samples=60, sampler_steps=5,
)  # fmt: skip


# ---------------------------------------------------------------- averages


def rate_of(config: Config, schedule: str) -> tuple[float, float]:
    """The first and the last rate of a schedule."""
    if schedule == FALLING:
        return config.rate, config.fall * config.rate
    rate = config.rate * (0.1 if schedule == LOW else 1.0)
    return rate, rate


def keep_at(decays: Sequence[float], n: int) -> np.ndarray:
    """What stays of each average as update n is taken in, n = 1, 2, ...; the last has a warm-up.

    >>> keep_at((0.0, 0.9, 0.99), 10).tolist()
    [0.0, 0.9, 0.99, 0.55]
    """
    kept = np.array([*decays, min(decays[-1], (1 + n) / (10 + n))])
    return kept if n > 1 else 0.0 * kept


def flat(states: Sequence[dict[str, torch.Tensor]]) -> torch.Tensor:
    """The weights of some networks of one shape, by name, (networks, numbers), in float64."""
    rows = [torch.cat([state[name].flatten() for name in sorted(state)]) for state in states]
    return torch.stack(rows).cpu().double()


def averages(
    histories: Sequence[History], decays: Sequence[float], marks: Sequence[int]
) -> Iterator[np.ndarray]:
    """The averages of trajectories at each of the marks, (decays + 1, trajectories, numbers).

    histories : with snapshots at every step from 1 to the last mark. marks : increasing.
    Raises KeyboardInterrupt where Ctrl-C had ended a training.
    """
    if any(history.interrupted for history in histories):
        raise KeyboardInterrupt
    mean: Any = 0.0
    for n in range(1, marks[-1] + 1):
        theta = flat([history.snapshots[n] for history in histories])
        keep = torch.as_tensor(keep_at(decays, n))[:, None, None]
        mean = keep * mean + (1 - keep) * theta
        if n in marks:
            yield mean.numpy()


def ensemble_of(config: Config, run: Run, law: Target, weights: np.ndarray) -> Network:
    """Networks with the weights (networks, numbers) that `flat` makes, as one."""
    members = []
    for row in torch.as_tensor(weights, dtype=torch.float32):
        net = nets.MLP(law.dim, config.widths)
        own = sorted(net.state_dict().items())
        parts = row.split([value.numel() for _, value in own])
        net.load_state_dict({name: part.view_as(v) for (name, v), part in zip(own, parts)})
        members.append(net)
    together = ensembles.Ensemble(members).requires_grad_(False)
    return Network(together.to(run.device), PROCESS)


def trajectories(
    config: Config, run: Run, target: str, schedule: str, length: int
) -> list[History]:
    """The training of every seed, with its weights after every update."""
    seeds, law = range(config.seeds), gallery.ALL[target]()
    rate, last = rate_of(config, schedule)
    members = [
        nets.MLP(law.dim, config.widths, seed=run.seed_for("weights", target, k)) for k in seeds
    ]
    return ensembles.together(
        [Network(net.to(run.device), PROCESS) for net in members],
        law,
        steps=length,
        seeds=[run.seed_for("training", target, k) for k in seeds],
        batch=config.batch,
        rate=rate,
        final_rate=last,
        loss=losses.simple,
        times=times.uniform(PROCESS, config.end),
        snapshots=range(1, length + 1),
        progress=lambda steps: run.progress(steps, f"{target}, {schedule}, {length}"),
    )


# ---------------------------------------------------------------- compute


def oracle_of(target: str) -> Oracle:
    """The exact model of a law."""
    return Oracle(gallery.ALL[target](), PROCESS)


def nodes_of(config: Config) -> evaluation.Nodes:
    """The times at which all is measured."""
    return evaluation.Nodes.of(PROCESS, config.end, NODES, config.panels)


def starts(config: Config, run: Run, target: str) -> np.ndarray:
    """Points of p_T for every seed, (seeds, samples, D)."""
    draws = [run.generator("start", target, k) for k in range(config.seeds)]
    return evaluation.starts(oracle_of(target), config.samples, draws)


def distances(config: Config, run: Run, target: str, x: np.ndarray) -> np.ndarray:
    """W1, or sliced W1, of samples (..., seeds, n, D); the true samples are those of the seed."""
    seeds = [run.seed_for("truth", k) for k in range(config.seeds)]
    return evaluation.distances(x, gallery.ALL[target](), seeds, SLICED)


def sampled(config: Config, model: Model, start: np.ndarray) -> np.ndarray:
    """Where DPM-Solver++ 2M takes the starts, in steps even in the log-SNR and one to the data."""
    at = grids.log_snr(PROCESS, config.sampler_steps, least=config.end)
    return np.asarray(samplers.last(samplers.dpm_2m(model, start, at)))


def judged(config: Config, run: Run, target: str, weights: np.ndarray) -> Arrays:
    """Errors (averages, seeds, levels) and W1 of weights (averages, seeds, numbers)."""
    law, both = gallery.ALL[target](), weights.shape[:2]
    model = ensemble_of(config, run, law, weights.reshape(-1, weights.shape[-1]))
    start = np.concatenate([starts(config, run, target)] * both[0])
    error = evaluation.eps_errors(model, oracle_of(target), nodes_of(config).t)
    ends = sampled(config, model, start).reshape(*both, *start.shape[1:])
    return {
        "error": error.reshape(*both, -1),
        "W1": distances(config, run, target, ends),
    }


def cell(config: Config, run: Run, target: str, schedule: str) -> Arrays:
    """What `judged` has of every average, (lengths, decays + 1, seeds, ...)."""
    # Where the rate is constant, shorter trainings are the beginning of the longest.
    parts = [(n,) for n in config.lengths] if schedule == FALLING else [config.lengths]
    found = []
    for marks in parts:
        histories = trajectories(config, run, target, schedule, marks[-1])
        for weights in averages(histories, config.decays, marks):
            found.append(judged(config, run, target, weights))
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


def exact(config: Config, run: Run, target: str) -> Arrays:
    """E|eps|^2 at the levels, and the distances of the exact score."""
    oracle = oracle_of(target)
    ends = sampled(config, oracle, starts(config, run, target))
    return {
        "size": evaluation.eps_energy(oracle, nodes_of(config).t),
        "floor": distances(config, run, target, ends),
    }


def compute(config: Config, run: Run) -> Arrays:
    """A cell for each target and schedule, and the exact score of every target."""
    axes = {"target": config.targets, "schedule": SCHEDULES}
    arrays = run.sweep("cells", cell, axes, config)
    found = run.sweep("exact", exact, {"target": config.targets}, config)
    arrays |= {f"exact {name}": value for name, value in found.items()}
    nodes = nodes_of(config)
    arrays |= {"log-SNR": nodes.level, "weight": nodes.width}
    return arrays


# ---------------------------------------------------------------- what the arrays say


@dataclasses.dataclass(frozen=True)
class Found:
    """All averages of a training, the plain ones by their decays and one with a warm-up.

    nats, off, W1 : (decays + 1, seeds); off is the relative error, its mean over the log-SNR.
    relative : (decays + 1, seeds, levels).
    """

    nats: np.ndarray
    off: np.ndarray
    W1: np.ndarray
    relative: np.ndarray

    @property
    def best(self) -> int:
        """The plain average of the least mean nats."""
        return int(np.argmin(self.nats[:-1].mean(axis=1)))

    def as_good(self) -> list[int]:
        """The plain averages whose nats are within two paired errors of the best one's."""
        found = [times_worse(own, self.nats[self.best]) for own in self.nats[:-1]]
        return [i for i, (ratio, error) in enumerate(found) if ratio - 1 <= 2 * error]


def known(arrays: Arrays, target: str, what: str) -> np.ndarray:
    """What `exact` found of a target."""
    row: np.ndarray = arrays[f"exact {what}"][list(arrays["exact target"]).index(target)]
    return row


def found_at(config: Config, arrays: Arrays, target: str, schedule: str, length: int) -> Found:
    """All averages of a training."""
    (i,) = np.flatnonzero((arrays["target"] == target) & (arrays["schedule"] == schedule))
    at = (i, config.lengths.index(length))
    error, weight = arrays["error"][at], arrays["weight"]
    relative = error / known(arrays, target, "size")
    off = relative @ weight / weight.sum()
    return Found(0.5 * error @ weight, off, arrays["W1"][at], relative)


def horizons(config: Config) -> np.ndarray:
    """1/(1 - d), the updates that an average looks back on."""
    return 1 / (1 - np.array(config.decays))


def first_share(decay: float, n: int) -> float:
    """The share of theta_1 in a plain average after n updates.

    >>> first_share(0.0, 5), first_share(0.5, 3)
    (0.0, 0.25)
    """
    return decay ** (n - 1)


def names(config: Config) -> list[str]:
    """What the averages are called."""
    return [*(f"{d:g}" for d in config.decays), f"{config.decays[-1]:g}, {WARM}"]


# ---------------------------------------------------------------- tables


def told(row: dict[str, Any], name: str, values: np.ndarray) -> None:
    """A mean and, beside it, its standard error."""
    row[name], row[f"{name} error"] = mean_and_error(values)


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The longest training: no average, the best plain one, the longest and it with a warm-up."""
    rows = []
    for target, schedule in itertools.product(config.targets, SCHEDULES):
        found = found_at(config, arrays, target, schedule, config.lengths[-1])
        row: dict[str, Any] = {"target": target, "rate": schedule}
        told(row, "nats", found.nats[0])
        best, good = found.best, found.as_good()
        row["best decay"] = config.decays[best]
        row["as good"] = ", ".join(f"{config.decays[i]:g}" for i in good)
        told(row, "best nats", found.nats[best])
        row["best/none"], row["best/none error"] = times_worse(found.nats[best], found.nats[0])
        for name, i in (("longest", -2), (WARM, -1)):
            ratio = times_worse(found.nats[i], found.nats[0])
            row[f"{name}/none"], row[f"{name}/none error"] = ratio
        told(row, "W1", found.W1[0])
        told(row, "best W1", found.W1[best])
        told(row, "W1 floor", known(arrays, target, "floor"))
        rows.append(row)
    return _digits(pd.DataFrame(rows))


def decays_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every average at every length, beside none."""
    rows = []
    for target, schedule, length in itertools.product(config.targets, SCHEDULES, config.lengths):
        found = found_at(config, arrays, target, schedule, length)
        shares = [first_share(d, length) for d in config.decays]
        for i, name in enumerate(names(config)):
            row: dict[str, Any] = {"target": target, "rate": schedule, "updates": length}
            row |= {"average": name, "of theta_1": [*shares, math.nan][i]}
            told(row, "nats", found.nats[i])
            row["to none"], row["to none error"] = times_worse(found.nats[i], found.nats[0])
            told(row, "relative", found.off[i])
            told(row, "W1", found.W1[i])
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def levels_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The relative error of every average of the longest training by the log-SNR."""
    rows = []
    for target, schedule in itertools.product(config.targets, SCHEDULES):
        found = found_at(config, arrays, target, schedule, config.lengths[-1])
        mean, error = mean_and_error(found.relative, axis=1)
        for (i, name), (j, r) in itertools.product(
            enumerate(names(config)), enumerate(arrays["log-SNR"])
        ):
            row: dict[str, Any] = {"target": target, "rate": schedule, "average": name}
            rows.append(row | {"log-SNR": r, "relative": mean[i, j], "relative error": error[i, j]})
    return _digits(pd.DataFrame(rows))


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every average of every seed."""
    rows = []
    for target, schedule, length in itertools.product(config.targets, SCHEDULES, config.lengths):
        found = found_at(config, arrays, target, schedule, length)
        for (i, name), k in itertools.product(enumerate(names(config)), range(config.seeds)):
            row: dict[str, Any] = {"target": target, "rate": schedule, "updates": length}
            row |= {"average": name, "seed": k, "nats": found.nats[i, k]}
            rows.append(row | {"relative": found.off[i, k], "W1": found.W1[i, k]})
    return pd.DataFrame(rows)


def _digits(frame: pd.DataFrame) -> pd.DataFrame:
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 3 for c in floats}
    frame.attrs["digits"] |= {"best decay": 5}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """The longest training; every average; noise levels; every seed."""
    return {
        "": main_table(config, arrays), "decays": decays_table(config, arrays),
        "levels": levels_table(config, arrays), "cells": cells_table(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


def words(config: Config, name: str) -> str:
    """A name as figures have it."""
    rates = {
        HIGH: f"rate {config.rate:g}", LOW: f"rate {rate_of(config, LOW)[0]:g}",
        FALLING: f"from {config.rate:g} to {rate_of(config, FALLING)[1]:g}",
    }  # fmt: skip
    return WORDS.get(name, rates.get(name, name))


def look(schedule: str) -> dict[str, Any]:
    """Colour and marker of a schedule."""
    i = SCHEDULES.index(schedule)
    return {"color": plots.COLORS[2 * i], "marker": "osD"[i]}


def by_decay(ax: Any, config: Config) -> None:
    """The decays along a panel, at 1/(1 - d)."""
    ax.set(xscale="log", yscale="log")
    ax.set_xticks(horizons(config), [f"{d:g}" for d in config.decays], rotation=60, fontsize=8)
    ax.minorticks_off()


def against_decay(ax: Any, config: Config, values: np.ndarray, **style: Any) -> None:
    """Means with their errors of the plain averages as a line, of the one with a warm-up a star."""
    mean, error = mean_and_error(values, axis=1)
    x = horizons(config)
    ax.errorbar(x, mean[:-1], error[:-1], capsize=2, linewidth=1.2, **style)
    star = style | {"marker": "*", "markersize": 9, "linestyle": "", "label": None}
    ax.errorbar(x[-1], mean[-1], error[-1], capsize=2, **star)


def mark(ax: Any) -> None:
    """What a star is, for the legend."""
    ax.plot([], [], "*", color="black", markersize=9, label="with a warm-up")


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Nats and W1 against the decay after the longest training."""
    fig, axes = plots.figure(2, len(config.targets), height=6.6)
    for target, (top, bottom) in zip(config.targets, axes.T, strict=True):
        for schedule in SCHEDULES:
            found = found_at(config, arrays, target, schedule, config.lengths[-1])
            style = look(schedule) | {"label": words(config, schedule)}
            against_decay(top, config, found.nats, **style)
            against_decay(bottom, config, found.W1, **style)
        mark(bottom)
        mean, error = mean_and_error(known(arrays, target, "floor"))
        bottom.axhline(mean, color="black", lw=1.0, ls="--", label="floor: the exact score")
        bottom.axhspan(mean - error, mean + error, color="black", alpha=0.15, lw=0)
        high = found_at(config, arrays, target, HIGH, config.lengths[-1])
        gain = Estimate(*times_worse(high.nats[0], high.nats[high.best]))
        decay = config.decays[high.best]
        top.set_title(
            f"{words(config, target)}\n{words(config, HIGH)}: {gain} times less with {decay:g}",
            fontsize=10,
        )
        for ax in (top, bottom):
            by_decay(ax, config)
        bottom.set_xlabel("decay, placed at 1/(1 − decay)")
    axes[0, 0].set_ylabel("nats (floor 0)")
    axes[1, 0].set_ylabel("$W_1$ (sliced in the plane)")
    plots.legend_below(fig, axes[1, 0], columns=5)
    fig.suptitle(
        f"Averages of the weights after {config.lengths[-1]} updates (decay 0: none;"
        f" {config.seeds} seeds ± standard error)",
        fontsize=10,
    )
    return fig


def draw_lengths(config: Config, arrays: Arrays) -> Figure:
    """Nats against the decay for every length."""
    rows = len(config.targets)
    fig, axes = plots.figure(rows, len(SCHEDULES), height=1.6 + 2.6 * rows)
    for (row, target), (column, schedule) in itertools.product(
        enumerate(config.targets), enumerate(SCHEDULES)
    ):
        ax = axes[row, column]
        for n, length in enumerate(config.lengths):
            found = found_at(config, arrays, target, schedule, length)
            style = {"color": plots.COLORS[2 * n % 10], "marker": "osD"[n % 3]}
            against_decay(ax, config, found.nats, label=f"{length} updates", **style)
            ax.axvline(length, color=style["color"], lw=0.8, ls=":")
        mark(ax)
        by_decay(ax, config)
        if row == 0:
            ax.set_title(words(config, schedule), fontsize=10)
        if row == rows - 1:
            ax.set_xlabel("decay, placed at 1/(1 − decay)", fontsize=9)
        if column == 0:
            ax.set_ylabel(f"{words(config, target)}\nnats", fontsize=9)
    for row_of in axes:
        alike(row_of)
    plots.legend_below(fig, axes[0, 0], columns=len(config.lengths) + 1)
    fig.suptitle(
        "Too long an average in too few updates, and what a warm-up mends"
        " (vertical lines: 1/(1 − decay) = updates)",
        fontsize=10,
    )
    return fig


def alike(axes: np.ndarray) -> None:
    """Panels of one row with one range upwards, named once."""
    low, high = (f(ax.get_ylim()[i] for ax in axes) for i, f in enumerate((min, max)))
    for ax in axes:
        ax.set_ylim(low, high)
    for ax in axes[1:]:
        ax.set_yticklabels([])


def draw_levels(config: Config, arrays: Arrays) -> Figure:
    """Relative errors by the log-SNR: no average, the best and the longest."""
    rows = len(config.targets)
    fig, axes = plots.figure(rows, len(SCHEDULES), height=1.2 + 2.5 * rows)
    for (row, target), (column, schedule) in itertools.product(
        enumerate(config.targets), enumerate(SCHEDULES)
    ):
        ax = axes[row, column]
        found = found_at(config, arrays, target, schedule, config.lengths[-1])
        mean, error = mean_and_error(found.relative, axis=1)
        for n, (i, name) in enumerate(
            ((0, "no average"), (found.best, "the best"), (-1, "the longest, with a warm-up"))
        ):
            ax.errorbar(
                arrays["log-SNR"], mean[i], error[i], color=plots.COLORS[2 * n], marker="osD"[n],
                capsize=1.5, label=name,
            )  # fmt: skip
        ax.set(yscale="log")
        best = f"best {config.decays[found.best]:g}"
        if 0 in found.as_good():
            best += ", as good without"
        ax.set_title(f"{words(config, schedule)}:\n{best}", fontsize=9)
        if row == rows - 1:
            ax.set_xlabel("log-SNR (noise left, data right)", fontsize=9)
        if column == 0:
            ax.set_ylabel(f"{words(config, target)}\nrelative error", fontsize=9)
    for row_of in axes:
        alike(row_of)
    plots.legend_below(fig, axes[0, 0], columns=3)
    fig.suptitle(
        f"Where averages help: relative Fisher error after {config.lengths[-1]} updates"
        f" ({config.seeds} seeds ± standard error)",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Decays; lengths; noise levels."""
    return {
        "": draw_main(config, arrays), "lengths": draw_lengths(config, arrays),
        "levels": draw_levels(config, arrays),
    }  # fmt: skip


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What does averaging the weights buy, and at which decay?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
