"""The study `score_matching_1d` in miniature, and the notes' training loop `scorenotes`."""

from __future__ import annotations

import copy
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import GaussianMixture, Transition, gallery, losses, nets, runner, scorenotes
from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network
from diffscience.notes import sample_points
from diffscience.regression import Adam, Regression, apply, sigmoid
from diffscience.study import Run, plain_arrays
from diffscience.targets import Target

FILE = Path(__file__).parents[1] / "studies" / "score_matching_1d.py"
runner.load(FILE)
study: Any = sys.modules["diffscience_studies.score_matching_1d"]

LAW = gallery.julia_bimodal()
TINY = study.Config(
    sizes=(16, 64),
    seeds=2,
    widths=(8, 8),
    batch=16,
    steps=3,
    note_epochs=50,
    bandwidths=(0.5,),
    sigmas=(0.3,),
    overfit_sizes=(8,),
    overfit_steps=10,
    cost_points=8,
    cost_repeats=2,
    frames=2,
)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return plain_arrays(study.compute(TINY, Run(1)))


# ------------------------------------------------------------------ the loop of the notes


def start(gain: float = 2.0) -> Any:
    return study.start_of_pages(gain)


def column(x: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(x, float))[:, None]


@pytest.mark.parametrize(
    ("activation", "twin"), [(torch.relu, None), (torch.sigmoid, sigmoid)], ids=["relu", "sigmoid"]
)
def test_the_net_is_the_network(activation: Any, twin: Any) -> None:
    params = network(Xoshiro(3), (2, 5, 4, 1))
    x = np.random.default_rng(0).standard_normal((7, 2))
    y = scorenotes.Net(Adam(params, 0.1), activation)(torch.from_numpy(x))
    expected = apply(params, x) if twin is None else apply(params, x, twin)
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-13, atol=1e-15)


def test_a_square_trains_as_the_regression_does() -> None:
    """Two engines, one float32 path: the losses agree to the last digits, and the parameters."""
    x, y = np.linspace(-2, 3, 50), np.sin(np.linspace(-2, 3, 50))
    adam = Adam(network(Xoshiro(1), (1, 8, 1)), 0.02)
    other = Regression(adam.params, 0.02)
    run = scorenotes.train(adam, lambda net: ((net(column(x)) - column(y)) ** 2).mean(), 60)
    steps = [other.step(x[:, None], y[:, None]) for _ in range(60)]
    np.testing.assert_allclose(run.losses, steps, rtol=1e-10)
    assert steps[-1] < 0.5 * steps[0]
    for layer, twin in zip(run.params, other.params, strict=True):
        np.testing.assert_allclose(layer[0], twin[0], rtol=1e-5)
    slower = scorenotes.train(
        Adam(network(Xoshiro(1), (1, 8, 1)), 0.019),
        lambda net: ((net(column(x)) - column(y)) ** 2).mean(),
        60,
    )
    assert abs(slower.losses[-1] / steps[-1] - 1) > 1e-3


def test_a_training_goes_on_where_it_stopped() -> None:
    x = column(np.linspace(-1, 1, 9))

    def square(net: scorenotes.Net) -> torch.Tensor:
        return ((net(x) - x * x) ** 2).mean()

    seen: list[int] = []
    adam = Adam(network(Xoshiro(1), (1, 8, 1)), 0.02)
    first, twin = adam.params, copy.deepcopy(adam)
    whole = scorenotes.train(
        adam, square, 60, snapshots=(0, 1, 31), progress=lambda epoch, _: seen.append(epoch)
    )
    half = scorenotes.train(twin, square, 30)
    rest = scorenotes.train(twin, square, 30)
    assert np.array_equal(whole.losses, np.concatenate([half.losses, rest.losses]))
    assert seen == [50, 60]
    for i in (0, 1):  # before the update
        assert np.array_equal(whole.snapshots[i][0][0], first[0][0])
    assert np.array_equal(whole.snapshots[31][0][0], half.params[0][0])
    forgetful = scorenotes.train(Adam(half.params, 0.02), square, 30)
    assert not np.allclose(forgetful.losses[1:], rest.losses[1:], rtol=1e-6)


