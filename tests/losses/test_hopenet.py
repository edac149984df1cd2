"""Hopenet's bins, degrees and input resize against the recorded reference run."""

import jax
import numpy as np
import parity
import pytest

from convert import hopenet as conversion
from convert import rules
from ctjax.losses import hopenet, vgg19

ANGLES = hopenet.PoseBins._fields


@pytest.fixture(scope="module")
def record():
    return parity.record("hopenet")


@pytest.fixture(scope="module")
def outputs(record):
    state = record.weights["hopenet"]
    config = conversion.infer_config(state)
    assert config == hopenet.HopenetConfig()
    network = hopenet.network(config)
    params = rules.apply(conversion.TABLE, state, network.abstract, name="hopenet")[0]

    @jax.jit
    def run(params, image):
        image = vgg19.imagenet_normalize(image)
        module = network.bind(params)
        bins = module(image)
        return module.features(image), bins, [hopenet.degrees(b) for b in bins]

    return run(params, record.image("image_u8"))


@pytest.mark.parametrize("stage", ["conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"])
def test_stages_match_the_record(record, outputs, stage):
    record.check(f"trace/{stage}", parity.channels_first(outputs[0][stage]))


def test_pooled_features_match_the_record(record, outputs):
    record.check("trace/avgpool", np.asarray(outputs[0]["avgpool"])[:, :, None, None])


@pytest.mark.parametrize("index, angle", list(enumerate(ANGLES)))
def test_bins_and_degrees_match_the_record(record, outputs, index, angle):
    record.check(f"{angle}_bins", outputs[1][index])
    record.check(f"{angle}_deg", outputs[2][index])


@pytest.mark.parametrize("antialias, name", [(True, "resize_256_to_224"), (False, "resize_256_to_224_noaa")])
def test_input_resize_matches_both_torchvision_generations(record, antialias, name):
    resized = hopenet.resize_for_hopenet(record.image("image256_u8"), antialias)
    record.check(name, parity.channels_first(resized))


def test_old_files_without_batch_counters_convert(record):
    state = {k: v for k, v in record.weights["hopenet"].items() if not k.endswith("num_batches_tracked")}
    _, report = rules.apply(conversion.TABLE, state, hopenet.network().abstract, name="hopenet")
    assert set(report.ignored) == {"fc_finetune.weight", "fc_finetune.bias"}


def test_head_pose_normalises_and_resizes():
    network = hopenet.network(hopenet.HopenetConfig(layers=(1, 1), width=4))
    module = network.bind(network.init(jax.random.key(0)))
    image = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    want = module(vgg19.imagenet_normalize(jax.image.resize(image, (2, 224, 224, 3), "linear")))
    got = hopenet.head_pose(module, image)
    np.testing.assert_allclose(got.pitch_deg, hopenet.degrees(want.pitch), atol=1e-4)
