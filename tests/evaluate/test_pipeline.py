"""Evaluation from files to numbers on clips whose truth is known, with a stand-in for the face networks."""

import dataclasses

import cv2
import numpy as np
import pytest
import scored_clips
from scored_clips import Finder, openings, sound_of

from ctjax.evaluate import clips, image, instruments
from ctjax.evaluate.cache import ResultCache
from ctjax.evaluate.catalogue import Settings, catalogue
from ctjax.evaluate.compare import score_pair
from ctjax.evaluate.faces import find_series
from ctjax.evaluate.instruments import BundlePaths, open_instruments
from ctjax.evaluate.pipeline import Evaluator, chosen_frames, reason_of
from ctjax.evaluate.table import terminal
from ctjax.types import UserError

FRAMES = 40


class NamedFinder(Finder):
    """Its results may be cached."""

    identity = "painted"


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Folders `reference` and `generated`: a good copy, one with a late mouth, and every kind of trouble."""
    root = tmp_path_factory.mktemp("footage")
    truth = {
        name: openings(FRAMES, seed) for seed, name in enumerate(("copy", "late", "small", "cut", "blank", "slow"))
    }
    truth["copy"][10:20] = 1  # the mouth rests ...
    for name, opened in truth.items():
        heard = (
            np.where(np.isin(np.arange(FRAMES), range(10, 20)), 0, opened) if name == "copy" else opened
        )  # ... in silence
        scored_clips.write(root / "reference" / f"{name}.mp4", opened, sound=sound_of(heard))
    made = root / "generated"
    scored_clips.write(made / "copy.mp4", truth["copy"], sound=sound_of(truth["copy"]), crf=32)
    late = np.concatenate([np.full(4, truth["late"][0]), truth["late"][:-4]])
    scored_clips.write(made / "late.mp4", late, texture=5)
    scored_clips.write(made / "small.mp4", truth["small"][:30], size=(96, 96), sound=sound_of(truth["small"]))
    scored_clips.write(made / "blank.mp4", np.zeros(FRAMES, int), sound=sound_of(truth["blank"]))
    scored_clips.write(made / "slow.mov", truth["slow"], sound=sound_of(truth["slow"]), repeat=2)
    (made / "cut.mp4").write_text("this is no video")
    return root


def _evaluator(cache=None, **changes):
    settings = Settings(**changes)
    return Evaluator(settings, open_instruments(BundlePaths(), settings.ssim, 8), NamedFinder(), ResultCache(cache))


def _run(evaluator, footage):
    pairs, failures = clips.match(footage / "generated", footage / "reference")
    return evaluator.evaluate({"generated": pairs}, failures)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def evaluation(footage, cache):
    return _run(_evaluator(cache), footage)


@pytest.fixture(scope="module")
def scores(evaluation):
    return {(row.name, clip.name): clip.scores for row in evaluation.rows for clip in row.clips}


def test_a_clip_against_itself_is_perfect(scores):
    for name in ("copy", "late", "slow"):
        values = scores["reference", name].values
        assert values["ssim"] == pytest.approx(1, abs=1e-6) and values["psnr"] == np.inf
        assert values["m_lmd_aligned"] == values["f_lmd_aligned"] == values["aperture_lag"] == 0
        assert values["aperture_correlation"] == pytest.approx(1)


def test_a_re_encoded_copy_is_nearly_perfect(scores):
    values = scores["generated", "copy"].values
    assert 0.8 < values["ssim"] < 0.999 and 25 < values["psnr"] < 50
    assert values["aperture_correlation"] > 0.99 and values["m_lmd_aligned"] < 0.2
    assert values["faces_missed"] == 0


def test_a_late_mouth_is_seen(scores):
    values = scores["generated", "late"].values
    assert values["aperture_lag"] == 4
    assert values["aperture_correlation"] < 0.8 and values["m_lmd_aligned"] > 0.5
    assert "no sound" in scores["generated", "late"].notes[0]


def test_the_aperture_is_the_painted_one_and_small_in_silence(scores):
    curve = scores["reference", "copy"].curves["aperture"]
    gap = 1.0 * np.mean([np.sin(a) for a in (np.pi / 4, np.pi / 2, 3 * np.pi / 4)])
    np.testing.assert_allclose(curve[10:20], gap / 48, rtol=1e-3)  # eye corners 40 and 88
    values = scores["reference", "copy"].values
    assert values["aperture_silence"] == pytest.approx(gap / 48, rel=0.05)
    assert values["aperture_mean"] > 2 * values["aperture_silence"]
    assert np.flatnonzero(scores["reference", "copy"].curves["silent"]).tolist() == pytest.approx(list(range(10, 20)))


def test_another_size_and_length_are_noted(scores):
    notes = " ".join(scores["generated", "small"].notes)
    assert "resized from 96x96 to 128x128" in notes
    assert "30 generated and 40 reference frames: the first 30" in notes
    assert scores["generated", "small"].values["aperture_correlation"] > 0.99


def test_fifty_frames_a_second_are_compared_at_twenty_five(scores):
    values = scores["generated", "slow"].values
    assert values["aperture_correlation"] > 0.99 and values["aperture_lag"] == 0
    assert len(scores["generated", "slow"].curves["aperture"]) == FRAMES


def test_missing_faces_are_counted(scores):
    blank = scores["generated", "blank"]
    assert blank.values["faces_missed"] == 100
    assert "m_lmd_aligned" not in blank.values and blank.values["ssim"] < 1
    assert any("no face" in note for note in blank.notes)


def test_a_clip_that_fails_is_listed_and_the_rest_done(evaluation):
    assert [(f.row, f.clip) for f in evaluation.failures] == [("generated", "cut")]
    assert "cut.mp4" in evaluation.failures[0].reason and "Error" not in evaluation.failures[0].reason
    assert [len(row.clips) for row in evaluation.rows] == [5, 6]


def test_what_is_not_computed_says_what_it_needs(evaluation):
    flags = {"sync", "wav2lip", "expert", "hubert", "vgg", "lpips", "inception", "identity"}
    text = " ".join(evaluation.not_computed.values())
    assert all(f"--{flag}_bundle" in text for flag in flags)
    assert {field.name for field in dataclasses.fields(BundlePaths)} == flags
    assert all(line in terminal(evaluation) for line in evaluation.not_computed.values())


def test_a_second_run_computes_nothing_and_agrees(footage, cache, evaluation):
    evaluator = _evaluator(cache)
    again = _run(evaluator, footage)
    assert evaluator.finder.seen == 0
    for row, other in zip(evaluation.rows, again.rows, strict=True):
        for clip, same in zip(row.clips, other.clips, strict=True):
            np.testing.assert_equal(same.scores.values, clip.scores.values)
            np.testing.assert_equal(same.scores.curves, clip.scores.curves)


@pytest.mark.parametrize("identity", [None, "another"])
def test_another_finder_looks_for_itself(footage, cache, evaluation, identity):
    (pair,), _ = clips.match(footage / "generated" / "copy.mp4", footage / "reference" / "copy.mp4")
    for again in (False, True):
        evaluator = _evaluator(cache)
        finder = type("Another", (Finder,), {"identity": identity})()
        other = Evaluator(evaluator.settings, evaluator.instruments, finder, ResultCache(cache))
        other.clip(pair)
        assert finder.seen == (0 if again and identity else 2 * FRAMES)


def test_other_settings_are_computed_anew(footage, cache, scores):
    pairs, _ = clips.match(footage / "generated" / "copy.mp4", footage / "reference" / "copy.mp4")
    other = _evaluator(cache, ssim="uniform7", lmd=("absolute", "sum"), region="face").clip(pairs[0])
    assert {"m_lmd_absolute", "f_lmd_sum"} <= other.values.keys() and "m_lmd_aligned" not in other.values
    assert other.values["ssim"] != scores["generated", "copy"].values["ssim"]


def test_face_crops_of_other_framing_can_be_compared(footage, tmp_path):
    wide = scored_clips.write(tmp_path / "wide.mp4", openings(12), size=(128, 64))
    (pair,), _ = clips.match(wide, footage / "reference" / "late.mp4")
    with pytest.raises(Exception, match="--region=face"):
        _evaluator().clip(pair)
    assert np.isfinite(_evaluator(region="face").clip(pair).values["ssim"])


def test_the_reference_s_sound_can_judge(footage):
    evaluator = _evaluator(sync_sound="reference")
    (pair,), _ = clips.match(footage / "generated" / "late.mp4", footage / "reference" / "late.mp4")
    assert not any("no sound" in note for note in evaluator.clip(pair).notes)


@pytest.mark.parametrize("late", [-5, 0, 3])
def test_the_offset_is_found_to_the_frame_through_files(tmp_path, late):
    """Lips and sound networks that see the painted opening and hear the loudness."""
    opened = openings(60, 7)
    path = scored_clips.write(tmp_path / "clip.mp4", opened, sound=sound_of(opened, late))
    evaluator = _evaluator()

    def centred(x):
        return x - x.mean(1, keepdims=True)

    corner = slice(4, 30)
    evaluator.instruments.lips = lambda w: centred(w[:, :, corner, corner].mean((2, 3, 4)) / scored_clips.STEP)
    evaluator.instruments.sound = lambda s: centred(
        s[:, :, 0].reshape(len(s), 5, 4)[..., :3].mean(2) / 2 / np.log(1.35)
    )
    scores = evaluator.clip(clips.Pair("clip", path, path))
    values = scores.values
    assert values["offset_uncropped"] == -late
    assert np.argmin(scores.curves["offset_uncropped"]) - 15 == -late
    assert values["lse_c_uncropped"] > 1
    assert np.isfinite(values["lse_d_tracked"])


def _compared(generated, reference, batch=8):
    opened = open_instruments(BundlePaths(), "gaussian11", batch)
    faces = [find_series(iter(frames), Finder()) for frames in (generated, reference)]
    return score_pair(generated, reference, *faces, Settings(), opened)


@pytest.mark.parametrize(("width", "height"), [(127, 128), (128, 125), (127, 125)])
def test_the_padding_of_odd_sides_is_cut_off(width, height):
    reference = [scored_clips.frame_of(opening)[:height, :width] for opening in openings(6)]
    pad = height % 2, 0, width % 2
    generated = [cv2.copyMakeBorder(frame, 0, *pad, cv2.BORDER_REPLICATE) for frame in reference]
    scores = _compared(generated, reference)
    assert scores.values["psnr"] == np.inf
    assert f"cut from {width + width % 2}x{height + height % 2} to {width}x{height}" in scores.notes[0]


def test_large_frames_are_compared_few_at_a_time(monkeypatch):
    rows = []
    compare = image.compare_frames

    def counted(a, b, window):
        rows.append(len(a))
        return compare(a, b, window)

    frames = [scored_clips.frame_of(opening) for opening in openings(6)]
    others = [scored_clips.frame_of(opening, texture=1) for opening in openings(6, 1)]
    whole = _compared(others, frames)
    monkeypatch.setattr(image, "compare_frames", counted)
    monkeypatch.setattr(instruments, "PIXELS_PER_CALL", 2 * scored_clips.SIDE**2)
    parts = _compared(others, frames)
    assert rows == [2]  # on each device, in one program
    for key in ("ssim", "psnr"):
        assert parts.values[key] == pytest.approx(whole.values[key], rel=1e-5)


def test_reasons_name_errors_that_are_not_meant_for_users():
    class NoFaceError(UserError):
        pass

    class ForeignUserError(Exception):
        pass

    assert reason_of(NoFaceError("none here\nmore")) == "none here"
    assert reason_of(ForeignUserError("x")) == "ForeignUserError: x"


def test_every_value_has_a_metric(scores):
    known = {m.key for m in catalogue(Settings())}
    assert {key for s in scores.values() for key in s.values} <= known


def test_frames_for_fid_are_spread_evenly():
    assert chosen_frames(5, 0) == chosen_frames(5, 9) == {0, 1, 2, 3, 4}
    assert chosen_frames(101, 3) == {0, 50, 100}
