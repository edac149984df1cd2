"""Every network-backed metric from its bundle: tiny random networks, files through to the table."""

import dataclasses

import numpy as np
import pytest
import rule_weights
import scored_clips
from parity import record
from scored_clips import Finder, openings, sound_of

from convert import rules, syncnets
from ctjax.evaluate import clips, experts, identity, inception, instruments, perceptual
from ctjax.evaluate.cache import ResultCache
from ctjax.evaluate.catalogue import Settings
from ctjax.evaluate.instruments import BundlePaths, Devices, open_instruments
from ctjax.evaluate.pipeline import Evaluator
from ctjax.features import hubert
from ctjax.features.mel import melspectrogram
from ctjax.features.silence import QUIET_RMS
from ctjax.losses import oxford_syncnet, sync_expert, vgg19, wav2lip_syncnet
from ctjax.motion.audio2exp import Audio2ExpConfig
from ctjax.types import UserError
from ctjax.weights import BundleError, fingerprint, read_manifest, save_bundle

FRAMES = 24
HUBERT = hubert.HubertConfig(
    hidden_size=16,
    layers=1,
    heads=2,
    intermediate_size=16,
    conv_channels=(8,) * 7,
    conv_kernels=(10, 3, 3, 3, 3, 2, 2),
    conv_strides=(5, 2, 2, 2, 2, 2, 2),
    conv_bias=True,
    stem_norm="layer",
    stable_layer_norm=True,
    position_kernel=8,
    position_groups=2,
    layer_norm_eps=1e-5,
    projection_layer_norm=True,
    normalize_waveform=True,
)
TINY = {  # flag: (network's name, config, network)
    "sync": (
        "oxford_syncnet",
        config := oxford_syncnet.OxfordSyncNetConfig((4,) * 6, (4,) * 6, 8),
        oxford_syncnet.network(config),
    ),
    "wav2lip": (
        "wav2lip_syncnet",
        config := wav2lip_syncnet.Wav2LipSyncNetConfig((4,) * 5, (4,) * 5),
        wav2lip_syncnet.network(config),
    ),
    "expert": (
        "sync_expert",
        config := sync_expert.SyncExpertConfig(crop=16, widths=(8, 8), audio=Audio2ExpConfig(18, 16, (8, 8, 8, 8))),
        sync_expert.SyncExpert(config),
    ),
    "hubert": ("hubert", HUBERT, hubert.network(HUBERT)),
    "vgg": ("vgg19", config := vgg19.Vgg19Config((2, 2, 2, 2, 2)), vgg19.network(config)),
    "lpips": ("lpips", config := perceptual.LpipsConfig((2, 2, 2, 2, 2)), perceptual.network(config)),
    "inception": ("inception_fid", config := inception.InceptionConfig(16), inception.network(config)),
    "identity": (
        "arcface",
        config := identity.ArcFaceConfig((1, 1, 1, 1), (4, 4, 4, 4), 8),
        identity.network(config),
    ),
}


def _params(network, name):
    """Parameters by the rule of the recorded runs, under our own names. Compiling `network.init` would take minutes."""

    def leaf(path, shape):
        parent, last = path.rsplit(".", 1) if "." in path else ("", path)
        if last == "kernel":
            torch_key, layout = f"{parent}.weight", (*shape[:-3:-1], *shape[:-2])
        else:
            torch_key = (
                f"{parent}.{ {'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}.get(last, last) }"
            )
            layout = shape
        drawn = rule_weights.entry(name, torch_key, layout)
        return np.moveaxis(drawn, (0, 1), (-1, -2)) if last == "kernel" else drawn

    flat = {path: leaf(path, value.shape) for path, value in rules.leaves(network.abstract).items()}
    return rules.nest(flat)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    for flag, (name, config, network) in TINY.items():
        save_bundle(root / flag, network=name, config=config, params=_params(network, name), compact="float32")
    return root


@pytest.fixture(scope="module")
def rows(bundles, tmp_path_factory):
    """The reference and generated row of one clip, every network given."""
    root = tmp_path_factory.mktemp("clips")
    truth = openings(FRAMES)
    for folder, opened, texture in (("real", truth, 0), ("made", openings(FRAMES, 3), 1)):
        scored_clips.write(root / folder / "a.mp4", opened, sound=sound_of(truth), texture=texture)
    opened = open_instruments(BundlePaths(**{flag: str(bundles / flag) for flag in TINY}), "gaussian11", 8)
    assert not opened.missing
    evaluator = Evaluator(Settings(), opened, Finder(), ResultCache(None), debug=True)
    pairs, _ = clips.match(root / "made", root / "real")
    generated, reference = evaluator.evaluate({"generated": pairs}).rows
    return generated, reference


