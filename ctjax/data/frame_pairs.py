"""Pairs of frames of one clip, which is what the renderer learns from: appearance from one, motion from the other.

Clips come from records made by prepare.py, or from a folder of face crops: one folder a clip, its pictures in the
order of their names.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import grain
import numpy as np

from ctjax.data.footage import split_by_person
from ctjax.data.records import ClipInfo, in_split
from ctjax.faces.landmarks import LOWER_INNER_LIP, MIRRORED_68, UPPER_INNER_LIP
from ctjax.nn.resize import low_pass_kernel
from ctjax.types import UserError

Example = dict[str, np.ndarray]
Poses = Literal["none", "truth", "estimated"]
ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")
LUMA = np.array([0.299, 0.587, 0.114])
INNER_LIPS = slice(60, 68)  # of the 68 landmarks
MIRROR_SIGNS = np.array([-1.0, 1.0, -1.0], np.float32)  # of yaw, pitch and roll in a mirrored picture
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
HELD_OUT_SHARE = 0.1
EXTREMES = 0.1  # the share of a clip's frames that count as wide open, and as closed


@dataclass(frozen=True)
class JitterConfig:
    """How far colours are changed, both frames of a pair alike. brightness, contrast, saturation: factors drawn from
    1 - x to 1 + x; hue: turns from -x to x, of a whole turn. 0 changes nothing; the first order motion model has
    0.1 for all four (its config/vox-256.yaml)."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.5)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"jitter.{name} must lie between 0 and {most:g}, not {value}")

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The affine change of RGB uint8 as `cv2.transform` takes it, "3 4"."""
        brightness, contrast, saturation, hue = (
            rng.uniform(-x, x) for x in (self.brightness, self.contrast, self.saturation, self.hue)
        )
        grey = np.tile(LUMA, (3, 1))
        saturated = (1 + saturation) * np.eye(3) - saturation * grey
        linear = (1 + brightness) * (1 + contrast) * saturated @ _hue_turned(2 * np.pi * hue)
        offset = -contrast * (1 + brightness) * 127.5
        return np.concatenate([linear, np.full((3, 1), offset)], axis=1)


def _hue_turned(angle: float) -> np.ndarray:
    """Rotation of RGB around the axis of greys, "3 3"."""
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) * 3**-0.5
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)


class Clip(Protocol):
    """Frames of one person, and what is known of each by name."""

    def __contains__(self, name: str) -> bool: ...
    def __getitem__(self, name: str) -> np.ndarray: ...
    def images(self, frames: Sequence[int]) -> np.ndarray: ...


class Clips(Protocol):
    """What `records.RecordSet` and `CropFolder` have in common."""

    clips: list[ClipInfo]
    image_size: int

    def __getitem__(self, index: int) -> Clip: ...
    def of_split(self, split: str, *, min_frames: int = 1) -> np.ndarray: ...


class _CropClip:
    """The pictures of one folder; nothing else is known of them."""

    def __init__(self, files: Sequence[pathlib.Path], size: int):
        self._files, self._size = files, size

    def __contains__(self, name: str) -> bool:
        return False

    def __getitem__(self, name: str) -> np.ndarray:
        raise KeyError(name)

    def images(self, frames: Sequence[int]) -> np.ndarray:
        """RGB uint8 "n h w 3". Raises UserError for a picture that cannot be read or has another size."""
        return np.stack([_read_square(self._files[frame], self._size) for frame in frames])


class CropFolder:
    """Folders of face crops, one sub-folder a clip. A tenth of the clips, chosen by their names, is the split "val".

    Raises `UserError` for folders without clips, and for pictures that are not square.
    """

    def __init__(self, folders: Sequence[str | os.PathLike]):
        found = {}
        for folder in map(pathlib.Path, folders):
            if not folder.is_dir():
                raise UserError(f"{folder}: no such folder")
            for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
                if files := sorted(path for path in inside.iterdir() if path.suffix.lower() in PICTURES):
                    name = f"{folder.name}/{inside.name}"
                    if name in found:
                        raise UserError(f"{inside}: another clip is called {name} too: give their folders other names")
                    found[name] = files
        if not found:
            raise UserError(
                f"{', '.join(map(str, folders))}: no clips there: put the pictures of each clip in a folder of its own "
                f"({', '.join(PICTURES)})"
            )
        if len(found) == 1:
            raise UserError(
                f"{inside.parent}: one clip only, and one is held out to measure on: cut its pictures into two folders"
            )
        splits = split_by_person(list(found), HELD_OUT_SHARE, "val")
        self._files = list(found.values())
        self.clips = [ClipInfo(name, name, splits[name], len(files)) for name, files in found.items()]
        self.image_size = int(_read_square(self._files[0][0]).shape[0])

    def __getitem__(self, index: int) -> _CropClip:
        return _CropClip(self._files[index], self.image_size)

    def of_split(self, split: str, *, min_frames: int = 1) -> np.ndarray:
        """Numbers of the clips of `split`, as `records.in_split`."""
        return in_split(self.clips, split, min_frames)


def _read_square(file: pathlib.Path, size: int | None = None) -> np.ndarray:
    """RGB uint8 "h w 3" of a square picture, of `size` pixels where that is given. Raises UserError otherwise."""
    bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if bgr is None:
        raise UserError(f"{file}: not a picture that can be read: take it out or repair it")
    height, width = bgr.shape[:2]
    if height != width or size not in (None, height):
        wanted = "square" if size is None else f"{size}x{size} as the first picture"
        raise UserError(f"{file}: {width}x{height} pixels, not {wanted}: crop all faces to one square size")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def known_pose(clip: Clip, frame: int, poses: Poses) -> np.ndarray:
    """Yaw, pitch and roll of a frame, float32 "3", degrees: a synthetic world's truth, or what the renderer that made
    the records estimated. Raises `UserError` where the clip does not hold them."""
    names = [f"truth_{angle}" if poses == "truth" else angle for angle in ANGLES]
    missing = [name for name in names if name not in clip]
    if missing:
        source = "synthetic records (prepare.py --synthetic)" if poses == "truth" else "prepare.py --renderer"
        raise UserError(
            f"config.poses is {poses!r}, but the clips hold no {', '.join(missing)}: use {source}, or set "
            "config.poses='none' and config.hopenet"
        )
    return np.array([clip[name][frame] for name in names], np.float32)


def known_depths(clip: Clip, frame: int) -> np.ndarray:
    """Depths of a frame's landmarks, float32 "68", pixels. Raises `UserError` where the clip does not hold them."""
    if "truth_depth_px" not in clip:
        raise UserError(
            "losses.weights.depth needs depths of the landmarks, which the clips do not hold: use synthetic records "
            "(prepare.py --synthetic; older ones have none), or set it to 0"
        )
    return clip["truth_depth_px"][frame]


