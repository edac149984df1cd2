"""Head pose and expression of a face: angles as bins, translation, and a deformation of each keypoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.blocks import Bottleneck, Chain, LowPass
from ctjax.nn.conv import BlockwiseLinear, conv
from ctjax.nn.norm import BatchNorm
from ctjax.nn.resize import max_pool
from ctjax.types import HeadPose

# Bin i of 66 stands for 3 i - 99 degrees: [-99, 96] (ControlTalk render.py:54-60).
DEGREES_PER_BIN = 3.0
FIRST_BIN_DEG = -99.0


@dataclass(frozen=True)
class HeadEstimatorConfig:
    """`block_expansion` is the first convolution's width.

    widths, bottlenecks: of the stages, each a 1 x 1 convolution to its width, a bottleneck that halves the size (not in
    the first stage), and so many that keep it. They are literals in the reference (ControlTalk
    modules/keypoint_detector.py:85-129) and have its values by default. scale_factor: 1 / n, the input is low-passed
    and every n-th pixel taken, as the keypoint detector does; the reference takes the picture as it is.
    """

    num_kp: int = 15
    image_channel: int = 3
    block_expansion: int = 64
    num_bins: int = 66
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    bottlenecks: tuple[int, ...] = (3, 3, 5, 2)
    scale_factor: float = 1.0

    @property
    def stride(self) -> int:
        return round(1 / self.scale_factor)


class HeadEstimate(NamedTuple):
    """Raw outputs, float32: bins are logits "b n"; translation "b 3"; expression "b k 3" (keypoint-major)."""

    yaw_bins: jax.Array
    pitch_bins: jax.Array
    roll_bins: jax.Array
    translation: jax.Array
    expression: jax.Array

    @property
    def head_pose(self) -> HeadPose:
        """The same with angles in degrees."""
        bins = (self.yaw_bins, self.pitch_bins, self.roll_bins)
        return HeadPose(*(degrees_from_bins(logits) for logits in bins), self.translation, self.expression)


def degrees_from_bins(logits: jax.Array) -> jax.Array:
    """Expected angle of bins "b n" under their softmax -> float32 "b", degrees."""
    share = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), axis=-1)
    index = jnp.arange(logits.shape[-1], dtype=share.dtype)
    return jnp.sum(share * index, axis=-1) * DEGREES_PER_BIN + FIRST_BIN_DEG


class HeadEstimator(nnx.Module):
    """HEEstimator (ControlTalk modules/keypoint_detector.py:85-129): a ResNet with five heads."""

    def __init__(self, config: HeadEstimatorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.conv1 = conv(config.image_channel, config.block_expansion, (7, 7), padding=3, strides=2, rngs=rngs)
        self.norm1 = BatchNorm(config.block_expansion, rngs=rngs)
        (width, *wider), (count, *counts) = config.widths, config.bottlenecks
        self.stages = len(wider)
        self.conv2 = conv(config.block_expansion, width, (1, 1), rngs=rngs)
        self.norm2 = BatchNorm(width, rngs=rngs)
        self.block1 = _bottlenecks(1, width, count, rngs)
        for number, (new, count) in enumerate(zip(wider, counts, strict=True), start=1):
            setattr(self, f"conv{number + 2}", conv(width, new, (1, 1), rngs=rngs))
            setattr(self, f"norm{number + 2}", BatchNorm(new, rngs=rngs))
            setattr(self, f"block{2 * number}", Bottleneck(new, stride=2, rngs=rngs))
            setattr(self, f"block{2 * number + 1}", _bottlenecks(2 * number + 1, new, count, rngs))
            width = new
        self.fc_roll = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_pitch = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_yaw = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_t = BlockwiseLinear(width, 3, rngs=rngs)
        self.fc_exp = BlockwiseLinear(width, 3 * config.num_kp, rngs=rngs)
        if config.stride > 1:
            self.down = LowPass(config.image_channel, config.scale_factor, config.stride)

    def __call__(self, image_01: jax.Array) -> HeadEstimate:
        """image_01: RGB "b h w 3" in [0, 1], any size from 32 pixels."""
        x = image_01.astype(self.conv1.kernel[...].dtype)
        if self.config.stride > 1:
            x = self.down(x)
        x = jax.nn.relu(self.norm1(self.conv1(x)))
        x = max_pool(x, window=3, stride=2, padding=1)
        x = self.block1(jax.nn.relu(self.norm2(self.conv2(x))))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"conv{number + 2}")(x)
            x = jax.nn.relu(getattr(self, f"norm{number + 2}")(x))
            x = getattr(self, f"block{2 * number}")(x)
            x = getattr(self, f"block{2 * number + 1}")(x)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
        return HeadEstimate(
            yaw_bins=self.fc_roll(x),  # swapped in the reference, and trained so (modules/keypoint_detector.py:167-169)
            pitch_bins=self.fc_pitch(x),
            roll_bins=self.fc_yaw(x),
            translation=self.fc_t(x),
            expression=self.fc_exp(x).reshape(-1, self.config.num_kp, 3),
        )


def _bottlenecks(block: int, width: int, count: int, rngs: nnx.Rngs) -> Chain:
    return Chain({f"b{block}_{i}": Bottleneck(width, rngs=rngs) for i in range(count)})
