"""Matching clips by name."""

import pytest

from ctjax.evaluate.clips import alone, match
from ctjax.types import UserError


@pytest.fixture
def folders(tmp_path):
    names = {"made": ["a.mp4", "b.avi", "c.mp4", "c.mov", "only_made.mp4", ".hidden.mp4", "notes.txt"]}
    names["real"] = ["a.mov", "b.mp4", "c.mp4", "only_real.mp4"]
    for folder, files in names.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_bytes(b"x")
    return tmp_path / "made", tmp_path / "real"


def test_files_match_by_name_whatever_their_suffix(folders):
    pairs, failures = match(*folders)
    assert [(p.name, p.generated.name, p.reference.name) for p in pairs] == [
        ("a", "a.mp4", "a.mov"),
        ("b", "b.avi", "b.mp4"),
    ]
    reasons = {f.clip: f.reason for f in failures}
    assert set(reasons) == {"c", "only_made", "only_real"}
    assert "several files" in reasons["c"] and "no clip of that name" in reasons["only_made"]
    assert "--allow_missing" in reasons["only_real"]


def test_missing_clips_can_be_allowed(folders):
    _, failures = match(*folders, allow_missing=True)
    assert "only_real" not in {f.clip for f in failures}


def test_two_files_belong_together(folders):
    pairs, failures = match(folders[0] / "a.mp4", folders[1] / "b.mp4")
    assert [(p.generated.name, p.reference.name) for p in pairs] == [("a.mp4", "b.mp4")] and not failures


def test_references_alone_are_listed_like_pairs(folders):
    pairs, failures = alone(folders[0])
    assert [p.name for p in pairs] == ["a", "b", "only_made"] and all(p.generated == p.reference for p in pairs)
    assert [(f.row, f.clip, f.reason) for f in failures] == [
        ("reference", "c", "several files have this name: c.mov, c.mp4")
    ]


def test_nothing_to_evaluate_is_a_clear_error(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.mp4").write_bytes(b"x")
    for generated, message in (("absent", "no such folder"), ("empty", "holds no videos"), ("other", "no file name")):
        with pytest.raises(UserError, match=message):
            match(tmp_path / generated, folders[1])
