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

from diffscience import GaussianMixture, gallery, losses, nets, plots, runner, scorenotes
from diffscience.errors import ArgumentError
from diffscience.julia import Xoshiro, network
from diffscience.notes import sample_points
from diffscience.regression import Adam, Regression, apply, layers, sigmoid
from diffscience.study import Run, plain_arrays

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


def start() -> Any:
    """The network that the pages draw after their points."""
    rng = Xoshiro(12345)
    sample_points(rng)
    return network(rng, (1, 8, 1))


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
    for epochs in (-1, 2.5):
        with pytest.raises(ArgumentError, match="epochs must be a whole number of at least 0"):
            scorenotes.train(adam, lambda net: net(torch.zeros(1, 1).double()).mean(), epochs)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"loss must be finite \(epoch 1\)"):
        scorenotes.train(adam, lambda net: net(torch.full((1, 1), np.nan).double()).mean(), 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["inputs", "target", "factor"])
def test_data_that_are_not_finite_stop_a_regression(place: str, bad: float) -> None:
    """One bad number among 100 is one sentence, and no weight moves.

    Every hidden unit is off at a large input, so that a layer which turned NaN or -inf into 0, as
    the twin does, would train on in silence.
    """
    params = [(-np.ones((4, 1), np.float32), np.zeros(4, np.float32)),
              (np.ones((1, 4), np.float32), np.zeros(1, np.float32))]  # fmt: skip
    x = np.linspace(1, 2, 100)[:, None]
    good: dict[str, np.ndarray] = {"inputs": x, "target": x**2, "factor": np.ones((100, 1))}
    data = good | {place: good[place].copy()}
    data[place][70] = bad
    fit = Regression(params, 0.1)
    for call in (fit.step, fit.gradient):
        with pytest.raises(ArgumentError, match=f"{place} must be finite") as caught:
            call(**data)
        assert "\n" not in str(caught.value)
    assert np.array_equal(fit.params[0][0], params[0][0])
    assert np.isfinite(fit.step(**good)) and fit.params[1][1][0] != 0
    if place == "inputs" and bad != -np.inf:  # -inf switches the units on
        answer = apply(params, data["inputs"], lambda z: np.where(z > 0, z, 0.0))
        assert np.isfinite(answer).all()


def test_a_loss_that_is_not_finite_stops_a_regression() -> None:
    fit = Regression([(np.ones((1, 1), np.float32), np.zeros(1, np.float32))], 0.1)
    with pytest.raises(ArgumentError, match="loss must be finite; got inf"):
        fit.step([[1e200]], [[0.0]])


def test_one_vector_and_its_layers() -> None:
    params = network(Xoshiro(3), (2, 5, 1))
    adam = Adam(params, 0.1)
    for (weight, bias), (w, b) in zip(layers(adam.theta, adam.widths), params, strict=True):
        assert np.array_equal(weight, w) and np.array_equal(bias, b)
    turned = layers(adam.theta[::-1], adam.widths)
    assert not np.array_equal(turned[0][0], params[0][0])


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
    """Eleven runs on four pages print 20 losses each, and six of them that of the first epoch."""
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
    """The page's first loss lies within 3 deviations of its mean over the noise, and ours too.

    Both are draws of the noise at the same points and weights. The twins, a loss a fifth larger or
    smaller, do not.
    """
    assert abs(study.errors_off(arrays)) < 3
    ours = arrays["note denoising losses"][0]
    assert abs(ours - arrays["first loss"]) < 3 * arrays["first loss error"]
    for factor in (0.8, 1.2):
        assert abs(study.errors_off(arrays | {"first loss": factor * arrays["first loss"]})) > 3


def test_the_first_loss_over_the_noise() -> None:
    """Seed 2, 2000 draws of all the noise: mean (|z| < 4.9) and deviation (4.9 of its own errors).

    The twin has points a tenth of a deviation away.
    """
    points = sample_points(Xoshiro(12345), 50)
    mean, deviation = study.first_loss(start(), points)
    z = np.random.default_rng(2).standard_normal((2000, 50))
    psi = apply(start(), (points + study.NOISE * z)[..., None])[..., 0]
    drawn = (0.5 * (psi + z / study.NOISE) ** 2).mean(1)
    assert abs(drawn.mean() - mean) < 4.9 * deviation / np.sqrt(2000)
    assert drawn.std() == pytest.approx(deviation, rel=4.9 / np.sqrt(4000))
    twin, _ = study.first_loss(start(), points + 0.3)
    assert abs(drawn.mean() - twin) > 4.9 * deviation / np.sqrt(2000)


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


