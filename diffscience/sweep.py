"""Sweeps: one pure function at every point of a product of axes, computed anywhere.

Definition.

    cells   = {cell in axis_1 x axis_2 x ... : where(cell)},  the last axis fastest
    columns = each axis (cells,), and each value of function(config, run, **cell) (cells, ...)

`study.Run.sweep` is the door.  A cell is decided by the study's name and code, the config that the
function sees, the cell's own values, the seed, the kind of device and the library versions; under
their hash it is kept as soon as it is done, by the main process alone.  So a run that was killed at
any time computes what is missing and no more.

Conventions.  What goes to a worker is the text of the study file, the function's name, its
arguments, and the fingerprint of the package and libraries that the main process has: a worker that
has others refuses.  What comes back are plain arrays, or the text of an error.  A cell that raises
is tried twice in all, one whose worker dies three times; what still fails is told of in one
`CellError` when all others are done.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import inspect
import itertools
import pickle
import queue
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import engines, provenance
from .errors import ArgumentError, CellError
from .errors import function as check_function
from .files import canonical
from .study import Run, plain_arrays

if TYPE_CHECKING:
    import numpy as np
    from pandas import DataFrame

    Arrays = dict[str, np.ndarray]

__all__ = ["computed", "expand", "frame", "imported", "work"]

Cell = dict[str, Any]

_TRIES, _LIVES = 2, 3  # attempts at a cell that raises, and at one whose worker dies


# ------------------------------------------------------------------ the cells


def expand(
    axes: Mapping[str, Iterable[Any]],
    where: Callable[[Cell], bool] | None = None,
) -> list[Cell]:
    """All cells of a product of axes, the last axis fastest, without those that `where` drops.

    Raises ArgumentError for an axis without a good name or values, and if no cell is left.

    >>> expand({"target": ("grid", "rings"), "steps": (4, 8)}, lambda cell: cell["steps"] > 4)
    [{'target': 'grid', 'steps': 8}, {'target': 'rings', 'steps': 8}]
    """
    if not isinstance(axes, Mapping) or not axes:
        raise ArgumentError("axes", "be a mapping of names to values, at least one", axes)
    if where is not None:
        check_function("where", where)
    values = [_axis(name, axis) for name, axis in axes.items()]
    cells = [dict(zip(axes, point)) for point in itertools.product(*values)]
    if where is not None:
        cells = [cell for cell in cells if where(dict(cell))]
    if not cells:
        raise ArgumentError("where", "leave at least one cell", "none")
    return cells


def _axis(name: Any, values: Any) -> list[Any]:
    """The values of one axis as Python's own; ArgumentError if they are of no one kind."""
    if not isinstance(name, str) or not name.isidentifier() or name in ("config", "run"):
        rule = "have names that a function's arguments can have, other than config and run"
        raise ArgumentError("axes", rule, name)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ArgumentError(f"axis {name}", "be a sequence of values", values)
    plain = [value.item() if hasattr(value, "item") else value for value in values]
    kinds = {float if type(value) is int else type(value) for value in plain}
    huge = any(type(value) is int and abs(value) >= 2**63 for value in plain)
    if len(kinds) != 1 or not kinds <= {str, float, bool} or huge:
        rule = "hold values of one kind: text, numbers (whole ones below 2^63) or bools"
        raise ArgumentError(f"axis {name}", rule, plain or "nothing")
    if len(set(plain)) < len(plain):
        raise ArgumentError(f"axis {name}", "hold each value once", plain)
    return plain


def _check(function: Any, cell: Cell, config: Any) -> None:
    """ArgumentError unless `function` has a name of its own and takes config, run and a cell."""
    check_function("function", function)
    name = getattr(function, "__qualname__", "")
    if not name.isidentifier():
        raise ArgumentError("function", "be a top-level function of its file", name or function)
    try:
        signature = inspect.signature(function)
    except ValueError:  # some that are built in do not tell what they take
        return
    try:
        signature.bind(config, None, **cell)
    except TypeError:
        rule = f"take (config, run, {', '.join(cell)})"
        raise ArgumentError("function", rule, f"{name}{signature}") from None


# ------------------------------------------------------------------ the sweep


