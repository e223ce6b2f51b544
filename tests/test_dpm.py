"""DPM-Solver++: what is integrated exactly, the published formulas, orders, both ends of time.

    x_s = sigma_s/sigma_t e^(-eta^2 h) x_t + alpha_s int p e^(-p(l_s - l)) D dl + noise

A model whose x0 is a polynomial of l = log(alpha/sigma) shows the degree that a method integrates
without error; data at a single point, where D is constant, show its noise: there every step is
exact in law, for every eta.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import dpm, grids
from diffscience.dpm import Level, dpm_1s, dpm_2m, dpm_2s, dpm_3m
from diffscience.errors import ArgumentError
from diffscience.samplers import ancestral, ddim, last

ALL: dict[str, Callable[..., Any]] = {"1s": dpm_1s, "2s": dpm_2s, "2m": dpm_2m, "3m": dpm_3m}
PROCESSES: dict[str, ds.Process] = {
    "VP": ds.VP(),
    "VE": ds.VE(),
    "EDM": ds.EDM(10.0),
    "Cosine": ds.Cosine(),
    "RectifiedFlow": ds.RectifiedFlow(),
}
MIXTURE = ds.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [[[0.25]], [[0.16]]])

processes = pytest.mark.parametrize("process", PROCESSES)
methods = pytest.mark.parametrize("method", ALL)
etas = pytest.mark.parametrize("eta", [0.0, 0.7, 2.0])
three = pytest.mark.parametrize("process", ["VP", "EDM", "RectifiedFlow"])


class Given(ds.Model):
    """A model whose x0 is a polynomial of l, whatever x is."""

    def __init__(self, process: ds.Process, coefficients: list[float]) -> None:
        self.process, self.polynomial = process, np.polynomial.Polynomial(coefficients)

    def D(self, l: Any) -> Any:  # noqa: E741
        return self.polynomial(l)

    def x0(self, x: Any, t: Any) -> Any:
        return 0 * x + self.D(0.5 * self.process.log_snr(t))


class Script:
    """Noise from a list, or none at all."""

    area = None

    def __init__(self, z: Any = ()) -> None:
        self.z = iter(z)

    def normal(self, *shape: int) -> Any:
        return next(self.z, np.zeros(shape))


class Probe:
    """The j-th number drawn is 1 in row 2 + j and 0 elsewhere."""

    area = None

    def __init__(self, factor: float = 1.0) -> None:
        self.drawn, self.factor = 0, factor

    def normal(self, n: int, dim: int) -> np.ndarray:
        z = np.zeros((n, dim))
        z[2 + self.drawn] = self.factor
        self.drawn += 1
        return z


def moments(run: Callable[..., Any], mean: float, var: float, probe: Probe) -> tuple[float, float]:
    """Mean and variance of the end of a run that is affine in its start and in its noise."""
    x = np.zeros((60, 1))
    x[1] = 1.0
    y = run(x, probe)[:, 0]
    gains = y[1:] - y[0]
    return float(y[0] + gains[0] * mean), float(gains[0] ** 2 * var + np.sum(gains[1:] ** 2))


# ---------------------------------------------------------------- exact for polynomials


def exact_step(model: Given, x: np.ndarray, t: float, s: float, eta: float) -> np.ndarray:
    """The mean of x_s given x_t by 40 Gauss-Legendre nodes."""
    now, then = Level.of(model.process, t), Level.of(model.process, s)
    u, w = np.polynomial.legendre.leggauss(40)
    h, p = then.log_ratio - now.log_ratio, 1 + eta * eta
    l = now.log_ratio + 0.5 * h * (1 + u)  # noqa: E741
    integral = 0.5 * h * np.sum(w * p * np.exp(-p * (then.log_ratio - l)) * model.D(l))
    return then.sigma / now.sigma * math.exp(-eta * eta * h) * x + then.alpha * integral


def assert_exact(method: str, model: Given, eta: float, after: int, **options: Any) -> None:
    """From the step `after` on, each step is that of the equation itself, to 1e-12."""
    times = grids.log_snr(model.process, 7, start=0.8 * model.process.T, end=0.05 * model.process.T)
    times[3] += 0.3 * (times[2] - times[3])  # uneven
    x = np.array([[-2.0], [0.3], [1.0]])
    run = list(ALL[method](model, x, times, Script(), eta=eta, **options))
    for (t, x), (s, y) in list(zip(run, run[1:]))[after:]:
        np.testing.assert_allclose(y, exact_step(model, x, t, s, eta), rtol=1e-12, atol=1e-12)


# (method, degree of D, steps that have not yet seen enough of it). 2S and 2M hold their D, a mean
# of two, over a step: of order 2, but exact for constants alone.
DEGREES = [("1s", 0, 0), ("2s", 0, 0), ("2m", 0, 0), ("3m", 0, 0), ("3m", 1, 1), ("3m", 2, 2)]


@pytest.mark.parametrize(("method", "degree", "after"), DEGREES)
@three
@etas
def test_polynomials_are_integrated_exactly(
    method: str, degree: int, after: int, process: str, eta: float
) -> None:
    path, coefficients = PROCESSES[process], [0.7, -0.4, 0.3, 0.2]
    assert_exact(method, Given(path, coefficients[: degree + 1]), eta, after)
    beyond = 3 if method == "3m" else 1
    with pytest.raises(AssertionError):
        assert_exact(method, Given(path, coefficients[: beyond + 1]), eta, after)


def half_weight(seen: Any, h: float) -> Any:
    """Taylor's terms as the published programs weigh them: phi_2 D' - phi_3 D''."""
    D, *rest = true_taylor(seen, h)
    return (D, *rest[:1], *(0.5 * term for term in rest[1:]))


true_taylor = dpm._taylor


def test_the_published_weight_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """phi_3 = phi_2/p - 1/2 (k-diffusion, sample_dpmpp_3m_sde) is half of Taylor's weight."""
    p = 0.8
    phi_2 = math.expm1(-p) / p + 1
    weights = [-math.expm1(-p)]
    for k in range(2):
        weights.append(1 - (k + 1) * weights[-1] / p)
    assert abs(weights[1] - phi_2) < 1e-15
    assert abs(weights[2] + 2 * (phi_2 / p - 0.5)) < 1e-14
    monkeypatch.setattr(dpm, "_taylor", half_weight)
    assert_exact("3m", Given(ds.VP(), [0.7, -0.4]), 0.0, 1)
    with pytest.raises(AssertionError):
        assert_exact("3m", Given(ds.VP(), [0.7, -0.4, 0.3]), 0.0, 2)


