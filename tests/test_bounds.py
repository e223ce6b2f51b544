"""The variational bound against divergences of Gaussians that are written out here.

Three routes that share nothing with the weights w_k: the KL divergence of every step on the very
same noise, a scalar recursion at 40 digits for Gaussian data, and one KL divergence between the
joint laws of the whole chain. Statistical tests have |z| < 4.9 (1e-6 two-sided) and a stated seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import bounds, gallery, losses
from diffscience.errors import ArgumentError
from diffscience.models import Model, Oracle

CHAIN = ds.Chain.linear(6, 0.05, 0.6)
LIMIT = 4.9
MEAN, VAR = 0.7, 1.9  # of the 1-D Gaussian data


def gaussian(mean: Any = (MEAN,), cov: Any = ((VAR,),)) -> ds.GaussianMixture:
    return ds.GaussianMixture([1.0], [list(mean)], [np.asarray(cov, float)])


def oracle(law: Any = None, chain: ds.Chain = CHAIN) -> Oracle:
    return Oracle(gaussian() if law is None else law, chain)


class Tilted(Model):
    """Not the exact model: eps = 0.3 x + 0.1 k on every coordinate."""

    def __init__(self, chain: ds.Chain) -> None:
        self.process = chain

    def eps(self, x: Any, t: Any) -> Any:
        return 0.3 * x + 0.1 * t

    def x0(self, x: Any, t: Any) -> Any:
        abar = math.prod(1 - CHAIN.betas[: int(t)])
        return (x - math.sqrt(1 - abar) * self.eps(x, t)) / math.sqrt(abar)


def without_square(chain: ds.Chain, mix: float) -> Any:
    """The wrong twin: the weight as the note "ddpm" prints it, beta instead of beta^2."""
    w, free = TRUE_WEIGHTS(chain, mix)
    return w / chain.betas, free


TRUE_WEIGHTS = bounds._weights


def step_variances(betas: np.ndarray, mix: float) -> list[float]:
    """s_k^2 from the definitions, k = 1..K."""
    abar = [1.0, *np.cumprod(1 - betas)]
    small = [b * (1 - abar[k]) / (1 - abar[k + 1]) for k, b in enumerate(betas)]
    small[0] = small[1]
    return [math.exp(mix * math.log(b) + (1 - mix) * math.log(s)) for b, s in zip(betas, small)]


# ---------------------------------------------------------------- the terms, on the same noise


def terms_of(model: Any, x0: np.ndarray, noises: list[np.ndarray], mix: float) -> np.ndarray:
    """(n, K + 1) L_0 .. L_K of each point as densities and divergences of Gaussians."""
    betas = CHAIN.betas
    abar = np.array([1.0, *np.cumprod(1 - betas)])
    s2, rows, dim = step_variances(betas, mix), [], x0.shape[1]
    for k, noise in enumerate(noises, start=1):
        x = np.sqrt(abar[k]) * x0 + np.sqrt(1 - abar[k]) * noise
        guess = model.x0(x, float(k))
        if k == 1:
            off = np.sum((x0 - guess) ** 2, axis=-1)
            rows.append(0.5 * off / s2[0] + 0.5 * dim * math.log(2 * math.pi * s2[0]))
            continue
        beta, rest = betas[k - 1], 1 - abar[k]
        towards = math.sqrt(abar[k - 1]) * beta / rest
        stay = math.sqrt(1 - beta) * (1 - abar[k - 1]) / rest
        true_mean, model_mean = (towards * end + stay * x for end in (x0, guess))
        ratio = beta * (1 - abar[k - 1]) / rest / s2[k - 1]
        off = np.sum((true_mean - model_mean) ** 2, axis=-1)
        rows.append(0.5 * dim * (ratio - 1 - math.log(ratio)) + 0.5 * off / s2[k - 1])
    var = 1 - abar[-1]
    square = abar[-1] * np.sum(x0**2, axis=-1)
    rows.append(0.5 * (square + dim * (var - 1 - math.log(var))))
    return np.stack(rows, axis=-1)


@pytest.mark.parametrize("mix", [0.0, 0.35, 1.0])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("kind", ["tilted", "oracle"])
def test_every_term_is_the_divergence_of_its_step(kind: str, dim: int, mix: float) -> None:
    """Seed 4 for the noise of the bound, 5 for the data; the same noise is drawn here again."""
    law = gallery.julia_bimodal() if dim == 1 else gallery.julia_trimodal()
    model = Tilted(CHAIN) if kind == "tilted" else Oracle(law, CHAIN)
    x0 = law.sample(40, 5)
    found = bounds.bound(model, x0, np.random.default_rng(4), mix=mix)
    again = np.random.default_rng(4)
    noises = [again.standard_normal((40, dim)) for _ in range(CHAIN.K)]
    rows = terms_of(model, x0, noises, mix)
    np.testing.assert_allclose(found.terms, rows.mean(0), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.errors, rows.std(0, ddof=1) / math.sqrt(40), rtol=1e-10)
    assert found.total == pytest.approx(rows.sum(1).mean(), rel=1e-11)
    assert found.error == pytest.approx(rows.sum(1).std(ddof=1) / math.sqrt(40), rel=1e-10)
    assert found.dim == dim
    # The three names are the parts of the sum.
    assert found.terms[[0, -1]].tolist() == [found.L_0, found.L_K]
    assert found.L_between == pytest.approx(rows[:, 1:-1].sum(1).mean(), rel=1e-10)
    assert found.bits == pytest.approx(found.total / (dim * math.log(2)), rel=1e-15)


def test_every_part_of_the_bound_in_bits() -> None:
    """Over D log 2, errors too; the twin forgets the dimension."""
    law = gallery.julia_trimodal()
    nats = bounds.bound(oracle(law), law.sample(30, 5), 4)
    bits, rate = nats.in_bits(), 2 * math.log(2)
    for name in ("L_0", "L_between", "L_K", "total", "error"):
        found = getattr(bits, name)
        assert found == pytest.approx(getattr(nats, name) / rate, rel=1e-14)
        assert found != pytest.approx(2 * getattr(nats, name) / rate, rel=0.1)
    np.testing.assert_allclose(bits.terms, nats.terms / rate, rtol=1e-15)
    np.testing.assert_allclose(bits.errors, nats.errors / rate, rtol=1e-15)
    assert bits.total == nats.bits == bits.bits  # and not converted twice
    assert bits.in_bits() is bits
    assert (nats.unit, bits.unit, bits.dim) == ("nats", "bits", 2)


def test_a_weight_without_its_square_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    x0, exact = gaussian().sample(40, 5), mp_terms(VAR, MEAN, 0.0)
    noises = list(np.random.default_rng(4).standard_normal((CHAIN.K, 40, 1)))
    rows = terms_of(oracle(), x0, noises, 0.0)
    monkeypatch.setattr(bounds, "_weights", without_square)
    found = bounds.bound(oracle(), x0, np.random.default_rng(4))
    assert np.all(np.abs(found.terms / rows.mean(0) - 1)[:-1] > 0.02)
    assert np.all(np.abs(bounds.best_bound(oracle()).terms / exact - 1)[:-1] > 0.02)


def test_tensors_and_single_precision_have_the_same_bound() -> None:
    x0 = gaussian().sample(30, 5)
    wanted = bounds.bound(oracle(), x0, np.random.default_rng(4))
    tensor = bounds.bound(oracle(), torch.from_numpy(x0), np.random.default_rng(4))
    np.testing.assert_allclose(tensor.terms, wanted.terms, rtol=1e-12)
    for half in (x0.astype(np.float32), torch.from_numpy(x0).to(torch.float32)):
        single = bounds.bound(oracle(), half, np.random.default_rng(4))
        np.testing.assert_allclose(single.terms, wanted.terms, rtol=2e-5)
        assert single.terms.dtype == np.float64
    own = bounds.bound(oracle(), torch.from_numpy(x0), torch.Generator().manual_seed(1))
    again = bounds.bound(oracle(), torch.from_numpy(x0), torch.Generator().manual_seed(1))
    assert own.total == again.total != wanted.total


def test_the_progress_wrapper_sees_every_step() -> None:
    seen: list[int] = []

    def wrap(steps: Iterable[int]) -> Iterator[int]:
        for k in steps:
            seen.append(k)
            yield k

    bounds.bound(oracle(), np.zeros((3, 1)), 0, progress=wrap)
    assert seen == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- Gaussian data, in closed form


def mp_terms(var: float, mean: float, mix: float, chain: ds.Chain = CHAIN) -> np.ndarray:
    """The least L_0 .. L_K for N(mean, var), at 40 digits, through E (x0 - E[x0|x_k])^2."""
    with mp.workdps(40):
        c, betas = mp.mpf(var), [mp.mpf(float(b)) for b in chain.betas]
        abar = [mp.mpf(1)]
        for b in betas:
            abar.append(abar[-1] * (1 - b))
        small = [b * (1 - abar[k]) / (1 - abar[k + 1]) for k, b in enumerate(betas)]
        small[0] = small[1]
        s2 = [mp.exp(mix * mp.log(b) + (1 - mix) * mp.log(s)) for b, s in zip(betas, small)]
        left = [c * (1 - a) / (a * c + 1 - a) for a in abar]  # the posterior variance of x0
        terms = [(mp.log(2 * mp.pi * s2[0]) + left[1] / s2[0]) / 2]
        for k in range(2, chain.K + 1):
            rest = 1 - abar[k]
            r = betas[k - 1] * (1 - abar[k - 1]) / rest / s2[k - 1]
            towards = mp.sqrt(abar[k - 1]) * betas[k - 1] / rest
            terms.append((r - 1 - mp.log(r) + towards**2 * left[k] / s2[k - 1]) / 2)
        v = 1 - abar[-1]
        terms.append((abar[-1] * (mp.mpf(mean) ** 2 + c) + v - 1 - mp.log(v)) / 2)
        return np.array([float(t) for t in terms])


@pytest.mark.parametrize("chain", [CHAIN, ds.Chain.cosine(9), ds.Chain.linear(40, 1e-4, 0.3)])
@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_the_best_bound_of_a_gaussian(chain: ds.Chain, mix: float) -> None:
    best = bounds.best_bound(oracle(chain=chain), mix=mix)
    wanted = mp_terms(VAR, MEAN, mix, chain)
    np.testing.assert_allclose(best.terms, wanted, rtol=1e-10, atol=1e-13)
    assert best.total == pytest.approx(wanted.sum(), rel=1e-11)
    assert best.error == 0.0 and not best.errors.any()
    # The wrong twins: another mix, and a data variance 5 % off.
    assert best.total != pytest.approx(mp_terms(VAR, MEAN, mix + 0.05, chain).sum(), rel=1e-6)
    assert best.total != pytest.approx(mp_terms(1.05 * VAR, MEAN, mix, chain).sum(), rel=1e-4)


def joint(start: Any, steps: list[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a Gaussian path: X' = gain X + shift + sqrt(var) Z."""
    mean, cov = [start[0]], np.array([[start[1]]])
    for gain, shift, var in steps:
        cross = gain * cov[:, -1:]
        corner = [[gain * gain * cov[-1, -1] + var]]
        cov = np.block([[cov, cross], [cross.T, np.array(corner)]])
        mean.append(gain * mean[-1] + shift)
    return np.array(mean), cov


