"""Who does the tasks of `remac ground`: this process, processes of this machine, or the workers of a Dask cluster.

Each yields a result for every task, in the order in which they end, also where a worker is killed: its tasks are given to others, and a task that
kills its worker every time is reported. Doing a task twice is harmless (task.py).
"""
from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NoReturn

from remac_runtime.archive.task import Result, Task, abandon, perform, remove_unfinished
from remac_runtime.errors import RemacError

PATIENCE_S = 30         # for a scheduler to answer and to have a worker
_DIED = "the process that worked on it died (killed, or out of memory): decode it alone, with `remac decode`, to see more"


def in_process(tasks: Sequence[Task]) -> Iterator[Result]:
    """One after the other."""
    return map(perform, tasks)


def in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """`workers` processes. When one dies, the pool is set up again; what was under way is then done one at a time, to find who kills it."""
    waiting = deque(tasks)
    while waiting:
        suspects = yield from _pooled(waiting, workers)
        for task in suspects:
            if (yield from _pooled(deque([task]), 1)):
                yield Result(task.source, task.output, error=_DIED)


def _pooled(waiting: deque[Task], workers: int) -> Generator[Result, None, list[Task]]:
    """Take tasks from `waiting` until it is empty or a process dies; returns the tasks that were under way then."""
    context = multiprocessing.get_context("spawn")      # not fork: engines have threads
    before = set(multiprocessing.active_children())
    running: dict[Future[Result], Task] = {}
    broken: list[Task] = []
    processes: set[int] = set()
    with ProcessPoolExecutor(workers, context, _start_worker) as pool:
        try:
            while (waiting or running) and not broken:
                while waiting and len(running) < workers:
                    running[pool.submit(perform, waiting[0])] = waiting[0]
                    waiting.popleft()
                    processes |= {child.pid for child in set(multiprocessing.active_children()) - before if child.pid}
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        broken.append(task)
                        continue
                    yield result
        except BrokenProcessPool:       # found out while submitting
            pass
        except BaseException:
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
    suspects = [*broken, *running.values()]
    for task in suspects:       # no process of the pool is left
        remove_unfinished(Path(task.output), processes)
    return suspects


def _start_worker() -> None:
    """Ctrl-C and SIGTERM end a worker at once, and what it was writing is removed. An exception could end up anywhere and be taken for the file's."""
    def leave(*_: object) -> NoReturn:
        abandon()
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)


def on_cluster(tasks: Sequence[Task], address: str) -> Iterator[Result]:
    """The workers of a Dask scheduler, which gives the tasks of a worker that is gone to the others. Raises RemacError if there is none."""
    try:
        from dask import distributed
    except ImportError:
        raise RemacError("--scheduler needs Dask: pip install 'remac-runtime[ground]', here and on the workers") from None
    dask: Any = distributed        # its annotations are too loose for strict checks
    try:
        client = dask.Client(address, timeout=PATIENCE_S)
    except (OSError, ValueError, TypeError) as error:
        raise RemacError(f"no Dask scheduler answers at {address} ({' '.join(str(error).split())}): check the address, "
                         "or start one with `dask scheduler`") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
        except TimeoutError:
            raise RemacError(f"the Dask scheduler at {address} has no workers: start some with `dask worker {address}`") from None
        futures = client.map(perform, tasks, pure=False)
        where = dict(zip((future.key for future in futures), tasks, strict=True))
        suspects = []
        try:
            for future in dask.as_completed(futures):
                task = where[future.key]
                result = _result(task, future)
                if result is None:
                    suspects.append(task)
                else:
                    yield result
            for task in suspects:           # Dask blames all that was given to a worker that died: alone, only what kills it fails
                yield _result(task, client.submit(perform, task, pure=False)) or Result(task.source, task.output, error=_DIED)
        except BaseException:
            client.cancel(futures)
            raise


def _result(task: Task, future: Any) -> Result | None:
    """What became of a task; None where several workers that had it died. A result is computed once more if the worker that held it is gone."""
    try:
        result: Result = future.result()
        return result
    except (Exception, asyncio.CancelledError) as error:
        kind = type(error).__name__
        if kind == "KilledWorker":
            return None
        if "Cancelled" in kind:
            what = "the scheduler was lost: run the command again, what is done is not done twice"
        else:
            what = f"a worker could not run it ({kind}: {' '.join(str(error).split())}): install the same remac-runtime on all workers"
        return Result(task.source, task.output, error=what)
