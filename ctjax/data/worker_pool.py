"""Worker processes that Ctrl-C and an error end at once and without a word: the process that asked reports it."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from typing import Any


class WorkerPool:
    """See `worker_pool`."""

    def __init__(self, executor: concurrent.futures.ProcessPoolExecutor) -> None:
        self._executor = executor

    def submit(self, function: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future:
        """As an executor's; its processes start here, on demand."""
        # A terminal sends Ctrl-C to every process of the group. Processes are born with what their parent blocks.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return self._executor.submit(function, *arguments)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[WorkerPool]:
    """So many processes, each started afresh (`spawn`), for the length of the block. When it ends well they finish what
    was submitted; when it raises (Ctrl-C is an exception too) they are ended where they are."""
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn) as executor:
        try:
            yield WorkerPool(executor)
        except BaseException:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