def test_bad_trainings_are_refused() -> None:
    adam = Adam(start(), 0.1)
    with pytest.raises(ArgumentError, match="epochs must be at least 0"):
        scorenotes.train(adam, lambda net: net(torch.zeros(1, 1).double()).mean(), -1)
    with pytest.raises(ArgumentError, match=r"loss must be finite \(epoch 1\)"):
        scorenotes.train(adam, lambda net: net(torch.full((1, 1), np.nan).double()).mean(), 2)


# ------------------------------------------------------------------ the published losses


def test_the_pages_come_out(arrays: dict[str, np.ndarray]) -> None:
    """To 1e-12 the pages with relu, to 1e-6 the one with sigmoid; other runs' losses do not fit."""
    for run in study.PUBLISHED:
        if not study.reproducible(TINY, run):
            continue
        limit = 1e-6 if run.startswith("implicit") else 1e-12
        found = study.compared(TINY, arrays, run)
        assert found
        for epoch, ours, loss in found:
            assert abs(ours / loss - 1) < limit, (run, epoch)
        assert study.agrees_to(TINY, arrays, run) == 50
    swapped = arrays | {
        "note differences, sample losses": arrays["note differences, 128 points losses"]
    }
    assert study.agrees_to(TINY, swapped, "differences, sample") == 0
    late = arrays | {"note Parzen losses": arrays["note Parzen losses"].copy()}
    late["note Parzen losses"][49] *= 1 + 2e-5
    assert study.agrees_to(TINY, late, "Parzen") == 25


def test_all_the_printed_losses_are_there() -> None:
    """Seven pages' runs print 20 losses each; five of eleven show that of the first epoch."""
    assert sum(len(run) for run in study.PUBLISHED.values()) == 11 * 20 + 6
    assert all(list(run)[-1] == 500 for run in study.PUBLISHED.values())


def test_the_second_halves_come_out() -> None:
    """500 epochs on the grid and 25 more; Adam's moments go on. A delta 5 % off does not fit."""
    grid = np.linspace(-10, 10, 200)
    x, p = column(grid), column(np.exp(LAW.log_prob(grid[:, None])))
    objective = study.differences(x, 0.05, p)
    adam = Adam(start(), 0.03)
    scorenotes.train(adam, objective, 500)
    printed = study.PUBLISHED["differences, grid, on"][25]
    again = copy.deepcopy(adam)
    assert scorenotes.train(adam, objective, 25).losses[-1] == pytest.approx(printed, rel=1e-9)
    twin = scorenotes.train(again, study.differences(x, 0.0525, p), 25).losses[-1]
    assert abs(twin / printed - 1) > 1e-5


def test_the_network_must_be_called_twice() -> None:
    """One call on both sides rounds the gradient once: near, but not the page's own digits."""
    points = sample_points(Xoshiro(12345))
    x, delta = column(points), float(np.ptp(points)) / 2048
    printed = study.PUBLISHED["differences, sample"][25]

    def last(objective: Any) -> float:
        return float(scorenotes.train(Adam(start(), 0.03), objective, 25).losses[-1])

    once = last(lambda net: losses.finite_difference(net, x, delta).mean())
    assert abs(last(study.differences(x, delta)) / printed - 1) < 1e-12
    assert 1e-12 < abs(once / printed - 1) < 1e-3


def test_the_unseeded_run_is_another_draw(arrays: dict[str, np.ndarray]) -> None:
    """Its first loss is the page's within the noise of both; |z| < 4.9, fixed stream 12345."""
    assert abs(study.errors_off(arrays)) < 4.9
    twin = dict(arrays)
    twin["note denoising losses"] = 0.5 * arrays["note denoising losses"]  # without the half
    assert abs(study.errors_off(twin)) > 4.9


# ------------------------------------------------------------------ what objectives converge to


def test_the_penalised_limit_of_a_gaussian() -> None:
    """s is an eigenfunction of the generator: psi = s/(1 + 2 lambda), not s/(1 + lambda)."""
    law = GaussianMixture([1.0], [[0.5]], [[[1.0]]])
    psi = study.regularised(law, 0.1)
    inside = np.abs(study.LINE) < 5
    s = law.score(study.LINE[:, None])[:, 0]
    np.testing.assert_allclose(psi[inside], s[inside] / 1.2, atol=2e-4)
    assert not np.allclose(psi[inside], s[inside] / 1.1, atol=1e-2)


