"""HuBERT: 16 kHz sound to 50 feature steps a second, in both published builds.

The large ones normalise every convolution over channels and put layer norm before each sub-layer ("stable"); the base
one normalises the first convolution only, per channel over time, and puts layer norm after. Attributes carry the
names of Hugging Face checkpoints (`HubertModel`), the sound's axis is last but one (b, l, c).

Two departures from the reference, both about padding: with `lengths`, statistics over time leave the padding out, so
that a padded clip gives what the bare clip gives (the reference masks attention only), and `EncoderLayer` and
`PositionalConvolution` are split so that `ctjax.features.extract` can run them in blocks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ctjax.nn.module import Network
from ctjax.types import UserError

CONV_NORM_EPS = 1e-5  # torch's default, which the convolutions use whatever layer_norm_eps says
WAVEFORM_EPS = 1e-7  # transformers Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm
MASKED = -1e30  # finite, so that a row without any key stays a number


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


class HubertOutput(NamedTuple):
    """`hidden_states`: the encoder's input, then each layer's output, `layers + 1` in all; the last one is
    `last_hidden_state` (in the stable build after the final layer norm, as in transformers)."""

    last_hidden_state: Float[Array, "b l c"]
    hidden_states: tuple[Float[Array, "b l c"], ...]


def gelu(x):
    """The exact, erf form."""
    return jax.nn.gelu(x, approximate=False)


def _layer_norm(width: int, eps: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, rngs=rngs)


class TimeStatistics(NamedTuple):
    """Mean and variance over time of each channel of the first convolution, float32."""

    mean: Float[Array, "b 1 c"]
    variance: Float[Array, "b 1 c"]


class ChannelNorm(nnx.Module):
    """Normalises each channel over time: torch's group norm with one group per channel."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    @staticmethod
    def statistics(x: Float[Array, "b l c"], mask: Bool[Array, "b l"] | None = None) -> TimeStatistics:
        x = x.astype(jnp.float32)
        where = None if mask is None else mask[..., None]
        mean = jnp.mean(x, axis=1, keepdims=True, where=where)
        return TimeStatistics(mean, jnp.mean((x - mean) ** 2, axis=1, keepdims=True, where=where))

    def __call__(self, x: Float[Array, "b l c"], statistics: TimeStatistics) -> Float[Array, "b l c"]:
        gain = jax.lax.rsqrt(statistics.variance + CONV_NORM_EPS) * self.scale[...]
        return ((x - statistics.mean) * gain + self.bias[...]).astype(x.dtype)


class ConvolutionLayer(nnx.Module):
    def __init__(self, config: HubertConfig, index: int, *, rngs: nnx.Rngs):
        channels = config.conv_channels[index]
        self.conv = nnx.Conv(
            config.conv_channels[index - 1] if index else 1,
            channels,
            config.conv_kernels[index],
            strides=config.conv_strides[index],
            padding="VALID",
            use_bias=config.conv_bias,
            rngs=rngs,
        )
        if config.stem_norm == "layer":
            self.layer_norm = _layer_norm(channels, CONV_NORM_EPS, rngs)
        elif index == 0:
            self.layer_norm = ChannelNorm(channels, rngs=rngs)
        else:
            self.layer_norm = None

    def __call__(
        self,
        x: Float[Array, "b n i"],
        *,
        mask: Bool[Array, "b l"] | None = None,
        statistics: TimeStatistics | None = None,
    ) -> Float[Array, "b l o"]:
        """`mask` (valid outputs) or ready `statistics` matter to the norm over time only."""
        x = self.conv(x)
        if isinstance(self.layer_norm, ChannelNorm):
            x = self.layer_norm(x, ChannelNorm.statistics(x, mask) if statistics is None else statistics)
        elif self.layer_norm is not None:
            x = self.layer_norm(x)
        return gelu(x)


