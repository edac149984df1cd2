"""One clip: sound and pictures come in as streams, speaking frames go out, and nothing grows with the clip's length.

    sound -> feature windows \
                              > chunks -> devices -> paste back -> frames -> mp4
    source -> faces -> crops /

The first two run in a thread of their own, ahead of the devices; the devices run ahead of the pasting by one chunk.
"""

from __future__ import annotations

import collections
import itertools
import pathlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ctjax.faces.boxes import crop_box, user_box
from ctjax.faces.crop import crop, face_mask, paste
from ctjax.faces.find import find_face
from ctjax.faces.track import FaceTracker, TrackedFace, fixed_track
from ctjax.features.extract import SAMPLE_RATE_HZ
from ctjax.features.windows import frame_count
from ctjax.infer.chunks import chunked, stack_padded
from ctjax.infer.options import AnimateOptions, PathLike
from ctjax.infer.sound import Sound
from ctjax.infer.speaking import Chunk, Embedding, Still
from ctjax.infer.timing import StageTimes, prefetched
from ctjax.media.audio import AudioFile
from ctjax.media.image import is_picture, read_image
from ctjax.media.mux import VideoWriter, check_suffix, check_writable
from ctjax.media.video import VideoSource
from ctjax.motion.curve import Curve
from ctjax.progress import progress_bar
from ctjax.types import UserError

if TYPE_CHECKING:
    from ctjax.infer.talking_head import TalkingHead

_CHUNKS_AHEAD = 2  # prepared by the thread before the devices ask for them


class Shown(NamedTuple):
    """One frame of the source. frame, picture: uint8 "h w 3" RGB, the whole frame and the crop that is rendered;
    mask: where the rendered face is shown, None for the whole crop."""

    frame: np.ndarray
    face: TrackedFace
    picture: np.ndarray
    mask: np.ndarray | None


class Inputs(NamedTuple):
    """The files of a clip, opened. clip: the source if it is a video, None if it is a picture; silence: a recording
    that begins with silence, None for computed silence."""

    source: pathlib.Path
    audio: pathlib.Path
    clip: VideoSource | None
    driving: VideoSource | None
    silence: pathlib.Path | None

    @classmethod
    def open(cls, source: PathLike, audio: PathLike, driving: PathLike | None, silence: PathLike | None) -> Inputs:
        """Opens what is given; a wrong file is a UserError before any work."""
        for sound in (audio, silence):
            if sound is not None:
                AudioFile(sound)
        clip = None if is_picture(source) else VideoSource(source)
        if clip is not None and driving is not None:
            raise UserError(f"{driving}: a driving video moves a picture, but the source {source} is a video itself")
        moves = None if driving is None else VideoSource(driving)
        quiet = None if silence is None else pathlib.Path(silence)
        return cls(pathlib.Path(source), pathlib.Path(audio), clip, moves, quiet)

    def check_output(self, path: PathLike) -> None:
        """Raises UserError unless a video can be written to `path`; makes its folder if need be."""
        path = pathlib.Path(path)
        check_suffix(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: its folder cannot be made: {error.strerror}") from error
        driving = None if self.driving is None else self.driving.path
        files = (self.audio, self.source, driving, self.silence)
        check_writable(path, inputs=[file for file in files if file is not None])


class Animation:
    """A clip that is made as its frames are asked for: iterate over it (uint8 RGB frames), or `save` it.

    `frames` is how many there will be. Inputs are opened at once, so that a wrong file is an error before any work.
    """

    def __init__(
        self, head: TalkingHead, source: PathLike, audio: PathLike, driving: PathLike | None, options: AnimateOptions
    ):
        self.options = options
        self.times = StageTimes()
        self._head = head
        self._encoded: Still | None = None
        self._silence: Embedding | None = None
        self._called = False
        self._inputs = Inputs.open(source, audio, driving, options.silence_audio)
        with self.times.stage("sound"):
            self._sound = Sound(audio)
        self.frames = frame_count(self._sound.waveform.samples, SAMPLE_RATE_HZ, options.fps)

    def __len__(self) -> int:
        return self.frames

    def __iter__(self) -> Iterator[np.ndarray]:
        pending: collections.deque[tuple[list[Shown], Any]] = collections.deque()
        for shown, chunk, extra in prefetched(self._chunks(), _CHUNKS_AHEAD):
            pending.append((shown, self._speak(shown, chunk, extra)))
            if len(pending) > 1:
                yield from self._composed(*pending.popleft())
        while pending:
            yield from self._composed(*pending.popleft())

    def save(self, path: PathLike, *, progress: bool = False) -> pathlib.Path:
        """Writes an mp4 with the sound and returns its path; nothing is left under that name if anything fails."""
        path = pathlib.Path(path)
        self._inputs.check_output(path)
        with progress_bar(total=self.frames, unit="frame", disable=not progress) as bar:
            frames = iter(self)
            first = next(frames)
            size = (first.shape[1], first.shape[0])
            with VideoWriter(path, size, self.options.fps, audio=self._inputs.audio, crf=self.options.crf) as writer:
                for frame in itertools.chain([first], frames):
                    with self.times.stage("write"):
                        writer.write(frame)
                    bar.update()
        return path

    def summary(self) -> str:
        """How many frames, how fast, and the seconds of each stage (stages overlap)."""
        rate = self.frames / max(self.times.wall_s, 1e-9)
        return f"{self.frames} frames, {rate:.1f} frames/s over all; {self.times.summary()}"

    # --- the thread's side: what the devices will need --------------------------------------------------------------

    def _chunks(self) -> Iterator[tuple[list[Shown], Chunk, Any]]:
        """Frames of the source with everything the devices take for them, padded to the chunk's size."""
        size, options = self._head.chunk, self.options
        windows = self._sound.windows(self._head.features, fps=options.fps, frames=self.frames)
        windows = self.times.timed("sound", windows)
        shown = self.times.timed("pictures", self._shown())
        moves = self._inputs.driving
        driving = itertools.repeat(None)
        if moves is not None:
            driving = self.times.timed("pictures", self._tracked_crops(moves, "driving"))
        # Pictures first: where no face is found that should be said before hours of sound are listened to.
        for index, group in enumerate(chunked(zip(shown, driving, windows, strict=False), size)):
            frames, drivers, speech = (list(part) for part in zip(*group, strict=True))
            at = lambda value, first=index * size: _values(value, first, size, options.fps)  # noqa: E731
            chunk = Chunk(
                stack_padded(speech, size), at(options.alpha), at(options.yaw), at(options.pitch), at(options.roll)
            )
            if moves is not None:
                extra = stack_padded([driver.picture for driver in drivers], size)
            elif self._inputs.clip is None:
                extra = None
            else:
                extra = stack_padded([frame.picture for frame in frames], size)
            yield frames, chunk, extra

    def _shown(self) -> Iterator[Shown]:
        if self._inputs.clip is not None:
            return itertools.islice(self._tracked_crops(self._inputs.clip, "source"), self.frames)
        return itertools.repeat(self._picture(), self.frames)

    def _picture(self) -> Shown:
        """The source picture; its face is looked for once."""
        frame = read_image(self._inputs.source)
        if self.options.box is not None:
            face = TrackedFace(self._user_box(frame), None)
        else:
            points = find_face(self._head.face_finder, frame, self.options.face, str(self._inputs.source)).points
            face = TrackedFace(crop_box(points), points)
        return self._cropped(frame, face)

    def _tracked_crops(self, clip: VideoSource, role: str) -> Iterator[Shown]:
        options = self.options
        frames = clip.frames(options.fps, options.extend, self.frames)
        if role == "source" and options.box is not None:
            first = next(frames)
            tracked = fixed_track(itertools.chain([first], frames), self._user_box(first))
        else:
            which = options.face if role == "source" else None
            tracker = FaceTracker(
                self._head.face_finder, which, fixed=options.tracking == "fixed", frames_per_second=options.fps
            )
            # A face that shows only when the sound is over would leave a clip in which nobody speaks.
            searched = itertools.islice(clip.resampled(options.fps), self.frames)
            tracked = tracker.track(searched, frames, str(clip.path))
        if role == "driving":
            tracked = _held(tracked)
        points = None
        for frame, face in tracked:
            points = face.points if face.seen else points
            yield self._cropped(frame, face._replace(points=points))

    def _user_box(self, frame: np.ndarray):
        try:
            return user_box(tuple(self.options.box), frame.shape[:2])
        except ValueError as error:
            raise UserError(f"{self._inputs.source}: {error}") from error

    def _cropped(self, frame: np.ndarray, face: TrackedFace) -> Shown:
        size = self._head.size
        # A head that moves otherwise than it was filmed needs its whole crop; else hair and background stay as filmed.
        moves = self._inputs.driving is not None or not self._keeps_pose
        mask = None if moves or not face.seen else face_mask(face.points, face.box, size)
        return Shown(frame, face, crop(frame, face.box, size), mask)

    @property
    def _keeps_pose(self) -> bool:
        return self.options.yaw is None and self.options.pitch is None and self.options.roll is None

    # --- the devices' side ------------------------------------------------------------------------------------------

    def _speak(self, shown: list[Shown], chunk: Chunk, extra: np.ndarray | None):
        """Hands the chunk to the devices. The first call also compiles, or reads what was compiled before."""
        speaking = self._head.speaking
        if self._silence is None:
            with self.times.stage("sound"):
                self._silence = speaking.embed(self._head.silence(self._inputs.silence))
        with self.times.stage("render" if self._called else "compile"):
            self._called = True
            if self._inputs.clip is not None:
                return speaking.speak_video(extra, chunk, self._silence)
            if self._encoded is None:
                self._encoded = speaking.still(shown[0].picture)
            if self._inputs.driving is not None:
                return speaking.speak_driven(self._encoded, extra, chunk, self._silence)
            return speaking.speak(self._encoded, chunk, self._silence)

    def _composed(self, shown: list[Shown], rendered) -> Iterator[np.ndarray]:
        with self.times.stage("render"):
            pictures = np.asarray(rendered)
        for source, picture in zip(shown, pictures, strict=False):
            with self.times.stage("blend"):
                frame = self._laid_out(source, picture)
            yield frame

    def _laid_out(self, source: Shown, picture: np.ndarray) -> np.ndarray:
        if self.options.layout == "crop":
            return source.picture if source.face.lost else picture
        whole = source.frame.copy()  # as it was filmed, where nobody is there to speak
        if not source.face.lost:
            whole = paste(source.frame, picture, source.face.box, source.mask)
        if self.options.layout == "full":
            return whole
        return np.concatenate([source.frame, whole], axis=1)


def _held(tracked: Iterable[tuple[np.ndarray, TrackedFace]]) -> Iterator[tuple[np.ndarray, TrackedFace]]:
    """The frames, each that shows no face replaced by the last one that did, at first by the first: what else is there
    says nothing of how a head is held."""
    last, early = None, 0
    for one in tracked:
        last = one if one[1].seen else last
        if last is None:
            early += 1
            continue
        yield from itertools.repeat(last, early + 1)
        early = 0


def _values(value: float | Curve | None, first: int, count: int, fps: float) -> np.ndarray:
    """A number or curve at `count` frames from frame `first` on: float32; NaN where there is none."""
    if value is None:
        return np.full(count, np.nan, np.float32)
    return (value if isinstance(value, Curve) else Curve.constant(value)).frames(first, count, fps)
