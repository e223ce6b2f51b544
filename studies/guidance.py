"""What a guided sampler samples, and how far that is from the law that guidance is named after.

    guided score    s_u + gamma (s_c - s_u) = grad log q_t,   q_t = p_t(x) p_t(c|x)^gamma/Z_t
    tilted law      q_0 = p(x) p(c|x)^gamma/Z

With the exact classifier, s_u + gamma grad log p_t(c|x) is the guided score too, so that classifier
guidance samples the same: table `classifier` has how far eps of both are apart, by rounding alone.
gamma = 1 is the conditional model (Ho and Salimans 2022 write w = gamma - 1).  The q_t are no
diffusion of q_0, whose score at t is grad log p_t(x) E[p(c|X_0)^gamma | X_t = x]: the two differ by

    gap             grad(gamma log E[r|x] - log E[r^gamma|x]),  r = p(c|X_0), X_0 ~ p(.|X_t = x)

which is 0 for gamma = 0 and 1 and at t = 0 alone.  So neither the flow nor the reverse SDE ends
with q_0 (Du et al. 2023; Bradley and Nakkiran 2024; Chidambaram et al. 2024).  On the line what
they end with is known without a sample:

    flow            its cdf at any place is that of the start where the place comes from, its
                    density too, with the change of variables along the flow
    SDE, eta        its Fokker-Planck equation; noise eta is the flow with eta^2 g^2/2 Langevin
                    steps a time, so that eta to infinity, where each q_t is reached, ends with q_0

The start is the conditional law at T, so that gamma = 1 ends with p(.|c) in exact arithmetic: what
is left there is the error of the method, and so is the change when the mesh is halved.  In the
plane there are samples of `seeds` sets of starts and noise, each held against true samples of its
own; floors are those of fresh true samples.  The SDE and the Langevin steps are run once more with
half the steps, each as long as two, from the same starts, with the same noise joined two by two and
measured in the same directions: a method of first order is changed by as much as it is still off.
The Langevin steps take the same time in all, so that to lack time is no part of their change.

Networks learn eps of both models at once, from labels that are dropped with probability `dropped`,
and guide themselves: their eps is held against the exact one under p_t(.|c), where they were
trained, and under the law of the exact guided flow, where they are used.  Their samples come from
the same starts as the exact ones, from T to `earliest` and by the mean there to 0.

Closed forms for N(0, 1) guided against N(0, 2), variance exploding: the flow ends with variance
2^(1 - gamma), the SDE with (2 - 2^(2 - 2 gamma))/(2 gamma - 1), q_0 has 2/(gamma + 1) (Bradley and
Nakkiran 2024, theorem 2).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import (
    EDM,
    VP,
    GaussianMixture,
    Network,
    Oracle,
    fokker_planck,
    grids,
    likelihood,
    metrics,
    nets,
    plots,
    samplers,
    solvers,
    train,
)
from diffscience.errors import ArgumentError, instance, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.guidance import ClassifierGuided, Guided, Labelled, label_dropout
from diffscience.models import Model
from diffscience.noise import Noise, Sequential, Stored
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target
from diffscience.tilted import Tilted

Arrays = dict[str, np.ndarray]

PROCESS = VP()
CLASS = 0  # the class that is guided to


def overlap() -> Labelled:
    """1/2 N(1, 1) guided away from 1/2 N(-1, 1)."""
    return Labelled(GaussianMixture([0.5, 0.5], [[1.0], [-1.0]], np.ones((2, 1))), [0, 1])


def modes() -> Labelled:
    """0.35 N(0, 1/4) and 0.25 N(3, 1/4) in one class, 0.4 N(-1.2, 1/4) next to the former."""
    var = np.full((3, 1), 0.25)
    return Labelled(GaussianMixture([0.35, 0.25, 0.4], [[0.0], [3.0], [-1.2]], var), [0, 0, 1])


def plane() -> Labelled:
    """Three modes in one class, each next to one of the two modes of another."""
    means = [[0.0, 1.1], [2.2, 0.9], [1.2, -1.4], [-1.2, 0.5], [0.1, -1.5]]
    covs = np.array([[[0.2, 0.08], [0.08, 0.15]]] * 5)
    covs[1:3, 0, 1] = covs[1:3, 1, 0] = -0.08
    law = GaussianMixture([0.25, 0.2, 0.15, 0.25, 0.15], means, covs)
    return Labelled(law, [0, 0, 0, 1, 1])


LINES = {"overlap": overlap, "modes": modes}
LAWS = {**LINES, "plane": plane}
LEARNED = ("modes", "plane")
TILTED, FLOW = "tilted law", "flow"
SDE, MIXED = "SDE", "flow + Langevin"  # in the plane
PLANE_SAMPLERS = (TILTED, FLOW, SDE, MIXED)
HALVED = {f"{sampler}, half the steps": sampler for sampler in (SDE, MIXED)}
CONDITIONAL, GUIDED = PLACES = ("under the conditional law", "under the guided law")


@dataclass(frozen=True)
class Config:
    """What is computed.

    gammas : on the line, 1 first, increasing. shown : 1 to 3 of them, which are drawn, and with 1
        are those in the plane and of the networks.
    etas : noise levels of the SDEs, 1 first, increasing.
    points : even places of a flow's law on the line, and quantiles that start there, at normal
        scores from -6.5 to 6.5.
    tolerance : of flows on the line; in the plane and of networks it is a hundred times that.
    cells, steps : of the Fokker-Planck equation, and half of both for the error.
    levels : times of the gap and of the errors. places : points across the gap.
    seeds, samples : in the plane, samples of each seed; steps of its SDE; corrections of its
        Langevin steps at each of `corrected` times. Both are run with half the steps too.
    repeats : true samples behind a floor.
    networks : of each law, trained side by side. training, batch, rate, final_rate, widths, dropped
        : of each of them.
    earliest : the last time that a network is asked at, and the first that it is trained at.
    pixels : of the pictures in the plane.
    """

    gammas: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
    shown: tuple[float, ...] = (1.5, 3.0, 8.0)
    etas: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)
    points: int = 301
    tolerance: float = 1e-7
    cells: int = 800
    steps: int = 800
    levels: int = 18
    places: int = 151
    seeds: int = 8
    samples: int = 800
    sde_steps: int = 150
    corrected: int = 100
    corrections: int = 20
    repeats: int = 8
    networks: int = 8
    training: int = 2500
    batch: int = 256
    rate: float = 3e-3
    final_rate: float = 1e-5
    widths: tuple[int, ...] = (32, 32, 32)
    dropped: float = 0.15
    earliest: float = 1e-3
    pixels: int = 120
    seed: int = 41

    @property
    def few(self) -> tuple[float, ...]:
        """The gammas in the plane and of the networks."""
        return (1.0, *(gamma for gamma in self.shown if gamma > 1))

    def __post_init__(self) -> None:
        for name, least in (("gammas", 1.0), ("etas", 1.0), ("shown", 1.0)):
            given = getattr(self, name)
            instance(name, given, tuple)
            for value in given:
                number(name, value, least)
            if not given or list(given) != sorted(set(given)):
                raise ArgumentError(name, "be one or more numbers that increase", given)
        for name in ("gammas", "etas"):
            if getattr(self, name)[0] != 1:
                raise ArgumentError(name, "begin with 1", getattr(self, name))
        if not set(self.shown) <= set(self.gammas) or len(self.shown) > 3:
            raise ArgumentError("shown", "be 1 to 3 of the gammas", self.shown)
        whole_numbers = {
            "points": 3, "cells": 8, "steps": 4, "levels": 2, "places": 3, "seeds": 2,
            "samples": 10, "sde_steps": 1, "corrected": 1, "corrections": 0, "repeats": 2,
            "networks": 2, "training": 1, "batch": 1, "pixels": 2,
        }  # fmt: skip
        for name, low in whole_numbers.items():
            whole(name, getattr(self, name), low)
        instance("widths", self.widths, tuple)
        number("tolerance", self.tolerance, 0, 1e-3, "(]")
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("dropped", self.dropped, 0, 1, "()")
        number("earliest", self.earliest, 0, 0.1, "()")


QUICK = Config(
    gammas=(1.0, 3.0), shown=(3.0,), etas=(1.0, 4.0), points=61, tolerance=1e-4, cells=120,
    steps=40, levels=4, places=41, seeds=2, samples=100, sde_steps=30, corrected=20, corrections=4,
    repeats=2, networks=2, training=30, batch=64, widths=(32, 32), earliest=5e-3, pixels=32,
)  # fmt: skip


# ---------------------------------------------------------------- models and measures


def guided(law: Labelled, gamma: float) -> Guided:
    """The exact guided model of the class."""
    conditional, whole = (Oracle(p, PROCESS) for p in (law.classes[CLASS], law.law))
    return Guided(conditional, whole, gamma)


def by_classifier(law: Labelled, gamma: float) -> ClassifierGuided:
    """The unconditional model pushed towards the class by the exact classifier."""
    return ClassifierGuided(Oracle(law.law, PROCESS), law.classifier(PROCESS, CLASS), gamma)


def beginning(law: Labelled) -> Target:
    """The law that every run starts from: that of the class at T."""
    start: Target = law.classes[CLASS].diffuse(PROCESS.at(PROCESS.T))
    return start


def scores(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores z (P,) and the mass of each, for which E f(X) = sum of mass f(x(z))."""
    z = np.linspace(-6.5, 6.5, config.points)
    mass = np.exp(-0.5 * z * z)
    return z, mass / mass.sum()


