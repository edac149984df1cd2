"""Bad input to `python -m convert`: one clear error that names file and keys, status 1, and nothing left behind."""

import json
import os
import pathlib
import pickle
import stat
import subprocess
import sys

import checkpoints
import numpy as np
import pytest
import safetensors.numpy
from parity import record

from convert import rules
from convert.__main__ import main
from ctjax.weights import open_bundle, save_bundle

LIP = checkpoints.small_lip_control_net()
ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def fails(tmp_path, capsys):
    """Runs a command that must fail; returns its message after checking status, form and the folder."""

    def run(*arguments, output="out"):
        before = sorted(p for p in tmp_path.rglob("*") if output not in p.parts)
        existed = (tmp_path / output).exists()
        capsys.readouterr()  # what came before is not this command's
        assert main([*(str(a) for a in arguments), "--output", str(tmp_path / output)]) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err.startswith("convert: error: ") and "Traceback" not in shown.err
        assert (tmp_path / output).exists() == existed
        assert sorted(p for p in tmp_path.rglob("*") if output not in p.parts) == before
        return shown.err

    return run


def lip(tmp_path, state, save=checkpoints.save_zip):
    return save(state, tmp_path / "lipControlNet.pt")


@pytest.mark.parametrize("save", [checkpoints.save_zip, checkpoints.save_legacy])
@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_truncated(tmp_path, fails, save, kept):
    file = lip(tmp_path, LIP, save)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * kept)])
    message = fails("audio2exp", file, "--channels=48")
    assert str(file) in message and "truncated" in message and message.count("\n") == 1


def test_truncated_safetensors(tmp_path, fails):
    folder = checkpoints.hubert_folder(record("hubert_tiny_base"), tmp_path / "hubert", "model.safetensors")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    message = fails("hubert", folder)
    assert str(file) in message and "truncated" in message and message.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("vgg19", "features.0.weight"),
        ("hopenet", "conv1.weight"),
        ("hubert", "not a HuBERT checkpoint"),
        ("facevid2vid", "none of the parts generator, kp_detector, he_estimator"),
        ("sadtalker", "has no part 'generator'"),
        ("wav2lip_syncnet", "face_encoder.0.conv_block.0.weight"),
        ("oxford_syncnet", "netcnnaud.0.weight"),
        ("inception_fid", "Conv2d_1a_3x3.conv.weight"),
        ("lpips", "lin0"),
        ("arcface", "fc.weight"),
        ("discriminator", "none of the parts discriminator"),
    ],
)
def test_a_file_of_another_network(tmp_path, fails, command, missing):
    message = fails(command, lip(tmp_path, LIP))
    assert "lipControlNet.pt" in message and missing in message
    assert "It looks like the file for `python -m convert audio2exp`" in message


def test_a_renderer_is_not_a_hubert(tmp_path, fails):
    parts = {k: v for k, v in checkpoints.controltalk_renderer().items() if k in ("generator", "kp_detector")}
    file = checkpoints.save_zip(parts, tmp_path / "checkpoint.pth.tar")
    message = fails("hubert", file)
    assert "checkpoint.pth.tar" in message and "generator, kp_detector" in message
    assert "`python -m convert facevid2vid`" in message
    assert "he_estimator are missing" in fails("facevid2vid", file)


@pytest.mark.parametrize("key", LIP)
def test_one_key_missing(tmp_path, fails, key):
    message = fails("audio2exp", lip(tmp_path, {k: v for k, v in LIP.items() if k != key}), "--channels=48")
    assert "lipControlNet.pt" in message and key in message
    assert "nothing fills" not in message


RENDERER_KEYS = [
    "generator.first.conv.bias",
    "generator.resblocks_3d.3dr0.conv1.weight",
    "generator.decoder.G_middle_2.conv_0.weight_orig",
    "kp_detector.kp.bias",
    "he_estimator.block3.b3_1.norm1.weight",
]


@pytest.mark.parametrize("key", RENDERER_KEYS)
def test_one_key_of_the_renderer_missing(tmp_path, fails, key):
    tree = checkpoints.controltalk_renderer()
    part, name = key.split(".", 1)
    del tree[part][name]
    message = fails("facevid2vid", checkpoints.save_zip(tree, tmp_path / "x.pth.tar"))
    expected = f"{part}: the checkpoint does not fit the network:\n  missing key: {name.removesuffix('_orig')}"
    assert "x.pth.tar" in message and expected in message
    assert message.count("missing key") == 1


def test_one_key_too_many(tmp_path, fails):
    extra = {**LIP, "audio_encoder.fc5.projection.weight": np.zeros((3, 4), np.float32)}
    message = fails("audio2exp", lip(tmp_path, extra), "--channels=48")
    assert "lipControlNet.pt" in message and "unexpected key: audio_encoder.fc5.projection.weight (3, 4)" in message


