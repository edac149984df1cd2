"""What is known of a face beforehand: its head pose from a teacher, and that expressions are small."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Array, Float


def head_pose(angles_deg: Sequence[Float[Array, " b"]], target_deg: Sequence[Float[Array, " b"]]) -> Float[Array, " b"]:
    """Sum of |yaw|, |pitch| and |roll| errors in degrees (ControlTalk modules/model.py:363-380)."""
    return sum(abs(angle - target) for angle, target in zip(angles_deg, target_deg, strict=True))


def expression(deformation: Float[Array, "b k 3"]) -> Float[Array, " b"]:
    """L1 norm of the expression deformation (ControlTalk modules/model.py:383-386)."""
    return abs(deformation).sum((1, 2))
