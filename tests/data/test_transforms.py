"""Examples and batches: who drives whom, at which offset, the same on one process and on several."""

import pathlib
import sys

import numpy as np
import pytest

from ctjax.data import mouths, pipeline, transforms
from ctjax.data.pipeline import ReadingConfig
from ctjax.data.records import RecordSet
from ctjax.data.transforms import PAIRINGS, DrivenFrames, PairingConfig, SyncWindows
from ctjax.losses.mouth import crop_boxes
from ctjax.parallel import Rows
from ctjax.types import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_records

STILL = dict.fromkeys(("yaw_deg", "pitch_deg", "roll_deg"), (4,))


def stand_in(images_01):
    """Features of the right shapes, as the renderer would give."""
    t = len(images_01)
    points = {"canonical": np.zeros((t, 4, 3), np.float32), "expression": images_01[:, :4, :3, 0]}
    angles = {name: np.zeros(t, np.float32) for name in STILL}
    return points | angles | {"translation": np.zeros((t, 3), np.float32)}


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records") / "set"
    toy_records.write(folder, clips=9, persons=4, frames=40, size=32, add=stand_in, features={"renderer": "toy"})
    return RecordSet([folder])


def examples(records, clips=None, frames=5, **shares):
    clips = np.arange(9) if clips is None else clips
    none = dict.fromkeys(PAIRINGS, 0.0)
    return DrivenFrames(records, clips, frames=frames, pairing=PairingConfig(**(none | shares)))


def draw(transform, count=60):
    rng = np.random.default_rng(0)
    return [transform.random_map(i % 9, rng) for i in range(count)]


def test_each_pairing_is_what_it_says(records):
    persons = [clip.person for clip in records.clips]
    for example in draw(examples(records, in_sync=1.0), 10):
        clip = records[int(example["clip"])]
        assert example["driver"] == example["clip"]
        found = [i for i in range(36) if np.array_equal(clip.images([i])[0], example["source_u8"][0])]
        windows = mouths.sound_windows(clip["hubert"], "hubert", np.arange(40))
        assert any(np.array_equal(windows[i : i + 5], example["hubert"]) for i in found)
    for example in draw(examples(records, same_clip=1.0), 10):
        clip = records[int(example["clip"])]
        windows = mouths.sound_windows(clip["hubert"], "hubert", np.arange(40))
        driven = next(i for i in range(36) if np.array_equal(windows[i], example["hubert"][0]))
        shown = [i for i in range(36) if np.array_equal(clip.images([i])[0], example["source_u8"][0])]
        assert example["driver"] == example["clip"] and any(abs(driven - i) >= 10 for i in shown)
    for example in draw(examples(records, same_person=1.0)):
        if PAIRINGS[int(example["pairing"])] == "same_person":
            assert example["driver"] != example["clip"]
            assert persons[int(example["driver"])] == persons[int(example["clip"])]
    for example in draw(examples(records, other_person=1.0)):
        assert persons[int(example["driver"])] != persons[int(example["clip"])]


def test_shares_are_kept(records):
    drawn = draw(examples(records, in_sync=0.5, other_person=1.5), 400)
    counts = np.bincount([int(example["pairing"]) for example in drawn], minlength=4) / 400
    np.testing.assert_allclose(counts, [0.25, 0, 0, 0.75], atol=0.07)


def test_pairings_that_cannot_be_had_are_refused_or_replaced(records):
    lonely = np.array([i for i, clip in enumerate(records.clips) if clip.person == "person3"])
    with pytest.raises(UserError, match="only for partners that these records do not hold"):
        examples(records, clips=lonely, other_person=1.0)
    one = np.array([0, 1])  # one clip each: no other clip of the same person
    mixed = examples(records, clips=one, same_person=0.5, other_person=0.5)
    rng = np.random.default_rng(0)
    kinds = {PAIRINGS[int(mixed.random_map(i % 2, rng)["pairing"])] for i in range(30)}
    assert kinds == {"other_person"}


def test_the_sound_belongs_to_the_driving_frames(records):
    example = draw(examples(records, in_sync=1.0), 1)[0]
    assert example["samples"].shape == (5 * 640,) and example["hubert"].shape == (5, 18, toy_records.CHANNELS)


def test_windows_of_a_clip_keep_their_distance(records):
    transform = windows_of(records)
    rng = np.random.default_rng(0)
    for index in range(9):
        example = transform.random_map(index, rng)
        assert np.all(np.diff(example["start"]) >= 8) and example["start"][-1] <= 35
        side = mouths.picture_side(16)
        assert example["mouths_u8"].shape == (4, 5, side, side, 3) and example["boxes"].shape == (4, 5, 4)
        assert example["sound"].shape == (4, 18, toy_records.CHANNELS)
    spread = windows_of(records, spread=True).random_map(0, rng)
    assert spread["start"][0] == 0 and spread["start"][-1] == 35


def windows_of(records, **how):
    return SyncWindows(records, np.arange(9), **({"frames": 5, "windows": 4, "gap": 8, "crop": 16} | how))


