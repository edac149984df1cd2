"""Wav2Lip's mel spectrogram, what its sync expert listens to: 80 bands, 80 steps a second.

Numbers and order are Wav2Lip's audio.py and hparams.py under the librosa it pins (0.7.0): reflected edges, amplitude
(not power), Slaney's mel scale and area norm. Newer librosa pads with zeros instead. Runs on the host, in float64
inside.
"""

from __future__ import annotations

import functools

import numpy as np
import scipy.signal

from ctjax.types import UserError

SAMPLE_RATE_HZ = 16000
FFT_SIZE = 800  # also the window's length
HOP = 200
BANDS = 80
LOWEST_HZ, HIGHEST_HZ = 55.0, 7600.0
PRE_EMPHASIS = 0.97
REFERENCE_DB = 20.0
MIN_DB = -100.0
MAX_ABS = 4.0  # the decibels end up in [-4, 4]
SYNC_STEPS = 16  # steps that the sync expert sees at once

# Slaney's scale: linear below 1000 Hz, logarithmic above.
_HZ_PER_MEL = 200.0 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0


def melspectrogram(samples: np.ndarray) -> np.ndarray:
    """Sound "s" (float, 16 kHz, in [-1, 1]) to float32 "80 l" in [-4, 4], l = 1 + s // 200.

    Raises UserError for sound of 400 samples or fewer, which cannot be reflected at its ends.
    """
    magnitude = np.abs(spectrum(pre_emphasis(samples)))
    decibels = 20 * np.log10(np.maximum(10 ** (MIN_DB / 20), mel_basis() @ magnitude)) - REFERENCE_DB
    scaled = 2 * MAX_ABS * (decibels - MIN_DB) / -MIN_DB - MAX_ABS
    return np.clip(scaled, -MAX_ABS, MAX_ABS).astype(np.float32)


def pre_emphasis(samples: np.ndarray) -> np.ndarray:
    """y[n] = x[n] - 0.97 x[n-1]: float64 "s"."""
    return scipy.signal.lfilter([1, -PRE_EMPHASIS], [1], np.asarray(samples, np.float64))


def spectrum(samples: np.ndarray) -> np.ndarray:
    """Short-time Fourier transform with Hann windows centred on multiples of 200 samples: complex128 "401 l"."""
    if len(samples) <= FFT_SIZE // 2:
        raise UserError(
            f"the mel spectrogram needs more than {FFT_SIZE // 2} samples of 16 kHz sound, got {len(samples)}"
        )
    padded = np.pad(samples, FFT_SIZE // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT_SIZE)[::HOP]
    return np.fft.rfft(frames * scipy.signal.get_window("hann", FFT_SIZE), axis=1).T


@functools.cache
def mel_basis() -> np.ndarray:
    """Triangular filters, each of area 2 / width in Hz (Slaney): float64 "80 401"."""
    edges = _hz(np.linspace(_mel(LOWEST_HZ), _mel(HIGHEST_HZ), BANDS + 2))
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, FFT_SIZE // 2 + 1)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _mel(hz: float) -> float:
    if hz < _BREAK_HZ:
        return hz / _HZ_PER_MEL
    return _BREAK_HZ / _HZ_PER_MEL + np.log(hz / _BREAK_HZ) / _LOG_STEP


def _hz(mel: np.ndarray) -> np.ndarray:
    break_mel = _BREAK_HZ / _HZ_PER_MEL
    return np.where(mel < break_mel, mel * _HZ_PER_MEL, _BREAK_HZ * np.exp(_LOG_STEP * (mel - break_mel)))
