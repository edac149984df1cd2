"""Small untrained networks in the place of bundles, to run the whole path without any weights.

What they make means nothing, but it is not constant: features follow the sound, pictures follow the keypoints.
"""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ctjax import weights
from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import Renderer, RendererConfig

UNTRAINED = "untrained"

HUBERT = HubertConfig.large_build(
    hidden_size=32,
    layers=1,
    heads=4,
    intermediate_size=64,
    conv_channels=(32,) * 7,
    position_kernel=16,
    position_groups=4,
)
RENDERER = RendererConfig(
    generator=GeneratorConfig(
        block_expansion=8,
        max_features=32,
        reshape_channel=8,
        reshape_depth=4,
        num_resblocks=1,
        dense_motion=DenseMotionConfig(
            feature_channel=8, block_expansion=8, max_features=16, num_blocks=2, reshape_depth=4, compress=2
        ),
        spade=SpadeDecoderConfig(ic=32, oc=8, label_nc=32, hidden=8, middle_blocks=1),
    ),
    kp_detector=KeypointDetectorConfig(
        block_expansion=8, max_features=16, num_blocks=2, reshape_channel=32, reshape_depth=4
    ),
    he_estimator=HeadEstimatorConfig(block_expansion=8, widths=(16, 32), bottlenecks=(1, 1)),
)
_GAINS = {"conv_img": 0.2}  # untrained pictures would be black and white otherwise


def stand_ins(folder: pathlib.Path, hubert: str | None, renderer: str | None) -> tuple[Any, Any]:
    """The two paths as they are; for "untrained" a bundle made in `folder`, beside the records, where training finds
    it."""
    return (
        make_hubert(folder / "hubert") if hubert == UNTRAINED else hubert,
        make_renderer(folder / "renderer") if renderer == UNTRAINED else renderer,
    )


def make_hubert(folder: pathlib.Path) -> pathlib.Path:
    """Writes the untrained speech network to `folder`, unless it is there, and returns it."""
    return make_bundle(folder, "hubert", HUBERT, hubert_network(HUBERT).abstract)


def make_renderer(folder: pathlib.Path) -> pathlib.Path:
    """Writes the untrained renderer to `folder`, unless it is there, and returns it."""
    return make_bundle(folder, "facevid2vid", RENDERER, Renderer(RENDERER).abstract)


def make_bundle(
    folder: pathlib.Path, network: str, config: Any, abstract: Any, provenance: Mapping[str, Any] | None = None
) -> pathlib.Path:
    """Writes an untrained bundle of any network to `folder`, unless one is there, and returns it."""
    if not (folder / weights.MANIFEST).is_file():
        provenance = {"note": "untrained, for trying out the path", **(provenance or {})}
        try:
            weights.save_bundle(folder, network=network, config=config, params=_draw(abstract), provenance=provenance)
        except weights.BundleError:
            if not (folder / weights.MANIFEST).is_file():  # else another host has made the same one meanwhile
                raise
    return folder


def _draw(abstract: Any) -> Any:
    """Kernels normal with variance gain^2 / fan-in, scales and variances 1, offsets 0; the same on every machine."""

    def leaf(path: Any, like: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        last = name.rsplit(".", 1)[-1]
        if last in ("scale", "var"):
            return np.ones(like.shape, like.dtype)
        if last in ("bias", "mean"):
            return np.zeros(like.shape, like.dtype)
        gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
        fan_in = np.prod(like.shape[:-1]) if len(like.shape) > 1 else 1.0
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        return (gain * rng.normal(size=like.shape) / np.sqrt(fan_in)).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, abstract)
