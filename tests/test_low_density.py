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

from diffscience import losses, runner
from diffscience.errors import ArgumentError
from diffscience.study import Run
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
    assert x[0, 0] == pytest.approx([-9.375, -9.375])
    assert x[0, -1] == pytest.approx([9.375, -9.375])
    for i, sigma in enumerate((0.0, *TINY.sigmas)):
        law = study.pair().diffuse(Transition(1.0, sigma**2))
        np.testing.assert_allclose(arrays["pair score"][i], law.score(x), rtol=1e-12)
        np.testing.assert_allclose(arrays["pair log density"][i], law.log_prob(x), rtol=1e-12)


@pytest.mark.parametrize("name", ["pair", "trimodal"])
def test_the_region_of_low_density(name: str) -> None:
    """The smallest region that holds `inside` of p, of all of it and not of what the box holds."""
    config = dataclasses.replace(TINY, cells=80, targets=(name,))
    arrays = {f"{name} {key}": value for key, value in study.exact(config, name).items()}
    low, p = study.rare(config, arrays, name), study.mass(arrays, name, 0)
    assert p.sum() == pytest.approx(1.0, abs=2e-6)
    assert config.inside <= p[~low].sum() < config.inside + p[~low].min()
    assert p[low].max() <= p[~low].min()


def test_more_than_the_box_holds_is_refused(arrays: dict[str, np.ndarray]) -> None:
    config = dataclasses.replace(TINY, inside=1 - 1e-9)
    cut = arrays | {"pair log density": arrays["pair log density"] - 1e-4}
    with pytest.raises(ArgumentError, match="inside must be less than the box holds"):
        study.rare(config, cut, "pair")


def test_errors_of_a_known_score(arrays: dict[str, np.ndarray]) -> None:
    """c times the exact score is off by |c - 1| in every region and bin, and in rms too."""
    for factor in (1.0, 1.05, 0.0):
        other = replaced(arrays, factor)
        for i in range(3):
            off, size = study.squares(other, "pair", i)
            low = study.rare(TINY, other, "pair")
            for region in (low, ~low, low | ~low):
                value, error = study.relative(off, size, region)
                assert value == pytest.approx(abs(factor - 1), abs=1e-12)
                assert error == pytest.approx(0.0, abs=1e-12)
            rows = study.bins(TINY, other, "pair", i)
            np.testing.assert_allclose(rows["relative error"], abs(factor - 1), atol=1e-12)
            expected = abs(factor - 1) * rows["rms of the score"]
            np.testing.assert_allclose(rows["rms error"], expected, atol=1e-12)


def test_the_error_under_p_sigma(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without training a network is 0 where its weights are: off by 1, at sigma = 0 too."""
    monkeypatch.setattr(study, "fit", lambda *_, **__: None)
    monkeypatch.setattr(
        study, "averaged", lambda net, _: ([p.data.zero_() for p in net.parameters()], net)[1]
    )
    for sigma in (0.0, 2.0):
        found = study.learned(TINY, "pair", sigma, "a", Run(1))
        assert found["under"] == pytest.approx(np.ones(2), rel=1e-12)
        assert not found["score"].any()


def test_the_bins_hold_every_cell_and_every_point(arrays: dict[str, np.ndarray]) -> None:
    for i in range(3):
        rows = study.bins(TINY, arrays, "pair", i)
        assert rows["cells"].sum() == TINY.cells**2
        seen = study.mass(arrays, "pair", i).sum() * study.points_seen(TINY, i)
        assert rows["points seen"].sum() == pytest.approx(seen)
    deepest = study.bins(TINY, arrays, "pair", 0)["decades below the maximum"]
    assert deepest.iloc[-1] == f"> {TINY.decades}"


# ------------------------------------------------------------------ objectives


@pytest.mark.parametrize("i", [0, 1, 2])
def test_the_points_seen_are_the_rows_handed_to_the_network(
    i: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every network."""
    seen, plain = [], study.nets.Stack.forward

    def counted(net: Any, x: torch.Tensor) -> torch.Tensor:
        trains = any(p.requires_grad for p in net.parameters())
        seen.append(len(x) if trains else 0)
        return plain(net, x)

    monkeypatch.setattr(study.nets.Stack, "forward", counted)
    study.learned(TINY, "pair", (0.0, *TINY.sigmas)[i], "a", Run(1))
    assert sum(seen) == TINY.seeds * study.points_seen(TINY, i)


def test_a_scaled_network_is_that_of_the_package() -> None:
    law, x = study.pair(), torch.randn((7, 2), generator=torch.Generator().manual_seed(0))
    net = study.nets.Score(2, (8,), seed=1)
    for sigma in (0.0, 3.0):
        torch.testing.assert_close(
            study.scaled(net, law, sigma)(x), study.nets.Scaled(net, law)(x, sigma)
        )


def test_networks_side_by_side_are_each_its_own() -> None:
    """Without a step they are the networks of their seeds, in the order of the seeds."""
    run, config = Run(1), dataclasses.replace(TINY, rate=1e-12, final_rate=1e-12, ema=0.0)
    found = study.learned(config, "pair", 4.0, "a", run)["score"]
    for k, score in enumerate(found):
        net = study.nets.Score(2, (8, 8), run.seed_for("a", "weights", k))
        alone = study.nets.Scaled(net, study.pair()).score(study.box(config.cells), 4.0)
        np.testing.assert_allclose(score, alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.0, 0.5, 4.0])
