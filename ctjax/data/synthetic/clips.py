"""Clips of synthetic speakers with their truth, as the arrays of records: clip number i of a seed is always the same.

Speakers come in blocks of ten with two clips each; of every ten speakers one is held out as "val" and one as "test".
Held-out speakers say sentences that nobody of the training split says.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.cutting import THUMBNAIL_PX, THUMBNAILS, CutVideo, Piece
from ctjax.data.footage import Video
from ctjax.data.records import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, ClipInfo, encode_images
from ctjax.data.synthetic.articulation import Mouth, mouth_curves
from ctjax.data.synthetic.head import Head
from ctjax.data.synthetic.identity import draw_identity
from ctjax.data.synthetic.performance import gestures
from ctjax.data.synthetic.phones import STEPS_PER_SECOND, phone_steps
from ctjax.data.synthetic.sentences import sentence
from ctjax.data.synthetic.speech import LANGUAGES, PAUSE, VARIANTS, Phoneme, Voice, speak

BLOCK, CLIPS_PER_PERSON = 10, 2
HELD_OUT = {1: "val", 6: "test"}  # places in a block
LANGUAGE_SHARES = (0.35, 0.15, 0.25, 0.25)  # in the order of LANGUAGES
PREFIX = "synthetic"
FRAMES_S = (2.8, 4.6)  # clips are about this long
LONGEST_S = 7.0
STEPS_PER_FRAME = STEPS_PER_SECOND // FPS


class Speech(NamedTuple):
    """samples: float32 at 16 kHz, a whole number of frames; phonemes from 0 to the end without gaps."""

    samples: np.ndarray
    phonemes: tuple[Phoneme, ...]
    texts: tuple[str, ...]


def listing(clips: int, seed: int = 0) -> list[Video]:
    """The clips of a set, each named so that `draw` finds its way back."""
    return [_entry(seed, number) for number in range(clips)]


def _entry(seed: int, number: int) -> Video:
    block, place = divmod(number, BLOCK * CLIPS_PER_PERSON)
    person = block * BLOCK + place % BLOCK
    split = HELD_OUT.get(place % BLOCK, "train")
    return Video(f"{PREFIX}/{seed}/{number:06d}", f"{PREFIX}-{seed}-{person:05d}", split)


def identity_seed(person: str) -> int:
    """The seed of a person named by `listing`."""
    _, seed, number = person.split("-")
    return int(np.random.SeedSequence([int(seed), int(number)]).generate_state(1)[0])


def draw(video: Video, size: int) -> CutVideo:
    """The clip of an entry of `listing` at `size` pixels."""
    _, seed, number = video.file.split("/")
    rng = np.random.default_rng([int(seed), int(number), 0xC11B])
    speech = say(rng, held_out=video.split != "train")
    frames = len(speech.samples) // SAMPLES_PER_FRAME
    times_s = (np.arange(frames) + 0.5) / FPS
    loudness = np.sqrt(np.mean(speech.samples.reshape(frames, -1) ** 2, axis=1))
    mouth = mouth_curves(speech.phonemes, times_s, effort=rng.uniform(0.85, 1.15))
    moves = gestures(times_s, loudness / max(float(loudness.max()), 1e-6), rng)
    head = _head(identity_seed(video.person), size)
    drawn = [head.draw(Mouth(*values), move) for *values, move in zip(*mouth, moves, strict=True)]
    images, truths = zip(*drawn, strict=True)
    arrays = {
        **encode_images(images),
        "landmarks": np.stack([truth.landmarks for truth in truths]),
        "samples": np.round(speech.samples * 32767).astype(np.int16),
        "truth_depth_px": np.stack([truth.depth_px for truth in truths]),
        "truth_aperture_px": np.array([truth.aperture_px for truth in truths], np.float32),
        "truth_mouth_width_px": np.array([truth.mouth_width_px for truth in truths], np.float32),
        "truth_phonemes": phone_steps(speech.phonemes, frames * STEPS_PER_FRAME).reshape(frames, STEPS_PER_FRAME),
        "truth_mouth": np.stack(mouth, axis=1).astype(np.float32),
    }
    for angle in ("yaw_deg", "pitch_deg", "roll_deg"):
        arrays[f"truth_{angle}"] = np.array([getattr(move, angle) for move in moves], np.float32)
    info = ClipInfo(video.file, video.person, video.split, frames)
    samples = arrays["samples"].astype(np.float32) / 32767
    return CutVideo([Piece(info, 0, arrays, _thumbnails(images))], [], samples)


@functools.lru_cache(maxsize=2)
def _head(seed: int, size: int) -> Head:
    cv2.setNumThreads(1)  # prepare.py has a process per core already
    return Head(draw_identity(seed), size)


def _thumbnails(images: tuple[np.ndarray, ...]) -> bytes:
    chosen = images[:: max(1, len(images) // THUMBNAILS)][:THUMBNAILS]
    strip = [cv2.resize(image, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA) for image in chosen]
    return cv2.imencode(".jpg", cv2.cvtColor(np.concatenate(strip, axis=1), cv2.COLOR_RGB2BGR))[1].tobytes()


def say(rng: np.random.Generator, *, held_out: bool) -> Speech:
    """One or several sentences of one voice with silence before, between and after them, and a little noise."""
    language = str(rng.choice(LANGUAGES, p=LANGUAGE_SHARES))
    voice = Voice(
        language,
        str(rng.choice(VARIANTS)),
        words_per_minute=int(rng.integers(125, 186)),
        pitch=int(rng.integers(25, 76)),
        pitch_range=int(rng.integers(30, 71)),
    )
    wanted_s = rng.uniform(*FRAMES_S)
    sounds: list[np.ndarray] = []
    phonemes: list[Phoneme] = []
    texts: list[str] = []
    end_s = 0.0

    def add(samples: np.ndarray, spoken: tuple[Phoneme, ...]) -> None:
        nonlocal end_s
        sounds.append(samples)
        phonemes.extend(Phoneme(p.symbol, p.start_s + end_s, p.end_s + end_s) for p in spoken)
        end_s += len(samples) / SAMPLE_RATE_HZ

    def pause(seconds: float) -> None:
        samples = np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32)
        add(samples, (Phoneme(PAUSE, 0.0, len(samples) / SAMPLE_RATE_HZ),))

    pause(rng.uniform(0.15, 0.5))
    while end_s < wanted_s:
        texts.append(sentence(language, rng, held_out=held_out))
        utterance = speak(texts[-1], voice)
        if len(texts) > 1 and end_s + utterance.sound.duration_s > LONGEST_S:
            texts.pop()
            break
        add(utterance.sound.samples, utterance.phonemes)
        pause(rng.uniform(1.2, 2.0) if rng.random() < 0.12 else rng.uniform(0.15, 0.5))
    pause(-len(np.concatenate(sounds)) % SAMPLES_PER_FRAME / SAMPLE_RATE_HZ)
    samples = np.concatenate(sounds)
    samples = samples * (rng.uniform(0.35, 0.9) / max(float(np.abs(samples).max()), 1e-6))
    samples = samples + rng.normal(0, 10 ** rng.uniform(-4.3, -3.0), len(samples))
    return Speech(np.clip(samples, -1, 1).astype(np.float32), tuple(phonemes), tuple(texts))
