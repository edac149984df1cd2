"""3-wide convolution over a nearest-upsampled map, computed at the low resolution.

Upsampling by n repeats every cell n times along height and width, so an output's three taps along an axis fall on at
most two cells. Three cases are enough whatever n is: the first of a cell's outputs (its first tap lies on the cell
before), the last (its last tap lies on the cell after), and those between, which are all equal. One matrix product
gives every cell's nine taps; the outputs are sums of them: a ninth of n^2 of the work, and nothing is upsampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def tap_kernel(kernel: np.ndarray) -> np.ndarray:
    """Re-lays a kernel "3 3 i o" as "i (9 o)", or "3 3 3 i o" (depth first) as "3 i (9 o)"."""
    laid = np.moveaxis(kernel, -2, -4)  # "... i 3 3 o"
    return np.ascontiguousarray(laid.reshape(*laid.shape[:-3], -1))


def upsampled_conv(x: jax.Array, taps: jax.Array, factor: int) -> jax.Array:
    """Convolution (zero padding 1) of x "b h w c", upsampled by `factor`, with `taps` "c (9 o)" -> "b fh fw o"."""
    return _sum_taps(jnp.matmul(x, taps), factor)


def upsampled_conv_volume(x: jax.Array, taps: jax.Array, factor: int) -> jax.Array:
    """The same for "b d h w c", upsampled over height and width, with `taps` "3 c (9 o)" -> "b d fh fw o"."""
    b, d, h, w, c = x.shape
    y = jax.lax.conv_general_dilated(
        x.reshape(b, d, h * w, c),
        taps[:, None],
        (1, 1),
        ((1, 1), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = _sum_taps(y.reshape(b * d, h, w, -1), factor)
    return y.reshape(b, d, *y.shape[1:])


def _sum_taps(y: jax.Array, factor: int) -> jax.Array:
    """Every cell's taps "b h w (3 3 o)" -> outputs "b fh fw o"."""
    if factor < 2:
        raise ValueError(f"the map is upsampled by {factor}, should be 2 or more")
    b, h, w, channels = y.shape
    o = channels // 9
    # Plain slices of the channels, so that every term is a shifted view of one array.
    tap = [[y[..., (3 * i + j) * o : (3 * i + j + 1) * o] for j in range(3)] for i in range(3)]
    rows = [_cases([tap[i][j] for i in range(3)], axis=1) for j in range(3)]  # [column tap][row case]
    cases = [_cases([rows[j][case] for j in range(3)], axis=2) for case in range(3)]
    order = _case_order(factor)
    out = jnp.stack([jnp.stack([cases[p][q] for q in order], axis=3) for p in order], axis=2)
    return out.reshape(b, factor * h, factor * w, o)


def _case_order(factor: int) -> list[int]:
    """Which case each of a cell's outputs is: 0 the first, 1 between, 2 the last."""
    return [0, *[1] * (factor - 2), 2]


def _cases(taps: Sequence[jax.Array], axis: int) -> list[jax.Array]:
    """First, middle and last outputs of a cell along `axis`."""
    first, centre, last = taps
    before, after = _shifted(first, axis, 1), _shifted(last, axis, -1)
    return [before + centre + last, first + centre + last, first + centre + after]


def _shifted(x: jax.Array, axis: int, step: int) -> jax.Array:
    """x moved by one cell along `axis`, zeros coming in."""
    pads = [(0, 0, 0)] * x.ndim
    pads[axis] = (step, -step, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), pads)
