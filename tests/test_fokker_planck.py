"""The Fokker-Planck equation against the exact law of every process, and its own promises.

Orders are measured by halving: cells and steps at once against the exact law, and steps alone, with
the cells fixed, against a run of many steps. Random starts state their seed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import fokker_planck as fp
from diffscience import gallery, testing
from diffscience.errors import ArgumentError

PROCESSES = {n: p for n, p in testing.processes().items() if not isinstance(p, ds.Chain)}
LAW = ds.GaussianMixture([0.3, 0.7], [[-1.2], [1.0]], [[[0.25]], [[0.16]]])
processes = pytest.mark.parametrize("name", PROCESSES)


def end(name: str) -> float:
    """The time of as much noise as signal, alpha^2 = var."""
    return PROCESSES[name].time_of_log_snr(0.0)


def distance(p: np.ndarray, q: np.ndarray, e: np.ndarray) -> float:
    return float(np.abs(p - q) @ np.diff(e))


@cache
def noised(name: str, n: int, steps: int, method: str = "crank-nicolson") -> np.ndarray:
    """The law at `end` by `forward` on n cells of [-7, 7]."""
    e, times = fp.cells(-7.0, 7.0, n), np.linspace(0, end(name), steps + 1)
    *_, (t, p) = fp.forward(PROCESSES[name], fp.averages(LAW, e), e, times, method=method)
    assert t == end(name)
    return p


def exact(name: str, n: int, factor: float = 1.0) -> np.ndarray:
    law = LAW.diffuse(PROCESSES[name].at(factor * end(name)))
    return fp.averages(law, fp.cells(-7.0, 7.0, n))


# ---------------------------------------------------------------- against the exact law


@processes
def test_the_forward_law_to_second_order(name: str) -> None:
    e = {n: fp.cells(-7.0, 7.0, n) for n in (80, 160, 320)}
    errors = [distance(noised(name, n, 5 * n // 8), exact(name, n), e[n]) for n in e]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.25), (errors, orders)
    assert errors[-1] < 2e-3
    # The twin: the law 5 % later.
    assert distance(noised(name, 320, 200), exact(name, 320, 1.05), e[320]) > 10 * errors[-1]


@processes
@pytest.mark.parametrize(("method", "order"), [("crank-nicolson", 2), ("implicit", 1)])
def test_the_order_of_the_time_steps(name: str, method: str, order: int) -> None:
    e = fp.cells(-7.0, 7.0, 80)
    fine = noised(name, 80, 320)
    errors = [distance(noised(name, 80, k, method), fine, e) for k in (10, 20, 40)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - order) < 0.2), (errors, orders)


@pytest.mark.parametrize("twin", ["drift", "diffusion"])
def test_a_wrong_coefficient_is_seen(twin: str) -> None:
    """5 % more drift or noise than the process has moves the law by 10 times the error."""
    process, e = ds.VP(), fp.cells(-7.0, 7.0, 320)
    drift, noise = (1.05, 1.0) if twin == "drift" else (1.0, 1.05)
    *_, (_, p) = fp.evolve(
        fp.averages(LAW, e),
        e,
        lambda x, t: drift * process.drift(t) * x,
        lambda t: noise * 0.5 * process.diffusion(t) ** 2,
        np.linspace(0, end("VP"), 201),
    )
    right = distance(noised("VP", 320, 200), exact("VP", 320), e)
    assert distance(p, exact("VP", 320), e) > 10 * right


def test_a_drift_alone_moves_the_law() -> None:
    """D = 0 is upwinding: X_t = X_0 + c t, to first order in the width."""
    errors = []
    for n in (200, 400, 800):
        e = fp.cells(-6.0, 6.0, n)
        *_, (_, p) = fp.evolve(
            fp.averages(LAW, e), e, lambda x, t: 1.5 + 0 * x, lambda t: 0.0, np.linspace(0, 1, 201)
        )
        moved = ds.GaussianMixture([0.3, 0.7], [[0.3], [2.5]], [[[0.25]], [[0.16]]])
        errors.append(distance(p, fp.averages(moved, e), e))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 1) < 0.2)


def test_a_little_noise_is_near_none() -> None:
    """Cells hundreds of noise widths long: the flux goes over into upwinding, and none is lost."""
    e = fp.cells(-6.0, 6.0, 100)
    ends = []
    for D in (0.0, 1e-12, 1e-5):
        noise: Any = lambda t, D=D: D  # noqa: E731
        start, times = fp.averages(LAW, e), [0.0, 0.2, 0.4]
        *_, (_, p) = fp.evolve(start, e, lambda x, t: 1.5 - 0.5 * x, noise, times)
        ends.append(p)
    np.testing.assert_allclose(ends[1], ends[0], atol=1e-9)
    np.testing.assert_allclose(ends[2], ends[0], atol=1e-3)
    z = np.array([-1e4, -800.0, -30.0, -1e-9, 0.0, 1e-9, 1e-3, 30.0, 800.0, 1e4])
    b, c = fp._bernoulli(z), fp._bernoulli(-z)
    np.testing.assert_allclose(c - b, z, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(b[:2], -z[:2], rtol=1e-12)
    assert b[6] == pytest.approx(1 - 0.5e-3 + 1e-6 / 12, rel=1e-13)


# ---------------------------------------------------------------- Langevin


def starts(e: np.ndarray) -> dict[str, np.ndarray]:
    n, w = len(e) - 1, np.diff(e)
    corner = np.zeros(n)
    corner[3] = 1 / w[3]
    rough = np.random.default_rng(1).random(n)  # seed 1
    return {"a corner": corner, "even": np.full(n, 1 / w.sum()), "rough": rough / (rough @ w)}


@pytest.mark.parametrize("start", ["a corner", "even", "rough"])
def test_langevin_tends_to_the_law_from_anywhere(start: str) -> None:
    """Long implicit steps to t = 2e4, where what is left is the error of the cells."""
    law = gallery.julia_bimodal()
    e = fp.cells(-9.0, 9.0, 240)
    wanted = fp.averages(law, e)
    times = np.concatenate([[0], np.geomspace(0.01, 2e4, 60)])
    gaps = []
    for _, p in fp.langevin(law, starts(e)[start], e, times, method="implicit"):
        gaps.append(distance(p, wanted, e))
        assert p.min() >= 0
        assert abs(p @ np.diff(e) - 1) < 1e-12
    assert gaps[0] > 0.5 and gaps[-1] < 3e-3
    assert np.all(np.diff(gaps[:-1]) < 1e-3)
    twin = ds.GaussianMixture([0.15, 0.85], [[-3.0], [3.0]], [[[1.0]], [[1.0]]])
    assert distance(p, fp.averages(twin, e), e) > 0.05


def test_the_law_is_stationary_to_second_order() -> None:
    law, errors = gallery.julia_bimodal(), []
    for n in (60, 120, 240):
        e = fp.cells(-9.0, 9.0, n)
        q = fp.averages(law, e)
        *_, (_, p) = fp.langevin(law, q, e, np.linspace(0, 2, 41))
        errors.append(distance(p, q, e))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.2), (errors, orders)
    # What stands still for good is the product of the ratios e^(w s) of neighbours.
    rates = fp._rates(e, lambda x, t: law.score(x[:, None])[:, 0], lambda t: 1.0, 0.0)
    s = law.score(e[1:-1, None])[:, 0]
    still = np.exp(np.concatenate([[0], np.cumsum(s * (e[1] - e[0]))]))
    still /= still @ np.diff(e)
    assert np.abs(fp._applied(fp._matrix(e, rates), still)).max() < 1e-10
    assert np.abs(fp._applied(fp._matrix(e, rates), q)).max() > 1e-6


def test_an_ornstein_uhlenbeck_process_in_closed_form() -> None:
    """Langevin on N(0, 1) from N(m, v): mean m e^-t, variance 1 + (v - 1) e^-2t.

    The variance of cell averages has w^2/12 too much. The twins run twice as fast, or half.
    """
    normal = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    start = ds.GaussianMixture([1.0], [[1.5]], [[[0.3]]])
    e = fp.cells(-8.0, 8.0, 800)
    c, w = 0.5 * (e[1:] + e[:-1]), np.diff(e)
    for t, p in fp.langevin(normal, fp.averages(start, e), e, np.linspace(0, 1.2, 61)):
        mean = float(p * w @ c)
        var = float(p * w @ (c - mean) ** 2) + float(w[0] ** 2 / 12)
        var -= 2 * float(w[0] ** 2 / 12)
        assert mean == pytest.approx(1.5 * np.exp(-t), abs=3e-4)
        assert var == pytest.approx(1 - 0.7 * np.exp(-2 * t), abs=3e-4)
    assert mean != pytest.approx(1.5 * np.exp(-2 * t), abs=0.1)
    assert mean != pytest.approx(1.5 * np.exp(-t / 2), abs=0.1)


# ---------------------------------------------------------------- promises of the scheme


def wobble(x: np.ndarray, t: float) -> np.ndarray:
    return np.sin(3 * x + t) - 0.3 * x


UNEVEN = np.sinh(np.linspace(-2, 2, 81))


EDGES = {"even": fp.cells(-2.0, 2.0, 60), "uneven": UNEVEN}


def lost(e: np.ndarray, A: np.ndarray) -> float:
    """The largest rate at which the mass of a cell goes nowhere, of the fastest rate."""
    return float(np.abs(np.diff(e) @ A).max() / np.abs(np.diff(e) * np.diag(A)).max())


@pytest.mark.parametrize("D", [0.0, 1e-3, 0.7])
@pytest.mark.parametrize("edges", EDGES)
def test_what_leaves_a_cell_enters_another(edges: str, D: float) -> None:
    """Column by column; the twins: a cell that leaks, rates 1 % off, and the transpose."""
    e = EDGES[edges]
    bands = fp._matrix(e, fp._rates(e, wobble, lambda t: D, 0.0))
    A = np.diag(bands[1]) + np.diag(bands[0, 1:], 1) + np.diag(bands[2, :-1], -1)
    assert lost(e, A) < 1e-15
    leak, slow = A.copy(), A.copy()
    leak[30, 30] *= 1.01
    slow[np.arange(1, len(A)), np.arange(len(A) - 1)] *= 1.01
    for twin in (leak, slow, A.T):
        assert lost(e, twin) > 1e-3


@pytest.mark.parametrize("method", ["crank-nicolson", "implicit"])
def test_a_leak_is_not_made_good(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mass is set back after a solve, by what rounding explains and by no more."""
    e, matrix = fp.cells(-2.0, 2.0, 60), fp._matrix

    def leaky(*given: Any) -> np.ndarray:
        bands = matrix(*given)
        bands[1, 30] *= 1 + 1e-6
        return bands

    p0, times = np.full(60, 0.25), [0.0, 0.02]
    list(fp.evolve(p0, e, wobble, lambda t: 0.5, times, method=method))
    monkeypatch.setattr(fp, "_matrix", leaky)
    with pytest.raises(ArithmeticError, match=r"a step left 0\.99999"):
        list(fp.evolve(p0, e, wobble, lambda t: 0.5, times, method=method))


