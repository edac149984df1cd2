"""Adversarial and feature-matching terms by hand-made maps (the recorded numbers are in test_renderer_losses)."""

import numpy as np
import pytest

from ctjax.losses import gan


def _map(height=8, width=8, batch=2, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, height, width, 1)).astype(np.float32)


def test_the_mouth_is_the_middle_of_the_lower_half():
    maps = np.arange(9 * 8).reshape(1, 9, 8, 1)
    region = gan.mouth_region(maps)
    np.testing.assert_array_equal(region[0, :, :, 0], maps[0, 4:8, 2:6, 0])  # row 8 of nine is left out


def test_maps_without_a_mouth_are_refused():
    with pytest.raises(ValueError, match="no mouth region"):
        gan.mouth_region(np.zeros((1, 3, 3, 1)))


@pytest.mark.parametrize("mouth", [True, False])
def test_hinge_is_the_margin_on_both_sides(mouth):
    real, fake = _map(seed=1), _map(seed=2)
    loss = gan.discriminator_loss([real], [fake], mode="hinge", mouth=mouth)
    values = np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)
    want = values.mean((1, 2, 3))
    if mouth:
        want = 0.333 * want + 0.667 * values[:, 4:8, 2:6].mean((1, 2, 3))
    np.testing.assert_allclose(loss, want, rtol=1e-6)
    generator = gan.generator_loss([fake], mode="hinge", mouth=False)
    np.testing.assert_allclose(generator, 1 - fake.mean((1, 2, 3)), rtol=1e-6)


def test_losses_are_means_over_the_scales():
    a, b = _map(seed=1), _map(4, 4, seed=2)
    both = gan.generator_loss([a, b], mode="ls")
    apart = [gan.generator_loss([m], mode="ls") for m in (a, b)]
    np.testing.assert_allclose(both, (apart[0] + apart[1]) / 2, rtol=1e-6)


def test_feature_matching_weighs_each_block():
    real, fake = [[_map(seed=1), _map(4, 4, seed=2)]], [[_map(seed=3), _map(4, 4, seed=4)]]
    got = gan.feature_matching(real, fake, weights=(10, 0, 10), mouth=False)
    np.testing.assert_allclose(got, 10 * abs(real[0][0] - fake[0][0]).mean((1, 2, 3)), rtol=1e-6)
    with pytest.raises(ValueError, match="1 weights for a discriminator of 2 blocks"):
        gan.feature_matching(real, fake, weights=(10,))


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="'wgan' is not one of hinge, ls"):
        gan.generator_loss([_map()], mode="wgan")
