"""The study guidance: laws on the line are exact, samples follow them, and its verdicts can fail.

Statistical limits: |z| < 4.9 is a false-alarm rate of 1e-6; seeds are stated.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import math
import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffscience import engines, fokker_planck, runner, samplers, solvers, train
from diffscience.errors import ArgumentError
from diffscience.grids import log_snr
from diffscience.mixture import GaussianMixture
from diffscience.models import Oracle
from diffscience.nets import MLP
from diffscience.process import EDM, VP
from diffscience.study import Run
from diffscience.tilted import Tilted

FILE = Path(__file__).parents[1] / "studies" / "guidance.py"
STUDY, _ = runner.load(FILE)
study: Any = sys.modules["diffscience_studies.guidance"]

TINY = study.Config(
    gammas=(1.0, 3.0), shown=(3.0,), etas=(1.0, 4.0), points=41, tolerance=1e-3, cells=80,
    steps=30, levels=3, places=31, seeds=2, samples=40, sde_steps=10, corrected=5,
    corrections=2, repeats=2, networks=2, training=4, batch=16, widths=(8,), earliest=1e-2,
    pixels=8, seed=3,
)  # fmt: skip
LIMIT = 4.9
HERE = Run(TINY.seed)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """What the tiny config computes."""
    return dict(STUDY.compute(TINY, Run(TINY.seed)))


def ended(config: Any, law: Any, gamma: float, eta: float, part: int = 1) -> np.ndarray:
    """Measures of what a guided SDE ends with."""
    mesh = study.Mesh.of(config, law, part)
    return np.asarray(study.against(law, gamma, mesh.edges, mesh.end(law, gamma, eta)))


# ------------------------------------------------------------------ closed forms


def test_guided_gaussians_end_as_published() -> None:
    """To 1e-3, which T = 80 leaves; the three laws are three."""
    found = study.gaussians(dataclasses.replace(TINY, gammas=(1.0, 2.0, 4.0), shown=(2.0,)))
    np.testing.assert_allclose(found["gaussians closed"][1], [0.5, 1.75 / 3, 2 / 3], rtol=1e-12)
    np.testing.assert_allclose(found["gaussians"], found["gaussians closed"], rtol=1e-3)
    np.testing.assert_allclose(found["gaussians"][0], 1.0, rtol=1e-6)
    assert np.ptp(found["gaussians"][1]) > 0.1


# ------------------------------------------------------------------ on the line


def test_a_flow_of_gamma_1_ends_with_the_conditional_law() -> None:
    """Density and measures; that of gamma = 3 is another law, and no less a law."""
    config = dataclasses.replace(TINY, tolerance=1e-5, points=121)
    law = study.modes()
    one, three = (study.flow_law(config, HERE, "modes", g) for g in config.gammas)
    np.testing.assert_allclose(one["log q"], law.classes[0].log_prob(one["x"][:, None]), atol=1e-3)
    assert np.all(np.abs(one["measures"][-3:]) < 1e-4)
    assert one["measures"][0] == pytest.approx(3 * 0.25 / 0.6, abs=1e-4)
    assert one["measures"][3] == pytest.approx(0.35 / 0.6, abs=1e-4)
    assert np.all(three["measures"][-3:] > 0.1)
    for found in (one, three):
        mass = np.exp(found["log q"]) * (found["x"][1] - found["x"][0])
        assert mass.sum() == pytest.approx(1.0, abs=1e-4)
    # Half the places and a hundred times the tolerance are seen.
    assert np.all(three["change"][:2] < 0.01)
    assert three["change"].max() > 1e-7


def test_the_measures_of_a_flow_are_those_of_its_quantiles() -> None:
    """W1 and mean from quantiles that are pushed through the flow, and KL from their density."""
    config = dataclasses.replace(TINY, points=121, tolerance=1e-5)
    law, tilted = study.overlap(), Tilted(study.overlap(), 0, 3.0)
    found = study.flow_law(config, HERE, "overlap", 3.0)
    _, mass = study.scores(config)
    start = study.quantiles(config, study.beginning(law))
    x = solvers.flow(study.guided(law, 3.0), start, [1.0, 0.0], rtol=1e-5, atol=1e-5).last
    far = mass @ np.abs(x - study.quantiles(config, tilted))[:, 0]
    log_q = np.interp(x[:, 0], found["x"], found["log q"])
    assert found["measures"][0] == pytest.approx(mass @ x[:, 0], abs=1e-3)
    assert found["measures"][4] == pytest.approx(far, rel=1e-3)
    assert found["measures"][5] == pytest.approx(mass @ (log_q - tilted.log_prob(x)), rel=0.01)
    plain = solvers.flow(study.guided(law, 1.0), start, [1.0, 0.0], rtol=1e-6, atol=1e-6).last
    assert abs(mass @ plain[:, 0] - found["measures"][0]) > 0.5


def test_the_law_of_the_flow_is_that_of_every_process() -> None:
    """From one sigma/alpha = 5 the ends agree, though the processes differ; another gamma's not."""
    law, z = study.modes(), np.array([[-1.0], [0.0], [1.0]])
    ends = []
    for process in (VP(), EDM()):
        t = float(process.time_of_log_snr(-2 * math.log(5.0)))
        pair = (Oracle(p, process) for p in (law.classes[0], law.law))
        model = study.Guided(*pair, 3.0)
        start = process.alpha(t) * 5 * z
        ends.append(solvers.flow(model, start, [t, 0.0], rtol=1e-7, atol=1e-7).last)
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-4)
    assert np.abs(solvers.flow(study.guided(law, 2.0), z, [1.0, 0.0]).last - ends[0]).max() > 1e-2


