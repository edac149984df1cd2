"""What a run of Audio2Exp shows and leaves behind: the picture sheet, the clip with sound, the export."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ctjax import parallel, weights
from ctjax.data.records import FPS, HUBERT, SAMPLES_PER_FRAME
from ctjax.data.transforms import DrivenFrames, PairingConfig
from ctjax.losses.mouth import crop_boxes, mouth_mask
from ctjax.media.audio import write_wav
from ctjax.media.mux import VideoWriter
from ctjax.train import state
from ctjax.train.loop import MediaFolder
from ctjax.types import UserError

if TYPE_CHECKING:
    from ctjax.train.audio2exp_step import Audio2ExpTask

SHEET_ROWS = 4
CLIP_FRAMES = 50
SHOWN_ALPHAS = (0.0, 0.5, 1.0)


def sheet(task: Audio2ExpTask, current: Any, frozen: Any, batch: Any) -> np.ndarray:
    """RGB uint8: a row per example with source, mask, then output and mouth crop for each of `SHOWN_ALPHAS`."""
    params = state.averaged(current)
    source = parallel.fetch(batch["source_u8"])[:SHEET_ROWS, 0] / 255.0
    boxes = parallel.fetch(batch["boxes"])[:SHEET_ROWS, 0]
    height, width = source.shape[1:3]
    mask = np.asarray(mouth_mask(jnp.asarray(boxes), height, width))
    columns = [source, source * (1 - mask)]
    encoded = task.encode(params, frozen, batch)
    for alpha in SHOWN_ALPHAS:
        output = parallel.fetch(task.render(params, frozen, encoded, batch, alpha, 1.0))[:SHEET_ROWS, 0]
        crop = np.asarray(crop_boxes(jnp.asarray(output), jnp.asarray(boxes), height))
        columns += [output, crop]
    pictures = np.stack([np.asarray(column, np.float32) for column in columns], axis=1)
    rows = pictures.transpose(0, 2, 1, 3, 4).reshape(-1, len(columns) * width, 3)
    return np.round(np.clip(rows, 0, 1) * 255).astype(np.uint8)


def write_clip(task: Audio2ExpTask, current: Any, frozen: Any, clips: np.ndarray, path: MediaFolder) -> None:
    """An mp4 with sound: a held-out clip as it is, beside it at alpha 0, 0.5 and 1 under another's speech."""
    example = _example(task, clips)
    mesh = current["step"].sharding.mesh
    frames = len(example["source_u8"]) // task.config.frames * task.config.frames
    params, shown = state.averaged(current), []
    for start in range(0, frames, task.config.frames):
        # The same few frames on every device: one small program more, which the cache keeps for the next run.
        part = {name: x[None, start : start + task.config.frames] for name, x in example.items() if name != "samples"}
        placed = parallel.replicate(mesh, part)
        encoded = task.encode(params, frozen, placed)
        outputs = [task.render(params, frozen, encoded, placed, alpha, 1.0) for alpha in SHOWN_ALPHAS]
        pictures = [part["source_u8"][0] / 255.0, *(parallel.fetch(output)[0] for output in outputs)]
        shown.extend(np.concatenate([np.asarray(p, np.float32) for p in pictures], axis=2))
    if not parallel.is_main_process():
        return
    images = [np.round(np.clip(image, 0, 1) * 255).astype(np.uint8) for image in shown]
    with tempfile.TemporaryDirectory() as scratch:
        sound = pathlib.Path(scratch) / "speech.wav"
        write_wav(sound, example["samples"][: frames * SAMPLES_PER_FRAME])
        height, width = images[0].shape[:2]
        with VideoWriter(path("clip", ".mp4"), (width, height), FPS, audio=sound) as writer:
            for image in images:
                writer.write(image)


def _example(task: Audio2ExpTask, clips: np.ndarray) -> dict[str, np.ndarray]:
    """Up to `CLIP_FRAMES` frames of the first long enough clip, with another person's speech where there is one."""
    length = min(CLIP_FRAMES, max(task.records.clips[int(n)].frames for n in clips))
    fitting = np.array([n for n in clips if task.records.clips[int(n)].frames >= length])
    persons = {task.records.clips[int(n)].person for n in fitting}
    other = float(len(persons) > 1)
    pairing = PairingConfig(in_sync=1 - other, same_clip=0, same_person=0, other_person=other)
    examples = DrivenFrames(task.records, fitting, frames=length, pairing=pairing, extras=task.extras)
    names = ("clip", "driver", "pairing")
    drawn = examples.random_map(0, np.random.default_rng(0))
    return {name: value for name, value in drawn.items() if name not in names}


def export(task: Audio2ExpTask, params: Any, steps: int, folder: pathlib.Path) -> None:
    """`folder`/audio2exp, and beside it the renderer and HuBERT that belong to it: what infer.py takes."""
    weights.save_bundle(
        folder / "audio2exp",
        network="audio2exp",
        config=task.audio2exp.config,
        params=params,
        provenance={"trained_by": "ctjax", "steps": steps, **task.records.features},
        overwrite=True,
    )
    made_with = {"renderer": task.fingerprints["renderer"], "hubert": task.records.features.get(HUBERT)}
    for name, source in (("renderer", task.config.renderer), ("hubert", task.config.hubert)):
        if not source:
            continue
        if weights.fingerprint(weights.read_manifest(source)) != made_with[name]:
            raise UserError(
                f"{source} was written anew while Audio2Exp was trained with what it held before: {folder}/audio2exp "
                f"is complete, put the {name} that it belongs to beside it"
            )
        _copy_bundle(pathlib.Path(source), folder / name)


def _copy_bundle(source: pathlib.Path, target: pathlib.Path) -> None:
    """A copy of a bundle's folder, by hard links where the disk allows it; complete or not there."""
    if source.resolve() == target.resolve():
        return
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, copy_function=os.link)
    except (OSError, shutil.Error):  # another file system
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
