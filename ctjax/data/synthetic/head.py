"""A synthetic head: surfaces of a person with a mouth, eyes and a head pose, and the truth that goes with them."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.synthetic import face_shape as shape_of
from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.face_shape import MovingSkin, ramp
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.landmarks import LEFT_CORNER, RIGHT_CORNER, Landmarks
from ctjax.data.synthetic.parts import MouthInside, body_parts, static_parts
from ctjax.data.synthetic.points import Part, from_grids
from ctjax.data.synthetic.skin import Eyes, EyeState, Lips, complexion
from ctjax.data.synthetic.splat import OVERSAMPLING, cross, grid_normals, nearest_points, turn_points
from ctjax.faces.landmarks import LOWER_INNER_LIP, UPPER_INNER_LIP

SCALE = 0.454  # pixels per unit at scale 1, of the picture's side: the crop that is made of a face at inference
CENTRE_Y = 0.466
BODY_SHARE = 0.35  # of the head's turn that the neck and shoulders follow
FACING_AWAY = -0.12  # surfaces that look further away than this are not drawn
_LEVELS = 1024  # of the tables of light


class Gesture(NamedTuple):
    """Everything that moves besides the mouth. Angles in degrees as in `ctjax.motion.head_pose` with y down and z
    towards the viewer: yaw above 0 turns the nose to the right of the picture, pitch above 0 lifts it, roll above 0
    tilts the head clockwise. shift_x (right), shift_y (up): of the picture's side; blink 0 open to 1 shut; gaze
    -1..1 (right, up); brows -1 lowered to 1 raised."""

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
    """In pixels of the picture: landmarks float32 "68 2" (x, y; iBUG order); depth_px float32 "68": how far each of
    them is before the point that the head turns around while it looks straight ahead; aperture_px: distance of the
    inner lips in the middle (landmarks 62 and 66); mouth_width_px: distance of the corners (48 and 54)."""

    landmarks: np.ndarray
    depth_px: np.ndarray
    aperture_px: float
    mouth_width_px: float


class Head:
    """A person, ready to be drawn at `size` pixels; what does not move is prepared once."""

    def __init__(self, person: Identity, size: int):
        self.person, self.size = person, size
        self.detail = detail = max(size, 64) * OVERSAMPLING / 512
        rest = shape_of.rest_skin(person, detail)
        self._skin = [MovingSkin(person, part, below=bool(i)) for i, part in enumerate(rest)]
        self._landmarks = Landmarks(person, rest)
        whole = np.concatenate(rest, axis=1)
        painted = _divided(*complexion(person, whole, detail), rows=rest[0].shape[1])
        self._lips = [Lips(person, part, *paint) for part, paint in zip(rest, painted, strict=True)]
        self._eyes = Eyes(person, rest[0], *painted[0])
        lips_z = float(self._skin[0].raised[2, -1, rest[0].shape[2] // 2])
        self._inside = MouthInside(person, detail, lips_z)
        # Both grids of the skin come first, so that their rows can be taken as one grid; the inside of the mouth next.
        parts = [self._skin_part(i, *paint) for i, paint in enumerate(painted)]
        inside = self._inside.albedo
        parts.append(from_grids(np.zeros_like(inside), None, inside, np.zeros_like(inside[0])))
        parts += static_parts(person, whole, detail)
        self._turning = sum(part.gloss.size for part in parts)  # the rest belongs to the body
        parts += body_parts(person, detail)
        self._parts = Part(*(np.ascontiguousarray(np.concatenate(v, axis=-1)) for v in zip(*parts, strict=True)))
        self._starts = np.cumsum([0, *(part.gloss.size for part in parts)])
        self._backdrop = backdrop(person, size * OVERSAMPLING)
        self._light = _light_table(person)

    def draw(self, mouth: Mouth, gesture: Gesture) -> tuple[np.ndarray, Truth]:
        """uint8 RGB "size size 3" and its truth."""
        seen, turn, body_turn, truth = self._seen(mouth, gesture)
        hit = np.flatnonzero(seen >= 0)
        image = self._backdrop.copy()
        image.reshape(-1, 3)[hit] = self._lit(seen.ravel()[hit], turn, body_turn)
        image = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), truth

    def draw_with_mask(self, mouth: Mouth, gesture: Gesture) -> tuple[np.ndarray, Truth, np.ndarray]:
        """The same, and float32 "size size" in [0, 1]: how much of each pixel is the open inside of the mouth."""
        seen = self._seen(mouth, gesture)[0]
        inside = ((seen >= self._starts[2]) & (seen < self._starts[3])).astype(np.float32)
        inside = cv2.resize(inside, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return *self.draw(mouth, gesture), inside

    def _seen(self, mouth: Mouth, gesture: Gesture) -> tuple[np.ndarray, np.ndarray, np.ndarray, Truth]:
        """Which point is seen in each fine pixel, -1 for none; the turns of head and body; the truth."""
        shape = shape_of.mouth_shape(self.person, mouth)
        state = EyeState(gesture.blink, gesture.gaze_x, gesture.gaze_y, gesture.brows)
        self._move(shape, state)
        turn = rotation(gesture).astype(np.float32)
        body_turn = _share(turn, BODY_SHARE)
        side = self.size * OVERSAMPLING
        scale = SCALE * side * gesture.scale
        centre = (side * (0.5 + gesture.shift_x), side * (CENTRE_Y - gesture.shift_y))
        n, (points, normals) = self._turning, self._parts[:2]
        turned, facing = np.empty_like(points), np.empty_like(points[0])
        for part, matrix in ((np.s_[:n], turn), (np.s_[n:], body_turn)):
            turn_points(matrix, points[:, part], out=turned[:, part])
            turn_points(matrix[2:], normals[:, part], out=facing[None, part])
        seen = nearest_points(turned, np.flatnonzero(facing > FACING_AWAY), side, scale, centre)
        return seen, turn, body_turn, self._truth(points, turned, state, scale, centre)

    def _skin_part(self, number: int, albedo: np.ndarray, gloss: np.ndarray) -> Part:
        points = self._skin[number].raised
        normals = grid_normals(points)
        return Part(points.reshape(3, -1), normals.reshape(3, -1), albedo.reshape(3, -1), gloss.ravel())

    def _grid(self, array: np.ndarray, number: int) -> np.ndarray:
        """The part of an array of all points that is a grid of skin, as a view "... v u"."""
        return array[..., self._starts[number] : self._starts[number + 1]].reshape(
            *array.shape[:-1], *self._skin[number].rest.shape[1:]
        )

    def _move(self, shape: shape_of.MouthShape, state: EyeState) -> None:
        """Puts the mouth and the eyes of one frame into the arrays."""
        all_points, all_normals, all_albedo, all_gloss = self._parts
        every = slice(None)
        for i, (skin, lips) in enumerate(zip(self._skin, self._lips, strict=True)):
            self._grid(all_points, i)[(every, *skin.patch)] = skin.moved(shape)
            albedo, gloss, _ = lips.painted(shape.press)
            self._grid(all_albedo, i)[(every, *lips.patch)] = albedo
            self._grid(all_gloss, i)[lips.patch] = gloss
        for i, skin in enumerate(self._skin):
            self._renew_normals(self._grid(all_points, i), self._grid(all_normals, i), skin.patch)
        self._join_normals()
        albedo, gloss = self._eyes.painted(state)
        self._grid(all_albedo, 0)[(every, *self._eyes.patch)] = albedo
        self._grid(all_gloss, 0)[self._eyes.patch] = gloss
        all_points[:, self._starts[2] : self._starts[3]] = self._inside.points(shape)

    @staticmethod
    def _renew_normals(points: np.ndarray, normals: np.ndarray, patch: tuple[slice, slice]) -> None:
        """Normals of the patch and the points next to it, where its outer rows reach the grid's edge one-sided."""
        rows, columns = patch
        top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, points.shape[1])
        left, right = max(columns.start - 1, 1), min(columns.stop + 1, points.shape[2] - 1)
        block = points[:, top:bottom, left - 1 : right + 1]
        du = block[:, :, 2:] - block[:, :, :-2]
        dv = np.empty_like(du)
        inner = block[:, :, 1:-1]
        np.subtract(inner[:, 2:], inner[:, :-2], out=dv[:, 1:-1])
        dv[:, 0], dv[:, -1] = inner[:, 1] - inner[:, 0], inner[:, -1] - inner[:, -2]
        fresh = cross(dv, du)
        first, last = (0 if top == 0 else 1), (None if bottom == points.shape[1] else -1)
        normals[:, top + first : bottom + (last or 0), left:right] = fresh[:, first:last]

    def _join_normals(self) -> None:
        """Beyond the corners of the mouth the two grids are one skin: no crease where they meet."""
        half = shape_of.mouth_half(self.person)
        upper, lower = (self._grid(self._parts.normals, i) for i in (0, 1))
        apart = 1 - ramp(np.abs(self._skin[0].rest[0, -1]), 0.90 * half, 1.10 * half)
        both = upper[:, -2] + lower[:, 1]
        both /= np.linalg.norm(both, axis=0)
        upper[:, -1] += (1 - apart) * (both - upper[:, -1])
        lower[:, 0] += (1 - apart) * (both - lower[:, 0])

    def _lit(self, seen: np.ndarray, turn: np.ndarray, body_turn: np.ndarray) -> np.ndarray:
        """Colours "m 3" of the points `seen`: a key light from one side, light from the sky, and a highlight."""
        _, normals, albedo, gloss = self._parts
        normals = np.stack([np.take(row, seen) for row in normals])
        lights = self._light.directions
        amounts = turn_points(lights @ turn, normals, out=np.empty_like(normals))
        body = np.flatnonzero(seen >= self._turning)
        of_body = np.ascontiguousarray(normals[:, body])
        amounts[:, body] = turn_points(lights @ body_turn, of_body, out=np.empty_like(of_body))
        level = ((amounts + 1) * (0.5 * (_LEVELS - 1))).astype(np.int32)
        np.clip(level, 0, _LEVELS - 1, out=level)
        shine = np.take(gloss, seen) * self._light.shine[level[2]]
        sky = self._light.sky[level[1]]
        channels = [np.take(albedo[c], seen) * (self._light.key[c][level[0]] + sky) + shine for c in range(3)]
        return np.stack(channels, axis=-1)

    def _truth(
        self, ahead: np.ndarray, turned: np.ndarray, state: EyeState, scale: float, centre: tuple[float, float]
    ) -> Truth:
        """ahead, turned: the points before and after the head's turn."""
        indices, weights = self._landmarks.places(state)
        points = (turned[:2, indices] * weights).sum(-1)
        x, y = centre[0] + points[0] * scale, centre[1] - points[1] * scale
        landmarks = np.stack([x, y], -1).astype(np.float32) / OVERSAMPLING
        depth_px = (ahead[2, indices] * weights).sum(-1).astype(np.float32) * np.float32(scale / OVERSAMPLING)
        upper, lower = landmarks[UPPER_INNER_LIP], landmarks[LOWER_INNER_LIP]
        width = np.linalg.norm(landmarks[LEFT_CORNER] - landmarks[RIGHT_CORNER])
        return Truth(landmarks, depth_px, float(np.linalg.norm(lower - upper)), float(width))


