"""Phonemes as numbers, for networks that learn to tell them apart: one number every 20 ms."""

from __future__ import annotations

import numpy as np

from ctjax.data.synthetic.articulation import LETTERS, letters
from ctjax.data.synthetic.speech import PAUSE, Phoneme

STEPS_PER_SECOND = 50  # as the speech network's
UNKNOWN = "?"
SYMBOLS: tuple[str, ...] = (PAUSE, *LETTERS, UNKNOWN)  # 0 is silence; IPA letters, diphthongs by their parts
_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}


def phone_steps(phonemes: tuple[Phoneme, ...], steps: int) -> np.ndarray:
    """int16 "l": numbers in `SYMBOLS` of what is spoken in the middle of each of `steps` steps of 20 ms."""
    begins: list[float] = []
    numbers: list[int] = []
    for phoneme in phonemes:
        parts = [PAUSE] if phoneme.symbol == PAUSE else letters(phoneme.symbol) or [UNKNOWN]
        for i, part in enumerate(parts):
            begins.append(phoneme.start_s + (phoneme.end_s - phoneme.start_s) * i / len(parts))
            numbers.append(_NUMBERS[part])
    middles = (np.arange(steps) + 0.5) / STEPS_PER_SECOND
    return np.array(numbers, np.int16)[np.maximum(np.searchsorted(begins, middles, side="right") - 1, 0)]