@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_the_bound_is_one_divergence_between_paths(mix: float) -> None:
    """bound = KL(q(x_0..x_K) || p(x_0..x_K)) + H(x_0), both joint laws Gaussian: K + 1 numbers."""
    betas = CHAIN.betas
    abar = np.array([1.0, *np.cumprod(1 - betas)])
    forward = [(math.sqrt(1 - b), 0.0, b) for b in betas]
    q_mean, q_cov = joint((MEAN, VAR), forward)
    back = []
    for k in range(CHAIN.K, 0, -1):
        a, rest, beta = math.sqrt(abar[k]), 1 - abar[k], betas[k - 1]
        gain = a * VAR / (a * a * VAR + rest)  # E[x0 | x_k] = mean + gain (x_k - a mean)
        towards = math.sqrt(abar[k - 1]) * beta / rest
        stay = math.sqrt(1 - beta) * (1 - abar[k - 1]) / rest
        shift = towards * (1 - gain * a) * MEAN
        back.append((stay + towards * gain, shift, step_variances(betas, mix)[k - 1]))
    p_mean, p_cov = joint((0.0, 1.0), back)
    p_mean, p_cov = p_mean[::-1], p_cov[::-1, ::-1]
    off = p_mean - q_mean
    solved = np.linalg.solve(p_cov, np.column_stack([q_cov, off]))
    logdet = np.linalg.slogdet(p_cov)[1] - np.linalg.slogdet(q_cov)[1]
    divergence = 0.5 * (np.trace(solved[:, :-1]) + off @ solved[:, -1] - len(off) + logdet)
    wanted = divergence + 0.5 * math.log(2 * math.pi * math.e * VAR)
    assert bounds.best_bound(oracle(), mix=mix).total == pytest.approx(wanted, rel=1e-10)
    twin = bounds.best_bound(oracle(), mix=abs(mix - 0.05)).total
    assert twin != pytest.approx(wanted, rel=1e-5)


