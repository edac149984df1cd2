"""SSIM and PSNR of 8-bit RGB frames, equal to scikit-image's under the settings named here.

Arithmetic is float32 on the device. SSIM's variances do not change when a constant is taken off every pixel, so
mid-grey is subtracted before squaring: that keeps E[x^2] - E[x]^2 accurate to about 1e-6 of the index.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

SsimWindow = Literal["gaussian11", "uniform7"]
DATA_RANGE = 255.0
K1, K2 = 0.01, 0.03  # Wang et al. 2004
GAUSSIAN_SIGMA, GAUSSIAN_RADIUS = 1.5, 5  # 11 x 11 taps
UNIFORM_SIDE = 7  # scikit-image's default window
MID_GREY = 128.0  # whole, so that the sums of the uniform window stay exact integers

SSIM_DEFINITIONS: dict[str, str] = {
    "gaussian11": "SSIM, 11x11 Gaussian window (sigma 1.5), population covariance, range 255, mean over RGB; "
    "scikit-image: structural_similarity(channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, "
    "use_sample_covariance=False)",
    "uniform7": "SSIM, 7x7 uniform window, sample covariance, range 255, mean over RGB; "
    "scikit-image: structural_similarity(channel_axis=-1, data_range=255), its defaults",
}


@functools.cache
def window_taps(window: SsimWindow) -> tuple[float, ...]:
    """The separable window's taps along one axis, up to a common factor."""
    if window == "uniform7":
        return (1.0,) * UNIFORM_SIDE
    offsets = np.arange(-GAUSSIAN_RADIUS, GAUSSIAN_RADIUS + 1)
    taps = np.exp(-0.5 * (offsets / GAUSSIAN_SIGMA) ** 2)
    return tuple(float(t) for t in taps / taps.sum())


def _filtered(image: Array, taps: tuple[float, ...]) -> Array:
    """Local means over the part of the image that the window fully covers. Shifted sums: exact float32 everywhere."""
    total = sum(taps)
    for axis in (1, 2):
        size = image.shape[axis] - len(taps) + 1
        image = sum(tap * jax.lax.slice_in_dim(image, start, start + size, axis=axis) for start, tap in enumerate(taps))
    return image / total**2


def ssim(
    a_u8: UInt8[Array, "b h w c"], b_u8: UInt8[Array, "b h w c"], window: SsimWindow = "gaussian11"
) -> Float[Array, " b"]:
    """Structural similarity of each pair of frames, mean over channels and over all fully covered windows.

    Raises ValueError where a frame is smaller than the window.
    """
    taps = window_taps(window)
    if min(a_u8.shape[1:3]) < len(taps):
        raise ValueError(f"SSIM needs frames of at least {len(taps)} px a side, got {a_u8.shape[2]}x{a_u8.shape[1]}")
    samples = len(taps) ** 2
    correction = samples / (samples - 1) if window == "uniform7" else 1.0
    a, b = (x.astype(jnp.float32) - MID_GREY for x in (a_u8, b_u8))
    mean_a, mean_b = _filtered(a, taps), _filtered(b, taps)
    variance_a = correction * (_filtered(a * a, taps) - mean_a * mean_a)
    variance_b = correction * (_filtered(b * b, taps) - mean_b * mean_b)
    covariance = correction * (_filtered(a * b, taps) - mean_a * mean_b)
    mean_a, mean_b = mean_a + MID_GREY, mean_b + MID_GREY
    c1, c2 = (K1 * DATA_RANGE) ** 2, (K2 * DATA_RANGE) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))


def mean_squared_error(a_u8: UInt8[Array, "b h w c"], b_u8: UInt8[Array, "b h w c"]) -> Float[Array, " b"]:
    """Mean over pixels and channels of the squared difference in grey levels; sums along a row are exact integers."""
    difference = a_u8.astype(jnp.int32) - b_u8.astype(jnp.int32)
    rows = jnp.sum(difference * difference, axis=(2, 3)).astype(jnp.float32)
    return jnp.sum(rows, axis=1) / float(np.prod(a_u8.shape[1:]))


def psnr(a_u8: UInt8[Array, "b h w c"], b_u8: UInt8[Array, "b h w c"]) -> Float[Array, " b"]:
    """10 log10(255^2 / MSE) of each pair in dB; infinite for identical frames (as scikit-image has it)."""
    return 10.0 * jnp.log10(DATA_RANGE**2 / mean_squared_error(a_u8, b_u8))


@functools.partial(jax.jit, static_argnames="window")
def compare_frames(
    a_u8: UInt8[Array, "b h w c"], b_u8: UInt8[Array, "b h w c"], window: SsimWindow = "gaussian11"
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """(SSIM, PSNR) of each pair of frames, compiled once per frame size."""
    return ssim(a_u8, b_u8, window), psnr(a_u8, b_u8)
