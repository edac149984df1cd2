"""One training step of the renderer: two pure updates, one of the renderer, one of the discriminator.

The generator runs once a step: the discriminator's update takes the picture that the renderer's update made.
`RendererUpdate.step(state, frozen, batch) -> (state, metrics)` is both.

state: step, key, params (learned leaves of the renderer), statistics (its batch statistics and power-iteration
vectors), opt_state, ema and ema_moments (moving averages of what was learned and of the batch norms' means and
variances), discriminator {step, params, statistics, opt_state}.
frozen: renderer (leaves that `freeze` names), vgg19, hopenet; the last two where the losses need them.
batch: source_u8 and driving_u8 "b h w 3" of one person each; driving_pose_deg "b 3" (yaw, pitch, roll) where known; and
source_landmarks, driving_landmarks "b 68 2" (-1 to 1 across the picture), source_depths "b 68" (in its half sides) and
driving_inner_mouth "b h w" where a loss needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ctjax.losses import discriminator, hopenet, vgg19
from ctjax.losses.discriminator import DiscriminatorConfig
from ctjax.losses.equivariance import Warp, random_warp, warp_image
from ctjax.losses.hopenet import HopenetConfig
from ctjax.losses.landmark import drawn_to
from ctjax.losses.renderer_total import (
    Posed,
    Reconstruction,
    RendererLossConfig,
    check_scales,
    discriminator_terms,
    generator_terms,
    total,
)
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.motion.keypoints import transform_jacobians, transform_keypoints
from ctjax.nn.module import Params
from ctjax.render.generator import Rendering
from ctjax.render.renderer import FaceVid2Vid, Renderer, RendererConfig
from ctjax.train import optim, partition
from ctjax.train.optim import OptimizerConfig
from ctjax.train.partition import Tree
from ctjax.train.state import follow, new_state, step_key, update
from ctjax.types import HeadPose, UserError

State = dict[str, Any]
Batch = Mapping[str, Array]
POSE_KEY = "driving_pose_deg"
DEPTH_KEY = "source_depths"
LANDMARK_KEYS = ("source_landmarks", "driving_landmarks")
DrawnBy = Literal["estimates", "landmarks", "driving_landmarks"]
INNER_MOUTH_KEY = "driving_inner_mouth"


def default_optimizer() -> OptimizerConfig:
    """Adam as the reference has it: learning rate 2e-4, betas 0.5 and 0.999, no clipping."""
    return OptimizerConfig(lr=2e-4, b1=0.5, b2=0.999, clip=0.0)


@dataclass(frozen=True)
class RendererUpdateConfig:
    """freeze: dotted parts of the renderer that do not learn ("kp_detector", "generator.first"), nor move their
    statistics. compute: dtype of the generator, the discriminator and VGG-19, and of the pictures that the last two are
    shown. Keypoints, pose and every loss stay float32, with one exception: VGG-19's features and the discriminator's
    inner maps are subtracted in the dtype in which they come, and averaged in float32. drawn_by: what the generator
    draws from in training, the estimated keypoints, or, in their places, the landmarks that the landmark loss draws
    them to: small parts of a face are learned only if they lie where the keypoints say, to the pixel.
    "driving_landmarks" leaves the source's as they are estimated, as they will be at inference, so that the generator
    learns what they miss. remat: recompute activations in the backward pass to save memory."""

    renderer: RendererConfig = field(default_factory=RendererConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    losses: RendererLossConfig = field(default_factory=RendererLossConfig)
    optimizer: OptimizerConfig = field(default_factory=default_optimizer)
    discriminator_optimizer: OptimizerConfig = field(default_factory=default_optimizer)
    vgg19: Vgg19Config = field(default_factory=Vgg19Config)
    hopenet: HopenetConfig = field(default_factory=HopenetConfig)
    freeze: tuple[str, ...] = ()
    drawn_by: DrawnBy = "estimates"
    compute: Literal["float32", "bfloat16"] = "float32"
    remat: bool = False

    @property
    def needs_landmarks(self) -> bool:
        return self.losses.weights.needs_landmarks or self.drawn_by != "estimates"

    def __post_init__(self) -> None:
        weights = self.losses.weights
        if self.renderer.he_estimator is None:
            raise ValueError("renderer.he_estimator is None, but training looks at the poses that it estimates")
        if weights.equivariance_jacobian and not self.renderer.kp_detector.estimate_jacobian:
            raise ValueError(
                "losses.weights.equivariance_jacobian has a weight, but the keypoint detector estimates no Jacobians: "
                "set renderer.kp_detector.estimate_jacobian, or the weight to 0"
            )
        if any(weights.feature_matching) and len(weights.feature_matching) < self.discriminator.num_blocks:
            raise ValueError(
                f"losses.weights.feature_matching has {len(weights.feature_matching)} weights, the discriminator "
                f"{self.discriminator.num_blocks} blocks: give one for each"
            )
        check_scales("discriminator.scales", self.discriminator.scales)
        channels = self.renderer.generator.image_channel * self.losses.clip_length
        if self.discriminator.channels != channels:
            raise ValueError(
                f"discriminator.channels is {self.discriminator.channels}, but clips of {self.losses.clip_length} "
                f"frames have {channels}"
            )
        if self.optimizer.micro_batches != 1 or self.discriminator_optimizer.micro_batches != 1:
            raise ValueError(
                "optimizer.micro_batches and discriminator_optimizer.micro_batches must be 1: the renderer's batch "
                "norms need the whole batch at once; use remat instead"
            )


class Outcome(NamedTuple):
    """What a pass through the renderer leaves: `made` for the losses, `rendering` for pictures (None where nothing was
    drawn), `moved` parameters."""

    made: Reconstruction
    rendering: Rendering | None
    moved: Params


def images_01(batch: Batch) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 3"]]:
    """Source and driving frames in [0, 1], float32 (float64 where jax has it switched on, of the same values). Raises
    UserError where they differ in size."""
    source, driving = batch["source_u8"], batch["driving_u8"]
    if source.shape != driving.shape:
        raise UserError(f"source frames are {source.shape[1:]}, driving frames {driving.shape[1:]}: one size is needed")
    return tuple((frames.astype(jnp.float32) / 255).astype(float) for frames in (source, driving))


class RendererUpdate:
    """The networks and both updates for one configuration; holds no arrays."""

    def __init__(self, config: RendererUpdateConfig):
        self.config = config
        self.renderer = Renderer(config.renderer)
        self.discriminator = discriminator.network(config.discriminator)
        self.vgg19 = vgg19.network(config.vgg19)
        self.hopenet = hopenet.network(config.hopenet)
        self.optimizer = optim.build(config.optimizer)
        self.discriminator_optimizer = optim.build(config.discriminator_optimizer)
        trainable = dict(partition.leaves(self.renderer.trainable))
        frozen = partition.under(config.freeze, trainable)
        self.learns: Callable[[partition.Path], bool] = lambda path: trainable[path] and not frozen(path)
        self.is_frozen = frozen
        judged = dict(partition.leaves(self.discriminator.trainable))
        self.discriminator_learns: Callable[[partition.Path], bool] = lambda path: judged[path]

    # --- state ---

    def split(self, params: Params) -> tuple[Tree, Tree, Tree]:
        """The renderer's parameters as (learned, statistics, frozen)."""
        return (
            partition.select(params, self.learns),
            partition.select(params, lambda path: not self.learns(path) and not self.is_frozen(path)),
            partition.select(params, self.is_frozen),
        )

    def init(self, key: jax.Array, renderer: Params | None = None, judge: Params | None = None) -> State:
        """The first state, from fresh parameters or from given ones of the renderer and the discriminator."""
        for_renderer, for_discriminator, for_steps = jax.random.split(key, 3)
        learned, statistics, _ = self.split(self.renderer.init(for_renderer) if renderer is None else renderer)
        judge = self.discriminator.init(for_discriminator) if judge is None else judge
        opponent = new_state(
            partition.select(judge, self.discriminator_learns), self.discriminator_optimizer, for_steps, ema=False
        )
        del opponent["key"]
        opponent["statistics"] = partition.select(judge, lambda path: not self.discriminator_learns(path))
        state = new_state(learned, self.optimizer, for_steps, ema=self.config.optimizer.ema > 0)
        if "ema" in state:
            state["ema_moments"] = jax.tree.map(jnp.array, partition.select(statistics, _is_moment))
        return {**state, "statistics": statistics, "discriminator": opponent}

    def renderer_params(self, state: State, frozen: Mapping[str, Any], *, averaged: bool = True) -> Params:
        """The renderer as it stands: with the moving average of what it learned, unless told otherwise.

        That includes its batch norms' moments: a norm by itself remembers some ten batches, few where they are small,
        and the parameters of the last step rather than the averaged ones.
        """
        if not averaged or "ema" not in state:
            return partition.merge(state["params"], state["statistics"], frozen.get("renderer", {}))
        others = partition.select(state["statistics"], lambda path: not _is_moment(path))
        return partition.merge(state["ema"], others, state["ema_moments"], frozen.get("renderer", {}))

    def discriminator_params(self, state: State) -> Params:
        return partition.merge(state["discriminator"]["params"], state["discriminator"]["statistics"])

    # --- forward ---

    def bind(self, params: Params, *, train: bool) -> FaceVid2Vid:
        """The renderer; in training all but its frozen parts use and move the batch's statistics."""
        model = self.renderer.bind(params, train=train)
        for prefix in self.config.freeze if train else ():
            node = model
            for name in prefix.split("."):
                node = node[int(name)] if name.isdigit() else getattr(node, name)
            if isinstance(node, nnx.Module):
                node.set_attributes(training=False, raise_if_not_found=False)
        return model

    def reconstruct(
        self,
        params: Params,
        source_01: Array,
        driving_01: Array,
        warp: Warp | None,
        *,
        train: bool,
        draw: bool = True,
        landmarks: Sequence[Array | None] = (None, None),
        turn_to: Sequence[Array] | None = None,
    ) -> Outcome:
        """The driving frame from the source's appearance, and what the equivariance loss compares. draw: False leaves
        the generator out, where only keypoints and poses are looked at. landmarks: to draw by, of the source and of
        the driving frame; None for its estimated keypoints. turn_to: yaw, pitch, roll that the driving frame is known
        to have, for `Reconstruction.turned`; None for the estimated ones."""

        def stage(run: Callable[..., Any], params: Params, *inputs: Any) -> tuple[Any, Params]:
            model = self.bind(params, train=train)
            outputs = run(model, *inputs)
            return outputs, self.renderer.unbind(model)

        run = jax.checkpoint(stage, static_argnums=0) if self.config.remat else stage
        warped_01 = None if warp is None else warp_image(warp, driving_01)
        (posed, pose, canonical, turned), params = run(_pose, params, source_01, driving_01, warped_01, turn_to)
        source, driving, warped = posed
        made = Reconstruction(None, driving_01, pose, source, driving, warp, warped, canonical=canonical, turned=turned)
        if not draw:
            return Outcome(made, None, params)
        features, params = run(lambda model, image: model.generator.encode(image), params, source_01)
        places = tuple(
            posed if some is None else _moved_to(posed, some)
            for posed, some in zip((source, driving), landmarks, strict=True)
        )
        rendering, params = run(_draw, params, features, *places, source_01)
        return Outcome(made._replace(prediction_01=rendering.image_01, drawn_01=rendering.drawn_01), rendering, params)

    def known_pose(self, frozen: Mapping[str, Any], batch: Batch, driving_01: Array) -> tuple[Array, ...] | None:
        """Yaw, pitch and roll "b" that the driving frames should have: the batch's if it has them, else Hopenet's."""
        if POSE_KEY in batch:
            return tuple(batch[POSE_KEY].astype(jnp.float32).T)
        if "hopenet" in frozen:
            return jax.lax.stop_gradient(hopenet.head_pose(self.hopenet.bind(frozen["hopenet"]), driving_01))
        return None

    def check_frozen(self, frozen: Mapping[str, Any], *, known_poses: bool) -> None:
        """Raises UserError, which says what would supply it, where a loss has a weight but not what it needs."""
        weights = self.config.losses.weights
        if any(weights.perceptual) and "vgg19" not in frozen:
            raise UserError(
                "the perceptual loss needs VGG-19: set config.vgg19 to a converted bundle (python -m convert vgg19), "
                "or config.losses.weights.perceptual to zeros"
            )
        if weights.head_pose and not known_poses and "hopenet" not in frozen:
            raise UserError(
                "the head-pose loss has no target: set config.hopenet to a converted bundle (python -m convert "
                "hopenet), or config.poses to 'truth' or 'estimated' for records that hold poses, or "
                "config.losses.weights.head_pose to 0"
            )

    def cast(self, params: Params, learns: Callable[[partition.Path], bool]) -> Params:
        """Parameters in the computing dtype; statistics keep float32."""
        if self.config.compute == "float32":
            return params
        narrow = partition.select(params, learns)
        kept = partition.select(params, lambda path: not learns(path))
        return partition.merge(jax.tree.map(lambda leaf: leaf.astype(self.config.compute), narrow), kept)

    # --- objectives: pure, without state ---

    def generator_objective(
        self,
        learned: Tree,
        others: Tree,
        judge: Params,
        frozen: Mapping[str, Any],
        batch: Batch,
        warp: Warp | None,
        *,
        train: bool = True,
    ) -> tuple[Array, tuple[dict[str, Array], Outcome, Params]]:
        """Sum of the renderer's losses; and (each mean, the pass, the discriminator with its moved vectors)."""
        self.check_frozen(frozen, known_poses=POSE_KEY in batch)
        source_01, driving_01 = images_01(batch)
        trainable = dict(partition.leaves(self.renderer.trainable))
        params = partition.merge(learned, others)
        params = self.cast(params, lambda path: path[0] == "generator" and trainable[path])
        weights = self.config.losses.weights
        landmarks = [batch[key] for key in LANDMARK_KEYS] if self.config.needs_landmarks else None
        by = (None, None) if landmarks is None else self._places(*landmarks)
        known = self.known_pose(frozen, batch, driving_01) if weights.head_pose or weights.turned else None
        outcome = self.reconstruct(
            params,
            source_01,
            driving_01,
            warp,
            train=train,
            draw=weights.looks_at_pictures,
            landmarks=by,
            turn_to=known,
        )
        critic = self.discriminator.bind(self.cast(judge, self.discriminator_learns), train=train)
        terms = generator_terms(
            outcome.made,
            self.config.losses,
            vgg=self._bind_vgg(frozen),
            discriminator=self._narrowing(critic),
            target_deg=known,
            landmarks=landmarks,
            source_depths=batch[DEPTH_KEY] if weights.depth else None,
            inner_mouth=batch[INNER_MOUTH_KEY] if weights.inner_mouth else None,
        )
        value, means = total(terms)
        return value, (means, outcome, self.discriminator.unbind(critic))

    def _places(self, of_source: Array, of_driving: Array) -> tuple[Array | None, Array | None]:
        """The landmarks to draw by."""
        by = self.config.drawn_by
        return (of_source if by == "landmarks" else None, None if by == "estimates" else of_driving)

    def discriminator_objective(
        self, learned: Tree, statistics: Tree, prediction_01: Array, batch: Batch, *, train: bool = True
    ) -> tuple[Array, tuple[dict[str, Array], Params]]:
        """The discriminator's loss on a picture already made; and (its mean, itself with moved vectors)."""
        _, driving_01 = images_01(batch)
        params = self.cast(partition.merge(learned, statistics), self.discriminator_learns)
        critic = self.discriminator.bind(params, train=train)
        judge = self._narrowing(critic)
        terms = discriminator_terms(prediction_01, driving_01, self.config.losses, discriminator=judge)
        value, means = total(terms)
        return value, (means, self.discriminator.unbind(critic))

    def _narrowing(self, network: Callable[[Array], Any]) -> Callable[[Array], Any]:
        """`network` behind a cast of its pictures to the computing dtype; all others see them as they are."""
        if self.config.compute == "float32":
            return network
        return lambda image_01: network(image_01.astype(self.config.compute))

    def _bind_vgg(self, frozen: Mapping[str, Any]) -> Callable[[Array], Any] | None:
        if not any(self.config.losses.weights.perceptual):
            return None
        vgg = self._narrowing(self.vgg19.bind(self.cast(frozen["vgg19"], lambda path: True)))
        return jax.checkpoint(vgg) if self.config.remat else vgg

    # --- updates ---

    def generator_update(
        self, state: State, frozen: Mapping[str, Any], batch: Batch
    ) -> tuple[State, dict[str, Array], Array | None]:
        """`state` after the renderer learned from `batch`, the losses, and the picture for the discriminator, None
        where no loss looks at pictures."""
        warp = None
        if self.config.losses.needs_warp:
            warp = random_warp(step_key(state), batch["driving_u8"].shape[0], self.config.losses.warp)
        others = partition.merge(state["statistics"], frozen.get("renderer", {}))
        judge = self.discriminator_params(state)
        objective = jax.value_and_grad(self.generator_objective, has_aux=True)
        (value, (means, outcome, judge)), gradient = objective(state["params"], others, judge, frozen, batch, warp)
        new, more = update(state, gradient, self.optimizer, self.config.optimizer)
        new["statistics"] = self.split(outcome.moved)[1]
        if "ema_moments" in state:
            moments = partition.select(new["statistics"], _is_moment)
            new["ema_moments"] = follow(state["ema_moments"], moments, state["step"], self.config.optimizer.ema)
        moved = partition.select(judge, lambda path: not self.discriminator_learns(path))
        new["discriminator"] = {**state["discriminator"], "statistics": moved}
        metrics = {"loss": value, **means, "gradient_norm": more["gradient_norm"]}
        return new, metrics, jax.lax.stop_gradient(outcome.made.prediction_01)

    def discriminator_update(self, state: State, prediction_01: Array, batch: Batch) -> tuple[State, dict[str, Array]]:
        """`state` after the discriminator learned to tell `prediction_01` from the driving frames."""
        opponent = state["discriminator"]
        objective = jax.value_and_grad(self.discriminator_objective, has_aux=True)
        (_, (means, moved)), gradient = objective(opponent["params"], opponent["statistics"], prediction_01, batch)
        optimizer, config = self.discriminator_optimizer, self.config.discriminator_optimizer
        new, more = update(opponent, gradient, optimizer, config)
        new["statistics"] = partition.select(moved, lambda path: not self.discriminator_learns(path))
        metrics = {**means, "discriminator_gradient_norm": more["gradient_norm"]}
        return {**state, "discriminator": new}, metrics

    def step(self, state: State, frozen: Mapping[str, Any], batch: Batch) -> tuple[State, dict[str, Array]]:
        """Both updates, one after the other."""
        state, metrics, prediction_01 = self.generator_update(state, frozen, batch)
        if not self.config.losses.weights.discriminator_gan:
            return state, metrics
        state, more = self.discriminator_update(state, prediction_01, batch)
        return state, {**metrics, **more}


