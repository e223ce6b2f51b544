"""Do a swiss roll and an S-curve that were carried to noise come back with the exact score?

Forward: X_k = sqrt(1 - beta_k) X_(k-1) + sqrt(beta_k) Z_k from true points.  Back: from N(0, var(K)
I), not from where the forward paths ended, by ancestral sampling with sigma^2 = btilde (Ho et al.
2020, algorithm 2) and by DDIM with eta = 0 (Song, Meng and Ermon 2021, eq. 12), both with the exact
E[X_0 | X_k] of the target.  At each time that is shown the points are measured against the exact
law of X_k:

    sliced W2, MMD^2, energy distance      with their floors, the same for true points
    log-density gap = E log p_k(x) + H(p_k)    in nats, 0 for true points

The gap is the sharpest of them: a cloud that is too thin across the curve has a positive gap.  What
is left of a perfect sampler has three causes, each given as a number: the start N(0, var(K) I) is
not p_K (KL divergence, table "exact"); the last step adds no noise and so leaves out E tr Cov[X_0 |
X_1] of the variance (same table); K is finite (table "steps", which runs shorter chains: betas of
Ho et al. times 1000/K, whose var(1) is large beside the width of these curves, and the chain of
this study, whose steps are even in the log-SNR).

The chain is the variance-preserving process of Song et al. 2021 looked at on a grid of times that
is even in log-SNR.  The pictures are those of figures 8, 9 and 15 of the survey of diffusion models
that the project started from, with the exact log-density as their background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import VP, Chain, GaussianMixture, Oracle, gallery, metrics, plots, samplers
from diffscience.divergences import kl_on_grid
from diffscience.errors import ArgumentError
from diffscience.estimates import Estimate
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from PIL.Image import Image

DIRECTIONS = ("forward", "ancestral", "ddim")
METRICS = ("sliced W2", "MMD^2", "energy distance", "log-density gap")
SCHEDULES = ("even log-SNR", "linear betas")


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : names in `gallery.ALL`, all of dimension 2.
    particles : points of each path.
    steps : K of the chain.
    log_snr : log-SNR of X_1 and of X_K.
    shown : decreasing log-SNRs of the panels between data and noise; the first is in the main
        figure.
    film : (first log-SNR, last log-SNR) of the animation, beside data and noise themselves.
    frames : frames in each direction.
    half, pixels : half the side of the window, and pixels along a side.
    arrows : score arrows along a side.
    repeats, most : fresh true samples behind a floor, points that a kernel metric looks at.
    fewer : K of the shorter chains.
    """

    targets: tuple[str, ...] = ("swiss_roll", "s_curve")
    particles: int = 4000
    steps: int = 600
    log_snr: tuple[float, float] = (12.0, -9.0)
    shown: tuple[float, ...] = (4.0, 2.0, 0.0)
    film: tuple[float, float] = (6.0, -4.0)
    frames: int = 30
    half: float = 2.8
    pixels: int = 128
    arrows: int = 11
    repeats: int = 12
    most: int = 1000
    fewer: tuple[int, ...] = (50, 100, 200)
    seed: int = 1

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in gallery.ALL or gallery.ALL[name]().dim != 2:
                raise ArgumentError("targets", "name targets of dimension 2 in the gallery", name)
        levels = np.array([self.log_snr[0], *self.shown, self.log_snr[1]])
        if not self.shown or np.any(np.diff(levels) >= 0):
            raise ArgumentError("shown", "decrease inside the chain's log-SNRs", self.shown)
        if self.frames < 3:
            raise ArgumentError("frames", "be at least 3", self.frames)


def even_chain(steps: int, first: float, last: float) -> Chain:
    """`VP()` at time 0 and at `steps` times whose log-SNRs are even from `first` to `last`."""
    levels = VP().time_of_log_snr(np.linspace(first, last, steps))
    return Chain.of(VP(), np.concatenate([[0.0], levels]))


def chain_of(config: Config, schedule: str, steps: int) -> Chain:
    """The chain of K = `steps` of one of `SCHEDULES`."""
    if schedule == "linear betas":
        return Chain.linear(steps, 0.1 / steps, 20.0 / steps)
    return even_chain(steps, *config.log_snr)


