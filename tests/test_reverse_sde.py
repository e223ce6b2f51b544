"""The study reverse_sde: the note comes out of its stream, and a wrong start ends as its law says.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffscience import fokker_planck, gallery, runner
from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network
from diffscience.models import Oracle
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "reverse_sde.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.reverse_sde"]

TINY = study.Config(
    epochs=12, particles=60, etas=(0.0, 1.0), steps=(4, 30), shown_steps=30, cells=140,
    intervals=20, nodes=150, plane_particles=40, plane_steps=(4, 6), shown=(2.0,), frames=3,
    pixels=8, repeats=2, seed=3,
)  # fmt: skip
LIMIT = 4.9


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return dict(STUDY.compute(TINY, Run(TINY.seed)))


# ------------------------------------------------------------------ the note


def test_the_note_comes_out_of_its_stream(arrays: dict[str, np.ndarray]) -> None:
    """The data, and the printed losses of the first ten epochs."""
    assert arrays["note_checked"] == pytest.approx(study.FIRST_GRADIENT, rel=1e-12)
    loss = {epoch: arrays["note_loss"][epoch - 1] for epoch in range(1, 11)}
    assert loss == pytest.approx({e: study.PUBLISHED[e] for e in loss}, rel=1e-12)
    printed = [0.790923, -1.06286, -1.20461]
    assert arrays["note_points"][[0, 1, -1]] == pytest.approx(printed, abs=1e-5)


def test_the_whole_note_is_in_the_committed_tables() -> None:
    """2000 epochs and the 256 samples, which take too long for a test."""
    figures = FILE.parents[1] / "figures"
    parity, samples = (
        list(csv.DictReader((figures / f"reverse_sde_{name}.csv").read_text("utf-8").splitlines()))
        for name in ("parity", "samples")
    )
    assert len(parity) == 1 + len(study.PUBLISHED) == 21
    for row in parity[1:]:
        assert float(row["published"]) == study.PUBLISHED[int(row["epoch"])]
        assert float(row["loss"]) == pytest.approx(float(row["published"]), rel=1e-9)
    assert [int(row["count"]) for row in samples] == list(study.BARS)
    assert sum(study.BARS) == 256


def test_the_notes_paths_take_their_noise_in_order() -> None:
    """A network that answers x/2 + 3t: 199 steps, the start first; a twin with t - h for t."""
    params = [(np.array([[0.5, 3.0]], np.float32), np.zeros(1, np.float32))]
    rng = Xoshiro(5)
    paths = study.note_paths(params, rng.copy())
    assert paths.shape == (200, 256)
    x, h = rng.randn(256), 1 / 199
    np.testing.assert_array_equal(paths[0], x)
    for k in range(199):
        z = rng.randn(256)
        twin = x + h * (0.5 * x + 3 * (1 - (k + 1) * h)) + math.sqrt(h) * z
        x = x + h * (0.5 * x + 3 * (1 - k * h)) + math.sqrt(h) * z
    np.testing.assert_allclose(paths[-1], x, atol=1e-12)
    assert np.abs(paths[-1] - twin).max() > 1e-5


def test_a_stream_off_by_one_draw_is_another_note(monkeypatch: pytest.MonkeyPatch) -> None:
    true = study.draw_batch

    def late(rng: Any, points: np.ndarray) -> Any:
        rng.randn()
        return true(rng, points)

    monkeypatch.setattr(study, "draw_batch", late)
    found = study.replay(3)
    assert found["checked"] != pytest.approx(study.FIRST_GRADIENT, rel=1e-3)
    assert found["loss"][2] != pytest.approx(study.PUBLISHED[3], rel=1e-3)


def test_the_network_of_the_solvers_is_the_notes() -> None:
    """To float32; and it stands for the score, with the right time."""
    params = network(Xoshiro(4), (2, 64, 64, 1))
    model, x = study.learned(params), np.linspace(-3, 3, 41)
    for t in (1e-3, 0.3, 1.0):
        exact = study.note_score(params, x, t)
        np.testing.assert_allclose(model.score(x[:, None], t)[:, 0], exact, atol=2e-5)
        assert not np.allclose(study.note_score(params, x, min(1.1 * t, 1.0) / 2), exact, atol=1e-3)
    velocity = model.velocity(x[:, None], 0.3)[:, 0]
    np.testing.assert_allclose(velocity, -0.5 * study.note_score(params, x, 0.3), atol=2e-5)


def test_a_short_replay_is_not_called_the_note() -> None:
    assert study.note_name(study.Config()) == "the note's network"
    assert study.note_name(TINY) == "the note's network after 12 epochs"


# ------------------------------------------------------------------ what is known exactly


def test_the_process_is_brownian_motion() -> None:
    process, t = study.Brownian(4.0), np.linspace(0.1, 4.0, 7)
    assert process.alpha(t).tolist() == process.diffusion(t).tolist() == 7 * [1.0]
    np.testing.assert_array_equal(process.var(t), t)
    step = process.between(0.25, 1.0)
    assert (step.scale, step.var) == (1.0, 0.75)
    law = study.LAW.diffuse(process.at(1.0))
    assert float(law.mean[0]) == pytest.approx(-0.6)
    assert math.sqrt(float(law.cov[0, 0])) == pytest.approx(1.336, abs=1e-3)
    with pytest.raises(ArgumentError, match="T"):
        study.Brownian(0.0)


def test_the_kernel_is_the_posterior() -> None:
    """P(X_0 > 0.2 | X_1 = x) beside the posterior of the package; that of half the time is not."""
    for x in (-2.0, 0.1, 1.7):
        exact = 1 - float(study.ORACLE.posterior([x], 1.0).cdf([[0.2]])[0])
        [found] = study.right_given(np.array([x]))
        assert found == pytest.approx(exact, rel=1e-12)
        assert study.right_given(np.array([x]), 0.5)[0] != pytest.approx(exact, rel=1e-2)


def test_the_known_shares() -> None:
    """The note's start puts 0.286 on the right, the right one what the law has there."""
    truth = 1 - float(study.LAW.cdf(np.array([[0.2]]))[0])
    wrong, right = (study.by_quadrature(study.start_law(s)) for s in study.STARTS)
    assert wrong["right"] == pytest.approx(0.286, abs=5e-4)
    assert right == pytest.approx({"right": truth, "mode": 0.2}, abs=1e-12)
    ends = [study.by_flow(study.start_law(s), np.array([0.2]))[0] for s in study.STARTS]
    assert 1 - ends[0] == pytest.approx(0.3047, abs=5e-5)
    assert 1 - ends[1] == pytest.approx(truth, abs=1e-12)


