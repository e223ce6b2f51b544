"""Values known to 40 digits, far tails, and the ends of the noise.

`references.json` is made by `make_references.py`, which writes every law a second time, from its
definition, in mpmath. Errors of log-densities are relative, absolute below 1; errors of scores are
relative to the score of the same point, however small.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import torch

import diffscience as ds
from diffscience import gallery


def script() -> Any:
    """The module `make_references`, from the file beside this one."""
    path = Path(__file__).with_name("make_references.py")
    spec = importlib.util.spec_from_file_location("make_references_alone", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SCRIPT = script()
LAWS = SCRIPT.laws()
STORED = json.loads(Path(__file__).with_name("references.json").read_text())
KEYS = sorted({(row["target"], row["level"]) for row in STORED["rows"]})
FAR_KEYS = [key for key in KEYS if key != ("checkerboard", "none")]  # no density outside


def row_errors(got: Any, wanted: Any, least: float = 0.0) -> np.ndarray:
    """|got - wanted| / max(least, |wanted|) of each row; where both are 0 it is 0."""
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted)
    size = np.maximum(least, np.linalg.norm(wanted, axis=-1))
    gap = np.linalg.norm(got - wanted, axis=-1)
    return np.where(size > 0, gap / np.where(size > 0, size, 1.0), gap)


def errors(
    law: Any, points: Any, log_prob: Any, score: Any, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """The errors of a law's log-densities and scores, row by row; scores count from `least` on."""
    got = np.asarray(law.log_prob(points))
    return (
        row_errors(got[:, None], np.asarray(log_prob)[:, None], least=1.0),
        row_errors(law.score(points), score, least),
    )


def stored_rows(target: str, level: str) -> list[dict[str, Any]]:
    return [r for r in STORED["rows"] if (r["target"], r["level"]) == (target, level)]


