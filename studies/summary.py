"""What did every study find? Answers in numbers, and headline numbers beside what they should be.

Nothing is computed here: sentences and numbers are read from the tables that the other studies have
left in the same folder, so that no number is ever copied by hand.  The README's table of studies is
made of this one.

A headline is a measured number with its standard error, which times have not, beside a number that
it is held against where there is one:

    published   printed in the notes or papers that are replayed
    exact       known in closed form or by quadrature
    theory      a proven order or power
    floor       what true samples have, whose spread is in the error
    nothing     a comparison of networks, or of times

The figure shows value/wanted with error/wanted, and below what there is nothing to hold against,
as it is.  In the quick mode the tables are small, and what
cannot be answered from them says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience import gallery, plots
from diffscience.errors import ArgumentError
from diffscience.estimates import Estimate
from diffscience.runner import question
from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Row = dict[str, str]


@dataclass(frozen=True)
class Config:
    """strict : whether a question that the tables do not answer is an error."""

    strict: bool = True


class Tables:
    """The tables of the other studies."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def rows(self, table: str) -> list[Row]:
        """The rows of TABLE.csv."""
        return self._run.table(table)

    def row(self, table: str, **wanted: str) -> Row:
        """The first row whose columns (spaces written as _) have these values.

        Raises LookupError where there is none.
        """
        columns = {key.replace("_", " "): value for key, value in wanted.items()}
        for row in self.rows(table):
            if all(row[key] == value for key, value in columns.items()):
                return row
        raise LookupError(f"{table} has no row with {columns}")


def largest(values: Any) -> float:
    """The largest of the numbers, empty cells left out."""
    return max(float(value) for value in values if value != "")


def shown(value: Any, digits: int = 2) -> str:
    """A number to so many significant digits, zeros at its end included.

    >>> shown(0.1004, 3), shown("0.002", 1), shown(5.3, 1), shown(12.0, 2), shown(3e-6, 1)
    ('0.100', '0.002', '5', '12', '3e-06')
    """
    value = float(value)
    if abs(value) >= 10**digits:
        return f"{value:.0f}"
    return f"{value:#.{digits}g}".replace(".e", "e").rstrip(".")


def near(r: Row, value: str, error: str) -> str:
    """A value with the digits that its error leaves."""
    return str(Estimate(float(r[value]), float(r[error])))


def span(rows: Iterable[Row], value: str, error: str) -> str:
    """The least and the largest of a column, with their errors."""
    ends = sorted(rows, key=lambda r: float(r[value]))
    return f"{near(ends[0], value, error)} to {near(ends[-1], value, error)}"


# Answers ----------------------------------------------------------------------------------------


def julia_ddpm(t: Tables) -> str:
    """Losses, the fault of sigma, and the mended samples."""
    printed = [r for r in t.rows("julia_ddpm") if r["published"]]
    truth = t.row("julia_ddpm_samples", samples_of="the truth")
    beta = t.row("julia_ddpm_samples", samples_of="as the note samples", schedule="first")
    mended = t.row("julia_ddpm_samples", samples_of="mended, fresh data")
    worst = largest(r["relative difference"] for r in printed)
    return (
        f"All {len(printed)} published losses come out, to {worst:.0e} relative. Sampling with"
        f" σ = β loses the mode even with the exact ε: std {shown(beta['std'])} instead of"
        f" {shown(truth['std'], 3)}. Mended, W1 to the truth is {shown(mended['W1'])} ±"
        f" {shown(mended['W1 error'], 1)} on average over {mended['networks']} networks, the floor"
        f" {shown(mended['W1 floor'])} ± {shown(mended['W1 floor spread'], 1)}."
    )


def forward_reverse(t: Tables) -> str:
    """The largest excess at the end."""
    excess = largest(r["largest excess"] for r in t.rows("forward_reverse_final"))
    return (
        "Over both targets and samplers the largest excess over the floor at the end is"
        f" {shown(excess)} standard errors."
    )


def forward_sde(t: Tables) -> str:
    """The errors of the methods, near T too, and the note's recipes."""

    def off(process: str, run: str) -> str:
        found = t.row("forward_sde_end", process=process, run=run)
        return f"{shown(100 * float(found['exact, of the method']))} %"

    ends = t.rows("forward_sde_end")
    best = {r["process"]: r["run"] for r in ends}  # the last run of a process is its best
    chosen = [r for r in ends if best[r["process"]] == r["run"]]
    most = largest(abs(float(r["exact, of the method"])) for r in chosen)
    tests = [r for r in t.rows("forward_sde") if best[r["process"]] == r["run"]]
    least = min(float(r["p-value"]) for r in tests)
    kernel, right, drift = (
        t.row("forward_sde_note", recipe=recipe, t=time)
        for recipe, time in (("kernel as printed", "0.5"), ("right", "0.5"), ("drift sign", "1.0"))
    )
    return (
        f"Yes: {ends[0]['steps']} steps of SRK leave the variance of all {len(best)} processes"
        f" within {shown(100 * most)} %, and the least of {len(tests)} KS p-values is"
        f" {shown(least, 1)}. Euler's is off by {off('VE geometric', 'Euler, uniform steps')} (VE"
        f" geometric); near T of rectified flow, where f and g are infinite, by"
        f" {off('rectified flow', 'Euler, uniform steps')}, SRK's by"
        f" {off('rectified flow', 'SRK, uniform steps')}, on graded steps"
        f" {off('rectified flow', 'Euler, graded steps')} and"
        f" {off('rectified flow', 'SRK, graded steps')}. The note's kernel has variance"
        f" {shown(kernel['variance'])} instead of {shown(right['variance'])} at t = 0.5, its drift"
        f" takes the standard deviation to {float(drift['variance']) ** 0.5:.0f} instead of 1."
    )


def time_reversal(t: Tables) -> str:
    """The squeezed variances, the way back, and multiples of the score."""

    def variance(mesh: str, increments: str, rule: str, steps: str) -> Row:
        return t.row("time_reversal", mesh=mesh, increments=increments, rule=rule, steps=steps)

    note, many = (variance("uniform", "Euler", "note", steps) for steps in ("100", "1600"))
    mended = variance("graded", "exact", "trapezium", "100")
    exact = "Var Wbar_1, exact"
    back = [
        r for r in t.rows("time_reversal_back") if r["case"] == "note" and r["mesh"] == "graded"
    ]
    euler, srk = ([r for r in back if r["method"] == m and r["noise"] == "Wbar"][-1]
                  for m in ("Euler", "SRK"))  # fmt: skip
    double = t.row("time_reversal_factor", **{"lambda": "2.0"})
    far = "mean of the largest distance"
    return (
        "W + ∫ g s dt, and it is one. The note's is squeezed by its discretisation at t = 0, 18"
        f" log(n)/n: in 100 uniform steps its variance is {shown(note[exact], 3)} (measured"
        f" {shown(note['measured'], 3)} ± {shown(note['error'], 1)}), in 1600"
        f" {shown(many[exact], 3)}, in 100 graded ones with exact increments"
        f" {shown(mended[exact], 4)} ({shown(mended['measured'], 3)} ±"
        f" {shown(mended['error'], 1)}). In {euler['steps']} steps back the path is met to"
        f" {shown(euler[far])} (Euler, order {shown(euler['order'])}) or {shown(srk[far])} (SRK)."
        " With twice the score and its own drift it is met too, but the noise has variance"
        f" {shown(double['exact'])}."
    )


