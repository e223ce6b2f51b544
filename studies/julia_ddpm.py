"""The note "ddpm" replayed draw by draw, why it fails, and the version that does not.

The page *Denoising diffusion probabilistic models* of R. Rosa's random_notes (CC BY 4.0; built with
Julia 1.12.1) trains a network on U = 0.1 N(-3, 1) + 0.9 N(3, 1), gets samples that miss the left
mode, changes the schedule, gets worse ones, and ends with "We need to try harder". Here both runs
come from the same random streams, and the exact model of the same chain takes the network's place
wherever a cause is to be told from another:

    the note's step     x_(k-1) = (x_k - beta_k/sqrt(1 - abar_k) eps)/sqrt(1 - beta_k) + beta_k z
    it should be        ... + sqrt(beta_k) z, or sqrt(btilde_k) z, for every k = K, ..., 1

`PUBLISHED` holds the numbers that the page prints, to be compared with and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from diffscience import bounds, gallery, grids, metrics, nets, notes, plots, samplers
from diffscience.chain import Chain
from diffscience.ensembles import together
from diffscience.errors import ArgumentError
from diffscience.estimates import Estimate, mean_and_error
from diffscience.julia import Xoshiro, network
from diffscience.models import Model, Oracle
from diffscience.network import Network
from diffscience.process import VP
from diffscience.regression import Params, apply
from diffscience.study import Run, Study, run_file
from diffscience.train import averaged

Arrays = dict[str, np.ndarray]

_PRINTED = {  # run -> epochs between two losses, and the losses as printed on the page
    "first": (
        50,
        """
        4954.146151722542 11.960118757663027 1.8538717815733554 1.1730596953348047
        1.0685916129266246 0.855112284221514 0.7459049432281369 0.6600571158186551
        0.6115033109385754 0.5164752037314564 0.42767928083481627 0.43484322635710465
        0.43214275658446916 0.35482598750891536 0.3174688932646217 0.32403858852006084
        0.2862748682905556 0.3042753822298034 0.27124121828363673 0.26418666103080246
        0.2552029689546693
    """,
    ),
    "second": (
        250,
        """
        4757.573961159425 1.0479398503588586 0.9578998066030769 0.8026084715244524
        0.7372313528400609 0.7501348396679405 0.6501434701077246 0.6622920513058729
        0.6183539152632823 0.6347250798299169 0.6275078080690096 0.6166220813508866
        0.6191777540370489 0.608400374107472 0.5770053988460424 0.5422083398696724
        0.5962286687384684 0.5488858003857224 0.6302290875696326 0.6552777095659242
        0.6092394558000195
    """,
    ),
}
PUBLISHED = {  # run -> epoch -> loss
    run: {step * i: float(loss) for i, loss in enumerate(printed.split())}
    for run, (step, printed) in _PRINTED.items()
}
PUBLISHED_FIRST_GRADIENT = 4833.970922739681

SHOWN = {"first": (1, 5, 20, 80), "second": (1, 20, 40, 80), "seed": (1, 5, 20, 40)}  # steps k


@dataclasses.dataclass(frozen=True)
class Config:
    """What is computed.

    first_epochs, second_epochs : of the published runs; seed_epochs : of the early version, K = 40.
    samples : points of each exact-oracle run; bound_points : of each Monte Carlo bound.
    networks : of the mended version, on each kind of data; mended_steps, mended_chain, ema : their
    training steps, K and decay of averaged weights; mended_samples : points drawn from each.
    refinements : numbers of steps K at which the exact model is sampled.
    """

    first_epochs: int = 1000
    second_epochs: int = 5000
    seed_epochs: int = 5000
    samples: int = 100_000
    bound_points: int = 20_000
    networks: int = 8
    mended_steps: int = 6000
    mended_chain: int = 320
    ema: float = 0.998
    mended_samples: int = 10_000
    refinements: tuple[int, ...] = (20, 40, 80, 160, 320, 640, 1280)
    seed: int = 20

    def __post_init__(self) -> None:
        least = {"first_epochs": 1, "second_epochs": 1, "seed_epochs": 1, "mended_steps": 1}
        least |= {"samples": 2, "bound_points": 2, "mended_samples": 2, "mended_chain": 4}
        least |= {"networks": 2}
        given = [(name, getattr(self, name), low) for name, low in least.items()]
        for name, value, low in given + [("refinements", K, 1) for K in self.refinements]:
            if type(value) is not int or value < low:
                raise ArgumentError(name, f"be whole and at least {low}", value)
        if not self.refinements or len(set(self.refinements)) < len(self.refinements):
            raise ArgumentError("refinements", "hold one or more different K", self.refinements)
        if not 0 <= self.ema < 1:
            raise ArgumentError("ema", "lie in [0, 1)", self.ema)


QUICK = Config(
    second_epochs=1000,
    seed_epochs=1000,
    samples=10_000,
    bound_points=2000,
    networks=2,
    mended_steps=1500,
    mended_chain=160,
    ema=0.99,
    mended_samples=2000,
    refinements=(20, 80, 320),
)


class Replayed(Model):
    """A network of the notes as a model of its chain: eps = net(x, k), with the raw k."""

    def __init__(self, params: Params, betas: np.ndarray) -> None:
        self.params, self.process = params, Chain(betas)

    def eps(self, x: np.ndarray, t: Any) -> np.ndarray:
        """The network's eps at x (n, 1) and step t."""
        k = np.broadcast_to(np.asarray(t, float), x.shape[:-1])
        return apply(self.params, np.stack([x[:, 0], k], -1))

    def x0(self, x: np.ndarray, t: Any) -> np.ndarray:
        """(x - sigma eps)/alpha."""
        step = self.process.at(t)
        return (x - math.sqrt(step.var) * self.eps(x, t)) / step.scale


