"""3 x 3 convolution by Winograd's minimal filtering F(m x m, 3 x 3), m = 2 or 4.

A tile of m x m outputs costs (m + 2)^2 multiplications per pair of channels instead of 9 m^2: 2.25 and 4 times fewer.
What is left is (m + 2)^2 matrix products of tiles by channels, between transforms that are sums of slices.

The points of F(4, 3) are 0, +-2/3, +-3/2 and infinity. The textbook's 0, +-1, +-2 would do the same work with twice
the root-mean-square and five times the largest rounding error in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

TAPS = 3
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)}  # outputs per tile and axis -> finite points


class Transforms(NamedTuple):
    """y = output @ ((kernel @ g) * (input @ d)) is the correlation of a tile d with the taps g, along one axis.

    output: "m n"; kernel: "n 3"; input: "n n", with n = m + 2; float64.
    """

    output: np.ndarray
    kernel: np.ndarray
    input: np.ndarray


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


def winograd_kernel(kernel: np.ndarray, outputs: int) -> list[np.ndarray]:
    """Transforms a kernel "... 3 3 i o" into (outputs + 2)^2 arrays "... i o", row frequency major.

    They stay separate arrays: slicing one array at run time would copy as many bytes as the products read.
    """
    g = transforms(outputs).kernel
    spectrum = np.einsum("ai,bj,...ijco->ab...co", g, g, np.asarray(kernel, np.float64), optimize=True)
    return [np.ascontiguousarray(part, kernel.dtype) for row in spectrum for part in row]


def winograd_conv(x: jax.Array, spectrum: Sequence[jax.Array]) -> jax.Array:
    """Convolution of x "b h w c" with a transformed kernel (arrays "c o"), zero padding 1 -> "b h w o"."""
    products = [jnp.matmul(tile, part) for tile, part in zip(_forward(x, spectrum), spectrum, strict=True)]
    return _backward(products, x.shape[1:3])


def winograd_conv_volume(x: jax.Array, spectrum: Sequence[jax.Array]) -> jax.Array:
    """Convolution of x "b d h w c" with a transformed 3 x 3 x 3 kernel (arrays "3 c o"), zero padding 1.

    Winograd over height and width; the depth taps stay direct, inside the products.
    """
    b, d, h, w, c = x.shape
    tiles = _forward(x.reshape(b * d, h, w, c), spectrum)
    products = []
    for tile, part in zip(tiles, spectrum, strict=True):
        y = jax.lax.conv_general_dilated(
            tile.reshape(b, d, -1, c),
            part[:, None],
            (1, 1),
            ((1, 1), (0, 0)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        products.append(y.reshape(*tile.shape[:-1], -1))
    y = _backward(products, (h, w))
    return y.reshape(b, d, *y.shape[1:])


def _outputs(count: int) -> int:
    """Outputs per tile and axis of a spectrum of `count` arrays."""
    return round(count**0.5) - TAPS + 1


def _forward(x: jax.Array, spectrum: Sequence[jax.Array]) -> list[jax.Array]:
    """Tiles of "b h w c" in the transformed domain: (m + 2)^2 arrays "b tiles_h tiles_w c"."""
    m = _outputs(len(spectrum))
    matrix = transforms(m).input
    n = len(matrix)
    down, across = (-(-size // m) for size in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (1, down * m + 1 - x.shape[1]), (1, across * m + 1 - x.shape[2]), (0, 0)))
    rows = [x[:, i : i + m * (down - 1) + 1 : m] for i in range(n)]
    tiles = []
    for line in matrix:
        mixed = _combine(line, rows)
        columns = [mixed[:, :, j : j + m * (across - 1) + 1 : m] for j in range(n)]
        tiles.extend(_combine(weights, columns) for weights in matrix)
    # Without the barrier the compiler repeats the transform inside whatever reads it.
    return list(jax.lax.optimization_barrier(tuple(tiles)))


def _backward(products: Sequence[jax.Array], size: tuple[int, int]) -> jax.Array:
    """The inverse of `_forward` after the products: "b h w o"."""
    m = _outputs(len(products))
    matrix = transforms(m).output
    n = matrix.shape[1]
    products = jax.lax.optimization_barrier(tuple(products))
    rows = [[_combine(line, products[f::n]) for f in range(n)] for line in matrix]
    y = jnp.stack([jnp.stack([_combine(line, row) for line in matrix], axis=3) for row in rows], axis=2)
    b, down, _, across, _, channels = y.shape
    y = y.reshape(b, down * m, across * m, channels)
    return y[:, : size[0], : size[1]]


def _combine(weights: np.ndarray, terms: Sequence[jax.Array]) -> jax.Array:
    """sum_i weights[i] * terms[i], written out, without the zeros."""
    total = None
    for weight, term in zip(weights, terms, strict=True):
        if weight:
            scaled = term if weight == 1.0 else term * np.asarray(weight, term.dtype)
            total = scaled if total is None else total + scaled
    return total
