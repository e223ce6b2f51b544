"""Where does a sampler's error come from: prior, score, steps, or stopping early?

A learned model is run from N(0, sigma(T)^2 I) by a sampler in few steps to t_end > 0, and its end
is compared with the law of the data. Each of these four faults is then mended alone and together
with others, which the truth allows (see `diffscience.budget`): p_T for the prior, the oracle for
the model, the flow or the reverse SDE for the steps, the exact way from t_end to 0 for the
stopping.

    D = 2 E|X - Y| - E|X - X'| - E|Y - Y'|      the energy distance, of X the end from Y ~ p_0
    share of a fault = its mean contribution to D over all orders in which faults can be put in

Shares add up to D exactly (by other distances, to D less its floor, that of the exact end), and one
is negative where its fault undoes a part of the others. On the
line the laws of deterministic samplers follow by quadrature; all else is sampled, all runs of a
seed with common starts and one Brownian path. Every seed has networks of its own, so that standard
errors over seeds hold the chance of training and of sampling.

Girsanov's theorem bounds the KL of the reverse SDE by the error of its score (`girsanov`):

    KL(p_end || q_end) <= KL(p_T || prior) + 1/2 int E|eps_model - eps|^2 d log-SNR

Beside it stand the KL of that SDE, on the line, by its Fokker-Planck equation, and that of the
probability flow of the same model, for which the theorem says nothing: on the line by its own map,
in the plane by its log-likelihood at true points, whose chance is in the errors over seeds.

The last part varies the ends themselves with the exact score: how much a shorter process and an
earlier stop cost, alone, by the flow and by the reverse SDE. The flow keeps KL(p_T || prior), which
its map is held against.

Sources: Song et al. 2021, "Maximum likelihood training of score-based diffusion models", theorem 1;
Chen et al. 2023, "Sampling is as easy as learning the score"; Shapley 1953 for the shares.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffscience import (
    budget,
    ensembles,
    gallery,
    girsanov,
    grids,
    likelihood,
    metrics,
    nets,
    plots,
    samplers,
)
from diffscience.budget import PARTS, Bench, Budget
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.train import uniform_times

Arrays = dict[str, np.ndarray]

LINE = "julia_bimodal"  # the law on the line, which has all that is exact
WORDS = {
    "julia_bimodal": "two modes on a line", "eight_gaussians": "eight Gaussians",
    "julia_trimodal": "three modes", "euler_maruyama": "Euler–Maruyama", "ancestral": "ancestral",
    "heun": "Heun", "dpm_2m": "DPM++ 2M",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    laws : names in `gallery.ALL`, `LINE` first.
    samplers : names in `samplers.ALL`.
    steps : increasing numbers of steps, each a divisor of `fine`.
    fine : steps of the runs without discretisation.
    lengths : increasing numbers of updates, each with its own networks.
    seeds : networks of each length, with runs of their own.
    points : of a sampled run. nodes : of a quadrature on the line, four times as many for the ends,
        whose KLs are small. tolerance : of the flows.
    width, batch, rate, final_rate : of the networks (two layers) and of their training.
    beta_max, end : of the process VP(0.1, beta_max), and the time at which runs stop.
    panels : of the quadrature of the bound. levels : log-SNRs at which the error of eps is shown.
    cells, intervals : of Fokker-Planck, in space and time; for the ends four times as many of both.
    shorter : values of beta_max, and earlier : times of the end, with the exact score.
    """

    laws: tuple[str, ...] = (LINE, "eight_gaussians")
    samplers: tuple[str, ...] = ("euler_maruyama", "ancestral", "heun", "dpm_2m")
    steps: tuple[int, ...] = (5, 15, 60)
    fine: int = 120
    lengths: tuple[int, ...] = (100, 300, 1000)
    seeds: int = 8
    points: int = 400
    nodes: int = 1000
    tolerance: float = 1e-5
    width: int = 64
    batch: int = 128
    rate: float = 5e-3
    final_rate: float = 1e-4
    beta_max: float = 20.0
    end: float = 1e-3
    panels: int = 8
    levels: int = 24
    cells: int = 600
    intervals: int = 100
    shorter: tuple[float, ...] = (4.0, 8.0, 12.0, 16.0, 20.0)
    earlier: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
    seed: int = 53

    def __post_init__(self) -> None:
        for name, known in (("laws", gallery.ALL), ("samplers", samplers.ALL)):
            for item in getattr(self, name):
                if item not in known:
                    raise ArgumentError(name, f"be among {', '.join(known)}", item)
        if self.laws[:1] != (LINE,):
            raise ArgumentError("laws", f"begin with {LINE}", self.laws)
        if all(samplers.ALL[name].random for name in self.samplers):
            raise ArgumentError("samplers", "name a deterministic one too", self.samplers)
        least = {"fine": 2, "seeds": 2, "points": 10, "nodes": 100, "width": 1, "batch": 1}
        for name, low in (least | {"panels": 1, "levels": 2, "cells": 50, "intervals": 5}).items():
            whole(name, getattr(self, name), low)
        for name in ("steps", "lengths"):
            given = getattr(self, name)
            for n in given:
                whole(name, n, 1)
            if not given or list(given) != sorted(set(given)):
                raise ArgumentError(name, "be increasing whole numbers", given)
        if any(self.fine % n for n in self.steps):
            raise ArgumentError("steps", f"divide fine = {self.fine}", self.steps)
        number("tolerance", self.tolerance, 0, ends="()")
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        for beta in (self.beta_max, *self.shorter):
            number("beta_max", beta, 0.1)
        for end in (self.end, *self.earlier):
            number("end", end, 0, 0.5, "()")


