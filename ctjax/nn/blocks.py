"""Convolution blocks that the renderer's networks share. Rank 2 blocks take "b h w c", rank 3 blocks "b d h w c"."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.conv import conv
from ctjax.nn.module import Buffer
from ctjax.nn.norm import BatchNorm
from ctjax.nn.resize import average_pool, low_pass_kernel, low_pass_subsample, upsample_nearest


class LowPass(nnx.Module):
    """The fixed filter that the reference stores under `down` (ControlTalk modules/util.py:374-415)."""

    def __init__(self, channels: int, scale: float, stride: int):
        self.kernel = Buffer(jnp.asarray(low_pass_kernel(scale, channels)))
        self.stride = stride

    def __call__(self, x: jax.Array) -> jax.Array:
        return low_pass_subsample(x, self.kernel[...], self.stride)


class Chain(nnx.Module):
    """Modules applied one after the other, each an attribute under its own name (names may start with a digit)."""

    def __init__(self, modules: Mapping[str, nnx.Module]):
        for name, module in modules.items():
            setattr(self, name, module)
        self.order = tuple(modules)

    def __call__(self, x: jax.Array) -> jax.Array:
        for name in self.order:
            x = getattr(self, name)(x)
        return x


def _halved(rank: int) -> tuple[int, ...]:
    """Sampling factors of one level: height and width, never depth."""
    return (1,) * (rank - 2) + (2, 2)


class ConvBlock(nnx.Module):
    """Convolution that keeps the size, batch norm, activation: ReLU, or leaky ReLU with `slope`."""

    def __init__(
        self, features: int, out_features: int, kernel: int = 3, *, rank: int = 2, slope: float = 0.0, rngs: nnx.Rngs
    ):
        self.conv = conv(features, out_features, (kernel,) * rank, padding=kernel // 2, rngs=rngs)
        self.norm = BatchNorm(out_features, rngs=rngs)
        self.slope = slope

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm(self.conv(x))
        return jax.nn.leaky_relu(y, self.slope) if self.slope else jax.nn.relu(y)


class DownBlock(ConvBlock):
    """`ConvBlock`, then the mean over 2 x 2 cells."""

    def __init__(self, features: int, out_features: int, *, rank: int = 2, rngs: nnx.Rngs):
        super().__init__(features, out_features, rank=rank, rngs=rngs)
        self.rank = rank

    def __call__(self, x: jax.Array) -> jax.Array:
        return average_pool(super().__call__(x), _halved(self.rank))


class UpBlock(ConvBlock):
    """Nearest upsampling of height and width by two, then `ConvBlock`."""

    def __init__(self, features: int, out_features: int, *, rank: int = 2, rngs: nnx.Rngs):
        super().__init__(features, out_features, rank=rank, rngs=rngs)
        self.rank = rank

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(upsample_nearest(x, _halved(self.rank)))


class ResBlock(nnx.Module):
    """Two times (batch norm, ReLU, 3-wide convolution), added to the input."""

    def __init__(self, features: int, *, rank: int = 2, rngs: nnx.Rngs):
        self.conv1 = conv(features, features, (3,) * rank, padding=1, rngs=rngs)
        self.conv2 = conv(features, features, (3,) * rank, padding=1, rngs=rngs)
        self.norm1 = BatchNorm(features, rngs=rngs)
        self.norm2 = BatchNorm(features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.relu(self.norm1(x)))
        y = self.conv2(jax.nn.relu(self.norm2(y)))
        return x + y


class Bottleneck(nnx.Module):
    """Residual block of 1 x 1, 3 x 3 (with the stride) and 1 x 1 convolutions, the inner ones four times narrower.

    The input is projected only where the stride changes its size (ControlTalk modules/util.py:85-87).
    """

    NARROWING = 4

    def __init__(self, features: int, *, stride: int = 1, rngs: nnx.Rngs):
        inner = features // self.NARROWING
        self.conv1 = conv(features, inner, (1, 1), rngs=rngs)
        self.conv2 = conv(inner, inner, (3, 3), padding=1, strides=stride, rngs=rngs)
        self.conv3 = conv(inner, features, (1, 1), rngs=rngs)
        self.norm1 = BatchNorm(inner, rngs=rngs)
        self.norm2 = BatchNorm(inner, rngs=rngs)
        self.norm3 = BatchNorm(features, rngs=rngs)
        self.projects = stride != 1
        if self.projects:
            self.skip = conv(features, features, (1, 1), strides=stride, rngs=rngs)
            self.norm4 = BatchNorm(features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jax.nn.relu(self.norm1(self.conv1(x)))
        y = jax.nn.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.projects:
            x = self.norm4(self.skip(x))
        return jax.nn.relu(x + y)
