"""How well does each way of matching scores learn that of three Gaussians in the plane?

The law is that of the page *2D finite-difference score matching* of R. Rosa's random_notes (CC BY
4.0; built with Julia 1.12.1): 0.4 N((-3,-3), I) + 0.4 N((3,3), I) + 0.2 N((-1,1), I).

The page itself is replayed from its random stream and `PUBLISHED` holds what it prints, to be
compared with and nothing else. Its loss by finite differences calls the network four times; each
call gives a float32 gradient, and the four are added in float32. In the order of Zygote (the last
call first) all 2000 epochs come out to the last digits; in the two other orders tried rounding
chaos sets in.

The objectives of `losses` for a network of x at one noise level then train the same smooth network
on n points and on fresh points at every step. Left out are `multilevel`, which the study ncsn
trains, and the objectives in continuous time.

    relative Fisher error   E|psi - s|^2 / E|s|^2, weighted by the density, by quadrature
    KL(p, q)                q = exp(phi)/Z on a mesh of the window, phi the least-squares potential
                            of psi: min sum w |grad phi - psi|^2, w the density (at least 1e-6 of
                            its maximum); exact psi gives the floor
    rotation                E|psi - grad phi|^2 / E|psi|^2, the part of psi that is no gradient

Explicit, implicit and sliced objectives aim at s itself, finite differences up to delta^2; Parzen
and denoising at the score of the law blurred by h or sigma, Kingma-LeCun at a score shrunk by its
penalty. `error from its aim` takes E over the law of the points at which the objective compares: p,
and p blurred by sigma for denoising.

Means are over members. Rows share data: member k of all objectives has the same points, and a
smaller sample is the first points of a larger one. Initial weights, batches, and what noise or
directions a step draws are of every objective, data and member alone.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import gallery, losses, nets, plots, scorenotes
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro, network, span
from diffscience.metrics import responsibilities
from diffscience.regression import Adam, Params, Regression, apply, layers
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target
from diffscience.train import History, fit
from diffscience.transition import Transition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from pandas import DataFrame
    from PIL.Image import Image

Arrays = dict[str, np.ndarray]
Seeds = Callable[..., int]  # `Run.seed_for`: a seed for every key

LAW = gallery.julia_trimodal()
HALF = 8.0  # half the side of the note's window
MESH = 120  # points along it
FRESH, ON_MESH = "fresh", "mesh"
BOUND = 0.1  # relative Fisher error that a consistent objective must come below
TOLERANCE = 1e-5  # relative: what the project asks of a replay until rounding chaos sets in
COUNTS = (1, 10, 20, 50, 100, 500, 1000, 2000, 4000)  # sample sizes of the note's table of C
ORDERS = ("last call first", "first call first", "one call")
SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)  # of the steps after which errors are taken

_PRINTED = {  # (quantity, step of the index) -> what the page prints; first index 0, or the step
    ("points", 0): """
        -3.696922040577957 2.556772674293886 -3.033651509981303 5.1672947152544895
        -3.6462237060140024 3.4102960875997117 0.6696459295015311 3.2155718822745527
    """,
    ("score at the points", 0): """
        0.6969228899748048 0.44299201282532824 1.9946701191708671 -2.1672947253904584
        0.6462254048076983 -0.41041374404010544 0.2523912079807282 -0.2155718873425372
    """,
    ("step delta", 0): "0.00581614558657555 0.006593323926327331",
    ("initial weights", 0): """
        -1.2633736 1.8181845 2.3867178 0.5713208 -0.7349689 -1.3411301 -1.167693 -1.8823313
        0.48686042 0.32835403 0.23500215 -0.6289243 -0.4877348 -0.08177762 0.57667726 -0.06088416
        0.20568033 -0.66487825 0.17736456 -0.20175992 0.4999213 -0.5164128 0.5682744 0.33539677
        0.3586208 -0.057023764 -0.17773739 -0.41380876 0.12927775 -0.22223856 0.06703623 0.18231718
        0.067408144 0.110440105
    """,
    ("C on the mesh", 0): "0.8921462840364986",
    ("C on the points", 0): "0.9129656846610863",
    ("C on samples, first ten", 0): """
        1.1538119449520563 1.2247351227578578 1.1028524320443522 0.9920784868026302
        1.0063955226226398 0.8755541733725885 0.8342517573145984 0.8759484336636649
        0.8827405034687669 0.9485837438780702
    """,
    ("C on samples, last nine", 0): """
        0.298790143447742 0.7794066301161721 1.1364257738853651 0.6101320519101868
        0.8696468922755639 0.9416724546394305 0.9063918160454828 0.8914872767709621
        0.871944900929463
    """,
    ("initial explicit loss", 0): "32.62664847852629",
    ("initial finite-difference loss", 0): "31.673041841884316",
    ("initial finite-difference loss + C", 0): "32.56518812592081",
    ("explicit loss, random weights", 0): """
        13.7323 38.8598 5.71619 9.86731 38.9853 20.4021 14.7908 7.77597
    """,
    ("finite-difference loss, random weights", 0): """
        13.0453 37.4968 4.90646 8.84147 38.2617 19.6932 13.6616 7.00106
    """,
    ("gradient, finite differences", 0): """
        3.6879158 4.0172615 -2.2284822 -2.6868043 -1.9008694 -1.7861443 -4.612377 -4.320793
        0.8997364 -0.8043432 1.7370119 0.45905542 0.8397131 -1.230505 0.353755 -1.2257671
        0.9869879 1.0354862 0.52109236 1.3021913 1.5245895 0.877233 0.5858979 1.4446392
        4.2770233 22.516876 -17.53038 -24.572052 11.982891 26.250607 15.06171 21.036867
        -0.113342285 5.354232
    """,
    ("gradient, explicit", 0): """
        3.689433 4.0178785 -2.264155 -2.618133 -1.9069793 -1.7834694 -4.6186814 -4.3203063
        0.8609152 -0.7731151 1.725719 0.44558188 0.84764415 -1.251586 0.36021093 -1.1504575
        0.975368 1.044547 0.5048005 1.1946136 1.5058247 0.893234 0.58936614 1.429456
        4.235089 22.786686 -17.630789 -24.70937 11.946889 26.341808 14.838343 20.73272
        -0.11527908 5.321644
    """,
    ("explicit loss, training", 100): """
        0.8401849278869697 0.563607700266948 0.4926258151863607 0.45830559661430026
        0.43358616510264614 0.41197109354966255 0.39327886995951344 0.3768739639070251
        0.3631936077433342 0.35101209994291793 0.33997820230228853 0.3293390319395758
        0.31880814244768374 0.30846754084144945 0.2984211525235665 0.28827943967632763
        0.2778414128971065 0.26736572655519075 0.25641855404231345 0.2448096823452019
    """,
    ("finite-difference loss, training", 100): """
        -0.02852607188206327 -0.3056820935385301 -0.37357200432482657 -0.4060071208695771
        -0.4270067649241402 -0.44428054612672957 -0.4591184077812442 -0.4711387063320863
        -0.4809373364465081 -0.4897282508077628 -0.49795548481343355 -0.5057248136083727
        -0.5133231683129975 -0.5203089294538503 -0.527191618676005 -0.533918647530345
        -0.5407054119759427 -0.5470494965278498 -0.5533731989980993 -0.5598464396520437
    """,
    ("exact score at corners", 0): """
        5.0 3.92437 2.84874 1.77311 0.697479 -1.90756 -2.98319 -4.05882
        5.0 5.0 5.0 5.0 5.0 -4.05882 -4.05882 -4.05882
    """,
    ("explicit net at corners", 0): """
        2.19923 1.53509 0.870944 0.206801 0.502545 -0.277666 -1.05788
        0.997473 1.47914 1.9608 2.44247 -3.00036 -2.75735 -2.51434
    """,
    ("finite-difference net at corners", 0): """
        1.71235 1.17107 0.606229 -0.0336345 1.14829 0.627492 0.106691
        -0.196228 0.441023 1.20491 1.90302 -2.18941 -2.07645 -1.9635
    """,
}
PUBLISHED = {
    name: {step * (i + 1) if step else i: text for i, text in enumerate(printed.split())}
    for (name, step), printed in _PRINTED.items()
}
TRAINED = {"explicit net at corners": "explicit", "finite-difference net at corners": ORDERS[0]}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    epochs : of the replayed trainings; 2000 in the note.
    sizes : n of the fixed samples, increasing; members : trainings of each objective and sample.
    widths, steps, batch, rate, final_rate : of the network and its training.
    delta, penalty, sigma : of finite differences, Kingma-LeCun and denoising.
    bandwidth : h = bandwidth n^(-1/8) of the Parzen estimate (the rate that is best for a
        gradient in the plane).
    cells : of the mesh along a side, on which potentials are found.
    draws : batches behind a gradient's variance.
    repeats, dims : timings of each objective, and the D at which they are made.
    frames : of the animation.
    """

    epochs: int = 2000
    sizes: tuple[int, ...] = (128, 1024, 16384)
    members: int = 8
    widths: tuple[int, ...] = (32, 32)
    steps: int = 800
    batch: int = 96
    rate: float = 0.01
    final_rate: float = 1e-4
    delta: float = 0.05
    penalty: float = 0.1
    sigma: float = 0.3
    bandwidth: float = 1.0
    cells: int = 100
    draws: int = 150
    repeats: int = 9
    dims: tuple[int, ...] = (2, 16)
    frames: int = 36
    seed: int = 2

    def __post_init__(self) -> None:
        least = {"epochs": 1, "members": 2, "steps": 16, "batch": 2, "cells": 20, "draws": 4}
        least |= {"repeats": 1, "frames": 2}
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        for name, low in (("sizes", 2), ("dims", 1)):
            values = getattr(self, name)
            for value in values:
                whole(name, value, low)
            if not values or list(values) != sorted(set(values)):
                raise ArgumentError(name, "be one or more increasing numbers", values)
        for name in ("rate", "final_rate", "delta", "penalty", "sigma", "bandwidth"):
            number(name, getattr(self, name), 0, ends="()")

    def blur(self, size: int) -> float:
        """The Parzen bandwidth for `size` points."""
        return self.bandwidth * size ** (-1 / 8)


