"""By how many frames a clip's sound is off its pictures, as a trained sync expert hears and sees it.

The expert compares every run of mouths with the sound at every offset; the offset of the highest mean similarity is
the clip's. Many clips leave the expert unsure (little speech, a turned face), so a clip counts as out of sync only
where an offset beyond the limit beats everything within it by more than chance would.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import jax
import numpy as np

from ctjax import config, weights
from ctjax.data.mouths import read_sound, sound_windows
from ctjax.data.records import Clip
from ctjax.faces.mouth import lower_face_boxes, mouth_boxes
from ctjax.losses.experts import KINDS

REACH = 12  # frames either way: half a second
BLOCK = 32  # windows per call of the expert: one compilation for all clips
SURE = 2.0  # standard errors
BOXES = {"boxes": mouth_boxes, "lower_faces": lower_face_boxes}


class Offset(NamedTuple):
    """frames: positive where the sound comes late. sure: how far this offset's similarity lies above the best one
    within the limit, in standard errors; 0 where the best one is within the limit."""

    frames: int
    sure: float


class SyncGate:
    """bundle: a sync expert, our own or Wav2Lip's. limit: frames that a clip may be off."""

    def __init__(self, bundle: str | os.PathLike, limit: int):
        manifest = weights.read_manifest(bundle, tuple(KINDS))
        kind = KINDS[manifest["network"]]
        network = kind.network(config.from_mapping(kind.config, manifest["config"]))
        opened = weights.open_bundle(bundle, network=manifest["network"], abstract=network.abstract)
        self.fingerprint: str = manifest["parameters"]["sha256"]
        self.made_with: dict[str, str] = manifest["provenance"]
        self.expert = kind.expert(network)
        self._limit, self._params = limit, jax.device_put(opened.params)
        length = self.expert.frames
        runs = np.arange(BLOCK)[:, None] + np.arange(length)

        @jax.jit
        def embed(params, images_u8, boxes, windows):
            crops = self.expert.cut(images_u8.astype(np.float32) / 255.0, boxes)
            return self.expert.embed_mouths(params, crops[runs]), self.expert.embed_sound(params, windows)

        self._embed = embed

    def offset(self, clip: Clip) -> Offset | None:
        """The clip's offset; None for a clip too short to say."""
        mouths, sounds = self._embeddings(clip)
        return best_offset(mouths, sounds, self._limit)

    def out_of_sync(self, offset: Offset | None) -> bool:
        return offset is not None and abs(offset.frames) > self._limit and offset.sure > SURE

    def _embeddings(self, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings "w e" of every run of frames, and of the sound that begins with it."""
        frames, length = clip.info.frames, self.expert.frames
        images, boxes = clip.images(range(frames)), BOXES[self.expert.looks_at](clip["landmarks"])
        steps = read_sound(clip, self.expert.hears)
        found = []
        for start in range(0, max(frames - length + 1, 0), BLOCK):
            shown = np.minimum(np.arange(start, start + BLOCK + length - 1), frames - 1)
            heard = np.minimum(np.arange(start, start + BLOCK), frames - 1)
            windows = sound_windows(steps, self.expert.hears, heard).astype(np.float32)
            mouths, sounds = jax.device_get(self._embed(self._params, images[shown], boxes[shown], windows))
            count = min(BLOCK, frames - length + 1 - start)
            found.append((mouths[:count], sounds[:count]))
        return tuple(np.concatenate(part) for part in zip(*found, strict=True)) if found else (np.zeros((0, 1)),) * 2


def best_offset(mouths: np.ndarray, sounds: np.ndarray, limit: int) -> Offset | None:
    """The offset of the highest mean similarity of unit embeddings "w e", looked for up to `REACH` frames either way.

    Only windows that have a partner at every offset count; None where there are fewer than `REACH` of them.
    """
    inner = np.arange(REACH, len(mouths) - REACH)
    if len(inner) < REACH:
        return None
    offsets = np.arange(-REACH, REACH + 1)
    cosine = np.stack([np.sum(mouths[inner] * sounds[inner + offset], -1) for offset in offsets], axis=1)
    mean = cosine.mean(0)
    best = int(mean.argmax())
    if abs(offsets[best]) <= limit:
        return Offset(int(offsets[best]), 0.0)
    allowed = np.flatnonzero(np.abs(offsets) <= limit)
    rival = int(allowed[mean[allowed].argmax()])
    gain = cosine[:, best] - cosine[:, rival]
    # neighbouring windows share frames and say nearly the same: blocks of a second's fifth are counted, not windows
    blocks = [part.mean() for part in np.array_split(gain, max(2, len(gain) // 5))]
    error = np.std(blocks, ddof=1) / np.sqrt(len(blocks))
    return Offset(int(offsets[best]), float(gain.mean() / max(error, 1e-9)))
