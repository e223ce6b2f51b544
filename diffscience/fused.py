"""Log-density and responsibility-weighted means of a Gaussian mixture, fast and in bounded memory.

For points x (n, D) and components k = 1..K,

    logit_k(x) = log_weight_k − ½ |whitening_k (x − mean_k)|²,
    log_prob(x) = log Σ_k exp logit_k(x),    r_k(x) = exp(logit_k(x) − log_prob(x)),
    value(x) = Σ_k r_k(x) (gain_k (x − mean_k) + offset_k).

log_weight carries each component's normaliser, log w_k + log |det whitening_k| − (D/2) log 2π. The
score is the value with gain = −whiteningᵀ whitening and offset 0; posterior means have other gains
and offsets.

Two ways, equal to rounding:

* `mixture`, for D = 1 or 2: a loop compiled through LLVM (numba), float64 inside, one pass;
* `plain`, for any D: NumPy in chunks.

`evaluate` chooses. Its choice depends on the sizes and on the environment alone, never on what was
called before, so that a run repeats bit for bit: `plain` below SMALL point-component pairs, where
a compilation (4 s once per machine, then 0.5 s to load) would not pay, `mixture` from there on.
The variable DIFFSCIENCE_COMPILE overrides it: 0 for `plain` always, 1 for `mixture` always. Within
`counted_as(n)` it is that for n points, so that the parts of a whole are answered as the whole is.

Both ways answer each point alone: the same point has the same bits in any batch, any order and
with any number of threads. A NaN stays in its row; at an infinite point, or where every logit
overflows, log_prob is −inf and value NaN.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import numpy as np
from numpy.typing import ArrayLike

from .errors import ArgumentError

SMALL = 200_000  # pairs below which `evaluate` takes the plain path
_PLAIN_PAIRS = 200_000  # pairs per chunk of the plain path; its five arrays then stay in the cache
_PLAIN_WORKERS = 8  # threads of the plain path at most, each with such arrays of its own
_LANES = 16  # the plain path pads its points to a multiple of this
_POINTS = 16_000  # points per task of the compiled path; a multiple of its block
_THREADING = 1_000_000  # pairs below which one thread is as fast as several
_LOWEST = -np.finfo(np.float64).max

Answer = tuple[np.ndarray, np.ndarray]

_rows: ContextVar[int] = ContextVar("rows", default=0)


@contextlib.contextmanager
def counted_as(n: int) -> Iterator[None]:
    """Within, in this thread, `evaluate` chooses its way as for n points at least.

    >>> one = np.eye(2)[None]
    >>> given = [-np.log(2 * np.pi)], [[0.0, 0.0]], one, -one, [[0.0, 0.0]]
    >>> whole = np.random.default_rng(0).normal(size=(SMALL, 2))
    >>> with counted_as(len(whole)):
    ...     part = evaluate(whole[:3], *given)
    >>> bool(np.all(part[1] == evaluate(whole, *given)[1][:3]))
    True
    """
    token = _rows.set(max(n, _rows.get()))
    try:
        yield
    finally:
        _rows.reset(token)


def available() -> bool:
    """Whether `mixture` can run: numba imports, and neither of two variables forbids compiling.

    NUMBA_DISABLE_JIT=1 and DIFFSCIENCE_COMPILE=0 do. The first call imports numba (0.4 s).

    Examples
    --------
    >>> available() in (True, False)
    True
    """
    if os.environ.get("DIFFSCIENCE_COMPILE") == "0":
        return False
    return os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0") and _importable()


@functools.cache
def _importable() -> bool:
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        # Only to learn whether it can be imported.
        import numba  # noqa: F401
    except ImportError:  # numba refuses a NumPy that is too new for it
        return False
    return True


def evaluate(
    x: np.ndarray,
    log_weight: ArrayLike,
    means: ArrayLike,
    whitening: ArrayLike,
    gain: ArrayLike,
    offset: ArrayLike,
) -> Answer:
    """log_prob (n,) and value (n, D) at x by the way that suits the size; see the module.

    Parameters
    ----------
    x : (n, D), float32 or float64, any strides; the answers have its dtype.
    log_weight : (K,), natural logarithm, normaliser included; −inf for a weight of zero.
    means, offset : (K, D).
    whitening, gain : (K, D, D).

    Raises
    ------
    ArgumentError : x is no float32 or float64 matrix, or a parameter has another shape than above.

    Examples
    --------
    The standard normal law of the plane and its score:

    >>> one = np.eye(2)[None]
    >>> x = np.array([[0.0, 0.0], [3.0, 4.0]])
    >>> log_prob, score = evaluate(x, [-np.log(2 * np.pi)], [[0.0, 0.0]], one, -one, [[0.0, 0.0]])
    >>> print(log_prob.round(6), score)
    [ -1.837877 -14.337877] [[ 0.  0.]
     [-3. -4.]]
    """
    x = np.asarray(x)
    always = os.environ.get("DIFFSCIENCE_COMPILE") == "1"
    wanted = x.ndim == 2 and x.shape[1] <= 2
    rows = max(len(x), _rows.get())
    wanted = wanted and (always or rows * np.size(log_weight) >= SMALL)
    way = mixture if wanted and available() else plain
    return way(x, log_weight, means, whitening, gain, offset)


def mixture(
    x: np.ndarray,
    log_weight: ArrayLike,
    means: ArrayLike,
    whitening: ArrayLike,
    gain: ArrayLike,
    offset: ArrayLike,
    threads: int | None = None,
) -> Answer:
    """The compiled path; D = 1 or 2, arguments and answers as for `evaluate`.

    Parameters
    ----------
    threads : how many at most; by default `cpus()`. The answers do not
        depend on it.

    Raises
    ------
    ArgumentError : as `evaluate`, and for D > 2 or threads < 1.
    ImportError : numba is not there (ask `available` first).

    Examples
    --------
    >>> one = np.eye(1)[None]
    >>> x = np.array([[2.0]], dtype=np.float32)
    >>> log_prob, score = mixture(x, [0.0], [[0.0]], one, -one, [[0.0]])
    >>> log_prob, score
    (array([-2.], dtype=float32), array([[-2.]], dtype=float32))
    """
    x, *parameters = _checked(x, log_weight, means, whitening, gain, offset)
    if x.shape[1] > 2:
        raise ArgumentError("x", "have 1 or 2 columns here", x.shape)
    from . import kernel

    log_prob, value = np.empty(x.shape[0], x.dtype), np.empty(x.shape, x.dtype)
    if not x.size:
        return log_prob, value
    run, components = kernel.compiled(x.dtype), kernel.pack(*parameters)

    def task(first: int, last: int) -> None:
        run(x, components, log_prob, value, first, last)

    _spread(task, len(x), _POINTS, len(components), threads)
    return log_prob, value


def plain(
    x: np.ndarray,
    log_weight: ArrayLike,
    means: ArrayLike,
    whitening: ArrayLike,
    gain: ArrayLike,
    offset: ArrayLike,
    threads: int | None = None,
) -> Answer:
    """The NumPy path; any D, arguments and answers as for `evaluate` and `mixture`.

    Float64 but for the exponentials, which have the dtype of x; they are clamped before they
    become denormal numbers (those cost up to a hundred times the time).

    Examples
    --------
    >>> one = np.eye(3)[None]
    >>> zero = np.zeros((1, 3))
    >>> log_prob, score = plain(np.ones((1, 3)), [0.0], zero, one, -one, zero)
    >>> log_prob, score
    (array([-1.5]), array([[-1., -1., -1.]]))
    """
    x, *parameters = _checked(x, log_weight, means, whitening, gain, offset)
    log_prob, value = np.empty(x.shape[0], x.dtype), np.empty(x.shape, x.dtype)
    if not x.size:
        return log_prob, value
    count = len(parameters[0])
    step = max(_LANES, _PLAIN_PAIRS // count // _LANES * _LANES)

    def task(first: int, last: int) -> None:
        room = np.empty((x.shape[1] + 3, count * min(step, -(-(last - first) // _LANES) * _LANES)))
        for start in range(first, last, step):
            part = slice(start, min(last, start + step))
            log_prob[part], value[part] = _plain_chunk(room, x[part], *parameters)

    _spread(task, len(x), 8 * step, count, threads, _PLAIN_WORKERS)
    return log_prob, value


def _plain_chunk(
    room: np.ndarray,
    x: np.ndarray,
    log_weight: np.ndarray,
    means: np.ndarray,
    whitening: np.ndarray,
    gain: np.ndarray,
    offset: np.ndarray,
) -> Answer:
    """One chunk, in arrays (K, points) within `room`, the points padded to a multiple of _LANES.

    NumPy then runs its inner loops over the points, also for one point: sums over components are
    in order, and vector loops have no remainder.
    """
    points, dim = x.shape
    columns = np.zeros((dim, -(-points // _LANES) * _LANES))
    columns[:, :points] = x.T
    finite = np.isfinite(columns).all(axis=0)
    safe = np.where(finite, columns, 0.0)
    pairs = len(means) * columns.shape[1]
    *d, logits, w, work = (flat[:pairs].reshape(len(means), -1) for flat in room)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        for j in range(dim):
            np.subtract(safe[j], means[:, j, None], out=d[j])
        for row in range(dim):
            _combine(np.sqrt(0.5) * whitening[:, row], d, w, work)
            if row:
                logits += np.multiply(w, w, out=w)
            else:
                np.multiply(w, w, out=logits)
        np.subtract(log_weight[:, None], logits, out=logits)
        top = np.maximum(logits.max(axis=0), _LOWEST)
        logits -= top
        np.maximum(logits, -80.0 if x.dtype == np.float32 else -700.0, out=logits)
        r = _exp(logits, x.dtype, work)
        total = r.sum(axis=0)
        value = np.empty(columns.shape)
        for row in range(dim):
            _combine(gain[:, row], d, w, work)
            if offset.any():
                w += offset[:, row, None]
            value[row] = np.multiply(w, r, out=w).sum(axis=0)
        value /= total
        log_prob = top + np.log(total)
        lost = ~finite | (top == _LOWEST)
        log_prob[lost], value[:, lost] = -np.inf, np.nan
        log_prob[np.isnan(columns).any(axis=0)] = np.nan
        return log_prob[:points].astype(x.dtype), value[:, :points].T.astype(x.dtype)


def _combine(weights: np.ndarray, d: list[np.ndarray], w: np.ndarray, work: np.ndarray) -> None:
    """w <- Σ_j weights[:, j]·d_j."""
    np.multiply(weights[:, 0, None], d[0], out=w)
    for j in range(1, len(d)):
        w += np.multiply(weights[:, j, None], d[j], out=work)


def _exp(logits: np.ndarray, dtype: np.dtype, work: np.ndarray) -> np.ndarray:
    """exp in `dtype`, in place; float32 goes through the room that `work` has to spare."""
    if dtype == np.float64:
        return np.exp(logits, out=logits)
    single = work.reshape(-1).view(np.float32)[: logits.size].reshape(logits.shape)
    single[:] = logits
    logits[:] = np.exp(single, out=single)
    return logits


def _spread(
    task: Callable[[int, int], None],
    points: int,
    step: int,
    count: int,
    threads: int | None,
    most: int | None = None,
) -> None:
    """Run task(first, last) over the points in steps, on a pool of its own if that pays.

    threads : as many; None: as many as there are cores, `most` at most.

    A pool per call costs 0.1 ms and leaves nothing behind: no thread to be lost in a fork, none
    to wait for when calls come from several threads.
    """
    if threads is not None and threads < 1:
        raise ArgumentError("threads", "be 1 or more", threads)
    firsts = range(0, points, step)
    workers = min(threads or min(cpus(), most or cpus()), len(firsts))
    if workers == 1 or (threads is None and points * count < _THREADING):
        for first in firsts:
            task(first, min(points, first + step))
        return
    with ThreadPoolExecutor(workers) as pool:
        # list: an exception in a task is raised here.
        list(pool.map(lambda first: task(first, min(points, first + step)), firsts))


def cpus() -> int:
    """How many CPUs this process may use, and no more than $NUMBA_NUM_THREADS."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        count = os.cpu_count() or 1
    limit = os.environ.get("NUMBA_NUM_THREADS", "")
    return min(count, int(limit)) if limit.isdecimal() and int(limit) else count


def _checked(x: np.ndarray, *parameters: ArrayLike) -> list[np.ndarray]:
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] < 1 or x.dtype not in (np.float32, np.float64):
        raise ArgumentError("x", "be a float32 or float64 array (n, D)", f"{x.dtype} {x.shape}")
    arrays = [np.asarray(p, dtype=np.float64) for p in parameters]
    count, dim = arrays[0].shape[0] if arrays[0].ndim == 1 else 0, x.shape[1]
    shapes = [(count,), (count, dim), (count, dim, dim), (count, dim, dim), (count, dim)]
    names = ["log_weight", "means", "whitening", "gain", "offset"]
    for name, array, shape in zip(names, arrays, shapes, strict=True):
        if array.shape != shape or not count:
            raise ArgumentError(name, f"have shape {shape} with K >= 1", array.shape)
    return [x, *arrays]
