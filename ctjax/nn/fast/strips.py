"""A map worked through a few rows at a time, so that what lies between its operations stays in a CPU's cache."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

ROWS = -3  # axis of "... h w c"


def in_strips(function: Callable[..., jax.Array], x: jax.Array, *beside: jax.Array, height: int) -> jax.Array:
    """`function` of `height` rows of x at a time, one after the other in a compiled loop -> "... h w o".

    x: "... h w c". `function` is given the rows with one more above and below, zeros beyond the map's edges, and the
    same rows of everything in `beside`, whose arrays may have the map's height or a fraction of it that divides
    `height` as well. It returns `height` rows.
    """
    rows = x.shape[ROWS]
    count = -(-rows // height)
    if count == 1:
        return function(_with_rows(x, 1, 1), *beside)
    scales = [rows // other.shape[ROWS] for other in beside]
    near = [_divided(other, count, height // scale) for other, scale in zip(beside, scales, strict=True)]
    y = jax.lax.map(lambda strip: function(*strip), (_with_neighbours(_divided(x, count, height)), *near))
    y = jnp.moveaxis(y, 0, ROWS - 1)
    return _rows(y.reshape(*y.shape[: ROWS - 1], count * height, *y.shape[ROWS + 1 :]), 0, rows)


def _divided(x: jax.Array, count: int, height: int) -> jax.Array:
    """ "... h w c" -> "count ... height w c", rows of zeros coming in at the end."""
    x = _with_rows(x, 0, count * height - x.shape[ROWS])
    return jnp.moveaxis(x.reshape(*x.shape[:ROWS], count, height, *x.shape[ROWS + 1 :]), ROWS - 1, 0)


def _with_neighbours(strips: jax.Array) -> jax.Array:
    """ "count ... h w c" -> "count ... h+2 w c": the last row of the strip above and the first of the one below."""
    first, last = _rows(strips, 0, 1), _rows(strips, -1, strips.shape[ROWS])
    outside = jnp.zeros_like(first[:1])
    above, below = jnp.concatenate([outside, last[:-1]]), jnp.concatenate([first[1:], outside])
    return jnp.concatenate([above, strips, below], axis=ROWS)


def _rows(x: jax.Array, first: int, end: int) -> jax.Array:
    """Rows from `first` to before `end`."""
    return x[..., first:end, :, :]


def _with_rows(x: jax.Array, above: int, below: int) -> jax.Array:
    """x with rows of zeros above and below."""
    pads = [(0, 0)] * x.ndim
    pads[ROWS] = (above, below)
    return jnp.pad(x, pads)