def quantiles(config: Config, law: Target) -> np.ndarray:
    """The quantiles (P, 1) of a law at the scores."""
    from scipy.special import ndtr

    return np.asarray(law.quantile(ndtr(scores(config)[0])))


def times_of(config: Config) -> np.ndarray:
    """Times at which scores are compared, even in log t, from `earliest` to T."""
    return np.geomspace(config.earliest, PROCESS.T, config.levels)


MEASURES = ("mean", "deviation", "purity", "near mode")
DISTANCES = ("W1 to the tilted law", "KL to the tilted law")


def measures(law: Labelled, x: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """Mean, deviation, E p(c|X) and the share of the first component in its class, (4,)."""
    mean = mass @ x
    near = metrics.responsibilities(x, law.classes[CLASS])[:, 0]
    spread = math.sqrt(float(mass @ np.sum((x - mean) ** 2, axis=1)))
    purity = float(mass @ law.posterior(x)[:, CLASS])
    return np.array([mean[0], spread, purity, mass @ near])


# ---------------------------------------------------------------- on the line


def window(config: Config, name: str) -> np.ndarray:
    """Places across the pictures of a law on the line."""
    low, high = (-3.0, 7.0) if name == "overlap" else (-2.5, 6.0)
    return np.linspace(low, high, 2 * config.places + 1)


def line_truth(config: Config, name: str) -> Arrays:
    """Of the tilted laws: measures and distances (G, 7), and densities for the pictures.

    Distances are W1 and KL to the tilted law, and W1 to the conditional law.
    """
    law, x = LINES[name](), window(config, name)
    conditional = law.classes[CLASS]
    wide = np.linspace(*EDGES, 4001)[:, None]
    found, pictures = [], []
    for gamma in config.gammas:
        tilted = Tilted(law, CLASS, gamma)
        apart = np.abs(tilted.cdf(wide) - conditional.cdf(wide))
        own = measures(law, *tilted.quadrature())
        found.append([*own, 0.0, 0.0, float(apart.sum() * (wide[1, 0] - wide[0, 0]))])
        pictures.append(np.exp(tilted.log_prob(x[:, None])))
    return {
        "x": x,
        "measures": np.array(found),
        "density": np.stack(pictures),
        "conditional": np.exp(conditional.log_prob(x[:, None])),
    }


def flow_law(config: Config, _: Run, name: str, gamma: float) -> Arrays:
    """What the guided flow ends with: its density at even places (P,), and its measures.

    The places are followed back to T, where the start has a density and a cdf, which flows on the
    line keep. The change is that with half the places and a hundred times the tolerance.
    """
    law = LINES[name]()
    model, start = guided(law, gamma), beginning(law)
    ends = quantiles(config, start)[[0, -1]]
    tolerance, rows = config.tolerance, []
    low, high = solvers.flow(model, ends, [PROCESS.T, 0.0], rtol=tolerance, atol=tolerance).last
    for count, tol in ((config.points, tolerance), (config.points // 2, 100 * tolerance)):
        x = np.linspace(low, high, count)
        found = likelihood.log_prob(model, x, prior=start, rtol=tol, atol=tol)
        below = np.asarray(start.cdf(found.latent))
        rows.append((x, found.log_prob, followed(law, gamma, x, found.log_prob, below)))
    (x, log_q, values), rough = rows[0], rows[1][-1]
    change = np.abs(values - rough)[-3:]
    return {"x": x[:, 0], "log q": log_q, "measures": values, "change": change}


def followed(
    law: Labelled, gamma: float, x: np.ndarray, log_q: np.ndarray, below: np.ndarray
) -> np.ndarray:
    """Measures of a law known at even places by its density and cdf, with its distances, (7,).

    Sums over even places converge geometrically, that of |F - G| as the square of their distance.
    """
    tilted, conditional = Tilted(law, CLASS, gamma), law.classes[CLASS]
    step = float(x[1, 0] - x[0, 0])
    mass = step * np.exp(log_q)
    mass /= mass.sum()
    first, second = (step * np.abs(below - p.cdf(x)).sum() for p in (tilted, conditional))
    kl = mass @ (log_q - tilted.log_prob(x))
    return np.array([*measures(law, x, mass), first, kl, second])


EDGES = (-9.0, 13.0)


@dataclass(frozen=True)
class Mesh:
    """Cells and times of a law under Fokker-Planck, with the drifts of its two models there.

    drifts : (steps + 1, model, eta, cells - 1), u before c and eta = 0 before 1: reverse drifts are
        affine in gamma and in eta^2.
    """

    edges: np.ndarray
    down: np.ndarray
    drifts: np.ndarray

    @classmethod
    def of(cls, config: Config, law: Labelled, part: int = 1) -> Mesh:
        """With 1/part of the config's cells and steps."""
        edges = fokker_planck.cells(*EDGES, config.cells // part)
        down = grids.log_snr(PROCESS, config.steps // part)
        x, pair = edges[1:-1, None], exact_pair(law)
        drifts = [
            [[np.asarray(m.drift(x, t, eta))[:, 0] for eta in (0.0, 1.0)] for m in pair]
            for t in down.tolist()
        ]
        return cls(edges, down, np.array(drifts))

    def end(self, law: Labelled, gamma: float, eta: float) -> np.ndarray:
        """The densities in the cells that the guided reverse SDE ends with."""
        mix = np.outer([1 - gamma, gamma], [1 - eta**2, eta**2])
        drifts = -np.einsum("kmec,me->kc", self.drifts, mix)
        noise = 0.5 * (eta * np.asarray(PROCESS.diffusion(self.down))) ** 2
        clock = PROCESS.T - self.down
        step = {float(u): k for k, u in enumerate(clock)}
        density = fokker_planck.averages(beginning(law), self.edges)
        *_, (_, density) = fokker_planck.evolve(
            density,
            self.edges,
            lambda _, u: drifts[step[u]],
            lambda u: float(noise[step[u]]),
            clock,
        )
        return np.maximum(density, 0.0)  # long steps may leave some -1e-10 in the tails


def against(law: Labelled, gamma: float, edges: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Measures of a law on cells, with its W1 and KL to the tilted law and W1 to the conditional.

    W1 = int |F - G| dx on the edges; cells without mass leave KL as it is.
    """
    tilted, conditional = Tilted(law, CLASS, gamma), law.classes[CLASS]
    width, centres = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    mass = density * width
    below = np.concatenate([[0.0], np.cumsum(mass)])
    apart = [np.abs(below - p.cdf(edges[:, None])) for p in (tilted, conditional)]
    first, second = (float(0.5 * width @ (a[1:] + a[:-1])) for a in apart)
    some, own = mass > 1e-14, fokker_planck.averages(tilted, edges)
    # Where a difference of cdfs has no digits left the density at the centre stands for it.
    log_own = np.where(
        own > 1e-12, np.log(np.maximum(own, 1e-300)), tilted.log_prob(centres[:, None])
    )
    gap = (np.log(np.maximum(density, 1e-300)) - log_own)[some]
    shown = measures(law, centres[:, None], mass / mass.sum())
    return np.array([*shown, first, float(mass[some] @ gap), second])


def sde_laws(config: Config, _: Run, name: str) -> Arrays:
    """What the guided SDEs end with, (G, E, ...): densities, measures, their change by half.

    All gammas share one mesh, whose drifts take longer than what is done with them.
    """
    law = LINES[name]()
    fine, rough = (Mesh.of(config, law, part) for part in (1, 2))
    densities, found, change = [], [], []
    for gamma in config.gammas:
        for eta in config.etas:
            densities.append(fine.end(law, gamma, eta))
            found.append(against(law, gamma, fine.edges, densities[-1]))
            half = against(law, gamma, rough.edges, rough.end(law, gamma, eta))
            change.append(np.abs(found[-1] - half)[-3:])
    shape = (len(config.gammas), len(config.etas), -1)
    return {
        "edges": fine.edges,
        "density": np.reshape(densities, shape),
        "measures": np.reshape(found, shape),
        "change": np.reshape(change, shape),
    }


def gap(config: Config, _: Run, name: str) -> Arrays:
    """Guided minus right score (G, T, X), log of the right law, and relative gaps (G, T).

    relative^2 = E|gap|^2/E|score|^2 under the right law at t.
    """
    law = LINES[name]()
    x = np.linspace(-6.0, 9.0, config.places)[:, None]
    found, logs, relative = [], [], []
    for gamma in config.gammas:
        right, model = Oracle(Tilted(law, CLASS, gamma), PROCESS), guided(law, gamma)
        for t in times_of(config).tolist():
            log_p, score = right.at(t).log_prob_and_score(x)
            off, p = model.score(x, t) - score, np.exp(log_p)
            found.append(off[:, 0])
            logs.append(log_p)
            relative.append(math.sqrt(float(p @ off[:, 0] ** 2) / float(p @ score[:, 0] ** 2)))
    shape = (len(config.gammas), config.levels)
    return {
        "off": np.reshape(found, (*shape, -1)),
        "log p": np.reshape(logs, (*shape, -1)),
        "relative": np.reshape(relative, shape),
        "x": x[:, 0],
        "paths": paths(config, law, middle(config)),
    }


def middle(config: Config) -> float:
    """The gamma of the pictures that show one."""
    return config.shown[len(config.shown) // 2]


def paths(config: Config, law: Labelled, gamma: float) -> np.ndarray:
    """Quantiles along the guided flow at the times of the gap, (T, 5), from early to late."""
    from scipy.special import ndtri

    z, _ = scores(config)
    chosen = [int(np.argmin(np.abs(z - ndtri(u)))) for u in (0.05, 0.25, 0.5, 0.75, 0.95)]
    start = quantiles(config, beginning(law))[chosen]
    times = times_of(config)[::-1]
    loose = 100 * config.tolerance
    run = solvers.flow(
        guided(law, gamma), start, times, rtol=loose, atol=loose, keep=range(len(times))
    )
    return np.asarray(run.states)[::-1, :, 0]


# ---------------------------------------------------------------- closed forms


def variance_after(model: Model, eta: float, start: float, nodes: int = 20_001) -> float:
    """The variance that a linear reverse SDE makes of N(0, start) from T to 0.

    dX = a X dt + eta g dW has v(0) = exp(-A(T)) v(T) + int eta^2 g^2 exp(-A(t)) dt with A the
    integral of 2 a from 0; by Simpson's rule on the clock t^(1/3).
    """
    from scipy.integrate import cumulative_simpson

    u = np.linspace(0.0, model.process.T ** (1 / 3), nodes)
    t, speed = np.minimum(u**3, model.process.T), 3 * u * u
    slope = np.asarray(model.drift(np.ones((nodes, 1)), t, eta))[:, 0]
    A = cumulative_simpson(2 * slope * speed, x=u, initial=0.0)
    fresh = (eta * np.asarray(model.process.diffusion(t))) ** 2 * np.exp(-A) * speed
    return float(start * np.exp(-A[-1]) + cumulative_simpson(fresh, x=u, initial=0.0)[-1])


def gaussians(config: Config) -> Arrays:
    """Variances of N(0, 1) guided against N(0, 2) from T = 80: (G, 3), solved and in closed form.

    Columns: flow, SDE, tilted law, whose score at t = 0 is the guided one.
    """
    process, one = EDM(80.0), np.ones((1, 1))
    narrow, wide = (Oracle(GaussianMixture([1.0], [[0.0]], [[v]]), process) for v in (1.0, 2.0))
    rows, closed = [], []
    for gamma in config.gammas:
        model = Guided(narrow, wide, gamma)
        ends = [variance_after(model, eta, 1 + process.T**2) for eta in (0.0, 1.0)]
        rows.append([*ends, -1 / float(model.score(one, 0.0)[0, 0])])
        sde = (2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1)
        closed.append([2 ** (1 - gamma), sde, 2 / (gamma + 1)])
    return {"gaussians": np.array(rows), "gaussians closed": np.array(closed)}


# ---------------------------------------------------------------- in the plane


def plane_truth(config: Config, gamma: float) -> Arrays:
    """Of the tilted law in the plane: measures (4,), and its log-density at the pixels."""
    law = plane()
    tilted = Tilted(law, CLASS, gamma)
    return {
        "truth": measures(law, *tilted.quadrature()),
        "log density": tilted.log_prob(pixels(config)).astype(np.float32),
    }


def plane_runs(config: Config, run: Run, gamma: float, sampler: str) -> Arrays:
    """Samples of one sampler in the plane, measured.

    With half the steps it is measured by the same draws as with all of them.
    x : those of the first seed, (samples, 2). measures : see `sampled`, (seeds, 7).
    """
    law, tilted = plane(), Tilted(plane(), CLASS, gamma)
    apart = np.split(plane_ends(config, run, gamma, sampler), config.seeds)
    draws = run.generator(f"plane {gamma:g}", HALVED.get(sampler, sampler))
    found = [sampled(config, law, own, tilted, draws) for own in apart]
    return {"x": apart[0], "measures": np.stack(found)}


def plane_ends(config: Config, run: Run, gamma: float, sampler: str) -> np.ndarray:
    """Where the runs of all seeds end, or samples of the tilted law, (seeds samples, 2)."""
    law, key, half = plane(), f"plane {gamma:g}", sampler in HALVED
    model, start = guided(law, gamma), plane_starts(config, run).reshape(-1, 2)
    if sampler == TILTED:
        draws = run.generator(key, "tilted")
        return np.asarray(Tilted(law, CLASS, gamma).sample(len(start), draws))
    if sampler == FLOW:
        times, loose = [PROCESS.T, 0.0], 100 * config.tolerance
        return np.asarray(solvers.flow(model, start, times, rtol=loose, atol=loose).last)
    if HALVED.get(sampler, sampler) == SDE:
        return sde_ends(config, model, start, run.seed_for(key, "noise"), half)
    return mixed_ends(config, model, start, run.generator(key, "mixing"), half)


def halved(times: np.ndarray) -> np.ndarray:
    """Every second time, and the last."""
    return np.append(times[:-1:2], times[-1])


def driving(seed: int, start: np.ndarray, times: np.ndarray) -> Stored:
    """The path of the noise of a run with a seed; without areas, for which Euler does not ask."""
    n, dim = start.shape
    source = Sequential(seed, n, dim, torch.float64)
    W = torch.stack([math.sqrt(h) * source.normal(n, dim) for h in np.abs(np.diff(times))])
    return Stored(times, W, torch.zeros_like(W))


def sde_ends(
    config: Config, model: Model, start: np.ndarray, seed: int, half: bool = False
) -> np.ndarray:
    """Where the reverse SDE ends, (n, 2); with half the steps on the same Brownian path."""
    down = grids.log_snr(PROCESS, config.sde_steps)
    if not half:
        return np.asarray(solvers.reverse(model, start, down, seed).last)
    few = halved(down)
    noise = driving(seed, start, down).on(few)
    return np.asarray(solvers.reverse(model, start, few, noise).last)


class Pairs(Noise):
    """Normal numbers for steps of twice the length: those of two steps, joined.

    generator : as the run of all steps has it.
    """

    def __init__(self, generator: np.random.Generator, n: int, dim: int) -> None:
        super().__init__(n, dim, torch.float64, "cpu")
        self.draws = generator

    def _next(self, area: bool) -> torch.Tensor:
        """z = (z_1 + z_2)/sqrt 2, (n, D); Langevin steps ask for no area."""
        z = self.draws.standard_normal((2, self.n, self.dim)).sum(axis=0)
        return torch.from_numpy(z / math.sqrt(2))


def mixed_ends(
    config: Config, model: Model, start: np.ndarray, draws: np.random.Generator, half: bool = False
) -> np.ndarray:
    """Where the flow with Langevin steps ends, (n, 2).

    With half the steps, the flow's are twice as long, and so are the Langevin steps, 2 (r sigma)^2
    each. These are at half the times, as many at each as before, and take the same time in all.
    """
    times, r = grids.log_snr(PROCESS, config.corrected), 0.3
    source: Any = draws
    if half:
        times, source, r = halved(times), Pairs(draws, *start.shape), math.sqrt(2) * r
    steps = samplers.predictor_corrector(
        model, start, times, source, snr=r, corrections=config.corrections,
        predictor=partial(samplers.exponential, eta=0.0),
    )  # fmt: skip
    return np.asarray(samplers.last(steps))


def plane_starts(config: Config, run: Run) -> np.ndarray:
    """Starts of every seed in the plane, common to all runs, (seeds, samples, 2)."""
    n, draws = config.seeds * config.samples, run.generator("plane start")
    return np.asarray(beginning(plane()).sample(n, draws)).reshape(config.seeds, -1, 2)


PLANE = (-2.0, 5.0, -4.0, 3.0)  # left, right, bottom, top


def pixels(config: Config) -> np.ndarray:
    """Centres of the pixels, (n, n, 2)."""
    left, right, bottom, top = PLANE
    u = (np.arange(config.pixels) + 0.5) / config.pixels
    return np.stack(np.meshgrid(left + (right - left) * u, bottom + (top - bottom) * u), -1)


def sampled(
    config: Config, law: Labelled, x: np.ndarray, tilted: Target, generator: np.random.Generator
) -> np.ndarray:
    """Of samples (n, 2): sliced W1 to the tilted law and its floor, the same to the conditional
    law, deviation, purity, and share of the near mode; (7,).
    """
    rows = []
    for target in (tilted, law.classes[CLASS]):
        e = metrics.sliced_wasserstein(x, target, generator, 1, repeats=config.repeats)
        rows += [e.value, e.floor]
    rows.append(math.sqrt(np.sum((x - x.mean(axis=0)) ** 2) / (len(x) - 1)))
    rows.append(law.posterior(x)[:, CLASS].mean())
    rows.append(metrics.responsibilities(x, law.classes[CLASS])[:, 0].mean())
    return np.array(rows)


# ---------------------------------------------------------------- learned


class Side(nets.Batched):
    """Networks of one shape that know classes, side by side: rows in blocks, one for each.

    The mean of a loss over all rows gives each member 1/S of its own gradient, which Adam undoes.
    """

    kind = nets.MLP
    frequencies: torch.Tensor

    def __init__(self, members: list[nets.MLP]) -> None:
        super().__init__(members)
        self.classes = members[0].classes
        self.register_buffer("frequencies", members[0].frequencies)

    def through(self, h: torch.Tensor) -> torch.Tensor:
        """h (S n, features) -> (S n, outputs), block s through member s."""
        return super().through(h.reshape(self.size, -1, h.shape[-1])).flatten(0, 1)

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (S n, D), t (S n,), label (S n,) -> (S n, outputs)."""
        # It asks for no more of an MLP than this class has too.
        return nets.MLP.forward(self, x, t, label)  # type: ignore[arg-type]


def learn(config: Config, name: str, run: Run) -> Network:
    """Networks of both models of a law side by side, each trained with dropped labels."""
    law = LAWS[name]()
    net = Side([
        nets.MLP(
            law.law.dim, config.widths, seed=run.seed_for(name, k, "weights"),
            classes=len(law.classes),
        ).to(run.device)
        for k in range(config.networks)
    ])  # fmt: skip
    network = Network(net, PROCESS, predicts="eps")
    times = train.uniform_times(PROCESS, config.earliest)
    rows = label_dropout(network, law, dropped=config.dropped, times=times)
    history = train.fit(
        net, law.law, rows, steps=config.training, seed=run.seed_for(name, "training"),
        batch=config.networks * config.batch, rate=config.rate, final_rate=config.final_rate,
        progress=partial(run.progress, description=f"networks of {name}"),
    )  # fmt: skip
    if history.interrupted:
        raise KeyboardInterrupt
    net.requires_grad_(False)
    return network


def starts(config: Config, name: str, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Starts (n, D) of a law's runs, quantiles or samples, and the mass of each."""
    if name == "plane":
        x = plane_starts(config, run)[0]
        return x, np.full(len(x), 1 / len(x))
    return quantiles(config, beginning(LAWS[name]())), scores(config)[1]


def walked(config: Config, model: Model, start: np.ndarray, device: str = "cpu") -> np.ndarray:
    """A flow at the times of the errors, late to early, and by its mean at the last to 0."""
    times = times_of(config)[::-1]
    loose = 100 * config.tolerance
    run = solvers.flow(
        model, start, times, rtol=loose, atol=loose, keep=range(len(times)), device=device
    )
    states = np.asarray(run.states)
    return np.concatenate([states, np.asarray(model.x0(states[-1], float(times[-1])))[None]])


def exact_walks(config: Config, name: str, run: Run) -> Arrays:
    """States (G, T + 1, n, D) of the exact guided flows, and their measures at the end (G, 4)."""
    law, (start, mass) = LAWS[name](), starts(config, name, run)
    states = np.stack([walked(config, guided(law, g), start) for g in config.few])
    return {"states": states, "measures": np.stack([measures(law, s[-1], mass) for s in states])}


def exact_pair(law: Labelled) -> tuple[Model, Model]:
    """The exact unconditional and conditional models."""
    return Oracle(law.law, PROCESS), Oracle(law.classes[CLASS], PROCESS)


def eps_pair(config: Config, pair: tuple[Model, Model], states: np.ndarray) -> np.ndarray:
    """eps of two models at states (T, n, D) of decreasing times, (2, T, n, D)."""
    times = times_of(config)[::-1].tolist()
    return np.stack([[np.asarray(m.eps(x, t)) for t, x in zip(times, states)] for m in pair])


def gammas_of(config: Config, name: str) -> tuple[float, ...]:
    """The gammas that a law is guided with."""
    return config.gammas if name in LINES else config.few


def classified(config: Config, name: str, run: Run) -> Arrays:
    """Classifier guidance against classifier-free guidance, both exact, for each gamma, (G,).

    apart : largest |eps - eps'| of any coordinate over the states of the exact guided flow at the
        times of the errors. size : largest |eps| there.
    """
    law, (start, _) = LAWS[name](), starts(config, name, run)
    apart, size = [], []
    for gamma in gammas_of(config, name):
        pair = guided(law, gamma), by_classifier(law, gamma)
        free, pushed = eps_pair(config, pair, walked(config, pair[0], start)[:-1])
        apart.append(np.abs(pushed - free).max())
        size.append(np.abs(free).max())
    return {"apart": np.array(apart), "size": np.array(size)}


def conditional_states(config: Config, name: str, run: Run) -> np.ndarray:
    """Points (T, n, D) of p_t(.|c), with the mass of the starts."""
    law = LAWS[name]().classes[CLASS]
    times = times_of(config)[::-1].tolist()
    if name == "plane":
        x0 = law.sample(config.samples, run.generator("plane clean"))
        noise = run.generator("plane noise").standard_normal(x0.shape)
        return np.stack([PROCESS.at(t).apply(x0, noise) for t in times])
    return np.stack([quantiles(config, law.diffuse(PROCESS.at(t))) for t in times])


def rms(off: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """sqrt(E|off|^2/D) at each time: (..., T, n, D) -> (..., T)."""
    return np.sqrt(np.mean(off * off, axis=-1) @ mass)


def learned(config: Config, name: str, exact: Arrays, run: Run) -> Arrays:
    """Networks: rms errors of eps (S, 2, G, T), measures (S, G, 4) and distances (S, G).

    The distance is E|x - exact x| of the same start, W1 on the line, where flows keep the order.
    """
    network, law = learn(config, name, run), LAWS[name]()
    pair = network.given(None), network.given(CLASS)
    (start, mass), S = starts(config, name, run), config.networks

    def apart(x: np.ndarray) -> np.ndarray:
        """Rows (..., S n, D) of all members as (S, ..., n, D)."""
        return np.moveaxis(x.reshape(*x.shape[:-2], S, -1, x.shape[-1]), -3, 0)

    def errors(states: np.ndarray, gamma: float) -> np.ndarray:
        """Of all members at the same states (T, n, D), (S, T)."""
        mix = np.array([1 - gamma, gamma])
        true = np.tensordot(mix, eps_pair(config, exact_pair(law), states), 1)
        own = np.tensordot(mix, eps_pair(config, pair, np.tile(states, (1, S, 1))), 1)
        return rms(apart(own) - true, mass)

    calm = conditional_states(config, name, run)
    found: list[Arrays] = []
    for gamma, states in zip(config.few, exact["states"], strict=True):
        model = Guided(pair[1], pair[0], gamma)
        x = apart(walked(config, model, np.tile(start, (S, 1)), run.device)[-1])
        found.append({
            "errors": np.stack([errors(calm, gamma), errors(states[:-1], gamma)], axis=1),
            "measures": np.stack([measures(law, own, mass) for own in x]),
            "distance": np.linalg.norm(x - states[-1], axis=-1) @ mass,
            "x": x[0],
        })  # fmt: skip
    axes = {"errors": 2, "measures": 1, "distance": 1, "x": 0}  # of gamma
    return {key: np.stack([one[key] for one in found], axis) for key, axis in axes.items()}


def networks(config: Config, run: Run, name: str) -> Arrays:
    """What `learned` finds on a law, "learned ...", and the measures of the exact flows, (G, 4).

    The samples x have one shape for all laws, as cells of a sweep must: NaN fills it up.
    """
    exact = exact_walks(config, name, run)
    found = learned(config, name, exact, run)
    x = np.full((len(config.few), max(config.points, config.samples), 2), math.nan)
    n, dim = found["x"].shape[1:]
    x[:, :n, :dim] = found["x"]
    found = {f"learned {key}": value for key, value in (found | {"x": x}).items()}
    return found | {"exact measures": exact["measures"]}


# ---------------------------------------------------------------- compute


def spread(columns: Arrays, axes: Iterable[str], form: str) -> Arrays:
    """The values of a sweep cell by cell, each under the name of its cell and its own.

    form : of a cell's name, as for `str.format`.
    """
    cells = [dict(zip(axes, at)) for at in zip(*(columns[axis] for axis in axes))]
    return {
        f"{form.format(**cell)} {key}": column[i]
        for i, cell in enumerate(cells)
        for key, column in columns.items()
        if key not in cell
    }


def compute(config: Config, run: Run) -> Arrays:
    """The closed forms and true laws as cells; laws on the line, the plane and networks as sweeps.

    The networks of a law are trained and run side by side in one batch, and so they are one cell.
    """
    arrays = dict(run.cell("gaussians", gaussians, config))
    for name in LINES:
        found = run.cell(f"{name} truth", line_truth, config, name)
        arrays |= {f"{name} truth {key}": value for key, value in found.items()}
    for gamma in config.few:
        found = run.cell(f"plane {gamma:g} truth", plane_truth, config, gamma)
        arrays |= {f"plane {gamma:g} {key}": value for key, value in found.items()}
    for name in LAWS:
        found = run.cell(f"{name} classifier", classified, config, name, run)
        arrays |= {f"{name} classifier {key}": value for key, value in found.items()}
    lines = {"name": tuple(LINES)}
    flows = lines | {"gamma": config.gammas}
    runs = {"gamma": config.few, "sampler": (*PLANE_SAMPLERS, *HALVED)}
    sweeps: tuple[tuple[str, Callable[..., Arrays], dict[str, Any], str], ...] = (
        ("gap", gap, lines, "{name} gap"),
        ("SDE", sde_laws, lines, "{name} SDE"),
        ("flow", flow_law, flows, "{name} flow {gamma:g}"),
        ("plane", plane_runs, runs, "plane {gamma:g} {sampler}"),
        ("networks", networks, {"name": LEARNED}, "{name}"),
    )
    for title, function, axes, form in sweeps:
        arrays |= spread(run.sweep(title, function, axes, config), axes, form)
    return arrays


# ---------------------------------------------------------------- tables


def sde_name(eta: float) -> str:
    """An SDE in words."""
    return f"SDE, eta = {eta:g}"


def line_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What is sampled on the line; changes are those when the mesh is halved."""
    rows = []
    for name in LINES:
        for i, gamma in enumerate(config.gammas):
            flow, sde = f"{name} flow {gamma:g}", f"{name} SDE"
            found = [
                (TILTED, arrays[f"{name} truth measures"][i], np.zeros(3)),
                (FLOW, arrays[f"{flow} measures"], arrays[f"{flow} change"]),
                *zip(
                    map(sde_name, config.etas), arrays[f"{sde} measures"][i],
                    arrays[f"{sde} change"][i], strict=True,
                ),
            ]  # fmt: skip
            for sampler, values, change in found:
                row: dict[str, Any] = {"law": name, "gamma": gamma, "sampler": sampler}
                row |= dict(zip((*MEASURES, DISTANCES[0]), values[:5].tolist()))
                row |= {"its change": change[0], DISTANCES[1]: values[5]}
                row |= {"change of it": change[1], "W1 to the conditional law": values[6]}
                rows.append(row | {"change of that": change[2]})
    frame = pd.DataFrame(rows)
    changes = dict.fromkeys(("its change", "change of it", "change of that"), 1)
    frame.attrs["digits"] = changes | dict.fromkeys(
        (*MEASURES, *DISTANCES, "W1 to the conditional law"), 3
    )
    return frame


def classifier_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """How far classifier guidance is from classifier-free guidance, both exact, on exact flows."""
    rows = [
        {"law": name, "gamma": gamma, "largest difference of eps": apart, "largest eps": size}
        for name in LAWS
        for gamma, apart, size in zip(
            gammas_of(config, name), arrays[f"{name} classifier apart"],
            arrays[f"{name} classifier size"], strict=True,
        )
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {"largest difference of eps": 1, "largest eps": 3}
    return frame


def gap_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Relative gap between the guided and the right score by time."""
    rows = [
        {"law": name, "t": t}
        | {
            f"gamma = {gamma:g}": arrays[f"{name} gap relative"][i, j]
            for i, gamma in enumerate(config.gammas)
        }
        for name in LINES
        for j, t in enumerate(times_of(config).tolist())
    ]
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns[1:], 3)
    return frame


def gaussian_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Variances of guided Gaussians, solved and in closed form."""
    rows = []
    pairs = zip(arrays["gaussians"].tolist(), arrays["gaussians closed"].tolist(), strict=True)
    for gamma, (solved, closed) in zip(config.gammas, pairs, strict=True):
        row: dict[str, Any] = {"gamma": gamma}
        for kind, one, two in zip((FLOW, SDE, TILTED), solved, closed, strict=True):
            row |= {kind: one, f"{kind}, closed form": two}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns[1:], 5)
    return frame


SAMPLED = (
    "sliced W1 to the tilted law", "its floor", "sliced W1 to the conditional law",
    "floor of that", *MEASURES[1:],
)  # fmt: skip


def plane_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What is sampled in the plane and its floors, with standard errors over seeds.

    Rows "change of ..." : all of it minus that with half the steps, seed by seed. They have no
    floors, which are the same.
    """
    rows = []
    for gamma in config.few:
        _, spread, purity, near = arrays[f"plane {gamma:g} truth"].tolist()
        row: dict[str, Any] = {"gamma": gamma, "sampler": f"{TILTED}, exactly"}
        rows.append(row | {"deviation": spread, "purity": purity, "near mode": near})
        for sampler in PLANE_SAMPLERS:
            row = {"gamma": gamma, "sampler": sampler}
            found = arrays[f"plane {gamma:g} {sampler} measures"]
            for word, values in zip(SAMPLED, found.T, strict=True):
                row[word], row[f"{word}, error"] = mean_and_error(values)
            rows.append(row)
        rows.extend(change_of(arrays, gamma, half) for half in HALVED)
    columns = list(rows[1])
    frame = pd.DataFrame(rows)[columns]
    frame.attrs["digits"] = {c: 2 if "error" in c else 3 for c in columns[2:]}
    return frame


def change_of(arrays: Arrays, gamma: float, half: str) -> dict[str, Any]:
    """The row of how half the steps change a sampler in the plane."""
    whole, few = (arrays[f"plane {gamma:g} {s} measures"] for s in (HALVED[half], half))
    row: dict[str, Any] = {"gamma": gamma, "sampler": f"change of {HALVED[half]}"}
    for word, values in zip(SAMPLED, (whole - few).T, strict=True):
        if "floor" not in word:
            row[word], row[f"{word}, error"] = mean_and_error(values)
    return row


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What is random, one by one: samples in the plane, and networks, all from the same starts.

    Of the networks' eps: the rms error over the times, as in the table `learned`.
    """
    rows: list[dict[str, Any]] = []
    for gamma, sampler in itertools.product(config.few, (*PLANE_SAMPLERS, *HALVED)):
        for s, values in enumerate(arrays[f"plane {gamma:g} {sampler} measures"]):
            row = {"law": "plane", "gamma": gamma, "sampler": sampler, "seed": s}
            rows.append(row | dict(zip(SAMPLED, values.tolist(), strict=True)))
    for name, (i, gamma), s in itertools.product(
        LEARNED, enumerate(config.few), range(config.networks)
    ):
        row = {"law": name, "gamma": gamma, "sampler": "network", "seed": s}
        row |= dict(zip(MEASURES[1:], arrays[f"{name} learned measures"][s, i, 1:].tolist()))
        row |= {"distance of samples": arrays[f"{name} learned distance"][s, i]}
        off = eps_errors(arrays, name)[s, :, i].tolist()
        rows.append(row | {f"eps, {place}": e for place, e in zip(PLACES, off, strict=True)})
    return pd.DataFrame(rows)


def eps_errors(arrays: Arrays, name: str) -> np.ndarray:
    """Rms error of eps of the networks of a law, over the times, (S, 2, G)."""
    return np.asarray(np.sqrt(np.mean(arrays[f"{name} learned errors"] ** 2, axis=-1)))


def learned_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Guided networks beside the exact guided flow; errors are standard errors over networks, which
    all go from the same starts as it does.

    Of eps: the rms error over the times; that of the noise itself, whose mean eps is, is 1.
    """
    rows = []
    for name in LEARNED:
        errors = eps_errors(arrays, name)
        for i, gamma in enumerate(config.few):
            row: dict[str, Any] = {"law": name, "gamma": gamma}
            for j, place in enumerate(PLACES):
                row[f"eps, {place}"], row[f"error of it, {j + 1}"] = mean_and_error(errors[:, j, i])
            far = mean_and_error(arrays[f"{name} learned distance"][:, i])
            row["distance of samples"], row["its error"] = far
            for k, word in enumerate(MEASURES[1:], start=1):
                value, error = mean_and_error(arrays[f"{name} learned measures"][:, i, k])
                row |= {word: value, f"{word}, error": error}
                row[f"{word}, exact flow"] = arrays[f"{name} exact measures"][i, k]
            rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {c: 2 if "error" in c else 3 for c in frame.columns[2:]}
    return frame


def eps_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Rms error of the guided eps of the networks by law, gamma and time."""
    rows = []
    for name in LEARNED:
        value, error = mean_and_error(arrays[f"{name} learned errors"])
        for i, gamma in enumerate(config.few):
            for j, t in enumerate(times_of(config)[::-1].tolist()):
                row: dict[str, Any] = {"law": name, "gamma": gamma, "t": t}
                for k, place in enumerate(PLACES):
                    row |= {place: value[k, i, j], f"error of it, {k + 1}": error[k, i, j]}
                rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {c: 2 if "error" in c else 3 for c in frame.columns[2:]}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """One gamma on the line, and all; both guidances; the gap; closed forms; in the plane; learned,
    and its eps; seeds."""
    line = line_table(config, arrays)
    main = line[line["gamma"] == middle(config)].reset_index(drop=True)
    main.attrs = dict(line.attrs)
    return {
        "": main,
        "line": line,
        "classifier": classifier_table(config, arrays),
        "gap": gap_table(config, arrays),
        "gaussians": gaussian_table(config, arrays),
        "plane": plane_table(config, arrays),
        "learned": learned_table(config, arrays),
        "eps": eps_table(config, arrays),
        "cells": cells_table(config, arrays),
    }


# ---------------------------------------------------------------- figures

TITLES = {
    "overlap": "½ N(1, 1) from ½ N(−1, 1)",
    "modes": "two modes, one near the other class",
    "plane": "three modes in the plane",
}
COLORS = {TILTED: "black", FLOW: plots.COLORS[0], MIXED: plots.COLORS[4]}
ETA_COLORS = (plots.COLORS[2], plots.COLORS[1], plots.COLORS[4], plots.COLORS[5])
GAMMA_COLORS = ("0.75", "0.55", plots.COLORS[9], plots.COLORS[0], plots.COLORS[1], plots.COLORS[2])


def eta_color(config: Config, eta: float) -> str:
    """The colour of an SDE."""
    return ETA_COLORS[config.etas.index(eta) % len(ETA_COLORS)]


def draw_densities(config: Config, arrays: Arrays) -> Figure:
    """What the flow and the SDE end with, beside the tilted and the conditional law."""
    fig, axes = plots.figure(len(config.shown), 2, height=1.2 + 2.1 * len(config.shown))
    for column, name in zip(axes.T, LINES, strict=True):
        for ax, gamma in zip(column, config.shown, strict=True):
            _densities(config, arrays, ax, name, gamma)
            ax.set_ylabel(f"γ = {gamma:g}" if name == "overlap" else "")
        column[0].set_title(TITLES[name], fontsize=10)
        column[-1].set_xlabel("x")
    plots.legend_below(fig, axes[0, 0], columns=5)
    main = table(config, arrays)[""].set_index(["law", "sampler"])[DISTANCES[0]]
    found = [(FLOW, "flow"), *((sde_name(e), f"SDE, η = {e:g}") for e in config.etas)]
    far = ", ".join(f"{main['modes', sampler]:#.2g} ({words})" for sampler, words in found)
    fig.suptitle(
        f"From two modes at γ = {middle(config):g} guidance ends at W1 =\n{far} from the tilted"
        " law",
        fontsize=10,
    )
    return fig


def _densities(config: Config, arrays: Arrays, ax: Any, name: str, gamma: float) -> None:
    x, key, i = arrays[f"{name} truth x"], f"{gamma:g}", config.gammas.index(gamma)
    ax.fill_between(
        x, arrays[f"{name} truth conditional"], color="0.88", linewidth=0, label="conditional law"
    )
    tilted = arrays[f"{name} truth density"][i]
    ax.plot(x, tilted, color=COLORS[TILTED], linewidth=2.2, label=TILTED)
    flow = arrays[f"{name} flow {key} x"], np.exp(arrays[f"{name} flow {key} log q"])
    ax.plot(*flow, color=COLORS[FLOW], label="guided flow")
    edges = arrays[f"{name} SDE edges"]
    centres = 0.5 * (edges[1:] + edges[:-1])
    for eta in (config.etas[0], config.etas[-1]):
        density = arrays[f"{name} SDE density"][i, config.etas.index(eta)]
        style = "-" if eta == config.etas[0] else "--"
        words = f"guided SDE, η = {eta:g}"
        ax.plot(centres, density, style, color=eta_color(config, eta), linewidth=1.4, label=words)
    ax.set(xlim=(x[0], x[-1]), yticks=[])
    ax.set_ylim(0.0, 1.15 * max(tilted.max(), flow[1].max()))


def draw_distances(config: Config, arrays: Arrays) -> Figure:
    """Distances to the tilted law, deviation and purity against gamma."""
    panels = (*DISTANCES, "deviation", "purity")
    fig, axes = plots.figure(2, 4, height=5.4)
    frame = line_table(config, arrays)
    for row, name in zip(axes, LINES, strict=True):
        some = frame[frame["law"] == name]
        for ax, panel in zip(row, panels, strict=True):
            for sampler, words, style in _series(config):
                if panel in DISTANCES and sampler == TILTED:
                    continue
                found = some[some["sampler"] == sampler]
                if panel in DISTANCES:  # at gamma = 1 there is the error of the method alone
                    found = found[found["gamma"] > 1]
                values = 1 - found[panel] if panel == "purity" else found[panel]
                ax.plot(found["gamma"], values, label=words, **style)
            ax.set_xticks([1, 2, 5, 8] if config.gammas[-1] > 4 else list(config.gammas))
            if panel != "deviation":
                ax.set_yscale("log")
            title = "1 − purity, 1 − E p(c|X)" if panel == "purity" else panel
            if name == "overlap":
                ax.set_title(title, fontsize=9)
            else:
                ax.set_xlabel("γ")
        row[0].set_ylabel(TITLES[name], fontsize=9)
    plots.legend_below(fig, axes[0, 2], columns=6)
    fig.suptitle(
        "Exactly, on the line: how far from the tilted law, how wide, how pure", fontsize=11
    )
    return fig


def _series(config: Config) -> list[tuple[str, str, dict[str, Any]]]:
    """Samplers on the line: name in the table, in the legend, and style."""
    found = [(TILTED, TILTED, {"color": "black", "linewidth": 2.2})]
    found.append((FLOW, "guided flow", {"color": COLORS[FLOW], "marker": "o"}))
    for eta in config.etas:
        style = {"color": eta_color(config, eta), "marker": "s", "markersize": 3, "linewidth": 1.2}
        found.append((sde_name(eta), f"SDE, η = {eta:g}", style))
    return found


def draw_gap(config: Config, arrays: Arrays) -> Figure:
    """Guided minus right score over (x, t) with the quantiles of the guided flow, and its size."""
    fig, axes = plots.figure(2, 2, height=6.6)
    gamma, t = middle(config), times_of(config)
    log_t, i = np.log10(t), config.gammas.index(gamma)
    for (left, right), name in zip(axes, LINES, strict=True):
        x, log_p = arrays[f"{name} gap x"], arrays[f"{name} gap log p"][i]
        off = arrays[f"{name} gap off"][i] * np.sqrt(np.asarray(PROCESS.var(t)))[:, None]
        size = float(np.abs(off[:, (x > -4) & (x < 7)]).max())
        image = left.pcolormesh(
            x,
            log_t,
            off,
            cmap=plots.DIVERGING,
            vmin=-size,
            vmax=size,
            shading="gouraud",
            rasterized=True,
        )
        for k, column in enumerate(arrays[f"{name} gap paths"].T):
            words = "guided flow: 5, 25, 50, 75, 95 %" if k == 0 else None
            left.plot(column, log_t, color="black", linewidth=0.9, label=words)
        held = np.exp(log_p - log_p.max(axis=1, keepdims=True))
        left.contour(x, log_t, held, levels=[0.05], colors="0.45", linewidths=0.9, linestyles="--")
        left.set(xlim=(-4, 7), ylabel="$\\log_{10}$ t", xlabel="x")
        left.grid(False)
        fig.colorbar(image, ax=left, label="gap × σ(t)")
        left.set_title(f"{TITLES[name]}, γ = {gamma:g}", fontsize=9)
        for k, (g, values) in enumerate(zip(config.gammas, arrays[f"{name} gap relative"])):
            if g > 1:
                right.plot(t, values, color=GAMMA_COLORS[k % 6], label=f"γ = {g:g}")
        right.set(xscale="log", yscale="log", xlabel="t", ylabel="rms gap/rms score")
    axes[0, 0].plot([], [], "--", color="0.45", linewidth=0.9, label="right law: 5 % of its peak")
    plots.legend_below(fig, axes[0, 1], axes[0, 0], columns=4)
    most = max(arrays[f"{name} gap relative"][i].max() for name in LINES)
    fig.suptitle(
        f"Guided minus right score: 0 at t = 0, on the way up to {100 * most:.0f} % of the score"
        f" (rms, γ = {gamma:g})",
        fontsize=11,
    )
    return fig


def draw_plane(config: Config, arrays: Arrays) -> Figure:
    """Samples in the plane over the tilted log-density."""
    shown = (*PLANE_SAMPLERS, "networks")
    fig, axes = plots.figure(
        len(config.few) - 1, len(shown), height=0.8 + 1.9 * len(config.few[1:]), share=True
    )
    for i, (row, gamma) in enumerate(zip(axes, config.few[1:], strict=True), start=1):
        for ax, sampler in zip(row, shown, strict=True):
            image = plots.background(ax, arrays[f"plane {gamma:g} log density"], PLANE, depth=12.0)
            if sampler == shown[-1]:
                x = arrays["plane learned x"][i]
                purity = arrays["plane learned measures"][:, i, MEASURES.index("purity")]
            else:
                x = arrays[f"plane {gamma:g} {sampler} x"]
                purity = arrays[f"plane {gamma:g} {sampler} measures"][:, SAMPLED.index("purity")]
            style = {"color": "white", "markersize": 1.4, "alpha": 0.8}
            ax.plot(*x[:500].T, ".", rasterized=True, **style)  # small as a picture, not as paths
            title = f"{sampler}\n" if gamma == config.few[1] else ""
            ax.set_title(f"{title}{Estimate(*mean_and_error(1 - purity))}", fontsize=8)
            ax.set(xlim=PLANE[:2], ylim=PLANE[2:])
        row[0].set_ylabel(f"γ = {gamma:g}\n$x_2$")
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    fig.colorbar(image, ax=axes, shrink=0.6, label="tilted log-density minus its maximum / nats")
    fig.suptitle(
        "Guided samples (first seed) over the tilted law, and 1 − E p(c|X)\n(means ±"
        f" standard error of {config.seeds} seeds, and of {config.networks} networks, all from"
        " the starts of the first seed)",
        fontsize=10,
    )
    return fig


def draw_learned(config: Config, arrays: Arrays) -> Figure:
    """Networks beside exact: errors of eps against t and gamma; purity, deviation and distance."""
    fig, axes = plots.figure(2, 3, height=6.0)
    t, frame = times_of(config)[::-1], learned_table(config, arrays)
    for ax, name in zip(axes[0], LEARNED):
        value, error = mean_and_error(arrays[f"{name} learned errors"][:, 1])
        for gamma, v, e in zip(config.few, value, error, strict=True):
            color = GAMMA_COLORS[config.gammas.index(gamma) % 6]
            ax.plot(t, v, color=color, linewidth=1.3, label=f"γ = {gamma:g}")
            ax.fill_between(t, v - e, v + e, color=color, alpha=0.25, linewidth=0)
        ax.set(xscale="log", yscale="log", xlabel="t")
        ax.set_title(f"{name}: {TITLES[name]},\n{GUIDED}", fontsize=8)
    axes[0, 0].set_ylabel("rms error of ε (noise: 1)")
    panels = [
        (axes[0, 2], f"eps, {CONDITIONAL}", "error of it, 1", "o:"),
        (axes[0, 2], f"eps, {GUIDED}", "error of it, 2", "s-"),
        (axes[1, 0], "purity", "purity, error", "o"),
        (axes[1, 1], "deviation", "deviation, error", "o"),
        (axes[1, 2], "distance of samples", "its error", "o-"),
    ]
    for name, color in zip(LEARNED, (plots.COLORS[0], plots.COLORS[1]), strict=True):
        some = frame[frame["law"] == name]
        for ax, word, error, style in panels:
            value = 1 - some[word] if word == "purity" else some[word]
            place = word.removeprefix("eps, ") if word.startswith("eps") else "networks"
            ax.errorbar(
                some["gamma"], value, some[error], fmt=style, color=color, capsize=2, markersize=4,
                label=f"{name}, {place}",
            )  # fmt: skip
            if ax in (axes[1, 0], axes[1, 1]):
                exact = some[f"{word}, exact flow"]
                exact = 1 - exact if word == "purity" else exact
                words = f"{name}, exact flow"
                ax.plot(some["gamma"], exact, "--", color=color, linewidth=1.2, label=words)
            ax.set_xlabel("γ")
    titles = ("error of ε, all t", "1 − E p(c|X)", "deviation", "mean |x − exact x|, same start")
    for ax, title in zip((axes[0, 2], *axes[1]), titles, strict=True):
        ax.set_title(title, fontsize=9)
        if title != "deviation":
            ax.set_yscale("log")
            ax.yaxis.set_minor_formatter("")
            low, high = ax.get_ylim()
            if high < 100 * low:
                ticks = [v for v in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if low < v < high]
                ax.set_yticks(ticks, [f"{v:g}" for v in ticks])
    plots.legend_below(fig, axes[0, 0], axes[0, 2], axes[1, 0], columns=3)
    fig.suptitle(
        f"{config.networks} networks beside the exact guided flow (± standard error of their mean)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Densities; distances; the gap; the plane; networks."""
    return {
        "": draw_densities(config, arrays),
        "distances": draw_distances(config, arrays),
        "gap": draw_gap(config, arrays),
        "plane": draw_plane(config, arrays),
        "learned": draw_learned(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What does classifier-free guidance sample, and is it the tilted law p(x) p(c|x)^γ?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
