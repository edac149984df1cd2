"""The release's own box arithmetic, rounding and wrapping included: for parity runs, not for use.

What the rest of this package does instead is in `boxes`, `crop` and `mouth`.
"""

from __future__ import annotations

import math

import numpy as np

MOUTH_RADIUS = 1.1  # times half of the larger of nose-to-chin and mouth width (ControlTalk local_utils.py:23-73)
DETECTOR_SIDE = 640  # longest side of the picture the release shows its face detector


def detector_size(frame_hw: tuple[int, int]) -> tuple[int, int]:
    """(h, w) of the picture the detector sees (ControlTalk local_utils.py:195-226)."""
    shrink = max(1.0, max(frame_hw) / DETECTOR_SIDE)
    return int(frame_hw[0] / shrink), int(frame_hw[1] / shrink)


def face_crop(frame_hw: tuple[int, int], detected: np.ndarray, increase: float) -> tuple[int, int, int, int]:
    """(x1, y1, x2, y2) cut out of the frame for a box (x1, y1, x2, y2) found in the detector's picture.

    A square on the box's longer side, enlarged, its corners truncated toward zero and then held inside the frame, so
    that near an edge it is no square any more (ControlTalk local_utils.py:195-226).
    """
    height, width = frame_hw
    x1, y1, x2, y2 = np.asarray(detected, np.float64) * max(1.0, max(frame_hw) / DETECTOR_SIDE)
    reach = max(x2 - x1, y2 - y1) * (1 + 2 * increase) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return max(0, int(x - reach)), max(0, int(y - reach)), min(width, int(x + reach)), min(height, int(y + reach))


def mouth_crop(
    points_68: np.ndarray, image_hw: tuple[int, int], picture_size: int
) -> tuple[tuple[int, int, int, int], bool]:
    """((y1, y2, x1, x2), usable) of the release's mouth crop; unusable slices are empty, then the whole image is taken.

    Negative numbers count from the far edge as Python slices do (ControlTalk local_utils.py:23-73). Landmarks of a
    512 px picture are halved for a 256 px image.
    """
    points = points_68 / 2 if picture_size == 512 and image_hw[0] == 256 else points_68
    mouth_x = (points[48, 0] + points[54, 0]) // 2
    top = points[29, 1]
    reach = max(points[:17, 1].max() - top, points[54, 0] - points[48, 0], 0)
    radius = math.floor(MOUTH_RADIUS * reach / 2)
    y1, y2 = int(top), int(top + 2 * radius + radius / 4)
    x1, x2 = int(mouth_x - radius - radius / 4), int(mouth_x + radius + radius / 4)
    rows, columns = range(image_hw[0])[y1:y2], range(image_hw[1])[x1:x2]
    return (y1, y2, x1, x2), bool(rows) and bool(columns)
