"""The skin of a synthetic head: a grid of points on a skull, with features raised from it and a mouth that opens.

Units: the skull is about one unit in radius; x to the viewer's right, y up, z towards the viewer. Features are placed
by the coordinates (x, y) of the undeformed skull ("rest" coordinates), so that they stay with the skin as it moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.identity import Identity

ROWS_ABOVE, ROWS_BELOW, COLUMNS = 320, 290, 430  # grid for a picture of 256 px; it grows with the picture
EYE_X, EYE_Y = 0.27, 0.09
NOSE_TIP_Y = -0.17
MOUTH_Y = -0.42
MOUTH_HALF_WIDTH = 0.205
CHIN_Y = -0.86
FULL_GAP = 0.23  # opening of the lips at jaw = 1


class Skin(NamedTuple):
    """Two grids that meet at the lips: rows above and rows below. rest, points: "2 parts, v u 3" lists."""

    rest: tuple[np.ndarray, np.ndarray]
    points: tuple[np.ndarray, np.ndarray]


class MouthShape(NamedTuple):
    """What the controls come to, in units: centre height, half width, gap of the lips, and forward push."""

    y: float
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


def mouth_shape(person: Identity, mouth: Mouth) -> MouthShape:
    """One frame's controls (numbers) to lengths."""
    press = float(ramp(mouth.closure, 0.25, 0.8))
    gap = FULL_GAP * max(0.0, float(mouth.jaw)) * (1 - press) * (1 - 0.75 * float(mouth.tuck))
    wide = 1 + 0.22 * float(mouth.width) - 0.28 * float(mouth.rounding) - 0.06 * float(mouth.jaw)
    return MouthShape(
        MOUTH_Y + person.mouth_height,
        MOUTH_HALF_WIDTH * person.mouth_width * wide,
        gap,
        0.07 * float(mouth.protrusion) + 0.02 * float(mouth.rounding),
        float(mouth.rounding),
        float(mouth.tuck),
        press,
        float(mouth.tongue),
    )


