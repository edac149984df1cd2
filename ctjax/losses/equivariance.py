"""Equivariance of keypoints under a known image warp: an affine map plus a thin-plate spline on a coarse grid.

ControlTalk modules/model.py:75-131, 309-343. Only x and y take part; z is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ctjax.losses.perceptual import mean_per_example
from ctjax.nn.sampling import corner_grid, grid_sample

LOG_EPSILON = 1e-6


@dataclass(frozen=True)
class WarpConfig:
    """Spread of the random warps: of the affine part's six numbers, of the spline's coefficients, and its grid."""

    sigma_affine: float = 0.05
    sigma_tps: float = 0.005
    points_tps: int = 5


class Warp(NamedTuple):
    """theta: "b 2 3", affine; control: "b n", spline coefficients on the corner-aligned grid, x fastest."""

    theta: Float[Array, "b 2 3"]
    control: Float[Array, "b n"]


def random_warp(key: Array, batch: int, config: WarpConfig, dtype=float) -> Warp:
    """The identity plus normal noise of the configured spread, float32 unless jax has float64 switched on."""
    affine, spline = jax.random.split(key)
    theta = jnp.eye(2, 3, dtype=dtype) + config.sigma_affine * jax.random.normal(affine, (batch, 2, 3), dtype)
    return Warp(theta, config.sigma_tps * jax.random.normal(spline, (batch, config.points_tps**2), dtype))


def warp_points(warp: Warp, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2"]:
    """Where the warp sends points. The spline's radius is the L1 distance and its bump r^2 log(r + 1e-6) is added to
    x and y alike (ControlTalk modules/model.py:100-116)."""
    side = round(warp.control.shape[1] ** 0.5)
    anchors = corner_grid((side, side)).astype(points.dtype).reshape(-1, 2)
    affine = jnp.einsum("bij,bnj->bni", warp.theta[:, :, :2], points, precision="highest") + warp.theta[:, None, :, 2]
    radius = abs(points[:, :, None] - anchors).sum(-1)
    bump = radius**2 * jnp.log(radius + LOG_EPSILON)
    return affine + jnp.einsum("bnm,bm->bn", bump, warp.control, precision="highest")[..., None]


def warp_jacobian(warp: Warp, points: Float[Array, "b n 2"]) -> Float[Array, "b n 2 2"]:
    """d warp_points / d points at each point: [output coordinate, input coordinate]."""

    def at(theta, control, point):
        return warp_points(Warp(theta[None], control[None]), point[None, None])[0, 0]

    per_point = jax.vmap(jax.jacfwd(at, argnums=2), in_axes=(None, None, 0))
    return jax.vmap(per_point)(warp.theta, warp.control, points)


def warp_image(warp: Warp, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The image seen through the warp: bilinear, reflected at the borders.

    As the reference does, a corner-aligned grid is read with pixel-centre sampling (torch's align_corners=False), so
    the identity warp is not quite the identity (ControlTalk modules/model.py:92-98).
    """
    grid = corner_grid(image.shape[1:3]).astype(warp.theta.dtype)
    points = warp_points(warp, jnp.broadcast_to(grid.reshape(1, -1, 2), (image.shape[0], grid.size // 2, 2)))
    return grid_sample(image, points.reshape(*image.shape[:3], 2), padding="reflection", align_corners=False)


def equivariance_value(
    warp: Warp, keypoints: Float[Array, "b k _"], keypoints_of_warped: Float[Array, "b k _"]
) -> Float[Array, " b"]:
    """Mean |distance| between the keypoints and those of the warped picture sent back, x and y only."""
    return mean_per_example(abs(keypoints[..., :2] - warp_points(warp, keypoints_of_warped[..., :2])))


def equivariance_jacobian(
    warp: Warp,
    jacobian: Float[Array, "b k _ _"],
    jacobian_of_warped: Float[Array, "b k _ _"],
    keypoints_of_warped: Float[Array, "b k _"],
) -> Float[Array, " b"]:
    """How far J^-1 (warp's Jacobian) J_warped is from the identity, for detectors that estimate Jacobians."""
    chained = warp_jacobian(warp, keypoints_of_warped[..., :2]) @ jacobian_of_warped[..., :2, :2]
    product = jnp.linalg.inv(jacobian[..., :2, :2]) @ chained
    return mean_per_example(abs(jnp.eye(2, dtype=product.dtype) - product))