@pytest.mark.parametrize("eta", [1.0, 4.0])
def test_every_sde_of_gamma_1_keeps_the_conditional_law(eta: float) -> None:
    """To second order in the mesh: half of it leaves some four times the distance."""
    config = dataclasses.replace(TINY, cells=320, steps=160)
    law = study.modes()
    far = [ended(config, law, 1.0, eta, part)[-1] for part in (1, 2)]
    assert far[0] < 3e-3
    assert 2.5 < far[1] / far[0] < 6


def test_a_wrong_drift_is_seen() -> None:
    """The flow's drift with the noise of an SDE does not end with the conditional law."""
    config = dataclasses.replace(TINY, cells=160, steps=80)
    law, mesh = study.modes(), study.Mesh.of(config, study.modes())
    flow = np.repeat(mesh.drifts[:, :, :1], 2, axis=2)
    right, wrong = (
        study.against(law, 1.0, mesh.edges, m.end(law, 1.0, 1.0))[-1]
        for m in (mesh, dataclasses.replace(mesh, drifts=flow))
    )
    assert right < 0.02 < 0.1 < wrong


def test_the_drifts_of_a_mesh_are_those_of_guided_models() -> None:
    """Affine in gamma and eta^2; with eta in its place they are not."""
    law, mesh = study.modes(), study.Mesh.of(TINY, study.modes())
    x, k, gamma, eta = mesh.edges[1:-1, None], 20, 3.0, 4.0
    exact = study.guided(law, gamma).drift(x, float(mesh.down[k]), eta)[:, 0]
    for power, same in ((2, True), (1, False)):
        mix = np.outer([1 - gamma, gamma], [1 - eta**power, eta**power])
        found = np.einsum("mec,me->c", mesh.drifts[k], mix)
        assert np.allclose(found, exact, rtol=1e-9, atol=1e-9) == same


def test_the_sde_law_is_that_of_samples() -> None:
    """Kolmogorov-Smirnov of 4000 runs against the Fokker-Planck cdf; the flow's law fails. Seed 5.

    The limit is sqrt(log(2e6)/2n), and the mesh and the steps take 0.01 of it.
    """
    config = dataclasses.replace(TINY, cells=320, steps=200)
    law, n = study.modes(), 4000
    mesh = study.Mesh.of(config, law)
    edges, density = mesh.edges, mesh.end(law, 3.0, 1.0)
    start = study.beginning(law).sample(n, 5)
    down = log_snr(study.PROCESS, 150)
    x = np.sort(solvers.reverse(study.guided(law, 3.0), start, down, 6).last[:, 0])
    flow = np.sort(solvers.flow(study.guided(law, 3.0), start, [1.0, 0.0], rtol=1e-4).last[:, 0])
    below = np.concatenate([[0.0], np.cumsum(density * np.diff(edges))])
    limit = math.sqrt(math.log(2e6) / (2 * n)) + 0.01
    u = (np.arange(n) + 0.5) / n
    assert np.abs(np.interp(x, edges, below) - u).max() < limit
    assert np.abs(np.interp(flow, edges, below) - u).max() > 1.5 * limit


