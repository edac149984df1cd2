"""SSIM and PSNR against scikit-image."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ctjax.evaluate import image

SKIMAGE_SSIM = {
    "gaussian11": {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False},
    "uniform7": {},
}


@pytest.fixture(scope="module")
def frames():
    """Four pairs: noise on noise, little noise on a gradient, nearly flat and bright, one side shifted by a pixel."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 255, 61)[None, :, None] * np.linspace(0.4, 1, 47)[:, None, None] * np.ones(3)
    a = np.stack([rng.integers(0, 256, ramp.shape), ramp, 250 + rng.integers(0, 3, ramp.shape), ramp + 0.0])
    b = np.stack(
        [rng.integers(0, 256, ramp.shape), ramp + rng.normal(0, 6, ramp.shape), a[2] + 1, np.roll(ramp, 1, axis=1)]
    )
    return tuple(np.clip(x, 0, 255).astype(np.uint8) for x in (a, b))


@pytest.mark.parametrize("window", SKIMAGE_SSIM)
def test_ssim_equals_scikit_image(frames, window):
    a, b = frames
    got, _ = image.compare_frames(a, b, window)
    want = [
        structural_similarity(x, y, channel_axis=-1, data_range=255, **SKIMAGE_SSIM[window])
        for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_psnr_equals_scikit_image(frames):
    a, b = frames
    _, got = image.compare_frames(a, b)
    want = [peak_signal_noise_ratio(x, y, data_range=255) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_frame_against_itself(frames):
    similarity, psnr = image.compare_frames(frames[0], frames[0])
    np.testing.assert_allclose(similarity, 1.0, atol=1e-6)
    assert np.isposinf(psnr).all()


def test_frames_smaller_than_the_window_are_refused():
    tiny = np.zeros((1, 8, 40, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 11 px"):
        image.ssim(tiny, tiny)
