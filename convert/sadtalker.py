"""SadTalker's renderer: its checkpoints' layouts, its mapping network's table, and its config off the shapes.

The networks are those of `convert.facevid2vid`; only the treatment of small mask entries differs, and the mapping
network takes the head estimator's place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from convert import facevid2vid
from convert.facevid2vid import Shapes, StateDict
from convert.rules import ConversionError, Ignore, Rule
from convert.tensors import KERNEL
from ctjax.render.dense_motion import SADTALKER_MASK_FLOOR
from ctjax.render.mapping import MappingConfig
from ctjax.render.renderer import RendererConfig

# Convolutions sit in sequences of the reference, behind an activation in all but the first.
MAPPING_TABLE: tuple[Rule | Ignore, ...] = (
    Rule(r"first\.0\.weight", "first.kernel", KERNEL),
    Rule(r"first\.0\.bias", "first.bias"),
    Rule(r"(encoder\d+)\.1\.weight", r"\1.kernel", KERNEL),
    Rule(r"(encoder\d+)\.1\.bias", r"\1.bias"),
    Rule(r"(fc_\w+)\.weight", r"\1.kernel", KERNEL),
    Rule(r"(fc_\w+)\.bias", r"\1.bias"),
)
TABLES = facevid2vid.TABLES | {"mapping": MAPPING_TABLE}

# A key of the flat files belongs to the part whose marker it CONTAINS; the marker is then cut out wherever it stands
# (SadTalker src/facerender/animate.py:97-120).
MARKERS = {"generator": "generator", "kp_extractor": "kp_detector", "he_estimator": "he_estimator"}


def split_flat(state: StateDict) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """`SadTalker_V0.0.2_256.safetensors` and `..._512.safetensors` as {part: state dict}, and {other key: reason}.

    The files also hold networks that are no part of the renderer (3DMM fitting, audio to expression, audio to pose).
    """
    parts: dict[str, dict[str, np.ndarray]] = {}
    others: dict[str, str] = {}
    for key, array in state.items():
        marker = next((marker for marker in MARKERS if marker in key), None)
        if marker is None:
            others[key] = "of another network than the renderer"
        else:
            parts.setdefault(MARKERS[marker], {})[key.replace(f"{marker}.", "")] = array
    return parts, others


def mapping_part(checkpoint: Mapping[str, StateDict]) -> StateDict:
    """The mapping network's state dict in `mapping_00109-model.pth.tar` or `mapping_00229-model.pth.tar`."""
    if "mapping" not in checkpoint:
        raise ConversionError(f"sadtalker: a mapping checkpoint has a part 'mapping', this has {sorted(checkpoint)}")
    return checkpoint["mapping"]


def infer_config(parts: Mapping[str, StateDict]) -> RendererConfig:
    """The config of {part: state dict}; `he_estimator` and `mapping` may be missing."""
    config = facevid2vid.infer_config(parts)
    motion = dataclasses.replace(config.generator.dense_motion, mask_floor=SADTALKER_MASK_FLOOR)
    return dataclasses.replace(
        config,
        generator=dataclasses.replace(config.generator, dense_motion=motion),
        mapping=infer_mapping(parts["mapping"]) if "mapping" in parts else None,
    )


def infer_mapping(state: StateDict) -> MappingConfig:
    """The mapping network's config."""
    shapes = Shapes(state, "mapping")
    return MappingConfig(
        coeff_nc=shapes.in_("first.0.weight"),
        descriptor_nc=shapes.out("first.0.weight"),
        layer=shapes.count("encoder{}.1.weight"),
        num_kp=shapes.out("fc_exp.weight") // 3,
        num_bins=shapes.out("fc_roll.weight"),
    )
