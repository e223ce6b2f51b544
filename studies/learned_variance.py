"""Does a learned reverse variance find the exact one, and what does it buy at few steps?

A chain steps back from k to k - 1 by N(mean(x_k), S), and the variational bound in nats,

    bound = sum of E KL(q(x_(k-1) | x_k, x0) || N(mean, S)) + ...  >=  -E log p_model  >=  entropy

is least where S = Cov[x_(k-1) | x_k] + c^2 d d^T, d the error of the model's x0 (`variances`). Here

    btilde, beta   the two ends, right for a single point and for N(0, I)       (Ho et al. 2020)
    analytic       the best number for each step, from E|eps|^2 of the model    (Bao et al. 2022);
                   the best with the exact mean, for a learned one leaves its error out
    learned        log S = v log beta + (1 - v) log btilde, v a network's       (Nichol and Dhariwal
                   2021, eq. 15), trained with L_simple + lambda L_vlb, the mean held fixed in
                   L_vlb; lambda = 0.001 as there, or 1
    diagonal, full the diagonal of the exact posterior covariance of the oracle, or all of it
    carried        the v of that diagonal on the long chain, used on a strided one: what the best
                   v of the long chain does there
    best           the least of all diagonals for the mean that is used: what `learned` aims at

each with the exact mean and with the learned one. Every term is an integral over x_k, given which
x0 is averaged exactly (`terms`): nothing is drawn, and errors are over trainings. A bound splits:

    bound - entropy = (steps that are not Gaussian; the diagonal) + error of the mean + of S

Chains.  All are strided from one of `long` steps, that of VP() at even times, with betas of their
own (Nichol and Dhariwal 2021, section 4); networks are trained on the long chain and see its time.
For k = 1, whose btilde is 0, btilde_2 is taken as an end; `analytic`, which may lie anywhere, is
kept above a thousandth of beta_1.

Times.  L_simple + 0.001 L_vlb, and the whole L_vlb, which teaches the mean too, are each trained
with even times and by importance, p_k ~ sqrt(E loss_k^2) (section 3.3 there), each row divided by
K p_k; the losses of all networks together make that law (`Shared`). L_simple + L_vlb, lambda = 1,
is trained with even times alone.

Samples start from N(0, I) and take the last step with its noise, as the bound has it; runs have
common starts and noise. They keep a learned variance within [btilde/10, 10 beta] (`within`), since
far from all data v may be anything; bounds have it as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import ensembles, gallery, grids, losses, metrics, nets, plots, samplers, train
from diffscience import variances as of_steps
from diffscience.chain import Chain
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import Estimate, mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.study import Run, Study, run_file
from diffscience.times import Adaptive
from diffscience.variances import Spread, Variance

Arrays = dict[str, np.ndarray]

CHOICES = ("btilde", "beta", "analytic", "learned", "carried", "diagonal", "full", "best")
STRONG = "hybrid, lambda = 1"
OBJECTIVES: dict[str, tuple[float | None, bool]] = {  # lambda, None for L_vlb alone; importance
    "hybrid": (1e-3, False),
    "hybrid, importance": (1e-3, True),
    STRONG: (1.0, False),
    "bound": (None, False),
    "bound, importance": (None, True),
}
WORDS = {"julia_bimodal": "two modes on a line", "eight_gaussians": "eight Gaussians"}
FLOOR = 1e-3  # share of the importance law that stays uniform, as in `times.Adaptive`


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    laws : names of mixtures in the gallery, D <= 2.
    long : steps of the chain that all others are strided from.
    lengths : increasing numbers of steps of the strided chains, `long` the last.
    few : of them, those that are sampled.
    seeds : networks, and samples, of each kind.
    width, train_steps, batch, rate, final_rate, ema : of networks (two layers) and trainings.
    samples : points of a run.
    """

    laws: tuple[str, ...] = ("julia_bimodal", "eight_gaussians")
    long: int = 40
    lengths: tuple[int, ...] = (10, 20, 40)
    few: tuple[int, ...] = (10, 20)
    seeds: int = 8
    width: int = 64
    train_steps: int = 1000
    batch: int = 256
    rate: float = 1e-2
    final_rate: float = 1e-4
    ema: float = 0.99
    samples: int = 2000
    seed: int = 31

    def __post_init__(self) -> None:
        for name in self.laws:
            law = gallery.ALL[name]() if name in gallery.ALL else None
            if not isinstance(law, GaussianMixture) or name == "empirical" or law.dim > 2:
                raise ArgumentError("laws", "name mixtures of the gallery with D <= 2", name)
        if not self.laws:
            raise ArgumentError("laws", "name a mixture", self.laws)
        whole("long", self.long, 3)
        if self.lengths[-1:] != (self.long,) or self.lengths[0] < 3 or not rising(self.lengths):
            raise ArgumentError("lengths", f"rise from 3 or more to {self.long}", self.lengths)
        if not self.few or not rising(self.few) or not set(self.few) <= set(self.lengths):
            raise ArgumentError("few", f"rise among {self.lengths}", self.few)
        least = {"seeds": 2, "width": 1, "train_steps": 1, "batch": 1, "samples": 10}
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        number("rate", self.rate, 0, ends="()")
        number("final_rate", self.final_rate, 0, self.rate, "(]")
        number("ema", self.ema, 0, 1, "[)")


