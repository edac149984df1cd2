"""The HTML report: the table on top, then every clip with its players side by side and its curves.

One file and a folder of clips beside it; no script, style or font from anywhere else.
"""

from __future__ import annotations

import html
import os
import pathlib
import urllib.parse
from collections.abc import Mapping, Sequence

import numpy as np

from ctjax.evaluate import table
from ctjax.evaluate.chart import Series, line_chart
from ctjax.evaluate.lse import MAX_SHIFT_FRAMES
from ctjax.evaluate.results import ClipScores, Evaluation, Row
from ctjax.evaluate.sync import PROTOCOLS

STYLE = """
:root { color-scheme: light dark; --line: #94a3b855; --soft: #64748b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .8rem .28rem 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td:first-child { white-space: normal; min-width: 22rem; } .clips td:first-child { min-width: 0; }
td:nth-child(2), small, figcaption { color: var(--soft); } .clips td:nth-child(2) { color: inherit; }
.players { display: flex; gap: .8rem; flex-wrap: wrap; align-items: flex-end; margin: .4rem 0; }
figure { margin: 0; flex: 1 1 220px; max-width: 380px; } video { width: 100%; background: #000; border-radius: 4px; }
.chart { position: relative; max-width: 860px; } .chart svg { width: 100%; height: auto; display: block; }
.cursor { position: absolute; top: 13%; bottom: 17%; width: 1px; background: currentColor; visibility: hidden; }
button { font: inherit; padding: .2rem .9rem; } .bad { color: #b91c1c; }
@media (prefers-color-scheme: dark) { .bad { color: #f87171; } }
"""

# Plays the clips of a section together and moves a line through its curves.
SCRIPT = """
for (const section of document.querySelectorAll("section")) {
  const videos = [...section.querySelectorAll("video")], button = section.querySelector("button");
  if (!button || !videos.length) continue;
  const lead = videos[0], charts = [...section.querySelectorAll(".chart.timed")];
  const follow = () => {
    for (const chart of charts) {
      const svg = chart.querySelector("svg").dataset, cursor = chart.querySelector(".cursor");
      const share = Math.min(1, lead.currentTime / svg.span);
      cursor.style.visibility = "visible";
      cursor.style.left = 100 * (+svg.left + share * (svg.right - svg.left)) + "%";
    }
    if (!lead.paused) requestAnimationFrame(follow);
  };
  button.onclick = () => {
    const start = lead.paused;
    for (const video of videos) {
      video.muted = video !== lead;
      if (start) { video.currentTime = lead.currentTime; video.play(); } else video.pause();
    }
    button.textContent = start ? "Pause all" : "Play all";
    follow();
  };
  lead.onended = () => { button.textContent = "Play all"; };
  lead.onseeked = follow;
}
"""


def page(
    evaluation: Evaluation, media: Mapping[str, str], pictures: Sequence[str] = (), no_player: Sequence[str] = ()
) -> str:
    """The report as HTML text. media: path of a clip -> where the page finds it, relative to the page; clips that are
    not in it get no player. pictures: SVG elements for the top, such as the curves against alpha. no_player: lines
    about clips that could not be copied."""
    sections = [_clip_section(name, evaluation, media) for name in _clip_names(evaluation)]
    failed = [
        f'<span class="bad">{_text(f.row)}/{_text(f.clip)}</span>: {_text(f.reason)}' for f in evaluation.failures
    ]
    lists = [
        ("Failed", failed),
        ("Not computed", [_text(line) for line in table.missing(evaluation)]),
        ("Notes", [_text(line) for line in table.notes(evaluation)]),
        ("No player", [_text(line) for line in no_player]),
    ]
    definitions = [
        f"<b>{_text(m.title)}</b> <small>{_text(m.key)}</small><br>{_text(m.definition)}" for m in evaluation.shown()
    ]
    settings = [f"<b>{_text(key)}</b>: {_text(str(value))}" for key, value in evaluation.settings.items()]
    body = [
        "<h1>Evaluation</h1>",
        _table(table.summary_lines(evaluation)),
        f"<p><small>{_text(table.CAPTION)}</small></p>",
        *(f'<div class="chart">{picture}</div>' for picture in pictures),
        *(f"<h3>{title}</h3>{_list(items)}" for title, items in lists if items),
        f"<details><summary>What the numbers are</summary>{_list(definitions)}</details>",
        f"<details><summary>Settings</summary>{_list(settings)}</details>",
        *sections,
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Evaluation</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(body)}<script>{SCRIPT}</script></body></html>\n"
    )


