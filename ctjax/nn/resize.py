"""Nearest upsampling, pooling, and the Gaussian low-pass that goes before subsampling."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def upsample_nearest(x: jax.Array, factors: Sequence[int]) -> jax.Array:
    """Repeats every cell `factors[i]` times along spatial axis i. x: "b ... c"."""
    for axis, factor in enumerate(factors, start=1):
        if factor > 1:
            x = jnp.repeat(x, factor, axis=axis)
    return x


def resize_nearest(x: jax.Array, size: Sequence[int]) -> jax.Array:
    """Nearest resize of "b h w c" to `size`, a whole multiple of the present one."""
    factors = [new // old for new, old in zip(size, x.shape[1:-1], strict=True)]
    if [old * f for old, f in zip(x.shape[1:-1], factors, strict=True)] != list(size):
        raise ValueError(f"nearest resize from {x.shape[1:-1]} to {tuple(size)} is not a whole factor")
    return upsample_nearest(x, factors)


def average_pool(x: jax.Array, window: Sequence[int]) -> jax.Array:
    """Means over non-overlapping windows; cells that do not fill a window are dropped. x: "b ... c"."""
    dims = (1, *window, 1)
    total = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, dims, dims, "VALID")
    return total / np.prod(window).astype(x.dtype)


def max_pool(x: jax.Array, window: int, stride: int, padding: int) -> jax.Array:
    """Maxima over windows of "b h w c"; the padding never wins."""
    lowest = np.array(-np.inf, x.dtype)
    pads = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, window, window, 1), (1, stride, stride, 1), pads)


def low_pass_kernel(scale: float, channels: int) -> np.ndarray:
    """Gaussian that goes before subsampling by `scale` < 1: float32 "h w 1 c", unit sum per channel.

    sigma = (1 / scale - 1) / 2 and 2 round(4 sigma) + 1 taps (ControlTalk modules/util.py:374-415). At scale 1 the
    reference registers a kernel of NaN and does not use it (util.py:408); here it would be the identity.
    """
    sigma = (1.0 / scale - 1.0) / 2.0
    taps = 2 * round(4.0 * sigma) + 1
    offsets = np.arange(taps) - (taps - 1) / 2.0
    line = np.exp(-(offsets**2) / (2.0 * sigma**2)) if sigma else np.ones(1)
    plane = np.outer(line, line)
    plane = (plane / plane.sum()).astype(np.float32)
    return np.repeat(plane[:, :, None, None], channels, axis=-1)


def low_pass_subsample(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """`x` "b h w c" filtered channel by channel (zero padding) and every `stride`-th cell taken, from cell 0."""
    half = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        jnp.asarray(kernel, x.dtype),
        (stride, stride),
        [(half, half)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )
