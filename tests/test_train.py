"""The training loop: bits that follow from the seed, Adam as published, and a loss that is reached.

The optimum is known: no model has a mean of `simple` below `best_simple`.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import bounds, gallery, losses, nets
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.network import Network
from diffscience.train import History, State, train, uniform_times, with_state

CHAIN = ds.Chain.linear(8, 0.05, 0.6)
LAW = gallery.julia_bimodal()


def network(
    seed: int = 0, predicts: str = "eps", process: ds.Process = CHAIN, widths: Any = (8,)
) -> Network:
    return Network(nets.MLP(1, widths=widths, seed=seed), process, predicts)


def run(net: Network | None = None, data: Any = LAW, **options: Any) -> tuple[Network, History]:
    net = network() if net is None else net
    return net, train(net, data, **{"steps": 12, "seed": 3, "batch": 16, **options})


def same(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def weights(net: Network) -> State:
    return {k: v.detach().clone() for k, v in net.net.state_dict().items()}


# ---------------------------------------------------------------- randomness


@pytest.mark.parametrize("data", [LAW, torch.linspace(-3, 3, 50)[:, None]])
def test_a_seed_gives_its_bits_and_another_seed_others(data: Any) -> None:
    (a, one), (b, again), (c, other) = (run(data=data, ema=0.9, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.losses, again.losses)
    assert same(weights(a), weights(b))
    assert one.ema is not None and again.ema is not None
    assert same(one.ema, again.ema)
    assert not np.any(one.losses == other.losses)
    assert not same(weights(a), weights(c))
    assert one.losses.shape == (12,)
    assert not one.interrupted


def test_nothing_global_is_read_or_set() -> None:
    torch_state, dtype = torch.random.get_rng_state(), torch.get_default_dtype()
    numpy_state = str(np.random.get_state())  # noqa: NPY002  (that it is left alone)
    _, first = run(ema=0.9, snapshots=[0, 12])
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    assert torch.get_default_dtype() == dtype
    assert str(np.random.get_state()) == numpy_state  # noqa: NPY002
    with torch.random.fork_rng():
        torch.manual_seed(99)
        _, second = run()
    np.testing.assert_array_equal(first.losses, second.losses)


# ---------------------------------------------------------------- what is learned


def excess(net: Network, law: Any, process: ds.Process, times: Iterable[float]) -> list[float]:
    """E |eps_net - eps|^2 under p_t by quadrature: simple less best_simple."""
    oracle, found = Oracle(law, process), []
    for t in times:
        x, w = oracle.at(t).quadrature()
        off = np.sum((net.eps(x, t) - oracle.eps(x, t)) ** 2, axis=-1)
        found.append(float(w @ off))
    return found


def test_a_tiny_problem_is_learned() -> None:
    """Trained losses come within 5 % of the least possible; untrained ones are far above."""
    net = network(widths=(32, 32), seed=1)
    ks = np.arange(1.0, 9.0)
    best = np.mean([bounds.best_simple(Oracle(LAW, CHAIN), k) for k in ks])
    before = np.mean(excess(net, LAW, CHAIN, ks))
    _, history = run(net, steps=600, batch=512, rate=5e-3, final_rate=1e-5, ema=0.99, seed=2)
    after = np.mean(excess(net, LAW, CHAIN, ks))
    assert before > 0.5
    assert after < 0.05 * best
    assert history.losses[-100:].mean() < 0.7 * history.losses[:10].mean()
    # The tail of the losses is the least loss plus the excess: 51,200 draws, 1 % each way.
    assert history.losses[-100:].mean() == pytest.approx(best + after, rel=0.05)
    assert history.ema is not None
    assert np.mean(excess(with_state(net, history.ema), LAW, CHAIN, ks)) < 0.05 * best


@pytest.mark.parametrize("predicts", ["x0", "v", "velocity"])
def test_other_predictions_are_learned_in_continuous_time(predicts: str) -> None:
    """On N(0.5, 0.6^2), whose eps is linear in x; the network's eps comes near at t = 0.5."""
    law = ds.GaussianMixture([1.0], [[0.5]], [[[0.36]]])
    process = ds.RectifiedFlow()
    net = network(1, predicts, process, widths=(24, 24))
    before = excess(net, law, process, [0.5])[0]
    run(net, law, steps=250, batch=256, rate=1e-2, final_rate=1e-4)
    after = excess(net, law, process, [0.5])[0]
    assert after < 0.02
    assert after < 0.1 * before


