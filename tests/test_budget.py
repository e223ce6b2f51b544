"""Error budgets: parts add up, vanish where nothing is wrong, and come out as they are known.

Gaussian targets make every run linear, so that all sixteen distances are known in closed form, for
deterministic samplers and for those that draw noise. Statistical limits: |z| < 6 over 40 or more
repeats is a false-alarm rate of 1e-6 at most (Student's law of 39 degrees of freedom: 5e-7); seeds
are stated.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

import diffscience as ds
from diffscience import ends, girsanov, grids, samplers
from diffscience.budget import PARTS, Bench, Budget, budget
from diffscience.errors import ArgumentError
from diffscience.models import Model, Oracle
from diffscience.process import EDM, VP, Process, RectifiedFlow

V = 2.5  # variance of the Gaussian targets
END = 1e-2


def gaussian(dim: int = 1) -> ds.GaussianMixture:
    """N(0, V I)."""
    return ds.GaussianMixture([1.0], np.zeros((1, dim)), np.full((1, dim), V))


class Scaled(Model):
    """c times the exact score, and all that follows from it."""

    def __init__(self, oracle: Oracle, c: float) -> None:
        self.oracle, self.process, self.c = oracle, oracle.process, c

    def score(self, x: Any, t: Any) -> Any:
        return self.c * self.oracle.score(x, t)

    def x0(self, x: Any, t: Any) -> Any:
        return (x + self.process.var(t) * self.score(x, t)) / self.process.alpha(t)

    def velocity(self, x: Any, t: Any) -> Any:
        return self.drift(x, t, 0.0)

    def drift(self, x: Any, t: Any, eta: float = 1.0) -> Any:
        half = 0.5 * (1 + eta**2) * self.process.diffusion(t) ** 2
        return self.process.drift(t) * x - half * self.score(x, t)


def width(process: Process, t: float) -> float:
    """Standard deviation of p_t for N(0, V I)."""
    return math.sqrt(process.alpha(t) ** 2 * V + process.var(t))


def exposure(process: Process, start: float, end: float) -> float:
    """int g^2/(alpha^2 V + var) dt from end to start = [r - log(1 + V e^r)], r the log-SNR."""
    r = [float(process.log_snr(t)) for t in (start, end)]
    return (r[1] - np.logaddexp(0, math.log(V) + r[1])) - (
        r[0] - np.logaddexp(0, math.log(V) + r[0])
    )


def kl_of(q: float, p: float) -> float:
    """KL(N(0, p^2) || N(0, q^2))."""
    return 0.5 * ((p / q) ** 2 - 1) - math.log(p / q)


def energy_of(q: float, p: float, dim: int = 1) -> float:
    """Energy distance of N(0, q^2 I) and N(0, p^2 I): E|X| is proportional to the deviation."""
    mean = math.sqrt(2) * math.gamma((dim + 1) / 2) / math.gamma(dim / 2)
    return mean * (2 * math.hypot(p, q) - math.sqrt(2) * (p + q))


KNOWN: dict[str, Callable[[float, float], float]] = {
    "energy": energy_of,
    "w1": lambda q, p: math.sqrt(2 / math.pi) * abs(q - p),
    "w2": lambda q, p: (q - p) ** 2,
    "kl": kl_of,
}


# ------------------------------------------------------------------ what follows from distances


def drawn(seed: int, R: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((R, 2, 2, 2, 2))


def test_chains_and_shares_add_up() -> None:
    """To rounding, for any distances and all 24 orders; alone and mended do not."""
    D = drawn(0)
    found = Budget(D, 5, np.zeros(3))
    wanted = (D[:, 1, 1, 1, 1] - D[:, 0, 0, 0, 0]).mean()
    for order in itertools.permutations(PARTS):
        assert sum(e.value for e in found.chain(order).values()) == pytest.approx(wanted, abs=1e-12)
    assert sum(e.value for e in found.share().values()) == pytest.approx(wanted, abs=1e-12)
    for other in (found.alone(), found.mended()):
        assert abs(sum(e.value for e in other.values()) - wanted) > 0.1
    assert found.total().value - found.total().floor == pytest.approx(wanted, abs=1e-12)


def test_shares_of_displacements() -> None:
    """D = |sum d_i|^2: alone |d_i|^2, mended 2<d_i, d> - |d_i|^2, share <d_i, d>; one negative."""
    d = np.array([[3.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    D = np.empty((1, 2, 2, 2, 2))
    for faults in itertools.product((0, 1), repeat=4):
        D[(0, *faults)] = np.sum((np.array(faults) @ d) ** 2)
    found, whole = Budget(D, 0, np.zeros(1)), d.sum(axis=0)
    for i, part in enumerate(PARTS):
        own, share = d[i] @ d[i], d[i] @ whole
        assert found.alone()[part].value == pytest.approx(own)
        assert found.mended()[part].value == pytest.approx(2 * share - own)
        assert found.share()[part].value == pytest.approx(share)
    assert found.share()["stopping"].value < 0 < found.alone()["stopping"].value


def test_the_chain_is_what_its_order_says() -> None:
    D = drawn(2)
    found = Budget(D, 5, np.zeros(3)).chain(("score", "prior", "stopping", "discretisation"))
    np.testing.assert_allclose(found["score"].value, (D[:, 0, 1, 0, 0] - D[:, 0, 0, 0, 0]).mean())
    np.testing.assert_allclose(found["prior"].value, (D[:, 1, 1, 0, 0] - D[:, 0, 1, 0, 0]).mean())
    step = D[:, 1, 1, 0, 1] - D[:, 1, 1, 0, 0]
    np.testing.assert_allclose(found["stopping"].value, step.mean())
    assert found["stopping"].error == pytest.approx(step.std(ddof=1) / math.sqrt(3))


def test_errors_are_those_of_the_repeats() -> None:
    D = drawn(3, 4)
    parts = [Budget(D[k : k + 1], 5, np.array([float(k)])) for k in range(4)]
    one, all_ = parts[0].share()["prior"], Budget.joined(parts)
    assert math.isnan(one.error) and one.n == 5
    assert Budget(D[:1], 0, np.zeros(1)).share()["prior"].error == 0.0
    values = [p.share()["prior"].value for p in parts]
    found = all_.share()["prior"]
    assert found.value == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / 2)
    assert all_.exact_end().value == pytest.approx(1.5)
    table = all_.table()
    assert list(table["part"]) == [*PARTS, "sum"]
    assert table["share"].iloc[-1] == pytest.approx(table["share"].iloc[:-1].sum())
    assert table["chain"].iloc[-1] == pytest.approx(table["share"].iloc[-1])
    assert table["share error"].iloc[-1] == pytest.approx(
        np.std(D[:, 1, 1, 1, 1] - D[:, 0, 0, 0, 0], ddof=1) / 2
    )


# ------------------------------------------------------------------ parts that are not there


LINE = Oracle(ds.gallery.julia_bimodal(), VP())
PLANE = Oracle(ds.gallery.julia_trimodal(), VP())
COARSE = grids.log_snr(VP(), 6, end=END)


def axis(found: Budget, part: str) -> np.ndarray:
    """What switching a part does in all eight cases, (R, 8)."""
    k = 1 + PARTS.index(part)
    there, mended = np.take(found.distances, 1, k), np.take(found.distances, 0, k)
    return (there - mended).reshape(len(found.distances), -1)


@pytest.mark.parametrize("oracle", [LINE, PLANE], ids=["line", "plane"])
@pytest.mark.parametrize("name", ["heun", "ancestral"])
def test_no_part_is_seen_where_its_counterpart_is_in_place(oracle: Oracle, name: str) -> None:
    """Exactly 0 in every case of the others; the same part otherwise is not. Seed 4."""
    sampler = samplers.ALL[name]
    options: dict[str, Any] = {"n": 200, "seeds": 2, "seed": 4, "steps": 12}
    wrong = budget(Scaled(oracle, 1.2), oracle, sampler, COARSE, variance=1.3, **options)
    exact = budget(oracle, oracle, sampler, COARSE, variance=1.3, **options)
    to_the_end = np.append(COARSE, 0.0)
    carried = budget(oracle, oracle, sampler, to_the_end, **options)
    assert not axis(exact, "score").any()
    equal = Oracle(oracle.law, oracle.process)  # runs anew, its flow by the solver
    again = budget(equal, oracle, sampler, COARSE, variance=1.3, **options)
    assert np.abs(axis(again, "score")).max() < (1e-12 if sampler.random else 1e-5)
    assert not axis(carried, "stopping").any()
    for part in PARTS:
        assert np.abs(axis(wrong, part)).min() > 0, part
    assert abs(wrong.share()["score"].value) > 1e-4
    assert abs(wrong.share()["prior"].value) > 1e-5


@pytest.mark.parametrize(("name", "dim"), [("dpm_1s", 1), ("ancestral", 1), ("ancestral", 2)])
def test_the_right_prior_costs_nothing(name: str, dim: int) -> None:
    """Of data N(0, I) p_T is N(0, I), and N(0, 0.3 I) is not. Seed 0."""
    process, sampler = VP(0.1, 2.0), samplers.ALL[name]
    times = grids.log_snr(process, 6, end=END)
    oracle = Oracle(ds.GaussianMixture([1.0], np.zeros((1, dim)), np.ones((1, dim))), process)
    options: dict[str, Any] = {"n": 100, "seeds": 40, "steps": 6, "tolerance": 1e-3}
    options["reference"] = samplers.ALL["ancestral"]
    right, wrong = (
        budget(oracle, oracle, sampler, times, variance=s2, **options).share()["prior"]
        for s2 in (1.0, 0.3)
    )
    assert abs(right.value) < 6 * right.error + 1e-9
    assert abs(wrong.value) > 6 * wrong.error + 1e-5


def test_the_fine_steps_themselves_have_no_discretisation() -> None:
    """Exactly, where the sampler takes them as the reference does; to 1e-6 for many of Heun's."""
    model, em = Scaled(LINE, 1.2), samplers.ALL["euler_maruyama"]
    same = budget(model, LINE, em, COARSE, n=100, seeds=2, steps=6, reference=em)
    assert not axis(same, "discretisation").any()
    finer = budget(model, LINE, em, COARSE, n=100, seeds=2, steps=12, reference=em)
    assert np.abs(axis(finer, "discretisation")).min() > 1e-4
    many = grids.log_snr(VP(), 1200, end=END)
    found = budget(LINE, LINE, samplers.ALL["heun"], many, n=200, metric="w2", tolerance=1e-9)
    assert np.abs(axis(found, "discretisation")).max() < 1e-6
    few = budget(LINE, LINE, samplers.ALL["heun"], COARSE, n=200, metric="w2", tolerance=1e-9)
    assert np.abs(axis(few, "discretisation")).max() > 1e-4


