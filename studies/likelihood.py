"""What is the likelihood of a point: exactly, along the flow, with probes, and by the bound?

Four ways to -log p_0(x) for every target of the gallery that has a density:

    exact       the law's own log-density
    flow        log p_T(x_T) + int div velocity dt, trace of the Jacobian exact     (`likelihood`)
    Hutchinson  the same with v.J v for the trace, E v v^T = I, a fixed v along a path
    bound       of a chain of K denoising steps, L_0 + ... + L_K >= -log p_model(x)     (`bounds`)

Along a path v.J v integrates to v.M v with M = int J dt symmetric, so that P probes have the
variance 2 |M|_F^2/P (Gaussian v) or 2 sum_(i != j) M_ij^2/P (Rademacher v: none on the line).

The bound of the exact model depends on a chain through tr Cov[X_0 | X_k] alone, and that on the
log-SNR alone.  Its mean over points is found once on a grid of log-SNRs, with the same points and
noise on all of them, and gives the bound of every chain by a cubic spline (column "best bound").
Its integral over log-SNR is known exactly, as the information gained, and takes most of the chance
of the points out.  `bounds.bound`, which draws noise for each of its terms, stands beside it.

The learned models are small networks on the two moons, trained at log(sigma/a) ~ N(-1, 1.2^2) as
EDM is: uniform times are mostly ones at which all laws look alike.  Their flows start at t =
`start`, where training did, and are held against the exact law of that time: KL = E[log p -
log p_model], each at true points of its own, so that the spread over networks holds that of the
points too.

The swiss roll of Sohl-Dickstein et al. 2015 (table 1: "K 2.35 bits, K - L_null 6.45 bits", L_null
that of an isotropic Gaussian of unit variance, data scaled by a constant to variance 1) is modelled
as the gallery's roll, scaled so that the mean of its two variances is 1.  K is read as bits a
point: E log2 N(x; 0, I) = -log2(2 pi e) = -4.094 when E|x|^2 = 2, and 2.35 + 4.094 = 6.444, which
rounds to within 0.01 of 6.45; no other reading comes near (table "readings").  A bound on log
p_model is at most -H, so that K = 2.35 asks for a roll that is at least as thin as the one with
-H = 2.35 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import (
    VP,
    Chain,
    Network,
    Oracle,
    Transition,
    bounds,
    ensembles,
    gallery,
    likelihood,
    nets,
    plots,
    solvers,
    times,
)
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

BITS = math.log(2)
WITH_DENSITY = tuple(name for name in gallery.ALL if name != "empirical")
PROBES = ("rademacher", "gaussian")
SCHEDULES = ("cosine", "linear", "even log-SNR")
VARIANCES = ("btilde", "beta", "best")
SURE = (-9.0, 6.0)  # log-SNRs between which the information gained is found exactly, for `chance`
MOONS = "two_moons"  # what the network learns
K_PUBLISHED, GAIN_PUBLISHED = 2.35, 6.45  # bits: K and K - L_null of the swiss roll


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    targets : names in the gallery, of laws with a density.
    points : behind the mean of each target; few : for the sweep of tolerances and the probes;
        shown : in the table of single points.
    tolerances : relative and absolute, of dopri5; the last is that of the main table.
    probes : numbers of directions; probe_tolerance : of the flow with them.
    nodes, cloud : log-SNRs, and points, behind the bounds of all chains.
    steps : K of the chains; chain : K of the cosine chain of the main table, one of them.
    drawn, copies : points for `bounds.bound`, and copies of a single point.
    networks : trained side by side; train_steps, width, batch, snapshots : of each; start : t
        where its flow starts; learned : points of its own for its likelihood.
    pixels : along a side of the picture of the first.
    noises : of the swiss roll, in standard deviations of the data, decreasing.
    level : bits a point that -H of the roll shall have: the published K.
    """

    targets: tuple[str, ...] = WITH_DENSITY
    points: int = 100
    few: int = 32
    shown: int = 4
    tolerances: tuple[float, ...] = (1e-3, 1e-5, 1e-7, 1e-9)
    probes: tuple[int, ...] = (4, 16, 64, 256)
    probe_tolerance: float = 1e-6
    nodes: int = 97
    cloud: int = 500
    steps: tuple[int, ...] = (40, 100, 200, 400, 1000)
    chain: int = 200
    drawn: int = 1000
    copies: int = 200
    networks: int = 8
    train_steps: int = 4000
    width: int = 64
    batch: int = 256
    snapshots: tuple[int, ...] = (250, 500, 1000, 2000)
    start: float = 1e-3
    learned: int = 125
    pixels: int = 40
    noises: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01, 0.006, 0.004, 0.003, 0.002)
    level: float = K_PUBLISHED
    seed: int = 1

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in WITH_DENSITY:
                raise ArgumentError("targets", "name targets with a density", name)
        for name, least in (
            ("points", 10), ("few", 10), ("shown", 1), ("nodes", 10), ("cloud", 10), ("drawn", 10),
            ("copies", 2), ("networks", 2), ("train_steps", 1), ("width", 1), ("batch", 1),
            ("learned", 10), ("pixels", 2),
        ):  # fmt: skip
            whole(name, getattr(self, name), least)
        if max(self.few, self.shown) > self.points:
            raise ArgumentError("few", "be, like shown, at most points", (self.few, self.shown))
        falls = np.diff(self.tolerances) < 0
        if not len(falls) or not falls.all() or self.tolerances[-1] <= 0:
            raise ArgumentError("tolerances", "be two or more falling numbers", self.tolerances)
        number("probe_tolerance", self.probe_tolerance, 0, ends="()")
        if len(self.probes) < 2 or min(self.probes) < 2:
            raise ArgumentError("probes", "be two or more numbers >= 2", self.probes)
        if not self.steps or min(self.steps) < 30 or self.chain not in self.steps:
            raise ArgumentError("steps", f"be 30 or more and hold {self.chain}", self.steps)
        if any(not 0 <= step < self.train_steps for step in self.snapshots):
            raise ArgumentError("snapshots", "lie below train_steps", self.snapshots)
        number("start", self.start, 0, 0.1, "()")
        falls = np.diff(self.noises) < 0
        if len(falls) < 2 or not falls.all() or not 0 < self.noises[-1] < self.noises[0] < 1:
            raise ArgumentError("noises", "be three or more falling numbers in (0, 1)", self.noises)
        number("level", self.level)