# ---------------------------------------------------------------- the optimiser


class Constant(torch.nn.Module):
    """One number, whatever is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.b = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.b.expand_as(x)


def bare(model: Any, x0: Any, t: Any, noise: Any) -> Any:
    """A loss with the gradient 1 in b: every step of Adam is then its rate."""
    return model.prediction(x0, t)[:, 0]


@pytest.mark.parametrize("final", [None, 0.01])
def test_the_rate_falls_along_half_a_cosine(final: float | None) -> None:
    net = Network(Constant(), CHAIN)
    steps = 20
    history = train(
        net, LAW, steps=steps, seed=0, batch=4, rate=0.1, final_rate=final, loss=bare,
        snapshots=range(steps + 1),
    )  # fmt: skip
    b = np.array([history.snapshots[i]["b"].item() for i in range(steps + 1)])
    low = 0.1 if final is None else final
    rate = low + (0.1 - low) * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    np.testing.assert_allclose(-np.diff(b), rate, rtol=1e-6)
    assert final is None or not np.allclose(-np.diff(b), 0.1, rtol=0.05)
    np.testing.assert_allclose(history.losses, b[:-1], atol=1e-12)  # of the weights before


def test_the_steps_are_those_of_adam() -> None:
    """Kingma and Ba 2015, algorithm 1, by hand on the mean of (b - noise)^2."""
    seen: list[torch.Tensor] = []

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        seen.append(noise[:, 0].clone())
        return losses.simple(model, x0, t, noise)

    net = Network(Constant(), CHAIN)
    history = train(
        net, LAW, steps=9, seed=1, batch=5, rate=0.3, loss=loss, snapshots=range(10)
    )  # fmt: skip
    b, m, v = 0.0, 0.0, 0.0
    for i, noise in enumerate(seen):
        assert history.snapshots[i]["b"].item() == pytest.approx(b, abs=1e-10)
        assert history.losses[i] == pytest.approx(float(((b - noise) ** 2).mean()), rel=1e-10)
        g = float(2 * (b - noise).mean())
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        b -= 0.3 * m / (1 - 0.9 ** (i + 1)) / ((v / (1 - 0.999 ** (i + 1))) ** 0.5 + 1e-8)
    assert history.snapshots[9]["b"].item() == pytest.approx(b, abs=1e-10)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_average_is_its_recursion(decay: float) -> None:
    net = network()
    net.net.double()
    _, history = run(net, ema=decay, snapshots=range(13), rate=0.05)
    wanted = history.snapshots[1]
    for step in range(2, 13):
        now = history.snapshots[step]
        wanted = {k: decay * wanted[k] + (1 - decay) * now[k] for k in now}
    assert history.ema is not None
    for name, value in history.ema.items():
        torch.testing.assert_close(value, wanted[name], rtol=1e-12, atol=1e-14)
    if decay == 0.0:
        assert same(history.ema, weights(net))
    else:  # the wrong twin weighs old and new the other way round, or is the last weights
        assert not torch.allclose(history.ema["out.weight"], net.net.state_dict()["out.weight"])


# ---------------------------------------------------------------- snapshots


def test_snapshots_are_taken_before_the_update() -> None:
    start = weights(network())
    net, history = run(snapshots=[0, 5, 12])
    assert sorted(history.snapshots) == [0, 5, 12]
    assert same(history.snapshots[0], start)
    assert same(history.snapshots[12], weights(net))
    short, part = run(steps=5)
    assert same(history.snapshots[5], weights(short))
    np.testing.assert_array_equal(history.losses[:5], part.losses)
    # The wrong twin: after the update of step 5.
    longer, _ = run(steps=6)
    assert not same(history.snapshots[5], weights(longer))


def test_with_state_is_a_copy() -> None:
    net, history = run(snapshots=[0])
    trained = weights(net)
    old = with_state(net, history.snapshots[0])
    assert same(weights(old), history.snapshots[0])
    assert same(weights(net), trained)
    assert (old.process, old.predicts, old.time) == (net.process, net.predicts, net.time)
    run(old)
    assert same(weights(net), trained)
    assert not same(weights(old), history.snapshots[0])


# ---------------------------------------------------------------- data and times


def watch(net: Network, data: Any, **options: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    points: list[torch.Tensor] = []
    times: list[torch.Tensor] = []

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        points.append(x0)
        times.append(t)
        assert noise.shape == x0.shape
        assert noise.dtype == x0.dtype
        return losses.denoising(model, x0, t, noise)

    train(net, data, seed=5, loss=loss, **options)
    return points, times


def test_points_are_drawn_with_replacement_from_all_rows() -> None:
    data = torch.arange(10.0, dtype=torch.float64)[:, None]
    points, _ = watch(network(), data, steps=40, batch=25)
    assert all(x.shape == (25, 1) and x.dtype == torch.float32 for x in points)
    rows = torch.cat(points)[:, 0]
    assert set(rows.tolist()) == set(range(10))
    # 1000 uniform draws: a count has standard deviation 9.5, and 10 of them |z| < 5.3 at 1e-6.
    counts = torch.bincount(rows.long())
    assert (counts - 100).abs().max() < 5.3 * 9.5
    assert not torch.equal(points[0], points[1])


def test_without_a_batch_every_step_sees_all_points_in_their_order() -> None:
    data = torch.arange(10.0)[:, None]
    points, _ = watch(network(), data, steps=3, batch=None)
    assert len(points) == 3
    assert all(torch.equal(x, data) for x in points)


def test_a_target_gives_fresh_points_every_step() -> None:
    points, _ = watch(network(), LAW, steps=10, batch=50)
    rows = torch.cat(points)[:, 0]
    assert len(rows.unique()) == 500
    # Mean 2.4 and standard deviation 2.06 of the law; |z| < 4.9.
    assert abs(rows.mean() - 2.4) < 4.9 * 2.06 / 500**0.5


def test_times_of_a_chain_and_of_a_process() -> None:
    """Seed 0: all K steps equally often (chi-square at 1e-6); uniform on [T/1000, T] (KS)."""
    from scipy import stats

    generator = torch.Generator().manual_seed(0)
    n = 20_000
    steps = uniform_times(CHAIN)(n, generator)
    assert set(steps.tolist()) == set(range(1, 9))
    counts = np.bincount(steps.long().numpy())[1:]
    assert stats.chisquare(counts).pvalue > 1e-6
    counts[0] = 0.85 * counts[0]  # the wrong twin: one step too rare
    assert stats.chisquare(counts, counts.sum() / 8 * np.ones(8)).pvalue < 1e-6
    t = uniform_times(ds.EDM(80.0))(n, generator).numpy()
    assert t.dtype == np.float64
    assert 0.08 <= t.min() < 0.2
    assert 79.9 < t.max() <= 80.0
    assert stats.kstest(t, stats.uniform(0.08, 79.92).cdf).pvalue > 1e-6
    assert stats.kstest(t, stats.uniform(0.08, 84).cdf).pvalue < 1e-6
    early = uniform_times(ds.VP(), earliest=0.5)(1000, generator)
    assert early.min() >= 0.5
    _, times = watch(network(), LAW, steps=3, batch=50)
    assert all(set(t.tolist()) <= set(range(1, 9)) for t in times)
    _, times = watch(
        network(), LAW, steps=3, batch=4, times=lambda n, g: torch.full((n,), 2.0).double()
    )
    assert torch.cat(times).tolist() == [2.0] * 12


# ---------------------------------------------------------------- early ends


def stop_at(last: int) -> Any:
    def wrap(steps: Iterable[int]) -> Iterator[int]:
        for step in steps:
            if step == last:
                raise KeyboardInterrupt
            yield step

    return wrap


def test_ctrl_c_returns_what_was_reached() -> None:
    net, history = run(progress=stop_at(5), ema=0.9, snapshots=[2, 12])
    short, part = run(steps=5, ema=0.9)
    assert history.interrupted
    np.testing.assert_array_equal(history.losses, part.losses)
    assert same(weights(net), weights(short))
    assert history.ema is not None and part.ema is not None
    assert same(history.ema, part.ema)
    assert list(history.snapshots) == [2]
    assert not part.interrupted
    assert len(run(progress=stop_at(0))[1].losses) == 0


@pytest.mark.parametrize("ema", [None, 0.9])
def test_ctrl_c_inside_an_update_waits_for_its_end(
    monkeypatch: pytest.MonkeyPatch, ema: float | None
) -> None:
    """Losses and weights of one and the same step, whether it comes before, in or after Adam's."""
    short, part = run(steps=5, ema=ema)
    plain, handler = torch.optim.Adam.step, signal.getsignal(signal.SIGINT)
    for early in (True, False):
        count = iter(range(100))

        def step(adam: Any, *given: Any, early: bool = early, count: Any = count) -> Any:
            now = next(count) == 4
            if now and early:
                signal.raise_signal(signal.SIGINT)
            plain(adam, *given)
            if now and not early:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(torch.optim.Adam, "step", step)
        net, history = run(ema=ema)
        monkeypatch.undo()
        assert history.interrupted
        np.testing.assert_array_equal(history.losses, part.losses)
        assert same(weights(net), weights(short))
        assert ema is None or same(history.ema or {}, part.ema or {})
        assert signal.getsignal(signal.SIGINT) is handler


