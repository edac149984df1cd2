"""Line charts as SVG text: no library, no script, no font of its own."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 34
COLOURS = ("#2563eb", "#d97706", "#059669", "#b91c1c")
INK, FAINT = "#64748b", "#94a3b855"


class Series(NamedTuple):
    """y over x; NaN breaks the line. band: half the height of a shaded band around it (a standard error), or None."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    band: Sequence[float] | None = None


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    step = 10.0 ** math.floor(math.log10((high - low) / wanted))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= wanted + 0.5)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    markers: bool = False,
    vertical: float | None = None,
    shaded: Sequence[tuple[float, float]] = (),
) -> str:
    """One chart as an <svg> element. vertical: where to draw a dashed line. shaded: stretches of x to tint."""
    x_low, x_high = _range([s.x for s in series], margin=0.0)
    tops = [np.asarray(s.y, float) + (0 if s.band is None else np.nan_to_num(s.band)) for s in series]
    bottoms = [np.asarray(s.y, float) - (0 if s.band is None else np.nan_to_num(s.band)) for s in series]
    y_low, y_high = _range([*tops, *bottoms], margin=0.06)

    def place_x(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def place_y(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="11" '
        f'font-family="system-ui, sans-serif" fill="{INK}" data-left="{place_x(x_low) / WIDTH:.4f}" '
        f'data-right="{place_x(x_high) / WIDTH:.4f}" data-span="{x_high - x_low:.4f}">',
        f'<title>{html.escape(title)}</title><text x="{LEFT}" y="14" font-weight="600">{html.escape(title)}</text>',
    ]
    for start, stop in shaded:
        left, right = (place_x(min(max(v, x_low), x_high)) for v in (start, stop))
        parts.append(f'<rect x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}" '
                     f'fill="{FAINT}"/>')  # fmt: skip
    for value in ticks(y_low, y_high, 4):
        y = place_y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="{FAINT}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(x_low, x_high, 10):
        parts.append(
            f'<text x="{place_x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{value:.4g}</text>'
        )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(x_label)}</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">{html.escape(y_label)}</text>')
    if vertical is not None:
        parts.append(f'<path d="M{place_x(vertical):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{INK}" '
                     'stroke-dasharray="4 3"/>')  # fmt: skip
    legend = WIDTH - RIGHT
    for index, one in reversed(list(enumerate(series))):
        colour = COLOURS[index % len(COLOURS)]
        parts += _drawn(one, colour, place_x, place_y, markers)
        if len(series) > 1:
            parts.append(f'<text x="{legend}" y="14" text-anchor="end" fill="{colour}">{html.escape(one.label)}</text>')
            legend -= 7 * len(one.label) + 14
    return "".join([*parts, "</svg>"])


def _drawn(series: Series, colour: str, place_x, place_y, markers: bool) -> list[str]:
    parts = []
    for run in _unbroken(series):
        points = [f"{place_x(series.x[i]):.1f} {place_y(series.y[i]):.1f}" for i in run]
        if series.band is not None:
            upper, lower = (
                [f"{place_x(series.x[i]):.1f} {place_y(series.y[i] + s * _number(series.band[i])):.1f}" for i in run]
                for s in (1, -1)
            )
            parts.append(f'<path d="M{"L".join(upper + lower[::-1])}Z" fill="{colour}" opacity="0.15"/>')
        parts.append(f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if markers or len(run) == 1:
            parts += [f'<circle cx="{p.split()[0]}" cy="{p.split()[1]}" r="2.5" fill="{colour}"/>' for p in points]
    return parts


def _unbroken(series: Series) -> list[list[int]]:
    """Runs of indices whose y is finite."""
    runs: list[list[int]] = [[]]
    for index, value in enumerate(series.y):
        if math.isfinite(value):
            runs[-1].append(index)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _number(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _range(columns: Sequence[Sequence[float]], margin: float) -> tuple[float, float]:
    values = np.concatenate([np.asarray(c, float) for c in columns]) if columns else np.zeros(0)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low < 1e-9 * max(1.0, abs(low)):
        low, high = low - 0.5, high + 0.5
    return low - margin * (high - low), high + margin * (high - low)
