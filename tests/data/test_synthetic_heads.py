"""Synthetic heads: what is said of a picture is what is in it."""

from importlib import resources

import cv2
import numpy as np
import pytest

from ctjax.data.synthetic import example
from ctjax.data.synthetic.articulation import Mouth, mouth_curves
from ctjax.data.synthetic.head import Gesture, Head, rotation
from ctjax.data.synthetic.identity import draw_identity
from ctjax.data.synthetic.landmarks import mouth_mask
from ctjax.data.synthetic.speech import Phoneme
from ctjax.motion.head_pose import rotation_matrix

SIZE = 128
EYES, NOSE_TIP, CHIN = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47)), 30, 8
PEOPLE = (2, 5, 11)


def mouth(jaw, **controls):
    return Mouth(*(controls.get(name, jaw if name == "jaw" else 0.0) for name in Mouth._fields))


@pytest.fixture(scope="module", params=PEOPLE)
def head(request):
    return Head(draw_identity(request.param), SIZE)


def test_a_picture_does_not_depend_on_what_was_drawn_before(head):
    still = mouth(0.2), Gesture(yaw_deg=12)
    first, truth = head.draw(*still)
    other, _ = head.draw(mouth(1.0, rounding=0.5), Gesture(blink=1, brows=1, pitch_deg=-15))
    again, same = head.draw(*still)
    fresh, _ = Head(head.person, SIZE).draw(*still)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, fresh)
    np.testing.assert_array_equal(truth.landmarks, same.landmarks)
    assert np.abs(first.astype(int) - other).mean() > 2


@pytest.mark.parametrize("gesture", [Gesture(), Gesture(yaw_deg=25, pitch_deg=-8), Gesture(yaw_deg=-20, scale=0.9)])
def test_the_aperture_is_the_height_of_the_opening_in_the_picture(head, gesture):
    for jaw in (0.25, 0.6, 1.0):
        _, truth, opening = head.draw_with_mask(mouth(jaw), gesture)
        middle = (truth.landmarks[62] + truth.landmarks[66]) / 2
        column = opening[:, int(middle[0])]
        np.testing.assert_allclose(column.sum(), truth.aperture_px, atol=1.6)
        assert (opening * ~mouth_mask(truth.landmarks, SIZE)).sum() < 0.05 * opening.sum()
        rows = np.flatnonzero(column > 0.5)
        assert truth.landmarks[62, 1] - 1.5 <= rows[0] and rows[-1] <= truth.landmarks[66, 1] + 1.5


def test_the_aperture_grows_with_the_jaw_and_the_width_with_its_control(head):
    apertures = [head.draw(mouth(jaw), Gesture())[1].aperture_px for jaw in (0, 0.2, 0.5, 1)]
    assert apertures[0] == 0 and (np.diff(apertures) > 0.8).all()
    widths = [head.draw(mouth(0.3, width=width), Gesture())[1].mouth_width_px for width in (-1, 0, 1)]
    assert (np.diff(widths) > 1).all()


@pytest.mark.parametrize("closing", ["m", "b", "p"])
def test_lips_close_on_sounds_that_close_them(head, closing):
    names = ("a", closing, "a", closing, "o")
    phonemes = tuple(Phoneme(name, 0.09 * i, 0.09 * (i + 1)) for i, name in enumerate(names))
    curves = mouth_curves(phonemes, np.array([0.135, 0.045]))
    closed, opened = (Mouth(*values) for values in zip(*curves, strict=True))
    _, shut, opening = head.draw_with_mask(closed, Gesture(yaw_deg=10))
    _, wide, _ = head.draw_with_mask(opened, Gesture(yaw_deg=10))
    assert shut.aperture_px < 0.05 * wide.aperture_px and opening.sum() < 1.0
    assert wide.aperture_px > 5


def test_signs_of_the_pose(head):
    def points(**pose):
        return head.draw(mouth(0.0), Gesture(**pose))[1].landmarks

    front = points()
    eyes = [front[list(eye)].mean(axis=0) for eye in EYES]
    assert eyes[0][0] < front[NOSE_TIP, 0] < eyes[1][0] and front[NOSE_TIP, 1] < front[CHIN, 1]
    turned = points(yaw_deg=20)
    assert turned[NOSE_TIP, 0] - front[NOSE_TIP, 0] > 5  # to the right of the picture
    assert front[NOSE_TIP, 1] - points(pitch_deg=15)[NOSE_TIP, 1] > 3  # up
    tilted = points(roll_deg=10)
    slope = tilted[list(EYES[1])].mean(axis=0) - tilted[list(EYES[0])].mean(axis=0)
    np.testing.assert_allclose(np.degrees(np.arctan2(slope[1], slope[0])), 10, atol=1.5)  # clockwise


def test_the_pose_is_the_projects_with_y_turned_over():
    gesture = Gesture(yaw_deg=21, pitch_deg=-9, roll_deg=7)
    turn_y = np.diag([1.0, -1.0, 1.0])
    ours = turn_y @ rotation(gesture) @ turn_y
    theirs = np.asarray(rotation_matrix(*(np.float32([a]) for a in (21, -9, 7))))[0]
    np.testing.assert_allclose(ours, theirs, atol=5e-4)  # the project's pi is 3.14


def test_blinks_close_the_eyes(head):
    def height(blink):
        points = head.draw(mouth(0.0), Gesture(blink=blink))[1].landmarks
        return (points[[40, 41, 46, 47], 1] - points[[38, 37, 44, 43], 1]).mean()

    assert height(0) > 3 * max(height(1), 0.1)


def test_people_differ():
    faces = [Head(draw_identity(seed), 64).draw(mouth(0.0), Gesture())[0].astype(float) for seed in range(8)]
    differences = [np.abs(a - b).mean() for i, a in enumerate(faces) for b in faces[:i]]
    assert min(differences) > 10


def test_the_bundled_portrait_is_the_scripts():
    file = resources.files("ctjax.infer") / "assets" / "portrait.png"
    bundled = cv2.cvtColor(
        cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    assert np.abs(bundled.astype(int) - example.portrait()).mean() < 0.5
