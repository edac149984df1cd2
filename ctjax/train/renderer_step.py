"""Training the renderer from pairs of frames: data, start, evaluation, pictures and export around `renderer_update`."""

from __future__ import annotations

import functools
import itertools
import math
import pathlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ctjax import config as configs
from ctjax import parallel, weights
from ctjax.data import pipeline, transforms
from ctjax.data.frame_pairs import Clips, CropFolder, FramePairs, HeldOutPairs, JitterConfig
from ctjax.data.pipeline import ReadingConfig
from ctjax.data.records import HELD_OUT, RecordSet
from ctjax.evaluate.image import psnr, ssim
from ctjax.losses import discriminator, hopenet, vgg19
from ctjax.losses.discriminator import DiscriminatorConfig
from ctjax.losses.hopenet import HopenetConfig
from ctjax.losses.landmark import LIP_PAIRS, closed, drawn_to
from ctjax.losses.renderer_total import RendererLossConfig, takes_every_nth
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.motion.keypoints import transform_jacobians, transform_keypoints
from ctjax.nn.module import Network
from ctjax.render.renderer import Renderer, RendererConfig, seen_at
from ctjax.train.loop import LoopConfig, MediaFolder
from ctjax.train.optim import OptimizerConfig
from ctjax.train.renderer_pictures import Shown, sheet
from ctjax.train.renderer_update import (
    DrawnBy,
    RendererUpdate,
    RendererUpdateConfig,
    default_optimizer,
    images_01,
)
from ctjax.types import HeadPose, UserError

State = dict[str, Any]
Batch = Mapping[str, Any]
UNTRAINED = "untrained"
UNTRAINED_SEED = 19
PICTURE_ROWS = 4
MOUTH_CELLS = 4  # that a map needs across to have a mouth; see ctjax.losses.gan.mouth_region
SPATIAL_UNIT = 4  # the generator's features are a quarter of the picture; see Renderer.encode_source


@dataclass(frozen=True)
class RendererTraining:
    """records: folders made by prepare.py; crops: folders of face crops, one sub-folder a clip (give one of the two).
    poses: known head poses in the records instead of Hopenet, "truth" (synthetic) or "estimated" (by the renderer that
    made them). jitter: changes of colour. size: side in pixels that pictures are scaled to; 0: as they are. vgg19,
    hopenet: converted bundles; vgg19 may be "untrained", a fixed random network of the widths `vgg19_model`, to try
    things out. start, start_discriminator: bundles to go on from; their architecture replaces `renderer` and
    `discriminator`. start_scale: multiplies the scale_factor of both estimators of `start`; 0.5 where its pictures were
    half as large, so that the estimators go on seeing what they know. freeze: dotted parts of the renderer that stay as
    they are, for fine-tuning. drawn_by: see `RendererUpdateConfig`. closing, opening: the shares of pairs from a wide
    open mouth to a closed one and the other way (`FramePairs`)."""

    records: tuple[str, ...] = ()
    crops: tuple[str, ...] = ()
    task: Literal["renderer"] = "renderer"
    poses: Literal["none", "truth", "estimated"] = "none"
    size: int = 0
    mirror: bool = True
    jitter: JitterConfig = field(default_factory=JitterConfig)
    vgg19: str | None = None
    vgg19_model: Vgg19Config = field(default_factory=Vgg19Config)
    hopenet: str | None = None
    start: str | None = None
    start_scale: float = 1.0
    start_discriminator: str | None = None
    freeze: tuple[str, ...] = ()
    renderer: RendererConfig = field(default_factory=RendererConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    losses: RendererLossConfig = field(default_factory=RendererLossConfig)
    drawn_by: DrawnBy = "estimates"
    closing: float = 0.0
    opening: float = 0.0
    compute: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False
    split: str = "train"
    held_out: str = HELD_OUT
    held_out_frames: int = 4
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=default_optimizer)
    discriminator_optimizer: OptimizerConfig = field(default_factory=default_optimizer)
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        if bool(self.records) == bool(self.crops):
            raise ValueError("give either records (folders made by prepare.py) or crops (folders of face crops)")
        if self.crops and self.poses != "none":
            raise ValueError(f"poses is {self.poses!r}, but a folder of crops knows no poses: set hopenet instead")
        if not (self.closing >= 0 and self.opening >= 0 and self.closing + self.opening <= 1):
            raise ValueError(
                f"closing and opening are shares of the pairs, 0 to 1 together, not {self.closing} and {self.opening}"
            )
        pairs = self.closing or self.opening
        if self.crops and (self.losses.weights.needs_landmarks or self.drawn_by != "estimates" or pairs):
            raise ValueError(
                "drawn_by, closing, opening, or a weight of losses.weights.landmark, lips, turned, mouth_pixel, "
                "mouth_drawn or inner_mouth, asks for landmarks, but a folder of crops knows none: use records"
            )
        if self.size < 0:
            raise ValueError(f"size is a side in pixels, or 0 for the pictures' own, not {self.size}")
        if self.held_out_frames < 1:
            raise ValueError(f"held_out_frames must be at least 1, not {self.held_out_frames}")
        if not takes_every_nth(self.start_scale):
            raise ValueError(f"start_scale must be 1, 1/2, 1/3, 1/4 and so on, not {self.start_scale}")
        if self.start_scale != 1 and not self.start:
            raise ValueError("start_scale changes what the estimators of `start` see, but there is no start")
        if self.freeze and not self.start:
            raise ValueError("freeze keeps parts of a renderer as they are, but there is no start to take it from")
        if self.losses.clip_length > 1:
            raise ValueError("losses.clip_length: pairs of frames make no clips; it must be 1 here")


