"""Synthetic speakers: sentences, phonemes, clips, and records of them."""

import json

import numpy as np
import pytest

from ctjax.data import frame_pairs, prepare
from ctjax.data.records import SAMPLES_PER_FRAME, RecordsError, RecordSet, read_manifest
from ctjax.data.refeature import refeature
from ctjax.data.synthetic import clips
from ctjax.data.synthetic.phones import SYMBOLS, phone_steps
from ctjax.data.synthetic.sentences import is_held_out, sentence
from ctjax.data.synthetic.speech import LANGUAGES, PAUSE, Phoneme, Voice, speak
from ctjax.types import UserError

SIZE = 64


@pytest.fixture(scope="module", autouse=True)
def synthesiser():
    pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Records of two clips, the first for training, the second held out."""
    output = tmp_path_factory.mktemp("synthetic") / "records"
    settings = {"source": None, "synthetic": 2, "cut": prepare.CutConfig(size=SIZE), "workers": 0}
    prepare.prepare(prepare.PrepareConfig(output=str(output), **settings))
    return output


def test_no_sentence_and_no_person_is_in_two_splits():
    rng = np.random.default_rng(0)
    for language in LANGUAGES:
        spoken = {held: {sentence(language, rng, held_out=held) for _ in range(60)} for held in (False, True)}
        assert not spoken[False] & spoken[True] and all(map(is_held_out, spoken[True]))
        assert min(map(len, spoken.values())) > 30 and not any("{" in text for text in spoken[True])
    entries = clips.listing(200)
    persons = {split: {e.person for e in entries if e.split == split} for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in persons.items()} == {"train": 80, "val": 10, "test": 10}
    assert len(set.union(*persons.values())) == 100
    assert clips.listing(7) == entries[:7] and len({clips.identity_seed(e.person) for e in entries}) == 100


@pytest.mark.parametrize("language", LANGUAGES)
def test_speech_is_the_same_every_time_and_its_phonemes_leave_no_gap(language):
    text = sentence(language, np.random.default_rng(3), held_out=True)
    voice = Voice(language, "f2", 150)  # a breathy voice: its noise must not follow the clock
    first, second = speak(text, voice), speak(text, voice)
    np.testing.assert_array_equal(first.sound.samples, second.sound.samples)
    assert first.phonemes == second.phonemes
    begins, ends = ([getattr(p, name) for p in first.phonemes] for name in ("start_s", "end_s"))
    assert begins[0] == 0 and begins[1:] == ends[:-1]
    assert ends[-1] == pytest.approx(first.sound.duration_s)
    assert np.mean([p.symbol == PAUSE for p in first.phonemes]) < 0.3


def test_an_unknown_voice_is_refused():
    with pytest.raises(UserError, match="no voice tlh"):
        speak("nuqneH", Voice("tlh"))


def test_phonemes_every_20_ms():
    phonemes = (Phoneme(PAUSE, 0, 0.05), Phoneme("ˈaɪ", 0.05, 0.13), Phoneme("m", 0.13, 0.2), Phoneme("!", 0.2, 0.24))
    found = [SYMBOLS[number] for number in phone_steps(phonemes, 13)]
    assert found == ["", "", *"aa", *"ɪɪ", *"mmmm", *"???"]


def test_a_clip_is_the_same_whenever_it_is_drawn(made):
    _, held_out = clips.listing(2)
    piece = clips.draw(held_out, SIZE).pieces[0]
    clip = RecordSet([made])[1]
    assert clip.info == piece.info and set(clip.names) == set(piece.arrays)
    for name in clip.names:
        np.testing.assert_array_equal(clip[name], piece.arrays[name], err_msg=name)


def test_records_hold_pictures_sound_and_truth(made):
    assert read_manifest(made).kind == "synthetic"
    found = RecordSet([made])
    assert [(c.split, c.person) for c in found.clips] == [("train", "synthetic-0-00000"), ("val", "synthetic-0-00001")]
    for number, info in enumerate(found.clips):
        clip = found[number]
        assert clip.images([0, info.frames - 1]).shape == (2, SIZE, SIZE, 3)
        assert len(clip["samples"]) == info.frames * SAMPLES_PER_FRAME and np.abs(clip["samples"]).max() > 8000
        points = clip["landmarks"]
        assert points.shape == (info.frames, 68, 2) and points.min() > -5 and points.max() < SIZE + 5
        np.testing.assert_allclose(
            np.linalg.norm(points[:, 66] - points[:, 62], axis=1), clip["truth_aperture_px"], atol=1e-3
        )
        assert frame_pairs.known_pose(clip, 3, "truth")[1] == clip["truth_pitch_deg"][3]
        nose, cheek, far_cheek = (clip["truth_depth_px"][:, point] for point in (30, 3, 13))
        assert np.all(nose > cheek + 0.1 * SIZE), "the nose is nearer to the viewer"
        np.testing.assert_allclose(cheek, far_cheek, atol=0.02 * SIZE)
        turn = np.deg2rad(clip["truth_yaw_deg"])
        ahead = (points[:, 3, 0] + points[:, 13, 0]) / 2
        beside = points[:, 30, 0] - ahead - (nose - cheek) * np.sin(turn) * np.cos(np.deg2rad(clip["truth_pitch_deg"]))
        assert np.abs(beside).mean() < 0.05 * SIZE, "a turned head shows its depths"
        silent = (clip["truth_phonemes"] == 0).all(axis=1)
        assert silent[0] and silent[-1] and 0.1 < silent.mean() < 0.7
        assert clip["truth_aperture_px"][silent].mean() < 0.35 * clip["truth_aperture_px"][~silent].mean()


def test_mouth_and_sound_go_together(made):
    found = RecordSet([made])
    for number in range(2):
        clip = found[number]
        loudness = np.sqrt((clip["samples"].reshape(clip.info.frames, -1) / 2.0**15) ** 2 @ np.ones(SAMPLES_PER_FRAME))
        assert np.corrcoef(loudness, clip["truth_aperture_px"])[0, 1] > 0.3


def test_features_are_added_to_records_without_drawing_them_again(made, tmp_path):
    output = tmp_path / "more"
    refeature(made, output, hubert="untrained", renderer=None)
    before, after = RecordSet([made]), RecordSet([output])
    with pytest.raises(RecordsError, match="without hubert"):
        before.require(hubert=None)
    after.require(hubert=None)
    assert len(after[1]["hubert"]) == 2 * (after.clips[1].frames - 1) + 18 and after.silence.shape[0] == 18
    for name in before[1].names:
        np.testing.assert_array_equal(before[1][name], after[1][name])
    assert read_manifest(output).kind == "synthetic"
    (output / "manifest.json").unlink()
    shard = next((output / "shards").iterdir())
    written = shard.stat().st_mtime_ns
    refeature(made, output, hubert=str(output / "bundles" / "hubert"), renderer=None)  # goes on where it was
    assert shard.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="no second pass"):
        refeature(made, output, hubert=None, renderer=None)


def test_an_interrupted_set_goes_on(made, tmp_path, monkeypatch):
    def settings(count):
        return prepare.PrepareConfig(
            source=None, synthetic=count, output=str(tmp_path / "set"), cut=prepare.CutConfig(size=SIZE), workers=0
        )

    drawn = []
    real = clips.draw

    def draw(video, size):
        drawn.append(video.file)
        if len(drawn) == 2:
            raise KeyboardInterrupt
        return real(video, size)

    monkeypatch.setattr(clips, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(settings(2))
    prepare.prepare(settings(2))
    assert drawn == ["synthetic/0/000000", "synthetic/0/000001", "synthetic/0/000001"]
    index = [json.loads(line)["id"] for line in (tmp_path / "set" / "clips.jsonl").read_text().splitlines()]
    assert index == [c.id for c in RecordSet([made]).clips]


def test_source_and_synthetic_exclude_each_other():
    with pytest.raises(ValueError, match="either source"):
        prepare.PrepareConfig(source="videos", synthetic=3, output="x")
    with pytest.raises(ValueError, match="either source"):
        prepare.PrepareConfig(source=None, output="x")
