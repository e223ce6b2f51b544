"""Network: whatever it predicts, the other four answers follow, and equal those of the exact model.

A net that answers the exact target, taken from the Oracle, must give an Oracle. Score networks side
by side answer, and learn, as each does alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, losses, nets
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.network import PREDICTIONS, Coefficients, Network, preconditioned
from diffscience.train import fit

ANSWERS = ("x0", "score", "eps", "v", "velocity")
CONTINUOUS: dict[str, ds.Process] = {
    "VP": ds.VP(),
    "Cosine": ds.Cosine(),
    "SubVP": ds.SubVP(),
    "VE": ds.VE(),
    "EDM": ds.EDM(5.0),
    "RectifiedFlow": ds.RectifiedFlow(),
}
CHAIN = ds.Chain.linear(20, 0.02, 0.4)
FRACTIONS = (0.1, 0.4, 0.7)

predictions = pytest.mark.parametrize("predicts", PREDICTIONS)
laws = pytest.mark.parametrize("law", [gallery.julia_bimodal(), gallery.julia_trimodal()])


class Exact(torch.nn.Module):
    """Answers what the exact model does; `factor` makes a wrong twin of it."""

    def __init__(self, answer: Callable[..., Any], factor: float = 1.0) -> None:
        super().__init__()
        self.answer, self.factor = answer, factor
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.seen.append((x, t))
        return self.factor * self.answer(x, t)


SPREAD = 1.7  # sigma_data, whatever the law: every prediction stays exact


def exact(oracle: Oracle, predicts: str) -> Callable[..., Any]:
    """What an exact network of that prediction answers: the oracle's own word, or by its target."""
    if predicts in ANSWERS:
        return getattr(oracle, predicts)

    def answer(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        c = Coefficients(oracle.process, x, t, SPREAD)
        return PREDICTIONS[predicts].target(oracle.x0(x, t), oracle.eps(x, t), c)

    return answer


def pair(law: Any, process: ds.Process, predicts: str, factor: float = 1.0) -> tuple[Any, Oracle]:
    oracle = Oracle(law, process)
    net = Exact(exact(oracle, predicts), factor)
    return Network(net, process, predicts, time=lambda t: t, sigma_data=SPREAD), oracle


def points(law: Any, process: ds.Process, t: float, n: int = 6) -> np.ndarray:
    random = np.random.default_rng(0)
    return process.at(t).apply(law.sample(n, random), random.standard_normal((n, law.dim)))


def worst(got: Any, wanted: Any) -> float:
    """The largest difference relative to max(1, |wanted|)."""
    got, wanted = np.asarray(got, float), np.asarray(wanted, float)
    return float(np.max(np.abs(got - wanted) / np.maximum(1, np.abs(wanted))))


# ---------------------------------------------------------------- five answers


@predictions
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_five_answers_are_those_of_the_oracle(predicts: str, name: str) -> None:
    process, law = CONTINUOUS[name], gallery.julia_trimodal()
    model, oracle = pair(law, process, predicts)
    twin, _ = pair(law, process, predicts, factor=1.02)
    wrong = dict.fromkeys(ANSWERS, 0.0)
    for fraction in FRACTIONS:
        t = fraction * process.T
        x = points(law, process, t)
        for answer in ANSWERS:
            wanted = getattr(oracle, answer)(x, t)
            assert worst(getattr(model, answer)(x, t), wanted) < 1e-9, (answer, t)
            wrong[answer] = max(wrong[answer], worst(getattr(twin, answer)(x, t), wanted))
    assert min(wrong.values()) > 1e-3  # a net that is 2 % off shows in every answer


@predictions
@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_five_answers_in_single_precision(predicts: str, name: str) -> None:
    """To 1e-5 where alpha and sigma are not small, so that no conversion loses digits."""
    process, law = CONTINUOUS[name], gallery.julia_trimodal()
    model, oracle = pair(law, process, predicts)
    t = {"VP": 0.25, "SubVP": 0.25, "EDM": 1.25, "VE": 0.25}.get(name, 0.5)  # exact in float32
    x = points(law, process, t).astype(np.float32)
    for answer in ANSWERS:
        got = getattr(model, answer)(x, t)
        assert got.dtype == np.float32
        assert worst(got, getattr(oracle, answer)(x.astype(float), t)) < 1e-5, answer


@laws
@pytest.mark.parametrize("predicts", [name for name in PREDICTIONS if name != "velocity"])
def test_a_chain_has_four_answers_and_no_velocity(law: Any, predicts: str) -> None:
    model, oracle = pair(law, CHAIN, predicts)
    for k in (1.0, 9.0, 20.0):
        x = points(law, CHAIN, k)
        for answer in ("x0", "score", "eps", "v"):
            got, wanted = getattr(model, answer)(x, k), getattr(oracle, answer)(x, k)
            assert worst(got, wanted) < 1e-9
    with pytest.raises(ArgumentError, match="continuous in time"):
        model.velocity(x, 9.0)
    blind = Network(Exact(lambda x, t: x), CHAIN, "velocity")
    with pytest.raises(ArgumentError, match="continuous in time"):
        blind.x0(x, 9.0)


@predictions
@pytest.mark.parametrize("name", CONTINUOUS)
def test_targets_and_their_pairs_are_inverse(predicts: str, name: str) -> None:
    """target(x0, eps) -> (x0, eps), and its formula; a sign turned in it is not undone."""
    process, random = CONTINUOUS[name], np.random.default_rng(1)
    x0, eps = (torch.from_numpy(random.standard_normal((7, 2))) for _ in range(2))
    t = torch.linspace(0.1, 0.8, 7, dtype=torch.float64) * process.T
    a, s2 = process.alpha(t)[:, None], process.var(t)[:, None]
    s, da, ds_ = torch.sqrt(s2), process.dalpha(t)[:, None], process.dvar(t)[:, None] / 2
    x = a * x0 + s * eps
    c, parts = Coefficients(process, x, t, SPREAD), PREDICTIONS[predicts]
    m = torch.sqrt(s2 + (a * SPREAD) ** 2)
    y = parts.target(x0, eps, c)
    formula = {
        "eps": eps,
        "x0": x0,
        "score": -eps / s,
        "v": a * eps - s * x0,
        "velocity": da * x0 + ds_ / s * eps,
        "edm": (s * x0 - a * SPREAD**2 * eps) / (SPREAD * m),
        "scaled_score": -eps,
    }[predicts]
    torch.testing.assert_close(y, formula, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(parts.x0(y, x, c), x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts.eps(y, x, c), eps, rtol=1e-9, atol=1e-9)
    both = torch.cat([parts.x0(-y, x, c) - x0, parts.eps(-y, x, c) - eps])
    assert both.abs().max() > 0.1


def test_edm_is_the_preconditioning_of_karras_et_al() -> None:
    """D = c_skip x + c_out F(c_in x; c_noise), all four from their table 1; d 5 % off shows."""
    d, sigma = 0.5, torch.tensor([0.01, 0.3, 2.0, 70.0], dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(7).standard_normal((4, 2)))
    s = sigma[:, None]
    inputs = x / torch.sqrt(s**2 + d**2), torch.log(sigma) / 4
    F = lambda x, t: torch.sin(x) + t[:, None]  # noqa: E731
    wanted = d**2 / (s**2 + d**2) * x + s * d / torch.sqrt(s**2 + d**2) * F(*inputs)
    net = Exact(F)
    torch.testing.assert_close(
        preconditioned(net, ds.EDM(), d).x0(x, sigma), wanted, rtol=1e-13, atol=1e-13
    )
    for seen, wished in zip(net.seen[-1], inputs):
        torch.testing.assert_close(seen, wished, rtol=1e-13, atol=1e-13)
    off = preconditioned(net, ds.EDM(), 1.05 * d).x0(x, sigma) - wanted
    assert off.abs().max() > 1e-3


@pytest.mark.parametrize("name", CONTINUOUS)
def test_the_inputs_and_targets_of_edm_have_variance_one(name: str) -> None:
    """Data of mean 0 and variance d^2, and a target linear in x0 and eps: E (x/m)^2 = E F^2 = 1."""
    process, d = CONTINUOUS[name], 0.7
    for fraction in FRACTIONS:
        t = fraction * process.T
        a, s2 = process.alpha(t), process.var(t)
        m2 = s2 + (a * d) ** 2
        net = Exact(lambda x, t: x)
        preconditioned(net, process, d).x0(np.ones((1, 1)), t)
        assert float(net.seen[-1][0]) == pytest.approx(m2**-0.5, rel=1e-13)
        parts = [[1.0, 0.0], [0.0, 1.0]]  # the target is linear in x0 and eps
        one = torch.ones(1, 1, dtype=torch.float64)
        c = Coefficients(process, one, t, d)
        by_x0, by_eps = (float(PREDICTIONS["edm"].target(u * one, v * one, c)) for u, v in parts)
        assert (by_x0 * d) ** 2 + by_eps**2 == pytest.approx(1.0, rel=1e-13)
        assert (by_x0 * 1.05 * d) ** 2 + by_eps**2 != pytest.approx(1.0, rel=1e-3)


def test_edm_of_unit_data_is_v_turned() -> None:
    """d = 1 on a process that preserves variance: F = -v."""
    random = np.random.default_rng(3)
    x0, eps = (torch.from_numpy(random.standard_normal((5, 2))) for _ in range(2))
    c = Coefficients(ds.VP(), x0, torch.linspace(0.1, 0.9, 5, dtype=torch.float64))
    edm, v = (PREDICTIONS[name].target(x0, eps, c) for name in ("edm", "v"))
    torch.testing.assert_close(edm, -v, rtol=1e-12, atol=1e-12)
    c = Coefficients(ds.VP(), x0, torch.linspace(0.1, 0.9, 5, dtype=torch.float64), 1.05)
    assert (PREDICTIONS["edm"].target(x0, eps, c) + v).abs().max() > 1e-3


@pytest.mark.parametrize("name", CONTINUOUS)
def test_preconditioned_networks_are_finite_at_both_ends(name: str) -> None:
    """Without noise x0 is x itself; in single precision too."""
    process = CONTINUOUS[name]
    model = preconditioned(nets.MLP(2, widths=(8,), seed=0), process, 0.5)
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(0).standard_normal((4, 2)).astype(dtype)
        assert np.array_equal(model.x0(x, 0.0), x)
        for t in (0.0, 1e-12 * process.T, process.T):
            for answer in ("x0", "eps", "v"):
                assert np.isfinite(getattr(model, answer)(x, t)).all(), (answer, t)


def test_velocity_is_the_time_derivative_of_the_path() -> None:
    """d/dt (alpha x0 + sigma eps), by central differences."""
    random = np.random.default_rng(2)
    x0, eps = (torch.from_numpy(random.standard_normal((1, 2))) for _ in range(2))
    for process in CONTINUOUS.values():
        t, h = 0.4 * process.T, 1e-5 * process.T
        late, early = (process.alpha(t + d) * x0 + process.var(t + d) ** 0.5 * eps for d in (h, -h))
        c = Coefficients(process, x0, torch.tensor(t, dtype=torch.float64))
        velocity = PREDICTIONS["velocity"].target(x0, eps, c)
        assert worst(velocity, (late - early) / (2 * h)) < 1e-7


# ---------------------------------------------------------------- arrays in, arrays out


def test_the_kind_and_dtype_of_the_points_come_back() -> None:
    model = Network(nets.MLP(2, widths=(8,), seed=0), ds.VP(), "x0")
    single = {a: getattr(model, a)(np.ones((4, 2), np.float32), 0.5) for a in ANSWERS}
    for answer, wanted in single.items():
        ask = getattr(model, answer)
        assert isinstance(wanted, np.ndarray)
        assert wanted.dtype == np.float32
        double = ask(np.ones((4, 2)), 0.5)
        assert double.dtype == np.float64
        tensor = ask(torch.ones(4, 2, dtype=torch.float64), 0.5)
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == torch.float64
        np.testing.assert_array_equal(tensor.detach().numpy(), double)
        assert ask(torch.ones(4, 2), 0.5).dtype == torch.float32
        np.testing.assert_allclose(double, wanted, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(ask([[1.0, 1.0]] * 4, 0.5), double)
        assert ask(np.ones((0, 2)), 0.5).shape == (0, 2)
    with pytest.raises(ArgumentError, match="floating"):
        model.x0(np.ones((4, 2), int), 0.5)


def test_answers_to_arrays_carry_no_graph_and_those_to_tensors_do() -> None:
    net = nets.MLP(1, widths=(8,), seed=0)
    model = Network(net, ds.VP(), "eps")
    model.score(np.zeros((3, 1)), 0.5)
    assert all(p.grad is None for p in net.parameters())
    model.score(torch.zeros(3, 1), 0.5).sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in net.out.parameters())


@predictions
def test_derivatives_in_x_and_in_t(predicts: str) -> None:
    """Automatic derivatives of every answer against central differences, in float64."""
    net = nets.MLP(2, widths=(8, 8), seed=4).double()
    model = Network(net, ds.VP(), predicts)
    random, h = np.random.default_rng(3), 1e-5
    x = random.standard_normal((3, 2))
    t = np.array([0.2, 0.5, 0.7])
    for answer in ANSWERS:
        ask = getattr(model, answer)
        xs, ts = torch.tensor(x, requires_grad=True), torch.tensor(t, requires_grad=True)
        by_x, by_t = torch.autograd.grad(ask(xs, ts)[:, 0].sum(), (xs, ts))
        step = h * np.array([1.0, 0.0])
        wanted = (ask(x + step, t) - ask(x - step, t))[:, 0] / (2 * h)
        assert worst(by_x[:, 0], wanted) < 1e-7
        wanted = (ask(x, t + h) - ask(x, t - h))[:, 0] / (2 * h)
        assert worst(by_t, wanted) < 1e-6


@predictions
def test_a_batch_of_times_pairs_row_by_row(predicts: str) -> None:
    model = Network(nets.MLP(2, widths=(8,), seed=0).double(), ds.Cosine(), predicts)
    random = np.random.default_rng(5)
    x, t = random.standard_normal((3, 4, 2)), random.uniform(0.1, 0.9, (3, 4))
    for answer in ANSWERS:
        ask = getattr(model, answer)
        whole = ask(x, t)
        assert whole.shape == (3, 4, 2)
        for i, j in ((0, 0), (1, 3), (2, 2)):
            alone = ask(x[i, j], float(t[i, j]))
            assert alone.shape == (2,)
            np.testing.assert_allclose(whole[i, j], alone, rtol=1e-12, atol=1e-13)
        same = ask(x, np.full((3, 4), 0.3))
        np.testing.assert_allclose(ask(x, 0.3), same, rtol=1e-12, atol=1e-13)
        mixed = ask(torch.from_numpy(x), t)  # NumPy times beside tensors
        np.testing.assert_allclose(mixed.detach().numpy(), whole, rtol=1e-12, atol=1e-13)
        assert not np.allclose(whole, ask(x, t[::-1].copy()))  # the wrong pairs


def test_what_the_net_sees() -> None:
    net = Exact(lambda x, t: x)
    model = Network(net, CHAIN, "eps")
    model.eps(np.zeros((2, 3, 1)), np.array([[1.0, 5, 10], [15, 20, 2]]))
    x, t = net.seen[-1]
    assert x.shape == (6, 1)
    np.testing.assert_allclose(t, np.array([1, 5, 10, 15, 20, 2]) / 20)
    Network(net, CHAIN, "eps", time=torch.log).eps(np.zeros((2, 1)), 5.0)
    np.testing.assert_allclose(net.seen[-1][1], np.log([5.0, 5.0]))
    rows = np.arange(6.0).reshape(2, 3, 1)
    ks = np.array([[1.0, 5, 10], [15, 20, 2]])
    Network(net, CHAIN, "eps", scale=lambda t: 1 / t).eps(rows, ks)
    np.testing.assert_allclose(net.seen[-1][0], (rows / ks[..., None]).reshape(6, 1))
    np.testing.assert_allclose(net.seen[-1][1], ks.ravel() / 20)

    class Single(Exact):
        def __init__(self) -> None:
            super().__init__(lambda x, t: x)
            self.weight = torch.nn.Parameter(torch.ones(1))

    single = Single()
    answer = Network(single, ds.EDM(), "x0").x0(np.full((2, 1), 0.1), 8.0)
    assert {v.dtype for v in single.seen[-1]} == {torch.float32}
    assert single.seen[-1][1].tolist() == [np.float32(0.1)] * 2
    assert answer.dtype == np.float64


def test_halves_are_a_prediction_and_what_stands_beside_it() -> None:
    net = nets.MLP(2, widths=(8,), seed=0, outputs=4)
    model = Network(net, CHAIN, "x0", variance=True)
    x, t = torch.randn((3, 5, 2), generator=torch.Generator().manual_seed(0)), torch.ones(3, 5)
    y, v = model.halves(x, t)
    assert torch.equal(
        torch.cat([y, v], dim=-1).reshape(15, 4), net(x.reshape(15, 2), t.ravel() / 20)
    )
    assert torch.equal(model.prediction(x, t), y)
    assert torch.equal(model.x0(x, t), y)
    assert model.eps(x.numpy(), 3.0).shape == (3, 5, 2)
    assert model.with_net(nets.MLP(2, outputs=4)).variance
    with pytest.raises(ArgumentError, match=r"net must answer with shape \(4, 4\); got shape"):
        model.with_net(nets.MLP(2, widths=(8,))).x0(np.zeros((4, 2)), 1.0)
    with pytest.raises(ArgumentError, match=r"net must answer with shape \(4, 2\); got shape"):
        Network(net, CHAIN).x0(np.zeros((4, 2)), 1.0)
    with pytest.raises(ArgumentError, match="network must have a learned variance"):
        Network(net, CHAIN).halves(x, t)


def test_another_net_in_the_same_model() -> None:
    """Every option goes along; the first model keeps its own net."""
    first, other = nets.MLP(1, widths=(4,), seed=0), nets.MLP(1, widths=(4,), seed=1)
    model = preconditioned(first, ds.EDM(), 0.3)
    twin, x = model.with_net(other), np.ones((3, 1))
    np.testing.assert_array_equal(twin.x0(x, 2.0), preconditioned(other, ds.EDM(), 0.3).x0(x, 2.0))
    np.testing.assert_array_equal(model.x0(x, 2.0), preconditioned(first, ds.EDM(), 0.3).x0(x, 2.0))
    assert not np.allclose(twin.x0(x, 2.0), model.x0(x, 2.0))


def test_state_is_a_copy_of_the_weights_by_name() -> None:
    net = nets.MLP(1, widths=(4,), seed=2)
    state = Network(net, ds.VP()).state()
    assert set(state) == set(net.state_dict())
    assert all(isinstance(v, np.ndarray) for v in state.values())
    np.testing.assert_array_equal(state["out.bias"], net.out.bias.detach().numpy())


def test_the_net_of_a_seed() -> None:
    """Same seed, same weights, whatever the global state; bounds of the initial weights."""
    torch_state = torch.random.get_rng_state()
    one, same, other = (nets.MLP(2, widths=(32, 16), seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), torch_state)
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.full((5,), 0.3)
    assert torch.equal(one(x, t), same(x, t))
    assert not torch.equal(one(x, t), other(x, t))
    layers: list[tuple[Any, float]] = [(layer, 6.0) for layer in one.hidden] + [(one.out, 3.0)]
    for layer, gain in layers:
        fan_in = layer.weight.shape[1]
        assert 0.8 < layer.weight.abs().max() / (gain / fan_in) ** 0.5 <= 1
        assert layer.bias.abs().max() <= fan_in**-0.5
    assert layers[0][0].weight.shape == (32, 2 + 1 + 2 * 4)
    # Whole periods of the Fourier features: t and t + 1 differ by the raw time alone.
    one.double()
    column = layers[0][0].weight[:, 2]
    with torch.no_grad():
        column.zero_()
    late = one(x.double(), t.double() + 2)
    torch.testing.assert_close(late, one(x.double(), t.double()), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(one(x.double(), t.double() + 0.1), late)


def test_nan_of_the_net_goes_through() -> None:
    model = Network(Exact(lambda x, t: x * torch.nan), ds.VP(), "eps")
    assert np.isnan(model.score(np.zeros((3, 1)), 0.5)).all()
    assert bool(torch.isnan(model.x0(torch.zeros(3, 1), 0.5)).all())


# ---------------------------------------------------------------- networks side by side


def scores(dim: int) -> list[nets.Score]:
    return [nets.Score(dim, (8, 8), seed) for seed in range(3)]


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


OBJECTIVES: dict[str, Any] = {
    "implicit": losses.implicit,
    "finite differences": partial(losses.finite_difference, delta=0.1),
}


@pytest.mark.parametrize("dim", [1, 2])
def test_a_stack_is_its_members(dim: int) -> None:
    """Answers and objectives, members taking turns; rows in blocks, the wrong order, differ."""
    alone, stack, x = scores(dim), nets.Stack(scores(dim)), normal(12, dim)
    y = stack(x)
    for k, net in enumerate(alone):
        torch.testing.assert_close(y[k::3], net(x[k::3]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(stack.at(x)[k], net(x), rtol=1e-5, atol=1e-6)
        for rows in OBJECTIVES.values():
            torch.testing.assert_close(
                rows(stack, x)[k::3], rows(net, x[k::3]), rtol=1e-3, atol=1e-4
            )
    blocks = torch.cat([net(part) for net, part in zip(alone, x.chunk(3))])
    assert not torch.allclose(y, blocks, atol=1e-2)


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_stack_trains_as_its_members_do(name: str, dim: int) -> None:
    """Objectives that concatenate rows, or differentiate in x, keep the members apart.

    The mean over all rows is that over the members, and so 3 times it is each one's own.
    """
    alone, stack, x = scores(dim), nets.Stack(scores(dim)), normal(60, dim)
    start = [net.out.weight.detach().clone() for net in alone]
    quiet: Any = {"steps": 10, "seed": 0, "batch": None, "progress": lambda steps: steps}
    fit(stack, x, lambda net, x, _: 3 * OBJECTIVES[name](net, x), **quiet)
    for k, net in enumerate(alone):
        fit(net, x[k::3], lambda net, x, _: OBJECTIVES[name](net, x), **quiet)
        torch.testing.assert_close(stack.weights[2][k], net.out.weight.T, rtol=1e-4, atol=1e-5)
        assert (net.out.weight - start[k]).abs().max() > 1e-3
        assert not torch.allclose(stack.weights[2][k - 1], net.out.weight.T, atol=1e-2)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "wrong", [lambda x: x[:, :1], lambda x: x[:-1], lambda x: x[..., None], lambda x: x.sum()]
)
def test_an_answer_of_another_shape_is_refused(wrong: Callable[..., Any]) -> None:
    model = Network(Exact(lambda x, t: wrong(x)), ds.VP(), "eps")
    for answer in ANSWERS:
        with pytest.raises(ArgumentError, match=r"net must answer with shape \(3, 2\)"):
            getattr(model, answer)(np.zeros((3, 2)), 0.5)


def test_bad_arguments_are_refused() -> None:
    net = nets.MLP(1, widths=(4,))
    with pytest.raises(ArgumentError, match="predicts must be one of eps, x0, score, v, velocity"):
        Network(net, ds.VP(), "noise")
    with pytest.raises(ArgumentError, match="process must be a Process"):
        Network(net, "VP", "eps")  # type: ignore[arg-type]
    model = Network(net, ds.VP(), "eps")
    for t in (-0.1, 1.5, float("nan")):
        with pytest.raises(ArgumentError):
            model.x0(np.zeros((3, 1)), t)
    with pytest.raises(ArgumentError, match="whole number of steps"):
        Network(net, CHAIN, "eps").x0(np.zeros((3, 1)), 2.5)
    for options, words in (
        ({"sigma_data": 0.0}, "sigma_data must be a positive number; got 0.0"),
        ({"scale": 2.0}, "scale must be a function"),
        ({"variance": 1}, "variance must be a bool; got 1"),
    ):
        with pytest.raises(ArgumentError, match=words):
            Network(net, ds.VP(), "edm", **options)
    with pytest.raises(ArgumentError, match="sigma_data must be a positive number"):
        preconditioned(net, ds.VP(), -1.0)
    with pytest.raises(ArgumentError, match="scale must pair row by row"):
        Network(net, ds.VP(), scale=lambda t: torch.ones(2)).x0(np.zeros((3, 1)), 0.5)
    for bad in ({"dim": 0}, {"widths": ()}, {"widths": (4, 0)}, {"outputs": 0}):
        with pytest.raises(ArgumentError, match=next(iter(bad))):
            nets.MLP(**{"dim": 1, **bad})  # type: ignore[arg-type]
