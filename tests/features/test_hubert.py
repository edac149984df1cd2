"""HuBERT against the recorded reference runs: both builds, every stage, odd lengths and a padded batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import record

from convert import hubert as conversion
from convert import rules
from ctjax.features import hubert
from ctjax.types import UserError

BUILDS = ("hubert_tiny_stable", "hubert_tiny_base")
CLIPS = ("wave_2s", "wave_odd", "batch")
STAGES = (
    *(f"conv{i}" for i in range(7)),
    "projected",
    "pos_conv",
    "layer0_in",
    "layer0_attention",
    *(f"layer{i}_out" for i in range(3)),
    "last_hidden_state",
)


def converted(rec):
    config = hubert.HubertConfig.from_huggingface(rec.config, rec.manifest["feature_extractor_config"])
    network = hubert.network(config)
    state = conversion.normalise_state_dict(rec.weights["hubert"]).state
    return network, rules.apply(conversion.TABLE, state, network.abstract, name=rec.name)[0], config


def clip(rec, name):
    """A recorded clip as the reference's feature extractor hands it over, with lengths if it sends a mask."""
    masked = rec.manifest["feature_extractor_config"]["return_attention_mask"]
    waves = [rec.inputs[name]] if name != "batch" else [rec.inputs["wave_2s"], rec.inputs["wave_odd"]]
    batch, lengths = hubert.normalize_waveforms(waves, masked=masked)
    return batch, lengths if masked else None


def stages(module, waveform, lengths):
    """Every recorded stage, by running the network's own parts one after the other."""
    out = {}
    x = waveform[..., None]
    for index, layer in enumerate(module.feature_extractor.conv_layers):
        x = layer(x)
        out[f"conv{index}"] = x.swapaxes(1, 2)
    x = module.feature_projection(x)
    mask = None
    if lengths is not None:
        steps = jnp.array([module.config.steps(int(n)) for n in lengths])
        mask = jnp.arange(x.shape[1]) < steps[:, None]
        x = jnp.where(mask[..., None], x, 0)
    out["projected"] = x  # the reference zeroes padding in place, so its record of this stage has the zeros too
    encoder = module.encoder
    out["pos_conv"] = encoder.pos_conv_embed(x)
    out["layer0_in"] = x = encoder.first_input(x, out["pos_conv"])
    out["layer0_attention"] = encoder.layers[0].attention(encoder.layers[0].attention_input(x), mask)
    for index, layer in enumerate(encoder.layers):
        out[f"layer{index}_out"] = x = layer(x, mask)
    out["last_hidden_state"] = encoder.last_output(x)
    return out


@pytest.fixture(scope="module", params=BUILDS)
def build(request):
    rec = record(request.param)
    network, params, config = converted(rec)
    runs = {}
    for name in CLIPS:
        waveform, lengths = clip(rec, name)
        run = jax.jit(
            lambda p, w, n=lengths: (
                stages(network.bind(p), w, n),
                network.bind(p)(w, None if n is None else jnp.array(n)),
            )
        )
        runs[name] = jax.device_get(run(params, waveform))
    return rec, network, params, config, runs


@pytest.mark.parametrize("name", CLIPS)
def test_every_recorded_stage(build, name):
    rec, _, _, _, runs = build
    waveform, lengths = clip(rec, name)
    found = dict(runs[name][0], input_values=waveform, hidden_states_count=np.array([len(runs[name][1].hidden_states)]))
    if lengths is not None:
        found["attention_mask_sum"] = lengths
    recorded = [key.removeprefix(f"{name}/") for key in rec.outputs if key.startswith(f"{name}/")]
    assert len(recorded) >= 14
    for stage in recorded:
        rec.check(f"{name}/{stage}", found[stage])


@pytest.mark.parametrize("name", CLIPS)
def test_the_whole_network_and_its_hidden_states(build, name):
    rec, _, _, config, runs = build
    output = runs[name][1]
    rec.check(f"{name}/last_hidden_state", output.last_hidden_state)
    rec.check(f"{name}/layer0_in", output.hidden_states[0])
    for index in range(config.layers - 1):
        rec.check(f"{name}/layer{index}_out", output.hidden_states[index + 1])
    np.testing.assert_array_equal(output.hidden_states[-1], output.last_hidden_state)


def test_a_padded_clip_equals_the_bare_clip(build):
    """Also where statistics are taken over time, which the reference does not mask."""
    rec, network, params, config, _ = build
    short = rec.inputs["wave_odd"]
    batch, lengths = hubert.normalize_waveforms([short, rec.inputs["wave_2s"]])
    run = jax.jit(lambda p, w, n: network.bind(p)(w, n).last_hidden_state)
    padded = run(params, batch, lengths)[0, : config.steps(len(short))]
    bare = run(params, batch[:1, : len(short)], lengths[:1])[0]
    np.testing.assert_allclose(padded, bare, atol=1e-5 * float(np.abs(bare).max()))


def test_bfloat16_stays_bfloat16_and_close(build):
    rec, network, params, _, runs = build
    waveform, _ = clip(rec, "wave_odd")
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    run = jax.jit(lambda p, w: network.bind(p)(w).last_hidden_state)
    got = run(half, jnp.asarray(waveform, jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    want = runs["wave_odd"][1].last_hidden_state
    error = np.abs(np.asarray(got, np.float32) - want)
    assert float(error.mean()) < 0.05 * float(want.std())


@pytest.mark.full
def test_hubert_large():
    rec = record("hubert_large")
    network, params, config = converted(rec)
    assert config == conversion.infer_config(conversion.normalise_state_dict(rec.weights["hubert"]).state)
    waveform, _ = clip(rec, "wave_1s")
    output = jax.device_get(jax.jit(lambda p, w: network.bind(p)(w))(params, waveform))
    for index in range(config.layers - 1):
        rec.check(f"wave_1s/layer{index}_out", output.hidden_states[index + 1])
    rec.check("wave_1s/last_hidden_state", output.last_hidden_state)
    rec.check("wave_1s/hidden_states_count", np.array([len(output.hidden_states)]))
    last_layer = network.bind(params).encoder.layers[23]
    rec.check("wave_1s/layer23_out", jax.jit(lambda x: last_layer(x))(output.hidden_states[23]))


def test_config_is_read_not_assumed():
    good = record("hubert_tiny_stable").config
    for key in ("conv_bias", "layer_norm_eps", "num_conv_pos_embeddings", "hidden_act"):
        with pytest.raises(UserError, match=key):
            hubert.HubertConfig.from_huggingface({k: v for k, v in good.items() if k != key})
    for key, value in (("hidden_act", "gelu_new"), ("conv_pos_batch_norm", True), ("model_type", "wav2vec2")):
        with pytest.raises(UserError, match=key):
            hubert.HubertConfig.from_huggingface({**good, key: value})
    with pytest.raises(UserError, match="stem_norm"):
        hubert.HubertConfig.from_huggingface({**good, "feat_extract_norm": "batch"})
    with pytest.raises(UserError, match="16000"):
        hubert.HubertConfig.from_huggingface(good, {"sampling_rate": 8000})
    quiet = hubert.HubertConfig.from_huggingface(good, {"sampling_rate": 16000, "do_normalize": False})
    assert not quiet.normalize_waveform and hash(quiet)
    assert dataclasses.replace(quiet, normalize_waveform=True) == hubert.HubertConfig.from_huggingface(good)
