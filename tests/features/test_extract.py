"""Features in bounded memory against the network run at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import record

from convert import hubert as conversion
from convert import rules
from ctjax.features import attention, extract, hubert
from ctjax.types import UserError

BUILDS = ("hubert_tiny_stable", "hubert_tiny_base")


@pytest.fixture(scope="module", params=BUILDS)
def build(request):
    rec = record(request.param)
    config = hubert.HubertConfig.from_huggingface(rec.config)
    state = conversion.normalise_state_dict(rec.weights["hubert"]).state
    network = hubert.network(config)
    params = rules.apply(conversion.TABLE, state, network.abstract, name=rec.name)[0]
    at_once = jax.jit(lambda params, waveform: network.bind(params)(waveform).last_hidden_state)
    return rec, extract.SpeechFeatures(config, params), lambda wave: np.asarray(at_once(params, wave)[0])


def sound(seconds, seed=0):
    """Noise whose loudness and mean wander, so that statistics of a part are not those of the whole."""
    t = np.arange(int(seconds * 16000)) / 16000
    loudness = 0.1 * (1.2 + np.sin(0.7 * t))
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (loudness * np.sin(900 * t + noise) + 0.05 * noise + 0.02 * np.sin(0.3 * t)).astype(np.float32)


def blocks_of(samples, size):
    return lambda: (samples[start : start + size] for start in range(0, len(samples), size))


def assert_close(got, want):
    assert got.shape == want.shape and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())


@pytest.mark.parametrize("name", ["wave_2s", "wave_odd"])
def test_recorded_clips(build, name):
    rec, features, _ = build
    rec.check(f"{name}/last_hidden_state", features(rec.inputs[name])[None])


def test_many_blocks_equal_the_whole_network(build):
    """45 s are five blocks; read in pieces of an odd size."""
    _, features, at_once = build
    samples = sound(45.0)
    blocks = blocks_of(samples, 70_001)
    chunks = list(features.stream(blocks, extract.measure(blocks)))
    assert [len(chunk) for chunk in chunks] == [512, 512, 512, 512, 201]
    assert_close(np.concatenate(chunks), at_once(hubert.normalize_waveforms([samples])[0]))


@pytest.mark.parametrize("samples", [1, 100, 399, 400, 1600])
def test_short_sound_is_padded_with_silence(build, samples):
    _, features, at_once = build
    wave = sound(1.0)[:samples]
    normalised = hubert.normalize_waveforms([wave])[0]
    want = at_once(np.pad(normalised, ((0, 0), (0, max(400 - samples, 0)))))
    got = features(wave)
    assert len(got) == features.steps(samples) == max(1, (samples - 400) // 320 + 1)
    assert_close(got, want)


def test_digital_silence(build):
    _, features, _ = build
    got = features(np.zeros(16000, np.float32))
    assert got.shape[0] == 49 and np.isfinite(got).all()


def test_a_second_clip_of_a_like_length_compiles_nothing(build):
    _, features, _ = build
    features(sound(2.0))
    before = [program._cache_size() for program in features._run]
    features(sound(1.7, seed=1))
    assert [program._cache_size() for program in features._run] == before


def test_scratch_files_are_used_and_removed(build, tmp_path, monkeypatch):
    _, features, _ = build
    samples = sound(45.0)
    want = features(samples)
    monkeypatch.setattr(extract, "SPOOL_BYTES", 1)
    monkeypatch.setattr(features, "_scratch_dir", str(tmp_path))
    np.testing.assert_array_equal(features(samples), want)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_clear_error(build, monkeypatch):
    _, features, _ = build

    class Full:
        def seek(self, position):
            pass

        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(extract.tempfile, "SpooledTemporaryFile", lambda **_: Full())
    with pytest.raises(UserError, match="TMPDIR"):
        features(sound(0.1))


def test_half_precision(build):
    _, features, _ = build
    samples = sound(2.0)
    half = extract.SpeechFeatures(features.config, features._params, dtype=jnp.bfloat16)
    want, got = features(samples), half(samples)
    assert got.dtype == np.float32
    assert np.abs(got - want).mean() < 0.05 * want.std()


def test_measure_needs_no_whole_clip():
    samples = sound(3.0) + 0.25
    clip = extract.measure(blocks_of(samples, 777))
    assert clip.samples == len(samples)
    assert clip.mean == pytest.approx(samples.mean(dtype=np.float64), rel=1e-12)
    assert clip.variance == pytest.approx(samples.var(dtype=np.float64), rel=1e-10)
    with pytest.raises(UserError, match="no samples"):
        extract.measure(lambda: [np.zeros(0)])
    with pytest.raises(ValueError, match="one axis"):
        extract.measure(lambda: [np.zeros((10, 2))])


def test_sound_that_changes_between_passes(build):
    _, features, _ = build
    clip = extract.measure(lambda: [sound(1.0)])
    with pytest.raises(UserError, match="changed while it was read"):
        list(features.stream(lambda: [sound(1.1)], clip))


@pytest.mark.parametrize("steps", [1, 64, 65, 512, 513, 2048, 5000, 30_000, 180_000])
def test_blocks_waste_little(steps):
    block = extract.block_steps(steps)
    assert block in extract.BLOCKS
    computed = -(-steps // block) * block
    assert computed < 2 * steps or steps < 64
    if steps > 2048:
        assert computed < 1.25 * steps


def test_attention_in_blocks_is_attention():
    """Several query and key blocks in one call, several calls, the last one part-filled."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, n, 2, 4)).astype(np.float32) * 3 for n in (1024, 2048, 2048))
    valid = 1024 + 700
    scores = np.einsum("bqhd,bkhd->bhqk", q, k[:, :valid]).astype(np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v[:, :valid])

    @jax.jit
    def run(q, k, v):
        state = attention.start(q)
        state = attention.attend(state, q, k[:, :1024], v[:, :1024], 1024)
        state = attention.attend(state, q, k[:, 1024:], v[:, 1024:], valid - 1024)
        return attention.finish(attention.attend(state, q, k[:, :1024], v[:, :1024], 0))

    np.testing.assert_allclose(run(q, k, v), want, atol=1e-4)


@pytest.mark.full
def test_hubert_large_in_blocks():
    rec = record("hubert_large")
    config = hubert.HubertConfig.from_huggingface(rec.config)
    state = conversion.normalise_state_dict(rec.weights["hubert"]).state
    params = rules.apply(conversion.TABLE, state, hubert.network(config).abstract, name=rec.name)[0]
    rec.check("wave_1s/last_hidden_state", extract.SpeechFeatures(config, params)(rec.inputs["wave_1s"])[None])