# ---------------------------------------------------------------- the published formulas


def published_2s(oracle: Any, x: Any, now: Level, then: Level, r: float) -> Any:
    """Lu et al. 2022 (DPM-Solver++), algorithm 1."""
    h = then.log_ratio - now.log_ratio
    mid = Level.of(oracle.process, oracle.process.time_of_log_snr(2 * (now.log_ratio + r * h)))
    D = oracle.x0(x, now.t)
    u = mid.sigma / now.sigma * x - mid.alpha * math.expm1(-r * h) * D
    D = (1 - 1 / (2 * r)) * D + 1 / (2 * r) * oracle.x0(u, mid.t)
    return then.sigma / now.sigma * x - then.alpha * math.expm1(-h) * D


def published_2m(oracle: Any, x: Any, levels: list[Level], i: int, D: list[Any], z: Any) -> Any:
    """Lu et al. 2022, algorithm 2, and with z its SDE form (section 5)."""
    now, then = levels[i], levels[i + 1]
    h = then.log_ratio - now.log_ratio
    mixed = D[i]
    if i:
        r = (now.log_ratio - levels[i - 1].log_ratio) / h
        mixed = (1 + 1 / (2 * r)) * D[i] - 1 / (2 * r) * D[i - 1]
    if z is None:
        return then.sigma / now.sigma * x - then.alpha * math.expm1(-h) * mixed
    mean = then.sigma / now.sigma * math.exp(-h) * x - then.alpha * math.expm1(-2 * h) * mixed
    return mean + then.sigma * math.sqrt(-math.expm1(-2 * h)) * z


@processes
@pytest.mark.parametrize("r", [0.3, 0.5])
def test_2s_as_published(process: str, r: float) -> None:
    path = PROCESSES[process]
    oracle = ds.Oracle(MIXTURE, path)
    times = grids.log_snr(path, 5, start=0.8 * path.T, end=0.05 * path.T)
    levels = [Level.of(path, t) for t in times]
    run = list(dpm_2s(oracle, oracle.at(times[0]).sample(20, 0), times, ratio=r))
    for (_, x), (_, y), now, then in zip(run, run[1:], levels, levels[1:]):
        np.testing.assert_allclose(y, published_2s(oracle, x, now, then, r), rtol=0, atol=1e-11)
        assert np.abs(y - published_2s(oracle, x, now, then, r + 0.05)).max() > 1e-6