def _divided(albedo: np.ndarray, gloss: np.ndarray, *, rows: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Paint of both grids, apart."""
    return [(albedo[:, :rows].copy(), gloss[:rows].copy()), (albedo[:, rows:].copy(), gloss[rows:].copy())]


class _Light(NamedTuple):
    """directions: float32 "3 3", rows towards the key light, the sky, and halfway between key light and viewer; the
    others are tables over the cosine with them: key three channels "levels", sky and shine "levels"."""

    directions: np.ndarray
    key: tuple[np.ndarray, np.ndarray, np.ndarray]
    sky: np.ndarray
    shine: np.ndarray


def _light_table(person: Identity) -> _Light:
    key = np.array((np.sin(person.light_azimuth), 0.50, np.cos(person.light_azimuth)))
    key /= np.linalg.norm(key)
    half = key + np.array((0, 0, 1))
    cosine = np.linspace(-1, 1, _LEVELS)
    warm = np.array((1.0, 1.0 - 0.03 * person.light_warmth, 1.0 - 0.08 * person.light_warmth))
    # Red light goes furthest under the skin, so the edge of the shadow is red.
    wraps = (0.55, 0.38, 0.30)
    tables = tuple(
        (0.66 * w * np.clip((cosine + wrap) / (1 + wrap), 0, 1) ** 1.3).astype(np.float32)
        for w, wrap in zip(warm, wraps, strict=True)
    )
    directions = np.stack([key, (0, 1, 0), half / np.linalg.norm(half)]).astype(np.float32)
    return _Light(
        directions, tables, (0.41 + 0.10 * cosine).astype(np.float32), (np.clip(cosine, 0, 1) ** 22).astype(np.float32)
    )


def rotation(gesture: Gesture) -> np.ndarray:
    """The project's Rx(pitch) Ry(yaw) Rz(roll), which is for y pointing down, for points whose y points up: "3 3"."""
    yaw, pitch, roll = np.radians([gesture.yaw_deg, gesture.pitch_deg, gesture.roll_deg])
    c, s = np.cos, np.sin
    rx = np.array([[1, 0, 0], [0, c(pitch), s(pitch)], [0, -s(pitch), c(pitch)]])
    ry = np.array([[c(yaw), 0, s(yaw)], [0, 1, 0], [-s(yaw), 0, c(yaw)]])
    rz = np.array([[c(roll), s(roll), 0], [-s(roll), c(roll), 0], [0, 0, 1]])
    return rx @ ry @ rz


def _share(turn: np.ndarray, share: float) -> np.ndarray:
    """A share of a rotation about the same axis."""
    vector, _ = cv2.Rodrigues(turn.astype(np.float64))
    return cv2.Rodrigues(vector * share)[0].astype(np.float32)


def backdrop(person: Identity, side: int) -> np.ndarray:
    """float32 RGB "side side 3"."""
    first, second = (np.array(c, np.float32) for c in person.backdrop)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    if person.background == "plain":
        t = 0.8 * ((x - 0.5) ** 2 + (y - 0.45) ** 2) ** 0.5
    elif person.background == "gradient":
        t = np.clip(0.6 * y + 0.4 * x, 0, 1)
    else:
        rng = np.random.default_rng([person.seed, 3])
        t = np.zeros((side, side), np.float32)
        for _ in range(6):
            cx, cy, w, h = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5)
            t += rng.uniform(-0.8, 0.8) * ((np.abs(x - cx) < w) & (np.abs(y - cy) < h))
        t = np.clip(cv2.GaussianBlur(t, (0, 0), side * 0.03) + 0.5, 0, 1)
    return (first + t[..., None] * (second - first)).astype(np.float32)
