"""face-vid2vid renderers (ControlTalk, the unofficial repository): conversion tables, and the config off the shapes.

A checkpoint is handled as its parts, {"generator" | "kp_detector" | "he_estimator": state dict}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD, ConversionError, Ignore, Rule
from convert.tensors import KERNEL
from ctjax.nn.resize import low_pass_kernel
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import RendererConfig

StateDict = Mapping[str, np.ndarray]

PARTS = ("generator", "kp_detector", "he_estimator")

# A spectrally normalised convolution stores `weight_orig` and the two power-iteration vectors, and no `weight`.
TABLE: tuple[Rule | Ignore, ...] = (
    *STANDARD,
    Rule(r"(.+)\.weight_orig", r"\1.kernel", KERNEL),
    Rule(r"(.+)\.weight_u", r"\1.u"),
    Rule(r"(.+)\.weight_v", r"\1.v"),
)


TABLES = dict.fromkeys(PARTS, TABLE)


class Shapes:
    """A state dict's shapes, asked by key; a missing key says that the checkpoint is of another network."""

    def __init__(self, state: StateDict, part: str):
        self._shapes = {key: tuple(np.shape(array)) for key, array in state.items()}
        self._part = part

    def __contains__(self, key: str) -> bool:
        return key in self._shapes

    def out(self, key: str) -> int:
        return self._get(key)[0]

    def in_(self, key: str) -> int:
        return self._get(key)[1]

    def side(self, key: str) -> int:
        return self._get(key)[2]

    def count(self, pattern: str, start: int = 0) -> int:
        """How many numbers n from `start` to the highest of any key that begins like pattern.format(n): a key that is
        missing in between is then reported as missing, instead of making the network smaller."""
        stem = re.compile(re.escape(pattern.partition("{}")[0]) + r"(\d+)\b")
        numbers = [int(match[1]) for key in self._shapes if (match := stem.match(key))]
        return max(numbers, default=start - 1) + 1 - start

    def widest(self, pattern: str) -> int:
        return max(self.out(pattern.format(i)) for i in range(max(self.count(pattern), 1)))

    def _get(self, key: str) -> tuple[int, ...]:
        shape = self._shapes.get(key)
        if shape is None:
            raise ConversionError(f"{self._part}: not a face-vid2vid {self._part}, it has no {key}")
        if len(shape) < 2:
            raise ConversionError(f"{self._part}: {key} has shape {shape}, should be a weight of rank 2 or more")
        return shape


def infer_config(parts: Mapping[str, StateDict]) -> RendererConfig:
    """The config of the checkpoint {part: state dict}; `he_estimator` may be missing.

    Everything is read off the shapes but the softmax temperature, which is 0.1 in every published config.
    """
    for part in PARTS[:2]:
        if part not in parts:
            raise ConversionError(f"facevid2vid: the checkpoint has no part {part!r}, only {sorted(parts)}")
    head = parts.get("he_estimator")
    return RendererConfig(
        generator=infer_generator(parts["generator"]),
        kp_detector=infer_keypoint_detector(parts["kp_detector"]),
        he_estimator=infer_head_estimator(head) if head else None,
    )


