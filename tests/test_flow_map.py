"""The study flow_map: solved maps equal the exact one, and its verdicts can fail.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from diffscience import gallery, runner
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.process import EDM, VP, RectifiedFlow
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "flow_map.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.flow_map"]

TINY = study.Config(
    clocks=("rectified",), processes=("rectified", "VE"), planes=("swiss_roll",), reference=False,
    tight=1e-3, fine=1e-2, points=5, tolerances=(1e-1, 1e-2), codes=5, pairs=6, marks=2,
    true_points=200, networks=2, training=6, batch=16, widths=(8,), snapshots=(2,),
    learned_codes=12, film_points=10, frames=3, pixels=8, repeats=2, seed=3,
)  # fmt: skip
LIMIT = 4.9
LAW = gallery.julia_bimodal()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return dict(STUDY.compute(TINY, Run(TINY.seed)))


# ------------------------------------------------------------------ the map


def test_solved_maps_on_the_line_are_the_exact_one() -> None:
    """To 1e-7 at a tight tolerance and 1e-10 by the reference; at a loose one they are not."""
    config = study.Config(points=5, tolerances=(1e-2, 1e-9), tight=1e-3, reference=False)
    errors = study.line_errors(config, "rectified")["errors"]
    assert errors.shape == (3, 4)
    assert np.all(errors[0, :2] > 1e-4)
    assert np.all(errors[1, :2] < 1e-7)
    assert np.all(errors[2, :2] > 1e-6)
    assert errors[1, 2] > errors[0, 2]
    oracle, z = Oracle(LAW, RectifiedFlow()), study.quantiles(5)
    found = study.best(study.Config(), oracle, z, [1.0, 0.0])
    assert np.abs(found - oracle.flow(z, 1.0, 0.0)).max() < 1e-10


def test_all_processes_have_one_map_from_one_level() -> None:
    """On the line exactly; from their own ends not, by as much as they end early."""
    maps = study.line_maps(study.Config())
    base = maps["map rectified"]
    for name in study.PROCESSES:
        gap = np.abs(maps[f"level {name}"] - maps["level rectified"]).max()
        assert gap < 1e-11, name
    means = {n: np.mean(np.abs(maps[f"map {n}"] - base)) for n in study.PROCESSES}
    assert means["cosine"] < 1e-11
    assert 1e-3 < means["VP"] < means["EDM"] < means["VE"]
    # Another law's map is another map, though its codes are the same.
    wider = LAW.diffuse(RectifiedFlow().at(0.5))
    other = Oracle(wider, EDM()).flow(80 * maps["codes"][:, None], 80.0, 0.0)
    assert np.abs(other[:, 0] - base).max() > 0.5


def test_the_map_is_that_of_the_quantiles() -> None:
    """With nothing of the data left at T, F_0^-1(Phi(z)); increasing."""
    maps = study.line_maps(study.Config())
    exact = np.asarray(LAW.quantile(ndtr(maps["codes"])[:, None])).ravel()
    np.testing.assert_allclose(maps["map rectified"], exact, atol=1e-9)
    assert np.all(np.diff(maps["map rectified"]) > 0)


def test_the_plane_has_one_map_too() -> None:
    """VE and the rectified flow from sigma/alpha = 5, at tolerance 1e-5. Seed 1."""
    config, z = study.Config(tight=1e-5), np.random.default_rng(1).standard_normal((3, 2))
    one, two = (study.plane_maps(config, "two_moons", p, z) for p in ("rectified", "VE"))
    assert np.abs(one["level"] - two["level"]).max() < 1e-3
    assert np.abs(one["own"] - two["own"]).max() > 1e-2


def test_levels_units_and_quantiles() -> None:
    assert study.level(EDM()) == 80
    assert study.level(RectifiedFlow()) == math.inf
    assert study.unit(EDM()) == 80
    assert study.unit(VP()) == pytest.approx(1.0, abs=1e-4)
    t = study.time_at(VP(), 5.0)
    assert math.sqrt(VP().var(t)) / VP().alpha(t) == pytest.approx(5.0)
    z = study.quantiles(11)
    np.testing.assert_allclose(z, -z[::-1], atol=1e-9)
    assert z[0, 0] == pytest.approx(-4.753, abs=1e-3)


def test_there_and_back_gets_better_with_the_tolerance() -> None:
    """Seed 2."""
    config = study.Config(codes=6, tolerances=(1e-2, 1e-4), reference=False, tight=1e-5)
    found = study.round_trips(config, "two_moons", np.random.default_rng(2))
    loose, tight, _ = found["trips"]
    assert tight[1] < 0.1 * loose[1]
    assert tight[4] > loose[4]
    assert np.all(tight[[0, 2]] <= tight[[1, 3]])


def test_the_curve_is_the_bare_law() -> None:
    """Its points are at the highest density across; places run from 0 to 1 along it."""
    for name in study.PLANES:
        nodes = study.curve(name, 41)
        law = study.PLANES[name]()
        nearby = law.log_prob(nodes) - law.log_prob(nodes + 0.3)
        assert np.mean(nearby > 0) > 0.9
        np.testing.assert_allclose(study.along(name, nodes), np.linspace(0, 1, 41), atol=0.001)


# ------------------------------------------------------------------ ways


def test_ways_by_hand() -> None:
    a, b, s = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]]), np.array([0.0, 0.5, 1.0])
    half = math.sqrt(0.5)
    middles: dict[str, list[float]] = {
        study.DATA: [0.5, 1.0],
        study.STRAIGHT: [0.5, 1.0],
        study.CIRCLE: [1.5 * half, 1.5 * half],
        study.BARE: [half, 2 * half],
        study.QUARTER: [half, 2 * half],
    }
    for way, middle in middles.items():
        found = study.mixed(way, a, b, s)
        np.testing.assert_allclose(found[[0, 2], 0], np.concatenate([a, b]), atol=1e-12)
        np.testing.assert_allclose(found[1, 0], np.array(middle), atol=1e-12)
    # On a circle about the origin slerp keeps the radius; the quarter circle does not.
    c = np.array([[half, half]])
    for way, radius in ((study.CIRCLE, 1.0), (study.BARE, 1.0), (study.QUARTER, 1.307)):
        assert np.linalg.norm(study.mixed(way, a, c, s)[1, 0]) == pytest.approx(radius, abs=1e-3)
    # Nearly opposite codes of unequal lengths: the bare formula throws them far out.
    d = np.array([[-2.0, 0.02]])
    circle, bare = (study.mixed(way, a, d, s)[1, 0] for way in (study.CIRCLE, study.BARE))
    assert np.linalg.norm(circle) == pytest.approx(1.5, abs=1e-3)
    assert np.linalg.norm(bare) > 20
    still = study.mixed(study.CIRCLE, a, 2 * a, s)[:, 0]  # parallel: straight
    np.testing.assert_allclose(still, np.array([[1, 0], [1.5, 0], [2, 0]]), atol=1e-5)


def test_the_quarter_circle_keeps_the_law_and_the_others_do_not() -> None:
    """On the line, where the map is exact: W1 of the middles against its floor. Seed 4."""
    config = study.Config(pairs=800, marks=2, true_points=20_000, repeats=4)
    found = study.ways(config, study.LINE, np.random.default_rng(4))
    excess = {}
    for way in study.ways_of(study.LINE):
        w, error, floor, spread = found[f"{way} middle"]
        excess[way] = (w - floor) / math.hypot(error, spread)
    assert abs(excess[study.QUARTER]) < LIMIT
    assert excess[study.STRAIGHT] > LIMIT
    assert excess[study.DATA] > LIMIT
    gap, error, share, _ = found[f"{study.QUARTER} by s"][1]
    assert abs(gap) < LIMIT * error * 1.2
    assert abs(share - study.OFF) < LIMIT * math.sqrt(study.OFF / 4000 + study.OFF / 20_000)
    ends = found[f"{study.STRAIGHT} by s"][[0, -1]]
    assert np.all(np.abs(ends[:, 0]) < LIMIT * ends[:, 1] * 1.2)


def test_straight_ways_in_the_data_leave_the_roll() -> None:
    """And those of codes do not: shares off the law, of 40 pairs. Seed 5."""
    config = study.Config(pairs=40, marks=2, true_points=2000, repeats=2, fine=1e-3)
    found = study.ways(config, "swiss_roll", np.random.default_rng(5))
    shares = {way: found[f"{way} by s"][1, 2] for way in study.WAYS}
    assert shares[study.DATA] > 0.5
    for way in (study.STRAIGHT, study.CIRCLE, study.QUARTER):
        assert shares[way] < 0.2


# ------------------------------------------------------------------ learned


def test_a_state_is_the_network_at_its_step() -> None:
    """The last one has the last weights, an early one has not, and another network has others."""
    found = study.learned(TINY, [1, 2], [3, 4], iter)
    states = {k: np.asarray(v) for k, v in found.items()}
    early, late, other = (study.network_at(TINY, states, *at) for at in ((0, 2), (0, 6), (1, 6)))
    assert early.predicts == "velocity"
    name = "out.weight"
    np.testing.assert_array_equal(late.state()[name], states[f"0 6 {name}"])
    for twin in (early, other):
        assert not np.array_equal(twin.state()[name], late.state()[name])


def test_the_errors_of_learned_maps_are_over_networks(arrays: dict[str, np.ndarray]) -> None:
    row = study.learned_table(TINY, arrays).iloc[-1]
    one, other = arrays["learned 6 distance"].mean(axis=1)
    assert row["distance, mean"] == pytest.approx((one + other) / 2)
    assert row["error"] == pytest.approx(abs(one - other) / 2)
    one, other = arrays["learned 6 sliced"][:, 0]
    assert row["sliced W1"] == pytest.approx((one + other) / 2)
    assert row["its error"] == pytest.approx(abs(one - other) / 2)


def test_a_learned_map_is_measured_point_by_point() -> None:
    """The exact model has the distance 0, a flow that is still has |z - x|. Seed 6."""
    z = np.random.default_rng(6).standard_normal((6, 2))
    oracle = study.plane_oracle("swiss_roll")
    exact = np.asarray(study.decode(oracle, z, 1e-6, "cpu").last)
    found = study.compare(TINY, oracle, z, exact, np.random.default_rng(0))
    assert found["distance"].max() < 1e-2
    assert found["distance"].max() > 0

    class Still(Oracle):
        def velocity(self, x: Any, t: Any) -> Any:
            return 0 * x

    still = Still(oracle.law, oracle.process)
    found = study.compare(TINY, still, z, exact, np.random.default_rng(0))
    np.testing.assert_allclose(found["distance"], np.linalg.norm(z - exact, axis=1))


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "processes", "codes", "ways", "learned"]
    assert tables[""]["tolerance"].tolist() == ["0.1", "0.01", "0.001, tight"]
    assert tables["processes"]["process"].tolist() == ["rectified", "VE"]
    assert len(tables["ways"]) == 3 + 5
    assert tables["learned"]["model"].tolist() == ["exact", "2 steps", "6 steps"]
    assert tables["learned"]["distance, mean"][0] < tables["learned"]["distance, mean"][2]


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    for seed in (TINY.seed, 4):
        found = study.ways(TINY, study.LINE, Run(seed).generator("ways", study.LINE))
        for way in study.ways_of(study.LINE):
            same = np.array_equal(found[f"{way} middle"], arrays[f"ways line {way} middle"])
            assert same == (seed == TINY.seed)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from PIL import Image

    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        names = ["", "line", "tolerances", "processes", "examples", "ways", "learned"]
        assert list(figures) == names
        png, _ = plots.save(figures["tolerances"], {})
        [film] = study.animate(TINY, arrays).values()
    assert len(png) < 1_000_000
    with Image.open(io.BytesIO(film)) as image:
        assert getattr(image, "n_frames", 1) == TINY.frames


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("clocks", ()),
        ("clocks", ("VP", "EDM", "VE", "rectified")),
        ("processes", ("VP",)),
        ("processes", ("rectified", "other")),
        ("planes", ("s_curve",)),
        ("points", 1),
        ("marks", 3),
        ("tolerances", (1e-3,)),
        ("tolerances", (1e-5, 1e-3)),
        ("snapshots", (9000,)),
        ("snapshots", (100, 50)),
        ("final_rate", 1.0),
        ("fine", 0.0),
        ("reference", 1),
        ("half", -1.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
