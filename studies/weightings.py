"""Which weighting of the loss gives the best score, samples and likelihood, at which variance?

Weightings (`weightings`) train the same networks on the same points, noise and times:

    loss_w = E over t, x0, eps of  w(t) |eps - eps_model(x_t, t)|^2
           = E_t w(t) best(t)  +  E_t w(t) e(t),    best(t) = alpha^2/sigma^2 E tr Cov[x0 | x_t],
    e(t)   = E_(p_t) |eps_model - E[eps | x_t]|^2 = sigma^2 (Fisher error of the score)

with t uniform on [earliest T, T] of the process VP. On the score, |score error|^2 = |e|^2/sigma^2,

    score     1                      uniform
    simple    sigma^2                L_simple, uniform on eps
    bound     g^2/2                  the variational bound, half of the likelihood weighting g^2
    x0        sigma^4/alpha^2        uniform on x0

are customary, and beside them flow matching's (velocity), Hang et al.'s min-SNR-gamma, P2 and
Kingma and Gao's sigmoid. edm weighs by sigma_data^2 + 1/SNR, up to a constant; edm_levels by the
density of EDM's log-normal noise levels too, which the paper has it with. sigma_data is the
deviation of the law, and the levels, made for 0.5, are scaled with it. A constant factor is nothing
to Adam, but for its epsilon: so `bound` stands for `likelihood`.

best(t) is what no model can go below; the rest is the excess. Both are exact here, by quadrature in
x, and integrals over t are Gauss-Legendre sums in the log-SNR r. So every network can be held
against every objective, not only against its own.

Samples are taken along the probability flow from the exact p_T down to the earliest time, so that
nothing but the learned score is wrong. In the plane they start at random, and the distance is the
energy distance, unbiased; on the line they start at a lattice of quantiles and the distance is W1,
exact up to that lattice. The floor is the exact score in the network's place, from the same starts.

Likelihood: the KL of the law at the earliest time from what the flow of the network makes of the
exact p_T, and the excess of the bound, 1/2 int e dr, which is above the KL of the reverse SDE
(Song et al. 2021, arXiv:2101.09258, theorem 1) but not of the flow. Both are means over the
data, which hardly see where a flow throws the samples that it loses; the distance does.

Variance of the gradient, of one row, with g the gradient of |eps - eps_model|^2 in the weights:

    at one t    w^2 (E|g|^2 - |m|^2),  m = E g: relative to |w m|^2 no weighting changes it; drawn
                over (E_t w sqrt(E|g|^2))^2, which makes weightings of any size comparable
    in all      E_t w^2 E|g|^2 - |E_t w m|^2

    noise scale        that variance over |E_t w m|^2: rows for which noise and gradient are alike
                       (the simple noise scale of McCandlish et al. 2018, arXiv:1812.06162)
    cost of even t     E_t w^2 E|g|^2/(E_t w sqrt(E|g|^2))^2: how many times as many rows uniform
                       times need as the best law of times does, by Cauchy and Schwarz

Rates and lengths of training are the same for all: what is compared is a short training with one
recipe, not what each weighting could reach. Errors are standard errors over seeds, which all
weightings share: differences between weightings are taken seed by seed.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from diffscience import (
    ensembles,
    evaluation,
    gallery,
    grids,
    likelihood,
    losses,
    nets,
    plots,
    samplers,
    times,
    weightings,
)
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file

Arrays = dict[str, np.ndarray]

PROCESS = VP()
THIRDS = ("noise", "middle", "data")  # of the range of the log-SNR
LEVELS = "edm_levels"
NAMES = (*weightings.ALL, LEVELS)
WORDS = {
    "score": "uniform (score)", "simple": "σ² (simple)", "bound": "g² (bound)",
    "x0": "uniform (x0)", LEVELS: "edm, its levels", "min_snr": "min-SNR-γ", "p2": "P2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    laws : names of mixtures in `gallery.ALL`, on the line or in the plane.
    weightings : names in `NAMES`.
    seeds : networks of each weighting.
    steps, widths, batch, rate, final_rate : of every training.
    earliest : the least time, as a share of T.
    nodes : times at which all is measured.
    rows : points at each for the gradient after training. start_rows : before it, where its mean is
        wanted too.
    samples, solver_steps : of the flow. points : for the KL in the plane. tolerance : of its flow.
    """

    laws: tuple[str, ...] = ("julia_bimodal", "eight_gaussians")
    weightings: tuple[str, ...] = (
        "score", "simple", "bound", "x0", "velocity", "edm", LEVELS, "min_snr", "p2", "sigmoid",
    )  # fmt: skip
    seeds: int = 8
    steps: int = 900
    widths: tuple[int, ...] = (64, 64)
    batch: int = 128
    rate: float = 3e-3
    final_rate: float = 3e-5
    earliest: float = 1e-3
    nodes: int = 24
    rows: int = 256
    start_rows: int = 2048
    samples: int = 1000
    solver_steps: int = 40
    points: int = 500
    tolerance: float = 1e-4
    seed: int = 61

    def __post_init__(self) -> None:
        for name in self.laws:
            if name not in gallery.ALL or not isinstance(gallery.ALL[name](), GaussianMixture):
                raise ArgumentError("laws", "name mixtures of the gallery", name)
        for name in self.weightings:
            if name not in NAMES:
                raise ArgumentError("weightings", f"be among {', '.join(NAMES)}", name)
        for field, least in (("laws", 1), ("weightings", 2)):
            names = getattr(self, field)
            if len(names) < least or len(set(names)) < len(names):
                raise ArgumentError(field, f"be {least} or more different names", names)
        least_of = {
            "seeds": 2, "steps": 1, "batch": 1, "nodes": 3, "rows": 2, "start_rows": 2,
            "samples": 2, "solver_steps": 2, "points": 2,
        }  # fmt: skip
        for field, least in least_of.items():
            whole(field, getattr(self, field), least)
        for width in self.widths:
            whole("widths", width, 1)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("earliest", self.earliest, 0, 0.5, "()")
        number("tolerance", self.tolerance, 0, ends="()")


