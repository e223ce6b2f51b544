"""What should a small network predict, and does it need Fourier features, depth or width?

A network answers y at (x_t, t), and every other answer follows from y and x_t through functions of
t alone (`network` has the formulas): y is eps, x0, the score, v, the velocity of the flow, F of EDM
("edm"; Karras et al. 2022, table 1), or sigma times the score ("scaled_score", which is -eps: a
network of it differs from one of eps by the sign of its last layer, so that what lies between the
two is chance).  "preconditioned" is F with the rest of that table: x/m goes in, and log(sigma/a)/4
in the place of the time.  Its sigma_data is the root of E|X|^2/D here, since the data keep their
mean.

An error e of eps is an error e/slope of y, slope = d eps/dy, so that the squared error of y itself,
the native loss, weighs times on its own:

    |y - target|^2 = w(t) |e|^2,  w = 1/slope^2:
    eps, scaled_score 1    x0 1/SNR    score 1/sigma^2    v (a + sigma^2/a)^2
    velocity (g^2/2 sigma)^2    edm 1 + 1/(sigma_data^2 SNR)

Two losses keep apart what a parameterisation does and what this weight does:

    common    |e|^2, with times at which the log-SNR r is uniform, for all; up to a factor the bound
              on the likelihood (Kingma et al. 2021, section 4)
    native    the squared error of y, with uniform times; "preconditioned" has the log-normal times
              of its paper, moved from sigma_data = 1/2 to that of the data

All networks of a seed see the same points and noise, under one loss the same times, and under one
shape and one view of the time they start at the same weights.  Adam makes equally many steps of
each of a few rates, all of which fall along half a cosine; a cell counts at its best rate, that
of the least mean nats, and samples are drawn there alone.  Times are seen as

    fourier   t and sin, cos 2 pi f t, f = 1/2, 1, 2, 4
    raw       t
    log       log(sigma/a)/4

Measured at even quadrature nodes in r from t = T to `end`, by the quadrature of p_t:

    relative error  E|s_model - s|^2/E|s|^2 at r, and its mean over r
    nats            1/2 int E|e|^2 dr = 1/2 int g^2 E|s_model - s|^2 dt, Girsanov's bound on what
                    the score costs the reverse SDE (Song et al. 2021b, theorem 1)
    W1              of samples by DPM-Solver++ 2M from p_T: on the line from a lattice of
                    quantiles, against all quantiles; in the plane sliced, against true samples

The floor of the first two is 0.  The floor of W1 is what the exact score has with the same starts,
steps and true samples.  Errors are standard errors over seeds, the same that choose the rate.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

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
    weightings,
)
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.evaluation import times_worse
from diffscience.models import Model, Oracle
from diffscience.network import PREDICTIONS, Network, preconditioned
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target

Arrays = dict[str, np.ndarray]

PROCESS = VP()
WHOLE, CONTROL = "preconditioned", "scaled_score"
CONTENDERS = (*PREDICTIONS, WHOLE)
VIEWS = ("fourier", "raw", "log")
OBJECTIVES = COMMON, NATIVE = ("common", "native")
FREQUENCIES = (0.5, 1.0, 2.0, 4.0)
NODES = 4  # of a panel
FAR = 3.0  # times the least, beyond which a figure says so in words
SLICED = partial(metrics.sliced_wasserstein, p=1)
AXES = ("target", "predicts", "sees", "shape", "objective")
WORDS = {
    "julia_bimodal": "two modes on a line", "julia_trimodal": "three modes",
    "eight_gaussians": "eight Gaussians", "two_moons": "two moons",
    "scaled_score": "σ · score", "edm": "F of EDM", WHOLE: "EDM, inputs too",
    "fourier": "t and Fourier features", "raw": "t alone", "log": "log(σ/α)/4 alone",
}  # fmt: skip


def widths_of(shape: str) -> tuple[int, ...]:
    """The hidden layers of a shape: 32-32 has two of 32.

    >>> widths_of("32-16")
    (32, 16)
    """
    parts = shape.split("-") if isinstance(shape, str) else [""]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ArgumentError("shape", "be whole numbers joined by hyphens, as 32-32", shape)
    return tuple(map(int, parts))


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : names in `gallery.ALL`, of laws with a density.
    predicts : among `CONTENDERS`.
    shape : hidden layers of every network but the last part's, as 32-32.
    raw, logged : of those who predict, the ones that see t alone too, and log(sigma/a)/4 alone.
    sized, shapes : those with other shapes, and the shapes.
    rates : increasing; each falls to `fall` of itself.
    steps, batch : of every training.
    seeds : networks at each rate.
    end : least time of training and of the errors, in units of T.
    panels : of the quadrature in the log-SNR, each of `NODES` nodes.
    samples, sampler_steps : of each network.
    """

    targets: tuple[str, ...] = ("julia_bimodal", "eight_gaussians")
    predicts: tuple[str, ...] = CONTENDERS
    shape: str = "32-32"
    raw: tuple[str, ...] = tuple(PREDICTIONS)
    logged: tuple[str, ...] = ("edm",)
    sized: tuple[str, ...] = ("eps", "velocity")
    shapes: tuple[str, ...] = ("16-16", "64-64", "32", "32-32-32")
    rates: tuple[float, ...] = (1e-2, 3e-2, 1e-1, 3e-1)
    fall: float = 0.01
    steps: int = 300
    batch: int = 128
    seeds: int = 8
    end: float = 1e-3
    panels: int = 6
    samples: int = 1000
    sampler_steps: int = 30
    seed: int = 43

    def __post_init__(self) -> None:
        for name, known, least in (
            ("targets", tuple(gallery.ALL), 1),
            ("predicts", CONTENDERS, 2),
            ("raw", self.predicts, 1),
            ("logged", self.predicts, 0),
            ("sized", self.predicts, 1),
        ):
            given = getattr(self, name)
            if not all(item in known for item in given):
                raise ArgumentError(name, f"be among {', '.join(known)}", given)
            if len(given) < least or len(set(given)) < len(given):
                raise ArgumentError(name, f"be {least} or more different names", given)
        if "empirical" in self.targets:
            raise ArgumentError("targets", "have a density", self.targets)
        if WHOLE in (*self.raw, *self.logged):
            rule = f"leave {WHOLE} out, which has one view of the time, and so logged"
            raise ArgumentError("raw", rule, (self.raw, self.logged))
        for shape in (self.shape, *self.shapes):
            widths_of(shape)
        if not self.shapes or len({self.shape, *self.shapes}) < 1 + len(self.shapes):
            raise ArgumentError("shapes", f"be other than {self.shape}, each once", self.shapes)
        if not self.rates or list(self.rates) != sorted(set(self.rates)):
            raise ArgumentError("rates", "be increasing numbers", self.rates)
        for rate in self.rates:
            number("rates", rate, 0, ends="()")
        number("fall", self.fall, 0, 1, "(]")
        number("end", self.end, 0, 0.5, "()")
        least_of = {"steps": 1, "batch": 1, "seeds": 2, "panels": 1, "samples": 10}
        for name, low in (least_of | {"sampler_steps": 2}).items():
            whole(name, getattr(self, name), low)


