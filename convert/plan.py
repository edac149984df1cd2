"""What is to be converted, and what came of it: the state dicts of a source matched with the networks they fill."""

from __future__ import annotations

import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.rules import ConversionError, Ignore, Report, Rule, apply
from ctjax.weights import leaves

Params = dict[Any, Any]


@dataclass
class Piece:
    """One network of a source. label: its name among the parameters, "" where the source is a single network;
    state: {the table's source key: array}; abstract: the network's parameter tree."""

    label: str
    table: Sequence[Rule | Ignore]
    state: Mapping[str, np.ndarray]
    abstract: Mapping[Any, Any]


@dataclass
class Plan:
    """A source ready to be converted. folded and skipped: file's key -> what became of it, for keys that are not in
    any piece's state; notes: lines for the user about choices that were made; extra: more for the provenance."""

    config: Any
    pieces: list[Piece]
    files: list[pathlib.Path]
    folded: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Row:
    """One line of the summary: how many keys were read, folded and ignored, and how many numbers came of them."""

    label: str
    read: int
    folded: int
    ignored: int
    parameters: int


@dataclass
class Outcome:
    """Filled parameters with the account of every key."""

    params: Params
    rows: list[Row]
    reports: dict[str, Report]
    ignored: dict[str, list[str]]  # reason -> keys


def fill(plan: Plan, *, name: str) -> Outcome:
    """Fills every piece's network. Raises `ConversionError` with the problems of all pieces together."""
    filled: dict[str, Params] = {}
    reports: dict[str, Report] = {}
    problems: list[str] = []
    for piece in plan.pieces:
        try:
            filled[piece.label], reports[piece.label] = apply(
                piece.table, piece.state, piece.abstract, name=f"{name}, {piece.label}" if piece.label else name
            )
        except ConversionError as error:
            problems.append(str(error))
    if problems:
        raise ConversionError("\n".join(problems))
    broken = [
        f"{label}.{path}".removeprefix(".")
        for label, tree in filled.items()
        for path, array in leaves(tree).items()
        if not np.isfinite(array).all()
    ]
    if broken:
        raise ConversionError(f"{name}: damaged checkpoint, values that are not finite in: {', '.join(broken[:20])}")
    params = filled[""] if list(filled) == [""] else filled
    return Outcome(params, _rows(plan, filled, reports), reports, _reasons(plan, reports))


def _rows(plan: Plan, filled: Mapping[str, Params], reports: Mapping[str, Report]) -> list[Row]:
    rows = []
    for label, report in reports.items():
        # Two or more folded keys became one that was placed; the file's keys are counted, each once.
        folded = [key for key in plan.folded if len(plan.pieces) == 1 or key.startswith(f"{label}.")]
        made = len({plan.folded[key] for key in folded})
        numbers = sum(int(np.size(array)) for array in leaves(filled[label]).values())
        rows.append(Row(label, len(report.placed) - made, len(folded), len(report.ignored), numbers))
    return rows


def _reasons(plan: Plan, reports: Mapping[str, Report]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for label, report in reports.items():
        for key, reason in report.ignored.items():
            reasons.setdefault(reason, []).append(f"{label}.{key}".removeprefix("."))
    for key, reason in plan.skipped.items():
        reasons.setdefault(reason, []).append(key)
    return reasons


def table(title: str, outcome: Outcome, plan: Plan) -> str:
    """The summary that ends every conversion."""
    rows = [("", "keys read", "folded", "ignored", "parameters")]
    rows += [(r.label or "all", str(r.read), str(r.folded), str(r.ignored), f"{r.parameters:,}") for r in outcome.rows]
    if len(outcome.rows) > 1:
        total = Counter[str]()
        for row in outcome.rows:
            total.update(read=row.read, folded=row.folded, ignored=row.ignored, parameters=row.parameters)
        rows.append(("total", *(str(total[k]) for k in ("read", "folded", "ignored")), f"{total['parameters']:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [title]
    for row in rows:
        lines.append(
            "  "
            + row[0].ljust(widths[0])
            + "".join(f"  {v.rjust(w)}" for v, w in zip(row[1:], widths[1:], strict=True))
        )
    lines += [f"  folded:  {', '.join(keys)}: {what}" for what, keys in _grouped(plan.folded).items()]
    lines += [f"  ignored: {_some(keys)}: {reason}" for reason, keys in outcome.ignored.items()]
    return "\n".join(lines + [f"  note:    {note}" for note in plan.notes])


def _grouped(folded: Mapping[str, str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, what in folded.items():
        groups.setdefault(what, []).append(key)
    return groups


def _some(keys: list[str]) -> str:
    return ", ".join(keys) if len(keys) <= 4 else f"{len(keys)} keys ({', '.join(keys[:2])}, ...)"
