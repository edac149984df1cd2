"""The faces of one clip: 68 landmarks and a box per frame, and the square crop that stands for the whole clip.

Landmarks are those of each frame by itself, not smoothed over time: jitter is something to measure here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ctjax.evaluate.landmark_distance import CROP_SIDE
from ctjax.faces.boxes import INCREASE, centre, extents, face_box, square_around, whole_pixels
from ctjax.faces.crop import crop
from ctjax.faces.find import FaceFinder, Finder, choose
from ctjax.faces.landmarks import Mesh, to_68
from ctjax.types import Box, UserError

SLOW_SEARCH_FRAMES = 25  # how often small faces are searched for while none has been seen yet


class Face(NamedTuple):
    """landmarks: "68 2" in pixels of the frame. box: x0, y0, x1, y1 as a detector of whole faces would draw it."""

    landmarks: np.ndarray
    box: np.ndarray


# RGB frames -> the main face of each. Results are cached only for one that has an `identity`, a name for what it finds.
FindFaces = Callable[[Iterable[np.ndarray]], Iterator[Face | None]]


class Crop(NamedTuple):
    """A square of the frame, brought to 256 px."""

    box: Box

    def cut(self, frame_u8: np.ndarray) -> np.ndarray:
        """uint8 "256 256 3"; the frame's edge is repeated beyond it."""
        return crop(frame_u8, self.box, int(CROP_SIDE))

    def place(self, points: np.ndarray) -> np.ndarray:
        """Points "... 2" of the frame in pixels of the crop."""
        return (points - np.array(self.box[:2])) * (CROP_SIDE / self.box.width)


class FaceSeries(NamedTuple):
    """landmarks: float32 "t 68 2". boxes: float32 "t 4". NaN where no face was found."""

    landmarks: np.ndarray
    boxes: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """bool "t"."""
        return np.isfinite(self.boxes).all(1)

    def crop(self) -> Crop:
        """One square for the whole clip: around the median box, with the margin that is rendered.

        Raises `UserError` where no frame has a face.
        """
        if not self.found.any():
            raise UserError("no face was found in any frame")
        median = Box(*np.median(self.boxes[self.found], axis=0).tolist())
        return Crop(whole_pixels(square_around(median, INCREASE)))


def find_series(frames: Iterable[np.ndarray], find: FindFaces) -> FaceSeries:
    """The faces of a clip's frames in order; about 0.6 kB a frame is all that is kept."""
    landmarks, boxes = [], []
    for face in find(frames):
        landmarks.append(np.full((68, 2), np.nan, np.float32) if face is None else np.float32(face.landmarks))
        boxes.append(np.full(4, np.nan, np.float32) if face is None else np.float32(face.box))
    if not boxes:
        raise UserError("the clip has no frames")
    return FaceSeries(np.stack(landmarks), np.stack(boxes))


class MainFace:
    """`FindFaces` by this project's finder: the largest face, followed from frame to frame.

    Once lost it is sought near its last place, where even a small one is found, and then anywhere. Raises
    `FaceModelError` if the networks' files cannot be had.
    """

    def __init__(self, finder: Finder | None = None):
        self.finder = finder or FaceFinder()
        self.identity = "main face" if finder is None else None

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[Face | None]:
        finder = self.finder
        mesh = last = None
        for index, frame in enumerate(frames):
            mesh = None if mesh is None else finder.follow(frame, mesh)
            if mesh is None and last is not None:
                mesh = _nearest(finder.find_near(frame, extents(last.points)), last)
            if mesh is None:
                slow = last is None and index % SLOW_SEARCH_FRAMES == 0
                faces = finder.find(frame) or (finder.find(frame, small=True) if slow else [])
                mesh = choose(faces) if faces else None
            last = mesh or last
            yield None if mesh is None else Face(to_68(mesh.points), np.array(face_box(mesh.points)))


def _nearest(faces: Sequence[Mesh], last: Mesh) -> Mesh | None:
    """The face whose middle is nearest to that of `last`."""
    place = centre(extents(last.points))
    return min(faces, key=lambda mesh: math.dist(centre(extents(mesh.points)), place), default=None)
