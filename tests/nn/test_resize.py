"""Upsampling, pooling and the low-pass, against plain arithmetic and torch."""

import numpy as np
import pytest

from ctjax.nn.resize import (
    average_pool,
    low_pass_kernel,
    low_pass_subsample,
    max_pool,
    resize_nearest,
    upsample_nearest,
)
from ctjax.nn.volume import to_image, to_volume


def _image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_nearest_repeats_cells():
    x = _image(1, 2, 3, 2)
    got = np.asarray(upsample_nearest(x, (2, 2)))
    np.testing.assert_array_equal(got, x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_array_equal(upsample_nearest(_image(1, 2, 3, 4, 2), (1, 2, 2)).shape, (1, 2, 6, 8, 2))


def test_nearest_refuses_broken_factors():
    with pytest.raises(ValueError, match="not a whole factor"):
        resize_nearest(_image(1, 2, 3, 2), (4, 7))


def test_average_pool_leaves_depth_alone():
    x = _image(1, 3, 4, 6, 2)
    want = x.reshape(1, 3, 2, 2, 3, 2, 2).mean((3, 5))
    np.testing.assert_allclose(average_pool(x, (1, 2, 2)), want, atol=1e-6)


def test_max_pool_equals_torch():
    torch = pytest.importorskip("torch")
    x = _image(2, 9, 8, 3) - 5  # all negative: a padding of zeros would win
    want = torch.nn.functional.max_pool2d(torch.tensor(np.moveaxis(x, -1, 1)), 3, 2, 1)
    np.testing.assert_array_equal(np.moveaxis(max_pool(x, 3, 2, 1), -1, 1), want)


def test_low_pass_is_the_references():
    kernel = low_pass_kernel(0.25, 3)
    assert kernel.shape == (13, 13, 1, 3)
    np.testing.assert_allclose(kernel.sum((0, 1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(kernel[6, 7, 0, 0] / kernel[6, 6, 0, 0], np.exp(-1 / (2 * 1.5**2)), rtol=1e-5)
    assert low_pass_kernel(0.5, 1).shape == (5, 5, 1, 1)


def test_low_pass_subsamples_from_the_first_cell():
    x = np.ones((1, 16, 16, 3), np.float32)
    got = np.asarray(low_pass_subsample(x, low_pass_kernel(0.25, 3), 4))
    assert got.shape == (1, 4, 4, 3)
    np.testing.assert_allclose(got[0, 2, 2], 1, rtol=1e-4)  # 8 cells in: the filter sees ones only
    assert got[0, 0, 0, 0] < 0.5  # at the corner three quarters of it hang over zeros


def test_image_channels_are_channel_major():
    image = np.arange(2 * 3 * 4 * 10, dtype=np.float32).reshape(2, 3, 4, 10)
    volume = np.asarray(to_volume(image, depth=5))
    assert volume.shape == (2, 5, 3, 4, 2)
    np.testing.assert_array_equal(volume[:, 3, :, :, 1], image[..., 1 * 5 + 3])
    np.testing.assert_array_equal(to_image(volume), image)
