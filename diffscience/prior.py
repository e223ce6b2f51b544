"""Where reverse runs start: the Gaussian prior of a process, and how far it is from the truth.

    prior          N(0, var(T) I), the law of X_T with the data forgotten
    p_T            the law of X_T itself: alpha(T) of the data is still in it

A run that starts from the wrong law samples another one: with the exact score, the process of the
note score_based_sde and N(0, 1) in the place of p_1, 0.29 of the mass ends right of 0.2 instead of
0.20. Whoever knows p_T is told of a gap, in numbers, by a `PriorWarning`.

Conventions: a gap in the mean is counted in standard deviations of the truth along its axis; gaps
below 5 % or below six standard errors of the sample are not spoken of.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from .arrays import Array, Draws, numpy
from .errors import instance, whole
from .models import Oracle
from .process import Process

_SMALL, _ERRORS = 0.05, 6.0


class PriorWarning(UserWarning):
    """A run starts from another law than that of the process at its time."""


def prior(process: Process | Oracle, n: int, dim: int, generator: Any) -> Array:
    """n points of N(0, var(T) I), (n, D), float64: where the reverse process is started.

    process : or an `Oracle`, which then warns where its p_T has other moments.

    >>> import diffscience as ds
    >>> prior(ds.VP(), 3, 2, 0).shape
    (3, 2)
    """
    if isinstance(process, Oracle):
        oracle, process = process, process.process
        wide = math.sqrt(process.var(process.T))
        _speak(oracle, process.T, np.zeros(dim), np.full(dim, wide), math.inf)
    instance("process", process, Process)
    whole("n", n, 0)
    whole("dim", dim, 1)
    return math.sqrt(process.var(process.T)) * Draws(generator).normal(n, dim)


def compare(oracle: Oracle, x: Array, t: float) -> None:
    """Warn where the points x (n, D) have not the mean and spread of p_t; n >= 100, else silence.

    >>> import diffscience as ds
    >>> oracle = ds.Oracle(ds.gallery.julia_bimodal(), ds.VP())
    >>> compare(oracle, oracle.at(1.0).sample(1000, 0), 1.0)
    """
    points = numpy(x)
    if points.ndim == 2 and points.shape[1] == oracle.law.dim and len(points) >= 100:
        _speak(oracle, t, points.mean(axis=0), points.std(axis=0), float(len(points)))


def _speak(oracle: Oracle, t: float, mean: np.ndarray, std: np.ndarray, n: float) -> None:
    law = oracle.at(t)
    true = np.sqrt(np.diag(numpy(law.cov)))
    off, ratio = (mean - numpy(law.mean)) / true, std / true - 1
    # Of a mean and of a standard deviation; a law of heavier tails is given twice as much.
    least = np.array([1.0, 2.0]) * _ERRORS / math.sqrt(n) if math.isfinite(n) else np.zeros(2)
    if np.any(np.abs(off) > max(_SMALL, least[0])) or np.any(np.abs(ratio) > max(_SMALL, least[1])):
        i = int(np.argmax(np.maximum(np.abs(off), np.abs(ratio))))
        warnings.warn(
            f"the start has mean {mean[i]:.4g} and standard deviation {std[i]:.4g} on axis {i}, the"
            f" law of the process at t = {t:g} has {float(numpy(law.mean)[i]):.4g} and"
            f" {true[i]:.4g}: start from oracle.at({t:g}).sample(...) to sample the law itself",
            PriorWarning,
            stacklevel=4,
        )
