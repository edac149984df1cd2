"""The SyncNet chain around the arithmetic of `lse`: which pixels and which sound each window sees.

As published (joonson/syncnet_python SyncNetInstance.py, run_pipeline.py; Wav2Lip evaluation/scores_LSE): 25 frames a
second, windows of 5 frames against 20 MFCC steps of 10 ms, window i starting at frame i and MFCC step 4 i, the last
possible window left out. Two protocols decide what the network sees:

- uncropped: whole frames brought to 224 px (Wav2Lip calculate_scores_LRS.py), right for clips that are face crops;
- tracked: the face track's crop, box half-size s by the 13-frame median, from (x - 1.4 s, y - s) to
  (x + 1.4 s, y + 1.8 s), grey 110 beyond the frame, brought to 224 px (run_pipeline.py, crop scale 0.4).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy import signal

from ctjax.evaluate import lse
from ctjax.evaluate.batching import Batcher, windows
from ctjax.evaluate.mfcc import mfcc
from ctjax.evaluate.results import Scores
from ctjax.faces.detect import overlap
from ctjax.features.windows import LSE_MFCC_STEPS_PER_FRAME
from ctjax.types import Box

PROTOCOLS = ("uncropped", "tracked")
FPS = 25.0
SIDE = 224
WINDOW_FRAMES = 5
SAMPLES_PER_FRAME = 640  # of 16 kHz
MFCC_PER_WINDOW = 20
TRACK_MEDIAN_FRAMES = 13
CROP_SCALE = 0.4
GREY = 110
# A track ends where the next box comes more than 25 frames later or overlaps the last by half or less (run_pipeline.py
# track_shot: frame - last <= num_failed_det, IoU > 0.5).
MAX_STEP_FRAMES = 25
MIN_OVERLAP = 0.5

LipEmbeddings = Callable[[np.ndarray], np.ndarray]  # uint8 RGB "b 5 224 224 3" -> "b c"
SoundEmbeddings = Callable[[np.ndarray], np.ndarray]  # MFCC float32 "b 20 13" -> "b c"


def window_count(frames: int, samples: int) -> int:
    """How many windows the reference scores: it leaves out the last one that would fit."""
    return max(0, min(frames, samples // SAMPLES_PER_FRAME) - WINDOW_FRAMES)


class SoundVectors:
    """Embeddings of the sound windows, made block by block when they are asked for and soon forgotten."""

    def __init__(self, pcm16: np.ndarray, count: int, embed: SoundEmbeddings, batch: int):
        # window_count leaves so much out that the last window always has its 20 steps
        self._mfcc = mfcc(pcm16).astype(np.float32)
        self.count, self._embed, self._batch = count, embed, batch
        self._blocks: dict[int, np.ndarray] = {}

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Vectors of windows start .. stop - 1; zeros outside the clip."""
        inner = range(max(start, 0), min(stop, self.count))
        vectors = [self._block(index // self._batch)[index % self._batch] for index in inner]
        self._forget_before(start // self._batch)
        zero = np.zeros_like(vectors[0] if vectors else self._block(0)[0])
        before = [zero] * (min(0, stop) - min(0, start))
        return np.stack([*before, *vectors, *[zero] * (stop - start - len(before) - len(vectors))])

    def _block(self, number: int) -> np.ndarray:
        if number not in self._blocks:
            indices = np.minimum(number * self._batch + np.arange(self._batch), self.count - 1)
            steps = LSE_MFCC_STEPS_PER_FRAME * indices[:, None] + np.arange(MFCC_PER_WINDOW)
            self._blocks[number] = np.asarray(self._embed(self._mfcc[steps]))
        return self._blocks[number]

    def _forget_before(self, number: int) -> None:
        for old in [key for key in self._blocks if key < number]:
            del self._blocks[old]


class LseProbe:
    """Takes the frames of one clip in one protocol, in order, and scores them against its sound.

    frames: how many will come. pcm16: int16 16 kHz sound that begins with the first of them.
    """

    def __init__(
        self, protocol: str, lips: LipEmbeddings, sound: SoundEmbeddings, pcm16: np.ndarray, frames: int, batch: int
    ):
        self._protocol, self._lips = protocol, lips
        self._sound = SoundVectors(pcm16, window_count(frames, len(pcm16)), sound, batch)
        self._batcher = Batcher(self._run, batch, overlap=WINDOW_FRAMES - 1)
        self._distances: list[np.ndarray] = []
        self._done = 0

    def add(self, face_u8: np.ndarray) -> None:
        """One frame, uint8 RGB "224 224 3"."""
        self._batcher.add(face_u8)

    def finish(self) -> Scores:
        """LSE-D, LSE-C, offset; NaN and a note where the clip is too short."""
        self._batcher.finish()
        count, name = self._sound.count, self._protocol
        keys = [f"{key}_{name}" for key in ("lse_d", "lse_c", "offset")]
        if not count:
            note = f"LSE {name}: not computed, picture and sound together are shorter than {WINDOW_FRAMES + 1} frames"
            return Scores(dict.fromkeys(keys, math.nan), {}, (note,))
        distances = np.concatenate(self._distances)[:count]
        result = lse.summarise(distances)
        values = (result.distance, result.confidence, float(result.offset_frames))
        by_offset = distances.mean(0)[::-1]  # from -15 on, in the offset's own sign
        curves = {f"offset_{name}": by_offset, f"confidence_{name}": result.frame_confidence}
        return Scores(dict(zip(keys, values, strict=True)), curves)

    def _run(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        if self._done >= self._sound.count:
            return
        lips = np.asarray(self._lips(windows(stacks[0], WINDOW_FRAMES)))
        sound = self._sound.rows(self._done - lse.MAX_SHIFT_FRAMES, self._done + len(lips) + lse.MAX_SHIFT_FRAMES)
        self._distances.append(np.asarray(lse.shift_distances_jit(lips, sound))[:count])
        self._done += count


def whole_frame(frame_u8: np.ndarray) -> np.ndarray:
    """What the uncropped protocol sees: the frame brought to 224 px, its aspect ratio given up."""
    return cv2.resize(frame_u8, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)


def longest_track(boxes: np.ndarray) -> tuple[int, int] | None:
    """First frame and one past the last of the longest track of one face in "t 4", NaN where none was found.

    None where there is no face at all.
    """
    frames = np.flatnonzero(np.isfinite(boxes).all(1))
    if not len(frames):
        return None
    places = [Box(*boxes[index].tolist()) for index in frames]
    shared = np.array([overlap(a, b) for a, b in itertools.pairwise(places)])
    ends = (np.diff(frames) > MAX_STEP_FRAMES) | (shared <= MIN_OVERLAP)
    runs = np.split(frames, np.flatnonzero(ends) + 1)
    longest = max(runs, key=lambda run: run[-1] - run[0])
    return int(longest[0]), int(longest[-1]) + 1


def without_gaps(values: np.ndarray) -> np.ndarray:
    """Rows with a NaN in "t c" filled by straight lines between the rows around them."""
    known = np.isfinite(values).all(1)
    index = np.arange(len(values))
    return np.stack([np.interp(index, index[known], column[known]) for column in values.T], axis=1)


def smoothed_track(boxes: np.ndarray) -> np.ndarray:
    """(centre x, centre y, half-size) "t 3" of a track's boxes "t 4"; gaps (NaN) are filled by straight lines.

    The median over 13 frames counts frames outside the clip as 0, as scipy's `medfilt` and so the reference does.
    """
    boxes = without_gaps(np.asarray(boxes, np.float64))
    half = np.maximum(boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]) / 2
    centre_x, centre_y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    return np.stack([signal.medfilt(v, TRACK_MEDIAN_FRAMES) for v in (centre_x, centre_y, half)], axis=1)


def tracked_face(frame_u8: np.ndarray, centre_x: float, centre_y: float, half: float) -> np.ndarray:
    """What the tracked protocol sees of a frame: 224 px, grey beyond the frame."""
    margin = int(half * (1 + 2 * CROP_SCALE))
    padded = cv2.copyMakeBorder(frame_u8, *[margin] * 4, cv2.BORDER_CONSTANT, value=(GREY, GREY, GREY))
    x, y = centre_x + margin, centre_y + margin
    rows = slice(int(y - half), int(y + half * (1 + 2 * CROP_SCALE)))
    columns = slice(int(x - half * (1 + CROP_SCALE)), int(x + half * (1 + CROP_SCALE)))
    face = padded[max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop]
    if not face.size:  # medfilt's zeros at the ends of a short track can leave nothing
        face = np.full((2, 2, 3), GREY, np.uint8)
    return cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
