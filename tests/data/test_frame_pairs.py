"""Pairs of frames from clips and from folders of crops."""

import cv2
import numpy as np
import pytest

from ctjax.data import frame_pairs
from ctjax.data.frame_pairs import (
    ClipInfo,
    CropFolder,
    FramePairs,
    HeldOutPairs,
    JitterConfig,
    opened_and_closed,
)
from ctjax.faces.landmarks import LOWER_INNER_LIP
from ctjax.nn.resize import low_pass_kernel, low_pass_subsample
from ctjax.types import UserError

SIZE = 8


def write_crops(folder, clips=4, frames=5, size=SIZE):
    """Folders of pictures whose red value is 40 x clip + frame, with a bright left edge."""
    for clip in range(clips):
        inside = folder / f"clip{clip}"
        inside.mkdir(parents=True)
        for frame in range(frames):
            image = np.full((size, size, 3), (40 * clip + frame) % 250, np.uint8)
            image[:, 0] = 255
            cv2.imwrite(str(inside / f"{frame:03d}.png"), image)
    return folder


class Posed:
    """Clips of one grey value a frame, with a known pose."""

    image_size = SIZE
    clips = (frame_pairs.ClipInfo("a", "a", "train", 4),)

    def __getitem__(self, index):
        return self

    def __contains__(self, name):
        return name.startswith("truth_")

    def images(self, frames):
        return np.stack([np.full((SIZE, SIZE, 3), frame, np.uint8) for frame in frames])


class PosedClip(Posed):
    def __getitem__(self, key):
        if isinstance(key, str):
            return {"truth_yaw_deg": 10.0, "truth_pitch_deg": 20.0, "truth_roll_deg": 30.0}[key] + np.arange(4.0)
        return self


def test_pairs_are_two_frames_of_one_clip(tmp_path):
    source = CropFolder([write_crops(tmp_path / "crops")])
    pairs = FramePairs(source, source.of_split("train"), mirror=False)
    for index in range(3):
        example = pairs.random_map(index, np.random.default_rng(index))
        values = [int(example[f"{name}_u8"][4, 4, 0]) for name in ("source", "driving")]
        assert values[0] // 40 == values[1] // 40 == example["clip"]
        assert values[0] != values[1]
        again = pairs.random_map(index, np.random.default_rng(index))
        np.testing.assert_array_equal(again["driving_u8"], example["driving_u8"])


def test_half_of_the_pairs_are_mirrored_both_frames_alike(tmp_path):
    source = CropFolder([write_crops(tmp_path / "crops")])
    pairs = FramePairs(source, source.of_split("train"))
    examples = [pairs.random_map(0, np.random.default_rng(seed)) for seed in range(20)]
    sides = [tuple(int(e[f"{name}_u8"][0, 0, 0] == 255) for name in ("source", "driving")) for e in examples]
    assert set(sides) == {(0, 0), (1, 1)}


def test_colours_change_in_both_frames_alike_and_only_when_asked(tmp_path):
    source = CropFolder([write_crops(tmp_path / "crops")])
    clips = source.of_split("train")
    plain, jittered = (
        FramePairs(source, clips, mirror=False, jitter=jitter)
        for jitter in (JitterConfig(), JitterConfig(brightness=0.5))
    )
    ratios = []
    for seed in range(20):
        a, b = (pairs.random_map(len(clips) - 1, np.random.default_rng(seed)) for pairs in (plain, jittered))
        each = [b[name][4, 4] / a[name][4, 4] for name in ("source_u8", "driving_u8")]
        np.testing.assert_allclose(each[0], each[1], atol=0.02)
        ratios.append(each[0][0])
    assert 0.5 <= min(ratios) < 0.7 and 1.3 < max(ratios) <= 1.5


def test_the_inner_mouth_is_what_lies_between_the_lips():
    points = np.zeros((68, 2), np.float32)
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points[60:] = np.stack([60 + 15 * np.cos(angles), 75 + 5 * np.sin(angles)], axis=1)
    inside = frame_pairs.inner_mouth(points, 101)
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (70, 80, 45, 75)
    points[60:, 1] = 75
    assert set(np.nonzero(frame_pairs.inner_mouth(points, 101))[0]) == {75}


