"""Where there are no data a learned score is wrong: by how much, and how noise mends it.

A network psi(x) is trained at one noise level, by an objective that averages over points of p:

    implicit            tr J psi + 1/2 |psi|^2 at points of p              (Hyvarinen 2005)
    denoising, sigma    1/2 |psi(x + sigma z) + z/sigma|^2                 (Vincent 2011)

The first has the score of p as its minimum, the second that of p_sigma = p * N(0, sigma^2).  Both
weigh an error at x by the density there, so that they say nothing of x where no point ever falls,
although every batch is drawn afresh.  Here the exact score stands beside the network on a box that
holds all of p but 1e-6:

    relative error of a region = sqrt(sum |psi - s|^2/sum |s|^2) over the cells of the region
    under p_sigma              = sqrt(E|psi - s|^2/E|s|^2), the root of the relative Fisher error
    low density                = the cells outside the smallest region that holds `inside` of p

so that c times the exact score is off by |c - 1| everywhere.  A larger sigma puts points everywhere
in the box, and the network is right everywhere, but about p_sigma: this is why score-based models
use many levels (Song and Ermon 2019, section 3.2 and figures 1 and 2; Y. Song, *Generative modeling
by estimating gradients of the data distribution*, 2021).
Targets: the pair 0.2 N((-5, -5), I) + 0.8 N((5, 5), I) of their figure 2, and the three modes of R.
Rosa's random_notes (CC BY 4.0).  Errors are standard errors over seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import gallery, losses, metrics, nets, plots
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Oracle
from diffscience.process import EDM
from diffscience.study import Run, Study, run_file
from diffscience.train import averaged, fit
from diffscience.transition import Transition

Arrays = dict[str, np.ndarray]
Psi = Callable[[torch.Tensor], torch.Tensor]

IMPLICIT = 0.0  # the noise level of the implicit objective
REGIONS = ("whole box", "high density", "low density")
HALF = 10.0  # the box is [-10, 10]^2


def pair() -> GaussianMixture:
    """0.2 N((-5, -5), I) + 0.8 N((5, 5), I)."""
    return GaussianMixture([0.2, 0.8], [[-5.0, -5.0], [5.0, 5.0]], np.ones((2, 2)))


TARGETS = {"pair": pair, "trimodal": gallery.julia_trimodal}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    targets : names in `TARGETS`.
    sigmas : increasing noise levels of the denoising objective.
    steps, batch, width : of every training; batch points a step of each network.
    rate, final_rate, ema : Adam's learning rate, what it falls to, and the decay of the averaged
        weights.
    seeds : networks of every kind.
    cells : of the box, along a side.
    decades : the bins of density are this many powers of ten below the maximum, and the rest.
    inside : mass of the region that is not called low density.
    """

    targets: tuple[str, ...] = ("pair", "trimodal")
    sigmas: tuple[float, ...] = (0.3, 1.5, 6.0)
    steps: int = 1500
    batch: int = 96
    width: int = 64
    rate: float = 5e-3
    final_rate: float = 1e-5
    ema: float = 0.99
    seeds: int = 8
    cells: int = 80
    decades: int = 12
    inside: float = 0.999
    seed: int = 31

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in TARGETS:
                raise ArgumentError("targets", f"be among {', '.join(TARGETS)}", name)
        if not self.targets:
            raise ArgumentError("targets", "name one or more targets", self.targets)
        sigmas = np.array(self.sigmas, float)
        if len(sigmas) == 0 or sigmas[0] <= 0 or np.any(np.diff(sigmas) <= 0):
            raise ArgumentError("sigmas", "be increasing positive numbers", self.sigmas)
        number("sigmas", sigmas[-1], 0, EDM().T, "(]")
        least = {"steps": 1, "batch": 1, "width": 1, "seeds": 2, "cells": 16, "decades": 2}
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        number("inside", self.inside, 0, 1, "()")
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("ema", self.ema, 0, 1, "[)")


QUICK = Config(steps=60, batch=128, width=32, seeds=2, cells=40)


# ---------------------------------------------------------------- compute


def box(n: int) -> np.ndarray:
    """Centres of the n x n cells of the box, (n, n, 2), rows from the bottom."""
    steps = HALF * ((2 * np.arange(n) + 1) / n - 1)
    return np.stack(np.meshgrid(steps, steps), axis=-1)


