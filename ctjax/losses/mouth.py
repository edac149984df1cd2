"""Cutting the mouth out of pictures, differentiably, and the soft mask that leaves it out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

MASK_POWER = 4  # 2 is an ellipse, infinity the box itself
MASK_SOFTNESS = 0.15  # width of the edge, in units of the ellipse's own distance
LIPS = slice(48, 68)  # of the 68 landmarks
LIP_MARGIN = 0.35  # of the lips' width, around them on every side: jaw and cheeks move with them


def crop_boxes(image: Float[Array, "b h w c"], boxes: Float[Array, "b 4"], size: int) -> Float[Array, "b size size c"]:
    """The boxes (x0, y0, x1, y1 in pixels, x1 and y1 exclusive) cut out and scaled to `size` x `size`.

    Corner-aligned linear interpolation as the reference's (ControlTalk local_utils.py:23-73), with a wider triangle
    where the box is larger than `size`; beyond the picture its edge goes on; x1 before x0 mirrors. Two matrix
    products, so the gradient reaches every pixel that was read.
    """
    x0, y0, x1, y1 = (boxes[:, i].astype(jnp.float32) for i in range(4))
    rows = _interpolation(y0, y1, size, image.shape[1]).astype(image.dtype)
    columns = _interpolation(x0, x1, size, image.shape[2]).astype(image.dtype)
    lines = jnp.einsum("bph,bhwc->bpwc", rows, image)
    return jnp.einsum("bqw,bpwc->bpqc", columns, lines)


def _interpolation(start: Array, stop: Array, size: int, pixels: int) -> Array:
    """Weights "b size pixels" that sample the interval from pixel `start` to `stop` - 1 at `size` points."""
    steps = jnp.linspace(0.0, 1.0, size)
    length = stop - 1.0 - start
    at = jnp.clip(start[:, None] + steps * length[:, None], 0.0, pixels - 1.0)
    reach = jnp.maximum(jnp.abs(length) / (size - 1), 1.0)[:, None, None]
    weights = jax.nn.relu(1.0 - jnp.abs(at[:, :, None] - jnp.arange(pixels)) / reach)
    return weights / weights.sum(-1, keepdims=True)


def mouth_mask(boxes: Float[Array, "b 4"], height: int, width: int) -> Float[Array, "b h w 1"]:
    """1 on the mouth, 0 far from it, with a soft edge along the rounded box: float32."""
    x0, y0, x1, y1 = (boxes[:, i, None].astype(jnp.float32) for i in range(4))
    across = jnp.abs((jnp.arange(width) + 0.5 - (x0 + x1) / 2) / ((x1 - x0) / 2))
    down = jnp.abs((jnp.arange(height) + 0.5 - (y0 + y1) / 2) / ((y1 - y0) / 2))
    # far outside the mask is 0 whatever the distance; the clip keeps the power's gradient finite
    distance = jnp.clip(down[:, :, None], 0, 8) ** MASK_POWER + jnp.clip(across[:, None, :], 0, 8) ** MASK_POWER
    return jax.nn.sigmoid((1.0 - distance ** (1 / MASK_POWER)) / MASK_SOFTNESS * 4)[..., None]


def inner_mouth_pixel(
    prediction_01: Float[Array, "b h w c"], target_01: Float[Array, "b h w c"], inside: Bool[Array, "b h w"]
) -> Float[Array, ""]:
    """Mean absolute difference between the lips, over all pixels of the batch that are `inside`; 0 where none is.

    A mouth that is wide open fills a hundredth of the picture, and most mouths are not: only counted by itself is it
    heard at all. By pixel and not by picture, or a line between closed lips would weigh as much as an open mouth.
    """
    difference = jnp.abs(prediction_01 - target_01).astype(jnp.float32) * inside[..., None]
    return difference.sum() / (target_01.shape[-1] * jnp.maximum(inside.sum(), 1))


def mouth_pixel(
    prediction_01: Float[Array, "b h w c"], target_01: Float[Array, "b h w c"], landmarks: Float[Array, "b 68 2"]
) -> Float[Array, " b"]:
    """Mean absolute difference around the target's lips; landmarks: -1 and 1 in the middle of the outermost pixels.

    The mouth is a few hundredths of a picture: a mean over all of it hardly hears what speech moves.
    """
    height, width = target_01.shape[1:3]
    sides = jnp.array([width - 1, height - 1], jnp.float32)
    lips_px = (landmarks[:, LIPS] + 1) / 2 * sides + 0.5  # from the middles of pixels to their edges, as boxes are
    low, high = lips_px.min(1), lips_px.max(1)
    margin = LIP_MARGIN * (high - low)[:, :1]
    mask = mouth_mask(jnp.concatenate([low - margin, high + margin], axis=1), height, width)
    difference = jnp.abs(prediction_01 - target_01).astype(jnp.float32)
    return (mask * difference).sum((1, 2, 3)) / (mask.sum((1, 2, 3)) * target_01.shape[-1])