def rising(values: tuple[int, ...]) -> bool:
    """Whether each is larger than the one before."""
    return all(a < b for a, b in zip(values[:-1], values[1:]))


QUICK = Config(
    laws=("julia_bimodal",), long=12, lengths=(4, 12), few=(4,), seeds=2, width=16,
    train_steps=20, batch=64, samples=100,
)  # fmt: skip


# ---------------------------------------------------------------- chains and models


def law_of(name: str) -> GaussianMixture:
    """A law by its name."""
    law: GaussianMixture = gallery.ALL[name]()
    return law


def times_of(config: Config, steps: int) -> np.ndarray:
    """The times of the long chain at which a strided one stops, rising from 0."""
    long = Chain.of(VP(), np.arange(config.long + 1) / config.long)
    return grids.strided(long, steps)[::-1]


def chain_of(config: Config, steps: int) -> Chain:
    """The strided chain."""
    return Chain.of(VP(), times_of(config, steps) / config.long)


def network_of(config: Config, steps: int, net: torch.nn.Module) -> Network:
    """A net on a strided chain, told the time of the long one; its second half is v."""
    seen = torch.as_tensor(times_of(config, steps) / config.long)

    def time(k: torch.Tensor) -> torch.Tensor:
        return seen.to(k.device)[k.long()]

    return Network(net, chain_of(config, steps), "eps", time, variance=True)


# ---------------------------------------------------------------- trainings


def whole_bound(
    network: Network, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """K L_t of each row, (n,), which teaches mean and variance; `variances.hybrid` has its like.

    Its mean over even times is the bound without L_K.
    """
    chain: Any = network.process
    k, low = np.arange(1, chain.K + 1), np.log(chain.variances())
    share = chain.betas / chain.var(k)
    c, small = chain.alpha(k - 1) * share, chain.var(k - 1) * share
    rest = np.append(math.log(2 * math.pi), -1 - np.log(small[1:]))  # a log-density for k = 1
    table = np.stack([low, np.log(chain.betas) - low, c, small, rest], axis=-1)
    guess, half = network.x0_and_half(losses.noised(chain, x0, t, noise), t)
    rows = torch.as_tensor(table).to(guess)[t.long() - 1]
    low_t, width, c_t, small_t, rest_t = (rows[:, i : i + 1] for i in range(5))
    log_s2 = low_t + 0.5 * (1 + half) * width
    moments = (small_t + (c_t * (x0 - guess)) ** 2) * torch.exp(-log_s2)
    return 0.5 * chain.K * (log_s2 + moments + rest_t).sum(dim=-1)


def loss_of(objective: str) -> losses.Loss:
    """The loss of each row under even times."""
    scale = OBJECTIVES[objective][0]
    return whole_bound if scale is None else partial(of_steps.hybrid, scale=scale)


class Shared:
    """`times.Adaptive` for networks that train together: one law, from the losses of all.

    All times of a step are drawn from one law, which changes between steps alone; so rows stay
    independent, and each is divided by the density that it was drawn with.

    rows : of all networks in a step.
    history : losses kept for each step of the chain.
    """

    def __init__(self, loss: losses.Loss, chain: Chain, rows: int, history: int) -> None:
        self.plain, self.rows = loss, rows
        self.law = Adaptive(chain, history=history, floor=FLOOR)
        self._seen: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, n: int, generator: torch.Generator) -> torch.Tensor:
        """n times."""
        if self._seen is not None:
            self.law.update(*self._seen)
            self._seen = None
        found: torch.Tensor = self.law(n, generator)
        return found

    def loss(
        self, network: Network, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor
    ) -> torch.Tensor:
        """The loss, corrected; what all rows of a step lose is kept for the next."""
        rows: torch.Tensor = self.plain(network, x0, t, noise)
        if len(rows) == self.rows:
            self._seen = (t, rows.detach())
        return rows * self.law.correction(t).to(rows)


def trained_on(
    config: Config, run: Run, law: str, objective: str
) -> tuple[list[Network], Shared | None]:
    """Networks of the long chain with averaged weights, and their law of times by importance.

    Networks of one seed begin alike, whatever the objective, and see the same data.
    """
    target, seeds = law_of(law), range(config.seeds)
    template = network_of(config, config.long, torch.nn.Identity())
    networks = []
    for s in seeds:
        seed = run.seed_for(law, "weights", s)
        net = nets.MLP(target.dim, (config.width,) * 2, seed=seed, outputs=2 * target.dim)
        networks.append(template.with_net(net.to(run.device)))
    loss, times = loss_of(objective), None
    if OBJECTIVES[objective][1]:
        chain: Any = template.process
        times = Shared(loss, chain, config.seeds * config.batch, 10 * config.seeds)
        loss = times.loss
    histories = ensembles.together(
        networks,
        target,
        steps=config.train_steps,
        seeds=[run.seed_for(law, "training", s) for s in seeds],
        batch=config.batch,
        rate=config.rate,
        final_rate=config.final_rate,
        loss=loss,
        times=times,
        ema=config.ema,
        progress=lambda steps: run.progress(steps, f"{law}, {objective}"),
    )
    for network, history in zip(networks, histories):
        train.averaged(network.net, history)
    return networks, times


def crowd_of(config: Config, networks: list[Network], steps: int) -> Network:
    """All networks as one on a strided chain, in float64."""
    members: Any = [network.net for network in networks]
    return network_of(config, steps, ensembles.Ensemble(members).double())


