"""Small time-conditioned networks for points in one and two dimensions.

    MLP       x and features of t, concatenated, through dense layers; with classes, a label too
    Given     an MLP with classes, told a label
    Score     x alone through dense layers, smooth in x
    Scaled    either of them as a score of (x, sigma), of size 1 at every noise level
    Stack     several `Score` side by side, as one batched computation (of `MLP`: see `ensembles`)
    features  raw: (t);  Fourier: (t, sin 2 pi f t, cos 2 pi f t) for fixed frequencies f

Weights are drawn uniformly from +-sqrt(gain/fan_in) (He et al. 2015 with gain 6 for rectified
layers, 3 for the last), biases from +-1/sqrt(fan_in), from the seed given and from nothing global.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .arrays import Array, finite, numpy
from .errors import ArgumentError, instance, whole
from .targets import Target

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


class Layers(torch.nn.Module):
    """Dense layers fan_in -> widths -> fan_out, silu between them: what `MLP` and `Score` share."""

    def __init__(self, fan_in: int, widths: Sequence[int], fan_out: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        sizes = [fan_in, *widths]
        self.hidden = torch.nn.ModuleList(
            dense(a, b, 6.0, generator) for a, b in zip(sizes[:-1], sizes[1:])
        )
        self.out = dense(sizes[-1], fan_out, 3.0, generator)

    def through(self, h: torch.Tensor) -> torch.Tensor:
        """h (n, fan_in) -> (n, fan_out)."""
        for layer in self.hidden:
            h = torch.nn.functional.silu(layer(h))
        return self.out(h)


class MLP(Layers):
    """net(x, t) -> (n, dim): dense layers on x and features of t.

    Parameters
    ----------
    dim : D of the points.
    widths : numbers of hidden units.
    frequencies : the f of the Fourier features, in periods per unit of the time that the network
        sees; none for the raw time alone.
    seed : of the initial weights.
    outputs : numbers that come out, dim where left out; 2 dim for a learned variance.
    classes : C, for net(x, t, label) with labels 0 ... C - 1; the label C is none of them, and so
        is a label left out. A class is seen as its unit vector, none as zeros.

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
        outputs: int | None = None,
        classes: int = 0,
    ) -> None:
        _check(dim, widths, seed)
        finite("frequencies", frequencies, (None,))
        outputs = dim if outputs is None else outputs
        whole("outputs", outputs, 1)
        whole("classes", classes, 0)
        super().__init__(dim + 1 + 2 * len(frequencies) + classes, widths, outputs, seed)
        self.classes = int(classes)
        periods = torch.as_tensor(tuple(frequencies), dtype=torch.float32)
        self.register_buffer("frequencies", periods)

    def forward(
        self, x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (n, dim), t (n,), whole numbers label (n,) where there are classes -> (n, outputs)."""
        angle = 2 * torch.pi * t[:, None] * self.frequencies
        seen = [x, t[:, None], torch.sin(angle), torch.cos(angle)]
        if self.classes:
            known = torch.arange(self.classes, device=x.device)
            told = torch.full_like(x[:, 0], self.classes) if label is None else label
            seen.append((told[:, None] == known).to(x))
        elif label is not None:
            raise ArgumentError("label", "be left out where the net has no classes", label)
        return self.through(torch.cat(seen, dim=-1))


class Given(torch.nn.Module):
    """net(x, t) -> net(x, t, label): an `MLP` with classes that is told a label.

    Parameters
    ----------
    net : held, not copied.
    label : a class from 0 to C - 1, or a tensor (n,) of classes and C (none), one for each row that
        will come; None for none.

    >>> net = MLP(1, widths=(8,), classes=2)
    >>> a, none = (Given(net, c)(torch.zeros(3, 1), torch.zeros(3)) for c in (1, None))
    >>> a.shape, torch.equal(a, none)
    (torch.Size([3, 1]), False)
    """

    label: torch.Tensor

    def __init__(self, net: torch.nn.Module, label: int | torch.Tensor | None) -> None:
        super().__init__()
        classes = int(getattr(net, "classes", 0))
        if not classes:
            raise ArgumentError("net", "have classes", net)
        if not isinstance(label, torch.Tensor):
            if label is not None:
                whole("label", label, 0, classes - 1)
            label = torch.tensor(classes if label is None else int(label))
        elif label.ndim != 1 or label.is_floating_point():
            raise ArgumentError("label", "be whole numbers (n,)", label)
        self.net = net
        self.register_buffer("label", label, persistent=False)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """x (n, dim), t (n,) -> (n, outputs)."""
        return self.net(x, t, self.label.to(x.device).expand(len(x)))


class Score(Layers):
    """net(x) -> (n, dim): a score network of x alone, with silu layers.

    Objectives that differentiate psi in x, and then in the weights, want a network that is smooth:
    the second derivative of a rectified one is 0 almost everywhere.

    >>> Score(2, widths=(16, 16), seed=1)(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(self, dim: int, widths: Sequence[int] = (64, 64), seed: int = 0) -> None:
        _check(dim, widths, seed)
        super().__init__(dim, widths, dim, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (n, dim) -> (n, dim)."""
        return self.through(x)


class Scaled(torch.nn.Module):
    """s(x, sigma) = net(x/sqrt(m^2 + sigma^2), log sigma)/sqrt(1 + sigma^2), m^2 = E|X|^2/D.

    For data of spread m with modes of width about 1 what goes in and what comes out is of size 1 at
    every noise level. A `Score` gets x alone, without log sigma: it serves one level, which may be
    0 then.

    Parameters
    ----------
    net : an `MLP` or a `Score`; held, not copied.
    law : of the data, for its m.

    >>> import diffscience as ds
    >>> net = Scaled(MLP(1, widths=(8,), frequencies=()), ds.gallery.julia_bimodal())
    >>> net(torch.zeros(5, 1), 2.0).shape, net.score(np.zeros((3, 4, 1)), 2.0).shape
    (torch.Size([5, 1]), (3, 4, 1))
    """

    def __init__(self, net: MLP | Score, law: Target) -> None:
        super().__init__()
        instance("net", net, Layers)
        instance("law", law, Target)
        self.net = net
        mean, cov = numpy(law.mean), numpy(law.cov)
        self.second = float(np.trace(cov) + mean @ mean) / law.dim

    def forward(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """x (n, D), one level or one for each row (n,) -> (n, D)."""
        var = torch.as_tensor(sigma, dtype=x.dtype, device=x.device).expand(len(x)) ** 2
        u = x / torch.sqrt(self.second + var)[:, None]
        y = self.net(u) if isinstance(self.net, Score) else self.net(u, 0.5 * torch.log(var))
        return y / torch.sqrt(1 + var)[:, None]

    def score(self, x: Array, sigma: float) -> np.ndarray:
        """The same for arrays (..., D) at one level, in the precision of the weights."""
        x, home = numpy(x), next(self.parameters())
        with torch.no_grad():
            y = self(torch.as_tensor(x.reshape(-1, x.shape[-1])).to(home), sigma)
        return y.double().cpu().numpy().reshape(x.shape)


class Batched(torch.nn.Module):
    """The dense layers of S networks of one shape as one batched computation.

    What `Stack` and `ensembles.Ensemble` share: no parameter is common to two members, and Adam
    works entry by entry, so each member moves as it would alone.

    Parameters
    ----------
    members : S networks of equal layers, in one dtype on one device; copied.
    """

    kind: type[Layers]  # of the members, exactly: a subclass may have another forward

    def __init__(self, members: Sequence[Layers]) -> None:
        super().__init__()
        if not isinstance(members, Sequence):
            raise ArgumentError("members", "be a list of networks", members)
        for member in members:
            if type(member) is not self.kind:
                rule = f"be networks of the class {self.kind.__name__}"
                raise ArgumentError("members", rule, type(member).__name__)
        shapes = {
            tuple((tuple(p.shape), p.dtype, p.device) for p in member.parameters())
            for member in members
        }
        if len(shapes) != 1:
            raise ArgumentError("members", "be one or more networks of one shape", shapes)
        self.size = len(members)
        rows = list(zip(*([*member.hidden, member.out] for member in members)))
        weights = [torch.stack([layer.weight.detach().T for layer in row]) for row in rows]
        biases = [torch.stack([layer.bias.detach()[None] for layer in row]) for row in rows]
        self.weights = torch.nn.ParameterList(w.contiguous() for w in weights)
        self.biases = torch.nn.ParameterList(biases)

    def through(self, h: torch.Tensor) -> torch.Tensor:
        """h (S, n, fan_in) -> (S, n, fan_out), member by member."""
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            h = torch.nn.functional.silu(h) if i else h
            # One input is a product of numbers; a matrix product would cost more.
            h = h * weight + bias if weight.shape[1] == 1 else torch.baddbmm(bias, h, weight)
        return h


class Stack(Batched):
    """Several `Score` networks of one shape, evaluated and trained as one batched computation.

    Row i of x goes through member i mod S, so that objectives which concatenate rows keep the
    members apart. Under any row-wise objective each member moves as it would alone, but for Adam's
    epsilon: the mean over all rows makes every gradient 1/S of the member's own, which Adam undoes
    as long as gradients are far above 1e-8 S.

    Parameters
    ----------
    members : S networks of one dimension and equal widths; copied.

    >>> stack = Stack([Score(2, widths=(8,), seed=k) for k in range(3)])
    >>> stack(torch.zeros(12, 2)).shape, stack.at(torch.zeros(5, 2)).shape
    (torch.Size([12, 2]), torch.Size([3, 5, 2]))
    """

    kind = Score

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (n S, D) -> (n S, D), members taking turns along the rows."""
        if x.ndim != 2 or len(x) % self.size:
            rule = f"be rows (n, D), n a multiple of the {self.size} members"
            raise ArgumentError("x", rule, tuple(x.shape))
        h = x.reshape(-1, self.size, x.shape[-1]).transpose(0, 1)
        return self.through(h).transpose(0, 1).reshape(x.shape)

    def at(self, x: torch.Tensor) -> torch.Tensor:
        """All members at the same points: (n, D) -> (S, n, D)."""
        rows = x.repeat_interleave(self.size, dim=0)
        return self(rows).reshape(len(x), self.size, -1).transpose(0, 1)


def _check(dim: int, widths: Sequence[int], seed: int) -> None:
    whole("dim", dim, 1)
    whole("seed", seed, *SEEDS)
    if not isinstance(widths, Sequence) or len(widths) == 0:
        raise ArgumentError("widths", "be a list of whole numbers, at least one", widths)
    for width in widths:
        whole("widths", width, 1)
