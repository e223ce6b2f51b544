"""Samplers against what Gaussian data make of them: every step is affine, so every law is known.

    E[x0 | x_t] = m + a c/(a^2 c + v) (x_t - a m)      for x0 ~ N(m, c)

First the same noise by hand, to 1e-12; then the laws, in closed form by a recursion of mean and
variance, with |z| < 4.9 (1e-6 two-sided) and stated seeds; then one mixture by Kolmogorov-Smirnov.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, grids, samplers, solvers, states, testing
from diffscience.errors import ArgumentError
from diffscience.grids import strided
from diffscience.models import Oracle
from diffscience.network import PREDICTIONS
from diffscience.noise import Sequential, Stored
from diffscience.prior import PriorWarning, compare
from diffscience.samplers import (
    ALL,
    ancestral,
    ddim,
    edm,
    euler_maruyama,
    exponential,
    forward,
    heun,
    last,
    predictor_corrector,
    prior,
)

M, C = 0.8, 0.49  # mean and variance of the data
LAW = ds.GaussianMixture([1.0], [[M]], [[[C]]])
CHAIN = ds.Chain.linear(12, 0.03, 0.5)
ABAR = np.array([1.0, *np.cumprod(1 - CHAIN.betas)])
EVERY = np.arange(12, -1, -1.0)
SOME = np.array([12.0, 9, 8, 4, 1, 0])
LIMIT = 4.9
N = 40_000

both_grids = pytest.mark.parametrize("grid", [EVERY, SOME], ids=["every", "strided"])
mixes = pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
etas = pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])

Step = tuple[float, float, float]  # gain, shift and variance: x_s = gain x_t + shift + sqrt(var) z


def posterior(a: float, v: float) -> tuple[float, float]:
    """Slope and intercept of E[x0 | x_t]."""
    slope = a * C / (a * a * C + v)
    return slope, (1 - slope * a) * M


def ancestral_step(t: float, s: float, mix: float) -> Step:
    """Ho et al. 2020, eq. 7, with alpha_k = abar_t/abar_s for a strided chain."""
    bar_t, bar_s = ABAR[int(t)], ABAR[int(s)]
    alpha = bar_t / bar_s
    beta = 1 - alpha
    slope, shift = posterior(math.sqrt(bar_t), 1 - bar_t)
    on_x0 = math.sqrt(bar_s) * beta / (1 - bar_t)
    on_x = math.sqrt(alpha) * (1 - bar_s) / (1 - bar_t)
    small = beta * (1 - bar_s) / (1 - bar_t)
    var = 0.0 if s == 0 else math.exp(mix * math.log(beta) + (1 - mix) * math.log(small))
    return on_x + on_x0 * slope, on_x0 * shift, var


def ddim_step(t: float, s: float, eta: float) -> Step:
    """Song, Meng and Ermon 2021, eqs. 12 and 16 (their alpha is abar)."""
    bar_t, bar_s = ABAR[int(t)], ABAR[int(s)]
    slope, shift = posterior(math.sqrt(bar_t), 1 - bar_t)
    sigma = eta * math.sqrt((1 - bar_s) / (1 - bar_t)) * math.sqrt(1 - bar_t / bar_s)
    towards = math.sqrt(max(1 - bar_s - sigma**2, 0.0)) / math.sqrt(1 - bar_t)
    on_x0 = math.sqrt(bar_s) - towards * math.sqrt(bar_t)
    return towards + on_x0 * slope, on_x0 * shift, sigma**2


def oracle(process: ds.Process = CHAIN) -> Oracle:
    return Oracle(LAW, process)


def start(n: int = N, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 1))


# ---------------------------------------------------------------- the same noise by hand


@both_grids
@mixes
def test_ancestral_step_by_step(grid: np.ndarray, mix: float) -> None:
    again = np.random.default_rng(2)
    x = start(50)
    states = list(ancestral(oracle(), x, grid, np.random.default_rng(2), mix=mix))
    assert [t for t, _ in states] == grid.tolist()
    assert states[0][1] is x
    for (t, x), (s, y) in zip(states[:-1], states[1:]):
        gain, shift, var = ancestral_step(t, s, mix)
        z = again.standard_normal((50, 1)) if s > 0 else 0.0
        np.testing.assert_allclose(y, gain * x + shift + math.sqrt(var) * z, rtol=0, atol=1e-12)
        if s > 0:  # the wrong twins: sigma = var, and a mix 5 % off
            assert np.abs(gain * x + shift + var * z - y).max() > 1e-2
            off = ancestral_step(t, s, mix + 0.05)[2]
            assert np.abs(gain * x + shift + math.sqrt(off) * z - y).max() > 1e-6


@both_grids
@etas
def test_ddim_step_by_step(grid: np.ndarray, eta: float) -> None:
    again = np.random.default_rng(2)
    states = list(ddim(oracle(), start(50), grid, np.random.default_rng(2), eta=eta))
    assert [t for t, _ in states] == grid.tolist()
    for (t, x), (s, y) in zip(states[:-1], states[1:]):
        gain, shift, var = ddim_step(t, s, eta)
        z = again.standard_normal((50, 1)) if s > 0 and eta > 0 else 0.0
        np.testing.assert_allclose(y, gain * x + shift + math.sqrt(var) * z, rtol=0, atol=1e-12)
        if s > 0:
            wrong = ddim_step(t, s, abs(eta - 0.05))
            assert abs(wrong[0] - gain) > 1e-6


@both_grids
def test_ddim_without_noise_is_one_map(grid: np.ndarray) -> None:
    """eta = 0: the end is the product of the gains; a generator is left alone."""
    x, gain, shift = start(50), 1.0, 0.0
    for t, s in zip(grid[:-1], grid[1:]):
        g, h, var = ddim_step(t, s, 0.0)
        assert var == 0.0
        gain, shift = g * gain, g * shift + h
    end = last(ddim(oracle(), x, grid))
    np.testing.assert_allclose(end, gain * x + shift, rtol=0, atol=1e-12)
    random = np.random.default_rng(5)
    np.testing.assert_array_equal(end, last(ddim(oracle(), x, grid, random)))
    assert random.random() == np.random.default_rng(5).random()


@pytest.mark.parametrize("process", [CHAIN, ds.VP(), ds.VE(), ds.RectifiedFlow(), ds.Cosine()])
def test_ddim_with_all_its_noise_is_ancestral_with_the_least(process: ds.Process) -> None:
    grid = EVERY if process is CHAIN else np.linspace(1.0, 0.0, 13)
    x = prior(process, 60, 1, 3)
    one = list(ddim(oracle(process), x, grid, 4, eta=1.0))
    other = list(ancestral(oracle(process), x, grid, 4, mix=0.0))
    for (t, a), (s, b) in zip(one, other, strict=True):
        assert t == s
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    twin = last(ancestral(oracle(process), x, grid, 4, mix=0.05))
    assert np.abs(twin - other[-1][1]).max() > 1e-4
    assert np.abs(last(ddim(oracle(process), x, grid, 4, eta=0.95)) - one[-1][1]).max() > 1e-4


def test_mix_0_and_1_differ_by_their_noise_alone() -> None:
    """From one state, on one noise: y_1 - y_0 = (sqrt beta - sqrt btilde) z."""
    x, grid = start(50), [12.0, 11.0]
    z = np.random.default_rng(6).standard_normal((50, 1))
    low, high = (last(ancestral(oracle(), x, grid, 6, mix=mix)) for mix in (0.0, 1.0))
    beta = CHAIN.betas[-1]
    small = beta * (1 - ABAR[11]) / (1 - ABAR[12])
    np.testing.assert_allclose(
        high - low, (math.sqrt(beta) - math.sqrt(small)) * z, rtol=0, atol=1e-13
    )


def test_a_strided_chain_is_the_chain_of_its_strides() -> None:
    """The grid 12, 9, 8, 4, 1, 0 of one chain = every step of the chain with those betas."""
    tau = SOME[::-1].astype(int)
    short = ds.Chain(1 - ABAR[tau[1:]] / ABAR[tau[:-1]])
    assert short.K == 5
    runs: list[Callable[..., Any]] = [
        lambda model, grid: ancestral(model, start(40), grid, 7, mix=0.3),
        lambda model, grid: ddim(model, start(40), grid, 7, eta=0.5),
    ]
    for run in runs:
        whole, part = run(oracle(), SOME), run(oracle(short), np.arange(5, -1, -1.0))
        for (_, a), (_, b) in zip(whole, part, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 7, 11, 12])
def test_strided(steps: int) -> None:
    grid = strided(CHAIN, steps)
    assert grid[0] == 12 and grid[-1] == 0 and len(grid) == steps + 1
    gaps = -np.diff(grid)
    assert np.all(gaps == np.round(gaps))
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1


def test_every_long_stride_is_even() -> None:
    for K in (50, 97):
        chain = ds.Chain.linear(K)
        for steps in range(1, K + 1):
            gaps = -np.diff(strided(chain, steps))
            assert gaps.sum() == K and gaps.min() >= 1 and gaps.max() <= math.ceil(K / steps) + 1


# ---------------------------------------------------------------- laws in closed form


def law_of(steps: list[Step], mean: float, var: float) -> tuple[float, float]:
    for gain, shift, noise in steps:
        mean, var = gain * mean + shift, gain * gain * var + noise
    return mean, var


def z_scores(x: Any, mean: float, var: float) -> tuple[float, float]:
    """Of the mean and the variance of Gaussian points."""
    n = len(x)
    return (x.mean() - mean) / math.sqrt(var / n), (x.var() / var - 1) / math.sqrt(2 / n)


def meets(x: Any, mean: float, var: float) -> bool:
    return max(map(abs, z_scores(x, mean, var))) < LIMIT


@both_grids
@mixes
def test_the_law_of_ancestral(grid: np.ndarray, mix: float) -> None:
    """Seeds 1 and 8: the law at every time of the run; 8 % more variance is seen."""
    steps: list[Step] = []
    for (t, _), (s, x) in zip(
        ancestral(oracle(), start(), grid, 8, mix=mix),
        list(ancestral(oracle(), start(), grid, 8, mix=mix))[1:],
    ):
        steps.append(ancestral_step(t, s, mix))
        mean, var = law_of(steps, 0.0, 1.0)
        assert meets(x, mean, var), s
        assert not meets(x, mean, 1.08 * var)
        assert not meets(x, mean + 0.05, var)
    if grid is EVERY:  # and the law of another mix is another law
        wrong = [ancestral_step(t, s, abs(mix - 0.5)) for t, s in zip(grid[:-1], grid[1:])]
        assert not meets(x, *law_of(wrong, 0.0, 1.0))


@both_grids
@etas
def test_the_law_of_ddim(grid: np.ndarray, eta: float) -> None:
    steps = [ddim_step(t, s, eta) for t, s in zip(grid[:-1], grid[1:])]
    x = last(ddim(oracle(), start(), grid, 9, eta=eta))
    mean, var = law_of(steps, 0.0, 1.0)
    assert meets(x, mean, var)
    assert not meets(x, mean, 1.08 * var)


def test_the_exact_start_comes_back_to_the_data_where_it_must() -> None:
    """Data N(0, 1): mix = 1 keeps N(0, 1) at every step but the last, whose noise is left out."""
    normal = Oracle(ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]]), CHAIN)
    for t, x in ancestral(normal, start(), EVERY, 10, mix=1.0):
        assert meets(x, 0.0, 1.0 if t > 0 else 1 - CHAIN.betas[0])
    for t, x in ancestral(normal, start(), EVERY, 10, mix=0.0):
        assert t > 6 or not meets(x, 0.0, 1.0)
    for _, x in ddim(normal, start(), EVERY):
        assert x.var() <= start().var() + 1e-12


def test_two_dimensions_are_two_of_one() -> None:
    """A diagonal Gaussian in 2-D on the noise of its columns."""
    law = ds.GaussianMixture([1.0], [[M, M]], [np.diag([C, C])])
    x = np.random.default_rng(1).standard_normal((30, 2))
    z = np.random.default_rng(11)
    for t, y in ancestral(Oracle(law, CHAIN), x, EVERY, 11, mix=0.7):
        if t == 12:
            continue
        gain, shift, var = ancestral_step(t + 1, t, 0.7)
        noise = z.standard_normal((30, 2)) if t > 0 else 0.0
        x = gain * x + shift + math.sqrt(var) * noise
        np.testing.assert_allclose(y, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [CHAIN, ds.VP(), ds.VE(), ds.RectifiedFlow(), ds.EDM(10.0)])
def test_the_law_of_forward(process: ds.Process) -> None:
    """Seed 12: N(alpha m, alpha^2 c + var) at each time, also where the path starts late."""
    grid = np.array([0.0, 0.25, 0.5, 1.0]) * process.T
    x0 = LAW.sample(N, 13)
    for times in (grid, grid[1:]):
        states = list(forward(process, x0, times, 12))
        assert [t for t, _ in states] == times.tolist()
        for t, x in states:
            a, v = process.alpha(t), process.var(t)
            assert meets(x, a * M, a * a * C + v), t
            assert not meets(x, a * M, 1.08 * (a * a * C + v))
            if t > 0:  # a path, not fresh noise at each time
                slope = np.cov(x[:, 0], x0[:, 0])[0, 1] / C
                assert abs(slope - a) < LIMIT * math.sqrt((a * a + v / C) * 2 / N)
    (_, early), (_, late) = list(forward(process, x0, grid[1:3], 14))
    step = process.between(grid[1], grid[2])
    assert meets(late - step.scale * early, 0.0, step.var)
    assert not meets(late - 0.5 * step.scale * early, 0.0, step.var)
    assert next(iter(forward(process, x0, grid, 12)))[1] is x0


@pytest.mark.parametrize("process", [CHAIN, ds.VE(), ds.EDM(10.0)])
def test_the_prior(process: ds.Process) -> None:
    x = prior(process, N, 1, 15)
    assert x.dtype == np.float64
    assert meets(x, 0.0, process.var(process.T))
    assert not meets(x, 0.0, 1.08 * process.var(process.T))
    tensor = prior(process, 5, 2, torch.Generator().manual_seed(0))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.shape == (5, 2)


# ---------------------------------------------------------------- a mixture, many steps

BIMODAL = gallery.julia_bimodal()
LONG = ds.Chain.of(ds.VP(), np.linspace(0, 1, 201))


class Stretched(Oracle):
    """The wrong twin: a score 1.2 times too large; x0 and eps follow it."""

    def eps(self, x: Any, t: Any) -> Any:
        return 1.2 * super().eps(x, t)

    def x0(self, x: Any, t: Any) -> Any:
        step = self.process.at(t)
        return (x - math.sqrt(step.var) * self.eps(x, t)) / step.scale


def ks(x: np.ndarray) -> float:
    """The Kolmogorov distance to the truth, over its limit for a false alarm of 1e-6."""
    u = np.sort(BIMODAL.cdf(x))
    n = len(u)
    gap = max((np.arange(1, n + 1) / n - u).max(), (u - np.arange(n) / n).max())
    return float(gap / math.sqrt(math.log(2 / 1e-6) / (2 * n)))


@pytest.mark.parametrize(
    "run",
    [
        lambda model, x, grid: ancestral(model, x, grid, 17),
        lambda model, x, grid: ancestral(model, x, grid, 17, mix=1.0),
        lambda model, x, grid: ddim(model, x, grid),
        lambda model, x, grid: ddim(model, x, grid, 17, eta=0.5),
    ],
    ids=["btilde", "beta", "ddim", "eta 0.5"],
)
def test_the_exact_model_reaches_the_truth_and_a_wrong_one_does_not(run: Any) -> None:
    """Seeds 16 and 17, 200 steps, 5000 points."""
    x, grid = prior(LONG, 5000, 1, 16), strided(LONG, 200)
    assert ks(last(run(Oracle(BIMODAL, LONG), x, grid))) < 1
    assert ks(last(run(Stretched(BIMODAL, LONG), x, grid))) > 1


def test_noise_of_the_wrong_size_does_not_reach_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """sigma = beta for sqrt(beta), and sigma^2 = 2 beta."""
    x, grid, true_noise = prior(LONG, 5000, 1, 16), strided(LONG, 200), states.noise
    roots = iter(np.sqrt(LONG.betas[:0:-1]))
    monkeypatch.setattr(states, "noise", lambda *a: next(roots) * true_noise(*a))
    assert ks(last(ancestral(Oracle(BIMODAL, LONG), x, grid, 17, mix=1.0))) > 1
    assert next(roots, None) is None
    monkeypatch.setattr(states, "noise", lambda *a: math.sqrt(2) * true_noise(*a))
    assert ks(last(ancestral(Oracle(BIMODAL, LONG), x, grid, 17, mix=1.0))) > 1


# ---------------------------------------------------------------- clip


def test_clip_bounds_the_guess_of_x0() -> None:
    x, grid = 5 * start(50), [12.0, 3.0]
    a, v = math.sqrt(ABAR[12]), 1 - ABAR[12]
    b, w = math.sqrt(ABAR[3]), 1 - ABAR[3]
    slope, shift = posterior(a, v)
    guess = np.clip(slope * x + shift, -0.5, 0.5)
    assert 0 < np.mean(np.abs(guess) < 0.5) < 1
    # eps follows the clipped x0.
    wanted = b * guess + math.sqrt(w) * (x - a * guess) / math.sqrt(v)
    found = last(ddim(oracle(), x, grid, clip=0.5))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
    one = last(ancestral(oracle(), x, grid, 3, clip=0.5))
    other = last(ddim(oracle(), x, grid, 3, eta=1.0, clip=0.5))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
    wide = last(ddim(oracle(), x, grid, clip=1e3))
    np.testing.assert_allclose(wide, last(ddim(oracle(), x, grid)), rtol=0, atol=1e-12)
    assert np.abs(last(ancestral(oracle(), x, EVERY, 3, clip=0.5))).max() <= 0.5
    tensor = last(ddim(oracle(), torch.from_numpy(x), grid, clip=0.5))
    np.testing.assert_allclose(tensor.numpy(), wanted, rtol=0, atol=1e-12)


# ---------------------------------------------------------------- libraries


@pytest.mark.parametrize("run", [ancestral, lambda *a: ddim(*a, eta=0.5)], ids=["anc", "ddim"])
def test_library_and_dtype_are_kept(run: Any) -> None:
    x = start(20)
    wanted = last(run(oracle(), x, EVERY, 3))
    for value in (x.astype(np.float32), torch.from_numpy(x), torch.from_numpy(x).float()):
        for _, y in run(oracle(), value, EVERY, 3):
            assert type(y) is type(value)
            assert y.dtype == value.dtype
            assert y.shape == (20, 1)
        np.testing.assert_allclose(np.asarray(y), wanted, rtol=1e-5, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    y = last(run(oracle(), torch.from_numpy(x), EVERY, generator))
    assert isinstance(y, torch.Tensor)
    same = last(run(oracle(), torch.from_numpy(x), EVERY, torch.Generator().manual_seed(0)))
    assert torch.equal(y, same)
    assert not torch.equal(y, last(run(oracle(), torch.from_numpy(x), EVERY, generator)))


def test_a_network_is_sampled_without_a_graph() -> None:
    net = ds.nets.MLP(1, widths=(4,))
    model = ds.Network(net, CHAIN, "eps")
    states = list(ancestral(model, torch.zeros(3, 1), EVERY, 0))
    assert not any(x.requires_grad for _, x in states)
    x = torch.zeros(3, 1, requires_grad=True)
    end = last(ddim(model, x, EVERY))
    assert torch.autograd.grad(end.sum(), x)[0].abs().min() > 0
    assert last(ancestral(model, np.zeros((3, 1), np.float32), EVERY, 0)).dtype == np.float32


def test_forward_keeps_library_and_dtype() -> None:
    x0 = torch.zeros(4, 2)
    for _, x in forward(CHAIN, x0, [0, 5, 12], torch.Generator().manual_seed(0)):
        assert isinstance(x, torch.Tensor)
        assert x.dtype == torch.float32
    for _, x in forward(CHAIN, np.zeros((4, 2), np.float32), [3, 5], 0):
        assert x.dtype == np.float32


def test_the_global_generators_are_left_alone() -> None:
    before, state = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    last(ancestral(oracle(), torch.zeros(3, 1), EVERY, torch.Generator().manual_seed(0)))
    last(ddim(oracle(), start(3), EVERY))
    last(forward(CHAIN, start(3), [0, 5], 0))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == state  # noqa: NPY002


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "grid",
    [
        [], [12.0], [0.0, 12.0], [12.0, 5.0, 5.0, 0.0], [12.0, float("nan")], [13.0, 0.0],
        [12.0, -1.0], [12.0, 2.5, 0.0], [[12.0, 0.0]], ["a", "b"],
    ],
)  # fmt: skip
def test_bad_times_are_refused(grid: Any) -> None:
    for run in (ancestral(oracle(), start(3), grid, 0), ddim(oracle(), start(3), grid)):
        with pytest.raises(ArgumentError, match="times"):
            next(run)


@pytest.mark.parametrize("grid", [[5.0, 0.0], [0.0], [0.0, 13.0], [0.0, 0.5], [1.0, 1.0]])
def test_bad_times_of_forward_are_refused(grid: Any) -> None:
    with pytest.raises(ArgumentError, match="times"):
        next(forward(CHAIN, start(3), grid, 0))


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_bad_mix_and_eta_are_refused(value: float) -> None:
    with pytest.raises(ArgumentError, match="mix must lie"):
        next(ancestral(oracle(), start(3), EVERY, 0, mix=value))
    with pytest.raises(ArgumentError, match="eta must lie"):
        next(ddim(oracle(), start(3), EVERY, 0, eta=value))


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_a_bad_clip_is_refused(value: float) -> None:
    with pytest.raises(ArgumentError, match="clip must be"):
        last(ancestral(oracle(), start(3), EVERY, 0, clip=value))
    with pytest.raises(ArgumentError, match="clip must be"):
        last(ddim(oracle(), start(3), EVERY, clip=value))


def test_bad_generators_are_refused() -> None:
    with pytest.raises(ArgumentError, match="generator must be given where eta > 0"):
        next(ddim(oracle(), start(3), EVERY, eta=0.5))
    for bad in (None, True, 1.5, "seed", np.random):
        with pytest.raises(ArgumentError, match="generator"):
            next(ancestral(oracle(), start(3), EVERY, bad))
        with pytest.raises(ArgumentError, match="generator"):
            next(forward(CHAIN, start(3), [0, 1], bad))
    with pytest.raises(ArgumentError, match="NumPy generator for NumPy points"):
        last(ancestral(oracle(), start(3), EVERY, torch.Generator()))


@pytest.mark.parametrize("steps", [0, 13, 2.0, True, -1])
def test_bad_strides_are_refused(steps: Any) -> None:
    with pytest.raises(ArgumentError, match="steps must be a whole number from 1 to 12"):
        strided(CHAIN, steps)


# ---------------------------------------------------------------- the drift that samplers ask for


DRIFTS: dict[str, ds.Process] = {
    "VP": ds.VP(),
    "SubVP": ds.SubVP(),
    "Cosine": ds.Cosine(),
    "VE": ds.VE(),
    "VEGeometric": ds.VEGeometric(),
    "EDM": ds.EDM(),
    "RectifiedFlow": ds.RectifiedFlow(),
}
# Mixtures under every process, other kinds of law under one.
WHERE = [(law, process) for law in ("julia_bimodal", "skewed_pair") for process in DRIFTS]
WHERE += [("rings", "EDM"), ("two_moons", "VP"), ("checkerboard", "RectifiedFlow")]
drifts = pytest.mark.parametrize("process", DRIFTS)
any_eta = pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])


def assert_drift(model: ds.Model, x: Any, t: Any, eta: float, tolerance: float = 1e-11) -> None:
    """drift = alpha' x0 - ((sigma^2)' + eta^2 g^2)/2 score = velocity - eta^2 g^2/2 score."""
    process = model.process
    slope, growth, g = (
        np.asarray(a)[..., None]
        for a in (process.dalpha(t), 0.5 * process.dvar(t), process.diffusion(t))
    )
    score, x0 = model.score(x, t), model.x0(x, t)
    found, pull = model.drift(x, t, eta), (growth + 0.5 * (eta * g) ** 2) * score
    size = np.abs(slope * x0) + np.abs(pull) + np.abs(growth * score)
    assert np.all(np.abs(found - (slope * x0 - pull)) <= tolerance * size)
    assert np.all(
        np.abs(found - (model.velocity(x, t) - pull + growth * score)) <= tolerance * size
    )


@pytest.mark.parametrize(("law", "process"), WHERE)
def test_the_drift_is_that_of_the_reverse_sde(law: str, process: str) -> None:
    """By the oracle, at one time and at a time for each row; eta for eta^2 is seen."""
    oracle = Oracle(gallery.ALL[law](), DRIFTS[process])
    x, rows = testing.states(oracle.law, oracle.process, n=3)
    for eta in (0.0, 0.5, 1.5):
        assert_drift(oracle, x, rows, eta)
        for t in np.unique(rows):
            here = x[rows == t]
            assert_drift(oracle, here, float(t), eta)
            by_row = oracle.drift(here, np.full(len(here), t), eta)
            one = oracle.drift(here, float(t), eta)
            np.testing.assert_allclose(one, by_row, rtol=1e-9, atol=1e-9 * np.abs(one).max())
    twin = copy.copy(oracle)
    setattr(twin, "drift", lambda x, t, eta: oracle.drift(x, t, math.sqrt(eta)))  # noqa: B010
    with pytest.raises(AssertionError):
        assert_drift(twin, x, rows, 0.5)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@drifts
def test_the_drift_of_a_network(predicts: str, process: str) -> None:
    """Whatever it predicts; and with one evaluation of the net."""
    path, calls = DRIFTS[process], []
    net = ds.nets.MLP(2, widths=(8,), seed=1)
    net.register_forward_hook(lambda *_: calls.append(1))
    model = ds.Network(net.double(), path, predicts)
    x, rows = testing.states(gallery.two_moons(), path, testing.times(path, (0.1, 0.5, 0.9)), n=3)
    for eta in (0.0, 0.5, 1.5):
        assert_drift(model, x, rows, eta, 1e-9)
        assert_drift(model, x[:3], float(rows[0]), eta, 1e-9)
        calls.clear()
        model.drift(x, rows, eta)
        assert len(calls) == 1


@drifts
@any_eta
def test_the_drift_in_float32(process: str, eta: float) -> None:
    """Within 3e-6 of float64's at both ends of time; by a score that follows from x0 it is not."""
    path = DRIFTS[process]
    oracle = Oracle(gallery.skewed_pair(), path)
    worst = 0.0
    for share in (1e-8, 1e-5, 1e-3, 0.3, 0.9, 0.9999):
        t = share * path.T
        x = oracle.at(t).sample(50, 3).astype(np.float32)
        wanted = oracle.drift(x.astype(np.float64), t, eta)
        found = oracle.drift(x, t, eta)
        assert found.dtype == np.float32
        size = np.abs(wanted) + np.abs(wanted).mean()
        assert np.all(np.abs(found - wanted) <= 3e-6 * size)
        slope, growth = path.dalpha(t), 0.5 * (path.dvar(t) + (eta * path.diffusion(t)) ** 2)
        a, v = np.float32(path.alpha(t)), np.float32(path.var(t))
        x0 = oracle.x0(x, t)
        twin = slope * x0 - growth * ((a * x0 - x) / v)
        worst = max(worst, float((np.abs(twin - wanted) / size).max()))
    assert worst > 1e-3


