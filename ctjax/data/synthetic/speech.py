"""Speech from a synthesiser, with the time of every phoneme.

eSpeak NG is called through its C library, which the package `espeakng-loader` carries (extra `synthetic`). Its speech
is formant synthesis: clear, robotic, and exact about where each phoneme begins.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import soxr

from ctjax.data.synthetic import espeak
from ctjax.media.audio import SPEECH_RATE_HZ
from ctjax.types import AudioClip, UserError

LANGUAGES = ("en-us", "en-gb-x-rp", "fr", "cmn")
# eSpeak's speakers: men and women of different vocal tracts
VARIANTS = ("m1", "m2", "m3", "m4", "m7", "f1", "f2", "f3", "f4", "f5")
SHORTEST_PAUSE_S = 0.08
PAUSE = ""  # the symbol of a stretch without a phoneme


class Phoneme(NamedTuple):
    """symbol: IPA as eSpeak writes it, stress marks kept; `PAUSE` where nothing is spoken. Times in seconds."""

    symbol: str
    start_s: float
    end_s: float


class Utterance(NamedTuple):
    """sound: mono at 16 kHz; phonemes: without gaps, from 0 to the sound's end."""

    sound: AudioClip
    phonemes: tuple[Phoneme, ...]
    text: str
    voice: str


class Voice(NamedTuple):
    """language: one of `LANGUAGES`; variant: one of `VARIANTS`; words a minute 80..300; pitch and its range 0..99."""

    language: str = "en-us"
    variant: str = "m3"
    words_per_minute: int = 165
    pitch: int = 50
    pitch_range: int = 50


def speak(text: str, voice: Voice | None = None) -> Utterance:
    """`text` spoken by `voice`, always the same. Raises: UserError without the synthesiser or for a voice it lacks."""
    voice = voice or Voice()
    name = f"{voice.language}+{voice.variant}"
    library, data = _installed()
    request = {
        "library": library,
        "data": data,
        "voice": name,
        "rate": voice.words_per_minute,
        "pitch": voice.pitch,
        "range": voice.pitch_range,
        "text": text,
    }
    # -I -S: nothing of the surroundings, and a quick start. See espeak.py for why it is a process of its own.
    command = [sys.executable, "-I", "-S", espeak.__file__]
    done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False)
    head, _, samples = done.stdout.partition(b"\n")
    answer = json.loads(head) if done.returncode == 0 else {"error": "engine"}
    if answer.get("error") == "voice":
        raise UserError(f"the speech synthesiser has no voice {name}; languages: {', '.join(LANGUAGES)}")
    if "error" in answer:
        raise UserError("the speech synthesiser does not start: reinstall the package espeakng-loader")
    waveform = np.frombuffer(samples, "<i2").astype(np.float32) / 2**15
    sound = soxr.resample(waveform, answer["rate_hz"], SPEECH_RATE_HZ, quality="HQ")
    return Utterance(
        AudioClip(sound, SPEECH_RATE_HZ), _phonemes(answer["marks"], len(sound) / SPEECH_RATE_HZ), text, name
    )


@functools.cache
def _installed() -> tuple[str, str]:
    """The library's file and the folder of its voices."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("speech synthesis needs the extra `synthetic`: pip install 'ctjax[synthetic]'") from None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


def _phonemes(marks: list[tuple[float, str]], duration_s: float) -> tuple[Phoneme, ...]:
    """Marks say where a phoneme begins; it lasts until the next mark."""
    # A symbol in brackets marks a change of language, which is no sound.
    begins = [(min(max(start, 0.0), duration_s), s.strip("_ ")) for start, s in marks if not s.startswith("(")]
    if not begins or begins[0][0] > 0:
        begins.insert(0, (0.0, PAUSE))
    ends = [start for start, _ in begins[1:]] + [duration_s]
    found: list[Phoneme] = []
    for (start, symbol), end in zip(begins, ends, strict=True):
        if found and symbol == PAUSE and end - start < SHORTEST_PAUSE_S:
            found[-1] = found[-1]._replace(end_s=end)  # a join of syllables, not a pause
        elif end > start:
            found.append(Phoneme(symbol, start, end))
    return tuple(found)
