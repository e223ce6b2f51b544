"""The study hyvarinen: the note's printed minimum, closed forms against searches, sampling laws."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffscience import fits, gallery, runner
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
    mean, v, m4 = study.moments(study.note_law())
    assert mean == pytest.approx(3.2)
    assert v == pytest.approx(1 + 0.24 * 4)  # within, and between means 2 apart
    a = np.array([-1.2, 0.8])
    w = np.array([0.4, 0.6])
    assert m4 == pytest.approx(float(w @ (a**4 + 6 * a**2 + 3)))


# ------------------------------------------------------------------ polynomials


def test_degree_one_is_the_gaussian() -> None:
    law, x = study.note_law(), study.note_sample()
    (theta,) = study.fitted(law, x, (1,))
    mean, cov = fits.gaussian(x)
    y = np.linspace(-1, 7, 9)[:, None]
    gaussian = study.gaussian_score(mean[0], np.sqrt(cov[0, 0]))
    np.testing.assert_allclose(study.polynomial(law, theta)(y), gaussian(y))
    expected = study.relative_error(law, gaussian)
    assert study.polynomial_error(law, theta) == pytest.approx(expected)


def test_the_derivatives_of_the_fields() -> None:
    law, x = study.note_law(), np.linspace(-1, 6, 7)[:, None]
    for field, slope in study.statistics(law, 5):
        numeric = (field(x + 1e-5) - field(x - 1e-5))[:, 0] / 2e-5
        np.testing.assert_allclose(slope(x), numeric, atol=1e-8)


def test_the_polynomial_is_that_of_the_fields() -> None:
    law, x = gallery.julia_bimodal(), np.linspace(-6, 6, 9)[:, None]
    theta = np.array([0.3, -1.0, 0.5, -0.2])
    fields = study.statistics(law, 3)
    expected = sum(c * f(x)[:, 0] for c, (f, _) in zip(theta, fields, strict=True))
    np.testing.assert_allclose(study.polynomial(law, theta)(x), expected, rtol=1e-12)


def test_the_relative_error_is_the_formula() -> None:
    """On an even grid, where sums are exact for laws like this; the twin leaves E s^2 out."""
    law, x = gallery.julia_bimodal(), np.linspace(-12, 12, 4001)[:, None]
    psi = study.polynomial(law, study.projection(law, 3))
    p, s = np.exp(law.log_prob(x)), law.score(x)[:, 0]
    squares, energy = p @ (psi(x) - s) ** 2, p @ s**2
    assert study.relative_error(law, psi) == pytest.approx(squares / energy, rel=1e-9)
    assert study.relative_error(law, psi) != pytest.approx(squares / p.sum(), rel=1e-2)


def test_fits_come_to_the_projection_and_no_fit_is_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seed 6: implicit = explicit + C, so that n -> infinity gives the projection of the score.

    Within 0.5 % of the least error; the twin's slopes are 5 % off.
    """
    law, degrees = gallery.julia_bimodal(), (1, 3, 5)
    x = law.sample(200_000, np.random.default_rng(6))
    floors = [study.polynomial_error(law, study.projection(law, d)) for d in degrees]
    errors = [study.polynomial_error(law, theta) for theta in study.fitted(law, x, degrees)]
    assert floors == sorted(floors, reverse=True)
    for floor, error in zip(floors, errors, strict=True):
        assert floor <= error < 1.005 * floor
    assert errors[2] < 0.2 * errors[0]  # better than the Gaussian by far
    true = study.statistics

    def steeper(*given: Any) -> list[Any]:
        return [(field, lambda x, d=slope: 1.05 * d(x)) for field, slope in true(*given)]

    monkeypatch.setattr(study, "statistics", steeper)
    for floor, theta in zip(floors[1:], study.fitted(law, x, degrees)[1:], strict=True):
        assert study.polynomial_error(law, theta) > 1.005 * floor


def test_densities() -> None:
    law = study.note_law()
    x = np.linspace(-6, 12, 2001)
    density = study.normalised(law, study.projection(law, 1), x)
    mean, sigma = 3.2, 1.4
    expected = np.exp(-0.5 * ((x - mean) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
    np.testing.assert_allclose(density, expected, rtol=1e-9)
    theta = np.array([0.2, -0.5, 0.3, -0.9])
    slope = np.gradient(np.log(study.normalised(law, theta, x[800:1200])), x[800:1200])
    np.testing.assert_allclose(
        slope[1:-1], study.polynomial(law, theta)(x[801:1199, None]), atol=1e-4
    )
    assert np.isnan(study.normalised(law, np.array([0.0, 0.1]), x)).all()


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "sampling", "polynomials"]
    main = tables[""].set_index("fit")
    closed, likely = main.loc["score matching, closed form"], main.loc["maximum likelihood"]
    assert closed["mu"] == pytest.approx(likely["mu"], abs=1e-6)
    assert closed["objective"] == main["objective"].min()
    cells = main.filter(like="half a cell")
    assert cells.iloc[0].notna().all() and cells.iloc[1:].isna().all(axis=None)
    errors = main.filter(like="standard error")
    assert errors.loc["moments of the law"].isna().all() and errors.iloc[:-1].notna().all(axis=None)
    sampling = tables["sampling"]
    assert len(sampling) == 2 * len(TINY.sizes)
    assert (sampling["error"] > 0).all()
    polynomials = tables["polynomials"]
    assert len(polynomials) == len(study.LAWS) * 2 * 2
    assert (polynomials["median / best"] >= 1).all()


@pytest.mark.usefixtures("only_drawing")
def test_drawing_asks_no_law(arrays: dict[str, np.ndarray]) -> None:
    study.table(TINY, arrays)
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
