"""Langevin dynamics: against recursions of Gaussians, quadrature, and the exact law itself.

Statistical tests have |z| < 4.9 or Kolmogorov and Smirnov's limit at 1e-6, and a stated seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, langevin, testing
from diffscience.errors import ArgumentError

LIMIT = 4.9
NORMAL = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
BIMODAL = gallery.julia_bimodal()


def last(states: Iterator[Any]) -> Any:
    *_, end = states
    return end


# ---------------------------------------------------------------- unadjusted


@pytest.mark.parametrize("h", [0.02, 0.3, 1.7])
def test_mean_and_variance_at_every_step(h: float) -> None:
    """For N(mu, C): m' = m - h P (m - mu), V' = (I - hP) V (I - hP) + 2 h I, from one point.

    20,000 chains in two dimensions, seed 1. The twins: noise sqrt(h), noise 5 % off, drift h/2.
    """
    mu, C = np.array([1.0, -0.5]), np.array([[1.5, 0.4], [0.4, 1.2]])
    law, n = ds.GaussianMixture([1.0], [mu], [C]), 20_000
    A = np.eye(2) - h * np.linalg.inv(C)
    half = (np.eye(2) + A) / 2
    start = np.tile([2.0, 1.0], (n, 1))
    m, V, steps = np.array([2.0, 1.0]), np.zeros((2, 2)), 12
    slow = m
    twins = {"sqrt(h)": 1.0, "5 % off": 2 * 1.05**2}
    wrong = {name: np.zeros((2, 2)) for name in twins}
    far: dict[str, float] = dict.fromkeys([*twins, "drift"], 0.0)
    for k, (time, x) in enumerate(langevin.langevin(law.score, start, steps, 1, step=h)):
        assert time == k * h
        if k:
            m, V = mu + A @ (m - mu), A @ V @ A.T + 2 * h * np.eye(2)
            slow = mu + half @ (slow - mu)
            spread = np.sqrt(np.diag(V) / n)
            assert np.abs((x.mean(0) - m) / spread).max() < LIMIT
            far["drift"] = max(far["drift"], np.abs((x.mean(0) - slow) / spread).max())
            error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / n)
            assert np.abs((np.cov(x.T) - V) / error).max() < LIMIT
            for name, factor in twins.items():
                wrong[name] = A @ wrong[name] @ A.T + factor * h * np.eye(2)
                far[name] = max(far[name], np.abs((np.cov(x.T) - wrong[name]) / error).max())
    assert k == steps
    assert min(far.values()) > LIMIT


@pytest.mark.parametrize("h", [0.05, 0.5, 1.5])
def test_the_stationary_variance_of_the_unadjusted_algorithm(h: float) -> None:
    """1/(1 - h/2) for N(0, 1): started there, it stays there. 100,000 chains, seed 2."""
    n, wanted = 100_000, 1 / (1 - h / 2)
    start = math.sqrt(wanted) * np.random.default_rng(2).standard_normal((n, 1))
    _, x = last(langevin.langevin(NORMAL.score, start, 8, 3, step=h))
    error = wanted * math.sqrt(2 / n)
    assert abs(x.var() - wanted) < LIMIT * error
    for twin in (1.0, 1 / (1 + h / 2), 1 / (1 - h), 1.05 * wanted):
        assert abs(x.var() - twin) > LIMIT * error


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_two_conventions_are_one_dynamics(library: str) -> None:
    """epsilon = 2 step, to the last bit; the twin takes epsilon = step."""
    x: Any = np.linspace(-4, 4, 50)[:, None]
    seed: Callable[[], Any] = lambda: 4  # noqa: E731
    if library == "torch":
        x, seed = torch.as_tensor(x), lambda: torch.Generator().manual_seed(4)
    for h in (0.1, 0.037, 1 / 3):
        one = list(langevin.langevin(BIMODAL.score, x, 20, seed(), step=h))
        two = list(langevin.langevin(BIMODAL.score, x, 20, seed(), epsilon=2 * h))
        assert all(s == t and bool((a == b).all()) for (s, a), (t, b) in zip(one, two))
        _, twin = last(langevin.langevin(BIMODAL.score, x, 20, seed(), epsilon=h))
        assert not np.allclose(twin, one[-1][1], rtol=1e-3)


def test_a_step_is_the_formula() -> None:
    x = np.random.default_rng(1).standard_normal((5, 2))
    law, noise = gallery.julia_trimodal(), np.random.default_rng(9)
    states = list(langevin.langevin(law.score, x, 3, np.random.default_rng(9), step=0.2))
    for (s, before), (t, after) in zip(states, states[1:]):
        z = noise.standard_normal((5, 2))
        np.testing.assert_array_equal(after, before + 0.2 * law.score(before) + 0.4**0.5 * z)
        assert t - s == pytest.approx(0.2)


def test_a_model_at_a_time() -> None:
    process = ds.VP()
    model = ds.Oracle(BIMODAL, process)
    x, t = np.linspace(-2, 2, 7)[:, None], 0.3
    noised = BIMODAL.diffuse(process.at(t))
    for run in (
        lambda s, **time: langevin.langevin(s, x, 5, 0, step=0.1, **time),
        lambda s, **time: langevin.ascent(s, x, 5, step=0.1, **time),
        lambda s, **time: langevin.mala(
            model.log_prob if time else noised.log_prob, s, x, 5, 0, step=0.1, **time
        ),
    ):
        found, wanted = last(run(model, t=t))[1], last(run(noised.score))[1]
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert not np.allclose(last(run(model, t=1.05 * t))[1], wanted, rtol=1e-3)


# ---------------------------------------------------------------- ascent


def test_ascent_ends_on_the_modes() -> None:
    law = gallery.julia_trimodal()
    start = np.array([[-4.0, -2.0], [2.0, 4.0], [-1.5, 1.5], [0.0, 8.0]])
    states = list(langevin.ascent(law.score, start, 300, step=0.2))
    assert [t for t, _ in states] == [k * 0.2 for k in range(301)]
    end = states[-1][1]
    assert np.abs(law.score(end)).max() < 1e-10
    assert np.linalg.eigvalsh(law.hessian(end)).max() < 0  # a mode, not a saddle
    heights = np.array([law.log_prob(x) for _, x in states])
    assert np.all(np.diff(heights, axis=0) > -1e-12)
    np.testing.assert_allclose(end[:3], [[-3, -3], [3, 3], [-1, 1]], atol=0.02)
    down = langevin.ascent(lambda x: -law.score(x), start, 30, step=0.02)  # the twin
    assert np.all(law.log_prob(last(down)[1]) < heights[0])
    # Of a Gaussian: (1 - h)^k, exactly.
    _, x = last(langevin.ascent(NORMAL.score, np.array([[2.0]]), 10, step=0.3))
    assert float(x[0, 0]) == pytest.approx(2 * 0.7**10, rel=1e-12)


# ---------------------------------------------------------------- adjusted


def without_the_proposals(*args: Any) -> Any:
    return 0.0


@pytest.mark.parametrize("h", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("name", ["bimodal", "normal", "trimodal"])
def test_the_law_is_invariant(name: str, h: float) -> None:
    """From 20,000 exact draws (seed 5) it stays with the law, at long steps too (seed 6)."""
    law = {"bimodal": BIMODAL, "normal": NORMAL, "trimodal": gallery.julia_trimodal()}[name]
    start = law.sample(20_000, 5)
    states = list(langevin.mala(law.log_prob, law.score, start, 12, 6, step=h))
    assert [t for t, _, _ in states] == [k * h for k in range(13)]
    _, x, accepted = states[-1]
    testing.assert_samples_follow(x, law)
    assert 0.01 < accepted < 1
    assert math.isnan(states[0][2])
    moved = (x != start).all(axis=1).mean()
    assert moved > 0.1


@pytest.mark.parametrize("h", [1.0, 4.0])
def test_without_the_ratio_of_proposals_the_law_is_lost(
    h: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin accepts by p(y)/p(x) alone; so does the unadjusted algorithm lose the law."""
    start = NORMAL.sample(20_000, 5)
    if h < 2:
        _, x = last(langevin.langevin(NORMAL.score, start, 12, 6, step=h))
        with pytest.raises(AssertionError, match="samples follow"):
            testing.assert_samples_follow(x, NORMAL)
    monkeypatch.setattr(langevin, "_log_q", without_the_proposals)
    _, x, _ = last(langevin.mala(NORMAL.log_prob, NORMAL.score, start, 12, 6, step=h))
    with pytest.raises(AssertionError, match="samples follow"):
        testing.assert_samples_follow(x, NORMAL)


