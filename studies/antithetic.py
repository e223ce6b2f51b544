"""Do paired, stratified or importance-sampled times lower the variance of the gradient?

A batch of n rows estimates the gradient of the loss E_t w(t) |eps - eps_model|^2, t uniform on
[earliest T, T] of the process VP. Its times may be drawn in other ways, of which none changes the
expectation (`times`):

    independent            each on its own
    antithetic             t and its mirror image in pairs: (t, T - t) but for the earliest time
    antithetic, steps      (k, K - 1 - k) of K steps counted from 0, as the programs of DDIM draw
                           them: the steps at T/K ... T, T/K the earliest time
    stratified             a lattice with one random shift   (Kingma et al. 2021, appendix I)
    importance             density p ~ w, each row over p    (Song et al. 2021b, section 5)
    importance, stratified a lattice, bent to that density
    adaptive               p ~ sqrt(E L^2) of the last losses  (Nichol and Dhariwal 2021, 3.3)

With g a row's gradient at t, m(t) = E g, M = E_t m and t' the mirror image of t, n times the trace
of the covariance of a batch's mean is

    independent    E_t |g|^2/p - |M|^2                    p = 1 for uniform times
    antithetic     E_t |g|^2 - |M|^2 + E_t (m(t) - M).(m(t') - M)
    stratified     E_t (|g|^2 - |m|^2)/p                  for many rows: what is left at one t
    least          (E_t sqrt|g|^2)^2 - |M|^2              independent, at p ~ sqrt(E|g|^2), the best

where |g|^2 stands for its mean over x0 and eps. So stratified times can take away no more than the
variance of m over t, and pairs as much as m has of opposite sign at t and t'. Both ways to the
variance are gone: these integrals, by Gauss-Legendre in the log-SNR from gradients at fixed times,
and the scatter of whole batches as training draws them (adaptive times as they are after a fit to
the network at hand).

Measured at the networks of each training at its start and its end, always beside independent times
at the same network, those on steps beside independent steps. Then what came of equal training: the
excess of the loss over the least that any model has (exact but for the points in the plane), the
excess of the bound 1/2 int E|eps_model - E[eps|x]|^2 dr, r the log-SNR, and the distance of
samples: W1 on the line, from a lattice of starts, and the energy distance in the plane, from random
ones. Their floor is the exact score from the same starts.

`simple` has a constant weight, by which importance is no news; adaptive times, whose networks must
be trained one by one, are tried on the first law. Errors are standard errors over
seeds. Ratios of variances are geometric means over networks, since networks differ in their
variance by large factors; those of losses are of means, by the delta method. All trainings of a
seed begin with the same weights.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import textwrap
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
    nets,
    plots,
    samplers,
    times,
    train,
    weightings,
)
from diffscience.chain import Chain
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file

Arrays = dict[str, np.ndarray]
Law = times.Times | times.Adaptive

PROCESS = VP()
EVEN = ("independent", "antithetic", "stratified")  # uniform times
ON_STEPS = "antithetic, steps"
WAYS = (*EVEN, ON_STEPS, "importance", "importance, stratified", "adaptive")
FLAT = "simple"  # the objective of constant weight
STATES = ("start", "end")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    laws : names of mixtures in `gallery.ALL`, on the line or in the plane.
    objectives : names in `weightings.ALL`. ways : names in `WAYS`, the first "independent".
    seeds : networks of each training.
    steps, widths, batch, rate, final_rate : of every training.
    batches : behind each variance.
    earliest : the least time, as a share of T.
    nodes : times of the integrals over t. rows : at each, for the gradient.
    points : at each, for the score in the plane.
    samples, solver_steps : of the flow.
    """

    laws: tuple[str, ...] = ("julia_bimodal", "eight_gaussians")
    objectives: tuple[str, ...] = ("simple", "bound")
    ways: tuple[str, ...] = WAYS
    seeds: int = 8
    steps: int = 600
    widths: tuple[int, ...] = (64, 64)
    batch: int = 64
    rate: float = 3e-3
    final_rate: float = 3e-5
    batches: int = 192
    earliest: float = 1e-3
    nodes: int = 16
    rows: int = 256
    points: int = 2048
    samples: int = 1000
    solver_steps: int = 40
    seed: int = 67

    def __post_init__(self) -> None:
        for name in self.laws:
            if name not in gallery.ALL or not isinstance(gallery.ALL[name](), GaussianMixture):
                raise ArgumentError("laws", "name mixtures of the gallery", name)
        for name in self.objectives:
            if name not in weightings.ALL:
                raise ArgumentError("objectives", f"be among {', '.join(weightings.ALL)}", name)
        for name in self.ways:
            if name not in WAYS:
                raise ArgumentError("ways", f"be among {', '.join(WAYS)}", name)
        if len(self.ways) < 2 or self.ways[0] != EVEN[0]:
            raise ArgumentError("ways", f"begin with {EVEN[0]} and go on", self.ways)
        for field in ("laws", "objectives", "ways"):
            names = getattr(self, field)
            if not names or len(set(names)) < len(names):
                raise ArgumentError(field, "be one or more different names", names)
        least_of = {
            "seeds": 2, "steps": 2, "batch": 2, "batches": 2, "nodes": 2, "rows": 2, "points": 2,
            "samples": 2, "solver_steps": 2,
        }  # fmt: skip
        for field, least in least_of.items():
            whole(field, getattr(self, field), least)
        for width in self.widths:
            whole("widths", width, 1)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("earliest", self.earliest, 0, 0.5, "()")