# ---------------------------------------------------------------- the bound by quadrature


@dataclasses.dataclass(frozen=True)
class Place:
    """Step k of an oracle's chain at points x (n, D) with weights w of p_k: what is exact there.

    x0, cov : (n, D) and (n, D, D), mean and covariance of x0 given x.
    c, b, small : of the bridge from k to k - 1; small = btilde_k, 0 for k = 1.
    """

    k: int
    chain: Chain
    x: np.ndarray
    w: np.ndarray
    x0: np.ndarray
    cov: np.ndarray
    c: float
    b: float
    small: float

    @property
    def full(self) -> np.ndarray:
        """Cov[x_(k-1) | x_k], (n, D, D)."""
        return self.small * np.eye(self.x.shape[1]) + self.c**2 * self.cov

    @property
    def diagonal(self) -> np.ndarray:
        """The diagonal of it, (n, D)."""
        return np.asarray(np.diagonal(self.full, axis1=-2, axis2=-1))

    def mean(self, values: np.ndarray) -> np.ndarray:
        """The mean over p_k of values (..., n, D), and over coordinates: (...)."""
        return np.asarray(np.mean(values, axis=-1) @ self.w)


def nodes(law: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, D) and weights (n,) that average over a law.

    In the plane, for round modes of one width, an even grid of half that width: means to 1e-5,
    with a third of the points of `GaussianMixture.quadrature`, which answers for all others.
    """
    widths = np.sqrt(np.linalg.eigvalsh(law.covs))
    if law.dim == 1 or widths.max() > (1 + 1e-9) * widths.min():
        return law.quadrature()
    step, reach = 0.5 * widths.min(), 6.5 * widths.max()
    low, high = law.means.min(axis=0) - reach, law.means.max(axis=0) + reach
    axes = [np.arange(a, b, step) for a, b in zip(low, high)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    w = np.exp(law.log_prob(x)) * step**2
    kept = w > 1e-8 * w.max()
    return x[kept], w[kept] / w[kept].sum()


def places(oracle: Oracle) -> Iterator[Place]:
    """Every step, from 1 to K."""
    chain: Any = oracle.process
    for k in range(1, chain.K + 1):
        # The laws of this study are mixtures, and so are they at any time.
        x, w = nodes(oracle.at(k))  # type: ignore[arg-type]
        x0, cov = np.asarray(oracle.x0(x, k)), np.asarray(oracle.posterior_cov(x, k))
        yield Place(k, chain, x, w, x0, cov, *of_steps.bridge(chain, k - 1, k))


def terms(at: Place, spread: Spread, off: np.ndarray) -> np.ndarray:
    """The term of step k of the bound, in nats, for means that are off by `off`: (...).

    off : (..., n, D), c (x0 - x0_model) for the exact x0 = E[x0 | x].
    """
    rows, dim = spread.ratio(at.c**2 * at.cov) + spread.squared(off) + spread.log_det, at.x.shape[1]
    if at.k == 1:  # a log-density, not a divergence
        rows = rows + dim * math.log(2 * math.pi)
    else:
        inverse = np.sum(1 / spread.values, axis=-1)
        rows = rows + at.small * inverse - dim * (1 + math.log(at.small))
    return np.asarray(0.5 * rows @ at.w)


def prior_term(oracle: Oracle) -> float:
    """E KL(q(x_K | x0) || N(0, I)) - entropy, where bound - entropy begins."""
    chain: Any = oracle.process
    mean, cov, var = np.asarray(oracle.law.mean), np.asarray(oracle.law.cov), chain.var(chain.K)
    square = float(chain.alpha(chain.K) ** 2 * (mean @ mean + np.trace(cov)))
    return 0.5 * (square + len(mean) * (var - 1 - math.log(var))) - float(oracle.law.entropy())


def analytic_of(at: Place, x0: np.ndarray) -> np.ndarray:
    """btilde + b^2/(a^2 var(k)) (1 - E|eps_model|^2/D) for the model's x0 (..., n, D): (...).

    No less than btilde, which the exact one exceeds (Bao et al. 2022, theorem 2).
    """
    alpha, var = float(at.chain.alpha(at.k)), float(at.chain.var(at.k))
    left = 1 - at.mean((at.x - alpha * x0) ** 2) / var
    a = alpha / float(at.chain.alpha(at.k - 1))
    return at.small + at.b**2 / (a * a * var) * np.maximum(left, 1e-3 if at.k == 1 else 0.0)


def carried(config: Config, at: Place) -> np.ndarray:
    """What the exact v of the long chain makes of the step, (n, D)."""
    long = chain_of(config, config.long)
    k = int(times_of(config, at.chain.K)[at.k])
    c, b, small = of_steps.bridge(long, k - 1, k)
    exact = small + c**2 * np.diagonal(at.cov, axis1=-2, axis2=-1)
    low = long.variances()[k - 1]
    v = np.log(exact / low) / math.log(b / low)
    low = at.chain.variances()[at.k - 1]
    return np.asarray(low * (at.b / low) ** v)


def spreads(config: Config, at: Place, x0: np.ndarray, off: np.ndarray) -> dict[str, Spread]:
    """Every choice but the learned one for a model's x0 (..., n, D)."""
    numbers = {
        "btilde": np.asarray(at.chain.variances()[at.k - 1]),
        "beta": np.asarray(at.b),
        "analytic": analytic_of(at, x0)[..., None, None],
    }
    found = {name: Spread.of(value, off) for name, value in numbers.items()}
    return found | {
        "carried": Spread.of(carried(config, at), at.x),
        "diagonal": Spread.of(at.diagonal, at.x),
        "full": Spread.of(at.full, at.x),
        "best": Spread.of(at.diagonal + off**2, off),
    }


