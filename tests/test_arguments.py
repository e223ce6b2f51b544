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
from diffscience import bounds, gallery, grids, losses, metrics, nets, samplers, testing
from diffscience import train as training

NAN, INF = math.nan, math.inf
EYE = np.eye(2)
LINE: Any = gallery.julia_bimodal()
PLANE = gallery.skewed_pair()
ORACLE = ds.Oracle(LINE, ds.VP())
CHAIN = ds.Chain.linear(10)
X = np.zeros((3, 1))
ON_CHAIN = ds.Oracle(LINE, CHAIN)
NET = nets.MLP(1, widths=(4,), seed=0)
NETWORK = ds.Network(NET, ds.VP())
ANY: Any = ds  # the package without its types, for arguments that they forbid


class Answers(ds.Model):
    """A model whose every answer is one and the same array, right or wrong."""

    def __init__(self, value: Any, process: ds.Process = CHAIN) -> None:
        self.value, self.process = value, process

    def _same(self, x: Any, t: Any) -> Any:
        return self.value

    x0 = eps = score = _same


def fit(network: Any = None, data: Any = LINE, **options: Any) -> Any:
    network = ds.Network(nets.MLP(1, widths=(4,)), CHAIN) if network is None else network
    return training.train(network, data, **{"steps": 2, "seed": 0, "batch": 4, **options})


