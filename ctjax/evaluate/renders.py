"""Rows that have to be rendered before they can be scored: reconstruction without an edit, and a sweep over alpha.

Rendered clips stay in the output folder and are reused while what made them (reference, bundle, alpha) is the same.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.config import from_mapping
from ctjax.evaluate import clips
from ctjax.evaluate.batching import Batcher
from ctjax.evaluate.cache import file_digest
from ctjax.evaluate.clips import FPS, Pair
from ctjax.evaluate.faces import FindFaces, find_series
from ctjax.evaluate.instruments import Devices
from ctjax.evaluate.output import write_text
from ctjax.evaluate.pipeline import reason_of
from ctjax.evaluate.results import Failure
from ctjax.faces.crop import crop, paste
from ctjax.media.container import probe
from ctjax.media.mux import VideoWriter
from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.renderer import Renderer, RendererConfig
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

    made_by: JSON values that say what renders; a clip made by the same from the same reference is not made again.
    Clips that cannot be rendered are added to `failures`.
    """
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    pairs = []
    for pair in references:
        target, note = place / f"{pair.name}.mp4", place / f"{pair.name}.json"
        key = json.dumps({**made_by, "reference": file_digest(pair.reference)}, sort_keys=True)
        if not (target.exists() and note.exists() and note.read_text(encoding="utf-8") == key):
            progress(f"{name}: rendering {pair.name}")
            try:
                write_clip(target, render(pair.reference), pair.reference)
            except Exception as error:  # one clip must not cost the others
                if debug:
                    raise
                failures.append(Failure(name, pair.name, reason_of(error)))
                continue
            write_text(note, key)
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

    This is what the edited clips of a video source would be if the expression were left alone: whatever it loses, the
    renderer loses.
    """

    def __init__(self, bundle_path: str, find: FindFaces, batch: int = 4):
        self._find = find
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
        faces = find_series(clips.frames(reference), self._find)
        box = faces.crop().box
        held: list[np.ndarray] = []

        def run(stacks: tuple[np.ndarray, ...], count: int) -> None:
            frames, images = stacks
            rendered = np.asarray(self._run(images))[:count]
            held.extend(paste(frame, face, box) for frame, face in zip(frames, rendered, strict=False))

        batcher = Batcher(run, self._batch)
        for frame in clips.frames(reference):
            batcher.add(frame, crop(frame, box, self._size))
            yield from held
            held.clear()
        batcher.finish()
        yield from held


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
