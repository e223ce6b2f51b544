"""Solvers: the engines against loops written here, their orders, and every trap of the libraries.

    euler     x + h b(x, t) + s(t) sqrt|h| z
    milstein  euler + s s'(x) (W^2 - |h|)/2                          for diagonal noise
    SRA1      x + h (b(x, t) + 2 b(y, t + 3h/4))/3 + s(t + h)(W - Z) + s(t) Z,
              y = x + 3h/4 b(x, t) + 3/2 s(t + h) Z,   Z = W/2 + H   (Roessler 2010)

Numbers of traps are those of the list that the project keeps of torchsde 0.2.6 and torchdiffeq
0.2.5. Statistical tests state their seeds; their false-alarm rate is 1e-6 each.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
import torchdiffeq
import torchsde

import diffscience as ds
from diffscience import fused, gallery, grids, solvers
from diffscience.errors import ArgumentError
from diffscience.models import Oracle
from diffscience.noise import BLOCK, Noise, Sequential, Stored
from diffscience.prior import PriorWarning

F64 = torch.float64
BIMODAL = gallery.julia_bimodal()
PLANE = gallery.julia_trimodal()
MILD = ds.GaussianMixture([0.3, 0.7], [[-1.0], [1.5]], [[[0.25]], [[0.16]]])
GRIDS: dict[str, tuple[ds.Process, np.ndarray]] = {
    "uneven": (ds.VP(), np.linspace(1.0, 0.0, 14) ** 1.7),
    "karras": (ds.EDM(10.0), grids.karras(ds.EDM(10.0), 13)),
    "log_snr": (ds.VP(), grids.log_snr(ds.VP(), 13)),
}
ETAS = [0.0, 0.5, 1.0, 1.5]

grid_of = pytest.mark.parametrize("grid", GRIDS)
any_eta = pytest.mark.parametrize("eta", ETAS)
laws = pytest.mark.parametrize("law", [BIMODAL, PLANE], ids=["line", "plane"])
compiled = pytest.mark.skipif(not fused.available(), reason="nothing can be compiled here")


def start_of(oracle: Oracle, t: float, n: int, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(oracle.at(t).sample(n, seed))


class Pair(ds.Model):
    """0.1 N(-3, 1) + 0.9 N(3, 1) in closed form; factors on score, g^2 and sign are wrong twins."""

    def __init__(self, process: ds.Process, bend: float = 1.0, pull: float = 1.0) -> None:
        self.process, self.bend, self.pull = process, bend, pull

    def score(self, x: Any, t: Any) -> Any:
        a, v = self.process.alpha(t), self.process.var(t)
        V = a * a + v
        tanh = torch.tanh if isinstance(x, torch.Tensor) else np.tanh
        return self.bend * (3 * a * tanh(3 * a * x / V + 0.5 * math.log(9)) - x) / V

    def velocity(self, x: Any, t: Any) -> Any:
        return self.drift(x, t, 0.0)

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        f, g = self.process.drift(t), self.process.diffusion(t)
        return f * x - 0.5 * self.pull * (1 + eta * eta) * g * g * self.score(x, t)


# ---------------------------------------------------------------- torchsde is our loop


def euler_loop(model: Any, x: Any, grid: Any, source: Noise, eta: float) -> list[Any]:
    """The states at every time of the grid."""
    found = [x]
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        size = eta * model.process.diffusion(t) * math.sqrt(t - s) if eta else 0.0
        z = source.normal(*x.shape)
        x = x + (s - t) * model.drift(x, t, eta) + size * z
        found.append(x)
    return found


@laws
@grid_of
@any_eta
def test_reverse_is_euler_maruyama(law: Any, grid: str, eta: float) -> None:
    """1e-12 at every time, on uneven times and Karras's, down to 0; eta 2 % off is seen."""
    process, times = GRIDS[grid]
    oracle = Oracle(law, process)
    x = start_of(oracle, times[0], 30)
    source = Sequential(3, 30, law.dim, F64)
    run = solvers.reverse(oracle, x, times, 3, eta=eta, keep=range(len(times)))
    wanted = torch.stack(euler_loop(oracle, x, times, source, eta))
    torch.testing.assert_close(run.states, wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(run.times, times)
    assert run.evaluations == run.steps == len(times) - 1
    assert run.reached == times[-1]
    assert torch.equal(run.last, run.states[-1])
    twin = solvers.reverse(oracle, x, times, 3, eta=1.02 * eta or 0.02)
    assert float((twin.last - wanted[-1]).abs().max()) > 1e-4


@pytest.mark.parametrize("name", ["VP", "SubVP", "VE", "EDM", "Cosine", "RectifiedFlow"])
def test_forward_is_euler_maruyama(name: str) -> None:
    """On the process's own drift and diffusion, to 1e-12; to where alpha is 0 too."""
    process = getattr(ds, name)()
    times = process.T * np.linspace(0.0, 1.0, 12) ** 1.3
    x = torch.from_numpy(BIMODAL.sample(30, 4))
    run = solvers.forward(process, x, times, 5, keep=range(12))
    source, y = Sequential(5, 30, 1, F64), x
    for k, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist())):
        z = source.normal(30, 1)
        y = y + (s - t) * process.drift(t) * y + process.diffusion(t) * math.sqrt(s - t) * z
        torch.testing.assert_close(run.states[k + 1], y, rtol=1e-12, atol=1e-12)
    again = solvers.forward(process, x, times, Sequential(6, 30, 1, F64)).last
    assert float((again - y).abs().max()) > 1e-2


def drift_of(x: torch.Tensor, t: float) -> torch.Tensor:
    return torch.sin(3 * x) - 0.5 * t * x


def size_of(t: float) -> float:
    return 0.7 + 0.3 * math.cos(2 * t)


def sra1(x: torch.Tensor, path: Stored) -> torch.Tensor:
    for k, (t, s) in enumerate(zip(path.times[:-1].tolist(), path.times[1:].tolist())):
        h, W = s - t, path.W[k]
        Z = 0.5 * W + path.H[k]
        first = drift_of(x, t)
        y = x + 0.75 * h * first + 1.5 * size_of(s) * Z
        both = first + 2 * drift_of(y, t + 0.75 * h)
        x = x + h * both / 3 + size_of(s) * (W - Z) + size_of(t) * Z
    return x


@pytest.mark.parametrize("times", [np.linspace(0, 1, 9) ** 2, np.linspace(2, 0.5, 9)], ids=str)
def test_srk_is_sra1_with_our_areas(times: np.ndarray) -> None:
    """1e-12, in both directions of time; on areas of the other sign it is another run."""
    x = torch.linspace(-2, 2, 20, dtype=F64)[:, None]
    path = Stored.drawn(6, 20, 1, times)
    run = solvers.ito(drift_of, size_of, x, times, path.on(times), method="srk")
    torch.testing.assert_close(run.last, sra1(x, path), rtol=1e-12, atol=1e-12)
    assert (run.steps, run.evaluations) == (8, 16)
    mirrored = sra1(x, Stored(times, path.W, -path.H))
    assert float((run.last - mirrored).abs().max()) > 1e-3