QUICK = Config(
    samplers=("ancestral", "heun"), steps=(4, 8), fine=8, lengths=(20,), seeds=2, points=60,
    nodes=100, tolerance=1e-2, width=16, batch=64, panels=2, levels=4, cells=80, intervals=40,
    shorter=(4.0,), earlier=(3e-2,),
)  # fmt: skip


# ---------------------------------------------------------------- compute


def oracle_of(config: Config, name: str, beta_max: float | None = None) -> Oracle:
    """The exact model of a law under VP(0.1, beta_max)."""
    return Oracle(gallery.ALL[name](), VP(0.1, config.beta_max if beta_max is None else beta_max))


def fine_of(config: Config, oracle: Oracle, end: float | None = None) -> np.ndarray:
    """The fine times, even in log-SNR from T to the end."""
    return grids.log_snr(oracle.process, config.fine, end=config.end if end is None else end)


def trained(config: Config, law: str, updates: int, run: Run, k: int) -> Network:
    """A network of eps after so many updates, of the k-th seed."""
    oracle, key = oracle_of(config, law), (law, updates, k)
    net = nets.MLP(oracle.law.dim, (config.width, config.width), seed=run.seed_for(*key, "weights"))
    network = Network(net, oracle.process)
    ensembles.together(
        [network],
        oracle.law,
        steps=updates,
        seeds=[run.seed_for(*key, "training")],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        times=uniform_times(oracle.process, config.end),
    )
    return network


def budgets(config: Config, run: Run, law: str, seed: int) -> Arrays:
    """Of one seed, all lengths, samplers and steps: see `of_models`."""
    models = [trained(config, law, updates, run, seed) for updates in config.lengths]
    return of_models(config, law, models, run.seed_for(law, seed, "runs"))


