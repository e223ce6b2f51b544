"""How fast are the oracle, small networks and samplers, beside what else a user might reach for?

Oracle: log-density and score together of p_t, a mixture of Gaussians in the plane under the VP
process, at n float32 points. Every contender gets the same points and the same parameters, in one
process, in turns (repeat 1 of all, repeat 2 of all, …), each timed call that takes less than a
second after an untimed one; the very first call, which compiles what there is to compile, is
reported apart. Errors are max |answer − truth| / max(1, |truth|) over
log-density and score, against float64 at the same points: at the timed ones ("error"), and at
points 1e3 away, where densities underflow ("error far").

Training: one step of the network of R. Rosa's note *Denoising diffusion probabilistic models*
(2→64→1 relu, 1024 points, a fresh noise and step number for each of them, L_simple, Adam).

Sampling: Euler-Maruyama steps of the reverse SDE of the 5 x 5 grid of Gaussians under the VP
process, with the exact score, float32, from the exact law at t = 1. Everybody takes the same steps;
"eager" scores use that all widths are equal, clamp their logits and go through the cache in chunks.
The mean of |x|^2/2 at the end shows that all sample the same law, beside its exact value.

Flow: the probability flow of that law from t = 1 to the same end with adaptive steps at one
tolerance, on the plane, and on the line for five Gaussians. Errors are distances to the exact map
F^-1 F on the line, and in the plane to a float64 solution at tolerance 1e-12, at the first
`checked_flow` points. SciPy is driven as the tutorials do: all points as one float64 vector.

Ensembles: `members` networks of two hidden layers in the plane, each trained `member_steps` steps
on points of the two moons, from the call to the weights: all as one batched computation on one
thread and on all, beside each by itself by `train.train`, divided among `processes` of one thread
each, which wait ready, or one after another where there are none. All start from the same weights
and draw the same numbers; "weights apart" is the largest difference from the first of them in the
end.

Contenders that cannot run are absent: JAX where it is not installed, torch.compile and the
machine's limit where there is no C or C++ compiler (our own code needs none). The limit is a loop
written for this one question in float32, with a polynomial exponential, built for this machine's
vector unit with -ffast-math.

Sources: T. Karras et al., Guiding a Diffusion Model with a Bad Version of Itself, 2024 (its toy
mixture is evaluated in linear space: the idea is taken, not the code); rmsrosa/random_notes.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import itertools
import multiprocessing
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import (
    VP,
    ArgumentError,
    GaussianMixture,
    Network,
    Oracle,
    ensembles,
    fused,
    gallery,
    nets,
    notes,
    plots,
    solvers,
    train,
)
from diffscience.errors import number, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro, network
from diffscience.noise import Sequential
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

OURS = "ours"
LIMIT = "limit: C for this machine"
LONG = 1000.0  # milliseconds


@dataclass(frozen=True)
class Config:
    """Sizes; `compilers` admits torch.compile and the C program, which take half a minute, and
    `processes` that share the separate trainings, 0 for one after another."""

    sizes: tuple[int, ...] = (1_000, 1_000_000)
    components: int = 25
    t: float = 0.1
    repeats: int = 9
    checked: int = 20_000
    chunk: int = 8_000
    steps: int = 200
    training_repeats: int = 9
    particles: int = 100_000
    sampling_steps: int = 500
    sampling_repeats: int = 3
    end: float = 1e-3
    tolerance: float = 1e-5
    checked_flow: int = 2_000
    compilers: bool = True
    members: int = 64
    member_widths: tuple[int, ...] = (32, 64, 128)
    member_batches: tuple[int, ...] = (32, 256)
    member_steps: int = 60
    member_repeats: int = 3
    processes: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        wholes = ["components", "repeats", "checked", "chunk", "steps", "training_repeats"]
        wholes += ["particles", "sampling_steps", "sampling_repeats", "checked_flow"]
        wholes += ["members", "member_steps", "member_repeats"]
        for name in ("sizes", "member_widths", "member_batches"):
            if not getattr(self, name):
                raise ArgumentError(name, "hold at least one number", getattr(self, name))
            for value in getattr(self, name):
                whole(name, value, 1)
        for name in wholes:
            whole(name, getattr(self, name), 1)
        whole("processes", self.processes, 0)
        number("t", self.t, 0, 1)
        number("end", self.end, 0, 1, "()")
        number("tolerance", self.tolerance, 0, ends="()")


# The mixture ------------------------------------------------------------------------------------


class Mixture:
    """The noised law: as the package has it, and as plain parameters for everybody else."""

    def __init__(self, config: Config, run: Run) -> None:
        rng, K = run.generator("law"), config.components
        self.weights = rng.dirichlet(np.full(K, 3.0))
        roots = 0.3 * rng.normal(size=(K, 2, 2))
        covs = roots @ roots.swapaxes(1, 2) + 0.01 * np.eye(2)
        means = 2.0 * rng.normal(size=(K, 2))
        transition = VP().at(config.t)
        self.law = GaussianMixture(self.weights, means, covs).diffuse(transition)
        scale, var = float(transition.scale), float(transition.var)
        self.means, self.covs = scale * means, scale**2 * covs + var * np.eye(2)
        self.precisions = np.linalg.inv(self.covs)
        self.whitening = np.linalg.cholesky(self.precisions).swapaxes(1, 2)
        self.log_weight = np.log(self.weights) - np.log(2 * np.pi)
        self.log_weight += 0.5 * np.linalg.slogdet(self.precisions)[1]

    def truth(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Float64, whole arrays (n, K, 2)."""
        d = x.astype(np.float64)[:, None] - self.means
        g = np.einsum("kij,nkj->nki", self.precisions, d)
        logits = self.log_weight - 0.5 * (d * g).sum(-1)
        log_prob = np.logaddexp.reduce(logits, axis=1)
        r = np.exp(logits - log_prob[:, None])
        return log_prob, -(r[..., None] * g).sum(1)


