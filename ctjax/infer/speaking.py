"""The compiled functions of inference: a chunk of frames in, a chunk of frames out, on all local devices.

Every function takes chunks of one fixed size, so each is compiled once per picture size. Parameters and everything
that does not change from chunk to chunk stay on the devices; what travels is uint8 pictures and feature windows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ctjax import parallel
from ctjax.animate import animate, encode
from ctjax.motion.audio2exp import Audio2Exp
from ctjax.nn.module import Params
from ctjax.types import HeadPose

Pictures = UInt8[Array, "n h w 3"]
Embedding = Float[Array, "1 e"]


class Still(NamedTuple):
    """A source picture on the devices, encoded once: batch of one each."""

    source: Any
    canonical: Float[Array, "1 k 3"]
    head_pose: HeadPose


class Chunk(NamedTuple):
    """What changes from frame to frame besides pictures, in chunks of n. speech: feature windows; alpha: mouth
    opening; yaw_deg, pitch_deg, roll_deg: angles that replace the head pose's own, NaN to keep it (so that one compiled
    function serves every choice of them)."""

    speech: Float[Array, "n 18 c"]
    alpha: Float[Array, " n"]
    yaw_deg: Float[Array, " n"]
    pitch_deg: Float[Array, " n"]
    roll_deg: Float[Array, " n"]


class Speaking:
    """A renderer and Audio2Exp with their parameters on all local devices.

    renderer: `Renderer` or `FastRenderer`; params: {"renderer", "audio2exp"} in the form that renderer takes;
    chunk: frames per call, rounded up to a multiple of the devices.
    """

    def __init__(self, renderer: Any, audio2exp: Audio2Exp, params: Params, *, chunk: int):
        self._mesh = parallel.make_mesh(jax.local_devices())
        self._params = parallel.replicate(self._mesh, params)
        self._renderer, self._audio2exp = renderer, audio2exp
        self.chunk = -(-chunk // self._mesh.size) * self._mesh.size
        self._embed = jax.jit(lambda params, window: audio2exp.embed(params["audio2exp"], window))
        self._encode_still = jax.jit(self._still)
        # Chunks and pictures are divided by frames; parameters, a still source and silence are whole everywhere.
        whole, rows = False, True
        self._speak_still = parallel.on_each_device(self._mesh, self._speak, whole, whole, rows, whole)
        self._speak_driven = parallel.on_each_device(self._mesh, self._driven, whole, whole, rows, rows, whole)
        self._speak_video = parallel.on_each_device(self._mesh, self._video, whole, rows, rows, whole)

    def still(self, picture_u8: np.ndarray) -> Still:
        """Encodes a source picture, RGB "h w 3"."""
        return self._encode_still(self._params, parallel.replicate(self._mesh, picture_u8[None]))

    def embed(self, window: np.ndarray) -> Embedding:
        """The embedding of one feature window, "18 c": silence is the same in every chunk."""
        return self._embed(self._params, parallel.replicate(self._mesh, window[None]))

    def speak(self, still: Still, chunk: Chunk, silence: Embedding) -> Pictures:
        """A still source speaking with its own head pose. silence: as `embed` gives it."""
        return self._speak_still(self._params, still, parallel.place_batch(self._mesh, chunk), silence)

    def speak_driven(self, still: Still, driving_u8: np.ndarray, chunk: Chunk, silence: Embedding) -> Pictures:
        """A still source with head pose and expression of driving pictures, RGB "n h w 3"."""
        driving = parallel.place_batch(self._mesh, driving_u8)
        return self._speak_driven(self._params, still, driving, parallel.place_batch(self._mesh, chunk), silence)

    def speak_video(self, pictures_u8: np.ndarray, chunk: Chunk, silence: Embedding) -> Pictures:
        """Pictures of a video, RGB "n h w 3", each speaking with its own head pose."""
        pictures = parallel.place_batch(self._mesh, pictures_u8)
        return self._speak_video(self._params, pictures, parallel.place_batch(self._mesh, chunk), silence)

    def _still(self, params: Params, picture_u8: Pictures) -> Still:
        picture = _to_01(picture_u8)
        canonical = self._renderer.canonical_keypoints(params["renderer"], picture)
        pose = self._renderer.head_pose(params["renderer"], picture)
        return Still(encode(self._renderer, params, picture, canonical, pose), canonical, pose)

    def _speak(self, params: Params, still: Still, chunk: Chunk, silence: Embedding) -> Pictures:
        pose = _turned(still.head_pose, chunk)
        image = animate(
            self._renderer,
            self._audio2exp,
            params,
            still.source,
            still.canonical,
            pose,
            self._audio2exp.embed(params["audio2exp"], chunk.speech),
            silence,
            chunk.alpha,
        )
        return _to_u8(image)

    def _driven(self, params: Params, still: Still, driving_u8: Pictures, chunk: Chunk, silence: Embedding) -> Pictures:
        pose = self._renderer.head_pose(params["renderer"], _to_01(driving_u8))
        return self._speak(params, still._replace(head_pose=pose), chunk, silence)

    def _video(self, params: Params, pictures_u8: Pictures, chunk: Chunk, silence: Embedding) -> Pictures:
        return self._speak(params, self._still(params, pictures_u8), chunk, silence)


def _turned(pose: HeadPose, chunk: Chunk) -> HeadPose:
    """`pose` for every frame of the chunk, with the angles that the user gave in place of its own.

    As the reference's free view (render.py:89-112), but an angle that is not given stays; there it would be 0.
    """
    frames = chunk.alpha.shape[0]
    pose = jax.tree.map(lambda x: jnp.broadcast_to(x, (frames, *x.shape[1:])), pose)
    angles = {name: getattr(chunk, name) for name in ("yaw_deg", "pitch_deg", "roll_deg")}
    return pose._replace(**{k: jnp.where(jnp.isnan(angle), getattr(pose, k), angle) for k, angle in angles.items()})


def _to_01(picture_u8: Pictures) -> Float[Array, "n h w 3"]:
    return picture_u8.astype(jnp.float32) / 255


def _to_u8(image_01: Float[Array, "n h w 3"]) -> Pictures:
    # The released tool truncates (inference.py:366), which darkens by half a level; rounding does not.
    return jnp.round(jnp.clip(image_01.astype(jnp.float32), 0, 1) * 255).astype(jnp.uint8)
