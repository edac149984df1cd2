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
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from ctjax.features.attention import MASKED
from ctjax.features.hubert_config import HubertConfig
from ctjax.nn.module import Network

CONV_NORM_EPS = 1e-5  # torch's default, which the convolutions use whatever layer_norm_eps says
WAVEFORM_EPS = 1e-7  # transformers Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm


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
