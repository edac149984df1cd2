"""Opening media files: one error type, a closed list of formats, local files only, truncation noticed at once.

FFmpeg (through PyAV) is willing to read text as video, playlists that name other files, and half a file. None of
that should reach the rest of the program, so every file is opened here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from ctjax.media.orientation import UPRIGHT, Turn, from_display_matrix, swaps_axes
from ctjax.types import UserError

if TYPE_CHECKING:
    import av.container
    import av.stream

# Demuxers for files of sound and video. Left out on purpose: text (tty), playlists and lists of files (hls, concat),
# devices, and single pictures.
FORMATS = (
    "mov,matroska,avi,mpegts,mpeg,flv,asf,ogg,mxf,nut,rm,gif,yuv4mpegpipe,"
    "wav,w64,aiff,flac,mp3,aac,au,caf,ac3,eac3,amr,ape,wv,tta"
)
# These state their length exactly, so that a file that ends earlier is known to be cut off.
STATES_LENGTH = ("mov", "matroska", "flac", "aiff", "wav", "avi")
TRUNCATION_TOLERANCE_S = 0.25
# Anamorphic video lies between 8/9 and 2; tags like 2/5 come from faulty scaling and would squeeze every face.
PLAUSIBLE_PIXEL_ASPECT = (0.5, 2.0)
VISIBLE_SQUEEZE = 0.02
_RIFF_UNKNOWN_SIZE = 0x7FFFF000  # recorders that write to a pipe put 0 or a huge number where the size belongs
_RIFF_SLACK_BYTES = 64  # some writers are off by a few bytes


class MediaError(UserError):
    """A file that cannot be read or written as asked. The message is one line meant for the user."""


class VideoInfo(NamedTuple):
    """Size as seen (upright, square pixels) in pixels; fps is the average rate, None where the file does not tell.

    turn: how the stored frames are turned upright (`orientation`).
    """

    width: int
    height: int
    fps: float | None
    turn: Turn


class AudioInfo(NamedTuple):
    sample_rate_hz: int
    channels: int


class MediaInfo(NamedTuple):
    """What a file holds; `video` or `audio` is None where there is no such track or nothing of it decodes.

    duration_s is what the file states, an estimate in some formats (mp3 without an index), None if unknown.
    """

    path: pathlib.Path
    format: str
    duration_s: float | None
    video: VideoInfo | None
    audio: AudioInfo | None


@contextlib.contextmanager
def opened(path: str | os.PathLike) -> Iterator[av.container.InputContainer]:
    """An open PyAV container for a local file. Raises: MediaError for anything FFmpeg objects to, here or inside."""
    import av

    path = existing_file(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        with av.open(f"file:{path}", options=options, **_lenient_tags(av.__version__)) as container:
            yield container
    except av.error.FFmpegError as error:
        reason = "is not a sound or video file that can be read, or it is cut off"
        if not isinstance(error, (ValueError, EOFError)):  # PyAV's classes for invalid data and arguments are both
            reason = f"cannot be read: {error.strerror or error}"
        raise MediaError(f"{path}: {reason}") from error


def _lenient_tags(version: str) -> dict[str, str]:
    """Titles in an odd encoding are no reason to refuse a file: said to PyAV where it does not know by itself."""
    return {"metadata_errors": "replace"} if int(version.split(".")[0]) < 19 else {}


def existing_file(path: str | os.PathLike) -> pathlib.Path:
    """`path` if it is a file with something in it. Raises: MediaError."""
    path = pathlib.Path(path)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"{path}: no such file") from None
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise MediaError(f"{path}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise MediaError(f"{path}: is not a file")
    if not os.access(path, os.R_OK):
        raise MediaError(f"{path}: may not be read; check its permissions")
    if found.st_size == 0:
        raise MediaError(f"{path}: the file is empty")
    return path


def probe(path: str | os.PathLike) -> MediaInfo:
    """Reads the header, the end and one frame of each track. Raises: MediaError if unreadable or cut off."""
    _refuse_short_riff(existing_file(path))
    with opened(path) as container:
        streams = [stream for stream in (video_stream(container), audio_stream(container)) if stream is not None]
        if not streams:
            raise MediaError(f"{path}: holds neither sound nor video")
        _refuse_early_end(path, container, streams)
        duration_s = container.duration / 1e6 if container.duration else None
        info = MediaInfo(pathlib.Path(path), container.format.name, duration_s, None, None)
    return info._replace(video=_probe_video(path), audio=_probe_audio(path))


def video_stream(container: av.container.InputContainer):
    """The first moving picture of a file (cover art is none), or None."""
    import av.stream

    cover = av.stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def audio_stream(container: av.container.InputContainer):
    """The first sound track of a file, or None."""
    return next(iter(container.streams.audio), None)


def decoded(container: av.container.InputContainer, stream: av.stream.Stream) -> Iterator:
    """Frames of one stream in presentation order. A damaged packet is left out, as players do."""
    import av

    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except (av.error.InvalidDataError, av.error.EOFError):
            continue
        yield from frames


def start_time_s(container: av.container.InputContainer) -> Fraction:
    """When a file's earliest track begins: time zero for all of its tracks."""
    return Fraction(container.start_time or 0, 1_000_000)


