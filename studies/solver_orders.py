"""How fast do samplers and solvers converge, and do they reach every target of the gallery?

With the exact score nothing but the steps is in error.  On a mixture of two Gaussians of the line,
between log-SNR -3 and 3 of a process, the error is taken against the number n of steps:

    flow      rms of x_n - F_end^-1(F_start(x)), the probability flow's own map, known exactly
    strong    rms of x_n - x over paths that share their Brownian motion, x by SRK in `fine` steps
    weak      Wasserstein-2 distance of the law of x_n to the true one, for a Gaussian target

On a Gaussian target every sampler is affine in its start and in each of its normal numbers, so that
the law of x_n is N(a m + b, a^2 v + sum c_j^2) and follows from n + 2 runs with no chance in them.
For the mixture the weak error is |E x_n^2 - E x^2| over shared paths, with its error bar.

Orders are slopes of log error against log n over the last `fitted` numbers of steps.  Two standard
errors belong to a slope: that of the straight line (scatter of the points around it) and, where
paths or points are drawn, that of the sample.  The orders of theory are those of `samplers.ALL`.
Some methods come to their strong order late: as long as the error of the drift, which falls faster,
is large beside that of the noise.  Those of `LATE` are run once more with up to `late_steps[-1]`
steps (kind "strong, more steps"), four times as many under EDM on times even in t, which are few
where the noise is small.

"3M, ..." are forms of the third-order multistep method DPM-Solver++ 3M: its published programs give
the quadratic term half of Taylor's weight and start with a step of first order.

The last part runs every sampler on every target of the gallery, from the exact p_T of the
variance-preserving process along times even in log-SNR, and asks for the excess of a Wasserstein
distance over its floor (the distance between true samples): Wasserstein-2 on the line, sliced in
the plane.  The excess is in standard errors, (value - floor)/sqrt(error^2 + floor error^2).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import (
    EDM,
    VP,
    GaussianMixture,
    Model,
    Oracle,
    Process,
    gallery,
    grids,
    metrics,
    noise,
    plots,
    samplers,
    solvers,
)
from diffscience.arrays import numpy
from diffscience.dpm import Level
from diffscience.errors import ArgumentError, whole
from diffscience.estimates import Estimate
from diffscience.samplers import Sampler
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

GRIDS = ("uniform", "log_snr", "karras")
KINDS = ("flow", "strong", "weak")
PAIRS = (*itertools.product(("VP", "EDM"), GRIDS),)
MAIN = ("VP", "log_snr")
ENDS = (-3.0, 3.0)  # log-SNR where the runs that measure orders start and end
SDE_ORDERS = {"euler": 1.0, "milstein": 1.0, "srk": 1.5}  # strong, of additive noise
GBM_ORDERS = {"euler": 0.5, "milstein": 1.0, "srk": 1.5}  # strong, of diagonal noise
FIXED_ORDERS = {"euler": 1.0, "midpoint": 2.0, "heun2": 2.0, "heun3": 3.0, "rk4": 4.0}
ADAPTIVE_ORDERS = {"adaptive_heun": 2.0, "bosh3": 3.0, "dopri5": 5.0, "dopri8": 8.0}
GBM = (0.5, 0.8)  # mu and sigma of dX = mu X dt + sigma X dW, X_0 = 1, to t = 1


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    pairs : processes with their grids, `MAIN` among them.
    steps : numbers of steps n of the flow, each twice the one before; strong_steps, weak_steps,
        mixture_steps : of shared paths, of the Gaussian target, and of the mixture's weak errors.
    fitted : how many of the last n a slope is fitted to.
    points : starts of the flow; quantiles on the line, random in the plane.
    paths, many : Brownian paths behind strong errors, and behind weak errors of the mixture.
    fine : steps of the solution that shared paths are held against.
    late_steps, late_paths : for `LATE` (see `late_of`), against a solution in twice the last of
        the numbers, in four times as many where the method is of order 1.5.
    tolerances : of the adaptive solvers; most : evaluations beyond which a method stops.
    targets : names in `gallery.ALL`; long, short : steps of the runs on them.
    particles : points on a mixture; fewer : (target, points) for those that take longer.
    repeats : pairs of true samples behind a floor.
    """

    pairs: tuple[tuple[str, str], ...] = PAIRS
    steps: tuple[int, ...] = (16, 32, 64, 128, 256)
    strong_steps: tuple[int, ...] = (16, 32, 64, 128, 256, 512)
    weak_steps: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    mixture_steps: tuple[int, ...] = (8, 16, 32, 64, 128)
    fitted: int = 4
    points: int = 32
    paths: int = 1000
    many: int = 20_000
    fine: int = 4096
    late_steps: tuple[int, ...] = (256, 512, 1024, 2048, 4096)
    late_paths: int = 1000
    tolerances: tuple[float, ...] = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
    most: int = 3000
    targets: tuple[str, ...] = tuple(gallery.ALL)
    long: int = 1000
    short: int = 20
    particles: int = 1600
    fewer: tuple[tuple[str, int], ...] = (
        ("swiss_roll", 400), ("two_moons", 400), ("s_curve", 400), ("rings", 400),
        ("checkerboard", 250),
    )  # fmt: skip
    repeats: int = 32
    seed: int = 1

    def __post_init__(self) -> None:
        if MAIN not in self.pairs or not set(self.pairs) <= set(PAIRS):
            raise ArgumentError("pairs", f"be among {PAIRS} and hold {MAIN}", self.pairs)
        whole("fitted", self.fitted, 3)
        for name in ("steps", "strong_steps", "weak_steps", "mixture_steps", "late_steps"):
            n = getattr(self, name)
            if len(n) < self.fitted or n[0] < 2 or any(b != 2 * a for a, b in zip(n, n[1:])):
                rule = f"be {self.fitted} or more numbers from 2 on, each twice the one before"
                raise ArgumentError(name, rule, n)
        most = max(self.strong_steps[-1], self.mixture_steps[-1])
        if self.fine < 4 * most or self.fine % most:
            raise ArgumentError("fine", f"be a multiple of {most}, at least four times", self.fine)
        for name, least in (
            ("points", 2), ("paths", 100), ("many", 100), ("late_paths", 100), ("most", 10),
            ("particles", 100), ("repeats", 2), ("short", 2), ("long", self.short + 1),
        ):  # fmt: skip
            whole(name, getattr(self, name), least)
        for name in self.targets:
            if name not in gallery.ALL:
                raise ArgumentError("targets", "name targets of the gallery", name)
        falls = np.diff(self.tolerances) < 0
        if len(falls) < 2 or not falls.all() or self.tolerances[-1] <= 0:
            raise ArgumentError("tolerances", "be three or more falling numbers", self.tolerances)


