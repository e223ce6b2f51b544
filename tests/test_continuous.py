"""Solvers and likelihood in continuous time: equal engines, orders, exact maps, traps, doors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, grids, likelihood, noise, solvers
from diffscience.errors import ArgumentError

BIMODAL = ds.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [[[0.25]], [[0.16]]])
ANY: Any = ds


class Scaled(ds.Oracle):
    """The wrong twin: a drift 5 % too strong."""

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        return 1.05 * super().drift(x, t, eta)

    def velocity(self, x: Any, t: Any) -> Any:
        return 1.05 * super().velocity(x, t)


class Halved(ds.Oracle):
    """The wrong twin of the reverse SDE: the drift of the flow beside the noise of eta = 1."""

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        return super().drift(x, t, 0.0)


def start(oracle: ds.Oracle, t: float, n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.as_tensor(oracle.at(t).sample(n, 0)).to(dtype)


# ---------------------------------------------------------------- SDEs


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
def test_torchsde_the_fused_loop_and_a_loop_by_hand_are_one(eta: float) -> None:
    """On the same noise, float64: 1e-11; another seed and a twin's drift are far off."""
    oracle = ds.Oracle(gallery.julia_trimodal(), ds.VP())
    x, times = start(oracle, 1.0, 300), grids.karras(oracle.process, 40, end=1e-3)
    drawn, y, process = noise.Sequential(3, 300, 2, torch.float64), x, oracle.process
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        y = y + (s - t) * oracle.drift(y, t, eta)
        y = y + eta * process.diffusion(t) * math.sqrt(t - s) * drawn.normal(300, 2)
    general = solvers.reverse(oracle, x, times, 3, eta=eta)
    fused = solvers.reverse(oracle, x, times, 3, eta=eta, engine="fused")
    assert general.evaluations == fused.evaluations == 40
    for found in (general.last, fused.last):
        assert float((found - y).abs().max()) < 1e-11
    twin = solvers.reverse(Scaled(oracle.law, process), x, times, 3, eta=eta).last
    assert float((twin - y).abs().max()) > 1e-3


def test_chunks_change_nothing() -> None:
    oracle = ds.Oracle(BIMODAL, ds.VP())
    n = noise.BLOCK + 700
    x, times = start(oracle, 1.0, n), np.linspace(1, 0.01, 12)
    whole = solvers.reverse(oracle, x, times, 5, method="srk")
    parts = solvers.reverse(oracle, x, times, 5, method="srk", chunk=noise.BLOCK)
    assert torch.equal(whole.states, parts.states)
    few = solvers.reverse(oracle, x[:9], times, 5, method="srk")
    assert torch.equal(few.last, whole.last[:9])
    assert not torch.equal(solvers.reverse(oracle, x[:9], times, 6).last, few.last)


