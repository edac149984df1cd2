"""The weighted terms of renderer training, and the one place where they are put together.

Every term is "b" values (one per example; one per clip for the adversarial terms where clips are judged), already
multiplied by its weight, as the reference reports them. `total` takes the means and adds them up
(ControlTalk modules/model.py, GeneratorFullModel and DiscriminatorFullModel).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ctjax.losses import equivariance, gan, pose_prior
from ctjax.losses.discriminator import Discriminator, Verdict, inner_maps, predictions, stack_clips
from ctjax.losses.equivariance import Warp, WarpConfig
from ctjax.losses.keypoint_prior import keypoint_prior
from ctjax.losses.landmark import closed, depth, landmark, lips, turned
from ctjax.losses.mouth import inner_mouth_pixel, mouth_pixel
from ctjax.losses.perceptual import mean_per_example, perceptual
from ctjax.losses.vgg19 import CONVOLUTIONS_PER_BLOCK, Vgg19
from ctjax.types import HeadPose

Terms = dict[str, Float[Array, " b"]]


@dataclass(frozen=True)
class LossWeights:
    """The reference's defaults. perceptual: per VGG layer; feature_matching: per discriminator block; pixel: mean
    absolute difference; mouth_pixel: the same around the mouth alone; mouth_drawn: the same of what the decoder drew
    there, before the source was blended in, without which it learns nothing where copying is good enough; inner_mouth:
    both between the lips alone, see `ctjax.losses.mouth.inner_mouth_pixel`; landmark, lips, turned, closed, depth:
    see `ctjax.losses.landmark`; the reference has none of these nine. A term of weight 0 is not computed."""

    perceptual: tuple[float, ...] = (10.0,) * 5
    generator_gan: float = 1.0
    discriminator_gan: float = 1.0
    feature_matching: tuple[float, ...] = (10.0,) * 4
    equivariance_value: float = 10.0
    equivariance_jacobian: float = 0.0
    keypoint: float = 10.0
    head_pose: float = 20.0
    expression: float = 5.0
    pixel: float = 0.0
    mouth_pixel: float = 0.0
    mouth_drawn: float = 0.0
    inner_mouth: float = 0.0
    landmark: float = 0.0
    lips: float = 0.0
    turned: float = 0.0
    closed: float = 0.0
    depth: float = 0.0

    def __post_init__(self) -> None:
        if len(self.perceptual) != (layers := len(CONVOLUTIONS_PER_BLOCK)):
            raise ValueError(f"perceptual has {len(self.perceptual)} weights, VGG-19 gives {layers} layers")
        if (self.closed or self.depth) and not (self.landmark or self.lips or self.turned):
            raise ValueError("closed and depth are about keypoints on landmarks: give landmark a weight as well")

    @property
    def looks_at_pictures(self) -> bool:
        """Whether any term needs the generator's picture; keypoints and poses are learned without."""
        mouth = (self.mouth_pixel, self.mouth_drawn, self.inner_mouth)
        return self.asks_discriminator or any((*self.perceptual, *mouth, self.pixel))

    @property
    def asks_discriminator(self) -> bool:
        return any((self.generator_gan, self.discriminator_gan, *self.feature_matching))

    @property
    def needs_landmarks(self) -> bool:
        points = (self.landmark, self.lips, self.turned, self.depth)
        return any((*points, self.mouth_pixel, self.mouth_drawn, self.inner_mouth))


@dataclass(frozen=True)
class RendererLossConfig:
    """gan_mode: hinge or ls. mouth: adversarial terms count the mouth region again (see `ctjax.losses.gan`).
    perceptual_scales: of the image pyramid. clip_length: consecutive frames that the discriminator judges as one."""

    weights: LossWeights = field(default_factory=LossWeights)
    gan_mode: Literal["hinge", "ls"] = "hinge"
    mouth: bool = True
    perceptual_scales: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    warp: WarpConfig = field(default_factory=WarpConfig)
    clip_length: int = 1

    def __post_init__(self) -> None:
        check_scales("perceptual_scales", self.perceptual_scales)

    @property
    def needs_warp(self) -> bool:
        return self.weights.equivariance_value != 0 or self.weights.equivariance_jacobian != 0


def takes_every_nth(scale: float) -> bool:
    """Whether pictures can be scaled by `scale`, which is done by taking every n-th pixel: it must be 1 / n."""
    return 0 < scale <= 1 and (1 / scale).is_integer()


def check_scales(name: str, scales: Sequence[float]) -> None:
    """Raises ValueError for an image pyramid that cannot be built."""
    if not scales or not all(map(takes_every_nth, scales)):
        raise ValueError(f"{name} must be some of 1, 1/2, 1/3, 1/4 and so on, not {tuple(scales)}")


class Posed(NamedTuple):
    """Keypoints "b k 3" after pose and expression, and their Jacobians "b k 3 3" where the detector has them."""

    keypoints: Float[Array, "b k 3"]
    jacobian: Float[Array, "b k 3 3"] | None = None


class Reconstruction(NamedTuple):
    """What the losses look at, all of it float32 at least. prediction_01, driving_01: "b h w 3", the first None where
    nothing was drawn; drawn_01: the prediction before the source was blended in; pose: estimated on the driving frames;
    source, driving, warped: keypoints of the source and driving frames, and of the latter under `warp` (None without
    equivariance); canonical: the source's keypoints before pose and expression, "b k 3", and turned: the same in the
    driving frame's pose, the source's own expression kept."""

    prediction_01: Float[Array, "b h w 3"] | None
    driving_01: Float[Array, "b h w 3"]
    pose: HeadPose
    source: Posed
    driving: Posed
    warp: Warp | None = None
    warped: Posed | None = None
    drawn_01: Float[Array, "b h w 3"] | None = None
    canonical: Float[Array, "b k 3"] | None = None
    turned: Float[Array, "b k 3"] | None = None


