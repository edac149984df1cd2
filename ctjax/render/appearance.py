"""Appearance: a source image as a volume of features that the motion field then warps."""

from __future__ import annotations

import itertools

import jax
from flax import nnx

from ctjax.nn.blocks import Chain, ConvBlock, DownBlock, ResBlock
from ctjax.nn.conv import conv
from ctjax.nn.volume import to_volume


class AppearanceEncoder(nnx.Module):
    """2-D convolutions, channels folded out into depth, 3-D residual blocks.

    The generator inherits it instead of holding it, because the checkpoints keep its layers at the generator's top.
    """

    def __init__(
        self,
        *,
        image_channel: int,
        first_kernel: int,
        block_expansion: int,
        max_features: int,
        num_down_blocks: int,
        reshape_channel: int,
        reshape_depth: int,
        num_resblocks: int,
        rngs: nnx.Rngs,
    ):
        if reshape_channel * reshape_depth != max_features:
            raise ValueError(
                f"generator: reshape_channel * reshape_depth is {reshape_channel} * {reshape_depth}, "
                f"should equal max_features = {max_features}"
            )
        self.reshape_depth = reshape_depth
        self.first = ConvBlock(image_channel, block_expansion, first_kernel, rngs=rngs)
        widths = [min(max_features, block_expansion * 2**i) for i in range(num_down_blocks + 1)]
        self.down_blocks = nnx.List(DownBlock(a, b, rngs=rngs) for a, b in itertools.pairwise(widths))
        self.second = conv(widths[-1], max_features, (1, 1), rngs=rngs)  # bare: no norm, no activation
        self.resblocks_3d = Chain(
            {f"3dr{i}": ResBlock(reshape_channel, rank=3, rngs=rngs) for i in range(num_resblocks)}
        )

    def encode(self, image_01: jax.Array) -> jax.Array:
        """RGB "b h w 3" in [0, 1] -> "b d h/4 w/4 c" (with two down blocks), in the parameters' dtype."""
        x = self.first(image_01.astype(self.first.conv.kernel[...].dtype))
        for block in self.down_blocks:
            x = block(x)
        return self.resblocks_3d(to_volume(self.second(x), self.reshape_depth))
