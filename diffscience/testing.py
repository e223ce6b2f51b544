"""Assertions: the laws that every exact or learned diffusion model obeys, for any project's tests.

With p_t the law of X_t = alpha X_0 + sqrt(var) Z, and f, g the drift and diffusion of its SDE:

    score       = grad log p,   Hessian = grad score
    mass        : integral of p = 1
    semigroup   : p_0 through at(s), then through between(s, t), is p_0 through at(t)
    Fokker-Planck : d/dt log p = -f (D + x . score) + g^2/2 (tr Hessian + |score|^2)
    Tweedie     : E[X_0 | x] = (x + var score)/alpha
                  Cov[X_0 | x] = var/alpha^2 (I + var Hessian)
    Stein       : E score = 0,   E score (X - E X)^T = -I

Each assertion is a plain function: it raises AssertionError with the worst point, both values, the
error and the limit, and otherwise returns the error it measured. An error is |got - wanted| over
max(1, |wanted|), with |.| the Euclidean norm of a row. Nothing is random but through a seed, which
every function that draws takes and has a default for.

Examples
--------
>>> import diffscience as ds
>>> law = ds.gallery.julia_bimodal()
>>> assert_semigroup(law, ds.VP()) < 1e-12
True
>>> assert_samples_follow(law.sample(1000, 0) + 1.0, law)
Traceback (most recent call last):
...
AssertionError: samples follow the law along [1.]: the cdfs differ by ...
"""

from __future__ import annotations

import functools
import inspect
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, is_torch, numpy
from .errors import ArgumentError
from .process import Process

__all__ = [
    "assert_fokker_planck",
    "assert_hessian_is_jacobian",
    "assert_mass_one",
    "assert_matches_oracle",
    "assert_samples_follow",
    "assert_score_is_gradient",
    "assert_semigroup",
    "assert_stein",
    "assert_tweedie",
    "processes",
    "states",
    "times",
]

_FRACTIONS = (0.002, 0.02, 0.2, 0.5, 0.8, 0.98)
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
# Central differences of order 8: coefficients of f(x + jh) - f(x - jh), j = 1 ... 4.
_STENCIL = (4 / 5, -1 / 5, 4 / 105, -1 / 280)


# ---------------------------------------------------------------- what there is to test


def processes(steps: int = 40) -> dict[str, Process]:
    """One process of every kind with its default numbers, and every named chain of `steps` steps.

    They are found, not listed: a new subclass of `Process` with defaults, or a new constructor of
    `Chain` whose first argument is K, is among them.

    >>> sorted(processes())[:4]
    ['Chain.cosine', 'Chain.linear', 'Chain.polynomial', 'Chain.sigmoid']
    """
    from .chain import Chain

    found: dict[str, Process] = {}
    kinds = list(Process.__subclasses__())
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind is not Chain and kind.__module__.split(".")[0] == __package__:
            found[kind.__name__] = kind()
    for name, member in vars(Chain).items():
        if isinstance(member, classmethod):
            build = getattr(Chain, name)
            if next(iter(inspect.signature(build).parameters)) == "K":
                found[f"Chain.{name}"] = build(steps)
    return found


def times(process: Process, fractions: Sequence[float] | np.ndarray = _FRACTIONS) -> np.ndarray:
    """Those fractions of the process's end time, (m,); whole steps of a chain, from 1 on."""
    t = np.asarray(fractions, dtype=np.float64) * process.T
    if _is_discrete(process):
        t = np.unique(np.maximum(np.round(t), 1.0))
    return t


