"""What `infer.py` shows without any flag: a bundled portrait and sentence, and networks that need no download.

The portrait is a procedural head and the sentence is synthesised speech: no person's picture or voice is in the
package. There are no trained demo weights yet, so the networks are small and *untrained*: the demo shows that every
stage runs, and the face it renders is a flickering texture.
"""

from __future__ import annotations

import pathlib
from importlib import resources
from typing import NamedTuple

import jax
import numpy as np

from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.infer.talking_head import TalkingHead
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.nn.module import Params
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import Renderer, RendererConfig

UNTRAINED_NOTICE = (
    "Demo: small UNTRAINED networks. This shows that the whole path runs; the rendered face is a texture, not a "
    "talking face. For real results convert weights (python -m convert --help) and give --bundle."
)
_SIZE = 64
_CONTRAST = 12.0  # of the last convolution, so that the untrained texture can be seen at all


class Example(NamedTuple):
    """Files of the package that make a clip together."""

    source: pathlib.Path
    audio: pathlib.Path


def example() -> Example:
    """The bundled portrait and sentence."""
    assets = resources.files("ctjax.infer") / "assets"
    return Example(pathlib.Path(str(assets / "portrait.png")), pathlib.Path(str(assets / "speech.wav")))


def untrained_head() -> TalkingHead:
    """A small talking head with random weights, the same on every run."""
    renderer = RendererConfig(
        generator=GeneratorConfig(
            block_expansion=8,
            max_features=64,
            reshape_channel=16,
            reshape_depth=4,
            num_resblocks=2,
            dense_motion=DenseMotionConfig(
                block_expansion=8, max_features=32, num_blocks=3, reshape_depth=4, compress=3, feature_channel=16
            ),
            spade=SpadeDecoderConfig(ic=32, oc=8, label_nc=32, middle_blocks=2),
        ),
        kp_detector=KeypointDetectorConfig(
            block_expansion=8, max_features=32, num_blocks=3, reshape_channel=128, reshape_depth=4
        ),
        he_estimator=HeadEstimatorConfig(block_expansion=16),
    )
    hubert = HubertConfig.large_build(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=64,
        conv_channels=(16,) * 7,
        position_kernel=16,
        position_groups=4,
    )
    audio2exp = Audio2ExpConfig(channels=hubert.hidden_size, widths=(64, 32, 32, 64))
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "renderer": _visible(Renderer(renderer).init(keys[0])),
        "audio2exp": _moving(Audio2Exp(audio2exp).init(keys[1])),
        "hubert": hubert_network(hubert).init(keys[2]),
    }
    return TalkingHead(renderer, audio2exp, hubert, jax.device_get(params), size=_SIZE)


def _visible(params: Params) -> Params:
    """More contrast in the last layer."""
    last = params["generator"]["decoder"]["conv_img"]
    last["kernel"] = _CONTRAST * last["kernel"]
    return params


def _moving(params: Params) -> Params:
    """An output layer that is not zero, so that the sound moves something."""
    rng = np.random.default_rng(0)
    params["out_fc"] = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), params["out_fc"])
    return params
