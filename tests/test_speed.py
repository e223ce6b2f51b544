"""The study `speed` in miniature: every contender's answer is right, table and figure are whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from diffscience import runner
from diffscience.errors import ArgumentError
from diffscience.study import Run, plain_arrays

STUDIES = Path(__file__).parent.parent / "studies"


@pytest.fixture(scope="module")
def speed() -> Any:
    study, _ = runner.load(STUDIES / "speed.py")
    return SimpleNamespace(study=study, **study.compute.__globals__)


@pytest.fixture(scope="module")
def config(speed: Any) -> Any:
    return dataclasses.replace(
        speed.study.quick, sizes=(60, 90), components=3, repeats=2, checked=50, chunk=40, steps=4
    )


@pytest.fixture(scope="module")
def arrays(speed: Any, config: Any) -> dict[str, np.ndarray]:
    return plain_arrays(speed.study.compute(config, Run(1)))


def test_every_contender_answers_the_question(arrays: dict[str, np.ndarray]) -> None:
    names = list(arrays["contenders"])
    assert {"ours", "torch, eager", "NumPy, matrix products in chunks"} <= set(names)
    for n in (60, 90):
        assert arrays[f"times_{n}"].shape == (len(names), 2)
        assert (arrays[f"times_{n}"] > 0).all() and (arrays[f"first_{n}"] > 0).all()
        # float32 with a few cancelling digits: whatever is faster must not be another function
        assert (arrays[f"error_{n}"] < 1e-3).all(), dict(zip(names, arrays[f"error_{n}"]))
    ours = [i for i, name in enumerate(names) if name.startswith("ours")]
    assert (arrays["error_far"][ours] < 1e-5).all()
    linear = names.index("torch, linear space (toy mixture)")
    assert np.isnan(arrays["error_far"][linear])  # its densities underflow


def test_wrong_answers_have_large_errors(speed: Any, config: Any) -> None:
    mixture = speed.Mixture(config, Run(1))
    x = mixture.law.sample(50, np.random.default_rng(0))
    log_prob, score = mixture.truth(x)
    assert speed.error((log_prob, score), (log_prob, score)) == 0
    for wrong in ((log_prob, -score), (log_prob, 1.05 * score), (log_prob + 0.05, score)):
        assert speed.error(wrong, (log_prob, score)) > 1e-2
    score = score.copy()
    score[0] = np.nan
    assert np.isnan(speed.error((log_prob, score), mixture.truth(x)))


def test_the_limit_computes_the_same(speed: Any, config: Any) -> None:
    """The C loop, which the quick config leaves out."""
    mixture = speed.Mixture(config, Run(1))
    found = speed.limit(mixture, dataclasses.replace(config, compilers=True))
    if not found:
        pytest.skip("no C compiler")
    x = mixture.law.sample(300, np.random.default_rng(0)).astype(np.float32)
    assert speed.error(found[speed.LIMIT](x), mixture.truth(x)) < 1e-3


def test_the_trainers_learn_the_same(arrays: dict[str, np.ndarray]) -> None:
    assert list(arrays["trainers"]) == ["ours", "NumPy by hand", "torch, eager"]
    loss = arrays["loss_training"]
    # The first losses are in the thousands, and each contender draws its own noise.
    assert (loss > 0).all() and loss.max() < 1.5 * loss.min()


def test_tables_and_figure(speed: Any, config: Any, arrays: dict[str, np.ndarray]) -> None:
    tables = speed.study.table(config, arrays)
    assert set(tables) == {"", "training", "ensembles", "sampling", "flow", "machine"}
    main = tables[""]
    assert len(main) == 2 * len(arrays["contenders"])
    for _, task in main.groupby("task"):
        assert task["ms (median)"].is_monotonic_increasing
        assert task.set_index("contender")["times ours"]["ours"] == 1
        assert (task["ms (min)"] <= task["ms (median)"]).all()
        assert (task["ms (median)"] <= task["ms (max)"]).all()
    training = tables["training"]
    assert np.allclose(training["steps a second"] * training["ms (median)"], 1e3)
    figures = speed.study.draw(config, arrays)
    assert list(figures) == ["", "sampling", "ensembles"]
    assert len(figures["ensembles"].axes) == len(config.member_widths)
    figure = figures[""]
    assert isinstance(figure, Figure)
    assert len(figure.axes) == len(figures["sampling"].axes) == 3
    for ax in figure.axes[:2]:
        labels = [label.get_text() for label in ax.get_yticklabels()]
        assert sorted(labels) == sorted(arrays["contenders"])
        bars: list[Any] = list(ax.patches)
        widths = [bar.get_width() for bar in bars]
        assert widths == sorted(widths, reverse=True)  # the fastest on top


def test_every_way_to_train_many_networks_trains_the_same(
    speed: Any, config: Any, arrays: dict[str, np.ndarray]
) -> None:
    """Weights of float32 networks after 5 steps; one more step moves them by 1e-3."""
    names = [speed.BATCHED, f"{speed.BATCHED}, all threads", speed.APART]
    assert list(arrays["crowds"]) == names
    assert arrays["times_crowds"].shape == (1, 1, 3, config.member_repeats)
    assert arrays["apart_crowds"][..., 0] == 0
    assert (arrays["apart_crowds"] < 1e-5).all()
    table = speed.study.table(config, arrays)["ensembles"]
    assert sorted(table["contender"]) == sorted(names)
    row = table.set_index("contender").loc[speed.APART]
    each = np.median(arrays["times_crowds"][0, 0, 2]) / config.members
    assert row["µs, a network's step"] == pytest.approx(1e3 * each)
    points = np.random.default_rng(0).normal(size=(100, 2))
    given = {"width": 16, "batch": 32, "points": points}
    ends = speed.side_by_side(1, 3, steps=5, **given)
    assert np.abs(ends[2] - speed.alone(2, steps=5, **given)).max() < 1e-5
    for wrong in (speed.alone(2, steps=6, **given), speed.alone(1, steps=5, **given)):
        assert np.abs(ends[2] - wrong).max() > 5e-4


def test_processes_of_their_own_train_the_same(speed: Any, config: Any) -> None:
    """The contender that the quick config leaves out; it knows the study's file."""
    config = dataclasses.replace(config, processes=1, members=2)
    points = np.random.default_rng(0).normal(size=(100, 2))
    with speed.processes(config) as pool:
        there = speed.crowds(config, 16, 32, points, pool)["train.train, in 1 processes"]()
    here = speed.crowds(config, 16, 32, points, None)[speed.APART]()
    np.testing.assert_array_equal(there, here)


