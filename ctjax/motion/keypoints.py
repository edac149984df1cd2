"""Posed keypoints K = R Kc + T + E (paper eq. 1) and their jacobians.

The reference's function estimates jacobians unless told otherwise, and every caller of its renderer tells it otherwise
(render.py:89, 146, 173): `ctjax.animate` has none either. In training it gives the translation a dimension in place, so
that a second call with the same pose fails (modules/model.py:182); here nothing that is given is changed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ctjax.motion.head_pose import rotation_matrix
from ctjax.types import Array, HeadPose


def transform_keypoints(canonical: Array, head_pose: HeadPose) -> jax.Array:
    """Canonical keypoints turned, moved and deformed by a head pose.

    canonical: "b k 3" (x, y, z) in [-1, 1]; a batch of one, on either side, serves the other's batch -> "b k 3"
    (ControlTalk render.py:85-124).
    """
    turned = jnp.einsum("bmp,bkp->bkm", *_same_batch(_rotation(head_pose), canonical), precision="highest")
    return turned + head_pose.translation[:, None, :] + head_pose.expression


def transform_jacobians(canonical_jacobian: Array, head_pose: HeadPose) -> jax.Array:
    """Jacobians of canonical keypoints, "b k 3 3", turned by the head pose's rotation."""
    pair = _same_batch(_rotation(head_pose), canonical_jacobian)
    return jnp.einsum("bmp,bkpq->bkmq", *pair, precision="highest")


def _rotation(head_pose: HeadPose) -> jax.Array:
    return rotation_matrix(head_pose.yaw_deg, head_pose.pitch_deg, head_pose.roll_deg)


def _same_batch(rotation: jax.Array, canonical: Array) -> tuple[jax.Array, jax.Array]:
    batch = max(rotation.shape[0], canonical.shape[0])
    return (
        jnp.broadcast_to(rotation, (batch, *rotation.shape[1:])),
        jnp.broadcast_to(canonical, (batch, *canonical.shape[1:])),
    )
