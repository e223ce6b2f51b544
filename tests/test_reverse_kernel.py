"""The study reverse_kernel: its averages, its powers and totals, and verdicts that can fail.

Nothing in the study is drawn at random. Where `likelihood`, which does draw, stands beside it, the
limit is |z| < 4.9 (a false-alarm rate of 1e-6) with the seeds stated.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import (
    VP,
    Chain,
    GaussianMixture,
    Oracle,
    bounds,
    gallery,
    reverse,
    runner,
)
from diffscience.errors import ArgumentError
from diffscience.study import Run

STUDIES = Path(__file__).parents[1] / "studies"
STUDY, _ = runner.load(STUDIES / "reverse_kernel.py")
study: Any = sys.modules["diffscience_studies.reverse_kernel"]

TINY = study.Config(
    targets=("bimodal", "trimodal"), levels=(0.2, 0.7), betas=7, fitted=6, steps=(3, 4, 5, 6),
    plane_steps=(3, 4, 5, 6), map_steps=4, map_pixels=9, plane_levels=(0.1, 0.8), pixels=4,
    spacing=1.0,
)  # fmt: skip
FULL = STUDY.config


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(0))
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------ steps and averages


@pytest.mark.parametrize(("level", "beta"), [(0.3, 0.01), (0.3, 0.3), (0.95, 0.9)])
def test_one_step_ends_at_the_noise_level(level: float, beta: float) -> None:
    oracle, k = study.one_step(gallery.julia_bimodal(), level, beta)
    assert k == oracle.process.K
    assert oracle.process.var(k) == pytest.approx(level, rel=1e-12)
    assert oracle.process.between(k - 1, k).var == pytest.approx(beta, rel=1e-12)


@pytest.mark.parametrize("name", sorted(study.TARGETS))
@pytest.mark.parametrize("level", [0.02, 0.3, 0.95])
def test_the_grid_averages_as_the_quadrature_does(name: str, level: float) -> None:
    """Mass to 2e-8 and E|grad^3 h|^2 to 2e-6; on every second point of the grid it is not."""
    oracle, k = study.one_step(study.TARGETS[name](), level, 0.5 * level)
    law = oracle.at(k)

    def third(points: tuple[np.ndarray, np.ndarray]) -> float:
        x, w = points
        square = np.sum(reverse.third_derivatives(oracle, x, k) ** 2, axis=(1, 2, 3))
        return float(w @ square)

    found = study.grid(law, FULL.spacing)
    assert found[1].sum() == pytest.approx(1.0, abs=2e-8)
    exact = third(law.quadrature())
    assert third(found) == pytest.approx(exact, rel=2e-6)
    if law.dim == 1 and level < 0.1:  # elsewhere even that is enough
        half = (found[0][::2], 2 * found[1][::2])
        assert third(half) != pytest.approx(exact, rel=2e-6)


def test_the_price_on_the_grid_is_that_of_the_quadrature() -> None:
    """With the coarser rule of the plane too: 1e-6; a hundredth of a step more does not."""
    for name, beta in (("bimodal", 0.1), ("comb", 0.02), ("trimodal", 0.1)):
        oracle, k = study.one_step(study.TARGETS[name](), 0.2, beta)
        ours, exact = study.cost(FULL, oracle, k), reverse.price(oracle, k - 1, k)
        other, j = study.one_step(study.TARGETS[name](), 0.2, 1.01 * beta)
        for s2 in (float(exact.optimal), beta):
            assert ours.given(s2) == pytest.approx(float(exact.given(s2)), rel=2e-6)
        assert float(ours.best) == pytest.approx(float(exact.best), rel=2e-6)
        assert float(study.cost(FULL, other, j).best) != pytest.approx(float(exact.best), rel=2e-6)


# ------------------------------------------------------------------ powers


def test_a_power_is_found_with_its_error() -> None:
    """y = a u^p (1 + c u + d u^2): p to less than its error, which a wrong p exceeds."""
    u = np.geomspace(1e-4, 1e-2, 8)
    for p, c, d in ((2.0, 3.0, 0.0), (3.0, -20.0, 400.0), (1.0, 0.5, -10.0)):
        y = 0.7 * u**p * (1 + c * u + d * u * u)
        found, error, coefficient = study.power(u, y)
        assert abs(found - p) < error < 1e-2
        assert coefficient == pytest.approx(0.7, rel=5e-3)
        for wrong in (p - 0.05, p + 0.05):
            assert abs(found - wrong) > error
    assert study.power(u, 2 * u**1.5)[:2] == pytest.approx((1.5, 0.0), abs=1e-9)


@pytest.mark.parametrize("name", sorted(study.TARGETS))
def test_the_powers_and_coefficients_are_those_of_theory(name: str) -> None:
    """At the noise level 0.3: each power within its error, coefficients within 2e-3.

    The coefficients of the four differ by more, and the powers by 1.
    """
    config = dataclasses.replace(FULL, betas=12, fitted=6, spacing=0.5)
    found = study.against_beta(config, name, 0.3)
    betas = study.betas_of(config, 0.3)[:6]
    for kind, kl, leading in zip(study.GAUSSIANS, found["cost"][:, :6], found["leading"]):
        power, error, coefficient = study.power(betas, kl)
        assert abs(power - study.POWERS[kind]) < error + 1e-6
        assert error < 0.02
        assert coefficient / leading == pytest.approx(1.0, abs=2e-3)
        assert abs(power - (5 - study.POWERS[kind])) > error + 1e-6
    for i in range(4):
        for j in range(i):
            assert abs(found["leading"][i] / found["leading"][j] - 1) > 0.01
    assert np.all(found["cost"][0] <= found["cost"][1])
    assert np.all(found["cost"][1, :-1] <= found["cost"][2:, :-1].min(axis=0))


def test_small_enough_is_where_the_curve_crosses() -> None:
    betas = np.geomspace(1e-4, 1.0, 9)
    assert study.small_enough(betas, 4 * betas**2) == pytest.approx(0.05)
    assert study.small_enough(betas, 1e-3 * betas) == math.inf
    assert study.small_enough(betas, 1 + betas) == betas[0]


# ------------------------------------------------------------------ chains


def test_the_totals_are_the_gap_of_the_bound(arrays: dict[str, np.ndarray]) -> None:
    """To 1e-7 on the line; without the prior, or with the other variances, they are not."""
    rows = study.totals_table(TINY, arrays)
    line = rows[rows["target"] == "bimodal"]
    for kind in ("beta", "btilde"):
        assert line[f"difference, {kind}"].abs().max() < 1e-7
    cosine = line[line["schedule"] == "cosine"]
    assert (cosine["prior"] > 1e-4).all()
    assert ((cosine["beta"] - cosine["bound - entropy, btilde"]).abs() > 0.1).all()
    assert ((rows["best"] < rows["optimal"]) & (rows["optimal"] < rows["beta"])).all()


def test_the_totals_of_the_study_likelihood() -> None:
    """`least_bound` with the best variances there, drawn; optimal here. Seeds 5, 6; |z| < 4.9."""
    runner.load(STUDIES / "likelihood.py")
    likelihood: Any = sys.modules["diffscience_studies.likelihood"]
    law, K = gallery.julia_bimodal(), 40
    x0 = law.sample(1000, 5)
    z = np.random.default_rng(6).standard_normal(x0.shape)
    config = dataclasses.replace(likelihood.STUDY.config, steps=(K,), chain=K)
    levels = likelihood.levels_of(config)
    doubts = likelihood.uncertainty(law, levels, x0, z)
    theirs = likelihood.bounds_of_chains(config, law, levels, doubts, x0)
    found = study.over_chain(FULL, "bimodal", "cosine", K)
    ours = found["prior"] + found["cost"].sum(axis=1)
    place = likelihood.SCHEDULES.index("cosine")
    for i, kind in ((1, "best"), (2, "beta"), (3, "btilde")):
        value, error = theirs[place, 0, likelihood.VARIANCES.index(kind)]
        assert abs(law.entropy() + ours[i] - value) < 4.9 * error + 2e-4
        assert error < 0.01
    value, error = theirs[place, 0, likelihood.VARIANCES.index("best")]
    assert abs(law.entropy() + ours[2] - value) > 4.9 * error + 2e-4  # beta is not the best


def test_best_chains_fall_as_the_square_of_the_steps_and_others_as_the_steps() -> None:
    """Measured between K = 60 and 120 against 2 and 1; the leading terms come within 10 %."""
    found = [study.over_chain(FULL, "bimodal", "cosine", K) for K in (60, 120)]
    few, many = (f["cost"].sum(axis=1) for f in found)
    best, optimal, beta = np.log2(few / many)[:3]
    assert best == pytest.approx(2, abs=0.1)
    assert optimal == pytest.approx(1, abs=0.1)
    assert beta == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(many[:3], found[1]["leading"].sum(axis=1), rtol=0.15)
    closer = np.abs(many[:3] / found[1]["leading"].sum(axis=1) - 1)
    assert np.all(closer < np.abs(few[:3] / found[0]["leading"].sum(axis=1) - 1))


def test_what_remains_with_btilde() -> None:
    """For data N(0, 1), whose kernels have the variance beta: 0.442, not 0.153 or 0.289, at 1e5."""
    for chain in (study.chain_of("linear", 100_000), study.chain_of("cosine", 100_000)):
        ratio = chain.betas / bounds.variances(chain)
        total = 0.5 * np.sum(ratio - 1 - np.log(ratio))
        assert total == pytest.approx(study.FLOOR, abs=5e-3)
        assert total != pytest.approx(0.5 * (1 - math.log(2)), abs=5e-3)
        assert total != pytest.approx(study.FLOOR - 0.5 * (1 - math.log(2)), abs=5e-3)
    normal = Oracle(GaussianMixture([1.0], [[0.0]], [[[1.0]]]), Chain.cosine(20))
    price = reverse.chain_price(normal)
    np.testing.assert_allclose(price.optimal, normal.process.betas, rtol=1e-9)  # type: ignore[attr-defined]
    series = math.fsum(1 / k - math.log1p(1 / k) for k in range(1, 100_000))
    assert 0.5 * (1 - math.log(2) + series) == pytest.approx(study.FLOOR, abs=1e-5)


def test_the_schedules() -> None:
    linear = study.chain_of("linear", 50)
    np.testing.assert_allclose(linear.alpha(np.arange(51)), VP().alpha(np.arange(51) / 50))
    np.testing.assert_allclose(study.chain_of("cosine", 50).betas, Chain.cosine(50).betas)


# ------------------------------------------------------------------ pictures


def test_the_kernels_that_are_shown(arrays: dict[str, np.ndarray]) -> None:
    """Mass 1 within 4 standard deviations, mean and KL of the plotted curves."""
    for (y, kernel, normal), (mean, std, kl) in zip(
        arrays["shown densities"], arrays["shown facts"]
    ):
        cell = y[1] - y[0]
        for p in (kernel, normal):
            assert p.sum() * cell == pytest.approx(1, abs=2e-3)
            assert (p * y).sum() * cell == pytest.approx(mean, abs=5e-3 * std)
        plotted = (kernel * np.log(kernel / normal)).sum() * cell
        assert plotted == pytest.approx(kl, rel=0.01, abs=1e-6)
    first = arrays["shown facts"]
    assert np.all(np.diff(first[:, 2]) < 0)


def test_the_maps(arrays: dict[str, np.ndarray]) -> None:
    """Two pixels of each against a kernel of their own."""
    chain = Chain.cosine(TINY.map_steps)
    oracle = Oracle(gallery.julia_bimodal(), chain)
    x, kl = arrays["bimodal map x"], arrays["bimodal map kl"]
    assert kl.shape == arrays["bimodal map log density"].shape == (4, 9)
    own = reverse.kernels(oracle, x[[3]][:, None], 2, 3).non_gaussianity()
    assert kl[2, 3] == pytest.approx(own.item(), rel=1e-9)
    half = float(arrays["trimodal map half"])
    oracle, k = study.one_step(gallery.julia_trimodal(), 0.8, TINY.plane_beta)
    at = np.array([[half * (2 * 2 + 1) / 4 - half, half * (2 * 1 + 1) / 4 - half]])
    own = reverse.kernels(oracle, at, k - 1, k).non_gaussianity(0.8)
    assert arrays["trimodal map kl"][1, 1, 2] == pytest.approx(own.item(), rel=1e-9)
    density = oracle.at(k).log_prob(at)[0]
    assert arrays["trimodal map log density"][1, 1, 2] == pytest.approx(density, rel=1e-12)


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "beta", "totals", "powers"]
    assert len(tables[""]) == 2 * 2 * 4
    assert len(tables["beta"]) == 2 * 2 * TINY.betas
    assert len(tables["totals"]) == 2 * 2 * 4
    some = tables["beta"].iloc[TINY.betas : 2 * TINY.betas]
    assert set(some["target"]) == {"bimodal"} and set(some["noise level"]) == {0.7}
    np.testing.assert_array_equal(some["beta_k"], study.betas_of(TINY, 0.7))
    np.testing.assert_array_equal(some[list(study.GAUSSIANS)].T, arrays["bimodal 0.7 cost"])
    row = tables["totals"].iloc[0]
    assert row["best"] == pytest.approx(arrays["bimodal cosine 3 cost"][0].sum())
    assert row["btilde - its limit"] == pytest.approx(row["btilde"] - study.FLOOR)
    assert row["best/leading"] == pytest.approx(
        row["best"] / arrays["bimodal cosine 3 leading"][0].sum()
    )
    plane = tables["totals"].iloc[-1]
    assert plane["btilde - its limit"] == pytest.approx(plane["btilde"] - 2 * study.FLOOR)
    powers = tables["powers"].iloc[0]
    few, many = (arrays[f"bimodal cosine {K} cost"][0].sum() for K in (5, 6))
    assert powers["between the last two K"] == pytest.approx(math.log(few / many, 6 / 5))


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "levels", "map", "map_trimodal", "totals"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


def test_the_same_config_gives_the_same_bytes(arrays: dict[str, np.ndarray]) -> None:
    """Each level and chain alone, without the NaN that fill the rows of a sweep."""
    again = {f"bimodal 0.2 {k}": v for k, v in study.against_beta(TINY, "bimodal", 0.2).items()}
    for name, schedule, K in (("bimodal", "linear", 3), ("trimodal", "cosine", 6)):
        own = study.over_chain(TINY, name, schedule, K)
        assert own["cost"].shape == (4, K) and own["leading"].shape == (3, K)
        again |= {f"{name} {schedule} {K} {key}": value for key, value in own.items()}
    for key, value in again.items():
        assert value.tobytes() == arrays[key].tobytes()
        assert np.isfinite(value).all() or key.endswith("0.2 cost")  # btilde = 0 at the end


def test_the_executor_of_the_run_computes_levels_and_chains(
    arrays: dict[str, np.ndarray], lossy: Any
) -> None:
    """Every one of them, once more where a worker dies, and to the same bytes."""
    config = dataclasses.replace(TINY, plane_steps=(3, 4, 5, 7))
    again = STUDY.compute(config, Run(0, executor=lossy))
    assert lossy.counts() == {"level_cell": 2 * 4, "chain_cell": 2 * 2 * (4 + 4)}
    assert again["trimodal linear 7 cost"].shape == (4, 7)
    assert "bimodal linear 7 cost" not in again and "trimodal linear 6 cost" not in again
    for key in arrays.keys() & again.keys():
        assert again[key].tobytes() == arrays[key].tobytes()


def test_the_committed_tables() -> None:
    """Full mode: powers and coefficients are those of theory, no Gaussian is better than the best
    and no number than the optimal one, and chains pay what the bound leaves.
    """
    figures = STUDIES.parent / "figures"

    def rows(name: str) -> list[dict[str, str]]:
        text = (figures / f"reverse_kernel{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    main, every, totals = rows(""), rows("_beta"), rows("_totals")
    config = json.loads((figures / "reverse_kernel.json").read_text("utf-8"))["config"]
    keys = [(name, level) for name in config["targets"] for level in config["levels"]]
    assert len(config["targets"]) >= 3 and len(config["levels"]) >= 5
    assert len(main) == 4 * len(keys)
    for r in main:
        error = float(r["its error"])
        assert int(r["theory"]) == study.POWERS[r["Gaussian"]]
        assert abs(float(r["power of beta"]) - int(r["theory"])) < error + 1e-5 < 0.01
        assert abs(float(r["relative difference"])) < 0.01
    for name, level in keys:
        own = [r for r in every if (r["target"], float(r["noise level"])) == (name, level)]
        kl = np.array([[float(r[kind] or "nan") for r in own] for kind in study.GAUSSIANS])
        assert np.isfinite(kl[:, :-1]).all() and np.isnan(kl[3, -1])  # btilde = 0 at the end
        assert np.all(np.diff(kl[:3]) > 0) and np.all(np.diff(kl[3, :-1]) > 0)
        assert np.all(kl[0] < kl[1]) and np.all(kl[1, :-1] < kl[2:, :-1])
        ratio = (level / config["smallest"]) ** (1 / (config["betas"] - 1))
        found = np.log(kl[:, 1] / kl[:, 0]) / math.log(ratio)
        np.testing.assert_allclose(found, [study.POWERS[k] for k in study.GAUSSIANS], atol=0.15)
    for r in totals:
        best, optimal, beta, btilde = (float(r[kind]) for kind in study.GAUSSIANS)
        assert best < optimal < min(beta, btilde)
        for kind, value in (("beta", beta), ("btilde", btilde)):
            gap = float(r[f"bound - entropy, {kind}"])
            assert float(r["prior"]) + value == pytest.approx(gap, abs=1e-6)
    for r in rows("_powers"):
        error = float(r["its error"])
        assert abs(float(r["power of 1/K"]) - int(r["theory"])) < 2 * error + 1e-3 < 0.25
    last = {(r["target"], r["schedule"]): r for r in totals}
    for r in last.values():  # the longest chains: btilde alone does not close
        assert float(r["btilde - its limit"]) > 0 and float(r["btilde"]) > 10 * float(r["beta"])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("rolls",)),
        ("targets", ()),
        ("targets", ("trimodal",)),
        ("levels", (0.5, 0.2)),
        ("levels", (0.2, 1.0)),
        ("levels", ()),
        ("smallest", 0.02),
        ("betas", 5),
        ("fitted", 4),
        ("level", 0.5),
        ("shown", (0.9,)),
        ("shown", ()),
        ("steps", (10, 20, 30)),
        ("plane_steps", (2, 3, 4, 5)),
        ("plane_levels", (0.0, 0.5)),
        ("plane_beta", 0.1),
        ("spacing", 0.0),
        ("pixels", 1),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(FULL, **{field: value})
