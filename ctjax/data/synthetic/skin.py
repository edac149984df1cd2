"""Paint of a synthetic face: complexion, beard, lips, brows and eyes. Colours are "3 v u", gloss is "v u"."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.synthetic import face_shape as shape_of
from ctjax.data.synthetic.face_shape import bump, ramp
from ctjax.data.synthetic.hair import above_hairline
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.noise import noise

LID_OPEN, LID_LOW = 0.66, 0.38  # heights of the open eye above and below its middle, in eye radii


def complexion(person: Identity, rest: np.ndarray, detail: float) -> tuple[np.ndarray, np.ndarray]:
    """Albedo and gloss of the skin (both grids, one below the other) with all that does not move on it."""
    x, y, z = rest
    ax, front = np.abs(x), z > 0.1
    rng = np.random.default_rng([person.seed, 7])
    albedo = np.array(person.skin, np.float32)[:, None, None] * (
        1 + 0.03 * noise(rng, x.shape, 12 * detail, 12 * detail)
    )
    nose_y, mouth_y = shape_of.NOSE_TIP_Y, shape_of.mouth_y(person)
    flush = 0.16 * bump(ax, y, 0.36, -0.18, 0.17, 0.13) + 0.10 * bump(x, y, 0, nose_y, 0.1, 0.08)
    _tint(albedo, flush * person.flush, (0.0, 0.75, 0.65))
    grain = rng.normal(0, 1, x.shape).astype(np.float32)
    spots = cv2.GaussianBlur((grain > 2.1).astype(np.float32), (0, 0), max(0.5, 1.6 * detail))
    _tint(albedo, spots * bump(x, y, 0, -0.05, 0.42, 0.2) * person.freckles * (4 * detail * detail), (0.5, 0.8, 0.9))
    # Shade where light hardly reaches: eye sockets, under the nose and the lip, beside the nose, under the jaw.
    shade = 0.22 * bump(ax, y, 0.17, 0.13, 0.07, 0.07) + 0.12 * bump(ax, y, shape_of.EYE_X, 0.17, 0.16, 0.05)
    shade += 0.30 * bump(x, y, 0, nose_y - 0.10, 0.10 * person.nose_width, 0.035)
    shade += 0.14 * bump(ax, y, 0.13 * person.nose_width, nose_y - 0.01, 0.03, 0.07)
    shade += 0.20 * bump(x, y, 0, mouth_y - 0.135, 0.13, 0.03)
    shade += 0.45 * ramp(-y, 0.86, 0.97) + 0.25 * ramp(-z, 0.1, 0.5)
    _tint(albedo, shade, (0.75, 0.95, 1.0))
    _tint(albedo, 0.85 * bump(ax, y, 0.055 * person.nose_width, nose_y - 0.075, 0.028, 0.018) * front, (0.8, 1, 1))
    gloss = 0.09 + 0.08 * bump(x, y, 0, 0.5, 0.3, 0.2) + 0.14 * bump(x, y, 0, nose_y, 0.06, 0.06)
    scalp = above_hairline(person, rest)
    for channel, colour in zip(albedo, person.hair, strict=True):
        channel += scalp * (0.7 * colour - channel)
    if person.beard or person.moustache:
        _beard(person, albedo, gloss, rest, grain, front)
    return albedo.astype(np.float32), gloss.astype(np.float32)


def _tint(albedo: np.ndarray, weight: np.ndarray, share: tuple[float, float, float]) -> None:
    """Darkens by `weight`, the channels by different shares."""
    for channel, part in zip(albedo, share, strict=True):
        channel *= 1 - np.clip(weight * part, 0, 0.97)


def _beard(person, albedo, gloss, rest, grain, front) -> None:
    ax, y, half, mouth_y = np.abs(rest[0]), rest[1], shape_of.mouth_half(person), shape_of.mouth_y(person)
    below = mouth_y - 0.17
    jaw = np.maximum(ramp(-y, 0.10, 0.42) * ramp(ax, half * 1.0, half * 1.6), ramp(-y, -below, 0.02 - below + 0.06))
    jaw = np.clip(jaw, 0, 1) * person.beard * ramp(rest[2], -0.35, -0.15)
    lip = bump(ax, y, 0.09, mouth_y + 0.10, 0.15, 0.036) * person.moustache * front
    hair = np.clip(np.maximum(jaw, 1.4 * lip), 0, 1) * np.clip(0.88 + 0.10 * grain, 0, 1)
    for channel, colour in zip(albedo, person.hair, strict=True):
        channel += hair * (0.85 * colour - channel)
    gloss *= 1 - 0.6 * hair


class Lips:
    """The painted lips of one grid, within `patch`; they grow thinner when they are pressed together."""

    def __init__(self, person: Identity, rest: np.ndarray, albedo: np.ndarray, gloss: np.ndarray):
        y, half = shape_of.mouth_y(person), shape_of.mouth_half(person)
        self.patch = _patch((np.abs(rest[0]) < 1.15 * half) & (np.abs(rest[1] - y) < 0.16) & (rest[2] > 0))
        self._person, self._rest = person, rest[(slice(None), *self.patch)]
        self._albedo, self._gloss = albedo[(slice(None), *self.patch)].copy(), gloss[self.patch].copy()
        x, y = self._rest[0], self._rest[1] - y
        corner = bump(np.abs(x), y, half, 0, 0.03, 0.02)
        self._line = 1 - np.maximum(0.5 * np.exp(-((y / 0.007) ** 2)) * (np.abs(x) < half), 0.45 * corner)

    def painted(self, press: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Albedo and gloss of the patch, and how much of it is lip (0..1)."""
        upper, lower = shape_of.lip_masks(self._person, press, self._rest)
        weight = np.maximum(upper, lower)
        lips = np.array(self._person.lips)[:, None, None] * (0.90 * upper + lower + (1 - weight))
        albedo = (self._albedo + weight * (lips - self._albedo)) * self._line
        return albedo, self._gloss + 0.20 * lower + 0.08 * upper, weight


