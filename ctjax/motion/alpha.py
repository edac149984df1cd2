"""Alpha, the strength of Audio2Exp's change: its ramp over training steps and its curve over a clip.

At inference 0 keeps the mouth closed, about 0.5 is natural, more exaggerates; the release's default is 0.7. In
training alpha rises from 0 to 1 (paper, section 3); nobody has published by which curve, so it is a choice here.
"""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.types import UserError

DEFAULT_ALPHA = 0.7  # ControlTalk inference.py's default
SILENCE_ALPHA = 1.0  # ControlTalk inference.py:345
RAMPS = ("linear", "cosine", "staged")


@dataclass(frozen=True)
class Ramp:
    """Alpha from `start` to `end` between the steps `begin` and `begin + steps`, constant outside.

    kind: "linear"; "cosine" (flat at both ends); "staged" (`stages` equal jumps, the first after
    steps / (stages + 1), so that every value, start and end included, is held for equally long on the way).
    """

    kind: str = "linear"
    steps: int = 10_000
    begin: int = 0
    start: float = 0.0
    end: float = 1.0
    stages: int = 4

    def __post_init__(self) -> None:
        if self.kind not in RAMPS:
            raise UserError(f"alpha ramp {self.kind!r} is not known: one of {', '.join(RAMPS)}")
        if self.steps < 0 or self.begin < 0 or self.stages < 1:
            raise UserError(f"alpha ramp needs steps >= 0, begin >= 0 and stages >= 1: {self}")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise UserError(f"alpha ramp goes from {self.start} to {self.end}; both must be numbers")

    def __call__(self, step: int | jax.Array) -> jax.Array:
        """Alpha at a training step (an int or a traced integer): float32 scalar."""
        done = jnp.clip((jnp.asarray(step, jnp.float32) - self.begin) / max(self.steps, 1), 0.0, 1.0)
        if self.steps == 0:
            done = jnp.where(jnp.asarray(step) >= self.begin, 1.0, 0.0)
        if self.kind == "cosine":
            done = (1 - jnp.cos(jnp.pi * done)) / 2
        elif self.kind == "staged":
            done = jnp.minimum(jnp.floor(done * (self.stages + 1)), self.stages) / self.stages
        return self.start + (self.end - self.start) * done


class AlphaCurve:
    """Alpha over a clip, by linear interpolation between rows (seconds, alpha), constant before and after them."""

    def __init__(self, rows: Iterable[Sequence[float]], *, name: str = "alpha curve"):
        """Raises UserError, naming `name` and the row, for no rows, values that are no numbers and times that do not
        increase."""
        table = []
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise UserError(f"{name}, row {number}: expected seconds and alpha, got {len(row)} values")
            try:
                seconds, alpha = (float(value) for value in row)
            except (TypeError, ValueError):
                raise UserError(f"{name}, row {number}: {row[0]!r}, {row[1]!r} are not two numbers") from None
            if not (math.isfinite(seconds) and math.isfinite(alpha)):
                raise UserError(f"{name}, row {number}: {seconds}, {alpha} must be finite")
            if seconds < 0 or (table and seconds <= table[-1][0]):
                raise UserError(f"{name}, row {number}: seconds must start at 0 or later and increase, got {seconds}")
            table.append((seconds, alpha))
        if not table:
            raise UserError(f"{name} has no rows: give lines of seconds,alpha")
        self.seconds, self.alphas = np.array(table, np.float64).T

    @classmethod
    def constant(cls, alpha: float) -> AlphaCurve:
        """The same alpha for the whole clip."""
        return cls([(0.0, alpha)], name="alpha")

    @classmethod
    def read(cls, path: str | pathlib.Path) -> AlphaCurve:
        """From a CSV file of lines `seconds,alpha`; a heading, blank lines and lines that start with # are skipped."""
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UserError(f"cannot read the alpha curve {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"the alpha curve {path} is not a text file") from None
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        rows = list(csv.reader(lines, skipinitialspace=True))
        if rows and all(cell.strip().isidentifier() for cell in rows[0]):
            rows = rows[1:]
        return cls(rows, name=str(path))

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Alpha at times in seconds: float32, same shape."""
        return np.interp(seconds, self.seconds, self.alphas).astype(np.float32)

    def frames(self, first: int, count: int, fps: float) -> np.ndarray:
        """Alpha of `count` video frames from frame `first` on: float32 "t"."""
        return self.at((first + np.arange(count)) / fps)
