"""Mirrored pairs of frames: landmarks change sides with the picture."""

import sys
from pathlib import Path

import numpy as np

from ctjax.data.frame_pairs import FramePairs
from ctjax.data.records import ClipInfo
from ctjax.faces.landmarks import MIRRORED_68

sys.path.insert(0, str(Path(__file__).parent))
from toy_records import SIZE, draw_face

LOOK = {"background": (20, 40, 60), "skin": (200, 160, 140), "lips": (180, 60, 60)}


class DrawnClips:
    """One clip of two drawn faces, the mouth closed and open; the faces look the same from either side."""

    image_size = SIZE
    clips = (ClipInfo("a", "a", "train", 2),)

    def __init__(self):
        self._images, self._landmarks = zip(*(draw_face(opening, LOOK) for opening in (0.1, 0.9)), strict=True)

    def __contains__(self, name):
        return name == "landmarks"

    def __getitem__(self, key):
        return np.stack(self._landmarks) if key == "landmarks" else self

    def images(self, frames):
        return np.stack([self._images[frame] for frame in frames])


def test_mirroring_twice_changes_nothing():
    assert sorted(MIRRORED_68) == list(range(68))
    assert [MIRRORED_68[MIRRORED_68[i]] for i in range(68)] == list(range(68))


def test_landmarks_of_a_symmetric_face_are_the_same_mirrored():
    pairs = FramePairs(DrawnClips(), np.array([0]), landmarks=True)
    plain, mirrored = (pairs.pair(0, 0, 1, mirrored=mirrored) for mirrored in (False, True))
    for name in ("source_landmarks", "driving_landmarks"):
        assert plain[name].shape == (68, 2)
        np.testing.assert_allclose(mirrored[name], plain[name], atol=1e-6)
    middle = plain["source_landmarks"][[27, 33]].mean(0)  # the nose, around the edge between the two middle pixels
    assert abs(middle[0]) < 1e-6
    np.testing.assert_array_equal(*(pair["driving_inner_mouth"].sum() for pair in (plain, mirrored)))
    np.testing.assert_array_equal(mirrored["driving_u8"], plain["driving_u8"][:, ::-1])
    opening = [pair["driving_landmarks"][66, 1] - pair["driving_landmarks"][62, 1] for pair in (plain, mirrored)]
    assert opening[0] > 0.2
    np.testing.assert_allclose(*opening, atol=1e-6)
