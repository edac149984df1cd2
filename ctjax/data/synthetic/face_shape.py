"""The skin of a synthetic head: a grid of points on a skull, with features raised from it and a mouth that opens.

Units: the skull is about one unit in radius; x to the viewer's right, y up, z towards the viewer. Features are placed
by the coordinates (x, y) of the undeformed skull ("rest" coordinates), so that they stay with the skin as it moves.
Grids are float32 "3 v u": rows from the top down, columns from the viewer's left to right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.identity import Identity

ROWS_ABOVE, ROWS_BELOW, COLUMNS = 310, 230, 560  # grid for a picture of 256 px; it grows with the picture
WIDEST_AZIMUTH = 2.5  # the back of the head is never seen
EYE_X, EYE_Y = 0.275, 0.07
EYE_RADIUS = 0.135
BROW_X, BROW_HALF, BROW_Y = 0.30, 0.165, 0.285
NOSE_TIP_Y = -0.19
MOUTH_Y = -0.45
MOUTH_HALF_WIDTH = 0.22
CHIN_Y = -0.88
FULL_GAP = 0.25  # opening of the lips at jaw = 1
DROP_SHARE, RISE_SHARE = 0.80, 0.20  # of the gap, how much the lower lip falls and the upper one rises


class MouthShape(NamedTuple):
    """What the controls come to, in units: half width, gap of the lips, forward push; the others 0..1."""

    half_width: float
    gap: float
    push: float
    rounding: float
    tuck: float
    press: float
    tongue: float


def bump(x, y, cx, cy, sx, sy):
    """A Gaussian hill of height 1."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def ramp(value, low, high):
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mouth_y(person: Identity) -> float:
    """Height of the line between the lips."""
    return MOUTH_Y + person.mouth_height


def mouth_half(person: Identity) -> float:
    """Half width of the resting mouth."""
    return MOUTH_HALF_WIDTH * person.mouth_width


def mouth_shape(person: Identity, mouth: Mouth) -> MouthShape:
    """One frame's controls (numbers) to lengths."""
    press = float(ramp(mouth.closure, 0.25, 0.8))
    gap = FULL_GAP * max(0.0, float(mouth.jaw)) * (1 - press) * (1 - 0.75 * float(mouth.tuck))
    wide = 1 + 0.22 * float(mouth.width) - 0.30 * float(mouth.rounding) - 0.06 * float(mouth.jaw)
    return MouthShape(
        mouth_half(person) * wide,
        gap,
        0.07 * float(mouth.protrusion) + 0.02 * float(mouth.rounding),
        float(mouth.rounding),
        float(mouth.tuck),
        press,
        float(mouth.tongue),
    )


def azimuths(count: int) -> np.ndarray:
    """Of `count` columns, float32 "u", closer together in the middle; 0 looks at the viewer."""
    t = np.linspace(-1, 1, count)
    return (WIDEST_AZIMUTH * (0.75 * t + 0.25 * t**3)).astype(np.float32)


