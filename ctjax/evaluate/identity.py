"""CSIM: cosine similarity of face-recognition embeddings, by an ArcFace network that the user supplies.

The network is the IResNet of deepinsight/insightface recognition/arcface_torch (18, 34, 50, 100 layers, read off
the checkpoint's shapes). Faces are brought to its 112 px template by the similarity that fits five points best.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ctjax.nn.module import Network

SIDE = 112
# eye centres, nose tip, mouth corners of the aligned face, in pixels (insightface's template)
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
EPSILON = 1e-5


@dataclass(frozen=True)
class ArcFaceConfig:
    """`layers`: blocks per stage; `widths`: channels per stage; `embedding`: length of the vector. Defaults: IR-50."""

    layers: tuple[int, ...] = (3, 4, 14, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    embedding: int = 512


class PReLU(nnx.Module):
    """One slope per channel for negative values."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.full(channels, 0.25))

    def __call__(self, x):
        return jnp.where(x >= 0, x, x * self.scale[...])


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, use_running_average=True, epsilon=EPSILON, rngs=rngs)


def _conv(inputs: int, outputs: int, size: int, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (size, size), strides=stride, padding=size // 2, use_bias=False, rngs=rngs)


class Block(nnx.Module):
    """Norm, conv, norm, PReLU, conv with the stride, norm; added to the input without an activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.bn1 = _norm(inputs, rngs)
        self.conv1 = _conv(inputs, outputs, 3, 1, rngs)
        self.bn2 = _norm(outputs, rngs)
        self.prelu = PReLU(outputs)
        self.conv2 = _conv(outputs, outputs, 3, stride, rngs)
        self.bn3 = _norm(outputs, rngs)
        projects = stride != 1 or inputs != outputs
        self.downsample = nnx.List([_conv(inputs, outputs, 1, stride, rngs), _norm(outputs, rngs)] if projects else [])

    def __call__(self, x):
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        for layer in self.downsample:
            x = layer(x)
        return x + y


class ArcFace(nnx.Module):
    def __init__(self, config: ArcFaceConfig, *, rngs: nnx.Rngs):
        channels = config.widths[0]
        self.conv1 = _conv(3, channels, 3, 1, rngs)
        self.bn1 = _norm(channels, rngs)
        self.prelu = PReLU(channels)
        for stage, (count, width) in enumerate(zip(config.layers, config.widths, strict=True)):
            blocks = []
            for index in range(count):
                blocks.append(Block(channels, width, 1 if index else 2, rngs=rngs))
                channels = width
            setattr(self, f"layer{stage + 1}", nnx.List(blocks))
        self.stages = len(config.layers)
        self.bn2 = _norm(channels, rngs)
        cells = (SIDE // 2**self.stages) ** 2
        self.fc = nnx.Linear(channels * cells, config.embedding, rngs=rngs)
        self.features = _norm(config.embedding, rngs)

    def __call__(self, face_u8: UInt8[Array, "b 112 112 3"]) -> Float[Array, "b embedding"]:
        """Embeddings (not normalised) of aligned RGB faces."""
        x = (face_u8.astype(jnp.float32) - 127.5) / 127.5
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
        x = jnp.moveaxis(self.bn2(x), -1, 1)  # the checkpoint's linear layer reads channels first
        return self.features(self.fc(x.reshape(x.shape[0], -1)))


@functools.cache
def network(config: ArcFaceConfig = ArcFaceConfig()) -> Network:
    return Network(lambda rngs: ArcFace(config, rngs=rngs))


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners "5 2" of 68 landmarks "68 2"."""
    return np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]])


def similarity_transform(points: np.ndarray, template: np.ndarray = TEMPLATE) -> np.ndarray:
    """The 2x3 matrix of rotation, scale and shift that brings `points` nearest to `template` (least squares)."""
    x, y = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, shift_x, shift_y = np.linalg.lstsq(system, template.T.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, shift_x], [b, a, shift_y]])


def aligned_face(frame_u8: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The 112 px face of an RGB frame "h w 3" with landmarks "68 2" in its pixels; black beyond the frame."""
    return cv2.warpAffine(frame_u8, similarity_transform(five_points(landmarks)), (SIDE, SIDE))


def cosine_similarity(a: Float[Array, "b c"], b: Float[Array, "b c"]) -> Float[Array, " b"]:
    """Cosine of the angle between the vectors of each pair."""
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return jnp.sum(a * b, -1) / jnp.maximum(lengths, 1e-12)