# ------------------------------------------------------------------ parts that are known


def affine(process: Process, c: float, times: np.ndarray) -> float:
    """The factor of Euler's steps on the flow of c times the score of N(0, V)."""
    factor = 1.0
    for t, s in zip(times[:-1], times[1:]):
        f, g2, w2 = process.drift(t), process.diffusion(t) ** 2, width(process, t) ** 2
        factor *= 1 + (s - t) * (f + 0.5 * g2 * c / w2)
    return factor


def known_sizes(c: float, s2: float, process: Process, times: np.ndarray) -> np.ndarray:
    """Deviations of the sixteen ends of Euler's steps with c times the score, in closed form."""
    a, b = float(times[0]), float(times[-1])
    sizes = np.empty((2, 2, 2, 2))
    for faults in itertools.product((0, 1), repeat=4):
        prior, score, steps, stopping = faults
        size, scale = (math.sqrt(s2) if prior else width(process, a)), (c if score else 1.0)
        exact = width(process, b) / width(process, a)
        flow = exact * math.exp(-0.5 * (scale - 1) * exposure(process, a, b))
        size *= affine(process, scale, times) if steps else flow
        sizes[faults] = size if stopping else size * math.sqrt(V) / width(process, b)
    return sizes


def known(sizes: np.ndarray, distance: Callable[..., float], *args: int) -> np.ndarray:
    """Distances from N(0, V I) of laws with these deviations."""
    return np.reshape([distance(size, math.sqrt(V), *args) for size in sizes.flat], sizes.shape)


