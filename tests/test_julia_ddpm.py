"""The study julia_ddpm: the published losses, the causes one by one, and what the tables promise.

Published numbers: R. Rosa, random_notes, page *Denoising diffusion probabilistic models* (CC BY
4.0), Julia 1.12.1. They are in the study; here they are compared with, and shown not to leak.
The exact facts about the note's sampler come from an expectation that is carried back through the
chain by quadrature, which draws nothing and shares no code with the sampler.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.interpolate import CubicSpline
from scipy.special import expit, ndtr

import diffscience as ds
from diffscience import bounds, gallery, notes, runner, samplers
from diffscience.models import Oracle
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "julia_ddpm.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.julia_ddpm"]

TINY = dataclasses.replace(
    STUDY.quick,
    first_epochs=3, second_epochs=2, seed_epochs=2, samples=60, bound_points=40, networks=3,
    mended_steps=4, mended_chain=12, ema=0.5, mended_samples=50, refinements=(4, 8), seed=3,
)  # fmt: skip
LIMIT = 4.9
N = 20_000


@functools.cache
def replayed() -> dict[str, np.ndarray]:
    """Both published runs in full, once for all tests."""
    return study.replay(study.Config())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes, without a cache."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


# ---------------------------------------------------------------- the published runs


def test_the_printed_losses_are_all_there() -> None:
    first, second = study.PUBLISHED["first"], study.PUBLISHED["second"]
    assert list(first) == list(range(0, 1001, 50))
    assert list(second) == list(range(0, 5001, 250))


def test_before_training_to_the_last_digits() -> None:
    """1e-10: another processor or mathematical library may round the sums differently."""
    found = replayed()
    assert found["checked"] == pytest.approx(study.PUBLISHED_FIRST_GRADIENT, rel=1e-10)
    assert found["first_loss"][0] == pytest.approx(study.PUBLISHED["first"][0], rel=1e-10)
    assert found["second_loss"][0] == pytest.approx(study.PUBLISHED["second"][0], rel=1e-10)
    assert found["first_loss"].shape == (1001,)
    assert found["second_loss"].shape == (5001,)


@pytest.mark.parametrize(("name", "limit"), [("first", 1e-5), ("second", 1e-3)])
def test_every_published_loss(name: str, limit: float) -> None:
    """Training amplifies rounding, so the second run, five times as long, is given more room."""
    loss, printed = replayed()[f"{name}_loss"], study.PUBLISHED[name]
    assert len(printed) == 21
    for epoch, value in printed.items():
        assert loss[epoch] == pytest.approx(value, rel=limit), epoch
    # The wrong twin: one epoch late.
    assert not all(
        loss[e + 1] == pytest.approx(v, rel=0.01) for e, v in printed.items() if e < 1000
    )


def test_the_main_table_compares_and_does_not_copy(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other printed numbers the losses stay, in `compute` and in the table."""
    before = study.table(TINY, arrays)
    for run, printed in study.PUBLISHED.items():
        monkeypatch.setitem(study.PUBLISHED, run, {e: 7.0 * p for e, p in printed.items()})
    monkeypatch.setattr(study, "PUBLISHED_FIRST_GRADIENT", 1.0)
    after = study.table(TINY, arrays)
    np.testing.assert_array_equal(before[""]["loss"], after[""]["loss"])
    both = before[""]["published"].notna()
    assert both.sum() == 2
    assert (before[""]["published"] != after[""]["published"])[both].all()
    assert (after[""]["relative difference"][both] > 0.5).all()
    # The second run's stream goes on where the first ends: after three epochs it is another one,
    # and the published losses have no place beside it.
    assert (before[""]["relative difference"][:2] < 1e-10).all()
    for name in ("samples", "steps", "bound"):
        assert before[name].equals(after[name])
    again = study.replay(TINY)
    for key, value in again.items():
        np.testing.assert_array_equal(value, arrays[key])


