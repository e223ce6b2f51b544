"""likelihood: the flow's log-density against every exact one, its estimators, its refusals.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, likelihood, solvers
from diffscience.errors import ArgumentError
from diffscience.models import Oracle

WITH_DENSITY = [name for name in gallery.ALL if name != "empirical"]
BIMODAL, PLANE = gallery.julia_bimodal(), gallery.julia_trimodal()
PROCESSES = [ds.VP(), ds.SubVP(), ds.VE(), ds.EDM(), ds.Cosine(), ds.RectifiedFlow()]
TIGHT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9}


class Scaled(Oracle):
    """The wrong twin: a velocity 5 % too strong."""

    def velocity(self, x: Any, t: Any) -> Any:
        return 1.05 * super().velocity(x, t)


class Generic(ds.Model):
    """A model whose Jacobian must be found by derivatives."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.process = oracle, oracle.process

    def velocity(self, x: Any, t: Any) -> Any:
        return self.oracle.velocity(x, t)


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize("name", WITH_DENSITY)
def test_the_flow_gives_the_density_of_every_law(name: str) -> None:
    """1e-6 at tolerance 1e-9, seed 0; with a velocity 5 % too strong not to 1e-3."""
    law = gallery.ALL[name]()
    x = law.sample(6, 0)
    found = likelihood.log_prob(Oracle(law, ds.VP()), x, **TIGHT)
    np.testing.assert_allclose(found.log_prob, law.log_prob(x), rtol=0, atol=1e-6)
    assert np.all(found.error == 0)
    twin = likelihood.log_prob(Scaled(law, ds.VP()), x, rtol=1e-4, atol=1e-4)
    assert np.abs(twin.log_prob - law.log_prob(x)).max() > 1e-3


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_under_every_process(process: ds.Process) -> None:
    """1e-6, in 1-D and 2-D, from t = 0 and from a later start; the latent code is the flow's."""
    for law in (BIMODAL, PLANE):
        oracle, x = Oracle(law, process), law.sample(5, 1)
        found = likelihood.log_prob(oracle, x, **TIGHT)
        np.testing.assert_allclose(found.log_prob, law.log_prob(x), rtol=0, atol=1e-6)
        t = 0.3 * process.T
        y = oracle.at(t).sample(5, 2)
        later = likelihood.log_prob(oracle, y, start=t, end=0.9 * process.T, **TIGHT)
        np.testing.assert_allclose(later.log_prob, oracle.log_prob(y, t), rtol=0, atol=1e-6)
        ends = solvers.flow(oracle, y, [t, 0.9 * process.T], **TIGHT).last
        size = math.sqrt(process.var(0.9 * process.T))
        np.testing.assert_allclose(later.latent / size, ends / size, rtol=0, atol=1e-7)


