"""Sampling images and volumes at fractional coordinates (torch.nn.functional.grid_sample, linear)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

PADDINGS = ("zeros", "border", "reflection")


def corner_grid(shape: Sequence[int]) -> jax.Array:
    """Coordinates of every cell, corner cells at exactly -1 and 1: cell i of n is at 2 i / (n - 1) - 1.

    shape: "h w" or "d h w" -> "h w 2" (x, y) or "d h w 3" (x, y, z), float32 (float64 where jax has it switched on).
    """
    return jnp.stack(jnp.meshgrid(*map(corner_line, shape), indexing="ij")[::-1], axis=-1)


def corner_line(n: int) -> jax.Array:
    """One axis of `corner_grid`: "n" from -1 to 1."""
    return 2.0 * (jnp.arange(n, dtype=float) / (n - 1)) - 1.0


def grid_sample(x: jax.Array, grid: jax.Array, *, padding: str = "zeros", align_corners: bool = False) -> jax.Array:
    """Linear interpolation of `x` at `grid`.

    x: "b h w c" or "b d h w c"; grid: "b ... 2" (x, y) or "b ... 3" (x, y, z) in [-1, 1] with any number of axes in
    between -> "b ... c", x's dtype. `align_corners` says whether -1 and 1 are the corner cells' centres or their
    outer edges. `padding` is what lies outside: zeros, the border cell, or a mirror image.
    """
    spatial = x.shape[1:-1]
    if grid.shape[-1] != len(spatial):
        raise ValueError(f"grid has {grid.shape[-1]} coordinates for {len(spatial)} spatial axes")
    if padding not in PADDINGS:
        raise ValueError(f"padding is {padding!r}, should be one of {', '.join(PADDINGS)}")
    grid = grid.astype(jnp.promote_types(grid.dtype, jnp.float32))  # bfloat16 cannot address 256 cells
    cells = [
        _outside(_unnormalise(grid[..., -1 - axis], size, align_corners), size, padding, align_corners)
        for axis, size in enumerate(spatial)
    ]
    low = [jnp.floor(cell) for cell in cells]
    fraction = [cell - floor for cell, floor in zip(cells, low, strict=True)]
    low = [floor.astype(jnp.int32) for floor in low]
    flat = x.reshape(x.shape[0], math.prod(spatial), x.shape[-1])
    total = 0.0
    for corner in itertools.product((0, 1), repeat=len(spatial)):
        index, weight = 0, 1.0
        for axis, step in enumerate(corner):
            cell = low[axis] + step
            inside = (cell >= 0) & (cell < spatial[axis])
            weight = weight * jnp.where(inside, fraction[axis] if step else 1.0 - fraction[axis], 0.0)
            index = index * spatial[axis] + jnp.clip(cell, 0, spatial[axis] - 1)
        values = jax.vmap(lambda f, i: f.at[i].get(mode="promise_in_bounds"))(flat, index)
        total = total + weight[..., None] * values
    return total.astype(x.dtype)


def _unnormalise(coordinate: jax.Array, size: int, align_corners: bool) -> jax.Array:
    if align_corners:
        return (coordinate + 1.0) * (0.5 * (size - 1))
    return ((coordinate + 1.0) * size - 1.0) * 0.5


def _outside(cell: jax.Array, size: int, padding: str, align_corners: bool) -> jax.Array:
    if padding == "zeros":
        return cell
    if padding == "reflection":
        # The mirrors stand at the corner cells' centres, or at their outer edges.
        low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
        if span == 0.0:
            return jnp.zeros_like(cell)
        distance = jnp.abs(cell - low) % (2.0 * span)
        cell = low + jnp.minimum(distance, 2.0 * span - distance)
    return jnp.clip(cell, 0.0, size - 1.0)
