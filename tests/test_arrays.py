"""One source, many array libraries: NumPy, torch, the strict array API, and JAX where it is there.

Kept: dtype, device, row-by-row pairing, derivatives, the global state of the libraries.
"""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery, samplers, testing

PROCESSES = testing.processes()
targets = pytest.mark.parametrize("target", gallery.ALL)
# Of each kind one; that a process is right is for the law tests.
kinds = pytest.mark.parametrize("process", ["VP", "EDM", "RectifiedFlow", "Chain.linear"])
ASKS = ("log_prob", "score", "hessian")
ANSWERS = ("score", "x0", "eps", "v", "log_prob", "posterior_cov")
HALF = ds.Transition(0.8, 0.36)
LIBRARIES: list[Any] = [torch, array_api_strict]
if importlib.util.find_spec("jax"):
    import jax

    jax.config.update("jax_enable_x64", True)
    LIBRARIES.append(jax.numpy)


def near(got: Any, wanted: Any, tolerance: float) -> None:
    """Each row, all that belongs to one entry of the first axis, within its size, or 1."""
    got, wanted = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert got.shape == wanted.shape
    rows = wanted.reshape(wanted.shape[0] if wanted.ndim else 1, -1)
    size = np.maximum(1.0, np.abs(rows).max(axis=1, initial=0))
    error = np.abs(got.reshape(rows.shape) - rows).max(axis=1, initial=0)
    assert np.all(error <= tolerance * size), float(np.max(error / size))


@pytest.mark.parametrize("row", range(3))
def test_one_wrong_row_is_caught(row: int) -> None:
    """However large its neighbours are."""
    wanted = np.array([[1e9, 1.0], [2.0, -3.0], [0.0, 1e-3]])
    for wrong in (wanted[row] * 1.05 + 1e-5, np.nan, -wanted[row] - 1e-5):
        got = wanted.copy()
        got[row] = wrong
        with pytest.raises(AssertionError):
            near(got, wanted, 2e-6)
    near(wanted * (1 + 1e-6), wanted, 2e-6)


def alike(got: Any, points: Any) -> None:
    """The answer has the library, the dtype and the device of the points."""
    assert type(got) is type(points)
    assert got.dtype == points.dtype
    assert got.device == points.device


def test_answers_of_another_kind_are_caught() -> None:
    x = torch.zeros(2, dtype=torch.float32)
    for twin in (x.double(), x.numpy(), x.to("meta")):
        with pytest.raises(AssertionError):
            alike(twin, x)


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
        alike(got, points)
        near(got, wanted, 1e-12 if dtype == "float64" else 2e-6)
    got = law.denoise(points, HALF)
    alike(got, points)
    near(got, law.denoise(x.astype(np.float64), HALF), 1e-12 if dtype == "float64" else 2e-6)


# Every target under one process, and every process with one target of each kind of formula.
PAIRS = [(target, process) for target in gallery.ALL for process in PROCESSES
         if process == "VP" or target in ("julia_bimodal", "skewed_pair", "rings")]  # fmt: skip


@pytest.mark.parametrize(("target", "process"), PAIRS)
@pytest.mark.parametrize("library", LIBRARIES, ids=lambda xp: xp.__name__)
def test_oracles_agree(target: str, process: str, library: Any) -> None:
    oracle = ds.Oracle(gallery.ALL[target](), PROCESSES[process])
    x, t = testing.states(oracle.law, oracle.process, n=1)
    points, when = library.asarray(x), library.asarray(t)
    answers = ANSWERS if process.startswith("Chain") else (*ANSWERS, "velocity")
    for answer in answers:
        got = getattr(oracle, answer)(points, when)
        alike(got, points)
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


def rounded_alike(got: Any, wanted: np.ndarray) -> None:
    """Rows within 1e-6, relative or absolute below 1."""
    size = np.abs(wanted).reshape(len(wanted), -1).max(axis=1)
    error = np.abs(np.asarray(got) - wanted).reshape(len(wanted), -1).max(axis=1)
    assert np.all(error <= 1e-6 * size + 1e-6)


@targets
@kinds
def test_float32_loses_rounding_only(target: str, process: str) -> None:
    """float32 points and times against float64 ones of the same value; the twin is 5 % off."""
    oracle = ds.Oracle(gallery.ALL[target](), PROCESSES[process])
    x, t = (a.astype(np.float32) for a in testing.states(oracle.law, oracle.process, n=1))
    answers = ANSWERS if process.startswith("Chain") else (*ANSWERS, "velocity")
    for answer in answers:
        wanted = getattr(oracle, answer)(x.astype(np.float64), t.astype(np.float64))
        for points, when in ((x, t), (torch.tensor(x), torch.tensor(t))):
            got = getattr(oracle, answer)(points, when)
            alike(got, points)
            rounded_alike(got, wanted)
        with pytest.raises(AssertionError):
            rounded_alike(1.05 * got, wanted)


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
@kinds
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
    x = law.sample(1200, 1)  # more than two chunks of a curve
    x[::7] *= 30
    some = [0, 1, 7, 777, 1199]
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


