"""Streams of Julia 1.11/1.12: documented vectors, laws, and what must not pass."""

from __future__ import annotations

import pickle
from decimal import Decimal

import numpy as np
import pytest

from diffscience.errors import ArgumentError
from diffscience.julia import AliasTable, Xoshiro, dense, network, span
from diffscience.xoshiro import ziggurat

# Five standard errors and a little more: a false alarm in 1e-6 of the runs, were the seed free.
Z = 4.9


def test_scalar_and_bulk_uniforms_are_the_documented_ones() -> None:
    rng = Xoshiro(1234)  # docstring of Julia's Xoshiro
    assert (rng.rand(), rng.rand()) == (0.32597672886359486, 0.5490511363155669)
    assert Xoshiro(1234).rand(2).tolist() == [0.32597672886359486, 0.5490511363155669]


def test_normals_are_the_documented_ones() -> None:
    documented = [  # docstring of Julia's randn!
        -0.6457306721039767,
        -1.4632513788889214,
        -1.6236037455860806,
        -0.21766510678354617,
        0.4922456865251828,
    ]
    assert Xoshiro(123).randn(5).tolist() == documented
    rng = Xoshiro(123)
    assert [rng.randn() for _ in range(5)] == documented


def test_mixture_is_that_of_the_notes() -> None:
    x = Xoshiro(12345).mixture([0.1, 0.9], [-3, 3], [1, 1], 1024)
    ends = [2.303077959422043, 2.8428423932782843, 3.1410080972036334, 2.488464630750972]
    assert x[[0, 1, -2, -1]].tolist() == ends


def test_multivariate_mixture_is_that_of_the_notes() -> None:
    means, scales = [[-3, -3], [3, 3], [-1, 1]], [np.eye(2)] * 3
    x = Xoshiro(12345).mixture([0.4, 0.4, 0.2], means, scales, 1024)
    assert x[0].tolist() == [-3.696922040577957, -3.6462237060140024]
    assert x[-1].tolist() == [5.1672947152544895, 3.2155718822745527]


def test_alias_table_is_the_documented_one() -> None:
    table = AliasTable([1, 3, 1])
    documented = [0x3333333333333334, 0x9999999999999999, 0x3333333333333333]
    assert table.probabilities == documented


@pytest.mark.parametrize(
    "weights",
    [
        [1, 3, 1],
        [0.1, 0.9],
        [0.4, 0.4, 0.2],
        [5],
        [0, 2, 0],
        [0.0, 0.3, 0.0, 0.7],
        [1, 1, 1, 1],
        list(range(1, 12)),
    ],
)
def test_alias_table_gives_every_index_its_points(weights: list[float]) -> None:
    """Share by share, the cells hold exactly p_i of the 2⁶⁴ words for index i."""
    table = AliasTable(weights)
    points = 2**64 // len(table.share)
    held = [0] * len(table.share)
    for cell, (share, offset) in enumerate(zip(table.share, table.offset, strict=True)):
        moved = min(int(share), points)
        held[cell + int(offset)] += moved
        held[cell] += points - moved
    assert held[: len(weights)] == table.probabilities
    assert sum(table.probabilities) == 2**64
    assert not any(held[len(weights) :])
    exact = np.array(weights) / np.sum(weights)
    assert np.allclose(np.array(table.probabilities, float) / 2**64, exact, rtol=1e-15)
    assert table.probabilities[0] != 2**64 or len(weights) == 1  # the twin that ignores weights


def test_layers_are_those_that_lux_prints() -> None:
    """Initial parameters as printed on the page 1d_FD_score_matching of the notes."""
    rng = Xoshiro(12345)
    rng.mixture([0.1, 0.9], [-3, 3], [1, 1], 1024)
    (weight, bias), (last, end) = network(rng, (1, 8, 1))
    single = np.float32
    assert weight[[0, 1, 6, 7], 0].tolist() == [
        single(x) for x in (-0.003556765, -1.8715183, 0.66702616, -0.9373461)
    ]
    printed = "0.18317068 0.5787344 -0.18110967 0.9307035 -0.43067825 -0.46645045 -0.8246051"
    assert bias.tolist() == [single(x) for x in [*printed.split(), "-0.9340805"]]
    assert last[0, [0, 1, 6, 7]].tolist() == [
        single(x) for x in (0.27326134, -0.2086962, 0.42855448, 0.5658726)
    ]
    assert end.tolist() == [single(0.09530755)]


