"""3-D convolution as one 2-D convolution per depth tap.

XLA's own 3-D convolution is several times slower than its 2-D one on a CPU.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def depth_tap_kernel(kernel: Any) -> Any:
    """Re-lays a kernel "k h w i o", of numpy or jax, as the 2-D kernel "h w i (k o)"."""
    return kernel.transpose(1, 2, 3, 0, 4).reshape(*kernel.shape[1:4], -1)


def depth_tap_conv(x: jax.Array, kernel: jax.Array, taps: int) -> jax.Array:
    """Convolution of x "b d h w c", zero padding that keeps the size, with `depth_tap_kernel`'s result -> "b d h w o".

    All depth taps in one 2-D convolution over b * d images, then `taps` sums shifted along depth.
    """
    b, d, h, w, c = x.shape
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    y = jax.lax.conv_general_dilated(
        x.reshape(b * d, h, w, c), kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return sum_depth_taps(y.reshape(b, d, h, w, -1), taps, axis=1)


def sum_depth_taps(y: jax.Array, taps: int, axis: int) -> jax.Array:
    """ "... d ... (taps o)", depth at `axis` -> "... d ... o": out[z] = sum_t y[z + t - taps // 2, tap t]."""
    half, o = taps // 2, y.shape[-1] // taps
    pads = [(0, 0)] * y.ndim
    pads[axis] = (half, half)
    padded, depth = jnp.pad(y, pads), y.shape[axis]
    terms = [jax.lax.slice_in_dim(padded[..., t * o : (t + 1) * o], t, t + depth, axis=axis) for t in range(taps)]
    return sum(terms[1:], terms[0])
