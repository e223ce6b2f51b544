"""fused: both ways against mpmath at 40 digits, against each other, and bit against bit.

Errors are compared with what float64 rounding can do at first order. With δ_k the rounding of
logit_k and h_k = gain_k (x − mean_k) + offset_k,

    |Δ log_prob| <= Σ r_k δ_k,    |Δ value| <= Σ r_k |h_k − value| δ_k + (rounding of Σ r_k h_k),

so that a point 1e6 standard deviations away is held to what its logits of 1e12 allow, and an
ordinary one to a few units in the last place.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest

from diffscience import fused
from diffscience.errors import ArgumentError

PACKAGE = Path(fused.__file__).parent
compiled = pytest.mark.skipif(not fused.available(), reason="nothing can be compiled here")
WAYS = [pytest.param(fused.mixture, marks=compiled, id="mixture"), fused.plain]
DTYPES = [np.float32, np.float64]


def parameters(count, dim, widths=(0.3, 2.0), spread=3.0, seed=0, posterior=False):
    """Random components; gain and offset of the score, or random ones."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(count, dim, dim)))[0]
    scale = np.exp(rng.uniform(np.log(widths[0]), np.log(widths[1]), size=(count, dim)))
    whitening = turn / scale[:, :, None]
    gain = -whitening.swapaxes(1, 2) @ whitening
    offset = np.zeros((count, dim))
    if posterior:
        gain, offset = rng.normal(size=(count, dim, dim)), rng.normal(size=(count, dim))
    log_weight = np.log(rng.dirichlet(np.ones(count))) - np.log(scale).sum(1)
    log_weight -= 0.5 * dim * np.log(2 * np.pi)
    return log_weight, spread * rng.normal(size=(count, dim)), whitening, gain, offset


def exact(point, log_weight, means, whitening, gain, offset):
    """log_prob, value at one point to 40 digits, and the two bounds in units of float64's ε."""
    mp.mp.dps = 40
    count, dim = means.shape
    axes = range(dim)
    logits, values, slack, sizes = [], [], [], []
    for k in range(count):
        d = [mp.mpf(float(point[j])) - mp.mpf(means[k, j]) for j in axes]
        w = [mp.fsum(mp.mpf(whitening[k, i, j]) * d[j] for j in axes) for i in axes]
        h = [mp.fsum(mp.mpf(gain[k, i, j]) * d[j] for j in axes) + offset[k, i] for i in axes]
        logits.append(mp.mpf(log_weight[k]) - mp.fsum(c * c for c in w) / 2)
        values.append(h)
        lever = [mp.fsum(abs(whitening[k, i, j] * d[j]) for j in axes) for i in axes]
        slack.append(1 + abs(log_weight[k]) + mp.fsum(abs(w[i]) * lever[i] for i in axes))
        sizes.append([mp.fsum(abs(gain[k, i, j] * d[j]) for j in axes) + abs(offset[k, i])
                      for i in axes])  # fmt: skip
    top = max(logits)
    r = [mp.exp(logit - top) for logit in logits]
    total = mp.fsum(r)
    log_prob = top + mp.log(total)
    r = [c / total for c in r]
    components = range(count)
    value = [mp.fsum(r[k] * values[k][i] for k in components) for i in axes]
    # The sum is at least one, and shifts every logit: the largest one's rounding enters too.
    loose = mp.fsum(r[k] * slack[k] for k in components)
    bound = [
        mp.fsum(r[k] * (abs(values[k][i] - value[i]) * (slack[k] + loose) + sizes[k][i])
                for k in components) for i in axes]  # fmt: skip
    size = [mp.fsum(r[k] * sizes[k][i] for k in components) for i in axes]
    return log_prob, value, loose + abs(log_prob), bound, size


def check(way, x, law):
    """Every answer within 8 ε of the bounds, plus the rounding of the result to its dtype."""
    log_prob, value = way(x, *law)
    assert log_prob.dtype == value.dtype == x.dtype
    assert log_prob.shape == x.shape[:1]
    assert value.shape == x.shape
    # float32 results carry an exponential good to 1e-7 in the plain way, 3e-9 in the compiled one.
    # Clamped exponentials (e^-80 there, else 2^-600) times the steepest gains stay below 1e-15.
    floor = 1e-15
    out, inner = (2e-7, 3e-7) if x.dtype == np.float32 else (0.0, 0.0)
    for n, point in enumerate(x):
        true, gradient, loose, bound, size = exact(point, *law)
        eps = 8 * 2.0**-53
        assert abs(float(log_prob[n] - true)) <= eps * loose + out * abs(true) + inner, point
        for i in range(x.shape[1]):
            allowed = eps * bound[i] + out * abs(gradient[i]) + inner * size[i]
            assert abs(float(value[n, i] - gradient[i])) <= allowed + floor, point