def times_of(config: Config, chain: Chain) -> tuple[np.ndarray, np.ndarray]:
    """(the k that are kept, in increasing order; the places among them of those in the panels)."""
    shown = [0.0, *chain.time_of_log_snr(np.array(config.shown)), chain.T]
    film = chain.time_of_log_snr(np.linspace(*config.film, config.frames - 2))
    kept = np.unique(np.concatenate([shown, film]))
    return kept, np.searchsorted(kept, shown)


def film_of(config: Config, chain: Chain) -> np.ndarray:
    """The k of the animation's frames, in increasing order."""
    film = chain.time_of_log_snr(np.linspace(*config.film, config.frames - 2))
    return np.unique(np.concatenate([[0.0], film, [chain.T]]))


# Computing --------------------------------------------------------------------------------------


def travel(
    oracle: Oracle, direction: str, particles: int, kept: np.ndarray, generator: Any
) -> dict[str, np.ndarray]:
    """The states (T, n, 2) of a path at the k in `kept`, in the order of increasing k."""
    chain = oracle.process
    states: Any
    if direction == "forward":
        x = oracle.law.sample(particles, generator)
        states = samplers.forward(chain, x, range(round(chain.T) + 1), generator)
    else:
        x = samplers.prior(chain, particles, 2, generator)
        down = range(round(chain.T), -1, -1)
        if direction == "ancestral":
            states = samplers.ancestral(oracle, x, down, generator)
        else:
            states = samplers.ddim(oracle, x, down)
    wanted = set(kept.tolist())
    found = {t: x for t, x in states if t in wanted}
    return {"states": np.stack([found[t] for t in kept.tolist()])}


def exact(
    config: Config, oracle: Oracle, kept: np.ndarray, shown: np.ndarray, generator: Any
) -> dict[str, Any]:
    """Everything about the exact laws: pictures of them, entropies, and what a start is off by."""
    chain = oracle.process
    window = centres(config.half, config.pixels)
    arrows = centres(config.half, config.arrows)
    log_density = np.stack([oracle.log_prob(window, k) for k in kept])
    score = np.stack([oracle.score(arrows, k) for k in kept[shown]])
    moments = [log_moments(oracle.at(k)) for k in kept[shown]]
    prior = GaussianMixture([1.0], np.zeros((1, 2)), np.full((1, 2), chain.var(chain.T)))
    first = chain.at(1).apply(oracle.law.sample(1000, generator), generator.normal(size=(1000, 2)))
    lost = np.trace(oracle.posterior_cov(first, 1.0), axis1=1, axis2=2)
    return {
        "log_density": log_density.astype(np.float32),
        "score": score.astype(np.float32),
        "entropy": np.array([-mean for mean, _ in moments]),
        "log_variance": np.array([variance for _, variance in moments]),
        "prior_kl": kl_on_grid(prior.log_prob, oracle.at(chain.T)).value,
        "lost": lost.mean(),
        "variance": np.trace(oracle.law.cov),
    }


def centres(half: float, n: int) -> np.ndarray:
    """Centres of n x n pixels of the window [-half, half]^2, (n, n, 2), rows from the bottom."""
    steps = half * ((2 * np.arange(n) + 1) / n - 1)
    return np.stack(np.meshgrid(steps, steps), axis=-1)


def log_moments(law: Any) -> tuple[float, float]:
    """Mean and variance of log p(X) under the law itself."""
    x, weights = law.quadrature()
    # Points so far out that they add less than rounding does are the slowest ones to evaluate.
    near = weights > 1e-20 * weights.max()
    x, weights = x[near], weights[near]
    log_prob = law.log_prob(x)
    mean = float(weights @ log_prob)
    return mean, float(weights @ (log_prob - mean) ** 2)


def gap(law: Any, x: np.ndarray, entropy: float, variance: float) -> Estimate:
    """E log p(x) + H(p) in nats over points x (n, 2), where `variance` is that of log p(X)."""
    log_prob = law.log_prob(np.asarray(x, np.float64))
    error = np.std(log_prob, ddof=1) / np.sqrt(len(x))
    floor_error = np.sqrt(variance / len(x))
    return Estimate(np.mean(log_prob) + entropy, error, 0.0, floor_error, len(x))


