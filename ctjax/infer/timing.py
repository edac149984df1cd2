"""How long each stage of a clip took, and a way to let stages overlap."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_FAREWELL_S = 1.0


class StageTimes:
    """Seconds per stage, added up over a clip. Stages that overlap in threads may sum to more than the wall clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def timed(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """`items`, the time it takes to produce each counted as `name`."""
        iterator = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @property
    def wall_s(self) -> float:
        return time.perf_counter() - self._started

    def summary(self) -> str:
        """`audio 0.5 s, faces 1.2 s, ..., total 9.9 s`."""
        parts = [f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items()]
        return ", ".join([*parts, f"total {self.wall_s:.1f} s"])


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error


def prefetched(items: Iterable[T], depth: int) -> Iterator[T]:
    """`items`, produced by a thread up to `depth` ahead of their use. Its exceptions are raised here.

    Closing the generator early (or Ctrl-C) ends the thread, at the latest when it has made the item it is at, which
    may take long and is not waited for; its source is closed with it.
    """
    ready: queue.Queue = queue.Queue(maxsize=depth)
    end, stopped = object(), threading.Event()

    def put(item) -> bool:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return True
        return False

    def produce() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not put(item):
                    return
            put(end)
        except BaseException as error:
            put(_Failure(error))
        finally:
            if hasattr(iterator, "close"):
                iterator.close()

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not end:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        stopped.set()
        thread.join(timeout=_FAREWELL_S)
