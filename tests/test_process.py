"""Transitions form a monoid; processes are paths in it, with derivatives that are right."""

from __future__ import annotations

from typing import Any

import array_api_strict
import mpmath as mp
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import samplers, testing

PROCESSES = {**testing.processes(), "VE falling": ds.VE(0.5)}  # g(t) = sigma^t, sigma < 1
CONTINUOUS = {name: p for name, p in PROCESSES.items() if not isinstance(p, ds.Chain)}
CHAINS = {name: p for name, p in PROCESSES.items() if isinstance(p, ds.Chain)}

processes = pytest.mark.parametrize("name", PROCESSES)
continuous = pytest.mark.parametrize("name", CONTINUOUS)
chains = pytest.mark.parametrize("name", CHAINS)

_low: Any = mp.mpf(0.01)

# alpha and var at 40 digits, written from the papers' definitions and not from the package.
EXACT: dict[str, Any] = {
    "VP": lambda t: (mp.exp(-_B(t) / 2), 1 - mp.exp(-_B(t))),
    "SubVP": lambda t: (mp.exp(-_B(t) / 2), (1 - mp.exp(-_B(t))) ** 2),
    "Cosine": lambda t: (_cos(t), 1 - _cos(t) ** 2),
    "VE": lambda t: (mp.mpf(1), (mp.mpf(25) ** (2 * t) - 1) / (2 * mp.log(25))),
    "VE falling": lambda t: (mp.mpf(1), (mp.mpf(0.5) ** (2 * t) - 1) / (2 * mp.log(0.5))),
    "VEGeometric": lambda t: (mp.mpf(1), _low**2 * ((50 / _low) ** (2 * t) - 1)),
    "EDM": lambda t: (mp.mpf(1), t * t),
    "RectifiedFlow": lambda t: (1 - t, t * t),
    "Sigmoid": lambda t: (mp.sqrt(1 - _share(t)), _share(t)),
    "Polynomial": lambda t: (1 - t * t, 1 - (1 - t * t) ** 2),
}


def _B(t: Any) -> Any:
    low = mp.mpf(0.1)
    return low * t + (20 - low) * t * t / 2


def _cos(t: Any) -> Any:
    s = mp.mpf(0.008)
    return mp.cos((t + s) / (1 + s) * mp.pi / 2) / mp.cos(s / (1 + s) * mp.pi / 2)


def _share(t: Any) -> Any:
    low, here, high = (1 / (1 + mp.exp(-u)) for u in (mp.mpf(-3), -3 + 6 * t, mp.mpf(3)))
    return (here - low) / (high - low)


def exact_step(name: str, s: float, t: float) -> tuple[float, float]:
    with mp.workdps(60):
        (a_s, v_s), (a_t, v_t) = EXACT[name](mp.mpf(s)), EXACT[name](mp.mpf(t))
        a = a_t / a_s
        return float(a), float(v_t - a * a * v_s)


# ---------------------------------------------------------------- the monoid


def test_transitions_form_a_monoid() -> None:
    random = np.random.default_rng(0)
    a, b, c = (
        ds.Transition(random.standard_normal(7), random.exponential(size=7)) for _ in range(3)
    )
    left, right = a.then(b).then(c), a.then(b.then(c))
    for one, other in ((left.scale, right.scale), (left.var, right.var)):
        np.testing.assert_allclose(one, other, rtol=1e-15)
    e = ds.Transition.identity()
    for same in (a.then(e), e.then(a)):
        assert np.array_equal(same.scale, a.scale)
        assert np.array_equal(same.var, a.var)
    # The order matters: noise that comes first is scaled later.
    assert ds.Transition(0.5, 1.0).then(ds.Transition(2.0, 3.0)).var == 7.0
    assert ds.Transition(2.0, 3.0).then(ds.Transition(0.5, 1.0)).var == 1.75


