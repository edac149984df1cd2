"""From a random-access stream of examples to this process's batches, with Grain.

Example i of the global stream depends on i and the seed alone. Every process takes its rows of every global batch, so
the batches are the same however many processes, workers and devices share them, and a saved position is just a number.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np

from ctjax.parallel import Rows

Example = dict[str, np.ndarray]


@dataclass(frozen=True)
class ReadingConfig:
    """threads: that read and decode examples in this process, or in each worker. prefetch: examples read ahead.
    workers: extra processes for hosts where Python threads are too slow (0: none); the saved position depends on it."""

    threads: int = 8
    prefetch: int = 64
    workers: int = 0

    def __post_init__(self) -> None:
        if self.threads < 1 or self.prefetch < 1 or self.workers < 0:
            raise ValueError("threads and prefetch must be at least 1, workers at least 0")


def _leave_signals_to_the_loop(worker: int, workers: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach the whole group: a worker that died of one would take the run with it
    before it has saved. The loop ends its workers itself."""
    del worker, workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class _ProcessRows:
    """The examples of one process's rows, in order, out of a stream of global batches (a Grain data source)."""

    def __init__(self, examples: grain.MapDataset, rows: Rows):
        self._examples, self._rows = examples, rows

    def __len__(self) -> int:
        return len(self._examples) // self._rows.batch * self._rows.count

    def __getitem__(self, index: int) -> Example:
        batch, row = divmod(int(index), self._rows.count)
        return self._examples[batch * self._rows.batch + self._rows.start + row]


def batches(examples: grain.MapDataset, rows: Rows, reading: ReadingConfig) -> grain.IterDataset:
    """Batches (dicts of stacked arrays, `rows.count` examples each) of `examples`, an endless stream.

    An endless stream is what `.repeat()` of a MapDataset gives; random transforms belong before this call, where they
    see the global index.
    """
    source = grain.MapDataset.source(_ProcessRows(examples, rows))
    if not reading.workers:
        options = grain.ReadOptions(num_threads=reading.threads, prefetch_buffer_size=reading.prefetch)
        return source.to_iter_dataset(options).batch(rows.count, drop_remainder=True)
    # Workers take turns by the element, so an element must be a whole batch before they do.
    ahead = -(-reading.prefetch // (rows.count * reading.workers))
    options = grain.ReadOptions(num_threads=reading.threads, prefetch_buffer_size=ahead)
    stream = source.batch(rows.count, drop_remainder=True).to_iter_dataset(options)
    options = grain.MultiprocessingOptions(num_workers=reading.workers, per_worker_buffer_size=2)
    return stream.mp_prefetch(options, _leave_signals_to_the_loop)


def first_batches(
    examples: grain.MapDataset, rows: Rows, count: int, reading: ReadingConfig
) -> Iterator[dict[str, Any]]:
    """The first `count` batches of `examples`, an endless stream, for evaluation: always the same ones. Threads read
    one batch ahead."""
    wanted = grain.MapDataset.source(_ProcessRows(examples, rows))[: count * rows.count]
    options = grain.ReadOptions(num_threads=reading.threads, prefetch_buffer_size=rows.count)
    return iter(wanted.to_iter_dataset(options).batch(rows.count, drop_remainder=True))
