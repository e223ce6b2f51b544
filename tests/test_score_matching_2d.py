"""The study score_matching_2d: the page comes out, and what judges the fits can fail.

Every number that the page prints is replayed to its last digits, and another order of float32
additions is not; networks trained as one move as they would alone; the measures of a learned field
give what they must for fields whose errors are known.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import gallery, losses, nets, runner
from diffscience.errors import ArgumentError
from diffscience.mixture import GaussianMixture
from diffscience.study import Run
from diffscience.targets import Target
from diffscience.train import fit

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


def test_the_page_comes_out(arrays: dict[str, np.ndarray]) -> None:
    """All that does not need 2000 epochs, to the digits that are printed."""
    frame = study.printed_table(TINY, arrays)
    counts = frame.groupby("quantity").size()
    assert counts["C on samples, first ten"] == 10
    assert counts["gradient, finite differences"] == counts["initial weights"] == 34
    assert counts["finite-difference loss, training"] == 1
    long = frame["digits"] >= 15
    assert frame.loc[long, "relative difference"].max() < 1e-12
    assert long.sum() > 40
    short = frame[~long]
    assert (short["relative difference"] < 0.51 * 10.0 ** (1 - short["digits"])).all()
    parity = study.parity_table(TINY, arrays)
    assert parity["numbers"].sum() == len(frame)
    assert parity["relative difference"].max() == frame["relative difference"].max()


def test_another_order_of_additions_is_another_training(arrays: dict[str, np.ndarray]) -> None:
    """The wrong twins: the same four gradients, added or rounded otherwise."""
    chaos = study.chaos_table(arrays).set_index("gradients added")
    off = chaos["largest difference from the page"]
    assert off[study.ORDERS[0]] < 1e-12
    for way in study.ORDERS[1:]:
        assert off[way] > 1e-7
        assert chaos.loc[way, "first epoch off by 1e-08"] < 100


def test_the_losses_of_the_orders_are_one_function() -> None:
    """Before any training the three ways differ by rounding alone."""
    x, delta = study.points(0, 50), np.array([0.01, 0.02])
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
    """The note's own stream; |z| < 4.9 each, and C that is 5 % off fails."""
    frame = study.constant_table(arrays)
    assert frame["z"].abs().max() < 4.9
    assert frame["exact C"][0] == pytest.approx(losses.explicit_constant(LAW), rel=1e-9)
    last = frame.iloc[-1]
    assert abs(0.05 * last["exact C"]) > 4.9 * last["exact deviation"] / 10
    identity = study.identity_table(arrays)
    assert len(identity) == 31
    assert identity["z"].abs().max() < 4.9


# ------------------------------------------------------------------ training as one


def members(seed: int = 0) -> list[nets.Score]:
    return [nets.Score(2, (8, 8), seed + k) for k in range(3)]


def test_a_stack_is_its_members() -> None:
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))
    own, stack = members(), study.nets.Stack(members())
    y = stack(x)
    for k, net in enumerate(own):
        torch.testing.assert_close(y[k::3], net(x[k::3]))
        np.testing.assert_allclose(
            stack.at(x)[k].detach().numpy(), net(x).detach().numpy(), rtol=1e-5, atol=1e-6
        )
    assert not torch.allclose(y[0::3], own[1](x[0::3]))


