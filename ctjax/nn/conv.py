"""Convolution and linear layers with PyTorch's padding convention and default initialisation, and spectral norm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.module import Buffer

# torch.nn.Conv and Linear start uniform in +-1/sqrt(fan_in): a third of the variance that the name suggests.
_KERNEL_INIT = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _bias_init(fan_in: int):
    bound = 1.0 / math.sqrt(fan_in)
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def conv(
    in_features: int,
    out_features: int,
    kernel_size: Sequence[int],
    *,
    padding: int = 0,
    strides: int = 1,
    dilation: int = 1,
    use_bias: bool = True,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """An `nnx.Conv` over as many axes as `kernel_size` has, padded with `padding` zeros on every side."""
    return nnx.Conv(
        in_features,
        out_features,
        tuple(kernel_size),
        strides=strides,
        padding=[(padding, padding)] * len(kernel_size),
        kernel_dilation=dilation,
        use_bias=use_bias,
        kernel_init=_KERNEL_INIT,
        bias_init=_bias_init(in_features * math.prod(kernel_size)),
        rngs=rngs,
    )


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """An `nnx.Linear` with PyTorch's default initialisation."""
    return nnx.Linear(in_features, out_features, kernel_init=_KERNEL_INIT, bias_init=_bias_init(in_features), rngs=rngs)


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)  # torch.nn.functional.normalize


class SpectralConv(nnx.Module):
    """2-D convolution whose kernel is divided by sigma = u' W v (torch.nn.utils.spectral_norm, the hook with `_orig`).

    kernel: "h w i o"; u: "o"; v: "i*h*w", in PyTorch's flattening of the (o, i, h, w) weight. Evaluation takes the
    STORED u and v even where they have not converged; training makes one power iteration per call and stores it,
    and gradients treat u and v as constants.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int,
        *,
        padding: int = 0,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        inner = conv(
            in_features, out_features, (kernel_size, kernel_size), padding=padding, use_bias=use_bias, rngs=rngs
        )
        self.kernel = inner.kernel
        self.bias = inner.bias
        self.u = Buffer(_unit(jax.random.normal(rngs.params(), (out_features,))))
        self.v = Buffer(_unit(jax.random.normal(rngs.params(), (in_features * kernel_size**2,))))
        self.padding = padding
        self.training = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """x "b h w i" -> "b h' w' o" (stride 1)."""
        kernel = self.normalised_kernel().astype(x.dtype)
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(self.padding, self.padding)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)

    def normalised_kernel(self) -> jax.Array:
        """The kernel over sigma, float32 at least, "h w i o"; moves u and v when training."""
        wide = jnp.promote_types(self.kernel[...].dtype, jnp.float32)
        kernel = self.kernel[...].astype(wide)
        matrix = jnp.transpose(kernel, (3, 2, 0, 1)).reshape(kernel.shape[-1], -1)
        u, v = (jax.lax.stop_gradient(stored[...]).astype(wide) for stored in (self.u, self.v))
        if self.training:
            fixed = jax.lax.stop_gradient(matrix)
            v = _unit(jnp.matmul(u, fixed, precision="highest"))
            u = _unit(jnp.matmul(fixed, v, precision="highest"))
            self.u.set_value(u.astype(self.u[...].dtype))
            self.v.set_value(v.astype(self.v[...].dtype))
        sigma = jnp.vdot(u, jnp.matmul(matrix, v, precision="highest"), precision="highest")
        return kernel / sigma
