"""The portrait and the sentence that come with the package: someone whom no training has seen, and what she says.

python -m ctjax.data.synthetic.example ctjax/infer/assets     # makes portrait.png and speech.wav again
"""

from __future__ import annotations

import os
import pathlib
import sys

import cv2
import numpy as np

from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.head import Gesture, Head
from ctjax.data.synthetic.identity import draw_identity
from ctjax.data.synthetic.speech import Utterance, Voice, speak
from ctjax.media.audio import write_wav

PERSON = 1006  # seeds of the speakers in records are hashes above a million
PORTRAIT_PX = 256
TEXT = "Hello! I am a face that was never filmed. My mouth follows every word."
VOICE = Voice("en-us", "f2", words_per_minute=150, pitch=52)
_RESTING = Mouth(*map(np.float64, (0.0, 0.1, 0.0, 0.0, 0.9, 0.0, 0.2)))


def portrait(size: int = PORTRAIT_PX, person: int = PERSON) -> np.ndarray:
    """uint8 RGB "size size 3": head and shoulders, mouth closed, looking at the viewer."""
    # Drawn twice as large, so that no edge is rough.
    image, _ = Head(draw_identity(person), 2 * size).draw(_RESTING, Gesture(yaw_deg=4, scale=0.685, shift_y=0.041))
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def utterance() -> Utterance:
    """The sentence with its phonemes."""
    return speak(TEXT, VOICE)


def write(folder: str | os.PathLike) -> None:
    """portrait.png and speech.wav (mono, 16 kHz, 16 bits) into `folder`."""
    folder = pathlib.Path(folder)
    cv2.imwrite(str(folder / "portrait.png"), cv2.cvtColor(portrait(), cv2.COLOR_RGB2BGR))
    sound = utterance().sound
    peak = float(np.abs(sound.samples).max())
    write_wav(folder / "speech.wav", np.round(sound.samples * (0.8 * 32767 / peak)), sound.sample_rate_hz)


if __name__ == "__main__":
    write(sys.argv[1])
