"""When does a diffusion model learn the law of its data, and when the data themselves?

From n points the denoising loss is least not at the true score s of the noised law p_k but at s^,
that of the noised empirical measure: p^_k = (1/n) sum_i N(alpha x_i, var I), and for any model

    train loss = least + var E_(p^_k)|s_model - s^|^2,  the least that of s^
    test loss  = least + var E_(p_k)|s_model - s|^2,    the least that of s

Run backwards, s^ ends in the n points and nowhere else (Pidstrigach 2022; Yoon et al. 2023).  What
keeps a network from it is that it cannot, or does not in its steps, come near s^ where that differs
from s.  Here both are exact and a network stands between them, for n points and width W:

    error to the truth         E_(p_k) |s_W - s|^2/E_(p_k) |s|^2
    error to the memory        E_(p^_k)|s_W - s^|^2/E_(p^_k)|s^|^2
    way to the memory          E_(p^_k)(s_W - s).(s^ - s)/E_(p^_k)|s^ - s|^2,  0 at s and 1 at s^

Where s^ leaves s: where log n = I(X_0; X_k), n points are as many as can be told apart under the
noise (the balance behind the collapse of Biroli et al. 2024).  It is no edge up to which s^ would
be right: coming from large noise, its relative error under p_k is 1/2 at some times that noise
already, with many points at more times than with few, and at the balance it is far above 1 (tables
`collapse` and `levels`).  That of s under p^_k comes to 1/2 nearer to it.  The information is that
of the law, h(X_k) - h(noise), by quadrature.

Copies.  A sample is called a copy of its nearest training point

    by ratio       where that is less than 1/3 as far as the second nearest (Yoon et al. 2023)
    by distance    where it is nearer than `near`, which some 5 % of the law are

and true samples are copies by chance: at the exact rate, the mass of the law in the region of each
point where that criterion holds.  Both regions are star-shaped about the point, with a radius in
closed form in every direction, so that the rate is a quadrature in polar coordinates; copies of a
model are worth telling where they exceed it.  Samples are the last denoised points: where data lie
nearer to each other than the least noise, s^ gives blends of them.

Times are the steps of a chain of K at even log-SNR, of the VP process.  All models of a seed see
the same noise and start from the same points of p_K.  Errors are standard errors over seeds, each
with a data set, weights, noise, starts and test points of its own; where a mean over seeds crosses
1/2, they are by the jackknife.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import ensembles, gallery, grids, metrics, nets, plots, samplers, train
from diffscience.chain import Chain
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target

Arrays = dict[str, np.ndarray]

RATIO, SHARE = 1 / 3, 0.05  # of the two criteria for copies
EXACT = ("true score", "empirical score")
NODES = 16_384  # of a chance, some
LEVELLED = ("to truth", "to memory", "way", "train loss", "test loss")  # by noise level
TOP = 9.0  # the chain goes from log-SNR TOP to -TOP


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    target : name in the gallery, of a law in the plane with a density.
    points : increasing n of the data sets; widths : increasing, of three hidden layers.
    seeds : data sets, and networks of each width, for each n; those of a width train side by side.
    train_steps, batch, rate, final_rate, ema : of every training.
    steps : K of the chain; levels : steps at which scores are compared.
    draws : points x_k at each level, a multiple of every n.
    samples : of each model; floors : true samples behind the floors.
    """

    target: str = "two_moons"
    points: tuple[int, ...] = (4, 16, 128, 1024)
    widths: tuple[int, ...] = (8, 24, 64)
    seeds: int = 8
    train_steps: int = 3000
    batch: int = 128
    rate: float = 3e-3
    final_rate: float = 3e-5
    ema: float = 0.99
    steps: int = 50
    levels: tuple[int, ...] = (1, 5, 9, 13, 17, 21, 25, 29, 33, 40)
    draws: int = 1024
    samples: int = 400
    floors: int = 8
    seed: int = 7

    def __post_init__(self) -> None:
        if self.target not in gallery.ALL or self.target == "empirical":
            raise ArgumentError("target", "name a law of the gallery with a density", self.target)
        if gallery.ALL[self.target]().dim != 2:
            raise ArgumentError("target", "lie in the plane", self.target)
        for name in ("points", "widths", "levels"):
            value = np.array(getattr(self, name))
            if len(value) < 2 or value[0] < 1 or np.any(np.diff(value) <= 0):
                raise ArgumentError(name, "be two or more increasing numbers", value)
        if self.points[0] < 2 or any(self.draws % n for n in self.points):
            raise ArgumentError("points", f"be at least 2 and divide {self.draws}", self.points)
        if self.levels[-1] > self.steps:
            raise ArgumentError("levels", f"be at most {self.steps}", self.levels)
        least = {
            "seeds": 2, "train_steps": 1, "batch": 1, "steps": 3, "draws": 2, "samples": 20,
            "floors": 2,
        }  # fmt: skip
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("ema", self.ema, 0, 1, "[)")