@pytest.mark.parametrize("t", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(
    "law", [PLANE, gallery.rings(), gallery.skewed_pair()], ids=lambda law: type(law).__name__
)
def test_the_jacobian_is_that_of_the_velocity(law: Any, t: float) -> None:
    """By central differences, 1e-6 of its size, on both sides of alpha^2 = var; symmetric."""
    oracle, h = Oracle(law, ds.VP()), 1e-5
    x = oracle.at(t).sample(6, 3)
    J = likelihood.jacobian(oracle, x, t)
    slopes = [
        (oracle.velocity(x + h * e, t) - oracle.velocity(x - h * e, t)) / (2 * h) for e in np.eye(2)
    ]
    size = np.abs(J).max()
    np.testing.assert_allclose(J, np.stack(slopes, axis=-1), rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(J, np.swapaxes(J, 1, 2), rtol=0, atol=1e-12 * size)
    same = likelihood.jacobian(oracle, torch.from_numpy(x), t)
    np.testing.assert_allclose(same.numpy(), J, rtol=0, atol=1e-10 * size)
    assert np.abs(J + 0.05 * np.abs(J) - np.stack(slopes, axis=-1)).max() > 1e-3 * size


def test_derivatives_are_the_closed_form() -> None:
    """A model without a closed form, by autograd; alone it starts from N(0, var)."""
    law = ds.GaussianMixture([1.0], [[0.5, -0.2]], [[[2.0, 0.3], [0.3, 1.0]]])
    oracle, x = Oracle(law, ds.VP()), law.sample(8, 0)
    found = likelihood.log_prob(Generic(oracle), x, prior=oracle.at(1.0), **TIGHT)
    np.testing.assert_allclose(found.log_prob, law.log_prob(x), rtol=0, atol=1e-6)
    alone = likelihood.log_prob(Generic(oracle), x, **TIGHT)
    var, end = ds.VP().var(1.0), oracle.at(1.0)
    off = -0.5 * np.sum(found.latent**2, axis=1) / var - math.log(2 * math.pi * var)
    gap = off - np.asarray(end.log_prob(found.latent))
    np.testing.assert_allclose(alone.log_prob - found.log_prob, gap, rtol=0, atol=1e-7)
    assert np.abs(gap).max() > 1e-5
    counted = ds.Counted(oracle)  # a counted oracle is still one
    np.testing.assert_allclose(
        likelihood.log_prob(counted, x, **TIGHT).log_prob, law.log_prob(x), rtol=0, atol=1e-6
    )


def test_a_network_has_a_density_of_mass_1() -> None:
    """Untrained, on the line: the integral of exp log p is 1 to 1e-4; with a bent trace not."""
    net = ds.nets.MLP(1, widths=(8,), seed=3).double()
    model = ds.Network(net, ds.RectifiedFlow(), predicts="velocity")
    x = np.linspace(-8, 8, 321)[:, None]
    found = likelihood.log_prob(model, x, rtol=1e-6, atol=1e-6)
    mass = float(np.sum(np.exp(found.log_prob)) * (x[1, 0] - x[0, 0]))
    assert abs(mass - 1) < 1e-4
    end = np.asarray(likelihood._prior(model, 1, 1.0).log_prob(found.latent))
    bent = np.exp(end + 1.1 * (found.log_prob - end))
    assert abs(float(np.sum(bent) * (x[1, 0] - x[0, 0])) - 1) > 1e-3


def test_fixed_steps_have_their_order() -> None:
    oracle, x = Oracle(BIMODAL, ds.VP()), BIMODAL.sample(5, 4)
    errors = []
    for steps in (100, 200):
        found = likelihood.log_prob(oracle, x, method="rk4", steps=steps)
        errors.append(np.abs(found.log_prob - BIMODAL.log_prob(x)).max())
        assert found.evaluations == 4 * steps
    assert abs(math.log2(errors[0] / errors[1]) - 4) < 0.5


def test_points_of_any_kind_and_place() -> None:
    """Tensors, float32 and lists are solved in float64, on the device of the tensor or `device`."""
    oracle, x = Oracle(PLANE, ds.VP()), PLANE.sample(4, 8).astype(np.float32)
    wanted = likelihood.log_prob(oracle, x.astype(float))
    for points in (x, torch.from_numpy(x), x.tolist()):
        found = likelihood.log_prob(oracle, points)
        np.testing.assert_array_equal(found.log_prob, wanted.log_prob)
        assert found.latent.dtype == np.float64
    named = likelihood.log_prob(oracle, x, device="cpu")
    np.testing.assert_array_equal(named.log_prob, wanted.log_prob)


def test_chunks_and_orders_change_little() -> None:
    """Adaptive steps follow their chunk within the tolerance; fixed steps do not know it at all."""
    law = gallery.grid()
    oracle, x = Oracle(law, ds.VP()), law.sample(7, 5)
    whole = likelihood.log_prob(oracle, x, **TIGHT)
    parts = likelihood.log_prob(oracle, x, chunk=3, **TIGHT)
    np.testing.assert_allclose(parts.log_prob, whole.log_prob, rtol=0, atol=1e-6)
    fixed = [likelihood.log_prob(oracle, x, method="rk4", steps=20, chunk=c) for c in (7, 3)]
    np.testing.assert_array_equal(fixed[0].log_prob, fixed[1].log_prob)
    none = likelihood.log_prob(oracle, x[:0])
    assert none.log_prob.shape == (0,)
    assert none.latent.shape == (0, 2)


# ---------------------------------------------------------------- estimated


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinson_is_unbiased_and_knows_its_error(kind: str) -> None:
    """z-scores of 60 points with 64 probes, seed 1: mean 0 and variance 1 within 4.9 errors."""
    x, oracle = PLANE.sample(60, 0), Oracle(PLANE, ds.VP())
    options: dict[str, Any] = {"trace": "hutchinson", "probes": 64, "directions_of": kind}
    found = likelihood.log_prob(oracle, x, generator=1, **options)
    z = (found.log_prob - PLANE.log_prob(x)) / found.error
    assert abs(z.mean()) < 4.9 / math.sqrt(60)
    assert abs(z.var() - 1) < 4.9 * math.sqrt(2 / 60)
    half = likelihood.log_prob(Scaled(PLANE, ds.VP()), x, generator=1, **options)
    z = (half.log_prob - PLANE.log_prob(x)) / half.error
    assert abs(z.mean()) > 4.9 / math.sqrt(60)
    again = likelihood.log_prob(oracle, x, generator=1, **options)
    np.testing.assert_array_equal(again.log_prob, found.log_prob)
    other = likelihood.log_prob(oracle, x, generator=2, **options)
    assert np.abs(other.log_prob - found.log_prob).max() > 1e-3


def test_rademacher_is_exact_on_the_line() -> None:
    x, oracle = BIMODAL.sample(10, 0), Oracle(BIMODAL, ds.VP())
    found = likelihood.log_prob(oracle, x, trace="hutchinson", probes=2, generator=0, **TIGHT)
    np.testing.assert_allclose(found.log_prob, BIMODAL.log_prob(x), rtol=0, atol=1e-6)
    assert found.error.max() < 1e-12


def test_derivatives_along_directions() -> None:
    """The autograd path of the estimator on the same directions as the closed form, 1e-7."""
    oracle, x = Oracle(PLANE, ds.VP()), PLANE.sample(4, 6)
    options: dict[str, Any] = {"trace": "hutchinson", "probes": 3, "prior": oracle.at(1.0)}
    closed = likelihood.log_prob(oracle, x, generator=7, **options, **TIGHT)
    found = likelihood.log_prob(Generic(oracle), x, generator=7, **options, **TIGHT)
    np.testing.assert_allclose(found.log_prob, closed.log_prob, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.error, closed.error, rtol=0, atol=1e-6)


def test_nats_and_bits() -> None:
    """-log p in the mean with its error over points, and over ln 2 and D."""
    x, oracle = PLANE.sample(50, 0), Oracle(PLANE, ds.VP())
    found = likelihood.log_prob(oracle, x)
    nats, bits = found.nats(), found.bits_per_dim()
    assert nats.value == pytest.approx(-found.log_prob.mean())
    assert nats.error == pytest.approx(found.log_prob.std(ddof=1) / math.sqrt(50))
    assert bits.value == pytest.approx(nats.value / (2 * math.log(2)))
    assert bits.error == pytest.approx(nats.error / (2 * math.log(2)))


# ---------------------------------------------------------------- refusals

ORACLE, X = Oracle(BIMODAL, ds.VP()), np.zeros((3, 1))


class Broken(Oracle):
    """NaN for the second row from t = 0.5 on."""

    def velocity(self, x: Any, t: Any) -> Any:
        value = super().velocity(x, t).clone()
        value[1] = math.nan if t >= 0.5 else value[1]
        return value


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: likelihood.log_prob("model", X), "model must be a Model"),  # type: ignore[arg-type]
        (lambda: likelihood.log_prob(ORACLE, X, trace="x"), "trace must be one of"),
        (lambda: likelihood.log_prob(ORACLE, X, directions_of="x"), "directions_of must be"),
        (lambda: likelihood.log_prob(ORACLE, X, trace="hutchinson"), "generator must be given"),
        (lambda: likelihood.log_prob(ORACLE, X[:, 0]), r"x must be points of shape \(n, D\)"),
        (lambda: likelihood.log_prob(ORACLE, X, start=1.0), r"start must lie in \[0, 1\)"),
        (lambda: likelihood.log_prob(ORACLE, X, end=2.0), r"end must lie in \(0, 1\]"),
        (lambda: likelihood.log_prob(ORACLE, X, method="rk4"), "steps must be given for a method"),
        (lambda: likelihood.log_prob(ORACLE, X, steps=5), "steps must be given for a method"),
        (lambda: likelihood.log_prob(ORACLE, X, method="euler", steps=0), "steps must be a whole"),
        (lambda: likelihood.log_prob(ORACLE, X, chunk=0), "chunk must be a whole number"),
        (lambda: likelihood.log_prob(ORACLE, X, rtol=-1.0), "rtol must be a positive"),
        (lambda: likelihood.log_prob(ORACLE, X, device="tpu"), "device must be one that torch"),
        (
            lambda: likelihood.log_prob(ORACLE, torch.zeros(3, 1), device="cpu"),
            "device must be left out for a start that has one",
        ),
        (
            lambda: likelihood.log_prob(ORACLE, X, trace="hutchinson", probes=1, generator=0),
            "probes must be a whole number of at least 2",
        ),
        (
            lambda: likelihood.log_prob(Broken(BIMODAL, ds.VP()), X),
            r"model must answer with a finite velocity at t = 0\.\d+; got 1 rows",
        ),
        (lambda: likelihood.jacobian(BIMODAL, X, 0.5), "oracle must be an Oracle"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_named(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call()
