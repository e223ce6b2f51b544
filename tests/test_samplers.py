"""Samplers against what Gaussian data make of them: every step is affine, so every law is known.

    E[x0 | x_t] = m + a c/(a^2 c + v) (x_t - a m)      for x0 ~ N(m, c)

First the same noise by hand, to 1e-12; then the laws, in closed form by a recursion of mean and
variance, with |z| < 4.9 (1e-6 two-sided) and stated seeds; then one mixture by Kolmogorov-Smirnov.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, states
from diffscience.errors import ArgumentError
from diffscience.grids import strided
from diffscience.models import Oracle
from diffscience.samplers import ancestral, ddim, forward, last, prior

M, C = 0.8, 0.49  # mean and variance of the data
LAW = ds.GaussianMixture([1.0], [[M]], [[[C]]])
CHAIN = ds.Chain.linear(12, 0.03, 0.5)
ABAR = np.array([1.0, *np.cumprod(1 - CHAIN.betas)])
EVERY = np.arange(12, -1, -1.0)
SOME = np.array([12.0, 9, 8, 4, 1, 0])
LIMIT = 4.9
N = 40_000

grids = pytest.mark.parametrize("grid", [EVERY, SOME], ids=["every", "strided"])
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


@grids
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


@grids
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


@grids
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


@grids
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


@grids
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
