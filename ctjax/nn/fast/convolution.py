"""A convolution laid out for one of its formulations, and applied by whichever it was laid out for.

`image_layout`, `volume_layout` and `upsampled_layout` turn a kernel and a bias into a dict of arrays on the host;
`convolve` applies it. Every formulation keeps the size of its input (zero padding), and all agree up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.fast.dft import dft_conv_volume, dft_kernel
from ctjax.nn.fast.strips import in_strips
from ctjax.nn.fast.upsampled import tap_kernel, upsampled_conv, upsampled_conv_volume
from ctjax.nn.fast.volume import depth_tap_conv, depth_tap_kernel
from ctjax.nn.fast.winograd import strip_height, winograd_conv, winograd_conv_volume, winograd_kernel

Layout = dict[str, Any]

IMAGE_FORMULATIONS = ("direct", "winograd2", "winograd4")
VOLUME_FORMULATIONS = ("direct", "depth_taps", "winograd2", "winograd4", "dft")


def image_layout(kernel: np.ndarray, bias: np.ndarray | None, formulation: str) -> Layout:
    """kernel: "k k i o"; the Winograd formulations apply to k = 3 and leave other sizes direct."""
    _check(formulation, IMAGE_FORMULATIONS)
    if formulation.startswith("winograd") and kernel.shape[:2] == (3, 3):
        return _with_bias({"winograd": winograd_kernel(kernel, int(formulation[-1]))}, bias)
    return _with_bias({"kernel": kernel}, bias)


def volume_layout(kernel: np.ndarray, bias: np.ndarray | None, formulation: str) -> Layout:
    """kernel: "k k k i o"; Winograd is for k = 3, DFT for larger ones."""
    _check(formulation, VOLUME_FORMULATIONS)
    if formulation.startswith("winograd"):
        return _with_bias({"winograd": winograd_kernel(kernel, int(formulation[-1]))}, bias)
    if formulation == "dft":
        return _with_bias({"dft": dft_kernel(kernel)}, bias)
    if formulation == "depth_taps":
        return _with_bias({"depth_taps": depth_tap_kernel(kernel)}, bias)
    return _with_bias({"kernel": kernel}, bias)


def upsampled_layout(kernel: np.ndarray, bias: np.ndarray | None) -> Layout:
    """kernel: "3 3 i o" or "3 3 3 i o", of a convolution whose input is upsampled first."""
    return _with_bias({"upsampled": tap_kernel(kernel)}, bias)


def convolve(
    layout: Layout,
    x: jax.Array,
    *,
    upsample: int = 1,
    then: Callable[..., jax.Array] | None = None,
    beside: tuple[jax.Array, ...] = (),
) -> jax.Array:
    """x: "b h w i" or "b d h w i"; `upsample`: by how much height and width grow first (for `upsampled_layout`).

    then: applied to the result and `beside`, place by place: where the convolution works through the map in strips,
    it is done with each strip, and what it takes from the convolution never exists as a whole. The arrays of `beside`
    have the result's height, or half of it.
    """

    def finished(y: jax.Array, *beside: jax.Array) -> jax.Array:
        bias = layout.get("bias")
        y = y if bias is None else y + bias.astype(y.dtype)
        return y if then is None else then(y, *beside)

    if (spectrum := layout.get("winograd")) is None:
        return finished(_convolve(layout, x, upsample), *beside)
    conv = winograd_conv_volume if x.ndim == 5 else winograd_conv
    return in_strips(
        lambda strip, *beside: finished(conv(strip, spectrum), *beside),
        x,
        *beside,
        height=strip_height(x.shape, spectrum),
    )


def _convolve(layout: Layout, x: jax.Array, upsample: int) -> jax.Array:
    if (taps := layout.get("upsampled")) is not None:
        return (upsampled_conv_volume if x.ndim == 5 else upsampled_conv)(x, taps, upsample)
    if (kernel := layout.get("depth_taps")) is not None:
        return depth_tap_conv(x, kernel, kernel.shape[0])
    if (spectrum := layout.get("dft")) is not None:
        return dft_conv_volume(x, spectrum, spectrum["real"].shape[-1] // (2 * layout["bias"].shape[0]))
    return direct_conv(x, layout["kernel"])


def direct_conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The plain convolution; a 1 x 1 kernel is a matrix product."""
    sizes = kernel.shape[:-2]
    if all(size == 1 for size in sizes):
        return jnp.matmul(x, kernel.reshape(kernel.shape[-2:]))
    pads = [(size // 2, size // 2) for size in sizes]
    numbers = ("NDHWC", "DHWIO", "NDHWC") if len(sizes) == 3 else ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(sizes), pads, dimension_numbers=numbers)


def _with_bias(layout: Layout, bias: np.ndarray | None) -> Layout:
    return layout if bias is None else {**layout, "bias": bias}


def _check(formulation: str, known: tuple[str, ...]) -> None:
    if formulation not in known:
        raise ValueError(f"formulation is {formulation!r}, should be one of {', '.join(known)}")
