"""The command `diffscience` (also `python -m diffscience`): list, run, doctor.

Conventions.  Exit status 0: all is well; 1: a study failed; 2: bad input, told in one sentence on
stderr; 130: interrupted; 141: nobody reads stdout any more (as in `| head -1`).  Results go to
stdout, one line a study; progress and complaints go to stderr.  Everything heavy is imported when a
command needs it, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import diffscience

from .errors import ArgumentError, CellError

if TYPE_CHECKING:
    import subprocess

    from . import runner

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """argparse that complains in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"diffscience: {' '.join(message.split())}\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None and file is sys.stdout:
            file.write(message)  # argparse itself would say nothing of a full disk
        else:
            super()._print_message(message, file)


def _whole(text: str, least: int) -> int:
    value = int(text) if text.strip().lstrip("-").isdecimal() else None
    if value is None or value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number >= {least}; got {text}")
    return value


def _jobs(text: str) -> int:
    return _whole(text, 1)


def _seed(text: str) -> int:
    return _whole(text, 0)


def _change(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or not field.isidentifier():
        raise argparse.ArgumentTypeError(f"must read FIELD=VALUE; got {text}")
    return field, value


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="diffscience",
        allow_abbrev=False,
        description="Diffusion studies in one and two dimensions where the truth is known.",
    )
    version = f"diffscience {diffscience.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    show = commands.add_parser(
        "list", help="name, state and question of each study", allow_abbrev=False
    )
    run = commands.add_parser("run", help="run studies by name, or all", allow_abbrev=False)
    doctor = "check the installation against known answers"
    commands.add_parser("doctor", help=doctor, allow_abbrev=False)
    run.add_argument("names", nargs="+", metavar="NAME", help="a study, or all")
    run.add_argument("--quick", action="store_true", help="the small config: seconds, not hours")
    run.add_argument(
        "--device", default="auto", metavar="D", help="cpu, cuda, cuda:N, mps or auto (default)"
    )
    run.add_argument(
        "--seed", type=_seed, metavar="N", help="instead of the seed in the study's config"
    )
    run.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N", help="studies at once (default 1)"
    )
    run.add_argument(
        "--engine",
        default="auto",
        metavar="E",
        help="where the cells of sweeps are computed: serial, processes, processes=N,"
        " dask=tcp://HOST:PORT, slurm or auto (default: a process for each core in full runs of"
        " one study at a time on the CPU, else serial)",
    )
    run.add_argument(
        "--set",
        dest="changes",
        type=_change,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the config; may be repeated",
    )
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    for command in (show, run):
        command.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help="folder of the results (default figures/; figures-quick/ for runs with"
            " --quick, --set or another seed)",
        )
        command.add_argument(
            "--studies", type=Path, metavar="DIR", help="folder of the study files"
        )
    return parser


def _flags(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The options of one command, as typed."""
    actions = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return [flag for flag in actions[0].choices[command]._option_string_actions if flag[1] == "-"]


def _say(text: object) -> None:
    try:
        print(f"diffscience: {text}", file=sys.stderr, flush=True)
    except OSError:  # the exit status still tells
        _drop(sys.stderr, 2)


def _drop(stream: Any, number: int) -> None:
    """Send what is left in a stream nowhere: Python would try to write it again as it ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if stream.fileno() == number:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), number)


@contextlib.contextmanager
def _printing() -> Iterator[None]:
    """Errors of printing, told apart from those of the work: BrokenPipeError, ArgumentError."""
    try:
        yield
        if sys.stdout is not None:  # None: it was closed before we began
            sys.stdout.flush()
    except OSError as error:
        _drop(sys.stdout, 1)
        if isinstance(error, BrokenPipeError):
            raise
        reason = error.strerror or type(error).__name__
        raise ArgumentError("stdout", "take what is printed", reason) from None


