"""`--check`: the bundle is opened again and held against its source.

Every stored parameter is turned back into the source's layout and compared with the file, bit for bit. Where the
source's own PyTorch network can be had (HuBERT, through transformers), both networks run on the same sound.
"""

from __future__ import annotations

import importlib.util
import pathlib
from typing import Any

import numpy as np

from convert.bundle import Converted
from convert.rules import invert
from convert.sources import HF_CONFIG
from ctjax.types import UserError
from ctjax.weights import Bundle, open_bundle

OUTPUT_TOLERANCE = 1e-3  # of the largest output: above float32's rounding through 24 layers, below any wrong layer
_SECONDS = 2.0


class CheckError(UserError):
    """A bundle that does not hold what its source holds."""


def check(converted: Converted, bundle: pathlib.Path) -> list[str]:
    """Opens `bundle` and compares it with the source. Returns lines for the user; raises `CheckError`."""
    labels = {piece.label: piece.abstract for piece in converted.plan.pieces}
    abstract = labels[""] if list(labels) == [""] else labels
    opened = open_bundle(bundle, network=converted.entry.network, abstract=abstract)
    lines = [_compare_values(converted, opened)]
    if converted.entry.network == "hubert":
        lines.append(_compare_hubert(converted, opened))
    else:
        lines.append("outputs not compared: that is done for HuBERT alone, whose PyTorch network transformers has")
    return [f"  check:   {line}" for line in lines]


def _compare_values(converted: Converted, opened: Bundle) -> str:
    compared, wrong = 0, []
    for piece in converted.plan.pieces:
        params = opened.params[piece.label] if piece.label else opened.params
        placed = converted.outcome.reports[piece.label].placed
        back = invert(piece.table, params, {key: np.shape(piece.state[key]) for key in placed})
        for key, array in back.items():
            compared += 1
            if not np.array_equal(array, np.asarray(piece.state[key]).astype(array.dtype)):
                wrong.append(f"{piece.label}.{key}".removeprefix("."))
    if wrong or compared == 0:
        raise CheckError(f"{converted.source.path}: the bundle holds other values than the file: {', '.join(wrong)}")
    return f"{compared} tensors of the opened bundle equal the file's, bit for bit"


def _compare_hubert(converted: Converted, opened: Bundle) -> str:
    absent = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if absent:
        return f"outputs not compared: {' and '.join(absent)} not installed (pip install 'ctjax[convert]')"
    import jax

    from ctjax.features.hubert import HubertConfig, network, normalize_waveforms

    config: HubertConfig = converted.plan.config
    wave = np.random.default_rng(0).standard_normal(int(_SECONDS * 16000)).astype(np.float32)
    sound, _ = normalize_waveforms([wave])
    want = _torch_hubert(converted, sound)
    got = np.asarray(jax.jit(lambda p, x: network(config).bind(p)(x).last_hidden_state)(opened.params, sound))
    if got.shape != want.shape:
        raise CheckError(f"{converted.source.path}: {got.shape} features here, {want.shape} in PyTorch")
    worst, largest = float(np.abs(got - want).max()), float(np.abs(want).max())
    if not worst <= OUTPUT_TOLERANCE * largest:
        raise CheckError(
            f"{converted.source.path}: features differ from PyTorch's by {worst:.3g}, the largest being {largest:.3g}"
        )
    return f"features of {_SECONDS:g} s of noise agree with PyTorch's to {worst:.1e} (largest value {largest:.2g})"


def _torch_hubert(converted: Converted, sound: np.ndarray) -> np.ndarray:
    """The source's own features: a Hugging Face folder as transformers loads it, another file by its tensors."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    source = converted.source
    if source.path.is_dir():
        model = transformers.HubertModel.from_pretrained(source.path, local_files_only=True)
    else:
        settings = source.settings.get(HF_CONFIG) or _huggingface_config(converted.plan.config)
        model = transformers.HubertModel(transformers.HubertConfig(**settings))
        model.load_state_dict(_torch_state(model, converted.plan.pieces[0].state))
    with torch.no_grad():
        return model.eval()(torch.from_numpy(sound)).last_hidden_state.numpy()


def _torch_state(model: Any, state: Any) -> dict[str, Any]:
    """The model's own state dict with the source's values; the folded positional kernel is its own direction."""
    import torch

    stem = "encoder.pos_conv_embed.conv."
    kernel = np.asarray(state[f"{stem}weight"])
    values = {
        **state,
        f"{stem}parametrizations.weight.original0": np.sqrt((kernel**2).sum(axis=(0, 1), keepdims=True)),
        f"{stem}parametrizations.weight.original1": kernel,
    }
    # masked_spec_embed is not read in evaluation, and a source may lack it
    return {
        key: torch.from_numpy(np.array(values[key], np.float32)) if key in values else default
        for key, default in model.state_dict().items()
    }


def _huggingface_config(config: Any) -> dict[str, Any]:
    return {
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "conv_dim": config.conv_channels,
        "conv_kernel": config.conv_kernels,
        "conv_stride": config.conv_strides,
        "conv_bias": config.conv_bias,
        "feat_extract_norm": config.stem_norm,
        "do_stable_layer_norm": config.stable_layer_norm,
        "num_conv_pos_embeddings": config.position_kernel,
        "num_conv_pos_embedding_groups": config.position_groups,
        "layer_norm_eps": config.layer_norm_eps,
        "feat_proj_layer_norm": config.projection_layer_norm,
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
    }