def computed(
    run: Run,
    name: str,
    function: Callable[..., Mapping[str, Any]],
    axes: Mapping[str, Iterable[Any]],
    config: Any,
    where: Callable[[Cell], bool] | None = None,
) -> Arrays:
    """The columns of a sweep, from the cache or the run's executor: see `study.Run.sweep`."""
    cells = expand(axes, where)
    _check(function, cells[0], config)
    about = {"device": run.device.partition(":")[0], **run.parts}
    about |= {"config": canonical(config), "seed": run.seed}
    own = {"sweep": name, "function": function.__qualname__}
    keys = [{**about, "cell": {**own, "at": cell}} for cell in cells]
    columns = _Columns(cells)
    for i, key in enumerate(keys):
        found = run.recall(key)
        if found is not None:
            columns.put(i, found[0])
    missing = [i for i in range(len(cells)) if i not in columns.rows]
    start, seconds = time.perf_counter(), [0.0]
    bar = run.bar(None, name, total=len(cells), done=len(cells) - len(missing))

    def keep(i: int, arrays: Arrays, took: float) -> None:
        run.remember(keys[i], arrays, took, whole=run.executor is not None)
        columns.put(i, arrays)
        seconds[0] += took
        bar.update()

    with bar, engines.single() if run.executor is None else contextlib.nullcontext():
        failures = _compute(run, [(i, cells[i]) for i in missing], function, config, keep)
    # What workers computed at one time counts as if it had been computed here, cell after cell.
    run.count_seconds(seconds[0] - (time.perf_counter() - start))
    if failures:
        reasons = [(cells[i], failures[i].reason) for i in sorted(failures)]
        raise CellError(name, reasons, len(cells), failures[min(failures)].trace)
    return columns.stacked()


class _Columns:
    """The arrays of cells, which must have one form: the same names, shapes and kinds."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells, self.rows = cells, dict[int, "Arrays"]()
        self._form: dict[str, tuple[Any, ...]] | None = None

    def put(self, i: int, arrays: Arrays) -> None:
        """Take the arrays of cell i; ArgumentError if they are unlike those before."""
        form = {key: (*array.shape, array.dtype.kind in "SU") for key, array in arrays.items()}
        if self._form is None:
            self._form = form
            both = sorted(form.keys() & self.cells[0].keys())
            if both:
                raise ArgumentError("function", "return other names than those of axes", both[0])
        if form.keys() != self._form.keys():
            rule = f"return the same names for all cells ({', '.join(self._form)})"
            raise ArgumentError("function", rule, f"{', '.join(form)} for {self.cells[i]}")
        for key, shape in form.items():
            if shape != self._form[key]:
                rule = f"return {key} with the same shape and kind for all cells"
                found = f"{arrays[key].dtype} {arrays[key].shape} for {self.cells[i]}"
                raise ArgumentError("function", rule, found)
        self.rows[i] = arrays

    def stacked(self) -> Arrays:
        """Axes and values, each with one row for each cell."""
        import numpy as np

        count = range(len(self.cells))
        axes = {name: np.array([cell[name] for cell in self.cells]) for name in self.cells[0]}
        return axes | {key: np.stack([self.rows[i][key] for i in count]) for key in self.rows[0]}


class _Failure(NamedTuple):
    """Why a cell has no arrays, and whether its own code said so or its worker was lost."""

    reason: str
    trace: str
    raised: bool = True
    final: bool = False


Outcome = tuple["Arrays | None", float, "_Failure | None"]


def _compute(
    run: Run,
    cells: Sequence[tuple[int, Cell]],
    function: Callable[..., Any],
    config: Any,
    keep: Callable[[int, Arrays, float], None],
) -> dict[int, _Failure]:
    """Compute numbered cells, calling keep(number, arrays, seconds) for each; those that failed."""
    known = dict(cells)
    waiting = collections.deque(known)
    running: dict[Future[Outcome], int] = {}
    done: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
    attempts: collections.Counter[int] = collections.Counter()
    failures: dict[int, _Failure] = {}
    submit = _submission(run, function, config) if known else None
    try:
        while waiting or running:
            if waiting and submit is not None:
                i = waiting.popleft()
                try:
                    future = submit(known[i])
                except BrokenExecutor as error:  # nobody is there to take it
                    future = Future()
                    future.set_exception(error)
                running[future] = i
                future.add_done_callback(done.put)
            with contextlib.suppress(queue.Empty):
                while running:  # all that is done; if nothing waits, all that is under way
                    future = done.get(block=not waiting)
                    i = running[future]
                    arrays, seconds, failure = _outcome(future)
                    if arrays is not None:
                        keep(i, arrays, seconds)
                    elif failure is not None:
                        attempts[i] += 1
                        if failure.final or attempts[i] >= (_TRIES if failure.raised else _LIVES):
                            failures[i] = failure
                        else:
                            waiting.append(i)
                    del running[future]
    except KeyboardInterrupt:
        for future, i in running.items():
            if future.done():
                arrays, seconds, _ = _outcome(future)
                if arrays is not None:
                    keep(i, arrays, seconds)
        raise
    finally:
        for future in running:
            future.cancel()
    return failures


def _submission(
    run: Run, function: Callable[..., Any], config: Any
) -> Callable[[Cell], Future[Outcome]]:
    """The way of a cell to the run's executor, or to this process if there is none."""
    executor = run.executor
    if executor is None:
        here = engines.Serial()
        return lambda cell: here.submit(_attempt, function, config, run.seed, run.device, cell)
    home = _HOMES.get(function.__module__)  # None: a module that can be imported

    def submit(cell: Cell) -> Future[Outcome]:
        call = pickle.dumps((function, config, run.seed, run.device, cell))
        future: Future[Outcome] = executor.submit(work, home, call)
        return future

    try:
        pickle.dumps((function, config))
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        rule = "be a top-level function of its file, with a config that can be pickled"
        raise ArgumentError("function", rule, str(error)) from None
    return submit


