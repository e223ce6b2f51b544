"""The assertions themselves: what they let pass and what they say; and the self-check."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import doctor, gallery, testing

LAW = gallery.julia_bimodal().diffuse(ds.Transition(0.8, 0.36))


class Plain:
    """A standard normal law written from nothing, as another project would bring it."""

    dim = 1

    def log_prob(self, x: Any) -> Any:
        return -0.5 * (x * x).sum(-1) - 0.5 * float(np.log(2 * np.pi))

    def score(self, x: Any) -> Any:
        return -x

    def sample(self, n: int, generator: Any) -> np.ndarray:
        return np.random.default_rng(generator).standard_normal((n, 1))


def test_laws_of_other_projects_are_welcome() -> None:
    law, x = Plain(), np.linspace(-3, 3, 13)[:, None]
    assert testing.assert_score_is_gradient(law, x) < 1e-9
    assert testing.assert_score_is_gradient(law, torch.tensor(x)) < 1e-15
    assert testing.assert_score_is_gradient((law.log_prob, law.score), x) < 1e-9
    assert (
        testing.assert_hessian_is_jacobian((law.score, lambda x: -np.ones((len(x), 1, 1))), x)
        < 1e-9
    )
    assert testing.assert_mass_one(law) < 1e-12
    assert testing.assert_mass_one(law, box=([-9.0], [9.0])) < 1e-12
    with pytest.raises(AssertionError, match="mass = 1"):
        testing.assert_mass_one(law, box=([0.0], [9.0]))


def test_messages_hold_the_numbers() -> None:
    x = np.array([[0.5], [2.0]])
    with pytest.raises(AssertionError) as caught:
        testing.assert_score_is_gradient((Plain().log_prob, lambda x: -1.05 * x), x)
    words = "score = grad log p: got [-2.1], wanted [-2.] at x = [2.]: error 0.05 exceeds 1e-07"
    assert re.sub(r"-(1\.9|2\.0)\d+", "-2.", str(caught.value)) == words
    with pytest.raises(AssertionError, match=r"got shape \(2, 2\), wanted \(2, 1\)"):
        testing.assert_score_is_gradient((Plain().log_prob, lambda x: np.zeros((2, 2))), x)


def test_not_a_number_is_not_a_pass() -> None:
    x = LAW.sample(10, 0)
    for bad in (np.nan, np.inf):
        with pytest.raises(AssertionError):
            testing.assert_score_is_gradient(
                (LAW.log_prob, lambda x, bad=bad: LAW.score(x) * bad), x
            )
        with pytest.raises(AssertionError):
            testing.assert_mass_one(_With(LAW, log_prob=lambda x, bad=bad: LAW.log_prob(x) * bad))
        with pytest.raises(AssertionError):
            testing.assert_stein(_With(LAW, score=lambda x, bad=bad: LAW.score(x) * bad))
        with pytest.raises(AssertionError, match="rows are not finite"):
            testing.assert_samples_follow(np.full((10, 1), bad), LAW)
    oracle = ds.Oracle(gallery.julia_bimodal(), ds.VP())
    with pytest.raises(AssertionError, match="nan"):
        testing.assert_matches_oracle(lambda x, t: np.nan * x, oracle, 0.5, 1e9)


class _With:
    def __init__(self, law: Any, **answers: Any) -> None:
        self._law = law
        self.__dict__.update(answers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._law, name)


def test_matching_an_oracle_measures_the_relative_error() -> None:
    oracle = ds.Oracle(gallery.skewed_pair(), ds.VP())
    assert testing.assert_matches_oracle(oracle.score, oracle, 0.4, 0.0) == 0.0
    error = testing.assert_matches_oracle(lambda x, t: 1.05 * oracle.score(x, t), oracle, 0.4, 0.06)
    assert error == pytest.approx(0.05, rel=1e-12)
    zero = testing.assert_matches_oracle(lambda x, t: 0 * x, oracle, 0.4, 1.0)
    assert zero == pytest.approx(1.0, rel=1e-12)
    with pytest.raises(AssertionError, match=r"at t = 0.4: relative root mean square error 0.05 "):
        testing.assert_matches_oracle(lambda x, t: 1.05 * oracle.score(x, t), oracle, 0.4, 0.01)
    with pytest.raises(AssertionError, match=r"score: shape \(4096,\), wanted \(4096, 2\)"):
        testing.assert_matches_oracle(lambda x, t: x[:, 0], oracle, 0.4, 1.0)


@pytest.mark.parametrize("target", ["julia_bimodal", "two_moons", "julia_trimodal"])
def test_false_alarms_are_as_rare_as_said(target: str) -> None:
    """With alpha = 0.2, 300 runs raise about 60 alarms in 1-D and fewer elsewhere; seeds 0 to 299.

    The band's end, 95, is 5 standard deviations above 60.
    """
    law, alarms = gallery.ALL[target](), 0
    for seed in range(300):
        try:
            testing.assert_samples_follow(law.sample(200, seed), law, alpha=0.2)
        except AssertionError:
            alarms += 1
    assert alarms <= 95
    if target == "julia_bimodal":
        assert alarms >= 20  # the limit is not idle


def test_posteriors_that_cannot_be_integrated_are_said_to_be() -> None:
    """A law whose density is off is caught before its posterior is."""
    law = gallery.julia_bimodal()
    wrong = _With(law, diffuse=lambda step: law.diffuse(ds.Transition(step.scale, 1.05 * step.var)))
    with pytest.raises(AssertionError, match=r"p_t\(x\) = E p\(x \| X_0\) holds to 1e-10 at 0 of"):
        testing.assert_tweedie(ds.Oracle(law, ds.VP()), wrong)


def test_points_left_out_are_counted() -> None:
    """A checkerboard's edges are too sharp for a lattice: with `least` the points kept are told."""
    law, process = gallery.checkerboard(), ds.Chain.linear(40)
    oracle = ds.Oracle(law, process)
    testing.assert_tweedie(oracle, law, [40.0], n=20, least=0.0)
    with pytest.raises(AssertionError, match="of 20 points only"):
        testing.assert_tweedie(oracle, law, [1.0], n=20, least=1.0)