def test_milstein_is_milstein() -> None:
    """dX = b dt + sin(X) dW, diagonal, 1e-12; Euler is another run."""
    times = np.linspace(0, 1, 9) ** 1.5
    x = torch.linspace(-2, 2, 20, dtype=F64)[:, None]
    path = Stored.drawn(7, 20, 1, times)
    wiggle = lambda x, t: torch.sin(x)  # noqa: E731
    options: dict[str, Any] = {"diagonal": True}
    run = solvers.ito(drift_of, wiggle, x, times, path.on(times), method="milstein", **options)
    euler = solvers.ito(drift_of, wiggle, x, times, path.on(times), **options)
    y = z = x
    for k, (t, s) in enumerate(zip(times[:-1].tolist(), times[1:].tolist())):
        h, W = s - t, path.W[k]
        z = z + h * drift_of(z, t) + torch.sin(z) * W
        second = 0.5 * torch.sin(y) * torch.cos(y) * (W * W - h)
        y = y + h * drift_of(y, t) + torch.sin(y) * W + second
    torch.testing.assert_close(euler.last, z, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run.last, y, rtol=1e-12, atol=1e-12)
    assert float((euler.last - y).abs().max()) > 1e-2


def test_noise_may_be_wider_than_the_states() -> None:
    """One float64 path drives float32 states, which stay float32, and float64 ones: close by."""
    process, times = GRIDS["uneven"]
    oracle = Oracle(BIMODAL, process)
    x, path = start_of(oracle, 1.0, 50), Stored.drawn(8, 50, 1, times)
    for method in solvers.SDE_METHODS:
        narrow = solvers.reverse(oracle, x.float(), times, path.on(times), method=method).last
        wide = solvers.reverse(oracle, x, times, path.on(times), method=method).last
        assert narrow.dtype == torch.float32
        assert wide.dtype == F64
        torch.testing.assert_close(narrow.double(), wide, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- the fused loop is torchsde


@compiled
@laws
@any_eta
def test_the_fused_loop_takes_the_same_steps(law: Any, eta: float) -> None:
    """1e-11 in float64 at all that is kept, over two blocks; eta 1 % off is seen.

    In float32 each of 40 steps rounds a state of size 3 by 2e-7 at most, in another order; the
    flow hardly spreads them apart, but for points between two modes: 2e-3, 1e-5 for nearly all.
    """
    n, times = BLOCK + 30, grids.cosine(ds.VP(), 40)
    oracle = Oracle(law, ds.VP())
    x = start_of(oracle, 1.0, n)
    options: dict[str, Any] = {"eta": eta, "keep": [0, 7, 39, 40]}
    plain = solvers.reverse(oracle, x, times, 9, **options)
    quick = solvers.reverse(oracle, x, times, 9, engine="fused", **options)
    torch.testing.assert_close(quick.states, plain.states, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(quick.times, plain.times)
    assert (quick.steps, quick.evaluations, quick.reached) == (40, 40, 0.0)
    options["eta"] = 1.01 * eta or 0.01
    twin = solvers.reverse(oracle, x, times, 9, engine="fused", **options)
    assert float((twin.last - plain.last).abs().max()) > 1e-4
    options["eta"] = eta
    narrow = solvers.reverse(oracle, x.float(), times, 9, **options)
    quick = solvers.reverse(oracle, x.float(), times, 9, engine="fused", **options)
    assert quick.last.dtype == torch.float32
    gap = (narrow.last - quick.last).abs()
    assert float(gap.max()) < 2e-3
    assert float(gap.quantile(0.95)) < 1e-5


@compiled
def test_the_fused_loop_says_what_it_has_no_way_for() -> None:
    oracle, x, times = Oracle(PLANE, ds.VP()), np.zeros((5, 2)), [1.0, 0.5]
    for model, options, words in (
        (Oracle(gallery.rings(), ds.VP()), {}, "an Oracle of a mixture"),
        (ds.Counted(oracle), {}, "an Oracle of a mixture"),
        (oracle, {"method": "srk"}, "method 'euler' with fixed steps"),
        (oracle, {"tolerance": 1e-2}, "method 'euler' with fixed steps"),
        (oracle, {"noise": Stored.drawn(0, 5, 2, times)}, "sequential noise on the CPU"),
    ):
        given: dict[str, Any] = {"noise": 0, "engine": "fused", **options}
        with pytest.raises(ArgumentError, match=f"engine must be torchsde but for {words}"):
            solvers.reverse(model, x, times, **given)
    for width in (1, 3):  # and no point of another dimension is read as one of two
        with pytest.raises(ArgumentError, match=r"x must have shape \(..., 2\)"):
            solvers.reverse(oracle, np.zeros((200, width)), times, 0, engine="fused")


# ---------------------------------------------------------------- strong orders


def slope(errors: list[float]) -> float:
    """Of log2 error over halvings of the step, by least squares."""
    k = np.arange(len(errors))
    return float(-np.polyfit(k, np.log2(errors), 1)[0])


@functools.cache
def brownian_errors(method: str) -> list[float]:
    """Seed 10, 1000 paths: dX = 0.5 X dt + 0.6 X dW against exp((0.5 - 0.18) T + 0.6 W_T)."""
    fine = np.linspace(0.0, 1.0, 257)
    path = Stored.drawn(10, 1000, 1, fine)
    exact = torch.exp(0.32 + 0.6 * path.W.sum(0))
    x, errors = torch.ones(1000, 1, dtype=F64), []
    for n in (32, 64, 128, 256):
        times = fine[:: 256 // n]
        run = solvers.ito(
            lambda x, t: 0.5 * x, lambda x, t: 0.6 * x, x, times, path.on(times),
            method=method, diagonal=True,
        )  # fmt: skip
        errors.append(float((run.last - exact).square().mean().sqrt()))
        assert run.evaluations == n * (9 if method == "srk" else 1)
    return errors


@pytest.mark.parametrize(("method", "order"), [("euler", 0.5), ("milstein", 1.0), ("srk", 1.5)])
def test_strong_orders_of_geometric_brownian_motion(method: str, order: float) -> None:
    """The exact solution on the path is known; Stratonovich's, 0.18 further, is not approached."""
    errors = brownian_errors(method)
    assert abs(slope(errors) - order) < 0.15
    assert errors[-1] < 0.05 < abs(math.exp(0.18) - 1)


@pytest.mark.parametrize(("method", "low", "high"), [("euler", 0.85, 1.2), ("srk", 1.4, 1.75)])
def test_strong_orders_of_additive_noise(method: str, low: float, high: float) -> None:
    """Seed 11, 300 paths of a nonlinear drift: 1 and 3/2; on another path there is no order."""
    fine = np.linspace(0.0, 1.0, 513)
    path, other = Stored.drawn(11, 300, 1, fine), Stored.drawn(12, 300, 1, fine)
    x = torch.linspace(-2, 2, 300, dtype=F64)[:, None]
    wanted = sra1(x, path)
    errors: list[float] = []
    strange: list[float] = []
    for stride in (32, 16, 8):
        times = fine[::stride]
        for source, found in ((path, errors), (other, strange)):
            run = solvers.ito(drift_of, size_of, x, times, source.on(times), method=method)
            found.append(float((run.last - wanted).square().mean().sqrt()))
    assert low < slope(errors) < high
    assert slope(strange) < 0.2


# ---------------------------------------------------------------- torchdiffeq is our Runge-Kutta


def runge_kutta(method: str, b: Any, x: Any, grid: Any) -> Any:
    """The last state; rk4 is the 3/8 rule."""
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        h = s - t
        k1 = b(x, t)
        if method == "euler":
            x = x + h * k1
        elif method == "midpoint":
            x = x + h * b(x + 0.5 * h * k1, t + 0.5 * h)
        elif method == "heun2":
            x = x + 0.5 * h * (k1 + b(x + h * k1, s))
        elif method == "heun3":
            k2 = b(x + h * k1 / 3, t + h / 3)
            x = x + 0.25 * h * (k1 + 3 * b(x + 2 * h * k2 / 3, t + 2 * h / 3))
        else:
            k2 = b(x + h * k1 / 3, t + h / 3)
            k3 = b(x + h * (k2 - k1 / 3), t + 2 * h / 3)
            k4 = b(x + h * (k1 - k2 + k3), s)
            x = x + 0.125 * h * (k1 + 3 * (k2 + k3) + k4)
    return x


@grid_of
@pytest.mark.parametrize("method", solvers.FIXED)
def test_fixed_steps_are_our_loop(method: str, grid: str) -> None:
    """To 1e-11 on uneven grids, in both directions of time; another method is another run."""
    process, times = GRIDS[grid]
    oracle = Oracle(MILD, process)
    for way in (times[:-1], times[-2::-1]):
        x = start_of(oracle, way[0], 10)
        run = solvers.flow(oracle, x, way, method=method)
        wanted = runge_kutta(method, oracle.velocity, x, way)
        torch.testing.assert_close(run.last, wanted, rtol=1e-11, atol=1e-11)
        stages = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}[method]
        assert (run.steps, run.evaluations) == (len(way) - 1, stages * (len(way) - 1))
        twin = runge_kutta("euler" if method != "euler" else "rk4", oracle.velocity, x, way)
        assert float((twin - wanted).abs().max()) > 1e-5


ORDERS = [("euler", 1), ("midpoint", 2), ("heun2", 2), ("heun3", 3), ("rk4", 4)]


@pytest.mark.parametrize(("method", "order"), ORDERS)
@pytest.mark.parametrize("process", [ds.VP(0.1, 6.0), ds.EDM(5.0)], ids=["VP", "EDM"])
def test_orders_of_fixed_steps(method: str, order: int, process: ds.Process) -> None:
    """Against the exact flow of the line, +-0.2."""
    oracle = Oracle(MILD, process)
    start, end = 0.7 * process.T, 0.1 * process.T
    x = oracle.at(start).quantile(np.array([0.05, 0.3, 0.6, 0.95]))
    wanted, errors = oracle.flow(x, start, end), []
    for n in (32, 64):
        times = grids.log_snr(process, n, start=start, end=end)
        run = solvers.flow(oracle, x, times, method=method)
        errors.append(float(np.abs(run.last - wanted).max()))
    assert abs(slope(errors) - order) < 0.2
    assert abs(slope([errors[0], 2 * errors[1]]) - order) > 0.2


@pytest.mark.parametrize("method", solvers.ADAPTIVE)
@pytest.mark.parametrize("process", [ds.VP(), ds.EDM(), ds.RectifiedFlow()], ids=str)
def test_adaptive_steps_meet_their_tolerance(method: str, process: ds.Process) -> None:
    """100 times a tolerance holds the error, and a finer one makes it smaller."""
    oracle, errors = Oracle(MILD, process), []
    x = MILD.quantile(np.linspace(0.05, 0.95, 9))
    wanted = oracle.flow(x, 0.0, process.T)
    unit = math.sqrt(process.var(process.T))
    fine = 1e-7 if method in ("dopri5", "dopri8") else 1e-5
    for tolerance in (1e-3, fine):
        run = solvers.flow(
            oracle, x, [0.0, process.T], method=method, rtol=tolerance, atol=tolerance
        )
        errors.append(float(np.abs(run.last - wanted).max()) / unit)
        assert errors[-1] < 100 * tolerance
        assert run.reached == process.T
    assert errors[1] < 0.05 * errors[0]


@pytest.mark.parametrize("process", [ds.VP(), ds.EDM(), ds.Cosine()], ids=["VP", "EDM", "Cosine"])
@laws
def test_engines_agree(law: Any, process: ds.Process) -> None:
    """dopri5, dopri8, RK4 in many steps, SciPy's DOP853, and on the line the exact map."""
    oracle = Oracle(law, process)
    t, s = 0.6 * process.T, 0.05 * process.T
    x = oracle.at(t).sample(6, 12)
    found = solvers.reference(oracle, x, [t, s])
    close = solvers.flow(oracle, x, [t, s], rtol=1e-9, atol=1e-9).last
    np.testing.assert_allclose(close, found, rtol=0, atol=1e-7)
    many = solvers.flow(oracle, x, grids.log_snr(process, 200, start=t, end=s), method="rk4").last
    np.testing.assert_allclose(many, found, rtol=0, atol=1e-5)

    def flat(t: float, y: np.ndarray) -> np.ndarray:
        return np.asarray(oracle.velocity(y.reshape(x.shape), t)).ravel()

    other = scipy.integrate.solve_ivp(flat, (t, s), x.ravel(), "DOP853", rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other.y[:, -1].reshape(x.shape), found, rtol=0, atol=1e-9)
    if law.dim == 1:
        np.testing.assert_allclose(oracle.flow(x, t, s), found, rtol=0, atol=1e-9)
    bent = solvers.flow(Oracle(law.diffuse(ds.Transition(1.0, 1e-3)), process), x, [t, s]).last
    assert np.abs(bent - found).max() > 1e-5


@pytest.mark.parametrize("process", [ds.VP(), ds.Cosine(), ds.EDM()], ids=str)
def test_the_clock_of_the_flow_saves_evaluations(process: ds.Process) -> None:
    """Against steps in t, at tolerance 1e-8: fewer evaluations, and still an error of its size."""
    oracle = Oracle(MILD, process)
    start = 0.999 * process.T
    x = oracle.at(start).quantile(np.linspace(0.01, 0.99, 21))
    wanted, found = oracle.flow(x, start, 0.0), []
    for root in (1, solvers.ROOT):
        run = solvers.ode(oracle.velocity, x, [start, 0.0], rtol=1e-8, atol=1e-8, root=root)
        found.append((run.evaluations, float(np.abs(run.last - wanted).max())))
    assert found[1][0] < found[0][0]
    assert found[1][1] < 2e-7
    own = solvers.flow(oracle, x, [start, 0.0], rtol=1e-8, atol=1e-8)
    assert (own.evaluations, float(np.abs(own.last - wanted).max())) == found[1]


def test_the_clock_changes_no_fixed_steps() -> None:
    times = np.linspace(1.0, 0.0, 9)
    x = np.linspace(-1, 1, 5)[:, None]
    ends = [solvers.ode(drift_of, x, times, method="rk4", root=root).last for root in (1, 3)]
    np.testing.assert_array_equal(*ends)


@pytest.mark.parametrize(
    "process", [ds.VP(), ds.EDM(), ds.Cosine(), ds.RectifiedFlow(), ds.VE()], ids=str
)
def test_there_and_back(process: ds.Process) -> None:
    """1e-6 over all of time, from data and from noise, in 1-D and 2-D."""
    for law in (MILD, PLANE):
        oracle = Oracle(law, process)
        x = law.sample(5, 13)
        options: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-9, "method": "dopri8"}
        code = solvers.flow(oracle, x, [0.0, process.T], **options).last
        back = solvers.flow(oracle, code, [process.T, 0.0], **options).last
        np.testing.assert_allclose(back, x, rtol=0, atol=1e-6)
        assert np.abs(code - x).max() > 0.1
        if law is MILD:
            unit = math.sqrt(process.var(process.T))
            wanted = oracle.flow(x, 0.0, process.T)
            np.testing.assert_allclose(code / unit, wanted / unit, rtol=0, atol=1e-6)


class Scaled(Oracle):
    """The wrong twin: a velocity 5 % too strong."""

    def velocity(self, x: Any, t: Any) -> Any:
        return 1.05 * super().velocity(x, t)


@pytest.mark.parametrize("process", [ds.VP(), ds.EDM(10.0), ds.RectifiedFlow()], ids=repr)
def test_the_flow_is_the_quantile_map(process: ds.Process) -> None:
    """1e-7 of its size at tolerance 1e-9, from data without noise; a stronger velocity is not."""
    oracle, x = Oracle(MILD, process), MILD.sample(50, 0)
    exact = oracle.flow(x, 0.0, process.T)
    code = solvers.flow(oracle, x, [0.0, process.T], rtol=1e-9, atol=1e-9).last
    assert np.abs(code - exact).max() < 1e-7 * max(1.0, np.abs(exact).max())
    twin = solvers.flow(Scaled(MILD, process), x, [0.0, process.T]).last
    assert np.abs(twin - exact).max() > 1e-3


# ---------------------------------------------------------------- the data come back


def gap(x: Any) -> float:
    """The Kolmogorov distance to the data over its limit for a false alarm of 1e-6."""
    u = np.sort(BIMODAL.cdf(np.asarray(x)))
    n = len(u)
    far = max((np.arange(1, n + 1) / n - u).max(), (u - np.arange(n) / n).max())
    return float(far / math.sqrt(math.log(2 / 1e-6) / (2 * n)))


@compiled
@any_eta
def test_a_thousand_steps_return_the_data(eta: float) -> None:
    """From the exact p_T, 5000 points, seeds 14 and 15, at every noise level."""
    oracle = Oracle(BIMODAL, ds.VP())
    x, times = start_of(oracle, 1.0, 5000, 14), np.linspace(1.0, 0.0, 1001)
    run = solvers.reverse(oracle, x, times, 15, eta=eta, engine="fused")
    assert gap(run.last) < 1
    assert gap(x) > 1


@any_eta
def test_wrong_drifts_do_not_return_the_data(eta: float) -> None:
    """200 steps, 4000 points, seeds 14 and 15: the sign of the score, half and twice the pull."""
    process = ds.VP()
    x = start_of(Oracle(BIMODAL, process), 1.0, 4000, 14)
    times = grids.log_snr(process, 200)
    run = lambda model: solvers.reverse(model, x, times, 15, eta=eta).last  # noqa: E731
    right = Pair(process)
    y = torch.linspace(-4, 4, 9, dtype=F64)[:, None]
    torch.testing.assert_close(
        right.drift(y, 0.3, eta), Oracle(BIMODAL, process).drift(y, 0.3, eta)
    )
    assert gap(run(right)) < 1
    for twin in (Pair(process, pull=-1.0), Pair(process, pull=2.0), Pair(process, pull=0.5)):
        assert gap(run(twin)) > 1


def test_noise_of_the_wrong_size_does_not_return_the_data() -> None:
    """dX = drift dt + g dW through `ito`: g gives the data, g sqrt 2 and g^2 do not."""
    process = ds.VP()
    model, x = Pair(process), start_of(Oracle(BIMODAL, process), 1.0, 4000, 14)
    times = grids.log_snr(process, 200)

    def end(size: Callable[[float], float]) -> Any:
        return solvers.ito(model.drift, size, x, times, 15).last

    assert gap(end(process.diffusion)) < 1
    assert gap(end(lambda t: math.sqrt(2) * process.diffusion(t))) > 1
    assert gap(end(lambda t: process.diffusion(t) ** 2)) > 1


@pytest.mark.parametrize("name", ["VP", "EDM"])
def test_forward_reaches_the_law_of_the_process(name: str) -> None:
    """Seeds 16 and 17, 4000 points, 100 steps: mean and variance of X_T, |z| < 4.9."""
    process = getattr(ds, name)()
    times = process.T * np.linspace(0, 1, 101) ** 2
    x = solvers.forward(process, BIMODAL.sample(4000, 16), times, 17).last
    law = Oracle(BIMODAL, process).at(process.T)
    # Euler's own variance is 1 % off at 100 steps.
    assert abs(x.mean() - law.mean[0]) < 4.9 * math.sqrt(law.cov[0, 0] / 4000)
    assert abs(x.var() / law.cov[0, 0] - 1) < 4.9 * math.sqrt(2 / 4000) + 0.02
    assert abs(x.var() / (1.3 * law.cov[0, 0]) - 1) > 4.9 * math.sqrt(2 / 4000)


# ---------------------------------------------------------------- traps 1 to 4: steps


def accumulated(T: float, n: int, dtype: Any) -> int:
    """Steps of T/n that torchsde takes from 0 to T, by its own rule."""
    steps, t, dt = 0, dtype(0.0), dtype(T / n)
    while t < dtype(T):
        steps, t = steps + 1, min(dtype(t + dt), dtype(T))
    return steps


@pytest.mark.timeout(60)
@pytest.mark.parametrize("T", [80.0, 5.0, 19.99, 0.998])
def test_trap_1_no_remainder_step_hangs(T: float) -> None:
    """Ends of time at which T/100 leaves a 101st step, on which torchsde's own noise hangs."""
    assert accumulated(T, 100, np.float64) == 101
    process = ds.EDM(T)
    times = np.linspace(0.0, T, 101)
    for method in solvers.SDE_METHODS:
        run = solvers.forward(process, BIMODAL.sample(3, 0), times, 1, method=method)
        assert run.steps == 100
    back = solvers.reverse(Pair(process), torch.ones(3, 1), times[::-1].copy(), 1)
    assert back.steps == back.evaluations == 100


class Units(Noise):
    """Noise whose j-th number is 1 in row j and 0 elsewhere; areas have variance 1/12."""

    drawn = 0

    def _next(self, area: bool) -> torch.Tensor:
        z = torch.zeros(self.n, self.dim, dtype=self.dtype)
        z[self.drawn] = 1 / math.sqrt(12) if area else 1.0
        self.drawn += 1
        return z


@pytest.mark.parametrize("method", solvers.SDE_METHODS)
def test_trap_2_no_time_is_interpolated(method: str) -> None:
    """Var W_t = t at every time that is kept; torchsde alone answers 0.025 at t = 0.05."""
    times = np.linspace(0.0, 1.0, 11) ** 2
    unit = Units(20, 1, F64, "cpu")
    run = solvers.ito(
        lambda x, t: 0 * x, lambda t: 1.0, torch.zeros(20, 1, dtype=F64), times, unit,
        method=method, keep=range(11),
    )  # fmt: skip
    np.testing.assert_allclose(run.states.square().sum(1)[:, 0].numpy(), times, atol=1e-14)

    class Still(torch.nn.Module):
        noise_type, sde_type = "additive", "ito"

        def f(self, t: Any, y: Any) -> Any:
            return 0 * y

        def g(self, t: Any, y: Any) -> Any:
            return torch.ones(len(y), 1, 1, dtype=y.dtype)

    bm = torchsde.BrownianInterval(0.0, 1.0, size=(4000, 1), dtype=F64, entropy=0)
    ts = torch.tensor([0.0, 0.05, 1.0], dtype=F64)
    raw = torchsde.sdeint(
        Still(), torch.zeros(4000, 1, dtype=F64), ts, bm=bm, dt=0.1, method="euler"
    )
    assert abs(float(raw[1].var()) - 0.025) < 0.003


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_trap_3_steps_are_those_that_were_asked_for(dtype: torch.dtype) -> None:
    """0.01 in float32 takes 101 steps; the clock takes 100, and the model is asked 100 times."""
    assert accumulated(1.0, 100, np.float32) == 101
    counted = ds.Counted(Pair(ds.VP()))
    run = solvers.reverse(counted, torch.ones(3, 1, dtype=dtype), np.linspace(1, 0, 101), 1)
    assert counted.calls == run.steps == run.evaluations == 100
    assert counted.points == 300


@pytest.mark.timeout(60)
def test_trap_4_the_clock_counts_exactly() -> None:
    """n = 2 ... 60 on Karras's times, decreasing: each step starts at its own time, once."""
    process = ds.EDM()
    for n in range(2, 61):
        times, asked = grids.karras(process, n), []

        def drift(x: torch.Tensor, t: float) -> torch.Tensor:
            asked.append(t)  # noqa: B023
            return -x

        x = torch.ones(2, 1)
        run = solvers.ito(drift, lambda t: 1.0, x, times, n)
        assert asked == times[:-1].tolist()
        assert run.steps == run.evaluations == n
        asked.clear()
        run = solvers.ito(drift, lambda t: 1.0, x, times, n, method="srk")
        assert asked[::2] == times[:-1].tolist()
        np.testing.assert_allclose(asked[1::2], times[:-1] + 0.75 * np.diff(times), rtol=1e-12)
        assert run.evaluations == 2 * n


# ---------------------------------------------------------------- traps 5, 6 and 11: seeds, batches

RUNS: dict[str, Callable[..., Any]] = {
    "reverse": lambda x, noise, **o: solvers.reverse(
        Oracle(BIMODAL, ds.VP()), x, GRIDS["uneven"][1], noise, **o
    ),
    "srk": lambda x, noise, **o: solvers.reverse(
        Oracle(BIMODAL, ds.VP()), x, GRIDS["uneven"][1], noise, method="srk", **o
    ),
    "forward": lambda x, noise, **o: solvers.forward(
        ds.VP(), x, GRIDS["uneven"][1][::-1].copy(), noise, **o
    ),
    "fused": lambda x, noise, **o: solvers.reverse(
        Oracle(BIMODAL, ds.VP()), x, GRIDS["uneven"][1], noise, engine="fused", **o
    ),
}


@functools.cache
def many() -> np.ndarray:
    """Seed 18: two blocks and 20 rows of p_1."""
    return Oracle(BIMODAL, ds.VP()).at(1.0).sample(2 * BLOCK + 20, 18)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=compiled if n == "fused" else ()) for n in RUNS]
)
def test_traps_5_6_11_the_seed_alone_decides(name: str) -> None:
    """The same seed the same bits; in any chunk, batch, and whatever torch.manual_seed was told."""
    x, run = many(), RUNS[name]
    wanted = run(x, 7).last
    np.testing.assert_array_equal(run(x, 7, chunk=BLOCK).last, wanted)
    np.testing.assert_array_equal(run(x[:50], 7).last, wanted[:50])
    np.testing.assert_array_equal(run(x[: BLOCK + 3], np.int64(7)).last, wanted[: BLOCK + 3])
    source = Sequential(7, len(x), 1, F64)
    for _ in range(2):  # a noise object is read from its start, each time
        np.testing.assert_array_equal(run(x, source).last, wanted)
    np.testing.assert_array_equal(run(x[BLOCK:], source.part(BLOCK, len(x))).last, wanted[BLOCK:])
    before = torch.random.get_rng_state()
    torch.manual_seed(123)
    np.testing.assert_array_equal(run(x[:50], 7).last, wanted[:50])
    torch.random.set_rng_state(before)
    assert np.abs(run(x[:50], 8).last - wanted[:50]).max() > 0.1
    assert np.abs(run(x[:50], source.part(BLOCK, BLOCK + 50)).last - wanted[:50]).max() > 0.1