QUICK = Config(
    predicts=("eps", WHOLE), shape="16-16", raw=("eps",), logged=(), sized=("eps",), shapes=("16",),
    rates=(1e-2,), steps=20, batch=32, seeds=2, panels=1, samples=60, sampler_steps=5,
)  # fmt: skip


def own_view(predicts: str) -> str:
    """How a contender sees the time where nothing else is asked for."""
    return "log" if predicts == WHOLE else "fourier"


def views(config: Config, predicts: str, shape: str) -> tuple[str, ...]:
    """How a contender sees the time in networks of a shape that train by the common loss."""
    own = own_view(predicts)
    if shape != config.shape:
        return (own,) if predicts in config.sized else ()
    others = {"raw": config.raw, "log": config.logged}
    return (own, *(sees for sees, some in others.items() if predicts in some))


def wanted(config: Config, at: dict[str, Any]) -> bool:
    """Whether a cell is computed; by the native loss all, in the base shape and their own view."""
    if at["objective"] == NATIVE:
        return bool(at["shape"] == config.shape and at["sees"] == own_view(at["predicts"]))
    return at["sees"] in views(config, at["predicts"], at["shape"])


# ---------------------------------------------------------------- compute


def spread(law: Target) -> float:
    """The root of E|X|^2/D."""
    mean, cov = np.asarray(law.mean), np.asarray(law.cov)
    return math.sqrt(float(np.trace(cov) + mean @ mean) / law.dim)


