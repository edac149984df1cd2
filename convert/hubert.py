"""HuBERT checkpoints to `ctjax.features.hubert`: Hugging Face's names, CTC prefixes, fairseq's names.

`normalise_state_dict` brings every variant to `HubertModel`'s names with the positional convolution folded; the table
then differs from the standard one only in what it leaves out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from convert.rules import STANDARD, Ignore
from ctjax.features.hubert import HubertConfig
from ctjax.types import UserError

_HEAD = r"(?:lm_head|classifier|projector|final_proj)\..+"
TABLE = (
    *STANDARD,
    Ignore(r"masked_spec_embed", "stands in for masked steps, in pre-training only"),
    Ignore(_HEAD, "head of the pre-training or fine-tuning task"),
    Ignore(r"label_embs_concat", "cluster embeddings of the pre-training task"),
)

# fairseq's names -> Hugging Face's; both write the same network.
_FAIRSEQ = (
    (r"feature_extractor\.conv_layers\.(\d+)\.0\.(.+)", r"feature_extractor.conv_layers.\1.conv.\2"),
    (r"feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?(.+)", r"feature_extractor.conv_layers.\1.layer_norm.\2"),
    (r"layer_norm\.(.+)", r"feature_projection.layer_norm.\1"),
    (r"post_extract_proj\.(.+)", r"feature_projection.projection.\1"),
    (r"encoder\.pos_conv\.0\.(.+)", r"encoder.pos_conv_embed.conv.\1"),
    (r"(encoder\.layers\.\d+)\.self_attn\.(.+)", r"\1.attention.\2"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm\.(.+)", r"\1.layer_norm.\2"),
    (r"(encoder\.layers\.\d+)\.fc1\.(.+)", r"\1.feed_forward.intermediate_dense.\2"),
    (r"(encoder\.layers\.\d+)\.fc2\.(.+)", r"\1.feed_forward.output_dense.\2"),
    (r"mask_emb", "masked_spec_embed"),
)  # fmt: skip
_FAIRSEQ_MARK = "post_extract_proj.weight"
_PREFIXES = ("hubert.", "w2v_encoder.w2v_model.", "module.")  # ForCTC (HF), fine-tuned (fairseq), data parallel

_POSITIONS = "encoder.pos_conv_embed.conv"
_WEIGHT_NORM = (  # (gain, direction): torch's old hook, torch's parametrisation
    (f"{_POSITIONS}.weight_g", f"{_POSITIONS}.weight_v"),
    (f"{_POSITIONS}.parametrizations.weight.original0", f"{_POSITIONS}.parametrizations.weight.original1"),
)

# Strides and head width leave no trace in the shapes; all published HuBERTs share these.
_STRIDES = {(10, 3, 3, 3, 3, 2, 2): (5, 2, 2, 2, 2, 2, 2)}
_HEAD_WIDTH = 64


class Normalised(NamedTuple):
    """`state`: `HubertModel`'s names. `folded`: source key -> what became of it."""

    state: dict[str, np.ndarray]
    folded: dict[str, str]


def normalise_state_dict(state: Mapping[str, np.ndarray]) -> Normalised:
    """Any published layout of a HuBERT state dict in `HubertModel`'s names, weight norm folded into one kernel."""
    named = {_strip(key): (key, value) for key, value in state.items()}
    if len(named) != len(state):
        raise UserError("HuBERT checkpoint holds two networks: the same key with and without a prefix")
    if _FAIRSEQ_MARK in named:
        named = {_from_fairseq(key): entry for key, entry in named.items()}
    folded: dict[str, str] = {}
    for gain, direction in _WEIGHT_NORM:
        if gain in named and direction in named:
            (gain_key, g), (direction_key, v) = named.pop(gain), named.pop(direction)
            named[f"{_POSITIONS}.weight"] = (direction_key, fold_weight_norm(g, v))
            folded = dict.fromkeys((gain_key, direction_key), f"weight norm, into {_POSITIONS}.weight")
    return Normalised({key: value for key, (_, value) in named.items()}, folded)


def fold_weight_norm(gain: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """The kernel `gain * direction / |direction|`, one norm per kernel position (last axis): float32 "o i k"."""
    v = np.asarray(direction, np.float64)
    norm = np.sqrt((v**2).sum(axis=(0, 1), keepdims=True))
    return (np.asarray(gain, np.float64) * v / norm).astype(np.float32)


def infer_config(
    state: Mapping[str, np.ndarray], *, normalize_waveform: bool = True, heads: int | None = None
) -> HubertConfig:
    """The architecture of a normalised state dict that came without a `config.json` (fairseq).

    Strides, head width (unless `heads` is known), and stable layer norm with the layer-norm stem are not to be seen in
    shapes: they are taken as in every published HuBERT. Raises UserError where that cannot be right.
    """
    convolutions = sorted(_indices(state, r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight"))
    layers = sorted(_indices(state, r"encoder\.layers\.(\d+)\.attention\.k_proj\.weight"))
    required = [f"{_POSITIONS}.weight", "feature_projection.projection.weight"]
    missing = [key for key in required if key not in state]
    if not convolutions or not layers or missing:
        raise UserError(f"not a HuBERT checkpoint: {', '.join(missing) or 'encoder or stem'} not found")
    kernels = [state[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in convolutions]
    sizes = tuple(int(k.shape[2]) for k in kernels)
    hidden = int(state["feature_projection.projection.weight"].shape[0])
    if sizes not in _STRIDES or (heads is None and hidden % _HEAD_WIDTH):
        raise UserError(
            f"HuBERT with convolutions of {sizes} samples and width {hidden} is none of the published ones: "
            "give its config.json"
        )
    positions = state[f"{_POSITIONS}.weight"]
    stem_norm = "layer" if "feature_extractor.conv_layers.1.layer_norm.weight" in state else "group"
    return HubertConfig(
        hidden_size=hidden,
        layers=len(layers),
        heads=heads or hidden // _HEAD_WIDTH,
        intermediate_size=int(state["encoder.layers.0.feed_forward.intermediate_dense.weight"].shape[0]),
        conv_channels=tuple(int(k.shape[0]) for k in kernels),
        conv_kernels=sizes,
        conv_strides=_STRIDES[sizes],
        conv_bias="feature_extractor.conv_layers.0.conv.bias" in state,
        stem_norm=stem_norm,
        stable_layer_norm=stem_norm == "layer",
        position_kernel=int(positions.shape[2]),
        position_groups=hidden // int(positions.shape[1]),
        layer_norm_eps=1e-5,
        projection_layer_norm="feature_projection.layer_norm.weight" in state,
        normalize_waveform=normalize_waveform,
    )


def _indices(state: Mapping[str, np.ndarray], pattern: str) -> list[int]:
    return [int(match.group(1)) for key in state if (match := re.fullmatch(pattern, key))]


def _strip(key: str) -> str:
    while True:
        prefix = next((p for p in _PREFIXES if key.startswith(p)), None)
        if prefix is None:
            return key
        key = key.removeprefix(prefix)


def _from_fairseq(key: str) -> str:
    for pattern, name in _FAIRSEQ:
        if match := re.fullmatch(pattern, key):
            return match.expand(name)
    return key
