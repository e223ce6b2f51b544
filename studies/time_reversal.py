"""Which Brownian motion carries a diffusion back along its own path, and is it one?

    forward     dX = f X dt + g dW
    backward    dX = (f X - g^2 s) dt + g dWbar,   s = grad log p_t     (Anderson 1982)
    Wbar        dWbar = dW + g(t) s(X_t, t) dt                          along the forward path

The backward equation with this Wbar is the forward one rewritten, so it leads every path back onto
itself. That says nothing of Wbar: any lambda in dW_l = dW + l g s dt and the drift f X - l g^2 s do
so too (though for l < 0 what rounding and steps leave grows towards t = 0, like t^(2l) below). What
is remarkable is that for l = 1 Wbar is a Brownian motion, and independent of where X ends, so that
fresh noise in its place gives the same law. Two cases:

    the note    dX = sqrt(2t) dW, X_0 = 0, so sigma(t) = t and s = -x/t^2
    bimodal     the variance-preserving process from 0.1 N(-3, 1) + 0.9 N(3, 1)

For the note's case all is Gaussian. With l in the place of 1 and continuous time

    Var W_l(1) = 1 - 8 l/3 + 8 l^2/3,   Cov(X_1, W_l(1)) = (2 sqrt 2/3)(1 - l)
    run back from N(0, 1) with fresh noise:   Var X_t = t^2/(2l - 1) + (1 - 1/(2l - 1)) t^(4l),
                                              t^2 (1 - 2 log t) for l = 1/2

and of n steps every moment of the sum that stands for Wbar is a finite sum (`covariance`). The note
reverse_flow of R. Rosa (random_notes, CC BY 4.0) takes 100 uniform steps of Euler's method and adds
up g(t_j) s(X_(j-1), t_j) h_j; it finds Wbar "a little bit squeezed". That is the discretisation at
t = 0, where g s is infinite: the deficit of Var Wbar_1 falls like 18 log(n)/n only. Increments of
(X, W) from their joint law, a trapezium for the integral and graded times (k/n)^2 mend it. The way
back is of the order of its method on graded times; on uniform ones its last step, to t = 0, leaves
an error like h.

Conventions: `mesh` is "uniform" (k/n) or "graded" ((k/n)^2); g s counts as 0 where g is 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import EDM, VP, GaussianMixture, Oracle, Process, gallery, plots, solvers
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.noise import Stored
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from PIL.Image import Image

MESHES = ("uniform", "graded")
INCREMENTS = ("Euler", "exact")
RULES = ("note", "trapezium")
SCHEMES = [(mesh, step, rule) for mesh in MESHES for step in INCREMENTS for rule in RULES]
NOTE, BEST = ("uniform", "Euler", "note"), ("graded", "exact", "trapezium")
METHODS = {"euler": "Euler", "srk": "SRK"}
PIECES = 8  # of [0, 1], between which the increments of Wbar are tested
HALF = 0.5  # the time at which runs with fresh noise are looked at


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    paths, steps : of the runs whose covariances are tested; the steps a multiple of 8.
    few, many : step counts of the note's case, the note's 100 and one that is larger.
    most : the largest step count of the exact variances.
    kept, fine, counts : paths that are led back, steps of these paths, and of the ways back.
    factors : values of lambda.
    fresh_steps : of the runs back with fresh noise.
    drawn, frames : paths in the pictures, and frames of a film in each direction.
    """

    paths: int = 20000
    steps: int = 1024
    few: int = 100
    many: int = 1600
    most: int = 100000
    kept: int = 400
    fine: int = 4096
    counts: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    factors: tuple[float, ...] = (-1.0, 0.0, 0.5, 1.0, 2.0)
    fresh_steps: int = 200
    drawn: int = 60
    frames: int = 25
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("paths", "kept", "drawn"):
            whole(name, getattr(self, name), 10)
        for name in ("few", "many", "fine", "fresh_steps", "frames"):
            whole(name, getattr(self, name), 4)
        whole("steps", self.steps, PIECES)
        if self.steps % PIECES:
            raise ArgumentError("steps", f"be a multiple of {PIECES}", self.steps)
        whole("most", self.most, self.many)
        counts = np.array(self.counts)
        if len(counts) < 2 or np.any(np.diff(counts) <= 0) or np.any(self.fine % counts):
            raise ArgumentError("counts", f"increase and divide fine = {self.fine}", self.counts)
        if 1.0 not in self.factors or np.any(np.diff(self.factors) <= 0):
            raise ArgumentError("factors", "increase and hold 1", self.factors)
        for factor in self.factors:
            number("factors", factor, -2, 4)


def cases() -> dict[str, Oracle]:
    """The note's case and a general one."""
    point = GaussianMixture([1.0], np.zeros((1, 1)), np.zeros((1, 1, 1)))
    return {"note": Oracle(point, EDM(T=1.0)), "bimodal": Oracle(gallery.julia_bimodal(), VP())}


def mesh_of(mesh: str, n: int) -> np.ndarray:
    """n + 1 times from 0 to 1."""
    return (np.arange(n + 1) / n) ** (2 if mesh == "graded" else 1)


