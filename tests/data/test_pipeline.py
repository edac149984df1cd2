"""Batches by their place in the global stream, whoever reads them."""

import itertools
import os
import signal
import time

import grain
import numpy as np
import pytest

from ctjax.data.pipeline import ReadingConfig, batches, first_batches
from ctjax.parallel import Rows


def first(rows, workers, count=4):
    stream = grain.MapDataset.range(1000).repeat()
    reading = ReadingConfig(threads=1, prefetch=8, workers=workers)
    return [batch.tolist() for batch in itertools.islice(iter(batches(stream, rows, reading)), count)]


@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_the_same_for_any_number_of_workers_and_processes(workers):
    whole = np.arange(16).reshape(4, 4)
    assert first(Rows(4, 0, 4), workers) == whole.tolist()
    assert first(Rows(4, 2, 4), workers) == whole[:, 2:].tolist()


def test_the_first_batches_are_always_the_same_and_no_more():
    stream = grain.MapDataset.range(5).repeat().map(lambda i: {"i": np.array(i)})
    for _ in range(2):
        found = [batch["i"].tolist() for batch in first_batches(stream, Rows(4, 2, 4), 3, ReadingConfig(threads=3))]
        assert found == [[2, 3], [1, 2], [0, 1]]


class _Slow(grain.transforms.Map):
    def map(self, element):
        time.sleep(0.05)
        return np.array([element, os.getpid()])


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_workers_outlive_the_signals_that_stop_the_loop(name):
    """A terminal and a scheduler send them to the whole group: the loop saves first, then it ends its workers."""
    stream = grain.MapDataset.range(1000).repeat().map(_Slow())
    read = iter(batches(stream, Rows(2, 0, 2), ReadingConfig(threads=1, prefetch=2, workers=1)))
    worker = int(next(read)[0, 1])
    os.kill(worker, getattr(signal, name))
    assert [next(read)[:, 0].tolist() for _ in range(12)] == [[2 * i, 2 * i + 1] for i in range(1, 13)]
