"""Makes references.json: log-densities and scores of the gallery at 40 digits, by mpmath.

    python tests/make_references.py

Each law is written here a second time, from its definition in the gallery's docstrings, and shares
no code with the package. Blurred curves and boxes are integrated numerically (tanh-sinh and
Gauss-Legendre, two quadratures that must agree to 25 digits), mixtures are summed and rings use
mpmath's Bessel functions. The noise levels are (scale, var) pairs from no noise through a
variance-preserving process to a variance-exploding one at sigma = 1e5.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import mpmath as mp

mp.mp.dps = 40

LEVELS = {  # name -> (scale, var), exact in float64
    "none": (1.0, 0.0),
    "tiny": (1.0, 2.0**-40),
    "vp_early": (0.9990234375, 1 - 0.9990234375**2),
    "vp_middle": (0.625, 1 - 0.625**2),
    "vp_end": (0.0078125, 1 - 0.0078125**2),
    "ve_25": (1.0, 97.0),
    "ve_1e5": (1.0, 1e10),
}


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


def checkerboard(x: list[Any], S: Any, V: Any) -> tuple[Any, list[Any]]:
    with mp.workdps(80):
        p, g = mp.mpf(0), [mp.mpf(0), mp.mpf(0)]
        for i in range(4):
            for j in range(4):
                if (i + j) % 2 == 0:
                    px, gx = box_1d(x[0], S * (2 * i - 4), S * (2 * i - 2), V)
                    py, gy = box_1d(x[1], S * (2 * j - 4), S * (2 * j - 2), V)
                    p += px * py / 8
                    g = [g[0] + gx * py / 8, g[1] + px * gy / 8]
        return mp.log(p), [gi / p for gi in g]


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


def curve(point: Any, breaks: list[Any], noise: float, size: float = 1.0) -> Any:
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

        cuts = _cuts(phi_float, [float(b) for b in breaks])
        low = min(phi(mp.mpf(c)) for c in cuts)
        span = breaks[-1] - breaks[0]

        # Three integrals at once over each short interval: the mass and its first moments.
        def moments(method: str) -> list[Any]:
            sums = [mp.mpf(0)] * 3
            edges = sorted(set([mp.mpf(c) for c in cuts] + list(breaks)))
            for a, b in zip(edges[:-1], edges[1:]):
                if min(phi(a), phi(b), phi((a + b) / 2)) - low > 110:
                    continue
                for k in range(3):

                    def integrand(t: Any, k: int = k) -> Any:
                        return mp.exp(low - phi(t)) * (1 if k == 0 else point(t)[k - 1])

                    sums[k] += mp.quad(integrand, [a, b], method=method)
            return sums

        m = moments("gauss-legendre")
        if law.check:  # type: ignore[attr-defined]
            other = moments("tanh-sinh")
            assert all(abs(a - b) < mp.mpf(10) ** -25 * abs(m[0]) * 10 for a, b in zip(m, other))
            law.check -= 1  # type: ignore[attr-defined]
        log_p = mp.log(m[0] / span) - low - mp.log(2 * mp.pi * V)
        return log_p, [(S * m[k + 1] / m[0] - x[k]) / V for k in range(2)]

    law.check = 3  # type: ignore[attr-defined]
    return law


def _cuts(phi: Any, breaks: list[float]) -> list[float]:
    """Interval ends fine enough around every minimum of phi to resolve it."""
    cuts = set(breaks)
    work = [
        (a + (b - a) * i / 400, a + (b - a) * (i + 1) / 400)
        for a, b in zip(breaks, breaks[1:])
        for i in range(400)
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


TURN = [(math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)) for k in range(8)]
EYE = [[1, 0], [0, 1]]


def scaled_eye(v: float) -> list[list[Any]]:
    return [[mp.mpf(v), 0], [0, mp.mpf(v)]]


def laws() -> dict[str, tuple[Any, int, bool]]:
    """name -> (law, dimension, whether it has a density without noise)."""
    import numpy as np

    # Parameters that are rounded themselves (cosines, squares) are taken as the gallery has them.
    turn = np.arange(8) * (math.pi / 4)
    eight = (2.0 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)).tolist()
    lattice = [[float(i), float(j)] for i in range(-2, 3) for j in range(-2, 3)]
    return {
        "swiss_roll": (
            curve(spiral, [mp.mpf(3) / 2 * mp.pi, mp.mpf(9) / 2 * mp.pi], 0.05, 0.1),
            2,
            True,
        ),
        "two_moons": (curve(moons, [mp.mpf(0), +mp.pi, 2 * mp.pi], 0.1), 2, True),
        "s_curve": (
            curve(s_curve, [-mp.mpf(3) / 2 * mp.pi, mp.mpf(0), mp.mpf(3) / 2 * mp.pi], 0.1),
            2,
            True,
        ),
        "rings": (rings, 2, True),
        "checkerboard": (checkerboard, 2, True),
        "julia_bimodal": (mixture([0.1, 0.9], [[-3], [3]], [[[1]], [[1]]]), 1, True),
        "julia_trimodal": (
            mixture([0.4, 0.4, 0.2], [[-3, -3], [3, 3], [-1, 1]], [EYE] * 3),
            2,
            True,
        ),
        "eight_gaussians": (mixture([1] * 8, eight, [scaled_eye(0.2**2)] * 8), 2, True),
        "grid": (mixture([1] * 25, lattice, [scaled_eye(0.1**2)] * 25), 2, True),
        "skewed_pair": (
            mixture([0.99, 0.01], [[2, 0], [-2, 0]], [[[1, 0.95], [0.95, 1]], scaled_eye(0.0025)]),
            2,
            True,
        ),
    }


def spots(name: str, dim: int, scale: float, var: float) -> list[list[float]]:
    """Points near the modes, between them, in the tails and up to 1e3 away."""
    rng = random.Random(f"{name} {scale} {var}")
    near = {"swiss_roll": 1.2, "rings": 3.0, "checkerboard": 3.9}.get(name, 2.5)
    spread = math.sqrt(var)
    out = []
    for reach in (near * scale, near * scale, near * scale + spread, 30.0, 1000.0):
        x = [rng.uniform(-1, 1) * reach for _ in range(dim)]
        if reach == 1000.0:
            size = math.sqrt(sum(v * v for v in x))
            x = [v / size * 1000.0 for v in x]
        out.append(x)
    if name == "checkerboard":
        out[0] = [scale * -3.0625, scale * -2.4375]  # inside a square
    return out


def main() -> None:
    rows = []
    for name, (law, dim, sharp) in laws().items():
        for level, (scale, var) in LEVELS.items():
            if var == 0 and not sharp:
                continue
            for x in spots(name, dim, scale, var):
                if name == "checkerboard" and var == 0 and x != [scale * -3.0625, scale * -2.4375]:
                    continue
                log_p, score = law([mp.mpf(v) for v in x], mp.mpf(scale), mp.mpf(var))
                rows.append(
                    {
                        "target": name,
                        "level": level,
                        "x": x,
                        "log_prob": mp.nstr(log_p, 30),
                        "score": [mp.nstr(g, 30) for g in score],
                    }
                )
        print(name, len(rows), flush=True)  # noqa: T201
    out = {"levels": LEVELS, "digits": mp.mp.dps, "rows": rows}
    Path(__file__).with_name("references.json").write_text(json.dumps(out, indent=0) + "\n")


if __name__ == "__main__":
    main()