def test_a_longer_process_forgets_its_start() -> None:
    found = study.longer(np.array([1.0, 100.0]))["longer"]
    wide = study.start_law(study.WRONG)
    assert found[0, 0] == pytest.approx(study.by_quadrature(wide)["right"], abs=1e-10)
    assert found[1, 0] == pytest.approx(1 - study.by_flow(wide, np.array([0.2]))[0], abs=1e-10)
    truth = 1 - float(study.LAW.cdf(np.array([[0.2]]))[0])
    assert np.all(np.abs(found[:, 1] - truth) < np.abs(found[:, 0] - truth))
    assert np.abs(found[2] - truth).max() < 0.003


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.5])
def test_the_limit_is_the_law_of_the_run(eta: float) -> None:
    """From p_1 every eta ends in p_0; from N(0, 1) as the closed forms say. A twin does not."""
    config = study.Config(cells=700, intervals=100)
    edges = fokker_planck.cells(-7.0, 7.0, 700)
    right, wrong = (
        study.limit(config, study.ORACLE, study.start_law(s), eta) for s in ("p_1", study.WRONG)
    )
    truth = fokker_planck.averages(study.LAW, edges)
    assert np.abs(right["density"] - truth).max() < 1e-3
    assert np.abs(wrong["density"] - truth).max() > 0.05
    assert right["mode"] == pytest.approx(0.2, abs=1e-4)
    start = study.start_law(study.WRONG)
    if eta == 1:
        exact = study.posterior_density(start, 0.5 * (edges[1:] + edges[:-1]))
        assert np.abs(wrong["density"] - exact).max() < 1e-3
        assert wrong["right"] == pytest.approx(study.by_quadrature(start)["right"], abs=1e-4)
        assert wrong["mode"] == pytest.approx(study.by_quadrature(start)["mode"], abs=1e-4)
    if eta == 0:
        exact = np.diff(study.by_flow(start, edges)) / np.diff(edges)
        assert np.abs(wrong["density"] - exact).max() < 1e-5
    assert wrong["right"] > 0.25


