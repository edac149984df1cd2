"""Temporal jitter outside the mouth, in landmarks and in pixels.

Both are second differences in time, x[t-1] - 2 x[t] + x[t+1]: steady motion does not count, trembling does. Neither
is zero for real footage (sensor noise, the landmark detector's own noise): read them beside the reference row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

STEADY_POINTS = slice(17, 48)  # brows, nose and eyes: speech moves the jaw and the mouth
MOUTH_MARGIN = 0.5  # of the mouth's width, added on every side: chin and cheeks next to it move with it
LUMA = (0.299, 0.587, 0.114)  # BT.601


def luma(image_u8: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w"]:
    """BT.601 luma, 0 .. 255. A sum and no matrix product: accelerators would round its factors to ten bits."""
    red, green, blue = (share * image_u8[..., channel].astype(jnp.float32) for channel, share in enumerate(LUMA))
    return red + green + blue


def landmark_jitter(landmarks: np.ndarray) -> np.ndarray:
    """Mean length of the second difference of brows, nose and eyes, "t - 2", in the unit of the landmarks.

    landmarks: "t 68 2", NaN where no face was found; NaN wherever one of three frames has none.
    """
    points = landmarks[:, STEADY_POINTS]
    return np.linalg.norm(points[:-2] - 2 * points[1:-1] + points[2:], axis=-1).mean(-1)


def mouth_box(landmarks: np.ndarray) -> np.ndarray:
    """(x0, y0, x1, y1) around the mouth with half its width to spare, "t 4"; NaN where no face was found."""
    mouth = landmarks[:, 48:68]
    low, high = mouth.min(1), mouth.max(1)
    margin = MOUTH_MARGIN * (high - low)[:, :1]
    return np.concatenate([low - margin, high + margin], axis=1)


@jax.jit
def pixel_jitter(
    frames_u8: UInt8[Array, "t_and_two h w 3"], mouth_boxes: Float[Array, "t_and_two 4"]
) -> Float[Array, " t"]:
    """Mean absolute second difference of luma in grey levels outside the mouth boxes of the three frames involved.

    NaN where one of the three has no box.
    """
    grey = luma(frames_u8)
    change = jnp.abs(grey[:-2] - 2 * grey[1:-1] + grey[2:])
    y, x = jnp.arange(grey.shape[1])[:, None], jnp.arange(grey.shape[2])[None, :]
    x0, y0, x1, y1 = (mouth_boxes[:, i, None, None] for i in range(4))
    inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
    outside = 1.0 - (inside[:-2] | inside[1:-1] | inside[2:])
    mean = jnp.sum(change * outside, (1, 2)) / jnp.maximum(jnp.sum(outside, (1, 2)), 1.0)
    known = jnp.isfinite(mouth_boxes).all(1)
    return jnp.where(known[:-2] & known[1:-1] & known[2:], mean, jnp.nan)
