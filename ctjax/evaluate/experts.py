"""Sync as trained experts see it: Wav2Lip's, and this project's own. Both score every frame of the face track."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ctjax.evaluate.batching import Batcher, joined, known_mean, windows
from ctjax.evaluate.faces import Crop, FaceSeries
from ctjax.evaluate.lse import MAX_SHIFT_FRAMES
from ctjax.evaluate.results import Scores
from ctjax.evaluate.sync import FPS, without_gaps
from ctjax.faces.mouth import mouth_boxes
from ctjax.features.extract import SpeechFeatures, measure
from ctjax.features.mel import BANDS, HOP, SYNC_STEPS, melspectrogram
from ctjax.features.silence import not_blown_up
from ctjax.features.windows import WindowStream, sync_mel_starts
from ctjax.losses.mouth import crop_boxes
from ctjax.losses.sync_expert import MEL_MAX_ABS, SyncExpert
from ctjax.losses.wav2lip_syncnet import FACE_HEIGHT, FACE_WIDTH, FRAMES, Wav2LipSyncNet, cosine, cosine_bce

FULL_SCALE = np.float32(32768)
BLOCK_SAMPLES = 16000
MEL_BLOCK_STEPS = 4000  # 50 seconds
MEL_REACH_STEPS = 3  # the window of a step sees two steps' sound on either side, the pre-emphasis a sample before it

# (int16 16 kHz sound of the clip, first frame, one past the last) -> the window of sound of each frame "l c", in order
Hearing = Callable[[np.ndarray, int, int], Iterator[np.ndarray]]


def wav2lip_loss(
    net: Wav2LipSyncNet, faces_u8: UInt8[Array, "b 5 48 96 3"], mel: Float[Array, "b 80 16"]
) -> Float[Array, " b"]:
    """-log(cosine) of each window, as the expert was trained (BCE with the cosine as the probability)."""
    similarity = cosine(net.embed_face(faces_u8.astype(jnp.float32) / 255.0), net.embed_audio(mel))
    return cosine_bce(similarity, jnp.ones_like(similarity))


def expert_embeddings(
    expert: SyncExpert,
    params: dict,
    faces_u8: UInt8[Array, "b t 256 256 3"],
    boxes: Float[Array, "b t 4"],
    sound: Float[Array, "b l c"],
) -> Float[Array, "b 2 e"]:
    """Unit embeddings of mouths at `boxes` of 256 px face crops, and of the window of sound that begins with each."""
    b, t, *shape = faces_u8.shape
    images_01 = faces_u8.reshape(b * t, *shape).astype(jnp.float32) / 255.0
    mouths = crop_boxes(images_01, boxes.reshape(b * t, 4), expert.config.crop)
    lips = expert.embed_mouths(params, mouths.reshape(b, t, *mouths.shape[1:]))
    return jnp.stack([lips, expert.embed_sound(params, sound)], axis=1)


class OffsetDistances:
    """Mean distance (1 - cosine) of unit embeddings of mouths and sound, in step and by offset, added up as they come.

    An offset is negative where the sound is taken to come late, as in `lse`. Only mouths that have a partner at every
    offset count by offset, so no more than 30 embeddings are ever held.
    """

    def __init__(self):
        self._lips = self._sound = np.zeros((0, 0), np.float32)
        self._in_step, self._by_offset = 0.0, np.zeros(2 * MAX_SHIFT_FRAMES + 1)
        self._count = self._inner_count = 0

    def add(self, lips: np.ndarray, sound: np.ndarray) -> None:
        """The next frames' embeddings, "n e" each, n > 0."""
        self._in_step += float(np.sum(1.0 - np.sum(lips * sound, -1)))
        self._lips, self._sound = (
            np.concatenate([held.reshape(-1, new.shape[1]), new])
            for held, new in ((self._lips, lips), (self._sound, sound))
        )
        self._count += len(lips)
        reach = MAX_SHIFT_FRAMES
        inner = np.arange(reach, len(self._lips) - reach)
        self._inner_count += len(inner)
        for place, offset in enumerate(range(-reach, reach + 1)):
            cosines = np.sum(self._lips[inner] * self._sound[inner - offset], -1)
            self._by_offset[place] += np.sum(1.0 - cosines)
        self._lips, self._sound = self._lips[-2 * reach :], self._sound[-2 * reach :]

    @property
    def in_step(self) -> float:
        """The mean over all frames at no offset; NaN for none."""
        return self._in_step / self._count if self._count else math.nan

    @property
    def by_offset(self) -> np.ndarray | None:
        """The means "31" from -15 to 15 frames; None for fewer than 15 frames with every partner."""
        if self._inner_count < MAX_SHIFT_FRAMES:
            return None
        return (self._by_offset / self._inner_count).astype(np.float32)


class Wav2LipProbe:
    """Feeds frames `start` .. `stop` - 1, a track, to Wav2Lip's expert: the box of each frame at 96 px, lower half."""

    def __init__(self, run: Callable, faces: FaceSeries, track: tuple[int, int], pcm16: np.ndarray, batch: int):
        self._run, (self._start, stop) = run, track
        self._boxes = without_gaps(faces.boxes[self._start : stop].astype(np.float64))
        self._mel, self._mel_starts = mel_windows(pcm16, self._start, stop - self._start)
        self._found: list[np.ndarray] = []
        self._batcher = Batcher(self._score, batch, overlap=FRAMES - 1)
        self._done = 0

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        if 0 <= index - self._start < len(self._boxes):
            self._batcher.add(lower_half(frame_u8, self._boxes[index - self._start]))

    def _score(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        faces = windows(stacks[0], FRAMES)
        count = min(count, len(self._mel_starts) - self._done)  # the sound may end before the picture
        if count > 0:
            rows = np.minimum(self._done + np.arange(len(faces)), len(self._mel_starts) - 1)
            self._found.append(self._run(faces, self._mel[self._mel_starts[rows]])[:count])
        self._done += len(faces)

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"wav2lip_expert_loss": known_mean(joined(self._found))}, {})


