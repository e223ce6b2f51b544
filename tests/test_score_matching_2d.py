"""The study score_matching_2d: the page comes out, and what judges the fits can fail.

Every number that the page prints is replayed to its last digits, its two trainings of 2000 epochs
with them, and another order of float32 additions is not; each member sees its own points; the
measures of a learned field give what they must for fields whose errors are known.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import gallery, losses, nets, plots, runner
from diffscience.errors import ArgumentError
from diffscience.estimates import mean_and_error
from diffscience.mixture import GaussianMixture
from diffscience.study import Run

FILE = Path(__file__).parents[1] / "studies" / "score_matching_2d.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.score_matching_2d"]

TINY = study.Config(
    epochs=100, sizes=(64,), members=2, widths=(8,), steps=16, batch=16, cells=32, draws=5,
    repeats=1, dims=(2,), frames=3, seed=4,
)  # fmt: skip
LAW = gallery.julia_trimodal()


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return STUDY.compute(TINY, Run(TINY.seed))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def judge() -> Any:
    return study.Judge().with_mesh(80)


# ------------------------------------------------------------------ the page


def test_the_page_comes_out(arrays: dict[str, np.ndarray], judge: Any) -> None:
    """All of it, to the digits that are printed: here the two trainings have their 2000 epochs."""
    whole = dataclasses.replace(TINY, epochs=2000)
    long = dict(arrays)
    for way in study.TRAINED.values():
        found = study.noted(whole, way, judge)
        long |= {f"{way} | {part}": value for part, value in found.items()}
    frame = study.printed_table(whole, long)
    assert len(frame) == sum(len(printed) for printed in study.PUBLISHED.values())
    exact = frame["digits"] >= 15
    assert frame.loc[exact, "relative difference"].max() < 1e-12
    assert exact.sum() > 70
    short = frame[~exact]
    assert (short["relative difference"] < 0.51 * 10.0 ** (1 - short["digits"])).all()
    parity = study.parity_table(whole, long)
    assert parity["numbers"].sum() == len(frame)
    assert parity["relative difference"].max() == frame["relative difference"].max()


def test_another_order_of_additions_is_another_training(arrays: dict[str, np.ndarray]) -> None:
    """The wrong twins: the same four gradients, added or rounded otherwise."""
    for way, limit in (("explicit", 1e-13), (study.ORDERS[0], 1e-12)):
        epochs, off = study.off_the_page(arrays, way)
        assert epochs.tolist() == [100] and off.max() < limit
    chaos = study.chaos_table(arrays).set_index("gradients added")
    assert list(chaos.index) == list(study.ORDERS[1:])
    assert (chaos["largest from the page"] > 1e-8).all()
    assert (chaos["first epoch off by 1e-08 of loss + C"] < 100).all()


def test_the_losses_of_the_orders_are_one_function() -> None:
    """Before any training the three ways differ by rounding alone."""
    x, delta = study.drawn_points(study.Xoshiro(1), 50), np.array([0.01, 0.02])
    net = study.as_tensors(study.network(study.Xoshiro(3), (2, 16, 2)))
    values = [study.finite_difference(x, delta, way)(net).item() for way in study.ORDERS]
    rows = losses.finite_difference(net, torch.from_numpy(x), (0.01, 0.02))
    assert values == pytest.approx([float(rows.mean())] * 3, rel=1e-12)
    wrong = losses.finite_difference(net, torch.from_numpy(x), (0.02, 0.01))
    assert values[0] != pytest.approx(float(wrong.mean()), rel=1e-4)


@pytest.mark.parametrize(("text", "count"), [("-0.0284", 3), ("5.0", 2), ("32.62664847852629", 16)])
def test_digits(text: str, count: int) -> None:
    assert study.digits(text) == count


def test_the_constant_by_samples(arrays: dict[str, np.ndarray]) -> None:
    """The note's own stream; |z| < 4.9 each, and a C that is 5 % off fails."""
    frame = study.constant_table(arrays)
    assert frame["z"].abs().max() < 4.9
    assert frame["exact C"][0] == pytest.approx(losses.explicit_constant(LAW), rel=1e-9)
    twin = arrays | {"information": 1.05 * arrays["information"]}
    assert study.constant_table(twin)["z"].abs().max() > 4.9


