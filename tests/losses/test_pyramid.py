"""The image pyramid against the recorded reference run."""

import numpy as np
import parity
import pytest

from ctjax.losses import pyramid


@pytest.fixture(scope="module")
def record():
    return parity.record("pyramid")


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
def test_scaled_images_match_the_record(record, scale):
    image = record.image("image_u8")
    record.check(f"prediction_{scale}", parity.channels_first(pyramid.downscale(image, scale)))


@pytest.mark.parametrize("scale", [0.5, 0.25, 0.125])
def test_kernels_match_the_record(record, scale):
    taps = pyramid.gaussian_taps(scale)
    channels = record.outputs[f"kernel_{scale}"].shape[0]
    record.check(f"kernel_{scale}", np.broadcast_to(np.outer(taps, taps), (channels, 1, len(taps), len(taps))))


def test_scale_one_is_the_image_itself(record):
    image = record.image("image_u8")
    first, half = pyramid.pyramid(image, (1, 0.5))
    assert first is image
    assert half.shape == (1, 32, 32, 3)


def test_sides_that_the_step_does_not_divide_keep_their_last_pixel():
    assert pyramid.downscale(np.ones((1, 9, 11, 3), np.float32), 0.25).shape == (1, 3, 3, 3)
