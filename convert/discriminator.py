"""The multi-scale discriminator of face-vid2vid training checkpoints to `ctjax.losses.discriminator`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from convert.rules import STANDARD, Rule
from convert.tensors import KERNEL
from ctjax.losses.discriminator import DiscriminatorConfig

_SCALE = r"discs\.([\d-]+)\."  # discs.1, discs.0-5; a bare number would be read as a list index
TABLE = (
    Rule(_SCALE + r"(.+)\.weight_orig", r"discs.scale_\1.\2.kernel", KERNEL),
    Rule(_SCALE + r"(.+)\.weight_(u|v)", r"discs.scale_\1.\2.\3"),
    *(
        replace(
            entry,
            pattern=_SCALE + entry.pattern,
            target="discs.scale_" + re.sub(r"\\1", r"\\1.\\2", entry.target),
        )
        for entry in STANDARD
        if isinstance(entry, Rule)
    ),
)


def infer_config(state: Mapping[str, np.ndarray]) -> DiscriminatorConfig:
    """Architecture from keys and shapes. Raises ValueError where `state` holds no discriminator."""
    names = [m.group(1) for key in state if (m := re.match(_SCALE, key))]
    scales = list(dict.fromkeys(names))
    if not scales:
        raise ValueError("no key starts with discs.: this is not a discriminator's state dict")
    spectral = any(key.endswith("weight_orig") for key in state)
    suffix = "weight_orig" if spectral else "weight"
    blocks = [
        state[key]
        for index in range(len(state))
        if (key := f"discs.{scales[0]}.down_blocks.{index}.conv.{suffix}") in state
    ]
    return DiscriminatorConfig(
        scales=tuple(float(name.replace("-", ".")) for name in scales),
        channels=int(blocks[0].shape[1]),
        block_expansion=int(blocks[0].shape[0]) // 2,
        max_features=max(int(b.shape[0]) for b in blocks),
        num_blocks=len(blocks),
        spectral_norm=spectral,
    )
