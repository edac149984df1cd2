"""The 68 points of the field (iBUG 300-W order) on a synthetic head, by where they lie on the undeformed skin.

Points of the person's right side come first in each group; they are on the left of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

from ctjax.data.synthetic import face_shape as shape_of
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.skin import EyeState, brow_centre, lids

RIGHT_CORNER, LEFT_CORNER = 48, 54
OUTER_LIP, INNER_LIP = slice(48, 60), slice(60, 68)
_JAW_Y = ((0.0, 0.25, 0.5, 0.75, 1.0), (-0.955, -0.89, -0.70, -0.36, 0.05))  # height over the share of the way up
_JAW_AZIMUTH = 1.30  # the outline of the face, seen from the front
_OUTER, _INNER = np.array((-0.66, -0.30, 0.0, 0.30, 0.66)), np.array((-0.45, 0.0, 0.45))  # in half widths of the mouth
_INNER_CORNER = 0.93
_EYE_U, _EYE_LID = np.array((1, 0.4, -0.4, -1, -0.4, 0.4)), np.array((0, 1, 1, 0, -1, -1))  # from the outer corner

Places = tuple[np.ndarray, np.ndarray]  # int "n 4": points of skin around a landmark, and float "n 4": their weights


def mouth_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """bool "size size": the mouth with its lips, inside the outer lip landmarks of a picture, "68 2" in pixels."""
    mask = np.zeros((size, size), np.uint8)
    middles = (
        np.asarray(landmarks)[OUTER_LIP] - 0.5
    )  # OpenCV counts from the middle of a pixel, landmarks from its edge
    cv2.fillPoly(mask, [np.round(middles * 16).astype(np.int32)], 1, shift=4)
    return mask.astype(bool)


class Landmarks:
    """Finds the landmarks among the points of the two grids of skin, numbered row by row, the upper grid first."""

    def __init__(self, person: Identity, rest: tuple[np.ndarray, np.ndarray]):
        self._person, self._rest = person, rest
        self._upper_rows, self._columns = rest[0].shape[1:]
        self._jaw, self._nose, self._lips = self._find_jaw(), self._find_nose(), self._find_lips()

    def places(self, state: EyeState) -> Places:
        """Where the 68 are for lids and brows in `state`."""
        groups = (self._jaw, self._brows(state), self._nose, self._eyes(state), self._lips)
        indices, weights = zip(*groups, strict=True)
        return np.concatenate(indices), np.concatenate(weights)

    def _find_jaw(self) -> Places:
        way = (np.arange(17) - 8) / 8
        y = np.interp(np.abs(way), *_JAW_Y) * self._person.skull_height
        azimuth = np.sign(way) * _JAW_AZIMUTH * np.minimum(np.abs(way) / 0.4, 1)
        columns = _azimuth_columns(self._columns, azimuth)
        return self._at_rows(y, columns, y < shape_of.mouth_y(self._person))

    def _brows(self, state: EyeState) -> Places:
        across = np.linspace(0.95, -0.95, 5)  # outer end to inner end
        x = shape_of.BROW_X * self._person.eye_distance + shape_of.BROW_HALF * across
        y = brow_centre(across, state)
        return self._at(np.concatenate([-x, x[::-1]]), np.concatenate([y, y[::-1]]))

    def _find_nose(self) -> Places:
        tip, width = shape_of.NOSE_TIP_Y, self._person.nose_width
        bridge = self._at(np.zeros(4), np.linspace(0.19, tip, 4))
        base = self._at(np.linspace(-0.105, 0.105, 5) * width, tip - np.array((0.07, 0.085, 0.10, 0.085, 0.07)))
        return tuple(np.concatenate(v) for v in zip(bridge, base, strict=True))

    def _eyes(self, state: EyeState) -> Places:
        person, radius = self._person, shape_of.EYE_RADIUS * self._person.eye_size
        upper, lower = lids(_EYE_U * 0.999, state)
        v = np.select([_EYE_LID > 0, _EYE_LID < 0], [upper, lower], 0.0)
        x = shape_of.EYE_X * person.eye_distance + radius * _EYE_U
        y = shape_of.EYE_Y + person.eye_tilt * 0.1 * _EYE_U + radius * v
        left = np.array((3, 2, 1, 0, 5, 4))  # from the inner corner
        return self._at(np.concatenate([-x, x[left]]), np.concatenate([y, y[left]]))

    def _find_lips(self) -> Places:
        half, middle = shape_of.mouth_half(self._person), shape_of.mouth_y(self._person)
        up, low = shape_of.lip_heights(self._person, 0.0, _OUTER * half)
        groups = [
            self._on_seam([-half], "both"),
            self._at(_OUTER * half, middle + up),
            self._on_seam([half], "both"),
            self._at(_OUTER[::-1] * half, middle - low[::-1]),
            self._on_seam([-_INNER_CORNER * half], "both"),
            self._on_seam(_INNER * half, "upper"),
            self._on_seam([_INNER_CORNER * half], "both"),
            self._on_seam(_INNER[::-1] * half, "lower"),
        ]
        indices, weights = zip(*groups, strict=True)
        return np.concatenate(indices), np.concatenate(weights)

    def _on_seam(self, x, lip: str) -> Places:
        """On the edge of the upper or the lower lip, or halfway between."""
        x = np.asarray(x, np.float64)
        column = self._columns_at(x, np.full(len(x), self._upper_rows - 1), upper=True)
        left, share = np.floor(column).astype(int), column - np.floor(column)
        upper, lower = (self._upper_rows - 1) * self._columns + left, self._upper_rows * self._columns + left
        part = {"upper": (1.0, 0.0), "lower": (0.0, 1.0), "both": (0.5, 0.5)}[lip]
        weights = [(1 - share) * part[0], share * part[0], (1 - share) * part[1], share * part[1]]
        return np.stack([upper, upper + 1, lower, lower + 1], 1), np.stack(weights, 1)

    def _at(self, x: np.ndarray, y: np.ndarray) -> Places:
        """On the front of the skin at rest coordinates x, y."""
        below = y < shape_of.mouth_y(self._person)
        columns = np.empty(len(x))
        for flag in (False, True):
            chosen = below == flag
            rows = np.round(self._rows_at(y[chosen], flag)).astype(int)
            columns[chosen] = self._columns_at(x[chosen], rows, upper=not flag)
        return self._at_rows(y, columns, below)

    def _at_rows(self, y: np.ndarray, columns: np.ndarray, below: np.ndarray) -> Places:
        rows = np.where(below, self._rows_at(y, True), self._rows_at(y, False))
        limit = np.where(below, self._rest[1].shape[1], self._upper_rows) - 2
        top = np.clip(np.floor(rows).astype(int), 0, limit)
        left = np.clip(np.floor(columns).astype(int), 0, self._columns - 2)
        down, right = rows - top, columns - left
        first = (top + below * self._upper_rows) * self._columns + left
        indices = np.stack([first, first + 1, first + self._columns, first + self._columns + 1], 1)
        weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        return indices, np.stack(weights, 1)

    def _rows_at(self, y: np.ndarray, below: bool) -> np.ndarray:
        heights = self._rest[int(below)][1, :, self._columns // 2]
        return np.interp(-y, -heights, np.arange(len(heights)))

    def _columns_at(self, x: np.ndarray, rows: np.ndarray, *, upper: bool) -> np.ndarray:
        """Fractional columns of the front where rest x is reached, in the given rows."""
        grid = self._rest[0 if upper else 1]
        front = slice(self._columns // 5, self._columns - self._columns // 5)
        numbers = np.arange(self._columns)[front]
        return np.array([np.interp(a, grid[0, row, front], numbers) for a, row in zip(x, rows, strict=True)])


def _azimuth_columns(count: int, azimuth: np.ndarray) -> np.ndarray:
    return np.interp(azimuth, shape_of.azimuths(count), np.arange(count))
