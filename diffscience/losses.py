"""Objectives: what a network is trained on, from explicit score matching to denoising diffusion.

With J psi its Jacobian and X ~ p (Hyvarinen 2005; Vincent 2011; Song et al. 2019):

    explicit            1/2 |psi - s|^2                             needs s
    implicit            tr J psi + 1/2 |psi|^2                      = explicit - C in the mean
    finite_difference   the same, psi and its derivatives from psi(x +- delta_i e_i)
    sliced              v.J psi v + 1/2 (v.psi)^2, E v v^T = I      = implicit, averaged over v
    sliced_reduced      v.J psi v + 1/2 |psi|^2                     = implicit, averaged over v
    sliced_explicit     1/2 (v.(psi - s))^2                         = explicit, averaged over v
    parzen              1/2 |psi - s_h|^2, s_h the score of the points' Parzen estimate
    denoising_at        1/2 |psi(x') + z/sigma|^2, x' = alpha x + sigma z
                                                    = explicit at p_sigma + C_sigma in the mean
    multilevel          the mean of lambda(sigma_i) denoising_at over the levels (NCSN)
    score_denoising     lambda(t) |score_model(x_t, t) + z/sigma(t)|^2, any process and weighting
    simple              |z - eps_model(x_t, t)|^2                       (Ho et al. 2020, eq. 14)
    weighted            w(t) |z - eps_model(x_t, t)|^2, any of `weightings`, by what is predicted

    C = 1/2 E|s|^2,     C_sigma = 1/2 (D/sigma^2 - E|s_sigma|^2)

Conventions: psi is a function of x (n, D), tensors where a derivative is taken; of (x, level) fix
the level first, `lambda x: net(x, level)`. Every objective gives a number for each row, (n,); its
mean is minimised. None of them divides by D. The variational bound is in `bounds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from . import weightings
from .arrays import Array, Draws, finite, is_torch, like, namespace, numpy, paired, wide
from .errors import ArgumentError, function, instance, number, whole
from .models import Model
from .process import Process
from .targets import Target
from .transition import Transition, floating
from .weightings import Weighting

Loss = Callable[[Any, Array, Array, Array], Array]
Psi = Callable[[Array], Array]

DIRECTIONS = ("rademacher", "gaussian", "spherical")


def explicit(psi: Psi, x: Array, score: Array, weights: Array | None = None) -> Array:
    """1/2 |psi(x) - score|^2 of each row, (n,).

    score : (n, D), the true score at x.
    weights : of the rows, None for a sample; on a grid p(x), or p(x) times cell and number of rows
        for the mean to be the integral.

    The exact score has no loss, and a score of 0 has 1/2 |s|^2:

    >>> x = np.array([[1.0], [2.0]])
    >>> explicit(lambda x: -x, x, -x).tolist(), explicit(lambda x: 0 * x, x, -x).tolist()
    ([0.0, 0.0], [0.5, 2.0])
    """
    off = _answer(psi, x) - _of_shape("score", score, x)
    return _weighted(0.5 * namespace(off).sum(off * off, axis=-1), weights)


def implicit(psi: Psi, x: Array, regulariser: float = 0.0) -> Array:
    """tr J psi + 1/2 |psi|^2 + regulariser sum_i (d_i psi_i)^2 of each row, by D backward passes.

    Hyvarinen 2005, eq. 4; the regulariser is that of Kingma and LeCun 2010, eq. 6.

    >>> import torch
    >>> implicit(lambda x: -x, torch.tensor([[1.0, 2.0]])).tolist()  # -2 + 5/2
    [0.5]
    """
    diagonal, y = _diagonal(psi, x)
    rows = diagonal.sum(dim=-1) + 0.5 * (y * y).sum(dim=-1)
    return rows + regulariser * (diagonal * diagonal).sum(dim=-1) if regulariser else rows


def finite_difference(
    psi: Psi, x: Array, delta: float | Sequence[float], weights: Array | None = None
) -> Array:
    """sum_i (psi_i(x + d_i e_i) - psi_i(x - d_i e_i))/2d_i + 1/2 |mean of the 2 D psi|^2.

    One call of psi on 2 D n rows, and no derivative in x: as in the notes 1d_FD and 2d_FD of R.
    Rosa's random_notes (Pang et al. 2020 in general). O(delta^2) from `implicit`.

    delta : one positive number for all axes, or one for each.

    >>> finite_difference(lambda x: -x, np.array([[1.0, 2.0]]), 0.1).round(12).tolist()
    [0.5]
    """
    xp, (n, dim) = namespace(x), _rows(x)
    given = numpy(finite("delta", delta))
    if given.shape not in ((), (dim,)) or not np.all(given > 0):
        raise ArgumentError("delta", f"be positive, one number or {dim}", delta)
    deltas = np.broadcast_to(given, (dim,))
    shifts = xp.astype(like(np.diag(deltas), x), x.dtype)
    points = xp.concat([x + side * shifts[i] for i in range(dim) for side in (1, -1)], axis=0)
    values = xp.reshape(_answer(psi, points), (dim, 2, n, dim))
    slopes = [
        (values[i, 0, :, i] - values[i, 1, :, i]) / (2 * float(deltas[i])) for i in range(dim)
    ]
    mean = xp.mean(values, axis=(0, 1))
    return _weighted(sum(slopes) + 0.5 * xp.sum(mean * mean, axis=-1), weights)


def directions(n: int, dim: int, generator: Any, kind: str = "rademacher") -> Array:
    """Random directions (n, D) with E v v^T = I: "rademacher", "gaussian" or "spherical".

    Spherical ones are uniform on the sphere of radius sqrt(D).

    >>> v = directions(1000, 2, 0)
    >>> bool(np.all(np.abs(v) == 1)), bool(np.abs(v.T @ v / 1000 - np.eye(2)).max() < 0.1)
    (True, True)
    """
    whole("n", n, 0)
    whole("dim", dim, 1)
    if kind not in DIRECTIONS:
        raise ArgumentError("kind", f"be one of {', '.join(DIRECTIONS)}", kind)
    draws = Draws(generator)
    if kind == "rademacher":
        u = draws.uniform(n, dim)
        return namespace(u).where(u < 0.5, -1.0 + 0 * u, 1.0 + 0 * u)
    v = draws.normal(n, dim)
    if kind == "gaussian":
        return v
    xp = namespace(v)
    return v * (math.sqrt(dim) / xp.sqrt(xp.sum(v * v, axis=-1)))[:, None]


def sliced(psi: Psi, x: Array, v: Array) -> Array:
    """v.J psi v + 1/2 (v.psi)^2 of each row; v from `directions` (Song et al. 2019, eq. 7).

    >>> import torch
    >>> x, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]])
    >>> sliced(lambda x: -x, x, v).tolist()  # -2 + 1/2
    [-1.5]
    """
    slope, along, _ = _along(psi, x, v)
    return slope + 0.5 * along * along


def sliced_reduced(psi: Psi, x: Array, v: Array) -> Array:
    """v.J psi v + 1/2 |psi|^2: the variance-reduced form, SSM-VR (Song et al. 2019, section 3).

    >>> import torch
    >>> x, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, -1.0]])
    >>> sliced_reduced(lambda x: -x, x, v).tolist()  # -2 + 5/2
    [0.5]
    """
    slope, _, y = _along(psi, x, v)
    return slope + 0.5 * (y * y).sum(dim=-1)


def sliced_explicit(psi: Psi, x: Array, score: Array, v: Array) -> Array:
    """1/2 (v.(psi - score))^2 of each row.

    >>> x, v = np.array([[1.0, 2.0]]), np.array([[1.0, -1.0]])
    >>> sliced_explicit(lambda x: 0 * x, x, -x, v).tolist()
    [0.5]
    """
    off = _answer(psi, x) - _of_shape("score", score, x)
    along = namespace(x).sum(off * _beside("v", v, x), axis=-1)
    return 0.5 * along * along


def parzen(psi: Psi, x: Array, points: Array, bandwidth: float) -> Array:
    """`explicit` against the score of the Gaussian kernel estimate of `points` (m, D).

    >>> parzen(lambda x: -x, np.array([[2.0]]), np.array([[0.0]]), bandwidth=1.0).tolist()
    [0.0]
    """
    from .gallery import empirical

    number("bandwidth", bandwidth, 0, ends="()")
    law = empirical(points).blurred(bandwidth)
    return explicit(psi, x, law.score(x))


def denoising_at(psi: Psi, x0: Array, noise: Array, transition: Transition) -> Array:
    """1/2 |psi(x') + noise/sqrt(var)|^2, x' = scale x0 + sqrt(var) noise (Vincent 2011, eq. 9).

    >>> x0, z = np.array([[0.0]]), np.array([[1.0]])
    >>> denoising_at(lambda x: -x / 4, x0, z, Transition(1.0, 4.0)).tolist()
    [0.0]
    """
    xp = namespace(x0)
    sigma = xp.sqrt(like(transition.var, x0))
    if not bool(xp.all(sigma > 0)):
        raise ArgumentError("transition", "have a positive variance", transition)
    pull = wide(noise) / (sigma[..., None] if sigma.ndim else sigma)
    off = _answer(psi, transition.apply(x0, noise)) + xp.astype(pull, x0.dtype)
    return 0.5 * xp.sum(off * off, axis=-1)


def multilevel(
    score: Callable[[Array, float], Array],
    x0: Array,
    noise: Array,
    sigmas: Sequence[float],
    weight: Callable[[float], float] = lambda sigma: sigma * sigma,
) -> Array:
    """The mean over the levels of weight(sigma_i) `denoising_at` at sigma_i, (n,).

    noise : (L, n, D), one for each level; (n, D) for one shared by all levels, as the note mdsm has
        it. weight : lambda(sigma) = sigma^2 by default (Song and Ermon 2019, eq. 6).

    Data at 0, whose score under noise of deviation sigma is -x/sigma^2:

    >>> x0, z = np.zeros((3, 1)), np.ones((2, 3, 1))
    >>> multilevel(lambda x, sigma: -x / sigma**2, x0, z, [1.0, 0.5]).tolist()
    [0.0, 0.0, 0.0]
    """
    levels = decreasing("sigmas", sigmas)
    shape = tuple(x0.shape)
    if tuple(noise.shape) not in (shape, (len(levels), *shape)):
        rule = f"have shape {shape}, or {(len(levels), *shape)} with one for each level"
        raise ArgumentError("noise", rule, f"shape {tuple(noise.shape)}")
    total = 0.0
    for i, sigma in enumerate(levels):
        z = noise[i] if noise.ndim > x0.ndim else noise
        step = Transition(1.0, sigma * sigma)
        total = total + weight(sigma) * denoising_at(partial(_fixed, score, sigma), x0, z, step)
    return total / len(levels)


def decreasing(name: str, levels: Sequence[float] | Array) -> list[float]:
    """The levels sigma_1 > ... > sigma_L > 0 as floats; ArgumentError if they are not.

    >>> decreasing("levels", [2, 1])
    [2.0, 1.0]
    """
    values = numpy(finite(name, levels, (None,)))
    if len(values) == 0 or np.any(np.diff(values) >= 0) or values[-1] <= 0:
        raise ArgumentError(name, "be decreasing positive numbers", values)
    return [float(s) for s in values]


# ---------------------------------------------------------------- denoising diffusion


def noised(process: Process, x0: Array, t: Array, noise: Array) -> Array:
    """x_t = alpha(t) x0 + sigma(t) noise, (*b, D), in the dtype of x0; t of shape (*b) or one.

    >>> import diffscience as ds
    >>> noised(ds.EDM(), np.array([[3.0]]), 2.0, np.array([[1.0]])).tolist()
    [[5.0]]
    """
    instance("process", process, Process)
    step, x0 = process.at(t), floating("x0", x0)
    if step.shape and paired("t", step.shape, tuple(x0.shape[:-1])) != tuple(x0.shape[:-1]):
        raise ArgumentError(
            "t", f"have shape {tuple(x0.shape[:-1])} as the points do", f"shape {step.shape}"
        )
    return step.apply(x0, noise)


def simple(model: Model, x0: Array, t: Array, noise: Array) -> Array:
    """|noise - eps_model(x_t, t)|^2 of each row, (*b); its mean is L_simple (Ho et al., eq. 14).

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[0.0]]]), ds.EDM())
    >>> simple(oracle, np.zeros((2, 1)), 2.0, np.ones((2, 1))).tolist()  # one point: x_t tells z
    [0.0, 0.0]
    """
    instance("model", model, Model)
    off = model.eps(noised(model.process, x0, t, noise), t) - noise
    return namespace(off).sum(off * off, axis=-1)


def denoising(model: Any, x0: Array, t: Array, noise: Array) -> Array:
    """Squared error of a `Network`'s own prediction against its target, (*b).

    The same as `simple` where the network predicts eps; otherwise `simple` under the weight that
    the parameterisation implies.

    >>> import torch, diffscience as ds
    >>> model = ds.Network(ds.nets.MLP(1, widths=(8,)), ds.VP(), predicts="eps")
    >>> x0, t, z = torch.zeros(4, 1), torch.full((4,), 0.5), torch.ones(4, 1)
    >>> torch.equal(denoising(model, x0, t, z), simple(model, x0, t, z))
    True
    """
    from .network import PREDICTIONS, Network

    instance("model", model, Network)
    x = noised(model.process, x0, t, noise)
    off = model.prediction(x, t) - PREDICTIONS[model.predicts].target(
        x0, noise, model.coefficients(x, t)
    )
    return namespace(off).sum(off * off, axis=-1)


def weighted(
    model: Model,
    x0: Array,
    t: Array,
    noise: Array,
    weight: Weighting = weightings.simple,
) -> Array:
    """weight(t) |noise - eps_model(x_t, t)|^2 of each row, (*b), for whatever a network predicts.

    Of a `Network` the error is taken in its own prediction y, times sqrt(weight) d eps/dy: no
    division loses digits, and rows are finite at the ends of time wherever the product is, in
    single precision too. Of any other model it is that of its eps.

    weight : (process, t) -> (*b), one of `weightings` or another.

    >>> import torch, diffscience as ds
    >>> model = ds.Network(ds.nets.MLP(1, widths=(8,)), ds.EDM(), predicts="x0")
    >>> x0, t, z = torch.zeros(4, 1), torch.full((4,), 2.0), torch.ones(4, 1)
    >>> rows = weighted(model, x0, t, z, ds.weightings.x0)  # 4 |z - eps|^2 = |x0 - x0_model|^2
    >>> torch.allclose(rows, denoising(model, x0, t, z))
    True
    """
    from .network import Network

    instance("model", model, Model)
    function("weight", weight)
    x = noised(model.process, x0, t, noise)
    if isinstance(model, Network):
        off = eps_error(model, model.prediction(x, t), x0, t, noise, weight)
    else:
        off = _rooted(like(weight(model.process, t), x), model.eps(x, t) - noise)
    return namespace(off).sum(off * off, axis=-1)


def eps_error(
    network: Any, prediction: Array, x0: Array, t: Array, noise: Array, weight: Weighting
) -> Array:
    """sqrt(weight) (eps_model - noise) of a `Network` whose prediction at (x_t, t) is known.

    (*b, D); the sum of its squares is `weighted`.
    """
    from .network import PREDICTIONS

    inner = weightings.inside(network.process, t)
    target = PREDICTIONS[network.predicts].target(x0, noise, network.coefficients(x0, inner))
    slope = network.slope(x0, inner)[..., 0]
    return _rooted(like(weight(network.process, t), x0), prediction - target, slope)


def _rooted(weight: Array, off: Array, slope: Array | float = 1.0) -> Array:
    """sqrt(weight) slope off: one factor of two that may be huge and tiny."""
    xp = namespace(off)
    factor = xp.astype(xp.sqrt(weight) * slope, off.dtype, copy=False)
    return off * (factor[..., None] if factor.ndim else factor)


def score_denoising(
    model: Model,
    x0: Array,
    t: Array,
    noise: Array,
    weight: Callable[[Process, Array], Array] | None = None,
) -> Array:
    """weight |score_model(x_t, t) + noise/sigma(t)|^2 of each row, (*b), in continuous time.

    weight : (process, t) -> (*b); sigma(t)^2 where left out, which is `simple` for the score
        (Song et al. 2021, eq. 7); g(t)^2 gives the likelihood weighting (Song et al. 2021b).

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), ds.EDM())
    >>> x0, z = np.array([[1.0]]), np.array([[1.0]])
    >>> score_denoising(oracle, x0, 1.0, z).round(12).tolist()  # x_t = 2, s = -1
    [0.0]
    """
    instance("model", model, Model)
    xp, var = namespace(x0), like(model.process.var(t), x0)
    if not bool(xp.all(var > 0)):
        raise ArgumentError("t", "lie where the process has noise", t)
    var = var[..., None] if var.ndim else var
    x = noised(model.process, x0, t, noise)
    off = model.score(x, t) + xp.astype(noise / xp.sqrt(var), x.dtype)
    rows = xp.sum(off * off, axis=-1)
    factor = like(model.process.var(t) if weight is None else weight(model.process, t), x0)
    return xp.astype(factor, rows.dtype) * rows


# ---------------------------------------------------------------- the constants between them


def explicit_constant(law: Target) -> float:
    """C = 1/2 E|s|^2, by which explicit exceeds implicit in the mean; D <= 2, by quadrature.

    >>> import diffscience as ds
    >>> round(explicit_constant(ds.GaussianMixture([1.0], [[0.0, 0.0]], [[4.0, 1.0]])), 12)
    0.625
    """
    x, w = law.quadrature()
    return 0.5 * float(w @ np.sum(law.score(x) ** 2, axis=-1))


def denoising_constant(law: Target, transition: Transition) -> float:
    """C_sigma = 1/2 (D/var - E|s_sigma|^2): denoising_at is explicit at p_sigma + C_sigma.

    >>> import diffscience as ds
    >>> law = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    >>> round(denoising_constant(law, Transition(1.0, 1.0)), 12)  # (1 - 1/2)/2
    0.25
    """
    return 0.5 * law.dim / float(transition.var) - explicit_constant(law.diffuse(transition))


# ---------------------------------------------------------------- what they share


def _fixed(score: Callable[[Array, float], Array], level: float, x: Array) -> Array:
    return score(x, level)


def _answer(psi: Psi, x: Array) -> Array:
    """psi(x), of the shape of x."""
    y = psi(x)
    if tuple(getattr(y, "shape", ())) != tuple(x.shape):
        shape = tuple(getattr(y, "shape", ()))
        raise ArgumentError("psi", f"answer with shape {tuple(x.shape)}", f"shape {shape}")
    return y


def _rows(x: Array) -> tuple[int, int]:
    """(n, D) of points."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) != 2:
        raise ArgumentError("x", "be points of shape (n, D)", f"shape {shape}")
    return shape


