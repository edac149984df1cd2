"""Cropping and pasting back: geometry exact, borders invisible."""

import cv2
import numpy as np
import pytest

from ctjax.faces.crop import crop, edge_mask, face_mask, mouth_mask, paste
from ctjax.types import Box


def picture(height=120, width=160, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def circle_points(x, y, radius, count=40):
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=-1)


@pytest.mark.parametrize("box", [Box(10, 20, 74, 84), Box(0, 0, 64, 64), Box(96, 56, 160, 120)])
def test_a_crop_of_its_own_size_is_the_part_itself(box):
    image = picture()
    got = crop(image, box, 64)
    np.testing.assert_array_equal(got, image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)])
    got[:] = 0
    assert image.any()  # a copy, not a view


@pytest.mark.parametrize(
    "box", [Box(-20, -30, 44, 34), Box(130, 90, 194, 154), Box(-10, 30, 54, 94), Box(300, 20, 364, 84)]
)
def test_beyond_the_frame_its_edge_is_repeated(box):
    image = picture()
    padded = np.pad(image, ((400, 400), (400, 400), (0, 0)), mode="edge")
    x, y = int(box.x0) + 400, int(box.y0) + 400
    np.testing.assert_array_equal(crop(image, box, 64), padded[y : y + 64, x : x + 64])


def test_shrinking_averages():
    image = np.zeros((64, 64, 3), np.uint8)
    image[::2] = 200  # stripes that point sampling would turn into noise
    assert np.abs(crop(image, Box(0, 0, 64, 64), 16).astype(int) - 100).max() <= 1


@pytest.mark.parametrize(
    "box", [Box(30, 20, 94, 84), Box(-20, -10, 44, 54), Box(100, 60, 190, 150), Box(0, 0, 160, 160)]
)
@pytest.mark.parametrize("match_colour", [False, True])
def test_pasting_the_crop_itself_changes_nothing(box, match_colour):
    frame = picture()
    face = crop(frame, box, int(box.width))
    got = paste(frame, face, box, match_colour=match_colour)
    assert np.abs(got.astype(int) - frame).max() <= 1


def test_the_frame_outside_the_box_and_the_input_are_untouched():
    frame = picture()
    before = frame.copy()
    got = paste(frame, np.full((64, 64, 3), 255, np.uint8), Box(40, 30, 104, 94), match_colour=False)
    np.testing.assert_array_equal(frame, before)
    outside = np.ones(frame.shape[:2], bool)
    outside[30:94, 40:104] = False
    np.testing.assert_array_equal(got[outside], frame[outside])
    assert (got[45:80, 55:90] == 255).all()


def test_the_pasted_face_has_no_border():
    """Steps across the sides of the box are no larger than the fade itself makes them."""
    frame = np.full((200, 200, 3), 60, np.uint8)
    got = paste(frame, np.full((128, 128, 3), 200, np.uint8), Box(36, 36, 164, 164), match_colour=False).astype(int)
    for axis in (0, 1):
        assert np.abs(np.diff(got, axis=axis)).max() <= np.ceil(140 * 1.5 / (0.12 * 128)) + 1


def test_a_side_on_the_frames_edge_does_not_fade():
    mask = edge_mask(Box(0, -10, 100, 90), (120, 160))
    assert (mask[0:70, 0] == 1).all()
    assert mask[50, -1] < 0.01
    assert mask[-1, 0] < 0.01
    assert (edge_mask(Box(0, 0, 160, 120), (120, 160)) == 1).all()
    inside = edge_mask(Box(20, 20, 100, 100), (120, 160))
    assert inside[0].max() < 0.01
    np.testing.assert_allclose(inside, inside[::-1, ::-1], atol=1e-6)


def test_a_constant_difference_in_colour_is_taken_away():
    frame = picture()
    box = Box(30, 20, 94, 84)
    tinted = np.clip(crop(frame, box, 64).astype(int) // 2 + (60, 45, 30), 0, 255).astype(np.uint8)
    plain = frame.copy()
    plain[20:84, 30:94] = np.clip(crop(frame, box, 64).astype(int) // 2 + 40, 0, 255)
    got = paste(plain, tinted, box).astype(int)
    assert np.abs(got - plain).max() <= 1
    untouched = paste(plain, tinted, box, match_colour=False).astype(int)
    assert np.abs(untouched - plain).max() >= 15


def test_a_box_wholly_outside_leaves_the_frame():
    frame = picture()
    np.testing.assert_array_equal(paste(frame, frame[:64, :64], Box(500, 500, 564, 564)), frame)


def test_the_face_mask_covers_the_face_and_no_more():
    points = circle_points(100, 80, 30)
    mask = face_mask(points, Box(40, 20, 160, 140), 256, grow=0.05, fade=0.05)
    y, x = np.mgrid[:256, :256]
    distance = np.hypot(x + 0.5 - 128, y + 0.5 - 128) / 256 * 120 - 30  # pixels of the frame beyond the landmarks
    assert mask.dtype == np.float32
    assert mask[distance < 4].min() > 0.9
    assert mask[distance > 16].max() < 0.02
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_the_mask_moves_by_less_than_a_pixel_when_the_face_does():
    box = Box(0, 0, 256, 256)
    masks = [face_mask(circle_points(128 + shift, 128, 60), box, 256) for shift in np.arange(0, 1.01, 0.125)]
    sums = [(mask * np.arange(256)).sum() / mask.sum() for mask in masks]  # centres of gravity
    np.testing.assert_allclose(np.diff(sums), 0.125, atol=0.02)


def test_the_mask_limits_what_is_pasted():
    frame = picture()
    box = Box(30, 20, 94, 84)
    mask = np.zeros((64, 64), np.float32)
    mask[32:] = 1
    got = paste(frame, np.full((64, 64, 3), 255, np.uint8), box, mask, match_colour=False)
    np.testing.assert_array_equal(got[20:52], frame[20:52])
    assert (got[60:70, 50:70] == 255).all()


def test_the_mouth_mask_lies_below_the_nose():
    points = np.zeros((68, 2))
    points[:17] = np.stack([np.linspace(40, 120, 17), 60 + 60 * np.sin(np.linspace(0, np.pi, 17))], axis=-1)
    points[31:36] = np.stack([np.linspace(72, 88, 5), np.full(5, 84.0)], axis=-1)
    points[48:60] = circle_points(80, 98, 12, 12)
    mask = mouth_mask(points, Box(20, 20, 140, 140), 120)
    assert mask[98 - 20, 80 - 20] > 0.99
    assert mask[60 - 20, 80 - 20] < 0.01
    assert mask[5].max() == 0