class FeatureExtractor(nnx.Module):
    """The convolutional stem: 400 samples to a step, 320 samples from step to step."""

    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.conv_layers = nnx.List(
            [ConvolutionLayer(config, index, rngs=rngs) for index in range(len(config.conv_channels))]
        )

    def first_convolution(self, waveform: Float[Array, "b s"]) -> Float[Array, "b n c"]:
        """What the group norm's statistics are taken of."""
        return self.conv_layers[0].conv(self._input(waveform))

    def _input(self, waveform):
        return waveform[..., None].astype(self.conv_layers[0].conv.kernel[...].dtype)

    def __call__(
        self,
        waveform: Float[Array, "b s"],
        *,
        lengths: Int[Array, " b"] | None = None,
        statistics: TimeStatistics | None = None,
    ) -> Float[Array, "b l c"]:
        mask = None
        if lengths is not None:
            mask = _valid(self.config.positions(waveform.shape[1], 1), self.config.positions(lengths, 1))
        first, *rest = self.conv_layers
        x = first(self._input(waveform), mask=mask, statistics=statistics)
        for layer in rest:
            x = layer(x)
        return x


class FeatureProjection(nnx.Module):
    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        width = config.conv_channels[-1]
        self.layer_norm = _layer_norm(width, config.layer_norm_eps, rngs) if config.projection_layer_norm else None
        self.projection = nnx.Linear(width, config.hidden_size, rngs=rngs)

    def __call__(self, x: Float[Array, "b l i"]) -> Float[Array, "b l c"]:
        return self.projection(x if self.layer_norm is None else self.layer_norm(x))


class PositionalConvolution(nnx.Module):
    """Grouped convolution over time whose output is added to its input as the positions' embedding.

    The kernel is stored folded; checkpoints hold it as a direction and one gain per kernel position (weight norm).
    """

    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.before = config.position_kernel // 2
        self.after = config.position_kernel - 1 - self.before  # an even kernel's surplus last step is dropped
        self.conv = nnx.Conv(
            config.hidden_size,
            config.hidden_size,
            config.position_kernel,
            padding="VALID",
            feature_group_count=config.position_groups,
            rngs=rngs,
        )

    def of_context(self, x: Float[Array, "b n c"]) -> Float[Array, "b l c"]:
        """Embeddings of the steps that have `before` and `after` steps of context within `x`."""
        return gelu(self.conv(x))

    def __call__(self, x: Float[Array, "b l c"]) -> Float[Array, "b l c"]:
        return self.of_context(jnp.pad(x, ((0, 0), (self.before, self.after), (0, 0))))


class Attention(nnx.Module):
    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.heads = config.heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nnx.Linear(config.hidden_size, config.hidden_size, rngs=rngs) for _ in range(4)
        )

    def queries(self, x: Float[Array, "b l c"]) -> Float[Array, "b l h d"]:
        """Scaled by 1 / sqrt(d)."""
        q = self._heads(self.q_proj(x))
        return q * (q.shape[-1] ** -0.5)

    def keys_values(self, x: Float[Array, "b l c"]) -> tuple[Float[Array, "b l h d"], Float[Array, "b l h d"]]:
        return self._heads(self.k_proj(x)), self._heads(self.v_proj(x))

    def project(self, values: Float[Array, "b l h d"]) -> Float[Array, "b l c"]:
        return self.out_proj(values.reshape(*values.shape[:2], -1))

    def __call__(self, x: Float[Array, "b l c"], mask: Bool[Array, "b l"] | None = None) -> Float[Array, "b l c"]:
        q = self.queries(x)
        k, v = self.keys_values(x)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32)
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, MASKED)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        return self.project(jnp.einsum("bhqk,bkhd->bqhd", weights, v))

    def _heads(self, x):
        return x.reshape(*x.shape[:2], self.heads, -1)


class FeedForward(nnx.Module):
    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.intermediate_dense = nnx.Linear(config.hidden_size, config.intermediate_size, rngs=rngs)
        self.output_dense = nnx.Linear(config.intermediate_size, config.hidden_size, rngs=rngs)

    def __call__(self, x):
        return self.output_dense(gelu(self.intermediate_dense(x)))


