"""From the name of a study to its files.

Definition.  plan = prepare(name, options) checks everything that can be checked before a number is
computed; result = execute(plan) computes (or reads the cache), draws, and publishes

    NAME.csv, NAME.md        the main table           NAME_part.csv, ...   further tables
    NAME_cells.csv, .parquet the cells of a sweep, one a row
    NAME.png, NAME.svg       the main figure          NAME_part.png, ...   further figures
    NAME_part.gif            animations
    NAME.json                the provenance, written last, with the sha256 of every other file

Conventions.  A run is *plain* when it is the study's own full config, seed included.  Plain runs go
to figures/ by default, all others to figures-quick/, and no other run ever replaces the files of a
plain one.  Torch computes on one thread, so that results depend neither on the number of cores nor
on how many studies run at once.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import platform
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from . import files, provenance, store, sweep
from .errors import ArgumentError
from .options import changed_config, nearest, resolve_device
from .study import Run, Study, plain_arrays

__all__ = ["Plan", "Result", "execute", "find", "load", "prepare", "question", "results"]

_PNG_BYTES, _SVG_BYTES, _GIF_BYTES = 1_000_000, 3_000_000, 3_000_000
_CELLS = "cells"  # the part of a study's tables that holds one row for each cell of a sweep
_PART = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*\Z")


# ------------------------------------------------------------------ finding and loading


def folder_of_studies() -> Path:
    """Where the studies lie: inside the installed package, or beside it in the repository."""
    package = Path(__file__).resolve().parent
    inside = package / "studies"
    return inside if inside.is_dir() else package.parent / "studies"


def find(folder: Path | None = None) -> dict[str, Path]:
    """Name -> file of all studies in a folder; ArgumentError if there is no such folder."""
    folder = folder_of_studies() if folder is None else folder
    if not os.path.isdir(folder):  # False, not an error, where nobody may look
        raise ArgumentError("--studies", "be a folder of study files", str(folder))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem[0] != "_"}


def locate(name: str, known: Mapping[str, Path]) -> Path:
    """The file of a study; ArgumentError with the nearest name if there is none."""
    if name in known:
        return known[name]
    names = ", ".join(known) or "none is there"
    raise ArgumentError("study", f"be one of: {names}{nearest(name, known)}", name)


def question(path: Path) -> str:
    """The question of a study, read from its source without running it; "" if that cannot be."""
    with contextlib.suppress(SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        value = provenance.keyword(ast.parse(path.read_bytes()).body, "question", 5)
        if value is not None:
            text = ast.literal_eval(value)
            return text if isinstance(text, str) else ""
    return ""


def load(path: Path) -> tuple[Study, str]:
    """(the study, its source) of a file, imported as diffscience_studies.NAME.

    The text that runs is the very text returned: no byte-code file is read or written.
    Raises ArgumentError if the file defines no STUDY, and whatever the file itself raises.
    """
    source = path.read_text(encoding="utf-8")
    study = getattr(sweep.imported(path, source), "STUDY", None)
    if not isinstance(study, Study):
        raise ArgumentError(f"study {path.name}", "define STUDY = Study(...)", study)
    return study, source


# ------------------------------------------------------------------ planning


@dataclasses.dataclass(frozen=True)
class Plan:
    """A run with everything decided: what `prepare` returns and `execute` carries out."""

    name: str
    path: Path
    study: Study
    source: str
    config: Any
    seed: int
    device: str
    mode: str
    changed: tuple[str, ...]
    out: Path
    siblings: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Of computing, by the record of the result that stands where it writes; 0 without one."""
        found = (_read_provenance(self.out, self.name) or {}).get("seconds")
        return float(found) if isinstance(found, (int, float)) else 0.0

    @property
    def plain(self) -> bool:
        """Whether this is the study's own full run."""
        return self.mode == "full" and not self.changed


