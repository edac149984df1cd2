"""InceptionV3 as the Frechet Inception Distance knows it: the network of pytorch-fid's `pt_inception-2015-12-05`.

It is torchvision's InceptionV3 with two differences (pytorch_fid/inception.py): average pools do not count their
padding, and the pool branch of the last block is a max pool. Attributes carry the checkpoint's key names. The
features are the 2048 means before the classifier.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.module import Network
from ctjax.nn.resize import max_pool

INPUT_SIDE = 299
BATCH_NORM_EPSILON = 1e-3
FEATURES = 2048


@dataclass(frozen=True)
class InceptionConfig:
    """`divisor`: every channel count is divided by it; the published network has 1, tests take less."""

    divisor: int = 1

    @property
    def features(self) -> int:
        return FEATURES // self.divisor


class BasicConv2d(nnx.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel, stride: int, padding, *, rngs: nnx.Rngs):
        pads = [(p, p) for p in padding]
        self.conv = nnx.Conv(inputs, outputs, kernel, strides=stride, padding=pads, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(outputs, use_running_average=True, epsilon=BATCH_NORM_EPSILON, rngs=rngs)

    def __call__(self, x):
        return jax.nn.relu(self.bn(self.conv(x)))


def _average_pool(x: Array) -> Array:
    """3x3 means with stride 1 over the cells that exist; the padding is not counted."""
    return nnx.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _chain(layers, x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


class _Layers(NamedTuple):
    """Makes the convolutions of a network whose channel counts are the published ones over `divisor`."""

    divisor: int
    rngs: nnx.Rngs

    def __call__(self, inputs: int, outputs: int, kernel, stride: int = 1, *, padded: bool = True) -> BasicConv2d:
        """Zero padding keeps the size, unless `padded` is false or the stride is 2."""
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = tuple(k // 2 for k in kernel) if padded and stride == 1 else (0, 0)
        d = self.divisor
        return BasicConv2d(inputs // d, outputs // d, kernel, stride, padding, rngs=self.rngs)


class InceptionA(nnx.Module):
    def __init__(self, inputs: int, pool_features: int, make: _Layers):
        self.branch1x1 = make(inputs, 64, 1)
        self.branch5x5_1 = make(inputs, 48, 1)
        self.branch5x5_2 = make(48, 64, 5)
        self.branch3x3dbl_1 = make(inputs, 64, 1)
        self.branch3x3dbl_2 = make(64, 96, 3)
        self.branch3x3dbl_3 = make(96, 96, 3)
        self.branch_pool = make(inputs, pool_features, 1)

    def __call__(self, x):
        branches = [
            self.branch1x1(x),
            _chain((self.branch5x5_1, self.branch5x5_2), x),
            _chain((self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3), x),
            self.branch_pool(_average_pool(x)),
        ]
        return jnp.concatenate(branches, -1)


class InceptionB(nnx.Module):
    """Halves the size."""

    def __init__(self, inputs: int, make: _Layers):
        self.branch3x3 = make(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = make(inputs, 64, 1)
        self.branch3x3dbl_2 = make(64, 96, 3)
        self.branch3x3dbl_3 = make(96, 96, 3, stride=2)

    def __call__(self, x):
        double = _chain((self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3), x)
        return jnp.concatenate([self.branch3x3(x), double, max_pool(x, 3, 2, 0)], -1)


class InceptionC(nnx.Module):
    def __init__(self, inputs: int, inner: int, make: _Layers):
        row, column = (1, 7), (7, 1)
        self.branch1x1 = make(inputs, 192, 1)
        self.branch7x7_1 = make(inputs, inner, 1)
        self.branch7x7_2 = make(inner, inner, row)
        self.branch7x7_3 = make(inner, 192, column)
        self.branch7x7dbl_1 = make(inputs, inner, 1)
        self.branch7x7dbl_2 = make(inner, inner, column)
        self.branch7x7dbl_3 = make(inner, inner, row)
        self.branch7x7dbl_4 = make(inner, inner, column)
        self.branch7x7dbl_5 = make(inner, 192, row)
        self.branch_pool = make(inputs, 192, 1)

    def __call__(self, x):
        single = (self.branch7x7_1, self.branch7x7_2, self.branch7x7_3)
        double = (
            self.branch7x7dbl_1,
            self.branch7x7dbl_2,
            self.branch7x7dbl_3,
            self.branch7x7dbl_4,
            self.branch7x7dbl_5,
        )
        branches = [self.branch1x1(x), _chain(single, x), _chain(double, x), self.branch_pool(_average_pool(x))]
        return jnp.concatenate(branches, -1)


class InceptionD(nnx.Module):
    """Halves the size."""

    def __init__(self, inputs: int, make: _Layers):
        self.branch3x3_1 = make(inputs, 192, 1)
        self.branch3x3_2 = make(192, 320, 3, stride=2)
        self.branch7x7x3_1 = make(inputs, 192, 1)
        self.branch7x7x3_2 = make(192, 192, (1, 7))
        self.branch7x7x3_3 = make(192, 192, (7, 1))
        self.branch7x7x3_4 = make(192, 192, 3, stride=2)

    def __call__(self, x):
        small = _chain((self.branch3x3_1, self.branch3x3_2), x)
        large = _chain((self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3, self.branch7x7x3_4), x)
        return jnp.concatenate([small, large, max_pool(x, 3, 2, 0)], -1)


class InceptionE(nnx.Module):
    """`max_pooled`: the pool branch takes maxima, as the FID network's very last block does."""

    def __init__(self, inputs: int, max_pooled: bool, make: _Layers):
        row, column = (1, 3), (3, 1)
        self.branch1x1 = make(inputs, 320, 1)
        self.branch3x3_1 = make(inputs, 384, 1)
        self.branch3x3_2a = make(384, 384, row)
        self.branch3x3_2b = make(384, 384, column)
        self.branch3x3dbl_1 = make(inputs, 448, 1)
        self.branch3x3dbl_2 = make(448, 384, 3)
        self.branch3x3dbl_3a = make(384, 384, row)
        self.branch3x3dbl_3b = make(384, 384, column)
        self.branch_pool = make(inputs, 192, 1)
        self.max_pooled = max_pooled

    def __call__(self, x):
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = max_pool(x, 3, 1, 1) if self.max_pooled else _average_pool(x)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return jnp.concatenate(branches, -1)