def acceptance(h: float, var: float) -> float:
    """E min(1, ratio) for N(0, var), both integrals by quadrature."""
    x, z = np.meshgrid(*[np.linspace(-9, 9, 401)] * 2, indexing="ij")
    x = math.sqrt(var) * x
    weight = np.exp(-0.5 * x * x / var - 0.5 * z * z)
    y = x - h * x / var + math.sqrt(2 * h) * z
    back = (x - y + h * y / var) ** 2 / (4 * h)
    ratio = 0.5 * (x * x - y * y) / var - back + 0.5 * z * z
    return float(np.sum(weight * np.minimum(1, np.exp(np.minimum(ratio, 0)))) / np.sum(weight))


@pytest.mark.parametrize(("h", "var"), [(0.3, 1.0), (1.0, 1.0), (2.5, 1.7)])
def test_the_share_of_accepted_proposals(h: float, var: float) -> None:
    """Against quadrature; one step of 200,000 chains from the law, seeds 7 and 8, |z| < 4.9."""
    law, n = ds.GaussianMixture([1.0], [[0.0]], [[[var]]]), 200_000
    start = law.sample(n, 7)
    (_, _, _), (_, x, accepted) = langevin.mala(law.log_prob, law.score, start, 1, 8, step=h)
    wanted = acceptance(h, var)
    error = math.sqrt(wanted * (1 - wanted) / n)
    assert abs(accepted - wanted) < LIMIT * error
    assert accepted == (x != start).mean()
    for twin in (1.05 * h, 2 * h, h / 2):
        assert abs(accepted - acceptance(twin, var)) > LIMIT * error