def sane_chain(K: int) -> Chain:
    """K steps of a variance-preserving process that ends with abar_K = 1.0e-4, whatever K."""
    return Chain.of(VP(0.1, 18.3), np.linspace(0.0, 1.0, K + 1))


# ---------------------------------------------------------------- compute


def replay(config: Config) -> Arrays:
    """Both published runs, in the order of their streams."""
    first = notes.first_run(config.first_epochs)
    second = notes.second_run(first, config.second_epochs)
    return {
        "points": first.points,
        "checked": np.array(first.checked),
        **_run("first", first),
        **_run("second", second),
    }


def _run(name: str, run: notes.Replay) -> Arrays:
    losses_ = np.concatenate([[run.initial], run.trained.losses])
    arrays = {f"{name}_loss": losses_, f"{name}_betas": run.betas}
    arrays[f"{name}_samples"] = run.backward[0]
    arrays[f"{name}_forward_std"] = run.forward.std(axis=1)
    return arrays | _packed(name, run.trained.params)


def seed_version(config: Config) -> Arrays:
    """The early version of the note: K = 40, two hidden layers, and the sampler that it lacks.

    Its own draws came from an unseeded stream; here the data come first from Xoshiro(12345), as in
    the published version, then its forward demo, the initial weights and the training.
    """
    rng = Xoshiro(12345)
    points, betas = notes.sample_points(rng), notes.linear_betas(40, 0.02, 0.4)
    notes.forward_chain(rng, points, betas)
    start = network(rng, (2, 32, 32, 1))
    initial = notes.loss(rng, points, betas, start)
    trained = notes.train(rng, points, betas, start, config.seed_epochs, 0.01)
    backward = notes.backward_chain(rng, rng.randn(len(points)), betas, trained.params)
    return {
        "seed_loss": np.concatenate([[initial], trained.losses]),
        "seed_betas": betas,
        "seed_samples": backward[0],
        **_packed("seed", trained.params),
    }


def _packed(name: str, params: Params) -> Arrays:
    return {f"{name}_{kind}{i}": a for i, pair in enumerate(params) for kind, a in zip("wb", pair)}


def _unpacked(name: str, arrays: Arrays) -> Params:
    layers = range(sum(key.startswith(f"{name}_w") for key in arrays))
    return [(arrays[f"{name}_w{i}"], arrays[f"{name}_b{i}"]) for i in layers]


def reverse(
    model: Model, n: int, sigma: str, last_step: bool, generator: np.random.Generator
) -> np.ndarray:
    """The note's loop with its faults one by one: sigma is "beta", "sqrt beta" or "sqrt btilde"."""
    chain = model.process
    assert isinstance(chain, Chain)
    small = chain.betas * chain.var(np.arange(chain.K)) / chain.var(np.arange(1, chain.K + 1))
    std = {"beta": chain.betas, "sqrt beta": np.sqrt(chain.betas), "sqrt btilde": np.sqrt(small)}[
        sigma
    ]
    x = generator.standard_normal((n, 1))
    for k in range(chain.K, 0 if last_step else 1, -1):
        beta = chain.betas[k - 1]
        drift = x - beta / math.sqrt(chain.var(k)) * model.eps(x, float(k))
        x = drift / math.sqrt(1 - beta)
        if k > 1:  # the step to k = 0 adds no noise
            x = x + std[k - 1] * generator.standard_normal((n, 1))
    return x[:, 0]


