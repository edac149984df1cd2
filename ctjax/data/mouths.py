"""Mouths and sounds of clips as the sync expert takes them: small pictures, a little wider than the mouth.

The margin leaves a training step room to move and scale the crop; cut here, a batch is a small fraction of the whole
frames' bytes, and a small set can stay in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.records import FPS, Clip
from ctjax.faces.mouth import mouth_boxes
from ctjax.features.mel import SYNC_STEPS, melspectrogram
from ctjax.features.windows import frame_windows, sync_mel_starts
from ctjax.losses.sync_expert import Sound

MARGIN = 1.3  # side of a picture, in sides of the mouth's box
FULL_SCALE = np.float32(32768)


class Mouths(NamedTuple):
    """pictures_u8: RGB "t s s 3". boxes: the mouth in each of them, float32 "t 4", in its pixels."""

    pictures_u8: np.ndarray
    boxes: np.ndarray


def picture_side(crop: int) -> int:
    """Side of the pictures from which mouths of `crop` pixels are cut without enlarging."""
    return 2 * round(crop * MARGIN / 2)


def read_mouths(clip: Clip, frames: np.ndarray, crop: int) -> Mouths:
    """The mouths of the given frames, in pictures for crops of `crop` pixels."""
    boxes = mouth_boxes(clip["landmarks"])[frames]
    found = [_wide(image, box, picture_side(crop)) for image, box in zip(clip.images(frames), boxes, strict=True)]
    return Mouths(np.stack([picture for picture, _ in found]), np.stack([box for _, box in found]).astype(np.float32))


def _wide(image_u8: np.ndarray, box: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Whole pixels around `box` scaled to `side`, the picture's edge going on beyond it; and where the box is there."""
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max() / 2 * MARGIN
    width = max(2, round(2 * half))
    x, y = (round(c - width / 2) for c in centre)
    rows = np.clip(np.arange(y, y + width), 0, image_u8.shape[0] - 1)
    columns = np.clip(np.arange(x, x + width), 0, image_u8.shape[1] - 1)
    cut = image_u8[rows[:, None], columns]
    scaled = cv2.resize(cut, (side, side), interpolation=cv2.INTER_AREA if width > side else cv2.INTER_LINEAR)
    scale = side / width
    # centres of pixels: the first pixel of the box and its last, which is one before its end
    low = (box[:2] - (x, y) + 0.5) * scale - 0.5
    high = (box[2:] - 1 - (x, y) + 0.5) * scale + 0.5
    return scaled, np.concatenate([low, high])


def read_sound(clip: Clip, sound: Sound) -> np.ndarray:
    """The clip's sound as steps: HuBERT "l c" (float16, 50 a second) or mel "l 80" (float32, 80 a second)."""
    if sound == "hubert":
        return clip["hubert"]
    return np.ascontiguousarray(melspectrogram(clip["samples"] / FULL_SCALE).T)


def sound_windows(steps: np.ndarray, sound: Sound, frames: np.ndarray) -> np.ndarray:
    """The windows "n l c" of `read_sound`'s steps that begin with the given frames."""
    count = int(frames.max()) + 1
    if sound == "hubert":
        return steps[frame_windows(len(steps), count, FPS)[frames]]
    rows = sync_mel_starts(count, FPS)[frames, None] + np.arange(SYNC_STEPS)
    return steps[np.minimum(rows, len(steps) - 1)]
