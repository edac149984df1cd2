"""What a synthetic head has besides its face: hair, ears, glasses, neck and clothes, and the inside of the mouth."""

from __future__ import annotations

import numpy as np

from ctjax.data.synthetic import face_shape as shape_of
from ctjax.data.synthetic.face_shape import MouthShape, bump, ramp
from ctjax.data.synthetic.hair import hair
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.points import Part, ball, from_grids


def static_parts(person: Identity, rest: np.ndarray, detail: float) -> list[Part]:
    """Everything that turns with the head and never changes. rest: the skull, both grids, "3 v u"."""
    parts = hair(person, rest, detail) + _ears(person, detail)
    return parts + (_glasses(person, detail) if person.glasses else [])


def _ears(person: Identity, detail: float) -> list[Part]:
    if person.hair_style in ("long", "fringe"):
        return []
    e, width, parts = person.ears, 0.675 * person.skull_width, []
    for side in (-1, 1):
        ear = ball((side * width, 0.0, -0.03), (0.085 * e, 0.175 * e, 0.10 * e), person.skin, 0.06, 0.45 * detail)
        y, z = ear.points[1] / (0.175 * e), (ear.points[2] + 0.03) / (0.10 * e)
        hollow = 0.45 * bump(y, z, 0.05, 0.25, 0.55, 0.45)
        parts.append(
            ear._replace(albedo=ear.albedo * (1 - hollow * np.array([[0.7], [1], [1]])) * [[1], [0.92], [0.92]])
        )
    return parts


def _glasses(person: Identity, detail: float) -> list[Part]:
    frame = np.array(((0.08, 0.08, 0.09), (0.36, 0.20, 0.11), (0.55, 0.12, 0.16), (0.62, 0.55, 0.38))[person.seed % 4])
    across = np.linspace(-1, 1, max(5, round(11 * detail)))
    t, r = np.meshgrid(np.linspace(0, 2 * np.pi, round(560 * detail)), across)
    length, edge = np.meshgrid(np.linspace(0, 1, round(300 * detail)), across)
    square = 0.75 if person.seed % 3 else 1.0
    centre, parts = shape_of.EYE_X * person.eye_distance * 1.06, []
    rx, ry = 0.215, 0.18

    def thing(x, y, z, shade):
        return from_grids(np.stack([x, y, z]), None, frame[:, None, None] * shade, np.zeros(x.shape))

    for side in (-1, 1):
        x = side * centre + (rx + 0.016 * r) * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** square
        y = shape_of.EYE_Y - 0.01 + (ry + 0.016 * r) * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** square
        parts.append(thing(x, y, 0.98 - 0.55 * x**2, 1 + 0.4 * r * np.sin(t)))
        reach = centre + rx
        x = side * (reach + (0.72 * person.skull_width - reach) * length)
        z = 0.98 - 0.55 * reach**2 - 0.9 * length
        parts.append(thing(x, shape_of.EYE_Y + 0.03 + 0.014 * edge, z, 1 + 0 * edge))
    x = (centre - rx) * (2 * length - 1)
    y = shape_of.EYE_Y + 0.05 + 0.02 * (1 - (2 * length - 1) ** 2) + 0.014 * edge
    parts.append(thing(x, y, np.full(x.shape, 1.0), 1 + 0.3 * edge))
    return parts