class EncoderLayer(nnx.Module):
    """Attention and feed-forward, with layer norm before each (stable) or after each."""

    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.stable = config.stable_layer_norm
        self.attention = Attention(config, rngs=rngs)
        self.layer_norm = _layer_norm(config.hidden_size, config.layer_norm_eps, rngs)
        self.feed_forward = FeedForward(config, rngs=rngs)
        self.final_layer_norm = _layer_norm(config.hidden_size, config.layer_norm_eps, rngs)

    def attention_input(self, x):
        return self.layer_norm(x) if self.stable else x

    def after_attention(self, x, attended):
        """The rest of the layer, given its input and the attention's output."""
        if self.stable:
            x = x + attended
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + attended)
        return self.final_layer_norm(x + self.feed_forward(x))

    def __call__(self, x: Float[Array, "b l c"], mask: Bool[Array, "b l"] | None = None) -> Float[Array, "b l c"]:
        return self.after_attention(x, self.attention(self.attention_input(x), mask))


class Encoder(nnx.Module):
    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.stable = config.stable_layer_norm
        self.pos_conv_embed = PositionalConvolution(config, rngs=rngs)
        self.layer_norm = _layer_norm(config.hidden_size, config.layer_norm_eps, rngs)
        self.layers = nnx.List([EncoderLayer(config, rngs=rngs) for _ in range(config.layers)])

    def first_input(self, x, positions):
        """The first layer's input from projected features and positional embeddings."""
        return x + positions if self.stable else self.layer_norm(x + positions)

    def last_output(self, x):
        return self.layer_norm(x) if self.stable else x

    def __call__(
        self, x: Float[Array, "b l c"], mask: Bool[Array, "b l"] | None = None
    ) -> tuple[Float[Array, "b l c"], ...]:
        """Hidden states, `layers + 1` of them."""
        if mask is not None:
            x = jnp.where(mask[..., None], x, 0)
        x = self.first_input(x, self.pos_conv_embed(x))
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], mask))
        states[-1] = self.last_output(states[-1])
        return tuple(states)


class Hubert(nnx.Module):
    def __init__(self, config: HubertConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.feature_extractor = FeatureExtractor(config, rngs=rngs)
        self.feature_projection = FeatureProjection(config, rngs=rngs)
        self.encoder = Encoder(config, rngs=rngs)

    def __call__(self, waveform: Float[Array, "b s"], lengths: Int[Array, " b"] | None = None) -> HubertOutput:
        """Features of normalised 16 kHz sound (`normalize_waveforms`), computed in the parameters' dtype.

        `lengths`: true samples of each row of a padded batch, at least `config.receptive_field`. Steps past
        `config.steps(length)` are undefined.
        """
        features = self.feature_projection(self.feature_extractor(waveform, lengths=lengths))
        mask = None
        if lengths is not None:
            mask = _valid(features.shape[1], self.config.positions(lengths))
        states = self.encoder(features, mask)
        return HubertOutput(states[-1], states)


def _valid(size: int, lengths: Int[Array, " b"]) -> Bool[Array, "b l"]:
    return jnp.arange(size) < lengths[:, None]


@functools.cache
def network(config: HubertConfig) -> Network:
    return Network(lambda rngs: Hubert(config, rngs=rngs))


def normalize_waveforms(waves: Sequence[np.ndarray], *, masked: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Clips of any lengths as one zero-padded float32 batch "b s" of zero mean and unit variance, and their lengths.

    `masked`: each clip is normalised over its own samples. Otherwise padding comes first and counts in the
    statistics, as in transformers' feature extractor with `return_attention_mask=False`.
    """
    lengths = np.array([len(wave) for wave in waves], np.int64)
    batch = np.zeros((len(waves), lengths.max()), np.float32)
    for row, wave in zip(batch, waves, strict=True):
        row[: len(wave)] = wave
        counted = row[: len(wave)] if masked else row
        counted[:] = (counted - counted.mean()) / np.sqrt(counted.var() + WAVEFORM_EPS)
    return batch, lengths