def test_two_dimensions_add_up_along_the_axes() -> None:
    """A turned Gaussian in 2-D has the bound of its two principal axes."""
    c, s = math.cos(0.6), math.sin(0.6)
    turn = np.array([[c, -s], [s, c]])
    cov = turn @ np.diag([1.9, 0.2]) @ turn.T
    mean = turn @ np.array([MEAN, -1.0])
    best = bounds.best_bound(oracle(gaussian(mean, cov)), mix=0.3)
    wanted = mp_terms(1.9, MEAN, 0.3) + mp_terms(0.2, -1.0, 0.3)
    np.testing.assert_allclose(best.terms, wanted, rtol=1e-9)
    assert best.dim == 2
    assert best.bits == pytest.approx(wanted.sum() / (2 * math.log(2)), rel=1e-10)
    assert best.bits != pytest.approx(wanted.sum() / math.log(2), rel=1e-3)


def test_where_each_variance_is_the_right_one() -> None:
    """beta for N(0, 1), where the bound is the entropy; btilde for one point, where steps are free.

    Ho et al. 2020, section 3.2.
    """
    normal = oracle(gaussian([0.0], [[1.0]]), ds.Chain.linear(12, 0.01, 0.5))
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    assert bounds.best_bound(normal, mix=1.0).total == pytest.approx(entropy, abs=1e-12)
    assert bounds.best_bound(normal, mix=0.0).total > entropy + 1e-2
    point = Oracle(ds.GaussianMixture([1.0], [[2.0]], 0.0), CHAIN)
    assert bounds.best_bound(point, mix=0.0).L_between == pytest.approx(0.0, abs=1e-14)
    assert bounds.best_bound(point, mix=1.0).L_between > 1e-2


