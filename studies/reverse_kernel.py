"""Is the reverse step of a diffusion Gaussian for small beta, and what does it cost to say so?

The claim goes back to Feller 1949 (Sohl-Dickstein et al. 2015, section 2.2).  For a mixture of
Gaussians the kernel p(x_(k-1) | x_k) is one too and known exactly (`reverse`), and so is its
divergence in nats from each of four Gaussians with the exact mean:

    best      its own covariance at every x_k
    optimal   one variance for all x_k, the mean one            (Bao et al. 2022)
    beta      beta, right for data N(0, I)                      (Ho et al. 2020)
    btilde    beta var(k-1)/var(k), right for a single point    (Ho et al. 2020)

Theory, with h = log p_k and beta -> 0 at a fixed noise level (derived in `reverse`):

    E KL = beta^3 E|grad^3 h|^2/12 + O(beta^4)                  best
    E KL = beta^2 E|grad^2 h + c I|^2/4 + O(beta^3)             c = -E tr grad^2 h/D, 1, 1/var(k)

A chain of K steps with beta_k of the order of 1/K pays the sum over its steps, K^-2 in all if each
step is the best Gaussian, K^-1 if one variance serves all x_k.  With the prior, KL(p_K || N(0, I)),
the sum is the gap of the variational bound above the entropy, which `bounds.best_bound` finds by
another way.  Chains with btilde never close it: near the data, where beta_k hardly changes,
btilde_k is beta (k - 1)/k while the kernel's variance is beta.  With btilde_2 = beta/2 in the place
of btilde_1 = 0, and gamma Euler's constant, in D dimensions there remain for K -> infinity

    D/2 (1 - log 2) + D/2 sum_(k > 1) (1/(k-1) - log(k/(k-1))) = D/2 (1 - log 2 + gamma) = 0.442 D

Everything here is quadrature: nothing is drawn, and the error of a measured power is how far it
moves when the fit takes in one more term (log y = a + p log beta + b beta + c beta^2).
Maps are of KL(kernel || best) at each x_k.  A noise level is var(k) = 1 - alpha(k)^2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffscience import bounds, gallery, plots, reverse
from diffscience.chain import Chain
from diffscience.errors import ArgumentError, number, whole
from diffscience.mixture import GaussianMixture
from diffscience.models import Oracle
from diffscience.process import VP
from diffscience.study import Run, Study, run_file

Arrays = dict[str, np.ndarray]

GAUSSIANS = ("best", "optimal", "beta", "btilde")
POWERS = {"best": 3, "optimal": 2, "beta": 2, "btilde": 2}
SCHEDULES = ("cosine", "linear")
FLOOR = 0.5 * (1 - math.log(2) + 0.5772156649015329)  # of btilde, a dimension, for K -> infinity
SMALL = 0.01  # nats, from which on a step is called Gaussian in the tables


def comb() -> GaussianMixture:
    """0.3 N(-1.2, 0.1^2) + 0.5 N(0, 0.1^2) + 0.2 N(1.4, 0.1^2): modes far apart for their width."""
    return GaussianMixture([0.3, 0.5, 0.2], [[-1.2], [0.0], [1.4]], np.full((3, 1), 0.01))


TARGETS = {
    "bimodal": gallery.julia_bimodal, "comb": comb, "trimodal": gallery.julia_trimodal
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    targets : names in `TARGETS`.
    levels : increasing noise levels.
    smallest, betas : the least beta, and how many, in even ratios up to the noise level itself.
    fitted : of them, from the least, for the powers.
    level, shown : noise level and betas of the kernels in the picture.
    steps, plane_steps : K of the chains for D = 1 and D = 2.
    map_steps, map_pixels : K of the cosine chain and points on the line of the maps for D = 1.
    plane_levels, plane_beta, pixels : noise levels, beta and points a side of those for D = 2.
    spacing : of the points x_k behind the means for D = 2, in standard deviations of a mode.
    """

    targets: tuple[str, ...] = ("bimodal", "comb", "trimodal")
    levels: tuple[float, ...] = (0.02, 0.1, 0.3, 0.7, 0.95)
    smallest: float = 1e-4
    betas: int = 18
    fitted: int = 7
    level: float = 0.7
    shown: tuple[float, ...] = (0.6, 0.3, 0.05)
    steps: tuple[int, ...] = (10, 20, 50, 100, 200, 500)
    plane_steps: tuple[int, ...] = (10, 20, 40, 80)
    map_steps: int = 60
    map_pixels: int = 241
    plane_levels: tuple[float, ...] = (0.1, 0.4, 0.8)
    plane_beta: float = 0.05
    pixels: int = 72
    spacing: float = 0.4

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in TARGETS:
                raise ArgumentError("targets", f"be among {', '.join(TARGETS)}", name)
        if not self.targets or TARGETS[self.targets[0]]().dim != 1:
            raise ArgumentError("targets", "begin with one of dimension 1", self.targets)
        for name in ("levels", "plane_levels"):
            value = np.array(getattr(self, name), float)
            if len(value) == 0 or value[0] <= 0 or value[-1] >= 1 or np.any(np.diff(value) <= 0):
                raise ArgumentError(name, "be increasing numbers in (0, 1)", getattr(self, name))
        number("smallest", self.smallest, 0, self.levels[0], "()")
        whole("fitted", self.fitted, 5)
        whole("betas", self.betas, self.fitted)
        if self.level not in self.levels:
            raise ArgumentError("level", "be one of the levels", self.level)
        if not self.shown or min(self.shown) <= 0 or max(self.shown) >= self.level:
            raise ArgumentError("shown", "lie between 0 and the level", self.shown)
        number("plane_beta", self.plane_beta, 0, self.plane_levels[0], "()")
        for name in ("steps", "plane_steps"):
            value = np.array(getattr(self, name))
            if len(value) < 4 or value[0] < 3 or np.any(np.diff(value) <= 0):
                raise ArgumentError(name, "be four or more increasing numbers >= 3", value)
        number("spacing", self.spacing, 0, 1, "(]")
        for name, least in (("map_steps", 3), ("map_pixels", 3), ("pixels", 3)):
            whole(name, getattr(self, name), least)