def rest_skin(person: Identity, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """The undeformed skull, rows above and below the lips: "3 v u" each. detail: grid density, 1 for 256 px."""
    lips = np.arcsin(mouth_y(person) / (0.98 * person.skull_height))
    above = lips + (1.566 - lips) * (np.linspace(1, 0, round(ROWS_ABOVE * detail)) ** 1.15)
    below = lips - (1.566 + lips) * (np.linspace(0, 1, round(ROWS_BELOW * detail)) ** 1.25)
    a = azimuths(2 * round(COLUMNS * detail / 2) + 1)
    return _skull(person, a, above), _skull(person, a, below)


def _skull(person: Identity, azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    a, e = azimuth[None, :], elevation[:, None]
    cosine = np.abs(np.cos(e))
    across = np.where(e < 0, cosine**0.62, cosine**0.75)
    x = 0.70 * person.skull_width * np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.92 * across
    y = 0.98 * person.skull_height * np.sin(e) * np.ones_like(a)
    z = 0.82 * np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.95 * cosine**0.8
    x = x * (1 - 0.29 * (2 - person.jaw_width) * ramp(-y, 0.0, 0.95)) * (1 + 0.03 * np.exp(-(((y - 0.45) / 0.3) ** 2)))
    # The jaw lies in front of the neck.
    z = z + (0.12 * ramp(-y, 0.2, 0.8) + 0.10 * ramp(-y, 0.55, 0.95)) * ramp(z, -0.5, 0.35)
    return np.stack([x, y, z]).astype(np.float32)


def raised_skin(person: Identity, rest: np.ndarray, *, below: bool) -> np.ndarray:
    """Nose, brows, cheeks, chin and lips lifted from the skull: "3 v u"."""
    x, y, z = rest
    ax, front = np.abs(x), ramp(z, 0.0, 0.3)
    eye_x = EYE_X * person.eye_distance
    lift = 0.040 * person.brow_ridge * bump(ax, y, 0.2, 0.24, 0.22, 0.07)
    lift -= 0.080 * bump(ax, y, eye_x, EYE_Y + 0.02, 0.16, 0.11)
    lift += 0.045 * bump(ax, y, eye_x, EYE_Y, 0.12, 0.09)
    lift += _nose(person, x, y)
    lift += 0.05 * person.cheeks * bump(ax, y, 0.38, -0.12, 0.16, 0.15)
    lift -= 0.02 * bump(ax, y, 0.36, -0.45, 0.10, 0.16)
    lift += 0.06 * person.chin * bump(x, y, 0, CHIN_Y + 0.06, 0.17, 0.12)
    lift -= 0.035 * bump(x, y, 0, mouth_y(person) - 0.17, 0.16, 0.045)
    lift -= 0.012 * bump(x, y, 0, mouth_y(person) + 0.13, 0.02, 0.05)  # the groove under the nose
    away, half = np.abs(y - mouth_y(person)), mouth_half(person)
    inside = np.clip(1 - (x / half) ** 2, 0, 1) ** 0.5
    middle, spread, height = (0.040, 0.034, 0.9) if below else (0.028, 0.028, 0.8)
    edge = ramp(away, 0.0, 0.02) * 0.7 + 0.3
    lift += 0.075 * person.lip_fullness * height * bump(x, away, 0, middle, half * 0.85, spread) * edge * inside
    raised = rest.copy()
    raised[2] += lift * front
    # A hint of a smile lifts the corners of the mouth.
    lifted = np.minimum(ax / half, 1.4) ** 2 * np.exp(-((away / 0.13) ** 2) - (ax / 0.40) ** 4) * front
    raised[1] += 0.030 * person.smile * lifted
    return raised


def _nose(person: Identity, x, y):
    length, width = person.nose_length, person.nose_width
    along = ramp(y, 0.24, NOSE_TIP_Y)  # 0 between the eyes, 1 at the tip
    below = ramp(y, NOSE_TIP_Y - 0.13, NOSE_TIP_Y - 0.02)
    ridge = (0.035 + 0.15 * length * along) * np.exp(-((x / ((0.055 + 0.050 * along) * width)) ** 2)) * below
    tip = 0.05 * length * bump(x, y, 0, NOSE_TIP_Y, 0.08 * width, 0.065)
    wings = 0.075 * bump(np.abs(x), y, 0.095 * width, NOSE_TIP_Y - 0.03, 0.048, 0.05)
    return ridge * ramp(y, 0.34, 0.22) + tip + wings


def lip_masks(person: Identity, press: float, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much a point belongs to the upper and the lower lip, 0..1."""
    x, y = rest[0], rest[1] - mouth_y(person)
    up, low = lip_heights(person, press, x)
    inside = (np.abs(x) < 0.99 * mouth_half(person)) & (rest[2] > 0)
    upper = ramp(up - y, -0.004, 0.008) * (y >= 0) * inside
    lower = ramp(low + y, -0.004, 0.008) * (y < 0) * inside
    return upper, lower


def lip_heights(person: Identity, press: float, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the upper and the lower lip at rest coordinate x, both positive."""
    arch = np.sqrt(np.clip(1 - (x / mouth_half(person)) ** 2, 0, 1))
    bow = 1 - 0.22 * np.exp(-((x / 0.028) ** 2)) + 0.10 * np.exp(-(((np.abs(x) - 0.055) / 0.03) ** 2))
    full = person.lip_fullness * (1 - 0.35 * press)
    return 0.066 * full * arch**0.8 * bow, 0.088 * full * arch**0.6


class MovingSkin:
    """One grid of skin and how it follows the mouth; what does not change from frame to frame is computed once."""

    def __init__(self, person: Identity, rest: np.ndarray, *, below: bool):
        self.rest, self.below = rest, below
        self.raised = raised_skin(person, rest, below=below)
        self._half = half = mouth_half(person)
        x, away = rest[0], np.abs(rest[1] - mouth_y(person))
        front = ramp(rest[2], 0.0, 0.35)
        widen = x * np.exp(-((away / 0.20) ** 2)) * np.exp(-((np.abs(x) / 0.42) ** 4)) * front
        push = np.exp(-((away / 0.13) ** 2) - (x / 0.24) ** 2) * front
        tuck = bump(x, away, 0, 0.0, half * 0.8, 0.09) * front
        if below:
            # At the lip the drop follows the arch of the opening, towards the chin the whole jaw moves.
            mix = ramp(away, 0.02, 0.30)
            drop = -DROP_SHARE * mix * np.exp(-((x / 0.50) ** 4)) * 0.9 * front
            arched = -DROP_SHARE * (1 - mix) * front
            back = -0.22 * ramp(away, 0.1, 0.5) * front
        else:
            drop, back = np.zeros_like(x), np.zeros_like(x)
            arched = RISE_SHARE * np.exp(-((away / 0.10) ** 2)) * front
        reach = np.max(np.abs([widen, push, drop, back, arched]), axis=0) > 2e-3
        rows, columns = np.flatnonzero(reach.any(1)), np.flatnonzero(reach.any(0))
        self.patch = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        log_arch = np.log(np.clip(1 - (x / half) ** 2, 1e-9, 1))
        fields = (widen, push, tuck * below, drop, back, arched, log_arch)
        self._fields = [np.ascontiguousarray(field[self.patch], np.float32) for field in fields]
        self._still = np.ascontiguousarray(self.raised[(slice(None), *self.patch)])

    def moved(self, shape: MouthShape) -> np.ndarray:
        """The points of `patch` after the mouth has taken `shape`: "3 v u"."""
        widen, push, tuck, drop, back, arched, log_arch = self._fields
        gap, f = shape.gap, np.float32
        arch = np.exp(log_arch * f(0.5 + 0.25 * (1 - shape.rounding)))
        points = self._still.copy()
        points[0] += widen * f(shape.half_width / self._half - 1)
        points[1] += arched * arch * f(gap)
        points[2] += push * f(shape.push)
        if self.below:
            points[1] += drop * f(gap) + tuck * f(0.035 * shape.tuck)
            points[2] += back * f(gap) - tuck * f(0.05 * shape.tuck)
        return points