def test_a_constant_in_the_log_density_changes_nothing() -> None:
    x = BIMODAL.sample(50, 1)
    one = last(langevin.mala(BIMODAL.log_prob, BIMODAL.score, x, 10, 2, step=1.0))
    two = last(langevin.mala(lambda x: BIMODAL.log_prob(x) + 3, BIMODAL.score, x, 10, 2, step=1.0))
    np.testing.assert_array_equal(one[1], two[1])


def test_a_proposal_at_infinity_is_refused() -> None:
    """x^4 wells: from far out the step overshoots past the largest number, and is not taken."""
    energy: Any = lambda x: -(x[:, 0] ** 4)  # noqa: E731
    score: Any = lambda x: -4 * x**3  # noqa: E731
    start = np.array([[0.1], [1e60], [1e150]])
    with np.errstate(over="ignore", invalid="ignore"):
        _, x, accepted = last(langevin.mala(energy, score, start, 20, 3, step=1e-2))
    np.testing.assert_array_equal(x[1:], start[1:])
    assert x[0, 0] != 0.1 and np.isfinite(x).all() and 0 < accepted <= 1 / 3
    refuse: Any = lambda x: np.full(len(x), np.nan)  # noqa: E731
    _, x, accepted = last(langevin.mala(refuse, NORMAL.score, start[:1], 5, 3, step=0.1))
    assert accepted == 0 and x[0, 0] == 0.1


