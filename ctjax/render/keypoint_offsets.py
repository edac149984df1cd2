"""Where the decoder's cells lie relative to the driving keypoints. The reference has none of it.

Its decoder sees the keypoints only through the features that they moved, and what lies behind parted lips is in none
of them: it has to be drawn where the keypoints say, and a small generator does not learn to hear that from the motion.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctjax.nn.sampling import corner_grid

REACH = 0.125  # in the unit of keypoints, half a picture; beyond it an offset only says on which side


def keypoint_offsets(keypoints: Float[Array, "b k 3"], height: int, width: int) -> Float[Array, "b h w c"]:
    """x and y from every keypoint to every cell of the corner-aligned grid, -1 to 1 within `REACH`, as 2 k channels,
    in the keypoints' dtype. Linear where it matters, so a keypoint's place is known to fractions of a cell."""
    offsets = corner_grid((height, width))[:, :, None] - keypoints[:, None, None, :, :2]
    clipped = jnp.clip(offsets / REACH, -1.0, 1.0).astype(keypoints.dtype)
    return jax.lax.collapse(clipped, 3, 5)
