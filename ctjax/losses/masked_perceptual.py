"""Perceptual loss outside the mouth (paper, eq. 4): VGG-19 distance at full and half size, averaged over layers."""

from __future__ import annotations

from jaxtyping import Array, Float

from ctjax.losses.perceptual import mean_per_example, perceptual
from ctjax.losses.vgg19 import Vgg19

SCALES = (1.0, 0.5)


def masked_perceptual(
    vgg: Vgg19,
    output_01: Float[Array, "b h w 3"],
    source_01: Float[Array, "b h w 3"],
    mask: Float[Array, "b h w 1"],
    *,
    scales: tuple[float, ...] = SCALES,
) -> Float[Array, " b"]:
    """Sum over layers and scales of mean |phi(source) - phi(output)| over (scales x layers).

    Where `mask` is 1 the output is replaced by the source *before* VGG sees it (paper, fig. 3: the mouth area is masked
    in the picture), so that nothing inside reaches the loss, not even through the receptive fields.
    """
    composed = output_01 * (1.0 - mask) + source_01 * mask
    layers = len(vgg.taps)
    weight = 1.0 / (len(scales) * layers)
    return perceptual(vgg, composed, source_01, scales=scales, weights=(weight,) * layers)


def masked_pixels(
    output_01: Float[Array, "b h w 3"], source_01: Float[Array, "b h w 3"], mask: Float[Array, "b h w 1"]
) -> Float[Array, " b"]:
    """Mean absolute difference of pixels outside the mouth, for runs without VGG-19's weights."""
    return mean_per_example(abs(output_01 - source_01) * (1.0 - mask))
