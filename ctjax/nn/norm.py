"""Batch and instance normalisation with PyTorch's constants: epsilon 1e-5, momentum 0.1, unbiased running variance."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

EPSILON = 1e-5
MOMENTUM = 0.1  # share of the new batch in the running statistics (torch.nn.BatchNorm's meaning of the word)


class BatchNorm(nnx.Module):
    """Normalisation over every axis but the last.

    Evaluation uses the stored `mean` and `var`. Training (`training`, set by `Network.bind(..., train=True)`)
    normalises with the batch's mean and biased variance and moves the stored ones, the variance by its unbiased
    estimate. Under `jax.jit` over a sharded batch the statistics are those of the global batch, and epsilon is added
    as on one device: the reference's synchronised norm clamps the variance at epsilon instead, on several devices only
    (batchnorm.py:50-53, 125). Arithmetic is float32 whatever the input's dtype; the result has the input's
    dtype.
    """

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del rngs  # starts at fixed values
        self.scale = nnx.Param(jnp.asarray(np.ones(features, np.float32)))
        self.bias = nnx.Param(jnp.asarray(np.zeros(features, np.float32)))
        self.mean = nnx.BatchStat(jnp.asarray(np.zeros(features, np.float32)))
        self.var = nnx.BatchStat(jnp.asarray(np.ones(features, np.float32)))
        self.training = False

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean, var = self._batch_statistics(wide) if self.training else (self.mean[...], self.var[...])
        factor = jax.lax.rsqrt(var.astype(wide.dtype) + EPSILON) * self.scale[...]
        return ((wide - mean) * factor + self.bias[...]).astype(x.dtype)

    def _batch_statistics(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        count = x.size // x.shape[-1]
        if count < 2:
            raise ValueError(f"batch norm needs more than one value per channel to train, got shape {x.shape}")
        mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        self._move(self.mean, mean)
        self._move(self.var, var * (count / (count - 1)))
        return mean, var

    @staticmethod
    def _move(stored: nnx.Variable, new: jax.Array) -> None:
        old = stored[...]
        moved = (1 - MOMENTUM) * old + MOMENTUM * jax.lax.stop_gradient(new)
        stored.set_value(moved.astype(old.dtype))


def instance_norm(x: jax.Array) -> jax.Array:
    """Each example's and channel's values over the spatial axes brought to mean 0, variance 1. x: "b ... c"."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = tuple(range(1, x.ndim - 1))
    mean = jnp.mean(wide, axes, keepdims=True)
    var = jnp.var(wide, axes, keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(var + EPSILON)).astype(x.dtype)


class InstanceNorm(nnx.Module):
    """`instance_norm` followed by a learned scale and bias per channel; keeps no statistics."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        del rngs
        self.scale = nnx.Param(jnp.asarray(np.ones(features, np.float32)))
        self.bias = nnx.Param(jnp.asarray(np.zeros(features, np.float32)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return (instance_norm(x) * self.scale[...] + self.bias[...]).astype(x.dtype)
