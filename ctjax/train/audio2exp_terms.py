"""What Audio2Exp's training renders of a batch, and how that is judged (paper eq. 3 to 6).

    terms = Audio2ExpTerms(config, renderer=..., audio2exp=..., expert=..., vgg19=..., hears_as_expert=...)
    losses = terms.of_batch(params, frozen, batch, alpha, silent_alpha)

Pure functions, to be called inside `jax.jit`; `params` and `frozen` as `ctjax.train.audio2exp_step` has them. What
alpha does not change of a batch (`Encoded`) is computed once, however often the batch is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctjax import animate
from ctjax.losses import total
from ctjax.losses.experts import Expert
from ctjax.losses.masked_perceptual import masked_perceptual, masked_pixels
from ctjax.losses.mouth import mouth_mask
from ctjax.losses.sync_expert import unit_length
from ctjax.motion.audio2exp import Audio2Exp
from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.renderer import Renderer
from ctjax.types import HeadPose

if TYPE_CHECKING:
    from ctjax.train.audio2exp_step import Audio2ExpTraining

Batch = Mapping[str, Any]
Alpha = jax.Array | float
FRAME_FIELDS = ("source_u8", "canonical", *HeadPose._fields)


class Heard(NamedTuple):
    """Embeddings of what Audio2Exp hears: of every frame's speech "b t e", of silence "1 e"."""

    speech: jax.Array
    silence: jax.Array


class Encoded(NamedTuple):
    """What alpha does not change of a batch. source: the renderer's encoding of every frame; sounds: embeddings of
    the sound for the sync expert, "b s e" float32, of every run of its frames."""

    heard: Heard
    source: Any
    sounds: jax.Array


