"""The study hyvarinen: the note's printed minimum, closed forms against searches, sampling laws."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from diffscience import VP, Oracle, fits, gallery, metrics, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "hyvarinen.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.hyvarinen"]

TINY = study.Config(
    sizes=(50, 100), samples=40, degrees=(1, 3), fit_sizes=(100, 400), fits=3, seed=3
)
LIMIT = 4.9  # standard errors: a false-alarm rate of 1e-6


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


# ------------------------------------------------------------------ the note


def test_the_printed_minimum() -> None:
    """mu = 3.0819, sigma = 1.4045 (R. Rosa, random_notes, score_matching_aapo, CC BY 4.0)."""
    found = study.landscape(study.note_sample())["smallest"]
    assert tuple(np.round(found[:2], 4)) == study.PUBLISHED
    other = study.landscape(study.note_sample()[:-1])["smallest"]  # a point less is another grid
    assert tuple(np.round(other[:2], 4)) != study.PUBLISHED


def test_the_landscape_is_the_objective_and_its_minimum_is_at_the_moments() -> None:
    x = study.note_sample()
    found = study.landscape(x)
    for row, column in ((0, 0), (40, 150), (199, 399)):
        mu, sigma = found["mu"][column], found["sigma"][row]
        J = fits.gaussian_objective(x, np.array([mu]), np.array([[sigma**2]]))
        assert found["objective"][row, column] == pytest.approx(J, rel=1e-12)
    mean, cov = fits.gaussian(x)
    least = fits.gaussian_objective(x, mean, cov)
    assert least < found["smallest"][2] < least + 1e-4
    cell = found["mu"][1] - found["mu"][0], found["sigma"][1] - found["sigma"][0]
    assert abs(found["smallest"][0] - mean[0]) < 0.5 * cell[0] + 1e-12
    assert abs(found["smallest"][1] - np.sqrt(cov[0, 0])) < cell[1]


def test_score_matching_and_likelihood_agree_on_the_gaussian() -> None:
    x = study.note_sample()
    np.testing.assert_allclose(study.likeliest(x), [x.mean(), x.std()], atol=1e-6)


# ------------------------------------------------------------------ sampling laws


def test_the_spread_of_the_fit() -> None:
    """Seed 5, 2000 samples of 400: mean and spread are the limits; a spread 25 % off is not."""
    n, samples = 400, 2000
    found = study.sampled(n, samples, np.random.default_rng(5))["fits"]
    means, spreads = study.limit_law(n)
    error = found.std(axis=0, ddof=1) / np.sqrt(samples)
    assert (np.abs(found.mean(axis=0) - means) / error < LIMIT).all()
    assert (np.abs(found.mean(axis=0) - 1.03 * means) / error > LIMIT).all()
    spread = found.std(axis=0, ddof=1)
    spread_error = spread / np.sqrt(2 * samples)
    assert (np.abs(spread - spreads) / spread_error < LIMIT).all()
    assert (np.abs(spread - 1.25 * spreads) / spread_error > LIMIT).all()


def test_the_moments_of_the_law() -> None:
    mean, v, m3, m4 = study.gaussian_moments(study.note_law())
    assert mean == pytest.approx(3.2)
    assert v == pytest.approx(1 + 0.24 * 4)  # within, and between means 2 apart
    a = np.array([-1.2, 0.8])
    w = np.array([0.4, 0.6])
    assert m3 == pytest.approx(float(w @ (a**3 + 3 * a)))
    assert m4 == pytest.approx(float(w @ (a**4 + 6 * a**2 + 3)))


# ------------------------------------------------------------------ polynomials


def test_degree_one_is_the_gaussian() -> None:
    law, x = study.note_law(), study.note_sample()
    (theta,) = study.fitted(law, x, (1,))
    mean, cov = fits.gaussian(x)
    y = np.linspace(-1, 7, 9)[:, None]
    np.testing.assert_allclose(study.values(law, theta, y), -(y[:, 0] - mean[0]) / cov[0, 0])
    expected = study.gaussian_error(mean[0], np.sqrt(cov[0, 0]))
    assert study.relative_error(law, theta) == pytest.approx(expected)


def test_the_derivatives_of_the_fields() -> None:
    law, x = study.note_law(), np.linspace(-1, 6, 7)[:, None]
    for field, slope in study.statistics(law, 5):
        numeric = (field(x + 1e-5) - field(x - 1e-5))[:, 0] / 2e-5
        np.testing.assert_allclose(slope(x), numeric, atol=1e-8)


def test_the_error_is_the_fisher_error_against_the_oracle() -> None:
    law = gallery.julia_bimodal()
    theta = study.projection(law, 3)
    model: Any = SimpleNamespace(score=lambda x, t: study.values(law, theta, x)[:, None])
    found = metrics.fisher_error(model, Oracle(law, VP()), 0.0, relative=True)
    assert study.relative_error(law, theta) == pytest.approx(found.value, rel=1e-9)


def test_fits_come_to_the_projection_and_no_fit_is_below_it() -> None:
    """Seed 6: implicit = explicit + C, so that n -> infinity gives the projection of the score."""
    law, degrees = gallery.julia_bimodal(), (1, 3, 5)
    best = [study.projection(law, d) for d in degrees]
    thetas = study.fitted(law, law.sample(200_000, np.random.default_rng(6)), degrees)
    floors = [study.relative_error(law, theta) for theta in best]
    errors = [study.relative_error(law, theta) for theta in thetas]
    assert floors == sorted(floors, reverse=True)
    for theta, floor, error in zip(thetas, floors, errors, strict=True):
        assert floor <= error < 1.05 * floor
        assert study.relative_error(law, 0.5 * theta) > 1.05 * floor
    assert errors[2] < 0.2 * errors[0]  # better than the Gaussian by far


def test_densities() -> None:
    law = study.note_law()
    x = np.linspace(-6, 12, 2001)
    density = study.normalised(law, study.projection(law, 1), x)
    mean, sigma = 3.2, 1.4
    expected = np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    np.testing.assert_allclose(density, expected, atol=1e-6)
    assert np.isnan(study.normalised(law, np.array([0.0, 0.1]), x)).all()


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "sampling", "polynomials"]
    main = tables[""].set_index("fit")
    closed, likely = main.loc["score matching, closed form"], main.loc["maximum likelihood"]
    assert closed["mu"] == pytest.approx(likely["mu"], abs=1e-6)
    assert closed["objective"] == main["objective"].min()
    sampling = tables["sampling"]
    assert len(sampling) == 2 * len(TINY.sizes)
    assert (sampling["error"] > 0).all()
    polynomials = tables["polynomials"]
    assert len(polynomials) == len(study.LAWS) * 2 * 2
    assert (polynomials["median / best"] >= 1).all()


def test_figures(arrays: dict[str, np.ndarray]) -> None:
    assert list(study.draw(TINY, arrays)) == ["", "sampling", "scores", "errors"]


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second, other = (
        study.sampled(50, 3, Run(seed).generator("x"))["fits"] for seed in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", (100, 50)),
        ("sizes", (50, 200)),
        ("sizes", ()),
        ("fit_sizes", (10,)),
        ("samples", 1),
        ("fits", 2),
        ("degrees", (3, 5)),
        ("degrees", (1, 2)),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