def test_more_noise_comes_nearer_to_the_tilted_law() -> None:
    """Eightfold noise leaves less than a third of both distances."""
    config = dataclasses.replace(TINY, cells=240, steps=120)
    law = study.overlap()
    first, last = (ended(config, law, 3.0, eta)[4:6] for eta in (1.0, 8.0))
    assert np.all(last < first / 3)


def test_distances_of_known_laws() -> None:
    """The tilted law on cells has none to itself, the conditional one those of quadrature."""
    law = study.overlap()
    edges = fokker_planck.cells(-9.0, 13.0, 500)
    tilted = Tilted(law, 0, 3.0)
    own = study.against(law, 3.0, edges, fokker_planck.averages(tilted, edges))
    np.testing.assert_allclose(own[4:6], 0.0, atol=1e-9)
    np.testing.assert_allclose(own[:3], study.measures(law, *tilted.quadrature())[:3], rtol=1e-3)
    other = study.against(law, 3.0, edges, fokker_planck.averages(law.classes[0], edges))
    x, weights = law.classes[0].quadrature()
    kl = weights @ (law.classes[0].log_prob(x) - tilted.log_prob(x))
    assert other[5] == pytest.approx(kl, rel=1e-3)
    assert other[4] == pytest.approx(float(tilted.mean[0]) - 1.0, rel=1e-3)  # one lies right of it
    assert other[6] == pytest.approx(0.0, abs=1e-9)


def test_the_gap_vanishes_at_gamma_1_and_at_time_0() -> None:
    config = dataclasses.replace(TINY, gammas=(1.0, 3.0), levels=4, earliest=1e-5)
    found = study.gap(config, HERE, "modes")
    assert np.abs(found["off"][0]).max() < 1e-9
    assert found["relative"][1, 0] < 1e-4 < 0.04 < found["relative"][1, 2]
    t = study.times_of(config)[2]
    law, x = study.modes(), found["x"][:, None]
    right = Oracle(Tilted(law, 0, 3.0), study.PROCESS).score(x, t)
    np.testing.assert_allclose(
        found["off"][1, 2], (study.guided(law, 3.0).score(x, t) - right)[:, 0], atol=1e-12
    )


@pytest.mark.parametrize("name", ["overlap", "modes", "plane"])
def test_the_exact_classifier_guides_as_both_models_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """eps to rounding for every gamma; a classifier with 1 % more of gamma is 1e-3 off or more."""
    found = study.classified(TINY, name, HERE)
    assert found["apart"].shape == found["size"].shape == (2,)
    assert np.all(found["apart"] < 1e-12 * found["size"])
    assert np.all(found["size"] > 2)  # the states reach the tails
    right = study.by_classifier
    monkeypatch.setattr(study, "by_classifier", lambda law, gamma: right(law, 1.01 * gamma))
    assert np.all(study.classified(TINY, name, HERE)["apart"] > 1e-3)


# ------------------------------------------------------------------ in the plane


def test_samples_are_measured_with_their_errors() -> None:
    """Of the tilted law: at its floor and within errors of the truth; of the class not. 8 seeds."""
    config = dataclasses.replace(TINY, repeats=6)
    law = study.plane()
    tilted = Tilted(law, 0, 5.0)
    own = study.measures(law, *tilted.quadrature())
    for source, right in ((tilted, True), (law.classes[0], False)):
        draws = np.random.default_rng(8)
        found = np.array([
            study.sampled(config, law, source.sample(1500, seed), tilted, draws)
            for seed in range(8)
        ])  # fmt: skip
        mean, error = study.mean_and_error(found)
        assert (abs(mean[0] - mean[1]) < LIMIT * math.hypot(error[0], error[1])) == right
        z = np.abs(mean[4:] - own[1:]) / error[4:]
        assert (z.max() < LIMIT) == right


