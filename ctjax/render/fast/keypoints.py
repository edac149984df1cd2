"""Canonical keypoints: the detector without 3-D upsampling, its norms folded."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ctjax.nn.fast.convolution import Layout, convolve, image_layout, upsampled_layout, volume_layout
from ctjax.nn.resize import low_pass_subsample
from ctjax.nn.sampling import corner_grid
from ctjax.render.fast.appearance import at_least_float32, halved
from ctjax.render.fast.fold import Tree, bare, depth_last, with_norm
from ctjax.render.fast.formulation import Formulation
from ctjax.render.keypoint_detector import KeypointDetectorConfig


def prepare_keypoints(params: Tree, config: KeypointDetectorConfig, formulation: Formulation) -> Layout:
    """A keypoint detector's `params`, laid out."""
    predictor, levels = params["predictor"], range(config.num_blocks)
    downs = [predictor["down_blocks"][f"down{i}"] for i in levels]
    ups = [predictor["up_blocks"][f"up{i}"] for i in levels]
    kernel, bias = bare(predictor["conv"])
    order = depth_last(config.reshape_channel, config.reshape_depth)
    prepared = {
        "down": [image_layout(*with_norm(block["conv"], block["norm"]), "direct") for block in downs],
        "conv": image_layout(kernel[..., order], bias[order], "direct"),
        "up": [upsampled_layout(*with_norm(block["conv"], block["norm"])) for block in ups],
        "heatmap": volume_layout(*bare(params["kp"]), formulation.volumes),
    }
    return {**prepared, "low_pass": params["down"]["kernel"]} if config.stride > 1 else prepared


def detect(prepared: Layout, image_01: jax.Array, config: KeypointDetectorConfig) -> jax.Array:
    """RGB "b h w 3" in [0, 1] -> canonical keypoints, float32 "b k 3", (x, y, z) in [-1, 1]."""
    x = low_pass_subsample(image_01, prepared["low_pass"], config.stride) if config.stride > 1 else image_01
    for layout in prepared["down"]:
        x = halved(jax.nn.relu(convolve(layout, x)))
    x = convolve(prepared["conv"], x)
    x = jnp.moveaxis(x.reshape(*x.shape[:3], config.reshape_depth, -1), 3, 1)
    for layout in prepared["up"]:
        x = jax.nn.relu(convolve(layout, x, upsample=2))
    logits = at_least_float32(convolve(prepared["heatmap"], x))
    heatmap = jax.nn.softmax(logits / config.temperature, axis=(1, 2, 3))
    # The grid is an outer sum, so marginals of the heatmap are all that its expectation needs.
    z, y, x = (jnp.sum(heatmap, axis=[a for a in (1, 2, 3) if a != axis]) for axis in (1, 2, 3))
    return jnp.stack([_expectation(marginal) for marginal in (x, y, z)], axis=-1)


def _expectation(marginal: jax.Array) -> jax.Array:
    """Mean corner-aligned coordinate under "b n k" -> "b k"."""
    return jnp.sum(marginal * corner_grid([marginal.shape[1]]), axis=1)
