"""VGG-19's feature maps against the recorded reference run."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from convert import rules
from convert import vgg19 as conversion
from ctjax.losses import vgg19

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def record():
    return parity.record("vgg19")


@pytest.fixture(scope="module")
def params(record):
    state = record.weights["vgg19"]
    network = vgg19.network(conversion.infer_config(state))
    return rules.apply(conversion.TABLE, state, network.abstract, name="vgg19")[0]


@pytest.fixture(scope="module")
def maps(record, params):
    run = jax.jit(lambda params, image: vgg19.network().bind(params)(image))
    return dict(zip(LAYERS, run(params, record.image("image_u8")), strict=True))


@pytest.mark.parametrize("layer", LAYERS)
def test_feature_maps_match_the_record(record, maps, layer):
    record.check(layer, parity.channels_first(maps[layer]))


def test_a_torchvision_checkpoint_converts_with_its_classifier(record):
    state = dict(record.weights["vgg19"])
    state["classifier.0.weight"] = np.zeros((8, 8), np.float32)
    _, report = rules.apply(conversion.TABLE, state, vgg19.network().abstract, name="vgg19")
    assert "classifier.0.weight" in report.ignored
    assert "features.30.weight" in report.ignored
    assert report.placed["features.28.bias"] == "features.28.bias"


def test_half_precision_stays_half_precision():
    network = vgg19.network(vgg19.Vgg19Config(widths=(2, 2, 2, 2, 2)))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.bfloat16), network.abstract)
    maps = network.bind(params)(jnp.ones((1, 16, 16, 3), jnp.bfloat16))
    assert {m.dtype for m in maps} == {jnp.dtype(jnp.bfloat16)}


def test_images_too_small_for_relu5_1_are_refused():
    network = vgg19.network(vgg19.Vgg19Config(widths=(2, 2, 2, 2, 2)))
    params = network.init(jax.random.key(0))
    with pytest.raises(ValueError, match="at least 16 px"):
        network.bind(params)(jnp.ones((1, 8, 8, 3)))