# Forward ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """The joint law of a step's W and of the step of X, for every step of a grid.

    X_j = a_j X_(j-1) + N_j with Var N = b, Cov(N, W) = c, Var W = h; `sign` is that of the trend of
    the kernel in N = int kernel dW, which is what N says of the area of W beyond W itself.
    """

    h: np.ndarray
    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    sign: np.ndarray


def cells(process: Process, times: np.ndarray, increments: str) -> Cells:
    """Exactly, or as Euler's method has it: a = 1 + f h, N = g(t_(j-1)) W."""
    s, t = times[:-1], times[1:]
    h = t - s
    if increments == "Euler":
        g = process.diffusion(s)
        return Cells(h, 1 + process.drift(s) * h, g * g * h, g * h, np.ones_like(h))
    step = process.between(s, t)
    # u = s + h v^2 makes a smooth function of the root of u, such as the kernel at 0.
    v, w = np.polynomial.legendre.leggauss(10)
    v, w = 0.5 * (v + 1), 0.5 * w
    u = s[:, None] + h[:, None] * v**2
    kernel = process.alpha(t)[:, None] / process.alpha(u) * process.diffusion(u)
    weight = 2 * w * v * h[:, None]
    c = np.sum(weight * kernel, axis=1)
    trend = np.sum(weight * kernel * (v**2 - 0.5), axis=1)
    return Cells(h, np.asarray(step.scale), np.asarray(step.var), c, np.sign(trend))


def pull(oracle: Oracle, x: np.ndarray, t: float) -> np.ndarray:
    """g(t) s(x, t) for points (n,)."""
    g = float(oracle.process.diffusion(t))
    return g * oracle.score(x[:, None], t)[:, 0] if g > 0 else np.zeros_like(x)


