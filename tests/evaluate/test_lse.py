"""MFCC and LSE arithmetic against the recorded runs of joonson/syncnet_python."""

import numpy as np
import pytest
from parity import record

from ctjax.evaluate import lse, mfcc


def test_mfcc_equals_the_record():
    case = record("mfcc")
    case.check("mfcc", mfcc.mfcc(case.inputs["pcm"]).T)


def test_mfcc_in_blocks_equals_mfcc_in_one(monkeypatch):
    pcm = np.random.default_rng(0).integers(-9000, 9000, 16321).astype(np.int16)
    whole = mfcc.mfcc(pcm)
    monkeypatch.setattr(mfcc, "BLOCK_FRAMES", 10)
    np.testing.assert_allclose(mfcc.mfcc(pcm), whole, atol=1e-9)
    assert len(whole) == mfcc.frame_count(len(pcm)) == 101


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 401, 560, 561])
def test_short_and_silent_sound_is_finite(samples):
    coefficients = mfcc.mfcc(np.zeros(samples, np.int16))
    assert coefficients.shape == (mfcc.frame_count(samples), 13)
    assert np.isfinite(coefficients).all()


def test_mfcc_refuses_float_sound():
    with pytest.raises(ValueError, match="int16"):
        mfcc.mfcc(np.zeros(400, np.float32))


@pytest.mark.parametrize("case", ["aligned", "shift3", "noise"])
def test_lse_equals_the_record(case):
    recorded = record("lse")
    lips, sound = (recorded.inputs[f"{case}_{part}"].astype(np.float32) for part in ("lip", "audio"))
    distances = np.asarray(lse.shift_distances_jit(lips, np.pad(sound, ((15, 15), (0, 0)))))
    result = lse.summarise(distances)
    recorded.check(f"{case}/dists", distances.T)
    recorded.check(f"{case}/mdist", distances.astype(np.float64).mean(0))
    recorded.check(f"{case}/min_dist_LSE_D", np.array([result.distance]))
    recorded.check(f"{case}/confidence_LSE_C", np.array([result.confidence]))
    recorded.check(f"{case}/framewise_conf_medfilt9", result.frame_confidence)
    assert [result.offset_frames] == recorded.outputs[f"{case}/offset"].tolist()


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_sound_that_comes_late_has_a_negative_offset(late):
    rng = np.random.default_rng(2)
    lips = rng.normal(size=(60, 32)).astype(np.float32)
    sound = np.roll(lips, late, axis=0) + 0.1 * rng.normal(size=lips.shape).astype(np.float32)
    distances = lse.shift_distances(lips, np.pad(sound, ((15, 15), (0, 0))))
    assert lse.summarise(np.asarray(distances)).offset_frames == -late


def test_a_clip_without_a_window_is_an_error():
    with pytest.raises(ValueError, match="no window"):
        lse.summarise(np.zeros((0, 31)))