QUICK = Config(
    laws=("julia_bimodal",), ways=("independent", ON_STEPS, "importance"), seeds=2, steps=16,
    widths=(16, 16), batch=16, batches=16, nodes=4, rows=16, points=32, samples=50, solver_steps=6,
)  # fmt: skip


# ---------------------------------------------------------------- times


def law_of(config: Config, way: str, objective: str) -> Law:
    """The law of times of a way; an adaptive one has seen nothing yet."""
    options: dict[str, Any] = {"earliest": config.earliest}
    if way == "adaptive":
        return times.Adaptive(PROCESS, **options)
    if way in EVEN:
        return times.uniform(PROCESS, stream=times.STREAMS[way], **options)
    if way.endswith("steps"):
        return on_steps(config, way.partition(",")[0])
    stream = times.STREAMS["stratified" if way.endswith("stratified") else "independent"]
    return times.importance(PROCESS, weightings.ALL[objective], stream=stream, **options)


def on_steps(config: Config, stream: str) -> times.Times:
    """Uniform on the times T/K, 2 T/K, ..., T, of which the first is the earliest."""
    K = round(1 / config.earliest)
    steps = times.uniform(Chain.linear(K), stream=times.STREAMS[stream])
    return dataclasses.replace(
        steps, process=PROCESS, quantile=lambda u: steps.quantile(u) * (PROCESS.T / K)
    )


def even_law(config: Config, way: str, objective: str) -> Law:
    """Independent uniform times where those of a way are: on all of them, or on the steps."""
    return law_of(config, EVEN[0] + (", steps" if way == ON_STEPS else ""), objective)


def weight_of(objective: str, law: Law) -> weightings.Weighting:
    """The weight under which these times give the loss of the objective, as the law is now."""
    return lambda process, t: weightings.ALL[objective](process, t) * law.correction(t)


def mirrored(config: Config, t: np.ndarray) -> np.ndarray:
    """The other time of a pair: t and it are the least time and T apart from the ends alike."""
    return np.asarray(PROCESS.T * (1 + config.earliest) - t)


def nodes_of(config: Config) -> evaluation.Nodes:
    """The times at which all is measured."""
    return evaluation.Nodes.of(PROCESS, config.earliest, config.nodes)


# ---------------------------------------------------------------- training