# ---------------------------------------------------------------- samples


def within(model: Any, x: Any, s: float, t: float) -> Any:
    """What a network has learned, within a tenth of btilde and ten times beta.

    Far from all data v may be anything, and its exponential with it.
    """
    chain = model.process
    with np.errstate(over="ignore"):
        x0, s2 = of_steps.learned(model, x, s, t)
    return x0, np.clip(s2, 0.1 * chain.variances()[int(t) - 1], 10 * chain.betas[int(t) - 1])


def tabled(numbers: np.ndarray) -> Variance:
    """A number for each step of a chain, (K,), or for each of S networks, (S, K)."""

    def variance(model: Any, x: Any, s: float, t: float) -> Any:
        value = numbers[..., int(t) - 1]
        return model.x0(x, t), value if value.ndim == 0 else value[:, None, None] + 0.0 * x

    return variance


def distance(x: np.ndarray, law: GaussianMixture, seed: int) -> float:
    """W1 to the law on the line, sliced W1 to a true sample in the plane."""
    metric: Any = metrics.wasserstein if law.dim == 1 else metrics.sliced_wasserstein
    return float(metric(x, law, seed, 1, repeats=0).value)


def floors(config: Config, run: Run, law: str) -> np.ndarray:
    """(seeds,): the distances of true samples."""
    target = law_of(law)
    found = []
    for s in range(config.seeds):
        fresh = target.sample(config.samples, run.generator(law, "floor", s))
        found.append(distance(fresh, target, run.seed_for(law, "distance", s)))
    return np.array(found)


def distances(
    config: Config, run: Run, law: str, model: Model, numbers: np.ndarray, names: tuple[str, ...]
) -> np.ndarray:
    """(choices, seeds), of the samples of each; NaN but for `names`.

    numbers : (..., K), the analytic variances of the model.
    """
    target, chain = law_of(law), model.process
    assert isinstance(chain, Chain)
    oracle = Oracle(target, chain)
    chosen: dict[str, Variance] = {
        "btilde": tabled(chain.variances()), "beta": tabled(chain.betas),
        "analytic": tabled(numbers), "learned": within,
        "diagonal": of_steps.exact(oracle, "diagonal"), "full": of_steps.exact(oracle, "full"),
    }  # fmt: skip
    shape = (config.seeds, config.samples, target.dim)
    start = run.generator(law, "start").standard_normal(shape)
    noise, steps = run.seed_for(law, "noise", chain.K), np.arange(chain.K, -1, -1)
    found = np.full((len(CHOICES), config.seeds), math.nan)
    for i, name in enumerate(CHOICES):
        if name in names and name in chosen:
            x = samplers.last(samplers.ancestral(model, start, steps, noise, variance=chosen[name]))
            for s in range(config.seeds):
                found[i, s] = distance(x[s], target, run.seed_for(law, "distance", s))
    return found


# ---------------------------------------------------------------- cells


def padded(config: Config, rows: list[np.ndarray]) -> np.ndarray:
    """Values of each step, (..., long), NaN after the last of a shorter chain."""
    found = np.stack(rows, axis=-1)
    room = [(0, 0)] * (found.ndim - 1) + [(0, config.long - found.shape[-1])]
    return np.pad(found, room, constant_values=math.nan)


def exact_cell(config: Config, run: Run, law: str, steps: int) -> Arrays:
    """The exact mean on a strided chain with every choice that needs no network.

    gap : (choices,) bound - entropy. of_beta : (4, long), btilde, analytic, and the geometric mean
    and rms spread (of the log) over x of the exact diagonal, in units of beta.
    distances : (choices, seeds). floors : (seeds,).
    """
    oracle = Oracle(law_of(law), chain_of(config, steps))
    gap = np.full(len(CHOICES), prior_term(oracle))
    gap[CHOICES.index("learned")] = math.nan
    of_beta, numbers = [], []
    for at in places(oracle):
        off = np.zeros_like(at.x)
        for name, spread in spreads(config, at, at.x0, off).items():
            gap[CHOICES.index(name)] += float(terms(at, spread, off))
        logs = np.log(at.diagonal / at.b)
        centre = at.mean(logs)
        deviation = np.sqrt(at.mean((logs - centre) ** 2))
        numbers.append(float(analytic_of(at, at.x0)))
        small = at.chain.variances()[at.k - 1]
        of_beta.append(np.array([small / at.b, numbers[-1] / at.b, np.exp(centre), deviation]))
    names = tuple(c for c in CHOICES if c != "learned") if steps in config.few else ()
    return {
        "gap": gap, "of_beta": padded(config, of_beta), "floors": floors(config, run, law),
        "distances": distances(config, run, law, oracle, np.array(numbers), names),
    }  # fmt: skip


