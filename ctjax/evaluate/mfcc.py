"""The 13 MFCCs at 100 Hz that the Oxford SyncNet hears.

Same arithmetic as `python_speech_features.mfcc(int16, 16000)` with its defaults, which joonson/syncnet_python
SyncNetInstance.py calls: float64, rectangular window, power spectrum over 512, 26 mel filters, orthonormal DCT,
sine lifter, and the log energy in place of the first coefficient.
"""

from __future__ import annotations

import functools

import numpy as np
from scipy import fft

SAMPLE_RATE_HZ = 16000
FRAME_SAMPLES, STEP_SAMPLES = 400, 160  # 25 ms every 10 ms
FFT_SIZE = 512
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97
TINY = np.finfo(np.float64).eps  # stands in for an exact zero before a logarithm
BLOCK_FRAMES = 4096  # frames transformed at a time, to bound memory on long sound


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """float32 "s" in [-1, 1] as int16, the form in which the reference reads its .wav."""
    return np.clip(np.round(np.asarray(samples, np.float64) * 32768.0), -32768, 32767).astype(np.int16)


@functools.cache
def mel_filters() -> np.ndarray:
    """Triangular filters "26 257" on the bins of the spectrum; their corners are rounded down to whole bins."""
    mel_top = 2595.0 * np.log10(1.0 + SAMPLE_RATE_HZ / 2 / 700.0)
    corners_hz = 700.0 * (10.0 ** (np.linspace(0.0, mel_top, FILTERS + 2) / 2595.0) - 1.0)
    corners = np.floor((FFT_SIZE + 1) * corners_hz / SAMPLE_RATE_HZ).astype(int)
    filters = np.zeros((FILTERS, FFT_SIZE // 2 + 1))
    for row, (left, peak, right) in enumerate(zip(corners, corners[1:], corners[2:], strict=False)):
        rising, falling = np.arange(left, peak), np.arange(peak, right)
        filters[row, rising] = (rising - left) / max(peak - left, 1)
        filters[row, falling] = (right - falling) / max(right - peak, 1)
    return filters


def frame_count(samples: int) -> int:
    """How many MFCC frames `samples` samples give; the last is padded with zeros."""
    return 1 + max(0, -(-(samples - FRAME_SAMPLES) // STEP_SAMPLES))


def mfcc(pcm16: np.ndarray) -> np.ndarray:
    """MFCCs "frames 13" (float64) of int16 sound "s" at 16 kHz.

    Raises ValueError for sound of another type: the coefficients depend on its scale.
    """
    if pcm16.dtype != np.int16 or pcm16.ndim != 1:
        raise ValueError(f"MFCCs need mono int16 sound, got {pcm16.dtype} {pcm16.shape}")
    frames = frame_count(len(pcm16))
    blocks = [_block(pcm16, start, min(start + BLOCK_FRAMES, frames)) for start in range(0, frames, BLOCK_FRAMES)]
    return np.concatenate(blocks)


def _block(pcm16: np.ndarray, start: int, stop: int) -> np.ndarray:
    first, last = start * STEP_SAMPLES, (stop - 1) * STEP_SAMPLES + FRAME_SAMPLES
    piece = pcm16[max(first - 1, 0) : last].astype(np.float64)
    emphasised = piece[1:] - PREEMPHASIS * piece[:-1]
    if first == 0:
        emphasised = np.concatenate([piece[:1], emphasised])
    emphasised = np.pad(emphasised, (0, last - first - len(emphasised)))
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, FRAME_SAMPLES)[::STEP_SAMPLES]
    power = np.abs(np.fft.rfft(windows, FFT_SIZE)) ** 2 / FFT_SIZE
    energy = power.sum(1)
    bands = power @ mel_filters().T
    bands, energy = (np.where(x == 0, TINY, x) for x in (bands, energy))
    cepstrum = fft.dct(np.log(bands), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1.0 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return cepstrum
