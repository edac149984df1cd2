"""Training the sync expert: short clips of mouths and windows of their sound, contrastive or in pairs.

params: the towers (`ctjax.losses.sync_expert.Towers`) that learn. frozen: `audio_encoder` where it comes from a bundle
and is kept as it is; `renderer` where figures on reconstructed frames are asked for.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ctjax import animate, parallel, weights
from ctjax.data import pipeline, transforms
from ctjax.data.pipeline import ReadingConfig
from ctjax.data.records import FIELDS, HELD_OUT, HUBERT, RENDERER, RecordSet
from ctjax.losses import sync_expert
from ctjax.losses.mouth import crop_boxes
from ctjax.losses.sync_expert import Sound, SyncExpert, SyncExpertConfig
from ctjax.motion.keypoints import transform_keypoints
from ctjax.train import frozen as frozen_networks
from ctjax.train import optim, state, sync_report
from ctjax.train.frozen import Compute
from ctjax.train.loop import LoopConfig, MediaFolder
from ctjax.train.optim import OptimizerConfig
from ctjax.types import HeadPose, UserError

Batch = Mapping[str, Any]
State = dict[str, Any]
RENDERED_FIELDS = ("frames_u8", *FIELDS[RENDERER])
FRAMES_AT_ONCE = 20  # rendered by one device: the full-size renderer takes a third of a GB for each


@dataclass(frozen=True)
class AugmentConfig:
    """Per clip, the same for its frames: the mouth's box moved by up to `shift` and scaled by up to `scale` of its
    size, brightness and contrast by up to `light`, mirrored half of the time; `drop_features`: share of the sound's
    channels set to zero."""

    shift: float = 0.06
    scale: float = 0.08
    light: float = 0.15
    mirror: bool = True
    drop_features: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.drop_features < 1:
            raise ValueError(f"drop_features is a share below 1, not {self.drop_features}")


@dataclass(frozen=True)
class SyncExpertTraining:
    """records: folders made by prepare.py. start: a sync expert's bundle to go on from; its architecture replaces
    `model`. windows: cut from each clip of a batch, `gap` frames apart at least. audio_encoder: an Audio2Exp bundle
    whose encoder to start from; `freeze_audio` keeps it as it is. renderer: a bundle, for the figures on reconstructed
    frames. candidates: windows a clip in the figures on held-out clips. held_out: their split, by default val where
    there is one, else test. in_memory: keep mouths and sounds of all clips there (with a crop of 48 px 12 kB a
    frame)."""

    records: tuple[str, ...]
    task: Literal["sync_expert"] = "sync_expert"
    start: str | None = None
    model: SyncExpertConfig = field(default_factory=SyncExpertConfig)
    loss: Literal["info_nce", "bce"] = "info_nce"
    windows: int = 4
    gap: int = 5
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    audio_encoder: str | None = None
    freeze_audio: bool = False
    renderer: str | None = None
    candidates: int = 10
    split: str = "train"
    held_out: str = HELD_OUT
    in_memory: bool = False
    compute: Compute = "float32"
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-4, warmup=500))
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        if self.windows < 2 or self.candidates < 2:
            raise ValueError("windows and candidates must be at least 2: an expert learns by comparing")
        if self.gap < 1:
            raise ValueError(f"gap must be at least 1 frame, not {self.gap}: equal windows are no negatives")
        if self.start and self.audio_encoder:
            raise ValueError("start brings an audio encoder of its own: leave audio_encoder out")
        if self.model.mel and self.audio_encoder:
            raise ValueError("audio_encoder is for an expert that hears HuBERT; this one hears mel (model.mel)")
        if self.freeze_audio and not self.audio_encoder:
            raise ValueError("freeze_audio needs audio_encoder, the bundle to take it from")
        if self.loss == "info_nce" and self.optimizer.micro_batches > 1:
            raise ValueError("info_nce compares the whole batch: micro_batches must be 1, or loss 'bce'")
        self.optimizer.check_parts(self.loop.batch)
        if self.loss == "bce" and self.loop.batch // self.optimizer.micro_batches < 2:
            raise ValueError("bce takes other clips' sounds: each of micro_batches needs two clips of the batch")


class SyncExpertTask:
    """A `loop.Task`."""

    def __init__(self, config: SyncExpertTraining):
        self.eager_init = bool(config.start or config.audio_encoder)
        self._start, self._started_from, began_with, trained_with = None, "", None, None
        if config.start:
            opened = frozen_networks.open_own_expert(config.start)
            self._start, self._started_from = opened.params, opened.fingerprint
            began_with = opened.provenance.get(HUBERT)
            trained_with = opened.provenance.get("loss")
            config = dataclasses.replace(config, model=opened.network.config)
        self.config = config
        self._trained_with = config.loss if config.loop.steps else trained_with
        self.expert = SyncExpert(config.model)
        self.optimizer = optim.build(config.optimizer)
        self.records = RecordSet(config.records)
        self.data_digests = self.records.digests
        self._sound: Sound = config.model.hears
        if self._sound == HUBERT:
            self.records.require(hubert=began_with)
            self._check_channels()
        needed = transforms.SyncWindows.frames_needed
        self._clips = self.records.of_split(
            config.split, min_frames=needed(config.model.frames, config.windows, config.gap)
        )
        self._held_out = self.records.of_split(
            config.held_out, min_frames=needed(config.model.frames, config.candidates, config.gap)
        )
        self.frozen: dict[str, Any] = {}
        self.fingerprints = {"start": self._started_from} if config.start else {}
        self._renderer = None
        if config.renderer:
            opened = frozen_networks.open_renderer(config.renderer, config.compute)
            self.records.require(renderer=opened.made_features)
            self._renderer = opened.network
            self.fingerprints["renderer"] = opened.fingerprint
            self.frozen["renderer"] = opened.params
        self._start_audio = self._open_audio_encoder()

    def init(self, key: jax.Array) -> State:
        if self._start is not None:
            params = jax.tree.map(jnp.asarray, self._start)
        else:
            params = self.expert.init(state.drawing_key(key))
        if self._start_audio is not None:
            if self.config.freeze_audio:
                del params["audio_encoder"]
            else:
                params["audio_encoder"] = jax.tree.map(jnp.asarray, self._start_audio)
        return state.new_state(params, self.optimizer, key, ema=self.config.optimizer.ema > 0)

    def step(self, current: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
        loss = functools.partial(self._loss, frozen)
        settings = self.config.optimizer
        gradient, metrics = state.gradients(
            loss, current["params"], batch, state.step_key(current), settings.micro_batches
        )
        new, more = state.update(current, gradient, self.optimizer, settings)
        return new, {**metrics, **more}

    def _loss(self, frozen: Any, params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        config = self.config
        params = self._whole(params, frozen)
        mouths, sounds = self._embed(params, batch, key)
        scale = sync_expert.scale(params)
        clip = jnp.repeat(batch["clip"], config.windows)
        start = batch["start"].reshape(-1)
        cosine = jnp.sum(mouths * sounds, -1)
        if config.loss == "info_nce":
            near = jnp.abs(start[:, None] - start[None, :]) < config.gap
            losses = sync_expert.info_nce(mouths, sounds, scale, near & (clip[:, None] == clip[None, :]))
        else:
            wrong = self._wrong_sounds(sounds, batch["clip"], key)
            false_cosine = jnp.sum(mouths * wrong, -1)
            losses = sync_expert.paired_bce(SyncExpert.logit(params, cosine), SyncExpert.logit(params, false_cosine))
        loss = jnp.mean(losses)
        return loss, {"loss": loss, "cosine_true": jnp.mean(cosine), "scale": scale}

    def _wrong_sounds(self, sounds: jax.Array, clip: jax.Array, key: jax.Array) -> jax.Array:
        """A false partner for each: half the time another window of its clip, else the next example's; where that is
        of the same clip always another window."""
        n = self.config.windows
        by_clip = sounds.reshape(-1, n, sounds.shape[-1])
        other_window = jnp.roll(by_clip, 1, axis=1)
        other_clip = jnp.roll(by_clip, 1, axis=0)
        within = jax.random.bernoulli(key, 0.5, by_clip.shape[:2]) | (clip == jnp.roll(clip, 1))[:, None]
        return jnp.where(within[..., None], other_window, other_clip).reshape(sounds.shape)

    def _embed(self, params: Any, batch: Batch, key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Unit embeddings "b*n e" of mouths and sounds; `key` None leaves the pictures as they are."""
        pictures, boxes, sound = (flat(batch[name]) for name in ("mouths_u8", "boxes", "sound"))
        dtype = jnp.dtype(self.config.compute)
        if key is not None:
            boxes = moved_boxes(jax.random.fold_in(key, 0), boxes, self.config.augment)
        crops = self._crops(pictures, boxes)
        sound = sound.astype(dtype)
        if key is not None:
            crops = changed_light(jax.random.fold_in(key, 1), crops, self.config.augment)
            kept = 1.0 - self.config.augment.drop_features
            mask = jax.random.bernoulli(jax.random.fold_in(key, 2), kept, (len(sound), 1, sound.shape[-1]))
            sound = sound * mask.astype(dtype) / kept
        params = jax.tree.map(lambda x: x.astype(dtype), params)
        return self.expert.embed_mouths(params, crops), self.expert.embed_sound(params, sound)

    def _crops(self, pictures_u8: jax.Array, boxes: jax.Array) -> jax.Array:
        """What the expert sees, "m t c c 3" in [0, 1], of pictures "m t h w 3" with boxes "m t 4"."""
        images = (flat(pictures_u8).astype(jnp.float32) / 255.0).astype(jnp.dtype(self.config.compute))
        crops = crop_boxes(images, flat(boxes), self.config.model.crop)
        return crops.reshape(*pictures_u8.shape[:2], *crops.shape[1:])

    def _whole(self, params: Any, frozen: Any) -> Any:
        return {**params, "audio_encoder": frozen["audio_encoder"]} if "audio_encoder" in frozen else params

    def _open_audio_encoder(self) -> Any:
        if not self.config.audio_encoder:
            return None
        opened = frozen_networks.open_audio2exp(self.config.audio_encoder)
        self.records.require(hubert=opened.provenance.get(HUBERT))
        self.fingerprints["audio_encoder"] = opened.fingerprint
        if opened.network.config != self.config.model.audio:
            raise UserError(f"{self.config.audio_encoder}: its audio encoder differs from model.audio of the config")
        encoder = opened.params["audio_encoder"]
        if self.config.freeze_audio:
            self.frozen["audio_encoder"] = encoder
        return encoder

    def _check_channels(self) -> None:
        found, wanted = self.records[0]["hubert"].shape[1], self.config.model.audio.channels
        if found != wanted:
            raise UserError(f"the records' features have {found} channels, model.audio.channels says {wanted}")

    def training_data(self, rows: parallel.Rows) -> grain.IterDataset:
        config = self.config
        windows = self._windows(self._clips, config.windows, remember=config.in_memory)
        stream = transforms.endless(self._clips, windows, config.loop.seed)
        return pipeline.batches(stream, rows, config.reading)

    def evaluation_data(self, rows: parallel.Rows) -> Iterable[Batch]:
        windows = self._windows(
            self._held_out, self.config.candidates, spread=True, whole_frames=self._renderer is not None
        )
        count = -(-len(self._held_out) // rows.batch)
        return pipeline.first_batches(transforms.in_order(self._held_out, windows, 0), rows, count, self.config.reading)

    def _windows(self, clips: np.ndarray, windows: int, **how: bool) -> transforms.SyncWindows:
        config = self.config
        return transforms.SyncWindows(
            self.records,
            clips,
            frames=config.model.frames,
            windows=windows,
            gap=config.gap,
            crop=config.model.crop,
            sound=self._sound,
            **how,
        )

    def evaluate(self, current: State, frozen: Any, batches: Iterable[Batch]) -> dict[str, float]:
        params = self._whole(state.averaged(current), frozen)
        found: dict[str, list[Any]] = {sync_report.REAL: [], sync_report.RECONSTRUCTED: []}
        clips = []
        for batch in batches:
            clips.append(parallel.fetch(batch["clip"]))
            found[sync_report.REAL].append(parallel.fetch(self._embed_held_out(params, batch)))
            if self._renderer is not None:
                parts = _parts(len(batch["clip"]), self._mesh_of(current).size, self.config.model.frames)
                rendered = self._reconstruct(frozen["renderer"], {k: batch[k] for k in RENDERED_FIELDS}, parts)
                seen = {**batch, "mouths_u8": rendered, "boxes": batch["frame_boxes"]}
                found[sync_report.RECONSTRUCTED].append(parallel.fetch(self._embed_held_out(params, seen)))
        _, first = np.unique(np.concatenate(clips), return_index=True)  # the last batch is filled up with clips seen
        scale = float(sync_expert.scale(params))
        bias = float(params["bias"]) if self._trained_with == "bce" else None  # InfoNCE does not learn it
        report = {}
        for frames, parts in found.items():
            if parts:
                mouths, sounds = (np.concatenate(part)[first] for part in zip(*parts, strict=True))
                figures = sync_report.figures(mouths, sounds, scale, bias)
                report |= {f"{frames}/{name}": value for name, value in figures.items()}
        return report

    @functools.cached_property
    def _embed_held_out(self) -> Any:
        def embed(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            mouths, sounds = self._embed(params, batch, None)
            shape = batch["start"].shape
            return mouths.reshape(*shape, -1), sounds.reshape(*shape, -1)

        return jax.jit(embed)

    @functools.cached_property
    def _reconstruct(self) -> Any:
        """Every frame through the renderer, driven by its own pose and expression, as Audio2Exp's outputs are made."""

        def one_window(params: Any, window: Batch) -> jax.Array:
            pose = HeadPose(
                **{name: window[name] for name in ("yaw_deg", "pitch_deg", "roll_deg", "translation", "expression")}
            )
            image_01 = (window["frames_u8"].astype(jnp.float32) / 255.0).astype(jnp.dtype(self.config.compute))
            source = animate.encode(self._renderer, {"renderer": params}, image_01, window["canonical"], pose)
            image = self._renderer.drive(params, source, transform_keypoints(window["canonical"], pose))
            return jnp.round(jnp.clip(image, 0.0, 1.0) * 255.0).astype(jnp.uint8)

        def reconstruct(params: Any, batch: Batch, parts: int) -> jax.Array:
            # A window of some clips at a time: a clip's ten windows of five frames at once would need tens of GB. Each
            # part takes every `parts`-th clip, so that each device cuts its own.
            clips, windows = batch["frames_u8"].shape[:2]
            shape = (clips // parts, parts, windows)
            apart = {k: jnp.moveaxis(x.reshape(*shape, *x.shape[2:]), 0, 2) for k, x in batch.items()}
            some = {k: x.reshape(parts * windows, clips // parts, *x.shape[3:]) for k, x in apart.items()}

            def body(window: Batch) -> jax.Array:
                return one_window(params, {k: flat(x) for k, x in window.items()}).reshape(window["frames_u8"].shape)

            done = jax.lax.map(body, some).reshape(parts, windows, clips // parts, *batch["frames_u8"].shape[2:])
            return jnp.moveaxis(done, 2, 0).reshape(batch["frames_u8"].shape)

        return jax.jit(reconstruct, static_argnums=2)

    def pictures(self, current: State, frozen: Any, batch: Batch, path: MediaFolder) -> dict[str, np.ndarray]:
        """What the expert sees: augmented mouths, one row a clip."""
        key = state.step_key(current)
        boxes = moved_boxes(jax.random.fold_in(key, 0), batch["boxes"][:, 0], self.config.augment)
        crops = self._crops(batch["mouths_u8"][:, 0], boxes)
        crops = changed_light(jax.random.fold_in(key, 1), crops, self.config.augment)
        sheet = parallel.fetch(crops)[:8].transpose(0, 2, 1, 3, 4)
        sheet = sheet.reshape(sheet.shape[0] * sheet.shape[1], -1, 3)
        return {"mouths": np.round(np.clip(sheet, 0, 1) * 255).astype(np.uint8)}

    def export(self, current: State, frozen: Any, folder: pathlib.Path) -> None:
        """The bundle `folder`/sync_expert, with its report on all held-out clips."""
        rows = parallel.rows_of_process(self._mesh_of(current), self.config.loop.batch)
        mesh = self._mesh_of(current)
        placed = (parallel.place_batch(mesh, batch) for batch in self.evaluation_data(rows))
        report: dict[str, dict[str, float]] = {}
        for name, value in self.evaluate(current, frozen, placed).items():
            frames, figure = name.split("/")
            report.setdefault(frames, {})[figure] = value
        params = parallel.fetch(self._whole(state.averaged(current), frozen))
        if parallel.is_main_process():
            weights.save_bundle(
                folder / "sync_expert",
                network="sync_expert",
                config=self.config.model,
                params=params,
                provenance={
                    "trained_by": "ctjax",
                    "steps": int(current["step"]),
                    "loss": self._trained_with,
                    sync_report.REPORT: report,
                    **({"started_from": self._started_from} if self._started_from else {}),
                    **({HUBERT: self.records.features[HUBERT]} if self._sound == HUBERT else {}),
                    **(self._renderers() if self._renderer is not None else {}),
                },
                overwrite=True,
            )

    def _renderers(self) -> dict[str, str]:
        made_by = self.fingerprints["renderer"]
        return {RENDERER: self.records.features[RENDERER], sync_report.RECONSTRUCTED_BY: made_by}

    @staticmethod
    def _mesh_of(current: State) -> Any:
        return current["step"].sharding.mesh


def _parts(clips: int, devices: int, frames: int) -> int:
    """In how many parts to take the clips of a batch, so that a device renders `FRAMES_AT_ONCE` frames or fewer at a
    time, or a clip's `frames`."""
    each = clips // devices
    return next(n for n in range(1, each + 1) if each % n == 0 and (each // n * frames <= FRAMES_AT_ONCE or n == each))


def flat(x: jax.Array) -> jax.Array:
    """The first two axes as one."""
    return x.reshape(-1, *x.shape[2:])


def moved_boxes(key: jax.Array, boxes: jax.Array, augment: AugmentConfig) -> jax.Array:
    """The mouths' boxes "b t 4" of each clip shifted and scaled together, and mirrored (x0 and x1 change places)."""
    by_shift, by_scale, by_mirror = jax.random.split(key, 3)
    count = boxes.shape[0]
    low, high = boxes[..., :2], boxes[..., 2:]
    centre, half = (low + high) / 2, (high - low) / 2
    shift = augment.shift * jax.random.uniform(by_shift, (count, 1, 2), minval=-1.0, maxval=1.0)
    scale = 1.0 + augment.scale * jax.random.uniform(by_scale, (count, 1, 1), minval=-1.0, maxval=1.0)
    centre, half = centre + 2 * half * shift, half * scale
    if augment.mirror:
        flip = jax.random.bernoulli(by_mirror, 0.5, (count, 1))
        sign = jnp.where(flip, -1.0, 1.0)
        half = half * jnp.stack([sign, jnp.ones_like(sign)], -1)
    return jnp.concatenate([centre - half, centre + half], -1)


def changed_light(key: jax.Array, crops: jax.Array, augment: AugmentConfig) -> jax.Array:
    """Brightness and contrast of each clip's crops "b t h w 3" changed alike."""
    by_brightness, by_contrast = jax.random.split(key)
    shape = (crops.shape[0], 1, 1, 1, 1)
    brightness = augment.light * jax.random.uniform(by_brightness, shape, minval=-1.0, maxval=1.0)
    contrast = 1.0 + augment.light * jax.random.uniform(by_contrast, shape, minval=-1.0, maxval=1.0)
    return jnp.clip((crops - 0.5) * contrast + 0.5 + brightness, 0.0, 1.0).astype(crops.dtype)


Config = SyncExpertTraining


def build(config: SyncExpertTraining) -> SyncExpertTask:
    return SyncExpertTask(config)
