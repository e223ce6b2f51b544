"""Networks side by side: each is what it is alone, in its answers and in its training.

The measure of every training here is `train.train` of one network by itself: same points, noise and
times, so that float64 networks agree to rounding after hundreds of steps. What a mistake costs is
shown by wrong twins, in which members get each other's seeds or gradients.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import divergences, ensembles, gallery, losses, nets, samplers, solvers
from diffscience.ensembles import Ensemble, together
from diffscience.errors import ArgumentError
from diffscience.likelihood import log_prob
from diffscience.network import PREDICTIONS, Network
from diffscience.noise import Noise
from diffscience.train import History, State, train, uniform_times

ANSWERS = ("x0", "eps", "score", "v", "velocity")
LAW = gallery.two_moons()
LAWS = {
    "curve": LAW,
    "mixture": gallery.eight_gaussians(),
    "rings": gallery.rings([1.0, 2.0], [0.5, 0.5], 0.1),
    "boxes": gallery.checkerboard(),
    "points": torch.as_tensor(LAW.sample(300, 0)),
}
EXACT = 1e-10  # of float64 networks; found: 1e-15


def mlp(seed: int, dim: int = 2, widths: tuple[int, ...] = (12, 10), **options: Any) -> nets.MLP:
    return nets.MLP(dim, widths, seed=seed, **options).double()


def crowd(size: int = 4, predicts: str = "eps", **options: Any) -> list[Network]:
    return [Network(mlp(k, **options), ds.VP(), predicts) for k in range(size)]


def quiet(steps: Iterable[int]) -> Iterable[int]:
    return steps


def run(networks: Any = None, data: Any = LAW, **options: Any) -> tuple[Any, list[History]]:
    """The networks, trained together, and their histories."""
    networks = crowd() if networks is None else networks
    seeds = [10 + k for k in range(np.size(networks))]
    given = {"steps": 30, "seeds": seeds, "batch": 16, "rate": 3e-3}
    return networks, together(networks, data, **{**given, "progress": quiet, **options})


def alone(network: Network, data: Any = LAW, **options: Any) -> tuple[Network, History]:
    given = {"steps": 30, "batch": 16, "rate": 3e-3, "progress": quiet}
    return network, train(network, data, **{**given, **options})


def weights(network: Network) -> State:
    return {name: value.detach().clone() for name, value in network.net.state_dict().items()}


def apart(one: State | None, other: State | None) -> float:
    """The largest difference of two sets of weights under the same names in the same order."""
    assert one is not None and other is not None
    assert list(one) == list(other)
    return max(float((one[name] - other[name]).abs().max()) for name in one if one[name].numel())


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---------------------------------------------------------------- answers


def over(networks: list[Network]) -> Network:
    first = networks[0]
    members: Any = [network.net for network in networks]
    return Network(Ensemble(members), first.process, first.predicts, first.time)


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("dim", [1, 2])
def test_a_network_over_an_ensemble_is_its_members(predicts: str, dim: int) -> None:
    """Every answer, for one time and for one a point, as tensor, rows and array."""
    networks = crowd(3, predicts, dim=dim)
    model, x = over(networks), normal(3, 5, dim)
    t = torch.linspace(0.1, 0.9, 15, dtype=torch.float64).reshape(3, 5)
    for answer in ANSWERS:
        ask = getattr(model, answer)
        for when in (0.4, t):
            parts = [
                getattr(network, answer)(x[k], when if isinstance(when, float) else when[k])
                for k, network in enumerate(networks)
            ]
            wanted = torch.stack(parts)
            torch.testing.assert_close(ask(x, when), wanted, rtol=1e-12, atol=1e-13)
            rows = ask(x.flatten(0, 1), when if isinstance(when, float) else when.flatten())
            torch.testing.assert_close(rows, wanted.flatten(0, 1), rtol=1e-12, atol=1e-13)
        found = ask(x.numpy(), 0.4)
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, ask(x, 0.4).detach(), rtol=1e-12)
        # The wrong twin: members taking turns along the rows.
        turns = ask(x.transpose(0, 1).reshape(3, 5, dim), 0.4).reshape(5, 3, dim).transpose(0, 1)
        assert not torch.allclose(turns, ask(x, 0.4), atol=1e-2)


def test_an_ensemble_has_the_features_and_the_time_of_its_members() -> None:
    """Frequencies of each member's own, none at all, and what the network sees of t."""
    own = [nets.MLP(2, (6,), (f, 2 * f), seed=3).double() for f in (0.5, 3.0)]
    bare = [nets.MLP(2, (6,), (), seed=k).double() for k in range(2)]
    x = normal(2, 4, 2)
    for members in (own, bare):
        networks = [Network(net, ds.EDM(), "x0", time=torch.log1p) for net in members]
        found = over(networks).x0(x, 3.0)
        for k, network in enumerate(networks):
            torch.testing.assert_close(found[k], network.x0(x[k], 3.0), rtol=1e-12, atol=1e-13)
    assert not torch.allclose(Ensemble(own)(x[0], x[0, :, 0])[:2], own[1](x[0], x[0, :, 0])[:2])