def _probe_video(path) -> VideoInfo | None:
    from av.sidedata.sidedata import Type

    with opened(path) as container:
        stream = video_stream(container)
        frame = next(decoded(container, stream), None) if stream is not None else None
        if frame is None:
            return None
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
        turn = UPRIGHT if matrix is None else from_display_matrix(bytes(matrix))
        aspect = float(stream.sample_aspect_ratio or 1)
        lowest, highest = PLAUSIBLE_PIXEL_ASPECT
        if not lowest <= aspect <= highest or abs(aspect - 1) < VISIBLE_SQUEEZE:
            aspect = 1.0
        height, width = frame.height, round(frame.width * aspect)
        if swaps_axes(turn):
            height, width = width, height
        return VideoInfo(width, height, float(stream.average_rate) if stream.average_rate else None, turn)


def _probe_audio(path) -> AudioInfo | None:
    with opened(path) as container:
        stream = audio_stream(container)
        frame = next(decoded(container, stream), None) if stream is not None else None
        return AudioInfo(frame.sample_rate, frame.layout.nb_channels) if frame is not None else None


def _refuse_early_end(path, container, streams) -> None:
    """Looks at the last second: a file that is cut off has nothing there though its header says so.

    Only `streams` are read later, so only they must be whole. A container's length is that of its longest track, a
    second language or subtitles perhaps: where a track does not state its own, all of them are looked at.
    """
    if not any(name in STATES_LENGTH for name in container.format.name.split(",")) or not container.duration:
        return
    import av

    start = container.start_time or 0
    with contextlib.suppress(av.error.FFmpegError):  # not seekable: read it all
        container.seek(start + max(0, container.duration - 1_000_000))
    ends: dict[int, float] = {}
    by_container = any(stream.duration is None for stream in streams)
    for packet in container.demux() if by_container else container.demux(streams):
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(end, ends.get(packet.stream.index, 0.0))
    for stream in streams:
        if stream.duration is None:
            continue
        stated = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
        _refuse_gap(path, stated, ends.get(stream.index))
    if by_container:
        _refuse_gap(path, (start + container.duration) / 1e6, max(ends.values(), default=None))


def _refuse_gap(path, stated_s: float, found_s: float | None) -> None:
    if found_s is None or stated_s - found_s > TRUNCATION_TOLERANCE_S:
        where = "earlier" if found_s is None else f"at {found_s:.1f} s"
        raise MediaError(
            f"{path}: is cut off: its header says {stated_s:.1f} s but the data end {where}; copy it again"
        )


def _refuse_short_riff(path: pathlib.Path) -> None:
    """WAV, AVI and AIFF begin with their own size; FFmpeg quietly shortens a truncated one."""
    with path.open("rb") as file:
        head = file.read(12)
    order = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
    if order is None or len(head) < 12:
        return
    stated = int.from_bytes(head[4:8], order) + 8
    actual = path.stat().st_size
    if 8 < stated < _RIFF_UNKNOWN_SIZE and actual + _RIFF_SLACK_BYTES < stated:
        raise MediaError(f"{path}: is cut off: its header says {stated} bytes but it has {actual}; copy it again")
