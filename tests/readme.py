"""The README's table of studies, from the committed tables.

`python tests/readme.py` writes it anew; `test_package.py` holds the README against it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

from diffscience import runner

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
    """A number to so many significant digits."""
    return f"{float(value):.{digits}g}"


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
    one, nine = (
        row("hyvarinen_polynomials", law="0.1 N(−3, 1) + 0.9 N(3, 1)", degree=d, n="100000")
        for d in "19"
    )
    return (
        f"The note's minimum ({shown(note['mu'], 5)}, {shown(note['sigma'], 5)}) comes out, and the"
        " closed form is maximum likelihood's; a polynomial of degree 9 takes the relative error of"
        f" the bimodal score from {shown(one['score error, median'])} to"
        f" {shown(nine['score error, median'])}."
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
    raw, mala = (
        row("langevin_bias", step_h="0.8", method=method)
        for method in ("unadjusted", "Metropolis-adjusted")
    )
    return (
        "Slowly: from N(0, I) the mode of weight 0.2 holds"
        f" {early[0]} ± {early[1]} at t = 5 (the note's 10; exact {early[2]}) and"
        f" {late[0]} ± {late[1]} at t = 50. At h = 0.8 the unadjusted step widens the variance by"
        f" {100 * float(raw['var/true - 1']):.0f} %, the adjusted by"
        f" {100 * float(mala['var/true - 1']):.1f} ± {100 * float(mala['error']):.1f} %,"
        f" accepting {100 * float(mala['accepted']):.0f} %."
    )


def score_matching_1d() -> str:
    """Parity, and the error of each objective with enough data."""
    printed = [r for r in rows("score_matching_1d_losses") if r["run"] != "denoising"]
    worst = largest(r["relative difference"] for r in printed)

    def error(objective: str, points: str) -> Row:
        return row("score_matching_1d", objective=objective, points=points)

    consistent = ("explicit", "implicit", "sliced", "finite differences")
    most = largest(error(name, "65536")["Fisher error"] for name in consistent)
    implicit = error("implicit", "65536")
    return (
        f"All {len(printed)} seeded published losses come out, to {worst:.0e} relative. With 65,536"
        f" points every consistent objective is within {100 * most:.2g} % of the exact score"
        f" (relative Fisher error; implicit {100 * float(implicit['Fisher error']):.2g} ±"
        f" {100 * float(implicit['Fisher error ±']):.1g} %, from 256 points"
        f" {100 * float(error('implicit', '256')['Fisher error']):.0f} %)."
    )


def score_matching_2d() -> str:
    """The least and the largest error with enough data, and parity."""
    found = rows("score_matching_2d")
    worst = max(found, key=lambda r: float(r["Fisher error"]))
    explicit = row("score_matching_2d", objective="explicit")
    few = row("score_matching_2d_fits", objective="implicit", data="128")
    return (
        "All within 10 % relative Fisher error of the exact score of three Gaussians with enough"
        f" data: from {100 * float(explicit['Fisher error']):.2g} % (explicit) to"
        f" {100 * float(worst['Fisher error']):.2g} % ({worst['objective']}); from 128 points the"
        f" implicit one is off by {float(few['Fisher error']):.0f} times the score's own energy."
    )


def ncsn() -> str:
    """The left weight with the note's faults and without."""

    def left(pace: str, faults: str, score: str) -> str:
        found = row("ncsn", pace=pace, faults=faults, score=score)
        return f"{shown(found['left weight'], 3)} ± {shown(found['error'], 1)}"

    return (
        f"With its four faults the exact score leaves {left('note', 'all faults', 'exact')} of the"
        f" mass on the left instead of 0.1; without them {left('slow', 'no fault', 'exact')}, and"
        f" the learned score {left('slow', 'no fault', 'learned')}."
    )


def low_density() -> str:
    """The error where data are and where they are not, and with noise."""

    def error(objective: str, where: str) -> str:
        found = row("low_density_levels", target="pair", objective=objective)
        return f"{100 * float(found[where]):.2g} %"

    return (
        "Of a pair of Gaussians the implicit objective learns the score to"
        f" {error('implicit', 'high density')} where the data are and to"
        f" {error('implicit', 'low density')} where they are not; under noise of σ = 6"
        f" the latter is {error('denoising, sigma = 6', 'low density')}."
    )


ANSWERS = {
    "julia_ddpm": julia_ddpm,
    "forward_reverse": forward_reverse,
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
