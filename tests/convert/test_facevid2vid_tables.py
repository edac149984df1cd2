"""Renderer checkpoints: the config read off the shapes, the tables filled without a gap, and both ways."""

import dataclasses
import json

import numpy as np
import pytest
import rule_weights
from parity import GOLDENS

from convert import facevid2vid, sadtalker
from convert.rules import ConversionError, apply, invert, leaves
from ctjax.render.renderer import Renderer, RendererConfig, config_from_reference

VARIANTS = ("small", "small_plain", "small_gmid2", "small_noocc", "small_scale1", "small_jacobian", "256")


def _manifest(variant: str) -> dict:
    return json.loads((GOLDENS / f"facevid2vid_{variant}.manifest.json").read_text())


def _shapes(manifest: dict) -> dict[str, dict[str, np.ndarray]]:
    """State dicts that have shapes and take no memory."""
    return {
        part: {e["key"]: np.broadcast_to(np.float32(0), e["shape"]) for e in weights["entries"]}
        for part, weights in manifest["weights"].items()
    }


def _small() -> dict[str, dict[str, np.ndarray]]:
    parts = rule_weights.build(_manifest("small"))
    return {part: dict(state) for part, state in parts.items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_config_is_read_off_the_shapes(variant):
    manifest = _manifest(variant)
    decoder = "original" if manifest["gen"] == "original" else "spade"
    assert facevid2vid.infer_config(_shapes(manifest)) == config_from_reference(manifest["config"], decoder=decoder)


def test_default_config_is_the_published_one():
    assert config_from_reference(_manifest("256")["config"]) == RendererConfig()


def test_sadtalker_config_is_read_off_the_shapes():
    manifest = _manifest("small_sadtalker")
    assert sadtalker.infer_config(_shapes(manifest)) == config_from_reference(manifest["config"], sadtalker=True)


def test_missing_head_estimator_is_no_part():
    parts = _shapes(_manifest("small"))
    del parts["he_estimator"]
    assert facevid2vid.infer_config(parts).he_estimator is None


def test_yaml_without_decoder_params_has_six_middle_blocks():
    config = _manifest("small")["config"]
    params = dict(config["model_params"]["generator_params"])
    del params["decoder_params"]
    config = config | {"model_params": config["model_params"] | {"generator_params": params}}
    assert config_from_reference(config).generator.spade.middle_blocks == 6


def test_config_survives_json():
    config = config_from_reference(_manifest("small_sadtalker")["config"], sadtalker=True)
    assert json.loads(json.dumps(dataclasses.asdict(config)))["mapping"]["coeff_nc"] == 70


def test_export_gives_back_every_array():
    parts = _small()
    abstract = Renderer(facevid2vid.infer_config(parts)).abstract
    for part, table in facevid2vid.TABLES.items():
        params, report = apply(table, parts[part], abstract[part], name=part)
        assert len(report.placed) == len(leaves(abstract[part]))
        assert all(key.endswith("num_batches_tracked") for key in report.ignored)
        back = invert(table, params, {key: array.shape for key, array in parts[part].items()})
        assert set(parts[part]) - set(back) == set(report.ignored)
        for key, array in back.items():
            np.testing.assert_array_equal(array, parts[part][key])


def test_flat_sadtalker_file_is_split_by_marker():
    parts = _shapes(_manifest("small"))
    markers = {part: marker for marker, part in sadtalker.MARKERS.items()}
    flat = {f"{markers[part]}.{key}": array for part, state in parts.items() for key, array in state.items()}
    flat["audio2exp.netG.first.weight"] = np.zeros(1)
    split, others = sadtalker.split_flat(flat)
    assert {part: list(state) for part, state in split.items()} == {part: list(state) for part, state in parts.items()}
    assert list(others) == ["audio2exp.netG.first.weight"]


def test_mapping_checkpoint_without_mapping_is_named():
    with pytest.raises(ConversionError, match=r"has \['net'\]"):
        sadtalker.mapping_part({"net": {}})


@pytest.mark.parametrize("part", ["generator", "kp_detector"])
def test_missing_part_is_named(part):
    parts = _shapes(_manifest("small"))
    del parts[part]
    with pytest.raises(ConversionError, match=f"no part '{part}'"):
        facevid2vid.infer_config(parts)


def test_another_network_is_told_by_its_keys():
    parts = _shapes(_manifest("small"))
    with pytest.raises(ConversionError, match=r"generator: not a face-vid2vid generator"):
        facevid2vid.infer_config({"generator": parts["kp_detector"], "kp_detector": parts["kp_detector"]})


def test_unknown_low_pass_is_refused():
    parts = _shapes(_manifest("small"))
    parts["kp_detector"]["down.weight"] = np.zeros((3, 1, 7, 7), np.float32)
    with pytest.raises(ConversionError, match="7 wide"):
        facevid2vid.infer_config(parts)


def test_damage_is_listed_completely():
    state = _small()["kp_detector"]
    abstract = Renderer(facevid2vid.infer_config(_small())).abstract["kp_detector"]
    state["kp.bias"] = np.zeros(3, np.float32)
    state["extra.weight"] = np.zeros((2, 2), np.float32)
    del state["predictor.conv.bias"]
    with pytest.raises(ConversionError) as error:
        apply(facevid2vid.TABLE, state, abstract, name="kp_detector")
    for words in ("wrong shape: kp.bias", "unexpected key: extra.weight", "missing key: predictor.conv.bias"):
        assert words in str(error.value)
