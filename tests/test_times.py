"""Times for training: the law of each, the expectation of a batch, and where its variance falls.

Kolmogorov-Smirnov and chi-square at 1e-6 with stated seeds, and twins that must fail; |z| < 4.9.
Paired draws count as half as many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import diffscience as ds
from diffscience import losses, nets, testing, times, train, weightings
from diffscience.arrays import Draws
from diffscience.errors import ArgumentError
from diffscience.quadrature import panels

CHAIN = ds.Chain.linear(12, 0.02, 0.4)
PROCESSES: dict[str, ds.Process] = {
    "VP": ds.VP(),
    "EDM": ds.EDM(),
    "RectifiedFlow": ds.RectifiedFlow(),
    "VE": ds.VE(),
    "chain": CHAIN,
}
N = 20_000
LIMIT = 4.9
LAW = ds.gallery.julia_bimodal()

laws = pytest.mark.parametrize("name", times.ALL)
processes = pytest.mark.parametrize("process", PROCESSES)
streams = pytest.mark.parametrize("stream", times.STREAMS)


def ks_limit(n: float, alpha: float = 1e-6) -> float:
    return math.sqrt(math.log(2 / alpha) / (2 * n))


def drawn(law: Any, n: int = N, seed: int = 0) -> np.ndarray:
    t = law(n, seed)
    assert t.dtype == np.float64
    assert t.shape == (n,)
    return np.asarray(t)


# ---------------------------------------------------------------- streams


@streams
@pytest.mark.parametrize("place", [0, 1, 4])
def test_every_place_of_a_stream_is_uniform(stream: str, place: int) -> None:
    """Seed 1: one place of 5,000 batches of five; the twin is u^1.2."""
    draws = Draws(1)
    u = np.array([times.STREAMS[stream](5, draws)[place] for _ in range(5_000)])
    assert stats.kstest(u, "uniform").statistic < ks_limit(5_000)
    assert stats.kstest(u**1.2, "uniform").statistic > ks_limit(5_000)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 64])
def test_streams_are_what_they_are_called(n: int) -> None:
    for seed in range(3):
        u = np.sort(times.stratified(n, Draws(seed)))
        assert np.array_equal(np.floor(u * n + 1e-9), np.arange(n))
        if n > 1:
            np.testing.assert_allclose(np.diff(u), 1 / n, rtol=1e-12)
        pairs = times.antithetic(n, Draws(seed))
        m = (n + 1) // 2
        np.testing.assert_allclose(pairs[m:], 1 - pairs[: n - m], rtol=1e-15)
        assert np.array_equal(times.independent(n, Draws(seed)), Draws(seed).uniform(n))


def batch_means(stream: str, f: Callable[[Any], Any], n: int, batches: int = 4_000) -> np.ndarray:
    draws = Draws(2)
    return np.array([np.mean(f(times.STREAMS[stream](n, draws))) for _ in range(batches)])


def test_variances_of_a_mean_are_those_of_theory() -> None:
    """Seed 2, 4,000 batches: variances within 4.9 of their standard errors.

    Of a mean of n: f = u has 1/12n; on the lattice 1/12n^2; in pairs 0. An even f in pairs has
    twice the variance that it has alone: pairs are no gift.
    """
    n, spread = 10, math.sqrt(2 / 4_000)
    even = lambda u: (u - 0.5) ** 2  # noqa: E731
    for stream, f, wanted in (
        ("independent", lambda u: u, 1 / 120),
        ("independent", even, 1 / 1800),
        ("antithetic", even, 2 / 1800),
    ):
        found = batch_means(stream, f, n).var()
        assert abs(found / wanted - 1) < LIMIT * spread * 1.2  # kurtosis of a mean of ten
        assert abs(found / (1.5 * wanted) - 1) > LIMIT * spread * 1.2
    lattice = batch_means("stratified", lambda u: u, n)
    assert abs(lattice.var() * 12 * n * n - 1) < LIMIT * math.sqrt(0.8 / 4_000)  # uniform: 1.8 - 1
    assert abs(lattice.mean() - 0.5) < LIMIT / math.sqrt(12 * n * n * 4_000)
    assert batch_means("antithetic", lambda u: u, n).std() < 1e-15
    smooth = lambda u: np.exp(u)  # noqa: E731
    ratio = batch_means("independent", smooth, n).var() / batch_means("stratified", smooth, n).var()
    assert 6 < ratio < 12  # n Var f/((f(1) - f(0))^2/12) = 9.84 n/n


# ---------------------------------------------------------------- laws


def cells(process: ds.Process, first: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [first T, T], cells four times shorter than those of `importance`."""
    ends = np.geomspace(first, 1, 2049)
    edges = np.unique(np.concatenate([ends, 1 + first - ends, np.linspace(first, 1, 2049)]))
    return panels(process.T * np.clip(edges, first, 1), 4)


