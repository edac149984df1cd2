"""Sharpness as the variance of the Laplacian (Pech-Pacheco et al. 2000) of a face crop brought to 256 px.

Larger is sharper, and noise counts as sharpness: a value above the reference's is not a merit.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from ctjax.evaluate.stability import luma


@jax.jit
def laplacian_variance(face_u8: UInt8[Array, "b h w 3"]) -> Float[Array, " b"]:
    """Variance over the inner pixels of the four-neighbour Laplacian of luma (BT.601, 0 .. 255)."""
    grey = luma(face_u8)
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return jnp.var(around - 4.0 * grey[:, 1:-1, 1:-1], axis=(1, 2))
