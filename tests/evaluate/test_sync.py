"""The SyncNet chain: timing to the frame, both crops, constant batch sizes."""

import cv2
import numpy as np
import pytest
from scipy import signal

from ctjax.evaluate import mfcc, sync

BATCH = 8


@pytest.mark.parametrize(
    ("frames", "samples", "want"), [(50, 32000, 45), (50, 31999, 44), (40, 32000, 35), (5, 32000, 0), (50, 0, 0)]
)
def test_window_count_leaves_the_last_one_out(frames, samples, want):
    assert sync.window_count(frames, samples) == want


@pytest.fixture(scope="module")
def speech():
    """Two and a half seconds of noise whose loudness changes at random every frame, and that loudness."""
    rng = np.random.default_rng(0)
    levels = rng.uniform(0.02, 1, 62)
    samples = np.repeat(levels, 640) * rng.normal(size=62 * 640) * 4000
    return samples.astype(np.int16), np.log(levels)


def _score(pcm, levels, batch=BATCH, sizes=None):
    """Lips whose brightness is the log loudness, heard through the first MFCC (log energy)."""

    def lips(windows_u8):
        sizes.append(len(windows_u8)) if sizes is not None else None
        vectors = windows_u8[:, :, 0, 0, 0].astype(np.float32) / 20
        return vectors - vectors.mean(1, keepdims=True)

    def sound(steps):
        energy = steps[:, :, 0].reshape(len(steps), 5, 4)[:, :, :3].mean(2)  # the fourth reaches into the next frame
        return (energy - energy.mean(1, keepdims=True)) / 2

    probe = sync.LseProbe("uncropped", lips, sound, pcm, len(levels), batch)
    for level in np.clip(10 * (level_scale := levels - levels.min()), 0, 255):
        probe.add(np.full((4, 4, 3), level, np.uint8))
    assert level_scale.max() < 25.5
    return probe.finish()


@pytest.mark.parametrize("late", [-9, -1, 0, 1, 6, 15])
def test_shifted_sound_is_found_to_the_frame(speech, late):
    pcm, levels = speech
    shifted = np.concatenate([np.zeros(max(late, 0) * 640, np.int16), pcm[max(-late, 0) * 640 :]])
    scores = _score(shifted, levels)
    assert scores.values["offset_uncropped"] == -late
    assert scores.values["lse_c_uncropped"] > 0.5


def test_results_do_not_depend_on_the_batch(speech):
    sizes = []
    small, large = _score(*speech, batch=8, sizes=sizes), _score(*speech, batch=64)
    assert set(sizes) == {8}
    for key, value in small.values.items():
        assert value == pytest.approx(large.values[key], abs=1e-5)
    np.testing.assert_allclose(small.curves["offset_uncropped"], large.curves["offset_uncropped"], atol=1e-5)


@pytest.mark.parametrize("length", [0, 3000])
def test_a_short_clip_has_a_note_and_no_numbers(speech, length):
    scores = _score(speech[0][:length], speech[1][:5])
    assert all(np.isnan(v) for v in scores.values.values())
    assert "shorter than 6 frames" in scores.notes[0]


def test_sound_vectors_are_zero_outside_the_clip():
    pcm = np.random.default_rng(1).integers(-99, 99, 640 * 30).astype(np.int16)
    vectors = sync.SoundVectors(pcm, 25, lambda steps: steps.mean(1), batch=4)
    coefficients = mfcc.mfcc(pcm)
    for start, stop in ((-15, 9), (-15, -3), (3, 30), (20, 40)):
        rows = vectors.rows(start, stop)
        assert rows.shape == (stop - start, 13)
        for index, row in zip(range(start, stop), rows, strict=True):
            inside = 0 <= index < 25
            want = coefficients[4 * index : 4 * index + 20].mean(0) if inside else np.zeros(13)
            np.testing.assert_allclose(row, want, atol=1e-4)


def test_the_tracked_crop_is_the_published_box():
    frame = np.zeros((120, 100, 3), np.uint8)
    face = sync.tracked_face(frame, 50, 60, 40)
    # columns -6 .. 106, rows 20 .. 132: grey beyond 100 x 120
    assert face.shape == (224, 224, 3)
    assert face[:, 0].tolist() == [[110] * 3] * 224 and face[-1].tolist() == [[110] * 3] * 224
    assert face[100, 100].tolist() == [0, 0, 0]
    edge = int(np.flatnonzero(face[100, :, 0] < 55)[0])
    assert edge == pytest.approx(6 / 112 * 224, abs=1)


def test_whole_frames_are_resized_as_opencv_does():
    frame = np.random.default_rng(2).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    np.testing.assert_array_equal(sync.whole_frame(frame), cv2.resize(frame, (224, 224)))


def test_tracks_bridge_short_gaps_and_are_smoothed():
    seen = np.tile([10.0, 20.0, 30.0, 50.0], (120, 1))
    seen[10:34] = np.nan  # 24 lost: still one track
    seen[80:105] = np.nan  # 25: ends it
    seen[:3] = np.nan
    assert sync.longest_track(seen) == (3, 80)
    assert sync.longest_track(np.full((4, 4), np.nan)) is None
    boxes = np.tile([10.0, 20.0, 30.0, 50.0], (40, 1)) + np.arange(40)[:, None]
    lost = boxes.copy()
    lost[5:9] = np.nan
    track = sync.smoothed_track(lost)
    np.testing.assert_allclose(track, sync.smoothed_track(boxes))
    np.testing.assert_allclose(track[20], [40, 55, 15])
    np.testing.assert_allclose(track[:, 2], signal.medfilt(np.full(40, 15.0), 13))


@pytest.mark.parametrize(("shift", "want"), [(6.0, (0, 50)), (7.0, (20, 50)), (90.0, (20, 50))])
def test_a_face_elsewhere_is_another_track(shift, want):
    boxes = np.tile([10.0, 20.0, 30.0, 50.0], (50, 1))
    boxes[20:, [0, 2]] += shift  # of 20: 6 leave an overlap of 14/26, 7 one of 13/27
    assert sync.longest_track(boxes) == want
