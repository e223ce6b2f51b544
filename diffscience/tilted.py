"""The tilted law p(x) p(c|x)^gamma/Z, exactly, and its own diffusion: what guidance is taken for.

    q(y) = p(y) p(c|y)^gamma/Z = sum_k w_k N(y; mu_k, C_k) h(y)/E h,   h = p(c|y)^beta, 0 <= h <= 1

with the components of p(.|c) and beta = gamma - 1 for gamma >= 1, with those of p and beta = gamma
below.  After the noise (S, V) each of them is a Gaussian times a mean over its own posterior,

    p_k(x) = N(x; S mu_k, S^2 C_k + V) E_k[h(Y)|x],   Y|x ~ N(m_k(x), V C_k (S^2 C_k + V)^-1)
    grad log p_k = grad log N + G_k E_k[grad h|x]/E_k[h|x],   G_k = S C_k (S^2 C_k + V)^-1

so that a tilted law is a `Target` like any other, and an `Oracle` of it the right guided model. The
means are trapezoidal sums along the axes of the posteriors. They converge geometrically, since
log h is smooth but for the complex points where the components of p cancel: pi/slope off the real
line, for a log-ratio of two components of that slope.

Conventions: as in `targets`; D <= 2. In two dimensions a point takes some thousand terms under
noise, and one without.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from . import fused
from .arrays import Array, Draws, like, logsumexp, namespace, numpy, softmax
from .errors import ArgumentError, instance, number
from .guidance import Labelled
from .mixture import GaussianMixture
from .quadrature import panels, tree
from .targets import Target, log_weights, over
from .transition import Transition

_REACH = {1: 16.0, 2: 9.0}  # deviations that the sums go to, by D; h moves the bulk of a posterior
_FAINT = {1: 20.0, 2: 12.0}  # -log of the error of a sum where the components balance, for beta 1
_CELL = {1: 8.0, 2: 30.0}  # longest cell of a quadrature, by D, in widths over slope
_NODES = 200_000  # of a sum, at most
_PANELS = 20_000  # of a cdf, at most
_FAR = 16.0  # widths of a component beyond which a cdf is 0 or 1
_RARE = 1e-6  # the least share of proposals that is sampled from

Table = tuple[np.ndarray, np.ndarray, np.ndarray]


class Tilted(Target):
    """p(x) p(c|x)^gamma/Z for one class of a labelled mixture; closed under diffusion.

    Parameters
    ----------
    law : a `Labelled` law in one or two dimensions, whose components have a width everywhere.
    label : the class c.
    gamma : a number of at least 0; 0 gives p, 1 gives p(.|c).

    Attributes
    ----------
    log_z : log Z, in nats.

    Raises ArgumentError where a sum would take too many terms: for widths and distances of
    components that are too far from each other.

    >>> import diffscience as ds
    >>> law = Labelled(ds.gallery.julia_bimodal(), [0, 1])
    >>> tilted, x = Tilted(law, 1, 3.0), np.array([[0.5]])
    >>> whole = law.law.log_prob(x) + 3 * law.log_posterior(x)[:, 1]
    >>> bool(abs(tilted.log_prob(x) + tilted.log_z - whole) < 1e-12)
    True
    >>> right = ds.Oracle(tilted, ds.VP())  # the model that guidance is not
    >>> right.eps(x, 0.5).shape
    (1, 1)
    """

    def __init__(self, law: Labelled, label: int, gamma: float) -> None:
        instance("law", law, Labelled)
        inside = law._class(label)
        number("gamma", gamma, 0)
        if law.law.dim > 2:
            raise ArgumentError("law", "have D <= 2 to be tilted", f"D = {law.law.dim}")
        if law.law.noise.shape or law.law._zero_width():
            raise ArgumentError("law", "have one noise, and a width in all directions", law.law)
        self.dim, self.law, self.label, self.gamma = law.law.dim, law, label, float(gamma)
        self.beta = self.gamma - 1 if gamma >= 1 else self.gamma
        inside = inside if gamma >= 1 else law.law
        self._inside = GaussianMixture(inside.weights, inside.means, inside.covs)  # without noise
        self._slope = _slope(law.law)
        self._z, self._log_phi = _lattice(self.dim, self._slope)
        self._count = len(inside.weights)
        self._tables: dict[tuple[float, float], Table] = {}
        self._log_share = 0.0
        y, volumes = self._nodes()
        mass = volumes * np.exp(self.log_prob(y))
        self._log_share = math.log(mass.sum())  # log E h, by which the density is divided
        self.log_z = self._log_share + (math.log(law.weights[label]) if gamma >= 1 else 0.0)
        self._rule = y[mass > 0], mass[mass > 0] / mass.sum()
        mean = self._rule[1] @ self._rule[0]
        off = self._rule[0] - mean
        self._own = mean, (off * self._rule[1][:, None]).T @ off

    def diffuse(self, transition: Transition) -> Tilted:
        """The law after a transition, again a tilted law under noise."""
        moved: Tilted = super().diffuse(transition)
        noiseless = isinstance(moved.noise.var, float) and moved.noise.var == 0
        moved._count = len(self._inside.weights) * (1 if noiseless else len(self._z))
        return moved

    # ---- h and its derivatives

    def _log_h(self, y: Array) -> Array:
        """beta log p(c|y), (*b, D) -> (*b)."""
        ratio = self.law.classes[self.label].log_prob(y) - self.law.law.log_prob(y)
        return self.beta * (ratio + math.log(self.law.weights[self.label]))

    def _slope_of_h(self, y: Array) -> Array:
        """beta grad log p(c|y), (*b, D)."""
        return self.beta * (self.law.classes[self.label].score(y) - self.law.law.score(y))

    def _bend_of_h(self, y: Array) -> Array:
        """beta times the Hessian of log p(c|y), (*b, D, D)."""
        return self.beta * (self.law.classes[self.label].hessian(y) - self.law.law.hessian(y))

    def _posterior(self, x: Array, S: Array, V: Array) -> tuple[Array, Array]:
        """Places y (n, K, M, D) under the posteriors, and log phi + log h there (n, K, M).

        Without noise one place, x/S, serves all: K = M = 1.
        """
        if isinstance(V, float) and V == 0:
            y = x[:, None, None, :] / (S or 1.0)
            return y, self._log_h(y)
        xp, lam = namespace(x), like(self._inside._lam, x)
        root = self._inside._matrix(xp.sqrt(lam * over(V) / (over(S) ** 2 * lam + over(V))))
        y = self._inside._means(x, S, V)[:, :, None, :] + xp.matmul(like(self._z, x), root)
        return y, self._log_h(y) + like(self._log_phi, x)

    def _gain(self, x: Array, S: Array, V: Array) -> Array:
        """G_k, (K, D, D), with n before it for a batch of noises."""
        lam = like(self._inside._lam, x)
        return self._inside._matrix(over(S) * lam / (over(S) ** 2 * lam + over(V)))

    def _over_rows(
        self,
        work: Callable[[Array, Array, Array], Array],
        x: Array,
        tail: tuple[int, ...],
        density: bool = True,
    ) -> Array:
        # Each row is a sum, and the laws under it are asked as for all rows at once.
        with fused.counted_as(math.prod(getattr(x, "shape", (1,))[:-1]) * self._count):
            return super()._over_rows(work, x, tail, density)

    # ---- components

    def _logits(self, x: Array, S: Array, V: Array) -> Array:
        _, logits = self._posterior(x, S, V)
        return self._inside._logits(x, S, V) + logsumexp(logits) - self._log_share

    def _grads(self, x: Array, S: Array, V: Array) -> Array:
        y, logits = self._posterior(x, S, V)
        slope = _mean(softmax(logits), self._slope_of_h(y))
        moved = namespace(slope).matmul(self._gain(x, S, V), slope[..., None])[..., 0]
        return self._inside._grads(x, S, V) + moved

    def _curvatures(self, x: Array, S: Array, V: Array) -> Array:
        y, logits = self._posterior(x, S, V)
        weights, slope = softmax(logits), self._slope_of_h(y)
        bend = self._bend_of_h(y)
        xp, n = namespace(bend), tuple(bend.shape[:-2])
        bend = xp.reshape(_mean(weights, xp.reshape(bend, (*n, -1))), (*n[:-1], *bend.shape[-2:]))
        bend, G = bend + _covariance(weights, slope), self._gain(x, S, V)
        return self._inside._curvatures(x, S, V) + xp.matmul(G, xp.matmul(bend, G))

    def _means(self, x: Array, S: Array, V: Array) -> Array:
        y, logits = self._posterior(x, S, V)
        return _mean(softmax(logits), y)

    def _covs(self, x: Array, S: Array, V: Array) -> Array:
        y, logits = self._posterior(x, S, V)
        return _covariance(softmax(logits), y)

    # ---- the law as a whole

    def _moments(self) -> tuple[Array, Array]:
        return self._own

    def _sample(self, n: int, draws: Draws) -> Array:
        """By rejection: points of the components are kept with probability h."""
        share = math.exp(self._log_share)
        if share < _RARE:
            rule = f"leave a share of at least {_RARE:g} of p(.|c) to sample from"
            raise ArgumentError("gamma", rule, f"{self.gamma:g}, which leaves {share:.2g}")
        parts, missing = [draws.normal(0, self.dim)], n
        xp = namespace(parts[0])
        while missing > 0:
            tried = min(math.ceil(1.1 * missing / share) + 16, 1 << 20)
            y = self._inside._sample(tried, draws)
            kept = y[draws.uniform(tried) < xp.exp(self._log_h(y))][:missing]
            parts.append(kept)
            missing -= kept.shape[0]
        return xp.concat(parts, axis=0)

    def _nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes (M, D) and volumes (M,) that resolve the density under the noise as it stands."""
        law = self.law.law.diffuse(self.noise)
        width = np.sqrt(np.linalg.eigvalsh(numpy(law.covs)))
        longest = min(1.6, _CELL[self.dim] / max(self._slope, 1e-9))
        return tree(numpy(law.means), width[:, 0], width[:, -1], longest)

    def quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Cells that are small beside every component of p, by its own density."""
        if self._single_noise() == (1.0, 0.0):
            return self._rule[0].copy(), self._rule[1].copy()
        x, volumes = self._nodes()
        weights = volumes * np.exp(self.log_prob(x))
        return x[weights > 0], weights[weights > 0]

    # ---- one dimension

    def _reach(self, S: Array, V: Array) -> tuple[Array, Array]:
        """All but 1e-50 of the mass of every component, and inside what a cdf knows."""
        xp, inside = namespace(S), self._inside
        mean = S[..., None] * like(inside.means, S)[:, 0]
        width = xp.sqrt(S[..., None] ** 2 * like(inside.covs, S)[:, 0, 0] + V[..., None])
        far = (_FAR - 1) * width
        return xp.min(mean - far, axis=-1), xp.max(mean + far, axis=-1)

    def _table(self, S: float, V: float) -> Table:
        """Panels by their edges (N + 1,), log p at the nodes of each (N, 14), and their masses."""
        if (S, V) not in self._tables:
            means, covs = (numpy(a).reshape(-1) for a in (self._inside.means, self._inside.covs))
            width = np.sqrt(S * S * covs + V)
            low = float((S * means - _FAR * width).min())
            high = float((S * means + _FAR * width).max())
            # Half of what quadrature takes: log p is interpolated on the nodes.
            step = min(float(width.min()), 1.6 * float(width.max()) / max(self._slope, 1e-9))
            count = math.ceil((high - low) / step)
            if count > _PANELS:
                rule = f"have components of widths for a cdf in {_PANELS} panels"
                raise ArgumentError("law", rule, f"{count}")
            edges = np.linspace(low, high, count + 1)
            x, w = panels(edges)
            log_p = self._rows_log_prob(x[:, None], S, V).reshape(count, -1)
            self._tables[S, V] = edges, log_p, np.sum(w.reshape(count, -1) * np.exp(log_p), axis=1)
        return self._tables[S, V]

    def _log_cdfs(self, x: Array, S: Array, V: Array, upper: bool) -> Array:
        if getattr(S, "ndim", 0) or getattr(V, "ndim", 0):
            raise ArgumentError("noise", "be one transition here", f"a batch {self.noise.shape}")
        edges, log_p, mass = self._table(float(S), float(V))
        i = np.clip(np.searchsorted(edges, numpy(x)) - 1, 0, len(mass) - 1)
        outer = np.concatenate([[0.0], np.cumsum(mass[::-1] if upper else mass)])
        xp, held = namespace(x), like(outer[len(mass) - 1 - i if upper else i], x)
        # From the outer edge of its panel to x, with log p interpolated between its nodes.
        size = float(edges[1] - edges[0])
        u = xp.clip(2 * (x - like(edges[i], x)) / size - 1, -1.0, 1.0)
        y, w = np.polynomial.legendre.leggauss(log_p.shape[1])
        outside = 1.0 if upper else -1.0
        places = outside + 0.5 * (u - outside)[:, None] * (1 + like(y, x))
        density = xp.exp(xp.sum(_interpolation(places, y) * like(log_p[i], x)[:, None, :], axis=-1))
        part = 0.25 * size * xp.abs(u - outside) * xp.sum(like(w, x) * density, axis=-1)
        return log_weights(held + part)[:, None]


def _mean(weights: Array, values: Array) -> Array:
    """sum_m weights values: (n, K, M), (n, K, M, D) -> (n, K, D)."""
    return namespace(values).matmul(weights[..., None, :], values)[..., 0, :]


def _covariance(weights: Array, values: Array) -> Array:
    """The covariance of values under weights: (n, K, M), (n, K, M, D) -> (n, K, D, D)."""
    xp, off = namespace(values), values - _mean(weights, values)[..., None, :]
    return xp.matmul(xp.matrix_transpose(weights[..., None] * off), off)


def _interpolation(u: Array, y: np.ndarray) -> Array:
    """Lagrange's polynomials of the nodes y (m,) at places u (*b): (*b, m), by their Legendre sums.

    l_i(u) = w_i sum_k (k + 1/2) P_k(y_i) P_k(u) for Gauss's nodes and weights: no division.
    """
    m = len(y)
    weights = np.polynomial.legendre.leggauss(m)[1]
    factors = np.polynomial.legendre.legvander(y, m - 1) * (np.arange(m) + 0.5) * weights[:, None]
    powers = [0.0 * u + 1.0, u]
    for k in range(1, m - 1):
        powers.append(((2 * k + 1) * u * powers[k] - k * powers[k - 1]) / (k + 1))
    xp = namespace(u)
    return xp.matmul(xp.stack(powers, axis=-1), like(factors.T, u))


def _slope(law: GaussianMixture) -> float:
    """The steepest log-ratio of two components where it matters, times the largest width.

    Where a log-ratio of slope a and curvature q vanishes, the components cancel at a distance of
    at least pi/sqrt(a^2 + pi |q|) off the real line. It matters at the means, and where the two
    balance with neither fainter than the error of a sum.
    """
    means, covs, faint = numpy(law.means), numpy(law.covs), math.sqrt(2 * _FAINT[law.dim])
    P, chol = np.linalg.inv(covs), np.linalg.cholesky(covs)
    logs = np.log(numpy(law.weights)) + 0.5 * np.linalg.slogdet(P)[1]
    angles = np.linspace(0, 2 * math.pi, 2 if law.dim == 1 else 64, endpoint=False)
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, : law.dim]
    steepest = 0.0
    for m, C, log, own in zip(means, chol, logs, P, strict=True):
        # At m + r u, with r in deviations, the log-ratio to component j is a r^2 + b r + c.
        u, off, Q = rays @ C.T, m - means, P - own
        to = np.einsum("jde,je->jd", P, off)
        a = 0.5 * np.einsum("nd,jde,ne->jn", u, Q, u)
        b, c = to @ u.T, (log - logs + 0.5 * np.sum(off * to, axis=-1))[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            part = -0.5 * (b + np.copysign(np.sqrt(b * b - 4 * a * c), b))
            r = np.stack([part / a, c / part], axis=1)[..., None]
        balance = m + np.where((r > 0) & (r < faint), r, 0.0) * u
        balance = balance.reshape(len(P), -1, law.dim)
        y = np.concatenate([balance, np.broadcast_to(means, (len(P), *means.shape))], axis=1)
        slopes = np.einsum("jnd,jde->jne", y - means[:, None], P) - (y - m) @ own
        bent = np.abs(np.linalg.eigvalsh(Q)).max(axis=-1)
        steepest = max(steepest, float((np.sum(slopes**2, -1).max(-1) + math.pi * bent).max()))
    return math.sqrt(steepest * float(np.linalg.eigvalsh(covs).max()))


def _lattice(dim: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal places (M, D) of a trapezoidal sum and the logs of their weights."""
    step = min(0.25, 2 * math.pi**2 / (_FAINT[dim] * max(slope, 1e-9)))
    reach = _REACH[dim]
    if (2 * reach / step) ** dim > _NODES:
        rule = "have components whose distances and widths are not too far from each other"
        raise ArgumentError("law", rule, f"a log-ratio of slope {slope:.3g} widths")
    axis = step * np.arange(-math.floor(reach / step), math.floor(reach / step) + 1)
    mesh = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    mesh = mesh[np.sum(mesh * mesh, axis=-1) <= reach * reach]
    log_phi = -0.5 * np.sum(mesh * mesh, axis=-1)
    return mesh, log_phi - np.logaddexp.reduce(log_phi)