def test_half_the_steps_of_an_sde_have_its_noise() -> None:
    """The path is that of the seed, and half the steps on it are off by what steps twice as long
    are: twice that of twice the steps. On another path they are much farther off."""
    config = dataclasses.replace(TINY, samples=150)
    model, start = study.guided(study.plane(), 3.0), study.plane_starts(config, HERE)[0]
    down = log_snr(study.PROCESS, 40)
    own = solvers.reverse(model, start, down, study.driving(6, start, down)).last
    np.testing.assert_allclose(solvers.reverse(model, start, down, 6).last, own, atol=1e-9)

    def change(steps: int, seed: int = 6) -> float:
        some = dataclasses.replace(config, sde_steps=steps)
        half = study.sde_ends(some, model, start, seed, True)
        return float(np.abs(study.sde_ends(some, model, start, 6) - half).mean())

    assert 1.4 < change(80) / change(160) < 2.8
    assert change(160, seed=7) > 5 * change(160)


def test_half_the_steps_are_the_times_two_by_two() -> None:
    np.testing.assert_array_equal(study.halved(np.arange(7)), [0, 2, 4, 6])
    np.testing.assert_array_equal(study.halved(np.arange(6)), [0, 2, 4, 5])
    found = study.Pairs(np.random.default_rng(1), 5, 2).normal(5, 2).numpy()
    z = np.random.default_rng(1).standard_normal((2, 5, 2))
    np.testing.assert_allclose(found, (z[0] + z[1]) / math.sqrt(2), rtol=1e-15)


def test_half_the_langevin_steps_take_the_same_time() -> None:
    """What they forget of the start, N(0, 1) throughout, is the same; steps of no more length
    forget less. Errors of a correlation of 4000 points are 0.016."""
    config = dataclasses.replace(TINY, corrected=30, corrections=1)
    model = Oracle(GaussianMixture([1.0], [[0.0]], [[1.0]]), study.PROCESS)
    start = np.random.default_rng(2).standard_normal((4000, 1))
    few = study.halved(log_snr(study.PROCESS, config.corrected))
    ends = [
        study.mixed_ends(config, model, start, np.random.default_rng(3), half)
        for half in (False, True)
    ]
    step = functools.partial(samplers.exponential, eta=0.0)
    short = samplers.predictor_corrector(model, start, few, 3, snr=0.3, predictor=step)
    whole, half, wrong = (
        np.corrcoef(start[:, 0], x[:, 0])[0, 1] for x in (*ends, samplers.last(short))
    )
    assert abs(whole - half) < 0.1 < 0.3 < wrong - whole
    assert np.corrcoef(ends[0][:, 0], ends[1][:, 0])[0, 1] > 0.9  # one noise drives both


# ------------------------------------------------------------------ learned


class Exact:
    """What answers as a network does, with `factor` times the exact eps."""

    def __init__(self, law: Any, factor: float) -> None:
        self.law, self.factor = law, factor

    def given(self, label: int | None) -> Any:
        oracle = Oracle(self.law.law if label is None else self.law.classes[label], study.PROCESS)
        exact = oracle.eps
        oracle.eps = lambda x, t: self.factor * exact(x, t)  # type: ignore[method-assign]
        return oracle


