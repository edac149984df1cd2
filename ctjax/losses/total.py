"""The total of Audio2Exp's training (paper, eq. 6): weights and means, applied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Audio2ExpWeights:
    """perceptual and sync: lambda_p and lambda_sync of eq. 6; the paper's ratio is 0.3, at 1 the mouth overfits
    (fig. 7). anchor: keeps dE small. smoothness: keeps dE alike from frame to frame. Both are ours, and off."""

    perceptual: float = 1.0
    sync: float = 0.3
    anchor: float = 0.0
    smoothness: float = 0.0


def anchor(delta: Float[Array, "b t k 3"]) -> Float[Array, " b"]:
    """Mean square of the expression's change."""
    return jnp.mean(delta**2, axis=(1, 2, 3))


def smoothness(delta: Float[Array, "b t k 3"]) -> Float[Array, " b"]:
    """Mean square of the change's change between neighbouring frames; 0 for a single frame."""
    if delta.shape[1] < 2:
        return jnp.zeros(delta.shape[0], delta.dtype)
    return jnp.mean((delta[:, 1:] - delta[:, :-1]) ** 2, axis=(1, 2, 3))


def weighted(terms: Mapping[str, Float[Array, " b"]], weights: Audio2ExpWeights) -> Float[Array, " b"]:
    """Eq. 6 for each example: the terms that are given, each times its weight, in float32."""
    return sum(getattr(weights, name) * value.astype(jnp.float32) for name, value in terms.items())
