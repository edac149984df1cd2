"""`python -m convert` end to end: every source layout becomes the bundle that its network opens."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

import checkpoints
import jax
import numpy as np
import pytest
import rule_weights
import safetensors.numpy
from parity import record

from convert import export, recipes, rules, sources
from convert.__main__ import main
from convert.catalogue import ENTRIES
from convert.plan import fill
from ctjax.config import from_mapping
from ctjax.evaluate.identity import ArcFace, ArcFaceConfig
from ctjax.evaluate.inception import Inception, InceptionConfig
from ctjax.features.hubert import HubertConfig, normalize_waveforms
from ctjax.features.hubert import network as hubert_network
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.nn.module import Network
from ctjax.render.renderer import Renderer, RendererConfig
from ctjax.weights import leaves, open_bundle, read_manifest

ROOT = pathlib.Path(__file__).parent.parent.parent
LIP = checkpoints.small_lip_control_net()


def run(*arguments):
    """Runs the command in this process and asserts that it succeeds."""
    assert main([str(a) for a in arguments]) == 0


def assert_same(one, other):
    one, other = leaves(one), leaves(other)
    assert list(one) == list(other)
    for path in one:
        np.testing.assert_array_equal(one[path], other[path], err_msg=path)


@pytest.fixture(scope="module")
def talking_head(tmp_path_factory):
    """(output, what was printed) of the folder command, run as a user runs it, where nothing is installed but ctjax."""
    folder = tmp_path_factory.mktemp("upstream")
    checkpoints.controltalk_folder(folder / "checkpoints")
    (folder / "torch.py").write_text("raise ImportError('no torch here')")
    done = subprocess.run(
        [sys.executable, "-m", "convert", "controltalk", "checkpoints", "--output=head"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder / "head", done.stdout


def test_a_whole_folder_becomes_a_talking_head(talking_head):
    head, printed = talking_head
    assert sorted(p.name for p in head.iterdir()) == ["audio2exp", "hubert", "renderer"]
    assert sorted(p.name for p in head.parent.iterdir()) == ["checkpoints", "head", "torch.py"]
    for line in (
        r"generator +286 +0 +16 +4,213,387",
        r"total +673 +0 +78 +4,826,667",
        r"ignored: 78 keys .*: batch counter",
        r"ignored: optimizer_generator, epoch: training state",
        r"all +83 +2 +1 +77,448",
        r"folded: +encoder.*weight_g, encoder.*weight_v: weight norm",
        r"not used: checkpoints/audio_encoder\.pt: an audio encoder alone",
        r"wrote head: renderer, hubert, audio2exp",
    ):
        assert re.search(line, printed), f"{line} is not in\n{printed}"


def test_the_manifest_tells_where_the_parameters_come_from(talking_head):
    head, _ = talking_head
    manifest = read_manifest(head / "hubert", "hubert")
    sources = {s["file"]: s for s in manifest["provenance"]["sources"]}
    assert set(sources) == {"pytorch_model.bin", "config.json", "preprocessor_config.json"}
    file = head.parent / "checkpoints/TencentGameMate/chinese-hubert-large/pytorch_model.bin"
    assert sources["pytorch_model.bin"]["bytes"] == file.stat().st_size
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sources["pytorch_model.bin"]["sha256"] == digest
    assert manifest["provenance"]["converter"] == "python -m convert hubert"
    assert "Apache-2.0" in manifest["provenance"]["licence"]
    assert manifest["provenance"]["ignored"]["stands in for masked steps, in pre-training only"] == [
        "masked_spec_embed"
    ]


def test_the_converted_hubert_gives_the_recorded_features(talking_head):
    rec = record("hubert_tiny_stable")
    bundle = open_bundle(
        talking_head[0] / "hubert", abstract=lambda c: hubert_network(from_mapping(HubertConfig, c)).abstract
    )
    net = hubert_network(from_mapping(HubertConfig, bundle.config))
    sound, _ = normalize_waveforms([rec.inputs["wave_2s"].astype(np.float32)])
    features = jax.jit(lambda p, x: net.bind(p)(x).last_hidden_state)(bundle.params, sound)
    rec.check("wave_2s/last_hidden_state", features)


def test_the_converted_renderer_gives_the_recorded_keypoints(talking_head):
    rec = record("facevid2vid_small")
    bundle = open_bundle(
        talking_head[0] / "renderer", abstract=lambda c: Renderer(from_mapping(RendererConfig, c)).abstract
    )
    renderer = Renderer(from_mapping(RendererConfig, bundle.config))
    keypoints = jax.jit(renderer.canonical_keypoints)(bundle.params, rec.image("source_u8"))
    rec.check("kp_canonical", keypoints)


def test_the_converted_audio2exp_holds_the_files_numbers(talking_head):
    bundle = open_bundle(talking_head[0] / "audio2exp", network="audio2exp")
    config = from_mapping(Audio2ExpConfig, bundle.config)
    assert config == Audio2ExpConfig(steps=18, channels=48, widths=(24, 16, 12, 16), num_kp=15)
    assert jax.tree.structure(bundle.params) == jax.tree.structure(Audio2Exp(config).abstract)
    np.testing.assert_array_equal(bundle.params["out_fc"]["kernel"], LIP["out_fc.weight"].T)


HUBERT_FORMS = ["pytorch_model.bin", "model.safetensors", "shards", "ctc.bin", "new names", "fairseq", "fairseq ctc"]


@pytest.mark.parametrize("form", HUBERT_FORMS)
@pytest.mark.parametrize("name", ["hubert_tiny_stable", "hubert_tiny_base"])
def test_every_form_of_hubert_is_one_bundle(tmp_path, name, form):
    rec = record(name)
    state = rec.weights["hubert"]
    run("hubert", checkpoints.hubert_folder(rec, tmp_path / "plain"), "--output", tmp_path / "want")
    folder, flags = tmp_path / "hubert", []
    if form == "shards":
        checkpoints.hubert_folder(rec, folder, "all.bin")
        keys = list(state)
        places = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(keys)}
        for file in set(places.values()):
            safetensors.numpy.save_file({k: state[k] for k in keys if places[k] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    elif form.startswith("fairseq"):
        settings = {"encoder_attention_heads": rec.config["num_attention_heads"], "normalize": True}
        folder.mkdir()
        folder = checkpoints.save_fairseq(rec, folder / "hubert.pt", **settings)
        if form == "fairseq ctc":
            names = {f"w2v_encoder.w2v_model.{k}": v for k, v in checkpoints.fairseq_names(rec).items()}
            checkpoints.save_legacy({"model": names, "cfg": {"task": settings, "model": settings}}, folder)
    else:
        aliases = rec.manifest["weights"]["hubert"]["aliases"]
        if form == "new names":
            state = {aliases.get(k, k): v for k, v in state.items()}
        if form == "ctc.bin":
            state = {f"hubert.{k}": v for k, v in state.items()} | {"lm_head.bias": np.zeros(3, np.float32)}
        file = "model.safetensors" if form.endswith("safetensors") else "pytorch_model.bin"
        checkpoints.hubert_folder(rec, folder, file)
        if not file.endswith("safetensors"):
            checkpoints.save_legacy(state, folder / file)
    run("hubert", folder, "--output", tmp_path / "got", *flags)
    want, got = open_bundle(tmp_path / "want"), open_bundle(tmp_path / "got")
    assert got.config == want.config
    assert_same(got.params, want.params)


def test_what_a_fairseq_file_does_not_say_is_asked_for(tmp_path, capsys):
    file = checkpoints.save_fairseq(record("hubert_tiny_base"), tmp_path / "hubert.pt", encoder_attention_heads=4)
    assert main(["hubert", str(file), "--output", str(tmp_path / "out")]) == 1
    assert "--normalize_waveform=no" in capsys.readouterr().err
    run("hubert", file, "--output", tmp_path / "out", "--normalize_waveform=no")
    assert read_manifest(tmp_path / "out")["config"]["normalize_waveform"] is False


@pytest.mark.parametrize("wrap", ["flat", "state_dict", "module", "wrapped module", "twice", "averaged"])
@pytest.mark.parametrize("save", [checkpoints.save_zip, checkpoints.save_legacy])
def test_every_form_of_lip_control_net_is_one_bundle(tmp_path, wrap, save):
    state = {f"module.{k}": v for k, v in LIP.items()} if "module" in wrap else LIP
    # The loss is a tensor that is no weight.
    beside = {"optimizer": {"state": {}}, "global_step": 4, "best_loss": np.float32([0.5])}
    tree = state if wrap in ("flat", "module") else {"state_dict": state, **beside}
    if wrap in ("twice", "averaged"):
        tree = {"model": tree, **beside} if wrap == "twice" else {"params_ema": state}
    run("audio2exp", save(tree, tmp_path / "x.pt"), "--output", tmp_path / "out", "--channels=48")
    params = open_bundle(tmp_path / "out", network="audio2exp").params
    np.testing.assert_array_equal(params["audio_encoder"]["fc1"]["fc"]["bias"], LIP["audio_encoder.fc1.fc.bias"])


def test_an_audio_encoder_alone_starts_training(tmp_path, capsys):
    encoder = {f"module.model.{k}": v for k, v in LIP.items() if k.startswith("audio_encoder.")}
    file = checkpoints.save_zip({**encoder, "visual.weight": np.zeros((2, 2), np.float32)}, tmp_path / "x.pt")
    run("audio2exp", file, "--output", tmp_path / "out", "--channels=48")
    printed = capsys.readouterr().out
    assert "set to zero" in printed and "visual.weight: not of the audio encoder" in printed
    params = open_bundle(tmp_path / "out").params
    assert not params["out_fc"]["kernel"].any() and params["out_fc"]["kernel"].shape == (61, 45)
    np.testing.assert_array_equal(params["audio_encoder"]["fc2"]["fc"]["bias"], LIP["audio_encoder.fc2.fc.bias"])


RENDERERS = ["plain", "gmid2", "noocc", "scale1", "unofficial"]


@pytest.mark.parametrize("variant", RENDERERS)
def test_every_variant_of_the_renderer_is_read_off_its_shapes(tmp_path, variant):
    rec = record(f"facevid2vid_small_{variant}")
    parts = {**rec.weights, "he_estimator": checkpoints.small_head_estimator()}
    source = sources.open_source(checkpoints.save_zip(parts, tmp_path / "checkpoint.pth.tar"))
    plan = recipes.renderer(source, {})
    config = plan.config
    assert (config.generator.spade is None) == (variant == "plain")
    if variant == "gmid2":
        assert config.generator.spade.middle_blocks == 2
    assert config.generator.dense_motion.estimate_occlusion_map == (variant != "noocc")
    assert config.kp_detector.scale_factor == (1.0 if variant == "scale1" else 0.25)
    assert sorted(fill(plan, name="x").params) == ["generator", "he_estimator", "kp_detector"]


def small_state(name, part, shrink):
    """A record's keys at smaller shapes, by the recorded rule."""
    entries = record(name).manifest["weights"][part]["entries"]
    return {e["key"]: rule_weights.entry(name, e["key"], shrink(e["key"], tuple(e["shape"]))) for e in entries}