def test_middle_times_of_a_long_process_are_those_of_its_noise() -> None:
    edm = ds.EDM()
    np.testing.assert_allclose(testing._middle_times(edm), np.exp([-2.0, 0.0, 2.0]), rtol=1e-12)
    assert np.array_equal(testing._middle_times(ds.VP()), [0.2, 0.5, 0.8])
    assert testing.times(edm).min() == pytest.approx(0.16)


def test_assertions_are_the_same_twice() -> None:
    for ask in (testing.assert_semigroup, testing.assert_fokker_planck):
        assert ask(LAW, ds.VP()) == ask(LAW, ds.VP())
    x, t = testing.states(LAW, ds.VP())
    y, s = testing.states(LAW, ds.VP())
    assert np.array_equal(x, y)
    assert np.array_equal(t, s)
    assert len(x) == len(t) == 30


# ---------------------------------------------------------------- the self-check


def test_doctor_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"diffscience {ds.__version__}, Python ")
    assert lines[-1] == "all is well"
    laws = [line for line in lines if line.startswith("  ok ")]
    assert len(laws) == len(list(doctor._checks()))
    assert not any("FAIL" in line for line in lines)
    for line in laws:
        error, limit = re.search(r" (\S+) <= (\S+) ", line).groups()  # type: ignore[union-attr]
        assert 0 <= float(error) <= float(limit)
    assert any(line.startswith("devices: cpu") for line in lines)


def test_doctor_finds_a_wrong_score(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    right = ds.Rings._grads
    monkeypatch.setattr(ds.Rings, "_grads", lambda self, x, S, V: 1.0001 * right(self, x, S, V))
    assert doctor.main() == 1
    out = capsys.readouterr().out
    assert "FAIL score " in out
    assert "rings under VP: AssertionError: score = grad log p: got" in out
    assert "broken: score" in out
    assert "all is well" not in out


def test_doctor_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(doctor, "_REQUIRED", [*doctor._REQUIRED, "no-such-package"])
    monkeypatch.setattr(doctor, "_laws", list)
    assert doctor.main() == 1
    assert "missing: no-such-package" in capsys.readouterr().out


def test_doctor_needs_nothing_but_the_package(tmp_path: Path) -> None:
    """Run elsewhere, from a copy of the package alone: no tests, no studies, nothing written."""
    import shutil

    source = Path(ds.__file__).parent
    shutil.copytree(source, tmp_path / "diffscience", ignore=shutil.ignore_patterns("__pycache__"))
    before = sorted(tmp_path.rglob("*"))
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "diffscience.doctor"], cwd=tmp_path, env=env, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.endswith("all is well\n")
    assert sorted(tmp_path.rglob("*")) == before