def test_sigmoid_layers_have_half_the_weights_of_relu_layers() -> None:
    rng = Xoshiro(12345)
    rng.mixture([0.1, 0.9], [-3, 3], [1, 1], 1024)
    twin = rng.copy()
    (weight, bias), _ = network(rng, (1, 8, 1), gain=1.0)
    assert weight[0, 0] == np.float32(-0.0017783825)  # page score_matching_neural_network
    (relu, same), _ = network(twin, (1, 8, 1))
    assert np.array_equal(relu, 2 * weight)
    assert np.array_equal(same, bias)


def test_ziggurat_has_equal_layers_and_a_tail() -> None:
    x, f, area = ziggurat(Decimal("3.654152885361008771645429720399515762975"))
    layers = [x[i] * (f[i - 1] - f[i]) for i in range(2, 256)]
    assert max(abs(layer / area - 1) for layer in layers) < Decimal("1e-24")
    assert abs(f[1] + area / x[1] - 1) < Decimal("1e-24")  # the exact edge closes the top
    twin = ziggurat(Decimal("3.6541528853610089"))
    assert abs(twin[1][1] + twin[2] / twin[0][1] - 1) > Decimal("1e-17")


def test_bulk_and_loop_have_the_same_law_but_other_numbers() -> None:
    """8 words or more come from forks; fewer are the parent's, as from a view."""
    assert np.array_equal(Xoshiro(5).rand(7), Xoshiro(5).rand(7, bulk=False))
    assert not np.array_equal(Xoshiro(5).rand(8), Xoshiro(5).rand(8, bulk=False))
    assert np.array_equal(Xoshiro(5).randn(6), Xoshiro(5).randn(6, bulk=False))
    rng, twin = Xoshiro(5), Xoshiro(5)
    whole = rng.rand(19)
    assert np.array_equal(whole[:16], twin.rand(16))
    assert whole[16:].tolist() == [twin.rand() for _ in range(3)]
    assert rng.state.tolist() == twin.state.tolist()


def test_arrays_fill_by_columns() -> None:
    flat, matrix = Xoshiro(9).randn(24), Xoshiro(9).randn((4, 6))
    assert np.array_equal(matrix.ravel(order="F"), flat)
    assert not np.array_equal(matrix.ravel(), flat)


def test_single_precision_takes_two_numbers_from_a_word() -> None:
    word = Xoshiro(3).word()
    low, high = Xoshiro(3).rand(2, np.float32)
    assert float(low) == ((word & 0xFFFFFFFF) >> 8) * 2.0**-24
    assert float(high) == (word >> 40) * 2.0**-24
    assert Xoshiro(3).rand(None, np.float32) == high  # a scalar takes the upper half
    assert Xoshiro(3).rand(1, np.float32, bulk=False)[0] == high
    assert Xoshiro(3).rand(33, np.float32).dtype == np.float32
    assert Xoshiro(3).randn(33, np.float32)[0] == np.float32(Xoshiro(3).randn())


def test_integers_follow_lemire() -> None:
    rng, twin = Xoshiro(7), Xoshiro(7)
    drawn = rng.integers(80, 1000)
    assert drawn.tolist() == [(twin.word() * 80 >> 64) + 1 for _ in range(1000)]
    large = 3 * 2**61 - 1  # a quarter of the words is rejected
    rng, twin = Xoshiro(8), Xoshiro(8)
    expected: list[int] = []
    while len(expected) < 200:
        product = twin.word() * large
        if product % 2**64 >= 2**64 % large:
            expected.append((product >> 64) + 1)
    assert rng.integers(large, 200).tolist() == expected
    assert rng.word() == twin.word()