def test_applying_one_after_the_other_has_the_law_of_both() -> None:
    """Mean and variance of 200,000 paths within 4.9 standard errors (1e-6 each), seed 1."""
    random, n = np.random.default_rng(1), 200_000
    first, second = ds.Transition(0.7, 0.4), ds.Transition(-1.3, 0.2)
    x = second.apply(first.apply(np.full((n, 1), 2.0), random.standard_normal((n, 1))),
                     random.standard_normal((n, 1)))  # fmt: skip
    both = first.then(second)
    assert abs(x.mean() - 2 * both.scale) < 4.9 * np.sqrt(both.var / n)
    assert abs(x.var() / both.var - 1) < 4.9 * np.sqrt(2 / n)
    assert abs(x.var() / (1.05 * both.var) - 1) > 4.9 * np.sqrt(2 / n)  # 5 % off


# ---------------------------------------------------------------- values


@continuous
def test_alpha_and_var_at_40_digits(name: str) -> None:
    process = PROCESSES[name]
    for fraction in (0.0, 1e-12, 1e-5, 0.01, 0.3, 0.7, 0.999, 1.0):
        t = fraction * process.T
        with mp.workdps(60):
            alpha, var = (float(v) for v in EXACT[name](mp.mpf(t)))
        assert process.alpha(t) == pytest.approx(alpha, rel=1e-13, abs=1e-16)
        assert process.var(t) == pytest.approx(var, rel=1e-13, abs=0.0)


@continuous
@pytest.mark.parametrize("step", [1e-12, 1e-9, 1e-6, 1e-3, 0.1, 0.3])
def test_short_steps_keep_their_digits(name: str, step: float) -> None:
    process = PROCESSES[name]
    for start in (0.0, 1e-3, 0.1, 0.5, 0.69):
        s = start * process.T
        t = (start + step) * process.T
        scale, var = exact_step(name, s, t)
        got = process.between(s, t)
        # The angle, exponent or difference t - s is known to a rounding of t.
        loss = 1e-13 + 4e-16 * t / (t - s)
        assert got.scale == pytest.approx(scale, rel=1e-13)
        limit = min(loss, 1e-12) if s == 0 else 1e-12
        assert got.var == pytest.approx(var, rel=limit, abs=0.0)
        assert 1.05 * got.var != pytest.approx(var, rel=min(limit, 0.01), abs=0.0)


@chains
def test_chains_at_40_digits(name: str) -> None:
    chain = PROCESSES[name]
    assert isinstance(chain, ds.Chain)
    with mp.workdps(60):
        product = mp.mpf(1)
        bars = [product]
        for beta in chain.betas:
            product *= 1 - mp.mpf(float(beta))
            bars.append(product)
        k = np.arange(chain.K + 1)
        alpha, var = [float(mp.sqrt(b)) for b in bars], [float(1 - b) for b in bars]
        np.testing.assert_allclose(chain.alpha(k), alpha, rtol=1e-14)
        np.testing.assert_allclose(chain.var(k), var, rtol=1e-14)
        for s, t in ((0, chain.K), (3, 4), (3, 20), (chain.K - 1, chain.K)):
            step = chain.between(s, t)
            assert step.scale == pytest.approx(float(mp.sqrt(bars[t] / bars[s])), rel=1e-14)
            assert step.var == pytest.approx(float(1 - bars[t] / bars[s]), rel=1e-13)
    one = chain.between(k[:-1], k[1:])
    np.testing.assert_allclose(one.var, chain.betas, rtol=1e-12)


@pytest.mark.parametrize("beta", [1e-12, 0.02, 0.9, 1 - 1e-12])
def test_a_chain_of_one_step(beta: float) -> None:
    def same(one: ds.Transition, other: ds.Transition) -> None:
        assert one.scale == pytest.approx(other.scale, rel=1e-15, abs=0.0)
        assert one.var == pytest.approx(other.var, rel=1e-15, abs=0.0)

    chain, step = ds.Chain([beta]), ds.Transition(np.sqrt(1 - beta), beta)
    assert (chain.K, chain.T) == (1, 1.0)
    assert np.array_equal(testing.times(chain), [1.0])
    same(chain.at(1), step)
    same(chain.between(0, 1), step)
    same(chain.between(1, 1), ds.Transition.identity())
    assert chain.time_of_log_snr(chain.log_snr(1)) == 1.0
    for twin in (ds.Transition(step.scale, 1.05 * beta), ds.Transition(1 - beta, beta)):
        with pytest.raises(AssertionError):
            same(chain.at(1), twin)


