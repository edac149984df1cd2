"""Spoken sentences with a phoneme label for every feature step: what the demo's speech network learns from.

A corpus is spoken once and kept in a file; examples are cut from it with other pauses, loudness and noise every time.
"""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
from typing import NamedTuple

import grain
import numpy as np

from ctjax.data.synthetic.phones import STEPS_PER_SECOND, phone_steps
from ctjax.data.synthetic.sentences import sentence
from ctjax.data.synthetic.speech import LANGUAGES, VARIANTS, Voice, speak
from ctjax.media.audio import SPEECH_RATE_HZ
from ctjax.progress import progress_bar
from ctjax.types import UserError
from ctjax.whole_files import written_whole

STRIDE = SPEECH_RATE_HZ // STEPS_PER_SECOND
RECEPTIVE_FIELD = 400  # samples that a step of HuBERT sees
ROOM_NOISE_RMS = 0.0003, 0.003
LEVEL_RMS = 0.02, 0.2
PAUSE_S = 0.0, 0.9
ONLY_NOISE = 0.05  # share of examples without speech
SEED = 2024


class Corpus(NamedTuple):
    """samples: int16 at 16 kHz, all sentences end to end, each a whole number of steps; labels: one of
    `phones.SYMBOLS` a step, 0 a pause; ends: step at which each sentence ends."""

    samples: np.ndarray
    labels: np.ndarray
    ends: np.ndarray


def open_corpus(folder: str | os.PathLike, sentences: int, *, held_out: bool) -> Corpus:
    """The corpus of so many sentences in `folder`; spoken first, which takes minutes, where it is not there.

    Raises `UserError` without the synthesiser or for a file that cannot be read.
    """
    file = pathlib.Path(folder) / f"{'held_out' if held_out else 'train'}-{sentences}.npz"
    if not file.is_file():
        _write(file, _speak_all(sentences, held_out))
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Corpus(*(arrays[name] for name in Corpus._fields))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file}: no corpus of speech ({error}): remove it, and it is made anew") from error


def _write(file: pathlib.Path, corpus: Corpus) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as temporary, temporary.open("wb") as opened:
        np.savez(opened, **corpus._asdict())


def _speak_all(count: int, held_out: bool) -> Corpus:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        numbers = range(count)
        spoken = list(
            progress_bar(pool.map(lambda n: _spoken(n, held_out), numbers), total=count, desc="speak", unit="sentence")
        )
    samples, labels = (np.concatenate(part) for part in zip(*spoken, strict=True))
    return Corpus(samples, labels, np.cumsum([len(part) for _, part in spoken]))


def _spoken(number: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Samples and labels of a sentence, by a voice drawn from all languages, speakers, speeds and pitches."""
    rng = np.random.default_rng((SEED, held_out, number))
    language = str(rng.choice(LANGUAGES))
    voice = Voice(
        language=language,
        variant=str(rng.choice(VARIANTS)),
        words_per_minute=int(rng.integers(125, 210)),
        pitch=int(rng.integers(20, 80)),
        pitch_range=int(rng.integers(30, 80)),
    )
    utterance = speak(sentence(language, rng, held_out=held_out), voice)
    steps = len(utterance.sound.samples) // STRIDE
    samples = np.round(np.clip(utterance.sound.samples[: steps * STRIDE], -1, 1) * (2**15 - 1)).astype(np.int16)
    return samples, phone_steps(utterance.phonemes, steps)


class SpokenSentences(grain.transforms.RandomMap):
    """waveform float32 "s", brought to unit variance; labels int32 "l", numbers in `phones.SYMBOLS`."""

    def __init__(self, corpus: Corpus, *, steps: int):
        self._corpus, self._steps = corpus, steps
        self._samples = (steps - 1) * STRIDE + RECEPTIVE_FIELD

    def random_map(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        sound, labels = self._clip(index, rng)
        level = np.exp(rng.uniform(*np.log(LEVEL_RMS)))
        sound *= level / max(float(np.sqrt(np.mean(sound**2))), 1e-3)
        noise = np.exp(rng.uniform(*np.log(ROOM_NOISE_RMS)))
        if rng.random() < ONLY_NOISE:
            # as silence is heard beside speech: the noise is not brought to unit variance
            sound, labels = np.zeros_like(sound), np.zeros_like(labels)
        else:
            level = max(float(np.sqrt(np.mean(sound**2))), LEVEL_RMS[0])  # where it is nothing but a pause
        sound += rng.normal(0, noise, len(sound)).astype(np.float32)
        return {"waveform": (sound - sound.mean()) / np.float32(level), "labels": labels}

    def _clip(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The index-th sentence and others behind it, with pauses, begun somewhere, long enough."""
        ends = self._corpus.ends
        skip = int(rng.integers(0, self._steps // 2))
        sounds, labels = [np.zeros(0, np.int16)], [np.zeros(0, np.int16)]
        number, length = index, 0
        while length < self._steps + skip:
            begin, end = (ends[number - 1] if number else 0), ends[number]
            pause = int(rng.uniform(*PAUSE_S) * SPEECH_RATE_HZ) // STRIDE
            sounds.append(np.pad(self._corpus.samples[begin * STRIDE : end * STRIDE], (pause * STRIDE, 0)))
            labels.append(np.pad(self._corpus.labels[begin:end], (pause, 0)))
            length += pause + int(end - begin)
            number = int(rng.integers(len(ends)))
        sound = np.concatenate([*sounds, np.zeros(RECEPTIVE_FIELD, np.int16)])[skip * STRIDE :][: self._samples]
        return sound.astype(np.float32) / 2**15, np.concatenate(labels)[skip:][: self._steps].astype(np.int32)
