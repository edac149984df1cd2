"""Finding faces in a picture: BlazeFace (short range) on OpenCV's network runtime.

Source of the network: Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs".
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.faces.models import DETECTOR, ModelFile, path_of
from ctjax.types import Box

INPUT = 128
GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell: 896 anchors in all
SCORE_THRESHOLD = 0.5
OVERLAP = 0.3  # detections that share more than this (intersection over union) are the same face
NEAR = 3.0  # side of the part searched around a box, over the box's longer side
# Parts of the picture, as shares of its longer side, searched for faces too small for the whole.
TILE_SHARES = (0.5, 0.25)


class Detection(NamedTuple):
    """score in [0, 1]; box in pixels; keypoints float32 "6 2": the person's right eye, left eye, nose, mouth, ears."""

    score: float
    box: Box
    keypoints: np.ndarray


def open_network(model: ModelFile) -> cv2.dnn.Net:
    path = str(path_of(model))
    if hasattr(cv2.dnn, "ENGINE_CLASSIC"):  # OpenCV 5: its new engine returns only one of a model's outputs
        return cv2.dnn.readNetFromTFLite(path, cv2.dnn.ENGINE_CLASSIC)
    return cv2.dnn.readNetFromTFLite(path)


class FaceDetector:
    """BlazeFace. Raises: FaceModelError if its file cannot be had."""

    def __init__(self, threshold: float = SCORE_THRESHOLD):
        self.threshold = threshold
        self._net = open_network(DETECTOR)
        self._anchors = _anchors()

    def detect(self, image_u8: np.ndarray) -> list[Detection]:
        """Faces in uint8 "h w 3" RGB, best score first; those below a tenth of the picture's longer side are missed."""
        return _merged(self._detect_in(image_u8, 0, 0))

    def detect_small(self, image_u8: np.ndarray) -> list[Detection]:
        """As `detect`, in overlapping parts of the picture: faces down to a thirtieth of it, at 60 times the work."""
        found = []
        for x, y, size in _tiles(*image_u8.shape[:2]):
            found += self._detect_in(image_u8[y : y + size, x : x + size], x, y)
        return _merged(found)

    def detect_near(self, image_u8: np.ndarray, box: Box) -> list[Detection]:
        """As `detect`, in the part of the picture around `box` only: for a face that was there before."""
        height, width = image_u8.shape[:2]
        reach = NEAR * max(box.width, box.height) / 2
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        x0, x1 = (int(min(max(v, 0), width)) for v in (x - reach, x + reach))
        y0, y1 = (int(min(max(v, 0), height)) for v in (y - reach, y + reach))
        if x1 - x0 < 2 or y1 - y0 < 2:
            return []
        return _merged(self._detect_in(image_u8[y0:y1, x0:x1], x0, y0))

    def _detect_in(self, image: np.ndarray, x: int, y: int) -> list[Detection]:
        """Detections above the threshold in a part of a picture whose corner is (x, y), not yet merged."""
        square, scale, left, top = _letterboxed(image)
        self._net.setInput((square.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
        logits, values = self._net.forward(["classificators", "regressors"])
        scores = 0.5 + 0.5 * np.tanh(logits[0, :, 0] / 2)  # the sigmoid, without overflow
        keep = np.flatnonzero(scores > self.threshold)
        # Eight (x, y) pairs in input pixels: centre, size, six keypoints; all but the size relative to the anchor.
        points = values[0, keep].reshape(-1, 8, 2) / INPUT
        points[:, [0, 2, 3, 4, 5, 6, 7]] += self._anchors[keep, None]
        points = points * INPUT
        points[:, [0, 2, 3, 4, 5, 6, 7]] -= (left, top)
        points /= scale
        found = []
        for score, (centre, size, *keypoints) in zip(scores[keep], points, strict=True):
            low, high = centre - size / 2, centre + size / 2
            box = Box(low[0] + x, low[1] + y, high[0] + x, high[1] + y)
            found.append(Detection(float(score), box, np.float32(keypoints) + np.float32((x, y))))
        return found


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (a.width * a.height + b.width * b.height - width * height)


def _merged(found: list[Detection]) -> list[Detection]:
    """One detection a face: the mean of those that overlap, weighted by their scores (as the authors do it)."""
    left = sorted(found, key=lambda detection: -detection.score)
    faces = []
    while left:
        same = [d for d in left if overlap(d.box, left[0].box) > OVERLAP]
        weights = np.array([d.score for d in same]) / sum(d.score for d in same)
        box = Box(*np.tensordot(weights, [d.box for d in same], axes=1))
        keypoints = np.tensordot(weights, [d.keypoints for d in same], axes=1).astype(np.float32)
        faces.append(Detection(left[0].score, box, keypoints))
        left = [d for d in left if overlap(d.box, left[0].box) <= OVERLAP]
    return faces


def _letterboxed(image: np.ndarray) -> tuple[np.ndarray, float, int, int]:
    """The picture in a square of the network's size on black; its scale, left and top margin there."""
    height, width = image.shape[:2]
    scale = INPUT / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # Averaging areas, not sampling points: grain then costs no detections.
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (INPUT - size[0]) // 2, (INPUT - size[1]) // 2
    square = np.zeros((INPUT, INPUT, 3), np.uint8)
    square[top : top + size[1], left : left + size[0]] = small
    return square, scale, left, top


def _tiles(height: int, width: int) -> list[tuple[int, int, int]]:
    """(x, y, size) of overlapping squares that cover a picture at each of TILE_SHARES."""
    found = []
    for share in TILE_SHARES:
        size = round(max(height, width) * share)
        if size < INPUT // 2:
            continue
        xs, ys = (_starts(length, size) for length in (width, height))
        found += [(x, y, size) for y in ys for x in xs]
    return found


def _starts(length: int, size: int) -> list[int]:
    """Where squares begin along one side so that neighbours overlap by half."""
    if length <= size:
        return [0]
    count = -(-2 * (length - size) // size) + 1
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def _anchors() -> np.ndarray:
    """float32 "896 2": the cell centres, in shares of the input, each as often as its grid has anchors a cell."""
    centres = []
    for cells, repeats in GRIDS:
        y, x = np.mgrid[:cells, :cells]
        centres.append(np.repeat((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells, repeats, axis=0))
    return np.concatenate(centres).astype(np.float32)
