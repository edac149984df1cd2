"""What silence sounds like to the speech network, and how quiet recordings are kept from being blown up."""

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
