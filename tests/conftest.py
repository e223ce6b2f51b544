"""One thread a process: workers that share the cores would otherwise wait for each other."""

from __future__ import annotations

import os
from typing import Any

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each file on one worker, so that what its tests share is computed once."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)
