"""The README's table of studies, from the committed table of the study `summary`.

`python tests/readme.py` writes it anew; `test_summary.py` holds the README against it.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from diffscience import runner

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def line(name: str, question: str, answer: str) -> str:
    """A row of the table, with links to the study, which opens with formulas, and its pictures."""
    pictures = sorted((ROOT / "figures").glob(f"{name}*.*"), key=lambda p: (p.stem, p.suffix))
    links = [
        f"[{path.stem[len(name) + 1 :].replace('_', ' ') or 'main'}"
        f"{' (film)' * (path.suffix == '.gif')}](figures/{path.name})"
        for path in pictures
        if path.suffix in (".png", ".gif") and re.fullmatch(rf"{name}(_\w+)?", path.stem)
    ]
    text = f"{question} {answer}".replace("|", r"\|")
    return f"| [`{name}`](studies/{name}.py) | {text} | {', '.join(links)} |"


def table() -> str:
    """The table of studies as Markdown."""
    lines = ["| study | its question, and the answer in numbers | figures |", "|---|---|---|"]
    with (ROOT / "figures" / "summary.csv").open(encoding="utf-8") as file:
        lines += [
            line(row["study"], row["question"], row["answer"]) for row in csv.DictReader(file)
        ]
    asked = runner.question(ROOT / "studies" / "summary.py")
    lines.append(line("summary", asked, "All of this on [one page](figures/summary.md)."))
    return "\n".join(lines) + "\n"


def written(text: str) -> str:
    """The README with its table of studies made anew."""
    return re.sub(r"\| study \|.*?\n\n", lambda _: table() + "\n", text, count=1, flags=re.S)


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
