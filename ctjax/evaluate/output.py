"""What an evaluation leaves in its folder: tables in three formats, the report, the clips that the report plays."""

from __future__ import annotations

import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Sequence

import av

from ctjax.evaluate import report, table
from ctjax.evaluate.pipeline import REFERENCE_ROW
from ctjax.evaluate.results import Evaluation
from ctjax.media.container import video_stream
from ctjax.media.mux import VideoWriter
from ctjax.media.video import VideoSource
from ctjax.types import UserError

REPORT = "report.html"
MEDIA = "media"
BROWSERS_PLAY = {".mp4": {"h264", "av1"}, ".m4v": {"h264"}, ".webm": {"vp8", "vp9", "av1"}}


def write(
    evaluation: Evaluation, folder: str | os.PathLike[str], *, players: bool = True, pictures: Sequence[str] = ()
) -> list[pathlib.Path]:
    """Writes results.json, summary.csv, clips.csv, table.md and report.html; returns their paths.

    players: put a copy of every clip beside the report, re-encoded where browsers would not play it. pictures: SVG
    elements for the top of the report. Each file appears whole or not at all.
    """
    folder = pathlib.Path(folder)
    media = _media(evaluation, folder) if players else {}
    texts: dict[str, Callable[[Evaluation], str]] = {
        "results.json": table.as_json,
        "summary.csv": table.summary_csv,
        "clips.csv": table.clips_csv,
        "table.md": table.markdown,
        REPORT: lambda e: report.page(e, media, pictures),
    }
    return [write_text(folder / name, make(evaluation)) for name, make in texts.items()]


def write_text(path: pathlib.Path, text: str) -> pathlib.Path:
    """`text` at `path`, renamed into place. Raises `UserError` where that cannot be."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def make_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
    """The output folder, made if need be and tried. Raises `UserError` before any work is done for nothing."""
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={folder}: cannot be made: {error.strerror}") from error
    trial = write_text(folder / ".trial", "")
    trial.unlink()
    return folder


def _media(evaluation: Evaluation, folder: pathlib.Path) -> dict[str, str]:
    """Clip path -> link from the report. The clips lie in media/<row>/."""
    links: dict[str, str] = {}
    for row in evaluation.rows:
        for clip in row.clips:
            place = folder / MEDIA / ("reference" if row.name == REFERENCE_ROW else row.name)
            place.mkdir(parents=True, exist_ok=True)
            path = playable_copy(pathlib.Path(clip.generated), place)
            links[clip.generated] = report.relative(path, folder)
    return links


def playable_copy(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy of a clip in `folder` that browsers play; the one that is there already if it is newer."""
    plays = _codec(path) in BROWSERS_PLAY.get(path.suffix.lower(), ())
    target = folder / (path.name if plays else f"{path.stem}.mp4")
    if target.exists() and target.stat().st_mtime >= path.stat().st_mtime:
        return target
    if plays:
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        shutil.copyfile(path, temporary)
        os.replace(temporary, target)
        return target
    source = VideoSource(path)
    fps = source.fps or 25.0
    with VideoWriter(target, (source.width, source.height), fps, audio=_sounding(path), generated=False) as writer:
        for frame in source.resampled(fps):
            writer.write(frame)
    return target


def _codec(path: pathlib.Path) -> str:
    with av.open(str(path)) as container:
        stream = video_stream(container)
        return stream.codec_context.name if stream is not None else ""


def _sounding(path: pathlib.Path) -> pathlib.Path | None:
    with av.open(str(path)) as container:
        return path if container.streams.audio else None