def run(sampler: Any, *given: Any, **options: Any) -> Any:
    return samplers.last(sampler(*given, **options))


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
    "a sigmoid upside down": (lambda: ds.Sigmoid(3.0, -3.0), "end must exceed start = 3.0"),
    "tau of 0": (lambda: ds.Sigmoid(tau=0.0), "tau must be a positive number; got 0.0"),
    "a sigmoid too far out": (
        lambda: ds.Sigmoid(-300.0),
        r"start must lie in \[-100, 100\]; got -300.0",
    ),
    "half a power": (lambda: ds.Polynomial(0.5), "power must be a number of at least 1; got 0.5"),
    "a ceiling above 1": (
        lambda: ds.Chain.of(ds.VP(), [0.0, 1.0], 1.5),
        r"beta_max must lie in \(0, 1\]; got 1.5",
    ),
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
        lambda: grids.strided(CHAIN, 0),
        "steps must be a whole number from 1 to 10; got 0",
    ),
    "too many strides": (
        lambda: grids.strided(CHAIN, 11),
        "steps must be a whole number from 1 to 10; got 11",
    ),
    "torch noise for NumPy points": (
        lambda: samplers.last(samplers.ancestral(ORACLE, X, [0.9, 0.1], torch.Generator())),
        "generator must be a NumPy",
    ),
    "no model": (lambda: run(samplers.ddim, "model", X, [1, 0]), "model must be a Model; got mod"),
    "ancestral without a model": (
        lambda: run(samplers.ancestral, None, X, [1, 0], 0),
        "model must be a Model",
    ),
    "a word for points of a start": (
        lambda: run(samplers.ddim, ON_CHAIN, "x", [1, 0]),
        "x must be an array of numbers",
    ),
    "a ragged start": (
        lambda: run(samplers.ancestral, ON_CHAIN, [[0.0], [1.0, 2.0]], [1, 0], 0),
        "x must be an array of numbers",
    ),
    "a start of integers": (
        lambda: run(samplers.forward, CHAIN, np.zeros((3, 1), int), [0, 1], 0),
        "x0 must be floating-point points .*; got int64",
    ),
    "a start of NaN": (
        lambda: run(samplers.forward, CHAIN, np.full((3, 1), NAN), [0, 1], 0),
        "x0 must be finite",
    ),
    "a start of NaN, reverse": (
        lambda: run(samplers.ddim, ON_CHAIN, torch.tensor([[NAN]]), [1, 0]),
        "x must be finite",
    ),
    "a number for the start": (
        lambda: run(samplers.ddim, ON_CHAIN, np.float64(1), [1, 0]),
        "x must be floating-point points",
    ),
    "a word for mix": (
        lambda: run(samplers.ancestral, ON_CHAIN, X, [1, 0], 0, mix="beta"),
        r"mix must lie in \[0, 1\]; got beta",
    ),
    "a list for eta": (
        lambda: run(samplers.ddim, ON_CHAIN, X, [1, 0], 0, eta=[0.5]),
        r"eta must lie in \[0, 1\]",
    ),
    "a word for clip": (
        lambda: run(samplers.ddim, ON_CHAIN, X, [1, 0], clip="a"),
        "clip must be a positive number",
    ),
    "a model that answers NaN at the last step": (
        lambda: run(samplers.ddim, Answers(np.full((3, 1), NAN)), X, [1, 0]),
        "model must answer with a finite x0 at t = 1; got 3 rows with NaN",
    ),
    "a model that answers another shape": (
        lambda: run(samplers.ancestral, Answers(np.zeros(3)), X, [1, 0], 0),
        r"model must answer with shape \(3, 1\); got shape \(3,\)",
    ),
    "a process that is none": (
        lambda: run(samplers.forward, "VP", X, [0, 1], 0),
        "process must be a Process",
    ),
    "prior of -1": (lambda: samplers.prior(CHAIN, -1, 1, 0), "n must be a whole number of at le"),
    "prior of no dimension": (lambda: samplers.prior(CHAIN, 1, 0, 0), "dim must be a whole"),
    "prior of no process": (lambda: ANY.samplers.prior(3, 1, 1, 0), "process must be a Process"),
    "strides of no chain": (lambda: ANY.grids.strided(ds.VP(), 3), "chain must be a Chain"),
    "the last of nothing": (lambda: samplers.last(iter(())), "states must hold at least one"),
    # composition
    "then a number": (lambda: ANY.Transition().then(3), "later must be a Transition; got 3"),
    "diffused by a word": (lambda: LINE.diffuse("x"), "transition must be a Transition; got x"),
    "noise of another shape": (
        lambda: ds.Transition().apply(np.zeros((3, 2)), X),
        r"noise must have the shape of x; got \(3, 1\)",
    ),
    "noise for integers": (
        lambda: ds.Transition().apply(np.zeros((3, 1), int), X),
        "x must be floating-point points",
    ),
    "a word to diffuse": (lambda: ds.Transition().apply("x", X), "x must be an array of numbers"),
    # schedules
    "true for beta_max": (lambda: ds.VP(0.1, True), "beta_max must be a positive number"),
    "a word for s": (lambda: ANY.Cosine("s"), "s must be a number of at least 0; got s"),
    "a word for beta_K": (lambda: ANY.Chain.linear(10, 0.1, "a"), "beta_K must be a finite number"),
    "a word for beta_1": (lambda: ANY.Chain.linear(10, "a"), "beta_1 must be a finite number"),
    "sigmoid of a list": (
        lambda: ANY.Chain.sigmoid(10, reach=[6]),
        "reach must be a finite number",
    ),
    "cosine up to a word": (
        lambda: ANY.Chain.cosine(10, beta_max="a"),
        r"beta_max must lie in \(0, 1\)",
    ),
    "power of 0": (lambda: ds.Chain.polynomial(10, 0), "power must be a positive number; got 0"),
    "power of -1": (lambda: ds.Chain.polynomial(10, -1), "power must be a positive number; got -1"),
    "top of a word": (lambda: ANY.Chain.polynomial(10, top="a"), "top must be a positive number"),
    "chain of a word": (lambda: ANY.Chain.of("VP", [0.0, 1.0]), "process must be a Process"),
    # networks
    "a function for a net": (
        lambda: ANY.Network(lambda x, t: x, ds.VP()),
        "net must be a Module; got <function",
    ),
    "a list of predictions": (lambda: ANY.Network(NET, ds.VP(), ["eps"]), "predicts must be one"),
    "a word for the net's time": (
        lambda: ANY.Network(NET, ds.VP(), "eps", "t"),
        "time must be a function",
    ),
    "points of another D for a net": (
        lambda: NETWORK.x0(np.zeros((3, 2)), 0.5),
        r"net must take points \(3, 2\) and times \(3,\); got mat1 and mat2",
    ),
    "a number for points of a net": (lambda: NETWORK.x0(1.0, 0.5), "x must have shape"),
    "a ragged list for a net": (
        lambda: NETWORK.x0([[0.0], [0.0, 1.0]], 0.5),
        "x must be an array of numbers",
    ),
    "words for a net": (lambda: NETWORK.x0(np.array([["a"]]), 0.5), "x must be a floating-point"),
    "long doubles for a net": (
        lambda: NETWORK.x0(np.zeros((3, 1), np.longdouble), 0.5),
        "x must be a floating-point array that torch has",
    ),
    "arrays for a bare prediction": (
        lambda: ANY.Network(NET, ds.VP()).prediction(X, 0.5),
        "x must be",
    ),
    "times of another count for a net": (
        lambda: NETWORK.x0(X, np.full(4, 0.5)),
        r"t must pair row by row .*\(4,\) and \(3,\)",
    ),
    "a column of times for a net": (
        lambda: NETWORK.score(torch.zeros(3, 1), torch.full((3, 1), 0.5)),
        r"t must have shape \(3,\), as the points do; got \(3, 1\)",
    ),
    "a word for a net's time": (lambda: NETWORK.v(X, "noon"), "t must be an array of numbers"),
    "a word for a net's time, tensors": (
        lambda: NETWORK.v(torch.zeros(3, 1), "noon"),
        "t must be an array of numbers",
    ),
    "a net that sees times of another shape": (
        lambda: ds.Network(NET, ds.VP(), time=lambda t: t.new_zeros(7)).x0(X, 0.5),
        "time must pair row by row",
    ),
    "a net of no dimension": (lambda: nets.MLP(0), "dim must be a whole number of at least 1"),
    "a net without units": (lambda: nets.MLP(1, ()), "widths must be a list of whole numbers"),
    "a net of half units": (lambda: ANY.nets.MLP(1, (2.5,)), "widths must be a whole number"),
    "a number for widths": (lambda: ANY.nets.MLP(1, 4), "widths must be a list of whole numbers"),
    "words for frequencies": (
        lambda: ANY.nets.MLP(1, frequencies=["a"]),
        "frequencies must be an array of numbers",
    ),
    "a net of a huge seed": (lambda: nets.MLP(1, seed=2**70), "seed must be a whole number from -"),
    # training
    "a net for a network": (lambda: fit(NET), "network must be a Network; got MLP"),
    "a stack of nothing": (lambda: ds.nets.Stack([]), "members must be one or more networks"),
    "a stack of two shapes": (
        lambda: ds.nets.Stack([ds.nets.Score(1, (2,)), ds.nets.Score(1, (3,))]),
        "members must be one or more networks",
    ),
    "rows that members cannot share": (
        lambda: ds.nets.Stack([ds.nets.Score(1, (2,))] * 2)(torch.zeros(3, 1)),
        "x must be rows",
    ),
    "nothing to train": (
        lambda: fit(ds.Network(torch.nn.Identity(), CHAIN)),
        "net must have parameters",
    ),
    "data of another D": (
        lambda: fit(data=PLANE),
        r"net must take points \(4, 2\) and times \(4,\)",
    ),
    "a huge seed": (lambda: fit(seed=2**70), "seed must be a whole number from -"),
    "a word for rate": (lambda: fit(rate="fast"), "rate must be a positive number; got fast"),
    "a word for final_rate": (lambda: fit(final_rate="a"), "final_rate must be a positive number"),
    "a word for ema": (lambda: fit(ema="a"), r"ema must lie in \[0, 1\); got a"),
    "a word for snapshots": (
        lambda: fit(snapshots="ab"),
        "snapshots must be a whole number from 0 to 2; got a",
    ),
    "a number for snapshots": (lambda: fit(snapshots=1), "snapshots must be a list of steps"),
    "half a snapshot": (
        lambda: fit(snapshots=[1.5]),
        "snapshots must be a whole number from 0 to 2",
    ),
    "a late snapshot": (lambda: fit(snapshots=[3]), "snapshots must be a whole number from 0 to 2"),
    "a word for loss": (lambda: fit(loss="simple"), "loss must be a function; got simple"),
    "a number for times": (lambda: fit(times=0.5), "times must be a function; got 0.5"),
    "a column of times": (
        lambda: fit(times=lambda n, g: torch.ones(n, 1)),
        r"times must give an array of shape \(4,\); got shape \(4, 1\)",
    ),
    "a word for earliest": (
        lambda: ANY.train.uniform_times(ds.VP(), "0"),
        r"earliest must lie in \(0, 1\)",
    ),
    "times of no process": (lambda: ANY.train.uniform_times(1.0), "process must be a Process"),
    "weights of another net": (
        lambda: training.with_state(NETWORK, nets.MLP(1, (5,)).state_dict()),
        "state must hold the weights of the network; got Error.s. in loading",
    ),
    "no weights of a net": (
        lambda: ANY.train.with_state(NETWORK, 3),
        "state must hold the weights",
    ),
    # losses
    "a word for a loss's model": (
        lambda: ANY.losses.simple("model", X, 1.0, X),
        "model must be a Model; got model",
    ),
    "an oracle to denoise": (
        lambda: losses.denoising(ON_CHAIN, X, 1.0, X),
        "model must be a Network",
    ),
    "noise that would spread": (
        lambda: losses.noised(CHAIN, np.zeros((3, 2)), 1.0, X),
        "noise must have the shape of x",
    ),
    "times that would spread": (
        lambda: losses.noised(CHAIN, X, np.ones((3, 1)), X),
        r"t must have shape \(3,\) as the points do; got shape \(3, 1\)",
    ),
    "noised by no process": (lambda: ANY.losses.noised("VP", X, 1.0, X), "process must be a Proc"),
    "the least loss of a word": (lambda: ANY.bounds.best_simple("o", 1.0), "oracle must be an Ora"),
    "the least loss at times": (
        lambda: ANY.bounds.best_simple(ON_CHAIN, np.ones(2)),
        r"t must have shape \(\)",
    ),
    "the least loss at a word": (lambda: ANY.bounds.best_simple(ON_CHAIN, "a"), "t must be an arr"),
    "variances of no chain": (
        lambda: ANY.bounds.variances(ds.VP()),
        "chain must be a Chain; got VP",
    ),
    "variances of a word": (
        lambda: ANY.bounds.variances(CHAIN, "beta"),
        r"mix must lie in \[0, 1\]; got beta",
    ),
    "a bound of a word": (lambda: ANY.bounds.bound("m", X, 0), "model must be a Model; got m"),
    "a best bound of a network": (
        lambda: ANY.bounds.best_bound(NETWORK),
        "oracle must be an Oracle",
    ),
    "a bound of integers": (
        lambda: bounds.bound(ON_CHAIN, np.zeros((3, 1), int), 0),
        "x0 must be floating-point points",
    ),
    "a bound of one point": (lambda: bounds.bound(ON_CHAIN, X[:1], 0), "x0 must be two or more"),
    "a bound of NaN": (lambda: bounds.bound(ON_CHAIN, X * NAN, 0), "x0 must be finite"),
    "a bound by NaN": (
        lambda: bounds.bound(Answers(np.full((3, 1), NAN)), X, 0),
        r"model must answer with a finite eps \(step 1\)",
    ),
    # metrics
    "a word for a metric's law": (
        lambda: ANY.metrics.wasserstein(X, "law", 0),
        "law must be a Target; got law",
    ),
    "KS against a word": (lambda: ANY.metrics.ks(X, "law", 0), "law must be a Target"),
    "modes of a word": (lambda: ANY.metrics.mode_weights(X, "a", 0), "law must be a GaussianMixt"),
    "responsibilities of a word": (
        lambda: ANY.metrics.responsibilities(X, "a"),
        "law must be a GaussianMixture",
    ),
    "orders": (lambda: ANY.metrics.wasserstein(X, LINE, 0, np.ones(2)), "p must be 1 or 2"),
    "half a repeat": (
        lambda: ANY.metrics.mmd(X, LINE, 0, repeats=2.5),
        "repeats must be a whole number of at least 0; got 2.5",
    ),
    "true repeats": (lambda: metrics.ks(X, LINE, 0, repeats=True), "repeats must be a whole"),
    "most of a fraction": (
        lambda: ANY.metrics.mmd(X, LINE, 0, most=2.5),
        "most must be a whole number of at least 2",
    ),
    "half a permutation": (
        lambda: ANY.metrics.mmd(X, LINE, 0, permutations=1.5),
        "permutations must be a whole number of at least 0",
    ),
    "half a direction": (
        lambda: ANY.metrics.sliced_wasserstein(X, LINE, 0, directions=2.5),
        "directions must be a whole number of at least 1; got 2.5",
    ),
    "a word for bandwidth": (
        lambda: ANY.metrics.mmd(X, LINE, 0, bandwidth="h"),
        "bandwidth must be a positive number; got h",
    ),
    "a score without its column": (
        lambda: metrics.fisher_error(Answers(np.zeros(50)), ORACLE, 0.5, 50, 0),
        r"model must answer with shape \(50, 1\); got a score of shape \(50,\)",
    ),
    "a score of NaN": (
        lambda: metrics.fisher_error(Answers(np.full((50, 1), NAN)), ORACLE, 0.5, 50, 0),
        "model must answer with a finite score at t = 0.5; got 50 rows",
    ),
    "a word for a score": (
        lambda: ANY.metrics.fisher_error("s", ORACLE, 0.5),
        r"model must have a function score\(x, t\); got s",
    ),
    "a score against a word": (
        lambda: ANY.metrics.fisher_error(ORACLE, "o", 0.5),
        "oracle must be an Oracle",
    ),
    "a score at half points": (
        lambda: ANY.metrics.fisher_error(ORACLE, ORACLE, 0.5, 2.5, 0),
        "n must be a whole number of at least 2",
    ),
    "a word for a density": (
        lambda: ANY.metrics.kl_on_grid("q", LINE),
        "log_density must be a function; got q",
    ),
    "a density against a word": (
        lambda: ANY.metrics.kl_on_grid(LINE.log_prob, "p"),
        "law must be a Target",
    ),
    "a density at half points": (
        lambda: ANY.metrics.kl_by_samples(LINE.log_prob, LINE, 2.5, 0),
        "n must be a whole number of at least 2",
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


def check_refusal(call: Callable[[], Any], words: str) -> None:
    """Assert that a call raises one ArgumentError of one sentence."""
    with pytest.raises(ds.ArgumentError, match=words) as caught:
        call()
    sentence = str(caught.value)
    assert " must " in sentence
    assert "; got " in sentence
    assert "\n" not in sentence
    assert len(sentence) < 300


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_named(case: str) -> None:
    check_refusal(*BAD[case])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x must be short; got 3"),
        ds.ArgumentError("x", "be short,\nor shorter", 3),
        ds.ArgumentError("x", "be " + "very " * 60 + "short", 3),
        ds.ArgumentError("y", "be short", 3),
        None,
    ],
    ids=["another class", "two lines", "a page", "another argument", "no error"],
)
def test_the_check_of_refusals_sees_wrong_ones(error: Exception | None) -> None:
    def refuse(with_error: Exception | None) -> None:
        if with_error is not None:
            raise with_error

    check_refusal(
        lambda: refuse(ds.ArgumentError("x", "be short", "a\nb")), "^x must be short; got a b"
    )
    with pytest.raises((AssertionError, ValueError, pytest.fail.Exception)):
        check_refusal(lambda: refuse(error), "^x must be")


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
    assert ANY.VP(np.float32(0.5), 3).alpha(1.0) > 0
    assert ANY.Chain.polynomial(np.int64(4), 2.5).K == 4
    assert ANY.bounds.variances(CHAIN, np.array(0.5)).shape == (10,)
    assert run(samplers.ddim, ON_CHAIN, [[0.0]], [1, 0], clip=np.float32(3)).shape == (1, 1)
    assert run(samplers.forward, CHAIN, X[:0], [0, 1], 0).shape == (0, 1)
    assert NETWORK.x0(np.ones((3, 1))[::-1], np.full(3, 0.5)[::-1]).shape == (3, 1)
    assert NETWORK.x0(np.ones((3, 1), ">f4"), 0.5).dtype == np.float32
    assert fit(snapshots=(np.int64(1),), seed=-1).snapshots.keys() == {1}
    half: Any = ds.Transition(1.0, np.ones(3)).apply(X, X)
    assert half.shape == (3, 1)