QUICK = Config(
    target="julia_trimodal", points=(8, 64), widths=(8, 32), seeds=2, train_steps=60, batch=64,
    steps=20, levels=(1, 5, 10, 15), draws=128, samples=60, floors=2,
)  # fmt: skip


# ---------------------------------------------------------------- what all models are held against


def chain_of(config: Config) -> Chain:
    """K steps of the VP process at log-SNRs even from TOP to -TOP; step 0 is the data."""
    levels = VP().time_of_log_snr(np.linspace(TOP, -TOP, config.steps))
    return Chain.of(VP(), np.concatenate([[0.0], levels]))


def truth(config: Config) -> Oracle:
    """The exact model of the law."""
    return Oracle(gallery.ALL[config.target](), chain_of(config))


@dataclasses.dataclass(frozen=True)
class Yardstick:
    """What all models of a seed share: fresh data, noise, starts, and the answers of the truth.

    fresh : (draws, 2) true points, which no model has seen.
    noise : (levels, draws, 2).
    start : (samples, 2) points of p_K.
    eps : (levels, draws, 2), the exact E[noise | x_k] where x_k is made of fresh and noise.
    sample : (samples, 2), where the exact score takes the starts.
    """

    fresh: np.ndarray
    noise: np.ndarray
    start: np.ndarray
    eps: np.ndarray
    sample: np.ndarray