def exact(config: Config, name: str) -> Arrays:
    """Exact log-densities (levels, n, n) and scores (levels, n, n, 2) on the box."""
    law, x = TARGETS[name](), box(config.cells)
    laws = [law.blurred(sigma) for sigma in (IMPLICIT, *config.sigmas)]
    return {
        "log density": np.stack([p.log_prob(x) for p in laws]),
        "score": np.stack([p.score(x) for p in laws]),
    }


def scaled(net: Psi, law: GaussianMixture, sigma: float) -> Psi:
    """psi(x) = net(x/sqrt(m^2 + sigma^2))/sqrt(1 + sigma^2), m^2 = E|X|^2/D: `nets.Scaled`."""
    mean, cov = np.asarray(law.mean), np.asarray(law.cov)
    size = math.sqrt((np.trace(cov) + mean @ mean) / law.dim + sigma**2)
    return lambda x: net(x / size) / math.sqrt(1 + sigma**2)


def objective(sigma: float) -> Any:
    """(psi, x, generator) -> rows of the objective at one level; z and -z for every point."""

    def rows(psi: Psi, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if sigma == IMPLICIT:
            return losses.implicit(psi, x)
        z = torch.randn(x.shape, generator=generator, device=x.device)
        twice, noise = torch.cat([x, x]), torch.cat([z, -z])
        return losses.denoising_at(psi, twice, noise, Transition(1.0, sigma**2))

    return rows


def points_seen(config: Config, i: int) -> int:
    """How many points a network at level i is asked for in its training: with noise two a draw."""
    return config.steps * config.batch * (1 if i == 0 else 2)


def learned(config: Config, name: str, sigma: float, key: str, run: Run) -> Arrays:
    """Scores of all networks of a kind on the box, (seeds, n, n, 2), and their relative errors
    under p_sigma, (seeds,); trained side by side, each with points of its own."""
    law, S = TARGETS[name](), config.seeds
    seeds = [run.seed_for(key, "weights", k) for k in range(S)]
    stack = nets.Stack([nets.Score(2, (config.width, config.width), seed) for seed in seeds])
    stack.to(run.device)

    def rows(net: Any, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        # The mean over all rows is that over the networks: times S, each has its own.
        return S * objective(sigma)(scaled(net, law, sigma), x, generator)

    history = fit(
        stack,
        law,
        rows,
        steps=config.steps,
        seed=run.seed_for(key, "training"),
        batch=config.batch * S,
        rate=config.rate,
        final_rate=config.final_rate,
        ema=config.ema,
        progress=lambda steps: run.progress(steps, f"{name}, sigma = {sigma:g}"),
    )
    averaged(stack, history).cpu().requires_grad_(False)
    psi, x = scaled(stack.at, law, sigma), box(config.cells)

    def score(x: np.ndarray) -> np.ndarray:
        return psi(torch.from_numpy(x).float()).double().numpy()

    def under(k: int) -> np.ndarray:
        model: Any = SimpleNamespace(score=lambda x, t: score(x)[k])  # sigma is the time of EDM
        return metrics.fisher_error(model, Oracle(law, EDM()), sigma, relative=True).value

    return {
        "score": score(x.reshape(-1, 2)).reshape(S, *x.shape),
        "under": np.sqrt([under(k) for k in range(S)]),
    }


def compute(config: Config, run: Run) -> Arrays:
    """The exact fields and every network as a cell of its own."""
    arrays: Arrays = {}
    for name in config.targets:
        facts = run.cell(f"{name} exact", exact, config, name)
        arrays |= {f"{name} {key}": value for key, value in facts.items()}
    levels = (IMPLICIT, *config.sigmas)
    jobs = [(name, i) for name in config.targets for i in range(len(levels))]
    for name, i in run.progress(jobs, "networks"):
        key = f"{name} {i}"
        found = run.cell(key, learned, config, name, levels[i], key, run)
        arrays[f"{name} learned {i}"], arrays[f"{name} under {i}"] = found["score"], found["under"]
    return arrays


# ---------------------------------------------------------------- errors and regions


def squares(arrays: Arrays, name: str, i: int) -> tuple[np.ndarray, np.ndarray]:
    """|psi - s|^2 (seeds, n, n) and |s|^2 (n, n) at level i."""
    s = arrays[f"{name} score"][i]
    return np.sum((arrays[f"{name} learned {i}"] - s) ** 2, axis=-1), np.sum(s**2, axis=-1)


def mass(arrays: Arrays, name: str, i: int) -> np.ndarray:
    """The probability of each cell under p_sigma, (n, n), by its value at the centre."""
    log_density = arrays[f"{name} log density"][i]
    return np.exp(log_density) * (2 * HALF / log_density.shape[-1]) ** 2


def rare(config: Config, arrays: Arrays, name: str) -> np.ndarray:
    """The cells (n, n) outside the smallest region that holds `inside` of p itself."""
    p = mass(arrays, name, 0)
    order = np.argsort(-p, axis=None)
    held = np.cumsum(p.reshape(-1)[order])
    if held[-1] <= config.inside:
        raise ArgumentError("inside", f"be less than the box holds, {held[-1]:.9f}", config.inside)
    found = np.ones(p.size, bool)
    found[order[: 1 + np.searchsorted(held, config.inside)]] = False
    return found.reshape(p.shape)


def relative(off: np.ndarray, size: np.ndarray, region: np.ndarray) -> tuple[float, float]:
    """Relative error of a region, with its standard error over seeds."""
    return mean_and_error(np.sqrt(off[:, region].sum(axis=1) / size[region].sum()))


def decade(config: Config, arrays: Arrays, name: str, i: int) -> np.ndarray:
    """How many powers of ten the density at each cell lies below its maximum, (n, n)."""
    log_density = arrays[f"{name} log density"][i]
    below = (log_density.max() - log_density) / math.log(10)
    return np.minimum(below.astype(int), config.decades)


def bins(config: Config, arrays: Arrays, name: str, i: int) -> pd.DataFrame:
    """Root-mean-square error by density at level i, with the points that training saw there."""
    off, size = squares(arrays, name, i)
    where, p = decade(config, arrays, name, i), mass(arrays, name, i)
    rows = []
    for k in np.unique(where):
        region = where == k
        rms, error = mean_and_error(np.sqrt(off[:, region].mean(axis=1)))
        share, spread = relative(off, size, region)
        rows.append(
            {
                "decades below the maximum": f"{k} to {k + 1}" if k < config.decades else f"> {k}",
                "cells": int(region.sum()),
                "points seen": float(p[region].sum() * points_seen(config, i)),
                "rms error": rms,
                "its error": error,
                "rms of the score": float(np.sqrt(size[region].mean())),
                "relative error": share,
                "error of it": spread,
            }
        )
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- tables


def objective_name(config: Config, i: int) -> str:
    """The objective of level i in words."""
    return "implicit" if i == 0 else f"denoising, sigma = {config.sigmas[i - 1]:g}"


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Error against density, for the two objectives that aim at p itself or close to it."""
    parts = []
    for name in config.targets:
        for i in (0, 1):
            rows = bins(config, arrays, name, i)
            rows.insert(0, "objective", objective_name(config, i))
            rows.insert(0, "target", name)
            parts.append(rows)
    frame = pd.concat(parts, ignore_index=True)
    three = ("points seen", "rms error", "rms of the score", "relative error")
    frame.attrs["digits"] = dict.fromkeys(three, 3) | {"its error": 2, "error of it": 2}
    return frame


def levels_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Relative errors by noise level: under p_sigma, on the box, and where p is high and low."""
    rows = []
    for name in config.targets:
        low = rare(config, arrays, name)
        for i in range(1 + len(config.sigmas)):
            off, size = squares(arrays, name, i)
            row: dict[str, Any] = {"target": name, "objective": objective_name(config, i)}
            share = float(mass(arrays, name, i)[low].sum())
            row["points seen at low density"] = share * points_seen(config, i)
            row["under p_sigma"], row["its error"] = mean_and_error(arrays[f"{name} under {i}"])
            for region, where in zip(REGIONS, (low | ~low, ~low, low), strict=True):
                row[region], row[f"{region}, error"] = relative(off, size, where)
            rows.append(row)
    frame = pd.DataFrame(rows)
    values = ("under p_sigma", "points seen at low density", *REGIONS)
    errors = [column for column in frame.columns if "error" in column]
    frame.attrs["digits"] = dict.fromkeys(errors, 2) | dict.fromkeys(values, 3)
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Error against density; error by noise level."""
    return {"": main_table(config, arrays), "levels": levels_table(config, arrays)}


# ---------------------------------------------------------------- figures


SIDES = (-HALF, HALF, -HALF, HALF)
TITLES = {"pair": "pair", "trimodal": "three modes"}
ERRORS = (-3.0, 0.5)  # the colours' range of log10 of |psi - s| over the rms of s in the box


def field(ax: Any, score: np.ndarray, arrays: Arrays, name: str, i: int) -> Any:
    """Arrows of a score over the exact log-density of level i; the background's image."""
    image = plots.background(ax, arrays[f"{name} log density"][i], SIDES, depth=30.0)
    n = score.shape[0]
    some = np.arange(n // 32, n, max(1, n // 16))
    x, s = box(n)[np.ix_(some, some)], score[np.ix_(some, some)]
    length = np.linalg.norm(s, axis=-1, keepdims=True)
    s = s / np.maximum(length, 1e-12) * np.sqrt(length / length.max())  # so that all can be seen
    ax.quiver(
        x[..., 0], x[..., 1], s[..., 0], s[..., 1], color="white", scale=20, width=0.006,
        headwidth=4,
    )  # fmt: skip
    return image


def error_map(ax: Any, arrays: Arrays, name: str, i: int) -> Any:
    """log10 of the rms error over the seeds, in units of the rms score in the box; the image."""
    found, size = squares(arrays, name, i)
    off = 0.5 * np.log10(found.mean(axis=0) / size.mean())
    image = ax.imshow(
        off, extent=SIDES, cmap="magma", vmin=ERRORS[0], vmax=ERRORS[1], interpolation="nearest"
    )
    ax.grid(False)
    return image


def frame_of(ax: Any, config: Config, arrays: Arrays, name: str, color: str = "white") -> None:
    """Axes of the box, with the border of low density."""
    n = config.cells
    steps = box(n)[0, :, 0]
    border = rare(config, arrays, name).astype(float)
    ax.contour(steps, steps, border, levels=[0.5], colors=color, linewidths=1.0)
    ax.set(xlim=(-HALF, HALF), ylim=(-HALF, HALF), aspect="equal")
    ax.set(xticks=(-5, 0, 5), yticks=(-5, 0, 5))


def name_axes(axes: np.ndarray) -> None:
    """x_1 below the lowest row, x_2 beside the first column."""
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")


def draw_maps(config: Config, arrays: Arrays, name: str) -> Figure:
    """Exact and learned score, density and error of the implicit objective side by side."""
    fig, axes = plots.figure(2, 2, height=7.4, share=True)
    flat = axes.flat
    field(flat[0], arrays[f"{name} score"][0], arrays, name, 0)
    field(flat[1], arrays[f"{name} learned 0"][0], arrays, name, 0)
    image = plots.background(flat[2], arrays[f"{name} log density"][0], SIDES, depth=30.0)
    fig.colorbar(image, ax=flat[2], shrink=0.85, label="log-density minus its maximum / nats")
    image = error_map(flat[3], arrays, name, 0)
    fig.colorbar(image, ax=flat[3], shrink=0.85, label="$\\log_{10}$(rms error/rms score)")
    titles = ("exact score", "learned score (implicit)", "exact density", "error of the score")
    for ax, title in zip(flat, titles, strict=True):
        frame_of(ax, config, arrays, name)
        ax.set_title(title, fontsize=10)
    low = rare(config, arrays, name)
    off, size = squares(arrays, name, 0)
    high, far = (relative(off, size, where)[0] for where in (~low, low))
    name_axes(axes)
    fig.suptitle(
        f"{TITLES[name]}: relative rms error {100 * high:.2g} % inside the white line "
        f"({100 * config.inside:g} % of p), {100 * far:.2g} % outside\n"
        f"(arrows: the first of {config.seeds} networks, length as the square root of the score; "
        "errors: over all)",
        fontsize=10,
    )
    return fig


def draw_noise(config: Config, arrays: Arrays, name: str) -> Figure:
    """Density with the learned score, and the error, at every noise level."""
    count = len(config.sigmas)
    fig, axes = plots.figure(2, count, height=5.7, share=True)
    low = rare(config, arrays, name)
    for i, (top, bottom) in enumerate(axes.T, start=1):
        field(top, arrays[f"{name} learned {i}"][0], arrays, name, i)
        image = error_map(bottom, arrays, name, i)
        off, size = squares(arrays, name, i)
        far = relative(off, size, low)[0]
        top.set_title(f"$\\sigma = {config.sigmas[i - 1]:g}$: score over $p_\\sigma$", fontsize=10)
        bottom.set_title(f"rms error outside: {100 * far:.2g} %", fontsize=10)
        for ax in (top, bottom):
            frame_of(ax, config, arrays, name)
    name_axes(axes)
    fig.colorbar(image, ax=axes[1], shrink=0.85, label="$\\log_{10}$(rms error/rms score)")
    fig.suptitle(
        f"{TITLES[name]}: noise brings data to the whole box\n"
        f"(white line: {100 * config.inside:g} % of p; arrows: the first of {config.seeds} "
        "networks; errors: over all, relative to the score)",
        fontsize=10,
    )
    return fig


def draw_density(config: Config, arrays: Arrays) -> Figure:
    """Error against density, with the number of points that training saw."""
    fig, axes = plots.figure(2, len(config.targets), height=5.6)
    for column, name in zip(axes.T, config.targets, strict=True):
        for i in range(1 + len(config.sigmas)):
            rows = bins(config, arrays, name, i)
            k = np.unique(decade(config, arrays, name, i)) + 0.5
            color = plots.COLORS[i]
            words = objective_name(config, i).replace("sigma", "$\\sigma$")
            column[0].errorbar(
                k, rows["rms error"], rows["its error"], fmt="o-", color=color, capsize=2,
                linewidth=1.2, label=words,
            )  # fmt: skip
            column[0].plot(
                k, rows["rms of the score"], "--", color=color, linewidth=1.0,
                label="the score itself (dashed)" if i == 0 else None,
            )  # fmt: skip
            column[1].plot(k, rows["points seen"], "o-", color=color, linewidth=1.2)
        column[0].set(yscale="log", title=TITLES[name], ylabel="rms error")
        column[1].axhline(1.0, color="black", linewidth=1.0, linestyle=":", label="one point seen")
        column[1].set(yscale="log", ylabel="points seen", ylim=(1e-6, None))
        column[1].set_xlabel(f"powers of ten below the maximum (last: > {config.decades})")
    plots.legend_below(fig, *axes[:, 0], columns=3)
    fig.suptitle("The error of a learned score against the density")
    return fig


def draw_levels(config: Config, arrays: Arrays) -> Figure:
    """Relative error by noise level."""
    fig, axes = plots.figure(1, len(config.targets), height=3.8)
    rows = levels_table(config, arrays)
    x = np.arange(1 + len(config.sigmas))
    for ax, name in zip(axes[0], config.targets, strict=True):
        some = rows[rows["target"] == name]
        columns = [("under p_sigma", "its error")] + [(r, f"{r}, error") for r in REGIONS]
        for (value, error), color in zip(columns, plots.COLORS, strict=False):
            words = value.replace("p_sigma", "$p_\\sigma$")
            style = "s--" if value == "whole box" else "o-"
            ax.errorbar(x, some[value], some[error], fmt=style, color=color, capsize=2, label=words)
        ax.axhline(1.0, color="black", linewidth=1.0, label="a score of 0")
        ax.set_xticks(x, ["implicit", *(f"$\\sigma = {s:g}$" for s in config.sigmas)])
        ax.set(yscale="log", title=TITLES[name], ylabel="relative rms error")
        ax.set_ylim(bottom=min(ax.get_ylim()[0], 1e-2))
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle("One level of noise after the other: each network against its own $p_\\sigma$")
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Maps of every target, error against density, noise levels, and their errors."""
    first, *others = config.targets
    return {
        "": draw_maps(config, arrays, first),
        **{f"maps_{name}": draw_maps(config, arrays, name) for name in others},
        **{f"noise_{name}": draw_noise(config, arrays, name) for name in config.targets},
        "density": draw_density(config, arrays),
        "levels": draw_levels(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "How wrong is a learned score where there are no data, and how does noise mend it?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