@compiled
def test_a_small_last_chunk_is_answered_as_the_whole() -> None:
    """Seed 18, 25 components: the rest of 20 rows alone would take another way to its score."""
    oracle = Oracle(gallery.grid(), ds.VP())
    x, times = oracle.at(1.0).sample(2 * BLOCK + 20, 18).astype(np.float32), GRIDS["uneven"][1]
    assert 20 * 25 < fused.SMALL < len(x) * 25
    whole = solvers.reverse(oracle, x, times, 7, chunk=32 * BLOCK).last
    parts = solvers.reverse(oracle, x, times, 7, chunk=BLOCK).last
    assert parts.tobytes() == whole.tobytes()
    assert solvers.reverse(oracle, x, times, 7).last.tobytes() == whole.tobytes()
    few = solvers.reverse(oracle, x[:BLOCK], times, 7).last  # a batch of its own, the other way
    assert few.tobytes() != whole[:BLOCK].tobytes()
    np.testing.assert_allclose(few, whole[:BLOCK], rtol=0, atol=1e-2)
    for method in ("euler", "rk4"):
        whole = solvers.flow(oracle, x, times, method=method, chunk=len(x)).last
        parts = solvers.flow(oracle, x, times, method=method, chunk=BLOCK).last
        assert parts.tobytes() == whole.tobytes()


