"""Does Langevin dynamics with the exact score reach its law, how fast, and with what bias?

    dX = s(X) dt + sqrt(2) dW,   s = grad log p                 time in this study
    dX = gamma s dt + sqrt(2 gamma) dW,   gamma = 1/2           time in the note: t_note = 2 t

Four questions, each with the exact answer beside the measured one:

    ascent        without noise the points climb to the modes, the more slowly the nearer to a
                  watershed they start: the shares are those of the basins, not the weights
    occupancy     share of mode k at time t = E r_k(X_t), r_k(x) = P(component k | x), for particles
                  and for the exact law of X_t: finite volumes in 1-D (`fokker_planck.langevin`);
                  in the plane a reversible lattice, rates sqrt(p_j/p_i)/w^2 between neighbours at
                  distance w (Lie, Fackeldey and Weber, SIAM J. Matrix Anal. Appl. 34 (2013) 738);
                  its error is what halving the cells and the time steps changes, over 3
    relaxation    1/lambda_k of the lattice's generator: the slowest time of all, and the slowest
                  that a start excites, as the shares are sum_k a_k exp(-lambda_k t)
    bias          the law that the unadjusted step h keeps, from its transition kernel
                  N(x + h s(x), 2 h) on a grid, beside particles, and beside the Metropolis-adjusted
                  algorithm, which keeps p

Cases: the two laws of R. Rosa's note "Langevin sampling" (random_notes, CC BY 4.0), 0.6 N(3, 1) +
0.4 N(7, 0.5^2) from N(5, 1) and, in the plane, 0.4 N((-3,-3), I) + 0.4 N((3,3), I) + 0.2 N((-1,1),
I) from N(0, I) and from the uniform law on [-6, 6]^2; and 0.1 N(-3, 1) + 0.9 N(3, 1) from N(0, 1).
The note prints figures only; its runs in the plane are replayed here from Julia's streams, as is
its finite-difference scheme, whose walls at 0 and 10 absorb.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import GaussianMixture, fokker_planck, gallery, julia, langevin, metrics, plots
from diffscience.boxes import Boxes
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from PIL.Image import Image

GAMMA = 0.5  # of the note: its time is ours over gamma
EXCITED = 1e-6  # of a share, from where on a start counts as exciting a relaxation
NEAR = 1e-3  # of its mode, where a point that climbs counts as arrived
WINDOW = (-7.0, 7.0, -7.0, 7.0)  # of the pictures in the plane
NOTE_STEPS, NOTE_PARTICLES = 128, 1024  # of the note's runs in the plane, to its t = 10
LATE = 10.0  # from here on the exact evolution takes longer steps, and records are multiples of 0.5


@dataclass(frozen=True)
class Case:
    """A law, where its particles start, and a window that holds them.

    law : a mixture with modes near its means; start : a Target of the same dimension;
    low, high : the window, on every axis; title, begin : both in words.
    """

    law: GaussianMixture
    start: Target
    low: float
    high: float
    title: str
    begin: str


def normal(mean: float, var: float, dim: int = 1) -> GaussianMixture:
    """N(mean, var I) with the same mean on every axis."""
    return GaussianMixture([1.0], np.full((1, dim), mean), np.full((1, dim), var))


def note_law() -> GaussianMixture:
    """0.6 N(3, 1) + 0.4 N(7, 0.5^2), the note's law on the line."""
    return GaussianMixture([0.6, 0.4], [[3.0], [7.0]], [[[1.0]], [[0.25]]])


def close_law() -> GaussianMixture:
    """0.4 N(2, 1) + 0.6 N(4, 1): two components, one mode; its relaxation time is 2.03."""
    return GaussianMixture([0.4, 0.6], [[2.0], [4.0]], [[[1.0]], [[1.0]]])