def body_parts(person: Identity, detail: float) -> list[Part]:
    """Neck, shoulders and collar, which follow the head by a share of its turn."""
    angle, t = np.meshgrid(np.linspace(-1.9, 1.9, round(240 * detail)), np.linspace(0, 1, round(300 * detail)))
    y = -0.35 - 1.05 * t
    radius = (0.34 + 0.10 * ramp(t, 0.65, 1.0) - 0.02 * np.sin(np.pi * t)) * (0.6 + 0.4 * person.skull_width)
    points = np.stack([np.sin(angle) * radius, y, -0.16 + 0.06 * t + 0.95 * np.cos(angle) * radius])
    normals = np.stack([np.sin(angle), 0.1 + 0 * angle, np.cos(angle)])
    shadow = 1 - 0.50 * (1 - ramp(-y, 0.75, 1.25)) * (0.6 + 0.4 * np.cos(angle))
    skin = np.array(person.skin)[:, None, None] * np.stack([shadow**0.8, shadow, shadow])
    neck = from_grids(points, normals, skin, np.full(angle.shape, 0.04))
    clothes = np.array(person.clothes)
    shoulders = ball((0, -1.98, -0.18), (1.42, 0.78, 0.62), clothes, 0.03, 1.5 * detail, lowest=-0.1)
    y = shoulders.points[1]
    dark = 1 - 0.35 * bump(shoulders.points[0], y, 0, -1.2, 0.6, 0.18)
    if person.stripes:
        dark = dark * (1 - 0.28 * (np.sin(y * 42) > 0.2))
    shoulders = shoulders._replace(albedo=shoulders.albedo * dark)
    collar = ball((0, -1.36, -0.10), (0.50, 0.13, 0.47), np.clip(clothes * person.collar, 0, 1), 0.03, 0.6 * detail)
    return [neck, shoulders, collar]


class MouthInside:
    """Cavity, tongue and two rows of teeth: behind the lips, seen through their gap; nothing of it is lit."""

    COLOURS = ((0.20, 0.04, 0.05), (0.92, 0.42, 0.43), (1.05, 1.00, 0.93), (1.22, 1.19, 1.12))

    def __init__(self, person: Identity, detail: float, lips_z: float):
        self._y, self._half, self._z = shape_of.mouth_y(person), shape_of.mouth_half(person), lips_z
        self._u, self._v = np.meshgrid(
            np.linspace(-1, 1, round(120 * detail)).astype(np.float32),
            np.linspace(0, 1, round(80 * detail)).astype(np.float32),
        )
        u, v = self._u, self._v
        self._bow = np.sin(np.pi * np.minimum(v * 1.2, 1)) * (1 - u**2)
        tooth = 0.86 + 0.14 * np.abs(np.cos(u * self._half / 0.036 * np.pi)) ** 0.35
        shades = (
            np.clip(1 - 0.5 * np.abs(u) - 0.2 * v, 0.15, 1),
            0.62 + 0.3 * (1 - u**2),
            tooth * (0.80 - 0.4 * np.abs(u)),
            tooth * (0.98 - 0.35 * np.abs(u)) * (0.88 + 0.12 * ramp(v, 0.1, 0.5)),
        )
        colours = [np.array(c)[:, None, None] * s for c, s in zip(self.COLOURS, shades, strict=True)]
        self.albedo = np.concatenate([c.reshape(3, -1) for c in colours], axis=1).astype(np.float32)

    def points(self, shape: MouthShape) -> np.ndarray:
        """ "3 n", in the order of `albedo`."""
        u, v, y, z, gap = self._u, self._v, self._y, self._z, shape.gap
        x = u * (shape.half_width * 1.02)
        x2 = x * x
        top, bottom = y + 0.25 * gap + 0.10, y - 0.85 * gap - 0.10
        low_edge = y - shape_of.DROP_SHARE * gap
        show = min(0.075, 0.02 + 0.45 * gap)
        sheets = (
            (top + (bottom - top) * v, z - 0.20 - 1.8 * x2),
            (low_edge - 0.02 + (0.03 + 0.06 * shape.tongue) * self._bow, z - 0.14 + 0.07 * shape.tongue - 0.6 * x2),
            (low_edge - 0.03 + 0.05 * v * (1 - 0.4 * u * u), z - 0.08 - 1.6 * x2),
            (y + shape_of.RISE_SHARE * gap + 0.02 - (show + 0.02) * v * (1 - 0.25 * u * u), z - 0.03 - 1.6 * x2),
        )
        push, wider = 0.5 * shape.push, (1.3, 0.95, 0.9, 0.9)
        return np.concatenate(
            [
                np.stack([(w * x).ravel(), sy.ravel(), (sz + push).ravel()])
                for w, (sy, sz) in zip(wider, sheets, strict=True)
            ],
            axis=1,
            dtype=np.float32,
        )