def test_the_exact_score_has_the_least_loss(sigma: float) -> None:
    """At s the mean is -C (implicit) or C_sigma (denoising); at c s it is (c - 1)^2 C more. Seed 1.

    The excess is that of pairs on the same draws, with the error of their mean, so that a score
    which is 10 % too large is seen.
    """
    law = study.pair()
    here = law.blurred(sigma)
    C = losses.explicit_constant(here)
    constant = -C if sigma == 0 else losses.denoising_constant(law, Transition(1.0, sigma**2))
    x = law.sample(20_000, torch.Generator().manual_seed(1)).double()

    def rows(c: float) -> torch.Tensor:
        psi = lambda x: c * here.score(x)  # noqa: E731
        found = study.objective(sigma)(psi, x, torch.Generator().manual_seed(2)).detach()
        return found.reshape(-1, len(x)).mean(dim=0)  # z and -z are one draw

    def within(values: torch.Tensor, expected: float) -> bool:
        error = float(values.std() / np.sqrt(len(values)))
        return abs(float(values.mean()) - expected) < 4.9 * error + 1e-9

    least = rows(1.0)
    assert within(least, constant)
    assert not within(least, constant + 0.5 * C)
    for c in (0.5, 1.5):
        assert within(rows(c) - least, 0.25 * C)
        assert not within(rows(c) - least, 0.0)
        assert not within(rows(1.1 * c) - rows(1.1), 0.25 * C)  # the wrong twin


def test_the_network_is_wrong_where_there_are_no_data_and_noise_mends_it() -> None:
    """Seed 0; 300 steps leave the error at low density far above that at high density."""
    config = study.Config(steps=300, batch=128, width=32, cells=32, seeds=2, targets=("pair",))
    arrays = {f"pair {k}": v for k, v in study.exact(config, "pair").items()}
    low = study.rare(config, arrays, "pair")
    found = {}
    for i, sigma in ((1, config.sigmas[0]), (3, config.sigmas[2])):
        arrays[f"pair learned {i}"] = study.learned(config, "pair", sigma, "a", Run(0))["score"]
        off, size = study.squares(arrays, "pair", i)
        found[i] = [study.relative(off, size, region)[0] for region in (~low, low)]
    high, far = found[1]
    assert far > 2 * high
    assert found[3][1] < 0.4 * far


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "levels"]
    levels = tables["levels"]
    assert len(levels) == 2 * 3
    assert np.isfinite(levels.select_dtypes("number").to_numpy()).all()
    assert set(tables[""]["target"]) == {"pair", "trimodal"}
    row = levels.iloc[1]
    low = study.rare(TINY, arrays, "pair")
    share = study.mass(arrays, "pair", 1)[low].sum()
    assert row["points seen at low density"] == pytest.approx(share * 2 * TINY.steps * TINY.batch)
    under = arrays["pair under 1"]
    assert row["under p_sigma"] == pytest.approx(under.mean())
    assert row["its error"] == pytest.approx(under.std(ddof=1) / np.sqrt(TINY.seeds))
    off = arrays["pair learned 1"] - arrays["pair score"][1]
    by_hand = np.sqrt(
        (off[:, low] ** 2).sum(axis=(1, 2)) / (arrays["pair score"][1][low] ** 2).sum()
    )
    assert row["low density"] == pytest.approx(by_hand.mean())


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again, other = STUDY.compute(TINY, Run(TINY.seed)), STUDY.compute(TINY, Run(4))
    assert all(np.array_equal(again[key], arrays[key]) for key in arrays)
    for key in [f"{name} learned {i}" for name in ("pair", "trimodal") for i in range(3)]:
        nets = [*arrays[key], *other[key]]  # no network is shared, whatever the seeds of the runs
        assert len({net.tobytes() for net in nets}) == 2 * TINY.seeds


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

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
        ("sigmas", (0.5, 100.0)),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("ema", 1.0),
        ("steps", 0),
        ("seeds", 1),
        ("cells", 2),
        ("inside", 1.0),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
