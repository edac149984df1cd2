"""HuBERT's architecture as numbers, and how a Hugging Face folder states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctjax.types import UserError


@dataclass(frozen=True)
class HubertConfig:
    """Architecture. `stem_norm`: "layer" (over channels, every convolution) or "group" (per channel over time, the
    first convolution). `normalize_waveform`: whether sound is brought to zero mean and unit variance first."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    conv_channels: tuple[int, ...]
    conv_kernels: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool
    stem_norm: str
    stable_layer_norm: bool
    position_kernel: int
    position_groups: int
    layer_norm_eps: float
    projection_layer_norm: bool
    normalize_waveform: bool

    def __post_init__(self) -> None:
        if self.stem_norm not in ("layer", "group"):
            raise UserError(f"HuBERT stem_norm is {self.stem_norm!r}; layer and group are known")
        if not len(self.conv_channels) == len(self.conv_kernels) == len(self.conv_strides):
            raise UserError("HuBERT's convolutions need as many channels as kernels and strides")
        if self.hidden_size % self.heads or self.hidden_size % self.position_groups:
            raise UserError(
                f"HuBERT's width {self.hidden_size} does not divide by {self.heads} heads and "
                f"{self.position_groups} groups"
            )

    @classmethod
    def large_build(cls, **sizes: Any) -> HubertConfig:
        """HuBERT-large's build in other `sizes`: hidden_size, layers, heads, intermediate_size, conv_channels (seven),
        position_kernel and position_groups."""
        return cls(
            conv_kernels=(10, 3, 3, 3, 3, 2, 2),
            conv_strides=(5, 2, 2, 2, 2, 2, 2),
            conv_bias=True,
            stem_norm="layer",
            stable_layer_norm=True,
            layer_norm_eps=1e-5,
            projection_layer_norm=True,
            normalize_waveform=True,
            **sizes,
        )

    @property
    def stride(self) -> int:
        """Samples from one feature step to the next (320)."""
        return int(np.prod(self.conv_strides))

    @property
    def receptive_field(self) -> int:
        """Samples that one feature step sees (400)."""
        return self.samples(1)

    def steps(self, samples: int) -> int:
        """Feature steps of a clip of `samples` (0 if it is shorter than the receptive field)."""
        return max(self.positions(samples), 0)

    def positions(self, samples, convolutions: int | None = None):
        """Outputs of the first `convolutions` (default: all) for `samples`, an int or an array of ints."""
        kernels, strides = self.conv_kernels[:convolutions], self.conv_strides[:convolutions]
        for kernel, stride in zip(kernels, strides, strict=True):
            samples = (samples - kernel) // stride + 1
        return samples

    def samples(self, steps: int) -> int:
        """The fewest samples that give `steps` feature steps."""
        for kernel, stride in zip(self.conv_kernels[::-1], self.conv_strides[::-1], strict=True):
            steps = (steps - 1) * stride + kernel
        return steps

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None) -> HubertConfig:
        """From a checkpoint's `config.json` and, if at hand, its `preprocessor_config.json`.

        Values are read, never assumed: a missing key or a build that is not supported is a `UserError`. Three keys
        are younger than the first checkpoints and stand for what those were: `feat_proj_layer_norm` (true),
        `conv_pos_batch_norm` (false), and without a preprocessor file the waveform is normalised (as all published
        HuBERT feature extractors do).
        """
        required = {
            "hidden_size": "hidden_size",
            "layers": "num_hidden_layers",
            "heads": "num_attention_heads",
            "intermediate_size": "intermediate_size",
            "conv_channels": "conv_dim",
            "conv_kernels": "conv_kernel",
            "conv_strides": "conv_stride",
            "conv_bias": "conv_bias",
            "stem_norm": "feat_extract_norm",
            "stable_layer_norm": "do_stable_layer_norm",
            "position_kernel": "num_conv_pos_embeddings",
            "position_groups": "num_conv_pos_embedding_groups",
            "layer_norm_eps": "layer_norm_eps",
        }
        fixed = {"hidden_act": "gelu", "feat_extract_activation": "gelu"}
        younger = {"conv_pos_batch_norm": False, "model_type": "hubert"}
        missing = [key for key in (*required.values(), *fixed) if key not in config]
        if missing:
            raise UserError(f"HuBERT config.json lacks {', '.join(missing)}: is it the config of a HuBERT model?")
        for key, supported in {**fixed, **younger}.items():
            if config.get(key, supported) != supported:
                raise UserError(f"HuBERT config.json has {key} = {config[key]!r}; only {supported!r} is supported")
        if preprocessor is not None and preprocessor.get("sampling_rate", 16000) != 16000:
            raise UserError(f"HuBERT takes 16000 Hz, preprocessor_config.json says {preprocessor['sampling_rate']}")
        values = {ours: config[theirs] for ours, theirs in required.items()}
        values = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in values.items()}
        return cls(
            **values,
            projection_layer_norm=bool(config.get("feat_proj_layer_norm", True)),
            normalize_waveform=bool((preprocessor or {}).get("do_normalize", True)),
        )