ERRORS: Any = np.geterr()


def global_state() -> list[Any]:
    """What a library must leave as it found it, as things that compare with ==."""
    return [
        *(torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads()),
        *(torch.random.get_rng_state().tolist(), torch.is_grad_enabled()),
        *np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
        *(np.random.get_state(legacy=False)["state"]["pos"],),  # noqa: NPY002
        *(random.getstate(), np.geterr(), np.get_printoptions()),
    ]


def ask_everything(law: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    blurred, oracle = law.diffuse(HALF), ds.Oracle(law, ds.VP())
    for seed in (1, generator):
        law.sample(10, seed)
    pairs: list[Any] = [(np.zeros((2, law.dim)), 1), (torch.zeros((2, law.dim)), generator)]
    for x, seed in pairs:
        for ask in ASKS:
            getattr(blurred, ask)(x)
        for answer in (*ANSWERS, "velocity"):
            getattr(oracle, answer)(x, 0.5)
        samplers.last(samplers.ancestral(oracle, x, [1.0, 0.5, 0.1], seed))
        samplers.last(samplers.forward(oracle.process, x, [0.0, 0.5], seed))
        samplers.last(samplers.ddim(oracle, x, [1.0, 0.5, 0.1]))
    oracle.x0(np.zeros((2, law.dim)), np.array([0.2, 0.7]))
    blurred.entropy()  # and with it `quadrature`
    if law.dim == 1:
        oracle.flow(np.zeros((2, 1)), 0.1, 0.5)


@targets
def test_no_global_state_is_touched(target: str) -> None:
    before = global_state()
    ask_everything(gallery.ALL[target]())
    assert global_state() == before


@pytest.mark.parametrize(
    ("touch", "undo"),
    [
        (random.random, lambda: None),
        (np.random.rand, lambda: None),
        (lambda: torch.rand(1), lambda: None),
        (lambda: np.seterr(all="raise"), lambda: np.seterr(**ERRORS)),
        (
            lambda: torch.set_default_dtype(torch.float64),
            lambda: torch.set_default_dtype(torch.float32),
        ),
    ],
    ids=["random", "numpy.random", "torch.random", "seterr", "dtype"],
)
def test_touched_state_is_seen(touch: Callable[[], Any], undo: Callable[[], Any]) -> None:
    before = global_state()
    try:
        touch()
        assert global_state() != before
    finally:
        undo()


@targets
@pytest.mark.parametrize("default", [torch.float32, torch.float64, torch.float16])
def test_global_dtype_does_not_matter(target: str, default: torch.dtype) -> None:
    law = gallery.ALL[target]().diffuse(HALF)
    x = np.array([[0.5, 0.25], [-2.0, 0.125]])[:, : law.dim]
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        for dtype in (torch.float32, torch.float64):
            points = torch.tensor(x, dtype=dtype)
            got = law.score(points)
            alike(got, points)
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


@targets
def test_the_device_is_kept_where_there_is_no_second_one(target: str) -> None:
    """array_api_strict plays at devices, and refuses to mix them."""
    there, here = (array_api_strict.Device(name) for name in ("device1", "CPU_DEVICE"))
    law, x = gallery.ALL[target](), gallery.ALL[target]().diffuse(HALF).sample(6, 1)
    t = np.linspace(0.1, 0.9, 6)
    points, times = (array_api_strict.asarray(a, device=there) for a in (x, t))
    oracle = ds.Oracle(law, ds.VP())
    for answer in (*ANSWERS, "velocity"):
        got = getattr(oracle, answer)(points, times)
        alike(got, points)
        near(got.to_device(here), getattr(oracle, answer)(x, t), 1e-12)
    for ask in ASKS:  # near and far points of one noise: two ways through a curve
        far = array_api_strict.asarray(30 * x, device=there)
        got = getattr(law.diffuse(HALF), ask)(far)
        alike(got, far)
        near(got.to_device(here), getattr(law.diffuse(HALF), ask)(30 * x), 1e-12)
    if law.dim == 1:
        assert oracle.at(0.5).cdf(points).device == there
        assert oracle.flow(points, 0.2, 0.5).device == there


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
