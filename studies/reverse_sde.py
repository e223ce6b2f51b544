"""Reverse SDEs: the note "score_based_sde" replayed, its wrong start, and every noise level eta.

    forward   dX = dW on [0, 1],  p_t = p_0 * N(0, t)                        (VE, sigma(t) = sqrt t)
    reverse   dX = (1 + eta^2)/2 s(X, t) d(1 - t) + eta dW,  s the score of p_t, from t = 1 to 0

The page *Score-based SDE* of R. Rosa's random_notes (CC BY 4.0; built with Julia 1.12.1) trains
s(x, t) on 1024 points of p_0 = 0.8 N(-1, 0.4^2) + 0.2 N(1, 0.3^2) and then runs 256 points back by
199 Euler-Maruyama steps from N(0, 1). Its losses and its histogram come out of its random stream
(`PUBLISHED`, `BARS`: what the page shows, to be compared with and nothing else).

But p_1 is no N(0, 1): it has mean -0.6 and standard deviation 1.34. What a run from another start q
makes of it is known exactly, for the exact score and without any run:

    eta = 1   the law at 0 is int q(x) p(x_0 | X_1 = x) dx, the posterior of a mixture; with r_k(x)
              = P(component k | X_1 = x), the weight of mode k is int q r_k: decided at the start
    eta = 0   the law at 0 is that of F_0^-1(F_1(X)), X ~ q
    others    Fokker-Planck; and for any score, learned or not, the same

"Right" is right of 0.2, between the modes. The law of the Euler-Maruyama steps themselves follows
by a Gaussian kernel for each on a grid (for eta = 0 by a monotone map): so sampling error, steps,
score and start are told apart.

In the plane a swiss roll goes back by the reverse SDE of several eta with the exact score of the
variance-preserving process, whose N(0, I) is as good as p_T. At each time the points are measured
against the exact law of X_t: sliced W2, and the gap E log p_t(x) + H(p_t) in nats, 0 for true
points and the sharpest for a curve. torchsde takes the steps in both, times even in t on the line
and even in the log-SNR in the plane.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.special import ndtr

from diffscience import fokker_planck, gallery, grids, metrics, plots, solvers
from diffscience.arrays import Array
from diffscience.errors import ArgumentError, instance, number, whole
from diffscience.julia import Xoshiro, network
from diffscience.mixture import GaussianMixture
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.prior import PriorWarning
from diffscience.process import VP, Process
from diffscience.regression import Params, Regression, apply
from diffscience.study import Run, Study, run_file

Arrays = dict[str, np.ndarray]

FIRST_GRADIENT = 0.7814519262720458
PUBLISHED = {  # epoch -> loss
    epoch: float(loss)
    for epoch, loss in zip(
        [*range(1, 11), *range(1991, 2001)],
        """
        0.8093904260312036 4.821426102198947 0.9013738077191955 1.7976587139820184
        2.782252381743502 1.5579457501875367 0.8443466813768792 0.6954447384198809
        1.0341504711609282 1.2348369584320722
        0.5831544703869522 0.5245678923729578 0.49048498238600735 0.5597417389586645
        0.526729451351227 0.5335663890074827 0.5545858256272282 0.5381219324627812
        0.5208089048980225 0.5402121884399843
        """.split(),
        strict=True,
    )
}
# The bars of the histogram of its 256 samples, of width 0.1 from -2.1 on, read off the figure.
BARS = (
    2, 1, 0, 3, 4, 7, 5, 14, 16, 17, 16, 23, 19, 17, 12, 9, 6, 5, 2, 6, 1, 1, 0, 1, 0, 4, 4, 5, 4,
    10, 5, 6, 9, 8, 4, 5, 2, 2, 0, 0, 0, 1,
)  # fmt: skip
EDGES = np.arange(-21, 22) / 10

NOTE_EPOCHS, NOTE_POINTS, NOTE_SAMPLES, NOTE_STEPS = 2000, 1024, 256, 199
MIDDLE = 0.2  # between the modes
LAW = GaussianMixture([0.8, 0.2], [[-1.0], [1.0]], [[[0.16]], [[0.09]]])
WRONG, RIGHT = "N(0, 1)", "p_1"
STARTS, SCORES = (WRONG, RIGHT), ("exact", "learned")
SHOWN_TIMES = (0.01, 0.1, 0.4, 1.0)  # of the score


@dataclass(frozen=True)
class Brownian(Process):
    """alpha = 1, var = t: the process of the note, dX = dW."""

    T: float = 1.0

    def __post_init__(self) -> None:
        number("T", self.T, 0, ends="()")

    def _alpha(self, t: Array) -> Array:
        return 0.0 * t + 1.0

    def _var(self, t: Array) -> Array:
        return 1.0 * t

    def _dalpha(self, t: Array) -> Array:
        return 0.0 * t

    def _dvar(self, t: Array) -> Array:
        return 0.0 * t + 1.0

    def _gap(self, s: Array, t: Array) -> Array:
        return t - s


ORACLE = Oracle(LAW, Brownian())


@dataclass(frozen=True)
class Config:
    """What is computed.

    epochs : of the replay; the note's for its samples to come out.
    particles : points of a run on the line.
    etas : noise levels, 0 or more; 0 and 1 among them.
    steps : increasing numbers of steps. shown_steps : the note's, or another one of them.
    cells, intervals : of Fokker-Planck, on [-7, 7] and in time.
    nodes : of the grid for the law of Euler-Maruyama steps.
    plane_particles, plane_steps : the same in the plane; the last number of steps is shown.
    shown : increasing log-SNRs of the panels between the start and the data.
    frames : of the film. half, pixels : half the side of the window, pixels along a side.
    repeats : fresh true samples behind a floor.
    """

    epochs: int = NOTE_EPOCHS
    particles: int = 20_000
    etas: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5)
    steps: tuple[int, ...] = (10, 25, 50, 100, NOTE_STEPS, 400)
    shown_steps: int = NOTE_STEPS
    cells: int = 1400
    intervals: int = 400
    nodes: int = 800
    plane_particles: int = 10_000
    plane_steps: tuple[int, ...] = (25, 50, 100, 200)
    shown: tuple[float, ...] = (0.0, 1.5, 3.0, 5.0)
    frames: int = 28
    half: float = 2.4
    pixels: int = 120
    repeats: int = 10
    seed: int = 41

    def __post_init__(self) -> None:
        counts = ("epochs", "cells", "intervals", "nodes", "pixels")
        for name in (*counts, "particles", "plane_particles", "repeats", "frames"):
            whole(name, getattr(self, name), 1 if name in counts else 2)
        for name in ("steps", "plane_steps"):
            given = getattr(self, name)
            instance(name, given, tuple)
            for n in given:
                whole(name, n, 2)
            if not given or list(given) != sorted(set(given)):
                raise ArgumentError(name, "be increasing whole numbers", given)
        if self.shown_steps not in self.steps:
            raise ArgumentError("shown_steps", f"be one of {self.steps}", self.shown_steps)
        instance("etas", self.etas, tuple)
        for eta in self.etas:
            number("etas", eta, 0)
        if not {0.0, 1.0} <= set(self.etas):
            raise ArgumentError("etas", "have 0 and 1 among them", self.etas)
        number("half", self.half, 0, ends="()")
        if not self.shown or np.any(np.diff([-9.0, *self.shown, 9.0]) <= 0):
            raise ArgumentError("shown", "increase between -9 and 9", self.shown)


QUICK = Config(
    epochs=40, particles=500, etas=(0.0, 1.0), steps=(10, 60), shown_steps=60, cells=280,
    intervals=40, nodes=300, plane_particles=300, plane_steps=(15, 30), shown=(2.0,), frames=3,
    pixels=32, repeats=2,
)  # fmt: skip


# ---------------------------------------------------------------- the note


def draw_batch(rng: Xoshiro, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs (x_t, t), targets -z and factors sqrt(t) of one epoch: first every t, then every z."""
    t = 0.001 + (1.0 - 0.001) * rng.rand(len(points))
    z = rng.randn((1, len(points)))[0]
    return np.stack([points + np.sqrt(t) * z, t], -1), -z[:, None], np.sqrt(t)[:, None]


