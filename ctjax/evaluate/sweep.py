"""The curves of a sweep over alpha: one small chart per metric, all in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ctjax.evaluate.chart import HEIGHT, WIDTH, Series, line_chart
from ctjax.evaluate.results import Evaluation

COLUMNS = 2
GAP = 16


def row_name(alpha: float) -> str:
    """The name of the row rendered at one alpha, another one for every alpha."""
    short = f"{alpha:g}"
    return f"alpha={short if float(short) == alpha else repr(alpha)}"


def curves(evaluation: Evaluation, alphas: Mapping[str, float]) -> list[str]:
    """One SVG chart per metric that the sweep's rows have: mean against alpha, shaded by its standard error, beside
    the reference row's mean. alphas: row name -> alpha."""
    rows = sorted((row for row in evaluation.rows if row.name in alphas), key=lambda row: alphas[row.name])
    reference = next(row for row in evaluation.rows if row.name == "reference")
    charts = []
    for metric in evaluation.metrics:
        summaries = [row.summary(metric.key) for row in rows]
        if not any(summaries):
            continue
        x = [alphas[row.name] for row in rows]
        means = [math.nan if s is None else s.mean for s in summaries]
        errors = [math.nan if s is None else s.standard_error for s in summaries]
        series = [Series("generated", x, means, errors)]
        if (level := reference.summary(metric.key)) and math.isfinite(level.mean):
            series.append(Series("reference", x, [level.mean] * len(x)))
        charts.append(line_chart(metric.title, series, x_label="alpha", y_label=metric.unit, markers=True))
    return charts


def picture(charts: list[str]) -> str:
    """All charts in one SVG file on white, two in a row."""
    rows = -(-len(charts) // COLUMNS)
    width, height = COLUMNS * (WIDTH + GAP), rows * (HEIGHT + GAP)
    placed = [
        chart.replace("<svg ", f'<svg x="{(i % COLUMNS) * (WIDTH + GAP)}" y="{(i // COLUMNS) * (HEIGHT + GAP)}" '
                      f'width="{WIDTH}" height="{HEIGHT}" ', 1)
        for i, chart in enumerate(charts)
    ]  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(placed)}</svg>\n'
    )
