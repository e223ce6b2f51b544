"""What does Hyvarinen's score matching fit in closed form, and how sure is it?

    J(theta) = E [1/2 psi(X; theta)^2 + psi'(X; theta)],   psi = (d/dx) log q

so that J = 1/2 E (psi - s)^2 - 1/2 E s^2 with the true score s, which is not needed: E over a
sample is the empirical objective (Hyvarinen, JMLR 6 (2005) 695, equation 4). Three models of the
law 0.4 N(2, 1) + 0.6 N(4, 1) are fitted, all in closed form:

    Gaussian        psi = -(x - mu)/sigma^2; the minimum is at the moments of the sample, which is
                    where the likelihood has its maximum
    its grid        the note's sweep: 400 mu from min - 1/2 to max + 1/2, 200 sigma from 0.1 to 6
    polynomial      psi = sum_(j=0..d) theta_j z^j in z = (x - centre)/scale, the exponential family
                    with the statistics x, x^2, ..., x^(d+1); J is quadratic in theta

The first sample is that of R. Rosa's note "Score matching of Aapo Hyvarinen" (random_notes,
dev/generative/score_matching_aapo, CC BY 4.0), replayed from its stream, Xoshiro(234); the note
prints the minimum on its grid. Fresh samples give the sampling distribution of the fit, beside its
limit law: at the minimum of a mean objective the spread is A^-1 B A^-1/n, A the Hessian and B the
variance of the gradient (of the Gaussian: var mu = v/n, var sigma = (m4 - v^2)/(4 v n)).

The error of a fitted score is E_p (psi - s)^2 / E_p s^2 under the exact law, by quadrature; the
best of a degree is the projection of s, which n -> infinity reaches. A score of odd degree belongs
to a density only where its leading coefficient is negative: the table counts those of none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import VP, GaussianMixture, Oracle, fits, gallery, julia, metrics, plots
from diffscience.errors import ArgumentError, whole
from diffscience.estimates import mean_and_error
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

PUBLISHED = (3.0819, 1.4045)
"""(mu, sigma) of the smallest value on the note's grid, as printed there."""

NOTE_POINTS, NOTE_SEED = 100, 234
GRID = (400, 200)  # mu, sigma


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    sizes, samples : of the fresh samples: their sizes, and how many of each size.
    degrees : of the polynomial scores, all odd; 1 is the Gaussian.
    fit_sizes, fits : the same for the polynomials.
    """

    sizes: tuple[int, ...] = (25, 50, 100, 400, 1600, 6400)
    samples: int = 2000
    degrees: tuple[int, ...] = (1, 3, 5, 7, 9)
    fit_sizes: tuple[int, ...] = (100, 1000, 10_000, 100_000)
    fits: int = 100
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("sizes", "fit_sizes"):
            values = getattr(self, name)
            if not values or min(values) < 20 or np.any(np.diff(values) <= 0):
                raise ArgumentError(name, "be increasing whole numbers of at least 20", values)
        if 100 not in self.sizes:
            raise ArgumentError("sizes", "hold the note's 100", self.sizes)
        for name in ("samples", "fits"):
            whole(name, getattr(self, name), 3)
        if self.degrees[0] != 1 or any(d % 2 == 0 or not 0 < d <= 11 for d in self.degrees):
            raise ArgumentError("degrees", "be 1 and odd numbers up to 11", self.degrees)


def note_law() -> GaussianMixture:
    """0.4 N(2, 1) + 0.6 N(4, 1), the law of the note."""
    return GaussianMixture([0.4, 0.6], [[2.0], [4.0]], [[[1.0]], [[1.0]]])


LAWS: dict[str, Callable[[], GaussianMixture]] = {
    "0.4 N(2, 1) + 0.6 N(4, 1)": note_law,
    "0.1 N(−3, 1) + 0.9 N(3, 1)": gallery.julia_bimodal,
}
"""The laws whose scores the polynomials fit: two components and one mode, and two modes apart."""


def note_sample() -> np.ndarray:
    """The 100 points of the note, (100, 1), from its stream."""
    law = note_law()
    means, deviations = np.asarray(law.means)[:, 0], np.sqrt(np.asarray(law.covs)[:, 0, 0])
    x = julia.Xoshiro(NOTE_SEED).mixture(np.asarray(law.weights), means, deviations, NOTE_POINTS)
    return x[:, None]


def relative_error(law: GaussianMixture, psi: Callable[[np.ndarray], np.ndarray]) -> float:
    """E (psi - s)^2 / E s^2 under the law, by quadrature; psi a function (n, 1) -> (n,)."""
    model: Any = SimpleNamespace(score=lambda x, t: psi(x)[:, None])
    return float(metrics.fisher_error(model, Oracle(law, VP()), 0.0, relative=True).value)


# The Gaussian -----------------------------------------------------------------------------------


def moments(law: GaussianMixture) -> tuple[float, float, float]:
    """Mean, variance and central moment 4 of a 1-D law."""
    x, w = law.quadrature()
    mean = float(w @ x[:, 0])
    v, m4 = (float(w @ (x[:, 0] - mean) ** k) for k in (2, 4))
    return mean, v, m4


def gaussian_score(mu: float, sigma: float) -> Callable[[np.ndarray], np.ndarray]:
    """psi of N(mu, sigma^2), a function (n, 1) -> (n,)."""
    return lambda x: -(x[:, 0] - mu) / sigma**2


def landscape(x: np.ndarray) -> dict[str, np.ndarray]:
    """The objective (sigma, mu) on the note's grid over points (n, 1), and its smallest value."""
    low, high = float(x.min()) - 0.5, float(x.max()) + 0.5
    mu, sigma = julia.span(low, high, GRID[0]), julia.span(0.1, 6.0, GRID[1])
    second = np.mean((x - mu) ** 2, axis=0)
    J = 0.5 * second / sigma[:, None] ** 4 - 1 / sigma[:, None] ** 2
    row, column = np.unravel_index(np.argmin(J), J.shape)
    smallest = np.array([mu[column], sigma[row], J[row, column]])
    return {"mu": mu, "sigma": sigma, "objective": J, "smallest": smallest}


