"""HuBERT features of sound of any length, equal to the whole-clip run, in memory that does not grow with the clip.

The sound is read in passes over short blocks. The convolutions and the positional embedding look at a bounded stretch,
so overlapping blocks give them exactly. Attention looks at the whole clip: each layer first makes the keys and values
of every block, then lets every block of queries see all of them (`ctjax.features.attention`). What is needed again lies
in a temporary file. The result differs from the network run at once by rounding only.

Work grows with the square of the clip through attention, as it does in one run: up to some two minutes it does not
show, for an hour it is many times the rest.
"""

from __future__ import annotations

import errno
import functools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from ctjax.features import attention
from ctjax.features.hubert import WAVEFORM_EPS, EncoderLayer, HubertConfig, TimeStatistics, network
from ctjax.nn.module import Network, Params
from ctjax.types import UserError

SAMPLE_RATE_HZ = 16000
BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)  # feature steps per block: 1.3 s to 82 s
STEM_STEPS = 512  # the convolutions' first outputs are 64 times as many as steps
SPOOL_BYTES = 64 << 20  # scratch files of up to this size stay in memory

Blocks = Callable[[], Iterable[np.ndarray]]  # gives the sound from its start, each time it is called


class Waveform(NamedTuple):
    """What normalisation needs to know of the whole clip."""

    samples: int
    mean: float
    variance: float


def measure(blocks: Blocks) -> Waveform:
    """One pass over a clip: float blocks "s" of 16 kHz mono sound. Raises UserError if there is none."""
    moments = _Moments()
    for block in blocks():
        if np.ndim(block) != 1:
            raise ValueError(f"sound comes in blocks of one axis, got shape {np.shape(block)}")
        if len(block):
            wide = np.asarray(block, np.float64)
            mean = wide.mean()
            moments.add(len(wide), mean, ((wide - mean) ** 2).sum())
    if not moments.count:
        raise UserError("the audio has no samples")
    return Waveform(moments.count, float(moments.mean), float(moments.variance))


class _Programs(NamedTuple):
    """The network in compiled pieces, one set per config; sizes are compiled as they occur."""

    stem_moments: Callable
    stem: Callable
    first_input: Callable
    keys_values: Callable
    queries: Callable
    attend: Callable
    after_attention: Callable
    last_output: Callable


@functools.cache
def _programs(config: HubertConfig) -> _Programs:
    hubert, layer = network(config), Network(lambda rngs: EncoderLayer(config, rngs=rngs))

    def stem_moments(params, samples, count):
        """Mean and squared spread of the first `count` positions of the first convolution."""
        x = hubert.bind(params).feature_extractor.first_convolution(samples)[0].astype(jnp.float32)
        valid = (jnp.arange(len(x)) < count)[:, None]
        mean = jnp.mean(x, axis=0, where=valid)
        return mean, jnp.sum((x - mean) ** 2, axis=0, where=valid)

    def stem(params, samples, statistics):
        module = hubert.bind(params)
        return module.feature_projection(module.feature_extractor(samples, statistics=statistics))

    def first_input(params, context):
        """The first layer's input of the steps that have the positional convolution's context on both sides."""
        encoder = hubert.bind(params).encoder
        positions = encoder.pos_conv_embed
        steps = context.shape[1] - positions.before - positions.after
        x = jax.lax.dynamic_slice_in_dim(context, positions.before, steps, axis=1)
        return encoder.first_input(x, positions.of_context(context))

    def keys_values(params, x):
        module = layer.bind(params)
        return module.attention.keys_values(module.attention_input(x))

    def queries(params, x):
        module = layer.bind(params)
        q = module.attention.queries(module.attention_input(x))
        return q, attention.start(q)

    def after_attention(params, x, state):
        module = layer.bind(params)
        return module.after_attention(x, module.attention.project(attention.finish(state).astype(x.dtype)))

    def last_output(params, x):
        return hubert.bind(params).encoder.last_output(x)

    pieces = (stem_moments, stem, first_input, keys_values, queries)
    attend = jax.jit(attention.attend, donate_argnums=0)
    return _Programs(*map(jax.jit, pieces), attend, jax.jit(after_attention), jax.jit(last_output))


