"""HuBERT's, Audio2Exp's and the sync networks' conversion: every published layout gives the same network."""

import jax
import numpy as np
import pytest
from checkpoints import fairseq_names
from parity import record

from convert import audio2exp, hubert, rules
from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.types import UserError

HUBERTS = ("hubert_tiny_stable", "hubert_tiny_base")


def convert_hubert(rec, state):
    config = HubertConfig.from_huggingface(rec.config)
    state, folded = hubert.normalise_state_dict(state)
    params, report = rules.apply(hubert.TABLE, state, hubert_network(config).abstract, name="hubert")
    return params, report, folded


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("name", HUBERTS)
def test_every_layout_of_hubert_is_one_network(name):
    rec = record(name)
    state = rec.weights["hubert"]
    want, report, folded = convert_hubert(rec, state)
    assert len(report.placed) + len(report.ignored) + len(folded) - 1 == len(state)
    assert sorted(key.rsplit(".", 1)[1] for key in folded) == ["weight_g", "weight_v"]
    assert list(report.ignored) == ["masked_spec_embed"]

    aliases = rec.manifest["weights"]["hubert"]["aliases"]
    new_names = {aliases.get(key, key): value for key, value in state.items()}
    assert_same(convert_hubert(rec, new_names)[0], want)

    ctc = {f"hubert.{key}": value for key, value in state.items()}
    ctc |= {"lm_head.weight": np.zeros((32, 48), np.float32), "lm_head.bias": np.zeros(32, np.float32)}
    params, report, _ = convert_hubert(rec, ctc)
    assert_same(params, want)
    assert "lm_head.weight" in report.ignored

    assert_same(convert_hubert(rec, fairseq_names(rec))[0], want)

    inside_ctc = {f"w2v_encoder.w2v_model.{key}": value for key, value in fairseq_names(rec).items()}
    assert_same(convert_hubert(rec, inside_ctc)[0], want)


def test_the_folded_kernel_is_torchs():
    torch = pytest.importorskip("torch")
    conv = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(8, 8, 5, groups=2), name="weight", dim=2)
    state = {key: value.detach().numpy() for key, value in conv.state_dict().items()}
    kernel = hubert.fold_weight_norm(
        state["parametrizations.weight.original0"] * 1.7, state["parametrizations.weight.original1"]
    )
    np.testing.assert_allclose(kernel, conv.weight.detach().numpy() * 1.7, atol=1e-6)


@pytest.mark.parametrize("name", HUBERTS)
def test_hubert_config_from_shapes(name):
    """Shapes tell all but head width (64 in every published HuBERT) of the record's 4 heads of 12."""
    rec = record(name)
    state, _ = hubert.normalise_state_dict(rec.weights["hubert"])
    with pytest.raises(UserError, match=r"width 48.*config\.json"):
        hubert.infer_config(state)
    wide = dict(state)
    wide["feature_projection.projection.weight"] = np.zeros((192, 24), np.float32)
    wide["encoder.pos_conv_embed.conv.weight"] = np.zeros((192, 48, 16), np.float32)
    want = HubertConfig.from_huggingface({**rec.config, "hidden_size": 192, "num_attention_heads": 3})
    assert hubert.infer_config(wide) == want


def test_what_is_not_hubert_is_refused():
    rec = record("hubert_tiny_base")
    state = dict(rec.weights["hubert"])
    with pytest.raises(UserError, match="not a HuBERT"):
        hubert.infer_config({"out_fc.weight": np.zeros((45, 1069), np.float32)})
    twice = {**state, "hubert.encoder.layer_norm.weight": state["encoder.layer_norm.weight"]}
    with pytest.raises(UserError, match="two networks"):
        hubert.normalise_state_dict(twice)
    del state["encoder.pos_conv_embed.conv.weight_g"]
    with pytest.raises(rules.ConversionError, match=r"weight_v[\s\S]*missing.*pos_conv_embed\.conv\.kernel"):
        convert_hubert(rec, state)


def small_lip_control():
    """A lipControlNet state dict of a small network: (config, state)."""
    config = Audio2ExpConfig(steps=3, channels=4, widths=(8, 6, 5, 7), num_kp=4)
    rng = np.random.default_rng(0)
    shapes = {"out_fc.weight": (12, 19), "out_fc.bias": (12,)}
    for head, inputs, width in zip(("fc1", "fc2", "fc3", "fc4"), (12, 8, 6, 5), config.widths, strict=True):
        name = f"audio_encoder.{head}"
        shapes |= {f"{name}.projection.weight": (width, inputs), f"{name}.fc.weight": (width, width)}
        shapes |= {f"{name}.layer_norm.weight": (width,)}
        shapes |= {f"{name}.{part}.bias": (width,) for part in ("projection", "fc", "layer_norm")}
    return config, {key: rng.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}


def test_lip_control_layouts():
    config, state = small_lip_control()
    assert audio2exp.infer_config(state, channels=4) == config
    model = Audio2Exp(config)
    want, report = rules.apply(audio2exp.TABLE, state, model.abstract, name="lipControlNet")
    assert len(report.placed) == len(state)
    parallel = {f"module.{key}": value for key, value in state.items()}
    got = rules.apply(audio2exp.TABLE, audio2exp.normalise_state_dict(parallel), model.abstract, name="lipControlNet")[
        0
    ]
    assert_same(got, want)

    back = rules.invert(audio2exp.TABLE, want, {key: value.shape for key, value in state.items()})
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


def test_audio_encoder_layouts():
    config, state = small_lip_control()
    model = Audio2Exp(config)
    want = rules.apply(audio2exp.TABLE, state, model.abstract, name="lipControlNet")[0]["audio_encoder"]
    encoder = {key.removeprefix("audio_encoder."): value for key, value in state.items() if "audio_encoder" in key}
    file = audio2exp.audio_encoder_checkpoint(encoder)
    assert "model.audio_encoder.fc1.projection.weight" in file
    others = {"model.visual_encoder.conv.weight": np.zeros(3), "epoch_audio_encoder": np.zeros(1)}
    for layout in (file, {f"module.{key}": value for key, value in file.items()}):
        kept = audio2exp.audio_encoder_state_dict({**layout, **others})
        got = rules.apply(audio2exp.TABLE, kept, model.audio_encoder.abstract, name="audio_encoder")[0]
        assert_same(got, want)
    with pytest.raises(UserError, match=r"not an audio_encoder.pt.*audio_encoder\.fc1"):
        audio2exp.audio_encoder_state_dict({f"audio_encoder.{key}": value for key, value in encoder.items()})


def test_what_is_not_lip_control_is_refused():
    _, state = small_lip_control()
    with pytest.raises(UserError, match="windows of 5-channel"):
        audio2exp.infer_config(state, channels=5)
    del state["out_fc.weight"]
    with pytest.raises(UserError, match=r"out_fc\.weight not found"):
        audio2exp.infer_config(state, channels=4)