def network_of(net: torch.nn.Module, law: Target, predicts: str, sees: str) -> Network:
    """A contender around a net."""
    edm = preconditioned(net, PROCESS, spread(law))
    if predicts == WHOLE:
        return edm
    time = edm.time if sees == "log" else None
    return Network(net, PROCESS, predicts, time, sigma_data=edm.sigma_data)


def times_of(config: Config, law: Target, predicts: str, objective: str) -> times.Times:
    """The training times of an objective."""
    if objective == COMMON:
        return times.importance(PROCESS, weightings.bound, config.end)
    if predicts == WHOLE:
        return times.log_normal(PROCESS, -1.2 + math.log(2 * spread(law)), 1.2, config.end)
    return times.uniform(PROCESS, config.end)


def native_weight(predicts: str, sigma_data: float) -> weightings.Weighting:
    """w of |y - target|^2 = w(t) |e|^2."""
    if predicts in ("edm", WHOLE):
        return partial(weightings.edm, sigma_data=sigma_data)
    return weightings.ALL[{"eps": "simple", "scaled_score": "simple"}.get(predicts, predicts)]


def implied(config: Config, law: Target, predicts: str, r: np.ndarray) -> np.ndarray:
    """What the native loss weighs |e|^2 with for each unit of the log-SNR, up to a factor."""
    at = PROCESS.time_of_log_snr(r)
    density = times_of(config, law, predicts, NATIVE).density(at) / weightings.likelihood(
        PROCESS, at
    )
    return np.asarray(native_weight(predicts, spread(law))(PROCESS, at) * density)


def trained(
    config: Config, run: Run, target: str, predicts: str, sees: str, shape: str, objective: str
) -> Network:
    """The networks of every rate and seed, [rate][seed], as one."""
    law = gallery.ALL[target]()
    seeds = range(config.seeds)
    frequencies = FREQUENCIES if sees == "fourier" else ()
    members = [
        nets.MLP(law.dim, widths_of(shape), frequencies, run.seed_for("weights", target, k)).to(
            run.device
        )
        for _ in config.rates
        for k in seeds
    ]
    first = network_of(members[0], law, predicts, sees)
    rates = [rate for rate in config.rates for _ in seeds]
    ensembles.together(
        [first.with_net(net) for net in members],
        law,
        steps=config.steps,
        seeds=[run.seed_for("training", target, k) for _ in config.rates for k in seeds],
        batch=config.batch,
        rate=rates,
        final_rate=[config.fall * rate for rate in rates],
        loss=losses.simple if objective == COMMON else losses.denoising,
        times=times_of(config, law, predicts, objective),
        progress=lambda steps: run.progress(steps, f"{target}, {predicts}"),
    )
    return first.with_net(ensembles.Ensemble(members).requires_grad_(False))


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