def mixture() -> GaussianMixture:
    """The target of flow and strong orders: 0.3 N(-1, 0.6^2) + 0.7 N(1, 0.5^2)."""
    return GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[[0.36]], [[0.25]]])


def gaussian() -> GaussianMixture:
    """The target of the weak orders: N(1, 1.5^2)."""
    return GaussianMixture([1.0], [[1.0]], [[[2.25]]])


# What the runs ask ------------------------------------------------------------------------------


PROCESSES: dict[str, Process] = {"VP": VP(), "EDM": EDM()}


def times_of(process: Process, grid: str, n: int) -> np.ndarray:
    """n + 1 decreasing times between the log-SNRs `ENDS`."""
    start, end = (process.time_of_log_snr(r) for r in ENDS)
    return grids.ALL[grid](process, n, start=start, end=end)


def moments(law: Any) -> tuple[float, float]:
    """Mean and variance of a law of the line."""
    return float(law.mean[0]), float(law.cov[0, 0])


def third(
    model: Model, x: Any, times: Any, generator: Any = None, *, weight: float, second: bool
) -> Iterator[tuple[float, Any]]:
    """DPM-Solver++ 3M on the probability flow, written once more.

    weight : of the quadratic term of Newton's interpolation, 1 Taylor's and 1/2 the programs'.
    second : whether the first step is one of order 2 (2S), else of order 1.
    """
    process = model.process
    levels = [Level.of(process, float(t)) for t in times]
    seen: list[tuple[float, Any]] = []
    yield levels[0].t, x
    for now, then in zip(levels[:-1], levels[1:]):
        h = then.log_ratio - now.log_ratio
        D = model.x0(x, now.t)
        seen = [(now.log_ratio, D), *seen[:2]]
        # Integrals of e^-(h (1 - v)) h v^k over v in [0, 1] for k = 0, 1, 2.
        one = -math.expm1(-h)
        ramp = 1 - one / h
        bow = 1 - 2 * ramp / h
        total = one * D
        if len(seen) == 1 and second:
            u = Level.of(process, process.time_of_log_snr(2 * (now.log_ratio + 0.5 * h)))
            middle = u.sigma / now.sigma * x - u.alpha * math.expm1(-0.5 * h) * D
            total = one * model.x0(middle, u.t)
        if len(seen) > 1:
            slope = (D - seen[1][1]) / (now.log_ratio - seen[1][0])
            total = total + h * ramp * slope
        if len(seen) > 2:
            older = (seen[1][1] - seen[2][1]) / (seen[1][0] - seen[2][0])
            bend = (slope - older) / (now.log_ratio - seen[2][0])
            tilt = (now.log_ratio - seen[1][0]) * bend
            total = total + h * ramp * tilt + weight * h * h * bow * bend
        x = then.sigma / now.sigma * x + then.alpha * total
        yield then.t, x


TWINS: dict[str, Sampler] = {
    "3M, half weight": Sampler(functools.partial(third, weight=0.5, second=True), 2),
    "3M, first-order start": Sampler(functools.partial(third, weight=1.0, second=False), 2),
    "3M, as published": Sampler(functools.partial(third, weight=0.5, second=False), 2),
}
"""Variants of dpm_3m and their orders."""

FLOWS = {name: s for name, s in samplers.ALL.items() if not s.random} | TWINS
PLAIN = ("euler", "heun", "dpm_1s", "dpm_2s", "dpm_2m", "dpm_3m")  # shown in the plane
HALVED = ("dpm_2s_sde",)  # draw for both halves of a step, so that their paths are cut there too
STRONG = {name: s.strong for name, s in samplers.ALL.items() if s.strong is not None}
PATHWISE = STRONG | {f"torchsde {method}": order for method, order in SDE_ORDERS.items()}
LATE = {
    ("VP", "uniform"): ("dpm_2m_sde", "dpm_3m_sde"),
    ("EDM", "uniform"): ("dpm_2m_sde", "dpm_3m_sde"),
    ("EDM", "log_snr"): ("torchsde srk",),
}
"""What comes to its strong order late."""


def late_of(config: Config, pair: tuple[str, str]) -> tuple[int, ...]:
    """The numbers of steps for what comes to its strong order late."""
    return tuple(n * (4 if pair == ("EDM", "uniform") else 1) for n in config.late_steps)


def perfect(model: Oracle, x: Any, times: Any, generator: Any) -> Iterator[tuple[float, Any]]:
    """The exact reverse transitions of a Gaussian target: the floor of the weak errors."""
    process = model.process
    cov = moments(model.law)[1]
    yield float(times[0]), x
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        step, var_s, var_t = process.between(s, t), process.var(s), process.var(t)
        own = var_t * cov / (process.alpha(t) ** 2 * cov + var_t)  # Var[X_0 | X_t]
        pull = process.alpha(s) * step.var / var_t
        mean = step.scale * var_s / var_t * x + pull * model.x0(x, t)
        x = mean + math.sqrt(step.var * var_s / var_t + pull**2 * own) * generator.normal(*x.shape)
        yield s, x