def test_the_penalised_limit_is_the_least() -> None:
    p, penalty = np.exp(LAW.log_prob(study.LINE[:, None])), 0.1

    def value(psi: np.ndarray) -> float:
        slope = np.gradient(psi, study.LINE)
        return float(study.integral(p * (slope + 0.5 * psi**2 + penalty * slope**2)))

    psi = study.regularised(LAW, penalty)
    least = value(psi)
    for wave in (np.sin(study.LINE), study.LINE, np.exp(-(study.LINE**2)), psi):
        for step in (-0.05, 0.05):
            assert value(psi + step * wave) > least + 1e-5


def test_limits_and_errors() -> None:
    """c times the score scores (c - 1)^2; Parzen and denoising converge to the blurred score."""
    explicit = study.Objective("explicit")

    def times(c: float) -> Any:
        return lambda x: c * LAW.score(x[:, None])[:, 0]

    assert study.fisher(times(1.1), LAW, explicit, LAW) == pytest.approx(0.01, rel=1e-10)
    assert study.fisher(times(-1.0), LAW, explicit, LAW) == pytest.approx(4.0, rel=1e-10)
    x = np.linspace(-5, 5, 11)
    blurred = LAW.diffuse(Transition(1.0, 0.09))
    for kind in ("Parzen", "denoising"):
        objective = study.Objective(kind, 0.3)
        assert np.array_equal(study.limit(LAW, objective, x), blurred.score(x[:, None])[:, 0])
        assert objective.name == f"{kind} 0.3"
    assert study.seen(LAW, study.Objective("Parzen", 0.3)) is LAW
    assert study.seen(LAW, study.Objective("denoising", 0.3)).cov == pytest.approx(blurred.cov)


def test_the_density_comes_back() -> None:
    score = LAW.score(study.LINE[:, None])[:, 0]
    kl, left = study.divergence(LAW, study.recovered(score))
    assert abs(kl) < 1e-10
    assert left == pytest.approx(LAW.cdf(np.zeros(1)), abs=1e-6)
    for wrong in (-score, 1.05 * score, score + 0.05):
        assert study.divergence(LAW, study.recovered(wrong))[0] > 1e-4


def test_parzen_scores_are_those_of_the_estimate() -> None:
    points = sample_points(Xoshiro(1), 300)
    law = gallery.empirical(points[:, None]).diffuse(Transition(1.0, 0.04))
    exact = law.score(points[:, None])[:, 0]
    np.testing.assert_allclose(study.parzen_score(points, 0.2), exact, atol=1e-3)
    assert np.abs(study.parzen_score(points, 0.21) - exact).max() > 1e-2


# ------------------------------------------------------------------ networks side by side


def test_a_stack_is_its_networks() -> None:
    """Answers and gradients of every objective; rows in blocks, the wrong order, differ."""
    alone = [nets.Score(1, (8, 8), seed) for seed in range(3)]
    stack = study.nets.Stack(alone)
    x = torch.randn(12, 1, generator=torch.Generator().manual_seed(0))
    parts = [x[i::3] for i in range(3)]
    y = stack(x)
    for i, (net, part) in enumerate(zip(alone, parts, strict=True)):
        assert torch.allclose(y[i::3], net(part), atol=1e-6)
        for rows in (
            losses.implicit,
            lambda psi, x: losses.finite_difference(psi, x, 0.1),
        ):
            assert torch.allclose(rows(stack, x)[i::3], rows(net, part), atol=1e-4)
    blocks = torch.cat([net(part) for net, part in zip(alone, x.chunk(3), strict=True)])
    assert not torch.allclose(y, blocks, atol=1e-2)
    value = 3 * losses.implicit(stack, x).mean()
    value.backward()
    weight: Any = alone[1].hidden[1].weight
    [theirs] = torch.autograd.grad(losses.implicit(alone[1], parts[1]).mean(), weight)
    assert torch.allclose(stack.weights[1].grad[1].T, theirs, atol=1e-5)
    assert study.everywhere(stack, np.linspace(-1, 1, 5)).shape == (3, 5)