def places(law, seed=1):
    """Points at the centre, among the components, at 1e3, and 1e3 and 1e6 widths from one."""
    rng = np.random.default_rng(seed)
    means, whitening = law[1], law[2]
    dim = means.shape[1]
    away = rng.normal(size=(3, dim))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    widths = np.linalg.inv(whitening[0])
    near = means[rng.integers(len(means), size=6)] + rng.normal(size=(6, dim))
    thin = means[:3] + np.array([w @ rng.normal(size=dim) for w in np.linalg.inv(whitening[:3])])
    far = [1e3 * away, means[0] + 1e3 * away @ widths.T, means[0] + 1e6 * away @ widths.T]
    return np.concatenate([np.zeros((1, dim)), near, thin, means[:1], *far])


LAWS = {
    "line": parameters(5, 1),
    "plane": parameters(25, 2),
    "posterior": parameters(7, 2, posterior=True, seed=5),
    "one": parameters(1, 2, seed=2),
    "thin and wide": parameters(12, 2, widths=(1e-6, 1e5), seed=3),
    "thin line": parameters(9, 1, widths=(1e-6, 1e5), seed=4),
    "cloud": parameters(40, 2, widths=(1e-6, 1.1e-6), seed=6),
}


def test_the_compiled_way_is_there():
    """numba is required: without it the tests marked `compiled` would be left out in silence."""
    assert fused.available()


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_both_ways_have_the_digits_of_mpmath(way, dtype, name):
    check(way, places(LAWS[name]).astype(dtype), LAWS[name])


@pytest.mark.parametrize("way", WAYS)
def test_float32_is_as_good_as_its_points(way):
    """Within 1e-6, relative or absolute below 1, of float64 at the same (rounded) points."""
    for law in LAWS.values():
        x = places(law).astype(np.float32)
        for got, true in zip(way(x, *law), way(x.astype(np.float64), *law), strict=True):
            assert np.isfinite(got).all()
            scale = np.maximum(1, np.abs(true))
            # A score that cancels between two thin components is held to their size.
            if true.ndim == 2 and way is fused.plain:
                scale = scale.max(axis=1, keepdims=True)
            assert (np.abs(got - true) <= 1e-6 * scale).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "twin",
    [
        pytest.param(lambda a, v: (-a, v), id="sign"),
        pytest.param(lambda a, v: (a, 2 * v), id="factor 2"),
        pytest.param(lambda a, v: (a, v * a.dtype.type(1.05)), id="5 % off"),
        pytest.param(lambda a, v: (a + a.dtype.type(2e-5), v), id="2e-5 off"),
    ],
)
def test_wrong_twins_fail(twin, dtype):
    law = LAWS["plane"]
    with pytest.raises(AssertionError):
        check(lambda x, *law: twin(*fused.plain(x, *law)), places(law).astype(dtype), law)


@pytest.mark.parametrize("way", WAYS)
def test_bits_that_depend_on_the_batch_would_be_seen(way):
    """The wrong twin of the tests of bits: one unit in the last place, in one number."""
    law = LAWS["plane"]
    whole = way(places(law), *law)
    other = [a.copy() for a in whole]
    other[1][3, 1] = np.nextafter(other[1][3, 1], np.inf)
    with pytest.raises(AssertionError):
        same(other, whole)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 65, 5000])
def test_the_two_ways_agree(dtype, count):
    for dim in (1, 2):
        law = parameters(count, dim, seed=count)
        x = np.random.default_rng(7).normal(size=(300, dim)).astype(dtype) * 4
        for a, b in zip(fused.mixture(x, *law), fused.plain(x, *law), strict=True):
            tolerance = 1e-6 if dtype == np.float32 else 1e-13
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_a_point_has_the_same_bits_in_every_batch(way, dtype, monkeypatch):
    """Size, order, strides, threads and chunks change nothing."""
    law = parameters(25, 2)
    x = (np.random.default_rng(8).normal(size=(40_000, 2)) * 4).astype(dtype)
    whole = way(x, *law, threads=1)
    same(way(x, *law, threads=3), whole)
    same(way(x, *law), whole)
    for first, last in [(0, 1), (5, 22), (100, 421), (39_990, 40_000)]:
        same(way(x[first:last], *law), [a[first:last] for a in whole])
    same(way(x[::-7], *law), [a[::-7] for a in whole])
    same(way(np.asfortranarray(x), *law), whole)
    same(way(np.repeat(x, 3, axis=1)[:, ::3], *law), whole)
    x.flags.writeable = False
    same(way(x, *law), whole)
    monkeypatch.setattr(fused, "_PLAIN_PAIRS", 1000)
    monkeypatch.setattr(fused, "_POINTS", 960)
    same(way(x, *law, threads=2), whole)


