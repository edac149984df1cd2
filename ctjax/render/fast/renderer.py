"""The face-vid2vid renderer in the fast formulation: the same methods as `render.renderer.Renderer`.

    renderer = FastRenderer(config)
    prepared = jax.device_put(renderer.prepare(params))     # once, on the host
    source = renderer.encode_source(prepared, image_01, keypoints_source)
    frame_01 = renderer.drive(prepared, source, keypoints_driving)

Everything is equal to the plain renderer up to rounding: norms are folded into convolutions, nothing is upsampled
before a convolution, keypoint motions are constant resamplings, and convolutions run as the `Formulation` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.nn.fast.convolution import Layout, convolve, image_layout
from ctjax.nn.module import Network, Params
from ctjax.nn.sampling import grid_sample
from ctjax.render.dense_motion import Motion
from ctjax.render.fast.appearance import at_least_float32, encode, prepare_appearance
from ctjax.render.fast.decoder import decode_plain, decode_spade, prepare_plain, prepare_spade
from ctjax.render.fast.fold import bare, depth_last, with_norm
from ctjax.render.fast.formulation import Formulation, default_formulation
from ctjax.render.fast.keypoints import detect, prepare_keypoints
from ctjax.render.fast.motion import compressed_features, dense_motion, prepare_motion
from ctjax.render.fast.painter import paint, prepare_painter
from ctjax.render.generator import THIRD_SLOPE, Rendering, finish
from ctjax.render.head_estimator import HeadEstimator
from ctjax.render.renderer import RendererConfig
from ctjax.types import Array, HeadPose


class FastSource(NamedTuple):
    """All of a source image that its driving frames need, computed once per image.

    features: "b d h/4 w/4 c"; compressed: the channels that motion is estimated from, "b c d h/4 w/4";
    keypoints: float32 "b k 3"; image_01: the picture, where the generator copies from it.
    """

    features: jax.Array
    compressed: jax.Array
    keypoints: jax.Array
    image_01: jax.Array | None = None


class FastRenderer:
    """Pure functions of prepared parameters, meant to be called inside `jax.jit`. Evaluation only."""

    def __init__(self, config: RendererConfig, formulation: Formulation | None = None):
        """formulation: `default_formulation()` of the platform that jax runs on, if None. Raises where the config
        asks for what only the plain renderer does."""
        if config.kp_detector.estimate_jacobian:
            raise ValueError("the fast renderer has no jacobians; use ctjax.render.renderer.Renderer for this config")
        self.config = config
        self.formulation = formulation or default_formulation()
        head = config.he_estimator
        self._head = None if head is None else Network(lambda rngs: HeadEstimator(head, rngs=rngs))

    def prepare(self, params: Params) -> Layout:
        """The plain renderer's parameters, folded and laid out: numpy arrays in the formulation's dtype.

        Runs on the host in float64. Do it once, put the result on the devices, pass it as an argument.
        """
        generator, formulation = params["generator"], self.formulation
        config = self.config.generator
        kernel, bias = with_norm(generator["third"]["conv"], generator["third"]["norm"])
        prepared: Layout = {
            "appearance": prepare_appearance(generator, config, formulation),
            "motion": prepare_motion(generator["dense_motion_network"], config.dense_motion, formulation),
            "third": image_layout(
                kernel[:, :, depth_last(config.max_features, config.reshape_depth)], bias, formulation.images
            ),
            "fourth": image_layout(*bare(generator["fourth"]), "direct"),
            "decoder": prepare_plain(generator, config, formulation)
            if config.spade is None
            else prepare_spade(generator["decoder"], config.spade, formulation),
            "kp_detector": prepare_keypoints(params["kp_detector"], self.config.kp_detector, formulation),
        }
        if config.painter:
            prepared["painter"] = prepare_painter(generator["painter"])
        if self._head is not None:
            prepared["he_estimator"] = params["he_estimator"]
        dtype = jnp.dtype(formulation.dtype)
        return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf, dtype), prepared)

    def canonical_keypoints(self, prepared: Layout, image_01: Array) -> jax.Array:
        """RGB "b h w 3" -> "b k 3", (x, y, z) in [-1, 1]."""
        return self._frames(
            lambda image: detect(prepared["kp_detector"], self._cast(image), self.config.kp_detector), image_01
        )

    def head_pose(self, prepared: Layout, image_01: Array) -> HeadPose:
        """RGB "b h w 3" -> angles in degrees, translation, expression."""
        if self._head is None:
            raise ValueError("this renderer has no head estimator; convert a checkpoint that has `he_estimator`")
        return self._head.bind(prepared["he_estimator"])(image_01).head_pose

    def encode_source(self, prepared: Layout, image_01: Array, keypoints_source: Array) -> FastSource:
        """image_01: RGB "b h w 3", sides multiples of 4 * 2 ** num_blocks (128 at full size); keypoints: the image's
        own, posed ("b k 3")."""
        return self._frames(
            lambda image, keypoints: self._encode(prepared, image, keypoints), image_01, keypoints_source
        )

    def drive(self, prepared: Layout, source: FastSource, keypoints_driving: Array) -> jax.Array:
        """The source with its keypoints moved to `keypoints_driving` "b k 3" -> RGB float32 "b h w 3" in [0, 1].

        A source of batch 1 serves a batch of driving keypoints.
        """
        return self._drive(prepared, source, keypoints_driving, lambda rendering: rendering.image_01)

    def render(self, prepared: Layout, source: FastSource, keypoints_driving: Array) -> Rendering:
        """As `drive`, with mask, deformation and occlusion."""
        return self._drive(prepared, source, keypoints_driving, lambda rendering: rendering)

    def _drive(
        self, prepared: Layout, source: FastSource, keypoints_driving: Array, of: Callable[[Rendering], Any]
    ) -> Any:
        if source.keypoints.shape[0] == 1:
            return self._frames(lambda keypoints: of(self._render(prepared, source, keypoints)), keypoints_driving)
        return self._frames(
            lambda source, keypoints: of(self._render(prepared, source, keypoints)), source, keypoints_driving
        )

    def _frames(self, function: Callable[..., Any], *batch: Any) -> Any:
        """`function` of the whole batch at once, or frame by frame in a compiled loop."""
        frames = jax.tree.leaves(batch)[0].shape[0]
        if frames == 1 or self.formulation.frames == "together":
            return function(*batch)
        one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], batch)
        many = jax.lax.map(lambda frame: function(*frame), one)
        return jax.tree.map(lambda leaf: leaf[:, 0], many)

    def _encode(self, prepared: Layout, image_01: Array, keypoints: Array) -> FastSource:
        features = encode(prepared["appearance"], self._cast(image_01), self.config.generator.reshape_depth)
        return FastSource(
            features,
            compressed_features(prepared["motion"], features),
            at_least_float32(jnp.asarray(keypoints)),
            jnp.asarray(image_01) if self.config.generator.copy_source else None,
        )

    def _render(self, prepared: Layout, source: FastSource, keypoints_driving: Array) -> Rendering:
        config = self.config.generator
        motion: Motion = dense_motion(
            prepared["motion"], config.dense_motion, source.compressed, source.keypoints, keypoints_driving
        )
        # Sampling places in the order "h w d" give "h w (d c)", the decoder's layout, without a transpose.
        places = jnp.moveaxis(motion.deformation, 1, 3)
        batch = places.shape[0]
        features = jnp.broadcast_to(source.features, (batch, *source.features.shape[1:]))
        warped = grid_sample(features, places)
        x = convolve(prepared["third"], warped.reshape(*warped.shape[:3], -1))
        x = convolve(prepared["fourth"], jax.nn.leaky_relu(x, THIRD_SLOPE))
        if motion.occlusion is not None:
            x = x * motion.occlusion.astype(x.dtype)
        if config.spade is None:
            logits = decode_plain(prepared["decoder"], x)
        else:
            logits = decode_spade(prepared["decoder"], x, config.spade)
        if config.painter:
            logits = paint(prepared["painter"], logits, keypoints_driving)
        return finish(logits, config, source.image_01, motion)

    def _cast(self, image_01: Array) -> jax.Array:
        return jnp.asarray(image_01, self.formulation.dtype)
