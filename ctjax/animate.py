"""Sound and a source face to an image: the one composition of motion and renderer, for inference and for training.

    source = encode(renderer, params, image_01, canonical, own_pose)
    frame_01 = animate(renderer, audio2exp, params, source, canonical, pose, speech, silence, alpha)

`renderer` is a `ctjax.render.renderer.Renderer` or anything with its methods (the fast one), `audio2exp` a
`ctjax.motion.audio2exp.Audio2Exp`, and `speech` and `silence` embeddings by its `embed`, so that what is heard again
is computed once; `params` is {"renderer": ..., "audio2exp": ...}. Pure functions, to be called inside `jax.jit`. A
batch of one, of the source, the keypoints, the pose or the silence, serves all frames. Pictures are RGB from end to
end; the released training holds BGR and swaps before and after the renderer (model.py:133-134).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctjax.motion.alpha import SILENCE_ALPHA
from ctjax.motion.audio2exp import Audio2Exp
from ctjax.motion.keypoints import transform_keypoints
from ctjax.nn.module import Params
from ctjax.types import HeadPose


def encode(
    renderer: Any,
    params: Params,
    image_01: Float[Array, "b h w 3"],
    canonical: Float[Array, "b k 3"],
    head_pose: HeadPose,
) -> Any:
    """All of a source image that its frames need. canonical, head_pose: the image's own, as the renderer estimates
    them; RGB in [0, 1]."""
    return renderer.encode_source(params["renderer"], image_01, transform_keypoints(canonical, head_pose))


def animate(
    renderer: Any,
    audio2exp: Audio2Exp,
    params: Params,
    source: Any,
    canonical: Float[Array, "#b k 3"],
    head_pose: HeadPose,
    speech: Float[Array, "b e"],
    silence: Float[Array, "#b e"],
    alpha: float | Array,
    *,
    silence_alpha: float | Array = SILENCE_ALPHA,
) -> Float[Array, "b h w 3"]:
    """The source speaking: RGB float32 in [0, 1].

    canonical: the source's keypoints. head_pose: pose and expression to show, before the sound changes it; the
    source's own, or a driving video's (ControlTalk inference.py:338-354). speech, silence: embeddings.
    alpha, silence_alpha: one number, or one per frame; silence_alpha 0 leaves the silent pass out (the released
    training does so half of the time, and else gives alpha to both passes: model.py:111-115).
    """
    moved = animated_keypoints(
        audio2exp, params["audio2exp"], canonical, head_pose, speech, silence, alpha, silence_alpha=silence_alpha
    )
    return renderer.drive(params["renderer"], source, moved)


def animated_keypoints(
    audio2exp: Audio2Exp,
    params: Params,
    canonical: Float[Array, "#b k 3"],
    head_pose: HeadPose,
    speech: Float[Array, "b e"],
    silence: Float[Array, "#b e"],
    alpha: float | Array,
    *,
    silence_alpha: float | Array = SILENCE_ALPHA,
) -> Float[Array, "b k 3"]:
    """Keypoints K = R Kc + T + E' of the speaking face (paper eq. 1 and 3); as in `animate`, `params` Audio2Exp's."""
    expression = audio2exp.silence_then_speech(
        params, speech, silence, head_pose.expression, alpha, silence_alpha=silence_alpha
    )
    pose = jax.tree.map(lambda x: jnp.broadcast_to(x, (expression.shape[0], *x.shape[1:])), head_pose)
    return transform_keypoints(canonical, pose._replace(expression=expression))
