"""Score matching: every objective against the exact score by quadrature, and against the others.

What the objectives promise of their means is an identity, so it is checked by quadrature or by a
sum over all directions, to rounding; Monte Carlo appears where there is no sum (|z| < 4.9, which is
1e-6 two-sided; the seed is stated). Each identity stands beside twins that must fail it: a factor
2, a sign, a missing constant, a score 5 % off.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, losses
from diffscience.errors import ArgumentError

LIMIT = 4.9
NOISES = [(0.8, 0.36), (0.3, 0.91)]
LAWS = {
    "gaussian 1-D": lambda: ds.GaussianMixture([1.0], [[0.7]], [[[1.9]]]),
    "julia_bimodal": gallery.julia_bimodal,
    "julia_trimodal": gallery.julia_trimodal,
    "skewed_pair": lambda: gallery.skewed_pair().diffuse(ds.Transition(*NOISES[0])),
    "rings": lambda: gallery.rings().diffuse(ds.Transition(*NOISES[0])),
    "rings, little noise": gallery.rings,
    "swiss_roll": lambda: gallery.swiss_roll().diffuse(ds.Transition(*NOISES[1])),
}
laws = pytest.mark.parametrize("name", LAWS)
dims = pytest.mark.parametrize("dim", [1, 2, 5])


class Field(torch.nn.Module):
    """psi(x) = A x + b + C sin(W x): smooth, no gradient of anything, with a known Jacobian."""

    A: torch.nn.Parameter
    b: torch.nn.Parameter
    C: torch.nn.Parameter
    W: torch.nn.Parameter

    def __init__(self, dim: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        draw = np.random.default_rng(seed)
        for name, shape in (("A", (dim, dim)), ("b", (dim,)), ("C", (dim, 3)), ("W", (3, dim))):
            value = torch.as_tensor(0.6 * draw.standard_normal(shape), dtype=dtype)
            setattr(self, name, torch.nn.Parameter(value))

    def forward(self, x: Any) -> Any:
        return x @ self.A.T + self.b + torch.sin(x @ self.W.T) @ self.C.T

    def jacobian(self, x: Any) -> Any:
        """(n, D, D), d_j psi_i."""
        return self.A + torch.einsum("ik,nk,kj->nij", self.C, torch.cos(x @ self.W.T), self.W)

    def array(self, x: np.ndarray) -> np.ndarray:
        return array(self(torch.as_tensor(x)))


def array(x: Any) -> np.ndarray:
    return x.detach().numpy()


@cache
def nodes(name: str) -> tuple[Any, torch.Tensor, np.ndarray, torch.Tensor]:
    """A law, its quadrature and its score there."""
    law = LAWS[name]()
    x, w = law.quadrature()
    return law, torch.as_tensor(x), w, torch.as_tensor(law.score(x))


@cache
def constant(name: str) -> float:
    return losses.explicit_constant(nodes(name)[0])


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(seed).standard_normal(shape))


def signs(dim: int) -> torch.Tensor:
    """All 2^D Rademacher directions."""
    return torch.tensor(list(itertools.product([-1.0, 1.0], repeat=dim)), dtype=torch.float64)


# ---------------------------------------------------------------- explicit = implicit + C


class Steeper:
    """A law whose score is 5 % too large."""

    def __init__(self, law: Any) -> None:
        self.law, self.quadrature = law, law.quadrature

    def score(self, x: Any) -> Any:
        return 1.05 * self.law.score(x)


@pytest.mark.parametrize("name", [name for name in LAWS if name != "swiss_roll"])
def test_the_constant_is_half_the_fisher_information(name: str) -> None:
    """1/2 E|s|^2 by another route, -1/2 E tr Hessian; that of a score 5 % too large is another.

    The Hessians of the swiss roll at all its nodes are left out: they take long.
    """
    law, x, w, _ = nodes(name)
    trace = np.trace(law.hessian(x.numpy()), axis1=-2, axis2=-1)
    wanted = -0.5 * float(w @ trace)
    assert losses.explicit_constant(law) == pytest.approx(wanted, rel=1e-8)
    twin: Any = Steeper(law)
    assert losses.explicit_constant(twin) != pytest.approx(wanted, rel=0.05)


@laws
def test_explicit_is_implicit_and_a_constant(name: str) -> None:
    law, x, w, s = nodes(name)
    psi, C = Field(law.dim), constant(name)
    explicit = float(w @ array(losses.explicit(psi, x, s)))
    rows = array(losses.implicit(psi, x))
    implicit = float(w @ rows)
    assert explicit == pytest.approx(implicit + C, rel=1e-8, abs=1e-8)
    # The rows themselves, from the Jacobian written out.
    y, J = psi(x), psi.jacobian(x)
    trace, half = array(J.diagonal(dim1=-2, dim2=-1).sum(-1)), 0.5 * array((y * y).sum(-1))
    np.testing.assert_allclose(rows, trace + half, rtol=1e-11, atol=1e-11)
    off = 0.5 * array(((y - s) ** 2).sum(-1))
    np.testing.assert_allclose(array(losses.explicit(psi, x, s)), off, rtol=1e-12)
    twins = {
        "no constant": implicit,
        "the sign of the trace": float(w @ (half - trace)) + C,
        "twice the trace": float(w @ (half + 2 * trace)) + C,
        "no half": float(w @ (2 * half + trace)) + C,
        "twice the constant": implicit + 2 * C,
    }
    for twin, value in twins.items():
        assert abs(value - explicit) > 1e-3 * abs(explicit), twin
    assert abs(float(w @ array(losses.explicit(psi, x, 1.05 * s))) - implicit - C) > 1e-3


@laws
def test_the_regulariser_adds_the_squares_of_the_slopes(name: str) -> None:
    law, x, w, s = nodes(name)
    psi, lam = Field(law.dim), 0.3
    slopes = psi.jacobian(x).diagonal(dim1=-2, dim2=-1)
    extra = float(w @ array((slopes**2).sum(-1)))
    C = constant(name)
    explicit = float(w @ array(losses.explicit(psi, x, s)))
    found = float(w @ array(losses.implicit(psi, x, lam)))
    assert found + C == pytest.approx(explicit + lam * extra, rel=1e-8, abs=1e-8)
    assert found + C != pytest.approx(explicit + 2 * lam * extra, rel=1e-4)
    if law.dim > 1:  # the twins square the trace, or the whole Jacobian
        for twin in (slopes.sum(-1) ** 2, (psi.jacobian(x) ** 2).sum((-1, -2))):
            wrong = explicit + lam * float(w @ array(twin))
            assert found + C != pytest.approx(wrong, rel=1e-4)


# ---------------------------------------------------------------- finite differences


@dims
def test_finite_differences_of_a_linear_score_are_exact(dim: int) -> None:
    """With psi = A x + b the shifts cancel in the mean, and the slopes have no error.

    The twin is a psi that is not linear.
    """
    psi, bent, x = Field(dim), Field(dim), normal(20, dim)
    with torch.no_grad():
        psi.C.zero_()
    y = psi(x)
    wanted = array(torch.trace(psi.A) + 0.5 * (y * y).sum(-1))
    np.testing.assert_allclose(array(losses.implicit(psi, x)), wanted, rtol=1e-12)
    for delta in (0.7, 1e-2, [0.3 + 0.1 * i for i in range(dim)]):
        found = array(losses.finite_difference(psi, x, delta))
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)
        twin = array(losses.finite_difference(bent, x, delta))
        assert not np.allclose(twin, array(losses.implicit(bent, x)), rtol=1e-7, atol=1e-7)


@dims
def test_finite_differences_come_nearer_by_the_square_of_delta(dim: int) -> None:
    psi, x = Field(dim), normal(30, dim)
    exact = array(losses.implicit(psi, x))
    deltas = np.array([0.2, 0.1, 0.05, 0.025])
    errors = [np.linalg.norm(array(losses.finite_difference(psi, x, d)) - exact) for d in deltas]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.05), orders
    one_sided = [
        np.linalg.norm(array((psi(x + d) - psi(x)).sum(-1) / d + 0.5 * (psi(x) ** 2).sum(-1)))
        for d in deltas
    ]
    assert not np.all(np.abs(np.log2(np.array(one_sided[:-1]) / one_sided[1:]) - 2) < 0.05)


def test_finite_differences_written_out_in_two_dimensions() -> None:
    """The loss of the note 2d_FD, with a step for each axis; the twin swaps the steps."""
    psi, x, (dx, dy) = Field(2), normal(15, 2), (0.3, 0.5)
    ex, ey = torch.diag(torch.tensor([dx, dy], dtype=torch.float64))
    mean = (psi(x + ex) + psi(x - ex) + psi(x + ey) + psi(x - ey)) / 4
    slope_x = (psi(x + ex) - psi(x - ex))[:, 0] / (2 * dx)
    slope_y = (psi(x + ey) - psi(x - ey))[:, 1] / (2 * dy)
    wanted = array(slope_x + slope_y + 0.5 * (mean**2).sum(-1))
    found = array(losses.finite_difference(psi, x, (dx, dy)))
    np.testing.assert_allclose(found, wanted, rtol=1e-11)
    twin = array(losses.finite_difference(psi, x, (dy, dx)))
    assert not np.allclose(twin, wanted, rtol=1e-3)
    numpy_rows = losses.finite_difference(psi.array, x.numpy(), (dx, dy))
    assert isinstance(numpy_rows, np.ndarray)
    np.testing.assert_allclose(numpy_rows, wanted, rtol=1e-11)


def test_weights_make_the_mean_an_integral() -> None:
    """The density times cell and rows, as the notes weigh a grid; the twin leaves them out."""
    (law, x, w, s), psi = nodes("julia_bimodal"), Field(1)
    grid = torch.linspace(-12, 12, 2001, dtype=torch.float64)[:, None]
    weights = torch.exp(law.log_prob(grid)) * len(grid) * 0.012
    exact = float(w @ array(losses.explicit(psi, x, s)))
    rows = losses.explicit(psi, grid, law.score(grid), weights)
    assert array(rows).mean() == pytest.approx(exact, rel=1e-9)
    differences = array(losses.finite_difference(psi, grid, 1e-3, weights)).mean()
    assert differences + losses.explicit_constant(law) == pytest.approx(exact, rel=1e-5)
    twin = array(losses.explicit(psi, grid, law.score(grid)))
    assert twin.mean() != pytest.approx(exact, rel=0.1)


# ---------------------------------------------------------------- slices


@dims
def test_the_mean_over_all_signs_is_the_objective_itself(dim: int) -> None:
    psi, x, s = Field(dim), normal(7, dim), normal(7, dim, seed=2)
    implicit, explicit = array(losses.implicit(psi, x)), array(losses.explicit(psi, x, s))
    every = [v.expand(7, dim) for v in signs(dim)]
    for form in (losses.sliced, losses.sliced_reduced):
        found = np.mean([array(form(psi, x, v)) for v in every], axis=0)
        np.testing.assert_allclose(found, implicit, rtol=1e-11, atol=1e-11)
        doubled = np.mean([array(form(psi, x, 2**0.5 * v)) for v in every], axis=0)
        assert not np.allclose(doubled, implicit, rtol=1e-2)  # E v v^T = 2 I
        flipped = np.mean([array(form(lambda x: -psi(x), x, v)) for v in every], axis=0)
        assert not np.allclose(flipped, implicit, rtol=1e-2)
    found = np.mean([array(losses.sliced_explicit(psi, x, s, v)) for v in every], axis=0)
    np.testing.assert_allclose(found, explicit, rtol=1e-11)
    assert not np.allclose(found, array(losses.explicit(psi, x, 1.05 * s)), rtol=1e-3)


@dims
def test_a_slice_is_the_formula(dim: int) -> None:
    psi, x, v = Field(dim), normal(9, dim), normal(9, dim, seed=3)
    slope = array(torch.einsum("ni,nij,nj->n", v, psi.jacobian(x), v))
    along, square = array((v * psi(x)).sum(-1)), array((psi(x) ** 2).sum(-1))
    found = array(losses.sliced(psi, x, v))
    np.testing.assert_allclose(found, slope + 0.5 * along**2, rtol=1e-11, atol=1e-12)
    reduced = array(losses.sliced_reduced(psi, x, v))
    np.testing.assert_allclose(reduced, slope + 0.5 * square, rtol=1e-11, atol=1e-12)


@dims
@pytest.mark.parametrize("kind", losses.DIRECTIONS)
def test_directions_have_the_identity_for_covariance(dim: int, kind: str) -> None:
    """Seed 11; every entry of v v^T within 4.9 standard errors (3 kinds, 30 entries: 1e-4 in all).

    The twins are 5 % too long.
    """
    n = 40_000
    v = losses.directions(n, dim, 11, kind)
    assert v.shape == (n, dim) and v.dtype == np.float64
    products = v[:, :, None] * v[:, None, :]
    error = np.maximum(products.std(0, ddof=1) / math.sqrt(n), 1e-12)
    z = np.abs(products.mean(0) - np.eye(dim)) / error
    assert z.max() < LIMIT
    assert (np.abs(1.05**2 * products.mean(0) - np.eye(dim)) / error).max() > LIMIT
    if kind == "rademacher" or (dim == 1 and kind == "spherical"):
        np.testing.assert_allclose(np.abs(v), 1.0, rtol=1e-15)
        assert abs(v.mean(0)).max() < LIMIT / math.sqrt(n)
    if kind == "spherical":
        np.testing.assert_allclose((v**2).sum(-1), dim, rtol=1e-12)
    tensor = losses.directions(3, dim, torch.Generator().manual_seed(1), kind)
    assert isinstance(tensor, torch.Tensor) and tensor.shape == (3, dim)


@dims
@pytest.mark.parametrize("kind", losses.DIRECTIONS)
def test_the_mean_over_drawn_directions(dim: int, kind: str) -> None:
    """One point, 60,000 directions, seed 12; the twins have E v v^T = 2 I."""
    psi, n = Field(dim, seed=3), 60_000
    x = normal(1, dim, seed=5).expand(n, dim)
    s = normal(1, dim, seed=6).expand(n, dim)
    v = torch.as_tensor(losses.directions(n, dim, 12, kind))
    implicit = float(losses.implicit(psi, x[:1])[0].detach())
    explicit = float(losses.explicit(psi, x[:1], s[:1])[0].detach())

    def z(rows: Any, wanted: float) -> float:
        values = array(rows)
        error = max(values.std(ddof=1) / math.sqrt(n), 1e-12 * max(1, abs(wanted)))
        return abs(values.mean() - wanted) / error

    assert z(losses.sliced(psi, x, v), implicit) < LIMIT
    assert z(losses.sliced_reduced(psi, x, v), implicit) < LIMIT
    assert z(losses.sliced_explicit(psi, x, s, v), explicit) < LIMIT
    assert z(losses.sliced_explicit(psi, x, s, 2**0.5 * v), explicit) > LIMIT
    assert z(losses.sliced_reduced(psi, x, 2**0.5 * v), implicit) > LIMIT


@dims
@pytest.mark.parametrize("kind", losses.DIRECTIONS)
def test_the_reduced_form_varies_less(dim: int, kind: str) -> None:
    """For psi = -2 x under N(0, I), where the variances over v are known; seeds 7 and 13.

    J = -2 I, so v.J psi v = -2 |v|^2, which does not vary for signs and on the sphere. For Gaussian
    v the reduced form has 8 D, and the other 8 D + 8 D (D + 2) - 16 D = 8 D (D + 1).
    """
    n = 100_000
    x, v = normal(n, dim, seed=7), torch.as_tensor(losses.directions(n, dim, 13, kind))
    mean = losses.implicit(lambda x: -2 * x, x)

    def spread(form: Any) -> float:
        return float(((form(lambda x: -2 * x, x, v) - mean) ** 2).mean().detach())

    full, reduced = spread(losses.sliced), spread(losses.sliced_reduced)
    if kind == "gaussian":
        assert reduced == pytest.approx(8 * dim, rel=0.1)
        assert full == pytest.approx(8 * dim * (dim + 1), rel=0.1)
    else:
        assert reduced < 1e-20
        assert full < 1e-20 if dim == 1 else full > 1


def test_directions_repeat_with_their_seed() -> None:
    for kind in losses.DIRECTIONS:
        one, two = (losses.directions(4, 3, np.random.default_rng(5), kind) for _ in range(2))
        np.testing.assert_array_equal(one, two)


# ---------------------------------------------------------------- denoising


def hermite(dim: int, order: int = 40) -> tuple[torch.Tensor, np.ndarray]:
    """Nodes and weights of N(0, I)."""
    z, w = np.polynomial.hermite_e.hermegauss(order)
    mesh = np.stack(np.meshgrid(*[z] * dim, indexing="ij"), -1).reshape(-1, dim)
    mass = np.prod(np.stack(np.meshgrid(*[w / w.sum()] * dim, indexing="ij")), 0).ravel()
    return torch.as_tensor(mesh), mass


@pytest.mark.parametrize("name", ["gaussian 1-D", "julia_bimodal", "points", "points 2-D"])
@pytest.mark.parametrize(("scale", "var"), [(1.0, 0.5), (0.7, 0.51)])
def test_denoising_is_explicit_of_the_noised_law_and_a_constant(
    name: str, scale: float, var: float
) -> None:
    """Both expectations by quadrature: over x0 and the noise, and over p_sigma."""
    if "points" in name:
        clean = np.random.default_rng(1).standard_normal((6, 2 if "2" in name else 1))
        law, x0, w0 = gallery.empirical(clean), clean, np.full(6, 1 / 6)
    else:
        law = LAWS[name]()
        x0, w0 = law.quadrature()
    z, wz = hermite(law.dim)
    psi, step = Field(law.dim), ds.Transition(scale, var)
    rows = torch.as_tensor(x0).repeat_interleave(len(z), 0)
    noise, w = z.repeat(len(x0), 1), np.kron(w0, wz)
    found = float(w @ array(losses.denoising_at(psi, rows, noise, step)))
    noised = law.diffuse(step)
    x, wx = noised.quadrature()
    explicit = float(
        wx @ array(losses.explicit(psi, torch.as_tensor(x), torch.as_tensor(noised.score(x))))
    )
    C = losses.denoising_constant(law, step)
    assert found == pytest.approx(explicit + C, rel=1e-9, abs=1e-9)
    off = np.sum(noised.score(x) ** 2, -1)
    assert pytest.approx(0.5 * (law.dim / var - float(wx @ off)), rel=1e-10) == C
    wider = ds.Transition(scale, 1.1 * var)
    twins = {  # the objective against another constant, and with an error of its own
        "no constant": (found, explicit),
        "explicit's own": (found, explicit + losses.explicit_constant(noised)),
        "another noise": (found, explicit + losses.denoising_constant(law, wider)),
        "the sign": (losses.denoising_at(lambda x: -psi(x), rows, noise, step), explicit + C),
        "5 % of noise": (losses.denoising_at(psi, rows, 1.05 * noise, step), explicit + C),
        "10 % of variance": (losses.denoising_at(psi, rows, noise, wider), explicit + C),
    }
    for twin, (value, wanted) in twins.items():
        value = value if isinstance(value, float) else float(w @ array(value))
        assert abs(value - wanted) > 1e-3 * abs(wanted), twin


def test_denoising_written_out_with_a_level_for_each_row() -> None:
    psi, x0, noise = Field(2), normal(6, 2), normal(6, 2, seed=2)
    var = torch.linspace(0.1, 2.0, 6, dtype=torch.float64)
    sigma = var.sqrt()[:, None]
    wanted = 0.5 * ((psi(0.9 * x0 + sigma * noise) + noise / sigma) ** 2).sum(-1)
    found = losses.denoising_at(psi, x0, noise, ds.Transition(0.9, var))
    np.testing.assert_allclose(array(found), array(wanted), rtol=1e-12)


def levelled(psi: Field) -> Callable[[Any, float], Any]:
    """A network of (x, level)."""
    return lambda x, sigma: psi(x) / sigma


SIGMAS = [2.0, 1.0, 0.3]


@pytest.mark.parametrize("shared", [True, False])
def test_the_levels_are_averaged_under_their_weights(shared: bool) -> None:
    psi, x0 = Field(2), normal(8, 2)
    noise = normal(8, 2, seed=3) if shared else normal(3, 8, 2, seed=3)
    score = levelled(psi)
    rows = []
    for i, sigma in enumerate(SIGMAS):
        z = noise if shared else noise[i]
        off = score(x0 + sigma * z, sigma) + z / sigma
        rows.append(array(0.5 * (off * off).sum(-1)))
    by_square = np.mean([s * s * r for s, r in zip(SIGMAS, rows)], axis=0)
    found = array(losses.multilevel(score, x0, noise, SIGMAS))
    np.testing.assert_allclose(found, by_square, rtol=1e-12)
    plain = array(losses.multilevel(score, x0, noise, SIGMAS, lambda sigma: 1.0))
    np.testing.assert_allclose(plain, np.mean(rows, axis=0), rtol=1e-12)
    for twin in (3 * by_square, 2 * by_square, 1.05 * by_square):
        assert not np.allclose(found, twin, rtol=1e-3)
    unweighted = np.mean([s * r for s, r in zip(SIGMAS, rows)], axis=0)
    assert not np.allclose(found, unweighted, rtol=1e-3)
    # sigma^2 times the squared error is that of sigma psi + z: of the size of the dimension.
    at_zero = losses.multilevel(lambda x, sigma: 0 * x, x0, noise, SIGMAS)
    z = noise if not shared else noise.expand(3, 8, 2)
    np.testing.assert_allclose(array(at_zero), array(0.5 * (z**2).sum(-1).mean(0)), rtol=1e-12)


@pytest.mark.parametrize("kind", ["VP", "SubVP", "VE", "EDM", "Chain"])
def test_the_score_in_continuous_time_is_simple_under_its_weight(kind: str) -> None:
    process: Any = ds.Chain.linear(50) if kind == "Chain" else getattr(ds, kind)()
    law = gallery.julia_trimodal()
    random = np.random.default_rng(2)
    x0, noise = law.sample(12, random), random.standard_normal((12, 2))
    t = np.arange(1.0, 13.0) if kind == "Chain" else process.T * np.linspace(0.05, 0.95, 12)

    class Tilted(ds.Oracle):
        """Not the exact model; its eps and score agree."""

        def score(self, x: Any, t: Any) -> Any:
            return 1.1 * super().score(x, t) + 0.2

    model = Tilted(law, process)
    found = losses.score_denoising(model, x0, t, noise)
    np.testing.assert_allclose(found, losses.simple(model, x0, t, noise), rtol=1e-9)
    var = process.var(t)
    x = process.at(t).apply(x0, noise)
    square = np.sum((model.score(x, t) + noise / np.sqrt(var)[:, None]) ** 2, -1)
    np.testing.assert_allclose(found, var * square, rtol=1e-10)
    plain = losses.score_denoising(model, x0, t, noise, lambda process, t: 1.0)
    np.testing.assert_allclose(plain, square, rtol=1e-10)
    if kind != "Chain":
        by_g = losses.score_denoising(model, x0, t, noise, lambda p, t: p.diffusion(t) ** 2)
        np.testing.assert_allclose(by_g, process.diffusion(t) ** 2 * square, rtol=1e-10)
        assert not np.allclose(by_g, process.diffusion(t) * square, rtol=1e-2)
    assert not np.allclose(found, 0.5 * var * square, rtol=1e-2)
    assert not np.allclose(found, np.sqrt(var) * square, rtol=1e-2)
    one, two, three = (torch.as_tensor(a) for a in (x0, t, noise))
    tensors = losses.score_denoising(model, one, two, three)
    np.testing.assert_allclose(tensors.numpy(), found, rtol=1e-10)


@pytest.mark.parametrize("dim", [1, 2])
def test_parzen_is_explicit_against_the_kernel_estimate(dim: int) -> None:
    random = np.random.default_rng(4)
    points, x, h = random.standard_normal((9, dim)), random.standard_normal((5, dim)), 0.4
    off = points - x[:, None]
    kernel = np.exp(-0.5 * np.sum(off**2, -1) / h**2)
    score = np.einsum("nm,nmd->nd", kernel, off) / kernel.sum(1)[:, None] / h**2
    psi = Field(dim)
    wanted = 0.5 * np.sum((psi.array(x) - score) ** 2, -1)
    np.testing.assert_allclose(losses.parzen(psi.array, x, points, h), wanted, rtol=1e-11)
    rows = losses.parzen(psi, torch.as_tensor(x), torch.as_tensor(points), h)
    np.testing.assert_allclose(array(rows), wanted, rtol=1e-11)
    assert not np.allclose(losses.parzen(psi.array, x, points, 1.05 * h), wanted, rtol=1e-3)
    assert not np.allclose(losses.parzen(psi.array, x, points, math.sqrt(h)), wanted, rtol=1e-3)


# ---------------------------------------------------------------- derivatives in the parameters


def objectives(dim: int) -> dict[str, Callable[[Any, Any], Any]]:
    """Every objective as a function of (psi, x)."""
    s, v = normal(6, dim, seed=8), normal(6, dim, seed=9)
    return {
        "explicit": lambda psi, x: losses.explicit(psi, x, s),
        "implicit": lambda psi, x: losses.implicit(psi, x),
        "regularised": lambda psi, x: losses.implicit(psi, x, 0.3),
        "finite_difference": lambda psi, x: losses.finite_difference(psi, x, 0.1),
        "sliced": lambda psi, x: losses.sliced(psi, x, v),
        "sliced_reduced": lambda psi, x: losses.sliced_reduced(psi, x, v),
        "sliced_explicit": lambda psi, x: losses.sliced_explicit(psi, x, s, v),
        "parzen": lambda psi, x: losses.parzen(psi, x, s, 0.5),
        "denoising_at": lambda psi, x: losses.denoising_at(psi, x, v, ds.Transition(0.8, 0.36)),
        "multilevel": lambda psi, x: losses.multilevel(levelled(psi), x, v, SIGMAS),
    }


@dims
@pytest.mark.parametrize("name", objectives(1))
def test_gradients_in_the_parameters(name: str, dim: int) -> None:
    """Against central differences of the loss; those of a psi 5 % too large are others."""
    field, x, step = Field(dim, seed=4), normal(6, dim), 1e-5
    objective = objectives(dim)[name]

    def gradient(factor: float = 1.0) -> np.ndarray:
        loss = objective(lambda x: factor * field(x), x).mean()
        parts = torch.autograd.grad(loss, list(field.parameters()), allow_unused=True)
        return np.concatenate([
            np.zeros(p.numel()) if part is None else array(part).ravel()
            for p, part in zip(field.parameters(), parts)
        ])  # fmt: skip

    wanted = []
    with torch.no_grad():
        for parameter in field.parameters():
            for i in range(parameter.numel()):
                flat, here = parameter.view(-1), float(parameter.view(-1)[i])
                values = []
                for side in (1, -1):
                    flat[i] = here + side * step
                    values.append(float(objective(field, x).mean()))
                flat[i] = here
                wanted.append((values[0] - values[1]) / (2 * step))
    np.testing.assert_allclose(gradient(), wanted, rtol=1e-6, atol=1e-7)
    assert not np.allclose(gradient(1.05), wanted, rtol=1e-2, atol=1e-3)


def test_no_graph_is_kept_where_the_caller_keeps_none() -> None:
    psi, x, v = Field(2), normal(4, 2), normal(4, 2, seed=2)
    with torch.no_grad():
        rows = [losses.implicit(psi, x), losses.sliced(psi, x, v), losses.sliced_reduced(psi, x, v)]
    assert not any(row.requires_grad for row in rows)
    kept = [losses.implicit(psi, x), losses.sliced(psi, x, v), losses.sliced_reduced(psi, x, v)]
    assert all(row.requires_grad for row in kept)
    for one, other in zip(rows, kept):
        np.testing.assert_array_equal(one.numpy(), array(other))
    assert not x.requires_grad  # what the caller gave is left as it was


def test_a_score_that_does_not_depend_on_x() -> None:
    b = torch.nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))
    x, v = normal(4, 2), normal(4, 2, seed=2)
    for rows in (
        losses.implicit(lambda x: b.expand(4, 2), x),
        losses.implicit(lambda x: torch.tensor([0.5, -1.0]).double().expand(4, 2), x, 0.3),
        losses.sliced_reduced(lambda x: b.expand(4, 2), x, v),
    ):
        np.testing.assert_allclose(array(rows), 0.625, rtol=1e-15)


# ---------------------------------------------------------------- networks, dtypes, libraries


@dims
@pytest.mark.parametrize("name", objectives(1))
def test_dtypes_are_kept(name: str, dim: int) -> None:
    """Single precision is double precision to 2e-6 of the largest row; half is not."""
    single, double = torch.float32, torch.float64
    objective, x = objectives(dim)[name], normal(6, dim)

    def rows(dtype: torch.dtype, x: Any) -> Any:
        found = objective(Field(dim, dtype=dtype), x.to(dtype))
        assert tuple(found.shape) == (6,)
        if name not in ("explicit", "sliced_explicit"):  # which are given a score in float64
            assert found.dtype == dtype
        return array(found)

    wanted = rows(double, x)
    limit = 2e-6 * np.abs(wanted).max()
    assert np.abs(rows(single, x) - wanted).max() < limit
    assert np.abs(rows(single, x.half()) - wanted).max() > limit


def test_networks_of_x_and_of_x_and_a_level() -> None:
    net, x = ds.nets.MLP(2, (8,), seed=1), normal(5, 2).float()
    at = lambda level: lambda x: net(x, torch.full((len(x),), level))  # noqa: E731
    for level in (0.5, 1.0):
        rows = losses.implicit(at(level), x)
        J = torch.stack([torch.autograd.functional.jacobian(at(level), row[None]) for row in x])
        J, y = J[:, 0, :, 0], at(level)(x)
        wanted = J.diagonal(dim1=-2, dim2=-1).sum(-1) + 0.5 * (y * y).sum(-1)
        np.testing.assert_allclose(array(rows), array(wanted), rtol=1e-4, atol=1e-5)
    rows = losses.multilevel(lambda x, sigma: at(sigma)(x), x, x, SIGMAS)
    rows.mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in net.parameters())


def test_numpy_serves_where_no_derivative_is_taken() -> None:
    psi, x, s, v = Field(2), *(normal(6, 2, seed=k) for k in (1, 8, 9))
    pairs = [
        (losses.explicit(psi.array, x.numpy(), s.numpy()), losses.explicit(psi, x, s)),
        (
            losses.sliced_explicit(psi.array, x.numpy(), s.numpy(), v.numpy()),
            losses.sliced_explicit(psi, x, s, v),
        ),
        (
            losses.denoising_at(psi.array, x.numpy(), v.numpy(), ds.Transition(0.8, 0.36)),
            losses.denoising_at(psi, x, v, ds.Transition(0.8, 0.36)),
        ),
        (
            losses.multilevel(lambda y, c: psi.array(y) / c, x.numpy(), v.numpy(), SIGMAS),
            losses.multilevel(levelled(psi), x, v, SIGMAS),
        ),
    ]
    for found, wanted in pairs:
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, array(wanted), rtol=1e-12)
    drawn = losses.directions(6, 2, 0)  # NumPy directions for tensors
    np.testing.assert_array_equal(
        array(losses.sliced(psi, x, drawn)), array(losses.sliced(psi, x, torch.as_tensor(drawn)))
    )


# ---------------------------------------------------------------- what is minimised


def linear_minimiser(objective: Callable[[Any], Any], dim: int) -> np.ndarray:
    """The A of psi = A x + b where a quadratic objective has gradient 0: one Newton step."""
    start = torch.zeros(dim * (dim + 1), dtype=torch.float64)

    def value(theta: Any) -> Any:
        A, b = theta[: dim * dim].reshape(dim, dim), theta[dim * dim :]
        return objective(lambda x: x @ A.T + b)

    H = torch.autograd.functional.hessian(value, start)
    g = torch.autograd.functional.jacobian(value, start)
    return -torch.linalg.solve(H, g).numpy()


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(
    "name",
    [
        "explicit",
        "implicit",
        "finite_difference",
        "sliced",
        "reduced",
        "sliced_explicit",
        "denoising",
    ],
)
def test_the_minimiser_is_the_score(name: str, dim: int) -> None:
    """Over linear psi and Gaussian data by quadrature: A = -cov^-1, b = cov^-1 mean.

    The regularised objective is the twin that is not consistent.
    """
    cov = np.array([[1.5, 0.4], [0.4, 0.7]])[:dim, :dim]
    mean = np.array([0.5, -1.0])[:dim]
    law = ds.GaussianMixture([1.0], [mean], [cov])
    nodes, weights = law.quadrature()
    x, w = torch.as_tensor(nodes), torch.as_tensor(weights)
    s, every = torch.as_tensor(law.score(nodes)), signs(dim)

    def over(form: Any) -> Callable[[Any], Any]:
        return lambda psi: sum(w @ form(psi, v.expand(x.shape)) for v in every) / len(every)

    target, forms = (
        law,
        {
            "explicit": lambda psi: w @ losses.explicit(psi, x, s),
            "implicit": lambda psi: w @ losses.implicit(psi, x),
            "finite_difference": lambda psi: w @ losses.finite_difference(psi, x, 0.5),
            "sliced": over(lambda psi, v: losses.sliced(psi, x, v)),
            "reduced": over(lambda psi, v: losses.sliced_reduced(psi, x, v)),
            "sliced_explicit": over(lambda psi, v: losses.sliced_explicit(psi, x, s, v)),
        },
    )
    if name == "denoising":
        step = ds.Transition(0.8, 0.36)
        z, wz = hermite(dim, 6)
        few, wf = hermite(dim, 6)
        root = torch.as_tensor(np.linalg.cholesky(cov))
        x0 = (few @ root.T + torch.as_tensor(mean)).repeat_interleave(len(z), 0)
        both = torch.as_tensor(np.kron(wf, wz))
        forms[name] = lambda psi: both @ losses.denoising_at(psi, x0, z.repeat(len(few), 1), step)
        target = law.diffuse(step)
    precision = np.linalg.inv(target.cov)
    wanted = np.concatenate([-precision.ravel(), precision @ target.mean])
    found = linear_minimiser(forms[name], dim)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8)
    twin = linear_minimiser(lambda psi: w @ losses.implicit(psi, x, 0.1), dim)
    assert not np.allclose(twin, wanted, rtol=1e-2)


def test_fit_minimises_what_it_is_given() -> None:
    """psi = A x + b by implicit score matching on all points: -cov^-1 and cov^-1 mean.

    Seeds 3 and 0; 250 steps of Adam end within 1e-3 of the closed form.
    """
    net = torch.nn.Linear(2, 2, dtype=torch.float64)
    points = normal(100, 2, seed=3) @ torch.tensor([[1, 0.5], [0, 1]]).double()
    with torch.no_grad():
        net.weight.zero_(), net.bias.zero_()
    history = ds.train.fit(
        net, points, lambda net, x, generator: losses.implicit(net, x),
        steps=250, seed=0, batch=None, rate=0.05, final_rate=1e-4,
    )  # fmt: skip
    mean, cov = ds.fits.gaussian(points)
    np.testing.assert_allclose(array(net.weight), -np.linalg.inv(cov), atol=1e-3)
    np.testing.assert_allclose(array(net.bias), np.linalg.solve(cov, mean), atol=1e-3)
    assert history.losses[0] == 0.0 and history.losses[-1] < history.losses[0]
    best = ds.fits.gaussian_objective(points, mean, cov)
    assert history.losses[-1] == pytest.approx(best, abs=1e-5)


# ---------------------------------------------------------------- bad input

X = torch.zeros(3, 2, dtype=torch.float64)
FLAT: Any = lambda x: x[:, 0]  # noqa: E731
STEP = ds.Transition(1.0, 1.0)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "a flat answer, explicit": (lambda: losses.explicit(FLAT, X, X), r"psi must answer .*\(3, 2\)"),
    "a flat answer, implicit": (lambda: losses.implicit(FLAT, X), "psi must answer"),
    "a flat answer, sliced": (lambda: losses.sliced(FLAT, X, X), "psi must answer"),
    "a flat answer, differences": (
        lambda: losses.finite_difference(FLAT, X, 0.1), r"psi must answer with shape \(12, 2\)"),
    "a flat answer, denoising": (
        lambda: losses.denoising_at(FLAT, X, X, STEP), "psi must answer"),
    "a flat score": (lambda: losses.explicit(Field(2), X, X[:, :1]), "score must have the shape"),
    "a flat sliced score": (
        lambda: losses.sliced_explicit(Field(2), X, X[:1], X), "score must have the shape"),
    "another v": (lambda: losses.sliced(Field(2), X, X[:2]), "v must have the shape of x"),
    "points in a line": (lambda: losses.finite_difference(Field(2), X[0], 0.1), "x must be points"),
    "an array": (lambda: losses.implicit(Field(2), np.zeros((3, 2))), "x must be a tensor"),
    "no delta": (lambda: losses.finite_difference(Field(2), X, 0.0), "delta must be positive"),
    "a negative delta": (
        lambda: losses.finite_difference(Field(2), X, (0.1, -0.1)), "delta must be positive"),
    "three deltas": (
        lambda: losses.finite_difference(Field(2), X, (0.1,) * 3), "delta must be positive, one"),
    "few weights": (
        lambda: losses.explicit(Field(2), X, X, torch.ones(2)), r"weights must have shape \(3,\)"),
    "a kind": (lambda: losses.directions(3, 2, 0, "normal"), "kind must be one of rademacher"),
    "no dimension": (lambda: losses.directions(3, 0, 0), "dim must be a whole number"),
    "half a row": (lambda: losses.directions(2.5, 2, 0), "n must be a whole number"),  # type: ignore[arg-type]
    "no bandwidth": (lambda: losses.parzen(Field(2), X, X, 0.0), "bandwidth must be a positive"),
    "a word": (lambda: losses.parzen(Field(2), X, X, "a"), "bandwidth must be a positive"),  # type: ignore[arg-type]
    "no noise": (
        lambda: losses.denoising_at(Field(2), X, X, ds.Transition()), "transition must have a pos"),
    "another noise": (
        lambda: losses.denoising_at(Field(2), X, X[:2], STEP), "noise must have the shape of x"),
    "rising levels": (
        lambda: losses.multilevel(levelled(Field(2)), X, X, [1.0, 2.0]), "sigmas must be decreas"),
    "a level of 0": (
        lambda: losses.multilevel(levelled(Field(2)), X, X, [1.0, 0.0]), "sigmas must be decreas"),
    "no levels": (lambda: losses.multilevel(levelled(Field(2)), X, X, []), "sigmas must be decrea"),
    "noise for other levels": (
        lambda: losses.multilevel(levelled(Field(2)), X, X.expand(4, 3, 2), SIGMAS),
        r"noise must have shape \(3, 2\), or \(3, 3, 2\)"),
    "time 0": (
        lambda: losses.score_denoising(
            ds.Oracle(gallery.julia_trimodal(), ds.VP()), X, torch.zeros(3), X),
        "t must lie where the process has noise"),
    "a function for a model": (
        lambda: losses.score_denoising(FLAT, X, torch.ones(3), X), "model must be a Model"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, sentence = BAD[name]
    with pytest.raises(ArgumentError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)