# Flows ------------------------------------------------------------------------------------------


def exact_and_flow(
    config: Config, name: str, generator: Any, device: str = "cpu"
) -> dict[str, Any]:
    """Points, their exact log-density, and the flow's at every tolerance."""
    law = gallery.ALL[name]()
    oracle, x = Oracle(law, VP()), law.sample(config.points, generator)
    found = [
        likelihood.log_prob(oracle, x[: config.few], rtol=tolerance, atol=tolerance, device=device)
        for tolerance in config.tolerances[:-1]
    ]
    least = config.tolerances[-1]
    last = likelihood.log_prob(oracle, x, rtol=least, atol=least, device=device)
    swept = [*(f.log_prob for f in found), last.log_prob[: config.few]]
    return {
        "x": x, "exact": law.log_prob(x), "flow": last.log_prob, "entropy": law.entropy(),
        "swept": np.stack(swept), "evaluations": [f.evaluations for f in (*found, last)],
    }  # fmt: skip


def with_probes(config: Config, name: str, x: np.ndarray, run: Run) -> dict[str, Any]:
    """(law of v, number, (log-density, its error), point), and what the errors should be."""
    oracle, tolerance = Oracle(gallery.ALL[name](), VP()), config.probe_tolerance
    found = np.empty((len(PROBES), len(config.probes), 2, len(x)))
    for i, kind in enumerate(PROBES):
        for j, count in enumerate(config.probes):
            f = likelihood.log_prob(
                oracle, x, trace="hutchinson", probes=count, directions_of=kind,
                generator=run.generator(name, kind, count), rtol=tolerance, atol=tolerance,
                device=run.device,
            )  # fmt: skip
            found[i, j] = f.log_prob, f.error
    M = integrated_jacobian(oracle, x, tolerance, run.device)
    square, own = np.sum(M * M, axis=(1, 2)), np.sum(np.diagonal(M, axis1=1, axis2=2) ** 2, axis=1)
    spread = np.sqrt(2 * np.stack([np.maximum(square - own, 0.0), square]))
    return {"probed": found, "spread": spread}


def integrated_jacobian(
    oracle: Oracle, x: np.ndarray, tolerance: float, device: str = "cpu"
) -> np.ndarray:
    """int J dt along the flow from each point (n, D): (n, D, D)."""
    n, dim = x.shape

    def along(y: torch.Tensor, t: float) -> torch.Tensor:
        at = y[:, :dim].contiguous()
        J = likelihood.jacobian(oracle, at, t).reshape(n, dim * dim)
        return torch.cat([oracle.velocity(at, t), J], dim=1)

    begin = np.concatenate([x, np.zeros((n, dim * dim))], axis=1)
    times = [0.0, oracle.process.T]
    run = solvers.ode(along, begin, times, rtol=tolerance, atol=tolerance, device=device)
    return np.asarray(run.last)[:, dim:].reshape(n, dim, dim)


# Bounds -----------------------------------------------------------------------------------------


def chain_of(schedule: str, steps: int) -> Chain:
    """One of `SCHEDULES` with K steps: the last is `VP()` at log-SNRs even from 14 to -9."""
    if schedule == "cosine":
        return Chain.cosine(steps)
    if schedule == "linear":
        return Chain.linear(steps, 0.1 / steps, 20.0 / steps)
    levels = VP().time_of_log_snr(np.linspace(14.0, -9.0, steps))
    return Chain.of(VP(), np.concatenate([[0.0], levels]))


def uncertainty(law: Any, levels: np.ndarray, x0: np.ndarray, z: np.ndarray) -> np.ndarray:
    """SNR tr Cov[X_0 | X] at X = x0 + z/sqrt(SNR), (n, levels): E |eps - E eps|^2 in the mean."""
    rows = []
    for level in levels.tolist():
        step = Transition(1.0, math.exp(-level))
        trace = np.trace(law.posterior_cov(step.apply(x0, z), step), axis1=1, axis2=2)
        rows.append(math.exp(level) * trace)
    return np.stack(rows, axis=1)


def least_bound(
    chain: Chain, levels: np.ndarray, doubts: np.ndarray, x0: np.ndarray, variance: str
) -> np.ndarray:
    """Rows (n,) whose mean is the bound of the exact model, `doubts` being the `uncertainty`.

    variance : of `VARIANCES`. The best one for each step is btilde (1 + 2 w E|eps - E eps|^2/D),
        and E tr Cov[X_0 | X_1]/D at the last (Bao et al. 2022); its rows are linear about the mean.
    """
    from scipy.interpolate import CubicSpline

    k, dim = np.arange(1, chain.K + 1), x0.shape[1]
    beta, var = chain.betas, chain.var(k)
    small = beta * chain.var(k - 1) / var
    doubt = CubicSpline(levels, doubts, axis=1)(chain.log_snr(k))
    mean = doubt.mean(axis=0)
    first = var[0] / (1 - beta[0])  # times the doubt: E |x0 - E x0|^2 at k = 1
    scale = beta[1:] ** 2 / ((1 - beta[1:]) * var[1:])
    if variance == "best":
        part = scale / (dim * small[1:])
        free = 0.5 * dim * (np.sum(np.log1p(part * mean[1:])) + math.log(first * mean[0] / dim))
        free += 0.5 * dim * (math.log(2 * math.pi) + 1)
        slope = 0.5 * dim * np.append(1 / mean[0], part / (1 + part * mean[1:]))
        rows = free + (doubt - mean) @ slope
    else:
        s2 = bounds.variances(chain, VARIANCES.index(variance))
        ratio = small[1:] / s2[1:]
        free = 0.5 * dim * (np.sum(ratio - 1 - np.log(ratio)) + math.log(2 * math.pi * s2[0]))
        rows = free + doubt @ (0.5 * np.append(first / s2[0], scale / s2[1:]))
    last = chain.alpha(chain.K) ** 2 * np.sum(x0 * x0, axis=1)
    return np.asarray(rows + 0.5 * (last + dim * (var[-1] - 1 - math.log(var[-1]))))


