"""A number over a clip, such as alpha or an angle of the head pose, from rows of (seconds, value)."""

from __future__ import annotations

import csv
import math
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from ctjax.types import UserError


class Curve:
    """Linear interpolation between rows (seconds, value), constant before the first and after the last."""

    def __init__(self, rows: Iterable[Sequence[float]], *, name: str = "curve"):
        """Raises UserError, naming `name` and the row, for no rows, values that are no numbers and times that do not
        increase."""
        table = []
        for number, row in enumerate(rows, 1):
            if len(row) != 2:
                raise UserError(f"{name}, row {number}: expected seconds and a value, got {len(row)} values")
            try:
                seconds, value = (float(cell) for cell in row)
            except (TypeError, ValueError):
                raise UserError(f"{name}, row {number}: {row[0]!r}, {row[1]!r} are not two numbers") from None
            if not (math.isfinite(seconds) and math.isfinite(value)):
                raise UserError(f"{name}, row {number}: {seconds}, {value} must be finite")
            if seconds < 0 or (table and seconds <= table[-1][0]):
                raise UserError(f"{name}, row {number}: seconds must start at 0 or later and increase, got {seconds}")
            table.append((seconds, value))
        if not table:
            raise UserError(f"{name} has no rows: give lines of seconds,value")
        self.seconds, self.values = np.array(table, np.float64).T

    @classmethod
    def constant(cls, value: float) -> Curve:
        """The same value for the whole clip."""
        return cls([(0.0, value)])

    @classmethod
    def read(cls, path: str | pathlib.Path) -> Curve:
        """From a CSV file of lines `seconds,value`; a heading, blank lines and lines that start with # are skipped."""
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise UserError(f"cannot read the curve {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"the curve {path} is not a text file") from None
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        try:
            rows = list(csv.reader(lines, skipinitialspace=True))
        except csv.Error as error:
            raise UserError(f"the curve {path} is not a table of seconds,value: {error}") from None
        if rows and all(cell.strip().isidentifier() for cell in rows[0]):
            rows = rows[1:]
        return cls(rows, name=str(path))

    def at(self, seconds: np.ndarray) -> np.ndarray:
        """Values at times in seconds: float32, same shape."""
        return np.interp(seconds, self.seconds, self.values).astype(np.float32)

    def frames(self, first: int, count: int, fps: float) -> np.ndarray:
        """Values of `count` video frames from frame `first` on: float32 "t"."""
        return self.at((first + np.arange(count)) / fps)