def test_a_chain_of_a_process_is_that_process() -> None:
    t = np.linspace(0, 1, 51)
    chain = ds.Chain.of(ds.VP(), t)
    np.testing.assert_allclose(chain.alpha(np.arange(51)), ds.VP().alpha(t), rtol=1e-13)
    np.testing.assert_allclose(chain.var(np.arange(51)), ds.VP().var(t), rtol=1e-13)
    cosine = ds.Chain.cosine(1000)
    np.testing.assert_allclose(
        cosine.alpha(np.arange(900)), ds.Cosine().alpha(np.arange(900) / 1000), rtol=1e-11
    )
    with pytest.raises(ds.ArgumentError, match="process must preserve variance"):
        ds.Chain.of(ds.VE(), t)


@pytest.mark.parametrize("process", [ds.Sigmoid(), ds.Polynomial(), ds.Cosine()], ids=str)
def test_a_chain_whose_last_beta_has_a_ceiling(process: ds.Process) -> None:
    """alpha(T) = 0 asks for beta_K = 1, which no chain has; below the ceiling nothing changes."""
    t = np.linspace(0, 1, 21)
    with pytest.raises(ds.ArgumentError, match=r"betas must lie in \(0, 1\)"):
        ds.Chain.of(process, t)
    chain = ds.Chain.of(process, t, 0.99)
    np.testing.assert_allclose(chain.alpha(np.arange(20)), process.alpha(t[:-1]), rtol=1e-12)
    assert chain.betas[-1] == 0.99
    assert chain.alpha(20) == pytest.approx(0.1 * process.alpha(t[-2]), rel=1e-12)


def test_schedules_are_those_of_the_papers() -> None:
    """gamma of Chen 2023, algorithm 1, as it stands there; alpha of Hoogeboom et al. 2022."""
    t = np.linspace(0, 1, 11)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    for start, end, tau in ((-3.0, 3.0, 1.0), (0.0, 3.0, 0.9)):
        low, high = sigmoid(start / tau), sigmoid(end / tau)
        gamma = (high - sigmoid((t * (end - start) + start) / tau)) / (high - low)
        found = ds.Sigmoid(start, end, tau).alpha(t) ** 2
        np.testing.assert_allclose(found, gamma, rtol=1e-12, atol=1e-15)
        assert np.abs(ds.Sigmoid(start, end, 1.05 * tau).alpha(t) ** 2 - gamma).max() > 1e-3
    np.testing.assert_allclose(ds.Polynomial(3.0).alpha(t), 1 - t**3, rtol=1e-14, atol=1e-16)


