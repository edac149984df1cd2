"""Fixed-size batches and the result cache."""

import numpy as np
import pytest

from ctjax.evaluate import batching
from ctjax.evaluate.cache import ResultCache, file_digest
from ctjax.types import UserError


@pytest.mark.parametrize("items", [0, 1, 4, 5, 8, 9, 23])
@pytest.mark.parametrize("overlap", [0, 2, 4])
def test_every_window_comes_once_in_batches_of_one_size(items, overlap):
    seen, sizes = [], set()

    def run(stacks, count):
        sizes.add(len(stacks[0]))
        windows = batching.windows(stacks[0], overlap + 1)[:count]
        np.testing.assert_array_equal(stacks[1], -stacks[0])
        seen.extend(windows.tolist())

    batcher = batching.Batcher(run, 4, overlap)
    for item in range(items):
        batcher.add(np.float32(item), np.float32(-item))
    batcher.finish()
    assert seen == [list(range(i, i + overlap + 1)) for i in range(max(0, items - overlap))]
    assert sizes <= {4 + overlap}


def test_windows_keep_the_order_of_axes():
    stack = np.arange(6 * 2 * 3).reshape(6, 2, 3)
    got = batching.windows(stack, 5)
    assert got.shape == (2, 5, 2, 3)
    np.testing.assert_array_equal(got[1], stack[1:6])


class Count:
    """A computation that counts how often it runs."""

    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"values": np.arange(3.0), "text": np.array("ä")}


def test_the_cache_answers_by_key_and_survives_damage(tmp_path):
    compute = Count()
    cache = ResultCache(tmp_path / "cache")
    for _ in range(2):
        got = cache.get({"file": "a", "size": 3}, compute)
        assert got["values"].tolist() == [0, 1, 2] and str(got["text"]) == "ä"
    assert compute.calls == 1
    cache.get({"file": "a", "size": 4}, compute)
    assert compute.calls == 2
    for entry in (tmp_path / "cache").rglob("*.npz"):
        entry.write_bytes(entry.read_bytes()[:40])
    cache.get({"file": "a", "size": 3}, compute)
    cache.get({"file": "a", "size": 3}, compute)
    assert compute.calls == 3
    assert not list((tmp_path / "cache").rglob("*.partial"))


def test_no_cache_computes_every_time():
    compute = Count()
    for _ in range(2):
        ResultCache(None).get({}, compute)
    assert compute.calls == 2


def test_a_cache_folder_that_cannot_be_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cache folder"):
        ResultCache(tmp_path / "file" / "cache")


def test_file_digest_follows_the_content(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"x"), b.write_bytes(b"x")
    assert file_digest(a) == file_digest(b)
    b.write_bytes(b"y")
    assert file_digest(a) != file_digest(b)