QUICK = Config(
    laws=("julia_bimodal",), weightings=("simple", "score", "bound", LEVELS), seeds=2, steps=16,
    widths=(16, 16), batch=32, nodes=4, rows=16, start_rows=64, samples=50, solver_steps=6,
    points=20, tolerance=1e-1,
)  # fmt: skip


# ---------------------------------------------------------------- what all are held against


def oracle_of(name: str) -> Oracle:
    """The exact model of a law."""
    return Oracle(gallery.ALL[name](), PROCESS)


def weighting_of(law: str, name: str) -> weightings.Weighting:
    """A weighting by its name, for a law."""
    if name not in ("edm", LEVELS):
        return weightings.ALL[name]
    found = gallery.ALL[law]()
    scale = math.sqrt(np.trace(np.asarray(found.cov)) / found.dim)
    edm = functools.partial(weightings.edm, sigma_data=scale)
    if name == "edm":
        return edm
    levels = times.log_normal(PROCESS, mean=-1.2 + math.log(scale / 0.5))
    return lambda process, t: edm(process, t) * levels.density(t)


def nodes_of(config: Config) -> evaluation.Nodes:
    """The times at which all is measured."""
    return evaluation.Nodes.of(PROCESS, config.earliest, config.nodes)


def facts(name: str, t: np.ndarray) -> Arrays:
    """The least loss and E|E[eps | x]|^2 at the times, (times,)."""
    oracle = oracle_of(name)
    return {"best": weightings.best(oracle, t), "energy": evaluation.eps_energy(oracle, t)}


# ---------------------------------------------------------------- one weighting


def fresh_networks(config: Config, run: Run, name: str) -> list[Network]:
    """The networks of all seeds before training, the same for every weighting."""
    dim = gallery.ALL[name]().dim
    return [
        Network(
            nets.MLP(dim, config.widths, seed=run.seed_for("weights", name, s)).to(run.device),
            PROCESS,
        )
        for s in range(config.seeds)
    ]


def trained(config: Config, run: Run, name: str, weighting: str) -> list[Network]:
    """The networks of all seeds after training with a weighting."""
    networks = fresh_networks(config, run, name)
    ensembles.together(
        networks,
        gallery.ALL[name](),
        steps=config.steps,
        seeds=[run.seed_for("training", name, s) for s in range(config.seeds)],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        loss=functools.partial(losses.weighted, weight=weighting_of(name, weighting)),
        times=times.uniform(PROCESS, config.earliest),
        progress=lambda steps: run.progress(steps, f"{name}, {weighting}"),
    )
    return networks


