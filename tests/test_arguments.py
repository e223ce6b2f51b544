"""Bad arguments: one error class, which names the argument, the rule and what was given.

No call here may hang, return, or raise anything else.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, samplers, testing

NAN, INF = math.nan, math.inf
EYE = np.eye(2)
LINE: Any = gallery.julia_bimodal()
PLANE = gallery.skewed_pair()
ORACLE = ds.Oracle(LINE, ds.VP())
CHAIN = ds.Chain.linear(10)
X = np.zeros((3, 1))


def mixture(
    weights: Any = (0.5, 0.5), means: Any = ((0, 0), (1, 1)), covs: Any = (EYE, EYE)
) -> Any:
    return ds.GaussianMixture(
        weights, np.asarray(means) if isinstance(means, tuple) else means, covs
    )


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    # mixtures
    "negative weight": (
        lambda: mixture([1.0, -0.1]),
        "weights must be at least 0 and not all 0; got",
    ),
    "weights of zero": (lambda: mixture([0.0, 0.0]), "weights must be at least 0"),
    "no weights": (
        lambda: mixture([], np.zeros((0, 2)), np.zeros((0, 2, 2))),
        "weights must be at least 0",
    ),
    "NaN weight": (lambda: mixture([NAN, 1.0]), "weights must be finite; got 1 values such as nan"),
    "infinite weight": (lambda: mixture([INF, 1.0]), "weights must be finite"),
    "weights of rank 2": (lambda: mixture([[1.0, 1.0]]), r"weights must have shape \(any\)"),
    "words for weights": (lambda: mixture(["a", "b"]), "weights must be an array of numbers"),
    "complex weights": (
        lambda: mixture(np.array([1j, 1.0])),
        "weights must be an array of real numbers",
    ),
    "means of another count": (
        lambda: mixture(means=((0, 0),)),
        r"means must have shape \(2, any\)",
    ),
    "flat means": (lambda: mixture(means=(0.0, 1.0)), "means must have shape"),
    "NaN mean": (lambda: mixture(means=((0, NAN), (1, 1))), "means must be finite"),
    "no columns": (lambda: mixture(means=((), ())), "means must have at least one column"),
    "covs of another count": (lambda: mixture(covs=[EYE]), r"covs must have shape \(2, 2, 2\)"),
    "covs of another size": (
        lambda: mixture(covs=np.ones((2, 3, 3))),
        r"covs must have shape \(2, 2, 2\)",
    ),
    "negative variance": (
        lambda: mixture(covs=[[1.0, -1.0], [1.0, 1.0]]),
        "covs must have variances of at least 0",
    ),
    "indefinite": (
        lambda: mixture(covs=[EYE, [[1, 2], [2, 1]]]),
        "covs must be positive semi-definite",
    ),
    "negative in 1-D": (
        lambda: ds.GaussianMixture([1.0], [[0.0]], [[[-1.0]]]),
        "covs must be positive semi-definite",
    ),
    "not symmetric": (lambda: mixture(covs=[EYE, [[1, 0.2], [0.1, 1]]]), "covs must be symmetric"),
    "NaN covariance": (lambda: mixture(covs=[EYE, [[NAN, 0], [0, 1]]]), "covs must be finite"),
    "a number for covs": (lambda: mixture(covs=1.0), "covs must have shape"),
    # other families
    "boxes upside down": (lambda: ds.Boxes([[1.0]], [[0.0]]), "lows must lie below highs"),
    "box without width": (lambda: ds.Boxes([[1.0]], [[1.0]]), "lows must lie below highs"),
    "highs of another shape": (
        lambda: ds.Boxes([[1.0]], [[2.0, 3.0]]),
        r"highs must have shape \(1, 1\)",
    ),
    "infinite box": (lambda: ds.Boxes([[0.0]], [[INF]]), "highs must be finite"),
    "no boxes": (lambda: ds.Boxes(np.zeros((0, 2)), np.zeros((0, 2))), "lows must lie below highs"),
    "negative box weight": (
        lambda: ds.Boxes([[0.0]], [[1.0]], [-1.0]),
        "weights must be at least 0",
    ),
    "radius of zero": (lambda: ds.Rings([0.0]), "radii must be positive"),
    "negative radius": (lambda: gallery.rings((1.0, -1.0)), "radii must be positive"),
    "ring weights of zero": (lambda: ds.Rings([1.0], [0.0]), "weights must be at least 0"),
    "ring weights of another count": (
        lambda: ds.Rings([1.0], [0.5, 0.5]),
        r"weights must have shape \(1\)",
    ),
    "breaks that fall": (
        lambda: ds.Curve(lambda t: t, [1.0, 0.0], np.ones_like, np.ones_like),
        "breaks must be two or more",
    ),
    "negative noise": (
        lambda: gallery.swiss_roll(noise=-0.1),
        "noise must be a number of at least 0; got -0.1",
    ),
    "NaN noise": (
        lambda: gallery.two_moons(noise=NAN),
        "noise must be a number of at least 0; got nan",
    ),
    "no points": (lambda: gallery.empirical(np.zeros((0, 2))), "weights must be|points must"),
    "flat points": (lambda: gallery.empirical([1.0, 2.0]), "points must have shape"),
    # transitions
    "negative var": (lambda: ds.Transition(1.0, -1e-9), "var must be at least 0; got -1e-09"),
    "NaN var": (lambda: ds.Transition(1.0, NAN), "var must be finite"),
    "infinite scale": (lambda: ds.Transition(INF, 1.0), "scale must be finite"),
    "one negative var": (
        lambda: ds.Transition(1.0, np.array([1.0, -2.0])),
        "var must be at least 0; got -2.0",
    ),
    # points
    "points of another dimension": (
        lambda: LINE.log_prob(np.zeros((3, 2))),
        r"x must have shape \(..., 1\); got shape \(3, 2\)",
    ),
    "a number for points": (lambda: LINE.score(np.float64(1.0)), "x must"),
    "integer points": (
        lambda: LINE.score(np.zeros((3, 1), dtype=int)),
        "x must be a floating-point array; got int64",
    ),
    "integer tensor": (
        lambda: LINE.score(torch.zeros((3, 1), dtype=torch.int32)),
        "x must be a floating-point array",
    ),
    "boolean points": (
        lambda: LINE.score(np.zeros((3, 1), dtype=bool)),
        "x must be a floating-point array",
    ),
    "complex points": (
        lambda: LINE.score(np.zeros((3, 1), dtype=complex)),
        "x must be a floating-point array",
    ),
    "NaN point": (lambda: LINE.score(np.array([[0.0], [NAN]])), "x must be finite; got 1 rows"),
    "infinite point": (
        lambda: gallery.rings().score(np.array([[INF, 0.0]])),
        "x must be finite; got 1 rows",
    ),
    "NaN in a tensor": (
        lambda: gallery.checkerboard().score(torch.tensor([[0.0, NAN]])),
        "x must be finite",
    ),
    "words for points": (lambda: LINE.score("abc"), "x must be an array of numbers"),
    "None for points": (lambda: LINE.score(None), "x must be"),
    # densities that do not exist
    "density of a cloud": (
        lambda: gallery.empirical([[0.0, 1.0]]).log_prob([[0.0, 0.0]]),
        "noise variance must be positive",
    ),
    "score of a bare curve": (
        lambda: gallery.swiss_roll(0.0).score([[0.0, 0.0]]),
        "noise variance must be positive",
    ),
    "Hessian of bare rings": (
        lambda: ds.Rings([1.0]).hessian([[0.0, 0.0]]),
        "noise variance must be positive",
    ),
    "entropy of a cloud": (
        lambda: gallery.empirical([[0.0]]).entropy(),
        "noise variance must be positive",
    ),
    "one sharp row": (
        lambda: (
            gallery.empirical([[0.0]])
            .diffuse(ds.Transition(1.0, np.array([0.0, 1.0])))
            .score(np.zeros((2, 1)))
        ),
        "noise variance must be positive",
    ),
    # one dimension
    "cdf in 2-D": (
        lambda: PLANE.cdf(np.zeros((3, 2))),
        "target must have D = 1 for a cdf; got D = 2",
    ),
    "quantile in 2-D": (lambda: PLANE.quantile([0.5]), "target must have D = 1 for a cdf"),
    "flow in 2-D": (
        lambda: ds.Oracle(PLANE, ds.VP()).flow(np.zeros((3, 2)), 0.1, 0.2),
        "target must have D = 1",
    ),
    "quantile at 0": (lambda: LINE.quantile([0.0]), "u must lie strictly between 0 and 1"),
    "quantile at 1": (
        lambda: LINE.quantile(np.array([0.5, 1.0])),
        "u must lie strictly between 0 and 1",
    ),
    "quantile at 2": (lambda: LINE.quantile(2.0), "u must lie strictly between 0 and 1"),
    "quantile at NaN": (lambda: LINE.quantile(NAN), "u must be finite"),
    "quadrature in 3-D": (
        lambda: ds.GaussianMixture([1.0], [[0.0] * 3], [np.eye(3)]).quadrature(),
        "target must have D <= 2",
    ),
    # sampling
    "minus one sample": (
        lambda: LINE.sample(-1, 0),
        "n must be a whole number of at least 0; got -1",
    ),
    "half a sample": (lambda: LINE.sample(0.5, 0), "n must be a whole number"),
    "true samples": (lambda: LINE.sample(True, 0), "n must be a whole number"),
    "no generator": (lambda: LINE.sample(3, None), "generator must be"),
    "a word for generator": (lambda: LINE.sample(3, "seed"), "generator must be"),
    "old generator": (lambda: LINE.sample(3, np.random.RandomState(0)), "generator must be"),
    "samples of many laws": (
        lambda: LINE.diffuse(ds.Transition(1.0, np.ones(2))).sample(3, 0),
        "noise must be one transition",
    ),
    # processes
    "time before 0": (lambda: ds.VP().alpha(-0.1), r"t must lie in \[0, 1\]"),
    "time after T": (lambda: ds.EDM().at(81.0), r"t must lie in \[0, 80\]"),
    "NaN time": (lambda: ds.VP().var(NAN), "t must be finite"),
    "one bad time": (
        lambda: ds.Cosine().at(np.array([0.5, 1.5])),
        r"t must lie in \[0, 1\].*values from 0.5 to 1.5",
    ),
    "s after t": (lambda: ds.VP().between(0.5, 0.4), "s must be at most t; got s = 0.5, t = 0.4"),
    "s before 0": (lambda: ds.VP().between(-0.5, 0.4), r"s must lie in \[0, 1\]"),
    "a word for time": (lambda: ds.VP().alpha("noon"), "t must be an array of numbers"),
    "NaN log SNR": (lambda: ds.VP().time_of_log_snr(NAN), "log_snr must be finite"),
    "negative beta_min": (lambda: ds.VP(-0.1), "beta_min must be a positive number; got -0.1"),
    "NaN beta_max": (lambda: ds.VP(0.1, NAN), "beta_max must be a positive number; got nan"),
    "sub-VP": (lambda: ds.SubVP(0.0), "beta_min must be a positive number"),
    "sigma of 1": (lambda: ds.VE(1.0), "sigma must differ from 1"),
    "sigma of 0": (lambda: ds.VE(0.0), "sigma must be a positive number"),
    "levels upside down": (lambda: ds.VEGeometric(1.0, 0.5), "sigma_max must exceed sigma_min"),
    "cosine s": (lambda: ds.Cosine(-1.0), "s must be a number of at least 0"),
    "EDM without time": (lambda: ds.EDM(0.0), "T must be a positive number"),
    "beta of 0": (lambda: ds.Chain([0.1, 0.0]), r"betas must lie in \(0, 1\); got beta_2 = 0.0"),
    "beta of 1": (lambda: ds.Chain([1.0]), r"betas must lie in \(0, 1\); got beta_1 = 1.0"),
    "NaN beta": (lambda: ds.Chain([NAN]), "betas must be finite"),
    "no betas": (lambda: ds.Chain([]), "betas must hold at least one step"),
    "half a step": (lambda: CHAIN.alpha(0.5), "t must be a whole number of steps"),
    "steps past the end": (lambda: CHAIN.between(0, 11), r"t must lie in \[0, 10\]"),
    "drift of a chain": (lambda: CHAIN.drift(3), "process must be continuous in time"),
    "velocity in a chain": (
        lambda: ds.Oracle(LINE, CHAIN).velocity(X, 3),
        "process must be continuous in time",
    ),
    "chain of no steps": (
        lambda: ds.Chain.linear(0),
        "K must be a whole number of at least 1; got 0",
    ),
    "chain of 2.5 steps": (lambda: ds.Chain.cosine(cast(Any, 2.5)), "K must be a whole number"),
    # oracles
    "a word for law": (
        lambda: ds.Oracle(cast(Any, "law"), ds.VP()),
        "law must be a Target; got law",
    ),
    "a class for process": (lambda: ds.Oracle(LINE, cast(Any, ds.VP)), "process must be a Process"),
    "oracle past the end": (lambda: ORACLE.score(X, 2.0), r"t must lie in \[0, 1\]"),
    "oracle, wrong points": (
        lambda: ORACLE.x0(np.zeros((3, 4)), 0.5),
        r"x must have shape \(..., 1\)",
    ),
    "oracle, times of another count": (
        lambda: ORACLE.score(np.zeros((3, 1)), np.full(4, 0.5)),
        r"x must pair row by row .*\(3,\) and \(4,\)",
    ),
    "denoiser, noises of another count": (
        lambda: LINE.denoise(X, ds.Transition(1.0, np.ones(4))),
        "x must pair row by row",
    ),
    "scales and vars": (
        lambda: ds.Transition(np.ones(3), np.ones(4)),
        r"var must pair row by row .*\(3,\) and \(4,\)",
    ),
    "transitions of other counts": (
        lambda: ds.Transition(1.0, np.ones(3)).then(ds.Transition(1.0, np.ones(4))),
        "later must pair row by row",
    ),
    "applying to another count": (
        lambda: ds.Transition(1.0, np.ones(4)).apply(X, X),
        "x must pair row by row",
    ),
    "steps of other counts": (
        lambda: ds.VP().between(np.zeros(3), np.ones(4)),
        "s must pair row by row",
    ),
    "posterior of a ring": (
        lambda: ds.Oracle(gallery.rings(), ds.VP()).posterior([0.0, 1.0], 0.5),
        "law must be a Gaussian mixture",
    ),
    "posterior of many": (
        lambda: ORACLE.posterior(X, 0.5),
        r"x must be one point of shape \(1\)|x must be one point",
    ),
    "score at time 0 of a cloud": (
        lambda: ds.Oracle(gallery.empirical([[0.0]]), ds.VP()).score(X, 0.0),
        "noise variance must be positive",
    ),
    # samplers
    "times that rise": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.1, 0.9])),
        "times must be two or more decreasing",
    ),
    "one time": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.9])),
        "times must be two or more decreasing",
    ),
    "times that stand": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.9, 0.9])),
        "times must be two or more decreasing",
    ),
    "NaN among times": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.9, NAN, 0.1])),
        "times must be finite",
    ),
    "times outside": (
        lambda: samplers.last(samplers.ancestral(ORACLE, X, [1.5, 0.1], 0)),
        r"times must lie in \[0, 1\]",
    ),
    "half steps": (
        lambda: samplers.last(samplers.ancestral(ds.Oracle(LINE, CHAIN), X, [9.5, 3], 0)),
        "times must be a whole number of steps",
    ),
    "forward backwards": (
        lambda: samplers.last(samplers.forward(ds.VP(), X, [0.9, 0.1], 0)),
        "times must be two or more increasing",
    ),
    "mix of 2": (
        lambda: samplers.last(samplers.ancestral(ORACLE, X, [0.9, 0.1], 0, mix=2.0)),
        r"mix must lie in \[0, 1\]",
    ),
    "eta of -1": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.9, 0.1], 0, eta=-1.0)),
        r"eta must lie in \[0, 1\]",
    ),
    "eta and no generator": (
        lambda: samplers.last(samplers.ddim(ORACLE, X, [0.9, 0.1], eta=1.0)),
        "generator must be given",
    ),
    "strides of none": (
        lambda: samplers.strided(CHAIN, 0),
        "steps must be a whole number from 1 to 10; got 0",
    ),
    "too many strides": (
        lambda: samplers.strided(CHAIN, 11),
        "steps must be a whole number from 1 to 10; got 11",
    ),
    "torch noise for NumPy points": (
        lambda: samplers.last(samplers.ancestral(ORACLE, X, [0.9, 0.1], torch.Generator())),
        "generator must be a NumPy",
    ),
    # assertions
    "samples of another dimension": (
        lambda: testing.assert_samples_follow(X, PLANE),
        r"samples must have shape \(n, 2\)",
    ),
    "alpha of 0": (
        lambda: testing.assert_samples_follow(X, LINE, alpha=0.0),
        r"alpha must lie in \(0, 1\)",
    ),
    "box upside down": (
        lambda: testing.assert_mass_one(LINE, box=([1.0], [0.0])),
        "box must be finite lows below highs",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    call, words = BAD[case]
    with pytest.raises(ds.ArgumentError, match=words) as caught:
        call()
    sentence = str(caught.value)
    assert " must " in sentence
    assert "; got " in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize("target", gallery.ALL)
def test_every_target_checks_its_points(target: str) -> None:
    law = gallery.ALL[target]().diffuse(ds.Transition(0.8, 0.36))
    d = law.dim
    asks = [law.log_prob, law.score, law.hessian, law.log_prob_and_score]
    asks.append(lambda x: law.denoise(x, ds.Transition(0.5, 0.5)))
    asks.append(lambda x: law.posterior_cov(x, ds.Transition(0.5, 0.5)))
    for ask in asks:
        for bad, words in (
            (np.zeros((3, d + 1)), "x must have shape"),
            (np.full((3, d), NAN), "x must be finite; got 3 rows"),
            (torch.full((3, d), INF), "x must be finite; got 3 rows"),
            (np.zeros((3, d), dtype=np.int32), "x must be a floating-point array"),
        ):
            with pytest.raises(ds.ArgumentError, match=words):
                ask(bad)


@pytest.mark.parametrize("process", testing.processes())
def test_every_process_checks_its_times(process: str) -> None:
    path = testing.processes()[process]
    asks = [path.alpha, path.var, path.at, path.log_snr, lambda t: path.between(0.0, t)]
    for ask in asks:
        for bad in (-1e-3, path.T * 1.001, -INF):
            with pytest.raises(ds.ArgumentError, match=r"^t must"):
                ask(bad)
        with pytest.raises(ds.ArgumentError, match="t must be finite"):
            ask(torch.tensor([0.0, NAN]))
    with pytest.raises(ds.ArgumentError, match="s must be at most t"):
        path.between(path.T, 0.0)


def test_the_error_keeps_its_parts() -> None:
    error = ds.ArgumentError("beta", "lie in (0, 1)", "x" * 500)
    assert isinstance(error, ValueError)
    assert len(str(error)) < 120
    again = pickle.loads(pickle.dumps(error))
    assert (again.argument, again.rule, str(again)) == (error.argument, error.rule, str(error))


def test_good_arguments_of_every_kind_pass() -> None:
    """What is close to bad and yet good: lists, integers for parameters, a generator or a seed."""
    law: Any = ds.GaussianMixture([1, 3], [[0], [1]], [[[1]], [[2]]])
    assert law.log_prob([[0.0], [1.0]]).shape == (2,)
    assert law.log_prob([0, 1][:1]).shape == ()
    assert law.sample(np.int64(3), np.int64(1)).shape == (3, 1)
    assert law.quantile(0.5).shape == (1,)
    assert ds.VP().alpha(0) == 1.0
    assert ds.VP().alpha(np.float32(1.0)) > 0
    assert CHAIN.alpha(np.arange(11)).shape == (11,)
