"""The Oxford SyncNet, behind the published LSE-D and LSE-C: five mouth frames and 20 MFCC steps to embeddings.

Attributes carry the names of `syncnet_v2.model` (joonson/syncnet_python SyncNetModel.py, S): the towers are torch
`Sequential`s, so layers without weights keep their places in the lists.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.conv import conv, linear
from ctjax.nn.module import Network
from ctjax.nn.norm import BatchNorm

FRAMES = 5
FACE_SIDE = 224
MFCC_COEFFICIENTS, MFCC_STEPS = 13, 20


@dataclass(frozen=True)
class OxfordSyncNetConfig:
    """Channels of the towers' convolutions (the last one's is also the hidden width of the head) and embedding."""

    audio_widths: tuple[int, int, int, int, int, int] = (64, 192, 384, 256, 256, 512)
    lip_widths: tuple[int, int, int, int, int, int] = (96, 256, 256, 256, 256, 512)
    embedding: int = 1024


class MaxPool(nnx.Module):
    """Pooling over height and width of "b ... h w c"; padding counts as minus infinity."""

    def __init__(self, window: tuple[int, int], strides: tuple[int, int], padding: int = 0):
        self.window, self.strides, self.padding = window, strides, padding

    def __call__(self, x: Array) -> Array:
        rest = (1,) * (x.ndim - 3)
        return jax.lax.reduce_window(
            x,
            -jnp.inf,
            jax.lax.max,
            (*rest, *self.window, 1),
            (*rest, *self.strides, 1),
            [*[(0, 0)] * len(rest), *[(self.padding, self.padding)] * 2, (0, 0)],
        )


class Relu(nnx.Module):
    def __call__(self, x: Array) -> Array:
        return jax.nn.relu(x)


def _audio_tower(widths: tuple[int, ...], rngs: nnx.Rngs) -> nnx.List:
    one, two, three, four, five, six = widths

    def block(inputs, outputs, kernel=(3, 3), padding=1):
        convolution = conv(inputs, outputs, kernel, padding=padding, rngs=rngs)
        return [convolution, BatchNorm(outputs, rngs=rngs), Relu()]

    return nnx.List(
        [
            *(*block(1, one), MaxPool((1, 1), (1, 1))),
            *(*block(one, two), MaxPool((3, 3), (1, 2))),
            *block(two, three),
            *block(three, four),
            *(*block(four, five), MaxPool((3, 3), (2, 2))),
            *block(five, six, (5, 4), 0),
        ]
    )


def _lip_tower(widths: tuple[int, ...], rngs: nnx.Rngs) -> nnx.List:
    one, two, three, four, five, six = widths

    def block(inputs, outputs, kernel, padding=0, stride=1):
        convolution = nnx.Conv(
            inputs,
            outputs,
            kernel,
            strides=(1, stride, stride),
            padding=[(0, 0), *[(padding, padding)] * 2],
            rngs=rngs,
        )
        return [convolution, BatchNorm(outputs, rngs=rngs), Relu()]

    return nnx.List(
        [
            *(*block(3, one, (FRAMES, 7, 7), stride=2), MaxPool((3, 3), (2, 2))),
            *(*block(one, two, (1, 5, 5), padding=1, stride=2), MaxPool((3, 3), (2, 2), padding=1)),
            *block(two, three, (1, 3, 3), padding=1),
            *block(three, four, (1, 3, 3), padding=1),
            *(*block(four, five, (1, 3, 3), padding=1), MaxPool((3, 3), (2, 2))),
            *block(five, six, (1, 6, 6)),
        ]
    )


def _head(hidden: int, embedding: int, rngs: nnx.Rngs) -> nnx.List:
    layers = (linear(hidden, hidden, rngs=rngs), BatchNorm(hidden, rngs=rngs), Relu())
    return nnx.List([*layers, linear(hidden, embedding, rngs=rngs)])


class OxfordSyncNet(nnx.Module):
    def __init__(self, config: OxfordSyncNetConfig, *, rngs: nnx.Rngs):
        self.netcnnaud = _audio_tower(config.audio_widths, rngs)
        self.netfcaud = _head(config.audio_widths[-1], config.embedding, rngs)
        self.netcnnlip = _lip_tower(config.lip_widths, rngs)
        self.netfclip = _head(config.lip_widths[-1], config.embedding, rngs)

    def lip_features(self, frames_01: Float[Array, "b 5 h w 3"]) -> Float[Array, "b f"]:
        """What stands before the head."""
        # Trained on BGR pixels of 0..255 (SyncNetInstance.py).
        return _flat(_run(self.netcnnlip, 255.0 * frames_01[..., ::-1]))

    def embed_lips(self, frames_01: Float[Array, "b 5 h w 3"]) -> Float[Array, "b e"]:
        """Embeddings, not normalised, of five consecutive 224 x 224 face crops, RGB in [0, 1]."""
        return _run(self.netfclip, self.lip_features(frames_01))

    def embed_audio(self, mfcc: Float[Array, "b m l"]) -> Float[Array, "b e"]:
        """Embeddings, not normalised, of 20 steps of 13 MFCCs (of int16 samples, at 100 steps a second)."""
        return _run(self.netfcaud, _flat(_run(self.netcnnaud, mfcc[..., None])))


def _run(layers: nnx.List, x: Array) -> Array:
    for layer in layers:
        x = layer(x)
    return x


def _flat(x: Array) -> Array:
    if any(side != 1 for side in x.shape[1:-1]):
        raise ValueError(f"SyncNet's tower ends at {x.shape[1:-1]}, not at one position: wrong input size")
    return x.reshape(x.shape[0], -1)


@functools.cache
def network(config: OxfordSyncNetConfig = OxfordSyncNetConfig()) -> Network:
    return Network(lambda rngs: OxfordSyncNet(config, rngs=rngs))
