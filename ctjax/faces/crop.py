"""Cutting a face out of a frame and putting the rendered one back without a visible border."""

from __future__ import annotations

import cv2
import numpy as np

from ctjax.faces.boxes import whole_pixels
from ctjax.types import Box

FEATHER = 0.12  # share of the crop over which the pasted face fades in at the crop's sides
FACE_GROW = 0.08  # how far the face mask reaches beyond the landmarks, in crop sides; a chin may move that much
FACE_FADE = 0.06  # and over which share it fades out from there


def crop(image_u8: np.ndarray, box: Box, size: int, interpolation: int | None = None) -> np.ndarray:
    """The part of uint8 "h w 3" in `box` (rounded to whole pixels) as uint8 "size size 3".

    Where the box leaves the frame the frame's edge is repeated. Enlarged by cubic interpolation, as the release does
    (ControlTalk inference.py:87; its source pictures linearly, :309), shrunk by averaging areas, which it does not but
    which keeps moving detail steady.
    """
    x0, y0, x1, y1 = whole_pixels(box)
    height, width = image_u8.shape[:2]
    top, bottom, above, below = _within(y0, y1, height)
    left, right, before, after = _within(x0, x1, width)
    part = image_u8[top:bottom, left:right]
    if above or below or before or after:
        part = cv2.copyMakeBorder(part, above, below, before, after, cv2.BORDER_REPLICATE)
    return _resized(part, size, size, interpolation)


def paste(
    frame_u8: np.ndarray, face_u8: np.ndarray, box: Box, mask_01: np.ndarray | None = None, match_colour: bool = True
) -> np.ndarray:
    """A copy of the frame with a rendered face, uint8 "size size 3", laid over `box` (rounded to whole pixels).

    The face fades in over FEATHER at the sides of the box, except where the box meets the side of the frame: there is
    nothing to blend with. mask_01: float32 "size size", where else to show the face (`face_mask`, `mouth_mask`).
    match_colour: take away a constant difference in colour, measured where the face fades in.
    """
    x0, y0, x1, y1 = whole_pixels(box)
    height, width = frame_u8.shape[:2]
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    result = frame_u8.copy()
    if right <= left or bottom <= top:
        return result
    inside = np.s_[top - y0 : bottom - y0, left - x0 : right - x0]
    weight = edge_mask(box, (height, width))
    if mask_01 is not None:
        weight *= _resized(np.clip(mask_01, 0, 1, dtype=np.float32), x1 - x0, y1 - y0, cv2.INTER_LINEAR)
    weight = np.ascontiguousarray(weight[inside])
    face = np.ascontiguousarray(_resized(face_u8, x1 - x0, y1 - y0)[inside])
    below = np.ascontiguousarray(frame_u8[top:bottom, left:right])
    if match_colour:
        face = cv2.add(face, (*_colour_shift(face, below, weight), 0.0))
    result[top:bottom, left:right] = cv2.blendLinear(face, below, weight, 1 - weight)
    return result


def edge_mask(box: Box, frame_hw: tuple[int, int], feather: float = FEATHER) -> np.ndarray:
    """float32 "h w" of the box in whole pixels: 1 inside, falling smoothly to 0 at each side that lies in the frame."""
    x0, y0, x1, y1 = whole_pixels(box)
    across = _ramp(x1 - x0, feather, starts=x0 > 0, ends=x1 < frame_hw[1])
    down = _ramp(y1 - y0, feather, starts=y0 > 0, ends=y1 < frame_hw[0])
    return down[:, None] * across[None, :]


def face_mask(points: np.ndarray, box: Box, size: int, grow: float = FACE_GROW, fade: float = FACE_FADE) -> np.ndarray:
    """float32 "size size" of the crop at `box`: 1 on the face, by landmarks "n 2+" in frame pixels, soft outside.

    It keeps hair and background as they were filmed, so it suits a face that moves as it did in the frame.
    """
    return _soft_hull(points, box, size, grow, fade)


def mouth_mask(points_68: np.ndarray, box: Box, size: int, grow: float = 0.02, fade: float = FACE_FADE) -> np.ndarray:
    """float32 "size size" of the crop at `box`: 1 on mouth, chin and lower cheeks, soft outside; landmarks "68 2"."""
    lower_face = np.concatenate([points_68[3:14], points_68[31:36], points_68[48:60]])
    return _soft_hull(lower_face, box, size, grow, fade)


def _soft_hull(points: np.ndarray, box: Box, size: int, grow: float, fade: float) -> np.ndarray:
    """The convex hull of points, moved outward by `grow` sides of the box and fading to 0 over about `fade` more."""
    x0, y0, x1, y1 = whole_pixels(box)
    scale = size / (x1 - x0), size / (y1 - y0)
    hull = cv2.convexHull(((points[:, :2] - (x0, y0)) * scale).astype(np.float32))[:, 0]
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = (grow + fade / 2) * size * np.stack([np.cos(around), np.sin(around)], axis=-1)
    grown = cv2.convexHull((hull[:, None] + circle).reshape(-1, 2).astype(np.float32))
    # Drawn in sixteenths of a pixel and blurred: a mask that steps by whole pixels would shimmer.
    drawn = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(drawn, np.rint((grown - 0.5) * 16).astype(np.int32), 255, cv2.LINE_AA, shift=4)
    return cv2.GaussianBlur(drawn.astype(np.float32) / 255, (0, 0), fade * size / 4, borderType=cv2.BORDER_REPLICATE)


def _colour_shift(face: np.ndarray, below: np.ndarray, weight: np.ndarray) -> tuple[float, ...]:
    """The difference in colour where face and frame blend, for there they should show the same: whole levels."""
    every = np.s_[:: max(1, len(weight) // 128), :: max(1, len(weight) // 128)]  # a sample of points is plenty
    ring = (weight[every] > 0.05) & (weight[every] < 0.95)
    if ring.sum() < 50:
        return 0.0, 0.0, 0.0
    return tuple(np.median(below[every][ring].astype(int) - face[every][ring], axis=0).round().tolist())


def _within(start: int, stop: int, length: int) -> tuple[int, int, int, int]:
    """(first, last + 1, missing before, missing after) of start..stop along a side; at least one pixel is within."""
    first = min(max(start, 0), length - 1)
    last = max(min(stop, length), first + 1)
    before = min(max(0, first - start), stop - start - 1)
    return first, last, before, stop - start - (last - first) - before


def _resized(image: np.ndarray, width: int, height: int, interpolation: int | None = None) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image.copy()
    if interpolation is None:
        interpolation = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)


def _ramp(length: int, feather: float, starts: bool, ends: bool) -> np.ndarray:
    """float32 weights along a side: rising over `feather` of the length if it `starts`, falling if it `ends`."""
    position = (np.arange(length) + 0.5) / length / feather
    up = _smooth_step(position) if starts else np.ones(length)
    down = _smooth_step(position[::-1]) if ends else np.ones(length)
    return (up * down).astype(np.float32)


def _smooth_step(value: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, flat at both ends."""
    value = np.clip(value, 0, 1)
    return (value * value * (3 - 2 * value)).astype(np.float32)