class SpeechFeatures:
    """A HuBERT with its parameters.

    >>> clip = measure(blocks)
    >>> for chunk in speech_features.stream(blocks, clip):  # float32 "l c", 50 steps a second
    ...     ...

    dtype: what the network computes in. scratch_dir: for the temporary files of long clips (three numbers per step and
    channel: about 2.2 GB for an hour of HuBERT-large in float32), the system's default if None.
    """

    def __init__(self, config: HubertConfig, params: Params, *, dtype=jnp.float32, scratch_dir: str | None = None):
        self.config = config
        self._params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        self._dtype = jnp.dtype(dtype)
        self._scratch_dir = scratch_dir
        self._run = _programs(config)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Features of a clip in memory: float32 "l c", l = `steps(len(samples))`."""
        blocks = lambda: [samples]  # noqa: E731
        return np.concatenate(list(self.stream(blocks, measure(blocks))))

    def steps(self, samples: int) -> int:
        """Feature steps of a clip: at least one, as shorter sound is padded with silence to one receptive field."""
        return self.config.steps(max(samples, self.config.receptive_field))

    def stream(self, blocks: Blocks, clip: Waveform) -> Iterator[np.ndarray]:
        """Features in order, in chunks: float32 "l c", together `steps(clip.samples)` long.

        `blocks` is read once more (twice with the group-norm stem). The first chunk comes when all layers but the last
        are done. Raises UserError if the sound has changed since `clip` was measured or the scratch folder is full.
        """
        hidden = self._embed(blocks, clip)
        *layers, last = (self._params["encoder"]["layers"][i] for i in range(self.config.layers))
        for params in layers:
            for start, x in self._layer(params, hidden):
                hidden.write(start, x)
        for start, x in self._layer(last, hidden):
            output = self._run.last_output(self._params, self._device(x))
            yield np.asarray(output[0], np.float32)[: hidden.count - start]

    def _embed(self, blocks: Blocks, clip: Waveform) -> _Rows:
        """The first layer's input of every step."""
        statistics = self._stem_statistics(blocks, clip) if self.config.stem_norm == "group" else None
        projected, hidden = (self._rows(self.steps(clip.samples)) for _ in range(2))
        block = block_steps(hidden.count)
        stem_steps = min(block, STEM_STEPS)
        size, hop = self.config.samples(stem_steps), stem_steps * self.config.stride
        for index, samples in enumerate(self._normalised(blocks, clip, size, hop)):
            x = self._run.stem(self._params, samples[None], statistics)
            projected.write(index * stem_steps, np.asarray(x[0], np.float32))
        before = self.config.position_kernel // 2
        after = self.config.position_kernel - 1 - before
        for start in range(0, hidden.count, block):
            context = projected.read(start - before, start + block + after)
            x = self._run.first_input(self._params, self._device(context))
            hidden.write(start, np.asarray(x[0], np.float32))
        return hidden

    def _layer(self, params: Params, hidden: _Rows) -> Iterator[tuple[int, np.ndarray]]:
        """(first step, rows) of the layer's output, block after block; `hidden` may be overwritten as they come."""
        keys, values = (self._rows(hidden.count, self._dtype) for _ in range(2))
        block = block_steps(hidden.count)
        starts = range(0, hidden.count, block)
        for start in starts:
            x = self._device(hidden.read(start, start + block))
            for rows, computed in zip((keys, values), self._run.keys_values(params, x), strict=True):
                rows.write(start, np.asarray(computed).reshape(block, -1))
        for start in starts:
            x = self._device(hidden.read(start, start + block))
            queries, state = self._run.queries(params, x)
            for first in starts:
                k, v = (
                    jnp.asarray(rows.read(first, first + block).reshape(1, block, self.config.heads, -1))
                    for rows in (keys, values)
                )
                state = self._run.attend(state, queries, k, v, min(hidden.count - first, block))
            yield start, np.asarray(self._run.after_attention(params, x, state)[0], np.float32)

    def _stem_statistics(self, blocks: Blocks, clip: Waveform) -> TimeStatistics:
        """Mean and variance of the first convolution over the whole clip, per channel."""
        kernel, stride = self.config.conv_kernels[0], self.config.conv_strides[0]
        positions = self.config.positions(max(clip.samples, self.config.receptive_field), 1)
        at_once = STEM_STEPS * self.config.stride // stride
        moments = _Moments()
        size, hop = (at_once - 1) * stride + kernel, at_once * stride
        for index, samples in enumerate(self._normalised(blocks, clip, size, hop)):
            count = min(positions - index * at_once, at_once)
            if count > 0:
                mean, spread = self._run.stem_moments(self._params, samples[None], count)
                moments.add(count, np.asarray(mean, np.float64), np.asarray(spread, np.float64))
        shape = (1, 1, self.config.conv_channels[0])
        return TimeStatistics(*(jnp.asarray(x, jnp.float32).reshape(shape) for x in (moments.mean, moments.variance)))

    def _normalised(self, blocks: Blocks, clip: Waveform, size: int, hop: int) -> Iterator[np.ndarray]:
        """The clip's samples from 0, hop, 2 hop, ... on, `size` of them each, zeros after its end: float32."""
        mean, scale = 0.0, 1.0
        if self.config.normalize_waveform:
            mean, scale = clip.mean, 1 / np.sqrt(clip.variance + WAVEFORM_EPS)
        held, seen = np.zeros(0, np.float32), 0
        for block in blocks():
            seen += len(block)
            held = np.concatenate([held, ((np.asarray(block, np.float64) - mean) * scale).astype(np.float32)])
            while len(held) >= size:
                yield held[:size]
                held = held[hop:]
        if seen != clip.samples:
            raise UserError(f"the audio changed while it was read: {clip.samples} samples, then {seen}")
        while len(held):
            yield np.pad(held, (0, max(size - len(held), 0)))
            held = held[hop:]

    def _rows(self, count: int, dtype: npt.DTypeLike = np.float32) -> _Rows:
        return _Rows(count, self.config.hidden_size, dtype, self._scratch_dir)

    def _device(self, rows: np.ndarray) -> jax.Array:
        return jnp.asarray(rows, self._dtype)[None]


