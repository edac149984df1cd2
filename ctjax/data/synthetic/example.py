"""What comes with the package to try it out: someone whom no training has seen, what she says, and how another moves.

python -m ctjax.data.synthetic.example ctjax/infer/assets     # makes all of it again
"""

from __future__ import annotations

import os
import pathlib
import sys

import cv2
import numpy as np

from ctjax.data.records import FPS
from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.head import Gesture, Head
from ctjax.data.synthetic.identity import draw_identity
from ctjax.data.synthetic.speech import Utterance, Voice, speak
from ctjax.media.audio import write_wav
from ctjax.media.mux import VideoWriter

PERSON = 1006  # seeds of the speakers in records are hashes above a million
PORTRAIT_PX = 256
TEXT = "Hello! I am a face that was never filmed. My mouth follows every word."
VOICE = Voice("en-us", "f2", words_per_minute=150, pitch=52)
FRENCH = "Bonjour\u00a0! Je suis un visage que personne n'a jamais film\u00e9. Ma bouche suit chaque mot."
FRENCH_VOICE = Voice("fr", "f2", words_per_minute=150, pitch=52)
DRIVING_PERSON, DRIVING_S, DRIVING_PX = 1017, 4.0, 256
_FRAMING = {"scale": 0.685, "shift_y": 0.041}  # head and shoulders
_RESTING = Mouth(*map(np.float64, (0.0, 0.1, 0.0, 0.0, 0.9, 0.0, 0.2)))


def portrait(size: int = PORTRAIT_PX, person: int = PERSON) -> np.ndarray:
    """uint8 RGB "size size 3": head and shoulders, mouth closed, looking at the viewer."""
    # Drawn twice as large, so that no edge is rough.
    image, _ = Head(draw_identity(person), 2 * size).draw(_RESTING, Gesture(yaw_deg=4, **_FRAMING))
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def utterance(text: str = TEXT, voice: Voice = VOICE) -> Utterance:
    """The sentence with its phonemes."""
    return speak(text, voice)


def driving() -> list[np.ndarray]:
    """uint8 RGB "256 256 3" frames of another head that looks to both sides, up and down, with a closed mouth."""
    head = Head(draw_identity(DRIVING_PERSON), DRIVING_PX)
    phases = np.linspace(0, 2 * np.pi, round(DRIVING_S * FPS), endpoint=False)
    return [
        head.draw(
            _RESTING,
            Gesture(yaw_deg=22 * np.sin(p), pitch_deg=7 * np.sin(2 * p), roll_deg=4 * np.sin(p), **_FRAMING),
        )[0]
        for p in phases
    ]


def write(folder: str | os.PathLike) -> None:
    """portrait.png, speech.wav and speech_french.wav (mono, 16 kHz, 16 bits), and driving.mp4 into `folder`."""
    folder = pathlib.Path(folder)
    cv2.imwrite(str(folder / "portrait.png"), cv2.cvtColor(portrait(), cv2.COLOR_RGB2BGR))
    for name, said in (("speech.wav", utterance()), ("speech_french.wav", utterance(FRENCH, FRENCH_VOICE))):
        sound = said.sound
        peak = float(np.abs(sound.samples).max())
        write_wav(folder / name, np.round(sound.samples * (0.8 * 32767 / peak)), sound.sample_rate_hz)
    with VideoWriter(folder / "driving.mp4", (DRIVING_PX, DRIVING_PX), FPS) as writer:
        for frame in driving():
            writer.write(frame)


if __name__ == "__main__":
    write(sys.argv[1])