def test_steps_of_any_length_keep_the_mass() -> None:
    """Up to 1e14, where a solve has lost all its digits of the mass, and none of the shape."""
    law, e = gallery.julia_bimodal(), fp.cells(-9.0, 9.0, 240)
    wanted = fp.averages(law, e)
    for dt in (1e4, 1e8, 1e14):
        _, (_, p) = fp.langevin(law, starts(e)["rough"], e, [0.0, dt], method="implicit")
        assert abs(p @ np.diff(e) - 1) < 1e-12
    assert distance(p, wanted, e) < 3e-3


def test_what_does_not_change_is_asked_for_once() -> None:
    """The same numbers to the last bit; the twin calls a drift that changes stationary."""
    e, asked = fp.cells(-2.0, 2.0, 40), []

    def drift(x: np.ndarray, t: float) -> np.ndarray:
        asked.append(t)
        return wobble(x, 0.0)

    p0, times = np.full(40, 0.25), np.linspace(0.0, 1.0, 11)
    run = {
        s: list(fp.evolve(p0, e, drift, lambda t: 0.5, times, stationary=s)) for s in (False, True)
    }
    assert len(asked) == 12
    for (_, p), (_, q) in zip(run[False], run[True], strict=True):
        np.testing.assert_array_equal(p, q)
    *_, (_, moving) = fp.evolve(p0, e, wobble, lambda t: 0.5, times)
    assert distance(moving, q, e) > 0.01


