"""Perceptual distances between frames: true LPIPS where its weights are given, else a VGG-19 distance that says so.

LPIPS (Zhang et al. 2018, richzhang/PerceptualSimilarity, net="vgg", version 0.1) takes VGG-16's relu1_2, relu2_2,
relu3_3, relu4_3 and relu5_3, brings every pixel's feature vector to unit length, squares the differences, weights
them by a learned non-negative number per channel, averages over pixels and adds up the layers.

The VGG-19 distance does the same on relu1_1 .. relu5_1 with all weights 1 and the mean of the layers instead of their
sum. It orders pictures much as LPIPS does, but its numbers are on another scale: it must never be called LPIPS.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.losses.vgg19 import MaxPool, Relu
from ctjax.nn.module import Network

# LPIPS's own scaling layer on images in [-1, 1]; close to, but not, ImageNet's statistics
LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
UNIT_EPSILON = 1e-10
VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)


def unit_features(features: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Every pixel's feature vector divided by its length."""
    length = jnp.sqrt(jnp.sum(features * features, axis=-1, keepdims=True))
    return features / (length + UNIT_EPSILON)


def squared_differences(a: Float[Array, "b h w c"], b: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Squared differences of the unit feature vectors."""
    return (unit_features(a) - unit_features(b)) ** 2


def unweighted_distance(a: Sequence[Array], b: Sequence[Array]) -> Float[Array, " b"]:
    """Mean over layers and pixels of the squared distance of unit feature vectors: 0 .. 4, no learned weights."""
    layers = [jnp.mean(jnp.sum(squared_differences(x, y), -1), (1, 2)) for x, y in zip(a, b, strict=True)]
    return sum(layers) / len(layers)


@dataclass(frozen=True)
class LpipsConfig:
    """`widths`: channels of VGG-16's five blocks; the published network has the defaults."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)


class Lpips(nnx.Module):
    """`features`: VGG-16 under torchvision's indices. `lins`: one 1x1 convolution to one channel per layer."""

    def __init__(self, config: LpipsConfig, *, rngs: nnx.Rngs):
        layers: list[nnx.Module] = []
        taps = []
        channels = 3
        for block, (width, count) in enumerate(zip(config.widths, VGG16_CONVOLUTIONS, strict=True)):
            if block:
                layers.append(MaxPool())
            for _ in range(count):
                layers += [nnx.Conv(channels, width, (3, 3), rngs=rngs), Relu()]
                channels = width
            taps.append(len(layers) - 1)  # the block's last ReLU
        self.features = nnx.List(layers)
        self.lins = nnx.List([nnx.Conv(width, 1, (1, 1), use_bias=False, rngs=rngs) for width in config.widths])
        self.taps = tuple(taps)

    def maps(self, image_01: Float[Array, "b h w 3"]) -> list[Array]:
        """The five feature maps of RGB images in [0, 1]."""
        shift, scale = (jnp.asarray(v, image_01.dtype) for v in (LPIPS_SHIFT, LPIPS_SCALE))
        x = (2.0 * image_01 - 1.0 - shift) / scale
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps

    def __call__(self, a_01: Float[Array, "b h w 3"], b_01: Float[Array, "b h w 3"]) -> Float[Array, " b"]:
        """LPIPS of each pair of RGB images in [0, 1]."""
        pairs = zip(self.maps(a_01), self.maps(b_01), self.lins, strict=True)
        return sum(jnp.mean(lin(squared_differences(x, y))[..., 0], (1, 2)) for x, y, lin in pairs)


@functools.cache
def network(config: LpipsConfig = LpipsConfig()) -> Network:
    return Network(lambda rngs: Lpips(config, rngs=rngs))