@processes
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_2m_as_published(process: str, eta: float) -> None:
    path = PROCESSES[process]
    oracle = ds.Oracle(MIXTURE, path)
    times = grids.log_snr(path, 6, start=0.8 * path.T, end=0.05 * path.T)
    levels = [Level.of(path, t) for t in times]
    z = np.random.default_rng(1).standard_normal((6, 20, 1))
    run = list(dpm_2m(oracle, oracle.at(times[0]).sample(20, 0), times, Script(z), eta=eta))
    D = [oracle.x0(x, t) for t, x in run]
    twin = [0.98 * d for d in D]
    for i, ((_, x), (_, y)) in enumerate(zip(run, run[1:])):
        noise = z[i] if eta else None
        wanted = published_2m(oracle, x, levels, i, D, noise)
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-11)
        assert np.abs(y - published_2m(oracle, x, levels, i, twin, noise)).max() > 1e-4


TO_THE_ENDS = [*PROCESSES.values(), ds.Chain.cosine(30)]


@pytest.mark.parametrize("process", TO_THE_ENDS, ids=str)
def test_1s_is_ddim_and_with_its_noise_ancestral(process: ds.Process) -> None:
    """From T, where alpha may be 0, to 0, where sigma is; on the same noise, seed 2."""
    oracle = ds.Oracle(MIXTURE, process)
    times = grids.uniform(process, 10)
    x = oracle.at(process.T).sample(50, 1)
    for (_, a), (_, b) in zip(dpm_1s(oracle, x, times), ddim(oracle, x, times), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)
    runs = [
        list(dpm_1s(oracle, x, times, 2, eta=1.0)),
        list(ddim(oracle, x, times, 2, eta=1.0)),
        list(ancestral(oracle, x, times, 2)),
    ]
    for states in zip(*runs, strict=True):
        for _, other in states[1:]:
            np.testing.assert_allclose(states[0][1], other, rtol=1e-11, atol=1e-11)
    twin = last(dpm_1s(oracle, x, times, 2, eta=0.95))
    assert np.abs(twin - runs[0][-1][1]).max() > 1e-4


# ---------------------------------------------------------------- data at one point: exact in law

M = 0.8
POINT = ds.GaussianMixture([1.0], [[M]], 0.0)


def assert_exact_law(method: str, process: ds.Process, times: Any, eta: float, probe: Any) -> None:
    """N(alpha m, sigma^2) at the start is N(alpha m, sigma^2) at the end."""
    first, end = (Level.of(process, t) for t in (times[0], times[-1]))
    oracle = ds.Oracle(POINT, process)
    run = lambda x, probe: last(ALL[method](oracle, x, times, probe, eta=eta))  # noqa: E731
    found = moments(run, first.alpha * M, first.sigma**2, probe)
    np.testing.assert_allclose(found, (end.alpha * M, end.sigma**2), rtol=1e-10, atol=1e-10)


@methods
@three
@etas
def test_a_point_keeps_its_law(method: str, process: str, eta: float) -> None:
    """Mean and variance to 1e-10, for every eta and from alpha = 0 too; noise 5 % off is seen."""
    path = PROCESSES[process]
    for times in (
        grids.log_snr(path, 5, end=0.1 * path.T),
        grids.uniform(path, 3, start=0.7 * path.T, end=0.1 * path.T),
        np.array([path.T, 0.2 * path.T]),
    ):
        assert_exact_law(method, path, times, eta, Probe())
        if eta:
            with pytest.raises(AssertionError):
                assert_exact_law(method, path, times, eta, Probe(1.05))
    assert_exact_law(method, path, grids.uniform(path, 4), eta, Probe())


# ---------------------------------------------------------------- orders of the third


def slopes(run: Callable[..., Any], numbers: tuple[int, ...] = (64, 128, 256)) -> np.ndarray:
    """Orders of the flow map between 0.7 and 0.1 of a mild VP, against the exact one."""
    process = ds.VP(0.1, 6.0)
    oracle = ds.Oracle(MIXTURE, process)
    x = oracle.at(0.7).quantile(np.array([0.1, 0.5, 0.9]))
    exact, errors = oracle.flow(x, 0.7, 0.1), []
    for n in numbers:
        times = grids.log_snr(process, n, start=0.7, end=0.1)
        errors.append(np.sqrt(np.mean((last(run(oracle, x, times)) - exact) ** 2)))
    return np.log2(np.array(errors[:-1]) / errors[1:])


def first_order_start(
    model: Any, x: Any, now: Any, between: Any, then: Any, eta: float, D: Any, draws: Any
) -> Any:
    return dpm._step(x, now, then, eta, (D,), draws)


def test_3m_is_of_order_3_and_as_published_of_order_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """The half weight and the 1S start each leave it at 2, as the docstring says."""
    np.testing.assert_allclose(slopes(dpm_3m), 3, atol=0.15)
    with monkeypatch.context() as patch:
        patch.setattr(dpm, "_taylor", half_weight)
        np.testing.assert_allclose(slopes(dpm_3m), 2, atol=0.15)
    with monkeypatch.context() as patch:
        patch.setattr(dpm, "_two_stages", first_order_start)
        np.testing.assert_allclose(slopes(dpm_3m), 2, atol=0.15)


