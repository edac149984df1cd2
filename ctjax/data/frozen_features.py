"""The features that training takes as given, computed once per clip: HuBERT steps, keypoints, pose, expression."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ctjax import config, weights
from ctjax.data.cutting import CutVideo, Piece
from ctjax.data.records import FIELDS, FPS, HUBERT, RENDERER, decode_images
from ctjax.features.extract import SpeechFeatures, measure
from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.features.silence import computed_silence, not_blown_up
from ctjax.features.windows import STEPS_PER_SECOND, WINDOW_STEPS
from ctjax.render.renderer import ESTIMATORS, Renderer, RendererConfig

BATCH = 16  # frames per call of the renderer's estimators; one compilation for all clips
STEPS_PER_FRAME = round(STEPS_PER_SECOND / FPS)

Arrays = dict[str, np.ndarray]


class FrozenFeatures:
    """hubert, renderer: bundles, each may be None; what it would make is then left out of the records."""

    def __init__(self, hubert: str | os.PathLike | None, renderer: str | os.PathLike | None):
        self.fingerprints: dict[str, str] = {}
        self._speech = self._estimate = None
        if hubert:
            bundle = weights.open_bundle(
                hubert,
                network="hubert",
                abstract=lambda values: hubert_network(config.from_mapping(HubertConfig, values)).abstract,
            )
            self._speech = SpeechFeatures(config.from_mapping(HubertConfig, bundle.config), bundle.params)
            self.fingerprints[HUBERT] = weights.fingerprint(bundle.manifest)
        if renderer:
            bundle = weights.open_bundle(
                renderer,
                network="facevid2vid",
                abstract=lambda values: Renderer(config.from_mapping(RendererConfig, values)).abstract,
            )
            self._estimate = self._compiled(Renderer(config.from_mapping(RendererConfig, bundle.config)), bundle.params)
            # a generator that goes on learning behind the same estimators leaves their records as good as they were
            self.fingerprints[RENDERER] = weights.fingerprint(bundle.manifest, ESTIMATORS)

    @property
    def silence(self) -> np.ndarray | None:
        """The feature window of silence, "18 c", or None without HuBERT."""
        return None if self._speech is None else computed_silence(self._speech)

    def of(self, cut: CutVideo) -> Iterator[tuple[Piece, Arrays]]:
        """Each of the video's pieces and its further arrays, one at a time."""
        steps = None
        for piece in cut.pieces:
            if self._speech is not None and steps is None:
                steps = self._hubert_steps(cut.samples)
            yield piece, self._of_piece(piece, steps)

    def _of_piece(self, piece: Piece, steps: np.ndarray | None) -> Arrays:
        arrays: Arrays = {}
        if steps is not None:
            start = piece.start * STEPS_PER_FRAME
            wanted = np.arange(start, start + (piece.info.frames - 1) * STEPS_PER_FRAME + WINDOW_STEPS)
            arrays["hubert"] = steps[np.minimum(wanted, len(steps) - 1)]
        if self._estimate is not None:
            arrays |= self._renderer_arrays(piece)
        return arrays

    def _hubert_steps(self, samples: np.ndarray) -> np.ndarray:
        """The whole video's steps, as inference hears it: float16 "l c"."""
        waveform = not_blown_up(measure(lambda: [samples]))
        return np.concatenate([c.astype(np.float16) for c in self._speech.stream(lambda: [samples], waveform)])

    def _renderer_arrays(self, piece: Piece) -> Arrays:
        found: list[Any] = []
        for start in range(0, piece.info.frames, BATCH):
            images = decode_images(piece.arrays, range(start, min(start + BATCH, piece.info.frames)))
            padded = np.concatenate([images, np.repeat(images[-1:], BATCH - len(images), axis=0)])
            estimated = jax.device_get(self._estimate(padded))
            found.append({name: value[: len(images)] for name, value in estimated.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in FIELDS[RENDERER]}

    @staticmethod
    def _compiled(renderer: Renderer, params: Any) -> Any:
        @jax.jit
        def estimate(params: Any, images_u8: jax.Array) -> dict[str, jax.Array]:
            images_01 = images_u8.astype(np.float32) / 255.0
            pose = renderer.head_pose(params, images_01)
            return {"canonical": renderer.canonical_keypoints(params, images_01), **pose._asdict()}

        placed = jax.device_put(params)
        return lambda images_u8: estimate(placed, images_u8)
