"""The study solver_orders: its measures are exact where they say so, and its verdicts can fail.

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
import torch

import diffscience as ds
from diffscience import Oracle, gallery, grids, runner, samplers
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "solver_orders.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.solver_orders"]

TINY = study.Config(
    pairs=(study.MAIN, ("EDM", "log_snr")), steps=(4, 8, 16), late_steps=(4, 8, 16), late_paths=100,
    strong_steps=(4, 8, 16), weak_steps=(4, 8, 16),
    mixture_steps=(4, 8, 16), fitted=3, points=4, paths=100, many=100, fine=128,
    tolerances=(1e-2, 1e-3, 1e-4), most=100, targets=("julia_bimodal",), long=6, short=3,
    particles=100, fewer=(), repeats=2, seed=3,
)  # fmt: skip
VP = study.PROCESSES["VP"]


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------ orders


def test_an_order_and_both_of_its_errors() -> None:
    """By hand: a clean power, one with scatter, and errors that are drawn."""
    n, e = [4, 8, 16, 32], 3.0 * np.array([4, 8, 16, 32.0]) ** -2
    assert study.fit(n, e, None, 4) == pytest.approx((2.0, 0.0, 0.0), abs=1e-12)
    order, scatter, _ = study.fit(n, e * [9.0, 1.1, 0.9, 1.1], None, 3)  # the first is left out
    x = np.log([8, 16, 32.0]) - np.log(16)
    y = np.log(e[1:] * [1.1, 0.9, 1.1])
    slope, level = np.polyfit(x, y, 1)
    left = y - slope * x - level
    assert order == pytest.approx(-slope)
    assert scatter == pytest.approx(math.sqrt(left @ left / (x @ x)))
    _, _, sample = study.fit(n, e, np.eye(4) * 0.01, 4)
    x = np.log(n) - np.mean(np.log(n))
    assert sample == pytest.approx(0.1 / math.sqrt(x @ x))
    shared = study.fit(n, e, np.full((4, 4), 0.01), 4)[2]  # what all share moves no slope
    assert shared == pytest.approx(0, abs=1e-9)


def test_the_spread_of_an_error_is_that_of_fresh_draws() -> None:
    """Seed 1, 400 repeats: of log rms and of log |mean|, within 4.9 errors of a deviation."""
    rng = np.random.default_rng(1)
    scale = np.array([[1.0], [0.5]])
    for summary, shift in ((study.summary, 0.0), (study.summary_of_mean, 1.0)):
        found = [summary(shift + scale * rng.standard_normal((2, 500))) for _ in range(400)]
        logs, covs = np.log([f[0] for f in found]), np.mean([f[1] for f in found], axis=0)
        for k in range(2):
            assert abs(logs[:, k].std() / math.sqrt(covs[k, k]) - 1) < 4.9 / math.sqrt(800)
        together = scale * rng.standard_normal((1, 500))  # the same draws: fully correlated
        cov = summary(shift + together)[1]
        assert cov[0, 1] == pytest.approx(math.sqrt(cov[0, 0] * cov[1, 1]), rel=1e-9)


@pytest.mark.parametrize(("name", "order"), [("heun", 2), ("dpm_3m", 3), ("3M, half weight", 2)])
def test_flow_errors_have_their_orders(name: str, order: int) -> None:
    config = dataclasses.replace(TINY, steps=(32, 64, 128), points=8)
    errors = study.flow_errors(config, study.MAIN)["errors"][list(study.FLOWS).index(name)]
    found = study.fit(config.steps, np.asarray(errors), None, 3)[0]
    assert abs(found - order) < 0.15
    assert abs(found - order - 1) > 0.5


def test_3m_written_once_more_is_3m() -> None:
    """With Taylor's weight and a second-order start, to 1e-12; the other forms are not."""
    model, times = Oracle(study.mixture(), VP), study.times_of(VP, "log_snr", 12)
    x = model.at(float(times[0])).quantile(np.linspace(0.1, 0.9, 5))
    wanted = samplers.last(samplers.ALL["dpm_3m"].run(model, x, times))
    own = samplers.last(study.third(model, x, times, weight=1.0, second=True))
    np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-12)
    for twin in study.TWINS.values():
        assert np.abs(samplers.last(twin.run(model, x, times)) - wanted).max() > 1e-6


# ------------------------------------------------------------------ exact laws of affine runs


