"""How good is a kernel density estimate, and which bandwidth makes it best?

    estimate  p̂_h(x) = (1/(n h)) Σ_i K((x - x_i)/h)
    Gaussian  K = N(0, 1);   box  K = 1 on [-1/2, 1/2), so that h is the whole width of a box

The truth is p = 0.3 Beta(3, 10) + 0.3 Gamma(20, 0.04) + 0.4 N(2, 0.2^2), and the 60 points and the
four bandwidths of the panels are those of the page kernel_density_estimation of R. Rosa's notes
(random_notes, CC BY 4.0), drawn from Julia's stream.  The panels are estimated by scikit-learn; the
sweep uses the project's own algebra, which is the same function (column "library - algebra"): a
Gaussian estimate is the empirical measure diffused by the transition (1, h^2), a box estimate is a
mixture of uniform intervals.

Over fresh data sets of n points five numbers are computed:

    ISE          ∫ (p̂ - p)^2     Gaussian: Parseval's sum over characteristic functions;
                                   box: exact on its 2n steps, with the cdf of p
    KL(p, p̂)    infinite for every box estimate: some of p lies where p̂ = 0 ("uncovered")
    KL(p̂, p)    dear where p̂ spills over x < 0, where p is next to nothing
    Fisher       E_p (ŝ - s)^2 / E_p s^2, ŝ = d/dx log p̂: what Parzen score matching and
                 denoising at the one level h learn from these n points (Vincent 2011);
                 1 for boxes, whose score is 0 wherever it exists
    uncovered    probability under p that p̂ = 0

What stands in black is exact: MISE(h) = E ISE = R(K)/(n h) - ∫ g^2/n + ∫ (g - p)^2 with g = p * K_h
and R(K) = ∫ K^2, and for n = ∞ the error of g itself, which no data can mend.  The asymptotic
optimum (Parzen 1962; Silverman 1986, eq. 3.21) is

    h = (R(K) / (m^2 R(p'') n))^(1/5),   m = ∫ u^2 K(u) du

For the other errors the power of n is another, as p starts at 0 like x^2 and p̂ does not: in a layer
of width h the blurred law is off by as much as p itself, which costs h^3 in either KL and h in the
Fisher error (s = 2/x there); against noise of 1/(n h) and 1/(n h^3) the best h is ~ n^(-1/4).

Rules that see the data alone: Silverman's 0.9 min(s, IQR/1.34) n^(-1/5) (1986, eq. 3.31), Scott's
1.06 s n^(-1/5) (1992), the library's own "silverman" and "scott", which leave out the spread s, and
least-squares cross-validation (Rudemo 1982, Bowman 1984).  For boxes the rules are multiplied by
the ratio of the asymptotic optima, 3.48, those of the library by 2, as its bandwidth is half a box.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import Boxes, GaussianMixture, gallery, plots, quadrature
from diffscience.errors import ArgumentError, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

KERNELS = ("Gaussian", "box")
CRITERIA = ("ISE", "KL(p, p̂)", "KL(p̂, p)", "Fisher", "uncovered")
WEIGHTS = np.array([0.3, 0.3, 0.4])
# Asymptotically a box of width CANONICAL h smooths as a Gaussian of standard deviation h does.
CANONICAL = float((144 * 2 * math.sqrt(math.pi)) ** 0.2)
PERIOD, MODES, CELLS = 12.0, 60 * 60, 2**14


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    bandwidths : of the panels.
    sizes : n of the fresh data sets, increasing.
    repeats : how many data sets of each size.
    sweep : (first h, last h) of the Gaussian sweep; boxes are `CANONICAL` times as wide.
    count : bandwidths in the sweep, even in log h.
    cross : bandwidths among which cross-validation chooses, over the same range.
    points : abscissae of the panels.
    """

    bandwidths: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)
    sizes: tuple[int, ...] = (60, 600, 6000)
    repeats: tuple[int, ...] = (300, 100, 30)
    sweep: tuple[float, float] = (0.005, 0.6)
    count: int = 27
    cross: int = 100
    points: int = 2001
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.bandwidths or not all(0.005 <= h <= 0.7 for h in self.bandwidths):
            raise ArgumentError("bandwidths", "lie in [0.005, 0.7]", self.bandwidths)
        if len(self.sizes) < 2 or min(self.sizes) < 2 or np.any(np.diff(self.sizes) <= 0):
            raise ArgumentError("sizes", "be two or more increasing numbers >= 2", self.sizes)
        if len(self.repeats) != len(self.sizes) or min(self.repeats) < 3:
            raise ArgumentError("repeats", "be one number >= 3 a size", self.repeats)
        if not 0.005 <= self.sweep[0] < self.sweep[1] <= 0.7:
            raise ArgumentError("sweep", "increase inside [0.005, 0.7]", self.sweep)
        for name, least in (("count", 5), ("cross", 5), ("points", 100)):
            whole(name, getattr(self, name), least)

    def swept(self, kernel: str) -> np.ndarray:
        """The bandwidths of a kernel's sweep."""
        return np.geomspace(*self.sweep, self.count) * (1.0 if kernel == "Gaussian" else CANONICAL)


