"""The two decoders: SPADE with everything that reads one map fused, and the plain one without upsampled maps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.fast.convolution import Layout, convolve, image_layout, upsampled_layout
from ctjax.nn.norm import instance_norm
from ctjax.nn.resize import upsample_nearest
from ctjax.nn.spade import LEAKY_SLOPE
from ctjax.render.fast.fold import Tree, bare, scale_shift, side_by_side, spectral, with_norm
from ctjax.render.fast.formulation import Formulation
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig

UP_BLOCKS = ("up_0", "up_1")


def prepare_spade(params: Tree, config: SpadeDecoderConfig, formulation: Formulation) -> Layout:
    """A SPADE decoder's `params`, laid out."""
    middle = [params[f"G_middle_{i}"] for i in range(config.middle_blocks)]
    shared = [_shared(block[norm]) for block in middle for norm in ("norm_0", "norm_1")]
    return {
        "shared": image_layout(*side_by_side(bare(params["fc"]), *shared), formulation.images),
        "middle": [_prepare_block(block, formulation) for block in middle],
        "up": [_prepare_up_block(params[name], formulation) for name in UP_BLOCKS],
        "image": image_layout(*bare(params["conv_img"]), "direct"),
    }


def _prepare_block(block: Tree, formulation: Formulation) -> Layout:
    return {
        "norm_0": image_layout(*_gamma_beta(block["norm_0"]), formulation.images),
        "norm_1": image_layout(*_gamma_beta(block["norm_1"]), formulation.images),
        "conv_0": image_layout(*spectral(block["conv_0"]), formulation.images),
        "conv_1": image_layout(*spectral(block["conv_1"]), formulation.images),
    }


def _prepare_up_block(block: Tree, formulation: Formulation) -> Layout:
    """The shortcut conv_s(norm_s(x)) is linear in its beta, so conv_s goes into beta's convolution."""
    norms = ("norm_0", "norm_1", "norm_s")
    shortcut = spectral(block["conv_s"])[0][0, 0]
    gamma, beta = _modulation(block["norm_s"])
    beta = (beta[0] @ shortcut, beta[1] @ shortcut)
    return {
        **_prepare_block(block, formulation),
        "hidden": [upsampled_layout(*_shared(block[norm])) for norm in norms],
        "norm_s": image_layout(*side_by_side(gamma, beta), formulation.images),
        "conv_s": shortcut,
    }


def _shared(norm: Tree) -> tuple[np.ndarray, np.ndarray]:
    return bare(norm["mlp_shared"][0])


def _modulation(norm: Tree) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Convolutions that give 1 + gamma, and beta."""
    kernel, bias = bare(norm["mlp_gamma"])
    return (kernel, bias + 1.0), bare(norm["mlp_beta"])


def _gamma_beta(norm: Tree) -> tuple[np.ndarray, np.ndarray]:
    return side_by_side(*_modulation(norm))


def decode_spade(prepared: Layout, feature_map: jax.Array, config: SpadeDecoderConfig) -> jax.Array:
    """Warped, occluded features "b h w c" -> image before the sigmoid, "b 4h 4w 3"."""
    shared = convolve(prepared["shared"], feature_map)
    x, hidden = shared[..., : 2 * config.ic], jax.nn.relu(shared[..., 2 * config.ic :])
    hidden = _split(hidden, config.hidden)
    for i, block in enumerate(prepared["middle"]):
        x = x + _residual(block, instance_norm(x), hidden[2 * i : 2 * i + 2])
    for i, block in enumerate(prepared["up"]):
        x = _up_block(block, x, feature_map, 2 ** (i + 1))
    return convolve(prepared["image"], jax.nn.leaky_relu(x, LEAKY_SLOPE))


def _up_block(block: Layout, x: jax.Array, feature_map: jax.Array, factor: int) -> jax.Array:
    """x "b h w c" at half the size; the feature map is `factor` times smaller than the result."""
    hidden = [jax.nn.relu(convolve(layout, feature_map, upsample=factor)) for layout in block["hidden"]]
    # Mean and variance do not change when every cell is repeated, so normalisation comes before upsampling.
    normalised = instance_norm(x)

    def shortcut(modulation: jax.Array, normalised: jax.Array) -> jax.Array:
        channels = normalised.shape[-1]
        scaled = _doubled(normalised) * modulation[..., :channels]
        return jnp.matmul(scaled, block["conv_s"]) + modulation[..., channels:]

    y = _residual(block, normalised, hidden[:2])
    return y + convolve(block["norm_s"], hidden[2], then=shortcut, beside=(normalised,))


def _residual(block: Layout, normalised: jax.Array, hidden: list[jax.Array]) -> jax.Array:
    """Two times (modulation, leaky ReLU, convolution), of x normalised at the hidden maps' size or at half of it."""
    y = convolve(block["norm_0"], hidden[0], then=_modulated, beside=(normalised,))
    y = convolve(block["conv_0"], y)
    y = convolve(block["norm_1"], hidden[1], then=_modulated, beside=(instance_norm(y),))
    return convolve(block["conv_1"], y)


def _modulated(modulation: jax.Array, normalised: jax.Array) -> jax.Array:
    """leaky(normalised * gamma + beta), gamma and beta side by side (gamma has its 1 in the bias); `normalised` is
    doubled where it is half the size."""
    channels = normalised.shape[-1]
    normalised = normalised if normalised.shape[1] == modulation.shape[1] else _doubled(normalised)
    return jax.nn.leaky_relu(normalised * modulation[..., :channels] + modulation[..., channels:], LEAKY_SLOPE)


def _split(x: jax.Array, width: int) -> list[jax.Array]:
    return [x[..., i : i + width] for i in range(0, x.shape[-1], width)]


def _doubled(x: jax.Array) -> jax.Array:
    return upsample_nearest(x, (2, 2))


def prepare_plain(params: Tree, config: GeneratorConfig, formulation: Formulation) -> Layout:
    """The plain decoder's part of a generator's `params`, laid out."""
    blocks = [params["resblocks_2d"][f"2dr{i}"] for i in range(config.num_resblocks)]
    ups = [params["up_blocks"][i] for i in range(config.num_down_blocks)]
    return {
        "residual": [
            {
                "norm": scale_shift(block["norm1"]),
                "inner": image_layout(*with_norm(block["conv1"], block["norm2"]), formulation.images),
                "outer": image_layout(*bare(block["conv2"]), formulation.images),
            }
            for block in blocks
        ],
        "up": [upsampled_layout(*with_norm(block["conv"], block["norm"])) for block in ups],
        "image": image_layout(*bare(params["final"]), "direct"),
    }


def decode_plain(prepared: Layout, x: jax.Array) -> jax.Array:
    """As `decode_spade`."""
    for block in prepared["residual"]:
        y = jax.nn.relu(x * block["norm"]["scale"] + block["norm"]["shift"])
        x = x + convolve(block["outer"], jax.nn.relu(convolve(block["inner"], y)))
    for layout in prepared["up"]:
        x = jax.nn.relu(convolve(layout, x, upsample=2))
    return convolve(prepared["image"], x)