def inner_mouth(points: np.ndarray, size: int) -> np.ndarray:
    """Whether a pixel of a picture "size size" lies between the lips, or on their edge: bool. points: the landmarks
    "68 2" in pixels, whole numbers in the middle of one."""
    edge = np.round(points[INNER_LIPS] * 16).astype(np.int32)
    return cv2.fillPoly(np.zeros((size, size), np.uint8), [edge], 1, shift=4).astype(bool)


def subsampled(image_u8: np.ndarray, step: int) -> np.ndarray:
    """Every `step`-th pixel of "h w 3" after a low-pass, as the renderer's estimators subsample by `scale_factor`: what
    they learn on such pictures they find again, in its place, in the whole ones."""
    line = low_pass_kernel(1 / step, 1)[:, :, 0, 0].sum(0)
    smooth = cv2.sepFilter2D(image_u8, -1, line, line, borderType=cv2.BORDER_CONSTANT)
    return np.ascontiguousarray(smooth[::step, ::step])


def opened_and_closed(landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a clip with the widest open mouths and those with the most closed ones: a tenth of the clip each,
    at least one. landmarks: "t 68 2", t >= 2."""
    by_opening = np.argsort(np.linalg.norm(landmarks[:, LOWER_INNER_LIP] - landmarks[:, UPPER_INNER_LIP], axis=-1))
    count = max(round(EXTREMES * len(landmarks)), 1)
    return by_opening[-count:], by_opening[:count]


class FramePairs(grain.transforms.RandomMap):
    """Two frames of one clip: source_u8, driving_u8 "h w 3"; clip: its number; driving_pose_deg "3" (yaw, pitch,
    roll) where `poses` asks for it; source_depths "68" where `depths` does, on the scale of the landmarks;
    source_landmarks, driving_landmarks "68 2" (-1 and 1 in the middle of the first
    and the last pixel, as keypoints are) and driving_inner_mouth "h w" (bool, between the lips) where `landmarks`
    does. Half of the pairs are mirrored if `mirror`; `jitter` changes the colours of each. closing: the share of pairs
    that go from one of a clip's widest mouths to one of its most closed, which chance seldom draws; opening: of those
    that go the other way. size: side that pictures are scaled to, a whole part of the clips' own, which None keeps;
    landmarks stay where they are in the clip's picture. Raises `UserError` for another size."""

    def __init__(
        self,
        source: Clips,
        clips: np.ndarray,
        *,
        poses: Poses = "none",
        landmarks: bool = False,
        depths: bool = False,
        mirror: bool = True,
        jitter: JitterConfig = JitterConfig(),
        closing: float = 0.0,
        opening: float = 0.0,
        size: int | None = None,
    ):
        self._jitter, self._closing, self._opening = jitter, closing, opening
        self._size = size or source.image_size
        self._step, rest = divmod(source.image_size, self._size)
        if rest or not self._step:
            raise UserError(
                f"size={size}: the clips' pictures have {source.image_size} px, of which it is no whole part"
            )
        self._source, self._clips, self._mirror = source, clips, mirror
        self._poses, self._landmarks, self._depths = poses, landmarks, depths

    def random_map(self, index: int, rng: np.random.Generator) -> Example:
        number = int(self._clips[index])
        clip = None
        kind = rng.random() if self._closing or self._opening else 1.0
        if kind < self._closing + self._opening:
            clip = self._source[number]
            frames = [rng.choice(some) for some in opened_and_closed(clip["landmarks"])]
            frames = frames if kind < self._closing else frames[::-1]
        else:
            frames = rng.choice(self._source.clips[number].frames, 2, replace=False)
        pair = self.pair(number, *map(int, frames), mirrored=self._mirror and rng.random() < 0.5, clip=clip)
        if self._jitter != JitterConfig():
            change = self._jitter.draw(rng)
            pair |= {name: cv2.transform(pair[name], change) for name in ("source_u8", "driving_u8")}
        return pair

    def pair(
        self, number: int, source: int, driving: int, *, mirrored: bool = False, clip: Clip | None = None
    ) -> Example:
        """The pair of two given frames of clip `number`; `clip` where it has been read already."""
        clip = self._source[number] if clip is None else clip
        images = clip.images([source, driving])
        images = np.ascontiguousarray(images[:, :, ::-1]) if mirrored else images
        source_u8, driving_u8 = (self._scaled(image) for image in images)
        example = {"source_u8": source_u8, "driving_u8": driving_u8, "clip": np.int32(number)}
        if self._poses != "none":
            pose = known_pose(clip, driving, self._poses)
            example["driving_pose_deg"] = pose * MIRROR_SIGNS if mirrored else pose
        last = self._source.image_size - 1
        if self._depths:
            depths = known_depths(clip, source)[list(MIRRORED_68) if mirrored else slice(None)]
            example["source_depths"] = (2 * depths / last).astype(np.float32)
        if self._landmarks:
            points = clip["landmarks"][[source, driving]] - 0.5  # records count from pixels' edges, not their middles
            if mirrored:
                points = points[:, list(MIRRORED_68)] * np.float32([-1, 1]) + np.float32([last, 0])
            landmarks = (2 * points / last - 1).astype(np.float32)
            example["source_landmarks"], example["driving_landmarks"] = landmarks
            example["driving_inner_mouth"] = inner_mouth(points[1] / self._step, self._size)
        return example

    def _scaled(self, image: np.ndarray) -> np.ndarray:
        return image if self._step == 1 else subsampled(image, self._step)


class HeldOutPairs(FramePairs):
    """Always the same pairs: example i is of clip i // `per_clip`, its first frame driven by one of `per_clip` others,
    evenly spread. `pair` is i itself."""

    def __init__(
        self,
        source: Clips,
        clips: np.ndarray,
        *,
        per_clip: int,
        poses: Poses = "none",
        landmarks: bool = False,
        depths: bool = False,
        size: int | None = None,
    ):
        super().__init__(source, clips, poses=poses, landmarks=landmarks, depths=depths, mirror=False, size=size)
        self._per_clip = per_clip

    def random_map(self, index: int, rng: np.random.Generator) -> Example:
        clip, turn = divmod(index, self._per_clip)
        number = int(self._clips[clip])
        driving = np.linspace(0, self._source.clips[number].frames - 1, self._per_clip + 1).astype(int)[turn + 1]
        return {**self.pair(number, 0, max(int(driving), 1)), "pair": np.int32(index)}
