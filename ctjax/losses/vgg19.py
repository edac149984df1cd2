"""VGG-19's feature stack up to relu5_1, the frozen network behind the perceptual losses.

Layout and key names are torchvision's (`features.N`); the five feature maps are the reference's slices
(ControlTalk modules/model.py:13-53).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.conv import conv
from ctjax.nn.module import Network, Params
from ctjax.nn.resize import max_pool

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CONVOLUTIONS_PER_BLOCK = (2, 2, 4, 4, 1)  # the last block of VGG-19 has four; nothing after relu5_1 is read
MIN_SIDE = 16  # four 2x2 poolings stand before relu5_1


@dataclass(frozen=True)
class Vgg19Config:
    """`widths`: channels of the five blocks; the published network has the defaults."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)


class Relu(nnx.Module):
    def __call__(self, x):
        return jax.nn.relu(x)


class MaxPool(nnx.Module):
    def __call__(self, x):
        return max_pool(x, window=2, stride=2, padding=0)


class Vgg19(nnx.Module):
    """`features` holds torchvision's layers under torchvision's indices."""

    def __init__(self, config: Vgg19Config, *, rngs: nnx.Rngs):
        layers: list[nnx.Module] = []
        taps = []
        channels = 3
        for block, (width, count) in enumerate(zip(config.widths, CONVOLUTIONS_PER_BLOCK, strict=True)):
            if block:
                layers.append(MaxPool())
            taps.append(len(layers) + 1)  # the block's first ReLU
            for _ in range(count):
                layers += [conv(channels, width, (3, 3), padding=1, rngs=rngs), Relu()]
                channels = width
        self.features = nnx.List(layers)
        self.taps = tuple(taps)

    def __call__(self, image_01: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """relu1_1, relu2_1, relu3_1, relu4_1, relu5_1 of RGB images in [0, 1] (ImageNet statistics applied here).

        Raises ValueError for images under 16 pixels a side.
        """
        if min(image_01.shape[1:3]) < MIN_SIDE:
            raise ValueError(
                f"VGG-19 needs images of at least {MIN_SIDE} px a side to reach relu5_1, got "
                f"{image_01.shape[1]}x{image_01.shape[2]}: leave the smallest scale out of the pyramid"
            )
        x = imagenet_normalize(image_01)
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return tuple(maps)


def imagenet_normalize(image_01: Float[Array, "*b h w 3"]) -> Float[Array, "*b h w 3"]:
    """RGB in [0, 1] to the zero-mean, unit-variance range of torchvision's classifiers."""
    mean, std = (jnp.asarray(v, image_01.dtype) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image_01 - mean) / std


def untrained(config: Vgg19Config, seed: int) -> Params:
    """Fixed random parameters (He's initialisation, so that deep layers stay as lively as the first): no substitute for
    trained ones, but a perceptual loss to try things out with."""
    rng = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) == 1:
            return np.zeros(leaf.shape, np.float32)
        return (rng.standard_normal(leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5).astype(np.float32)

    return jax.tree.map(draw, network(config).abstract)


@functools.cache
def network(config: Vgg19Config = Vgg19Config()) -> Network:
    return Network(lambda rngs: Vgg19(config, rngs=rngs))