def test_every_sampler_samples_the_law(arrays: dict[str, np.ndarray]) -> None:
    """E|x|^2/2 within 4.9 errors and the bias of 20 steps; 20 % more is not; engines equal."""
    value, error = arrays["moment"].T
    exact = float(arrays["moment_exact"])
    assert {"ours, all steps fused", "torchsde alone, eager score"} <= set(arrays["samplers"])
    assert np.all(np.abs(value - exact) < 4.9 * error + 0.02 * exact)
    assert np.all(np.abs(1.2 * value - exact) > 4.9 * error + 0.02 * exact)
    assert arrays["engines_apart"][0] < 1e-5


def test_every_flow_finds_the_map(arrays: dict[str, np.ndarray]) -> None:
    for name in ("plane", "line"):
        assert (arrays[f"error_flow {name}"][:, 0] < 1e-3).all()
        assert (arrays[f"evaluations {name}"] > 20).all()


@pytest.mark.parametrize(
    ("study", "field", "bad"),
    [
        *(("speed", name, 0) for name in ("components", "repeats", "checked", "chunk", "steps")),
        *(("speed", name, value) for name, value in (("training_repeats", -1), ("t", 1.5))),
        *(("speed", "sizes", value) for value in ((), (0,), (10, -3), (2.5,))),
        *(("speed", name, 0) for name in ("members", "member_steps", "member_repeats")),
        *(("speed", name, ()) for name in ("member_widths", "member_batches")),
        ("speed", "member_widths", (32, 0)),
        ("speed", "processes", -1),
        ("speed", "t", float("nan")),
        *(("julia_ddpm", name, 0) for name in ("first_epochs", "second_epochs", "seed_epochs")),
        *(("julia_ddpm", name, 1) for name in ("samples", "bound_points", "mended_samples")),
        *(("julia_ddpm", "refinements", value) for value in ((), (0,), (20, 20))),
        *(("julia_ddpm", "ema", value) for value in (1.0, -0.1, float("nan"))),
        ("julia_ddpm", "mended_steps", 0),
        ("julia_ddpm", "networks", 1),
        ("julia_ddpm", "mended_chain", 3),
    ],
)
def test_bad_fields_are_refused_at_once(study: str, field: str, bad: Any) -> None:
    config = runner.load(STUDIES / f"{study}.py")[0].config
    with pytest.raises(ArgumentError, match=f"^{field} must .*; got "):
        dataclasses.replace(config, **{field: bad})
