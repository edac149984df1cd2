"""Hopenet's flat `.pkl` to `ctjax.losses.hopenet`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD, Ignore
from ctjax.losses.hopenet import HopenetConfig

_REFINEMENT = r"fc_finetune\..+"
TABLE = (
    *STANDARD,
    Ignore(_REFINEMENT, "Hopenet's iterative refinement, which its forward pass does not use"),
)


def infer_config(state: Mapping[str, np.ndarray]) -> HopenetConfig:
    """Depth and width from the keys and the stem's kernel. Raises KeyError without `conv1.weight`."""
    blocks: dict[int, int] = {}
    for key in state:
        if match := re.match(r"layer(\d+)\.(\d+)\.", key):
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    return HopenetConfig(
        layers=tuple(blocks[stage] for stage in sorted(blocks)), width=int(state["conv1.weight"].shape[0])
    )
