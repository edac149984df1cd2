"""How the mouth moves for a sequence of phonemes: targets per phoneme, blended by dominance.

Coarticulation after Cohen and Massaro (1993): every phoneme pulls each control towards its target with a weight that
falls off exponentially with the distance in time, so that strong targets (closed lips, open vowels) are reached and
weak ones (tongue sounds) bend to their neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctjax.data.synthetic.speech import PAUSE, Phoneme


class Mouth(NamedTuple):
    """Controls of a mouth, each a number or an array over frames.

    jaw: opening, 0 closed to 1 wide. width: -1 narrow to 1 spread corners. rounding: 0 to 1. protrusion: 0 to 1.
    closure: 0 to 1, lips pressed together whatever the jaw does. tuck: 0 to 1, lower lip under the upper teeth.
    tongue: 0 low to 1 at the teeth.
    """

    jaw: np.ndarray
    width: np.ndarray
    rounding: np.ndarray
    protrusion: np.ndarray
    closure: np.ndarray
    tuck: np.ndarray
    tongue: np.ndarray


class _Target(NamedTuple):
    """Controls in the order of `Mouth`, and how strongly (dominance) and how long (seconds) they are held."""

    controls: tuple[float, ...]
    strength: float = 1.0
    reach_s: float = 0.045


# Rows of letters that share a mouth: jaw, width, rounding, protrusion, closure, tuck, tongue.
_CLASSES: tuple[tuple[str, _Target], ...] = (
    ("pbm", _Target((0.08, 0.0, 0.0, 0.1, 1.0, 0.0, 0.2), 9.0, 0.021)),
    ("fv", _Target((0.10, 0.1, 0.0, 0.0, 0.6, 1.0, 0.2), 5.0, 0.025)),
    ("aɑæäɐ", _Target((1.00, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0), 2.4, 0.052)),
    ("ʌɒ", _Target((0.80, 0.0, 0.1, 0.1, 0.0, 0.0, 0.0), 2.0, 0.049)),
    ("ɛe", _Target((0.60, 0.5, 0.0, 0.0, 0.0, 0.0, 0.3), 2.0, 0.049)),
    ("iɪᵻ", _Target((0.28, 0.9, 0.0, 0.0, 0.0, 0.0, 0.5), 2.0, 0.045)),
    ("əɚɜɤɘ", _Target((0.38, 0.0, 0.1, 0.1, 0.0, 0.0, 0.2), 1.0, 0.042)),
    ("oɔ", _Target((0.58, -0.5, 0.8, 0.6, 0.0, 0.0, 0.0), 2.2, 0.052)),
    ("uʊyøœɯ", _Target((0.25, -0.9, 1.0, 0.9, 0.0, 0.0, 0.2), 2.4, 0.052)),
    ("wɥ", _Target((0.14, -1.0, 1.0, 1.0, 0.2, 0.0, 0.2), 3.0, 0.035)),
    ("ʃʒɕʑɹɻʂʐ", _Target((0.16, -0.4, 0.5, 0.7, 0.0, 0.0, 0.6), 1.4, 0.035)),
    ("szc", _Target((0.08, 0.4, 0.0, 0.0, 0.0, 0.0, 0.9), 1.6, 0.032)),
    ("tdnlɾθð", _Target((0.16, 0.2, 0.0, 0.0, 0.0, 0.0, 1.0), 1.0, 0.032)),
    ("kɡgŋxχʁhjɲqʔ", _Target((0.26, 0.1, 0.0, 0.0, 0.0, 0.0, 0.1), 0.6, 0.032)),
)
_REST = _Target((0.0, 0.0, 0.0, 0.0, 0.7, 0.0, 0.2), 2.2, 0.042)
_UNKNOWN = _Target((0.25, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3), 0.5, 0.035)
_TARGETS = {letter: target for row, target in _CLASSES for letter in row}
LETTERS = tuple(_TARGETS)  # every letter with a mouth of its own class


def mouth_curves(phonemes: tuple[Phoneme, ...], times_s: np.ndarray, *, effort: float = 1.0) -> Mouth:
    """The mouth at `times_s` ("t", seconds) for a phoneme sequence; each control "t".

    effort: 1 speaks clearly, less mumbles, more exaggerates (scales the jaw).
    """
    targets, centres, halves = _segments(phonemes)
    controls = np.array([t.controls for t in targets])
    strength = np.array([t.strength for t in targets])
    reach = np.array([t.reach_s for t in targets])
    # Inside its own span a phoneme holds its full strength; outside it falls off with its own reach.
    outside = np.maximum(np.abs(times_s[:, None] - centres) - halves, 0.0)
    dominance = strength * np.exp(-outside / reach) + 1e-12
    curves = (dominance @ controls) / dominance.sum(axis=1, keepdims=True)
    jaw = np.clip(curves[:, 0] * effort, 0.0, 1.2)
    return Mouth(jaw, *curves[:, 1:].T)


def _segments(phonemes: tuple[Phoneme, ...]) -> tuple[list[_Target], np.ndarray, np.ndarray]:
    """Targets with the centre and half of the span that each holds; diphthongs and clusters are split by letter."""
    targets: list[_Target] = []
    centres: list[float] = []
    halves: list[float] = []
    for phoneme in phonemes:
        parts = _targets(phoneme.symbol)
        step = (phoneme.end_s - phoneme.start_s) / len(parts)
        for i, target in enumerate(parts):
            targets.append(target)
            centres.append(phoneme.start_s + (i + 0.5) * step)
            halves.append(0.33 * step)  # the rest of the span is the way there and the way on
    return targets, np.array(centres), np.array(halves)


def letters(symbol: str) -> list[str]:
    """The letters of a phoneme that are in `LETTERS`: diphthongs and clusters have several, stress marks none."""
    return [letter for letter in symbol if letter in _TARGETS]


def _targets(symbol: str) -> list[_Target]:
    if symbol == PAUSE:
        return [_REST]
    return [_TARGETS[letter] for letter in letters(symbol)] or [_UNKNOWN]
