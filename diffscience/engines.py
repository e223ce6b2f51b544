"""Engines: where the cells of a sweep are computed.

    serial                  here, one cell after the other
    processes[=N]           N processes of this machine (default: one for each core)
    dask=tcp://HOST:PORT    the workers of a Dask scheduler that is running
    slurm                   jobs of a Slurm cluster, through submitit

Definition.  An engine is a `concurrent.futures.Executor`: submit(function, *arguments) -> Future.
A cell is a pure function, so all of them give the same bytes where versions and processors are the
same.

Conventions.  A cell computes on one thread, so that cells side by side do not wait for each other's
cores, and sums have one order.  A process that dies costs the cell that it was computing: its
future raises BrokenExecutor, and the next cell gets a new process.  Processes end when their parent
does, however it ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from pathlib import Path
from typing import Any

from .errors import ArgumentError, whole

__all__ = ["THREADS", "Jobs", "Processes", "Serial", "check", "one_thread", "opened", "single"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that a process reads when it loads NumPy, torch or numba: threads at most."""

_NAME = re.compile(r"auto|serial|processes(=[1-9]\d{0,3})?|dask=[a-z]+://\S+|slurm")
_ANSWER_SECONDS = 10.0  # for a scheduler that is there
_JOB_MINUTES = 240  # $SBATCH_TIMELIMIT overrides it
_JOBS = 1000  # at one time; Slurm's own limit on one array is 1001


def check(name: str) -> tuple[str, str]:
    """(kind, detail) of an engine's name; ArgumentError for what is none.

    >>> check("processes=4"), check("serial")
    (('processes', '4'), ('serial', ''))
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        rule = "be serial, processes, processes=N, dask=tcp://HOST:PORT, slurm or auto"
        raise ArgumentError("--engine", rule, name)
    kind, _, detail = name.partition("=")
    return kind, detail


@contextlib.contextmanager
def opened(name: str) -> Iterator[Executor | None]:
    """The executor of an engine, closed in the end with all it has started; None for serial.

    name : as in the module's top; auto is processes.
    Raises ArgumentError for another name, for a package that is not installed, and for a scheduler
    or cluster that does not answer.

    >>> with opened("serial") as executor:
    ...     print(executor)
    None
    """
    kind, detail = check(name)
    if kind == "serial":
        yield None
    elif kind == "dask":
        with _dask(detail) as executor:
            yield executor
    elif kind == "slurm":
        with _slurm() as executor:
            yield executor
    else:
        from .fused import cpus

        with Processes(int(detail) if detail else cpus()) as executor:
            yield executor


def one_thread() -> None:
    """From here on this process computes on one thread: torch, BLAS, OpenMP and numba."""
    os.environ.update(dict.fromkeys(THREADS[:3], "1"))  # for what is not loaded yet
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if "numba" in sys.modules:  # which takes no other number from its variable any more
        sys.modules["numba"].set_num_threads(1)
    else:
        os.environ[THREADS[3]] = "1"
    import threadpoolctl

    threadpoolctl.threadpool_limits(1)


def single() -> contextlib.AbstractContextManager[Any]:
    """For a while, BLAS and OpenMP compute on one thread here, as they do in workers."""
    import threadpoolctl

    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(1)
    return limits


# ------------------------------------------------------------------ this machine


class Serial(Executor):
    """Calls at once what is submitted, here; the future that comes back is done."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """function(*args, **kwargs), or its exception, in a future."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class Processes(ThreadPoolExecutor):
    """Processes that live and die apart, each led by a thread of this one.

    workers : how many at most; each starts (spawn, no fork) when it is needed.

    Leaving the `with` block ends them, busy or not.

    >>> with Processes(1) as executor:
    ...     executor.submit(divmod, 7, 2).result()
    (3, 1)
    """

    def __init__(self, workers: int) -> None:
        whole("workers", workers, 1)
        super().__init__(workers, "diffscience", initializer=_without_ctrl_c)
        self._own, self._lock, self._closed = threading.local(), threading.Lock(), False
        self._pools: dict[ProcessPoolExecutor, int] = {}  # and the number of its one process
        self._busy: set[ProcessPoolExecutor] = set()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """function(*args, **kwargs) in a process; BrokenExecutor if that dies meanwhile."""
        return super().submit(self._apart, function, args, kwargs)

    def _apart(self, function: Any, args: Any, kwargs: Any) -> Any:
        pool = getattr(self._own, "pool", None) or self._start()
        with self._lock:
            if self._closed:
                raise BrokenExecutor("the engine was closed")
            self._busy.add(pool)
        try:
            return pool.submit(function, *args, **kwargs).result()
        except BrokenExecutor:
            self._own.pool = None
            with self._lock:
                self._pools.pop(pool, None)
            pool.shutdown()
            raise
        finally:
            with self._lock:
                self._busy.discard(pool)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        with _environment():
            pool = ProcessPoolExecutor(1, context, initializer=_begin)
            first = pool.submit(os.getpid)
        number = first.result()
        with self._lock:
            if self._closed:
                pool.shutdown()
                raise BrokenExecutor("the engine was closed")
            self._pools[pool] = number
        self._own.pool = pool
        return pool

    def __exit__(self, *_: Any) -> None:
        self.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._closed, pools, busy = True, dict(self._pools), set(self._busy)
        # The others end by themselves, and put away what they hold.
        for pool in busy & pools.keys():
            with contextlib.suppress(OSError):  # it is gone
                os.kill(pools[pool], signal.SIGTERM)
        self.shutdown()
        for pool in pools:
            pool.shutdown()


