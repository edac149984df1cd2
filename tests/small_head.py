"""A talking-head folder of small networks with drawn weights: the whole path runs, the face is a texture."""

from __future__ import annotations

import pathlib

import drawn_params
import jax
import numpy as np
import tiny_renderer
from parity import record

from convert import hubert, rules
from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.render.renderer import Renderer
from ctjax.weights import save_bundle

SIZE = 64  # side of the renderer's picture in pixels


def save(folder: pathlib.Path) -> pathlib.Path:
    """Writes the bundles `renderer/`, `audio2exp/` and `hubert/` into `folder` and returns it."""
    config = tiny_renderer.RENDERER
    params = drawn_params.draw(Renderer(config).abstract, 0, {"conv_img": 0.2, "mask": 0.3})
    made_for = {"image_size": SIZE}
    save_bundle(folder / "renderer", network="facevid2vid", config=config, params=params, provenance=made_for)

    speech = record("hubert_tiny_stable")
    hubert_config = HubertConfig.from_huggingface(speech.config)
    state, _ = hubert.normalise_state_dict(speech.weights["hubert"])
    params, _ = rules.apply(hubert.TABLE, state, hubert_network(hubert_config).abstract, name="hubert")
    save_bundle(folder / "hubert", network="hubert", config=hubert_config, params=params)

    motion_config = Audio2ExpConfig(
        channels=hubert_config.hidden_size, widths=(64, 32, 32, 64), num_kp=tiny_renderer.KEYPOINTS
    )
    params = Audio2Exp(motion_config).init(jax.random.key(0))
    # Trained weights are not zero: these move the mouth by about a tenth of the face, differently for each sound.
    rng = np.random.default_rng(0)
    params["out_fc"] = jax.tree.map(lambda x: 0.02 * rng.standard_normal(x.shape, np.float32), params["out_fc"])
    save_bundle(folder / "audio2exp", network="audio2exp", config=motion_config, params=params)
    return folder
