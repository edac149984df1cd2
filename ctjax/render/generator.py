"""The generator: appearance encoder, dense motion, warp, and a decoder in one of two forms."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.blocks import Chain, ConvBlock, ResBlock, UpBlock
from ctjax.nn.conv import conv
from ctjax.nn.resize import upsample_nearest
from ctjax.nn.sampling import grid_sample
from ctjax.nn.spade import LEAKY_SLOPE, SpadeResBlock
from ctjax.nn.volume import to_image
from ctjax.render.appearance import AppearanceEncoder
from ctjax.render.copying import blended
from ctjax.render.dense_motion import DenseMotion, DenseMotionConfig, Motion
from ctjax.render.painter import Painter

THIRD_SLOPE = 0.01  # leaky ReLU of the convolution after the warp (ControlTalk modules/util.py:250)
SPADE_FIRST_KERNEL = 3  # ControlTalk modules/generator.py:179
PLAIN_FIRST_KERNEL = 7  # ControlTalk modules/generator.py:23


@dataclass(frozen=True)
class SpadeDecoderConfig:
    """Widths that are literals in the reference (ControlTalk modules/generator.py:122-125, util.py:423).

    ic: of the warped features; oc: before the image; label_nc: of the map that modulates (the warped features
    again); hidden: inside SPADE; middle_blocks: 6 (`G_mid_full`), or 2 in older checkpoints.
    """

    ic: int = 256
    oc: int = 64
    label_nc: int = 256
    hidden: int = 128
    middle_blocks: int = 6


@dataclass(frozen=True)
class GeneratorConfig:
    """Names as in the reference's yaml. `spade` None is the plain decoder (the reference's gen='original').
    `copy_source`: the moved source picture is blended in, see `ctjax.render.copying`. `painter`: width of
    a network that corrects the picture by where the driving keypoints are, see `ctjax.render.painter`; 0: none."""

    image_channel: int = 3
    block_expansion: int = 64
    max_features: int = 512
    num_down_blocks: int = 2
    reshape_channel: int = 32
    reshape_depth: int = 16
    num_resblocks: int = 6
    dense_motion: DenseMotionConfig = field(default_factory=DenseMotionConfig)
    spade: SpadeDecoderConfig | None = field(default_factory=SpadeDecoderConfig)
    copy_source: bool = False
    painter: int = 0

    @property
    def decoded_channels(self) -> int:
        """The picture's, and one more that says where the source is copied."""
        return self.image_channel + self.copy_source

    def check(self) -> None:
        """Raises ValueError for widths that do not fit together; a decoder may be chosen after the rest."""
        width = self.block_expansion * 2**self.num_down_blocks
        motion = self.dense_motion
        wanted = [
            ("dense_motion.feature_channel", motion.feature_channel, self.reshape_channel, "reshape_channel"),
            ("dense_motion.reshape_depth", motion.reshape_depth, self.reshape_depth, "reshape_depth"),
        ]
        if self.spade is not None:
            encoded = "block_expansion times 2 to the power of num_down_blocks"
            wanted += [(f"spade.{name}", getattr(self.spade, name), width, encoded) for name in ("ic", "label_nc")]
        for name, found, right, reason in wanted:
            if found != right:
                raise ValueError(f"{name} is {found}, must be {right}: {reason}")


class Rendering(NamedTuple):
    """A rendered image and how it came about; see `dense_motion.Motion` for mask, deformation and occlusion.

    image_01: float32 RGB "b h w 3" in [0, 1]; drawn_01: what the decoder drew, before the source was blended in
    (`copy_source`), the image itself without.
    """

    image_01: jax.Array
    mask: jax.Array
    deformation: jax.Array
    occlusion: jax.Array | None
    drawn_01: jax.Array