@pytest.mark.parametrize("method", fp.METHODS)
@pytest.mark.parametrize("edges", EDGES)
def test_mass_is_kept(method: str, edges: str) -> None:
    """To 1e-12 over 400 steps, with walls that are reached."""
    e = EDGES[edges]
    p0 = np.random.default_rng(1).random(len(e) - 1)  # seed 1
    step = 2e-4 if method == "explicit" else 0.02
    masses = [
        p @ np.diff(e)
        for _, p in fp.evolve(
            p0, e, wobble, lambda t: 0.5 + 0.1 * t, step * np.arange(401), method=method
        )
    ]
    np.testing.assert_allclose(masses, p0 @ np.diff(e), rtol=1e-12)
    assert len(masses) == 401


@pytest.mark.parametrize("method", fp.METHODS)
def test_densities_stay_positive(method: str) -> None:
    """From one cell: implicit at any length, explicit at its limit, Crank-Nicolson at twice that.

    The twin is Crank-Nicolson far past it, which rings.
    """
    e = fp.cells(-2.0, 2.0, 60)
    p0 = np.zeros(60)
    p0[20] = 1.0
    bands = fp._matrix(e, fp._rates(e, wobble, lambda t: 0.7, 0.0))
    limit = 1 / float(np.max(-bands[1]))
    longest = {"explicit": 0.99, "crank-nicolson": 1.98, "implicit": 1e6}[method] * limit
    still: Any = lambda x, t: wobble(x, 0.0)  # noqa: E731
    run = fp.evolve(p0, e, still, lambda t: 0.7, longest * np.arange(30), method=method)
    assert min(p.min() for _, p in run) >= 0
    ringing = fp.evolve(p0, e, still, lambda t: 0.7, 50 * limit * np.arange(4))
    assert min(p.min() for _, p in ringing) < -1e-3


