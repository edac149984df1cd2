"""Reading video: upright RGB frames in time, at any constant output rate, on past the end, in constant memory.

Output frames lie at k / fps. Each takes the source frame being shown there, a frame counting from the output time
nearest to its own (the rule of FFmpeg's fps filter), so that a source already at that rate passes through unchanged
whatever its time stamps are rounded to, and variable rates come out even.
"""

from __future__ import annotations

import array
import itertools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ctjax.media.container import MediaError, decoded, opened, probe, start_time_s, video_stream
from ctjax.media.orientation import turned

if TYPE_CHECKING:
    import av.video.frame

CONTINUATIONS = ("pingpong", "hold", "loop")
_SEGMENT_BYTES = 192 << 20  # decoded frames held at once while running backwards
_SEGMENT_FRAMES = 256
_SMALLEST_SEGMENT = 8
_TIE_S = 1e-6  # a frame exactly between two output times belongs to the later one
_EARLIER_S = (0.0, 2.0, 10.0)  # where to seek again when a seek landed behind its goal


class VideoSource:
    """A video file as a stream of frames; every method may be called any number of times.

    from_first_frame: where the picture starts later than the sound, time zero is the picture's start; by default it is
    the file's, and the first frame is shown until the picture begins, so that frames stay with their sound.
    Raises: MediaError if the file cannot be read, is cut off or holds no frames.
    """

    def __init__(self, path: str | os.PathLike, *, from_first_frame: bool = False):
        info = probe(path)
        if info.video is None:
            raise MediaError(f"{path}: has no video" + (", only sound" if info.audio else " frames"))
        self.path = info.path
        self.width, self.height = info.video.width, info.video.height
        self.fps = info.video.fps
        self.stated_duration_s = info.duration_s
        self._turn = info.video.turn
        self._from_first_frame = from_first_frame

    def shown(self) -> Iterator[tuple[float, np.ndarray]]:
        """Every stored frame once: (time in seconds, uint8 "h w 3" RGB)."""
        for time_s, _, frame in self._timed():
            yield time_s, self._rgb(frame)

    def resampled(self, fps: float) -> Iterator[np.ndarray]:
        """uint8 "h w 3" RGB frames at `fps`, once through: about duration * fps of them, at least one.

        An array that is shown at several output times is yielded again, not copied: do not write into it.
        """
        for _, image in self._ticks(fps):
            yield image

    def frames(self, fps: float, mode: str = "pingpong", count: int | None = None) -> Iterator[np.ndarray]:
        """As `resampled`, and on past the end: `count` frames, endless if None.

        mode: "pingpong" runs back and forth and shows the two end frames once a turn (0 1 2 1 0 1 ...; ControlTalk
        inference.py:279-283 shows them twice, which halts the motion for a frame); "hold" repeats the last frame;
        "loop" starts again. Memory is constant: running backwards decodes one segment after another.
        """
        if mode not in CONTINUATIONS:
            raise ValueError(f"mode {mode!r} is none of {', '.join(CONTINUATIONS)}")
        return itertools.islice(self._endless(fps, mode), count)

    def _endless(self, fps: float, mode: str) -> Iterator[np.ndarray]:
        ids = array.array("q")  # which stored frame each output time shows: 8 bytes a frame
        image = None
        for frame_id, image in self._ticks(fps):
            ids.append(frame_id)
            yield image
        if mode == "hold" or len(ids) == 1:
            yield from itertools.repeat(image)
        while True:
            if mode == "pingpong":
                yield from self._backwards(ids[1:-1])
            yield from self.resampled(fps)

    def _ticks(self, fps: float) -> Iterator[tuple[int, np.ndarray]]:
        """(id of the stored frame, image) for each output time."""
        if not fps > 0:
            raise ValueError(f"fps must be positive, not {fps}")
        tick = 0
        frame_id = image = None
        held = None  # converted only when an output time shows it
        end_s = last_s = 0.0
        for time_s, next_id, frame in self._timed():
            while held is not None and (tick + 0.5) / fps <= time_s + _TIE_S:
                image = self._rgb(held) if image is None else image
                yield frame_id, image
                tick += 1
            frame_id, held, image = next_id, frame, None
            length_s = float(frame.duration * frame.time_base) if frame.duration else time_s - last_s
            end_s, last_s = time_s + (length_s or 1 / fps), time_s
        while held is not None and (tick == 0 or (tick + 0.5) / fps <= end_s + _TIE_S):
            image = self._rgb(held) if image is None else image
            yield frame_id, image
            tick += 1

    def _timed(self) -> Iterator[tuple[float, int, av.video.frame.VideoFrame]]:
        """(seconds from time zero, id, frame) in order; the id is the frame's own time stamp."""
        with opened(self.path) as container:
            stream = video_stream(container)
            zero = None if self._from_first_frame else start_time_s(container)
            for frame_id, frame in _identified(container, stream):
                time = frame_id * stream.time_base
                zero = time if zero is None else zero
                yield float(time - zero), frame_id, frame

    def _backwards(self, ids: array.array) -> Iterator[np.ndarray]:
        """The frames `ids` in reverse, decoded forwards in segments from the end."""
        frame_bytes = self.width * self.height * 3 // 2
        size = max(_SMALLEST_SEGMENT, min(_SEGMENT_FRAMES, _SEGMENT_BYTES // frame_bytes))
        for stop in range(len(ids), 0, -size):
            wanted = ids[max(0, stop - size) : stop]
            frames = self._fetch(wanted)
            shown = image = None
            for frame_id in reversed(wanted):
                if frame_id != shown:
                    shown, image = frame_id, self._rgb(frames.pop(frame_id))
                yield image

    def _fetch(self, wanted: array.array) -> dict[int, av.video.frame.VideoFrame]:
        """Stored frames by id, ids rising: seeks to the key frame before the first and decodes up to the last."""
        missing = set(wanted)
        for earlier_s in (*_EARLIER_S, None):
            found = {}
            with opened(self.path) as container:
                stream = video_stream(container)
                if earlier_s is not None and not _seek(container, stream, wanted[0], earlier_s):
                    continue
                for frame_id, frame in _identified(container, stream, after_seek=earlier_s is not None):
                    if frame_id in missing:
                        found[frame_id] = frame
                    if frame_id >= wanted[-1]:
                        break
            if len(found) == len(missing):
                return found
        raise MediaError(f"{self.path}: gives other frames when read again; convert it to a plain mp4 first")

    def _rgb(self, frame: av.video.frame.VideoFrame) -> np.ndarray:
        image = turned(frame.to_ndarray(format="rgb24"), self._turn)
        if image.shape[:2] != (self.height, self.width):  # pixels that are not square, or a change of size midway
            image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return image


def _seek(container, stream, stamp: int, earlier_s: float) -> bool:
    """Goes to the key frame before `stamp`, less `earlier_s`; False where the container cannot."""
    import av

    try:
        container.seek(stamp - round(earlier_s / stream.time_base), stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _identified(container, stream, after_seek: bool = False) -> Iterator[tuple[int, av.video.frame.VideoFrame]]:
    """(time stamp, frame), strictly rising, so that a damaged stretch costs frames but never the sound's company.

    A frame without a stamp follows the one before by a frame's length; one stamped no later than that is left out.
    after_seek: leave out what cannot be trusted there, the frames before the first key frame.
    """
    stream.thread_type = "AUTO"
    step = max(1, round(1 / (stream.average_rate or 25) / stream.time_base))
    previous = None
    for frame in decoded(container, stream):
        if after_seek and previous is None and not (frame.key_frame and frame.pts is not None):
            continue
        stamp = frame.pts
        if stamp is None:
            stamp = (stream.start_time or 0) if previous is None else previous + step
        if previous is None or stamp > previous:
            previous = stamp
            yield stamp, frame
