"""Spatially adaptive normalisation: a feature map decides, place by place, the scale and shift of another.

ControlTalk modules/util.py:418-477.
"""

from __future__ import annotations

import jax
from flax import nnx

from ctjax.nn.conv import SpectralConv, conv
from ctjax.nn.norm import instance_norm
from ctjax.nn.resize import resize_nearest

LEAKY_SLOPE = 0.2  # ControlTalk modules/util.py:480, generator.py:160


class Spade(nnx.Module):
    """x -> instance_norm(x) * (1 + gamma(m)) + beta(m), m resized to x by nearest."""

    def __init__(self, features: int, map_features: int, hidden: int, *, rngs: nnx.Rngs):
        self.mlp_shared = nnx.List([conv(map_features, hidden, (3, 3), padding=1, rngs=rngs)])
        self.mlp_gamma = conv(hidden, features, (3, 3), padding=1, rngs=rngs)
        self.mlp_beta = conv(hidden, features, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x: jax.Array, feature_map: jax.Array) -> jax.Array:
        """x: "b h w c"; feature_map: "b h' w' m", h a multiple of h' -> "b h w c"."""
        hidden = jax.nn.relu(self.mlp_shared[0](resize_nearest(feature_map, x.shape[1:3])))
        return instance_norm(x) * (1.0 + self.mlp_gamma(hidden)) + self.mlp_beta(hidden)


class SpadeResBlock(nnx.Module):
    """Residual block of two (SPADE, leaky ReLU, spectrally normalised 3 x 3 convolution).

    Where the width changes, the shortcut is SPADE and a 1 x 1 convolution without bias and without activation.
    """

    def __init__(self, features: int, out_features: int, map_features: int, hidden: int, *, rngs: nnx.Rngs):
        middle = min(features, out_features)
        self.conv_0 = SpectralConv(features, middle, 3, padding=1, rngs=rngs)
        self.conv_1 = SpectralConv(middle, out_features, 3, padding=1, rngs=rngs)
        self.norm_0 = Spade(features, map_features, hidden, rngs=rngs)
        self.norm_1 = Spade(middle, map_features, hidden, rngs=rngs)
        self.projects = features != out_features
        if self.projects:
            self.conv_s = SpectralConv(features, out_features, 1, use_bias=False, rngs=rngs)
            self.norm_s = Spade(features, map_features, hidden, rngs=rngs)

    def __call__(self, x: jax.Array, feature_map: jax.Array) -> jax.Array:
        y = self.conv_0(jax.nn.leaky_relu(self.norm_0(x, feature_map), LEAKY_SLOPE))
        y = self.conv_1(jax.nn.leaky_relu(self.norm_1(y, feature_map), LEAKY_SLOPE))
        if self.projects:
            x = self.conv_s(self.norm_s(x, feature_map))
        return x + y
