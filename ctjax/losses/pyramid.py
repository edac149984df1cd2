"""Image pyramid: a Gaussian low-pass with zero padding, then every k-th pixel (ControlTalk modules/util.py:374-415)."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def gaussian_taps(scale: float) -> np.ndarray:
    """The one-dimensional low-pass for a subsampling by 1/scale: sigma (1/scale - 1)/2, unit sum, float64.

    Its outer product with itself is the reference's two-dimensional kernel.
    """
    sigma = (1 / scale - 1) / 2
    radius = round(4 * sigma)
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    return taps / taps.sum()


def _downscale_matrix(size: int, scale: float) -> np.ndarray:
    """ "o i": filtering and subsampling along one axis of `size` pixels as one banded matrix."""
    taps = gaussian_taps(scale)
    radius = len(taps) // 2
    step = int(1 / scale)
    offset = np.arange(size)[None, :] - step * np.arange(-(-size // step))[:, None] + radius
    inside = (offset >= 0) & (offset < len(taps))
    return np.where(inside, taps[np.clip(offset, 0, len(taps) - 1)], 0.0)


def downscale(image: Float[Array, "b h w c"], scale: float) -> Float[Array, "b _ _ c"]:
    """`image` low-passed and subsampled by 1/scale; scale 1 returns it unchanged.

    Two small matrix products: the kernel is separable and zero padding is the matrices' missing entries. A depthwise
    convolution gives the same numbers, but its gradient takes a CPU 20 to 800 times longer at 256 px.
    """
    if scale == 1:
        return image
    rows, columns = (jnp.asarray(_downscale_matrix(n, scale), image.dtype) for n in image.shape[1:3])
    return jnp.einsum("xw,bywc->byxc", columns, jnp.einsum("yh,bhwc->bywc", rows, image))


def pyramid(image: Float[Array, "b h w c"], scales: Sequence[float]) -> tuple[Float[Array, "b _ _ c"], ...]:
    """The image at each of `scales` (1, 1/2, 1/4, ...)."""
    return tuple(downscale(image, scale) for scale in scales)