@compiled
@pytest.mark.parametrize("dtype", DTYPES)
def test_one_machine_code_serves_every_layout(dtype):
    """Two codes of one loop may differ in the last place: numba must not make a second one."""
    from diffscience import kernel

    law = parameters(3, 2)
    x = np.zeros((40, 6), dtype)
    sealed = x[:, :2].copy()
    sealed.flags.writeable = False
    for points in (x[:, :2], np.asfortranarray(x[:, :2]), sealed, sealed[::-1]):
        fused.mixture(points, *law)
    assert len(kernel.compiled(np.dtype(dtype)).overloads) == 1
    with pytest.raises(TypeError):  # and a call that fits no signature compiles nothing
        kernel.compiled(np.dtype(dtype))(x.astype(np.int64))


def same(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        assert a.tobytes() == np.ascontiguousarray(b).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_not_finite_stays_in_its_row(way, dtype):
    law = parameters(20, 2)
    x = np.random.default_rng(9).normal(size=(9, 2)).astype(dtype)
    clean = way(x, *law)
    x[1, 0], x[3, 1], x[5, 0], x[7] = np.nan, np.inf, -np.inf, (np.nan, np.inf)
    log_prob, value = way(x, *law)
    same((log_prob[::2], value[::2]), [a[::2] for a in clean])
    np.testing.assert_array_equal(log_prob[1::2], [np.nan, -np.inf, -np.inf, np.nan])
    assert np.isnan(value[1::2]).all()


@pytest.mark.parametrize("way", WAYS)
def test_logits_beyond_float64_are_minus_infinity(way):
    law = parameters(3, 2)
    log_prob, value = way(np.array([[1e200, 0.0], [0.0, 0.0]]), *law)
    assert log_prob[0] == -np.inf
    assert np.isnan(value[0]).all()
    same((log_prob[1:], value[1:]), way(np.zeros((1, 2)), *law))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_weights_of_zero_and_near_zero(way, dtype):
    log_weight, *rest = parameters(40, 2)
    x = np.random.default_rng(10).normal(size=(50, 2)).astype(dtype)
    keep = np.arange(40) % 3 == 0
    kept = way(x, log_weight[keep], *(a[keep] for a in rest))
    for nothing in (-np.inf, np.log(1e-300), -1e5):
        log_weight[~keep] = nothing
        for a, b in zip(way(x, log_weight, *rest), kept, strict=True):
            tolerance = 1e-6 if dtype == np.float32 else 1e-13
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-30)
    log_weight[:] = -np.inf
    assert (way(x, log_weight, *rest)[0] == -np.inf).all()