def cell(
    config: Config, run: Run, target: str, predicts: str, sees: str, shape: str, objective: str
) -> dict[str, Any]:
    """The errors of a contender, (rates, seeds, levels), and W1 at its best rate, (seeds,)."""
    model = trained(config, run, target, predicts, sees, shape, objective)
    both = (len(config.rates), config.seeds)
    nodes = nodes_of(config)
    error = evaluation.eps_errors(model, oracle_of(target), nodes.t).reshape(*both, -1)
    best = int(np.argmin((error @ nodes.width).mean(axis=1)))  # of the least mean nats
    first = best * config.seeds
    networks = cast("ensembles.Ensemble", model.net).part(first, first + config.seeds)
    chosen = model.with_net(networks.requires_grad_(False))
    ends = sampled(config, chosen, starts(config, run, target))
    return {
        "parameters": sum(p.numel() for p in model.net.parameters()) // math.prod(both),
        "error": error,
        "best": best,
        "W1": distances(config, run, target, ends),
    }


def exact(config: Config, run: Run, target: str) -> Arrays:
    """E|eps|^2 and the implied weights at the levels; distances of the exact score."""
    oracle, nodes = oracle_of(target), nodes_of(config)
    law, r = oracle.law, nodes.level
    ends = sampled(config, oracle, starts(config, run, target))
    return {
        "size": evaluation.eps_energy(oracle, nodes.t),
        "spread": np.array(spread(law)),
        "implied": np.stack([implied(config, law, name, r) for name in config.predicts]),
        "floor": distances(config, run, target, ends),
    }


def compute(config: Config, run: Run) -> Arrays:
    """The cells of the sweep, and the exact score of every target."""
    axes = {
        "target": config.targets, "predicts": config.predicts, "sees": VIEWS,
        "shape": (config.shape, *config.shapes), "objective": OBJECTIVES,
    }  # fmt: skip
    arrays = run.sweep("cells", cell, axes, config, where=lambda at: wanted(config, at))
    found = run.sweep("exact", exact, {"target": config.targets}, config)
    arrays |= {f"exact {name}": value for name, value in found.items()}
    nodes = nodes_of(config)
    arrays |= {"log-SNR": nodes.level, "weight": nodes.width}
    return arrays


# ---------------------------------------------------------------- what the arrays say


@dataclasses.dataclass(frozen=True)
class Found:
    """A cell at its best rate, that of the least mean nats.

    nats, off, W1 : (seeds,); off is the relative error, its mean over the log-SNR.
    relative : (seeds, levels).
    """

    rate: float
    parameters: int
    nats: np.ndarray
    off: np.ndarray
    W1: np.ndarray
    relative: np.ndarray


def nats_of(arrays: Arrays) -> np.ndarray:
    """1/2 int E|e|^2 dr of every cell, (cells, rates, seeds)."""
    return np.asarray(0.5 * arrays["error"] @ arrays["weight"])


def mean_over(arrays: Arrays, values: np.ndarray) -> np.ndarray:
    """The mean over the log-SNR of values (..., levels)."""
    return np.asarray(values @ arrays["weight"] / arrays["weight"].sum())


def known(arrays: Arrays, target: str, what: str) -> np.ndarray:
    """What `exact` found of a target."""
    row: np.ndarray = arrays[f"exact {what}"][list(arrays["exact target"]).index(target)]
    return row


def found_at(config: Config, arrays: Arrays, at: tuple[str, ...]) -> Found:
    """A cell, by its values on `AXES`, at its best rate."""
    same = np.all([arrays[axis] == value for axis, value in zip(AXES, at, strict=True)], axis=0)
    (i,) = np.flatnonzero(same)
    best, nats = int(arrays["best"][i]), nats_of(arrays)[i]
    relative = arrays["error"][i, best] / known(arrays, at[0], "size")
    off, count = mean_over(arrays, relative), int(arrays["parameters"][i])
    return Found(config.rates[best], count, nats[best], off, arrays["W1"][i], relative)


def contender(
    config: Config,
    arrays: Arrays,
    target: str,
    predicts: str,
    objective: str = COMMON,
    shape: str = "",
) -> Found:
    """A contender with its own view of the time, in the base shape or another."""
    at = (target, predicts, own_view(predicts), shape or config.shape, objective)
    return found_at(config, arrays, at)


