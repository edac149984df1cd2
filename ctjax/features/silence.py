"""Which frames are silent, what silence sounds like to the speech network, and how quiet recordings are kept from being
blown up."""

from __future__ import annotations

import numpy as np

from ctjax.features.extract import SAMPLE_RATE_HZ, Blocks, SpeechFeatures, Waveform
from ctjax.features.windows import WINDOW_STEPS

# HuBERT's input is brought to unit variance. A recording without speech would be blown up to a roar by that, and the
# mouth would follow the noise: quieter sound than this (-54 dB of full scale) is taken as if it were this loud.
QUIET_RMS = 0.002
# Silence is room noise as loud as in the released tool's recording (rms 0.0003), beside speech of usual loudness.
ROOM_NOISE_RMS = 0.0003
SPEECH_RMS = 0.05
_SILENCE_S = 1.0
SILENCE_BELOW_LOUD = 0.01  # -40 dB below the clip's loud frames (95th percentile)
SILENCE_FLOOR = 1e-3  # -60 dBFS: silent whatever the rest of the clip is like
MIN_SILENCE_S = 0.2


def not_blown_up(waveform: Waveform, rms: float = QUIET_RMS) -> Waveform:
    """`waveform`, normalised as if it were at least as loud as `rms`."""
    return waveform._replace(variance=max(waveform.variance, rms**2))


def computed_silence(features: SpeechFeatures) -> np.ndarray:
    """The feature window of computed room noise, heard beside speech of usual loudness: float32 "18 c"."""
    noise = np.random.default_rng(0).normal(0, ROOM_NOISE_RMS, int(SAMPLE_RATE_HZ * _SILENCE_S)).astype(np.float32)
    return first_window(features, lambda: [noise], Waveform(len(noise), 0.0, SPEECH_RMS**2))


def first_window(features: SpeechFeatures, blocks: Blocks, waveform: Waveform) -> np.ndarray:
    """The window at the start of a sound, float32 "18 c"."""
    window = next(features.stream(blocks, waveform))[:WINDOW_STEPS]
    return np.pad(window, ((0, WINDOW_STEPS - len(window)), (0, 0)), mode="edge")


def frame_levels(samples: np.ndarray, sample_rate_hz: int, fps: float, frames: int) -> np.ndarray:
    """RMS of the sound of each video frame, "frames"; 0 after the sound's end."""
    per_frame = sample_rate_hz / fps
    edges = np.round(np.arange(frames + 1) * per_frame).astype(int)
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    counts = np.diff(edges)
    edges = np.minimum(edges, len(samples))
    return np.sqrt(np.diff(energy[edges]) / np.maximum(counts, 1))


def silent_frames(levels: np.ndarray, fps: float) -> np.ndarray:
    """Which frames are silent, bool "t": quieter than -40 dB below the 95th percentile of the clip or than -60 dBFS,
    in a stretch of at least 0.2 s."""
    if not len(levels):
        return np.zeros(0, bool)
    quiet = levels < max(SILENCE_BELOW_LOUD * np.percentile(levels, 95), SILENCE_FLOOR)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8)))
    silent = np.zeros(len(levels), bool)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= MIN_SILENCE_S * fps:
            silent[start:stop] = True
    return silent
