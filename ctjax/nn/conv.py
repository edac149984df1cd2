"""Convolution and linear layers with PyTorch's padding convention and default initialisation, and spectral norm."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ctjax.nn.fast.volume import depth_tap_conv, depth_tap_kernel
from ctjax.nn.module import Buffer


def _draw(sample: Callable[..., jax.Array], key: jax.Array, shape: Sequence[int]) -> jax.Array | np.ndarray:
    """`sample(key, n)` cut to `shape`, n rounded up to a power of two; numpy outside a trace.

    Parameters are drawn one by one; so a network's hundreds of shapes need a dozen compiled programs, not hundreds.
    """
    count = math.prod(shape)
    flat = sample(key, (1 << max(10, (count - 1).bit_length()),))
    if not isinstance(flat, jax.core.Tracer):
        flat = np.asarray(flat)
    return flat[:count].reshape(shape)


def _uniform_in(bound: float) -> Callable[..., jax.Array]:
    """Initialiser, uniform in [-bound, bound)."""

    def init(key, shape, dtype=jnp.float32):
        unit = _draw(functools.partial(jax.random.uniform, minval=-1.0, maxval=1.0), key, shape)
        return jnp.asarray(unit * np.float32(bound), dtype)

    return init


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
    """An `nnx.Conv` over as many axes as `kernel_size` has, padded with `padding` zeros on every side.

    Starts like PyTorch's: kernel and bias uniform within 1 / sqrt(terms of a sum).
    """
    init = _uniform_in(1.0 / math.sqrt(in_features * math.prod(kernel_size)))
    return nnx.Conv(
        in_features,
        out_features,
        tuple(kernel_size),
        strides=strides,
        padding=[(padding, padding)] * len(kernel_size),
        kernel_dilation=dilation,
        use_bias=use_bias,
        kernel_init=init,
        bias_init=init,
        conv_general_dilated=_volume_conv if len(kernel_size) == 3 and dilation == 1 else jax.lax.conv_general_dilated,
        rngs=rngs,
    )


def _volume_conv(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Sequence[tuple[int, int]], **settings: Any
) -> jax.Array:
    """`jax.lax.conv_general_dilated` over three axes, by depth taps on a CPU, whose own 3-D code is many times slower.

    Which device counts is known only to the compiler; the default one stands for it.
    """
    keeps_size = all(low == high == size // 2 for (low, high), size in zip(padding, kernel.shape, strict=False))
    if jax.default_backend() == "cpu" and keeps_size and all(stride == 1 for stride in strides):
        return depth_tap_conv(x, depth_tap_kernel(kernel), len(kernel))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)


def linear(in_features: int, out_features: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """An `nnx.Linear` with PyTorch's default initialisation."""
    init = _uniform_in(1.0 / math.sqrt(in_features))
    return nnx.Linear(in_features, out_features, kernel_init=init, bias_init=init, rngs=rngs)


class BlockwiseLinear(nnx.Module):
    """Linear layer on "b i" that sums its terms in blocks, the result in float32 at least.

    With few rows XLA's CPU code adds the terms of a dot product one after another; over 2048 of them that costs a digit
    against PyTorch, which head angles show and dense motion magnifies. Blocks give it back.
    """

    BLOCK = 64

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        inner = linear(in_features, out_features, rngs=rngs)
        self.kernel = inner.kernel
        self.bias = inner.bias

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        missing = -kernel.shape[0] % self.BLOCK
        x_blocks = jnp.pad(x, ((0, 0), (0, missing))).reshape(x.shape[0], -1, self.BLOCK)
        kernel_blocks = jnp.pad(kernel, ((0, missing), (0, 0))).reshape(-1, self.BLOCK, kernel.shape[1])
        parts = jnp.einsum("bni,nio->nbo", x_blocks, kernel_blocks, preferred_element_type=wide)
        return jnp.sum(parts, axis=0) + self.bias[...]


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
        self.u = Buffer(_unit(_draw(jax.random.normal, rngs.params(), (out_features,))))
        self.v = Buffer(_unit(_draw(jax.random.normal, rngs.params(), (in_features * kernel_size**2,))))
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