@pytest.mark.parametrize("kind", ["explicit", "implicit", "Parzen", "explicit on the grid"])
def test_every_network_sees_its_own_points(kind: str) -> None:
    """Sets around 0 and around 100; what a network is given, and what it is to answer."""
    sets = [np.linspace(-1, 1, 5), 100 + np.linspace(-1, 1, 7)]
    if kind == "explicit on the grid":
        sets = [np.linspace(-10, 10, 20)] * 2
    points, rows = study.rows_of(TINY, study.Objective(kind, 0.5), sets)
    given: list[torch.Tensor] = []

    class Zero(study.nets.Stack):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given.append(x.detach())
            return 0 * x

    net = Zero([nets.Score(1, (2,), 0)] * 2)
    found = rows(net, points, torch.Generator().manual_seed(0))
    [x] = given
    assert found.shape == x[:, 0].shape
    for i, own in enumerate(sets):
        assert torch.isin(x[i::2, 0], torch.from_numpy(own).float()).all()
    if kind == "explicit":
        s = torch.from_numpy(LAW.score(x.double().numpy()))[:, 0]
        assert torch.allclose(found.double(), s**2, rtol=1e-4)  # 2 times a half
    if kind == "explicit on the grid":  # the grid sum of p |s|^2/2 is C
        constant = losses.explicit_constant(LAW)
        assert found[0::2].mean().item() / 2 == pytest.approx(constant, rel=0.05)


def test_enough_points_find_the_score() -> None:
    """Implicit, 400 steps on 4096 points: within 5 % of the exact score, and not of another."""
    config = study.Config(
        sizes=(4096,), seeds=2, widths=(24, 24), batch=256, steps=400, rate=1e-2, ema=0.98
    )
    found = study.trained(config, study.Objective("implicit"), 5, lambda steps: steps)
    assert found["error"].max() < 0.05
    assert found["kl"].max() < 0.2
    psi = found["fit"][0, 0].astype(float)

    def fitted(x: np.ndarray) -> np.ndarray:
        return np.interp(x, study.LINE, psi)

    explicit = study.Objective("explicit")
    again = study.fisher(fitted, LAW, explicit, LAW)
    assert again == pytest.approx(found["error"][0, 0], rel=0.02)
    other = GaussianMixture([0.1, 0.9], [[-2.7], [2.7]], [[[1.0]], [[1.0]]])
    assert study.fisher(fitted, other, explicit, other) > 0.05


def test_no_fit_is_better_than_the_least(arrays: dict[str, np.ndarray]) -> None:
    """Under p the implicit objective is never below -E|s|^2/2, whatever the network."""
    least = float(arrays["least"])
    assert least == pytest.approx(-losses.explicit_constant(LAW))
    for penalty in (0.0, 0.1):
        true = arrays[f"overfit 8 {penalty:g} true"]
        assert true.shape == (len(study.looks(TINY)), 2)
        assert (true > least).all()


# ------------------------------------------------------------------ tables and pictures


def test_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "losses", "notes", "overfit", "cost"]
    main = tables[""]
    assert len(main) == 7 * 3 + 2  # two sizes and the limit; one grid and the limit
    exact = main[main["points"] == "limit, exact"].set_index("objective")
    assert exact.loc["implicit", "Fisher error"] == 0.0
    assert exact.loc["Parzen 0.5", "Fisher error"] == pytest.approx(0.0417, rel=0.01)
    assert tables["losses"]["relative difference"].max() < 0.1
    seeded = tables["losses"]["run"] != "denoising"
    assert tables["losses"][seeded]["relative difference"].max() < 1e-6
    assert (tables["cost"]["ms (min)"] > 0).all()
    assert len(tables["notes"]) == 11
    values = np.array([1.0, 2.0, 3.0, 6.0])
    mean, error = study.mean_and_error(values)
    assert (mean, error) == (3.0, pytest.approx(np.sqrt(14 / 3 / 4)))


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
        assert list(figures) == ["", "density", "error", "losses", "overfit"]
        png, svg = plots.save(figures["overfit"], {})
        film = study.animate(TINY, arrays)["training"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000
    with Image.open(io.BytesIO(film)) as image:
        assert getattr(image, "n_frames", 1) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sizes", ()),
        ("sizes", (64, 16)),
        ("sizes", (1,)),
        ("overfit_sizes", (8.0,)),
        ("seeds", 1),
        ("batch", 0),
        ("steps", 0),
        ("overfit_steps", 9),
        ("rate", 0.0),
        ("delta", -0.1),
        ("penalty", float("nan")),
        ("bandwidths", ()),
        ("bandwidths", (0.5, 0.5)),
        ("sigmas", (0.0,)),
        ("note_epochs", 30),
        ("frames", 1),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        study.Config(**{field: value})