def states(
    law: Any, process: Process, t: Array | None = None, n: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Points to test at: n draws of X_t for each time (default: `times`), (m, D) and (m,).

    The last draw for each time has four times its noise, so that tails are looked at too.
    """
    t = times(process) if t is None else np.atleast_1d(numpy(t)).astype(np.float64)
    random = np.random.default_rng(seed)
    rows = np.repeat(t, n)
    noise = random.standard_normal((len(rows), law.dim))
    noise[n - 1 :: n] *= 4
    return process.at(rows).apply(numpy(law.sample(len(rows), random)), noise), rows


# ---------------------------------------------------------------- derivatives


def assert_score_is_gradient(
    law: Any, points: Array, tolerance: float | None = None, step: float = 1e-3
) -> float:
    """The score is the gradient of the log-density.

    Parameters
    ----------
    law : anything with `log_prob` and `score`, or the pair of those two functions, of points
        (n, D) to (n,) and (n, D).
    points : (n, D). For a tensor the gradient is taken by torch's automatic differentiation, for a
        NumPy array by central differences of order 8 with this `step`.
    tolerance : 1e-10 for tensors and 1e-7 for arrays when left out.

    >>> import diffscience as ds
    >>> law = ds.gallery.rings()
    >>> assert_score_is_gradient((law.log_prob, law.score), law.sample(5, 0)) < 1e-7
    True
    """
    log_prob, score = law if isinstance(law, tuple) else (law.log_prob, law.score)
    wanted = _gradient(log_prob, points, step)
    return _compare("score = grad log p", score(points), wanted, _limit(tolerance, points), points)


def assert_hessian_is_jacobian(
    law: Any, points: Array, tolerance: float | None = None, step: float = 1e-3
) -> float:
    """The Hessian is the Jacobian of the score, and symmetric.

    Arguments as in `assert_score_is_gradient`; the pair is (score, hessian).
    """
    score, hessian = law if isinstance(law, tuple) else (law.score, law.hessian)
    got = numpy(hessian(points))
    columns = [functools.partial(_coordinate, score, i) for i in range(got.shape[-1])]
    rows = [_gradient(column, points, step) for column in columns]
    limit = _limit(tolerance, points)
    wanted = np.stack(rows, axis=-2)
    error = _compare("Hessian = grad score", _flat(got), _flat(wanted), limit, points)
    mirror = np.swapaxes(got, -1, -2)
    return max(error, _compare("Hessian is symmetric", _flat(got), _flat(mirror), limit, points))


def _coordinate(function: Callable[[Array], Array], i: int, x: Array) -> Array:
    return function(x)[..., i]


def _gradient(function: Callable[[Array], Array], points: Array, step: float) -> np.ndarray:
    """The gradient of a function (n, D) -> (n,), row by row, (n, D)."""
    if is_torch(points):
        import torch

        x = points.detach().clone().requires_grad_(True)
        return numpy(torch.autograd.grad(function(x).sum(), x)[0])
    columns = []
    for i in range(points.shape[-1]):
        unit = step * np.eye(points.shape[-1])[i]
        pairs = [function(points + j * unit) - function(points - j * unit) for j in (1, 2, 3, 4)]
        columns.append(sum(c * pair for c, pair in zip(_STENCIL, pairs, strict=True)) / step)
    return np.stack(columns, axis=-1)


# ---------------------------------------------------------------- the law as a whole


def assert_mass_one(
    law: Any,
    tolerance: float = 1e-10,
    box: tuple[Sequence[float], Sequence[float]] | None = None,
    limit: int = 1_000_000,
) -> float:
    """The density integrates to 1, by the trapezoidal rule on lattices of its own (D = 1 or 2).

    The rule converges geometrically for a density that is smooth on the scale of the lattice, which
    is halved until that shows. A law with jumps needs a law test of its own.

    Parameters
    ----------
    law : anything with `log_prob` and `dim`; with `sample` where no box is given.
    box : lows and highs, (D,) each, outside which nothing is left; by default the range of 4096
        samples, widened by 0.7 of its size on each side.
    limit : number of points at which halving stops.
    """
    low, high = _box(law) if box is None else (np.asarray(end, dtype=np.float64) for end in box)
    if not (np.all(np.isfinite(low)) and np.all(low < high)):
        raise ArgumentError("box", "be finite lows below highs", f"{low} and {high}")
    step = (high - low) / 32
    corners = np.indices((2,) * law.dim).reshape(law.dim, -1).T
    mass = _lattice_sum(law, low, step, 32) * np.prod(step)
    side = 32
    while True:
        # The halved lattice is the present one and its copies shifted by half a step.
        shifted = [_lattice_sum(law, low + 0.5 * c * step, step, side) for c in corners[1:]]
        finer = (mass + np.prod(step) * sum(shifted)) / len(corners)
        error, change = abs(finer - 1), abs(finer - mass)
        if error <= tolerance and change <= 1e-2:
            return error
        step, side, mass = step / 2, 2 * side, finer
        if change <= 0.1 * tolerance or math.isnan(error) or side**law.dim > limit / 4:
            raise AssertionError(
                f"mass = 1: got {finer:.15g} with {side**law.dim} points (the last halving changed "
                f"it by {change:.1e}): error {error:.3g} exceeds {tolerance:.3g}"
            )


def _box(law: Any) -> tuple[np.ndarray, np.ndarray]:
    x = numpy(law.sample(4096, np.random.default_rng(0)))
    low, high = x.min(axis=0), x.max(axis=0)
    return low - 0.7 * (high - low), high + 0.7 * (high - low)


def _lattice_sum(law: Any, low: np.ndarray, step: np.ndarray, side: int) -> float:
    axes = [a + h * np.arange(side) for a, h in zip(low, step, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, law.dim)
    return float(np.sum(np.exp(numpy(law.log_prob(x)))))


def assert_stein(law: Any, tolerance: float = 1e-8) -> float:
    """Stein's identities: E score = 0 and E score (X - E X)^T = -I, by the law's own quadrature.

    law : anything with `score` and `quadrature`.
    """
    x, weights = _quadrature(law)
    score = numpy(law.score(x))
    with np.errstate(all="ignore"):  # a score that is not finite is told below
        first = weights @ score
        second = (weights[:, None] * score).T @ (x - weights @ x)
        # The score has the units of 1/x: errors are measured in units of its own spread.
        spread = math.sqrt(max(float(weights @ np.sum(score * score, axis=1)), 1e-300))
    dim = x.shape[1]
    error = _compare("E score = 0", first[None] / spread, np.zeros((1, dim)), tolerance)
    wanted = -np.eye(dim).reshape(1, -1)
    return max(error, _compare("E score x^T = -I", second.reshape(1, -1), wanted, tolerance))


_HELD: weakref.WeakKeyDictionary[Any, tuple[np.ndarray, np.ndarray]] = weakref.WeakKeyDictionary()


def _quadrature(law: Any) -> tuple[np.ndarray, np.ndarray]:
    """`law.quadrature()`, kept as long as the law itself: many assertions ask for the same one."""
    if law not in _HELD:
        _HELD[law] = law.quadrature()
    return _HELD[law]


# ---------------------------------------------------------------- laws over time


def assert_semigroup(
    law: Any,
    process: Process,
    t: Array | None = None,
    tolerance: float = 1e-12,
    n: int = 4,
    seed: int = 0,
) -> float:
    """Diffusing to s and then from s to t gives the law at t: log-densities and scores agree.

    t : times (m,), `times(process)` by default; s runs over 0, about 0.3 t, 0.9 t, and t.
    """
    x, end = states(law, process, t, n, seed)
    whole = law.diffuse(process.at(end))
    log_prob, score = numpy(whole.log_prob(x)), numpy(whole.score(x))
    worst = 0.0
    for fraction in (0.0, 0.3, 0.9, 1.0):
        start = np.round(fraction * end) if _is_discrete(process) else fraction * end
        broken = law.diffuse(process.at(start)).diffuse(process.between(start, end))
        name = f"semigroup (log p, s = {fraction} t)"
        got = numpy(broken.log_prob(x))[:, None]
        error = _compare(name, got, log_prob[:, None], tolerance, x)
        name = f"semigroup (score, s = {fraction} t)"
        worst = max(worst, error, _compare(name, numpy(broken.score(x)), score, tolerance, x))
    return worst


def assert_fokker_planck(
    law: Any,
    process: Process,
    t: Array | None = None,
    tolerance: float = 1e-10,
    n: int = 4,
    seed: int = 0,
) -> float:
    """The diffused law solves the Fokker-Planck equation of the process's own drift and diffusion.

    The time derivative is torch's, through the process and the law; the error is the residual over
    the sum of the sizes of its terms (or over g^2/2000 var where that is larger).

    t : times (m,) strictly inside (0, T).
    """
    import torch

    x, rows = states(law, process, t, n, seed)
    clock = torch.tensor(rows, requires_grad=True)
    moved = law.diffuse(process.at(clock))
    (slope,) = torch.autograd.grad(moved.log_prob(torch.tensor(x)).sum(), clock)
    still = law.diffuse(process.at(rows))
    score, hessian = numpy(still.score(x)), numpy(still.hessian(x))
    f, half_g2 = process.drift(rows), 0.5 * process.diffusion(rows) ** 2
    terms = np.stack(
        [
            numpy(slope),
            f * x.shape[1],
            f * np.sum(x * score, axis=-1),
            -half_g2 * np.trace(hessian, axis1=-2, axis2=-1),
            -half_g2 * np.sum(score * score, axis=-1),
        ]
    )
    # Where the density is flat nothing changes at all: then the size that terms usually have.
    usual = half_g2 / numpy(process.var(rows))
    size = np.maximum(np.sum(np.abs(terms), axis=0), 1e-3 * usual)
    residual = np.sum(terms, axis=0) / size
    zero = np.zeros_like(residual)[:, None]
    return _compare("Fokker-Planck residual = 0", residual[:, None], zero, tolerance, x)


def assert_tweedie(
    model: Any,
    law: Any,
    t: Array | None = None,
    tolerance: float = 1e-8,
    n: int = 4,
    seed: int = 0,
    least: float = 0.5,
) -> float:
    """The model's x0, and with it score, eps and v, is the posterior mean under `law`.

    The posterior mean is computed from Bayes' rule, by `law.quadrature()` where the noise is wide
    and on a lattice of noises where it is narrow, neither of which knows of scores; where the model
    has a `posterior_cov`, so is the posterior covariance. Points at which neither integral gives
    the law's own density of X_t are left out; that `least` of them remain is asserted.

    t : times (m,), by default 0.2, 0.5 and 0.8 of the end time; where that is no number of a unit
        interval, the times at which alpha^2/var is e^4, 1 and e^-4.
    model : anything with `process`, `x0`, `score`, `eps` and `v`.
    law : the law of X_0, a target with D <= 2.
    """
    process = model.process
    x, rows = states(law, process, _middle_times(process) if t is None else t, n, seed)
    step = process.at(rows)
    alpha, var = (np.broadcast_to(numpy(a), rows.shape)[:, None] for a in (step.scale, step.var))
    mean, cov, kept = _posterior(
        law, x, alpha, var, numpy(law.diffuse(step).log_prob(x)), tolerance
    )
    if kept.mean() < least:
        raise AssertionError(
            f"Tweedie: p_t(x) = E p(x | X_0) holds to {0.01 * tolerance:.1g} at {kept.sum()} of "
            f"{len(kept)} points only"
        )
    x, rows, alpha, var = x[kept], rows[kept], alpha[kept], var[kept]
    sigma = np.sqrt(var)
    eps = (x - alpha * mean) / sigma
    pairs = {  # each in the units of x0, in which the posterior mean is known
        "x0 = E[X_0 | x]": (model.x0(x, rows), mean, 1.0 + 0 * var),
        "score = (alpha x0 - x)/var": (model.score(x, rows), -eps / sigma, alpha / var),
        "eps = (x - alpha x0)/sigma": (model.eps(x, rows), eps, alpha / sigma),
        "v = alpha eps - sigma x0": (
            model.v(x, rows),
            alpha * eps - sigma * mean,
            alpha * alpha / sigma + sigma,
        ),
    }
    worst = 0.0
    for name, (got, wanted, unit) in pairs.items():
        unit = np.maximum(unit, 1.0)
        error = _compare(f"Tweedie: {name}", numpy(got) / unit, wanted / unit, tolerance, x)
        worst = max(worst, error)
    if hasattr(model, "posterior_cov"):
        got = _flat(numpy(model.posterior_cov(x, rows)))
        worst = max(worst, _compare("Tweedie: Cov[X_0 | x]", got, _flat(cov), tolerance, x))
    return worst


def _middle_times(process: Process) -> np.ndarray:
    if process.T > 1 and not _is_discrete(process):  # most of [0, T] is noise alone
        return numpy(process.time_of_log_snr(np.array([4.0, 0.0, -4.0])))
    return times(process, (0.2, 0.5, 0.8))


def _has_density(law: Any) -> bool:
    try:
        law.log_prob(np.zeros((1, law.dim)))
    except ArgumentError:
        return False
    return True


def _posterior(
    law: Any, x: np.ndarray, alpha: np.ndarray, var: np.ndarray, log_p: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posterior means (m, D) and covariances (m, D, D) at the points kept, a mask of all points."""
    y, weights = _quadrature(law)
    dense = _has_density(law)
    z = 0.25 * np.arange(-34, 35)
    mesh = np.stack(np.meshgrid(*[z] * law.dim, indexing="ij"), axis=-1).reshape(-1, law.dim)
    normal = 0.25**law.dim * np.exp(-0.5 * np.sum(mesh * mesh, axis=-1) - law.dim * _LOG_ROOT_2PI)
    means, covs, kept = [], [], []
    for row, a, v, level in zip(x, alpha, var, log_p, strict=True):
        off = row - a * y
        size = -0.5 * np.sum(off * off, axis=-1) / v - law.dim * (0.5 * np.log(v) + _LOG_ROOT_2PI)
        mass, places = weights * np.exp(size - level), y
        if abs(mass.sum() - 1) > 0.01 * tolerance and a != 0 and dense:
            places = (row - np.sqrt(v) * mesh) / a
            mass = normal * np.exp(numpy(law.log_prob(places)) - level) / np.abs(a) ** law.dim
        kept.append(bool(abs(mass.sum() - 1) <= 0.01 * tolerance))
        if kept[-1]:
            mass = mass / mass.sum()
            means.append(mass @ places)
            covs.append(((places - means[-1]) * mass[:, None]).T @ (places - means[-1]))
    found = np.reshape(means, (-1, law.dim)), np.reshape(covs, (-1, law.dim, law.dim))
    return *found, np.array(kept)


# ---------------------------------------------------------------- models and samples


def assert_matches_oracle(
    score: Callable[[Array, Any], Array],
    oracle: Any,
    t: float,
    tolerance: float,
    n: int = 4096,
    seed: int = 0,
) -> float:
    """A score, learned or not, is near the exact one at time t.

    The error is the root of E |score - exact|^2 / E |exact|^2 over n exact samples of X_t: 0 for
    the oracle itself, 1 for a score of zero.

    score : a function of (x, t), such as `network.score`.
    """
    x = numpy(oracle.at(t).sample(n, np.random.default_rng(seed)))
    exact, got = numpy(oracle.score(x, t)), numpy(score(x, t))
    if got.shape != exact.shape:
        raise AssertionError(f"score: shape {got.shape}, wanted {exact.shape}")
    error = math.sqrt(np.sum((got - exact) ** 2) / np.sum(exact**2))
    if not error <= tolerance:
        raise AssertionError(
            f"score = the oracle's at t = {t}: relative root mean square error {error:.4g} over "
            f"{n} points exceeds {tolerance:.4g}"
        )
    return error


def assert_samples_follow(
    samples: Array,
    law: Any,
    alpha: float = 1e-6,
    directions: int = 4,
    seed: int = 0,
) -> float:
    """The samples (n, D) come from the law, at a false-alarm rate of at most alpha.

    For D = 1 Kolmogorov and Smirnov's test against the exact cdf, with the limit
    sqrt(log(2/alpha) / 2n) of Dvoretzky, Kiefer, Wolfowitz and Massart. For D > 1 the same on
    projections (the axes first, then random directions, the rate shared among them): with the exact
    cdf for mixtures, and for other laws with D = 2 between two smoothed cdfs, of the samples and of
    the law by its quadrature; smoothing can only bring two cdfs closer, so the limit stands.

    Returns the largest difference of cdfs over its limit, at most 1.
    """
    x = numpy(samples)
    if x.ndim != 2 or x.shape[1] != law.dim or len(x) == 0:
        raise ArgumentError("samples", f"have shape (n, {law.dim}), n > 0", f"shape {x.shape}")
    if not 0 < alpha < 1:
        raise ArgumentError("alpha", "lie in (0, 1)", alpha)
    if not np.all(np.isfinite(x)):
        bad = int(np.sum(~np.isfinite(x).all(axis=-1)))
        raise AssertionError(f"samples follow the law: {bad} of {len(x)} rows are not finite")
    turns = _directions(law.dim, directions, seed)
    limit = math.sqrt(math.log(2 * len(turns) / alpha) / (2 * len(x)))
    worst = 0.0
    for turn in turns:
        gap = _cdf_gap(x, law, turn)
        if not gap <= limit:
            raise AssertionError(
                f"samples follow the law along {np.round(turn, 3)}: the cdfs differ by {gap:.4g}, "
                f"which exceeds {limit:.4g} (n = {len(x)}, alpha = {alpha:g})"
            )
        worst = max(worst, gap / limit)
    return worst


def _directions(dim: int, count: int, seed: int) -> np.ndarray:
    """`count` unit vectors (one if D = 1), the axes first."""
    if dim == 1:
        return np.ones((1, 1))
    drawn = np.random.default_rng(seed).standard_normal((count, dim))
    turns = np.concatenate([np.eye(dim), drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)])
    return turns[: max(count, dim)]