def likeliest(x: np.ndarray) -> np.ndarray:
    """(mu, sigma) of largest likelihood, by a search that knows no formula."""
    from scipy.optimize import minimize

    def loss(theta: np.ndarray) -> float:
        return float(theta[1] + 0.5 * np.mean((x - theta[0]) ** 2) * math.exp(-2 * theta[1]))

    options = {"xatol": 1e-10, "fatol": 1e-14, "maxiter": 4000}
    found = minimize(loss, np.array([x[0, 0], 0.0]), method="Nelder-Mead", options=options)
    return np.array([found.x[0], math.exp(found.x[1])])


def of_note(x: np.ndarray) -> dict[str, Any]:
    """The grid, the closed form and the likelihood on one sample, and J at each; the law."""
    line, law = np.linspace(-1.5, 8.0, 400), note_law()
    found: dict[str, Any] = {"points": x, **landscape(x)}
    found |= {"line": line, "density": np.exp(law.log_prob(line[:, None]))}
    mean, cov = fits.gaussian(x)
    ways = {
        "grid": found["smallest"][:2],
        "closed form": np.array([mean[0], math.sqrt(cov[0, 0])]),
        "likelihood": likeliest(x),
        "truth": np.array([float(law.mean[0]), math.sqrt(float(law.cov[0, 0]))]),
    }
    for way, (mu, sigma) in ways.items():
        J = fits.gaussian_objective(x, np.array([mu]), np.array([[sigma**2]]))
        error = relative_error(law, gaussian_score(mu, sigma))
        found[f"fit {way}"] = np.array([mu, sigma, J, error])
    return found


def sampled(n: int, samples: int, generator: Any) -> dict[str, np.ndarray]:
    """(mu, sigma) of fresh samples of size n, (samples, 2)."""
    law = note_law()
    drawn = (law.sample(n, generator) for _ in range(samples))
    found = [fits.gaussian(x) for x in drawn]
    return {"fits": np.array([[mean[0], math.sqrt(cov[0, 0])] for mean, cov in found])}