QUICK = Config(
    targets=("bimodal", "trimodal"), levels=(0.1, 0.7), betas=7, fitted=6, steps=(4, 6, 8, 12),
    plane_steps=(3, 4, 5, 6), map_steps=16, map_pixels=61, plane_levels=(0.1, 0.8), pixels=16,
    spacing=1.0,
)  # fmt: skip


# ---------------------------------------------------------------- compute


def betas_of(config: Config, level: float) -> np.ndarray:
    """The betas at a noise level; the last is the level itself, one step from the data."""
    return np.geomspace(config.smallest, level, config.betas)


def one_step(law: GaussianMixture, level: float, beta: float) -> tuple[Oracle, int]:
    """(oracle, k): of a chain whose k-th step, its last, is beta and ends at the noise level."""
    if beta >= level:
        return Oracle(law, Chain([level])), 1
    before = (level - beta) / (1 - beta)  # = 1 - (1 - level)/(1 - beta)
    return Oracle(law, Chain([before, beta])), 2


def grid(law: Any, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights on an even grid, for mixtures of like widths: the trapezoidal rule.

    spacing : in the least standard deviation, for D = 2; 1/10 for D = 1.  Squared derivatives of
        log-densities are averaged to 1e-6 with 1/10 and 0.4.
    """
    std = np.sqrt(np.linalg.eigvalsh(law.covs))
    step, reach = (0.1 if law.dim == 1 else spacing) * std.min(), 8 * std.max()
    low, high = law.means.min(axis=0) - reach, law.means.max(axis=0) + reach
    axes = [np.arange(a, b, step) for a, b in zip(low, high)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, law.dim)
    w = np.exp(law.log_prob(x)) * step**law.dim
    kept = w > 1e-10 * w.max()
    return x[kept], w[kept]


def cost(config: Config, oracle: Oracle, k: int) -> reverse.Price:
    """The `Price` of the step from k to k - 1, on the `grid`."""
    coarse = 0.5 if oracle.law.dim == 1 else 0.8
    return reverse.price(oracle, k - 1, k, grid(oracle.at(k), config.spacing), coarse)


def coefficients(config: Config, oracle: Oracle, k: int) -> np.ndarray:
    """(E|grad^3 h|^2/12, E|grad^2 h|^2, E tr grad^2 h) at step k."""
    x, w = grid(oracle.at(k), config.spacing)
    third, second = reverse.third_derivatives(oracle, x, k), oracle.at(k).hessian(x)
    return np.array([
        w @ np.sum(third**2, axis=(1, 2, 3)) / 12,
        w @ np.sum(second**2, axis=(1, 2)),
        w @ np.trace(second, axis1=1, axis2=2),
    ])  # fmt: skip


def theory(found: np.ndarray, c: float, dim: int) -> float:
    """E|grad^2 h + c I|^2/4 from `coefficients`."""
    return float(found[1] + 2 * c * found[2] + c * c * dim) / 4


def against_beta(config: Config, name: str, level: float) -> Arrays:
    """E KL (gaussian, beta) at a noise level; its leading coefficients (gaussian)."""
    law, rows = TARGETS[name](), []
    for beta in betas_of(config, level):
        oracle, k = one_step(law, level, float(beta))
        chain: Any = oracle.process
        found = cost(config, oracle, k)
        rows.append([
            found.best, found.given(found.optimal), found.given(beta),
            found.given(bounds.variances(chain)[-1]) if k > 1 else math.nan,  # btilde = 0
        ])  # fmt: skip
    moments = coefficients(config, oracle, k)
    leading = [
        moments[0],
        *(theory(moments, c, law.dim) for c in (-moments[2] / law.dim, 1.0, 1 / level)),
    ]
    return {"cost": np.array(rows).T, "leading": np.array(leading)}


def chain_of(schedule: str, K: int) -> Chain:
    """One of `SCHEDULES` with K steps; the linear one is `VP()` at even times."""
    return Chain.cosine(K) if schedule == "cosine" else Chain.of(VP(), np.arange(K + 1) / K)


def over_chain(config: Config, name: str, schedule: str, K: int) -> Arrays:
    """E KL of every step (gaussian, K), leading terms (3, K), the prior, and bound - entropy."""
    law, chain = TARGETS[name](), chain_of(schedule, K)
    oracle = Oracle(law, chain)
    found = reverse.together([cost(config, oracle, k) for k in range(1, K + 1)])
    moments = np.array([coefficients(config, oracle, k) for k in range(1, K + 1)])
    beta, D = chain.betas, law.dim
    leading = [
        beta**3 * moments[:, 0],
        beta**2 * (moments[:, 1] - moments[:, 2] ** 2 / D) / 4,
        beta**2 * (moments[:, 1] + 2 * moments[:, 2] + D) / 4,
    ]
    variances = (found.optimal, bounds.variances(chain, 1.0), bounds.variances(chain))
    best = [bounds.best_bound(oracle, mix=mix).total for mix in (1.0, 0.0)]
    return {
        "cost": np.stack([found.best, *map(found.given, variances)]),
        "leading": np.stack(leading),
        "prior": np.array(reverse.prior_gap(oracle)),
        "bounds": np.array(best) - law.entropy(),
    }


def shown_kernels(config: Config, name: str) -> Arrays:
    """Densities of kernels at one x_k, (shown, 3, 501): places, kernel and best Gaussian; facts.

    x_k is where p_k KL is largest for the first of the betas.  facts : x_k, then for each beta
    (mean, standard deviation, KL).
    """
    law, rows, facts = TARGETS[name](), [], []
    where = np.empty((1, 1))
    for i, beta in enumerate(config.shown):
        oracle, k = one_step(law, config.level, beta)
        if i == 0:
            x, w = grid(oracle.at(k), config.spacing)
            where = x[[np.argmax(w * reverse.kernels(oracle, x, k - 1, k).non_gaussianity())]]
        found = reverse.kernels(oracle, where, k - 1, k)
        mean, std = found.mean.item(), math.sqrt(found.cov.item())
        y = mean + std * np.linspace(-5.0, 5.0, 501)
        normal = np.exp(-0.5 * ((y - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        rows.append([y, np.exp(found.law(0).log_prob(y[:, None])), normal])
        facts.append([mean, std, found.non_gaussianity().item()])
    return {"densities": np.array(rows), "facts": np.array(facts), "x": where[0]}


def line_map(config: Config, name: str) -> Arrays:
    """KL and log p_k on the line at every step of a cosine chain, (map_steps, map_pixels)."""
    law, chain = TARGETS[name](), Chain.cosine(config.map_steps)
    oracle = Oracle(law, chain)
    mean, std = law.mean.item(), math.sqrt(law.cov.item())
    x = np.linspace(mean - 3 * std - 1, mean + 3 * std + 1, config.map_pixels)[:, None]
    steps = range(1, config.map_steps + 1)
    return {
        "x": x[:, 0],
        "kl": np.stack([reverse.kernels(oracle, x, k - 1, k).non_gaussianity() for k in steps]),
        "log density": np.stack([oracle.at(k).log_prob(x) for k in steps]),
    }


def plane_map(config: Config, name: str) -> Arrays:
    """KL and log p_k in the plane at the levels, (level, pixels, pixels), rows from the bottom."""
    law = TARGETS[name]()
    half = 3 + float(np.abs(law.means).max())
    u = half * ((2 * np.arange(config.pixels) + 1) / config.pixels - 1)
    x = np.stack(np.meshgrid(u, u), axis=-1).reshape(-1, 2)
    kl, density = [], []
    for level in config.plane_levels:
        oracle, k = one_step(law, level, config.plane_beta)
        kl.append(reverse.kernels(oracle, x, k - 1, k).non_gaussianity(0.8))
        density.append(oracle.at(k).log_prob(x))
    shape = (-1, config.pixels, config.pixels)
    return {
        "kl": np.reshape(kl, shape), "log density": np.reshape(density, shape),
        "half": np.array(half),
    }  # fmt: skip


def steps_of(config: Config, name: str) -> tuple[int, ...]:
    """The K of a target's chains."""
    return config.steps if TARGETS[name]().dim == 1 else config.plane_steps


def all_steps(config: Config) -> list[int]:
    """The K of all chains, the longest, which take longest, first."""
    return sorted({*config.steps, *config.plane_steps}, reverse=True)


def level_cell(config: Config, run: Run, target: str, level: float) -> Arrays:
    """`against_beta` as a cell of a sweep.  Nothing is drawn from the run."""
    return against_beta(config, target, level)


def chain_cell(config: Config, run: Run, target: str, schedule: str, steps: int) -> Arrays:
    """`over_chain` as one, with NaN after the last step of all but the longest chains."""
    found, room = over_chain(config, target, schedule, steps), all_steps(config)[0] - steps
    for key in ("cost", "leading"):
        found[key] = np.pad(found[key], ((0, 0), (0, room)), constant_values=math.nan)
    return found


def rows_of(columns: Arrays, axes: tuple[str, ...]) -> Iterator[tuple[list[Any], Arrays]]:
    """The values of the axes and those of the function, cell by cell."""
    for i, at in enumerate(zip(*(columns[axis].tolist() for axis in axes))):
        yield list(at), {key: value[i] for key, value in columns.items() if key not in axes}


def compute(config: Config, run: Run) -> Arrays:
    """Sweeps over targets and levels, and over chains; each picture is a cell."""
    arrays: Arrays = {}

    def keep(name: str, found: Arrays) -> None:
        arrays.update({f"{name} {key}": value for key, value in found.items()})

    def wanted(cell: dict[str, Any]) -> bool:
        return cell["steps"] in steps_of(config, cell["target"])

    target = {"target": config.targets}
    axes: dict[str, Any] = target | {"level": config.levels}
    levels = run.sweep("levels", level_cell, axes, config)
    for (name, level), found in rows_of(levels, tuple(axes)):
        keep(f"{name} {level:g}", found)
    axes = target | {"schedule": SCHEDULES, "steps": all_steps(config)}
    chains = run.sweep("chains", chain_cell, axes, config, where=wanted)
    for (name, schedule, K), found in rows_of(chains, tuple(axes)):
        steps = {key: found[key][:, :K] for key in ("cost", "leading")}
        keep(f"{name} {schedule} {K}", found | steps)
    for name in config.targets:
        draw_map = line_map if TARGETS[name]().dim == 1 else plane_map
        keep(f"{name} map", run.cell(f"{name} map", draw_map, config, name))
    keep("shown", run.cell("shown", shown_kernels, config, config.targets[0]))
    return arrays


# ---------------------------------------------------------------- powers


def power(u: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """(p, its error, a) of y = a u^p (1 + O(u)) for u -> 0.

    log y is fitted by log a + p log u + b u + c u^2; the error is how far p moves by the last term,
    and the standard error of the fit's residuals.
    """
    terms = np.stack([np.ones_like(u), np.log(u), u / u.max(), (u / u.max()) ** 2], axis=1)
    plain = np.linalg.lstsq(terms[:, :3], np.log(y), rcond=None)[0]
    fit = np.linalg.lstsq(terms, np.log(y), rcond=None)[0]
    off, spare = np.log(y) - terms @ fit, len(u) - 4
    spread = 0.0
    if spare:
        spread = math.sqrt(float(off @ off) / spare * np.linalg.inv(terms.T @ terms)[1, 1])
    return float(fit[1]), abs(float(fit[1] - plain[1])) + spread, math.exp(fit[0])


def small_enough(betas: np.ndarray, kl: np.ndarray) -> float:
    """The beta at which KL comes to `SMALL`, by interpolation of logarithms; inf if never."""
    over = np.flatnonzero(kl > SMALL)
    if len(over) == 0:
        return math.inf
    i = int(over[0])
    if i == 0:
        return float(betas[0])
    two = slice(i - 1, i + 1)
    return math.exp(np.interp(math.log(SMALL), np.log(kl[two]), np.log(betas[two])))


# ---------------------------------------------------------------- tables


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Measured powers of beta and leading coefficients beside theory."""
    rows = []
    for name in config.targets:
        for level in config.levels:
            betas = betas_of(config, level)
            for kind, kl, leading in zip(
                GAUSSIANS, arrays[f"{name} {level:g} cost"], arrays[f"{name} {level:g} leading"]
            ):
                few = slice(config.fitted)
                found, error, coefficient = power(betas[few], kl[few])
                rows.append({
                    "target": name, "noise level": level, "Gaussian": kind,
                    "power of beta": found, "its error": error, "theory": POWERS[kind],
                    "coefficient": coefficient, "coefficient, theory": leading,
                    "relative difference": coefficient / leading - 1,
                    f"beta where E KL = {SMALL:g}": small_enough(betas, kl),
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {
        "power of beta": 8, "its error": 2, "coefficient": 6, "coefficient, theory": 6,
        "relative difference": 2, f"beta where E KL = {SMALL:g}": 3,
    }  # fmt: skip
    return frame


def beta_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """E KL for every target, noise level and beta_k; column beta is the KL with that variance."""
    rows = []
    for name in config.targets:
        for level in config.levels:
            for beta, kl in zip(betas_of(config, level), arrays[f"{name} {level:g} cost"].T):
                row: dict[str, Any] = {"target": name, "noise level": level, "beta_k": beta}
                rows.append(row | dict(zip(GAUSSIANS, kl)))
    return pd.DataFrame(rows)


def totals(arrays: Arrays, name: str, schedule: str, K: int) -> np.ndarray:
    """The sum over the steps for each Gaussian, (4,)."""
    return arrays[f"{name} {schedule} {K} cost"].sum(axis=1)


def totals_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What whole chains pay, beside the gap of the bound."""
    rows = []
    for name in config.targets:
        dim = TARGETS[name]().dim
        for schedule in SCHEDULES:
            for K in steps_of(config, name):
                key = f"{name} {schedule} {K}"
                found, prior = totals(arrays, name, schedule, K), float(arrays[f"{key} prior"])
                lead, gaps = arrays[f"{key} leading"].sum(axis=1), arrays[f"{key} bounds"]
                row: dict[str, Any] = {"target": name, "schedule": schedule, "K": K}
                row |= {"prior": prior} | dict(zip(GAUSSIANS, found))
                row |= {f"{kind}/leading": f / v for kind, f, v in zip(GAUSSIANS, found, lead)}
                row["btilde - its limit"] = found[3] - dim * FLOOR
                for i, kind in ((2, "beta"), (3, "btilde")):
                    row[f"bound - entropy, {kind}"] = gaps[i - 2]
                    row[f"difference, {kind}"] = prior + found[i] - gaps[i - 2]
                rows.append(row)
    return pd.DataFrame(rows)


def chain_powers(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Powers of 1/K in the totals of the longest chains."""
    rows = []
    for name in config.targets:
        for schedule in SCHEDULES:
            steps = np.array(steps_of(config, name)[-5:], float)
            found = np.array([totals(arrays, name, schedule, int(K)) for K in steps])
            for i, kind in enumerate(GAUSSIANS[:3]):
                value, error, _ = power(1 / steps, found[:, i])
                last = np.log(found[-2, i] / found[-1, i]) / np.log(steps[-1] / steps[-2])
                rows.append({
                    "target": name, "schedule": schedule, "Gaussian": kind,
                    "power of 1/K": value, "its error": error, "between the last two K": last,
                    "theory": POWERS[kind] - 1,
                })  # fmt: skip
    return pd.DataFrame(rows)


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Powers of beta; E KL; totals of chains; their powers."""
    return {
        "": main_table(config, arrays), "beta": beta_table(config, arrays),
        "totals": totals_table(config, arrays), "powers": chain_powers(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


LOOK = {
    "best": (plots.COLORS[0], "o", "best Gaussian"),
    "optimal": (plots.COLORS[1], "s", "one variance, the optimal"),
    "beta": (plots.COLORS[2], "^", "$s^2 = \\beta$"),
    "btilde": (plots.COLORS[4], "v", "$s^2 = \\tilde\\beta$"),
}
TITLES = {"bimodal": "two modes", "comb": "three narrow modes", "trimodal": "three modes, plane"}


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Kernels with their best Gaussians; E KL against beta at one level."""
    fig, axes = plots.figure(2, 3, height=6.2)
    for ax, beta, (y, kernel, normal), facts in zip(
        axes[0], config.shown, arrays["shown densities"], arrays["shown facts"]
    ):
        ax.plot(y, kernel, color="black", label="exact kernel")
        ax.plot(y, normal, "--", color=LOOK["best"][0], label="best Gaussian")
        ax.set_title(f"$\\beta = {beta:g}$: KL {facts[2]:.2g} nats", fontsize=10)
        mean, std = facts[:2]
        ax.set(xlabel="$x_{k-1}$", xlim=(mean - 4 * std, mean + 4 * std), ylim=(0, None))
    axes[0, 0].set_ylabel(f"density given $x_k = {arrays['shown x'][0]:.2f}$")
    for ax in axes[1, len(config.targets) :]:
        ax.set_axis_off()
    for ax, name in zip(axes[1], config.targets):
        betas, key = betas_of(config, config.level), f"{name} {config.level:g}"
        for kind, kl, leading in zip(GAUSSIANS, arrays[f"{key} cost"], arrays[f"{key} leading"]):
            color, marker, label = LOOK[kind]
            few = slice(config.fitted)
            found = power(betas[few], kl[few])[0]
            ax.plot(betas, kl, marker, ms=3, color=color, label=label)
            ax.plot(betas, leading * betas ** POWERS[kind], color=color, lw=1.0)
            if kind in ("best", "optimal"):
                ax.annotate(
                    f"$\\beta^{{{found:.4f}}}$", (betas[1], kl[1]),
                    (10, -9) if kind == "best" else (-12, 32), textcoords="offset points",
                    color=color, fontsize=10,
                )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="$\\beta$", title=TITLES[name])
    axes[1, 0].set_ylabel("E KL / nats")
    plots.legend_below(fig, axes[0, 0], axes[1, 0], columns=6)
    fig.suptitle(
        f"The exact reverse kernel of {TITLES[config.targets[0]]} and four Gaussians with its mean,"
        f" noise level {config.level:g}\n(points: quadrature; lines: leading terms for small"
        " $\\beta$)",
        fontsize=10,
    )
    return fig


def draw_levels(config: Config, arrays: Arrays) -> Figure:
    """E KL against beta at every noise level, best and optimal."""
    fig, axes = plots.figure(1, len(config.targets), height=4.2)
    for ax, name in zip(axes[0], config.targets):
        for level, color in zip(config.levels, plots.COLORS):
            betas, key = betas_of(config, level), f"{name} {level:g}"
            kl = arrays[f"{key} cost"]
            ax.plot(betas, kl[0], "-", color=color, label=f"var = {level:g}")
            ax.plot(betas, kl[1], ":", color=color)
            ax.plot(betas[-1:], kl[0, -1:], "o", ms=4, color=color)
        ax.axhline(SMALL, color="0.4", lw=0.8, ls="--", label=f"{SMALL:g} nats")
        ax.set(xscale="log", yscale="log", xlabel="$\\beta$", title=TITLES[name])
        ax.set_ylim(1e-16, 10)
    axes[0, 0].set_ylabel("E KL / nats")
    axes[0, 0].plot([], [], "k-", label="best Gaussian")
    axes[0, 0].plot([], [], "k:", label="one variance, the optimal")
    plots.legend_below(fig, axes[0, 0], columns=4)
    fig.suptitle(
        "How small $\\beta$ has to be depends on the noise level (dots: one step from the data)",
        fontsize=11,
    )
    return fig


def draw_maps(config: Config, arrays: Arrays) -> Figure:
    """KL over (x_k, k) for D = 1."""
    names = [name for name in config.targets if TARGETS[name]().dim == 1]
    fig, axes = plots.figure(1, len(names), height=4.4)
    for ax, name in zip(axes[0], names):
        x, kl = arrays[f"{name} map x"], arrays[f"{name} map kl"]
        log_density = arrays[f"{name} map log density"]
        half = 0.5 * (x[1] - x[0])
        box = (0.5, config.map_steps + 0.5, x[0] - half, x[-1] + half)
        image = ax.imshow(
            np.log10(np.maximum(kl, 1e-12)).T, extent=box, aspect="auto", cmap="magma", vmin=-10,
            vmax=0,
        )  # fmt: skip
        below = log_density - log_density.max(axis=1)[:, None]
        ax.contour(
            np.arange(1, config.map_steps + 1), x, below.T,
            levels=[-8.0, -2.0], colors="white", linewidths=0.9, linestyles=["dotted", "solid"],
        )  # fmt: skip
        ax.grid(False)
        ax.set(xlabel="step $k$", title=TITLES[name])
    axes[0, 0].set_ylabel("$x_k$")
    fig.colorbar(image, ax=axes[0].tolist(), label="$\\log_{10}$ KL / nats", extend="both")
    fig.suptitle(
        f"Where kernels are not Gaussian: KL from the best Gaussian, cosine chain of"
        f" {config.map_steps} steps\n(white: $p_k$ at $e^{{-2}}$ and, dotted, $e^{{-8}}$ of its"
        " maximum)",
        fontsize=10,
    )
    return fig


def draw_plane(config: Config, arrays: Arrays, name: str) -> Figure:
    """KL over x_k in the plane at some noise levels."""
    fig, axes = plots.figure(1, len(config.plane_levels), height=3.2, share=True)
    half = float(arrays[f"{name} map half"])
    box = (-half, half, -half, half)
    for ax, level, kl, log_density in zip(
        axes[0], config.plane_levels, arrays[f"{name} map kl"], arrays[f"{name} map log density"]
    ):
        image = ax.imshow(
            np.log10(np.maximum(kl, 1e-16)), extent=box, cmap="magma", vmin=-10, vmax=-1
        )
        ax.contour(
            log_density - log_density.max(), levels=[-8.0, -2.0], colors="white", linewidths=0.9,
            linestyles=["dotted", "solid"], extent=box,
        )  # fmt: skip
        ax.grid(False)
        ax.set(title=f"var = {level:g}", xlabel="$x_1$", aspect="equal")
    axes[0, 0].set_ylabel("$x_2$")
    fig.colorbar(
        image, ax=axes[0].tolist(), label="$\\log_{10}$ KL / nats", extend="both", shrink=0.8
    )
    fig.suptitle(
        f"KL from the best Gaussian, $\\beta = {config.plane_beta:g}$ (white: $p_k$ at"
        " $e^{-2}$ and, dotted, $e^{-8}$ of its maximum)",
        fontsize=10,
    )
    return fig


def draw_totals(config: Config, arrays: Arrays) -> Figure:
    """Totals of chains against K."""
    fig, axes = plots.figure(len(SCHEDULES), len(config.targets), height=6.2)
    for (i, j), ax in np.ndenumerate(axes):
        name, schedule = config.targets[j], SCHEDULES[i]
        steps = steps_of(config, name)
        found = np.array([totals(arrays, name, schedule, K) for K in steps])
        prior = [float(arrays[f"{name} {schedule} {K} prior"]) for K in steps]
        lead = [arrays[f"{name} {schedule} {K} leading"].sum(axis=1) for K in steps]
        for kind, kl in zip(GAUSSIANS, found.T):
            color, marker, label = LOOK[kind]
            ax.plot(steps, kl, marker + "-", color=color, ms=4, lw=1.2, label=label)
        for kind, value in zip(GAUSSIANS, np.array(lead).T):
            ax.plot(steps, value, "--", color=LOOK[kind][0], lw=0.9)
        ax.plot(steps, prior, color="0.6", lw=1.0, label="prior")
        limit = TARGETS[name]().dim * FLOOR
        ax.axhline(limit, color=LOOK["btilde"][0], lw=0.9, ls=":", label="limit of $\\tilde\\beta$")
        ax.set(xscale="log", yscale="log", ylim=(1e-6, 20))
        ax.set_xticks(steps, list(map(str, steps)))
        ax.set_xticks([], minor=True)
        ax.set_title(f"{TITLES[name]}, {schedule}", fontsize=10)
    for ax in axes[-1]:
        ax.set_xlabel("steps $K$")
    for ax in axes[:, 0]:
        ax.set_ylabel("sum over the chain / nats")
    plots.legend_below(fig, axes[0, 0], columns=6)
    fig.suptitle(
        "What a chain of Gaussian steps costs (dashed: the leading terms in $\\beta_k$)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Kernels and E KL; noise levels; maps on the line and in the plane; totals."""
    planes = [name for name in config.targets if TARGETS[name]().dim == 2]
    return {
        "": draw_main(config, arrays),
        "levels": draw_levels(config, arrays),
        "map": draw_maps(config, arrays),
        **{f"map_{name}": draw_plane(config, arrays, name) for name in planes},
        "totals": draw_totals(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "How far from Gaussian is the reverse step, and what do Gaussian steps cost a whole chain?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
