"""Wav2Lip's `lipsync_expert.pth` and the Oxford `syncnet_v2.model` to `ctjax.losses`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD
from ctjax.losses.oxford_syncnet import OxfordSyncNetConfig
from ctjax.losses.wav2lip_syncnet import AUDIO_LAYERS, FACE_LAYERS, Layer, Wav2LipSyncNetConfig
from ctjax.types import UserError

TABLE = STANDARD  # both
_AUDIO_CONVOLUTIONS = (0, 4, 8, 11, 14, 18)  # indices in the Oxford network's towers
_LIP_CONVOLUTIONS = (0, 4, 8, 11, 14, 18)


def normalise_state_dict(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Keys without the `module.` that Wav2Lip's data-parallel training may leave in front."""
    return {key.removeprefix("module."): value for key, value in state.items()}


def infer_wav2lip_config(state: Mapping[str, np.ndarray]) -> Wav2LipSyncNetConfig:
    """Channel counts from the kernels. Raises UserError where a convolution is missing."""

    def widths(tower: str, layers: tuple[Layer, ...]) -> tuple[int, ...]:
        keys = {layer.width: f"{tower}.{index}.conv_block.0.weight" for index, layer in enumerate(layers)}
        return _widths(state, [keys[width] for width in sorted(keys)], "Wav2Lip's sync expert")

    return Wav2LipSyncNetConfig(widths("face_encoder", FACE_LAYERS), widths("audio_encoder", AUDIO_LAYERS))


def infer_oxford_config(state: Mapping[str, np.ndarray]) -> OxfordSyncNetConfig:
    """Channel counts from the kernels. Raises UserError where a layer is missing."""
    name = "the Oxford SyncNet"
    return OxfordSyncNetConfig(
        audio_widths=_widths(state, [f"netcnnaud.{i}.weight" for i in _AUDIO_CONVOLUTIONS], name),
        lip_widths=_widths(state, [f"netcnnlip.{i}.weight" for i in _LIP_CONVOLUTIONS], name),
        embedding=_widths(state, ["netfcaud.3.weight"], name)[0],
    )


def _widths(state: Mapping[str, np.ndarray], keys: list[str], name: str) -> tuple[int, ...]:
    missing = [key for key in keys if key not in state]
    if missing:
        raise UserError(f"not a checkpoint of {name}: {', '.join(missing)} not found")
    return tuple(int(state[key].shape[0]) for key in keys)
