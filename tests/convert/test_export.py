"""A bundle goes back to PyTorch as the file it came from."""

import dataclasses
import os
import pathlib

import checkpoints
import jax
import numpy as np
import pytest
from parity import record

from convert import export, read_torch, write_torch
from convert.__main__ import main
from ctjax.config import from_mapping, to_mapping
from ctjax.data import untrained
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
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


def test_an_audio2exp_of_other_widths_is_exported_with_a_word_about_them(tmp_path, capsys):
    config = Audio2ExpConfig(channels=48, widths=(8, 8, 8, 8))
    save_bundle(tmp_path / "own", network="audio2exp", config=config, params=Audio2Exp(config).init(jax.random.key(0)))
    run("export", tmp_path / "own", "--output", tmp_path / "own.pt")
    assert (
        "model.py builds it with its own numbers changed to channels 48, widths [8, 8, 8, 8]" in capsys.readouterr().out
    )
    assert export._other_widths(Audio2ExpConfig()) == ""


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def export_unchecked(bundle, output):
    """As `export` writes it; small networks fill the files as the reference's full-size ones do."""
    write_torch.save(export.reference_tree(open_bundle(bundle), bundle), output)


def test_torch_loads_the_exported_renderer(tmp_path):
    """Every key that the reference's strict load wants, in one file that torch reads with weights_only."""
    torch = pytest.importorskip("torch")
    tree = checkpoints.controltalk_renderer()
    run("facevid2vid", checkpoints.save_zip(tree, tmp_path / "in.pth.tar"), "--output", tmp_path / "bundle")
    export_unchecked(tmp_path / "bundle", tmp_path / "out.pth.tar")
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
    export_unchecked(tmp_path / "bundle", tmp_path / "out.pth.tar")
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


def changed(part, **fields):
    """The reference's renderer, with other fields in one part."""
    parts = part.split(".")
    tree = to_mapping(RendererConfig())
    node = tree
    for name in parts:
        node = node[name]
    node |= fields
    return from_mapping(RendererConfig, tree)


@pytest.mark.parametrize(
    "part, field, value",
    [
        ("generator", "copy_source", True),
        ("generator", "painter", 8),
        ("generator.dense_motion", "mask_kernel", 3),
        ("generator.spade", "ic", 32),
        ("generator.spade", "oc", 8),
        ("generator.spade", "label_nc", 32),
        ("generator.spade", "hidden", 16),
        ("generator.spade", "middle_blocks", 1),
        ("he_estimator", "widths", (8, 16)),
        ("he_estimator", "bottlenecks", (1, 1)),
        ("he_estimator", "scale_factor", 0.5),
    ],
)
def test_what_the_reference_cannot_build_is_not_exported(part, field, value):
    with pytest.raises(export.NotInReference, match=f"^bundle: .*load this renderer: {part}.{field} differ"):
        export.check_known(changed(part, **{field: value}), pathlib.Path("bundle"))


@pytest.mark.parametrize(
    "renderer",
    [
        RendererConfig(),
        changed("generator.spade", middle_blocks=2),
        changed("generator", spade=None, num_resblocks=2, block_expansion=8),
        changed("kp_detector", num_blocks=2, scale_factor=0.5),
        dataclasses.replace(RendererConfig(), he_estimator=None),
    ],
)
def test_what_its_yaml_can_say_is(renderer):
    export.check_known(renderer, pathlib.Path("bundle"))


def bundle_of(renderer, folder):
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), Renderer(renderer).abstract)
    save_bundle(folder, network="facevid2vid", config=renderer, params=params)


def test_the_command_exports_the_one_and_refuses_the_other(tmp_path, capsys):
    generator = dataclasses.replace(untrained.RENDERER.generator, spade=None)
    known = dataclasses.replace(untrained.RENDERER, generator=generator, he_estimator=None)
    bundle_of(known, tmp_path / "known")
    run("export", tmp_path / "known", "--output", tmp_path / "known.pth.tar")
    assert set(read_torch.load(tmp_path / "known.pth.tar")) == {"generator", "kp_detector"}
    bundle_of(untrained.RENDERER, tmp_path / "small")
    message = refused(capsys, "export", tmp_path / "small", "--output", tmp_path / "small.pth.tar")
    assert "small: the reference's code cannot load this renderer: generator.spade.ic" in message
    assert not (tmp_path / "small.pth.tar").exists()