def warm(law: Any, seed: int = 3) -> Any:
    """An adaptive law that has seen losses (1 + t/T)^2; others as they are."""
    if isinstance(law, times.Adaptive):
        t = law(20_000, seed)
        law.update(t, (1 + t / law.process.T) ** 2)
    return law


@laws
@processes
def test_the_density_is_that_of_the_draws(name: str, process: str) -> None:
    """Seed 0: cdf by integration of the density; the twin is 30 % later, or a step too rare."""
    path = PROCESSES[process]
    law = warm(times.ALL[name](path))
    t = drawn(law)
    size = N / 2 if name == "antithetic" else N
    if path is CHAIN:
        p = law.density(np.arange(1.0, 13.0)) / 12
        assert p.sum() == pytest.approx(1.0, rel=1e-12)
        counts = np.bincount(t.astype(int), minlength=13)[1:]
        scale = size / N  # pairs: half as many
        assert stats.chisquare(scale * counts, size * p).pvalue > 1e-6
        most = int(np.argmax(p))
        counts[most] = 0.6 * counts[most]
        twin = scale * counts
        assert stats.chisquare(twin, twin.sum() * p).pvalue < 1e-6
        return
    first = 1e-6 if name == "log_normal" else 1e-3
    assert t.min() >= first * path.T and t.max() <= path.T
    nodes, w = cells(path, first)
    mass = w * law.density(nodes) / (path.T * (1 - first))
    assert mass.sum() == pytest.approx(1.0, abs=2e-4)
    below = np.interp(np.sort(t), nodes, np.cumsum(mass) - 0.5 * mass)
    place = (np.arange(N) + 0.5) / N
    assert np.abs(below - place).max() < ks_limit(size) + 3e-4
    late = np.interp(np.minimum(1.3 * np.sort(t), path.T), nodes, np.cumsum(mass) - 0.5 * mass)
    assert np.abs(late - place).max() > 1.5 * ks_limit(size)


@pytest.mark.parametrize("process", ["VP", "EDM", "RectifiedFlow"])
def test_laws_are_those_of_the_papers(process: str) -> None:
    """Seed 5, KS against SciPy's truncated normal; the twin has a spread 12 % too large."""
    path = PROCESSES[process]
    t = drawn(times.log_normal(path), seed=5)
    z = -0.5 * np.asarray(path.log_snr(t))
    low, high = (-0.5 * path.log_snr(u) for u in (1e-6 * path.T, path.T))
    for spread, fits in ((1.2, True), (1.35, False)):
        ends = (low + 1.2) / spread, (high + 1.2) / spread
        found = stats.kstest(z, stats.truncnorm(*ends, loc=-1.2, scale=spread).cdf).statistic
        assert (found < ks_limit(N)) == fits
    t = drawn(times.logit_normal(path, 0.3, 0.8), seed=5) / path.T
    z = np.log(t / (1 - t))
    for spread, fits in ((0.8, True), (0.9, False)):
        low = (math.log(1e-3 / 0.999) - 0.3) / spread
        law = stats.truncnorm(low, math.inf, loc=0.3, scale=spread)
        assert (stats.kstest(z, law.cdf).statistic < ks_limit(N)) == fits


@pytest.mark.parametrize("process", ["VP", "EDM", "VE"])
def test_importance_follows_its_weight(process: str) -> None:
    """Seed 6: under -d log SNR/dt the log-SNR is uniform; under sqrt of it it is not."""
    path = PROCESSES[process]
    level = lambda t: path.log_snr(t)  # noqa: E731
    high, low = level(1e-3 * path.T), level(path.T)
    uniform = stats.uniform(low, high - low).cdf
    t = drawn(times.importance(path, weightings.likelihood), seed=6)
    assert stats.kstest(level(t), uniform).statistic < ks_limit(N)
    root = lambda p, t: np.sqrt(weightings.likelihood(p, t))  # noqa: E731
    t = drawn(times.importance(path, root), seed=6)
    assert stats.kstest(level(t), uniform).statistic > ks_limit(N)