def test_fixed_steps_do_not_know_their_batch() -> None:
    """torchdiffeq's fixed methods: bit for bit, chunk by chunk or row by row."""
    oracle, x = Oracle(BIMODAL, ds.VP()), many()[:40]
    for method in solvers.FIXED:
        wanted = solvers.flow(oracle, x, GRIDS["uneven"][1], method=method).last
        for chunk in (1, 7, 39):
            part = solvers.flow(oracle, x, GRIDS["uneven"][1], method=method, chunk=chunk)
            np.testing.assert_array_equal(part.last, wanted)
        assert (
            part.evaluations
            == solvers.flow(oracle, x[:3], GRIDS["uneven"][1], method=method).evaluations
        )


def test_adaptive_steps_follow_their_chunk() -> None:
    """A chunk is solved as if it were alone; within the tolerance all chunks agree (trap 8)."""
    oracle, x = Oracle(BIMODAL, ds.VP()), many()[:40]
    options: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    whole = solvers.flow(oracle, x, [1.0, 0.0], **options).last
    parts = solvers.flow(oracle, x, [1.0, 0.0], chunk=10, **options)
    alone = [solvers.flow(oracle, x[i : i + 10], [1.0, 0.0], **options) for i in range(0, 40, 10)]
    np.testing.assert_array_equal(parts.last, np.concatenate([run.last for run in alone]))
    assert parts.evaluations == max(run.evaluations for run in alone)
    np.testing.assert_allclose(parts.last, whole, rtol=0, atol=1e-5)
    assert np.abs(parts.last - whole).max() > 0


