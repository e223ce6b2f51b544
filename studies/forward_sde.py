"""Do simulated forward SDEs follow the exact laws of their processes?

    dX = f(t) X dt + g(t) dW,   X_0 from 0.8 N(-1, 0.4^2) + 0.2 N(1, 0.3^2)
    exact law p_t:  that of alpha(t) X_0 + sqrt(var(t)) Z, a mixture of two Gaussians at every t

Paths are made by torchsde (`solvers.forward`) with Euler's method and with SRK, an order higher.
A method of fixed steps is linear in its start and in the standard normal numbers z_i that it draws,

    X_k = a_k X_0 + sum_i c_ki z_i,   so its own law is that of a_k X_0 + sqrt(sum_i c_ki^2) Z,

and the a_k and c_ki are what the solver answers to each of these numbers alone (`response`). So
both laws beside a simulation are known without sampling: that of the process, and that of the
method, and the error of a method is a number without error bars. Against them stand

    mean, variance    of the paths, in standard errors from either law; all times of a run are of
                      the same paths, so that neighbouring points err together
    KS distance       sup |F_n - F| to p_t; its floor, for true samples, is law-free: mean
                      sqrt(pi/2) log 2/sqrt(n) - 1/(6n), spread 0.26033/sqrt(n)

Where a process ends with alpha = 0 (cosine, rectified flow), f and g are infinite at T, and a run
must end before: here at (1 - cut) T. On uniform steps even that is hard, since f h is near -1 in
the last ones; steps that are even in t/end + log alpha(t)/log alpha(end) keep f h small.

The note score_based_sde of R. Rosa (random_notes, CC BY 4.0) shows the heat map of such a p_t for
the variance-preserving process, with beta from 0.1 to 20, by three recipes that are not that
process. Each has an exact law of its own, B = int beta:

    drift of the wrong sign       alpha = exp(+B/2), var = exp(B) - 1          (its f_vp)
    t^4 for t^2 in B              the same process on another clock            (its kernel)
    variance as standard deviation    var^2 in the place of var: sub-VP's own law  (its kernel)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import (
    EDM,
    VE,
    VP,
    Cosine,
    GaussianMixture,
    Process,
    RectifiedFlow,
    SubVP,
    Transition,
    VEGeometric,
    metrics,
    plots,
    solvers,
)
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro
from diffscience.noise import Noise
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

WEIGHTS, MEANS, STDS = (0.8, 0.2), (-1.0, 1.0), (0.4, 0.3)  # the note's law
METHODS = {"euler": "Euler", "srk": "SRK"}
MESHES = {"uniform": "uniform steps", "graded": "graded steps"}
REACH = 3.3  # half the window of a picture, in standard deviations of the widest law


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    particles, steps : of each run; `kept` of its times are looked at, a divisor of the steps.
    shown : shares of the run's kept times at which histograms and KS distances are taken.
    cut : the share of its time that a process with an infinite g is spared at its end.
    bins, drawn : of the histograms; paths over the heat maps.
    counts : step counts whose error is found without sampling.
    cuts : cuts whose error is found without sampling, with `steps` steps.
    pixels : times and places of a heat map.
    note_times, note_steps : of the note's heat maps, and of the SDEs among them.
    """

    particles: int = 50000
    steps: int = 200
    kept: int = 40
    shown: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    cut: float = 0.01
    bins: int = 60
    drawn: int = 12
    counts: tuple[int, ...] = (25, 50, 100, 200, 400, 800)
    cuts: tuple[float, ...] = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    pixels: int = 100
    note_times: tuple[float, ...] = (0.25, 0.5, 1.0)
    note_steps: int = 500
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("particles", "steps", "kept", "bins", "drawn", "pixels", "note_steps"):
            whole(name, getattr(self, name), 2)
        if self.steps % self.kept:
            raise ArgumentError("kept", f"divide the {self.steps} steps", self.kept)
        number("cut", self.cut, 0, 1, "()")
        places = np.array(self.shown) * self.kept
        if not self.shown or np.any(np.abs(places - np.round(places)) > 1e-9):
            raise ArgumentError("shown", f"be multiples of 1/kept = 1/{self.kept}", self.shown)
        for name, low in (("shown", 0.0), ("note_times", 0.0), ("cuts", 0.0)):
            values = np.array(getattr(self, name))
            if not len(values) or np.any(values <= low) or np.any(values > 1):
                raise ArgumentError(name, "lie in (0, 1]", getattr(self, name))
        if max(self.cuts) >= 1:
            raise ArgumentError("cuts", "lie in (0, 1)", self.cuts)
        if len(self.counts) < 2 or min(self.counts) < 2 or np.any(np.diff(self.counts) <= 0):
            raise ArgumentError("counts", "be two or more whole numbers, increasing", self.counts)
        held = np.array(self.note_times) * self.note_steps
        if np.any(np.abs(held - np.round(held)) > 1e-9):
            raise ArgumentError("note_times", "be on the note's grid of steps", self.note_times)