def note_score(params: Params, x: np.ndarray, t: float) -> np.ndarray:
    """The note's network at x (n,), in its mixed precision."""
    return apply(params, np.stack([x, np.full_like(x, t)], -1))[:, 0]


def replay(epochs: int) -> Arrays:
    """Training and reverse run in the order of the note's stream."""
    rng = Xoshiro(12345)
    points = rng.mixture([0.8, 0.2], [-1.0, 1.0], [0.4, 0.3], NOTE_POINTS)
    fitted = Regression(network(rng, (2, 64, 64, 1)), 0.01)
    checked = fitted.gradient(*draw_batch(rng, points))[0]
    found = [fitted.step(*draw_batch(rng, points)) for _ in range(epochs)]
    params = fitted.params
    packed = {f"{kind}{i}": a for i, pair in enumerate(params) for kind, a in zip("wb", pair)}
    facts = {"points": points, "checked": np.array(checked), "loss": np.array(found)}
    return {**facts, "paths": note_paths(params, rng), **packed}


def note_paths(params: Params, rng: Xoshiro) -> np.ndarray:
    """The note's reverse run, (200, 256): row 0 at t = 1, the last row at t = 0."""
    times, h = np.linspace(1.0, 0.0, NOTE_STEPS + 1), 1.0 / NOTE_STEPS
    paths = [rng.randn(NOTE_SAMPLES)]
    for t in times[:-1]:
        x, z = paths[-1], rng.randn(NOTE_SAMPLES)
        paths.append(x + h * note_score(params, x, float(t)) + math.sqrt(h) * z)
    return np.stack(paths)


