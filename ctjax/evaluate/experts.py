"""Sync as trained experts see it: Wav2Lip's, and this project's own. Both score every frame of the face track."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ctjax.evaluate.batching import Batcher, joined, known_mean, windows
from ctjax.evaluate.faces import Crop, FaceSeries
from ctjax.evaluate.results import Scores
from ctjax.evaluate.sync import FPS, without_gaps
from ctjax.faces.mouth import mouth_boxes
from ctjax.features.extract import SpeechFeatures, measure
from ctjax.features.mel import BANDS, HOP, SYNC_STEPS, melspectrogram
from ctjax.features.windows import WindowStream, sync_mel_starts
from ctjax.losses.mouth import crop_boxes
from ctjax.losses.sync_expert import SyncExpert
from ctjax.losses.wav2lip_syncnet import FACE_HEIGHT, FACE_WIDTH, FRAMES, Wav2LipSyncNet, cosine, cosine_bce

FULL_SCALE = np.float32(32768)
BLOCK_SAMPLES = 16000


def wav2lip_loss(
    net: Wav2LipSyncNet, faces_u8: UInt8[Array, "b 5 48 96 3"], mel: Float[Array, "b 80 16"]
) -> Float[Array, " b"]:
    """-log(cosine) of each window, as the expert was trained (BCE with the cosine as the probability)."""
    similarity = cosine(net.embed_face(faces_u8.astype(jnp.float32) / 255.0), net.embed_audio(mel))
    return cosine_bce(similarity, jnp.ones_like(similarity))


def expert_distance(
    expert: SyncExpert,
    params: dict,
    faces_u8: UInt8[Array, "b t 256 256 3"],
    boxes: Float[Array, "b t 4"],
    speech: Float[Array, "b l c"],
) -> Float[Array, " b"]:
    """1 - cosine of each window: mouths at `boxes` of 256 px face crops, and the feature window of the first frame."""
    b, t, *shape = faces_u8.shape
    images_01 = faces_u8.reshape(b * t, *shape).astype(jnp.float32) / 255.0
    mouths = crop_boxes(images_01, boxes.reshape(b * t, 4), expert.config.crop)
    lips = expert.embed_mouths(params, mouths.reshape(b, t, *mouths.shape[1:]))
    return 1.0 - jnp.sum(lips * expert.embed_sound(params, speech), -1)


class Wav2LipProbe:
    """Feeds frames `start` .. `stop` - 1, a track, to Wav2Lip's expert: the box of each frame at 96 px, lower half."""

    def __init__(self, run: Callable, faces: FaceSeries, track: tuple[int, int], pcm16: np.ndarray, batch: int):
        self._run, (self._start, stop) = run, track
        self._boxes = without_gaps(faces.boxes[self._start : stop].astype(np.float64))
        self._mel = _mel_windows(pcm16, self._start, stop - self._start)
        self._found: list[np.ndarray] = []
        self._batcher = Batcher(self._score, batch, overlap=FRAMES - 1)
        self._done = 0

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        if 0 <= index - self._start < len(self._boxes):
            self._batcher.add(lower_half(frame_u8, self._boxes[index - self._start]))

    def _score(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        faces = windows(stacks[0], FRAMES)
        count = min(count, len(self._mel) - self._done)  # the sound may end before the picture
        if count > 0:
            rows = np.minimum(self._done + np.arange(len(faces)), len(self._mel) - 1)
            self._found.append(self._run(faces, self._mel[rows])[:count])
        self._done += len(faces)

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"wav2lip_expert_loss": known_mean(joined(self._found))}, {})


def _mel_windows(pcm16: np.ndarray, first_frame: int, frames: int) -> np.ndarray:
    """The expert's mel steps "n 80 16" of `frames` frames from `first_frame` on, as far as the sound goes."""
    samples = pcm16 / FULL_SCALE
    if len(samples) < SYNC_STEPS * HOP:
        return np.zeros((0, BANDS, SYNC_STEPS), np.float32)
    mel = melspectrogram(samples)
    starts = sync_mel_starts(first_frame + frames)[first_frame:]
    starts = starts[starts + SYNC_STEPS <= mel.shape[1]]
    return np.lib.stride_tricks.sliding_window_view(mel, SYNC_STEPS, axis=1).transpose(1, 0, 2)[starts]


def lower_half(frame_u8: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The lower half "48 96 3" of the face box at 96 px, cut off at the frame's edge (Wav2Lip preprocess.py)."""
    height, width = frame_u8.shape[:2]
    x0, y0 = (int(np.clip(v, 0, limit - 2)) for v, limit in zip(box[:2], (width, height), strict=True))
    x1, y1 = (int(np.clip(v, low + 2, limit)) for v, low, limit in zip(box[2:], (x0, y0), (width, height), strict=True))
    return cv2.resize(frame_u8[y0:y1, x0:x1], (FACE_WIDTH, FACE_WIDTH))[FACE_WIDTH - FACE_HEIGHT :]


class ExpertProbe:
    """Feeds a track to this project's sync expert: mouths out of the clip's 256 px crop, and HuBERT windows."""

    def __init__(
        self,
        run: Callable,
        speech: SpeechFeatures,
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
        self._speech = self._windows(speech, pcm16, stop)
        self._found: list[np.ndarray] = []
        self._frames = frames
        self._batcher = Batcher(self._score, batch, overlap=frames - 1)

    def _windows(self, speech: SpeechFeatures, pcm16: np.ndarray, stop: int) -> Iterator[np.ndarray]:
        """The feature window of each frame of the track, in order."""

        def blocks() -> Iterator[np.ndarray]:
            for start in range(0, len(pcm16), BLOCK_SAMPLES):
                yield pcm16[start : start + BLOCK_SAMPLES] / FULL_SCALE

        stream = WindowStream(fps=FPS, frames=stop)
        found = (window for part in stream.windows(speech.stream(blocks, measure(blocks))) for window in part)
        for _ in range(self._start):
            next(found)
        return found

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        if 0 <= index - self._start < len(self._boxes):
            self._batcher.add(self._crop.cut(frame_u8), self._boxes[index - self._start], next(self._speech))

    def _score(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        faces, boxes = (windows(stack, self._frames) for stack in stacks[:2])
        self._found.append(self._run(faces, boxes, stacks[2][: len(faces)])[:count])

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"expert_distance": known_mean(joined(self._found))}, {})