def _cdf_gap(x: np.ndarray, law: Any, turn: np.ndarray) -> float:
    """The largest difference of the two cdfs along a unit vector."""
    from .mixture import GaussianMixture

    if law.dim == 1 or isinstance(law, GaussianMixture):
        line = np.sort(x @ turn)
        flat = law if law.dim == 1 else _projected(law, turn)
        # A hair to either side, in the test's favour: atoms and their rounded projections.
        hair, steps = 1e-9 * (line[-1] - line[0]), np.arange(len(line) + 1) / len(line)
        before, after = (numpy(flat.cdf(line[:, None] + h)) for h in (-hair, hair))
        return float(max(np.max(before - steps[:-1]), np.max(steps[1:] - after)))
    y, weights = _quadrature(law)
    # Not quite along the axes, where the points of a quadrature stand in columns.
    tilted = np.array([[math.cos(0.1), -math.sin(0.1)], [math.sin(0.1), math.cos(0.1)]]) @ turn
    return _smooth_gap(x @ tilted, y @ tilted, weights)


def _projected(law: Any, turn: np.ndarray) -> Any:
    """The 1-D mixture of turn . X."""
    from .mixture import GaussianMixture

    means, covs = numpy(law.means) @ turn, np.einsum("i,kij,j->k", turn, numpy(law.covs), turn)
    return GaussianMixture(numpy(law.weights), means[:, None], np.maximum(covs, 0.0)[:, None])