def measure(
    config: Config, law: Any, x: np.ndarray, entropy: float, variance: float, generator: Any
) -> np.ndarray:
    """(metric, (value, error, floor, error of the floor)) of points against a law."""
    some, repeats = {"repeats": config.repeats, "most": config.most}, config.repeats
    found = (
        metrics.sliced_wasserstein(x, law, generator, repeats=repeats),
        metrics.mmd(x, law, generator, **some),
        metrics.energy_distance(x, law, generator, **some),
        gap(law, x, entropy, variance),
    )
    return np.array([[e.value, e.error, e.floor, e.floor_error] for e in found])


def measured(
    config: Config, oracle: Oracle, states: np.ndarray, at: np.ndarray, known: Any, generator: Any
) -> dict[str, np.ndarray]:
    """`measure` at each k in `at`, with the exact entropies and variances `known`."""
    rows = [
        measure(config, oracle.at(k), x, entropy, variance, generator)
        for k, x, (entropy, variance) in zip(at, states, known, strict=True)
    ]
    return {"estimates": np.stack(rows)}


def short(
    config: Config, law: Any, schedule: str, steps: int, known: Any, generator: Any
) -> dict[str, np.ndarray]:
    """The gap at the end of an ancestral run on a shorter chain, an estimate, and var(1)."""
    oracle = Oracle(law, chain_of(config, schedule, steps))
    x = travel(oracle, "ancestral", config.particles, np.array([0.0]), generator)["states"][0]
    e = gap(law, x, *known)
    return {"gap": np.array([e.value, e.error, e.floor, e.floor_error, oracle.process.var(1.0)])}


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Paths, exact laws, metrics and shorter chains of every target."""
    chain = even_chain(config.steps, *config.log_snr)
    kept, shown = times_of(config, chain)
    arrays: dict[str, Any] = {
        "kept": kept,
        "shown": shown,
        "film": np.searchsorted(kept, film_of(config, chain)),
        "alpha": chain.alpha(kept),
        "first": chain.var(1.0),
        "var": np.abs(chain.var(kept)),  # no minus before the 0 at k = 0
    }
    oracles = {name: Oracle(gallery.ALL[name](), chain) for name in config.targets}
    jobs = [(name, way) for name in oracles for way in ("exact", *DIRECTIONS)]
    for name, way in run.progress(jobs, "paths"):
        oracle, own = oracles[name], run.generator(name, way)
        if way == "exact":
            facts = run.cell(f"{name} exact", exact, config, oracle, kept, shown, own)
            arrays |= {f"{name} {key}": value for key, value in facts.items()}
            known = np.stack([facts["entropy"], facts["log_variance"]], axis=1)
            continue
        n = config.particles
        states = run.cell(f"{name} {way}", travel, oracle, way, n, kept, own)["states"]
        fresh = run.generator(name, way, "metrics")
        key, at = f"{name} {way} metrics", kept[shown]
        arrays[key] = run.cell(key, measured, config, oracle, states[shown], at, known, fresh)[
            "estimates"
        ]
        arrays[f"{name} {way}"] = states.astype(np.float32)
    jobs_short = [(name, s, K) for name in oracles for s in SCHEDULES for K in config.fewer]
    for name, schedule, steps in run.progress(jobs_short, "shorter chains"):
        key = f"{name} {schedule} {steps}"
        entropy, variance = (arrays[f"{name} {fact}"][0] for fact in ("entropy", "log_variance"))
        given = (config, oracles[name].law, schedule, steps, (entropy, variance))
        arrays[key] = run.cell(key, short, *given, run.generator("short", key))["gap"]
    return arrays


# Tables -----------------------------------------------------------------------------------------


def estimate(row: np.ndarray) -> Estimate:
    """The estimate of one row (value, error, floor, error of the floor)."""
    value, error, floor, floor_error = (float(number) for number in row)
    return Estimate(value, error, floor, floor_error)


def ordered(arrays: dict[str, np.ndarray], direction: str) -> Iterable[tuple[int, int]]:
    """(place among the shown, place among the kept), in the order of travel."""
    pairs = list(enumerate(arrays["shown"].tolist()))
    return pairs if direction == "forward" else pairs[::-1]


def main_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each target, direction, shown time and metric."""
    rows = []
    for name in config.targets:
        for direction in DIRECTIONS:
            for i, place in ordered(arrays, direction):
                for j, metric in enumerate(METRICS):
                    e = estimate(arrays[f"{name} {direction} metrics"][i, j])
                    row = {"target": name, "direction": direction, "k": int(arrays["kept"][place])}
                    row |= {"sigma/alpha": noise_ratio(arrays, place), "metric": metric}
                    row |= {"value": e.value, "error": e.error, "floor": e.floor}
                    rows.append(row | {"floor error": e.floor_error, "excess": e.excess()})
    return rows