def information(law: Any, level: float) -> float:
    """I(X_0; X) in nats at a log-SNR: h(X) - h(noise) for X = X_0 + sigma z, sigma^2 = 1/SNR."""
    sigma = math.exp(-0.5 * level)
    noise = 0.5 * law.dim * math.log(2 * math.pi * math.e * sigma * sigma)
    return float(law.blurred(sigma).entropy()) - noise


def chance(law: Any, levels: np.ndarray, doubts: np.ndarray, known: float) -> np.ndarray:
    """Rows (n,) of mean 0 that hold most of the chance of `least_bound`, whatever the chain.

    In the mean 1/2 int doubt d log-SNR is the information gained (Guo, Shamai and Verdu 2005), here
    `known` between the log-SNRs `SURE`; the sum over the steps of a chain is close to the integral.
    """
    from scipy.interpolate import CubicSpline

    gained = CubicSpline(levels, doubts, axis=1).integrate(*SURE)
    return np.asarray(0.5 * gained - known)


def bounds_of_chains(
    config: Config, law: Any, levels: np.ndarray, doubts: np.ndarray, x0: np.ndarray
) -> np.ndarray:
    """`least_bound` in nats without its `chance`, (schedule, K, variance, (mean, its error))."""
    low, high = (information(law, level) for level in SURE)
    off = chance(law, levels, doubts, high - low)
    found = [
        mean_and_error(least_bound(chain_of(s, K), levels, doubts, x0, v) - off)
        for s in SCHEDULES
        for K in config.steps
        for v in VARIANCES
    ]
    return np.reshape(found, (len(SCHEDULES), len(config.steps), len(VARIANCES), 2))


def levels_of(config: Config) -> np.ndarray:
    """Log-SNRs that hold those of all chains."""
    own = [chain_of(s, K).log_snr(np.arange(1, K + 1)) for s in SCHEDULES for K in config.steps]
    return np.linspace(min(map(np.min, own)), max(map(np.max, own)), config.nodes)


def bounded(config: Config, name: str, x: np.ndarray, run: Run) -> dict[str, Any]:
    """The best bound of every chain; `bounds.bound` on one of them, in the mean and by point."""
    law, levels = gallery.ALL[name](), levels_of(config)
    x0 = law.sample(config.cloud, run.generator(name, "cloud"))
    z = run.generator(name, "noise").standard_normal(x0.shape)
    doubts = uncertainty(law, levels, x0, z)
    best = bounds_of_chains(config, law, levels, doubts, x0)
    oracle = Oracle(law, chain_of("cosine", config.chain))
    drawn = bounds.bound(
        oracle, law.sample(config.drawn, run.generator(name, "data")), run.generator(name, "bound")
    )
    rows = []
    for i, point in enumerate(x):
        copies = np.repeat(point[None], config.copies, axis=0)
        b = bounds.bound(oracle, copies, run.generator(name, "point", i))
        rows.append((b.total, b.error))
    return {"best": best, "drawn": [drawn.total, drawn.error], "by point": rows}


# The network ------------------------------------------------------------------------------------


def learn(
    config: Config, weights: list[int], noise: list[int], device: str = "cpu"
) -> dict[str, np.ndarray]:
    """The averaged weights after the trainings, and at the snapshots the plain ones: "k step name".

    weights, noise : seeds of the networks, which are trained side by side.
    """
    models = [
        Network(nets.MLP(2, widths=(config.width,) * 3, seed=seed).to(device), VP(), predicts="v")
        for seed in weights
    ]
    histories = ensembles.together(
        models, gallery.ALL[MOONS](), steps=config.train_steps, seeds=noise, batch=config.batch,
        rate=1e-2, final_rate=1e-5, ema=0.998, snapshots=config.snapshots,
        times=times.log_normal(VP(), -1.0, 1.2, earliest=config.start),
    )  # fmt: skip
    if histories[0].interrupted:
        raise KeyboardInterrupt
    return {
        f"{k} {step} {name}": value.cpu().numpy()
        for k, history in enumerate(histories)
        for step, state in {**history.snapshots, config.train_steps: history.ema}.items()
        if state is not None
        for name, value in state.items()
    }


def network(
    config: Config, weights: dict[str, np.ndarray], k: int, step: int, device: str = "cpu"
) -> Network:
    """Network k with the weights of a step, in float64."""
    net = nets.MLP(2, widths=(config.width,) * 3)
    prefix = f"{k} {step} "
    own = {key.removeprefix(prefix): v for key, v in weights.items() if key.startswith(prefix)}
    net.load_state_dict({name: torch.as_tensor(value) for name, value in own.items()})
    return Network(net.double().to(device), VP(), predicts="v")


