"""Named tensor transforms from PyTorch's layouts to channels last, each with its inverse for export."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Transform(NamedTuple):
    """`forward` re-lays a source array for the target; `backward` undoes it (given the source's shape)."""

    forward: Callable[[np.ndarray], np.ndarray]
    backward: Callable[[np.ndarray], np.ndarray]


def _channels_last(weight: np.ndarray) -> np.ndarray:
    """(O, I, *spatial) -> (*spatial, I, O): linear and convolution kernels of any rank."""
    return np.moveaxis(weight, (0, 1), (-1, -2))


def _channels_first(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _identity(array: np.ndarray) -> np.ndarray:
    return array


IDENTITY = Transform(_identity, _identity)
KERNEL = Transform(_channels_last, _channels_first)
