"""One source, many array libraries: NumPy, torch, the strict array API, and JAX where it is there.

Kept: dtype, device, row-by-row pairing, derivatives, the global state of the libraries.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, testing

PROCESSES = testing.processes()
targets = pytest.mark.parametrize("target", gallery.ALL)
processes = pytest.mark.parametrize("process", PROCESSES)
ASKS = ("log_prob", "score", "hessian")
ANSWERS = ("score", "x0", "eps", "v", "log_prob", "posterior_cov")
HALF = ds.Transition(0.8, 0.36)
LIBRARIES: list[Any] = [torch, array_api_strict]
if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)
    LIBRARIES.append(jax.numpy)


def near(got: Any, wanted: Any, tolerance: float) -> None:
    got, wanted = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(
        got, wanted, rtol=tolerance, atol=tolerance * max(1.0, np.abs(wanted).max(initial=0))
    )


# ---------------------------------------------------------------- libraries


@targets
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda xp: xp.__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_libraries_agree(target: str, library: Any, dtype: str) -> None:
    law = gallery.ALL[target]().diffuse(HALF)
    x = np.concatenate([law.sample(40, 1), 20 * law.sample(10, 2)]).astype(dtype)
    points = library.asarray(x)
    for ask in ASKS:
        got, wanted = getattr(law, ask)(points), getattr(law, ask)(x.astype(np.float64))
        assert type(got) is type(points)
        assert got.dtype == points.dtype
        near(got, wanted, 1e-12 if dtype == "float64" else 2e-6)
    got = law.denoise(points, HALF)
    assert type(got) is type(points)
    assert got.dtype == points.dtype
    near(got, law.denoise(x.astype(np.float64), HALF), 1e-12 if dtype == "float64" else 2e-6)


@processes
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda xp: xp.__name__)
def test_oracles_agree(process: str, library: Any) -> None:
    for target in ("julia_bimodal", "skewed_pair", "rings", "checkerboard", "two_moons"):
        oracle = ds.Oracle(gallery.ALL[target](), PROCESSES[process])
        x, t = testing.states(oracle.law, oracle.process, n=1)
        answers = ANSWERS if process.startswith("Chain") else (*ANSWERS, "velocity")
        for answer in answers:
            got = getattr(oracle, answer)(library.asarray(x), library.asarray(t))
            near(got, getattr(oracle, answer)(x, t), 1e-11)


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda xp: xp.__name__)
def test_cdf_and_quantile_agree(library: Any) -> None:
    law = gallery.julia_bimodal().diffuse(HALF)
    x, u = np.linspace(-6, 6, 25)[:, None], np.linspace(0.001, 0.999, 25)
    near(law.cdf(library.asarray(x)), law.cdf(x), 1e-13)
    got = law.quantile(library.asarray(u))
    assert type(got) is type(library.asarray(u))
    near(got, law.quantile(u), 1e-12)
    oracle = ds.Oracle(gallery.julia_bimodal(), ds.VP())
    near(oracle.flow(library.asarray(x), 0.1, 0.5), oracle.flow(x, 0.1, 0.5), 1e-12)


def test_parameters_of_any_library_meet_points_of_any() -> None:
    weights, means, covs = (
        [0.3, 0.7],
        [[0.0, 1.0], [2.0, -1.0]],
        [np.eye(2).tolist(), [[1.0, 0.5], [0.5, 2.0]]],
    )
    parts = [np.asarray(part) for part in (weights, means, covs)]
    single = [torch.tensor(part, dtype=torch.float32) for part in parts]
    strict = [array_api_strict.asarray(part) for part in parts]
    laws = [ds.GaussianMixture(*arrays) for arrays in (parts, single, strict)]
    x = np.random.default_rng(0).standard_normal((20, 2))
    wanted = laws[0].diffuse(HALF).score(x)
    for law in laws:
        tolerance = 1e-6 if isinstance(law.weights, torch.Tensor) else 1e-13  # float32 parameters
        near(law.diffuse(HALF).score(torch.tensor(x)), wanted, tolerance)
    near(
        laws[1].diffuse(HALF).score(torch.tensor(x)),
        laws[1].diffuse(HALF).log_prob_and_score(torch.tensor(x))[1],
        1e-13,
    )


# ---------------------------------------------------------------- float32


@targets
@processes
def test_float32_loses_rounding_only(target: str, process: str) -> None:
    """float32 points and times against float64 ones of the same value: 1e-4 beyond rounding."""
    oracle = ds.Oracle(gallery.ALL[target](), PROCESSES[process])
    x, t = (a.astype(np.float32) for a in testing.states(oracle.law, oracle.process, n=1))
    answers = ANSWERS if process.startswith("Chain") else (*ANSWERS, "velocity")
    for answer in answers:
        wanted = getattr(oracle, answer)(x.astype(np.float64), t.astype(np.float64))
        for points, when in ((x, t), (torch.tensor(x), torch.tensor(t))):
            got = getattr(oracle, answer)(points, when)
            assert type(got) is type(points)
            assert got.dtype == points.dtype
            size = np.abs(wanted).reshape(len(x), -1).max(axis=1)
            error = np.abs(np.asarray(got) - wanted).reshape(len(x), -1).max(axis=1)
            assert np.all(error <= 1e-6 * size + 1e-6)
    twin = 1.05 * wanted
    assert np.any(np.abs(twin - wanted).reshape(len(x), -1).max(axis=1) > 1e-4 * size + 1e-6)


def test_float32_between_widths_of_11_orders() -> None:
    law = ds.GaussianMixture([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [[1e-12, 1e-12], [1e10, 1e10]])
    x = np.array([[0.0, 0.0], [1e-6, 0.0], [1e5, 1e3], [1e3, 0.0]], dtype=np.float32)
    for points in (x, torch.tensor(x)):
        score = np.asarray(law.score(points))
        assert score.dtype == np.float32
        assert np.all(np.isfinite(score))
        near(score, law.score(x.astype(np.float64)), 2e-7)


# ---------------------------------------------------------------- batches


@targets
@processes
def test_batches_of_times_are_one_by_one(target: str, process: str) -> None:
    oracle = ds.Oracle(gallery.ALL[target](), PROCESSES[process])
    when = testing.times(oracle.process, (0.2, 0.8))
    x, t = testing.states(oracle.law, oracle.process, when, n=1)
    answers = ANSWERS if process.startswith("Chain") else (*ANSWERS, "velocity")
    for answer in answers:
        ask = getattr(oracle, answer)
        together = ask(x, t)
        alone = np.stack([ask(row, float(when)) for row, when in zip(x, t, strict=True)])
        near(together, alone, 1e-11)


@targets
def test_shapes_broadcast(target: str) -> None:
    law = gallery.ALL[target]()
    x = law.sample(6, 1).reshape(2, 3, law.dim)
    scale, var = np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.6, 1.0])
    grid = law.diffuse(ds.Transition(scale, var))
    for i in range(3):
        one = law.diffuse(ds.Transition(scale[i], var[i]))
        near(grid.log_prob(x)[:, i], one.log_prob(x[:, i]), 1e-12)
        near(grid.score(x)[:, i], one.score(x[:, i]), 1e-11)
        near(grid.hessian(x)[:, i], one.hessian(x[:, i]), 1e-11)
        near(grid.mean[i], one.mean, 1e-14)
        near(grid.cov[i], one.cov, 1e-14)
    flat = law.diffuse(ds.Transition(0.9, 0.1))
    near(flat.score(x), flat.score(x.reshape(6, -1)).reshape(x.shape), 1e-14)
    assert flat.log_prob(x[0, 0]).shape == ()
    assert flat.score(x[0, 0]).shape == (law.dim,)


@targets
def test_a_row_does_not_know_its_batch(target: str) -> None:
    """Chunks and neighbours change nothing beyond rounding."""
    law = gallery.ALL[target]().diffuse(ds.Transition(0.6, 0.64))
    x = law.sample(3000, 1)
    x[::7] *= 30
    some = [0, 1, 7, 1234, 2999]
    for ask in ("log_prob", "score"):
        whole, strict = getattr(law, ask)(x), getattr(law, ask)(array_api_strict.asarray(x))
        near(whole[some], getattr(law, ask)(x[some]), 1e-12)
        near(strict, whole, 1e-12)


# ---------------------------------------------------------------- derivatives


@targets
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's log_ndtr under vmap
def test_functional_transforms(target: str) -> None:
    """vmap and jacrev over log_prob and score."""
    law = gallery.ALL[target]().diffuse(ds.Transition(0.6, 0.64))
    x = torch.tensor(law.sample(5, 1))
    near(torch.func.vmap(law.score)(x), law.score(x), 1e-12)
    near(torch.func.vmap(law.log_prob)(x), law.log_prob(x), 1e-12)
    near(torch.func.vmap(torch.func.grad(law.log_prob))(x), law.score(x), 1e-12)
    near(torch.func.vmap(torch.func.jacrev(law.score))(x), law.hessian(x), 1e-11)
    near(torch.func.vmap(torch.func.jacfwd(law.score))(x), law.hessian(x), 1e-11)


@targets
def test_derivatives_flow_through_noise_and_time(target: str) -> None:
    law, path = gallery.ALL[target](), ds.VP()
    x, t = torch.tensor(law.sample(4, 1)), torch.tensor(0.4, dtype=torch.float64)

    def total(t: torch.Tensor) -> torch.Tensor:
        return law.diffuse(path.at(t)).log_prob(x).sum()

    t.requires_grad_(True)
    (slope,) = torch.autograd.grad(total(t), t)
    h = 1e-5
    with torch.no_grad():
        difference = (total(t + h) - total(t - h)) / (2 * h)
    assert float(slope) == pytest.approx(float(difference), rel=1e-6, abs=1e-6)
    many = torch.full((4,), 0.4, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(total(many), many)
    near(slopes.sum(), slope.detach(), 1e-12)


def test_derivatives_by_parameters_of_a_mixture() -> None:
    means = torch.tensor([[0.0], [1.0]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.4, 0.6], dtype=torch.float64)
    covs = torch.ones((2, 1), dtype=torch.float64)
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    assert torch.autograd.gradcheck(
        lambda m: ds.GaussianMixture(weights, m, covs).diffuse(HALF).log_prob(x), (means,)
    )


# ---------------------------------------------------------------- nothing global


def test_no_global_state_is_touched() -> None:
    dtype, seed, numpy_state = (
        torch.get_default_dtype(),
        torch.random.get_rng_state(),
        np.random.get_state(),  # noqa: NPY002
    )
    threads, errors = torch.get_num_threads(), np.geterr()
    for make in gallery.ALL.values():
        law = make()
        law.sample(10, 1)
        law.sample(10, torch.Generator().manual_seed(1))
        oracle = ds.Oracle(law, ds.VP())
        oracle.velocity(torch.zeros((2, law.dim)), 0.5)
        oracle.x0(np.zeros((2, law.dim)), np.array([0.2, 0.7]))
    assert torch.get_default_dtype() == dtype
    assert torch.equal(torch.random.get_rng_state(), seed)
    now = np.random.get_state()  # noqa: NPY002
    assert all(np.array_equal(a, b) for a, b in zip(now, numpy_state, strict=True))
    assert torch.get_num_threads() == threads
    assert np.geterr() == errors


@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.float16])
def test_global_dtype_does_not_matter(default: torch.dtype) -> None:
    law = gallery.skewed_pair().diffuse(HALF)
    x = np.array([[0.5, 0.25], [-2.0, 0.125]])
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for dtype in (torch.float32, torch.float64):
            got = law.score(torch.tensor(x, dtype=dtype))
            assert got.dtype == dtype
            near(got, law.score(x), 1e-12 if dtype == torch.float64 else 1e-6)
        assert law.sample(3, torch.Generator().manual_seed(1)).dtype == torch.float64
        assert ds.VP().at(torch.tensor([0.5], dtype=torch.float64)).var.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@targets
def test_the_device_is_kept(target: str) -> None:
    law = gallery.ALL[target]()
    oracle = ds.Oracle(law, ds.VP())
    x, t = testing.states(law, oracle.process, n=2)
    there = torch.tensor(x, device="cuda"), torch.tensor(t, device="cuda")
    for answer in (*ANSWERS, "velocity"):
        got = getattr(oracle, answer)(*there)
        assert got.device.type == "cuda"
        near(got.cpu(), getattr(oracle, answer)(x, t), 1e-10)
    generator = torch.Generator("cuda").manual_seed(1)
    assert law.sample(5, generator).device.type == "cuda"


def test_importing_and_asking_with_numpy_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np, diffscience as ds\n"
        "heavy = ('torch', 'scipy', 'pandas', 'matplotlib', 'numba')\n"
        "assert not [m for m in heavy if m in sys.modules], sys.modules.keys()\n"
        "o = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())\n"
        "o.velocity(np.zeros((3, 1)), 0.5), ds.testing.processes()\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