# ---------------------------------------------------------------- chains


@pytest.mark.parametrize("K", [20, 80, 320, 1280])
def test_the_sane_chain_ends_near_1e_4(K: int) -> None:
    chain = study.sane_chain(K)
    assert chain.K == K
    abar = float(np.prod(1 - chain.betas))
    assert abar == pytest.approx(1.0e-4, rel=0.02)
    # B(1) = 0.1 + 18.2/2 of the process that it samples.
    assert abar == pytest.approx(math.exp(-9.2), rel=1e-10)
    assert np.all(np.diff(chain.betas) > 0)
    # The note's schedules end far from it.
    assert np.prod(1 - notes.linear_betas()) < 1e-20
    assert np.prod(1 - notes.polynomial_betas()) < 1e-6


# ---------------------------------------------------------------- the exact model, fault by fault

GRID = np.linspace(-15, 15, 3001)


@functools.cache
def exact(sigma: str) -> tuple[float, float, float, float]:
    """P(x < 0), mean, std and kurtosis of the note's loop with the exact eps on its schedule.

    u_k(x) = E[f(x_1) | x_k = x] = E u_(k-1)(m_k(x) + s_k Z), by Gauss-Hermite rules and splines on
    a grid, from the last noise, where it is in closed form, up to x_K ~ N(0, 1).
    """
    betas = np.linspace(0.02, 0.8, 80)
    std = betas if sigma == "beta" else np.sqrt(betas)
    z, weight = np.polynomial.hermite_e.hermegauss(40)
    weight /= weight.sum()
    u = np.empty(0)
    for k in range(2, 81):
        shift = 3 * math.sqrt(np.prod(1 - betas[:k]))  # the two modes of p_k, of variance 1 again
        right = expit(math.log(9) + 2 * shift * GRID)
        score = shift * (2 * right - 1) - GRID
        m, s = (GRID + betas[k - 1] * score) / math.sqrt(1 - betas[k - 1]), std[k - 1]
        if k == 2:
            powers = [m, m**2 + s**2, m**3 + 3 * m * s**2, m**4 + 6 * m**2 * s**2 + 3 * s**4]
            u = np.stack([ndtr(-m / s), *powers], axis=-1)
        else:
            x = np.clip(m[:, None] + s * z, GRID[0], GRID[-1])
            u = np.einsum("j,ijk->ik", weight, CubicSpline(GRID, u)(x))
    start = np.exp(-0.5 * GRID**2)
    left, m1, m2, m3, m4 = (start / start.sum()) @ u
    var = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    return float(left), float(m1), math.sqrt(var), float(fourth / var**2)


@functools.cache
def drawn(sigma: str) -> np.ndarray:
    """The study's loop with the exact eps; seed 11."""
    model = Oracle(gallery.julia_bimodal(), ds.Chain(notes.linear_betas()))
    found = study.reverse(model, N, sigma, False, np.random.default_rng(11))
    return found


def agrees(x: np.ndarray, wanted: tuple[float, float, float, float], limit: float) -> bool:
    """Mean and std within `limit` standard errors; the count left of 0 within its 1e-6 band."""
    left, mean, std, kurtosis = wanted
    n = len(x)
    low, high = stats.binom.ppf([5e-7, 1 - 5e-7], n, left)
    return (
        abs(x.mean() - mean) < limit * std / math.sqrt(n)
        and abs(x.var() / std**2 - 1) < limit * math.sqrt((kurtosis - 1) / n)
        and bool(low <= np.sum(x < 0) <= high)
    )


def test_sigma_beta_misses_the_left_mode() -> None:
    """6 standard errors, as 30 stray points of 20,000 make the variance: a Poisson tail at 1e-6."""
    wanted = exact("beta")
    assert 0.35 < wanted[2] < 0.5
    assert wanted[0] < 0.01
    assert agrees(drawn("beta"), wanted, 6.0)
    assert not agrees(drawn("sqrt beta"), wanted, 6.0)
    left, mean, std, kurtosis = wanted
    assert not agrees(drawn("beta"), (left, mean, 1.3 * std, kurtosis), 6.0)