def learned(
    config: Config, weights: dict[str, np.ndarray], k: int, run: Run
) -> dict[str, np.ndarray]:
    """Of network k: exact and learned log p_start of true points of its own at every snapshot, a
    picture, and bounds, its own and that of the exact model."""
    law, generator = gallery.ALL[MOONS](), run.generator("net", k)
    exact = Oracle(law, VP()).at(config.start)
    x = exact.sample(config.learned, generator)

    def of(model: Network, x: np.ndarray) -> np.ndarray:
        found = likelihood.log_prob(
            model, x, start=config.start, rtol=1e-5, atol=1e-5, device=run.device
        )
        return found.log_prob

    steps = [*config.snapshots, config.train_steps]
    models = [network(config, weights, k, step, run.device) for step in steps]
    chain = chain_of("even log-SNR", config.chain)
    clock = np.concatenate([[0.0], VP().time_of_log_snr(np.linspace(14.0, -9.0, config.chain))])
    on_chain = Network(
        models[-1].net, chain, "v", time=lambda k: torch.as_tensor(clock)[k.to(torch.int64)]
    )
    x0 = law.sample(config.learned, generator)
    totals = [
        bounds.bound(model, x0, run.seed_for("bound", k, i), mix=1.0).total  # s^2 = beta
        for i, model in enumerate((on_chain, Oracle(law, chain)))
    ]
    found = {"exact": exact.log_prob(x), "learned": np.stack([of(model, x) for model in models])}
    if k == 0:
        window = picture(config.pixels)
        found["window exact"], found["window learned"] = (
            exact.log_prob(window),
            of(models[-1], window),
        )
    return found | {"bounds": np.array(totals)}


def networks(config: Config, run: Run) -> dict[str, np.ndarray]:
    """`learned` of all networks, (networks, ...), and the entropies of the data and at `start`."""
    every = range(config.networks)
    seeds = [[run.seed_for(word, k) for k in every] for word in ("weights", "training")]
    weights = run.cell("networks", learn, config, *seeds, run.device)
    rows = [run.cell(f"learned {k}", learned, config, weights, k, run) for k in every]
    found = {name: np.stack([row[name] for row in rows]) for name in ("exact", "learned", "bounds")}
    found |= {name: rows[0][name] for name in ("window exact", "window learned")}
    law = gallery.ALL[MOONS]()
    start = Oracle(law, VP()).at(config.start)
    return found | {"entropy": np.array([law.entropy(), start.entropy()])}


def picture(pixels: int) -> np.ndarray:
    """Centres of the pixels of BOX, (pixels^2, 2), rows from the bottom."""
    left, right, bottom, top = BOX
    u = (np.arange(pixels) + 0.5) / pixels
    grid = np.meshgrid(left + (right - left) * u, bottom + (top - bottom) * u)
    return np.stack(grid, axis=-1).reshape(-1, 2)


BOX = (-1.6, 2.6, -1.2, 1.7)


# The swiss roll of 2015 -------------------------------------------------------------------------


def roll(noise: float) -> Any:
    """The swiss roll scaled by a constant to variance 1, its noise in the scaled units."""
    bare = float(np.trace(gallery.swiss_roll(0.0, 1.0).cov)) / 2
    return gallery.swiss_roll(noise, math.sqrt((1 - noise * noise) / bare))


def bits(noise: float) -> float:
    """-H of the roll, in bits a point: what no model's log-likelihood exceeds in the mean."""
    return -float(roll(noise).entropy()) / BITS


def whitening_bits(noise: float) -> float:
    """What -H gains where the data are made of unit covariance."""
    return 0.5 * math.log2(float(np.linalg.det(roll(noise).cov)))


def noise_for(config: Config, exact: np.ndarray, wanted: float, whitened: bool = False) -> float:
    """The noise at which -H is as wanted, by a spline of -H + log2(noise) in log(noise).

    For a thin roll that sum is nearly constant. exact : -H at the noises of the config.
    """
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    u = np.log(config.noises[::-1])
    spline = CubicSpline(u, exact[::-1] + u / BITS)

    def off(u: float) -> float:
        more = whitening_bits(math.exp(u)) if whitened else 0.0
        return float(spline(u)) - u / BITS + more - wanted

    ends = [off(u[0]), off(u[-1])]
    if ends[0] < 0 or ends[1] > 0:
        raise ArgumentError("noises", f"hold the one at which -H is {wanted:.4g}", config.noises)
    return float(math.exp(brentq(off, u[0], u[-1], xtol=1e-9)))


def null_bits(centred: bool = True) -> float:
    """E log2 N(x; 0, I) of the scaled roll: E|x|^2 = 2, and |mean|^2 more if it is not centred."""
    mean = np.asarray(roll(0.0).mean)
    squared = 2.0 + (0.0 if centred else float(mean @ mean))
    return -math.log2(2 * math.pi) - 0.5 * squared / BITS


def thin_roll(noise: float) -> dict[str, Any]:
    """-H of the roll at a noise."""
    return {"bits": bits(noise)}


def roots(config: Config, run: Run) -> dict[str, Any]:
    """The noise at which -H is K and (K - L_null) + L_null, and at the ends of their roundings.

    own : -H at the first of them, not by the spline.
    """
    exact = np.array([float(run.cell(f"roll {n:g}", thin_roll, n)["bits"]) for n in config.noises])
    wanted = config.level + GAIN_PUBLISHED + null_bits() - K_PUBLISHED
    ends = (config.level - 0.005, config.level + 0.005, wanted - 0.005, wanted + 0.005)
    asked = (config.level, wanted, *ends)
    scaled = [noise_for(config, exact, k) for k in asked]
    law = roll(scaled[0])
    return {
        "asked": asked, "scaled": scaled,
        "whitened": [noise_for(config, exact, k, True) for k in asked[:2]],
        "null": [null_bits(), null_bits(False)],
        "cov": law.cov, "mean": law.mean, "exact": exact,
        "own": run.cell("roll found", thin_roll, scaled[0])["bits"],
        "sample": law.sample(2000, run.generator("roll", "sample")),
    }  # fmt: skip


