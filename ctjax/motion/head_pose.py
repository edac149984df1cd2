"""Head rotation: angles in degrees to matrices, and poses given by the user instead of estimated."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ctjax.types import Array, HeadPose

REFERENCE_PI = 3.14  # the reference turns degrees to radians with this, not with pi (ControlTalk render.py:63-65)


def rotation_matrix(yaw_deg: Array, pitch_deg: Array, roll_deg: Array) -> jax.Array:
    """R = Rx(pitch) Ry(yaw) Rz(roll), "b 3 3", for angles of shape "b" (ControlTalk render.py:85)."""
    yaw, pitch, roll = (jnp.asarray(angle) / 180.0 * REFERENCE_PI for angle in (yaw_deg, pitch_deg, roll_deg))
    one, zero = jnp.ones_like(yaw), jnp.zeros_like(yaw)

    def matrix(*rows):
        return jnp.stack([jnp.stack(jnp.broadcast_arrays(*row), axis=-1) for row in rows], axis=-2)

    sin, cos = jnp.sin, jnp.cos
    about_x = matrix((one, zero, zero), (zero, cos(pitch), -sin(pitch)), (zero, sin(pitch), cos(pitch)))
    about_y = matrix((cos(yaw), zero, sin(yaw)), (zero, one, zero), (-sin(yaw), zero, cos(yaw)))
    about_z = matrix((cos(roll), -sin(roll), zero), (sin(roll), cos(roll), zero), (zero, zero, one))
    turned = jnp.matmul(about_x, about_y, precision="highest")
    return jnp.matmul(turned, about_z, precision="highest")


def free_view(
    pose: HeadPose, *, yaw_deg: Array | None = None, pitch_deg: Array | None = None, roll_deg: Array | None = None
) -> HeadPose:
    """`pose` with the given angles (numbers, or one per example) in place of its own; None keeps the estimated one."""

    def chosen(own, given):
        return own if given is None else jnp.broadcast_to(jnp.asarray(given, own.dtype), own.shape)

    return pose._replace(
        yaw_deg=chosen(pose.yaw_deg, yaw_deg),
        pitch_deg=chosen(pose.pitch_deg, pitch_deg),
        roll_deg=chosen(pose.roll_deg, roll_deg),
    )


def sadtalker_pose(pose: HeadPose) -> HeadPose:
    """`pose` as SadTalker uses it: only the vertical translation is kept (SadTalker make_animation.py:64-101)."""
    vertical_only = jnp.array([0.0, 1.0, 0.0], pose.translation.dtype)
    return pose._replace(translation=pose.translation * vertical_only)