Contender = Callable[[Any], tuple[Any, Any]]


def ours(mixture: Mixture, config: Config) -> dict[str, Contender]:
    p = mixture.precisions
    given = (mixture.log_weight, mixture.means, mixture.whitening, -p, np.zeros_like(mixture.means))
    return {
        OURS: mixture.law.log_prob_and_score,
        "ours, tensors": _from_numpy(mixture.law.log_prob_and_score),
        "ours, nothing compiled": lambda x: fused.plain(x, *given),
    }


def torch_contenders(mixture: Mixture, config: Config) -> dict[str, Contender]:
    import torch
    from torch import distributions

    def single(a: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(a).float()

    log_weight, means = single(mixture.log_weight), single(mixture.means)
    whitening, precisions = single(mixture.whitening), single(mixture.precisions)
    law = distributions.MixtureSameFamily(
        distributions.Categorical(probs=single(mixture.weights)),
        distributions.MultivariateNormal(means, single(mixture.covs)),
    )
    widths, axes = torch.linalg.eigh(single(mixture.covs))
    height = single(mixture.weights) / (2 * np.pi * widths.prod(-1).sqrt())

    def autograd(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.clone().requires_grad_()
        log_prob = law.log_prob(x)
        return log_prob.detach(), torch.autograd.grad(log_prob.sum(), x)[0]

    def linear(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        along = torch.einsum("kij,nki->nkj", axes, x[:, None] - means)
        parts = height * torch.exp(-0.5 * (along.square() / widths).sum(-1))
        density = parts.sum(-1)
        pull = torch.einsum("nk,kij,nkj->ni", parts, axes, along / widths)
        return density.log(), -pull / density[:, None]

    def direct(x: torch.Tensor, floor: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        dx, dy = x[:, :1] - means[:, 0], x[:, 1:] - means[:, 1]
        u = whitening[:, 0, 0] * dx + whitening[:, 0, 1] * dy
        v = whitening[:, 1, 0] * dx + whitening[:, 1, 1] * dy
        logits = log_weight - 0.5 * (u * u + v * v)
        top = logits.amax(1, keepdim=True)
        shifted = logits - top
        r = torch.exp(shifted if floor is None else shifted.clamp(min=floor))
        total = r.sum(1)
        a = (r * (precisions[:, 0, 0] * dx + precisions[:, 0, 1] * dy)).sum(1)
        b = (r * (precisions[:, 1, 0] * dx + precisions[:, 1, 1] * dy)).sum(1)
        return top[:, 0] + total.log(), -torch.stack([a, b], 1) / total[:, None]

    def chunks(way: Contender) -> Contender:
        def answer(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            parts = [way(part) for part in x.split(config.chunk)]
            return torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts])

        return answer

    clamped = functools.partial(direct, floor=-80.0)
    found = {
        "torch.distributions, autograd": autograd,
        "torch, linear space (toy mixture)": linear,
        "torch, eager": direct,
        "torch, eager in chunks": chunks(direct),
        "torch, eager in chunks, clamped": chunks(clamped),
    }
    if config.compilers and compiler("c++", "g++", "clang++"):
        found["torch.compile over chunks"] = chunks(torch.compile(clamped, dynamic=False))
    return {name: _from_numpy(way) for name, way in found.items()}


def _from_numpy(way: Contender) -> Contender:
    """The way for tensors, given arrays: torch.from_numpy copies nothing."""
    import torch

    return lambda x: way(torch.from_numpy(x))


def numpy_contenders(mixture: Mixture, config: Config) -> dict[str, Contender]:
    m, p = mixture.means, mixture.precisions
    pm = np.einsum("kij,kj->ki", p, m)
    constant = mixture.log_weight - 0.5 * (m * pm).sum(1)
    quadratic = [-0.5 * p[:, 0, 0], -p[:, 0, 1], -0.5 * p[:, 1, 1]]
    into = np.stack([constant, pm[:, 0], pm[:, 1], *quadratic]).astype(np.float32)
    back = np.stack([np.ones(len(m)), *pm.T, p[:, 0, 0], p[:, 0, 1], p[:, 1, 1]], 1)
    back = back.astype(np.float32)

    def products(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Squares expanded: log-density and score are two matrix products each chunk."""
        log_prob, score = np.empty(len(x), np.float32), np.empty((len(x), 2), np.float32)
        for start in range(0, len(x), config.chunk):
            part = slice(start, start + config.chunk)
            a, b = x[part, 0], x[part, 1]
            logits = np.stack([np.ones_like(a), a, b, a * a, a * b, b * b], 1) @ into
            top = logits.max(1, keepdims=True)
            logits -= top
            np.maximum(logits, -80.0, out=logits)
            total, c, d, p00, p01, p11 = (np.exp(logits, out=logits) @ back).T
            log_prob[part] = top[:, 0] + np.log(total)
            score[part, 0] = (c - p00 * a - p01 * b) / total
            score[part, 1] = (d - p01 * a - p11 * b) / total
        return log_prob, score

    return {"NumPy, matrix products in chunks": products}


def jax_contenders(mixture: Mixture, config: Config) -> dict[str, Contender]:
    if importlib.util.find_spec("jax") is None:
        return {}
    jax: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    names = ("log_weight", "means", "whitening", "precisions")
    log_weight, means, w, p = (jnp.asarray(getattr(mixture, n), jnp.float32) for n in names)

    @jax.jit
    def direct(x: Any) -> tuple[Any, Any]:
        dx, dy = x[:, :1] - means[:, 0], x[:, 1:] - means[:, 1]
        u, v = w[:, 0, 0] * dx + w[:, 0, 1] * dy, w[:, 1, 0] * dx + w[:, 1, 1] * dy
        logits = log_weight - 0.5 * (u * u + v * v)
        top = logits.max(1)
        r = jnp.exp(jnp.maximum(logits - top[:, None], -80.0))
        total = r.sum(1)
        a = (r * (p[:, 0, 0] * dx + p[:, 0, 1] * dy)).sum(1)
        b = (r * (p[:, 1, 0] * dx + p[:, 1, 1] * dy)).sum(1)
        return top + jnp.log(total), -jnp.stack([a, b], 1) / total[:, None]

    return {"JAX, jit": lambda x: jax.block_until_ready(direct(x))}


# The limit --------------------------------------------------------------------------------------

C_SOURCE = r"""
#include <math.h>
#include <string.h>
enum { B = 128, MOST = 64 };
/* 2^e for -126 < e <= 0: nearest integer to the exponent field, the rest by a polynomial. */
static inline float power(float e) {
    float whole = nearbyintf(e), f = e - whole;
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f; p = p * f + 9.6181291e-3f; p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f; p = p * f + 6.9314718e-1f; p = p * f + 1.0f;
    int bits; memcpy(&bits, &p, 4);
    bits += (int)whole << 23;
    memcpy(&p, &bits, 4);
    return p;
}
/* q: K rows a, m (2), w (3, upper triangle), p (3, symmetric); logits in base 2. */
void mixture(const float *restrict x, const float *restrict q, long K, long first, long last,
             float *restrict log_prob, float *restrict score) {
    float l[MOST][B], a[B], b[B], top[B], s[B], u[B], v[B];
    for (long start = first; start < last; start += B) {
        long n = last - start < B ? last - start : B;
        for (int i = 0; i < B; i++) {
            long j = start + (i < n ? i : 0);
            a[i] = x[2 * j]; b[i] = x[2 * j + 1];
            top[i] = -3e38f; s[i] = u[i] = v[i] = 0;
        }
        for (long k = 0; k < K; k++) {
            const float *c = q + 9 * k;
            for (int i = 0; i < B; i++) {
                float dx = a[i] - c[1], dy = b[i] - c[2];
                float g = c[3] * dx + c[4] * dy, h = c[5] * dy;
                float e = c[0] - (g * g + h * h);
                l[k][i] = e;
                top[i] = e > top[i] ? e : top[i];
            }
        }
        for (long k = 0; k < K; k++) {
            const float *c = q + 9 * k;
            for (int i = 0; i < B; i++) {
                float e = l[k][i] - top[i];
                float r = power(e < -100 ? -100 : e);
                float dx = a[i] - c[1], dy = b[i] - c[2];
                s[i] += r;
                u[i] -= r * (c[6] * dx + c[7] * dy);
                v[i] -= r * (c[7] * dx + c[8] * dy);
            }
        }
        for (int i = 0; i < n; i++) {
            log_prob[start + i] = 0.69314718f * (top[i] + log2f(s[i]));
            score[2 * (start + i)] = u[i] / s[i];
            score[2 * (start + i) + 1] = v[i] / s[i];
        }
    }
}
"""


def compiler(*names: str) -> str | None:
    """The path of the first of these programs that is installed."""
    return next((found for found in map(shutil.which, names) if found), None)


@functools.cache
def built() -> Any:
    """The C function, or None where it cannot be built."""
    cc = compiler("cc", "gcc", "clang")
    if cc is None:
        return None
    # A library that is loaded keeps its file's contents; the folder can go.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, part, library = (Path(folder, f"limit.{end}") for end in ("c", "o", "so"))
        source.write_text(C_SOURCE)
        # Linked without -ffast-math, which would switch off denormal numbers in this process.
        flags = ["-O3", "-march=native", "-ffast-math", "-fPIC"]
        build: list[list[str | Path]] = [
            [cc, *flags, "-c", source, "-o", part],
            [cc, "-shared", part, "-o", library, "-lm"],
        ]
        if any(subprocess.run(command, capture_output=True).returncode for command in build):
            return None
        return ctypes.CDLL(str(library)).mixture


def limit(mixture: Mixture, config: Config) -> dict[str, Contender]:
    run = built() if config.compilers and config.components <= 64 else None
    if run is None:
        return {}
    w, p, ln2 = mixture.whitening, mixture.precisions, np.log(2)
    upper = np.stack([w[:, 0, 0], w[:, 0, 1], w[:, 1, 1]], 1) * np.sqrt(0.5 / ln2)
    symmetric = np.stack([p[:, 0, 0], p[:, 0, 1], p[:, 1, 1]], 1)
    parts = [mixture.log_weight[:, None] / ln2, mixture.means, upper, symmetric]
    q = np.ascontiguousarray(np.concatenate(parts, 1), np.float32)
    long, pointer, threads = ctypes.c_long, ctypes.c_void_p, cpus()

    def answer(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_prob, score = np.empty(len(x), np.float32), np.empty((len(x), 2), np.float32)
        at = [pointer(a.ctypes.data) for a in (x, q, log_prob, score)]

        def task(first: int) -> None:
            last = min(len(x), first + 16_384)
            run(at[0], at[1], long(len(q)), long(first), long(last), at[2], at[3])

        if len(x) <= 16_384:
            task(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(task, range(0, len(x), 16_384)))
        return log_prob, score

    return {LIMIT: answer}


# Training ---------------------------------------------------------------------------------------


def trainers(config: Config) -> dict[str, Callable[[], float]]:
    """Each runs config.steps steps from the note's start; the mean loss of the last half."""
    rng = Xoshiro(12345)
    points, betas = notes.sample_points(rng), notes.linear_betas()
    start, half = network(rng, (2, 64, 1)), config.steps // 2
    abar = np.cumprod(1 - betas)

    def note() -> float:
        trained = notes.train(rng.copy(), points, betas, start, config.steps)
        return float(trained.losses[half:].mean())

    def by_hand() -> float:
        draw = np.random.default_rng(0)
        theta = [np.array(a, np.float64) for layer in start for a in layer]
        mean, square = [np.zeros_like(a) for a in theta], [np.zeros_like(a) for a in theta]
        losses = []
        for step in range(1, config.steps + 1):
            k, eps = draw.integers(1, 81, len(points)), draw.standard_normal(len(points))
            noised = np.sqrt(abar[k - 1]) * points + np.sqrt(1 - abar[k - 1]) * eps
            x = np.stack([noised, k], 1)
            w1, b1, w2, b2 = theta
            hidden = np.maximum(x @ w1.T + b1, 0)
            error = (hidden @ w2.T + b2)[:, 0] - eps
            losses.append(np.mean(error**2))
            out = (2 / len(points)) * error[:, None]
            back = (out @ w2) * (hidden > 0)
            gradient = [back.T @ x, back.sum(0), out.T @ hidden, out.sum(0)]
            for i, g in enumerate(gradient):
                mean[i] = 0.9 * mean[i] + 0.1 * g
                square[i] = 0.999 * square[i] + 0.001 * g * g
                root = np.sqrt(square[i] / (1 - 0.999**step)) + 1e-8
                theta[i] = theta[i] - 0.001 * mean[i] / (1 - 0.9**step) / root
        return float(np.mean(losses[half:]))

    found = {OURS: note, "NumPy by hand": by_hand, "torch, eager": torch_trainer(config, False)}
    if config.compilers and compiler("c++", "g++", "clang++"):
        found["torch.compile"] = torch_trainer(config, True)
    return found


def torch_trainer(config: Config, compiled: bool) -> Callable[[], float]:
    import torch

    rng = Xoshiro(12345)
    x0 = torch.from_numpy(notes.sample_points(rng)).float()
    start = [torch.from_numpy(np.array(a)) for layer in network(rng, (2, 64, 1)) for a in layer]
    abar = torch.from_numpy(np.cumprod(1 - notes.linear_betas())).float()

    def loss_of(net: Any, k: torch.Tensor, eps: torch.Tensor) -> torch.Tensor:
        noised = abar[k - 1].sqrt() * x0 + (1 - abar[k - 1]).sqrt() * eps
        return torch.mean((net(torch.stack([noised, k.float()], 1))[:, 0] - eps) ** 2)

    evaluate = torch.compile(loss_of, dynamic=False) if compiled else loss_of
    net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))

    def train() -> float:
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), start, strict=True):
                parameter.copy_(value)
        draw = torch.Generator().manual_seed(0)
        adam, losses = torch.optim.Adam(net.parameters(), lr=0.001), []
        for _ in range(config.steps):
            k = torch.randint(1, 81, (len(x0),), generator=draw)
            loss = evaluate(net, k, torch.randn(len(x0), generator=draw))
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.detach())
        return float(torch.stack(losses[config.steps // 2 :]).mean())

    return train


# Many networks ----------------------------------------------------------------------------------

APART = "train.train, one after another"
BATCHED = "ours, together"  # on one thread, and first: others are held to its weights


def member(width: int, k: int) -> Network:
    """Network k, from the same weights whoever trains it."""
    return Network(nets.MLP(2, widths=(width, width), seed=k), VP())


def weights(network: Network) -> np.ndarray:
    """All weights in a row."""
    return np.concatenate([value.ravel() for value in network.state().values()])


def alone(k: int, width: int, batch: int, steps: int, points: np.ndarray) -> np.ndarray:
    """The weights of network k after its training by itself on one thread."""
    import torch

    network = member(width, k)
    with torch_threads(1):
        data = torch.from_numpy(points)
        train.train(network, data, steps=steps, seed=k, batch=batch, progress=list)
    return weights(network)


def side_by_side(
    threads: int, members: int, width: int, batch: int, steps: int, points: np.ndarray
) -> np.ndarray:
    """The weights of all networks after their training together, (members, ...)."""
    import torch

    networks = [member(width, k) for k in range(members)]
    with torch_threads(threads):
        data, seeds = torch.from_numpy(points), range(members)
        ensembles.together(networks, data, steps=steps, seeds=seeds, batch=batch, progress=list)
    return np.stack([weights(network) for network in networks])


def crowds(
    config: Config, width: int, batch: int, points: np.ndarray, pool: Executor | None
) -> dict[str, Callable[[], Any]]:
    """Each trains all networks from the start and gives their weights, (members, ...)."""
    members, steps = range(config.members), config.member_steps
    one = functools.partial(alone, width=width, batch=batch, steps=steps, points=points)

    def all_of(threads: int) -> np.ndarray:
        return side_by_side(threads, len(members), width, batch, steps, points)

    found: dict[str, Callable[[], Any]] = {
        BATCHED: lambda: all_of(1),
        f"{BATCHED}, all threads": lambda: all_of(cpus()),
    }
    if pool is None:
        return found | {APART: lambda: np.stack([*map(one, members)])}
    name = f"train.train, in {config.processes} processes"
    return found | {name: lambda: np.stack([*pool.map(one, members)])}


# Sampling ---------------------------------------------------------------------------------------


def line() -> GaussianMixture:
    """The grid's shadow on the line: five equal Gaussians of standard deviation 0.1."""
    return GaussianMixture(np.ones(5), np.arange(-2.0, 3.0)[:, None], np.full((5, 1), 0.01))


class Eager:
    """The score of a mixture of equal Gaussians under a process, by tensors alone.

    Chunks that fit the cache, logits clamped where float32 would make denormal numbers of them.
    """

    def __init__(self, law: GaussianMixture, chunk: int) -> None:
        import torch

        self.means, self.var, self.chunk = torch.as_tensor(np.array(law.means)).float(), 0.01, chunk
        self.process = VP()

    def part(self, x: Any, t: float) -> Any:
        """The score at some points (n, D)."""
        step = self.process.at(t)
        m, v = step.scale * self.means, step.scale**2 * self.var + step.var
        off = [x[:, i, None] - m[:, i] for i in range(x.shape[1])]
        logits = sum(d * d for d in off) * (-0.5 / v)
        r = (logits - logits.amax(1, keepdim=True)).clamp_(min=-80.0).exp_()
        total = r.sum(1)
        import torch

        return torch.stack([-(r * d).sum(1) / (v * total) for d in off], 1)

    def score(self, x: Any, t: float) -> Any:
        """The score at all points (n, D)."""
        import torch

        return torch.cat([self.part(p, t) for p in x.split(self.chunk)])

    def drift(self, x: Any, t: float, eta: float = 1.0) -> Any:
        """f x - (1 + eta^2)/2 g^2 score."""
        f, g = self.process.drift(t), self.process.diffusion(t)
        return f * x - 0.5 * (1 + eta * eta) * g * g * self.score(x, t)


def loop(drift: Callable[..., Any], x: Any, grid: np.ndarray) -> Any:
    """Euler-Maruyama with nothing around it."""
    import torch

    draw, process = torch.Generator().manual_seed(0), VP()
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        z = torch.randn(x.shape, generator=draw)
        x = x + (s - t) * drift(x, t) + process.diffusion(t) * (t - s) ** 0.5 * z
    return x


def torchsde_alone(drift: Callable[..., Any], x: Any, grid: np.ndarray) -> Any:
    """torchsde with the noise that it brings, its cache told the step; index clock as ours."""
    import torch
    import torchsde

    process, h = VP(), float(grid[0] - grid[1])

    class Reverse:
        noise_type, sde_type = "diagonal", "ito"

        def f(self, u: Any, y: Any) -> Any:
            return -h * drift(y, float(grid[0]) - h * float(u))

        def g(self, u: Any, y: Any) -> Any:
            size = process.diffusion(float(grid[0]) - h * float(u)) * h**0.5
            return torch.full_like(y, size)

    steps = float(len(grid) - 1)
    path = torchsde.BrownianInterval(0.0, steps, tuple(x.shape), entropy=0, dt=1.0)
    ends = torch.tensor([0.0, steps], dtype=torch.float64)
    with torch.no_grad():
        return torchsde.sdeint(Reverse(), x, ends, bm=path, method="euler", dt=1.0)[-1]


def c_score(config: Config) -> Callable[..., Any] | None:
    """(x, t) -> score by the C loop, for the grid; None where there is no compiler."""
    run = built() if config.compilers else None
    if run is None:
        return None
    import torch

    means, process = np.array(gallery.grid().means), VP()
    q = np.zeros((len(means), 9), np.float32)

    def score(x: torch.Tensor, t: float) -> torch.Tensor:
        step = process.at(t)
        v = step.scale**2 * 0.01 + step.var
        q[:, 1:3], q[:, 3], q[:, 5] = step.scale * means, *[np.sqrt(0.5 / np.log(2) / v)] * 2
        q[:, 6], q[:, 8] = 1 / v, 1 / v
        points = np.ascontiguousarray(x.numpy())
        log_prob, found = np.empty(len(points), np.float32), np.empty_like(points)
        at = [ctypes.c_void_p(a.ctypes.data) for a in (points, q, log_prob, found)]

        def task(first: int) -> None:
            last = min(len(points), first + 16_384)
            long = ctypes.c_long
            run(at[0], at[1], long(len(q)), long(first), long(last), at[2], at[3])

        with ThreadPoolExecutor(cpus()) as pool:
            list(pool.map(task, range(0, len(points), 16_384)))
        return torch.from_numpy(found)

    return score


FUSED, GENERAL = "ours, all steps fused", "ours, through torchsde"


def samplers(config: Config, start: Any) -> dict[str, Callable[[], Any]]:
    """Each takes all steps and gives the points at the end."""
    law, grid = gallery.grid(), np.linspace(1.0, config.end, config.sampling_steps + 1)
    oracle, eager = Oracle(law, VP()), Eager(law, config.chunk)
    n, dim = start.shape

    def plain() -> Any:
        noise = Sequential(0, n, dim)
        return solvers.ito(eager.drift, VP().diffusion, start, grid, noise).last

    found = {
        FUSED: lambda: solvers.reverse(oracle, start, grid, 0, engine="fused").last,
        GENERAL: lambda: solvers.reverse(oracle, start, grid, 0).last,
        "bare loop, our score": lambda: loop(oracle.drift, start, grid),
        "bare loop, eager score": lambda: loop(eager.drift, start, grid),
        "torchsde with our noise, eager score": plain,
        "torchsde alone, eager score": lambda: torchsde_alone(eager.drift, start, grid),
    }
    score = c_score(config)
    if score is not None:

        def drift(x: Any, t: float) -> Any:
            g = VP().diffusion(t)
            return VP().drift(t) * x - g * g * score(x, t)

        found["bare loop, C score for this machine"] = lambda: loop(drift, start, grid)
    return found


def flows(config: Config, law: GaussianMixture, start: Any) -> dict[str, Callable[[], Any]]:
    """Each solves the flow and gives (points at the end, evaluations)."""
    import torch

    ends, tolerance = (1.0, config.end), config.tolerance
    oracle, eager = Oracle(law, VP()), Eager(law, config.chunk)

    def ours() -> Any:
        run = solvers.flow(oracle, start, ends, rtol=tolerance, atol=tolerance)
        return run.last, run.evaluations

    def by_torchdiffeq(field: Callable[..., Any]) -> Any:
        run = solvers.ode(field, start, ends, rtol=tolerance, atol=tolerance)
        return run.last, run.evaluations

    def by_scipy(field: Callable[..., Any]) -> Any:
        from scipy.integrate import solve_ivp

        def flat(t: float, y: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(y.reshape(start.shape)).float()
            return np.asarray(field(x, t).numpy().reshape(-1), np.float64)

        begin = start.numpy().reshape(-1).astype(np.float64)
        run = solve_ivp(flat, ends, begin, rtol=tolerance, atol=tolerance, method="RK45")
        return torch.from_numpy(run.y[:, -1].reshape(start.shape)), run.nfev

    velocity = functools.partial(eager.drift, eta=0.0)
    return {
        "ours: torchdiffeq on our clock, our score": ours,
        "torchdiffeq, our score": lambda: by_torchdiffeq(oracle.velocity),
        "torchdiffeq, eager score": lambda: by_torchdiffeq(velocity),
        "SciPy RK45, our score": lambda: by_scipy(oracle.velocity),
        "SciPy RK45, eager score": lambda: by_scipy(velocity),
    }


# The study --------------------------------------------------------------------------------------


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turns(
    calls: Mapping[str, Callable[[], Any]], repeats: int, run: Run, what: str
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """(milliseconds of first calls (C,), of the others (C, repeats), last answers).

    Each timed call follows one of the same contender that is not timed: else it would pay for the
    memory that its predecessor gave back to the system. To long calls that is little: they have
    one untimed call in all.
    """
    first, times = np.empty(len(calls)), np.empty((len(calls), repeats))
    answers: dict[str, Any] = {}

    def spent(call: Callable[[], Any]) -> tuple[float, Any]:
        begin = time.perf_counter()
        answer = call()
        return 1e3 * (time.perf_counter() - begin), answer

    for repeat in run.progress(repeats, what):
        for i, (name, call) in enumerate(calls.items()):
            if repeat == 0:
                first[i] = spent(call)[0]
            elif times[i, 0] < LONG:
                spent(call)
            times[i, repeat], answer = spent(call)
            if repeat == repeats - 1:
                answers[name] = answer
            del answer
    return first, times, answers


def error(answer: tuple[Any, Any], truth: tuple[np.ndarray, np.ndarray]) -> float:
    """max |answer − truth| / max(1, |truth|) over both parts; NaN if a number is not finite."""
    worst = 0.0
    for got, true in zip(answer, truth, strict=True):
        off = np.abs(np.asarray(got, np.float64)[: len(true)] - true) / np.maximum(1, np.abs(true))
        worst = max(worst, float(off.max())) if np.isfinite(off).all() else np.nan
        if not np.isfinite(worst):
            return np.nan
    return worst


def oracle_part(config: Config, run: Run) -> dict[str, Any]:
    mixture = Mixture(config, run)
    makers = (ours, torch_contenders, numpy_contenders, jax_contenders, limit)
    contenders = {k: v for make in makers for k, v in make(mixture, config).items()}
    arrays: dict[str, Any] = {"contenders": np.array(list(contenders))}

    def errors(answers: dict[str, Any], x: np.ndarray) -> np.ndarray:
        truth = mixture.truth(x[: config.checked])
        return np.array([error(answers[name], truth) for name in contenders])

    for n in config.sizes:
        x = mixture.law.sample(n, run.generator("points", n)).astype(np.float32)
        calls = {name: functools.partial(way, x) for name, way in contenders.items()}
        first, times, answers = in_turns(calls, config.repeats, run, f"{n} points")
        arrays |= {f"first_{n}": first, f"times_{n}": times, f"error_{n}": errors(answers, x)}
    angle = run.generator("far").uniform(0, 2 * np.pi, config.sizes[0])
    far = (1e3 * np.stack([np.cos(angle), np.sin(angle)], 1)).astype(np.float32)
    with np.errstate(all="ignore"):
        arrays["error_far"] = errors({k: way(far) for k, way in contenders.items()}, far)
    return arrays


def training_part(config: Config, run: Run) -> dict[str, Any]:
    calls = trainers(config)
    first, times, losses = in_turns(calls, config.training_repeats, run, "training")
    return {
        "trainers": np.array(list(calls)),
        "first_training": first / config.steps,
        "times_training": times / config.steps,
        "loss_training": np.array([losses[name] for name in calls]),
    }


@contextlib.contextmanager
def processes(config: Config) -> Iterator[Executor | None]:
    """Processes that know this file, or None."""
    if not config.processes:
        yield None
        return
    # By name, since the runner decides no number: a change of it leaves the results as they are.
    load = importlib.import_module("diffscience.runner").load
    given: Any = {"initializer": load, "initargs": (Path(__file__),)}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(config.processes, context, **given) as pool:
        yield pool


def ensembles_part(config: Config, run: Run) -> dict[str, Any]:
    """Times of a step of all networks for each width and batch, (W, B, C, repeats); how far apart
    the weights end, (W, B, C)."""
    points = gallery.two_moons().sample(10_000, run.generator("members"))
    shape = (len(config.member_widths), len(config.member_batches))
    firsts, times, apart = [], [], []
    with processes(config) as pool:
        for width in config.member_widths:
            for batch in config.member_batches:
                calls = crowds(config, width, batch, points, pool)
                what = f"{config.members} networks, {width} wide, batch {batch}"
                first, spent, ends = in_turns(calls, config.member_repeats, run, what)
                firsts.append(first / config.member_steps)
                times.append(spent / config.member_steps)
                apart.append([np.abs(ends[name] - ends[BATCHED]).max() for name in calls])
    return {
        "crowds": np.array(list(calls)),
        "first_crowds": np.reshape(firsts, (*shape, -1)),
        "times_crowds": np.reshape(times, (*shape, len(calls), -1)),
        "apart_crowds": np.reshape(apart, (*shape, -1)),
    }


def sampling_part(config: Config, run: Run) -> dict[str, Any]:
    """Times of all steps, and E|x|^2/2 of the points at the end with its standard error."""
    import torch

    law = Oracle(gallery.grid(), VP()).at(1.0)
    drawn = law.sample(config.particles, run.generator("sampling"))
    calls = samplers(config, torch.from_numpy(drawn).float())
    first, times, ends = in_turns(calls, config.sampling_repeats, run, "sampling")
    halves = [0.5 * (ends[name].double() ** 2).sum(1).numpy() for name in calls]
    off = (ends[GENERAL] - ends[FUSED]).abs()
    end = Oracle(gallery.grid(), VP()).at(config.end)
    exact = 0.5 * float(np.trace(end.cov) + np.sum(end.mean**2))
    return {
        "samplers": np.array(list(calls)),
        "first_sampling": first,
        "times_sampling": times,
        "moment": np.array([mean_and_error(h) for h in halves]),
        "moment_exact": np.array(exact),
        "engines_apart": np.array([float(off.median()), float(off.max())]),
    }


def flow_part(config: Config, run: Run, name: str, law: GaussianMixture) -> dict[str, Any]:
    """Times of the flow, evaluations, and errors (median, largest) at the first points."""
    import torch

    oracle = Oracle(law, VP())
    x = torch.from_numpy(oracle.at(1.0).sample(config.particles, run.generator("flow", name)))
    start = x.float()
    calls = flows(config, law, start)
    first, times, ends = in_turns(calls, config.sampling_repeats, run, f"flow, {name}")
    some = start[: config.checked_flow].double().numpy()
    if law.dim == 1:
        exact = oracle.flow(some, 1.0, config.end)
    else:
        exact = run.cell(f"reference {name}", _reference, oracle, some, config.end)["x"]
    errors = []
    for way in calls:
        off = np.linalg.norm(ends[way][0][: len(some)].double().numpy() - exact, axis=1)
        errors.append([np.median(off), off.max()])
    return {
        f"flows {name}": np.array(list(calls)),
        f"first_flow {name}": first,
        f"times_flow {name}": times,
        f"error_flow {name}": np.array(errors),
        f"evaluations {name}": np.array([ends[way][1] for way in calls]),
    }


def _reference(oracle: Oracle, x: np.ndarray, end: float) -> dict[str, np.ndarray]:
    return {"x": solvers.reference(oracle, x, [1.0, end])}


def compute(config: Config, run: Run) -> dict[str, Any]:
    with torch_threads(cpus()):
        arrays = oracle_part(config, run)
        arrays |= sampling_part(config, run)
        for name, law in (("plane", gallery.grid()), ("line", line())):
            arrays |= flow_part(config, run, name, law)
    with torch_threads(1):  # small networks train fastest on one thread
        arrays |= training_part(config, run)
    arrays |= ensembles_part(config, run)
    return arrays | {"cpu": np.array(cpu_model()), "cpus": np.array(cpus())}


def rows(names: np.ndarray, times: np.ndarray, first: np.ndarray) -> list[dict[str, Any]]:
    """The columns that all tables share, slowest last; the reference is the first that is ours."""
    middle = np.median(times, axis=1)
    reference = middle[next(i for i, name in enumerate(names) if name.startswith(OURS))]
    return [
        {
            "contender": names[i],
            "ms (median)": middle[i],
            "ms (min)": times[i].min(),
            "ms (max)": times[i].max(),
            "times ours": middle[i] / reference,
            "ms (first call)": first[i],
            "index": i,
        }
        for i in np.argsort(middle, kind="stable")
    ]


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    import pandas as pd

    oracle = []
    for n in config.sizes:
        found = rows(arrays["contenders"], arrays[f"times_{n}"], arrays[f"first_{n}"])
        for row in found:
            i = row.pop("index")
            row |= {"error": arrays[f"error_{n}"][i], "error far": arrays["error_far"][i]}
            oracle.append({"task": f"oracle, {n} points"} | row)
    training = []
    for row in rows(arrays["trainers"], arrays["times_training"], arrays["first_training"]):
        row |= {"steps a second": 1e3 / row["ms (median)"]}
        row |= {"loss, last half": arrays["loss_training"][row.pop("index")]}
        training.append({"task": "training, one step"} | row)
    many = []
    for (i, width), (j, batch) in itertools.product(
        enumerate(config.member_widths), enumerate(config.member_batches)
    ):
        timed = (arrays[key][i, j] for key in ("times_crowds", "first_crowds"))
        for row in rows(arrays["crowds"], *timed):
            row |= {"µs, a network's step": 1e3 * row["ms (median)"] / config.members}
            row |= {"weights apart": arrays["apart_crowds"][i, j, row.pop("index")]}
            task = f"a step of {config.members} networks"
            many.append({"task": task, "width": width, "batch": batch} | row)
    sampling, flow = [], []
    for row in rows(arrays["samplers"], arrays["times_sampling"], arrays["first_sampling"]):
        value, spread = arrays["moment"][row.pop("index")]
        row |= {"E|x|²/2": value, "±": spread, "exact": float(arrays["moment_exact"])}
        sampling.append({"task": f"{config.sampling_steps} steps of Euler-Maruyama"} | row)
    for name in ("plane", "line"):
        keys = (f"flows {name}", f"times_flow {name}", f"first_flow {name}")
        for row in rows(*(arrays[key] for key in keys)):
            i = row.pop("index")
            row |= {"evaluations": int(arrays[f"evaluations {name}"][i])}
            middle, worst = arrays[f"error_flow {name}"][i]
            row |= {"error (median)": middle, "error (largest)": worst}
            flow.append({"task": f"probability flow, {name}"} | row)
    where = {"cpu": str(arrays["cpu"]), "threads, oracle": int(arrays["cpus"])}
    apart = arrays["engines_apart"]
    where |= {"our engines apart, median": apart[0], "our engines apart, largest": apart[1]}
    where |= {"threads, training": 1}
    return {
        "": pd.DataFrame(oracle),
        "training": pd.DataFrame(training),
        "ensembles": pd.DataFrame(many),
        "sampling": pd.DataFrame(sampling),
        "flow": pd.DataFrame(flow),
        "machine": pd.DataFrame([where]),
    }


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """Oracle and training; sampling and flow."""
    threads = f"{arrays['cpu']}, threads: {arrays['cpus']}"
    tasks: list[tuple[str, str, object]]
    tasks = [
        (f"log-density and score, {n} points; {threads}", "contenders", n) for n in config.sizes
    ]
    last = f"training, one step of the note's network; {arrays['cpu']}, threads: 1"
    tasks.append((last, "trainers", "training"))
    steps = f"{config.particles} points, {config.sampling_steps} steps of Euler-Maruyama; {threads}"
    later: list[tuple[str, str, object]] = [(steps, "samplers", "sampling")]
    for name in ("plane", "line"):
        words = f"{config.particles} points, probability flow on the {name}; {threads}"
        later.append((words, f"flows {name}", f"flow {name}"))
    return {
        "": bars(arrays, tasks),
        "sampling": bars(arrays, later),
        "ensembles": crowded(config, arrays),
    }


def crowded(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Time of a network's step against the batch: a panel for each width, a line for each way.

    Medians, with bars from the fastest to the slowest.
    """
    from matplotlib.ticker import LogLocator

    widths = config.member_widths
    figure, axes = plots.figure(1, len(widths), height=4.2, share=True)
    spread = 1e3 * np.sort(arrays["times_crowds"], axis=-1) / config.members
    times = np.median(spread, axis=-1)
    mine = np.array([name.startswith(OURS) for name in arrays["crowds"]])
    for ax, width, panel, every in zip(axes[0], widths, times, spread, strict=True):
        for i, name in enumerate(arrays["crowds"]):
            line, ends = panel[:, i], every[:, i][:, [0, -1]]
            reach = np.abs(ends - line[:, None]).T
            ax.errorbar(config.member_batches, line, reach, fmt="o-", capsize=2, label=name)
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(config.member_batches, [str(n) for n in config.member_batches])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.set_xlabel("batch")
        gain = panel[:, ~mine].min(axis=1) / panel[:, mine].min(axis=1)
        ways = f"{gain.min():.2g} to {gain.max():.2g} times as fast together"
        ax.set_title(f"hidden layers {width}, {width}\n{ways}", fontsize=9)
    axes[0, 0].set_ylabel(
        f"µs, a step of one of {config.members} networks\n(median, fastest to slowest)"
    )
    plots.legend_below(figure, axes[0, 0], columns=3)
    return figure


def bars(arrays: dict[str, np.ndarray], tasks: list[tuple[str, str, object]]) -> Figure:
    """A panel of bars for each task."""
    from matplotlib.ticker import LogLocator, NullFormatter

    figure, axes = plots.figure(len(tasks), height=3.4 * len(tasks))
    for ax, (title, names, key) in zip(axes[:, 0], tasks, strict=True):
        found = rows(arrays[names], arrays[f"times_{key}"], arrays[f"first_{key}"])[::-1]
        middle = np.array([row["ms (median)"] for row in found])
        spread = [middle - [row["ms (min)"] for row in found]]
        spread += [[row["ms (max)"] for row in found] - middle]
        labels = [row["contender"] for row in found]
        mine = [label.startswith("ours") for label in labels]
        colors = [plots.COLORS[1] if own else plots.COLORS[0] for own in mine]
        colors = ["0.6" if label == LIMIT else c for label, c in zip(labels, colors, strict=True)]
        ax.barh(labels, middle, xerr=np.array(spread), color=colors, ecolor="0.3")
        for i, row in enumerate(found):
            middle_ms = row["ms (median)"]
            text = f"  {middle_ms:.0f} ms" if middle_ms >= 100 else f"  {middle_ms:.3g} ms"
            ax.annotate(text, (row["ms (max)"], i), va="center", fontsize=8)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlim(0.5 * middle.min(), 6 * max(row["ms (max)"] for row in found))
        ax.set_xlabel("milliseconds (median; lines from fastest to slowest)")
        ax.set_title(title)
    return figure


STUDY = Study(
    Config(),
    Config(
        sizes=(1_000, 20_000), repeats=3, checked=2_000, steps=20, training_repeats=3,
        particles=2_000, sampling_steps=20, sampling_repeats=2, checked_flow=200, compilers=False,
        members=8, member_widths=(16,), member_batches=(32,), member_steps=5, member_repeats=2,
        processes=0,
    ),
    compute,
    table,
    draw,
    "How long do the oracle, a training step and a sampler take, beside what else one might use?",
    alone=True,
)  # fmt: skip

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
