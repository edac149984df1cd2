"""Worker processes that Ctrl-C and an error end at once and without a word: the process that asked reports it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import signal
from collections.abc import Callable
from typing import Any


class WorkerPool(concurrent.futures.ProcessPoolExecutor):
    """So many processes, each started afresh (`spawn`), for the length of a `with` block. When it ends well they finish
    what was submitted; when it raises (Ctrl-C is an exception too) they are ended where they are."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers, mp_context=multiprocessing.get_context("spawn"))
        self._others = set(multiprocessing.active_children())

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> concurrent.futures.Future:
        """As every executor's; the processes start here, on demand."""
        # A terminal sends Ctrl-C to every process of the group. Processes are born with what their parent blocks.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(function, *arguments, **named)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> bool | None:
        if kind is not None:
            for worker in set(multiprocessing.active_children()) - self._others:
                worker.terminate()
        return super().__exit__(kind, *error)
