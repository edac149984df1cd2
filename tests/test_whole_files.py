"""Files that are whole or not there, whoever else writes them."""

import os

import numpy as np
import pytest

from ctjax.data import footage, prepare_report, records
from ctjax.data.footage import Video
from ctjax.data.records import ClipInfo
from ctjax.data.synthetic import spoken
from ctjax.types import UserError
from ctjax.whole_files import remove_leftovers, write_text, written_whole

CORPUS = spoken.Corpus(np.zeros(640, np.int16), np.zeros(2, np.int16), np.array([2]))
WRITERS = {
    "list": lambda folder: footage.write_list(folder / "list.tsv", [Video("a.mp4", "a", "train")]),
    "silence": lambda folder: records.write_silence(folder, np.zeros((18, 4))),
    "shard": lambda folder: records.write_shard(folder / "a.arrayrecord", [b"record"]),
    "index": lambda folder: records.write_index(folder, [ClipInfo("a", "a", "train", 3)], {}, image_size=64),
    "report": lambda folder: prepare_report.write(folder, []),
    "corpus": lambda folder: spoken._write(folder / "corpus.npz", CORPUS),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_two_hosts_may_write_the_same_file_at_once(tmp_path, monkeypatch, write):
    """The other one writes it from beginning to end just before this one renames its own."""
    rename, others = os.replace, [write]

    def replace(source, target):
        if others:
            others.pop()(tmp_path)
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write(tmp_path)
    assert not others and list(tmp_path.iterdir()) and not list(tmp_path.glob(".*"))


def test_what_fails_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "file"
    write_text(file, "old")
    with pytest.raises(UserError, match=r"file: cannot be written \(No space"), written_whole(file) as temporary:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), written_whole(file) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]
    with pytest.raises(UserError, match="cannot be written"):
        write_text(file / "inside", "new")


def test_leftovers_go_and_nothing_else(tmp_path):
    for name in (".a.0123.partial", ".keep", "b.partial"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".keep", "b.partial"]
