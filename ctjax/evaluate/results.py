"""What an evaluation yields: metrics with their definitions, rows of clips, and how a column is summed up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

Better = Literal["higher", "lower", "reference", ""]


@dataclass(frozen=True)
class Metric:
    """One column. title: what a table prints, with the protocol that makes the number comparable. better: which way is
    good; "reference" means as near as possible to the reference row. definition: the whole truth in a sentence or two.
    """

    key: str
    title: str
    unit: str
    better: Better
    definition: str
    digits: int = 3


class Scores(NamedTuple):
    """values: number per metric key (NaN where a clip has none). curves: float32 "t" per name. notes: what a reader
    of the numbers must know about this clip."""

    values: dict[str, float]
    curves: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def merged(self, other: Scores) -> Scores:
        return Scores({**self.values, **other.values}, {**self.curves, **other.curves}, self.notes + other.notes)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """For the cache; `from_arrays` reads it back."""
        text = json.dumps({"values": self.values, "notes": self.notes})
        return {"text": np.array(text), **{f"curve/{name}": values for name, values in self.curves.items()}}

    @staticmethod
    def from_arrays(arrays: Mapping[str, np.ndarray]) -> Scores:
        text = json.loads(str(arrays["text"]))
        curves = {name.removeprefix("curve/"): v for name, v in arrays.items() if name.startswith("curve/")}
        return Scores(text["values"], curves, tuple(text["notes"]))


class ClipScores(NamedTuple):
    """The scores of one clip of a row. generated, reference: paths of the two files."""

    name: str
    generated: str
    reference: str
    scores: Scores


class Summary(NamedTuple):
    """Mean over the clips that have a value, its standard error (NaN for one clip), and their count."""

    mean: float
    standard_error: float
    count: int


@dataclass
class Row:
    """One set of clips, such as "generated" or "reference". whole: metrics of the set as a whole (FID). notes: what a
    reader of those must know."""

    name: str
    clips: list[ClipScores] = field(default_factory=list)
    whole: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def summary(self, key: str) -> Summary | None:
        """None where no clip of the row has the metric."""
        if key in self.whole:
            return Summary(self.whole[key], math.nan, len(self.clips))
        values = np.array([clip.scores.values.get(key, math.nan) for clip in self.clips], np.float64)
        values = values[~np.isnan(values)]
        if not len(values):
            return None
        spread = len(values) > 1 and np.isfinite(values).all()
        error = float(values.std(ddof=1) / math.sqrt(len(values))) if spread else math.nan
        return Summary(float(values.mean()), error, len(values))


class Failure(NamedTuple):
    """A clip that could not be done; the others were."""

    row: str
    clip: str
    reason: str


@dataclass
class Evaluation:
    """Everything a report shows. not_computed: metric title -> what it would need."""

    settings: dict[str, Any]
    metrics: list[Metric]
    rows: list[Row]
    failures: list[Failure]
    not_computed: dict[str, str]

    def shown(self) -> list[Metric]:
        """The metrics that at least one row has."""
        return [metric for metric in self.metrics if any(row.summary(metric.key) for row in self.rows)]