def reverse_sde(t: Tables) -> str:
    """Parity, the wrong start and the right one, and the swiss roll."""
    printed = t.rows("reverse_sde_parity")
    worst = largest(r["relative difference"] for r in printed)
    exact = {
        r["eta"]: r["right, solved"] for r in t.rows("reverse_sde_exact") if r["start"] != "p_1"
    }
    right = t.row("reverse_sde", score="exact", start="p_1", eta="1.0")
    note = t.row("reverse_sde_causes", what="the note's 256 samples")
    ends = t.rows("reverse_sde_plane")
    most = max(int(r["steps"]) for r in ends)
    excess = largest(r["excess"] for r in ends if int(r["steps"]) == most)
    return (
        f"All {len(printed)} published losses come out, to {worst:.0e} relative, and so do the bars"
        f" of the note's samples ({shown(note['right'], 3)} ± {shown(note['error'])} right of 0.2)."
        f" With the exact score its start N(0, 1) ends with {shown(exact['1.0'], 4)} there instead"
        f" of {shown(right['truth'], 4)}: the posterior of a mixture says so without a run. More"
        f" noise forgets more of it ({shown(exact['0.0'], 3)} for the flow,"
        f" {shown(exact['1.5'], 3)} for η = 1.5) and wants more steps; from p_1 it is"
        f" {shown(right['right'], 3)} ± {shown(right['error'], 1)}. A swiss roll comes back with"
        f" every η: after {most} steps the largest excess of sliced W2 is {shown(excess)} standard"
        " errors."
    )


def flow_map(t: Tables) -> str:
    """Solvers against the exact map, one map for all processes, ways between points, a network."""
    solved = [r for r in t.rows("flow_map") if r["tolerance"] == "1e-09"]
    worst = largest(r["largest error, decode"] for r in solved)
    same = [r for r in t.rows("flow_map_processes") if r["process"] != "rectified"]
    line = largest(r["from sigma/alpha = 5: line"] for r in same)
    plane = largest(
        r[f"from sigma/alpha = 5: {p}"] for r in same for p in ("swiss_roll", "two_moons")
    )

    def off(way: str) -> str:
        found = t.row("flow_map_ways", law="swiss_roll", way=way)
        return f"{100 * float(found['off the law']):.2g} ± {100 * float(found['its error']):.1g} %"

    network = t.rows("flow_map_learned")[-1]
    return (
        f"On the line F_t⁻¹(F_T) is the map, and dopri5 at tolerance 1e-9 is within {worst:.0e} of"
        " it. All processes have one map between equal σ/α, in the plane as well (differences"
        f" {line:.0e} exactly and {plane:.0e} solved). Half way between points of a swiss roll,"
        f" {off('data')} of straight ways are off the law; of straight ways between codes"
        f" {off('straight')}, of quarter circles, which keep the law, {off('quarter circle')} (true"
        f" points: 1 %). A learned map is {shown(network['distance, mean'])} ±"
        f" {shown(network['error'], 1)} away from the exact one on average."
    )


def ensembles_gain(t: Tables) -> dict[tuple[str, str], float]:
    """How many times as fast networks train together as apart, by width and batch."""
    crowds: dict[tuple[str, str], dict[bool, float]] = {}
    for row in t.rows("speed_ensembles"):  # the best of ours and of the others
        best, mine = crowds.setdefault((row["width"], row["batch"]), {}), "ours" in row["contender"]
        best[mine] = min(best.get(mine, math.inf), float(row["ms (median)"]))
    return {where: best[False] / best[True] for where, best in crowds.items()}


def speed(t: Tables) -> str:
    """Milliseconds and steps a second."""

    def ms(contender: str) -> str:
        found = t.row("speed", task="oracle, 1000000 points", contender=contender)
        return f"{float(found['ms (median)']):.0f}"

    steps = float(t.row("speed_training", contender="ours")["steps a second"])
    gains = ensembles_gain(t)
    crowd = t.rows("speed_ensembles")[0]["task"].removeprefix("a step of ")

    def gain(which: Callable[..., tuple[str, str]]) -> str:
        width, batch = where = which(gains, key=gains.__getitem__)
        return f"{shown(gains[where])} ({width} wide, batches of {batch})"

    return (
        f"A million points of a 25-component mixture take {ms('ours')} ms (torch.distributions"
        f" {ms('torch.distributions, autograd')}, a C loop for this one machine"
        f" {ms('limit: C for this machine')}); the note's training makes {steps:.0f} steps/s,"
        f" and {crowd} train together {gain(min)}"
        f" to {gain(max)} times as fast as apart."
    )


def solver_orders(t: Tables) -> str:
    """Orders against theory, the forms of 3M, every sampler on every target."""
    every = [r for r in t.rows("solver_orders_all") if r["theory"]]
    late = {
        (r["process"], r["grid"], r["method"]) for r in every if r["kind"] == "strong, more steps"
    }
    every = [
        r for r in every
        if r["kind"] != "strong" or (r["process"], r["grid"], r["method"]) not in late
    ]  # fmt: skip
    off = sorted(abs(float(r["order"]) - float(r["theory"])) for r in every)
    near = sum(o < 0.15 for o in off)
    third = {r["method"]: r for r in t.rows("solver_orders") if r["kind"] == "flow"}
    ends = t.rows("solver_orders_worst")
    worst = max(ends, key=lambda r: float(r["largest excess, n = 1000"]))
    few = sum(int(r["targets above 3, n = 20"]) for r in ends)
    targets = len({r["target"] for r in t.rows("solver_orders_targets")})
    taylor, published = (
        shown(third[name]["order, mean"], 3) for name in ("dpm_3m", "3M, as published")
    )
    return (
        f"{near} of {len(every)} fitted orders lie within 0.15 of theory (the median"
        f" {shown(off[len(off) // 2])} away). DPM-Solver++ 3M has order {taylor} with Taylor's"
        f" weight and a second-order start, and {published} as its programs have it. With the exact"
        f" score all {len(ends)} samplers are at the floor of all {targets} targets after 1000"
        f" steps: the largest excess is {shown(worst['largest excess, n = 1000'])} standard errors;"
        f" after 20 steps {few} of {len(ends) * targets} are above 3."
    )


def likelihood(t: Tables) -> str:
    """The flow against every law, the bound, the learned density, and the roll of 2015."""
    laws = t.rows("likelihood")
    worst = largest(r["largest |flow - exact|"] for r in laws)
    moons = t.row(
        "likelihood_bounds", target="two_moons", schedule="even log-SNR", K="1000", variance="best"
    )
    network = t.rows("likelihood_learned")[-1]
    found = t.rows("likelihood_roll")[0]
    ours = [
        r for r in t.rows("likelihood_roll_bounds")
        if r["noise"] == found["noise"] and r["K"] == "1000" and r["variance"] == "best"
    ]  # fmt: skip
    best = max(ours, key=lambda r: float(r["bound"]))
    gap, kl = (
        f"{shown(r[value])} ± {shown(r[error], 1)}"
        for r, value, error in (
            (moons, "bound - entropy", "error"), (network, "KL", "error of KL")
        )
    )  # fmt: skip
    return (
        f"Along the exact flow the log-density of {len(laws)} laws comes out, the worst to"
        f" {worst:.0e} nats at tolerance 1e-9. The best bound of 1000 steps lies {gap} nats above"
        f" the entropy of two moons; a network of its density has KL {kl}. Sohl-Dickstein et al.'s"
        f" 2.35 bits are the exact entropy of their roll at noise {shown(found['noise'], 3)} of its"
        f" deviation, where 1000 steps reach {shown(best['bound'], 4)} ±"
        f" {shown(best['error'], 1)}."
    )


def reverse_kernel(t: Tables) -> str:
    """Powers of beta, and what whole chains pay."""
    found = t.rows("reverse_kernel")
    best, one = (
        largest(
            abs(float(r["power of beta"]) - int(r["theory"]))
            for r in found
            if (r["Gaussian"] == "best") == is_best
        )
        for is_best in (True, False)
    )
    chains = [r for r in t.rows("reverse_kernel_totals") if r["target"] == "bimodal"]
    chain = max((r for r in chains if r["schedule"] == "cosine"), key=lambda r: int(r["K"]))
    off = largest(
        abs(float(r[f"difference, {kind}"]))
        for r in t.rows("reverse_kernel_totals")
        for kind in ("beta", "btilde")
    )
    left = float(chain["btilde"]) - float(chain["btilde - its limit"])
    return (
        f"Its KL from the best Gaussian falls as β³ and from Gaussians of one variance for all x as"
        f" β², as theory has it (powers within {best:.0e} and {one:.0e}, for"
        f" {len({r['target'] for r in found})} targets at"
        f" {len({r['noise level'] for r in found})} noise levels). {chain['K']} cosine steps to two"
        f" modes cost {shown(chain['best'])} nats with the best Gaussians,"
        f" {shown(chain['optimal'])} with the optimal variances, {shown(chain['beta'])} with β, and"
        f" {shown(chain['btilde'])} with β̃, of which {shown(left, 3)} remain however many the"
        f" steps; with the prior, those of β and β̃ are the gap of the variational bound, to"
        f" {off:.0e}."
    )


