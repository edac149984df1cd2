"""Dense motion without gathers, without the volume of sparse motions, and without upsampled maps.

Without jacobians each keypoint moves the whole volume by one constant vector. Resampling by a constant vector is
separable, so it is three products with small matrices; and the mixed motion is the grid plus the mixed vectors.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.fast.convolution import Layout, convolve, image_layout, upsampled_layout, volume_layout
from ctjax.nn.sampling import corner_grid
from ctjax.render.dense_motion import KEYPOINT_VARIANCE, DenseMotionConfig, Motion
from ctjax.render.fast.appearance import at_least_float32, halved
from ctjax.render.fast.fold import Tree, bare, with_norm
from ctjax.render.fast.formulation import Formulation

_EXACT = jax.lax.Precision.HIGHEST
# Above this many weights per tap Winograd's larger kernels cost more memory traffic than they save products.
WINOGRAD_LIMIT = 128 * 256


def prepare_motion(params: Tree, config: DenseMotionConfig, formulation: Formulation) -> Layout:
    """A dense motion network's `params`, laid out."""
    encoder, decoder = (params["hourglass"][part] for part in ("encoder", "decoder"))
    downs, ups = encoder["down_blocks"], decoder["up_blocks"]
    order = _input_order(config)
    down = [with_norm(downs[i]["conv"], downs[i]["norm"]) for i in range(config.num_blocks)]
    down[0] = (down[0][0][..., order, :], down[0][1])
    last_kernel, last_bias = with_norm(decoder["conv"], decoder["norm"])
    skip = last_kernel.shape[-2] - len(_full_order(config))
    last_kernel = last_kernel[..., np.concatenate([np.arange(skip), skip + order]), :]
    prepared = {
        "compress": image_layout(*_flat(*with_norm(params["compress"], params["norm"])), "direct"),
        "down": [volume_layout(*layer, _volume_formulation(layer[0], formulation)) for layer in down],
        "up": [upsampled_layout(*with_norm(ups[i]["conv"], ups[i]["norm"])) for i in range(config.num_blocks)],
        "last": volume_layout(last_kernel, last_bias, _volume_formulation(last_kernel, formulation)),
        "mask": volume_layout(*bare(params["mask"]), formulation.mask),
    }
    if config.estimate_occlusion_map:
        kernel, bias = bare(params["occlusion"])
        taps = kernel.reshape(-1, kernel.shape[-2] // config.reshape_depth, config.reshape_depth)  # "hw c d"
        prepared["occlusion"] = {"taps": taps.transpose(2, 1, 0), "bias": bias}
    return prepared


def compressed_features(prepared: Layout, features: jax.Array) -> jax.Array:
    """The few channels of the source's volume "b d h w c" that motion is estimated from -> "b c d h w"."""
    return jnp.moveaxis(jax.nn.relu(convolve(prepared["compress"], features)), -1, 1)


def dense_motion(
    prepared: Layout,
    config: DenseMotionConfig,
    compressed: jax.Array,
    keypoints_source: jax.Array,
    keypoints_driving: jax.Array,
) -> Motion:
    """compressed: from `compressed_features`; keypoints: float32 "b k 3". Batches of 1 broadcast."""
    shape = compressed.shape[2:]
    check_size(shape, config.num_blocks)
    shift = keypoints_source - keypoints_driving
    shift = jnp.pad(shift, ((0, 0), (1, 0), (0, 0)))  # the background does not move
    heatmaps = _gaussians(keypoints_driving, shape) - _gaussians(keypoints_source, shape)
    warped = _moved(compressed, shift)
    hidden = _hourglass(prepared, jnp.concatenate([heatmaps.astype(warped.dtype), warped], axis=-1))
    mask = jax.nn.softmax(at_least_float32(convolve(prepared["mask"], hidden)), axis=-1)
    return Motion(mask, _mixed(mask, shift, config.mask_floor), _occlusion(prepared, hidden))


def check_size(shape: tuple[int, ...], num_blocks: int) -> None:
    """Raises unless the map "d h w" halves `num_blocks` times."""
    unit = 2**num_blocks
    if shape[1] % unit or shape[2] % unit:
        raise ValueError(
            f"dense motion: a feature map of {shape[1]} x {shape[2]} cells does not halve {num_blocks} times; "
            f"give images whose sides are multiples of {4 * unit} pixels"
        )


def _hourglass(prepared: Layout, x: jax.Array) -> jax.Array:
    levels = [x]
    for layout in prepared["down"]:
        levels.append(halved(jax.nn.relu(convolve(layout, levels[-1]))))
    x = levels.pop()
    for layout in prepared["up"]:
        x = jnp.concatenate([jax.nn.relu(convolve(layout, x, upsample=2)), levels.pop()], axis=-1)
    return jax.nn.relu(convolve(prepared["last"], x))


def _gaussians(keypoints: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """exp(-|cell - keypoint|^2 / (2 * 0.01)), float32 "b d h w k", as the product of one factor per axis."""
    z, y, x = (
        jnp.exp(-0.5 / KEYPOINT_VARIANCE * (corner_grid([size]) - keypoints[:, None, :, axis]) ** 2)
        for size, axis in zip(shape, (2, 1, 0), strict=True)
    )
    return z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]


def _moved(compressed: jax.Array, shift: jax.Array) -> jax.Array:
    """The volume "b c d h w" sampled at its grid plus each of "b k 3" -> "b d h w (k c)"."""
    z, y, x = (
        _shift_matrix(shift[..., axis], size).astype(compressed.dtype)
        for axis, size in zip((2, 1, 0), compressed.shape[2:], strict=True)
    )
    moved = jnp.einsum("bkpz,bczyx->bkpcyx", z, compressed)
    moved = jnp.einsum("bkqy,bkpcyx->bkpcqx", y, moved)
    moved = jnp.einsum("bkpcqx,bkrx->bkpcqr", moved, x)
    moved = jnp.transpose(moved, (0, 2, 4, 5, 1, 3))
    return moved.reshape(*moved.shape[:4], -1)


def _shift_matrix(shift: jax.Array, size: int) -> jax.Array:
    """Linear interpolation at cells moved by `shift` "b k" along an axis, zeros outside: float32 "b k size size".

    Cell i looks at 2 i / (n - 1) - 1 + shift (corner-aligned), which sampling takes for the edge-aligned place
    (.. + 1) n / 2 - 1 / 2 (ControlTalk modules/dense_motion.py:61): no shift is not the identity.
    """
    places = np.arange(size) * (size / (size - 1)) - 0.5
    places = jnp.asarray(places, shift.dtype) + shift[..., None] * (0.5 * size)
    return jax.nn.relu(1.0 - jnp.abs(places[..., None] - jnp.arange(size, dtype=shift.dtype)))


def _mixed(mask: jax.Array, shift: jax.Array, floor: float) -> jax.Array:
    """sum_k mask_k (grid + shift_k): "b d h w 3"."""
    grid = corner_grid(mask.shape[1:4])
    if floor:
        mask = jnp.where(mask < floor, 0.0, mask)
        grid = grid * jnp.sum(mask, axis=-1, keepdims=True)
    shift = jnp.broadcast_to(shift, (mask.shape[0], *shift.shape[1:]))
    return grid + jnp.einsum("bdhwk,bkn->bdhwn", mask, shift, precision=_EXACT)


def _occlusion(prepared: Layout, hidden: jax.Array) -> jax.Array | None:
    """One product for all taps of the 7 x 7 convolution over (channel, depth), then their shifted sum."""
    if "occlusion" not in prepared:
        return None
    taps, bias = prepared["occlusion"]["taps"], prepared["occlusion"]["bias"]
    y = jnp.sum(at_least_float32(jnp.einsum("bdhwc,dct->bdhwt", hidden, taps)), axis=1)
    side = round(taps.shape[-1] ** 0.5)
    h, w = y.shape[1:3]
    half = side // 2
    y = jnp.pad(y, ((0, 0), (half, half), (half, half), (0, 0)))
    total: Any = at_least_float32(bias)
    for i in range(side):
        for j in range(side):
            total = total + y[:, i : i + h, j : j + w, i * side + j]
    return jax.nn.sigmoid(total)[..., None]


def _full_order(config: DenseMotionConfig) -> np.ndarray:
    return np.arange((config.num_kp + 1) * (config.compress + 1))


def _input_order(config: DenseMotionConfig) -> np.ndarray:
    """The network's input channels as we give them: heatmaps of the keypoints, then "(k c)" moved features.

    In the checkpoint they alternate, keypoint-major, the heatmap first; the background's heatmap is always zero.
    """
    by_keypoint = _full_order(config).reshape(config.num_kp + 1, config.compress + 1)
    return np.concatenate([by_keypoint[1:, 0], by_keypoint[:, 1:].reshape(-1)])


def _flat(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return kernel.reshape(1, 1, *kernel.shape[-2:]), bias


def _volume_formulation(kernel: np.ndarray, formulation: Formulation) -> str:
    wants_winograd = formulation.volumes.startswith("winograd")
    if wants_winograd and kernel.shape[-1] * kernel.shape[-2] > WINOGRAD_LIMIT:
        return "depth_taps"
    return formulation.volumes
