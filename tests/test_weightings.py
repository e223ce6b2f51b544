"""Weightings: each against its paper's formula, and one loss whatever a network predicts.

The least value of every weighted loss against simulation, and the weight of the bound against the
bounds of chains, which are made of divergences of Gaussians. Statistical tests have |z| < 4.9 (1e-6
two-sided) and a stated seed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import bounds, gallery, losses, nets, testing, variances, weightings
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.network import PREDICTIONS, Coefficients, Network

PROCESSES = testing.processes(20)
CONTINUOUS = {name: p for name, p in PROCESSES.items() if not isinstance(p, ds.Chain)}
CHAINS = {name: p for name, p in PROCESSES.items() if isinstance(p, ds.Chain)}
IN_TIME = {"velocity", "likelihood"}  # want a derivative
FRACTIONS = np.array([0.05, 0.2, 0.5, 0.8, 0.95])
LIMIT = 4.9
LAW = gallery.julia_bimodal()

weights = pytest.mark.parametrize("name", weightings.ALL)
processes = pytest.mark.parametrize("process", PROCESSES)
continuous = pytest.mark.parametrize("process", CONTINUOUS)
predictions = pytest.mark.parametrize("predicts", PREDICTIONS)


def pairs() -> list[Any]:
    """Every weighting with every process that it takes."""
    return [
        pytest.param(name, process, id=f"{name}-{process}")
        for name in weightings.ALL
        for process in PROCESSES
        if process in CONTINUOUS or name not in IN_TIME
    ]


every_pair = pytest.mark.parametrize(("name", "process"), pairs())


# ---------------------------------------------------------------- formulas

# On x0 or on the score as the papers have them; a, s2, g2 numbers (m,), w the weight there.
ON_X0: dict[str, Callable[..., Any]] = {
    "x0": lambda a, s2: 1.0 + 0 * a,
    "edm": lambda a, s2: (s2 / a**2 + 0.25) / (s2 / a**2 * 0.25),  # sigma = s/a, sigma_data = 1/2
    "min_snr": lambda a, s2: np.minimum(a**2 / s2, 5.0),
    "truncated_snr": lambda a, s2: np.maximum(a**2 / s2, 1.0),
}
ON_EPS: dict[str, Callable[..., Any]] = {
    "simple": lambda a, s2: 1.0 + 0 * a,
    "score": lambda a, s2: 1 / s2,
    "v": lambda a, s2: (a + s2 / a) ** 2,
    "p2": lambda a, s2: 1 / (1 + a**2 / s2),
}
IN_SPEED: dict[str, Callable[..., Any]] = {  # g^2 from the SDE
    "likelihood": lambda a, s2, g2: g2 / s2,
    "velocity": lambda a, s2, g2: g2**2 / (4 * s2),
    "bound": lambda a, s2, g2: g2 / (2 * s2),
    "sigmoid": lambda a, s2, g2: g2 / (2 * s2) / (1 + np.exp(np.log(a**2 / s2) - 2)),
}


@every_pair
def test_every_weight_is_its_formula(name: str, process: str) -> None:
    path = PROCESSES[process]
    t = testing.times(path, FRACTIONS)
    a, s2 = path.alpha(t), path.var(t)
    if name in ON_X0:
        wanted = ON_X0[name](a, s2) * s2 / a**2  # |x0 error|^2 = (s/a)^2 |eps error|^2
    elif name in ON_EPS:
        wanted = ON_EPS[name](a, s2)
    elif process in CONTINUOUS:
        wanted = IN_SPEED[name](a, s2, path.diffusion(t) ** 2)
    else:
        r = path.log_snr(t)
        wanted = weightings.bound(path, t) / (1 + np.exp(r - 2) if name == "sigmoid" else 1)
    found = weightings.ALL[name](path, t)
    np.testing.assert_allclose(found, wanted, rtol=1e-11)
    assert np.all(np.abs(1.05 * found / wanted - 1) > 0.04)


def test_every_weighting_is_in_the_table() -> None:
    own = {
        n
        for n, f in inspect.getmembers(weightings, inspect.isfunction)
        if f.__module__ == weightings.__name__
        and [*inspect.signature(f).parameters][:2] == ["process", "t"]
        and n[0] != "_"
    }
    assert own - {"inside"} == set(weightings.ALL)
    assert set(ON_X0) | set(ON_EPS) | set(IN_SPEED) == set(weightings.ALL)


@continuous
def test_the_likelihood_weight_is_twice_the_bound_and_minus_the_slope_of_log_snr(
    process: str,
) -> None:
    """-d log SNR/dt by central differences of order 8; half of it is the twin."""
    path = CONTINUOUS[process]
    t, h = FRACTIONS * path.T, 2e-3 * path.T
    slope = sum(
        c * (path.log_snr(t + j * h) - path.log_snr(t - j * h)) / h
        for j, c in enumerate((4 / 5, -1 / 5, 4 / 105, -1 / 280), 1)
    )
    weight = weightings.likelihood(path, t)
    np.testing.assert_allclose(weight, -slope, rtol=1e-7)
    np.testing.assert_allclose(weight, 2 * weightings.bound(path, t), rtol=1e-14)


@predictions
@continuous
def test_uniform_weights_are_those_of_the_predictions(predicts: str, process: str) -> None:
    """Weight 1 on a prediction is the square of d prediction/d eps at a given x."""
    path, d = CONTINUOUS[process], 0.5
    t = torch.as_tensor(FRACTIONS * path.T)
    one = torch.ones(5, 1, dtype=torch.float64)
    c = Coefficients(path, one, t, d)
    rise = PREDICTIONS[predicts].target(-c.sigma / c.alpha, one, c)[:, 0]  # x stays where it is
    name = {"eps": "simple", "scaled_score": "simple"}.get(predicts, predicts)
    found = weightings.ALL[name](path, t)
    torch.testing.assert_close(found, rise**2, rtol=1e-10, atol=0.0)
    net = Network(nets.MLP(1, widths=(4,)), path, predicts, sigma_data=d)
    torch.testing.assert_close(net.slope(one, t)[:, 0], 1 / rise, rtol=1e-10, atol=0.0)


def test_numbers_of_a_weight_are_set_by_partial_application() -> None:
    t = np.array([0.1, 0.5, 0.9])
    snr = ds.VP().alpha(t) ** 2 / ds.VP().var(t)
    for found, wanted in (
        (weightings.min_snr(ds.VP(), t, gamma=1.0), np.minimum(snr, 1) / snr),
        (weightings.p2(ds.VP(), t, k=2.0, gamma=0.5), (2 + snr) ** -0.5),
        (weightings.edm(ds.VP(), t, sigma_data=2.0), 1 + 1 / (4 * snr)),
        (
            weightings.sigmoid(ds.VP(), t, bias=-1.0),
            weightings.bound(ds.VP(), t) / (1 + snr * math.e),
        ),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@every_pair
def test_kinds_of_numbers(name: str, process: str) -> None:
    """Numbers, arrays and tensors of every dtype are answered in float64, shape kept, alike."""
    path, weight = PROCESSES[process], weightings.ALL[name]
    t = testing.times(path, FRACTIONS)
    found = weight(path, t)
    assert found.dtype == np.float64
    assert found.shape == t.shape
    assert float(weight(path, float(t[1]))) == pytest.approx(found[1], rel=1e-13)
    tensor = weight(path, torch.as_tensor(t))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), found, rtol=1e-11)
    single = weight(path, torch.as_tensor(t, dtype=torch.float32))
    assert single.dtype == torch.float64  # its range is wider than that of single precision
    np.testing.assert_allclose(
        single.numpy(), weight(path, t.astype(np.float32).astype(float)), rtol=1e-11
    )
    assert weight(path, t[:4].reshape(2, 2)).shape == (2, 2)
    strict = array_api_strict.asarray(t)
    assert type(weight(path, strict)) is type(strict)


# ---------------------------------------------------------------- the weight of the bound


@pytest.mark.parametrize("process", CHAINS)
@pytest.mark.parametrize("mix", [0.0, 0.4, 1.0])
def test_the_weight_of_a_chain_gives_the_bound(process: str, mix: float) -> None:
    """Kingma et al. 2021, eq. 12: (SNR(k-1)/SNR(k) - 1)/2; and the sum with the least losses."""
    chain: Any = CHAINS[process]
    k = np.arange(1, chain.K + 1)
    found = weightings.bound(chain, k, mix)
    snr = chain.alpha(k) ** 2 / chain.var(k)
    small = weightings.bound(chain, k[1:], 0.0)
    np.testing.assert_allclose(small, 0.5 * (snr[:-1] / snr[1:] - 1), rtol=1e-9)
    ratio = chain.variances(0.0)[1:] / chain.variances(mix)[1:]
    np.testing.assert_allclose(found[1:], small * ratio, rtol=1e-12)
    oracle = Oracle(LAW, chain)
    model = found * weightings.best(oracle, k)
    other = found * weightings.best(oracle, k) * 1.05
    s2 = chain.variances(mix)
    r = chain.variances(0.0)[1:] / s2[1:]
    free = np.append(0.5 * math.log(2 * math.pi * s2[0]), 0.5 * (r - 1 - np.log(r)))
    terms = bounds.best_bound(oracle, mix=mix).terms[:-1]
    np.testing.assert_allclose(model + free, terms, rtol=1e-9, atol=1e-12)
    assert np.abs(other + free - terms).max() > 1e-3


def test_fine_chains_come_to_the_integral_over_time() -> None:
    """L_between of K steps on [t_1, T] tends to the integral of bound(t) times the least loss.

    The difference is halved with each doubling of K (0.50 +- 0.03), and extrapolated twice it is
    0 to 2e-4 of the integral; the twin with a weight 1 % too large is not.
    """
    process, first = ds.VP(), 0.02
    oracle = Oracle(LAW, process)
    u, w = np.polynomial.legendre.leggauss(40)
    low, high = math.log(first), 0.0  # even in log t
    t = np.exp(0.5 * (high - low) * (u + 1) + low)
    t, w = np.minimum(t, 1.0), 0.5 * (high - low) * w * t
    integral = float(np.sum(w * weightings.best(oracle, t, weightings.bound)))
    gaps = []
    for K in (33, 65, 129):
        times = np.concatenate([[0.0], np.exp(np.linspace(low, high, K))])
        chain = ds.Chain.of(process, times)
        gaps.append(bounds.best_bound(Oracle(LAW, chain)).L_between - integral)
    assert abs(gaps[1] / gaps[0] - 0.5) < 0.03
    assert abs(gaps[2] / gaps[1] - 0.5) < 0.03
    limit = (8 * gaps[2] - 6 * gaps[1] + gaps[0]) / 3
    assert abs(limit) < 2e-4 * integral
    assert abs(limit - 0.01 * integral) > 2e-4 * integral


# ---------------------------------------------------------------- one loss for every prediction


class Exact(torch.nn.Module):
    """The exact prediction where x0 and eps are those given; `factor` makes a wrong twin of it."""

    def __init__(self, given: tuple[Any, Any], model: Any, factor: float = 1.0) -> None:
        super().__init__()
        self.given, self.model, self.factor = given, model, factor

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        target = PREDICTIONS[self.model.predicts].target
        return self.factor * target(*self.given, self.model.coefficients(x, t))


def network(
    path: ds.Process, predicts: str, given: tuple[Any, Any], factor: float = 1.0
) -> Network:
    model = Network(torch.nn.Identity(), path, predicts, lambda t: t, sigma_data=0.7)
    return model.with_net(Exact(given, model, factor))


@every_pair
def test_one_loss_through_every_prediction(name: str, process: str) -> None:
    """The oracle's weighted loss to 1e-10 whatever is predicted; 2 % off in a prediction shows."""
    path, weight = PROCESSES[process], weightings.ALL[name]
    oracle, random = Oracle(gallery.julia_trimodal(), path), np.random.default_rng(0)
    t = torch.as_tensor(testing.times(path, FRACTIONS))
    x0 = torch.as_tensor(oracle.law.sample(len(t), random))
    noise = torch.as_tensor(random.standard_normal((len(t), 2)))
    x = losses.noised(path, x0, t, noise)
    given = oracle.x0(x, t), oracle.eps(x, t)
    wanted = weight(path, t) * ((given[1] - noise) ** 2).sum(dim=-1)
    torch.testing.assert_close(
        losses.weighted(oracle, x0, t, noise, weight), wanted, rtol=1e-12, atol=0.0
    )
    for predicts in PREDICTIONS:
        if predicts == "velocity" and process in CHAINS:
            continue
        found, twin = (
            losses.weighted(network(path, predicts, given, factor), x0, t, noise, weight)
            for factor in (1.0, 1.02)
        )
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=0.0)
        assert float((twin / wanted - 1).abs().max()) > 1e-4, predicts


