"""Keypoint transformation against the recorded one."""

import numpy as np
import pytest
from parity import record

from ctjax.motion.head_pose import free_view
from ctjax.motion.keypoints import transform_jacobians, transform_keypoints
from ctjax.render.head_estimator import HeadEstimate


@pytest.fixture(scope="module")
def case():
    return record("keypoint_transformation")


@pytest.fixture(scope="module")
def pose(case):
    inputs = case.inputs
    bins = (inputs[angle] for angle in ("yaw", "pitch", "roll"))
    return HeadEstimate(*bins, inputs["t"], inputs["exp"].reshape(3, 15, 3)).head_pose


@pytest.mark.parametrize("angle", ["yaw_deg", "pitch_deg", "roll_deg"])
def test_bins_to_degrees(case, pose, angle):
    case.check(angle, getattr(pose, angle))


def test_keypoints(case, pose):
    case.check("value", transform_keypoints(case.inputs["kp_value"], pose))


def test_jacobians(case, pose):
    case.check("jacobian", transform_jacobians(case.inputs["kp_jacobian"], pose))


def test_free_view_keeps_angles_that_are_not_given(case, pose):
    turned = free_view(pose, yaw_deg=20.0, roll_deg=-10.0)
    np.testing.assert_array_equal(turned.pitch_deg, pose.pitch_deg)
    case.check("free_view_yaw20_rollm10", transform_keypoints(case.inputs["kp_value"], turned))


def test_free_view_with_all_angles(case, pose):
    turned = free_view(pose, yaw_deg=20.0, pitch_deg=5.0, roll_deg=-10.0)
    case.check("free_view_all_given", transform_keypoints(case.inputs["kp_value"], turned))


def test_one_canonical_set_serves_many_poses(case, pose):
    canonical = case.inputs["kp_value"]
    together = transform_keypoints(canonical[:1], pose)
    one_by_one = transform_keypoints(np.repeat(canonical[:1], 3, axis=0), pose)
    np.testing.assert_allclose(together, one_by_one, atol=1e-6)
