"""Noise: exact identities first, then laws by samples, and that no number depends on its company.

What is Gaussian and made by linear steps has a law that unit vectors show: row j of a probe carries
the j-th normal number alone, so the covariance of what is made of them is known to rounding.

Statistical tests state their seed; |z| < 4.9 and Kolmogorov's limit leave 1e-6 of false alarm each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import diffscience as ds
from diffscience import samplers
from diffscience.errors import ArgumentError
from diffscience.noise import BLOCK, Bridge, Sequential, Stored, generators, joined, split

LIMIT = 4.9
F64 = torch.float64
GRIDS = {
    "even": np.linspace(0.0, 1.0, 33),
    "uneven": np.linspace(0.0, 1.0, 33) ** 3,
    "decreasing": 80.0 * np.linspace(1.0, 0.0, 33) ** 2,
}
grids = pytest.mark.parametrize("grid", GRIDS)


def refuted(check: Callable[..., None], *arguments: Any) -> None:
    """The check fails for a wrong twin."""
    with pytest.raises(AssertionError):
        check(*arguments)


# ---------------------------------------------------------------- the law, by samples


def follows(z: torch.Tensor, var: float) -> None:
    """The numbers are independent N(0, var): mean, variance, and the cdf by Kolmogorov."""
    u = np.sort(z.double().numpy().ravel()) / math.sqrt(var)
    n = len(u)
    assert abs(u.mean()) * math.sqrt(n) < LIMIT
    assert abs(np.mean(u * u) - 1) * math.sqrt(n / 2) < LIMIT
    gap = np.abs(ndtr(u) - (np.arange(n) + 0.5) / n).max()
    assert gap < math.sqrt(math.log(2 / 1e-6) / (2 * n))


def uncorrelated(a: torch.Tensor, b: torch.Tensor) -> None:
    a, b = a.double(), b.double()
    assert abs(float((a * b).mean() / (a.std() * b.std()))) * math.sqrt(a.numel()) < LIMIT


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_steps_are_normal_and_independent(dtype: torch.dtype) -> None:
    """Seeds 1 and 2, 20,000 rows of 2: numbers and areas, of a step, of two, columns, blocks."""
    n = 20_000
    noise, other = Sequential(1, n, 2, dtype), Sequential(2, n, 2, dtype)
    z, a, y = noise.normal(n, 2), noise.area(n, 2), noise.normal(n, 2)
    assert z.dtype == a.dtype == dtype
    follows(z, 1.0)
    follows(a, 1 / 12)
    for wrong in (1.05 * z, -0.04 + z, z.abs(), torch.sign(z)):
        refuted(follows, wrong, 1.0)
    refuted(follows, a, 1 / 10)
    pairs = [(z, a), (z, y), (a, y), (z, other.normal(n, 2)), (z[:, 0], z[:, 1])]
    pairs += [(z[:BLOCK], z[BLOCK : 2 * BLOCK]), (z[1:], z[:-1])]
    for one, two in pairs:
        uncorrelated(one, two)
    refuted(uncorrelated, z, y + 0.05 * z)
    refuted(uncorrelated, z, Sequential(1, n, 2, dtype).normal(n, 2))


@grids
def test_a_stored_path_has_the_law_of_its_times(grid: str) -> None:
    """Seed 3, 5,000 rows: W ~ N(0, h), H ~ N(0, h/12), of single steps and of joined ones."""
    times = GRIDS[grid]
    path = Stored.drawn(3, 5000, 1, times)
    for part in (path, path.on(times[[0, 3, 20, 32]])):
        for i, h in enumerate(np.abs(np.diff(part.times))):
            follows(part.W[i], h)
            follows(part.H[i], h / 12)
            uncorrelated(part.W[i], part.H[i])
    joint = path.on(times[[0, 16, 32]])
    uncorrelated(joint.W[0], joint.W[1])
    h = abs(times[16] - times[0])
    refuted(follows, joint.W[0], 1.25 * h)
    refuted(follows, path.H[:16].mean(0), h / 12)  # areas that are only averaged
    refuted(uncorrelated, joint.W[0], joint.H[0] + 0.1 * joint.W[0])


# ---------------------------------------------------------------- the same path on every grid


def whole(path: Stored, i: int, j: int, carried: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(W, H) from the i-th to the j-th time by the integral of the path itself."""
    lengths = np.abs(np.diff(path.times))
    W, U = torch.zeros_like(path.W[0]), torch.zeros_like(path.W[0])
    for k in range(i, j):
        U = U + lengths[k] * (carried * W + 0.5 * path.W[k] + path.H[k])
        W = W + path.W[k]
    return W, U / lengths[i:j].sum() - 0.5 * W