def test_training_outside_the_main_thread() -> None:
    """Where no handler of signals can be set."""
    with ThreadPoolExecutor(1) as pool:
        net, history = pool.submit(run).result()
    here, wanted = run()
    np.testing.assert_array_equal(history.losses, wanted.losses)
    assert same(weights(net), weights(here))


def test_another_error_is_not_swallowed() -> None:
    def wrap(steps: Iterable[int]) -> Iterator[int]:
        yield 0
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        run(progress=wrap)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_step(bad: float) -> None:
    calls = iter(range(100))

    def loss(model: Any, x0: Any, t: Any, noise: Any) -> Any:
        return losses.simple(model, x0, t, noise) * (bad if next(calls) == 7 else 1.0)

    net = network()
    with pytest.raises(ArgumentError, match=r"loss must be finite \(step 7\)"):
        run(net, loss=loss)
    good, _ = run(steps=7, loss=losses.simple)
    assert same(weights(net), weights(good))  # the weights are those before the bad step


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0), ("steps", 2.0), ("steps", True), ("batch", 0), ("batch", -3), ("batch", None),
        ("ema", 1.0), ("ema", -0.1), ("ema", float("nan")), ("data", np.zeros((4, 1))),
        ("final_rate", 1.1e-3), ("final_rate", 0.0),
        ("data", torch.zeros(0, 1)), ("data", torch.zeros(4)), ("rate", 0.0), ("rate", -1.0),
        ("rate", float("nan")),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(name: str, value: Any) -> None:
    net = network()
    start = weights(net)
    with pytest.raises(ArgumentError, match=f"{name} must"):
        run(net, **{name: value})
    assert same(weights(net), start)