def test_members_and_parts_are_copies() -> None:
    members = [mlp(k) for k in range(4)]
    net = Ensemble(members)
    assert (net.members, net.size) == (4, 4)
    for k, member in enumerate(members):
        got = net.member(k)
        assert type(got) is nets.MLP
        assert apart(got.state_dict(), member.state_dict()) == 0
        assert apart(net.state(k), member.state_dict()) == 0
    part = net.part(1, 3)
    assert [apart(part.state(k), net.state(k + 1)) for k in range(2)] == [0, 0]
    before = net.state(1)
    with torch.no_grad():
        for parameter in (*net.member(1).parameters(), *part.parameters()):
            parameter.add_(1.0)
        for state in (net.state(1), members[1].state_dict()):
            for value in state.values():
                value.add_(0.0)
    assert apart(net.state(1), before) == 0
    assert apart(part.state(0), before) > 0.9
    single = nets.MLP(1, (1,), (), seed=0)  # its transposed weights share the layout
    one = Ensemble([single])
    one.state(0)["out.weight"].add_(1.0)
    assert apart(one.state(0), single.state_dict()) == 0


def test_no_points_have_no_answers() -> None:
    model = over(crowd(3))
    assert model.score(torch.zeros(3, 0, 2, dtype=torch.float64), 0.5).shape == (3, 0, 2)