def trained(
    config: Config, run: Run, law: str, objective: str, way: str
) -> tuple[list[Network], list[list[train.State]]]:
    """The networks of all seeds, and of each its weights in every one of `STATES`."""
    dim = gallery.ALL[law]().dim
    networks = [
        Network(
            nets.MLP(dim, config.widths, seed=run.seed_for("weights", law, s)).to(run.device),
            PROCESS,
        )
        for s in range(config.seeds)
    ]
    kept = (0, config.steps)
    histories = ensembles.together(
        networks,
        gallery.ALL[law](),
        steps=config.steps,
        seeds=[run.seed_for("training", law, s) for s in range(config.seeds)],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        snapshots=kept,
        progress=lambda steps: run.progress(steps, f"{law}, {objective}, {way}"),
        **how(config, objective, way),
    )
    if any(history.interrupted for history in histories):
        raise KeyboardInterrupt  # half of a training has no end to look at
    return networks, [[history.snapshots[step] for step in kept] for history in histories]


def how(config: Config, objective: str, way: str) -> dict[str, Any]:
    """Loss and times of a training: one for all seeds, but each its own where times learn."""
    if way == "adaptive":
        laws: list[Any] = [law_of(config, way, objective) for _ in range(config.seeds)]
        loss = functools.partial(losses.weighted, weight=weightings.ALL[objective])
        return {"times": laws, "loss": [law.watching(loss) for law in laws]}
    law = law_of(config, way, objective)
    return {
        "times": law,
        "loss": functools.partial(losses.weighted, weight=weight_of(objective, law)),
    }


# ---------------------------------------------------------------- the variance of the gradient


def rows_of(config: Config, law: str, t: Any, generator: torch.Generator) -> tuple[Any, Any, Any]:
    """x0, t and noise of rows at the times t (n,), in single precision but for t."""
    x0 = gallery.ALL[law]().sample(len(t), generator).float()
    noise = torch.randn(x0.shape, generator=generator, device=x0.device)
    return x0, torch.as_tensor(t, device=x0.device), noise


def seen(
    config: Config, network: Network, law: str, objective: str, generator: torch.Generator
) -> times.Adaptive:
    """An adaptive law that has seen the losses of this network, more than it keeps of each."""
    learned = times.Adaptive(PROCESS, earliest=config.earliest)
    even = times.uniform(PROCESS, config.earliest, times.stratified)
    given = rows_of(config, law, even(2000, generator), generator)
    with torch.no_grad():
        rows = losses.weighted(network, *given, weight=weightings.ALL[objective])
    learned.update(given[1], rows)
    return learned


def batch_gradients(
    config: Config,
    network: Network,
    law: str,
    objective: str,
    drawn: Law,
    generator: torch.Generator,
) -> torch.Tensor:
    """Gradients of the mean loss of batches, (batches, parameters), each by a copy of the net."""
    # To the types the net is any module; here it is an MLP.
    copies: Any = ensembles.Ensemble([network.net] * config.batches)  # type: ignore[list-item]
    # Independent times of all batches come in one call.
    calls = 1 if drawn.stream is times.independent else config.batches
    size = config.batch * config.batches // calls
    t = torch.cat([torch.as_tensor(drawn(size, generator)) for _ in range(calls)])
    given = rows_of(config, law, t, generator)
    rows = losses.weighted(network.with_net(copies), *given, weight=weight_of(objective, drawn))
    slopes = torch.autograd.grad(rows.sum() / config.batch, list(copies.parameters()))
    return torch.cat([slope.flatten(1) for slope in slopes], dim=1).double()


