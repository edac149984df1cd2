"""Speech from a synthesiser, with the time of every phoneme.

eSpeak NG is called through its C library, which the package `espeakng-loader` carries (extra `synthetic`). Its speech
is formant synthesis: clear, robotic, and exact about where each phoneme begins.
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import numpy as np
import soxr

from ctjax.media.audio import SPEECH_RATE_HZ
from ctjax.types import AudioClip, UserError

LANGUAGES = ("en-us", "en-gb", "fr", "cmn")
VARIANTS = ("m1", "m3", "m7", "f1", "f2", "f4", "f5")  # eSpeak's speakers: men and women of different vocal tracts
PAUSE = ""  # the symbol of a stretch without a phoneme

# Numbers of espeak-ng/speak_lib.h.
_SYNCHRONOUS_OUTPUT = 2
_PHONEME_EVENTS_IN_IPA = 1 | 2
_EVENT_END_OF_LIST, _EVENT_PHONEME = 0, 7
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_UTF8 = 1


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
    """`text` spoken by `voice`. Raises: UserError without the synthesiser or for a voice it does not have."""
    voice = voice or Voice()
    name = f"{voice.language}+{voice.variant}"
    engine = _engine()
    if engine.library.espeak_SetVoiceByName(name.encode()) != 0:
        raise UserError(f"the speech synthesiser has no voice {name}; languages: {', '.join(LANGUAGES)}")
    settings = (
        (_PARAMETER_RATE, voice.words_per_minute),
        (_PARAMETER_PITCH, voice.pitch),
        (_PARAMETER_RANGE, voice.pitch_range),
    )
    for number, value in settings:
        engine.library.espeak_SetParameter(number, value, 0)
    samples, marks = engine.synthesise(text)
    sound = soxr.resample(samples.astype(np.float32) / 2**15, engine.rate_hz, SPEECH_RATE_HZ, quality="HQ")
    duration_s = len(sound) / SPEECH_RATE_HZ
    return Utterance(AudioClip(sound, SPEECH_RATE_HZ), _phonemes(marks, duration_s), text, name)


def _phonemes(marks: list[tuple[float, str]], duration_s: float) -> tuple[Phoneme, ...]:
    """Marks say where a phoneme begins; it lasts until the next mark."""
    # A symbol in brackets marks a change of language, which is no sound.
    begins = [(min(max(start, 0.0), duration_s), s.strip("_ ")) for start, s in marks if not s.startswith("(")]
    if not begins or begins[0][0] > 0:
        begins.insert(0, (0.0, PAUSE))
    ends = [start for start, _ in begins[1:]] + [duration_s]
    return tuple(Phoneme(s, start, end) for (start, s), end in zip(begins, ends, strict=True) if end > start)


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """The library keeps global state, so there is one of these a process (and it is not thread-safe)."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("speech synthesis needs the extra `synthetic`: pip install 'ctjax[synthetic]'") from None
        self.library = ctypes.CDLL(espeakng_loader.get_library_path())
        # The library looks for the folder `espeak-ng-data` inside the path it is given, or takes it as that folder.
        data = espeakng_loader.get_data_path().encode()
        self.rate_hz = self.library.espeak_Initialize(_SYNCHRONOUS_OUTPUT, 0, data, _PHONEME_EVENTS_IN_IPA)
        if self.rate_hz <= 0:
            raise UserError("the speech synthesiser does not start: reinstall the package espeakng-loader")
        self._samples: list[np.ndarray] = []
        self._marks: list[tuple[float, str]] = []
        self._callback = _Callback(self._receive)  # kept, or it would be freed under the library
        self.library.espeak_SetSynthCallback(self._callback)

    def synthesise(self, text: str) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """int16 samples at `rate_hz`, and (seconds, symbol) where each phoneme begins."""
        self._samples, self._marks = [np.zeros(0, np.int16)], []
        data = text.encode()
        self.library.espeak_Synth(data, len(data) + 1, 0, 0, 0, _UTF8, None, None)
        self.library.espeak_Synchronize()
        return np.concatenate(self._samples), self._marks

    def _receive(self, wave, count: int, events) -> int:
        if wave and count > 0:
            self._samples.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                self._marks.append((event.audio_position / 1000, event.id.string.decode("utf-8", "ignore")))
            index += 1
        return 0


@functools.cache
def _engine() -> _Engine:
    return _Engine()