def kl_of(config: Config, run: Run, model: Model, name: str) -> np.ndarray:
    """KL of the law at the earliest time from what the flow makes of p_T, (seeds,), in nats.

    On the line by quadrature; in the plane over true points, each seed's own.
    """
    oracle, first = oracle_of(name), config.earliest * PROCESS.T
    law = oracle.at(first)
    if law.dim == 1:
        x, w = law.quadrature()
        points = np.tile(x, (config.seeds, 1, 1))
    else:
        draws = [run.generator("points", name, s) for s in range(config.seeds)]
        points = np.stack([np.asarray(law.sample(config.points, draw)) for draw in draws])
        w = np.full(config.points, 1 / config.points)
    rows = points.reshape(-1, law.dim)
    found = likelihood.log_prob(
        model, rows, prior=oracle.at(PROCESS.T), start=first, rtol=config.tolerance,
        atol=config.tolerance, device=run.device,
    )  # fmt: skip
    gap = np.asarray(law.log_prob(rows)) - found.log_prob
    return np.asarray(gap.reshape(config.seeds, -1) @ w)


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


def gradients(run: Run, networks: list[Network], name: str, t: np.ndarray, n: int) -> Arrays:
    """Of the gradient g of |eps - eps_model|^2 at times t: E|g|^2 and m_j . m_k, m = E g.

    From n rows at each time. square : (seeds, times). products : (seeds, times, times), without
    bias on the diagonal too.
    """
    square = np.empty((len(networks), len(t)))
    products = np.empty((len(networks), len(t), len(t)))
    for s, network in enumerate(networks):
        draws = run.generator("rows", name, s)
        x0 = np.asarray(gallery.ALL[name]().sample(len(t) * n, draws))
        noise = draws.standard_normal(x0.shape)
        x, when, z = (torch.as_tensor(a, device=run.device) for a in (x0, np.repeat(t, n), noise))
        sizes, means = evaluation.row_gradients(network, x, when, z, len(t))
        square[s], gram = sizes, means @ means.T
        unbiased = (n * np.diag(gram) - sizes) / (n - 1)
        products[s] = gram - np.diag(np.diag(gram) - unbiased)
    return {"square": square, "products": products}


def cell(config: Config, run: Run, law: str, weighting: str) -> Arrays:
    """One weighting on one law: all seeds trained side by side, and all that is measured of them.

    error : e(t) at the nodes, (seeds, nodes). square, signal : E|g|^2 and |E g|^2 there.
    """
    networks, t = trained(config, run, law, weighting), nodes_of(config).t
    # To the types the net is any module; here it is an MLP.
    side_by_side: Any = ensembles.Ensemble([network.net for network in networks])  # type: ignore[misc]
    model = networks[0].with_net(side_by_side)
    samples = sampled(config, model, starts(config, run, law))
    slopes = gradients(run, networks, law, t, config.rows)
    return {
        "error": evaluation.eps_errors(model, oracle_of(law), t),
        "kl": kl_of(config, run, model, law),
        "distance": distances(config, run, law, samples),
        "square": slopes["square"],
        "signal": np.einsum("sjj->sj", slopes["products"]),
    }


def common(config: Config, run: Run, law: str) -> Arrays:
    """What no weighting changes: least losses, gradients before training, samples of the truth."""
    begin = starts(config, run, law)
    exact = sampled(config, oracle_of(law), begin.reshape(-1, begin.shape[-1]))
    fresh, t = fresh_networks(config, run, law), nodes_of(config).t
    return {
        **facts(law, t),
        **gradients(run, fresh, law, t, config.start_rows),
        "distance": distances(config, run, law, exact.reshape(begin.shape)),
    }


def compute(config: Config, run: Run) -> Arrays:
    """A sweep over the weightings for each law; "LAW exact ..." is what they have in common."""
    arrays: Arrays = {}
    for law in config.laws:
        about = run.cell(f"{law} exact", common, config, run, law)
        arrays |= {f"{law} exact {key}": value for key, value in about.items()}
        axes = {"law": (law,), "weighting": config.weightings}
        found = run.sweep(law, cell, axes, config)
        arrays |= {f"{law} {key}": value for key, value in found.items() if key not in axes}
    return arrays


# ---------------------------------------------------------------- what follows from them


def weights_of(config: Config, law: str) -> np.ndarray:
    """w(t) of every weighting at the nodes, (weightings, nodes)."""
    t = nodes_of(config).t
    found = [weighting_of(law, name)(PROCESS, t) for name in config.weightings]
    return np.stack([np.asarray(w) for w in found])


