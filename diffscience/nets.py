"""Small time-conditioned networks for points in one and two dimensions.

    MLP       x and features of t, concatenated, through dense layers
    Score     x alone through dense layers, smooth in x
    features  raw: (t);  Fourier: (t, sin 2 pi f t, cos 2 pi f t) for fixed frequencies f

Weights are drawn uniformly from +-sqrt(gain/fan_in) (He et al. 2015 with gain 6 for rectified
layers, 3 for the last), biases from +-1/sqrt(fan_in), from the seed given and from nothing global.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .arrays import finite
from .errors import ArgumentError, whole

SEEDS = (-(2**63), 2**64 - 1)  # what a torch.Generator takes


def dense(fan_in: int, fan_out: int, gain: float, generator: torch.Generator) -> torch.nn.Linear:
    """A dense layer with weights U(+-sqrt(gain/fan_in)) and biases U(+-1/sqrt(fan_in))."""
    layer = torch.nn.utils.skip_init(torch.nn.Linear, fan_in, fan_out)
    with torch.no_grad():
        for parameter, bound in (
            (layer.weight, (gain / fan_in) ** 0.5),
            (layer.bias, fan_in**-0.5),
        ):
            draw = torch.rand(parameter.shape, generator=generator)
            parameter.copy_(bound * (2 * draw - 1))
    return layer


class MLP(torch.nn.Module):
    """net(x, t) -> (n, dim): dense layers on x and features of t.

    Parameters
    ----------
    dim : D of the points.
    widths : numbers of hidden units.
    frequencies : the f of the Fourier features, in periods per unit of the time that the network
        sees; none for the raw time alone.
    seed : of the initial weights.

    >>> MLP(2, widths=(16, 16), seed=1)(torch.zeros(5, 2), torch.zeros(5)).shape
    torch.Size([5, 2])
    """

    frequencies: torch.Tensor

    def __init__(
        self,
        dim: int,
        widths: Sequence[int] = (128, 128, 128),
        frequencies: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(dim, widths, seed)
        finite("frequencies", frequencies, (None,))
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer(
            "frequencies", torch.as_tensor(tuple(frequencies), dtype=torch.float32)
        )
        sizes = [dim + 1 + 2 * len(frequencies), *widths]
        self.hidden = torch.nn.ModuleList(
            dense(a, b, 6.0, generator) for a, b in zip(sizes[:-1], sizes[1:])
        )
        self.out = dense(sizes[-1], dim, 3.0, generator)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x (n, dim), t (n,) -> (n, dim)."""
        angle = 2 * torch.pi * t[:, None] * self.frequencies
        h = torch.cat([x, t[:, None], torch.sin(angle), torch.cos(angle)], dim=-1)
        for layer in self.hidden:
            h = torch.nn.functional.silu(layer(h))
        return self.out(h)


class Score(torch.nn.Module):
    """net(x) -> (n, dim): a score network of x alone, with silu layers.

    Objectives that differentiate psi in x, and then in the weights, want a network that is smooth:
    the second derivative of a rectified one is 0 almost everywhere.

    >>> Score(2, widths=(16, 16), seed=1)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, dim: int, widths: Sequence[int] = (64, 64), seed: int = 0) -> None:
        super().__init__()
        _check(dim, widths, seed)
        generator = torch.Generator().manual_seed(seed)
        sizes = [dim, *widths]
        self.hidden = torch.nn.ModuleList(
            dense(a, b, 6.0, generator) for a, b in zip(sizes[:-1], sizes[1:])
        )
        self.out = dense(sizes[-1], dim, 3.0, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, dim) -> (n, dim)."""
        h = x
        for layer in self.hidden:
            h = torch.nn.functional.silu(layer(h))
        return self.out(h)


def _check(dim: int, widths: Sequence[int], seed: int) -> None:
    whole("dim", dim, 1)
    whole("seed", seed, *SEEDS)
    if not isinstance(widths, Sequence) or len(widths) == 0:
        raise ArgumentError("widths", "be a list of whole numbers, at least one", widths)
    for width in widths:
        whole("widths", width, 1)
