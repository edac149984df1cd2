"""One face through a video: frames in, frames with the face's crop box out, a bounded number of frames held.

A steady crop matters more than a tight one: every move of the box is seen by the renderer as a move of the head. So
the box rests while the face stays near its middle, and only when the face has gone further is it drawn along, over
smoothed positions, as a finger on a tray takes the tray along.
"""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ctjax.faces.boxes import INCREASE, centre, centred, extents, face_box, square_around, whole_pixels
from ctjax.faces.detect import OVERLAP, overlap
from ctjax.faces.find import Finder, NoFaceError, choose, enough, shortage
from ctjax.faces.landmarks import Mesh
from ctjax.types import Box

SLACK = 0.06  # of the box's side: how far the face may be off the middle, or larger or smaller, before the box follows
SMOOTHING_FRAMES = 4.0  # standard deviation of the Gaussian over the positions the box follows
_SMOOTHING_REACH = 2.0  # standard deviations looked at on either side
_PATIENCE_S = 0.5  # that long a lost face is awaited near its place, before another place or face is taken for it
_SCAN_STRIDE = 5  # every fifth frame is searched for the first face
_SCAN_SMALL_STRIDE = 5  # and every fifth of those for small ones, which is slow


class TrackedFace(NamedTuple):
    """A face in one frame: `box`, the square to render, in whole pixels; mesh landmarks float32 "468 3" in pixels.

    Where the face followed is not to be seen, points are None and the box is the last one (before its first appearance
    the first one). `lost` is true before that appearance and from half a second without the face on: such frames are
    best left as they were filmed. Shorter gaps are a hand or a blur, and with a box given by hand nothing is lost.
    """

    box: Box
    points: np.ndarray | None
    lost: bool = False

    @property
    def seen(self) -> bool:
        return self.points is not None


class FaceTracker:
    """Follows the largest face, or number `which` from the left (0 is the leftmost), of the first frame that shows it.

    fixed: keep the first box for the whole clip, as the release does (ControlTalk inference.py:69-71), instead of
    following a face that moves. increase: margin of the box. slack: see SLACK. frames_per_second: of the frames given.
    """

    def __init__(
        self,
        finder: Finder,
        which: int | None = None,
        *,
        fixed: bool = False,
        increase: float = INCREASE,
        slack: float = SLACK,
        smoothing_frames: float = SMOOTHING_FRAMES,
        frames_per_second: float = 25.0,
    ):
        self._finder = finder
        self._which = which
        self._increase = increase
        self._slack = math.inf if fixed else slack
        self._sigma = smoothing_frames
        self._reach = math.ceil(_SMOOTHING_REACH * smoothing_frames)
        self._patience = max(1, int(_PATIENCE_S * frames_per_second))

    def track(
        self, clip: Iterable[np.ndarray], frames: Iterable[np.ndarray], name: str = "the video"
    ) -> Iterator[tuple[np.ndarray, TrackedFace]]:
        """Pairs each of `frames` (uint8 "h w 3" RGB, endless perhaps) with its face.

        clip: the same frames from the start, read apart from them and only until the face asked for shows.
        Raises: NoFaceError at once if it shows in no frame of `clip`; `name` says in which file.
        """
        start, start_index = self._first(clip, name)
        return self._boxed(self._observed(iter(frames), start, start_index))

    def _boxed(self, observed: Iterator[tuple[np.ndarray, _Seen]]) -> Iterator[tuple[np.ndarray, TrackedFace]]:
        box = shot = None
        for image, seen, goal in _smoothed(observed, self._sigma, self._reach):
            box = goal if box is None or seen.shot != shot else _drawn_along(box, goal, self._slack)
            shot = seen.shot
            points = None if seen.mesh is None else seen.mesh.points
            yield image, TrackedFace(whole_pixels(box), points, seen.missed > self._patience)

    def _observed(self, frames: Iterator[np.ndarray], start: Mesh, start_index: int):
        """(image, what is seen) for each frame; the last position is carried through frames without the face."""
        last, shot, missed = start, 0, self._patience + 1
        for index, image in enumerate(frames):
            if index <= start_index:
                mesh = start if index == start_index else None
            else:
                mesh = self._next(image, last, missed)
            missed = 0 if mesh else missed + 1
            if mesh is not None:
                # After a cut or a long absence the box goes there at once; between, nothing is to be averaged.
                shot += overlap(extents(mesh.points), extents(last.points)) < OVERLAP
                last = mesh
            yield image, _Seen(mesh, square_around(face_box(last.points), self._increase), shot, missed)

    def _next(self, image: np.ndarray, last: Mesh, missed: int) -> Mesh | None:
        """The face that was at `last`, `missed` frames ago."""
        if not missed and (mesh := self._finder.follow(image, last)) is not None:
            return mesh
        place = extents(last.points)
        for faces in (self._finder.find_near(image, place), self._finder.find(image)):
            close = [mesh for mesh in faces if missed >= self._patience or _may_be(extents(mesh.points), place)]
            if close:
                return min(close, key=lambda mesh: math.dist(centre(extents(mesh.points)), centre(place)))
        return None

    def _first(self, clip: Iterable[np.ndarray], name: str) -> tuple[Mesh, int]:
        """The face asked for where it first shows, and the frame's number."""
        most = searched = 0
        for index, image in enumerate(clip):
            searched = index + 1
            if index % _SCAN_STRIDE:
                continue
            faces = self._finder.find(image)
            if not enough(faces, self._which) and index % (_SCAN_STRIDE * _SCAN_SMALL_STRIDE) == 0:
                faces = self._finder.find(image, small=True)
            if enough(faces, self._which):
                return choose(faces, self._which), index
            most = max(most, len(faces))
        where = f"its first {searched} frames (every {_SCAN_STRIDE}th was searched)" if searched else "it: no frames"
        raise NoFaceError(f"{name}: {shortage(most, self._which)} in {where}; --box sets the place by hand")