@pytest.mark.parametrize("metric", ends.METRICS)
@pytest.mark.parametrize("process", [VP(0.1, 8.0), EDM(20.0)], ids=["VP", "EDM"])
def test_the_sixteen_distances_of_a_gaussian(metric: str, process: Process) -> None:
    """To 1e-5 of the largest, and shares with them; 1.06 times the score is told from 1.05."""
    oracle, times = Oracle(gaussian(), process), grids.log_snr(process, 20, end=0.02)
    s2 = 1.1 * float(process.var(process.T))
    euler = samplers.ALL["euler"]
    options: dict[str, Any] = {"n": 4000, "variance": s2, "tolerance": 1e-9, "metric": metric}
    found = budget(Scaled(oracle, 1.05), oracle, euler, times, **options)
    wanted = known(known_sizes(1.05, s2, process, times), KNOWN[metric])
    twin = known(known_sizes(1.06, s2, process, times), KNOWN[metric])
    np.testing.assert_allclose(found.distances[0], wanted, rtol=0, atol=1e-5 * wanted.max())
    assert np.abs(found.distances[0] - twin).max() > 1e-2 * wanted.max()
    shares = Budget(wanted[None], 0, np.zeros(1)).share()
    for part, share in found.share().items():
        assert share.value == pytest.approx(shares[part].value, abs=1e-5 * wanted.max())


