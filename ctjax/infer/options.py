"""What a user can choose about one clip, checked before any work begins."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Sequence

from ctjax.media.mux import frame_rate
from ctjax.motion.alpha import DEFAULT_ALPHA
from ctjax.motion.curve import Curve
from ctjax.types import Box, UserError

PathLike = str | os.PathLike[str]

LAYOUTS = ("full", "crop", "side_by_side")
EXTENSIONS = ("pingpong", "hold", "loop")
TRACKING = ("smooth", "fixed")


@dataclasses.dataclass(frozen=True)
class AnimateOptions:
    """One clip's settings. Raises `UserError` for a value that makes no sense.

    fps: of the output. alpha: mouth opening, a number or a `Curve` over seconds. yaw, pitch, roll: degrees that
    replace the head pose's own angle, a number or a curve; None keeps it. extend: how a source (or driving) video
    shorter than the sound goes on. face: which of several faces, counted from the left from 0; None takes the
    largest. box: the square to render in pixels of the source, about 1.4 times the face, instead of detection.
    tracking: "smooth" follows a moving face, "fixed" keeps one box. layout: the whole frame with the face blended in,
    the face crop alone, or source and output side by side. silence_audio: a recording whose beginning is silent,
    instead of computed silence. crf: H.264 quality, 1 best to 51; 0 is lossless.
    """

    fps: float = 25.0
    alpha: float | Curve = DEFAULT_ALPHA
    yaw: float | Curve | None = None
    pitch: float | Curve | None = None
    roll: float | Curve | None = None
    extend: str = "pingpong"
    face: int | None = None
    box: Sequence[float | str] | None = None  # kept as a `Box`
    tracking: str = "smooth"
    layout: str = "full"
    silence_audio: PathLike | None = None
    crf: int = 18

    def __post_init__(self) -> None:
        _number("fps", self.fps, 1, 240)
        # The rate that the file will have (23.98 means 24000/1001): counted with another, the lips would drift.
        object.__setattr__(self, "fps", float(frame_rate(self.fps)))
        for name in ("alpha", "yaw", "pitch", "roll"):
            value = getattr(self, name)
            limits = (-5, 5) if name == "alpha" else (-90, 90)
            for number in value.values.tolist() if isinstance(value, Curve) else [] if value is None else [value]:
                _number(name, number, *limits)
        _choice("extend", self.extend, EXTENSIONS)
        _choice("tracking", self.tracking, TRACKING)
        _choice("layout", self.layout, LAYOUTS)
        _number("crf", self.crf, 0, 51)
        if self.face is not None and (not isinstance(self.face, int) or self.face < 0):
            raise UserError(f"face {self.face!r}: faces are counted from the left, the first is 0")
        if self.box is not None:
            object.__setattr__(self, "box", _box(self.box))
            if self.face is not None:
                raise UserError("face and box exclude each other: a box given by hand is not looked for")


def curve_or_number(name: str, value: str | None) -> float | Curve | None:
    """What a command line gives: nothing, a number, or the path of a CSV of seconds,value. Raises: UserError."""
    if value is None:
        return None
    try:
        return float(value)
    except ValueError:
        if value.endswith(".csv") or os.path.exists(value):
            return Curve.read(value)
        raise UserError(f"{name} {value!r} is neither a number nor a CSV file of seconds,value") from None


def _box(given: Sequence[float | str]) -> Box:
    try:
        box = Box(*map(float, given))
    except (TypeError, ValueError):
        raise UserError(f"box {given!r} must be four numbers: x0,y0,x1,y1") from None
    if not (box.width >= 1 and box.height >= 1):
        raise UserError(f"box {tuple(box)}: x1 must be greater than x0 and y1 greater than y0")
    return box


def _number(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise UserError(f"{name} must be a number, not {value!r}")
    if not low <= value <= high:
        raise UserError(f"{name} {float(value):g} makes no sense: choose a value from {low:g} to {high:g}")


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} {value!r} is not one of {', '.join(choices)}")