def _is_moment(path: partition.Path) -> bool:
    return path[-1] in ("mean", "var")


def _pose(
    model: FaceVid2Vid,
    source_01: Array,
    driving_01: Array,
    warped_01: Array | None,
    turn_to: Sequence[Array] | None,
) -> tuple[tuple[Posed, Posed, Posed | None], HeadPose, Array, Array]:
    """Posed keypoints of source, driving and warped driving frames, the driving frames' pose, the source's canonical
    keypoints, and these in the driving frames' pose, as known or estimated, with the source's own expression.

    The canonical keypoints are the source's for all three, the warped frame's too
    (ControlTalk modules/model.py:309-326).
    """
    canonical = model.kp_detector(source_01)

    def posed(image_01: Array) -> tuple[Posed, HeadPose]:
        pose = model.he_estimator(image_01).head_pose
        jacobian = None if canonical.jacobian is None else transform_jacobians(canonical.jacobian, pose)
        return Posed(transform_keypoints(canonical.keypoints, pose), jacobian), pose

    source, of_source = posed(source_01)
    driving, pose = posed(driving_01)
    warped = None if warped_01 is None else posed(warped_01)[0]
    # By the estimated pose alone, depths would be asked for before it is one, and settle wherever they are then.
    angles = {} if turn_to is None else dict(zip(HeadPose._fields, turn_to, strict=False))
    turned = transform_keypoints(canonical.keypoints, pose._replace(expression=of_source.expression, **angles))
    return (source, driving, warped), pose, canonical.keypoints, turned


def _moved_to(posed: Posed, landmarks: Array) -> Posed:
    """Keypoints in the places of their landmarks, as deep as they were."""
    _, places = drawn_to(posed.keypoints, landmarks)
    return posed._replace(keypoints=posed.keypoints.at[:, : places.shape[1], :2].set(places))


def _draw(model: FaceVid2Vid, features: Array, source: Posed, driving: Posed, source_01: Array) -> Rendering:
    keypoints = (source.keypoints, driving.keypoints, source.jacobian, driving.jacobian)
    return model.generator(features, *keypoints, source_01=source_01)
