"""The study likelihood: its estimates agree with what is exact, and its verdicts can fail.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import VP, GaussianMixture, Oracle, bounds, gallery, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "likelihood.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.likelihood"]

TINY = study.Config(
    targets=("julia_bimodal", "julia_trimodal"), points=10, few=10, shown=1,
    tolerances=(1e-2, 1e-4), probes=(2, 4), probe_tolerance=1e-3, nodes=17, cloud=20,
    steps=(40, 60), chain=40, drawn=10, copies=4, networks=2, train_steps=6, width=8, batch=16,
    snapshots=(2,), learned=10, pixels=3, noises=(0.8, 0.6, 0.5), level=-4.03, seed=3,
)  # fmt: skip
NORMAL = GaussianMixture([1.0], [[0.0, 0.0]], [[1.0, 0.25]])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------ flows and probes


def test_the_flow_meets_every_law() -> None:
    """Tolerance 1e-5: 1e-3; at 1e-2 it does not."""
    for name in ("julia_bimodal", "skewed_pair", "rings"):
        config = dataclasses.replace(TINY, tolerances=(1e-1, 1e-5))
        found = study.exact_and_flow(config, name, np.random.default_rng(1))
        assert np.abs(found["flow"] - found["exact"]).max() < 1e-3
        assert np.abs(found["swept"][0] - found["exact"]).max() > 1e-3
        np.testing.assert_array_equal(found["exact"], gallery.ALL[name]().log_prob(found["x"]))
        assert found["evaluations"][0] < found["evaluations"][1]


def test_the_integrated_jacobian_of_a_gaussian() -> None:
    """The flow of N(0, diag(1, 1/4)) scales axis i by s_i(T)/s_i(0): int J dt = diag log of it."""
    oracle = Oracle(NORMAL, VP())
    M = study.integrated_jacobian(oracle, np.array([[0.3, -1.0], [0.0, 2.0]]), 1e-9)
    end = VP().at(1.0)
    wanted = [0.5 * math.log((end.scale**2 * v + end.var) / v) for v in (1.0, 0.25)]
    np.testing.assert_allclose(M, np.tile(np.diag(wanted), (2, 1, 1)), atol=1e-7)


def test_probes_spread_as_the_jacobian_says() -> None:
    """Seed 2: errors within 4.9 of theirs; Rademacher's none where M is diagonal."""
    config = dataclasses.replace(TINY, probes=(4, 256), probe_tolerance=1e-4)
    x = gallery.julia_trimodal().sample(10, 2)
    found = study.with_probes(config, "julia_trimodal", x, Run(2))
    exact = gallery.julia_trimodal().log_prob(x)
    off = found["probed"][:, 1, 0] - exact
    assert np.abs(off / (found["spread"] / 16)).max() < 4.9
    own = found["probed"][1, 1, 1] / (found["spread"][1] / 16)
    assert np.all(np.abs(own - 1) < 4.9 / math.sqrt(2 * 255) + 0.05)
    flat = study.with_probes(config, "julia_bimodal", np.array([[0.5], [3.0]]), Run(2))
    assert np.all(flat["spread"][0] == 0)
    assert np.all(flat["spread"][1] > 0)


# ------------------------------------------------------------------ bounds


@pytest.mark.parametrize("variance", ["btilde", "beta"])
@pytest.mark.parametrize("schedule", ["cosine", "linear", "even log-SNR"])
def test_the_bound_by_levels_is_the_bound_by_quadrature(schedule: str, variance: str) -> None:
    """Of a Gaussian, where no point's uncertainty differs from another's."""
    law, chain = NORMAL, study.chain_of(schedule, 50)
    wanted = bounds.best_bound(Oracle(law, chain), mix=study.VARIANCES.index(variance)).total
    own = chain.log_snr(np.arange(1, 51))
    levels = np.linspace(own.min(), own.max(), 301)
    x0 = np.array(
        [[1.0, 0.5], [-1.0, -0.5], [1.0, -0.5], [-1.0, 0.5]]
    )  # E |x0|^2 as the law has it
    doubts = study.uncertainty(law, levels, x0, np.zeros((4, 2)))
    rows = study.least_bound(chain, levels, doubts, x0, variance)
    assert rows.mean() == pytest.approx(wanted, abs=2e-4)
    other = study.least_bound(chain, levels, 1.05 * doubts, x0, variance).mean()
    assert abs(other - wanted) > 2e-3