def implied_weight(config: Config, arrays: Arrays, target: str, predicts: str) -> np.ndarray:
    """What the native loss weighs |e|^2 with at each log-SNR, of integral 1."""
    weight = known(arrays, target, "implied")[config.predicts.index(predicts)]
    return np.asarray(weight / (arrays["weight"] @ weight))


# ---------------------------------------------------------------- tables


def told(row: dict[str, Any], name: str, values: np.ndarray) -> None:
    """A mean and, beside it, its standard error."""
    row[name], row[f"{name} error"] = mean_and_error(values)


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every contender by both losses, in the base shape and with its own view of the time."""
    rows = []
    for target in config.targets:
        common = {p: contender(config, arrays, target, p) for p in config.predicts}
        least = min(common.values(), key=lambda found: float(found.nats.mean()))
        for predicts, found in common.items():
            native = contender(config, arrays, target, predicts, NATIVE)
            row: dict[str, Any] = {"target": target, "predicts": predicts, "rate": found.rate}
            told(row, "nats", found.nats)
            row["to the least"], row["to the least error"] = times_worse(found.nats, least.nats)
            told(row, "relative", found.off)
            told(row, "W1", found.W1)
            row["native rate"] = native.rate
            told(row, "native nats", native.nats)
            row["native/common"], row["native/common error"] = times_worse(native.nats, found.nats)
            told(row, "native relative", native.off)
            told(row, "native W1", native.W1)
            told(row, "native W1 - W1", native.W1 - found.W1)
            told(row, "W1 floor", known(arrays, target, "floor"))
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def views_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The base shape by the common loss: what others see of the time, beside the own view."""
    rows = []
    for target, predicts in itertools.product(config.targets, seen_otherwise(config)):
        own = contender(config, arrays, target, predicts)
        for sees in views(config, predicts, config.shape):
            found = found_at(config, arrays, (target, predicts, sees, config.shape, COMMON))
            row: dict[str, Any] = {"target": target, "predicts": predicts, "sees": sees}
            row |= {"parameters": found.parameters, "rate": found.rate}
            told(row, "nats", found.nats)
            row["to the own"], row["to the own error"] = times_worse(found.nats, own.nats)
            told(row, "relative", found.off)
            told(row, "W1", found.W1)
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def seen_otherwise(config: Config) -> tuple[str, ...]:
    """The contenders with another view of the time than their own."""
    return tuple(p for p in config.predicts if p in (*config.raw, *config.logged))


def shapes_of(config: Config) -> list[str]:
    """All shapes, from the fewest weights between hidden units."""
    return sorted((config.shape, *config.shapes), key=lambda shape: weights_in(widths_of(shape)))


def weights_in(widths: tuple[int, ...]) -> tuple[int, int]:
    """Weights between hidden units, then hidden units."""
    return sum(a * b for a, b in zip(widths[:-1], widths[1:])), sum(widths)