def test_a_drift_is_counted_once() -> None:
    counted = ds.Counted(oracle(ds.VP()))
    for eta in (0.0, 1.0):
        counted.drift(start(7), 0.5, eta)
    assert (counted.calls, counted.points) == (2, 14)
    counted.velocity(start(3), 0.5)
    assert (counted.calls, counted.points) == (3, 17)
    np.testing.assert_array_equal(
        counted.drift(start(3), 0.5, 0.7), oracle(ds.VP()).drift(start(3), 0.5, 0.7)
    )


class Plain(Oracle):
    """An oracle whose drift is that of any model: a velocity and a score."""

    drift = ds.Model.drift

    def velocity(self, x: Any, t: Any) -> Any:
        return Oracle.drift(self, x, t, 0.0)


@drifts
@any_eta
def test_the_drift_of_any_model(process: str, eta: float) -> None:
    plain = Plain(BIMODAL, DRIFTS[process])
    x, rows = testing.states(BIMODAL, plain.process, n=3)
    assert_drift(plain, x, rows, eta)
    assert plain.drift(x.astype(np.float32), rows, eta).dtype == np.float32


# ---------------------------------------------------------------- a mixture in one tanh


class Pair(ds.Model):
    """w N(m - d, c) + (1 - w) N(m + d, c): with V = a^2 c + sigma^2 and M the mean of the modes,

    M = m + d tanh(d a (x - a m)/V + log((1 - w)/w)/2)
    score = (a M - x)/V,  x0 = M + a c (x - a M)/V

    bend : factor on the score; the wrong twin has another one than 1.
    """

    def __init__(
        self, process: ds.Process, w: float, m: float, d: float, c: float, bend: float = 1.0
    ) -> None:
        self.process, self.m, self.d, self.c, self.bend = process, m, d, c, bend
        self.tilt = 0.5 * math.log((1 - w) / w)
        self.law = ds.GaussianMixture([w, 1 - w], [[m - d], [m + d]], [[[c]], [[c]]])

    def both(self, x: Any, t: Any) -> tuple[Any, Any]:
        """Score and x0."""
        a, v = self.process.alpha(t), self.process.var(t)
        V, tanh = a * a * self.c + v, torch.tanh if isinstance(x, torch.Tensor) else np.tanh
        M = self.m + self.d * tanh(self.d * a / V * (x - a * self.m) + self.tilt)
        if self.bend == 1:
            return (a * M - x) / V, M + a * self.c / V * (x - a * M)
        score = self.bend * (a * M - x) / V
        return score, (x + v * score) / a

    def score(self, x: Any, t: Any) -> Any:
        return self.both(x, t)[0]

    def x0(self, x: Any, t: Any) -> Any:
        return self.both(x, t)[1]

    def velocity(self, x: Any, t: Any) -> Any:
        return self.drift(x, t, 0.0)

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        score, x0 = self.both(x, t)
        growth = 0.5 * self.process.dvar(t)
        if eta:
            growth = growth + 0.5 * (eta * self.process.diffusion(t)) ** 2
        return self.process.dalpha(t) * x0 - growth * score