class RendererTask:
    """A `loop.Task`. fingerprints: of the bundles that were opened, by the field of the configuration that names them:
    a bundle may be written anew under its path while the run goes on."""

    eager_init = True

    def __init__(self, config: RendererTraining):
        self.clips: Clips = RecordSet(config.records) if config.records else CropFolder(config.crops)
        self.data_digests = self.clips.digests if isinstance(self.clips, RecordSet) else {}
        self.frozen: dict[str, Any] = {}
        self.fingerprints: dict[str, str] = {}
        self.config = config
        try:
            self.update = RendererUpdate(self._open_networks(config))
        except ValueError as error:  # of networks and losses that do not fit together
            raise UserError(f"the config does not fit: {error}") from error
        self.size = config.size or self.clips.image_size
        if self._start:
            self.frozen["renderer"] = self.update.split(self._start["renderer"])[2] if "renderer" in self._start else {}
        self._check(config)
        self._train = self.clips.of_split(config.split, min_frames=2)
        held_out = self.clips.of_split(config.held_out, min_frames=2)
        self._held_out = held_out[_in_turn(self._persons(held_out))]

    def _persons(self, clips: Iterable[int]) -> list[str]:
        return [self.clips.clips[number].person for number in clips]

    def _open_networks(self, config: RendererTraining) -> RendererUpdateConfig:
        """Fills `frozen` and `_start` from bundles; the update's configuration with the architectures found there."""
        self._start: dict[str, Any] = {}
        renderer, judge, vgg, pose = config.renderer, config.discriminator, config.vgg19_model, HopenetConfig()
        if config.start:
            renderer, params = self._open("start", "facevid2vid", RendererConfig, Renderer)
            if renderer.he_estimator is None:
                raise UserError(
                    f"{config.start}: this renderer has no he_estimator, whose poses training looks at: convert it "
                    "with one (python -m convert sadtalker ... --he_estimator=FILE)"
                )
            renderer, self._start["renderer"] = seen_at(renderer, params, config.start_scale)
        if config.start_discriminator:
            judge, self._start["discriminator"] = self._open(
                "start_discriminator", "discriminator", DiscriminatorConfig, discriminator.network
            )
        if any(config.losses.weights.perceptual):
            if config.vgg19 == UNTRAINED:
                self.frozen["vgg19"] = vgg19.untrained(vgg, UNTRAINED_SEED)
            elif config.vgg19:
                vgg, self.frozen["vgg19"] = self._open("vgg19", "vgg19", Vgg19Config, vgg19.network)
        if config.hopenet and config.poses == "none":
            pose, self.frozen["hopenet"] = self._open("hopenet", "hopenet", HopenetConfig, hopenet.network)
        return RendererUpdateConfig(
            renderer=renderer,
            discriminator=judge,
            losses=config.losses,
            optimizer=config.optimizer,
            discriminator_optimizer=config.discriminator_optimizer,
            vgg19=vgg,
            hopenet=pose,
            freeze=config.freeze,
            drawn_by=config.drawn_by,
            compute=config.compute,
            remat=config.remat,
        )

    def _open(self, field: str, name: str, config_type: type, build: Any) -> tuple[Any, Any]:
        """Configuration and parameters of the bundle of network `name` that `field` of the configuration names."""
        path = getattr(self.config, field)
        manifest = weights.read_manifest(path, name)
        config = configs.from_mapping(config_type, manifest["config"])
        network: Network = build(config)
        opened = weights.open_bundle(path, network=name, abstract=network.abstract)
        self.fingerprints[field] = weights.fingerprint(opened.manifest)
        return config, opened.params

    def _check(self, config: RendererTraining) -> None:
        """Fails before any work where the losses lack a network or the pictures do not fit."""
        self.update.check_frozen(self.frozen, known_poses=config.poses != "none")
        generator, detector = self.update.config.renderer.generator, self.update.config.renderer.kp_detector
        unit = max(SPATIAL_UNIT * 2**generator.dense_motion.num_blocks, detector.stride * 2**detector.num_blocks)
        if self.size % unit:
            raise UserError(
                f"the pictures have {self.size} px, this renderer takes multiples of {unit}: prepare them "
                "at another size, or lower num_blocks of dense_motion and kp_detector"
            )
        losses, judge = config.losses, self.update.config.discriminator
        smallest = min(losses.perceptual_scales)
        if any(losses.weights.perceptual) and (side := math.ceil(self.size * smallest)) < vgg19.MIN_SIDE:
            raise UserError(
                f"losses.perceptual_scales: {smallest:g} of {self.size} px leaves {side}, VGG-19 needs "
                f"{vgg19.MIN_SIDE}: leave that scale out, or take larger pictures"
            )
        cells, least = _last_map(judge, self.size), MOUTH_CELLS if losses.mouth else 1
        if losses.weights.asks_discriminator and cells < least:
            raise UserError(
                f"the discriminator's last map of {self.size} px is {max(cells, 0)} cells wide, its losses need "
                f"{least}: lower discriminator.num_blocks, leave its smallest scale out, or take larger pictures"
            )

    # --- the loop's questions ---

    def init(self, key: jax.Array) -> State:
        return self.update.init(key, self._start.get("renderer"), self._start.get("discriminator"))

    def step(self, state: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
        return self.update.step(state, frozen, batch)

    def training_data(self, rows: parallel.Rows) -> grain.IterDataset:
        config = self.config
        augmented = {"mirror": config.mirror, "jitter": config.jitter}
        augmented |= {"closing": config.closing, "opening": config.opening}
        pairs = FramePairs(self.clips, self._train, **augmented, **self._asked)
        return pipeline.batches(transforms.endless(self._train, pairs, config.loop.seed), rows, config.reading)

    @property
    def _asked(self) -> dict[str, Any]:
        """What every pair of frames is to hold."""
        return {
            "poses": self.config.poses,
            "landmarks": self.update.config.needs_landmarks,
            "depths": bool(self.config.losses.weights.depth),
            "size": self.size,
        }

    def evaluation_data(self, rows: parallel.Rows) -> Iterable[Batch]:
        config = self.config
        pairs = HeldOutPairs(self.clips, self._held_out, per_clip=config.held_out_frames, **self._asked)
        # a pair of each clip, then another of each: so the first batch, which is drawn, shows many persons
        examples = np.arange(len(self._held_out) * config.held_out_frames).reshape(-1, config.held_out_frames).T
        stream = grain.MapDataset.source(examples.reshape(-1).tolist()).seed(0).repeat().random_map(pairs)
        return pipeline.first_batches(stream, rows, -(-examples.size // rows.batch), self.config.reading)

    def evaluate(self, state: State, frozen: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Means over the held-out pairs; see `_compare` for the figures."""
        params = self.update.renderer_params(state, frozen)
        found = [parallel.fetch({"pair": batch["pair"], **self._compare(params, frozen, batch)}) for batch in batches]
        joined = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        _, once = np.unique(joined.pop("pair"), return_index=True)  # the last batch is filled up with pairs seen before
        return {name: float(values[once].mean()) for name, values in joined.items()}

    @functools.cached_property
    def _compare(self) -> Any:
        """Per pair: l1 (of [0, 1]), psnr_db and ssim of the reconstruction and, for comparison, psnr of the source
        itself (copy_psnr_db); keypoint_distance_px, mean distance in the picture between our keypoints of the
        reconstruction and of the driving frame, and how far they are from the source's (copy_keypoint_distance_px);
        pose_error_deg, mean over the angles, between our estimates on the two; and where a target pose is known,
        target_pose_error_deg, of our estimate on the driving frame; and where landmarks are known,
        landmark_distance_px, how far from them the driving frame's keypoints are that the landmark loss draws there,
        turned_distance_px, how far those of the source are, turned to the driving frame's pose, aperture_error_px, how
        far from the truth the driving frame's see the inner lips apart, and canonical_aperture_px, how far the source's
        canonical ones have them apart."""

        def compare(params: Any, frozen: Any, batch: Batch) -> dict[str, jax.Array]:
            source, driving = images_01(batch)
            outcome = self.update.reconstruct(params, source, driving, None, train=False)
            prediction = outcome.made.prediction_01
            model = self.update.bind(params, train=False)
            canonical = model.kp_detector(source).keypoints
            poses = [model.he_estimator(image).head_pose for image in (source, driving, prediction)]
            of_source, of_driving, of_prediction = (transform_keypoints(canonical, pose) for pose in poses)
            drawn = jnp.round(prediction * 255).astype(jnp.uint8)
            figures = {
                "l1": jnp.mean(abs(prediction - driving), (1, 2, 3)),
                "psnr_db": psnr(drawn, batch["driving_u8"]),
                "copy_psnr_db": psnr(batch["source_u8"], batch["driving_u8"]),
                "ssim": ssim(drawn, batch["driving_u8"]),
                "keypoint_distance_px": _distance_px(of_prediction, of_driving, source.shape[1]),
                "copy_keypoint_distance_px": _distance_px(of_source, of_driving, source.shape[1]),
                "pose_error_deg": _pose_error(poses[1], _angles(poses[2])),
            }
            if (target := self.update.known_pose(frozen, batch, driving)) is not None:
                figures["target_pose_error_deg"] = _pose_error(poses[1], target)
            if "driving_landmarks" in batch:
                placed, targets = drawn_to(of_driving, batch["driving_landmarks"])
                figures["landmark_distance_px"] = _distance_px(placed, targets, source.shape[1])
                turned, _ = drawn_to(outcome.made.turned, batch["driving_landmarks"])
                figures["turned_distance_px"] = _distance_px(turned, targets, source.shape[1])
                upper, lower = LIP_PAIRS[0]
                spans = (points[:, [lower]] - points[:, [upper]] for points in (placed, targets))
                figures["aperture_error_px"] = _distance_px(*spans, source.shape[1])
                apart = closed(canonical) * source.shape[1] / 2  # -1 to 1 is the picture
                figures["canonical_aperture_px"] = apart
            return figures

        return jax.jit(compare)

    def pictures(self, state: State, frozen: Any, batch: Batch, path: MediaFolder) -> dict[str, np.ndarray]:
        """The sheet of `renderer_pictures`, of the first pairs."""
        params = self.update.renderer_params(state, frozen)
        others = _others(self._persons(parallel.fetch(batch["clip"])))
        shown = parallel.fetch(self._show(params, batch, others))
        return {"pairs": sheet(Shown(*(None if part is None else part[:PICTURE_ROWS] for part in shown)))}

    @functools.cached_property
    def _show(self) -> Any:
        def show(params: Any, batch: Batch, others: jax.Array) -> Shown:
            source, driving = images_01(batch)
            outcome = self.update.reconstruct(params, source, driving, None, train=False)
            other = driving[others]
            model = self.update.bind(params, train=False)
            canonical = model.kp_detector(source)
            poses = [model.he_estimator(image).head_pose for image in (source, other)]
            keypoints = [transform_keypoints(canonical.keypoints, pose) for pose in poses]
            jacobians = [
                None if canonical.jacobian is None else transform_jacobians(canonical.jacobian, pose) for pose in poses
            ]
            features = model.generator.encode(source)
            crossed = model.generator(features, *keypoints, *jacobians, source_01=source).image_01
            return Shown(
                source,
                driving,
                outcome.made.prediction_01,
                other,
                crossed,
                outcome.made.driving.keypoints,
                outcome.rendering.deformation,
                outcome.rendering.occlusion,
            )

        return jax.jit(show)

    def export(self, state: State, frozen: Any, folder: pathlib.Path) -> None:
        """The bundles `folder`/renderer, for infer.py and for training Audio2Exp, and `folder`/discriminator."""
        renderer = parallel.fetch(self.update.renderer_params(state, frozen))
        judge = parallel.fetch(self.update.discriminator_params(state))
        if not parallel.is_main_process():
            return
        provenance = {"trained_by": "ctjax", "steps": int(state["step"]), "image_size": self.size}
        if self.config.start:
            provenance["started_from"] = self.fingerprints["start"]
        network = self.update.config
        for name, kind, config, params in (
            ("renderer", "facevid2vid", network.renderer, renderer),
            ("discriminator", "discriminator", network.discriminator, judge),
        ):
            weights.save_bundle(
                folder / name, network=kind, config=config, params=params, provenance=provenance, overwrite=True
            )


def _last_map(judge: DiscriminatorConfig, size: int) -> int:
    """How wide the smallest map is that the discriminator makes of pictures of `size` pixels."""
    side = math.ceil(size * min(judge.scales))
    for block in range(judge.num_blocks):
        side -= discriminator.KERNEL - 1
        side = side // 2 if block < judge.num_blocks - 1 else side
    return side


def _in_turn(names: Sequence[str]) -> np.ndarray:
    """Positions of the names in an order that takes each of them once, then each once more, as far as there are."""
    turns = defaultdict(itertools.count)
    return np.argsort([next(turns[name]) for name in names], kind="stable")


def _others(persons: Sequence[str]) -> np.ndarray:
    """For each row the next one of another person, or simply the next one where there is none."""
    rows = range(len(persons))
    following = [[*rows[row + 1 :], *rows[: row + 1]] for row in rows]
    return np.array([next((n for n in after if persons[n] != persons[after[-1]]), after[0]) for after in following])


def _distance_px(a: jax.Array, b: jax.Array, size: int) -> jax.Array:
    """Mean distance in pixels of keypoints "b k 3", in x and y: -1 and 1 are the picture's edges."""
    return jnp.linalg.norm(a[..., :2] - b[..., :2], axis=-1).mean(-1) * size / 2


def _angles(pose: HeadPose) -> tuple[jax.Array, ...]:
    return pose.yaw_deg, pose.pitch_deg, pose.roll_deg


def _pose_error(pose: HeadPose, target_deg: tuple[jax.Array, ...]) -> jax.Array:
    return sum(abs(a - b) for a, b in zip(_angles(pose), target_deg, strict=True)) / 3


Config = RendererTraining


def build(config: RendererTraining) -> RendererTask:
    return RendererTask(config)
