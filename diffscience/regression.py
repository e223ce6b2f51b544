"""Least squares of small dense networks in the mixed precision of the Julia notes.

    net(x) = W_L·h + b_L,  h ← relu(W·h + b)
    loss   = mean (factor·net(x) − target)²
    Adam   m ← 0.9·m + 0.1·g,  v ← 0.999·v + 0.001·g²,  θ ← θ − m̂/(√v̂ + 1e-8)·rate

Parameters and Adam's state are float32; data, activations, loss and gradient float64, the gradient
rounded to float32 before the step (as Zygote's projection does). Sums over points are taken tile by
tile in float64, so that the last bit of a gradient may differ between processors; float32 hides it.

Conventions: points are rows, inputs (N, in) and outputs (N, out); parameters are a list of
(weight (out, in), bias (out,)). Data that are not finite stop a training before its update.

Source: D. P. Kingma and J. Ba, *Adam* (2015), algorithm 1, in the order of operations of
Optimisers.jl.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffscience.arrays import finite
from diffscience.errors import ArgumentError, number
from diffscience.julia import Layer
from diffscience.xoshiro import compiled, reordered

Array = NDArray[np.float64]
Params = list[Layer]

_TILE = 64  # points worked on at once: their activations stay in the nearest cache


def relu(x: Array) -> Array:
    """max(x, 0).

    Examples
    --------
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    """
    return np.maximum(x, 0.0)


def sigmoid(x: Array) -> Array:
    """1/(1 + e^{−x}).

    Examples
    --------
    >>> float(sigmoid(np.zeros(())))
    0.5
    """
    return 1.0 / (1.0 + np.exp(-x))


def apply(params: Params, inputs: ArrayLike, activation: Callable[[Array], Array] = relu) -> Array:
    """The network in float64: hidden layers activation(W·x + b), last layer W·x + b.

    Parameters
    ----------
    params : list of (weight (out, in), bias (out,)).
    inputs : (N, in), or (in,) for one point.

    Returns
    -------
    (N, out), or (out,).

    Examples
    --------
    >>> apply([(np.ones((1, 2), np.float32), np.zeros(1, np.float32))], [1.0, 2.0])
    array([3.])
    """
    x = np.asarray(inputs, float)
    for i, (weight, bias) in enumerate(params):
        x = x @ weight.T.astype(float) + bias
        if i + 1 < len(params):
            x = activation(x)
    return x


@reordered
def _overlap(a: Array, i: int, b: Array, j: int) -> float:
    """Σ_p a[i, p]·b[j, p] over a tile."""
    total = 0.0
    for p in range(_TILE):
        total += a[i, p] * b[j, p]
    return total


@compiled
def _forward(theta: NDArray[Any], widths: NDArray[np.int64], state: Array) -> None:
    """Rows of `state` below the inputs: the activations of every layer."""
    top, at = 0, 0
    for layer in range(widths.size - 1):
        fan_in, fan_out = widths[layer], widths[layer + 1]
        for j in range(fan_out):
            row = top + fan_in + j
            for p in range(_TILE):
                state[row, p] = 0.0
            for i in range(fan_in):
                w = np.float64(theta[at + j * fan_in + i])
                for p in range(_TILE):
                    state[row, p] += w * state[top + i, p]
            bias = np.float64(theta[at + fan_out * fan_in + j])
            floor = -np.inf if layer == widths.size - 2 else 0.0
            for p in range(_TILE):
                z = state[row, p] + bias
                state[row, p] = floor if z < floor else z  # NaN stays
        top += fan_in
        at += fan_out * (fan_in + 1)


@compiled
def _backward(
    theta: NDArray[Any], widths: NDArray[np.int64], state: Array, slope: Array, gradient: Array
) -> None:
    """Add the gradient of one tile; the last rows of `slope` hold d loss / d outputs."""
    ones = slope.shape[0]  # the row of ones below the outputs
    bottom, at = slope.shape[0], theta.size
    for layer in range(widths.size - 2, -1, -1):
        fan_in, fan_out = widths[layer], widths[layer + 1]
        at -= fan_out * (fan_in + 1)
        bottom -= fan_out
        top = bottom - fan_in
        for j in range(fan_out):
            total = _overlap(slope, bottom + j, state, ones)
            gradient[at + fan_out * fan_in + j] += total
            for i in range(fan_in):
                total = _overlap(slope, bottom + j, state, top + i)
                gradient[at + j * fan_in + i] += total
        if layer > 0:
            for i in range(fan_in):
                for p in range(_TILE):
                    slope[top + i, p] = 0.0
                for j in range(fan_out):
                    w = np.float64(theta[at + j * fan_in + i])
                    for p in range(_TILE):
                        slope[top + i, p] += w * slope[bottom + j, p]
                for p in range(_TILE):
                    if not state[top + i, p] > 0.0:
                        slope[top + i, p] = 0.0


@compiled
def _loss_and_gradient(
    theta: NDArray[Any],
    widths: NDArray[np.int64],
    inputs: Array,
    factor: Array,
    target: Array,
    gradient: Array,
) -> float:
    """mean (factor·net(inputs) − target)² and its gradient, tile by tile of points.

    theta holds weight (row by row) and bias of every layer; inputs is (in, N), factor and target
    (out, N). The activations of all layers lie one below the other, the inputs on top, and a row
    of ones at the bottom.
    """
    points, outputs = inputs.shape[1], widths[-1]
    scale = 1.0 / (points * outputs)
    rows = widths.sum()
    state, slope = np.ones((rows + 1, _TILE)), np.zeros((rows, _TILE))
    spoilt = np.zeros(_TILE)  # NaN at inputs that are not finite: a layer may turn -inf into 0
    gradient[:] = 0.0
    loss = 0.0
    for start in range(0, points, _TILE):
        count = min(_TILE, points - start)
        spoilt[:] = 0.0
        for i in range(widths[0]):
            for p in range(count):
                state[i, p] = inputs[i, start + p]
                spoilt[p] += 0.0 * inputs[i, start + p]
        _forward(theta, widths, state)
        for j in range(outputs):
            row = rows - outputs + j
            for p in range(_TILE):
                slope[row, p] = 0.0
            for p in range(count):
                f = factor[j, start + p]
                residual = f * state[row, p] - target[j, start + p] + spoilt[p]
                loss += residual * residual
                slope[row, p] = 2.0 * scale * residual * f
        _backward(theta, widths, state, slope, gradient)
    return loss * scale


@compiled
def _adam(
    theta: NDArray[Any],
    gradient: Array,
    mean: NDArray[Any],
    square: NDArray[Any],
    powers: NDArray[Any],
    rate: Any,
) -> None:
    """One step of Adam in float32, in the order of operations of Optimisers.jl."""
    one, b1, b2 = np.float32(1.0), np.float32(0.9), np.float32(0.999)
    tiny = np.float32(1e-8)
    c1, c2 = one - powers[0], one - powers[1]
    for i in range(theta.size):
        g = np.float32(gradient[i])
        mean[i] = b1 * mean[i] + (one - b1) * g
        square[i] = b2 * square[i] + (one - b2) * (g * g)
        theta[i] -= mean[i] / c1 / (np.sqrt(square[i] / c2) + tiny) * rate
    powers[0] *= b1
    powers[1] *= b2


class Adam:
    """Adam in float32 as Optimisers.jl does it, over all parameters of a network.

        m ← 0.9·m + 0.1·g,  v ← 0.999·v + 0.001·g²,  θ ← θ − m̂/(√v̂ + 1e-8)·rate

    Parameters
    ----------
    params : initial parameters; not changed.
    rate : step size.

    Raises
    ------
    ArgumentError : parameters that do not fit each other, a rate that is not positive.

    Examples
    --------
    >>> adam = Adam([(np.ones((1, 1), np.float32), np.zeros(1, np.float32))], rate=0.5)
    >>> adam.update([(np.ones((1, 1)), np.zeros(1))])
    >>> adam.params[0][0].item()
    0.5
    """

    def __init__(self, params: Params, rate: float) -> None:
        _check_params(params)
        number("rate", rate, 0, ends="()")
        self.widths = np.array([params[0][0].shape[1]] + [b.size for _, b in params], np.int64)
        self.theta = _flat(params).astype(np.float32)
        self._mean, self._square = np.zeros_like(self.theta), np.zeros_like(self.theta)
        self._powers = np.array([0.9, 0.999], np.float32)
        self._rate = np.float32(rate)

    @property
    def params(self) -> Params:
        """A copy of the present parameters."""
        return layers(self.theta, self.widths)

    def update(self, gradient: Sequence[tuple[ArrayLike, ArrayLike]] | Array) -> None:
        """One step along −gradient: a list like the parameters, or one float64 vector of all."""
        flat = gradient if isinstance(gradient, np.ndarray) else _flat(gradient)
        if flat.shape != self.theta.shape:
            raise ArgumentError("gradient", f"have {self.theta.size} entries", flat.shape)
        _adam(self.theta, flat, self._mean, self._square, self._powers, self._rate)


class Regression:
    """Least squares of a relu network by Adam: what most notes do at each epoch.

        loss = mean (factor·net(inputs) − target)²

    Parameters
    ----------
    params : initial parameters; not changed.
    rate : Adam's step size.

    Raises
    ------
    ArgumentError : parameters that do not fit each other, a rate that is not positive; data of
        another shape or not finite, a loss that is not finite.

    Examples
    --------
    >>> fit = Regression([(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))], rate=0.5)
    >>> fit.step([[1.0], [2.0]], [[2.0], [4.0]])
    10.0
    >>> fit.params[0][0].item() > 0.4
    True
    """

    def __init__(self, params: Params, rate: float) -> None:
        self._adam = Adam(params, rate)
        self._gradient = np.zeros(self._adam.theta.size)

    @property
    def params(self) -> Params:
        """A copy of the present parameters."""
        return self._adam.params

    def gradient(
        self, inputs: ArrayLike, target: ArrayLike, factor: ArrayLike = 1.0
    ) -> tuple[float, Params]:
        """Loss and its float32 gradient at the present parameters, which stay as they are.

        Parameters
        ----------
        inputs : (N, in).
        target : (N, out).
        factor : broadcast to (N, out).
        """
        loss = self._evaluate(inputs, target, factor)
        return loss, layers(self._gradient.astype(np.float32), self._adam.widths)

    def step(self, inputs: ArrayLike, target: ArrayLike, factor: ArrayLike = 1.0) -> float:
        """One update, of arguments as in `gradient`; the loss before it."""
        loss = self._evaluate(inputs, target, factor)
        self._adam.update(self._gradient)
        return loss

    def _evaluate(self, inputs: ArrayLike, target: ArrayLike, factor: ArrayLike) -> float:
        x, y, widths = np.asarray(inputs, float), np.asarray(target, float), self._adam.widths
        if x.ndim != 2 or x.shape[1] != widths[0] or not len(x):
            raise ArgumentError("inputs", f"be (N, {widths[0]}) with N >= 1", x.shape)
        if y.shape != (len(x), widths[-1]):
            raise ArgumentError("target", f"be ({len(x)}, {widths[-1]})", y.shape)
        f = np.broadcast_to(np.asarray(factor, float), y.shape)
        columns = [np.ascontiguousarray(a.T) for a in (x, f, y)]
        loss = float(_loss_and_gradient(self._adam.theta, widths, *columns, self._gradient))
        if not math.isfinite(loss):
            for name, values in (("inputs", x), ("target", y), ("factor", f)):
                finite(name, values)
            raise ArgumentError("loss", "be finite", loss)
        return loss


def layers(theta: NDArray[Any], widths: NDArray[np.int64]) -> Params:
    """One vector of all parameters, or of a gradient in them, as a list of (weight, bias).

    theta : weight (row by row) and bias of every layer, as `Adam.theta` has them.
    widths : numbers of units of all layers, inputs first, as `Adam.widths`.

    Examples
    --------
    >>> [(weight, bias)] = layers(np.arange(3.0), np.array([2, 1]))
    >>> weight, bias
    (array([[0., 1.]]), array([2.]))
    """
    found, at = [], 0
    for fan_in, fan_out in pairwise(widths.tolist()):
        weight = theta[at : at + fan_out * fan_in].reshape(fan_out, fan_in).copy()
        at += fan_out * (fan_in + 1)
        found.append((weight, theta[at - fan_out : at].copy()))
    return found


# Helpers ------------------------------------------------------------------------------------------
def _check_params(params: Params) -> None:
    rule = "be a list of (weight (out, in), bias (out,)) whose widths follow each other"
    shapes = [(np.shape(weight), np.shape(bias)) for weight, bias in params]
    fits = bool(shapes) and all(len(w) == 2 and b == (w[0],) for w, b in shapes)
    if not fits or any(w[0] != v[1] for (w, _), (v, _) in pairwise(shapes)):
        raise ArgumentError("params", rule, shapes)


def _flat(parts: Sequence[tuple[ArrayLike, ArrayLike]]) -> Array:
    return np.concatenate([np.ravel(np.asarray(part, float)) for layer in parts for part in layer])