def test_no_graph_grows_along_a_chain() -> None:
    """An energy with parameters, as of a network: the states carry no derivatives."""
    a = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    energy: Any = lambda x: -a * (x**2).sum(-1)  # noqa: E731
    score: Any = lambda x: -2 * a * x  # noqa: E731
    x, seed = torch.zeros(5, 2, dtype=torch.float64), torch.Generator().manual_seed(1)
    for _, state, _ in langevin.mala(energy, score, x, 3, seed, step=0.1):
        assert not state.requires_grad
    for _, state in langevin.langevin(score, x, 3, seed, step=0.1):
        assert not state.requires_grad


# ---------------------------------------------------------------- annealed

LEVELS = [3.0, 1.5, 0.5]


def test_the_steps_and_counts_of_the_levels() -> None:
    """a_i = e sigma_i^2/sigma_L^2, as in algorithm 1, on the same noise; asked so many times."""
    asked: list[float] = []

    def score(x: Any, sigma: float) -> Any:
        asked.append(sigma)
        return -x / (1 + sigma**2)

    x, e, counts = np.linspace(-3, 3, 6).reshape(3, 2), 0.05, [4, 1, 2]
    states = list(langevin.annealed(score, x, LEVELS, counts, 5, epsilon=e))
    assert asked == [3.0] * 4 + [1.5] + [0.5] * 2
    assert [level for level, _ in states] == [3.0, *LEVELS]

    def by_hand(power: int, factor: float = 1.0) -> np.ndarray:
        noise, y = np.random.default_rng(5), x
        for sigma, n in zip(LEVELS, counts):
            a = factor * e * (sigma / LEVELS[-1]) ** power
            for _ in range(n):
                y = y - a / 2 * y / (1 + sigma**2) + math.sqrt(a) * noise.standard_normal(y.shape)
        return y

    np.testing.assert_allclose(states[-1][1], by_hand(2), rtol=1e-12)
    for twin in (by_hand(1), by_hand(2, 2.0), by_hand(2, 1.05)):
        assert not np.allclose(states[-1][1], twin, rtol=1e-3)
    # One count for all; and one level is plain Langevin with epsilon.
    asked.clear()
    last(langevin.annealed(score, x, LEVELS, 3, 5, epsilon=e))
    assert asked == [3.0] * 3 + [1.5] * 3 + [0.5] * 3
    one = last(langevin.annealed(score, x, [0.5], 6, 5, epsilon=e))[1]
    two = last(langevin.langevin(lambda x: score(x, 0.5), x, 6, 5, epsilon=e))[1]
    np.testing.assert_array_equal(one, two)


def test_the_annealed_variance_of_a_gaussian() -> None:
    """For N(0, 1) blurred by sigma: V' = (1 - h/(1 + sigma^2))^2 V + 2 h at every level; seed 6."""
    n, e, V = 100_000, 0.1, 9.0
    score: Any = lambda x, sigma: -x / (1 + sigma**2)  # noqa: E731
    x = 3 * np.random.default_rng(1).standard_normal((n, 1))
    states = list(langevin.annealed(score, x, LEVELS, 5, 6, epsilon=e, denoise=True))
    for sigma, (level, x) in zip(LEVELS, states[1:]):
        h = e * sigma**2 / (2 * LEVELS[-1] ** 2)
        for _ in range(5):
            V = (1 - h / (1 + sigma**2)) ** 2 * V + 2 * h
        end = V / (1 + sigma**2) ** 2 if sigma == LEVELS[-1] else V  # x/(1 + s^2), the mean
        z = (x.var() / end - 1) / math.sqrt(2 / n)
        assert level == sigma
        assert abs(z) < LIMIT
        assert abs((x.var() / (1.05 * end) - 1) / math.sqrt(2 / n)) > LIMIT


