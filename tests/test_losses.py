"""The losses of denoising diffusion: their formulas, and each as `simple` under a weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import losses
from diffscience.models import Model
from diffscience.network import PREDICTIONS, Network

CHAIN = ds.Chain.linear(6, 0.05, 0.6)


class Tilted(Model):
    """eps = 0.3 x + 0.1 t on every coordinate, t (n,)."""

    process = CHAIN

    def eps(self, x: Any, t: Any) -> Any:
        return 0.3 * x + 0.1 * t[:, None]


def test_noised_and_simple_are_their_formulas() -> None:
    random = np.random.default_rng(0)
    x0, noise = random.standard_normal((2, 5, 2))
    t = np.array([1.0, 2, 3, 4, 6])
    abar = np.cumprod(1 - CHAIN.betas)[t.astype(int) - 1][:, None]
    x = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * noise
    np.testing.assert_allclose(losses.noised(CHAIN, x0, t, noise), x, rtol=1e-13)
    off = 0.3 * x + 0.1 * t[:, None] - noise
    found = losses.simple(Tilted(), x0, t, noise)
    np.testing.assert_allclose(found, np.sum(off**2, axis=1), rtol=1e-12)
    single = losses.noised(CHAIN, x0.astype(np.float32), t, noise)
    assert single.dtype == np.float32


@pytest.mark.parametrize("predicts", PREDICTIONS)
@pytest.mark.parametrize("process", [ds.VP(), ds.VE(), ds.RectifiedFlow()])
def test_denoising_is_simple_under_its_weight(predicts: str, process: Any) -> None:
    net = ds.nets.MLP(2, widths=(8,), seed=3).double()
    model = Network(net, process, predicts)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn((6, 2), generator=generator, dtype=torch.float64)
    noise = torch.randn((6, 2), generator=generator, dtype=torch.float64)
    t = torch.linspace(0.1, 0.8, 6, dtype=torch.float64)
    a, s2 = process.alpha(t), process.var(t)
    s, da, ds2 = torch.sqrt(s2), process.dalpha(t), process.dvar(t)
    # An error e of eps moves x0 by -(s/a) e.
    weight = {
        "eps": torch.ones(6, dtype=torch.float64),
        "x0": s2 / a**2,
        "score": 1 / s2,
        "v": (a + s2 / a) ** 2,
        "velocity": (0.5 * ds2 / s - da * s / a) ** 2,
        "edm": 1 + s2 / a**2,
        "scaled_score": torch.ones(6, dtype=torch.float64),
    }[predicts]
    found = losses.denoising(model, x0, t, noise)
    torch.testing.assert_close(
        found, weight * losses.simple(model, x0, t, noise), rtol=1e-9, atol=0
    )
    assert found.requires_grad
    assert found.shape == (6,)
