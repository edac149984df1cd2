"""Rotation matrices against the recorded grid of angles, and poses given instead of estimated."""

import numpy as np
from parity import record

from ctjax.motion.head_pose import free_view, rotation_matrix, sadtalker_pose
from ctjax.types import HeadPose


def _pose() -> HeadPose:
    angles = (np.array([1.0, 2.0], np.float32), np.array([3.0, 4.0], np.float32), np.array([5.0, 6.0], np.float32))
    return HeadPose(*angles, np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 15, 3), np.float32))


def test_rotation_of_recorded_angles():
    case = record("keypoint_transformation")
    yaw_deg, pitch_deg, roll_deg = case.outputs["rot_grid_deg"].T
    case.check("rot_grid", rotation_matrix(yaw_deg, pitch_deg, roll_deg))


def test_half_a_turn_falls_short_by_the_reference_pi():
    # cos(3.14) is -1 to six digits, sin(3.14) is 0.0016: with the true pi it would vanish.
    matrix = rotation_matrix(np.array([0.0]), np.array([0.0]), np.array([180.0]))
    np.testing.assert_allclose(matrix[0, 1, 0], np.sin(3.14), atol=1e-6)


def test_given_angles_may_differ_per_example():
    turned = free_view(_pose(), yaw_deg=np.array([10.0, 20.0]), pitch_deg=-5.0)
    np.testing.assert_array_equal(turned.yaw_deg, [10.0, 20.0])
    np.testing.assert_array_equal(turned.pitch_deg, [-5.0, -5.0])
    np.testing.assert_array_equal(turned.roll_deg, [5.0, 6.0])


def test_sadtalker_keeps_the_vertical_translation_only():
    pose = _pose()
    kept = sadtalker_pose(pose)
    np.testing.assert_array_equal(kept.translation, [[0.0, 1.0, 0.0], [0.0, 4.0, 0.0]])
    np.testing.assert_array_equal(pose.translation[0], [0.0, 1.0, 2.0])  # the input is left as it was