def of_models(config: Config, law: str, models: Sequence[Model], seed: int) -> Arrays:
    """The budgets of models of one seed, whose exact counterparts are run once; every value
    (lengths, ...), and NaN for what is known on the line alone.

    D (samplers, steps, 2, 2, 2, 2); exact end (samplers, steps); metrics (METRICS, 2, 2, 2, 2), of
    the first deterministic sampler in most steps; bound (prior, score); sde and flow, KLs,
    the latter by points in the plane; eps (levels,) E|eps_model - eps|^2.
    """
    oracle = oracle_of(config, law)
    fine, line = fine_of(config, oracle), oracle.law.dim == 1
    options: dict[str, Any] = {"seed": seed, "tolerance": config.tolerance}
    sampled = Bench(oracle, fine, n=config.points, **options)
    exact = Bench(oracle, fine, n=config.nodes, **options) if line else sampled
    times = oracle.process.time_of_log_snr(levels_of(config, oracle))
    found: dict[str, list[Any]] = collections.defaultdict(list)
    for model in models:
        runs = [
            (sampled if sampler.random else exact).budget(model, sampler, grid)
            for sampler, grid in itertools.product(chosen(config), fine_grids(config, fine))
        ]
        shape = (len(config.samplers), len(config.steps))
        found["D"].append(np.reshape([run.distances for run in runs], (*shape, 2, 2, 2, 2)))
        found["exact end"].append(np.reshape([run.arrival for run in runs], shape))
        found["bound"].append(
            girsanov.bound(model, oracle, end=config.end, intervals=config.panels)
        )
        off = metrics.fisher_error(model, oracle, times).value
        found["eps"].append(oracle.process.var(times) * off)
        found["sde"].append(kl_of_sde(config, model, oracle, config.end) if line else math.nan)
        found["flow"].append(math.nan if line else kl_of_flow(config, model, oracle, seed))
        found["metrics"].append(by_metric(config, exact, model, fine, line))
    return {key: np.array(values) for key, values in found.items()}


def chosen(config: Config) -> list[samplers.Sampler]:
    """The samplers."""
    return [samplers.ALL[name] for name in config.samplers]