def test_more_noise_forgets_more_of_the_start() -> None:
    config, start = study.Config(cells=350, intervals=50), study.start_law(study.WRONG)
    shares = [
        float(study.limit(config, study.ORACLE, start, eta)["right"])
        for eta in (0.5, 1.0, 1.5, 3.0)
    ]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0.2, abs=0.02)


def test_the_law_of_the_steps() -> None:
    """Many steps come to the limit; few are another law, which samples have. Seed 5."""
    config = study.Config(nodes=600, particles=20_000, repeats=2)
    start = study.start_law(study.WRONG)
    fine = study.chain_law(config, study.ORACLE, start, 199)["right"]
    exact = study.by_quadrature(start)["right"]
    assert abs(fine - exact) < 2e-4
    few = study.chain_law(config, study.ORACLE, start, 4)["right"]
    assert abs(few - exact) > 0.004
    found = study.sampled(
        config, study.ORACLE, study.WRONG, 1.0, 4, 7, np.random.default_rng(5)
    )["numbers"]  # fmt: skip
    assert abs(found[0] - few) < LIMIT * found[1]
    assert found[8] == 4
    with pytest.raises(ArgumentError, match="nodes"):
        study.chain_law(dataclasses.replace(config, nodes=100), study.ORACLE, start, 400)


def test_the_law_of_the_steps_of_every_eta() -> None:
    """200 steps from p_1 end in p_0 but for the steps; 4 steps of the flow as by hand."""
    config, right = study.Config(nodes=600), study.start_law("p_1")
    for eta in (0.0, 0.5, 1.5):
        found = study.chain_law(config, study.ORACLE, right, 200, eta)
        assert found["right"] == pytest.approx(0.2003, abs=2e-4)
        assert found["mode"] == pytest.approx(0.2, abs=2e-4)
    x = y = np.linspace(-2, 3, 100_001)
    for t in (1.0, 0.75, 0.5, 0.25):
        y = y + 0.125 * study.ORACLE.score(y[:, None], t)[:, 0]
    edge = x[np.searchsorted(y, 0.2)]
    exact = 1 - float(right.cdf(np.array([[edge]]))[0])
    found = study.chain_law(config, study.ORACLE, right, 4, 0.0)
    assert found["right"] == pytest.approx(exact, abs=2e-4)
    assert (
        abs(found["right"] - study.chain_law(config, study.ORACLE, right, 8, 0.0)["right"]) > 5e-4
    )
    with pytest.raises(ArgumentError, match="steps"):
        study.chain_law(config, SimpleNamespace(score=lambda x, t: -5 * x), right, 1, 0.0)


def test_samples_end_where_the_law_says() -> None:
    """Both starts; the law of the other start is far off. Seed 6."""
    config = study.Config(particles=20_000, repeats=2)
    for start, other in (study.STARTS, study.STARTS[::-1]):
        found = study.sampled(
            config, study.ORACLE, start, 1.0, 50, 11, np.random.default_rng(6)
        )["numbers"]  # fmt: skip
        law, twin = (study.by_quadrature(study.start_law(s)) for s in (start, other))
        assert abs(found[0] - law["right"]) < LIMIT * found[1]
        assert abs(found[2] - law["mode"]) < LIMIT * found[3]
        assert abs(found[0] - twin["right"]) > LIMIT * found[1]


