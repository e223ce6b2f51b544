"""The study kde: each of its errors against another way to compute it, and wrong twins."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import gallery, losses, runner
from diffscience.errors import ArgumentError
from diffscience.estimates import mean_and_error
from diffscience.study import Run
from diffscience.transition import Transition

FILE = Path(__file__).parents[1] / "studies" / "kde.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.kde"]

TINY = study.Config(
    sizes=(20, 40), repeats=(4, 3), sweep=(0.02, 0.5), count=5, cross=20, points=200, seed=3
)
POINTS = study.note_points()
# Midpoints of cells on which sums are integrals; 0, where p'' jumps, is an edge.
LINE = -3.4 + 1e-4 * (np.arange(100_000) + 0.5)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


def integral(values: np.ndarray) -> float:
    """∫ over `LINE`."""
    return float(values.sum() * (LINE[1] - LINE[0]))


# ------------------------------------------------------------------ the truth


def test_the_truth_is_one_law() -> None:
    p = study.density(LINE)
    assert integral(p) == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(np.log(study.density(POINTS)), study.log_density(POINTS), rtol=1e-12)
    x, step = np.linspace(0.01, 2.9, 300), 1e-5
    slope = (study.cdf(x + step) - study.cdf(x - step)) / (2 * step)
    np.testing.assert_allclose(slope, study.density(x), atol=1e-8)
    slope = (study.log_density(x + step) - study.log_density(x - step)) / (2 * step)
    np.testing.assert_allclose(slope, study.score(x), rtol=1e-5, atol=1e-5)
    around = [study.density(x + k * 1e-3) for k in (-1, 0, 1)]
    second = (around[0] - 2 * around[1] + around[2]) / 1e-6
    np.testing.assert_allclose(second, study.curvature(x), rtol=1e-3, atol=0.02)
    assert study.roughness() == pytest.approx(integral(study.curvature(LINE) ** 2), rel=1e-3)
    law = study.truth()
    assert law.mass.sum() == pytest.approx(1, abs=1e-11)
    assert abs(law.phi[:300] - np.exp(1j * np.outer(law.t[:300], law.x)) @ law.mass).max() < 1e-10


def test_samples_have_the_law() -> None:
    """Seed 2; Kolmogorov's distance, 2.75/√n has a false-alarm rate of 5e-7."""
    x = np.sort(study.sample(20_000, np.random.default_rng(2)))
    ranks = (np.arange(x.size) + 0.5) / x.size
    limit = 2.75 / math.sqrt(x.size)
    assert abs(study.cdf(x) - ranks).max() < limit
    assert abs(study.cdf(1.05 * x) - ranks).max() > limit


# ------------------------------------------------------------------ the note

# Ordinates of the last figure of the page kernel_density_estimation of R. Rosa's random_notes
# (CC BY 4.0; a70f787b.svg, built by Julia 1.12.1) at twelve of its 200 abscissae: the density and
# the Gaussian estimate with h = 0.1. Its axis has 0 at 1486.45 and 1.2 at 244.218.
PLACES = [0, 9, 20, 40, 60, 80, 100, 120, 140, 160, 180, 199]
NOTE_DENSITY = [
    1486.45, 1486.43, 393.002, 1219.01, 781.865, 1226.48, 1463.68, 1354.41, 743.811, 982.905,
    1445.47, 1485.92,
]  # fmt: skip
NOTE_ESTIMATE = [
    1446.22, 1129.33, 516.787, 1236.76, 671.56, 1279.57, 1485.66, 1440.25, 829.925, 980.476,
    1407.05, 1477.13,
]  # fmt: skip


def ordinates(p: np.ndarray) -> np.ndarray:
    """Where the note draws a density p."""
    return 1486.45 - (1486.45 - 244.218) / 1.2 * p


def test_the_curves_of_the_note() -> None:
    x = np.linspace(POINTS.min() - 0.2, POINTS.max() + 0.2, 200)[PLACES]
    np.testing.assert_allclose(ordinates(study.density(x)), NOTE_DENSITY, atol=0.012)
    estimate = study.library(POINTS, "Gaussian", 0.1, x)
    np.testing.assert_allclose(ordinates(estimate), NOTE_ESTIMATE, atol=0.012)
    twin = study.library(POINTS, "Gaussian", 0.1005, x)
    assert abs(ordinates(twin) - NOTE_ESTIMATE).max() > 0.5