class Inception(nnx.Module):
    """The whole network up to the pooled features."""

    def __init__(self, config: InceptionConfig, *, rngs: nnx.Rngs):
        make = _Layers(config.divisor, rngs)
        self.Conv2d_1a_3x3 = make(3 * config.divisor, 32, 3, stride=2)  # three colours at any width
        self.Conv2d_2a_3x3 = make(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = make(32, 64, 3)
        self.Conv2d_3b_1x1 = make(64, 80, 1)
        self.Conv2d_4a_3x3 = make(80, 192, 3, padded=False)
        self.Mixed_5b = InceptionA(192, 32, make)
        self.Mixed_5c = InceptionA(256, 64, make)
        self.Mixed_5d = InceptionA(288, 64, make)
        self.Mixed_6a = InceptionB(288, make)
        self.Mixed_6b = InceptionC(768, 128, make)
        self.Mixed_6c = InceptionC(768, 160, make)
        self.Mixed_6d = InceptionC(768, 160, make)
        self.Mixed_6e = InceptionC(768, 192, make)
        self.Mixed_7a = InceptionD(768, make)
        self.Mixed_7b = InceptionE(1280, False, make)
        self.Mixed_7c = InceptionE(2048, True, make)

    def __call__(self, image_01: Float[Array, "b 299 299 3"]) -> Float[Array, "b features"]:
        """Pooled features of RGB images in [0, 1]."""
        x = 2.0 * image_01 - 1.0
        x = _chain((self.Conv2d_1a_3x3, self.Conv2d_2a_3x3, self.Conv2d_2b_3x3), x)
        x = _chain((self.Conv2d_3b_1x1, self.Conv2d_4a_3x3), max_pool(x, 3, 2, 0))
        x = max_pool(x, 3, 2, 0)
        x = _chain((self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a), x)
        x = _chain((self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e), x)
        x = _chain((self.Mixed_7a, self.Mixed_7b, self.Mixed_7c), x)
        return x.mean((1, 2))


@jax.jit
def resize_for_inception(image_u8: Array) -> Float[Array, "b 299 299 3"]:
    """uint8 "b h w 3" as float32 in [0, 1] at 299 px: bilinear between pixel centres, no filter before shrinking."""
    image_01 = image_u8.astype(jnp.float32) / 255.0
    shape = (image_01.shape[0], INPUT_SIDE, INPUT_SIDE, 3)
    return jax.image.resize(image_01, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST)


@functools.cache
def network(config: InceptionConfig = InceptionConfig()) -> Network:
    return Network(lambda rngs: Inception(config, rngs=rngs))