def walk(
    oracle: Oracle, times: np.ndarray, n: int, generator: Any, step: str, rule: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """n forward paths: X, and the W, its area H, and int g s dt of the step before, each (n,).

    step : one of `INCREMENTS`. rule : "trapezium"; "note" for g(t_j) s(X_(j-1), t_j) h_j; "area"
    for a trapezium that knows how far X leaves its chord, int (X - chord) dt = g h H.
    """
    x = oracle.law.sample(n, generator)[:, 0]
    zero = np.zeros(n)
    yield x, zero, zero, zero
    law = cells(oracle.process, times, step)
    before = pull(oracle, x, float(times[0])) if rule != "note" else zero
    for j, t in enumerate(times[1:].tolist()):
        h, b, c = law.h[j], law.b[j], law.c[j]
        W = math.sqrt(h) * generator.standard_normal(n)
        y = generator.standard_normal(n)
        new = law.a[j] * x + c / h * W + math.sqrt(max(b - c * c / h, 0.0)) * y
        H = -law.sign[j] * math.sqrt(h / 12) * y
        if rule == "note":
            S = h * pull(oracle, x, t)
        else:
            after = pull(oracle, new, t)
            S = 0.5 * h * (before + after)
            before = after
        if rule == "area":
            g2 = float(oracle.process.diffusion(t)) ** 2
            S = S + g2 * oracle.at(t).hessian(new[:, None])[:, 0, 0] * h * H
        x = new
        yield x, W, H, S


def recorded(
    oracle: Oracle, times: np.ndarray, n: int, generator: Any, step: str, rule: str, places: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(X, W, int g s dt) of n paths at some places among the times, each (places, n)."""
    wanted, kept = set(np.asarray(places).tolist()), []
    W = S = np.zeros(n)
    for j, (x, dW, _, dS) in enumerate(walk(oracle, times, n, generator, step, rule)):
        W, S = W + dW, S + dS
        if j in wanted:
            kept.append((x, W, S))
    # kept holds triples, so there are three.
    return tuple(np.stack(parts) for parts in zip(*kept, strict=True))  # type: ignore[return-value]


# The note's case, exactly -----------------------------------------------------------------------


def covariance(
    times: np.ndarray, step: str, rule: str, places: Any, factor: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """(Cov(W_l, W_l) (places, places), Cov(X, W_l) (places,)) of n steps in the note's case.

    W_l at place m is sum_(i <= m) (W_i + A_mi N_i) with A_mi = sum_(k = i..m) w_k, where w_k is
    what the rule gives to X_k = N_1 + ... + N_k; W_i and N_i are independent from step to step.
    """
    law, t = cells(cases()["note"].process, times, step), times[1:]
    rate = -factor * np.sqrt(2 * t) / t**2  # of g s = rate x
    m = np.asarray(places)
    A = np.zeros((len(m), len(t)))  # column i belongs to N_(i+1)
    for row, last in zip(A, m.tolist()):
        if last == 0:
            continue
        w = np.zeros(last)  # of X_1 ... X_last
        if rule == "note":
            w[:-1] = (rate * law.h)[1:last]
        else:
            w += 0.5 * (rate * law.h)[:last]
            w[:-1] += 0.5 * rate[: last - 1] * law.h[1:last]
        row[:last] = np.cumsum(w[::-1])[::-1]
    inside = np.arange(len(t)) < m[:, None]
    with_x = np.sum(inside * (law.c + A * law.b), axis=1)
    plain = np.cumsum(law.h)
    both = np.minimum(m[:, None], m)
    cov = np.where(both > 0, plain[np.maximum(both - 1, 0)], 0.0)
    for i in range(len(m)):
        shared = inside & inside[i]
        cov[i] += np.sum(shared * ((A[i] + A) * law.c + A[i] * A * law.b), axis=1)
    return cov, with_x


def exact_variances(config: Config) -> dict[str, np.ndarray]:
    """Var Wbar_1 of n steps for every scheme, n up to `most`, by ever wider strides."""
    n = np.unique(np.geomspace(8, config.most, 60).round().astype(int))
    found: dict[str, np.ndarray] = {"n": n}
    for mesh, step, rule in SCHEMES:
        values = [covariance(mesh_of(mesh, k), step, rule, [k])[0][0, 0] for k in n.tolist()]
        found[f"{mesh} {step} {rule}"] = np.array(values)
    return found


def of_factor(factor: float) -> tuple[float, float, float]:
    """(Var W_l(1), Cov(X_1, W_l(1)), Var X_HALF with fresh noise), in continuous time."""
    variance = 1 - 8 * factor / 3 + 8 * factor**2 / 3
    with_x = 2 * math.sqrt(2) / 3 * (1 - factor)
    if factor == 0.5:
        return variance, with_x, HALF**2 * (1 - 2 * math.log(HALF))
    share = 1 / (2 * factor - 1)
    return variance, with_x, share * HALF**2 + (1 - share) * HALF ** (4 * factor)


# Sampling ---------------------------------------------------------------------------------------


def second_moments(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Covariances of a (K, n) and b (L, n), and their standard errors: (K, L) each."""
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    n = a.shape[1]
    mean = a @ b.T / n
    spread = np.sqrt(np.maximum((a * a) @ (b * b).T / n - mean**2, 0.0) / n)
    return mean, spread


def squeezed(
    config: Config, mesh: str, step: str, rule: str, n: int, generator: Any
) -> dict[str, np.ndarray]:
    """Var Wbar_1 of n steps in the note's case, measured."""
    oracle, times = cases()["note"], mesh_of(mesh, n)
    _, W, S = recorded(oracle, times, config.paths, generator, step, rule, [n])
    bar = (W + S)[0]
    return {
        "variance": np.array(mean_and_error((bar - bar.mean()) ** 2)),
        "exact": covariance(times, step, rule, [n])[0][0, 0],
    }


def brownian(
    config: Config, name: str, mesh: str, step: str, rule: str, n: int, generator: Any
) -> dict[str, Any]:
    """Whether Wbar is a Brownian motion that X does not know of: covariances and increments."""
    from scipy import stats

    oracle, times = cases()[name], mesh_of(mesh, n)
    places = np.unique(np.round(np.linspace(0, n, PIECES + 1)).astype(int))[1:]
    X, W, S = recorded(oracle, times, config.paths, generator, step, rule, places)
    at, bar = times[places], W + S
    cov, error = second_moments(bar, bar)
    with_x, with_x_error = second_moments(X[-1:], bar)
    lengths = np.diff(np.concatenate([[0.0], at]))
    pieces = np.diff(bar, axis=0, prepend=0.0) / np.sqrt(lengths)[:, None]
    tests = [stats.kstest(piece, "norm") for piece in pieces]
    found: dict[str, Any] = {
        "times": at,
        "cov": cov,
        "error": error,
        "with x": with_x[0],
        "with x error": with_x_error[0],
        "ks": np.array([[test.statistic, test.pvalue] for test in tests]),
        "correlation": np.corrcoef(pieces),
    }
    if name == "note":
        found["exact"], found["exact with x"] = covariance(times, step, rule, places)
    if name == "note" and (mesh, step, rule) == BEST:
        rows = []
        for factor in config.factors:
            w = (W + factor * S)[-1:]
            pairs = (second_moments(w, w), second_moments(X[-1:], w))
            discrete = covariance(times, step, rule, [n], factor)
            rows.append([*(float(v[0, 0]) for pair in pairs for v in pair)])
            rows[-1] += [discrete[0][0, 0], discrete[1][0]]
        found["factors"] = np.array(rows)
    return found


def backward(oracle: Oracle, factor: float) -> Any:
    """(x (n, 1), t) -> f x - lambda g^2 s."""

    def drift(x: torch.Tensor, t: float) -> torch.Tensor:
        g = float(oracle.process.diffusion(t))
        return oracle.process.drift(t) * x - factor * g * g * oracle.score(x, t)

    return drift


def with_fresh_noise(
    config: Config, factor: float, generator: Any, seed: int, device: str = "cpu"
) -> dict[str, Any]:
    """Var X_HALF after a run back from N(0, 1) with noise of its own, in the note's case."""
    oracle = cases()["note"]
    x = generator.standard_normal((config.paths, 1))
    times = np.linspace(1.0, HALF, config.fresh_steps + 1)
    size = oracle.process.diffusion
    run = solvers.ito(backward(oracle, factor), size, x, times, seed, method="srk", device=device)
    y = np.asarray(run.last)[:, 0]
    return {"variance": np.array(mean_and_error((y - y.mean()) ** 2))}


# Back -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forward:
    """Forward paths with all their steps: X (steps + 1, n); W, H and int g s dt (steps, n)."""

    times: np.ndarray
    X: np.ndarray
    W: np.ndarray
    H: np.ndarray
    S: np.ndarray

    @classmethod
    def of(
        cls, oracle: Oracle, times: np.ndarray, n: int, generator: Any, step: str, rule: str
    ) -> Forward:
        """n fresh paths."""
        X, W, H, S = map(np.stack, zip(*walk(oracle, times, n, generator, step, rule)))
        return cls(times, X, W[1:], H[1:], S[1:])

    def noise(self, factor: float = 1.0) -> Stored:
        """W_l, read from the end to the start: its increments change their sign, not its areas."""
        W, H = -(self.W + factor * self.S)[::-1, :, None], self.H[::-1, :, None]
        return Stored(self.times[::-1], torch.from_numpy(W.copy()), torch.from_numpy(H.copy()))


def way_back(
    oracle: Oracle, path: Forward, noise: Any, stride: int, method: str, factor: float = 1.0
) -> np.ndarray:
    """The backward run from the end of the paths, on every stride-th time, in order of t."""
    grid = path.times[::stride][::-1]
    x, keep = path.X[-1][:, None], range(len(grid))
    on_grid = noise.on(grid) if isinstance(noise, Stored) else noise
    if factor == 1:
        run = solvers.reverse(oracle, x, grid, on_grid, method=method, keep=keep)
    else:
        size = oracle.process.diffusion
        run = solvers.ito(
            backward(oracle, factor), size, x, grid, on_grid, method=method, keep=keep
        )
    return np.asarray(run.states)[::-1, :, 0]


def distance(
    path: Forward, back: np.ndarray, stride: int, since: float = 0.0
) -> tuple[float, float, float]:
    """Of the largest distance of each path from a time on: mean, its error, and the largest."""
    far = np.abs(back - path.X[::stride])[path.times[::stride] >= since].max(axis=0)
    return (*mean_and_error(far), float(far.max()))


def retraced(config: Config, name: str, mesh: str, generator: Any, seed: int) -> dict[str, Any]:
    """How far the runs back are from the paths, by step count and method, and with fresh noise."""
    oracle, times = cases()[name], mesh_of(mesh, config.fine)
    path = Forward.of(oracle, times, config.kept, generator, "exact", "area")
    bar, found = path.noise(), {}
    strides = [config.fine // n for n in config.counts]
    for method in METHODS:
        rows = [distance(path, way_back(oracle, path, bar, k, method), k) for k in strides]
        found[method] = np.array(rows)
    rows = [distance(path, way_back(oracle, path, seed, k, "euler"), k) for k in strides]
    found["fresh"] = np.array(rows)
    if name == "note":
        for factor in config.factors:
            W, k = path.noise(factor), strides[-1]
            back = way_back(oracle, path, W, k, "euler", factor)
            found[f"factor {factor}"] = np.array(distance(path, back, k, HALF))
    return found


def note_back(config: Config, n: int, generator: Any) -> dict[str, np.ndarray]:
    """The note's own way there and back in n steps: distances, and some paths."""
    oracle, times = cases()["note"], mesh_of("uniform", n)
    path = Forward.of(oracle, times, 1024, generator, "Euler", "note")
    back = way_back(oracle, path, path.noise(), 1, "euler")
    bar = np.cumsum(path.W + path.S, axis=0)
    k = config.drawn
    return {
        "distance": np.array(distance(path, back, 1)),
        "X": path.X[:, :k],
        "back": back[:, :k],
        "W": np.concatenate([np.zeros((1, k)), np.cumsum(path.W[:, :k], axis=0)]),
        "bar": np.concatenate([np.zeros((1, k)), bar[:, :k]]),
        "std": np.concatenate([[0.0], bar.std(axis=1)]),
        "exact std": np.sqrt(np.diag(covariance(times, "Euler", "note", range(n + 1))[0])),
    }


def pictured(config: Config, generator: Any, seed: int) -> dict[str, np.ndarray]:
    """Paths of the bimodal case there, back with Wbar, and back with fresh noise."""
    oracle, times = cases()["bimodal"], mesh_of("graded", config.few)
    path = Forward.of(oracle, times, 200, generator, "exact", "area")
    back = way_back(oracle, path, path.noise(), 1, "srk")
    fresh = way_back(oracle, path, seed, 1, "srk")
    y = np.linspace(-7, 7, 121)
    k = config.drawn
    return {
        "times": path.times,
        "X": path.X[:, :k],
        "back": back[:, :k],
        "fresh": fresh[:, :k],
        "y": y,
        "density": np.exp(oracle.log_prob(y[:, None], 0.0)),
    }


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Exact variances; measured ones; covariances; lambdas; ways back; pictures."""
    arrays: dict[str, Any] = {}

    def add(name: str, function: Any, *args: Any) -> None:
        arrays.update({f"{name} {k}": v for k, v in run.cell(name, function, *args).items()})

    add("exact", exact_variances, config)
    for scheme, n in run.progress(measured_of(config), "variances"):
        name = f"variance {' '.join(scheme)} {n}"
        add(name, squeezed, config, *scheme, n, run.generator(name))
    for name, scheme, n in run.progress(tested_of(config), "covariances"):
        key = f"brownian {name} {' '.join(scheme)}"
        add(key, brownian, config, name, *scheme, n, run.generator(key))
    for factor in run.progress(list(config.factors), "fresh noise"):
        key = f"fresh {factor}"
        own = (run.generator(key), run.seed_for(key, "noise"), run.device)
        add(key, with_fresh_noise, config, factor, *own)
    for name, mesh in run.progress([(name, mesh) for name in cases() for mesh in MESHES], "back"):
        key = f"back {name} {mesh}"
        add(key, retraced, config, name, mesh, run.generator(key), run.seed_for(key, "fresh"))
    for n in (config.few, config.many):
        add(f"there and back {n}", note_back, config, n, run.generator("there and back", n))
    add("picture", pictured, config, run.generator("picture"), run.seed_for("picture", "fresh"))
    return arrays


def measured_of(config: Config) -> list[tuple[tuple[str, str, str], int]]:
    """(scheme, steps) whose variances are measured: all in few steps, the note's in many."""
    return [*((scheme, config.few) for scheme in SCHEMES), (NOTE, config.many)]


def tested_of(config: Config) -> list[tuple[str, tuple[str, str, str], int]]:
    """(case, scheme, steps) whose covariances are measured."""
    even = ("uniform", "exact", "trapezium")
    return [
        ("note", NOTE, config.few),
        ("note", BEST, config.steps),
        ("bimodal", even, config.steps),
        ("bimodal", BEST, config.steps),
    ]


# Tables -----------------------------------------------------------------------------------------


def scheme_words(scheme: tuple[str, str, str]) -> dict[str, Any]:
    """The columns that say which scheme it is."""
    return dict(zip(("mesh", "increments", "rule"), scheme, strict=True))


def variance_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Var Wbar_1 of the note's case: exact for the steps, and measured."""
    rows = []
    for scheme, n in measured_of(config):
        value, error = arrays[f"variance {' '.join(scheme)} {n} variance"]
        exact = float(arrays[f"variance {' '.join(scheme)} {n} exact"])
        row: dict[str, Any] = scheme_words(scheme)
        row |= {"steps": n, "Var Wbar_1, exact": exact, "measured": value, "error": error}
        row |= {"z": (value - exact) / error, "of a Brownian motion": 1.0}
        rows.append(row | {"its error": math.sqrt(2 / config.paths)})
    return rows


def limit_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """How the exact variances go to 1."""
    n, rows = arrays["exact n"], []
    for scheme in SCHEMES:
        values = arrays[f"exact {' '.join(scheme)}"]
        lost = 1 - values
        row: dict[str, Any] = scheme_words(scheme)
        for k in (0, len(n) // 2, -1):
            row |= {f"n = {n[k]}": values[k]}
        gap = np.diff(n[[-8, -1]] * lost[[-8, -1]]) / np.diff(np.log(n[[-8, -1]]))
        row |= {"n (1 - Var), last": n[-1] * lost[-1]}
        rows.append(row | {"its growth with log n": float(gap[0])})
    return rows


def covariance_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Every covariance of Wbar at the recorded times."""
    rows = []
    for name, scheme, n in tested_of(config):
        key = f"brownian {name} {' '.join(scheme)}"
        t, cov, error = (arrays[f"{key} {part}"] for part in ("times", "cov", "error"))
        for i in range(len(t)):
            for j in range(i + 1):
                row: dict[str, Any] = {"case": name, **scheme_words(scheme)}
                row |= {"steps": n, "s": t[j], "t": t[i], "Cov(Wbar_s, Wbar_t)": cov[i, j]}
                row |= {"error": error[i, j], "min(s, t)": t[j]}
                row |= {"z": (cov[i, j] - t[j]) / error[i, j]}
                row |= {"exact for the steps": math.nan, "z to that": math.nan}
                if name == "note":
                    exact = arrays[f"{key} exact"][i, j]
                    row |= {"exact for the steps": exact}
                    row |= {"z to that": (cov[i, j] - exact) / error[i, j]}
                rows.append(row)
    return rows


def brownian_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The verdict on Wbar in one line for each run."""
    rows = []
    for name, scheme, n in tested_of(config):
        key = f"brownian {name} {' '.join(scheme)}"
        t, cov, error = (arrays[f"{key} {part}"] for part in ("times", "cov", "error"))
        z = (cov - np.minimum(t[:, None], t)) / error
        with_x, with_x_error = (arrays[f"{key} with x{part}"] for part in ("", " error"))
        off = arrays[f"{key} correlation"][np.tril_indices(len(t), -1)]
        far = arrays[f"{key} ks"]
        row: dict[str, Any] = {"case": name, **scheme_words(scheme)}
        row |= {"steps": n, "paths": config.paths, "Var Wbar_1": cov[-1, -1]}
        row |= {"error": error[-1, -1], "largest |z| of the covariances": np.abs(z).max()}
        row |= {"Cov(X_1, Wbar_1)": with_x[-1], "its error": with_x_error[-1]}
        row |= {"largest |z| of Cov(X_1, Wbar_t)": np.abs(with_x / with_x_error).max()}
        row |= {
            "largest |z| of correlations of increments": np.abs(off).max() * math.sqrt(config.paths)
        }
        row |= {"least KS p-value of increments": far[:, 1].min()}
        rows.append(row)
    return rows


def factor_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What lambda in dW_l = dW + l g s dt does."""
    rows = []
    found = arrays[f"brownian note {' '.join(BEST)} factors"]
    for factor, values in zip(config.factors, found, strict=True):
        variance, error, with_x, with_x_error, discrete, discrete_x = values
        exact, exact_x, exact_fresh = of_factor(factor)
        fresh, fresh_error = arrays[f"fresh {factor} variance"]
        distances = arrays[f"back note graded factor {factor}"]
        rows.append({
            "lambda": factor, "Var W_l(1)": variance, "error": error,
            "exact for the steps": discrete, "exact": exact, "z": (variance - discrete) / error,
            "Cov(X_1, W_l(1))": with_x, "its error": with_x_error,
            "its exact for the steps": discrete_x, "its exact": exact_x,
            "its z": (with_x - discrete_x) / with_x_error,
            f"Var X_{HALF:g}, fresh noise": fresh, "fresh error": fresh_error,
            "fresh exact": exact_fresh, "fresh z": (fresh - exact_fresh) / fresh_error,
            "true Var": HALF**2, "steps back": config.counts[-1],
            f"distance of the way back, t >= {HALF:g}": distances[0],
            "distance error": distances[1],
        })  # fmt: skip
    return rows


def back_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Distances of the ways back, and the orders at which they fall."""
    rows = []
    for name in cases():
        for mesh in MESHES:
            for method in (*METHODS, "fresh"):
                found = arrays[f"back {name} {mesh} {method}"]
                words = {"case": name, "mesh": mesh, "noise": "Wbar" if method in METHODS else
                         "fresh", "method": METHODS.get(method, "Euler")}  # fmt: skip
                for n, (mean, error, worst) in zip(config.counts, found, strict=True):
                    row = {**words, "steps": n, "mean of the largest distance": mean}
                    row |= {"error": error, "largest of all paths": worst}
                    rows.append(row | {"order": slope(config.counts, found[:, 0])})
    for n in (config.few, config.many):
        mean, error, worst = arrays[f"there and back {n} distance"]
        rows.append({
            "case": "note, as printed", "mesh": "uniform", "noise": "Wbar", "method": "Euler",
            "steps": n, "mean of the largest distance": mean, "error": error,
            "largest of all paths": worst, "order": note_order(config, arrays),
        })  # fmt: skip
    return rows


def slope(counts: tuple[int, ...], values: np.ndarray) -> float:
    """Minus the slope of log distance against log steps over the last four counts."""
    x, y = np.log(np.array(counts[-4:])), np.log(values[-4:])
    return -float(np.polyfit(x, y, 1)[0])


def note_order(config: Config, arrays: dict[str, np.ndarray]) -> float:
    """The same for the note's own way, from its two step counts."""
    few, many = (arrays[f"there and back {n} distance"][0] for n in (config.few, config.many))
    return math.log(few / many) / math.log(config.many / config.few)


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Variances; their limits; the verdicts; covariances; lambdas; ways back."""
    import pandas as pd

    parts = {
        "": variance_table,
        "limit": limit_table,
        "brownian": brownian_table,
        "covariance": covariance_table,
        "factor": factor_table,
        "back": back_table,
    }
    return {key: pd.DataFrame(rows(config, arrays)) for key, rows in parts.items()}


# Figures ----------------------------------------------------------------------------------------


def main_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """There and back; the squeezed Wbar; its exact variance against n; distances."""
    fig, axes = plots.figure(2, 2, height=6.8)
    key = f"there and back {config.few}"
    times = mesh_of("uniform", config.few)
    paths(axes[0, 0], times, arrays[f"{key} X"], arrays[f"{key} back"], 5)
    mean = arrays[f"{key} distance"][0]
    axes[0, 0].set_title(
        f"the note's {config.few} steps there and back:\nlargest distance {mean:.3f} on average",
        fontsize=10,
    )
    axes[0, 0].set(xlabel="t", ylabel="X")
    axes[0, 0].legend(loc="upper left", fontsize=8)
    ax = axes[0, 1]
    ax.plot(times, arrays[f"{key} bar"], color=plots.COLORS[4], linewidth=0.4, alpha=0.35)
    for sign in (-1, 1):
        one = sign == 1
        ax.plot(times, sign * np.sqrt(times), "k--", linewidth=1.4, label="±√t" if one else None)
        ax.plot(
            times, sign * arrays[f"{key} exact std"], color=plots.COLORS[4],
            label="± std of the sum, exact" if one else None,
        )  # fmt: skip
        ax.plot(
            times[::10], sign * arrays[f"{key} std"][::10], "o", color=plots.COLORS[1],
            label="± std of 1024 paths" if one else None,
        )  # fmt: skip
    ax.legend(loc="upper left", fontsize=8)
    ax.set(xlabel="t", ylabel="$\\overline{W}$", ylim=(-3, 5))
    ax.set_title("the note's $\\overline{W}$: squeezed near t = 0,\nwhere its drift is infinite")
    ax.title.set_fontsize(10)
    against_n(axes[1, 0], config, arrays)
    against_steps(axes[1, 1], config, arrays, "note", "graded")
    axes[1, 1].set_title("graded steps, exact increments:\nthe way back onto the path", fontsize=10)
    axes[1, 1].legend(fontsize=8)
    fig.suptitle("Time reversal along the path: dX = √(2t) dW from 0, back with its own noise")
    return fig


def paths(
    ax: Axes, t: np.ndarray, X: np.ndarray, back: np.ndarray, bold: int, crowd: str = "there"
) -> None:
    """Some forward paths with the ways back over them, and a crowd of either in the background."""
    many, color = (X, plots.COLORS[0]) if crowd == "there" else (back, plots.COLORS[2])
    ax.plot(t, many, color=color, linewidth=0.4, alpha=0.35)
    for i in range(bold):
        words = (None, None) if i else ("there", "back")
        ax.plot(t, X[:, i], color=plots.COLORS[0], linewidth=2.4, label=words[0])
        ax.plot(t, back[:, i], color=plots.COLORS[2], linewidth=0.9, label=words[1])


def against_n(ax: Axes, config: Config, arrays: dict[str, np.ndarray]) -> None:
    """1 - Var Wbar_1 against n for the note's scheme and its cures."""
    shown = [NOTE, ("graded", "Euler", "note"), ("uniform", "exact", "trapezium"), BEST]
    n = arrays["exact n"]
    for scheme, color in zip(shown, plots.COLORS, strict=False):
        lost = np.abs(1 - arrays[f"exact {' '.join(scheme)}"])
        label = f"{scheme[0]}, {'the note' if scheme[1] == 'Euler' else 'exact, trapezium'}"
        ax.plot(n, lost, color=color, label=label)
        for which, k in measured_of(config):
            if which == scheme:
                value, error = arrays[f"variance {' '.join(scheme)} {k} variance"]
                if abs(1 - value) > 2 * error:
                    ax.errorbar([k], [abs(1 - value)], [error], fmt="o", color=color, capsize=2)
    ax.plot(n[10:], 18 * np.log(n[10:]) / n[10:], "k:", linewidth=1, label="18 log(n)/n")
    ax.set(xscale="log", yscale="log", xlabel="steps n", ylim=(1e-8, 3))
    ax.set_ylabel("|1 − Var $\\overline{W}_1$|")
    ax.set_title(f"exact for n steps (points: {config.paths} paths)", fontsize=10)
    ax.legend(fontsize=8, loc="lower left")


def against_steps(
    ax: Axes, config: Config, arrays: dict[str, np.ndarray], name: str, mesh: str
) -> None:
    """Mean largest distances of the ways back, with errors, and their orders."""
    labels = {**{k: f"{v}, own noise" for k, v in METHODS.items()}, "fresh": "Euler, fresh noise"}
    for (method, label), color in zip(labels.items(), plots.COLORS, strict=False):
        found = arrays[f"back {name} {mesh} {method}"]
        order = f" (order {slope(config.counts, found[:, 0]):.2f})" if method != "fresh" else ""
        ax.errorbar(
            config.counts, found[:, 0], found[:, 1], fmt="o-", color=color, capsize=2,
            label=label + order,
        )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="steps back", ylabel="largest distance, mean")
    ax.set_xticks(config.counts, [str(k) for k in config.counts])
    ax.minorticks_off()


def way_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Distances of the ways back for both cases and meshes."""
    fig, axes = plots.figure(2, 2, height=6.4)
    titles = {"note": "the note's case", "bimodal": "bimodal law, VP"}
    for row, name in zip(axes, cases(), strict=True):
        for ax, mesh in zip(row, MESHES, strict=True):
            against_steps(ax, config, arrays, name, mesh)
            ax.set_title(f"{titles[name]}, {mesh} steps", fontsize=10)
            low, high = ax.get_ylim()
            ax.set_ylim(low, high * (high / low) ** 0.45)
            ax.legend(fontsize=8, loc="upper right")
    fig.suptitle(
        f"From the end of {config.kept} paths back, with the path's own noise and with fresh noise"
    )
    return fig


def covariance_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Cov(Wbar_s, Wbar_t) over t for some s, against min(s, t)."""
    fig, axes = plots.figure(2, 2, height=6.4)
    for ax, (name, scheme, n) in zip(axes.flat, tested_of(config), strict=True):
        key = f"brownian {name} {' '.join(scheme)}"
        t, cov, error = (arrays[f"{key} {part}"] for part in ("times", "cov", "error"))
        for color, i in zip(plots.COLORS, (1, 3, 5, 7), strict=False):
            ax.plot([0, t[i], 1], [0, t[i], t[i]], color=color, linewidth=1)
            ax.errorbar(t, cov[i], error[i], fmt="o", color=color, capsize=2, markersize=3.5,
                        label=f"s = {t[i]:.3g}")  # fmt: skip
            if name == "note":
                ax.plot(t, arrays[f"{key} exact"][i], "x", color="black", markersize=4)
        z = np.abs((cov - np.minimum(t[:, None], t)) / error).max()
        title = {"note": "the note's case", "bimodal": "bimodal law, VP"}[name]
        mesh, step, rule = scheme
        ax.set_title(f"{title}: {n} {mesh} steps,\n{step}, {rule}; largest |z| = {z:.1f}")
        ax.title.set_fontsize(9.5)
        ax.set(xlabel="t", ylabel="Cov($\\overline{W}_s$, $\\overline{W}_t$)", ylim=(-0.1, 1.4))
        ax.legend(fontsize=8, loc="upper left", ncols=2)
    fig.suptitle(
        f"Is $\\overline{{W}}$ a Brownian motion? Points: {config.paths} paths; lines: min(s, t); "
        "crosses: exact for the steps",
        fontsize=11,
    )
    return fig


def factor_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Variance, covariance with the end, fresh noise and distances, against lambda."""
    fig, axes = plots.figure(1, 4, height=3.5)
    found = arrays[f"brownian note {' '.join(BEST)} factors"]
    factors = np.array(config.factors)
    fresh = np.stack([arrays[f"fresh {factor} variance"] for factor in config.factors])
    back = np.stack([arrays[f"back note graded factor {factor}"] for factor in config.factors])
    many = np.linspace(factors[0], factors[-1], 201)
    exact = np.array([of_factor(float(factor)) for factor in many])
    measured: list[Any] = [found[:, :2].T, found[:, 2:4].T, fresh.T]
    aims, titles = (1.0, 0.0, HALF**2), (
        "Var $W_\\lambda(1)$", "Cov($X_1$, $W_\\lambda(1)$)", f"Var $X_{{{HALF:g}}}$, fresh noise",
    )  # fmt: skip
    for i, ax in enumerate(axes[0, :3]):
        ax.plot(many, exact[:, i], color="black", linewidth=1.2)
        ax.axhline(aims[i], color="0.5", linewidth=1, linestyle=":")
        ax.errorbar(factors, *measured[i], fmt="o", color=plots.COLORS[0], capsize=2)
        ax.set_title(titles[i], fontsize=10)
    axes[0, 2].set_yscale("log")
    axes[0, 3].errorbar(factors, back[:, 0], back[:, 1], fmt="o", color=plots.COLORS[0], capsize=2)
    middle = float(np.exp(np.log(back[:, 0]).mean()))
    axes[0, 3].set(yscale="log", ylim=(middle / 100, middle * 100))
    axes[0, 3].set_title(f"distance on the way back\nto t = {HALF:g}", fontsize=10)
    for ax in axes[0]:
        ax.axvline(1.0, color=plots.COLORS[2], linewidth=1)
        ax.set_xlabel("λ")
        ax.set_xticks([-1, 0, 1, 2])
    fig.suptitle(
        "$dW_\\lambda = dW + \\lambda\\,g\\,s\\,dt$: every λ leads back, only λ = 1 is a Brownian "
        "motion that the end does not know\n(lines: exact; dotted: what a Brownian motion has)",
        fontsize=10.5,
    )
    return fig


def bimodal_figure(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Paths of the bimodal case there and back, and with fresh noise."""
    fig, axes = plots.figure(1, 2, height=4.2, share=True)
    t, X = arrays["picture times"], arrays["picture X"]
    titles = ("back with $\\overline{W}$: the same path", "back with fresh noise: the same law")
    for ax, kind, title in zip(axes[0], ("back", "fresh"), titles, strict=True):
        crowd = "back" if kind == "fresh" else "there"
        paths(ax, t, X, arrays[f"picture {kind}"], 5, crowd)
        ax.set_title(title, fontsize=10)
        ax.set(xlabel="t", xlim=(0, 1), ylim=(-7, 7))
        height = arrays["picture density"]
        ax.fill_betweenx(arrays["picture y"], 0, 0.3 * height, color="0.6", alpha=0.4, zorder=0)
    axes[0, 0].set_ylabel("x")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle("0.1 N(−3, 1) + 0.9 N(3, 1) (grey) under the variance-preserving process")
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """The note's case; covariances; lambdas; ways back; paths of the bimodal case."""
    return {
        "": main_figure(config, arrays),
        "covariance": covariance_figure(config, arrays),
        "factor": factor_figure(config, arrays),
        "back": way_figure(config, arrays),
        "bimodal": bimodal_figure(config, arrays),
    }


# Animation --------------------------------------------------------------------------------------


def film(
    t: np.ndarray, panels: list[tuple[str, str, np.ndarray, np.ndarray]], count: int
) -> Iterator[Image]:
    """Forward paths grow from left to right, then the ways back from right to left.

    panels : (title, name of the vertical axis, forward paths, ways back) each.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(3.8 * len(panels), 3.3))
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    high = 1.05 * max(float(np.abs(part).max()) for panel in panels for part in panel[2:])
    sets = []
    for ax, (title, name, X, back) in zip(axes, panels, strict=True):
        there = ax.plot(t, X, color=plots.COLORS[0], linewidth=0.4, alpha=0.4)
        returns = ax.plot(t, back, color=plots.COLORS[2], linewidth=0.4, alpha=0.3, zorder=3)
        for i in range(5):
            there[i].set(linewidth=2.6, alpha=1.0)
            returns[i].set(linewidth=1.1, alpha=1.0, zorder=4)
        ax.set(xlim=(0, 1), ylim=(-high, high), xlabel="t", ylabel=name, title=title)
        sets.append((there, X, returns, back))
    at = np.linspace(0, 1, count).tolist()
    for forward, moment in [(True, a) for a in at] + [(False, a) for a in at[-2::-1]]:
        for there, X, returns, back in sets:
            shown = t <= moment if forward else np.ones(len(t), bool)
            returned = np.zeros(len(t), bool) if forward else t >= moment
            for lines, values, on in ((there, X, shown), (returns, back, returned)):
                for i, line in enumerate(lines):
                    line.set_data(t[on], values[on, i])
        yield plots.frame(fig, dpi=100)
        fig.set_layout_engine("none")


def animate(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The note's paths, and those of the bimodal case with both noises."""
    key = f"there and back {config.few}"

    def some(name: str) -> np.ndarray:
        return arrays[name][:, :30]

    titles = ("back with its own $\\overline{W}$", "back with fresh noise")
    note = [
        ("X there (blue) and back (red)", "X", some(f"{key} X"), some(f"{key} back")),
        ("W (blue) and $\\overline{W}$ (red)", "W", some(f"{key} W"), some(f"{key} bar")),
    ]
    both = [
        (title, "x", some("picture X"), some(f"picture {kind}"))
        for title, kind in zip(titles, ("back", "fresh"), strict=True)
    ]
    films = {
        "note": film(mesh_of("uniform", config.few), note, config.frames),
        "bimodal": film(arrays["picture times"], both, config.frames),
    }
    found = {}
    for name, frames in films.items():
        ms = [80.0] * (2 * config.frames - 1)
        ms[config.frames - 1], ms[-1] = 600.0, 2000.0
        found[name] = plots.gif(list(frames), ms)
    return found


STUDY = Study(
    Config(),
    Config(
        paths=1000, steps=64, few=50, many=200, most=2000, kept=60, fine=128, counts=(8, 16, 32),
        fresh_steps=40, drawn=20, frames=4,
    ),
    compute,
    table,
    draw,
    "Which Brownian motion carries a diffusion back along its own path, and is it one?",
    animate,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