@pytest.mark.parametrize("name", ["modes", "plane"])
def test_an_exact_network_has_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one whose eps is 5 % too large is off by 5 % of it for every gamma and at every time."""
    run, law = Run(TINY.seed), study.LAWS[name]()
    exact = study.exact_walks(TINY, name, run)
    mass = study.starts(TINY, name, run)[1]
    size = []  # of the guided eps on the walks
    for gamma, states in zip(TINY.few, exact["states"]):
        u, c = study.eps_pair(TINY, study.exact_pair(law), states[:-1])
        size.append(study.rms(u + gamma * (c - u), mass))
    for factor in (1.0, 1.05):
        network = Exact(law, factor)
        monkeypatch.setattr(study, "learn", lambda *_, network=network: network)
        found = study.learned(TINY, name, exact, run)
        off = np.broadcast_to((factor - 1) * np.stack(size), (2, 2, TINY.levels))
        np.testing.assert_allclose(found["errors"][:, 1], off, atol=1e-12)
        np.testing.assert_allclose(found["measures"], [exact["measures"]] * 2, atol=1e-9)
        np.testing.assert_allclose(found["distance"], 0.0, atol=1e-9)  # its velocity is exact
        if factor == 1:
            np.testing.assert_allclose(found["errors"], 0.0, atol=1e-12)


def test_networks_side_by_side_are_those_alone() -> None:
    """Each block of rows is its own member's, labels too; another's is not."""
    nets = [MLP(1, (8, 8), seed=k, classes=2) for k in range(3)]
    side, generator = study.Side(nets), torch.Generator().manual_seed(1)
    x, t = torch.randn(12, 1, generator=generator), torch.rand(12, generator=generator)
    label = torch.arange(12) % 3
    found = side(x, t, label).reshape(3, 4, 1)
    for k in range(3):
        rows = slice(4 * k, 4 * k + 4)
        torch.testing.assert_close(found[k], nets[k](x[rows], t[rows], label[rows]))
        other = nets[k - 1](x[rows], t[rows], label[rows])
        assert (found[k] - other).abs().max() > 1e-3
    torch.testing.assert_close(side(x, t), side(x, t, torch.full((12,), 2)))


def test_members_train_apart() -> None:
    """The second network's data and weights do not reach the first: 1e-4 after 5 steps."""

    def trained(other: int) -> list[torch.Tensor]:
        side = study.Side([MLP(1, (8,), seed=k, classes=2) for k in (0, other)])

        def rows(net: Any, x: torch.Tensor, _: torch.Generator) -> torch.Tensor:
            t = torch.linspace(0, 1, 8)
            x = torch.cat([x[:4], x[4:] + other])
            return ((net(x, t, torch.zeros(8, dtype=torch.int64)) - x) ** 2)[:, 0]

        train.fit(side, study.overlap().law, rows, steps=5, seed=2, batch=8, rate=1e-2)
        return [p.detach() for p in side.parameters()]

    for a, b in zip(trained(1), trained(5)):
        torch.testing.assert_close(a[0], b[0], rtol=1e-4, atol=1e-4)
        assert (a[1] - b[1]).abs().max() > 1e-3


def test_the_walks_of_exact_models_end_where_flows_do() -> None:
    """The mean at the last time is within 0.05 of the flow to 0; with the wrong gamma it is not."""
    config = dataclasses.replace(TINY, earliest=1e-3, levels=4, tolerance=1e-5)
    law = study.modes()
    start = study.quantiles(config, study.beginning(law))[5:-5]
    end = solvers.flow(study.guided(law, 3.0), start, [1.0, 0.0], rtol=1e-6, atol=1e-6).last
    assert np.abs(study.walked(config, study.guided(law, 3.0), start)[-1] - end).max() < 0.05
    assert np.abs(study.walked(config, study.guided(law, 1.0), start)[-1] - end).max() > 0.2


def test_networks_differ_by_their_seeds(arrays: dict[str, np.ndarray]) -> None:
    for name in study.LEARNED:
        errors = arrays[f"{name} learned errors"]
        assert errors.shape == (2, 2, len(TINY.few), TINY.levels)
        assert np.all(errors > 0)
        assert not np.array_equal(errors[0], errors[1])


# ------------------------------------------------------------------ sweeps


