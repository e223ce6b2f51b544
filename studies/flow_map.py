"""The map of the probability flow: what data a code becomes, how exactly, and along which ways.

    dx/dt = velocity(x, t),   code  z = x_T/sqrt(var(T)),   decode: from T down to 0, encode: back

On the line the flow keeps the order of points and so is known without a solver,
x_t = F_t^-1(F_s(x_s)) with F_t the cdf of p_t: `Oracle.flow`. Solvers are held to it.

In y = x/alpha and r = sigma/alpha every process has one and the same flow, dy/dr = (y - x0)/r with
x0 = E[X_0 | y, r] (Karras et al. 2022): processes differ in their clocks, and so in the paths that
a solver follows, not in the map from one r to another. What is left is where they end: a code of
VP at r = 152 or of EDM at r = 80 still knows a little of the data; that of the rectified flow,
r = infinity, is N(0, I) exactly. On the line all this follows from the end laws alone; in the plane
it does not, and is shown by solving.

Ways between two data points x_a, x_b with codes z_a, z_b, s from 0 to 1:

    data            (1 - s) x_a + s x_b
    straight        the decoded (1 - s) z_a + s z_b
    great circle    the decoded slerp: the direction of a code turns evenly from z_a's to z_b's, its
                    length goes straight from |z_a| to |z_b|
    quarter circle  the decoded cos(pi s/2) z_a + sin(pi s/2) z_b
    bare slerp      the decoded (sin((1 - s) w) z_a + sin(s w) z_b)/sin(w), w their angle

For independent N(0, I) codes the quarter circle is N(0, I) at each s, so that its decoded points
have the law of the data exactly; the straight way has the variance s^2 + (1 - s)^2 of it. The bare
slerp (as in Song, Meng and Ermon 2021, for codes of many dimensions, which have nearly one length
and are nearly orthogonal) throws codes far out that are nearly opposite and of unequal lengths. On
the line a great circle is two points, and both are left out. A point is off the law where its
density is below that of 99 % of true points.

Networks are trained for the velocity of the rectified flow, side by side, and their maps compared
point by point with the exact one, each at codes of its own: errors are over the networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffscience import gallery, losses, metrics, nets, plots, solvers
from diffscience.ensembles import together
from diffscience.errors import ArgumentError, instance, number, whole
from diffscience.estimates import mean_and_error
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import EDM, VE, VP, Cosine, Process, RectifiedFlow, SubVP
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target

Arrays = dict[str, np.ndarray]

PROCESSES: dict[str, Process] = {
    "rectified": RectifiedFlow(),
    "cosine": Cosine(),
    "VP": VP(),
    "sub-VP": SubVP(),
    "EDM": EDM(),
    "VE": VE(),
}
LEVEL = 5.0  # sigma/alpha at which all processes are compared
PLANES: dict[str, Callable[[], Target]] = {
    "swiss_roll": gallery.swiss_roll,
    "two_moons": gallery.two_moons,
}
LINE = "line"
DATA, STRAIGHT, CIRCLE, QUARTER = WAYS = ("data", "straight", "great circle", "quarter circle")
BARE = "bare slerp"  # in the table alone
OFF = 0.01  # share of true points that count as off the law


@dataclass(frozen=True)
class Config:
    """What is computed.

    clocks : up to three processes that are drawn on the line and solved at many tolerances.
    processes : those whose maps are compared; "rectified" among them.
    planes : laws in the plane, one or two.
    reference : whether `solvers.reference` is run; where not, `tight` stands for it.
    tight, fine : tolerances of the maps that are compared, and of all that is drawn or sampled.
    points : on the line, at even log-odds of the quantile from 1e-6 to 1 - 1e-6.
    tolerances : decreasing, relative and absolute, of the solvers.
    codes : points in the plane whose codes are found; also the codes of the processes.
    pairs, marks : pairs of data points in the plane, five times as many on the line, where the map
        is cheap; and intervals of s between them, an even number.
    true_points : fresh true points that the measures of ways are held against.
    networks : trained side by side. training, batch, rate, final_rate, widths : of each.
        snapshots : increasing steps.
    learned_codes : codes of each network's own, which it and the exact flow decode.
    film_points, frames : of the film. half, pixels : half the side of the windows, and pixels.
    repeats : fresh true samples behind a floor.
    """

    clocks: tuple[str, ...] = ("VP", "EDM", "rectified")
    processes: tuple[str, ...] = tuple(PROCESSES)
    planes: tuple[str, ...] = tuple(PLANES)
    reference: bool = True
    tight: float = 1e-9
    fine: float = 1e-6
    points: int = 201
    tolerances: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
    codes: int = 200
    pairs: int = 800
    marks: int = 8
    true_points: int = 50_000
    networks: int = 8
    training: int = 6000
    batch: int = 256
    rate: float = 3e-3
    final_rate: float = 3e-5
    widths: tuple[int, ...] = (64, 64, 64)
    snapshots: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    learned_codes: int = 400
    film_points: int = 1500
    frames: int = 30
    half: float = 1.9
    pixels: int = 120
    repeats: int = 10
    seed: int = 17

    def __post_init__(self) -> None:
        known: dict[str, tuple[Any, int]] = {
            "clocks": (PROCESSES, 3),
            "processes": (PROCESSES, 9),
            "planes": (PLANES, 2),
        }
        for name, (names, most) in known.items():
            given = getattr(self, name)
            instance(name, given, tuple)
            if not 0 < len(given) <= most or not set(given) <= set(names):
                raise ArgumentError(name, f"be 1 to {most} of {', '.join(names)}", given)
        if "rectified" not in self.processes:
            raise ArgumentError("processes", "have rectified among them", self.processes)
        instance("reference", self.reference, bool)
        for name in ("tight", "fine"):
            number(name, getattr(self, name), 0, ends="()")
        two = ("points", "codes", "pairs", "marks", "true_points", "learned_codes", "film_points")
        one = ("training", "batch", "pixels")
        for name in (*two, "networks", "frames", "repeats", *one):
            whole(name, getattr(self, name), 1 if name in one else 2)
        if self.marks % 2:
            raise ArgumentError("marks", "be even", self.marks)
        instance("tolerances", self.tolerances, tuple)
        for value in self.tolerances:
            number("tolerances", value, 0, ends="()")
        if len(self.tolerances) < 2 or np.any(np.diff(self.tolerances) >= 0):
            raise ArgumentError("tolerances", "be two or more that decrease", self.tolerances)
        for name in ("widths", "snapshots"):
            instance(name, getattr(self, name), tuple)
        for step in self.snapshots:
            whole("snapshots", step, 1, self.training)
        if list(self.snapshots) != sorted(set(self.snapshots)):
            raise ArgumentError("snapshots", "increase", self.snapshots)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("half", self.half, 0, ends="()")


QUICK = Config(
    clocks=("rectified",), processes=("rectified", "VE"), planes=("swiss_roll",),
    reference=False, tight=1e-6, fine=1e-4, points=21, tolerances=(1e-3, 1e-5), codes=12,
    pairs=30, marks=4, true_points=1000, networks=2, training=60, batch=128, widths=(32, 32),
    snapshots=(20,), learned_codes=60, film_points=60, frames=3, pixels=32, repeats=2,
)  # fmt: skip


# ---------------------------------------------------------------- the map


def level(process: Process) -> float:
    """sigma/alpha at the end of a process; infinite where nothing of the data is left."""
    alpha = process.alpha(process.T)
    return math.sqrt(process.var(process.T)) / alpha if alpha > 0 else math.inf


def unit(process: Process) -> float:
    """The length of a code in x_T, sqrt(var(T))."""
    return math.sqrt(process.var(process.T))


def time_at(process: Process, ratio: float) -> float:
    """The time at which sigma/alpha = ratio."""
    return float(process.time_of_log_snr(-2 * math.log(ratio)))


def decode(model: Model, z: np.ndarray, tolerance: float, device: str, keep: Any = None) -> Any:
    """The `Solution` of codes z (n, D) carried to the data, at the times `keep` or the ends."""
    process = model.process
    times = [process.T, 0.0] if keep is None else keep
    places = None if keep is None else range(len(keep))
    start = unit(process) * z
    return solvers.flow(
        model, start, times, rtol=tolerance, atol=tolerance, keep=places, device=device
    )


def encode(model: Model, x: np.ndarray, tolerance: float, device: str) -> np.ndarray:
    """The codes (n, D) of data points."""
    process = model.process
    run = solvers.flow(model, x, [0.0, process.T], rtol=tolerance, atol=tolerance, device=device)
    return np.asarray(run.last) / unit(process)


def best(config: Config, model: Model, x: np.ndarray, times: list[float]) -> np.ndarray:
    """The end of the flow as exactly as the config wants it."""
    if config.reference:
        return solvers.reference(model, x, times)
    return np.asarray(solvers.flow(model, x, times, rtol=config.tight, atol=config.tight).last)


def quantiles(n: int) -> np.ndarray:
    """Standard normal codes (n, 1) at even log-odds from 1e-6 to 1 - 1e-6."""
    from scipy.special import ndtri

    odds = np.linspace(math.log(1e-6), -math.log(1e-6), n)
    return ndtri(1 / (1 + np.exp(-odds)))[:, None]


# ---------------------------------------------------------------- on the line


def line_paths(config: Config) -> Arrays:
    """Exact paths of codes on the line in three clocks, and p_t in units of its own deviation."""
    law, z = gallery.julia_bimodal(), np.linspace(-2.4, 2.4, 25)[:, None]
    heights = np.linspace(-3.0, 3.0, 2 * config.pixels)
    arrays = {"heights": heights}
    for name in config.clocks:
        process = PROCESSES[name]
        oracle = Oracle(law, process)
        if name == "EDM":
            clock = np.geomspace(0.02, process.T, config.pixels)
        else:
            clock = np.linspace(0.0, process.T, config.pixels)
        spread = [math.sqrt(float(np.asarray(oracle.at(t).cov)[0, 0])) for t in clock.tolist()]
        centre = [float(np.asarray(oracle.at(t).mean)[0]) for t in clock.tolist()]
        picture, paths = [], []
        start = unit(process) * z
        for t, s, m in zip(clock.tolist(), spread, centre):
            picture.append(oracle.log_prob(m + s * heights[:, None], t) + math.log(s))
            paths.append((oracle.flow(start, process.T, t)[:, 0] - m) / s)
        arrays |= {f"clock {name}": clock, f"paths {name}": np.stack(paths)}
        arrays[f"picture {name}"] = np.stack(picture, axis=1).astype(np.float32)
    return arrays


def line_maps(config: Config) -> Arrays:
    """The exact map from codes to data for every process, and from sigma/alpha = 5."""
    law, z = gallery.julia_bimodal(), np.linspace(-3.5, 3.5, 701)[:, None]
    arrays = {"codes": z[:, 0]}
    for name in config.processes:
        process = PROCESSES[name]
        oracle, t = Oracle(law, process), time_at(process, LEVEL)
        arrays[f"map {name}"] = oracle.flow(unit(process) * z, process.T, 0.0)[:, 0]
        level_start = process.alpha(t) * LEVEL * z
        arrays[f"level {name}"] = oracle.flow(level_start, t, 0.0)[:, 0]
    return arrays


def line_errors(config: Config, name: str, device: str = "cpu") -> Arrays:
    """Of one process: the largest error of each tolerance (decode, encode) and evaluations.

    The last row is of `solvers.reference`. Errors of codes are in units of a code.
    """
    process = PROCESSES[name]
    oracle, z = Oracle(gallery.julia_bimodal(), process), quantiles(config.points)
    size = unit(process)
    x = oracle.flow(size * z, process.T, 0.0)
    rows = []
    for tolerance in config.tolerances:
        down = decode(oracle, z, tolerance, device)
        up = solvers.flow(
            oracle, x, [0.0, process.T], rtol=tolerance, atol=tolerance, device=device
        )
        errors = np.abs(down.last - x).max(), np.abs(up.last / size - z).max()
        rows.append([*errors, down.evaluations, up.evaluations])
    data = best(config, oracle, size * z, [process.T, 0.0])
    code = best(config, oracle, x, [0.0, process.T]) / size
    rows.append([np.abs(data - x).max(), np.abs(code - z).max(), math.nan, math.nan])
    return {"errors": np.array(rows)}


# ---------------------------------------------------------------- in the plane


def plane_oracle(name: str, process: str = "rectified") -> Oracle:
    """The exact model of a law in the plane."""
    return Oracle(PLANES[name](), PROCESSES[process])


def round_trips(config: Config, name: str, generator: Any, device: str = "cpu") -> Arrays:
    """Codes of true points by `solvers.reference`, and what each tolerance makes of there and back.

    Rows: tolerance; columns: median and largest |back - x|, median and largest error of the code,
    evaluations. The last row is the reference's own, back by itself.
    """
    oracle = plane_oracle(name)
    x = oracle.law.sample(config.codes, generator)
    codes = best(config, oracle, x, [0.0, 1.0])
    rows = []
    for tolerance in config.tolerances:
        up = solvers.flow(oracle, x, [0.0, 1.0], rtol=tolerance, atol=tolerance, device=device)
        down = decode(oracle, up.last, tolerance, device)
        rows.append([*off(down.last, x), *off(up.last, codes), up.evaluations + down.evaluations])
    back = best(config, oracle, codes, [1.0, 0.0])
    rows.append([*off(back, x), 0.0, 0.0, math.nan])
    return {"x": x, "codes": codes, "trips": np.array(rows)}


def off(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Median and largest distance of points from points."""
    distance = np.linalg.norm(np.asarray(a) - b, axis=1)
    return float(np.median(distance)), float(distance.max())