CAUSES: tuple[tuple[str, str, str, str, bool], ...] = (
    # label, model, schedule, sigma, whether the step from 1 to 0 is made
    ("as the note samples", "exact", "first", "beta", False),
    ("+ sigma = sqrt beta", "exact", "first", "sqrt beta", False),
    ("+ last step", "exact", "first", "sqrt beta", True),
    ("+ sigma = sqrt btilde", "exact", "first", "sqrt btilde", True),
    ("+ schedule to abar = 1e-4", "exact", "sane", "sqrt btilde", True),
    ("as the note samples", "exact", "second", "beta", False),
    ("sqrt btilde, last step", "exact", "second", "sqrt btilde", True),
    ("only sigma = sqrt beta", "learned", "first", "sqrt beta", False),
    ("+ last step, btilde", "learned", "first", "sqrt btilde", True),
    ("only sigma = sqrt beta", "learned", "second", "sqrt beta", False),
    ("as the note samples", "exact", "seed", "beta", False),
    ("sqrt btilde, last step", "exact", "seed", "sqrt btilde", True),
    ("sqrt btilde, last step", "learned", "seed", "sqrt btilde", True),
)


def cause(row: int, config: Config, arrays: Arrays, generator: np.random.Generator) -> Arrays:
    """Samples of one row of `CAUSES`."""
    _, kind, schedule, sigma, last_step = CAUSES[row]
    model = _model(kind, schedule, arrays)
    return {"x": reverse(model, config.samples, sigma, last_step, generator)}


def _model(kind: str, schedule: str, arrays: Arrays) -> Model:
    chain = sane_chain(80) if schedule == "sane" else Chain(arrays[f"{schedule}_betas"])
    if kind == "exact":
        return Oracle(gallery.julia_bimodal(), chain)
    return Replayed(_unpacked(schedule, arrays), arrays[f"{schedule}_betas"])


def refinement(K: int, config: Config, generator: np.random.Generator) -> Arrays:
    """Samples of the exact model on the sane schedule with K steps of sigma^2 = btilde."""
    chain = sane_chain(K)
    oracle = Oracle(gallery.julia_bimodal(), chain)
    start = samplers.prior(chain, config.samples, 1, generator)
    x = samplers.last(samplers.ancestral(oracle, start, grids.strided(chain, K), generator))
    return {"x": x[:, 0]}