def roll_bounds(config: Config, noises: Sequence[float], run: Run) -> dict[str, Any]:
    """-bound of the exact model in bits a point: (noise, schedule, K, variance, (mean, error))."""
    levels, found = levels_of(config), []
    z = run.generator("roll", "noise").standard_normal((config.cloud, 2))
    for noise in noises:
        law = roll(noise)
        x0 = law.sample(config.cloud, run.seed_for("roll"))
        rows = bounds_of_chains(config, law, levels, uncertainty(law, levels, x0, z), x0)
        found.append(rows / np.array([-BITS, BITS]))
    return {"bounds": found}


def compute(config: Config, run: Run) -> dict[str, Any]:
    """All targets, the network, and the swiss roll of 2015."""
    arrays: dict[str, Any] = {}

    def keep(name: str, found: dict[str, Any]) -> None:
        arrays.update({f"{name} {key}": value for key, value in found.items()})

    for name in run.progress(config.targets, "targets"):
        own = run.generator(name)
        found = run.cell(f"{name} flow", exact_and_flow, config, name, own, run.device)
        keep(name, found)
        x = found["x"]
        keep(name, run.cell(f"{name} probes", with_probes, config, name, x[: config.few], run))
        keep(name, run.cell(f"{name} bounds", bounded, config, name, x[: config.shown], run))
    keep("net", networks(config, run))
    keep("roll", roots(config, run))
    noises = [*config.noises, float(arrays["roll scaled"][0])]
    keep("roll", run.cell("roll bounds", roll_bounds, config, noises, run))
    return arrays


# Tables -----------------------------------------------------------------------------------------


def of(arrays: dict[str, np.ndarray], name: str, key: str) -> Any:
    """An array of a target."""
    return arrays[f"{name} {key}"]


def dim_of(arrays: dict[str, np.ndarray], name: str) -> int:
    """D of a target."""
    return int(of(arrays, name, "x").shape[1])


def main_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """-log p in the mean of each target by every way."""
    found = []
    place = (SCHEDULES.index("cosine"), config.steps.index(config.chain))
    for name in config.targets:
        exact, flow, entropy = (of(arrays, name, key) for key in ("exact", "flow", "entropy"))
        probed, error = of(arrays, name, "probed")[0, -1]
        mean, spread = mean_and_error(-exact)
        drawn, drawn_error = of(arrays, name, "drawn").tolist()
        best, best_error = of(arrays, name, "best")[place][0].tolist()
        bits = dim_of(arrays, name) * BITS
        off = probed - exact[: len(probed)]
        row: dict[str, Any] = {"target": name, "D": dim_of(arrays, name), "entropy": float(entropy)}
        row |= {"points": len(exact), "-log p, exact": mean, "error over points": spread}
        row |= {"-log p, flow": -flow.mean(), "largest |flow - exact|": np.abs(flow - exact).max()}
        row |= {f"Hutchinson - exact, {config.probes[-1]} probes, {config.few} points": off.mean()}
        row |= {"error of it": math.sqrt(np.sum(error**2)) / len(error)}
        row |= {f"bound, cosine K = {config.chain}": drawn, "error of bound": drawn_error}
        row |= {"best bound": best, "error of best bound": best_error}
        row |= {"entropy, bits/dim": float(entropy) / bits, "flow, bits/dim": -flow.mean() / bits}
        found.append(row | {"bound, bits/dim": drawn / bits})
    return found


def points_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Single points of each target by every way."""
    found = []
    for name in config.targets:
        x, bits = of(arrays, name, "x"), dim_of(arrays, name) * BITS
        for i in range(config.shown):
            exact, flow = (float(of(arrays, name, key)[i]) for key in ("exact", "flow"))
            row: dict[str, Any] = {"target": name, "x": f"({', '.join(f'{v:.4f}' for v in x[i])})"}
            row |= {"-log p, exact": -exact, "flow - exact": flow - exact}
            for kind, (value, error) in zip(
                PROBES, of(arrays, name, "probed")[:, -1, :, i], strict=True
            ):
                row |= {f"-log p, {kind}": -value, f"error, {kind}": error}
            bound, error = of(arrays, name, "by point")[i].tolist()
            row |= {"bound": bound, "error of bound": error}
            row |= {"exact, bits/dim": -exact / bits, "bound, bits/dim": bound / bits}
            found.append(row)
    return found


def sweep_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Error of the flow by tolerance."""
    found = []
    for name in config.targets:
        exact = of(arrays, name, "exact")[: config.few]
        for i, tolerance in enumerate(config.tolerances):
            off = np.abs(of(arrays, name, "swept")[i] - exact)
            row: dict[str, Any] = {"target": name, "tolerance": tolerance}
            row["evaluations"] = int(of(arrays, name, "evaluations")[i])
            found.append(row | {"median error": np.median(off), "largest error": off.max()})
    return found


def z_scores(config: Config, arrays: dict[str, np.ndarray], name: str, i: int) -> np.ndarray:
    """(estimate - exact)/(its true standard deviation), for every number of probes and point.

    Where v.M v does not vary (Rademacher on the line) there is none.
    """
    spread = of(arrays, name, "spread")[i]
    off = of(arrays, name, "probed")[i, :, 0] - of(arrays, name, "exact")[: spread.size]
    some = spread > 1e-3
    true = spread[some] / np.sqrt(np.array(config.probes, float))[:, None]
    return np.asarray(off[:, some] / true)