@pytest.mark.parametrize("name", ["implicit", "finite differences"])
def test_a_stack_trains_as_its_members_do(name: str) -> None:
    """Objectives that concatenate rows, or differentiate in x, keep the members apart."""
    data = torch.from_numpy(np.hstack([study.points(k, 20) for k in range(3)])).float()
    config, kind = study.Config(), study.KINDS[name]

    def objective(net: Any, x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
        return kind.rows(config, net, x.reshape(-1, 2), x, g)

    own, stack = members(), study.nets.Stack(members())
    start = [net.out.weight.detach().clone() for net in own]
    quiet: Any = {"steps": 10, "seed": 0, "batch": None, "progress": lambda steps: steps}
    fit(stack, data, objective, **quiet)
    for k, net in enumerate(own):
        fit(net, data[:, 2 * k : 2 * k + 2], objective, **quiet)
        torch.testing.assert_close(stack.weights[2][k], net.out.weight.T, rtol=1e-4, atol=1e-5)
        assert (net.out.weight - start[k]).abs().max() > 1e-3


def test_parzen_rows_are_those_of_the_objective() -> None:
    config = study.Config(members=2)
    rows = study.given_points(config, study.PARZEN, "40")
    assert rows.shape == (40, 8)
    for k in range(2):
        x, s = rows[:, 4 * k : 4 * k + 2].double(), rows[:, 4 * k + 2 : 4 * k + 4].double()
        found = losses.explicit(torch.zeros_like, x, s)
        right = losses.parzen(torch.zeros_like, x, x, config.blur(40))
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
        wrong = losses.parzen(torch.zeros_like, x, x, 1.05 * config.blur(40))
        assert not torch.allclose(found, wrong, rtol=1e-3, atol=1e-4)


def test_the_first_member_has_the_points_of_the_note() -> None:
    rows = study.given_points(study.Config(members=2), "implicit", "1024").numpy()
    assert rows[0, 0] == np.float32(float(study.PUBLISHED["points"][0]))
    assert not np.array_equal(rows[:, :2], rows[:, 2:])
    np.testing.assert_array_equal(rows[:100, :2], study.points(0, 100).astype(np.float32))


def test_the_mesh_is_the_law() -> None:
    """The mean over the mesh of weighted rows is the integral."""
    x = torch.from_numpy(study.mesh())
    assert float(study.mesh_weights(x).mean()) == pytest.approx(1.0, abs=1e-5)
    zero = losses.explicit(torch.zeros_like, x, LAW.score(x), study.mesh_weights(x))
    assert float(zero.mean()) == pytest.approx(losses.explicit_constant(LAW), rel=1e-4)


def test_learning_and_its_wrong_twin(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 0: 250 steps bring the implicit objective near; with half its trace they do not."""
    config = study.Config(members=2, widths=(24, 24), steps=250, batch=128, cells=80)
    found = study.trained(config, "implicit", study.FRESH, 0, judge)
    assert found["errors"].shape == (6, 2)
    assert found["errors"][-1].max() < 0.2

    def twin(c: Any, psi: Any, x: Any, s: Any, g: Any) -> Any:
        return 0.5 * losses.implicit(psi, x) + 0.25 * (psi(x) ** 2).sum(-1)

    monkeypatch.setitem(study.KINDS, "implicit", study.Kind(twin))
    shorter = dataclasses.replace(config, steps=120)
    wrong = study.trained(shorter, "implicit", study.FRESH, 0, judge)
    assert wrong["errors"][-1].min() > 0.2


# ------------------------------------------------------------------ measures


@pytest.mark.parametrize("factor", [1.0, 0.9, 0.0])
def test_the_error_of_a_multiple_of_the_score(judge: Any, factor: float) -> None:
    found = judge.errors(lambda x: factor * LAW.score(x)[None])
    assert found == pytest.approx([(1 - factor) ** 2], abs=1e-12)


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
    rows = study.row_variance(TINY, judge, generator)
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


def test_sliced_gradients_have_the_mean_of_the_exact_one(arrays: dict[str, np.ndarray]) -> None:
    """Common points: finite differences give nearly the gradient of the trace itself."""
    means = arrays["variance initial means"]
    exact, differences = means[0], means[list(study.VARIED).index("finite differences")]
    assert np.linalg.norm(differences - exact) < 0.02 * np.linalg.norm(exact)
    ratio = study.variance_table(TINY, arrays).set_index(["network", "objective"])
    assert ratio.loc[("initial", "implicit"), "over exact trace"] == 1.0


# ------------------------------------------------------------------ tables and pictures


def test_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables["fits"].groupby("objective", sort=False).groups) != []
    assert len(tables["fits"]) == 10 * 2 + 2
    assert list(tables[""]["objective"]) == list(study.KINDS)
    assert (tables["fits"]["standard error"] > 0).all()
    assert (tables["fits"]["KL / nats"] > tables["fits"]["KL floor"]).all()
    assert set(tables["fits"]["below 10 %"]) <= {"yes", "no"}
    assert len(tables["cost"]) == len(study.KINDS)
    assert np.isfinite(tables["cost"].select_dtypes("number")).all(axis=None)
    assert "exact score at corners" in set(tables["parity"]["quantity"])


def test_the_same_seed_gives_the_same_fit(judge: Any) -> None:
    first, again, other = (
        study.trained(TINY, "sliced, spherical", study.FRESH, seed, judge) for seed in (4, 4, 5)
    )
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not np.array_equal(first["errors"], other["errors"])


def test_drawing_computes_nothing(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffscience import plots

    def refuse(*_: Any) -> None:
        raise AssertionError("drawing asked a law")

    for name in ("log_prob", "score", "sample", "quadrature"):
        monkeypatch.setattr(Target, name, refuse)
        monkeypatch.setattr(GaussianMixture, name, refuse)
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