class Probe:
    """Noise for many runs at once: in the j-th number all are 0 but that of run j + 2, which is 1.

    Runs 0 and 1 see no noise at all.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.generator = self

    def normal(self, *shape: int) -> np.ndarray:
        """The next number of each run, (runs, 1)."""
        z = np.zeros(shape)
        self.asked += 1
        if self.asked + 1 < shape[0]:
            z[self.asked + 1] = 1.0
        return z

    def area(self, *shape: int) -> np.ndarray:
        """No sampler asks for areas."""
        raise NotImplementedError


def affine(run: Callable[..., Any], model: Oracle, times: np.ndarray) -> tuple[float, float]:
    """Mean and variance at the end of a run from the exact law, where the run is affine.

    x_n = a x + b + sum_j c_j z_j; run 0 starts at 0 and run 1 at 1, both without noise.
    """
    mean, var = moments(model.at(float(times[0])))
    rows, probe = len(times) + 1, Probe()
    while True:
        x = np.zeros((rows, 1))
        x[1] = 1.0
        found = samplers.last(run(model, x, times, probe))[:, 0]
        if probe.asked + 2 <= rows:
            break
        rows, probe = probe.asked + 2, Probe()
    a, b, c = found[1] - found[0], found[0], found[2 : probe.asked + 2] - found[0]
    return float(a * mean + b), float(a * a * var + c @ c)


def halved(process: Process, times: np.ndarray) -> np.ndarray:
    """The times with those between that halve each step in log-SNR, where 2S stops too."""
    r = [0.5 * process.log_snr(t) for t in times.tolist()]
    between = [process.time_of_log_snr(2 * (a + 0.5 * (b - a))) for a, b in zip(r[:-1], r[1:])]
    return np.stack([times, np.append(between, times[-1])], axis=1).ravel()[:-1]


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """All times, decreasing; one where rounding alone sets some apart.

    Processors round in their own ways: with a step for each, one seed would have many paths.
    """
    every = np.unique(np.concatenate(parts))
    return every[np.append(np.diff(every) > 1e-12 * every[-1], True)][::-1]


# Computing --------------------------------------------------------------------------------------


def rms(x: np.ndarray) -> float:
    """Root of the mean square over the rows of the norm."""
    return float(np.sqrt(np.mean(np.sum(x * x, axis=-1))))


def summary(e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """rms of errors e (steps, n) over n draws, and the covariance of its logarithms over fresh
    draws, by the delta method; the draws are shared between the numbers of steps.
    """
    mean = np.mean(e * e, axis=1)
    return np.sqrt(mean), np.cov(0.5 * e * e / mean[:, None]) / e.shape[1]


def summary_of_mean(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """|mean| of differences d (steps, n), and the covariance of its logarithms."""
    mean = d.mean(axis=1)
    return np.abs(mean), np.cov(d / mean[:, None]) / d.shape[1]


def flow_errors(config: Config, pair: tuple[str, str]) -> dict[str, Any]:
    """rms error on the line of the samplers of the probability flow, (method, steps)."""
    process = PROCESSES[pair[0]]
    model, grid_of = Oracle(mixture(), process), functools.partial(times_of, process, pair[1])
    start, end = grid_of(2)[[0, -1]].tolist()
    x = model.at(start).quantile((np.arange(config.points) + 0.5) / config.points)
    exact = model.flow(x, start, end)
    errors = [
        [rms(samplers.last(s.run(model, x, grid_of(n))) - exact) for n in config.steps]
        for s in FLOWS.values()
    ]
    return {"errors": errors, "floor": rms(model.flow(exact, end, start) - x)}


def plane_errors(config: Config, generator: Any) -> dict[str, Any]:
    """The same in the plane along times even in log-SNR, against a solution at tolerance 1e-12."""
    process = PROCESSES["VP"]
    model = Oracle(gallery.julia_trimodal(), process)
    ends = times_of(process, "log_snr", 2)[[0, -1]]
    x = model.at(float(ends[0])).sample(config.points, generator)
    exact = solvers.reference(model, x, ends)
    back = solvers.reference(model, exact, ends[::-1])
    found = []
    for s in FLOWS.values():
        runs = (s.run(model, x, times_of(process, "log_snr", n)) for n in config.steps)
        found.append(
            summary(np.stack([np.linalg.norm(y - exact, axis=1) for y in map(samplers.last, runs)]))
        )
    return {
        "errors": [f[0] for f in found], "covs": [f[1] for f in found], "floor": rms(back - x),
    }  # fmt: skip


def path_errors(
    pair: tuple[str, str],
    n_of: Sequence[int],
    paths: int,
    fine: int,
    seed: int,
    methods: Sequence[str] = tuple(PATHWISE),
) -> dict[str, Any]:
    """x_n - x over shared paths: rms, and the mean of x_n^2 - x^2, of samplers and SDE solvers."""
    process = PROCESSES[pair[0]]
    model = Oracle(mixture(), process)
    finest = times_of(process, pair[1], fine)
    coarse = {n: finest[:: fine // n] for n in n_of}
    cut = {n: halved(process, times) for n, times in coarse.items()}
    path = noise.Stored.drawn(seed, paths, 1, joined([finest, *cut.values()]))
    x = model.at(float(finest[0])).sample(paths, seed)

    def solved(times: np.ndarray, method: str) -> np.ndarray:
        run = solvers.reverse(model, torch.as_tensor(x), times, path.on(times), method=method)
        return np.asarray(run.last)[:, 0]

    def ends(name: str, n: int) -> np.ndarray:
        if name not in samplers.ALL:
            return solved(coarse[n], name.removeprefix("torchsde "))
        draws = path.on((cut if name in HALVED else coarse)[n])
        run = samplers.ALL[name].run(model, x, coarse[n], draws)
        return np.asarray(samplers.last(run))[:, 0]

    exact = solved(finest, "srk")
    found = [np.stack([ends(name, n) for n in n_of]) for name in methods]
    strong = [summary(y - exact) for y in found]
    squares = [summary_of_mean(y**2 - exact**2) for y in found]
    half = solved(finest[::2], "srk") - exact
    return {
        "errors": [s[0] for s in strong], "covs": [s[1] for s in strong],
        "means": [s[0] for s in squares], "mean covs": [s[1] for s in squares],
        "floor": rms(half[:, None]) / (2**1.5 - 1),
        "mean floor": abs(float(np.mean((exact + half) ** 2 - exact**2))) / (2**2 - 1),
    }  # fmt: skip


def weak_errors(config: Config, pair: tuple[str, str]) -> dict[str, Any]:
    """Distance of the law at the end from the true Gaussian, (sampler, steps), and the floor."""
    process = PROCESSES[pair[0]]
    model = Oracle(gaussian(), process)
    grids_of = [times_of(process, pair[1], n) for n in config.weak_steps]
    mean, var = moments(model.at(float(grids_of[0][-1])))

    def distance(run: Callable[..., Any], times: np.ndarray) -> float:
        found, own = affine(run, model, times)
        return math.hypot(found - mean, math.sqrt(own) - math.sqrt(var))

    errors = [[distance(s.run, times) for times in grids_of] for s in samplers.ALL.values()]
    return {"errors": errors, "floor": max(distance(perfect, times) for times in grids_of)}


def fixed_errors(config: Config, pair: tuple[str, str], device: str = "cpu") -> dict[str, Any]:
    """rms error of torchdiffeq's methods of fixed step on the line, (method, steps)."""
    process = PROCESSES[pair[0]]
    model, grid_of = Oracle(mixture(), process), functools.partial(times_of, process, pair[1])
    start, end = grid_of(2)[[0, -1]].tolist()
    x = model.at(start).quantile((np.arange(config.points) + 0.5) / config.points)
    exact = model.flow(x, start, end)
    errors = [
        [
            rms(solvers.flow(model, x, grid_of(n), method=method, device=device).last - exact)
            for n in config.strong_steps
        ]
        for method in FIXED_ORDERS
    ]
    return {"errors": errors, "floor": rms(model.flow(exact, end, start) - x)}


