"""Landmark distances, aperture, silence, jitter and sharpness on inputs whose answer is known."""

import cv2
import jax
import numpy as np
import pytest

from ctjax.evaluate import alone, landmark_distance, mouth, sharpness, stability
from ctjax.features import silence


@pytest.fixture
def face():
    """Twelve frames of 68 points; outer eye corners 100 px apart."""
    points = np.random.default_rng(0).uniform(50, 200, (68, 2))
    points[36], points[45] = (80, 90), (180, 90)
    return np.repeat(points[None], 12, axis=0)


def test_a_moved_head_counts_only_without_alignment(face):
    moved = face + np.array([3.0, 4.0])  # 5 px
    mouth_px, face_px = landmark_distance.landmark_distance(moved, face, "aligned")
    np.testing.assert_allclose([mouth_px, face_px], 0, atol=1e-9)
    for definition, want in (("absolute", 5.0), ("interocular", 5.0)):  # the eyes are 100 px apart
        np.testing.assert_allclose(landmark_distance.landmark_distance(moved, face, definition), want)


def test_one_moved_mouth_point(face):
    moved = face.copy()
    moved[:, 57, 1] += 10.0
    for points, count, result in ((20, 20, 0), (68, 68, 1)):
        centred = [10.0 * (1 - 1 / points)] + [10.0 / points] * (count - 1)
        aligned = landmark_distance.landmark_distance(moved, face, "aligned")[result]
        np.testing.assert_allclose(aligned, np.mean(centred))
        summed = landmark_distance.landmark_distance(moved, face, "sum")[result]
        np.testing.assert_allclose(summed, np.sum(centred))


def test_frames_without_a_face_are_not_numbers(face):
    lost = face.copy()
    lost[4] = np.nan
    for definition in landmark_distance.LMD_DEFINITIONS:
        for values in landmark_distance.landmark_distance(lost, face, definition):
            assert np.flatnonzero(np.isnan(values)).tolist() == [4]


def test_aperture_is_relative_to_the_eyes(face):
    for upper, lower in mouth.INNER_LIPS:
        face[:, lower] = face[:, upper] + (0, 12.0)
    np.testing.assert_allclose(mouth.aperture(face), 0.12)
    np.testing.assert_allclose(mouth.aperture(3 * face), 0.12)


def test_correlation_needs_motion_and_common_frames():
    rng = np.random.default_rng(1)
    a = rng.random(40)
    b = 3 - 2 * a
    b[5] = np.nan
    assert mouth.correlation(a, b) == pytest.approx(-1)
    assert np.isnan(mouth.correlation(a, np.ones(40)))
    assert np.isnan(mouth.correlation(a[:9], a[:9]))
    assert abs(mouth.correlation(a, rng.random(40))) < 0.5


@pytest.mark.parametrize("late", [-6, 0, 3, 15])
def test_a_late_mouth_has_a_positive_lag(late):
    b = np.random.default_rng(3).random(80)
    a = np.roll(b, late)
    a[20] = np.nan
    assert mouth.best_lag(a, b) == late
    assert np.isnan(mouth.best_lag(np.ones(80), b))


def test_silence_is_found_where_the_sound_pauses():
    rate, fps = 16000, 25.0
    sound = 0.2 * np.sin(np.arange(2 * rate) * 0.3)
    sound[rate // 2 : rate] *= 1e-3  # 0.5 .. 1 s, -60 dB
    sound[rate + 3200 : rate + 4480] = 0  # 80 ms: too short to count
    levels = silence.frame_levels(sound, rate, fps, 52)
    assert levels[0] == pytest.approx(0.2 / np.sqrt(2), rel=0.02)
    assert levels[50:].tolist() == [0, 0]  # after the end of the sound
    silent = silence.silent_frames(levels, fps)
    assert np.flatnonzero(silent).tolist() == list(range(13, 25))


def test_loudness_in_stretches_is_the_same(monkeypatch):
    monkeypatch.setattr(alone, "LEVEL_FRAMES", 7)
    pcm16 = np.random.default_rng(0).integers(-9999, 9999, 640 * 20 + 300).astype(np.int16)
    pieces = []
    whole = silence.frame_levels

    def counted(samples, *rest):
        pieces.append(len(samples))
        return whole(samples, *rest)

    monkeypatch.setattr(alone, "frame_levels", counted)
    np.testing.assert_allclose(alone._levels(pcm16, 25), whole(pcm16 / np.float32(32768), 16000, 25.0, 25), rtol=1e-6)
    assert max(pieces) == 7 * 640 and sum(pieces) == len(pcm16)


def test_a_silent_clip_is_silent_throughout():
    assert silence.silent_frames(np.zeros(30), 25.0).all()


def test_steady_motion_is_no_jitter_and_trembling_is(face):
    steady = face + np.arange(12)[:, None, None] * np.array([2.0, 1.0])
    np.testing.assert_allclose(stability.landmark_jitter(steady), 0, atol=1e-9)
    trembling = face.copy()
    trembling[::2, :, 0] += 1.0
    np.testing.assert_allclose(stability.landmark_jitter(trembling), 2.0)
    talking = face.copy()
    talking[::2, 48:, 1] += 9.0
    np.testing.assert_allclose(stability.landmark_jitter(talking), 0, atol=1e-9)


def test_pixel_jitter_leaves_the_mouth_out():
    frames = np.full((6, 40, 50, 3), 100, np.uint8)
    boxes = np.tile([10.0, 20.0, 30.0, 35.0], (6, 1))
    frames[::2, 20:35, 10:30] = 200
    np.testing.assert_allclose(stability.pixel_jitter(frames, boxes), 0, atol=1e-4)
    frames[3] += 10
    np.testing.assert_allclose(stability.pixel_jitter(frames, boxes)[1:], [10, 20, 10], rtol=1e-4)
    boxes[0] = np.nan
    assert np.isnan(stability.pixel_jitter(frames, boxes)).tolist() == [True, False, False, False]


def test_the_mouth_box_has_half_a_mouth_to_spare(face):
    face[:, 48:68] = np.linspace([100, 150], [140, 160], 20)
    np.testing.assert_allclose(stability.mouth_box(face)[0], [80, 130, 160, 180])


def test_luma_is_no_matrix_product():
    """Accelerators round the factors of those."""
    frames, boxes = np.zeros((3, 8, 8, 3), np.uint8), np.zeros((3, 4))
    for program in (
        jax.make_jaxpr(stability.pixel_jitter)(frames, boxes),
        jax.make_jaxpr(sharpness.laplacian_variance)(frames),
    ):
        assert "dot_general" not in str(program)


def test_laplacian_variance_equals_opencv():
    image = np.random.default_rng(2).integers(0, 256, (1, 32, 40, 3)).astype(np.uint8)
    luma = image[0].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    want = cv2.Laplacian(luma, cv2.CV_64F)[1:-1, 1:-1].var()
    np.testing.assert_allclose(sharpness.laplacian_variance(image), [want], rtol=1e-4)
    blurred = cv2.GaussianBlur(image[0], (0, 0), 2.0)[None]
    assert sharpness.laplacian_variance(blurred)[0] < 0.1 * want