def mended(data: str, config: Config, points: np.ndarray, run: Run) -> Arrays:
    """Mended networks, trained side by side on the note's points or on fresh draws; the first
    axis is theirs."""
    chain, law = sane_chain(config.mended_chain), gallery.julia_bimodal()
    seeds = [run.seed_for("mended", data, i) for i in range(config.networks)]
    nets_of = [nets.MLP(1, widths=(64, 64), seed=seed).to(run.device) for seed in seeds]
    models = [Network(net, chain, predicts="eps") for net in nets_of]
    histories = together(
        models,
        law if data == "fresh" else torch.as_tensor(points)[:, None],
        steps=config.mended_steps,
        seeds=seeds,
        rate=3e-3,
        final_rate=1e-5,
        ema=config.ema,
        progress=lambda steps: run.progress(steps, f"mended, {data} data"),
    )
    found = []
    for model, history, seed in zip(models, histories, seeds, strict=True):
        averaged(model.net, history)
        found.append({"loss": history.losses, **of_mended(model, config, seed, run.device)})
    ks = np.array([1, 4, chain.K // 4, chain.K // 2, chain.K])
    shown = np.linspace(-8, 8, 161)[:, None]
    eps = np.stack([models[0].eps(shown, float(k))[:, 0] for k in ks])
    return {name: np.stack([one[name] for one in found]) for name in found[0]} | {
        "ks": ks,
        "eps": eps,
    }


def of_mended(model: Network, config: Config, seed: int, device: str) -> Arrays:
    """Samples of one network, its errors, and its bound at points of its own."""
    chain, law = sane_chain(config.mended_chain), gallery.julia_bimodal()
    generator = torch.Generator(device).manual_seed(seed + 1)
    start = samplers.prior(chain, config.mended_samples, 1, generator).to(torch.float32)
    states = samplers.ancestral(model, start, grids.strided(chain, chain.K), generator)
    x0 = law.sample(config.bound_points // config.networks, seed + 1)  # the bound has seed
    return {
        "x": samplers.last(states).cpu().numpy()[:, 0],
        "fisher": _fisher(model, chain),
        **_bound_arrays(bounds.bound(model, x0, seed)),
    }


def _fisher(model: Model, chain: Chain) -> np.ndarray:
    """E |eps_model - eps|^2 under p_k, exactly, at twelve steps: rows (k, error)."""
    oracle = Oracle(gallery.julia_bimodal(), chain)
    rows = []
    for k in np.unique(np.geomspace(1, chain.K, 12).round()):
        x, w = oracle.at(k).quadrature()
        rows.append((k, float(w @ np.sum((model.eps(x, k) - oracle.eps(x, k)) ** 2, axis=-1))))
    return np.array(rows)


def _bound_arrays(bound: bounds.Bound) -> Arrays:
    return {"bound": np.array([bound.L_0, bound.L_between, bound.L_K, bound.total, bound.error])}


def bound_of(schedule: str, config: Config, arrays: Arrays, seed: int) -> Arrays:
    """The variational bound of a schedule: the least, and the network's where there is one."""
    law = gallery.julia_bimodal()
    rows = []
    for mix in (0.0, 1.0):
        best = bounds.best_bound(_oracle(schedule, config, arrays), mix=mix)
        rows.append([best.L_0, best.L_between, best.L_K, best.total, 0.0])
    if schedule != "sane":
        model = Replayed(_unpacked(schedule, arrays), arrays[f"{schedule}_betas"])
        x0 = law.sample(config.bound_points, seed + 1)  # the bound has seed
        found = [bounds.bound(model, x0, seed, mix=mix) for mix in (0.0, 1.0)]
        rows += [list(_bound_arrays(bound)["bound"]) for bound in found]
        # A replayed model's process is a chain.
        return {"rows": np.array(rows), "fisher": _fisher(model, model.process)}  # type: ignore[arg-type]
    return {"rows": np.array(rows)}


def _oracle(schedule: str, config: Config, arrays: Arrays) -> Oracle:
    chain = (
        sane_chain(config.mended_chain)
        if schedule == "sane"
        else Chain(arrays[f"{schedule}_betas"])
    )
    return Oracle(gallery.julia_bimodal(), chain)


def measure(x: np.ndarray, generator: np.random.Generator) -> Arrays:
    """Mean, std, share left of 0 with its error, W1 and energy distance with their floors."""
    law = gallery.julia_bimodal()
    w1 = metrics.wasserstein_1(x[:, None], law, generator)
    energy = metrics.energy_distance(x[:, None], law, generator)
    left = float(np.mean(x < 0))
    numbers = [len(x), x.mean(), x.std(), left, math.sqrt(left * (1 - left) / len(x))]
    for e in (w1, energy):
        numbers += [e.value, e.error, e.floor, e.floor_error, e.excess()]
    return {"numbers": np.array(numbers, dtype=np.float64)}


def measure_each(x: np.ndarray, generator: np.random.Generator) -> Arrays:
    """Of the samples of each network, a row each."""
    return {"numbers": np.stack([measure(own, generator)["numbers"] for own in x])}


def compute(config: Config, run: Run) -> Arrays:
    """Every run as a cell of its own."""
    arrays = dict(run.cell("replay", replay, config))
    arrays |= run.cell("seed version", seed_version, config)
    for i in run.progress(len(CAUSES), "causes"):
        arrays[f"cause_{i}"] = run.cell(
            f"cause {i}",
            cause,
            i,
            config,
            arrays_of(arrays, CAUSES[i][2]),
            run.generator("cause", i),
        )["x"]
    for K in run.progress(config.refinements, "numbers of steps"):
        arrays[f"steps_{K}"] = run.cell(
            f"steps {K}", refinement, K, config, run.generator("steps", K)
        )["x"]
    for data in ("fresh", "points"):
        found = run.cell(f"mended {data}", mended, data, config, arrays["points"], run)
        arrays |= {f"mended_{data}_{name}": value for name, value in found.items()}
    for schedule in run.progress(("first", "second", "seed", "sane"), "bounds"):
        found = run.cell(
            f"bound {schedule}", bound_of, schedule, config, arrays_of(arrays, schedule), run.seed
        )
        arrays |= {f"bound_{schedule}_{name}": value for name, value in found.items()}
    for name in run.progress(_sampled(config), "metrics"):
        arrays[f"measured_{name}"] = run.cell(
            f"measured {name}", measure, arrays[name], run.generator("measure", name)
        )["numbers"]
    for name in run.progress(("mended_points_x", "mended_fresh_x"), "metrics of networks"):
        arrays[f"measured_{name}"] = run.cell(
            f"measured {name}", measure_each, arrays[name], run.generator("measure", name)
        )["numbers"]
    return arrays


def arrays_of(arrays: Arrays, schedule: str) -> Arrays:
    """The replayed network of one schedule, and nothing else: what a cell depends on."""
    return {
        k: v
        for k, v in arrays.items()
        if k.startswith(f"{schedule}_") and k[len(schedule) + 1] in "wb"
    }


def _sampled(config: Config) -> list[str]:
    names = ["points", "first_samples", "second_samples", "seed_samples"]
    names += [f"cause_{i}" for i in range(len(CAUSES))]
    return names + [f"steps_{K}" for K in config.refinements]


# ---------------------------------------------------------------- tables


def table(config: Config, arrays: Arrays) -> dict[str, pd.DataFrame]:
    """ "" the losses beside the published ones; samples, steps and bound as named."""
    return {
        "": _losses(config, arrays),
        "samples": _samples(config, arrays),
        "steps": pd.DataFrame(
            [{"steps K": K, **_metrics(arrays[f"measured_steps_{K}"])} for K in config.refinements]
        ),
        "bound": _bounds(arrays),
    }


def _losses(config: Config, arrays: Arrays) -> pd.DataFrame:
    rows = [("first", "first gradient", float(arrays["checked"]), PUBLISHED_FIRST_GRADIENT)]
    for name, printed in PUBLISHED.items():
        loss = arrays[f"{name}_loss"]
        if name == "second" and config.first_epochs != 1000:
            continue  # its stream goes on where the first run's ends
        rows += [(name, str(e), float(loss[e]), p) for e, p in printed.items() if e < len(loss)]
    frame = pd.DataFrame(rows, columns=["run", "epoch", "loss", "published"])
    frame["relative difference"] = (frame["loss"] / frame["published"] - 1).abs()
    loss = arrays["seed_loss"]
    epochs = range(0, len(loss), max(1, (len(loss) - 1) // 5))
    seed = pd.DataFrame(
        [("seed version", str(e), float(loss[e])) for e in epochs], columns=["run", "epoch", "loss"]
    )
    joined = pd.concat([frame, seed], ignore_index=True)
    joined.attrs["digits"] = {"loss": 16, "published": 16, "relative difference": 2}
    return joined


def _metrics(numbers: np.ndarray) -> dict[str, float]:
    names = ["n", "mean", "std", "P(x < 0)", "its error"]
    for metric in ("W1", "energy"):
        names += [
            metric,
            f"{metric} error",
            f"{metric} floor",
            f"{metric} floor spread",
            f"{metric} excess",
        ]
    return dict(zip(names, numbers)) | {"n": int(numbers[0])}


def _metrics_of_networks(numbers: np.ndarray) -> dict[str, float]:
    """Means over the networks, with errors over them; a floor is that of one network's samples."""
    found = _metrics(np.mean(numbers, axis=0)) | {"networks": len(numbers)}
    found["its error"] = mean_and_error(numbers[:, 3])[1]
    for metric, column in (("W1", 5), ("energy", 10)):
        error = found[f"{metric} error"] = mean_and_error(numbers[:, column])[1]
        floor, spread = found[f"{metric} floor"], found[f"{metric} floor spread"]
        estimate = Estimate(found[metric], error, floor, spread / math.sqrt(len(numbers)))
        found[f"{metric} excess"] = estimate.excess()
    return found


def _samples(config: Config, arrays: Arrays) -> pd.DataFrame:
    law = gallery.julia_bimodal()
    exact = {
        "samples of": "the truth",
        "mean": float(law.mean[0]),
        "std": math.sqrt(float(law.cov[0, 0])),
        "P(x < 0)": float(law.cdf([0.0])),
    }
    rows: list[dict[str, Any]] = [
        exact,
        {"samples of": "the data", **_metrics(arrays["measured_points"])},
    ]
    for name, label in (("first", "first run"), ("second", "second run"), ("seed", "seed version")):
        measured = _metrics(arrays[f"measured_{name}_samples"])
        rows.append({"samples of": label, "model": "learned", "schedule": name, **measured})
    for name in ("first", "second"):
        rows.append(
            {
                "samples of": "x_K of the forward demo, noise times beta",
                "schedule": name,
                "std": arrays[f"{name}_forward_std"][-1],
            }
        )
    for i, (label, kind, schedule, _, _) in enumerate(CAUSES):
        rows.append(
            {
                "samples of": label,
                "model": kind,
                "schedule": schedule,
                **_metrics(arrays[f"measured_cause_{i}"]),
            }
        )
    for data, label in (
        ("points", "mended, the note's 1024 points"),
        ("fresh", "mended, fresh data"),
    ):
        rows.append(
            {
                "samples of": label,
                "model": "learned",
                "schedule": f"sane, K = {config.mended_chain}",
                **_metrics_of_networks(arrays[f"measured_mended_{data}_x"]),
            }
        )
    frame = pd.DataFrame(rows)
    first = ["samples of", "model", "schedule", "networks", "n"]
    frame = frame.astype({"n": "Int64", "networks": "Int64"})
    return frame[[*first, *[c for c in frame.columns if c not in first]]]


def _bounds(arrays: Arrays) -> pd.DataFrame:
    law = gallery.julia_bimodal()
    rows: list[dict[str, Any]] = [
        {"schedule": "", "model": "entropy of the law", "total": law.entropy()}
    ]

    def row(schedule: str, model: str, variance: str, values: Sequence[float]) -> None:
        names = ("L_0", "L_1 ... L_(K-1)", "L_K", "total", "error")
        rows.append(
            {"schedule": schedule, "model": model, "variance": variance, **dict(zip(names, values))}
        )

    for schedule in ("first", "second", "seed", "sane"):
        for i, values in enumerate(arrays[f"bound_{schedule}_rows"]):
            row(
                schedule, "learned" if i > 1 else "best possible", ("btilde", "beta")[i % 2], values
            )
    for data in ("points", "fresh"):
        values, errors = mean_and_error(arrays[f"mended_{data}_bound"])
        row("sane", f"mended, {data}", "btilde", [*values[:-1], errors[-2]])
    frame = pd.DataFrame(rows)
    frame["bits"] = frame["total"] / math.log(2)
    return frame


# ---------------------------------------------------------------- figures

_LEARNED, _EXACT, _MENDED = plots.COLORS[1], "black", plots.COLORS[0]


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """The story in one figure, then losses, eps, causes and the number of steps."""
    return {
        "": _story(config, arrays),
        "losses": _draw_losses(config, arrays),
        "eps": _draw_eps(config, arrays),
        "causes": _draw_causes(config, arrays),
        "mended": _draw_mended(config, arrays),
    }


def _story(config: Config, arrays: Arrays) -> Figure:
    fig, axes = plots.figure(2, 2, height=5.8)
    law = gallery.julia_bimodal()
    panels = (
        ("first_samples", "first run of the note", _LEARNED),
        ("second_samples", "second run of the note", _LEARNED),
        ("seed_samples", "its early version, K = 40", _LEARNED),
        ("mended_fresh_x", f"mended, K = {config.mended_chain}", _MENDED),
    )
    for ax, (name, title, color) in zip(axes.flat, panels):
        x, measured = arrays[name], arrays[f"measured_{name}"]
        several = measured.ndim == 2
        m = _metrics_of_networks(measured) if several else _metrics(measured)
        x = x[0] if several else x
        plots.histogram_beside_density(
            ax, x, law, bins=70, limits=(-7, 7), color=color, label=f"{len(x)} samples"
        )
        outside = np.mean(np.abs(x) > 7)
        title += f" (one of {len(measured)} networks)" if several else ""
        error = f" ± {m['W1 error']:.1g} (mean)" if several else ""
        ax.set_title(f"{title}\nW1 {m['W1']:.3g}{error}, floor {m['W1 floor']:.2g}", fontsize=10)
        text = f"std {m['std']:.4g}\nP(x < 0) {m['P(x < 0)']:.3f}"
        text += f"\n{outside:.1%} outside" if outside else ""
        ax.text(0.03, 0.95, text, transform=ax.transAxes, va="top", fontsize=9)
        ax.set_xlabel("x")
        ax.set_ylabel("density")
    axes[0, 0].legend(loc="upper left", bbox_to_anchor=(0.0, 0.72))
    axes[1, 1].legend(loc="upper left", bbox_to_anchor=(0.0, 0.72))
    return fig


def _draw_losses(config: Config, arrays: Arrays) -> Figure:
    fig, axes = plots.figure(1, 3, height=3.2)
    for ax, (name, title) in zip(
        axes[0],
        (("first", "first run"), ("second", "second run"), ("seed", "seed version, K = 40")),
    ):
        loss = arrays[f"{name}_loss"]
        best = _best_simple(arrays[f"{name}_betas"])
        ax.plot(np.arange(len(loss)), loss, color=_MENDED, lw=0.7, label="replayed")
        printed = {e: p for e, p in PUBLISHED.get(name, {}).items() if e < len(loss)}
        if printed:
            ax.plot(
                list(printed),
                list(printed.values()),
                "o",
                color=plots.COLORS[2],
                ms=3.5,
                label="published",
            )
        ax.axhline(best, color="black", lw=1, ls="--", label=f"least possible, {best:.3f}")
        ax.set(yscale="log", title=title, xlabel="epoch", ylim=(0.5 * best, 1e4))
        ax.legend(loc="upper right")
    axes[0, 0].set_ylabel("L_simple")
    return fig


def _best_simple(betas: np.ndarray) -> float:
    oracle = Oracle(gallery.julia_bimodal(), Chain(betas))
    return float(np.mean([bounds.best_simple(oracle, float(k)) for k in range(1, len(betas) + 1)]))


def _draw_eps(config: Config, arrays: Arrays) -> Figure:
    fig, axes = plots.figure(4, 4, height=8.2)
    x = np.linspace(-8, 8, 161)[:, None]
    chains = {name: Chain(arrays[f"{name}_betas"]) for name in SHOWN}
    curves = {
        name: [
            Replayed(_unpacked(name, arrays), arrays[f"{name}_betas"]).eps(x, float(k))[:, 0]
            for k in ks
        ]
        for name, ks in SHOWN.items()
    }
    ks = {name: list(k) for name, k in SHOWN.items()}
    chains["mended"] = sane_chain(config.mended_chain)
    picked = [0, 2, 3, 4]
    curves["mended"] = list(arrays["mended_fresh_eps"][picked])
    ks["mended"] = [int(k) for k in arrays["mended_fresh_ks"][picked]]
    titles = {
        "first": "first run",
        "second": "second run",
        "seed": "seed version",
        "mended": "mended",
    }
    for row, name in zip(axes, titles):
        oracle = Oracle(gallery.julia_bimodal(), chains[name])
        for ax, k, learned in zip(row, ks[name], curves[name]):
            density = np.exp(oracle.log_prob(x, float(k)))
            ax.fill_between(
                x[:, 0],
                -4,
                -4 + 3 * density / density.max(),
                color="0.88",
                lw=0,
                label="p_k (scaled)",
            )
            ax.plot(x[:, 0], oracle.eps(x, float(k))[:, 0], color=_EXACT, lw=1.3, label="exact")
            ax.plot(
                x[:, 0],
                learned,
                color=_MENDED if name == "mended" else plots.COLORS[2],
                lw=1.3,
                label="network",
            )
            ax.set(xlim=(-8, 8), ylim=(-4, 4), title=f"{titles[name]}, k = {k}")
        row[0].set_ylabel("eps(x, k)")
    for ax in axes[-1]:
        ax.set_xlabel("x")
    axes[0, 0].legend(loc="upper left", fontsize=8)
    return fig


def _draw_causes(config: Config, arrays: Arrays) -> Figure:
    fig, axes = plots.figure(1, 2, height=5.2)
    rows = [
        (f"{label}", kind, schedule, _metrics(arrays[f"measured_cause_{i}"]))
        for i, (label, kind, schedule, _, _) in enumerate(CAUSES)
    ]
    y = np.arange(len(rows))[::-1]
    colors = [_EXACT if kind == "exact" else _LEARNED for _, kind, _, _ in rows]
    law = gallery.julia_bimodal()
    true_std, true_left = math.sqrt(float(law.cov[0, 0])), float(law.cdf([0.0]))
    for ax, key, truth, label in (
        (axes[0, 0], "W1", rows[0][3]["W1 floor"], "Wasserstein-1 to the truth"),
        (axes[0, 1], "P(x < 0)", true_left, "share of samples left of 0"),
    ):
        values = np.array([m[key] for *_, m in rows])
        errors = np.array([m["W1 error" if key == "W1" else "its error"] for *_, m in rows])
        ax.errorbar(values, y, xerr=errors, fmt="none", ecolor="0.6", lw=1, zorder=1)
        ax.scatter(values, y, c=colors, s=26, zorder=2)
        ax.axvline(
            truth, color=plots.COLORS[2], ls="--", lw=1.2, label="floor" if key == "W1" else "truth"
        )
        ax.set(xlabel=label, ylim=(-0.7, len(rows) - 0.3))
        ax.legend(loc="lower right")
    axes[0, 0].set_xscale("log")
    names = {"first": "run 1", "second": "run 2", "seed": "seed", "sane": "sane"}
    axes[0, 0].set_yticks(y, [f"{names[schedule]}: {label}" for label, _, schedule, _ in rows])
    axes[0, 1].set_yticks(y, [f"std {m['std']:.3g}" for *_, m in rows])
    fig.suptitle(
        f"Sampler faults, one by one (black: exact eps, orange: the note's network; "
        f"true std {true_std:.3f})",
        fontsize=10,
    )
    return fig


def _draw_mended(config: Config, arrays: Arrays) -> Figure:
    fig, axes = plots.figure(1, 2, height=3.6)
    ax = axes[0, 0]
    rows = [_metrics(arrays[f"measured_steps_{K}"]) for K in config.refinements]
    K = np.array(config.refinements)
    w1 = np.array([m["W1"] for m in rows])
    ax.errorbar(
        K, w1, yerr=[m["W1 error"] for m in rows], fmt="o-", color=_EXACT, ms=4, label="exact eps"
    )
    floor, spread = rows[0]["W1 floor"], rows[0]["W1 floor spread"]
    ax.axhspan(max(floor - spread, 1e-4), floor + spread, color=plots.COLORS[2], alpha=0.2, lw=0)
    ax.axhline(floor, color=plots.COLORS[2], ls="--", lw=1.2, label=f"floor at n = {rows[0]['n']}")
    ax.plot(K, w1[0] * K[0] / K, color="0.6", lw=1, ls=":", label="1/K")
    ax.set(xscale="log", yscale="log", xlabel="steps K, sigma^2 = btilde", ylabel="Wasserstein-1")
    ax.set_xticks(K, [str(k) for k in K])
    ax.set_xticks([], minor=True)
    ax.set_title("Discretisation of the reverse chain")
    ax.legend()
    ax = axes[0, 1]
    for name, label, color in (
        ("bound_first_fisher", "first run", plots.COLORS[2]),
        ("bound_second_fisher", "second run", _LEARNED),
        ("bound_seed_fisher", "seed version", plots.COLORS[3]),
        ("mended_fresh_fisher", "mended", _MENDED),
    ):
        found = arrays[name]
        if found.ndim == 3:
            label += f", {len(found)} networks"
            ax.errorbar(*_shared(found), fmt="o-", color=color, ms=3, label=label)
            continue
        k, error = found.T
        ax.plot(k / k.max(), error, "o-", color=color, ms=3, label=label)
    high = ax.get_ylim()[1]
    ax.set(yscale="log", xlabel="k/K", ylabel="E |eps_net - eps|^2 under p_k")
    ax.set_title("Error of the networks, by quadrature")
    ax.legend(loc="upper center", ncols=2)
    ax.set_ylim(top=20 * high)
    return fig


def _shared(found: np.ndarray) -> tuple[np.ndarray, Any, Any]:
    """k/K, and means and errors over networks of the errors (S, n, 2) that they share k of."""
    k = found[0, :, 0]
    return k / k.max(), *mean_and_error(found[:, :, 1])


STUDY = Study(
    config=Config(),
    quick=QUICK,
    compute=compute,
    table=table,
    draw=draw,
    question="Why does the Julia note's DDPM miss the left mode, and what mends it?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
