"""Rules that turn landmarks into boxes: the face's own box and the square that is rendered.

Boxes are in pixels of the frame, edges exclusive, and may reach outside the frame: cropping repeats the frame's edge
there. Nothing is clamped, so that a square stays square and no box ever has a negative start by accident (the
reference's do, ControlTalk local_utils.py:23-73; that arithmetic is kept in `reference`).
"""

from __future__ import annotations

import math

import numpy as np

from ctjax.types import Box

# The face box that the published weights were trained with comes from another detector (S3FD). Such boxes are the
# mesh's extents with the top raised by this share of their height (46 pictures; the other sides agree to 3-4 %).
TOP_RAISE = 0.09
LARGEST_BOX = 3  # sides of the frame that a box given by hand may have, for it is filled up beyond the frame
INCREASE = 0.2  # the crop's margin on each side, in longer sides of the face box (ControlTalk inference.py:69-71)


def extents(points: np.ndarray) -> Box:
    """The smallest box around landmarks "n 2+"."""
    (x0, y0), (x1, y1) = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    return Box(float(x0), float(y0), float(x1), float(y1))


def face_box(points: np.ndarray) -> Box:
    """The face as a detector of whole faces would box it, from mesh landmarks "468 2+"."""
    box = extents(points)
    return box._replace(y0=box.y0 - TOP_RAISE * box.height)


def square_around(box: Box, increase: float = 0.0) -> Box:
    """The square on the centre of `box`, its longer side enlarged by `increase` on both ends."""
    return centred(*centre(box), max(box.width, box.height) * (1 + 2 * increase))


def crop_box(points: np.ndarray, increase: float = INCREASE) -> Box:
    """The square to render for a face with mesh landmarks "468 2+", in whole pixels."""
    return whole_pixels(square_around(face_box(points), increase))


def centre(box: Box) -> tuple[float, float]:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def centred(x: float, y: float, side: float) -> Box:
    return Box(x - side / 2, y - side / 2, x + side / 2, y + side / 2)


def whole_pixels(box: Box) -> Box:
    """`box` with whole-numbered edges; equal sides stay equal, an empty box becomes one pixel."""
    width, height = max(1, round(box.width)), max(1, round(box.height))
    x0, y0 = math.floor(box.x0 + 0.5), math.floor(box.y0 + 0.5)
    return Box(x0, y0, x0 + width, y0 + height)


def user_box(numbers: tuple[float, float, float, float], frame_hw: tuple[int, int]) -> Box:
    """A box given by hand as (left, top, right, bottom) in pixels, made the square around it.

    Raises: ValueError in one line if it is empty, turned around, not in the frame or far larger than it.
    """
    if len(numbers) != 4 or not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"a box is four numbers, left, top, right, bottom, not {numbers}")
    box = Box(*numbers)
    height, width = frame_hw
    given = ",".join(f"{v:g}" for v in numbers)
    if box.width < 2 or box.height < 2:
        raise ValueError(f"box {given} is empty: give left, top, right, bottom in pixels")
    if box.x0 >= width or box.y0 >= height or box.x1 <= 0 or box.y1 <= 0:
        raise ValueError(f"box {given} lies outside the frame of {width} x {height} pixels")
    if max(box.width, box.height) > LARGEST_BOX * max(width, height):
        raise ValueError(f"box {given} is more than {LARGEST_BOX} times as large as the frame of {width} x {height}")
    return whole_pixels(square_around(box))