# Objectives -------------------------------------------------------------------------------------

Rows = Callable[[Config, Any, torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One objective: rows(config, psi, x, score, generator) -> (n,).

    given : what `score` is at x: "" (nothing), "exact" or "parzen".
    aim : the score at the minimum: "p", "blurred" p, or "shrunk".
    group : the panel it is drawn in.
    """

    rows: Rows
    aim: str = "p"
    given: str = ""
    group: str = "no random direction"


def _sliced(objective: Callable[..., Any], kind: str, *, explicit: bool = False) -> Rows:
    def rows(c: Config, psi: Any, x: Any, s: Any, g: Any) -> Any:
        v = losses.directions(len(x), x.shape[1], g, kind).to(x)
        return objective(psi, x, s, v) if explicit else objective(psi, x, v)

    return rows


def _explicit(c: Config, psi: Any, x: Any, s: Any, g: Any) -> torch.Tensor:
    return losses.explicit(psi, x, s)


def _denoising(c: Config, psi: Any, x: Any, s: Any, g: Any) -> Any:
    noise = torch.randn(x.shape, generator=g, dtype=x.dtype, device=x.device)
    return losses.denoising_at(psi, x, noise, Transition(1.0, c.sigma**2))


SLICED = "a random direction for each point"
KINDS = {
    "explicit": Kind(_explicit, given="exact"),
    "explicit on the mesh": Kind(
        lambda c, psi, x, s, g: losses.explicit(psi, x, s, mesh_weights(x)), given="exact"
    ),
    "implicit": Kind(lambda c, psi, x, s, g: losses.implicit(psi, x)),
    "implicit + Kingma-LeCun": Kind(
        lambda c, psi, x, s, g: losses.implicit(psi, x, c.penalty), "shrunk"
    ),
    "finite differences": Kind(lambda c, psi, x, s, g: losses.finite_difference(psi, x, c.delta)),
    "Parzen": Kind(_explicit, "blurred", "parzen"),
    "sliced, Rademacher": Kind(_sliced(losses.sliced, "rademacher"), group=SLICED),
    "sliced, spherical": Kind(_sliced(losses.sliced, "spherical"), group=SLICED),
    "sliced, Gaussian": Kind(_sliced(losses.sliced, "gaussian"), group=SLICED),
    "sliced, reduced": Kind(_sliced(losses.sliced_reduced, "rademacher"), group=SLICED),
    "sliced, explicit": Kind(
        _sliced(losses.sliced_explicit, "rademacher", explicit=True), given="exact", group=SLICED
    ),
    "denoising": Kind(_denoising, "blurred"),
}
MESHED, PARZEN = "explicit on the mesh", "Parzen"
VARIED = {  # objectives whose gradients are compared with that of "implicit"
    name: KINDS[name].rows
    for name in ("implicit", "finite differences", "sliced, Rademacher", "sliced, spherical",
                 "sliced, Gaussian", "sliced, explicit")
} | {
    f"reduced, {kind}": _sliced(losses.sliced_reduced, kind.lower())
    for kind in ("Rademacher", "spherical", "Gaussian")
}  # fmt: skip
VARIED |= {"explicit": _explicit}


def data_of(config: Config, name: str) -> list[str]:
    """What an objective is trained on: sizes as text, and fresh points."""
    if name == MESHED:
        return [ON_MESH]
    sizes = [str(n) for n in config.sizes]
    return sizes if name == PARZEN else [*sizes, FRESH]


def fits_of(config: Config) -> list[tuple[str, str]]:
    """All (objective, data)."""
    return [(name, data) for name in KINDS for data in data_of(config, name)]


def points(config: Config, seed_for: Seeds) -> np.ndarray:
    """The largest sample of every member, (S, n, 2); smaller ones are its first points."""
    streams = [np.random.default_rng(seed_for("points", k)) for k in range(config.members)]
    return np.stack([LAW.sample(config.sizes[-1], stream) for stream in streams])


def mesh(side: int = MESH) -> np.ndarray:
    """The note's mesh of its window, x fastest, (side^2, 2)."""
    axis = span(-HALF, HALF, side)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def mesh_weights(x: torch.Tensor) -> torch.Tensor:
    """p(x) times the area of the mesh: the mean over its points is then the integral."""
    return torch.exp(LAW.log_prob(x)) * (2 * HALF * MESH / (MESH - 1)) ** 2


# Training ---------------------------------------------------------------------------------------


def together(stack: nets.Stack) -> Field:
    """All members at the same points: (n, D) -> (S, n, D), float64."""

    def field(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return stack.at(torch.from_numpy(x).float()).double().numpy()

    return field


def given_points(config: Config, name: str, data: str, seed_for: Seeds) -> torch.Tensor | None:
    """The points of every member (beside them their scores, for Parzen), (S, n, 2 or 4).

    None for fresh points.
    """
    if data == FRESH:
        return None
    if data == ON_MESH:
        return torch.from_numpy(mesh()).float().expand(config.members, -1, -1)
    x = points(config, seed_for)[:, : int(data)]
    if name == PARZEN:
        h = config.blur(int(data))
        x = np.stack([np.hstack([own, gallery.empirical(own).blurred(h).score(own)]) for own in x])
    return torch.from_numpy(x).float()


def minimised(
    config: Config,
    net: torch.nn.Module,
    objective: Any,
    given: torch.Tensor | None,
    seed: int,
    count: int,
    snapshots: list[int],
) -> History:
    """`fit` with the numbers of the config; Ctrl-C ends it.

    given : all rows, handed to the objective at each step; None for `count` fresh points.
    """
    history = fit(
        net, LAW if given is None else given, objective, steps=config.steps, seed=seed,
        batch=count if given is None else None, rate=config.rate, final_rate=config.final_rate,
        snapshots=snapshots, progress=lambda steps: steps,
    )  # fmt: skip
    if history.interrupted:
        raise KeyboardInterrupt
    return history


def picked(given: torch.Tensor, count: int, g: torch.Generator) -> torch.Tensor:
    """`count` rows of each member's own, with replacement: (S, n, w) -> (count S, w), in turns."""
    members, n, width = given.shape
    pick = torch.randint(n, (count, members), generator=g, device=given.device)
    own = torch.arange(members, device=given.device)
    return given[own, pick].reshape(-1, width)


def trained(
    config: Config, name: str, data: str, seed_for: Seeds, judge: Judge, device: str = "cpu"
) -> Arrays:
    """All members of one objective on one kind of data, and what there is to say of them.

    Fields, arrows and log_q are those of the first member.
    """
    kind, S = KINDS[name], config.members
    seeds = [seed_for(name, data, "weights", k) for k in range(S)]
    stack = nets.Stack([nets.Score(2, config.widths, seed) for seed in seeds]).to(device)
    given = given_points(config, name, data, seed_for)
    given = None if given is None else given.to(device)
    at = [max(1, round(share * config.steps)) for share in SHARES]

    def objective(net: torch.nn.Module, x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        rows = x if given is None else picked(given, config.batch, g)
        x, beside = rows[:, :2], rows[:, 2:]
        score = LAW.score(x) if kind.given == "exact" else beside
        # The mean over all rows is that over the members: times S, each has its own.
        return S * kind.rows(config, net, x, score, g)

    every = None if given is None else given.reshape(-1, given.shape[-1])
    seed = seed_for(name, data, "batches")
    history = minimised(config, stack, objective, every, seed, config.batch * S, at)
    psi, found = together(stack.cpu()), []
    for step in at:
        stack.load_state_dict(history.snapshots[step])
        found.append(judge.errors(psi))
    return {
        "after": np.array(at),
        "errors": np.stack(found),  # (steps, members)
        "aimed": aim_of(config, name, data, judge).errors(psi),
        "field": psi(judge.centres)[0].astype(np.float32),
        "arrows": psi(centres(ARROWS))[0].astype(np.float32),
        **judge.recovered(psi),
    }


def aim_of(config: Config, name: str, data: str, judge: Judge) -> Judge:
    """What measures the distance from an objective's own aim, under the law where it compares."""
    if name == PARZEN:
        return Judge(LAW.blurred(config.blur(int(data))))
    if name == "denoising":
        blurred = LAW.blurred(config.sigma)
        return Judge(blurred, blurred)
    return judge


# Judging ----------------------------------------------------------------------------------------

Field = Callable[[np.ndarray], np.ndarray]  # (n, 2) -> (S, n, 2)
ARROWS = 13  # along a side


def centres(n: int) -> np.ndarray:
    """Centres of n x n cells of the window, x fastest, (n^2, 2)."""
    steps = HALF * ((2 * np.arange(n) + 1) / n - 1)
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)


class Judge:
    """What learned fields are measured with: the score of `aim` at points of `law`, and a mesh."""

    def __init__(self, aim: Target = LAW, law: Target = LAW) -> None:
        x, w = law.quadrature()
        near = w > 1e-14 * w.max()  # what is left out weighs less than 1e-10
        self.x, self.w = x[near], w[near]
        self.score = aim.score(self.x)
        self.information = float(self.w @ (self.score**2).sum(-1))

    def with_mesh(self, cells: int) -> Judge:
        """The same with a mesh of `cells` x `cells` on which potentials are found."""
        import scipy.sparse
        import scipy.sparse.linalg

        n, h = cells, 2 * HALF / cells
        self.centres = centres(n)
        number = np.arange(n * n).reshape(n, n)  # rows: y
        low = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
        high = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
        self.edges = (self.centres[low] + self.centres[high]) / 2
        self.along = np.repeat([0, 1], n * (n - 1))  # the component of psi along each edge
        density = np.exp(LAW.log_prob(self.edges))
        self.edge_weight = np.maximum(density, 1e-6 * density.max())
        self.edge_density = density * h * h
        rows = np.arange(len(low))
        ones = np.ones(len(low)) / h
        shape = (len(low), n * n)
        self.gradient = scipy.sparse.csr_matrix(
            (np.concatenate([ones, -ones]), (np.tile(rows, 2), np.concatenate([high, low]))), shape
        )
        self.weighted = self.gradient.T @ scipy.sparse.diags(self.edge_weight)
        normal = (self.weighted @ self.gradient)[1:, 1:]  # phi is 0 at the first cell
        self.solve = scipy.sparse.linalg.splu(normal.tocsc()).solve
        self.log_p = LAW.log_prob(self.centres)
        self.log_p -= np.logaddexp.reduce(self.log_p)
        self.share = responsibilities(self.centres, LAW)
        return self

    def errors(self, psi: Field) -> np.ndarray:
        """E|psi - s|^2 / E|s|^2 of each member, (S,)."""
        off = ((psi(self.x) - self.score) ** 2).sum(-1)
        return np.asarray(off @ self.w / self.information)

    def recovered(self, psi: Field) -> Arrays:
        """KL, mode weights and rotation of each member, and the first member's log q."""
        kl, modes, rotation, first = [], [], [], None
        for field in psi(self.edges):
            slope = np.take_along_axis(field, self.along[:, None], 1)[:, 0]
            phi = np.concatenate([[0.0], self.solve((self.weighted @ slope)[1:])])
            log_q = phi - np.logaddexp.reduce(phi)
            off = slope - self.gradient @ phi
            kl.append(np.exp(self.log_p) @ (self.log_p - log_q))
            modes.append(np.exp(log_q) @ self.share)
            rotation.append(self.edge_density @ off**2 / (self.edge_density @ slope**2))
            first = log_q if first is None else first
        return {"kl": np.array(kl), "modes": np.stack(modes), "rotation": np.array(rotation),
                "log_q": np.asarray(first)}  # fmt: skip


# The note ---------------------------------------------------------------------------------------


def drawn_points(rng: Xoshiro, n: int = 1024) -> np.ndarray:
    """n points of the law as the page draws them, (n, 2)."""
    return rng.mixture(LAW.weights, LAW.means, [np.eye(2)] * len(LAW.weights), n)


def shifted(x: torch.Tensor, delta: np.ndarray) -> list[torch.Tensor]:
    """x + delta_1 e_1, x - delta_1 e_1, x + delta_2 e_2, x - delta_2 e_2."""
    steps = torch.from_numpy(np.diag(delta))
    return [x + side * step for step in steps for side in (1, -1)]


def finite_difference(
    x: np.ndarray, delta: np.ndarray, order: str = ORDERS[0]
) -> Callable[[Any], torch.Tensor]:
    """The note's loss, as an objective of `scorenotes.train`.

    order : in which the gradients of the four calls of the network are added, or "one call" on all
        points, whose gradient is rounded once. Automatic differentiation adds the last call first.
    """
    moved = shifted(torch.from_numpy(x), delta)

    def loss(net: Any) -> torch.Tensor:
        if order == ORDERS[2]:
            a, b, c, d = net(torch.cat(moved)).reshape(4, -1, 2)
        elif order == ORDERS[1]:
            d, c, b, a = (net(part) for part in moved[::-1])
        else:
            a, b, c, d = (net(part) for part in moved)
        mean = (b + a + d + c) / 4
        slopes = ((a - b) / (2 * delta[0]))[:, 0].mean() + ((c - d) / (2 * delta[1]))[:, 1].mean()
        return (mean**2).mean() + slopes

    return loss


def as_tensors(params: Params) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network of the notes as a function of tensors, without gradients."""
    return lambda x: torch.from_numpy(apply(params, x.numpy()))


def constants(rng: Xoshiro) -> np.ndarray:
    """The note's 100 rounds of C = 1/2 E|s|^2 on samples of `COUNTS` points, (100, 9)."""
    x = drawn_points(rng, 100 * sum(COUNTS))  # point after point: one draw is as good as 900
    half = (LAW.score(x) ** 2).sum(-1) / 2
    parts = np.split(half, np.cumsum(COUNTS * 100)[:-1])
    return np.array([part.mean() for part in parts]).reshape(100, -1)


def _constant(x: np.ndarray) -> float:
    return float(np.mean((LAW.score(x) ** 2).sum(-1)) / 2)


def shown_weights(layers: Params) -> np.ndarray:
    """The entries of a list of layers that the page shows: rows 1, 2, 15, 16 and such, (34,)."""
    (w, b), (v, c) = [(np.asarray(p[0], float), np.asarray(p[1], float)) for p in layers]
    return np.concatenate([w[[0, 1, -2, -1]].ravel(), b, v[:, [0, 1, -2, -1]].ravel(), c])


def note(config: Config, judge: Judge) -> Arrays:
    """The page in the order of its stream: points, weights, samples for C, thirty random nets."""
    rng = Xoshiro(12345)
    x, start = drawn_points(rng), network(rng, (2, 16, 2))
    score, delta = LAW.score(x), np.ptp(x, axis=0) / 2048
    grid, area = mesh(), (2 * HALF / (MESH - 1)) ** 2
    C = np.sum(np.exp(LAW.log_prob(grid)) * (LAW.score(grid) ** 2).sum(-1)) * area / 2
    samples = constants(rng)
    nets_ = [network(rng, (2, 16, 2)) for _ in range(30)]
    loss = finite_difference(x, delta)
    explicit = [float(np.mean((apply(p, x) - score) ** 2)) for p in (start, *nets_)]
    implicit = [loss(as_tensors(p)).item() for p in (start, *nets_)]
    adam = Adam(start, 0.003)
    net = scorenotes.Net(adam)
    by_differences = layers(net.gradient(loss(net)), adam.widths)
    few, half = [0, 1, -2, -1], (judge.score**2).sum(-1) / 2
    return {
        "points": x[few].T,
        "score at the points": score[few].T,
        "step delta": delta,
        "initial weights": shown_weights(start),
        "C on the mesh": C,
        "C on the points": _constant(x),
        "samples": samples,
        "explicit": np.array(explicit),
        "implicit": np.array(implicit),
        "pairs": np.array([pair(p, x, score, delta) for p in (start, *nets_)]),
        "gradient, finite differences": shown_weights(by_differences),
        "gradient, explicit": shown_weights(Regression(start, 0.003).gradient(x, score)[1]),
        "variance of |s|^2/2": float(judge.w @ (half - judge.w @ half) ** 2),
    }


def pair(params: Params, x: np.ndarray, score: np.ndarray, delta: np.ndarray) -> list[float]:
    """(mean over the points, its standard error, mean over p) of explicit - finite differences.

    The note's explicit loss is the mean of all entries: 1/2 |psi - s|^2 of each row. The mean over
    p is a sum over the mesh.
    """
    own, grid = identity_gap(params, x, score, delta), mesh()
    weights = mesh_weights(torch.from_numpy(grid)).numpy()
    under_p = weights * identity_gap(params, grid, LAW.score(grid), delta)
    return [*mean_and_error(own), float(under_p.mean())]


def identity_gap(params: Params, x: np.ndarray, score: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """explicit - finite differences of each point, (n,)."""
    differences = losses.finite_difference(as_tensors(params), torch.from_numpy(x), tuple(delta))
    return np.asarray(losses.explicit(partial(apply, params), x, score) - differences.numpy())


def noted(config: Config, way: str, judge: Judge) -> Arrays:
    """One training of the note: "explicit", or finite differences with one of `ORDERS`."""
    rng = Xoshiro(12345)
    x, start = drawn_points(rng), network(rng, (2, 16, 2))
    snapshots = {}
    kept = np.unique(np.linspace(1, config.epochs, config.frames).round().astype(int)).tolist()
    if way == "explicit":
        regression, score = Regression(start, 0.003), LAW.score(x)
        loss = np.array([regression.step(x, score) for _ in range(config.epochs)])
        params = regression.params
    else:
        objective = finite_difference(x, np.ptp(x, axis=0) / 2048, way)
        run = scorenotes.train(Adam(start, 0.003), objective, config.epochs, snapshots=kept)
        loss, params, snapshots = run.losses, run.params, run.snapshots
    psi: Field = lambda x: apply(params, x)[None]  # noqa: E731
    film = [apply(snapshots[epoch], centres(ARROWS)) for epoch in snapshots]
    return {
        "loss": loss,
        "corners": _corners(lambda x: apply(params, x)),
        "error": judge.errors(psi),
        "field": psi(judge.centres)[0].astype(np.float32),
        "arrows": psi(centres(ARROWS))[0].astype(np.float32),
        "film epochs": np.array(list(snapshots), int),
        "film": np.array(film, np.float32).reshape(-1, ARROWS**2, 2),
        **judge.recovered(psi),
    }


def _corners(psi: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """psi at every eighth point of the mesh both ways, (2, 225)."""
    axis = span(-HALF, HALF, MESH)[::8]
    return np.asarray(psi(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))).T


# Variance and cost ------------------------------------------------------------------------------


def gradients(config: Config, net: nets.Score, generator: torch.Generator) -> dict[str, np.ndarray]:
    """The gradient of each objective on each of `draws` batches, (draws, parameters).

    All objectives see the same points, so that what a sliced one has more is from its directions.
    """
    parameters = list(net.parameters())
    found: dict[str, list[torch.Tensor]] = {name: [] for name in VARIED}
    for _ in range(config.draws):
        x = LAW.sample(config.batch, generator).float()
        s = LAW.score(x)
        for name, rows in VARIED.items():
            mean = rows(config, net, x, s, generator).mean()
            # The bias of the last layer may be in no derivative: its part is then 0.
            parts = torch.autograd.grad(mean, parameters, allow_unused=True)
            flat = [torch.zeros(p.numel()) if g is None else g.flatten()
                    for p, g in zip(parameters, parts, strict=True)]  # fmt: skip
            found[name].append(torch.cat(flat).double())
    return {name: torch.stack(g).numpy() for name, g in found.items()}


def gradient_variance(config: Config, net: nets.Score, generator: torch.Generator) -> Arrays:
    """tr Cov of the gradient of each objective over batches, in the order of `VARIED`.

    over : its ratio to that of the exact trace, and the ratio's standard error, (objectives, 2).
    drawn : the share of it that comes from the directions, and its standard error; NaN where none
        are drawn.
    """
    found = gradients(config, net, generator)
    squares = {name: ((g - g.mean(0)) ** 2).sum(-1) for name, g in found.items()}
    over = [jackknife(own, squares["implicit"]) for own in squares.values()]
    drawn = []
    for name, own in squares.items():
        unsliced = squares["explicit" if name == "sliced, explicit" else "implicit"]
        rest, error = jackknife(unsliced, own)
        sliced = "sliced" in name or "reduced" in name
        drawn.append((1 - rest, error) if sliced else (math.nan, math.nan))
    variance = [own.sum() / (config.draws - 1) for own in squares.values()]
    return {"variance": np.array(variance), "over": np.array(over), "drawn": np.array(drawn)}


def jackknife(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """sum a / sum b and its standard error over common draws."""
    ratio, n = float(a.sum() / b.sum()), len(a)
    without = (a.sum() - a) / (b.sum() - b)
    return ratio, float(math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def row_variance(judge: Judge, generator: torch.Generator) -> Arrays:
    """Variance over v of v.Js v at true points, J the Hessian of log p: measured and predicted."""
    measured, n = [], 20_000
    x = LAW.sample(n, generator)
    hessian = LAW.hessian(x)
    trace = hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    for kind in losses.DIRECTIONS:
        v = losses.directions(n, 2, generator, kind).to(x)
        measured.append((((v[:, None] @ hessian @ v[..., None])[:, 0, 0] - trace) ** 2).numpy())
    J = np.asarray(LAW.hessian(judge.x))
    predicted = [float(judge.w @ direction_variance(J, kind)) for kind in losses.DIRECTIONS]
    mean, error = mean_and_error(measured, axis=1)
    return {"measured": mean, "error": error, "predicted": np.array(predicted)}


def direction_variance(J: np.ndarray, kind: str) -> np.ndarray:
    """Var over v of v.J v for symmetric J (n, 2, 2): 4 j12^2 for signs, 2|J|^2 for Gaussian v, and
    |J|^2 - (tr J)^2/2 on the circle of radius sqrt(2)."""
    whole = (J**2).sum((-2, -1))
    if kind == "rademacher":
        return np.asarray(4 * J[:, 0, 1] ** 2)
    half_trace = np.trace(J, axis1=1, axis2=2) ** 2 / 2
    return np.asarray(2 * whole if kind == "gaussian" else whole - half_trace)


def cost(config: Config, seed_for: Seeds) -> Arrays:
    """Milliseconds on the CPU of a training step (loss, gradient, Adam), in turns.

    times (dims, kinds, repeats).
    """
    times = np.empty((len(config.dims), len(KINDS), config.repeats))
    for i, dim in enumerate(config.dims):
        generator = torch.Generator().manual_seed(seed_for("cost", dim))
        x = torch.randn(config.batch, dim, generator=generator)
        net = partial(nets.Score, dim, config.widths, seed_for("cost", dim, "weights"))
        steps = [stepper(config, name, net(), x, generator) for name in KINDS]
        for repeat in range(config.repeats):
            for j, step in enumerate(steps):
                step()  # not timed: pays for what its predecessor left behind
                begin = time.perf_counter()
                for _ in range(5):
                    step()
                times[i, j, repeat] = 1e3 * (time.perf_counter() - begin) / 5
    return {"times": times}


def stepper(
    config: Config, name: str, net: nets.Score, x: torch.Tensor, g: torch.Generator
) -> Callable[[], None]:
    """A step on given points; scores and weights of the law are taken as known beforehand."""
    adam, rows, weights = torch.optim.Adam(net.parameters(), lr=1e-4), KINDS[name].rows, None
    if name == MESHED:
        weights = torch.ones(len(x))

    def step() -> None:
        adam.zero_grad()
        if weights is None:
            rows(config, net, x, -x, g).mean().backward()
        else:
            losses.explicit(net, x, -x, weights).mean().backward()
        adam.step()

    return step


def _exactly(config: Config, net: Any, x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _explicit(config, net, x, LAW.score(x), g)


def compute(config: Config, run: Run) -> dict[str, Any]:
    """The note, all fits, variances and costs."""
    judge = Judge().with_mesh(config.cells)
    exact = judge.recovered(lambda x: LAW.score(x)[None])
    arrays: dict[str, Any] = {
        "truth field": LAW.score(judge.centres).astype(np.float32),
        "truth arrows": LAW.score(centres(ARROWS)),
        "truth corners": _corners(LAW.score),
        "information": judge.information,
        **{f"exact {key}": value for key, value in exact.items()},
    }
    arrays |= {f"note {key}": value for key, value in run.cell("note", note, config, judge).items()}
    for way in run.progress(["explicit", *ORDERS], "the note's trainings"):
        found = run.cell(f"note, {way}", noted, config, way, judge)
        arrays |= {f"{way} | {key}": value for key, value in found.items()}
    for name, data in run.progress(fits_of(config), "fits"):
        key = f"{name} | {data}"
        found = run.cell(key, trained, config, name, data, run.seed_for, judge, run.device)
        arrays |= {f"{key} | {part}": value for part, value in found.items()}
    for state in ("initial", "trained"):
        own = run.torch_generator("variance", state, device="cpu")
        found = run.cell(f"variance {state}", variance, config, state, run.seed_for, own)
        arrays |= {f"variance {state} {key}": value for key, value in found.items()}
    rows = run.cell("rows", row_variance, judge, run.torch_generator("rows", device="cpu"))
    arrays |= {f"rows {key}": value for key, value in rows.items()}
    return arrays | run.cell("cost", cost, config, run.seed_for)


def variance(config: Config, state: str, seed_for: Seeds, generator: torch.Generator) -> Arrays:
    """`gradient_variance` of one network, as it begins or trained on the exact score."""
    net = nets.Score(2, config.widths, seed_for("variance", "weights"))
    if state == "trained":
        seed = seed_for("variance", "batches")
        minimised(config, net, partial(_exactly, config), None, seed, config.batch, [])
    return gradient_variance(config, net, generator)


# Tables -----------------------------------------------------------------------------------------


def replayed(config: Config, arrays: Arrays) -> Iterator[tuple[str, int, float, str]]:
    """(quantity, index, value, published as printed) for all that the page prints."""
    values: dict[str, Any] = {
        name: np.ravel(arrays[f"note {name}"]) for name in PUBLISHED if f"note {name}" in arrays
    }
    samples = np.ravel(arrays["note samples"])
    explicit, implicit = arrays["note explicit"], arrays["note implicit"]
    ends = [1, 2, 3, 4, -4, -3, -2, -1]
    C = float(arrays["note C on the mesh"])
    corners = arrays["truth corners"]
    values |= {
        "C on samples, first ten": samples[:10],
        "C on samples, last nine": samples[-9:],
        "initial explicit loss": explicit[:1],
        "initial finite-difference loss": implicit[:1],
        "initial finite-difference loss + C": implicit[:1] + C,
        "explicit loss, random weights": explicit[ends],
        "finite-difference loss, random weights": implicit[ends],
        "exact score at corners": corners[:, [0, 1, 2, 3, 4, -3, -2, -1]].ravel(),
        "explicit loss, training": np.concatenate([[0.0], arrays["explicit | loss"]]),
        "finite-difference loss, training": np.concatenate([[0.0], arrays[f"{ORDERS[0]} | loss"]]),
    }
    if config.epochs == 2000:
        for name, way in TRAINED.items():
            found = arrays[f"{way} | corners"]
            values[name] = found[:, [0, 1, 2, 3, -3, -2, -1]].ravel()
    for name, printed in PUBLISHED.items():
        for index, text in printed.items():
            if index < len(values.get(name, ())):
                yield name, index, float(values[name][index]), text


def printed_table(config: Config, arrays: Arrays) -> DataFrame:
    """Every number on the page beside its replay."""
    import pandas as pd

    frame = pd.DataFrame(
        [(name, i, value, float(text), digits(text))
         for name, i, value, text in replayed(config, arrays)],
        columns=["quantity", "index", "value", "published", "digits"],
    )  # fmt: skip
    frame["relative difference"] = (frame["value"] / frame["published"] - 1).abs()
    frame.attrs["digits"] = {"value": 16, "published": 16, "relative difference": 2}
    return frame


def digits(text: str) -> int:
    """Significant digits that a number is printed with."""
    return len(text.lstrip("-").replace(".", "").lstrip("0"))


def parity_table(config: Config, arrays: Arrays) -> DataFrame:
    """One row for each quantity of the page: how many numbers, and the largest difference."""
    import pandas as pd

    rows = []
    for name, group in printed_table(config, arrays).groupby("quantity", sort=False):
        worst = group.loc[group["relative difference"].idxmax()]
        rows.append({
            "quantity": name, "numbers": len(group), "digits printed": group["digits"].max(),
            "value (worst)": worst["value"], "published": worst["published"],
            "relative difference": worst["relative difference"],
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = {"value (worst)": 16, "published": 16, "relative difference": 2}
    return frame


def strayed(arrays: Arrays, way: str) -> np.ndarray:
    """|difference| of the losses of an order from those of Zygote's, over loss + C, (epochs,).

    The loss itself crosses 0 near epoch 96; with C added it is that of explicit score matching.
    """
    first = arrays[f"{ORDERS[0]} | loss"]
    return np.asarray(
        np.abs(arrays[f"{way} | loss"] - first) / (first + arrays["note C on the mesh"])
    )


def off_the_page(arrays: Arrays, way: str) -> tuple[np.ndarray, np.ndarray]:
    """(epochs, |difference| of the losses there from the printed ones) over loss + C.

    Of the explicit training: over the loss.
    """
    loss, explicit = arrays[f"{way} | loss"], way == "explicit"
    name = "explicit" if explicit else "finite-difference"
    printed = PUBLISHED[f"{name} loss, training"]
    at = np.array([epoch for epoch in printed if epoch <= len(loss)], int)
    page = np.array([float(printed[epoch]) for epoch in at])
    scale = page + (0.0 if explicit else arrays["note C on the mesh"])
    return at, np.abs(loss[at - 1] - page) / scale


def chaos_table(arrays: Arrays) -> DataFrame:
    """For the other orders of float32 additions: where their losses leave those of Zygote's.

    All differences are over loss + C. Zygote's order itself is in the table of parity.
    """
    import pandas as pd

    rows, levels = [], (1e-12, 1e-8, TOLERANCE)
    for way in ORDERS[1:]:
        off = strayed(arrays, way)
        found: dict[str, Any] = {"gradients added": way}
        for level in levels:
            left = np.flatnonzero(off > level)
            found[f"first epoch off by {level:g} of loss + C"] = left[0] + 1 if len(left) else None
        found["largest difference"] = off.max()
        found["largest from the page"] = off_the_page(arrays, way)[1].max(initial=0.0)
        rows.append(found)
    frame = pd.DataFrame(rows)
    epochs = [column for column in frame if str(column).startswith("first")]
    return frame.astype(dict.fromkeys(epochs, "Int64"))


def main_table(config: Config, arrays: Arrays) -> DataFrame:
    """Every objective on all data: means and standard errors over members.

    From few points both hang on one member, and so the least and the largest stand beside them.
    """
    import pandas as pd

    rows = []
    for name, data in fits_of(config):
        key, shrunk = f"{name} | {data}", KINDS[name].aim == "shrunk"
        errors, kls = arrays[f"{key} | errors"][-1], arrays[f"{key} | kl"]
        error, spread = mean_and_error(errors)
        aimed, aimed_spread = mean_and_error(arrays[f"{key} | aimed"])
        kl, kl_spread = mean_and_error(kls)
        low, low_spread = mean_and_error(arrays[f"{key} | modes"][:, 2])
        rotation, rotation_spread = mean_and_error(arrays[f"{key} | rotation"])
        rows.append({
            "objective": name, "data": data, "aims at": KINDS[name].aim,
            "Fisher error": error, "standard error": spread,
            "least": errors.min(), "largest": errors.max(),
            "below 10 %": "yes" if error < BOUND else "no",
            "error from its aim": None if shrunk else aimed,
            "its standard error": None if shrunk else aimed_spread,
            "KL / nats": kl, "KL error": kl_spread,
            "KL, least": kls.min(), "KL, largest": kls.max(),
            "KL floor": float(arrays["exact kl"][0]),
            "mode 0.2": low, "mode error": low_spread,
            "rotation": rotation, "rotation error": rotation_spread,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    frame.attrs["digits"] = dict.fromkeys(frame.columns, 3)
    return frame


def verdict_table(config: Config, arrays: Arrays) -> DataFrame:
    """Each objective at the most data: fresh points, or the largest sample for Parzen."""
    main = main_table(config, arrays).groupby("objective", sort=False).tail(1)
    columns = ["objective", "data", "aims at", "Fisher error", "standard error", "least", "largest",
               "below 10 %", "KL / nats", "KL error"]  # fmt: skip
    frame = main[columns].reset_index(drop=True)
    frame.attrs["digits"] = dict.fromkeys(columns, 3)
    return frame


def note_table(arrays: Arrays) -> DataFrame:
    """The note's two networks under our measures."""
    import pandas as pd

    rows = []
    for way, name in (("explicit", "explicit"), (ORDERS[0], "finite differences")):
        found = {part: arrays[f"{way} | {part}"] for part in ("error", "kl", "modes", "rotation")}
        rows.append({
            "the note's net": name, "epochs": len(arrays[f"{way} | loss"]),
            "Fisher error": float(found["error"][0]), "KL / nats": float(found["kl"][0]),
            "KL floor": float(arrays["exact kl"][0]),
            **{f"mode at ({m[0]:g}, {m[1]:g})": found["modes"][0, k]
               for k, m in enumerate(LAW.means)},
            "rotation": float(found["rotation"][0]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def constant_table(arrays: Arrays) -> DataFrame:
    """C by samples of n points: mean and spread over 100 rounds beside the exact ones."""
    import pandas as pd

    samples, C = arrays["note samples"], float(arrays["information"]) / 2
    spread = samples.std(axis=0, ddof=1)
    predicted = np.sqrt(float(arrays["note variance of |s|^2/2"]) / np.array(COUNTS))
    return pd.DataFrame({
        "n": COUNTS, "mean of 100": samples.mean(0), "standard error": spread / 10, "exact C": C,
        "z": (samples.mean(0) - C) / (predicted / 10),
        "standard deviation": spread, "exact deviation": predicted,
    })  # fmt: skip


def identity_table(arrays: Arrays) -> DataFrame:
    """explicit = finite differences + C at the note's start and at its thirty random networks.

    On the note's 1024 points, the same for all networks, so that the z go up and down together; and
    under p, by a sum over the mesh.
    """
    import pandas as pd

    explicit, implicit = arrays["note explicit"], arrays["note implicit"]
    C, pairs = float(arrays["note C on the mesh"]), arrays["note pairs"]
    frame = pd.DataFrame({
        "network": ["start", *(str(i) for i in range(1, len(explicit)))],
        "explicit": explicit, "finite differences + C": implicit + C,
        "relative difference": np.abs((implicit + C) / explicit - 1),
        "difference": pairs[:, 0] - C, "standard error": pairs[:, 1],
    })  # fmt: skip
    frame["z"] = frame["difference"] / frame["standard error"]
    frame["difference under p"] = pairs[:, 2] - C
    return frame


def variance_table(arrays: Arrays) -> DataFrame:
    """tr Cov of each objective's gradient over that of the exact trace."""
    import pandas as pd

    rows = []
    for state in ("initial", "trained"):
        values = [arrays[f"variance {state} {key}"] for key in ("variance", "over", "drawn")]
        for name, total, over, drawn in zip(VARIED, *values, strict=True):
            rows.append({
                "network": state, "objective": name, "variance": total,
                "over exact trace": over[0], "standard error": over[1],
                "from directions": drawn[0], "its standard error": drawn[1],
            })  # fmt: skip
    return pd.DataFrame(rows)


def rows_table(arrays: Arrays) -> DataFrame:
    """Variance of v.J v over directions at the exact score."""
    import pandas as pd

    return pd.DataFrame({
        "directions": losses.DIRECTIONS, "measured": arrays["rows measured"],
        "standard error": arrays["rows error"], "exact": arrays["rows predicted"],
        "z": (arrays["rows measured"] - arrays["rows predicted"]) / arrays["rows error"],
    })  # fmt: skip


def cost_table(config: Config, arrays: Arrays) -> DataFrame:
    """Milliseconds of a step."""
    import pandas as pd

    frame = pd.DataFrame({"objective": list(KINDS)})
    for dim, times in zip(config.dims, arrays["times"], strict=True):
        frame[f"ms, D = {dim}"] = np.median(times, axis=1)
        frame[f"over explicit, D = {dim}"] = np.median(times / times[:1], axis=1)
    frame.attrs["digits"] = dict.fromkeys(frame.columns, 3)
    return frame


def table(config: Config, arrays: Arrays) -> dict[str, DataFrame]:
    """ "" the verdict; all fits; the page; and what explains them."""
    return {
        "": verdict_table(config, arrays),
        "fits": main_table(config, arrays),
        "parity": parity_table(config, arrays),
        "printed": printed_table(config, arrays),
        "chaos": chaos_table(arrays),
        "constant": constant_table(arrays),
        "identity": identity_table(arrays),
        "note": note_table(arrays),
        "variance": variance_table(arrays),
        "directions": rows_table(arrays),
        "cost": cost_table(config, arrays),
    }


# Figures ----------------------------------------------------------------------------------------

BOX = (-HALF, HALF, -HALF, HALF)
PALE = 0.45  # of the backgrounds under black arrows


def square(values: np.ndarray) -> np.ndarray:
    """(n^2, ...) as (n, n, ...), rows from bottom to top."""
    n = math.isqrt(len(values))
    return values.reshape(n, n, *values.shape[1:])


def arrows(ax: Axes, field: np.ndarray, color: str, width: float) -> Any:
    """A vector field on the coarse mesh; lengths are square roots of sizes (see `drawn`)."""
    x, shown = centres(ARROWS), drawn(field)
    return ax.quiver(
        x[:, 0], x[:, 1], shown[:, 0], shown[:, 1], color=color, width=width, angles="xy",
        scale_units="xy", scale=1.0, headwidth=3.5, headlength=4.0,
    )  # fmt: skip


def drawn(field: np.ndarray) -> np.ndarray:
    """Arrows of half the square root of the length of those of `field`."""
    length = np.sqrt(np.linalg.norm(field, axis=1, keepdims=True))
    return np.asarray(field * 0.5 / np.maximum(length, 1e-9))


def field_panel(ax: Axes, arrays: Arrays, key: str) -> AxesImage:
    """Learned arrows over exact ones over the exact log-density."""
    image = plots.background(ax, square(arrays["exact log_q"]), BOX)
    image.set_alpha(PALE)
    arrows(ax, arrays["truth arrows"], "black", 0.007)
    arrows(ax, arrays[f"{key} | arrows"], plots.COLORS[2], 0.006)
    _window(ax)
    return image


def _window(ax: Axes) -> None:
    ax.set(xlim=(-HALF, HALF), ylim=(-HALF, HALF), aspect="equal")
    ax.set_xticks([-5, 0, 5])
    ax.set_yticks([-5, 0, 5])


def error_panel(ax: Axes, arrays: Arrays, key: str) -> AxesImage:
    """|psi - s| in units of the root mean square of s, on a logarithmic scale."""
    off = arrays[f"{key} | field"].astype(float) - arrays["truth field"]
    size = np.sqrt((off**2).sum(-1) / float(arrays["information"]))
    image = ax.imshow(
        np.log10(square(np.maximum(size, 1e-9))), extent=BOX, origin="lower", cmap="magma",
        vmin=-2, vmax=1, interpolation="nearest",
    )  # fmt: skip
    ax.grid(False)
    contours(ax, arrays)
    _window(ax)
    return image


def contours(ax: Axes, arrays: Arrays) -> None:
    """Where the exact density is 1e-1, 1e-2 and 1e-4 of its maximum."""
    log_p = square(arrays["exact log_q"])
    steps = np.unique(centres(len(log_p))[:, 0])
    ax.contour(
        steps, steps, log_p - log_p.max(), np.log([1e-4, 1e-2, 1e-1]), colors="white",
        linestyles=["dotted", "dashed", "solid"], linewidths=0.9,
    )  # fmt: skip


def fields(config: Config, arrays: Arrays) -> Figure:
    """Learned fields beside the exact one, and where they are wrong."""
    small = config.sizes[0]
    shown = [
        (ORDERS[0], "the note's net,\nfinite differences, n = 1024"),
        (f"implicit | {small}", f"smooth net, implicit,\nn = {small}"),
        (f"implicit | {FRESH}", "smooth net, implicit,\nfresh points"),
    ]
    fig, axes = plots.figure(2, 3, height=5.7, share=True)
    for ax, (key, title) in zip(axes.T, shown, strict=True):
        density = field_panel(ax[0], arrays, key)
        wrong = error_panel(ax[1], arrays, key)
        ax[0].set_title(title, fontsize=10)
    fig.colorbar(density, ax=axes[0], label="log-density below its maximum", shrink=0.9)
    bar = fig.colorbar(wrong, ax=axes[1], label="|ψ − s| / rms of s", shrink=0.9, extend="both")
    bar.set_ticks([-2, -1, 0, 1], labels=["0.01", "0.1", "1", "10"])
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    for ax in axes[1]:
        ax.set_xlabel("x")
    fig.suptitle(
        "Exact score (black), learned score (red; lengths: square roots), and where it is wrong\n"
        f"(smooth nets: the first of {config.members}; lines: density 0.1, 0.01 and 0.0001 of its "
        "maximum)", fontsize=11,
    )  # fmt: skip
    return fig


def densities(config: Config, arrays: Arrays) -> Figure:
    """What densities the learned scores stand for."""
    big, small = str(config.sizes[-1]), str(config.sizes[0])
    shown = [("exact", "exact"), (ORDERS[0], "the note's net")]
    shown += [(f"implicit | {data}", f"implicit, {size(data)}") for data in (small, big, FRESH)]
    shown += [(f"finite differences | {FRESH}", "finite diff., fresh")]
    shown += [(f"sliced, reduced | {FRESH}", "sliced, reduced, fresh")]
    shown += [(f"denoising | {FRESH}", f"denoising σ = {config.sigma:g}, fresh")]
    fig, axes = plots.figure(2, 4, height=5.0, share=True)
    for ax, (key, title) in zip(axes.flat, shown, strict=True):
        name = "exact log_q" if key == "exact" else f"{key} | log_q"
        image = plots.background(ax, square(arrays[name]), BOX)
        contours(ax, arrays)
        _window(ax)
        kl = arrays["exact kl" if key == "exact" else f"{key} | kl"][0]
        ax.set_title(f"{title}\nKL = {kl:.2g}", fontsize=9.5)
    fig.colorbar(image, ax=axes, label="log-density below its maximum", shrink=0.8)
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    for ax in axes[1]:
        ax.set_xlabel("x")
    fig.suptitle(
        "Densities recovered from learned scores (least-squares potential; lines: exact;\n"
        f"of smooth nets the first of {config.members} members)", fontsize=11,
    )  # fmt: skip
    return fig


def size(data: str) -> str:
    """The data of a fit in words."""
    return "fresh points" if data == FRESH else data if data == ON_MESH else f"n = {data}"


def by_size(config: Config, arrays: Arrays) -> Figure:
    """Relative Fisher error against the number of points."""
    fig, axes = plots.figure(1, 2, height=4.8)
    axes[0, 1].sharey(axes[0, 0])
    groups = list(dict.fromkeys(kind.group for kind in KINDS.values()))
    for ax, group in zip(axes[0], groups, strict=True):
        names = [name for name, kind in KINDS.items() if kind.group == group]
        ticks = [*(str(n) for n in config.sizes), FRESH]
        ticks += [ON_MESH] if MESHED in names else []
        for i, name in enumerate(names):
            shown = data_of(config, name)
            found = [arrays[f"{name} | {data} | errors"][-1] for data in shown]
            at = np.array([ticks.index(data) for data in shown], float)
            offset = 0.05 * (i - (len(names) - 1) / 2)
            errors(ax, at + offset, np.array(found), plots.COLORS[i], name)
        ax.axhline(BOUND, color="black", linewidth=0.9, linestyle="dashed")
        ax.set(yscale="log", xlabel="points n")
        ax.set_xticks(range(len(ticks)), ticks)
        ax.set_xlim(-0.4, len(ticks) - 0.6)
        ax.set_title(group, fontsize=10)
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=8.5)
    axes[0, 1].tick_params(labelleft=False)
    axes[0, 0].set_ylabel("relative Fisher error E|ψ − s|² / E|s|²")
    fig.suptitle(
        f"Error against the exact score (mean and range of {config.members} members; "
        "dashed: 10 %)", fontsize=11,
    )  # fmt: skip
    return fig


def errors(ax: Axes, at: np.ndarray, found: np.ndarray, color: str, label: str) -> None:
    """Mean and range over members, found (places, members)."""
    mean = found.mean(1)
    bars = (mean - found.min(1), found.max(1) - mean)
    ax.errorbar(at, mean, bars, fmt="o-", color=color, capsize=2, linewidth=1.2, label=label)


def by_step(config: Config, arrays: Arrays) -> Figure:
    """Relative Fisher error during training: small samples are learned by heart."""
    fig, axes = plots.figure(1, 2, height=4.0, share=True)
    shown = ("explicit", "implicit")
    for ax, name in zip(axes[0], shown, strict=True):
        for data, color in zip(data_of(config, name), plots.COLORS, strict=False):
            key = f"{name} | {data}"
            errors(ax, arrays[f"{key} | after"], arrays[f"{key} | errors"], color, size(data))
        ax.axhline(BOUND, color="black", linewidth=0.9, linestyle="dashed")
        ax.set(title=name, xlabel="steps", xscale="log", yscale="log")
        ax.minorticks_off()
        after = arrays[f"{name} | {FRESH} | after"].tolist()
        ax.set_xticks(after, [str(step) for step in after])
    axes[0, 0].set_ylabel("relative Fisher error")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        f"Error during training (mean and range of {config.members} members; dashed: 10 %)",
        fontsize=11,
    )
    return fig


def published(config: Config, arrays: Arrays) -> Figure:
    """The note's losses, and how far rounding carries them."""
    fig, axes = plots.figure(1, 2, height=4.6)
    left, right = axes[0]
    C = float(arrays["note C on the mesh"])
    epochs = np.arange(1, config.epochs + 1)
    for name, way, color, shift in (
        ("explicit", "explicit", plots.COLORS[0], 0.0),
        ("finite differences + C", ORDERS[0], plots.COLORS[1], C),
    ):
        left.plot(epochs, arrays[f"{way} | loss"] + shift, color=color, label=name)
    for quantity, shift in (("explicit", 0.0), ("finite-difference", C)):
        printed = PUBLISHED[f"{quantity} loss, training"]
        at = [e for e in printed if e <= config.epochs]
        values = [float(printed[e]) + shift for e in at]
        left.plot(at, values, "o", color="black", markersize=3.5,
                  label="published" if shift else None)  # fmt: skip
    left.set(xlabel="epoch", ylabel="loss", yscale="log", title="The note's losses, replayed")
    for way, color in zip(ORDERS[1:], plots.COLORS[2:4], strict=True):
        off = np.maximum(strayed(arrays, way), 1e-17)
        right.plot(epochs, off, color=color, linewidth=0.8, label=f"added otherwise: {way}")
    for way, name, marker in (
        ("explicit", "explicit", "s"),
        (ORDERS[0], "finite differences", "o"),
    ):
        places, gaps = off_the_page(arrays, way)
        right.plot(places, np.maximum(gaps, 1e-17), marker, color="black", markersize=3.5,
                   markerfacecolor="none", label=f"{name}, from the page")  # fmt: skip
    right.axhline(TOLERANCE, color="black", linewidth=0.9, linestyle="dashed",
                  label="the project's tolerance for a replay")  # fmt: skip
    right.set(
        xlabel="epoch", ylabel="relative difference\n(finite differences: of loss + C)",
        yscale="log", ylim=(1e-17, 10),
    )  # fmt: skip
    right.set_title("What another order of additions does")
    right.minorticks_off()
    plots.legend_below(fig, left, right, columns=3)
    return fig


def identity(config: Config, arrays: Arrays) -> Figure:
    """C by samples, and explicit = finite differences + C at random weights."""
    fig, axes = plots.figure(1, 2, height=4.0)
    left, right = axes[0]
    samples, C = arrays["note samples"], float(arrays["information"]) / 2
    counts = np.array(COUNTS, float)
    jitter = np.exp(np.linspace(-0.12, 0.12, len(samples)))
    left.plot((counts * jitter[:, None]).ravel(), samples.ravel(), ".", color=plots.COLORS[0],
              markersize=2.5, alpha=0.6, label="the note's samples")  # fmt: skip
    left.axhline(C, color="black", linewidth=1.0, label="exact C")
    n = np.geomspace(1, 4000, 100)
    width = 1.96 * np.sqrt(float(arrays["note variance of |s|^2/2"]) / n)
    left.plot(n, C + width, "k--", linewidth=0.8, label="exact ± 1.96 deviations")
    left.plot(n, np.maximum(C - width, 0), "k--", linewidth=0.8)
    left.set(xscale="log", xlabel="points n", ylabel="½ mean |s|²", ylim=(0, None))
    left.set_title("The constant C by samples")
    left.minorticks_off()
    left.legend(loc="upper right")
    frame = identity_table(arrays)
    right.errorbar(
        frame["explicit"], frame["difference"], 1.96 * frame["standard error"], fmt="o",
        color=plots.COLORS[0], markersize=3.5, linewidth=0.8,
        label="on the note's 1024 points, ± 1.96 errors",
    )  # fmt: skip
    right.plot(frame["explicit"], frame["difference under p"], ".", color="black", markersize=4,
               label="under p, by a sum over the mesh")  # fmt: skip
    right.axhline(0.0, color="black", linewidth=1.0)
    right.set(xlabel="explicit loss", ylabel="explicit − finite differences − C")
    right.set_title(f"The identity at {len(frame)} networks")
    right.set_ylim(top=1.4)
    right.legend(loc="upper left")
    return fig


def variances(config: Config, arrays: Arrays) -> Figure:
    """Variance of the gradient over that of the exact trace."""
    fig, axes = plots.figure(1, 2, height=4.0)
    frame = variance_table(arrays)
    for ax, state in zip(axes[0], ("initial", "trained"), strict=True):
        rows = frame[frame["network"] == state][::-1]
        ax.barh(rows["objective"], rows["over exact trace"], xerr=rows["standard error"],
                color=plots.COLORS[0], ecolor="0.3", height=0.65)  # fmt: skip
        for i, value in enumerate(rows["over exact trace"] + rows["standard error"]):
            text = f" {rows['over exact trace'].iloc[i]:.3g}"
            ax.annotate(text, (max(value, 1.0), i), va="center", fontsize=8.5)
        ax.axvline(1.0, color="black", linewidth=1.0)
        ax.set(title=f"{state} network", xlabel="tr Cov / that of the exact trace")
        ax.set_xlim(0, 1.2 * float((rows["over exact trace"] + rows["standard error"]).max()))
    axes[0, 1].set_yticklabels([])
    fig.suptitle(f"Variance of the gradient (batches of {config.batch} common points)")
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Fields and their errors; densities; errors by data and step; the note; variances."""
    return {
        "": fields(config, arrays),
        "density": densities(config, arrays),
        "size": by_size(config, arrays),
        "steps": by_step(config, arrays),
        "losses": published(config, arrays),
        "identity": identity(config, arrays),
        "variance": variances(config, arrays),
    }


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """The note's film: its network by finite differences learns the field."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(4.6, 4.9), layout="constrained")
    ax = fig.subplots()
    plots.background(ax, square(arrays["exact log_q"]), BOX).set_alpha(PALE)
    arrows(ax, arrays["truth arrows"], "black", 0.006)
    _window(ax)
    ax.set(xlabel="x", ylabel="y")
    epochs, film = arrays[f"{ORDERS[0]} | film epochs"], arrays[f"{ORDERS[0]} | film"]
    learned = arrows(ax, film[0], plots.COLORS[2], 0.005)
    frames: list[Image] = []
    for epoch, field in zip(epochs, film, strict=True):
        shown = drawn(field)
        learned.set_UVC(shown[:, 0], shown[:, 1])
        title = f"exact score (black), the note's net (red),\nfinite differences, epoch {epoch}"
        ax.set_title(title, fontsize=10)
        frames.append(plots.frame(fig, dpi=100))
        fig.set_layout_engine("none")
    return {"film": plots.gif(frames, [120.0] * (len(frames) - 1) + [2000.0])}


STUDY = Study(
    Config(),
    Config(
        epochs=100, sizes=(128,), widths=(16, 16), steps=16, batch=64, cells=32, draws=5,
        repeats=1, dims=(2,), frames=4,
    ),
    compute,
    table,
    draw,
    "How well does each way of matching scores learn that of three Gaussians in the plane?",
    animate,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