def noised(config: Config, x0: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """x_k at every level, (levels, draws, 2); the points x0 (n, 2) take turns."""
    chain, x0 = chain_of(config), np.tile(x0, (config.draws // len(x0), 1))
    return np.stack([chain.at(k).apply(x0, z) for k, z in zip(config.levels, noise)])


def predicted(config: Config, model: Model, x: np.ndarray) -> np.ndarray:
    """The model's eps at x_k of every level, (levels, n, 2)."""
    return np.stack([np.asarray(model.eps(own, float(k))) for k, own in zip(config.levels, x)])


def sampled(model: Model, start: np.ndarray) -> np.ndarray:
    """The starts at step 0, by DDIM through every step of the chain: deterministic."""
    chain: Any = model.process
    return np.asarray(samplers.last(samplers.ddim(model, start, grids.strided(chain, chain.K))))


def data_set(config: Config, run: Run, n: int, s: int) -> np.ndarray:
    """The n points of a seed, (n, 2)."""
    return truth(config).law.sample(n, run.generator("data", n, s))


def yardstick(config: Config, run: Run, s: int) -> Yardstick:
    """What all models of a seed share."""
    oracle = truth(config)
    fresh = oracle.law.sample(config.draws, run.generator("fresh", s))
    shape = (len(config.levels), config.draws, 2)
    noise = run.generator("noise", s).standard_normal(shape)
    start = oracle.at(config.steps).sample(config.samples, run.generator("start", s))
    eps = predicted(config, oracle, noised(config, fresh, noise))
    return Yardstick(fresh, noise, start, eps, sampled(oracle, start))


def information(config: Config, run: Run, k: int) -> dict[str, float]:
    """I(X_0; X_k) in nats.  Nothing is drawn from the run."""
    sigma = math.exp(-0.5 * float(chain_of(config).log_snr(k)))
    noise = math.log(2 * math.pi * math.e * sigma * sigma)
    return {"information": float(truth(config).law.blurred(sigma).entropy()) - noise}


def two_nearest(x: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances of x (m, 2) to the nearest and the second nearest of points (n, 2): (m, 2)."""
    from scipy.spatial import cKDTree

    return np.asarray(cKDTree(points).query(x, 2)[0])


def copies(x: np.ndarray, points: np.ndarray, near: float) -> np.ndarray:
    """The shares of x (m, 2) that are copies of points by ratio and by distance, (2,)."""
    first, second = two_nearest(x, points).T
    return np.array([np.mean(first < RATIO * second), np.mean(first < near)])


def near_of(law: Target, sets: Sequence[np.ndarray]) -> np.ndarray:
    """The distance within which some SHARE of the law is to a point of each set, (sets,).

    As well as the law's quadrature resolves it: the share that it holds is what `chance` says.
    """
    x, weights = law.quadrature()
    found = []
    for points in sets:
        first = two_nearest(x, points)[:, 0]
        order = np.argsort(first)
        found.append(first[order][np.searchsorted(np.cumsum(weights[order]), SHARE)])
    return np.array(found)


def chance(law: Target, points: np.ndarray, near: float) -> np.ndarray:
    """The shares of the law that are copies of points by ratio and by distance, (2,).

    Around a point, with d from it to another and u a direction, the regions reach to

        |r u| = |r u - d| RATIO,    and    min(near, r of |r u| = |r u - d|)

    Gauss's rule in r and the trapezoidal one in the angle, finer where the points are fewer.
    """
    fine = max(4, round(math.sqrt(NODES / len(points))))
    angle = 2 * math.pi * np.arange(2 * fine) / (2 * fine)
    u = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    node, weight = np.polynomial.legendre.leggauss(fine // 2)
    node, weight = 0.5 * (1 + node), 0.5 * weight
    rest, reach = 1 - RATIO**2, []
    for i, point in enumerate(points):
        d = np.delete(points, i, axis=0) - point
        along, square = RATIO * u @ d.T, np.sum(d * d, axis=1)
        ratio = RATIO / rest * (np.sqrt(along**2 + rest * square) - along)
        with np.errstate(divide="ignore"):
            edge = np.where(along > 0, 0.5 * RATIO * square / along, np.inf)
        reach.append([ratio.min(axis=1), np.minimum(near, edge.min(axis=1))])
    r = np.array(reach)[..., None] * node  # (n, 2, angles, nodes)
    density = np.exp(law.log_prob(points[:, None, None, None] + r[..., None] * u[:, None]))
    mass = (density * r) @ weight * np.array(reach) * (angle[1] - angle[0])
    return np.asarray(mass.sum(axis=(0, 2)))


# ---------------------------------------------------------------- one model


def facts(config: Config, sets: Sequence[np.ndarray], noises: Sequence[np.ndarray]) -> Arrays:
    """Exact eps at the noised data of every set (n, 2), and what is near to it.

    true, memory : of the law and of the memory, (sets, levels, draws, 2). near : (sets,).
    """
    seen = [noised(config, points, noise) for points, noise in zip(sets, noises, strict=True)]
    oracle = truth(config)
    memories = [memory_of(config, points) for points in sets]
    return {
        "true": np.stack([predicted(config, oracle, x) for x in seen]),
        "memory": np.stack([predicted(config, own, x) for own, x in zip(memories, seen)]),
        "near": near_of(oracle.law, sets),
    }


def memory_of(config: Config, points: np.ndarray) -> Oracle:
    """The exact model of the empirical measure of points (n, 2)."""
    return Oracle(gallery.empirical(points), chain_of(config))


def judged(
    config: Config,
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
    points: np.ndarray,
    about: tuple[np.ndarray, np.ndarray, float],
    at: Yardstick,
    seed: int,
) -> Arrays:
    """A model against the truth and against the memory of points (n, 2).

    answers : its eps at the noised fresh points and at the noised data, and its sample.
    about : the exact eps at the noised data, of the law and of the memory, and what is near; see
        `facts`.
    seed : of the true sample in W2.
    """
    ours, there, sample = answers
    true, memory, near = about

    def total(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray(np.sum(a * b, axis=(1, 2)))

    fresh, off, apart = ours - at.eps, there - memory, memory - true
    distance = metrics.wasserstein(sample, truth(config).law, seed, repeats=0)
    return {
        "to truth": total(fresh, fresh) / total(at.eps, at.eps),
        "to memory": total(off, off) / total(memory, memory),
        "way": total(there - true, apart) / total(apart, apart),
        "train loss": total(there - at.noise, there - at.noise) / config.draws,
        "test loss": total(ours - at.noise, ours - at.noise) / config.draws,
        "copies": copies(sample, points, near),
        "nearest": np.array(np.median(two_nearest(sample, points)[:, 0])),
        "W2": np.array(distance.value),
        "sample": sample,
    }


def answers_of(
    config: Config, model: Model, points: np.ndarray, at: Yardstick
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `judged` judges a model by."""
    fresh, seen = (noised(config, x0, at.noise) for x0 in (at.fresh, points))
    return predicted(config, model, fresh), predicted(config, model, seen), sampled(model, at.start)


def every_set(
    config: Config,
    answers: Sequence[Any],
    sets: Sequence[np.ndarray],
    about: Arrays,
    ats: Sequence[Yardstick],
    seeds: Sequence[int],
) -> Arrays:
    """`judged` for each of the data sets, (sets, ...); seeds : of the true samples in W2."""
    rows = zip(
        answers, sets, about["true"], about["memory"], about["near"], ats, seeds, strict=True
    )
    found = [
        judged(config, own, points, (true, memory, near), at, seed)
        for own, points, true, memory, near, at, seed in rows
    ]
    return {key: np.stack([one[key] for one in found]) for key in found[0]}


def one_seed(config: Config, run: Run, seed: int) -> Arrays:
    """The exact models of all data sets of a seed, and its true samples: each (points, ...).

    "true score" or "empirical score" in front of what is `judged`, "floor" of what is in `floors`.
    """
    at = yardstick(config, run, seed)
    sets = [data_set(config, run, n, seed) for n in config.points]
    ats, own = [at] * len(sets), [run.seed_for("distance", seed)] * len(sets)
    about = facts(config, sets, [at.noise] * len(sets))
    fresh, true, memory = noised(config, at.fresh, at.noise), [], []
    for points, exact, kept in zip(sets, about["true"], about["memory"]):
        empirical = memory_of(config, points)
        true.append((at.eps, exact, at.sample))
        memory.append((predicted(config, empirical, fresh), kept, sampled(empirical, at.start)))
    found = {
        f"{name} {key}": value
        for name, answers in zip(EXACT, (true, memory))
        for key, value in every_set(config, answers, sets, about, ats, own).items()
    }
    about_true = floors(config, run, seed, sets, about["near"])
    return found | {f"floor {key}": value for key, value in about_true.items()}


def trained(config: Config, width: int, sets: Sequence[np.ndarray], run: Run) -> Arrays:
    """Averaged weights of the networks of one width by name, (sets, ...).

    sets : the data sets (n, 2) of every n and, within it, of every seed.
    """
    keys = [(width, n, s) for n in config.points for s in range(config.seeds)]
    networks = [
        Network(
            nets.MLP(2, (width,) * 3, seed=run.seed_for("weights", *key)).to(run.device),
            chain_of(config),
            "v",
        )
        for key in keys
    ]
    histories = ensembles.together(
        networks,
        [torch.as_tensor(points, dtype=torch.float32) for points in sets],
        steps=config.train_steps, seeds=[run.seed_for("training", *key) for key in keys],
        batch=config.batch, rate=config.rate, final_rate=config.final_rate, ema=config.ema,
        progress=lambda steps: run.progress(steps, f"width {width}"),
    )  # fmt: skip
    for network, history in zip(networks, histories):
        train.averaged(network.net, history)
    states = [network.state() for network in networks]
    return {name: np.stack([state[name] for state in states]) for name in states[0]}


def learned(
    config: Config,
    width: int,
    weights: Arrays,
    sets: Sequence[np.ndarray],
    about: Arrays,
    ats: Sequence[Yardstick],
    run: Run,
) -> Arrays:
    """Networks of one width with the weights (sets, ...), one for each data set; see `trained`."""
    answers = []
    for i, (points, at) in enumerate(zip(sets, ats, strict=True)):
        net = nets.MLP(2, (width,) * 3)
        net.load_state_dict({name: torch.as_tensor(value[i]) for name, value in weights.items()})
        model = Network(net.double().to(run.device), chain_of(config), "v")
        answers.append(answers_of(config, model, points, at))
    seeds = [run.seed_for("distance", i % config.seeds) for i in range(len(sets))]
    return every_set(config, answers, sets, about, ats, seeds)


def one_width(config: Config, run: Run, width: int) -> Arrays:
    """All networks of one width, which train side by side, as `judged`: each (points, seeds, ...).

    What widths share is computed again for each, which costs little beside the training.
    """
    shape, seeds = (len(config.points), config.seeds), range(config.seeds)
    sets = [data_set(config, run, n, s) for n in config.points for s in seeds]
    ats = [yardstick(config, run, s) for s in seeds] * len(config.points)
    about, weights = (
        facts(config, sets, [at.noise for at in ats]),
        trained(config, width, sets, run),
    )
    found = learned(config, width, weights, sets, about, ats, run)
    return {key: value.reshape(*shape, *value.shape[1:]) for key, value in found.items()}


def floors(
    config: Config, run: Run, seed: int, sets: Sequence[np.ndarray], near: np.ndarray
) -> Arrays:
    """Of true samples beside the sets of a seed: chance, the exact share of copies, (sets, 2); what
    one sample has of copies, (sets, 2), and its median distance to the nearest point, (sets,).
    """
    law = truth(config).law
    x = true_sample(config, run, seed % config.floors)
    return {
        "chance": np.array([chance(law, points, r) for points, r in zip(sets, near)]),
        "copies": np.array([copies(x, points, r) for points, r in zip(sets, near)]),
        "nearest": np.array([np.median(two_nearest(x, points)[:, 0]) for points in sets]),
    }


def true_sample(config: Config, run: Run, i: int) -> np.ndarray:
    """As many true points as a model is asked for, (samples, 2)."""
    return truth(config).law.sample(config.samples, run.generator("floor", i))


def floor_distances(config: Config, run: Run) -> Arrays:
    """W2 of true samples, (floors,)."""
    law = truth(config).law
    found = [
        metrics.wasserstein(
            true_sample(config, run, i), law, run.generator("floor of W2", i), repeats=0
        ).value
        for i in range(config.floors)
    ]
    return {"W2": np.array(found)}


def models_of(config: Config) -> list[str]:
    """The two exact models and the widths, as they are called everywhere."""
    return [EXACT[0], *(f"width {width}" for width in config.widths), EXACT[1]]


def compute(config: Config, run: Run) -> Arrays:
    """Sweeps over noise levels, widths (the widest, which takes longest, first) and seeds."""
    known = run.sweep("information", information, {"k": config.levels}, config)
    by_width = run.sweep("networks", one_width, {"width": config.widths[::-1]}, config)
    by_seed = run.sweep("exact", one_seed, {"seed": range(config.seeds)}, config)
    floor = run.cell("floors", floor_distances, config, run)["W2"]
    law = truth(config).law
    reach = 3 * np.sqrt(np.diag(law.cov))
    arrays = {"box": np.stack([law.mean - reach, law.mean + reach])}
    arrays["information"] = known["information"]
    for i, n in enumerate(config.points):
        found = {key: value[:, i] for key, value in by_seed.items() if key != "seed"}
        for j, width in enumerate(by_width["width"]):
            own = {key: value[j, i] for key, value in by_width.items() if key != "width"}
            found |= {f"width {width} {key}": value for key, value in own.items()}
        arrays |= {
            f"{n} {key}": value[0] if key.endswith("sample") else value
            for key, value in found.items()
        }
        arrays |= {f"{n} floor W2": floor, f"{n} data": data_set(config, run, n, 0)}
    return arrays


# ---------------------------------------------------------------- tables


def sigmas(config: Config) -> np.ndarray:
    """sigma/alpha at the levels."""
    return np.exp(-0.5 * chain_of(config).log_snr(np.array(config.levels)))


def collapse(config: Config, arrays: Arrays, n: int) -> float:
    """sigma/alpha at which I(X_0; X_k) = log n, by interpolation of log sigma; NaN if outside."""
    found = arrays["information"]
    if not found[-1] < math.log(n) < found[0]:
        return math.nan
    return float(np.exp(np.interp(math.log(n), found[::-1], np.log(sigmas(config))[::-1])))


def nearest_level(config: Config, arrays: Arrays, n: int) -> int:
    """The index of the level nearest to the collapse; the middle one where there is none."""
    where = collapse(config, arrays, n)
    if math.isnan(where):
        return len(config.levels) // 2
    return int(np.argmin(np.abs(np.log(sigmas(config) / where))))


def crossing(sigma: np.ndarray, error: np.ndarray, level: float) -> float:
    """The largest sigma at which a falling error still is at the level; NaN if it never is."""
    over = np.flatnonzero(error > level)
    if len(over) == 0 or over[-1] == len(error) - 1:
        return math.nan
    two = slice(over[-1], over[-1] + 2)
    x, y = np.log(sigma[two]), np.log(error[two])
    return float(np.exp(np.interp(-math.log(level), -y, x)))


def levels_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Errors, way and losses of every model by noise level."""
    rows = []
    for n in config.points:
        for model in models_of(config):
            for i, (k, sigma) in enumerate(zip(config.levels, sigmas(config))):
                row: dict[str, Any] = {"n": n, "model": model, "k": k, "sigma/alpha": sigma}
                for column in LEVELLED:
                    value = arrays[f"{n} {model} {column}"][:, i]
                    row[column], row[f"{column}, error"] = mean_and_error(value)
                gap = arrays[f"{n} {model} test loss"] - arrays[f"{n} {model} train loss"]
                row["gap"], row["gap, error"] = mean_and_error(gap[:, i])
                rows.append(row)
    frame = pd.DataFrame(rows)
    numbers = [*LEVELLED, "gap", "sigma/alpha"]
    frame.attrs["digits"] = dict.fromkeys(numbers, 4) | {f"{c}, error": 2 for c in numbers[:-1]}
    return frame


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Samples of every model beside true samples; scores at the level nearest to the collapse."""
    rows = []
    for n in config.points:
        floor, spread = np.mean(arrays[f"{n} floor W2"]), np.std(arrays[f"{n} floor W2"], ddof=1)
        for model in ["true samples", *models_of(config)]:
            key = f"{n} floor" if model == "true samples" else f"{n} {model}"
            row: dict[str, Any] = {"n": n, "model": model}
            for i, kind in enumerate(("ratio", "distance")):
                row[f"copies by {kind}"], row[f"{kind}, error"] = mean_and_error(
                    arrays[f"{key} copies"][:, i]
                )
                chances = arrays[f"{n} floor chance"][:, i]
                row[f"chance by {kind}"] = np.mean(chances)
                row[f"{kind} - chance"], row[f"{kind} - chance, error"] = mean_and_error(
                    arrays[f"{key} copies"][:, i] - chances
                )
            if model != "true samples":
                share = arrays[f"{key} nearest"] / arrays[f"{n} floor nearest"]
                row["nearest/true nearest"], row["its error"] = mean_and_error(share)
            row["W2"], row["W2, error"] = mean_and_error(arrays[f"{key} W2"])
            row |= {"W2 floor": floor, "W2 floor spread": spread}
            i = nearest_level(config, arrays, n)
            row["at sigma/alpha"] = sigmas(config)[i]
            if model != "true samples":
                for column in ("to truth", "to memory", "way"):
                    value = arrays[f"{key} {column}"][:, i]
                    row[column], row[f"{column}, error"] = mean_and_error(value)
                gap = arrays[f"{key} test loss"] - arrays[f"{key} train loss"]
                row["gap"], row["gap, error"] = mean_and_error(gap[:, i])
            rows.append(row)
    frame = pd.DataFrame(rows)
    errors = [c for c in frame.columns if "error" in c or "spread" in c]
    others = [c for c in frame.columns if c not in ("n", "model", *errors)]
    frame.attrs["digits"] = dict.fromkeys(errors, 2) | dict.fromkeys(others, 3)
    return frame


def jackknifed(of: Callable[[np.ndarray], float], values: np.ndarray) -> tuple[float, float]:
    """f(mean of the rows) and its standard error, from the mean without one row after the other:

        error^2 = (S - 1)/S sum_s (f_(-s) - mean f_(-s))^2

    values : (S, ...), of independent seeds.  NaN where f is NaN for one of the means.
    """
    S = len(values)
    left = np.array([of(np.delete(values, s, axis=0).mean(axis=0)) for s in range(S)])
    return of(values.mean(axis=0)), math.sqrt((S - 1) * np.var(left))


def collapse_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Where the empirical score leaves the true one, beside the information, which is exact.

    Errors are of chance alone, not of the straight line (in logarithms) between two noise levels.
    """
    sigma, rows = sigmas(config), []
    for n in config.points:
        balance = collapse(config, arrays, n)
        row: dict[str, Any] = {
            "n": n, "log n": math.log(n), "sigma/alpha where I = log n": balance
        }  # fmt: skip
        for words, key in (
            ("s^ is off by 1/2 under p", "empirical score to truth"),
            ("s is off by 1/2 under p^", "true score to memory"),
        ):
            value, error = jackknifed(lambda e: crossing(sigma, e, 0.5), arrays[f"{n} {key}"])
            row |= {f"where {words}": value, f"where {words}, error": error}
            name = f"{words.split()[0]}, over where I = log n"
            row |= {name: value / balance, f"{name}, error": error / balance}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else 4 for c in frame.columns[1:]}
    return frame


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What every seed has of every model, at all noise levels."""
    rows = []
    for n, model, s in itertools.product(
        config.points, ["true samples", *models_of(config)], range(config.seeds)
    ):
        key = f"{n} floor" if model == "true samples" else f"{n} {model}"
        row: dict[str, Any] = {"n": n, "model": model, "seed": s}
        for i, kind in enumerate(("ratio", "distance")):
            row[f"copies by {kind}"] = arrays[f"{key} copies"][s, i]
            row[f"chance by {kind}"] = arrays[f"{n} floor chance"][s, i]
        row |= {"W2": arrays[f"{key} W2"][s], "nearest": arrays[f"{key} nearest"][s]}
        for column in LEVELLED if model != "true samples" else ():
            for k, value in zip(config.levels, arrays[f"{key} {column}"][s]):
                row[f"{column}, k = {k}"] = value
        rows.append(row)
    return pd.DataFrame(rows)


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Samples; noise levels; the collapse; every seed."""
    return {
        "": main_table(config, arrays), "levels": levels_table(config, arrays),
        "collapse": collapse_table(config, arrays), "cells": cells_table(config, arrays),
    }  # fmt: skip


# ---------------------------------------------------------------- figures


def look(config: Config, model: str) -> dict[str, Any]:
    """Colour and marker of a model."""
    names = models_of(config)
    if model in EXACT:
        return {"color": "black", "marker": "o^"[EXACT.index(model)], "ms": 4}
    i = names.index(model) - 1
    return {"color": plots.COLORS[i % len(plots.COLORS)], "marker": "sDv<>"[i % 5], "ms": 4}


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Samples of the first seed with their data."""
    some = list(dict.fromkeys([config.points[0], config.points[len(config.points) // 2]]))
    shown = list(dict.fromkeys([EXACT[0], *models_of(config)[1::2], EXACT[1]]))[:4]
    fig, axes = plots.figure(len(some), len(shown), height=4.2, share=True)
    for n, row in zip(some, axes):
        for model, ax in zip(shown, row):
            sample, data = arrays[f"{n} {model} sample"], arrays[f"{n} data"]
            ax.plot(*sample.T, ".", ms=2.5, color=plots.COLORS[0], alpha=0.6, label="samples")
            ax.plot(
                *data.T, "o", ms=4, mfc="none", mew=0.8, color=plots.COLORS[2],
                label="the data",
            )  # fmt: skip
            share = 100 * arrays[f"{n} {model} copies"][:, 1].mean()
            ax.set_title(f"{model}, n = {n}\n{share:.0f} % copies", fontsize=9)
            (left, bottom), (right, top) = arrays["box"]
            ax.set(aspect="equal", xlim=(left, right), ylim=(bottom, top))
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    plots.legend_below(fig, axes[0, 0])
    chances = np.mean([arrays[f"{n} floor chance"][:, 1] for n in some])
    fig.suptitle(
        "From the law to the data: samples of exact and learned scores (first seed; copies by"
        f" distance, mean of {config.seeds};\nby chance {100 * chances:.1f} %)",
        fontsize=10,
    )
    return fig


def line(
    ax: Any, config: Config, arrays: Arrays, n: int, model: str, what: str, **style: Any
) -> None:
    """A quantity by noise level with error bars."""
    value, error = mean_and_error(arrays[f"{n} {model} {what}"])
    ax.errorbar(sigmas(config), value, error, capsize=1.5, **(look(config, model) | style))


def by_points(config: Config, columns: int, height: float) -> tuple[Figure, list[Any]]:
    """A panel for each n, with the collapse in it."""
    fig, axes = plots.figure(math.ceil(len(config.points) / columns), columns, height=height)
    for ax in axes.flat[len(config.points) :]:
        ax.set_axis_off()
    return fig, list(axes.flat[: len(config.points)])


def mark_collapse(ax: Any, config: Config, arrays: Arrays, n: int) -> None:
    """A vertical line where log n = I."""
    where = collapse(config, arrays, n)
    if math.isfinite(where):
        ax.axvline(where, color="0.5", lw=1.0, ls="--", label="$I(X_0; X_k) = \\log n$")


def draw_levels(config: Config, arrays: Arrays) -> Figure:
    """Relative errors to the truth and to the memory by noise level."""
    fig, axes = by_points(config, 2, 7.0)
    for ax, n in zip(axes, config.points):
        line(ax, config, arrays, n, EXACT[1], "to truth", label="$\\hat s$ to the truth")
        line(ax, config, arrays, n, EXACT[0], "to memory", ls=":", label="$s$ to the memory")
        for model in models_of(config)[1:-1]:
            line(ax, config, arrays, n, model, "to truth", label=f"{model}, to the truth")
            line(ax, config, arrays, n, model, "to memory", ls=":", label=f"{model}, to the memory")
        mark_collapse(ax, config, arrays, n)
        ax.set(xscale="log", yscale="log", ylim=(1e-5, None), title=f"n = {n}")
        ax.set_xlabel("$\\sigma/\\alpha$")
    for ax in axes[::2]:
        ax.set_ylabel("relative Fisher error")
    plots.legend_below(fig, *axes, columns=3)
    fig.suptitle(
        f"Errors of scores under their own laws ({config.seeds} seeds ± standard error)",
        fontsize=11,
    )
    return fig


def draw_way(config: Config, arrays: Arrays) -> Figure:
    """How far from the truth to the memory, and what the training loss makes of it."""
    fig, axes = plots.figure(2, len(config.points), height=5.4)
    for n, (top, bottom) in zip(config.points, axes.T):
        for model in models_of(config)[1:-1]:
            line(top, config, arrays, n, model, "way", label=model)
        for model in models_of(config):
            value, error = mean_and_error(
                arrays[f"{n} {model} test loss"] - arrays[f"{n} {model} train loss"]
            )
            style = look(config, model) | ({"ls": ":"} if model == EXACT[0] else {})
            bottom.errorbar(sigmas(config), value, error, capsize=1.5, label=model, **style)
        for ax in (top, bottom):
            mark_collapse(ax, config, arrays, n)
            ax.set(xscale="log")
        top.axhline(0.0, color="black", lw=0.8)
        top.axhline(1.0, color="black", lw=0.8)
        top.set(ylim=(-0.7, 2.6), title=f"n = {n}")
        bottom.set(ylim=(-0.2, 1e4), xlabel="$\\sigma/\\alpha$")
        bottom.set_yscale("symlog", linthresh=0.1)
    for ax in axes[:, 1:].flat:
        ax.tick_params(labelleft=False)
    axes[0, 0].set_ylabel("way from $s$ (0) to $\\hat s$ (1)")
    axes[1, 0].set_ylabel("test − train loss")
    plots.legend_below(fig, axes[1, 0], columns=3)
    fig.suptitle(
        f"How far networks go from the law to the data ({config.seeds} seeds ± standard error)",
        fontsize=11,
    )
    return fig


def draw_copies(config: Config, arrays: Arrays) -> Figure:
    """Copies and distances against n."""
    fig, axes = plots.figure(1, 3, height=3.8)
    for model in models_of(config):
        for i, ax in enumerate(axes[0]):
            found = [
                arrays[f"{n} {model} W2"] if i == 2 else arrays[f"{n} {model} copies"][:, i]
                for n in config.points
            ]
            value, error = mean_and_error(np.array(found), axis=1)
            style = look(config, model) | ({"ls": ":"} if model == EXACT[0] else {})
            ax.errorbar(config.points, value, error, capsize=2, label=model, **style)
    for i, ax in enumerate(axes[0, :2]):
        true = [arrays[f"{n} floor chance"][:, i].mean() for n in config.points]
        ax.plot(
            config.points,
            true,
            color="0.5",
            lw=1.0,
            ls="--",
            label="true samples (copies: exactly)",
        )
        ax.set(ylim=(0, 1.03), ylabel=f"copies by {('ratio', 'distance')[i]}")
    floor = [arrays[f"{n} floor W2"].mean() for n in config.points]
    axes[0, 2].plot(config.points, floor, color="0.5", lw=1.0, ls="--")
    axes[0, 2].set(ylim=(0, None), ylabel="$W_2$ of samples to the law")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="points $n$")
        ax.set_xticks(config.points, list(map(str, config.points)))
        ax.set_xticks([], minor=True)
    plots.legend_below(fig, axes[0, 0], columns=4)
    n, wide = config.points[0], models_of(config)[-2]
    share, error = mean_and_error(100 * arrays[f"{n} {wide} copies"][:, 1])
    fig.suptitle(
        f"What is sampled ({config.samples} samples, {config.seeds} seeds ± standard error): from"
        f" {n} points {wide} copies {share:.0f} ± {error:.1g} %,\nby chance the law"
        f" {100 * arrays[f'{n} floor chance'][:, 1].mean():.1f} % (by distance)",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Samples; errors by level; the way and the gap; copies and distances."""
    return {
        "": draw_main(config, arrays), "levels": draw_levels(config, arrays),
        "way": draw_way(config, arrays), "copies": draw_copies(config, arrays),
    }  # fmt: skip


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "When does a diffusion model learn the law of its data, and when the data themselves?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