def relative(config: Config, arrays: Arrays, law: str) -> np.ndarray:
    """The relative Fisher error at the nodes, (weightings, seeds, nodes)."""
    return np.asarray(arrays[f"{law} error"] / arrays[f"{law} exact energy"])


def excess(config: Config, arrays: Arrays, law: str) -> np.ndarray:
    """Of networks of every weighting, by every objective, over its least value: (w, seeds, w)."""
    share = weights_of(config, law) * nodes_of(config).share
    return np.asarray(arrays[f"{law} error"] @ share.T / (share @ arrays[f"{law} exact best"]))


def bound_excess(config: Config, arrays: Arrays, law: str) -> np.ndarray:
    """1/2 int e dr, (weightings, seeds), in nats."""
    return np.asarray(0.5 * arrays[f"{law} error"] @ nodes_of(config).width)


def noise_scale(
    square: np.ndarray, products: np.ndarray, share: np.ndarray, weight: np.ndarray
) -> tuple[float, float]:
    """tr Cov/|mean|^2 of the gradient of a row, from E|g|^2 (seeds, nodes) and m_j . m_k."""
    signal = np.einsum("sjk,j,k->s", products, share * weight, share * weight)
    return evaluation.ratio(square @ (share * weight**2) - signal, signal)


def noise_scales(config: Config, arrays: Arrays, law: str) -> tuple[np.ndarray, np.ndarray]:
    """Those of all weightings before training, and their errors, (weightings,)."""
    square, products = (arrays[f"{law} exact {key}"] for key in ("square", "products"))
    share = nodes_of(config).share
    found = [noise_scale(square, products, share, weight) for weight in weights_of(config, law)]
    value, error = np.array(found).T
    return value, error


