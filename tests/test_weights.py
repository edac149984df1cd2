"""Bundles: written whole or not at all, opened only when everything agrees with the manifest."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.config import ConfigError
from ctjax.types import UserError
from ctjax.weights import BundleError, fingerprint, leaves, nest, open_bundle, read_manifest, save_bundle

RNG = np.random.default_rng(0)
PARAMS = {
    "layers": {
        0: {"kernel": RNG.standard_normal((3, 3, 2, 4), dtype=np.float32), "bias": np.zeros(4, np.float32)},
        1: {"kernel": RNG.standard_normal((1, 1, 4, 2), dtype=np.float32), "bias": np.ones(2, np.float32)},
    },
    "half": np.arange(3).astype(jnp.bfloat16),
    "count": np.array(7, np.int32),
}
CONFIG = {"widths": (4, 2), "scale": 0.25, "plain": None}
ABSTRACT = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), PARAMS)
STORAGES = [None, "float32"]


def save(path, **changes):
    arguments = {"network": "toy", "config": CONFIG, "params": PARAMS, "provenance": {"licence": "none"}}
    return save_bundle(path, **{**arguments, **changes})


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(g, np.ndarray) and g.dtype == w.dtype and g.shape == w.shape
        assert g.tobytes() == np.asarray(w).tobytes()


@pytest.fixture
def bundle(tmp_path):
    save(tmp_path / "toy")
    return tmp_path / "toy"


@pytest.mark.parametrize("compact", STORAGES)
def test_round_trip(tmp_path, compact):
    manifest = save(tmp_path / "toy", compact=compact, params=jax.tree.map(jnp.asarray, PARAMS))
    opened = open_bundle(tmp_path / "toy", network="toy", abstract=ABSTRACT)
    assert_same(opened.params, PARAMS)
    assert opened.network == "toy"
    assert opened.config == {"widths": [4, 2], "scale": 0.25, "plain": None}
    assert opened.manifest == manifest == read_manifest(tmp_path / "toy")
    assert manifest["parameters"]["count"] == sum(a.size for a in jax.tree.leaves(PARAMS))
    assert manifest["provenance"] == {"licence": "none"}
    assert set(manifest["versions"]) == {"ctjax", "jax", "flax", "orbax-checkpoint"}
    assert os.listdir(tmp_path) == ["toy"]


@pytest.mark.parametrize("compact", ["float16", "bfloat16"])
def test_compact_form_is_smaller_and_gives_the_true_dtype_back(tmp_path, compact):
    big = {"w": RNG.standard_normal((256, 256), dtype=np.float32), "n": np.array(3, np.int32)}
    save(tmp_path / "toy", params=big, compact=compact)
    opened = open_bundle(tmp_path / "toy")
    assert opened.params["w"].dtype == np.float32 and opened.params["n"] == 3
    np.testing.assert_array_equal(opened.params["w"], big["w"].astype(compact).astype(np.float32))
    size = sum(f.stat().st_size for f in (tmp_path / "toy").iterdir())
    assert size < 0.55 * big["w"].nbytes


def test_compact_form_refuses_what_it_cannot_hold(tmp_path):
    with pytest.raises(BundleError, match="too large for float16: w; choose bfloat16"):
        save(tmp_path / "toy", params={"w": np.array([1e6], np.float32)}, compact="float16")
    with pytest.raises(BundleError, match="'int8' is not one of float32, bfloat16, float16"):
        save(tmp_path / "toy", compact="int8")
    assert not (tmp_path / "toy").exists()


def test_abstract_may_come_from_the_config(bundle):
    seen = []
    open_bundle(bundle, abstract=lambda config: seen.append(config) or ABSTRACT)
    assert seen == [{"widths": [4, 2], "scale": 0.25, "plain": None}]


def changed(**leaves_of):
    tree = leaves(ABSTRACT)
    for path, leaf in leaves_of.items():
        path = path.replace("__", ".")
        if leaf is None:
            del tree[path]
        else:
            tree[path] = leaf
    return nest(tree)


@pytest.mark.parametrize(
    ("abstract", "message"),
    [
        (changed(half=None), "unexpected: half bfloat16"),
        (changed(layers__2=jax.ShapeDtypeStruct((5,), np.float32)), r"missing: layers\.2 float32\[5\]"),
        (
            changed(layers__0__bias=jax.ShapeDtypeStruct((5,), np.float32)),
            r"layers\.0\.bias is float32\[4\], not float32\[5\]",
        ),
        (changed(half=jax.ShapeDtypeStruct((3,), np.float32)), r"half is bfloat16\[3\], not float32\[3\]"),
    ],
)
def test_another_structure_shape_or_dtype_is_refused(bundle, abstract, message):
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle, abstract=abstract)


def test_another_network_is_refused(bundle):
    with pytest.raises(BundleError, match="a bundle of toy; one of hubert is needed here"):
        open_bundle(bundle, network="hubert")
    assert open_bundle(bundle, network=("hubert", "toy")).network == "toy"


def test_what_is_no_bundle_is_named(tmp_path, bundle):
    with pytest.raises(BundleError, match=r"none: no such bundle .*python -m convert"):
        open_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match="holds the bundles toy"):
        open_bundle(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(tmp_path / "file")
    (bundle / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json: the manifest cannot be read"):
        open_bundle(bundle)
    (bundle / "manifest.json").write_text('{"format": "other"}')
    with pytest.raises(BundleError, match="not the manifest of a ctjax bundle"):
        open_bundle(bundle)


def edit(bundle, change):
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema=2), "schema 2 cannot be read by this ctjax"),
        (lambda m: m.pop("config"), "lacks config"),
        (lambda m: m["parameters"].pop("sha256"), "list of parameters is damaged"),
        (lambda m: m["parameters"]["tensors"].pop("count"), "list of parameters is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(bundle, change, message):
    edit(bundle, change)
    with pytest.raises(BundleError, match=message):
        open_bundle(bundle)


@pytest.mark.parametrize("compact", STORAGES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "swapped"])
def test_damaged_parameters_are_refused(tmp_path, compact, damage):
    path = tmp_path / "toy"
    save(path, compact=compact)
    stored = path / ("params.safetensors" if compact else "params")
    if damage == "missing":
        shutil.rmtree(stored) if stored.is_dir() else stored.unlink()
    elif damage == "truncated":
        files = [f for f in stored.rglob("*") if f.is_file()] if stored.is_dir() else [stored]
        for file in files:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:  # the parameters of another bundle of the same shapes
        other = jax.tree.map(lambda a: (a + 1).astype(a.dtype), PARAMS)
        save(tmp_path / "other", compact=compact, params=other)
        shutil.rmtree(stored) if stored.is_dir() else stored.unlink()
        (tmp_path / "other" / stored.name).rename(stored)
    with pytest.raises(BundleError, match="toy: damaged") as caught:
        open_bundle(path)
    assert "\n" not in str(caught.value)
    if damage == "swapped":
        assert "layers.0.kernel" in str(caught.value)
        open_bundle(path, verify=False)  # what verification costs is what it finds


def test_an_existing_bundle_is_replaced_only_when_asked(bundle):
    with pytest.raises(BundleError, match="exists already"):
        save(bundle, config={"new": 1})
    assert read_manifest(bundle)["config"] != {"new": 1}
    save(bundle, config={"new": 1}, overwrite=True)
    assert open_bundle(bundle).config == {"new": 1}
    assert os.listdir(bundle.parent) == ["toy"]


def test_nothing_but_a_bundle_is_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="holds more than bundles"):
        save(tmp_path / "home", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match="not overwritten"):
        save(tmp_path / "file", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("manifest", ['{"name": "my web app"}', '{"format": "ctjax-bundle"}', "[]", "not JSON"])
def test_a_folder_with_a_manifest_of_its_own_is_not_taken_for_a_bundle(tmp_path, manifest):
    home = tmp_path / "home"
    for folder in (home, tmp_path / "outer" / "inner"):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(manifest)
        (folder / "thesis.txt").write_text("years of work")
    for folder in (home, tmp_path / "outer"):
        with pytest.raises(BundleError, match="holds more than bundles"):
            save(folder, overwrite=True)
    assert (home / "thesis.txt").exists() and (tmp_path / "outer" / "inner" / "thesis.txt").exists()


def test_what_was_put_into_a_bundle_is_not_lost(bundle):
    (bundle / "MODEL_CARD.md").write_text("what it can do")
    with pytest.raises(BundleError, match="holds more than bundles"):
        save(bundle, overwrite=True)
    assert (bundle / "MODEL_CARD.md").exists()


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch, bundle):
    before = open_bundle(bundle).params
    with pytest.raises(TypeError):  # config that is not JSON, found after the parameters are written
        save(bundle, config={"bad": object()}, overwrite=True)
    assert os.listdir(tmp_path) == ["toy"]
    assert_same(open_bundle(bundle).params, before)

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ctjax.weights._write_params", full_disk)
    with pytest.raises(BundleError, match="writing failed: No space left on device"):
        save(bundle, overwrite=True)
    assert os.listdir(tmp_path) == ["toy"]


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError, match=r"file/toy: cannot be written"):
        save(tmp_path / "file" / "toy")


def test_errors_are_the_users(tmp_path):
    assert issubclass(BundleError, UserError) and issubclass(ConfigError, UserError)


def test_a_fingerprint_of_parts_does_not_see_the_others(tmp_path):
    whole = save(tmp_path / "one")
    other = save(tmp_path / "other", params={**PARAMS, "count": np.array(8, np.int32)})
    assert fingerprint(whole) == whole["parameters"]["sha256"] != fingerprint(other)
    assert fingerprint(whole, ("layers", "half")) == fingerprint(other, ("layers", "half")) != fingerprint(whole)
    assert fingerprint(whole, ("count",)) != fingerprint(other, ("count",))