def plane_maps(
    config: Config, name: str, process: str, z: np.ndarray, device: str = "cpu"
) -> Arrays:
    """The codes z decoded by a process from its own end, and from sigma/alpha = 5."""
    oracle = plane_oracle(name, process)
    clock, tolerance = oracle.process, config.tight
    t = time_at(clock, LEVEL)
    start = clock.alpha(t) * LEVEL * z
    run = solvers.flow(oracle, start, [t, 0.0], rtol=tolerance, atol=tolerance, device=device)
    return {"own": decode(oracle, z, tolerance, device).last, "level": run.last}


def picture(config: Config, name: str, shift: tuple[float, float]) -> Arrays:
    """Codes of many true points with their place along the curve, paths, and the log-density."""
    oracle = plane_oracle(name)
    h = config.half
    steps = h * ((2 * np.arange(config.pixels) + 1) / config.pixels - 1)
    window = np.stack(np.meshgrid(steps, steps), axis=-1) + np.array(shift)
    return {"log_density": oracle.law.log_prob(window).astype(np.float32)}


def film(config: Config, name: str, generator: Any, device: str = "cpu") -> Arrays:
    """Codes on their way to the data, at times even in log(sigma/alpha) and the ends: (T, n, 2)."""
    oracle = plane_oracle(name)
    z = generator.standard_normal((config.film_points, 2))
    ratios = np.geomspace(20.0, 0.02, max(config.frames - 2, 1))
    times = [1.0, *(time_at(oracle.process, r) for r in ratios.tolist()), 0.0]
    states = decode(oracle, z, config.fine, device, times).states
    return {"film": np.asarray(states), "ratios": ratios, "place": along(name, states[-1])}


