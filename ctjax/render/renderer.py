"""The face-vid2vid renderer as one object: keypoints and head pose of an image, and an image from moved keypoints.

    renderer = Renderer(config)
    source = renderer.encode_source(params, image_01, keypoints_source)
    frame_01 = renderer.drive(params, source, keypoints_driving)

These methods evaluate (stored statistics). Training binds the networks itself: `renderer.bind(params, train=True)`
gives a `FaceVid2Vid` whose `generator`, `kp_detector` and `he_estimator` are called like functions, and
`renderer.unbind` the parameters with moved statistics (see `ctjax.nn.module`).

Pictures of any size go through whose sides the hourglass can halve; the reference's `pic_size` matters to it only when
it reads files itself (render.py:175-189), so there is no such field here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.module import Network, Params
from ctjax.nn.resize import low_pass_kernel
from ctjax.render.dense_motion import SADTALKER_MASK_FLOOR, DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, Rendering, SpadeDecoderConfig, build_generator
from ctjax.render.head_estimator import HeadEstimator, HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetector, KeypointDetectorConfig
from ctjax.render.mapping import MappingConfig, MappingNet
from ctjax.types import Array, HeadPose, UserError

ESTIMATORS = ("kp_detector", "he_estimator")  # what looks at a face; the generator draws one


@dataclass(frozen=True)
class RendererConfig:
    """Fields are named after the checkpoint's parts; a part that is None does not exist."""

    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    kp_detector: KeypointDetectorConfig = field(default_factory=KeypointDetectorConfig)
    he_estimator: HeadEstimatorConfig | None = field(default_factory=HeadEstimatorConfig)
    mapping: MappingConfig | None = None

    def __post_init__(self) -> None:
        parts = {"generator": self.generator.dense_motion, "kp_detector": self.kp_detector}
        parts |= {"he_estimator": self.he_estimator, "mapping": self.mapping}
        keypoints = {name: part.num_kp for name, part in parts.items() if part}
        if len(set(keypoints.values())) > 1:
            found = ", ".join(f"{name} {count}" for name, count in keypoints.items())
            raise UserError(f"the renderer's parts have different numbers of keypoints: {found}")


def seen_at(config: RendererConfig, params: Params, scale: float) -> tuple[RendererConfig, Params]:
    """A renderer whose estimators look at pictures scaled by `scale` more, and its parameters.

    So they go on seeing faces at the size that they know when pictures become larger. Pictures are subsampled by whole
    numbers; a scale that asks for another gets the nearest. Only the fixed low-pass filters change.
    """
    scaled, params = {}, dict(params)
    for part in ESTIMATORS:
        if (estimator := getattr(config, part)) is None:
            continue
        stride = max(1, round(1 / (scale * estimator.scale_factor)))
        if stride == estimator.stride:
            continue
        scaled[part] = dataclasses.replace(estimator, scale_factor=1 / stride)
        kept = {name: value for name, value in params[part].items() if name != "down"}
        kernel = low_pass_kernel(1 / stride, estimator.image_channel)
        params[part] = {**kept, "down": {"kernel": kernel}} if stride > 1 else kept
    return dataclasses.replace(config, **scaled), params


def config_from_reference(
    reference: Mapping[str, Any], *, decoder: str = "spade", sadtalker: bool = False
) -> RendererConfig:
    """The config of a reference yaml (ControlTalk's, SadTalker's or the unofficial repository's).

    reference: the yaml as nested mappings, with `model_params`; `decoder_widths` (ic, oc, label_nc) where they are
    not the reference's literals. decoder: "spade" or "original". sadtalker: MappingNet
    in the head estimator's place, and small mask entries cut.
    """
    if decoder not in ("spade", "original"):
        raise ValueError(f"decoder is {decoder!r}, should be 'spade' or 'original'")
    model = reference["model_params"]
    common = model["common_params"]
    shared = {"num_kp": common["num_kp"], "image_channel": common["image_channel"]}
    detector = KeypointDetectorConfig(
        **shared,
        **_pick(model["kp_detector_params"], "block_expansion", "max_features", "num_blocks", "reshape_channel"),
        **_pick(model["kp_detector_params"], "reshape_depth", "temperature", "scale_factor"),
        estimate_jacobian=common["estimate_jacobian"],
    )
    generator = _generator(model, mask_floor=SADTALKER_MASK_FLOOR if sadtalker else 0.0)
    if decoder == "original":
        generator = dataclasses.replace(generator, spade=None)
    else:
        generator = dataclasses.replace(generator, spade=_spade(reference))
    if sadtalker:
        return RendererConfig(generator, detector, he_estimator=None, mapping=MappingConfig(**model["mapping_params"]))
    head = HeadEstimatorConfig(**shared, **_pick(model["he_estimator_params"], "block_expansion", "num_bins"))
    return RendererConfig(generator, detector, head)