def test_the_law_of_an_affine_run_is_that_of_many_runs() -> None:
    """Seed 2, 20,000 points through every sampler in 6 steps, |z| < 4.9; noise is counted once."""
    model, times = Oracle(study.gaussian(), VP), study.times_of(VP, "log_snr", 6)
    x = model.at(float(times[0])).sample(20_000, 2)
    for name, sampler in samplers.ALL.items():
        mean, var = study.affine(sampler.run, model, times)
        y = samplers.last(sampler.run(model, x, times, 3))
        assert abs(y.mean() - mean) < 4.9 * math.sqrt(var / len(y)), name
        assert abs(y.var() / var - 1) < 4.9 * math.sqrt(2 / len(y)), name


def test_the_exact_reverse_steps_have_no_weak_error() -> None:
    """To 1e-12 in any number of steps, and Euler-Maruyama has one."""
    for process in study.PROCESSES.values():
        model = Oracle(study.gaussian(), process)
        times = study.times_of(process, "log_snr", 5)
        mean, var = study.moments(model.at(float(times[-1])))
        found = study.affine(study.perfect, model, times)
        np.testing.assert_allclose(found, (mean, var), rtol=1e-12)
        other = study.affine(samplers.euler_maruyama, model, times)
        assert abs(other[1] / var - 1) > 1e-2


# ------------------------------------------------------------------ shared paths