# ------------------------------------------------------------------ the plane


def test_true_points_have_no_gap() -> None:
    """Those of another time have. Seed 8."""
    law = Oracle(gallery.swiss_roll(), study.VP()).at(0.3)
    x = law.sample(2000, np.random.default_rng(8))
    known = np.array(study.log_moments(law))
    assert known[0] == pytest.approx(-law.entropy(), abs=1e-6)
    config = study.Config(repeats=2)
    gap = study.measured(config, 0.3, x, known, np.random.default_rng(9))[1]
    assert abs(gap[0]) < LIMIT * gap[3]
    gap = study.measured(config, 0.3, 1.2 * x, known, np.random.default_rng(9))[1]
    assert gap[0] < -LIMIT * gap[3]


def test_the_places_of_panels_and_film() -> None:
    config = study.Config()
    panels, film = study.places(config)
    times = study.grid(config.plane_steps[-1])
    assert (times[0], times[-1], len(times)) == (1.0, 0.0, 201)
    assert panels[[0, -1]].tolist() == film[[0, -1]].tolist() == [0, 200]
    levels = study.VP().log_snr(times[panels[1:-1]])
    assert levels == pytest.approx(config.shown, abs=0.06)


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    names = ["", "steps", "exact", "causes", "parity", "samples", "plane", "plane_times"]
    assert list(tables) == names
    assert len(tables[""]) == 2 * 2 * 2
    assert len(tables["steps"]) == 2 * 2 * 2
    assert tables["parity"]["relative difference"].max() < 1e-12
    assert len(tables["parity"]) == 11
    assert "published" not in tables["samples"]
    exact = tables["exact"].set_index(["start", "eta"])
    gap = exact["right, closed form"] - exact["right, solved"]
    assert gap.abs().max() < 2e-3
    assert exact["right, closed form"].notna().all()
    plane = tables["plane"]
    assert len(plane) == 4
    assert (plane["evaluations"] == plane["steps"]).all()
    assert (tables[""]["error"] > 0).all()
    causes = tables["causes"].set_index("what")["right"]
    assert causes["the law itself"] == pytest.approx(0.2003, abs=1e-4)
    assert causes["its 1024 data points"] == 200 / 1024
    assert causes["exact score, N(0, 1), 30 steps"] == pytest.approx(0.2857, abs=2e-3)


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    key = study.key_of("exact", study.WRONG, 1.0, 4)
    for seed in (TINY.seed, 4):
        run = Run(seed)
        found = study.sampled(
            TINY, study.ORACLE, study.WRONG, 1.0, 4, run.seed_for(key, "noise"), run.generator(key)
        )["numbers"]
        assert np.array_equal(found, arrays[f"numbers {key}"]) == (seed == TINY.seed)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from PIL import Image

    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        names = ["", "replay", "score", "exact", "steps", "swiss_roll", "swiss_roll_steps"]
        assert list(figures) == names
        png, _ = plots.save(figures["steps"], {})
        [film] = study.animate(TINY, arrays).values()
    assert len(png) < 1_000_000
    with Image.open(io.BytesIO(film)) as image:
        assert getattr(image, "n_frames", 1) == TINY.frames


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("particles", 1),
        ("etas", (0.0, 0.5)),
        ("etas", (0.0, 1.0, -1.0)),
        ("etas", [0.0, 1.0]),
        ("shown_steps", 100_000),
        ("steps", (199, 10)),
        ("plane_steps", ()),
        ("plane_steps", (1.5,)),
        ("shown", (2.0, 1.0)),
        ("half", 0.0),
        ("repeats", 1),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
