"""Which feature steps belong to which video frame: index arithmetic, no networks.

HuBERT gives 50 steps a second; the expression of video frame i sees a window of 18 of them that *begins* at the
frame's time. Two rules are here. `frame_windows` is ours: as many frames as the sound is long, windows that reach
past the end repeat the last step. `reference_windows` is the released tool's, which stops at the last full window
and so loses the clip's tail; it is kept for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from ctjax.types import UserError

WINDOW_STEPS = 18  # ControlTalk inference.py:197
STEPS_PER_SECOND = 50.0  # HuBERT: 16000 Hz over a stride of 320 samples
SYNC_MEL_STEPS_PER_SECOND = 80.0  # Wav2Lip: 16000 Hz over a hop of 200 samples (color_syncnet_train.py:55)
LSE_MFCC_STEPS_PER_FRAME = 4  # syncnet_python: 100 MFCC steps a second at its fixed 25 fps (SyncNetInstance.py)


def frame_count(samples: int, sample_rate_hz: int, fps: float) -> int:
    """Video frames that cover `samples` of sound: at least one, less than one frame more than the sound."""
    _check_fps(fps)
    return max(1, math.ceil(samples * fps / sample_rate_hz - 1e-6))


def window_starts(frames: int, fps: float) -> np.ndarray:
    """First feature step of each frame's window, `int(i * 50 / fps)` (ControlTalk inference.py:216): int64 "t"."""
    _check_fps(fps)
    return (np.arange(frames) * STEPS_PER_SECOND / fps).astype(np.int64)


def frame_windows(steps: int, frames: int, fps: float) -> np.ndarray:
    """Feature steps of each frame's window: int64 "t 18" in [0, steps). Past the end the last step repeats."""
    if steps < 1:
        raise UserError("no feature steps: the sound is empty")
    return np.minimum(window_starts(frames, fps)[:, None] + np.arange(WINDOW_STEPS), steps - 1)


def reference_windows(steps: int, fps: float) -> np.ndarray:
    """The released tool's windows as (start, stop): int64 "t 2" (ControlTalk inference.py:211-224).

    The first window that would overrun is replaced by the last 18 steps and ends the list. With fewer than 18 steps
    that is one short window, read from a negative start as Python slices do.
    """
    _check_fps(fps)
    rows = []
    for frame in range(steps * math.ceil(fps / STEPS_PER_SECOND) + 1):
        start = int(frame * STEPS_PER_SECOND / fps)
        if start + WINDOW_STEPS > steps:
            last, stop, _ = slice(steps - WINDOW_STEPS, None).indices(steps)
            rows.append((last, stop))
            break
        rows.append((start, start + WINDOW_STEPS))
    return np.array(rows, np.int64)


def reference_frame_cycle(source_frames: int, frames: int, *, still: bool = False) -> np.ndarray:
    """Source frame shown in each output frame: forwards, then backwards with both ends doubled: int64 "t".

    (ControlTalk inference.py:279-283; its datagen at 79-82 gives the same.) `still`: the source is one picture.
    """
    if still:
        return np.zeros(frames, np.int64)
    there_and_back = np.concatenate([np.arange(source_frames), np.arange(source_frames)[::-1]])
    return there_and_back[np.arange(frames) % len(there_and_back)]


def batch_sizes(frames: int, batch: int) -> np.ndarray:
    """Sizes of consecutive batches, the last one smaller (ControlTalk inference.py:73-128): int64."""
    full, rest = divmod(frames, batch)
    return np.array([batch] * full + [rest] * (rest > 0), np.int64)


def sync_mel_starts(frames: int, fps: float = 25.0) -> np.ndarray:
    """First of the 16 mel steps that Wav2Lip's expert sees with the five frames from each frame on: int64 "t"."""
    _check_fps(fps)
    return (SYNC_MEL_STEPS_PER_SECOND * (np.arange(frames) / fps)).astype(np.int64)


def lse_mfcc_starts(frames: int) -> np.ndarray:
    """First of the 20 MFCC steps that the Oxford SyncNet sees with the five frames from each frame on: int64 "t"."""
    return np.arange(frames, dtype=np.int64) * LSE_MFCC_STEPS_PER_FRAME


class WindowStream:
    """Turns feature chunks, as they come, into the windows of `frame_windows`, holding only the steps still needed.

    >>> stream = WindowStream(fps=25, frames=frames)
    >>> for windows in stream.windows(chunks):  # "n 18 c", n varies; together exactly `frames`
    ...     ...
    """

    def __init__(self, *, fps: float, frames: int):
        self._starts = window_starts(frames, fps)
        self._next = 0  # frame
        self._first = 0  # feature step of the buffer's first row
        self._buffer: np.ndarray | None = None

    def windows(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Every frame's window, in order, from all the chunks ("l c", any l)."""
        for chunk in chunks:
            ready = self.push(chunk)
            if len(ready):
                yield ready
        rest = self.finish()
        if len(rest):
            yield rest

    def push(self, chunk: np.ndarray) -> np.ndarray:
        """Windows that the steps so far complete: "n 18 c", n may be 0."""
        chunk = np.asarray(chunk)
        if chunk.ndim != 2:
            raise ValueError(f"a feature chunk has axes (step, channel), this one has shape {chunk.shape}")
        if not len(chunk):
            return np.zeros((0, WINDOW_STEPS, chunk.shape[1]), chunk.dtype)
        self._buffer = chunk if self._buffer is None else np.concatenate([self._buffer, chunk])
        stop = self._first + len(self._buffer)
        complete = int(np.searchsorted(self._starts, stop - WINDOW_STEPS, side="right"))
        windows = self._take(max(complete, self._next))
        keep_from = self._starts[self._next] if self._next < len(self._starts) else stop
        drop = int(min(max(keep_from - self._first, 0), len(self._buffer) - 1))  # the last step may have to repeat
        self._buffer, self._first = self._buffer[drop:].copy(), self._first + drop
        return windows

    def finish(self) -> np.ndarray:
        """Windows of the frames that are left; the last step repeats."""
        if self._buffer is None:
            raise UserError("no feature steps: the sound is empty")
        return self._take(len(self._starts))

    def _take(self, upto: int) -> np.ndarray:
        starts = self._starts[self._next : upto, None]
        self._next = max(upto, self._next)
        rows = np.clip(starts + np.arange(WINDOW_STEPS) - self._first, 0, len(self._buffer) - 1)
        return self._buffer[rows]


def _check_fps(fps: float) -> None:
    if not (math.isfinite(fps) and fps > 0):
        raise UserError(f"fps must be a positive number, not {fps}")