# The truth --------------------------------------------------------------------------------------


@functools.cache
def parts() -> tuple[Any, Any, Any]:
    """The three laws of the mixture, as frozen laws of SciPy."""
    from scipy import stats

    return stats.beta(3, 10), stats.gamma(20, scale=0.04), stats.norm(2, 0.2)


def log_density(x: np.ndarray) -> np.ndarray:
    """log p(x)."""
    from scipy.special import logsumexp

    logs = np.stack([law.logpdf(x) for law in parts()])
    return np.asarray(logsumexp(logs, axis=0, b=WEIGHTS.reshape(-1, *[1] * x.ndim)))


def density(x: np.ndarray) -> np.ndarray:
    """p(x)."""
    found: np.ndarray = sum(w * law.pdf(x) for w, law in zip(WEIGHTS, parts(), strict=True))
    return found


def cdf(x: np.ndarray) -> np.ndarray:
    """∫_{-∞}^x p."""
    found: np.ndarray = sum(w * law.cdf(x) for w, law in zip(WEIGHTS, parts(), strict=True))
    return found


def slopes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, n) each: d/dx log and d^2/dx^2 log of the three densities; 0 outside the supports."""
    inside, positive = (x > 0) & (x < 1), x > 0
    u, v = np.where(inside, x, 0.5), np.where(positive, x, 1.0)
    first = [inside * (2 / u - 9 / (1 - u)), positive * (19 / v - 25), -(x - 2) / 0.04]
    second = [
        inside * (-2 / u**2 - 9 / (1 - u) ** 2), positive * -19 / v**2, np.full_like(x, -25.0),
    ]  # fmt: skip
    return np.stack(first), np.stack(second)


def score(x: np.ndarray) -> np.ndarray:
    """d/dx log p(x)."""
    logs = np.stack([np.log(w) + law.logpdf(x) for w, law in zip(WEIGHTS, parts(), strict=True)])
    shares = np.exp(logs - log_density(x))
    return np.asarray(np.sum(shares * slopes(x)[0], axis=0))


def curvature(x: np.ndarray) -> np.ndarray:
    """p''(x), which jumps from 0 to 396 at x = 0."""
    first, second = slopes(x)
    pdfs = np.stack([w * law.pdf(x) for w, law in zip(WEIGHTS, parts(), strict=True)])
    return np.asarray(np.sum(pdfs * (first**2 + second), axis=0))


def sample(n: int, generator: np.random.Generator) -> np.ndarray:
    """n points (n,) of the truth."""
    k = generator.choice(3, n, p=WEIGHTS)
    draws = (generator.beta(3, 10, n), generator.gamma(20, 0.04, n), generator.normal(2, 0.2, n))
    return np.choose(k, draws)


def note_points(n: int = 60) -> np.ndarray:
    """The points of the note: `rand(Xoshiro(4321), MixtureModel(…), n)`."""
    draws: list[Callable[[Xoshiro], float]] = [
        lambda rng: rng.beta(3.0, 10.0),
        lambda rng: rng.gamma(20.0, 0.04),
        lambda rng: 2.0 + 0.2 * float(rng.randn()),
    ]
    return Xoshiro(4321).blend(WEIGHTS, draws, n)


def characteristic(t: np.ndarray) -> np.ndarray:
    """φ(t) = E exp(i t X), the Beta part by 600 Gauss-Legendre nodes (exact for |t| < 2000)."""
    u, weights = quadrature.panels(np.array([0.0, 1.0]), 600)
    beta = np.exp(1j * np.multiply.outer(t, u)) @ (weights * parts()[0].pdf(u))
    return np.asarray(
        0.3 * beta + 0.3 * (1 - 0.04j * t) ** -20.0 + 0.4 * np.exp(2j * t - 0.02 * t * t)
    )


@dataclass(frozen=True)
class Truth:
    """Everything about p that every data set is held against.

    x, mass, log_p, s : Gauss-Legendre nodes with their probabilities, log p and the score.
    t, phi : frequencies 2 π k/PERIOD, k = 0, 1, …, and the characteristic function there.
    edges, cells : of a fine grid, and the midpoints between them.
    log_cells, sums : log p at the midpoints, and ∫ log p up to the edges.
    square, energy : ∫ p^2 and E s^2.
    """

    x: np.ndarray
    mass: np.ndarray
    log_p: np.ndarray
    s: np.ndarray
    t: np.ndarray
    phi: np.ndarray
    edges: np.ndarray
    cells: np.ndarray
    log_cells: np.ndarray
    sums: np.ndarray
    square: float
    energy: float


@functools.cache
def truth() -> Truth:
    """The nodes are 8 on each of 150 panels of [0, 3.4], which holds all but 1e-12 of p."""
    edges = np.concatenate([np.linspace(0, 1, 51), np.linspace(1, 3.4, 101)[1:]])
    x, lengths = quadrature.panels(edges, 8)
    mass, s, t = lengths * density(x), score(x), 2 * math.pi / PERIOD * np.arange(MODES)
    phi = characteristic(t)
    # 0 is an edge: log p falls by some 50 nats there.
    grid = PERIOD / CELLS * (np.arange(CELLS + 1) - 6008.0)
    cells = (grid[:-1] + grid[1:]) / 2
    log_cells = log_density(cells)
    sums = np.concatenate([[0.0], np.cumsum(log_cells * np.diff(grid))])
    found = (x, mass, log_density(x), s, t, phi, grid, cells, log_cells, sums)
    return Truth(*found, float(parseval(phi)), float(mass @ s**2))


def blurred(h: float) -> GaussianMixture:
    """p * N(0, h^2) by the nodes: what the Gaussian estimate is on average, and for n = ∞."""
    law = truth()
    points = GaussianMixture(law.mass, law.x[:, None], np.zeros((len(law.x), 1)))
    smooth: GaussianMixture = points.blurred(h)
    return smooth


# Estimates --------------------------------------------------------------------------------------


def library(points: np.ndarray, kernel: str, h: float, x: np.ndarray) -> np.ndarray:
    """p̂_h(x) by scikit-learn, whose bandwidth of a box is half its width."""
    from sklearn.neighbors import KernelDensity

    name, width = ("gaussian", h) if kernel == "Gaussian" else ("tophat", h / 2)
    model = KernelDensity(kernel=name, bandwidth=width).fit(points[:, None])
    return np.asarray(np.exp(model.score_samples(x[:, None])))


def algebra(points: np.ndarray, kernel: str, h: float) -> GaussianMixture | Boxes:
    """p̂_h as a target: the empirical measure diffused, or intervals of width h."""
    cloud = points[:, None]
    if kernel == "Gaussian":
        smooth: GaussianMixture = gallery.empirical(cloud).blurred(h)
        return smooth
    return Boxes(cloud - h / 2, cloud + h / 2, np.ones(len(points)))


def waves(points: np.ndarray) -> np.ndarray:
    """The empirical characteristic function at the frequencies 2 π k/PERIOD, k < MODES."""
    rows = round(math.sqrt(MODES))
    angle = 2j * math.pi / PERIOD * points[:, None]
    fine, coarse = np.exp(angle * np.arange(rows)), np.exp(angle * rows * np.arange(rows))
    return np.asarray((coarse.T @ fine).ravel() / len(points))


def parseval(values: np.ndarray) -> np.ndarray:
    """∫ f^2 of the real function whose Fourier transform at the frequencies is `values`."""
    squares = np.abs(values) ** 2
    return np.asarray((2 * squares.sum(axis=-1) - squares[..., 0]) / PERIOD)


def damping(h: Any, t: np.ndarray) -> np.ndarray:
    """Fourier transform of N(0, h^2)."""
    return np.asarray(np.exp(-0.5 * np.multiply.outer(np.square(h), t * t)))


def on_cells(transform: np.ndarray) -> np.ndarray:
    """The function whose Fourier transform at the frequencies is given, on the fine grid."""
    shift = np.exp(-1j * truth().t * truth().cells[0])
    padded = np.zeros(CELLS // 2 + 1, complex)
    padded[: len(transform)] = np.conj(transform * shift)
    return np.asarray(np.fft.irfft(padded, CELLS) * (CELLS / PERIOD))


def backward(p: np.ndarray) -> float:
    """KL(p̂, p) of an estimate given on the fine grid; rounding below 1e-12 counts as 0."""
    p = np.where(p > 1e-12, p, 0.0)
    safe = np.where(p > 0, p, 1.0)
    return float(np.sum(p * (np.log(safe) - truth().log_cells)) * (PERIOD / CELLS))


def gaussian_errors(points: np.ndarray, h: float, found: np.ndarray) -> list[float]:
    """`CRITERIA` of a Gaussian estimate; `found` are the `waves` of the points."""
    law = truth()
    log_p, s = algebra(points, "Gaussian", h).log_prob_and_score(law.x[:, None])
    smooth = found * damping(h, law.t)
    return [
        float(parseval(smooth - law.phi)),
        float(law.mass @ (law.log_p - log_p)),
        backward(on_cells(smooth)),
        float(law.mass @ (s[:, 0] - law.s) ** 2) / law.energy,
        0.0,
    ]


def steps(points: np.ndarray, h: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(edges (2n,), heights and masses under p (2n - 1,) between them) of a box estimate."""
    edges = np.concatenate([points - h / 2, points + h / 2])
    order = np.argsort(edges, kind="stable")
    counts = np.cumsum(np.where(order < len(points), 1, -1))[:-1]
    edges = edges[order]
    return edges, counts / (len(points) * h), np.diff(cdf(edges))


