"""A study that the runner's tests copy into folders of their own: a few cells of Gaussian noise.

It reads environment variables that no result depends on: TOY_LOG names a file that gets a line for
each cell that is computed, TOY_SLEEP is a pause in each of them, in seconds, and TOY_MEET names a
folder where two runs wait for each other after the last drawing, just before they write.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffscience import plots
from diffscience.errors import ArgumentError
from diffscience.study import Run, Study, run_file


@dataclasses.dataclass(frozen=True)
class Config:
    """What the toy computes."""

    cells: int = 8
    n: int = 800
    scale: float = 1.5
    shifts: tuple[float, ...] = (0.0, 1.0)
    label: str = "noise"
    loud: bool = False
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("cells", "n"):
            if getattr(self, name) < 1:
                raise ArgumentError(name, "be 1 or more", getattr(self, name))
        if not self.shifts:
            raise ArgumentError("shifts", "hold at least one number", self.shifts)


def work(index: int, config: Config, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """One row: scale times noise."""
    if "TOY_LOG" in os.environ:
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write(f"{index}\n")
    time.sleep(float(os.environ.get("TOY_SLEEP", "0")))
    return {"x": config.scale * generator.standard_normal(config.n) + config.shifts[0]}


def compute(config: Config, run: Run) -> dict[str, np.ndarray]:
    """All rows, each a cell."""
    rows = [
        run.cell(f"row {i}", work, i, config, run.generator("row", i))["x"]
        for i in run.progress(config.cells, "rows")
    ]
    return {"x": np.stack(rows)}


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """Means, and one line of a second table."""
    x = arrays["x"]
    return {
        "": pd.DataFrame({"row": range(len(x)), "mean": x.mean(axis=1), "std": x.std(axis=1)}),
        "total": pd.DataFrame({"label": [config.label], "mean": [x.mean()]}),
    }


def draw(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Figure]:
    """The sorted rows."""
    fig, axes = plots.figure(height=3.0)
    axes[0, 0].plot(np.sort(arrays["x"], axis=1).T)
    axes[0, 0].set_title(config.label)
    return {"": fig}


def meet() -> None:
    """Wait, half a minute at most, until two runs are here."""
    if "TOY_MEET" not in os.environ:
        return
    folder, start = Path(os.environ["TOY_MEET"]), time.monotonic()
    (folder / str(os.getpid())).touch()
    while len(list(folder.iterdir())) < 2 and time.monotonic() < start + 30:
        time.sleep(0.001)


def animate(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """Row after row."""
    frames = []
    for row in arrays["x"][:2]:
        fig, axes = plots.figure(height=3.0)
        axes[0, 0].plot(row[:50])
        frames.append(plots.frame(fig, dpi=40))
    meet()
    return {"film": plots.gif(frames, 100)}


STUDY = Study(
    config=Config(),
    quick=Config(cells=2, n=50),
    compute=compute,
    table=table,
    draw=draw,
    question="Does the toy run?",
    animate=animate,
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