def test_a_jitter_keeps_what_its_names_say():
    rng = np.random.default_rng(0)
    grey, colour = np.full(3, 100.0), np.array([200.0, 90.0, 30.0])
    hue, saturation, contrast = (JitterConfig(**{name: 0.4}).draw(rng) for name in ("hue", "saturation", "contrast"))
    for change in (hue, saturation):
        np.testing.assert_allclose(change @ [*grey, 1], grey, atol=1e-4)
    assert (hue @ [*colour, 1]).sum() == pytest.approx(colour.sum(), abs=1e-3)
    luma = frame_pairs.LUMA
    assert luma @ (saturation @ [*colour, 1]) == pytest.approx(luma @ colour)
    np.testing.assert_allclose(contrast @ [127.5, 127.5, 127.5, 1], 127.5)
    np.testing.assert_allclose(JitterConfig().draw(rng), np.eye(3, 4), atol=1e-12)


@pytest.mark.parametrize("wrong", [{"brightness": -0.1}, {"saturation": 1.5}, {"hue": 0.6}])
def test_a_jitter_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"jitter.{next(iter(wrong))} must lie between"):
        JitterConfig(**wrong)


def test_depths_come_along_mirrored_and_on_the_scale_of_landmarks():
    class Deep(PosedClip):
        def __getitem__(self, key):
            return np.arange(4.0)[:, None] + np.arange(68.0) if key == "truth_depth_px" else super().__getitem__(key)

    source = Deep()
    pairs = FramePairs(source, np.array([0]), depths=True)
    last = source.image_size - 1
    np.testing.assert_allclose(pairs.pair(0, 1, 3)["source_depths"], 2 * (1 + np.arange(68.0)) / last, rtol=1e-6)
    mirrored = pairs.pair(0, 1, 3, mirrored=True)["source_depths"]
    np.testing.assert_allclose(mirrored, 2 * (1 + np.array(frame_pairs.MIRRORED_68)) / last, rtol=1e-6)


def test_poses_come_along_and_are_mirrored_too():
    pairs = FramePairs(PosedClip(), np.array([0]), poses="truth")
    np.testing.assert_allclose(pairs.pair(0, 1, 3)["driving_pose_deg"], [13, 23, 33])
    np.testing.assert_allclose(pairs.pair(0, 1, 3, mirrored=True)["driving_pose_deg"], [-13, 23, -33])
    with pytest.raises(UserError, match=r"hold no yaw_deg, pitch_deg, roll_deg.*config.hopenet"):
        FramePairs(PosedClip(), np.array([0]), poses="estimated").pair(0, 1, 3)


def test_held_out_pairs_are_always_the_same(tmp_path):
    source = CropFolder([write_crops(tmp_path / "crops")])
    held_out = source.of_split("val")
    pairs = HeldOutPairs(source, held_out, per_clip=2)
    first, second = (pairs.random_map(index, np.random.default_rng()) for index in range(2))
    clip = int(held_out[0])
    assert [int(p["source_u8"][4, 4, 0]) for p in (first, second)] == [40 * clip] * 2
    assert [int(p["driving_u8"][4, 4, 0]) - 40 * clip for p in (first, second)] == [2, 4]
    assert [int(p["pair"]) for p in (first, second)] == [0, 1]


def test_held_out_pairs_of_a_short_clip_are_never_a_frame_and_itself(tmp_path):
    source = CropFolder([write_crops(tmp_path / "crops", frames=3)])
    pairs = HeldOutPairs(source, source.of_split("val"), per_clip=4)
    for index in range(4):
        pair = pairs.random_map(index, np.random.default_rng())
        assert pair["source_u8"][4, 4, 0] != pair["driving_u8"][4, 4, 0]


def test_about_a_tenth_of_the_clips_is_held_out_and_none_changes_sides(tmp_path):
    few = CropFolder([write_crops(tmp_path / "a" / "crops", clips=40, frames=1)])
    many = CropFolder([write_crops(tmp_path / "b" / "crops", clips=100, frames=1)])
    assert 4 <= len(many.of_split("val")) <= 18
    splits = {clip.id: clip.split for clip in many.clips}
    assert all(splits[clip.id] == clip.split for clip in few.clips)
    source = few
    with pytest.raises(UserError, match="no clip of split 'train' with at least 2 frames"):
        source.of_split("train", min_frames=2)


