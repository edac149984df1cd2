"""Hopenet: head pose from a picture by three 66-bin classifiers on a ResNet-50; frozen, the head-pose loss's teacher.

Key names are those of the published `hopenet_robust_alpha1.pkl` (ControlTalk modules/hopenet.py).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.losses.vgg19 import imagenet_normalize
from ctjax.nn.conv import conv
from ctjax.nn.module import Network
from ctjax.nn.norm import BatchNorm
from ctjax.nn.resize import max_pool

NUM_BINS = 66
DEGREES_PER_BIN = 3.0
FIRST_BIN_DEG = -99.0
INPUT_SIDE = 224
EXPANSION = 4  # a bottleneck's output channels over its inner ones


@dataclass(frozen=True)
class HopenetConfig:
    """`layers`: bottlenecks per stage, `width`: channels of the stem; the published network has the defaults."""

    layers: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64


class PoseDegrees(NamedTuple):
    """Head angles, each "b", degrees in [-99, 96]."""

    yaw_deg: Array
    pitch_deg: Array
    roll_deg: Array


class PoseBins(NamedTuple):
    """Logits over 66 bins of 3 degrees for each angle, each "b 66"."""

    yaw: Array
    pitch: Array
    roll: Array


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return conv(inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False, rngs=rngs)


class Bottleneck(nnx.Module):
    """ResNet bottleneck with the stride on its 3x3 convolution, as torchvision has it."""

    def __init__(self, inputs: int, width: int, stride: int, *, rngs: nnx.Rngs):
        outputs = width * EXPANSION
        self.conv1 = _conv(inputs, width, 1, 1, rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = _conv(width, width, 3, stride, rngs)
        self.bn2 = BatchNorm(width, rngs=rngs)
        self.conv3 = _conv(width, outputs, 1, 1, rngs)
        self.bn3 = BatchNorm(outputs, rngs=rngs)
        projects = stride != 1 or inputs != outputs
        self.downsample = nnx.List(
            [_conv(inputs, outputs, 1, stride, rngs), BatchNorm(outputs, rngs=rngs)] if projects else []
        )

    def __call__(self, x):
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = jax.nn.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        for layer in self.downsample:
            x = layer(x)
        return jax.nn.relu(x + y)


class Hopenet(nnx.Module):
    def __init__(self, config: HopenetConfig, *, rngs: nnx.Rngs):
        self.conv1 = _conv(3, config.width, 7, 2, rngs)
        self.bn1 = BatchNorm(config.width, rngs=rngs)
        channels = config.width
        for stage, count in enumerate(config.layers):
            width = config.width * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage and index == 0 else 1
                blocks.append(Bottleneck(channels, width, stride, rngs=rngs))
                channels = width * EXPANSION
            setattr(self, f"layer{stage + 1}", nnx.List(blocks))
        self.stages = len(config.layers)
        for angle in PoseBins._fields:
            setattr(self, f"fc_{angle}", nnx.Linear(channels, NUM_BINS, rngs=rngs))

    def features(self, image: Float[Array, "b 224 224 3"]) -> dict[str, Float[Array, "b ..."]]:
        """Every stage's output by its checkpoint name, for ImageNet-normalised images; `avgpool` is "b c"."""
        maps = {"conv1": self.conv1(image)}
        x = jax.nn.relu(self.bn1(maps["conv1"]))
        maps["maxpool"] = x = max_pool(x, window=3, stride=2, padding=1)
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
            maps[f"layer{stage}"] = x
        maps["avgpool"] = x.mean((1, 2))
        return maps

    def __call__(self, image: Float[Array, "b 224 224 3"]) -> PoseBins:
        """Bin logits of ImageNet-normalised 224 px images."""
        pooled = self.features(image)["avgpool"]
        return PoseBins(*(getattr(self, f"fc_{angle}")(pooled) for angle in PoseBins._fields))


def degrees(logits: Float[Array, "b 66"]) -> Float[Array, " b"]:
    """Softmax expectation of the bins in degrees (ControlTalk modules/model.py:134-139)."""
    index = jnp.arange(NUM_BINS, dtype=logits.dtype)
    return jnp.sum(jax.nn.softmax(logits, -1) * index, -1) * DEGREES_PER_BIN + FIRST_BIN_DEG


def resize_for_hopenet(image_01: Float[Array, "b h w 3"], antialias: bool = True) -> Float[Array, "b 224 224 3"]:
    """Bilinear resize to 224 px. torchvision filters before shrinking since 0.17, not before (`antialias=False`)."""
    shape = (image_01.shape[0], INPUT_SIDE, INPUT_SIDE, image_01.shape[3])
    return jax.image.resize(image_01, shape, "linear", antialias=antialias)


def head_pose(hopenet: Hopenet, image_01: Float[Array, "b h w 3"], antialias: bool = True) -> PoseDegrees:
    """The pose that Hopenet sees in RGB images in [0, 1] of any size (modules/model.py:228-231, 363-367).

    With stored statistics, always; the reference calls eval() only where CUDA is present.
    """
    return PoseDegrees(*map(degrees, hopenet(imagenet_normalize(resize_for_hopenet(image_01, antialias)))))


@functools.cache
def network(config: HopenetConfig = HopenetConfig()) -> Network:
    return Network(lambda rngs: Hopenet(config, rngs=rngs))