@pytest.mark.parametrize("kind", ["VE", "VP"])
def test_a_model_is_annealed_along_its_times(kind: str) -> None:
    """The levels are times, sigma^2 = var at them; denoised by the model's own posterior mean."""
    process = getattr(ds, kind)()
    model, times, e = ds.Oracle(BIMODAL, process), [0.6, 0.3, 0.1], 0.02
    x = np.linspace(-3, 3, 9)[:, None]
    sigmas = np.sqrt(process.var(np.array(times)))
    found = list(langevin.annealed(model, x, times, 3, 7, epsilon=e))
    noise, y = np.random.default_rng(7), x
    for t, sigma in zip(times, sigmas):
        a = e * sigma**2 / sigmas[-1] ** 2
        for _ in range(3):
            y = y + a / 2 * model.score(y, t) + math.sqrt(a) * noise.standard_normal(y.shape)
    np.testing.assert_allclose(found[-1][1], y, rtol=1e-11)
    _, end = last(langevin.annealed(model, x, times, 3, 7, epsilon=e, denoise=True))
    np.testing.assert_allclose(end, model.x0(y, 0.1), rtol=1e-10)
    assert not np.allclose(end, y + sigmas[-1] * model.score(y, 0.1), rtol=1e-4)


APART = ds.GaussianMixture([0.1, 0.9], [[-3.0], [3.0]], [[[0.09]], [[0.09]]])


def blurred_score(x: Any, sigma: float) -> Any:
    return APART.blurred(sigma).score(x)


def annealed_share(levels: np.ndarray, count: int, epsilon: float) -> float:
    """P(X > 0) after annealing from x = -3, exactly: the kernel of every step on a grid."""
    x = np.linspace(-40, 40, 801)
    p = 1.0 * (np.arange(801) == 370)
    for sigma in levels:
        h = 0.5 * epsilon * (sigma / levels[-1]) ** 2
        ahead = x + h * blurred_score(x[:, None], sigma)[:, 0]
        kernel = np.exp(-((x[:, None] - ahead) ** 2) / (4 * h))
        kernel /= kernel.sum(axis=0)
        for _ in range(count):
            p = kernel @ p
    return float(p[x > 0].sum() + 0.5 * p[400])


