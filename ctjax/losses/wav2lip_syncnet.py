"""Wav2Lip's sync expert: do these five lower face halves and this fifth of a second of mel belong together?

Attributes carry the names of `lipsync_expert.pth` (Wav2Lip models/syncnet.py, SyncNet_color). The mel spectrogram it
takes is `ctjax.features.mel`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.conv import conv
from ctjax.nn.module import Network
from ctjax.nn.norm import BatchNorm

FRAMES = 5
FACE_HEIGHT, FACE_WIDTH = 48, 96  # lower half of a 96 x 96 crop
MEL_BANDS, MEL_STEPS = 80, 16
NORM_EPS = 1e-12  # torch.nn.functional.normalize


class Layer(NamedTuple):
    """One convolution: which width it has (index into the config's), and how it moves."""

    width: int
    kernel: int
    stride: tuple[int, int] = (1, 1)
    padding: int = 1
    residual: bool = False


def _same(width: int, count: int) -> tuple[Layer, ...]:
    return (Layer(width, 3, residual=True),) * count


FACE_LAYERS = (
    Layer(0, 7, padding=3),
    *(Layer(1, 5, (1, 2)), *_same(1, 2)),
    *(Layer(2, 3, (2, 2)), *_same(2, 3)),
    *(Layer(3, 3, (2, 2)), *_same(3, 2)),
    *(Layer(4, 3, (2, 2)), *_same(4, 2)),
    *(Layer(4, 3, (2, 2)), Layer(4, 3, padding=0), Layer(4, 1, padding=0)),
)
AUDIO_LAYERS = (
    *(Layer(0, 3), *_same(0, 2)),
    *(Layer(1, 3, (3, 1)), *_same(1, 2)),
    *(Layer(2, 3, (3, 3)), *_same(2, 2)),
    *(Layer(3, 3, (3, 2)), *_same(3, 2)),
    *(Layer(4, 3, padding=0), Layer(4, 1, padding=0)),
)


@dataclass(frozen=True)
class Wav2LipSyncNetConfig:
    """Channels of the five resolutions of each tower; both must end at the same width, the embedding's."""

    face_widths: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)
    audio_widths: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)


class ConvBlock(nnx.Module):
    """Convolution, batch norm, the input added where `residual`, ReLU. `conv_block` holds torch's indices."""

    def __init__(self, inputs: int, width: int, layer: Layer, *, rngs: nnx.Rngs):
        kernel = (layer.kernel, layer.kernel)
        self.conv_block = nnx.List(
            [
                conv(inputs, width, kernel, padding=layer.padding, strides=layer.stride, rngs=rngs),
                BatchNorm(width, rngs=rngs),
            ]
        )
        self.residual = layer.residual

    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        convolution, norm = self.conv_block
        y = norm(convolution(x))
        return jax.nn.relu(y + x if self.residual else y)


def _tower(inputs: int, widths: tuple[int, ...], layers: tuple[Layer, ...], rngs: nnx.Rngs) -> nnx.List:
    blocks = []
    for layer in layers:
        blocks.append(ConvBlock(inputs, widths[layer.width], layer, rngs=rngs))
        inputs = widths[layer.width]
    return nnx.List(blocks)


class Wav2LipSyncNet(nnx.Module):
    def __init__(self, config: Wav2LipSyncNetConfig, *, rngs: nnx.Rngs):
        self.face_encoder = _tower(3 * FRAMES, config.face_widths, FACE_LAYERS, rngs)
        self.audio_encoder = _tower(1, config.audio_widths, AUDIO_LAYERS, rngs)

    def embed_face(self, frames_01: Float[Array, "b 5 h w 3"]) -> Float[Array, "b e"]:
        """Unit embeddings of five consecutive lower face halves (48 x 96), RGB in [0, 1]."""
        # The network was trained on BGR frames, stacked frame after frame (Wav2Lip color_syncnet_train.py).
        x = jnp.moveaxis(frames_01[..., ::-1], 1, 3)
        return _embed(self.face_encoder, x.reshape(*x.shape[:3], -1))

    def embed_audio(self, mel: Float[Array, "b m l"]) -> Float[Array, "b e"]:
        """Unit embeddings of windows of 16 steps of the 80-band mel (`ctjax.features.mel`)."""
        return _embed(self.audio_encoder, mel[..., None])


def _embed(tower: nnx.List, x: Array) -> Array:
    for block in tower:
        x = block(x)
    if x.shape[1:3] != (1, 1):
        raise ValueError(f"the sync expert's tower ends at {x.shape[1]} x {x.shape[2]}, not 1 x 1: wrong input size")
    return unit(x[:, 0, 0].astype(jnp.promote_types(x.dtype, jnp.float32)))


def unit(x: Float[Array, "b e"]) -> Float[Array, "b e"]:
    """Vectors over their length; the zero vector, which a ReLU can give, stays zero and has finite gradients."""
    squared = jnp.sum(x**2, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, NORM_EPS**2))


def cosine(one: Float[Array, "b e"], other: Float[Array, "b e"]) -> Float[Array, " b"]:
    """Similarity of unit embeddings; never negative here, as both come out of a ReLU."""
    return jnp.sum(one * other, axis=-1)


def cosine_bce(similarity: Float[Array, " b"], in_sync: Float[Array, " b"]) -> Float[Array, " b"]:
    """Binary cross-entropy per example with the cosine itself as the probability, no sigmoid (Wav2Lip
    color_syncnet_train.py:138-143); logarithms are cut at -100, as torch.nn.BCELoss does."""
    return -(in_sync * _log(similarity) + (1 - in_sync) * _log(1 - similarity))


def _log(probability: Array) -> Array:
    """Cut at -100, without the infinite gradient that stands there."""
    positive = probability > 0
    return jnp.where(positive, jnp.maximum(jnp.log(jnp.where(positive, probability, 1.0)), -100.0), -100.0)


@functools.cache
def network(config: Wav2LipSyncNetConfig = Wav2LipSyncNetConfig()) -> Network:
    return Network(lambda rngs: Wav2LipSyncNet(config, rngs=rngs))
