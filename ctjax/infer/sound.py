"""From a sound file to feature windows, and to the window of silence."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctjax.features.extract import SAMPLE_RATE_HZ, SpeechFeatures, measure
from ctjax.features.silence import SPEECH_RMS, computed_silence, first_window, not_blown_up
from ctjax.features.windows import WindowStream
from ctjax.infer.options import PathLike
from ctjax.media.audio import AudioFile


class Sound:
    """A sound file, measured in one pass. waveform: its length in samples at 16 kHz, mean, and the variance that it is
    taken to have."""

    def __init__(self, path: PathLike):
        self._file = AudioFile(path)
        self.waveform = not_blown_up(measure(self._blocks))

    def windows(self, features: SpeechFeatures, *, fps: float, frames: int) -> Iterator[np.ndarray]:
        """The feature window of every video frame, "18 c" each, in memory that does not grow with the clip."""
        stream = WindowStream(fps=fps, frames=frames)
        for ready in stream.windows(features.stream(self._blocks, self.waveform)):
            yield from ready

    def first_window(self, features: SpeechFeatures, loudness_rms: float) -> np.ndarray:
        """The window at the start of the sound, "18 c", heard at no more than the loudness given (rms)."""
        return first_window(features, self._blocks, not_blown_up(self.waveform, loudness_rms))

    def _blocks(self) -> Iterator[np.ndarray]:
        return self._file.blocks(SAMPLE_RATE_HZ)


def silence_window(features: SpeechFeatures, recording: PathLike | None) -> np.ndarray:
    """The feature window of silence, float32 "18 c": the start of a recording (ControlTalk inference.py:196-220),
    else computed room noise; heard in either case beside speech of usual loudness."""
    if recording is not None:
        return Sound(recording).first_window(features, SPEECH_RMS)
    return computed_silence(features)