def slope(errors: list[float]) -> float:
    return float(np.log2(errors[0] / errors[-1]) / (len(errors) - 1))


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("milstein", 1.0), ("srk", 1.5)])
def test_strong_orders_on_geometric_brownian_motion(method: str, order: float) -> None:
    """dX = X/2 dt + 0.8 X dW, exact on the path; 2000 paths of seed 0, 16 to 128 steps."""
    fine = np.linspace(0, 1, 129)
    path = noise.Stored.drawn(0, 2000, 1, fine)
    exact = torch.exp((0.5 - 0.32) + 0.8 * path.W.sum(0))
    errors = []
    for n in (16, 32, 64, 128):
        times = fine[:: 128 // n]
        run = solvers.ito(
            lambda x, t: 0.5 * x, lambda x, t: 0.8 * x, torch.ones(2000, 1).double(), times,
            path.on(times), diagonal=True, method=method,
        )  # fmt: skip
        errors.append(float(((run.last - exact) ** 2).mean().sqrt()))
    assert abs(slope(errors) - order) < 0.15


@pytest.mark.parametrize(("method", "low", "high"), [("euler", 0.85, 1.15), ("srk", 1.4, 1.9)])
def test_strong_orders_of_the_reverse_sde(method: str, low: float, high: float) -> None:
    """Additive noise: Euler 1, SRK 3/2 or better; one stored path, reference SRK on 1024 steps."""
    law = ds.GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[[0.5]], [[0.5]]])
    oracle = ds.Oracle(law, ds.VP(0.1, 6.0))
    fine, x = np.linspace(1, 0.1, 1025), start(oracle, 1.0, 1000)
    path = noise.Stored.drawn(0, 1000, 1, fine)
    reference = solvers.reverse(oracle, x, fine, path.on(fine), method="srk").last
    errors = []
    for n in (16, 32, 64, 128):
        times = fine[:: 1024 // n]
        found = solvers.reverse(oracle, x, times, path.on(times), method=method).last
        errors.append(float(((found - reference) ** 2).mean().sqrt()))
    assert low < slope(errors) < high


@pytest.mark.timeout(60)
@pytest.mark.parametrize("T", [80.0, 5.0, 19.99, 0.998])
def test_the_times_at_which_torchsde_alone_hangs(T: float) -> None:
    oracle = ds.Oracle(BIMODAL, ds.EDM(T))
    run = solvers.reverse(oracle, start(oracle, T, 20), np.linspace(T, 0.01, 101), 1)
    assert (run.evaluations, run.steps) == (100, 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_exact_and_nothing_global_is_drawn(dtype: torch.dtype) -> None:
    oracle, before = ds.Oracle(BIMODAL, ds.VP()), torch.random.get_rng_state()
    for n in (2, 3, 7, 30, 100):
        run = solvers.reverse(oracle, start(oracle, 1.0, 3, dtype), np.linspace(1, 0.01, n + 1), 1)
        assert (run.evaluations, run.last.dtype) == (n, dtype)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_reverse_sde_returns_and_half_of_it_does_not() -> None:
    """KS at a false alarm of 1e-6, 4000 points, 400 steps even in log-SNR."""
    oracle, limit = ds.Oracle(BIMODAL, ds.VP()), math.sqrt(math.log(2e6) / 8000)
    x, times = start(oracle, 1.0, 4000), grids.log_snr(oracle.process, 400, end=1e-3)
    for model, near in ((oracle, True), (Halved(BIMODAL, ds.VP()), False)):
        y = np.sort(solvers.reverse(model, x, times, 2).last.numpy()[:, 0])
        F = oracle.at(1e-3).cdf(y[:, None])
        far = np.max(np.abs(F - (np.arange(4000) + 0.5) / 4000))
        assert (far < limit) == near


def test_a_start_of_another_law_is_warned_of() -> None:
    law = ds.GaussianMixture([0.8, 0.2], [[-1.0], [1.0]], [[[0.16]], [[0.09]]])
    oracle = ds.Oracle(law, ds.EDM(1.0))
    wrong = np.random.default_rng(0).standard_normal((2000, 1))
    with pytest.warns(ds.prior.PriorWarning, match=r"at t = 1 has -0\.6 and 1\.3"):
        solvers.reverse(oracle, wrong, [1.0, 0.5], 1)
    for seed in range(5):
        solvers.reverse(oracle, oracle.at(1.0).sample(2000, seed), [1.0, 0.5], 1)


# ---------------------------------------------------------------- ODEs


@pytest.mark.parametrize("process", [ds.VP(), ds.EDM(10.0), ds.RectifiedFlow()], ids=repr)
def test_the_flow_is_the_quantile_map(process: ds.Process) -> None:
    """1e-7 in both directions, from data without noise; a stronger velocity is not."""
    oracle, x = ds.Oracle(BIMODAL, process), BIMODAL.sample(50, 0)
    exact = oracle.flow(x, 0.0, process.T)
    code = solvers.flow(oracle, x, [0.0, process.T], rtol=1e-9, atol=1e-9).last
    assert np.abs(code - exact).max() < 1e-7 * max(1.0, np.abs(exact).max())
    back = solvers.flow(oracle, code, [process.T, 0.0], rtol=1e-9, atol=1e-9).last
    assert np.abs(back - x).max() < 1e-6
    twin = solvers.flow(Scaled(BIMODAL, process), x, [0.0, process.T]).last
    assert np.abs(twin - exact).max() > 1e-3


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun2", 2), ("rk4", 4)])
def test_orders_of_fixed_steps(method: str, order: int) -> None:
    oracle, x = ds.Oracle(BIMODAL, ds.VP()), BIMODAL.sample(50, 0)
    exact, errors = oracle.flow(x, 0.05, 1.0), []
    for n in (64, 128, 256):
        times = grids.log_snr(oracle.process, n, end=0.05)[::-1]
        found = solvers.flow(oracle, x, times, method=method).last
        errors.append(float(np.sqrt(np.mean((found - exact) ** 2))))
    assert abs(slope(errors) - order) < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_flow_ends_where_the_process_does(dtype: torch.dtype) -> None:
    """Nothing is asked below t = 0, where the variance would be negative."""
    for law in (BIMODAL, gallery.julia_trimodal()):
        oracle = ds.Oracle(law, ds.VP())
        run = solvers.flow(oracle, start(oracle, 1.0, 40, dtype), [1.0, 0.0])
        assert run.reached == 0 and bool(torch.isfinite(run.last).all())


def test_a_limit_cuts_a_run_off_and_says_where() -> None:
    oracle = ds.Oracle(BIMODAL, ds.VP())
    run = solvers.flow(oracle, start(oracle, 1.0, 5), [1.0, 0.0], limit=30)
    assert 0 < run.reached < 1 and run.evaluations == 30


# ---------------------------------------------------------------- likelihood


@pytest.mark.parametrize("name", ["julia_bimodal", "julia_trimodal", "rings", "skewed_pair"])
def test_the_flow_gives_the_exact_density(name: str) -> None:
    """1e-6 at tolerance 1e-9; the whole gallery is in the study `likelihood`'s reach."""
    law = gallery.ALL[name]()
    x = law.sample(12, 0)
    exact = law.log_prob(x)
    found = likelihood.log_prob(ds.Oracle(law, ds.VP()), x, rtol=1e-9, atol=1e-9)
    assert np.abs(found.log_prob - exact).max() < 1e-6
    twin = likelihood.log_prob(Scaled(law, ds.VP()), x)
    assert np.abs(twin.log_prob - exact).max() > 1e-3


def test_hutchinson_is_unbiased_and_knows_its_error() -> None:
    """z-scores of 60 points with 64 probes, seed 1: mean 0 and variance 1 within 4.9 errors."""
    law = gallery.julia_trimodal()
    x, oracle = law.sample(60, 0), ds.Oracle(law, ds.VP())
    for kind in ("rademacher", "gaussian"):
        found = likelihood.log_prob(
            oracle, x, trace="hutchinson", probes=64, directions_of=kind, generator=1
        )
        z = (found.log_prob - law.log_prob(x)) / found.error
        assert abs(z.mean()) < 4.9 / math.sqrt(60)
        assert abs(z.var() - 1) < 4.9 * math.sqrt(2 / 60)
        assert abs((z + 5).mean()) > 4.9 / math.sqrt(60)


def test_a_network_by_derivatives_and_bits() -> None:
    """The autograd path on a linear net is the closed form of its Gaussian."""
    law = ds.GaussianMixture([1.0], [[0.5, -0.2]], [[[2.0, 0.3], [0.3, 1.0]]])
    oracle = ds.Oracle(law, ds.VP())

    class Generic(ds.Model):
        process = oracle.process

        def velocity(self, x: Any, t: Any) -> Any:
            return oracle.velocity(x, t)

    x = law.sample(8, 0)
    options: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8, "prior": oracle.at(1.0)}
    found = likelihood.log_prob(Generic(), x, **options)
    assert np.abs(found.log_prob - law.log_prob(x)).max() < 1e-6
    assert math.isclose(found.bits_per_dim().value, found.nats().value / (2 * math.log(2)))


# ---------------------------------------------------------------- bad input

ORACLE = ds.Oracle(BIMODAL, ds.VP())
X = np.zeros((3, 1))


class Broken(ds.Oracle):
    """NaN for the second row from t = 0.5 down."""

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        value = super().drift(x, t, eta).clone()
        value[1] = math.nan if t <= 0.5 else 0.0
        return value

    def velocity(self, x: Any, t: Any) -> Any:
        return self.drift(x, t, 0.0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.1], 1, method="heun"), "method must be one"),
        (lambda: ANY.solvers.flow(ORACLE, X, [1, 0], method="fehlberg2"), "method must be one of"),
        (lambda: ANY.solvers.flow(ORACLE, X, [1, 0], method="explicit_adams"), "method must be"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [0.1, 1], 1), "times must be decreasing"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.5, 0.7], 1), "times must be two or more"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1.5, 0.5], 1), r"times must lie in \[0, 1\]"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.5], 1, eta=-1), "eta must be a number of"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.5], 1, engine="c"), "engine must be"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.5], 1, chunk=100), "chunk must be"),
        (lambda: ANY.solvers.reverse(ORACLE, X, [1, 0.5], 1, keep=[7]), "keep must be"),
        (
            lambda: ANY.solvers.reverse(Broken(BIMODAL, ds.VP()), X, [1, 0.5, 0.2], 1),
            "finite drift at t = 0.5; got 1 rows",
        ),
        (
            lambda: ANY.solvers.flow(Broken(BIMODAL, ds.VP()), X, [0.5, 0.2]),
            "finite velocity at t = 0.5; got 1 rows",
        ),
        (lambda: ANY.solvers.flow(ORACLE, X, [1, 0], rtol=0), "rtol must be a positive"),
        (lambda: likelihood.log_prob(ORACLE, X, trace="x"), "trace must be one of"),
        (lambda: likelihood.log_prob(ORACLE, X, trace="hutchinson"), "generator must be given"),
        (
            lambda: ANY.solvers.reverse(ds.Oracle(BIMODAL, ds.Cosine()), X, [1, 0.5], 1),
            "times must start before alpha is 0",
        ),
    ],
)
def test_bad_input_is_one_sentence(call: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        call()
