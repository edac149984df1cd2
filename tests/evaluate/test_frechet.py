"""The Frechet distance against scipy's matrix square root, and streaming against numpy."""

import numpy as np
import pytest
from scipy import linalg

from ctjax.evaluate import frechet


def _moments(features, batch=7):
    moments = frechet.Moments(features.shape[1])
    for start in range(0, len(features), batch):
        moments.update(features[start : start + batch])
    return moments


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(40, 40))
    a = rng.normal(size=(300, 40)) @ mix + 100.0
    return a.astype(np.float32), (rng.normal(size=(250, 40)) @ (mix * 0.7) + 101.0).astype(np.float32)


def test_streamed_moments_equal_numpy(features):
    moments = _moments(features[0])
    wide = features[0].astype(np.float64)
    np.testing.assert_allclose(moments.mean, wide.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(wide, rowvar=False), rtol=1e-9, atol=1e-9)


def test_merged_moments_equal_one_pass(features):
    whole = _moments(features[0])
    parts = _moments(features[0][:90])
    parts.merge(_moments(features[0][90:]))
    parts.merge(frechet.Moments(40))
    assert parts.count == 300
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-9, atol=1e-9)


def test_distance_equals_scipy_sqrtm(features):
    a, b = (x.astype(np.float64) for x in features)
    root = linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    want = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a, rowvar=False) + np.cov(b, rowvar=False))
    want -= 2 * np.trace(root.real)
    assert frechet.distance(_moments(a), _moments(b)) == pytest.approx(want, rel=1e-9)


def test_equal_sets_are_at_distance_zero_even_when_singular(features):
    few = _moments(features[0][:12])  # 12 vectors in 40 dimensions
    assert frechet.distance(few, few) == pytest.approx(0, abs=1e-5 * np.trace(few.covariance))


def test_one_frame_has_no_covariance(features):
    with pytest.raises(ValueError, match="at least two frames"):
        _ = _moments(features[0][:1]).covariance
