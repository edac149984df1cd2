"""Every fast formulation of a convolution against the direct one, values and gradients, in float64 and float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.nn.fast import winograd
from ctjax.nn.fast.convolution import convolve, image_layout, upsampled_layout, volume_layout

RNG = np.random.default_rng(0)


def reference(x, kernel, bias, upsample=1):
    """The direct convolution that keeps the size, of x upsampled by nearest."""
    for axis in (-3, -2):
        x = jnp.repeat(x, upsample, axis=axis)
    sizes = kernel.shape[:-2]
    numbers = ("NDHWC", "DHWIO", "NDHWC") if len(sizes) == 3 else ("NHWC", "HWIO", "NHWC")
    pads = [(size // 2, size // 2) for size in sizes]
    return jax.lax.conv_general_dilated(x, kernel, (1,) * len(sizes), pads, dimension_numbers=numbers) + bias


def case(sizes, shape, inputs=5, outputs=6):
    """A random input, kernel and bias, float64; the kernel scaled so that outputs are of order 1."""
    kernel = RNG.standard_normal((*sizes, inputs, outputs)) / np.sqrt(np.prod(sizes) * inputs)
    return RNG.standard_normal((2, *shape, inputs)), kernel, RNG.standard_normal(outputs)


def both(function, x, direction):
    """`function` of x and the gradient of its product with `direction`, compiled."""

    @jax.jit
    def run(x, direction):
        value, back = jax.vjp(function, x)
        return value, back(direction)[0]

    return run(x, direction)


def hold(layout, x, kernel, bias, upsample=1):
    """`convolve` equals the reference in float64, gradient included, and in float32 up to rounding."""
    with jax.enable_x64(True):
        shape = jax.eval_shape(lambda x: reference(x, kernel, bias, upsample), x).shape
        direction = RNG.standard_normal(shape)
        got = both(lambda x: convolve(layout, x, upsample=upsample), x, direction)
        want = both(lambda x: reference(x, kernel, bias, upsample), x, direction)
        for fast, slow in zip(got, want, strict=True):
            np.testing.assert_allclose(fast, slow, atol=1e-11)
    narrow = jax.tree.map(lambda a: a.astype(np.float32), (layout, x))
    got = jax.jit(lambda layout, x: convolve(layout, x, upsample=upsample))(*narrow)
    np.testing.assert_allclose(got, want[0], atol=3e-5)


@pytest.mark.parametrize("formulation", ["direct", "winograd2", "winograd4"])
@pytest.mark.parametrize("shape", [(8, 16), (11, 7)])
def test_images(formulation, shape):
    x, kernel, bias = case((3, 3), shape)
    hold(image_layout(kernel, bias, formulation), x, kernel, bias)


def test_winograd_takes_only_three_wide_kernels():
    x, kernel, bias = case((1, 1), (4, 5))
    hold(image_layout(kernel, bias, "winograd4"), x, kernel, bias)
    x, kernel, bias = case((7, 7), (9, 8))
    hold(image_layout(kernel, bias, "winograd4"), x, kernel, bias)


@pytest.mark.parametrize("formulation", ["direct", "depth_taps", "winograd2", "winograd4"])
def test_volumes(formulation):
    x, kernel, bias = case((3, 3, 3), (4, 9, 6))
    hold(volume_layout(kernel, bias, formulation), x, kernel, bias)


@pytest.mark.parametrize("formulation", ["direct", "depth_taps", "dft"])
def test_wide_volumes(formulation):
    x, kernel, bias = case((7, 7, 7), (4, 18, 33), inputs=3, outputs=4)
    hold(volume_layout(kernel, bias, formulation), x, kernel, bias)


@pytest.mark.parametrize("upsample", [2, 3, 4])
def test_upsampled_images(upsample):
    x, kernel, bias = case((3, 3), (5, 7))
    hold(upsampled_layout(kernel, bias), x, kernel, bias, upsample)


def test_upsampled_volumes():
    x, kernel, bias = case((3, 3, 3), (4, 5, 3))
    hold(upsampled_layout(kernel, bias), x, kernel, bias, 2)


@pytest.mark.parametrize("outputs", [2, 4])
def test_winograd_transforms_are_exact(outputs):
    taps, tile = RNG.standard_normal(3), RNG.standard_normal(outputs + 2)
    want = np.correlate(tile, taps, mode="valid")
    forward, turned = winograd.transforms(outputs), winograd.turned_transforms(outputs)
    np.testing.assert_allclose(forward.output @ ((forward.kernel @ taps) * (forward.input @ tile)), want, atol=1e-12)
    np.testing.assert_allclose(turned.output @ ((turned.kernel @ taps[::-1]) * (turned.input @ tile)), want, atol=1e-12)


def test_rows_brought_along_replace_padding():
    x, kernel, _ = case((3, 3), (10, 6))
    spectrum = winograd.winograd_kernel(kernel, 4)
    with jax.enable_x64(True):
        direction = RNG.standard_normal((2, 8, 6, 6))
        got = both(lambda x: winograd.winograd_conv(x, spectrum), x, direction)
        want = both(lambda x: reference(x, kernel, 0.0)[:, 1:-1], x, direction)
        for fast, slow in zip(got, want, strict=True):
            np.testing.assert_allclose(fast, slow, atol=1e-11)


@pytest.mark.parametrize("formulation", ["direct", "winograd2", "winograd4"])
@pytest.mark.parametrize("rows", [12, 10])
def test_what_follows_is_done_strip_by_strip(formulation, rows, monkeypatch):
    """With maps beside the result at its size and at half of it; 10 rows leave a part of a strip's tiles empty."""
    monkeypatch.setattr(winograd, "STRIP_TILES", 6)  # one row of tiles, or two
    x, kernel, bias = case((3, 3), (rows, 7))
    beside = RNG.standard_normal((2, rows, 7, 6)), RNG.standard_normal((2, rows // 2, 7, 6))

    def then(y, same, half):
        return jnp.tanh(y * same + jnp.repeat(half, 2, axis=1))

    with jax.enable_x64(True):
        layout = image_layout(kernel, bias, formulation)
        direction = RNG.standard_normal((2, rows, 7, 6))
        got = both(lambda x: convolve(layout, x, then=then, beside=beside), x, direction)
        want = both(lambda x: then(reference(x, kernel, bias), *beside), x, direction)
        for fast, slow in zip(got, want, strict=True):
            np.testing.assert_allclose(fast, slow, atol=1e-11)


@pytest.mark.parametrize("rows", [12, 10])
def test_volumes_in_strips(rows, monkeypatch):
    monkeypatch.setattr(winograd, "STRIP_TILES", 1)
    x, kernel, bias = case((3, 3, 3), (5, rows, 6))
    hold(volume_layout(kernel, bias, "winograd4"), x, kernel, bias)


def test_unknown_formulations_are_named():
    _, kernel, bias = case((3, 3), (4, 4))
    with pytest.raises(ValueError, match="'fourier', should be one of direct, winograd2, winograd4"):
        image_layout(kernel, bias, "fourier")
    _, kernel, bias = case((3, 3, 3), (4, 4, 4))
    with pytest.raises(ValueError, match="'taps', should be one of direct, depth_taps"):
        volume_layout(kernel, bias, "taps")
    with pytest.raises(ValueError, match="upsampled by 1"):
        convolve(upsampled_layout(kernel, bias), jnp.zeros((1, 4, 4, 4, 5)), upsample=1)
