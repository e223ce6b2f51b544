"""The study error_budget: its parts add up, its seeds are apart, and its verdicts can fail.

Statistical limits: Student's law of 7 degrees of freedom is above 15 with probability 7e-7; seeds
are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import budget, girsanov, likelihood, runner, samplers
from diffscience.budget import PARTS, Bench
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "error_budget.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.error_budget"]

TINY = study.Config(
    samplers=("ancestral", "heun"), steps=(3, 6), fine=6, lengths=(3, 20), seeds=2, points=40,
    nodes=400, tolerance=1e-2, width=8, batch=16, panels=2, levels=3, cells=60, intervals=40,
    shorter=(4.0, 20.0), earlier=(3e-2,), seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    """Shares add up to D in every row, to rounding; a table has every run."""
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "all", "cells", "networks", "girsanov", "metrics", "ways", "ends"]
    every, cells, runs = tables["all"], tables["cells"], 2 * 2 * 2 * 2
    assert len(every) == runs and len(tables[""]) == runs // 2 and len(cells) == 2 * runs
    assert set(tables[""]["updates"]) == {20} and arrays["law"][0] == study.LINE
    for frame in (every, cells):
        parts = frame[list(PARTS)].sum(axis=1)
        np.testing.assert_allclose(parts, frame["D"], rtol=1e-9, atol=1e-12)
        assert not np.allclose(parts, frame["D"] - 0.5 * frame["score"])
    two = cells[["D", *PARTS]].to_numpy().reshape(runs, 2, 5)
    np.testing.assert_allclose(every[["D", *PARTS]], two.mean(axis=1), atol=1e-15)
    apart = 0.5 * np.abs(two[:, 0] - two[:, 1])  # the standard error of two
    errors = [f"{name} error" for name in ("D", *PARTS)]
    np.testing.assert_allclose(every[errors], apart, atol=1e-12)
    line = every[(every["law"] == study.LINE) & (every["sampler"] == "heun")]
    assert not line["exact end"].any()
    assert (every["D error"] > 0).all()
    ways = tables["ways"]
    adding = ways["way"].isin(["share", "chain", "chain, turned round"])
    np.testing.assert_allclose(ways[adding]["sum"], ways[adding]["D"], rtol=1e-9)
    assert not np.allclose(ways[~adding]["sum"], ways[~adding]["D"], rtol=0.01)
    assert len(ways) == 2 * 5
    assert len(tables["metrics"]) == 2 * len(budget.METRICS)
    assert len(tables["ends"]) == 2 * 2 - 1


def test_a_row_is_the_budget_of_its_run(arrays: dict[str, np.ndarray]) -> None:
    """Built once more: the networks from their keys, the runs from their seed."""
    law, run = "eight_gaussians", Run(TINY.seed)
    oracle, found = study.oracle_of(TINY, law), []
    for k in range(TINY.seeds):
        model = study.trained(TINY, law, 20, run, k)
        seed = run.seed_for(law, k, "runs")
        fine = study.fine_of(TINY, oracle)
        bench = budget.Bench(oracle, fine, n=TINY.points, seed=seed, tolerance=TINY.tolerance)
        found.append(bench.budget(model, samplers.ALL["ancestral"], fine))
    share = budget.Budget.joined(found).share()["score"]
    rows = study.table(TINY, arrays)[""]
    row = rows[(rows["law"] == law) & (rows["steps"] == 6)].iloc[0]
    assert row["sampler"] == "ancestral"
    assert row["score"] == pytest.approx(share.value, rel=1e-9)
    assert row["score error"] == pytest.approx(share.error, rel=1e-9)


def test_bounds_and_divergences(arrays: dict[str, np.ndarray]) -> None:
    """Of the networks of one seed, once more; the SDE's KL is below its bound, half of which the
    worst exceeds.
    """
    oracle = study.oracle_of(TINY, study.LINE)
    model = study.trained(TINY, study.LINE, 20, Run(TINY.seed), 1)
    bound = girsanov.bound(model, oracle, end=TINY.end, intervals=TINY.panels)
    np.testing.assert_allclose(study.at(arrays, "bound", study.LINE, 20)[1], bound, rtol=1e-9)
    options = {"cells": TINY.cells, "steps": TINY.intervals, "end": TINY.end}
    kl = girsanov.kl(model, oracle, **options)
    assert study.at(arrays, "sde", study.LINE, 20)[1] == pytest.approx(kl, rel=1e-9)
    bench = budget.Bench(oracle, study.fine_of(TINY, oracle), n=400, tolerance=TINY.tolerance)
    found = bench.budget(model, samplers.ALL["heun"], bench.fine, "kl").distances
    assert study.flow_kl(arrays, study.LINE, 20)[1] == pytest.approx(found[0, 1, 1, 0, 0], rel=1e-9)
    plane = study.trained(TINY, "eight_gaussians", 20, Run(TINY.seed), 1)
    seed = Run(TINY.seed).seed_for("eight_gaussians", 1, "runs")
    law = study.oracle_of(TINY, "eight_gaussians").at(TINY.end)
    x = law.sample(TINY.points, seed)
    kl = np.mean(law.log_prob(x) - likelihood.log_prob(plane, x, start=TINY.end).log_prob)
    flow = study.flow_kl(arrays, "eight_gaussians", 20)
    assert flow[1] == pytest.approx(kl, rel=0.05) and flow[0] != pytest.approx(kl, rel=0.05)
    of_line = arrays["law"] == study.LINE
    every, sde = (arrays[key][of_line] for key in ("bound", "sde"))
    assert np.all(sde < every.sum(axis=-1))
    assert np.any(sde > 0.5 * every.sum(axis=-1))
    rows = study.kl_table(TINY, arrays)
    assert (rows["bound"] > rows["prior"]).all() and (rows["KL of the flow"] > 0).all()
    floor = rows["KL of the exact flow"].dropna()
    assert (
        len(floor) == 2 and (floor > 0).all() and (floor < 0.1 * rows["KL of the flow"][:2]).all()
    )
    networks = study.networks_table(TINY, arrays)
    assert len(networks) == 2 * 2 * TINY.seeds
    mean = networks.groupby(["law", "updates"], sort=False)[["bound", "KL of the flow"]].mean()
    np.testing.assert_allclose(mean, rows[["bound", "KL of the flow"]])
    assert (rows["KL of the SDE"].isna() == (rows["law"] != study.LINE)).all()
    np.testing.assert_allclose(rows["bound"], rows["prior"] + rows["score"])
    with pytest.raises(ArgumentError, match="steps must be so many that the density stays above 0"):
        girsanov.kl(model, oracle, **options | {"steps": 10})


def test_the_ends_cost_more_the_nearer_they_are(arrays: dict[str, np.ndarray]) -> None:
    """The flow keeps the KL of the prior; the SDE forgets a part of it."""
    rows = study.ends_table(TINY, arrays)
    prior = rows[rows["t_end"] == TINY.end].set_index("beta_max")
    assert prior.loc[4.0, "prior, flow"] > 10 * prior.loc[20.0, "prior, flow"] > 0
    assert prior.loc[4.0, "prior, SDE"] < prior.loc[4.0, "prior, flow"]
    kl, kept, sde = ("KL of the prior", "KL of the flow", "KL of the SDE")
    assert prior.loc[4.0, kept] == pytest.approx(prior.loc[4.0, kl], rel=0.01)
    assert prior.loc[20.0, kept] != pytest.approx(prior.loc[4.0, kl], rel=0.5)
    assert prior.loc[4.0, sde] < 0.9 * prior.loc[4.0, kl]
    assert (rows["its change"].abs() < 0.2 * rows[sde])[rows["beta_max"] == 4.0].all()
    ends = rows[rows["beta_max"] == TINY.beta_max].set_index("t_end")
    assert ends.loc[3e-2, "stopping, flow"] > 10 * ends.loc[TINY.end, "stopping, flow"] > 0


def test_a_better_score_has_a_smaller_part() -> None:
    """Seed 5: of twelve networks each, all after 200 updates are below all after 20; by chance
    12! 12!/24! = 4e-7. Two halves of one training have no such order.
    """
    config = dataclasses.replace(TINY, seeds=12, width=16, batch=32)
    oracle = study.oracle_of(config, study.LINE)
    bench = budget.Bench(oracle, study.fine_of(config, oracle), n=100, tolerance=1e-2)
    few, many = (
        [
            bench.budget(model, samplers.ALL["heun"], bench.fine).share()["score"].value
            for model in (study.trained(config, study.LINE, updates, Run(5), k) for k in range(12))
        ]
        for updates in (20, 200)
    )
    assert min(many) > 0 and max(many) < min(few)
    assert max(many[:6]) > min(many[6:]) and max(many[6:]) > min(many[:6])


def test_every_seed_has_networks_and_runs_of_its_own(arrays: dict[str, np.ndarray]) -> None:
    for law in TINY.laws:
        D = np.stack([study.at(arrays, "D", law, n) for n in TINY.lengths])
        D = D.reshape(len(TINY.lengths), TINY.seeds, -1)
        assert not np.any(np.all(D[0] == D[1], axis=-1))
        assert not np.any(np.all(D[:, 0] == D[:, 1], axis=-1))


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    for seed in (TINY.seed, 4):
        short = dataclasses.replace(TINY, lengths=TINY.lengths[:1])
        found = study.budgets(short, Run(seed), study.LINE, 1)["D"]
        assert np.array_equal(found, arrays["D"][1][:1]) == (seed == TINY.seed)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        size = len(plots.save(figures[""], {})[0])
    assert list(figures) == ["", "eight_gaussians", "parts", "ways", "girsanov", "ends"]
    assert 10_000 < size < 1_000_000


@pytest.mark.parametrize("name", STUDY.config.laws)
def test_the_reference_has_steps_enough(name: str) -> None:
    """Half of its steps cost D no more than 2e-4, seeds 1 to 4, on the line and in the plane, where
    as many of ancestral sampling cost more.
    """
    config = STUDY.config
    oracle = study.oracle_of(config, name)
    fine, cost = study.fine_of(config, oracle), {}
    for sampler in ("dpm_2m_sde", "ancestral"):
        runs = [
            Bench(oracle, fine, n=config.points, seed=seed, tolerance=config.tolerance).budget(
                oracle, samplers.ALL[sampler], fine[::2]
            )
            for seed in range(1, 5)
        ]
        cost[sampler] = np.mean([run.alone()["discretisation"].value for run in runs])
    assert abs(cost["dpm_2m_sde"]) < 2e-4 < cost["ancestral"]


def test_a_bar_is_signed(arrays: dict[str, np.ndarray]) -> None:
    """Heights add to the total over the sum of sizes; what is negative hangs below 0."""
    from diffscience import plots
    from diffscience.estimates import Estimate

    shares = dict(zip(PARTS, (Estimate(v, 0.1) for v in (3.0, -1.0, 2.0, 0.0)), strict=True))
    fig, axes = plots.figure()
    study.stack(axes[0, 0], 0.0, shares, Estimate(4.0, 0.1))
    boxes = [patch.get_bbox() for patch in axes[0, 0].patches]
    found = [(b.ymin, b.ymax) for b in boxes[:3]]
    np.testing.assert_allclose(found, [(0.0, 0.5), (-1 / 6, 0.0), (0.5, 5 / 6)], atol=1e-12)
    dots = [line for line in axes[0, 0].lines if line.get_marker() == "D"]
    assert dots[0].get_ydata()[0] == pytest.approx(4 / 6)
    bars = [c.get_segments()[0] for c in axes[0, 0].collections]
    ends = [0.5, -1 / 6, 5 / 6]  # of the bars, each with its own error over the sum of sizes
    for segment, end in zip(bars, ends, strict=True):
        np.testing.assert_allclose(segment[:, 1], [end - 0.1 / 6, end + 0.1 / 6], atol=1e-12)
    study.stack(axes[0, 0], 1.0, shares, Estimate(4.0, 3.0))
    assert axes[0, 0].patches[4].get_alpha() < axes[0, 0].patches[0].get_alpha()
    del fig


def test_the_committed_budgets() -> None:
    """Full mode: shares add up, exact ends are exact, the bound holds for every SDE, and the flow
    keeps the KL of the prior.
    """
    figures = FILE.parents[1] / "figures"

    def rows(name: str) -> list[dict[str, str]]:
        text = (figures / f"error_budget{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    every = rows("_all")
    assert len({r["law"] for r in every}) >= 2
    for r in every:
        total = sum(float(r[part]) for part in PARTS)
        assert total == pytest.approx(float(r["D"]), rel=1e-6, abs=1e-9)
        assert abs(float(r["exact end"])) <= 15 * float(r["exact end error"])
    for r in rows("_metrics"):
        total = sum(float(r[part]) for part in PARTS)
        assert total == pytest.approx(float(r["D"]) - float(r["floor"]), rel=1e-6, abs=1e-9)
    nats = [r for r in rows("_girsanov") if r["KL of the SDE"]]
    assert len(nats) >= 3
    for r in nats:
        assert int(r["networks"]) >= 8 and float(r["SDE above the bound"]) == 0
        assert 0 < float(r["KL of the SDE"]) < float(r["bound"])
    for r in rows("_ends"):
        kept, kl = float(r["KL of the flow"]), float(r["KL of the prior"])
        assert kept == pytest.approx(kl, rel=2e-3)
        assert float(r["KL of the SDE"]) < kl
        if float(r["beta_max"]) < 12:  # a mesh four times as coarse as its floor changes little
            assert abs(float(r["its change"])) < 0.01 * float(r["KL of the SDE"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("laws", ("roll",)),
        ("laws", ("eight_gaussians",)),
        ("samplers", ("eulers",)),
        ("samplers", ("ancestral",)),
        ("steps", (5, 7)),
        ("steps", (6, 3)),
        ("lengths", ()),
        ("lengths", (0, 3)),
        ("seeds", 1),
        ("points", 2),
        ("tolerance", 0.0),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("beta_max", 0.0),
        ("end", 0.7),
        ("earlier", (0.0,)),
    ],
)
def test_bad_configs_are_one_sentence(field: str, value: Any) -> None:
    name = {"earlier": "end"}.get(field, field)
    with pytest.raises(ArgumentError, match=f"^{name} must"):
        dataclasses.replace(TINY, **{field: value})