def curve(name: str, n: int = 2001) -> np.ndarray:
    """The bare curve of a law in the plane, (n, 2), in the order of its parameter."""
    if name == "swiss_roll":
        t = np.linspace(1.5 * math.pi, 4.5 * math.pi, n)
        return 0.1 * t[:, None] * np.stack([np.cos(t), np.sin(t)], axis=-1)
    t = np.linspace(0.0, 2 * math.pi, n)
    first = t < math.pi
    x = np.where(first, np.cos(t), 1 + np.cos(t))
    return np.stack([x, np.where(first, np.sin(t), 0.5 + np.sin(t))], axis=-1)


def along(name: str, x: np.ndarray) -> np.ndarray:
    """The place of the nearest point of the curve, from 0 to 1, of points (n, 2)."""
    from scipy.spatial import cKDTree

    nodes = curve(name)
    return cKDTree(nodes).query(np.asarray(x))[1] / (len(nodes) - 1)


# ---------------------------------------------------------------- ways between points


def mixed(way: str, a: np.ndarray, b: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The points (S, n, D) of a way between points (n, D), for `data` and the ways of codes."""
    s = s[:, None, None]
    if way in (DATA, STRAIGHT):
        return (1 - s) * a + s * b
    if way == QUARTER:
        return np.cos(0.5 * math.pi * s) * a + np.sin(0.5 * math.pi * s) * b
    lengths = [np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b)]
    cosine = np.sum(a * b, axis=1, keepdims=True) / lengths[0] / lengths[1]
    w = np.arccos(np.clip(cosine, -1.0, 1.0))
    w = np.clip(w, 1e-6, math.pi - 1e-6)  # parallel codes: the straight way, in the limit
    first, second = np.sin((1 - s) * w) / np.sin(w), np.sin(s * w) / np.sin(w)
    if way == BARE:
        return first * a + second * b
    length = (1 - s) * lengths[0] + s * lengths[1]
    return length * (first * a / lengths[0] + second * b / lengths[1])


def ways_of(name: str) -> tuple[str, ...]:
    """The ways of a law: on the line there is no great circle."""
    return (DATA, STRAIGHT, QUARTER) if name == LINE else (*WAYS, BARE)


def law_of(name: str) -> Target:
    """A law by name."""
    return gallery.julia_bimodal() if name == LINE else PLANES[name]()


def decoded(config: Config, name: str, z: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Codes (n, D) as data: exactly on the line, by a solver in the plane."""
    if name == LINE:
        return np.asarray(Oracle(law_of(name), RectifiedFlow()).flow(z, 1.0, 0.0))
    return np.asarray(decode(plane_oracle(name), z, config.fine, device).last)


def coded(config: Config, name: str, x: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Data (n, D) as codes."""
    if name == LINE:
        return np.asarray(Oracle(law_of(name), RectifiedFlow()).flow(x, 0.0, 1.0))
    return encode(plane_oracle(name), x, config.fine, device)


def ways(config: Config, name: str, generator: Any, device: str = "cpu") -> Arrays:
    """All ways between independent pairs: (S, (gap, error, share off, error)) of each, W at 1/2.

    gap : mean log p_0 minus that of true points, in nats.
    """
    law, pairs = law_of(name), config.pairs * (5 if name == LINE else 1)
    truth = law.log_prob(law.sample(config.true_points, generator))
    least, mean = np.quantile(truth, OFF), truth.mean()
    a, b = (law.sample(pairs, generator) for _ in range(2))
    s = np.linspace(0.0, 1.0, config.marks + 1)
    codes = coded(config, name, np.concatenate([a, b]), device)
    arrays: Arrays = {"least": np.array(least), "mean": np.array(mean)}
    for way in ways_of(name):
        if way == DATA:
            points = mixed(way, a, b, s)
        else:
            z = mixed(way, codes[:pairs], codes[pairs:], s)
            points = decoded(config, name, z.reshape(-1, law.dim), device).reshape(z.shape)
        log_prob = law.log_prob(points)
        gap, gap_error = mean_and_error(log_prob, axis=1)
        share = np.mean(log_prob < least, axis=1)
        share_error = np.sqrt(np.maximum(share * (1 - share), 1 / pairs) / pairs)
        arrays[f"{way} by s"] = np.stack([gap - mean, gap_error, share, share_error], axis=1)
        middle = points[config.marks // 2]
        metric = metrics.wasserstein if name == LINE else metrics.sliced_wasserstein
        e = metric(middle, law, generator, 1, repeats=config.repeats)
        arrays[f"{way} middle"] = np.array([e.value, e.error, e.floor, e.floor_error])
    return arrays


PAIRS = {  # of the pictures: places along the curve
    "swiss_roll": ((0.05, 0.95), (0.3, 0.7), (0.15, 0.42)),
    "two_moons": ((0.1, 0.9), (0.25, 0.75), (0.03, 0.47)),
}


def examples(config: Config, name: str, device: str = "cpu") -> Arrays:
    """Ways between a few points of the bare curve: (S, pairs, 2) of each."""
    nodes = curve(name)
    ends = [nodes[[round(p * (len(nodes) - 1)) for p in column]] for column in zip(*PAIRS[name])]
    s = np.linspace(0.0, 1.0, 81)
    codes = coded(config, name, np.concatenate(ends), device)
    count, found = len(ends[0]), {}
    for way in WAYS:
        if way == DATA:
            found[way] = mixed(way, ends[0], ends[1], s)
        else:
            z = mixed(way, codes[:count], codes[count:], s)
            found[way] = decoded(config, name, z.reshape(-1, 2), device).reshape(z.shape)
    return found


# ---------------------------------------------------------------- learned


def learned(
    config: Config, weights: list[int], noise: list[int], progress: Any, device: str = "cpu"
) -> dict[str, Any]:
    """Networks for the velocity of the swiss roll, all their states: "k step name" -> weights."""
    models = [
        Network(nets.MLP(2, config.widths, seed=seed).to(device), RectifiedFlow(), "velocity")
        for seed in weights
    ]
    histories = together(
        models, gallery.swiss_roll(), steps=config.training, seeds=noise, batch=config.batch,
        rate=config.rate, final_rate=config.final_rate, loss=losses.denoising,
        snapshots=(*config.snapshots, config.training), progress=progress,
    )  # fmt: skip
    if histories[0].interrupted:
        raise KeyboardInterrupt
    return {
        f"{k} {step} {name}": value.cpu()
        for k, history in enumerate(histories)
        for step, state in history.snapshots.items()
        for name, value in state.items()
    }


def network_at(config: Config, states: Arrays, k: int, step: int, device: str = "cpu") -> Network:
    """Network k as it was before an update."""
    import torch

    net, own = nets.MLP(2, config.widths), f"{k} {step} "
    parts = {key.removeprefix(own): v for key, v in states.items() if key.startswith(own)}
    net.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in parts.items()})
    net.requires_grad_(False)
    return Network(net.to(device), RectifiedFlow(), predicts="velocity")


def compare(
    config: Config, model: Model, z: np.ndarray, exact: np.ndarray, draws: Any, device: str = "cpu"
) -> Arrays:
    """A learned map beside the exact one: decoded points, distances, sliced W1, round trip."""
    x = np.asarray(decode(model, z, 1e-5, device).last)
    e = metrics.sliced_wasserstein(x, gallery.swiss_roll(), draws, 1, repeats=config.repeats)
    back = encode(model, x, 1e-5, device)
    return {
        "x": x,
        "distance": np.linalg.norm(x - exact, axis=1),
        "sliced": np.array([e.value, e.error, e.floor, e.floor_error]),
        "trip": np.array(off(back, z)),
    }


def compared(
    config: Config, models: list[Model], z: np.ndarray, exact: np.ndarray, draws: list[Any],
    device: str = "cpu",
) -> Arrays:  # fmt: skip
    """`compare` of each model with codes of its own, z (K, n, 2): (K, ...)."""
    rows = [compare(config, *own, device) for own in zip(models, z, exact, draws, strict=True)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def learning(config: Config, run: Run) -> Arrays:
    """The maps of the networks at every snapshot, and of the oracle, for the same codes."""
    arrays: Arrays = {}
    every = range(config.networks)
    weights, noise = ([run.seed_for(word, k) for k in every] for word in ("weights", "training"))
    progress = partial(run.progress, description="training")
    states = run.cell("networks", learned, config, weights, noise, progress, run.device)
    z = run.generator("learned codes").standard_normal((config.networks, config.learned_codes, 2))
    flat = z.reshape(-1, 2)
    exact = run.cell("decoded", lambda: {"x": decoded(config, "swiss_roll", flat, run.device)})["x"]
    exact = exact.reshape(z.shape)
    for step in (None, *config.snapshots, config.training):
        key = f"learned {step or 'exact'}"
        models: list[Model] = [
            network_at(config, states, k, step, run.device) if step else plane_oracle("swiss_roll")
            for k in every
        ]
        draws = [run.generator(key, k) for k in every]
        found = run.cell(key, compared, config, models, z, exact, draws, run.device)
        arrays |= {f"{key} {name}": value for name, value in found.items()}
    return {**arrays, "learned decoded": exact}


# ---------------------------------------------------------------- compute

CENTRES = {"swiss_roll": (0.0, 0.0), "two_moons": (0.5, 0.25)}


def compute(config: Config, run: Run) -> Arrays:
    """The line, the plane, the ways between points, and the network."""
    arrays = {**run.cell("paths", line_paths, config), **run.cell("maps", line_maps, config)}
    for name in run.progress(config.clocks, "tolerances"):
        key = f"errors {name}"
        arrays[key] = run.cell(key, line_errors, config, name, run.device)["errors"]
    z = run.generator("codes of processes").standard_normal((config.codes, 2))
    for process in run.progress(config.processes, "processes"):
        for name in config.planes:
            key = f"{name} {process}"
            found = run.cell(f"map {key}", plane_maps, config, name, process, z, run.device)
            arrays |= {f"{part} {key}": value for part, value in found.items()}
    for name in run.progress(config.planes, "codes"):
        own = (run.generator("trips", name), run.device)
        found = run.cell(f"trips {name}", round_trips, config, name, *own)
        found |= run.cell(f"picture {name}", picture, config, name, CENTRES[name])
        own = (run.generator("film", name), run.device)
        found |= run.cell(f"film {name}", film, config, name, *own)
        found |= run.cell(f"examples {name}", examples, config, name, run.device)
        arrays |= {f"{name} {part}": value for part, value in found.items()}
    for name in run.progress((LINE, *config.planes), "ways"):
        own = (run.generator("ways", name), run.device)
        found = run.cell(f"ways {name}", ways, config, name, *own)
        arrays |= {f"ways {name} {part}": value for part, value in found.items()}
    return {**arrays, **learning(config, run)}


# ---------------------------------------------------------------- tables


def last_kind(config: Config) -> str:
    """What `best` is called in tables."""
    return "reference" if config.reference else f"{config.tight:g}, tight"


def tolerance_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Largest error of solved codes and data on the line, against the exact map."""
    rows = []
    for name in config.clocks:
        kinds = [*(f"{t:g}" for t in config.tolerances), last_kind(config)]
        for kind, row in zip(kinds, arrays[f"errors {name}"].tolist(), strict=True):
            words = {"process": name, "tolerance": kind, "largest error, decode": row[0]}
            words |= {"largest error, encode": row[1]}
            rows.append(words | {"evaluations, decode": row[2], "evaluations, encode": row[3]})
    frame = pd.DataFrame(rows)
    for column in frame.columns[4:]:
        frame[column] = frame[column].astype("Int64")
    frame.attrs["digits"] = dict.fromkeys(frame.columns[2:4], 2)
    return frame


def process_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """How far the map of each process is from that of the rectified flow.

    On the line the mean distance, for N(0, 1) codes, is the Wasserstein-1 distance of what is
    decoded from the law.
    """
    rows = []
    base, z = "rectified", arrays["codes"]
    weight = np.exp(-0.5 * z * z) / np.exp(-0.5 * z * z).sum()
    for name in config.processes:
        gap = np.abs(arrays[f"map {name}"] - arrays[f"map {base}"])
        row: dict[str, Any] = {"process": name, "sigma/alpha at T": level(PROCESSES[name])}
        row |= {"line, mean": float(weight @ gap), "line, largest": gap.max()}
        same = [np.abs(arrays[f"level {name}"] - arrays[f"level {base}"]).max()]
        for plane in config.planes:
            middle, largest = off(arrays[f"own {plane} {name}"], arrays[f"own {plane} {base}"])
            row |= {f"{plane}, median": middle, f"{plane}, largest": largest}
            same.append(off(arrays[f"level {plane} {name}"], arrays[f"level {plane} {base}"])[1])
        row["from sigma/alpha = 5: line"] = same[0]
        row |= {f"from sigma/alpha = 5: {p}": e for p, e in zip(config.planes, same[1:])}
        rows.append(row)
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns[2:], 2)
    return frame


def codes_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """There and back in the plane."""
    rows = []
    for name in config.planes:
        kinds = [*(f"{t:g}" for t in config.tolerances), last_kind(config)]
        for kind, row in zip(kinds, arrays[f"{name} trips"].tolist(), strict=True):
            words = {"law": name, "tolerance": kind, "there and back, median": row[0]}
            words |= {"there and back, largest": row[1], "code, median": row[2]}
            rows.append(words | {"code, largest": row[3], "evaluations": row[4]})
    frame = pd.DataFrame(rows)
    frame["evaluations"] = frame["evaluations"].astype("Int64")
    frame.attrs["digits"] = dict.fromkeys(frame.columns[2:6], 2)
    return frame


def ways_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every way at s = 1/4 and 1/2 beside the law."""
    rows = []
    for name in (LINE, *config.planes):
        for way in ways_of(name):
            middle = config.marks // 2
            gap, gap_error, share, error = arrays[f"ways {name} {way} by s"][middle].tolist()
            w, w_error, floor, spread = arrays[f"ways {name} {way} middle"].tolist()
            row: dict[str, Any] = {"law": name, "way": way, "gap at s = 1/2 / nats": gap}
            row |= {"gap error": gap_error, "off the law": share, "its error": error}
            row |= {"of true points": OFF, "W1": w, "W1 error": w_error, "floor": floor}
            row |= {"floor spread": spread}
            rows.append(row | {"W1 excess": (w - floor) / math.hypot(w_error, spread)})
    frame = pd.DataFrame(rows)
    names = ("gap error", "its error", "W1 error", "floor spread", "W1 excess")
    frame.attrs["digits"] = dict.fromkeys(names, 2)
    return frame


def learned_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The learned map beside the exact one, by training step; means over the networks."""
    rows = []
    for key in ("exact", *config.snapshots, config.training):
        distance, sliced = arrays[f"learned {key} distance"], arrays[f"learned {key} sliced"]
        row: dict[str, Any] = {"model": "exact" if key == "exact" else f"{key} steps"}
        row["distance, mean"], row["error"] = mean_and_error(distance.mean(axis=1))
        row |= {"median": float(np.median(distance))}
        row |= {"95 % within": float(np.quantile(distance, 0.95))}
        row["sliced W1"], row["its error"] = mean_and_error(sliced[:, 0])
        row["floor"] = float(sliced[:, 2].mean())
        row["floor spread"] = float(sliced[:, 3].mean() / math.sqrt(len(sliced)))
        trip = arrays[f"learned {key} trip"]
        row |= {"there and back, median": float(np.median(trip[:, 0]))}
        rows.append(row | {"largest": float(trip[:, 1].max())})
    frame = pd.DataFrame(rows)
    names = ("error", "its error", "floor spread", "there and back, median", "largest")
    frame.attrs["digits"] = dict.fromkeys(names, 2)
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """Tolerances; processes; codes in the plane; ways between points; the learned map."""
    return {
        "": tolerance_table(config, arrays),
        "processes": process_table(config, arrays),
        "codes": codes_table(config, arrays),
        "ways": ways_table(config, arrays),
        "learned": learned_table(config, arrays),
    }


# ---------------------------------------------------------------- figures

TITLES = {"swiss_roll": "swiss roll", "two_moons": "two moons", LINE: "0.1 N(−3, 1) + 0.9 N(3, 1)"}
CLOCK_COLORS = dict(zip(PROCESSES, (*plots.COLORS[:3], *plots.COLORS[4:7]), strict=True))
WAY_COLORS = dict(
    zip(WAYS, (plots.COLORS[3], plots.COLORS[2], plots.COLORS[1], plots.COLORS[0]), strict=True)
)
NAMES = {DATA: "data, straight", **{way: f"codes, {way}" for way in WAYS[1:]}}
PLACE = "turbo"  # colours of the place along a curve


def window(config: Config, name: str) -> tuple[float, float, float, float]:
    """The window of a law in the plane."""
    (x, y), h = CENTRES[name], config.half
    return x - h, x + h, y - h, y + h


def draw_planes(config: Config, arrays: Arrays) -> Figure:
    """Data, codes and the ways from one to the other, coloured by the place along the curve."""
    fig, axes = plots.figure(len(config.planes), 3, height=0.7 + 2.4 * len(config.planes))
    for row, name in zip(axes, config.planes, strict=True):
        film, place = arrays[f"{name} film"], arrays[f"{name} place"]
        style = {"c": place, "cmap": PLACE, "s": 3.0, "linewidths": 0, "rasterized": True}
        row[0].scatter(*film[0].T, **style)
        row[2].scatter(*film[-1].T, **style)
        colors = _colors(place)
        some = np.argsort(film[0, :, 0] ** 2 + film[0, :, 1] ** 2)[:: max(1, len(place) // 110)]
        for i in some:
            row[1].plot(*film[:, i].T, color=colors[i], linewidth=0.7, alpha=0.8)
        row[1].scatter(*film[-1, some].T, c=colors[some], s=7.0, zorder=3)
        box = window(config, name)
        for ax in row[1:]:
            ax.set(xlim=box[:2], ylim=box[2:], aspect="equal")
        row[0].set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
        row[0].set_ylabel(TITLES[name])
    for ax, words in zip(axes[0], ("codes, N(0, I)", "their paths", "the data they become")):
        ax.set_title(words, fontsize=10)
    fig.suptitle(
        "The flow map with the exact velocity; colour: where along the curve a code ends",
        fontsize=11,
    )
    return fig


def _colors(place: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return np.asarray(colormaps[PLACE](place))


def draw_line(config: Config, arrays: Arrays) -> Figure:
    """Exact paths over p_t in three clocks, and the map itself."""
    fig, axes = plots.figure(2, 2, height=6.0)
    heights = arrays["heights"]
    for ax in list(axes.flat)[len(config.clocks) : 3]:
        ax.axis("off")
    for ax, name in zip(axes.flat, config.clocks):
        clock, image = arrays[f"clock {name}"], arrays[f"picture {name}"]
        across = np.log10(clock) if name == "EDM" else clock
        box = (float(across[0]), float(across[-1]), float(heights[0]), float(heights[-1]))
        shown = plots.background(ax, image, box, depth=8.0)
        ax.plot(across, arrays[f"paths {name}"], color="white", linewidth=0.7)
        ax.set_title(f"{name}: 25 codes become data, right to left", fontsize=10)
        ax.set(xlim=box[:2], ylim=box[2:])
        ax.set_xlabel("$\\log_{10}$ t" if name == "EDM" else "t")
    for ax in axes[:, 0]:
        ax.set_ylabel("x in deviations of $p_t$")
    bar = fig.colorbar(shown, ax=axes[0, min(1, len(config.clocks) - 1)], ticks=(-8, -4, 0))
    bar.set_label("log-density minus maximum", fontsize=8)
    last, z = axes[1, 1], arrays["codes"]
    for name in config.processes:
        gap = np.abs(arrays[f"map {name}"] - arrays["map rectified"])
        if gap.max() > 1e-9:
            style = "--" if name == "sub-VP" else "-"
            last.plot(z, gap, style, color=CLOCK_COLORS[name], linewidth=1.4, label=name)
    same = [n for n in config.processes if level(PROCESSES[n]) == math.inf and n != "rectified"]
    if same:
        last.text(
            0.97, 0.05, f"{', '.join(same)}: below 1e-9", transform=last.transAxes, ha="right"
        )
    last.set(yscale="log", xlabel="code z", ylim=(1e-3, 10))
    last.set_title("|decoded − decoded by the rectified flow|", fontsize=10)
    plots.legend_below(fig, last, columns=5)
    fig.suptitle(
        "One map, different clocks: the exact flow on the line, $x_t = F_t^{-1}(F_T(x_T))$"
    )
    return fig


def draw_tolerances(config: Config, arrays: Arrays) -> Figure:
    """Errors of solved maps on the line, and of there and back in the plane."""
    fig, axes = plots.figure(1, 3, height=3.7)
    left, middle, right = axes[0]
    t = np.array(config.tolerances)
    for name in config.clocks:
        errors, color = arrays[f"errors {name}"], CLOCK_COLORS[name]
        left.plot(t, errors[:-1, 0], "o-", color=color, label=f"{name}, decode")
        left.plot(t, errors[:-1, 1], "s:", color=color, markersize=3, label=f"{name}, encode")
        middle.plot(errors[:-1, 2], errors[:-1, 0], "o-", color=color)
        middle.plot(errors[:-1, 3], errors[:-1, 1], "s:", color=color, markersize=3)
    left.plot(t, t, color="black", linewidth=0.8, label="error = tolerance")
    for name, color in zip(config.planes, (plots.COLORS[4], plots.COLORS[6])):
        trips = arrays[f"{name} trips"]
        words = TITLES[name]
        right.plot(t, trips[:-1, 1], "o-", color=color, label=f"{words}, largest")
        right.plot(t, trips[:-1, 0], "s:", color=color, markersize=3, label=f"{words}, median")
    right.plot(t, t, color="black", linewidth=0.8)
    for ax in (left, right):
        ax.set(xscale="log", yscale="log", xlabel="tolerance of dopri5")
        ax.invert_xaxis()
    middle.set(xscale="log", yscale="log", xlabel="evaluations")
    middle.set_xticks([20, 50, 100, 200, 500], ["20", "50", "100", "200", "500"])
    middle.xaxis.minorticks_off()
    left.set_title("line: largest error", fontsize=10)
    middle.set_title("line: largest error", fontsize=10)
    right.set_title("plane: |back − start|", fontsize=10)
    plots.legend_below(fig, left, right, columns=4)
    fig.suptitle("Solved maps beside the exact one", fontsize=11)
    return fig


def draw_processes(config: Config, arrays: Arrays) -> Figure:
    """Differences of the maps against where the processes end."""
    fig, axes = plots.figure(1, 2, height=3.7)
    frame = process_table(config, arrays)
    some = frame[(frame["process"] != "rectified") & np.isfinite(frame["sigma/alpha at T"])]
    left, right = axes[0]
    marks = {"line, mean": "o", **{f"{p}, median": m for p, m in zip(config.planes, "sD")}}
    for i, (column, mark) in enumerate(marks.items()):
        left.plot(
            some["sigma/alpha at T"], some[column], mark, color=plots.COLORS[(2, 4, 6)[i]],
            label=column.replace("_", " "),
        )  # fmt: skip
    for end, group in some.groupby(some["sigma/alpha at T"].round()):
        above = 2.2 * max(group[column].max() for column in marks)
        left.annotate(", ".join(group["process"]), (end, above), ha="center", fontsize=9)
    r = np.array([7.0, 260.0])
    scale = float((some["line, mean"] * some["sigma/alpha at T"]).iloc[0])
    left.plot(r, scale / r, color="black", linewidth=0.8, label="∝ 1/r")
    left.set(xscale="log", yscale="log", xlabel="$r = \\sigma/\\alpha$ where the process ends")
    left.set_title("codes from each process's own end", fontsize=10)
    low, high = left.get_ylim()
    left.set_ylim(low, 4 * high)
    left.set_xticks([10, 20, 50, 100, 200], ["10", "20", "50", "100", "200"])
    left.xaxis.minorticks_off()
    names = [name for name in config.processes if name != "rectified"]
    rows = frame.set_index("process").loc[names]
    xs = np.arange(len(names))
    for i, column in enumerate(("line", *config.planes)):
        values = np.maximum(rows[f"from sigma/alpha = 5: {column}"], 1e-16)
        right.plot(xs, values, "osD"[i], color=plots.COLORS[(2, 4, 6)[i]])
    right.set_xticks(xs, names)
    right.set(yscale="log", ylim=(1e-16, 1e-2))
    right.set_title("all from $\\sigma/\\alpha = 5$, largest difference", fontsize=10)
    plots.legend_below(fig, left, columns=4)
    fig.suptitle("Distance of decoded points from those of the rectified flow", fontsize=11)
    return fig


def draw_examples(config: Config, arrays: Arrays) -> Figure:
    """A few ways between points, over the exact log-density."""
    fig, axes = plots.figure(len(config.planes), len(WAYS), height=1.1 + 1.9 * len(config.planes))
    for row, name in zip(axes, config.planes, strict=True):
        box = window(config, name)
        for ax, way in zip(row, WAYS, strict=True):
            image = plots.background(ax, arrays[f"{name} log_density"], box)
            points = arrays[f"{name} {way}"]
            for j, color in zip(range(points.shape[1]), ("#ff5c5c", "#ffffff", "#ffb000")):
                ax.plot(*points[:, j].T, ".-", color=color, markersize=2.5, linewidth=0.6)
                ax.plot(
                    *points[[0, -1], j].T, "o", color=color, markersize=5, markeredgecolor="black"
                )
            ax.set(xlim=box[:2], ylim=box[2:], aspect="equal", xticks=(), yticks=())
        row[0].set_ylabel(TITLES[name])
    for ax, way in zip(axes[0], WAYS):
        ax.set_title(NAMES[way], fontsize=10)
    bar = fig.colorbar(image, ax=axes, orientation="horizontal", shrink=0.5, pad=0.02, aspect=45,
                       ticks=(-12, -8, -4, 0))  # fmt: skip
    bar.set_label("exact log-density minus its maximum / nats")
    fig.suptitle("Between two points of the data: equal steps of s, decoded", fontsize=11)
    return fig


def draw_ways(config: Config, arrays: Arrays) -> Figure:
    """How far the ways lie from the law."""
    fig, axes = plots.figure(2, 1 + len(config.planes), height=5.6)
    s = np.linspace(0, 1, config.marks + 1)
    for column, name in zip(axes.T, (LINE, *config.planes), strict=True):
        for i, way in enumerate(way for way in WAYS if way in ways_of(name)):
            gap, gap_error, share, error = arrays[f"ways {name} {way} by s"].T
            style: dict[str, Any] = {"color": WAY_COLORS[way], "capsize": 2, "markersize": 3.5}
            x = s + 0.006 * (i - 1.5)
            column[0].errorbar(
                x, gap, gap_error, fmt="o-", linewidth=0.9, label=NAMES[way], **style
            )
            column[1].errorbar(x, share, error, fmt="o-", linewidth=0.9, **style)
        column[0].axhline(0.0, color="black", linewidth=1.0)
        column[1].axhline(OFF, color="black", linewidth=1.0, label="true points")
        column[0].set_title(TITLES[name], fontsize=10)
        if column[0].get_ylim()[0] < -3:
            column[0].set_yscale("symlog", linthresh=1.0)
            column[0].set_yticks([-10, -1, 0, 1], ["−10", "−1", "0", "1"])
        column[1].set(yscale="symlog", xlabel="s", ylim=(0, 1.3))
        column[1].set_yscale("symlog", linthresh=0.01)
        column[1].set_yticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
    axes[0, 0].set_ylabel("E log p − that of the law / nats")
    axes[1, 0].set_ylabel(f"share off the law\n(true points: {OFF:g})")
    plots.legend_below(fig, axes[0, -1], axes[1, 0], columns=3)
    fig.suptitle(
        f"Between independent pairs of true points: {config.pairs} (line: {5 * config.pairs})",
        fontsize=11,
    )
    return fig


def draw_learned(config: Config, arrays: Arrays) -> Figure:
    """The learned map beside the exact one."""
    fig, axes = plots.figure(1, 3, height=3.7)
    left, middle, right = axes[0]
    exact, x = arrays["learned decoded"][0], arrays[f"learned {config.training} x"][0]
    n = 500
    lines = np.stack([exact[:n], x[:n], np.full((min(n, len(x)), 2), np.nan)], axis=1).reshape(
        -1, 2
    )
    left.plot(*lines.T, color="0.6", linewidth=0.6)
    left.plot(*exact[:n].T, ".", color="black", markersize=2.5, label="exact map")
    left.plot(*x[:n].T, ".", color=plots.COLORS[2], markersize=2.5, label="learned map")
    left.set(xlim=(-2, 2), ylim=(-2, 2), aspect="equal")
    left.set_title("the same codes decoded, first network", fontsize=10)
    shades = np.linspace(0.75, 0.0, len(config.snapshots) + 1)
    for step, shade in zip((*config.snapshots, config.training), shades):
        d = np.sort(arrays[f"learned {step} distance"].ravel())
        middle.plot(d, (np.arange(len(d)) + 0.5) / len(d), color=str(shade), label=f"{step} steps")
    middle.set(xscale="log", xlabel="|learned − exact|", xlim=(1e-3, 5))
    middle.set_title("share of codes within", fontsize=10)
    frame = learned_table(config, arrays)
    some, steps = frame[frame["model"] != "exact"], [*config.snapshots, config.training]
    right.errorbar(steps, some["distance, mean"], some["error"], fmt="o-", color=plots.COLORS[2],
                   capsize=2, label="mean distance of the maps")  # fmt: skip
    right.errorbar(steps, some["sliced W1"], some["its error"], fmt="s-", color=plots.COLORS[0],
                   capsize=2, label="sliced W1 of the samples")  # fmt: skip
    own = frame[frame["model"] == "exact"].iloc[0]
    low, high = own["floor"] - own["floor spread"], own["floor"] + own["floor spread"]
    right.axhspan(low, high, color="0.87", label="sliced W1 of true samples")
    right.set(xscale="log", yscale="log", xlabel="training steps")
    told = [step for step in steps if step == steps[-1] or 1.6 * step < steps[-1]]
    right.set_xticks(told, [str(step) for step in told])
    right.xaxis.minorticks_off()
    right.tick_params("x", labelsize=8)
    right.set_title("against training", fontsize=10)
    plots.legend_below(fig, *axes[0], columns=4)
    fig.suptitle(
        f"A learned flow map of the swiss roll, code by code ({config.networks} networks, standard "
        "errors over them)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """The plane; the line; tolerances; processes; ways, drawn and measured; the learned map."""
    return {
        "": draw_planes(config, arrays),
        "line": draw_line(config, arrays),
        "tolerances": draw_tolerances(config, arrays),
        "processes": draw_processes(config, arrays),
        "examples": draw_examples(config, arrays),
        "ways": draw_ways(config, arrays),
        "learned": draw_learned(config, arrays),
    }


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """Codes on their way to both laws, coloured by where they end."""
    fig, axes = plots.figure(1, len(config.planes), height=4.3)
    found: list[Any] = []
    ratios = arrays[f"{config.planes[0]} ratios"]
    words = ["∞, codes", *(f"{r:.2g}" for r in ratios), "0, data"]
    for i, word in enumerate(words):
        for ax, name in zip(axes[0], config.planes, strict=True):
            ax.clear()
            points, place = arrays[f"{name} film"][i], arrays[f"{name} place"]
            ax.scatter(*points.T, c=place, cmap=PLACE, s=3.0, linewidths=0)
            ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            ax.set_title(f"{TITLES[name]}: σ/α = {word}", fontsize=10)
        found.append(plots.frame(fig, dpi=80))
        fig.set_layout_engine("none")
    ms = [130.0] * len(found)
    ms[0], ms[-1] = 900.0, 2500.0
    return {"film": plots.gif(found, ms)}


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "What map from noise to data does the probability flow make, and do its codes interpolate?",
    animate,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