def _outcome(future: Future[Outcome]) -> Outcome:
    """What a future that is done holds, with the loss of its worker as a failure."""
    error = CancelledError() if future.cancelled() else future.exception()
    if error is None:
        return future.result()
    # Dask itself has given such a task to three workers more.
    final = type(error).__name__ == "KilledWorker"
    return None, 0.0, _Failure(_reason(error), _trace(error), raised=False, final=final)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


# ------------------------------------------------------------------ where cells are computed


def _attempt(
    function: Callable[..., Any], config: Any, seed: int, device: str, cell: Cell
) -> Outcome:
    """One cell, wherever this is called: its arrays, or why there are none."""
    start = time.perf_counter()
    try:
        arrays = plain_arrays(function(config, Run(seed, device), **cell), "function")
    except (Exception, SystemExit) as error:
        return None, 0.0, _Failure(_reason(error), _trace(error))
    return arrays, time.perf_counter() - start, None


@dataclasses.dataclass(frozen=True)
class _Home:
    """A study file as it was loaded, and what its functions run with."""

    path: str
    source: str
    fingerprint: Mapping[str, str]


_HOMES: dict[str, _Home] = {}  # module -> the study file that it was loaded from
_LOADING = threading.Lock()


def work(home: _Home | None, call: bytes) -> Outcome:
    """In a worker: the cell that `call` (a pickle of function and arguments) asks for.

    One thread of torch, BLAS and OpenMP, whatever the worker was started with.
    Raises ArgumentError if the worker has other code or libraries than the main process.
    """
    engines.one_thread()
    if home is not None:
        _at_home(home)
    return _attempt(*pickle.loads(call))


def imported(path: Path, source: str) -> types.ModuleType:
    """The study file `path` with the text `source` as the module diffscience_studies.NAME.

    The text that runs is the very text given: no byte-code file is read or written.  Raises
    whatever the file itself raises.
    """
    parent = sys.modules.setdefault("diffscience_studies", types.ModuleType("diffscience_studies"))
    module = types.ModuleType(f"diffscience_studies.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pickles look their module up there
    setattr(parent, path.stem, module)
    home = _Home(str(path), source, provenance.fingerprint())  # before any of it is imported
    exec(compile(source, str(path), "exec"), module.__dict__)
    _HOMES[module.__name__] = home
    return module


def _at_home(home: _Home) -> None:
    """Import the study file of a cell, once, if package and libraries are those of its run."""
    path = Path(home.path)
    with _LOADING:
        if _HOMES.get(f"diffscience_studies.{path.stem}") == home:
            return
        found, wanted = provenance.fingerprint(), home.fingerprint
        other = [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]
        if other:
            rule = f"have the files and libraries of the main process ({', '.join(other)})"
            raise ArgumentError("worker", rule, f"{ {name: found.get(name) for name in other} }")
        imported(path, home.source)


# ------------------------------------------------------------------ the tidy table


def frame(columns: Mapping[str, Any], axes: Iterable[str]) -> DataFrame:
    """A tidy table of a sweep's columns: one row for each cell, the axes first.

    Parameters
    ----------
    columns : name -> array (cells, ...), as `study.Run.sweep` returns them.
    axes : names of the axes (the mapping given to the sweep will do).

    A value (cells, m, n) becomes m n columns, named name[0, 0], name[0, 1], ...
    Raises ArgumentError for an axis that is no column, and for columns of other lengths.

    >>> import numpy as np
    >>> frame({"x": np.ones((2, 2)), "seed": np.arange(2)}, ["seed"])
       seed  x[0]  x[1]
    0     0   1.0   1.0
    1     1   1.0   1.0
    """
    import pandas as pd

    arrays, names = plain_arrays(columns, "columns"), list(axes)
    for name in names:
        if name not in arrays or arrays[name].ndim != 1:
            rule = f"name columns (cells,), of {', '.join(arrays)}"
            raise ArgumentError("axes", rule, name)
    if not names:
        raise ArgumentError("axes", "name at least one column", names)
    rows = arrays[names[0]].shape
    for name, array in arrays.items():
        if array.shape[:1] != rows:
            raise ArgumentError(f"column {name}", f"have {rows[0]} rows", f"shape {array.shape}")
    ordered = [*names, *(name for name in arrays if name not in names)]
    return pd.DataFrame(dict(pair for name in ordered for pair in _flat(name, arrays[name])))


def _flat(name: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    if array.ndim == 1:
        yield name, array
        return
    indices = itertools.product(*map(range, array.shape[1:]))
    for index, column in zip(indices, array.reshape(len(array), -1).T):
        yield f"{name}{list(index)}", column
