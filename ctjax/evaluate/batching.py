"""Frames into batches of one fixed size, so that every jitted function is compiled once and not per clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np


class Batcher:
    """Collects items one by one and calls `run(stacks, count)` whenever enough have come.

    An item is a tuple of arrays; `stacks` holds one array per position, each of exactly `size + overlap` rows, of
    which consecutive calls share `overlap`. With n rows in all that makes n - overlap results, `count` of them in one
    call; the last call is filled up by repeating its last item.
    """

    def __init__(self, run: Callable[[tuple[np.ndarray, ...], int], None], size: int, overlap: int = 0):
        self._run, self._size, self._overlap = run, size, overlap
        self._held: list[tuple[np.ndarray, ...]] = []

    def add(self, *item: np.ndarray) -> None:
        """Adds one item; may call `run`."""
        self._held.append(item)
        if len(self._held) == self._size + self._overlap:
            self._emit(self._size)

    def finish(self) -> None:
        """Runs what is left, if it makes at least one result."""
        count = len(self._held) - self._overlap
        if count > 0:
            self._held += [self._held[-1]] * (self._size - count)
            self._emit(count)
        self._held = []

    def _emit(self, count: int) -> None:
        stacks = tuple(np.stack(column) for column in zip(*self._held, strict=True))
        self._held = self._held[self._size :]
        self._run(stacks, count)


def windows(stack: np.ndarray, length: int) -> np.ndarray:
    """Every run of `length` consecutive rows of "n ...": "n-length+1 length ...", a view."""
    moved = np.lib.stride_tricks.sliding_window_view(stack, length, axis=0)
    return np.moveaxis(moved, -1, 1)


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The parts one after the other as float32; empty for none."""
    return np.concatenate([np.asarray(p, np.float32) for p in parts]) if parts else np.zeros(0, np.float32)


def known_mean(values: np.ndarray) -> float:
    """The mean of the numbers among `values`, NaN for none."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")