class _Seen(NamedTuple):
    mesh: Mesh | None
    square: Box  # where the box should be for this frame alone
    shot: int  # counts cuts: positions are comparable within one
    missed: int  # frames since the face was last seen


def fixed_track(frames: Iterable[np.ndarray], box: Box) -> Iterator[tuple[np.ndarray, TrackedFace]]:
    """Pairs every frame with the same box, for a box given by hand; no face is looked for."""
    face = TrackedFace(whole_pixels(box), None)
    return ((image, face) for image in frames)


def _smoothed(observed: Iterator[tuple[np.ndarray, _Seen]], sigma: float, reach: int):
    """(image, seen, smoothed square) for each frame; holds `reach` images and twice as many boxes."""
    ahead = collections.deque()
    behind: collections.deque[_Seen] = collections.deque(maxlen=reach)
    while True:
        ahead.extend(itertools.islice(observed, reach + 1 - len(ahead)))
        if not ahead:
            return
        image, seen = ahead.popleft()
        near = [(-k, other) for k, other in enumerate(reversed(behind), 1)]
        near += [(k, other) for k, (_, other) in enumerate(ahead, 1)]
        same = [(k, other) for k, other in [(0, seen), *near] if other.shot == seen.shot]
        weights = np.exp([-0.5 * (k / sigma) ** 2 for k, _ in same]) if sigma else [k == 0 for k, _ in same]
        yield image, seen, Box(*np.average([other.square for _, other in same], axis=0, weights=weights))
        behind.append(seen)


def _drawn_along(box: Box, goal: Box, slack: float) -> Box:
    """`box` moved and scaled by no more than brings `goal` back within the slack."""
    if math.isinf(slack):
        return box
    reach = slack * box.width
    x, y = (
        here + math.copysign(max(0.0, abs(there - here) - reach), there - here)
        for here, there in zip(centre(box), centre(goal), strict=True)
    )
    growth = math.log(goal.width / box.width)
    side = box.width * math.exp(math.copysign(max(0.0, abs(growth) - slack), growth))
    return centred(x, y, side)


def _may_be(box: Box, place: Box) -> bool:
    """Whether a face can have got from `place` to `box` between two frames, and is not somebody else's."""
    near = math.dist(centre(box), centre(place)) < 0.75 * max(place.width, place.height)
    return near and 0.5 < box.width * box.height / (place.width * place.height) < 2