class EyeState(NamedTuple):
    """What moves: blink 0..1, gaze -1..1 (to the viewer's right, up), brows -1..1."""

    blink: float
    gaze_x: float
    gaze_y: float
    brows: float


def lids(u: np.ndarray, state: EyeState) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the edges of the upper and the lower lid over the eye's middle line, in eye radii; u: -1 at the inner
    to 1 at the outer corner."""
    opening = (LID_OPEN + 0.06 * state.brows + 0.10 * state.gaze_y) * (1 - state.blink)
    arch = np.clip(1 - np.abs(u) ** 2.2, 0, 1)
    upper = opening * arch**0.75 - 0.16 * state.blink * arch
    lower = -LID_LOW * arch**0.8 - 0.02
    return np.maximum(upper, lower), lower


def brow_centre(across: np.ndarray, state: EyeState) -> np.ndarray:
    """Height of the brow in rest coordinates; across: -1 inner to 1 outer end."""
    return shape_of.BROW_Y + 0.035 * state.brows + 0.03 * (1 - (across - 0.05) ** 2)


class Eyes:
    """Brows and eyes, painted on the upper grid within `patch`."""

    def __init__(self, person: Identity, rest: np.ndarray, albedo: np.ndarray, gloss: np.ndarray):
        x, y, z = rest
        outer = shape_of.EYE_X * person.eye_distance + 1.15 * shape_of.EYE_RADIUS * person.eye_size
        outer = max(outer, (shape_of.BROW_X + 0.02) * person.eye_distance + shape_of.BROW_HALF)
        self.patch = _patch((np.abs(x) < outer) & (y > shape_of.EYE_Y - 0.14) & (y < 0.43) & (z > 0))
        self._person = person
        self._albedo, self._gloss = albedo[(slice(None), *self.patch)].copy(), gloss[self.patch].copy()
        x, y = x[self.patch], y[self.patch]
        self._y, self._side = y, np.sign(x)
        self._across = (np.abs(x) - shape_of.BROW_X * person.eye_distance) / shape_of.BROW_HALF
        radius = shape_of.EYE_RADIUS * person.eye_size
        self._u = (np.abs(x) - shape_of.EYE_X * person.eye_distance) / radius
        self._v = (y - shape_of.EYE_Y - person.eye_tilt * 0.1 * self._u) / radius

    def painted(self, state: EyeState) -> tuple[np.ndarray, np.ndarray]:
        """Albedo and gloss of the patch."""
        person, u, v = self._person, self._u, self._v
        albedo, gloss = self._albedo.copy(), self._gloss.copy()
        thick = 0.030 * person.brow_thickness * np.clip(1 - 0.45 * self._across, 0.2, 1.5)
        brow = ramp(1 - np.abs(self._across), 0, 0.25)
        brow = 0.85 * brow * ramp(thick - np.abs(self._y - brow_centre(self._across, state)), -0.006, 0.016)
        _cover(albedo, brow, np.array(person.brows)[:, None, None])
        upper, lower = lids(u, state)
        arch = np.clip(1 - np.abs(u) ** 2.2, 0, 1)
        within = np.abs(u) < 1
        inside = ramp(upper - v, 0, 0.10) * ramp(v - lower, 0, 0.10) * within
        _cover(albedo, inside, self._ball(upper, state))
        lash = 0.90 * np.exp(-(((v - upper - 0.02) / 0.075) ** 2)) * arch**0.3 * (np.abs(u) < 1.04)
        crease = 0.30 * np.exp(-(((v - upper - 0.27) / 0.06) ** 2)) * arch**0.5 * within
        rim = 0.25 * np.exp(-(((v - lower) / 0.05) ** 2)) + 0.12 * np.exp(-(((v - lower + 0.18) / 0.10) ** 2))
        albedo *= (1 - lash) * (1 - crease - rim * arch * within)
        return albedo, gloss * (1 - inside)

    def _ball(self, upper: np.ndarray, state: EyeState) -> np.ndarray:
        """White, iris, pupil and a glint: "3 v u"."""
        u, v, side = self._u, self._v, self._side
        gu, gv = u - 0.30 * side * state.gaze_x, v - 0.08 - 0.25 * state.gaze_y
        radius = np.sqrt(gu**2 + gv**2)
        white = 1 - 0.25 * ramp(np.abs(u), 0.35, 1.0) - 0.28 * ramp(v - upper, -0.35, 0)
        ball = np.array((0.95, 0.94, 0.93))[:, None, None] * white
        iris = np.array(self._person.iris)[:, None, None] * (
            0.70 + 0.7 * ramp(radius, 0.15, 0.42) - 0.3 * ramp(gv, 0, 0.4)
        )
        _cover(ball, ramp(0.50 - radius, 0, 0.06), iris)
        ball *= 1 - 0.55 * ramp(radius, 0.40, 0.46) * ramp(0.53 - radius, 0, 0.04)
        ball *= 1 - 0.96 * ramp(0.24 - radius, 0, 0.05)
        _cover(ball, bump(gu * side, gv, -0.15, 0.18, 0.085, 0.085), np.ones((3, 1, 1)))
        return ball


def _cover(albedo: np.ndarray, weight: np.ndarray, colour: np.ndarray) -> None:
    """Lays `colour` over `albedo`, in place."""
    albedo += weight * (colour - albedo)


def _patch(where: np.ndarray) -> tuple[slice, slice]:
    """The smallest block of rows and columns around what is true."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    return np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
