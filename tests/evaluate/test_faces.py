"""Which face is scored, with a stand-in for the networks."""

import math

import numpy as np
import pytest

from ctjax.evaluate.faces import MainFace
from ctjax.faces.boxes import centre, extents
from ctjax.faces.landmarks import Mesh

SMALL = 20  # sides up to this are found by a slow search, or near a place


class Drawn:
    """Finds the squares (x, y, side) that a frame lists; follows none."""

    def find(self, frame, *, small=False):
        return [_mesh(*face) for face in frame if small or face[2] > SMALL]

    def find_near(self, frame, box):
        near = [_mesh(*face) for face in frame]
        return [m for m in near if math.dist(centre(extents(m.points)), centre(box)) < 1.5 * box.width]

    def follow(self, frame, previous):
        return None


def _mesh(x, y, side):
    spread = np.linspace(0, 1, 468)
    points = np.stack([x + spread * side, y + spread * side, 0 * spread], axis=-1)
    return Mesh(1.0, points.astype(np.float32))


def _lefts(frames):
    return [None if face is None else round(float(face.box[0])) for face in MainFace(Drawn())(frames)]


def test_a_small_face_is_found_again():
    frames = [[(50, 50, 16)], [], [(54, 50, 16)], [], [], [(58, 50, 16)]]
    assert _lefts(frames) == [50, None, 54, None, None, 58]


def test_the_same_face_is_taken_again_and_not_a_larger_one():
    large, other = (300, 100, 80), (40, 50, 30)
    assert _lefts([[(50, 50, 30)], [(56, 50, 30), large], [(58, 50, 30), other, large], [large]]) == [50, 56, 58, 300]


@pytest.mark.parametrize(("finder", "named"), [(None, True), (Drawn(), False)])
def test_only_this_project_s_own_finder_has_a_name(finder, named, monkeypatch):
    monkeypatch.setattr("ctjax.evaluate.faces.FaceFinder", Drawn)
    assert bool(MainFace(finder).identity) == named