def test_annealing_finds_the_weights_that_langevin_does_not() -> None:
    """Modes 0.1 and 0.9, all chains started at the light one; 4,000 chains, seed 8.

    The share is held against the exact law of the chains, and that against the weight. The twins:
    a fifth of the steps, and levels that begin too low.
    """
    n, count, levels = 4000, 100, np.geomspace(6.0, 0.3, 12)
    epsilon = 0.12 * levels[-1] ** 2
    start = np.full((n, 1), -3.0)
    _, x = last(langevin.annealed(blurred_score, start, levels, count, 8, epsilon=epsilon))
    heavy, error = (x > 0).mean(), 0.3 / math.sqrt(n)
    exact = annealed_share(levels, count, epsilon)
    assert exact == pytest.approx(0.9, abs=0.015)
    assert abs(heavy - exact) < LIMIT * error
    assert abs(heavy - 0.9) < LIMIT * error
    for twin in (
        annealed_share(levels, count // 5, epsilon),
        annealed_share(levels[6:], count, epsilon),
    ):
        assert abs(heavy - twin) > LIMIT * error
    _, y = last(langevin.langevin(APART.score, start, 12 * count, 8, step=epsilon / 2))
    assert (y > 0).mean() < 0.01


# ---------------------------------------------------------------- libraries, dtypes


RUNS: dict[str, Callable[[Any, Any], Iterator[Any]]] = {
    "ascent": lambda x, g: langevin.ascent(BIMODAL.score, x, 4, step=0.1),
    "langevin": lambda x, g: langevin.langevin(BIMODAL.score, x, 4, g, step=0.1),
    "mala": lambda x, g: langevin.mala(BIMODAL.log_prob, BIMODAL.score, x, 4, g, step=0.1),
    "annealed": lambda x, g: langevin.annealed(
        lambda x, s: BIMODAL.blurred(s).score(x), x, LEVELS, 2, g, epsilon=0.01, denoise=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_library_and_dtype_are_kept(name: str) -> None:
    x = np.linspace(-4, 4, 20)[:, None]
    wanted = [state[1] for state in RUNS[name](x, np.random.default_rng(3))]
    for start, tight in (
        (torch.as_tensor(x), True),
        (x.astype(np.float32), False),
        (torch.as_tensor(x).float(), False),
    ):
        found = [state[1] for state in RUNS[name](start, np.random.default_rng(3))]
        assert {type(y) for y in found} == {type(start)}
        assert {y.dtype for y in found} == {start.dtype}
        for y, z in zip(found, wanted):
            np.testing.assert_allclose(y, z, rtol=1e-12 if tight else 1e-4, atol=1e-4 * (not tight))
    drawn = [state[1] for state in RUNS[name](torch.as_tensor(x), torch.Generator().manual_seed(1))]
    again = [state[1] for state in RUNS[name](torch.as_tensor(x), torch.Generator().manual_seed(1))]
    assert all(bool((a == b).all()) for a, b in zip(drawn, again))
    np.testing.assert_array_equal(x, np.linspace(-4, 4, 20)[:, None])  # the start is not written on


def test_no_steps_and_no_points() -> None:
    [(time, x)] = langevin.langevin(NORMAL.score, np.ones((2, 1)), 0, 0, step=0.1)
    assert time == 0.0 and x.tolist() == [[1.0], [1.0]]
    _, x, accepted = last(
        langevin.mala(NORMAL.log_prob, NORMAL.score, np.zeros((0, 1)), 2, 0, step=0.1)
    )
    assert x.shape == (0, 1) and math.isnan(accepted)


# ---------------------------------------------------------------- divergence, bad input


def test_a_step_too_long_is_said_in_one_sentence() -> None:
    """|1 - h| > 1 for N(0, 1); h = 1.99 is stable, and a start far out is no divergence."""
    rule = r"step must be small enough for the states to stay finite \(they run away by step \d+\)"
    with pytest.raises(ArgumentError, match=rule + "; got 2.5") as caught:
        last(langevin.langevin(NORMAL.score, np.ones((3, 1)), 1000, 0, step=2.5))
    assert "\n" not in str(caught.value)
    last(langevin.langevin(NORMAL.score, np.ones((3, 1)), 200, 0, step=1.99))
    with pytest.raises(ArgumentError, match=r"epsilon must be small enough .*; got 5.0"):
        last(langevin.langevin(NORMAL.score, np.ones((3, 1)), 1000, 0, epsilon=5.0))
    with pytest.raises(ArgumentError, match=r"step must be small enough .*; got 2.5"):
        last(langevin.ascent(NORMAL.score, np.ones((3, 1)), 1000, step=2.5))
    score: Any = lambda x, s: -x / s**2  # noqa: E731
    with pytest.raises(ArgumentError, match=r"epsilon must be .* at level 2\); got 5.0"):
        last(langevin.annealed(score, np.ones((3, 1)), [2.0, 1.0], 500, 0, epsilon=5.0))
    with pytest.raises(ArgumentError, match="step must be small enough"):
        last(langevin.langevin(lambda x: np.nan * x, np.ones((3, 1)), 2, 0, step=0.1))
    far = ds.GaussianMixture([1.0], [[3e9]], [[[1.0]]])
    _, x = last(langevin.langevin(far.score, np.full((3, 1), 3e9), 5, 0, step=0.1))
    assert np.abs(x - 3e9).max() < 10


X = np.zeros((3, 2))
FLAT: Any = lambda x, *_: x[:, 0]  # noqa: E731
SCORE = gallery.julia_trimodal().score
LEVEL: Any = lambda x, s: -x  # noqa: E731
BAD: dict[str, tuple[Callable[[], Iterator[Any]], str]] = {
    "a flat score": (
        lambda: langevin.langevin(FLAT, X, 2, 0, step=1), r"score must answer with shape \(3, 2\)"),
    "a flat score, ascent": (lambda: langevin.ascent(FLAT, X, 2, step=0.1), "score must answer"),
    "a flat score, annealed": (
        lambda: langevin.annealed(FLAT, X, LEVELS, 2, 0, epsilon=0.1), "score must answer"),
    "a column of densities": (
        lambda: langevin.mala(lambda x: x[:, :1], SCORE, X, 2, 0, step=0.1),
        r"log_prob must answer with shape \(3,\)"),
    "no step": (lambda: langevin.langevin(SCORE, X, 2, 0), "step must be given"),
    "both": (lambda: langevin.langevin(SCORE, X, 2, 0, step=1, epsilon=2), "step must be given"),
    "a step of 0": (lambda: langevin.langevin(SCORE, X, 2, 0, step=0), "step must be a positive"),
    "a step back": (lambda: langevin.ascent(SCORE, X, 2, step=-0.1), "step must be a positive"),
    "an epsilon of 0": (
        lambda: langevin.langevin(SCORE, X, 2, 0, epsilon=0.0), "epsilon must be a positive"),
    "half a step": (
        lambda: langevin.langevin(SCORE, X, 2.5, 0, step=1), "steps must be a whole"),  # type: ignore[arg-type]
    "no function": (
        lambda: langevin.langevin("score", X, 2, 0, step=1), "score must be a function"),  # type: ignore[arg-type]
    "no function, annealed": (
        lambda: langevin.annealed(3, X, LEVELS, 2, 0, epsilon=1), "score must be a function"),  # type: ignore[arg-type]
    "no density": (
        lambda: langevin.mala(None, SCORE, X, 2, 0, step=1), "log_prob must be a function"),  # type: ignore[arg-type]
    "a model without time": (
        lambda: langevin.langevin(ds.Oracle(BIMODAL, ds.VP()), X[:, :1], 2, 0, step=1),
        "t must be given for the score of a Model"),
    "a time for a function": (
        lambda: langevin.langevin(SCORE, X, 2, 0, step=1, t=0.3), "t must be left out"),
    "rising levels": (
        lambda: langevin.annealed(LEVEL, X, [1.0, 2.0], 2, 0, epsilon=1),
        "levels must be decreasing"),
    "equal levels": (
        lambda: langevin.annealed(LEVEL, X, [1.0, 1.0], 2, 0, epsilon=1), "levels must be decreas"),
    "a level of 0": (
        lambda: langevin.annealed(LEVEL, X, [1.0, 0.0], 2, 0, epsilon=1), "levels must be decreas"),
    "counts of two levels": (
        lambda: langevin.annealed(LEVEL, X, LEVELS, [1, 2], 0, epsilon=1),
        "counts must be one number, or one for each of 3 levels"),
    "half a count": (
        lambda: langevin.annealed(LEVEL, X, LEVELS, [1, 2, 0.5], 0, epsilon=1),  # type: ignore[list-item]
        "counts must be a whole number"),
    "no epsilon": (
        lambda: langevin.annealed(LEVEL, X, LEVELS, 1, 0, epsilon=0), "epsilon must be a positive"),
    "whole points": (
        lambda: langevin.langevin(SCORE, np.zeros((3, 2), int), 2, 0, step=1), "x must be float"),
    "NaN at the start": (
        lambda: langevin.langevin(SCORE, np.nan * X, 2, 0, step=1), "x must be finite"),
    "a tensor's generator": (
        lambda: langevin.langevin(SCORE, X, 2, torch.Generator(), step=1),
        "generator must be a NumPy generator"),
    "a word for a generator": (
        lambda: langevin.langevin(SCORE, X, 2, "seed", step=1), "generator must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, sentence = BAD[name]
    with pytest.raises(ArgumentError, match=sentence) as caught:
        list(call())
    assert "\n" not in str(caught.value)