@pytest.mark.parametrize("bulk", [True, False])
def test_normals_have_the_normal_law(bulk: bool) -> None:
    """Seed 20; moments up to the fourth and four tail counts, |z| < 4.9 each; σ 5 % off fails."""
    n = 400_000
    x = Xoshiro(20).randn(n, bulk=bulk)

    def worst(y: np.ndarray) -> float:
        z = [y.mean() * n**0.5, (y**2 - 1).mean() / (2 / n) ** 0.5]
        z += [(y**3).mean() / (15 / n) ** 0.5, (y**4 - 3).mean() / (96 / n) ** 0.5]
        for edge, p in ((1.0, 0.15865525393), (-2.0, 0.02275013195), (3.7, 1.0779973e-4)):
            count = np.sum(y > edge) if edge > 0 else np.sum(y < edge)
            z.append((count - n * p) / (n * p) ** 0.5)
        return float(np.max(np.abs(z)))

    assert worst(x) < Z
    assert worst(1.05 * x) > Z


def test_uniforms_and_integers_are_uniform() -> None:
    """Seed 21; chi-square on 100 cells against a normal limit; weights 5 % off fail."""
    n = 200_000
    counts = np.bincount((Xoshiro(21).rand(n) * 100).astype(int), minlength=100)
    rolls = np.bincount(Xoshiro(21).integers(100, n) - 1, minlength=100)

    def z(c: np.ndarray) -> float:
        return float((((c - n / 100) ** 2 / (n / 100)).sum() - 99) / (2 * 99) ** 0.5)

    assert abs(z(counts)) < 6.5  # chi-square of 99 degrees is a little skew
    assert abs(z(rolls)) < 6.5
    tilted = np.bincount((Xoshiro(21).rand(n) ** 1.05 * 100).astype(int), minlength=100)
    assert z(tilted) > 6.5


def note_sample(rng: Xoshiro, shape: float = 20.0) -> np.ndarray:
    """The 60 points of the page kernel_density_estimation of the notes."""
    laws = [
        lambda rng: rng.beta(3.0, 10.0),
        lambda rng: rng.gamma(shape, 0.04),
        lambda rng: 2.0 + 0.2 * rng.randn(),
    ]
    return rng.blend([0.3, 0.3, 0.4], laws, 60)


# Abscissae of the 60 circles of the first figure of the page kernel_density_estimation of R. Rosa's
# random_notes (CC BY 4.0; 6b358d3b.svg, September 2024), in the order of the sample.
CIRCLES = """
    1829.07 450.232 436.465 1772.04 1733.97 1965.97 1958.75 815.235 1606.43 1651.37 318.194 961.637
    804.324 932.332 1666.65 2009.97 1750.33 441.36 796.64 740.943 841.279 367.099 930.162 791.871
    892.703 1772 1939.56 943.033 1603.61 2201.14 1712.47 799.723 758.827 470.112 741.213 397.97
    398.803 817.774 375.135 311.982 485.689 380.518 312.298 1747.95 1860.58 508.684 384.782 1885.44
    1805.49 1798.05 654.467 307.731 1031.34 776.436 481.458 358.588 1953.98 719.678 405.893 1745.2
"""
# The last circles, 45 in all, of its last figure as built by Julia 1.12.1 (a70f787b.svg, 2025).
LATER = """
    2010.04 1750.47 441.783 796.984 741.3 841.613 367.538 930.477 792.217 893.025 1772.13 1939.65
    943.345 1603.78 2201.17 1712.61 800.067 759.18 470.528 741.57 398.403 399.235 818.113 375.573
    312.434 486.102 380.954 312.749 1748.08 1860.69 509.092 385.217 1885.54 1805.61 1798.18 654.843
    308.183 1031.63 776.785 481.872 359.029 1954.07 720.04 406.324 1745.33
"""


def pixels(x: np.ndarray, left: float, right: float) -> np.ndarray:
    """Where the note draws x: its axis runs from min − 0.2 to max + 0.2."""
    first, last = x.min() - 0.2, x.max() + 0.2
    return left + (right - left) * (x - first) / (last - first)


def test_gamma_and_beta_draws_are_those_of_the_notes() -> None:
    """All 60 points lie where the note draws them, to the sixth digit that its figures print."""
    x = note_sample(Xoshiro(4321))
    drawn = np.array(CIRCLES.split(), float)
    assert np.abs(pixels(x, 156.112, 2352.756) - drawn).max() < 0.0075  # 1e-5 of the unit of x
    later = np.array(LATER.split(), float)
    assert np.abs(pixels(x, 156.598, 2352.756)[-45:] - later).max() < 0.0075
    twin = note_sample(Xoshiro(4321), 20.01)  # 0.05 % off in one parameter
    assert np.abs(pixels(twin, 156.112, 2352.756) - drawn).max() > 0.1


