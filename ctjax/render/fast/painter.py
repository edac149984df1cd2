"""`render.painter` in the fast formulation: a few matrix products a pixel, which is what they are."""

from __future__ import annotations

import jax

from ctjax.nn.fast.convolution import Layout, convolve, image_layout
from ctjax.nn.module import Params
from ctjax.render.fast.fold import bare
from ctjax.render.painter import seen

HIDDEN = ("first", "second", "third")


def prepare_painter(params: Params) -> Layout:
    """A painter's `params`, laid out."""
    return {name: image_layout(*bare(params[name]), "direct") for name in (*HIDDEN, "last")}


def paint(prepared: Layout, logits: jax.Array, keypoints: jax.Array) -> jax.Array:
    """The decoder's output "b h w c", corrected."""
    x = seen(logits, keypoints)
    for name in HIDDEN:
        x = jax.nn.relu(convolve(prepared[name], x))
    return logits + convolve(prepared["last"], x)
