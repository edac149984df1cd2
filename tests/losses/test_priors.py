"""Keypoint, head-pose and expression priors."""

import jax.numpy as jnp
import numpy as np
import parity
import pytest

from ctjax.losses import keypoint_prior, pose_prior


@pytest.mark.parametrize("case", ["eval", "train", "ls", "jacobian", "clip"])
def test_the_prior_of_recorded_keypoints_is_the_recorded_loss(case):
    record = parity.record("renderer_losses")
    values = keypoint_prior.keypoint_prior(jnp.asarray(record.outputs[f"{case}/kp_driving"]))
    record.check(f"{case}/loss_keypoint", 10 * values.mean()[None])


def test_keypoints_far_apart_at_the_right_depth_cost_a_constant():
    keypoints = jnp.asarray([[[-0.9, 0, 0.33], [0.9, 0, 0.33], [0, 0.9, 0.33]]])
    np.testing.assert_allclose(keypoint_prior.keypoint_prior(keypoints), [0.3], atol=1e-6)


def test_head_pose_sums_the_three_errors():
    angles = [jnp.asarray([1.0, -2.0]), jnp.asarray([0.0, 5.0]), jnp.asarray([3.0, 3.0])]
    target = [jnp.asarray([0.0, 0.0]), jnp.asarray([0.0, 0.0]), jnp.asarray([1.0, 3.0])]
    np.testing.assert_allclose(pose_prior.head_pose(angles, target), [3.0, 7.0])


def test_expression_is_the_l1_norm_per_example():
    np.testing.assert_allclose(pose_prior.expression(jnp.asarray([[[1.0, -2, 0]], [[0, 0, 0.5]]])), [3.0, 0.5])