class Audio2ExpTerms:
    """vgg19: None where differences of pixels stand in for features. hears_as_expert: whether Audio2Exp's audio encoder
    is frozen and the expert's own, to the bit."""

    def __init__(
        self,
        config: Audio2ExpTraining,
        *,
        renderer: Renderer,
        audio2exp: Audio2Exp,
        expert: Expert,
        vgg19: Any | None,
        hears_as_expert: bool,
    ):
        self.renderer, self.audio2exp, self.expert, self.vgg19 = renderer, audio2exp, expert, vgg19
        self._config, self._hears_as_expert, self._dtype = config, hears_as_expert, jnp.dtype(config.compute)

    def of_batch(
        self, params: Any, frozen: Any, batch: Batch, alpha: Alpha, silent_alpha: Alpha
    ) -> dict[str, jax.Array]:
        """The terms of the loss for each example, "b" float32, before any weight. silent_alpha: a number or "b".

        Where no term looks at pictures nothing is rendered, and a step costs next to nothing."""
        config, weights = self._config, self._config.weights
        heard = self.heard(params, frozen, batch)
        terms = {"expression": self.expression_distance(params, frozen, heard, batch)} if weights.expression else {}
        if weights.looks_at_pictures:
            encoded = self.encoded(frozen, heard, batch)  # outside of remat: no gradient goes to the source's encoding
            edit, judge = self.edited, self.judge
            if config.remat != "nothing":
                edit = jax.checkpoint(edit)
            if config.remat == "everything":
                judge = jax.checkpoint(judge)
            output_01, delta = edit(params, frozen, encoded, batch, alpha, silent_alpha)
            terms |= judge(frozen, output_01, encoded.sounds, batch)
        elif weights.anchor or weights.smoothness:
            _, delta = self.moved(params, frozen, heard, batch, alpha, silent_alpha)
        if weights.anchor:
            terms["anchor"] = total.anchor(delta)
        if weights.smoothness:
            terms["smoothness"] = total.smoothness(delta)
        return terms

    def heard(self, params: Any, frozen: Any, batch: Batch) -> Heard:
        """What Audio2Exp hears in the batch."""
        b, t = batch["hubert"].shape[:2]
        whole, windows = self.whole(params, frozen), batch["hubert"].astype(self._dtype)
        speech = self.audio2exp.embed(whole, windows.reshape(b * t, *windows.shape[2:])).reshape(b, t, -1)
        if self._config.train_audio_encoder:
            return Heard(speech, self.audio2exp.embed(whole, frozen["silence"]))
        return Heard(speech, frozen["silence"])

    def encoded(self, frozen: Any, heard: Heard, batch: Batch) -> Encoded:
        """All that rendering and judging need and alpha does not change."""
        flat, pose = _by_frame(batch)
        source_01 = (flat["source_u8"].astype(jnp.float32) / 255.0).astype(self._dtype)
        renderer = {"renderer": frozen["renderer"]}
        source = animate.encode(self.renderer, renderer, source_01, flat["canonical"], pose)
        return Encoded(heard, source, self.sounds(frozen, heard, batch))

    def sounds(self, frozen: Any, heard: Heard, batch: Batch) -> jax.Array:
        """Embeddings of the sound that begins with every run of the expert's frames, "b s e" float32."""
        sound = batch[self.expert.hears]
        b, runs = sound.shape[0], sound.shape[1] - self.expert.frames + 1
        if self._hears_as_expert:  # the same encoder has heard the same windows
            return unit_length(heard.speech[:, :runs])
        windows = sound[:, :runs].reshape(b * runs, *sound.shape[2:]).astype(self._dtype)
        return self.expert.embed_sound(frozen["expert"], windows).reshape(b, runs, -1)

    def expression_distance(self, params: Any, frozen: Any, heard: Heard, batch: Batch) -> jax.Array:
        """How far the expression is from the filmed one, after silence and after the speech that follows it, both at
        full strength, "b"."""
        b, t = batch["expression"].shape[:2]
        filmed, speech = (x.reshape(b * t, *x.shape[2:]) for x in (batch["expression"], heard.speech))
        params = self.whole(params, frozen)
        closed = self.audio2exp.edit(params, heard.silence, filmed, 1.0)
        spoken = self.audio2exp.edit(params, speech, closed, 1.0)
        closed, spoken = (x.reshape(b, t, *x.shape[1:]) for x in (closed, spoken))
        silence = jnp.broadcast_to(batch["silent_expression"][:, None], closed.shape)
        how = {
            "source": batch["expression"],
            "moving": self._config.expression_keypoints,
            "pairs": self._config.expression_pairs,
        }
        return total.known_expression(closed, silence, batch["silent_known"], **how) + total.known_expression(
            spoken, batch["spoken_expression"], batch["spoken_known"], **how
        )

    def edited(
        self, params: Any, frozen: Any, encoded: Encoded, batch: Batch, alpha: Alpha, silent_alpha: Alpha
    ) -> tuple[jax.Array, jax.Array]:
        """Rendered frames "b t h w 3" in [0, 1] and the change of the expression "b t k 3"."""
        moved, delta = self.moved(params, frozen, encoded.heard, batch, alpha, silent_alpha)
        output_01 = self.renderer.drive(frozen["renderer"], encoded.source, moved)
        return output_01.reshape(*delta.shape[:2], *output_01.shape[1:]), delta

    def moved(
        self, params: Any, frozen: Any, heard: Heard, batch: Batch, alpha: Alpha, silent_alpha: Alpha
    ) -> tuple[jax.Array, jax.Array]:
        """The speaking faces' keypoints "b*t k 3" and the change of the expression "b t k 3"."""
        b, t = heard.speech.shape[:2]
        flat, pose = _by_frame(batch)
        moved = animate.animated_keypoints(
            self.audio2exp,
            self.whole(params, frozen),
            flat["canonical"],
            pose,
            heard.speech.reshape(b * t, -1),
            heard.silence,
            alpha,
            silence_alpha=jnp.repeat(jnp.broadcast_to(silent_alpha, (b,)), t),
        )
        # K' - K is the expression's change, since R Kc + T is in both (eq. 1 and 3)
        delta = moved - transform_keypoints(flat["canonical"], pose)
        return moved, delta.reshape(b, t, *delta.shape[1:])

    def judge(self, frozen: Any, output_01: jax.Array, sounds: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Perceptual and lip-sync loss of each example. sounds: as in `Encoded`."""
        b, t, h, w, _ = output_01.shape
        output_01 = output_01.reshape(b * t, h, w, 3)
        source_01 = batch["source_u8"].reshape(b * t, h, w, 3).astype(jnp.float32) / 255.0
        boxes = batch["boxes"].reshape(b * t, 4)
        mask = mouth_mask(boxes, h, w)
        if self.vgg19 is not None:
            images = (x.astype(self._dtype) for x in (output_01, source_01, mask))
            perceptual = masked_perceptual(self.vgg19.bind(frozen["vgg19"]), *images)
        else:
            perceptual = masked_pixels(output_01, source_01, mask)
        cosine = self.cosine(frozen, output_01.reshape(b, t, h, w, 3), sounds, batch)
        sync = self.expert.loss(frozen["expert"], cosine, self._config.expert.form)
        return {"perceptual": perceptual.reshape(b, t).mean(1), "sync": sync.mean(1)}

    def cosine(self, frozen: Any, frames_01: jax.Array, sounds: jax.Array, batch: Batch) -> jax.Array:
        """Similarity of every run of the expert's frames with the sound that begins there: "b s" float32."""
        b, t, h, w, _ = frames_01.shape
        length = self.expert.frames
        boxes = batch[self.expert.looks_at].reshape(b * t, 4)
        crops = self.expert.cut(frames_01.reshape(b * t, h, w, 3).astype(self._dtype), boxes)
        crops = crops.reshape(b, t, *crops.shape[1:])
        starts = np.arange(t - length + 1)
        runs = crops[:, starts[:, None] + np.arange(length)].reshape(b * len(starts), length, *crops.shape[2:])
        mouths = self.expert.embed_mouths(frozen["expert"], runs)
        return jnp.sum(mouths.reshape(sounds.shape) * sounds, -1)

    def whole(self, params: Any, frozen: Any) -> Any:
        """Audio2Exp's parameters, the trained and the frozen half together, in the dtype they compute in."""
        trained = jax.tree.map(lambda x: x.astype(self._dtype), params)
        if self._config.train_audio_encoder:
            return trained
        return {"audio_encoder": (frozen["expert"] if self._hears_as_expert else frozen)["audio_encoder"], **trained}


def _by_frame(batch: Batch) -> tuple[dict[str, jax.Array], HeadPose]:
    """What a batch says of each frame, "b t ..." as "b*t ...", and the poses among it."""
    flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items() if name in FRAME_FIELDS}
    return flat, HeadPose(*(flat[name] for name in HeadPose._fields))
