"""Folding what is constant at evaluation into the convolutions next to it. On the host, in float64 inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctjax.nn.norm import EPSILON

Tree = Mapping[Any, Any]


def scale_shift(norm: Tree) -> dict[str, np.ndarray]:
    """Batch norm with its stored statistics as x * scale + shift, float64 "c"."""
    mean, var, scale, bias = (_wide(norm[name]) for name in ("mean", "var", "scale", "bias"))
    factor = scale / np.sqrt(var + EPSILON)
    return {"scale": factor, "shift": bias - mean * factor}


def with_norm(conv: Tree, norm: Tree) -> tuple[np.ndarray, np.ndarray]:
    """(kernel, bias), float64, of a convolution followed by batch norm."""
    folded = scale_shift(norm)
    return _wide(conv["kernel"]) * folded["scale"], _wide(conv["bias"]) * folded["scale"] + folded["shift"]


def bare(conv: Tree) -> tuple[np.ndarray, np.ndarray]:
    """(kernel, bias), float64, of a convolution without a norm."""
    return _wide(conv["kernel"]), _wide(conv["bias"])


def spectral(conv: Tree) -> tuple[np.ndarray, np.ndarray | None]:
    """(kernel, bias), float64, of a spectrally normalised convolution: its kernel over sigma from the stored u, v."""
    kernel = _wide(conv["kernel"])
    matrix = np.moveaxis(kernel, (-1, -2), (0, 1)).reshape(kernel.shape[-1], -1)
    sigma = _wide(conv["u"]) @ matrix @ _wide(conv["v"])
    bias = conv.get("bias")
    return kernel / sigma, None if bias is None else _wide(bias)


def side_by_side(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Convolutions of one input as one convolution, output channels in the order given."""
    kernels, biases = zip(*parts, strict=True)
    return np.concatenate(kernels, axis=-1), np.concatenate(biases)


def depth_last(channels: int, depth: int) -> np.ndarray:
    """Index that re-lays channels c * depth + d as d * (channels / depth) + c."""
    return np.arange(channels).reshape(-1, depth).T.reshape(-1)


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)