class Generator(AppearanceEncoder):
    """What both forms share; `encode` (inherited) is called once per source, the generator itself per driving frame."""

    def __init__(self, config: GeneratorConfig, first_kernel: int, *, rngs: nnx.Rngs):
        super().__init__(
            image_channel=config.image_channel,
            first_kernel=first_kernel,
            block_expansion=config.block_expansion,
            max_features=config.max_features,
            num_down_blocks=config.num_down_blocks,
            reshape_channel=config.reshape_channel,
            reshape_depth=config.reshape_depth,
            num_resblocks=config.num_resblocks,
            rngs=rngs,
        )
        config.check()
        self.config = config
        self.dense_motion_network = DenseMotion(config.dense_motion, rngs=rngs)
        width = config.block_expansion * 2**config.num_down_blocks
        self.third = ConvBlock(config.max_features, width, slope=THIRD_SLOPE, rngs=rngs)
        self.fourth = conv(width, width, (1, 1), rngs=rngs)  # bare, like `second`
        if config.painter:
            self.painter = Painter(config.decoded_channels, config.dense_motion.num_kp, config.painter, rngs=rngs)

    def __call__(
        self,
        features: jax.Array,
        keypoints_source: jax.Array,
        keypoints_driving: jax.Array,
        jacobian_source: jax.Array | None = None,
        jacobian_driving: jax.Array | None = None,
        *,
        source_01: jax.Array | None = None,
    ) -> Rendering:
        """features: "b d h w c" from `encode`; keypoints: float32 "b k 3"; jacobians: float32 "b k 3 3" or None;
        source_01: the picture itself, "b h w 3", needed with `copy_source`."""
        motion = self.dense_motion_network(
            features, keypoints_source, keypoints_driving, jacobian_source, jacobian_driving
        )
        warped = to_image(grid_sample(features, motion.deformation))
        x = self.fourth(self.third(warped))
        if motion.occlusion is not None:
            x = x * motion.occlusion.astype(x.dtype)
        logits = self.decode(x)
        if self.config.painter:
            logits = self.painter(logits, keypoints_driving)
        return finish(logits, self.config, source_01, motion)

    def decode(self, x: jax.Array) -> jax.Array:
        """Warped, occluded features "b h/4 w/4 c" -> image before the sigmoid, "b h w 3"; "b h w 4" with
        `copy_source`."""
        raise NotImplementedError


def finish(logits: jax.Array, config: GeneratorConfig, source_01: jax.Array | None, motion: Motion) -> Rendering:
    """The rendering from what a decoder gives, in float32 at least."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    if not config.copy_source:
        image_01 = jax.nn.sigmoid(logits)
        return Rendering(image_01, *motion, image_01)
    if source_01 is None:
        raise ValueError("this generator copies from the source picture (copy_source): give source_01")
    image_01, drawn_01 = blended(logits, source_01, motion.deformation)
    return Rendering(image_01, *motion, drawn_01)


class SpadeDecoder(nnx.Module):
    """Decoder whose every normalisation is modulated by the warped features themselves."""

    def __init__(self, config: SpadeDecoderConfig, image_channel: int, *, rngs: nnx.Rngs):
        wide = 2 * config.ic
        modulation = (config.label_nc, config.hidden)
        self.fc = conv(config.ic, wide, (3, 3), padding=1, rngs=rngs)
        self.middle_blocks = config.middle_blocks
        for i in range(config.middle_blocks):
            setattr(self, f"G_middle_{i}", SpadeResBlock(wide, wide, *modulation, rngs=rngs))
        self.up_0 = SpadeResBlock(wide, config.ic, *modulation, rngs=rngs)
        self.up_1 = SpadeResBlock(config.ic, config.oc, *modulation, rngs=rngs)
        self.conv_img = conv(config.oc, image_channel, (3, 3), padding=1, rngs=rngs)

    def __call__(self, feature_map: jax.Array) -> jax.Array:
        x = self.fc(feature_map)
        for i in range(self.middle_blocks):
            x = getattr(self, f"G_middle_{i}")(x, feature_map)
        x = self.up_0(upsample_nearest(x, (2, 2)), feature_map)
        x = self.up_1(upsample_nearest(x, (2, 2)), feature_map)
        return self.conv_img(jax.nn.leaky_relu(x, LEAKY_SLOPE))


class SpadeGenerator(Generator):
    """OcclusionAwareSPADEGenerator (ControlTalk modules/generator.py)."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        super().__init__(config, SPADE_FIRST_KERNEL, rngs=rngs)
        self.decoder = SpadeDecoder(config.spade, config.decoded_channels, rngs=rngs)

    def decode(self, x: jax.Array) -> jax.Array:
        return self.decoder(x)


class PlainGenerator(Generator):
    """OcclusionAwareGenerator: residual blocks and upsampling, no modulation."""

    def __init__(self, config: GeneratorConfig, *, rngs: nnx.Rngs):
        super().__init__(config, PLAIN_FIRST_KERNEL, rngs=rngs)
        widths = [config.block_expansion * 2**i for i in range(config.num_down_blocks, -1, -1)]
        self.resblocks_2d = Chain({f"2dr{i}": ResBlock(widths[0], rngs=rngs) for i in range(config.num_resblocks)})
        self.up_blocks = nnx.List(UpBlock(a, b, rngs=rngs) for a, b in itertools.pairwise(widths))
        self.final = conv(widths[-1], config.decoded_channels, (7, 7), padding=3, rngs=rngs)

    def decode(self, x: jax.Array) -> jax.Array:
        x = self.resblocks_2d(x)
        for block in self.up_blocks:
            x = block(x)
        return self.final(x)


def build_generator(config: GeneratorConfig, *, rngs: nnx.Rngs) -> Generator:
    """The generator with the decoder that the config names."""
    return (PlainGenerator if config.spade is None else SpadeGenerator)(config, rngs=rngs)
