"""Encoder-decoders: from an image to a volume without skips, and over a volume with skips."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.blocks import Chain, DownBlock, UpBlock
from ctjax.nn.conv import conv
from ctjax.nn.norm import BatchNorm
from ctjax.nn.volume import to_volume


def level_width(block_expansion: int, max_features: int, level: int) -> int:
    """Channels at a level: doubled per level, capped."""
    return min(max_features, block_expansion * 2**level)


class ImageToVolumeHourglass(nnx.Module):
    """ "b h w c" -> "b d h w block_expansion", without skip connections (ControlTalk modules/util.py:361)."""

    def __init__(
        self,
        in_features: int,
        *,
        block_expansion: int,
        max_features: int,
        num_blocks: int,
        reshape_channel: int,
        reshape_depth: int,
        rngs: nnx.Rngs,
    ):
        widths = [level_width(block_expansion, max_features, level) for level in range(num_blocks + 1)]
        downs = [in_features, *widths[1:]]
        ups = [reshape_channel // reshape_depth, *widths[-2::-1]]
        self.down_blocks = Chain({f"down{i}": DownBlock(downs[i], downs[i + 1], rngs=rngs) for i in range(num_blocks)})
        self.conv = conv(downs[-1], reshape_channel, (1, 1), rngs=rngs)
        self.up_blocks = Chain({f"up{i}": UpBlock(ups[i], ups[i + 1], rank=3, rngs=rngs) for i in range(num_blocks)})
        self.depth = reshape_depth
        self.out_features = block_expansion

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.up_blocks(to_volume(self.conv(self.down_blocks(x)), self.depth))


class VolumeEncoder(nnx.Module):
    """Returns the input and every level's output, finest first."""

    def __init__(self, in_features: int, *, block_expansion: int, max_features: int, num_blocks: int, rngs: nnx.Rngs):
        widths = [in_features] + [level_width(block_expansion, max_features, i + 1) for i in range(num_blocks)]
        self.down_blocks = nnx.List(DownBlock(widths[i], widths[i + 1], rank=3, rngs=rngs) for i in range(num_blocks))

    def __call__(self, x: jax.Array) -> list[jax.Array]:
        levels = [x]
        for block in self.down_blocks:
            levels.append(block(levels[-1]))
        return levels


class VolumeDecoder(nnx.Module):
    """Climbs back up, joining each level, and last the raw input, to its own channels.

    out_features = block_expansion + in_features (ControlTalk modules/util.py:300-313).
    """

    def __init__(self, in_features: int, *, block_expansion: int, max_features: int, num_blocks: int, rngs: nnx.Rngs):
        widths = [level_width(block_expansion, max_features, level) for level in range(num_blocks + 1)]
        blocks = []
        for level in range(num_blocks, 0, -1):
            joined = widths[level] * (1 if level == num_blocks else 2)
            blocks.append(UpBlock(joined, widths[level - 1], rank=3, rngs=rngs))
        self.up_blocks = nnx.List(blocks)
        self.out_features = block_expansion + in_features
        self.conv = conv(self.out_features, self.out_features, (3, 3, 3), padding=1, rngs=rngs)
        self.norm = BatchNorm(self.out_features, rngs=rngs)

    def __call__(self, levels: list[jax.Array]) -> jax.Array:
        *levels, x = levels
        for block in self.up_blocks:
            x = jnp.concatenate([block(x), levels.pop()], axis=-1)
        return jax.nn.relu(self.norm(self.conv(x)))


class VolumeHourglass(nnx.Module):
    """ "b d h w c" -> "b d h w (block_expansion + c)"; h and w must be divisible by 2 ** num_blocks."""

    def __init__(self, in_features: int, *, block_expansion: int, max_features: int, num_blocks: int, rngs: nnx.Rngs):
        sizes = {"block_expansion": block_expansion, "max_features": max_features, "num_blocks": num_blocks}
        self.encoder = VolumeEncoder(in_features, **sizes, rngs=rngs)
        self.decoder = VolumeDecoder(in_features, **sizes, rngs=rngs)
        self.out_features = self.decoder.out_features

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.decoder(self.encoder(x))