def test_a_prior_is_known_in_kl() -> None:
    """The flow keeps a KL: that of N(0, 1.1 var) alone is KL(p_T || prior)."""
    process = VP(0.1, 8.0)
    for law in (gaussian(), ds.gallery.julia_bimodal()):
        oracle, times = Oracle(law, process), grids.log_snr(process, 4, end=END)
        s2 = 1.1 * float(process.var(1.0))
        found = budget(
            oracle, oracle, samplers.ALL["heun"], times, metric="kl", variance=s2, n=4000
        )
        bound = girsanov.bound(oracle, oracle, variance=s2)
        assert found.alone()["prior"].value == pytest.approx(bound.prior, rel=1e-4)
        assert girsanov.bound(oracle, oracle).prior != pytest.approx(bound.prior, rel=1e-2)
    wanted = kl_of(math.sqrt(s2), width(process, 1.0))
    assert girsanov.bound(Oracle(gaussian(), process), Oracle(gaussian(), process),
                          variance=s2).prior == pytest.approx(wanted, rel=1e-9)  # fmt: skip


def known_sde(
    c: float, s2: float, process: Process, times: np.ndarray, fine: np.ndarray, dim: int
) -> np.ndarray:
    """All sixteen energy distances of Euler-Maruyama's steps, from their variances."""

    def after(var: float, scale: float, grid: np.ndarray) -> float:
        for t, s in zip(grid[:-1], grid[1:]):
            f, g2, w2 = process.drift(t), process.diffusion(t) ** 2, width(process, t) ** 2
            var = (1 + (s - t) * (f + g2 * scale / w2)) ** 2 * var + g2 * (t - s)
        return var

    a, b = float(times[0]), float(times[-1])
    D = np.empty((2, 2, 2, 2))
    alpha, noise = process.alpha(b), process.var(b)
    kept = V * alpha / (alpha**2 * V + noise)  # the posterior is N(kept x, V noise/(...))
    end = after(width(process, a) ** 2, 1.0, fine)
    truth = kept**2 * end + V * noise / (alpha**2 * V + noise)
    for faults in itertools.product((0, 1), repeat=4):
        prior, score, steps, stopping = faults
        var, scale = (s2 if prior else width(process, a) ** 2), (c if score else 1.0)
        var = after(var, scale, times if steps else fine)
        var = var if stopping else kept**2 * var + V * noise / (alpha**2 * V + noise)
        D[faults] = energy_of(math.sqrt(var), math.sqrt(truth), dim)
    return D


@pytest.mark.parametrize("dim", [1, 2])
def test_the_sixteen_distances_of_a_gaussian_by_noise(dim: int) -> None:
    """Seed 5, 40 repeats of 80 points, |z| < 6; 1.3 times the score is not 1.2 times."""
    process, em = VP(0.1, 8.0), samplers.ALL["euler_maruyama"]
    oracle = Oracle(gaussian(dim), process)
    fine = grids.log_snr(process, 24, end=0.05)
    times, s2 = fine[::4], 1.5
    options: dict[str, Any] = {"n": 80, "variance": s2, "reference": em}
    benches = [Bench(oracle, fine, seed=5 + k, **options) for k in range(40)]
    model = Scaled(oracle, 1.2)
    found = Budget.joined([bench.budget(model, em, times) for bench in benches])
    wanted = known_sde(1.2, s2, process, times, fine, dim)
    twin = known_sde(1.3, s2, process, times, fine, dim)
    error = found.distances.std(axis=0, ddof=1) / math.sqrt(40)
    off = found.distances.mean(axis=0) - wanted
    assert np.all(np.abs(off) < 6 * error + 1e-12)
    assert np.any(np.abs(found.distances.mean(axis=0) - twin) > 6 * error)
    exact = Budget(wanted[None], 0, np.zeros(1)).share()
    for part, share in found.share().items():
        assert abs(share.value - exact[part].value) < 6 * share.error, part
    assert found.distances[:, 0, 0, 0, 0].max() == 0.0