def test_the_second_derivative_goes_through() -> None:
    """Losses that differentiate in x, and then in the weights."""
    networks = crowd(2)
    model, x = over(networks), normal(2, 6, 2)
    t = torch.full((6,), 0.5, dtype=torch.float64)
    rows = losses.implicit(lambda y: model.score(y, torch.cat([t, t])), x.flatten(0, 1))
    rows.sum().backward()
    for k, network in enumerate(networks):
        own = losses.implicit(lambda y, n=network: n.score(y, t), x[k])  # type: ignore[misc]
        torch.testing.assert_close(rows[6 * k : 6 * (k + 1)], own, rtol=1e-10, atol=1e-12)
        own.sum().backward()
        one: Any = network.net
        slope = model.net.get_parameter("weights.1").grad
        assert slope is not None
        torch.testing.assert_close(slope[k], one.hidden[1].weight.grad.T, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- samplers, solvers and metrics


class Slices:
    """Noise (S, n, D) of each step, or member k's of it, as samplers take a noise object."""

    def __init__(self, size: int, k: int | None = None) -> None:
        self.size, self.k, self.step = size, k, 0

    def normal(self, *shape: int) -> torch.Tensor:
        self.step += 1
        whole = shape if self.k is None else (self.size, *shape)
        generator = torch.Generator().manual_seed(self.step)
        z = torch.randn(whole, generator=generator, dtype=torch.float64)
        return z if self.k is None else z[self.k]

    def area(self, *shape: int) -> torch.Tensor:
        raise AssertionError("no sampler asks for it")


@pytest.mark.parametrize("name", samplers.ALL)
def test_every_sampler_runs_all_members_at_once(name: str) -> None:
    networks, start = crowd(3, "v"), normal(3, 6, 2)
    times = np.linspace(1.0, 0.05, 6)
    sampler = samplers.ALL[name].run
    found = samplers.last(sampler(over(networks), start, times, Slices(3)))
    for k, network in enumerate(networks):
        own = samplers.last(sampler(network, start[k], times, Slices(3, k)))
        torch.testing.assert_close(found[k], own, rtol=1e-9, atol=1e-10)
    assert not torch.allclose(
        found[0], samplers.last(sampler(networks[1], start[0], times, Slices(3, 0)))
    )


class Rows(Noise):
    """The numbers of `Slices` for rows (S n, D), or for member k's."""

    def __init__(self, size: int, n: int, k: int | None = None) -> None:
        super().__init__(n if k is not None else size * n, 2, torch.float64, "cpu")
        self.source, self.size = Slices(size, k), size

    def _next(self, area: bool) -> torch.Tensor:
        shape = (self.n, 2) if self.source.k is not None else (self.size, self.n // self.size, 2)
        return self.source.normal(*shape).reshape(self.n, 2)


def test_solvers_and_likelihoods_run_all_members_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in blocks, and never in chunks, which would be taken for other members' rows."""
    monkeypatch.setattr(solvers, "CHUNK", solvers.BLOCK)
    networks, n = crowd(3, "v", widths=(6,)), 2000
    model, start = over(networks), normal(3, n, 2)
    rows = start.flatten(0, 1)
    assert len(rows) > solvers.BLOCK
    down, up = np.linspace(1.0, 0.2, 4), [0.1, 1.0]
    found = {
        "reverse": solvers.reverse(model, rows, down, Rows(3, n)).last,
        "flow": solvers.flow(model, rows, down, method="rk4").last,
        "adaptive": solvers.flow(model, rows, down, rtol=1e-8, atol=1e-8).last,
        "likelihood": log_prob(model, rows, start=0.1, method="rk4", steps=2).log_prob,
    }
    for k, network in enumerate(networks):
        own = {
            "reverse": solvers.reverse(network, start[k], down, Rows(3, n, k)).last,
            "flow": solvers.flow(network, start[k], down, method="rk4").last,
            "adaptive": solvers.flow(network, start[k], down, rtol=1e-8, atol=1e-8).last,
            "likelihood": log_prob(network, start[k], start=0.1, method="rk4", steps=2).log_prob,
        }
        for name, value in own.items():
            block = found[name][k * n : (k + 1) * n]
            np.testing.assert_allclose(block, value, atol=1e-6 if name == "adaptive" else 1e-10)
    for cut in (
        lambda: solvers.flow(model, rows, up, chunk=solvers.BLOCK),
        lambda: solvers.reverse(model, rows, down, 0, chunk=solvers.BLOCK),
        lambda: log_prob(ds.Counted(model), rows, chunk=3000),
    ):
        with pytest.raises(ArgumentError, match="chunk must be a whole number of at least 6000"):
            cut()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("n", [None, 500])
def test_the_fisher_error_of_all_members_at_once(
    n: int | None, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(T, S) for times (T,), (S,) for one, by quadrature and by Monte Carlo on common points."""
    monkeypatch.setattr(divergences, "ROWS", divergences.BLOCK // 700)  # several blocks
    networks = crowd(3, dim=1)
    oracle = ds.Oracle(gallery.julia_bimodal(), ds.VP())
    model = ds.Counted(over(networks))
    options: Any = {"n": n, "generator": None if n is None else 5, "relative": relative}
    found = ds.metrics.fisher_error(model, oracle, [0.3, 0.8], **options)
    single = ds.metrics.fisher_error(model, oracle, 0.3, **options)
    assert found.value.shape == found.error.shape == found.floor.shape == (2, 3)
    assert single.value.shape == (3,)
    for k, network in enumerate(networks):
        own = ds.metrics.fisher_error(network, oracle, [0.3, 0.8], **options)
        np.testing.assert_allclose(found.value[:, k], own.value, rtol=1e-10)
        np.testing.assert_allclose(found.error[:, k], own.error, rtol=1e-8)
        np.testing.assert_allclose(single.value[k], own.value[0], rtol=1e-10)
    assert len(set(found.value[0])) == 3
    assert ds.metrics.fisher_error(networks[0], oracle, [], **options).value.shape == (0,)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("data", LAWS)
def test_networks_trained_together_are_those_trained_alone(data: str) -> None:
    """300 steps in float64, with a falling rate and an average; 50 on points of other families."""
    steps = 300 if data == "curve" else 50
    options: Any = {"steps": steps, "final_rate": 1e-4, "ema": 0.98, "batch": 20}
    networks, found = run(crowd(3), LAWS[data], **options)
    for k, network in enumerate(crowd(3)):
        start = weights(network)
        _, own = alone(network, LAWS[data], seed=10 + k, **options)
        np.testing.assert_allclose(found[k].losses, own.losses, rtol=EXACT)
        assert apart(weights(networks[k]), weights(network)) < EXACT
        assert apart(found[k].ema, own.ema) < EXACT
        assert apart(weights(network), start) > 0.05
        assert not found[k].interrupted and found[k].snapshots == {}


def test_float32_networks_agree_to_their_rounding() -> None:
    """After 300 steps to 1e-5 of weights of size 1: a rounding of 6e-8 a step, hardly amplified."""
    single = [Network(nets.MLP(2, (12, 10), seed=k), ds.VP()) for k in range(6)]
    networks, found = run(single[:3], steps=300, final_rate=1e-4)
    for k, network in enumerate(single[3:]):
        network.net = nets.MLP(2, (12, 10), seed=k)
        _, own = alone(network, seed=10 + k, steps=300, final_rate=1e-4)
        assert apart(weights(networks[k]), weights(network)) < 1e-5
        np.testing.assert_allclose(found[k].losses, own.losses, rtol=1e-4)
        assert weights(networks[k])["out.weight"].dtype == torch.float32


def test_neither_company_nor_order_matters() -> None:
    everyone, found = run(crowd(4), steps=100)
    for chosen in ([2], [3, 1], [3, 2, 1, 0]):
        some = [crowd(4)[k] for k in chosen]
        _, own = run(some, steps=100, seeds=[10 + k for k in chosen])
        for place, k in enumerate(chosen):
            assert apart(weights(some[place]), weights(everyone[k])) < EXACT
            np.testing.assert_allclose(own[place].losses, found[k].losses, rtol=EXACT)


def test_members_that_get_what_is_not_theirs_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong twins: another's seed, another's gradient, another's rate, 1/S of one's gradient."""
    right, _ = run(steps=20)
    seeds, _ = run(steps=20, seeds=[10, 11, 13, 12])
    gaps = [apart(weights(a), weights(b)) for a, b in zip(right, seeds)]
    assert max(gaps[:2]) < EXACT and min(gaps[2:]) > 1e-3
    plain = ensembles._Crew.aim
    for name, change, least in (
        ("another's", lambda grad: grad.roll(1, dims=0), 1e-3),
        ("the mean's", lambda grad: grad / 4, 1e-9),  # which Adam undoes but for its epsilon
    ):

        def aim(crew: Any, change: Any = change) -> None:
            plain(crew)
            for way in crew.ways:
                way.grad = change(way.grad)

        monkeypatch.setattr(ensembles._Crew, "aim", aim)
        wrong, _ = run(steps=20)
        monkeypatch.undo()
        assert min(apart(weights(a), weights(b)) for a, b in zip(right, wrong)) > least, name
    rates, _ = run(steps=20, rate=[3e-3, 3e-3, 3e-3, 6e-3])
    gaps = [apart(weights(a), weights(b)) for a, b in zip(right, rates)]
    assert max(gaps[:3]) < EXACT and gaps[3] > 1e-3


def middle(n: int, generator: torch.Generator) -> torch.Tensor:
    """Times of a law of one's own."""
    u = torch.rand(n, generator=generator, dtype=torch.float64)
    return 0.4 + 0.2 * u


def g_squared(process: ds.Process, t: Any) -> Any:
    return process.diffusion(t) ** 2


WEIGHTED = partial(losses.score_denoising, weight=g_squared)


def mixed() -> tuple[list[Network], dict[str, list[Any]]]:
    """Members that differ in all that they may, in no order, and two of each first kind."""
    chains = [ds.Chain.linear(8, 0.05, 0.6) for _ in range(2)]  # two objects, the same chain
    networks = [
        Network(mlp(0), ds.VP()),
        Network(mlp(1), chains[0], "x0"),
        Network(mlp(2), ds.VP()),
        Network(mlp(3), ds.RectifiedFlow(), "velocity"),
        Network(mlp(4), chains[1], "x0"),
        Network(mlp(5), ds.VP(), "score"),
        Network(mlp(6), ds.VP(), time=torch.sqrt),
        Network(mlp(7, widths=(5,)), ds.VP()),
    ]
    own: dict[str, list[Any]] = {
        "rate": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3, 8e-3],
        "final_rate": [1e-3, 1e-4, 3e-5, 4e-3, 5e-4, 6e-4, 7e-4, 8e-4],
        "ema": [0.9, None, 0.5, 0.99, 0.0, None, 0.9, None],
        "loss": [losses.denoising] * 5 + [WEIGHTED, losses.simple, losses.denoising],
        "times": [
            None,
            None,
            None,
            uniform_times(ds.RectifiedFlow(), 0.1),
            None,
            middle,
            None,
            None,
        ],
        "data": [LAW, LAW, LAWS["points"], LAW, LAWS["mixture"], LAW, LAW, LAWS["points"]],
    }
    return networks, own


def test_members_that_differ_in_all_that_they_may() -> None:
    networks, own = mixed()
    options = {name: values for name, values in own.items() if name != "data"}
    steps = 120
    _, found = run(networks, own["data"], steps=steps, snapshots=[0, 7, steps], **options)
    for k, network in enumerate(mixed()[0]):
        mine = {name: values[k] for name, values in options.items()}
        given: Any = {"steps": steps, "snapshots": [0, 7, steps], "seed": 10 + k}
        _, history = alone(network, own["data"][k], **given, **mine)
        np.testing.assert_allclose(found[k].losses, history.losses, rtol=EXACT)
        assert list(found[k].snapshots) == [0, 7, steps]
        for step in (0, 7, steps):
            assert apart(found[k].snapshots[step], history.snapshots[step]) < EXACT
        assert apart(found[k].snapshots[steps], weights(networks[k])) == 0
        if mine["ema"] is None:
            assert found[k].ema is None
        else:
            assert apart(found[k].ema, history.ema) < EXACT


def test_members_that_share_all_but_their_weights_share_a_call() -> None:
    calls: list[int] = []

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        calls.append(len(x0))
        return losses.denoising(model, x0, t, noise)

    networks, own = mixed()
    times = [None, None, None, None, None, middle, None, None]
    run(networks, own["data"], steps=9, loss=loss, times=times)
    two = 4  # asked for the first and the last of each of two pairs alone, at the first step
    assert sorted(calls) == sorted(9 * [32, 32, 16, 16, 16, 16] + two * [16])


def test_a_low_discrepancy_law_of_times_is_asked_for_a_batch() -> None:
    """Times that fill a batch evenly would not, cut out of a longer draw."""
    seen: list[torch.Tensor] = []

    def even(n: int, generator: torch.Generator) -> torch.Tensor:
        u = torch.rand(1, generator=generator, dtype=torch.float64)
        return 0.001 + 0.998 * (torch.arange(n) + u) / n

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        seen.append(t)
        return losses.denoising(model, x0, t, noise)

    run(crowd(3), steps=2, times=even, loss=loss)
    for t in seen[-1].reshape(3, 16):
        assert torch.equal((16 * (t - 0.001) / 0.998).floor(), torch.arange(16).double())


def test_a_loss_that_mixes_rows_is_refused() -> None:
    """One that divides by the mean of its batch, and one that joins rows before it asks."""

    def divided(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        rows = losses.denoising(model, x0, t, noise)
        return rows / rows.detach().mean()

    def joined(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        x = losses.noised(model.process, x0, t, noise)
        both = model.eps(torch.cat([x, -x]), torch.cat([t, t]))
        return ((both[: len(x)] - noise) ** 2).sum(dim=1)

    for loss in (divided, joined):
        with pytest.raises(ArgumentError, match="loss must treat its rows one by one; got"):
            run(crowd(4), loss=loss)
        run(crowd(1), loss=loss)  # nobody else's rows
    # From equal weights it shows once they have moved.
    equal = [Network(mlp(0), ds.VP()) for _ in range(4)]
    run(equal, loss=joined, steps=10)
    with pytest.raises(ArgumentError, match="loss must treat its rows one by one"):
        run(equal, loss=joined, steps=11, rate=3e-2)


def test_the_excess_over_the_least_loss_is_small_for_all() -> None:
    """600 steps on the bimodal law: every member comes within 5 % of the least loss; seed 0."""
    chain = ds.Chain.linear(8, 0.05, 0.6)
    law = gallery.julia_bimodal()
    oracle = ds.Oracle(law, chain)
    best = np.mean([ds.bounds.best_simple(oracle, float(k)) for k in range(1, 9)])
    networks = [Network(nets.MLP(1, (32, 32), seed=k), chain) for k in range(3)]

    def excess() -> np.ndarray:
        found = ds.metrics.fisher_error(over(networks), oracle, np.arange(1.0, 9.0))
        return np.mean(found.value * chain.var(np.arange(1.0, 9.0))[:, None], axis=0)

    assert excess().min() > 0.5
    run(networks, law, steps=600, batch=512, rate=5e-3, final_rate=1e-5, seeds=range(3))
    assert excess().max() < 0.05 * best


def test_nothing_global_is_read_or_set() -> None:
    state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    _, first = run(steps=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_default_dtype() == dtype
    with torch.random.fork_rng():
        torch.manual_seed(99)
        _, second = run(steps=5)
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one.losses, other.losses)


# ---------------------------------------------------------------- early ends


def stop_at(last: int) -> Callable[[Iterable[int]], Iterator[int]]:
    def wrap(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            if step == last:
                raise KeyboardInterrupt
            yield step

    return wrap


def test_ctrl_c_returns_what_was_reached() -> None:
    networks, found = run(progress=stop_at(5), ema=0.9, snapshots=[2, 30])
    short, part = run(steps=30, progress=stop_at(5), ema=0.9)
    for k, (network, history) in enumerate(zip(networks, found)):
        _, own = alone(crowd()[k], seed=10 + k, progress=stop_at(5), ema=0.9)
        assert history.interrupted and own.interrupted
        np.testing.assert_allclose(history.losses, own.losses, rtol=EXACT)
        assert len(history.losses) == 5
        assert list(history.snapshots) == [2]
        assert apart(history.ema, own.ema) < EXACT
        assert apart(weights(network), weights(short[k])) == 0
        assert apart(weights(network), weights(crowd()[k])) > 1e-3
        assert not np.any(np.isnan(part[k].losses))
    before, nothing = run(progress=stop_at(0), ema=0.9)
    assert [len(history.losses) for history in nothing] == [0] * 4
    assert apart(nothing[1].ema, weights(before[1])) == 0


@pytest.mark.parametrize("early", [True, False])
def test_ctrl_c_inside_an_update_waits_for_its_end(
    monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    short, _ = run(steps=30, progress=stop_at(5), ema=0.9)
    plain, handler = torch.optim.Adam.step, signal.getsignal(signal.SIGINT)
    count = iter(range(100))

    def step(adam: Any, *given: Any) -> Any:
        now = next(count) == 4
        if now and early:
            signal.raise_signal(signal.SIGINT)
        plain(adam, *given)
        if now and not early:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    networks, found = run(ema=0.9)
    assert all(history.interrupted and len(history.losses) == 5 for history in found)
    assert [apart(weights(a), weights(b)) for a, b in zip(networks, short)] == [0] * 4
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_network_and_step(bad: float) -> None:
    """The weights are then those before the step."""

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        rows = losses.denoising(model, x0, t, noise)
        late = next(count) > 8  # two rows more at the first step
        wrong = torch.zeros_like(rows)
        wrong[2 * 16] = bad if late and len(rows) > 16 else 0.0
        return rows + wrong

    count = iter(range(100))
    networks = crowd(4)
    with pytest.raises(ArgumentError, match=r"loss must be finite \(network 2, step 7\); got"):
        run(networks, loss=lambda *a: loss(*a) if len(a[1]) > 16 else loss_of_one(*a, count=count))
    good, _ = run(crowd(4), steps=30, progress=stop_at(7))
    assert [apart(weights(a), weights(b)) for a, b in zip(networks, good)] == [0] * 4


def loss_of_one(*given: Any, count: Iterator[int]) -> Any:
    next(count)
    return losses.denoising(*given)


def test_another_error_is_not_swallowed_and_leaves_what_was_reached() -> None:
    def wrap(steps: Iterable[int]) -> Iterator[int]:
        yield from range(5)
        raise RuntimeError("stop")

    networks = crowd(2)
    with pytest.raises(RuntimeError, match="stop"):
        run(networks, progress=wrap)
    short, _ = run(crowd(2), progress=stop_at(5))
    assert [apart(weights(a), weights(b)) for a, b in zip(networks, short)] == [0, 0]


# ---------------------------------------------------------------- bad input


class Other(nets.MLP):
    """A network of another forward."""


SHARED = mlp(0)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no networks": ({"networks": []}, "networks must be a list of one or more networks"),
    "one network": ({"networks": crowd(1)[0]}, "networks must be a list of one or more"),
    "bare nets": ({"networks": [mlp(0)]}, "networks must be a Network; got MLP"),
    "a net of another kind": (
        {"networks": [Network(Other(2, (3,)), ds.VP())]},
        "networks must be over nets.MLP; got Other",
    ),
    "one net twice": (
        {"networks": [Network(SHARED, ds.VP()), Network(SHARED, ds.VP(), "x0")]},
        "networks must have a net each",
    ),
    "one seed": ({"seeds": 3}, "seeds must be a list with one for each network; got 3"),
    "too few seeds": ({"seeds": [1]}, "seeds must be one for all or one for each of the 4"),
    "half a seed": ({"seeds": [1, 2, 3, 4.5]}, "seeds must be a whole number from"),
    "no steps": ({"steps": 0}, "steps must be a whole number of at least 1"),
    "no batch": ({"batch": None}, "batch must be a"),
    "an empty batch": ({"batch": 0}, "batch must be a whole number of at least 1"),
    "too many rates": ({"rate": [1e-3] * 5}, "rate must be one for all or one for each of the 4"),
    "a negative rate": ({"rate": [1e-3, 1e-3, 1e-3, -1.0]}, "rate must be a positive number"),
    "a rising rate": (
        {"rate": [1e-3, 1e-4, 1e-3, 1e-3], "final_rate": 5e-4},
        "final_rate must be at most rate = 0.0001",
    ),
    "a word for a loss": ({"loss": "simple"}, "loss must be"),
    "words for losses": ({"loss": ["simple"] * 4}, "loss must be a function; got simple"),
    "a number for times": ({"times": 0.5}, "times must be a function; got 0.5"),
    "numbers for times": ({"times": [None, None, None, 0.5]}, "times must be a function; got 0.5"),
    "a column of times": (
        {"times": lambda n, g: torch.ones(n, 1)},
        r"times must give an array of shape \(16,\); got shape \(16, 1\)",
    ),
    "an average that never forgets": ({"ema": [None, 0.9, 1.0, 0.9]}, "ema must lie in"),
    "a late snapshot": ({"snapshots": [31]}, "snapshots must be a whole number from 0 to 30"),
    "a number for progress": ({"progress": 3}, "progress must be a function"),
    "an array for data": ({"data": np.zeros((4, 2))}, "data must be"),
    "no data": ({"data": [torch.zeros(0, 2)] * 4}, "data must be a Target or a tensor of points"),
    "data of another D": ({"data": gallery.julia_bimodal()}, "net must take points"),
    "a sum for a loss": (
        {"loss": lambda *given: losses.denoising(*given).sum()},
        r"loss must give an array of shape \(64,\); got shape \(\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused(case: str) -> None:
    given, words = REFUSED[case]
    own = crowd()
    start = [weights(network) for network in own]
    with pytest.raises(ArgumentError, match=words):
        run(**{"networks": own, **given})
    assert [apart(weights(network), state) for network, state in zip(own, start)] == [0] * 4


def test_bad_members_and_points_are_refused() -> None:
    two: Any = [mlp(0), mlp(1)]
    for members, words in (
        ([], "members must be one or more networks of one shape"),
        (mlp(0), "members must be a list of networks"),
        ([mlp(0), mlp(1, widths=(3,))], "members must be one or more networks of one shape"),
        ([mlp(0), mlp(1).float()], "members must be one or more networks of one shape"),
        ([mlp(0), Other(2, (12, 10))], "members must be networks of the class MLP; got Other"),
        ([nets.Score(2, (3,))], "members must be networks of the class MLP; got Score"),
    ):
        with pytest.raises(ArgumentError, match=words):
            Ensemble(members)  # type: ignore[arg-type]
    net = Ensemble(two)
    for call, words in (
        (lambda: net(normal(3, 2), normal(3)), r"x must be rows \(n, D\) with times"),
        (lambda: net(normal(4, 2), normal(2)), r"x must be rows \(n, D\) with times"),
        (lambda: net(normal(2, 2, 2), normal(2, 2)), r"x must be rows \(n, D\) with times"),
        (lambda: net.member(2), "i must be a whole number from 0 to 1"),
        (lambda: net.member(-1), "i must be a whole number from 0 to 1"),
        (lambda: net.part(1, 1), "j must be a whole number from 2 to 2"),
        (lambda: net.part(0, 3), "j must be a whole number from 1 to 2"),
    ):
        with pytest.raises(ArgumentError, match=words):
            call()
    model = Network(net, ds.VP())
    for shape in ((3, 4, 2), (2,), (4, 2, 2, 2)):
        with pytest.raises(ArgumentError, match="x must be points"):
            model.score(normal(*shape), 0.5)
    with pytest.raises(ArgumentError, match=r"x must be rows \(n, D\)"):
        model.score(normal(3, 2), 0.5)
    with pytest.raises(ArgumentError, match="t must pair row by row"):
        model.score(normal(2, 4, 2), torch.full((3,), 0.5))
