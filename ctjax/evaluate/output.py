"""What an evaluation leaves in its folder: tables in three formats, the report, the clips that the report plays."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import av

from ctjax.evaluate import report, table
from ctjax.evaluate.cache import file_digest
from ctjax.evaluate.pipeline import REFERENCE_ROW, reason_of
from ctjax.evaluate.results import Evaluation
from ctjax.media.container import video_stream
from ctjax.media.mux import VideoWriter
from ctjax.media.video import VideoSource
from ctjax.types import UserError
from ctjax.whole_files import write_text, written_whole

REPORT = "report.html"
MEDIA = "media"
BROWSERS_PLAY = {".mp4": {"h264", "av1"}, ".m4v": {"h264"}, ".webm": {"vp8", "vp9", "av1"}}


def write_tables(evaluation: Evaluation, folder: str | os.PathLike[str]) -> list[pathlib.Path]:
    """Writes results.json, summary.csv, clips.csv and table.md, each whole or not at all; returns their paths."""
    texts: dict[str, Callable[[Evaluation], str]] = {
        "results.json": table.as_json,
        "summary.csv": table.summary_csv,
        "clips.csv": table.clips_csv,
        "table.md": table.markdown,
    }
    return [write_text(pathlib.Path(folder) / name, make(evaluation)) for name, make in texts.items()]


def write_report(
    evaluation: Evaluation, folder: str | os.PathLike[str], *, players: bool = True, pictures: Sequence[str] = ()
) -> pathlib.Path:
    """Writes report.html and returns its path.

    players: put a copy of every clip beside the report, re-encoded where browsers would not play it; the report lists
    those that cannot be copied. pictures: SVG elements for the top of the report.
    """
    folder = pathlib.Path(folder)
    media, no_player = _media(evaluation, folder) if players else ({}, [])
    return write_text(folder / REPORT, report.page(evaluation, media, pictures, no_player))


def make_noted(target: pathlib.Path, note: pathlib.Path, key: str, make: Callable[[], object]) -> None:
    """Lets `make()` write `target`, unless it is there and `note` says that it was made from `key`.

    The old note goes before the new file comes: an end in between leaves no note that speaks of another file.
    """
    with contextlib.suppress(OSError, ValueError):
        if target.exists() and note.read_text(encoding="utf-8") == key:
            return
    note.unlink(missing_ok=True)
    make()
    write_text(note, key)


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


def _media(evaluation: Evaluation, folder: pathlib.Path) -> tuple[dict[str, str], list[str]]:
    """Clip path -> link from the report, and a line for each clip without. The clips lie in media/<row>/."""
    links: dict[str, str] = {}
    failed = []
    for row in evaluation.rows:
        for clip in row.clips:
            place = folder / MEDIA / ("reference" if row.name == REFERENCE_ROW else row.name)
            try:
                place.mkdir(parents=True, exist_ok=True)
                path = playable_copy(pathlib.Path(clip.generated), place)
            except Exception as error:  # a clip that cannot be played has been scored nevertheless
                failed.append(f"{row.name}/{clip.name}: {reason_of(error)}")
                continue
            links[clip.generated] = report.relative(path, folder)
    return links, failed


def playable_copy(path: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy of a clip in `folder` that browsers play; the one that is there already if it was made from the same."""
    plays = _codec(path) in BROWSERS_PLAY.get(path.suffix.lower(), ())
    target = folder / (path.name if plays else f"{path.stem}.mp4")
    make = _copy if plays else _encode
    make_noted(target, folder / f".{target.name}.made_from", file_digest(path), lambda: make(path, target))
    return target


def _copy(path: pathlib.Path, target: pathlib.Path) -> None:
    with written_whole(target) as temporary:
        shutil.copyfile(path, temporary)


def _encode(path: pathlib.Path, target: pathlib.Path) -> None:
    source = VideoSource(path)
    fps = source.fps or 25.0
    with VideoWriter(target, (source.width, source.height), fps, audio=_sounding(path), generated=False) as writer:
        for frame in source.resampled(fps):
            writer.write(frame)


def _codec(path: pathlib.Path) -> str:
    with av.open(str(path)) as container:
        stream = video_stream(container)
        return stream.codec_context.name if stream is not None else ""


def _sounding(path: pathlib.Path) -> pathlib.Path | None:
    with av.open(str(path)) as container:
        return path if container.streams.audio else None
