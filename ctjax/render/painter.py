"""A small network at the picture's full size that knows where the driving keypoints are. The reference has none of it.

Its decoder sees the keypoints only through the features that they moved, and what lies behind parted lips is in none
of them: it has to be drawn where the keypoints say. A small generator does not learn that from a few thousand pairs,
but of each pixel's place between the keypoints it is a simple function.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.conv import conv
from ctjax.nn.sampling import corner_grid

# In the unit of keypoints, half a picture. Beyond its reach an offset only says on which side; the short makes edges.
REACHES = (0.03, 0.125)


def keypoint_offsets(keypoints: Float[Array, "b k 3"], height: int, width: int) -> Float[Array, "b h w c"]:
    """x and y from every keypoint to every cell of the corner-aligned grid, from -1 to 1 within each of `REACHES`: 4 k
    channels in the keypoints' dtype."""
    offsets = corner_grid((height, width))[:, :, None] - keypoints[:, None, None, :, :2]
    within = [jnp.clip(jax.lax.collapse(offsets, 3, 5) / reach, -1.0, 1.0) for reach in REACHES]
    return jnp.concatenate(within, axis=-1).astype(keypoints.dtype)


class Painter(nnx.Module):
    """Corrects what a decoder gives, before the sigmoid, pixel by pixel. It begins by changing nothing."""

    def __init__(self, channels: int, num_kp: int, hidden: int, *, rngs: nnx.Rngs):
        self.first = conv(channels + 2 * len(REACHES) * num_kp, hidden, (1, 1), rngs=rngs)
        self.second = conv(hidden, hidden, (1, 1), rngs=rngs)
        self.third = conv(hidden, hidden, (1, 1), rngs=rngs)
        zeros = nnx.initializers.zeros
        self.last = nnx.Conv(hidden, channels, (1, 1), kernel_init=zeros, bias_init=zeros, rngs=rngs)

    def __call__(self, logits: Float[Array, "b h w c"], keypoints: Float[Array, "b k 3"]) -> Float[Array, "b h w c"]:
        x = seen(logits, keypoints)
        for layer in (self.first, self.second, self.third):
            x = jax.nn.relu(layer(x))
        return logits + self.last(x)


def seen(logits: Float[Array, "b h w c"], keypoints: Float[Array, "b k 3"]) -> Float[Array, "b h w d"]:
    """What the painter looks at: the decoder's output and every pixel's place."""
    offsets = keypoint_offsets(keypoints, *logits.shape[1:3])
    return jnp.concatenate([logits, offsets.astype(logits.dtype)], axis=-1)
