"""Thin-plate warps of pictures and points, against the recorded reference run and against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from ctjax.losses import equivariance

CASES = {"eval": "", "train": "_train", "clip": "_clip"}


def _warp(record, case):
    suffix = CASES[case]
    return equivariance.Warp(record.inputs[f"theta{suffix}"], record.inputs[f"control_params{suffix}"][:, 0])


@pytest.fixture(scope="module")
def record():
    return parity.record("renderer_losses")


@pytest.mark.parametrize("case", CASES)
def test_warped_pictures_match_the_record(record, case):
    image = record.image(f"driving_u8{CASES[case]}")
    warped = jax.jit(equivariance.warp_image)(_warp(record, case), image)
    record.check(f"{case}/transformed_frame", parity.channels_first(warped))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_recorded_keypoints_is_the_recorded_loss(record, case):
    driving, transformed = (jnp.asarray(record.outputs[f"{case}/{n}"]) for n in ("kp_driving", "transformed_kp"))
    loss = 10 * equivariance.equivariance_value(_warp(record, case), driving, transformed).mean()
    record.check(f"{case}/loss_equivariance_value", loss[None])


def test_jacobians_are_the_derivative_of_the_warp():
    warp = equivariance.random_warp(jax.random.key(0), 2, equivariance.WarpConfig(sigma_tps=0.05))
    points = jax.random.uniform(jax.random.key(1), (2, 4, 2), minval=-0.9, maxval=0.9)
    jacobian = jax.jit(equivariance.warp_jacobian)(warp, points)
    warped = jax.jit(equivariance.warp_points)
    step = 1e-3
    for axis in range(2):
        offset = step * np.eye(2, dtype=np.float32)[axis]
        difference = warped(warp, points + offset) - warped(warp, points - offset)
        np.testing.assert_allclose(jacobian[..., axis], difference / (2 * step), atol=2e-3)


def test_jacobians_that_follow_the_warp_cost_nothing():
    warp = equivariance.random_warp(jax.random.key(0), 1, equivariance.WarpConfig())
    points = jax.random.uniform(jax.random.key(1), (1, 3, 2))
    jacobian = jnp.eye(3) + 0.1 * jax.random.normal(jax.random.key(2), (1, 3, 3, 3))
    jacobian = jacobian.at[..., :2, 2].set(0).at[..., 2, :2].set(0)
    of_warped = np.array(jacobian)
    of_warped[..., :2, :2] = np.linalg.inv(jax.jit(equivariance.warp_jacobian)(warp, points)) @ of_warped[..., :2, :2]
    loss = jax.jit(equivariance.equivariance_jacobian)
    assert loss(warp, jacobian, of_warped, points).max() < 1e-5
    assert loss(warp, jacobian, jacobian, points).min() > 1e-3


def test_random_warps_differ_by_example_and_repeat_by_key():
    config = equivariance.WarpConfig()
    one, two = (equivariance.random_warp(jax.random.key(3), 2, config) for _ in range(2))
    np.testing.assert_array_equal(one.theta, two.theta)
    assert not np.allclose(one.theta[0], one.theta[1])
    assert abs(one.theta - jnp.eye(2, 3)).mean() < 0.1
    assert one.control.shape == (2, 25)
