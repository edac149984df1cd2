"""ControlTalk's `lipControlNet.pt` and `audio_encoder.pt` to `ctjax.motion.audio2exp`, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD
from ctjax.motion.audio2exp import AXES, Audio2ExpConfig
from ctjax.types import UserError

TABLE = STANDARD
HUBERT_LARGE_CHANNELS = 1024  # the flattened window does not say where a step ends
_HEADS = ("fc1", "fc2", "fc3", "fc4")


def normalise_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`lipControlNet.pt`'s keys: every `module.` is taken out (ControlTalk inference.py:142-155).

    A file saved as {'state_dict': ...} is unwrapped by the reader before this.
    """
    return {key.replace("module.", ""): value for key, value in state.items()}


def audio_encoder_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The encoder's own keys (`fc1.projection.weight`, ...) out of an `audio_encoder.pt` (ControlTalk model.py:59-65).

    As there, only keys that contain `audio_encoder` are read, and they must begin with `model.audio_encoder.` once
    `module.` is gone. Raises UserError where none does.
    """
    kept = {}
    for key, value in state.items():
        name = key.replace("module.", "")
        if "audio_encoder" in name and name.startswith("model.audio_encoder."):
            kept[name.replace("model.audio_encoder.", "")] = value
    if not kept:
        raise UserError(
            "not an audio_encoder.pt: no key begins with model.audio_encoder. (or module.model.audio_encoder.); "
            f"the first of {len(state)} keys is {next(iter(state), None)!r}"
        )
    return kept


def audio_encoder_checkpoint(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `audio_encoder_state_dict`, as the reference's loader wants it."""
    return {f"model.audio_encoder.{key}": value for key, value in state.items()}


def infer_config(state: Mapping[str, np.ndarray], *, channels: int = HUBERT_LARGE_CHANNELS) -> Audio2ExpConfig:
    """Widths, window length and keypoints off a normalised `lipControlNet` state dict.

    `channels`: feature channels of one step, as the HuBERT in use has them.
    """
    required = ["out_fc.weight", *(f"audio_encoder.{head}.projection.weight" for head in _HEADS)]
    missing = [key for key in required if key not in state]
    if missing:
        raise UserError(f"not a lipControlNet checkpoint: {', '.join(missing)} not found")
    widths = tuple(int(state[key].shape[0]) for key in required[1:])
    inputs, outputs = int(state[required[1]].shape[1]), int(state["out_fc.weight"].shape[0])
    if inputs % channels or outputs % AXES:
        raise UserError(
            f"lipControlNet takes {inputs} inputs and gives {outputs} outputs: not windows of {channels}-channel "
            "features and three coordinates a keypoint (--channels, if the speech network has others)"
        )
    return Audio2ExpConfig(steps=inputs // channels, channels=channels, widths=widths, num_kp=outputs // AXES)