def remembering(process: ds.Process) -> ds.Process:
    """The process, which keeps its answers at numbers: many samplers run on few grids."""
    for name in ("alpha", "var", "dalpha", "dvar", "diffusion", "log_snr", "between"):
        object.__setattr__(process, name, functools.cache(getattr(process, name)))
    return process


QUICK = {"VP": remembering(ds.VP(0.1, 6.0)), "EDM": remembering(ds.EDM(5.0))}
BETWEEN = {"VP": (0.8, 0.1), "EDM": (5.0, 0.5)}  # times where orders show
quick = pytest.mark.parametrize("process", QUICK)
FLOWS = {name: s for name, s in ALL.items() if not s.random}
RANDOM = {name: s for name, s in ALL.items() if s.random}
STRONG = {name: s for name, s in RANDOM.items() if s.strong is not None}


def even(process: str, n: int) -> np.ndarray:
    """n steps even in the log-SNR."""
    begin, end = BETWEEN[process]
    return grids.log_snr(QUICK[process], n, start=begin, end=end)


@pytest.mark.parametrize("path", [ds.VP(), ds.EDM(), ds.RectifiedFlow(), ds.SubVP()], ids=str)
def test_the_pair_is_the_oracle(path: ds.Process) -> None:
    pair = Pair(path, 0.1, 0.0, 3.0, 1.0)
    exact, bent = Oracle(pair.law, path), Pair(path, 0.1, 0.0, 3.0, 1.0, bend=1.02)
    x = np.linspace(-5, 5, 21)[:, None]
    for share in (0.01, 0.3, 0.9):
        t = share * path.T
        answers: list[Callable[[Any], Any]] = [
            lambda model: model.score(x, t),  # noqa: B023
            lambda model: model.x0(x, t),  # noqa: B023
            lambda model: model.velocity(x, t),  # noqa: B023
            lambda model: model.drift(x, t, 1.3),  # noqa: B023
        ]
        for answer in answers:
            wanted = answer(exact)
            np.testing.assert_allclose(answer(pair), wanted, rtol=1e-10, atol=1e-11)
            assert np.abs(answer(bent) - wanted).max() > 1e-8 * np.abs(wanted).max()