def scatter(gradients: torch.Tensor) -> float:
    """The trace of the covariance of gradients (batches, parameters)."""
    return float(gradients.var(dim=0).sum())


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Of the weighted gradient w g at the nodes: E|w g|^2, and products of its means w m.

    square : (nodes,). products : (nodes, nodes), without bias on the diagonal too.
    mirrored : (nodes,), w m(t) . w m(t').
    """

    share: np.ndarray
    square: np.ndarray
    products: np.ndarray
    mirrored: np.ndarray

    @property
    def signal(self) -> float:
        """|M|^2."""
        return float(self.share @ self.products @ self.share)

    def variance(self, way: str, density: np.ndarray) -> float:
        """n times the variance of a batch's mean, for many rows n; density (nodes,)."""
        if way.endswith("stratified"):
            return float(self.share @ ((self.square - np.diag(self.products)) / density))
        pairs = self.share @ self.mirrored - self.signal if way == "antithetic" else 0.0
        return float(self.share @ (self.square / density)) - self.signal + float(pairs)

    def least(self) -> float:
        """That of independent times of the best law."""
        return float(self.share @ np.sqrt(self.square)) ** 2 - self.signal


def gradients(
    config: Config, network: Network, law: str, objective: str, generator: torch.Generator
) -> Gradients:
    """From rows at the nodes and at their mirror images."""
    nodes, n = nodes_of(config), config.rows
    t = np.concatenate([nodes.t, mirrored(config, nodes.t)])
    given = rows_of(config, law, np.repeat(t, n), generator)
    square, means = evaluation.row_gradients(network, *given, blocks=len(t))
    w = np.asarray(weightings.ALL[objective](PROCESS, t))
    square, means = square * w * w, means * w[:, None]
    one, other = np.split(means, 2)
    gram, square = one @ one.T, square[: len(nodes.t)]
    unbiased = (n * np.diag(gram) - square) / (n - 1)
    products = gram - np.diag(np.diag(gram) - unbiased)
    return Gradients(nodes.share, square, products, np.sum(one * other, axis=1))


def variances(
    config: Config, run: Run, network: Network, key: tuple[str, str, str, str, int]
) -> Arrays:
    """Of one network, key = (law, objective, way, state, seed): variances and what theory says.

    scatter : of batches by the way and by independent times. theory, least : by the integrals, over
        that of independent times; NaN for adaptive times and on steps. square, density : at the
        nodes.
    """
    law, objective, way, *_ = key
    generator = run.torch_generator("variance", *key)
    even = even_law(config, way, objective)
    drawn = law_of(config, way, objective)
    if way == "adaptive":
        drawn = seen(config, network, law, objective, generator)
    found = [
        scatter(batch_gradients(config, network, law, objective, own, generator))
        for own in (drawn, even)
    ]
    at = gradients(config, network, law, objective, generator)
    t = nodes_of(config).t
    density, flat = np.asarray(drawn.density(t)), np.ones(len(t))
    whole_variance = at.variance(EVEN[0], flat)
    theory = np.nan if way in ("adaptive", ON_STEPS) else at.variance(way, density) / whole_variance
    return {
        "scatter": np.array(found),
        "theory": np.array(theory),
        "least": np.array(at.least() / whole_variance),
        "square": at.square,
        "density": density,
    }


# ---------------------------------------------------------------- what came of it


def oracle_of(law: str) -> Oracle:
    """The exact model of a law."""
    return Oracle(gallery.ALL[law](), PROCESS)


def errors_of(config: Config, run: Run, model: Model, law: str) -> np.ndarray:
    """E|eps_model - E[eps | x_t]|^2 of an ensemble at the nodes, (seeds, nodes)."""
    oracle, seed = oracle_of(law), run.seed_for("score", law)
    n = None if oracle.law.dim == 1 else config.points
    return evaluation.eps_errors(model, oracle, nodes_of(config).t, n, seed)


def starts(config: Config, run: Run, law: str) -> np.ndarray:
    """(seeds, samples, D) of p_T, the same for every model."""
    draws = [run.generator("starts", law, s) for s in range(config.seeds)]
    return evaluation.starts(oracle_of(law), config.samples, draws)


def sampled(config: Config, model: Model, x: np.ndarray) -> np.ndarray:
    """Starts (..., D) carried to the earliest time along the flow."""
    grid = grids.log_snr(PROCESS, config.solver_steps, end=config.earliest * PROCESS.T)
    return np.asarray(samplers.last(samplers.dpm_2m(model, x, grid)))


def distances(config: Config, run: Run, law: str, x: np.ndarray) -> np.ndarray:
    """Of samples (seeds, n, D) from the law at the earliest time: W1, or energy distance; (seeds,).

    The true samples in the energy distance are the same for every model.
    """
    truth = oracle_of(law).at(config.earliest * PROCESS.T)
    return evaluation.distances(x, truth, [run.seed_for("distance", law, s) for s in range(len(x))])


def cell(config: Config, run: Run, law: str, objective: str, way: str) -> Arrays:
    """One training of all seeds side by side: variances in every state, and how it ended.

    Arrays of the variances are (states, seeds, ...); error (seeds, nodes), distance (seeds,).
    """
    networks, states = trained(config, run, law, objective, way)
    found: list[list[Arrays]] = [[] for _ in STATES]
    for s, (network, kept) in enumerate(zip(networks, states)):
        for i, (state, weights) in enumerate(zip(STATES, kept)):
            own = train.with_state(network, weights)
            found[i].append(variances(config, run, own, (law, objective, way, state, s)))
    # To the types the net is any module; here it is an MLP.
    side_by_side: Any = ensembles.Ensemble([network.net for network in networks])  # type: ignore[misc]
    model = networks[0].with_net(side_by_side)
    samples = sampled(config, model, starts(config, run, law))
    return {
        **{key: np.stack([[o[key] for o in row] for row in found]) for key in found[0][0]},
        "error": errors_of(config, run, model, law),
        "distance": distances(config, run, law, samples),
    }


def exact(config: Config, run: Run, law: str) -> Arrays:
    """The least loss at the nodes, and the distance of the exact score's samples."""
    begin = starts(config, run, law)
    samples = sampled(config, oracle_of(law), begin.reshape(-1, begin.shape[-1]))
    return {
        "best": weightings.best(oracle_of(law), nodes_of(config).t),
        "distance": distances(config, run, law, samples.reshape(begin.shape)),
    }


def axes_of(config: Config) -> dict[str, Any]:
    """The axes of the sweep."""
    return {"law": config.laws, "objective": config.objectives, "way": config.ways}


def makes_sense(config: Config, point: dict[str, Any]) -> bool:
    """Not importance by a constant, which is no other way, and adaptive times on one law alone."""
    if point["way"] == "adaptive" and point["law"] != config.laws[0]:
        return False
    return bool(point["objective"] != FLAT or point["way"] in (*EVEN, ON_STEPS))


def compute(config: Config, run: Run) -> Arrays:
    """The sweep over laws, objectives and ways; "exact LAW ..." beside it."""
    arrays: Arrays = {}
    for law in config.laws:
        about = run.cell(f"exact {law}", exact, config, run, law)
        arrays |= {f"exact {law} {key}": value for key, value in about.items()}
    where = functools.partial(makes_sense, config)
    return arrays | run.sweep("ways", cell, axes_of(config), config, where=where)


# ---------------------------------------------------------------- what follows from them


@dataclasses.dataclass(frozen=True)
class Ending:
    """What came of one training, (seeds,) each: relative excess of the loss, nats, distance."""

    excess: np.ndarray
    bound: np.ndarray
    distance: np.ndarray


def ending(config: Config, arrays: Arrays, i: int) -> Ending:
    """Of the i-th cell."""
    nodes, error = nodes_of(config), arrays["error"][i]
    weight = np.asarray(weightings.ALL[str(arrays["objective"][i])](PROCESS, nodes.t))
    share = weight * nodes.share
    best = share @ arrays[f"exact {arrays['law'][i]} best"]
    return Ending(error @ share / best, 0.5 * error @ nodes.width, arrays["distance"][i])


def reference(arrays: Arrays, i: int) -> int:
    """The cell of independent times beside the i-th."""
    same = (arrays["law"] == arrays["law"][i]) & (arrays["objective"] == arrays["objective"][i])
    return int(np.flatnonzero(same & (arrays["way"] == EVEN[0]))[0])


def variance_ratio(arrays: Arrays, i: int, state: int) -> tuple[float, float]:
    """Variance by the way of the i-th cell over that of independent times, at its networks."""
    own, even = arrays["scatter"][i, state].T
    return evaluation.times_worse(own, even)


def by_integrals(arrays: Arrays, i: int, state: int, name: str) -> tuple[float, float]:
    """`variance_ratio` by the integrals, of the way itself ("theory") or of the best ("least")."""
    found = arrays[name][i, state]
    return evaluation.times_worse(found, np.ones_like(found))


# ---------------------------------------------------------------- tables


def place(arrays: Arrays, i: int) -> dict[str, Any]:
    """The axes of a cell."""
    return {key: str(arrays[key][i]) for key in ("law", "objective", "way")}


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Variance over that of independent times in every state, and the end."""
    rows = []
    for i in range(len(arrays["way"])):
        row: dict[str, Any] = place(arrays, i)
        for k, state in enumerate(STATES):
            row[f"variance, {state}"], row[f"{state} error"] = variance_ratio(arrays, i, k)
        own, even = (ending(config, arrays, j) for j in (i, reference(arrays, i)))
        row["excess"], row["excess error"] = mean_and_error(own.excess)
        row["excess/independent"], row["ratio error"] = evaluation.ratio(own.excess, even.excess)
        row["bound excess"], row["bound error"] = mean_and_error(own.bound)
        row["distance"], row["distance error"] = mean_and_error(own.distance)
        gap = mean_and_error(own.distance - even.distance)
        row["distance - independent"], row["difference error"] = gap
        floor = arrays[f"exact {arrays['law'][i]} distance"]
        rows.append(row | {"floor": floor.mean(), "floor error": floor.std(ddof=1)})
    return _digits(pd.DataFrame(rows))


def theory_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Measured ratios beside those of the integrals, and the least with independent times."""
    rows = []
    for i, (k, state) in itertools.product(range(len(arrays["way"])), enumerate(STATES)):
        row: dict[str, Any] = place(arrays, i) | {"state": state}
        row["measured"], row["measured error"] = variance_ratio(arrays, i, k)
        for name in ("theory", "least"):
            row[name], row[f"{name} error"] = by_integrals(arrays, i, k, name)
        rows.append(row)
    return _digits(pd.DataFrame(rows))


def times_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Densities of times at the nodes at the end of training beside the best, over uniform."""
    rows, nodes = [], nodes_of(config)
    for i in range(len(arrays["way"])):
        best, spread = mean_and_error(best_density(config, arrays, i))
        density = arrays["density"][i, -1].mean(axis=0)
        for j in range(len(nodes.t)):
            rows.append(place(arrays, i) | {
                "log-SNR": nodes.level[j], "t": nodes.t[j], "density": density[j],
                "best density": best[j], "best error": spread[j],
            })  # fmt: skip
    return _digits(pd.DataFrame(rows))


def best_density(config: Config, arrays: Arrays, i: int) -> np.ndarray:
    """sqrt(E|w g|^2) over its mean at the nodes, at the end of training, (seeds, nodes)."""
    root = np.sqrt(arrays["square"][i, -1])
    return np.asarray(root / (root @ nodes_of(config).share)[:, None])


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every network."""
    rows = []
    for i, s in itertools.product(range(len(arrays["way"])), range(config.seeds)):
        row: dict[str, Any] = place(arrays, i) | {"seed": s}
        for k, state in enumerate(STATES):
            own, even = arrays["scatter"][i, k, s]
            row |= {f"variance, {state}": own, f"independent, {state}": even}
        end = ending(config, arrays, i)
        rows.append(row | {
            "excess": end.excess[s], "bound excess": end.bound[s], "distance": end.distance[s],
        })  # fmt: skip
    return pd.DataFrame(rows)


def _digits(frame: pd.DataFrame) -> pd.DataFrame:
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 3 for c in floats}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Variances and ends; theory; densities of times; all networks."""
    return {
        "": main_table(config, arrays),
        "theory": theory_table(config, arrays),
        "times": times_table(config, arrays),
        "cells": cells_table(config, arrays),
    }


# ---------------------------------------------------------------- figures


def cells_of(arrays: Arrays, law: str, objective: str) -> np.ndarray:
    """The cells of a law and an objective, independent times first."""
    return np.flatnonzero((arrays["law"] == law) & (arrays["objective"] == objective))


def panels(config: Config, height: float) -> tuple[Figure, list[tuple[Any, str, str]]]:
    """A panel for each law (down) and objective (across)."""
    fig, axes = plots.figure(len(config.laws), len(config.objectives), height=height)
    pairs = itertools.product(config.laws, config.objectives)
    return fig, [(ax, law, objective) for ax, (law, objective) in zip(axes.flat, pairs)]


def title_of(law: str, objective: str) -> str:
    """Law and objective in words."""
    return f"{law.replace('_', ' ')}, loss: {objective}"


def named(ax: Any, ways: list[str]) -> None:
    """Names of ways along the axis, at 0, 1, ..."""
    names = [way.replace(", ", ",\n") for way in ways]
    style: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(len(ways)), names, fontsize=7.5, **style)
    ax.grid(visible=False, axis="x")


def verdicts(arrays: Arrays) -> str:
    """How often a ratio at the end is below 1, or above, by more than two standard errors."""
    found: dict[str, list[float]] = {}
    for i, way in enumerate(arrays["way"]):
        value, error = variance_ratio(arrays, i, len(STATES) - 1)
        found.setdefault(str(way), []).append((value - 1) / error if error else 0.0)
    return "; ".join(
        f"{way} {sum(z < -2 for z in own)} below, {sum(z > 2 for z in own)} above, of {len(own)}"
        for way, own in found.items()
        if way != EVEN[0]
    )


def draw_variance(config: Config, arrays: Arrays) -> Figure:
    """Variance over that of independent times, measured and by theory, in every state."""
    fig, places = panels(config, 1.2 + 2.7 * len(config.laws))
    for ax, law, objective in places:
        some = cells_of(arrays, law, objective)
        named(ax, arrays["way"][some].tolist())
        x = np.arange(len(some))
        for k, state in enumerate(STATES):
            found = np.array([variance_ratio(arrays, i, k) for i in some])
            ax.errorbar(
                x + 0.2 * (k - 0.5), found[:, 0], found[:, 1], fmt="osD"[k], color=plots.COLORS[k],
                capsize=2, label=state,
            )  # fmt: skip
            theory = [by_integrals(arrays, i, k, "theory")[0] for i in some]
            ax.plot(
                x + 0.2 * (k - 0.5), theory, "_", color="black", markersize=9,
                label="by the integrals",
            )  # fmt: skip
            least = [by_integrals(arrays, i, k, "least")[0] for i in some]
            ax.axhline(
                np.mean(least), color=plots.COLORS[k], linewidth=0.9, linestyle=":",
                label=f"the best law of independent times, {state}",
            )  # fmt: skip
        ax.axhline(1.0, color="black", linewidth=0.8)
        ax.set(ylim=(0, None))
        ax.set_title(title_of(law, objective), fontsize=10)
        if objective == config.objectives[0]:
            ax.set_ylabel("variance / independent")
    plots.legend_below(fig, places[0][0], columns=4)
    told = textwrap.fill(f"At the end, by more than two errors: {verdicts(arrays)}", 110)
    fig.suptitle(
        "Variance of the gradient of a batch over that with independent times"
        f" ({config.seeds} networks ± standard error).\n{told}",
        fontsize=8.5,
    )
    return fig


def draw_end(config: Config, arrays: Arrays) -> Figure:
    """What came of equal training."""
    fig, axes = plots.figure(len(config.laws), 2, height=0.9 + 2.7 * len(config.laws))
    most, where = 0.0, ""
    for row, law in zip(axes, config.laws):
        own = arrays["way"][arrays["law"] == law]
        ways = [way for way in config.ways if way in own]
        for k, objective in enumerate(config.objectives):
            some = cells_of(arrays, law, objective)
            ends = [ending(config, arrays, i) for i in some]
            x = [ways.index(str(arrays["way"][i])) + 0.16 * (k - 0.5) for i in some]
            style: dict[str, Any] = {
                "fmt": "os^D"[k % 4], "color": plots.COLORS[k], "capsize": 2, "label": objective,
            }  # fmt: skip
            for ax, values in zip(row, ([e.excess for e in ends], [e.distance for e in ends])):
                mean, error = mean_and_error(np.array(values), axis=1)
                ax.errorbar(x, mean, error, **style)
                ax.axhline(mean[0], color=plots.COLORS[k], linewidth=0.8, linestyle=":")
            for i, end in zip(some[1:], ends[1:]):
                value, error = evaluation.ratio(end.excess, ends[0].excess)
                if abs(value - 1) > most * error:
                    most = abs(value - 1) / error
                    where = f"{arrays['way'][i]}, {title_of(law, objective)}: {value:.2f}"
                    where += f" ± {error:.1g}"
        for ax in row:
            named(ax, ways)
        row[0].set(ylim=(0, None))
        row[1].set_yscale("log")
        floor = arrays[f"exact {law} distance"]
        low, high = floor.mean() - floor.std(ddof=1), floor.mean() + floor.std(ddof=1)
        row[1].axhspan(low, high, color="0.85", zorder=0, label="exact score ± deviation")
        if low <= 0:
            row[1].set_yscale("symlog", linthresh=max(high, 1e-6))
        row[0].set_ylabel(f"{law.replace('_', ' ')}\nexcess / least loss")
        row[1].set_ylabel("W1" if is_line(law) else "energy distance")
    plots.legend_below(fig, axes[0, 1], columns=4)
    fig.suptitle(
        f"After {config.steps} updates ({config.seeds} seeds ± standard error; dotted: independent)"
        f"\nthe surest change of an excess: {where}",
        fontsize=10,
    )
    return fig


def is_line(law: str) -> bool:
    """Whether a law lies on the line."""
    return bool(gallery.ALL[law]().dim == 1)


def draw_density(config: Config, arrays: Arrays) -> Figure:
    """Densities of times by log-SNR beside the best one."""
    fig, places = panels(config, 0.9 + 2.5 * len(config.laws))
    nodes = nodes_of(config)
    for ax, law, objective in places:
        some = cells_of(arrays, law, objective)
        slope = nodes.share / nodes.width  # of t, as a share of T, by log-SNR
        best, error = mean_and_error(best_density(config, arrays, int(some[0])))
        ax.errorbar(
            nodes.level, best * slope, error * slope, fmt="o-", color="black", capsize=2,
            label="the best: in proportion to $\\sqrt{E|g|^2}$",
        )  # fmt: skip
        shown = {
            "independent": "uniform",
            "importance": "importance",
            "adaptive": "adaptive, fitted",
        }
        for k, (way, words) in enumerate(shown.items()):
            for i in some[arrays["way"][some] == way]:
                density = arrays["density"][i, -1].mean(axis=0)
                ax.plot(
                    nodes.level, density * slope, "s-", color=plots.COLORS[k], label=words
                )  # fmt: skip
        ax.set_title(title_of(law, objective), fontsize=10)
        if law == config.laws[-1]:
            ax.set_xlabel("log-SNR (noise left, data right)")
        if objective == config.objectives[0]:
            ax.set_ylabel("density by log-SNR")
    plots.legend_below(fig, *(ax for ax, *_ in places), columns=4)
    fig.suptitle("Which times are drawn, and which should be, at the end of training", fontsize=10)
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Variances; the end; densities of times."""
    return {
        "": draw_variance(config, arrays),
        "end": draw_end(config, arrays),
        "density": draw_density(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Do paired, stratified or importance-sampled times lower the variance of the gradient, and"
    " does the end result notice?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