def infer_generator(state: StateDict) -> GeneratorConfig:
    """The generator's config, its dense motion's and its decoder's."""
    shapes = Shapes(state, "generator")
    max_features = shapes.out("second.weight")
    reshape_channel = shapes.in_("dense_motion_network.compress.weight")
    return GeneratorConfig(
        image_channel=shapes.in_("first.conv.weight"),
        block_expansion=shapes.out("first.conv.weight"),
        max_features=max_features,
        num_down_blocks=shapes.count("down_blocks.{}.conv.weight"),
        reshape_channel=reshape_channel,
        reshape_depth=max_features // reshape_channel,
        num_resblocks=shapes.count("resblocks_3d.3dr{}.conv1.weight"),
        dense_motion=_infer_dense_motion(shapes, max_features // reshape_channel),
        spade=_infer_spade(shapes) if "decoder.fc.weight" in shapes else None,
    )


def _infer_dense_motion(shapes: Shapes, reshape_depth: int) -> DenseMotionConfig:
    down = "dense_motion_network.hourglass.encoder.down_blocks.{}.conv.weight"
    num_blocks = shapes.count(down)
    last_up = f"dense_motion_network.hourglass.decoder.up_blocks.{num_blocks - 1}.conv.weight"
    return DenseMotionConfig(
        num_kp=shapes.out("dense_motion_network.mask.weight") - 1,
        feature_channel=shapes.in_("dense_motion_network.compress.weight"),
        block_expansion=shapes.out(last_up),
        max_features=shapes.widest(down),
        num_blocks=num_blocks,
        reshape_depth=reshape_depth,
        compress=shapes.out("dense_motion_network.compress.weight"),
        estimate_occlusion_map="dense_motion_network.occlusion.weight" in shapes,
        mask_kernel=shapes.side("dense_motion_network.mask.weight"),
    )


def _infer_spade(shapes: Shapes) -> SpadeDecoderConfig:
    return SpadeDecoderConfig(
        ic=shapes.in_("decoder.fc.weight"),
        oc=shapes.in_("decoder.conv_img.weight"),
        label_nc=shapes.in_("decoder.up_0.norm_0.mlp_shared.0.weight"),
        hidden=shapes.out("decoder.up_0.norm_0.mlp_shared.0.weight"),
        middle_blocks=shapes.count("decoder.G_middle_{}.conv_0.weight_orig"),
    )


def infer_keypoint_detector(state: StateDict) -> KeypointDetectorConfig:
    """The keypoint detector's config; `down.weight` tells the scale of the input, its absence full size."""
    shapes = Shapes(state, "kp_detector")
    down = "predictor.down_blocks.down{}.conv.weight"
    num_blocks = shapes.count(down)
    reshape_channel = shapes.out("predictor.conv.weight")
    return KeypointDetectorConfig(
        num_kp=shapes.out("kp.weight"),
        image_channel=shapes.in_(down.format(0)),
        block_expansion=shapes.out(f"predictor.up_blocks.up{num_blocks - 1}.conv.weight"),
        max_features=shapes.widest(down),
        num_blocks=num_blocks,
        reshape_channel=reshape_channel,
        reshape_depth=reshape_channel // shapes.in_("predictor.up_blocks.up0.conv.weight"),
        scale_factor=_infer_scale(state["down.weight"]) if "down.weight" in shapes else 1.0,
        estimate_jacobian="jacobian.weight" in shapes,
    )


def _infer_scale(low_pass: np.ndarray) -> float:
    """The scale 1 / n whose Gaussian has this filter's size (ControlTalk modules/util.py:374-415)."""
    taps = np.shape(low_pass)[-1]
    for n in (2, 3, 4, 5, 6, 8, 16):
        if low_pass_kernel(1 / n, 1).shape[0] == taps:
            return 1 / n
    raise ConversionError(f"kp_detector: down.weight is {taps} wide, which is no low-pass of the reference's")


def infer_head_estimator(state: StateDict) -> HeadEstimatorConfig:
    """The head estimator's config."""
    shapes = Shapes(state, "he_estimator")
    stages = shapes.count("conv{}.weight", start=2)
    return HeadEstimatorConfig(
        num_kp=shapes.out("fc_exp.weight") // 3,
        image_channel=shapes.in_("conv1.weight"),
        block_expansion=shapes.out("conv1.weight"),
        num_bins=shapes.out("fc_roll.weight"),
        widths=tuple(shapes.out(f"conv{i + 2}.weight") for i in range(stages)),
        bottlenecks=tuple(shapes.count(f"block{2 * i + 1}.b{2 * i + 1}_{{}}.conv1.weight") for i in range(stages)),
    )
