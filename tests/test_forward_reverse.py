"""The study forward_reverse: what it promises to compute, and that its verdict can fail.

The exact score must bring points back to within the floor; a score 30 % off, and noise of twice the
variance, must not.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import GaussianMixture, Oracle, gallery, runner, states
from diffscience.errors import ArgumentError
from diffscience.study import Run
from diffscience.targets import Target

FILE = Path(__file__).parents[1] / "studies" / "forward_reverse.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.forward_reverse"]

TINY = study.Config(
    targets=("s_curve", "julia_trimodal"), particles=200, steps=30, log_snr=(9.0, -7.0),
    shown=(2.0,), frames=4, pixels=12, arrows=5, repeats=2, most=60, fewer=(25,), seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


# ------------------------------------------------------------------ tables


def test_the_main_table(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "final", "exact", "steps"]
    main = tables[""]
    assert list(main) == [
        "target", "direction", "k", "sigma/alpha", "metric", "value", "error", "floor",
        "floor error", "excess",
    ]  # fmt: skip
    assert len(main) == 2 * 3 * 3 * 4  # targets, directions, times, metrics
    assert set(main["metric"]) == set(study.METRICS)
    numbers = main.select_dtypes("number").to_numpy()
    assert np.isfinite(numbers).all()
    assert (main["error"] > 0).all()
    forward = main[(main["direction"] == "forward") & (main["target"] == "s_curve")]
    back = main[(main["direction"] == "ddim") & (main["target"] == "s_curve")]
    assert forward["k"].is_monotonic_increasing
    assert back["k"].is_monotonic_decreasing
    spread = np.hypot(main["error"], main["floor error"])
    np.testing.assert_allclose(main["excess"], (main["value"] - main["floor"]) / spread)


def test_the_other_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert len(tables["final"]) == 2 * 3
    exact = tables["exact"].set_index("target")
    law = gallery.julia_trimodal()
    assert exact.loc["julia_trimodal", "entropy of the data / nats"] == pytest.approx(law.entropy())
    assert exact.loc["s_curve", "KL(p_K, start) / nats"] >= 0
    # The last step leaves out at most what the noise of X_1 could be: 2 var(1) / alpha(1)^2.
    left = exact["variance left out by the last step"]
    assert (left > 0).all()
    assert (left <= 2 * math.exp(-TINY.log_snr[0])).all()
    steps = tables["steps"]
    assert sorted(set(steps["K"])) == [25, 30]
    assert list(steps["schedule"]).count("linear betas") == 2


def test_the_densities_and_scores_are_those_of_the_times(arrays: dict[str, np.ndarray]) -> None:
    chain = study.even_chain(TINY.steps, *TINY.log_snr)
    law, kept = gallery.s_curve(), arrays["kept"]
    window = study.centres(TINY.half, TINY.pixels)
    assert window[0, 0] == pytest.approx(np.full(2, -TINY.half * (1 - 1 / TINY.pixels)))
    for place in (0, len(kept) - 1):
        at = law.diffuse(chain.at(kept[place]))
        np.testing.assert_allclose(
            arrays["s_curve log_density"][place], at.log_prob(window), rtol=1e-6, atol=1e-6
        )
    score = law.diffuse(chain.at(kept[-1])).score(study.centres(TINY.half, TINY.arrows))
    np.testing.assert_allclose(arrays["s_curve score"][-1], score, rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_numbers() -> None:
    config = dataclasses.replace(TINY, targets=("julia_trimodal",))
    first, second = (STUDY.compute(config, Run(3)) for _ in range(2))
    other = STUDY.compute(config, Run(4))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert not np.array_equal(first["julia_trimodal ddim"], other["julia_trimodal ddim"])


# ------------------------------------------------------------------ pictures


def test_drawing_computes_nothing(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    from diffscience import plots

    def refuse(*_: Any) -> None:
        raise AssertionError("drawing asked a law")

    for name in ("log_prob", "score", "sample", "quadrature"):
        monkeypatch.setattr(Target, name, refuse)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "s_curve", "julia_trimodal", "metrics", "steps"]
        png, svg = plots.save(figures["s_curve"], {})
        films = study.animate(TINY, arrays)
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000
    assert list(films) == ["s_curve", "julia_trimodal"]
    for film in films.values():
        with Image.open(io.BytesIO(film)) as image:
            assert getattr(image, "n_frames", 1) == 2 * len(arrays["film"])
            assert len(film) < 3_000_000


# ------------------------------------------------------------------ the verdict


def test_the_chain_is_even_in_log_snr() -> None:
    chain = study.even_chain(50, 12.0, -9.0)
    steps = np.diff(chain.log_snr(np.arange(1.0, 51.0)))
    np.testing.assert_allclose(steps, -21 / 49, rtol=1e-8)
    assert chain.log_snr(1.0) == pytest.approx(12.0)


def test_the_gap_of_a_gaussian() -> None:
    """E log p + H = (1 - s^2) D / 2 for points of standard deviation s; seed 0, z < 5.5."""
    law = GaussianMixture([1.0], np.zeros((1, 2)), np.ones((1, 2)))
    entropy, variance = study.log_moments(law)[0] * -1, study.log_moments(law)[1]
    assert entropy == pytest.approx(1 + math.log(2 * math.pi))
    assert variance == pytest.approx(1.0)
    for s in (1.0, 0.9, 1.1):
        x = s * np.random.default_rng(0).standard_normal((20_000, 2))
        found = study.gap(law, x, entropy, variance)
        assert abs(found.value - (1 - s * s)) < 5.5 * found.error
        assert found.floor_error == pytest.approx(1 / math.sqrt(20_000))
        if s != 1.0:  # the wrong twin: 10 % off
            assert abs(found.excess()) > 5.5


class Stretched(Oracle):
    """An oracle whose score is `factor` times the true one; x0 and eps follow it."""

    factor = 1.3

    def x0(self, x: Any, t: Any) -> Any:
        alpha = self.process.alpha(t)
        return self.factor * super().x0(x, t) + (1 - self.factor) * x / alpha

    def eps(self, x: Any, t: Any) -> Any:
        return self.factor * super().eps(x, t)


class Damped(Stretched):
    factor = 0.8


CHAIN = study.even_chain(200, 11.0, -8.0)
LAW = gallery.s_curve()
END = np.array([0.0])
POINTS = 1000
# In standard errors of 1000 true points a perfect sampler has |z| < 7 but for 3e-12; the 0.03 nats
# that 200 steps cost (1.3 of them) leave 1e-8, and the skew of log p less than 1e-6.
LIMIT = 7.0


@functools.cache
def moments(k: float) -> tuple[float, float]:
    """Entropy and variance of log p of the S-curve at step k."""
    mean, variance = study.log_moments(LAW.diffuse(CHAIN.at(k)))
    return -mean, variance


def verdict(x: np.ndarray, k: float = 0.0) -> float:
    """The gap of points from the law of X_k, in standard errors of a perfect sample."""
    found = study.gap(LAW.diffuse(CHAIN.at(k)), x, *moments(k))
    return abs(found.value / found.floor_error)


def back(model: type[Oracle], direction: str) -> np.ndarray:
    """Points that a model brings back; seed 11."""
    generator = np.random.default_rng(11)
    return study.travel(model(LAW, CHAIN), direction, POINTS, END, generator)["states"][0]


@pytest.mark.parametrize("direction", ["ancestral", "ddim"])
def test_the_exact_score_comes_back_and_a_wrong_one_does_not(direction: str) -> None:
    assert verdict(back(Oracle, direction)) < LIMIT
    assert verdict(back(Stretched, direction)) > LIMIT
    assert verdict(back(Damped, direction)) > LIMIT


def test_noise_of_the_wrong_size_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrong twin of the sampler: sigma^2 = 2 btilde."""
    true_noise = states.noise
    monkeypatch.setattr(states, "noise", lambda *a: math.sqrt(2) * true_noise(*a))
    assert verdict(back(Oracle, "ancestral")) > LIMIT


def test_the_forward_path_has_the_exact_laws() -> None:
    """Seed 5: every time of a forward path meets its law, and not the law of another time."""
    kept = np.array([0.0, 60.0, 120.0, 200.0])
    generator = np.random.default_rng(5)
    path = study.travel(Oracle(LAW, CHAIN), "forward", POINTS, kept, generator)["states"]
    for k, x in zip(kept.tolist(), path, strict=True):
        assert verdict(x, k) < LIMIT
    assert verdict(path[2], 60.0) > LIMIT


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("julia_bimodal",)),
        ("targets", ("rolls",)),
        ("shown", (0.0, 2.0)),
        ("shown", ()),
        ("shown", (20.0,)),
        ("frames", 2),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