class NoteNet(torch.nn.Module):
    """The note's network as a module net(x, t), float32, for the package's solvers."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.from_numpy(np.array(w)) for w, _ in params)
        self.biases = torch.nn.ParameterList(torch.from_numpy(np.array(b)) for _, b in params)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x (n, 1), t (n,) -> (n, 1)."""
        h = torch.cat([x, t[:, None]], dim=1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            h = torch.nn.functional.linear(torch.relu(h) if i else h, weight, bias)
        return h


def learned(params: Params) -> Network:
    """The note's network as a model of its process."""
    return Network(NoteNet(params), Brownian(), predicts="score")


# ---------------------------------------------------------------- what is known exactly


def start_law(start: str) -> GaussianMixture:
    """The law that a run begins with at t = 1."""
    if start == WRONG:
        return GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    return LAW.diffuse(Brownian().at(1.0))


def components(x: np.ndarray, T: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The posterior of X_0 given X_T = x (n,): weights, means, standard deviations, (n, 2) each."""
    v, m = np.asarray(LAW.covs)[:, 0, 0], np.asarray(LAW.means)[:, 0]
    weights = metrics.responsibilities(x[:, None], LAW.diffuse(Brownian(T).at(T)))
    means = (T * m + x[:, None] * v) / (T + v)
    return weights, means, np.broadcast_to(np.sqrt(v * T / (v + T)), means.shape)


def right_given(x: np.ndarray, T: float = 1.0) -> np.ndarray:
    """P(X_0 > 0.2 | X_T = x), (n,): the exact kernel of a run with eta = 1."""
    weights, means, widths = components(x, T)
    return (weights * ndtr((means - MIDDLE) / widths)).sum(axis=1)


def line(law: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (n,) of the trapezoid rule under a law: 12 deviations either way."""
    m, s = float(np.asarray(law.mean)[0]), math.sqrt(float(np.asarray(law.cov)[0, 0]))
    x = m + s * np.linspace(-12, 12, 6001)
    return x, np.exp(law.log_prob(x[:, None])) * (x[1] - x[0])


def by_quadrature(start: GaussianMixture) -> dict[str, float]:
    """Exact score, eta = 1: the share on the right and the weight of the right mode at t = 0."""
    x, w = line(start)
    return {"right": float(w @ right_given(x)), "mode": float(w @ components(x)[0][:, 1])}


def posterior_density(start: GaussianMixture, x0: np.ndarray) -> np.ndarray:
    """Exact score, eta = 1: the density at 0, int q(x) p(x0 | X_1 = x) dx, at x0 (n,)."""
    x, w = line(start)
    weights, means, widths = components(x)
    found = np.zeros_like(x0)
    for k in range(2):
        z = (x0[:, None] - means[:, k]) / widths[:, k]
        found += np.exp(-0.5 * z * z) @ (w * weights[:, k] / widths[:, k])
    return found / math.sqrt(2 * math.pi)


def by_flow(start: GaussianMixture, x0: np.ndarray) -> np.ndarray:
    """Exact score, eta = 0: the cdf at 0, Q(F_1^-1(F_0(x0))), at x0 (n,)."""
    return np.asarray(start.cdf(ORACLE.flow(x0[:, None], 0.0, 1.0)))


def longer(horizons: np.ndarray) -> Arrays:
    """The share on the right against the length T of the process, exact score.

    Rows: start N(0, T) with eta = 1 and eta = 0; start of the mean and variance of p_T, eta = 1.
    """
    v = float(np.asarray(LAW.cov)[0, 0])
    rows = np.empty((3, len(horizons)))
    for j, T in enumerate(horizons.tolist()):
        wide = GaussianMixture([1.0], [[0.0]], [[[T]]])
        matched = GaussianMixture([1.0], [np.asarray(LAW.mean)], [[[v + T]]])
        for i, law in ((0, wide), (2, matched)):
            x, w = line(law)
            rows[i, j] = w @ right_given(x, T)
        moved = Oracle(LAW, Brownian(T)).flow(np.array([[MIDDLE]]), 0.0, T)
        rows[1, j] = 1 - wide.cdf(moved)[0]
    return {"horizons": horizons, "longer": rows}


def limit(config: Config, model: Model, start: GaussianMixture, eta: float) -> Arrays:
    """The law at t = 0 of a run in infinitely short steps, as mean densities over cells.

    eta > 0: Fokker-Planck. eta = 0: the flow is monotone, so a cell holds what the start puts
    between the places that its edges are carried to.
    """
    edges = fokker_planck.cells(-7.0, 7.0, config.cells)
    if eta == 0:
        back = solvers.ode(
            lambda y, t: -0.5 * model.score(y, t), edges[:, None], [0.0, 1.0], rtol=1e-8, atol=1e-8
        )
        density = np.diff(np.asarray(start.cdf(back.last))) / np.diff(edges)
    else:
        half = 0.5 * (1 + eta * eta)
        run = fokker_planck.evolve(
            fokker_planck.averages(start, edges),
            edges,
            lambda x, u: half * model.score(x[:, None], max(1.0 - u, 0.0))[:, 0],
            lambda u: 0.5 * eta * eta,
            np.linspace(0.0, 1.0, config.intervals + 1),
        )
        *_, (_, density) = run
    return {"density": density, **shares(edges, density)}


def shares(edges: np.ndarray, density: np.ndarray) -> Arrays:
    """Share on the right and weight of the right mode of a law given over cells."""
    mass = density * np.diff(edges)
    below = np.interp(MIDDLE, edges, np.concatenate([[0.0], np.cumsum(mass)])) / mass.sum()
    centres = 0.5 * (edges[1:] + edges[:-1])
    right = metrics.responsibilities(centres[:, None], LAW)[:, 1]
    return {"right": np.array(1 - below), "mode": np.array(mass @ right / mass.sum())}


def chain_law(
    config: Config, model: Model, start: GaussianMixture, steps: int, eta: float = 1.0
) -> Arrays:
    """The law at t = 0 of `steps` Euler-Maruyama steps, as shares.

    eta > 0: a Gaussian kernel for each step. eta = 0: steps are a map that keeps the order.
    """
    edges = fokker_planck.cells(-7.0, 7.0, config.nodes)
    x, w, h = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0], 1.0 / steps
    half, size = 0.5 * (1 + eta * eta) * h, eta * math.sqrt(h)
    if eta > 0 and w > 0.9 * size:
        raise ArgumentError("nodes", f"resolve a step of deviation {size:.3g}", config.nodes)
    p, mean = np.exp(start.log_prob(x[:, None])), edges
    reach = math.ceil(9 * size / w)
    near = np.arange(-reach, reach + 2)
    for t in np.linspace(1.0, 0.0, steps + 1)[:-1].tolist():
        at = x if eta > 0 else mean
        mean = at + half * np.asarray(model.score(at[:, None], t))[:, 0]
        if eta == 0:
            continue
        to = np.floor((mean - x[0]) / w).astype(int)[:, None] + near
        kernel = p[:, None] * np.exp(-((x[0] + w * to - mean[:, None]) ** 2) / (2 * size * size))
        inside = (to >= 0) & (to < len(x))
        p = np.bincount(to[inside], kernel[inside], minlength=len(x))
        p *= w / math.sqrt(2 * math.pi) / size
    if eta > 0:
        return shares(edges, p)
    if np.any(np.diff(mean) <= 0):
        raise ArgumentError("steps", "be enough for the steps to keep the order", steps)
    return shares(mean, np.diff(np.asarray(start.cdf(edges[:, None]))) / np.diff(mean))


# ---------------------------------------------------------------- runs on the line


def sampled(
    config: Config,
    model: Model,
    start: str,
    eta: float,
    steps: int,
    noise: int,
    generator: Any,
    device: str = "cpu",
) -> Arrays:
    """One run: points, and (right, error, mode, error, W1, error, floor, spread, evaluations)."""
    x = start_law(start).sample(config.particles, generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorWarning)  # of the wrong start, which is the point
        times = np.linspace(1.0, 0.0, steps + 1)
        run = solvers.reverse(model, x, times, noise, eta=eta, device=device)
    x = run.last
    right = float(np.mean(x > MIDDLE))
    error = math.sqrt(max(right * (1 - right), 1 / len(x)) / len(x))
    mode = metrics.mode_weights(x, LAW, generator)
    w1 = metrics.wasserstein(x, LAW, generator, 1, repeats=config.repeats)
    numbers = [right, error, mode.value[1], mode.error[1]]
    numbers += [w1.value, w1.error, w1.floor, w1.floor_error, run.evaluations]
    return {"x": x[:, 0], "numbers": np.array(numbers)}


# ---------------------------------------------------------------- the plane


def grid(steps: int) -> np.ndarray:
    """Times of a run in the plane, even in the log-SNR."""
    return grids.log_snr(VP(), steps)


def places(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Places in the finest grid: (of the panels, of the film's frames), decreasing in time."""
    times = grid(config.plane_steps[-1])
    levels = VP().log_snr(times[1:-1])

    def nearest(wanted: Any) -> list[int]:
        return [1 + int(np.argmin(np.abs(levels - r))) for r in wanted]

    last = len(times) - 1
    panels = [0, *nearest(config.shown), last]
    film = [0, *nearest(np.linspace(-4.0, 7.0, max(config.frames - 2, 1))), last]
    return np.array(sorted(set(panels))), np.array(sorted(set(film)))


def plane_run(
    config: Config,
    eta: float,
    steps: int,
    keep: np.ndarray,
    noise: int,
    generator: Any,
    device: str = "cpu",
) -> Arrays:
    """States (T, n, 2) of a run in the plane at the places `keep`, from N(0, var(1) I)."""
    oracle = Oracle(gallery.swiss_roll(), VP())
    x = math.sqrt(VP().var(1.0)) * generator.standard_normal((config.plane_particles, 2))
    run = solvers.reverse(oracle, x, grid(steps), noise, eta=eta, keep=keep.tolist(), device=device)
    return {"states": np.asarray(run.states), "evaluations": np.array(run.evaluations)}


def log_moments(law: Any) -> tuple[float, float]:
    """Mean and variance of log p(X) under the law itself."""
    x, weights = law.quadrature()
    near = weights > 1e-20 * weights.max()
    log_prob = law.log_prob(x[near])
    mean = float(weights[near] @ log_prob)
    return mean, float(weights[near] @ (log_prob - mean) ** 2)


def measured(
    config: Config, t: float, x: np.ndarray, known: np.ndarray, generator: Any
) -> np.ndarray:
    """((sliced W2, error, floor, spread), (gap, error, 0, spread)) of points against p_t."""
    law = Oracle(gallery.swiss_roll(), VP()).at(t)
    e = metrics.sliced_wasserstein(x, law, generator, repeats=config.repeats)
    log_prob, n = law.log_prob(x), len(x)
    gap = [np.mean(log_prob) - known[0], np.std(log_prob, ddof=1) / math.sqrt(n)]
    return np.array(
        [
            [e.value, e.error, e.floor, e.floor_error],
            [*gap, 0.0, math.sqrt(known[1] / n)],
        ]
    )


def plane_facts(config: Config) -> Arrays:
    """The exact laws: pictures at all kept times, moments of log p at those of the panels."""
    oracle, times = Oracle(gallery.swiss_roll(), VP()), grid(config.plane_steps[-1])
    steps = config.half * ((2 * np.arange(config.pixels) + 1) / config.pixels - 1)
    window = np.stack(np.meshgrid(steps, steps), axis=-1)
    panels, film = places(config)
    kept = np.union1d(panels, film)
    pictures = [oracle.log_prob(window, t).astype(np.float32) for t in times[kept].tolist()]
    return {
        "kept": kept,
        "panels": panels,
        "film": film,
        "times": times[kept],
        "log_density": np.stack(pictures),
        "moments": np.array([log_moments(oracle.at(t)) for t in times[panels].tolist()]),
    }


def planes(config: Config, run: Run) -> Arrays:
    """All runs in the plane; states of the finest alone."""
    facts = run.cell("plane facts", plane_facts, config)
    arrays = {f"plane {name}": value for name, value in facts.items()}
    finest = config.plane_steps[-1]
    for eta, steps in run.progress(
        [(e, n) for e in config.etas for n in config.plane_steps], "plane"
    ):
        key = f"plane {eta:g} {steps}"
        keep = facts["kept"] if steps == finest else np.array([steps])
        noise, own = run.seed_for(key, "noise"), run.generator(key)
        found = run.cell(key, plane_run, config, eta, steps, keep, noise, own, run.device)
        states, fresh = found["states"], run.generator(key, "metrics")
        if steps == finest:
            shown = np.searchsorted(facts["kept"], facts["panels"])
            at = list(zip(facts["times"][shown].tolist(), states[shown], facts["moments"]))
            arrays[f"{key} states"] = states.astype(np.float32)[:, :SCATTERED]
        else:
            at = [(0.0, states[-1], facts["moments"][-1])]

        def estimates(at: Any = at, fresh: Any = fresh) -> Arrays:
            return {
                "estimates": np.stack([measured(config, t, x, known, fresh) for t, x, known in at])
            }

        arrays[key] = run.cell(f"{key} metrics", estimates)["estimates"]
        arrays[f"{key} evaluations"] = found["evaluations"]
    return arrays


# ---------------------------------------------------------------- compute

SCATTERED = 1500  # points of a panel


def key_of(score: str, start: str, eta: float, steps: int) -> str:
    """The name of a run on the line in the arrays."""
    return f"{score} {start} {eta:g} {steps}"


def jobs(config: Config) -> list[tuple[str, str, float, int]]:
    """All runs on the line: the learned score takes the note's number of steps alone."""
    return [
        (score, start, eta, n)
        for score in SCORES
        for start in STARTS
        for eta in config.etas
        for n in (config.steps if score == "exact" else (config.shown_steps,))
    ]


def lines(config: Config, models: dict[str, Model], run: Run) -> Arrays:
    """Every run on the line, its limit, and the law of the note's own steps."""
    arrays: Arrays = {}
    for score, start, eta, n in run.progress(jobs(config), "line"):
        key = key_of(score, start, eta, n)
        noise, own = run.seed_for(key, "noise"), run.generator(key)
        found = run.cell(key, sampled, config, models[score], start, eta, n, noise, own, run.device)
        arrays[f"numbers {key}"] = found["numbers"]
        law = start_law(start)
        own_law = run.cell(f"steps {key}", chain_law, config, models[score], law, n, eta)
        arrays |= {f"steps {name} {key}": value for name, value in own_law.items()}
        if n != config.shown_steps:
            continue
        arrays[f"x {key}"] = found["x"].astype(np.float32)
        end = run.cell(f"limit {key}", limit, config, models[score], law, eta)
        arrays |= {f"{name} {key}": value for name, value in end.items()}
    return arrays


def fields(config: Config, models: dict[str, Model]) -> Arrays:
    """What is drawn of the laws and of the scores."""
    x = np.linspace(-3.5, 3.5, 351)
    edges = fokker_planck.cells(-7.0, 7.0, config.cells)
    centres = 0.5 * (edges[1:] + edges[:-1])
    arrays = {
        "grid": x,
        "centres": centres,
        "density": np.exp(LAW.log_prob(x[:, None])),
        "law": fokker_planck.averages(LAW, edges),
        "truth": np.array([1 - float(LAW.cdf(np.array([[MIDDLE]]))[0])]),
        "given": right_given(x),
        "map": ORACLE.flow(x[:, None], 1.0, 0.0)[:, 0],
        "edge": ORACLE.flow(np.array([[MIDDLE]]), 0.0, 1.0)[0],
        "starts": np.stack([np.exp(start_law(s).log_prob(x[:, None])) for s in STARTS]),
    }
    times = np.geomspace(0.001, 1.0, 25)
    arrays["fisher"] = metrics.fisher_error(models["learned"], ORACLE, times, relative=True).value
    arrays["fisher times"] = times
    for score in SCORES:
        rows = [np.asarray(models[score].score(x[:, None], t))[:, 0] for t in SHOWN_TIMES]
        arrays[f"score {score}"] = np.stack(rows)
    for start in STARTS:
        law, width = start_law(start), edges[1] - edges[0]
        exact = by_quadrature(law)
        arrays[f"quadrature {start}"] = np.array([exact["right"], exact["mode"]])
        arrays[f"flow {start}"] = 1.0 - by_flow(law, np.array([MIDDLE]))
        arrays[f"exact {start} 1"] = posterior_density(law, centres)
        arrays[f"exact {start} 0"] = np.diff(by_flow(law, edges)) / width
    return arrays


def compute(config: Config, run: Run) -> Arrays:
    """Every run as a cell of its own."""
    note = run.cell("replay", replay, config.epochs)
    params = [(note.pop(f"w{i}"), note.pop(f"b{i}")) for i in range(3)]
    models: dict[str, Model] = {"exact": ORACLE, "learned": learned(params)}
    return {
        **{f"note_{name}": value for name, value in note.items()},
        **lines(config, models, run),
        **run.cell("fields", fields, config, models),
        **run.cell("longer", longer, np.geomspace(0.25, 100.0, 27)),
        **planes(config, run),
    }


# ---------------------------------------------------------------- tables


def line_row(config: Config, arrays: Arrays, *job: Any) -> dict[str, Any]:
    """One run on the line beside the truth; its limit is that of the same score and start."""
    score, start, eta, n = job
    numbers = arrays[f"numbers {key_of(score, start, eta, n)}"].tolist()
    own = float(arrays[f"steps right {key_of(score, start, eta, n)}"])
    key, truth = key_of(score, start, eta, config.shown_steps), float(arrays["truth"][0])
    row = {"score": score, "start": start, "eta": eta, "steps": n, "evaluations": int(numbers[8])}
    row |= {"right": numbers[0], "error": numbers[1], "law of the steps": own}
    row |= {"off it": (numbers[0] - own) / numbers[1], "short steps": float(arrays[f"right {key}"])}
    row |= {"truth": truth, "true spread": math.sqrt(truth * (1 - truth) / config.particles)}
    row |= {"mode weight": numbers[2], "its error": numbers[3]}
    row |= {"mode, short steps": float(arrays[f"mode {key}"])}
    row |= {"W1": numbers[4], "W1 error": numbers[5], "W1 floor": numbers[6]}
    return row | {"W1 floor spread": numbers[7]}


ERRORS = ("error", "off it", "its error", "true spread", "W1 error", "W1 floor spread")


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """All runs in the note's number of steps."""
    rows = [line_row(config, arrays, *job) for job in jobs(config) if job[3] == config.shown_steps]
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(ERRORS, 2)
    return frame


def steps_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The exact score in other numbers of steps."""
    frame = pd.DataFrame(
        [line_row(config, arrays, *job) for job in jobs(config) if job[0] == "exact"]
    )
    frame.attrs["digits"] = dict.fromkeys(ERRORS, 2)
    return frame


def exact_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The share on the right and the weight of the right mode with the exact score, two ways.

    In closed form where there is one: eta = 0 and 1, and any eta from p_1, which ends in p_0. The
    difference is the largest of the densities at t = 0.
    """
    rows = []
    nan = math.nan
    for start in STARTS:
        right, mode = arrays[f"quadrature {start}"].tolist()
        for eta in config.etas:
            key = key_of("exact", start, eta, config.shown_steps)
            known: dict[float, tuple[float, float, Any]] = {
                0.0: (float(arrays[f"flow {start}"][0]), nan, arrays[f"exact {start} 0"]),
                1.0: (right, mode, arrays[f"exact {start} 1"]),
            }
            truth = (float(arrays["truth"][0]), 0.2, arrays["law"]) if start == RIGHT else None
            closed = truth or known.get(eta) or (nan, nan, nan)
            row: dict[str, Any] = {"start": start, "eta": eta, "right, closed form": closed[0]}
            row |= {"right, solved": float(arrays[f"right {key}"])}
            row |= {"mode, closed form": closed[1], "mode, solved": float(arrays[f"mode {key}"])}
            row |= {"difference": float(np.max(np.abs(closed[2] - arrays[f"density {key}"])))}
            rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns[2:6], 5) | {"difference": 2}
    return frame


def note_share(arrays: Arrays) -> tuple[float, float]:
    """The share on the right of the note's 256 samples, and its error."""
    right = float(np.mean(arrays["note_paths"][-1] > MIDDLE))
    return right, math.sqrt(right * (1 - right) / NOTE_SAMPLES)


def causes_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """From the note's samples to the truth, one cause after the other; eta = 1."""

    def law(what: str, score: str, start: str) -> float:
        return float(arrays[f"{what} {key_of(score, start, 1.0, config.shown_steps)}"])

    own, limit, n = "steps right", "right", config.shown_steps
    data, nan = float(np.mean(arrays["note_points"] > MIDDLE)), math.nan
    rows: list[tuple[str, float, float]] = [
        ("the note's 256 samples", *note_share(arrays)),
        (f"its network, start and {n} steps: exact law", law(own, "learned", WRONG), nan),
        ("the same, infinitely short steps", law(limit, "learned", WRONG), nan),
        (f"exact score, N(0, 1), {n} steps", law(own, "exact", WRONG), nan),
        ("exact score, N(0, 1), short steps", law(limit, "exact", WRONG), nan),
        (f"its network, p_1, {n} steps", law(own, "learned", RIGHT), nan),
        ("its network, p_1, short steps", law(limit, "learned", RIGHT), nan),
        (f"exact score, p_1, {n} steps", law(own, "exact", RIGHT), nan),
        ("its 1024 data points", data, math.sqrt(data * (1 - data) / NOTE_POINTS)),
        ("the law itself", float(arrays["truth"][0]), nan),
    ]
    frame = pd.DataFrame(rows, columns=["what", "right", "error"])
    frame.attrs["digits"] = {"right": 4, "error": 2}
    return frame


def parity_table(arrays: Arrays) -> pd.DataFrame:
    """Losses beside the published ones."""
    loss = arrays["note_loss"]
    rows = [("first gradient", float(arrays["note_checked"]), FIRST_GRADIENT)]
    rows += [(str(e), float(loss[e - 1]), p) for e, p in PUBLISHED.items() if e <= len(loss)]
    frame = pd.DataFrame(rows, columns=["epoch", "loss", "published"])
    frame["relative difference"] = (frame["loss"] / frame["published"] - 1).abs()
    frame.attrs["digits"] = {"loss": 16, "published": 16, "relative difference": 2}
    return frame


def samples_table(arrays: Arrays) -> pd.DataFrame:
    """The bars of the histogram of the 256 samples beside the published ones."""
    counts = np.histogram(arrays["note_paths"][-1], EDGES)[0]
    frame = pd.DataFrame({"from": EDGES[:-1], "to": EDGES[1:], "count": counts})
    if len(arrays["note_loss"]) == NOTE_EPOCHS:
        frame["published"] = BARS
    return frame


def plane_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The end of every run in the plane."""
    rows = []
    for eta in config.etas:
        for n in config.plane_steps:
            sliced, gap = arrays[f"plane {eta:g} {n}"][-1].tolist()
            row = {
                "eta": eta,
                "steps": n,
                "evaluations": int(arrays[f"plane {eta:g} {n} evaluations"]),
            }
            row |= dict(zip(("sliced W2", "error", "floor", "floor spread"), sliced))
            row |= {"excess": (sliced[0] - sliced[2]) / math.hypot(sliced[1], sliced[3])}
            rows.append(row | {"gap / nats": gap[0], "gap error": gap[1], "true spread": gap[3]})
    frame = pd.DataFrame(rows)
    names = ("error", "floor spread", "excess", "gap error", "true spread")
    frame.attrs["digits"] = dict.fromkeys(names, 2)
    return frame


def times_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The run of most steps at the times of the panels."""
    rows = []
    times = panel_times(arrays)
    for eta in config.etas:
        for t, (sliced, gap) in zip(times, arrays[f"plane {eta:g} {config.plane_steps[-1]}"]):
            row = {"eta": eta, "t": t, "log-SNR": float(VP().log_snr(t))}
            row |= dict(zip(("sliced W2", "error", "floor", "floor spread"), sliced.tolist()))
            rows.append(row | {"gap / nats": gap[0], "gap error": gap[1], "true spread": gap[3]})
    frame = pd.DataFrame(rows)
    names = ("error", "floor spread", "gap error", "true spread")
    frame.attrs["digits"] = dict.fromkeys(names, 2)
    return frame


def panel_times(arrays: Arrays) -> list[float]:
    """The times of the panels."""
    shown = np.searchsorted(arrays["plane kept"], arrays["plane panels"])
    times: list[float] = arrays["plane times"][shown].tolist()
    return times


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Runs on the line; steps; exact numbers; causes; the note's losses and samples; the plane."""
    return {
        "": main_table(config, arrays),
        "steps": steps_table(config, arrays),
        "exact": exact_table(config, arrays),
        "causes": causes_table(config, arrays),
        "parity": parity_table(arrays),
        "samples": samples_table(arrays),
        "plane": plane_table(config, arrays),
        "plane_times": times_table(config, arrays),
    }


# ---------------------------------------------------------------- figures

EXACT, LEARNED = plots.COLORS[0], plots.COLORS[2]
ETA_COLORS = (plots.COLORS[2], plots.COLORS[1], plots.COLORS[0], plots.COLORS[4])
HALF_LINE = 2.9
START_NAMES = {WRONG: "$N(0, 1)$", RIGHT: "$p_1$"}


def color_of(config: Config, eta: float) -> str:
    """The colour of a noise level."""
    return ETA_COLORS[config.etas.index(eta) % len(ETA_COLORS)]


def note_name(config: Config) -> str:
    """The note's network, or what fewer epochs make of it."""
    epochs = "" if config.epochs == NOTE_EPOCHS else f" after {config.epochs} epochs"
    return f"the note's network{epochs}"


def draw_main(config: Config, arrays: Arrays) -> Figure:
    """Samples, the law of the run, the truth: two scores, two starts."""
    fig, axes = plots.figure(2, 2, height=5.6, share=True)
    names = {"exact": "exact score", "learned": note_name(config)}
    edges = np.linspace(-HALF_LINE, HALF_LINE, 75)
    for row, score in zip(axes, SCORES, strict=True):
        for ax, start in zip(row, STARTS, strict=True):
            key = key_of(score, start, 1.0, config.shown_steps)
            x = arrays[f"x {key}"]
            height = np.histogram(x, edges)[0] / (len(x) * np.diff(edges))
            color = EXACT if score == "exact" else LEARNED
            ax.stairs(
                height, edges, fill=True, color=color, alpha=0.4, label=f"samples, {score} score"
            )
            ax.plot(
                arrays["centres"], arrays[f"density {key}"], color=color, linewidth=1.6,
                label=f"law of the run, {score} score",
            )  # fmt: skip
            ax.plot(arrays["grid"], arrays["density"], "--", color="black", linewidth=1.2,
                    label="$p_0$, the truth")  # fmt: skip
            ax.axvline(MIDDLE, 0, 0.66, color="0.6", linewidth=0.8)
            numbers = arrays[f"numbers {key}"]
            ax.set_title(f"{names[score]}, start {START_NAMES[start]}", fontsize=10)
            ax.text(
                0.98, 0.95, f"right of {MIDDLE:g}: {numbers[0]:.3f} ± {numbers[1]:.3f}\n"
                f"law of the run: {float(arrays[f'steps right {key}']):.3f}\n"
                f"truth: {float(arrays['truth'][0]):.3f}",
                transform=ax.transAxes, va="top", ha="right",
            )  # fmt: skip
            ax.set(xlim=(-HALF_LINE, HALF_LINE), ylim=(0, 0.95))
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    plots.legend_below(fig, *axes[:, 0], columns=3)
    fig.suptitle(
        f"Back by {config.shown_steps} Euler-Maruyama steps, $\\eta = 1$: what a wrong start does",
        fontsize=11,
    )
    return fig


def draw_replay(config: Config, arrays: Arrays) -> Figure:
    """The note beside what its page shows."""
    fig, axes = plots.figure(1, 3, height=3.5)
    loss, full = arrays["note_loss"], len(arrays["note_loss"]) == NOTE_EPOCHS
    left, middle, right = axes[0]
    left.plot(1 + np.arange(len(loss)), loss, color=LEARNED, linewidth=0.6, label="replayed")
    printed = {e: p for e, p in PUBLISHED.items() if e <= len(loss)}
    left.plot(list(printed), list(printed.values()), "k.", markersize=4, label="published")
    left.set(xscale="log", yscale="log", xlabel="epoch", title="Training")
    left.set_ylabel("loss", labelpad=-6)
    left.legend(loc="upper right")
    paths = arrays["note_paths"]
    t = np.linspace(1, 0, len(paths))
    middle.plot(t, paths[:, ::4], color=LEARNED, linewidth=0.4, alpha=0.6)
    middle.axhline(MIDDLE, color="black", linewidth=0.8)
    middle.set(xlim=(1, 0), xlabel="t (runs to the right)", title="64 of its 256 paths")
    middle.set_ylabel("x", labelpad=-4)
    counts = np.histogram(paths[-1], EDGES)[0]
    right.stairs(counts, EDGES, fill=True, color=LEARNED, alpha=0.5, label="replayed")
    if full:
        right.plot(0.5 * (EDGES[1:] + EDGES[:-1]), BARS, "k.", markersize=4, label="published")
    expected = NOTE_SAMPLES * 0.1 * arrays["density"]
    right.plot(arrays["grid"], expected, color="black", linewidth=1.0, label="$p_0$")
    share, error = note_share(arrays)
    right.set(xlim=(-2.6, 2.6), ylim=(0, 32), xlabel="x", title="Its samples, bins of 0.1")
    right.set_ylabel("samples in a bin", labelpad=2)
    right.text(0.97, 0.62, f"right of 0.2:\n{share:.3f} ± {error:.3f}", transform=right.transAxes,
               va="top", ha="right", fontsize=9)  # fmt: skip
    right.legend(loc="upper right")
    fig.suptitle(f"The note replayed from its random stream, {len(loss)} epochs", fontsize=11)
    return fig


def draw_score(config: Config, arrays: Arrays) -> Figure:
    """The note's score beside the exact one, and its error by time."""
    fig, axes = plots.figure(2, 3, height=5.0)
    flat = [*axes[0, :2], *axes[1, :2]]
    for i, (ax, t) in enumerate(zip(flat, SHOWN_TIMES, strict=True)):
        ax.plot(arrays["grid"], arrays["score learned"][i], color=LEARNED, label="the network")
        ax.plot(arrays["grid"], arrays["score exact"][i], "--", color="black", linewidth=1.2,
                label="exact")  # fmt: skip
        ax.set_title(f"score at $t = {t:g}$", fontsize=10)
        ax.set(xlim=(-3.5, 3.5))
    for ax in axes[1, :2]:
        ax.set_xlabel("x")
    below = axes[0, 2]
    below.plot(arrays["fisher times"], arrays["fisher"], color=LEARNED)
    below.set(xscale="log", yscale="log", xlabel="t")
    below.set_title("its relative Fisher error", fontsize=10)
    last = axes[1, 2]
    for column, (start, style) in enumerate(zip(STARTS, ("-", "--"))):
        last.plot(arrays["grid"], arrays["starts"][column], style, color="0.4",
                  label=f"start {START_NAMES[start]}")  # fmt: skip
    last.set_xlabel("x at t = 1")
    last.set_title("the two starts", fontsize=10)
    plots.legend_below(fig, flat[0], last, columns=4)
    fig.suptitle(f"The score of {note_name(config)} and the starts of its runs", fontsize=11)
    return fig


def draw_exact(config: Config, arrays: Arrays) -> Figure:
    """Where the wrong share comes from."""
    fig, axes = plots.figure(1, 3, height=3.9)
    left, middle, right = axes[0]
    x = arrays["grid"]
    left.plot(x, arrays["given"], color=EXACT, label="chance to end right of 0.2, $\\eta = 1$")
    left.plot(x, x > float(arrays["edge"][0]), color=ETA_COLORS[0], linewidth=1.2,
              label="the same, $\\eta = 0$")  # fmt: skip
    for row, (start, style) in zip(arrays["starts"], zip(STARTS, (":", "--")), strict=True):
        left.plot(x, row, style, color="black", label=f"start {START_NAMES[start]}")
    left.set(xlabel="x at t = 1", title="who ends on the right", ylim=(0, 1.05))
    for eta in config.etas:
        key = key_of("exact", WRONG, eta, config.shown_steps)
        middle.plot(arrays["centres"], arrays[f"density {key}"], color=color_of(config, eta),
                    linewidth=1.3, label=f"from $N(0, 1)$, $\\eta = {eta:g}$")  # fmt: skip
    middle.plot(x, arrays["density"], "-.", color="black", linewidth=1.0, label="$p_0$, the truth")
    middle.set(xlim=(-2.4, 2.2), ylim=(0, None), xlabel="x at t = 0", title="laws of the runs")
    T, rows = arrays["horizons"], arrays["longer"]
    names = ("$N(0, T)$, $\\eta = 1$", "$N(0, T)$, $\\eta = 0$", "mean, variance of $p_T$")
    for row, name, color, style in zip(
        rows, names, (EXACT, ETA_COLORS[0], plots.COLORS[6]), ("-", "-", "--"), strict=True
    ):
        right.plot(T, row, style, color=color, label=f"start {name}" if style == "--" else None)
    right.axhline(float(arrays["truth"][0]), color="black", linestyle="-.", linewidth=1.0)
    right.axvline(1.0, color="0.6", linewidth=0.8)
    right.set(xscale="log", xlabel="length T of the process", title="share right, from N(0, T)")
    for ax in axes[0]:
        ax.title.set_fontsize(10)
    plots.legend_below(fig, *axes[0], columns=3)
    by_noise, by_map = arrays[f"quadrature {WRONG}"][0], arrays[f"flow {WRONG}"][0]
    fig.suptitle(
        f"Exact score from N(0, 1): {by_noise:.4f} ($\\eta = 1$) and {by_map:.4f} ($\\eta = 0$)"
        f" end right of 0.2, not {float(arrays['truth'][0]):.4f}",
        fontsize=11,
    )
    return fig


def draw_steps(config: Config, arrays: Arrays) -> Figure:
    """Shares and W1 against the number of steps."""
    fig, axes = plots.figure(2, 2, height=5.8)
    frame = steps_table(config, arrays)
    truth = float(arrays["truth"][0])
    for column, start in zip(axes.T, STARTS, strict=True):
        top, bottom = column
        for i, eta in enumerate(config.etas):
            some = frame[(frame["start"] == start) & (frame["eta"] == eta)]
            n = some["steps"] * 1.04 ** (i - 0.5 * (len(config.etas) - 1))
            style = {"color": color_of(config, eta), "capsize": 2, "markersize": 3.5}
            top.errorbar(
                n, some["right"], some["error"], fmt="o", label=f"$\\eta = {eta:g}$", **style
            )
            top.plot(some["steps"], some["law of the steps"], color=style["color"], linewidth=1.0)
            bottom.errorbar(n, some["W1"], some["W1 error"], fmt="o-", linewidth=0.9, **style)
        top.axhline(truth, color="black", linestyle="--", linewidth=1.2, label="truth")
        some = frame[(frame["start"] == start) & (frame["eta"] == config.etas[0])]
        floor, spread = some["W1 floor"].mean(), some["W1 floor spread"].mean()
        bottom.axhspan(floor - spread, floor + spread, color="0.85",
                       label="true samples ± one deviation")  # fmt: skip
        top.set_title(f"start {START_NAMES[start]}", fontsize=10)
        bottom.set(yscale="log", xlabel="steps")
        for ax in column:
            ax.set_xscale("log")
            ax.set_xticks(config.steps, [str(k) for k in config.steps])
            ax.xaxis.minorticks_off()
    axes[0, 0].set_ylabel("share right of 0.2")
    axes[1, 0].set_ylabel("Wasserstein-1 to $p_0$")
    for row in axes:
        low, high = min(ax.get_ylim()[0] for ax in row), max(ax.get_ylim()[1] for ax in row)
        for ax in row:
            ax.set_ylim(low, high)
    plots.legend_below(fig, axes[0, 0], axes[1, 0], columns=6)
    fig.suptitle(
        f"Exact score, {config.particles:,} particles; thin lines: the exact law of the steps",
        fontsize=11,
    )
    return fig


def draw_plane(config: Config, arrays: Arrays) -> Figure:
    """The swiss roll on its way back, a row for each eta."""
    times = panel_times(arrays)
    shown = np.searchsorted(arrays["plane kept"], arrays["plane panels"])
    h, finest = config.half, config.plane_steps[-1]
    fig, axes = plots.figure(
        len(config.etas), len(times), height=1.45 + 1.27 * len(config.etas), share=True
    )
    for row, eta in zip(axes, config.etas, strict=True):
        states = arrays[f"plane {eta:g} {finest} states"]
        for ax, place in zip(row, shown.tolist(), strict=True):
            image = plots.background(ax, arrays["plane log_density"][place], (-h, h, -h, h))
            x = states[place]
            ax.scatter(x[:, 0], x[:, 1], s=0.7, c="black", linewidths=0, alpha=0.7, rasterized=True)
            ax.set(xlim=(-h, h), ylim=(-h, h), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
        row[0].set_ylabel(f"$\\eta = {eta:g}$")
    for ax, t in zip(axes[0], times, strict=True):
        ax.set_title(time_name(t), fontsize=9)
    bar = fig.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6, pad=0.02, aspect=45,
                       ticks=(-12, -9, -6, -3, 0))  # fmt: skip
    bar.set_label("background: exact log-density of $X_t$ minus its maximum / nats")
    fig.suptitle(
        f"Swiss roll by the reverse SDE, exact score, {finest} Euler-Maruyama steps:"
        f" {config.plane_particles:,} points\n({min(SCATTERED, config.plane_particles)} drawn;"
        " $\\eta = 0$ is the probability flow, $\\eta = 1$ the time reversal)",
        fontsize=11,
    )
    return fig


def time_name(t: float) -> str:
    """A time in a title."""
    if t in (0.0, 1.0):
        return "$t = 0$, the end" if t == 0 else "$t = 1$, the start"
    ratio = math.exp(-0.5 * float(VP().log_snr(t)))
    return f"$\\sigma/\\alpha = {ratio:.2g}$"


def draw_plane_steps(config: Config, arrays: Arrays) -> Figure:
    """How far from the exact law, by time and by number of steps."""
    fig, axes = plots.figure(1, 3, height=3.6)
    left, middle, right = axes[0]
    times, ends = times_table(config, arrays), plane_table(config, arrays)
    xs = np.arange(len(panel_times(arrays)))
    count = len(config.etas)
    for i, eta in enumerate(config.etas):
        style: dict[str, Any] = {"color": color_of(config, eta), "capsize": 2, "markersize": 3.5}
        shift = i - 0.5 * (count - 1)
        some = times[times["eta"] == eta]
        left.errorbar(xs + 0.16 * shift, some["sliced W2"], some["error"], fmt="o",
                      label=f"$\\eta = {eta:g}$", **style)  # fmt: skip
        some = ends[ends["eta"] == eta]
        n = some["steps"] * 1.04**shift
        middle.errorbar(n, some["sliced W2"], some["error"], fmt="o-", linewidth=0.9, **style)
        right.errorbar(n, some["gap / nats"], some["gap error"], fmt="o-", linewidth=0.9, **style)
    some = times[times["eta"] == config.etas[0]]
    low, high = some["floor"] - some["floor spread"], some["floor"] + some["floor spread"]
    left.bar(xs, high - low, 0.8, low, color="0.87", label="true samples ± one deviation")
    middle.axhspan(float(low.iloc[-1]), float(high.iloc[-1]), color="0.87")
    spread = float(some["true spread"].iloc[-1])
    right.axhspan(-spread, spread, color="0.87")
    names = ["start", *(time_name(t).split("= ")[1].strip("$") for t in panel_times(arrays)[1:-1])]
    left.set_xticks(xs, [*names, "end"], fontsize=8)
    left.set(ylim=(0, None), title=f"sliced $W_2$, {config.plane_steps[-1]} steps")
    left.set_xlabel("$\\sigma/\\alpha$")
    middle.set(title="sliced $W_2$ at the end", ylim=(0, None), xlabel="steps")
    right.set(title="gap at the end / nats", xlabel="steps")
    for ax in (middle, right):
        ax.set_xscale("log")
        ax.set_xticks(config.plane_steps, [str(n) for n in config.plane_steps])
        ax.xaxis.minorticks_off()
    for ax in axes[0]:
        ax.title.set_fontsize(10)
    plots.legend_below(fig, left, columns=5)
    fig.suptitle("Swiss roll, exact score: the distance to the exact law of $X_t$", fontsize=11)
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Histograms; the note; its score; where the shares come from; steps; the plane."""
    return {
        "": draw_main(config, arrays),
        "replay": draw_replay(config, arrays),
        "score": draw_score(config, arrays),
        "exact": draw_exact(config, arrays),
        "steps": draw_steps(config, arrays),
        "swiss_roll": draw_plane(config, arrays),
        "swiss_roll_steps": draw_plane_steps(config, arrays),
    }


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """The same start with eta = 0 and eta = 1 side by side."""
    fig, axes = plots.figure(1, 2, height=4.5, share=True)
    h, kept = config.half, arrays["plane kept"]
    shown = np.searchsorted(kept, arrays["plane film"])
    found: list[Any] = []
    for place in shown.tolist():
        t = float(arrays["plane times"][place])
        for ax, eta in zip(axes[0], (0.0, 1.0), strict=True):
            ax.clear()
            plots.background(ax, arrays["plane log_density"][place], (-h, h, -h, h))
            x = arrays[f"plane {eta:g} {config.plane_steps[-1]} states"][place, :1200]
            ax.scatter(x[:, 0], x[:, 1], s=1.6, c="black", linewidths=0, alpha=0.7)
            ax.set(xlim=(-h, h), ylim=(-h, h), aspect="equal", xticks=(-2, 0, 2), yticks=(-2, 0, 2))
            words = "probability flow" if eta == 0 else "reverse SDE"
            ax.set_title(f"{words}, $\\eta = {eta:g}$: {time_name(t)}", fontsize=10)
        found.append(plots.frame(fig, dpi=80))
        fig.set_layout_engine("none")
    ms = [140.0] * len(found)
    ms[0], ms[-1] = 800.0, 2500.0
    return {"swiss_roll": plots.gif(found, ms)}


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What does a reverse SDE make of a wrong start, and how much noise should it take?",
    animate,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
