"""Rows that have to be rendered before they can be scored: reconstruction without an edit, and a sweep over alpha.

Rendered clips stay in the output folder and are reused while what made them (reference, bundle, alpha) is the same.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.config import from_mapping
from ctjax.evaluate import clips
from ctjax.evaluate.batching import Batcher
from ctjax.evaluate.cache import file_digest, software_digest
from ctjax.evaluate.clips import FPS, Pair
from ctjax.evaluate.instruments import Devices
from ctjax.evaluate.output import make_noted
from ctjax.evaluate.pipeline import reason_of
from ctjax.evaluate.results import Failure
from ctjax.faces.crop import crop, face_mask, paste
from ctjax.faces.find import Finder, NoFaceError
from ctjax.faces.track import FaceTracker, TrackedFace
from ctjax.media.container import probe
from ctjax.media.mux import VideoWriter
from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.renderer import Renderer, RendererConfig
from ctjax.types import UserError
from ctjax.weights import open_bundle

DEFAULT_SIZE = 256
CRF = 10  # high quality: the row shows what the renderer costs, not what H.264 costs

Render = Callable[[pathlib.Path], Iterator[np.ndarray]]  # a reference clip -> frames at 25 a second, RGB uint8


def rendered_row(
    name: str,
    references: Iterable[Pair],
    folder: pathlib.Path,
    made_by: Mapping[str, object],
    render: Render,
    failures: list[Failure],
    *,
    progress: Callable[[str], None] = lambda text: None,
    debug: bool = False,
) -> list[Pair]:
    """Renders every reference clip into `folder`/`name`, with the reference's sound; returns the pairs to score.

    made_by: JSON values that say what renders; a clip made by the same, under the same sources of this package, from
    the same reference is not made again.
    Clips that cannot be rendered are added to `failures`.
    """
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    pairs = []

    def make(pair: Pair, target: pathlib.Path) -> None:
        progress(f"{name}: rendering {pair.name}")
        write_clip(target, render(pair.reference), pair.reference)

    for pair in references:
        target, note = place / f"{pair.name}.mp4", place / f"{pair.name}.json"
        try:
            key = {**made_by, "software": software_digest(), "reference": file_digest(pair.reference)}
            make_noted(target, note, json.dumps(key, sort_keys=True), functools.partial(make, pair, target))
        except Exception as error:  # one clip must not cost the others
            if debug:
                raise
            failures.append(Failure(name, pair.name, reason_of(error)))
            continue
        pairs.append(Pair(pair.name, target, pair.reference))
    return pairs


def write_clip(target: pathlib.Path, frames: Iterator[np.ndarray], sound_of: pathlib.Path) -> None:
    """Frames at 25 a second as an mp4 with the sound of another clip, if that has any."""
    first = next(frames)
    audio = sound_of if probe(sound_of).audio is not None else None
    with VideoWriter(target, first.shape[1::-1], FPS, audio=audio, crf=CRF) as writer:
        writer.write(first)
        for frame in frames:
            writer.write(frame)


class Reconstruction:
    """The no-edit row: each frame is its own source, driven by its own keypoints, head pose and expression.

    Faces are followed, cropped and pasted as inference does it with a video source: this is what its clips would be if
    the expression were left alone, and whatever it loses, the renderer loses.
    """

    def __init__(self, bundle_path: str, finder: Finder, batch: int = 4):
        self._tracker = FaceTracker(finder)
        bundle = open_bundle(
            bundle_path,
            network="facevid2vid",
            abstract=lambda config: Renderer(from_mapping(RendererConfig, config)).abstract,
        )
        renderer, params = fastest(from_mapping(RendererConfig, bundle.config), bundle.params)
        devices = Devices(batch)
        self._size = bundle.manifest["provenance"].get("image_size", DEFAULT_SIZE)
        self._batch = devices.batch
        self._run = devices.compiled(lambda params, image_u8: reconstructed(renderer, params, image_u8), params)

    def __call__(self, reference: pathlib.Path) -> Iterator[np.ndarray]:
        """The reference's frames with the face replaced by its reconstruction."""
        try:
            tracked = self._tracker.track(clips.frames(reference), clips.frames(reference))
        except NoFaceError as error:
            raise UserError(f"{reference}: no face was found in any frame") from error
        points = None
        waiting: list[tuple[np.ndarray, TrackedFace]] = []
        held: list[np.ndarray] = []

        def run(stacks: tuple[np.ndarray, ...], count: int) -> None:
            rendered = np.asarray(self._run(*stacks))[:count]
            held.extend(self._pasted(*shown, picture) for shown, picture in zip(waiting, rendered, strict=True))
            waiting.clear()

        batcher = Batcher(run, self._batch)
        for frame, face in tracked:
            points = face.points if face.seen else points  # through a short gap the mask stays where it was
            waiting.append((frame, face._replace(points=points)))
            batcher.add(crop(frame, face.box, self._size))
            yield from held
            held.clear()
        batcher.finish()
        yield from held

    def _pasted(self, frame: np.ndarray, face: TrackedFace, picture: np.ndarray) -> np.ndarray:
        if face.lost:
            return frame
        return paste(frame, picture, face.box, face_mask(face.points, face.box, self._size))


def fastest(config: RendererConfig, params: dict) -> tuple[Renderer | FastRenderer, dict]:
    """The fast formulation where it serves the config, else the plain one; and the parameters it takes."""
    if config.kp_detector.estimate_jacobian:
        return Renderer(config), params
    fast = FastRenderer(config)
    return fast, fast.prepare(params)


def reconstructed(renderer: Renderer | FastRenderer, params: Mapping, image_u8: jax.Array) -> jax.Array:
    """uint8 "b h w 3" through the renderer and back, every image its own source and its own driving frame."""
    image_01 = image_u8.astype(jnp.float32) / 255.0
    keypoints = transform_keypoints(
        renderer.canonical_keypoints(params, image_01), renderer.head_pose(params, image_01)
    )
    result = renderer.drive(params, renderer.encode_source(params, image_01, keypoints), keypoints)
    return jnp.round(jnp.clip(result, 0.0, 1.0) * 255.0).astype(jnp.uint8)