def law_of_data() -> GaussianMixture:
    """0.8 N(-1, 0.4^2) + 0.2 N(1, 0.3^2)."""
    return GaussianMixture(WEIGHTS, np.array(MEANS)[:, None], np.array(STDS)[:, None, None] ** 2)


def processes() -> dict[str, Process]:
    """Every continuous process by name; the variance-exploding ones end at moderate levels."""
    return {
        "VE": VE(5.0),
        "VE geometric": VEGeometric(0.01, 5.0),
        "EDM": EDM(5.0),
        "VP": VP(),
        "sub-VP": SubVP(),
        "cosine": Cosine(),
        "rectified flow": RectifiedFlow(),
    }


def is_singular(process: Process) -> bool:
    """Whether f and g are infinite at T."""
    return bool(process.alpha(process.T) == 0)


def end_of(process: Process, cut: float) -> float:
    """Where a run ends."""
    return process.T * (1 - cut) if is_singular(process) else process.T


def runs_of(process: Process) -> list[tuple[str, str]]:
    """(method, mesh) of the runs of a process; the last is the best."""
    meshes = MESHES if is_singular(process) else ["uniform"]
    return [(method, mesh) for mesh in meshes for method in METHODS]


def mesh_of(process: Process, mesh: str, steps: int, end: float) -> np.ndarray:
    """steps + 1 times from 0 to end: even in t, or in t/end + log alpha(t)/log alpha(end)."""
    if mesh == "uniform":
        return np.linspace(0.0, end, steps + 1)
    whole_way = math.log(process.alpha(end))
    wanted = np.linspace(0.0, 2.0, steps + 1)
    low, high = np.zeros(steps + 1), np.full(steps + 1, end)
    for _ in range(60):
        middle = 0.5 * (low + high)
        early = middle / end + np.log(process.alpha(middle)) / whole_way < wanted
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    high[0], high[-1] = 0.0, end
    return high


# The exact law of a method ----------------------------------------------------------------------


class Probe(Noise):
    """One number at a time: row 1 + i is the unit of z_i; row 1 + steps + i that of a_i.

    Row 0 has no noise. `area` says whether the method asks for areas.
    """

    def __init__(self, steps: int, area: bool) -> None:
        super().__init__(1 + steps * (1 + area), 1, torch.float64, "cpu")
        self.steps, self._at = steps, -1

    def _next(self, area: bool) -> torch.Tensor:
        self._at += not area
        z = torch.zeros(self.n, 1, dtype=self.dtype)
        z[1 + self._at + self.steps * area] = 1 / math.sqrt(12) if area else 1.0
        return z