def kde(t: Tables) -> str:
    """Bandwidths and what rules cost."""
    ise = t.row("kde", kernel="Gaussian", criterion="ISE", n="60")
    fisher = t.row("kde", kernel="Gaussian", criterion="Fisher", n="60")
    silverman = t.row("kde_rules", kernel="Gaussian", n="60", rule="Silverman")
    held_out = t.row("kde_rules", kernel="Gaussian", n="60", rule="cross-validation")
    return (
        f"With a Gaussian kernel 60 points are fitted best at h = {shown(ise['exact h'])}"
        f" (asymptotically {shown(ise['asymptotic h'])}); Silverman's rule costs"
        f" {shown(silverman['ISE / least MISE'])} times and cross-validation"
        f" {shown(held_out['ISE / least MISE'])} times the least error. The score of the estimate"
        f" wants h = {shown(fisher['best h'])} and is still off by"
        f" {100 * float(fisher['least mean']):.0f} % of its own energy."
    )


def hyvarinen(t: Tables) -> str:
    """The note's minimum, and polynomial scores."""
    note = t.rows("hyvarinen")[0]
    n = max(t.rows("hyvarinen_polynomials"), key=lambda r: int(r["n"]))["n"]
    one, nine = (
        t.row("hyvarinen_polynomials", law="0.1 N(−3, 1) + 0.9 N(3, 1)", degree=d, n=n)
        for d in "19"
    )
    return (
        f"The note's minimum ({shown(note['mu'], 5)}, {shown(note['sigma'], 5)}) comes out, and the"
        f" closed form is maximum likelihood's; on {int(n):,} points a polynomial of degree 9 takes"
        f" the relative error of the bimodal score from {shown(one['score error, median'])} to"
        f" {shown(nine['score error, median'])}, but {nine['of no density']} of {nine['fits']} such"
        " fits are scores of no density."
    )


def langevin(t: Tables) -> str:
    """The slow mode, relaxation and bias."""

    def share(time: str) -> tuple[str, str, str]:
        found = t.row("langevin", start="N(0, I)", mode="(-1, 1)", t=time)
        return (
            shown(found["share"], 3),
            shown(found["error"], 1),
            shown(found["exact share"], 3),
        )

    early, late = share("5.0"), share("50.0")
    slow = t.row("langevin_relaxation", start="N(0, I)")
    raw, mala = (
        t.row("langevin_bias", step_h="0.8", method=method)
        for method in ("unadjusted", "Metropolis-adjusted")
    )
    return (
        "Slowly: from N(0, I) the mode of weight 0.2 holds"
        f" {early[0]} ± {early[1]} at t = 5 (the note's 10; exact {early[2]}) and"
        f" {late[0]} ± {late[1]} at t = 50; such symmetric starts relax in"
        f" {shown(slow['slowest from this start'])}, others in {shown(slow['slowest time'])}."
        " At h = 0.8 the unadjusted step widens the variance by"
        f" {100 * float(raw['var/true - 1']):.0f} %, the adjusted by"
        f" {100 * float(mala['var/true - 1']):.1f} ± {100 * float(mala['error']):.1f} %,"
        f" accepting {100 * float(mala['accepted']):.0f} %."
    )


def score_matching_1d(t: Tables) -> str:
    """Parity, and the error of each objective with enough data; bounds are rounded upwards."""

    def bound(value: float) -> str:
        power = 10.0 ** (int(f"{value:e}"[-3:]) - 1)
        return f"{-(-value // power) * power:.2g}"  # two digits

    def error(objective: str, points: str) -> Row:
        return t.row("score_matching_1d", objective=objective, points=points)

    printed = [r for r in t.rows("score_matching_1d_losses") if r["run"] != "denoising"]
    worst = largest(r["relative difference"] for r in printed)
    consistent = ("explicit", "implicit", "sliced", "finite differences")
    most = largest(error(name, "65536")["Fisher error"] for name in consistent)
    many, few = error("implicit", "65536"), error("implicit", "256")
    return (
        f"All {len(printed)} seeded published losses come out, to {bound(worst)} relative. With"
        f" 65,536 points every consistent objective is within {bound(100 * most)} % of the exact"
        f" score (relative Fisher error; implicit {shown(100 * float(many['Fisher error']))} ±"
        f" {shown(100 * float(many['Fisher error ±']), 1)} %, from 256 points"
        f" {100 * float(few['Fisher error']):.0f} ± {100 * float(few['Fisher error ±']):.0f} %)."
    )


def score_matching_2d(t: Tables) -> str:
    """The least and the largest error with enough data, and from few points."""

    def error(r: Row) -> float:
        return float(r["Fisher error"])

    def percent(r: Row) -> str:
        spread = 100 * float(r["standard error"])
        return f"{shown(100 * error(r))} ± {shown(spread, 1)} % ({r['objective']})"

    found = sorted(t.rows("score_matching_2d"), key=error)
    below = sum(error(r) < 0.1 for r in found)
    share = "All" if below == len(found) else f"{below} of {len(found)} objectives"
    few = t.row("score_matching_2d_fits", objective="implicit", data="128")
    return (
        f"{share} within 10 % relative Fisher error of the exact score of three Gaussians with"
        f" enough data: from {percent(found[0])} to {percent(found[-1])}; from 128 points the"
        f" implicit one is off by {error(few):.0f} ± {float(few['standard error']):.0f} times the"
        f" score's own energy (its members by {float(few['least']):.0f} to"
        f" {float(few['largest']):.0f})."
    )


def ncsn(t: Tables) -> str:
    """The left weight with the note's faults and without."""
    weight = float(gallery.julia_bimodal().weights[0])

    def left(pace: str, faults: str, score: str) -> str:
        found = t.row("ncsn", pace=pace, faults=faults, score=score)
        return f"{shown(found['left weight'], 3)} ± {shown(found['error'], 1)}"

    return (
        f"With its four faults the exact score leaves {left('note', 'all faults', 'exact')} of the"
        f" mass on the left instead of {weight:g}; without them"
        f" {left('slow', 'no fault', 'exact')}, and the learned score"
        f" {left('slow', 'no fault', 'learned')}. A smaller σ_min alone, in the"
        f" same time, makes it {left('note', 'all but sigma_min = 0.5', 'exact')}."
    )


def low_density(t: Tables) -> str:
    """The error where data are and where they are not, and with noise."""

    def error(objective: str, where: str) -> str:
        found = t.row("low_density_levels", target="pair", objective=objective)
        return f"{shown(100 * float(found[where]))} %"

    mended = error("denoising, sigma = 6", "low density")
    return (
        "Of a pair of Gaussians the implicit objective learns the score to"
        f" {error('implicit', 'high density')} rms where the data are and to"
        f" {error('implicit', 'low density')} where they are not (the root of the relative squared"
        f" error); under noise of σ = 6 the latter is {mended}."
    )


