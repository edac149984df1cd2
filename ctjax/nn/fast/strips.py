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
    height = rows if count == 1 else height
    x = _with_rows(x, 1, count * height - rows + 1)
    scales = [rows // other.shape[ROWS] for other in beside]
    beside = tuple(
        _with_rows(other, 0, count * height // scale - other.shape[ROWS])
        for other, scale in zip(beside, scales, strict=True)
    )
    if count == 1:
        return function(x, *beside)
    whole = _divided(_rows(x, 0, count * height), count)
    below = _rows(_divided(_rows(x, height, (count + 1) * height), count), 0, 2)
    strips = jnp.concatenate([whole, below], axis=ROWS)
    y = jax.lax.map(lambda strip: function(*strip), (strips, *(_divided(other, count) for other in beside)))
    y = jnp.moveaxis(y, 0, ROWS - 1)
    return _rows(y.reshape(*y.shape[: ROWS - 1], count * height, *y.shape[ROWS + 1 :]), 0, rows)


def _divided(x: jax.Array, count: int) -> jax.Array:
    """ "... h w c" -> "count ... h/count w c"."""
    return jnp.moveaxis(x.reshape(*x.shape[:ROWS], count, -1, *x.shape[ROWS + 1 :]), ROWS - 1, 0)


def _rows(x: jax.Array, first: int, end: int) -> jax.Array:
    """Rows from `first` to before `end`, zeros where there are none."""
    x = _with_rows(x, 0, max(0, end - x.shape[ROWS]))
    return jax.lax.slice_in_dim(x, first, end, axis=x.ndim + ROWS)


def _with_rows(x: jax.Array, above: int, below: int) -> jax.Array:
    """x with rows of zeros above and below."""
    if not above and not below:
        return x
    pads = [(0, 0)] * x.ndim
    pads[ROWS] = (above, below)
    return jnp.pad(x, pads)