def mel_windows(pcm16: np.ndarray, first_frame: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Every run of 16 mel steps "m 80 16", a view; and which of them belongs to each of `frames` frames from
    `first_frame` on, as far as the sound goes."""
    if len(pcm16) < SYNC_STEPS * HOP:
        return np.zeros((0, BANDS, SYNC_STEPS), np.float32), np.zeros(0, np.int64)
    mel = mel_steps(pcm16)
    starts = sync_mel_starts(first_frame + frames)[first_frame:]
    starts = starts[starts + SYNC_STEPS <= mel.shape[1]]
    return np.lib.stride_tricks.sliding_window_view(mel, SYNC_STEPS, axis=1).transpose(1, 0, 2), starts


def mel_steps(pcm16: np.ndarray) -> np.ndarray:
    """`melspectrogram` "80 l" of sound of any length, in stretches, for it takes 40 times the memory of its sound."""
    steps = 1 + len(pcm16) // HOP
    mel = np.empty((BANDS, steps), np.float32)
    for start in range(0, steps, MEL_BLOCK_STEPS):
        stop = min(start + MEL_BLOCK_STEPS, steps)
        first = max(0, min(start, steps - SYNC_STEPS) - MEL_REACH_STEPS)
        part = melspectrogram(pcm16[first * HOP : (stop + MEL_REACH_STEPS) * HOP] / FULL_SCALE)
        mel[:, start:stop] = part[:, start - first : stop - first]
    return mel


def lower_half(frame_u8: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The lower half "48 96 3" of the face box at 96 px, cut off at the frame's edge (Wav2Lip preprocess.py)."""
    height, width = frame_u8.shape[:2]
    x0, y0 = (int(np.clip(v, 0, limit - 2)) for v, limit in zip(box[:2], (width, height), strict=True))
    x1, y1 = (int(np.clip(v, low + 2, limit)) for v, low, limit in zip(box[2:], (x0, y0), (width, height), strict=True))
    return cv2.resize(frame_u8[y0:y1, x0:x1], (FACE_WIDTH, FACE_WIDTH))[FACE_WIDTH - FACE_HEIGHT :]


def hears_hubert(speech: SpeechFeatures) -> Hearing:
    """The feature window of every frame, computed in blocks as the frames ask for them; quiet sound is heard as it was
    in training."""

    def hear(pcm16: np.ndarray, start: int, stop: int) -> Iterator[np.ndarray]:
        def blocks() -> Iterator[np.ndarray]:
            for begin in range(0, len(pcm16), BLOCK_SAMPLES):
                yield pcm16[begin : begin + BLOCK_SAMPLES] / FULL_SCALE

        stream = WindowStream(fps=FPS, frames=stop)
        steps = speech.stream(blocks, not_blown_up(measure(blocks)))
        found = (window for part in stream.windows(steps) for window in part)
        return itertools.islice(found, start, None)

    return hear


def hears_mel(pcm16: np.ndarray, start: int, stop: int) -> Iterator[np.ndarray]:
    """The mel window "16 80" of every frame; where the sound ends before the picture, the last one goes on."""
    mel, starts = mel_windows(pcm16, start, stop - start)
    silence = np.full((BANDS, SYNC_STEPS), -MEL_MAX_ABS, np.float32)
    last = mel[starts[-1]] if len(starts) else silence
    return itertools.chain((mel[index].T for index in starts), itertools.repeat(last.T))


class ExpertProbe:
    """Feeds a track to this project's sync expert: mouths out of the clip's 256 px crop, and windows of sound.

    run: `expert_embeddings` of a batch. hear: see `Hearing`. frames: mouths per window.
    """

    def __init__(
        self,
        run: Callable,
        hear: Hearing,
        frames: int,
        faces: FaceSeries,
        track: tuple[int, int],
        pcm16: np.ndarray,
        batch: int,
    ):
        self._run, (self._start, stop) = run, track
        self._crop: Crop = faces.crop()
        flat = without_gaps(faces.landmarks[self._start : stop].reshape(stop - self._start, -1).astype(np.float64))
        self._boxes = mouth_boxes(self._crop.place(flat.reshape(-1, 68, 2)))
        self._sound = hear(pcm16, self._start, stop)
        self._distances = OffsetDistances()
        self._frames = frames
        self._batcher = Batcher(self._score, batch, overlap=frames - 1)

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        if 0 <= index - self._start < len(self._boxes):
            self._batcher.add(self._crop.cut(frame_u8), self._boxes[index - self._start], next(self._sound))

    def _score(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        faces, boxes = (windows(stack, self._frames) for stack in stacks[:2])
        embeddings = np.asarray(self._run(faces, boxes, stacks[2][: len(faces)]))[:count]
        self._distances.add(embeddings[:, 0], embeddings[:, 1])

    def finish(self) -> Scores:
        self._batcher.finish()
        values = {"expert_distance": self._distances.in_step, "expert_offset": math.nan}
        by_offset = self._distances.by_offset
        if math.isnan(values["expert_distance"]):
            return Scores(values, {})
        if by_offset is None:
            note = "AV offset, own expert: not computed, the face is seen for less than two seconds"
            return Scores(values, {}, (note,))
        values["expert_offset"] = float(np.argmin(by_offset) - MAX_SHIFT_FRAMES)
        return Scores(values, {"offset_expert": by_offset})