def test_weighted_losses_that_have_names() -> None:
    """simple, denoising and the score's loss under g^2, and through a network's gradient."""
    path = ds.VP()
    net = nets.MLP(2, widths=(8,), seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((6, 2), generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    for predicts in PREDICTIONS:
        model = Network(net, path, predicts, sigma_data=0.5)
        same = losses.weighted(model, x0, t, noise)
        torch.testing.assert_close(same, losses.simple(model, x0, t, noise), rtol=1e-9, atol=0)
        own = {"eps": "simple", "scaled_score": "simple"}.get(predicts, predicts)
        found = losses.weighted(model, x0, t, noise, weightings.ALL[own])
        wanted = losses.denoising(model, x0, t, noise)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=0)
        by_score = losses.score_denoising(
            model, x0, t, noise, lambda process, t: process.diffusion(t) ** 2
        )
        found = losses.weighted(model, x0, t, noise, weightings.likelihood)
        torch.testing.assert_close(found, by_score, rtol=1e-9, atol=0)
        slopes = [
            torch.autograd.grad(rows.mean(), list(net.parameters())) for rows in (found, by_score)
        ]
        for one, other in zip(*slopes):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_networks_side_by_side() -> None:
    """Under torch.func.vmap every member has the rows that it has alone; another one's differ."""
    members = [nets.MLP(2, widths=(8,), seed=seed, outputs=4) for seed in range(3)]
    parameters, _ = torch.func.stack_module_state(members)
    chain = ds.Chain.linear(6, 0.05, 0.6)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn((8, 2), generator=generator) for _ in range(2))
    k = torch.randint(1, 7, (8,), generator=generator)

    class Held(torch.nn.Module):
        def __init__(self, parameters: Any) -> None:
            super().__init__()
            self.held = parameters

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(members[0], self.held, (x, t))

    for loss in (
        losses.weighted,
        partial(losses.weighted, weight=weightings.bound),
        variances.hybrid,
    ):
        model = Network(members[0], chain, "v", variance=True)
        rows = torch.func.vmap(lambda p: loss(model.with_net(Held(p)), x0, k, noise))(parameters)  # noqa: B023
        alone = torch.stack([loss(model.with_net(net), x0, k, noise) for net in members])
        torch.testing.assert_close(rows, alone, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(rows, alone.roll(1, 0), rtol=1e-2)


# ---------------------------------------------------------------- the ends of time


@predictions
@continuous
def test_rows_at_the_ends_of_time_in_single_precision(predicts: str, process: str) -> None:
    """Finite from 0 to T, and those of float64, wherever those are below 1e30.

    One network in both precisions; rounding of x by 6e-8 is all that differs, so rows agree to
    1e-3. Where float64 stays finite as t falls to 0 the row at 0 itself is that limit.
    """
    path = CONTINUOUS[process]
    shares = torch.tensor([0.0, 1e-15, 1e-9, 1e-5, 1e-3, 0.1, 0.9, 1 - 1e-9, 1.0]).double()
    generator = torch.Generator().manual_seed(1)
    x0, noise = (
        torch.randn((1, 2), generator=generator, dtype=torch.float64).expand(len(shares), 2)
        for _ in range(2)
    )
    wide, single = (
        Network(net, path, predicts, sigma_data=0.5)
        for net in (nets.MLP(2, (8,), (), seed=2).double(), nets.MLP(2, (8,), (), seed=2))
    )
    t = shares * path.T
    for name, weight in weightings.ALL.items():
        with torch.no_grad():
            rows = losses.weighted(wide, x0, t, noise, weight)
            short = losses.weighted(single, x0.float(), t, noise.float(), weight)
        assert short.dtype == torch.float32
        assert bool(torch.isfinite(rows).all()), name
        small = rows < 1e30
        torch.testing.assert_close(short[small].double(), rows[small], rtol=1e-3, atol=1e-30)
        if rows[1] < 1e3 and rows[2] < 1e3:
            torch.testing.assert_close(rows[0], rows[1], rtol=1e-3, atol=1e-6)


def test_limits_of_weights_at_the_ends() -> None:
    """0 and infinity, as they come: some limits of the rectified flow, SNR = ((1 - t)/t)^2."""
    path = ds.RectifiedFlow()
    for name, start, end in (
        ("simple", 1.0, 1.0),
        ("x0", 0.0, math.inf),
        ("score", math.inf, 1.0),
        ("v", 1.0, math.inf),
        ("velocity", 1.0, math.inf),
        ("p2", 0.0, 1.0),
        ("min_snr", 0.0, 1.0),
        ("truncated_snr", 1.0, math.inf),
        ("edm", 1.0, math.inf),
    ):
        for t, limit in ((0.0, start), (1.0, end)):
            found = float(weightings.ALL[name](path, t))
            assert math.isfinite(found)
            assert found > 1e30 if limit == math.inf else found == pytest.approx(limit, abs=1e-15)


# ---------------------------------------------------------------- the least value


@pytest.mark.parametrize("name", ["simple", "likelihood", "edm", "x0"])
@pytest.mark.parametrize("law", [LAW, gallery.julia_trimodal()])
def test_the_least_loss_is_the_mean_of_the_oracles(name: str, law: Any) -> None:
    """Seed 3, 50,000 points at each time; the twin is 10 % off."""
    oracle, random, weight = Oracle(law, ds.VP()), np.random.default_rng(3), weightings.ALL[name]
    times = np.array([0.05, 0.3, 0.7])
    for t, least in zip(times, weightings.best(oracle, times, weight), strict=True):
        x0 = law.sample(50_000, random)
        rows = losses.weighted(oracle, x0, t, random.standard_normal(x0.shape), weight)
        error = rows.std() / math.sqrt(len(rows))
        assert abs(rows.mean() - least) < LIMIT * error
        assert abs(rows.mean() - 1.1 * least) > LIMIT * error


def test_the_excess_of_a_model_is_the_weighted_error_of_its_eps() -> None:
    """Seed 4: mean loss - least loss is w E|eps - eps_model|^2 by quadrature; the twin lacks w."""

    class Off(Oracle):
        def eps(self, x: Any, t: Any) -> Any:
            return 1.5 * super().eps(x, t)

    random, t, weight = np.random.default_rng(4), 0.3, weightings.likelihood
    oracle, model = Oracle(LAW, ds.VP()), Off(LAW, ds.VP())
    x, w = oracle.at(t).quadrature()
    excess = float(w @ np.sum((model.eps(x, t) - oracle.eps(x, t)) ** 2, axis=-1))
    x0 = LAW.sample(200_000, random)
    rows = losses.weighted(model, x0, t, random.standard_normal(x0.shape), weight)
    rows = rows - weightings.best(oracle, [t], weight)[0]
    error = rows.std() / math.sqrt(len(rows))
    assert abs(rows.mean() - weight(ds.VP(), t) * excess) < LIMIT * error
    assert abs(rows.mean() - excess) > LIMIT * error


# ---------------------------------------------------------------- bad input


def test_bad_arguments_are_refused() -> None:
    wrong: Any = losses
    other: Any = weightings
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: weightings.min_snr(ds.VP(), 0.5, gamma=0.0), "gamma must be a positive number"),
        (lambda: weightings.p2(ds.VP(), 0.5, k=0.0), "k must be a positive number"),
        (lambda: weightings.p2(ds.VP(), 0.5, gamma=-1.0), "gamma must be a number of at least 0"),
        (lambda: weightings.edm(ds.VP(), 0.5, sigma_data=0.0), "sigma_data must be a positive"),
        (lambda: weightings.sigmoid(ds.VP(), 0.5, bias=math.inf), "bias must be a finite number"),
        (lambda: weightings.bound(ds.Chain.linear(4), 1.0, mix=2.0), r"mix must lie in \[0, 1\]"),
        (lambda: weightings.simple(ds.Chain.linear(4), 0.0), "t must lie where the process has"),
        (lambda: weightings.simple(ds.Chain.linear(4), 1.5), "t must be a whole number of steps"),
        (lambda: weightings.simple(ds.VP(), 2.0), r"t must lie in \[0, 1\]"),
        (lambda: weightings.likelihood(ds.Chain.linear(4), 1.0), "process must be continuous"),
        (lambda: other.simple("VP", 0.5), "process must be a Process"),
        (lambda: weightings.best(Oracle(LAW, ds.VP()), 0.5), r"t must have shape \(any\)"),
        (lambda: other.best("o", [0.5]), "oracle must be an Oracle"),
        (
            lambda: wrong.weighted(Oracle(LAW, ds.VP()), np.zeros((3, 1)), 0.5, np.ones((3, 1)), 2),
            "weight must be a function; got 2",
        ),
    ]
    for call, words in calls:
        with pytest.raises(ArgumentError, match=words):
            call()