@pytest.mark.parametrize("sound", ["hubert", "mel"])
def test_remembered_clips_give_the_same_examples(records, sound):
    read, remembered = (windows_of(records, sound=sound, remember=remember) for remember in (False, True))
    for seed in (0, 1):
        one, other = (transform.random_map(2, np.random.default_rng(seed)) for transform in (read, remembered))
        assert one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_mouths_cut_beforehand_are_those_of_the_frames(records):
    """The crop out of the small picture against the crop out of the whole frame."""
    example = windows_of(records, crop=12, whole_frames=True).random_map(3, np.random.default_rng(0))
    small = crop_boxes(example["mouths_u8"][0] / np.float32(255), example["boxes"][0], 12)
    whole = crop_boxes(example["frames_u8"][0] / np.float32(255), example["frame_boxes"][0], 12)
    assert np.std(np.asarray(whole)) > 0.1
    assert np.abs(small - whole).mean() < 0.02
    shifted = crop_boxes(example["frames_u8"][0] / np.float32(255), example["frame_boxes"][0] + 1, 12)
    assert np.abs(small - whole).mean() < np.abs(small - shifted).mean() / 2


def test_mel_windows_begin_with_their_frames(records):
    clip = records[1]
    steps = mouths.read_sound(clip, "mel")
    found = mouths.sound_windows(steps, "mel", np.array([0, 5, 39]))
    assert found.shape == (3, 16, 80)
    np.testing.assert_array_equal(found[1], steps[16:32])  # 5 frames are a fifth of a second, 16 of its 80 steps
    loud = np.zeros(40 * 640, np.int16)
    loud[20 * 640 : 21 * 640] = 10000
    moved = mouths.sound_windows(mouths.read_sound({"samples": loud}, "mel"), "mel", np.arange(36))
    assert set(range(17, 21)) <= set(np.nonzero(moved.max((1, 2)) > -1)[0]) <= set(range(15, 22))


def stream(records, seed=1):
    transform = examples(records, in_sync=0.5, other_person=0.5)
    return transforms.endless(np.arange(9), transform, seed)


def test_processes_share_the_batches_of_one(records):
    reading = ReadingConfig(threads=2, prefetch=4)
    whole = iter(pipeline.batches(stream(records), Rows(6, 0, 6), reading))
    parts = [iter(pipeline.batches(stream(records), Rows(6, i, i + 2), reading)) for i in (0, 2, 4)]
    for _ in range(4):
        together = [next(part) for part in parts]
        for name, value in next(whole).items():
            assert np.array_equal(value, np.concatenate([part[name] for part in together])), name


def test_a_saved_position_goes_on_with_the_same_batches(records):
    reading = ReadingConfig(threads=3, prefetch=5)
    first = iter(pipeline.batches(stream(records), Rows(4, 0, 4), reading))
    for _ in range(3):
        next(first)
    position = first.get_state()
    expected = [next(first) for _ in range(3)]
    again = iter(pipeline.batches(stream(records), Rows(4, 0, 4), reading))
    again.set_state(position)
    for batch in expected:
        found = next(again)
        assert all(np.array_equal(batch[name], found[name]) for name in batch)


def test_epochs_and_seeds_differ(records):
    batches = iter(pipeline.batches(stream(records), Rows(9, 0, 9), ReadingConfig(threads=1, prefetch=2)))
    first, second = next(batches), next(batches)
    assert sorted(first["clip"]) == sorted(second["clip"]) == list(range(9)), "every clip once an epoch"
    assert not np.array_equal(first["source_u8"], second["source_u8"])
    other = next(iter(pipeline.batches(stream(records, seed=2), Rows(9, 0, 9), ReadingConfig(threads=1, prefetch=2))))
    assert not np.array_equal(first["clip"], other["clip"])


def test_filmed_expressions_are_those_under_the_sound(records):
    pairing = PairingConfig(in_sync=1, same_clip=1, same_person=0, other_person=1)
    transform = DrivenFrames(records, np.arange(9), frames=5, pairing=pairing, expressions=True)
    kinds = set()
    for example in draw(transform):
        kinds.add(int(example["pairing"]))
        own = example["clip"] == example["driver"]
        assert example["spoken_known"] == own
        if not own:
            continue
        clip = records[int(example["clip"])]
        sound = example["samples"]
        starts = np.arange(clip.info.frames - 4)
        places = [i for i in starts if np.array_equal(transforms.sound_of(clip, i + np.arange(5)), sound)]
        assert any(np.array_equal(example["spoken_expression"], clip["expression"][i : i + 5]) for i in places)
    assert kinds == {0, 1, 3}


def test_the_silent_expression_is_that_of_silent_frames(records):
    clip = records[0]
    samples = np.array(clip["samples"])
    samples[: 10 * 640] = 0
    samples[10 * 640 :] = 8000

    class Quiet(dict):
        info = clip.info

    quiet = Quiet({"samples": samples, "expression": clip["expression"]})
    found = transforms._filmed_expressions(quiet, np.arange(5), own_sound=True)
    assert found["silent_known"] == 1
    np.testing.assert_allclose(found["silent_expression"], clip["expression"][:10].mean(0), rtol=1e-5)
    samples[:] = 8000
    assert transforms._filmed_expressions(quiet, np.arange(5), own_sound=True)["silent_known"] == 0