def box_ise(edges: np.ndarray, heights: np.ndarray, masses: np.ndarray) -> float:
    """∫ (p̂ - p)^2 of a box estimate, from its `steps`."""
    return float(heights @ (heights * np.diff(edges) - 2 * masses) + truth().square)


def box_errors(points: np.ndarray, h: float) -> list[float]:
    """`CRITERIA` of a box estimate."""
    edges, heights, masses = steps(points, h)
    full = heights > 0.5 / (len(points) * h)
    own = heights[full] @ (np.diff(edges)[full] * np.log(heights[full]))
    cross = heights @ np.diff(np.interp(edges, truth().edges, truth().sums))
    uncovered = float(1 - masses[full].sum())
    return [box_ise(edges, heights, masses), math.inf, float(own - cross), 1.0, uncovered]


def ise_of(kernel: str, points: np.ndarray, widths: list[float], found: np.ndarray) -> np.ndarray:
    """∫ (p̂ - p)^2 at several bandwidths; `found` are the `waves` of the points."""
    if kernel == "Gaussian":
        return parseval(damping(np.array(widths), truth().t) * found - truth().phi)
    return np.array([box_ise(*steps(points, h)) for h in widths])


def errors_of(kernel: str, points: np.ndarray, h: float, found: np.ndarray) -> list[float]:
    """`CRITERIA` of an estimate; `found` are the `waves` of the points."""
    return gaussian_errors(points, h, found) if kernel == "Gaussian" else box_errors(points, h)