def narrow(key, shape):
    """Channels divided by 16; small numbers (an image's channels) and the 66 classes kept."""
    return tuple(n if n < 16 or n == 66 or i > 1 else n // 16 for i, n in enumerate(shape))


def lpips_state(heads):
    """VGG-16 under torchvision's names, and the learned weights, each with a sixteenth of the channels."""
    widths, counts = (4, 8, 16, 32, 32), (2, 2, 3, 3, 3)
    shapes, index, inputs = {}, 0, 3
    for width, count in zip(widths, counts, strict=True):
        for _ in range(count):
            shapes |= {f"features.{index}.weight": (width, inputs, 3, 3), f"features.{index}.bias": (width,)}
            index, inputs = index + 2, width
        index += 1
    shapes["classifier.0.weight"] = (4, 4)
    if heads:
        shapes = {f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate(widths)}
    return {key: rule_weights.entry("lpips", key, shape) for key, shape in shapes.items()}


def from_network(cls, config):
    """A state dict for a network of plain rules: parameters of its own shapes, turned round."""
    draw = np.random.default_rng(0)
    abstract = Network(lambda rngs: cls(config, rngs=rngs)).abstract
    tree = jax.tree.map(lambda leaf: draw.standard_normal(leaf.shape, dtype=np.float32), abstract)
    return export._state_dict(rules.STANDARD, tree)


OTHERS = {
    "vgg19": lambda: {**small_state("vgg19", "vgg19", narrow), "classifier.0.weight": np.zeros((4, 4), np.float32)},
    "hopenet": lambda: {
        k: v for k, v in small_state("hopenet", "hopenet", narrow).items() if "num_batches" not in k
    },  # as PyTorch 0.3 saved it
    "wav2lip_syncnet": lambda: {
        "state_dict": {f"module.{k}": v for k, v in small_state("wav2lip_syncnet", "syncnet", narrow).items()},
        "optimizer": {"state": {}},
        "global_step": 7,
    },
    "oxford_syncnet": lambda: small_state("syncnet_python", "S", narrow),
    "discriminator": lambda: {
        "discriminator": record("renderer_losses").weights["discriminator"],
        "generator": {"first.conv.weight": np.zeros((2, 2), np.float32)},
        "epoch": 3,
    },
    "inception_fid": lambda: {
        **from_network(Inception, InceptionConfig(divisor=16)),
        "fc.weight": np.zeros((8, 8), np.float32),
    },
    "arcface": lambda: from_network(ArcFace, ArcFaceConfig(layers=(1, 1, 1, 1), widths=(2, 4, 4, 8), embedding=8)),
}


@pytest.mark.parametrize("network", OTHERS)
def test_the_other_networks(tmp_path, network):
    file = checkpoints.save_legacy(OTHERS[network](), tmp_path / "file.pkl")
    run(network, file, "--output", tmp_path / "out", "--check")
    manifest = read_manifest(tmp_path / "out", network)
    assert manifest["parameters"]["count"] > 1000


def test_lpips_is_two_files(tmp_path, capsys):
    vgg = checkpoints.save_zip(lpips_state(heads=False), tmp_path / "vgg16.pth")
    linear = checkpoints.save_legacy(lpips_state(heads=True), tmp_path / "vgg.pth")
    assert main(["lpips", str(vgg), "--output", str(tmp_path / "out")]) == 1
    assert "add --linear with lpips' weights/v0.1/vgg.pth" in capsys.readouterr().err
    run("lpips", vgg, "--linear", linear, "--output", tmp_path / "out", "--check")
    names = {s["file"] for s in read_manifest(tmp_path / "out", "lpips")["provenance"]["sources"]}
    assert names == {"vgg16.pth", "vgg.pth"}


def test_sadtalkers_flat_file(tmp_path, capsys):
    weights = record("facevid2vid_small_sadtalker").weights
    flat = {f"generator.{k}": v for k, v in weights["generator"].items()}
    flat |= {f"kp_extractor.{k}": v for k, v in weights["kp_detector"].items()}
    flat["audio2exp.netG.weight"] = np.zeros((2, 2), np.float32)
    file = tmp_path / "SadTalker_V0.0.2_512.safetensors"
    safetensors.numpy.save_file(flat, file)
    run("sadtalker", file, "--output", tmp_path / "bare")
    printed = capsys.readouterr().out
    assert "audio2exp.netG.weight: of another network" in printed and "no he_estimator" in printed
    head = checkpoints.save_zip(checkpoints.controltalk_renderer(), tmp_path / "facevid2vid_00189-model.pth.tar")
    run("sadtalker", file, "--he_estimator", head, "--output", tmp_path / "out", "--check")
    bundle = open_bundle(
        tmp_path / "out", abstract=lambda c: Renderer(from_mapping(RendererConfig, c)).abstract, network="facevid2vid"
    )
    assert sorted(bundle.params) == ["generator", "he_estimator", "kp_detector"]
    assert bundle.config["generator"]["dense_motion"]["mask_floor"] == 1e-3
    assert bundle.manifest["provenance"]["image_size"] == 512
    run("sadtalker", head, "--output", tmp_path / "tar", "--image_size=128")
    assert read_manifest(tmp_path / "tar")["provenance"]["image_size"] == 128


def test_check_compares_values_and_pytorchs_features(tmp_path, capsys):
    pytest.importorskip("torch")
    folder = checkpoints.hubert_folder(record("hubert_tiny_base"), tmp_path / "hubert")
    run("hubert", folder, "--output", tmp_path / "out", "--check")
    printed = capsys.readouterr().out
    assert re.search(r"check: +\d+ tensors of the opened bundle equal the file's, bit for bit", printed)
    assert re.search(r"check: +features of 2 s of noise agree with PyTorch's to \S+e-0[5-9]", printed)


@pytest.mark.parametrize("name", ["hubert_tiny_base", "hubert_tiny_stable"])
def test_check_compares_a_fairseq_file_through_its_tensors(tmp_path, capsys, name):
    pytest.importorskip("torch")
    file = checkpoints.save_fairseq(record(name), tmp_path / "x.pt", encoder_attention_heads=4, normalize=True)
    run("hubert", file, "--output", tmp_path / "out", "--check")
    assert "agree with PyTorch's" in capsys.readouterr().out


def test_check_finds_a_wrong_bundle(tmp_path, capsys, monkeypatch):
    """As if the table or the network were wrong: the check fails, and no bundle is left."""
    pytest.importorskip("torch")
    folder = checkpoints.hubert_folder(record("hubert_tiny_base"), tmp_path / "hubert")
    config = json.loads((folder / "config.json").read_text())

    def misread(cls, settings, preprocessor=None):
        return original(cls, {**settings, "num_attention_heads": 2})

    original = HubertConfig.from_huggingface.__func__
    monkeypatch.setattr(HubertConfig, "from_huggingface", classmethod(misread))
    assert config["num_attention_heads"] == 4
    assert main(["hubert", str(folder), "--output", str(tmp_path / "out"), "--check"]) == 1
    assert "features differ from PyTorch's" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["hubert"]


def test_half_precision_sources_become_float32(tmp_path):
    half = {k: v.astype(np.float16) for k, v in LIP.items()}
    run("audio2exp", checkpoints.save_zip(half, tmp_path / "x.pt"), "--output", tmp_path / "out", "--channels=48")
    kernel = open_bundle(tmp_path / "out").params["out_fc"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, half["out_fc.weight"].T.astype(np.float32))


def test_a_licence_note_may_be_given(tmp_path):
    file = checkpoints.save_zip(LIP, tmp_path / "x.pt")
    run("audio2exp", file, "--output", tmp_path / "out", "--channels=48", "--licence", "ours, internal")
    assert read_manifest(tmp_path / "out")["provenance"]["licence"] == "ours, internal"


def test_help_and_list_name_every_network_with_source_and_licence(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    helped = " ".join(capsys.readouterr().out.split())
    run("list")
    listed = " ".join(capsys.readouterr().out.split())
    for entry in ENTRIES:
        for text in (helped, listed):
            assert entry.command in text
            for published in entry.published:
                assert published.file in text and published.where in text
        assert all(p.licence for p in entry.published)
        with pytest.raises(SystemExit):
            main([entry.command, "--help"])
        assert "--output" in capsys.readouterr().out


def test_the_document_and_the_catalogue_agree():
    text = (ROOT / "docs" / "weights.md").read_text()
    for entry in ENTRIES:
        assert f"`{entry.command}`" in text, entry.command
        for published in entry.published:
            assert published.where.split(", ")[0].removeprefix("links in ") in text, published.where