@pytest.mark.parametrize("shape", [1.5, 20.0])
def test_gamma_has_its_law(shape: float) -> None:
    """Kolmogorov's distance of 4000 numbers; 2.75/√n has a false-alarm rate of 5e-7. Seed 9."""
    stats = pytest.importorskip("scipy.stats")
    rng = Xoshiro(9)
    x = np.array([rng.gamma(shape, 0.5) for _ in range(4000)])
    limit = 2.75 / np.sqrt(x.size)
    assert stats.kstest(x, stats.gamma(shape, scale=0.5).cdf).statistic < limit
    assert stats.kstest(x, stats.gamma(shape * 1.1, scale=0.5).cdf).statistic > limit
    y = np.array([rng.beta(shape, 10.0) for _ in range(4000)])
    assert stats.kstest(y, stats.beta(shape, 10.0).cdf).statistic < limit
    assert stats.kstest(y, stats.beta(shape * 1.1, 10.0).cdf).statistic > limit


def test_span_is_rounded_once() -> None:
    grid = span(-10, 10, 200)
    assert grid[[0, 1, -2, -1]].tolist() == [-10.0, -9.899497487437186, 9.899497487437186, 10.0]
    assert span(0.02, 0.8, 80)[0] == 0.02


def test_copies_and_pickles_go_on_alike() -> None:
    rng = Xoshiro(4)
    rng.randn(10)
    twin, third = rng.copy(), pickle.loads(pickle.dumps(rng))
    expected = rng.randn(10).tolist()
    assert twin.randn(10).tolist() == expected == third.randn(10).tolist()


def test_seeds_of_any_size() -> None:
    seeds = [0, 1, 2**32 - 1, 2**32, 2**100]
    assert len({Xoshiro(seed).word() for seed in seeds}) == len(seeds)
    assert Xoshiro(np.int64(7)).word() == Xoshiro(7).word()


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: Xoshiro(-1), "seed"),
        (lambda: Xoshiro(1.0), "seed"),  # type: ignore[arg-type]
        (lambda: Xoshiro(0).rand(-1), "shape"),
        (lambda: Xoshiro(0).rand((2, 1.5)), "shape"),  # type: ignore[arg-type]
        (lambda: Xoshiro(0).randn(3, np.int32), "dtype"),
        (lambda: Xoshiro(0).integers(0), "n"),
        (lambda: Xoshiro(0).mixture([1.0, 1.0], [0.0], [1.0], 3), "means"),
        (lambda: Xoshiro(0).mixture([1.0, 1.0], [0.0, 1.0], [1.0], 3), "scales"),
        (lambda: Xoshiro(0).gamma(1.0), "shape"),
        (lambda: Xoshiro(0).gamma(float("nan")), "shape"),
        (lambda: Xoshiro(0).gamma(2.0, 0.0), "scale"),
        (lambda: Xoshiro(0).beta(0.5, 2.0), "a"),
        (lambda: Xoshiro(0).beta(2.0, 1.0), "b"),
        (lambda: Xoshiro(0).blend([1.0, 1.0], [Xoshiro.randn], 3), "draws"),
        (lambda: AliasTable([]), "weights"),
        (lambda: AliasTable([1.0, -1.0]), "weights"),
        (lambda: AliasTable([0, 0]), "weights"),
        (lambda: AliasTable([np.nan, 1.0]), "weights"),
        (lambda: dense(Xoshiro(0), 0, 1), "fan_in, fan_out"),
        (lambda: network(Xoshiro(0), (1,)), "widths"),
        (lambda: span(0, 1, 1), "length"),
    ],
)
def test_bad_arguments_are_named(call: object, argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.argument == argument


def test_empty_arrays_draw_nothing() -> None:
    rng = Xoshiro(0)
    before = rng.state.tolist()
    assert rng.rand(0).shape == (0,)
    assert rng.randn((3, 0)).shape == (3, 0)
    assert rng.integers(5, 0).shape == (0,)
    assert rng.state.tolist() == before