def samplers(t: Tables) -> str:
    """Who is best how often, when the floor is reached, what networks leave, their first step."""
    wins: dict[str, list[int]] = {}
    for r in t.rows("samplers_wins"):
        columns = ("best or tied", "ahead of all", "best or tied, by t alone", "of")
        new = [int(r[key]) for key in columns]
        wins[r["sampler"]] = [a + b for a, b in zip(new, wins.get(r["sampler"], [0, 0, 0, 0]))]
    most = max(wins, key=lambda name: wins[name])
    count, alone, even, total = wins[most]
    next_one = max((name for name in wins if name != most), key=lambda name: wins[name][2])
    every = t.rows("samplers")
    few, many = every[0]["evaluations"], every[-1]["evaluations"]
    targets = list(dict.fromkeys(r["target"] for r in every))
    laws = [name.replace("_", " ") for name in targets]

    def first(name: str) -> str:
        found = [t.row("samplers_floor", sampler=name)[target] for target in targets]
        return ", ".join(f"{float(n):.0f}" if n else "never" for n in found)

    def added(r: Row, words: str = "learned score") -> float:
        return float(r[words]) - float(r["exact score"])

    def doubt(r: Row) -> float:
        return math.hypot(
            *(float(r[f"{words}, error"]) for words in ("learned score", "exact score"))
        )

    def left(target: str) -> str:
        wanted = {"target": target, "score": "learned", "sampler": most, "evaluations": many}
        r = t.row("samplers_all", **wanted)
        return f"{shown(r['W1/floor'])} ± {shown(r['ratio error'], 1)}"

    firsts = [r for r in t.rows("samplers_first") if r["target"] == targets[-1]]
    worse = [r for r in firsts if added(r) > 2 * doubt(r)]
    mends = [r for r in worse if added(r, "exact first step") < 0.5 * added(r)]
    start = t.row("samplers_first", target=targets[-1], sampler="dpm_2m")
    learned, mended = (
        f"{shown(start[words])} ± {shown(start[f'{words}, error'], 1)}"
        for words in ("learned score", "exact first step")
    )
    return (
        f"`{most}` is best, not apart from the best or at the floor with it in {count} of {total}"
        f" cases of target, score and budget, and ahead of all in {alone}; where the floor does not"
        f" count, in {even}, `{next_one}` in {wins[next_one][2]}. With the exact score of"
        f" {', '.join(laws)} `{most}` is at the floor from {first(most)} evaluations on, DDIM from"
        f" {first('ddim')}, ancestral sampling from {first('ancestral')}; with a learned one"
        f" {many} leave {', '.join(map(left, targets))} floors. Of {len(worse)} samplers that"
        f" the learned score makes worse in {few} evaluations on {laws[-1]}, by more than two"
        f" errors, it is the network's x0 at T in {len(mends)}: an exact first step takes away more"
        f" than half of what is added (`dpm_2m`: {learned} floors, and {mended})."
    )


def schedules(t: Tables) -> str:
    """What schedules do to sampling and to training, apart and together."""

    def effect(on: str, measure: str = "W1", law: str = "julia_trimodal") -> Row:
        return t.row("schedules_effects", target=law, effect_on=on, measure=measure)

    def told(row: Row) -> str:
        return (
            f"{shown(row['largest/least'], 3)} ± {shown(row['ratio, error'], 1)}"
            f" ({shown(row['by chance'], 3)} by chance)"
        )

    def sure(row: Row) -> bool:
        above = float(row["largest/least"]) - float(row["by chance"])
        return above > 3 * float(row["ratio, error"])

    def part(on: str, law: str = "julia_trimodal") -> str:
        row = effect(on, law=law)
        share, error = (100 * float(row[key]) for key in ("share of var log W1", "share, error"))
        return f"{share:.0f} ± {error:.0f} %"

    checks = t.rows("schedules_checks")
    euler = min(float(r["largest difference"]) for r in checks if "euler" in r["check"])
    same = largest(
        r["largest difference"]
        for r in checks
        if "equal log-SNRs" in r["check"] and "euler" not in r["check"]
    )
    best = effect("sampling")

    def exact(schedule: str, column: str = "W1 exact") -> str:
        row = t.row("schedules", target="julia_trimodal", schedule=schedule)
        return near(row, column, f"{column}, error")

    verdict = {
        (True, True): "Both", (True, False): "The sampling", (False, True): "The training",
        (False, False): "Neither",
    }[sure(best), sure(effect("training"))]  # fmt: skip
    taught = effect("training, simple", "KL")
    seen = t.row("schedules_schedules", target="julia_trimodal", schedule=taught["of it"])
    return (
        f"{verdict}. With three modes in the plane W1 after {float(best['steps']):.0f} steps of"
        f" DPM++ 2M differs between schedules by a factor of {told(best)} with the exact score"
        f" ({best['of']} {exact(best['of'])}, the floor {exact(best['of'], 'floor')};"
        f" {best['of it']} {exact(best['of it'])}), of networks taught by"
        f" them and sampled along common steps by {told(effect('training'))}, of networks along"
        f" their own steps by {told(effect('both'))}; of the variance of log W1 over all pairs"
        f" {part('sampling')} is the sampling schedule's and {part('training')} the training"
        f" schedule's, with two modes on a line {part('sampling', 'julia_bimodal')} and"
        f" {part('training', 'julia_bimodal')}. The networks' KL differs by"
        f" {told(taught)}, the largest that of {taught['of it']}, which saw log-SNRs up to"
        f" {shown(seen['log-SNR at u = 0.001'])}, and by {told(effect('training, bound', 'KL'))}"
        " where all have the expected loss of the bound,"
        f" whose variance alone differs. Between equal log-SNRs all processes in continuous time"
        f" sample the same, to {same:.0e} (Euler's steps on the flow: {shown(euler)} and more)."
    )


def weightings(t: Tables) -> str:
    """The least KL and those near it, the bound's own, and what its variance costs."""
    every = t.rows("weightings")

    def least(law: str, behind: str, error: str) -> tuple[Row, str]:
        rows = sorted((r for r in every if r["law"] == law), key=lambda r: float(r[behind]))
        ties = [
            r["weighting"] for r in rows[1:] if float(r[behind]) < 2 * float(r[error])
        ]  # fmt: skip
        return rows[0], f"within 2 errors of it {', '.join(ties)}" if ties else "no tie"

    def told(law: str) -> str:
        best, ties = least(law, "KL behind the best", "behind error")
        return f"{best['weighting']} ({kl(best)} nats; {ties})"

    def kl(r: Row) -> str:
        return f"{shown(r['KL'])} ± {shown(r['KL error'], 1)}"

    def of(law: str, weighting: str) -> Row:
        return t.row("weightings", law=law, weighting=weighting)

    def nearest(law: str) -> str:
        best, ties = least(law, "distance behind the best", "distance behind error")
        return f"{best['weighting']} ({ties})"

    line, plane = "julia_bimodal", "eight_gaussians"
    own = [r for r in t.rows("weightings_objectives") if r["objective"] == "bound"]

    def percent(r: Row, value: str, error: str) -> str:
        return f"{100 * float(r[value]):.1f} ± {shown(100 * float(r[error]), 1)} %"

    excess = " and ".join(percent(r, "excess, own", "own error") for r in own)
    lowest = " and ".join(
        f"{percent(r, 'excess, least', 'least error')} ({r['reached with']})" for r in own
    )
    costs = " and ".join(
        near(of(law, "bound"), "cost of even t", "cost of even t error") for law in (line, plane)
    )
    return (
        f"In a short training at uniform times the flow of two modes on a line has its least KL"
        f" with {told(line)}, that of eight in the plane with {told(plane)}; samples are nearest"
        f" with {nearest(line)} and {nearest(plane)}. The likelihood weighting, g², has"
        f" {kl(of(line, 'bound'))} and {kl(of(plane, 'bound'))}, and even by its own loss an excess"
        f" of {excess} over the least possible where others reach {lowest}: its gradient is so"
        f" noisy that uniform times need {costs} times the rows of the best times. Uniform on the"
        f" score has {kl(of(line, 'score'))} and {kl(of(plane, 'score'))}, on x0"
        f" {kl(of(line, 'x0'))} and {kl(of(plane, 'x0'))}."
    )