def block_steps(steps: int) -> int:
    """Feature steps per block for a clip: one block up to 512 steps (10 s), then a quarter of the clip or less.

    So at most a quarter of the work falls on padding, and clips of all lengths share seven compiled sizes.
    """
    if steps <= STEM_STEPS:
        return next(block for block in BLOCKS if block >= steps)
    return max(block for block in BLOCKS if block == STEM_STEPS or STEM_STEPS < block <= steps // 4)


class _Moments:
    """Count, mean and variance of values that come in parts (Chan's merge), in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self._spread = 0, np.float64(0.0), np.float64(0.0)

    def add(self, count: int, mean: np.ndarray | np.floating, spread: np.ndarray | np.floating) -> None:
        """`spread`: the sum of squared differences from `mean`."""
        total = self.count + count
        difference = mean - self.mean
        self._spread = self._spread + spread + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    @property
    def variance(self) -> np.ndarray | np.floating:
        return self._spread / self.count


class _Rows:
    """A table in a temporary file, which stays in memory while it is small and is gone with the object.

    Rows outside of [0, count) read as zeros and are not written.
    """

    def __init__(self, count: int, width: int, dtype: npt.DTypeLike, directory: str | None):
        self.count = count
        self._width, self._dtype = width, np.dtype(dtype)
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES, dir=directory)  # noqa: SIM115

    def write(self, start: int, rows: np.ndarray) -> None:
        kept = np.ascontiguousarray(rows[: max(self.count - start, 0)], self._dtype)
        try:
            self._seek(start)
            self._file.write(kept.tobytes())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    "no room for the temporary files of speech features: free some space in the temporary folder or "
                    "choose another one with TMPDIR"
                ) from None
            raise

    def read(self, start: int, stop: int) -> np.ndarray:
        first, last = max(start, 0), min(stop, self.count)
        self._seek(first)
        data = self._file.read((last - first) * self._width * self._dtype.itemsize)
        inside = np.frombuffer(data, self._dtype).reshape(last - first, self._width)
        return np.pad(inside, ((first - start, stop - last), (0, 0)))

    def _seek(self, row: int) -> None:
        self._file.seek(row * self._width * self._dtype.itemsize)