def probes_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Standard errors against the number of probes, and z-scores."""
    found = []
    for name in config.targets:
        for i, kind in enumerate(PROBES):
            z, spread = z_scores(config, arrays, name, i), of(arrays, name, "spread")[i]
            for j, count in enumerate(config.probes):
                error = of(arrays, name, "probed")[i, j, 1]
                row: dict[str, Any] = {"target": name, "v": kind, "probes": count}
                row |= {"standard error, rms": math.sqrt(np.mean(error**2))}
                row |= {"theory": math.sqrt(np.mean(spread**2) / count), "points": z.shape[1]}
                ok = z.shape[1] > 1
                row |= {"z, mean": z[j].mean() if ok else math.nan}
                row |= {"z, standard deviation": z[j].std(ddof=1) if ok else math.nan}
                found.append(row | {"z, largest": np.abs(z[j]).max() if ok else math.nan})
    return found


def bounds_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The best bound of every chain minus the entropy."""
    found = []
    for name in config.targets:
        entropy, bits = float(of(arrays, name, "entropy")), dim_of(arrays, name) * BITS
        for place in np.ndindex(*of(arrays, name, "best").shape[:-1]):
            value, error = of(arrays, name, "best")[place].tolist()
            row: dict[str, Any] = {"target": name, "schedule": SCHEDULES[place[0]]}
            row |= {"K": config.steps[place[1]], "variance": VARIANCES[place[2]]}
            row |= {"best bound": value, "error": error, "bound - entropy": value - entropy}
            found.append(row | {"bound - entropy, bits/dim": (value - entropy) / bits})
    return found


