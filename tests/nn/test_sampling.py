"""Sampling at fractional coordinates against torch.nn.functional.grid_sample, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.nn.sampling import PADDINGS, corner_grid, grid_sample

IMAGE, VOLUME = (2, 5, 7, 3), (2, 4, 5, 6, 3)


def _case(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An array and coordinates that reach well outside it."""
    random = np.random.default_rng(0)
    rank = len(shape) - 2
    out = (6, 5, 4)[:rank]
    x = random.standard_normal(shape).astype(np.float32)
    return x, random.uniform(-2.5, 2.5, (shape[0], *out, rank)).astype(np.float32)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", [IMAGE, VOLUME], ids=["image", "volume"])
def test_equals_torch(shape, padding, align_corners):
    torch = pytest.importorskip("torch")
    x, grid = _case(shape)
    weight = np.random.default_rng(1).standard_normal((*grid.shape[:-1], shape[-1])).astype(np.float32)

    x_t = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    grid_t = torch.tensor(grid, requires_grad=True)
    want = torch.nn.functional.grid_sample(x_t, grid_t, padding_mode=padding, align_corners=align_corners)
    (want * torch.tensor(np.moveaxis(weight, -1, 1))).sum().backward()

    def total(x, grid):
        got = grid_sample(x, grid, padding=padding, align_corners=align_corners)
        return jnp.sum(got * weight), got

    (_, got), (x_slope, grid_slope) = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, grid)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want.detach(), atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(x_slope, -1, 1), x_t.grad, atol=1e-5)
    np.testing.assert_allclose(grid_slope, grid_t.grad, atol=1e-4)


def test_corner_grid_reaches_the_corners_and_counts_x_fastest():
    grid = np.asarray(corner_grid((2, 3, 5)))
    assert grid.shape == (2, 3, 5, 3)
    np.testing.assert_array_equal(grid[0, 0, 0], [-1, -1, -1])
    np.testing.assert_array_equal(grid[-1, -1, -1], [1, 1, 1])
    np.testing.assert_allclose(grid[0, 0, :, 0], [-1, -0.5, 0, 0.5, 1])


def test_identity_grid_is_an_identity_only_with_aligned_corners():
    x, _ = _case(IMAGE)
    grid = jnp.broadcast_to(corner_grid(x.shape[1:3]), (2, *x.shape[1:3], 2))
    sample = jax.jit(grid_sample, static_argnames="align_corners")
    np.testing.assert_allclose(sample(x, grid, align_corners=True), x, atol=1e-5)
    assert np.abs(np.asarray(sample(x, grid)) - x).max() > 0.1


def test_several_grids_share_one_array():
    x, grid = _case(IMAGE)
    many = np.stack([grid, -grid], axis=1)
    got = grid_sample(x, many)
    np.testing.assert_array_equal(got[:, 0], grid_sample(x, grid))
    np.testing.assert_array_equal(got[:, 1], grid_sample(x, -grid))


def test_bfloat16_features_keep_exact_coordinates():
    x = jnp.arange(256, dtype=jnp.bfloat16).reshape(1, 1, 256, 1)
    columns = np.stack([(2 * np.arange(256) + 1) / 256 - 1, np.zeros(256)], axis=-1).astype(np.float32)
    got = grid_sample(x, columns[None, None])
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize(
    ("grid", "padding", "message"),
    [((2, 3, 3, 3), "zeros", "3 coordinates for 2"), ((2, 3, 3, 2), "wrap", "'wrap'")],
)
def test_wrong_arguments_are_named(grid, padding, message):
    with pytest.raises(ValueError, match=message):
        grid_sample(np.zeros(IMAGE, np.float32), np.zeros(grid, np.float32), padding=padding)