def limit_law(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(mean, standard deviation) of (mu, sigma) of a sample of size n, to leading order in 1/n."""
    mean, v, m4 = moments(note_law())
    spread = np.array([v / n, (m4 - v * v) / (4 * v * n)])
    # E v_n = v (1 - 1/n), and the root is concave: -var(v_n)/(8 v^1.5).
    shift = -math.sqrt(v) / (2 * n) - (m4 - v * v) / (8 * v**1.5 * n)
    return np.array([mean, math.sqrt(v) + shift]), np.sqrt(spread)


# Polynomials ------------------------------------------------------------------------------------


def units(law: GaussianMixture) -> tuple[float, float]:
    """(centre, scale) of z = (x - centre)/scale: the mean and two standard deviations."""
    return float(law.mean[0]), 2 * math.sqrt(float(law.cov[0, 0]))


def statistics(law: GaussianMixture, degree: int) -> list[tuple[Any, Any]]:
    """The fields z^j and their derivatives, j = 0, ..., degree."""
    centre, scale = units(law)

    def power(j: int) -> tuple[Any, Any]:
        def field(x: np.ndarray) -> np.ndarray:
            return np.asarray(((x - centre) / scale) ** j)

        def slope(x: np.ndarray) -> np.ndarray:
            z = (x[:, 0] - centre) / scale
            return j / scale * z ** max(j - 1, 0)

        return field, slope

    return [power(j) for j in range(degree + 1)]


def polynomial(law: GaussianMixture, theta: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """psi of parameters theta, a function (n, 1) -> (n,)."""
    centre, scale = units(law)
    return lambda x: np.polynomial.Polynomial(theta)((x[:, 0] - centre) / scale)


def polynomial_error(law: GaussianMixture, theta: np.ndarray) -> float:
    """The relative error of psi under the law."""
    return relative_error(law, polynomial(law, theta))


def projection(law: GaussianMixture, degree: int) -> np.ndarray:
    """The best theta of a degree: least squares against the true score under the law."""
    x, w = law.quadrature()
    columns = np.stack([f(x)[:, 0] for f, _ in statistics(law, degree)], axis=1)
    root = np.sqrt(w)
    return np.linalg.lstsq(columns * root[:, None], law.score(x)[:, 0] * root, rcond=None)[0]


def fitted(law: GaussianMixture, x: np.ndarray, degrees: tuple[int, ...]) -> list[np.ndarray]:
    """theta of score matching on points x (n, 1), for each degree.

    The objective of a degree is the leading block of that of a higher one.
    """
    J = fits.linear_score(statistics(law, max(degrees)), x)
    blocks = (fits.Quadratic(J.A[: d + 1, : d + 1], J.b[: d + 1], J.c) for d in degrees)
    return [block.minimiser for block in blocks]


def polynomials(
    law: GaussianMixture, degrees: tuple[int, ...], n: int, repeats: int, generator: Any
) -> dict[str, np.ndarray]:
    """Relative errors and leading coefficients of fits to fresh samples, (degrees, repeats)."""
    rows = [fitted(law, law.sample(n, generator), degrees) for _ in range(repeats)]
    return {
        "errors": np.array([[polynomial_error(law, theta) for theta in row] for row in rows]).T,
        "leading": np.array([[theta[-1] for theta in row] for row in rows]).T,
    }


def normalised(law: GaussianMixture, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The density whose score is psi, on an even grid x (m,); NaN where it has none."""
    if theta[-1] >= 0:
        return np.full(len(x), np.nan)
    centre, scale = units(law)
    log_q = scale * np.polynomial.Polynomial(theta).integ()((x - centre) / scale)
    q = np.exp(log_q - log_q.max())
    return np.asarray(q / (q.sum() * (x[1] - x[0])))


def pictures(config: Config, law: GaussianMixture, generator: Any) -> dict[str, np.ndarray]:
    """Scores and densities of fits to one sample of the largest size, for the figures."""
    x = law.sample(config.fit_sizes[-1], generator)
    centre, scale = units(law)
    grid = centre + 2 * scale * np.linspace(-1, 1, 1001)
    arrays = {
        "grid": grid,
        "score": law.score(grid[:, None])[:, 0],
        "density": np.exp(law.log_prob(grid[:, None])),
    }
    for degree, theta in zip(config.degrees, fitted(law, x, config.degrees), strict=True):
        arrays[f"score {degree}"] = polynomial(law, theta)(grid[:, None])
        arrays[f"density {degree}"] = normalised(law, theta, grid)
    return arrays


# Computing --------------------------------------------------------------------------------------


def compute(config: Config, run: Run) -> dict[str, Any]:
    """The note's sample; sampling distributions; polynomials."""
    arrays: dict[str, Any] = {}
    found = run.cell("note", of_note, note_sample())
    arrays |= {f"note {key}": value for key, value in found.items()}
    for n in run.progress(config.sizes, "samples"):
        key = f"samples {n}"
        arrays[key] = run.cell(key, sampled, n, config.samples, run.generator(key))["fits"]
        arrays[f"limit {n}"] = np.stack(limit_law(n))
    for name, make in LAWS.items():
        law = make()
        best = [projection(law, degree) for degree in config.degrees]
        arrays[f"{name} best"] = np.array([polynomial_error(law, theta) for theta in best])
        arrays[f"{name} best leading"] = np.array([theta[-1] for theta in best])
        for n in run.progress(config.fit_sizes, "polynomials"):
            key = f"{name} {n}"
            given = (law, config.degrees, n, config.fits, run.generator(key))
            found = run.cell(key, polynomials, *given)
            arrays |= {f"{key} {part}": value for part, value in found.items()}
        found = run.cell(f"{name} picture", pictures, config, law, run.generator("picture", name))
        arrays |= {f"{name} {part}": value for part, value in found.items()}
    return arrays


# Tables -----------------------------------------------------------------------------------------


def note_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The fits to the note's sample beside what it prints and what its spread allows."""
    spread = arrays["samples 100"].std(axis=0, ddof=1)
    half = [(arrays[f"note {k}"][1] - arrays[f"note {k}"][0]) / 2 for k in ("mu", "sigma")]
    rows = []
    for way, words in (
        ("grid", "smallest of the note's grid"),
        ("closed form", "score matching, closed form"),
        ("likelihood", "maximum likelihood"),
        ("truth", "moments of the law"),
    ):
        mu, sigma, J, error = arrays[f"note fit {way}"]
        none = (math.nan, math.nan)
        printed, cell = (PUBLISHED, half) if way == "grid" else (none, none)
        error_of = none if way == "truth" else spread
        rows.append(
            {"fit": words, "mu": mu, "printed mu": printed[0], "sigma": sigma}
            | {"printed sigma": printed[1], "objective": J, "score error": error}
            | {"half a cell, mu": cell[0], "half a cell, sigma": cell[1]}
            | {"standard error of mu": error_of[0], "standard error of sigma": error_of[1]}
        )
    return rows


def sampling_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Mean and spread of the Gaussian fit over fresh samples beside their limits."""
    rows = []
    for n in config.sizes:
        found = arrays[f"samples {n}"]
        means, spreads = arrays[f"limit {n}"]
        for k, name in enumerate(("mu", "sigma")):
            x = found[:, k]
            (mean, error), spread = mean_and_error(x), x.std(ddof=1)
            fourth = np.mean((x - mean) ** 4)
            spread_error = math.sqrt((fourth / spread**4 - 1) / (4 * len(x))) * spread
            rows.append(
                {"n": n, "parameter": name, "mean": mean, "error": error}
                | {"expected mean": means[k], "excess": (mean - means[k]) / error}
                | {"spread": spread, "error of the spread": spread_error}
                | {"expected spread": spreads[k]}
                | {"spread excess": (spread - spreads[k]) / spread_error}
            )
    return rows


def polynomial_table(config: Config, arrays: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The relative error of the score by degree and sample size beside the best of the degree."""
    rows = []
    for name in LAWS:
        for k, degree in enumerate(config.degrees):
            best, leading = arrays[f"{name} best"][k], arrays[f"{name} best leading"][k]
            for n in config.fit_sizes:
                e = arrays[f"{name} {n} errors"][k]
                low, middle, high = np.quantile(e, (0.16, 0.5, 0.84))
                mean, error = mean_and_error(e)
                bad = int(np.sum(arrays[f"{name} {n} leading"][k] >= 0))
                rows.append(
                    {"law": name, "degree": degree, "n": n, "score error, median": middle}
                    | {"16 %": low, "84 %": high, "mean": mean, "error of the mean": error}
                    | {"best of the degree": best, "median / best": middle / best}
                    | {"fits": len(e), "of no density": bad}
                    | {"best has a density": "yes" if leading < 0 else "no"}
                )
    return rows


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """The note's sample; sampling distributions; polynomials."""
    import pandas as pd

    note = pd.DataFrame(note_table(config, arrays))
    note.attrs["digits"] = dict.fromkeys(note, 6)
    return {
        "": note,
        "sampling": pd.DataFrame(sampling_table(config, arrays)),
        "polynomials": pd.DataFrame(polynomial_table(config, arrays)),
    }


# Figures ----------------------------------------------------------------------------------------


def objective(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The landscape with its minimum, and the fitted density beside the truth."""
    fig, axes = plots.figure(1, 2, height=3.9)
    ax, J = axes[0, 0], arrays["note objective"]
    mu, sigma = arrays["note mu"], arrays["note sigma"]
    shown = np.where(J > 0.5, np.nan, J)  # as in the note: beyond it the surface is a wall
    image = ax.pcolormesh(mu, sigma, shown, shading="nearest", cmap=plots.DENSITY)
    image.set_rasterized(True)
    levels = np.array([-0.25, -0.2, -0.15, -0.1, 0.0, 0.2])
    ax.contour(mu, sigma, shown, levels, colors="white", linewidths=0.5, linestyles="-")
    cloud = arrays["samples 100"][:300]
    ax.plot(*cloud.T, ".", color="white", markersize=1.2)
    ax.plot(*arrays["note fit closed form"][:2], "x", color=plots.COLORS[2], markersize=8, mew=2)
    ax.plot(*arrays["note fit truth"][:2], "+", color="black", markersize=8, mew=1.5)
    ax.grid(False)
    ax.set(xlabel="$\\mu$", ylabel="$\\sigma$", xlim=(mu[0], mu[-1]), ylim=(0, 6))
    mu_0, sigma_0 = arrays["note fit grid"][:2]
    ax.set_title(
        f"smallest on the grid at ({mu_0:.4f}, {sigma_0:.4f})\n"
        "×: fit, +: the law's moments, dots: fresh samples",
        fontsize=10,
    )
    fig.colorbar(image, ax=ax, label="J (white area: above 0.5)")
    densities(axes[0, 1], arrays)
    fig.suptitle("Score matching of a Gaussian to the note's 100 points")
    return fig


def bell(x: np.ndarray, mu: float, sigma: float) -> np.ndarray:
    """The density of N(mu, sigma^2)."""
    return np.exp(-0.5 * ((x - mu) / sigma) ** 2) / (math.sqrt(2 * math.pi) * sigma)


def densities(ax: Any, arrays: dict[str, np.ndarray]) -> None:
    """Sample, truth and fitted Gaussian."""
    x, points = arrays["note line"], arrays["note points"][:, 0]
    ax.hist(points, 24, density=True, color=plots.COLORS[0], alpha=0.4, label="100 points")
    ax.plot(points, np.full(len(points), 0.005), "|", color=plots.COLORS[0], markersize=5)
    ax.plot(x, arrays["note density"], color="black", label="law")
    fit = bell(x, *arrays["note fit closed form"][:2])
    ax.plot(x, fit, color=plots.COLORS[2], linestyle="--", label="fitted Gaussian")
    ax.set(xlabel="x", ylabel="density", ylim=(0, 0.42), xlim=(x[0], x[-1]))
    ax.set_title("density", fontsize=10)
    ax.legend(loc="upper right", fontsize=8)


def sampling(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Histograms of the fit at the note's size, and its spread against the size."""
    fig, axes = plots.figure(1, 3, height=3.2)
    means, spreads = arrays["limit 100"]
    for k, (ax, symbol) in enumerate(zip(axes[0], ("$\\mu$", "$\\sigma$"), strict=False)):
        found = arrays["samples 100"][:, k]
        ax.hist(found, 40, density=True, color=plots.COLORS[0], alpha=0.45)
        x = means[k] + np.linspace(-4, 4, 200) * spreads[k]
        ax.plot(x, bell(x, means[k], spreads[k]), color="black")
        ax.axvline(arrays["note fit closed form"][k], color=plots.COLORS[2], linestyle="--")
        ax.set(xlabel=f"{symbol} of 100 points", ylabel="density")
    ax, n = axes[0, 2], np.array(config.sizes)
    for k, symbol in enumerate(("$\\mu$", "$\\sigma$")):
        spread = [arrays[f"samples {m}"][:, k].std(ddof=1) for m in config.sizes]
        ax.plot(n, spread, "o", color=plots.COLORS[k], label=f"{symbol}, measured")
        limit = [arrays[f"limit {m}"][1, k] for m in config.sizes]
        ax.plot(n, limit, color="black", linewidth=1.2)
    ax.set(xscale="log", yscale="log", xlabel="points n", ylabel="spread")
    ax.legend(fontsize=8)
    fig.suptitle(f"{config.samples} fresh samples (black: limit law; dashed: the note's sample)")
    return fig


def scores(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Fitted polynomial scores and their densities beside the truth."""
    fig, axes = plots.figure(2, 2, height=5.6)
    for column, name in zip(axes.T, LAWS, strict=True):
        x, true = arrays[f"{name} grid"], arrays[f"{name} score"]
        column[0].plot(x, true, color="black", linewidth=2.0, label="exact")
        column[1].plot(x, arrays[f"{name} density"], color="black", linewidth=2.0)
        for degree, color in zip(config.degrees, plots.COLORS, strict=False):
            style: dict[str, Any] = {"color": color, "linewidth": 1.2}
            column[0].plot(x, arrays[f"{name} score {degree}"], label=f"degree {degree}", **style)
            column[1].plot(x, arrays[f"{name} density {degree}"], **style)
        height = 1.3 * float(np.max(np.abs(true[np.abs(x - x.mean()) < 0.75 * np.ptp(x) / 2])))
        column[0].set(ylabel="score", ylim=(-height, height), title=name)
        column[1].set(ylabel="density", xlabel="x")
        none = [d for d in config.degrees if np.isnan(arrays[f"{name} density {d}"]).all()]
        words = "no density has the score of degree " + " or ".join(map(str, none))
        column[1].set_title(words if none else "", fontsize=10)
        for ax in column:
            ax.set_xlim(x[0], x[-1])
    plots.legend_below(fig, axes[0, 0], columns=6)
    n = config.fit_sizes[-1]
    fig.suptitle(f"Polynomial scores fitted in closed form to {n} points")
    return fig


def by_size(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The error of the score against the sample size, by degree."""
    fig, axes = plots.figure(1, 2, height=3.8)
    for ax, name in zip(axes[0], LAWS, strict=True):
        for k, (degree, color) in enumerate(zip(config.degrees, plots.COLORS, strict=False)):
            e = [arrays[f"{name} {n} errors"][k] for n in config.fit_sizes]
            median = [np.median(v) for v in e]
            low, high = ([np.quantile(v, q) for v in e] for q in (0.16, 0.84))
            bars = np.abs(np.array([low, high]) - median)
            ax.errorbar(
                config.fit_sizes, median, bars, fmt="o-", color=color, capsize=2, markersize=3.5,
                linewidth=1.0, label=f"degree {degree}",
            )  # fmt: skip
            ax.axhline(arrays[f"{name} best"][k], color=color, linestyle=":", linewidth=1.2)
        ax.set(xscale="log", yscale="log", xlabel="points n", title=name)
    axes[0, 0].set_ylabel("E (ψ − s)² / E s²")
    plots.legend_below(fig, axes[0, 0], columns=5)
    fig.suptitle(
        f"Error of the fitted score: median and middle 68 % of {config.fits} samples; "
        "dotted: best of the degree",
        fontsize=10.5,
    )
    return fig


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Landscape and fit; sampling distributions; polynomial scores; their errors."""
    return {
        "": objective(config, arrays),
        "sampling": sampling(config, arrays),
        "scores": scores(config, arrays),
        "errors": by_size(config, arrays),
    }


STUDY = Study(
    Config(),
    Config(sizes=(50, 100), samples=200, degrees=(1, 3, 5), fit_sizes=(100, 1000), fits=6),
    compute,
    table,
    draw,
    "What does Hyvarinen's score matching fit in closed form, and how sure is it?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