def shapes_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every shape by the common loss, beside the base shape."""
    rows = []
    for target, predicts in itertools.product(config.targets, config.sized):
        base = contender(config, arrays, target, predicts)
        for shape in shapes_of(config):
            found = contender(config, arrays, target, predicts, shape=shape)
            row: dict[str, Any] = {"target": target, "predicts": predicts, "shape": shape}
            row |= {"parameters": found.parameters, "rate": found.rate}
            told(row, "nats", found.nats)
            row["to the base"], row["to the base error"] = times_worse(found.nats, base.nats)
            told(row, "relative", found.off)
            told(row, "W1", found.W1)
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def levels_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The relative error of every contender by the log-SNR, by both losses."""
    rows = []
    for target, predicts, objective in itertools.product(
        config.targets, config.predicts, OBJECTIVES
    ):
        found = contender(config, arrays, target, predicts, objective)
        mean, error = mean_and_error(found.relative)
        weight = implied_weight(config, arrays, target, predicts)
        for i, r in enumerate(arrays["log-SNR"]):
            row: dict[str, Any] = {"target": target, "predicts": predicts, "objective": objective}
            row |= {"log-SNR": r, "relative": mean[i], "relative error": error[i]}
            row["weight"] = weight[i] if objective == NATIVE else 1 / arrays["weight"].sum()
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every network: one row for each cell, rate and seed; W1 at the best rate only."""
    rows = []
    nats = nats_of(arrays)
    for i, (j, rate), k in itertools.product(
        range(len(nats)), enumerate(config.rates), range(config.seeds)
    ):
        row: dict[str, Any] = {axis: str(arrays[axis][i]) for axis in AXES}
        relative = arrays["error"][i, j, k] / known(arrays, row["target"], "size")
        row |= {"rate": rate, "seed": k, "parameters": int(arrays["parameters"][i])}
        row |= {"nats": nats[i, j, k], "relative": float(mean_over(arrays, relative))}
        rows.append(row | {"W1": arrays["W1"][i, k] if j == arrays["best"][i] else math.nan})
    return pd.DataFrame(rows)


def _digits(frame: pd.DataFrame) -> pd.DataFrame:
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 3 for c in floats}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Contenders; views of the time; shapes; noise levels; every network."""
    return {
        "": main_table(config, arrays), "views": views_table(config, arrays),
        "shapes": shapes_table(config, arrays), "levels": levels_table(config, arrays),
        "cells": cells_table(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


def words(name: str) -> str:
    """A name as figures have it."""
    return WORDS.get(name, name)


def look(config: Config, predicts: str) -> dict[str, Any]:
    """Colour and marker of a contender."""
    i = config.predicts.index(predicts)
    return {"color": plots.COLORS[i], "marker": "osDv^<>P"[i], "markersize": 4}


def logarithmic(axis: Any) -> None:
    """A logarithmic axis: ticks at 1, ..., 9 or 1, 2, 5 of few decades, else at powers of ten."""
    decades = float(np.ptp(np.log10(axis.get_view_interval())))
    subs = range(1, 10) if decades < 0.6 else (1, 2, 5) if decades < 2.3 else (1,)
    axis.set_major_locator(LogLocator(subs=[float(sub) for sub in subs], numticks=8))
    axis.set_minor_locator(NullLocator())
    if decades < 2.3:
        axis.set_major_formatter("{x:g}")


def bars(ax: Any, y: float, values: np.ndarray, **style: Any) -> None:
    """A mean with its standard error across, at height y."""
    mean, error = mean_and_error(values)
    ax.errorbar(mean, y, xerr=error, capsize=2, linestyle="", markersize=5, **style)


def listed(ax: Any, config: Config, names: tuple[str, ...]) -> None:
    """Names down the side of a panel with a logarithmic axis below."""
    ax.set_yticks(range(len(names)), [words(name) for name in names])
    ax.set(xscale="log", ylim=(len(names) - 0.4, -0.6))
    logarithmic(ax.xaxis)


def plus_minus(values: np.ndarray) -> str:
    """A mean and its error in words."""
    return str(Estimate(*mean_and_error(values)))


def at_the_edge(config: Config, arrays: Arrays) -> str:
    """How many contenders are best at the largest rate, beyond which none was tried."""
    both = itertools.product(config.targets, config.predicts, OBJECTIVES)
    rates = [contender(config, arrays, *each).rate for each in both]
    return f"{rates.count(config.rates[-1])} of {len(rates)}"


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Nats of every contender by both losses, near the least of the common one, and W1."""
    fig, axes = plots.figure(3, len(config.targets), height=9.0)
    styles = {COMMON: {"marker": "o"}, NATIVE: {"marker": "s", "markerfacecolor": "white"}}
    for target, (top, middle, bottom) in zip(config.targets, axes.T, strict=True):
        for (y, predicts), (n, objective) in itertools.product(
            enumerate(config.predicts), enumerate(OBJECTIVES)
        ):
            found = contender(config, arrays, target, predicts, objective)
            style = {
                **styles[objective],
                "color": plots.COLORS[2 * n],
                "label": f"{objective} loss",
            }
            for ax, values in ((top, found.nats), (bottom, found.W1)):
                bars(ax, y + 0.24 * n - 0.12, values, **style)
        mean, error = mean_and_error(known(arrays, target, "floor"))
        bottom.axvline(mean, color="black", lw=1.0, ls="--", label="floor: the exact score")
        bottom.axvspan(mean - error, mean + error, color="black", alpha=0.15, lw=0)
        best = min(config.predicts, key=lambda p: contender(config, arrays, target, p).nats.mean())
        least = contender(config, arrays, target, best).nats
        top.set_title(f"{words(target)}\nleast: {words(best)}, {plus_minus(least)}", fontsize=10)
        top.set_xlabel("nats (floor 0)")
        draw_ratios(middle, config, arrays, target, least)
        bottom.set_xlabel("$W_1$" if gallery.ALL[target]().dim == 1 else "sliced $W_1$")
        for ax in (top, bottom):
            listed(ax, config, config.predicts)
    for ax in axes[:, 1:].flat:
        ax.set_yticklabels([])
    plots.legend_below(fig, axes[2, 0], columns=3)
    fig.suptitle(
        f"What {config.shape} networks should predict: {config.steps} steps, the best of"
        f" {len(config.rates)} rates\n(means and standard errors of {config.seeds} seeds; best at"
        f" the largest rate, {config.rates[-1]:g}: {at_the_edge(config, arrays)})",
        fontsize=10,
    )
    return fig


def draw_ratios(ax: Any, config: Config, arrays: Arrays, target: str, least: np.ndarray) -> None:
    """Nats by the common loss over the least, up to `FAR` times; farther ones in words."""
    for y, predicts in enumerate(config.predicts):
        value, error = times_worse(contender(config, arrays, target, predicts).nats, least)
        if value > FAR:
            text = f"{Estimate(value, error)} times →"
            ax.text(0.98, y, text, ha="right", va="center", transform=ax.get_yaxis_transform())
        else:
            ax.errorbar(value, y, xerr=error, fmt="o", color=plots.COLORS[0], capsize=2, ms=5)
    ax.axvline(1.0, color="black", lw=0.8)
    ax.set(xlim=(0.95, FAR), xlabel="nats by the common loss / the least")
    names = [words(name) for name in config.predicts]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)


def draw_levels(config: Config, arrays: Arrays) -> Figure:
    """Relative errors by the log-SNR, and the weights that the native losses imply."""
    fig, axes = plots.figure(3, len(config.targets), height=8.4)
    r = arrays["log-SNR"]
    for target, column in zip(config.targets, axes.T, strict=True):
        for predicts in config.predicts:
            style = look(config, predicts) | {"label": words(predicts)}
            for ax, objective in zip(column, OBJECTIVES):
                found = contender(config, arrays, target, predicts, objective)
                mean, error = mean_and_error(found.relative)
                ax.errorbar(r, mean, error, capsize=1.5, linewidth=1.2, **style)
                ax.set(yscale="log", title=f"{words(target)}, {objective} loss")
            weight = implied_weight(config, arrays, target, predicts)
            column[2].plot(r, weight, linewidth=1.2, **style)
        flat = 1 / arrays["weight"].sum()
        column[2].axhline(flat, color="black", lw=1.0, ls="--", label="common loss")
        column[2].set(yscale="log", title="weight of $|e|^2$ in the loss", ylim=(1e-6, 3.0))
        column[2].set_xlabel("log-SNR (noise left, data right)")
        low = min(column[0].get_ylim()[0], column[1].get_ylim()[0])
        high = max(column[0].get_ylim()[1], column[1].get_ylim()[1])
        for ax in column[:2]:
            ax.set_ylim(low, high)
        for ax in column:
            logarithmic(ax.yaxis)
    for ax in axes[:2, 0]:
        ax.set_ylabel("relative Fisher error")
    axes[2, 0].set_ylabel("per unit of log-SNR (area 1)")
    plots.legend_below(fig, axes[2, 0], columns=5)
    fig.suptitle(
        "Where each parameterisation errs, and what its native loss asks for"
        f" ({config.seeds} seeds ± standard error)",
        fontsize=11,
    )
    return fig


def draw_views(config: Config, arrays: Arrays) -> Figure:
    """Nats of every contender by what it sees of the time."""
    fig, (axes,) = plots.figure(1, len(config.targets), height=4.4)
    for ax, target in zip(axes, config.targets, strict=True):
        ratios = []
        for y, predicts in enumerate(seen_otherwise(config)):
            own = contender(config, arrays, target, predicts)
            for sees in views(config, predicts, config.shape):
                n = VIEWS.index(sees)
                found = found_at(config, arrays, (target, predicts, sees, config.shape, COMMON))
                style = {"color": plots.COLORS[2 * n], "marker": "osD"[n], "label": words(sees)}
                bars(ax, y + 0.2 * (n - 1), found.nats, **style)
                if sees == "raw":
                    ratios.append(times_worse(found.nats, own.nats)[0])
        listed(ax, config, seen_otherwise(config))
        ax.set_xlabel("nats (floor 0)")
        ax.set_title(
            f"{words(target)}\nt alone: {min(ratios):.2f} to {max(ratios):.2f} times", fontsize=10
        )
    for ax in axes[1:]:
        ax.set_yticklabels([])
    plots.legend_below(fig, *axes, columns=3)
    fig.suptitle(
        f"What the network sees of the time, {config.shape} networks by the common loss"
        f" ({config.seeds} seeds ± standard error)",
        fontsize=10,
    )
    return fig


def draw_shapes(config: Config, arrays: Arrays) -> Figure:
    """Nats and W1 of every shape."""
    fig, axes = plots.figure(2, len(config.targets), height=6.0)
    shapes = shapes_of(config)
    for target, (top, bottom) in zip(config.targets, axes.T, strict=True):
        for predicts in config.sized:
            found = [contender(config, arrays, target, predicts, shape=shape) for shape in shapes]
            counts = [one.parameters for one in found]
            style = look(config, predicts) | {"label": words(predicts)}
            for ax, values in (
                (top, [one.nats for one in found]), (bottom, [one.W1 for one in found])
            ):  # fmt: skip
                mean, error = mean_and_error(np.array(values), axis=1)
                ax.errorbar(range(len(shapes)), mean, error, capsize=2, **style)
        mean, error = mean_and_error(known(arrays, target, "floor"))
        bottom.axhline(mean, color="black", lw=1.0, ls="--", label="floor: the exact score")
        nats = {s: contender(config, arrays, target, config.sized[0], shape=s).nats for s in shapes}
        *_, best = ranked = sorted(shapes, key=lambda s: -float(nats[s].mean()))
        most = Estimate(*times_worse(nats[ranked[0]], nats[best]))
        top.set_title(
            f"{words(target)}\n{words(config.sized[0])}, {ranked[0]}: {most} times {best}",
            fontsize=10,
        )
        names = [f"{shape}\n({count})" for shape, count in zip(shapes, counts)]
        for ax in (top, bottom):
            ax.set(yscale="log")
            ax.set_xticks(range(len(shapes)), names)
            logarithmic(ax.yaxis)
        bottom.set_xlabel("hidden layers (parameters)")
    axes[0, 0].set_ylabel("nats (floor 0)")
    axes[1, 0].set_ylabel("$W_1$ (sliced in the plane)")
    plots.legend_below(fig, axes[1, 0], columns=2)
    fig.suptitle(
        f"Depth and width, {config.steps} steps by the common loss"
        f" ({config.seeds} seeds ± standard error)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Contenders; noise levels; views of the time; shapes."""
    return {
        "": draw_main(config, arrays), "levels": draw_levels(config, arrays),
        "views": draw_views(config, arrays), "shapes": draw_shapes(config, arrays),
    }  # fmt: skip


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What should a small network predict, and does it need Fourier features of the time, depth or"
    " width?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