def final_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The data's own time in one line for each target and direction."""
    rows = []
    for name in config.targets:
        for direction in DIRECTIONS:
            found = [estimate(e) for e in arrays[f"{name} {direction} metrics"][0]]
            row: dict[str, Any] = {"target": name, "direction": direction}
            row |= {metric: str(e) for metric, e in zip(METRICS, found, strict=True)}
            rows.append(row | {"largest excess": max(float(e.excess()) for e in found)})
    return rows


def exact_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What the chain leaves to the samplers, for each target."""
    var, alpha = arrays["var"], arrays["alpha"]
    return [
        {
            "target": name,
            "K": config.steps,
            "alpha(K)": alpha[-1],
            "var(K)": var[-1],
            "KL(p_K, start) / nats": float(arrays[f"{name} prior_kl"]),
            "variance left out by the last step": float(arrays[f"{name} lost"]),
            "variance of the data": float(arrays[f"{name} variance"]),
            "entropy of the data / nats": arrays[f"{name} entropy"][0],
            "entropy of p_K / nats": arrays[f"{name} entropy"][-1],
        }
        for name in config.targets
    ]


def steps_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The gap at the end of ancestral runs, for each target, schedule and K."""
    rows = []
    for name in config.targets:
        for schedule in SCHEDULES:
            for steps, row in gaps(config, arrays, name, schedule):
                e = estimate(row[:4])
                rows.append(
                    {"target": name, "schedule": schedule, "K": steps, "var(1)": row[4]}
                    | {"log-density gap": e.value, "error": e.error, "excess": e.excess()}
                )
    return rows


def gaps(
    config: Config, arrays: dict[str, np.ndarray], name: str, schedule: str
) -> list[tuple[int, np.ndarray]]:
    """(K, (estimate of the gap, var(1))) of a schedule, the study's own K last of the even ones."""
    found = [(K, arrays[f"{name} {schedule} {K}"]) for K in config.fewer]
    if schedule == SCHEDULES[0]:
        own = arrays[f"{name} ancestral metrics"][0, -1]
        found.append((config.steps, np.append(own, arrays["first"])))
    return found


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """All times; the end; what the chain leaves; shorter chains."""
    import pandas as pd

    return {
        "": pd.DataFrame(main_table(config, arrays)),
        "final": pd.DataFrame(final_table(config, arrays)),
        "exact": pd.DataFrame(exact_table(config, arrays)),
        "steps": pd.DataFrame(steps_table(config, arrays)),
    }


# Figures ----------------------------------------------------------------------------------------

DRAWN = 1200  # points in a panel; more would hide the background
LABELS = {"forward": "forward", "ancestral": "reverse, ancestral", "ddim": "reverse, DDIM"}
TITLES = {"swiss_roll": "Swiss roll", "s_curve": "S-curve"}


def title(name: str) -> str:
    """The name of a target in words."""
    return TITLES.get(name, name.replace("_", " "))


