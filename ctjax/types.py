"""Values that travel between stages.

Glossary of dimension letters used in every signature: b batch, t video frames, s audio samples,
l HuBERT steps, d h w volume or image, c channels, k keypoints.

Conventions: images are RGB, channels last; `_u8` means uint8 0..255, `_01` float32 in [0, 1];
keypoints and grids are (x, y, z) in [-1, 1]; angles are in degrees unless a name says otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

Array = Any  # jax.Array or np.ndarray; kept loose so that host-only packages need no jax


class AudioClip(NamedTuple):
    """Mono sound. samples: float32 "s" in [-1, 1]."""

    samples: np.ndarray
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate_hz


class Box(NamedTuple):
    """Axis-aligned box in pixels of the full frame; x1 and y1 are exclusive. May reach outside the frame."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        return self.y1 - self.y0


class HeadPose(NamedTuple):
    """Output of the head pose and expression estimator (paper eq. 1: R from the three angles, T, E).

    yaw_deg, pitch_deg, roll_deg: "b", float32, degrees in [-99, 96].
    translation: "b 3", float32. expression: "b k 3", float32 (keypoint-major).
    """

    yaw_deg: Array
    pitch_deg: Array
    roll_deg: Array
    translation: Array
    expression: Array


class UserError(Exception):
    """Something the user can put right. The message is one line: what is wrong, where, and what to do.

    Command-line entry points print it without a traceback and exit with status 1. Errors of every package that come
    from input (files, flags, bundles, configs) derive from this class.
    """
