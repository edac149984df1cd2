"""What makes a stored result stale."""

import numpy as np

from ctjax.evaluate import cache


def test_results_of_other_sources_are_computed_anew(tmp_path, monkeypatch):
    results = cache.ResultCache(tmp_path)
    computed = []

    def compute():
        computed.append(1)
        return {"a": np.arange(3)}

    for software, want in (("one", 1), ("one", 1), ("two", 2)):
        monkeypatch.setattr(cache, "software_digest", lambda software=software: software)
        results.get({"clip": "x"}, compute)
        assert len(computed) == want


def test_sources_that_decide_numbers_are_in_the_digest(tmp_path):
    for place in ("evaluate", "faces", "train"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "a.py").write_text("x = 1\n")
    before = cache.sources_digest(tmp_path)
    (tmp_path / "train" / "a.py").write_text("x = 2\n")
    assert cache.sources_digest(tmp_path) == before
    found = {before}
    for place in ("evaluate", "faces"):
        (tmp_path / place / "a.py").write_text("x = 2\n")
        found.add(cache.sources_digest(tmp_path))
    (tmp_path / "faces" / "a.py").rename(tmp_path / "faces" / "b.py")
    found.add(cache.sources_digest(tmp_path))
    assert len(found) == 4


def test_a_cache_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError("no space")

    monkeypatch.setattr(cache.np, "savez", full)
    cache.ResultCache(tmp_path).get({}, lambda: {"a": np.zeros(1)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
