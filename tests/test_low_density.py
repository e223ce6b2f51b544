"""The study low_density: exact fields, regions and errors are what it says, and its verdict.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import GaussianMixture, losses, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run
from diffscience.targets import Target
from diffscience.transition import Transition

FILE = Path(__file__).parents[1] / "studies" / "low_density.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.low_density"]

TINY = study.Config(sigmas=(0.5, 4.0), steps=3, batch=16, width=8, seeds=2, cells=16, seed=3)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return dict(STUDY.compute(TINY, Run(TINY.seed)))


def replaced(arrays: dict[str, np.ndarray], factor: float) -> dict[str, np.ndarray]:
    """The same with `factor` times the exact score in the place of the networks."""
    other = dict(arrays)
    for i in range(3):
        exact = factor * arrays["pair score"][i]
        other[f"pair learned {i}"] = np.stack([exact, exact])
    return other


# ------------------------------------------------------------------ fields and regions


def test_the_exact_fields(arrays: dict[str, np.ndarray]) -> None:
    x = study.box(TINY.cells)
    assert x[0, 0] == pytest.approx([-7.5, -7.5])
    assert x[0, -1] == pytest.approx([7.5, -7.5])
    for i, sigma in enumerate((0.0, *TINY.sigmas)):
        law = study.pair().diffuse(Transition(1.0, sigma**2))
        np.testing.assert_allclose(arrays["pair score"][i], law.score(x), rtol=1e-12)
        np.testing.assert_allclose(arrays["pair log density"][i], law.log_prob(x), rtol=1e-12)


def test_the_region_of_low_density() -> None:
    """It leaves out `inside` of the mass, and no cell in it has more density than one outside."""
    config = dataclasses.replace(TINY, cells=64, targets=("trimodal",))
    facts = study.exact(config, "trimodal")
    arrays = {f"trimodal {key}": value for key, value in facts.items()}
    low, p = study.rare(config, arrays, "trimodal"), study.mass(arrays, "trimodal", 0)
    assert p.sum() == pytest.approx(1.0, abs=1e-3)
    assert p[~low].sum() / p.sum() >= config.inside
    assert p[low].max() <= p[~low].min()
    assert (p[~low].sum() - p[~low].min()) / p.sum() < config.inside


def test_errors_of_a_known_score(arrays: dict[str, np.ndarray]) -> None:
    """c times the exact score has the relative error (c - 1)^2 in every region and bin."""
    for factor in (1.0, 1.05, 0.0):
        other = replaced(arrays, factor)
        for i in range(3):
            off, size = study.squares(other, "pair", i)
            low = study.rare(TINY, other, "pair")
            for region in (low, ~low, low | ~low):
                value, error = study.relative(off, size, region)
                assert value == pytest.approx((factor - 1) ** 2, abs=1e-12)
                assert error == pytest.approx(0.0, abs=1e-12)
            rows = study.bins(TINY, other, "pair", i)
            np.testing.assert_allclose(rows["relative error"], (factor - 1) ** 2, atol=1e-12)


def test_the_bins_hold_every_cell_and_every_point(arrays: dict[str, np.ndarray]) -> None:
    for i in range(3):
        rows = study.bins(TINY, arrays, "pair", i)
        assert rows["cells"].sum() == TINY.cells**2
        seen = study.mass(arrays, "pair", i).sum() * TINY.steps * TINY.batch
        assert rows["points seen"].sum() == pytest.approx(seen)
    deepest = study.bins(TINY, arrays, "pair", 0)["decades below the maximum"]
    assert deepest.iloc[-1] == f"> {TINY.decades}"


def test_errors_over_seeds() -> None:
    assert study.over_seeds(np.array([1.0, 2.0, 3.0])) == pytest.approx((2.0, 1 / np.sqrt(3)))


# ------------------------------------------------------------------ objectives


@pytest.mark.parametrize("sigma", [0.0, 0.5, 4.0])
def test_the_exact_score_has_the_least_loss(sigma: float) -> None:
    """At s the mean is -C (implicit) or C_sigma (denoising); at 1.1 s it is more. Seed 1.

    implicit(c s) = explicit - C = (c - 1)^2 C - C, and so for denoising with C_sigma added.
    """
    law = study.pair()
    here = study.blurred(law, sigma)
    C = losses.explicit_constant(here)
    constant = -C if sigma == 0 else losses.denoising_constant(law, Transition(1.0, sigma**2))
    x = law.sample(20_000, torch.Generator().manual_seed(1))
    for c in (1.0, 1.1):
        psi = lambda x, c=c: c * here.score(x)  # noqa: E731
        rows = study.objective(sigma)(psi, x.double(), torch.Generator().manual_seed(2)).detach()
        # z and -z are one draw: the error is that of the mean of their pairs.
        rows = rows.reshape(-1, len(x)).mean(dim=0)
        error = float(rows.std() / np.sqrt(len(rows)))
        expected = constant + (c - 1) ** 2 * C
        assert abs(float(rows.mean()) - expected) < 4.9 * error + 1e-9
        assert abs(float(rows.mean()) - expected - 0.5 * C) > 4.9 * error


def test_the_network_is_wrong_where_there_are_no_data_and_noise_mends_it() -> None:
    """Seed 0; 300 steps leave the error at low density far above that at high density."""
    config = study.Config(steps=300, batch=128, width=32, cells=32, seeds=2, targets=("pair",))
    arrays = {f"pair {k}": v for k, v in study.exact(config, "pair").items()}
    low = study.rare(config, arrays, "pair")
    found = {}
    for i, sigma in ((1, config.sigmas[0]), (3, config.sigmas[2])):
        score = study.learned(config, "pair", sigma, 0, Run(0))["score"]
        arrays[f"pair learned {i}"] = np.stack([score, score])
        off, size = study.squares(arrays, "pair", i)
        found[i] = [study.relative(off, size, region)[0] for region in (~low, low)]
    high, far = found[1]
    assert far > 3 * high
    assert found[3][1] < 0.2 * far


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "levels"]
    levels = tables["levels"]
    assert len(levels) == 2 * 3
    assert levels["points seen at low density"].is_monotonic_increasing is False  # two targets
    assert np.isfinite(levels.select_dtypes("number").to_numpy()).all()
    assert set(tables[""]["target"]) == {"pair", "trimodal"}


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again, other = STUDY.compute(TINY, Run(TINY.seed)), STUDY.compute(TINY, Run(4))
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)
    assert not np.array_equal(other["pair learned 0"], arrays["pair learned 0"])


def test_drawing_computes_nothing(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffscience import plots

    def refuse(*_: Any) -> None:
        raise AssertionError("drawing asked a law")

    for name in ("log_prob", "score", "sample", "quadrature"):
        monkeypatch.setattr(Target, name, refuse)
        monkeypatch.setattr(GaussianMixture, name, refuse, raising=False)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == [
            "", "maps_trimodal", "noise_pair", "noise_trimodal", "density", "levels",
        ]  # fmt: skip
        png, svg = plots.save(figures["noise_pair"], {})
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("targets", ("rolls",)),
        ("targets", ()),
        ("sigmas", (1.0, 0.5)),
        ("sigmas", (0.0, 0.5)),
        ("sigmas", ()),
        ("steps", 0),
        ("seeds", 1),
        ("cells", 2),
        ("inside", 1.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