# ------------------------------------------------------------------ estimates


@pytest.mark.parametrize("kernel", study.KERNELS)
@pytest.mark.parametrize("h", [0.01, 0.05, 0.1, 0.5])
def test_the_library_is_the_algebra(kernel: str, h: float) -> None:
    x = np.linspace(-0.5, 3, 1500)
    found = study.library(POINTS, kernel, h, x)
    exact = np.exp(study.algebra(POINTS, kernel, h).log_prob(x[:, None]))
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-12)
    formula = (x[:, None] - POINTS) / h
    bumps = np.exp(-(formula**2) / 2) / math.sqrt(2 * math.pi)
    bumps = bumps if kernel == "Gaussian" else 1.0 * (abs(formula) < 0.5)
    np.testing.assert_allclose(bumps.mean(axis=1) / h, exact, rtol=1e-12, atol=1e-12)
    twin = np.exp(study.algebra(POINTS, kernel, 1.05 * h).log_prob(x[:, None]))
    assert abs(found - twin).max() > 1e-3


def test_the_library_means_these_rules() -> None:
    from sklearn.neighbors import KernelDensity

    found = study.rules(POINTS, study.waves(POINTS), np.geomspace(0.01, 0.6, 30))
    own = dict(zip(study.SEEN, found, strict=True))
    for name in ("silverman", "scott"):
        fitted = KernelDensity(bandwidth=name).fit(POINTS[:, None])
        assert own[f"library's {name}"] == pytest.approx(fitted.bandwidth_, rel=1e-12)


def test_cross_validation_leaves_each_point_out() -> None:
    widths = np.geomspace(0.02, 0.5, 40)
    found = []
    for h in widths:
        p = np.exp(study.algebra(POINTS, "Gaussian", h).log_prob(LINE[::20, None]))
        apart = np.exp(-0.5 * ((POINTS[:, None] - POINTS) / h) ** 2) / (h * math.sqrt(2 * math.pi))
        np.fill_diagonal(apart, 0)  # leaving it in would choose the least width
        square = (p**2).sum() * (LINE[20] - LINE[0])
        found.append(square - 2 * apart.sum() / (60 * 59))
    best = study.cross_validated(study.waves(POINTS), 60, widths)
    assert best == widths[np.argmin(found)]
    assert widths[0] < best < widths[-1]


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("h", [0.02, 0.1, 0.4])
def test_errors_of_a_gaussian_estimate(h: float) -> None:
    ise, forward, back, fisher, _ = study.gaussian_errors(POINTS, h, study.waves(POINTS))
    law = study.algebra(POINTS, "Gaussian", h)
    log_p, s = law.log_prob_and_score(LINE[:, None])
    p, q = study.density(LINE), np.exp(log_p)
    log_q = study.log_density(LINE)
    inside = (LINE > 1e-9) & (LINE < 3.4)
    true_score = study.score(LINE[inside])
    assert ise == pytest.approx(integral((q - p) ** 2), rel=1e-6)
    assert forward == pytest.approx(integral((p * (log_q - log_p))[inside]), rel=2e-3)
    assert back == pytest.approx(integral(q * (log_p - log_q)), rel=5e-4)
    squares = integral(p[inside] * (s[inside, 0] - true_score) ** 2)
    assert fisher == pytest.approx(squares / integral(p[inside] * true_score**2), rel=5e-3)
    twin = study.gaussian_errors(POINTS, 1.05 * h, study.waves(POINTS))
    off = np.abs(np.array(twin[:4]) / [ise, forward, back, fisher] - 1)
    assert (off > [1e-3, 4e-3, 1e-3, 1e-2]).all()


