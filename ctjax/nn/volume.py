"""Between images with many channels and volumes: channel c * depth + d of the image is channel c at depth d."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def to_volume(x: jax.Array, depth: int) -> jax.Array:
    """ "b h w (c d)" -> "b d h w c" (ControlTalk modules/util.py:361, generator.py:77)."""
    b, h, w, channels = x.shape
    return jnp.moveaxis(x.reshape(b, h, w, channels // depth, depth), -1, 1)


def to_image(x: jax.Array) -> jax.Array:
    """ "b d h w c" -> "b h w (c d)"."""
    b, d, h, w, c = x.shape
    return jnp.moveaxis(x, 1, -1).reshape(b, h, w, c * d)
