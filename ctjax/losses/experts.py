"""Sync experts behind one interface, whichever they are: our own, on HuBERT or on mel, or Wav2Lip's."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ctjax.losses import lip_sync, wav2lip_syncnet
from ctjax.losses.lip_sync import SyncForm
from ctjax.losses.mouth import crop_boxes
from ctjax.losses.sync_expert import Sound, SyncExpert, SyncExpertConfig
from ctjax.losses.wav2lip_syncnet import Wav2LipSyncNetConfig

Boxes = Literal["boxes", "lower_faces"]


class Expert(Protocol):
    """frames: how many it sees at once. hears: which windows. looks_at: the mouths' boxes or the lower faces'."""

    frames: int
    hears: Sound
    looks_at: Boxes

    def cut(self, images_01: jax.Array, boxes: jax.Array) -> jax.Array:
        """Its part of the pictures "m h w 3" at boxes "m 4", differentiably."""

    def embed_mouths(self, params: Any, cut_01: jax.Array) -> jax.Array:
        """Unit embeddings "b e" of runs of cut pictures "b t h w 3"."""

    def embed_sound(self, params: Any, windows: jax.Array) -> jax.Array:
        """Unit embeddings "b e" of windows "b l c"."""

    def loss(self, params: Any, cosine: jax.Array, form: SyncForm) -> jax.Array:
        """Eq. 5 in either form, float32, of the shape of `cosine`."""


class OwnExpert:
    def __init__(self, network: SyncExpert):
        self.network = network
        self.frames, self.hears = network.config.frames, network.config.hears
        self.looks_at: Boxes = "boxes"
        self.embed_mouths, self.embed_sound = network.embed_mouths, network.embed_sound

    def cut(self, images_01: jax.Array, boxes: jax.Array) -> jax.Array:
        return crop_boxes(images_01, boxes, self.network.config.crop)

    def loss(self, params: Any, cosine: jax.Array, form: SyncForm) -> jax.Array:
        if form == "cosine":
            return lip_sync.cosine_loss(cosine)
        return lip_sync.bce_of_logit(self.network.logit(params, cosine))


class Wav2LipExpert:
    """The published expert, converted: lower face halves and the mel spectrogram."""

    def __init__(self, network: Any):
        self.network = network
        self.frames: int = wav2lip_syncnet.FRAMES
        self.hears: Sound = "mel"
        self.looks_at: Boxes = "lower_faces"

    def cut(self, images_01: jax.Array, boxes: jax.Array) -> jax.Array:
        # a lower half is twice as wide as high: cut square, then pairs of lines are averaged
        square = crop_boxes(images_01, boxes, wav2lip_syncnet.FACE_WIDTH)
        return (square[:, ::2] + square[:, 1::2]) / 2

    def embed_mouths(self, params: Any, cut_01: jax.Array) -> jax.Array:
        return self.network.bind(params).embed_face(cut_01)

    def embed_sound(self, params: Any, windows: jax.Array) -> jax.Array:
        return self.network.bind(params).embed_audio(jnp.swapaxes(windows, 1, 2))

    def loss(self, params: Any, cosine: jax.Array, form: SyncForm) -> jax.Array:
        return lip_sync.cosine_loss(cosine) if form == "cosine" else lip_sync.bce_of_cosine(cosine)


class Kind(NamedTuple):
    """config: the dataclass of a bundle's config. network: what it makes. expert: the interface to that."""

    config: type
    network: Any
    expert: Any


KINDS = {
    "sync_expert": Kind(SyncExpertConfig, SyncExpert, OwnExpert),
    "wav2lip_syncnet": Kind(Wav2LipSyncNetConfig, wav2lip_syncnet.network, Wav2LipExpert),
}