def cost(square: np.ndarray, share: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """E_t w^2 E|g|^2/(E_t w sqrt(E|g|^2))^2 for E|g|^2 (..., nodes); 1 or more."""
    return np.asarray(square @ (share * weight**2) / (np.sqrt(square) @ (share * weight)) ** 2)


def variance_density(config: Config, arrays: Arrays, law: str) -> np.ndarray:
    """w^2 (E|g|^2 - |m|^2)/(E_t w sqrt(E|g|^2))^2 by log-SNR after training, (w, s, J).

    Its integral is the cost of even t less what means take, near nothing at the end of training.
    """
    nodes, square = nodes_of(config), arrays[f"{law} square"]
    weight = weights_of(config, law)[:, None]
    least = np.sum(np.sqrt(square) * weight * nodes.share, axis=-1, keepdims=True) ** 2
    found = (square - arrays[f"{law} signal"]) * weight**2 * nodes.share
    return np.asarray(found / least / nodes.width)


def measured(config: Config, arrays: Arrays, law: str) -> dict[str, np.ndarray]:
    """The numbers of every network, (weightings, seeds)."""
    nodes, weights = nodes_of(config), weights_of(config, law)
    places = (np.cumsum(nodes.width) - 0.5 * nodes.width) / nodes.width.sum()
    thirds = [np.flatnonzero(np.floor(3 * places) == k) for k in range(3)]
    by_third = {
        f"score error, {name}": np.average(
            relative(config, arrays, law)[..., some], axis=-1, weights=nodes.width[some]
        )
        for name, some in zip(THIRDS, thirds)
    }
    return {
        "KL": arrays[f"{law} kl"],
        "distance": arrays[f"{law} distance"],
        "bound excess": bound_excess(config, arrays, law),
        "own excess": np.einsum("isi->is", excess(config, arrays, law)),
        **by_third,
        "cost of even t": np.stack([
            cost(own, nodes.share, w) for own, w in zip(arrays[f"{law} square"], weights)
        ]),
    }  # fmt: skip


def behind(values: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The place of the least mean over seeds (w, seeds); how far others are behind; errors of it.

    Differences are taken seed by seed.
    """
    best = int(np.argmin(values.mean(axis=1)))
    return best, *mean_and_error(values - values[best], axis=1)


# ---------------------------------------------------------------- tables


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """KL, samples, bound and the variance of the gradient, by law and weighting."""
    rows = []
    for law in config.laws:
        numbers, floor = measured(config, arrays, law), arrays[f"{law} exact distance"]
        _, gap, error = behind(numbers["KL"])
        _, far, doubts = behind(numbers["distance"])
        scale, doubt = noise_scales(config, arrays, law)
        for i, weighting in enumerate(config.weightings):
            row: dict[str, Any] = {"law": law, "weighting": weighting}
            for key in ("KL", "distance", "bound excess", "cost of even t"):
                row[key], row[f"{key} error"] = mean_and_error(numbers[key][i])
                if key == "KL":
                    row |= {"KL behind the best": gap[i], "behind error": error[i]}
                if key == "distance":
                    row |= {"distance behind the best": far[i], "distance behind error": doubts[i]}
                    row |= {"floor": floor.mean(), "floor error": floor.std(ddof=1)}
            rows.append(row | {"noise scale": scale[i], "noise scale error": doubt[i]})
    return _digits(pd.DataFrame(rows))


def scores_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The relative Fisher error, in thirds of the log-SNR, and the excess of the own objective."""
    rows = []
    for law in config.laws:
        numbers = measured(config, arrays, law)
        keys = [key for key in numbers if key.startswith("score error")]
        for i, weighting in enumerate(config.weightings):
            row: dict[str, Any] = {"law": law, "weighting": weighting}
            for key in [*keys, "own excess"]:
                row[key], row[f"{key} error"] = mean_and_error(numbers[key][i])
            rows.append(row)
    return _digits(pd.DataFrame(rows))


def objectives_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Who reaches the least of each objective: its own networks, or those of another weighting?"""
    rows = []
    for law in config.laws:
        found = excess(config, arrays, law)
        share = weights_of(config, law) * nodes_of(config).share
        for j, objective in enumerate(config.weightings):
            best, gap, gap_error = behind(found[:, :, j])
            own, error = mean_and_error(found[j, :, j])
            least, least_error = mean_and_error(found[best, :, j])
            rows.append({
                "law": law, "objective": objective,
                "least value": float(share[j] @ arrays[f"{law} exact best"]),
                "excess, own": own, "own error": error,
                "excess, least": least, "least error": least_error,
                "reached with": config.weightings[best],
                "own behind": gap[j], "behind error": gap_error[j],
            })  # fmt: skip
    return _digits(pd.DataFrame(rows))


def matrix_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The mean excess of every weighting (rows) by every objective (columns)."""
    rows = []
    for law in config.laws:
        found = excess(config, arrays, law).mean(axis=1)
        for weighting, values in zip(config.weightings, found):
            rows.append({"law": law, "trained with": weighting}
                        | dict(zip(config.weightings, values)))  # fmt: skip
    return _digits(pd.DataFrame(rows))


def times_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Errors and variances of the gradient at every node."""
    rows, nodes = [], nodes_of(config)
    for law in config.laws:
        error, spread = mean_and_error(relative(config, arrays, law), axis=1)
        density, doubt = mean_and_error(variance_density(config, arrays, law), axis=1)
        for (i, weighting), j in itertools.product(
            enumerate(config.weightings), range(len(nodes.t))
        ):
            rows.append({
                "law": law, "weighting": weighting, "log-SNR": nodes.level[j], "t": nodes.t[j],
                "score error": error[i, j], "score error error": spread[i, j],
                "variance by log-SNR": density[i, j], "variance error": doubt[i, j],
            })  # fmt: skip
    return _digits(pd.DataFrame(rows))


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every network."""
    rows = []
    for law in config.laws:
        numbers = measured(config, arrays, law)
        for (i, weighting), s in itertools.product(
            enumerate(config.weightings), range(config.seeds)
        ):
            row: dict[str, Any] = {"law": law, "weighting": weighting, "seed": s}
            rows.append(row | {key: float(value[i, s]) for key, value in numbers.items()})
    return pd.DataFrame(rows)


def _digits(frame: pd.DataFrame) -> pd.DataFrame:
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 3 for c in floats}
    frame.attrs["digits"] |= {c: 3 for c in floats if c in ("score error",)}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """KL, samples and variances; scores; objectives; who does what to them; times; all cells."""
    return {
        "": main_table(config, arrays),
        "scores": scores_table(config, arrays),
        "objectives": objectives_table(config, arrays),
        "matrix": matrix_table(config, arrays),
        "times": times_table(config, arrays),
        "cells": cells_table(config, arrays),
    }


# ---------------------------------------------------------------- figures


def look(config: Config, i: int) -> dict[str, Any]:
    """Label, colour, line and marker of the i-th weighting; no two are alike."""
    n = len(plots.COLORS)
    return {
        "label": words(config.weightings[i]), "color": plots.COLORS[i % n],
        "linestyle": ("-", "--", ":")[(i % 3 + i // n) % 3], "marker": "osDv^<>PX*hd"[i % 12],
        "markersize": 3.5, "linewidth": 1.2, "elinewidth": 0.8,
    }  # fmt: skip


def words(name: str) -> str:
    """A weighting, or a law, in words."""
    return WORDS.get(name, name.replace("_", " "))


def ticks(axis: Any, low: float, high: float, crowded: bool = False) -> None:
    """Plain numbers on a logarithmic axis from low to high, fewer where there is little room."""
    few = (1.0, 3.0) if crowded else (1.0, 2.0, 5.0)
    steps = few if high < 30 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=5 if crowded else 8))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_locator(NullLocator())


def draw_score(config: Config, arrays: Arrays) -> Figure:
    """The relative Fisher error by log-SNR."""
    fig, (axes,) = plots.figure(1, len(config.laws), height=5.6)
    level = nodes_of(config).level
    best = []
    for ax, law in zip(axes, config.laws):
        for i, found in enumerate(relative(config, arrays, law)):
            ax.errorbar(level, *mean_and_error(found), **look(config, i))
        ax.axhline(1.0, color="black", linewidth=0.8)
        ax.set(yscale="log", xlabel="log-SNR (noise left, data right)")
        kl = arrays[f"{law} kl"]
        i, gap, doubt = behind(kl)
        value, error = mean_and_error(kl[i])
        near = int(np.sum(gap < 2 * doubt))  # the best itself has neither
        best.append(
            f"{words(law)}: {words(config.weightings[i])}, {value:.2g} ± {error:.1g}"
            f" ({near} more within 2 errors)"
        )
        ax.set_title(words(law), fontsize=10)
    axes[0].set_ylabel("relative Fisher error (a score of 0: 1)")
    plots.legend_below(fig, axes[0], columns=5)
    fig.suptitle(
        f"The score under {len(config.weightings)} weightings ({config.seeds} seeds ± standard"
        " error). Least KL of the flow, in nats:\n" + ";\n".join(best),
        fontsize=10,
    )
    return fig


PANELS = {
    "KL": "KL of the flow / nats",
    "bound excess": "excess of the bound\n/ nats",
    "distance": "distance of samples\n(top $W_1$, below energy distance)",
    "noise scale": "noise scale, start",
    "cost of even t": "cost of even t, end",
}


def draw_quality(config: Config, arrays: Arrays) -> Figure:
    """Likelihood, samples and the variance of the gradient, weightings in the order of their KL."""
    fig, axes = plots.figure(len(config.laws), len(PANELS), height=1.2 + 2.7 * len(config.laws))
    for row, law in zip(axes, config.laws):
        numbers = measured(config, arrays, law)
        order = np.argsort(numbers["KL"].mean(axis=1))
        places = np.arange(len(order))[::-1]
        for ax, (key, name) in zip(row, PANELS.items()):
            if key == "noise scale":
                mean, error = (a[order] for a in noise_scales(config, arrays, law))
            else:
                mean, error = mean_and_error(numbers[key][order], axis=1)
            ax.errorbar(mean, places, xerr=error, fmt="o", color=plots.COLORS[0], capsize=2)
            ax.set(xscale="log", ylim=(-0.6, len(order) - 0.4))
            ticks(ax.xaxis, np.min(mean), np.max(mean), crowded=True)
            ax.set_yticks(places, [])
            ax.tick_params(axis="x", labelsize=8)
            if key == "distance":
                floor = arrays[f"{law} exact distance"]
                middle, spread = floor.mean(), floor.std(ddof=1)
                ax.axvspan(middle - spread, middle + spread, color="0.8", zorder=0)
                if middle - spread <= 0:  # an unbiased distance has its floor at 0
                    ax.set_xscale("symlog", linthresh=max(spread, 1e-6))
                    ax.set_xticks([0.0, *10.0 ** np.arange(-2, math.ceil(np.log10(mean.max())))])
            if law == config.laws[-1]:
                ax.set_xlabel(name, fontsize=8)
        row[0].set_yticks(places, [words(config.weightings[i]) for i in order], fontsize=8)
        row[2].set_title(words(law), fontsize=10)
    fig.suptitle(
        f"Weightings in the order of their KL ({config.seeds} seeds ± standard error; grey: the"
        " exact score ± deviation)",
        fontsize=10,
    )
    return fig


def draw_variance(config: Config, arrays: Arrays) -> Figure:
    """Where in time the variance of the gradient comes from; noise against signal at one t."""
    fig, axes = plots.figure(2, len(config.laws), height=6.4)
    level = nodes_of(config).level
    for (top, bottom), law in zip(axes.T, config.laws):
        density = variance_density(config, arrays, law)
        for i, own in enumerate(density):
            top.errorbar(level, *mean_and_error(own), **look(config, i))
        top.set(yscale="log", ylim=(1e-4, None))
        top.set_title(words(law), fontsize=10)
        square = arrays[f"{law} exact square"]
        signal = np.einsum("sjj->sj", arrays[f"{law} exact products"])
        mean, error = evaluation.ratio(square - signal, signal)
        bottom.errorbar(level, mean, error, fmt="o-", color="black", capsize=2)
        bottom.set(yscale="log", xlabel="log-SNR (noise left, data right)")
        ticks(bottom.yaxis, np.min(mean), np.max(mean))
    axes[0, 0].set_ylabel(
        "variance by log-SNR / least $E w^2|g|^2$\nof any law of $t$, after training"
    )
    axes[1, 0].set_ylabel("tr Cov $g$ / $|E g|^2$ at one $t$\nbefore training, all weightings")
    plots.legend_below(fig, axes[0, 0], columns=5)
    worst = []
    for law in config.laws:
        costs = measured(config, arrays, law)["cost of even t"].mean(axis=1)
        i, j = int(np.argmin(costs)), int(np.argmax(costs))
        worst.append(
            f"{words(config.weightings[i])} {costs[i]:.1f} to {words(config.weightings[j])}"
            f" {costs[j]:.0f}"
        )
    fig.suptitle(
        "Where the variance of the gradient comes from. Rows that uniform times need over those of"
        " the best\nlaw of times: " + "; ".join(worst),
        fontsize=10,
    )
    return fig


def draw_matrix(config: Config, arrays: Arrays) -> Figure:
    """Excess of every weighting by every objective, over the least of the column."""
    fig, (axes,) = plots.figure(1, len(config.laws), height=4.7)
    n = len(config.weightings)
    won = []
    for ax, law in zip(axes, config.laws):
        found = excess(config, arrays, law).mean(axis=1)
        ratio = found / found.min(axis=0)
        gaps = [behind(excess(config, arrays, law)[:, :, j]) for j in range(n)]
        won.append(sum(gap[j] <= 2 * error[j] for j, (_, gap, error) in enumerate(gaps)))
        image = ax.imshow(
            np.log10(ratio), cmap=plots.DENSITY + "_r", vmin=0, vmax=2, origin="upper"
        )
        for i, j in itertools.product(range(n), range(n)):
            text = f"{ratio[i, j]:.2g}" if ratio[i, j] < 99.5 else "> 99"
            dark = ratio[i, j] > 10
            ax.text(
                j, i, text, ha="center", va="center", fontsize=6.5,
                color="white" if dark else "black", fontweight="bold" if i == j else "normal",
            )  # fmt: skip
        names = [words(name) for name in config.weightings]
        ax.set_xticks(range(n), names, rotation=90, fontsize=8)
        ax.set_yticks(range(n), names if ax is axes[0] else [], fontsize=8)
        ax.grid(visible=False)
        ax.set(xlabel="objective", title=words(law))
    axes[0].set_ylabel("trained with")
    fig.colorbar(image, ax=axes.tolist(), label="$\\log_{10}$ of the ratio", shrink=0.7)
    fig.suptitle(
        "Excess over the least excess of each objective. Networks trained with it have the least,"
        f"\nor one within 2 errors of it, for {' and '.join(map(str, won))} of {n}",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Scores; likelihood, samples and costs; variances; objectives."""
    return {
        "": draw_score(config, arrays),
        "quality": draw_quality(config, arrays),
        "variance": draw_variance(config, arrays),
        "matrix": draw_matrix(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Which weighting of the loss gives the best score, samples and likelihood, and what does it"
    " cost in gradient variance?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
