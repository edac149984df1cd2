"""Appearance encoder: batch norms folded, depth-major channels, 3-D residual blocks in the chosen formulation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ctjax.nn.fast.convolution import Layout, convolve, image_layout, volume_layout
from ctjax.render.fast.fold import Tree, bare, depth_last, scale_shift, with_norm
from ctjax.render.fast.formulation import Formulation
from ctjax.render.generator import GeneratorConfig


def prepare_appearance(params: Tree, config: GeneratorConfig, formulation: Formulation) -> Layout:
    """The encoder's part of a generator's `params`, laid out."""
    kernel, bias = bare(params["second"])
    order = depth_last(config.max_features, config.reshape_depth)
    blocks = [params["resblocks_3d"][f"3dr{i}"] for i in range(config.num_resblocks)]
    return {
        "first": image_layout(*with_norm(**_of(params["first"])), "direct"),
        "down": [
            image_layout(*with_norm(**_of(block)), formulation.images)
            for _, block in sorted(params["down_blocks"].items())
        ],
        "second": image_layout(kernel[..., order], bias[order], "direct"),
        "residual": [
            {
                "norm": scale_shift(block["norm1"]),
                "inner": volume_layout(*with_norm(block["conv1"], block["norm2"]), formulation.volumes),
                "outer": volume_layout(*bare(block["conv2"]), formulation.volumes),
            }
            for block in blocks
        ],
    }


def encode(prepared: Layout, image_01: jax.Array, depth: int) -> jax.Array:
    """RGB "b h w 3" in [0, 1] -> "b d h/4 w/4 c" (with two down blocks)."""
    x = jax.nn.relu(convolve(prepared["first"], image_01))
    for layout in prepared["down"]:
        x = halved(jax.nn.relu(convolve(layout, x)))
    x = convolve(prepared["second"], x)
    x = jnp.moveaxis(x.reshape(*x.shape[:3], depth, -1), 3, 1)
    for block in prepared["residual"]:
        y = jax.nn.relu(x * block["norm"]["scale"] + block["norm"]["shift"])
        y = jax.nn.relu(convolve(block["inner"], y))
        x = x + convolve(block["outer"], y)
    return x


def halved(x: jax.Array) -> jax.Array:
    """Means over 2 x 2 cells of the last two axes before the channels."""
    total = x[..., ::2, ::2, :] + x[..., 1::2, ::2, :] + x[..., ::2, 1::2, :] + x[..., 1::2, 1::2, :]
    return total * 0.25


def _of(block: Tree) -> dict[str, Tree]:
    return {"conv": block["conv"], "norm": block["norm"]}


def at_least_float32(x: jax.Array) -> jax.Array:
    """x in float32 where it is narrower: statistics, softmax and coordinates need the digits."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