def stored(target: str, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows = stored_rows(target, level)
    x, log_prob, score = ([r[k] for r in rows] for k in ("x", "log_prob", "score"))
    return np.array(x), np.array(log_prob, dtype=float), np.array(score, dtype=float)


def stored_far(target: str, level: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows 1e3 and 1e6 standard deviations beyond the data."""
    x, log_prob, score = (values[SCRIPT.MODES :] for values in stored(target, level))
    assert len(x) == len(SCRIPT.FAR)
    return x, log_prob, score


def undiffused(target: str) -> Any:
    """The target itself; the empirical one on the stored points, whatever a sampler now draws."""
    if target == "empirical":
        return gallery.empirical(np.array(STORED["cloud"]))
    return gallery.ALL[target]()


def diffused(target: str, level: str, stretch: float = 1.0) -> Any:
    """The target at a noise level, both numbers of which may be taken wrong by a factor."""
    scale, var = STORED["levels"][level]
    return undiffused(target).diffuse(ds.Transition(scale * stretch, var * stretch))


def deviation(target: str, level: str) -> float:
    """Of the noise and the target's own blur together; 1e-30 for a law without either."""
    scale, var = STORED["levels"][level]
    return max(math.hypot(math.sqrt(var), scale * LAWS[target].noise), 1e-30)


# ---------------------------------------------------------------- 2: anchors


def test_every_target_has_references_at_every_level() -> None:
    every = {(target, level) for target in gallery.ALL for level in STORED["levels"]}
    assert set(KEYS) == every - {("empirical", "none")}
    assert STORED["digits"] >= 40


def test_stored_cloud_is_the_gallerys() -> None:
    means = gallery.ALL["empirical"]().means
    np.testing.assert_allclose(STORED["cloud"], means, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["numpy", "torch", "float32"])
@pytest.mark.parametrize(("target", "level"), KEYS)
def test_references(target: str, level: str, kind: str) -> None:
    x, log_prob, score = stored(target, level)
    law = diffused(target, level)
    least = 0.0
    if kind == "float32":  # exact in float32 only where the point is: what it rounds to is answered
        points: Any = x.astype(np.float32)
        x, limits = points.astype(np.float64), (2e-7, 2e-7)
        log_prob, score = law.log_prob(x), law.score(x)
        # Between two modes the pulls cancel and the last digit of each is left: a pull is of about
        # 1/deviation, and never counted as more than 1.
        least = min(1.0, 1.0 / deviation(target, level))
    else:
        limits = (1e-13, 1e-12) if isinstance(law, ds.GaussianMixture) else (1e-10, 1e-10)
        points = torch.tensor(x) if kind == "torch" else x
    log_prob_errors, score_errors = errors(law, points, log_prob, score, least)
    assert np.max(log_prob_errors) <= limits[0]
    assert np.max(score_errors) <= limits[1]


@pytest.mark.parametrize(("target", "level"), KEYS)
def test_references_catch_a_wrong_score(target: str, level: str) -> None:
    """At every point with a score, one 5 % too large or of the other sign is far off."""
    x, _, score = stored(target, level)
    right = diffused(target, level).score(x)
    some = np.linalg.norm(score, axis=-1) > 0
    assert np.all(row_errors(1.05 * right, score)[some] > 0.04)
    assert np.all(row_errors(-right, score)[some] > 1.9)


@pytest.mark.parametrize("target", gallery.ALL)
def test_references_catch_a_wrong_law(target: str) -> None:
    """Noise or scale 1e-8 off is more than the limits allow."""
    x, log_prob, score = stored(target, "vp_middle")
    scale, var = STORED["levels"]["vp_middle"]
    for twin in (ds.Transition(scale * (1 + 1e-8), var), ds.Transition(scale, var * (1 + 1e-8))):
        for found in errors(undiffused(target).diffuse(twin), x, log_prob, score):
            assert np.max(found) > 1e-10


@pytest.mark.parametrize(("target", "level"), FAR_KEYS)
def test_far_references_catch_a_wrong_law(target: str, level: str) -> None:
    """So far out, each point alone shows a width 1e-8 off, and all but a blur that hides the data
    show where the data end.
    """
    x, log_prob, score = stored_far(target, level)
    for found in errors(diffused(target, level, 1 + 1e-8), x, log_prob, score):
        assert np.all(found > 1e-9)
    law = diffused(target, level)
    one = ds.GaussianMixture([1.0], [law.mean], [law.cov])  # the first moments are not enough
    if level != "ve_1e5":
        assert np.all(row_errors(one.score(x), score) > 1e-10)


# ---------------------------------------------------------------- the references themselves


def remade(row: dict[str, Any], check: bool = False, **changes: Any) -> dict[str, Any]:
    """The script's answer at a stored row's point."""
    law = LAWS[row["target"]]._replace(**changes)
    return SCRIPT.answer(law, row["x"], *SCRIPT.LEVELS[row["level"]], check)


def test_points_are_the_scripts() -> None:
    assert {name: list(level) for name, level in SCRIPT.LEVELS.items()} == STORED["levels"]
    assert STORED["digits"] == SCRIPT.DIGITS
    assert list(LAWS) == list(dict.fromkeys(row["target"] for row in STORED["rows"]))
    for target, level in KEYS:
        wanted = SCRIPT.spots(target, LAWS[target], *SCRIPT.LEVELS[level])
        assert [row["x"] for row in stored_rows(target, level)] == wanted


@pytest.mark.parametrize("target", [name for name in LAWS if name != "eight_gaussians"])
def test_rows_are_the_scripts(target: str) -> None:
    """Made again they are the same to all 30 digits, and at the next double they are not.

    Of a curve the far points, which have few intervals; not of eight_gaussians, the last digit of
    whose cosines differs from machine to machine.
    """
    rows = stored_rows(target, "vp_early")
    if isinstance(undiffused(target), ds.Curve):
        rows = rows[SCRIPT.MODES :]
    for row in rows:
        again = remade(row)
        assert again == {name: row[name] for name in again}
    beside = {**row, "x": np.nextafter(row["x"], np.inf).tolist()}
    assert remade(beside) != again


def test_two_quadratures_agree_everywhere() -> None:
    """Stored with each point of a law that is no sum of Gaussians: both are right to 25 digits."""
    for row in STORED["rows"]:
        mixture = isinstance(undiffused(row["target"]), ds.GaussianMixture)
        bare = (row["target"], row["level"]) == ("checkerboard", "none")  # nothing to integrate
        assert ("agreement" in row) == (not mixture and not bare)
        assert float(row.get("agreement", 0)) < 1e-25


@pytest.mark.parametrize(
    ("target", "level"),
    [("checkerboard", "vp_end"), ("rings", "ve_1e5"), ("swiss_roll", "vp_early")],
)
def test_the_agreement_is_measured(target: str, level: str) -> None:
    """It is computed again, and a second quadrature of blur 1e-8 off does not agree."""
    row = stored_rows(target, level)[-1]
    assert float(remade(row, check=True)["agreement"]) < 1e-25
    again = LAWS[target].again

    def wrong(x: Any, S: Any, V: Any) -> Any:
        return again(x, S, V * (1 + mp.mpf(10) ** -8))

    assert float(remade(row, check=True, again=wrong)["agreement"]) > 1e-10


# ---------------------------------------------------------------- one dimension, at 40 digits

LINE = {
    "julia_bimodal": gallery.julia_bimodal(),
    "wide_and_narrow": ds.GaussianMixture([0.7, 0.3], [[0.0], [1.0]], [[[1.0]], [[1e-8]]]),
    "boxes": ds.Boxes([[-2.0], [1.0]], [[-1.0], [3.0]], [0.25, 0.75]).diffuse(
        ds.Transition(1.0, 0.01)
    ),
}


def exact_cdf(name: str, x: float) -> Any:
    """P(X <= x), and P(X > x), with mpmath's normal cdf and nothing of the package."""
    with mp.workdps(50):
        x = mp.mpf(x)
        if name == "boxes":
            # The integral of the normal cdf is z Phi(z) + phi(z).
            def integral(z: Any) -> Any:
                return z * mp.ncdf(z) + mp.npdf(z)

            sides = [
                (mp.mpf(-2), mp.mpf(-1), mp.mpf("0.25")),
                (mp.mpf(1), mp.mpf(3), mp.mpf("0.75")),
            ]
            s = mp.sqrt(mp.mpf(0.01))
            below = sum(
                w * s * (integral((x - a) / s) - integral((x - b) / s)) / (b - a)
                for a, b, w in sides
            )
            above = sum(
                w * s * (integral((b - x) / s) - integral((a - x) / s)) / (b - a)
                for a, b, w in sides
            )
            return below, above
        law = LINE[name]
        below = above = mp.mpf(0)
        for w, m, c in zip(law.weights, law.means[:, 0], law.covs[:, 0, 0], strict=True):
            z = (x - mp.mpf(float(m))) / mp.sqrt(mp.mpf(float(c)))
            below += mp.mpf(float(w)) * mp.ncdf(z)
            above += mp.mpf(float(w)) * mp.ncdf(-z)
        return below, above


@pytest.mark.parametrize("name", LINE)
def test_cdf_at_40_digits(name: str) -> None:
    law = LINE[name]
    for x in (-6.0, -3.0, -1.95, -1.0, 0.0, 0.9999, 1.0, 1.25, 2.9, 3.5):
        below, above = exact_cdf(name, x)
        with mp.workdps(60):  # at fewer digits than its argument has, mp.log(1/4 + 1e-25) is 0
            logs = [float(mp.log(value)) for value in (below, above)]
        got = float(law.cdf(np.array([x])))
        assert abs(got - float(below)) <= 1e-12 * float(below) + 1e-300
        for upper, wanted in zip((False, True), logs, strict=True):
            log_cdf = float(law._log_cdf(np.array([x]), upper))
            assert abs(log_cdf - wanted) <= 1e-12 * max(1.0, abs(wanted))


@pytest.mark.parametrize("name", LINE)
def test_quantile_inverts_the_exact_cdf(name: str) -> None:
    law = LINE[name]
    u = np.array([1e-12, 1e-3, 0.2, 0.5, 0.75, 0.999, 1 - 1e-12])
    for wanted, x in zip(u, law.quantile(u)[:, 0], strict=True):
        below, above = exact_cdf(name, x)
        # As near as x's own last digit lets the cdf come.
        step = float(np.exp(law.log_prob(np.array([x])))) * np.spacing(abs(x)) * 2
        if wanted <= 0.5:
            assert abs(float(below) - wanted) <= 1e-12 * wanted + step
        else:
            assert abs(float(above) - (1 - wanted)) <= 1e-12 * (1 - wanted) + step
    np.testing.assert_allclose(law.cdf(law.quantile(u)), u, rtol=1e-12)


def test_entropy_of_a_gaussian_and_by_a_lattice() -> None:
    cov = np.array([[1.0, 0.9], [0.9, 1.5]])
    law = ds.GaussianMixture([1.0], [[1.0, 2.0]], [cov])
    wanted = 0.5 * math.log(np.linalg.det(2 * math.pi * math.e * cov))
    assert abs(law.entropy() - wanted) < 1e-14
    for name in ("julia_bimodal", "boxes"):
        x = np.arange(-15, 15, 0.002)[:, None]
        log_p = LINE[name].log_prob(x)
        lattice = -np.sum(np.exp(log_p) * log_p) * 0.002
        assert abs(LINE[name].entropy() - lattice) < 1e-8
    board = gallery.checkerboard()
    assert abs(board.entropy() - math.log(32)) < 1e-13


@pytest.mark.parametrize("ratio", [1.0, 0.1, 0.01, 1e-4])
def test_entropy_where_widths_differ(ratio: float) -> None:
    law = ds.GaussianMixture([0.9, 0.1], [[0.0], [1.0]], [[[1.0]], [[ratio**2]]])
    with mp.workdps(25):
        weights = [mp.mpf(float(w)) for w in law.weights]

        def term(x: Any) -> Any:
            p = weights[0] * mp.npdf(x) + weights[1] * mp.npdf(x, 1, mp.mpf(ratio))
            return -p * mp.log(p)

        marks = [1 + k * mp.mpf(ratio) for k in (-12, -6, -3, 0, 3, 6, 12)]
        wanted = mp.quad(term, sorted([-14, -6, -2, 0, 2, 6, 15, *marks]))
    assert abs(law.entropy() - float(wanted)) < 1e-9


# ---------------------------------------------------------------- 9: far tails

BOUNDED = [  # but for blur: mixtures have closed forms for their tails
    name
    for name, make in gallery.ALL.items()
    if not isinstance(make(), ds.GaussianMixture) or name == "empirical"
]


@pytest.mark.parametrize("distance", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("level", ["none", "vp_early", "vp_middle"])
@pytest.mark.parametrize(
    "target", ["julia_bimodal", "julia_trimodal", "eight_gaussians", "grid", "skewed_pair"]
)
def test_far_tails_of_mixtures(target: str, level: str, distance: float) -> None:
    """Far away along a direction one component is left: the score is -C^-1 (x - m), the Hessian
    -C^-1.
    """
    law = diffused(target, level)
    scale, var = STORED["levels"][level]
    turn = np.array([1.0, 0.37])[: law.dim]
    x = distance * deviation(target, level) * turn / np.linalg.norm(turn)
    with mp.workdps(60):
        at = [mp.mpf(float(v)) for v in x], mp.mpf(scale), mp.mpf(var)
        wanted = float(LAWS[target].value(*at)[0])
    precision = np.linalg.inv(law.covs)
    pulls = np.einsum("kij,kj->ki", precision, law.means - x)
    best = int(np.argmin(np.sum(pulls * (law.means - x), axis=-1)))
    for points in (x, torch.tensor(x)):
        assert abs(float(law.log_prob(points)) / wanted - 1) < 1e-13
        score, hessian = np.asarray(law.score(points)), np.asarray(law.hessian(points))
        np.testing.assert_allclose(score, pulls[best], rtol=1e-10)
        size = np.max(np.abs(precision[best]))
        np.testing.assert_allclose(hessian, -precision[best], rtol=0, atol=1e-10 * size)
    assert np.max(np.abs(1.05 * score / pulls[best] - 1)) > 0.04


@pytest.mark.parametrize("distance", [1e3, 1e6])
@pytest.mark.parametrize("target", BOUNDED)
@pytest.mark.parametrize("level", ["vp_early", "vp_middle", "ve_25"])
def test_far_tails_pull_to_the_nearest_point(target: str, distance: float, level: str) -> None:
    """With R the support's radius about the mean, |var score + x| <= scale R, and all is finite."""
    law = diffused(target, level)
    scale, var = STORED["levels"][level]
    base = gallery.ALL[target]()
    if target in ("rings", "two_moons", "s_curve", "swiss_roll"):
        var = law.noise.var
        scale = law.noise.scale
    turn = np.array([[1.0, 0.37], [-0.4, 1.0], [-1.0, -1.0]])
    x = distance * math.sqrt(var) * turn / np.linalg.norm(turn, axis=-1, keepdims=True)
    log_prob, score, hessian = law.log_prob(x), law.score(x), law.hessian(x)
    assert np.all(np.isfinite(log_prob))
    assert np.all(np.isfinite(score))
    assert np.all(np.isfinite(hessian))
    radius = 1.02 * np.max(np.linalg.norm(numpy_points(base), axis=-1))
    if target == "swiss_roll":
        radius *= 10  # the bare spiral is ten times as large
    reach = np.linalg.norm(x + var * score, axis=-1)
    assert np.all(reach <= abs(scale) * radius + 1e-9 * distance)
    # p(x) lies between the best and the worst of the support's points.
    size = np.linalg.norm(x, axis=-1)
    low = -((size + abs(scale) * radius) ** 2) / (2 * var) - math.log(2 * math.pi * var)
    high = -(np.maximum(size - abs(scale) * radius, 0) ** 2) / (2 * var) - math.log(
        2 * math.pi * var
    )
    assert np.all(log_prob >= low - 1e-9)
    assert np.all(log_prob <= high + 1e-9)


def numpy_points(law: Any) -> np.ndarray:
    return np.asarray(law.sample(4096, 0))


def test_far_tails_of_rings_and_boxes() -> None:
    """Asymptotics: the outermost circle, and the nearest corner."""
    law = gallery.rings()
    r = 1e4
    R, V = 3.0, law.noise.var
    z = R * r / V
    wanted = (
        -((r - R) ** 2) / (2 * V)
        + math.log(1 / 3)
        - math.log(2 * math.pi * V)
        - 0.5 * math.log(2 * math.pi * z)
        + math.log1p(1 / (8 * z) + 9 / (128 * z * z))
    )
    assert abs(float(law.log_prob(np.array([r, 0.0]))) / wanted - 1) < 1e-13
    square = ds.Boxes([[-1.0, -1.0]], [[1.0, 1.0]]).diffuse(ds.Transition(1.0, 1.0))
    x = np.array([1e6, -1e6])
    u = 1e6 - 1
    one = -0.5 * u * u - math.log(u) - 0.5 * math.log(2 * math.pi) - math.log(2.0) - 1 / u**2
    assert abs(float(square.log_prob(x)) / (2 * one) - 1) < 1e-13
    np.testing.assert_allclose(square.score(x), [-u - 1 / u, u + 1 / u], rtol=1e-13)


# ---------------------------------------------------------------- 10: the ends of the noise


@pytest.mark.parametrize("target", gallery.ALL)
def test_no_noise_is_the_data(target: str) -> None:
    """As noise goes to 0 the score tends to the data's, or a law without width says so by name."""
    law = gallery.ALL[target]()
    if target == "empirical":
        for ask in (law.log_prob, law.score, law.hessian):
            with pytest.raises(ds.ArgumentError, match="noise variance must be positive"):
                ask(np.zeros((3, 2)))
        return
    x = law.sample(50, 9)
    if target == "checkerboard":
        x = x[np.min(np.abs(x[:, :, None] - np.arange(-4, 5, 2)), axis=(1, 2)) > 0.01]
    for sigma in (1e-5, 1e-8):
        near = law.diffuse(ds.Transition(1.0, sigma**2))
        np.testing.assert_allclose(near.log_prob(x), law.log_prob(x), rtol=0, atol=2e6 * sigma**2)
        np.testing.assert_allclose(near.score(x), law.score(x), rtol=1e-5, atol=1e8 * sigma**2)
    identity = law.diffuse(ds.Transition.identity())
    assert np.array_equal(identity.score(x), law.score(x))


@pytest.mark.parametrize("target", gallery.ALL)
def test_little_noise_at_1e_5(target: str) -> None:
    """At noise 1e-5 everything is finite, near the data and a hundred widths away."""
    law = gallery.ALL[target]().diffuse(ds.Transition(1.0, 1e-10))
    x = law.sample(20, 10)
    for points in (x, x + 1e-3, x + 100.0):
        assert np.all(np.isfinite(law.log_prob(points)))
        assert np.all(np.isfinite(law.score(points)))


@pytest.mark.parametrize(
    ("base", "foot"),  # where the law runs along x, or has a point
    [
        (gallery.empirical([[0.0, 0.0], [1.0, 2.0]]), [1.0, 2.0]),
        (ds.Rings([1.0, 2.0]), [0.0, 2.0]),
        (gallery.s_curve(0.0), [0.0, -2.0]),
        (gallery.two_moons(0.0), [0.0, 1.0]),
    ],
    ids=["cloud", "rings", "s_curve", "two_moons"],
)
def test_little_noise_on_a_bare_law(base: Any, foot: list[float]) -> None:
    """A cloud, curve or circle hardly blurred: across it a Gaussian, so the score is -z/sigma."""
    sigma = 1e-5
    law = base.diffuse(ds.Transition(1.0, sigma**2))
    for z in (-3.0, -1.0, 0.5, 4.0):
        score = law.score(np.array(foot) + np.array([0.0, z * sigma]))
        np.testing.assert_allclose(score * sigma, [0.0, -z], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", gallery.ALL)
def test_much_noise_is_one_gaussian(target: str) -> None:
    """At noise 1e5 the law is N(m, C + 1e10 I) to the third order of width/noise."""
    law = gallery.ALL[target]().diffuse(ds.Transition(1.0, 1e10))
    one = ds.GaussianMixture([1.0], [law.mean], [law.cov])
    z = np.random.default_rng(11).standard_normal((50, law.dim))
    x = law.mean + 1e5 * z
    np.testing.assert_allclose(law.log_prob(x), one.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(1e5 * law.score(x), 1e5 * one.score(x), rtol=0, atol=1e-12)
    np.testing.assert_allclose(1e10 * law.hessian(x), 1e10 * one.hessian(x), rtol=0, atol=1e-8)
    # A process that ends with alpha = 0 ends in N(0, I), whatever the data were.
    end = gallery.ALL[target]().diffuse(ds.RectifiedFlow().at(1.0))
    np.testing.assert_allclose(
        end.log_prob(z), -0.5 * np.sum(z**2, -1) - 0.5 * law.dim * math.log(2 * math.pi), rtol=1e-13
    )
    np.testing.assert_allclose(end.score(z), -z, rtol=1e-13)
    oracle = ds.Oracle(gallery.ALL[target](), ds.RectifiedFlow())
    np.testing.assert_allclose(
        oracle.x0(z, 1.0), np.broadcast_to(oracle.law.mean, z.shape), rtol=0, atol=1e-13
    )
