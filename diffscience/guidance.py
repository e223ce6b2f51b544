"""Guidance: a law whose points have classes, and models that are pushed towards one of them.

    p(x) = sum_c w_c p(x|c),   p_t(c|x) = w_c p_t(x|c)/p_t(x) = E[p(c|X_0) | X_t = x]

    classifier-free   eps_u + gamma (eps_c - eps_u)                   (Ho and Salimans 2022)
    classifier        score_u + gamma grad log p_t(c|x)               (Dhariwal and Nichol 2021)

gamma = 1 is the conditional model and gamma = 0 the unconditional one; Ho and Salimans write
w = gamma - 1.  With the exact classifier the two are one and the same: the score of

    q_t(x) = p_t(x) p_t(c|x)^gamma = p_t(x) E[p(c|X_0) | X_t = x]^gamma    up to a factor,

at t = 0 of the tilted law `tilted.Tilted`, whose own diffusion is

    p(., gamma)_t(x) = p_t(x) E[p(c|X_0)^gamma | X_t = x]                  up to a factor.

The guided score is not the score of this, and so what guidance samples is not the tilted law: they
are apart by the gradient of log E[r^gamma|x] - gamma log E[r|x], r = p(c|X_0), which is 0 for
gamma = 0 and 1, at t = 0, and where nothing of the data is left (Du et al. 2023; Bradley and
Nakkiran 2024; Chidambaram et al. 2024).  Langevin steps with the guided score do keep q_t; a
reverse SDE is the flow with Langevin steps mixed in,

    velocity - eta^2 g^2/2 score, noise eta g  =  flow  +  eta^2 g^2/2 (Langevin steps per time)

so that in the limit of many of them the end is the tilted law.  In these terms the guided SDE is
the flow of the conditional model with Langevin steps of another gamma (Bradley and Nakkiran):

    drift(gamma, eta = 1) = velocity(1) - g^2/2 score(2 gamma - 1)

Conventions: classes are whole numbers from 0; points are (*b, D); log is natural.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import Array, Draws, index_like, is_torch, like, logsumexp, namespace, numpy, wide
from .errors import ArgumentError, function, instance, number, whole
from .mixture import GaussianMixture
from .models import Model, coefficients
from .process import Process
from .targets import log_weights
from .transition import Transition

if TYPE_CHECKING:
    import torch

    from .network import Network
    from .train import Objective


class Labelled:
    """A Gaussian mixture whose components belong to classes: closed under diffusion, as it is.

    Parameters
    ----------
    law : the unconditional law.
    labels : (K,) the class of each component; every class from 0 to the largest has some mass.

    Attributes
    ----------
    law : p, a `GaussianMixture`. classes : the laws p(.|c). weights : (C,) the w_c.

    Raises ArgumentError for labels that do not fit, and a law under a batch of noises.

    >>> import diffscience as ds
    >>> law = Labelled(ds.gallery.julia_bimodal(), [0, 1])
    >>> law.weights.tolist(), law.posterior([0.0]).round(6).tolist()
    ([0.1, 0.9], [0.1, 0.9])
    """

    def __init__(self, law: GaussianMixture, labels: Sequence[int]) -> None:
        instance("law", law, GaussianMixture)
        given = np.asarray(labels)
        if given.shape != (len(law.weights),) or given.dtype.kind not in "iu":
            rule = f"be {len(law.weights)} whole numbers, one for each component"
            raise ArgumentError("labels", rule, labels)
        if law.noise.shape:
            raise ArgumentError("law", "be under one noise", f"a batch {law.noise.shape}")
        w = numpy(law.weights)
        mass = np.array([w[given == c].sum() for c in range(int(given.max()) + 1)])
        if given.min() < 0 or not np.all(mass > 0):
            raise ArgumentError("labels", "be classes 0, 1, ..., each with some mass", labels)
        self.law, self.weights = law, mass
        self.classes = tuple(_part(law, given == c) for c in range(len(mass)))

    def diffuse(self, transition: Transition) -> Labelled:
        """The law after a transition, every class with it."""
        moved = copy.copy(self)
        moved.law = self.law.diffuse(transition)
        moved.classes = tuple(law.diffuse(transition) for law in self.classes)
        return moved

    def log_posterior(self, x: Array) -> Array:
        """log p(c|x) of every class, (*b, D) -> (*b, C): the exact classifier."""
        xp = namespace(first := self.classes[0].log_prob(x))
        log_p = xp.stack([first, *(law.log_prob(x) for law in self.classes[1:])], axis=-1)
        logits = wide(log_p) + log_weights(like(self.weights, log_p))
        return xp.astype(logits - logsumexp(logits)[..., None], log_p.dtype, copy=False)

    def posterior(self, x: Array) -> Array:
        """p(c|x) of every class, (*b, D) -> (*b, C)."""
        log_p = self.log_posterior(x)
        return namespace(log_p).exp(log_p)

    def classifier(self, process: Process, label: int) -> Callable[[Array, Array], Array]:
        """(x, t) -> log p_t(c|x), (*b), for one class at every noise level of a process."""
        instance("process", process, Process)
        self._class(label)
        return lambda x, t: self.diffuse(process.at(t)).log_posterior(x)[..., label]

    def sample(self, n: int, generator: Any) -> tuple[Array, Array]:
        """n independent points (n, D) and their classes (n,).

        generator : as for `Target.sample`.
        """
        whole("n", n, 0)
        draws = Draws(generator)
        labels = draws.choice(self.weights, int(n))
        xp = namespace(labels)
        counts = [int(xp.sum(xp.astype(labels == c, xp.int64))) for c in range(len(self.classes))]
        parts = [law._drawn(k, draws) for law, k in zip(self.classes, counts, strict=True)]
        place = xp.argsort(xp.argsort(labels, stable=True))
        return xp.take(xp.concat(parts, axis=0), place, axis=0), labels

    def _class(self, label: int) -> GaussianMixture:
        """The law of a class, whose number is checked."""
        whole("label", label, 0, len(self.classes) - 1)
        return self.classes[label]


def _part(law: GaussianMixture, mask: np.ndarray) -> GaussianMixture:
    """The components of a mixture where the mask says so."""
    some = index_like(np.flatnonzero(mask), law.weights)
    return GaussianMixture(law.weights[some], law.means[some], law.covs[some])


class Guided(Model):
    """Classifier-free guidance: every answer is (1 - gamma) the unconditional + gamma the other.

    All five answers, and the drifts of reverse SDEs, are affine in eps with the same coefficients,
    so that mixing eps is mixing each of them; each is asked for directly, and keeps its digits.

    Parameters
    ----------
    conditional, unconditional : models of one process, exact or learned.
    gamma : any number; 1 is the conditional model, 0 the unconditional one.

    >>> import diffscience as ds
    >>> law, process = Labelled(ds.gallery.julia_bimodal(), [0, 1]), ds.VP()
    >>> right = ds.Oracle(law.classes[1], process)
    >>> model = Guided(right, ds.Oracle(law.law, process), 3.0)
    >>> bool(model.x0([[0.0]], 0.5)[0, 0] > right.x0([[0.0]], 0.5)[0, 0])
    True
    """

    def __init__(self, conditional: Model, unconditional: Model, gamma: float) -> None:
        instance("conditional", conditional, Model)
        instance("unconditional", unconditional, Model)
        number("gamma", gamma)
        if conditional.process != unconditional.process:
            rule = f"have the process of the conditional model, {conditional.process!r}"
            raise ArgumentError("unconditional", rule, unconditional.process)
        self.conditional, self.unconditional = conditional, unconditional
        self.process, self.gamma = conditional.process, float(gamma)

    def _mixed(self, name: str, x: Array, *rest: Any) -> Array:
        u, c = (getattr(m, name)(x, *rest) for m in (self.unconditional, self.conditional))
        value = (1 - self.gamma) * wide(u) + self.gamma * wide(c)
        return namespace(c).astype(value, c.dtype, copy=False)

    def x0(self, x: Array, t: Array) -> Array:
        """The guided denoised point, (*b, D)."""
        return self._mixed("x0", x, t)

    def score(self, x: Array, t: Array) -> Array:
        """The guided score, (*b, D)."""
        return self._mixed("score", x, t)

    def eps(self, x: Array, t: Array) -> Array:
        """eps_u + gamma (eps_c - eps_u), (*b, D)."""
        return self._mixed("eps", x, t)

    def v(self, x: Array, t: Array) -> Array:
        """The guided v, (*b, D)."""
        return self._mixed("v", x, t)

    def velocity(self, x: Array, t: Array) -> Array:
        """The guided drift of the flow, (*b, D)."""
        return self._mixed("velocity", x, t)

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """The guided drift of the reverse SDE of noise level eta, (*b, D)."""
        return self._mixed("drift", x, t, eta)


class ClassifierGuided(Model):
    """Classifier guidance: score_u + gamma grad log p_t(c|x), the gradient by torch.

    With G = gamma grad log p_t(c|x) the other answers follow:

        eps - sigma G,   x0 + var/alpha G,   v - sigma (alpha + var/alpha) G,   velocity - g^2/2 G

    Parameters
    ----------
    unconditional : the model that is guided.
    classifier : (x (n, D) float64 tensor, t) -> log p_t(c|x) (n,), such as `Labelled.classifier`
        or a network's; it must be differentiable in x.
    gamma : any number.

    Answers need alpha(t) > 0.

    >>> import diffscience as ds
    >>> law, process = Labelled(ds.gallery.julia_bimodal(), [0, 1]), ds.VP()
    >>> uncond, cond = (ds.Oracle(p, process) for p in (law.law, law.classes[1]))
    >>> one = ClassifierGuided(uncond, law.classifier(process, 1), 3.0)
    >>> two = Guided(cond, uncond, 3.0)
    >>> bool(abs(one.eps([[0.5]], 0.4) - two.eps([[0.5]], 0.4)).max() < 1e-12)
    True
    """

    def __init__(
        self, unconditional: Model, classifier: Callable[[Any, Any], Any], gamma: float
    ) -> None:
        instance("unconditional", unconditional, Model)
        function("classifier", classifier)
        number("gamma", gamma)
        self.unconditional, self.classifier = unconditional, classifier
        self.process, self.gamma = unconditional.process, float(gamma)

    def _moved(
        self, name: str, x: Array, t: Array, factor: Callable[[Array, Array], Array], *rest: Any
    ) -> Array:
        """An answer of the model + factor(alpha, var) G."""
        value = getattr(self.unconditional, name)(x, t, *rest)
        alpha, var = coefficients(self.process, value, t)
        if bool(namespace(alpha).any(alpha == 0)):
            raise ArgumentError("t", "be a time at which alpha is positive", t)
        moved = wide(value) + factor(alpha, var) * self._gradient(x, t, value)
        return namespace(value).astype(moved, value.dtype, copy=False)

    def _gradient(self, x: Array, t: Array, value: Array) -> Array:
        """gamma grad log p_t(c|x) in the library of `value`."""
        import torch

        tracked = is_torch(x) and x.requires_grad and torch.is_grad_enabled()
        points = x if is_torch(x) else torch.as_tensor(np.array(x, np.float64))
        with torch.enable_grad():
            rows = points if tracked else points.detach().requires_grad_()
            log_p = self.classifier(rows.to(torch.float64), t)
            if tuple(getattr(log_p, "shape", ())) != tuple(rows.shape[:-1]):
                rule = f"answer with shape {tuple(rows.shape[:-1])}"
                raise ArgumentError("classifier", rule, tuple(getattr(log_p, "shape", ())))
            [slope] = torch.autograd.grad(log_p.sum(), rows, create_graph=tracked)
        return self.gamma * like(slope, value)

    def x0(self, x: Array, t: Array) -> Array:
        """The guided denoised point, (*b, D)."""
        return self._moved("x0", x, t, lambda alpha, var: var / alpha)

    def score(self, x: Array, t: Array) -> Array:
        """The guided score, (*b, D)."""
        return self._moved("score", x, t, lambda alpha, var: 1.0)

    def eps(self, x: Array, t: Array) -> Array:
        """The guided noise, (*b, D)."""
        return self._moved("eps", x, t, lambda alpha, var: -(var**0.5))

    def v(self, x: Array, t: Array) -> Array:
        """The guided v, (*b, D)."""
        return self._moved("v", x, t, lambda alpha, var: -(var**0.5) * (alpha + var / alpha))

    def velocity(self, x: Array, t: Array) -> Array:
        """The guided drift of the flow, (*b, D)."""
        return self.drift(x, t, 0.0)

    def drift(self, x: Array, t: Array, eta: float = 1.0) -> Array:
        """The guided drift of the reverse SDE of noise level eta, (*b, D)."""

        def factor(alpha: Array, var: Array) -> Array:
            g = like(self.process.diffusion(t), alpha)
            return -0.5 * (1 + eta * eta) * (g[..., None] if g.ndim else g) ** 2

        return self._moved("drift", x, t, factor, eta)


def label_dropout(
    network: Network,
    law: Labelled,
    *,
    dropped: float = 0.15,
    times: Callable[[int, torch.Generator], torch.Tensor] | None = None,
    loss: Callable[..., Any] | None = None,
) -> Objective:
    """The objective of classifier-free guidance for `train.fit`, with the points of `law.law`.

    Each point gets a label from the exact p(c|x), so that (x, label) has its joint law, and loses
    it with probability `dropped`; one network learns the conditional and the unconditional model
    at once (Ho and Salimans 2022, algorithm 1, which drops 0.1 to 0.2 of the labels).

    Parameters
    ----------
    network : of a net with `classes`, as many as the law has.
    dropped : probability that a label is dropped, in (0, 1).
    times : (n, generator) -> (n,); `times.uniform` by default.
    loss : (model, x0, t, noise) -> rows; `losses.denoising` by default.

    >>> import diffscience as ds
    >>> law = Labelled(ds.gallery.julia_bimodal(), [0, 1])
    >>> net = ds.nets.MLP(1, widths=(16,), classes=2)
    >>> network = ds.Network(net, ds.VP())
    >>> rows = label_dropout(network, law)
    >>> len(ds.train.fit(net, law.law, rows, steps=3, seed=0, batch=32).losses)
    3
    >>> Guided(network.given(1), network.given(None), 2.0).eps(np.zeros((5, 1)), 0.5).shape
    (5, 1)
    """
    import torch

    from . import losses
    from .network import Network
    from .times import uniform

    instance("network", network, Network)
    instance("law", law, Labelled)
    number("dropped", dropped, 0, 1, "()")
    classes = getattr(network.net, "classes", 0)
    if classes != len(law.classes):
        raise ArgumentError("network", f"know {len(law.classes)} classes", classes)
    draw = uniform(network.process) if times is None else times
    rows = losses.denoising if loss is None else loss
    function("times", draw)
    function("loss", rows)

    def objective(
        net: torch.nn.Module, x0: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        label = torch.multinomial(law.posterior(x0), 1, generator=generator)[:, 0]
        lost = torch.rand(len(x0), generator=generator, device=x0.device) < dropped
        label = torch.where(lost, classes, label)
        noise = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        told = network.with_net(net).given(label)
        return rows(told, x0, draw(len(x0), generator), noise)

    return objective
