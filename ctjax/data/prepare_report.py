"""What became of the footage: report.json for programs, report.html to look at."""

from __future__ import annotations

import html
import json
import pathlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctjax.data.records import FPS
from ctjax.whole_files import write_text

SHEET_CLIPS = 500  # shown in report.html: each brings some 10 kB of thumbnails, and browsers give up on more

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Prepared clips</title>
<style>
body {{ font: 14px sans-serif; margin: 2em; color: #222 }}
table {{ border-collapse: collapse }} td, th {{ padding: .2em .8em .2em 0; text-align: left; vertical-align: top }}
.clips {{ display: flex; flex-wrap: wrap; gap: 12px }} figure {{ margin: 0 }} img {{ display: block }}
figcaption {{ font-size: 12px; color: #555 }} figure {{ padding-left: 6px }}
.train {{ border-left: 4px solid #4a8 }} .val {{ border-left: 4px solid #48c }} .test {{ border-left: 4px solid #c84 }}
</style>
<h1>Prepared clips</h1>
<p>{summary}</p>
<h2>Left out</h2>{reasons}
<h2>Videos that gave nothing</h2>{nothing}
<h2>Clips</h2><p>Green train, blue val, orange test.{left_out}</p><div class="clips">{clips}</div></html>
"""


class Summary(NamedTuple):
    """Totals of a record set. dropped_s: seconds left out by reason; nothing: {video: why it gave no clip at all}."""

    videos: int
    clips: int
    persons: int
    kept_s: float
    clips_by_split: dict[str, int]
    dropped_s: dict[str, float]
    nothing: dict[str, str]

    def __str__(self) -> str:
        splits = ", ".join(f"{split} {count}" for split, count in sorted(self.clips_by_split.items()))
        lines = [
            f"{self.clips} clips ({splits}) of {self.persons} persons, {self.kept_s / 60:.1f} minutes, "
            f"out of {self.videos} videos"
        ]
        lines += [f"  left out {seconds:8.1f} s: {reason}" for reason, seconds in self.dropped_s.items()]
        lines += [f"  nothing of {video}: {reason}" for video, reason in list(self.nothing.items())[:20]]
        return "\n".join(lines)


def write(output: pathlib.Path, videos: Sequence[dict[str, Any]]) -> Summary:
    """Writes report.json and report.html from what was noted of each video, and returns the totals."""
    videos = [{"offsets": {}, **video} for video in videos]
    clips = [clip for video in videos for clip in video["clips"]]
    dropped: dict[str, float] = defaultdict(float)
    pieces: Counter[str] = Counter()
    for video in videos:
        for drop in video["drops"]:
            dropped[drop["reason"]] += drop["seconds"]
            pieces[drop["reason"]] += 1
    nothing = {v["video"]: v["reason"] or _usual_reason(v) for v in videos if not v["clips"]}
    summary = Summary(
        videos=len(videos),
        clips=len(clips),
        persons=len({clip["person"] for clip in clips}),
        kept_s=round(sum(clip["frames"] for clip in clips) / FPS, 2),
        clips_by_split=dict(Counter(clip["split"] for clip in clips)),
        dropped_s={reason: round(seconds, 2) for reason, seconds in sorted(dropped.items(), key=lambda item: -item[1])},
        nothing=nothing,
    )
    details = [{name: v[name] for name in ("video", "clips", "drops", "reason", "offsets")} for v in videos]
    write_text(output / "report.json", json.dumps({**summary._asdict(), "details": details}, indent=1))
    write_text(output / "report.html", _page(summary, videos, pieces))
    return summary


def read(output: pathlib.Path) -> Summary:
    """The totals of a complete record set."""
    content = json.loads((output / "report.json").read_text(encoding="utf-8"))
    return Summary(**{name: content[name] for name in Summary._fields})


def _usual_reason(video: dict[str, Any]) -> str:
    seconds: Counter[str] = Counter()
    for drop in video["drops"]:
        seconds[drop["reason"]] += drop["seconds"]
    return seconds.most_common(1)[0][0] if seconds else "no frames"


def _page(summary: Summary, videos: Sequence[dict[str, Any]], pieces: Counter[str]) -> str:
    reasons = [(reason, f"{seconds:.1f}", str(pieces[reason])) for reason, seconds in summary.dropped_s.items()]
    clips = [
        (clip, thumbnails, video["offsets"].get(clip["id"]))
        for video in videos
        for clip, thumbnails in zip(video["clips"], video["thumbnails"], strict=True)
    ]
    shown = min(len(clips), SHEET_CLIPS)
    figures = []
    for clip, thumbnails, offset in (clips[i * len(clips) // shown] for i in range(shown)):
        measured = f", sound {offset['frames']:+d} frames" if offset else ""
        caption = html.escape(f"{clip['id']} ({clip['person']}), {clip['frames'] / FPS:.1f} s{measured}")
        figures.append(
            f'<figure class="{clip["split"]}"><img alt="" src="data:image/jpeg;base64,{thumbnails}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    hidden = len(clips) - shown
    head = html.escape(str(summary).splitlines()[0])
    return _PAGE.format(
        summary=head,
        reasons=_table(("why", "seconds", "pieces"), reasons),
        nothing=_table(("video", "why"), list(summary.nothing.items())),
        left_out=f" {shown} clips, evenly chosen; {hidden} more are in report.json only." if hidden else "",
        clips="".join(figures),
    )


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p>None.</p>"
    head = "".join(f"<th>{name}</th>" for name in heading)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"
