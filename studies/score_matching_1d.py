"""Which objectives find the score of 0.1 N(-3, 1) + 0.9 N(3, 1), and from how many points?

The objectives of `losses` for one network of x train on the same points; beside each fit stands
what its objective converges to, which is the exact score s for the consistent ones and another
function, known too, for the rest:

    explicit, implicit, sliced          s
    finite differences                  s + O(delta^2), see `differenced`
    denoising sigma                     s_sigma, the score of p_sigma = p * N(0, sigma^2)
    Parzen h                            s_h, the score of p_h
    Kingma-LeCun lambda                 the psi of  psi - 2 lambda (psi'' + s psi') = s

    relative Fisher error               E_q |psi - target|^2 / E_q |target|^2,  by quadrature
    recovered density                   exp(int psi) / Z on [-10, 10], and KL(p | recovered)

q is p where the target is s, and for `error, own limit` the law of the points that the objective
sees. Left out are `multilevel`, which the study ncsn trains, the objectives in continuous time, and
all sliced forms but one: in one dimension signs and the sphere are v = +-1, which makes them the
implicit or the explicit objective. `sliced` has Gaussian v.

Rows share data: member k of all objectives has the same points, and those of a smaller size are
the first of a larger one. Everything else is a draw of its own for every objective, size and
member: initial weights, batches, and at every step the noise or the directions. All networks of one
objective train at once, stacked; each sees nothing but its own points.

The same target is that of four pages of R. Rosa's random_notes (CC BY 4.0; built with Julia
1.12.1): *1D finite-difference score matching*, *Score matching with Parzen estimation*, *Score
matching a neural network* and *Denoising score matching of Pascal Vincent*. Their trainings are
replayed from their random streams; `PUBLISHED` holds what they print, to be compared with and
nothing else. The noise of the last page came from an unseeded stream: there ours is another draw.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from diffscience import gallery, losses, nets, notes, plots, scorenotes
from diffscience.errors import ArgumentError, number, whole
from diffscience.estimates import mean_and_error
from diffscience.julia import Xoshiro, network, span
from diffscience.regression import Adam, Params, apply, relu, sigmoid
from diffscience.study import Run, Study, run_file
from diffscience.targets import Target
from diffscience.train import averaged, fit
from diffscience.transition import Transition

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

Arrays = dict[str, np.ndarray]
Seeds = Callable[..., int]  # `Run.seed_for`: a seed for every key

LAW = gallery.julia_bimodal()
LINE = np.linspace(-10.0, 10.0, 2001)  # where fits are kept and densities recovered
GRID = 200  # points of the notes' grid on [-10, 10]

PRINTED = 25  # epochs between two printed losses
_PRINTED = {  # run -> the loss of epoch 1 where the page shows it, else nan; then every 25 epochs
    "explicit, weighted": """
        0.05891430321572992
        0.011484647476584184 0.0010892008543654456 0.0005139587301049121 0.0003048078681800926
        0.00022010774832755456 0.00016877845539167637 0.00013389781166276758
        0.00010710671033748542 8.837107175303617e-5 7.325462539288798e-5 6.075454121212702e-5
        6.519539827046248e-5 5.080965209395447e-5 4.499543672433463e-5 4.107296801645077e-5
        3.753088421206525e-5 3.427673849087842e-5 3.128626629962772e-5 2.856143813023042e-5
        2.6069196946524126e-5
    """,
    "explicit, plain": """
        6.2528048955176025
        1.1143287173808216 0.6205280419218188 0.32544911126408366 0.1710433824918761
        0.11396855990773959 0.08977222267758472 0.07414964239800347 0.06208636363763847
        0.052722900480855595 0.04509877044198144 0.03915099306002895 0.034118094277221955
        0.03472436665426661 0.02919968691985968 0.02425868074860777 0.02138890586961945
        0.019181660521026083 0.017489529179635404 0.016001324149431055 0.01425827694051816
    """,
    "differences, grid": """
        0.00510874380657287
        -0.018614018488740797 -0.023813179554128247 -0.024092143080255847 -0.02419494535460953
        -0.024240916453391156 -0.024267346116293057 -0.024284249143792003 -0.024297095733649313
        -0.024308211705183807 -0.024315596351141243 -0.024321496737331944 -0.024321372316381637
        -0.024327671166778794 -0.024331920194604548 -0.024334697882427526 -0.024336853420801087
        -0.02433463366479651 -0.02433717576079263 -0.024338191812142456 -0.0243391619743789
    """,
    "differences, grid, on": """
        nan
        -0.024336056076074294 -0.0243410742556927 -0.024342017805526382 -0.024330182528856367
        -0.024340313035580204 -0.024344204557304433 -0.02434481425285506 -0.024345444444349242
        -0.024344854500703582 -0.024346313966187947 -0.024346212833022917 -0.024347147021435093
        -0.024347559436250027 -0.024094172899427172 -0.02434726337346666 -0.02434762170922898
        -0.024348712909202163 -0.02434899638532974 -0.02434919378039356 -0.024237451317891203
    """,
    "differences, sample": """
        0.11494219313979222
        -0.35961054035246726 -0.4551765519086538 -0.4637960763447525 -0.46541639141792585
        -0.46440229493835966 -0.46505629593826653 -0.4646927348307835 -0.46542044207357663
        -0.465324725184812 -0.4656559359113997 -0.4649428554451408 -0.46457362593439777
        -0.46505688461762273 -0.46533166373245266 -0.46659489714388475 -0.46651713064562467
        -0.46655590358253773 -0.4663559473146156 -0.4668261558201798 -0.4670447795697106
    """,
    "differences, pre-trained": """
        nan
        -0.40840829540697654 -0.45839653803847796 -0.4652597211560801 -0.46585038494415626
        -0.4663084024154143 -0.4667541288434689 -0.4671830176420521 -0.4678322578316065
        -0.46800295087892546 -0.4680941506706185 -0.46801694166125085 -0.46835968628380975
        -0.46852757620996616 -0.46849941847366045 -0.4684963914745495 -0.46819020963134167
        -0.46870317306619164 -0.4683444546608004 -0.46870841003097646 -0.46857195722115036
    """,
    "differences, 128 points": """
        nan
        -0.3838705443928865 -0.48887835459085494 -0.4967438326023362 -0.4981079964280764
        -0.4993105142721118 -0.5003832554392386 -0.5012980845567676 -0.5020789173624373
        -0.5027828483131915 -0.5035585908567416 -0.5044853614854157 -0.5058446337324545
        -0.5077990566217403 -0.5104631091100137 -0.5198160534910374 -0.5317397867431113
        -0.5392019630318063 -0.5562426060026169 -0.564099250178824 -0.575856080338598
    """,
    "Parzen": """
        0.9676230699994186
        0.3146751538692399 0.14475783539036852 0.04822871096088892 0.01422081589813772
        0.007780503754661453 0.005983948559172082 0.005365842308950139 0.005176360564815512
        0.005055584121408747 0.004969020452845882 0.004903591148776164 0.004846139113962426
        0.004793438006817945 0.004743980275946228 0.004696628294573014 0.004651043999609307
        0.004606712599424626 0.004563380058778279 0.004520931298427852 0.004482978076567467
    """,
    "implicit": """
        nan
        -0.04234274469272623 -0.08655327756298944 -0.1343044751296767 -0.1822974429563777
        -0.23317269908345162 -0.2859906581469113 -0.33422448787548115 -0.3719440547320392
        -0.3971120315839102 -0.41164380228232034 -0.41910760882592435 -0.42270944750978817
        -0.42452865608774315 -0.4256025051363679 -0.42635755388429913 -0.42698558082228516
        -0.4276392603294295 -0.4285093672297579 -0.4297164300927001 -0.4310780220137994
    """,
    "implicit, Kingma-LeCun": """
        nan
        -0.04172276502849598 -0.08420411328978389 -0.12865008000448544 -0.17142795361066704
        -0.21490748944281216 -0.2575269557327344 -0.2940412402890374 -0.32071721916715445
        -0.33736093613057677 -0.3464020903520449 -0.3508801473267845 -0.3531123917051732
        -0.3544217533225459 -0.3554098746522306 -0.35630157707193555 -0.35717279047013045
        -0.3580561931510393 -0.3589723573430019 -0.3599356306741516 -0.3609567221719558
    """,
    "denoising": """
        5.753983413410022
        5.490694994578582 5.411018088033561 5.366161486046216 5.349692989318008
        5.344661337361436 5.3427350409095915 5.341208180768765 5.340844349396627
        5.3406587303000865 5.340497241277021 5.340339649884561 5.340102702177624
        5.339372582664066 5.338481038512005 5.337603304167694 5.336665694737605
        5.335643781956049 5.33453568692666 5.333349510246203 5.332096933358944
    """,
}
PUBLISHED = {  # run -> epoch -> loss
    run: {
        max(1, PRINTED * i): float(loss)
        for i, loss in enumerate(printed.split())
        if not math.isnan(float(loss))
    }
    for run, printed in _PRINTED.items()
}
PUBLISHED_ENDS = {  # run -> psi(-10), psi(10) after 500 epochs, as printed
    "explicit, weighted": (6.99703, -7.00277),
    "explicit, plain": (7.00132, -6.99112),
    "differences, grid, on": (7.28941, -7.20665),
    "differences, sample": (5.90841, -6.64694),
    "differences, pre-trained": (6.08112, -6.83517),
    "differences, 128 points": (7.31557, -4.67879),
    "Parzen": (5.97032, -5.44701),
    "implicit": (0.297973, -2.70999),
    "implicit, Kingma-LeCun": (0.508823, -2.23776),
    "denoising": (6.38197, -5.88251),
}
UNSEEDED = "denoising"  # the run whose noise the page draws from an unseeded stream
CONTINUED = ("differences, grid, on", "differences, pre-trained")  # second halves of 500 + 500
PAGE_EPOCHS = 500


@dataclass(frozen=True)
class Config:
    """What is computed.

    Parameters
    ----------
    sizes : increasing numbers of points; seeds : data sets, and networks, of each size, called
        members in the code.
    widths : hidden layers of `nets.Score`; batch, steps, rate, final_rate, ema : see `train.fit`.
    delta : of the finite differences, at most 0.1: there `differenced` gives the error to 2 %.
    penalty : lambda of Kingma and LeCun.
    bandwidths : of the Parzen estimates; sigmas : of denoising.
    note_epochs : epochs of every replayed run, a multiple of 25; the pages have 500.
    overfit_sizes, overfit_steps : of the trainings on all of a few points.
    cost_points, cost_repeats : points of a timed step, timed blocks of steps.
    frames : of the animation.
    """

    sizes: tuple[int, ...] = (256, 1024, 4096, 16384, 65536)
    seeds: int = 8
    widths: tuple[int, ...] = (32, 32)
    batch: int = 128
    steps: int = 2000
    rate: float = 5e-3
    final_rate: float = 5e-5
    ema: float = 0.99
    delta: float = 0.05
    penalty: float = 0.1
    bandwidths: tuple[float, ...] = (0.5, 0.2)
    sigmas: tuple[float, ...] = (0.3, 0.1)
    note_epochs: int = 500
    overfit_sizes: tuple[int, ...] = (64, 256)
    overfit_steps: int = 2500
    cost_points: int = 1024
    cost_repeats: int = 7
    frames: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        least = {"seeds": 2, "batch": 1, "steps": 1, "overfit_steps": 10, "note_epochs": 1}
        least |= {"cost_points": 2, "cost_repeats": 1, "frames": 2}
        for name, low in least.items():
            whole(name, getattr(self, name), low)
        for name in ("sizes", "overfit_sizes"):
            sizes = getattr(self, name)
            for n in sizes:
                whole(name, n, 2)
            if not sizes or list(sizes) != sorted(set(sizes)):
                raise ArgumentError(name, "be one or more increasing numbers", sizes)
        for name in ("rate", "final_rate", "penalty"):
            number(name, getattr(self, name), 0, ends="()")
        number("delta", self.delta, 0, 0.1, "(]")
        for name in ("bandwidths", "sigmas"):
            values = getattr(self, name)
            for value in values:
                number(name, value, 0, ends="()")
            if not values or len({f"{v:g}" for v in values}) < len(values):
                raise ArgumentError(name, "be one or more different numbers", values)
        if self.note_epochs % PRINTED:
            raise ArgumentError("note_epochs", f"be a multiple of {PRINTED}", self.note_epochs)


QUICK = Config(
    sizes=(256, 1024),
    seeds=3,
    widths=(16, 16),
    batch=128,
    steps=60,
    rate=2e-2,
    final_rate=1e-3,
    ema=0.9,
    note_epochs=25,
    bandwidths=(0.5,),
    sigmas=(0.3,),
    overfit_sizes=(64,),
    overfit_steps=60,
    cost_points=256,
    cost_repeats=2,
    frames=3,
)


# The objectives -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """One row of the comparison.

    Parameters
    ----------
    kind : a name in `KINDS`.
    value : sigma, bandwidth, penalty or delta, 0 where there is none.
    """

    kind: str
    value: float = 0.0

    @property
    def name(self) -> str:
        """The kind, with its number where that is the point of it."""
        return f"{self.kind} {self.value:g}" if self.kind in INCONSISTENT else self.kind


GRIDDED = "explicit on the grid"
DIFFERENCES = "finite differences"
KINDS = ("explicit", GRIDDED, "implicit", "sliced", DIFFERENCES)
INCONSISTENT = ("denoising", "Parzen", "Kingma-LeCun")


def objectives(config: Config) -> list[Objective]:
    """All rows, the consistent ones first."""
    return [
        *(Objective(kind) for kind in KINDS[:-1]),
        Objective(KINDS[-1], config.delta),
        *(Objective("denoising", sigma) for sigma in config.sigmas),
        *(Objective("Parzen", h) for h in config.bandwidths),
        Objective("Kingma-LeCun", config.penalty),
    ]


def regularised(law: Target, penalty: float, x: np.ndarray = LINE) -> np.ndarray:
    """The psi on the nodes x (n,) that minimises E[psi' + psi^2/2 + penalty psi'^2] under a law.

    Its Euler equation psi - 2 penalty (psi'' + s psi') = s, that is p (psi - s) = 2 penalty
    (p psi')', by finite volumes with no flux through the ends.
    """
    from scipy.linalg import solve_banded

    h = x[1] - x[0]
    log_p = law.log_prob(x[:, None])
    middle = law.log_prob(0.5 * (x[1:] + x[:-1])[:, None])
    c = 2 * penalty / (h * h)
    right = np.append(c * np.exp(middle - log_p[:-1]), 0.0)
    left = np.append(0.0, c * np.exp(middle - log_p[1:]))
    bands = np.stack([np.append(0.0, -right[:-1]), 1 + right + left, np.append(-left[1:], 0.0)])
    return np.asarray(solve_banded((1, 1), bands, law.score(x[:, None])[:, 0]))


TERMS = 6  # of A^-1; with delta = 0.05 the error that it gives is known to five digits


def differenced(law: Target, delta: float, x: np.ndarray) -> np.ndarray:
    """The smooth psi at x (n,) that minimises E[D psi + (A psi)^2/2] under a law, to O(delta^12).

        A f(x) = (f(x + delta) + f(x - delta))/2,  D f(x) = (f(x + delta) - f(x - delta))/(2 delta)
        A (p A psi) = D p,  so that  psi = A^-1 (D A^-1 p / p),  A^-1 = sum_n (1 - A)^n
        psi = s - delta^2 (s''/2 + p'''/(3 p)) + O(delta^4)

    Anything that changes its sign over 2 delta may be added, which no smooth network does. The sum
    is asymptotic: p has zeros beside the real line.
    """
    inverse, power = np.zeros(2 * TERMS - 1), np.ones(1)  # A^-1 as weights of shifts by delta
    for n in range(TERMS):
        inverse[TERMS - 1 - n : TERMS + n] += power
        power = np.convolve(power, [-0.5, 1.0, -0.5])
    shifts = delta * np.arange(1 - TERMS, TERMS)
    y = x[:, None] + shifts
    log_p = law.log_prob(y[..., None])[..., None]
    ahead, behind = (
        np.exp(law.log_prob((y[..., None] + shifts + side)[..., None]) - log_p) @ inverse
        for side in (delta, -delta)
    )
    return np.asarray((ahead - behind) / (2 * delta) @ inverse)


def limit(law: Target, objective: Objective, x: np.ndarray) -> np.ndarray:
    """What the objective converges to, at x (n,)."""
    if objective.kind == "Kingma-LeCun":
        return np.interp(x, LINE, regularised(law, objective.value))
    if objective.kind == DIFFERENCES:
        return differenced(law, objective.value, x)
    if objective.kind in INCONSISTENT:
        law = law.blurred(objective.value)
    return law.score(x[:, None])[:, 0]


def seen(law: Target, objective: Objective) -> Target:
    """The law of the points at which the objective compares."""
    return law.blurred(objective.value) if objective.kind == "denoising" else law


def everywhere(stack: nets.Stack, x: np.ndarray) -> np.ndarray:
    """The answers of all networks at x (n,), (M, n)."""
    with torch.no_grad():
        return stack.at(_column(x))[..., 0].double().numpy()


def _column(x: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, float)).to(dtype)[:, None]


# Computing: the notes -----------------------------------------------------------------------------


def differences(
    x: torch.Tensor, delta: float, weights: torch.Tensor | float = 1.0
) -> scorenotes.Objective:
    """mean w (psi' + psi^2/2), psi and psi' from psi(x +- delta), in the notes' order."""

    def objective(net: scorenotes.Net) -> torch.Tensor:
        forward, backward = net(x + delta), net(x - delta)
        psi, slope = (backward + forward) / 2, (forward - backward) / (2 * delta)
        return (weights * (slope + psi**2 / 2)).mean()

    return objective


def square(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | float) -> Any:
    """mean w (psi - y)^2: without the half that `losses.explicit` has."""
    return lambda net: (weights * (net(x) - y) ** 2).mean()


def replay(config: Config) -> Arrays:
    """All trainings of the four pages: losses, fits on `LINE`, and the frames of two of them.

    The seeds are those of the pages. Two pages draw the network after the points, once for sigmoid
    layers (gain 1), once for relu (gain 2): the same numbers of the stream.
    """
    rng = Xoshiro(12345)
    points = notes.sample_points(rng)
    soft = network(rng.copy(), (1, 8, 1), gain=1.0)
    start = network(rng, (1, 8, 1))
    noise = rng.copy().randn(len(points))  # the page's own came from an unseeded stream
    few = notes.sample_points(rng, 128)
    grid, double = span(-10, 10, GRID), torch.float64
    density = _column(np.exp(LAW.log_prob(grid[:, None])), double)
    score = _column(LAW.score(grid[:, None])[:, 0], double)
    x, g = _column(points, double), _column(grid, double)
    weighted, plain = square(g, score, density), square(g, score, 1.0)
    on_grid = differences(g, 20 / (2 * GRID), density)
    on_sample = differences(x, np.ptp(points) / (2 * len(points)))
    on_few = differences(_column(few, double), np.ptp(few) / (2 * len(few)))
    kernel = gallery.empirical(points[:, None]).blurred(0.5)
    parzen = square(x, _column(kernel.score(points[:, None])[:, 0], double), 1.0)
    noised = _column(points + NOISE * noise, double)
    denoising = square(noised, _column(-noise / NOISE, double), 0.5)
    mean, error = first_loss(start, points)
    out: Arrays = {"first loss": np.array(mean), "first loss error": np.array(error)}

    def go(name: str, adam: Adam, objective: Any, layer: Layer = RECTIFIED) -> Adam:
        frames = frames_of(config) if name in FILMED else []
        run = scorenotes.train(adam, objective, config.note_epochs, layer[0], frames)
        out[f"note {name} losses"] = run.losses
        out[f"note {name} fit"] = curve(run.params, layer)
        if frames:
            film = np.stack([curve(run.snapshots[e]) for e in frames])
            out[f"note {name} film"] = film
            out[f"note {name} film density"] = np.exp([recovered(psi) for psi in film])
        return adam

    explicit = go("explicit, weighted", Adam(start, 0.03), weighted)
    go("explicit, plain", Adam(start, 0.03), plain)
    halfway = go("differences, grid", Adam(start, 0.03), on_grid)
    go("differences, grid, on", halfway, on_grid)
    go("differences, sample", Adam(start, 0.03), on_sample)
    go("differences, pre-trained", copy.deepcopy(explicit), on_sample)
    go("differences, 128 points", Adam(start, 0.03), on_few)
    go("Parzen", Adam(start, 0.01), parzen)
    for name, penalty in (("implicit", 0.0), ("implicit, Kingma-LeCun", 0.1)):
        go(name, Adam(soft, 0.01), _implicit(x, penalty), SIGMOID)
    go(UNSEEDED, Adam(start, 0.01), denoising)
    return out


def first_loss(start: Params, points: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation, over the noise alone, of the first denoising loss of the page.

    1/(2 n) sum_i (psi(x_i + sigma z_i) + z_i/sigma)^2 with the page's n points and network: by
    quadrature over each z_i.
    """
    z, w = np.polynomial.hermite_e.hermegauss(80)
    psi = apply(start, (points[:, None] + NOISE * z)[..., None])[..., 0]
    rows, w = 0.5 * (psi + z / NOISE) ** 2, w / w.sum()
    mean = rows @ w
    variance = (rows - mean[:, None]) ** 2 @ w
    return float(mean.mean()), float(np.sqrt(variance.sum()) / len(points))


def _implicit(x: torch.Tensor, penalty: float) -> scorenotes.Objective:
    return lambda net: losses.implicit(net, x, penalty).mean()


Layer = tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[np.ndarray], np.ndarray]]
RECTIFIED: Layer = (torch.relu, relu)
SIGMOID: Layer = (torch.sigmoid, sigmoid)
NOISE = 0.3  # sigma of the page on denoising
FILMED = ("differences, sample", "differences, 128 points")


def frames_of(config: Config) -> list[int]:
    """Epochs of the animation, closer together at the beginning."""
    spaced = 1 + (config.note_epochs - 1) * np.linspace(0, 1, config.frames) ** 2
    return [int(e) for e in np.unique(np.round(spaced))]


def curve(params: Params, layer: Layer = RECTIFIED) -> np.ndarray:
    """psi on `LINE`, (n,)."""
    return apply(params, LINE[:, None], layer[1])[:, 0]


# Computing: all objectives ------------------------------------------------------------------------


def whole_sets(config: Config, seed_for: Seeds) -> list[np.ndarray]:
    """The largest data set of every member, (n,) each; smaller ones are its first points."""
    n = max(*config.sizes, *config.overfit_sizes)
    streams = [np.random.default_rng(seed_for("points", k)) for k in range(config.seeds)]
    return [LAW.sample(n, stream)[:, 0] for stream in streams]


def sets_of(config: Config, objective: Objective, seed_for: Seeds) -> list[np.ndarray]:
    """A data set for each size and member; on the grid there is one size, and the same for all."""
    if objective.kind == GRIDDED:
        return [span(-10, 10, GRID)] * config.seeds
    return [points[:n] for n in config.sizes for points in whole_sets(config, seed_for)]


def parzen_score(points: np.ndarray, bandwidth: float) -> np.ndarray:
    """The score of the points' Parzen estimate at the points, by cubic interpolation.

    Between nodes of a tenth of a bandwidth; the estimate is smooth on the scale of the bandwidth.
    """
    from scipy.interpolate import CubicSpline

    law = gallery.empirical(points[:, None]).blurred(bandwidth)
    low, high = points.min(), points.max()
    nodes = np.linspace(low, high, 2 + math.ceil(10 * (high - low) / bandwidth))
    return np.asarray(CubicSpline(nodes, law.score(nodes[:, None])[:, 0])(points))


def rows_of(
    config: Config, objective: Objective, sets: list[np.ndarray], device: str = "cpu"
) -> tuple[torch.Tensor, Callable[..., torch.Tensor]]:
    """(all points below each other, rows of the objective) for a stack with a network for each set.

    Each network draws its batch from its own set, with replacement.
    """
    points = np.concatenate(sets)
    sizes = np.array([len(x) for x in sets])
    first = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)
    count = torch.from_numpy(sizes).double().to(device)
    kind, value = objective.kind, objective.value
    target, weights = torch.zeros(0), None
    if kind.startswith("explicit"):
        target = _column(LAW.score(points[:, None])[:, 0])
    elif kind == "Parzen":
        target = _column(np.concatenate([parzen_score(x, value) for x in sets]))
    if kind == GRIDDED:
        cell = np.diff(span(-10, 10, GRID)).mean() * GRID
        weights = _column(cell * np.exp(LAW.log_prob(points[:, None])))[:, 0].to(device)
    target = target.to(device)

    def rows(net: nets.Stack, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if weights is not None:  # the sets are the grid, the same for all
            pick = torch.arange(len(x), device=device).reshape(net.size, -1).T.reshape(-1)
            return net.size * losses.explicit(net, x[pick], target[pick], weights[pick])
        size = (config.batch, net.size)
        u = torch.rand(size, generator=generator, dtype=torch.float64, device=device)
        pick = (torch.floor(u * count).long() + first).reshape(-1)
        # The mean over all rows is the mean over the networks: times M, each has its own.
        return net.size * part(net, x[pick], pick, generator)

    def part(
        net: nets.Stack, x: torch.Tensor, pick: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        if kind in ("explicit", "Parzen"):
            return losses.explicit(net, x, target[pick])
        if kind == DIFFERENCES:
            return losses.finite_difference(net, x, value)
        if kind == "sliced":
            v = losses.directions(len(x), 1, generator, "gaussian")
            return losses.sliced(net, x, v.to(x))
        if kind == "denoising":
            z = torch.randn(x.shape, generator=generator, device=device)
            return losses.denoising_at(net, x, z, Transition(1.0, value**2))
        return losses.implicit(net, x, value if kind == "Kingma-LeCun" else 0.0)

    return _column(points).to(device), rows


def networks(config: Config, count: int, seed_for: Seeds, *key: str | int) -> nets.Stack:
    """`count` networks side by side, with initial weights of their own."""
    seeds = [seed_for(*key, "weights", k) for k in range(count)]
    return nets.Stack([nets.Score(1, config.widths, seed) for seed in seeds])


def trained(
    config: Config, objective: Objective, seed_for: Seeds, progress: Any, device: str = "cpu"
) -> Arrays:
    """Fits and recovered densities on `LINE` (sizes, seeds, n), and (sizes, seeds) what they miss:
    relative errors, KL and mass below 0."""
    sets = sets_of(config, objective, seed_for)
    points, rows = rows_of(config, objective, sets, device)
    net = networks(config, len(sets), seed_for, objective.name).to(device)
    history = fit(
        net,
        points,
        rows,
        steps=config.steps,
        seed=seed_for(objective.name, "batches"),
        batch=None,
        rate=config.rate,
        final_rate=config.final_rate,
        ema=config.ema,
        progress=progress,
    )
    averaged(net, history)
    net.cpu()
    fits = everywhere(net, LINE)
    log_q = np.stack([recovered(psi) for psi in fits])
    kl, left = np.array([divergence(LAW, row) for row in log_q]).T
    error = fisher(partial(everywhere, net), LAW, Objective("explicit"), LAW)
    own = fisher(partial(everywhere, net), LAW, objective, seen(LAW, objective))
    lines = {"fit": fits, "density": np.exp(log_q)}
    numbers = {"error": error, "own": own, "kl": kl, "left": left}
    shape = (-1, config.seeds)
    return {
        **{key: y.reshape(*shape, len(LINE)).astype(np.float32) for key, y in lines.items()},
        **{key: value.reshape(shape) for key, value in numbers.items()},
    }


def fisher(psi: Callable[[np.ndarray], np.ndarray], law: Target, to: Objective, q: Target) -> Any:
    """E_q |psi - t|^2 / E_q |t|^2 with t what `to` converges to; psi: (n,) -> (..., n)."""
    x, w = q.quadrature()
    target = limit(law, to, x[:, 0])
    return (psi(x[:, 0]) - target) ** 2 @ w / (target**2 @ w)


def integral(y: np.ndarray) -> float:
    """Over consecutive nodes of `LINE`, by the trapezoidal rule."""
    return float((LINE[1] - LINE[0]) * (y.sum() - 0.5 * (y[0] + y[-1])))


def recovered(psi: np.ndarray) -> np.ndarray:
    """log of exp(int psi)/Z on `LINE`, by the trapezoidal rule."""
    h = LINE[1] - LINE[0]
    log_q = np.concatenate([[0.0], np.cumsum(0.5 * h * (psi[1:] + psi[:-1]))])
    log_q -= log_q.max()
    return np.asarray(log_q - np.log(integral(np.exp(log_q))))


def divergence(law: Target, log_q: np.ndarray) -> tuple[float, float]:
    """(KL(p | q) in nats, mass of q below 0) of a density on `LINE`."""
    log_p = law.log_prob(LINE[:, None])
    below = LINE <= 1e-9
    kl = integral(np.exp(log_p) * (log_p - log_q))
    return kl, integral(np.exp(log_q[below]))


# Computing: few points ----------------------------------------------------------------------------


def looks(config: Config) -> list[int]:
    """Steps at which the overfit is looked at."""
    spaced = np.geomspace(1, config.overfit_steps, 40)
    return [0, *(int(s) for s in np.unique(np.round(spaced)))]


def overfit(
    config: Config, n: int, penalty: float, seed_for: Seeds, progress: Any, device: str = "cpu"
) -> Arrays:
    """The implicit objective on the points and under p, (looks, seeds), trained on all n points."""
    seeds, key = config.seeds, ("overfit", n, f"{penalty:g}")
    points = np.stack([points[:n] for points in whole_sets(config, seed_for)], 1)
    net = networks(config, seeds, seed_for, *key).to(device)
    x, (nodes, weights) = _column(points.ravel()), LAW.quadrature()
    near = weights > 1e-12
    weights = weights[near]
    every = _column(np.repeat(nodes[near, 0], seeds))
    history = fit(
        net,
        x.to(device),
        lambda net, x, _: seeds * losses.implicit(net, x, penalty),
        steps=config.overfit_steps,
        seed=seed_for(*key, "batches"),
        batch=None,
        rate=config.rate,
        snapshots=looks(config),
        progress=progress,
    )
    if history.interrupted:
        raise KeyboardInterrupt
    net.cpu()
    train, true = [], []
    for step in looks(config):
        net.load_state_dict(history.snapshots[step])
        on_points, under_p = (
            losses.implicit(net, where).detach().reshape(-1, seeds).double().numpy()
            for where in (x, every)
        )
        train.append(on_points.mean(0))
        true.append(weights @ under_p)
    return {"train": np.stack(train), "true": np.stack(true)}


# Computing: what a step costs ---------------------------------------------------------------------


def cost(config: Config, seed_for: Seeds) -> Arrays:
    """Milliseconds on the CPU of a step of every objective, loss, gradient and Adam, (objectives,
    repeats)."""
    config = replace(config, batch=config.cost_points, sizes=(config.cost_points,))
    found = []
    for objective in objectives(config):
        x, rows = rows_of(config, objective, sets_of(config, objective, seed_for)[:1])
        net = networks(config, 1, seed_for, "cost", objective.name)
        generator = torch.Generator().manual_seed(seed_for("cost", objective.name, "batches"))
        step = partial(one_step, net, x, rows, generator)
        step(3)
        found.append([step(10) for _ in range(config.cost_repeats)])
    return {"cost": np.array(found)}


def one_step(
    net: nets.Stack,
    x: torch.Tensor,
    rows: Callable[..., torch.Tensor],
    generator: torch.Generator,
    count: int,
) -> float:
    """Milliseconds of one of `count` steps."""
    adam = torch.optim.Adam(net.parameters())
    begin = time.perf_counter()
    for _ in range(count):
        adam.zero_grad()
        rows(net, x, generator).mean().backward()
        adam.step()
    return 1e3 * (time.perf_counter() - begin) / count


def compute(config: Config, run: Run) -> dict[str, Any]:
    """The pages, all objectives, few points, and the clock."""
    arrays: dict[str, Any] = run.cell("notes", replay, config)
    arrays["density"] = np.exp(LAW.log_prob(LINE[:, None]))
    arrays["score"] = LAW.score(LINE[:, None])[:, 0]
    arrays["least"] = -losses.explicit_constant(LAW)
    curves = np.stack([arrays[f"note {name} fit"] for name in PUBLISHED])
    arrays["note error"] = fisher(lambda x: _sampled(curves, x), LAW, Objective("explicit"), LAW)
    arrays["note kl"] = np.array([divergence(LAW, recovered(psi)) for psi in curves])
    for objective in run.progress(objectives(config), "objectives"):
        name = objective.name
        bar = partial(run.progress, description=name)
        given = (config, objective, run.seed_for, bar, run.device)
        found = run.cell(f"fit {name}", trained, *given)
        found |= reached(objective)
        arrays |= {f"{name} {key}": value for key, value in found.items()}
    for n in config.overfit_sizes:
        for penalty in (0.0, config.penalty):
            key = f"overfit {n} {penalty:g}"
            bar = partial(run.progress, description=key)
            few = (config, n, penalty, run.seed_for, bar, run.device)
            found = run.cell(key, overfit, *few)
            arrays |= {f"{key} {name}": value for name, value in found.items()}
    return arrays | run.cell("cost", cost, config, run.seed_for)


def reached(objective: Objective) -> Arrays:
    """What the objective converges to on `LINE`, its density, and (error, KL, mass below 0)."""
    exact = limit(LAW, objective, LINE)
    log_q = recovered(exact)
    error = fisher(partial(limit, LAW, objective), LAW, Objective("explicit"), LAW)
    numbers = np.array([error, *divergence(LAW, log_q)])
    return {"limit": exact, "limit density": np.exp(log_q), "limit numbers": numbers}


def _sampled(curves: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Curves on `LINE`, (m, n), at x; the quadrature reaches a little beyond the line's ends."""
    return np.stack([np.interp(x, LINE, psi) for psi in curves])


# Tables -------------------------------------------------------------------------------------------

# What the project asks of a replay: losses within 1e-5 relative until rounding chaos sets in. Here
# it never does: pages with relu agree to 2e-14, those with sigmoid to 1.4e-7, to the last epoch.
AGREE = 1e-5


def main_table(config: Config, arrays: Arrays) -> list[dict[str, Any]]:
    """A row for each objective and size, and one for what the objective converges to.

    Mean and standard error over seeds; with few points both hang on one seed, and so the least and
    the largest stand beside them.
    """
    measures = {
        "Fisher error": "error",
        "error, own limit": "own",
        "KL / nats": "kl",
        "mass below 0": "left",
    }
    rows = []
    for objective in objectives(config):
        name = objective.name
        sizes: tuple[int, ...] = (GRID,) if objective.kind == GRIDDED else config.sizes
        for i, n in enumerate(sizes):
            row: dict[str, Any] = {"objective": name, "points": str(n), "seeds": config.seeds}
            for words, key in measures.items():
                values, short = arrays[f"{name} {key}"][i], words.split(" / ")[0]
                row[words], row[f"{short} ±"] = mean_and_error(values)
                if key in ("error", "kl"):
                    row[f"{short}, least"], row[f"{short}, largest"] = values.min(), values.max()
            rows.append(row)
        exact: dict[str, Any] = {"objective": name, "points": "limit, exact"}
        error, kl, left = arrays[f"{name} limit numbers"].tolist()
        rows.append(exact | dict(zip(measures, (error, 0.0, kl, left))))
    return rows


def reproducible(config: Config, run: str) -> bool:
    """Whether the page's numbers can come out: not from other noise or from another first half."""
    return run != UNSEEDED and (config.note_epochs == PAGE_EPOCHS or run not in CONTINUED)


def compared(config: Config, arrays: Arrays, run: str) -> list[tuple[int, float, float]]:
    """(epoch, our loss, published loss) of a run, as far as it goes."""
    ours = arrays[f"note {run} losses"]
    return [(e, float(ours[e - 1]), loss) for e, loss in PUBLISHED[run].items() if e <= len(ours)]


def agrees_to(config: Config, arrays: Arrays, run: str) -> int | None:
    """The last printed epoch until which all losses agree; None where they cannot."""
    if not reproducible(config, run):
        return None
    last = 0
    for epoch, ours, loss in compared(config, arrays, run):
        if abs(ours / loss - 1) > AGREE:
            break
        last = epoch
    return last


def losses_table(config: Config, arrays: Arrays) -> list[dict[str, Any]]:
    """Every printed loss beside ours."""
    return [
        {
            "run": run,
            "epoch": epoch,
            "loss": ours,
            "published": loss,
            "relative difference": abs(ours / loss - 1),
            "agrees to epoch": agrees_to(config, arrays, run),
        }
        for run in PUBLISHED
        if reproducible(config, run) or run == UNSEEDED
        for epoch, ours, loss in compared(config, arrays, run)
    ]


def errors_off(arrays: Arrays) -> float:
    """(the page's first loss of the unseeded run - its mean over the noise) / standard deviation.

    The points are the page's own, and so only the noise is averaged over (see `first_loss`).
    """
    return float((PUBLISHED[UNSEEDED][1] - arrays["first loss"]) / arrays["first loss error"])


def notes_table(config: Config, arrays: Arrays) -> list[dict[str, Any]]:
    """What the pages' runs reach, and whether their printed numbers come out."""
    rows = []
    for i, run in enumerate(PUBLISHED):
        fit_ = arrays[f"note {run} fit"]
        ends = PUBLISHED_ENDS.get(run, (None, None))
        full = config.note_epochs == PAGE_EPOCHS
        row: dict[str, Any] = {
            "run": run,
            "noise": "another draw" if run == UNSEEDED else "none drawn",
            "epochs": config.note_epochs,
            "last loss": float(arrays[f"note {run} losses"][-1]),
            "agrees to epoch": agrees_to(config, arrays, run),
            "page's first loss, deviations off": errors_off(arrays) if run == UNSEEDED else None,
            "psi(-10)": fit_[0],
            "published psi(-10)": ends[0] if full else None,
            "psi(10)": fit_[-1],
            "published psi(10)": ends[1] if full else None,
            "Fisher error": float(arrays["note error"][i]),
        }
        kl, left = arrays["note kl"][i].tolist()
        rows.append(row | {"KL / nats": kl, "mass below 0": left})
    return rows


def overfit_table(config: Config, arrays: Arrays) -> list[dict[str, Any]]:
    """Where the objective under p is least along a training on few points, and where it ends.

    The best step is that of the mean over the same seeds that the mean there is taken over: among
    40 steps looked at, it flatters the best a little.
    """
    rows = []
    steps = looks(config)
    for n in config.overfit_sizes:
        for penalty in (0.0, config.penalty):
            true = arrays[f"overfit {n} {penalty:g} true"]
            train = arrays[f"overfit {n} {penalty:g} train"]
            best = true.mean(1).argmin()
            row: dict[str, Any] = {"points": n, "penalty": penalty, "seeds": config.seeds}
            row |= {"best step": steps[best], "last step": steps[-1]}
            for words, values in (
                ("under p, best", true[best]),
                ("under p, last", true[-1]),
                ("on the points, last", train[-1]),
            ):
                row[words], row[f"{words} ±"] = mean_and_error(values)
            rows.append(row | {"least possible under p": float(arrays["least"])})
    return rows


def table(config: Config, arrays: Arrays) -> dict[str, DataFrame]:
    """All objectives; printed losses; the pages' runs; few points; milliseconds a step."""
    import pandas as pd

    times = arrays["cost"]
    reference = np.median(times[0])
    costs = [
        {
            "objective": objective.name,
            "points": GRID if objective.kind == GRIDDED else config.cost_points,
            "ms a step (median)": np.median(row),
            "ms (min)": row.min(),
            "ms (max)": row.max(),
            "times explicit": np.median(row) / reference,
        }
        for objective, row in zip(objectives(config), times, strict=True)
    ]
    tables = {
        "": pd.DataFrame(main_table(config, arrays)),
        "losses": pd.DataFrame(losses_table(config, arrays)),
        "notes": pd.DataFrame(notes_table(config, arrays)),
        "overfit": pd.DataFrame(overfit_table(config, arrays)),
        "cost": pd.DataFrame(costs),
    }
    for found in tables.values():
        for column in {"seeds", "agrees to epoch"} & set(found):
            found[column] = found[column].astype("Int64")
    tables["losses"].attrs["digits"] = {"loss": 12, "published": 12, "relative difference": 2}
    digits = {"psi(-10)": 6, "published psi(-10)": 6, "psi(10)": 6, "published psi(10)": 6}
    tables["notes"].attrs["digits"] = digits | {"last loss": 6}
    tables["cost"].attrs["digits"] = {"times explicit": 2}
    return tables


# Figures ------------------------------------------------------------------------------------------

FEW, MANY, EXACT, LIMIT = plots.COLORS[1], plots.COLORS[0], "black", plots.COLORS[2]
ON_GRID = plots.COLORS[4]


def shown() -> np.ndarray:
    """Places of `LINE` that are drawn: every fifth of those with |x| <= 7."""
    return np.flatnonzero(np.abs(LINE) <= 7.001)[::5]


def lattice(config: Config, ylabel: str) -> tuple[Figure, list[Axes]]:
    """(figure, a panel for each objective)."""
    count = len(objectives(config))
    rows = -(-count // 2)
    fig, axes = plots.figure(rows, 2, height=1.1 + 1.7 * rows, share=True)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel(ylabel)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    axes[0, 0].set(xlim=(-7, 7), xticks=(-6, -3, 0, 3, 6))
    return fig, list(axes.flat[:count])


def percent(value: float) -> str:
    """Such as 0.35 %."""
    return f"{100 * value:.2g} %" if value < 0.995 else f"{100 * value:.0f} %"


def members(
    ax: Axes, config: Config, objective: Objective, found: np.ndarray, near: np.ndarray
) -> None:
    """Lines on `LINE` of every member, with the fewest points and with the most."""
    seeds = f"{config.seeds} seeds"
    lines = [(found[-1], MANY, 1.8, f"{config.sizes[-1]} points, {seeds}")]
    if objective.kind == GRIDDED:
        lines = [(found[0], ON_GRID, 1.8, f"{GRID} nodes of a grid, {seeds}")]
    elif len(found) > 1:
        lines.insert(0, (found[0], FEW, 0.8, f"{config.sizes[0]} points, {seeds}"))
    for rows, color, width, label in lines:
        for row in rows:
            ax.plot(LINE[near], row[near], color=color, linewidth=width, label=label)


def fits(config: Config, arrays: Arrays) -> Figure:
    """Fits over the exact score, the density beneath, a panel for each objective."""
    fig, panels = lattice(config, "ψ(x)")
    near, bottom = shown(), -6.5
    x, density = LINE[near], arrays["density"][near]
    for ax, objective in zip(panels, objectives(config), strict=True):
        name = objective.name
        ax.fill_between(
            x, bottom, bottom + 6 * density, color="0.85", linewidth=0, label="density (scaled)"
        )
        members(ax, config, objective, arrays[f"{name} fit"], near)
        ax.plot(x, arrays["score"][near], color=EXACT, linewidth=1.0, label="exact score")
        if objective.kind in INCONSISTENT:
            ax.plot(
                x, arrays[f"{name} limit"][near], "--", color=LIMIT, linewidth=1.0,
                label="exact limit of the objective",
            )  # fmt: skip
        error = mean_and_error(arrays[f"{name} error"][-1])[0]
        ax.set_title(f"{name}: {percent(error)}", fontsize=10)
    panels[0].set(ylim=(bottom, 6.5), yticks=(-5, 0, 5))
    plots.legend_below(fig, *panels, columns=3)
    fig.suptitle(
        "Fits of the score by objective, and the relative Fisher error with the most points",
        fontsize=11,
    )
    return fig


def densities(config: Config, arrays: Arrays) -> Figure:
    """Densities recovered from the fits, a panel for each objective."""
    fig, panels = lattice(config, "density")
    near = shown()
    x = LINE[near]
    for ax, objective in zip(panels, objectives(config), strict=True):
        name = objective.name
        members(ax, config, objective, arrays[f"{name} density"], near)
        ax.plot(x, arrays["density"][near], color=EXACT, linewidth=1.0, label="exact density")
        if objective.kind in INCONSISTENT:
            ax.plot(
                x, arrays[f"{name} limit density"][near], "--", color=LIMIT, linewidth=1.0,
                label="from the objective's exact limit",
            )  # fmt: skip
        kl = mean_and_error(arrays[f"{name} kl"][-1])[0]
        ax.set_title(f"{name}: KL {kl:.2g}", fontsize=10)
    panels[0].set(ylim=(0, 0.6), yticks=(0, 0.2, 0.4, 0.6))
    plots.legend_below(fig, *panels, columns=3)
    fig.suptitle(
        "Densities exp(∫ψ)/Z recovered from the fits, and KL(p | recovered) in nats, most points",
        fontsize=11,
    )
    return fig


def errors(config: Config, arrays: Arrays) -> Figure:
    """The relative Fisher error against the number of points."""
    fig, axes = plots.figure(1, 2, height=4.6, share=True)
    kinds: list[list[Objective]] = [[], []]
    for objective in objectives(config):
        kinds[objective.kind in INCONSISTENT].append(objective)
    off = arrays[f"{DIFFERENCES} limit numbers"][0]
    titles = f"limit: the score (finite differences: {off:.1g} off)", "limit: another function"
    for ax, group, title in zip(axes[0], kinds, titles, strict=True):
        for i, objective in enumerate(group):
            place = 1.06 ** (i - len(group) / 2)
            look = {"color": plots.COLORS[i % len(plots.COLORS)], "label": objective.name}
            against_points(ax, config, objective, arrays, place, look, "osD^vP"[i % 6])
        ax.axhline(0.05, color=EXACT, linewidth=1.0)
        ax.annotate(
            "5 %", (0.985, 0.05), xycoords=("axes fraction", "data"), ha="right", va="bottom",
            fontsize=9,
        )  # fmt: skip
        ax.set(xlabel="points", xscale="log", yscale="log")
        ax.set_title(title, fontsize=10)
        ax.set_xticks(config.sizes, [str(n) for n in config.sizes])
        ax.minorticks_off()
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    axes[0, 0].set_ylabel("relative Fisher error")
    fig.suptitle(
        f"Error against the exact score (mean and range of {config.seeds} seeds; dashed: exact "
        "limits)",
        fontsize=11,
    )
    return fig


def against_points(
    ax: Axes,
    config: Config,
    objective: Objective,
    arrays: Arrays,
    place: float,
    look: dict[str, Any],
    marker: str,
) -> None:
    """Mean and range over seeds by size, and the exact limit; a band for the grid."""
    found = arrays[f"{objective.name} error"]
    low, mean, high = found.min(1), found.mean(1), found.max(1)
    if objective.kind == GRIDDED:
        ax.axhspan(low[0], high[0], color=look["color"], alpha=0.25, linewidth=0)
        ax.axhline(mean[0], linestyle=":", **look)
        return
    bars = (mean - low, high - mean)
    n = np.array(config.sizes) * place
    ax.errorbar(n, mean, bars, marker=marker, capsize=2, markersize=4.5, **look)
    if objective.kind in INCONSISTENT:
        exact = arrays[f"{objective.name} limit numbers"][0]
        ax.axhline(exact, color=look["color"], linestyle="--", linewidth=1.0)


PANELS: dict[str, tuple[str, ...]] = {
    "explicit": ("explicit, weighted", "explicit, plain", "Parzen"),
    "finite differences on the grid": ("differences, grid", "differences, grid, on"),
    "finite differences on points": (
        "differences, sample",
        "differences, pre-trained",
        "differences, 128 points",
    ),
    "implicit, one sigmoid layer": ("implicit", "implicit, Kingma-LeCun"),
    "denoising (noise unseeded: ours is another draw)": (UNSEEDED,),
}


COLOR_OF = dict(zip(PUBLISHED, [*plots.COLORS, "0.2"]))


def histories(config: Config, arrays: Arrays) -> Figure:
    """Losses of all replayed runs beside the printed ones, and their differences."""
    fig, axes = plots.figure(3, 2, height=9.0)
    epochs = np.arange(1, config.note_epochs + 1)
    for ax, (title, runs) in zip(axes.flat, PANELS.items(), strict=False):
        for run in runs:
            losses_ = arrays[f"note {run} losses"]
            ax.plot(epochs, losses_, color=COLOR_OF[run], linewidth=1.2, label=run)
        for run in runs:
            if reproducible(config, run) or run == UNSEEDED:
                known = [(e, loss) for e, _, loss in compared(config, arrays, run)]
                ax.plot(*np.array(known).T, "o", color=EXACT, markersize=2.6, label="published")
        ax.set(ylabel="loss")
        ax.set_title(title, fontsize=10)
    axes[0, 0].set_yscale("log")
    axes[0, 0].minorticks_off()
    cut(axes[1, 0], CUT)
    gaps(axes[2, 1], config, arrays)
    for ax in axes[-1]:
        ax.set_xlabel("epoch")
    plots.legend_below(fig, *axes.flat, columns=3)
    fig.suptitle("The notes' trainings, replayed from their streams", fontsize=11)
    return fig


CUT = 0.2  # above the first published loss of the panel


def cut(ax: Axes, top: float) -> None:
    """Leave out what lies above, and say so where something does."""
    highest = max(np.max(np.asarray(line.get_ydata(), float)) for line in ax.get_lines())
    if highest > top:
        ax.set_ylim(top=top)
        words = f"cut; highest {highest:.2g}"
        ax.annotate(words, (0.98, 0.96), xycoords="axes fraction", ha="right", va="top", fontsize=9)


def gaps(ax: Axes, config: Config, arrays: Arrays) -> None:
    """Relative differences from the published losses of all seeded runs."""
    for run in PUBLISHED:
        if reproducible(config, run):
            known = [(e, abs(a / b - 1)) for e, a, b in compared(config, arrays, run)]
            e, off = np.array(known).T
            ax.plot(
                e, np.maximum(off, 1e-17), "o-", color=COLOR_OF[run], markersize=2.6,
                linewidth=0.8, label=run,
            )  # fmt: skip
    ax.axhline(AGREE, color=EXACT, linewidth=1.0)
    ax.axhline(2.0**-24, color="0.5", linewidth=1.0, linestyle=":")
    for y, words in ((AGREE, "the project's tolerance"), (3e-7, "dotted: half a unit of float32")):
        ax.annotate(words, (config.note_epochs, y), ha="right", va="bottom", fontsize=9)
    ax.set(yscale="log", ylim=(1e-17, 1e-3), ylabel="relative difference")
    ax.set_yticks([10.0**k for k in range(-16, -2, 4)])
    ax.minorticks_off()
    ax.set_title("difference from the pages (bottom: none)", fontsize=10)


START = 0.3  # where step 0 stands on a logarithmic axis


def few_points(config: Config, arrays: Arrays) -> Figure:
    """The implicit objective on the points and under p along the training on few points."""
    height = 0.4 + 3.1 * len(config.overfit_sizes)
    fig, axes = plots.figure(len(config.overfit_sizes), 2, height=height)
    steps = np.maximum(looks(config), START)
    least = float(arrays["least"])
    powers = [10**k for k in range(int(math.log10(config.overfit_steps)) + 1)]
    for row, n in zip(axes, config.overfit_sizes, strict=True):
        for ax, penalty in zip(row, (0.0, config.penalty), strict=True):
            for key, color, label in (
                ("train", MANY, "on the points"),
                ("true", FEW, "under p (quadrature)"),
            ):
                values = arrays[f"overfit {n} {penalty:g} {key}"]
                ax.plot(steps, values, color=color, linewidth=0.6, alpha=0.6)
                ax.plot(steps, values.mean(1), color=color, linewidth=2.2, label=label)
            ax.axhline(least, color=EXACT, linestyle="--", linewidth=1.0, label="least under p")
            words = f", λ = {penalty:g}" if penalty else ", no penalty"
            ax.set_title(f"{n} points{words}", fontsize=10)
            ax.set(xscale="log", ylim=(4 * least, -2.4 * least))
            ax.set_xticks([START, *powers], [str(k) for k in (0, *powers)])
            ax.minorticks_off()
        row[0].set_ylabel("E[ψ' + ψ²/2]")
    for ax in axes[-1]:
        ax.set_xlabel("step (logarithmic after 0)")
    plots.legend_below(fig, axes[0, 0])
    fig.suptitle(
        f"The implicit objective trained on all of a few points ({config.seeds} seeds and their "
        "mean)",
        fontsize=11,
    )
    return fig


def draw(config: Config, arrays: Arrays) -> dict[str, Figure]:
    """Fits; recovered densities; error by points; the notes' losses; few points."""
    return {
        "": fits(config, arrays),
        "density": densities(config, arrays),
        "error": errors(config, arrays),
        "losses": histories(config, arrays),
        "overfit": few_points(config, arrays),
    }


# Animation ----------------------------------------------------------------------------------------


def animate(config: Config, arrays: Arrays) -> dict[str, bytes]:
    """The notes' two trainings by finite differences on points: fit, and density recovered."""
    fig, axes = plots.figure(1, 2, height=3.8)
    near = shown()
    x = LINE[near]
    parts = (("score", "ψ(x)", "film"), ("recovered density", "density", "film density"))
    for ax, (title, label, _), exact in zip(axes[0], parts, ("score", "density"), strict=True):
        ax.plot(x, arrays[exact][near], color=EXACT, linewidth=1.4, label="exact")
        ax.set(xlim=(-7, 7), xlabel="x", ylabel=label, title=title)
    axes[0, 0].set_ylim(-6, 6)
    axes[0, 1].set_ylim(0, 0.6)
    lines = []
    for run, color, words in zip(FILMED, (MANY, FEW), ("1024 points", "128 points"), strict=True):
        for ax, (_, _, key) in zip(axes[0], parts, strict=True):
            line = ax.plot(x, 0 * x, color=color, linewidth=1.8, label=words)[0]
            lines.append((line, arrays[f"note {run} {key}"]))
    plots.legend_below(fig, axes[0, 0])
    frames = []
    for i, epoch in enumerate(frames_of(config)):
        for line, film in lines:
            line.set_ydata(film[i][near])
        fig.suptitle(f"finite-difference score matching of the notes, epoch {epoch}", fontsize=11)
        frames.append(plots.frame(fig))
        fig.set_layout_engine("none")  # that of the first frame serves all
    ms = [120.0] * len(frames)
    ms[-1] = 2000.0
    return {"training": plots.gif(frames, ms)}


STUDY = Study(
    Config(),
    QUICK,
    compute,
    table,
    draw,
    "Which objectives of score matching find the exact score in one dimension, and from how much?",
    animate,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
