"""The mouth's box from 68 landmarks: where the sync expert looks and what the perceptual loss leaves out."""

from __future__ import annotations

import numpy as np

# Points of the 68 (iBUG order) that place the box (ControlTalk local_utils.py:23-73).
JAW = slice(0, 17)
NOSE_BRIDGE, RIGHT_CORNER, LEFT_CORNER = 29, 48, 54
RADIUS_SCALE = 1.1
HEIGHT_RADII, WIDTH_RADII = 2.25, 2.5
MIN_RADIUS_PX = 4.0  # landmarks of a turned or lost face may fall together


def mouth_boxes(landmarks: np.ndarray, *, steady: bool = True) -> np.ndarray:
    """Boxes (x0, y0, x1, y1) in pixels, x1 and y1 exclusive, for the landmarks "t 68 2" of one clip: float32 "t 4".

    The reference's box hangs from the nose and its size follows the chin, so that it grows with the opening of the
    mouth. A sync expert can read the opening off that, and a picture that is cut with another frame's landmarks then
    misleads it. `steady` therefore takes the clip's median size; the nose and the middle of the mouth place it.
    Without `steady` it is the reference's box, without its truncation to whole pixels.
    """
    landmarks = np.asarray(landmarks, np.float32)
    down = landmarks[:, JAW, 1].max(axis=1) - landmarks[:, NOSE_BRIDGE, 1]
    across = landmarks[:, LEFT_CORNER, 0] - landmarks[:, RIGHT_CORNER, 0]
    radius = np.maximum(RADIUS_SCALE * np.maximum(down, across) / 2, MIN_RADIUS_PX)
    if steady:
        radius = np.full_like(radius, np.median(radius))
    x = (landmarks[:, RIGHT_CORNER, 0] + landmarks[:, LEFT_CORNER, 0]) / 2
    top = landmarks[:, NOSE_BRIDGE, 1]
    half = WIDTH_RADII / 2 * radius
    return np.stack([x - half, top, x + half, top + HEIGHT_RADII * radius], axis=1)