def test_a_deterministic_sampler_in_the_plane() -> None:
    """Seed 6, 40 repeats of 40 points: the flow and its steps as on the line, |z| < 6."""
    process = VP(0.1, 8.0)
    oracle, times = Oracle(gaussian(2), process), grids.log_snr(process, 12, end=0.02)
    options: dict[str, Any] = {"n": 40, "seeds": 40, "seed": 6, "tolerance": 1e-4}
    model, euler = Scaled(oracle, 1.2), samplers.ALL["euler"]
    found = budget(model, oracle, euler, times, variance=1.5, **options)
    wanted = known(known_sizes(1.2, 1.5, process, times), energy_of, 2)
    twin = known(known_sizes(1.3, 1.5, process, times), energy_of, 2)
    error = found.distances.std(axis=0, ddof=1) / math.sqrt(40) + 1e-9
    mean = found.distances.mean(axis=0)
    assert np.all(np.abs(mean - wanted) < 6 * error)
    assert np.any(np.abs(mean - twin) > 6 * error)


def test_common_noise_makes_errors_small() -> None:
    """Seed 7: a part of small steps is known four times better than with noise of its own."""
    em = samplers.ALL["euler_maruyama"]
    options: dict[str, Any] = {"n": 150, "seeds": 8, "seed": 7, "steps": 96}
    own = samplers.Sampler(em.run, 1, None, random=True)  # of no strong order: noise of its own
    times = grids.log_snr(VP(), 48, end=END)
    coupled, free = (budget(LINE, LINE, s, times, **options) for s in (em, own))
    a, b = (found.share()["discretisation"] for found in (coupled, free))
    assert a.error < b.error / 4
    assert abs(a.value - b.value) < 15 * b.error  # Student's law of 7 degrees: 1e-6


def arrived(benches: list[Bench], random: bool) -> Any:
    """How far the exact ends are from true points."""
    far = np.array([bench._arrival(random) for bench in benches])
    return Budget(np.zeros((len(far), 2, 2, 2, 2)), 60, far).exact_end()


def test_the_exact_end_is_exact() -> None:
    """Seed 8, 40 repeats: within 6 errors of the law; 30 % too narrow it is not."""
    times = grids.log_snr(VP(), 24, end=END)
    for random in (True, False):
        benches = [Bench(PLANE, times, n=60, seed=8 + k, tolerance=1e-3) for k in range(40)]
        found = arrived(benches, random)
        assert abs(found.value) < 6 * found.error
        for bench in benches:
            bench._exact[random] = 0.7 * bench._exact_end(random)
        found = arrived(benches, random)
        assert found.value > 6 * found.error


# ------------------------------------------------------------------ the pieces


def test_paired_energy_has_no_bias() -> None:
    """Seed 9, 4000 repeats of 12 pairs, coupled or not: mean within 4.9 errors of the distance."""
    rng = np.random.default_rng(9)
    for dim, mixing in ((1, 0.0), (2, 0.9)):
        values = []
        for _ in range(4000):
            z, w = rng.standard_normal((2, 12, dim))
            values.append(ends.paired_energy(z, 2.0 * (mixing * z + math.sqrt(1 - mixing**2) * w)))
        error = np.std(values) / math.sqrt(len(values))
        assert abs(np.mean(values) - energy_of(2.0, 1.0, dim)) < 4.9 * error
        assert abs(np.mean(values) - energy_of(2.2, 1.0, dim)) > 4.9 * error


