"""A small rasteriser: dense surface points, nearest one wins, averaged down from a finer grid.

Surfaces are grids of points so dense that neighbours fall into the same or the next fine pixel, so no triangles are
needed and slits (lips, eyelids) open by moving points apart.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

OVERSAMPLING = 2  # fine pixels per pixel and axis
_SPLAT = ((0, 0), (0, 1), (1, 0), (1, 1))  # fine pixels that a point covers


class Surface(NamedTuple):
    """points: float32 "n 3" (x right, y up, z towards the viewer); colour: float32 "n 3" in [0, 1], already lit."""

    points: np.ndarray
    colour: np.ndarray


def grid_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of a grid of points "u v 3" (pointing along du x dv)."""
    du = np.gradient(points, axis=0)
    dv = np.gradient(points, axis=1)
    normals = np.cross(du, dv)
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)


def draw(surfaces: list[Surface], background_01: np.ndarray, *, scale_px: float, centre_px: tuple[float, float]):
    """Surfaces over `background_01` ("h w 3") -> uint8 RGB "h w 3", seen from +z without perspective.

    scale_px: pixels per unit; centre_px: where the origin falls (x, y from the top left).
    """
    height, width = background_01.shape[:2]
    fine_h, fine_w = height * OVERSAMPLING, width * OVERSAMPLING
    image = cv2.resize(background_01, (fine_w, fine_h), interpolation=cv2.INTER_LINEAR).reshape(-1, 3)
    points = np.concatenate([s.points for s in surfaces])
    colour = np.concatenate([s.colour for s in surfaces])
    scale = scale_px * OVERSAMPLING
    column = np.floor(points[:, 0] * scale + centre_px[0] * OVERSAMPLING - 0.5).astype(np.int32)
    row = np.floor(centre_px[1] * OVERSAMPLING - points[:, 1] * scale - 0.5).astype(np.int32)
    seen = (column >= 0) & (column < fine_w - 1) & (row >= 0) & (row < fine_h - 1)
    order = np.flatnonzero(seen)[np.argsort(points[seen, 2], kind="stable")]  # the nearest is painted last
    place, paint = row[order] * fine_w + column[order], colour[order]
    nearest = np.full(fine_h * fine_w, -1, np.int32)
    for down, right in _SPLAT:
        # A point also covers its neighbours, but never what is nearer there: rank along depth decides.
        target = place + down * fine_w + right
        rank = np.full(fine_h * fine_w, -1, np.int32)
        rank[target] = np.arange(len(target), dtype=np.int32)
        np.maximum(nearest, rank, out=nearest)
    hit = nearest >= 0
    image[hit] = paint[nearest[hit]]
    fine = image.reshape(fine_h, fine_w, 3)
    small = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(small * 255 + 0.5, 0, 255).astype(np.uint8)