def judged(config: Config, law: str, crowd: Network, steps: int) -> Arrays:
    """Trained networks on a strided chain, each (seeds, ...).

    gap : (choices) bound - entropy with the learned mean. alone : the same with the exact mean and
    the learned variance. of_beta : (long) the geometric mean over x of the learned variance, in
    units of beta. off : (long) rms of log(learned/exact diagonal). eps : (long) E|eps error|^2/D.
    analytic : (long) the analytic variance of the learned mean.
    """
    oracle = Oracle(law_of(law), chain_of(config, steps))
    gap = np.full((config.seeds, len(CHOICES)), prior_term(oracle))
    alone = gap[:, 0].copy()
    rows: list[list[np.ndarray]] = [[], [], [], []]
    for at in places(oracle):
        x = np.stack([at.x] * config.seeds)
        x0, s2 = map(np.asarray, of_steps.learned(crowd, x, at.k - 1, at.k))
        off = at.c * (at.x0 - x0)
        chosen = spreads(config, at, x0, off) | {"learned": Spread.of(s2, off)}
        for i, name in enumerate(CHOICES):
            gap[:, i] += terms(at, chosen[name], off)
        alone += terms(at, chosen["learned"], 0 * off)
        rows[0].append(np.exp(at.mean(np.log(s2 / at.b))))
        rows[1].append(np.sqrt(at.mean(np.log(s2 / at.diagonal) ** 2)))
        ratio = at.chain.alpha(at.k) ** 2 / at.chain.var(at.k)
        rows[2].append(ratio * at.mean((x0 - at.x0) ** 2))
        rows[3].append(analytic_of(at, x0))
    names = ("of_beta", "off", "eps", "analytic")
    return {"gap": gap, "alone": alone} | {n: padded(config, r) for n, r in zip(names, rows)}


def learned_cell(config: Config, run: Run, law: str, objective: str) -> dict[str, Any]:
    """All networks of one objective: `judged` and samples, (lengths, ...); their law of times.

    Networks of the two hybrid losses with even times are looked at at every length, all others on
    the long chain alone; NaN where nothing is computed.
    """
    networks, times = trained_on(config, run, law, objective)
    found: dict[str, Any] = {}
    for steps in config.lengths if objective in ("hybrid", STRONG) else (config.long,):
        crowd = crowd_of(config, networks, steps)
        own = judged(config, law, crowd, steps)
        wanted = CHOICES if objective == "hybrid" else ("learned",)
        names = wanted if steps in config.few else ()
        numbers = own["analytic"][:, :steps]
        own["distances"] = distances(config, run, law, crowd, numbers, names)
        for name, value in own.items():
            room = found.setdefault(name, np.full((len(config.lengths), *value.shape), math.nan))
            room[config.lengths.index(steps)] = value
    even = np.arange(1.0, config.long + 1)
    density = np.ones(config.long) if times is None else np.asarray(times.law.density(even))
    return found | {"density": density}


def compute(config: Config, run: Run) -> Arrays:
    """Exact models, then networks."""
    laws = {"law": config.laws}
    exact = run.sweep("exact", exact_cell, laws | {"steps": config.lengths}, config)
    axes = laws | {"objective": tuple(OBJECTIVES)}
    learned = run.sweep("learned", learned_cell, axes, config)
    arrays = {f"exact {key}": value for key, value in exact.items()}
    return arrays | {f"learned {key}": value for key, value in learned.items()}


# ---------------------------------------------------------------- what is looked up


def exact_of(arrays: Arrays, key: str, law: str, steps: int) -> np.ndarray:
    """A value of `exact_cell`."""
    at = (arrays["exact law"] == law) & (arrays["exact steps"] == steps)
    return np.asarray(arrays[f"exact {key}"][at][0])


def learned_of(arrays: Arrays, key: str, law: str, objective: str) -> np.ndarray:
    """A value of `learned_cell`."""
    at = (arrays["learned law"] == law) & (arrays["learned objective"] == objective)
    return np.asarray(arrays[f"learned {key}"][at][0])


def choices_of(law: str) -> tuple[str, ...]:
    """Of `CHOICES`, and "strong", learned with lambda = 1; on the line the diagonal is all."""
    names = (*CHOICES[:4], "strong", *CHOICES[4:])
    return tuple(name for name in names if law_of(law).dim > 1 or name != "full")


def place_of(choice: str) -> tuple[int, str]:
    """Its place in `CHOICES`, and the objective of the networks."""
    if choice == "strong":
        return CHOICES.index("learned"), STRONG
    return CHOICES.index(choice), "hybrid"


def gaps(config: Config, arrays: Arrays, law: str, mean: str, choice: str) -> np.ndarray:
    """bound - entropy, (lengths, seeds), with the exact or the learned mean."""
    i, objective = place_of(choice)
    if mean == "learned":
        return learned_of(arrays, "gap", law, objective)[:, :, i]
    if CHOICES[i] == "learned":
        return learned_of(arrays, "alone", law, objective)
    values = np.array([exact_of(arrays, "gap", law, steps)[i] for steps in config.lengths])
    return np.repeat(values[:, None], config.seeds, axis=1)


def far(config: Config, arrays: Arrays, law: str, mean: str, choice: str) -> np.ndarray:
    """distances (few, seeds) with the exact or the learned mean."""
    i, objective = place_of(choice)
    if mean == "exact":
        return np.array([exact_of(arrays, "distances", law, K)[i] for K in config.few])
    found = learned_of(arrays, "distances", law, objective)
    return np.array([found[config.lengths.index(steps)][i] for steps in config.few])