def test_chains_have_the_cells_of_the_continuous_laws() -> None:
    k = np.arange(1.0, 13.0)
    normal = stats.norm(-1.2, 1.2).cdf
    edges = np.append(-np.inf, -0.5 * np.asarray(CHAIN.log_snr(k)))
    wanted = np.diff(normal(edges)) / normal(edges[-1])
    np.testing.assert_allclose(times.log_normal(CHAIN).density(k) / 12, wanted, rtol=1e-10)
    share = k / 12
    with np.errstate(divide="ignore"):
        cdf = stats.norm.cdf(np.log(share / (1 - share)))
    wanted = np.diff(np.append(0.0, cdf))
    np.testing.assert_allclose(times.logit_normal(CHAIN).density(k) / 12, wanted, rtol=1e-10)
    law = times.importance(CHAIN, lambda p, t: np.where(t == 5, 0.0, t))
    assert law.density(np.array([5.0]))[0] == 0.0
    assert 5 not in set(drawn(law).tolist())


def test_uniform_times_are_the_bits_that_they_were() -> None:
    """Seed 7: torch.rand in float64 on the generator, scaled; floor(K u) + 1 on a chain."""
    u = torch.rand(50, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    law = times.uniform(ds.EDM(), earliest=0.01)
    assert torch.equal(law(50, torch.Generator().manual_seed(7)), 80.0 * (0.01 + (1 - 0.01) * u))
    chain = train.uniform_times(CHAIN)
    assert torch.equal(chain(50, torch.Generator().manual_seed(7)), torch.floor(u * 12) + 1)


def test_pairs_and_lattices_on_a_chain() -> None:
    """k and K + 1 - k; and a lattice of a multiple of K visits every step as often."""
    k = drawn(times.uniform(CHAIN, stream=times.antithetic), 100)
    assert np.array_equal(k[:50] + k[50:], np.full(50, 13.0))
    k = drawn(times.uniform(CHAIN, stream=times.stratified), 36)
    assert np.bincount(k.astype(int))[1:].tolist() == [3] * 12
    t = drawn(times.uniform(ds.VP(), stream=times.antithetic), 100)
    np.testing.assert_allclose(t[:50] + t[50:], 1.001, rtol=1e-14)


@laws
@processes
def test_tensors_on_their_generator(name: str, process: str) -> None:
    """The same law from torch; times float64, densities in kind; ends and the empty batch."""
    path = PROCESSES[process]
    law = times.ALL[name](path)
    t = law(500, torch.Generator().manual_seed(0))
    assert isinstance(t, torch.Tensor)
    assert t.dtype == torch.float64
    density = law.density(t)
    assert isinstance(density, torch.Tensor)
    np.testing.assert_allclose(density.numpy(), law.density(t.numpy()), rtol=1e-12)
    assert bool((density > 0).all())
    torch.testing.assert_close(law.correction(t) * density, torch.ones_like(t))
    assert law(0, torch.Generator()).shape == (0,)
    if isinstance(law, times.Times):
        ends = law.quantile(np.array([0.0, 1.0]))
        first = 1.0 if path is CHAIN else (1e-6 if name == "log_normal" else 1e-3) * path.T
        assert ends[0] == pytest.approx(first, rel=1e-9)
        assert 0.999 * path.T < ends[1] <= path.T


# ---------------------------------------------------------------- expectations

BROAD: dict[str, Any] = {  # laws whose correction has a variance
    "uniform": times.uniform,
    "stratified": partial(times.uniform, stream=times.stratified),
    "antithetic": partial(times.uniform, stream=times.antithetic),
    "log_normal": partial(times.log_normal, mean=0.0, std=3.0, earliest=0.05),
    "logit_normal": partial(times.logit_normal, mean=0.5, std=1.5, earliest=0.05),
    "importance": partial(
        times.importance, weight=lambda p, t: 1 + 3 * t / p.T, stream=times.stratified
    ),
    "adaptive": times.Adaptive,
}


@pytest.mark.parametrize("name", BROAD)
@pytest.mark.parametrize("process", ["VP", "chain"])
def test_corrected_means_are_those_of_uniform_times(name: str, process: str) -> None:
    """Seed 8: the mean of f/density is the uniform mean of f, whatever the law and its stream.

    200 batches of 100, whose spread is the standard error; without the correction a law that is not
    uniform misses, and with its inverse too.
    """
    path = PROCESSES[process]
    law = warm(BROAD[name](path))
    f = lambda t: np.exp(t / path.T)  # noqa: E731
    if path is CHAIN:
        exact = float(np.mean(f(np.arange(1, 13))))
    else:
        first = 0.05 if name in ("log_normal", "logit_normal") else 1e-3
        exact = float(math.e - math.exp(first)) / (1 - first)
    random = np.random.default_rng(8)
    batches = [law(100, random) for _ in range(200)]

    def z(value: Callable[[np.ndarray], np.ndarray]) -> float:
        means = np.array([value(t).mean() for t in batches])
        return abs(float(means.mean()) - exact) / max(means.std(ddof=1) / 200**0.5, 1e-12)

    assert z(lambda t: f(t) * law.correction(t)) < LIMIT
    if name not in ("uniform", "stratified", "antithetic"):
        assert z(f) > LIMIT
        assert z(lambda t: f(t) * law.density(t)) > LIMIT
    else:
        assert z(lambda t: 1.05 * f(t)) > LIMIT


def test_importance_by_the_integrand_has_no_variance() -> None:
    """p ~ f: f/density is one number, on cells to 1 %; uniform times leave 100 %."""
    for path, limit in ((ds.VP(), 0.01), (CHAIN, 1e-12)):
        f = lambda t: weightings.x0(path, t) ** 0.25  # noqa: E731, B023
        law = times.importance(path, lambda p, t: f(t))  # noqa: B023
        t = drawn(law, 2_000)
        rows = f(t) * law.correction(t)
        assert rows.std() < limit * rows.mean()
        uniform = f(drawn(times.uniform(path), 2_000))
        assert uniform.std() > 0.3 * uniform.mean()


def test_a_corrected_weight_gives_the_loss_of_uniform_times() -> None:
    """Seed 9: the bound's loss of the oracle by times in proportion to its weight, |z| < 4.9.

    Fewer noise too: the spread of the rows falls by more than half.
    """
    path, oracle = ds.VP(), ds.Oracle(LAW, ds.VP())
    random = np.random.default_rng(9)
    law = times.importance(path, weightings.bound)
    rows = []
    for draw, weight in (
        (times.uniform(path), weightings.bound),
        (law, law.corrected(weightings.bound)),
        (law, weightings.bound),
    ):
        x0 = LAW.sample(40_000, random)
        z = random.standard_normal(x0.shape)
        rows.append(losses.weighted(oracle, x0, draw(40_000, random), z, weight))
    means, errors = (np.array([f(r) for r in rows]) for f in (np.mean, np.std))
    errors /= 200.0
    assert abs(means[1] - means[0]) < LIMIT * math.hypot(*errors[:2])
    assert abs(means[2] - means[0]) > LIMIT * math.hypot(errors[0], errors[2])
    assert errors[1] < 0.5 * errors[0]


# ---------------------------------------------------------------- by the losses seen


def test_the_adaptive_law_follows_the_last_losses() -> None:
    """p_k ~ the root of the mean of the last three squares, in their order; until then uniform."""
    chain = ds.Chain.linear(3)
    law = times.Adaptive(chain, history=3, floor=0.1)
    k = np.array([1.0, 2.0, 3.0])

    def show(steps: list[float], values: list[float]) -> np.ndarray:
        law.update(np.array(steps), np.array(values))
        return np.asarray(law.density(k)) / 3

    assert show([1, 1, 2, 2, 2, 3, 3], [9, 9, 2, 2, 2, 1, 1]).tolist() == [1 / 3] * 3
    found = show([3, 1, 1, 1, 3, 3], [9, 4, 1, 2, 5, 7])  # 1: 4 1 2; 2: 2 2 2; 3: 9 5 7
    size = np.sqrt(np.array([21.0, 12.0, 155.0]) / 3)
    wanted = 0.9 * size / size.sum() + 0.1 / 3
    np.testing.assert_allclose(found, wanted, rtol=1e-13)
    size = np.array([21.0, 12.0, 155.0]) / 3
    assert np.abs(found - 0.9 * size / size.sum() - 0.1 / 3).max() > 0.05  # without the root
    found = show([2], [8])  # one more: 8 2 2
    size = np.sqrt(np.array([21.0, 72.0, 155.0]) / 3)
    np.testing.assert_allclose(found, 0.9 * size / size.sum() + 0.1 / 3, rtol=1e-13)
    np.testing.assert_allclose(show([1, 2, 3] * 3, [0] * 9), 1 / 3, rtol=1e-13)
    assert times.Adaptive(chain).density(k).tolist() == [1.0] * 3  # nothing is shared


def test_an_update_at_once_is_one_by_one() -> None:
    random = np.random.default_rng(0)
    t, rows = random.uniform(0.001, 1, 300), random.exponential(size=300)
    one, other = (times.Adaptive(ds.VP(), buckets=5, history=7) for _ in range(2))
    one.update(t, rows)
    for i in range(300):
        other.update(t[i : i + 1], rows[i : i + 1])
    np.testing.assert_array_equal(one._recent, other._recent)
    np.testing.assert_array_equal(one.density(t), other.density(t))
    assert one.density(t).max() > 1.01


def test_a_watched_loss_is_corrected_and_remembered() -> None:
    """The rows are divided by the density of the draw, and then the law moves."""
    law = times.Adaptive(CHAIN, history=1, floor=0.0)
    steps = np.arange(1.0, 13.0)
    law.update(steps, steps)
    before = law.density(steps)
    loss = law.watching(lambda network, x0, t, noise: torch.as_tensor(13 - t))
    rows = loss(None, None, torch.as_tensor(steps), None)
    np.testing.assert_allclose(rows, (13 - steps) / before, rtol=1e-13)
    np.testing.assert_allclose(law.density(steps) / 12, (13 - steps) / 78, rtol=1e-13)


@laws
def test_every_law_trains(name: str) -> None:
    """Two steps each; an adaptive law watches; the same seed gives the same losses."""
    found = []
    for _ in range(2):
        model = ds.Network(nets.MLP(1, widths=(4,), seed=0), CHAIN)
        law = times.ALL[name](CHAIN)
        loss: Any = losses.simple
        if isinstance(law, times.Adaptive):
            loss = law.watching(loss)
        history = train.train(model, LAW, steps=2, seed=0, batch=300, times=law, loss=loss)
        found.append(history.losses.tolist())
    assert found[0] == found[1]
    assert np.isfinite(found[0]).all()


# ---------------------------------------------------------------- bad input


def test_bad_arguments_are_refused() -> None:
    wrong: Any = times
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: wrong.uniform("VP"), "process must be a Process; got VP"),
        (lambda: wrong.uniform(ds.VP(), 0.0), r"earliest must lie in \(0, 1\); got 0.0"),
        (lambda: wrong.uniform(ds.VP(), stream="pairs"), "stream must be a function; got pairs"),
        (lambda: wrong.uniform(ds.VP())(-1, 0), "n must be a whole number of at least 0"),
        (lambda: wrong.uniform(ds.VP())(3, None), "generator must be"),
        (lambda: wrong.log_normal(ds.VP(), std=0.0), "std must be a positive number"),
        (lambda: wrong.log_normal(ds.VP(), mean=math.nan), "mean must be a finite number"),
        (lambda: wrong.log_normal(ds.VP(), mean=1e3), "mean must leave some of the law between"),
        (lambda: wrong.logit_normal(ds.VP(), std=-1.0), "std must be a positive number"),
        (lambda: wrong.importance(ds.VP(), 1.0), "weight must be a function"),
        (
            lambda: times.importance(ds.VP(), lambda p, t: -t),
            "weight must be at least 0 and not all 0",
        ),
        (lambda: times.importance(CHAIN, lambda p, t: t * math.nan), "weight must be finite"),
        (lambda: times.uniform(ds.VP()).corrected(3.0), "weight must be a function"),  # type: ignore[arg-type]
        (lambda: times.importance(ds.VP()).density(2.0), r"t must lie in \[0, 1\]"),
        (lambda: times.importance(CHAIN).density(0.0), "t must be one of the steps 1..K; got 0"),
        (lambda: times.Adaptive(CHAIN, history=0), "history must be a whole number of at least 1"),
        (lambda: times.Adaptive(CHAIN, floor=2.0), r"floor must lie in \[0, 1\]"),
        (lambda: times.Adaptive(ds.VP(), buckets=0), "buckets must be a whole number"),
        (lambda: times.Adaptive(CHAIN).watching(0), "loss must be a function"),  # type: ignore[arg-type]
        (
            lambda: times.Adaptive(CHAIN).update(np.ones(3), np.ones(2)),
            r"losses must have shape \(3,\), as t has; got \(2,\)",
        ),
        (
            lambda: times.Adaptive(CHAIN).update(np.ones(1), np.full(1, math.nan)),
            "losses must be finite",
        ),
    ]
    for call, words in calls:
        with pytest.raises(ArgumentError, match=words):
            call()


def test_times_that_testing_knows_lie_in_every_law() -> None:
    """Densities are positive at the times of the law tests, and integrate products of them."""
    for path in (ds.VP(), ds.Cosine(), ds.Sigmoid(), ds.VEGeometric()):
        t = testing.times(path)
        for name, make in times.ALL.items():
            assert np.all(np.isfinite(make(path).density(t))), name
