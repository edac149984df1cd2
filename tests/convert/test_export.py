"""A bundle goes back to PyTorch as the file it came from."""

import os

import checkpoints
import jax
import numpy as np
import pytest
from parity import record

from convert import read_torch
from convert.__main__ import main
from ctjax.config import from_mapping, to_mapping
from ctjax.data import untrained
from ctjax.render.renderer import Renderer, RendererConfig
from ctjax.weights import leaves, open_bundle, save_bundle

LIP = checkpoints.small_lip_control_net()


def run(*arguments):
    assert main([str(a) for a in arguments]) == 0


def assert_equal(got, want):
    assert set(got) == set(want)
    for key, value in want.items():
        array = got[key].numpy()
        assert array.dtype == value.dtype and array.shape == value.shape, key
        np.testing.assert_array_equal(array, value, err_msg=key)


def test_lip_control_net_comes_back(tmp_path):
    file = checkpoints.save_legacy(LIP, tmp_path / "lipControlNet.pt")
    run("audio2exp", file, "--output", tmp_path / "bundle", "--channels=48")
    run("export", tmp_path / "bundle", "--output", tmp_path / "again.pt")
    assert_equal(read_torch.load(tmp_path / "again.pt")["state_dict"], LIP)
    run("audio2exp", tmp_path / "again.pt", "--output", tmp_path / "twice", "--channels=48")
    twice, once = open_bundle(tmp_path / "twice"), open_bundle(tmp_path / "bundle")
    assert twice.manifest["parameters"]["sha256"] == once.manifest["parameters"]["sha256"]
    mode = (tmp_path / "again.pt").stat().st_mode & 0o777
    assert mode == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_torch_loads_the_exported_renderer(tmp_path):
    """Every key that the reference's strict load wants, in one file that torch reads with weights_only."""
    torch = pytest.importorskip("torch")
    tree = checkpoints.controltalk_renderer()
    run("facevid2vid", checkpoints.save_zip(tree, tmp_path / "in.pth.tar"), "--output", tmp_path / "bundle")
    run("export", tmp_path / "bundle", "--output", tmp_path / "out.pth.tar")
    loaded = torch.load(tmp_path / "out.pth.tar", weights_only=True)
    assert set(loaded) == {"generator", "kp_detector", "he_estimator"}
    for part, state in loaded.items():
        want = tree[part]
        assert set(state) == set(want)
        for key, tensor in state.items():
            assert torch.equal(tensor, torch.from_numpy(want[key].copy())), key


def test_sadtalkers_renderer_with_its_mapping_network_comes_back(tmp_path):
    weights = record("facevid2vid_small_sadtalker").weights
    flat = {f"generator.{k}": v for k, v in weights["generator"].items()}
    flat |= {f"kp_extractor.{k}": v for k, v in weights["kp_detector"].items()}
    renderer = checkpoints.save_zip(flat, tmp_path / "SadTalker_V0.0.2_512.safetensors.pt")
    mapping = checkpoints.save_zip({"mapping": weights["mapping"], "epoch": 1}, tmp_path / "mapping.pth.tar")
    run("sadtalker", renderer, "--mapping", mapping, "--output", tmp_path / "bundle")
    run("export", tmp_path / "bundle", "--output", tmp_path / "out.pth.tar")
    back = read_torch.load(tmp_path / "out.pth.tar")
    for part in ("generator", "kp_detector", "mapping"):
        assert_equal(back[part], weights[part])


def refused(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 1
    return capsys.readouterr().err


def test_what_cannot_be_exported_is_said(tmp_path, capsys):
    save_bundle(tmp_path / "vgg", network="vgg19", config={}, params={"a": np.ones(2, np.float32)})
    message = refused(capsys, "export", tmp_path / "vgg", "--output", tmp_path / "x.pt")
    assert "a bundle of vgg19; only audio2exp and facevid2vid" in message
    message = refused(capsys, "export", tmp_path / "none", "--output", tmp_path / "x.pt")
    assert "none: no such bundle" in message
    assert os.listdir(tmp_path) == ["vgg"]


def test_outputs_are_not_overwritten_unasked(tmp_path, capsys):
    file = checkpoints.save_zip(LIP, tmp_path / "in.pt")
    run("audio2exp", file, "--output", tmp_path / "bundle", "--channels=48")
    (tmp_path / "out.pt").write_text("precious")
    assert "exists already" in refused(capsys, "export", tmp_path / "bundle", "--output", tmp_path / "out.pt")
    assert (tmp_path / "out.pt").read_text() == "precious"
    assert "is a folder" in refused(capsys, "export", tmp_path / "bundle", "--output", tmp_path, "--overwrite")
    unwritable = tmp_path / "in.pt" / "out.pt"
    assert "cannot be written" in refused(capsys, "export", tmp_path / "bundle", "--output", unwritable)
    run("export", tmp_path / "bundle", "--output", tmp_path / "out.pt", "--overwrite")
    assert len(leaves(read_torch.load(tmp_path / "out.pt"))) == len(LIP)
    assert sorted(os.listdir(tmp_path)) == ["bundle", "in.pt", "out.pt"]


@pytest.mark.parametrize(
    "part, change, setting",
    [
        ("generator", {"copy_source": True}, "generator.copy_source"),
        ("generator", {"painter": 8}, "generator.painter"),
        ("generator", {"dense_motion": {"mask_kernel": 3}}, "dense_motion.mask_kernel"),
        ("he_estimator", {"scale_factor": 0.5}, "he_estimator.scale_factor"),
    ],
)
def test_what_the_reference_does_not_have_is_not_exported(tmp_path, capsys, part, change, setting):
    whole = to_mapping(untrained.RENDERER)
    for name, value in change.items():
        whole[part][name] = whole[part][name] | value if isinstance(value, dict) else value
    renderer = Renderer(from_mapping(RendererConfig, whole))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), renderer.abstract)
    save_bundle(tmp_path / "bundle", network="facevid2vid", config=renderer.config, params=params)
    assert main(["export", str(tmp_path / "bundle"), "--output", str(tmp_path / "out.pth.tar")]) == 1
    assert setting in capsys.readouterr().err
    assert not (tmp_path / "out.pth.tar").exists()
