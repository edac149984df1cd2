"""Landmark loss: zero where keypoints lie on their landmarks, linear in the distance, blind to depth."""

import jax.numpy as jnp
import numpy as np

from ctjax.losses.landmark import JAW, JAW_SHARE, LANDMARKS, closed, depth, landmark, lips, turned


def test_distance_to_the_chosen_landmarks():
    landmarks = np.random.default_rng(0).uniform(-1, 1, (2, 68, 2)).astype(np.float32)
    depth = np.random.default_rng(1).uniform(-1, 1, (2, 15, 1)).astype(np.float32)
    exact = np.concatenate([landmarks[:, list(LANDMARKS)], depth], -1)
    np.testing.assert_allclose(landmark(jnp.asarray(exact), landmarks), 0, atol=1e-7)
    moved = exact.copy()
    moved[1, 3, 0] += 0.3
    np.testing.assert_allclose(landmark(jnp.asarray(moved), landmarks), [0, 0.3 / 15], atol=1e-6)


def test_more_keypoints_are_free_and_fewer_take_the_first_landmarks():
    landmarks = np.zeros((1, 68, 2), np.float32)
    keypoints = np.zeros((1, 20, 3), np.float32)
    keypoints[:, 15:] = 9
    assert landmark(jnp.asarray(keypoints), landmarks)[0] == 0
    assert landmark(jnp.asarray(keypoints[:, :4]), landmarks)[0] == 0


def test_lips_are_compared_by_what_is_between_them():
    rng = np.random.default_rng(1)
    landmarks = rng.uniform(-0.5, 0.5, (2, 68, 2)).astype(np.float32)
    keypoints = np.concatenate([landmarks[:, list(LANDMARKS)], np.zeros((2, 15, 1), np.float32)], -1)
    elsewhere = keypoints + np.array([0.2, -0.1, 0.5], np.float32)
    np.testing.assert_allclose(lips(jnp.asarray(elsewhere), jnp.asarray(landmarks)), 0, atol=1e-6)
    opened = keypoints.copy()
    opened[:, 1, 1] += 0.3  # the lower inner lip, in one of three pairs
    np.testing.assert_allclose(lips(jnp.asarray(opened), jnp.asarray(landmarks)), 0.1, rtol=1e-5)


def test_turned_keypoints_count_the_jaw_less():
    landmarks = np.zeros((1, 68, 2), np.float32)
    keypoints = np.zeros((1, 15, 3), np.float32)
    assert turned(jnp.asarray(keypoints), landmarks)[0] == 0
    total = 15 - len(JAW) * (1 - JAW_SHARE)
    for place, share in ((0, 1.0), (JAW[0], JAW_SHARE)):
        moved = keypoints.copy()
        moved[0, place, :2] = 0.3, -0.3
        np.testing.assert_allclose(turned(jnp.asarray(moved), landmarks), share * 0.6 / total, rtol=1e-5)


def test_a_canonical_mouth_is_closed_in_depth_too():
    canonical = np.random.default_rng(0).uniform(-1, 1, (2, 15, 3)).astype(np.float32)
    canonical[:, 1] = canonical[:, 0]
    np.testing.assert_array_equal(closed(jnp.asarray(canonical)), 0)
    canonical[1, 1] += [0.1, -0.2, 0.4]
    np.testing.assert_allclose(closed(jnp.asarray(canonical)), [0, 0.7], rtol=1e-5)


def test_depth_is_compared_keypoint_by_keypoint():
    depths = np.random.default_rng(0).uniform(-1, 1, (2, 68)).astype(np.float32)
    canonical = np.random.default_rng(1).uniform(-1, 1, (2, 15, 3)).astype(np.float32)
    canonical[..., 2] = depths[:, list(LANDMARKS)]
    np.testing.assert_array_equal(depth(jnp.asarray(canonical), depths), 0)
    canonical[1, 4, 2] -= 0.3
    np.testing.assert_allclose(depth(jnp.asarray(canonical), depths), [0, 0.3 / 15], rtol=1e-5)