NETWORK_METRICS = (
    "lpips",
    "vgg_distance",
    "csim",
    "lse_d_uncropped",
    "lse_c_uncropped",
    "offset_uncropped",
    "lse_d_tracked",
    "lse_c_tracked",
    "offset_tracked",
    "wav2lip_expert_loss",
    "expert_distance",
)


@pytest.mark.parametrize("key", NETWORK_METRICS)
def test_every_network_gives_its_metric(rows, key):
    for row in rows:
        assert np.isfinite(row.clips[0].scores.values[key])


def test_a_clip_is_at_no_distance_from_itself(rows):
    generated, reference = (row.clips[0].scores.values for row in rows)
    for key in ("lpips", "vgg_distance"):
        assert reference[key] == pytest.approx(0, abs=1e-9) and abs(generated[key]) > 1e-3
    assert reference["csim"] == pytest.approx(1, abs=1e-5) and generated["csim"] < 1
    assert rows[1].whole["fid"] == pytest.approx(0, abs=1e-6) and rows[0].whole["fid"] > 1e-6
    assert any("FID from 24" in note for note in rows[0].notes)
    assert not any("FID" in note for note in rows[0].clips[0].scores.notes)


def test_sync_metrics_depend_on_the_picture(rows):
    generated, reference = (row.clips[0].scores.values for row in rows)
    for key in ("lse_d_uncropped", "lse_d_tracked", "wav2lip_expert_loss", "expert_distance"):
        assert generated[key] != reference[key]


def test_a_bundle_of_another_network_is_refused(bundles):
    with pytest.raises(BundleError, match="vgg19"):
        open_instruments(BundlePaths(sync=str(bundles / "vgg")), "gaussian11")


def test_an_expert_and_a_hubert_that_do_not_fit_are_refused(bundles, tmp_path):
    config = sync_expert.SyncExpertConfig(crop=16, widths=(8, 8), audio=Audio2ExpConfig(18, 12, (8, 8, 8, 8)))
    params = _params(sync_expert.SyncExpert(config), "other")
    save_bundle(tmp_path / "expert", network="sync_expert", config=config, params=params, compact="float32")
    paths = BundlePaths(expert=str(tmp_path / "expert"), hubert=str(bundles / "hubert"))
    with pytest.raises(UserError, match="16 channels, the expert .* 12"):
        open_instruments(paths, "gaussian11")


def test_an_expert_hears_the_hubert_it_was_trained_with(bundles, tmp_path):
    """Another one of the same width gives distances too, that mean nothing."""
    _, config, network = TINY["expert"]
    params = _params(network, "sync_expert")
    for name in ("another", fingerprint(read_manifest(bundles / "hubert"))):
        save_bundle(
            tmp_path / "expert", network="sync_expert", config=config, params=params, provenance={"hubert": name},
            overwrite=True,
        )  # fmt: skip
        paths = BundlePaths(expert=str(tmp_path / "expert"), hubert=str(bundles / "hubert"))
        if name == "another":
            with pytest.raises(
                UserError, match="is another HuBERT than the one that the expert in .* was trained with"
            ):
                open_instruments(paths, "gaussian11")
        else:
            assert open_instruments(paths, "gaussian11").expert is not None


def test_an_expert_may_hear_mel(bundles, tmp_path):
    mel = sync_expert.MelTowerConfig(widths=(8, 8), embedding=8)
    config = sync_expert.SyncExpertConfig(crop=16, widths=(8, 8), mel=mel)
    params = _params(sync_expert.SyncExpert(config), "mel")
    save_bundle(tmp_path / "expert", network="sync_expert", config=config, params=params, compact="float32")
    opened = open_instruments(BundlePaths(expert=str(tmp_path / "expert")), "gaussian11", 8)
    assert "needs --hubert" not in str(opened.missing)
    truth = openings(FRAMES)
    too_short = sound_of(truth)[: FRAMES * 400]  # the sound ends before the picture
    path = scored_clips.write(tmp_path / "a.mp4", truth, sound=too_short)
    evaluator = Evaluator(Settings(), opened, Finder(), ResultCache(None), debug=True)
    scores = evaluator.clip(clips.Pair("a", path, path))
    assert 0 < scores.values["expert_distance"] < 2
    assert np.isnan(scores.values["expert_offset"]) and any("less than two seconds" in note for note in scores.notes)