def prepare(
    name: str,
    *,
    studies: Path | None = None,
    quick: bool = False,
    changes: Mapping[str, str] | None = None,
    seed: int | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> Plan:
    """Check the options of a run and load its study.  Parameters as on the command line.

    Raises ArgumentError for a study, field, value or device that does not exist, for a folder that
    cannot be written, and for one that holds the study's own full results when this run is another.
    """
    known = find(studies)
    path = locate(name, known)
    device = resolve_device(device)
    study, source = load(path)
    base = study.quick if quick else study.config
    config = changed_config(base, changes or {})
    if seed is None:
        seed = getattr(config, "seed", 0)
    elif hasattr(config, "seed"):
        config = dataclasses.replace(config, seed=seed)
    Run(seed)  # checks it
    data = files.canonical(config)
    before = {"seed": int(getattr(base, "seed", 0))} | files.canonical(base)
    after = {"seed": seed} | data
    changed = tuple(key for key in after if after[key] != before[key])
    mode = "quick" if quick else "full"
    if out is None:
        out = Path("figures" if mode == "full" and not changed else "figures-quick")
    siblings = tuple(other for other in known if other.startswith(f"{name}_"))
    others = tuple(other for other in known if other != name)
    plan = Plan(
        name, path, study, source, config, seed, device, mode, changed, out, siblings, others
    )
    files.check_folder(out, "--out", locks=True)
    _former_files(plan)
    return plan


# ------------------------------------------------------------------ former results


def _read_provenance(folder: Path, name: str) -> dict[str, Any] | None:
    """NAME.json of a folder; None if there is none, {} if it cannot be understood."""
    try:
        data = json.loads(files.read_bytes(folder / f"{name}.json"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    good = isinstance(data, dict) and isinstance(data.get("outputs"), dict)
    return data if good else {}


def _former_files(plan: Plan) -> list[str]:
    """Files of the result that stands where the plan writes; ArgumentError if it must stay."""
    former = _read_provenance(plan.out, plan.name)
    if former is None:
        return []
    other = former.get("mode") == "quick" or former.get("changed")
    if not plan.plain and not other:
        rule = f"not hold the full results of {plan.name}, which only its own full run replaces"
        raise ArgumentError("--out", rule, str(plan.out))
    stem = re.escape(plan.name)
    names = [str(file) for file in former.get("outputs", {})]
    return [
        file
        for file in names
        if re.fullmatch(rf"{stem}(_\w+)?\.(csv|md|parquet|png|svg|gif)", file)
    ]


def results(folder: Path, name: str, path: Path | None = None) -> str:
    """State of a study's full results in a folder: "full", "none", "other", "damaged" or "stale".

    "other" are results of a quick or changed run, "damaged" do not fit their provenance, "stale"
    were made by other code than the study file `path` and the package hold now, or from other
    tables than those that stand beside them.
    """
    record = _read_provenance(folder, name)
    if record is None:
        return "none"
    try:
        for file, digest in record["outputs"].items():
            if files.sha256(files.read_bytes(folder / Path(file).name)) != digest:
                return "damaged"
    except (OSError, KeyError, ValueError):
        return "damaged"
    if record.get("mode") != "full" or record.get("changed"):
        return "other"
    if path is not None:
        source = path.read_text(encoding="utf-8")
        if record.get("code") != provenance.code_version(source):
            return "stale"
    if any(_table_digest(folder, n) != d for n, d in record.get("tables", {}).items()):
        return "stale"
    return "full"


def _table_digest(folder: Path, name: str) -> str:
    """The digest of NAME.csv; "" if it cannot be read."""
    try:
        return files.sha256(files.read_bytes(folder / f"{Path(name).name}.csv"))
    except OSError:
        return ""


def _tables_of_others(plan: Plan) -> dict[str, bytes]:
    """name -> NAME.csv of the other studies whose results of the plan's mode stand in its folder.

    Raises ArgumentError for results that are damaged.
    """
    found = {}
    for other in plan.others:
        record = _read_provenance(plan.out, other)
        if record is None or record.get("mode") != plan.mode or record.get("changed"):
            continue
        for file, digest in record["outputs"].items():
            if file.endswith(".csv"):
                data = files.read_bytes(plan.out / Path(file).name)
                if files.sha256(data) != digest:
                    raise ArgumentError(file, "be as its study has written it", str(plan.out))
                found[file.removesuffix(".csv")] = data
    return found


# ------------------------------------------------------------------ executing


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run made: `files` in `folder`, `seconds` of computing, and whether `cached`."""

    name: str
    folder: Path
    files: tuple[str, ...]
    seconds: float
    cached: bool


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _stem(plan: Plan, part: str) -> str:
    """File name without suffix of one part of the outputs."""
    if part == "":
        return plan.name
    if not _PART.match(part):
        raise ArgumentError("part", "be lower-case letters, digits and single underscores", part)
    stem = f"{plan.name}_{part}"
    for other in plan.siblings:
        if stem == other or stem.startswith(f"{other}_"):
            raise ArgumentError("part", f"not collide with the files of study {other}", part)
    return stem


def _parts(value: Any, kind: type, name: str) -> dict[str, Any]:
    parts = {"": value} if isinstance(value, kind) else value
    good = isinstance(parts, Mapping) and all(isinstance(item, kind) for item in parts.values())
    if not good or not parts:
        rule = f"return a {kind.__name__}, or a mapping of parts to them"
        raise ArgumentError(name, rule, type(value).__name__)
    return dict(parts)


def _tables(plan: Plan, arrays: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    import pandas as pd

    tables = plan.study.table(plan.config, plain_arrays(arrays))
    for part, table in _parts(tables, pd.DataFrame, "table").items():
        stem = _stem(plan, part)
        text = table.to_csv(index=False, lineterminator="\n")
        yield f"{stem}.csv", text.encode()
        if part == _CELLS:  # many rows: for programs, which Parquet spares the reading of text
            yield f"{stem}.parquet", table.to_parquet(None, engine="pyarrow", index=False)
            continue
        yield f"{stem}.md", _markdown(table).encode() + b"\n"


def _markdown(table: Any) -> str:
    """A DataFrame with the digits that `attrs["digits"]` has, else 4; a | in a cell ends none."""
    import pandas as pd

    digits = table.attrs.get("digits", {})
    formats = tuple(f".{digits.get(column, 4)}g" for column in table.columns)

    def escaped(cell: Any) -> Any:
        return cell.replace("|", r"\|") if isinstance(cell, str) else cell

    empty = table.astype(object).where(table.notna(), None)
    rows = [[escaped(cell) for cell in row] for row in empty.itertuples(index=False)]
    shown = pd.DataFrame(rows, columns=list(map(escaped, table.columns)), dtype=object)
    return str(shown.to_markdown(index=False, floatfmt=formats, missingval=""))


def _small(file: str, data: bytes, limit: int) -> tuple[str, bytes]:
    if len(data) >= limit:
        raise ArgumentError(file, f"be smaller than {limit / 1e6:g} MB", f"{len(data)} bytes")
    return file, data


def _pictures(
    plan: Plan, arrays: dict[str, Any], note: Mapping[str, Any]
) -> Iterator[tuple[str, bytes]]:
    from matplotlib.figure import Figure

    from . import plots

    with plots.style():
        figures = _parts(plan.study.draw(plan.config, plain_arrays(arrays)), Figure, "draw")
        for part, figure in figures.items():
            stem = _stem(plan, part)
            png, svg = plots.save(figure, note)
            yield _small(f"{stem}.png", png, _PNG_BYTES)
            yield _small(f"{stem}.svg", svg, _SVG_BYTES)
        if plan.study.animate is not None:
            films = plan.study.animate(plan.config, plain_arrays(arrays))
            for part, film in _parts(films, bytes, "animate").items():
                yield _small(f"{_stem(plan, part)}.gif", film, _GIF_BYTES)


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return device


def _collect(files: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, data in files:
        if name in found:
            raise ArgumentError("part", "give each file a name of its own", name)
        found[name] = data
    return found


class _CtrlC:
    """Whether Ctrl-C was pressed: a training that it ended may have hidden it from its study."""

    pressed = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Remember Ctrl-C, and let it do what it always does."""
        former = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(former):
            yield
            return

        def press(number: int, frame: Any) -> None:
            self.pressed = True
            former(number, frame)

        signal.signal(signal.SIGINT, press)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, former)


def execute(
    plan: Plan,
    *,
    cache: store.Cache | None = None,
    quiet: bool = False,
    executor: Executor | None = None,
) -> Result:
    """Compute (or read the cache), draw, and put all files in place together.

    executor : where the cells of sweeps are computed (see `engines.opened`); None: here.

    Raises ArgumentError where a file cannot be written or an output is of the wrong kind, and
    whatever the study itself raises; the result that stood there before is then intact.
    """
    cache = store.Cache() if cache is None else cache
    ctrl_c = _CtrlC()
    config = files.canonical(plan.config)
    parts = {
        "study": plan.name,
        "config": config,
        "seed": plan.seed,
        "code": provenance.code_version(plan.source, computation=True),
        "device": plan.device.partition(":")[0],
        "versions": provenance.packages(provenance.COMPUTING),
    }
    code = provenance.code_version(plan.source)
    # A line where a function would take three.
    pressed: Callable[[], bool] = lambda: ctrl_c.pressed  # noqa: E731
    tables = _tables_of_others(plan) if plan.study.last else {}
    digests = {name: files.sha256(data) for name, data in tables.items()}
    texts = {name: data.decode() for name, data in tables.items()}
    parts |= {"tables": digests} if plan.study.last else {}
    run = Run(plan.seed, plan.device, cache, parts, quiet, executor, pressed, texts)
    # A line where a function would take three.
    compute: Callable[[], Mapping[str, Any]] = lambda: plan.study.compute(plan.config, run)  # noqa: E731
    with _one_thread(), ctrl_c.watching():
        arrays, seconds, cached = run.kept("", compute)
        record: dict[str, Any] = {
            "name": plan.name,
            "question": plan.study.question,
            "mode": plan.mode,
            "changed": list(plan.changed),
            "config": config,
            "seed": plan.seed,
            "code": code,
        }
        outputs = _collect(_tables(plan, arrays))
        outputs |= _collect(_pictures(plan, arrays, record))
    record |= provenance.commit(plan.path)
    record |= {
        "device": _device_name(plan.device),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": provenance.versions(),
        "seconds": round(seconds, 3),
        "outputs": {file: files.sha256(data) for file, data in outputs.items()},
    }
    record |= {"tables": digests} if plan.study.last else {}
    whole = {**outputs, f"{plan.name}.json": files.to_json(record)}
    files.publish(plan.out, plan.name, whole, check=lambda: _former_files(plan))
    return Result(plan.name, plan.out, tuple(whole), seconds, cached)