# ---------------------------------------------------------------- orders


def order(errors: Any) -> float:
    """The slope between the last two numbers of steps, one twice the other."""
    return float(math.log2(errors[-2] / errors[-1]))


def is_of_order(errors: Any, wanted: float | None, within: float = 0.15) -> None:
    assert wanted is not None
    assert abs(order(errors) - wanted) < within, errors


def flow_errors(name: str, process: str) -> list[float]:
    """Root mean square errors of the flow map, known exactly, at 96 and 192 steps."""
    path, (begin, end) = QUICK[process], BETWEEN[process]
    pair = Pair(path, 0.3, 0.25, 1.25, 0.2)
    exact = Oracle(pair.law, path)
    x = exact.at(begin).quantile(np.linspace(0.05, 0.95, 7))
    wanted = exact.flow(x, begin, end)
    ends = (last(FLOWS[name].run(pair, x, even(process, n))) for n in (96, 192))
    return [float(np.sqrt(np.mean((y - wanted) ** 2))) for y in ends]


@quick
@pytest.mark.parametrize("name", FLOWS)
def test_order_of_the_flow(name: str, process: str) -> None:
    errors = flow_errors(name, process)
    is_of_order(errors, FLOWS[name].weak)
    for wrong in (FLOWS[name].weak - 1, FLOWS[name].weak + 1):  # type: ignore[operator]
        with pytest.raises(AssertionError):
            is_of_order(errors, wrong)