def judged(frames_01: Float[Array, "b h w 3"], config: RendererLossConfig) -> Float[Array, "n h w c"]:
    """What the discriminator sees: the frames, or clips stacked on channels."""
    return stack_clips(frames_01, config.clip_length) if config.clip_length > 1 else frames_01


def generator_terms(
    made: Reconstruction,
    config: RendererLossConfig,
    *,
    vgg: Vgg19 | None,
    discriminator: Discriminator,
    target_deg: Sequence[Float[Array, " b"]] | None,
    landmarks: Sequence[Float[Array, "b 68 2"]] | None = None,
    source_depths: Float[Array, "b 68"] | None = None,
    inner_mouth: Bool[Array, "b h w"] | None = None,
) -> Terms:
    """The renderer's side. target_deg: yaw, pitch, roll of the driving frames, from a teacher or from the records.
    landmarks: of the source and the driving frames, -1 to 1 across the picture; source_depths: of the source's
    landmarks, on the same scale; inner_mouth: which pixels of the driving frames lie between the lips; each where a
    loss needs it.
    """
    weights = config.weights
    terms: Terms = {}
    if any(weights.perceptual):
        terms["perceptual"] = perceptual(
            vgg, made.prediction_01, made.driving_01, scales=config.perceptual_scales, weights=weights.perceptual
        )
    terms.update(_adversarial(made, config, discriminator))
    terms.update(_equivariance(made, weights))
    if weights.keypoint:
        terms["keypoint"] = weights.keypoint * keypoint_prior(made.driving.keypoints)
    if weights.head_pose:
        angles = (made.pose.yaw_deg, made.pose.pitch_deg, made.pose.roll_deg)
        terms["head_pose"] = weights.head_pose * pose_prior.head_pose(angles, target_deg)
    if weights.expression:
        terms["expression"] = weights.expression * pose_prior.expression(made.pose.expression)
    if weights.pixel:
        terms["pixel"] = weights.pixel * mean_per_example(abs(made.prediction_01 - made.driving_01))
    for name, picture_01 in (("mouth_pixel", made.prediction_01), ("mouth_drawn", made.drawn_01)):
        if weight := getattr(weights, name):
            terms[name] = weight * mouth_pixel(picture_01, made.driving_01, landmarks[1])
    if weights.inner_mouth:
        both = [inner_mouth_pixel(x, made.driving_01, inner_mouth) for x in (made.prediction_01, made.drawn_01)]
        terms["inner_mouth"] = jnp.broadcast_to(weights.inner_mouth * sum(both), made.driving_01.shape[:1])
    for name, distance in (("landmark", landmark), ("lips", lips)):
        if weight := getattr(weights, name):
            pairs = zip((made.source, made.driving), landmarks, strict=True)
            terms[name] = weight * sum(distance(posed.keypoints, targets) for posed, targets in pairs)
    if weights.turned:
        terms["turned"] = weights.turned * turned(made.turned, landmarks[1])
    if weights.closed:
        terms["closed"] = weights.closed * closed(made.canonical)
    if weights.depth:
        terms["depth"] = weights.depth * depth(made.canonical, source_depths)
    return terms


def _adversarial(made: Reconstruction, config: RendererLossConfig, discriminator: Discriminator) -> Terms:
    weights = config.weights
    if not (weights.generator_gan or any(weights.feature_matching)):
        return {}
    terms: Terms = {}
    fake = discriminator(judged(made.prediction_01, config))
    if weights.generator_gan:
        adversarial = gan.generator_loss(_scores(fake), mode=config.gan_mode, mouth=config.mouth)
        terms["generator_gan"] = weights.generator_gan * adversarial
    if any(weights.feature_matching):
        real = jax.lax.stop_gradient(inner_maps(discriminator(judged(made.driving_01, config))))
        terms["feature_matching"] = gan.feature_matching(
            real, inner_maps(fake), weights=weights.feature_matching, mouth=config.mouth
        )
    return terms


def _scores(verdicts: Sequence[Verdict]) -> list[Float[Array, "b _ _ 1"]]:
    """What the discriminator says, in float32 at least: its losses are as exact as its answer."""
    return [maps.astype(jnp.promote_types(maps.dtype, jnp.float32)) for maps in predictions(verdicts)]


def _equivariance(made: Reconstruction, weights: LossWeights) -> Terms:
    terms: Terms = {}
    if weights.equivariance_value:
        value = equivariance.equivariance_value(made.warp, made.driving.keypoints, made.warped.keypoints)
        terms["equivariance_value"] = weights.equivariance_value * value
    if weights.equivariance_jacobian:
        terms["equivariance_jacobian"] = weights.equivariance_jacobian * equivariance.equivariance_jacobian(
            made.warp, made.driving.jacobian, made.warped.jacobian, made.warped.keypoints
        )
    return terms


def discriminator_terms(
    prediction_01: Float[Array, "b h w 3"],
    driving_01: Float[Array, "b h w 3"],
    config: RendererLossConfig,
    *,
    discriminator: Discriminator,
) -> Terms:
    """The discriminator's side; `prediction_01` is taken as it is, without a gradient into the renderer."""
    fake = discriminator(jax.lax.stop_gradient(judged(prediction_01, config)))
    real = discriminator(judged(driving_01, config))
    loss = gan.discriminator_loss(_scores(real), _scores(fake), mode=config.gan_mode, mouth=config.mouth)
    return {"discriminator_gan": config.weights.discriminator_gan * loss}


def total(terms: Terms) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of the terms' means, and each mean."""
    means = {name: jnp.mean(values) for name, values in terms.items()}
    return sum(means.values(), start=jnp.zeros((), jnp.float32)), means