def antithetic(t: Tables) -> str:
    """Variances over those of independent times, and what became of the excess."""

    def told(objective: str, way: str, value: str, error: str) -> str:
        found = [
            t.row("antithetic", law=law, objective=objective, way=way)
            for law in ("julia_bimodal", "eight_gaussians")
        ]
        return " and ".join(f"{float(r[value]):.2f} ± {shown(r[error], 1)}" for r in found)

    def variance(objective: str, way: str, state: str = "end") -> str:
        return told(objective, way, f"variance, {state}", f"{state} error")

    def excess(objective: str, way: str) -> str:
        return told(objective, way, "excess/independent", "ratio error")

    both = "importance, stratified"
    return (
        "Over that with independent times, for two modes on a line and eight in the plane, the"
        " variance of the gradient of L_simple at the end of training is"
        f" {variance('simple', 'antithetic')} with pairs (at its start"
        f" {variance('simple', 'antithetic', 'start')}) and {variance('simple', 'stratified')} with"
        f" a lattice (at its start {variance('simple', 'stratified', 'start')}); the excess of the"
        f" loss is {excess('simple', 'antithetic')} with pairs, {excess('simple', 'stratified')}"
        f" with a lattice. For the bound, times drawn in proportion to its weight have the variance"
        f" {variance('bound', 'importance')} and the excess {excess('bound', 'importance')}; on a"
        f" lattice {variance('bound', both)} and {excess('bound', both)}."
    )


def parameterisations(t: Tables) -> str:
    """Who has the least nats, what the native losses, the raw time and other shapes do to them."""
    laws = {"julia_bimodal": "two modes of a line", "eight_gaussians": "eight Gaussians"}
    found, seen, shapes = (t.rows(f"parameterisations{part}") for part in ("", "_views", "_shapes"))

    def number(r: Row, column: str) -> str:
        return f"{shown(r[column])} ± {shown(r[f'{column} error'], 1)}"

    def told(target: str) -> str:
        some = sorted(
            (r for r in found if r["target"] == target), key=lambda r: float(r["to the least"])
        )
        near = [
            r["predicts"] for r in some[1:]
            if float(r["to the least"]) - 1 < 2 * float(r["to the least error"])
        ]  # fmt: skip
        beside = f" (within two errors: {', '.join(near)})" if near else ""
        return (
            f"on {laws[target]} {some[0]['predicts']} costs least, {number(some[0], 'nats')}"
            f" nats{beside}, eps {number(row_of(some, 'eps'), 'to the least')} times that,"
            f" {some[-1]['predicts']} {number(some[-1], 'to the least')} times"
        )

    def row_of(some: list[Row], predicts: str) -> Row:
        return next(r for r in some if r["predicts"] == predicts)

    edge = max(float(r["rate"]) for r in t.rows("parameterisations_cells"))
    rates = [float(r[c]) for r in found for c in ("rate", "native rate")]
    native = span(found, "native/common", "native/common error")
    apart = [float(r["native W1 - W1"]) / float(r["native W1 - W1 error"]) for r in found]

    def views(target: str) -> str:
        raw = (r for r in seen if r["sees"] == "raw" and r["target"] == target)
        return span(raw, "to the own", "to the own error")

    line, plane = laws

    def shape(name: str) -> str:
        some = (r for r in shapes if r["shape"] == name)
        return span(some, "to the base", "to the base error")

    seeing = len({r["predicts"] for r in seen if r["sees"] == "raw"})
    sized = " and ".join(dict.fromkeys(r["predicts"] for r in shapes))
    return (
        f"By one loss for all, {'; '.join(told(target) for target in laws)}. Their own unweighted"
        f" losses cost {native} times as much; their samples are nearer in W1, by more than"
        f" two errors of the difference, in {sum(a < -2 for a in apart)} of {len(found)} cases and"
        f" farther in {sum(a > 2 for a in apart)}. Without Fourier features of the time the nats of"
        f" {seeing} predictions are {views(line)} times as many on the line, in the plane"
        f" {views(plane)} times. With {sized}, one layer of 32 in the place of two costs"
        f" {shape('32')} times, three {shape('32-32-32')} times; two of 16 {shape('16-16')} times,"
        f" two of 64 {shape('64-64')} times. The largest"
        f" rate tried, {edge:g}, is the best one in {rates.count(edge)} of {len(rates)} cases."
    )


def ema(t: Tables) -> str:
    """What the best decay does at each schedule of the rate, and the longest to all."""

    def told(schedule: str) -> str:
        found = [
            t.row("ema", target=target, rate=schedule)
            for target in ("julia_bimodal", "eight_gaussians")
        ]
        return " and ".join(
            f"{near(r, 'best/none', 'best/none error')}"
            + (
                " (none better than no average)"
                if "0" in r["as good"].split(", ")
                else f" (decay {float(r['best decay']):g})"
            )
            for r in found
        )

    longest, warm = (
        span(t.rows("ema"), column, f"{column} error")
        for column in ("longest/none", "warm-up/none")
    )
    return (
        "Of the nats that the score costs without an average, on a line and in the plane, the best"
        f" decay leaves {told('high')} at a constant rate, {told('low')} at a tenth of it, and"
        f" {told('falling')} where the rate falls. The longest decay has {longest} times as"
        f" many, with a warm-up {warm} times."
    )


def learned_variance(t: Tables) -> str:
    """Bounds of few steps, how near the learned variance comes, importance, and samples."""
    law, plane = "eight_gaussians", "eight Gaussians"

    def nats(variance: str) -> str:
        found = t.row("learned_variance", law=law, variance=variance)
        name = "bound - entropy, learned mean"
        return near(found, name, f"{name}, error")

    def apart(variance: str) -> str:
        return near(t.row("learned_variance", law=law, variance=variance), *far)

    def of(objective: str, name: str) -> str:
        found = t.row("learned_variance_objectives", law=law, objective=objective)
        return near(found, name, f"{name}, error")

    steps = t.rows("learned_variance")[0]["steps"]
    strong, name, cost = "hybrid, lambda = 1", "bound - entropy", "cost, exact mean"
    far = ("distance", "distance, error")
    long = {r["variance"]: r for r in t.rows("learned_variance_bounds") if r["law"] == law}
    best, one, beta = (
        float(long[variance]["bound - entropy, exact mean"])
        for variance in ("exact, diagonal", "analytic", "beta")
    )
    return (
        "Beside the exact one (diagonal), with the exact mean and"
        f" the whole chain to {plane}, it costs {of('hybrid', cost)} nats learned with λ = 0.001"
        f" and {of(strong, cost)} with λ = 1; β costs {shown(beta - best)}, Analytic-DPM's"
        f" {shown(one - best)}. {steps} steps with the learned mean lie {nats('btilde')} nats above"
        f" the entropy with β̃, {nats('beta')} with β, {nats('analytic')} with Analytic-DPM's,"
        f" {nats('learned')} and {nats('learned, lambda = 1')} with those learned, and"
        f" {nats('exact, diagonal')} with the exact diagonal; their samples are {apart('btilde')},"
        f" {apart('beta')}, {apart('analytic')}, {apart('learned')}, {apart('learned, lambda = 1')}"
        f" and {apart('exact, diagonal')} away in sliced W1. By importance the bound of L_vlb ends"
        f" {of('bound, importance', name)} nats above the entropy instead of {of('bound', name)}."
    )