def test_one_key_misshaped(tmp_path, fails):
    bent = {**LIP, "audio_encoder.fc2.fc.weight": np.zeros((16, 15), np.float32)}
    message = fails("audio2exp", lip(tmp_path, bent), "--channels=48")
    assert "wrong shape: audio_encoder.fc2.fc.weight gives audio_encoder.fc2.fc.kernel (15, 16)" in message
    assert "the network wants (16, 16)" in message


def test_values_that_are_not_finite(tmp_path, fails):
    bad = {**LIP, "out_fc.bias": np.full(45, np.nan, np.float32)}
    assert "not finite in: out_fc.bias" in fails("audio2exp", lip(tmp_path, bad), "--channels=48")


def test_all_problems_of_all_parts_come_together(tmp_path, fails):
    tree = checkpoints.controltalk_renderer()
    del tree["generator"]["second.bias"]
    tree["kp_detector"]["extra.weight"] = np.zeros((2, 2), np.float32)
    tree["he_estimator"]["fc_t.bias"] = np.zeros(4, np.float32)
    message = fails("facevid2vid", checkpoints.save_zip(tree, tmp_path / "x.pth.tar"))
    for part in ("missing key: second.bias", "unexpected key: extra.weight (2, 2)", "wrong shape: fc_t.bias gives"):
        assert part in message


class Evil:
    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickle_that_wants_to_run_code(tmp_path, fails, form):
    witness, file = tmp_path / "out-witness", tmp_path / "lipControlNet.pt"
    body = pickle.dumps({"state_dict": {"a": Evil(witness)}}, protocol=2)
    if form == "zip":
        checkpoints.save_pickle(body, file)
    else:
        checkpoints.save_legacy({}, file)
        file.write_bytes(file.read_bytes().replace(b"\x80\x02}(u.", body, 1))
        assert body in file.read_bytes()
    message = fails("audio2exp", file)
    assert str(file) in message and "refused" in message and f"{os.name}.system" in message
    assert not witness.exists()


def test_a_text_file(tmp_path, fails):
    file = tmp_path / "lipControlNet.pt"
    file.write_text("I am not a checkpoint.\n" * 50)
    assert "lipControlNet.pt: truncated, damaged, or not a PyTorch checkpoint" in fails("audio2exp", file)


def test_a_missing_file_and_an_empty_one(tmp_path, fails):
    assert "none.pt: no such file" in fails("audio2exp", tmp_path / "none.pt")
    (tmp_path / "empty.pt").touch()
    assert "empty.pt: the file is empty" in fails("audio2exp", tmp_path / "empty.pt")


def test_folders_without_weights(tmp_path, fails):
    (tmp_path / "hubert").mkdir()
    message = fails("hubert", tmp_path / "hubert")
    assert "model.safetensors" in message and "(it is empty)" in message
    (tmp_path / "hubert" / "README.md").write_text("x")
    assert "(it holds README.md)" in fails("hubert", tmp_path / "hubert")


def test_a_folder_with_a_broken_config(tmp_path, fails):
    folder = checkpoints.hubert_folder(record("hubert_tiny_base"), tmp_path / "hubert")
    config = json.loads((folder / "config.json").read_text())
    for text, message in (
        ("{", "config.json: cannot be read as JSON"),
        ("[]", "config.json: holds a list instead of a JSON object"),
        (json.dumps({k: v for k, v in config.items() if k != "hidden_size"}), "config.json lacks hidden_size"),
        (json.dumps({**config, "hidden_act": "relu"}), "hidden_act = 'relu'"),
        (json.dumps({**config, "num_hidden_layers": 4}), "missing key: encoder.layers.3."),
    ):
        (folder / "config.json").write_text(text)
        assert message in fails("hubert", folder)


def test_shards_that_do_not_fit_their_index(tmp_path, fails):
    folder = checkpoints.hubert_folder(record("hubert_tiny_base"), tmp_path / "hubert", "all.bin")
    state = record("hubert_tiny_base").weights["hubert"]
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(state, "a.safetensors")})
    )
    assert "a.safetensors: no such file" in fails("hubert", folder)
    one_less = {k: v for k, v in state.items() if k != "encoder.layer_norm.bias"}
    safetensors.numpy.save_file(one_less, folder / "a.safetensors")
    message = fails("hubert", folder)
    assert "1 tensors are not in the shards it names: encoder.layer_norm.bias (a.safetensors)" in message
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "has no weight_map" in fails("hubert", folder)


def test_a_source_with_a_name_that_is_too_long_is_not_called_a_failure_to_write(tmp_path, fails):
    message = fails("vgg19", tmp_path / ("x" * 300), "--overwrite")
    assert "cannot be read" in message and "writing failed" not in message


