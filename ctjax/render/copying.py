"""The source picture moved by the dense motion and blended with what the decoder draws. The reference has none of it.

A small generator loses most of a picture on the way through its features; what motion alone explains it need not draw.
Without motion the source comes out as it went in, so the decoder has only the mouth and what was hidden to invent.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.sampling import grid_sample

_EXACT = jax.lax.Precision.HIGHEST


def blended(logits: jax.Array, source_01: jax.Array, deformation: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The picture and what was drawn for it, both RGB "b h w 3" in [0, 1]. logits: the decoder's "b h w 4", colours and
    the share of the moved source, before their sigmoids; source_01: "#b h w 3"; deformation: of
    `dense_motion.Motion`, "b d h/4 w/4 3"."""
    shares = jax.nn.sigmoid(logits)
    drawn, share = shares[..., :-1], shares[..., -1:]
    return share * moved(source_01, deformation) + (1.0 - share) * drawn, drawn


def moved(source_01: jax.Array, deformation: jax.Array) -> jax.Array:
    """The picture under the motion's mean over depth, enlarged: "b h w c", float32 at least.

    Corner cells stay corner cells, when the motion is enlarged and when the picture is sampled, so that the grid itself
    is no motion at all.
    """
    source_01 = source_01.astype(jnp.promote_types(source_01.dtype, jnp.float32))
    source_01 = jnp.broadcast_to(source_01, (len(deformation), *source_01.shape[1:]))
    motion = jnp.mean(deformation[..., :2], axis=1)
    rows, columns = (
        jnp.asarray(_enlarging(small, large), motion.dtype)
        for small, large in zip(motion.shape[1:3], source_01.shape[1:3], strict=True)
    )
    motion = jnp.einsum("Hh,bhwn->bHwn", rows, motion, precision=_EXACT)
    motion = jnp.einsum("Ww,bHwn->bHWn", columns, motion, precision=_EXACT)
    return grid_sample(source_01, motion, padding="border", align_corners=True)


def _enlarging(small: int, large: int) -> np.ndarray:
    """Corner-aligned linear interpolation of `small` cells at `large` places: float32 "large small"."""
    places = np.linspace(0.0, small - 1.0, large)
    return np.maximum(1.0 - np.abs(places[:, None] - np.arange(small)), 0.0).astype(np.float32)
