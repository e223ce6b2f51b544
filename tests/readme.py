"""The README's table of studies, from the committed tables.

`python tests/readme.py` writes it anew; `test_package.py` holds the README against it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from diffscience import gallery, runner

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

Row = dict[str, str]


def rows(table: str) -> list[Row]:
    """The rows of figures/TABLE.csv."""
    with (ROOT / "figures" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def row(table: str, **wanted: str) -> Row:
    """The first row whose columns (spaces written as _) have these values."""
    columns = {key.replace("_", " "): value for key, value in wanted.items()}
    return next(r for r in rows(table) if all(r[key] == value for key, value in columns.items()))


def largest(values: Any) -> float:
    """The largest of the numbers, empty cells left out."""
    return max(float(value) for value in values if value != "")


def shown(value: Any, digits: int = 2) -> str:
    """A number to so many significant digits, zeros at its end included.

    >>> shown(0.1004, 3), shown("0.002", 1), shown(5.3, 1), shown(12.0, 2)
    ('0.100', '0.002', '5', '12')
    """
    return f"{float(value):#.{digits}g}".rstrip(".")


def julia_ddpm() -> str:
    """Losses, the fault of sigma, and the mended samples."""
    printed = [r for r in rows("julia_ddpm") if r["published"]]
    truth = row("julia_ddpm_samples", samples_of="the truth")
    beta = row("julia_ddpm_samples", samples_of="as the note samples", schedule="first")
    mended = row("julia_ddpm_samples", samples_of="mended, fresh data")
    worst = largest(r["relative difference"] for r in printed)
    return (
        f"All {len(printed)} published losses come out, to {worst:.0e} relative. Sampling with"
        f" σ = β loses the mode even with the exact ε: std {shown(beta['std'])} instead of"
        f" {shown(truth['std'], 3)}. Mended, W1 to the truth is {shown(mended['W1'])} ±"
        f" {shown(mended['W1 error'], 1)}, its floor {shown(mended['W1 floor'])} ±"
        f" {shown(mended['W1 floor spread'])}."
    )


def forward_reverse() -> str:
    """The largest excess at the end."""
    excess = largest(r["largest excess"] for r in rows("forward_reverse_final"))
    return (
        "Over both targets and samplers the largest excess over the floor at the end is"
        f" {shown(excess)} standard errors."
    )


def forward_sde() -> str:
    """The errors of the methods, near T too, and the note's recipes."""

    def off(process: str, run: str) -> str:
        found = row("forward_sde_end", process=process, run=run)
        return f"{shown(100 * float(found['exact, of the method']))} %"

    ends = rows("forward_sde_end")
    best = {r["process"]: r["run"] for r in ends}  # the last run of a process is its best
    chosen = [r for r in ends if best[r["process"]] == r["run"]]
    most = largest(abs(float(r["exact, of the method"])) for r in chosen)
    tests = [r for r in rows("forward_sde") if best[r["process"]] == r["run"]]
    least = min(float(r["p-value"]) for r in tests)
    kernel, right, drift = (
        row("forward_sde_note", recipe=recipe, t=t)
        for recipe, t in (("kernel as printed", "0.5"), ("right", "0.5"), ("drift sign", "1.0"))
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


def time_reversal() -> str:
    """The squeezed variances, the way back, and multiples of the score."""

    def variance(mesh: str, increments: str, rule: str, steps: str) -> Row:
        return row("time_reversal", mesh=mesh, increments=increments, rule=rule, steps=steps)

    note, many = (variance("uniform", "Euler", "note", steps) for steps in ("100", "1600"))
    mended = variance("graded", "exact", "trapezium", "100")
    exact = "Var Wbar_1, exact"
    back = [r for r in rows("time_reversal_back") if r["case"] == "note" and r["mesh"] == "graded"]
    euler, srk = ([r for r in back if r["method"] == m and r["noise"] == "Wbar"][-1]
                  for m in ("Euler", "SRK"))  # fmt: skip
    double = row("time_reversal_factor", **{"lambda": "2.0"})
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


def reverse_sde() -> str:
    """Parity, the wrong start and the right one, and the swiss roll."""
    printed = rows("reverse_sde_parity")
    worst = largest(r["relative difference"] for r in printed)
    exact = {r["eta"]: r["right, solved"] for r in rows("reverse_sde_exact") if r["start"] != "p_1"}
    right = row("reverse_sde", score="exact", start="p_1", eta="1.0")
    note = row("reverse_sde_causes", what="the note's 256 samples")
    ends = rows("reverse_sde_plane")
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


def flow_map() -> str:
    """Solvers against the exact map, one map for all processes, ways between points, a network."""
    solved = [r for r in rows("flow_map") if r["tolerance"] == "1e-09"]
    worst = largest(r["largest error, decode"] for r in solved)
    same = [r for r in rows("flow_map_processes") if r["process"] != "rectified"]
    line = largest(r["from sigma/alpha = 5: line"] for r in same)
    plane = largest(
        r[f"from sigma/alpha = 5: {p}"] for r in same for p in ("swiss_roll", "two_moons")
    )

    def off(way: str) -> str:
        found = row("flow_map_ways", law="swiss_roll", way=way)
        return f"{100 * float(found['off the law']):.2g} ± {100 * float(found['its error']):.1g} %"

    network = rows("flow_map_learned")[-1]
    return (
        f"On the line F_t⁻¹(F_T) is the map, and dopri5 at tolerance 1e-9 is within {worst:.0e} of"
        " it. All processes have one map between equal σ/α, in the plane as well (differences"
        f" {line:.0e} exactly and {plane:.0e} solved). Half way between points of a swiss roll,"
        f" {off('data')} of straight ways are off the law; of straight ways between codes"
        f" {off('straight')}, of quarter circles, which keep the law, {off('quarter circle')} (true"
        f" points: 1 %). A learned map is {shown(network['distance, mean'])} ±"
        f" {shown(network['error'], 1)} away from the exact one on average."
    )


def speed() -> str:
    """Milliseconds and steps a second."""

    def ms(contender: str) -> str:
        found = row("speed", task="oracle, 1000000 points", contender=contender)
        return f"{float(found['ms (median)']):.0f}"

    steps = float(row("speed_training", contender="ours")["steps a second"])
    return (
        f"A million points of a 25-component mixture take {ms('ours')} ms (torch.distributions"
        f" {ms('torch.distributions, autograd')}, a C loop for this one machine"
        f" {ms('limit: C for this machine')}); the note's training makes {steps:.0f} steps/s."
    )


def solver_orders() -> str:
    """Orders against theory, the forms of 3M, every sampler on every target."""
    every = [r for r in rows("solver_orders_all") if r["theory"]]
    late = {
        (r["process"], r["grid"], r["method"]) for r in every if r["kind"] == "strong, more steps"
    }
    every = [
        r for r in every
        if r["kind"] != "strong" or (r["process"], r["grid"], r["method"]) not in late
    ]  # fmt: skip
    off = sorted(abs(float(r["order"]) - float(r["theory"])) for r in every)
    near = sum(o < 0.15 for o in off)
    third = {r["method"]: r for r in rows("solver_orders") if r["kind"] == "flow"}
    ends = rows("solver_orders_worst")
    worst = max(ends, key=lambda r: float(r["largest excess, n = 1000"]))
    few = sum(int(r["targets above 3, n = 20"]) for r in ends)
    targets = len({r["target"] for r in rows("solver_orders_targets")})
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


def likelihood() -> str:
    """The flow against every law, the bound, the learned density, and the roll of 2015."""
    laws = rows("likelihood")
    worst = largest(r["largest |flow - exact|"] for r in laws)
    moons = row(
        "likelihood_bounds", target="two_moons", schedule="even log-SNR", K="1000", variance="best"
    )
    network = rows("likelihood_learned")[-1]
    found = rows("likelihood_roll")[0]
    ours = [
        r for r in rows("likelihood_roll_bounds")
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


def kde() -> str:
    """Bandwidths and what rules cost."""
    ise = row("kde", kernel="Gaussian", criterion="ISE", n="60")
    fisher = row("kde", kernel="Gaussian", criterion="Fisher", n="60")
    silverman = row("kde_rules", kernel="Gaussian", n="60", rule="Silverman")
    held_out = row("kde_rules", kernel="Gaussian", n="60", rule="cross-validation")
    return (
        f"With a Gaussian kernel 60 points are fitted best at h = {shown(ise['exact h'])}"
        f" (asymptotically {shown(ise['asymptotic h'])}); Silverman's rule costs"
        f" {shown(silverman['ISE / least MISE'])} times and cross-validation"
        f" {shown(held_out['ISE / least MISE'])} times the least error. The score of the estimate"
        f" wants h = {shown(fisher['best h'])} and is still off by"
        f" {100 * float(fisher['least mean']):.0f} % of its own energy."
    )


def hyvarinen() -> str:
    """The note's minimum, and polynomial scores."""
    note = rows("hyvarinen")[0]
    n = max(rows("hyvarinen_polynomials"), key=lambda r: int(r["n"]))["n"]
    one, nine = (
        row("hyvarinen_polynomials", law="0.1 N(−3, 1) + 0.9 N(3, 1)", degree=d, n=n) for d in "19"
    )
    return (
        f"The note's minimum ({shown(note['mu'], 5)}, {shown(note['sigma'], 5)}) comes out, and the"
        f" closed form is maximum likelihood's; on {int(n):,} points a polynomial of degree 9 takes"
        f" the relative error of the bimodal score from {shown(one['score error, median'])} to"
        f" {shown(nine['score error, median'])}, but {nine['of no density']} of {nine['fits']} such"
        " fits are scores of no density."
    )


def langevin() -> str:
    """The slow mode, relaxation and bias."""

    def share(t: str) -> tuple[str, str, str]:
        found = row("langevin", start="N(0, I)", mode="(-1, 1)", t=t)
        return (
            shown(found["share"], 3),
            shown(found["error"], 1),
            shown(found["exact share"], 3),
        )

    early, late = share("5.0"), share("50.0")
    slow = row("langevin_relaxation", start="N(0, I)")
    raw, mala = (
        row("langevin_bias", step_h="0.8", method=method)
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


def score_matching_1d() -> str:
    """Parity, and the error of each objective with enough data; bounds are rounded upwards."""

    def bound(value: float) -> str:
        power = 10.0 ** (int(f"{value:e}"[-3:]) - 1)
        return f"{-(-value // power) * power:.2g}"  # two digits

    def error(objective: str, points: str) -> Row:
        return row("score_matching_1d", objective=objective, points=points)

    printed = [r for r in rows("score_matching_1d_losses") if r["run"] != "denoising"]
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


def score_matching_2d() -> str:
    """The least and the largest error with enough data, and from few points."""

    def error(r: Row) -> float:
        return float(r["Fisher error"])

    def percent(r: Row) -> str:
        spread = 100 * float(r["standard error"])
        return f"{shown(100 * error(r))} ± {shown(spread, 1)} % ({r['objective']})"

    found = sorted(rows("score_matching_2d"), key=error)
    below = sum(error(r) < 0.1 for r in found)
    share = "All" if below == len(found) else f"{below} of {len(found)} objectives"
    few = row("score_matching_2d_fits", objective="implicit", data="128")
    return (
        f"{share} within 10 % relative Fisher error of the exact score of three Gaussians with"
        f" enough data: from {percent(found[0])} to {percent(found[-1])}; from 128 points the"
        f" implicit one is off by {error(few):.0f} ± {float(few['standard error']):.0f} times the"
        f" score's own energy (its members by {float(few['least']):.0f} to"
        f" {float(few['largest']):.0f})."
    )


def ncsn() -> str:
    """The left weight with the note's faults and without."""
    weight = float(gallery.julia_bimodal().weights[0])

    def left(pace: str, faults: str, score: str) -> str:
        found = row("ncsn", pace=pace, faults=faults, score=score)
        return f"{shown(found['left weight'], 3)} ± {shown(found['error'], 1)}"

    return (
        f"With its four faults the exact score leaves {left('note', 'all faults', 'exact')} of the"
        f" mass on the left instead of {weight:g}; without them"
        f" {left('slow', 'no fault', 'exact')}, and the learned score"
        f" {left('slow', 'no fault', 'learned')}. A smaller σ_min alone, in the"
        f" same time, makes it {left('note', 'all but sigma_min = 0.5', 'exact')}."
    )


def low_density() -> str:
    """The error where data are and where they are not, and with noise."""

    def error(objective: str, where: str) -> str:
        found = row("low_density_levels", target="pair", objective=objective)
        return f"{shown(100 * float(found[where]))} %"

    mended = error("denoising, sigma = 6", "low density")
    return (
        "Of a pair of Gaussians the implicit objective learns the score to"
        f" {error('implicit', 'high density')} rms where the data are and to"
        f" {error('implicit', 'low density')} where they are not (the root of the relative squared"
        f" error); under noise of σ = 6 the latter is {mended}."
    )


ANSWERS = {
    "julia_ddpm": julia_ddpm,
    "forward_reverse": forward_reverse,
    "reverse_sde": reverse_sde,
    "flow_map": flow_map,
    "forward_sde": forward_sde,
    "time_reversal": time_reversal,
    "solver_orders": solver_orders,
    "likelihood": likelihood,
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


def table() -> str:
    """The table of studies as Markdown."""
    lines = ["| study | its question, and the answer in numbers | figures |", "|---|---|---|"]
    for name, answer in ANSWERS.items():
        question = runner.question(ROOT / "studies" / f"{name}.py")
        pictures = sorted((ROOT / "figures").glob(f"{name}*.*"), key=lambda p: (p.stem, p.suffix))
        links = [
            f"[{path.stem[len(name) + 1 :].replace('_', ' ') or 'main'}"
            f"{' (film)' * (path.suffix == '.gif')}](figures/{path.name})"
            for path in pictures
            if path.suffix in (".png", ".gif") and re.fullmatch(rf"{name}(_\w+)?", path.stem)
        ]
        lines.append(f"| `{name}` | {question} {answer()} | {', '.join(links)} |")
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The README with its table of studies made anew."""
    return re.sub(r"\| study \|.*?\n\n", lambda _: table() + "\n", text, count=1, flags=re.S)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
