"""Perceptual distance: mean absolute difference of frozen features, layer by layer, scale by scale."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from ctjax.losses.pyramid import pyramid
from ctjax.losses.vgg19 import Vgg19


def mean_per_example(values: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Mean over everything but the batch, in float32 at least."""
    return values.mean(tuple(range(1, values.ndim)), dtype=jnp.promote_types(values.dtype, jnp.float32))


def feature_distance(
    prediction: Sequence[Float[Array, "b _ _ _"]], target: Sequence[Float[Array, "b _ _ _"]], weights: Sequence[float]
) -> Float[Array, " b"]:
    """Sum over layers of weight x mean |difference|, for each example."""
    pairs = zip(weights, prediction, target, strict=True)
    return sum(weight * mean_per_example(abs(p - t)) for weight, p, t in pairs)


def perceptual(
    vgg: Vgg19,
    prediction_01: Float[Array, "b h w 3"],
    target_01: Float[Array, "b h w 3"],
    *,
    scales: Sequence[float],
    weights: Sequence[float],
) -> Float[Array, " b"]:
    """VGG-19 feature distance summed over an image pyramid (ControlTalk modules/model.py:246-258, 273-281).

    `weights`: one per VGG layer relu1_1 .. relu5_1. The target needs no gradient; stop it before.
    """
    images = zip(pyramid(prediction_01, scales), pyramid(target_01, scales), strict=True)
    return sum(feature_distance(vgg(p), vgg(t), weights) for p, t in images)