def test_paired_energy_is_the_sum_by_hand() -> None:
    rng = np.random.default_rng(10)
    for dim in (1, 2):
        x, y = rng.standard_normal((2, 60, dim))
        by_hand = 0.0
        for a, b in itertools.permutations(range(60), 2):
            by_hand += float(np.linalg.norm(x[a] - y[b]) + np.linalg.norm(y[a] - x[b]))
            by_hand -= float(np.linalg.norm(x[a] - x[b]) + np.linalg.norm(y[a] - y[b]))
        assert ends.paired_energy(x, y) == pytest.approx(by_hand / (60 * 59), abs=1e-12)
        assert ends.paired_energy(x, x) == pytest.approx(0.0, abs=1e-12)


def test_a_line_with_folds() -> None:
    """x = |z| and x = -z: W_1, W_2^2 and energy by SciPy's quadrature; KL is refused."""
    unit = ds.GaussianMixture([1.0], [[0.0]], [[[1.0]]])
    line = ends.Line.of(unit, unit, 4000)
    half = lambda u: norm.ppf(0.5 + 0.5 * u)  # noqa: E731, the quantile of |Z|
    wanted = {
        "w1": quad(lambda u: abs(half(u) - norm.ppf(u)), 0, 1, limit=200)[0],
        "w2": quad(lambda u: (half(u) - norm.ppf(u)) ** 2, 0, 1, limit=200)[0],
        "energy": 2 * (quad(lambda x: norm.cdf(x) ** 2, -12, 0)[0]
                       + quad(lambda x: (2 * norm.cdf(x) - 1 - norm.cdf(x)) ** 2, 0, 12)[0]),
    }  # fmt: skip
    for metric, value in wanted.items():
        assert line.distance(metric, np.abs(line.nodes)) == pytest.approx(value, rel=2e-3)
        assert line.distance(metric, -line.nodes) == pytest.approx(0.0, abs=1e-5)
        assert line.distance(metric, 1.05 * line.nodes) > 1e-4
    with pytest.raises(ArgumentError, match="metric must be no kl"):
        line.distance("kl", -line.nodes)


def test_posterior_draws_are_of_the_posterior() -> None:
    """Seed 11, 100,000 draws at one point: component shares and moments, |z| < 4.9."""
    covs = [[[0.5, 0.2], [0.2, 0.3]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.2]]]
    law = ds.GaussianMixture([0.3, 0.3, 0.4], [[-1.0, 0.0], [1.0, 0.5], [0.0, 1.0]], covs)
    oracle, t, point, n = Oracle(law, VP()), 0.3, np.array([0.2, 0.4]), 100_000
    rng = np.random.default_rng(11)
    u, z = rng.random(n), rng.standard_normal((n, 2))
    x0 = ends.posterior_draws(oracle, np.tile(point, (n, 1)), t, u, z)
    wanted, twin = oracle.posterior(point, t), oracle.posterior(point, 1.1 * t)
    assert isinstance(wanted, ds.GaussianMixture)
    for moment in (lambda x: x, lambda x: (x - wanted.mean)[:, :1] * (x - wanted.mean)):
        rows = moment(x0)
        error = rows.std(axis=0) / math.sqrt(n)
        true = wanted.mean if rows is x0 else wanted.cov[0]
        other = twin.mean if rows is x0 else twin.cov[0]
        assert np.all(np.abs(rows.mean(axis=0) - true) < 4.9 * error)
        assert np.any(np.abs(rows.mean(axis=0) - other) > 4.9 * error)
    share = float(np.mean(np.all(x0 == [1.0, 0.5], axis=1)))  # the component without width
    weight = float(wanted.weights[1])
    assert abs(share - weight) < 4.9 * math.sqrt(weight * (1 - weight) / n)


def test_posterior_draws_carry_p_t_to_the_data() -> None:
    """Seed 12, 20,000 points of p_0.3 on a line, Kolmogorov-Smirnov at 1e-6; at 1.2 t not."""
    rng = np.random.default_rng(12)
    x = LINE.at(0.3).sample(20_000, rng)
    limit = math.sqrt(math.log(2e6) / (2 * 20_000))
    u, z = rng.random(20_000), rng.standard_normal((20_000, 1))
    for t, reaches in ((0.3, True), (0.36, False)):
        x0 = ends.posterior_draws(LINE, x, t, u, z)
        assert (ds.metrics.ks(x0, LINE.law, 0, repeats=0).value < limit) == reaches


