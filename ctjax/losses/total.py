"""The total of Audio2Exp's training (paper, eq. 6): weights and means, applied once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float


@dataclass(frozen=True)
class Audio2ExpWeights:
    """perceptual and sync: lambda_p and lambda_sync of eq. 6; the paper's ratio is 0.3, at 1 the mouth overfits
    (fig. 7). anchor: keeps dE small. smoothness: keeps dE alike from frame to frame. expression: draws E' to the
    expression that the clip itself has where the sound is from. The last three are ours, and off."""

    perceptual: float = 1.0
    sync: float = 0.3
    anchor: float = 0.0
    smoothness: float = 0.0
    expression: float = 0.0

    @property
    def looks_at_pictures(self) -> bool:
        return self.perceptual != 0 or self.sync != 0


def anchor(delta: Float[Array, "b t k 3"]) -> Float[Array, " b"]:
    """Mean square of the expression's change."""
    return jnp.mean(delta**2, axis=(1, 2, 3))


def smoothness(delta: Float[Array, "b t k 3"]) -> Float[Array, " b"]:
    """Mean square of the change's change between neighbouring frames; 0 for a single frame."""
    if delta.shape[1] < 2:
        return jnp.zeros(delta.shape[0], delta.dtype)
    return jnp.mean((delta[:, 1:] - delta[:, :-1]) ** 2, axis=(1, 2, 3))


def known_expression(
    edited: Float[Array, "b t k 3"], target: Float[Array, "b t k 3"], known: Float[Array, " b"]
) -> Float[Array, " b"]:
    """Mean distance of the edited expression from the one that was filmed, 0 for examples of which none is `known`."""
    return known * jnp.mean(jnp.abs(edited - target), axis=(1, 2, 3))


def weighted(terms: Mapping[str, Float[Array, " b"]], weights: Audio2ExpWeights) -> Float[Array, " b"]:
    """Eq. 6 for each example: the terms that are given, each times its weight, in float32."""
    return sum(getattr(weights, name) * value.astype(jnp.float32) for name, value in terms.items())