def test_the_global_generators_are_left_alone() -> None:
    """torchsde draws from them when it looks at shapes; nothing of that is left behind."""
    before, state = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    oracle, x, times = Oracle(BIMODAL, ds.VP()), np.ones((3, 1)), [1.0, 0.5, 0.2]
    for method in solvers.SDE_METHODS:
        solvers.reverse(oracle, x, times, 1, method=method)
        solvers.reverse(oracle, x, times, 1, method=method, tolerance=0.1)
        solvers.forward(oracle.process, x, times[::-1], 1, method=method)
    solvers.flow(oracle, x, times)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == state  # noqa: NPY002


# ---------------------------------------------------------------- traps 7 to 10: what ODEs refuse


@pytest.mark.parametrize("method", ["explicit_adams", "implicit_adams", "fehlberg2", "fixed_adams"])
def test_trap_7_methods_that_are_wrong_are_not_offered(method: str) -> None:
    with pytest.raises(ArgumentError, match="method must be one of dopri5, dopri8, bosh3"):
        solvers.flow(Oracle(BIMODAL, ds.VP()), np.ones((2, 1)), [1.0, 0.5], method=method)
    assert method not in solvers.ADAPTIVE + solvers.FIXED


class Spoilt(Pair):
    """NaN for the second row below t = 0.5."""

    def score(self, x: Any, t: Any) -> Any:
        value = super().score(x, t)
        return torch.where(torch.arange(len(x))[:, None] == (1 if t < 0.5 else -1), math.nan, value)


