"""The sync expert: do these mouths belong to this sound? A visual tower and one of two audio towers.

The paper trains a sync network and publishes half of it, the audio encoder inside Audio2Exp. Here both halves are
trained together on short clips, so that the frozen audio half is what Audio2Exp consumes (`audio_encoder` has the same
structure and names in both bundles). The visual half is ours: nobody has published one. Or the expert hears Wav2Lip's
mel spectrogram (`ctjax.features.mel`), which needs no speech network.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float

from ctjax.motion.audio2exp import Audio2ExpConfig, AudioEncoder
from ctjax.nn.module import Network, Params

GROUPS = 8
INITIAL_SCALE = 10.0  # CLIP's and SigLIP's starting point: the logits of a similarity of 1
MAX_SCALE = 100.0
NORM_FLOOR = 1e-8  # eq. 5's epsilon
Sound = Literal["hubert", "mel"]
MEL_MAX_ABS = 4.0  # of `ctjax.features.mel`, which this package does not import


@dataclass(frozen=True)
class MelTowerConfig:
    """An audio tower on `steps` steps of the mel spectrogram's `bands`: 16 steps are Wav2Lip's fifth of a second, as
    long as its five frames. widths: channels of its stages, each halving both sides."""

    steps: int = 16
    bands: int = 80
    widths: tuple[int, ...] = (32, 64, 128, 256)
    embedding: int = 512


@dataclass(frozen=True)
class SyncExpertConfig:
    """frames: mouths a clip. crop: their side in pixels. widths: channels of the visual tower's stages, each halving
    the side. audio: the encoder of feature windows, whose last width is the common embedding's. mel: where given, the
    expert hears the mel spectrogram, and there is no such encoder."""

    frames: int = 5
    crop: int = 96
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    audio: Audio2ExpConfig = field(default_factory=Audio2ExpConfig)
    mel: MelTowerConfig | None = None

    @property
    def hears(self) -> Sound:
        return "mel" if self.mel else "hubert"

    @property
    def embedding(self) -> int:
        return self.mel.embedding if self.mel else self.audio.widths[-1]

    def __post_init__(self) -> None:
        if self.crop % 2 ** len(self.widths):
            raise ValueError(f"crop {self.crop} must divide by 2 ** {len(self.widths)}, the number of widths")
        for widths in (self.widths, self.mel.widths if self.mel else ()):
            if any(width % GROUPS for width in widths):
                raise ValueError(f"widths {widths} must be multiples of {GROUPS}")


class Stage(nnx.Module):
    """Halves the sides, then one residual block. Group norm: no batch statistics, the same on any number of devices."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.down = nnx.Conv(inputs, outputs, (3, 3), strides=2, padding=1, rngs=rngs)
        self.norm_down = nnx.GroupNorm(outputs, num_groups=GROUPS, epsilon=1e-5, rngs=rngs)
        self.conv = nnx.Conv(outputs, outputs, (3, 3), padding=1, rngs=rngs)
        self.norm = nnx.GroupNorm(outputs, num_groups=GROUPS, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ _"]:
        x = jax.nn.relu(self.norm_down(self.down(x)))
        return jax.nn.relu(x + self.norm(self.conv(x)))


class VisualTower(nnx.Module):
    """Mouths of consecutive frames, stacked on channels, to one embedding."""

    def __init__(self, config: SyncExpertConfig, *, rngs: nnx.Rngs):
        widths = (3 * config.frames, *config.widths)
        self.stages = nnx.List([Stage(i, o, rngs=rngs) for i, o in itertools.pairwise(widths)])
        side = config.crop // 2 ** len(config.widths)
        self.project = nnx.Linear(side * side * config.widths[-1], config.embedding, rngs=rngs)

    def __call__(self, mouths_01: Float[Array, "b t h w 3"]) -> Float[Array, "b e"]:
        b, t, h, w, c = mouths_01.shape
        x = jnp.moveaxis(mouths_01, 1, 3).reshape(b, h, w, t * c) * 2.0 - 1.0
        for stage in self.stages:
            x = stage(x)
        return self.project(x.reshape(b, -1))


class MelTower(nnx.Module):
    """A window of the mel spectrogram to one embedding."""

    def __init__(self, config: MelTowerConfig, *, rngs: nnx.Rngs):
        self.stages = nnx.List([Stage(i, o, rngs=rngs) for i, o in itertools.pairwise((1, *config.widths))])
        steps, bands = (-(-side // 2 ** len(config.widths)) for side in (config.steps, config.bands))
        self.project = nnx.Linear(steps * bands * config.widths[-1], config.embedding, rngs=rngs)

    def __call__(self, window: Float[Array, "b l m"]) -> Float[Array, "b e"]:
        x = window[..., None] / MEL_MAX_ABS
        for stage in self.stages:
            x = stage(x)
        return self.project(x.reshape(window.shape[0], -1))


class Towers(nnx.Module):
    """Both halves and the logit's scale (as a logarithm) and bias."""

    def __init__(self, config: SyncExpertConfig, *, rngs: nnx.Rngs):
        self.visual = VisualTower(config, rngs=rngs)
        if config.mel:
            self.mel = MelTower(config.mel, rngs=rngs)
        else:
            self.audio_encoder = AudioEncoder(config.audio, rngs=rngs)
        self.log_scale = nnx.Param(jnp.log(jnp.float32(INITIAL_SCALE)))
        self.bias = nnx.Param(jnp.float32(-INITIAL_SCALE / 2))


class SyncExpert(Network):
    """Pure functions of `params`. Embeddings are float32 of length 1, so that their product is eq. 5's cosine."""

    def __init__(self, config: SyncExpertConfig):
        super().__init__(lambda rngs: Towers(config, rngs=rngs))
        self.config = config

    def embed_mouths(self, params: Params, mouths_01: Float[Array, "b t h w 3"]) -> Float[Array, "b e"]:
        """`config.frames` mouths of `config.crop` pixels, RGB in [0, 1]."""
        return unit_length(self.bind(params).visual(mouths_01))

    def embed_sound(self, params: Params, windows: Float[Array, "b l c"]) -> Float[Array, "b e"]:
        """The window that begins with the first of the frames: HuBERT steps "l c", or mel steps "l bands"."""
        towers = self.bind(params)
        return unit_length((towers.mel if self.config.mel else towers.audio_encoder)(windows))

    @staticmethod
    def logit(params: Params, cosine: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Log-odds that sound and mouths belong together, as the expert was trained to give them."""
        return scale(params) * cosine + params["bias"]


def scale(params: Params) -> Array:
    """The logit's scale, limited so that it cannot run away on a small set."""
    return jnp.minimum(jnp.exp(params["log_scale"]), MAX_SCALE)


def unit_length(x: Float[Array, "*b e"]) -> Float[Array, "*b e"]:
    """Embeddings of length 1, float32."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), NORM_FLOOR))


def info_nce(
    mouths: Float[Array, "n e"], sounds: Float[Array, "n e"], scale: Array, too_near: Bool[Array, "n n"]
) -> Float[Array, " n"]:
    """Cross-entropy of finding each one's partner among all, both ways, for each pair.

    too_near: pairs that are no fair negatives (overlapping windows of one clip); the diagonal is not looked at.
    """
    count = len(mouths)
    same = jnp.eye(count, dtype=bool)
    # precision: the TF32 and bfloat16 products of accelerators would blur a scale of up to 100
    logits = scale * jnp.matmul(mouths, sounds.T, precision="highest")
    logits = jnp.where(too_near & ~same, -jnp.inf, logits)
    targets = jnp.arange(count)
    by_mouth = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    by_sound = optax.softmax_cross_entropy_with_integer_labels(logits.T, targets)
    return (by_mouth + by_sound) / 2


def paired_bce(positive_logit: Float[Array, " n"], negative_logit: Float[Array, " n"]) -> Float[Array, " n"]:
    """Binary cross-entropy of one true and one false pair each."""
    return (jax.nn.softplus(-positive_logit) + jax.nn.softplus(negative_logit)) / 2
