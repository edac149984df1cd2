"""insightface's arcface_torch backbones (`backbone.pth`, IResNet) to `ctjax.evaluate.identity`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD
from ctjax.evaluate.identity import ArcFaceConfig

TABLE = STANDARD


def infer_config(state: Mapping[str, np.ndarray]) -> ArcFaceConfig:
    """Depth and widths from the keys. Raises KeyError without `fc.weight` or a stage's first block."""
    blocks: dict[int, int] = {}
    for key in state:
        if match := re.match(r"layer(\d+)\.(\d+)\.", key):
            stage, block = map(int, match.groups())
            blocks[stage] = max(blocks.get(stage, 0), block + 1)
    return ArcFaceConfig(
        layers=tuple(blocks[stage] for stage in sorted(blocks)),
        widths=tuple(int(state[f"layer{stage}.0.conv1.weight"].shape[0]) for stage in sorted(blocks)),
        embedding=int(state["fc.weight"].shape[0]),
    )
