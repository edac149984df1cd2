"""All faces of a picture with their landmarks, and the choice of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ctjax.faces.boxes import centre, extents
from ctjax.faces.detect import OVERLAP, FaceDetector, overlap
from ctjax.faces.landmarks import FaceMesh, Mesh, region_of_detection, region_of_mesh
from ctjax.types import Box, UserError

PRESENCE = 0.5  # true faces score above 0.99, hands, folds of cloth and cats below 0.2
_PASSES = 2  # a second look, at the region the first found, halves the error of the first


class NoFaceError(UserError):
    """No face, or not the one asked for. The message is one line meant for the user and says where was searched."""


class Finder(Protocol):
    """What the tracker needs of a face finder."""

    def find(self, image_u8: np.ndarray, *, small: bool = False) -> list[Mesh]:
        """Faces of uint8 "h w 3" RGB from left to right; small: with a slow search for small ones."""

    def find_near(self, image_u8: np.ndarray, box: Box) -> list[Mesh]:
        """Faces around a place where one was before."""

    def follow(self, image_u8: np.ndarray, previous: Mesh) -> Mesh | None:
        """The face that was at `previous` a frame ago, or None."""


class FaceFinder:
    """`Finder` by BlazeFace and the face mesh. Raises: FaceModelError if their files cannot be had."""

    def __init__(self):
        self._detector = FaceDetector()
        self._mesh = FaceMesh()

    def find(self, image_u8: np.ndarray, *, small: bool = False) -> list[Mesh]:
        found = self._detector.detect(image_u8)
        if small:
            found = found + self._detector.detect_small(image_u8)
        return self._meshes(image_u8, found)

    def find_near(self, image_u8: np.ndarray, box: Box) -> list[Mesh]:
        return self._meshes(image_u8, self._detector.detect_near(image_u8, box))

    def follow(self, image_u8: np.ndarray, previous: Mesh) -> Mesh | None:
        mesh = self._mesh.fit(image_u8, region_of_mesh(previous.points))
        return mesh if _is_face(mesh) and overlap(extents(mesh.points), extents(previous.points)) > OVERLAP else None

    def _meshes(self, image_u8, detections) -> list[Mesh]:
        fitted = (self._mesh.fit(image_u8, region_of_detection(found), _PASSES) for found in detections)
        kept: list[Mesh] = []
        for mesh in fitted:
            if _is_face(mesh) and not any(_one_in_the_other(mesh, other) for other in kept):
                kept.append(mesh)
        return sorted(kept, key=lambda mesh: centre(extents(mesh.points))[0])


def find_face(finder: Finder, image_u8: np.ndarray, which: int | None = None, name: str = "the picture") -> Mesh:
    """The face of a still picture: the largest, or number `which` from the left (0 is the leftmost).

    Small faces are searched for only where there is no other, or not enough. Raises: NoFaceError.
    """
    faces = finder.find(image_u8)
    if not enough(faces, which):
        faces = finder.find(image_u8, small=True)
    if not enough(faces, which):
        raise NoFaceError(f"{name}: {shortage(len(faces), which)}; --box sets the place by hand")
    return choose(faces, which)


def choose(faces: Sequence[Mesh], which: int | None = None) -> Mesh:
    """Of faces from left to right: number `which`, or the largest."""
    if which is not None:
        return faces[which]
    return max(faces, key=lambda mesh: extents(mesh.points).width * extents(mesh.points).height)


def enough(faces: Sequence[Mesh], which: int | None) -> bool:
    return len(faces) > (which or 0)


def shortage(most: int, which: int | None) -> str:
    """What to say where no picture showed the face asked for, `most` being the most faces in any."""
    if most == 0:
        return "no face found"
    return f"face {which} (from the left, counting from 0) asked for, but there are only {most}"


def _is_face(mesh: Mesh) -> bool:
    return mesh.presence > PRESENCE and bool(np.isfinite(mesh.points).all())


def _one_in_the_other(a: Mesh, b: Mesh) -> bool:
    """Two detections may lead to one face, and an open mouth or an eye, looked at closely, passes for a face."""
    first, second = extents(a.points), extents(b.points)
    return any(
        outer.x0 < x < outer.x1 and outer.y0 < y < outer.y1
        for outer, (x, y) in ((first, centre(second)), (second, centre(first)))
    )
