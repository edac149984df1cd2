"""A packed talking head holds the same numbers, rounded, in less room."""

import itertools

import numpy as np
import pytest

from convert.__main__ import main
from ctjax.weights import leaves, open_bundle, save_bundle


@pytest.fixture
def head(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("hubert", "renderer"):
        params = {"layer": {"kernel": rng.normal(size=(64, 65)).astype(np.float32), "steps": np.int32(3)}}
        save_bundle(tmp_path / "head" / name, network=name, config={"width": 64}, params=params)
    return tmp_path / "head"


@pytest.mark.parametrize("precision, error", [("bfloat16", 2**-8), ("float16", 2**-11), ("float32", 0.0)])
def test_values_are_rounded_and_nothing_else_changes(head, tmp_path, capsys, precision, error):
    assert main(["pack", str(head), "--output", str(tmp_path / "small"), f"--precision={precision}"]) == 0
    assert "hubert" in capsys.readouterr().out
    for name in ("hubert", "renderer"):
        before, after = open_bundle(head / name), open_bundle(tmp_path / "small" / name)
        assert after.network == name and after.config == before.config
        assert after.manifest["provenance"]["packed_from"] == before.manifest["parameters"]["sha256"]
        for key, value in leaves(before.params).items():
            packed = leaves(after.params)[key]
            assert packed.dtype == value.dtype
            np.testing.assert_allclose(packed, value, rtol=error)


def test_a_folder_without_bundles_is_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["pack", str(tmp_path / "empty"), "--output", str(tmp_path / "small")]) == 1
    assert "holds no bundles" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_a_packed_bundle_names_the_packed_ones_it_belongs_to(head, tmp_path):
    fingerprint = open_bundle(head / "hubert").manifest["parameters"]["sha256"]
    provenance = {"hubert": fingerprint, "teacher": "another", "steps": 3}
    params = {"layer": {"kernel": np.ones((2, 2), np.float32)}}
    save_bundle(head / "audio2exp", network="audio2exp", config={}, params=params, provenance=provenance)
    folders = [head, tmp_path / "once", tmp_path / "twice"]
    for source, output in itertools.pairwise(folders):  # packing what was packed, too
        assert main(["pack", str(source), "--output", str(output), "--precision=float16"]) == 0
        packed = open_bundle(output / "hubert").manifest["parameters"]["sha256"]
        found = open_bundle(output / "audio2exp").manifest["provenance"]
        assert packed != fingerprint and found["hubert"] == packed
        assert (found["teacher"], found["steps"]) == ("another", 3)