def _generator(model: Mapping[str, Any], mask_floor: float) -> GeneratorConfig:
    common, params = model["common_params"], model["generator_params"]
    motion = params["dense_motion_params"]
    return GeneratorConfig(
        image_channel=common["image_channel"],
        **_pick(params, "block_expansion", "max_features", "num_down_blocks"),
        **_pick(params, "reshape_channel", "reshape_depth", "num_resblocks"),
        dense_motion=DenseMotionConfig(
            num_kp=common["num_kp"],
            feature_channel=common["feature_channel"],
            **_pick(motion, "block_expansion", "max_features", "num_blocks", "reshape_depth", "compress"),
            estimate_occlusion_map=params.get("estimate_occlusion_map", False),
            mask_floor=mask_floor,
        ),
    )


def _pick(params: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: params[name] for name in names}


def _spade(reference: Mapping[str, Any]) -> SpadeDecoderConfig:
    # Without `decoder_params` it is a yaml of the unofficial repository or of SadTalker, which always build six
    # blocks; with it, ControlTalk's G_mid_full decides (ControlTalk modules/generator.py:120, 204).
    params = reference["model_params"]["generator_params"].get("decoder_params", {"G_mid_full": True})
    return SpadeDecoderConfig(**reference.get("decoder_widths", {}), middle_blocks=6 if params.get("G_mid_full") else 2)


class FaceVid2Vid(nnx.Module):
    """The renderer's networks side by side, named like the parts of the reference's checkpoints."""

    def __init__(self, config: RendererConfig, *, rngs: nnx.Rngs):
        self.generator = build_generator(config.generator, rngs=rngs)
        self.kp_detector = KeypointDetector(config.kp_detector, rngs=rngs)
        if config.he_estimator is not None:
            self.he_estimator = HeadEstimator(config.he_estimator, rngs=rngs)
        if config.mapping is not None:
            self.mapping = MappingNet(config.mapping, rngs=rngs)


class Source(NamedTuple):
    """All of a source image that its driving frames need. features: "b d h/4 w/4 c"; keypoints: "b k 3"; jacobian:
    "b k 3 3", or None where the detector estimates none; image_01: the picture, where the generator copies from it."""

    features: jax.Array
    keypoints: jax.Array
    jacobian: jax.Array | None = None
    image_01: jax.Array | None = None


class Renderer(Network):
    """Pure functions of `params` (a tree shaped as `abstract`), meant to be called inside `jax.jit`.

    Networks compute in their parameters' dtype; keypoints, angles and images come out in float32.
    """

    def __init__(self, config: RendererConfig):
        super().__init__(lambda rngs: FaceVid2Vid(config, rngs=rngs))
        self.config = config

    def canonical_keypoints(self, params: Params, image_01: Array) -> jax.Array:
        """RGB "b h w 3" -> "b k 3", (x, y, z) in [-1, 1]."""
        return self.bind(params).kp_detector(image_01).keypoints

    def head_pose(self, params: Params, image_01: Array) -> HeadPose:
        """RGB "b h w 3" -> angles in degrees, translation, expression."""
        if self.config.he_estimator is None:
            raise ValueError("this renderer has no head estimator; convert a checkpoint that has `he_estimator`")
        return self.bind(params).he_estimator(image_01).head_pose

    def encode_source(
        self, params: Params, image_01: Array, keypoints_source: Array, jacobian_source: Array | None = None
    ) -> Source:
        """image_01: RGB "b h w 3", sides multiples of 4 * 2 ** num_blocks (128 at full size); keypoints: the image's
        own, posed ("b k 3")."""
        kept = image_01 if self.config.generator.copy_source else None
        return Source(self.bind(params).generator.encode(image_01), keypoints_source, jacobian_source, kept)

    def drive(
        self, params: Params, source: Source, keypoints_driving: Array, jacobian_driving: Array | None = None
    ) -> jax.Array:
        """The source with its keypoints moved to `keypoints_driving` "b k 3" -> RGB float32 "b h w 3" in [0, 1].

        A source of batch 1 serves a batch of driving keypoints.
        """
        return self.render(params, source, keypoints_driving, jacobian_driving).image_01

    def render(
        self, params: Params, source: Source, keypoints_driving: Array, jacobian_driving: Array | None = None
    ) -> Rendering:
        """As `drive`, with mask, deformation and occlusion."""
        batch = keypoints_driving.shape[0]
        source = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, *x.shape[1:])), source)
        return self.bind(params).generator(
            source.features,
            source.keypoints,
            keypoints_driving,
            source.jacobian,
            jacobian_driving,
            source_01=source.image_01,
        )