class Noted(engines.Serial):
    """Calls here what is submitted, and notes which function every cell asks for."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.seen[pickle.loads(args[1])[0].__name__] += 1
        return super().submit(function, *args, **kwargs)


def test_engines_compute_the_heavy_parts(
    arrays: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells go to the executor, one that fails goes there again, and the numbers are the same."""
    monkeypatch.setattr(engines, "one_thread", lambda: None)  # this process is no worker
    fails, right = [True], study.paths

    def once(*given: Any) -> Any:
        if fails:
            raise RuntimeError(fails.pop())
        return right(*given)

    monkeypatch.setattr(study, "paths", once)  # of the gap
    executor = Noted()
    found = STUDY.compute(TINY, Run(TINY.seed, executor=executor))
    few, again = len(TINY.few), 1
    assert executor.seen == {
        "gap": 2 + again, "sde_laws": 2, "flow_law": 2 * len(TINY.gammas),
        "plane_runs": few * (4 + 2), "networks": 2,
    }  # fmt: skip
    assert found.keys() == arrays.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, arrays[key], rtol=1e-9, atol=1e-9, err_msg=key)


def test_samples_of_networks_are_those_alone(arrays: dict[str, np.ndarray]) -> None:
    """The NaN that fills up the cells of the sweep fills all but the samples."""
    run, law = Run(TINY.seed), study.LEARNED
    for name, size in zip(law, ((TINY.points, 1), (TINY.samples, 2)), strict=True):
        exact = study.exact_walks(TINY, name, run)
        found, kept = study.learned(TINY, name, exact, run)["x"], arrays[f"{name} learned x"]
        assert found.shape == (len(TINY.few), *size)
        np.testing.assert_array_equal(kept[:, : size[0], : size[1]], found)
        assert np.isfinite(kept).sum() == found.size


# ------------------------------------------------------------------ tables and pictures


def test_the_tables(arrays: dict[str, np.ndarray]) -> None:
    tables = study.table(TINY, arrays)
    names = ["", "line", "classifier", "gap", "gaussians", "plane", "learned", "eps", "cells"]
    assert list(tables) == names
    rows = tables["classifier"].query("law == 'plane' and gamma == 3")
    assert rows["largest difference of eps"].item() == arrays["plane classifier apart"][1]
    assert rows["largest eps"].item() == arrays["plane classifier size"][1]
    assert len(tables["classifier"]) == 3 * 2
    assert len(tables["line"]) == 2 * len(tables[""]) == 2 * 2 * (2 + len(TINY.etas))
    assert set(tables[""]["gamma"]) == {3.0}
    main = tables["line"].set_index(["law", "gamma", "sampler"])
    found = arrays["modes SDE measures"][1, 1]
    assert main.loc["modes", 3.0, "SDE, eta = 4"]["KL to the tilted law"].item() == found[5]
    row, far = main.loc["modes", 3.0, "SDE, eta = 4"], "W1 to the conditional law"
    fine, rough = (ended(TINY, study.modes(), 3.0, 4.0, part)[-1] for part in (1, 2))
    assert row[far].item() == pytest.approx(fine, rel=1e-9)
    assert row["change of that"].item() == pytest.approx(abs(fine - rough), rel=1e-6)
    flow = main.loc["modes", 3.0, "flow"]["change of that"].item()
    assert flow == arrays["modes flow 3 change"][2] != arrays["modes flow 3 change"][0]
    assert main.loc["modes", 1.0, "tilted law"]["W1 to the tilted law"].item() == 0
    assert len(tables["plane"]) == 2 * (5 + 2)
    values = arrays["plane 3 SDE measures"][:, study.SAMPLED.index("purity")]
    row = tables["plane"].query("gamma == 3 and sampler == 'SDE'")
    assert row["purity"].item() == values.mean()
    assert row["purity, error"].item() == pytest.approx(values.std(ddof=1) / TINY.seeds**0.5)
    half = arrays["plane 3 SDE, half the steps measures"]
    change = (arrays["plane 3 SDE measures"] - half)[:, study.SAMPLED.index("purity")]
    row = tables["plane"].query("gamma == 3 and sampler == 'change of SDE'")
    assert row["purity"].item() == change.mean() != 0
    assert row["purity, error"].item() == pytest.approx(change.std(ddof=1) / TINY.seeds**0.5)
    assert np.all(half[:, [1, 3]] == arrays["plane 3 SDE measures"][:, [1, 3]])  # the same draws
    assert row[["its floor", "floor of that"]].isna().all(axis=None)
    cells = tables["cells"]
    assert len(cells) == 2 * 6 * TINY.seeds + 2 * 2 * TINY.networks
    one = cells.query("law == 'plane' and gamma == 3 and sampler == 'SDE'")
    np.testing.assert_array_equal(one["purity"], values)
    one = cells.query("law == 'plane' and gamma == 3 and sampler == 'network'")
    found = arrays["plane learned measures"][:, 1, study.MEASURES.index("purity")]
    np.testing.assert_array_equal(one["purity"], found)
    learned = tables["learned"].query("law == 'plane' and gamma == 3")
    for k, place in enumerate(study.PLACES):
        off = (arrays["plane learned errors"][:, k, 1] ** 2).mean(axis=-1) ** 0.5
        np.testing.assert_allclose(one[f"eps, {place}"], off, rtol=1e-12)
        error = one[f"eps, {place}"].std(ddof=1) / TINY.networks**0.5
        assert learned[f"eps, {place}"].item() == pytest.approx(one[f"eps, {place}"].mean())
        assert learned[f"error of it, {k + 1}"].item() == pytest.approx(error)
    assert tables["learned"]["law"].tolist() == ["modes", "modes", "plane", "plane"]
    mean = arrays["plane learned distance"][:, 1].mean()
    assert tables["learned"]["distance of samples"].iloc[3] == pytest.approx(mean)
    assert len(tables["eps"]) == 2 * 2 * TINY.levels


