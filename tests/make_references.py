"""Makes references.json: log-densities and scores of the gallery at 40 digits, by mpmath.

    python tests/make_references.py

Each law is written here a second time, from its definition in the gallery's docstrings, and shares
no code with the package. Mixtures are summed, boxes use the error function, rings Bessel functions
and blurred curves Gauss-Legendre quadrature. Boxes, rings and curves are then computed once more,
at every point, by a quadrature that shares neither rule nor intervals with the first; how well the
two agree is stored as `agreement`. The noise levels are (scale, var) pairs from no noise through a
variance-preserving process to a variance-exploding one at sigma = 1e5.

The points of the empirical law are data, not a formula: they are read from references.json.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mpmath as mp

DIGITS = 40
STORE = Path(__file__).with_name("references.json")

LEVELS = {  # name -> (scale, var), exact in float64
    "none": (1.0, 0.0),
    "tiny": (1.0, 2.0**-40),
    "vp_early": (0.9990234375, 1 - 0.9990234375**2),
    "vp_middle": (0.625, 1 - 0.625**2),
    "vp_end": (0.0078125, 1 - 0.0078125**2),
    "ve_25": (1.0, 97.0),
    "ve_1e5": (1.0, 1e10),
}


FAR = (1e3, 1e6)  # standard deviations beyond the data, the last points of every level
MODES = 5  # points before those


class Law(NamedTuple):
    """A target: value(x, S, V) is log p and the score after the transition (S, V)."""

    value: Callable[..., Any]
    dim: int
    noise: float  # its own standard deviation
    again: Callable[..., Any] | None = None  # the same by another quadrature


def gauss(x: list[Any], mean: list[Any], cov: list[list[Any]]) -> tuple[Any, list[Any]]:
    """Density and gradient of a normal law, D = 1 or 2."""
    d = [xi - mi for xi, mi in zip(x, mean)]
    if len(x) == 1:
        p = mp.exp(-(d[0] ** 2) / (2 * cov[0][0])) / mp.sqrt(2 * mp.pi * cov[0][0])
        return p, [-p * d[0] / cov[0][0]]
    (a, b), (_, c) = cov
    det = a * c - b * b
    u = [(c * d[0] - b * d[1]) / det, (a * d[1] - b * d[0]) / det]
    p = mp.exp(-(d[0] * u[0] + d[1] * u[1]) / 2) / (2 * mp.pi * mp.sqrt(det))
    return p, [-p * u[0], -p * u[1]]


def mixture(weights: list, means: list, covs: list) -> Any:
    total = mp.fsum(mp.mpf(w) for w in weights)

    def law(x: list[Any], S: Any, V: Any) -> tuple[Any, list[Any]]:
        p, g = mp.mpf(0), [mp.mpf(0)] * len(x)
        for w, m, c in zip(weights, means, covs):
            blurred = [
                [S * S * mp.mpf(c[i][j]) + (V if i == j else 0) for j in range(len(x))]
                for i in range(len(x))
            ]
            pk, gk = gauss(x, [S * mp.mpf(mi) for mi in m], blurred)
            p += mp.mpf(w) / total * pk
            g = [gi + mp.mpf(w) / total * gki for gi, gki in zip(g, gk)]
        return mp.log(p), [gi / p for gi in g]

    return law


def box_1d(x: Any, a: Any, b: Any, V: Any) -> tuple[Any, Any]:
    """Density and derivative of Uniform[a, b] blurred by V, 80 digits against cancellation."""
    if V == 0:
        return (1 / (b - a), mp.mpf(0)) if a <= x <= b else (mp.mpf(0), mp.mpf(0))
    s = mp.sqrt(V)
    lo, hi = (x - b) / s, (x - a) / s
    if lo > 0:
        mass = (mp.erfc(lo / mp.sqrt(2)) - mp.erfc(hi / mp.sqrt(2))) / 2
    elif hi < 0:
        mass = (mp.erfc(-hi / mp.sqrt(2)) - mp.erfc(-lo / mp.sqrt(2))) / 2
    else:
        mass = (mp.erf(hi / mp.sqrt(2)) - mp.erf(lo / mp.sqrt(2))) / 2
    slope = (mp.exp(-hi * hi / 2) - mp.exp(-lo * lo / 2)) / (s * mp.sqrt(2 * mp.pi))
    return mass / (b - a), slope / (b - a)


def box_1d_by_quadrature(x: Any, a: Any, b: Any, V: Any) -> tuple[Any, Any]:
    """The same, integrating the normal density and its slope over the box."""
    s = mp.sqrt(V)
    lo, hi = (x - b) / s, (x - a) / s
    near = min(max(lo, mp.mpf(0)), hi)  # where the density is largest, and below e^-200 of it:
    reach = mp.sqrt(near * near + 400) - abs(near)
    cuts = mp.linspace(max(lo, near - reach), min(hi, near + reach), 11)

    def integral(f: Callable[[Any], Any]) -> Any:
        def integrand(z: Any) -> Any:
            return f(z) * mp.exp(-(z - near) * (z + near) / 2)

        return mp.quad(integrand, cuts, method="gauss-legendre") * mp.npdf(near) / (b - a)

    return integral(lambda z: 1), integral(lambda z: -z) / s


def checkerboard(side: Callable[..., Any]) -> Callable[..., Any]:
    """The law, given the density and derivative of one blurred side."""

    def law(x: list[Any], S: Any, V: Any) -> tuple[Any, list[Any]]:
        with mp.workdps(80):
            across, up = (
                [side(xi, S * (2 * i - 4), S * (2 * i - 2), V) for i in range(4)] for xi in x
            )
            p, g = mp.mpf(0), [mp.mpf(0), mp.mpf(0)]
            for i in range(4):
                for j in range(i % 2, 4, 2):
                    (px, gx), (py, gy) = across[i], up[j]
                    p += px * py / 8
                    g = [g[0] + gx * py / 8, g[1] + px * gy / 8]
            return mp.log(p), [gi / p for gi in g]

    return law


def rings(x: list[Any], S: Any, V: Any) -> tuple[Any, list[Any]]:
    V = V + S * S * mp.mpf(0.1) ** 2
    r = mp.sqrt(x[0] ** 2 + x[1] ** 2)
    p, slope = mp.mpf(0), mp.mpf(0)
    for radius in (1, 2, 3):
        a = S * radius
        z = a * r / V
        front = mp.exp(-(r * r + a * a) / (2 * V)) / (2 * mp.pi * V) / 3
        p += front * mp.besseli(0, z)
        slope += front * (mp.besseli(1, z) * a / V - mp.besseli(0, z) * r / V)
    return mp.log(p), [slope / p * xi / r for xi in x]


def curve(
    point: Any,
    breaks: list[Any],
    noise: float,
    size: float = 1.0,
    method: str = "gauss-legendre",
    pieces: int = 400,
) -> Callable[..., Any]:
    """size * point(t) + noise N(0, I), t uniform: by quadrature over intervals of t."""

    def law(x: list[Any], S: Any, V: Any) -> tuple[Any, list[Any]]:
        # The target itself is size * curve + noise, so its own noise is scaled too.
        V = V + S * S * mp.mpf(noise) ** 2
        S = S * mp.mpf(size)

        def phi(t: Any) -> Any:
            c = point(t)
            return ((x[0] - S * c[0]) ** 2 + (x[1] - S * c[1]) ** 2) / (2 * V)

        def phi_float(t: float) -> float:
            c = point(t, math)
            return ((float(x[0]) - float(S) * c[0]) ** 2 + (float(x[1]) - float(S) * c[1]) ** 2) / (
                2 * float(V)
            )

        cuts = _cuts(phi_float, [float(b) for b in breaks], pieces)
        low = min(phi(mp.mpf(c)) for c in cuts)
        m = [mp.mpf(0)] * 3
        edges = sorted(set([mp.mpf(c) for c in cuts] + list(breaks)))
        for a, b in zip(edges[:-1], edges[1:]):
            if min(phi(a), phi(b), phi((a + b) / 2)) - low <= 110:
                part = _moments(point, phi, low, (a, b), method)
                m = [total + more for total, more in zip(m, part)]
        span = breaks[-1] - breaks[0]
        log_p = mp.log(m[0] / span) - low - mp.log(2 * mp.pi * V)
        return log_p, [(S * m[k + 1] / m[0] - x[k]) / V for k in range(2)]

    return law


def _moments(point: Any, phi: Any, low: Any, ends: tuple[Any, Any], method: str) -> list[Any]:
    """The integrals of exp(low - phi) times 1, x and y of the point, over one short interval."""
    known: dict[Any, tuple[Any, ...]] = {}  # the three integrals share their nodes

    def values(t: Any) -> tuple[Any, ...]:
        if t not in known:
            known[t] = (mp.exp(low - phi(t)), *point(t))
        return known[t]

    def integrand(k: int) -> Callable[[Any], Any]:
        return lambda t: values(t)[0] * (values(t)[k] if k else 1)

    return [mp.quad(integrand(k), ends, method=method) for k in range(3)]


def _cuts(phi: Any, breaks: list[float], pieces: int) -> list[float]:
    """Interval ends fine enough around every minimum of phi to resolve it."""
    cuts = set(breaks)
    work = [
        (a + (b - a) * i / pieces, a + (b - a) * (i + 1) / pieces)
        for a, b in zip(breaks, breaks[1:])
        for i in range(pieces)
    ]
    best = min(min(phi(a), phi(b)) for a, b in work)
    depth = 0
    while work and depth < 60:
        rest = []
        for a, b in work:
            m = 0.5 * (a + b)
            values = [phi(a), phi(m), phi(b)]
            best = min(best, *values)
            turn = abs(values[0] - 2 * values[1] + values[2])
            if min(values) - 4 * turn - best > 120:
                continue
            if max(values) - min(values) > 6:
                rest += [(a, m), (m, b)]
            else:
                cuts |= {a, b}
        work, depth = rest, depth + 1
    return sorted(cuts)


def spiral(t: Any, m: Any = mp) -> tuple[Any, Any]:
    return t * m.cos(t), t * m.sin(t)


def moons(t: Any, m: Any = mp) -> tuple[Any, Any]:
    pi = m.pi
    if t <= pi:
        return m.cos(t), m.sin(t)
    return 1 - m.cos(t - pi), (mp.mpf(1) / 2 if m is mp else 0.5) - m.sin(t - pi)


def s_curve(t: Any, m: Any = mp) -> tuple[Any, Any]:
    return m.sin(t), (1 if t > 0 else -1 if t < 0 else 0) * (m.cos(t) - 1)


def circles(t: Any, m: Any = mp) -> tuple[Any, Any]:
    """The circles of radius 1, 2 and 3 one after the other."""
    radius = 1 if t <= 2 * m.pi else 2 if t <= 4 * m.pi else 3
    return radius * m.cos(t), radius * m.sin(t)


EYE = [[1, 0], [0, 1]]


def scaled_eye(v: float) -> list[list[Any]]:
    return [[mp.mpf(v), 0], [0, mp.mpf(v)]]


def by_curve(point: Any, breaks: list[Any], noise: float, size: float = 1.0) -> Law:
    other = curve(point, breaks, noise, size, "tanh-sinh", 53)
    return Law(curve(point, breaks, noise, size), 2, noise, other)


def cloud() -> list[list[float]]:
    return json.loads(STORE.read_text())["cloud"]


def mixtures() -> dict[str, Law]:
    import numpy as np

    # Parameters that are rounded themselves (cosines, squares) are taken as the gallery has them.
    turn = np.arange(8) * (math.pi / 4)
    eight = (2.0 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)).tolist()
    lattice = [[float(i), float(j)] for i in range(-2, 3) for j in range(-2, 3)]
    slanted = [[1, 0.95], [0.95, 1]]
    dots, zero = cloud(), [[0, 0], [0, 0]]
    return {
        "julia_bimodal": Law(mixture([0.1, 0.9], [[-3], [3]], [[[1]], [[1]]]), 1, 1.0),
        "julia_trimodal": Law(
            mixture([0.4, 0.4, 0.2], [[-3, -3], [3, 3], [-1, 1]], [EYE] * 3), 2, 1.0
        ),
        "eight_gaussians": Law(mixture([1] * 8, eight, [scaled_eye(0.2**2)] * 8), 2, 0.2),
        "grid": Law(mixture([1] * 25, lattice, [scaled_eye(0.1**2)] * 25), 2, 0.1),
        "skewed_pair": Law(
            mixture([0.99, 0.01], [[2, 0], [-2, 0]], [slanted, scaled_eye(0.0025)]), 2, 1.0
        ),
        "empirical": Law(mixture([1] * len(dots), dots, [zero] * len(dots)), 2, 0.0),
    }


def laws() -> dict[str, Law]:
    with mp.workdps(DIGITS):
        third = mp.mpf(3) / 2 * mp.pi
        around = [2 * k * mp.pi for k in range(4)]
        return {
            "swiss_roll": by_curve(spiral, [third, mp.mpf(9) / 2 * mp.pi], 0.05, 0.1),
            "two_moons": by_curve(moons, [mp.mpf(0), +mp.pi, 2 * mp.pi], 0.1),
            "s_curve": by_curve(s_curve, [-third, mp.mpf(0), third], 0.1),
            "rings": Law(rings, 2, 0.1, curve(circles, around, 0.1, pieces=37)),
            "checkerboard": Law(checkerboard(box_1d), 2, 0.0, checkerboard(box_1d_by_quadrature)),
            **mixtures(),
        }


def edge(name: str, turn: list[float]) -> list[float]:
    """Where the data end in this direction; their centre where their own noise makes it far."""
    if name == "checkerboard":
        return [4.0 / max(abs(v) for v in turn) * v for v in turn]
    if name == "empirical":
        return max(cloud(), key=lambda y: y[0] * turn[0] + y[1] * turn[1])
    return [0.0] * len(turn)


def spots(name: str, law: Law, scale: float, var: float) -> list[list[float]]:
    """Points near the modes, between them, up to 1e3 away, then `FAR` standard deviations out."""
    rng = random.Random(f"{name} {scale} {var}")
    near = {"swiss_roll": 1.2, "rings": 3.0, "checkerboard": 3.9}.get(name, 2.5)
    spread = math.sqrt(var)
    out = []
    for reach in (near * scale, near * scale, near * scale + spread, 30.0, 1000.0):
        x = [rng.uniform(-1, 1) * reach for _ in range(law.dim)]
        if reach == 1000.0:
            size = math.sqrt(sum(v * v for v in x))
            x = [v / size * 1000.0 for v in x]
        out.append(x)
    if name == "checkerboard":
        out[0] = [scale * -3.0625, scale * -2.4375]  # inside a square
        if var == 0:
            return out[:1]  # there is no density outside, and no score
    deviation = math.sqrt(var + (scale * law.noise) ** 2)
    for far in FAR:
        x = [rng.uniform(-1, 1) for _ in range(law.dim)]
        size = math.sqrt(sum(v * v for v in x))
        x = [v / size for v in x]
        start = edge(name, x)
        out.append([scale * s + far * deviation * v for s, v in zip(start, x)])
    return out


def answer(law: Law, x: list[float], scale: float, var: float, check: bool) -> dict[str, Any]:
    """log p and score at x, and how far the other quadrature is from them, if there is one."""
    with mp.workdps(DIGITS):
        at = [mp.mpf(v) for v in x], mp.mpf(scale), mp.mpf(var)
        log_p, score = law.value(*at)
        row: dict[str, Any] = {
            "log_prob": mp.nstr(log_p, 30),
            "score": [mp.nstr(g, 30) for g in score],
        }
        deviation = math.sqrt(var + (scale * law.noise) ** 2)
        if check and law.again is not None and deviation > 0:
            log_q, other = law.again(*at)
            # Scores are of size 1/deviation: far smaller ones are what cancellation leaves.
            size = max(mp.norm(score), mp.mpf(10) ** -DIGITS / deviation)
            gap = mp.norm([a - b for a, b in zip(score, other)]) / size
            row["agreement"] = mp.nstr(max(gap, abs(log_p - log_q) / max(1, abs(log_p))), 2)
        return row


def rows(name: str, law: Law, level: str) -> list[dict[str, Any]]:
    scale, var = LEVELS[level]
    if name == "empirical" and var == 0:
        return []  # no density without noise
    points = spots(name, law, scale, var)
    return [
        {"target": name, "level": level, "x": x, **answer(law, x, scale, var, True)} for x in points
    ]


def main() -> None:
    out: dict[str, Any] = {"levels": LEVELS, "digits": DIGITS, "cloud": cloud(), "rows": []}
    for name, law in laws().items():
        for level in LEVELS:
            out["rows"] += rows(name, law, level)
            print(name, level, len(out["rows"]), flush=True)  # noqa: T201
    STORE.write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main()