@processes
def test_paths_start_at_the_data_and_compose(name: str) -> None:
    process = PROCESSES[name]
    assert process.alpha(0.0) == 1.0
    assert process.var(0.0) == 0.0
    t = testing.times(process, np.linspace(0.05, 0.95, 19))
    i, j = np.triu_indices(len(t))
    path = process.at(t[i]).then(process.between(t[i], t[j]))
    np.testing.assert_allclose(path.scale, process.alpha(t[j]), rtol=1e-13)
    np.testing.assert_allclose(path.var, process.var(t[j]), rtol=1e-13)
    still = process.between(t, t)
    assert np.all(still.scale == 1.0)
    assert np.all(still.var == 0.0)
    a, b, c = t[2], t[len(t) // 2], t[-1]
    broken, whole = process.between(a, b).then(process.between(b, c)), process.between(a, c)
    assert broken.scale == pytest.approx(whole.scale, rel=1e-13)
    assert broken.var == pytest.approx(whole.var, rel=1e-13)


# ---------------------------------------------------------------- derivatives and SDE


@continuous
def test_derivatives_are_automatic_ones(name: str) -> None:
    process = PROCESSES[name]
    t = torch.linspace(0.001, 0.999, 101, dtype=torch.float64) * process.T
    t.requires_grad_(True)
    for value, slope in ((process.alpha, process.dalpha), (process.var, process.dvar)):
        answer = value(t)
        if answer.requires_grad:
            (wanted,) = torch.autograd.grad(answer.sum(), t)
        else:
            wanted = torch.zeros_like(answer)
        torch.testing.assert_close(slope(t.detach()), wanted, rtol=1e-12, atol=1e-12)
        assert float((1.05 * slope(t.detach()) - wanted).abs().max()) > 1e-6 or not wanted.any()


@continuous
def test_drift_and_diffusion_are_limits_of_steps(name: str) -> None:
    """(between(t, t + h) - identity)/h tends to (f, g^2): Richardson's extrapolation, order 2."""
    process = PROCESSES[name]
    t, h = np.linspace(0.05, 0.9, 18) * process.T, 1e-4 * process.T

    def quotients(h: float) -> np.ndarray:
        step = process.between(t, t + h)
        return np.stack([np.broadcast_to((step.scale - 1) / h, t.shape), step.var / h])

    slope = (quotients(h) - 6 * quotients(h / 2) + 8 * quotients(h / 4)) / 3
    f, g = process.drift(t), process.diffusion(t)
    np.testing.assert_allclose(slope[0], f, rtol=1e-6, atol=1e-8 / process.T)
    np.testing.assert_allclose(slope[1], g**2, rtol=1e-6)
    assert np.all(np.abs(slope[1] / (1.05 * g) ** 2 - 1) > 0.05)  # the twin


def test_diffusions_are_those_of_the_papers() -> None:
    t = np.linspace(0, 1, 11)
    beta = 0.1 + 19.9 * t
    np.testing.assert_allclose(ds.VP().diffusion(t) ** 2, beta, rtol=1e-12)
    np.testing.assert_allclose(ds.VP().drift(t), -beta / 2, rtol=1e-13)
    np.testing.assert_allclose(ds.VE(25.0).diffusion(t), 25.0**t, rtol=1e-13)
    np.testing.assert_allclose(ds.EDM().diffusion(t) ** 2, 2 * t, rtol=1e-13)
    integral = 0.1 * t + 19.9 * t**2 / 2
    np.testing.assert_allclose(
        ds.SubVP().diffusion(t) ** 2, beta * -np.expm1(-2 * integral), rtol=1e-12
    )


@processes
def test_log_snr_falls_and_is_inverted(name: str) -> None:
    process = PROCESSES[name]
    t = testing.times(process, np.linspace(0.01, 0.99, 60))
    level = process.log_snr(t)
    assert np.all(np.diff(level) < 0)
    np.testing.assert_allclose(
        level, np.log(process.alpha(t) ** 2 / process.var(t)), rtol=1e-12, atol=1e-12
    )
    if isinstance(process, ds.Chain):
        assert np.array_equal(process.time_of_log_snr(level + 1e-9), t)
        assert process.time_of_log_snr(1e9) == 1.0
    else:
        back = process.time_of_log_snr(level)
        np.testing.assert_allclose(process.log_snr(back), level, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(back, t, rtol=1e-11)
        small = 1e-6 * process.T
        assert process.time_of_log_snr(process.log_snr(small)) == pytest.approx(small, rel=1e-10)
        assert process.time_of_log_snr(1e9) == pytest.approx(0.0, abs=1e-20)
    assert process.log_snr(0.0) == np.inf
    assert process.time_of_log_snr(-1e9) == process.T


@processes
def test_closed_forms_are_the_bisection(name: str) -> None:
    """From 1e-20 T to T within the rounding of the level; and ends stay ends."""
    process = PROCESSES[name]
    if isinstance(process, ds.Chain):
        return
    t = process.T * np.concatenate([[1e-20, 1e-12, 1e-6], np.linspace(1e-3, 0.999, 200)])
    level = process.log_snr(t)
    slope = np.abs(2 * process.dalpha(t) / process.alpha(t) - process.dvar(t) / process.var(t))
    allowed = 4 * 2.0**-52 * ((np.abs(level) + 2) / slope + t)
    for found in (process._time(level), ds.Process._time(process, level)):
        assert np.all(np.abs(found - t) <= allowed)
    assert np.any(np.abs(process.time_of_log_snr(level + 1e-12) - t) > allowed)
    ends = process.time_of_log_snr(np.array([-1e9, -2000.0, 2000.0, 1e9]))
    np.testing.assert_allclose(ends, [process.T, process.T, 0, 0], rtol=0, atol=1e-150)


UNUSUAL = [ds.VP(5.0, 0.1), ds.VP(2.0, 2.0), ds.VE(0.5), ds.Cosine(0.0), ds.Sigmoid(0.0, 3.0, 0.7)]
UNUSUAL += [ds.Sigmoid(-60.0, 1.0), ds.Polynomial(1.0), ds.Polynomial(3.5)]


@pytest.mark.parametrize("process", UNUSUAL, ids=str)
def test_closed_forms_of_unusual_processes(process: ds.Process) -> None:
    """beta that falls or stays, noise that shrinks, no offset: to 1e-12 and silent at the ends."""
    t = process.T * np.linspace(1e-3, 0.999, 200)
    np.testing.assert_allclose(process.time_of_log_snr(process.log_snr(t)), t, rtol=1e-12)
    ends = process.time_of_log_snr(np.array([-1e9, -2000.0, 2000.0, 1e9]))
    np.testing.assert_allclose(ends, [process.T, process.T, 0, 0], rtol=0, atol=1e-150)


@processes
def test_kinds_of_numbers_are_kept(name: str) -> None:
    process = PROCESSES[name]
    t = testing.times(process)
    answers = ["alpha", "var", "log_snr"]
    answers += ["dalpha", "dvar", "drift", "diffusion"] if name in CONTINUOUS else []
    for answer in answers:
        ask = getattr(process, answer)
        assert isinstance(ask(float(t[1])), float)
        assert ask(t).dtype == np.float64
        assert ask(t).shape == t.shape
        for dtype in (torch.float32, torch.float64):
            got = ask(torch.as_tensor(t, dtype=dtype))
            assert isinstance(got, torch.Tensor)
            assert got.dtype == dtype
        exact = ask(torch.as_tensor(t, dtype=torch.float32).double())
        near = ask(torch.as_tensor(t, dtype=torch.float32)).double()
        torch.testing.assert_close(near, exact, rtol=2e-7, atol=0.0)
        grid = ask(t[:4].reshape(2, 2))
        np.testing.assert_array_equal(grid.ravel(), ask(t[:4]))


@processes
def test_processes_use_nothing_outside_the_array_api(name: str) -> None:
    process = PROCESSES[name]
    t = testing.times(process)
    strict = array_api_strict.asarray(t)
    answers = ["alpha", "var", "log_snr"]
    answers += ["dalpha", "dvar", "drift", "diffusion"] if name in CONTINUOUS else []
    for answer in answers:
        found = getattr(process, answer)(strict)
        assert type(found) is type(strict)
        np.testing.assert_allclose(np.asarray(found), getattr(process, answer)(t), rtol=1e-12)
    assert type(process.between(strict[:1], strict[-1:]).var) is type(strict)
    assert type(process.time_of_log_snr(process.log_snr(strict))) is type(strict)


# ---------------------------------------------------------------- paths, sampled


@processes
def test_forward_paths_have_the_law_at_every_time(name: str) -> None:
    """Paths of three steps against the exact law, KS at 1e-6 each; their twin 5 % off, seed 2."""
    process, law = PROCESSES[name], ds.gallery.julia_bimodal()
    random = np.random.default_rng(2)
    grid = [0.0, *testing.times(process, (0.1, 0.4, 0.9))]
    for t, x in samplers.forward(process, law.sample(100_000, random), grid, random):
        testing.assert_samples_follow(x, law.diffuse(process.at(t)))
    with pytest.raises(AssertionError, match="cdfs differ"):
        testing.assert_samples_follow(1.05 * x, law.diffuse(process.at(grid[-1])))