def _of_shape(name: str, value: Array, x: Array) -> Array:
    """The value, of the shape of x: another one would pair rows with each other."""
    shape = tuple(getattr(value, "shape", ()))
    if shape != tuple(x.shape):
        raise ArgumentError(name, f"have the shape of x, {tuple(x.shape)}", f"shape {shape}")
    return value


def _beside(name: str, value: Array, x: Array) -> Array:
    """The value in the library, dtype and device of x, and of its shape."""
    return namespace(x).astype(like(_of_shape(name, value, x), x), x.dtype)


def _weighted(rows: Array, weights: Array | None) -> Array:
    if weights is None:
        return rows
    if tuple(weights.shape) != tuple(rows.shape):
        rule = f"have shape {tuple(rows.shape)}, one for each row"
        raise ArgumentError("weights", rule, f"shape {tuple(weights.shape)}")
    return weights * rows


def _tracked(x: Array) -> Array:
    """x as a leaf of a graph of derivatives."""
    if not is_torch(x):
        raise ArgumentError("x", "be a tensor where a derivative in x is taken", type(x).__name__)
    return x if x.requires_grad else x.detach().requires_grad_()


def _gradient(y: Array, x: Array) -> Array:
    """The gradient of the sum of y in x; 0 where y does not depend on x."""
    import torch

    if not y.requires_grad:
        return torch.zeros_like(x)
    [slope] = torch.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def _outside(*values: Array, graph: bool) -> list[Array]:
    """The values with their graph of derivatives, or without where the caller keeps none."""
    return [value if graph else value.detach() for value in values]


def _diagonal(psi: Psi, x: Array) -> tuple[Array, Array]:
    """(d_i psi_i) and psi, (n, D) each, for a psi that treats the rows one by one."""
    import torch

    graph, (_, dim) = torch.is_grad_enabled(), _rows(x)
    with torch.enable_grad():
        x = _tracked(x)
        y = _answer(psi, x)
        slopes = [_gradient(y[:, i], x)[:, i] for i in range(dim)]
    diagonal, y = _outside(torch.stack(slopes, dim=-1), y, graph=graph)
    return diagonal, y


def _along(psi: Psi, x: Array, v: Array) -> tuple[Array, Array, Array]:
    """v.J psi v and v.psi, (n,) each, and psi; one backward pass in any dimension."""
    import torch

    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        x = _tracked(x)
        v, y = _beside("v", v, x), _answer(psi, x)
        along = (v * y).sum(dim=-1)
        slope = (v * _gradient(along, x)).sum(dim=-1)
    slope, along, y = _outside(slope, along, y, graph=graph)
    return slope, along, y