@pytest.mark.parametrize("law", [gallery.julia_bimodal(), gallery.julia_trimodal(), gaussian()])
@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_the_bound_lies_above_the_entropy(law: Any, mix: float) -> None:
    entropy = law.entropy()
    totals = [
        bounds.best_bound(
            Oracle(law, ds.Chain.of(ds.VP(), np.linspace(0, 1, K + 1))), mix=mix
        ).total
        for K in (4, 16)
    ]
    assert min(totals) > entropy
    if mix == 1.0:  # and more steps cost less, down to the entropy of this law
        assert totals[1] - entropy < 0.5 * (totals[0] - entropy)
        other = gaussian(np.zeros(law.dim), 1.3 * np.eye(law.dim)).diffuse(ds.Transition(3.0, 1.0))
        assert min(totals) < other.entropy()  # a twin of another width is not bounded


# ---------------------------------------------------------------- variances


@pytest.mark.parametrize("mix", [0.0, 0.25, 0.5, 1.0])
def test_variances(mix: float) -> None:
    for chain in (CHAIN, ds.Chain.cosine(30), ds.Chain.linear(1000)):
        found = bounds.variances(chain, mix)
        np.testing.assert_allclose(found, step_variances(chain.betas, mix), rtol=1e-9)
        assert found.shape == (chain.K,)
    low, high = bounds.variances(CHAIN, 0.0), bounds.variances(CHAIN, 1.0)
    np.testing.assert_array_equal(high, CHAIN.betas)
    # btilde < beta, but for the first, which would be 0 and is replaced by the second.
    assert np.all(low[1:] < high[1:])
    assert low[0] == low[1] > 0
    between = bounds.variances(CHAIN, mix)
    np.testing.assert_allclose(np.log(between), mix * np.log(high) + (1 - mix) * np.log(low))
    if 0 < mix < 1:  # the wrong twin mixes the variances, not their logarithms
        assert not np.allclose(between[1:], (mix * high + (1 - mix) * low)[1:], rtol=1e-6)


def test_a_chain_of_one_step() -> None:
    chain = ds.Chain([0.3])
    assert bounds.variances(chain, 0.0).tolist() == [0.3]
    best = bounds.best_bound(oracle(gaussian([0.0], [[1.0]]), chain))
    assert best.terms.shape == (2,)
    assert best.L_between == 0.0
    assert best.total == pytest.approx(0.5 * math.log(2 * math.pi * math.e), abs=1e-12)


# ---------------------------------------------------------------- Monte Carlo


