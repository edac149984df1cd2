"""The mouth's box, crop and mask, the losses that look at it or around it, and the terms of the total."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from ctjax.faces.mouth import mouth_boxes
from ctjax.losses import lip_sync, total
from ctjax.losses.masked_perceptual import masked_pixels
from ctjax.losses.mouth import LIPS, crop_boxes, inner_mouth_pixel, mouth_mask, mouth_pixel
from ctjax.losses.renderer_total import LossWeights, Posed, Reconstruction, RendererLossConfig, generator_terms
from ctjax.losses.sync_expert import info_nce, paired_bce
from ctjax.losses.total import Audio2ExpWeights
from ctjax.nn.sampling import corner_grid
from ctjax.render.copying import blended
from ctjax.types import HeadPose

NOTHING = LossWeights(
    **{f.name: (0.0,) * n if (n := np.size(f.default)) > 1 else 0.0 for f in dataclasses.fields(LossWeights)}
)


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(0), (2, 40, 48, 3))


def test_boxes_are_the_references_up_to_its_whole_pixels():
    record = parity.Record("crop")
    landmarks, sizes, expected = (
        record.inputs["lm"],
        record.inputs["mouth_pic_size"],
        record.outputs["mouth_box_float64"],
    )
    compared = 0
    for case, (points, pic_size, (y0, y1, x0, x1)) in enumerate(zip(landmarks, sizes, expected, strict=True)):
        if pic_size != 256 or record.outputs["mouth_msg_float64"][case] or np.any(expected[case] < 1):
            continue
        if y1 - y0 < 60:  # the reference truncates the radius first, so small boxes differ by a larger share
            continue
        found = mouth_boxes(points[None], steady=False)[0]
        # the reference cuts the radius to a whole pixel, which is 2.25 of height, and then the corners
        np.testing.assert_allclose(found, (x0, y0, x1, y1), atol=4.3)
        compared += 1
    assert compared >= 12


def test_a_steady_box_does_not_tell_how_far_the_mouth_is_open():
    landmarks = np.repeat(np.random.default_rng(0).uniform(20, 60, (1, 68, 2)), 9, axis=0)
    landmarks[:, 29], landmarks[:, 8] = (40, 30), (40, 80)
    landmarks[:, 48], landmarks[:, 54] = (30, 60), (50, 60)
    landmarks[:, 8, 1] += np.arange(9)  # the chin drops
    steady, loose = mouth_boxes(landmarks), mouth_boxes(landmarks, steady=False)
    assert np.ptp(steady[:, 3] - steady[:, 1]) == 0
    assert np.all(np.diff(loose[:, 3] - loose[:, 1]) > 0)


def test_a_box_of_whole_pixels_at_its_own_size_is_copied(image):
    boxes = jnp.array([[8.0, 4.0, 24.0, 20.0], [0.0, 0.0, 16.0, 16.0]])
    crops = crop_boxes(image, boxes, 16)
    np.testing.assert_allclose(crops[0], image[0, 4:20, 8:24], atol=1e-5)
    np.testing.assert_allclose(crops[1], image[1, :16, :16], atol=1e-5)


def test_enlarging_is_corner_aligned_and_a_box_beyond_the_picture_repeats_its_edge(image):
    crop = crop_boxes(image[:1], jnp.array([[10.0, 10.0, 15.0, 15.0]]), 9)[0]
    np.testing.assert_allclose(crop[::2, ::2], image[0, 10:15, 10:15], atol=1e-5)
    np.testing.assert_allclose(crop[1, 0], (image[0, 10, 10] + image[0, 11, 10]) / 2, atol=1e-5)
    outside = crop_boxes(image[:1], jnp.array([[-20.0, -20.0, -12.0, -12.0]]), 8)[0]
    np.testing.assert_allclose(outside, jnp.broadcast_to(image[0, 0, 0], outside.shape), atol=1e-6)


def test_exchanged_sides_mirror(image):
    box = jnp.array([[8.0, 4.0, 25.0, 21.0]])
    mirrored = crop_boxes(image[:1], jnp.array([[24.0, 4.0, 9.0, 21.0]]), 17)
    np.testing.assert_allclose(mirrored, crop_boxes(image[:1], box, 17)[:, :, ::-1], atol=1e-5)


def test_the_gradient_stays_at_the_box(image):
    box = jnp.array([[8.0, 4.0, 24.0, 20.0]])
    gradient = jax.grad(lambda x: crop_boxes(x, box, 11).sum())(image[:1])[0]
    assert np.all(np.asarray(gradient[4:20, 8:24]) > 0)
    around = np.abs(gradient[2:22, 6:26])  # a shrunk pixel averages a little beyond the edge
    assert np.abs(gradient).sum() == pytest.approx(around.sum())


def test_the_mask_is_one_inside_and_nothing_outside_with_a_soft_edge():
    mask = np.asarray(mouth_mask(jnp.array([[20.0, 30.0, 44.0, 50.0]]), 64, 64))[0, ..., 0]
    assert mask[40, 32] > 0.99 and mask[:20].max() < 0.01 and mask[:, :10].max() < 0.01
    edge = mask[40, 32:60]
    assert np.all(np.diff(edge) <= 1e-6) and np.any((edge > 0.2) & (edge < 0.8))


def test_nothing_inside_the_mouth_reaches_the_loss(image):
    mask = mouth_mask(jnp.array([[12.0, 10.0, 36.0, 34.0]] * 2), 40, 48)
    source = image[::-1]
    moved = image.at[:, 20:24, 22:26].add(0.5)
    same, other = masked_pixels(image, source, mask), masked_pixels(moved, source, mask)
    np.testing.assert_allclose(same, other, rtol=2e-3)
    assert np.all(np.asarray(masked_pixels(image.at[:, :4].add(0.5), source, mask)) > np.asarray(same))
    assert not np.any(masked_pixels(image, image, mask))


def test_info_nce_is_the_cross_entropy_written_out():
    rng = np.random.default_rng(0)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 5, 7)))
    near = np.zeros((5, 5), bool)
    near[0, 1] = near[1, 0] = True
    logits = 3.0 * a @ b.T
    logits[near] = -np.inf
    rows = -np.diag(logits) + np.log(np.exp(logits).sum(1))
    columns = -np.diag(logits) + np.log(np.exp(logits).sum(0))
    found = info_nce(jnp.float32(a), jnp.float32(b), jnp.float32(3.0), jnp.asarray(near | np.eye(5, dtype=bool)))
    np.testing.assert_allclose(found, (rows + columns) / 2, rtol=1e-5)


def test_pairs_and_forms_of_the_sync_loss():
    np.testing.assert_allclose(
        paired_bce(jnp.zeros(1), jnp.zeros(1)), np.log(2), rtol=1e-6
    )  # the 0.69 of a blind expert
    cosine = jnp.array([-1.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(lip_sync.cosine_loss(cosine), [2.0, 1.0, 0.5, 0.0])
    np.testing.assert_allclose(lip_sync.bce_of_cosine(cosine[2:]), [np.log(2), 0.0], atol=1e-6)
    np.testing.assert_allclose(lip_sync.bce_of_logit(jnp.array([0.0, 100.0])), [np.log(2), 0.0], atol=1e-6)
    assert np.all(np.isfinite(jax.vmap(jax.grad(lip_sync.bce_of_cosine))(cosine)))


def test_the_total_is_equation_six():
    terms = {"perceptual": jnp.array([2.0, 4.0]), "sync": jnp.array([1.0, 0.5])}
    np.testing.assert_allclose(total.weighted(terms, Audio2ExpWeights()), [2.3, 4.15], rtol=1e-6)
    delta = jnp.arange(12.0).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(total.anchor(delta), np.mean(np.arange(12.0) ** 2), rtol=1e-6)
    np.testing.assert_allclose(total.smoothness(delta), 36.0)
    assert total.smoothness(delta[:, :1]) == 0


def test_the_mouth_is_compared_alone():
    rng = np.random.default_rng(3)
    target = rng.random((2, 64, 64, 3), np.float32)
    landmarks = np.zeros((2, 68, 2), np.float32)
    place = np.array([0.1, 0.4])  # right of the middle, in the lower half
    landmarks[:, LIPS] = place + rng.uniform(-0.2, 0.2, (2, 20, 2))
    elsewhere = target.copy()
    elsewhere[:, :32] = 0
    elsewhere[:, :, :16] = 0
    assert np.max(mouth_pixel(jnp.asarray(elsewhere), jnp.asarray(target), jnp.asarray(landmarks))) < 0.01
    brighter = mouth_pixel(jnp.asarray(target) + 0.25, jnp.asarray(target), jnp.asarray(landmarks))
    np.testing.assert_allclose(brighter, 0.25, rtol=1e-5)


def test_the_inside_of_the_mouth_counts_by_the_pixel():
    target = jnp.zeros((2, 8, 8, 3))
    inside = np.zeros((2, 8, 8), bool)
    inside[0, 2:4, 3:5], inside[1, 5, 5] = True, True  # four pixels in one picture, one in the other
    wrong = np.full((2, 8, 8, 3), 9.0)
    wrong[0, 2:4, 3:5], wrong[1, 5, 5] = 0.5, 1.0
    np.testing.assert_allclose(inner_mouth_pixel(jnp.asarray(wrong), target, jnp.asarray(inside)), (4 * 0.5 + 1.0) / 5)
    assert inner_mouth_pixel(jnp.asarray(wrong), target, jnp.zeros((2, 8, 8), bool)) == 0


def test_what_was_drawn_is_judged_where_copying_hides_it():
    rng = np.random.default_rng(5)
    source, driving, colours = (jnp.asarray(rng.random((2, 32, 32, 3), np.float32)) for _ in range(3))
    landmarks = jnp.asarray(rng.uniform(-0.3, 0.3, (2, 68, 2)), jnp.float32)
    grid = jnp.broadcast_to(corner_grid((2, 8, 8)), (2, 2, 8, 8, 3))
    keypoints = Posed(jnp.zeros((2, 15, 3)))

    def loss(colours, name):
        copied = jnp.full((2, 32, 32, 1), 30.0)  # the share of the source: all of it
        image_01, drawn_01 = blended(jnp.concatenate([colours, copied], -1), source, grid)
        made = Reconstruction(image_01, driving, HeadPose(*[None] * 5), keypoints, keypoints, drawn_01=drawn_01)
        config = RendererLossConfig(dataclasses.replace(NOTHING, **{name: 2.0}))
        terms = generator_terms(
            made, config, vgg=None, discriminator=None, target_deg=None, landmarks=(landmarks, landmarks)
        )
        return terms[name].sum()

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    assert np.abs(run(colours, "mouth_pixel")[1]).max() < 1e-9
    before, towards = run(colours, "mouth_drawn")
    assert np.abs(towards).max() > 1e-5
    assert run(colours - 100 * towards, "mouth_drawn")[0] < before


def test_a_filmed_expression_may_hold_for_the_mouth_alone():
    rng = np.random.default_rng(4)
    source, target = rng.normal(size=(2, 3, 2, 6, 3))
    known = np.array([1.0, 0.0, 1.0])
    moving = (1, 4)
    resting = [0, 2, 3, 5]

    def distance(edited, target, moving=()):
        return np.asarray(total.known_expression(*map(jnp.asarray, (edited, target, known, source)), moving))

    np.testing.assert_allclose(distance(source, target), known * np.abs(source - target).mean((1, 2, 3)), rtol=1e-5)
    mouth = target[:, :, moving] - target[:, :, resting].mean(2, keepdims=True)
    edited = source.copy()
    edited[:, :, moving] = mouth + source[:, :, resting].mean(2, keepdims=True)
    np.testing.assert_allclose(distance(edited, target + 0.7, moving), 0, atol=1e-6)  # all of the face alike
    pairs = ((1, 4),)
    both = [
        np.asarray(
            total.known_expression(*map(jnp.asarray, (edited, target + 0.7, known, source)), moving, pairs=given)
        )
        for given in ((), pairs)
    ]
    np.testing.assert_allclose(both[1], both[0], atol=1e-6)  # as far apart as they should be
    wide = edited.copy()
    wide[:, :, 4, 1] += 0.3
    more, less = (
        np.asarray(total.known_expression(*map(jnp.asarray, (wide, target + 0.7, known, source)), moving, pairs=given))
        for given in (pairs, ())
    )
    np.testing.assert_allclose(more - less, known * 0.3 / 3, atol=1e-6)  # one axis of three
    edited[:, :, 0] += 0.4  # what does not speak is to stay
    np.testing.assert_allclose(distance(edited, target, moving) > 0.01, known == 1)
