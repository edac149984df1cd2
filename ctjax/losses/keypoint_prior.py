"""Keypoint prior: keypoints keep apart and lie, on average, at a fixed depth (ControlTalk modules/model.py:346-360)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

MIN_SQUARED_DISTANCE = 0.1
MEAN_DEPTH = 0.33
DIFFERENCE_EPSILON = 1e-6  # torch's pairwise_distance adds it to every coordinate difference


def keypoint_prior(keypoints: Float[Array, "b k 3"]) -> Float[Array, " b"]:
    """Sum over all ordered pairs of max(0, 0.1 - squared distance), a keypoint with itself included (a constant
    0.1 k), plus |mean z - 0.33|."""
    difference = keypoints[:, :, None] - keypoints[:, None] + DIFFERENCE_EPSILON
    crowding = jax.nn.relu(MIN_SQUARED_DISTANCE - (difference**2).sum(-1)).sum((1, 2))
    return crowding + jnp.abs(keypoints[..., 2].mean(-1) - MEAN_DEPTH)
