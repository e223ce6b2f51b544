"""The variance of a reverse step: what it may be, which is best, and how a network learns it.

Of a step from t to an earlier s, with a = alpha(t)/alpha(s) and b = var(t) - a^2 var(s) (beta_k for
neighbours k - 1, k on a chain), the bridge is

    q(x_s | x_t, x0) = N(mean(x_t, x0), btilde I),   btilde = b var(s)/var(t),
    d mean/d x0 = c = alpha(s) b/var(t)

and N(mean(x_t, x0_model), s2) stands for q(x_s | x_t). What s2 may be:

    mix        log s2 = mix log b + (1 - mix) log btilde, an option of samplers and bounds
    exact      Cov[x_s | x_t] = btilde I + c^2 Cov[x0 | x_t], the best for the exact mean; of all
               diagonal ones its diagonal, of all multiples of I its mean eigenvalue
    analytic   one number for all x_t: btilde + c^2 E tr Cov[x0 | x_t]/D
               = btilde + b^2/(a^2 var(t)) (1 - E|E[eps | x_t]|^2/D)      (Bao et al. 2022, thm 1)
    learned    log s2 = v log b + (1 - v) log btilde, v = (1 + y)/2, y the second half of what the
               net answers, in no way bounded                   (Nichol and Dhariwal 2021, eq. 15)

Conventions: a variance is a function (model, x, s, t) -> (x0, s2), the model's x0 at (x, t) and the
variance of the step from t to s, which for a network is one evaluation. s2 is a number, (*b, D) for
a diagonal, or (*b, D, D). `samplers.ancestral`, `bounds.bound` and `bounds.best_bound` take any.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import weightings
from .arrays import Array, Draws, finite, like, namespace, numpy, wide
from .chain import Chain
from .errors import ArgumentError, function, instance, number
from .losses import eps_error, noised
from .models import Model, Oracle
from .process import Process
from .transition import floating
from .weightings import uncertainty

Variance = Callable[[Model, Array, float, float], tuple[Array, Array]]

KINDS = ("full", "diagonal", "isotropic")


def bridge(process: Process, s: float, t: float) -> tuple[float, float, float]:
    """c, b and btilde of the step from t to s.

    >>> import diffscience as ds
    >>> [round(value, 12) for value in bridge(ds.EDM(), 1.0, 2.0)]
    [0.75, 3.0, 0.75]
    """
    b, var_s, var_t = process.between(s, t).var, process.var(s), process.var(t)
    return float(process.alpha(s) * b / var_t), float(b), float(b * var_s / var_t)


# ---------------------------------------------------------------- from the oracle


def exact(oracle: Oracle, kind: str = "full") -> Variance:
    """btilde I + c^2 Cov[x0 | x_t] of the oracle, whose model need not be the one that samples.

    kind : "full"; "diagonal", its diagonal; or "isotropic", the mean of that.

    >>> import diffscience as ds
    >>> chain = ds.Chain.linear(4, 0.1, 0.4)
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), chain)
    >>> _, s2 = exact(oracle)(oracle, np.zeros((1, 1)), 2.0, 3.0)
    >>> bool(np.isclose(s2[0, 0, 0], chain.betas[2]))  # of N(0, 1) it is beta
    True
    """
    instance("oracle", oracle, Oracle)
    if kind not in KINDS:
        raise ArgumentError("kind", f"be one of {', '.join(KINDS)}", kind)

    def variance(model: Model, x: Array, s: float, t: float) -> tuple[Array, Array]:
        c, _, small = bridge(model.process, s, t)
        cov = wide(oracle.posterior_cov(x, t))
        xp = namespace(cov)
        eye = like(np.eye(cov.shape[-1]), cov)
        if kind == "full":
            return model.x0(x, t), small * eye + c * c * cov
        diagonal = xp.sum(eye * cov, axis=-1)
        if kind == "isotropic":
            diagonal = xp.mean(diagonal, axis=-1, keepdims=True) + 0.0 * diagonal
        return model.x0(x, t), small + c * c * diagonal

    return variance


def analytic(source: Oracle | np.ndarray) -> Variance:
    """One number for each step, the best of those (Bao et al. 2022, theorem 1).

    source : an oracle, for its exact E tr Cov[x0 | x_t]/D (D <= 2); or, for a chain, the (K,)
        numbers 1 - E|eps|^2/D of `unexplained`. Neither is cut off to an interval.

    >>> import diffscience as ds
    >>> chain = ds.Chain.linear(4, 0.1, 0.4)
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), chain)
    >>> _, s2 = analytic(oracle)(oracle, np.zeros((1, 1)), 2.0, 3.0)
    >>> bool(np.isclose(s2, chain.betas[2]))
    True
    """
    if not isinstance(source, Oracle):
        left = numpy(finite("source", source, (None,)))
    known: dict[float, float] = {}

    def variance(model: Model, x: Array, s: float, t: float) -> tuple[Array, Array]:
        process = model.process
        c, b, small = bridge(process, s, t)
        if isinstance(source, Oracle):
            if t not in known:
                known[t] = uncertainty(source, t) / source.law.dim
            return model.x0(x, t), small + c * c * known[t]
        if not isinstance(process, Chain) or len(left) != process.K:
            raise ArgumentError("source", f"hold a number for each step of {process}", len(left))
        a = float(process.alpha(t) / process.alpha(s))
        return model.x0(x, t), small + (b / a) ** 2 / process.var(t) * float(left[int(t) - 1])

    return variance


def unexplained(model: Model, x0: Array, generator: Any) -> tuple[np.ndarray, np.ndarray]:
    """1 - E|eps_model(x_k, k)|^2/D for k = 1..K of a chain and the standard errors, (K,) each.

    The share of the noise that the model does not explain, if it is exact: with E|eps|^2/D =
    sigma^2 Gamma and Gamma = E|score|^2/D, the factor 1 - sigma^2 Gamma of theorem 1 of Bao et al.
    2022. From data x0 (n, D) with one noise for each point and step.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.Chain.linear(3, 0.1, 0.4))
    >>> left, error = unexplained(oracle, oracle.law.sample(4000, 0), 1)
    >>> bool(abs(left[2] - ds.weightings.best_simple(oracle, 3.0)) < 5 * error[2])
    True
    """
    chain, x0 = on_chain(model), floating("x0", x0)
    finite("x0", x0)
    if x0.ndim != 2 or len(x0) < 2:
        raise ArgumentError("x0", "be two or more points (n, D)", tuple(x0.shape))
    draws, (n, dim) = Draws(generator), x0.shape
    rows = np.empty((chain.K, n))
    for k in range(1, chain.K + 1):
        noise = namespace(x0).astype(like(draws.normal(n, dim), x0), x0.dtype, copy=False)
        eps = numpy(wide(model.eps(noised(chain, x0, float(k), noise), float(k))))
        rows[k - 1] = 1 - np.mean(eps * eps, axis=-1)
    return rows.mean(axis=1), rows.std(axis=1, ddof=1) / math.sqrt(n)


# ---------------------------------------------------------------- learned


def learned(model: Any, x: Array, s: float, t: float) -> tuple[Array, Array]:
    """x0 and the diagonal (*b, D) of a `Network` with a learned variance; itself a variance.

    Between any two times of its chain (Nichol and Dhariwal 2021, section 3.1). A step to 0, whose
    btilde is 0, takes in its place that of the step from t to 1, and btilde_2 where t = 1, as the
    programs of that paper do.

    >>> import diffscience as ds
    >>> net = ds.nets.MLP(2, widths=(8,), outputs=4)
    >>> model = ds.Network(net, ds.Chain.linear(10), "eps", variance=True)
    >>> x0, s2 = learned(model, np.zeros((3, 2)), 4.0, 5.0)
    >>> x0.shape, s2.shape
    ((3, 2), (3, 2))
    """
    chain = on_chain(model)
    _, b, small = bridge(chain, s, t)
    if s == 0:
        small = chain.variances()[0] if t == 1 else bridge(chain, 1.0, t)[2]
    x0, y = model.x0_and_half(x, t)
    low, high = math.log(small), math.log(b)
    return x0, namespace(x0).exp(low + 0.5 * (1 + wide(y)) * (high - low))


def hybrid(network: Any, x0: Array, t: Array, noise: Array, scale: float = 1e-3) -> Array:
    """|eps - eps_model|^2 + scale K L_t of each row, (n,): L_simple + scale L_vlb in the mean.

    L_t is the term of the variational bound in nats, with the learned variance; its mean is held
    fixed, so that it teaches the variance alone (Nichol and Dhariwal 2021, eq. 16 and below). L_K
    does not depend on the network and is left out.

    network : a `Network` of a chain with a learned variance.
    t : (n,) of 1..K, uniform.

    >>> import torch, diffscience as ds
    >>> net = ds.nets.MLP(1, widths=(8,), outputs=2)
    >>> model = ds.Network(net, ds.Chain.linear(10), "eps", variance=True)
    >>> hybrid(model, torch.zeros(3, 1), torch.tensor([1.0, 2, 9]), torch.ones(3, 1)).shape
    torch.Size([3])
    """
    number("scale", scale, 0)
    chain = on_chain(network)
    y, half = network.halves(noised(chain, x0, t, noise), t)
    off = eps_error(network, y, x0, t, noise, weightings.simple)
    k, low = np.arange(1, chain.K + 1), np.log(chain.variances())
    # c |x0 error| = b/(a sigma) |eps error|
    slope = chain.betas / np.sqrt((1 - chain.betas) * chain.var(k))
    table = like(np.stack([low, np.log(chain.betas) - low, slope, k == 1], axis=-1), off)
    xp = namespace(off)
    rows = xp.astype(xp.take(table, xp.astype(like(t, off), xp.int64) - 1, axis=0), off.dtype)
    low, width, slope, first = (rows[..., i : i + 1] for i in range(4))
    log_s2 = low + 0.5 * (1 + half) * width
    inverse = xp.exp(-log_s2)
    # Of a divergence; of the log-density at k = 1.
    rest = (1 - first) * (xp.exp(low) * inverse - 1 - low) + first * math.log(2 * math.pi)
    bound = 0.5 * (log_s2 + (slope * off.detach()) ** 2 * inverse + rest)
    return xp.sum(off * off + scale * chain.K * bound, axis=-1)


def on_chain(model: Model) -> Chain:
    """The chain of a model; ArgumentError where its process is none."""
    instance("model", model, Model)
    if not isinstance(model.process, Chain):
        raise ArgumentError("model", "belong to a discrete Chain", model.process)
    return model.process


def alone(mix: float, variance: Variance) -> Variance:
    """The variance, checked to stand without a mix beside it."""
    function("variance", variance)
    if mix != 0:
        raise ArgumentError("mix", "be left out where a variance is given", mix)
    return variance


# ---------------------------------------------------------------- any of them


@dataclass(frozen=True)
class Spread:
    """A covariance beside points (*b, D): its eigenvalues (*b, D), its axes where not diagonal."""

    values: Array
    axes: Array | None = None

    @classmethod
    def of(cls, s2: Array, x: Array) -> Spread:
        """Of a number, a diagonal (*b, D) or a matrix (*b, D, D).

        >>> Spread.of(4.0, np.zeros((3, 2))).root(np.ones((3, 2))).tolist()[0]
        [2.0, 2.0]
        """
        s2 = wide(like(s2, x))
        xp = namespace(s2)
        if s2.ndim != x.ndim + 1:
            return cls(xp.broadcast_to(s2, x.shape))
        values, axes = xp.linalg.eigh(s2)
        return cls(xp.clip(values, 0.0, None), axes)

    def _along(self, off: Array) -> Array:
        """off (*b, D) in the axes."""
        if self.axes is None:
            return off
        return namespace(off).sum(self.axes * off[..., :, None], axis=-2)

    def root(self, z: Array) -> Array:
        """The symmetric root times z, (*b, D): of this covariance for z of covariance I."""
        xp = namespace(z)
        scaled = xp.sqrt(self.values) * self._along(z)
        return scaled if self.axes is None else xp.sum(self.axes * scaled[..., None, :], axis=-1)

    def squared(self, off: Array) -> Array:
        """off^T S^-1 off, (*b)."""
        return namespace(off).sum(self._along(off) ** 2 / self.values, axis=-1)

    def ratio(self, cov: Array) -> Array:
        """tr S^-1 cov, (*b)."""
        xp = namespace(cov)
        if self.axes is None:
            turned = xp.sum(like(np.eye(cov.shape[-1]), cov) * cov, axis=-1)
        else:
            turned = xp.sum(self.axes * xp.matmul(cov, self.axes), axis=-2)
        return xp.sum(turned / self.values, axis=-1)

    @property
    def log_det(self) -> Array:
        """The log of the determinant, (*b)."""
        xp = namespace(self.values)
        return xp.sum(xp.log(self.values), axis=-1)
