"""LPIPS against a plain PyTorch twin with rule-made weights; the unweighted distance by its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule_weights

from convert import lpips as conversion
from convert import rules
from ctjax.evaluate import perceptual

torch = pytest.importorskip("torch")
F = torch.nn.functional
WIDTHS = (4, 6, 8, 10, 10)


@pytest.fixture(scope="module")
def state():
    """torchvision's VGG-16 keys and lpips' learned weights, at reduced width."""
    state, index, channels = {}, 0, 3
    for block, (width, count) in enumerate(zip(WIDTHS, perceptual.VGG16_CONVOLUTIONS, strict=True)):
        for _ in range(count):
            for part, shape in (("weight", (width, channels, 3, 3)), ("bias", (width,))):
                key = f"features.{index}.{part}"
                state[key] = rule_weights.entry("lpips", key, shape)
            index, channels = index + 2, width
        index += 1
        state[f"lin{block}.model.1.weight"] = np.abs(rule_weights.normals("lpips", f"lin{block}", (1, width, 1, 1)))
    return state


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 3, 40, 36, 3)).astype(np.float32)


def _twin(state, a, b):
    """lpips.LPIPS(net="vgg", version="0.1").forward(a, b, normalize=True) in float64."""
    maps = []
    shift, scale = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (perceptual.LPIPS_SHIFT, perceptual.LPIPS_SCALE))
    for image in (a, b):
        x = (2 * torch.as_tensor(np.moveaxis(image, -1, 1)).double() - 1 - shift) / scale
        found, index = [], 0
        for count in perceptual.VGG16_CONVOLUTIONS:
            x = F.max_pool2d(x, 2) if index else x
            for _ in range(count):
                weight, bias = (torch.as_tensor(state[f"features.{index}.{p}"]).double() for p in ("weight", "bias"))
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
                index += 2
            index += 1
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        maps.append(found)
    total = 0
    for layer, (x, y) in enumerate(zip(*maps, strict=True)):
        weight = torch.as_tensor(state[f"lin{layer}.model.1.weight"]).double()
        total = total + F.conv2d((x - y).square(), weight).mean((1, 2, 3))
    return total.numpy()


@pytest.mark.parametrize("layout", ["two files", "one state dict"])
def test_lpips_equals_the_twin(state, images, layout):
    source = dict(state)
    if layout == "one state dict":
        slices = np.cumsum([0, 4, 5, 7, 7, 7])
        for key in [k for k in source if k.startswith("features.")]:
            number = int(key.split(".")[1])
            part = int(np.searchsorted(slices, number, side="right"))
            source[key.replace("features", f"net.slice{part}")] = source.pop(key)
        source["scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
    config = conversion.infer_config(source)
    assert config.widths == WIDTHS
    network = perceptual.network(config)
    params, _ = rules.apply(conversion.TABLE, source, network.abstract, name="lpips")
    got = jax.jit(lambda p, a, b: network.bind(p)(a, b))(params, *images)
    np.testing.assert_allclose(got, _twin(state, *images), rtol=1e-4)


def test_the_unweighted_distance_is_two_minus_twice_the_cosine():
    rng = np.random.default_rng(1)
    a, b = ([rng.random((2, 5, 4, c)).astype(np.float32) for c in (3, 7)] for _ in range(2))
    cosines = [
        np.sum(x * y, -1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1) for x, y in zip(a, b, strict=True)
    ]
    want = np.mean([np.mean(2 - 2 * c, (1, 2)) for c in cosines], 0)
    np.testing.assert_allclose(perceptual.unweighted_distance(a, b), want, rtol=1e-4)
    np.testing.assert_array_equal(perceptual.unweighted_distance(a, a), 0)


def test_black_features_are_at_distance_zero():
    black = [jnp.zeros((1, 2, 2, 3))]
    assert float(perceptual.unweighted_distance(black, black)[0]) == 0