def cases() -> dict[str, Case]:
    """The four cases by name; "note" ends at t = 5, the note's 10, the others at `horizon`."""
    bimodal, trimodal = gallery.julia_bimodal(), gallery.julia_trimodal()
    square = Boxes(np.full((1, 2), -6.0), np.full((1, 2), 6.0))
    line, plane = "0.6 N(3, 1) + 0.4 N(7, 0.5²)", "three modes in the plane"
    rare = "0.1 N(−3, 1) + 0.9 N(3, 1)"
    return {
        "note": Case(note_law(), normal(5.0, 1.0), -4.0, 12.0, line, "N(5, 1)"),
        "bimodal": Case(bimodal, normal(0.0, 1.0), -9.0, 9.0, rare, "N(0, 1)"),
        "trimodal": Case(trimodal, normal(0.0, 1.0, 2), -8.0, 8.0, plane, "N(0, I)"),
        "uniform": Case(trimodal, square, -8.0, 8.0, plane, "U[−6, 6]²"),
    }  # fmt: skip


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    particles, step : of each Langevin run; 0.05 is a multiple of the step.
    times, horizon : when occupancies are recorded, and where the long runs end.
    frames, drawn : of the animations; points of a panel in the plane.
    cells, side, substep : cells of the line (even), cells along a side of the plane (a multiple of
        16, so that walls of cells lie at -6 and 6, and in the coarse grid too), and the time step
        of the exact evolution in the plane before t = 10, a fifth of it on the line.
    starts, climb, ascent_step : points that climb, and their steps.
    pixels : along a side of the map of the basins.
    steps, time, chains, groups : step lengths whose bias is measured, for how long, on how many
        particles, and in how many independent groups of them.
    kernel : grid points of the transition kernel.
    repeats : fresh true samples behind a floor.
    """

    particles: int = 16000
    step: float = 0.0125
    times: tuple[float, ...] = (
        0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0,
        40.0, 50.0, 70.0, 100.0,
    )  # fmt: skip
    horizon: float = 100.0
    frames: int = 50
    drawn: int = 1000
    cells: int = 800
    side: int = 128
    substep: float = 0.05
    starts: int = 10000
    climb: int = 400
    ascent_step: float = 0.2
    pixels: int = 120
    steps: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
    time: float = 20.0
    chains: int = 40000
    groups: int = 40
    kernel: int = 1400
    repeats: int = 12
    seed: int = 1

    def __post_init__(self) -> None:
        number("step", self.step, 0, ends="()")
        number("substep", self.substep, 0, 0.5, ends="(]")
        if self.step > 0.05 or abs(0.05 / self.step - round(0.05 / self.step)) > 1e-9:
            raise ArgumentError("step", "divide 0.05 evenly", self.step)
        if self.times[0] != 0 or np.any(np.diff(self.times) <= 0) or 5.0 not in self.times:
            raise ArgumentError("times", "increase from 0 and hold 5", self.times)
        counts = np.array(self.times) / self.step
        if np.any(np.abs(counts - np.round(counts)) > 1e-6):
            raise ArgumentError("times", f"be multiples of the step {self.step:g}", self.times)
        if self.horizon not in self.times or self.horizon < 10:
            raise ArgumentError("horizon", "be one of the times, at least 10", self.horizon)
        if any(not 0 < h < 2 for h in self.steps) or np.any(np.diff(self.steps) <= 0):
            raise ArgumentError("steps", "increase between 0 and 2", self.steps)
        number("time", self.time, 2 * max(self.steps))
        number("ascent_step", self.ascent_step, 0, ends="()")
        counted = ("particles", "drawn", "frames", "starts", "climb", "pixels")
        for name in (*counted, "groups", "kernel", "repeats"):
            whole(name, getattr(self, name), 2)
        for name, least, factor in (("cells", 4, 2), ("side", 16, 16), ("chains", 4, self.groups)):
            whole(name, getattr(self, name), least)
            if getattr(self, name) % factor:
                raise ArgumentError(name, f"be a multiple of {factor}", getattr(self, name))


def end_of(config: Config, name: str) -> float:
    """Where the runs of a case end."""
    return 5.0 if name == "note" else config.horizon


def film_of(config: Config, name: str) -> np.ndarray:
    """The times of the animation: even for the note's law, ever wider apart for the others."""
    end = end_of(config, name)
    if name == "note":
        return np.unique(_rounded(np.linspace(0.0, end, config.frames)))
    early = np.linspace(0.0, 5.0, config.frames // 2)
    return np.unique(_rounded(np.append(early, np.geomspace(5.0, end, config.frames // 2))))


def times_of(config: Config, name: str) -> np.ndarray:
    """All times at which a case is kept."""
    shown = [t for t in config.times if t <= end_of(config, name)]
    return np.unique(np.round(np.append(shown, film_of(config, name)), 9))


def _rounded(t: np.ndarray) -> np.ndarray:
    unit = np.where(t < LATE, 0.1, 0.5)
    return np.round(np.round(t / unit) * unit, 9)


# Ascent -----------------------------------------------------------------------------------------


def modes_of(law: GaussianMixture) -> np.ndarray:
    """The modes (K, D), by Newton's method from the means, which must lie near them."""
    x = np.array(law.means, float)
    for _ in range(20):
        x = x - np.linalg.solve(law.hessian(x), law.score(x)[..., None])[..., 0]
    return x


def basins(law: GaussianMixture, x: np.ndarray, steps: int, step: float) -> tuple[Any, Any]:
    """(the mode that each point (n, D) climbs to (n,), where it is then)."""
    *_, (_, end) = langevin.ascent(law.score, x, steps, step=step)
    gaps = np.linalg.norm(end[:, None] - modes_of(law), axis=-1)
    return np.argmin(gaps, axis=1), end


def basin_edge(law: GaussianMixture) -> float:
    """The minimum of a 1-D density with two modes between them: a root of the score."""
    from scipy.optimize import brentq

    low, high = np.sort(modes_of(law)[:, 0])

    def score(x: float) -> float:
        return float(law.score(np.array([[x]]))[0, 0])

    return float(brentq(score, low + 1e-3, high - 1e-3, xtol=1e-13))


def ascents(config: Config, case: Case, generator: Any) -> dict[str, Any]:
    """Counts of the basins and the share of each that has arrived, from the start and the law."""
    found: dict[str, Any] = {"modes": modes_of(case.law)}
    for key, law in (("start", case.start), ("law", case.law)):
        x = law.sample(config.starts, generator)
        mode, end = basins(case.law, x, config.climb, config.ascent_step)
        count = np.bincount(mode, minlength=len(case.law.weights))
        near = np.linalg.norm(end - found["modes"][mode], axis=1) < NEAR
        arrived = np.bincount(mode, near, minlength=len(count)) / np.maximum(count, 1)
        found |= {f"{key} count": count, f"{key} arrived": arrived}
        found[f"{key} exact"] = np.full(len(count), np.nan)
        if case.law.dim == 1:
            below = float(law.cdf(np.array([[basin_edge(case.law)]]))[0])
            found[f"{key} exact"] = np.array([below, 1 - below])
    return found


def watershed(config: Config, case: Case, generator: Any) -> dict[str, Any]:
    """A map of the basins in the plane with paths of some points, and paths on the line."""
    half = case.high
    steps = half * ((2 * np.arange(config.pixels) + 1) / config.pixels - 1)
    # A little off the diagonal, which is a watershed and by symmetry leads to the middle mode.
    window = np.stack(np.meshgrid(steps + 0.02, steps), axis=-1).reshape(-1, 2)
    mode, _ = basins(case.law, window, config.climb, config.ascent_step)
    x = case.start.sample(60, generator)
    run = langevin.ascent(case.law.score, x, 400, step=0.05)
    paths = np.stack([x for k, (_, x) in enumerate(run) if k % 4 == 0])
    law, y = note_law(), np.linspace(0.0, 9.0, 37)[:, None]
    on_line = np.stack([y[:, 0] for _, y in langevin.ascent(law.score, y, 120, step=0.025)])
    return {
        "map": mode.reshape(config.pixels, config.pixels).astype(np.int8),
        "paths": paths.astype(np.float32),
        "line": on_line.astype(np.float32),
        "edge": basin_edge(law),
    }


# Occupancy --------------------------------------------------------------------------------------


def share(law: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """(mean of r_k over points (n, D), its standard error), (K, 2)."""
    return np.stack(mean_and_error(metrics.responsibilities(x, law)), axis=-1)


def nearest(law: GaussianMixture, x: np.ndarray) -> np.ndarray:
    """1 for the nearest mean, 0 for the others, (n, K): counting instead of weighing."""
    gaps = np.linalg.norm(x[:, None] - np.asarray(law.means), axis=-1)
    return np.asarray(np.argmin(gaps, axis=1)[:, None] == np.arange(len(law.weights)), float)


def particles(config: Config, case: Case, kept: np.ndarray, generator: Any) -> dict[str, Any]:
    """The share of every mode (T, K, 2) at the kept times, and the states (T, n, D)."""
    x = case.start.sample(config.particles, generator)
    steps = round(kept[-1] / config.step)
    wanted = set(np.round(kept / config.step).astype(int).tolist())
    run = langevin.langevin(case.law.score, x, steps, generator, step=config.step)
    states = np.stack([x for k, (_, x) in enumerate(run) if k in wanted])
    few = states if case.law.dim == 1 else states[:, : config.drawn]
    shares = np.stack([share(case.law, x) for x in states])
    return {"share": shares, "states": few.astype(np.float32)}


def grid_of(kept: np.ndarray, substep: float) -> np.ndarray:
    """The kept times with others between them: steps of `substep`, and ten times it from `LATE`."""
    parts = [np.zeros(1)]
    for a, b in zip(kept[:-1], kept[1:]):
        longest = substep if a < LATE else 10 * substep
        parts.append(np.linspace(a, b, math.ceil((b - a) / longest - 1e-9) + 1)[1:])
    return np.concatenate(parts)


def middles(edges: np.ndarray) -> np.ndarray:
    """The middles of cells between edges."""
    return 0.5 * (edges[1:] + edges[:-1])


def line(case: Case, cells: int, kept: np.ndarray, substep: float) -> dict[str, np.ndarray]:
    """The exact evolution on the line: mean densities over the cells (T, cells), shares (T, K)."""
    edges = fokker_planck.cells(case.low, case.high, cells)
    r = metrics.responsibilities(middles(edges)[:, None], case.law)
    start = fokker_planck.averages(case.start, edges)
    times = grid_of(kept, substep)
    run = fokker_planck.langevin(case.law, start, edges, times)
    wanted = set(np.searchsorted(times, kept - 1e-9).tolist())
    density = np.stack([p for i, (_, p) in enumerate(run) if i in wanted])
    return {"density": density, "share": density * np.diff(edges) @ r}


def lattice(law: GaussianMixture, low: float, high: float, n: int) -> tuple[np.ndarray, Any, Any]:
    """(points (n^D, D), generator Q with dP/dt = Q P, the same made symmetric), sparse.

    The masses P of the points have the rate sqrt(p_j/p_i)/w^2 from point i to each neighbour j.
    """
    import scipy.sparse as sp

    w, D = (high - low) / n, law.dim
    axis = low + w * (np.arange(n) + 0.5)
    points = np.stack(np.meshgrid(*[axis] * D, indexing="ij"), axis=-1).reshape(-1, D)
    index = np.arange(n**D).reshape((n,) * D)
    pairs = [(index.take(range(n - 1), a), index.take(range(1, n), a)) for a in range(D)]
    i = np.concatenate([part.ravel() for a, b in pairs for part in (a, b)])
    j = np.concatenate([part.ravel() for a, b in pairs for part in (b, a)])
    log_p = law.log_prob(points)
    rate = np.exp(0.5 * (log_p[j] - log_p[i])) / w**2
    out = sp.diags(np.bincount(i, rate, minlength=n**D))
    Q = sp.csc_matrix((rate, (j, i)), shape=(n**D, n**D)) - out
    H = sp.csc_matrix((np.full(len(i), 1 / w**2), (j, i)), shape=(n**D, n**D)) - out
    return points, Q.tocsc(), H.tocsc()


def plane(case: Case, side: int, kept: np.ndarray, substep: float) -> dict[str, np.ndarray]:
    """The exact evolution in the plane by Crank-Nicolson steps on the lattice.

    Shares (T, K), by r_k and by the nearest mean.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import splu

    points, Q, _ = lattice(case.law, case.low, case.high, side)
    r = np.stack([metrics.responsibilities(points, case.law), nearest(case.law, points)])
    p = np.exp(case.start.log_prob(points))
    p, times, solvers = p / p.sum(), grid_of(kept, substep), {}
    wanted = set(np.searchsorted(times, kept - 1e-9).tolist())
    shares = [p @ r]
    for i, dt in enumerate(np.round(np.diff(times), 9).tolist(), 1):
        if dt not in solvers:
            solvers[dt] = splu((sp.identity(len(p)) - 0.5 * dt * Q).tocsc())
        p = solvers[dt].solve(p + 0.5 * dt * (Q @ p))
        if i in wanted:
            shares.append(p @ r)
    found = np.stack(shares)
    return {"share": found[:, 0], "count": found[:, 1]}


def relaxation(same: Sequence[Case], n: int) -> np.ndarray:
    """(slowest time of the lattice, slowest time in the shares from the start): (cases, 2).

    same : cases that differ in their starts alone. With H phi_k = -lambda_k phi_k the shares are
    sum_k a_k exp(-lambda_k t), a_k = <phi_k/sqrt(p), start> <sqrt(p) phi_k, r>, where symmetry may
    make an a_k vanish; here it counts from `EXCITED` on, NaN if none of three does.
    """
    from scipy.sparse.linalg import eigsh

    law = same[0].law
    points, _, H = lattice(law, same[0].low, same[0].high, n)
    start = np.ones(H.shape[0])  # a start of its own would be random
    values, modes = eigsh(-H, k=4, sigma=-1e-3, v0=start)
    slow = np.argsort(values)[1:]
    times, modes = 1 / values[slow], modes[:, slow]
    log_p = law.log_prob(points)
    root = np.exp(0.5 * (log_p - log_p.max()))[:, None]
    after = (modes * root).T @ metrics.responsibilities(points, law)
    rows = []
    for case in same:
        p = np.exp(case.start.log_prob(points))
        before = (modes / root).T @ (p / p.sum())
        excited = np.abs(before[:, None] * after).max(axis=1) > EXCITED
        rows.append([times[0], times[excited].max() if excited.any() else math.nan])
    return np.array(rows)


def relaxations(config: Config, same: Sequence[Case]) -> dict[str, np.ndarray]:
    """(cases, slowest and excited, value and error of the grid)."""
    n = config.cells if same[0].law.dim == 1 else config.side
    fine, coarse = relaxation(same, n), relaxation(same, n // 2)
    return {"times": np.stack([fine, np.abs(fine - coarse) / 3], axis=-1)}


def exactly(config: Config, case: Case, kept: np.ndarray) -> dict[str, Any]:
    """Shares with the error of their grid, and densities on the line."""
    on_line = case.law.dim == 1
    solve, n = (line, config.cells) if on_line else (plane, config.side)
    dt = config.substep / 5 if on_line else config.substep
    fine, coarse = solve(case, n, kept, dt), solve(case, n // 2, kept, 2 * dt)
    found = {
        "exact": fine["share"],
        "grid error": np.abs(fine["share"] - coarse["share"]) / 3,
    }
    if not on_line:
        found["count"] = fine["count"]
    else:
        found["density"] = fine["density"].astype(np.float32)
        found["density error"] = np.array(_density_error(fine["density"], coarse["density"]))
    return found


def _density_error(fine: np.ndarray, coarse: np.ndarray) -> float:
    """The largest error of the fine densities, over all cells and times."""
    pairs = 0.5 * (fine[:, ::2] + fine[:, 1::2])
    return float(np.max(np.abs(pairs - coarse)) / 3)


# The note ---------------------------------------------------------------------------------------


def replay(begin: str, late: float) -> dict[str, np.ndarray]:
    """The note's run in the plane from its stream: shares (2, K, 2) at its t = 10 and t = `late`,
    and counts by the nearest mean (2, K).

    Euler steps of 10/128 in its time; the second run goes on where the stream of the first stands.
    """
    rng, law = julia.Xoshiro(123), gallery.julia_trimodal()
    x = rng.randn((2, NOTE_PARTICLES))
    dt = 10.0 / NOTE_STEPS
    if begin == "uniform":
        for _ in range(NOTE_STEPS):  # what the first run drew
            rng.randn((2, NOTE_PARTICLES), bulk=False)
        x = 12 * (rng.rand((2, NOTE_PARTICLES)) - 0.5)
    shares, counts = [], []
    for k in range(1, round(late / dt) + 1):
        z = rng.randn((2, NOTE_PARTICLES), bulk=False)
        x = x + GAMMA * law.score(x.T.copy()).T * dt + math.sqrt(2 * GAMMA * dt) * z
        if k in (NOTE_STEPS, round(late / dt)):
            shares.append(share(law, x.T.copy()))
            counts.append(nearest(law, x.T).mean(axis=0))
    return {"share": np.stack(shares), "count": np.stack(counts)}


def absorbed() -> dict[str, float]:
    """The note's finite differences: mass at first, mass at its last time, and that time.

    Explicit centred differences on 200 points of [0, 10], zero at both ends; 3961 steps, kept up to
    the last multiple of 19. Times are the note's.
    """
    x = np.linspace(0.0, 10.0, 200)
    dx, law = x[1] - x[0], note_law()
    f = GAMMA * law.score(x[:, None])[:, 0]
    steps = math.ceil(max(10.0 / dx**2, np.max(np.abs(f)) * 10.0 / dx))
    dt, last = 10.0 / steps, steps // (steps // 200) * (steps // 200)
    p = np.exp(normal(5.0, 1.0).log_prob(x[:, None]))
    first = p.sum() * dx
    for _ in range(last):
        flow, spread = f * p, 2 * GAMMA * p
        change = -(flow[2:] - flow[:-2]) / (2 * dx)
        change += (spread[2:] - 2 * spread[1:-1] + spread[:-2]) / (2 * dx**2)
        p = np.concatenate([[0.0], p[1:-1] + dt * change, [0.0]])
    return {"first": first, "mass": p.sum() * dx, "time": last * dt}


def between(case: Case, density: np.ndarray, low: float, high: float) -> float:
    """The mass in [low, high] of mean densities over the cells."""
    edges = fokker_planck.cells(case.low, case.high, len(density))
    cdf = np.append(0.0, np.cumsum(density * np.diff(edges)))
    return float(np.diff(np.interp([low, high], edges, cdf))[0])


# Bias -------------------------------------------------------------------------------------------


def kept_law(law: GaussianMixture, h: float, m: int) -> dict[str, np.ndarray]:
    """What the step h does on the line, exactly: facts of the law that it keeps.

    The law pi of the unadjusted step solves pi(y) = int pi(x) N(y; x + h s(x), 2h) dx, by the
    trapezoidal rule on m points (spectrally accurate). facts: relative error of the variance, W1
    to p, shares of the modes (K,), and the mean acceptance E_p min(1, ...) of the adjusted step.
    """
    middle, half = float(law.mean[0]), 12 * math.sqrt(float(law.cov[0, 0])) + 8
    x = np.linspace(middle - half, middle + half, m)
    w, points = x[1] - x[0], x[:, None]
    if w > math.sqrt(2 * h):
        least = math.ceil(2 * half / math.sqrt(2 * h)) + 1
        raise ArgumentError("kernel", f"be at least {least} for the step {h:g}", m)
    ahead = x + h * law.score(points)[:, 0]
    q = np.exp(-((x - ahead[:, None]) ** 2) / (4 * h)) / math.sqrt(4 * math.pi * h)
    # (K^T - 1) pi = 0 with mass one; one of the equations follows from the others.
    system = w * q.T - np.eye(m)
    system[m // 2] = w
    pi = np.linalg.solve(system, np.eye(m)[m // 2])
    mean = w * pi @ x
    p = np.exp(law.log_prob(points))
    gap = pi - p  # both cdfs by one rule, whose errors then cancel
    gap_cdf = w * (np.cumsum(gap) - 0.5 * gap)
    flow = p[:, None] * q
    return {
        "variance": w * pi @ (x - mean) ** 2 / float(law.cov[0, 0]) - 1,
        "w1": w * np.abs(gap_cdf).sum(),
        "share": w * pi @ metrics.responsibilities(points, law),
        "accepted": w * w * np.minimum(flow, flow.T).sum(),
    }


def chains(config: Config, h: float, adjusted: bool, generator: Any) -> dict[str, np.ndarray]:
    """(relative error of the variance, its error), (W1, error, floor, its error), acceptance."""
    law, steps = close_law(), math.ceil(config.time / h)
    start = normal(5.0, 1.0).sample(config.chains, generator)
    if adjusted:
        x, accepted = accepting(law, np.split(start, config.groups), steps, h, generator)
    else:
        *_, (_, x) = langevin.langevin(law.score, start, steps, generator, step=h)
        accepted = np.full(2, math.nan)
    true, (v, error) = float(law.cov[0, 0]), variance(x[:, 0])
    w1 = metrics.wasserstein(x, law, generator, 1, repeats=config.repeats)
    return {
        "variance": np.array([v / true - 1, error / true]),
        "w1": np.array([w1.value, w1.error, w1.floor, w1.floor_error]),
        "accepted": accepted,
    }


def accepting(
    law: GaussianMixture, groups: list[np.ndarray], steps: int, h: float, generator: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Where the adjusted chains end, and (the share accepted in their second half, its error).

    The first half forgets the start; the error is that of the mean over the independent groups.
    """
    ends, shares, half = [], [], steps // 2
    for start in groups:
        run = list(langevin.mala(law.log_prob, law.score, start, steps, generator, step=h))
        ends.append(run[-1][1])
        shares.append((steps * run[-1][2] - half * run[half][2]) / (steps - half))
    return np.concatenate(ends), np.array(mean_and_error(shares))


def variance(x: np.ndarray) -> tuple[float, float]:
    """(var x, its standard error) of points (n,): a mean of squares."""
    return mean_and_error((x - x.mean()) ** 2)


STEP_RULES = {
    "step = h": "x + h s + √(2h) z",
    "epsilon = 2h": "x + (ε/2) s + √ε z",
    "gamma = 1/2, dt = 2h": "x + γ s dt + √(2γ dt) z",
    "mixed up": "x + h s + √h z",
}


def conventions(config: Config, generator: Any, seed: int, h: float = 0.1) -> dict[str, np.ndarray]:
    """On N(0, 1) for time 10: (variance, error, largest distance from the first, exact) of each.

    generator : of the start; seed : of the noise, which is the same for all.
    """
    law, steps, dt = normal(0.0, 1.0), round(10 / h), h / GAMMA
    start = law.sample(config.chains, generator)

    def noise() -> np.random.Generator:
        return np.random.default_rng(seed)

    def by_hand(drift: float, deviation: float) -> np.ndarray:
        x, draws = start, noise()
        for _ in range(steps):
            x = x + drift * law.score(x) + deviation * draws.standard_normal(x.shape)
        return x

    *_, (_, by_step) = langevin.langevin(law.score, start, steps, noise(), step=h)
    *_, (_, by_epsilon) = langevin.langevin(law.score, start, steps, noise(), epsilon=2 * h)
    ends = (
        by_step,
        by_epsilon,
        by_hand(GAMMA * dt, math.sqrt(2 * GAMMA * dt)),
        by_hand(h, math.sqrt(h)),
    )
    rows = [[*variance(x[:, 0]), np.max(np.abs(x - by_step))] for x in ends]
    exact = np.array([1.0, 1.0, 1.0, 0.5]) / (1 - h / 2)
    return {"rows": np.column_stack([rows, exact])}


# Backgrounds ------------------------------------------------------------------------------------


def backgrounds(config: Config, n: int = 100) -> dict[str, np.ndarray]:
    """The targets of the pictures: densities on the line's cells, log-densities in the plane."""
    case = cases()["note"]
    middle = middles(fokker_planck.cells(case.low, case.high, config.cells))
    left, right = WINDOW[:2]
    axis = left + (right - left) * (np.arange(n) + 0.5) / n
    pixels = np.stack(np.meshgrid(axis, axis), axis=-1)
    return {
        "middle": middle,
        "line": np.exp(case.law.log_prob(middle[:, None])),
        "plane": cases()["trimodal"].law.log_prob(pixels).astype(np.float32),
    }


# Computing --------------------------------------------------------------------------------------


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Ascent, occupancy, relaxation, the note's runs, and bias."""
    arrays: dict[str, Any] = {}
    for name, case in cases().items():
        kept = times_of(config, name)
        arrays[f"{name} times"] = kept
        for key, function, extra in (
            ("ascent", ascents, (run.generator(name, "ascent"),)),
            ("exact", exactly, (kept,)),
            ("particles", particles, (kept, run.generator(name, "particles"))),
        ):
            found = run.cell(f"{name} {key}", function, config, case, *extra)
            arrays |= {f"{name} {key} {part}": value for part, value in found.items()}
    for names in (("note",), ("bimodal",), ("trimodal", "uniform")):
        same = [cases()[name] for name in names]
        slow = run.cell(f"relaxation {names[0]}", relaxations, config, same)["times"]
        arrays |= {f"{name} relaxation": row for name, row in zip(names, slow, strict=True)}
    own = run.generator("watershed")
    found = run.cell("watershed", watershed, config, cases()["uniform"], own)
    arrays |= {f"watershed {part}": value for part, value in found.items()}
    found = run.cell("backgrounds", backgrounds, config)
    arrays |= {f"background {part}": value for part, value in found.items()}
    own, seed = run.generator("conventions"), run.seed_for("conventions", "noise")
    arrays["conventions"] = run.cell("conventions", conventions, config, own, seed)["rows"]
    return arrays | replays(config, run, arrays) | biases(config, run)


def replays(config: Config, run: Run, arrays: dict[str, Any]) -> dict[str, Any]:
    """The note's runs; `arrays` hold its exact law."""
    late = min(config.horizon, 50.0) / GAMMA
    more: dict[str, Any] = {"replay late": late}
    for begin in ("trimodal", "uniform"):
        found = run.cell(f"replay {begin}", replay, begin, late)
        more |= {f"replay {begin} {part}": value for part, value in found.items()}
    more |= {f"absorbed {key}": v for key, v in run.cell("absorbed", absorbed).items()}
    case, end = cases()["note"], GAMMA * float(more["absorbed time"])
    places = [place_of(arrays, "note", t) for t in (0.0, end)]
    held = [between(case, arrays["note exact density"][i], 0.0, 10.0) for i in places]
    return more | {"absorbed exact": np.array(held)}


def biases(config: Config, run: Run) -> dict[str, Any]:
    """What each step keeps, exactly and measured."""
    arrays: dict[str, Any] = {}
    for h in sorted({config.step, *config.steps}):
        found = run.cell(f"kernel note {h}", kept_law, note_law(), h, config.kernel)
        arrays |= {f"kernel note {h} {part}": value for part, value in found.items()}
    for h in run.progress(config.steps, "step lengths"):
        found = run.cell(f"kernel close {h}", kept_law, close_law(), h, config.kernel)
        arrays |= {f"kernel close {h} {part}": value for part, value in found.items()}
        for way in ("ula", "mala"):
            key = f"{way} {h}"
            found = run.cell(key, chains, config, h, way == "mala", run.generator("bias", key))
            arrays |= {f"{key} {part}": value for part, value in found.items()}
    return arrays


def place_of(arrays: dict[str, np.ndarray], name: str, t: float) -> int:
    """Which of the kept times of a case is nearest to t."""
    return int(np.argmin(np.abs(arrays[f"{name} times"] - t)))


# Tables -----------------------------------------------------------------------------------------

SHOWN = {
    "note": ([1], (0.0, 0.5, 1.0, 2.0, 5.0)),
    "bimodal": ([0], (0.0, 1.0, 5.0, 10.0, 50.0, 100.0)),
    "trimodal": ([0, 1, 2], (0.0, 1.0, 5.0, 10.0, 50.0, 100.0)),
    "uniform": ([2], (0.0, 5.0, 50.0, 100.0)),
}
"""The modes and times of each case in the main table."""


def mode_name(case: Case, k: int) -> str:
    """The mean of a component in words."""
    return "(" + ", ".join(f"{m:g}" for m in np.asarray(case.law.means)[k]) + ")"


def occupancy_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Shares of the modes: particles beside the exact law; of two modes, the lighter one.

    The excess is over sampling and the grid; the bias of the particles' own step is left in it (in
    the end -0.003 on the note's law: table "kernel"). Rows of one case are of the same particles,
    and so not independent.
    """
    rows = []
    for name, case in cases().items():
        modes, times = SHOWN[name]
        exact, error = arrays[f"{name} exact exact"], arrays[f"{name} exact grid error"]
        for i, t in enumerate(arrays[f"{name} times"].tolist()):
            for k in modes if t in times else []:
                value, spread = arrays[f"{name} particles share"][i, k]
                excess = Estimate(value, spread, exact[i, k], error[i, k]).excess()
                rows.append(
                    {"law": case.title, "start": case.begin, "mode": mode_name(case, k)}
                    | {"t": t, "t of the note": t / GAMMA, "share": value, "error": spread}
                    | {"exact share": exact[i, k], "grid error": error[i, k], "excess": excess}
                    | {"weight": float(case.law.weights[k])}
                )
    return rows


def ascent_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The shares of the basins, from the start and from the law itself."""
    rows = []
    for name, case in cases().items():
        for key, begin in (("start", case.begin), ("law", "the law itself")):
            if name == "uniform" and key == "law":
                continue
            count = arrays[f"{name} ascent {key} count"]
            for k, n in enumerate(count.tolist()):
                p = n / config.starts
                rows.append(
                    {"law": case.title, "start": begin}
                    | {"mode": mode_name(case, k), "weight": float(case.law.weights[k])}
                    | {"share": p, "error": math.sqrt(p * (1 - p) / config.starts)}
                    | {"exact share": arrays[f"{name} ascent {key} exact"][k]}
                    | {f"of them within {NEAR:g}": arrays[f"{name} ascent {key} arrived"][k]}
                )
    return rows


def note_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The note's runs, replayed, beside the exact law at the kept time nearest to theirs."""
    rows: list[dict[str, Any]] = []
    for name in ("trimodal", "uniform"):
        case = cases()[name]
        weight = f"the mode of weight {float(case.law.weights[2]):g} from {case.begin}"
        for i, t in enumerate((10.0, float(arrays["replay late"]))):
            place = place_of(arrays, name, GAMMA * t)
            value, error = arrays[f"replay {name} share"][i, 2]
            exact = arrays[f"{name} exact exact"][place, 2]
            row: dict[str, Any] = {"quantity": f"share of {weight}", "t of the note": t}
            row |= {"t": GAMMA * t, "note replayed": value, "error": error, "exact": exact}
            rows.append(row | {"excess": (value - exact) / error})
            value = arrays[f"replay {name} count"][i, 2]
            exact = arrays[f"{name} exact count"][place, 2]
            error = math.sqrt(exact * (1 - exact) / NOTE_PARTICLES)
            row |= {"quantity": f"points nearest to {weight}", "note replayed": value}
            rows.append(row | {"error": error, "exact": exact, "excess": (value - exact) / error})
    ends = (("first", 0.0), ("mass", float(arrays["absorbed time"])))
    for (key, t), exact in zip(ends, arrays["absorbed exact"], strict=True):
        row = {"quantity": "mass in [0, 10] by the note's finite differences", "t of the note": t}
        row |= {"t": GAMMA * t, "note replayed": float(arrays[f"absorbed {key}"]), "exact": exact}
        rows.append(row)
    return rows


def relaxation_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The slowest time of each law and of each start, and how far the shares are at the end."""
    rows = []
    for name, case in cases().items():
        (slow, error), (own, own_error) = arrays[f"{name} relaxation"]
        gap = np.abs(arrays[f"{name} exact exact"][-1] - np.asarray(case.law.weights)).max()
        row: dict[str, Any] = {"law": case.title, "start": case.begin}
        row |= {"slowest time": slow, "grid error": error}
        row |= {"slowest from this start": own, "its grid error": own_error}
        row |= {"the same, note's time": own / GAMMA}
        row |= {"end t": end_of(config, name), "exact share off by": gap}
        if case.law.dim == 1:
            row["largest density error of the grid"] = arrays[f"{name} exact density error"]
        rows.append(row)
    return rows


def bias_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Bias of the law that each step keeps, and acceptance; an excess is in standard errors.

    W1 is held against its floor, and for an unadjusted step against the exact W1 of the law that
    the step keeps, which the W1 of a finite sample exceeds where it is near the floor.
    """
    rows = []
    for h in config.steps:
        for way, method in (("ula", "unadjusted"), ("mala", "Metropolis-adjusted")):
            key, exact = f"{way} {h}", f"kernel close {h}"
            (v, error), w1 = arrays[f"{key} variance"], Estimate(*arrays[f"{key} w1"])
            accepted, spread = arrays[f"{key} accepted"]
            unadjusted = way == "ula"
            true, far = (float(arrays[f"{exact} {part}"]) for part in ("variance", "w1"))
            true, far = (true, far) if unadjusted else (0.0, 0.0)
            wanted = math.nan if unadjusted else float(arrays[f"{exact} accepted"])
            rows.append(
                {"step h": h, "method": method, "var/true - 1": v, "error": error}
                | {"exact": true, "excess": (v - true) / error}
                | {"W1": w1.value, "W1 error": w1.error, "W1 floor": w1.floor}
                | {"W1 floor error": w1.floor_error, "W1 excess": w1.excess(), "exact W1": far}
                | {"W1 off exact": (w1.value - far) / w1.error if unadjusted else math.nan}
                | {"accepted": accepted, "accepted error": spread, "exact accepted": wanted}
                | {"accepted excess": (accepted - wanted) / spread}
            )
    return rows


def kernel_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What each step keeps on the note's law, exactly."""
    case = cases()["note"]
    return [
        {
            "step h": h,
            "step of the note": h / GAMMA,
            f"share of the mode {mode_name(case, 1)}": arrays[f"kernel note {h} share"][1],
            "weight": float(case.law.weights[1]),
            "var/true - 1": float(arrays[f"kernel note {h} variance"]),
            "W1": float(arrays[f"kernel note {h} w1"]),
            "accepted when adjusted": float(arrays[f"kernel note {h} accepted"]),
        }
        for h in sorted({config.step, *config.steps})
    ]


def convention_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Three ways to write one dynamics, and a fourth that is another."""
    return [
        {"convention": name, "update": rule, "variance on N(0, 1)": row[0], "error": row[1]}
        | {"exact": row[3], "largest distance from step = h": row[2]}
        for (name, rule), row in zip(STEP_RULES.items(), arrays["conventions"], strict=True)
    ]


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Occupancy; ascent; relaxation; the note replayed; bias; conventions."""
    import pandas as pd

    parts = {
        "": occupancy_table,
        "ascent": ascent_table,
        "relaxation": relaxation_table,
        "note": note_table,
        "bias": bias_table,
        "kernel": kernel_table,
        "conventions": convention_table,
    }
    return {key: pd.DataFrame(rows(config, arrays)) for key, rows in parts.items()}


# Figures ----------------------------------------------------------------------------------------


def over_time(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Shares of the modes against time, on a panel for each case."""
    fig, axes = plots.figure(2, 2, height=6.2)
    for ax, (name, case) in zip(axes.flat, cases().items(), strict=True):
        t, exact = arrays[f"{name} times"], arrays[f"{name} exact exact"]
        later, shown = t > 0, np.isin(t, config.times) & (t > 0)
        for k, weight in enumerate(np.asarray(case.law.weights).tolist()):
            color = plots.COLORS[k]
            value, error = arrays[f"{name} particles share"][shown, k].T
            ax.axhline(weight, color=color, linewidth=1.0, linestyle="--")
            ax.plot(t[later], exact[later, k], color="black", linewidth=1.2, zorder=3)
            ax.errorbar(
                t[shown], value, error, fmt="o", color=color, markersize=3.5, capsize=2,
                label=f"mode {mode_name(case, k)}, weight {weight:g}", zorder=4,
            )  # fmt: skip
        if name != "bimodal":  # which is no case of the note
            ax.axvline(5.0, color="0.6", linewidth=1.0, linestyle=":", zorder=1)
        ax.set(xscale="log", xlabel="time t", ylabel="share of the mode")
        ticks = [x for x in (0.1, 1.0, 10.0, 100.0) if t[1] <= x <= t[-1]]
        ticks = ticks if len(ticks) > 1 else [0.2, 0.5, 1.0, 2.0, 5.0]
        ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
        ax.tick_params(axis="x", which="minor", labelbottom=False)
        top = max(0.9, float(exact.max()))
        ax.set_ylim(0, top * (1.14 + 0.14 * len(case.law.weights)))
        ax.set_yticks(np.arange(0.0, 1.01, 0.2))
        ax.set_title(f"{case.title}\nfrom {case.begin}", fontsize=10)
        ax.legend(loc="upper left", fontsize=8)
    fig.suptitle(
        f"Langevin with the exact score: {config.particles} particles, step {config.step:g}; "
        "black: exact law; dashed: weights;\ndotted: where the note's runs end "
        "(its t = 10, which is t = 5 here)",
        fontsize=10.5,
    )
    return fig


def climbs(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Basins in the plane with paths; paths on the line; shares beside weights."""
    from matplotlib.colors import ListedColormap

    fig, axes = plots.figure(1, 3, height=3.7)
    ax, case = axes[0, 0], cases()["uniform"]
    map_, paths = arrays["watershed map"], arrays["watershed paths"]
    h = case.high
    colors = ListedColormap(plots.COLORS[:3])
    ax.imshow(map_, extent=(-h, h, -h, h), cmap=colors, alpha=0.3, vmin=0, vmax=2, origin="lower")
    for i in range(paths.shape[1]):
        ax.plot(paths[:, i, 0], paths[:, i, 1], color="0.25", linewidth=0.7)
    modes = arrays["uniform ascent modes"]
    ax.plot(modes[:, 0], modes[:, 1], "k*", markersize=8)
    ax.grid(False)
    ax.set(title="basins and ascents", xlim=(-h, h), ylim=(-h, h))
    ax.set(xticks=(-5, 0, 5), yticks=(-5, 0, 5), xlabel="$x_1$", ylabel="$x_2$")
    line_ascents(axes[0, 1], arrays)
    basin_bars(axes[0, 2], config, arrays)
    fig.suptitle("Ascent without noise: points climb to the modes, in shares that are not weights")
    return fig


def line_ascents(ax: Axes, arrays: dict[str, np.ndarray]) -> None:
    """Ascents of points of the line on the note's law."""
    values = arrays["watershed line"]
    times, high = 0.025 * np.arange(len(values)), values[-1] > 5
    ax.plot(times, values[:, ~high], color=plots.COLORS[0], linewidth=0.8)
    ax.plot(times, values[:, high], color=plots.COLORS[1], linewidth=0.8)
    ax.axhline(float(arrays["watershed edge"]), color="black", linewidth=1.0, linestyle="--")
    ax.set(xlabel="time t", ylabel="x", title="0.6 N(3, 1) + 0.4 N(7, 0.5²)", xlim=(0, 3))


def basin_bars(ax: Axes, config: Config, arrays: dict[str, np.ndarray]) -> None:
    """The share of every basin beside the weight of its mode."""
    labels, place = [], 0.0
    for name in ("note", "bimodal", "trimodal", "uniform"):
        case, count = cases()[name], arrays[f"{name} ascent start count"]
        for k, n in enumerate(count.tolist()):
            p = n / config.starts
            error = math.sqrt(p * (1 - p) / config.starts)
            ax.barh(place, p, 0.8, xerr=error, color=plots.COLORS[k], alpha=0.75)
            weight = float(case.law.weights[k])
            ax.plot([weight] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
            labels.append((place, f"{'' if k else case.begin + ':  '}{mode_name(case, k)}"))
            place += 1
        place += 0.8
    ax.set_yticks([p for p, _ in labels], [text for _, text in labels], fontsize=8)
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set(xlabel="share (bar), weight (black)", title="shares, by start", xlim=(0, 1))


def histograms(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The note's law on the line at six times."""
    fig, axes = plots.figure(2, 3, height=4.9, share=True)
    for ax, t in zip(axes.flat, (0.0, 0.2, 0.5, 1.0, 2.0, 5.0), strict=True):
        snapshot(ax, config, arrays, place_of(arrays, "note", t))
    for ax in axes[1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(f"From N(5, 1) to 0.6 N(3, 1) + 0.4 N(7, 0.5²): {config.particles} particles")
    return fig


def snapshot(ax: Axes, config: Config, arrays: dict[str, np.ndarray], place: int) -> None:
    """Histogram, exact law and target at one kept time of the note's law."""
    t = float(arrays["note times"][place])
    bins = np.linspace(0.0, 10.0, 61 if config.particles > 1000 else 31)
    x = arrays["note particles states"][place, :, 0].astype(np.float64)
    height = np.histogram(x, bins)[0] / (len(x) * np.diff(bins))
    ax.stairs(height, bins, fill=True, color=plots.COLORS[0], alpha=0.45, label="particles")
    middle, target = arrays["background middle"], arrays["background line"]
    ax.plot(middle, arrays["note exact density"][place], color="black", label="exact law of $X_t$")
    ax.plot(middle, target, color=plots.COLORS[2], linestyle="--", linewidth=1.2, label="target")
    share_ = arrays["note particles share"][place, 1, 0]
    exact = arrays["note exact exact"][place, 1]
    ax.set_title(f"t = {t:.1f} (note: {t / GAMMA:.1f})\nright: {share_:.3f}, exact {exact:.3f}")
    ax.title.set_fontsize(10)
    ax.set(xlim=(0, 10), ylim=(0, 0.48))


def heat(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The exact densities over time and space."""
    fig, axes = plots.figure(1, 2, height=3.6)
    for ax, name in zip(axes[0], ("note", "bimodal"), strict=True):
        case, t = cases()[name], arrays[f"{name} times"]
        density = arrays[f"{name} exact density"]
        if name == "bimodal":
            density, t = density[1:], t[1:]
            ax.set_xscale("log")
        middle = middles(fokker_planck.cells(case.low, case.high, config.cells))
        image = ax.pcolormesh(t, middle, density.T, shading="gouraud")
        image.set_rasterized(True)
        ax.grid(False)
        slow = float(arrays[f"{name} relaxation"][1, 0])
        ax.set_title(f"{case.title}\nrelaxation time {slow:.1f}", fontsize=10)
        ax.set(xlabel="time t", ylabel="x", ylim=(0, 10) if name == "note" else (-6, 6))
        fig.colorbar(image, ax=ax, label="density")
    fig.suptitle("The exact law of $X_t$ (Fokker-Planck)")
    return fig


def scatter(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Particles in the plane over the density of their target."""
    moments = [0.0, 1.0, 5.0, min(50.0, config.horizon)]
    fig, axes = plots.figure(2, 4, height=4.9, share=True)
    for row, name in zip(axes, ("trimodal", "uniform"), strict=True):
        for ax, moment in zip(row, moments, strict=True):
            place = place_of(arrays, name, moment)
            t = float(arrays[f"{name} times"][place])
            image = cloud(ax, arrays, name, place)
            share_ = arrays[f"{name} particles share"][place, 2, 0]
            exact = arrays[f"{name} exact exact"][place, 2]
            ax.set_title(
                f"t = {t:g} (note: {t / GAMMA:g})\n{share_:.3f}, exact {exact:.3f}", fontsize=9.5
            )
        row[0].set_ylabel(f"from {cases()[name].begin}\n$x_2$")
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    bar = fig.colorbar(image, ax=axes, orientation="horizontal", shrink=0.6, aspect=45, pad=0.02)
    bar.set_label("background: log-density of the target minus its maximum / nats")
    drawn = min(config.drawn, config.particles)
    weight = float(cases()["trimodal"].law.weights[2])
    fig.suptitle(f"Share of the middle mode, whose weight is {weight:g} ({drawn} particles drawn)")
    return fig


def cloud(ax: Axes, arrays: dict[str, np.ndarray], name: str, place: int) -> Any:
    """Particles of one kept time over the target; the background's image."""
    image = plots.background(ax, arrays["background plane"], WINDOW)
    x = arrays[f"{name} particles states"][place]
    ax.scatter(x[:, 0], x[:, 1], s=1.6, c="white", linewidths=0, alpha=0.9, rasterized=True)
    ax.set(xlim=WINDOW[:2], ylim=WINDOW[2:], aspect="equal")
    ax.set(xticks=(-5, 0, 5), yticks=(-5, 0, 5))
    return image


def bias(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Variance, W1 and acceptance against the step."""
    fig, axes = plots.figure(1, 3, height=3.7)
    h = np.array(config.steps)
    for way, color, label in (
        ("ula", plots.COLORS[0], "unadjusted"),
        ("mala", plots.COLORS[2], "adjusted"),
    ):
        for ax, part in zip(axes[0], ("variance", "w1"), strict=False):
            found = np.stack([arrays[f"{way} {s} {part}"] for s in config.steps])
            ax.errorbar(h, found[:, 0], found[:, 1], fmt="o", color=color, capsize=2, label=label)
    for ax, part in zip(axes[0], ("variance", "w1"), strict=False):
        exact = [float(arrays[f"kernel close {s} {part}"]) for s in config.steps]
        ax.plot(h, exact, color="black", linewidth=1.2, label="exact, unadjusted")
    floor = np.array([arrays[f"mala {s} w1"][2] for s in config.steps])
    spread = np.array([arrays[f"mala {s} w1"][3] for s in config.steps])
    axes[0, 1].fill_between(
        h, floor - spread, floor + spread, color="0.8", label="floor of true samples"
    )
    axes[0, 0].axhline(0.0, color="0.5", linewidth=1.0)
    axes[0, 0].set(ylabel="variance / true variance − 1", title="variance")
    axes[0, 0].set_yscale("symlog", linthresh=0.01)
    axes[0, 0].set_ylim(top=2.0)
    axes[0, 1].set(ylabel="$W_1$ to the law", yscale="log", title="Wasserstein-1 distance")
    accepted = np.array([arrays[f"mala {s} accepted"] for s in config.steps])
    exact = [float(arrays[f"kernel close {s} accepted"]) for s in config.steps]
    axes[0, 2].plot(h, exact, color="black", linewidth=1.2)
    axes[0, 2].errorbar(h, accepted[:, 0], accepted[:, 1], fmt="o", color=plots.COLORS[2])
    axes[0, 2].set(ylabel="share accepted", ylim=(0, 1.05), title="acceptance (black: exact)")
    for ax in axes[0]:
        ax.set(xscale="log", xlabel="step h")
        ax.set_xticks(h, [f"{s:g}" for s in config.steps])
        ax.minorticks_off()
    plots.legend_below(fig, axes[0, 1])
    fig.suptitle(f"0.4 N(2, 1) + 0.6 N(4, 1) after time {config.time:g}: {config.chains} particles")
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Shares over time; ascent; histograms; exact densities; particles in the plane; bias."""
    return {
        "": over_time(config, arrays),
        "ascent": climbs(config, arrays),
        "note": histograms(config, arrays),
        "evolution": heat(config, arrays),
        "plane": scatter(config, arrays),
        "bias": bias(config, arrays),
    }


# Animation --------------------------------------------------------------------------------------


def line_frames(config: Config, arrays: dict[str, np.ndarray]) -> Iterator[Image]:
    """Histogram and exact law of the note's law on the line."""
    from matplotlib.figure import Figure

    for t in film_of(config, "note").tolist():
        fig = Figure(figsize=(4.8, 3.4))
        ax = fig.subplots()
        snapshot(ax, config, arrays, place_of(arrays, "note", t))
        ax.set(xlabel="x", ylabel="density")
        ax.legend(loc="upper left", fontsize=8)
        yield plots.frame(fig, dpi=100)


def plane_frames(config: Config, arrays: dict[str, np.ndarray]) -> Iterator[Image]:
    """Particles in the plane from N(0, I)."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(4.2, 4.3))
    ax = fig.subplots()
    cloud(ax, arrays, "trimodal", 0)
    ax.set(xlabel="$x_1$", ylabel="$x_2$")
    weight = float(cases()["trimodal"].law.weights[2])
    points: Any = ax.collections[0]
    points.set_sizes([4.0])
    for t in film_of(config, "trimodal").tolist():
        place = place_of(arrays, "trimodal", t)
        points.set_offsets(arrays["trimodal particles states"][place])
        share_ = arrays["trimodal particles share"][place, 2, 0]
        exact = arrays["trimodal exact exact"][place, 2]
        words = f"middle mode {share_:.2f}, exact {exact:.2f}, weight {weight:.2f}"
        ax.set_title(f"t = {t:5.1f}; {words}", fontsize=9.5)
        yield plots.frame(fig, dpi=100)
        fig.set_layout_engine("none")


def animate(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The note's law on the line, and the particles in the plane."""
    films = {"note": line_frames(config, arrays), "plane": plane_frames(config, arrays)}
    found = {}
    for key, film in films.items():
        frames = list(film)
        found[key] = plots.gif(frames, [120.0] * (len(frames) - 1) + [1500.0])
    return found


STUDY = Study(
    Config(),
    Config(
        particles=500, step=0.05, times=(0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), horizon=10.0,
        frames=5, drawn=300, cells=160, side=48, substep=0.2, starts=500, climb=150, pixels=40,
        steps=(0.2, 0.8), time=8.0, chains=1500, groups=10, kernel=400, repeats=4,
    ),
    compute,
    table,
    draw,
    "Does Langevin dynamics with the exact score reach its law, how fast, and with what bias?",
    animate,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
