"""The Oxford SyncNet against the recorded reference run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import channels_first, record

from convert import rules, syncnets
from ctjax.losses import oxford_syncnet
from ctjax.losses.oxford_syncnet import OxfordSyncNetConfig
from ctjax.types import UserError

RECORD = record("syncnet_python")


@pytest.fixture(scope="module")
def found():
    state = RECORD.weights["S"]
    config = syncnets.infer_oxford_config(state)
    assert config == OxfordSyncNetConfig()
    network = oxford_syncnet.network(config)
    params = rules.apply(syncnets.TABLE, state, network.abstract, name="S")[0]
    # BGR, channels first, 0..255 -> "b 5 h w 3" RGB in [0, 1]
    frames = np.moveaxis(RECORD.inputs["lip_u8"][:, ::-1], 1, -1).astype(np.float32) / np.float32(255)
    mfcc = RECORD.inputs["mfcc"][:, 0]

    @jax.jit
    def run(params, frames, mfcc):
        out = {}
        module = network.bind(params)
        for tower, x in (("netcnnlip", 255.0 * frames[..., ::-1]), ("netcnnaud", mfcc[..., None])):
            for index, layer in enumerate(getattr(module, tower)):
                x = layer(x)
                out[f"trace/{tower}.{index}"] = x
        out["lip_feature"] = module.lip_features(frames)
        out["lip_embedding"] = module.embed_lips(frames)
        out["audio_embedding"] = module.embed_audio(mfcc)
        return {name: out[name] for name in RECORD.outputs}

    out = jax.device_get(run(params, frames, mfcc))
    return {name: channels_first(x) if name.startswith("trace") else x for name, x in out.items()}


@pytest.mark.parametrize("name", sorted(RECORD.outputs))
def test_output(found, name):
    RECORD.check(name, found[name])


def test_smaller_sizes_and_wrong_inputs():
    config = OxfordSyncNetConfig(audio_widths=(2, 3, 4, 5, 6, 7), lip_widths=(3, 4, 5, 6, 7, 8), embedding=9)
    network = oxford_syncnet.network(config)

    def shape(method, size):
        run = lambda p: getattr(network.bind(p), method)(jnp.zeros((2, *size)))  # noqa: E731
        return jax.eval_shape(run, network.abstract).shape

    assert shape("embed_audio", (13, 20)) == (2, 9)
    assert shape("embed_lips", (5, 224, 224, 3)) == (2, 9)
    with pytest.raises(ValueError, match="wrong input size"):
        shape("embed_audio", (13, 30))
    with pytest.raises(ValueError, match="wrong input size"):
        shape("embed_lips", (5, 256, 256, 3))
    with pytest.raises(UserError, match="not a checkpoint of the Oxford SyncNet"):
        syncnets.infer_oxford_config({"netcnnaud.0.weight": np.zeros((64, 1, 3, 3))})
