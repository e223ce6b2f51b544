"""The study learned_variance: its losses, bounds, laws of times and samples by other routes.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import VP, Chain, GaussianMixture, bounds, gallery, nets, runner, train, variances
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.network import Network
from diffscience.study import Run
from diffscience.variances import Spread

FILE = Path(__file__).parents[1] / "studies" / "learned_variance.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.learned_variance"]

TINY = study.Config(
    laws=("julia_bimodal", "julia_trimodal"), long=5, lengths=(3, 5), few=(3,), seeds=2, width=8,
    train_steps=10, batch=8, samples=20, seed=3,
)  # fmt: skip
LIMIT = 4.9
EXACTLY = ("exact", "exact, diagonal")  # the exact diagonal, on the line and in the plane
NORMAL = GaussianMixture([1.0], [[0.0]], [[[1.0]]])


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    found = STUDY.compute(TINY, Run(TINY.seed))
    return {name: np.asarray(value) for name, value in found.items()}


def network(dim: int, steps: int, seed: int = 0, width: int = 8) -> Network:
    """Untrained, in float64."""
    net = nets.MLP(dim, (width, width), seed=seed, outputs=2 * dim).double()
    found: Network = study.network_of(TINY, steps, net)
    return found


def rows_of(dim: int, K: int, copies: int, seed: int) -> tuple[torch.Tensor, ...]:
    """Points, every step of 1..K in turn, and noise."""
    random = np.random.default_rng(seed)
    x0, noise = (torch.as_tensor(random.standard_normal((K * copies, dim))) for _ in range(2))
    return x0, torch.arange(1.0, K + 1, dtype=torch.float64).repeat(copies), noise


# ------------------------------------------------------------------ chains


def test_a_strided_chain_has_the_levels_of_the_long_one() -> None:
    """And betas of its own: 1 - abar(t)/abar(s); the net is told the long chain's time."""
    config = dataclasses.replace(TINY, long=10, lengths=(4, 10), few=(4,))
    tau = study.times_of(config, 4)
    assert tau.tolist() == [0, 2, 5, 8, 10]
    chain = study.chain_of(config, 4)
    abar = VP().alpha(tau / 10) ** 2
    np.testing.assert_allclose(chain.alpha(np.arange(5)) ** 2, abar, rtol=1e-12)
    np.testing.assert_allclose(chain.betas, 1 - abar[1:] / abar[:-1], rtol=1e-12)
    told = []

    class Listening(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            told.append(t)
            return torch.cat([x, x], dim=-1)

    model = study.network_of(config, 4, Listening())
    model.prediction(torch.zeros(3, 1).double(), torch.tensor([1.0, 2.0, 4.0]))
    assert told[0].tolist() == pytest.approx([0.2, 0.5, 1.0])


# ------------------------------------------------------------------ objectives


@pytest.mark.parametrize("dim", [1, 2])
def test_the_whole_bound_is_that_of_the_package(dim: int) -> None:
    """Row by row as `bounds` has it; what `variances.hybrid` adds to L_simple; half of it is not.

    Its slopes in the weights of v are those of the hybrid loss, in those of the mean they are not.
    """
    model = network(dim, 5)
    x0, k, noise = rows_of(dim, 5, 3, 1)
    found = study.whole_bound(model, x0, k, noise)
    terms = [
        bounds._term(model, x0[[i]], float(k[i]), noise[[i]], variances.learned)
        for i in range(len(k))
    ]
    torch.testing.assert_close(found, 5 * torch.cat(terms), rtol=1e-9, atol=1e-10)
    simple, hybrid = (variances.hybrid(model, x0, k, noise, scale) for scale in (0.0, 0.3))
    torch.testing.assert_close(simple + 0.3 * found, hybrid)
    assert (simple + 0.15 * found - hybrid).abs().max() > 1e-4
    weight: Any = model.net.out.weight  # type: ignore[union-attr]
    [free] = torch.autograd.grad(found.mean(), weight)
    [held] = torch.autograd.grad((hybrid - simple).mean() / 0.3, weight)
    torch.testing.assert_close(free[dim:], held[dim:])
    assert float(free[:dim].abs().min()) > 1e-4 and float(held[:dim].abs().max()) < 1e-9


def test_networks_are_trained_as_they_are_alone() -> None:
    """With the hybrid loss and the bound; the weights of another seed are not those."""
    run, config = Run(4), dataclasses.replace(TINY, train_steps=12, rate=3e-3, final_rate=1e-3)
    for objective in ("hybrid", "bound"):
        networks, times = study.trained_on(config, run, "julia_bimodal", objective)
        assert times is None
        seed = run.seed_for("julia_bimodal", "weights", 1)
        net = nets.MLP(1, (8, 8), seed=seed, outputs=2)
        alone = study.network_of(config, 5, net)
        history = train.train(
            alone, gallery.julia_bimodal(), steps=12, batch=8, ema=config.ema,
            loss=study.loss_of(objective), seed=run.seed_for("julia_bimodal", "training", 1),
            rate=config.rate, final_rate=config.final_rate,
        )  # fmt: skip
        train.averaged(net, history)
        for name, value in networks[1].state().items():
            np.testing.assert_allclose(value, net.state_dict()[name], rtol=1e-2, atol=1e-4)
        moved = [not np.allclose(value, networks[0].state()[name], rtol=1e-2, atol=1e-4)
                 for name, value in networks[1].state().items() if "weight" in name]  # fmt: skip
        assert all(moved)


def test_a_shared_law_changes_between_steps_alone() -> None:
    """Rows are divided by the density they were drawn with; a part of the rows is not kept.

    The law then is that of `times.Adaptive` from the same losses.
    """
    model = network(1, 5)
    x0, k, noise = rows_of(1, 5, 4, 3)
    shared = study.Shared(study.whole_bound, model.process, 20, 4)
    other = study.Adaptive(model.process, history=4, floor=study.FLOOR)
    plain = study.whole_bound(model, x0, k, noise)
    torch.testing.assert_close(shared.loss(model, x0, k, noise), plain)  # even as yet
    torch.testing.assert_close(shared.loss(model, x0[:5], k[:5], noise[:5]), plain[:5])
    shared(3, torch.Generator().manual_seed(0))
    other.update(k, plain.detach())
    density = other.density(k)
    assert float(density.max() / density.min()) > 1.2
    torch.testing.assert_close(shared.loss(model, x0, k, noise), plain / density)
    torch.testing.assert_close(shared.law.density(k), density)  # until the next draw


@pytest.mark.parametrize("objective", ["hybrid, importance", "bound, importance"])
def test_training_by_importance_shares_a_law(objective: str) -> None:
    """It is not even after training, and has mean 1."""
    config = dataclasses.replace(TINY, train_steps=40)
    networks, times = study.trained_on(config, Run(4), "julia_bimodal", objective)
    density = times.law.density(np.arange(1.0, 6.0))
    assert density.mean() == pytest.approx(1.0, rel=1e-12)
    assert density.std() > 0.05
    assert len(networks) == 2


# ------------------------------------------------------------------ bounds


def total_of(oracle: Oracle, choice: str) -> float:
    """The bound of the exact model from `terms`."""
    total = study.prior_term(oracle) + oracle.law.entropy()
    for at in study.places(oracle):
        total += float(study.terms(at, study.spreads(TINY, at, at.x0, 0 * at.x)[choice], 0 * at.x))
    return float(total)


@pytest.mark.parametrize("name", TINY.laws)
def test_bounds_of_the_exact_model_are_the_best_bounds(name: str) -> None:
    """To 1e-9 (1e-7 in the plane) by `bounds.best_bound`; of another choice they are not."""
    oracle = Oracle(study.law_of(name), study.chain_of(TINY, 3))
    wanted = {
        "btilde": bounds.best_bound(oracle).total,
        "beta": bounds.best_bound(oracle, mix=1.0).total,
        "analytic": bounds.best_bound(oracle, variance=variances.analytic(oracle)).total,
        "diagonal": bounds.best_bound(
            oracle, variance=variances.exact(oracle, "diagonal")
        ).total,
        "full": bounds.best_bound(oracle, variance=variances.exact(oracle)).total,
    }  # fmt: skip
    found = {choice: total_of(oracle, choice) for choice in wanted}
    assert found == pytest.approx(wanted, rel=1e-9 if oracle.law.dim == 1 else 1e-7)
    assert total_of(oracle, "best") == pytest.approx(found["diagonal"], rel=1e-12)
    values = sorted(found.values())
    assert min(b - a for a, b in zip(values[:-1], values[1:]) if b > a + 1e-9) > 1e-3
    assert values[0] > oracle.law.entropy()


@pytest.mark.parametrize("name", TINY.laws)
def test_bounds_of_networks_are_those_that_are_drawn(name: str) -> None:
    """Two untrained networks; 4,000 points, seeds 5 and 6: |z| < 4.9 for every choice.

    Twins: the exact mean in the place of the learned one, and the other network's variance.
    """
    law, dim = study.law_of(name), study.law_of(name).dim
    config = dataclasses.replace(TINY, laws=(name,))
    two = [network(dim, 3, seed) for seed in (1, 2)]
    crowd = study.crowd_of(config, two, 3)
    found = study.judged(config, name, crowd, 3)
    oracle = Oracle(law, study.chain_of(TINY, 3))
    x0 = law.sample(4000, 5)
    for s, model in enumerate(two):
        numbers, chain = found["analytic"][s, :3], study.chain_of(TINY, 3)
        chosen: dict[str, Any] = {
            "learned": variances.learned, "diagonal": variances.exact(oracle, "diagonal"),
            "full": variances.exact(oracle), "btilde": study.tabled(chain.variances()),
            "beta": study.tabled(chain.betas), "analytic": study.tabled(numbers),
        }  # fmt: skip
        for choice, variance in chosen.items():
            drawn = bounds.bound(model, x0, 6, variance=variance)
            ours = found["gap"][s, study.CHOICES.index(choice)] + law.entropy()
            assert abs(drawn.total - ours) < LIMIT * drawn.error, choice
            if choice == "learned":
                twin = found["gap"][1 - s, study.CHOICES.index(choice)] + law.entropy()
                assert abs(drawn.total - twin) > LIMIT * drawn.error
                alone = found["alone"][s] + law.entropy()
                assert abs(drawn.total - alone) > LIMIT * drawn.error

                def with_exact_mean(m: Any, x: Any, s_: Any, t: Any, own: Any = model) -> Any:
                    return oracle.x0(x, t), variances.learned(own, x, s_, t)[1]

                apart = bounds.bound(oracle, x0, 6, variance=with_exact_mean)
                assert abs(apart.total - alone) < LIMIT * apart.error
        best = found["gap"][s, study.CHOICES.index("best")]
        others = [study.CHOICES.index(c) for c in study.CHOICES if c not in ("best", "full")]
        assert np.all(found["gap"][s, others] >= best - 1e-12)
        data = law.sample(40_000, 7)
        left, error = variances.unexplained(model, data, 8)
        for k in (2, 3):
            _, drawn_s2 = variances.analytic(left)(model, np.zeros((1, dim)), k - 1.0, float(k))
            _, more = variances.analytic(left + error)(model, np.zeros((1, dim)), k - 1.0, float(k))
            assert abs(drawn_s2 - numbers[k - 1]) < LIMIT * (more - drawn_s2)
            assert abs(drawn_s2 - chain.betas[k - 1]) > LIMIT * (more - drawn_s2)


def test_averages_in_the_plane() -> None:
    """On the even grid as by quadrature: E|score|^2 to 1e-5; on every fourth line it is not."""
    for level in (0.02, 0.3, 0.9):
        oracle = Oracle(gallery.eight_gaussians(), Chain([level]))
        law: Any = oracle.at(1)
        x, w = study.nodes(law)
        exact, all_of_it = law.quadrature()[1] @ np.sum(law.score(law.quadrature()[0]) ** 2, 1), 1.0
        assert w.sum() == pytest.approx(all_of_it, abs=1e-12)
        square = np.sum(law.score(x) ** 2, axis=1)
        assert w @ square == pytest.approx(exact, rel=1e-5)
        assert len(x) < 0.7 * len(law.quadrature()[1])
        coarse = (np.round((x - x.min(0)) / (0.5 * np.sqrt(law.covs[0, 0, 0]))) % 4 == 0).all(1)
        assert 16 * (w[coarse] @ square[coarse]) != pytest.approx(exact, rel=1e-5)


def test_the_best_variance_is_a_minimum() -> None:
    """For a mean that is off: 5 % more or less costs D/2 (1/f - 1 + log f) in every term."""
    oracle = Oracle(study.law_of("julia_trimodal"), study.chain_of(TINY, 3))
    for at in study.places(oracle):
        off = 0.3 * np.sin(at.x) * math.sqrt(at.b)
        best = study.spreads(TINY, at, at.x0, off)["best"]
        least = study.terms(at, best, off)
        for factor in (0.95, 1.05):
            more = study.terms(at, Spread(factor * best.values), off) - least
            assert more == pytest.approx(1 / factor - 1 + math.log(factor), rel=1e-8)
        assert study.terms(at, study.spreads(TINY, at, at.x0, off)["diagonal"], off) > least + 1e-4


def test_the_exact_v_of_the_long_chain() -> None:
    """On the long chain itself it gives the exact diagonal, on a strided one it does not.

    For data N(0, I) the exact v is 1 on both.
    """
    for law, same in ((gallery.julia_bimodal(), False), (NORMAL, True)):
        for steps in (5, 3):
            steps_of = study.places(Oracle(law, study.chain_of(TINY, steps)))
            off = max(np.abs(study.carried(TINY, at) / at.diagonal - 1).max() for at in steps_of)
            assert off < 1e-9 if same or steps == 5 else off > 1e-3


def test_the_analytic_variance_is_that_of_the_package() -> None:
    """At the first step too, where btilde is 0: it may lie below btilde_2, and here it does."""
    narrow = GaussianMixture([1.0], [[0.0]], [[[0.01]]])
    oracle = Oracle(narrow, study.chain_of(TINY, 3))
    for at in study.places(oracle):
        _, wanted = variances.analytic(oracle)(oracle, at.x[:1], at.k - 1, at.k)
        assert study.analytic_of(at, at.x0) == pytest.approx(float(wanted), rel=1e-7)
        low = at.chain.variances()[at.k - 1]
        assert (float(wanted) < low) == (at.k == 1)
        assert study.analytic_of(at, at.x0 - 9 * np.sign(at.x)) >= at.small  # too large an eps


def test_the_bound_splits_into_two_losses(arrays: dict[str, np.ndarray]) -> None:
    for law in TINY.laws:
        for objective in study.OBJECTIVES:
            total, mean, variance = study.split(TINY, arrays, law, objective)
            least = study.exact_of(arrays, "gap", law, 5)[study.CHOICES.index("diagonal")]
            np.testing.assert_allclose(least + mean + variance, total, rtol=1e-10)
            assert np.all(mean > 0) and np.all(variance > 0)


# ------------------------------------------------------------------ samples


def test_samples_have_the_variance_of_the_chain() -> None:
    """Seed 9: data N(0, 0.5), 40,000 points, exact mean: the variance that the recursion gives.

    |z| < 4.9 for btilde, beta and the exact one; with beta in the place of btilde it is not.
    """
    law, config = GaussianMixture([1.0], [[0.0]], [[[0.5]]]), TINY
    chain = study.chain_of(config, 5)
    oracle = Oracle(law, chain)

    def after(s2: np.ndarray) -> float:
        spread = 1.0
        for k in range(5, 0, -1):
            alpha, var = float(chain.alpha(k)), float(chain.var(k))
            c, _, _ = variances.bridge(chain, k - 1, k)
            rest = float(chain.alpha(k) / chain.alpha(k - 1) * chain.var(k - 1) / chain.var(k))
            slope = rest + c * alpha * 0.5 / (alpha**2 * 0.5 + var)
            spread = slope**2 * spread + s2[k - 1]
        return spread

    def off(variance: Any, s2: np.ndarray) -> float:
        start = np.random.default_rng(9).standard_normal((40_000, 1))
        steps = study.samplers.ancestral(oracle, start, np.arange(5, -1, -1), 1, variance=variance)
        wanted = after(s2)
        found = float(np.var(study.samplers.last(steps)))
        return abs(found - wanted) / (wanted * math.sqrt(2 / 40_000))

    small, beta = chain.variances(), chain.betas
    exact = np.array([at.diagonal[0, 0] for at in study.places(oracle)])
    assert off(study.tabled(small), small) < LIMIT
    assert off(study.tabled(beta), beta) < LIMIT
    assert off(variances.exact(oracle, "diagonal"), exact) < LIMIT
    assert off(study.tabled(small), beta) > LIMIT


def test_numbers_of_each_network_and_what_is_cut_off() -> None:
    """(S, K) numbers go to the S networks; a wild v stays within a tenth and ten times the ends."""
    chain = study.chain_of(TINY, 3)
    oracle = Oracle(gallery.julia_bimodal(), chain)
    numbers = np.arange(6.0).reshape(2, 3)
    _, s2 = study.tabled(numbers)(oracle, np.zeros((2, 4, 1)), 1, 2)
    assert s2.shape == (2, 4, 1) and s2[:, 0, 0].tolist() == [1.0, 4.0]
    model: Any = network(1, 3)
    for bias, wanted in ((1e4, 10 * chain.betas[1]), (-1e4, 0.1 * chain.variances()[1])):
        with torch.no_grad():
            model.net.out.bias[1] = bias
        assert study.within(model, np.zeros((1, 1)), 1, 2)[1].item() == pytest.approx(wanted)


# ------------------------------------------------------------------ what comes out


def test_the_shapes(arrays: dict[str, np.ndarray]) -> None:
    """10 trainings, 4 exact chains; NaN where nothing is asked for and numbers elsewhere."""
    assert arrays["exact gap"].shape == (4, 8)
    assert arrays["learned gap"].shape == (10, 2, 2, 8)
    for objective in study.OBJECTIVES:
        gap = study.learned_of(arrays, "gap", "julia_trimodal", objective)
        assert np.isfinite(gap[1]).all()
        assert np.isfinite(gap[0]).all() == (objective in ("hybrid", study.STRONG))
        far = study.learned_of(arrays, "distances", "julia_trimodal", objective)
        known = {"hybrid": 6, study.STRONG: 1}.get(objective, 0)
        assert np.isfinite(far[0]).all(axis=1).sum() == known and np.isnan(far[1]).all()


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    assert list(tables) == ["", "bounds", "samples", "steps", "objectives", "cells"]
    assert len(tables[""]) == 8 + 9 and len(tables["bounds"]) == 2 * (8 + 9)
    learned = study.CHOICES.index("learned")
    found = study.learned_of(arrays, "gap", "julia_bimodal", study.STRONG)[0, :, learned]
    row = tables[""].set_index(["law", "variance"]).loc[("julia_bimodal", "learned, lambda = 1")]
    name = "bound - entropy, learned mean"
    assert row[name] == pytest.approx(found.mean())
    assert row[f"{name}, error"] == pytest.approx(found.std(ddof=1) / math.sqrt(2))
    samples = tables["samples"].set_index(["law", "steps", "mean", "variance"])
    row = samples.loc[("julia_trimodal", 3, "learned", "exact, full")]
    far = study.learned_of(arrays, "distances", "julia_trimodal", "hybrid")[0]
    full, exact = far[study.CHOICES.index("full")], far[study.CHOICES.index("diagonal")]
    assert row["distance"] == pytest.approx(full.mean())
    assert row["above exact, error"] == pytest.approx((full - exact).std(ddof=1) / math.sqrt(2))
    assert ("julia_bimodal", 3, "exact", "learned") not in samples.index
    assert len(tables["steps"]) == 2 * (3 + 5)
    last = tables["steps"].iloc[-1]
    assert last["t"] == 1.0 and last["btilde"] < last["exact"]
    assert len(tables["objectives"]) == 2 * 5
    cells = tables["cells"].set_index(["law", "objective", "steps", "variance", "seed"])
    assert len(cells) == 2 * 2 * 8 * (5 + 2)


def test_the_cells_hold_what_the_arrays_do(arrays: dict[str, np.ndarray]) -> None:
    """Of the second network on a short chain; means of all are those of the table of objectives."""
    tables, axes = study.table(TINY, arrays), ["law", "objective", "steps", "variance", "seed"]
    cells = tables["cells"].set_index(axes).sort_index()
    law, exact = "julia_trimodal", "bound - entropy, exact mean"
    for objective in ("hybrid", study.STRONG):
        row = cells.loc[(law, objective, 3, "learned", 1)]
        eps, off = (
            study.learned_of(arrays, key, law, objective)[0, 1, :3] for key in ("eps", "off")
        )
        assert row["eps error^2"] == pytest.approx(eps.mean())
        assert row["rms of log"] == pytest.approx(math.sqrt(np.mean(off**2)))
        assert row[exact] == study.learned_of(arrays, "alone", law, objective)[0, 1]
        assert row["floor"] == study.exact_of(arrays, "floors", law, 3)[1]
        assert math.isnan(row["distance, exact mean"])  # no network, nothing learned
    row, beta = cells.loc[(law, "hybrid", 3, "beta", 1)], study.CHOICES.index("beta")
    assert row["distance, exact mean"] == study.exact_of(arrays, "distances", law, 3)[beta, 1]
    assert row["distance"] == study.learned_of(arrays, "distances", law, "hybrid")[0, beta, 1]
    assert row[exact] == study.exact_of(arrays, "gap", law, 3)[beta]
    assert row["eps error^2"] == pytest.approx(
        study.learned_of(arrays, "eps", law, "hybrid")[0, 1, :3].mean()
    )
    assert math.isnan(row["rms of log"])
    objectives = tables["objectives"].set_index(["law", "objective"])
    for law, objective in objectives.index:
        own = cells.loc[(law, objective, 5, "learned")]
        wanted = objectives.loc[(law, objective)]
        for name in ("eps error^2", "rms of log", "bound - entropy"):
            assert own[name].mean() == pytest.approx(wanted[name])
        least = study.exact_of(arrays, "gap", law, 5)[study.CHOICES.index("diagonal")]
        assert own[exact].mean() - least == pytest.approx(wanted["cost, exact mean"])


def test_the_committed_tables() -> None:
    """Full mode, 8 networks: the best variance has the least bound, for the exact mean and for each
    network's; the bound splits; lambda = 1 teaches the variance better; samples see the variance.
    """

    def rows(name: str) -> list[dict[str, str]]:
        text = (FILE.parents[1] / "figures" / f"learned_variance{name}.csv").read_text("utf-8")
        return list(csv.DictReader(text.splitlines()))

    bounds_of = {(r["law"], int(r["steps"]), r["variance"]): r for r in rows("_bounds")}
    runs = {key[:2] for key in bounds_of}
    long = max(steps for _, steps in runs)
    assert len({law for law, _ in runs}) >= 2
    column = {mean: f"bound - entropy, {mean} mean" for mean in study.MEANS}
    for run in runs:
        gap = {key[2]: float(r[column["exact"]]) for key, r in bounds_of.items() if key[:2] == run}
        plane = "exact, full" in gap
        least, best = (gap[k if plane else "exact"] for k in ("exact, full", "exact, diagonal"))
        assert 0 < least <= best == pytest.approx(gap["best for this mean"], rel=1e-9)
        others = [v for k, v in gap.items() if "exact" not in k or "v of" in k]
        assert best <= min(others) * (1 + 1e-9) and best < gap["learned"]
        assert gap["analytic"] < min(gap["beta"], gap["btilde"])
        carried = gap["exact v of the long chain"]
        assert (carried == pytest.approx(best, rel=1e-9)) == (run[1] == long)
        for key in ("btilde", "best for this mean"):  # an error of the mean adds to any bound
            r = bounds_of[(*run, key)]
            assert float(r[column["learned"]]) > float(r[column["exact"]])
    networks: dict[tuple[str, ...], dict[str, float]] = {}
    for r in rows("_cells"):
        one = tuple(r[name] for name in ("law", "objective", "steps", "seed"))
        networks.setdefault(one, {})[r["variance"]] = float(r["bound - entropy"])
    for kind in {one[:3] for one in networks}:
        assert sum(one[:3] == kind for one in networks) >= 8
    for found in networks.values():
        assert set(found) == set(study.CHOICES)
        assert found["best"] < min(v for k, v in found.items() if k not in ("best", "full"))
        assert 0 < found["full"] <= found["diagonal"]
    objectives = {(r["law"], r["objective"]): r for r in rows("_objectives")}
    for (law, objective), r in objectives.items():
        assert objective in study.OBJECTIVES
        exact = [r for k, r in bounds_of.items() if k[:2] == (law, long) and k[2] in EXACTLY]
        parts = [float(r[name]) for name in ("by the mean", "by the variance")]
        total = float(exact[0][column["exact"]]) + sum(parts)
        assert float(r["bound - entropy"]) == pytest.approx(total, rel=1e-9)
        assert min(parts) > 0 and float(r["cost, exact mean"]) > 0
    for law in {law for law, _ in objectives}:
        weak, strong = (objectives[law, name] for name in ("hybrid", study.STRONG))
        cost = "cost, exact mean"
        apart = math.hypot(*(float(r[f"{cost}, error"]) for r in (weak, strong)))
        assert float(weak[cost]) - float(strong[cost]) > LIMIT * apart
    samples = [r for r in rows("_samples") if r["variance"] in ("btilde", "beta", "analytic")]
    few = min(int(r["steps"]) for r in samples)
    for r in samples:
        z = float(r["above exact"]) / float(r["above exact, error"])
        assert z > LIMIT or int(r["steps"]) > few


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    again, other = (study.learned_cell(TINY, Run(seed), "julia_bimodal", "hybrid")
                    for seed in (TINY.seed, 4))  # fmt: skip
    for key in ("gap", "distances"):
        wanted = study.learned_of(arrays, key, "julia_bimodal", "hybrid")
        assert np.array_equal(again[key], wanted, equal_nan=True)
        assert not np.array_equal(other[key], wanted, equal_nan=True)
    assert not np.array_equal(again["gap"][0, 0], again["gap"][0, 1])


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        study.table(TINY, arrays)
        png, svg = plots.save(figures[""], {})
    assert list(figures) == ["", "steps", "samples", "objectives"]
    assert len(png) < 1_000_000
    assert len(svg) < 3_000_000


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("laws", ("rolls",)),
        ("laws", ("two_moons",)),
        ("laws", ("empirical",)),
        ("laws", ()),
        ("long", 2),
        ("lengths", (3, 4)),
        ("lengths", (5, 3)),
        ("lengths", (2, 5)),
        ("few", ()),
        ("few", (4,)),
        ("seeds", 1),
        ("train_steps", 0),
        ("rate", 0.0),
        ("final_rate", 1.0),
        ("ema", 1.0),
        ("samples", 5),
    ],
)
def test_a_bad_config_is_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=field):
        dataclasses.replace(TINY, **{field: value})
