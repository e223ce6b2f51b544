"""One thread a process: workers that share the cores would otherwise wait for each other."""

from __future__ import annotations

import collections
import os
import pickle
from concurrent.futures import BrokenExecutor, Future
from typing import Any

import pytest

# Rounding is compared on the CPU; on a GPU, JAX would besides take most of its memory at once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.fixture
def only_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on every law refuses to answer: tables and figures are made of arrays alone."""
    from diffscience import targets
    from diffscience.boxes import Boxes
    from diffscience.curves import Curve
    from diffscience.mixture import GaussianMixture
    from diffscience.rings import Rings

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("drawing asked a law")

    for kind in (targets.Target, GaussianMixture, Curve, Rings, Boxes):
        for name in ("log_prob", "score", "hessian", "sample", "quadrature", "cdf", "quantile"):
            if name in vars(kind):
                monkeypatch.setattr(kind, name, refuse)


@pytest.fixture
def lossy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An engine that loses the worker of every cell once and then calls it here.

    cells : the function and the values of each try. counts() : the tries of each function.
    """
    from diffscience import engines

    class Lossy(engines.Serial):
        def __init__(self) -> None:
            self.cells: list[tuple[str, str]] = []

        def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            own, *_, cell = pickle.loads(args[1])
            tried = (own.__name__, repr(cell))
            self.cells.append(tried)
            if self.cells.count(tried) == 1:
                raise BrokenExecutor("lost")
            return super().submit(function, *args, **kwargs)

        def counts(self) -> dict[str, int]:
            return collections.Counter(name for name, _ in self.cells)

    monkeypatch.setattr(engines, "one_thread", lambda: None)  # this process may have one already
    return Lossy()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file on one worker, so that what its tests share is computed once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
