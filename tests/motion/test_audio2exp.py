"""Audio2Exp at its true size against the recorded reference run, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import record

from convert import audio2exp as conversion
from convert import rules
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig

RECORD = record("audio2exp")
ALPHAS = RECORD.config["alphas"]
TINY = Audio2ExpConfig(steps=3, channels=4, widths=(8, 6, 5, 7), num_kp=4)


@pytest.fixture(scope="module")
def model():
    state = RECORD.weights["lipControlNet"]
    audio2exp = Audio2Exp(conversion.infer_config(state))
    assert audio2exp.config == Audio2ExpConfig()
    return audio2exp, rules.apply(conversion.TABLE, state, audio2exp.abstract, name="lipControlNet")[0]


@pytest.fixture(scope="module")
def found(model):
    """Everything that the record holds, from one compiled function."""
    audio2exp, params = model
    inputs = {name: jnp.asarray(value, jnp.float32) for name, value in RECORD.inputs.items()}

    def loss(out_fc, expression, params, speech, silence):
        params = {**params, "out_fc": out_fc}
        speech, silence = (audio2exp.embed(params, window) for window in (speech, silence))
        return jnp.mean(audio2exp.silence_then_speech(params, speech, silence, expression, 0.7) ** 2)

    @jax.jit
    def run(params, src_exp, speech, silence):
        out = {}
        encoder = audio2exp.audio_encoder.bind(params["audio_encoder"])
        x = speech.reshape(speech.shape[0], -1)
        out["enc_fc1.projection"] = encoder.fc1.projection(x)
        for name in ("fc1", "fc2", "fc3", "fc4"):
            out[f"enc_{name}"] = x = getattr(encoder, name)(x)
        heard, quiet = (audio2exp.embed(params, window) for window in (speech, silence))
        out["delta"] = audio2exp.delta(params, heard, src_exp)
        out["after_silence"] = audio2exp.edit(params, quiet, src_exp, 1.0)
        for alpha in ALPHAS:
            out[f"out_alpha_{alpha}"] = audio2exp.edit(params, heard, src_exp, alpha)
            one = quiet[:1]  # the record's silence is the same window four times
            out[f"two_pass_alpha_{alpha}"] = audio2exp.silence_then_speech(params, heard, one, src_exp, alpha)
        value, (out_fc, expression) = jax.value_and_grad(loss, (0, 1))(
            params["out_fc"], src_exp, params, speech, silence
        )
        out |= {"grad_loss": value[None], "grad_src_exp": expression, "grad_out_fc_bias": out_fc["bias"]}
        out["grad_out_fc_weight"] = out_fc["kernel"].T
        return out

    return jax.device_get(run(params, **inputs))


def test_nothing_recorded_is_left_out(found):
    assert found.keys() == RECORD.outputs.keys()


@pytest.mark.parametrize("name", sorted(RECORD.outputs))
def test_output(found, name):
    RECORD.check(name, found[name])


def test_the_trainable_part_is_the_papers(model):
    audio2exp, _ = model
    assert set(audio2exp.abstract) == {"audio_encoder", "out_fc"}
    assert sum(leaf.size for leaf in jax.tree.leaves(audio2exp.abstract["out_fc"])) == 48_150


def test_alpha_per_example(model, found):
    audio2exp, params = model
    speech, expression = (jnp.asarray(RECORD.inputs[name], jnp.float32) for name in ("speech", "src_exp"))
    alpha = jnp.array(ALPHAS[:4])
    heard = audio2exp.embed(params, speech)
    got = jax.jit(audio2exp.edit)(params, heard, expression, alpha)
    for row, value in enumerate(ALPHAS[:4]):
        np.testing.assert_allclose(got[row], found[f"out_alpha_{value}"][row], atol=1e-5)
    with pytest.raises(ValueError, match="one per example"):
        audio2exp.edit(params, heard, expression, jnp.ones((4, 1)))


def test_fresh_parameters_change_nothing():
    audio2exp = Audio2Exp(TINY)
    params = audio2exp.init(jax.random.key(0))
    assert not any(leaf.any() for leaf in jax.tree.leaves(params["out_fc"]))
    assert all(jnp.abs(head["projection"]["kernel"]).max() > 0 for head in params["audio_encoder"].values())
    expression = jax.random.normal(jax.random.key(1), (2, 4, 3))
    window = jax.random.normal(jax.random.key(2), (2, 3, 4))

    @jax.jit
    def run(params):
        speech, silence = (audio2exp.embed(params, x) for x in (window, jnp.zeros((1, 3, 4))))
        loss = lambda p: jnp.sum(audio2exp.edit(p, speech, expression, 1.0) ** 2)  # noqa: E731
        return audio2exp.silence_then_speech(params, speech, silence, expression, 0.7), jax.grad(loss)(params)

    got, grads = run(params)
    np.testing.assert_array_equal(got, expression)
    assert jnp.abs(grads["out_fc"]["kernel"]).max() > 0  # zero weights, yet a way out of zero


def test_halves_need_only_their_own_parameters():
    audio2exp = Audio2Exp(TINY)
    params = audio2exp.init(jax.random.key(0))
    params["out_fc"] = jax.tree.map(lambda x: x + 0.1, params["out_fc"])
    window, expression = jnp.ones((2, 3, 4)), jnp.ones((2, 4, 3))
    embedding = jax.jit(audio2exp.embed)({"audio_encoder": params["audio_encoder"]}, window)
    got = jax.jit(audio2exp.edit)({"out_fc": params["out_fc"]}, embedding, expression, 0.5)
    want = jax.jit(lambda p: audio2exp.edit(p, audio2exp.embed(p, window), expression, 0.5))(params)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert jnp.abs(want - expression).max() > 0.01


def test_bfloat16_parameters_keep_the_expression_in_float32():
    audio2exp = Audio2Exp(TINY)
    params = audio2exp.init(jax.random.key(0))
    params["out_fc"]["bias"] += 1 / 3
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    window, expression = jnp.ones((2, 3, 4)), jnp.full((2, 4, 3), 0.123456)
    assert jax.eval_shape(audio2exp.embed, half, window).dtype == jnp.bfloat16
    edit = jax.jit(lambda p, alpha: audio2exp.edit(p, audio2exp.embed(p, window), expression, alpha))
    got = edit(half, 0.0)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, expression)
    np.testing.assert_allclose(edit(half, 1.0), edit(params, 1.0), atol=5e-3)