@pytest.mark.parametrize("arguments", [("audio2exp", "--channels=-48"), ("facevid2vid", "--image_size=0")])
def test_counts_are_above_zero(tmp_path, capsys, arguments):
    command, flag = arguments
    with pytest.raises(SystemExit) as ended:
        main([command, str(tmp_path / "a.pt"), flag, "--output", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "is not a whole number above 0" in capsys.readouterr().err


def test_an_unwritable_output(tmp_path, fails):
    file = lip(tmp_path, LIP)
    message = fails("audio2exp", file, "--channels=48", output="lipControlNet.pt/out")
    assert "cannot be written" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission(tmp_path, fails):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "Permission denied" in fails("audio2exp", lip(tmp_path, LIP), "--channels=48", output="locked/out")


def test_an_output_that_exists(tmp_path, fails):
    save_bundle(tmp_path / "out", network="toy", config={}, params={"a": np.ones(2, np.float32)})
    file = lip(tmp_path, LIP)
    assert "exists already: give another output, or overwrite it (--overwrite)" in fails(
        "audio2exp", file, "--channels=48"
    )
    assert open_bundle(tmp_path / "out").network == "toy"
    bad = checkpoints.save_zip({**LIP, "out_fc.bias": np.zeros(3, np.float32)}, tmp_path / "bad.pt")
    fails("audio2exp", bad, "--channels=48", "--overwrite")
    assert open_bundle(tmp_path / "out").network == "toy"  # a conversion that fails costs nothing
    assert main(["audio2exp", str(file), "--channels=48", "--overwrite", "--output", str(tmp_path / "out")]) == 0
    assert open_bundle(tmp_path / "out").network == "audio2exp"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert "holds more than bundles" in fails("audio2exp", file, "--channels=48", "--overwrite", output="mine")


def test_a_wrong_width_of_hubert(tmp_path, fails):
    message = fails("audio2exp", lip(tmp_path, LIP))
    assert "lipControlNet.pt" in message and "not windows of 1024-channel features" in message


def test_folders_that_are_not_complete(tmp_path, fails):
    folder = tmp_path / "checkpoints"
    assert "checkpoints: no such folder" in fails("controltalk", folder)
    folder.mkdir()
    message = fails("controltalk", folder)
    assert "no renderer" in message and "no hubert" in message and "no audio2exp" in message
    assert "no checkpoint files at all" in message
    checkpoints.save_zip(LIP, folder / "lipControlNet.pt")
    (folder / "renderer.pth.tar").write_bytes(b"PK\x03\x04 cut short")
    (folder / "detector.pth").write_bytes(pickle.dumps(Evil("nowhere"), protocol=2))
    message = fails("controltalk", folder)
    assert "no audio2exp" not in message and "no renderer" in message
    assert "renderer.pth.tar: truncated" in message and "detector.pth: refused" in message


def test_folders_with_a_choice(tmp_path, fails):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("a.pt", "b.pt"):
        checkpoints.save_zip(LIP, folder / name)
    message = fails("controltalk", folder)
    assert "several files for audio2exp" in message and "a.pt" in message and "b.pt" in message
    assert "choose with --audio2exp" in message
    assert "several files" not in fails("controltalk", folder, "--audio2exp", folder / "a.pt")


def test_networks_that_do_not_belong_together(tmp_path, fails):
    folder = checkpoints.controltalk_folder(tmp_path / "checkpoints")
    fewer = {**LIP, "out_fc.weight": np.zeros((30, 30 + 16), np.float32), "out_fc.bias": np.zeros(30, np.float32)}
    checkpoints.save_zip(fewer, folder / "lipControlNet.pt")
    assert "the renderer has 15 keypoints, lipControlNet moves 10" in fails("controltalk", folder)


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert main(["audio2exp", str(tmp_path / "none.pt"), "--output", str(tmp_path / "out"), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_error_is_one_line_too(tmp_path, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something odd")

    monkeypatch.setattr("convert.plan.apply", broken)
    assert main(["audio2exp", str(lip(tmp_path, LIP)), "--channels=48", "--output", str(tmp_path / "out")]) == 1
    message = capsys.readouterr().err
    assert "unexpected error: RuntimeError: something odd" in message and "--debug" in message
    assert not (tmp_path / "out").exists()


def test_the_exit_status_of_the_command_itself(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "convert", "audio2exp", "none.pt", "--output", "out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "convert: error: none.pt: no such file\n"


def test_tables_that_overlap_are_an_error():
    table = (*rules.STANDARD, rules.Rule(r"a\.weight", "b.kernel"))
    target = {"a": {"kernel": np.zeros((2, 2), np.float32)}, "b": {"kernel": np.zeros((2, 2), np.float32)}}
    with pytest.raises(rules.ConversionError, match=r"ambiguous key: a\.weight is taken by"):
        rules.apply(table, {"a.weight": np.zeros((2, 2), np.float32)}, target, name="x")
