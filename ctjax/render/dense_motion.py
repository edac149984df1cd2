"""Dense motion: from two sets of keypoints to a motion vector per cell of the feature volume, and occlusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.conv import conv
from ctjax.nn.hourglass import VolumeHourglass
from ctjax.nn.norm import BatchNorm
from ctjax.nn.sampling import corner_grid, grid_sample
from ctjax.nn.volume import to_image

KEYPOINT_VARIANCE = 0.01  # of the Gaussian that stands for a keypoint
SADTALKER_MASK_FLOOR = 1e-3  # SadTalker src/facerender/modules/dense_motion.py:101-111
_EXACT = jax.lax.Precision.HIGHEST


@dataclass(frozen=True)
class DenseMotionConfig:
    """Names as in the reference's yaml. `mask_floor`: mask entries below it are taken for 0 when motions are mixed.
    `mask_kernel`: side of the convolution that makes the mask, 7 in the reference, where it is up to half of the work
    of a small renderer."""

    num_kp: int = 15
    feature_channel: int = 32
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    reshape_depth: int = 16
    compress: int = 4
    estimate_occlusion_map: bool = True
    mask_floor: float = 0.0
    mask_kernel: int = 7


class Motion(NamedTuple):
    """mask: float32 "b d h w k+1", sums to 1, entry 0 is the background; deformation: float32 "b d h w 3", where
    to sample the source (x, y, z) in [-1, 1]; occlusion: float32 "b h w 1" in [0, 1] (1: visible) or None."""

    mask: jax.Array
    deformation: jax.Array
    occlusion: jax.Array | None


def keypoint_gaussian(keypoints: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """exp(-|cell - keypoint|^2 / (2 * 0.01)) on the corner-aligned grid: "b k 3" -> "b k d h w"."""
    difference = corner_grid(shape) - keypoints[:, :, None, None, None, :]
    return jnp.exp(-0.5 * jnp.sum(difference**2, axis=-1) / KEYPOINT_VARIANCE)


def sparse_motions(
    keypoints_source: jax.Array,
    keypoints_driving: jax.Array,
    jacobian_source: jax.Array | None,
    jacobian_driving: jax.Array | None,
    shape: tuple[int, int, int],
) -> jax.Array:
    """Where each keypoint alone would sample the source: "b k+1 d h w 3", the first being the identity.

    grid - driving + source, with J = J_source inv(J_driving) in between where there are jacobians
    (ControlTalk modules/dense_motion.py:37-47).
    """
    identity = corner_grid(shape)
    motion = identity - keypoints_driving[:, :, None, None, None, :]
    if jacobian_driving is not None:
        jacobian = jnp.matmul(jacobian_source, jnp.linalg.inv(jacobian_driving), precision=_EXACT)
        motion = jnp.einsum("bkmn,bkdhwn->bkdhwm", jacobian, motion, precision=_EXACT)
    motion = motion + keypoints_source[:, :, None, None, None, :]
    background = jnp.broadcast_to(identity, (motion.shape[0], 1, *identity.shape))
    return jnp.concatenate([background, motion], axis=1)


class DenseMotion(nnx.Module):
    """DenseMotionNetwork (ControlTalk modules/dense_motion.py)."""

    def __init__(self, config: DenseMotionConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.compress = conv(config.feature_channel, config.compress, (1, 1, 1), rngs=rngs)
        self.norm = BatchNorm(config.compress, rngs=rngs)
        self.hourglass = VolumeHourglass(
            (config.num_kp + 1) * (config.compress + 1),
            block_expansion=config.block_expansion,
            max_features=config.max_features,
            num_blocks=config.num_blocks,
            rngs=rngs,
        )
        features = self.hourglass.out_features
        side = config.mask_kernel
        self.mask = conv(features, config.num_kp + 1, (side,) * 3, padding=side // 2, rngs=rngs)
        if config.estimate_occlusion_map:
            self.occlusion = conv(features * config.reshape_depth, 1, (7, 7), padding=3, rngs=rngs)

    def __call__(
        self,
        features: jax.Array,
        keypoints_source: jax.Array,
        keypoints_driving: jax.Array,
        jacobian_source: jax.Array | None = None,
        jacobian_driving: jax.Array | None = None,
    ) -> Motion:
        """features: "b d h w c" of the source, h and w multiples of 2^num_blocks; keypoints "b k 3"; jacobians
        "b k 3 3"."""
        shape = features.shape[1:4]
        self._check_size(shape)
        motions = sparse_motions(keypoints_source, keypoints_driving, jacobian_source, jacobian_driving, shape)
        heatmaps = keypoint_gaussian(keypoints_driving, shape) - keypoint_gaussian(keypoints_source, shape)
        hidden = self.hourglass(self._stacked(features, motions, heatmaps))
        logits = self.mask(hidden).astype(motions.dtype)
        mask = jax.nn.softmax(logits, axis=-1)
        kept = jnp.where(mask < self.config.mask_floor, 0.0, mask) if self.config.mask_floor else mask
        deformation = jnp.einsum("bdhwk,bkdhwn->bdhwn", kept, motions, precision=_EXACT)
        return Motion(mask, deformation, self._occlusion(hidden))

    def _check_size(self, shape: tuple[int, int, int]) -> None:
        unit = 2**self.config.num_blocks
        if shape[1] % unit or shape[2] % unit:
            raise ValueError(
                f"dense motion: a feature map of {shape[1]} x {shape[2]} cells does not halve {self.config.num_blocks} "
                f"times; give images whose sides are multiples of {4 * unit} pixels"
            )

    def _stacked(self, features: jax.Array, motions: jax.Array, heatmaps: jax.Array) -> jax.Array:
        """Per keypoint [heatmap, warped compressed features], keypoint-major: "b d h w (k+1)(compress+1)".

        Channel k * (compress + 1) is the heatmap, zero for the background (ControlTalk modules/dense_motion.py:91-92).
        """
        compressed = jax.nn.relu(self.norm(self.compress(features)))
        # The grid is corner-aligned, the sampling is not: no motion is not an identity warp (dense_motion.py:61).
        warped = grid_sample(compressed, motions)
        heatmaps = jnp.pad(heatmaps, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0))).astype(warped.dtype)
        stacked = jnp.concatenate([heatmaps[..., None], warped], axis=-1)
        stacked = jnp.moveaxis(stacked, 1, -2)
        return stacked.reshape(*stacked.shape[:-2], -1)

    def _occlusion(self, hidden: jax.Array) -> jax.Array | None:
        """From the tensor that the mask is made of, depth on the channels (modules/dense_motion.py:106-110). The
        reference would resize it where sizes differ, which they never do (so too in its deform_input)."""
        if not self.config.estimate_occlusion_map:
            return None
        logits = self.occlusion(to_image(hidden))
        return jax.nn.sigmoid(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
