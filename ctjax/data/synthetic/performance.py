"""What a synthetic speaker does besides speaking: sways the head, nods along, blinks, looks about, raises the brows."""

from __future__ import annotations

import numpy as np

from ctjax.data.synthetic.head import Gesture

WIDE_SHARE = 0.35  # of the clips, in which the head turns as far as it can
LIMITS_DEG = (35.0, 20.0, 15.0)  # yaw, pitch, roll
_NATURAL_DEG, _WIDE_DEG = (7.0, 4.0, 3.0), (22.0, 11.0, 8.0)
_BLINK_S = (0.07, 0.16)  # to close, to open


def gestures(times_s: np.ndarray, loudness: np.ndarray, rng: np.random.Generator) -> list[Gesture]:
    """One for each time ("t", seconds); loudness: "t" in [0, 1], which nods and brows follow."""
    wide = rng.random() < WIDE_SHARE
    spread = _WIDE_DEG if wide else _NATURAL_DEG
    base = rng.normal(0, 1, 3) * (5.0, 3.5, 2.5)
    emphasis = _smooth(loudness, 5) - _smooth(loudness, 25)
    yaw, pitch, roll = (
        b + s * _wander(times_s, rng, 0.08 if wide else 0.12, 0.45) for b, s in zip(base, spread, strict=True)
    )
    pitch = pitch - rng.uniform(0, 8) * emphasis
    yaw, pitch, roll = (np.clip(v, -limit, limit) for v, limit in zip((yaw, pitch, roll), LIMITS_DEG, strict=True))
    shift_x = rng.normal(0, 0.012) + 0.012 * _wander(times_s, rng, 0.1, 0.4) + 0.0006 * yaw
    shift_y = rng.normal(0, 0.010) + 0.008 * _wander(times_s, rng, 0.1, 0.4)
    scale = rng.uniform(0.93, 1.04) * (1 + 0.012 * _wander(times_s, rng, 0.08, 0.3))
    gaze_x, gaze_y = _glances(times_s, rng)
    # The eyes stay with the viewer while the head turns.
    gaze_x, gaze_y = np.clip(gaze_x - yaw / 45, -1, 1), np.clip(gaze_y - pitch / 60, -1, 1)
    brows = np.clip(0.45 * _wander(times_s, rng, 0.1, 0.5) + rng.uniform(0, 1.6) * emphasis, -1, 1)
    curves = (yaw, pitch, roll, shift_x, shift_y, scale, _blinks(times_s, rng), gaze_x, gaze_y, brows)
    return [Gesture(*map(float, values)) for values in zip(*curves, strict=True)]


def _wander(times_s: np.ndarray, rng: np.random.Generator, low_hz: float, high_hz: float) -> np.ndarray:
    """A smooth curve about 0 of about unit deviation: waves of frequencies between the two."""
    waves = 5
    frequency = np.exp(rng.uniform(np.log(low_hz), np.log(high_hz), waves))
    weight = rng.normal(0, 1, waves) / np.sqrt(frequency / low_hz)
    weight *= np.sqrt(2) / np.linalg.norm(weight)
    return np.sin(2 * np.pi * (frequency * times_s[:, None] + rng.random(waves))) @ weight


def _blinks(times_s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shut = np.zeros(len(times_s))
    moment = times_s[0] + rng.uniform(0.1, 2.5)
    while moment < times_s[-1]:
        since = times_s - moment
        shut = np.maximum(shut, np.clip(np.where(since < 0, 1 + since / _BLINK_S[0], 1.25 - since / _BLINK_S[1]), 0, 1))
        moment += 0.35 + rng.exponential(2.6)
    return shut


def _glances(times_s: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mostly at the viewer, sometimes aside; the eyes jump between the two."""
    x, y = np.zeros(len(times_s)), np.zeros(len(times_s))
    moment = times_s[0]
    while moment < times_s[-1]:
        away = rng.random() < 0.3
        here = times_s >= moment
        x[here], y[here] = (rng.normal(0, 0.45), rng.normal(0, 0.3)) if away else rng.normal(0, 0.06, 2)
        moment += rng.uniform(0.3, 0.9) if away else rng.uniform(0.6, 2.2)
    return x, y


def _smooth(curve: np.ndarray, frames: int) -> np.ndarray:
    window = np.hanning(frames + 2)
    return np.convolve(curve, window / window.sum(), "same")