def kl_of(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """KL(p, model) at every snapshot, with its standard error over networks."""
    found = arrays["net exact"][:, None] - arrays["net learned"]
    mean, error = mean_and_error(found.mean(axis=2), axis=0)
    return np.asarray(mean), np.asarray(error)


def learned_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Likelihood of the networks by training step; bounds at the end; errors over networks."""
    kl, kl_error = kl_of(arrays)
    bits = 2 * BITS
    found = []
    for i, step in enumerate((*config.snapshots, config.train_steps)):
        value, error = mean_and_error(-arrays["net learned"][:, i].mean(axis=1))
        row: dict[str, Any] = {"training steps": step, "-log p, flow": value, "error": error}
        row |= {"entropy of the truth": float(arrays["net entropy"][1])}
        row |= {"KL": kl[i], "error of KL": kl_error[i], "KL, bits/dim": kl[i] / bits}
        last = step == config.train_steps
        for j, kind in enumerate(("network", "exact")):
            bound, own = mean_and_error(arrays["net bounds"][:, j]) if last else (math.nan,) * 2
            row |= {f"bound, {kind}": bound, f"error of bound, {kind}": own}
        found.append(row)
    return found


def readings(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What K - L_null would be if K = 2.35 were meant so, beside the 6.45 of the paper."""
    centred, off_centre = arrays["roll null"].tolist()
    half = -math.log2(2 * math.pi) - 0.5 / BITS  # each coordinate of variance 1/2
    meant = {
        "bits a point, variance 1, centred": centred,
        "bits a point, variance 1, not centred": off_centre,
        "bits a point, variances add to 1": half,
        "bits a dimension, variance 1, centred": centred / 2,
        "nats a point, variance 1, centred": centred * BITS,
    }
    return [
        {"reading": name, "L_null": null, "K - L_null": K_PUBLISHED - null,
         "published": GAIN_PUBLISHED, "difference": K_PUBLISHED - null - GAIN_PUBLISHED}
        for name, null in meant.items()
    ]  # fmt: skip


def roll_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The noise at which -H meets the two published numbers."""
    asked, scaled = arrays["roll asked"], arrays["roll scaled"]
    names = (
        f"K = {config.level:g}",
        f"K - L_null = {config.level + GAIN_PUBLISHED - K_PUBLISHED:g}",
    )
    found = []
    for i, name in enumerate(names):
        low, high = sorted(scaled[2 + 2 * i : 4 + 2 * i].tolist())
        row: dict[str, Any] = {"published": name, "-H wanted / bits": asked[i], "noise": scaled[i]}
        row |= {"least noise within rounding": low, "largest": high}
        row |= {"-H there": float(arrays["roll own"]) if i == 0 else math.nan}
        found.append(row | {"noise, data made of unit covariance": arrays["roll whitened"][i]})
    return found


def roll_bounds_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What the best model of each chain reaches, in bits a point."""
    found = []
    exact = [*arrays["roll exact"].tolist(), float(arrays["roll own"])]
    noises = [*config.noises, float(arrays["roll scaled"][0])]
    for place in np.ndindex(*arrays["roll bounds"].shape[:-1]):
        value, error = arrays["roll bounds"][place].tolist()
        row: dict[str, Any] = {"noise": noises[place[0]], "schedule": SCHEDULES[place[1]]}
        row |= {"K": config.steps[place[2]], "variance": VARIANCES[place[3]]}
        row |= {"bound": value, "error": error, "-H": exact[place[0]]}
        found.append(row | {"short of -H by": exact[place[0]] - value})
    return found


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Means; points; tolerances; probes; chains; the network; the swiss roll of 2015."""
    import pandas as pd

    found = {
        "": main_table(config, arrays), "points": points_table(config, arrays),
        "sweep": sweep_table(config, arrays), "probes": probes_table(config, arrays),
        "bounds": bounds_table(config, arrays), "learned": learned_table(config, arrays),
        "readings": readings(config, arrays), "roll": roll_table(config, arrays),
        "roll_bounds": roll_bounds_table(config, arrays),
    }  # fmt: skip
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


# Figures ----------------------------------------------------------------------------------------

MARKS = "osD^v<>Pph"


def words(name: str) -> str:
    """A name without underscores."""
    return name.replace("_", " ")


def look(config: Config, name: str) -> dict[str, Any]:
    """Colour and mark of a target."""
    i = config.targets.index(name)
    return {"color": plots.COLORS[i % 10], "marker": MARKS[i % 10], "ms": 3.5, "lw": 1.1}


def draw_main(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Flow, probes and bound: how far from the exact log-density, and at what cost."""
    fig, axes = plots.figure(1, 3, height=4.5)
    flow, probes, bound = axes[0]
    place = (SCHEDULES.index("cosine"), slice(None), 0)
    for name in config.targets:
        exact = of(arrays, name, "exact")[: config.few]
        off = np.abs(of(arrays, name, "swept") - exact).max(axis=1)
        flow.plot(of(arrays, name, "evaluations"), off, label=words(name), **look(config, name))
        error = np.sqrt(np.mean(of(arrays, name, "probed")[1, :, 1] ** 2, axis=-1))
        probes.plot(config.probes, error, **look(config, name))
        value, spread = of(arrays, name, "best")[place].T
        gap = value - float(of(arrays, name, "entropy"))
        bound.errorbar(config.steps, gap, spread, capsize=1.5, **look(config, name))
    flow.axhline(1e-6, color="0.6", lw=0.8, zorder=0)
    flow.set(xscale="log", yscale="log", xlabel="evaluations", ylabel="largest error / nats")
    flow.set_title("flow, exact trace", fontsize=10)
    ticked(flow, [50, 100, 200, 400])
    n = np.array(config.probes, float)
    probes.plot(n, 3 / np.sqrt(n), color="0.6", lw=0.8, zorder=0, label="slope −1/2")
    probes.set(xscale="log", yscale="log", xlabel="probes", ylabel="standard error / nats")
    probes.set_title("flow, Gaussian probes", fontsize=10)
    ticked(probes, config.probes)
    bound.set(xscale="log", yscale="log", xlabel="steps K", ylabel="bound − entropy / nats")
    bound.set_title("best bound, cosine, $s^2 = \\tilde\\beta$", fontsize=10)
    ticked(bound, config.steps)
    plots.legend_below(fig, flow, probes, columns=4)
    fig.suptitle("Three ways to the exact log-density of every target", fontsize=11)
    return fig


def ticked(ax: Axes, values: Sequence[int]) -> None:
    """These numbers and no others under a logarithmic axis."""
    ax.set_xticks(values, [str(v) for v in values])
    ax.set_xticks([], minor=True)


def draw_points(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Exact against estimated -log p of single points."""
    columns = min(5, len(config.targets))
    rows = math.ceil(len(config.targets) / columns)
    fig, axes = plots.figure(rows, columns, height=2.3 * rows + 1.0)
    for ax, name in zip(axes.flat, config.targets, strict=False):
        exact = -of(arrays, name, "exact")
        ax.plot([exact.min(), exact.max()], [exact.min(), exact.max()], color="0.6", lw=0.8)
        few = exact[: config.few]
        for i, j in ((1, 1), (1, -1)):
            value, error = of(arrays, name, "probed")[i, j]
            ax.errorbar(
                few, -value, error, fmt="o", ms=2, lw=0.6, color=plots.COLORS[1 if j == 1 else 2],
                label=f"flow, {config.probes[j]} Gaussian probes ± error", alpha=0.8,
            )  # fmt: skip
        ax.plot(
            exact, -of(arrays, name, "flow"), ".", ms=2.5, color="black", label="flow, exact trace"
        )
        value, error = of(arrays, name, "by point").T
        ax.errorbar(
            exact[: config.shown], value, error, fmt="D", ms=3.5, color=plots.COLORS[0],
            label=f"bound, cosine K = {config.chain}",
        )  # fmt: skip
        ax.set_title(words(name), fontsize=9)
        ax.tick_params(labelsize=7.5)
    for ax in axes.flat[len(config.targets) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("exact / nats", fontsize=9)
    for ax in axes[:, 0]:
        ax.set_ylabel("estimate / nats", fontsize=9)
    plots.legend_below(fig, axes[0, 0], columns=2)
    fig.suptitle("−log p of single points", fontsize=11)
    return fig


def draw_probes(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Standard errors against theory, and z-scores."""
    fig, axes = plots.figure(1, 2, height=4.2)
    left, right = axes[0]
    every = []
    for i, kind in enumerate(PROBES):
        for name in config.targets:
            spread = of(arrays, name, "spread")[i]
            if np.all(spread < 1e-3):
                continue
            error = np.sqrt(np.mean(of(arrays, name, "probed")[i, :, 1] ** 2, axis=-1))
            theory = np.sqrt(np.mean(spread**2) / np.array(config.probes, float))
            left.plot(theory, error, "os"[i], ms=3.5, color=plots.COLORS[i], label=f"{kind} v")
            every.append(z_scores(config, arrays, name, i)[-1])
    left.plot([1e-3, 10], [1e-3, 10], color="0.6", lw=0.8, label="equal", zorder=0)
    left.set(
        xscale="log", yscale="log", xlabel="theory / nats", ylabel="standard error, rms / nats"
    )
    left.set_title("of every target and number of probes", fontsize=10)
    z = np.concatenate(every)
    edges = np.linspace(-5, 5, 41)
    right.hist(
        z, edges, density=True, color=plots.COLORS[0], alpha=0.5, label=f"{z.size} estimates"
    )
    x = np.linspace(-5, 5, 201)
    right.plot(x, np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi), color="black", label="N(0, 1)")
    right.set(xlabel="(estimate − exact)/standard deviation", ylabel="density")
    right.set_title(
        f"{config.probes[-1]} probes: mean {z.mean():.2f}, deviation {z.std():.2f}",
        fontsize=10,
    )
    plots.legend_below(fig, left, right, columns=5)
    fig.suptitle("The Skilling–Hutchinson estimator along the exact flow", fontsize=11)
    return fig


def draw_bounds(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Best bounds of all chains."""
    fig, axes = plots.figure(len(VARIANCES), len(SCHEDULES), height=7.6, share=True)
    for (i, j), ax in np.ndenumerate(axes):
        for name in config.targets:
            value, error = of(arrays, name, "best")[j, :, i].T
            gap = value - float(of(arrays, name, "entropy"))
            ax.errorbar(
                config.steps, gap, error, capsize=1.5, label=words(name), **look(config, name)
            )
        ax.set(xscale="log", yscale="log", ylim=(3e-4, 60))
        ticked(ax, config.steps)
        ax.tick_params(axis="x", labelsize=8)
    for ax, schedule in zip(axes[0], SCHEDULES, strict=True):
        ax.set_title(schedule, fontsize=10)
    names = ("$s^2 = \\tilde\\beta$", "$s^2 = \\beta$", "best $s^2$")
    for ax, variance in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(f"{variance}\nbound − entropy / nats")
    for ax in axes[-1]:
        ax.set_xlabel("steps K")
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle("The best bound that a chain of K steps allows any model", fontsize=11)
    return fig


def draw_learned(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Exact and learned log-density of the two moons, and KL by training step."""
    fig, axes = plots.figure(2, 2, height=6.4)
    n = config.pixels
    exact, own = (arrays[f"net window {key}"].reshape(n, n) for key in ("exact", "learned"))
    top = float(exact.max())
    for ax, values, name in (
        (axes[0, 0], exact, "exact"),
        (axes[0, 1], own, "first network, by its flow"),
    ):
        image = ax.imshow(
            np.clip(values - top, -12, 0), extent=BOX, origin="lower", cmap=plots.DENSITY, vmin=-12,
            vmax=0, aspect="auto",
        )  # fmt: skip
        ax.set_title(f"log p, {name}", fontsize=10)
        fig.colorbar(image, ax=ax, label="nats below the maximum")
    gap = np.where(exact > top - 12, own - exact, np.nan)
    image = axes[1, 0].imshow(
        gap, extent=BOX, origin="lower", cmap=plots.DIVERGING, vmin=-2, vmax=2, aspect="auto"
    )
    axes[1, 0].set_title("network − exact, where p is above e⁻¹² of its maximum", fontsize=9)
    fig.colorbar(image, ax=axes[1, 0], label="nats", extend="both")
    for ax in axes.flat[:3]:
        ax.grid(False)
        ax.set(xlabel="$x_1$", ylabel="$x_2$")
    kl, error = kl_of(arrays)
    steps = (*config.snapshots, config.train_steps)
    axes[1, 1].errorbar(steps, kl, error, fmt="o-", capsize=2, color=plots.COLORS[0])
    axes[1, 1].set(
        xscale="log", yscale="log", xlabel="training steps", ylabel="KL(p, network) / nats"
    )
    ticked(axes[1, 1], steps)
    axes[1, 1].tick_params(axis="x", labelsize=8)
    axes[1, 1].set_title(f"KL ± standard error, {config.networks} networks", fontsize=10)
    fig.suptitle("Two moons, exact and learned", fontsize=11)
    return fig


def draw_roll(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The roll whose -H is 2.35 bits, and what chains of K steps reach at every noise."""
    fig, axes = plots.figure(1, 2, height=4.6)
    left, right = axes[0]
    noise = float(arrays["roll scaled"][0])
    left.plot(*arrays["roll sample"].T, ".", ms=1.5, color="black")
    left.set(aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    left.set_title(f"scaled roll, noise {noise:.4f}", fontsize=10)
    null = float(arrays["roll null"][0])
    right.plot(config.noises, arrays["roll exact"], color="black", lw=1.8, label="−H, exact")
    right.plot([noise], [config.level], "o", color="black", ms=5)
    steps = (config.steps[0], config.steps[-1])
    for i, schedule in enumerate(SCHEDULES):
        for K, style in zip(steps, ("--", "-"), strict=True):
            rows = arrays["roll bounds"][:-1, i, config.steps.index(K), 2]
            right.errorbar(
                config.noises, rows[:, 0], rows[:, 1], ls=style, marker="os^"[i], ms=3, lw=1.1,
                capsize=1.5, color=plots.COLORS[i], label=f"bound, {schedule}, K = {K}",
            )  # fmt: skip
    name = f"{'published ' * (config.level == K_PUBLISHED)}K = {config.level:g} bits"
    right.axhline(config.level, color=plots.COLORS[4], lw=1.0, label=name)
    right.axhline(null, color="0.6", lw=1.0, ls=":", label="Gaussian N(0, I), −4.09 bits")
    right.set(xscale="log", xlabel="noise / standard deviation of the data")
    right.set(ylabel="log-likelihood / bits a point", ylim=(null - 0.4, None))
    right.set_title("exact, and best bounds (best $s^2$)", fontsize=10)
    plots.legend_below(fig, right, columns=3)
    fig.suptitle("The swiss roll of Sohl-Dickstein et al. 2015", fontsize=11)
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Three ways; points; probes; bounds; the network; the swiss roll of 2015."""
    return {
        "": draw_main(config, arrays), "points": draw_points(config, arrays),
        "probes": draw_probes(config, arrays), "bounds": draw_bounds(config, arrays),
        "learned": draw_learned(config, arrays), "roll": draw_roll(config, arrays),
    }  # fmt: skip


STUDY = Study(
    Config(),
    Config(
        targets=("julia_bimodal", "julia_trimodal", "rings"), points=30, few=10, shown=2,
        tolerances=(1e-3, 1e-5, 1e-7), probes=(4, 16), probe_tolerance=1e-4, nodes=33, cloud=50,
        steps=(40, 100), chain=100, drawn=50, copies=16, networks=2, train_steps=150,
        width=32, batch=128, snapshots=(50,), learned=40, pixels=8, noises=(0.4, 0.2, 0.1),
        level=-3.0,
    ),
    compute,
    table,
    draw,
    "What is the likelihood of a point: exactly, along the flow, with probes, and by the bound?",
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