def assert_same_path(path: Stored, places: list[int], carried: float = 1.0) -> None:
    part = path.on(path.times[places])
    np.testing.assert_array_equal(part.times, path.times[places])
    for k, (i, j) in enumerate(zip(places[:-1], places[1:])):
        W, H = whole(path, i, j, carried)
        torch.testing.assert_close(part.W[k], W, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(part.H[k], H, rtol=1e-12, atol=1e-12)


@grids
def test_one_path_on_every_grid(grid: str) -> None:
    path = Stored.drawn(4, 7, 2, GRIDS[grid])
    random = np.random.default_rng(4)
    some = [sorted({0, 32, *random.integers(0, 33, 6)}) for _ in range(10)]
    for places in [list(range(33)), [0, 32], [5, 6], [2, 9, 30], *some]:
        places = [int(k) for k in places]
        assert_same_path(path, places)
        if 2 < len(places) < 33:
            coarse, direct = path.on(path.times[places]), path.on(path.times[places[::2]])
            again = coarse.on(path.times[places[::2]])  # a part of a part
            torch.testing.assert_close(again.W, direct.W, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(again.H, direct.H, rtol=1e-12, atol=1e-12)
    refuted(assert_same_path, path, [0, 32], 0.95)
    W, H = path.on(path.times[::4]).W, path.on(path.times[::4]).H
    assert float((Stored.drawn(5, 7, 2, GRIDS[grid]).on(path.times[::4]).W - W).abs().max()) > 0.1
    mirrored = Stored(path.times, path.W.flip(0), path.H.flip(0)).on(path.times[::4])
    assert float((mirrored.H - H).abs().max()) > 1e-3


@grids
def test_a_stored_path_is_read_in_units_of_its_steps(grid: str) -> None:
    """normal = W/sqrt(h) and area = H/sqrt(h), in order, then a refusal."""
    path = Stored.drawn(6, 3, 1, GRIDS[grid])
    for i, h in enumerate(np.abs(np.diff(path.times))):
        z, a = path.normal(3, 1), path.area(3, 1)
        torch.testing.assert_close(math.sqrt(h) * z, path.W[i], rtol=1e-14, atol=0)
        torch.testing.assert_close(math.sqrt(h) * a, path.H[i], rtol=1e-14, atol=0)
    with pytest.raises(ArgumentError, match="asked for at most 32 steps; got 33"):
        path.normal(3, 1)
    with pytest.raises(ArgumentError, match="noise must be asked for"):
        Stored.drawn(6, 3, 1, GRIDS[grid]).area(3, 1)  # no step is open


def test_samplers_meet_on_one_path() -> None:
    """Two runs of Euler-Maruyama on one path come closer as steps halve; on two paths they do not.

    Seed 7. NumPy points and tensors take the same noise.
    """
    process = ds.VP(0.1, 6.0)
    oracle = ds.Oracle(ds.GaussianMixture([1.0], [[0.5]], [[[0.5]]]), process)
    fine = np.linspace(0.9, 0.1, 65)
    x = oracle.at(0.9).sample(200, 7)

    def end(path: Stored, stride: int, x: Any = x) -> Any:
        times = fine[::stride]
        return samplers.last(samplers.euler_maruyama(oracle, x, times, path.on(times)))

    path, other = Stored.drawn(7, 200, 1, fine), Stored.drawn(8, 200, 1, fine)
    gaps = [np.abs(end(path, 2 * k) - end(path, k)).mean() for k in (8, 4, 2, 1)]
    assert all(b < 0.75 * a for a, b in zip(gaps[:-1], gaps[1:]))
    assert np.abs(end(path, 2) - end(other, 1)).mean() > 20 * gaps[-1]
    tensor = end(path, 4, torch.from_numpy(x))
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_allclose(tensor.numpy(), end(path, 4), rtol=0, atol=1e-14)


# ---------------------------------------------------------------- joining and splitting


def covariance(rows: list[torch.Tensor], sizes: Any = 1.0) -> np.ndarray:
    """Of linear forms, one a tensor, in independent normal numbers of these sizes, one a row."""
    forms = np.stack([row.numpy()[:, 0] for row in rows])
    return (forms * sizes**2) @ forms.T


def assert_split(h: float, a: float, cut: Callable[..., Any]) -> None:
    """The parts have their own law, N(0, diag(a, a/12, b, b/12)), and join to what was split."""
    unit = torch.eye(4, dtype=F64)
    W, H, x, y = (unit[:, i : i + 1] for i in range(4))
    parts = cut((h, W, H), a, x, y)
    sizes = np.array([math.sqrt(h), math.sqrt(h / 12), 1.0, 1.0])
    found = covariance([W for _, *both in parts for W in both], sizes)
    lengths = [a, a / 12, h - a, (h - a) / 12]
    unit_size = np.sqrt(np.outer(lengths, lengths))
    np.testing.assert_allclose(found / unit_size, np.eye(4), rtol=0, atol=2e-6)
    if 1e-3 < a / h < 0.999:
        np.testing.assert_allclose(found / unit_size, np.eye(4), rtol=0, atol=1e-10)
    total, V, G = joined(*parts)
    assert abs(total - h) < 1e-15 * h
    torch.testing.assert_close(V, W, rtol=0, atol=1e-12)
    torch.testing.assert_close(G, H, rtol=0, atol=1e-12)


SHARES = [0.5, 0.3, 0.9, 1e-2, 0.99, 1e-4, 1 - 1e-4, 1e-6, 1 - 1e-6, 1e-9, 1 - 1e-9]


@pytest.mark.parametrize("h", [1.0, 1e-3, 80.0])
@pytest.mark.parametrize("share", SHARES)
def test_split_is_the_exact_law_and_joins_again(h: float, share: float) -> None:
    assert_split(h, h * share, split)


def test_wrong_splits_are_caught() -> None:
    """More noise, a swapped order, areas that are ignored, one part drawn with no look at W."""

    def louder(piece: Any, a: float, x: Any, y: Any) -> Any:
        return split(piece, a, 1.05 * x, y)

    def swapped(piece: Any, a: float, x: Any, y: Any) -> Any:
        return split(piece, a, x, y)[::-1]

    def without_areas(piece: Any, a: float, x: Any, y: Any) -> Any:
        (a, W, H), (b, V, G) = split(piece, a, x, y)
        return [(a, W, 0 * H), (b, V, 0 * G)]

    def blind(piece: Any, a: float, x: Any, y: Any) -> Any:
        h, W, H = piece
        first = math.sqrt(a) * x
        return [(a, first, math.sqrt(a / 12) * y), (h - a, W - first, H)]

    for wrong in (louder, swapped, without_areas, blind):
        refuted(assert_split, 1.0, 0.3, wrong)


def test_joining_is_associative() -> None:
    random = torch.Generator().manual_seed(9)
    pieces = [(h, *torch.randn(2, 5, 1, generator=random, dtype=F64)) for h in (0.3, 2.0, 1e-3)]
    one = joined(joined(pieces[0], pieces[1]), pieces[2])
    other = joined(pieces[0], joined(pieces[1], pieces[2]))
    for a, b in zip(one, other):
        torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-12, atol=1e-12)
    turned = joined(joined(pieces[1], pieces[0]), pieces[2])
    assert float((one[2] - turned[2]).abs().max()) > 1e-2


# ---------------------------------------------------------------- a path that may be asked anywhere

ASKED = [0.5, 0.125, 0.8, 0.13, 0.9999999, 0.79, 1e-7, 0.3]


class Probe(Sequential):
    """Numbers one at a time: the j-th is 1 in row j and 0 elsewhere."""

    drawn = 0

    def _next(self, area: bool) -> torch.Tensor:
        z = torch.zeros(self.n, 1, dtype=self.dtype)
        z[self.drawn] = 1 / math.sqrt(12) if area else 1
        self.drawn += 1
        return z


class ProbedBridge(Bridge):
    """A bridge whose numbers come from a probe."""

    def __init__(self, n: int) -> None:
        super().__init__(0, n, 1)
        self.source = Probe(0, n, 1, F64)
        z, a = self._two()
        self.pieces = [(1.0, z, a / math.sqrt(12))]


def assert_brownian(path: Bridge, factor: float = 1.0) -> None:
    """After all was asked, the pieces are independent N(0, h) and N(0, h/12), to 1e-5."""
    for t in ASKED:
        path.over(0.0, t)
    lengths = np.repeat(np.diff(path.times), 2) * np.tile([1.0, 1 / 12], len(path.pieces))
    forms = [factor * form if h > 0.2 else form for h, *both in path.pieces for form in both]
    found = covariance(forms) / np.sqrt(np.outer(lengths, lengths))
    np.testing.assert_allclose(found, np.eye(len(lengths)), rtol=0, atol=1e-5)


def test_a_bridge_is_brownian_whatever_is_asked() -> None:
    assert_brownian(ProbedBridge(20))
    refuted(assert_brownian, ProbedBridge(20), 1.001)


@pytest.mark.parametrize("order", [ASKED, ASKED[::-1], sorted(ASKED)])
def test_a_bridge_is_one_path(order: list[float]) -> None:
    """What was answered stays, parts join to the whole, and a seed is a path of its own."""
    path = Bridge(10, 6, 2)
    seen = {t: path.over(0.0, t) for t in order}
    times = [0.0, *sorted(order), 1.0]
    for a, b, c in zip(times, times[1:], times[2:]):
        wanted = path.over(a, c)
        for got, want in zip(joined(path.over(a, b), path.over(b, c)), wanted):
            torch.testing.assert_close(
                torch.as_tensor(got), torch.as_tensor(want), rtol=1e-9, atol=1e-9
            )
    for t, (h, W, H) in seen.items():
        again = path.over(0.0, t)
        assert abs(again[0] - h) < 1e-15
        torch.testing.assert_close(again[1], W, rtol=0, atol=1e-12)
        torch.testing.assert_close(again[2], H, rtol=0, atol=1e-9)
    same, other = Bridge(10, 6, 2), Bridge(11, 6, 2)
    for t in order:
        same.over(0.0, t), other.over(0.0, t)
    assert torch.equal(same.over(0.1, 0.7)[1], path.over(0.1, 0.7)[1])
    assert not torch.equal(other.over(0.1, 0.7)[1], path.over(0.1, 0.7)[1])


def test_a_bridge_by_samples() -> None:
    """Seed 12, 20,000 rows: increments and areas between times that were asked out of order."""
    path = Bridge(12, 20_000, 1)
    for t in (0.7, 0.2, 0.4):
        path.over(0.0, t)
    h, W, H = path.over(0.2, 0.7)
    assert abs(h - 0.5) < 1e-15
    follows(W, 0.5)
    follows(H, 0.5 / 12)
    uncorrelated(W, H)
    uncorrelated(W, path.over(0.0, 0.2)[1])
    uncorrelated(W, path.over(0.7, 1.0)[2])
    refuted(follows, W, 0.55)
    refuted(uncorrelated, W, path.over(0.0, 0.4)[1])


@pytest.mark.parametrize("pair", [(0.5, 0.5), (0.7, 0.2), (-0.1, 0.5), (0.5, 1.1), (math.nan, 1)])
def test_a_bridge_refuses_other_intervals(pair: tuple[float, float]) -> None:
    with pytest.raises(ArgumentError, match="start must lie in"):
        Bridge(0, 2, 1).over(*pair)


# ---------------------------------------------------------------- a row's numbers are its own


class Together(Sequential):
    """The wrong twin: all rows from one generator, so that a row's numbers hang on how many."""

    def _next(self, area: bool) -> torch.Tensor:
        z = torch.empty(self.dim, self.n, dtype=self.dtype).T
        for column in z.T:
            torch.randn(self.n, generator=self._generators[0], out=column)
        return z


def assert_prefix(kind: Any, n: int, dtype: torch.dtype) -> None:
    """Three steps with areas of n rows are the first n of 2 BLOCK + 9, bit for bit."""
    most = 2 * BLOCK + 9
    all_rows, few = kind(13, most, 2, dtype), kind(13, n, 2, dtype)
    for _ in range(3):
        assert torch.equal(all_rows.normal(most, 2)[:n], few.normal(n, 2))
        assert torch.equal(all_rows.area(most, 2)[:n], few.area(n, 2))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_row_does_not_know_how_many_there_are(dtype: torch.dtype) -> None:
    for n in (0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK):
        assert_prefix(Sequential, n, dtype)
    refuted(assert_prefix, Together, 7, dtype)


def test_rows_of_paths_do_not_know_either() -> None:
    most, n = BLOCK + 50, 11
    fine = GRIDS["uneven"]
    assert torch.equal(Stored.drawn(1, most, 1, fine).H[:, :n], Stored.drawn(1, n, 1, fine).H)
    many, few = Bridge(1, most, 1), Bridge(1, n, 1)
    second = Bridge(1, most - BLOCK, 1, first=1)  # the block after
    for t in ASKED:
        (_, W, H), (_, V, G), (_, Y, _) = (path.over(0.0, t) for path in (many, few, second))
        assert torch.equal(W[:n], V) and torch.equal(H[:n], G)
        assert torch.equal(W[BLOCK:], Y)


def test_a_part_is_a_slice() -> None:
    """Also of a noise that was read before: a part starts anew."""
    n = 3 * BLOCK + 5
    whole_noise = Sequential(14, n, 1, F64)
    wanted = [whole_noise.normal(n, 1) for _ in range(2)]
    for first, last in ((0, n), (BLOCK, n), (BLOCK, 2 * BLOCK + 3), (3 * BLOCK, n), (0, 0)):
        part = whole_noise.part(first, last)
        for z in wanted:
            assert torch.equal(part.normal(last - first, 1), z[first:last])
    nested = whole_noise.part(BLOCK, n).part(BLOCK, BLOCK + 4)
    assert torch.equal(nested.normal(4, 1), wanted[0][2 * BLOCK : 2 * BLOCK + 4])
    wrong = whole_noise.part(BLOCK, BLOCK + 4).normal(4, 1)
    assert not torch.equal(wrong, wanted[0][2 * BLOCK : 2 * BLOCK + 4])


def test_threads_and_order_change_nothing() -> None:
    n = 2 * BLOCK
    wanted = Sequential(15, n, 3).normal(n, 3)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(Sequential(15, n, 3).normal(n, 3), wanted)
    finally:
        torch.set_num_threads(before)
    second = Sequential(15, BLOCK, 3, first=1)  # drawn alone, and before the first one
    assert torch.equal(second.normal(BLOCK, 3), wanted[BLOCK:])
    twin = Sequential(15, BLOCK, 3, first=2)
    assert not torch.equal(twin.normal(BLOCK, 3), wanted[BLOCK:])


def test_seeds_and_blocks_have_generators_of_their_own() -> None:
    seeds = {g.initial_seed() for seed in range(30) for g in generators(seed, range(30))}
    assert len(seeds) == 900
    assert generators(3, [7])[0].initial_seed() == generators(3, range(9))[7].initial_seed()


def test_numbers_drawn_on_the_cpu_go_elsewhere() -> None:
    """drawn_on and device are two things: what is drawn here may live on a device with no draws."""
    plain, named = Sequential(16, 5, 2), Sequential(16, 5, 2, drawn_on="cpu")
    assert torch.equal(plain.normal(5, 2), named.normal(5, 2))
    there = Sequential(16, 5, 2, device="meta", drawn_on="cpu")
    assert there.normal(5, 2).device.type == there.part(0, 5).normal(5, 2).device.type == "meta"


def test_no_global_generator_is_touched() -> None:
    before, state = torch.random.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    noise = Sequential(17, 5, 1)
    noise.normal(5, 1), noise.area(5, 1), noise.part(0, 3).normal(3, 1)
    path, bridge = Stored.drawn(17, 5, 1, [0.0, 0.5, 1.0]), Bridge(17, 5, 1)
    path.on([0.0, 1.0]).normal(5, 1), bridge.over(0.1, 0.3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert str(np.random.get_state()) == state  # noqa: NPY002
    torch.manual_seed(1)  # and none is read
    one = Sequential(17, 5, 1).normal(5, 1)
    torch.manual_seed(2)
    assert torch.equal(one, Sequential(17, 5, 1).normal(5, 1))
    torch.random.set_rng_state(before)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_dtypes_are_kept(dtype: torch.dtype) -> None:
    path = Stored.drawn(18, 3, 1, GRIDS["even"], dtype)
    assert path.dtype == path.W.dtype == path.on(path.times[::8]).H.dtype == dtype
    assert path.normal(3, 1).dtype == path.area(3, 1).dtype == dtype
    assert Bridge(18, 3, 1, dtype).over(0.1, 0.4)[2].dtype == dtype
    assert repr(Sequential(18, 3, 1, dtype)) == f"Sequential(n=3, dim=1, {dtype}, cpu)"