def test_the_limit_of_finite_differences() -> None:
    """The derivative of the objective is 0 there in every direction, and not at the score.

    It is s - delta^2 (s''/2 + p'''/(3p)) up to delta^4, and so nearly 4 times nearer at half the
    delta.
    """
    x, w = LAW.quadrature()
    x, delta = x[:, 0], 0.05

    def score(x: np.ndarray) -> np.ndarray:
        return LAW.score(x[:, None])[:, 0]

    def best(x: np.ndarray) -> np.ndarray:
        return np.asarray(study.differenced(LAW, delta, x))

    def slope(psi: Any, wave: Any) -> float:
        """d/dh of the objective at psi + h wave."""
        ahead, behind = (wave(x + delta), wave(x - delta))
        mean = (psi(x + delta) + psi(x - delta)) / 2
        return float(w @ ((ahead - behind) / (2 * delta) + mean * (ahead + behind) / 2))

    for wave in (np.sin, np.cos, lambda x: x, lambda x: np.exp(-(x**2)), lambda x: 0 * x + 1):
        assert abs(slope(best, wave)) < 1e-8
    assert abs(slope(score, np.sin)) > 1e-4
    near = np.abs(x) < 6
    off = np.abs(best(x) - score(x))[near].max()
    half = np.abs(study.differenced(LAW, delta / 2, x) - score(x))[near].max()
    assert off / half == pytest.approx(4, rel=0.05)
    h = 1e-3  # s'' and p'''/p = s'' + 3 s s' + s^3 by central differences
    s, right, left = score(x), score(x + h), score(x - h)
    second, first = (right - 2 * s + left) / h**2, (right - left) / (2 * h)
    leading = -(delta**2) * (5 / 6 * second + first * s + s**3 / 3)
    assert np.abs(best(x) - s - leading)[near].max() < 0.06 * off
    assert np.abs(best(x) - s + leading)[near].max() > off
    objective = study.Objective("finite differences", delta)
    assert np.array_equal(study.limit(LAW, objective, x), best(x))


def test_limits_and_errors() -> None:
    """c times the score scores (c - 1)^2; Parzen and denoising converge to the blurred score."""
    explicit = study.Objective("explicit")

    def times(c: float) -> Any:
        return lambda x: c * LAW.score(x[:, None])[:, 0]

    assert study.fisher(times(1.1), LAW, explicit, LAW) == pytest.approx(0.01, rel=1e-10)
    assert study.fisher(times(-1.0), LAW, explicit, LAW) == pytest.approx(4.0, rel=1e-10)
    x = np.linspace(-5, 5, 11)
    blurred = LAW.blurred(0.3)
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
    law = gallery.empirical(points[:, None]).blurred(0.2)
    exact = law.score(points[:, None])[:, 0]
    np.testing.assert_allclose(study.parzen_score(points, 0.2), exact, atol=1e-3)
    assert np.abs(study.parzen_score(points, 0.21) - exact).max() > 1e-2


# ------------------------------------------------------------------ networks side by side


def test_data_sets() -> None:
    """Of every size and member; small ones are the first points of large ones; a seed moves all."""
    few, many, grid = (
        study.sets_of(TINY, study.Objective(kind), Run(seed).seed_for)
        for kind, seed in (("explicit", 1), ("implicit", 1), ("explicit on the grid", 1))
    )
    assert [len(x) for x in few] == [16, 16, 64, 64]
    assert all(np.array_equal(a, b) for a, b in zip(few, many, strict=True))
    assert np.array_equal(few[0], few[2][:16]) and np.array_equal(few[1], few[3][:16])
    assert not np.isin(few[2], few[3]).any()
    assert [len(x) for x in grid] == [200, 200]
    other = study.sets_of(TINY, study.Objective("explicit"), Run(2).seed_for)
    assert not np.isin(few[2], other[2]).any()


def test_what_shares_a_seed() -> None:
    """Points by member; initial weights and batches by objective, size and member."""
    asked: list[tuple[Any, ...]] = []

    def seed_for(*key: Any) -> int:
        asked.append(key)
        return Run(1).seed_for(*key)

    for objective in (study.Objective("implicit"), study.Objective("Parzen", 0.5)):
        study.trained(TINY, objective, seed_for, lambda steps: steps)
    study.overfit(TINY, 8, 0.0, seed_for, lambda steps: steps)
    shared = {key for key in asked if asked.count(key) > 1}
    assert shared == {("points", 0), ("points", 1)}
    networks = 2 * TINY.seeds * len(TINY.sizes) + TINY.seeds
    assert len(set(asked) - shared) == networks + 3


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
    seed_for = Run(5).seed_for
    found = study.trained(config, study.Objective("implicit"), seed_for, lambda steps: steps)
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
    assert exact.loc["finite differences", "Fisher error"] == pytest.approx(3.95e-6, rel=1e-3)
    learned = main[main["points"] != "limit, exact"]
    for name in ("Fisher error", "KL"):
        mean = learned["KL / nats" if name == "KL" else name]
        assert (learned[f"{name}, least"] < mean).all()
        assert (mean < learned[f"{name}, largest"]).all()
    assert tables["losses"]["relative difference"].max() < 0.1
    seeded = tables["losses"]["run"] != "denoising"
    assert tables["losses"][seeded]["relative difference"].max() < 1e-6
    assert (tables["cost"]["ms (min)"] > 0).all()
    assert len(tables["notes"]) == 11


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from PIL import Image

    study.table(TINY, arrays)
    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "density", "error", "losses", "overfit"]
        png, svg = plots.save(figures["overfit"], {})
        film = study.animate(TINY, arrays)["training"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000
    with Image.open(io.BytesIO(film)) as image:
        assert getattr(image, "n_frames", 1) == 2


def test_what_is_cut_is_said() -> None:
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    ax.plot([0, 1], [0.1, 7.25])
    study.cut(ax, 8.0)
    assert not ax.texts
    study.cut(ax, 5.0)
    assert ax.get_ylim()[1] == 5.0
    assert ax.texts[0].get_text() == "cut; highest 7.2"


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
        ("delta", 0.2),
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