def test_sigma_root_beta_finds_it() -> None:
    wanted = exact("sqrt beta")
    assert 1.9 < wanted[2] < 2.0
    assert 0.08 < wanted[0] < 0.10
    assert agrees(drawn("sqrt beta"), wanted, LIMIT)
    assert not agrees(drawn("beta"), wanted, LIMIT)
    left, mean, std, kurtosis = wanted
    assert not agrees(drawn("sqrt beta"), (left, mean, 1.05 * std, kurtosis), LIMIT)
    assert not agrees(drawn("sqrt beta"), (1.2 * left, mean, std, kurtosis), LIMIT)


@pytest.mark.parametrize(("sigma", "mix"), [("sqrt btilde", 0.0), ("sqrt beta", 1.0)])
@pytest.mark.parametrize("last_step", [True, False])
def test_the_mended_loop_is_ancestral_sampling(sigma: str, mix: float, last_step: bool) -> None:
    """The note's formula and the package's sampler on the same noise."""
    chain = study.sane_chain(30)
    model = Oracle(gallery.julia_bimodal(), chain)
    found = study.reverse(model, 50, sigma, last_step, np.random.default_rng(4))
    random = np.random.default_rng(4)
    x, times = random.standard_normal((50, 1)), np.arange(30, -1 if last_step else 0, -1.0)
    wanted = samplers.last(samplers.ancestral(model, x, times, random, mix=mix))[:, 0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
    twin = study.reverse(model, 50, "beta", last_step, np.random.default_rng(4))
    assert np.abs(twin - wanted).max() > 0.1


class Written:
    """A generator whose normal numbers are written down beforehand."""

    def __init__(self, rows: list[np.ndarray]) -> None:
        self.rows = iter(rows)

    def standard_normal(self, shape: tuple[int, int]) -> np.ndarray:
        return next(self.rows).reshape(shape)


def test_the_faulty_loop_is_the_loop_of_the_note() -> None:
    """`reverse` with every fault = `notes.backward_chain`, with a network, on the same noise."""
    found = replayed()
    betas = found["first_betas"]
    params = study._unpacked("first", found)
    x = np.linspace(-1, 1, 9)
    noise = notes.Xoshiro(5).randn((80, 9))
    wanted = notes.backward_chain(notes.Xoshiro(5), x, betas, params)[0]
    rows: Any = Written([x, *noise[78::-1]])
    got = study.reverse(study.Replayed(params, betas), 9, "beta", False, rows)
    np.testing.assert_allclose(got, wanted, rtol=1e-9)


# ---------------------------------------------------------------- the learned networks


def test_a_replayed_network_is_a_model_of_its_chain() -> None:
    found = replayed()
    params = study._unpacked("first", found)
    assert [w.shape for w, _ in params] == [(64, 2), (1, 64)]
    model = study.Replayed(params, found["first_betas"])
    x, k = np.array([[-2.0], [0.5]]), 20.0
    (w0, b0), (w1, b1) = ((w.astype(float), b.astype(float)) for w, b in params)
    hidden = np.maximum(np.column_stack([x, [k, k]]) @ w0.T + b0, 0)
    np.testing.assert_allclose(model.eps(x, k), hidden @ w1.T + b1, rtol=1e-12)
    abar = np.prod(1 - found["first_betas"][:20])
    wanted = (x - math.sqrt(1 - abar) * model.eps(x, k)) / math.sqrt(abar)
    np.testing.assert_allclose(model.x0(x, k), wanted, rtol=1e-10)


def test_fixing_sigma_alone_explodes_with_the_learned_network() -> None:
    """Seed 12: the first run's network; the exact model on the same noise stays at 1.96."""
    found = replayed()
    betas = found["first_betas"]
    model = study.Replayed(study._unpacked("first", found), betas)
    x = study.reverse(model, 2000, "sqrt beta", False, np.random.default_rng(12))
    assert x.std() > 100
    oracle = Oracle(gallery.julia_bimodal(), ds.Chain(betas))
    assert study.reverse(oracle, 2000, "sqrt beta", False, np.random.default_rng(12)).std() < 2.2
    # As published its samples gather near 0.8, and the left mode stays empty: 9 % of U are there.
    assert found["first_samples"].min() > -1.5
    assert np.median(found["first_samples"]) < 1.5


def test_the_networks_lie_above_the_least_loss_and_bound() -> None:
    """Exact excesses of the first network by quadrature; its bound by 2000 points, seed 3."""
    found = replayed()
    config = dataclasses.replace(TINY, bound_points=2000)
    rows = study.bound_of("first", config, study.arrays_of(found, "first"), 3)
    entropy = gallery.julia_bimodal().entropy()
    (best_small, best_large), learned = rows["rows"][:2, 3], rows["rows"][2:]
    assert min(best_small, best_large) > entropy
    assert np.all(learned[:, 3] - [best_small, best_large] > LIMIT * learned[:, 4])
    np.testing.assert_allclose(rows["rows"][:, :3].sum(1), rows["rows"][:, 3], rtol=1e-10)
    assert np.all(rows["fisher"][:, 1] > 0)
    oracle = Oracle(gallery.julia_bimodal(), ds.Chain(found["first_betas"]))
    least = np.mean([bounds.best_simple(oracle, float(k)) for k in range(1, 81)])
    assert found["first_loss"][-50:].mean() > least
    assert study._best_simple(found["first_betas"]) == pytest.approx(least, rel=1e-12)


# ---------------------------------------------------------------- a tiny run of everything


def test_what_is_computed(arrays: dict[str, np.ndarray]) -> None:
    assert arrays["points"].shape == (1024,)
    np.testing.assert_array_equal(arrays["points"][:2], [2.303077959422043, 2.8428423932782843])
    for i in range(len(study.CAUSES)):
        assert arrays[f"cause_{i}"].shape == (60,)
    assert arrays["steps_4"].shape == arrays["steps_8"].shape == (60,)
    for data in ("fresh", "points"):
        assert arrays[f"mended_{data}_x"].shape == (3, 50)
        assert arrays[f"mended_{data}_loss"].shape == (3, 4)
        assert arrays[f"mended_{data}_eps"].shape == (5, 161)
        for name in ("x", "loss", "bound"):
            assert (
                len(np.unique(arrays[f"mended_{data}_{name}"], axis=0)) == 3
            )  # seeds of their own
    assert arrays["seed_betas"].tolist() == pytest.approx(np.linspace(0.02, 0.4, 40))
    assert [w.shape for w, _ in study._unpacked("seed", arrays)] == [(32, 2), (32, 32), (1, 32)]
    # Samples of different causes use different streams.
    exact_rows = [arrays[f"cause_{i}"] for i, row in enumerate(study.CAUSES) if row[1] == "exact"]
    assert len({x.tobytes() for x in exact_rows}) == len(exact_rows)


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again, other = (study.mended("fresh", TINY, arrays["points"], Run(s)) for s in (3, 4))
    for name, value in again.items():
        np.testing.assert_array_equal(value, arrays[f"mended_fresh_{name}"])
    assert not np.array_equal(again["x"], other["x"])
    steps = [study.refinement(4, TINY, Run(s).generator("steps", 4))["x"] for s in (3, 4)]
    np.testing.assert_array_equal(steps[0], arrays["steps_4"])
    assert not np.array_equal(*steps)


MEASURED = [
    "n", "mean", "std", "P(x < 0)", "its error", "W1", "W1 error", "W1 floor", "W1 floor spread",
    "W1 excess", "energy", "energy error", "energy floor", "energy floor spread", "energy excess",
]  # fmt: skip


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "samples", "steps", "bound"]
    main, samples, steps, bound = tables.values()
    assert list(main) == ["run", "epoch", "loss", "published", "relative difference"]
    assert main["run"].tolist() == ["first", "first", *["seed version"] * 3]
    assert main["loss"][0] == arrays["checked"]
    assert main["published"].isna().tolist() == [False] * 2 + [True] * 3
    assert list(samples) == ["samples of", "model", "schedule", "networks", *MEASURED]
    assert len(samples) == 2 + 3 + 2 + len(study.CAUSES) + 2
    truth = samples.iloc[0]
    assert (truth["mean"], truth["std"]) == pytest.approx((2.4, math.sqrt(1 + 9 - 2.4**2)))
    assert truth["P(x < 0)"] == pytest.approx(0.1 * ndtr(3) + 0.9 * ndtr(-3))
    data = samples.iloc[1]
    assert data["n"] == 1024
    assert data["std"] == pytest.approx(arrays["points"].std())
    assert list(steps) == ["steps K", *MEASURED]
    assert steps["steps K"].tolist() == [4, 8]
    parts = ["L_0", "L_1 ... L_(K-1)", "L_K"]
    assert {"schedule", "model", "variance", *parts, "total", "error", "bits"} == set(bound)
    rest = bound.iloc[1:]
    np.testing.assert_allclose(rest[parts].sum(axis=1), rest["total"], rtol=1e-9)
    np.testing.assert_allclose(bound["bits"], bound["total"] / math.log(2))
    assert (rest["total"] > bound["total"][0]).all()
    assert len(bound) == 1 + 3 * 4 + 2 + 2
    shares = np.mean(arrays["mended_fresh_x"] < 0, axis=1)
    last = samples.iloc[-1]
    assert (last["samples of"], last["networks"], last["n"]) == ("mended, fresh data", 3, 50)
    assert last["P(x < 0)"] == pytest.approx(shares.mean())
    assert last["its error"] == pytest.approx(shares.std(ddof=1) / math.sqrt(3))
    w1, spread = (arrays["measured_mended_fresh_x"][:, i] for i in (5, 8))
    error = math.hypot(w1.std(ddof=1), spread.mean()) / math.sqrt(3)
    assert last["W1 excess"] == pytest.approx((last["W1"] - last["W1 floor"]) / error)
    totals = arrays["mended_fresh_bound"][:, 3]
    assert bound.iloc[-1]["total"] == pytest.approx(totals.mean())
    assert bound.iloc[-1]["error"] == pytest.approx(totals.std(ddof=1) / math.sqrt(3))


def test_measure_is_what_it_says() -> None:
    """Seed 13: true samples sit at the floor, shifted ones far above it."""
    law, random = gallery.julia_bimodal(), np.random.default_rng(13)
    x = law.sample(2000, random)[:, 0]
    numbers = study._metrics(study.measure(x, np.random.default_rng(1))["numbers"])
    assert list(numbers) == MEASURED
    assert numbers["n"] == 2000
    assert numbers["std"] == pytest.approx(x.std())
    assert numbers["P(x < 0)"] == pytest.approx(np.mean(x < 0))
    left = np.mean(x < 0)
    assert numbers["its error"] == pytest.approx(math.sqrt(left * (1 - left) / 2000))
    shifted = study._metrics(study.measure(x + 0.5, np.random.default_rng(1))["numbers"])
    assert shifted["W1"] == pytest.approx(0.5, abs=0.1)
    assert numbers["W1"] < 0.2
    assert shifted["W1 excess"] > 5 > numbers["W1 excess"]


def test_drawing(arrays: dict[str, np.ndarray]) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "losses", "eps", "causes", "mended"]
        png, svg = plots.save(figures["causes"], {})
    assert 0 < len(png) < 1_000_000
    assert 0 < len(svg) < 3_000_000