def _print(text: str) -> None:
    """Print and flush; signs that the terminal's encoding lacks are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with _printing():
        print(text.encode(encoding, "backslashreplace").decode(encoding))


# ------------------------------------------------------------------ list


def _list(options: argparse.Namespace) -> int:
    from . import runner

    states = {
        "full": "full results",
        "none": "no results",
        "other": "no full results",
        "damaged": "results damaged",
        "stale": "results stale",
    }
    if options.out is not None and not os.path.isdir(options.out):
        raise ArgumentError("--out", "be a folder of results", str(options.out))
    folder = options.out or Path("figures")
    rows = []
    for name, path in runner.find(options.studies).items():
        try:
            state = states[runner.results(folder, name, path)]
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            state = "file unreadable"
        rows.append((name, state, runner.question(path)))
    width = max((len(row[0]) for row in rows), default=0)
    for name, state, text in rows:
        _print(f"{name:{width}}  {state:16} {text}".rstrip())
    return 0


# ------------------------------------------------------------------ run


def _run(options: argparse.Namespace) -> int:
    from . import engines

    if "numpy" not in sys.modules:
        # Sums in one thread have one order: the same bytes for any number of cores or jobs.
        for name in engines.THREADS[:3]:
            os.environ.setdefault(name, "1")
    from . import runner

    engines.check(options.engine)
    known = runner.find(options.studies)
    names = list(known) if "all" in options.names else list(dict.fromkeys(options.names))
    for name in names:
        runner.locate(name, known)
    plans, worst = [], 0
    for name in names:
        with _Failures(name) as failures:
            plans.append(
                runner.prepare(
                    name,
                    studies=options.studies,
                    quick=options.quick,
                    changes=dict(options.changes),
                    seed=options.seed,
                    device=options.device,
                    out=options.out,
                )
            )
        worst = max(worst, failures.status)
    if worst == 2:  # bad input is told before anything is computed
        return worst
    plans.sort(key=lambda plan: plan.study.last)  # those that read what the others have found
    if options.jobs > 1 and len(plans) > 1:
        return max(worst, *(_run_apart(names, options) for names in _groups(plans)))
    from .store import Cache

    cache = Cache()
    with engines.opened(_engine(plans, options)) as executor:
        for plan in plans:
            with _Failures(plan.name) as failures:
                result = runner.execute(plan, cache=cache, quiet=options.quiet, executor=executor)
            worst = max(worst, failures.status)
            if failures.status == 0:
                _print(_summary(result))
    return worst


def _groups(plans: Sequence[runner.Plan]) -> list[list[str]]:
    """The studies that may run side by side, the longest first; times are taken with none beside;
    last those that read what the others have found.
    """
    order = sorted(plans, key=lambda plan: -plan.seconds)
    found = [[p.name for p in order if not (p.study.alone or p.study.last)]]
    found += [[p.name] for p in order if p.study.alone and not p.study.last]
    found.append([p.name for p in order if p.study.last])
    return [names for names in found if names]


def _engine(plans: Sequence[runner.Plan], options: argparse.Namespace) -> str:
    """The engine's name, with auto decided: quick runs are done before a process has started."""
    name: str = options.engine
    alone = not options.quick and all(plan.device == "cpu" for plan in plans)
    return name if name != "auto" else "processes" if alone else "serial"


def _summary(result: runner.Result) -> str:
    source = "from the cache" if result.cached else "computed"
    place = result.folder / result.files[-1]
    return (
        f"{result.name}: {place} and {len(result.files) - 1} files beside it,"
        f" {result.seconds:.1f} s of computing, {source}"
    )


class _Failures(contextlib.AbstractContextManager["_Failures"]):
    """A study that breaks is told of and leaves the others to run; status 0, 1 or 2 as above."""

    def __init__(self, name: str) -> None:
        self.name, self.status = name, 0

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, ArgumentError):
            _say(error)
            self.status = 2
            return True
        import traceback

        with contextlib.suppress(OSError):  # of a stderr that takes nothing
            if isinstance(error, CellError):  # what counts is where the first cell failed
                sys.stderr.write(error.trace)
            else:
                traceback.print_exception(kind, error, trace)
        _say(f"study {self.name} failed with {type(error).__name__}: {error}")
        self.status = 1
        return True