# Computing --------------------------------------------------------------------------------------


def constants() -> dict[str, tuple[float, float]]:
    """Kernel -> (R(K) = ∫ K^2, m = ∫ u^2 K)."""
    return {"Gaussian": (0.5 / math.sqrt(math.pi), 1.0), "box": (1.0, 1 / 12)}


def roughness() -> float:
    """R(p'') = ∫ p''^2."""
    law = truth()
    return float((law.mass / np.exp(law.log_p)) @ curvature(law.x) ** 2)


def asymptotic(kernel: str, n: float) -> float:
    """The bandwidth that is best as n grows."""
    r, m = constants()[kernel]
    return float((r / (m * m * roughness() * n)) ** 0.2)


def mise(kernel: str, h: np.ndarray, n: float) -> np.ndarray:
    """E ∫ (p̂ - p)^2, exactly, of n points; n = ∞ leaves the bias. h (H,)."""
    law, r = truth(), constants()[kernel][0]
    if kernel == "Gaussian":
        kept = damping(h, law.t)
        bias, square = parseval((1 - kept) * law.phi), parseval(kept * law.phi)
    else:
        x, step = law.cells[::4], 4 * PERIOD / CELLS
        p, g = density(x), np.stack([(cdf(x + w / 2) - cdf(x - w / 2)) / w for w in h])
        bias, square = step * np.sum((g - p) ** 2, axis=-1), step * np.sum(g * g, axis=-1)
    return np.asarray(bias + (r / h - square) / n)


def best_mise(kernel: str, n: float) -> tuple[float, float]:
    """(h, MISE) at the exact minimum."""
    from scipy.optimize import minimize_scalar

    middle = math.log(asymptotic(kernel, n))
    found = minimize_scalar(
        lambda u: float(mise(kernel, np.exp([u]), n)[0]), bounds=(middle - 2, middle + 2),
        method="bounded", options={"xatol": 1e-5},
    )  # fmt: skip
    return math.exp(found.x), float(found.fun)


def limits(h: np.ndarray) -> np.ndarray:
    """(H, 3): `CRITERIA` 1 to 3 of the blurred truth, which is n = ∞; the first is `mise` there."""
    law, rows = truth(), []
    for width in h.tolist():
        log_p, s = blurred(width).log_prob_and_score(law.x[:, None])
        rows.append(
            [
                float(law.mass @ (law.log_p - log_p)),
                backward(on_cells(damping(width, law.t) * law.phi)),
                float(law.mass @ (s[:, 0] - law.s) ** 2) / law.energy,
            ]
        )
    return np.array(rows)


def exact(config: Config) -> dict[str, Any]:
    """Everything that needs no data."""
    arrays: dict[str, Any] = {"limits": limits(config.swept("Gaussian"))}
    for kernel in KERNELS:
        h = config.swept(kernel)
        arrays[f"mise {kernel}"] = np.stack([mise(kernel, h, n) for n in (*config.sizes, math.inf)])
        arrays[f"best {kernel}"] = np.array([best_mise(kernel, n) for n in config.sizes])
        arrays[f"asymptotic {kernel}"] = np.array([asymptotic(kernel, n) for n in config.sizes])
    return arrays


def panels(config: Config) -> dict[str, Any]:
    """The note's points and estimates on a fine grid, and their errors."""
    points, widths = note_points(), np.array(config.bandwidths)
    x = np.linspace(points.min() - 0.2, points.max() + 0.2, config.points)
    found = waves(points)
    arrays: dict[str, Any] = {"points": points, "x": x, "density": density(x)}
    arrays["score"] = score(np.maximum(x, 1e-3))
    apart, errors, curves = [], [], []
    for kernel in KERNELS:
        for h in config.bandwidths:
            p = library(points, kernel, h, x)
            own = np.exp(algebra(points, kernel, h).log_prob(x[:, None]))
            apart.append(np.max(np.abs(p - own)))
            curves.append(p)
            errors.append(errors_of(kernel, points, h, found))
    arrays |= {"panels": np.stack(curves), "apart": np.array(apart), "errors": np.array(errors)}
    arrays["note mise"] = np.concatenate([mise(kernel, widths, len(points)) for kernel in KERNELS])
    laws = [algebra(points, "Gaussian", h) for h in config.bandwidths]
    laws += [blurred(h) for h in config.bandwidths]
    return arrays | {"scores": np.stack([law.score(x[:, None])[:, 0] for law in laws])}