def test_folders_without_usable_pictures_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        CropFolder([tmp_path / "missing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no clips there"):
        CropFolder([tmp_path])
    with pytest.raises(UserError, match="one clip only, and one is held out"):
        CropFolder([write_crops(tmp_path / "lonely", clips=1)])
    folder = write_crops(tmp_path / "crops", clips=2)
    with pytest.raises(UserError, match="another clip is called crops/clip0 too"):
        CropFolder([folder, write_crops(tmp_path / "elsewhere" / "crops", clips=2)])
    (folder / "clip0" / "001.png").write_text("not a picture")
    with pytest.raises(UserError, match=r"001\.png: not a picture"):
        CropFolder([folder])[0].images([1])
    cv2.imwrite(str(folder / "clip0" / "002.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"9x9 pixels, not 8x8"):
        CropFolder([folder])[0].images([2])
    cv2.imwrite(str(folder / "clip0" / "000.png"), np.zeros((9, 8, 3), np.uint8))
    with pytest.raises(UserError, match="not square"):
        CropFolder([folder])


def test_pictures_are_scaled_and_landmarks_stay():
    class Marked(PosedClip):
        def __getitem__(self, key):
            return np.full((4, 68, 2), SIZE - 0.5) if key == "landmarks" else super().__getitem__(key)

    pairs = FramePairs(Marked(), np.array([0]), landmarks=True, mirror=False, size=SIZE // 2)
    example = pairs.pair(0, 1, 3)
    assert example["source_u8"].shape == example["driving_u8"].shape == (SIZE // 2, SIZE // 2, 3)
    assert np.all(example["driving_u8"][1:-1, 1:-1] == 3)
    np.testing.assert_allclose(example["driving_landmarks"], 1.0, atol=1e-6)
    for size in (3, 2 * SIZE):
        with pytest.raises(UserError, match=f"size={size}: the clips' pictures have 8 px"):
            FramePairs(Marked(), np.array([0]), size=size)


@pytest.mark.parametrize("step", [2, 4])
def test_pictures_are_scaled_as_the_estimators_do(step):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    kernel = low_pass_kernel(1 / step, 3)
    wanted = low_pass_subsample(image[None].astype(np.float32), kernel, step)[0]
    np.testing.assert_allclose(frame_pairs.subsampled(image, step), wanted, atol=1.0)
    assert np.abs(frame_pairs.subsampled(image, step) - np.asarray(wanted)).mean() < 0.4


SPOKEN_FRAMES = 40


class Speaking(PosedClip):
    """Frames numbered in their pixels, whose mouths open from frame to frame."""

    clips = (ClipInfo("b", "b", "train", SPOKEN_FRAMES),)

    def __getitem__(self, key):
        if key != "landmarks":
            return super().__getitem__(key)
        landmarks = np.zeros((SPOKEN_FRAMES, 68, 2))
        landmarks[:, LOWER_INNER_LIP, 1] = np.arange(SPOKEN_FRAMES)
        return landmarks


@pytest.mark.parametrize("closing, opening", [(0.0, 0.0), (0.5, 0.0), (1.0, 0.0), (0.0, 0.5), (0.4, 0.6)])
def test_a_share_of_pairs_goes_between_wide_open_and_closed(closing, opening):
    pairs = FramePairs(Speaking(), np.array([0]), closing=closing, opening=opening, mirror=False)
    rng = np.random.default_rng(0)
    drawn = [pairs.random_map(0, rng) for _ in range(400)]
    first, then = (np.array([p[name][0, 0, 0] for p in drawn]) for name in ("source_u8", "driving_u8"))
    by_chance = 0.01 * (1 - closing - opening)
    for share, wide, closed in ((closing, first, then), (opening, then, first)):
        found = (wide >= 36) & (closed < 4)
        assert np.mean(found) == pytest.approx(share + by_chance, abs=0.08)
        if share:
            assert len(set(wide[found])) == len(set(closed[found])) == 4


def test_the_extremes_of_a_short_clip_are_one_frame_each():
    widest, closed = opened_and_closed(Speaking()["landmarks"][:3])
    assert list(widest) == [2] and list(closed) == [0]