def test_the_identity(arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """explicit - finite differences = C at 31 networks: on the note's points within their noise
    (one sample, so that the z are not independent), and under p, by a sum over the mesh, to 0.01.

    The twins: C 5 % off, and differences that count the trace twice.
    """
    frame = study.identity_table(arrays)
    assert len(frame) == 31
    assert frame["z"].abs().max() < 4.9
    assert frame["difference under p"].abs().max() < 0.01
    wrong = study.identity_table(
        arrays | {"note C on the mesh": 1.05 * arrays["note C on the mesh"]}
    )
    assert wrong["difference under p"].abs().min() > 0.03

    def doubled(psi: Any, x: Any, delta: Any) -> Any:
        rows = differences(psi, x, delta)
        return rows + (4 * rows - differences(lambda x: 2 * psi(x), x, delta)) / 2

    differences = losses.finite_difference
    params = study.network(study.Xoshiro(3), (2, 16, 2))
    x, delta = study.mesh(), np.array([0.006, 0.007])
    C = arrays["note C on the mesh"]
    assert study.pair(params, x, LAW.score(x), delta)[2] == pytest.approx(C, abs=0.01)
    monkeypatch.setattr(losses, "finite_difference", doubled)
    assert study.pair(params, x, LAW.score(x), delta)[2] != pytest.approx(C, abs=0.1)


# ------------------------------------------------------------------ data and seeds


def test_parzen_rows_are_those_of_the_objective() -> None:
    config = study.Config(members=2)
    rows = study.given_points(config, study.PARZEN, "40", Run(1).seed_for)
    assert rows.shape == (2, 40, 4)
    for own in rows.double():
        x, s = own[:, :2], own[:, 2:]
        found = losses.explicit(torch.zeros_like, x, s)
        right = losses.parzen(torch.zeros_like, x, x, config.blur(40))
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        wrong = losses.parzen(torch.zeros_like, x, x, 1.05 * config.blur(40))
        assert not torch.allclose(found, wrong, rtol=1e-3, atol=1e-4)


def test_members_have_points_of_their_own() -> None:
    """Smaller samples are the first points of larger ones, and the seed of the run moves all."""
    config = study.Config(members=2, sizes=(32, 64))

    def given(seed: int, data: str) -> torch.Tensor:
        return study.given_points(config, "implicit", data, Run(seed).seed_for)

    large = given(1, "64")
    assert large.shape == (2, 64, 2)
    assert torch.equal(large[:, :32], given(1, "32"))
    assert not torch.isin(large[0], large[1]).any()
    assert not torch.isin(large, given(2, "64")).any()


def test_batches_are_picked_from_each_members_own_rows() -> None:
    """Rows take turns; every row is picked, and the members do not pick alike."""
    rows = torch.arange(10.0).reshape(1, 10, 1) + torch.tensor([0.0, 100.0])[:, None, None]
    found = study.picked(rows, 400, torch.Generator().manual_seed(0))[:, 0]
    first, second = found[0::2], found[1::2] - 100
    assert set(first.tolist()) == set(second.tolist()) == set(range(10))
    assert not torch.equal(first, second)
    assert found[:200].max() > 9  # in blocks they would be those of the first alone


def test_what_shares_a_seed() -> None:
    """Points by member; initial weights and batches by objective, data and member."""
    asked: list[tuple[Any, ...]] = []

    def seed_for(*key: Any) -> int:
        asked.append(key)
        return Run(1).seed_for(*key)

    small = study.Judge().with_mesh(20)
    for name, data in (("implicit", "64"), ("implicit", study.FRESH), ("explicit", "64")):
        study.trained(TINY, name, data, seed_for, small)
    shared = {key for key in asked if asked.count(key) > 1}
    assert shared == {("points", 0), ("points", 1)}
    assert len(set(asked) - shared) == 3 * (TINY.members + 1)


def test_the_mesh_is_the_law() -> None:
    """The mean over the mesh of weighted rows is the integral."""
    x = torch.from_numpy(study.mesh())
    assert float(study.mesh_weights(x).mean()) == pytest.approx(1.0, abs=1e-5)
    zero = losses.explicit(torch.zeros_like, x, LAW.score(x), study.mesh_weights(x))
    assert float(zero.mean()) == pytest.approx(losses.explicit_constant(LAW), rel=1e-4)


def test_learning_and_its_wrong_twin(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0: 250 steps bring the implicit objective near; with half its trace they do not."""
    config = study.Config(members=2, widths=(24, 24), steps=250, batch=128, cells=80)

    def errors() -> np.ndarray:
        found = study.trained(config, "implicit", study.FRESH, Run(0).seed_for, judge)
        return np.asarray(found["errors"])

    right = errors()
    assert right.shape == (6, 2)
    assert right[-1].max() < 0.2

    def twin(c: Any, psi: Any, x: Any, s: Any, g: Any) -> Any:
        return 0.5 * losses.implicit(psi, x) + 0.25 * (psi(x) ** 2).sum(-1)

    monkeypatch.setitem(study.KINDS, "implicit", study.Kind(twin))
    assert errors()[-1].min() > 0.2


def test_a_step_on_the_mesh_is_timed_with_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    explicit = losses.explicit

    def spy(psi: Any, x: Any, score: Any, weights: Any = None) -> Any:
        seen.append(weights)
        return explicit(psi, x, score, weights)

    monkeypatch.setattr(losses, "explicit", spy)
    x, generator = torch.zeros(4, 16), torch.Generator()
    for name in ("explicit", study.MESHED):
        study.stepper(TINY, name, nets.Score(16, (4,)), x, generator)()
    assert seen[0] is None and seen[1].shape == (4,)


# ------------------------------------------------------------------ measures


@pytest.mark.parametrize("factor", [1.0, 0.9, 0.0])
def test_the_error_of_a_multiple_of_the_score(judge: Any, factor: float) -> None:
    found = judge.errors(lambda x: factor * LAW.score(x)[None])
    assert found == pytest.approx([(1 - factor) ** 2], abs=1e-12)


def test_the_error_from_an_aim() -> None:
    """Of psi = x: Parzen's under p, that of denoising under p_sigma; the twin swaps the laws."""
    config, x = study.Config(), torch.from_numpy(study.mesh())
    h, sigma = config.blur(128), config.sigma

    def expected(aim: Any, law: Any) -> float:
        """E|x - aim|^2 / E|aim|^2 under the law, by sums over the mesh."""
        s, density = aim.score(x), torch.exp(law.log_prob(x))
        off = ((x - s) ** 2).sum(-1) @ density
        return float(off / ((s**2).sum(-1) @ density))

    for name, data, blur, swapped in (
        (study.PARZEN, "128", h, False),
        ("denoising", study.FRESH, sigma, True),
    ):
        blurred = LAW.blurred(blur)
        law, other = (blurred, LAW) if swapped else (LAW, blurred)
        judge = study.aim_of(config, name, data, study.Judge())
        [found] = judge.errors(lambda x: x[None])
        assert found == pytest.approx(expected(blurred, law), rel=1e-5)
        assert found != pytest.approx(expected(blurred, other), rel=1e-3)


def test_what_is_recovered_from_exact_and_wrong_scores(judge: Any) -> None:
    exact = judge.recovered(lambda x: LAW.score(x)[None])
    assert abs(exact["kl"][0]) < 1e-5
    assert exact["rotation"][0] < 1e-5
    np.testing.assert_allclose(exact["modes"][0], LAW.weights, atol=1e-3)
    other = GaussianMixture([0.3, 0.5, 0.2], LAW.means, LAW.covs)
    wrong = judge.recovered(lambda x: other.score(x)[None])
    x, w = LAW.quadrature()
    kl = float(w @ (LAW.log_prob(x) - other.log_prob(x)))
    assert wrong["kl"][0] == pytest.approx(kl, rel=1e-2)
    assert wrong["modes"][0][0] < 0.35


def test_a_rotation_is_no_density(judge: Any) -> None:
    """s + a R s, R a quarter turn: div(p R s) = 0, so R s is orthogonal to every gradient.

    Its share is a^2/(1 + a^2) and the density that is recovered is p; the twin a s has no share.
    """
    a, turn = 0.3, np.array([[0.0, 1.0], [-1.0, 0.0]])
    turned = judge.recovered(lambda x: (LAW.score(x) @ (np.eye(2) + a * turn).T)[None])
    assert turned["rotation"][0] == pytest.approx(a * a / (1 + a * a), rel=1e-3)
    assert abs(turned["kl"][0]) < 1e-4
    longer = judge.recovered(lambda x: (1 + a) * LAW.score(x)[None])
    assert longer["rotation"][0] < 1e-5
    assert longer["kl"][0] > 0.02


def test_variance_over_directions(judge: Any) -> None:
    """Seed 6, 20,000 draws, |z| < 4.9; the twin with another law of directions fails."""
    generator = torch.Generator().manual_seed(6)
    rows = study.row_variance(judge, generator)
    z = (rows["measured"] - rows["predicted"]) / rows["error"]
    assert np.abs(z).max() < 4.9
    assert np.abs((rows["measured"] - rows["predicted"][::-1]) / rows["error"]).max() > 4.9


def test_the_jackknife() -> None:
    """Against the delta method, for a ratio of means of many draws."""
    generator = np.random.default_rng(0)
    b = 1 + generator.random(4000)
    a = 3 * b + generator.standard_normal(4000)
    ratio, error = study.jackknife(a, b)
    assert ratio == pytest.approx(3.0, abs=5 * error)
    residual = a - ratio * b
    assert error == pytest.approx(residual.std() / b.mean() / np.sqrt(4000), rel=0.01)


def test_sliced_gradients_have_the_mean_of_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 8, 150 batches of common points: |z| < 4.9 of every parameter and kind of directions.

    The twin has directions that are sqrt(2) too long, E v v^T = 2 I.
    """
    config, net = dataclasses.replace(TINY, draws=150), nets.Score(2, (8,), 0)

    def worst() -> dict[str, float]:
        found = study.gradients(config, net, torch.Generator().manual_seed(8))
        z = {}
        for name in found:
            if "sliced" in name or "reduced" in name:
                whole = found["explicit" if "explicit" in name else "implicit"]
                mean, error = mean_and_error(found[name] - whole)
                z[name] = float((np.abs(mean) / np.maximum(error, 1e-6)).max())
        return z

    right, directions = worst(), losses.directions
    assert len(right) == 7
    assert max(right.values()) < 4.9, right
    monkeypatch.setattr(losses, "directions", lambda *args: 2**0.5 * directions(*args))
    wrong = worst()
    assert min(wrong.values()) > 4.9, wrong


def test_the_gradient_of_finite_differences_is_nearly_the_exact_one() -> None:
    """On common points, seed 8; a step of 0.5 in the place of 0.05 is too long."""
    net = nets.Score(2, (8,), 0)

    def off(delta: float) -> float:
        config = dataclasses.replace(TINY, delta=delta)
        found = study.gradients(config, net, torch.Generator().manual_seed(8))
        exact = found["implicit"]
        return float(np.linalg.norm(found["finite differences"] - exact) / np.linalg.norm(exact))

    assert off(0.05) < 1e-3 < off(0.5)


# ------------------------------------------------------------------ tables and pictures


def test_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    fits = tables["fits"]
    assert len(fits) == 10 * 2 + 2
    assert list(tables[""]["objective"]) == list(study.KINDS)
    assert (fits["standard error"] > 0).all()
    assert (fits["least"] < fits["Fisher error"]).all()
    assert (fits["Fisher error"] < fits["largest"]).all()
    assert (fits["rotation error"] > 0).all()
    assert (fits["KL / nats"] > fits["KL floor"]).all()
    assert set(fits["below 10 %"]) <= {"yes", "no"}
    assert len(tables["cost"]) == len(study.KINDS)
    assert np.isfinite(tables["cost"].select_dtypes("number")).all(axis=None)
    assert "exact score at corners" in set(tables["parity"]["quantity"])
    ratio = tables["variance"].set_index(["network", "objective"])
    assert ratio.loc[("initial", "implicit"), "over exact trace"] == 1.0
    drawn = tables["variance"]["from directions"].notna()
    assert drawn.sum() == 2 * 7
    assert (tables["variance"].loc[drawn, "its standard error"] > 0).all()


def test_the_same_seed_gives_the_same_fit(judge: Any) -> None:
    first, again, other = (
        study.trained(TINY, "sliced, spherical", study.FRESH, Run(seed).seed_for, judge)
        for seed in (4, 4, 5)
    )
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["errors"], other["errors"])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == [
            "", "density", "size", "steps", "losses", "identity", "variance",
        ]  # fmt: skip
        png, _ = plots.save(figures["losses"], {})
        films = study.animate(TINY, arrays)
    assert len(png) < 1_000_000
    assert len(films["film"]) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", ()),
        ("sizes", (1024, 128)),
        ("sizes", (1,)),
        ("members", 1),
        ("steps", 0),
        ("cells", 2.5),
        ("delta", 0.0),
        ("sigma", -0.3),
        ("bandwidth", float("inf")),
        ("dims", ()),
        ("dims", (0,)),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