def _command(name: str, options: argparse.Namespace) -> list[str]:
    command = [sys.executable, "-m", "diffscience", "run", name, "--quiet"]
    command += ["--device", options.device]
    command += ["--engine", "serial" if options.engine == "auto" else options.engine]
    command += ["--quick"] * options.quick
    for flag, value in (
        ("--seed", options.seed),
        ("--out", options.out),
        ("--studies", options.studies),
    ):
        command += [flag, str(value)] * (value is not None)
    for field, value in options.changes:
        command += ["--set", f"{field}={value}"]
    return command


def _run_apart(names: list[str], options: argparse.Namespace) -> int:
    """Run each study in a process of its own, --jobs of them at a time."""
    import subprocess
    import time

    from . import engines

    package = str(Path(diffscience.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **dict.fromkeys(engines.THREADS, "1"), "PYTHONPATH": path}
    waiting, done = list(names), dict[str, int]()
    running: dict[str, subprocess.Popen[bytes]] = {}
    with _terminated_as_interrupted():
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    name = waiting.pop(0)
                    # A group of its own: Ctrl-C reaches this process alone, which ends the rest.
                    running[name] = subprocess.Popen(
                        _command(name, options), env=environment, start_new_session=True
                    )
                for name, process in list(running.items()):
                    if process.poll() is not None:
                        done[name] = running.pop(name).returncode
                        if done[name] < 0:
                            _say(f"study {name} was killed by signal {-done[name]}")
                time.sleep(0.02)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                _await_end(process)
    codes = set(done.values())
    return next((code for code in (130, 141, 2) if code in codes), int(codes != {0}))


def _await_end(process: subprocess.Popen[bytes]) -> None:
    import subprocess

    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the children too, as Ctrl-C does."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ------------------------------------------------------------------ the door


@contextlib.contextmanager
def _brief_warnings() -> Iterator[None]:
    """A damaged cache entry is told in one line; other warnings look as they always do."""
    import warnings

    usual = warnings.showwarning

    def show(message: Any, category: Any, *rest: Any, **more: Any) -> None:
        if category.__name__ == "CacheWarning":
            _say(f"warning: {message}")
        else:
            usual(message, category, *rest, **more)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with the arguments `argv` (None: those of the process); the exit status.

    >>> main(["list", "--studies", "no/such/folder"])
    2
    """
    try:
        return _main(argv)
    except ArgumentError as error:
        _say(error)
        return 2
    except KeyboardInterrupt:
        _say("interrupted; finished cells are kept, and the same command continues from there")
        return 130
    except BrokenPipeError:  # silently, as a program that SIGPIPE ends
        return 141


def _main(argv: Sequence[str] | None) -> int:
    parser = _parser()
    try:
        with _printing():
            options, unknown = parser.parse_known_args(argv)
    except SystemExit as leaving:  # --help, --version, or one sentence from _Parser.error
        with _printing():  # what they have left in the buffer
            return int(leaving.code or 0)
    if options.command is None:
        raise ArgumentError("COMMAND", "be one of: list, run, doctor", "nothing")
    if unknown:
        from .options import nearest

        rule = f"be one of those in `diffscience {options.command} --help`"
        flags = _flags(parser, options.command)
        raise ArgumentError("option", rule + nearest(unknown[0], flags), unknown[0])
    with _brief_warnings():
        if options.command == "doctor":
            from . import doctor

            with _printing():
                return int(doctor.main() or 0)
        return _list(options) if options.command == "list" else _run(options)


if __name__ == "__main__":
    raise SystemExit(main())
