"""Clips for the tests of evaluation: a square "face" whose mouth follows its sound, and a finder that reads it off.

The opening of the mouth is painted as a grey level into the frame's corner, so that the finder needs no network and the
truth is known to the frame: level 0 (black) means no face.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Sequence

import cv2
import numpy as np
from clips import write_audio

from ctjax.evaluate.faces import Face
from ctjax.media.mux import VideoWriter

FPS = 25
SIDE = 128
CODE = 24  # side of the painted corner
STEP = 16  # grey levels per unit of opening, so that compression does not change it
SAMPLES_PER_FRAME = 640


def openings(frames: int, seed: int = 0) -> np.ndarray:
    """A random walk of whole numbers 1 .. 12, "t"."""
    rng = np.random.default_rng(seed)
    walk = 6 + np.cumsum(rng.integers(-3, 4, frames))
    return 1 + np.abs((walk - 1) % 22 - 11)


def frame_of(opening: int, size: tuple[int, int] = (SIDE, SIDE), texture: int = 0) -> np.ndarray:
    """uint8 "h w 3": background, face, mouth of that opening, the code in the corner. size: width, height."""
    rng = np.random.default_rng(texture)
    image = cv2.resize(rng.integers(60, 200, (16, 16, 3)).astype(np.uint8), (SIDE, SIDE))
    if opening:
        cv2.rectangle(image, (32, 24), (96, 108), (210, 170, 150), -1)
        cv2.rectangle(image, (52, 84 - opening // 2), (76, 84 + opening), (60, 20, 30), -1)
    image[:CODE, :CODE] = STEP * opening
    return image if size == (SIDE, SIDE) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def landmarks_of(opening: int, scale: float = 1.0) -> np.ndarray:
    """68 points of the face in `frame_of`."""
    points = np.zeros((68, 2))
    points[:17] = np.stack([np.linspace(34, 94, 17), 60 + 46 * np.sin(np.linspace(0, np.pi, 17))], 1)
    points[17:27] = np.stack([np.linspace(38, 90, 10), np.full(10, 40)], 1)
    points[27:36] = np.stack([np.full(9, 64), np.linspace(48, 70, 9)], 1)
    points[36:42] = np.array((46, 50)) + np.array([(-6, 0), (-3, -2), (3, -2), (6, 0), (3, 2), (-3, 2)])
    points[42:48] = np.array((82, 50)) + np.array([(-6, 0), (-3, -2), (3, -2), (6, 0), (3, 2), (-3, 2)])
    angle = np.linspace(np.pi, -np.pi, 12, endpoint=False)
    points[48:60] = np.array((64, 84)) + np.stack([14 * np.cos(angle), -(4 + opening / 2) * np.sin(angle)], 1)
    angle = np.linspace(np.pi, -np.pi, 8, endpoint=False)
    points[60:68] = np.array((64, 84)) + np.stack([10 * np.cos(angle), -(opening / 2) * np.sin(angle)], 1)
    return points * scale


def opening_of(frame_u8: np.ndarray) -> int:
    """What `frame_of` painted, whatever the frame's size."""
    side = CODE * frame_u8.shape[1] // SIDE
    return round(float(frame_u8[2 : side - 2, 2 : side - 2].mean()) / STEP)


class Finder:
    """Stands in for the face networks; counts the frames it has looked at."""

    def __init__(self):
        self.seen = 0

    def __call__(self, frames: Iterable[np.ndarray]) -> Iterator[Face | None]:
        for frame in frames:
            self.seen += 1
            opening, scale = opening_of(frame), frame.shape[1] / SIDE
            box = np.array([32, 24, 96, 108]) * scale
            yield Face(landmarks_of(opening, scale), box) if opening else None


def sound_of(opened: Sequence[int], late: int = 0, seed: int = 1) -> np.ndarray:
    """float32 "s" at 16 kHz: noise as loud as the mouth is open, `late` frames after it."""
    rng = np.random.default_rng(seed)
    loudness = np.repeat(0.02 * 1.35 ** np.asarray(opened, float), SAMPLES_PER_FRAME) * (
        np.repeat(opened, SAMPLES_PER_FRAME) > 0
    )
    sound = (0.2 * loudness * rng.normal(size=len(loudness))).clip(-1, 1)
    shift = late * SAMPLES_PER_FRAME
    silence = np.zeros(abs(shift))
    return np.float32(
        np.concatenate([silence, sound])[: len(sound)] if late >= 0 else np.concatenate([sound[-shift:], silence])
    )


def write(
    path: pathlib.Path, opened: Sequence[int], *, sound: np.ndarray | None = None, size: tuple[int, int] = (SIDE, SIDE),
    texture: int = 0, crf: int = 12, repeat: int = 1,
) -> pathlib.Path:  # fmt: skip
    """A clip of these openings at 25 frames a second, or `repeat` times as many frames of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = None if sound is None else write_audio(path.with_suffix(".wav"), sound[None], 16000)
    with VideoWriter(path, size, FPS * repeat, audio=audio, crf=crf) as writer:
        for opening in opened:
            for _ in range(repeat):
                writer.write(frame_of(int(opening), size, texture))
    if audio is not None:
        audio.unlink()
    return path
