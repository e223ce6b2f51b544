"""A study of one sweep, which the tests of sweeps load, copy and run.

It reads environment variables that no result depends on.  TOY_MARKS names a folder where each cell
that is begun leaves a file CELL.PROCESS.TIME.  TOY_PAUSE is a pause in each cell, in seconds.
TOY_STOP is a number of cells: those begun after so many wait until a file "go" lies beside the
folder of marks.  TOY_FAIL and TOY_KILL read "CELL:N CELL:N ...": the cell raises, or kills its
process, when it is begun for the first N times.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffscience.study import Run, Study, run_file

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Config:
    """What the toy sweeps over."""

    targets: tuple[str, ...] = ("grid", "rings")
    steps: tuple[int, ...] = (4, 8)
    seeds: int = 2
    scale: float = 1.5
    seed: int = 7

    @property
    def axes(self) -> dict[str, Any]:
        """Target, steps and seed."""
        return {"target": self.targets, "steps": self.steps, "index": range(self.seeds)}


def marks() -> list[str]:
    """The cells that were begun, each as often as it was."""
    return [path.name.split(".")[0] for path in Path(os.environ["TOY_MARKS"]).iterdir()]


def happens(name: str, cell: str) -> bool:
    """Whether the variable `name` wants something to happen in this begin of the cell."""
    wanted = dict(pair.split(":") for pair in os.environ.get(name, "").split())
    return cell in wanted and marks().count(cell) <= int(wanted[cell])


def begin(cell: str) -> None:
    """Leave a mark; then pause, fail or die as the variables want."""
    if "TOY_MARKS" in os.environ:
        (Path(os.environ["TOY_MARKS"]) / f"{cell}.{os.getpid()}.{time.time_ns()}").touch()
    time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
    if "TOY_STOP" in os.environ and len(marks()) > int(os.environ["TOY_STOP"]):
        late, go = time.monotonic() + 600, Path(os.environ["TOY_MARKS"]).parent / "go"
        while not go.exists() and time.monotonic() < late:
            time.sleep(0.02)
    if happens("TOY_FAIL", cell):
        raise ZeroDivisionError(f"bad luck\nin {cell}")
    if happens("TOY_KILL", cell):
        os.kill(os.getpid(), signal.SIGKILL)


def product(config: Config, run: Run, target: str, steps: int, index: int) -> dict[str, Any]:
    """A mean, a few numbers, and a sum whose order BLAS would change with its threads."""
    begin(f"{target}-{steps}-{index}")
    x = config.scale * run.generator("x", target, steps, index).standard_normal((200, 200))
    return {"mean": x.mean(), "some": (x @ x)[0, :3], "label": f"{target} {steps}"}


def unseeded(config: Config, run: Run, target: str, steps: int, index: int) -> dict[str, Any]:
    """The wrong twin of `product`."""
    x = np.random.default_rng().standard_normal((200, 200))
    return {"mean": x.mean(), "some": (x @ x)[0, :3], "label": f"{target} {steps}"}


def threads(config: Config, run: Run, library: str) -> dict[str, Any]:
    """How many threads a library would use here."""
    if library == "torch":
        import torch

        return {"threads": torch.get_num_threads()}
    if library == "numba":
        import numba

        return {"threads": numba.get_num_threads()}
    if library == "kernel":
        from diffscience.fused import cpus

        return {"threads": cpus()}
    import threadpoolctl

    np.ones((2, 2)) @ np.ones((2, 2))
    found = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
    return {"threads": max(found)}


def compute(config: Config, run: Run) -> dict[str, np.ndarray]:
    """All cells."""
    return run.sweep("toy", product, config.axes, config)


def table(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, pd.DataFrame]:
    """The mean for each target, and all cells."""
    from diffscience import sweep

    cells = sweep.frame(arrays, config.axes)
    cells.attrs["digits"] = {"mean": 3}
    means = cells.groupby("target", as_index=False)["mean"].mean()
    return {"": means, "cells": cells}


def draw(config: Config, arrays: dict[str, np.ndarray]) -> Figure:
    """The means."""
    from diffscience import plots

    figure, axes = plots.figure(height=3.0)
    axes[0, 0].plot(arrays["mean"])
    return figure


STUDY = Study(
    config=Config(),
    quick=Config(seeds=1),
    compute=compute,
    table=table,
    draw=draw,
    question="Does the sweep run?",
)

if __name__ == "__main__":
    raise SystemExit(run_file(__file__))
