"""The total of Audio2Exp's training (paper, eq. 6): weights and means, applied once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
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

    def __post_init__(self) -> None:
        if not any(dataclasses.astuple(self)):
            raise ValueError("all weights are 0: there is nothing to learn from")

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
    edited: Float[Array, "b t k 3"],
    target: Float[Array, "b t k 3"],
    known: Float[Array, " b"],
    source: Float[Array, "b t k 3"],
    moving: Sequence[int] = (),
    pairs: Sequence[tuple[int, int]] = (),
) -> Float[Array, " b"]:
    """Mean distance of the edited expression from the one that was filmed, 0 for examples of which none is `known`.

    moving: the keypoints that speech moves; none: all. With some, these are compared relative to the rest of the face,
    and the rest is to stay as in `source`: between two frames an expression also changes with the head's pose, all of
    the face alike, and that is none of the sound's doing. pairs: of keypoints, between which the difference counts once
    more: how far the lips are apart is a small part of where they are.
    """
    apart = _apart(edited, target, pairs) if pairs else 0.0
    if not moving:
        return known * (jnp.mean(jnp.abs(edited - target), axis=(1, 2, 3)) + apart)
    resting = [k for k in range(edited.shape[2]) if k not in moving]

    def relative(expression: Array) -> Array:
        mouth, face = (expression[:, :, jnp.array(some)] for some in (moving, resting))
        return mouth - jnp.mean(face, axis=2, keepdims=True)

    spoken = jnp.mean(jnp.abs(relative(edited) - relative(target)), axis=(1, 2, 3))
    stayed = jnp.mean(jnp.abs(edited - source)[:, :, jnp.array(resting)], axis=(1, 2, 3))
    return known * (spoken + stayed + apart)


def _apart(
    edited: Float[Array, "b t k 3"], target: Float[Array, "b t k 3"], pairs: Sequence[tuple[int, int]]
) -> Float[Array, " b"]:
    """Mean distance of the differences between the keypoints of each pair."""
    first, second = (jnp.array(side) for side in zip(*pairs, strict=True))
    difference = edited - target
    return jnp.mean(jnp.abs(difference[:, :, second] - difference[:, :, first]), axis=(1, 2, 3))


def weighted(terms: Mapping[str, Float[Array, " b"]], weights: Audio2ExpWeights) -> Float[Array, " b"]:
    """Eq. 6 for each example: the terms that are given, each times its weight, in float32."""
    return sum(getattr(weights, name) * value.astype(jnp.float32) for name, value in terms.items())