def _clip_names(evaluation: Evaluation) -> list[str]:
    names = [clip.name for row in evaluation.rows for clip in row.clips]
    return list(dict.fromkeys(names))


def _clip_section(name: str, evaluation: Evaluation, media: Mapping[str, str]) -> str:
    found = [(row, clip) for row in evaluation.rows for clip in row.clips if clip.name == name]
    found.sort(key=lambda pair: pair[0].name == "reference")  # the reference last, the generated clip leads
    players = [
        f'<figure><video controls preload="metadata" src="{_link(media[clip.generated])}"></video>'
        f"<figcaption>{_text(row.name)}</figcaption></figure>"
        for row, clip in found
        if clip.generated in media
    ]
    lines = [["", *(m.key for m in evaluation.shown())]]
    for row, clip in found:
        values = clip.scores.values
        cells = [table.number(values.get(m.key, float("nan")), m.digits) for m in evaluation.shown()]
        lines.append([row.name, *cells])
    controls = "<p><button>Play all</button></p>" if len(players) > 1 else ""
    return (
        f"<section><h2>{_text(name)}</h2>"
        + (f'<div class="players">{"".join(players)}</div>{controls}' if players else "")
        + _table(lines, "clips")
        + "".join(_charts(found, float(evaluation.settings["fps"])))
        + "</section>"
    )


def _charts(found: Sequence[tuple[Row, ClipScores]], fps: float) -> list[str]:
    charts = []
    aperture = [_over_time(row.name, clip, "aperture", fps) for row, clip in found if "aperture" in clip.scores.curves]
    if aperture:
        silent = next((clip.scores.curves["silent"] for _, clip in found if "silent" in clip.scores.curves), [])
        chart = line_chart(
            "Mouth aperture", aperture, x_label="seconds", y_label="of the eye distance; grey: silence",
            shaded=_stretches(silent, fps),
        )  # fmt: skip
        charts.append(_timed(chart))
    for protocol in PROTOCOLS:
        charts += _by_offset(found, protocol, f"SyncNet distance against the offset, {protocol}")
        confidence = [
            _over_time(row.name, clip, f"confidence_{protocol}", fps)
            for row, clip in found
            if f"confidence_{protocol}" in clip.scores.curves
        ]
        if confidence:
            charts.append(_timed(line_chart(f"SyncNet confidence, {protocol}", confidence, x_label="seconds")))
    charts += _by_offset(found, "expert", "Distance of the own expert against the offset")
    return charts


def _by_offset(found: Sequence[tuple[Row, ClipScores]], judge: str, title: str) -> list[str]:
    """The chart of each row's distances by offset; none where there are no such curves."""
    distances = [
        Series(row.name, np.arange(-MAX_SHIFT_FRAMES, MAX_SHIFT_FRAMES + 1), curves[f"offset_{judge}"])
        for row, clip in found
        if f"offset_{judge}" in (curves := clip.scores.curves)
    ]
    if not distances:
        return []
    chart = line_chart(title, distances, x_label="offset in frames of 40 ms (negative: sound late)", vertical=0)
    return [f'<div class="chart">{chart}</div>']


def _over_time(label: str, clip: ClipScores, curve: str, fps: float) -> Series:
    values = clip.scores.curves[curve]
    return Series(label, np.arange(len(values)) / fps, values)


def _stretches(mask: Sequence[float], fps: float) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask), [0]])))
    return [(start / fps, stop / fps) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def _timed(chart: str) -> str:
    return f'<div class="chart timed">{chart}<div class="cursor"></div></div>'


def _table(lines: Sequence[Sequence[str]], kind: str = "") -> str:
    head = "".join(f"<th>{_text(text)}</th>" for text in lines[0])
    rows = "".join("<tr>" + "".join(f"<td>{_text(text)}</td>" for text in line) + "</tr>" for line in lines[1:])
    return f'<div class="wide"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _text(text: str) -> str:
    return html.escape(text, quote=True)


def _link(path: str) -> str:
    """A path as an address: a file's name may hold what means something else there, and bytes that are no text."""
    return _text(urllib.parse.quote(os.fsencode(path)))


def relative(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> str:
    """`path` as a link in a page that lies in `folder`."""
    return pathlib.PurePath(os.path.relpath(path, folder)).as_posix()
