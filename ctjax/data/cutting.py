"""From one video to clips of one face: 25 frames a second, a square crop that stands still, 68 landmarks, sound.

Runs in worker processes without jax. A video is read twice, first to follow the face, then to cut the pictures, so
that its frames are never held; clips come one at a time, so that their pictures are not either. Its landmarks and its
sound are: some hundred megabytes an hour.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.footage import Video
from ctjax.data.records import FPS, SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, ClipInfo, encode_images
from ctjax.faces.boxes import centred, crop_box, extents
from ctjax.faces.crop import crop
from ctjax.faces.find import FaceFinder, Finder
from ctjax.faces.landmarks import Mesh, to_68
from ctjax.media.audio import read_audio
from ctjax.media.video import VideoSource
from ctjax.types import Box, UserError

THUMBNAILS, THUMBNAIL_PX = 6, 96
_SMALL_PX = 48  # side of the picture that shots are compared in


@dataclass(frozen=True)
class CutConfig:
    """size: side of the crops. increase: margin of the box around the face, in face sizes, as at inference.
    min_seconds, max_seconds: length of a clip. min_face_px: width of the face in the source. shot_change: difference
    between neighbouring frames, in grey levels of 255, that counts as a cut. look_every: frames between two searches
    for further faces; second_face: size of another face, relative to the main one, that spoils a clip. leave: how far
    the face may reach out of the crop, in crop sides. min_rms: sound quieter than this counts as none."""

    size: int = 256
    increase: float = 0.2
    min_seconds: float = 1.0
    max_seconds: float = 10.0
    min_face_px: int = 80
    shot_change: float = 28.0
    look_every: int = 12
    second_face: float = 0.5
    leave: float = 0.02
    min_rms: float = 1e-4

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 2:
            raise ValueError(f"size must be an even number of at least 32 pixels, not {self.size}")
        if not 0 < self.min_seconds <= self.max_seconds:
            raise ValueError("min_seconds must be above 0 and at most max_seconds")

    @property
    def min_frames(self) -> int:
        return max(1, round(self.min_seconds * FPS))

    @property
    def max_frames(self) -> int:
        return round(self.max_seconds * FPS)


class Drop(NamedTuple):
    """Seconds of a video that were left out, and why."""

    start_s: float
    seconds: float
    reason: str


class Piece(NamedTuple):
    """A clip without the frozen features. arrays: pictures, landmarks and sound as in `records`; start: its first frame
    in the video; thumbnails: JPEG, a strip for the contact sheet."""

    info: ClipInfo
    start: int
    arrays: dict[str, np.ndarray]
    thumbnails: bytes


class CutVideo(NamedTuple):
    """pieces: one at a time, to be gone through once. samples: the video's whole sound, float32 at 16 kHz, for features
    that look beyond the clip."""

    pieces: Iterable[Piece]
    drops: list[Drop]
    samples: np.ndarray


class _Seen(NamedTuple):
    """What the first reading leaves of a frame. points: "468 2", without depth; fault: why it cannot be used, or "";
    cut: a new shot begins here."""

    points: np.ndarray | None
    fault: str
    cut: bool


@functools.cache
def _finder() -> Finder:
    cv2.setNumThreads(1)  # the pool already has a process per core
    return FaceFinder()


def cut_video(root: pathlib.Path, video: Video, config: CutConfig, finder: Finder | None = None) -> CutVideo:
    """All usable clips of one video. Raises `UserError` if nothing of it can be read or used at all; what is read for
    the clips may still raise anything that the decoders do."""
    source = VideoSource(root / video.file)
    samples = read_audio(root / (video.sound or video.file)).samples
    if np.sqrt(np.mean(samples**2)) < config.min_rms:
        raise UserError("no sound: the track is silent")
    seen = list(_observe(source, config, finder or _finder()))
    sounding = len(samples) // SAMPLES_PER_FRAME
    seen = [s if i < sounding else s._replace(fault="no sound") for i, s in enumerate(seen)]
    spans, drops = _spans(seen, config)
    boxes, more = _boxes(seen, spans, config)
    pieces = _cut(source, video, seen, boxes, samples, config)
    return CutVideo(pieces, drops + more, samples)


def _observe(source: VideoSource, config: CutConfig, finder: Finder) -> Iterator[_Seen]:
    """Follows the largest face through the video."""
    mesh: Mesh | None = None
    small_before: np.ndarray | None = None
    crowded = False
    for number, image in enumerate(source.resampled(FPS)):
        small = cv2.resize(image, (_SMALL_PX, _SMALL_PX), interpolation=cv2.INTER_AREA).mean(-1)
        cut = small_before is not None and float(np.abs(small - small_before).mean()) > config.shot_change
        small_before = small
        if mesh is not None and not cut:
            mesh = finder.follow(image, mesh)
        if mesh is None or cut or number % config.look_every == 0:
            faces = finder.find(image)
            widths = [extents(face.points).width for face in faces]
            if faces and (mesh is None or cut):
                mesh = faces[int(np.argmax(widths))]
            crowded = sum(width >= config.second_face * max(widths) for width in widths) > 1
        fault = "no face" if mesh is None else "two faces" if crowded else ""
        if mesh is not None and extents(mesh.points).width < config.min_face_px:
            fault = "face too small"
        yield _Seen(None if mesh is None else mesh.points[:, :2].copy(), fault, cut)


def _spans(seen: Sequence[_Seen], config: CutConfig) -> tuple[list[range], list[Drop]]:
    """Runs of good frames within one shot, none longer than `max_frames`; and what lies between them."""
    spans, drops = [], []
    shot = np.cumsum([s.cut for s in seen])
    for (fault, _), run in itertools.groupby(range(len(seen)), key=lambda i: (seen[i].fault, shot[i])):
        frames = list(run)
        if fault:
            drops.append(drop(frames[0], len(frames), fault))
            continue
        parts = max(1, -(-len(frames) // config.max_frames))
        edges = np.linspace(frames[0], frames[-1] + 1, parts + 1).astype(int)
        for start, stop in itertools.pairwise(edges):
            if stop - start < config.min_frames:
                drops.append(drop(start, stop - start, "too short"))
            else:
                spans.append(range(start, stop))
    return spans, drops


def drop(start: int, frames: int, reason: str) -> Drop:
    """Of `frames` frames from frame `start` on."""
    return Drop(round(start / FPS, 2), round(frames / FPS, 2), reason)


def _boxes(seen: Sequence[_Seen], spans: Sequence[range], config: CutConfig) -> tuple[dict[range, Box], list[Drop]]:
    """One box a clip, that stands still. A clip in which the face leaves it is halved, until it is too short."""
    boxes, drops = {}, []
    waiting = list(spans)
    while waiting:
        span = waiting.pop(0)
        points = [seen[i].points for i in span]
        around = [crop_box(p, config.increase) for p in points]
        x, y = (float(np.median([(b[i] + b[i + 2]) / 2 for b in around])) for i in (0, 1))
        box = centred(x, y, float(np.median([b.width for b in around])))
        slack = config.leave * box.width
        if all(_inside(extents(p), box, slack) for p in points):
            boxes[span] = box
        elif len(span) // 2 >= config.min_frames:
            middle = span.start + len(span) // 2
            waiting[:0] = [range(span.start, middle), range(middle, span.stop)]
        else:
            drops.append(drop(span.start, len(span), "face leaves the crop"))
    return boxes, drops


def _inside(face: Box, box: Box, slack: float) -> bool:
    return (
        face.x0 >= box.x0 - slack
        and face.y0 >= box.y0 - slack
        and face.x1 <= box.x1 + slack
        and face.y1 <= box.y1 + slack
    )


def _cut(
    source: VideoSource,
    video: Video,
    seen: Sequence[_Seen],
    boxes: dict[range, Box],
    samples: np.ndarray,
    config: CutConfig,
) -> Iterator[Piece]:
    """The second reading: crops and encodes the frames of every clip."""
    waiting = sorted(boxes, key=lambda span: span.start)
    encoded: list[dict[str, np.ndarray]] = []
    strip: list[np.ndarray] = []
    for number, image in enumerate(source.resampled(FPS)):
        if not waiting:
            break
        span = waiting[0]
        if number < span.start:
            continue
        face = crop(image, boxes[span], config.size)
        encoded.append(encode_images([face]))
        if (number - span.start) % max(1, len(span) // THUMBNAILS) == 0 and len(strip) < THUMBNAILS:
            strip.append(cv2.resize(face, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA))
        if number == span.stop - 1:
            yield _piece(video, span, boxes[span], seen, encoded, strip, samples, config)
            waiting.pop(0)
            encoded, strip = [], []


def _piece(
    video: Video,
    span: range,
    box: Box,
    seen: Sequence[_Seen],
    encoded: Sequence[dict[str, np.ndarray]],
    strip: Sequence[np.ndarray],
    samples: np.ndarray,
    config: CutConfig,
) -> Piece:
    scale = config.size / box.width
    landmarks = np.stack([(to_68(seen[i].points) - (box.x0, box.y0)) * scale for i in span])
    sound = samples[span.start * SAMPLES_PER_FRAME : span.stop * SAMPLES_PER_FRAME]
    arrays = {
        "jpeg": np.concatenate([part["jpeg"] for part in encoded]),
        "jpeg_ends": np.cumsum([part["jpeg_ends"][-1] for part in encoded], dtype=np.int64),
        "landmarks": landmarks.astype(np.float32),
        "samples": np.clip(np.round(sound * 32767), -32768, 32767).astype(np.int16),
    }
    info = ClipInfo(f"{video.file}@{span.start / FPS:.2f}", video.person, video.split, len(span))
    _, thumbnails = cv2.imencode(".jpg", cv2.cvtColor(np.concatenate(strip, axis=1), cv2.COLOR_RGB2BGR))
    return Piece(info, span.start, arrays, thumbnails.tobytes())


assert SAMPLES_PER_FRAME * FPS == SAMPLE_RATE_HZ, "a frame holds a whole number of samples"
