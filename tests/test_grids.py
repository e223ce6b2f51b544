"""Time grids: on every process, from start to end exactly, even in the variable that each names.

    uniform t,   cosine arccos(1 - (t - b)/(a - b)),   log_snr log(alpha^2/var),
    karras (sqrt(var)/alpha)^(1/rho)

Grids and processes are found, not listed. On a chain times are whole, and even only up to that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import diffscience as ds
from diffscience import grids, testing
from diffscience.errors import ArgumentError

PROCESSES = testing.processes(steps=200)
CONTINUOUS = {name: p for name, p in PROCESSES.items() if not isinstance(p, ds.Chain)}
CHAINS = {name: p for name, p in PROCESSES.items() if isinstance(p, ds.Chain)}
BY_LEVEL = ("log_snr", "karras")

every_grid = pytest.mark.parametrize("grid", grids.ALL)
processes = pytest.mark.parametrize("process", PROCESSES)
continuous = pytest.mark.parametrize("process", CONTINUOUS)


def variable(grid: str, process: ds.Process, times: np.ndarray, rho: float = 7.0) -> np.ndarray:
    """What the grid is even in, at its times."""
    if grid == "uniform":
        return times
    if grid == "cosine":
        return np.arccos(np.clip(1 - (times - times[-1]) / (times[0] - times[-1]), -1, 1))
    level = np.asarray(process.log_snr(times))
    return level if grid == "log_snr" else np.exp(-0.5 * level / rho)


def assert_even(values: np.ndarray, tolerance: float) -> None:
    steps = np.diff(values)
    assert np.abs(steps - steps.mean()).max() <= tolerance * np.abs(values).max()


def assert_grid(times: np.ndarray, steps: int, start: float, end: float) -> None:
    """steps + 1 float64 times that fall from start to end, both hit exactly."""
    assert times.dtype == np.float64
    assert times.shape == (steps + 1,)
    assert times[0] == start
    assert times[-1] == end
    assert np.all(np.diff(times) < 0)


@every_grid
@continuous
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 57])
def test_a_grid_falls_from_start_to_end(grid: str, process: str, steps: int) -> None:
    path = CONTINUOUS[process]
    assert_grid(grids.ALL[grid](path, steps), steps, path.T, 0.0)
    start, end = 0.8 * path.T, 0.03 * path.T
    times = grids.ALL[grid](path, steps, start=start, end=end)
    assert_grid(times, steps, start, end)
    for wrong in (times[::-1], times[:-1], times * (1 - 1e-15), np.append(times[:-1], end / 2)):
        with pytest.raises(AssertionError):
            assert_grid(wrong, steps, start, end)


@every_grid
@continuous
def test_a_grid_is_even_in_its_own_variable(grid: str, process: str) -> None:
    path = CONTINUOUS[process]
    times = grids.ALL[grid](path, 40, start=0.8 * path.T, end=0.03 * path.T)
    assert_even(variable(grid, path, times), 1e-9)
    times[20] += 1e-4 * (times[19] - times[20])
    with pytest.raises(AssertionError):
        assert_even(variable(grid, path, times), 1e-9)
    for other in grids.ALL:  # and in no other one's
        same = {other, grid} == {"uniform", "karras"} and isinstance(path, ds.EDM)
        if other != grid and not same:
            with pytest.raises(AssertionError):
                assert_even(variable(other, path, times), 1e-9)


@pytest.mark.parametrize("grid", BY_LEVEL)
@continuous
@pytest.mark.parametrize("least", [1e-3, 1e-2])
def test_a_grid_by_level_ends_at_the_least_time_before_its_end(
    grid: str, process: str, least: float
) -> None:
    """Even down to least T, then 0, as var(0) = 0; where alpha(T) = 0, even from T (1 - 1e-3)."""
    path = CONTINUOUS[process]
    times = grids.ALL[grid](path, 30, least=least)
    assert times[-1] == 0.0
    assert times[-2] == least * path.T
    inner = times[:-1].copy()
    if path.alpha(path.T) == 0:
        inner[0] = path.T * (1 - 1e-3)
    assert_even(variable(grid, path, inner), 1e-9)
    with pytest.raises(AssertionError):
        assert_even(variable(grid, path, inner[1:] + 1e-6 * path.T), 1e-9)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
def test_karras_is_the_published_schedule(rho: float) -> None:
    """Karras et al. 2022, eq. 5, for EDM, where t is the noise level: sigma_i to rounding."""
    low, high, n = 0.002, 80.0, 18
    i = np.arange(n)
    a, b = high ** (1 / rho), low ** (1 / rho)
    wanted = (a + i / (n - 1) * (b - a)) ** rho
    times = grids.karras(ds.EDM(high), n, least=low / high, rho=rho)
    np.testing.assert_allclose(times[:-1], wanted, rtol=1e-11)
    twin = grids.karras(ds.EDM(high), n, least=low / high, rho=1.05 * rho)
    assert np.abs(twin[1:-2] / wanted[1:-1] - 1).max() > 1e-3
    np.testing.assert_allclose(
        grids.karras(ds.EDM(high), n, rho=1.0), np.append(np.linspace(80, 0.08, n), 0), rtol=1e-12
    )


def test_cosine_crowds_towards_the_data() -> None:
    times = grids.cosine(ds.VP(), 50)
    assert np.all(np.diff(-np.diff(times)) < 0)
    wanted = 1 - np.cos(0.5 * np.pi * (1 - np.arange(51) / 50))
    np.testing.assert_allclose(times, wanted, atol=1e-15)


# ---------------------------------------------------------------- chains


@every_grid
@pytest.mark.parametrize("process", CHAINS)
def test_a_grid_of_a_chain_is_whole(grid: str, process: str) -> None:
    """Few steps are always possible, but where one jump of a chain holds half of its levels."""
    chain = CHAINS[process]
    for steps, start, end in ((1, 200, 0), (2, 200, 0), (5, 180, 20), (8, 180, 20)):
        times = grids.ALL[grid](chain, steps, start=start, end=end)
        assert_grid(times, steps, start, end)
        assert np.all(times == np.round(times))


@pytest.mark.parametrize("process", CHAINS)
def test_a_grid_of_a_chain_is_as_even_as_whole_times_allow(process: str) -> None:
    chain = CHAINS[process]
    times = grids.uniform(chain, 30)
    assert np.abs(times - np.linspace(200, 0, 31)).max() <= 0.5
    times = grids.log_snr(chain, 6, start=150.0)[:-1]  # within a step of where the level lies
    levels = np.linspace(chain.log_snr(150.0), chain.log_snr(1.0), 6)
    assert np.all(chain.log_snr(np.maximum(times - 1, 1)) >= levels - 1e-12)
    assert np.all(chain.log_snr(np.minimum(times, 150)) <= levels + 1e-12)
    twin = np.maximum(times - 2, 1)
    assert not np.all(chain.log_snr(twin) <= levels + 1e-12)


@every_grid
def test_a_chain_that_would_stop_twice_is_refused(grid: str) -> None:
    with pytest.raises(ArgumentError, match="steps must be few enough for the times to differ"):
        grids.ALL[grid](ds.Chain.linear(10), 15)


# ---------------------------------------------------------------- what is refused


Call = Callable[..., Any]


@every_grid
def test_bad_numbers_are_refused(grid: str) -> None:
    make: Call = grids.ALL[grid]
    for options, words in (
        ({"steps": 0}, "steps must be a whole number of at least 1; got 0"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": 5, "start": 0.2, "end": 0.2}, "end must lie below start = 0.2"),
        ({"steps": 5, "start": 0.2, "end": 0.5}, "end must lie below start"),
        ({"steps": 5, "start": 1.5}, r"start must lie in \[0, 1\]; got 1.5"),
        ({"steps": 5, "end": -0.1}, r"end must lie in \[0, 1\]"),
        ({"steps": 5, "start": "T"}, "start must lie in"),
    ):
        with pytest.raises(ArgumentError, match=words):
            make(ds.VP(), **options)
    with pytest.raises(ArgumentError, match="process must be a Process"):
        make("VP", 5)
    with pytest.raises(ArgumentError, match="process must be a Process"):
        make(ds.VP, 5)


@pytest.mark.parametrize("grid", BY_LEVEL)
def test_a_bad_least_time_is_refused(grid: str) -> None:
    make: Call = grids.ALL[grid]
    for least in (0.0, -1e-3, 1.0, float("nan"), "a"):
        with pytest.raises(ArgumentError, match=r"least must lie in \(0, 1\)"):
            make(ds.VP(), 5, least=least)
    with pytest.raises(ArgumentError, match=r"least must leave room below the start at 0\.005"):
        make(ds.VP(), 5, start=0.005, least=0.01)
    with pytest.raises(ArgumentError, match="rho must be a positive number"):
        grids.karras(ds.VP(), 5, rho=0.0)
