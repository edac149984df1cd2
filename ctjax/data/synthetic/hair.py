"""Hair: a shell over the skull above a hairline, and what hangs down behind the neck."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.data.synthetic.face_shape import ramp
from ctjax.data.synthetic.identity import Identity
from ctjax.data.synthetic.noise import noise
from ctjax.data.synthetic.points import Part, ball, from_grids
from ctjax.data.synthetic.splat import grid_normals


class HairStyle(NamedTuple):
    """line: height of the hairline at the azimuths `_AROUND`; thickness over the skull; fringe: how far it is swept to
    one side; curl: size of the locks, 0 straight; curtain: how far hair hangs down behind the neck."""

    line: tuple[float, ...]
    thickness: float
    fringe: float = 0.0
    curl: float = 0.0
    curtain: float = 0.0


_AROUND = (0.0, 0.6, 0.9, 1.15, 1.35, 1.55, 1.8, 2.5)
STYLES = {
    "short": HairStyle((0.63, 0.61, 0.52, 0.24, 0.02, 0.10, -0.10, -0.35), 1.09),
    "side": HairStyle((0.62, 0.60, 0.50, 0.22, 0.00, 0.05, -0.15, -0.40), 1.13, fringe=0.17),
    "fringe": HairStyle((0.44, 0.45, 0.44, 0.12, -0.10, -0.25, -0.35, -0.55), 1.11, curtain=0.45),
    "long": HairStyle((0.63, 0.60, 0.47, 0.10, -0.35, -0.55, -0.70, -0.95), 1.11, fringe=0.10, curtain=1.0),
    "curly": HairStyle((0.58, 0.55, 0.46, 0.15, -0.10, -0.20, -0.35, -0.60), 1.24, curl=1.0),
    "bun": HairStyle((0.64, 0.61, 0.52, 0.25, 0.05, 0.10, -0.10, -0.35), 1.06),
}


def above_hairline(person: Identity, rest: np.ndarray) -> np.ndarray:
    """How much of the skin, "3 v u", lies under hair, 0..1: seen where the hair is thin."""
    if person.hair_style == "bald":
        return np.zeros(rest.shape[1:], np.float32)
    return ramp(rest[1] - _hairline(person, rest), 0.02, 0.07)


def _hairline(person: Identity, rest: np.ndarray) -> np.ndarray:
    """Height of the hairline "v u"."""
    style, (x, _, z) = STYLES[person.hair_style], rest
    around = np.abs(np.arctan2(x / 0.70, z / 0.82))
    part = 1 if person.seed % 2 else -1
    line = np.interp(around, _AROUND, style.line) + person.hairline * (around < 1.1)
    return line - style.fringe * ramp(part * x, -0.15, 0.45) * ramp(-part * x, -0.62, -0.40)


def hair(person: Identity, rest: np.ndarray, detail: float) -> list[Part]:
    """All hair of the head; rest: the skull, both grids one below the other, "3 v u"."""
    if person.hair_style == "bald":
        return []
    style = STYLES[person.hair_style]
    x, y, _ = rest
    rng = np.random.default_rng([person.seed, 11])
    strands = noise(rng, x.shape, 26 * detail, 1.6 * detail)
    line = _hairline(person, rest) + 0.022 * noise(rng, (1, x.shape[1]), 1, 4 * detail) + 0.012 * strands
    above = y - line
    locks = noise(rng, x.shape, 20 * detail, 20 * detail)
    full = (style.thickness - 1) * ramp(above, -0.02, 0.20) * (1 + 0.05 * strands)
    if style.curl:
        full = full * (1 + 0.28 * locks)
    points = rest * (1 + full + 0.006)
    normals = grid_normals(points.astype(np.float32))
    shade = 0.92 + 0.13 * strands + 0.10 * locks * (0.5 + style.curl) - 0.25 * ramp(-above, -0.08, 0.0)
    albedo = np.array(person.hair)[:, None, None] * np.clip(shade, 0.35, 1.45)
    gloss = np.full(x.shape, 0.10 if style.curl else 0.20)
    if style.curl:  # thick hair needs more points, or one sees through it
        points, albedo = (np.stack([_denser(v) for v in field]) for field in (points, albedo))
        gloss, above, normals = _denser(gloss), _denser(above), grid_normals(points.astype(np.float32))
        points, normals, albedo = (np.ascontiguousarray(v) for v in (points, normals, albedo))
    keep = above > 0
    parts = [Part(points[:, keep], normals[:, keep], albedo[:, keep], gloss[keep])]
    if style.curtain:
        parts.append(_curtain(person, style, detail, rng))
    if person.hair_style == "bun":
        bun = ball((0, 1.12, -0.25), (0.30, 0.26, 0.28), person.hair, 0.15, 0.7 * detail)
        shade = np.clip(0.95 + 0.15 * noise(rng, (1, bun.gloss.size), 1, 6), 0.5, 1.4)
        parts.append(bun._replace(albedo=bun.albedo * shade))
    return parts


def _denser(field: np.ndarray) -> np.ndarray:
    return cv2.resize(field.astype(np.float32), None, fx=1.6, fy=1.6, interpolation=cv2.INTER_LINEAR)


def _curtain(person: Identity, style: HairStyle, detail: float, rng: np.random.Generator) -> Part:
    """Hair that hangs down behind the neck."""
    a, t = np.meshgrid(np.linspace(-1, 1, round(360 * detail)), np.linspace(0, 1, round(420 * detail)))
    ends = 0.05 * noise(rng, (1, a.shape[1]), 1, 5 * detail)
    y = 0.55 - (1.0 + 0.85 * style.curtain + ends) * t
    x = np.sin(1.45 * a) * person.skull_width * (0.74 + 0.12 * style.curtain * np.sin(np.pi * np.minimum(t * 0.9, 1)))
    z = -0.12 - 0.30 * (1 - a**2) - 0.12 * t
    points = np.stack([x, y, z]).astype(np.float32)
    strands = noise(rng, a.shape, 40 * detail, 1.8 * detail)
    shade = np.clip((0.78 + 0.15 * strands) * (1 - 0.35 * (1 - a**2)), 0.25, 1.3)
    facing = np.stack([np.sin(1.3 * a), 0.1 * np.ones_like(a), np.cos(1.3 * a)])
    albedo = np.array(person.hair)[:, None, None] * shade
    return from_grids(points, facing / np.linalg.norm(facing, axis=0), albedo, np.full(a.shape, 0.12))
