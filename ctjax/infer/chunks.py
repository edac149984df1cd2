"""Fixed-size chunks, so that one compiled program serves a whole clip and the next."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np

T = TypeVar("T")


def chunked(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items in order; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def stack_padded(items: list, size: int):
    """Stacks a list of pytrees of arrays along a new first axis of length `size`, the last item repeated as padding."""
    padded = items + [items[-1]] * (size - len(items))
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *padded)
