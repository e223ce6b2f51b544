"""The training loop of the score-matching notes, on any objective, in their mixed precision.

    loss = objective(net)   the whole data, float64
    g    = d loss / d theta   a float32 part for every call of net, the parts added in float32
    theta <- Adam(theta, g)   float32, see `regression`

Zygote brings the gradient of every call of a network back to the type of the parameters and adds
the calls up in that type. `Net` casts its float32 leaves anew in every call, and so autograd does
the same. An objective that calls the network twice, as one by finite differences does, must
therefore call it twice here; then the losses of the notes come out to the last digits, epoch after
epoch. `regression.Regression` is the faster way where the objective is a square of one call.

Conventions: points are rows, float64 tensors (n, in) -> (n, out). An epoch is one step on all of
the data; its loss and its snapshot are those before its update. A second training that starts with
the same `Adam` goes on with its moments, as a Lux train state does.

Source: pages of R. Rosa's random_notes (CC BY 4.0) on score matching; Lux.jl, Zygote.jl.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise

import numpy as np
import torch

from .errors import ArgumentError, whole
from .notes import Progress, Trained
from .regression import Adam, Params

Objective = Callable[["Net"], torch.Tensor]

_BLOCK = 50  # epochs between two reports of progress


class Net:
    """The network of an `Adam` as it is now: leaves in float32, everything else in float64.

    Parameters
    ----------
    adam : whose parameters these are; they are shared, so that an update is seen at once.
    activation : of the hidden layers, such as torch.relu or torch.sigmoid.

    >>> from diffscience.julia import Xoshiro, network
    >>> net = Net(Adam(network(Xoshiro(1), (1, 8, 1)), rate=0.1))
    >>> net(torch.zeros(5, 1, dtype=torch.float64)).shape
    torch.Size([5, 1])
    """

    def __init__(
        self, adam: Adam, activation: Callable[[torch.Tensor], torch.Tensor] = torch.relu
    ) -> None:
        self.activation = activation
        self.leaves: list[torch.Tensor] = []
        at = 0
        for fan_in, fan_out in pairwise(adam.widths.tolist()):
            for shape in ((fan_out, fan_in), (fan_out,)):
                part = adam.theta[at : at + int(np.prod(shape))].reshape(shape)
                self.leaves.append(torch.from_numpy(part).requires_grad_())
                at += part.size

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, in) -> (n, out)."""
        layers = list(zip(self.leaves[::2], self.leaves[1::2]))
        for i, (weight, bias) in enumerate(layers):
            x = x @ weight.double().T + bias.double()
            if i + 1 < len(layers):
                x = self.activation(x)
        return x

    def gradient(self, loss: torch.Tensor) -> np.ndarray:
        """d loss / d parameters, as the one vector that `Adam.update` takes."""
        parts = torch.autograd.grad(loss, self.leaves)
        return np.concatenate([part.numpy().ravel() for part in parts]).astype(float)


def train(
    adam: Adam,
    objective: Objective,
    epochs: int,
    activation: Callable[[torch.Tensor], torch.Tensor] = torch.relu,
    snapshots: Collection[int] = (),
    progress: Progress | None = None,
) -> Trained:
    """The notes' training: losses[e - 1] is the loss of epoch e, before its update.

    Parameters
    ----------
    adam : parameters, moments and rate; it is moved on.
    objective : net -> a loss, a float64 tensor of no dimension.
    epochs : 0 or more.
    snapshots : epochs 1, 2, ... whose parameters are kept, before their update; 0 keeps the first.
    progress : called with (epoch, loss) at the end of every 50 epochs and of the last one.

    Raises
    ------
    ArgumentError : epochs that are no whole number >= 0, a loss that is not finite (the epoch is
        said).

    >>> from diffscience.julia import Xoshiro, network
    >>> adam = Adam(network(Xoshiro(1), (1, 8, 1)), rate=0.1)
    >>> x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    >>> losses = train(adam, lambda net: ((net(x) + x) ** 2).mean(), 20).losses
    >>> bool(losses[-1] < losses[0])
    True
    """
    whole("epochs", epochs, 0)
    net = Net(adam, activation)
    kept: dict[int, Params] = {0: adam.params} if 0 in snapshots else {}
    losses = np.zeros(epochs)
    for epoch in range(1, epochs + 1):
        if epoch in snapshots:
            kept[epoch] = adam.params
        value = objective(net)
        losses[epoch - 1] = value.item()
        if not np.isfinite(losses[epoch - 1]):
            raise ArgumentError("loss", f"be finite (epoch {epoch})", losses[epoch - 1])
        adam.update(net.gradient(value))
        if progress is not None and (epoch % _BLOCK == 0 or epoch == epochs):
            progress(epoch, float(losses[epoch - 1]))
    return Trained(adam.params, losses, kept)
