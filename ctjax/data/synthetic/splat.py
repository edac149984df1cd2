"""A small rasteriser: dense surface points, the nearest one wins, averaged down from a finer grid.

Surfaces are grids of points so dense that neighbours fall into the same or the next fine pixel, so no triangles are
needed and slits (lips, eyelids) open by moving points apart. Only points that are seen are lit.
"""

from __future__ import annotations

import numpy as np

OVERSAMPLING = 2  # fine pixels per pixel and axis
_DEPTH_STEPS = 12_000  # per unit; depths of +-2.7 units in 16 bits, which sort fast


def grid_normals(points: np.ndarray) -> np.ndarray:
    """Unit normals of a grid of points "3 v u", outward where rows go down and columns to the right as seen."""
    return cross(np.gradient(points, axis=1), np.gradient(points, axis=2))


def cross(du: np.ndarray, dv: np.ndarray) -> np.ndarray:
    """Unit vectors along du x dv, all "3 ..."."""
    x = du[1] * dv[2] - du[2] * dv[1]
    y = du[2] * dv[0] - du[0] * dv[2]
    z = du[0] * dv[1] - du[1] * dv[0]
    length = np.sqrt(x * x + y * y + z * z)
    np.maximum(length, 1e-9, out=length)
    return np.stack([x / length, y / length, z / length])


def turn_points(matrix: np.ndarray, points: np.ndarray, *, out: np.ndarray) -> np.ndarray:
    """`matrix` ("r 3") times `points` ("3 n"), into `out`. In plain numpy: a BLAS starts threads of its own, which only
    wait for each other where every core draws already."""
    term = np.empty_like(points[0])
    for row, target in zip(matrix, out, strict=True):
        np.multiply(points[0], row[0], out=target)
        for factor, coordinate in zip(row[1:], points[1:], strict=True):
            target += np.multiply(coordinate, factor, out=term)
    return out


def nearest_points(points: np.ndarray, chosen: np.ndarray, side: int, scale: float, centre: tuple[float, float]):
    """int32 "side side": which point is seen in each fine pixel, -1 where there is none.

    points: float32 "3 n" (x right, y up, z towards the viewer), seen from +z without perspective; chosen: numbers of
    those that may be seen. scale: fine pixels per unit; centre: where the origin falls, x and y from the top left.
    """
    x, y, z = (np.take(row, chosen) for row in points)
    column = (x * scale + (centre[0] - 0.5)).astype(np.int32)
    row = ((centre[1] - 0.5) - y * scale).astype(np.int32)
    inside = (column > 0) & (column < side - 1) & (row > 0) & (row < side - 1)
    chosen, place = chosen[inside], (row * side + column)[inside]
    depth = np.clip(z[inside] * _DEPTH_STEPS + 2**15, 0, 2**16 - 1).astype(np.uint16)
    order = np.argsort(depth, kind="stable")  # the nearest last; of 16-bit numbers this is a radix sort
    rank = np.full(side * side, -1, np.int32)
    rank[place[order]] = np.arange(len(order), dtype=np.int32)
    # A point also covers the fine pixels to its right and below, but never what is nearer there.
    rank = rank.reshape(side, side)
    np.maximum(rank[:, 1:], rank[:, :-1].copy(), out=rank[:, 1:])
    np.maximum(rank[1:], rank[:-1].copy(), out=rank[1:])
    found = np.full((side, side), -1, np.int32)
    hit = rank >= 0
    found[hit] = chosen[order[rank[hit]]]
    return found