def test_runs_are_remembered_and_repeatable() -> None:
    times = grids.log_snr(VP(), 8, end=END)
    counted = ds.Counted(Scaled(PLANE, 1.1))
    bench, other = Bench(PLANE, times, n=50, seed=1), Bench(PLANE, times, n=50, seed=1)
    first = bench.budget(counted, samplers.ALL["ancestral"], times[::2])
    calls = counted.calls
    assert calls == 4 + 8
    bench.budget(counted, samplers.ALL["ancestral"], times[::2])
    assert counted.calls == calls
    bench.budget(counted, samplers.ALL["ancestral"], times[::4])
    assert counted.calls == calls + 2
    again = other.budget(Scaled(PLANE, 1.1), samplers.ALL["ancestral"], times[::2])
    assert np.array_equal(first.distances, again.distances)
    fresh = Bench(PLANE, times, n=50, seed=2).budget(counted, samplers.ALL["ancestral"], times[::2])
    assert not np.array_equal(first.distances, fresh.distances)


@pytest.mark.parametrize("name", ["edm", "dpm_2s_sde", "predictor_corrector"])
def test_samplers_with_noise_of_their_own(name: str) -> None:
    times = grids.log_snr(VP(), 6, end=END)
    found = Bench(LINE, times, n=50).budget(LINE, samplers.ALL[name], times)
    assert np.isfinite(found.distances).all()
    assert np.abs(axis(found, "discretisation")).min() > 0


def test_laws_without_a_closed_posterior_go_along_the_flow() -> None:
    oracle = Oracle(ds.gallery.rings(), VP())
    times = grids.log_snr(VP(), 12, end=END)
    bench = Bench(oracle, times, n=200, tolerance=1e-4)
    x = bench._exact_end(True)
    radius = np.linalg.norm(x, axis=1)
    assert np.abs(radius[:, None] - [1.0, 2.0, 3.0]).min(axis=1).mean() < 0.15


# ------------------------------------------------------------------ Girsanov


@pytest.mark.parametrize("process", [VP(), VP(0.1, 8.0), EDM(20.0)], ids=["VP", "short", "EDM"])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_bound_of_a_scaled_score(process: Process, dim: int) -> None:
    """c^2/2 D int g^2/(alpha^2 V + var) dt to 1e-6; eta = 2 makes it 25/16 times as large."""
    oracle, end = Oracle(gaussian(dim), process), 1e-3 * process.T
    wanted = 0.5 * 0.05**2 * dim * exposure(process, process.T, end)
    found = girsanov.bound(Scaled(oracle, 1.05), oracle)
    assert found.score == pytest.approx(wanted, rel=1e-6)
    assert found.total == found.prior + found.score
    assert girsanov.bound(Scaled(oracle, 0.95), oracle).score == pytest.approx(wanted, rel=1e-6)
    assert girsanov.bound(Scaled(oracle, 1.06), oracle).score != pytest.approx(wanted, rel=0.1)
    wide = girsanov.bound(Scaled(oracle, 1.05), oracle, eta=2.0)
    assert wide.score == pytest.approx(25 / 16 * wanted, rel=1e-6)


def variance_after(process: Process, c: float, eta: float, s2: float, end: float) -> float:
    """Of the reverse SDE with c times the score of N(0, V), by its moment equation."""

    def slope(u: float, v: np.ndarray) -> np.ndarray:
        t = process.T - u
        f, g2, w2 = process.drift(t), process.diffusion(t) ** 2, width(process, t) ** 2
        return -2 * f * v - (1 + eta**2) * c * g2 / w2 * v + eta**2 * g2

    run = solve_ivp(slope, (0, process.T - end), [s2], rtol=1e-11, atol=1e-13, method="DOP853")
    return float(run.y[0, -1])


@pytest.mark.parametrize("eta", [0.5, 1.0, 1.5])
def test_the_kl_of_a_linear_sde_and_its_bound(eta: float) -> None:
    """To 1 % of the moment equation's, below the bound, which is below twice it for eta = 1."""
    process, end = VP(0.1, 8.0), 0.02
    oracle, s2 = Oracle(gaussian(), process), 1.1
    for c in (0.8, 1.2):
        model = Scaled(oracle, c)
        found = girsanov.kl(model, oracle, end=end, variance=s2, eta=eta)
        var = variance_after(process, c, eta, s2, end)
        wanted = kl_of(math.sqrt(var), width(process, end))
        assert found == pytest.approx(wanted, rel=0.01)
        other = variance_after(process, 1.05 * c, eta, s2, end)
        assert found != pytest.approx(kl_of(math.sqrt(other), width(process, end)), rel=0.05)
        bound = girsanov.bound(model, oracle, end=end, variance=s2, eta=eta)
        assert found < bound.total
    exact = girsanov.kl(oracle, oracle, end=end, variance=width(process, 1.0) ** 2, eta=eta)
    assert 0 <= exact < 1e-5


