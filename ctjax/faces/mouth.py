"""The mouth's box from 68 landmarks: where the sync expert looks and what the perceptual loss leaves out."""

from __future__ import annotations

import numpy as np

# Points of the 68 (iBUG order) that place the box (ControlTalk local_utils.py:23-73).
JAW = slice(0, 17)
NOSE_BRIDGE, RIGHT_CORNER, LEFT_CORNER = 29, 48, 54
RADIUS_SCALE = 1.1
HEIGHT_RADII, WIDTH_RADII = 2.25, 2.5
MIN_RADIUS_PX = 4.0  # landmarks of a turned or lost face may fall together
BROWS = slice(17, 27)
FOREHEAD = 0.3  # from the brows up to where a detector's box begins, in heights from brows to chin


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


def lower_face_boxes(landmarks: np.ndarray) -> np.ndarray:
    """Boxes as `mouth_boxes`, of the lower half of the face: what Wav2Lip's expert sees.

    It was trained on a detector's boxes, from the forehead to the chin (Wav2Lip preprocess.py); the landmarks end at
    the brows, so the forehead is estimated. Size and place follow the clip's median size, as above.
    """
    landmarks = np.asarray(landmarks, np.float32)
    brows, chin = landmarks[:, BROWS, 1].min(axis=1), landmarks[:, JAW, 1].max(axis=1)
    left, right = landmarks[:, JAW, 0].min(axis=1), landmarks[:, JAW, 0].max(axis=1)
    width = np.maximum(np.median(right - left), 2 * MIN_RADIUS_PX)
    height = np.maximum(np.median(chin - brows) * (1 + FOREHEAD), 2 * MIN_RADIUS_PX)
    x, top = (left + right) / 2, brows - FOREHEAD / (1 + FOREHEAD) * height
    return np.stack([x - width / 2, top + height / 2, x + width / 2, top + height], axis=1).astype(np.float32)
