"""Likelihood along the probability flow: an exact change of variables, for any model.

    d log p_t(x_t)/dt = -div velocity(x_t, t)          along dx/dt = velocity(x, t)
    log p_0(x) = log p_T(x_T) + int_0^T div velocity(x_t, t) dt

(Chen et al. 2018; Song et al. 2021, section 4.3.) The divergence is the trace of the Jacobian J:

    exact           tr J, by D backward passes, or in closed form where the model is an `Oracle`
    hutchinson      v.J v, E v v^T = I, one fixed v for a whole path (Skilling 1989; Hutchinson
                    1990); several v give the estimate its standard error

Conventions: points (n, D); log-densities in nats. Bits per dimension are nats/(D log 2), of the
density: nothing is added for the width of a pixel, as is right for points of the line and plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from . import fused, solvers, states
from .arrays import Array, numpy
from .errors import ArgumentError, instance, number, whole
from .estimates import Estimate
from .losses import directions
from .models import Counted, Model, Oracle
from .targets import Target

TRACES = ("exact", "hutchinson")


@dataclass(frozen=True)
class Likelihood:
    """log p_0 of some points under a model.

    log_prob : (n,), nats. error : (n,) standard error over the probes, 0 for the exact trace.
    latent : (n, D), where the points are at the end of the flow.
    evaluations : of the velocity and its divergence.
    """

    log_prob: np.ndarray
    error: np.ndarray
    latent: np.ndarray
    evaluations: int

    def nats(self) -> Estimate:
        """-log p_0 in the mean over the points, with the standard error over fresh points."""
        n = len(self.log_prob)
        spread = float(np.std(self.log_prob, ddof=1)) if n > 1 else math.nan
        return Estimate(-float(np.mean(self.log_prob)), spread / math.sqrt(n), n=n)

    def bits_per_dim(self) -> Estimate:
        """The same in bits per dimension."""
        nats, unit = self.nats(), self.latent.shape[1] * math.log(2)
        return Estimate(nats.value / unit, nats.error / unit, n=nats.n)


def log_prob(
    model: Model,
    x: Array,
    *,
    trace: str = "exact",
    probes: int = 16,
    directions_of: str = "rademacher",
    generator: Any = None,
    prior: Target | None = None,
    start: float = 0.0,
    end: float | None = None,
    method: str = "dopri5",
    rtol: float = 1e-6,
    atol: float = 1e-6,
    chunk: int | None = None,
    steps: int | None = None,
    device: str | None = None,
) -> Likelihood:
    """log p_start of points under the probability flow of a model, exact or learned.

    Parameters
    ----------
    x : (n, D) points, computed on in float64; the answer is NumPy's.
    trace : "exact" or "hutchinson".
    probes, directions_of, generator : number and law ("rademacher", "gaussian") of the directions.
    prior : the law at `end`; where left out the exact one of an `Oracle`, else N(0, var I).
    start, end : times of the flow; 0 and T where left out.
    method, rtol, atol, chunk : as for `solvers.ode`.
    steps : number of steps of a method of fixed ones, even in t; the others choose their own.
    device : where NumPy points are computed on; a tensor stays where it is.

    Raises ArgumentError as `solvers.ode` does, a model that is not finite at some t among it.

    >>> import diffscience as ds
    >>> law = ds.gallery.julia_bimodal()
    >>> x = law.sample(20, 0)
    >>> found = log_prob(ds.Oracle(law, ds.VP()), x, rtol=1e-9, atol=1e-9)
    >>> bool(np.abs(found.log_prob - law.log_prob(x)).max() < 1e-6)
    True
    """
    instance("model", model, Model)
    if trace not in TRACES:
        raise ArgumentError("trace", f"be one of {', '.join(TRACES)}", trace)
    if directions_of not in ("rademacher", "gaussian"):
        raise ArgumentError("directions_of", "be rademacher or gaussian", directions_of)
    process = model.process
    last = process.T if end is None else end
    number("end", last, 0, process.T, "(]")
    number("start", start, 0, last, "[)")
    if (steps is None) == (method in solvers.FIXED):
        rule = "be given for a method of fixed steps, and for no other"
        raise ArgumentError("steps", rule, f"{steps} for {method}")
    whole("steps", 1 if steps is None else steps, 1)
    times = np.linspace(float(start), float(last), 1 + (steps or 1))
    points = solvers.placed(x, device)[0].to(torch.float64)
    n, dim = points.shape
    v = None
    if trace == "hutchinson":
        whole("probes", probes, 2)
        if generator is None:
            raise ArgumentError("generator", "be given for the directions", generator)
        drawn = directions(n * probes, dim, generator, directions_of)
        v = torch.as_tensor(numpy(drawn)).reshape(n, probes, dim).to(points)
    law = _prior(model, dim, float(last)) if prior is None else prior
    chunk = solvers.uncut(model, points, chunk)
    size = max(n, 1) if chunk is None else chunk
    whole("chunk", size, 1)
    parts, most = [], 0
    for rows in (slice(i, i + size) for i in range(0, n, size)):
        along = _Along(model, points[rows], None if v is None else v[rows])
        with fused.counted_as(n):
            run = solvers.ode(
                along, along.begin, times, method=method, rtol=rtol, atol=atol, root=solvers.ROOT,
                chunk=solvers.uncut(model, along.begin, None),
            )  # fmt: skip
        parts.append(numpy(run.last))
        most = max(most, run.evaluations)
    ends = np.concatenate(parts) if parts else np.zeros((0, dim + 1))
    latent, change = ends[:, :dim], ends[:, dim:]
    error = np.zeros(n) if v is None else change.std(axis=1, ddof=1) / math.sqrt(probes)
    return Likelihood(numpy(law.log_prob(latent)) + change.mean(axis=1), error, latent, most)


class _Along:
    """The flow of (x, int tr J) or of (x, int v.J v for every v): (n, D + 1) or (n, D + P)."""

    def __init__(self, model: Model, x: torch.Tensor, v: torch.Tensor | None) -> None:
        self.model, self.dim, self.v = model, x.shape[1], v
        width = 1 if v is None else v.shape[1]
        self.begin = torch.cat([x, x.new_zeros(len(x), width)], dim=1)

    def __call__(self, y: torch.Tensor, t: float) -> torch.Tensor:
        x = y[:, : self.dim].contiguous()
        velocity, change = _flow_and_change(self.model, x, t, self.v)
        change = states.checked(change, y[:, self.dim :], t, "trace")
        return torch.cat([states.checked(velocity, x, t, "velocity"), change], dim=1)


def _prior(model: Model, dim: int, end: float) -> Target:
    from .mixture import GaussianMixture

    inner = model.model if isinstance(model, Counted) else model
    if isinstance(inner, Oracle):
        law: Target = inner.at(end)
        return law
    var = model.process.var(end)
    return GaussianMixture([1.0], np.zeros((1, dim)), np.full((1, dim), var))


def _flow_and_change(
    model: Model, x: torch.Tensor, t: float, v: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """velocity (n, D) and tr J (n, 1), or v.J v for v (n, P, D): (n, P)."""
    if isinstance(model, Oracle):
        J = jacobian(model, x, t)
        velocity = model.velocity(x, t)
        if v is None:
            return velocity, torch.diagonal(J, dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return velocity, torch.einsum("npi,nij,npj->np", v, J, v)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        velocity = model.velocity(x, t)
        if v is None:
            parts = [_pull(velocity[:, i], x)[:, i] for i in range(x.shape[1])]
            change = torch.stack(parts).sum(0)[:, None]
        else:
            pulls = [(_pull((velocity * d).sum(-1), x) * d).sum(-1) for d in v.unbind(1)]
            change = torch.stack(pulls, dim=1)
    return velocity.detach(), change.detach()


def _pull(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    [slope] = torch.autograd.grad(y.sum(), x, retain_graph=True)
    return slope


def jacobian(oracle: Oracle, x: Array, t: float) -> Array:
    """The Jacobian of the velocity of an oracle, (n, D, D), in closed form.

    With H the Hessian of log p_t and C = Cov[X_0 | x_t]:

        J = f I - g^2/2 H                                                   where alpha^2 >= var
        J = (sigma^2)'/(2 var) I + (alpha' - (sigma^2)' alpha/(2 var)) alpha/var C      elsewhere

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[4.0]]]), ds.VP())
    >>> J = jacobian(oracle, np.zeros((1, 1)), 0.3)
    >>> bool(abs(J[0, 0, 0] - (oracle.velocity([[1e-3]], 0.3)[0, 0] / 1e-3)) < 1e-9)
    True
    """
    instance("oracle", oracle, Oracle)
    process = oracle.process
    alpha, var = process.alpha(t), process.var(t)
    slope, growth = process.dalpha(t), 0.5 * process.dvar(t)
    if alpha * alpha >= var:
        H = oracle.at(t).hessian(x)
        return slope / alpha * _eye(H) + (slope * var / alpha - growth) * H
    C = oracle.posterior_cov(x, t)
    return growth / var * _eye(C) + (slope - growth * alpha / var) * alpha / var * C


def _eye(like: Array) -> Any:
    eye = np.eye(like.shape[-1])
    return torch.as_tensor(eye).to(like) if isinstance(like, torch.Tensor) else eye
