"""The numbers as a terminal table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import unicodedata
from collections.abc import Sequence
from typing import Any

from ctjax.evaluate.results import Evaluation, Metric, Row, Summary

ARROWS = {"higher": "higher is better", "lower": "lower is better", "reference": "near the reference", "": ""}
CAPTION = "mean ± standard error over clips; (n) where fewer clips have the metric"


def number(value: float, digits: int) -> str:
    """A value for people: `-` for none, `inf` for infinite."""
    if math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.{digits}f}"


def cell(summary: Summary | None, metric: Metric, clips: int) -> str:
    """`mean ± standard error (n)`, as short as it can be."""
    if summary is None:
        return "-"
    text = number(summary.mean, metric.digits)
    if not math.isnan(summary.standard_error):
        text += f" ± {number(summary.standard_error, metric.digits)}"
    return text if summary.count == clips else f"{text} ({summary.count})"


def summary_lines(evaluation: Evaluation) -> list[list[str]]:
    """Header and one line per metric: title, direction, and a cell per row."""
    lines = [["metric", "", *(f"{row.name} ({len(row.clips)})" for row in evaluation.rows)]]
    for metric in evaluation.shown():
        cells = [cell(row.summary(metric.key), metric, len(row.clips)) for row in evaluation.rows]
        title = f"{metric.title} [{metric.unit}]" if metric.unit else metric.title
        lines.append([title, ARROWS[metric.better], *cells])
    return lines


def clip_lines(row: Row, metrics: Sequence[Metric]) -> list[list[str]]:
    """Header and one line per clip of a row, a column per metric key."""
    metrics = [m for m in metrics if any(m.key in clip.scores.values for clip in row.clips)]
    lines = [["clip", *(m.key for m in metrics)]]
    for clip in row.clips:
        lines.append([clip.name, *(number(clip.scores.values.get(m.key, math.nan), m.digits) for m in metrics)])
    return lines


def terminal(evaluation: Evaluation, width: int | None = None) -> str:
    """The whole result as text: the means, every clip of the rows but the reference's, what is missing, what failed."""
    width = width or shutil.get_terminal_size((120, 24)).columns
    parts = [_aligned(summary_lines(evaluation)), CAPTION]
    for row in evaluation.rows:
        if row.name != "reference" and row.clips:
            parts.append(f"\n{row.name}, clip by clip")
            blocks = _blocks(clip_lines(row, evaluation.shown()), width)
            parts.append("\n\n".join(map(_aligned, blocks)))
    for title, lines in (("Not computed", missing(evaluation)), ("Notes", notes(evaluation))):
        if lines:
            parts.append(f"\n{title}\n" + "\n".join(f"  {line}" for line in lines))
    if evaluation.failures:
        listed = "\n".join(f"  {f.row}/{f.clip}: {f.reason}" for f in evaluation.failures)
        parts.append(f"\nFailed: {len(evaluation.failures)}\n{listed}")
    return "\n".join(parts)


def markdown(evaluation: Evaluation) -> str:
    """The same as Markdown, with every definition."""
    parts = ["# Evaluation", "", *_markdown_table(summary_lines(evaluation)), "", CAPTION + "."]
    for row in evaluation.rows:
        if row.clips:
            parts += ["", f"## {row.name}, clip by clip", "", *_markdown_table(clip_lines(row, evaluation.shown()))]
    definitions = [f"- **{m.title}** (`{m.key}`): {m.definition}" for m in evaluation.shown()]
    sections = {
        "What the numbers are": definitions,
        "Not computed": [f"- {line}" for line in missing(evaluation)],
        "Notes": [f"- {line}" for line in notes(evaluation)],
        "Failed": [f"- {f.row}/{f.clip}: {f.reason}" for f in evaluation.failures],
        "Settings": [f"- `{k}`: {v}" for k, v in evaluation.settings.items()],
    }
    for title, lines in sections.items():
        if lines:
            parts += ["", f"## {title}", "", *lines]
    return "\n".join(parts) + "\n"