_starting = threading.Lock()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """While a process starts: what NumPy and torch read as they load.

    Not numba's variable, at which numba looks again and again, here too.
    """
    with _starting:
        former = {name: os.environ.get(name) for name in THREADS[:3]}
        os.environ.update(dict.fromkeys(former, "1"))
        try:
            yield
        finally:
            for name, value in former.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _without_ctrl_c() -> None:
    """In a thread: what it starts is not reached by Ctrl-C, which the main thread deals with."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _begin() -> None:
    """In a new process: end when the parent does, even when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[THREADS[3]] = "1"
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


# ------------------------------------------------------------------ clusters


def _extra(kind: str, error: ImportError) -> ArgumentError:
    rule = "find its package (pip install 'diffscience[cluster]' brings it)"
    return ArgumentError(f"--engine {kind}", rule, str(error))


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    """The workers of the Dask scheduler at `address`; they outlive the run."""
    try:
        import distributed
    except ImportError as error:
        raise _extra("dask", error) from None
    try:
        client = distributed.Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        rule = f"name a Dask scheduler that answers ({reason})"
        raise ArgumentError("--engine", rule, f"dask={address}") from None
    with client:
        yield _Dask(client)


class _Dask(Executor):
    """A client's executor that does not wait for ever for a scheduler that has gone."""

    def __init__(self, client: Any) -> None:
        self._client, self._executor = client, client.get_executor(pure=False)

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """function(*args, **kwargs) on a worker; BrokenExecutor if the scheduler is gone."""
        while self._client.status == "connecting":  # again, for as long as the client tries to
            time.sleep(0.05)
        if self._client.status != "running":
            raise BrokenExecutor("the Dask scheduler is gone")
        future: Future[Any] = self._executor.submit(function, *args, **kwargs)
        return future


@contextlib.contextmanager
def _slurm() -> Iterator[Executor]:
    """Jobs of the Slurm cluster that this machine belongs to."""
    import shutil
    import tempfile

    from .store import cache_folder

    if shutil.which("sbatch") is None:
        raise ArgumentError("--engine slurm", "find Slurm's command sbatch", "none")
    cache_folder().mkdir(parents=True, exist_ok=True)
    place = tempfile.TemporaryDirectory(
        prefix=".slurm-", dir=cache_folder(), ignore_cleanup_errors=True
    )
    with place as folder, Jobs(folder, "slurm") as executor:
        yield executor


class Jobs(Executor):
    """Jobs of a batch system through submitit, each one cell; those submitted together an array.

    Parameters
    ----------
    folder : seen from all machines, and written by you alone: submitit's pickles go through it.
    cluster : "slurm", or "local" for processes of this machine.
    jobs : how many at one time.
    pause : seconds between two looks at them.

    The job has one core and four hours; sbatch takes partition, account and another time limit from
    SBATCH_PARTITION, SBATCH_ACCOUNT and SBATCH_TIMELIMIT.  Leaving the `with` block cancels the
    jobs that are not done.  Raises ArgumentError if submitit is not installed.
    """

    def __init__(
        self, folder: str | Path, cluster: str, jobs: int = _JOBS, pause: float = 1.0
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise _extra("slurm", error) from None
        whole("jobs", jobs, 1)
        self._executor = submitit.AutoExecutor(folder, cluster=cluster)
        self._executor.update_parameters(
            name="diffscience", timeout_min=_JOB_MINUTES, cpus_per_task=1, nodes=1, tasks_per_node=1
        )
        if cluster == "slurm":
            self._executor.update_parameters(slurm_array_parallelism=jobs)
        self._jobs, self._pause = jobs, pause
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._waiting: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._running: list[tuple[Future[Any], Any]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """function(*args, **kwargs) as a job; the future raises what submitit tells of it."""
        if kwargs:
            raise ArgumentError("submit", "be given arguments by position", list(kwargs))
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, function, args))
        return future

    def __exit__(self, *_: Any) -> None:
        self._closed.set()
        self._thread.join()
        for future, job in self._running:
            with contextlib.suppress(Exception):  # whatever a job says that is gone by now
                job.cancel(check=False)
            future.cancel()

    def _watch(self) -> None:
        while not self._closed.wait(self._pause):
            with self._lock:
                room = self._jobs - len(self._running)
                fresh, self._waiting = self._waiting[:room], self._waiting[room:]
            self._begin([task for task in fresh if task[0].set_running_or_notify_cancel()])
            self._running = [pair for pair in self._running if not _settled(*pair)]

    def _begin(self, tasks: list[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]]) -> None:
        if not tasks:
            return
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(function, *args) for _, function, args in tasks]
        except Exception as error:  # of the batch system, which may say anything
            for future, _, _ in tasks:
                future.set_exception(error)
        else:
            self._running += [(task[0], job) for task, job in zip(tasks, jobs)]


def _settled(future: Future[Any], job: Any) -> bool:
    """Whether a job is done; if so, its future gets what it came to."""
    try:
        if not job.done():
            return False
        future.set_result(job.result())
    except Exception as error:  # of the job, or of the batch system
        future.set_exception(error)
    return True
