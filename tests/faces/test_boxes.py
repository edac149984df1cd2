"""Boxes from landmarks and boxes by hand."""

import numpy as np
import pytest

from ctjax.faces.boxes import crop_box, extents, face_box, square_around, user_box, whole_pixels
from ctjax.types import Box

POINTS = np.array([[10.0, 20.0, 0.0], [40.0, 60.0, 5.0], [25.0, 100.0, -5.0]])


def test_the_face_box_reaches_above_the_landmarks():
    assert extents(POINTS) == Box(10, 20, 40, 100)
    assert face_box(POINTS) == Box(10, 20 - 0.09 * 80, 40, 100)


def test_the_crop_is_the_longer_side_with_a_margin_around_the_middle():
    side = round(80 * 1.09 * 1.4)
    box = crop_box(POINTS)
    assert box.width == box.height == side
    assert abs((box.x0 + box.x1) / 2 - 25) <= 0.5
    assert abs((box.y0 + box.y1) / 2 - (100 + 20 - 0.09 * 80) / 2) <= 0.5


def test_a_box_near_the_edge_stays_square_and_keeps_its_middle():
    box = square_around(Box(-5, -9, 95, 111), 0.2)
    assert (box.width, box.height) == (168, 168)
    assert box.x0 < 0
    assert (box.x0 + box.x1, box.y0 + box.y1) == (90, 102)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.75])
def test_rounding_keeps_squares_square(shift):
    for side in (10.0, 10.4, 10.5, 11.49):
        box = whole_pixels(Box(3 + shift, -7.3 + shift, 3 + shift + side, -7.3 + shift + side))
        assert box.width == box.height == round(side)
        assert all(value == int(value) for value in box)
        assert abs(box.x0 - 3 - shift) <= 0.5


def test_a_box_by_hand_becomes_the_square_around_it():
    assert user_box((10, 20, 30, 60), (100, 100)) == Box(0, 20, 40, 60)
    assert user_box((-10, -10, 50, 50), (100, 100)) == Box(-10, -10, 50, 50)


@pytest.mark.parametrize(
    "numbers",
    [
        (10, 10, 10, 50),
        (50, 10, 10, 50),
        (200, 0, 300, 50),
        (-50, -50, -1, -1),
        (0, 0, float("nan"), 5),
        (1, 2, 3),
        (0, 0, 1e5, 1e5),
        (0, 0, 1e9, 10),
    ],
)
def test_a_box_that_makes_no_sense_is_refused_in_one_line(numbers):
    with pytest.raises(ValueError, match="box") as error:
        user_box(numbers, (100, 100))
    assert "\n" not in str(error.value)
