"""3 x 3 and 3 x 3 x 3 convolution by Winograd's minimal filtering F(m x m, 3 x 3), m = 2 or 4.

A tile of m x m outputs costs (m + 2)^2 multiplications per pair of channels instead of 9 m^2: 2.25 and 4 times fewer,
3.4 and 8 with depth. What is left is a matrix product of tiles by channels for each of the (m + 2)^2 frequencies,
between transforms that are products with small matrices.

The points of F(4, 3) are 0, +-2/3, +-3/2 and infinity. The textbook's 0, +-1, +-2 would do the same work with twice
the root-mean-square and five times the largest rounding error in float32. And these points are each other's
reciprocals, so that the kernel turned around, which the gradient needs, has the same spectrum in another order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import linear_call

TAPS = 3
STRIP_TILES = 128  # measured on 1 MB of cache a core
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)}  # outputs per tile and axis -> finite points

Spectrum = Sequence[jax.Array]


class Transforms(NamedTuple):
    """y = output @ ((kernel @ g) * (input @ d)) is the correlation of a tile d with the taps g, along one axis.

    output: "m n"; kernel: "n 3"; input: "n n", with n = m + 2; float64.
    """

    output: np.ndarray
    kernel: np.ndarray
    input: np.ndarray


# Tiles "n (b th tw) c" with one row of a spectrum.
Products = Callable[[jax.Array, jax.Array, Transforms], jax.Array]


@functools.cache
def transforms(outputs: int) -> Transforms:
    """Evaluation at the points of `outputs`, and the interpolation that makes the product exact."""
    points = np.array(POINTS[outputs])
    n = len(points) + 1
    output, kernel = np.zeros((outputs, n)), np.zeros((n, TAPS))
    output[:, :-1] = points ** np.arange(outputs)[:, None]
    kernel[:-1] = points[:, None] ** np.arange(TAPS)
    output[-1, -1] = kernel[-1, -1] = 1.0  # the point at infinity
    # sum_f output[i, f] kernel[f, k] input[f, j] must be 1 where j = i + k and 0 elsewhere: linear in `input`.
    products = np.einsum("if,fk->ikf", output, kernel).reshape(-1, n)
    wanted = np.array([[float(j == i + k) for j in range(n)] for i in range(outputs) for k in range(TAPS)])
    solution = np.linalg.lstsq(products, wanted, rcond=None)[0]
    solution[np.abs(solution) < 1e-12] = 0.0
    return Transforms(output, kernel, solution)


@functools.cache
def turned_transforms(outputs: int) -> Transforms:
    """The same for taps in reverse order, to be used with the spectrum of the taps as they are.

    At the point p the reversed taps are worth p^2 times what the taps are at 1 / p.
    """
    output, kernel, forward = transforms(outputs)
    turned_output, turned_forward = np.zeros_like(output), np.zeros_like(forward)
    for f, taps in enumerate(kernel):
        scale = np.array([np.vdot(taps, other[::-1]) / np.vdot(taps, taps) for other in kernel])
        mirror = next(i for i, other in enumerate(kernel) if np.allclose(scale[i] * taps, other[::-1]))
        turned_output[:, f], turned_forward[f] = output[:, mirror] * scale[mirror], forward[mirror]
    return Transforms(turned_output, kernel, turned_forward)


def winograd_kernel(kernel: np.ndarray, outputs: int) -> list[np.ndarray]:
    """Transforms a kernel "3 3 i o" into outputs + 2 arrays "n i o", one per row frequency; "3 3 3 i o" (depth first)
    into arrays "z n i o", z frequencies of depth.

    They stay separate because slicing one array at run time would copy as many bytes as the products read.
    """
    g = transforms(outputs).kernel
    spectrum = np.asarray(kernel, np.float64)
    for axis in range(kernel.ndim - 2):
        spectrum = np.moveaxis(np.tensordot(g, spectrum, (1, axis)), 0, axis)
    rows = np.moveaxis(spectrum, -4, 0)
    return [np.ascontiguousarray(row, kernel.dtype) for row in rows]


def strip_height(shape: Sequence[int], spectrum: Spectrum) -> int:
    """How many rows of a map of `shape` ("b h w c" or "b d h w c") to work through at a time.

    Few enough that the tiles of one row frequency stay in a CPU's cache: of the whole map they would be nine times
    the map, out to memory and back twice. But no fewer than that they are as many bytes as the spectrum they meet.
    """
    outputs = len(spectrum) - TAPS + 1
    inputs, channels = spectrum[0].shape[-2:]
    down, across = (-(-size // outputs) for size in shape[-3:-1])
    tiles = max(STRIP_TILES, inputs * channels // (inputs + channels))
    most = max(1, tiles // (math.prod(shape[:-3]) * across))
    return outputs * max(rows for rows in range(1, most + 1) if down % rows == 0)


def winograd_conv(x: jax.Array, spectrum: Spectrum) -> jax.Array:
    """Convolution of x "b h+2 w c", which brings the row above and the row below along, with a transformed kernel
    (arrays "n c o") -> "b h w o"; zeros left and right. Differentiable with respect to x only."""

    def products(tiles: jax.Array, row: jax.Array, matrices: Transforms) -> jax.Array:
        del matrices
        return jnp.matmul(tiles, row)

    return _linear(x, spectrum, products)


def winograd_conv_volume(x: jax.Array, spectrum: Spectrum) -> jax.Array:
    """The same for x "b d h+2 w c" and a 3 x 3 x 3 kernel (arrays "z n c o") -> "b d h w o"; zeros at both ends of
    depth."""
    b, d, h, w, c = x.shape

    def products(tiles: jax.Array, row: jax.Array, matrices: Transforms) -> jax.Array:
        """The same once more along depth, of tiles "n (b d th tw) c"."""
        m, n = matrices.output.shape
        deep = -(-d // m)
        into, back = (np.asarray(a, x.dtype) for a in (matrices.input, matrices.output))
        z = tiles.reshape(n, b, d, -1, row.shape[-2])
        z = jnp.pad(z, ((0, 0), (0, 0), (1, deep * m - d + 1), (0, 0), (0, 0)))
        z = jnp.matmul(into, _windows(z, 2, n, m).reshape(n, -1)).reshape(n, n, -1, row.shape[-2])
        y = jnp.matmul(back, jnp.matmul(z, row).reshape(n, -1)).reshape(m, n, b, deep, -1)
        return jnp.moveaxis(y, 0, 3).reshape(n, b, deep * m, -1)[:, :, :d].reshape(*tiles.shape[:2], -1)

    y = _linear(x.reshape(b * d, h, w, c), spectrum, products)
    return y.reshape(b, d, *y.shape[1:])


def _linear(x: jax.Array, spectrum: Spectrum, products: Products) -> jax.Array:
    """`_filtered` with the transpose given, which is the same with the kernel turned around: left to itself, jax
    would transpose every slice into a sum of paddings."""
    outputs = len(spectrum) - TAPS + 1

    def apply(spectrum: Spectrum, x: jax.Array) -> jax.Array:
        return _filtered(x, spectrum, transforms(outputs), products)

    def transpose(spectrum: Spectrum, y: jax.Array) -> jax.Array:
        turned = [jnp.swapaxes(row, -1, -2) for row in spectrum]
        y = jnp.pad(y, ((0, 0), (2, 2), (0, 0), (0, 0)))
        return _filtered(y, turned, turned_transforms(outputs), products)

    return linear_call(apply, transpose, list(spectrum), x)


def _filtered(x: jax.Array, spectrum: Spectrum, matrices: Transforms, products: Products) -> jax.Array:
    """Into the transformed domain, `products` of tiles "n (b th tw) c" with each row of the spectrum, and back.

    One row frequency at a time. The transforms are matrix products although sums would do with fewer operations: XLA
    computes a sum again inside everything that reads it, and a matrix product once.
    """
    m, n = matrices.output.shape
    b, h, w = x.shape[0], x.shape[1] - 2, x.shape[2]
    down, across = -(-h // m), -(-w // m)
    into, back = (np.asarray(a, x.dtype) for a in (matrices.input, matrices.output))
    x = jnp.pad(x, ((0, 0), (0, down * m - h), (1, across * m - w + 1), (0, 0)))
    rows = _windows(x, 1, n, m).reshape(n, -1)
    lines = []
    for weights, row in zip(into, spectrum, strict=True):
        mixed = jnp.matmul(weights, rows).reshape(b, down, x.shape[2], -1)
        tiles = jnp.matmul(into, _windows(mixed, 2, n, m).reshape(n, -1))
        y = products(tiles.reshape(n, b * down * across, -1), row, matrices)
        lines.append(jnp.matmul(back, y.reshape(n, -1)))
    y = jnp.matmul(back, jnp.stack(lines).reshape(n, -1))
    y = y.reshape(m, m, b, down, across, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(b, down * m, across * m, -1)[:, :h, :w]


def _windows(x: jax.Array, axis: int, n: int, step: int) -> jax.Array:
    """Overlapping tiles of n cells of `axis`, `step` apart, their cells in front: "... s ..." -> "n ... tiles ..."."""
    last = x.shape[axis] - n
    return jnp.stack([jax.lax.slice_in_dim(x, i, i + last + 1, step, axis) for i in range(n)])