@pytest.mark.parametrize("h", [0.05, 0.3, 1.5])
def test_errors_of_a_box_estimate(h: float) -> None:
    ise, forward, back, fisher, uncovered = study.box_errors(POINTS, h)
    points = np.sort(POINTS)
    inside = np.searchsorted(points, LINE + h / 2) - np.searchsorted(points, LINE - h / 2)
    p, q = study.density(LINE), inside / (60 * h)
    assert ise == pytest.approx(integral((q - p) ** 2), rel=1e-3)
    full = q > 0
    ratio = integral(q[full] * (np.log(q[full]) - study.log_density(LINE[full])))
    assert back == pytest.approx(ratio, rel=2e-3)
    assert uncovered == pytest.approx(integral(p * ~full), abs=2e-4)
    assert forward == math.inf and fisher == 1.0
    twin = study.box_errors(POINTS, 1.05 * h)
    off = np.abs(np.array([twin[0], twin[2]]) / [ise, back] - 1)
    assert (off > 4e-3).all()
    assert h == 1.5 or abs(twin[4] - uncovered) > 4e-4  # boxes of 1.5 cover all of p


# ------------------------------------------------------------------ what is exact


@pytest.mark.parametrize("kernel", study.KERNELS)
def test_the_exact_mise_is_the_mean(kernel: str) -> None:
    """3000 data sets of 60 points, seed 7: |z| < 4.9; an expectation 5 % off is seen at each h."""
    generator = np.random.default_rng(7)
    widths = np.array([0.02, 0.1, 0.3]) * (1.0 if kernel == "Gaussian" else study.CANONICAL)
    rows = []
    for _ in range(3000):
        points = study.sample(60, generator)
        found = study.waves(points) if kernel == "Gaussian" else None
        rows.append(study.ise_of(kernel, points, widths.tolist(), found))
    found, error = mean_and_error(rows)
    exact = study.mise(kernel, widths, 60)
    assert (abs(found - exact) / error < 4.9).all()
    assert (abs(found - 1.05 * exact) / error > 4.9).all()


@pytest.mark.parametrize("kernel", study.KERNELS)
def test_the_asymptotic_optimum_is_the_limit(kernel: str) -> None:
    """Its distance from the exact optimum falls with n, and its MISE comes to the least one."""
    ratios = [study.best_mise(kernel, n)[0] / study.asymptotic(kernel, n) for n in (1e3, 1e5, 1e7)]
    assert ratios[0] > ratios[1] > ratios[2] > 1
    assert ratios[2] < 1.06
    n = 1e7
    cost = study.mise(kernel, np.array([study.asymptotic(kernel, n)]), n)[0]
    assert cost / study.best_mise(kernel, n)[1] == pytest.approx(1, abs=0.01)
    twin = study.mise(kernel, np.array([1.3 * study.asymptotic(kernel, n)]), n)[0]
    assert twin / study.best_mise(kernel, n)[1] > 1.05


def test_boxes_and_gaussians_smooth_alike() -> None:
    assert study.asymptotic("box", 100.0) / study.asymptotic("Gaussian", 100.0) == pytest.approx(
        study.CANONICAL
    )


def test_the_bias_near_zero_sets_the_powers() -> None:
    """The errors of the blurred law fall like h^4, h^3, h^3 and h: hence n^(-1/5) and n^(-1/4)."""
    h = np.array([0.005, 0.00625])
    found = np.column_stack([study.mise("Gaussian", h, math.inf), study.limits(h)])
    powers = np.log(found[1] / found[0]) / math.log(1.25)
    np.testing.assert_allclose(powers, [4, 3, 3, 1], atol=0.3)
    assert abs(powers[1:] - [4, 4, 4]).min() > 0.9  # those of a law that is smooth everywhere


# ------------------------------------------------------------------ what score matching learns


def test_parzen_and_denoising_objectives_learn_the_score_of_the_estimate() -> None:
    """Vincent's identity on the data themselves, the noise by 361 nodes."""
    h = 0.1
    law = study.algebra(POINTS, "Gaussian", h)
    x = POINTS[:, None]
    assert np.max(np.abs(losses.parzen(law.score, x, x, h))) == 0.0
    z = np.linspace(-9, 9, 361)
    weights = np.tile(np.exp(-z * z / 2) / np.exp(-z * z / 2).sum() / len(x), len(x))
    clean, noise = np.repeat(x, len(z), axis=0), np.tile(z, len(x))[:, None]
    noised = clean + h * noise

    def loss(psi: Any) -> float:
        return float(weights @ losses.denoising_at(psi, clean, noise, Transition(1.0, h * h)))

    least = loss(law.score)
    for shift in (np.sin, lambda x: np.cos(3 * x), lambda x: x):
        more = loss(lambda x, f=shift: law.score(x) + 0.1 * f(x)) - least
        assert more == pytest.approx(0.005 * float(weights @ shift(noised)[:, 0] ** 2), rel=1e-6)
    assert loss(gallery.empirical(x).diffuse(Transition(1.0, (1.05 * h) ** 2)).score) > least


# ------------------------------------------------------------------ optima


def test_the_lowest_point_of_a_parabola() -> None:
    h = np.geomspace(0.01, 1, 15)
    rows = (np.log(h) - math.log(0.1234)) ** 2 + 2.0
    assert study.lowest(h, rows) == pytest.approx((0.1234, 2.0))
    generator = np.random.default_rng(1)
    centres = math.log(0.1) + 0.2 * generator.standard_normal(50)
    curves = (np.log(h) - centres[:, None]) ** 2
    width, error, value, _ = study.optimum(h, curves)
    assert math.log(width) == pytest.approx(centres.mean())
    assert error / width == pytest.approx(centres.std(ddof=1) / math.sqrt(50), rel=0.01)
    assert value == pytest.approx(centres.var())


def test_an_optimum_at_an_end_of_the_sweep_is_none() -> None:
    h = np.geomspace(0.01, 1, 15)
    for falling in (np.log(h), -np.log(h)):
        width, value = study.lowest(h, falling)
        assert math.isnan(width) and value == falling.min()
    curves = (np.log(h) - np.array([[-2.0], [-9.0]])) ** 2  # one of two lies outside
    width, error, _, _ = study.optimum(h, curves)
    assert math.isnan(error) and (math.isnan(width) or h[0] < width < h[-1])


def test_what_is_infinite_has_no_error() -> None:
    rows = np.array([[1.0, math.inf, math.inf], [3.0, math.inf, 2.0]])
    found = study.spread(rows)
    assert found[0] == 1.0 and np.isnan(found[1:]).all()


# ------------------------------------------------------------------ the study


def test_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "powers", "rules", "note", "sweep"]
    main = tables[""]
    assert len(main) == len(study.OPTIMA) * len(TINY.sizes)
    assert (main["error"] > 0).all() and not (main["error of h"] < 0).any()
    assert main["best h"].notna().any()
    note = tables["note"]
    assert list(note["h"]) == 2 * list(TINY.bandwidths)
    assert (note["library - algebra"] < 1e-12).all()
    assert (note[note["kernel"] == "box"]["KL(p, p̂)"] == math.inf).all()
    rules = tables["rules"]
    assert len(rules) == 2 * len(TINY.sizes) * len(study.RULES)
    assert (rules["error of ratio"] > 0).all()
    sweep = tables["sweep"]
    assert len(sweep) == 2 * len(TINY.sizes) * TINY.count
    forward = ["KL(p, p̂)", "error of KL(p, p̂)"]
    assert np.isfinite(sweep.drop(columns=forward).select_dtypes("number")).all(axis=None)
    boxes = sweep[sweep["kernel"] == "box"]
    assert (boxes[forward[0]] == math.inf).all() and boxes[forward[1]].isna().all()


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again, other = (STUDY.compute(TINY, Run(seed)) for seed in (3, 4))
    for key, value in arrays.items():
        np.testing.assert_array_equal(again[key], value)
    assert not np.array_equal(other["errors box 20"], arrays["errors box 20"])
    np.testing.assert_array_equal(other["panels"], arrays["panels"])


@pytest.mark.usefixtures("only_drawing")
def test_drawing(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    from diffscience import plots

    def refuse(*_: Any) -> None:
        raise AssertionError("drawing computes")

    for name in ("truth", "density", "score", "cdf", "mise", "optimum", "lowest"):
        monkeypatch.setattr(study, name, refuse)
    study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "sample", "sweep", "scores", "best"]
        png, svg = plots.save(figures["best"], {})
    assert len(png) < 1_000_000 and len(svg) < 3_000_000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bandwidths", ()),
        ("bandwidths", (0.0, 0.1)),
        ("sizes", (60,)),
        ("sizes", (600, 60, 6)),
        ("repeats", (3, 3)),
        ("repeats", (3, 3, 2)),
        ("sweep", (0.5, 0.1)),
        ("sweep", (0.001, 0.1)),
        ("count", 4),
        ("cross", 4),
        ("points", 10),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(study.Config(), **{field: value})