def test_the_prior_is_forgotten_by_noise_and_kept_by_the_flow() -> None:
    """With the exact score the SDE ends nearer than its start; the bound is the start's KL."""
    oracle = Oracle(ds.gallery.julia_bimodal(), VP(0.1, 8.0))
    bound = girsanov.bound(oracle, oracle)
    assert bound.score == 0.0
    assert 0 < girsanov.kl(oracle, oracle) < 0.5 * bound.prior


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("metric", lambda: budget(LINE, LINE, samplers.ALL["heun"], COARSE, metric="w3")),
        ("metric", lambda: budget(LINE, LINE, samplers.ALL["ancestral"], COARSE, metric="w2")),
        ("metric", lambda: budget(PLANE, PLANE, samplers.ALL["heun"], COARSE, metric="kl")),
        ("n", lambda: Bench(LINE, COARSE, n=2)),
        ("seed", lambda: Bench(LINE, COARSE, seed=-1)),
        ("seeds", lambda: budget(LINE, LINE, samplers.ALL["heun"], COARSE, seeds=0)),
        ("steps", lambda: budget(LINE, LINE, samplers.ALL["heun"], COARSE, steps=0)),
        ("variance", lambda: Bench(LINE, COARSE, variance=0.0)),
        ("tolerance", lambda: Bench(LINE, COARSE, tolerance=0.0)),
        ("reference", lambda: Bench(LINE, COARSE, reference=samplers.heun)),  # type: ignore[arg-type]
        ("times", lambda: Bench(LINE, COARSE[::-1])),
        ("times", lambda: Bench(LINE, COARSE).budget(LINE, samplers.ALL["heun"], COARSE[:-1])),
        ("times", lambda: Bench(LINE, COARSE).budget(
            LINE, samplers.ALL["ancestral"], [COARSE[0], 0.123, COARSE[-1]])),
        ("sampler", lambda: Bench(LINE, COARSE).budget(LINE, samplers.heun, COARSE)),  # type: ignore[arg-type]
        ("model", lambda: Bench(LINE, COARSE).budget(3, samplers.ALL["heun"], COARSE)),  # type: ignore[arg-type]
        ("oracle", lambda: Bench(3, COARSE)),  # type: ignore[arg-type]
        ("oracle", lambda: Bench(Oracle(LINE.law, ds.Chain.linear(9)), [9, 4, 0])),
        ("distances", lambda: Budget(np.zeros((1, 2, 2)), 0, np.zeros(1))),
        ("budgets", lambda: Budget.joined([])),
        ("order", lambda: Budget(drawn(0), 1, np.zeros(3)).chain(("prior",))),
        ("oracle", lambda: ends.posterior_draws(
            Oracle(ds.gallery.rings(), VP()), np.ones((1, 2)), 0.1, np.ones(1), np.ones((1, 2)))),
        ("eta", lambda: girsanov.bound(LINE, LINE, eta=0.0)),
        ("eta", lambda: girsanov.kl(LINE, LINE, eta=0.0)),
        ("end", lambda: girsanov.bound(LINE, LINE, end=1.0)),
        ("start", lambda: girsanov.bound(LINE, LINE, start=2.0)),
        ("start", lambda: girsanov.bound(
            Oracle(LINE.law, RectifiedFlow()), Oracle(LINE.law, RectifiedFlow()))),
        ("intervals", lambda: girsanov.bound(LINE, LINE, intervals=0)),
        ("oracle", lambda: girsanov.kl(PLANE, PLANE)),
        ("cells", lambda: girsanov.kl(LINE, LINE, cells=1)),
        ("steps", lambda: girsanov.kl(LINE, LINE, steps=0)),
        ("steps", lambda: girsanov.kl(Scaled(LINE, 9.0), LINE, cells=60, steps=3)),
        ("variance", lambda: girsanov.kl(LINE, LINE, variance=-1.0)),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises(ArgumentError, match=rf"^{name} must"):
        call()