def test_the_explicit_limit() -> None:
    """w^2/2D without drift: just below it runs, just above it raises; past it, it would blow up."""
    e, D = fp.cells(0.0, 1.0, 50), 0.7
    w = 1 / 50
    limit = w * w / (2 * D)
    p0 = np.random.default_rng(1).random(50)  # seed 1
    none: Any = lambda x, t: 0 * x  # noqa: E731

    def run(factor: float) -> list[np.ndarray]:
        times = factor * limit * np.arange(2000)
        return [p for _, p in fp.evolve(p0, e, none, lambda t: D, times, method="explicit")]

    states = run(0.999)
    assert states[-1].min() >= 0 and states[-1].max() <= p0.max()
    assert np.ptp(states[-1]) < 0.2 * np.ptp(p0)
    with pytest.raises(ArgumentError, match=r"times must have steps of at most 0.000285\d+") as e1:
        run(1.001)
    assert "\n" not in str(e1.value)
    bands, p = fp._matrix(e, fp._rates(e, none, lambda t: D, 0.0)), p0
    for _ in range(2000):
        p = p + 1.05 * limit * fp._applied(bands, p)
    assert np.abs(p).max() > 1e6


def test_explicit_steps_come_near_the_others() -> None:
    """To first order in their length."""
    e = fp.cells(-7.0, 7.0, 40)

    def run(steps: int, method: str) -> np.ndarray:
        times = np.linspace(0, 0.3, steps + 1)
        *_, (_, p) = fp.forward(ds.VP(), fp.averages(LAW, e), e, times, method=method)
        return p

    fine = run(200, "crank-nicolson")
    errors = [distance(run(steps, "explicit"), fine, e) for steps in (50, 100, 200)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 1) < 0.2), (errors, orders)


@pytest.mark.parametrize("edges", ["even", "uneven"])
def test_a_step_is_the_formula(edges: str) -> None:
    """Against the dense generator, from the fluxes written out; the twin is its transpose."""
    e = fp.cells(-2.0, 2.1, 30) if edges == "even" else UNEVEN[::4] + 0.01
    n, centres, size = len(e) - 1, 0.5 * (e[1:] + e[:-1]), np.diff(e)

    def generator(t: float) -> np.ndarray:
        A, D = np.zeros((n, n)), 0.4 + t
        for i in range(n - 1):
            w, b = centres[i + 1] - centres[i], wobble(e[i + 1 : i + 2], t)[0]
            z = b * w / D
            flux = np.zeros(n)  # J = D/w (B(-z) p_i - B(z) p_(i+1))
            flux[i], flux[i + 1] = D / w * z / (1 - np.exp(-z)), -D / w * z / (np.exp(z) - 1)
            A[i] -= flux / size[i]
            A[i + 1] += flux / size[i + 1]
        return A

    p, dt, eye = np.random.default_rng(1).random(n), 1e-3, np.eye(n)  # seed 1
    A, B = generator(0.0), generator(dt)
    wanted = {
        "explicit": p + dt * A @ p,
        "implicit": np.linalg.solve(eye - dt * B, p),
        "crank-nicolson": np.linalg.solve(eye - dt / 2 * B, p + dt / 2 * A @ p),
    }
    for method, q in wanted.items():
        _, (_, found) = fp.evolve(p, e, wobble, lambda t: 0.4 + t, [0.0, dt], method=method)
        np.testing.assert_allclose(found, q, rtol=1e-11)
        assert not np.allclose(found, p + dt * A.T @ p, rtol=1e-5)


def test_no_flux_leaves_the_walls() -> None:
    """Diffusion in a box evens out, on uneven cells too."""
    p = np.random.default_rng(1).random(80)  # seed 1
    *_, (_, end) = fp.evolve(
        p, UNEVEN, lambda x, t: 0 * x, lambda t: 1.0, [0, 10, 200, 4000], method="implicit"
    )
    level = p @ np.diff(UNEVEN) / (UNEVEN[-1] - UNEVEN[0])
    np.testing.assert_allclose(end, level, rtol=1e-5)


