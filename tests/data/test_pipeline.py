"""Batches by their place in the global stream, whoever reads them."""

import itertools

import grain
import numpy as np
import pytest

from ctjax.data.pipeline import ReadingConfig, batches
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
