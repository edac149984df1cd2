"""The face networks on drawn faces whose features lie where the drawing put them."""

import cv2
import numpy as np
import pytest
from clips import cartoon

from ctjax.faces.boxes import crop_box, extents, face_box
from ctjax.faces.detect import FaceDetector, overlap
from ctjax.faces.find import NoFaceError, choose, find_face
from ctjax.faces.landmarks import MESH_TO_68, region_of_mesh, to_68
from ctjax.types import Box


def features(x, y, size):
    """Where `cartoon` draws (right eye, left eye, mouth) of a face, "3 2"."""
    unit = size / 200
    return np.array([[x - 31 * unit, y - 18 * unit], [x + 31 * unit, y - 18 * unit], [x, y + 58 * unit]])


def found_features(points):
    landmarks = to_68(points)
    return np.array([landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0), landmarks[48:60].mean(axis=0)])


@pytest.mark.parametrize("face", [(160, 120, 120), (90, 100, 80), (230, 140, 150), (160, 120, 210)])
def test_landmarks_lie_where_the_features_are(face_finder, face):
    (mesh,) = face_finder.find(cartoon(faces=[face]))
    assert mesh.presence > 0.9
    assert mesh.points.shape == (468, 3)
    assert np.abs(found_features(mesh.points) - features(*face)).max() < 0.04 * face[2]


def test_the_face_is_found_at_any_size_of_the_picture(face_finder):
    small = cartoon()
    (reference,) = face_finder.find(small)
    for scale in (0.5, 3.0):
        picture = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        (mesh,) = face_finder.find(picture)
        assert np.abs(mesh.points[:, :2] / scale - reference.points[:, :2]).max() < 4


def test_half_pixels_are_right(face_finder):
    """A shift by whole pixels shifts the landmarks by as much; mirroring mirrors them."""
    picture = cartoon()
    (mesh,) = face_finder.find(picture)
    rolled = np.roll(picture, (7, -11), axis=(0, 1))
    (shifted,) = face_finder.find(rolled)
    assert np.abs(shifted.points[:, :2] - mesh.points[:, :2] - (-11, 7)).mean() < 0.5
    (mirrored,) = face_finder.find(np.ascontiguousarray(picture[:, ::-1]))
    eyes, mirrored_eyes = found_features(mesh.points)[:2], found_features(mirrored.points)[:2]
    assert np.abs(mirrored_eyes[::-1] * (-1, 1) + (320, 0) - eyes).max() < 1.5


def test_an_open_mouth_opens_the_lips(face_finder):
    gaps = []
    for mouth_open in (0.0, 0.5, 1.0):
        landmarks = to_68(face_finder.find(cartoon(mouth_open=mouth_open))[0].points)
        gaps.append(landmarks[66, 1] - landmarks[62, 1])
    assert gaps[0] < gaps[1] < gaps[2]
    assert gaps[2] > gaps[0] + 5


def test_a_turned_head_is_followed(face_finder):
    picture = cartoon()
    for degrees in (-30, 30):
        turn = cv2.getRotationMatrix2D((160, 120), degrees, 1.0)
        (mesh,) = face_finder.find(cv2.warpAffine(picture, turn, (320, 240), borderMode=cv2.BORDER_REPLICATE))
        want = features(160, 120, 120) @ turn[:, :2].T + turn[:, 2]
        assert np.abs(found_features(mesh.points) - want).max() < 7


def test_faces_come_from_left_to_right_and_the_largest_is_the_default(face_finder):
    picture = cartoon(faces=[(230, 120, 90), (90, 120, 120)])
    faces = face_finder.find(picture)
    assert [round(extents(face.points).x0) < 160 for face in faces] == [True, False]
    assert choose(faces) is faces[0]
    assert choose(faces, 1) is faces[1]
    assert abs(find_face(face_finder, picture, 1).points[4, 0] - 230) < 8
    with pytest.raises(NoFaceError, match=r"face 2 .*only 2"):
        find_face(face_finder, picture, 2)


def test_no_face_is_an_error_that_names_the_picture(face_finder):
    for picture in (cartoon(faces=[]), np.zeros((64, 64, 3), np.uint8), np.full((480, 20, 3), 255, np.uint8)):
        with pytest.raises(NoFaceError, match=r"sky\.png: no face found; --box"):
            find_face(face_finder, picture, name="sky.png")


def test_a_small_face_is_found_by_the_slow_search(face_finder):
    picture = cartoon(480, 640, faces=[(500, 100, 48)])
    assert face_finder.find(picture) == []
    mesh = find_face(face_finder, picture)
    assert np.abs(found_features(mesh.points) - features(500, 100, 48)).max() < 4


def test_the_search_near_a_place_finds_small_faces_too(face_finder):
    picture = cartoon(480, 640, faces=[(500, 100, 48)])
    (mesh,) = face_finder.find_near(picture, Box(470, 70, 520, 120))
    assert np.abs(found_features(mesh.points) - features(500, 100, 48)).max() < 4
    assert face_finder.find_near(picture, Box(-900, -900, -800, -800)) == []


def test_a_moving_face_is_followed_and_a_vanished_one_is_not(face_finder):
    (mesh,) = face_finder.find(cartoon())
    moved = face_finder.follow(cartoon(faces=[(166, 117, 123)]), mesh)
    assert np.abs(found_features(moved.points) - features(166, 117, 123)).max() < 6
    assert face_finder.follow(cartoon(faces=[]), mesh) is None


def test_the_detectors_box_agrees_with_the_landmarks(face_finder):
    picture = cartoon()
    (detection,) = FaceDetector().detect(picture)
    (mesh,) = face_finder.find(picture)
    assert detection.score > 0.8
    assert overlap(detection.box, extents(mesh.points)) > 0.6
    region = region_of_mesh(mesh.points)
    assert abs(region.angle_rad) < 0.1
    box = crop_box(mesh.points)
    assert box.x0 < face_box(mesh.points).x0
    assert box.width == box.height


def test_the_table_of_68_points_is_whole_and_symmetric(face_finder):
    assert len(MESH_TO_68) == len(set(MESH_TO_68)) == 68
    assert all(0 <= index < 468 for index in MESH_TO_68)
    (mesh,) = face_finder.find(cartoon())
    landmarks = to_68(mesh.points)
    pairs = [*((i, 16 - i) for i in range(8)), *((17 + i, 26 - i) for i in range(5)), (31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52), (60, 64)]
    right, left = np.array(pairs).T
    middle = (landmarks[right, 0] + landmarks[left, 0]) / 2
    assert np.abs(middle - 160).max() < 5  # the drawing is symmetric about x = 160
    assert np.abs(landmarks[right, 1] - landmarks[left, 1]).max() < 6
    assert (np.diff(landmarks[:9, 1]) > 0).all()  # down the jaw to the chin
    assert (np.diff(landmarks[27:31, 1]) > 0).all()  # down the bridge of the nose
    assert landmarks[8, 1] == landmarks[:, 1].max()
