"""Wav2Lip's mel spectrogram against the recorded reference run."""

import numpy as np
import pytest
from parity import record

from ctjax.features import mel
from ctjax.features.windows import sync_mel_starts
from ctjax.types import UserError

RECORD = record("wav2lip_mel")
WAVE = RECORD.inputs["wave"]


def test_every_recorded_stage():
    emphasised = mel.pre_emphasis(WAVE)
    magnitude = np.abs(mel.spectrum(emphasised))
    found = {
        "preemphasis": emphasised,
        "stft_abs": magnitude,
        "linear_mel": mel.mel_basis() @ magnitude,
        "mel_basis": mel.mel_basis(),
        "mel_reflect": mel.melspectrogram(WAVE),
    }
    # mel_constant is the other padding, of newer librosa: recorded to tell the two apart.
    assert set(RECORD.outputs) - set(found) == {"mel_constant"}
    for name, value in found.items():
        RECORD.check(name, value)
    assert np.abs(found["mel_reflect"][:, :6] - RECORD.outputs["mel_constant"]).max() > 0.1


def test_constants_are_the_recorded_ones():
    config = RECORD.config
    assert (config["sample_rate"], config["n_fft"], config["hop_size"]) == (mel.SAMPLE_RATE_HZ, mel.FFT_SIZE, mel.HOP)
    assert (config["num_mels"], config["fmin"], config["fmax"]) == (mel.BANDS, mel.LOWEST_HZ, mel.HIGHEST_HZ)
    assert config["max_abs_value"] == mel.MAX_ABS and config["preemphasis"] == mel.PRE_EMPHASIS


def test_windows_of_the_sync_expert_fit():
    spectrogram = mel.melspectrogram(WAVE)
    assert spectrogram.shape == (80, 81) and spectrogram.dtype == np.float32
    last = sync_mel_starts(21)[-1]
    assert spectrogram[:, last : last + mel.SYNC_STEPS].shape == (80, 16)


def test_silence_is_the_floor():
    assert (mel.melspectrogram(np.zeros(16000, np.float32)) == -4.0).all()


def test_sound_too_short_is_refused():
    assert mel.melspectrogram(np.zeros(401, np.float32)).shape == (80, 3)
    with pytest.raises(UserError, match="more than 400 samples"):
        mel.melspectrogram(np.zeros(400, np.float32))