def rest_skin(person: Identity, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """The undeformed skull, rows above and below the lips: "v u 3" each. detail: grid density, 1 for 256 px."""
    azimuth = _dense_middle(2 * round(COLUMNS * detail / 2)) * 2.5
    lips = np.arcsin((MOUTH_Y + person.mouth_height) / (0.98 * person.skull_height))
    above = lips + (1.5 - lips) * (np.linspace(0, 1, round(ROWS_ABOVE * detail)) ** 1.15)
    below = lips - (1.35 + lips) * (np.linspace(0, 1, round(ROWS_BELOW * detail)) ** 1.25)
    return _skull(person, azimuth, above[::-1]), _skull(person, azimuth, below)


def _dense_middle(count: int) -> np.ndarray:
    """-1..1, closer together in the middle."""
    t = np.linspace(-1, 1, count)
    return 0.62 * t + 0.38 * t**3


def _skull(person: Identity, azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    a, e = azimuth[None, :], elevation[:, None]
    around = np.sign(np.cos(e)) * np.abs(np.cos(e)) ** 0.8
    x = 0.70 * person.skull_width * np.sign(np.sin(a)) * np.abs(np.sin(a)) ** 0.92 * around
    y = 0.98 * person.skull_height * np.sin(e) * np.ones_like(a)
    z = 0.82 * np.sign(np.cos(a)) * np.abs(np.cos(a)) ** 0.85 * around
    taper = 0.34 * (2 - person.jaw_width) * ramp(-y, 0.05, 0.95)
    x = x * (1 - taper) * (1 + 0.03 * bump(x, y, 0, 0.45, 9, 0.3))
    z = z + 0.10 * ramp(-y, 0.2, 0.8) * (z > 0)  # the jaw lies in front of the neck
    return np.stack([x, y, z], axis=-1)


def raise_features(person: Identity, rest: np.ndarray) -> np.ndarray:
    """Nose, brows, cheeks, chin and so on, lifted from the skull: "v u 3"."""
    x, y, z = np.moveaxis(rest, -1, 0)
    ax, front = np.abs(x), ramp(z, 0.0, 0.3)
    lift = 0.045 * person.brow_ridge * bump(ax, y, 0.2, 0.25, 0.2, 0.06)
    lift -= 0.085 * bump(ax, y, EYE_X * person.eye_distance, EYE_Y + 0.02, 0.15, 0.09)
    lift += 0.035 * bump(ax, y, EYE_X * person.eye_distance, EYE_Y, 0.10, 0.07)
    lift += _nose(person, x, y)
    lift += 0.05 * person.cheeks * bump(ax, y, 0.38, -0.10, 0.15, 0.13)
    lift -= 0.02 * bump(ax, y, 0.34, -0.45, 0.10, 0.14)
    lift += 0.06 * person.chin * bump(x, y, 0, CHIN_Y + 0.06, 0.17, 0.12)
    lift -= 0.035 * bump(x, y, 0, MOUTH_Y - 0.17, 0.16, 0.045)
    moved = rest.copy()
    moved[..., 2] += lift * front
    return moved


def _nose(person: Identity, x, y):
    length, width = person.nose_length, person.nose_width
    along = ramp(y, 0.24, NOSE_TIP_Y)  # 0 between the eyes, 1 at the tip
    below = ramp(y, NOSE_TIP_Y - 0.13, NOSE_TIP_Y - 0.02)
    ridge = (0.035 + 0.15 * length * along) * np.exp(-((x / ((0.055 + 0.045 * along) * width)) ** 2)) * below
    tip = 0.05 * length * bump(x, y, 0, NOSE_TIP_Y, 0.075 * width, 0.065)
    wings = 0.075 * bump(np.abs(x), y, 0.095 * width, NOSE_TIP_Y - 0.03, 0.045, 0.05)
    return ridge * (y < 0.24) + tip + wings


def lip_masks(person: Identity, shape: MouthShape, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much a point belongs to the upper and the lower lip, 0..1."""
    half = MOUTH_HALF_WIDTH * person.mouth_width
    x, y = rest[..., 0], rest[..., 1] - shape.y
    front = rest[..., 2] > 0
    arch = np.sqrt(np.clip(1 - (x / half) ** 2, 0, 1))
    bow = 1 - 0.22 * bump(x, 0, 0, 0, 0.028, 1) + 0.10 * bump(np.abs(x), 0, 0.055, 0, 0.03, 1)
    full = person.lip_fullness * (1 - 0.35 * shape.press)
    up = 0.066 * full * arch**0.8 * bow
    low = 0.088 * full * arch**0.6
    soft = 0.008
    upper = ramp(up - y, 0, soft) * (y >= 0) * (arch > 0.02) * front
    lower = ramp(low + y, 0, soft) * (y < 0) * (arch > 0.02) * front
    return upper, lower


def move_mouth(person: Identity, shape: MouthShape, rest: np.ndarray, points: np.ndarray, *, below: bool) -> np.ndarray:
    """`points` of the rows above or below the lips, after the mouth has taken `shape`."""
    rest_half = MOUTH_HALF_WIDTH * person.mouth_width
    x, away = rest[..., 0], np.abs(rest[..., 1] - shape.y)
    front = ramp(rest[..., 2], 0.0, 0.35)
    moved = points.copy()
    # Corners first: the skin around the mouth follows them and the effect fades over the cheeks.
    near = np.exp(-((away / 0.20) ** 2)) * np.exp(-((np.abs(x) / 0.42) ** 4))
    moved[..., 0] += x * (shape.half_width / rest_half - 1) * near * front
    arch = np.clip(1 - (x / rest_half) ** 2, 0, 1)
    arch = arch ** (0.5 + 0.25 * (1 - shape.rounding))
    lips = 0.075 * person.lip_fullness
    if below:
        # At the lip the drop follows the arch of the opening, towards the chin the whole jaw moves.
        jaw = np.exp(-((x / 0.50) ** 4))
        mix = ramp(away, 0.02, 0.30)
        moved[..., 1] -= 0.80 * shape.gap * ((1 - mix) * arch + mix * jaw * 0.9) * front
        moved[..., 2] -= 0.22 * shape.gap * ramp(away, 0.1, 0.5) * front
        fullness = bump(x, away, 0, 0.040, rest_half * 0.85, 0.034) * 0.9
        tucked = bump(x, away, 0, 0.0, rest_half * 0.8, 0.09) * shape.tuck
        moved[..., 2] -= 0.05 * tucked * front
        moved[..., 1] += 0.035 * tucked * front
    else:
        moved[..., 1] += 0.20 * shape.gap * arch * np.exp(-((away / 0.10) ** 2)) * front
        fullness = bump(x, away, 0, 0.028, rest_half * 0.85, 0.028) * 0.8
    rounded_edge = ramp(away, 0.0, 0.02) * 0.7 + 0.3
    moved[..., 2] += lips * fullness * rounded_edge * front
    moved[..., 2] += shape.push * np.exp(-((away / 0.13) ** 2)) * np.exp(-((x / 0.24) ** 2)) * front
    return moved
