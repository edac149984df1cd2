"""Reading sound: any file, any rate, any number of channels, block by block in constant memory.

The speech networks take what librosa.load(sr=16000) gives (ControlTalk inference.py:191-222): float32, the mean of
the channels, resampled by soxr at high quality. `libswresample` is not used: its down-mix is 1.4 times louder and its
filter lets aliases through.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np
import soxr

from ctjax.media.container import (
    AudioInfo,
    MediaError,
    audio_stream,
    decoded,
    opened,
    probe,
    start_time_s,
    video_stream,
)
from ctjax.types import AudioClip

SPEECH_RATE_HZ = 16_000
GAP_TOLERANCE_S = 0.05  # time stamps in whole milliseconds jitter by less; longer holes are filled with silence
_BLOCK_S = 1.0
_FULL_SCALE = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31, np.dtype(np.int64): 2.0**63}


class AudioFile:
    """The sound of an audio or video file as mono float32; may be read any number of times.

    Time zero is the file's: where the sound of a video starts later than its picture, silence comes first.
    Raises: MediaError if the file cannot be read, is cut off, has no sound track or a track without samples.
    """

    def __init__(self, path: str | os.PathLike, sample_rate_hz: int = SPEECH_RATE_HZ):
        info = probe(path)
        if info.audio is None:
            raise MediaError(f"{path}: has no sound" + (", only video" if info.video else " in it"))
        self.path = info.path
        self.source: AudioInfo = info.audio
        self.sample_rate_hz = sample_rate_hz
        self.stated_duration_s = info.duration_s

    def blocks(self, block_samples: int) -> Iterator[np.ndarray]:
        """float32 "s" blocks of `block_samples` at `sample_rate_hz`; the last one holds what is left."""
        return blocks_of(self._resampled(), block_samples)

    def count_samples(self) -> int:
        """The exact length at `sample_rate_hz`, found by decoding once: some seconds for an hour of sound."""
        count = sum(block.shape[1] for block in decoded_audio(self.path))
        return _resampled_length(count, self.source.sample_rate_hz, self.sample_rate_hz)

    def _resampled(self) -> Iterator[np.ndarray]:
        mono = (block.mean(axis=0, dtype=np.float32) for block in decoded_audio(self.path))
        if self.source.sample_rate_hz == self.sample_rate_hz:
            yield from mono
            return
        stream = soxr.ResampleStream(self.source.sample_rate_hz, self.sample_rate_hz, 1, dtype="float32", quality="HQ")
        taken = given = 0
        for block in mono:
            taken += len(block)
            out = stream.resample_chunk(block)
            given += len(out)
            yield out
        rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
        wanted = max(0, _resampled_length(taken, self.source.sample_rate_hz, self.sample_rate_hz) - given)
        yield np.pad(rest, (0, max(0, wanted - len(rest))))[:wanted]


def read_audio(path: str | os.PathLike, sample_rate_hz: int = SPEECH_RATE_HZ) -> AudioClip:
    """The whole sound of a file in memory: float32 mono at `sample_rate_hz`. Raises: MediaError as `AudioFile`."""
    blocks = list(AudioFile(path, sample_rate_hz).blocks(sample_rate_hz))
    return AudioClip(np.concatenate(blocks), sample_rate_hz)


def write_wav(path: str | os.PathLike, samples: np.ndarray, sample_rate_hz: int = SPEECH_RATE_HZ) -> None:
    """Writes mono int16 samples "s" as a wav file of 16 bits."""
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes(np.ascontiguousarray(samples, np.dtype("<i2")).tobytes())


def decoded_audio(path: str | os.PathLike) -> Iterator[np.ndarray]:
    """float32 "c s" blocks at the file's own rate and channels, from the file's time zero, holes filled with silence.

    Raises: MediaError if nothing decodes or the rate or the channels change midway.
    """
    with opened(path) as container:
        stream = audio_stream(container)
        # Sound alone begins at its first sample; beside a picture both begin where the file does.
        start = None if video_stream(container) is None else start_time_s(container)
        rate = channels = None
        position = 0
        for frame in decoded(container, stream):
            samples = _to_float(frame)
            if rate is None:
                rate, channels = frame.sample_rate, len(samples)
            if (frame.sample_rate, len(samples)) != (rate, channels):
                raise MediaError(f"{path}: the sound changes its rate or channels midway; convert it to a plain wav")
            if frame.pts is not None:
                time = frame.pts * frame.time_base
                start = time if start is None else start
                hole = _hole(container, round((time - start) * rate) - position, position, rate)
                yield from _silence(channels, hole, round(_BLOCK_S * rate))
                position += hole
                if (end := _exact_end(stream)) is not None:  # MP4 says where the last packet's padding begins
                    samples = samples[:, : max(0, round((end - start) * rate) - position)]
            position += samples.shape[1]
            yield samples
    if position == 0:
        raise MediaError(f"{path}: the sound track holds no samples")


def blocks_of(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Cuts a stream of arrays anew along the last axis, `size` each; the last block holds what is left."""
    held: list[np.ndarray] = []
    length = 0
    for piece in pieces:
        held.append(piece)
        length += piece.shape[-1]
        if length >= size:
            joined = np.concatenate(held, axis=-1)
            whole = length - length % size
            for start in range(0, whole, size):
                yield joined[..., start : start + size]
            held, length = [joined[..., whole:]], length - whole
    if length:
        yield np.concatenate(held, axis=-1)


def _resampled_length(samples: int, source_hz: int, target_hz: int) -> int:
    """librosa's: rounded up (librosa.resample, fix=True)."""
    return -(-samples * target_hz // source_hz)


def _to_float(frame) -> np.ndarray:
    """Any sample format to float32 "c s" in [-1, 1]."""
    data = frame.to_ndarray()
    if not frame.format.is_planar:  # one row of interleaved channels
        data = data.reshape(-1, frame.layout.nb_channels).T
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype in _FULL_SCALE:
        return (data / _FULL_SCALE[data.dtype]).astype(np.float32)
    return np.nan_to_num(data.astype(np.float32))


def _hole(container, missing: int, position: int, rate: int) -> int:
    """How many of `missing` samples are a true gap: not the jitter of coarse time stamps, not broken ones."""
    if missing <= (GAP_TOLERANCE_S * rate if position else 0):
        return 0
    longest = container.duration / 1e6 * rate if container.duration else missing
    return missing if missing <= longest else 0


def _exact_end(stream) -> Fraction | None:
    if "mov" not in stream.container.format.name.split(",") or stream.duration is None:
        return None
    return ((stream.start_time or 0) + stream.duration) * stream.time_base


def _silence(channels: int, samples: int, block: int) -> Iterator[np.ndarray]:
    for start in range(0, samples, block):
        yield np.zeros((channels, min(block, samples - start)), np.float32)
