"""On a GPU: every solver, sampler, likelihood and training as on the CPU, with the same noise.

Arithmetic in another order moves the last digits of float64, so answers are held to 1e-9 of each
other; the noise is drawn on the CPU where two runs are compared.  Where there is no CUDA device
nothing of this runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, grids, likelihood, nets, samplers, solvers, train
from diffscience.noise import Sequential, Stored

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GPU = "cuda"
LAWS = {"line": gallery.julia_bimodal(), "plane": gallery.grid()}
laws = pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
DOWN = np.linspace(1.0, 0.01, 21)


def start(law: ds.Target, t: float = 1.0, n: int = 300) -> np.ndarray:
    return np.asarray(ds.Oracle(law, ds.VP()).at(t).sample(n, 1))


def near(there: Any, here: Any, bound: float = 1e-9) -> None:
    assert there.device.type == GPU
    np.testing.assert_allclose(there.cpu().numpy(), here, rtol=bound, atol=bound)


def noise(x: np.ndarray, device: str) -> Sequential:
    return Sequential(3, len(x), x.shape[1], torch.float64, device, drawn_on="cpu")


@laws
@pytest.mark.parametrize("method", ["euler", "milstein", "srk"])
def test_sdes(law: ds.Target, method: str) -> None:
    oracle, x = ds.Oracle(law, ds.VP()), start(law)
    here = solvers.reverse(oracle, x, DOWN, noise(x, "cpu"), method=method).last
    there = torch.from_numpy(x).to(GPU)
    near(solvers.reverse(oracle, there, DOWN, noise(x, GPU), method=method).last, here)
    up = DOWN[::-1].copy()
    here = solvers.forward(ds.VP(), x, up, noise(x, "cpu"), method=method).last
    near(solvers.forward(ds.VP(), there, up, noise(x, GPU), method=method).last, here)


@laws
def test_adaptive_sdes_and_stored_paths(law: ds.Target) -> None:
    oracle, x = ds.Oracle(law, ds.VP()), start(law)
    there = torch.from_numpy(x).to(GPU)
    path = Stored.drawn(7, len(x), x.shape[1], DOWN, torch.float64, GPU)
    options: dict[str, Any] = {"method": "srk", "tolerance": 1e-2}
    for run in (
        solvers.reverse(oracle, there, DOWN, path),
        solvers.reverse(oracle, there, [1.0, 0.1], 7, **options),
    ):
        assert run.last.device.type == GPU
        assert bool(torch.isfinite(run.last).all())


@laws
def test_flows_both_ways(law: ds.Target) -> None:
    oracle, x = ds.Oracle(law, ds.VP()), start(law)
    options: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}
    here = solvers.flow(oracle, x, [1.0, 0.0], **options)
    there = solvers.flow(oracle, torch.from_numpy(x).to(GPU), [1.0, 0.0], **options)
    near(there.last, here.last, 1e-6)
    assert there.evaluations == here.evaluations
    back = solvers.flow(oracle, there.last, [0.0, 1.0], **options)
    near(back.last, x, 1e-5)
    named = solvers.flow(oracle, x, [1.0, 0.0], device=GPU, **options)
    assert isinstance(named.last, np.ndarray)
    np.testing.assert_allclose(named.last, here.last, rtol=0, atol=1e-6)


@laws
@pytest.mark.parametrize("name", samplers.ALL)
def test_samplers(law: ds.Target, name: str) -> None:
    process = ds.VP()
    oracle, x, times = ds.Oracle(law, process), start(law), grids.log_snr(process, 12)
    run = samplers.ALL[name].run
    here = samplers.last(run(oracle, x, times, noise(x, "cpu")))
    there = samplers.last(run(oracle, torch.from_numpy(x).to(GPU), times, noise(x, GPU)))
    near(there, here)
    single = torch.from_numpy(x).to(GPU, torch.float32)
    drawn = samplers.last(run(oracle, single, times, torch.Generator(GPU).manual_seed(1)))
    assert (drawn.dtype, drawn.device.type) == (torch.float32, GPU)


@laws
def test_likelihood(law: ds.Target) -> None:
    oracle, x = ds.Oracle(law, ds.VP()), np.asarray(law.sample(50, 2))
    for points in (torch.from_numpy(x).to(GPU), x):
        device = None if isinstance(points, torch.Tensor) else GPU
        found = likelihood.log_prob(oracle, points, rtol=1e-9, atol=1e-9, device=device)
        np.testing.assert_allclose(found.log_prob, law.log_prob(x), rtol=0, atol=1e-6)
    there = likelihood.log_prob(oracle, x, trace="hutchinson", generator=1, device=GPU)
    here = likelihood.log_prob(oracle, x, trace="hutchinson", generator=1)
    np.testing.assert_allclose(there.log_prob, here.log_prob, rtol=0, atol=1e-4)


def test_training_sampling_and_likelihood_of_a_network() -> None:
    """A network that lives there learns there, and is asked there, from points of either place."""
    law, process = gallery.julia_bimodal(), ds.VP()
    net = nets.MLP(1, widths=(16,), seed=1).to(GPU)
    network = ds.Network(net, process)
    history = train.train(network, law, steps=200, seed=1, batch=256)
    losses = history.losses
    assert np.mean(losses[-50:]) < 0.8 * np.mean(losses[:20])
    x = torch.from_numpy(start(law)).to(GPU, torch.float32)
    run = solvers.reverse(network, x, np.linspace(1, 0.001, 51), 1)
    assert run.last.device.type == GPU
    end = samplers.last(samplers.heun(network, x, grids.log_snr(process, 20)))
    assert end.device.type == GPU
    found = likelihood.log_prob(network, np.asarray(law.sample(20, 3)), start=1e-3, device=GPU)
    assert np.isfinite(found.log_prob).all()
