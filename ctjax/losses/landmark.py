"""Landmark loss: keypoints drawn to facial landmarks. The reference has none; there keypoints find their own places.

It needs far fewer pictures than finding them does, and what the keypoints mean is known: the chin's and the lower
lip's carry the mouth's opening.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

# Of the 68: cheeks, chin, brows' inner ends, nose, eyes' corners, mouth's corners, both lips, inner and outer.
LANDMARKS = (62, 66, 48, 54, 57, 8, 30, 36, 45, 39, 42, 21, 22, 3, 13)

JAW = (1, 4, 5)  # places in LANDMARKS of those that the jaw moves: inner and outer lower lip, chin
JAW_SHARE = 0.5
LIP_PAIRS = ((0, 1), (2, 3), (0, 4))  # inner lips, corners, inner upper lip and outer lower lip; places in LANDMARKS


def landmark(keypoints: Float[Array, "b k 3"], landmarks: Float[Array, "b 68 2"]) -> Float[Array, " b"]:
    """Mean distance in x plus y between the first keypoints and `LANDMARKS`; -1 and 1 are the picture's edges."""
    placed, targets = drawn_to(keypoints, landmarks)
    return jnp.abs(placed - targets).sum(-1).mean(-1)


def lips(keypoints: Float[Array, "b k 3"], landmarks: Float[Array, "b 68 2"]) -> Float[Array, " b"]:
    """As `landmark`, of the vectors between the lips and between their corners: how far the mouth is open is a small
    difference of two places, which a mean over all places hardly hears."""
    placed, targets = drawn_to(keypoints, landmarks)
    first, second = (jnp.array(side) for side in zip(*LIP_PAIRS, strict=True))
    spans = (points[:, second] - points[:, first] for points in (placed, targets))
    return jnp.abs(jnp.subtract(*spans)).sum(-1).mean(-1)


def turned(keypoints: Float[Array, "b k 3"], landmarks: Float[Array, "b 68 2"]) -> Float[Array, " b"]:
    """As `landmark`, of the source's keypoints in the driving frame's pose and the driving frame's landmarks.

    The landmarks of each frame by itself can be met by any canonical keypoints, since the expression can make up for
    them; then a head that is turned by hand falls apart. Turned keypoints meet them only if canonical keypoints have
    their depth and the expression is free of the pose. The jaw, which speech has moved in between, counts half.
    """
    placed, targets = drawn_to(keypoints, landmarks)
    share = jnp.ones(placed.shape[1]).at[jnp.array(JAW)].set(JAW_SHARE, mode="drop")
    return jnp.sum(share * jnp.abs(placed - targets).sum(-1), -1) / jnp.sum(share)


def closed(canonical: Float[Array, "b k 3"]) -> Float[Array, " b"]:
    """How far the inner lips of canonical keypoints are apart, x, y and z added.

    A canonical face with its mouth closed leaves all of the opening to the expression. Otherwise every face has some of
    it in its canonical keypoints, which Audio2Exp does not see: it cannot know what expression would close that mouth.
    """
    upper, lower = LIP_PAIRS[0]
    return jnp.abs(canonical[:, lower] - canonical[:, upper]).sum(-1)


def depth(canonical: Float[Array, "b k 3"], depths: Float[Array, "b 68"]) -> Float[Array, " b"]:
    """Mean distance in depth between canonical keypoints and their landmarks, in the picture's half sides.

    Frames hardly tell depth, and late: by then the detector's heatmaps have settled on one of their layers each, where
    its gradient vanishes. Known depths are there from the first step on; with few layers they are met only if the
    detector's `temperature` lets heatmaps spread over two of them.
    """
    count = min(canonical.shape[1], len(LANDMARKS))
    return jnp.abs(canonical[:, :count, 2] - depths[:, jnp.array(LANDMARKS[:count])]).mean(-1)


def drawn_to(
    keypoints: Float[Array, "b k 3"], landmarks: Float[Array, "b 68 2"]
) -> tuple[Float[Array, "b n 2"], Float[Array, "b n 2"]]:
    """The keypoints that have a landmark, in the picture's plane, and these landmarks.

    Keypoints beyond the fifteenth are free; with fewer than fifteen the last landmarks are left out.
    """
    count = min(keypoints.shape[1], len(LANDMARKS))
    return keypoints[:, :count, :2], landmarks[:, jnp.array(LANDMARKS[:count])]
