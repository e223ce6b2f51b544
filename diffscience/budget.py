"""Error budget: what each fault of a run adds to the distance between its end and the data.

A run that begins at N(0, s^2 I), follows a learned score in few steps and stops at t_end > 0 has
four faults. Where the truth is known each has an exact counterpart, to be put in its place:

    prior            N(0, s^2 I)            p_T, the law of X_T itself
    score            the model              the oracle
    discretisation   the sampler's steps    the flow, or the reverse SDE, that they approximate
    stopping         X at t_end as it is    X carried on from t_end to 0 exactly

Let D(S) be the distance to p_0 of the end of the run with the faults S in place and the others
mended; D(none) = 0. From sixteen runs with common starts and a common Brownian path follow

    chain      D(S + i) - D(S), the faults put in one after the other; the order matters
    alone      D(i) - D(none)                  one at a time, from the exact end
    mended     D(all) - D(all but i)           one at a time, from the actual end
    share      the mean of D(S + i) - D(S) over all 24 orders               (Shapley 1953)

Chain and share add up to D(all) - D(none) exactly, whatever D is; the other two need not. Where D
is |d|^2, d the sum of a displacement d_i by each fault, alone is |d_i|^2, mended 2 <d_i, d> -
|d_i|^2, and share their mean <d_i, d>: negative for a fault that undoes a part of the others. D is

    energy     2 E|X - Y| - E|X - X'| - E|Y - Y'|, a squared distance; 2 int (F - G)^2 dx on a line
    w1, w2     W_1 and W_2^2
    kl         KL(p_0 || q) in nats

On a line the end of a deterministic sampler is a map of its start, and D follows by a quadrature
over the start, with no chance in it. All else is sampled, and measured by `paired_energy`, which is
unbiased and exactly 0 where a switch changes nothing: W_p between samples is neither, and what two
faults add to it depends on the noise that both are under.

Conventions: computed in float64 on NumPy points; a network answers in its own precision. For the
bound of the KL by the error of the score see `girsanov`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import metrics, noise, samplers, solvers, states
from .arrays import numpy
from .ends import METRICS, Line, paired_energy, posterior_draws
from .errors import ArgumentError, instance, number, whole
from .estimates import Estimate, mean_and_error
from .girsanov import prior_law
from .mixture import GaussianMixture
from .models import Model, Oracle
from .samplers import Sampler
from .states import Times

if TYPE_CHECKING:
    from pandas import DataFrame

PARTS = ("prior", "score", "discretisation", "stopping")
"""The faults, in the order of the axes of `Budget.distances` and of the chain."""

Key = tuple[bool, Model, Sampler | None, tuple[float, ...]]
# Whether noise is drawn, the model, and the steps; without a sampler the fine ones.


@dataclass(frozen=True)
class Budget:
    """The distances of the sixteen runs, and what follows from them.

    Parameters
    ----------
    distances : (R, 2, 2, 2, 2): R independent repeats; along the axis of each of `PARTS` the fault
        is mended at 0 and in place at 1.
    n : points in each run; 0 where the distances come from a quadrature.
    arrival : (R,) energy distance of the exact ends from fresh true points, of mean 0 if they are
        exact; 0 for a quadrature.

    >>> D = np.zeros((1, 2, 2, 2, 2))
    >>> D[:, 1] += 3
    >>> D[:, :, 1] += 1
    >>> {part: found.value for part, found in Budget(D, 0, np.zeros(1)).share().items()}
    {'prior': 3.0, 'score': 1.0, 'discretisation': 0.0, 'stopping': 0.0}
    """

    distances: np.ndarray
    n: int
    arrival: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.distances)
        if not shape or not shape[0] or shape[1:] != (2,) * len(PARTS):
            raise ArgumentError("distances", "have shape (R, 2, 2, 2, 2)", f"shape {shape}")

    @classmethod
    def joined(cls, budgets: Sequence[Budget]) -> Budget:
        """The repeats of several budgets as those of one; errors are then those of their mean."""
        if not budgets or len({budget.n for budget in budgets}) > 1:
            raise ArgumentError("budgets", "be one or more of equal n", [b.n for b in budgets])
        parts = zip(*((budget.distances, budget.arrival) for budget in budgets))
        D, arrival = (np.concatenate(part) for part in parts)
        return cls(D, budgets[0].n, arrival)

    def total(self) -> Estimate:
        """D(all), with D(none) for its floor."""
        floor = self._estimate(self._of(()))
        total = self._estimate(self._of(PARTS))
        return Estimate(total.value, total.error, floor.value, floor.error, self.n)

    def exact_end(self) -> Estimate:
        """How far the exact ends are from fresh true points; 0 within its error."""
        return self._estimate(self.arrival)

    def share(self) -> dict[str, Estimate]:
        """The mean over all orders; the values add up to D(all) - D(none)."""
        steps = [self._steps(order) for order in itertools.permutations(PARTS)]
        return {p: self._estimate(np.mean([s[p] for s in steps], axis=0)) for p in PARTS}

    def chain(self, order: Sequence[str] = PARTS) -> dict[str, Estimate]:
        """The faults put in one after the other; the values add up to D(all) - D(none)."""
        if sorted(order) != sorted(PARTS):
            raise ArgumentError("order", f"name each of {', '.join(PARTS)} once", order)
        return {part: self._estimate(step) for part, step in self._steps(order).items()}

    def alone(self) -> dict[str, Estimate]:
        """Each fault with all others mended."""
        return {p: self._estimate(self._of((p,)) - self._of(())) for p in PARTS}

    def mended(self) -> dict[str, Estimate]:
        """What mending one fault takes off, all others in place."""
        others = {p: tuple(other for other in PARTS if other != p) for p in PARTS}
        return {p: self._estimate(self._of(PARTS) - self._of(others[p])) for p in PARTS}

    def table(self) -> DataFrame:
        """The parts and their sum as rows, the four ways with their errors as columns."""
        import pandas as pd

        ways = {"share": self.share(), "chain": self.chain()}
        ways |= {"alone": self.alone(), "mended": self.mended()}
        rows = [
            {"part": part}
            | {name: found[part].value for name, found in ways.items()}
            | {f"{name} error": found[part].error for name, found in ways.items()}
            for part in PARTS
        ]
        error = self._estimate(self._of(PARTS) - self._of(())).error
        total: dict[str, Any] = {name: sum(row[name] for row in rows) for name in ways}
        total |= {"part": "sum", "share error": error, "chain error": error}
        columns = ["part", *(f"{name}{end}" for name in ways for end in ("", " error"))]
        return pd.DataFrame([*rows, total])[columns]

    def _of(self, faults: Sequence[str]) -> np.ndarray:
        """D(faults), (R,)."""
        prior, score, steps, stopping = (int(part in faults) for part in PARTS)
        return self.distances[:, prior, score, steps, stopping]

    def _steps(self, order: Sequence[str]) -> dict[str, np.ndarray]:
        return {p: self._of(order[: k + 1]) - self._of(order[:k]) for k, p in enumerate(order)}

    def _estimate(self, values: np.ndarray) -> Estimate:
        if len(values) == 1:  # of one sample the error is not known
            return Estimate(float(values[0]), math.nan if self.n else 0.0, n=self.n)
        return Estimate(*mean_and_error(values), n=self.n)


def budget(
    model: Model,
    oracle: Oracle,
    sampler: Sampler,
    times: Times,
    *,
    n: int = 2000,
    seeds: int = 8,
    seed: int = 0,
    metric: str = "energy",
    variance: float | None = None,
    steps: int = 400,
    reference: Sampler = samplers.ALL["dpm_2m_sde"],
    tolerance: float = 1e-7,
) -> Budget:
    """The budget of a model and a sampler on a grid of times.

    Parameters
    ----------
    model : exact or learned. oracle : of a process in continuous time.
    sampler : such as an entry of `samplers.ALL`. times : decreasing.
    n : points of a run, or nodes of the quadrature. seeds : repeats, where anything is sampled.
    metric : one of `METRICS`; all but "energy" for deterministic samplers on a line alone.
    variance : s^2 of the prior, var(times[0]) where left out.
    steps : fine ones, at least, of the solution without discretisation: every step is cut evenly in
        t^(1/3). reference : what takes them where noise is drawn; of the same limit as the sampler.
    tolerance : of the flow without discretisation, where it has no closed form.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> times = ds.grids.log_snr(oracle.process, 10, end=1e-3)
    >>> found = budget(oracle, oracle, samplers.ALL["heun"], times, metric="w2").share()
    >>> found["score"].value, found["discretisation"].value > found["stopping"].value
    (0.0, True)
    """
    whole("seeds", seeds, 1)
    whole("steps", steps, 1)
    instance("oracle", oracle, Oracle)
    grid = states.grid(oracle.process, times)
    cuts = -(-steps // (len(grid) - 1))
    places = np.arange(cuts * (len(grid) - 1) + 1) / cuts
    fine = np.interp(places, np.arange(len(grid)), np.cbrt(grid)) ** 3
    fine[::cuts] = grid
    options: dict[str, Any] = {"n": n, "variance": variance, "reference": reference}
    options |= {"tolerance": tolerance}
    found: list[Budget] = []
    while not found or (found[0].n and len(found) < seeds):
        bench = Bench(oracle, fine, seed=seed + len(found), **options)
        found.append(bench.budget(model, sampler, grid, metric))
    return Budget.joined(found)


class Bench:
    """What the budgets of one law have in common: starts, noise, and runs that were made before.

    Parameters
    ----------
    oracle : the exact model, of a process in continuous time.
    fine : decreasing times of the runs that stand for infinitely many steps. The times of a budget
        are some of them, with the same ends.
    seed : of starts, path and true points.
    n, variance, reference, tolerance : see `budget`.

    The starts are alpha x0 + sigma z and s z with common x0 and z. Runs are remembered by the model
    itself: do not train one on between two budgets. A sampler that draws more than one number in a
    step (`predictor_corrector`, 2S) or draws otherwise (EDM's) has noise of its own, and its parts
    are known less well.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_trimodal(), ds.VP())
    >>> fine = ds.grids.log_snr(oracle.process, 40, end=1e-2)
    >>> bench = Bench(oracle, fine, n=100)
    >>> found = [bench.budget(oracle, samplers.ALL["ancestral"], fine[::k]) for k in (4, 10)]
    >>> found[0].total().value < found[1].total().value
    True
    """

    def __init__(
        self,
        oracle: Oracle,
        fine: Times,
        *,
        n: int = 2000,
        seed: int = 0,
        variance: float | None = None,
        reference: Sampler = samplers.ALL["dpm_2m_sde"],
        tolerance: float = 1e-7,
    ) -> None:
        instance("oracle", oracle, Oracle)
        process, dim = oracle.process, oracle.law.dim
        self.oracle, self.fine = oracle, tuple(states.grid(process, fine))
        whole("n", n, 3)
        whole("seed", seed, 0)
        instance("reference", reference, Sampler)
        self.n, self.seed, self.reference = n, seed, reference
        number("tolerance", tolerance, 0, ends="()")
        self.tolerance = tolerance
        self._prior = prior_law(oracle, self.fine[0], variance)
        rng = self._generator(1)
        x0, z = oracle.law.sample(n, rng), rng.standard_normal((n, dim))
        root = math.sqrt(float(numpy(self._prior.cov)[0, 0]))
        self._points = np.stack([process.at(self.fine[0]).apply(x0, z), root * z])
        self._late = rng.random(n), rng.standard_normal((n, dim))
        self._path: noise.Stored | None = None
        self._ends: dict[Key, np.ndarray] = {}
        self._exact: dict[bool, np.ndarray] = {}
        self._far: dict[tuple[str, Key], np.ndarray] = {}

    @functools.cached_property
    def _lines(self) -> list[Line]:
        """On a line the quadratures over both starts."""
        starts = self.oracle.at(self.fine[0]), self._prior
        return [Line.of(self.oracle.law, start, self.n) for start in starts]

    def _generator(self, use: int) -> np.random.Generator:
        """For starts (1), paths (2) and true points (3); 0 would be that of the seed alone."""
        return np.random.default_rng(np.random.SeedSequence((self.seed, use)))

    def budget(
        self, model: Model, sampler: Sampler, times: Times, metric: str = "energy"
    ) -> Budget:
        """One repeat of the budget of a model and a sampler on a grid of times."""
        instance("model", model, Model)
        instance("sampler", sampler, Sampler)
        grid, random = tuple(states.grid(self.oracle.process, times)), sampler.random
        if (grid[0], grid[-1]) != (self.fine[0], self.fine[-1]):
            rule = f"run from {self.fine[0]:g} to {self.fine[-1]:g}"
            raise ArgumentError("times", rule, np.asarray(grid))
        line = self._on_line(random)
        if metric not in (METRICS if line else METRICS[:1]):
            rule = f"be one of {', '.join(METRICS)}; energy for what is sampled"
            raise ArgumentError("metric", rule, metric)
        D = np.empty((1, 2, 2, 2, 2))
        for score, steps in itertools.product((0, 1), repeat=2):
            how = (sampler, grid) if steps else (None, ())
            run: Key = (random, model if score else self.oracle, *how)
            D[0, :, score, steps] = self._distances(metric, run)
        return Budget(D, 0 if line else self.n, np.array([0.0 if line else self._arrival(random)]))

    def _on_line(self, random: bool) -> bool:
        """Whether the end is a map of the start on a line, so that nothing need be sampled."""
        return self.oracle.law.dim == 1 and not random

    def _distances(self, metric: str, run: Key) -> np.ndarray:
        """From the data, (2, 2): from p_T and from the prior, carried on to 0 and as it is."""
        if (metric, run) not in self._far:
            random, late = run[0], self._end(run)
            pairs = list(zip(self._carried(late, random), late))
            if self._on_line(random):
                both = zip(self._lines, pairs)
                far = [[line.distance(metric, x) for x in pair] for line, pair in both]
            else:
                exact = self._exact_end(random)
                far = [[paired_energy(x, exact) for x in pair] for pair in pairs]
            self._far[metric, run] = np.array(far)
        return self._far[metric, run]

    def _exact_end(self, random: bool) -> np.ndarray:
        """The end of the run without a fault, (n, D)."""
        if random not in self._exact:
            late = self._end((random, self.oracle, None, ()))[:1]
            self._exact[random] = self._carried(late, random)[0]
        return self._exact[random]

    def _arrival(self, random: bool) -> float:
        x, law = self._exact_end(random), self.oracle.law
        return float(metrics.energy_distance(x, law, self._generator(3), repeats=0).value)

    def _starts(self, random: bool) -> np.ndarray:
        """From p_T and from the prior, (2, n, D): points, or nodes on a line."""
        if self._on_line(random):
            return np.stack([line.nodes for line in self._lines])
        return self._points

    def _end(self, run: Key) -> np.ndarray:
        """Where both starts are at the last time, (2, n, D); they go through together."""
        if run not in self._ends:
            random, model, sampler, grid = run
            starts = self._starts(random)
            x = starts.reshape(-1, starts.shape[-1])
            if sampler is None and not random:
                found = self._flow(model, x, self.fine[0], self.fine[-1])
            else:
                takes, at = (self.reference, self.fine) if sampler is None else (sampler, grid)
                found = numpy(samplers.last(takes.run(model, x, at, self._noise(takes, at))))
            self._ends[run] = found.reshape(starts.shape)
        return self._ends[run]

    def _flow(self, model: Model, x: np.ndarray, a: float, b: float) -> np.ndarray:
        if model is self.oracle and self.oracle.law.dim == 1:
            return numpy(self.oracle.flow(x, a, b))
        run = solvers.flow(model, x, [a, b], rtol=self.tolerance, atol=self.tolerance)
        return np.asarray(run.last)

    def _carried(self, x: np.ndarray, random: bool) -> np.ndarray:
        """Points (m, n, D) from the last time to 0 exactly: by a draw of the posterior, which is
        what is left of the reverse SDE, or along the flow.
        """
        last = self.fine[-1]
        if self.oracle.process.var(last) == 0:
            return x
        if random and isinstance(self.oracle.law, GaussianMixture):
            return np.stack([posterior_draws(self.oracle, y, last, *self._late) for y in x])
        rows = self._flow(self.oracle, x.reshape(-1, x.shape[-1]), last, 0.0)
        return rows.reshape(x.shape)

    def _noise(self, sampler: Sampler, grid: Sequence[float]) -> noise.Noise | None:
        """The common path on these times, from its start."""
        if not sampler.random:
            return None
        dim, (common, own) = (
            self.oracle.law.dim,
            self._generator(2).integers(2**32, size=2).tolist(),
        )
        if sampler.strong is None or sampler.evaluations != 1:
            return _Twice(noise.Sequential(own, self.n, dim, torch.float64))
        if self._path is None:
            self._path = noise.Stored.drawn(common, self.n, dim, self.fine)
        return _Twice(self._path.on(grid))


class _Twice(noise.Noise):
    """The numbers of another noise for its rows, and once more for as many further rows."""

    def __init__(self, source: noise.Noise) -> None:
        super().__init__(2 * source.n, source.dim, source.dtype, str(source.device))
        self.source = source

    def _next(self, area: bool) -> torch.Tensor:
        z = self.source._next(area)
        return torch.cat([z, z])
