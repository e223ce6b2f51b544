"""Evaluation of trained networks, all seeds of a choice at once, against the exact model.

    times       nodes of a quadrature in the log-SNR r, so that int dr and E_t are weighted sums
    error       e(t) = E_(p_t) |eps_model - E[eps | x_t]|^2; 1/2 int e dr, Girsanov's bound, in nats
    samples     from starts in the exact p_T, so that what is wrong is the score's
    gradients   of every row of a batch, for the noise that training sees
    ratios      of two choices over the same seeds, by the delta method or geometric

Conventions: the S members of an `ensembles.Ensemble` come before points and times; starts and true
samples have a generator or a seed for each member, and are the same for every model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import losses, metrics, weightings
from .arrays import finite, numpy
from .distances import QuantileCells, wasserstein_to_quantiles
from .errors import ArgumentError, number, whole
from .estimates import Estimate, mean_and_error
from .models import Model, Oracle
from .network import Network
from .process import Process
from .quadrature import panels
from .targets import Target

Metric = Callable[..., Estimate]


@dataclass(frozen=True)
class Nodes:
    """Times at which networks are measured, (M,) each, from the noise to the data.

    t : the times. level : their log-SNRs r. width : weights of int dr. share : weights of E_t, t
    uniform from the earliest time to T.

    >>> import diffscience as ds
    >>> nodes = Nodes.of(ds.VP(), 1e-3, 24)
    >>> len(nodes.t), round(float(nodes.share.sum()), 6)
    (24, 1.0)
    """

    t: np.ndarray
    level: np.ndarray
    share: np.ndarray
    width: np.ndarray

    @classmethod
    def of(cls, process: Process, earliest: float, order: int, pieces: int = 1) -> Nodes:
        """Gauss-Legendre nodes in r, `order` in each of some even pieces.

        earliest : the least time as a share of T, in (0, 1).

        Raises ArgumentError for a process that has no data left at T, as `RectifiedFlow`.
        """
        number("earliest", earliest, 0, 1, "()")
        whole("order", order, 1)
        whole("pieces", pieces, 1)
        first = earliest * process.T
        low, high = (float(process.log_snr(t)) for t in (process.T, first))
        if not math.isfinite(low):
            raise ArgumentError("process", "have a finite log-SNR at T", low)
        level, width = panels(np.linspace(low, high, pieces + 1), order)
        t = np.asarray(process.time_of_log_snr(level))
        slope = np.asarray(weightings.likelihood(process, t))  # -dr/dt
        return cls(t, level, width / slope / (process.T - first), width)


def eps_errors(
    model: Model, oracle: Oracle, t: np.ndarray, n: int | None = None, generator: Any = None
) -> np.ndarray:
    """E_(p_t) |eps_model - E[eps | x_t]|^2 = sigma^2 E|s_model - s|^2 at times (M,).

    (S, M) for a model of S members, (M,) for one that has no members.

    n, generator : as for `metrics.fisher_error`, by quadrature where n is None. Members have the
    same points, whose chance errors over members do not show.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> eps_errors(oracle, oracle, np.array([0.1, 0.5])).tolist()
    [0.0, 0.0]
    """
    found = metrics.fisher_error(model, oracle, t, n, generator).value
    return np.asarray(oracle.process.var(t) * np.asarray(found).T)


def eps_energy(oracle: Oracle, t: np.ndarray) -> np.ndarray:
    """E_(p_t) |E[eps | x_t]|^2 at times (M,), by quadrature: what a model that answers 0 has.

    >>> import diffscience as ds
    >>> normal = ds.GaussianMixture([1.0], [[0.0]], [[1.0]])  # E[eps | x_t] = sigma x_t
    >>> bool(abs(eps_energy(ds.Oracle(normal, ds.VP()), np.array([1.0]))[0] - 1) < 1e-4)
    True
    """
    found = []
    for when in t:
        x, w = oracle.at(float(when)).quadrature()
        found.append(float(w @ np.sum(np.square(oracle.eps(x, float(when))), axis=-1)))
    return np.array(found)


def starts(oracle: Oracle, n: int, generators: Sequence[np.random.Generator]) -> np.ndarray:
    """n points of p_T for each generator, (S, n, D): random in the plane.

    On the line quantiles of the lattice (0, 1, ..., n - 1)/n with one random shift, which are
    nearer to p_T than random points.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> starts(oracle, 50, [np.random.default_rng(k) for k in range(3)]).shape
    (3, 50, 1)
    """
    whole("n", n, 1)
    end = oracle.at(oracle.process.T)
    if end.dim > 1:
        return np.stack([np.asarray(end.sample(n, draws)) for draws in generators])
    lattices = [(np.arange(n) + draws.random()) / n for draws in generators]
    return np.stack([np.asarray(end.quantile(u)).reshape(n, 1) for u in lattices])


def distances(
    x: np.ndarray, law: Target, seeds: Sequence[int], metric: Metric = metrics.energy_distance
) -> np.ndarray:
    """Of samples (..., S, n, D) from a law: W1 on the line, exact, else by a metric; (..., S).

    metric : of `metrics`, between samples and law; the true samples that it draws are those of a
    member's seed, one of S, and so the same for every model.

    Raises ArgumentError for samples of another shape, and for NaN and infinity.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> x = law.quantile((np.arange(100) + 0.5) / 100).reshape(1, 100, 1)
    >>> round(float(distances(x + 3.0, law, [0])[0]), 2)
    3.0
    """
    x = numpy(finite("x", x))
    if x.ndim < 3 or x.shape[-3] != len(seeds) or x.shape[-1] != law.dim:
        rule = f"be samples (..., {len(seeds)}, n, {law.dim}), one set for each seed"
        raise ArgumentError("x", rule, f"shape {x.shape}")
    cells = QuantileCells.of(law, x.shape[-2]) if law.dim == 1 else None

    def distance(own: np.ndarray, seed: int) -> float:
        if cells is not None:
            return wasserstein_to_quantiles(own, cells, 1)[0]
        return float(metric(own, law, seed, repeats=0).value)

    rows = x.reshape(-1, *x.shape[-3:])
    found = [[distance(own, seed) for own, seed in zip(row, seeds, strict=True)] for row in rows]
    return np.array(found).reshape(x.shape[:-2])


def row_gradients(
    network: Network, x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """Of g, a row's gradient of |noise - eps_model|^2: E|g|^2 (B,), E g (B, parameters) in blocks.

    x0, noise : (B n, D); t : (B n,); a block is n rows on end. Parameters come layer by layer, the
    weights of a layer and then its biases. In a dense layer g is the product of the derivative at
    its output and its input, so that one backward pass gives the sizes of all rows (Goodfellow
    2015, arXiv:1510.01799).

    network : one whose net has all its parameters in dense layers with biases (else ArgumentError),
        of its own each and passed once by a row, as those of `nets.MLP`.

    >>> import diffscience as ds
    >>> network = ds.Network(ds.nets.MLP(1, widths=(8,), seed=0), ds.VP())
    >>> rows = torch.zeros(6, 1), torch.full((6,), 0.5), torch.ones(6, 1)
    >>> square, mean = row_gradients(network, *rows, blocks=2)  # all rows are alike
    >>> bool(np.allclose(square, np.sum(mean**2, axis=1)))
    True
    """
    whole("blocks", blocks, 1)
    if len(x0) % blocks:
        raise ArgumentError("blocks", f"divide the {len(x0)} rows", blocks)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    layers = [m for m in network.net.modules() if isinstance(m, torch.nn.Linear)]
    dense = {id(p) for m in layers for p in (m.weight, m.bias)}
    if not layers or dense != {id(p) for p in network.net.parameters()}:
        rule = "have all its parameters in dense layers with biases"
        raise ArgumentError("network", rule, type(network.net).__name__)
    hooks = [
        layer.register_forward_hook(lambda _, given, out: seen.append((given[0].detach(), out)))
        for layer in layers
    ]
    try:
        rows = losses.weighted(network, x0, t, noise)
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen) != len(layers):
        raise ArgumentError("network", "pass every layer once", f"{len(seen)} of {len(layers)}")
    slopes = torch.autograd.grad(rows.sum(), [out for _, out in seen])
    size: Any = 0.0
    means = []
    for (h, _), d in zip(seen, slopes, strict=True):
        h, d = (a.double().reshape(blocks, -1, a.shape[-1]) for a in (h, d))
        size = size + (d * d).sum(-1) * (1 + (h * h).sum(-1))
        means += [torch.einsum("bni,bnj->bij", d, h).flatten(1) / h.shape[1], d.mean(1)]
    return size.mean(1).cpu().numpy(), torch.cat(means, dim=1).cpu().numpy()


def ratio(over: np.ndarray, under: np.ndarray) -> tuple[Any, Any]:
    """The ratio of two means over the same seeds (S, ...) and its error, by the delta method.

    Cochran, "Sampling Techniques", 1977, 6.4.

    >>> ratio(np.array([2.0, 4.0]), np.array([1.0, 2.0]))
    (2.0, 0.0)
    """
    mean = under.mean(axis=0)
    value = over.mean(axis=0) / mean
    error = mean_and_error((over - value * under) / mean)[1]
    return (value, error) if np.ndim(value) else (float(value), float(error))


def times_worse(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """The geometric mean of ours/theirs over seeds (S,) and its standard error.

    >>> times_worse(np.array([2.0, 2.0]), np.array([1.0, 1.0]))
    (2.0, 0.0)
    """
    mean, error = mean_and_error(np.log(ours / theirs))
    return math.exp(mean), math.exp(mean) * error