SEEN = {
    "Silverman": CANONICAL, "Scott": CANONICAL, "cross-validation": CANONICAL,
    "library's silverman": 2.0, "library's scott": 2.0,
}  # fmt: skip
"""The rules that see the data alone, and how many times as wide they make a box."""

RULES = (*SEEN, "asymptotic optimum of p", "exact optimum of p")


def rules(points: np.ndarray, found: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The bandwidths of a Gaussian kernel by the rules `SEEN`."""
    n = len(points)
    low, high = np.quantile(points, (0.25, 0.75))
    spread, power = float(np.std(points, ddof=1)), n**-0.2
    silverman = 0.9 * min(spread, float(high - low) / 1.34) * power
    held_out = cross_validated(found, n, widths)
    return np.array([silverman, 1.06 * spread * power, held_out, (0.75 * n) ** -0.2, power])


def cross_validated(found: np.ndarray, n: int, widths: np.ndarray) -> float:
    """The width that minimises ∫ p̂^2 - (2/n) Σ_i p̂_{-i}(x_i), by the waves of the points."""
    kept = damping(widths, truth().t)
    inner = parseval(np.sqrt(kept) * found)  # (1/n) Σ_i p̂(x_i)
    left_out = (n * inner - 1 / (math.sqrt(2 * math.pi) * widths)) / (n - 1)
    return float(widths[np.argmin(parseval(kept * found) - 2 * left_out)])


def repeated(
    config: Config, n: int, repeats: int, known: dict[str, list[float]], generator: Any
) -> dict[str, Any]:
    """Errors of `repeats` data sets of n points (R, H, criterion), and the rules' (R, rule, 2).

    known : kernel -> the bandwidths that need p.
    """
    errors: dict[str, list[Any]] = {kernel: [] for kernel in KERNELS}
    ruled: dict[str, list[Any]] = {kernel: [] for kernel in KERNELS}
    widths = np.geomspace(*config.sweep, config.cross)
    for _ in range(repeats):
        points = sample(n, generator)
        found = waves(points)
        seen = rules(points, found, widths)
        for kernel in KERNELS:
            own = seen if kernel == "Gaussian" else seen * np.array(list(SEEN.values()))
            chosen = [*own.tolist(), *known[kernel]]
            ise = ise_of(kernel, points, chosen, found)
            ruled[kernel].append(np.stack([chosen, ise], axis=-1))
            swept = config.swept(kernel).tolist()
            errors[kernel].append([errors_of(kernel, points, h, found) for h in swept])
    arrays = {f"errors {kernel}": np.array(errors[kernel]) for kernel in KERNELS}
    return arrays | {f"rules {kernel}": np.array(ruled[kernel]) for kernel in KERNELS}


def compute(config: Config, run: Run) -> dict[str, Any]:
    """The note's panels, the exact curves, and the sweeps of every size."""
    arrays: dict[str, Any] = dict(run.cell("exact", exact, config))
    arrays |= run.cell("panels", panels, config)
    for i, n in run.progress(list(enumerate(config.sizes)), "data sets"):
        known = {
            kernel: [
                float(arrays[f"asymptotic {kernel}"][i]),
                float(arrays[f"best {kernel}"][i, 0]),
            ]
            for kernel in KERNELS
        }
        given = (config, n, config.repeats[i], known, run.generator("data", n))
        found = run.cell(f"sweep {n}", repeated, *given)
        arrays |= {f"{key} {n}": value for key, value in found.items()}
    for kernel, j, _ in OPTIMA:
        curves = (curve(arrays, kernel, n, j) for n in config.sizes)
        rows = [optimum(config.swept(kernel), rows) for rows in curves]
        arrays[f"optimum {kernel} {j}"] = np.array(rows)
    return arrays


# What the sweeps say ------------------------------------------------------------------------------


def lowest(h: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(h, value) at the bottom of a parabola in log h through the three lowest points.

    Where the lowest is at an end of the sweep, the bottom is not known to lie inside: h is NaN.
    """
    i = int(np.argmin(values))
    if i in (0, len(h) - 1):
        return math.nan, float(values[i])
    a, b, c = np.polyfit(np.log(h[i - 1 : i + 2]) - np.log(h[i]), values[i - 1 : i + 2], 2)
    if a <= 0:  # three equal values
        return float(h[i]), float(values[i])
    u = float(np.clip(-b / (2 * a), math.log(h[i - 1] / h[i]), math.log(h[i + 1] / h[i])))
    return float(h[i]) * math.exp(u), float(a * u * u + b * u + c)


def optimum(h: np.ndarray, rows: np.ndarray) -> tuple[float, float, float, float]:
    """(best h, its error, least mean, its error) of curves (R, H), errors by the jackknife."""
    n, total = len(rows), rows.sum(axis=0)
    width, value = lowest(h, total / n)
    left_out = np.array([lowest(h, (total - row) / (n - 1)) for row in rows])
    errors = np.sqrt((n - 1) * np.mean((left_out - left_out.mean(axis=0)) ** 2, axis=0))
    return width, float(errors[0]), value, float(errors[1])


def curve(arrays: dict[str, np.ndarray], kernel: str, n: int, j: int) -> np.ndarray:
    """The curves (R, H) of criterion j."""
    return arrays[f"errors {kernel} {n}"][:, :, j]


def spread(rows: np.ndarray) -> Any:
    """Standard error of the mean over the first axis; NaN where a value is infinite."""
    finite = np.isfinite(rows).all(axis=0)
    error = mean_and_error(np.where(finite, rows, 0.0))[1]
    return np.where(finite, error, math.nan)[()]


# Which criterion of which kernel has a best bandwidth, and the power of n that theory gives it.
OPTIMA = (
    ("Gaussian", 0, -1 / 5), ("box", 0, -1 / 5), ("Gaussian", 1, -1 / 4), ("Gaussian", 2, -1 / 4),
    ("box", 2, -1 / 4), ("Gaussian", 3, -1 / 4),
)  # fmt: skip


def best_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The best bandwidth by kernel, criterion and n, beside the exact and the asymptotic one."""
    rows = []
    for kernel, j, _ in OPTIMA:
        for i, n in enumerate(config.sizes):
            h, h_error, value, error = arrays[f"optimum {kernel} {j}"][i]
            row = {
                "kernel": kernel,
                "criterion": CRITERIA[j],
                "n": n,
                "data sets": config.repeats[i],
            }
            row |= {"best h": h, "error of h": h_error, "least mean": value, "error": error}
            ise = j == 0
            known = arrays[f"best {kernel}"][i] if ise else (math.nan, math.nan)
            row |= {"exact h": known[0], "exact least": known[1]}
            row["asymptotic h"] = arrays[f"asymptotic {kernel}"][i] if ise else math.nan
            rows.append(row)
    return rows


def exponents(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The power of n in the best h, from the first size to the last."""
    rows = []
    ratio = math.log(config.sizes[-1] / config.sizes[0])
    for kernel, j, theory in OPTIMA:
        (first, first_error), (last, last_error) = arrays[f"optimum {kernel} {j}"][[0, -1], :2]
        row = {
            "kernel": kernel,
            "criterion": CRITERIA[j],
            "power of n": math.log(last / first) / ratio,
        }
        row["error"] = math.hypot(first_error / first, last_error / last) / ratio
        widths = arrays[f"best {kernel}"][[0, -1], 0]
        row["exact power"] = math.log(widths[1] / widths[0]) / ratio if j == 0 else math.nan
        rows.append(row | {"power for n → ∞": theory})
    return rows


def sweep_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """All criteria at every bandwidth: mean and standard error over the data sets."""
    rows = []
    for kernel in KERNELS:
        for i, n in enumerate(config.sizes):
            for k, h in enumerate(config.swept(kernel).tolist()):
                row: dict[str, Any] = {"kernel": kernel, "n": n, "h": h}
                for j, criterion in enumerate(CRITERIA):
                    values = curve(arrays, kernel, n, j)[:, k]
                    row |= {criterion: values.mean(), f"error of {criterion}": spread(values)}
                row["exact MISE"] = arrays[f"mise {kernel}"][i, k]
                rows.append(row)
    return rows


def rules_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """What a rule costs: its mean ISE beside the least MISE that one fixed bandwidth reaches."""
    rows = []
    for kernel in KERNELS:
        for i, n in enumerate(config.sizes):
            least = float(arrays[f"best {kernel}"][i, 1])
            for k, rule in enumerate(RULES):
                h, ise = arrays[f"rules {kernel} {n}"][:, k].T
                row = {"kernel": kernel, "n": n, "rule": rule, "mean h": h.mean()}
                row |= {"h, standard deviation": h.std(ddof=1) if np.ptp(h) else 0.0}
                row |= {"mean ISE": ise.mean(), "error": spread(ise)}
                row |= {"ISE / least MISE": ise.mean() / least}
                rows.append(row | {"error of ratio": spread(ise) / least})
    return rows


def note_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The note's eight panels."""
    names = [(kernel, h) for kernel in KERNELS for h in config.bandwidths]
    rows = []
    for i, (kernel, h) in enumerate(names):
        row = {"kernel": kernel, "h": h}
        row |= dict(zip(CRITERIA, arrays["errors"][i].tolist(), strict=True))
        row |= {"exact MISE": arrays["note mise"][i], "library - algebra": arrays["apart"][i]}
        rows.append(row)
    return rows


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Best bandwidths; their powers of n; rules; the note's panels; the whole sweep."""
    import pandas as pd

    found = {
        "": best_table(config, arrays), "powers": exponents(config, arrays),
        "rules": rules_table(config, arrays), "note": note_table(config, arrays),
        "sweep": sweep_table(config, arrays),
    }  # fmt: skip
    return {name: pd.DataFrame(rows) for name, rows in found.items()}


# Figures ----------------------------------------------------------------------------------------


def draw_sample(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The note's last figure: points, histogram, estimate and the density that they come from."""
    fig, axes = plots.figure(1, 1, height=3.6)
    ax, x, points = axes[0, 0], arrays["x"], arrays["points"]
    middle = int(np.argmin(arrays["errors"][: len(config.bandwidths), 0]))
    ax.hist(points, np.arange(0, 2.75, 0.1), density=True, color="0.85", label="histogram")
    label = f"Gaussian kernel, h = {config.bandwidths[middle]:g}"
    ax.plot(x, arrays["panels"][middle], color=plots.COLORS[0], label=label)
    ax.plot(x, arrays["density"], color="black", label="exact density")
    ax.plot(points, np.full_like(points, 0.02), "o", color=plots.COLORS[2], ms=3, label="points")
    ax.set(xlim=(x[0], x[-1]), ylim=(0, None), xlabel="x", ylabel="density")
    ax.legend(loc="upper center", bbox_to_anchor=(0.55, 1.0))
    fig.suptitle(f"{len(points)} points of a mixture of Beta, Gamma and normal laws", fontsize=11)
    return fig


def draw_panels(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Kernels by bandwidths, as in the note, with the density that it keeps for the end."""
    fig, axes = plots.figure(len(KERNELS), len(config.bandwidths), height=4.6)
    x, points = arrays["x"], arrays["points"]
    curves = arrays["panels"].reshape(len(KERNELS), len(config.bandwidths), -1)
    errors = arrays["errors"].reshape(len(KERNELS), len(config.bandwidths), -1)
    rows = zip(axes, KERNELS, curves, errors, plots.COLORS[:2], strict=True)
    for row, name, p, error, color in rows:
        for ax, h, values, found in zip(row, config.bandwidths, p, error, strict=True):
            ax.plot(x, values, color=color, linewidth=1.0, label=f"{name} kernel")
            ax.plot(x, arrays["density"], color="black", linewidth=1.2, label="exact density")
            ax.plot(
                points, np.full_like(points, -0.045), "|", color="0.45", markersize=5,
                transform=ax.get_xaxis_transform(), clip_on=False,
            )  # fmt: skip
            top = max(2.0, 1.08 * float(values.max()))
            ax.set(xlim=(x[0], x[-1]), ylim=(0, top), xticks=(0, 1, 2))
            ax.tick_params(axis="x", pad=8)
            ax.set_title(f"$h = {h:g}$, ISE {found[0]:.3g}", fontsize=9.5)
        row[0].set_ylabel("density")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    plots.legend_below(fig, axes[0, 0], axes[1, 0])
    fig.suptitle(
        f"Kernel density estimates of the same {len(points)} points (ticks); "
        "ISE: integrated squared error",
        fontsize=11,
    )
    return fig


def bars(ax: Axes, h: np.ndarray, rows: np.ndarray, color: str, label: str | None) -> None:
    """Mean and standard error of curves (R, H)."""
    ax.errorbar(
        h, rows.mean(axis=0), spread(rows), fmt="o", color=color, markersize=3, capsize=2,
        elinewidth=1.0, label=label,
    )  # fmt: skip


def draw_sweep(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """ISE, both divergences and the uncovered mass against h."""
    fig, axes = plots.figure(3, 2, height=8.6)
    for column, kernel in zip(axes.T, KERNELS, strict=True):
        h, gaussian = config.swept(kernel), kernel == "Gaussian"
        for i, n in enumerate(config.sizes):
            color = plots.COLORS[i]
            label = f"n = {n}, {config.repeats[i]} data sets" if gaussian else None
            known = "exact expectation; ▾ asymptotic optimum of h" if gaussian and i == 0 else None
            bars(column[0], h, curve(arrays, kernel, n, 0), color, label)
            column[0].plot(h, arrays[f"mise {kernel}"][i], color="black", lw=1.0, label=known)
            width = float(arrays[f"asymptotic {kernel}"][i])
            column[0].plot(width, 0.97, "v", color=color, transform=column[0].get_xaxis_transform())
            bars(column[1], h, curve(arrays, kernel, n, 2), color, None)
            bars(column[2], h, curve(arrays, kernel, n, 1 if gaussian else 4), color, None)
        label = "n = ∞: p blurred, exact" if gaussian else None
        column[0].plot(h, arrays[f"mise {kernel}"][-1], "k:", lw=1.2, label=label)
        for ax in column:
            ax.set(xscale="log", yscale="log", xlim=(h[0] / 1.1, h[-1] * 1.1))
        low = 0.4 * min(arrays[f"best {kernel}"][:, 1])
        column[0].set(ylim=(low, None), title=f"{kernel} kernel")
        column[-1].set_xlabel("bandwidth h" if gaussian else "width h of the boxes")
    h, limit = config.swept("Gaussian"), arrays["limits"]
    axes[1, 0].plot(h, limit[:, 1], "k:", lw=1.2)
    axes[2, 0].plot(h, limit[:, 0], "k:", lw=1.2)
    for ax, j in ((axes[1, 0], 2), (axes[2, 0], 1)):
        least = min(curve(arrays, "Gaussian", n, j).mean(axis=0).min() for n in config.sizes)
        ax.set_ylim(bottom=0.4 * least)
    words = ["ISE"] * 2 + ["KL(estimate, p) / nats"] * 2
    words += ["KL(p, estimate) / nats", "P(estimate = 0)"]
    for ax, word in zip(axes.flat, words, strict=True):
        ax.set_ylabel(word)
    axes[2, 1].set_ylim(bottom=2e-11)
    axes[2, 1].set_title("KL(p, estimate) = ∞ for every box estimate", fontsize=10)
    plots.legend_below(fig, *axes.flat, columns=3)
    fig.suptitle("Errors against the bandwidth (mean ± standard error)", fontsize=11)
    return fig


def draw_scores(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The score of the estimates beside the exact one."""
    count = len(config.bandwidths)
    fig, axes = plots.figure(
        math.ceil(count / 2), 2, height=2.4 * math.ceil(count / 2) + 0.9, share=True
    )
    x = arrays["x"]
    errors = arrays["errors"][:count, 3]
    for k, (ax, h) in enumerate(zip(axes.flat, config.bandwidths, strict=False)):
        own, limit = arrays["scores"][k], arrays["scores"][count + k]
        ax.plot(x, own, color=plots.COLORS[0], lw=1.0, label="of the estimate, Gaussian kernel")
        label = "of p blurred by h (n = ∞), exact"
        ax.plot(x, limit, "--", color=plots.COLORS[2], lw=1.2, label=label)
        positive = x > 0.01
        ax.plot(x[positive], arrays["score"][positive], color="black", lw=1.2, label="of p, exact")
        ax.set(ylim=(-75, 75), xlim=(x[0], x[-1]))
        error = f"{errors[k]:.3g}" if errors[k] < 100 else f"{errors[k]:,.0f}"
        ax.set_title(f"$h = {h:g}$: relative Fisher error {error}", fontsize=10)
    for ax in axes[:, 0]:
        ax.set_ylabel("score")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        f"What score matching against a Parzen estimate learns from {len(arrays['points'])} points "
        "(scores beyond ±75 are cut)",
        fontsize=11,
    )
    return fig


def draw_best(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Fisher error against h, and the best h of each criterion against n."""
    fig, axes = plots.figure(1, 2, height=3.9)
    left, right = axes[0]
    h = config.swept("Gaussian")
    for i, n in enumerate(config.sizes):
        bars(left, h, curve(arrays, "Gaussian", n, 3), plots.COLORS[i], f"n = {n}")
    left.plot(h, arrays["limits"][:, 2], "k:", lw=1.2, label="n = ∞, exact")
    left.axhline(1.0, color="0.5", lw=1.0, label="score 0 (box kernel)")
    left.set(xscale="log", yscale="log", xlabel="bandwidth h", ylabel="relative Fisher error")
    left.legend()
    names = ("ISE", "KL(p, estimate)", "KL(estimate, p)", "Fisher")
    for j, (name, color, mark) in enumerate(zip(names, plots.COLORS[4:8], "osD^", strict=True)):
        width, error = arrays[f"optimum Gaussian {j}"][:, :2].T
        beside = np.array(config.sizes) * 1.12 ** (j - 1.5)
        right.errorbar(beside, width, error, fmt=mark, color=color, capsize=2, label=name)
    exact_h = arrays["best Gaussian"][:, 0]
    right.plot(config.sizes, exact_h, color="black", lw=1.2, label="least MISE, exact")
    label = "asymptotic, $n^{-1/5}$"
    right.plot(config.sizes, arrays["asymptotic Gaussian"], "k--", lw=1.0, label=label)
    right.set(xscale="log", yscale="log", xlabel="points n", ylabel="best bandwidth h")
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2)
    right.set_yticks(ticks, [f"{t:g}" for t in ticks])
    right.set_xticks(config.sizes, [str(size) for size in config.sizes])
    right.minorticks_off()
    right.set_ylim(top=0.4)
    right.legend(fontsize=8, ncols=2, loc="upper center")
    fig.suptitle(
        "Gaussian kernel: the score, and the bandwidth that is best for each purpose", fontsize=11
    )
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """The note's panels; the sweep; scores; best bandwidths."""
    return {
        "": draw_panels(config, arrays),
        "sample": draw_sample(config, arrays),
        "sweep": draw_sweep(config, arrays),
        "scores": draw_scores(config, arrays),
        "best": draw_best(config, arrays),
    }


STUDY = Study(
    Config(),
    Config(sizes=(60, 600), repeats=(12, 6), count=11, cross=40, points=1001),
    compute,
    table,
    draw,
    "How good is a kernel density estimate of 60 points, and which bandwidth makes it best?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