def memorisation(t: Tables) -> str:
    """Copies and distances, with few points and with many."""
    found = t.rows("memorisation")
    few, many = found[0]["n"], found[-1]["n"]
    wide = [r["model"] for r in found if r["n"] == few][-2]

    def copied(n: str, model: str) -> str:
        r = t.row("memorisation", n=n, model=model)
        share, error = (100 * float(r[c]) for c in ("copies by distance", "distance, error"))
        return f"{share:.1f} ± {error:.1f} %" if error else f"{share:.0f} %"

    def distance(n: str, model: str) -> str:
        r = t.row("memorisation", n=n, model=model)
        return f"{shown(r['W2'])} ± {shown(r['W2, error'], 1)}"

    def chance(n: str) -> str:
        r = t.row("memorisation", n=n, model="true samples")
        return f"{shown(100 * float(r['chance by distance']))} %"

    name = wide.removeprefix("width ")
    return (
        f"From {few} points networks of width {name} copy {copied(few, wide)} of their samples (the"
        f" empirical score {copied(few, 'empirical score')}; exactly {chance(few)} of the law are"
        f" copies by chance), from {many} {copied(many, wide)} (by chance {chance(many)}). W2 to"
        f" the law is {distance(few, wide)} from {few} points and {distance(many, wide)} from"
        f" {many}, where samples of the empirical score have"
        f" {distance(many, 'empirical score')} and true ones {distance(many, 'true samples')}."
    )


def guidance(t: Tables) -> str:
    """What is sampled at gamma = 3 beside the tilted law, what mends it, and the networks."""

    def on(sampler: str, column: str) -> str:
        found = t.row("guidance", law="modes", gamma="3.0", sampler=sampler)
        return shown(found[column])

    far, near = "W1 to the tilted law", "near mode"
    noisiest = t.rows("guidance")[-1]["sampler"]
    closed = [
        abs(float(r[kind]) / float(r[f"{kind}, closed form"]) - 1)
        for r in t.rows("guidance_gaussians")
        for kind in ("flow", "SDE", "tilted law")
    ]
    same = largest(r["largest difference of eps"] for r in t.rows("guidance_classifier"))
    ends = [r for r in t.rows("guidance_learned") if r["law"] == "modes"]
    plain, most = ends[0], ends[-1]

    def learned(row: Row) -> str:
        value, error = row["eps, under the guided law"], row["error of it, 2"]
        return f"{shown(value)} ± {shown(error, 1)}"

    return (
        "No, for γ > 1. Of two modes, one of them next to the other class, the guided flow at γ = 3"
        f" ends at W1 = {on('flow', far)} from the tilted law, the SDE at"
        f" {on('SDE, eta = 1', far)}: the mode next to the other class keeps"
        f" {on('flow', near)} and {on('SDE, eta = 1', near)} instead of {on('tilted law', near)}."
        f" Langevin steps mixed in lead there ({noisiest.replace('eta', 'η')}:"
        f" {on(noisiest, far)}). Published closed forms for Gaussians come out to"
        f" {shown(max(closed), 1)}, and the exact classifier guides as the conditional score does,"
        f" to {same:.0e} in ε. Networks with dropped labels are off in ε, whose noise has size"
        f" 1, by {learned(plain)} rms at γ = 1 and by {learned(most)} at"
        f" γ = {float(most['gamma']):g}."
    )


def error_budget(t: Tables) -> str:
    """Steps and score in few steps and in many, the largest of the small parts, and the bound."""
    every = t.rows("error_budget")
    line = [r for r in every if r["law"] == "julia_bimodal"]

    def part(r: Row, column: str) -> str:
        sure = float(r[f"{column} error"]) == 0  # by quadrature, with the exact score
        return shown(r[column]) + ("" if sure else f" ± {shown(r[f'{column} error'], 1)}")

    runs = sorted((r for r in line if r["sampler"] == "ancestral"), key=lambda r: int(r["steps"]))
    told = " and ".join(
        f"D = {part(r, 'D')} in {r['steps']} steps, {part(r, 'discretisation')} of it theirs and"
        f" {part(r, 'score')} the score's,"
        for r in (runs[0], runs[-1])
    )
    small, most = max(
        ((r, c) for r in every for c in ("prior", "stopping")), key=lambda p: abs(float(p[0][p[1]]))
    )
    alone = t.row("error_budget_ways", law="julia_bimodal", way="alone")
    nats = t.rows("error_budget_girsanov")
    last, plane = (
        max(rows, key=lambda r: int(r["updates"]))
        for rows in (
            [r for r in nats if r["law"] == "julia_bimodal"],
            [r for r in nats if r["law"] == "eight_gaussians"],
        )
    )
    above = {}
    for kind in ("SDE", "flow"):
        known = [r for r in nats if r[f"{kind} above the bound"]]
        count = sum(int(float(r[f"{kind} above the bound"])) for r in known)
        above[kind] = f"{count} of {sum(int(r['networks']) for r in known)} {kind}s"
    return (
        f"After {last['updates']} updates on two modes of a line ancestral sampling is an energy"
        f" distance {told} away; prior and stopping have shares of {part(small, most)} or less in D"
        " after as many updates, whatever law, sampler and steps."
        f" Faults need not add up: {alone['steps']} steps of DPM++ 2M alone cost"
        f" {part(alone, 'discretisation')}, a score of {alone['updates']} updates alone"
        f" {part(alone, 'score')}, all faults together {part(alone, 'D')}. Girsanov's bound is"
        f" {part(last, 'bound')} nats, the KL of the reverse SDE {part(last, 'KL of the SDE')};"
        f" that of the flow, which it does not bound, is {part(last, 'KL of the flow')} (on eight"
        f" Gaussians the bound is {part(plane, 'bound')}, the flow's KL"
        f" {part(plane, 'KL of the flow')}). Above their bounds are {above['SDE']} and"
        f" {above['flow']}."
    )


ANSWERS = {
    "julia_ddpm": julia_ddpm,
    "forward_reverse": forward_reverse,
    "reverse_sde": reverse_sde,
    "flow_map": flow_map,
    "forward_sde": forward_sde,
    "time_reversal": time_reversal,
    "solver_orders": solver_orders,
    "samplers": samplers,
    "schedules": schedules,
    "likelihood": likelihood,
    "error_budget": error_budget,
    "reverse_kernel": reverse_kernel,
    "learned_variance": learned_variance,
    "weightings": weightings,
    "antithetic": antithetic,
    "parameterisations": parameterisations,
    "ema": ema,
    "memorisation": memorisation,
    "guidance": guidance,
    "score_matching_1d": score_matching_1d,
    "score_matching_2d": score_matching_2d,
    "low_density": low_density,
    "ncsn": ncsn,
    "hyvarinen": hyvarinen,
    "langevin": langevin,
    "kde": kde,
    "speed": speed,
}
"""What each study found, in the order of the table."""


# Headlines --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A measured number beside what it should be, NaN for nothing; `of` as above."""

    what: str
    value: float
    error: float
    wanted: float
    of: str


def number(what: str, row: Row, columns: str, of: str) -> Number:
    """Of the columns "value | error | wanted" of a row; one that is a number stands for itself."""
    names = [name.strip() for name in columns.split("|")]
    value, error, wanted = (float(row.get(name, name)) for name in names)
    return Number(what, value, error, wanted, of)


def of_julia_ddpm(t: Tables) -> Iterator[Number]:
    mended = t.row("julia_ddpm_samples", samples_of="mended, fresh data")
    truth = t.row("julia_ddpm_samples", samples_of="the truth")
    wanted = truth["P(x < 0)"]
    yield number(
        "mass of the left mode, mended", mended, f"P(x < 0) | its error | {wanted}", "exact"
    )
    spread = math.hypot(
        float(mended["W1 error"]),
        float(mended["W1 floor spread"]) / math.sqrt(int(mended["networks"])),
    )
    yield number("Wasserstein-1, mended", mended, f"W1 | {spread} | W1 floor", "floor")


def of_forward_sde(t: Tables) -> Iterator[Number]:
    ends = {
        r["process"]: r for r in t.rows("forward_sde_end")
    }  # the last run of a process: its best
    for process in ("VE", "VP", "rectified flow"):
        off, error = (float(ends[process][c]) for c in ("variance/exact - 1", "error"))
        yield Number(f"variance at T, {process}", 1 + off, error, 1.0, "exact")