def test_an_answer_without_bound_is_clipped() -> None:
    """eps at alpha = 0 leaves x0 = +-infinity: a bound on x0 makes a finite step of it."""
    model = Answers(np.full((3, 1), INF), ds.Cosine())
    end = run(samplers.ddim, model, X, [1.0, 0.5], clip=2.0)
    np.testing.assert_allclose(end, 2.0 * ds.Cosine().alpha(0.5))
    with pytest.raises(ds.ArgumentError, match="finite x0 at t = 1"):
        run(samplers.ddim, model, X, [1.0, 0.5])


def test_derivatives_pass_the_checks() -> None:
    """torch.func and autograd through a step of noise, a network and a sampler."""
    noise = torch.ones(3, 1, dtype=torch.float64)
    x = torch.zeros(3, 1, dtype=torch.float64)
    by_row = torch.func.vmap(torch.func.grad(lambda a: losses.noised(CHAIN, a, 3.0, a).sum()))(x)
    step: Any = CHAIN.at(3.0)
    torch.testing.assert_close(by_row, torch.full_like(x, step.scale + math.sqrt(step.var)))
    slopes = torch.func.vmap(torch.func.jacfwd(lambda a: NETWORK.x0(a, 0.5)))(x)
    assert slopes.shape == (3, 1, 1)
    through = torch.func.grad(lambda a: run(samplers.ddim, ON_CHAIN, a, [3, 0]).sum())(noise)
    assert bool((through != 0).all())
