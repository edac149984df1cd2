"""Large 3-D kernels by discrete Fourier transforms of overlapping tiles over height and width, direct over depth.

A kernel k wide costs k^2 multiplications per output and pair of channels directly, but only about
4 (m + k - 1)^2 / 2 m^2 on tiles of m x m outputs. The transforms are products with small real matrices, because
those run at the speed of the matrix units and differentiate like anything else. Unlike Winograd's, they are as
accurate as the direct sum.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.fast.volume import sum_depth_taps

TILE = 16  # outputs per tile and axis


class Matrices(NamedTuple):
    """Real forms of the transforms of n points. The row axis starts real, so half its frequencies suffice.

    rows: "(r 2) n", real to complex; columns: "(n 2) (n 2)", complex to complex, both with real and imaginary parts
    innermost; columns_back: "(m 2) (n 2)"; rows_back: "m (r 2)". r = n // 2 + 1.
    """

    rows: np.ndarray
    columns: np.ndarray
    columns_back: np.ndarray
    rows_back: np.ndarray


@functools.cache
def matrices(n: int, outputs: int) -> Matrices:
    """The transforms of tiles of n x n cells of which the first `outputs` x `outputs` come back."""
    angle = 2 * np.pi / n * np.outer(np.arange(n), np.arange(n))  # frequency, cell
    half = n // 2 + 1
    cos, sin = np.cos(angle), np.sin(angle)
    rows = np.stack([cos[:half], -sin[:half]], axis=1).reshape(2 * half, n)
    # (c - i s)(x + i y), and for the way back (c + i s)(x + i y) / n.
    columns = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1).reshape(2 * n, 2 * n)
    back = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], axis=1) / n
    columns_back = back[:outputs].reshape(2 * outputs, 2 * n)
    # The frequencies left out are the conjugates of those kept, but for 0 and n / 2 which have no partner.
    weight = np.full(half, 2.0)
    weight[0] = 1.0
    if n % 2 == 0:
        weight[-1] = 1.0
    rows_back = np.stack([cos[:outputs, :half] * weight, -sin[:outputs, :half] * weight], axis=-1) / n
    return Matrices(rows, columns, columns_back, rows_back.reshape(outputs, 2 * half))


def dft_kernel(kernel: np.ndarray) -> dict[str, np.ndarray]:
    """Transforms a kernel "k k k i o" (k odd): {"real", "imag"}, each "f i (k 2 o)", f = n (n // 2 + 1) frequencies.

    "real" is what the real part of an input frequency contributes to (real, imaginary) outputs per depth tap.
    """
    taps = kernel.shape[1]
    n = TILE + taps - 1
    # Convolution here is correlation: the conjugate spectrum.
    spectrum = np.conj(np.fft.rfft2(np.asarray(kernel, np.float64).transpose(0, 3, 4, 2, 1), (n, n)))
    spectrum = spectrum.transpose(3, 4, 1, 0, 2)  # column frequency, row frequency, i, depth tap, o
    real = np.stack([spectrum.real, spectrum.imag], axis=-2)
    imag = np.stack([-spectrum.imag, spectrum.real], axis=-2)
    shape = (spectrum.shape[0] * spectrum.shape[1], kernel.shape[3], -1)
    return {
        "real": np.ascontiguousarray(real.reshape(shape), kernel.dtype),
        "imag": np.ascontiguousarray(imag.reshape(shape), kernel.dtype),
    }


def dft_conv_volume(x: jax.Array, spectrum: dict[str, Any], taps: int) -> jax.Array:
    """Convolution of x "b d h w c", zero padding that keeps the size, with a kernel `taps` wide -> "b d h w o"."""
    b, d, h, w, c = x.shape
    n, m = TILE + taps - 1, TILE
    down, across, r = -(-h // m), -(-w // m), n // 2 + 1
    to_rows, to_columns, from_columns, from_rows = (np.asarray(a, x.dtype) for a in matrices(n, m))
    # The cells of a tile lead, so that each transform is one product from the left.
    x = _windows(x, 2, taps).reshape(n, -1)
    x = jnp.matmul(to_rows, x).reshape(2 * r, b, d, down, w, c)
    x = _windows(x, 4, taps).reshape(n, r, 2, -1)
    x = jnp.swapaxes(x, 1, 2).reshape(2 * n, -1)
    x = jnp.matmul(to_columns, x).reshape(n, 2, r, -1, c)
    real, imag = (x[:, part].reshape(n * r, -1, c) for part in range(2))
    y = jnp.matmul(real, spectrum["real"]) + jnp.matmul(imag, spectrum["imag"])
    y = sum_depth_taps(y.reshape(n * r, b, d, down * across, -1), taps, axis=2)
    y = y.reshape(n, r, b * d * down * across, 2, -1)
    y = jnp.matmul(from_columns, jnp.moveaxis(y, 3, 1).reshape(2 * n, -1))
    y = jnp.swapaxes(y.reshape(m, 2, r, -1), 0, 2).reshape(2 * r, -1)  # "(r 2) (m b d th tw o)": real, imaginary
    y = jnp.matmul(from_rows, y).reshape(m, m, b, d, down, across, -1)
    y = y.transpose(2, 3, 4, 0, 5, 1, 6).reshape(b, d, down * m, across * m, -1)
    return y[:, :, :h, :w]


def _windows(x: jax.Array, axis: int, taps: int) -> jax.Array:
    """Overlapping tiles of `axis`, their cells in front: "... s ..." -> "n ... tiles ...", zeros beyond the edges."""
    tiles, half = -(-x.shape[axis] // TILE), taps // 2
    pads = [(0, 0)] * x.ndim
    pads[axis] = (half, (tiles + 1) * TILE - half - x.shape[axis])
    blocks = jnp.pad(x, pads)
    blocks = blocks.reshape(*x.shape[:axis], tiles + 1, TILE, *x.shape[axis + 1 :])
    whole = jax.lax.slice_in_dim(blocks, 0, tiles, axis=axis)
    start = jax.lax.slice_in_dim(blocks, 1, tiles + 1, axis=axis)[(slice(None),) * (axis + 1) + (slice(taps - 1),)]
    return jnp.moveaxis(jnp.concatenate([whole, start], axis=axis + 1), axis + 1, 0)