def of_time_reversal(t: Tables) -> Iterator[Number]:
    for mesh, increments, rule, steps in (
        ("uniform", "Euler", "note", "100"), ("graded", "exact", "trapezium", "100"),
    ):  # fmt: skip
        r = t.row("time_reversal", mesh=mesh, increments=increments, rule=rule, steps=steps)
        what = f"variance of the reversed noise, {mesh} mesh"
        yield number(what, r, "measured | error | Var Wbar_1, exact", "exact")


def of_reverse_sde(t: Tables) -> Iterator[Number]:
    for start in ("N(0, 1)", "p_1"):
        r = t.row("reverse_sde", score="exact", start=start, eta="1.0")
        what = f"mass on the right from {start}"
        wanted = r["truth"]
        if start == "N(0, 1)":
            wanted = t.row("reverse_sde_exact", start=start, eta="1.0")["right, solved"]
        yield number(what, r, f"right | error | {wanted}", "exact")


def of_solver_orders(t: Tables) -> Iterator[Number]:
    for kind, method in (
        ("flow", "heun"), ("flow", "dpm_3m"), ("strong", "euler_maruyama"),
        ("strong, more steps", "torchsde srk"), ("torchdiffeq", "rk4"),
    ):  # fmt: skip
        r = t.row("solver_orders_all", kind=kind, method=method)
        error = float(r["error of fit"] or 0) + float(r["error of sample"] or 0)
        what = f"order of {method.replace('_', ' ')} ({kind.partition(',')[0]})"
        yield number(what, r, f"order | {error} | theory", "theory")


def of_likelihood(t: Tables) -> Iterator[Number]:
    for r in t.rows("likelihood")[:1]:
        what = f"−log p of {r['target'].replace('_', ' ')} by the flow / nats"
        yield number(what, r, "-log p, flow | 0 | -log p, exact", "exact")


def of_kde(t: Tables) -> Iterator[Number]:
    for criterion in ("ISE",):
        r = t.row("kde", kernel="Gaussian", criterion=criterion, n="60")
        yield number("best bandwidth for 60 points", r, "best h | error of h | exact h", "exact")


def of_hyvarinen(t: Tables) -> Iterator[Number]:
    for name, sign in (("mu", "μ"), ("sigma", "σ")):
        r = t.rows("hyvarinen")[0]
        yield number(
            f"{sign} of the fitted Gaussian", r, f"{name} | 0 | printed {name}", "published"
        )


def of_langevin(t: Tables) -> Iterator[Number]:
    for time in ("5.0", "50.0"):
        r = t.row("langevin", start="N(0, I)", mode="(-1, 1)", t=time)
        what = f"share of the middle mode at t = {float(time):g}"
        yield number(what, r, "share | error | exact share", "exact")


def of_ncsn(t: Tables) -> Iterator[Number]:
    weight = float(gallery.julia_bimodal().weights[0])
    for score in ("exact", "learned"):
        r = t.row("ncsn", pace="slow", faults="no fault", score=score)
        what = f"mass on the left, annealed Langevin, {score} score"
        yield number(what, r, f"left weight | error | {weight}", "exact")


def of_samplers(t: Tables) -> Iterator[Number]:
    every = [r for r in t.rows("samplers_all") if r["score"] == "exact"]
    for sampler in ("dpm_2m", "ancestral"):
        ends = {r["target"]: r for r in every if r["sampler"] == sampler}  # the largest budget
        for target, r in ends.items():
            spread = math.hypot(float(r["error"]), float(r["floor error"]))
            what = f"Wasserstein-1, {sampler}, {target.replace('_', ' ')}"
            yield number(what, r, f"W1 | {spread} | floor", "floor")


def of_schedules(t: Tables) -> Iterator[Number]:
    """Where the most steps of DPM++ 2M with the exact score end, beside a run of many more."""
    most = max(int(r["steps"]) for r in t.rows("schedules_steps"))
    for law, words in (("julia_bimodal", "two modes"), ("julia_trimodal", "three modes")):
        r = t.row(
            "schedules_steps", target=law, schedule="even log-SNR", sampler="dpm_2m",
            steps=str(most),
        )  # fmt: skip
        spread = math.hypot(float(r["W1 exact, error"]), float(r["floor, error"]))
        what = f"W1 of {words}, {most} steps of dpm_2m"
        yield number(what, r, f"W1 exact | {spread} | floor", "floor")


def of_antithetic(t: Tables) -> Iterator[Number]:
    for law in ("julia_bimodal", "eight_gaussians"):
        r = t.row("antithetic_theory", law=law, objective="bound", way="importance", state="end")
        error = math.hypot(float(r["measured error"]), float(r["theory error"]))
        what = f"gradient variance by importance, {law.replace('_', ' ')}"
        yield number(what, r, f"measured | {error} | theory", "theory")


def of_learned_variance(t: Tables) -> Iterator[Number]:
    rows = [
        r for r in t.rows("learned_variance_samples")
        if r["law"] == "julia_bimodal" and r["mean"] == "exact" and r["variance"] == "exact"
    ]  # fmt: skip
    r = rows[-1]
    error = math.hypot(float(r["distance, error"]), float(r["floor, error"]))
    what = f"W1 of {r['steps']} steps with the exact variances"
    yield number(what, r, f"distance | {error} | floor", "floor")


def of_memorisation(t: Tables) -> Iterator[Number]:
    r = t.row("memorisation", n="16", model="true score")
    what = "copies of 16 points by ratio, true score"
    yield number(what, r, "copies by ratio | ratio - chance, error | chance by ratio", "exact")


def of_guidance(t: Tables) -> Iterator[Number]:
    r = t.row("guidance_gaussians", gamma="3.0")
    for kind in ("flow", "SDE"):
        what = f"variance of a guided Gaussian, γ = 3, {kind}"
        yield number(what, r, f"{kind} | 0 | {kind}, closed form", "exact")
    r = t.row("guidance_plane", gamma="1.0", sampler="SDE")
    wanted = t.row("guidance_plane", gamma="1.0", sampler="tilted law, exactly")["purity"]
    yield number(
        "E p(c|X) in the plane, γ = 1, SDE", r, f"purity | purity, error | {wanted}", "exact"
    )


def of_error_budget(t: Tables) -> Iterator[Number]:
    r = max(t.rows("error_budget_ends"), key=lambda r: float(r["KL of the prior"]))
    what = f"KL kept by the flow, beta_max = {float(r['beta_max']):g} / nats"
    yield number(what, r, "KL of the flow | 0 | KL of the prior", "exact")


def of_reverse_kernel(t: Tables) -> Iterator[Number]:
    for gaussian in ("best", "optimal"):
        r = t.row("reverse_kernel", Gaussian=gaussian)
        what = f"power of β in the KL from the {gaussian} Gaussian, {r['target']}"
        yield number(what, r, "power of beta | its error | theory", "theory")


def of_forward_reverse(t: Tables) -> Iterator[Number]:
    for target in ("swiss_roll", "s_curve"):
        found = [
            r for r in t.rows("forward_reverse")
            if (r["target"], r["direction"], r["metric"]) == (target, "ancestral", "sliced W2")
        ]  # fmt: skip
        r = min(found, key=lambda r: int(r["k"]))
        error = math.hypot(float(r["error"]), float(r["floor error"]))
        what = f"sliced W2 of a returned {target.replace('_', ' ')}"
        yield number(what, r, f"value | {error} | floor", "floor")


def of_score_matching_1d(t: Tables) -> Iterator[Number]:
    r = [r for r in t.rows("score_matching_1d") if r["objective"] == "explicit" and r["seeds"]][-1]
    what = f"relative Fisher error, explicit, {r['points']} points"
    yield number(what, r, "Fisher error | Fisher error ± | nan", "nothing")


def of_score_matching_2d(t: Tables) -> Iterator[Number]:
    for objective in ("explicit", "denoising"):
        r = t.row("score_matching_2d", objective=objective, data="fresh")
        yield number(
            f"relative Fisher error, {objective}",
            r,
            "Fisher error | standard error | nan",
            "nothing",
        )


def of_low_density(t: Tables) -> Iterator[Number]:
    found = [r for r in t.rows("low_density") if r["objective"] == "implicit" and r["its error"]]
    first = [r for r in found if r["target"] == found[0]["target"]]
    for r in (first[0], first[-1]):
        what = f"relative rms error of {r['target']}, {r['decades below the maximum']} decades down"
        yield number(what, r, "relative error | error of it | nan", "nothing")


def of_flow_map(t: Tables) -> Iterator[Number]:
    r = t.rows("flow_map_learned")[-1]
    what = f"distance of learned from exact samples, {r['model']}"
    yield number(what, r, "distance, mean | error | nan", "nothing")


def of_weightings(t: Tables) -> Iterator[Number]:
    for law in ("julia_bimodal", "eight_gaussians"):
        found = [r for r in t.rows("weightings") if r["law"] == law]
        r = min(found, key=lambda r: float(r["KL"]))
        what = f"KL of {law.replace('_', ' ')}, {r['weighting']} / nats"
        yield number(what, r, "KL | KL error | nan", "nothing")


def of_parameterisations(t: Tables) -> Iterator[Number]:
    for r in t.rows("parameterisations"):
        if r["predicts"] == "eps":
            what = f"ratio of nats, eps to the least, {r['target'].replace('_', ' ')}"
            yield number(what, r, "to the least | to the least error | nan", "nothing")


def of_ema(t: Tables) -> Iterator[Number]:
    for r in t.rows("ema"):
        if r["rate"] == "high":
            law = r["target"].replace("_", " ")
            what = f"ratio of nats, best average to none, high rate, {law}"
            yield number(what, r, "best/none | best/none error | nan", "nothing")


def of_speed(t: Tables) -> Iterator[Number]:
    for (width, batch), gain in ensembles_gain(t).items():
        what = f"times as fast together, {width} wide, batches of {batch}"
        yield Number(what, gain, math.nan, math.nan, "nothing")


NUMBERS: dict[str, Callable[[Tables], Iterator[Number]]] = {
    "julia_ddpm": of_julia_ddpm,
    "forward_reverse": of_forward_reverse,
    "reverse_sde": of_reverse_sde,
    "forward_sde": of_forward_sde,
    "time_reversal": of_time_reversal,
    "solver_orders": of_solver_orders,
    "samplers": of_samplers,
    "schedules": of_schedules,
    "likelihood": of_likelihood,
    "error_budget": of_error_budget,
    "reverse_kernel": of_reverse_kernel,
    "learned_variance": of_learned_variance,
    "antithetic": of_antithetic,
    "memorisation": of_memorisation,
    "guidance": of_guidance,
    "ncsn": of_ncsn,
    "hyvarinen": of_hyvarinen,
    "langevin": of_langevin,
    "kde": of_kde,
    "score_matching_1d": of_score_matching_1d,
    "score_matching_2d": of_score_matching_2d,
    "low_density": of_low_density,
    "flow_map": of_flow_map,
    "weightings": of_weightings,
    "parameterisations": of_parameterisations,
    "ema": of_ema,
    "speed": of_speed,
}
"""Headline numbers, in the order of the figure."""


# The study --------------------------------------------------------------------------------------


def compute(config: Config, run: Run) -> dict[str, Any]:
    """Answers and headline numbers of all studies."""
    t, here = Tables(run), Path(__file__).parent
    questions = [question(here / f"{name}.py") for name in ANSWERS]
    answers, numbers = [], []
    for name, answer in ANSWERS.items():
        try:
            told = answer(t), [(name, n) for n in NUMBERS.get(name, lambda _: iter(()))(t)]
        except (ArgumentError, LookupError, StopIteration, ValueError, ZeroDivisionError) as error:
            if config.strict:
                raise ArgumentError(f"tables of {name}", "answer its question", error) from error
            told = f"(Not told by these tables: {type(error).__name__}.)", []
        answers.append(told[0])
        numbers += told[1]
    return {
        "study": list(ANSWERS), "question": questions, "answer": answers,
        "headline study": [name for name, _ in numbers] or [""],
        "headline": [n.what for _, n in numbers] or [""],
        "of": [n.of for _, n in numbers] or [""],
        "numbers": [[n.value, n.error, n.wanted] for _, n in numbers] or [[np.nan] * 3],
    }  # fmt: skip


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, DataFrame]:
    """Question, answer and headline numbers of every study; these by themselves."""
    import pandas as pd

    page = pd.DataFrame({name: arrays[name] for name in ("study", "question", "answer")})
    page["headline numbers"] = [headlines_of(arrays, study) for study in arrays["study"]]
    value, error, wanted = arrays["numbers"].T
    numbers = pd.DataFrame(
        {
            "study": arrays["headline study"], "what": arrays["headline"], "value": value,
            "error": error, "wanted": wanted, "wanted is": arrays["of"],
        }
    )  # fmt: skip
    return {"": page, "headlines": numbers}


def headlines_of(arrays: dict[str, np.ndarray], study: str) -> str:
    """The headline numbers of a study in words, with what they should be."""
    return "; ".join(
        f"{what}: {measured(value, error)}"
        + ("" if of == NOTHING else f" ({of}: {shown(wanted, 4)})")
        for name, what, (value, error, wanted), of in zip(
            arrays["headline study"], arrays["headline"], arrays["numbers"], arrays["of"]
        )
        if name == study
    )


def measured(value: float, error: float) -> str:
    """A number with its error, where it has one."""
    return shown(value, 4) + (f" ± {shown(error, 1)}" if error > 0 else "")


NOTHING = "nothing"
LOOKS = {"published": "s", "exact": "o", "theory": "^", "floor": "D", NOTHING: "o"}


def draw(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """Every headline number over what it should be; below, those that nothing is held against."""
    alone = arrays["of"] == NOTHING
    counts = [max(1, int(np.sum(some))) for some in (~alone, alone)]
    figure, axes = plots.figure(2, height=2.6 + 0.25 * sum(counts))
    top, bottom = axes[:, 0]
    top.get_gridspec().set_height_ratios(counts)
    listed(top, arrays, ~alone, arrays["numbers"][:, 2])
    top.axvline(1.0, color="0.4", lw=0.8, zorder=0)
    top.set(xlabel="measured / wanted (± one standard error)")
    figure.suptitle(
        "Headline numbers beside what they should be (numbers: measured, wanted)", fontsize=11
    )
    listed(bottom, arrays, alone, np.ones(len(alone)))
    bottom.set(xscale="log", xlabel="measured (± one standard error)")
    bottom.set_title("Comparisons of networks, and of times", fontsize=11)
    plots.legend_below(figure, top, columns=4)
    return figure


def listed(ax: Any, arrays: dict[str, np.ndarray], some: np.ndarray, unit: np.ndarray) -> None:
    """Some of the headlines in their units, a row each, with the numbers beside them."""
    y = np.arange(np.sum(some))
    value, error, wanted = arrays["numbers"][some].T
    x, reach, kinds = value / unit[some], error / unit[some], arrays["of"][some]
    for i, (kind, marker) in enumerate(LOOKS.items()):
        own = kinds == kind
        ax.errorbar(
            x[own], y[own], xerr=reach[own], fmt=marker, ms=5, lw=1.2, capsize=2,
            color=plots.COLORS[i], label=kind if kind != NOTHING else None,
        )  # fmt: skip
    for row in y:
        beside = "" if kinds[row] == NOTHING else f"  ({shown(wanted[row], 4)})"
        text = measured(value[row], error[row]) + beside
        ax.annotate(
            text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            annotation_clip=False,
        )  # fmt: skip
    pairs = zip(arrays["headline study"][some], arrays["headline"][some])
    ax.set_yticks(y, [f"{study}: {what}" for study, what in pairs], fontsize=8)
    ax.set(ylim=(max(1, len(y)) - 0.5, -0.5))


STUDY = Study(
    Config(),
    Config(strict=False),
    compute,
    table,
    draw,
    "What did every study find?",
    last=True,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
