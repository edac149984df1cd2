"""Audio2Exp: how the mouth deforms with a window of speech features (paper eq. 3, E' = E + alpha dE).

    audio2exp = Audio2Exp(config)
    speech, silence = (audio2exp.embed(params, window) for window in (speech_windows, silence_window))
    expression = audio2exp.silence_then_speech(params, speech, silence, expression, alpha)

`params` has two parts: `audio_encoder`, a frozen stack of projection heads taken from a sync network, and `out_fc`,
the trainable linear layer, which starts at zero. Each method reads only the part it needs, so that either may be kept
and differentiated by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.nn.conv import linear
from ctjax.nn.module import Network, Params

LAYER_NORM_EPS = 1e-5
AXES = 3  # x, y, z


@dataclass(frozen=True)
class Audio2ExpConfig:
    """`steps` feature steps of `channels` each; `widths`: outputs of the four projection heads, the last one the
    embedding's. The released network has the defaults."""

    steps: int = 18
    channels: int = 1024
    widths: tuple[int, int, int, int] = (2048, 1024, 512, 1024)
    num_kp: int = 15


class ProjectionHead(nnx.Module):
    """Linear, then a residual branch of exact GELU and a second linear, then layer norm (ControlTalk model.py:12-28).

    The reference's dropout is active in training only, and there the frozen encoder is in evaluation mode.
    """

    def __init__(self, inputs: int, width: int, *, rngs: nnx.Rngs):
        self.projection = linear(inputs, width, rngs=rngs)
        self.fc = linear(width, width, rngs=rngs)
        self.layer_norm = nnx.LayerNorm(width, epsilon=LAYER_NORM_EPS, use_fast_variance=False, rngs=rngs)

    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        projected = self.projection(x)
        return self.layer_norm(projected + self.fc(jax.nn.gelu(projected, approximate=False)))


class AudioEncoder(nnx.Module):
    """A window of feature steps, flattened time-major, to one embedding (ControlTalk model.py:31-48, 81).

    Computes in the dtype of its parameters.
    """

    def __init__(self, config: Audio2ExpConfig, *, rngs: nnx.Rngs):
        inputs = (config.steps * config.channels, *config.widths[:-1])
        heads = (ProjectionHead(i, o, rngs=rngs) for i, o in zip(inputs, config.widths, strict=True))
        self.fc1, self.fc2, self.fc3, self.fc4 = heads

    def __call__(self, window: Float[Array, "b l c"]) -> Float[Array, "b e"]:
        x = window.reshape(window.shape[0], -1).astype(self.fc1.projection.kernel[...].dtype)
        for head in (self.fc1, self.fc2, self.fc3, self.fc4):
            x = head(x)
        return x


def _zero_layer(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """The paper's zero module (section 3): training starts from the unchanged expression."""
    zeros = nnx.initializers.zeros
    return nnx.Linear(inputs, outputs, kernel_init=zeros, bias_init=zeros, rngs=rngs)


class Audio2Exp:
    """Pure functions of `params`, to be called inside `jax.jit`. Expressions keep their dtype."""

    def __init__(self, config: Audio2ExpConfig):
        self.config = config
        outputs = AXES * config.num_kp
        self.audio_encoder = Network(lambda rngs: AudioEncoder(config, rngs=rngs))
        self.out_fc = Network(lambda rngs: _zero_layer(outputs + config.widths[-1], outputs, rngs))

    @property
    def abstract(self) -> Params:
        """The parameter tree as `jax.ShapeDtypeStruct` leaves."""
        return {"audio_encoder": self.audio_encoder.abstract, "out_fc": self.out_fc.abstract}

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; `out_fc` is zero whatever the key."""
        return {"audio_encoder": self.audio_encoder.init(key), "out_fc": self.out_fc.init(key)}

    def embed(self, params: Params, window: Float[Array, "b l c"]) -> Float[Array, "b e"]:
        """The frozen half: embeddings of feature windows; they may be kept, nothing trainable stands before them."""
        return self.audio_encoder.bind(params["audio_encoder"])(window)

    def delta(
        self, params: Params, embedding: Float[Array, "#b e"], expression: Float[Array, "#b k 3"]
    ) -> Float[Array, "b k 3"]:
        """The trainable half: the change dE of an expression at alpha = 1."""
        batch = max(embedding.shape[0], expression.shape[0])
        # The expression goes in coordinate by coordinate (all x, all y, all z) but comes out keypoint by keypoint
        # (ControlTalk model.py:75-90).
        coordinates = expression.swapaxes(1, 2).reshape(expression.shape[0], -1)
        parts = [jnp.broadcast_to(x, (batch, x.shape[1])) for x in (coordinates, embedding)]
        delta = self.out_fc.bind(params["out_fc"])(jnp.concatenate(parts, axis=-1))
        return delta.reshape(batch, *expression.shape[1:]).astype(expression.dtype)

    def edit(
        self,
        params: Params,
        embedding: Float[Array, "#b e"],
        expression: Float[Array, "#b k 3"],
        alpha: float | Array,
    ) -> Float[Array, "b k 3"]:
        """E + alpha dE (eq. 3) from an embedding; alpha is one number or one per example ("b"). A batch of one, on
        either side, serves the other's batch."""
        delta = self.delta(params, embedding, expression)
        return expression + _per_example(alpha, delta) * delta

    def silence_then_speech(
        self,
        params: Params,
        speech: Float[Array, "#b e"],
        silence: Float[Array, "#b e"],
        expression: Float[Array, "#b k 3"],
        alpha: float | Array,
        *,
        silence_alpha: float | Array = 1.0,
    ) -> Float[Array, "b k 3"]:
        """First the mouth is closed by silence, then opened by speech (ControlTalk inference.py:345-346).

        speech, silence: embeddings; one silence for all (a batch of one) or one each. The released training passes
        the same alpha twice (model.py:111-115), its inference 1 for silence.
        """
        closed = self.edit(params, silence, expression, silence_alpha)
        return self.edit(params, speech, closed, alpha)


def _per_example(alpha: float | Array, like: Float[Array, "b k 3"]) -> Array:
    alpha = jnp.asarray(alpha, like.dtype)
    if alpha.ndim > 1:
        raise ValueError(f"alpha is a number or one per example, not of shape {alpha.shape}")
    return alpha[:, None, None] if alpha.ndim else alpha
