"""The numerical experiments of R. Rosa's *random_notes*, replayed draw by draw.

    law         U = 0.1·N(−3, 1) + 0.9·N(3, 1), 1024 points from Xoshiro(12345)
    noising     x_k = √ᾱ_k·x_0 + √(1 − ᾱ_k)·ε,  ᾱ_k = Π_{i≤k} (1 − β_i),  k = 1 … K
    loss        mean (net(x_k, k) − ε)², one k and one ε for every point in every epoch
    step        Adam, β = (0.9, 0.999), ε = 1e-8, on all points

Precision follows the notes: parameters and optimiser state are float32, data, activations and loss
float64, gradients are computed in float64 and rounded to float32 (Zygote's projection). The loss of
an epoch is that of its parameters before the update, and so is a snapshot. Nothing here is mended:
the forward demo multiplies its noise by β, the sampler by σ_k = β_k, makes K−1 steps and feeds the
raw k to the network.

Conventions: points are rows, inputs (N, D) and outputs (N, O); chains are (K, N) with row k−1 the
state at step k. Parameters are a list of (weight (out, in), bias (out,)). Random numbers come from
`julia.Xoshiro` in the order of the published page.

Source: rmsrosa/random_notes, page *Denoising diffusion probabilistic models* as built with Julia
1.12.1 (CC BY 4.0). The equations are those of Ho, Jain and Abbeel (2020), equations 4 and 14.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network, span
from diffscience.regression import Array, Params, Regression, apply

Progress = Callable[[int, float], None]

_BLOCK = 50  # epochs between two reports of progress


def sample_points(rng: Xoshiro, n: int = 1024) -> Array:
    """n points of U = 0.1·N(−3, 1) + 0.9·N(3, 1): what most notes draw first. (n,)

    Examples
    --------
    >>> float(sample_points(Xoshiro(12345))[0])
    2.303077959422043
    """
    return rng.mixture([0.1, 0.9], [-3.0, 3.0], [1.0, 1.0], n)


def linear_betas(steps: int = 80, first: float = 0.02, last: float = 0.8) -> Array:
    """β_1 … β_K evenly spaced: the schedule of the first run. (K,)

    Examples
    --------
    >>> linear_betas()[[0, -1]]
    array([0.02, 0.8 ])
    """
    return span(first, last, steps)


def polynomial_betas(steps: int = 80, power: int = 5, top: float = 0.75) -> Array:
    """β_k = top·c(b_k)/c(b_max), c(b) = b^p·(2 − b), b_k = b_max·k/(K + 1), b_max = 2p/(p + 1).

    The schedule of the second run: slow at both ends. (K,)

    Examples
    --------
    >>> bool(polynomial_betas().max() < 0.75)
    True
    """
    b_max = 2 * power / (power + 1)
    b = b_max * np.arange(1, steps + 1) / (steps + 1)
    return top * (b**power * (2 - b)) / (b_max**power * (2 - b_max))


def forward_chain(rng: Xoshiro, x0: ArrayLike, betas: ArrayLike) -> Array:
    """The note's demo of the forward chain, which starts at row 0 with x0 itself. (K, N)

        x_{k+1} = √(1 − β_k)·x_k + β_k·z     (β_k, not √β_k: as published)

    Examples
    --------
    >>> forward_chain(Xoshiro(0), np.zeros(5), linear_betas(40)).shape
    (40, 5)
    """
    beta, x = _betas(betas), _points("x0", x0)
    chain = rng.randn((len(beta), len(x)))
    chain[0] = x
    for k in range(1, len(beta)):
        chain[k] = np.sqrt(1 - beta[k - 1]) * chain[k - 1] + beta[k - 1] * chain[k]
    return chain


def backward_chain(rng: Xoshiro, x_end: ArrayLike, betas: ArrayLike, params: Params) -> Array:
    """The note's sampler: K−1 steps from row K−1, given, to row 0, the samples. (K, N)

        x_{k−1} = (x_k − β_k/√(1 − ᾱ_k)·net(x_k, k))/√(1 − β_k) + β_k·z   (σ_k = β_k: as published)

    Parameters
    ----------
    x_end : (N,) the states at k = K; the note draws them just before, `rng.randn(1024)`.

    Examples
    --------
    >>> rng = Xoshiro(0)
    >>> backward_chain(rng, rng.randn(9), linear_betas(40), network(rng, (2, 8, 1))).shape
    (40, 9)
    """
    beta, x = _betas(betas), _points("x_end", x_end)
    alpha = 1 - beta
    ratio = (1 - alpha) / np.sqrt(1 - np.cumprod(alpha))
    chain = rng.randn((len(beta), len(x)))
    chain[-1] = x
    for k in range(len(beta), 1, -1):
        eps = apply(params, np.stack([chain[k - 1], np.full(len(x), float(k))], -1))[:, 0]
        mean = (chain[k - 1] - ratio[k - 1] * eps) / np.sqrt(alpha[k - 1])
        chain[k - 2] = mean + beta[k - 1] * chain[k - 2]
    return chain


def noised(rng: Xoshiro, x0: ArrayLike, betas: ArrayLike) -> tuple[Array, Array]:
    """One draw of the training data: ε for every point, then k for every point.

    Returns
    -------
    (inputs (N, 2), noise (N, 1)) : rows (x_k, k), and the ε in them.

    Examples
    --------
    >>> inputs, noise = noised(Xoshiro(0), np.zeros(7), linear_betas())
    >>> inputs.shape, noise.shape
    ((7, 2), (7, 1))
    """
    inputs, eps = _draw(rng, _points("x0", x0), *_scales(betas))
    return inputs.T, eps.T


class Trained(NamedTuple):
    """What `train` gives: parameters, losses (epochs,), snapshots {epoch: parameters}."""

    params: Params
    losses: Array
    snapshots: dict[int, Params]


def train(
    rng: Xoshiro,
    x0: ArrayLike,
    betas: ArrayLike,
    params: Params,
    epochs: int,
    rate: float = 0.001,
    snapshots: Collection[int] = (),
    progress: Progress | None = None,
) -> Trained:
    """The note's training, one full batch an epoch; losses[e − 1] is the loss of epoch e.

    Parameters
    ----------
    rng : moved on by one `noised` draw an epoch.
    x0 : (N,) sample points.
    betas : (K,) in (0, 1).
    params : initial parameters of a relu network (x_k, k) -> ε; not changed.
    rate : Adam's step size; 0.001 in the published note, 0.01 in its early version.
    snapshots : epochs 1, 2, … whose parameters are kept, before their update; 0 keeps the initial
        ones.
    progress : called with (epoch, loss) at the end of every 50 epochs and of the last one. An
        exception that it raises, like an interrupt, ends the training between two epochs.

    Raises
    ------
    ArgumentError : a bad schedule, parameters that do not fit, a negative number of epochs.

    Examples
    --------
    >>> rng = Xoshiro(12345)
    >>> x0 = sample_points(rng)
    >>> run = train(rng, x0, linear_betas(), network(rng, (2, 64, 1)), 2)
    >>> run.losses.shape
    (2,)
    """
    x = _points("x0", x0)
    scale, std = _scales(betas)
    if epochs < 0:
        raise ArgumentError("epochs", "be at least 0", epochs)
    fit = Regression(params, rate)
    losses = np.zeros(epochs)
    kept = {0: fit.params} if 0 in snapshots else {}
    for epoch in range(1, epochs + 1):
        if epoch in snapshots:
            kept[epoch] = fit.params
        inputs, eps = _draw(rng, x, scale, std)
        losses[epoch - 1] = fit.step(inputs.T, eps.T)
        if progress is not None and (epoch % _BLOCK == 0 or epoch == epochs):
            progress(epoch, float(losses[epoch - 1]))
    return Trained(fit.params, losses, kept)


@dataclass(frozen=True)
class Replay:
    """One run of the published page, with the stream where the run leaves it.

    Attributes
    ----------
    rng : the generator after the run.
    points : (N,) the data.
    betas : (K,).
    start : initial parameters, the same for both runs.
    forward : (K, N) the forward demo.
    scatter : (N, 2) the rows (x_k, k) shown as "points used for training"; None in the second run.
    checked : loss of the first gradient call; None in the second run.
    initial : the loss printed as epoch 0.
    trained : parameters, losses and snapshots.
    backward : (K, N) the reverse chain; row 0 are the samples.
    """

    rng: Xoshiro
    points: Array
    betas: Array
    start: Params
    forward: Array
    scatter: Array | None
    checked: float | None
    initial: float
    trained: Trained
    backward: Array


def first_run(
    epochs: int = 1000,
    hidden: Sequence[int] = (64,),
    rate: float = 0.001,
    snapshots: Collection[int] = (),
    progress: Progress | None = None,
) -> Replay:
    """The page's first run: linear schedule, in stream order from Xoshiro(12345).

    Order: data, forward demo, initial parameters, one draw shown, two gradient checks, training
    (epoch 0 first), x_K, the noise of the reverse chain.

    Examples
    --------
    >>> run = first_run(epochs=1)
    >>> round(run.checked, 6), round(run.initial, 6)
    (4833.970923, 4954.146152)
    """
    rng = Xoshiro(12345)
    points, betas = sample_points(rng), linear_betas()
    forward = forward_chain(rng, points, betas)
    start = network(rng, (2, *hidden, 1))
    scatter, _ = noised(rng, points, betas)
    checked = loss(rng, points, betas, start)
    noised(rng, points, betas)  # the page checks the gradient twice
    initial = loss(rng, points, betas, start)
    trained = train(rng, points, betas, start, epochs, rate, snapshots, progress)
    backward = backward_chain(rng, rng.randn(len(points)), betas, trained.params)
    return Replay(rng, points, betas, start, forward, scatter, checked, initial, trained, backward)


def second_run(
    first: Replay,
    epochs: int = 5000,
    rate: float = 0.001,
    snapshots: Collection[int] = (),
    progress: Progress | None = None,
) -> Replay:
    """The page's second run: polynomial schedule, the same initial parameters, the stream going on.

    Parameters
    ----------
    first : the first run, in full (1000 epochs) where the published numbers are wanted.

    Examples
    --------
    >>> run = second_run(first_run(epochs=1), epochs=1)
    >>> run.backward.shape
    (80, 1024)
    """
    rng, betas = first.rng.copy(), polynomial_betas()
    forward = forward_chain(rng, first.points, betas)
    initial = loss(rng, first.points, betas, first.start)
    trained = train(rng, first.points, betas, first.start, epochs, rate, snapshots, progress)
    backward = backward_chain(rng, rng.randn(len(first.points)), betas, trained.params)
    return replace(
        first,
        rng=rng,
        betas=betas,
        forward=forward,
        scatter=None,
        checked=None,
        initial=initial,
        trained=trained,
        backward=backward,
    )


def loss(rng: Xoshiro, x0: ArrayLike, betas: ArrayLike, params: Params) -> float:
    """The loss on one fresh draw of the training data, mean (net(x_k, k) − ε)².

    Examples
    --------
    >>> rng = Xoshiro(0)
    >>> loss(rng, sample_points(rng), linear_betas(), network(rng, (2, 8, 1))) > 0
    True
    """
    inputs, eps = noised(rng, x0, betas)
    return float(np.mean((apply(params, inputs) - eps) ** 2))


def _scales(betas: ArrayLike) -> tuple[Array, Array]:
    """√ᾱ_k and √(1 − ᾱ_k), (K,) each."""
    alpha_bar = np.cumprod(1 - _betas(betas))
    return np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)


def _draw(rng: Xoshiro, x: Array, scale: Array, std: Array) -> tuple[Array, Array]:
    """The rows x_k and k, (2, N), and ε, (1, N)."""
    eps = rng.randn(len(x))
    k = rng.integers(len(scale), len(x))
    inputs = np.empty((2, len(x)))
    inputs[1] = k
    k -= 1
    inputs[0] = scale[k] * x + std[k] * eps
    return inputs, eps[None]


# Checks -------------------------------------------------------------------------------------------
def _betas(betas: ArrayLike) -> Array:
    beta = np.asarray(betas, float)
    if beta.ndim != 1 or not len(beta) or not np.all((beta > 0) & (beta < 1)):
        raise ArgumentError("betas", "be a vector of numbers in (0, 1)", betas)
    return beta


def _points(name: str, points: ArrayLike) -> Array:
    x = np.asarray(points, float)
    if x.ndim != 1 or not len(x):
        raise ArgumentError(name, "be (N,) with N >= 1", x.shape)
    return x