@pytest.mark.parametrize("late", [-7, 0, 4])
@pytest.mark.parametrize("block", [1, 7, 60])
def test_the_expert_s_offset_is_found(late, block):
    lips = np.random.default_rng(0).normal(size=(60, 8))
    lips /= np.linalg.norm(lips, axis=1, keepdims=True)
    sound = np.roll(lips, late, axis=0)
    distances = experts.OffsetDistances()
    for begin in range(0, 60, block):
        distances.add(lips[begin : begin + block], sound[begin : begin + block])
    assert np.argmin(distances.by_offset) - 15 == -late and distances.by_offset.min() == pytest.approx(0, abs=1e-6)
    assert distances.in_step == pytest.approx(np.mean(1 - np.sum(lips * sound, -1)))
    expected = [1 - np.mean(np.sum(lips[15:45] * sound[15 - k : 45 - k], -1)) for k in range(-15, 16)]
    np.testing.assert_allclose(distances.by_offset, expected, atol=1e-6)


def test_the_expert_s_offset_needs_frames_with_every_partner():
    distances = experts.OffsetDistances()
    assert np.isnan(distances.in_step)
    distances.add(np.ones((44, 1)), np.ones((44, 1)))
    assert distances.by_offset is None
    distances.add(np.ones((1, 1)), np.ones((1, 1)))
    np.testing.assert_allclose(distances.by_offset, np.zeros(31))


def test_the_sync_chain_s_networks_equal_the_record(tmp_path):
    """From 8-bit RGB windows and MFCC steps, as the chain hands them over, to the recorded embeddings."""
    case = record("syncnet_python")
    state = case.weights["S"]
    config = syncnets.infer_oxford_config(state)
    network = oxford_syncnet.network(config)
    params, _ = rules.apply(syncnets.TABLE, state, network.abstract, name="oxford_syncnet")
    save_bundle(tmp_path / "sync", network="oxford_syncnet", config=config, params=params, compact="float32")
    opened = open_instruments(BundlePaths(sync=str(tmp_path / "sync")), "gaussian11", 2)
    windows_u8 = np.moveaxis(case.inputs["lip_u8"], 1, -1)[..., ::-1]  # BGR planes to RGB pixels
    case.check("lip_embedding", opened.lips(windows_u8))
    case.check("audio_embedding", opened.sound(np.swapaxes(case.inputs["mfcc"][:, 0], 1, 2)))


def test_batches_divide_by_the_devices(monkeypatch):
    monkeypatch.setattr(instruments.parallel, "make_mesh", lambda devices: type("Mesh", (), {"size": 3})())
    assert [Devices(batch).batch for batch in (1, 3, 16)] == [3, 3, 18]
    assert [Devices(16).batch_of(side**2) for side in (256, 512, 1024, 4096)] == [18, 18, 6, 3]


def test_bundles_of_equal_parameters_and_other_configs_differ(bundles, tmp_path):
    """Whether the sound is normalised first is no parameter, yet decides the numbers."""
    other = dataclasses.replace(HUBERT, normalize_waveform=False)
    save_bundle(
        tmp_path / "hubert", network="hubert", config=other, params=_params(TINY["hubert"][2], "hubert"),
        compact="float32",
    )  # fmt: skip
    digests = [
        open_instruments(BundlePaths(expert=str(bundles / "expert"), hubert=str(root / "hubert")), "gaussian11").digests
        for root in (bundles, tmp_path, bundles)
    ]
    assert digests[0] == digests[2] and digests[0]["sync_expert"] == digests[1]["sync_expert"]
    assert digests[0]["hubert"] != digests[1]["hubert"]


def test_the_expert_hears_quiet_sound_as_in_training():
    heard = []

    class Speech:
        def stream(self, blocks, waveform):
            heard.append(waveform)
            yield np.zeros((100, 4), np.float32)

    quiet = np.random.default_rng(0).integers(-3, 4, 16000).astype(np.int16)
    windows = list(experts.hears_hubert(Speech())(quiet, 2, 10))
    assert len(windows) == 8 and windows[0].shape == (18, 4)
    (waveform,) = heard
    assert waveform.variance == QUIET_RMS**2 and waveform.samples == 16000


@pytest.mark.parametrize("samples", [3200, 7999, 8600, 16001, 23456])
def test_mel_in_stretches_is_the_same(samples, monkeypatch):
    pieces = []

    def counted(piece):
        pieces.append(len(piece))
        return melspectrogram(piece)

    monkeypatch.setattr(experts, "MEL_BLOCK_STEPS", 40)
    monkeypatch.setattr(experts, "melspectrogram", counted)
    pcm16 = np.random.default_rng(0).integers(-9999, 9999, samples).astype(np.int16)
    np.testing.assert_allclose(experts.mel_steps(pcm16), melspectrogram(pcm16 / np.float32(32768)), atol=1e-6)
    assert max(pieces) <= 46 * 200