def test_the_best_variances_are_the_best() -> None:
    """Never worse than the other two, and above the entropy; by a tenth with other ones."""
    law = gallery.julia_trimodal()
    x0 = law.sample(400, 5)
    z = np.random.default_rng(6).standard_normal(x0.shape)
    levels = study.levels_of(dataclasses.replace(TINY, nodes=97))
    doubts = study.uncertainty(law, levels, x0, z)
    for schedule in study.SCHEDULES:
        chain = study.chain_of(schedule, 60)
        found = {v: study.least_bound(chain, levels, doubts, x0, v).mean() for v in study.VARIANCES}
        assert found["best"] <= min(found.values()) + 1e-9
        assert found["best"] > law.entropy() - 0.2
        assert found["btilde"] - found["best"] > 0.1


@pytest.mark.parametrize("name", ["julia_trimodal", "rings"])
def test_the_chance_of_a_bound_has_mean_0_and_is_most_of_it(name: str) -> None:
    """Seeds 7, 8; 1000 points: |z| < 4.9, the error falls tenfold; a wrong information is seen."""
    law = gallery.ALL[name]()
    x0 = law.sample(1000, 7)
    z = np.random.default_rng(8).standard_normal(x0.shape)
    levels = study.levels_of(dataclasses.replace(TINY, nodes=97))
    doubts = study.uncertainty(law, levels, x0, z)
    low, high = (study.information(law, level) for level in study.SURE)
    off = study.chance(law, levels, doubts, high - low)
    error = off.std() / math.sqrt(len(off))
    assert abs(off.mean()) < 4.9 * error
    assert abs(study.chance(law, levels, doubts, 1.05 * (high - low)).mean()) > 4.9 * error
    for schedule in study.SCHEDULES:
        rows = study.least_bound(study.chain_of(schedule, 100), levels, doubts, x0, "best")
        assert (rows - off).std() < 0.1 * rows.std()
        assert (rows - off).mean() > law.entropy()


def test_the_information_of_a_gaussian() -> None:
    """1/2 log(1 + SNR v) in each direction, to 1e-9."""
    for level in (-20.0, 0.0, 14.0):
        snr = math.exp(level)
        wanted = 0.5 * (math.log1p(snr) + math.log1p(0.25 * snr))
        assert study.information(NORMAL, level) == pytest.approx(wanted, abs=1e-9)


# ------------------------------------------------------------------ the swiss roll of 2015


def test_the_roll_has_variance_1_and_the_null_bits_of_a_normal_law() -> None:
    for noise in (0.3, 0.01):
        law = study.roll(noise)
        assert np.trace(law.cov) / 2 == pytest.approx(1, abs=1e-9)
    assert study.null_bits() == pytest.approx(-math.log2(2 * math.pi * math.e))
    mean = np.asarray(study.roll(0.01).mean)
    gap = study.null_bits() - study.null_bits(False)
    assert gap == pytest.approx(0.5 * mean @ mean / math.log(2), rel=1e-3)


def test_the_noise_is_found_where_the_entropy_is_as_wanted() -> None:
    """On a wide roll, against the entropy itself; a level outside is refused."""
    config = dataclasses.replace(TINY, noises=(0.8, 0.65, 0.5, 0.4), level=-4.0)
    exact = np.array([study.bits(n) for n in config.noises])
    wanted = 0.5 * (exact[1] + exact[2])
    noise = study.noise_for(config, exact, wanted)
    assert 0.5 < noise < 0.65
    assert study.bits(noise) == pytest.approx(wanted, abs=2e-3)
    white = study.noise_for(config, exact, wanted, True)
    assert study.bits(white) + study.whitening_bits(white) == pytest.approx(wanted, abs=2e-3)
    assert study.bits(1.02 * noise) < wanted - 2e-3
    with pytest.raises(ArgumentError, match="noises must hold the one"):
        study.noise_for(config, exact, 2.35)