@pytest.mark.parametrize("ratio", [0.2, 1.0])
def test_2s_is_of_order_2_for_any_ratio(ratio: float) -> None:
    np.testing.assert_allclose(slopes(partial(dpm_2s, ratio=ratio), (24, 48, 96)), 2, atol=0.15)


# ---------------------------------------------------------------- ends, chains, counts


def test_levels() -> None:
    level = Level.of(ds.VP(), 0.3)
    assert abs(level.log_ratio - math.log(level.alpha / level.sigma)) < 1e-14
    assert Level.of(ds.Cosine(), 1.0).log_ratio == -math.inf
    assert Level.of(ds.VP(), 0.0).log_ratio == math.inf


@methods
@three
@etas
def test_both_ends_of_time_are_allowed(method: str, process: str, eta: float) -> None:
    """Finite throughout; a step to sigma = 0 ends at the last x0 of the model."""
    path = PROCESSES[process]
    oracle = ds.Oracle(MIXTURE, path)
    times = grids.uniform(path, 8)
    run = list(ALL[method](oracle, oracle.at(path.T).sample(30, 3), times, 4, eta=eta))
    assert all(np.isfinite(x).all() for _, x in run)
    before = run[-2][1]
    np.testing.assert_allclose(run[-1][1], oracle.x0(before, times[-2]), rtol=0, atol=1e-12)
    assert np.abs(run[-1][1] - oracle.x0(before, times[-3])).max() > 1e-4


@methods
@etas
def test_chains_are_sampled_by_all(method: str, eta: float) -> None:
    """Neighbours leave no whole time between them: there 2S is 1S. Further apart it is not."""
    chain = ds.Chain.linear(12, 0.03, 0.5)
    oracle = ds.Oracle(MIXTURE, chain)
    x = oracle.at(12).sample(30, 5)
    every, some = grids.strided(chain, 12), grids.strided(chain, 4)
    end = last(ALL[method](oracle, x, every, 6, eta=eta))
    assert np.isfinite(end).all()
    if method == "2s":
        np.testing.assert_array_equal(end, last(dpm_1s(oracle, x, every, 6, eta=eta)))
        counted = ds.Counted(oracle)
        strides = last(dpm_2s(counted, x, some, 6, eta=eta))
        assert counted.calls == 7  # two a step, one in the step to 0
        assert np.abs(strides - last(dpm_1s(oracle, x, some, 6, eta=eta))).max() > 1e-2


@pytest.mark.parametrize(("method", "calls"), [("1s", 6), ("2s", 11), ("2m", 6), ("3m", 7)])
def test_evaluations_are_counted(method: str, calls: int) -> None:
    """Six steps from T to 0: one each; 2S two but for the last, 3M one more in its first step."""
    counted = ds.Counted(ds.Oracle(MIXTURE, ds.VP()))
    last(ALL[method](counted, np.zeros((2, 1)), grids.uniform(ds.VP(), 6)))
    assert counted.calls == calls


@methods
def test_library_and_dtype_are_kept(method: str) -> None:
    oracle = ds.Oracle(MIXTURE, ds.VP())
    x, times = oracle.at(1.0).sample(20, 7), grids.uniform(ds.VP(), 6)
    wanted = last(ALL[method](oracle, x, times, 8, eta=0.5))
    for value in (x.astype(np.float32), torch.from_numpy(x), torch.from_numpy(x).float()):
        for _, y in ALL[method](oracle, value, times, 8, eta=0.5):
            assert type(y) is type(value) and y.dtype == value.dtype and y.shape == (20, 1)
        np.testing.assert_allclose(np.asarray(y), wanted, rtol=1e-4, atol=1e-5)


@methods
def test_bad_arguments_are_refused(method: str) -> None:
    oracle, x, run = ds.Oracle(MIXTURE, ds.VP()), np.zeros((2, 1)), ALL[method]
    for eta in (-0.1, math.nan, "1"):
        with pytest.raises(ArgumentError, match="eta must be a number of at least 0"):
            next(run(oracle, x, [1.0, 0.5], 0, eta=eta))
    with pytest.raises(ArgumentError, match="generator must be given where eta > 0"):
        next(run(oracle, x, [1.0, 0.5], eta=0.5))
    with pytest.raises(ArgumentError, match="times must be two or more decreasing"):
        next(run(oracle, x, [0.5, 1.0]))
    if method == "2s":
        for ratio in (0.0, 1.1, -0.5, math.nan):
            with pytest.raises(ArgumentError, match=r"ratio must lie in \(0, 1\]"):
                next(dpm_2s(oracle, x, [1.0, 0.5], ratio=ratio))
