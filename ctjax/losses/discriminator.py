"""Multi-scale patch discriminator (ControlTalk modules/discriminator.py:12-95).

Convolutions are 4 x 4 without padding; every block but the first normalises per instance, every block but the
last halves the map (lines 12-56).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
from flax import nnx
from jaxtyping import Array, Float

from ctjax.losses.pyramid import pyramid
from ctjax.nn.conv import SpectralConv, conv
from ctjax.nn.module import Network
from ctjax.nn.norm import InstanceNorm
from ctjax.nn.resize import average_pool

LEAKY_SLOPE = 0.2
KERNEL = 4


@dataclass(frozen=True)
class DiscriminatorConfig:
    """`channels`: 3, or 3 x frames where clips are judged as one stack. `scales`: the pyramid levels that are judged,
    each by a network of its own. `spectral_norm`: on every convolution."""

    scales: tuple[float, ...] = (1.0,)
    channels: int = 3
    block_expansion: int = 32
    max_features: int = 512
    num_blocks: int = 4
    spectral_norm: bool = True


class Verdict(NamedTuple):
    """maps: inner maps, block by block; prediction: "b h w 1", higher is more real."""

    maps: tuple[Float[Array, "b _ _ _"], ...]
    prediction: Float[Array, "b _ _ 1"]


def scale_name(scale: float) -> str:
    """The attribute of one scale's network: `scale_1`, `scale_0-5` (the checkpoint says `discs.1`, `discs.0-5`)."""
    return f"scale_{scale:g}".replace(".", "-")


def _convolution(config: DiscriminatorConfig, inputs: int, outputs: int, kernel: int, rngs: nnx.Rngs) -> nnx.Module:
    if config.spectral_norm:
        return SpectralConv(inputs, outputs, kernel, rngs=rngs)
    return conv(inputs, outputs, (kernel, kernel), rngs=rngs)


class DiscriminatorBlock(nnx.Module):
    def __init__(
        self, config: DiscriminatorConfig, inputs: int, outputs: int, *, norm: bool, pool: bool, rngs: nnx.Rngs
    ):
        self.conv = _convolution(config, inputs, outputs, KERNEL, rngs)
        if norm:
            self.norm = InstanceNorm(outputs, rngs=rngs)
        self.has_norm = norm
        self.pool = pool

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
        x = self.conv(x)
        if self.has_norm:
            x = self.norm(x)
        x = jax.nn.leaky_relu(x, LEAKY_SLOPE)
        return average_pool(x, (2, 2)) if self.pool else x


class PatchDiscriminator(nnx.Module):
    """The network of one scale."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        widths = [min(config.max_features, config.block_expansion * 2 ** (i + 1)) for i in range(config.num_blocks)]
        inputs = [config.channels, *widths[:-1]]
        self.down_blocks = nnx.List(
            DiscriminatorBlock(config, inputs[i], widths[i], norm=i > 0, pool=i < config.num_blocks - 1, rngs=rngs)
            for i in range(config.num_blocks)
        )
        self.conv = _convolution(config, widths[-1], 1, 1, rngs)

    def __call__(self, image: Float[Array, "b h w c"]) -> Verdict:
        maps = []
        for block in self.down_blocks:
            maps.append(block(maps[-1] if maps else image))
        return Verdict(tuple(maps), self.conv(maps[-1]))


class Discriminator(nnx.Module):
    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        self.discs = nnx.Dict({scale_name(s): PatchDiscriminator(config, rngs=rngs) for s in config.scales})
        self.scales = config.scales

    def __call__(self, image_01: Float[Array, "b h w c"]) -> tuple[Verdict, ...]:
        """One verdict per scale. Training moves the spectral norms' vectors once per call."""
        images = pyramid(image_01, self.scales)
        return tuple(self.discs[scale_name(s)](image) for s, image in zip(self.scales, images, strict=True))


def stack_clips(frames: Float[Array, "bt h w c"], length: int) -> Float[Array, "b h w tc"]:
    """Consecutive `length` frames of the batch stacked on channels, frame by frame (modules/model.py:263-271).

    The discriminator then needs 3 `length` channels. The reference's `detach_kp`, which fails where there are no
    jacobians (model.py:126), has no counterpart here.
    """
    count, height, width, channels = frames.shape
    if count % length:
        raise ValueError(f"{count} frames do not divide into clips of {length}")
    clips = frames.reshape(count // length, length, height, width, channels)
    return clips.transpose(0, 2, 3, 1, 4).reshape(count // length, height, width, length * channels)


def predictions(verdicts: Sequence[Verdict]) -> list[Float[Array, "b _ _ 1"]]:
    return [verdict.prediction for verdict in verdicts]


def inner_maps(verdicts: Sequence[Verdict]) -> list[tuple[Float[Array, "b _ _ _"], ...]]:
    return [verdict.maps for verdict in verdicts]


@functools.cache
def network(config: DiscriminatorConfig = DiscriminatorConfig()) -> Network:
    return Network(lambda rngs: Discriminator(config, rngs=rngs))
