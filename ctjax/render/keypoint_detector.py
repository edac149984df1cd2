"""Canonical keypoints of a face: where they are with the head's pose and expression taken away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.blocks import LowPass
from ctjax.nn.conv import conv
from ctjax.nn.hourglass import ImageToVolumeHourglass
from ctjax.nn.sampling import corner_line

_EXACT = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class KeypointDetectorConfig:
    """Names as in the reference's yaml. `scale_factor` is 1 / n: the input is low-passed and every n-th pixel taken."""

    num_kp: int = 15
    image_channel: int = 3
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    reshape_channel: int = 16384
    reshape_depth: int = 16
    temperature: float = 0.1
    scale_factor: float = 0.25
    estimate_jacobian: bool = False

    @property
    def stride(self) -> int:
        return round(1 / self.scale_factor)


class Detection(NamedTuple):
    """keypoints: float32 "b k 3" in [-1, 1]; jacobian: float32 "b k 3 3" or None; heatmap_logits: "b d h w k"."""

    keypoints: jax.Array
    jacobian: jax.Array | None
    heatmap_logits: jax.Array


class KeypointDetector(nnx.Module):
    """KPDetector (ControlTalk modules/keypoint_detector.py)."""

    def __init__(self, config: KeypointDetectorConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.predictor = ImageToVolumeHourglass(
            config.image_channel,
            block_expansion=config.block_expansion,
            max_features=config.max_features,
            num_blocks=config.num_blocks,
            reshape_channel=config.reshape_channel,
            reshape_depth=config.reshape_depth,
            rngs=rngs,
        )
        features = self.predictor.out_features
        self.kp = conv(features, config.num_kp, (3, 3, 3), padding=1, rngs=rngs)
        if config.estimate_jacobian:
            # Nine maps per keypoint, starting at the identity wherever the heatmap looks.
            self.jacobian = conv(features, 9 * config.num_kp, (3, 3, 3), padding=1, rngs=rngs)
            self.jacobian.kernel.set_value(jnp.zeros_like(self.jacobian.kernel[...]))
            self.jacobian.bias.set_value(jnp.tile(jnp.eye(3).reshape(-1), config.num_kp))
        if config.stride > 1:
            self.down = LowPass(config.image_channel, config.scale_factor, config.stride)

    def __call__(self, image_01: jax.Array) -> Detection:
        """image_01: RGB "b h w 3" in [0, 1]; h and w divisible by stride * 2 ** num_blocks."""
        x = image_01.astype(self.kp.kernel[...].dtype)
        if self.config.stride > 1:
            x = self.down(x)
        features = self.predictor(x)
        logits = self.kp(features)
        # Softmax over the whole volume (ControlTalk modules/keypoint_detector.py:60), normalised after the sums.
        wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
        highest = jnp.max(wide, axis=(1, 2, 3), keepdims=True)
        heat = jnp.exp((wide - highest) / self.config.temperature)
        mass, position = _moments(heat)
        return Detection(position / mass[..., None], self._jacobian(features, heat, mass), logits)

    def _jacobian(self, features: jax.Array, heat: jax.Array, mass: jax.Array) -> jax.Array | None:
        if not self.config.estimate_jacobian:
            return None
        maps = self.jacobian(features).astype(heat.dtype)
        maps = maps.reshape(*maps.shape[:-1], self.config.num_kp, 3, 3)
        return jnp.einsum("bdhwk,bdhwkmn->bkmn", heat, maps, precision=_EXACT) / mass[..., None, None]


def _moments(heat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of "b d h w k" over the volume, "b k", and sum times corner-aligned position (x, y, z), "b k 3".

    Axis by axis, because a sum over a quarter of a million cells in one go loses three digits in float32.
    """
    _, d, h, w, _ = heat.shape
    along_x, along_y, along_z = (
        jnp.stack([jnp.ones(n, heat.dtype), corner_line(n).astype(heat.dtype)], axis=-1) for n in (w, h, d)
    )
    sums = jnp.einsum("bdhwk,wx->bdhkx", heat, along_x, precision=_EXACT)
    sums = jnp.einsum("bdhkx,hy->bdkxy", sums, along_y, precision=_EXACT)
    sums = jnp.einsum("bdkxy,dz->bkxyz", sums, along_z, precision=_EXACT)
    position = jnp.stack([sums[..., 1, 0, 0], sums[..., 0, 1, 0], sums[..., 0, 0, 1]], axis=-1)
    return sums[..., 0, 0, 0], position