def response(
    process: Process, times: np.ndarray, method: str, keep: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(a_k, sum_i c_ki^2) of a method at the places `keep` among the times."""
    probe = Probe(len(times) - 1, method == "srk")
    x = np.zeros((probe.n, 1))
    x[0] = 1.0
    found = solvers.forward(process, x, times, probe, method=method, keep=keep).states[..., 0]
    return found[:, 0], np.sum(found[:, 1:] ** 2, axis=1)


def moments(law: Any) -> tuple[float, float]:
    """Mean and variance of a law on the line."""
    return float(law.mean[0]), float(law.cov[0, 0])


def apart(one: Any, other: Any, points: int = 2001) -> float:
    """sup |F - G| of two laws on the line, on a grid over both."""
    (a, v), (b, w) = moments(one), moments(other)
    low = min(a - 8 * math.sqrt(v), b - 8 * math.sqrt(w))
    high = max(a + 8 * math.sqrt(v), b + 8 * math.sqrt(w))
    # Even in the quantiles of the narrower law, which the wider one would step over.
    narrow = (a, v) if v < w else (b, w)
    x = np.linspace(low, high, points)
    near = narrow[0] + math.sqrt(narrow[1]) * np.linspace(-6, 6, points)
    x = np.sort(np.concatenate([x, near]))[:, None]
    return float(np.abs(one.cdf(x) - other.cdf(x)).max())


def off(process: Process, times: np.ndarray, method: str) -> np.ndarray:
    """(variance/exact - 1, KS distance to the exact law) at the end, without sampling."""
    law, end = law_of_data(), float(times[-1])
    a, v = response(process, times, method, [len(times) - 1])
    own, exact = law.diffuse(Transition(float(a[0]), float(v[0]))), law.diffuse(process.at(end))
    return np.array([moments(own)[1] / moments(exact)[1] - 1, apart(own, exact)])


def sweep(config: Config, process: Process) -> dict[str, np.ndarray]:
    """`off` for every step count, mesh and method; and for every cut where g is infinite."""
    end, found = end_of(process, config.cut), {}
    for method, mesh in runs_of(process):
        rows = [off(process, mesh_of(process, mesh, n, end), method) for n in config.counts]
        found[f"{method} {mesh}"] = np.stack(rows)
        if is_singular(process):
            ends = [end_of(process, cut) for cut in config.cuts]
            rows = [off(process, mesh_of(process, mesh, config.steps, e), method) for e in ends]
            found[f"cuts {method} {mesh}"] = np.stack(rows)
    return found


# Paths ------------------------------------------------------------------------------------------


def variance(x: np.ndarray) -> tuple[float, float]:
    """The variance of points (n,), and its standard error from the fourth moment."""
    centred = (x - x.mean()) ** 2
    mean, error = mean_and_error(centred)
    return mean * len(x) / (len(x) - 1), error


def floor(n: int) -> tuple[float, float]:
    """Mean and spread of the KS distance of n true samples, for any continuous law."""
    return math.sqrt(math.pi / 2) * math.log(2) / math.sqrt(n) - 1 / (6 * n), 0.26033 / math.sqrt(n)


def near(law: Any, n: int) -> np.ndarray:
    """n places, even over the bulk of a law."""
    mean, var = moments(law)
    return mean + REACH * math.sqrt(var) * np.linspace(-1, 1, n)


def places_of(config: Config) -> list[int]:
    """Places of the kept times among those of a run."""
    return list(range(0, config.steps + 1, config.steps // config.kept))


def shown_of(config: Config) -> list[int]:
    """Places of the shown times among the kept ones."""
    return [round(share * config.kept) for share in config.shown]


def window_of(process: Process, end: float) -> float:
    """Half the window that holds the law at all times."""
    law = law_of_data()
    wide = [moments(law.diffuse(process.at(t))) for t in np.linspace(0, end, 9).tolist()]
    return REACH * max(math.sqrt(v) for _, v in wide)


def simulate(
    config: Config,
    process: Process,
    method: str,
    mesh: str,
    generator: Any,
    seed: int,
    device: str = "cpu",
) -> dict[str, Any]:
    """Paths, and what the kept times say of them beside both exact laws."""
    law, end = law_of_data(), end_of(process, config.cut)
    times, keep = mesh_of(process, mesh, config.steps, end), places_of(config)
    start = law.sample(config.particles, generator)
    run = solvers.forward(process, start, times, seed, method=method, keep=keep, device=device)
    own = response(process, times, method, keep)
    half = window_of(process, end)
    edges = np.linspace(-half, half, config.bins + 1)
    rows, counts, bars, far = [], [], [], []
    for k, (t, x) in enumerate(zip(run.times.tolist(), run.states[..., 0], strict=True)):
        exact, scheme = law.diffuse(process.at(t)), law.diffuse(Transition(own[0][k], own[1][k]))
        rows.append([*mean_and_error(x), *variance(x), *moments(exact), *moments(scheme)])
        counts.append(np.histogram(x, edges)[0])
        if k in shown_of(config):
            bars.append(np.histogram(x, near(exact, config.bins + 1))[0])
            e = metrics.ks(x[:, None], exact, 0, repeats=0)
            far.append([t, e.value, e.error, e.p_value, apart(scheme, exact)])
    return {
        "times": run.times,
        "rows": np.array(rows),
        "counts": np.array(counts),
        "bars": np.array(bars),
        "ks": np.array(far),
        "paths": run.states[:, : config.drawn, 0],
        "evaluations": run.evaluations,
    }


def pictures(config: Config, process: Process) -> dict[str, np.ndarray]:
    """The exact density on a grid of times and places, and at the shown times of the best run."""
    end = end_of(process, config.cut)
    law, half, (_, mesh) = law_of_data(), window_of(process, end), runs_of(process)[-1]
    t = np.linspace(0.0, end, config.pixels)
    x = np.linspace(-half, half, config.pixels + 1)
    kept = mesh_of(process, mesh, config.steps, end)[places_of(config)]
    laws = [law.diffuse(process.at(s)) for s in kept[shown_of(config)].tolist()]
    places = np.stack([near(one, 401) for one in laws])
    height = [np.exp(one.log_prob(y[:, None])) for one, y in zip(laws, places, strict=True)]
    return {
        "t": t,
        "x": x,
        "density": density(lambda s: law.diffuse(process.at(s)), t, x),
        "near": places,
        "height": np.stack(height),
    }


def density(law: Callable[[float], Any], t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """p_t(x), (times, places)."""
    return np.stack([np.exp(law(s).log_prob(x[:, None])) for s in t.tolist()])


# The note's demo --------------------------------------------------------------------------------

FAULTS = ("drift sign", "t^4", "variance as std")
RECIPES: dict[str, tuple[str, ...]] = {
    "right": (),
    "drift sign": ("drift sign",),
    "t^4": ("t^4",),
    "variance as std": ("variance as std",),
    "kernel as printed": ("t^4", "variance as std"),
    "all three": FAULTS,
}
"""The right recipe, each fault alone, the note's kernel (two of them), and all three."""


def recipe(t: float, faults: tuple[str, ...]) -> Transition:
    """The transition from time 0 to t of the note's process with some of its faults."""
    vp = VP()
    B = vp.beta_min * t + 0.5 * (vp.beta_max - vp.beta_min) * t ** (4 if "t^4" in faults else 2)
    B = -B if "drift sign" in faults else B
    var = abs(math.expm1(-B))
    return Transition(math.exp(-0.5 * B), var * var if "variance as std" in faults else var)


def note_law(t: float, faults: tuple[str, ...]) -> GaussianMixture:
    """The law at time t of a recipe with some faults."""
    return law_of_data().diffuse(recipe(t, faults))


def clock(t: float, faults: tuple[str, ...]) -> float:
    """beta(t), the derivative of B."""
    vp = VP()
    power = 4 if "t^4" in faults else 2
    return vp.beta_min + 0.5 * power * (vp.beta_max - vp.beta_min) * t ** (power - 1)


def note(config: Config, seed: int, generator: Any) -> dict[str, Any]:
    """Every recipe: its exact law over time, and the note's 1024 points sent through it.

    Recipes whose variance is one of an SDE go through the SDE by SRK; the others are drawn from
    their kernel at each of the note's times.
    """
    x0 = Xoshiro(12345).mixture(WEIGHTS, MEANS, STDS, 1024)[:, None]
    t, x = np.linspace(0.0, 1.0, config.pixels), np.linspace(-3.5, 3.5, config.pixels + 1)
    times = np.linspace(0.0, 1.0, config.note_steps + 1)
    held = [round(s * config.note_steps) for s in config.note_times]
    right = [note_law(s, ()) for s in t.tolist()]
    found: dict[str, Any] = {"t": t, "x": x, "points": x0[[0, 1, -2, -1], 0]}
    for name, faults in RECIPES.items():
        laws = [note_law(s, faults) for s in t.tolist()]
        found[f"{name} density"] = density(partial(note_law, faults=faults), t, x)
        found[f"{name} moments"] = np.array([moments(one) for one in laws])
        found[f"{name} apart"] = np.array([apart(*pair) for pair in zip(laws, right, strict=True)])
        if "variance as std" in faults:
            kernels = [recipe(s, faults) for s in config.note_times]
            moved = [T.apply(x0, generator.normal(size=x0.shape)) for T in kernels]
        else:
            moved = list(simulated(x0, times, faults, seed, held))
        rows = []
        for s, y in zip(config.note_times, moved, strict=True):
            own, exact = note_law(s, faults), note_law(s, ())
            to_own, to_right = (metrics.ks(y, p, 0, repeats=0) for p in (own, exact))
            rows.append([
                *moments(own), apart(own, exact), *mean_and_error(y[:, 0]), *variance(y[:, 0]),
                to_own.value, to_own.p_value, to_right.value, to_right.error, to_right.p_value,
            ])  # fmt: skip
        found[f"{name} rows"] = np.array(rows)
    return found


def simulated(
    x0: np.ndarray, times: np.ndarray, faults: tuple[str, ...], seed: int, keep: list[int]
) -> np.ndarray:
    """dX = -+ beta/2 X dt + sqrt(beta) dW by SRK, at the places `keep`."""
    sign = 0.5 if "drift sign" in faults else -0.5
    return np.asarray(
        solvers.ito(
            lambda x, t: sign * clock(t, faults) * x,
            lambda t: math.sqrt(clock(t, faults)),
            x0,
            times,
            seed,
            method="srk",
            keep=keep,
        ).states
    )


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Paths, pictures and errors of every process; the note's recipes."""
    arrays: dict[str, Any] = {}
    jobs = [(name, *how) for name, p in processes().items() for how in runs_of(p)]
    for name, method, mesh in run.progress(jobs, "paths"):
        key, process = f"{name} {method} {mesh}", processes()[name]
        start, seed = run.generator(key, "start"), run.seed_for(key, "noise")
        facts = run.cell(key, simulate, config, process, method, mesh, start, seed, run.device)
        arrays |= {f"{key} {fact}": value for fact, value in facts.items()}
    for name, process in run.progress(list(processes().items()), "errors"):
        for part, work in (("exact", pictures), ("sweep", sweep)):
            facts = run.cell(f"{name} {part}", work, config, process)
            arrays |= {f"{name} {part} {fact}": value for fact, value in facts.items()}
    facts = run.cell("note", note, config, run.seed_for("note"), run.generator("note"))
    return arrays | {f"note {fact}": value for fact, value in facts.items()}


# Tables -----------------------------------------------------------------------------------------


def how(method: str, mesh: str) -> str:
    """A run in words."""
    return f"{METHODS[method]}, {MESHES[mesh]}"


def all_runs() -> list[tuple[str, str, str]]:
    """(process, method, mesh) of every run."""
    return [(name, *pair) for name, process in processes().items() for pair in runs_of(process)]


def main_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row for each run and shown time."""
    rows, (mean_floor, spread) = [], floor(config.particles)
    for name, method, mesh in all_runs():
        key = f"{name} {method} {mesh}"
        for place, far in zip(shown_of(config), arrays[f"{key} ks"], strict=True):
            mean, mean_error, var, var_error, *known = arrays[f"{key} rows"][place]
            row = {"process": name, "run": how(method, mesh), "steps": config.steps, "t": far[0]}
            row |= {"mean": mean, "mean error": mean_error, "exact mean": known[0]}
            row |= {"variance": var, "variance error": var_error, "exact variance": known[1]}
            row |= {"variance of the method": known[3]}
            row |= {"z of the mean": (mean - known[0]) / mean_error}
            row |= {"z of the variance": (var - known[1]) / var_error}
            row |= {"z to the method's mean": (mean - known[2]) / mean_error}
            row |= {"z to the method's variance": (var - known[3]) / var_error}
            row |= {"KS": far[1], "KS error": far[2], "KS floor": mean_floor}
            row |= {"KS floor error": spread, "KS of the method, exact": far[4]}
            rows.append(row | {"p-value": far[3]})
    return rows


def end_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What each run comes to at its end, and the worst of its kept times."""
    rows = []
    for name, method, mesh in all_runs():
        key = f"{name} {method} {mesh}"
        all_times = arrays[f"{key} rows"]
        mean, mean_error, var, var_error, exact_mean, exact, _, own = all_times.T
        far = arrays[f"{key} ks"][-1]
        z = np.abs(np.stack([(mean - exact_mean) / mean_error, (var - exact) / var_error]))
        to_own = np.abs(np.stack([(var - own) / var_error]))
        n = math.sqrt(config.particles)
        rows.append({
            "process": name, "run": how(method, mesh), "steps": config.steps,
            "evaluations": int(arrays[f"{key} evaluations"]), "end": far[0],
            "variance/exact - 1": var[-1] / exact[-1] - 1, "error": var_error[-1] / exact[-1],
            "exact, of the method": own[-1] / exact[-1] - 1,
            "largest |z| to the process": z.max(), "largest |z| to the method": to_own.max(),
            "KS sqrt(n)": far[1] * n, "floor": floor(config.particles)[0] * n,
            "floor error": 0.26033, "p-value": far[3],
        })  # fmt: skip
    return rows


def steps_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The exact errors of the methods, for every step count."""
    rows = []
    for name, method, mesh in all_runs():
        found = arrays[f"{name} sweep {method} {mesh}"]
        for n, (off_by, far) in zip(config.counts, found, strict=True):
            row = {"process": name, "run": how(method, mesh), "steps": n}
            row |= {"end": end_of(processes()[name], config.cut)}
            row |= {"variance/exact - 1": off_by, "KS to the exact law": far}
            rows.append(row | {"order": order(config.counts, found[:, 0])})
    return rows


def order(counts: tuple[int, ...], errors: np.ndarray) -> float:
    """How fast an error falls over the last doubling of the steps."""
    return math.log(abs(errors[-2] / errors[-1])) / math.log(counts[-1] / counts[-2])


def cut_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The exact errors where g is infinite at T, by how far before T a run ends."""
    rows = []
    for name, method, mesh in all_runs():
        if not is_singular(processes()[name]):
            continue
        found = arrays[f"{name} sweep cuts {method} {mesh}"]
        for cut, (off_by, far) in zip(config.cuts, found, strict=True):
            row = {"process": name, "run": how(method, mesh), "steps": config.steps, "1 - t/T": cut}
            rows.append(row | {"variance/exact - 1": off_by, "KS to the exact law": far})
    return rows


def note_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The note's recipes at some times."""
    names = (
        "mean", "variance", "KS to the right law, exact", "mean of 1024 points", "mean error",
        "variance of 1024 points", "variance error", "KS to its own law", "p-value, its own law",
        "KS to the right law", "KS error", "p-value, the right law",
    )  # fmt: skip
    rows = []
    for name in RECIPES:
        for t, values in zip(config.note_times, arrays[f"note {name} rows"], strict=True):
            row: dict[str, Any] = {"recipe": name, "t": t, **dict(zip(names, values, strict=True))}
            mean_floor, spread = floor(1024)
            rows.append(row | {"KS floor": mean_floor, "KS floor error": spread})
    return rows


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Shown times; ends; step counts; cuts; the note's recipes."""
    import pandas as pd

    parts = {
        "": main_table,
        "end": end_table,
        "steps": steps_table,
        "cut": cut_table,
        "note": note_table,
    }
    return {key: pd.DataFrame(rows(config, arrays)) for key, rows in parts.items()}


# Figures ----------------------------------------------------------------------------------------


def best(name: str) -> str:
    """The key of the best run of a process."""
    return f"{name} {' '.join(runs_of(processes()[name])[-1])}"


def scaled(values: np.ndarray) -> np.ndarray:
    """Each time (row) over its largest value."""
    return np.asarray(values / values.max(axis=1, keepdims=True))


def edges_of(t: np.ndarray) -> np.ndarray:
    """Edges of cells around times."""
    return np.concatenate([t[:1], 0.5 * (t[1:] + t[:-1]), t[-1:]])


def heat(ax: Axes, t: np.ndarray, x: np.ndarray, values: np.ndarray) -> Any:
    """A heat map of densities (times, places), each time over its largest value."""
    image = ax.imshow(
        scaled(values).T,
        extent=(t[0], t[-1], x[0], x[-1]),
        origin="lower",
        aspect="auto",
        interpolation="bilinear",
        cmap=plots.DENSITY,
        vmin=0,
        vmax=1,
    )
    ax.grid(False)
    return image


def heat_maps(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Exact densities with paths over them, beside histograms of all paths."""
    fig, axes = plots.figure(4, 4, height=7.8)
    pairs = [row[i : i + 2] for row in axes for i in (0, 2)]
    for (left, right), name in zip(pairs, processes()):
        key = best(name)
        t, x = arrays[f"{name} exact t"], arrays[f"{name} exact x"]
        image = heat(left, t, x, arrays[f"{name} exact density"])
        times = arrays[f"{key} times"]
        left.plot(times, arrays[f"{key} paths"], color=plots.COLORS[2], linewidth=0.6)
        edges = np.linspace(x[0], x[-1], config.bins + 1)
        drawn = right.pcolormesh(
            edges_of(times), edges, scaled(arrays[f"{key} counts"]).T, vmin=0, vmax=1
        )
        drawn.set_rasterized(True)
        right.grid(False)
        left.set_title(f"{name}: exact", fontsize=10)
        right.set_title("histograms", fontsize=10)
        for ax in (left, right):
            ax.set(xlim=(0, t[-1]), ylim=(x[0], x[-1]), xlabel="t")
        right.set_yticklabels([])
        left.set_ylabel("x", labelpad=1)
    for ax in pairs[7]:
        ax.set_axis_off()
    words = (
        f"left: the exact law with {config.drawn} paths over it\n"
        f"right: histograms of {config.particles} paths\n"
        f"SRK, {config.steps} steps; cosine and rectified\n"
        f"flow end at {1 - config.cut:g} T, where f and g are\nstill finite, in graded steps"
    )
    corner = pairs[7][0]
    text = corner.text(0.0, 1.0, words, va="top", fontsize=9, transform=corner.transAxes)
    place = corner.inset_axes((0.0, 0.22, 2.1, 0.1))
    bar = fig.colorbar(image, cax=place, orientation="horizontal")
    bar.set_label("density over its largest value at t", fontsize=9)
    for artist in (text, place):
        artist.set_in_layout(False)
    fig.suptitle("Forward SDEs: the exact laws, and histograms of simulated paths")
    return fig


def histograms(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Histograms of the paths under the exact densities, at the shown times."""
    names = list(processes())
    fig, axes = plots.figure(len(names), len(config.shown), height=9.6)
    for row, name in zip(axes, names, strict=True):
        key = best(name)
        for i, ax in enumerate(row):
            counts, x = arrays[f"{key} bars"][i], arrays[f"{name} exact near"][i]
            edges = np.linspace(x[0], x[-1], config.bins + 1)
            height = counts / (config.particles * np.diff(edges))
            ax.stairs(
                height, edges, fill=True, color=plots.COLORS[0], alpha=0.5, label="paths (SRK)"
            )
            ax.plot(x, arrays[f"{name} exact height"][i], "k", linewidth=1.1, label="exact law")
            t, far = arrays[f"{key} ks"][i, :2]
            ax.set_title(f"t = {t:.3g}, KS = {far:.4f}", fontsize=8.5)
            ax.set(xlim=(x[0], x[-1]), ylim=(0, None), yticks=[])
            ax.tick_params(labelsize=8)
        row[0].set_ylabel(f"{name}\ndensity", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    plots.legend_below(fig, axes[0, 0])
    middle, spread = floor(config.particles)
    fig.suptitle(
        f"{config.particles} paths in {config.steps} steps of SRK; the KS distance of true "
        f"samples is {middle:.4f} ± {spread:.4f}",
        fontsize=11,
    )
    return fig


def curves(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Means and variances against time, and what the variances of every run are off by."""
    fig, axes = plots.figure(3, 3, height=7.6)
    means, variances, *rest = axes.flat
    for ax, name, shade in zip(rest, processes(), plots.COLORS, strict=False):
        t, rows = over_end(arrays, best(name))
        at = slice(None, None, 5)
        for both, i in ((means, 0), (variances, 2)):
            both.plot(t, rows[:, 4 + i // 2], color=shade, linewidth=1.2, zorder=1)
            both.errorbar(
                t[at], rows[at, i], rows[at, i + 1], fmt="o", color=shade, markersize=3, capsize=1.5
            )
        ax.axhline(0.0, color="black", linewidth=0.8)
        for j, (method, mesh) in enumerate(runs_of(processes()[name])):
            t, rows = over_end(arrays, f"{name} {method} {mesh}")
            _, _, var, error, _, exact, _, own = rows.T
            at = slice(1 + j % 2, None, 2)
            ax.errorbar(
                t[at], 100 * (var / exact - 1)[at], (100 * error / exact)[at], fmt="o",
                color=plots.COLORS[j], markersize=2.5, elinewidth=0.8, label=how(method, mesh),
            )  # fmt: skip
            ax.plot(t, 100 * (own / exact - 1), color=plots.COLORS[j], linewidth=1.2)
        ax.set_title(name, fontsize=10, color=shade)
        ax.set_ylabel("variance off by / %")
    means.set_title("mean (colours of the titles)", fontsize=10)
    variances.set_title("variance", fontsize=10)
    variances.set_yscale("log")
    variances.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    variances.minorticks_off()
    for ax in axes[-1]:
        ax.set_xlabel("t / end")
    plots.legend_below(fig, rest[-1])
    fig.suptitle(
        f"{config.particles} paths in {config.steps} steps, with standard errors. Mean, variance: "
        "SRK over the exact law;\noff by: variance/exact − 1; lines: the method's own law",
        fontsize=11,
    )
    return fig


def over_end(arrays: dict[str, np.ndarray], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(times of a run over its end, its rows)."""
    times = arrays[f"{key} times"]
    return times / times[-1], arrays[f"{key} rows"]


def distances(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """KS distances at the shown times, over their floor."""
    fig, axes = plots.figure(2, 4, height=5.0, share=True)
    middle, spread = floor(config.particles)
    for ax, name in zip(axes.flat, processes()):
        ax.axhspan(
            middle - 2 * spread, middle + 2 * spread, color="0.85",
            label="true samples, mean ± two standard deviations",
        )  # fmt: skip
        for j, (method, mesh) in enumerate(runs_of(processes()[name])):
            t, far, error, _, own = arrays[f"{name} {method} {mesh} ks"].T
            low = np.minimum(error, 0.9 * far)  # a logarithm has no 0
            ax.errorbar(
                t / t[-1] + 0.03 * (j - 1), far, [low, error], fmt="o", color=plots.COLORS[j],
                markersize=3.5, capsize=2, label=how(method, mesh),
            )  # fmt: skip
            ax.plot(t / t[-1], own, color=plots.COLORS[j], linewidth=1)
        ax.set(title=name, yscale="log", ylim=(0.02 * middle, 50 * middle))
        ax.set_xlabel("t / end")
        ax.tick_params(labelbottom=True)
        ax.minorticks_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("KS distance to $p_t$")
    axes.flat[7].set_axis_off()
    plots.legend_below(fig, axes.flat[5], columns=3)
    fig.suptitle(
        f"Points: {config.particles} paths, {config.steps} steps; lines: the method's exact law"
    )
    return fig


def by_steps(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The exact error of the variance, against the number of steps."""
    fig, axes = plots.figure(1, 3, height=4.4)
    panels = [("euler", "uniform"), ("srk", "uniform"), ("both", "graded")]
    n = np.array(config.counts)
    for ax, (method, mesh) in zip(axes[0], panels, strict=True):
        for name, color in zip(processes(), plots.COLORS, strict=False):
            for way, line in (("euler", "-"), ("srk", "--")):
                key = f"{name} sweep {way} {mesh}"
                if method not in (way, "both") or key not in arrays:
                    continue
                label = name if method != "both" else None
                errors = np.abs(arrays[key][:, 0])
                width = 3.6 if name in ("VP", "cosine") else 1.4  # which lie under their likes
                ax.plot(n, errors, line, color=color, marker="o", lw=width, ms=3, label=label)
                # what paths say, at the step count of the simulations
                rows = arrays[f"{name} {way} {mesh} rows"][-1]
                seen, error = abs(rows[2] / rows[5] - 1), rows[3] / rows[5]
                if seen > 3 * error:
                    ax.errorbar(
                        [config.steps], [seen], [error], fmt="s", color=color, markersize=5,
                        markerfacecolor="white", capsize=2, zorder=4,
                    )  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="steps", ylim=(1e-7, 20))
        ax.set_xticks(n, [str(k) for k in config.counts])
        ax.minorticks_off()
    titles = ("Euler, uniform steps", "SRK, uniform steps", "graded steps (dashed: SRK)")
    for ax, title, power in zip(axes[0], titles, (1, 2, 0), strict=True):
        ax.set_title(title, fontsize=10)
        if power:
            ax.plot(n, 2.0 * (n / n[0]) ** -power, color="0.4", linewidth=1, linestyle=":")
            ax.annotate(f"1/n{'²' * (power == 2)}", (n[1], 3.0 * (n[1] / n[0]) ** -power))
    axes[0, 0].set_ylabel("|variance/exact − 1| at the end")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        "What steps of a method do to the variance, without sampling; squares: "
        f"{config.particles} paths\n(VP lies under sub-VP, cosine under rectified flow)",
        fontsize=11,
    )
    return fig


def by_cut(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The exact error of the variance, against the distance from T."""
    names = [name for name, process in processes().items() if is_singular(process)]
    fig, axes = plots.figure(1, len(names), height=3.7)
    for ax, name in zip(axes[0], names, strict=True):
        for j, (method, mesh) in enumerate(runs_of(processes()[name])):
            errors = 100 * arrays[f"{name} sweep cuts {method} {mesh}"][:, 0]
            ax.plot(
                config.cuts, errors, "o-", color=plots.COLORS[j], markersize=3.5,
                label=how(method, mesh),
            )  # fmt: skip
        ax.axhline(0.0, color="black", linewidth=0.8)
        ax.axvline(1 / config.steps, color="0.5", linewidth=1, linestyle=":")
        ax.set(xscale="log", title=name, xlabel="1 − t/T at the end of the run")
        ax.set_yscale("symlog", linthresh=1.0)
        ax.set_yticks([-100, -10, -1, 0, 1, 10, 100, 1000])
        ax.set_yticklabels(["−100", "−10", "−1", "0", "1", "10", "100", "1000"])
        ax.invert_xaxis()
    axes[0, 0].set_ylabel("variance off by / %")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        f"Where f and g are infinite at T: {config.steps} steps, without sampling "
        "(dotted: one uniform step before T)",
        fontsize=11,
    )
    return fig


TITLES = {
    "right": "right",
    "drift sign": "drift +βx/2",
    "t^4": "t⁴ for t²",
    "variance as std": "variance as std",
    "kernel as printed": "kernel as printed\n(t⁴, variance as std)",
    "all three": "all three",
}


def note_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Heat maps of the note's recipes; their means, deviations and distances."""
    fig, axes = plots.figure(3, 3, height=8.0)
    t, x = arrays["note t"], arrays["note x"]
    for ax, name in zip(axes[:2].flat, RECIPES, strict=True):
        image = heat(ax, t, x, arrays[f"note {name} density"])
        mean, var = arrays[f"note {name} moments"].T
        ax.plot(t, mean, color=plots.COLORS[2], linewidth=1.4)
        for sign in (-1, 1):
            ax.plot(t, mean + sign * np.sqrt(var), color=plots.COLORS[2], linestyle="--")
        ax.set(xlim=(0, 1), ylim=(x[0], x[-1]), xlabel="t")
        ax.set_title(TITLES[name], fontsize=10)
    for ax in axes[:2, 0]:
        ax.set_ylabel("x")
    fig.colorbar(image, ax=axes[:2], label="density over its largest value at t", shrink=0.8)
    for name, color in zip(RECIPES, ["black", *plots.COLORS], strict=False):
        mean, var = arrays[f"note {name} moments"].T
        label = TITLES[name].partition("\n")[0]
        line = "--" if name == "right" else "-"
        style: dict[str, Any] = {"color": color, "linestyle": line, "label": label}
        style |= {"zorder": 5, "linewidth": 1.4} if name == "right" else {}
        axes[2, 0].plot(t, mean, **style)
        axes[2, 1].plot(t, np.sqrt(var), **style)
        if name != "right":
            axes[2, 2].plot(t, arrays[f"note {name} apart"], **style)
        rows = arrays[f"note {name} rows"].T
        at = np.array(config.note_times)
        near_enough = rows[4] < 1
        axes[2, 0].errorbar(
            at[near_enough], rows[3][near_enough], rows[4][near_enough], fmt="o", color=color,
            markersize=3,
        )  # fmt: skip
        axes[2, 1].plot(at, np.sqrt(rows[5]), "o", color=color, markersize=3)
    axes[2, 0].set(ylabel="mean", ylim=(-4, 0.5))
    axes[2, 1].set(ylabel="standard deviation", yscale="log", ylim=(0.3, 300))
    axes[2, 1].minorticks_off()
    middle, spread = floor(1024)
    axes[2, 2].axhspan(0, middle + 2 * spread, color="0.88")
    axes[2, 2].set(ylabel="KS to the right law", ylim=(0, 0.75))
    for ax in axes[2]:
        ax.set(xlabel="t", xlim=(0, 1.03))
    plots.legend_below(fig, axes[2, 0], columns=3)
    fig.suptitle(
        "The note's variance-preserving demo: the exact law of each recipe (red: mean ± std);\n"
        "points: the note's 1024 points; grey: what 1024 points cannot tell apart",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Heat maps; histograms; moments; KS distances; errors by steps and by cut; the note."""
    return {
        "": heat_maps(config, arrays),
        "histograms": histograms(config, arrays),
        "moments": curves(config, arrays),
        "ks": distances(config, arrays),
        "steps": by_steps(config, arrays),
        "cut": by_cut(config, arrays),
        "note": note_figure(config, arrays),
    }


STUDY = Study(
    Config(),
    Config(
        particles=2000, steps=40, kept=20, shown=(0.25, 1.0), bins=40, drawn=8, counts=(20, 40),
        cuts=(0.1, 0.01), pixels=24, note_steps=40,
    ),
    compute,
    table,
    draw,
    "Do simulated forward SDEs follow the exact laws of their processes?",
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
