"""Surfaces as lists of points that know how they reflect light."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Part(NamedTuple):
    """Points, unit normals (shorter ones: lit less) and albedo "3 n", gloss "n", all float32."""

    points: np.ndarray
    normals: np.ndarray
    albedo: np.ndarray
    gloss: np.ndarray


def ball(centre, radii, colour, gloss: float, detail: float, lowest: float = -1.5) -> Part:
    """The front of an ellipsoid, from the elevation `lowest` (radians) up."""
    elevations = np.linspace(lowest, 1.5, round((1.5 - lowest) * 100 * detail))
    a, e = np.meshgrid(np.linspace(-2.2, 2.2, round(420 * detail)), elevations)
    directions = np.stack([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    radii, centre = (np.array(v)[:, None, None] for v in (radii, centre))
    normals = directions / radii
    albedo = np.broadcast_to(np.array(colour)[:, None, None], directions.shape)
    return from_grids(
        directions * radii + centre, normals / np.linalg.norm(normals, axis=0), albedo, np.full(a.shape, gloss)
    )


def from_grids(points, normals, albedo, gloss) -> Part:
    """Grids as lists of points."""
    normals = np.stack([0 * points[0], 0 * points[0], 0.5 + 0 * points[0]]) if normals is None else normals
    return Part(
        *(v.reshape(3, -1).astype(np.float32) for v in (points, normals, albedo)), gloss.ravel().astype(np.float32)
    )