@functools.cache
def shared_path(process: str) -> tuple[Pair, np.ndarray, Any, Any]:
    """Seeds 21 and 22, 400 paths on 512 steps: model, start, path, and the end by SRK on all."""
    pair = Pair(QUICK[process], 0.5, 0.0, 1.0, 0.5)
    fine = even(process, 512)
    x = Oracle(pair.law, pair.process).at(fine[0]).sample(400, 21)
    path = Stored.drawn(22, 400, 1, fine)
    return pair, x, path, solvers.reverse(pair, x, fine, path.on(fine), method="srk").last


def strong_errors(name: str, process: str, path: Stored | None = None) -> list[float]:
    """Root mean square errors on the shared path at 128 and 256 steps; or on another path."""
    pair, x, shared, wanted = shared_path(process)
    path, errors = path or shared, []
    for stride in (4, 2):
        times = path.times[::stride]
        # 2S reads the two parts of a step one by one: the grid is even, so is its middle.
        source = path.on(path.times[:: stride // 2] if name == "dpm_2s_sde" else times)
        y = last(RANDOM[name].run(pair, x, times, source))
        errors.append(float(np.sqrt(np.mean((y - wanted) ** 2))))
    return errors


@quick
@pytest.mark.parametrize("name", STRONG)
def test_strong_order(name: str, process: str) -> None:
    """On one path for all step sizes, within 0.2: 2M and 3M fall faster at first."""
    errors = strong_errors(name, process)
    is_of_order(errors, STRONG[name].strong, 0.2)
    assert errors[-1] < 0.02


def test_without_the_shared_path_nothing_converges() -> None:
    other = Stored.drawn(23, 400, 1, even("VP", 512))
    for name in ("euler_maruyama", "dpm_2m_sde"):
        errors = strong_errors(name, "VP", other)
        with pytest.raises(AssertionError):
            is_of_order(errors, 1, 0.5)
        assert errors[-1] > 0.2


class Units:
    """Noise whose j-th number is 1 in row 2 + j and 0 elsewhere."""

    area = None

    def __init__(self, factor: float = 1.0) -> None:
        self.drawn, self.factor = 0, factor

    def normal(self, *shape: int) -> np.ndarray:
        z = np.zeros(shape)
        z[2 + self.drawn] = self.factor
        self.drawn += 1
        return z


def end_law(
    run: Callable[..., Any], draws: int, mean: float, var: float, units: Units | None = None
) -> tuple[float, float]:
    """Mean and variance, exactly, at the end of a run that is affine in its start and its noise."""
    x = np.zeros((2 + draws, 1))
    x[1] = 1.0
    y = np.asarray(run(x, units or Units()))[:, 0]
    gains = y[1:] - y[0]
    return float(y[0] + gains[0] * mean), float(gains[0] ** 2 * var + np.sum(gains[1:] ** 2))


def weak_errors(name: str, process: str, factor: float = 1.0) -> list[float]:
    """Of the variance for data N(m, c), where every sampler is affine: no chance in it."""
    path, errors = QUICK[process], []
    gauss = Pair(path, 0.5, M, 0.0, C)
    for n in (256, 512) if name == "dpm_3m_sde" else (128, 256):
        times = even(process, n)
        first, then = (path.at(float(t)) for t in (times[0], times[-1]))
        _, var = end_law(
            lambda x, units: last(RANDOM[name].run(gauss, x, times, units)),  # noqa: B023
            2 * n, first.scale * M, first.scale**2 * C + first.var, Units(factor),
        )  # fmt: skip
        errors.append(abs(var - then.scale**2 * C - then.var))
    return errors


@quick
@pytest.mark.parametrize("name", [name for name, s in RANDOM.items() if s.weak])
def test_weak_order(name: str, process: str) -> None:
    """1, or 2 where the mean of D over a step is right to second order; not with noise 2 % off."""
    is_of_order(weak_errors(name, process), RANDOM[name].weak)
    with pytest.raises(AssertionError):
        is_of_order(weak_errors(name, process, 1.02), RANDOM[name].weak)


def test_every_sampler_is_in_the_table() -> None:
    """Each public function of a model, and each order, is tested above by being there."""
    own = {name for name, f in inspect.getmembers(samplers, inspect.isgeneratorfunction)
           if name[0] != "_"}  # fmt: skip
    assert own - {"forward"} <= set(ALL)
    assert set(FLOWS) | {n for n, s in RANDOM.items() if s.weak} == set(ALL) - {
        "predictor_corrector"
    }
    assert all(
        s.run(Pair(QUICK["VP"], 0.5, M, 0.0, C), start(2), [0.5, 0.4], 0) for s in ALL.values()
    )


@pytest.mark.parametrize("name", ALL)
def test_evaluations_are_as_the_table_says(name: str) -> None:
    """Between times with noise; 3M adds one in its first step."""
    counted = ds.Counted(Oracle(LAW, QUICK["VP"]))
    list(ALL[name].run(counted, start(2), even("VP", 10), 0))
    assert counted.calls == 10 * ALL[name].evaluations + (name == "dpm_3m")


# ---------------------------------------------------------------- what is exact


class Level(ds.Model):
    """A score with alpha score = k everywhere: what `exponential` holds over a step."""

    def __init__(self, process: ds.Process, k: float) -> None:
        self.process, self.k = process, k

    def score(self, x: Any, t: Any) -> Any:
        return 0 * x + self.k / self.process.alpha(t)

    def velocity(self, x: Any, t: Any) -> Any:
        g = self.process.diffusion(t)
        return self.process.drift(t) * x - 0.5 * g * g * self.score(x, t)


@pytest.mark.parametrize("process", ["VP", "SubVP", "VE", "EDM", "RectifiedFlow"])
@any_eta
def test_exponential_is_exact_for_a_level_score(process: str, eta: float) -> None:
    """One step has the law of fifty, in closed form; Euler-Maruyama's is another one."""
    path = DRIFTS[process]
    model, t, s = Level(path, 0.7), 0.7 * path.T, 0.2 * path.T

    def law(run: Callable[..., Any], n: int) -> tuple[float, float]:
        times = np.linspace(t, s, n + 1)
        return end_law(lambda x, units: last(run(model, x, times, units, eta=eta)), n, 0.4, 0.3)

    ratio, spread = path.alpha(s) / path.alpha(t), path.var(t) / path.alpha(t) ** 2
    d = spread - path.var(s) / path.alpha(s) ** 2
    wanted = (
        ratio * 0.4 + path.alpha(s) * 0.5 * (1 + eta * eta) * d * 0.7,
        ratio**2 * 0.3 + (eta * path.alpha(s)) ** 2 * d,
    )
    for n in (1, 2, 50):
        np.testing.assert_allclose(law(exponential, n), wanted, rtol=1e-11)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(law(euler_maruyama, 50), wanted, rtol=1e-4)


def karras_heun(oracle: Oracle, x: np.ndarray, times: Any, z: Any = None, **churn: float) -> Any:
    """Karras et al. 2022, algorithms 1 and 2, for sigma(t) = t and s(t) = 1."""
    n = len(times) - 1
    for i, (t, s) in enumerate(zip(times[:-1], times[1:])):
        gamma = 0.0
        if z is not None and churn["low"] <= t <= churn["high"] and t < times[0]:
            gamma = min(churn["churn"] / n, math.sqrt(2) - 1)
        up = t + gamma * t
        if gamma:
            x = x + math.sqrt(up**2 - t**2) * churn["inflation"] * z[i]
        d = (x - oracle.x0(x, up)) / up
        y = x + (s - up) * d
        if s > 0:
            y = x + (s - up) * (0.5 * d + 0.5 * (y - oracle.x0(y, s)) / s)
        x = y
        yield x


class Rows:
    """The rows of a table for noise; None is passed over."""

    area = None

    def __init__(self, z: Any) -> None:
        self.z = iter(z)

    def normal(self, *shape: int) -> Any:
        return next(self.z)


def test_heun_and_edm_are_karras_algorithms() -> None:
    """On EDM from T = 10 to 0, 1e-11; without churn the second is the first, also for VP."""
    model = Oracle(BIMODAL, ds.EDM(10.0))
    times, x = grids.karras(model.process, 12), model.at(10.0).sample(40, 3)
    run = [y for _, y in heun(model, x, times)]
    for y, wanted in zip(run[1:], karras_heun(model, x, times), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-11)
    z = np.random.default_rng(4).standard_normal((12, 40, 1))
    options = {"churn": 4.0, "inflation": 1.007, "low": 0.05, "high": 8.0}
    noisy = [0.05 <= t <= 8.0 for t in times[:-1]]
    assert 3 < sum(noisy) < 12
    run = [y for _, y in edm(model, x, times, Rows(z[noisy]), **options)]
    for y, wanted in zip(run[1:], karras_heun(model, x, times, z, **options), strict=True):
        np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-10)
    options["inflation"] = 1.05
    *_, twin = karras_heun(model, x, times, z, **options)
    assert np.abs(run[-1] - twin).max() > 1e-3
    for path in (ds.VP(), ds.EDM(10.0), ds.Cosine(), ds.RectifiedFlow()):
        model, times = Oracle(BIMODAL, path), grids.uniform(path, 8)
        x = model.at(path.T).sample(40, 3)
        plain = last(heun(model, x, times))
        np.testing.assert_array_equal(last(edm(model, x, times, 5, churn=0.0)), plain)
        assert np.abs(last(edm(model, x, times, 5, churn=4.0)) - plain).max() > 1e-2


@pytest.mark.parametrize("process", ["VP", "EDM"])
@any_eta
def test_euler_maruyama_step_by_step(process: str, eta: float) -> None:
    path = DRIFTS[process]
    model, times = Oracle(BIMODAL, path), np.linspace(path.T, 0.1 * path.T, 6)
    x, z = model.at(path.T).sample(20, 5), np.random.default_rng(6).standard_normal((5, 20, 1))
    run = list(euler_maruyama(model, x, times, Rows(z), eta=eta))
    for (t, x), (s, y), noise_of in zip(run, run[1:], z):
        f, g, score = path.drift(t), path.diffusion(t), model.score(x, t)
        h = t - s
        step = x - h * (f * x - 0.5 * (1 + eta**2) * g**2 * score)
        wanted = step + eta * g * math.sqrt(h) * noise_of
        np.testing.assert_allclose(y, wanted, rtol=1e-11, atol=1e-11)
        assert np.abs(y - step - eta * g * math.sqrt(h) * 1.05 * noise_of).max() > 1e-4 or eta == 0


def test_the_corrector_is_langevin_at_the_new_time() -> None:
    """Data N(m, c), so p_s = N(a m, V): each step makes v (1 - e/V)^2 + 2e of a variance v.

    Its own law has V/(1 - e/(2V)) in the place of V: at snr 0.1 at most 1 % too much.
    """
    model, t, s, snr = Pair(QUICK["VP"], 0.5, M, 0.0, C), 0.5, 0.4, 0.1
    first, then = model.process.at(t), model.process.at(s)
    e, V = 2 * snr * snr * then.var, then.scale**2 * C + then.var

    def law(corrections: int) -> tuple[float, float]:
        def run(x: Any, units: Any) -> Any:
            return last(
                predictor_corrector(model, x, [t, s], units, snr=snr, corrections=corrections)
            )

        return end_law(run, 1 + corrections, first.scale * M, first.scale**2 * C + first.var)

    mean, var = law(0)
    for corrections in (1, 2, 7):
        keep = (1 - e / V) ** corrections
        wanted = then.scale * M + keep * (mean - then.scale * M)
        fixed = V / (1 - e / (2 * V))
        np.testing.assert_allclose(
            law(corrections), (wanted, fixed + keep**2 * (var - fixed)), rtol=1e-12
        )
        assert abs(law(corrections)[1] - V - keep**2 * (var - V)) > 1e-6  # no bias would be seen
    assert 0 < fixed / V - 1 < 1.01 * snr**2


@quick
def test_the_bias_of_the_corrector_stays(process: str) -> None:
    """Too much variance, of the order of e = 2 (snr sigma)^2, that more steps do not take away."""
    model = Pair(QUICK[process], 0.5, M, 0.0, C)

    def bias(n: int, snr: float, corrections: int = 1) -> float:
        def run(x: Any, units: Any) -> Any:
            predictor = lambda model, x, times, generator: heun(model, x, times)  # noqa: E731
            options: Any = {"snr": snr, "corrections": corrections, "predictor": predictor}
            return last(predictor_corrector(model, x, times, units, **options))

        times = even(process, n)
        first, then = (model.process.at(float(t)) for t in (times[0], times[-1]))
        _, var = end_law(run, n, first.scale * M, first.scale**2 * C + first.var)
        return (var - then.scale**2 * C - then.var) / (0.5 * 0.1 * 0.1 * 2 * then.var)

    assert 1 < bias(400, 0.1) < bias(100, 0.1) < 8
    assert 3.5 < bias(100, 0.1) / bias(100, 0.05) < 8
    assert abs(bias(100, 0.1, corrections=0)) < 0.1  # Heun alone has hardly any


# ---------------------------------------------------------------- a thousand steps


VP = remembering(ds.VP())
GRIDS = {n: grids.uniform(VP, n) for n in (300, 1000)}


@functools.cache
def exact_start() -> np.ndarray:
    """Seed 31: 5000 points of p_T."""
    return Oracle(BIMODAL, VP).at(1.0).sample(5000, 31)


def end_gap(name: str, steps: int, bend: float = 1.0, x: Any = None) -> float:
    """The Kolmogorov distance to p_0 over its limit, from the exact p_T; seed 32."""
    x = exact_start() if x is None else x
    return ks(last(ALL[name].run(Pair(VP, 0.1, 0.0, 3.0, 1.0, bend), x, GRIDS[steps], 32)))


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_returns_the_data(name: str) -> None:
    """1000 steps with the exact score; 300 already do, but with a score 1.25 times as large not."""
    assert end_gap(name, 1000) < 1
    assert end_gap(name, 300) < 1
    assert end_gap(name, 300, bend=1.25) > 1


@pytest.mark.parametrize("name", RANDOM)
def test_every_sampler_needs_its_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the variance of the noise, and none, do not return the data."""
    true_noise = states.noise
    for factor in (math.sqrt(2), 0.0):
        monkeypatch.setattr(states, "noise", lambda *a: factor * true_noise(*a))  # noqa: B023
        assert end_gap(name, 300) > 1, factor


@pytest.mark.parametrize("name", ["ddim", "heun", "dpm_3m", "ancestral", "euler_maruyama"])
def test_from_the_prior_too(name: str) -> None:
    """VP has forgotten its data but for alpha(1) = 0.007; a start 1.3 times as wide is wrong."""
    x = prior(VP, 5000, 1, 33)
    assert end_gap(name, 300, x=x) < 1
    if not ALL[name].random:  # noise would forget it
        assert end_gap(name, 300, x=1.3 * x) > 1


singular = functools.cache(lambda kind: remembering(kind()))  # one of each, with its memory
LATE = ("exponential_ode", "exponential", "euler_maruyama", "predictor_corrector")
SINGULAR = [name for name in ALL if name not in LATE]


@pytest.mark.parametrize("kind", [ds.Cosine, ds.RectifiedFlow])
@pytest.mark.parametrize("name", SINGULAR)
def test_from_where_alpha_is_0_to_where_sigma_is(name: str, kind: Any) -> None:
    """150 steps from T, where nothing of the data is left, to 0; seeds 34 and 35, 2000 points."""
    path = singular(kind)
    model, times = Pair(path, 0.1, 0.0, 3.0, 1.0), grids.cosine(path, 150)
    x = prior(path, 2000, 1, 34)
    assert path.alpha(times[0]) == 0 and path.var(times[-1]) == 0
    assert ks(last(ALL[name].run(model, x, times, 35))) < 1


@pytest.mark.parametrize("path", [ds.Cosine(), ds.RectifiedFlow()], ids=str)
@pytest.mark.parametrize("name", LATE)
def test_what_cannot_start_where_alpha_is_0_says_so(name: str, path: ds.Process) -> None:
    model = Oracle(BIMODAL, path)
    with pytest.raises(ArgumentError, match=r"times must start .*alpha is"):
        list(ALL[name].run(model, start(5), [1.0, 0.5], 0))
    assert np.isfinite(last(ALL[name].run(model, start(5), [0.99, 0.5, 0.0], 0))).all()


# ---------------------------------------------------------------- libraries, noise, refusals of all


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_keeps_library_and_dtype(name: str) -> None:
    model, times = Oracle(LAW, ds.VP()), [1.0, 0.6, 0.3, 0.1]
    wanted = last(ALL[name].run(model, start(20), times, 3))
    for value in (start(20).astype(np.float32), torch.from_numpy(start(20)).float()):
        for _, y in ALL[name].run(model, value, times, 3):
            assert type(y) is type(value) and y.dtype == value.dtype and y.shape == (20, 1)
        np.testing.assert_allclose(np.asarray(y), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ALL)
def test_every_sampler_asks_its_noise_and_nothing_else(name: str) -> None:
    """A noise object gives a row the same end in any company; the global generators are left."""
    before, state = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    model, times, x = Oracle(LAW, ds.VP()), [1.0, 0.6, 0.3, 0.1], start(50)
    many = last(ALL[name].run(model, x, times, Sequential(1, 50, 1, torch.float64)))
    few = last(ALL[name].run(model, x[:7], times, Sequential(1, 7, 1, torch.float64)))
    np.testing.assert_allclose(many[:7], few, rtol=1e-13, atol=1e-13)
    other = last(ALL[name].run(model, x, times, Sequential(2, 50, 1, torch.float64)))
    assert (np.abs(other - many).max() > 1e-2) == ALL[name].random
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == state  # noqa: NPY002


class Spoilt(Oracle):
    """NaN for the second row below t = 0.5."""

    def _spoil(self, value: Any, t: Any) -> Any:
        if t < 0.5:
            value = value + np.where(np.arange(len(value)) == 1, np.nan, 0.0)[:, None]
        return value

    def x0(self, x: Any, t: Any) -> Any:
        return self._spoil(super().x0(x, t), t)

    def score(self, x: Any, t: Any) -> Any:
        return self._spoil(super().score(x, t), t)

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        return self._spoil(super().drift(x, t, eta), t)


@pytest.mark.parametrize("name", ALL)
def test_a_row_of_nan_ends_every_run(name: str) -> None:
    match = r"model must answer with a finite (x0|score|drift) at t = 0\.4.*; got 1 rows with NaN"
    with pytest.raises(ArgumentError, match=match):
        list(ALL[name].run(Spoilt(LAW, ds.VP()), start(5), [0.9, 0.6, 0.49, 0.3], 0))


# ---------------------------------------------------------------- the start


def warned(call: Callable[[], Any]) -> str:
    """What a PriorWarning says, "" for none; any other warning is an error."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    assert all(w.category is PriorWarning for w in seen) and len(seen) < 2
    return str(seen[0].message) if seen else ""


SHORT = Oracle(BIMODAL, ds.VP(0.1, 0.9))  # p_1 still knows its data


def test_a_start_from_another_law_is_spoken_of_in_numbers() -> None:
    law = SHORT.at(1.0)
    true = float(law.mean[0]), math.sqrt(float(law.cov[0, 0]))
    wide = math.sqrt(SHORT.process.var(1.0))
    said = warned(lambda: prior(SHORT, 10, 1, 0))
    assert f"mean 0 and standard deviation {wide:.4g} on axis 0" in said
    assert f"at t = 1 has {true[0]:.4g} and {true[1]:.4g}: start from oracle.at(1).sample(" in said
    x = prior(SHORT.process, 2000, 1, 0)  # a process alone knows no truth
    assert "standard deviation" in warned(lambda: compare(SHORT, x, 1.0))
    assert warned(lambda: compare(SHORT, torch.from_numpy(x), 1.0))
    for seed in range(40):  # right starts; at six standard errors none of 40 is spoken of
        assert not warned(lambda: compare(SHORT, law.sample(500, seed), 1.0))  # noqa: B023
    assert not warned(lambda: compare(SHORT, x[:99], 1.0))  # too few to say
    assert not warned(lambda: prior(Oracle(BIMODAL, ds.VP()), 10, 1, 0))
    assert warned(lambda: compare(SHORT, law.sample(2000, 0) + 0.5 * true[1], 1.0))
    assert warned(lambda: compare(SHORT, 1.4 * (law.sample(2000, 0) - true[0]) + true[0], 1.0))


def test_the_worst_axis_is_named() -> None:
    law = ds.GaussianMixture([1.0], [[0.0, 5.0]], [np.diag([1.0, 4.0])])
    model = Oracle(law, ds.VP(0.1, 2.0))
    assert "on axis 1" in warned(lambda: prior(model, 10, 2, 0))
    x = model.at(1.0).sample(500, 1)
    assert not warned(lambda: compare(model, x, 1.0))
    assert not warned(
        lambda: compare(model, x[:, :1], 1.0)
    )  # the solver says what is wrong with it
    x[:, 0] *= 3
    assert "on axis 0" in warned(lambda: compare(model, x, 1.0))