def split(config: Config, arrays: Arrays, law: str, objective: str) -> np.ndarray:
    """bound - entropy on the long chain: all, by the mean, by the variance, (3, seeds).

    By the mean: with the best diagonal for it above the exact mean with its own. By the variance:
    the learned one above that best diagonal.
    """
    gap = learned_of(arrays, "gap", law, objective)[-1]
    least = exact_of(arrays, "gap", law, config.long)[CHOICES.index("best")]
    learned, best = gap[:, CHOICES.index("learned")], gap[:, CHOICES.index("best")]
    return np.stack([learned, best - least, learned - best])


# ---------------------------------------------------------------- tables


def label(choice: str, law: str) -> str:
    """What a choice is called in tables."""
    if choice in ("diagonal", "full"):
        return f"exact, {choice}" if law_of(law).dim > 1 else "exact"
    other = {
        "best": "best for this mean", "strong": "learned, lambda = 1",
        "carried": "exact v of the long chain",
    }  # fmt: skip
    return other.get(choice, choice)


def put(row: dict[str, Any], name: str, values: np.ndarray) -> None:
    """A mean and its error; no error of what no network is behind."""
    row[name], error = mean_and_error(values)
    row[f"{name}, error"] = error if np.ptp(values) > 0 else math.nan


def bounds_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """bound - entropy in nats for every choice, mean and length."""
    rows = []
    for law in config.laws:
        for i, steps in enumerate(config.lengths):
            for choice in choices_of(law):
                row: dict[str, Any] = {"law": law, "steps": steps, "variance": label(choice, law)}
                for mean in MEANS:
                    values = gaps(config, arrays, law, mean, choice)[i]
                    put(row, f"bound - entropy, {mean} mean", values)
                rows.append(row)
    return digits(pd.DataFrame(rows), 4)


def samples_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Distances of samples, with their floors and above those of the exact diagonal, paired."""
    rows = []
    for law in config.laws:
        for mean in MEANS:
            exact = far(config, arrays, law, mean, "diagonal")
            for choice in choices_of(law):
                for steps, own, least in zip(
                    config.few, far(config, arrays, law, mean, choice), exact
                ):
                    if np.isfinite(own).all():
                        row: dict[str, Any] = {"law": law, "steps": steps, "mean": mean}
                        row["variance"] = label(choice, law)
                        put(row, "distance", own)
                        put(row, "floor", exact_of(arrays, "floors", law, steps))
                        put(row, "above exact", own - least)
                        rows.append(row)
    return digits(pd.DataFrame(rows), 3)


def main_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """The shortest chain: bounds, and distances of the learned mean's samples with floors."""
    bounds, samples = bounds_table(config, arrays), samples_table(config, arrays)
    kept = ["law", "steps", "variance"]
    kept += [f"{name}{end}" for name in ("distance", "floor") for end in ("", ", error")]
    samples = samples[samples["mean"] == "learned"][kept]
    return digits(bounds[bounds["steps"] == config.lengths[0]].merge(samples, how="left"), 3)