SOLVERS: dict[str, Callable[..., Any]] = {
    **{m: functools.partial(solvers.flow, method=m) for m in solvers.ADAPTIVE + solvers.FIXED},
    **{
        f"sde {m}": lambda model, x, times, m=m: solvers.reverse(model, x, times, 0, method=m)
        for m in solvers.SDE_METHODS
    },
    "sde adaptive": lambda model, x, times: solvers.reverse(model, x, times, 0, tolerance=0.05),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_trap_8_a_row_of_nan_is_named(name: str) -> None:
    """At which t, for how many rows; the same run without the row goes through."""
    x, times = torch.linspace(-3, 3, 5, dtype=F64)[:, None], np.linspace(1.0, 0.2, 9)
    words = r"model must answer with a finite (velocity|drift) at t = 0\.4\d*; got 1 rows with NaN"
    with pytest.raises(ArgumentError, match=words):
        SOLVERS[name](Spoilt(ds.VP()), x, times)
    assert bool(torch.isfinite(SOLVERS[name](Spoilt(ds.VP()), x[:1], times).last).all())


@pytest.mark.parametrize("name", SOLVERS)
def test_trap_8_no_rows_are_no_error(name: str) -> None:
    for x in (np.zeros((0, 1)), torch.zeros(0, 1)):
        run = SOLVERS[name](Oracle(BIMODAL, ds.VP()), x, [1.0, 0.5, 0.1])
        assert run.states.shape == (2, 0, 1)
        assert type(run.states) is type(x)
        assert run.reached == 0.1


@pytest.mark.parametrize("name", SOLVERS)
def test_trap_8_half_precision_is_refused(name: str) -> None:
    oracle, x = Oracle(BIMODAL, ds.VP()), torch.ones(200, 1)
    wrong = [x.half(), x.bfloat16(), x.numpy().astype(np.float16), x.numpy().astype(np.longdouble)]
    for value in wrong:
        with pytest.raises(ArgumentError, match=r"x must be float32 or float64; got b?float"):
            SOLVERS[name](oracle, value, [1.0, 0.5])


@pytest.mark.timeout(60)
def test_trap_8_a_blow_up_is_one_sentence() -> None:
    """dy/dt = y^2 ends at t = 1; a drift that jumps has no step that is short enough."""
    square = lambda y, t: y * y  # noqa: E731
    with pytest.raises(ArgumentError, match="rtol must be large enough for a step from t = "):
        solvers.ode(square, np.ones((3, 1)), [0.0, 1.5])
    with pytest.raises(ArgumentError, match="b must answer with a finite value at t = 1"):
        solvers.ode(square, np.ones((3, 1)), np.linspace(0, 1.5, 50), method="rk4")
    with pytest.raises(ArgumentError, match="drift must answer with a finite value at t = "):
        solvers.ito(square, lambda t: 0.1, np.ones((3, 1)), np.linspace(0, 30, 50), 1)
    jump = lambda y, t: -100 * torch.sign(y - 0.3)  # noqa: E731
    words = "tolerance must be large enough for steps of 1e-5 of the interval from t = 0"
    with pytest.raises(ArgumentError, match=words):
        solvers.ito(jump, lambda t: 0.0, np.ones((3, 1)), [0.0, 1.0], 1, tolerance=1e-4)


@laws
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("n", [1, 5, 60])
def test_trap_9_the_flow_ends_at_0_and_looks_no_further(
    law: Any, dtype: torch.dtype, n: int
) -> None:
    """A VP flow to t = 0, where the variance further on would be negative."""
    oracle, asked = Oracle(law, ds.VP()), []
    x = start_of(oracle, 1.0, n).to(dtype)

    def velocity(y: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return oracle.velocity(y, t)

    for method in solvers.ADAPTIVE[:1] if n > 1 else solvers.ADAPTIVE:
        tolerance = 1e-5 if method in ("dopri5", "dopri8") else 1e-3
        run = solvers.ode(velocity, x, [1.0, 0.0], method=method, rtol=tolerance, atol=tolerance)
        assert run.reached == 0.0
        assert run.last.dtype == dtype
        assert 0.0 <= min(asked) < max(asked) <= 1.0
        assert run.evaluations == len(asked)
        asked.clear()
        if law.dim == 1:
            wanted = oracle.flow(x.double(), 1.0, 0.0)
            torch.testing.assert_close(run.last.double(), wanted, rtol=0, atol=3e3 * tolerance)


def test_trap_9_torchdiffeq_alone_looks_beyond_the_end() -> None:
    """The wrong twin: without the end among its steps it asks for times below 0."""
    asked: list[float] = []

    def velocity(t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        asked.append(float(t))
        return Pair(ds.VP()).velocity(y, max(float(t), 0.0))

    ts = torch.tensor([1.0, 0.0], dtype=F64)
    torchdiffeq.odeint(velocity, torch.ones(5, 1, dtype=F64), ts, method="dopri5")
    assert min(asked) < 0


def test_trap_10_times_are_float64_whatever_the_states_are() -> None:
    """200 steps that float32 would run together near 1; torchdiffeq rounds what it hands on."""
    times = 1 - np.linspace(0, 1e-5, 200)
    assert len(np.unique(times.astype(np.float32))) < 200
    asked: list[float] = []

    def b(y: torch.Tensor, t: float) -> torch.Tensor:
        asked.append(t)
        return torch.ones_like(y)

    for x, rounding in ((torch.zeros(1, 1, dtype=F64), 0.0), (torch.zeros(1, 1), 2.0**-24)):
        asked.clear()
        run = solvers.ode(b, x, times, method="euler")
        assert run.times.tolist() == [times[0], times[-1]]
        np.testing.assert_allclose(asked, times[:-1], rtol=0, atol=rounding)
        np.testing.assert_allclose(run.last, np.diff(run.times)[:, None], rtol=2e-6)  # no step lost
        asked.clear()
        solvers.ito(b, lambda t: 0.0, x, times, 0)
        assert asked == times[:-1].tolist()


def test_trap_10_a_limit_of_evaluations_says_what_was_reached() -> None:
    """The states are those of the flow at `reached`; times that were passed keep their own."""
    oracle = Oracle(BIMODAL, ds.VP())
    x = many()[:5]
    options: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    free = solvers.flow(oracle, x, [1.0, 0.9, 0.0], keep=range(3), **options)
    assert free.reached == 0.0
    run = solvers.flow(oracle, x, [1.0, 0.9, 0.0], keep=range(3), limit=150, **options)
    assert run.evaluations == 150 < free.evaluations
    assert 0.0 < run.reached < 0.9
    assert 0 < run.steps < free.steps
    np.testing.assert_allclose(run.last, oracle.flow(x, 1.0, run.reached), rtol=0, atol=1e-5)
    assert np.abs(run.last - oracle.flow(x, 1.0, run.reached - 0.01)).max() > 1e-4
    np.testing.assert_array_equal(run.states[0], x)
    np.testing.assert_allclose(run.states[1], free.states[1], rtol=1e-12)
    for limit in (1, 2):  # before any step
        none = solvers.flow(oracle, x, [1.0, 0.0], limit=limit)
        assert (none.reached, none.steps) == (1.0, 0)
        np.testing.assert_array_equal(none.last, x)
    times = np.linspace(1.0, 0.5, 21)
    fixed = solvers.flow(oracle, x, times, method="heun2", limit=21)
    assert (fixed.reached, fixed.steps) == (times[10], 10)
    half = solvers.flow(oracle, x, times[:11], method="heun2")
    np.testing.assert_array_equal(fixed.last, half.last)
    parts = solvers.flow(oracle, x, [1.0, 0.0], limit=100, chunk=1, **options)
    alone = [solvers.flow(oracle, row[None], [1.0, 0.0], limit=100, **options) for row in x]
    assert parts.reached == max(run.reached for run in alone)  # the least far of all


# ---------------------------------------------------------------- adaptive SDE steps


@pytest.mark.timeout(120)
@pytest.mark.parametrize("method", ["euler", "srk"])
def test_adaptive_steps_return_the_data(method: str) -> None:
    """Seeds 19 and 20, 1500 points, tolerance 0.03: KS; the same seed gives the same bits."""
    process = ds.VP()
    model, x = Pair(process), start_of(Oracle(BIMODAL, process), 1.0, 1500, 19)
    times = [1.0, 0.5, 0.2, 0.0]
    run = solvers.reverse(model, x, times, 20, method=method, tolerance=0.03, keep=range(4))
    assert gap(run.last) < 1
    assert run.states.shape == (4, 1500, 1)
    assert run.steps > 10 and run.evaluations > run.steps
    twin = solvers.reverse(Pair(process, pull=2.0), x, times, 20, method=method, tolerance=0.03)
    assert gap(twin.last) > 1
    few = solvers.reverse(model, x[:40], times, 20, method=method, tolerance=0.03).last
    again = solvers.reverse(model, x[:40], times, 20, method=method, tolerance=0.03).last
    other = solvers.reverse(model, x[:40], times, 21, method=method, tolerance=0.03).last
    assert torch.equal(few, again)
    assert float((few - other).abs().max()) > 0.1


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize("name", SOLVERS)
def test_library_and_dtype_are_kept(name: str) -> None:
    oracle, x, times = Oracle(BIMODAL, ds.VP()), many()[:4], np.linspace(1.0, 0.3, 6)
    kinds = (x, x.astype(np.float32), torch.from_numpy(x), torch.from_numpy(x).float())
    for value in kinds:
        run = SOLVERS[name](oracle, value, times)
        assert type(run.states) is type(run.last) is type(value)
        assert run.states.dtype == value.dtype
        assert run.states.shape == (2, 4, 1)
        assert run.times.dtype == np.float64
        np.testing.assert_array_equal(np.asarray(run.states[0]), np.asarray(value))
    swapped = SOLVERS[name](oracle, x.astype(">f8"), times)  # another order of bytes
    np.testing.assert_array_equal(swapped.last, SOLVERS[name](oracle, x, times).last)
    graph = torch.from_numpy(x).requires_grad_()
    assert not SOLVERS[name](oracle, graph, times).last.requires_grad


def test_places_are_kept_as_they_are_named() -> None:
    oracle, x, times = Oracle(BIMODAL, ds.VP()), many()[:4], np.linspace(1.0, 0.3, 6)
    every = solvers.reverse(oracle, x, times, 0, keep=range(6))
    some = solvers.reverse(oracle, x, times, 0, keep=[5, 2, 2, 0])
    np.testing.assert_array_equal(some.states, every.states[[5, 2, 2, 0]])
    np.testing.assert_array_equal(some.times, times[[5, 2, 2, 0]])
    flow = solvers.flow(oracle, x, times, keep=np.array([3, 1]), method="rk4")  # type: ignore[arg-type]
    all_of_it = solvers.flow(oracle, x, times, keep=range(6), method="rk4")
    np.testing.assert_array_equal(flow.states, all_of_it.states[[3, 1]])


def test_a_stored_path_is_of_the_times_of_the_run() -> None:
    """A path that is not `on` the grid would be read as another one: it is refused."""
    oracle, x, fine = Oracle(BIMODAL, ds.VP()), many()[:4], np.linspace(1.0, 0.2, 9)
    path = Stored.drawn(0, 4, 1, fine)
    solvers.reverse(oracle, x, fine[::2], path.on(fine[::2]))
    for wrong in (path, path.on(fine[::4]), Stored.drawn(0, 4, 1, 0.9 * fine[::2])):
        with pytest.raises(ArgumentError, match=r"noise must be stored on the times of the run"):
            solvers.reverse(oracle, x, fine[::2], wrong)
    with pytest.raises(ArgumentError, match="noise must have 3 rows of 1"):
        solvers.reverse(oracle, x[:3], fine, path)
    long = Stored.drawn(0, len(many()), 1, [1.0, 0.5])
    with pytest.raises(ArgumentError, match="chunk must be at least 8212 rows for stored noise"):
        solvers.reverse(oracle, many(), [1.0, 0.5], long, chunk=BLOCK)


# ---------------------------------------------------------------- the start


def test_a_wrong_start_is_warned_of_and_a_right_one_is_not() -> None:
    """The note score_based_sde starts N(0, 1) where p_1 has mean -0.6 and deviation 1.34."""
    law = ds.GaussianMixture([0.8, 0.2], [[-1.0], [1.0]], [[[0.16]], [[0.09]]])
    oracle = Oracle(law, ds.EDM(1.0))  # var(1) = 1, as dX = dW has it
    x = np.random.default_rng(0).standard_normal((2000, 1))
    words = r"at t = 1 has -0\.6 and 1\.336: start from oracle\.at\(1\)\.sample\(\.\.\.\)"
    engines = ["torchsde", "fused"] if fused.available() else ["torchsde"]
    for engine in engines:
        with pytest.warns(PriorWarning, match=words):
            solvers.reverse(oracle, x, [1.0, 0.5, 0.0], 0, engine=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(5):
            right = oracle.at(1.0).sample(2000, seed)
            solvers.reverse(oracle, right, [1.0, 0.5], 0)
            solvers.reverse(oracle, oracle.at(0.5).sample(2000, seed), [0.5, 0.25], 0)
        solvers.reverse(oracle, x[:50], [1.0, 0.5], 0)  # too few to say
        solvers.reverse(ds.Counted(oracle), x, [1.0, 0.5], 0)  # who counts knows no truth


# ---------------------------------------------------------------- refusals

ORACLE = Oracle(BIMODAL, ds.VP())
Y = np.ones((3, 1))
DOWN, UP = [1.0, 0.5, 0.2], [0.2, 0.5, 1.0]
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown SDE method": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, method="heun"),
        "method must be one of euler, milstein, srk; got heun",
    ),
    "an unknown engine": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, engine="jax"),
        "engine must be torchsde or fused; got jax",
    ),
    "times that rise": (lambda: solvers.reverse(ORACLE, Y, UP, 0), "times must be decreasing"),
    "times that fall": (
        lambda: solvers.forward(ORACLE.process, Y, DOWN, 0),
        "times must be increasing",
    ),
    "times that turn": (
        lambda: solvers.flow(ORACLE, Y, [1.0, 0.2, 0.5]),
        "times must be two or more numbers, increasing or decreasing",
    ),
    "a start outside": (
        lambda: solvers.reverse(ORACLE, Y, [1.5, 0.5], 0),
        r"times must lie in \[0",
    ),
    "noise where g is infinite": (
        lambda: solvers.reverse(Oracle(BIMODAL, ds.Cosine()), Y, DOWN, 0),
        "times must start before alpha is 0, where g is infinite; got 1.0",
    ),
    "a negative eta": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, eta=-1.0),
        "eta must be a number of at least 0; got -1.0",
    ),
    "a place out of range": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, keep=[3]),
        "keep must be a whole number from 0 to 2; got 3",
    ),
    "half a place": (
        lambda: solvers.flow(ORACLE, Y, DOWN, keep=[0.5]),  # type: ignore[list-item]
        "keep must be a whole number from 0 to 2; got 0.5",
    ),
    "a chunk of other size": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, chunk=BLOCK + 1),
        f"chunk must be a multiple of {BLOCK}",
    ),
    "a small chunk, fused": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, chunk=7, engine="fused"),
        "chunk must be a whole number of at least",
    ),
    "noise of other rows": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, Sequential(0, 4, 1)),
        r"noise must have 3 rows of 1; got \(4, 1\)",
    ),
    "a generator for noise": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, torch.Generator()),  # type: ignore[arg-type]
        "noise must be a whole number of at least 0",
    ),
    "tolerance of 0": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, tolerance=0.0),
        "tolerance must be a number of at least 1e-07; got 0.0",
    ),
    "tolerance below torchsde's": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, 0, tolerance=1e-12),
        "tolerance must be a number of at least 1e-07",
    ),
    "tolerance and a noise object": (
        lambda: solvers.reverse(ORACLE, Y, DOWN, Sequential(0, 3, 1), tolerance=0.1),
        "noise must be a whole number",
    ),
    "rtol of 0": (lambda: solvers.flow(ORACLE, Y, DOWN, rtol=0.0), "rtol must be a positive"),
    "atol below 0": (lambda: solvers.flow(ORACLE, Y, DOWN, atol=-1.0), "atol must be a positive"),
    "a limit of 0": (
        lambda: solvers.flow(ORACLE, Y, DOWN, limit=0),
        "limit must be a whole number",
    ),
    "flat points": (
        lambda: solvers.flow(ORACLE, Y[:, 0], DOWN),
        r"x must be points of shape \(n, D",
    ),
    "a drift of another shape": (
        lambda: solvers.ito(lambda x, t: x[:, 0], lambda t: 1.0, Y, UP, 0),
        r"drift must answer with shape \(3, 1\); got shape \(3,\)",
    ),
    "a right-hand side of another shape": (
        lambda: solvers.ode(lambda x, t: x[:1], Y, UP),
        r"b must answer with shape \(3, 1\); got shape \(1, 1\)",
    ),
    "a diffusion of another shape": (
        lambda: solvers.ito(lambda x, t: x, lambda x, t: x[:, 0], Y, UP, 0, diagonal=True),
        r"diffusion must answer with shape \(3, 1\); got shape \(3,\)",
    ),
    "a diffusion of NaN": (
        lambda: solvers.ito(lambda x, t: x, lambda x, t: math.nan * x, Y, UP, 0, diagonal=True),
        "diffusion must answer with a finite value at t = 0.2; got 3 rows",
    ),
    "an infinite diffusion": (
        lambda: solvers.ito(lambda x, t: x, lambda t: math.inf, Y, UP, 0),
        "diffusion must be a finite number at t = 0.2; got inf",
    ),
    "an array for additive noise": (
        lambda: solvers.ito(lambda x, t: x, lambda t: torch.ones(3), Y, UP, 0),
        "diffusion must be a finite number at t = 0.2; got tensor",
    ),
    "a clock with no beginning": (
        lambda: solvers.ode(drift_of, Y, [-1.0, 1.0], root=3),
        "times must be 0 or more for root = 3",
    ),
    "a tensor and a device": (
        lambda: solvers.flow(ORACLE, torch.ones(3, 1), DOWN, device="cpu"),
        "device must be left out for a start that has one; got cpu",
    ),
    "no such device": (
        lambda: solvers.flow(ORACLE, Y, DOWN, device="abacus"),
        "device must be one that torch knows",
    ),
    "no drift": (lambda: solvers.ito("b", lambda t: 1.0, Y, UP, 0), "drift must be a function"),  # type: ignore[arg-type]
    "no process": (lambda: solvers.forward("VP", Y, UP, 0), "process must be a Process"),  # type: ignore[arg-type]
    "no model": (lambda: solvers.flow("model", Y, UP), "model must be a Model"),  # type: ignore[arg-type]
    "a chain": (
        lambda: solvers.flow(Oracle(BIMODAL, ds.Chain.linear(9)), Y, [9.0, 0.0]),
        "process must be continuous in time",
    ),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_named(case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(ArgumentError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