def test_the_committed_likelihoods_are_exact() -> None:
    """Full mode: the flow equals every law to 1e-6, the roll's noise gives the published bits."""
    figures = FILE.parents[1] / "figures"

    def rows(name: str) -> list[dict[str, str]]:
        text = (figures / f"likelihood{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    assert {r["target"] for r in rows("")} == set(gallery.ALL) - {"empirical"}
    for r in rows(""):
        assert float(r["largest |flow - exact|"]) < 1e-6, r["target"]
        gap = float(r["bound, cosine K = 200"]) - float(r["best bound"])
        assert abs(gap) < 4.9 * math.hypot(
            float(r["error of bound"]), float(r["error of best bound"])
        )
        assert float(r["best bound"]) > float(r["entropy"]) + 4.9 * float(r["error of best bound"])
        assert float(r["error of best bound"]) < 0.3 * float(r["error of bound"])
    [first, _] = rows("_roll")
    assert float(first["-H wanted / bits"]) == 2.35
    assert float(first["-H there"]) == pytest.approx(2.35, abs=1e-3)


# ------------------------------------------------------------------ tables and figures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    names = ["", "points", "sweep", "probes", "bounds", "learned", "readings", "roll"]
    assert list(tables) == [*names, "roll_bounds"]
    row = tables[""].iloc[0]
    exact, flow = arrays["julia_bimodal exact"], arrays["julia_bimodal flow"]
    assert row["-log p, exact"] == pytest.approx(-exact.mean())
    assert row["largest |flow - exact|"] == pytest.approx(np.abs(flow - exact).max())
    assert row["entropy, bits/dim"] == pytest.approx(
        gallery.julia_bimodal().entropy() / math.log(2)
    )
    one, other = (arrays["net exact"] - arrays["net learned"][:, -1]).mean(axis=1)
    last = tables["learned"].iloc[-1]
    assert last["KL"] == pytest.approx((one + other) / 2)
    assert last["error of KL"] == pytest.approx(abs(one - other) / 2)
    one, other = arrays["net bounds"][:, 0]
    assert last["bound, network"] == pytest.approx((one + other) / 2)
    assert last["error of bound, network"] == pytest.approx(abs(one - other) / 2)
    first = tables["readings"].iloc[0]
    assert first["difference"] == pytest.approx(2.35 + math.log2(2 * math.pi * math.e) - 6.45)
    assert tables["readings"]["difference"].abs().idxmin() == 0


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, _ = plots.save(figures["roll"], {})
    assert list(figures) == ["", "points", "probes", "bounds", "learned", "roll"]
    assert len(png) < 1_000_000


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    x = arrays["julia_bimodal x"]
    for seed in (TINY.seed, 4):
        found = study.with_probes(TINY, "julia_bimodal", x, Run(seed))["probed"]
        assert np.array_equal(found, arrays["julia_bimodal probed"]) == (seed == TINY.seed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("empirical",)),
        ("few", 11),
        ("tolerances", (1e-3,)),
        ("probes", (4,)),
        ("steps", (20, 40)),
        ("chain", 50),
        ("snapshots", (6,)),
        ("start", 0.0),
        ("noises", (0.5, 0.6, 0.7)),
        ("noises", (0.5, 0.1)),
        ("level", math.nan),
    ],
)
def test_bad_configs_are_one_sentence(field: str, value: Any) -> None:
    words = "steps" if field == "chain" else field
    with pytest.raises(ArgumentError, match=words):
        dataclasses.replace(TINY, **{field: value})