def test_averages_are_the_mean_densities() -> None:
    e = fp.cells(-6.0, 6.0, 40)
    nodes, weights = np.polynomial.legendre.leggauss(12)
    x = 0.5 * (e[1:] + e[:-1])[:, None] + 0.15 * nodes
    wanted = np.exp(LAW.log_prob(x[..., None])) @ weights / 2
    np.testing.assert_allclose(fp.averages(LAW, e), wanted, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(fp.averages(LAW, torch.as_tensor(e)), wanted, rtol=1e-9, atol=1e-15)
    middle = np.exp(LAW.log_prob(0.5 * (e[1:] + e[:-1])[:, None]))
    assert not np.allclose(fp.averages(LAW, e), middle, rtol=1e-3)
    assert fp.averages(LAW, e) @ np.diff(e) == pytest.approx(1, abs=1e-12)


# ---------------------------------------------------------------- bad input

E = fp.cells(-4.0, 4.0, 20)
P = np.full(20, 1 / 8)
STILL: Any = lambda x, t: 0 * x  # noqa: E731
ONE: Any = lambda t: 1.0  # noqa: E731
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "cells back to front": (lambda: fp.cells(1.0, 0.0, 5), "low must be a number below high = 0"),
    "cells to infinity": (lambda: fp.cells(0.0, np.inf, 5), "high must be a finite number"),
    "one cell": (lambda: fp.cells(0.0, 1.0, 1), "n must be a whole number of at least 2"),
    "half a cell": (lambda: fp.cells(0.0, 1.0, 2.5), "n must be a whole number"),  # type: ignore[arg-type]
    "a word": (lambda: fp.cells("a", 1.0, 5), "low must be a finite number"),  # type: ignore[arg-type]
    "a plane": (lambda: fp.averages(gallery.rings(), E), "target must have D = 1"),
    "no law": (lambda: fp.averages("normal", E), "law must be a Target"),  # type: ignore[arg-type]
    "falling edges": (lambda: fp.averages(LAW, E[::-1]), "edges must be two or more increasing"),
    "few densities": (
        lambda: fp.evolve(P[:5], E, STILL, ONE, [0, 1]), r"density must have shape \(20\)"),
    "a negative density": (
        lambda: fp.evolve(-P, E, STILL, ONE, [0, 1]), "density must be at least 0 in every cell"),
    "NaN": (lambda: fp.evolve(np.nan * P, E, STILL, ONE, [0, 1]), "density must be finite"),
    "times back": (lambda: fp.evolve(P, E, STILL, ONE, [1, 0]), "times must be two or more incr"),
    "one time": (lambda: fp.evolve(P, E, STILL, ONE, [0]), "times must be two or more incr"),
    "a method": (
        lambda: fp.evolve(P, E, STILL, ONE, [0, 1], method="euler"), "method must be one of expl"),
    "a drift of another shape": (
        lambda: fp.evolve(P, E, lambda x, t: x[:3], ONE, [0, 1]),
        r"drift must give 19 finite numbers \(t = 0\); got shape \(3,\)"),
    "a drift of NaN": (
        lambda: fp.evolve(P, E, lambda x, t: np.nan * x, ONE, [0, 1]), "finite .*; got nan"),
    "a number for a drift": (
        lambda: fp.evolve(P, E, 0.0, ONE, [0, 1]), "drift must be a function"),  # type: ignore[arg-type]
    "a number for a diffusion": (
        lambda: fp.evolve(P, E, STILL, 1.0, [0, 1]), "diffusion must be a function"),  # type: ignore[arg-type]
    "negative diffusion": (
        lambda: fp.evolve(P, E, STILL, lambda t: -1.0, [0, 1]), "diffusion must be at least 0"),
    "an explicit step past the limit": (
        lambda: fp.langevin(LAW, P, E, [0, 0.5, 1.0], method="explicit"), "times must have steps"),
    "a chain": (lambda: fp.forward(ds.Chain.linear(5), P, E, [0, 1]), "process must be continuous"),
    "no process": (lambda: fp.forward("VP", P, E, [0, 1]), "process must be a Process"),  # type: ignore[arg-type]
    "times past the end": (lambda: fp.forward(ds.VP(), P, E, [0, 2]), "t must lie in"),
    "a law in the plane": (
        lambda: fp.langevin(gallery.rings(), P, E, [0, 1]), r"x must have shape \(..., 2\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, sentence = BAD[name]
    with pytest.raises(ArgumentError, match=sentence) as caught:
        list(call())
    assert "\n" not in str(caught.value)