@pytest.mark.parametrize("way", WAYS)
def test_underflow_is_clamped_without_a_trace(way):
    """Components 20 to 1e6 widths away add nothing: the answer is that of the near one, to ε."""
    law = parameters(40, 2, widths=(0.01, 0.01), spread=0.0)
    law[0][:] = 0.0
    law[1][:, 0] = np.r_[0.0, np.geomspace(0.4, 1e4, 39)]
    x = np.random.default_rng(11).normal(size=(20, 2)) * 0.01
    alone = way(x, *(a[:1] for a in law))
    for a, b in zip(way(x, *law), alone, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("way", WAYS)
def test_one_component_is_a_gaussian(way, dtype):
    one, zero = np.eye(2)[None], np.zeros((1, 2))
    x = np.random.default_rng(12).normal(size=(100, 2)).astype(dtype)
    log_prob, score = way(x, [-np.log(2 * np.pi)], zero, one, -one, zero)
    np.testing.assert_array_equal(score, -x)
    true = -np.log(2 * np.pi) - 0.5 * (x.astype(np.float64) ** 2).sum(1)
    np.testing.assert_allclose(log_prob, true, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("way", WAYS)
def test_the_empty_batch(way):
    for dim in (1, 2):
        log_prob, value = way(np.empty((0, dim), np.float32), *parameters(3, dim))
        assert (log_prob.shape, value.shape) == ((0,), (0, dim))
        assert log_prob.dtype == value.dtype == np.float32


def test_plain_takes_any_dimension():
    law = parameters(6, 4, seed=13)
    check(fused.plain, places(law), law)
    with pytest.raises(ArgumentError, match="x must have 1 or 2 columns"):
        fused.mixture(places(law), *law)


@pytest.mark.parametrize("way", [fused.mixture, fused.plain, fused.evaluate])
def test_bad_arguments_are_named(way):
    law = parameters(3, 2)
    for bad in (np.zeros((3, 2), np.int64), np.zeros(2), np.zeros((2, 2), np.float16)):
        with pytest.raises(ArgumentError, match="x must be a float32 or float64 array"):
            way(bad, *law)
    names = ["log_weight", "means", "whitening", "gain", "offset"]
    for i, name in enumerate(names):
        worse = [a[:, None] if j == i else a for j, a in enumerate(law)]
        with pytest.raises(ArgumentError, match=f"^{name} must have shape"):
            way(np.zeros((1, 2)), *worse)
    if way is not fused.evaluate:
        with pytest.raises(ArgumentError, match="threads must be 1 or more"):
            way(np.zeros((1, 2)), *law, 0)


@compiled
def test_the_choice_depends_on_size_and_environment_alone(monkeypatch):
    law = parameters(25, 2)
    small = np.random.default_rng(14).normal(size=(fused.SMALL // 25 - 1, 2))
    large = np.random.default_rng(15).normal(size=(fused.SMALL // 25, 2))
    for setting, ways in {
        "": (fused.plain, fused.mixture),
        "0": (fused.plain, fused.plain),
        "1": (fused.mixture, fused.mixture),
    }.items():
        monkeypatch.setenv("DIFFSCIENCE_COMPILE", setting)
        for x, way in zip((small, large), ways, strict=True):
            same(fused.evaluate(x, *law), way(x, *law))
    monkeypatch.setenv("DIFFSCIENCE_COMPILE", "1")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert not fused.available()
    same(fused.evaluate(large, *law), fused.plain(large, *law))


@compiled
def test_tasks_are_whole_blocks():
    from diffscience import kernel

    assert fused._POINTS % kernel.BLOCK == 0
    assert kernel.TILE % 2 == 0


@compiled
def test_calls_from_several_threads():
    laws = [parameters(30, 2, seed=s) for s in range(6)]
    x = np.random.default_rng(16).normal(size=(50_000, 2))
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda law: fused.mixture(x, *law), laws))
    for got, law in zip(together, laws, strict=True):
        same(got, fused.mixture(x, *law))


def python(code: str, *, folder: Path | None = None, **variables: str) -> str:
    """What a fresh interpreter prints; it must print no warning."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "DIFFSCIENCE_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=kept | {"PYTHONPATH": str(folder or PACKAGE.parent)} | variables,
        cwd=folder or PACKAGE.parent, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.strip()


def test_numba_is_imported_only_when_wanted():
    code = """
import sys, numpy as np
from diffscience import fused
one = np.eye(2)[None]
fused.evaluate(np.zeros((10, 2)), [0.0], np.zeros((1, 2)), one, -one, np.zeros((1, 2)))
print("numba" in sys.modules, "torch" in sys.modules)
"""
    assert python(code) == "False False"


MEMORY = """
import numpy as np, pathlib
from diffscience import fused
def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
K, n, way = 25, {n}, fused.{way}
rng = np.random.default_rng(0)
one = np.repeat(np.eye(2)[None], K, 0)
law = (np.zeros(K), rng.normal(size=(K, 2)), one, -one, np.zeros((K, 2)))
x = rng.standard_normal((n, 2), dtype=np.float32)
way(x[:1000], *law)
before = status("VmRSS")
answers = way(x, *law)
print((status("VmHWM") - before - sum(a.nbytes for a in answers)) / 1e6)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("way", "n"), [pytest.param("mixture", 10**7, marks=compiled), ("plain", 2 * 10**6)]
)
def test_memory_is_bounded(way, n):
    """Under 100 MB beyond inputs and outputs, at 1e7 points (plain: 2e6, for the time)."""
    assert float(python(MEMORY.format(way=way, n=n))) < 100
