"""From a sound file to feature windows, and what silence is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctjax.features.extract import SAMPLE_RATE_HZ, SpeechFeatures, Waveform, measure
from ctjax.features.windows import WINDOW_STEPS, WindowStream
from ctjax.infer.options import PathLike
from ctjax.media.audio import AudioFile

# HuBERT's input is brought to unit variance. A recording without speech would be blown up to a roar by that, and the
# mouth would follow the noise: quieter sound than this (-54 dB of full scale) is taken as if it were this loud.
QUIET_RMS = 0.002
# Silence is room noise as loud as in the released tool's recording (rms 0.0003), beside speech of usual loudness.
ROOM_NOISE_RMS = 0.0003
SPEECH_RMS = 0.05
_SILENCE_S = 1.0


class Sound:
    """A sound file, measured in one pass. waveform: its length in samples at 16 kHz, mean, and the variance that it is
    taken to have."""

    def __init__(self, path: PathLike):
        self._file = AudioFile(path)
        self.waveform = _not_blown_up(measure(self._blocks), QUIET_RMS)

    def windows(self, features: SpeechFeatures, *, fps: float, frames: int) -> Iterator[np.ndarray]:
        """The feature window of every video frame, "18 c" each, in memory that does not grow with the clip."""
        stream = WindowStream(fps=fps, frames=frames)
        for ready in stream.windows(features.stream(self._blocks, self.waveform)):
            yield from ready

    def first_window(self, features: SpeechFeatures, loudness_rms: float) -> np.ndarray:
        """The window at the start of the sound, "18 c", heard at no more than the loudness given (rms)."""
        waveform = _not_blown_up(self.waveform, loudness_rms)
        return _first_window(features.stream(self._blocks, waveform))

    def _blocks(self) -> Iterator[np.ndarray]:
        return self._file.blocks(SAMPLE_RATE_HZ)


def silence_window(features: SpeechFeatures, recording: PathLike | None) -> np.ndarray:
    """The feature window of silence, float32 "18 c": the start of a recording (ControlTalk inference.py:196-220),
    else computed room noise; heard in either case beside speech of usual loudness."""
    if recording is not None:
        return Sound(recording).first_window(features, SPEECH_RMS)
    noise = np.random.default_rng(0).normal(0, ROOM_NOISE_RMS, int(SAMPLE_RATE_HZ * _SILENCE_S)).astype(np.float32)
    return _first_window(features.stream(lambda: [noise], Waveform(len(noise), 0.0, SPEECH_RMS**2)))


def _not_blown_up(waveform: Waveform, rms: float) -> Waveform:
    return waveform._replace(variance=max(waveform.variance, rms**2))


def _first_window(steps: Iterator[np.ndarray]) -> np.ndarray:
    window = next(steps)[:WINDOW_STEPS]
    return np.pad(window, ((0, WINDOW_STEPS - len(window)), (0, 0)), mode="edge")