def steps_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Variances in units of beta against the step and t: geometric means over x_k."""
    rows = []
    for law in config.laws:
        for i, steps in enumerate(config.lengths):
            exact = exact_of(arrays, "of_beta", law, steps)
            for k in range(1, steps + 1):
                row: dict[str, Any] = {"law": law, "steps": steps, "k": k}
                row["t"] = times_of(config, steps)[k] / config.long
                names = ("btilde", "analytic", "exact", "rms of log over x")
                row |= dict(zip(names, exact[:, k - 1]))
                for choice in ("learned", "strong"):
                    found = learned_of(arrays, "of_beta", law, place_of(choice)[1])
                    put(row, label(choice, law), found[i, :, k - 1])
                rows.append(row)
    return digits(pd.DataFrame(rows), 4)


def objectives_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """What each objective teaches on the long chain.

    bound - entropy and its two parts; the mean square error of eps; the rms over x_k and k of
    log(learned/exact), and what the learned variance costs beside the exact one with the exact
    mean.
    """
    rows = []
    for law in config.laws:
        least = exact_of(arrays, "gap", law, config.long)[CHOICES.index("diagonal")]
        for objective in OBJECTIVES:
            row: dict[str, Any] = {"law": law, "objective": objective}
            names = ("bound - entropy", "by the mean", "by the variance")
            for name, values in zip(names, split(config, arrays, law, objective)):
                put(row, name, values)
            eps, off, alone = (
                learned_of(arrays, key, law, objective)[-1] for key in ("eps", "off", "alone")
            )
            put(row, "eps error^2", eps.mean(axis=-1))
            put(row, "rms of log", np.sqrt(np.mean(off**2, axis=-1)))
            put(row, "cost, exact mean", alone - least)
            rows.append(row)
    return digits(pd.DataFrame(rows), 4)


def cells_table(config: Config, arrays: Arrays) -> pd.DataFrame:
    """Every network at every length with every choice.

    With the learned mean and with the exact one: bound - entropy, and the distance of samples; the
    distance of the seed's true samples; the mean square error of the network's eps; for its own
    variance the rms of log(learned/exact) over x_k and k.
    """
    rows = []
    for n, (law, objective) in enumerate(zip(arrays["learned law"], arrays["learned objective"])):
        own = {key: arrays[f"learned {key}"][n] for key in ("gap", "alone", "off", "eps")}
        for i, s, j in np.argwhere(np.isfinite(own["gap"])):
            steps, learned = config.lengths[i], CHOICES[j] == "learned"
            exact = {
                key: exact_of(arrays, key, law, steps) for key in ("gap", "distances", "floors")
            }
            off, eps = (own[key][i, s, :steps] for key in ("off", "eps"))
            rows.append({
                "law": str(law), "objective": str(objective), "steps": steps,
                "variance": CHOICES[j], "seed": int(s), "bound - entropy": own["gap"][i, s, j],
                "distance": arrays["learned distances"][n, i, j, s],
                "bound - entropy, exact mean": own["alone"][i, s] if learned else exact["gap"][j],
                "distance, exact mean": exact["distances"][j, s],
                "floor": exact["floors"][s], "eps error^2": eps.mean(),
                "rms of log": np.sqrt(np.mean(off**2)) if learned else math.nan,
            })  # fmt: skip
    return pd.DataFrame(rows)


def digits(frame: pd.DataFrame, values: int) -> pd.DataFrame:
    """Errors to two digits, numbers to so many."""
    floats = frame.select_dtypes("float").columns
    frame.attrs["digits"] = {c: 2 if c.endswith("error") else values for c in floats}
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """The shortest chain; then all bounds, samples, variances, objectives, networks."""
    return {
        "": main_table(config, arrays),
        "bounds": bounds_table(config, arrays),
        "samples": samples_table(config, arrays),
        "steps": steps_table(config, arrays),
        "objectives": objectives_table(config, arrays),
        "cells": cells_table(config, arrays),
    }


# ---------------------------------------------------------------- figures

MEANS = ("exact", "learned")
LOOK = {
    "btilde": (plots.COLORS[4], "v", "$\\tilde\\beta$"),
    "beta": (plots.COLORS[2], "^", "$\\beta$"),
    "analytic": (plots.COLORS[1], "s", "analytic"),
    "learned": (plots.COLORS[0], "o", "learned, $\\lambda = 0.001$"),
    "strong": (plots.COLORS[9], "o", "learned, $\\lambda = 1$"),
    "carried": (plots.COLORS[3], "P", "exact $v$ of the long chain"),
    "diagonal": ("black", "D", "exact, diagonal"),
    "full": (plots.COLORS[5], "x", "exact, full"),
}


def curves(
    config: Config, arrays: Arrays, of: Any, values: tuple[int, ...],
    units: list[str], title: str, names: tuple[str, ...],
) -> tuple[Figure, np.ndarray]:  # fmt: skip
    """Values of all choices against the number of steps; rows: laws, columns: exact, learned mean.

    of : `gaps` or `far`. names : choices whose means the title tells, for the last law.
    """
    fig, axes = plots.figure(len(config.laws), 2, height=1.2 + 2.7 * len(config.laws))
    for law, unit, row in zip(config.laws, units, axes):
        for ax, mean in zip(row, MEANS):
            for choice, (color, marker, words) in LOOK.items():
                if choice not in choices_of(law):
                    continue
                found = of(config, arrays, law, mean, choice)
                if np.isfinite(found).all():
                    ax.errorbar(
                        values, *mean_and_error(found, axis=1), color=color, marker=marker, ms=5,
                        label=words, capsize=2, lw=1.2,
                    )  # fmt: skip
            ax.set(xscale="log", yscale="log")
            ax.set_title(f"{WORDS.get(law, law)}, {mean} mean", fontsize=10)
            ax.set_xticks(values, list(map(str, values)))
            ax.set_xticks([], minor=True)
        ends = [ax.get_ylim() for ax in row]
        for ax in row:
            ax.set_ylim(min(e[0] for e in ends), max(e[1] for e in ends))
        row[0].set_ylabel(unit)
    for ax in axes[-1]:
        ax.set_xlabel("steps of the strided chain")
    law = config.laws[-1]
    each = [
        f"{Estimate(*mean_and_error(of(config, arrays, law, 'learned', c)[0]))}"
        f" ({LOOK[c][2].partition(', d')[0]})"
        for c in names
    ]
    told = ", ".join(each[:2]) + ",\n" + ", ".join(each[2:])
    words = f"{WORDS.get(law, law)}, {values[0]} steps, learned mean:\n{told}"
    fig.suptitle(f"{title} ({config.seeds} networks ± standard error)\n{words}", fontsize=9)
    return fig, axes


def draw_bounds(config: Config, arrays: Arrays) -> Figure:
    """bound - entropy against the number of steps."""
    units = ["bound − entropy / nats"] * len(config.laws)
    title = "What the variance of the steps costs"
    names = ("beta", "analytic", "learned", "strong", "diagonal")
    fig, axes = curves(config, arrays, gaps, config.lengths, units, title, names)
    plots.legend_below(fig, axes[-1, 0], columns=4)
    return fig


def draw_steps(config: Config, arrays: Arrays) -> Figure:
    """Variances in units of beta against the step."""
    fig, axes = plots.figure(len(config.laws), 2, height=1.1 + 2.7 * len(config.laws))
    for law, row in zip(config.laws, axes):
        for i, ax in zip((0, -1), row):
            steps = config.lengths[i]
            k = np.arange(1, steps + 1)
            small, number_of, centre, spread = exact_of(arrays, "of_beta", law, steps)[:, :steps]
            ax.axhline(1.0, color=LOOK["beta"][0], label=LOOK["beta"][2])
            ax.plot(k, small, color=LOOK["btilde"][0], label="$\\tilde\\beta$ ($k = 1$: that of 2)")
            ax.plot(k, number_of, "--", color=LOOK["analytic"][0], label=LOOK["analytic"][2])
            ax.fill_between(
                k, centre * np.exp(-spread), centre * np.exp(spread), color="0.85", lw=0,
                label="exact: rms spread over $x_k$",
            )  # fmt: skip
            ax.plot(k, centre, color="black", label="exact: geometric mean")
            for choice in ("learned", "strong"):
                found = learned_of(arrays, "of_beta", law, place_of(choice)[1])[i][:, :steps]
                color, marker, words = LOOK[choice]
                ax.errorbar(
                    k, *mean_and_error(found), fmt=marker, ms=3, mfc="none", color=color,
                    capsize=1.5, lw=1.0, label=words,
                )  # fmt: skip
            ax.set(ylim=(0, None), xlabel="step $k$" if law == config.laws[-1] else "")
            ax.set_title(f"{WORDS.get(law, law)}, {steps} steps", fontsize=10)
        row[0].set_ylabel("variance / $\\beta_k$")
    plots.legend_below(fig, axes[0, 0], columns=4)
    law, rms = config.laws[-1], []
    for objective in ("hybrid", STRONG):
        off = learned_of(arrays, "off", law, objective)[-1]
        value, error = mean_and_error(np.sqrt(np.mean(off**2, axis=-1)))
        rms.append(f"{value:.4f} ± {error:.4f} ($\\lambda = {OBJECTIVES[objective][0]:g}$)")
    fig.suptitle(
        f"The variance of each step ({config.seeds} networks ± standard error)\n"
        f"{WORDS.get(law, law)}, {config.long} steps: rms of log(learned/exact) {', '.join(rms)}",
        fontsize=10,
    )
    return fig


def draw_samples(config: Config, arrays: Arrays) -> Figure:
    """Distances of samples against the number of steps."""
    units = ["$W_1$" if law_of(law).dim == 1 else "sliced $W_1$" for law in config.laws]
    title = f"Samples of {config.samples} points with each variance"
    names = ("beta", "analytic", "learned", "strong", "diagonal")
    fig, axes = curves(config, arrays, far, config.few, units, title, names)
    for law, row in zip(config.laws, axes):
        floor = exact_of(arrays, "floors", law, config.few[0])
        for ax in row:
            ax.axhspan(*(floor.mean() + np.array([-1, 1]) * floor.std(ddof=1)), color="0.9", lw=0)
            ax.axhline(
                floor.mean(), color="0.4", lw=1.0, ls="--", label="floor: true samples ± deviation"
            )
    plots.legend_below(fig, axes[-1, 1], columns=4)
    return fig


def draw_objectives(config: Config, arrays: Arrays) -> Figure:
    """Laws of times by importance, and what each objective's trainings lose."""
    fig, axes = plots.figure(len(config.laws), 2, height=1.1 + 2.6 * len(config.laws))
    k, place = np.arange(1, config.long + 1), np.arange(len(OBJECTIVES))
    for law, (left, right) in zip(config.laws, axes):
        for n, objective in enumerate(o for o in OBJECTIVES if OBJECTIVES[o][1]):
            words = f"times of {objective}".replace("bound", "$L_{vlb}$")
            left.plot(
                k, learned_of(arrays, "density", law, objective), color=plots.COLORS[n], label=words
            )  # fmt: skip
        left.axhline(1.0, color="0.5", lw=0.8)
        left.set(yscale="log", xlabel="step $k$", ylabel="law of times / uniform")
        found = np.array([split(config, arrays, law, o) for o in OBJECTIVES])
        for m, words in ((1, "lost by the mean"), (2, "lost by the variance")):
            right.errorbar(
                place + 0.2 * m - 0.3, *mean_and_error(found[:, m], axis=1), fmt="_Dv"[m],
                color=plots.COLORS[3 + m], capsize=3, label=words,
            )  # fmt: skip
        words_of = ["hybrid", "hybrid,\nimp.", "$\\lambda = 1$", "$L_{vlb}$", "$L_{vlb}$,\nimp."]
        right.set_xticks(place, words_of, fontsize=8)
        right.set(yscale="log", ylabel="nats", xlim=(-0.5, len(OBJECTIVES) - 0.5))
        for ax in (left, right):
            ax.set_title(f"{WORDS.get(law, law)}, {config.long} steps", fontsize=10)
    plots.legend_below(fig, *axes[0], columns=4)
    law = config.laws[-1]
    even, drawn = (
        "{:.3f} ± {:.3f}".format(*mean_and_error(split(config, arrays, law, o)[0]))
        for o in ("bound", "bound, importance")
    )
    fig.suptitle(
        f"Even times or importance ({config.seeds} networks ± standard error)\n"
        f"{WORDS.get(law, law)}, $L_{{vlb}}$: bound − entropy {even} with even times, {drawn} by"
        " importance",
        fontsize=10,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Bounds; variances by step; samples; objectives and times."""
    return {
        "": draw_bounds(config, arrays),
        "steps": draw_steps(config, arrays),
        "samples": draw_samples(config, arrays),
        "objectives": draw_objectives(config, arrays),
    }


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Does a learned reverse variance find the exact one, and what does it buy in likelihood and"
    " samples at few steps?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