def fine_grids(config: Config, fine: np.ndarray) -> list[np.ndarray]:
    """The times of so many steps, each a part of the fine ones."""
    return [fine[:: config.fine // n] for n in config.steps]


def by_metric(
    config: Config, bench: Bench, model: Model, fine: np.ndarray, line: bool
) -> np.ndarray:
    """Distances of the first deterministic sampler in most steps, (METRICS, 2, 2, 2, 2)."""
    found = np.full((len(budget.METRICS), 2, 2, 2, 2), math.nan)
    smooth = next(sampler for sampler in chosen(config) if not sampler.random)
    for m, metric in enumerate(budget.METRICS if line else ()):
        grid = fine_grids(config, fine)[-1]
        found[m] = bench.budget(model, smooth, grid, metric).distances[0]
    return found


def kl_of_sde(config: Config, model: Model, oracle: Oracle, end: float) -> float:
    """KL(p_end || q_end) of the reverse SDE of a model on the line."""
    return girsanov.kl(model, oracle, end=end, cells=config.cells, steps=config.intervals)


def kl_of_flow(config: Config, model: Model, oracle: Oracle, seed: int) -> float:
    """KL(p_end || q_end) of the flow of a model from the prior, over so many points of p_end."""

    def log_q(x: np.ndarray) -> np.ndarray:
        tolerance = config.tolerance
        found = likelihood.log_prob(model, x, start=config.end, rtol=tolerance, atol=tolerance)
        return found.log_prob

    law = oracle.at(config.end)
    return metrics.kl_by_samples(log_q, law, config.points, seed).value


def levels_of(config: Config, oracle: Oracle) -> np.ndarray:
    """Log-SNRs from that of T to that of the end."""
    ends = [float(oracle.process.log_snr(t)) for t in (oracle.process.T, config.end)]
    return np.linspace(ends[0], ends[1], config.levels)


def ends(config: Config, run: Run, beta_max: float, end: float) -> Arrays:
    """With the exact score on the line: all distances by the flow, in energy and KL, and by the SDE
    (seeds, ...), whose few steps are not looked at; KLs of the prior and of the SDE, that with
    four times the cells and steps, and with half of those.
    """
    oracle = oracle_of(config, LINE, beta_max)
    fine = fine_of(config, oracle, end)
    flow, once = Bench(oracle, fine, n=4 * config.nodes), fine[[0, -1]]
    ddim, sde = samplers.ALL["ddim"], samplers.ALL["ddim_sde"]
    fine_mesh, finest_mesh = (
        dataclasses.replace(config, cells=m * config.cells, intervals=m * config.intervals)
        for m in (2, 4)
    )
    seeds = [run.seed_for("ends", beta_max, end, k) for k in range(config.seeds)]
    benches = [Bench(oracle, fine, n=config.points, seed=seed) for seed in seeds]
    return {
        "flow": flow.budget(oracle, ddim, once).distances[0],
        "flow KL": flow.budget(oracle, ddim, once, "kl").distances[0],
        "SDE": np.concatenate([bench.budget(oracle, sde, once).distances for bench in benches]),
        "prior KL": np.array(girsanov.bound(oracle, oracle, end=end, intervals=1).prior),
        "SDE KL": np.array(kl_of_sde(finest_mesh, oracle, oracle, end)),
        "SDE KL, half": np.array(kl_of_sde(fine_mesh, oracle, oracle, end)),
    }


def compute(config: Config, run: Run) -> Arrays:
    """A sweep over laws and seeds, and one, "ends ...", over the ends of the process."""
    axes: dict[str, Any] = {"law": config.laws, "seed": range(config.seeds)}
    found = run.sweep("budgets", budgets, axes, config)

    def one_at_a_time(cell: dict[str, Any]) -> bool:
        return bool(cell["beta_max"] == config.beta_max or cell["end"] == config.end)

    axes = {
        "beta_max": sorted({*config.shorter, config.beta_max}),
        "end": sorted({*config.earlier, config.end}),
    }
    last = run.sweep("ends", ends, axes, config, where=one_at_a_time)
    levels = levels_of(config, oracle_of(config, LINE))
    found |= {"updates": np.array(config.lengths), "levels": levels}
    return {**found, **{f"ends {key}": value for key, value in last.items()}}


# ---------------------------------------------------------------- tables


def at(arrays: Arrays, key: str, law: str, updates: int) -> np.ndarray:
    """The values of one law and training, (seeds, ...)."""
    [j] = np.flatnonzero(arrays["updates"] == updates)
    found: np.ndarray = arrays[key][arrays["law"] == law][:, j]
    return found


def budget_of(config: Config, arrays: Arrays, law: str, updates: int, j: int, s: int) -> Budget:
    """The budget of sampler j and steps s over all seeds."""
    exact = law == LINE and not samplers.ALL[config.samplers[j]].random
    D, end = (at(arrays, key, law, updates)[:, j, s] for key in ("D", "exact end"))
    return Budget(D, 0 if exact else config.points, end)


def with_errors(parts: dict[str, Estimate]) -> dict[str, float]:
    """name -> value and "name error" -> error."""
    both = [(name, found.value, found.error) for name, found in parts.items()]
    return {key: v for name, a, b in both for key, v in ((name, a), (f"{name} error", b))}


def runs_of(config: Config) -> list[tuple[str, int, int, int]]:
    """(law, updates, sampler, steps) of every budget, the last two by their places."""
    places = range(len(config.samplers)), range(len(config.steps))
    return list(itertools.product(config.laws, config.lengths, *places))


def rows_of(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Total and shares of every run."""
    rows = []
    for law, updates, j, s in runs_of(config):
        found = budget_of(config, arrays, law, updates, j, s)
        row: dict[str, Any] = {"law": law, "updates": updates, "sampler": config.samplers[j]}
        row |= {"steps": config.steps[s]} | with_errors({"D": found.total(), **found.share()})
        rows.append(row | with_errors({"exact end": found.exact_end()}))
    return digits(pd.DataFrame(rows))


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """D and shares of every seed of every run."""
    rows = []
    for law, updates, j, s in runs_of(config):
        found = budget_of(config, arrays, law, updates, j, s)
        for k, (D, end) in enumerate(zip(found.distances, found.arrival)):
            one = Budget(D[None], found.n, end[None])
            row: dict[str, Any] = {"law": law, "updates": updates, "sampler": config.samplers[j]}
            row |= {"steps": config.steps[s], "seed": k, "D": one.total().value}
            row |= {part: share.value for part, share in one.share().items()}
            rows.append(row | {"exact end": one.exact_end().value})
    return pd.DataFrame(rows)


def networks_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Bound and KLs of every network, in nats."""
    rows = []
    for law, updates in itertools.product(config.laws, config.lengths):
        bound, flow = at(arrays, "bound", law, updates), flow_kl(arrays, law, updates)
        for k, sde in enumerate(at(arrays, "sde", law, updates)):
            row: dict[str, Any] = {"law": law, "updates": updates, "seed": k}
            row |= {"prior": bound[k, 0], "score": bound[k, 1], "bound": bound[k].sum()}
            rows.append(row | {"KL of the SDE": sde, "KL of the flow": flow[k]})
    return pd.DataFrame(rows)


def kl_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Girsanov's bound, the KL of the flow, and on the line that of the SDE, in nats."""
    rows = []
    for law, updates in itertools.product(config.laws, config.lengths):
        bound = at(arrays, "bound", law, updates)
        columns = {"prior": bound[:, 0], "score": bound[:, 1], "bound": bound.sum(axis=1)}
        if law == LINE:
            columns |= {"KL of the SDE": at(arrays, "sde", law, updates)}
            columns |= {"SDE/bound": columns["KL of the SDE"] / columns["bound"]}
        columns |= {"KL of the flow": flow_kl(arrays, law, updates)}
        if law == LINE:
            columns |= {"KL of the exact flow": flow_kl(arrays, law, updates, faulty=0)}
        found = {key: Estimate(*mean_and_error(values)) for key, values in columns.items()}
        row: dict[str, Any] = {"law": law, "updates": updates, "networks": config.seeds}
        for kind in ("SDE", "flow"):
            if f"KL of the {kind}" in columns:  # of how many networks
                above = columns[f"KL of the {kind}"] > columns["bound"]
                row[f"{kind} above the bound"] = int(np.sum(above))
        rows.append(row | with_errors(found))
    return digits(pd.DataFrame(rows))


def flow_kl(arrays: Arrays, law: str, updates: int, faulty: int = 1) -> np.ndarray:
    """KL(p_end || q_end) of the flows, (seeds,); on the line that at 0, since the exact way from
    the end to 0 keeps it, and with 0 for faulty prior and score its floor by the quadrature.
    """
    if law != LINE:
        return at(arrays, "flow", law, updates)
    where = budget.METRICS.index("kl"), faulty, faulty, 0, 0
    return at(arrays, "metrics", law, updates)[(slice(None), *where)]


def metrics_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The first deterministic sampler in most steps on the line, by each distance."""
    rows = []
    for updates, (m, metric) in itertools.product(config.lengths, enumerate(budget.METRICS)):
        found = Budget(at(arrays, "metrics", LINE, updates)[:, m], 0, np.zeros(config.seeds))
        row = {"updates": updates, "distance": metric, "floor": found.total().floor}
        rows.append(row | with_errors({"D": found.total(), **found.share()}))
    return digits(pd.DataFrame(rows))


def shown_case(config: Config) -> tuple[int, int, int]:
    """Updates, sampler and steps of the run that is told in all ways: middle, last, first."""
    return config.lengths[len(config.lengths) // 2], len(config.samplers) - 1, 0


def ways_of(found: Budget) -> dict[str, dict[str, Estimate]]:
    """The parts in all ways."""
    return {
        "alone": found.alone(),
        "chain": found.chain(),
        "chain, turned round": found.chain(PARTS[::-1]),
        "mended": found.mended(),
        "share": found.share(),
    }


def ways_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """One run of each law, in all ways; which of them add up."""
    rows, (updates, j, s) = [], shown_case(config)
    for law in config.laws:
        found = budget_of(config, arrays, law, updates, j, s)
        for way, parts in ways_of(found).items():
            row: dict[str, Any] = {"law": law, "updates": updates, "sampler": config.samplers[j]}
            row |= {"steps": config.steps[s], "way": way} | with_errors(parts)
            row["sum"] = sum(part.value for part in parts.values())
            rows.append(row | with_errors({"D": found.total()}))
    return digits(pd.DataFrame(rows))


def ends_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The cost of a shorter process and of an earlier end with the exact score, each alone.

    The KL of the SDE has its change from a mesh half as fine: large where the mesh is its floor.
    """
    rows = []
    for i, (beta_max, end) in enumerate(zip(arrays["ends beta_max"], arrays["ends end"])):
        flow, flow_nats = (
            Budget(arrays[f"ends {key}"][i][None], 0, np.zeros(1)).alone()
            for key in ("flow", "flow KL")
        )
        sde = Budget(arrays["ends SDE"][i], config.points, np.zeros(config.seeds)).alone()
        process = VP(0.1, float(beta_max))
        row: dict[str, Any] = {"beta_max": beta_max, "t_end": end}
        row |= {"alpha(T)": process.alpha(process.T), "sigma(t_end)": math.sqrt(process.var(end))}
        for part in ("prior", "stopping"):
            row[f"{part}, flow"] = flow[part].value
            row |= with_errors({f"{part}, SDE": sde[part]})
        row |= {"KL of the prior": arrays["ends prior KL"][i]}
        row |= {
            "KL of the flow": flow_nats["prior"].value,
            "KL of the SDE": arrays["ends SDE KL"][i],
            "its change": arrays["ends SDE KL"][i] - arrays["ends SDE KL, half"][i],
        }
        rows.append(row)
    return digits(pd.DataFrame(rows))


def digits(frame: pd.DataFrame) -> pd.DataFrame:
    """With three digits for numbers and two for their errors."""
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 3 for c in floats}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """The longest training; all runs; every seed and network; KLs; distances; ways; the ends."""
    every = rows_of(config, arrays)
    longest = every[every["updates"] == config.lengths[-1]].reset_index(drop=True)
    return {
        "": digits(longest),
        "all": every,
        "cells": cells_table(config, arrays),
        "networks": networks_table(config, arrays),
        "girsanov": kl_table(config, arrays),
        "metrics": metrics_table(config, arrays),
        "ways": ways_table(config, arrays),
        "ends": ends_table(config, arrays),
    }


# ---------------------------------------------------------------- figures


COLOR = dict(zip(PARTS, plots.COLORS, strict=False))


def stack(ax: Any, x: float, shares: dict[str, Estimate], total: Estimate) -> None:
    """One bar of signed parts: what adds is above 0, what undoes is below; their sizes add to 1."""
    size = sum(abs(share.value) for share in shares.values()) or 1.0
    sure = abs(total.value) > 2 * total.error
    high = low = 0.0
    for k, (part, share) in enumerate(shares.items()):
        height = share.value / size
        bottom = high if height > 0 else low
        ax.bar(
            x, height, 0.74, bottom, color=COLOR[part], alpha=1.0 if sure else 0.35, label=part
        )  # fmt: skip
        if share.value:  # side by side, since two ends may be at one height
            ax.errorbar(
                x + 0.13 * (k - 1.5), bottom + height, share.error / size, color="black", lw=0.9
            )  # fmt: skip
        high, low = high + max(height, 0.0), low + min(height, 0.0)
    ax.plot(x, total.value / size, "D", color="black", markersize=4, label="their sum, D")
    words = f"{total.value:.1e}".replace("e-0", "e-").replace("-", "−")
    ax.text(
        x, 1.32, words, ha="center", va="bottom", fontsize=7.5, color="black" if sure else "gray"
    )


def draw_bars(config: Config, arrays: Arrays, name: str) -> Figure:
    """Signed shares of every run of a law: samplers down, training across."""
    rows, columns = len(config.samplers), len(config.lengths)
    fig, axes = plots.figure(rows, columns, height=0.9 + 1.55 * rows, share=True)
    for (j, sampler), (i, length) in itertools.product(
        enumerate(config.samplers), enumerate(config.lengths)
    ):
        ax = axes[j, i]
        for s in range(len(config.steps)):
            found = budget_of(config, arrays, name, length, j, s)
            stack(ax, s, found.share(), found.total())
        ax.axhline(0.0, color="black", linewidth=0.8)
        ax.set_xticks(range(len(config.steps)), config.steps)
        ax.set(ylim=(-0.45, 1.6), yticks=(0.0, 0.5, 1.0))
        ax.grid(visible=False, axis="x")
        if j == 0:
            ax.set_title(f"{length} updates", fontsize=10)
        if i == 0:
            ax.set_ylabel(f"{WORDS.get(sampler, sampler)}\npart / Σ|part|", fontsize=9)
        if j == rows - 1:
            ax.set_xlabel("steps")
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle(
        f"{WORDS.get(name, name)}: shares of D, the energy distance to the data, printed above\n"
        f"(means of {config.seeds} seeds; lines: standard errors of parts, at their ends;"
        " pale: D is within two of 0)",
        fontsize=10,
    )
    return fig


def draw_parts(config: Config, arrays: Arrays) -> Figure:
    """The sizes of the shares against the steps after the longest training."""
    rows, columns = len(config.laws), len(config.samplers)
    fig, axes = plots.figure(rows, columns, height=1.2 + 2.1 * rows)
    last, steps = config.lengths[-1], np.array(config.steps)
    for (r, name), (j, sampler) in itertools.product(
        enumerate(config.laws), enumerate(config.samplers)
    ):
        ax = axes[r, j]
        found = [budget_of(config, arrays, name, last, j, s) for s in range(len(steps))]
        lines = {part: [b.share()[part] for b in found] for part in PARTS}
        for part, estimates in {**lines, "D": [b.total() for b in found]}.items():
            value = np.array([e.value for e in estimates])
            error = np.array([e.error for e in estimates])
            color = COLOR.get(part, "black")
            ax.errorbar(steps, np.abs(value), error, color=color, capsize=2, linewidth=1.2)
            full = value > 0
            ax.plot(steps[full], value[full], "o", color=color, label=part)
            ax.plot(steps[~full], -value[~full], "o", color=color, markerfacecolor="white")
        ax.set(xscale="log", yscale="log", ylim=(1e-7, 1.0))
        ax.set_xticks(config.steps, config.steps)
        ax.minorticks_off()
        if j:
            ax.set_yticklabels([])
        else:
            ax.set_ylabel(f"{WORDS.get(name, name)}\n|share of D|", fontsize=9)
        if r == 0:
            ax.set_title(WORDS.get(sampler, sampler), fontsize=10)
        if r == rows - 1:
            ax.set_xlabel("steps")
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle(
        f"After {config.lengths[-1]} updates: the size of each share against the steps\n"
        "(open: negative, it undoes a part of the others; bars: standard errors over seeds)",
        fontsize=10,
    )
    return fig


def draw_ways(config: Config, arrays: Arrays) -> Figure:
    """One run of each law, its parts in all ways."""
    fig, axes = plots.figure(1, len(config.laws), height=3.9)
    updates, j, s = shown_case(config)
    for ax, name in zip(axes[0], config.laws, strict=True):
        found = budget_of(config, arrays, name, updates, j, s)
        ways = ways_of(found)
        for w, (way, parts) in enumerate(ways.items()):
            x = np.arange(len(PARTS) + 1) + 0.16 * (w - 2)
            values = [parts[part].value for part in PARTS]
            errors = [parts[part].error for part in PARTS]
            ax.bar(
                x, [*values, sum(values)], 0.15, yerr=[*errors, math.nan], label=way, capsize=1.5,
                color=plots.COLORS[w], error_kw={"linewidth": 1.0},
            )  # fmt: skip
        ax.axhline(found.total().value, color="black", linewidth=1.0, linestyle=":", label="D")
        ax.axhline(0.0, color="black", linewidth=0.8)
        names = ["prior", "score", "discreti-\nsation", "stopping", "sum"]
        ax.set_xticks(range(len(PARTS) + 1), names, fontsize=8)
        ax.set(title=WORDS.get(name, name), ylabel="part of D" if ax is axes[0, 0] else "")
        ax.grid(visible=False, axis="x")
    plots.legend_below(fig, axes[0, 0], columns=6)
    sampler = config.samplers[j]
    fig.suptitle(
        f"{WORDS.get(sampler, sampler)} in {config.steps[s]} steps after {updates}"
        " updates: what faults cost alone, one after the other, mended, and on average",
        fontsize=10,
    )
    return fig


def draw_girsanov(config: Config, arrays: Arrays) -> Figure:
    """Bound and measured KL against training; where in time the bound on the line comes from."""
    fig, (axes,) = plots.figure(1, len(config.laws) + 1, height=4.0)
    rows = kl_table(config, arrays)
    styles = {
        "bound": ("bound of the SDE's KL", "s-"), "prior": ("of it the prior", "s:"),
        "KL of the SDE": ("KL of the SDE", "o-"), "KL of the flow": ("KL of the flow", "^--"),
    }  # fmt: skip
    for ax, law in zip(axes, config.laws):
        some = rows[rows["law"] == law]
        for (key, (words, style)), color in zip(styles.items(), plots.COLORS, strict=False):
            if law == LINE or key != "prior":  # in the plane it is far below all else
                ax.errorbar(
                    some["updates"], some[key], some[f"{key} error"], fmt=style, color=color,
                    capsize=2, label=words,
                )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="updates of the training")
        ax.set_xticks(config.lengths, config.lengths)
        ax.minorticks_off()
        low, high = np.log10(ax.get_ylim())
        ax.set_ylim(10.0 ** math.floor(low), 10.0 ** math.ceil(high))  # with a decade's ticks
        ax.set_title(f"KL from the law at the end:\n{WORDS.get(law, law)}", fontsize=9)
    axes[0].set_ylabel("nats")
    levels = arrays["levels"]
    for i, length in enumerate(config.lengths):
        mean, error = mean_and_error(at(arrays, "eps", LINE, length))
        color = plots.COLORS[4 + i % 5]
        axes[-1].plot(levels, mean, color=color, label=f"{length} updates")
        axes[-1].fill_between(levels, np.maximum(mean - error, 1e-9), mean + error, color=color,
                              alpha=0.25, linewidth=0)  # fmt: skip
    axes[-1].set(yscale="log", xlabel="log-SNR (noise left, data right)")
    axes[-1].set_title(
        "$E|\\epsilon_{model} - \\epsilon|^2$ on the line:\nhalf its area is the score's part",
        fontsize=9,
    )
    plots.legend_below(fig, *axes, columns=4)
    told = []
    for kind in ("SDE", "flow"):
        above = rows[f"{kind} above the bound"].dropna()
        told.append(f"{int(above.sum())} of {config.seeds * len(above)} {kind}s")
    fig.suptitle(
        f"{told[0]} have a KL above the bound (by Girsanov: none),"
        f"\n{told[1]}, of which it does not speak (means and errors of"
        f" {config.seeds} networks each)",
        fontsize=10,
    )
    return fig


def draw_ends(config: Config, arrays: Arrays) -> Figure:
    """What a shorter process and an earlier end cost with the exact score."""
    fig, (axes,) = plots.figure(1, 2, height=3.8)
    rows = ends_table(config, arrays)
    panels = (
        ("prior", "beta_max", rows["t_end"] == config.end, "$\\beta_{max}$ of the process"),
        ("stopping", "t_end", rows["beta_max"] == config.beta_max, "$t_{end}$"),
    )
    for ax, (part, x, chosen, words) in zip(axes, panels, strict=True):
        some = rows[chosen].sort_values(x)
        flow, sde, error = (some[f"{part}, {key}"] for key in ("flow", "SDE", "SDE error"))
        ax.plot(some[x], np.abs(flow), "^--", color=plots.COLORS[0], label="flow (exact)")
        ax.errorbar(
            some[x], np.abs(sde), error, fmt="o-", color=plots.COLORS[2], capsize=2,
            label=f"reverse SDE ({config.seeds} seeds; open: negative)",
        )  # fmt: skip
        ax.plot(some[x][sde < 0], -sde[sde < 0], "o", color=plots.COLORS[2], mfc="white", zorder=3)
        ax.set(yscale="log", xlabel=words, ylabel="|D| of this fault alone")
        ax.set_title(f"{part} alone, exact score", fontsize=10)
    axes[1].set_xscale("log")
    plots.legend_below(fig, axes[0], columns=2)
    worst = rows.loc[rows["prior, flow"].idxmax()]
    fig.suptitle(
        f"{WORDS[LINE]}: of KL($p_T$ || prior) = {worst['KL of the prior']:.2g} nats at"
        f" $\\beta_{{max}}$ = {worst['beta_max']:g} the flow keeps {worst['KL of the flow']:.2g},"
        f" the reverse SDE {worst['KL of the SDE']:.2g}",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Shares of every law; sizes against steps; all ways; Girsanov's bound; the ends."""
    first, *others = config.laws
    return {
        "": draw_bars(config, arrays, first),
        **{name: draw_bars(config, arrays, name) for name in others},
        "parts": draw_parts(config, arrays),
        "ways": draw_ways(config, arrays),
        "girsanov": draw_girsanov(config, arrays),
        "ends": draw_ends(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Where does a sampler's error come from: prior, score, steps, or stopping early?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