def test_the_committed_samples_of_the_plane() -> None:
    """Full mode, within 5 errors: at gamma 1 all have the purity of the law itself; beyond, the
    flow's is another, and Langevin steps mixed in come nearer to the tilted law.
    """
    text = (FILE.parents[1] / "figures" / "guidance_plane.csv").read_text("utf-8")
    rows = {(float(r["gamma"]), r["sampler"]): r for r in csv.DictReader(text.splitlines())}

    def off(gamma: float, sampler: str) -> float:
        exact, own = rows[gamma, f"{study.TILTED}, exactly"], rows[gamma, sampler]
        return (float(own["purity"]) - float(exact["purity"])) / float(own["purity, error"])

    for sampler in (study.TILTED, study.FLOW, "SDE", study.MIXED):
        assert abs(off(1.0, sampler)) < 5
    key = "sliced W1 to the tilted law"
    for gamma in (3.0, 8.0):
        flow, mixed = (float(rows[gamma, s][key]) for s in (study.FLOW, study.MIXED))
        assert mixed < flow / 2
    assert abs(off(8.0, study.FLOW)) > 5


def test_the_same_seed_gives_the_same_numbers(arrays: dict[str, np.ndarray]) -> None:
    for seed in (TINY.seed, 4):
        same = [
            np.array_equal(study.plane_runs(TINY, Run(seed), 3.0, s)["x"], arrays[f"plane 3 {s} x"])
            for s in (*study.PLANE_SAMPLERS, *study.HALVED)
        ]
        assert all(same) == any(same) == (seed == TINY.seed)


def test_drawing_computes_nothing(arrays: dict[str, np.ndarray], only_drawing: None) -> None:
    from diffscience import plots

    with plots.style():
        figures = study.draw(TINY, arrays)
        assert list(figures) == ["", "distances", "gap", "plane", "learned"]
        png, _ = plots.save(figures["gap"], {})
    assert len(png) < 1_000_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gammas": (2.0, 3.0), "shown": (3.0,)}, "gammas must begin with 1"),
        ({"gammas": (1.0, 1.0), "shown": (1.0,)}, "gammas must be one or more numbers that inc"),
        ({"etas": (2.0,)}, "etas must begin with 1"),
        ({"shown": (4.0,)}, "shown must be 1 to 3 of the gammas"),
        ({"networks": 1}, "networks must be a whole number of at least 2"),
        ({"dropped": 1.0}, r"dropped must lie in \(0, 1\)"),
        ({"tolerance": 0.1}, "tolerance must lie"),
        ({"final_rate": 1.0}, "final_rate must lie"),
    ],
)
def test_configs_are_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        dataclasses.replace(TINY, **change)