def adaptive_errors(config: Config, device: str = "cpu") -> dict[str, Any]:
    """For each adaptive method rows (tolerance, evaluations, rms error) on the line."""
    model = Oracle(mixture(), PROCESSES["VP"])
    times = times_of(PROCESSES["VP"], "uniform", 2)[[0, -1]]
    start, end = times.tolist()
    x = model.at(start).quantile((np.arange(config.points) + 0.5) / config.points)
    exact = model.flow(x, start, end)
    found: dict[str, Any] = {}
    for method in ADAPTIVE_ORDERS:
        rows: list[tuple[float, int, float]] = []
        for tolerance in config.tolerances:
            run = solvers.flow(
                model, x, times, method=method, rtol=tolerance, atol=tolerance, device=device
            )
            rows.append((tolerance, run.evaluations, rms(run.last - exact)))
            if run.evaluations > config.most:
                break
        found[method] = rows
    return found


def gbm_errors(config: Config, seed: int) -> dict[str, Any]:
    """rms error of `solvers.ito` on geometric Brownian motion, shared paths, (method, steps)."""
    mu, sigma = GBM
    fine = np.linspace(0.0, 1.0, config.strong_steps[-1] + 1)
    path = noise.Stored.drawn(seed, config.many, 1, fine)
    x = torch.ones(config.many, 1, dtype=torch.float64)
    exact = torch.exp((mu - 0.5 * sigma * sigma) + sigma * path.W.sum(0))

    def error(n: int, method: str) -> np.ndarray:
        times = fine[:: (len(fine) - 1) // n]
        run = solvers.ito(
            lambda x, t: mu * x, lambda x, t: sigma * x, x, times, path.on(times),
            diagonal=True, method=method,
        )  # fmt: skip
        return (run.last - exact).numpy()[:, 0]

    found = [summary(np.stack([error(n, m) for n in config.strong_steps])) for m in GBM_ORDERS]
    return {"errors": [f[0] for f in found], "covs": [f[1] for f in found]}


def arrivals(config: Config, name: str, run: Run) -> dict[str, Any]:
    """Every sampler on one target: estimates (long or short, sampler, 4)."""
    process = PROCESSES["VP"]
    model, n = Oracle(gallery.ALL[name](), process), particles(config, name)
    x = placed(model.at(process.T).sample(n, run.generator(name, "start")), run.device)
    truth = model.law.sample(n, run.generator(name, "truth"))
    floor = distance(model.law, truth, run.generator(name, "floor"), config.repeats)
    found = np.empty((2, len(samplers.ALL), 4))
    for i, steps in enumerate((config.long, config.short)):
        times = grids.log_snr(process, steps, least=1e-4)
        for j, (label, s) in enumerate(samplers.ALL.items()):
            end = samplers.last(s.run(model, x, times, run.generator(name, label, steps)))
            e = distance(model.law, numpy(end), run.generator(name, label, steps, "distance"), 0)
            found[i, j] = e.value, e.error, floor.floor, floor.floor_error
    return {"estimates": found}


def placed(x: np.ndarray, device: str) -> Any:
    """The points as they are for the CPU, elsewhere as a tensor; the noise is NumPy's for both."""
    return x if device == "cpu" else torch.as_tensor(x, device=device)


def particles(config: Config, name: str) -> int:
    """The number of points on a target."""
    return dict(config.fewer).get(name, config.particles)


def distance(law: Any, x: np.ndarray, generator: Any, repeats: int) -> Estimate:
    """Wasserstein-2 on the line, sliced Wasserstein-2 in the plane."""
    if law.dim == 1:
        return metrics.wasserstein(x, law, generator, 2, repeats=repeats)
    return metrics.sliced_wasserstein(x, law, generator, repeats=repeats)


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Errors against steps of everything, then every target."""
    arrays: dict[str, Any] = {}

    def keep(name: str, found: dict[str, Any]) -> None:
        arrays.update({f"{name} {key}": value for key, value in found.items()})

    for pair in run.progress(config.pairs, "orders"):
        label = " ".join(pair)
        keep(f"flow {label}", run.cell(f"flow {label}", flow_errors, config, pair))
        keep(f"weak {label}", run.cell(f"weak {label}", weak_errors, config, pair))
        keep(f"fixed {label}", run.cell(f"fixed {label}", fixed_errors, config, pair, run.device))
        given = (pair, config.strong_steps, config.paths, config.fine, run.seed_for(label))
        keep(f"strong {label}", run.cell(f"strong {label}", path_errors, *given))
        if pair in LATE:
            n, own = late_of(config, pair), (run.seed_for(label, "late"), LATE[pair])
            # Twice what samplers of order 1 take is enough for a reference of order 1.5.
            fine = (2 if max(PATHWISE[name] for name in LATE[pair]) == 1 else 4) * n[-1]
            late = (pair, n, config.late_paths, fine, *own)
            keep(f"late {label}", run.cell(f"late {label}", path_errors, *late))
    fine = 4 * config.mixture_steps[-1]
    given = (MAIN, config.mixture_steps, config.many, fine, run.seed_for("many"))
    keep("mixture", run.cell("mixture", path_errors, *given))
    keep("plane", run.cell("plane", plane_errors, config, run.generator("plane")))
    keep("adaptive", run.cell("adaptive", adaptive_errors, config, run.device))
    keep("gbm", run.cell("gbm", gbm_errors, config, run.seed_for("gbm")))
    for name in run.progress(config.targets, "targets"):
        keep(name, run.cell(name, arrivals, config, name, run))
    return arrays


# Tables -----------------------------------------------------------------------------------------


def fit(
    n: Sequence[float], errors: np.ndarray, cov: np.ndarray | None, last: int
) -> tuple[float, float, float]:
    """(order, its error from the scatter, its error from the sample) over the last few n.

    order = -slope of log error against log n; cov is that of the logarithms of the errors.
    """
    x, y = np.log(np.asarray(n[-last:], float)), np.log(errors[-last:])
    x = x - x.mean()
    w = x / (x @ x)
    slope = float(w @ y)
    left = y - y.mean() - slope * x
    scatter = math.sqrt(float(left @ left) / max(len(x) - 2, 1) / float(x @ x))
    sample = 0.0 if cov is None else math.sqrt(float(w @ cov[-last:, -last:] @ w))
    return -slope, scatter, sample


Series = tuple[str, str, str, str, float | None, float, tuple[int, ...], np.ndarray, Any, float]


def series(config: Config, arrays: dict[str, np.ndarray]) -> Iterator[Series]:
    """(kind, process, grid, method, theory, evaluations a step, n, errors, covariance, floor)."""

    def covs(key: str, i: int) -> Any:
        return arrays[key][i] if key in arrays else None

    def rows(
        kind: str, key: str, pair: tuple[str, str],
        methods: Mapping[str, tuple[float | None, float]], n: tuple[int, ...],
        values: str = "errors", spread: str = "covs", floor: str = "floor",
    ) -> Iterator[Series]:  # fmt: skip
        for i, (name, (theory, cost)) in enumerate(methods.items()):
            cov = covs(f"{key} {spread}", i)
            errors, least = arrays[f"{key} {values}"][i], float(arrays.get(f"{key} {floor}", 0.0))
            yield (kind, *pair, name, theory, cost, n, errors, cov, least)

    flows = {name: (s.weak, s.evaluations) for name, s in FLOWS.items()}
    weak = {name: (s.weak, s.evaluations) for name, s in samplers.ALL.items()}
    strong = {name: (order, cost_of(name)) for name, order in PATHWISE.items()}
    of_means = {name: (weak_order(name), cost_of(name)) for name in PATHWISE}
    fixed = {name: (order, STAGES[name]) for name, order in FIXED_ORDERS.items()}
    gbm = {name: (order, cost_of(f"torchsde {name}", 9)) for name, order in GBM_ORDERS.items()}
    for pair in config.pairs:
        label = " ".join(pair)
        yield from rows("flow", f"flow {label}", pair, flows, config.steps)
        yield from rows("torchdiffeq", f"fixed {label}", pair, fixed, config.strong_steps)
        yield from rows("strong", f"strong {label}", pair, strong, config.strong_steps)
        if pair in LATE:
            late = {name: strong[name] for name in LATE[pair]}
            yield from rows(
                "strong, more steps", f"late {label}", pair, late, late_of(config, pair)
            )
        yield from rows("weak", f"weak {label}", pair, weak, config.weak_steps)
    yield from rows("flow in the plane", "plane", MAIN, flows, config.steps)
    n = config.mixture_steps
    yield from rows(
        "weak, mixture", "mixture", MAIN, of_means, n, "means", "mean covs", "mean floor"
    )
    yield from rows("geometric Brownian motion", "gbm", ("", ""), gbm, config.strong_steps)


STAGES = {"euler": 1.0, "midpoint": 2.0, "heun2": 2.0, "heun3": 3.0, "rk4": 4.0}


def cost_of(name: str, srk: float = 2) -> float:
    """Evaluations in a step."""
    if name in samplers.ALL:
        return samplers.ALL[name].evaluations
    return srk if name.endswith("srk") else 1


def weak_order(name: str) -> float | None:
    """The weak order of theory; that of SRK is not claimed anywhere."""
    if name in samplers.ALL:
        return samplers.ALL[name].weak
    return None if name.endswith("srk") else 1.0


def orders_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every fitted order beside theory."""
    found = []
    for kind, process, grid, method, theory, cost, n, errors, cov, floor in series(config, arrays):
        order, scatter, sample = fit(n, errors, cov, config.fitted)
        row: dict[str, Any] = {"kind": kind, "process": process, "grid": grid, "method": method}
        row |= {"evaluations a step": cost, "theory": math.nan if theory is None else theory}
        row |= {"order": order, "error of fit": scatter, "error of sample": sample}
        row |= {"from n": n[-config.fitted], "to n": n[-1]}
        row |= {"error there": errors[-config.fitted], "error at the end": errors[-1]}
        found.append(row | {"floor": floor})
    return found


def main_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Orders of each kind and method over all processes and grids."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in orders_table(config, arrays):
        groups.setdefault((row["kind"], row["method"]), []).append(row)
    found = []
    for (kind, method), rows in groups.items():
        orders = np.array([row["order"] for row in rows])
        theory = rows[0]["theory"]
        spread = [math.hypot(row["error of fit"], row["error of sample"]) for row in rows]
        row = {"kind": kind, "method": method, "evaluations a step": rows[0]["evaluations a step"]}
        row |= {"theory": theory, "runs": len(rows), "order, mean": orders.mean()}
        row |= {"lowest": orders.min(), "highest": orders.max(), "largest error": max(spread)}
        row["largest departure"] = np.max(np.abs(orders - theory))
        found.append(row | {"from n": rows[0]["from n"], "to n": rows[0]["to n"]})
    return found


def adaptive_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What a tolerance buys, and the slopes against evaluations and tolerance."""
    found = []
    for method, theory in ADAPTIVE_ORDERS.items():
        rows = arrays[f"adaptive {method}"]
        order, scatter, _ = fit(rows[:, 1].tolist(), rows[:, 2], None, config.fitted)
        power = -fit(rows[:, 0].tolist(), rows[:, 2], None, config.fitted)[0]
        for tolerance, evaluations, error in rows.tolist():
            row = {"method": method, "tolerance": tolerance, "evaluations": int(evaluations)}
            row |= {"rms error": error, "theory": theory, "order in evaluations": order}
            found.append(row | {"error of fit": scatter, "power of tolerance": power})
    return found


def estimates(
    config: Config, arrays: dict[str, np.ndarray]
) -> Iterator[tuple[str, int, str, Estimate]]:
    """(target, steps, sampler, estimate)."""
    for name in config.targets:
        for i, steps in enumerate((config.long, config.short)):
            for j, sampler in enumerate(samplers.ALL):
                yield name, steps, sampler, Estimate(*arrays[f"{name} estimates"][i, j].tolist())


def targets_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every sampler on every target."""
    found = []
    for name, steps, sampler, e in estimates(config, arrays):
        row: dict[str, Any] = {"target": name, "sampler": sampler, "steps": steps}
        row |= {"points": particles(config, name), "distance": e.value, "error": e.error}
        row |= {"floor": e.floor, "floor error": e.floor_error, "excess": e.excess()}
        found.append(row | {"above 3": "yes" if e.excess() > 3 else ""})
    return found


def worst_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The largest excess of each sampler over all targets."""
    found = []
    for sampler, s in samplers.ALL.items():
        row: dict[str, Any] = {"sampler": sampler, "evaluations a step": s.evaluations}
        for steps in (config.long, config.short):
            own = [(e.excess(), name) for name, n, label, e in estimates(config, arrays)
                   if n == steps and label == sampler]  # fmt: skip
            excess, name = max(own)
            row |= {f"largest excess, n = {steps}": excess, f"on, n = {steps}": name}
            row[f"targets above 3, n = {steps}"] = sum(e > 3 for e, _ in own)
        found.append(row)
    return found


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Orders by method; every order; adaptive methods; every target; the worst of each sampler."""
    import pandas as pd

    found = {
        "": main_table(config, arrays), "all": orders_table(config, arrays),
        "adaptive": adaptive_table(config, arrays), "targets": targets_table(config, arrays),
        "worst": worst_table(config, arrays),
    }  # fmt: skip
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


# Figures ----------------------------------------------------------------------------------------

MARKS = "osD^v<>Pph*X"
LOOKS = {
    name: {"color": plots.COLORS[i % 10], "marker": MARKS[i % 12], "ls": "-" if i < 10 else "--"}
    for i, name in enumerate([*samplers.ALL, *TWINS])
} | {
    f"torchsde {name}": {"color": "black", "marker": "+x1"[i], "ls": ":"}
    for i, name in enumerate(SDE_ORDERS)
}


def words(name: str) -> str:
    """A name without underscores."""
    return name.replace("_", " ")


def curves(ax: Axes, config: Config, found: Sequence[Series], label: str = "{name}") -> None:
    """Errors against steps; `label` may hold {name}, {order} and {theory}."""
    for _, _, _, name, theory, _, n, errors, cov, _ in found:
        order, scatter, sample = fit(n, errors, cov, config.fitted)
        shown = label.format(
            name=words(name), order=f"{order:.2f} ± {math.hypot(scatter, sample):.2f}",
            theory="–" if theory is None else f"{theory:g}",
        )  # fmt: skip
        spread = None if cov is None else errors * np.sqrt(np.diag(cov))
        look: dict[str, Any] = LOOKS.get(name, {"marker": "o"})
        ax.errorbar(
            n, errors, spread, lw=1.1, ms=3.5, capsize=1.5, elinewidth=0.8, label=shown, **look
        )
    ax.set(xscale="log", yscale="log")
    ticked(ax, found[0][6])


def ticked(ax: Axes, n: Sequence[int]) -> None:
    """Some of these numbers, and no others, under the axis."""
    few = n[:: 1 if len(n) <= 5 else 2 if len(n) <= 8 else 3]
    ax.set_xticks(few, [str(k) for k in few])
    ax.minorticks_off()


def chosen(
    config: Config, arrays: dict[str, np.ndarray], kind: str, pair: Any = None
) -> list[Series]:
    """The series of a kind, of one process and grid or of all."""
    return [s for s in series(config, arrays) if s[0] == kind and pair in (None, s[1:3])]


def guides(ax: Axes, orders: Sequence[float]) -> None:
    """Grey lines of these slopes from the top left of the panel."""
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    x = np.array([left, right])
    for order in orders:
        ax.plot(x, high * (x / left) ** -order, color="0.75", lw=0.8, zorder=0)
    ax.set(xlim=(left, right), ylim=(low, high))


def draw_main(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Flow, strong and weak errors on one grid, with the fitted orders in the legends."""
    fig, axes = plots.figure(1, 3, height=6.6)
    titles = ("probability flow", "shared paths, strong", "Gaussian target, weak")
    names = ("rms error", "rms error", "Wasserstein-2 distance")
    for ax, kind, title, name in zip(axes[0], KINDS, titles, names, strict=True):
        found = chosen(config, arrays, kind, MAIN)
        if kind == "weak":
            found = [s for s in found if samplers.ALL[s[3]].random]
        curves(ax, config, found, "{name}: {order} ({theory})")
        ax.set(xlabel="steps n", ylabel=name)
        ax.set_title(title, fontsize=10)
        guides(ax, (1, 2, 3))
        ax.legend(loc="upper center", bbox_to_anchor=(0.45, -0.16), fontsize=7.5)
    fig.suptitle(
        "Error against steps, VP, even in log-SNR: fitted order (theory); grey slopes 1, 2, 3",
        fontsize=11,
    )
    return fig


def draw_kind(config: Config, arrays: dict[str, np.ndarray], kind: str) -> Figure:
    """A kind of error on every process and grid."""
    rows = math.ceil(len(config.pairs) / 3)
    fig, axes = plots.figure(rows, min(3, len(config.pairs)), height=2.6 * rows + 1.4, share=True)
    for ax, pair in zip(axes.flat, config.pairs, strict=False):
        if kind == "strong" and pair in LATE:
            curves(ax, config, chosen(config, arrays, "strong, more steps", pair), "_{name}")
        curves(ax, config, chosen(config, arrays, kind, pair))
        ax.set_title(f"{pair[0]}, {words(pair[1])}", fontsize=10)
        floor = chosen(config, arrays, kind, pair)[0][-1]
        if kind == "strong":
            ax.axhline(
                floor,
                color="0.4",
                lw=0.8,
                ls="-.",
                label=f"error of the fine solution, to n = {config.strong_steps[-1]}",
            )
    for ax in axes.flat:
        guides(ax, (1, 2, 3) if kind != "strong" else (1, 1.5))
    if kind == "strong" and LATE.keys() & set(config.pairs):
        later = {n for pair in LATE.keys() & set(config.pairs) for n in late_of(config, pair)}
        for ax in axes.flat:
            ticked(ax, sorted({*config.strong_steps, *later}))
    for ax in axes[-1]:
        ax.set_xlabel("steps n")
    for ax in axes[:, 0]:
        ax.set_ylabel("Wasserstein-2 distance" if kind == "weak" else "rms error")
    plots.legend_below(fig, axes[0, 0], columns=4)
    title = {
        "flow": "Probability flow against its exact map, mixture of the line",
        "strong": "Reverse SDE against its solution on the same paths, mixture of the line",
        "weak": "Law of x_n against the true one, Gaussian target, without Monte Carlo",
    }[kind]
    fig.suptitle(title, fontsize=11)
    return fig


def draw_orders(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Fitted order minus theory of every method, process and grid."""
    kinds = ("flow", "weak", "strong", "torchdiffeq")
    groups = {kind: [s for s in chosen(config, arrays, kind) if s[4] is not None] for kind in kinds}
    soon = [s for s in groups["strong"] if s[3] not in LATE.get((s[1], s[2]), ())]
    groups["strong"] = soon + chosen(config, arrays, "strong, more steps")
    names = {kind: list(dict.fromkeys(s[3] for s in found)) for kind, found in groups.items()}
    fig, axes = plots.figure(2, 2, height=7.4)
    for ax, (kind, found) in zip(axes.flat, groups.items(), strict=True):
        rows = names[kind]
        for k, pair in enumerate(config.pairs):
            own = [s for s in found if s[1:3] == pair]
            fits = np.array([fit(s[6], s[7], s[8], config.fitted) for s in own])
            y = np.array([rows.index(s[3]) for s in own]) + 0.12 * (k - 2.5)
            off = fits[:, 0] - np.array([s[4] for s in own], float)
            ax.errorbar(
                off, y, xerr=np.hypot(fits[:, 1], fits[:, 2]), fmt=MARKS[k], ms=3, lw=0.8,
                color=plots.COLORS[k], label=f"{pair[0]}, {words(pair[1])}",
            )  # fmt: skip
        theory = {s[3]: s[4] for s in found}
        ax.set_yticks(range(len(rows)), [f"{words(r)} ({theory[r]:g})" for r in rows], fontsize=7.5)
        ax.axvspan(-0.15, 0.15, color="0.93", zorder=0)
        ax.axvline(0, color="black", lw=0.8)
        ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel="fitted order − theory")
        ax.set_title(kind, fontsize=10)
    plots.legend_below(fig, axes[0, 0], columns=6)
    fig.suptitle("Orders of every method on every grid (order of theory in brackets)", fontsize=11)
    return fig


def keyed(ax: Axes, rows: int) -> None:
    """A legend of so many rows inside the panel, in room that is made below the curves."""
    low, high = np.log(ax.get_ylim())
    ax.set_ylim(np.exp(high - (high - low) / (1 - 0.085 * rows)), np.exp(high))
    ax.legend(loc="lower left", fontsize=7, borderpad=0.2, labelspacing=0.3)


def draw_libraries(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """torchdiffeq and torchsde."""
    fig, axes = plots.figure(2, 3, height=7.0)
    for ax, kind, title, orders in (
        (axes[0, 0], "torchdiffeq", "torchdiffeq, fixed steps", (1, 2, 3, 4)),
        (axes[1, 0], "geometric Brownian motion", "torchsde, geometric Brownian", (0.5, 1, 1.5)),
        (axes[1, 1], "strong", "torchsde, reverse SDE", (0.5, 1, 1.5)),
        (axes[1, 2], "flow in the plane", "samplers, flow in the plane", (1, 2, 3)),
    ):
        found = chosen(config, arrays, kind, ("", "") if kind.startswith("geo") else MAIN)
        if kind == "strong":
            found = [s for s in found if s[3].startswith("torchsde")]
            found = [(*s[:3], s[3].removeprefix("torchsde "), *s[4:]) for s in found]
        plane = kind == "flow in the plane"
        if plane:
            found = [s for s in found if s[3] in PLAIN]
        else:
            found = [(*s[:3], f" {s[3]}", *s[4:]) for s in found]  # the library's own looks
        curves(ax, config, found, "{name}: {order} ({theory})")
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="steps n", ylabel="rms error")
        keyed(ax, len(found))
        guides(ax, orders)
    for method in ADAPTIVE_ORDERS:
        tolerance, evaluations, error = arrays[f"adaptive {method}"].T
        order, scatter, _ = fit(evaluations.tolist(), error, None, config.fitted)
        power = -fit(tolerance.tolist(), error, None, config.fitted)[0]
        look = {"marker": "o", "ms": 3.5, "lw": 1.1}
        label = f"{words(method)}: {order:.1f} ± {scatter:.1f} ({ADAPTIVE_ORDERS[method]:g})"
        axes[0, 1].loglog(evaluations, error, label=label, **look)
        axes[0, 2].loglog(tolerance, error, label=f"{words(method)}: {power:.2f}", **look)
    axes[0, 1].set(xlabel="evaluations", ylabel="rms error")
    few = [n for n in (20, 100, 500, 2000) if n <= config.most]
    axes[0, 1].set_xticks(few, [str(n) for n in few])
    axes[0, 1].set_title("torchdiffeq, adaptive", fontsize=10)
    axes[0, 2].set(xlabel="tolerance", ylabel="rms error")
    axes[0, 2].set_title("torchdiffeq, adaptive", fontsize=10)
    span = np.array(config.tolerances)
    axes[0, 2].plot(span, span, color="0.75", lw=0.8, zorder=0, label="error = tolerance")
    for ax, rows in zip(axes[0, 1:], (4, 5)):
        ax.minorticks_off()
        keyed(ax, rows)
    fig.suptitle(
        "Solvers and their fitted orders (theory); against the tolerance its power", fontsize=11
    )
    return fig


def draw_third(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The forms of 3M beside 2M."""
    shown = [pair for pair in (MAIN, ("EDM", "log_snr"), ("EDM", "karras")) if pair in config.pairs]
    fig, axes = plots.figure(1, len(shown), height=3.9, share=True)
    wanted = ("dpm_2m", "dpm_3m", *TWINS)
    for ax, pair in zip(axes[0], shown, strict=True):
        found = [s for s in chosen(config, arrays, "flow", pair) if s[3] in wanted]
        curves(ax, config, found, "{name}")
        fits = [f"{fit(s[6], s[7], s[8], config.fitted)[0]:.2f}" for s in found]
        ax.set_title(f"{pair[0]}, {words(pair[1])}\norders {', '.join(fits)}", fontsize=9)
        ax.set_xlabel("steps n")
    axes[0, 0].set_ylabel("rms error")
    for ax in axes[0]:
        guides(ax, (2, 3))
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle(
        "DPM-Solver++ 3M with Taylor's weight and a start of order 2, and without", fontsize=11
    )
    return fig


def draw_targets(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Excess of every sampler on every target, after many steps and after few."""
    fig, axes = plots.figure(2, 1, height=8.6)
    for i, (ax, steps) in enumerate(zip(axes[:, 0], (config.long, config.short), strict=True)):
        excess = np.array(
            [
                [Estimate(*row.tolist()).excess() for row in arrays[f"{name} estimates"][i]]
                for name in config.targets
            ]
        )
        image = ax.imshow(
            np.clip(excess, -10, 10), cmap=plots.DIVERGING, vmin=-10, vmax=10, aspect="auto",
            origin="upper",
        )  # fmt: skip
        for (row, column), value in np.ndenumerate(excess):
            text = f"{value:.1f}" if abs(value) < 9.95 else f"{value:.0f}"
            ax.text(
                column, row, text.replace("-", "−"), ha="center", va="center", fontsize=6.5,
                color="white" if abs(value) > 6 else "black",
                fontweight="bold" if value > 3 else "normal",
            )  # fmt: skip
        ax.set_xticks(range(len(samplers.ALL)), [words(name) for name in samplers.ALL])
        ax.tick_params(axis="x", labelrotation=60, labelsize=7.5)
        for tick in ax.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
        sizes = [f"{words(name)} ({particles(config, name)})" for name in config.targets]
        ax.set_yticks(range(len(sizes)), sizes, fontsize=7.5)
        ax.grid(False)
        ax.set_title(
            f"{steps} steps: {int(np.sum(excess > 3))} of {excess.size} above 3, the largest"
            f" {excess.max():.2g}",
            fontsize=10,
        )
    bar = fig.colorbar(image, ax=axes[:, 0], shrink=0.5, aspect=40, extend="both")
    bar.set_label("excess over the floor / standard errors")
    fig.suptitle(
        "Wasserstein distance to the target with the exact score (number of points)", fontsize=11
    )
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """One grid; each kind on all grids; orders; libraries; forms of 3M; targets."""
    return {
        "": draw_main(config, arrays),
        **{kind: draw_kind(config, arrays, kind) for kind in KINDS},
        "orders": draw_orders(config, arrays),
        "libraries": draw_libraries(config, arrays),
        "third": draw_third(config, arrays),
        "targets": draw_targets(config, arrays),
    }


STUDY = Study(
    Config(),
    Config(
        pairs=(MAIN, ("EDM", "log_snr")), steps=(16, 32, 64), strong_steps=(8, 16, 32),
        weak_steps=(16, 32, 64), mixture_steps=(4, 8, 16), late_steps=(16, 32, 64), late_paths=100,
        fitted=3, points=8, paths=200, many=400, fine=128,
        tolerances=(1e-3, 1e-4, 1e-5), most=300, targets=("julia_bimodal", "julia_trimodal"),
        long=24, short=6, particles=400, fewer=(), repeats=8,
    ),
    compute,
    table,
    draw,
    "How fast do samplers and solvers converge, and do they reach every target of the gallery?",
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
