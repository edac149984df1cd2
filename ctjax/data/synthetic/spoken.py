"""Spoken sentences with a phoneme label for every feature step: what the demo's speech network learns from.

Examples are synthesised when asked for, a thousand times faster than they are heard; example i depends on i and the
seed alone.
"""

from __future__ import annotations

import threading

import grain
import numpy as np

from ctjax.data.synthetic.phones import phone_steps
from ctjax.data.synthetic.sentences import sentence
from ctjax.data.synthetic.speech import LANGUAGES, VARIANTS, Utterance, Voice, speak
from ctjax.media.audio import SPEECH_RATE_HZ

STRIDE, RECEPTIVE_FIELD = 320, 400  # samples, of every HuBERT
ROOM_NOISE_RMS = 0.0003, 0.003
LEVEL_RMS = 0.02, 0.2
PAUSE_S = 0.0, 0.9
ONLY_NOISE = 0.05  # share of examples without speech

_ENGINE = threading.Lock()  # the synthesiser has one voice at a time


def random_utterance(rng: np.random.Generator, *, held_out: bool) -> Utterance:
    """A sentence of the pool, by a voice drawn from all languages, speakers, speeds and pitches."""
    language = str(rng.choice(LANGUAGES))
    voice = Voice(
        language=language,
        variant=str(rng.choice(VARIANTS)),
        words_per_minute=int(rng.integers(125, 210)),
        pitch=int(rng.integers(20, 80)),
        pitch_range=int(rng.integers(30, 80)),
    )
    with _ENGINE:
        return speak(sentence(language, rng, held_out=held_out), voice)


class SpokenSentences(grain.transforms.RandomMap):
    """waveform float32 "s", of zero mean and unit variance; labels int32 "l", numbers in `phones.SYMBOLS`."""

    def __init__(self, *, steps: int, held_out: bool):
        self._steps, self._held_out = steps, held_out
        self._samples = (steps - 1) * STRIDE + RECEPTIVE_FIELD

    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        sound, labels = self._clip(rng)
        level = np.exp(rng.uniform(*np.log(LEVEL_RMS)))
        sound *= level / max(float(np.sqrt(np.mean(sound**2))), 1e-3)
        noise = np.exp(rng.uniform(*np.log(ROOM_NOISE_RMS)))
        if rng.random() < ONLY_NOISE:
            # as silence is heard beside speech: the noise is not brought to unit variance
            sound, labels = np.zeros_like(sound), np.zeros_like(labels)
        else:
            level = float(np.sqrt(np.mean(sound**2)))
        sound += rng.normal(0, noise, len(sound)).astype(np.float32)
        return {"waveform": (sound - sound.mean()) / np.float32(level), "labels": labels}

    def _clip(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sentences with pauses between them, begun somewhere, long enough."""
        sounds, labels = [], []
        skip = rng.integers(0, self._steps // 2)
        while sum(map(len, labels)) < self._steps + skip:
            utterance = random_utterance(rng, held_out=self._held_out)
            pause = int(rng.uniform(*PAUSE_S) * SPEECH_RATE_HZ) // STRIDE * STRIDE
            samples = np.pad(utterance.sound.samples, (pause, 0))
            steps = len(samples) // STRIDE
            sounds.append(samples[: steps * STRIDE])
            labels.append(np.pad(phone_steps(utterance.phonemes, steps - pause // STRIDE), (pause // STRIDE, 0)))
        sound = np.concatenate([*sounds, np.zeros(RECEPTIVE_FIELD, np.float32)])[skip * STRIDE :][: self._samples]
        return sound.astype(np.float32), np.concatenate(labels)[skip:][: self._steps].astype(np.int32)
