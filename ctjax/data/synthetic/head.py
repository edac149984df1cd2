"""A synthetic head: surfaces of a person with a mouth, eyes and a head pose, and the truth that goes with them."""

from __future__ import annotations

import functools
from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.synthetic import face_shape as shape_of
from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.face_shape import bump, ramp
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.splat import Surface, draw, grid_normals

SCALE = 0.37  # of the picture's height, pixels per unit at scale 1
CENTRE_Y = 0.47


class Gesture(NamedTuple):
    """Everything that moves besides the mouth. Degrees; translation in units; blink 0 open to 1 shut; gaze -1..1;
    brows -1 lowered to 1 raised; smile 0..1."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.0
    blink: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    brows: float = 0.0


class Truth(NamedTuple):
    """In pixels of the picture: landmarks "68 2" (iBUG order), inner-lip aperture and outer mouth width."""

    landmarks: np.ndarray
    aperture_px: float
    mouth_width_px: float


class Head:
    """A person, ready to be drawn at `size` pixels; what does not move is prepared once."""

    def __init__(self, person: Identity, size: int):
        self.person, self.size = person, size
        self._detail = max(size, 96) / 256
        self._rest = shape_of.rest_skin(person, self._detail)
        self._raised = tuple(shape_of.raise_features(person, rest) for rest in self._rest)
        rng = np.random.default_rng([person.seed, 7])
        self._blotches = tuple(_noise(rng, part.shape[:2], 9) for part in self._rest)
        self._grain = tuple(rng.normal(0, 1, part.shape[:2]).astype(np.float32) for part in self._rest)

    def draw(self, mouth: Mouth, gesture: Gesture) -> tuple[np.ndarray, Truth]:
        """uint8 RGB "size size 3" and its truth."""
        size = self.size
        shape = shape_of.mouth_shape(self.person, mouth)
        turn = _rotation(gesture)
        parts = [
            shape_of.move_mouth(self.person, shape, rest, raised, below=bool(i))
            for i, (rest, raised) in enumerate(zip(self._rest, self._raised, strict=True))
        ]
        surfaces = []
        for i, points in enumerate(parts):
            albedo, gloss = self._paint(i, shape, gesture)
            surfaces.append(self._lit(points, albedo, gloss, turn))
        surfaces += self._mouth_inside(shape, turn)
        surfaces += self._hair(turn) + self._ears(turn) + self._body(turn)
        if self.person.glasses:
            surfaces += self._glasses(turn)
        scale_px = SCALE * size * gesture.scale
        centre = (size * (0.5 + 0.3 * gesture.shift_x), size * (CENTRE_Y - 0.3 * gesture.shift_y))
        image = draw(surfaces, _backdrop(self.person, size), scale_px=scale_px, centre_px=centre)
        return image, self._truth(parts, turn, scale_px, centre)

    # --- skin -----------------------------------------------------------------------------------------------------

    def _paint(self, part: int, shape, gesture: Gesture) -> tuple[np.ndarray, np.ndarray]:
        """Albedo "v u 3" and gloss "v u" of the skin with lips, eyes, brows and beard painted on it."""
        person, rest = self.person, self._rest[part]
        x, y, z = np.moveaxis(rest, -1, 0)
        front = z > 0.1
        albedo = np.broadcast_to(np.array(person.skin), rest.shape).copy()
        albedo *= (1 + 0.035 * self._blotches[part])[..., None]
        flush = 0.10 * bump(np.abs(x), y, 0.36, -0.16, 0.16, 0.13) + 0.08 * bump(
            x, y, 0, shape_of.NOSE_TIP_Y, 0.1, 0.08
        )
        albedo *= 1 - flush[..., None] * np.array((0.0, 0.7, 0.6))
        spots = (self._grain[part] > 2.2) * bump(x, y, 0, -0.05, 0.42, 0.2) * person.freckles
        albedo *= 1 - 0.35 * cv2.GaussianBlur(spots.astype(np.float32), (0, 0), 1.0)[..., None]
        gloss = 0.10 + 0.10 * bump(x, y, 0, 0.5, 0.3, 0.2) + 0.12 * bump(x, y, 0, shape_of.NOSE_TIP_Y, 0.06, 0.06)
        nostril = bump(np.abs(x), y, 0.05 * person.nose_width, shape_of.NOSE_TIP_Y - 0.075, 0.028, 0.018) * front
        albedo *= 1 - 0.75 * nostril[..., None]
        if person.beard or person.moustache:
            albedo = self._bearded(part, albedo, front)
        for weight in shape_of.lip_masks(person, shape, rest):
            albedo += weight[..., None] * (np.array(person.lips) - albedo)
            gloss = gloss + 0.22 * weight
        line = bump(x, y, 0, shape.y, 1e3, 0.006) * (np.abs(x) < shape_of.MOUTH_HALF_WIDTH * person.mouth_width) * front
        albedo *= 1 - 0.55 * line[..., None]
        albedo = self._brows(albedo, x, y, front, gesture)
        return self._eyes(albedo, gloss, x, y, front, gesture)

    def _bearded(self, part, albedo, front):
        person, rest = self.person, self._rest[part]
        x, y = np.abs(rest[..., 0]), rest[..., 1]
        half = shape_of.MOUTH_HALF_WIDTH * person.mouth_width
        jaw = ramp(-y, 0.18, 0.42) * ramp(x, half * 0.9, half * 1.35) + ramp(-y, 0.60, 0.68)
        jaw = np.clip(jaw, 0, 1) * person.beard * (rest[..., 2] > -0.25)
        lip = bump(x, y, 0.08, shape_of.MOUTH_Y + person.mouth_height + 0.10, 0.15, 0.035) * person.moustache * front
        hair = np.clip(np.maximum(jaw, 1.3 * lip), 0, 1) * (0.86 + 0.10 * self._grain[part]).clip(0, 1)
        return albedo + hair[..., None] * (np.array(person.hair) * 0.85 - albedo)

    def _brows(self, albedo, x, y, front, gesture):
        person = self.person
        across = (np.abs(x) - EYE_OUT * person.eye_distance) / 0.155
        centre = 0.285 + 0.035 * gesture.brows + 0.03 * (1 - across**2) - 0.02 * across
        thick = 0.030 * person.brow_thickness * np.clip(1 - 0.45 * across, 0.2, 1.5)
        brow = ramp(1 - np.abs(across), 0, 0.25) * ramp(thick - np.abs(y - centre), 0, 0.02) * front
        return albedo + 0.85 * brow[..., None] * (np.array(person.brows) - albedo)

    def _eyes(self, albedo, gloss, x, y, front, gesture):
        person = self.person
        size = 0.118 * person.eye_size
        for side in (-1, 1):
            cx = side * shape_of.EYE_X * person.eye_distance
            u = (x - cx) * side / size  # -1 inner corner, 1 outer
            v = (y - shape_of.EYE_Y - person.eye_tilt * 0.1 * u) / size
            open_up = (0.58 + 0.06 * gesture.brows) * (1 - gesture.blink) + 0.10 * gesture.gaze_y * (1 - gesture.blink)
            arch = np.clip(1 - np.abs(u) ** 2.2, 0, 1)
            upper, lower = open_up * arch**0.75 - 0.16 * gesture.blink * arch, -0.34 * arch**0.8 - 0.02
            upper = np.maximum(upper, lower)
            inside = ramp(upper - v, 0, 0.10) * ramp(v - lower, 0, 0.10) * (np.abs(u) < 1) * front
            gu, gv = u - 0.30 * side * gesture.gaze_x, v - 0.06 - 0.25 * gesture.gaze_y
            radius = np.sqrt(gu**2 + gv**2)
            ball = (
                np.array((0.93, 0.92, 0.90))
                * (1 - 0.28 * ramp(np.abs(u), 0.35, 1.0) - 0.25 * ramp(v - upper, -0.3, 0))[..., None]
            )
            iris = np.array(person.iris) * (0.75 + 0.6 * ramp(radius, 0.15, 0.40))[..., None]
            ball += ramp(0.46 - radius, 0, 0.06)[..., None] * (iris - ball)
            ball *= 1 - 0.6 * (ramp(radius, 0.37, 0.43) * ramp(0.49 - radius, 0, 0.04))[..., None]
            ball *= 1 - 0.96 * ramp(0.21 - radius, 0, 0.05)[..., None]
            glint = bump(gu, gv, -0.14 * side, 0.17, 0.075, 0.075)
            ball += glint[..., None] * (1 - ball)
            albedo = albedo + inside[..., None] * (ball - albedo)
            lash = bump(v - upper, 0, 0.02, 0, 0.065, 1) * arch**0.3 * (np.abs(u) < 1.04) * front
            albedo = albedo * (1 - 0.88 * lash[..., None])
            crease = bump(v - upper, 0, 0.26, 0, 0.06, 1) * arch**0.5 * (np.abs(u) < 1) * front
            under = bump(v - lower, 0, -0.16, 0, 0.10, 1) * arch * front
            albedo = (
                albedo
                * (1 - 0.28 * crease - 0.10 * under - 0.25 * bump(v - lower, 0, 0, 0, 0.04, 1) * arch * front)[
                    ..., None
                ]
            )
            gloss = gloss * (1 - inside)
        return albedo, gloss

    # --- everything else ------------------------------------------------------------------------------------------

    def _mouth_inside(self, shape, turn) -> list[Surface]:
        """Cavity, teeth and tongue: behind the lips, seen through their gap."""
        half, gap = shape.half_width, shape.gap
        lips_z = 0.90
        u, v = np.meshgrid(np.linspace(-1, 1, 110), np.linspace(0, 1, 90))
        x = u * half * 1.02

        def sheet(y, z, colour, shade):
            points = np.stack([x, y, z], -1)
            return _plain(points, np.array(colour) * shade[..., None], turn)

        top, bottom = shape.y + 0.25 * gap + 0.02, shape.y - 0.85 * gap - 0.02
        deep = np.clip(1 - 0.6 * np.abs(u) - 0.2 * v, 0.15, 1)
        cavity = sheet(top + (bottom - top) * v, lips_z - 0.30 - 0.9 * x**2, (0.20, 0.05, 0.05), deep)
        tooth = 0.86 + 0.14 * np.abs(np.cos(u * half / 0.034 * np.pi / 1.0)) ** 0.35
        upper_edge = shape.y + 0.20 * gap
        show = min(0.075, 0.02 + 0.45 * gap)
        teeth = sheet(
            upper_edge + 0.02 - (show + 0.02) * v * (1 - 0.25 * u**2),
            lips_z - 0.12 - 1.6 * x**2,
            (0.93, 0.90, 0.84),
            tooth * (0.95 - 0.35 * np.abs(u)),
        )
        low_edge = shape.y - 0.80 * gap
        low = sheet(
            low_edge - 0.03 + 0.05 * v * (1 - 0.4 * u**2),
            lips_z - 0.17 - 1.6 * x**2,
            (0.85, 0.82, 0.76),
            tooth * (0.80 - 0.4 * np.abs(u)),
        )
        height = low_edge - 0.02 + (0.03 + 0.05 * shape.tongue) * (1 - u**2) * np.sin(np.pi * np.minimum(v * 1.2, 1))
        tongue = sheet(
            height, lips_z - 0.24 + 0.06 * shape.tongue - 0.6 * x**2, (0.72, 0.33, 0.33), 0.65 + 0.3 * (1 - u**2)
        )
        return [cavity, tongue, low, teeth] if gap > 0.004 else [cavity]

    def _hair(self, turn) -> list[Surface]:
        person = self.person
        style = person.hair_style
        if style == "bald":
            return []
        upper, lower = self._rest
        skull = np.concatenate([upper, lower])
        x, y, z = np.moveaxis(skull, -1, 0)
        rng = np.random.default_rng([person.seed, 11])
        strands = (
            _noise(rng, skull.shape[:2], 1.2 if style != "curly" else 4) * 0.6
            + np.tile(_noise(rng, (1, skull.shape[1]), 1.5), (skull.shape[0], 1)) * 0.5
        )
        thick = {"short": 1.07, "side": 1.12, "long": 1.10, "curly": 1.24, "bun": 1.06}[style]
        line = 0.58 + person.hairline + 0.05 * np.cos(x * 9) - 0.10 * ramp(np.abs(x), 0.3, 0.6)
        if style == "side":
            line = line - 0.16 * ramp(-x, -0.25, 0.45) + 0.05 * ramp(x, 0, 0.4)
        back = {"short": -0.05, "side": -0.05, "long": -1.0, "curly": -0.35, "bun": -0.05}[style]
        sides = ramp(-z, -0.38, -0.22) * (y > back)
        grows = (y > line + 0.015 * strands) | (sides > 0.5)
        lumps = (1 + 0.06 * _noise(rng, skull.shape[:2], 16)) if style == "curly" else 1 + 0.012 * strands
        out = skull * (thick * lumps)[..., None]
        edge = 1 - 0.055 * np.exp(-(((y - line) / 0.05) ** 2))
        out = out * np.where(z > 0.2, edge, 1.0)[..., None]
        if style == "long":
            hang = ramp(-y, 0.1, 1.0)
            out[..., 1] -= 0.65 * hang * (np.abs(x) > 0.3)
            out[..., 0] *= 1 + 0.30 * hang
        shade = np.clip(0.85 + 0.22 * strands, 0.4, 1.4)
        surface = self._lit(out, np.array(person.hair) * shade[..., None], np.full(shade.shape, 0.22), turn, keep=grows)
        surfaces = [surface]
        if style == "bun":
            surfaces.append(self._ball((0, 1.15, -0.25), (0.30, 0.26, 0.28), np.array(person.hair), 0.2, turn))
        return surfaces

    def _ears(self, turn) -> list[Surface]:
        if self.person.hair_style == "long":
            return []
        e = self.person.ears
        width = 0.685 * self.person.skull_width
        return [
            self._ball(
                (s * width, 0.02, -0.02),
                (0.075 * e, 0.17 * e, 0.11 * e),
                np.array(self.person.skin) * (0.98, 0.9, 0.9),
                0.08,
                turn,
            )
            for s in (-1, 1)
        ]

    def _body(self, turn) -> list[Surface]:
        """Neck and shoulders follow the head by a third of its turn."""
        part = _power(turn, 0.35)
        skin = np.array(self.person.skin) * 0.90
        neck = self._ball((0, -1.05, -0.12), (0.36, 0.75, 0.36), skin, 0.05, part)
        shoulders = self._ball((0, -2.0, -0.15), (1.45, 0.72, 0.6), np.array(self.person.clothes), 0.04, part)
        collar = self._ball((0, -1.42, -0.10), (0.47, 0.16, 0.44), np.array(self.person.clothes) * 0.8, 0.04, part)
        return [neck, shoulders, collar]

    def _glasses(self, turn) -> list[Surface]:
        t = np.linspace(0, 2 * np.pi, 500)[:, None]
        r = np.linspace(-1, 1, 9)[None]
        surfaces = []
        frame = np.array((0.08, 0.08, 0.09)) if self.person.seed % 2 else np.array((0.35, 0.22, 0.12))
        for s in (-1, 1):
            cx = s * shape_of.EYE_X * self.person.eye_distance * 1.05
            rx, ry = 0.205, 0.165
            x = cx + (rx + 0.014 * r) * np.sign(np.cos(t)) * np.abs(np.cos(t)) ** 0.8
            y = shape_of.EYE_Y - 0.01 + (ry + 0.014 * r) * np.sign(np.sin(t)) * np.abs(np.sin(t)) ** 0.8
            z = 0.97 - 0.55 * x**2
            surfaces.append(
                _plain(np.stack([x, y, z], -1), np.broadcast_to(frame, (*x.shape, 3)) * (1 + 0.5 * r[..., None]), turn)
            )
            length, edge = np.meshgrid(np.linspace(0, 1, 300), np.linspace(-1, 1, 9))
            side = np.stack(
                [s * (0.47 + 0.24 * length), shape_of.EYE_Y + 0.03 + 0.013 * edge, 0.84 - 0.95 * length], -1
            )
            surfaces.append(_plain(side, np.broadcast_to(frame, side.shape), turn))
        length, edge = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 9))
        bridge = np.stack(
            [0.09 * length, shape_of.EYE_Y + 0.05 + 0.02 * (1 - length**2) + 0.013 * edge, np.full(length.shape, 1.0)],
            -1,
        )
        return [*surfaces, _plain(bridge, np.broadcast_to(frame, bridge.shape), turn)]

    def _ball(self, centre, radii, colour, gloss, turn) -> Surface:
        directions = _sphere(self._detail)
        points = directions * np.array(radii) + np.array(centre)
        albedo = np.broadcast_to(colour, points.shape)
        return self._lit(points, albedo, np.full(points.shape[:2], gloss), turn, normals=directions / np.array(radii))

    def _lit(self, points, albedo, gloss, turn, *, keep=None, normals=None) -> Surface:
        """Points turned by the head pose and lit by a key light, sky and bounce."""
        normals = grid_normals(points) if normals is None else normals / np.linalg.norm(normals, axis=-1, keepdims=True)
        normals = normals @ turn.T
        normals = np.where(((points * (1, 1, 1)) @ turn.T * normals).sum(-1, keepdims=True) < 0, -normals, normals)
        person = self.person
        key = np.array((np.sin(person.light_azimuth), 0.45, np.cos(person.light_azimuth)))
        key = key / np.linalg.norm(key)
        facing = normals @ key
        diffuse = np.clip((facing + 0.25) / 1.25, 0, 1) ** 1.2
        sky = 0.5 + 0.5 * normals[..., 1]
        half = key + np.array((0, 0, 1))
        shine = np.clip(normals @ (half / np.linalg.norm(half)), 0, 1) ** 24
        warm = np.array((1.0, 1.0 - 0.04 * person.light_warmth, 1.0 - 0.10 * person.light_warmth))
        light = 0.80 * diffuse[..., None] * warm + (0.20 + 0.14 * sky)[..., None] * np.array((0.96, 0.98, 1.04))
        colour = albedo * light + (gloss * shine)[..., None]
        turned = points @ turn.T
        if keep is not None:
            return Surface(turned[keep].astype(np.float32), colour[keep].astype(np.float32))
        return Surface(turned.reshape(-1, 3).astype(np.float32), colour.reshape(-1, 3).astype(np.float32))

    def _truth(self, parts, turn, scale_px, centre) -> Truth:
        def place(points):
            turned = points @ turn.T
            return np.stack([centre[0] + turned[..., 0] * scale_px, centre[1] - turned[..., 1] * scale_px], -1)

        middle = self._rest[0].shape[1] // 2
        upper_lip, lower_lip = parts[0][-1], parts[1][0]
        aperture = place(lower_lip[middle])[1] - place(upper_lip[middle])[1]
        half = shape_of.MOUTH_HALF_WIDTH * self.person.mouth_width
        corners = [
            int(np.argmin(np.abs(self._rest[0][-1, :, 0] - s * half) + 9 * (self._rest[0][-1, :, 2] < 0)))
            for s in (-1, 1)
        ]
        width = np.linalg.norm(place(upper_lip[corners[1]]) - place(upper_lip[corners[0]]))
        return Truth(np.zeros((68, 2), np.float32), float(max(aperture, 0.0)), float(width))


EYE_OUT = 0.30


def _plain(points, colour, turn) -> Surface:
    """A surface whose colour is final."""
    turned = points.reshape(-1, 3) @ turn.T
    return Surface(turned.astype(np.float32), np.clip(colour, 0, 1).reshape(-1, 3).astype(np.float32))


@functools.cache
def _sphere(detail: float) -> np.ndarray:
    a, e = np.meshgrid(np.linspace(-2.2, 2.2, round(420 * detail)), np.linspace(-1.5, 1.5, round(300 * detail)))
    return np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)], -1)


def _noise(rng, shape, sigma) -> np.ndarray:
    """Smooth noise of unit variance."""
    field = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), sigma)
    return field / max(float(field.std()), 1e-6)


def _rotation(gesture: Gesture) -> np.ndarray:
    """Roll, then yaw, then pitch, about the head's centre."""
    yaw, pitch, roll = np.radians([gesture.yaw_deg, gesture.pitch_deg, gesture.roll_deg])
    c, s = np.cos, np.sin
    rx = np.array([[1, 0, 0], [0, c(pitch), s(pitch)], [0, -s(pitch), c(pitch)]])
    ry = np.array([[c(yaw), 0, s(yaw)], [0, 1, 0], [-s(yaw), 0, c(yaw)]])
    rz = np.array([[c(roll), -s(roll), 0], [s(roll), c(roll), 0], [0, 0, 1]])
    return rx @ ry @ rz


def _power(turn: np.ndarray, share: float) -> np.ndarray:
    """A share of a rotation about the same axis."""
    vector, _ = cv2.Rodrigues(turn)
    return cv2.Rodrigues(vector * share)[0]


def _backdrop(person: Identity, size: int) -> np.ndarray:
    """float32 RGB "size size 3"."""
    first, second = (np.array(c, np.float32) for c in person.backdrop)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if person.background == "plain":
        t = 0.25 * y
    elif person.background == "gradient":
        t = np.clip(0.6 * y + 0.4 * x, 0, 1)
    else:
        rng = np.random.default_rng([person.seed, 3])
        t = np.zeros((size, size), np.float32)
        for _ in range(6):
            cx, cy, w, h = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5)
            t += rng.uniform(-0.8, 0.8) * ((np.abs(x - cx) < w) & (np.abs(y - cy) < h))
        t = np.clip(cv2.GaussianBlur(t, (0, 0), size * 0.03) + 0.5, 0, 1)
    return (first + t[..., None] * (second - first)).astype(np.float32)