def test_the_cut_times_hold_the_grid_and_halve_its_steps() -> None:
    times = study.times_of(VP, "uniform", 5)
    cut = study.halved(VP, times)
    np.testing.assert_array_equal(cut[::2], times)
    r = VP.log_snr(cut)
    np.testing.assert_allclose(r[1::2], 0.5 * (r[:-2:2] + r[2::2]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pair", STUDY.config.pairs)
def test_rounding_makes_no_other_path(pair: tuple[str, str]) -> None:
    """Times that another processor rounds otherwise are as many; without joining them, more."""
    config, process = STUDY.config, study.PROCESSES[pair[0]]
    fine = study.times_of(process, pair[1], config.fine)
    cut = [study.halved(process, fine[:: config.fine // n]) for n in config.strong_steps]
    moved = [np.nextafter(times, np.inf) for times in cut]
    here, there = study.joined([fine, *cut]), study.joined([fine, *moved])
    assert len(here) == len(there) and np.abs(here - there).max() < 1e-12
    assert np.isin(fine[[0, -1]], here).all() and np.all(np.diff(here) < 0)
    assert len(np.unique(np.concatenate([fine, *cut, *moved]))) > len(here)


def test_errors_on_shared_paths_fall() -> None:
    """Seed 4: every method by steps, SRK fastest; errors and mean errors have a spread."""
    found = study.path_errors(study.MAIN, (8, 32), 200, 256, 4)
    errors = dict(zip(study.PATHWISE, found["errors"], strict=True))
    for name, e in errors.items():
        assert e[1] < 0.5 * e[0], name
    assert errors["torchsde srk"][1] < 0.2 * errors["torchsde euler"][1]
    assert found["floor"] < 0.2 * errors["torchsde srk"][1]
    np.testing.assert_allclose(errors["torchsde euler"], errors["euler_maruyama"], rtol=1e-9)
    assert all(np.all(np.diag(cov) > 0) for cov in found["covs"] + found["mean covs"])


def test_geometric_brownian_motion_has_its_orders() -> None:
    """Seed 5, 4000 paths: 1/2, 1 and 3/2 within 0.2."""
    config = dataclasses.replace(TINY, many=4000, strong_steps=(16, 32, 64, 128), fine=512)
    found = study.gbm_errors(config, 5)["errors"]
    for e, order in zip(found, study.GBM_ORDERS.values(), strict=True):
        assert abs(study.fit(config.strong_steps, e, None, 4)[0] - order) < 0.2


# ------------------------------------------------------------------ targets


def test_points_on_a_device_go_where_numpy_points_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tensors, with the same noise, to 1e-9 in the distance."""
    here = study.arrivals(TINY, "julia_bimodal", Run(3))["estimates"]
    monkeypatch.setattr(study, "placed", lambda x, device: torch.as_tensor(x, device=device))
    there = study.arrivals(TINY, "julia_bimodal", Run(3))["estimates"]
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-9)
    assert study.placed(np.zeros((1, 1)), "cpu").device.type == "cpu"


def test_arrivals_see_a_wrong_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 steps, 1000 points, seed 6: the flow reaches the floor; 0.7 of its score does not."""
    config = dataclasses.replace(TINY, particles=1000, long=60, short=4, repeats=8)
    names = ("heun", "dpm_2m", "dpm_2m_sde")
    monkeypatch.setattr(study.samplers, "ALL", {n: samplers.ALL[n] for n in names})

    def excess() -> np.ndarray:
        found = study.arrivals(config, "julia_bimodal", Run(6))["estimates"][0]
        return np.array([study.Estimate(*row.tolist()).excess() for row in found])

    assert np.all(excess() < 3)

    class Wide(Oracle):
        def x0(self, x: Any, t: Any) -> Any:
            return 1.2 * super().x0(x, t)

        def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
            return super().drift(x, t, eta) + 0.3 * self.process.diffusion(t) ** 2 * x

    monkeypatch.setattr(study, "Oracle", Wide)
    assert np.all(excess() > 3)


def test_the_committed_orders_and_targets() -> None:
    """Full mode: orders within 0.15 of theory where it is asked for, every target at its floor."""
    figures = FILE.parents[1] / "figures"

    def rows(name: str) -> list[dict[str, str]]:
        text = (figures / f"solver_orders{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    assert {r["sampler"] for r in rows("_worst")} == set(samplers.ALL)
    assert {r["target"] for r in rows("_targets")} == set(gallery.ALL)
    for r in rows("_worst"):
        assert float(r["largest excess, n = 1000"]) < 3, r["sampler"]
    every = rows("_all")
    more = {(r["process"], r["grid"], r["method"]) for r in every if "more steps" in r["kind"]}
    assert more == {(*pair, name) for pair, names in study.LATE.items() for name in names}
    checked = [
        r for r in every
        if r["theory"] and r["method"] not in study.TWINS
        and not (r["kind"] == "strong" and (r["process"], r["grid"], r["method"]) in more)
    ]  # fmt: skip
    assert len(checked) > 200
    for r in checked:
        off = float(r["order"]) - float(r["theory"])
        known = math.hypot(float(r["error of fit"]), float(r["error of sample"]))
        assert abs(off) < 0.15 or abs(off) < 3 * known, r


# ------------------------------------------------------------------ tables and figures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "all", "adaptive", "targets", "worst"]
    main, every = tables[""], tables["all"]
    assert set(main["kind"]) >= {"flow", "strong", "weak", "torchdiffeq", "strong, more steps"}
    rows = main[main["kind"] == "flow"]
    assert list(rows["method"]) == list(study.FLOWS)
    assert set(rows["runs"]) == {len(TINY.pairs)}
    assert len(every) > len(main)
    row = every[(every["kind"] == "flow") & (every["method"] == "heun")].iloc[0]
    errors = arrays["flow VP log_snr errors"][list(study.FLOWS).index("heun")]
    assert row["order"] == pytest.approx(study.fit(TINY.steps, errors, None, 3)[0])
    assert row["error at the end"] == pytest.approx(errors[-1])
    assert len(tables["targets"]) == 2 * len(samplers.ALL)
    assert len(tables["worst"]) == len(samplers.ALL)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        png, _ = plots.save(figures["libraries"], {})
    assert list(figures) == ["", *study.KINDS, "orders", "libraries", "third", "targets"]
    assert len(png) < 1_000_000


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    for seed in (TINY.seed, 4):
        found = study.arrivals(TINY, "julia_bimodal", Run(seed))["estimates"]
        assert np.array_equal(found, arrays["julia_bimodal estimates"]) == (seed == TINY.seed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pairs", (("VP", "uniform"),)),
        ("pairs", (study.MAIN, ("VE", "uniform"))),
        ("steps", (4, 8)),
        ("weak_steps", (4, 8, 12)),
        ("fine", 100),
        ("tolerances", (1e-3, 1e-2, 1e-4)),
        ("targets", ("roll",)),
        ("long", 3),
        ("paths", 1),
    ],
)
def test_bad_configs_are_one_sentence(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})


def test_the_grid_of_a_process_runs_between_the_levels() -> None:
    for process in study.PROCESSES.values():
        for name in study.GRIDS:
            times = study.times_of(process, name, 7)
            assert len(times) == 8
            assert np.all(np.diff(times) < 0)
            np.testing.assert_allclose(process.log_snr(times[[0, -1]]), study.ENDS, atol=1e-9)
    assert grids.ALL.keys() >= set(study.GRIDS)
    assert isinstance(study.PROCESSES["EDM"], ds.EDM)