def panel(
    ax: Axes, config: Config, arrays: dict[str, np.ndarray], name: str, way: str, place: int
) -> Any:
    """Points of a path over the exact log-density of their time; the background's image."""
    h = config.half
    image = plots.background(ax, arrays[f"{name} log_density"][place], (-h, h, -h, h))
    x = arrays[f"{name} {way}"][place, :DRAWN]
    ax.scatter(x[:, 0], x[:, 1], s=1.1, c="black", linewidths=0, alpha=0.75, rasterized=True)
    ax.set(xlim=(-h, h), ylim=(-h, h), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
    return image


def when(arrays: dict[str, np.ndarray], place: int) -> str:
    """The time of a panel: k and the noise beside the signal."""
    k, ratio = int(arrays["kept"][place]), noise_ratio(arrays, place)
    if k == 0:
        return "$k = 0$, data"
    return f"$k = {k}$\n$\\sigma/\\alpha = {ratio:.3g}$" if ratio < 10 else f"$k = K = {k}$, noise"


def noise_ratio(arrays: dict[str, np.ndarray], place: int) -> float:
    """sigma / alpha at a kept time."""
    return float(np.sqrt(arrays["var"][place]) / arrays["alpha"][place])


def largest_excess(arrays: dict[str, np.ndarray], name: str, way: str) -> float:
    """The largest excess of all metrics at the end of a path, in standard errors."""
    return max(float(estimate(row).excess()) for row in arrays[f"{name} {way} metrics"][0])


def scale_bar(fig: Figure, image: Any, axes: np.ndarray) -> None:
    """One colour bar for all panels."""
    bar = fig.colorbar(
        image, ax=axes, orientation="horizontal", shrink=0.6, pad=0.02, aspect=45,
        ticks=(-12, -9, -6, -3, 0),
    )  # fmt: skip
    bar.set_label("background: exact log-density minus its maximum / nats")


def panels(config: Config, arrays: dict[str, np.ndarray], name: str) -> Figure:
    """Forward on top, the two ways back below, a column for each time."""
    shown = arrays["shown"]
    fig, axes = plots.figure(len(DIRECTIONS), len(shown), height=6.4, share=True)
    for row, way in zip(axes, DIRECTIONS, strict=True):
        for ax, place in zip(row, shown.tolist(), strict=True):
            image = panel(ax, config, arrays, name, way, place)
        arrow = "→" if way == "forward" else "←"
        row[0].set_ylabel(f"{LABELS[way]} {arrow}")
    for ax, place in zip(axes[0], shown.tolist(), strict=True):
        ax.set_title(when(arrays, place), fontsize=10)
    scale_bar(fig, image, axes)
    n, drawn = config.particles, min(DRAWN, config.particles)
    ends = ", ".join(
        f"{LABELS[way].partition(', ')[2]} {largest_excess(arrays, name, way):+.1f}"
        for way in DIRECTIONS[1:]
    )
    fig.suptitle(
        f"{title(name)} with the exact score: {n} points ({drawn} drawn), K = {config.steps}\n"
        f"at the end, largest excess over the floor in standard errors: {ends}",
        fontsize=11,
    )
    return fig


def there_and_back(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Data, noise and data again in a row for each target, with arrows of the exact score."""
    shown = arrays["shown"]
    stops = [("forward", i) for i in (0, 1, len(shown) - 1)]
    stops += [("ancestral", i) for i in (1, 0)]
    fig, axes = plots.figure(len(config.targets), len(stops), height=4.45, share=True)
    arrows = centres(config.half, config.arrows)
    for row, name in zip(axes, config.targets, strict=True):
        for ax, (way, i) in zip(row, stops, strict=True):
            image = panel(ax, config, arrays, name, way, int(shown[i]))
            score = arrays[f"{name} score"][i].astype(np.float64)
            unit = score / np.linalg.norm(score, axis=-1, keepdims=True)
            ax.quiver(
                arrows[..., 0], arrows[..., 1], unit[..., 0], unit[..., 1],
                color="white", alpha=0.8, scale=21, width=0.008, headwidth=4, zorder=1,
            )  # fmt: skip
        row[0].set_ylabel(title(name))
    for ax, (way, i) in zip(axes[0], stops, strict=True):
        out = way == "forward"
        ends = {0: "data" if out else "→ back again", len(shown) - 1: "→ noise"}
        ratio = noise_ratio(arrays, int(shown[i]))
        ax.set_title(ends.get(i, f"→ $\\sigma/\\alpha = {ratio:.2g}$"), fontsize=10)
    scale_bar(fig, image, axes)
    n = config.particles
    fig.suptitle(
        f"To noise and back with the exact score ({n} points, K = {config.steps} steps; "
        "arrows: direction of the score)",
        fontsize=11,
    )
    return fig


def against_the_floor(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Every metric at every shown time, with error bars, over the spread of true samples."""
    shown = arrays["shown"]
    x = np.arange(len(shown))
    fig, axes = plots.figure(len(METRICS), len(config.targets), height=8.4)
    for column, name in zip(axes.T, config.targets, strict=True):
        for j, (ax, metric) in enumerate(zip(column, METRICS, strict=True)):
            for offset, way, color in zip((-0.2, 0.0, 0.2), DIRECTIONS, plots.COLORS, strict=False):
                value, error, floor, spread = arrays[f"{name} {way} metrics"][:, j].T
                ax.bar(
                    x + offset, 2 * spread, 0.16, floor - spread, color="0.85",
                    label="true samples, mean ± one standard deviation" if way == "ddim" else None,
                )  # fmt: skip
                ax.errorbar(
                    x + offset, value, error, fmt="o", color=color, markersize=3.5, capsize=2,
                    elinewidth=1.2, label=LABELS[way],
                )  # fmt: skip
            ax.set_xticks(x, [f"{int(k)}" for k in arrays["kept"][shown]])
            ax.ticklabel_format(axis="y", scilimits=(-3, 3))
            ax.set_ylabel(metric.replace("^2", "²").replace("gap", "gap / nats"))
        column[0].set_title(title(name))
        column[-1].set_xlabel("step k (0: data, K: noise)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    last = [i for i, label in enumerate(labels) if label.startswith("true")]
    order = [i for i in range(len(labels)) if i not in last] + last
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    fig.legend(handles, labels, loc="outside lower center", ncols=4)
    fig.suptitle(f"Distance to the exact law of $X_k$ ({config.particles} points)", fontsize=11)
    return fig


def by_steps(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The log-density gap after K steps."""
    fig, axes = plots.figure(1, len(config.targets), height=3.4)
    for ax, name in zip(axes[0], config.targets, strict=True):
        for schedule, color in zip(SCHEDULES, plots.COLORS, strict=False):
            found = gaps(config, arrays, name, schedule)
            value, error = np.array([row[:2] for _, row in found]).T
            steps = [K for K, _ in found]
            ax.errorbar(steps, value, error, fmt="o-", color=color, capsize=2, label=schedule)
        ax.axhline(0.0, color="black", linewidth=0.8)
        ax.set_xscale("log")
        ticks = sorted({*config.fewer, config.steps})
        ax.set_xticks(ticks, [str(K) for K in ticks])
        ax.minorticks_off()
        ax.set(title=title(name), xlabel="steps K", ylabel="log-density gap / nats")
    axes[0, 0].legend()
    fig.suptitle("Ancestral sampling with the exact score: what finitely many steps cost")
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """There and back; all times of each target; metrics; shorter chains."""
    return {
        "": there_and_back(config, arrays),
        **{name: panels(config, arrays, name) for name in config.targets},
        "metrics": against_the_floor(config, arrays),
        "steps": by_steps(config, arrays),
    }


# Animation --------------------------------------------------------------------------------------


def frames(config: Config, arrays: dict[str, np.ndarray], name: str) -> list[Image]:
    """Forward to the noise, then back by ancestral sampling."""
    from matplotlib.figure import Figure

    film = arrays["film"].tolist()
    fig = Figure(figsize=(4.2, 4.4))
    ax = fig.subplots()
    image = panel(ax, config, arrays, name, "forward", film[0])
    points: Any = ax.collections[0]
    points.set_sizes([4.0])
    ax.set_title(" ")
    found = []
    for way, places in (("forward", film), ("ancestral", film[::-1])):
        for place in places:
            values = arrays[f"{name} log_density"][place].astype(np.float64)
            image.set_data(np.clip(values - values.max(), -12.0, 0.0))
            points.set_offsets(arrays[f"{name} {way}"][place, :DRAWN])
            k, ratio = int(arrays["kept"][place]), noise_ratio(arrays, place)
            noise = f"σ/α = {ratio:.2f}" if ratio < 10 else "noise"
            ax.set_title(f"{title(name)}, {LABELS[way].partition(',')[0]}: k = {k}, {noise}")
            found.append(plots.frame(fig, dpi=100))
            fig.set_layout_engine("none")  # that of the first frame serves all
    return found


def animate(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """A film of each target that rests at the data and at the noise."""
    count = len(arrays["film"])
    ms = [90.0] * (2 * count)
    ms[0] = ms[-1] = 1500.0
    ms[count - 1] = ms[count] = 500.0
    return {name: plots.gif(frames(config, arrays, name), ms) for name in config.targets}


STUDY = Study(
    Config(),
    Config(
        particles=500, steps=100, log_snr=(11.0, -8.0), shown=(4.0,), frames=5, pixels=40,
        repeats=6, most=250, fewer=(40,),
    ),
    compute,
    table,
    draw,
    "Do a swiss roll and an S-curve that were carried to noise come back with the exact score?",
    animate,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
