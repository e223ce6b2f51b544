"""What a study is: a config turned into arrays, and the arrays into a table and figures.

Definition.

    arrays  = compute(config, run)      the numbers; the only part that takes time, and is cached
    tables  = table(config, arrays)
    figures = draw(config, arrays)      no part of these two computes, no part of compute draws

A study is one file, studies/NAME.py, that defines STUDY = Study(...) and ends with

    if __name__ == "__main__":
        raise SystemExit(run_file(__file__))

Conventions.  Every random stream is  stream(seed, key) = generator seeded by sha256(seed, key):
streams of different keys are independent, none depends on the order in which they are asked for,
and no global generator is touched.  A cell is a unit of work that is kept on disk as soon as it is
done, so that an interrupted run continues where it stopped; it must depend on nothing but the
config, the seed and its own arguments.  A sweep is a product of axes with one cell at each point,
and its cells may be computed anywhere (`engines`).
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ArgumentError

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import numpy as np
    import torch
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from .store import Cache

    Arrays = dict[str, np.ndarray]

__all__ = ["Run", "Study", "plain_arrays", "run_file"]


@dataclasses.dataclass(frozen=True)
class Study:
    """One question, and the functions that answer it.

    Parameters
    ----------
    config : frozen dataclass of numbers, strings, tuples and such: the full mode.  A field `seed`
        is the default seed (0 without one).
    quick : the same class with values that run in seconds: what tests and newcomers use.
    compute : (config, run: Run) -> name -> array or tensor.
    table : (config, arrays) -> DataFrame, or part -> DataFrame.  Part "" gives NAME.csv and
        NAME.md, part "x" NAME_x.csv and NAME_x.md; part "cells", of one row for each cell of a
        sweep, NAME_cells.csv and NAME_cells.parquet.
    draw : (config, arrays) -> Figure, or part -> Figure.  Part "" gives NAME.png, part "x"
        NAME_x.png, each with an .svg beside it.
    question : one sentence that ends in a question mark.
    animate : (config, arrays) -> part -> bytes of a GIF (see `plots.gif`).
    last : whether `compute` reads what the other studies of its folder have found (`Run.table`);
        such a study runs after them.
    alone : whether nothing should run beside it, since it takes times.

    Raises ArgumentError if a part is of the wrong kind.

    Examples
    --------
    >>> @dataclasses.dataclass(frozen=True)
    ... class Config:
    ...     n: int = 1000
    ...     seed: int = 1
    >>> def compute(config, run):
    ...     return {"x": run.generator("x").standard_normal(config.n)}
    >>> study = Study(Config(), Config(n=10), compute, lambda c, a: None, lambda c, a: None,
    ...               "How does a Gaussian sample look?")
    >>> study.compute(study.quick, Run(study.seed))["x"].shape
    (10,)
    """

    config: Any
    quick: Any
    compute: Callable[[Any, Run], Mapping[str, Any]]
    table: Callable[[Any, Arrays], DataFrame | Mapping[str, DataFrame]]
    draw: Callable[[Any, Arrays], Figure | Mapping[str, Figure]]
    question: str
    animate: Callable[[Any, Arrays], Mapping[str, bytes]] | None = None
    last: bool = False
    alone: bool = False

    def __post_init__(self) -> None:
        for name in ("config", "quick"):
            value = getattr(self, name)
            params = getattr(type(value), "__dataclass_params__", None)
            if params is None or not params.frozen:
                raise ArgumentError(name, "be an instance of a frozen dataclass", value)
            Run(getattr(value, "seed", 0))  # checks it
        if type(self.config) is not type(self.quick):
            raise ArgumentError("quick", "be of the class of config", self.quick)
        for name in ("compute", "table", "draw"):
            if not callable(getattr(self, name)):
                raise ArgumentError(name, "be a function", getattr(self, name))
        if not isinstance(self.question, str) or not self.question.endswith("?"):
            raise ArgumentError("question", "be a sentence that ends in '?'", self.question)
        if self.animate is not None and not callable(self.animate):
            raise ArgumentError("animate", "be a function or None", self.animate)
        for name in ("last", "alone"):
            if not isinstance(getattr(self, name), bool):
                raise ArgumentError(name, "be True or False", getattr(self, name))

    @property
    def seed(self) -> int:
        """The seed of the full config: its field `seed`, or 0."""
        seed: int = getattr(self.config, "seed", 0)
        return seed


def plain_arrays(values: Any, name: str = "compute") -> Arrays:
    """`values` as name -> NumPy array on the CPU, detached; tensors and numbers are converted.

    Raises ArgumentError for anything that is no mapping to arrays of numbers or text.
    """
    import numpy as np

    if not isinstance(values, Mapping):
        raise ArgumentError(name, "return a mapping of names to arrays", values)
    arrays = {}
    for key, value in values.items():
        if hasattr(value, "detach"):  # a tensor, known without importing torch
            value = value.detach().cpu().numpy()
        array = np.array(value)
        if not isinstance(key, str) or not key or array.dtype.hasobject:
            rule = "return arrays of numbers or text under names"
            raise ArgumentError(name, rule, f"{key!r}: {value!r}")
        arrays[key] = array
    return arrays


class Run:
    """What `compute` is given: random streams, the device, cells, sweeps and progress bars.

    Parameters
    ----------
    seed : whole number >= 0.
    device : where tensors should live, as torch names it.
    cache : where cells are kept; None keeps nothing (for tests and notebooks).
    parts : what, besides the cell's name, decides a cell's arrays.
    quiet : no progress bars.
    executor : where the cells of sweeps are computed (see `engines.opened`); None: here.
    interrupted : whether Ctrl-C was pressed.  A training that it ends returns what it has reached,
        and a study may well go on with that; the run ends before a cell made of it is kept.
    tables : name -> text of the CSV files of other studies, for one that runs `last`.

    Examples
    --------
    >>> run = Run(seed=1)
    >>> first, again = run.generator("noise", 3).random(), run.generator("noise", 3).random()
    >>> first == again, first == run.generator("noise", 4).random()
    (True, False)
    >>> run.cell("sum", lambda a, b: {"total": a + b}, 2, 3)["total"]
    array(5)
    """

    def __init__(
        self,
        seed: int,
        device: str = "cpu",
        cache: Cache | None = None,
        parts: Mapping[str, Any] | None = None,
        quiet: bool = True,
        executor: Executor | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        tables: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise ArgumentError("seed", "be a whole number from 0 to 2^63 - 1", seed)
        self.seed, self.device = seed, device
        self._saved_seconds = 0.0  # spent by earlier runs on cells found in the cache
        self._cache, self._quiet, self._interrupted = cache, quiet, interrupted
        self.parts, self.executor = dict(parts or {}), executor
        self._tables = dict(tables or {})
        self._names: set[str] = set()
        self._generators: list[object] = []  # kept, so that an id cannot come back

    def _stream(self, key: tuple[str | int | float, ...]) -> int:
        """256 bits that are a function of the seed and the key alone."""
        if not all(isinstance(part, (str, int, float)) for part in key):
            raise ArgumentError("key", "be made of strings and numbers", key)
        text = json.dumps([self.seed, *key])
        return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")

    def seed_for(self, *key: str | int | float) -> int:
        """A whole number below 2^63 for this seed and key, for what takes a seed."""
        return self._stream(key) % 2**63

    def generator(self, *key: str | int | float) -> np.random.Generator:
        """A fresh NumPy generator (PCG64 through SeedSequence) for this seed and key."""
        import numpy as np

        return np.random.default_rng(np.random.SeedSequence(self._stream(key)))

    def torch_generator(
        self, *key: str | int | float, device: str | torch.device | None = None
    ) -> torch.Generator:
        """A fresh torch generator for this seed and key, on the run's device unless told.

        torch's CPU generator uses 32 bits of a seed, its CUDA generator 64.
        """
        import torch

        generator = torch.Generator(device=self.device if device is None else device)
        return generator.manual_seed(self.seed_for(*key))

    def cell(self, name: str, function: Callable[..., Mapping[str, Any]], *args: Any) -> Arrays:
        """function(*args) as NumPy arrays, from the cache if it was done before.

        The name, together with config, code, seed, device kind and library versions, decides what
        is looked up; the arguments do not, so they must follow from the config and the name.
        Raises ArgumentError if the name was used before in this run, and if a generator is handed
        to two cells: a run that continues would skip the first and so change the second.
        """
        self._name("cell", name)
        for arg in args:
            if type(arg).__name__ in ("Generator", "RandomState", "BitGenerator"):
                if any(arg is seen for seen in self._generators):
                    rule = "get a generator of its own, run.generator(name)"
                    raise ArgumentError(f"cell {name!r}", rule, "one that another cell has used")
                self._generators.append(arg)
        return self.kept(name, lambda: function(*args))[0]

    def _name(self, kind: str, name: str) -> None:
        """Note the name of a cell or sweep; ArgumentError if one before had it."""
        if name in self._names:
            raise ArgumentError(kind, "have a name of its own in its run", name)
        self._names.add(name)

    def sweep(
        self,
        name: str,
        function: Callable[..., Mapping[str, Any]],
        axes: Mapping[str, Iterable[Any]],
        config: Any,
        *,
        where: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Arrays:
        """function(config, run, **cell) for every cell of a product of axes, as columns.

            cells = {cell in axis_1 x axis_2 x ... : where(cell)},  the last axis fastest

        Parameters
        ----------
        name : of the sweep, unlike that of every other cell and sweep of the run.
        function : a top-level function of the study file (or of a module that can be imported),
            so that another process finds it by name.  It returns name -> number, text or array,
            with the same names and shapes for all cells, and must be a pure function of its
            arguments: `config`, a fresh Run of the same seed and device that keeps and shows
            nothing, and the cell's own values as keywords.  Ask its streams by key, as in
            run.generator("x", target, seed).
        axes : name -> values (text, whole numbers, numbers or bools; one kind for an axis).
        config : what the function sees of the study's config.  It is part of what decides a cell,
            and the study's whole config is not: pass no more than the cells need, and a longer
            axis leaves the finished cells as they are.
        where : which cells to compute; None: all.

        Returns each axis as an array (cells,) and each value as an array (cells, ...), in the
        order of the cells; `sweep.frame` makes a table of them.

        The cells go to the run's `executor`.  Each is kept as soon as it is done.  One that raises
        is tried once more, one whose worker dies twice more; when all others are done, those that
        failed are told of in one CellError.  The same run then computes only those.
        Raises ArgumentError for bad arguments, and as soon as a cell returns other names or shapes
        than one before.

        Examples
        --------
        >>> def noise(config, run, scale, seed):
        ...     return {"x": scale * run.generator("noise", seed).standard_normal()}
        >>> columns = Run(1).sweep("noise", noise, {"scale": (1, 2), "seed": range(3)}, None)
        >>> columns["scale"], columns["seed"]
        (array([1, 1, 1, 2, 2, 2]), array([0, 1, 2, 0, 1, 2]))
        >>> bool(abs(columns["x"][3:] / columns["x"][:3] - 2).max() < 1e-15)
        True
        """
        from .sweep import computed

        self._name("sweep", name)
        return computed(self, name, function, axes, config, where)

    def kept(
        self, name: str, function: Callable[[], Mapping[str, Any]]
    ) -> tuple[Arrays, float, bool]:
        """(arrays, seconds that they took when they were made, whether they come from the cache).

        The runner keeps the whole of `compute` under the name "".
        """
        about = {**self.parts, "cell": name}
        found = self.recall(about)
        if found is not None:
            return *found, True
        start, saved = time.perf_counter(), self._saved_seconds
        arrays = plain_arrays(function(), f"cell {name!r}" if name else "compute")
        seconds = time.perf_counter() - start + self._saved_seconds - saved
        self.remember(about, arrays, seconds)
        return arrays, seconds, False

    def recall(self, about: Mapping[str, Any]) -> tuple[Arrays, float] | None:
        """(arrays, seconds that they took) of what the cache keeps for `about`; None if nothing."""
        found = None if self._cache is None else self._cache.read(self._cache.key(about))
        if found is None:
            return None
        seconds = float(found[1]["seconds"])
        self.count_seconds(seconds)
        return found[0], seconds

    def remember(
        self, about: Mapping[str, Any], arrays: Arrays, seconds: float, *, whole: bool = False
    ) -> None:
        """Keep arrays in the cache, if there is one.

        whole : they were made where Ctrl-C does not reach; others are not kept once it is pressed.
        """
        if self._cache is None:
            return
        if self._interrupted() and not whole:
            raise KeyboardInterrupt
        self._cache.write(self._cache.key(about), arrays, {**about, "seconds": seconds})

    def count_seconds(self, seconds: float) -> None:
        """Count seconds of computing that did not pass here and now: before, or in a worker."""
        self._saved_seconds += seconds

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows of NAME.csv, which another study of the same mode has left in the folder.

        Only a study that runs `last` is given any. Raises ArgumentError where there is none.

        >>> Run(1, tables={"toy": "n,error\\n10,0.5\\n"}).table("toy")
        [{'n': '10', 'error': '0.5'}]
        """
        if name not in self._tables:
            known = ", ".join(sorted(self._tables)) or "none"
            raise ArgumentError("table", f"be one that another study has left ({known})", name)
        return list(csv.DictReader(io.StringIO(self._tables[name])))

    def progress(self, work: Iterable[Any] | int, description: str = "") -> Iterator[Any]:
        """Iterate over `work` (or range(work)); a bar on stderr shows it if that is a terminal."""
        return iter(self.bar(range(work) if isinstance(work, int) else work, description))

    def bar(
        self,
        work: Iterable[Any] | None = None,
        description: str = "",
        *,
        total: int | None = None,
        done: int = 0,
    ) -> Any:
        """A tqdm bar over `work`, or one of `total` steps, `done` of them done, to be updated."""
        from tqdm import tqdm

        hidden = True if self._quiet else None  # None: hidden unless stderr is a terminal
        return tqdm(
            work, description, total, leave=False, file=sys.stderr, disable=hidden, initial=done
        )


def run_file(path: str, argv: Sequence[str] | None = None) -> int:
    """Run the study in the file `path` with the options of `diffscience run`; the exit status."""
    from .__main__ import main

    file = Path(path).resolve()
    options = sys.argv[1:] if argv is None else list(argv)
    return main(["run", file.stem, "--studies", str(file.parent), *options])
