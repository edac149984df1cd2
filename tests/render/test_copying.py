"""Parts of small renderers that are ours: copying from the source, a painter that knows the keypoints, a small mask
kernel, an estimator's own scale."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.data import untrained
from ctjax.nn.module import Network
from ctjax.nn.sampling import corner_grid
from ctjax.render.copying import blended, moved
from ctjax.render.fast.formulation import Formulation
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.generator import SpadeDecoderConfig
from ctjax.render.painter import REACHES, Painter, keypoint_offsets
from ctjax.render.renderer import Renderer

SIZE = 32
PICTURES = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
GRID = jnp.broadcast_to(corner_grid((4, 8, 8)), (2, 4, 8, 8, 3))


def test_without_motion_the_picture_comes_out_as_it_went_in():
    np.testing.assert_allclose(moved(PICTURES, GRID), PICTURES, atol=2e-5)


def test_motion_moves_and_the_edge_goes_on():
    two_cells = jnp.array([2 * 2 / (SIZE - 1), 0.0, 0.0])
    shifted = moved(PICTURES, GRID + two_cells)
    np.testing.assert_allclose(shifted[:, :, :-2], PICTURES[:, :, 2:], atol=2e-5)
    np.testing.assert_allclose(shifted[:, :, -1], PICTURES[:, :, -1], atol=2e-5)


def test_the_last_channel_chooses_between_copy_and_drawing():
    logits = np.zeros((2, SIZE, SIZE, 4), np.float32)
    logits[0, ..., 3], logits[1, ..., 3] = 40, -40
    image_01, drawn_01 = blended(jnp.asarray(logits), PICTURES, GRID)
    np.testing.assert_allclose(image_01[0], PICTURES[0], atol=2e-5)
    np.testing.assert_allclose(image_01[1], 0.5, atol=1e-6)
    np.testing.assert_allclose(drawn_01, 0.5, atol=1e-6)


def test_offsets_say_where_a_keypoint_is():
    keypoints = np.array([[[0.1, -0.2, 0.7], [-0.95, 0.5, 0.0]]], np.float32)
    offsets = np.asarray(keypoint_offsets(keypoints, 8, 16))
    assert offsets.shape == (1, 8, 16, 4 * len(REACHES))
    x, y = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 8))
    expected = [x - 0.1, y + 0.2, x + 0.95, y - 0.5]  # depth says nothing in the picture's plane
    clipped = [np.clip(np.stack(expected, -1) / reach, -1, 1) for reach in REACHES]
    np.testing.assert_allclose(offsets[0], np.concatenate(clipped, -1), atol=1e-5)


def test_a_painter_begins_by_changing_nothing():
    painter = Network(lambda rngs: Painter(4, 15, 8, rngs=rngs))
    logits = np.random.default_rng(2).normal(size=(2, 8, 8, 4)).astype(np.float32)
    keypoints = np.zeros((2, 15, 3), np.float32)
    np.testing.assert_array_equal(painter.bind(painter.init(jax.random.key(0)))(logits, keypoints), logits)


@pytest.mark.full
@pytest.mark.parametrize("decoder", ["plain", "spade"])
def test_the_fast_renderer_is_the_plain_one(decoder):
    base = untrained.RENDERER
    spade = SpadeDecoderConfig(ic=32, oc=8, label_nc=32, hidden=8, middle_blocks=1) if decoder == "spade" else None
    generator = dataclasses.replace(
        base.generator,
        copy_source=True,
        painter=8,
        spade=spade,
        dense_motion=dataclasses.replace(base.generator.dense_motion, mask_kernel=3),
    )
    head = dataclasses.replace(base.he_estimator, scale_factor=0.5)
    config = dataclasses.replace(base, generator=generator, he_estimator=head)
    plain, fast = Renderer(config), FastRenderer(config, Formulation(volumes="depth_taps", mask="depth_taps"))
    params = plain.init(jax.random.key(0))
    last = params["generator"]["painter"]["last"]  # it begins at zero, where it could not be told from none
    last["kernel"] = jax.random.normal(jax.random.key(1), last["kernel"].shape)
    assert params["generator"]["dense_motion_network"]["mask"]["kernel"].shape[:3] == (3, 3, 3)
    assert params["he_estimator"]["down"]["kernel"].ndim == 4
    keypoints = np.random.default_rng(1).uniform(-0.5, 0.5, (3, 2, 15, 3)).astype(np.float32)

    def frames(renderer, params):
        one = renderer.encode_source(params, PICTURES[:1], keypoints[0, :1])
        each = renderer.encode_source(params, PICTURES, keypoints[0])
        pose = renderer.head_pose(params, PICTURES)
        return renderer.drive(params, one, keypoints[1]), renderer.drive(params, each, keypoints[2]), pose.expression

    slow = jax.jit(lambda p: frames(plain, p))(params)
    quick = jax.jit(lambda p: frames(fast, p))(fast.prepare(params))
    for a, b in zip(slow, quick, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4)
    assert float(jnp.abs(slow[0][0] - slow[0][1]).max()) > 1e-3, "the keypoints move something"


def test_a_missing_source_is_named():
    config = dataclasses.replace(untrained.RENDERER.generator, copy_source=True)
    renderer = Renderer(dataclasses.replace(untrained.RENDERER, generator=config))

    def draw(params):
        generator, keypoints = renderer.bind(params).generator, np.zeros((2, 15, 3))
        return generator(generator.encode(PICTURES), keypoints, keypoints)

    with pytest.raises(ValueError, match="give source_01"):
        jax.eval_shape(draw, renderer.abstract)