@pytest.mark.parametrize("law", [gaussian(), gallery.julia_bimodal(), gallery.julia_trimodal()])
@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_monte_carlo_meets_quadrature(law: Any, mix: float) -> None:
    """Seed 6: every term and the total of the exact model within 4.9 standard errors."""
    model = Oracle(law, CHAIN)
    best = bounds.best_bound(model, mix=mix)
    found = bounds.bound(model, law.sample(20_000, 6), np.random.default_rng(7), mix=mix)
    assert np.all(np.abs(found.terms - best.terms) < LIMIT * found.errors)
    assert abs(found.total - best.total) < LIMIT * found.error
    assert abs(found.total - 1.05 * best.total) > LIMIT * found.error  # 5 % off


def test_no_model_beats_the_exact_one() -> None:
    """Seed 6: a model whose eps is half too large lies above the best by more than 4.9 errors."""

    class Off(Oracle):
        def eps(self, x: Any, t: Any) -> Any:
            return 1.5 * super().eps(x, t)

    law = gallery.julia_bimodal()
    x0 = law.sample(20_000, 6)
    found = bounds.bound(Off(law, CHAIN), x0, np.random.default_rng(7))
    assert found.total - bounds.best_bound(Oracle(law, CHAIN)).total > LIMIT * found.error


def test_the_stated_error_is_the_spread() -> None:
    """Seed 8: 400 bounds of 60 points; their spread has a relative error of 1/sqrt(800) = 3.5 %.

    The totals are sums over 60 independent points, whose kurtosis adds 1 % at most to that.
    """
    law, random = gaussian(), np.random.default_rng(8)
    chain = ds.Chain.linear(3, 0.2, 0.6)
    runs = [bounds.bound(Oracle(law, chain), law.sample(60, random), random) for _ in range(400)]
    spread = np.std([run.total for run in runs], ddof=1)
    stated = math.sqrt(np.mean([run.error**2 for run in runs]))
    limit = LIMIT * 1.15 / math.sqrt(800)
    assert abs(spread / stated - 1) < limit
    assert abs(spread / (1.4 * stated) - 1) > limit  # the wrong twin
    terms = np.std([run.terms for run in runs], axis=0, ddof=1)
    each = np.sqrt(np.mean([run.errors**2 for run in runs], axis=0))
    assert np.all(np.abs(terms / each - 1) < limit)


@pytest.mark.parametrize("law", [gaussian(), gallery.julia_bimodal(), gallery.julia_trimodal()])
@pytest.mark.parametrize("process", [CHAIN, ds.VP(), ds.RectifiedFlow()])
def test_best_simple_is_the_mean_of_simple(law: Any, process: Any) -> None:
    """Seed 9; the wrong twin is 10 % off."""
    model, random = Oracle(law, process), np.random.default_rng(9)
    for t in (1.0, 3.0, 6.0) if process is CHAIN else (0.1, 0.3):
        x0 = law.sample(50_000, random)
        rows = losses.simple(model, x0, t, random.standard_normal(x0.shape))
        error = rows.std() / math.sqrt(len(rows))
        best = bounds.best_simple(model, t)
        assert rows.shape == (50_000,)
        assert abs(rows.mean() - best) < LIMIT * error
        assert abs(rows.mean() - 1.1 * best) > LIMIT * error


@pytest.mark.parametrize("k", [1, 3, 6])
def test_best_simple_of_a_gaussian(k: int) -> None:
    abar = math.prod(1 - CHAIN.betas[:k])
    wanted = abar * VAR / (abar * VAR + 1 - abar)
    assert bounds.best_simple(oracle(), float(k)) == pytest.approx(wanted, rel=1e-11)
    square = gaussian([0.0, 1.0], np.diag([VAR, VAR]))
    assert bounds.best_simple(oracle(square), float(k)) == pytest.approx(2 * wanted, rel=1e-11)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("mix", [-0.1, 1.1, float("nan")])
def test_a_mix_outside_is_refused(mix: float) -> None:
    calls = (
        lambda: bounds.variances(CHAIN, mix),
        lambda: bounds.best_bound(oracle(), mix=mix),
        lambda: bounds.bound(oracle(), np.zeros((3, 1)), 0, mix=mix),
    )
    for call in calls:
        with pytest.raises(ArgumentError, match="mix must lie in"):
            call()


def test_a_bound_needs_a_chain_and_a_generator() -> None:
    smooth = Oracle(gaussian(), ds.VP())
    with pytest.raises(ArgumentError, match="discrete Chain"):
        bounds.best_bound(smooth)
    with pytest.raises(ArgumentError, match="discrete Chain"):
        bounds.bound(smooth, np.zeros((3, 1)), 0)
    with pytest.raises(ArgumentError, match="generator"):
        bounds.bound(oracle(), np.zeros((3, 1)), None)