def _smooth_gap(line: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    """The same between samples and weighted points, both smoothed over 1/20 of the spread.

    The difference of the two cdfs is averaged over neighbours, on 6400 bins of 1/400 of the spread.
    """
    mean = weights @ y
    spread = math.sqrt(weights @ (y - mean) ** 2)
    edges = np.concatenate([[-np.inf], mean + spread * np.linspace(-8, 8, 6400), [np.inf]])
    counts = np.histogram(line, edges)[0] / len(line) - np.histogram(y, edges, weights=weights)[0]
    kernel = np.exp(-0.5 * (np.arange(-100, 101) / 20) ** 2)
    return float(np.max(np.abs(np.convolve(np.cumsum(counts), kernel / kernel.sum(), "same"))))


# ---------------------------------------------------------------- comparing


def _is_discrete(process: Process) -> bool:
    return bool(getattr(process, "DISCRETE", False))


def _limit(tolerance: float | None, points: Array) -> float:
    if tolerance is not None:
        return tolerance
    return 1e-10 if is_torch(points) else 1e-7


def _flat(matrices: np.ndarray) -> np.ndarray:
    return matrices.reshape(*matrices.shape[:-2], -1)


def _compare(
    what: str, got: Array, wanted: Array, tolerance: float, points: Array | None = None
) -> float:
    """The largest error of rows (n, k), or an AssertionError that shows the worst one."""
    got, wanted = numpy(got), numpy(wanted)
    if got.shape != wanted.shape:
        raise AssertionError(f"{what}: got shape {got.shape}, wanted {wanted.shape}")
    if got.size == 0:
        return 0.0
    size = np.maximum(1.0, np.linalg.norm(wanted, axis=-1))
    error = np.linalg.norm(got - wanted, axis=-1) / size
    error = np.where(np.isnan(error), np.inf, error).reshape(-1)
    i = int(np.argmax(error))
    if error[i] > tolerance:
        where = "" if points is None else f" at x = {numpy(points).reshape(len(error), -1)[i]}"
        rows = got.reshape(len(error), -1), wanted.reshape(len(error), -1)
        raise AssertionError(
            f"{what}: got {rows[0][i]}, wanted {rows[1][i]}{where}: "
            f"error {error[i]:.3g} exceeds {tolerance:.3g}"
        )
    return float(error[i])