def missing(evaluation: Evaluation) -> list[str]:
    return [f"{title}: {reason}" for title, reason in evaluation.not_computed.items()]


def notes(evaluation: Evaluation) -> list[str]:
    """What readers must know about rows and single clips, the same note of several of them once."""
    where: dict[str, list[str]] = {}
    for row in evaluation.rows:
        for note in row.notes:
            where.setdefault(note, []).append(row.name)
        for clip in row.clips:
            for note in clip.scores.notes:
                where.setdefault(note, []).append(f"{row.name}/{clip.name}")
    return [f"{', '.join(clips)}: {note}" for note, clips in where.items()]


def summary_csv(evaluation: Evaluation) -> str:
    """One line per row and metric: row, metric, title, unit, mean, standard_error, clips."""
    lines = [["row", "metric", "title", "unit", "mean", "standard_error", "clips"]]
    for row in evaluation.rows:
        for metric in evaluation.shown():
            if summary := row.summary(metric.key):
                values = [_exact(summary.mean), _exact(summary.standard_error), str(summary.count)]
                lines.append([row.name, metric.key, metric.title, metric.unit, *values])
    return _csv(lines)


def clips_csv(evaluation: Evaluation) -> str:
    """One line per row and clip, a column per metric; empty where a clip has no value."""
    metrics = evaluation.shown()
    lines = [["row", "clip", *(m.key for m in metrics), "notes"]]
    for row in evaluation.rows:
        for clip in row.clips:
            values = [_exact(clip.scores.values.get(m.key, math.nan)) for m in metrics]
            lines.append([row.name, clip.name, *values, "; ".join(clip.scores.notes)])
    return _csv(lines)


def as_json(evaluation: Evaluation) -> str:
    """Everything but the curves. NaN becomes null and infinity the string "inf", so that any reader takes it."""
    rows = []
    for row in evaluation.rows:
        means = {m.key: s._asdict() for m in evaluation.shown() if (s := row.summary(m.key))}
        clips = [
            {"clip": c.name, "generated": c.generated, "reference": c.reference, "notes": list(c.scores.notes)}
            | {"values": c.scores.values}
            for c in row.clips
        ]
        rows.append({"row": row.name, "means": means, "notes": row.notes, "clips": clips})
    content = {
        "settings": evaluation.settings,
        "metrics": [vars(m) for m in evaluation.shown()],
        "rows": rows,
        "not_computed": evaluation.not_computed,
        "failures": [f._asdict() for f in evaluation.failures],
    }
    return json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return value


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _csv(lines: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _columns(text: str) -> int:
    """How many terminal cells a text takes (names of clips may be in any script)."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _widths(lines: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_columns, column)) for column in zip(*lines, strict=True)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns two blanks apart, a rule under the header."""
    widths = _widths(lines)
    padded = ["  ".join(text + " " * (w - _columns(text)) for text, w in zip(line, widths, strict=True)).rstrip()
              for line in lines]  # fmt: skip
    return "\n".join([padded[0], "-" * min(sum(widths) + 2 * len(widths) - 2, 200), *padded[1:]])


def _blocks(lines: Sequence[Sequence[str]], width: int) -> list[list[list[str]]]:
    """A table cut into tables that fit `width`, each with the first column."""
    widths = _widths(lines)
    blocks, taken, used = [], [0], widths[0]
    for column in range(1, len(widths)):
        if len(taken) > 1 and used + 2 + widths[column] > width:
            blocks.append(taken)
            taken, used = [0], widths[0]
        taken.append(column)
        used += 2 + widths[column]
    return [[[line[column] for column in block] for line in lines] for block in [*blocks, taken]]


def _markdown_table(lines: Sequence[Sequence[str]]) -> list[str]:
    escaped = [[text.replace("|", "\\|") for text in line] for line in lines]
    rule = "|" + " --- |" * len(lines[0])
    return [f"| {' | '.join(escaped[0])} |", rule, *(f"| {' | '.join(line)} |" for line in escaped[1:])]
