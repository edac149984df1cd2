"""Records: what goes in comes out, by number, and everything that does not belong is refused in words."""

import io
import json
import pathlib
import sys
import threading

import numpy as np
import pytest

from ctjax.data import records
from ctjax.data.records import ClipInfo, RecordsError, RecordSet

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_records.write(tmp_path_factory.mktemp("records") / "set", clips=8, persons=4, frames=30)


@pytest.fixture
def copy(folder, tmp_path):
    import shutil

    return pathlib.Path(shutil.copytree(folder, tmp_path / "copy"))


def test_clips_come_back_in_order_and_whole(folder):
    found = RecordSet([folder])
    assert [clip.id for clip in found.clips] == [f"clip{i:03d}" for i in range(8)]
    rng = np.random.default_rng(0)
    for number, index_entry in enumerate(found.clips):
        info, arrays, _ = toy_records.make_clip(number, f"person{number % 4}", index_entry.split, 30, rng)
        clip = found[number]
        assert clip.info == info == index_entry
        for name in ("landmarks", "samples", "hubert", "truth_opening"):
            assert np.array_equal(clip[name], arrays[name]), name
    assert found[0].truth_names == ["truth_opening"]
    assert "expression" not in found[0] and "hubert" in found[0]


def test_pictures_are_those_that_were_written(folder):
    clip = RecordSet([folder])[1]
    rng = np.random.default_rng(0)
    toy_records.make_clip(0, "", "", 30, rng)
    _, arrays, openings = toy_records.make_clip(1, "", "", 30, rng)
    shown = clip.images([29, 3])
    assert shown.shape == (2, 64, 64, 3) and shown.dtype == np.uint8
    for image, frame in zip(shown, (29, 3), strict=True):
        middle = image[34:52, 32].sum(1)  # the dark of the mouth
        assert (np.sum(middle < 90) > 3) == (openings[frame] > 0.4)
    assert np.array_equal(clip["landmarks"][3], arrays["landmarks"][3])


def test_arrays_of_every_layout_come_back():
    """Fortran order, no axes, no entries, parts of others: as numpy itself reads them."""
    table = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    arrays = {
        "fortran": np.asfortranarray(table),
        "part": table[:, ::2],
        "scalar": np.float64(3),
        "empty": np.zeros((0, 3), np.int64),
        "half": table.astype(np.float16)[0],
        "flags": np.array([True, False]),
    }
    data = records.encode_clip(ClipInfo("a", "b", "train", 4), {})
    assert json.loads(records._Arrays(data)["info"].tobytes())["id"] == "a"
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    found = records._Arrays(buffer.getvalue())
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype and found[name].shape == np.shape(value)


def test_several_threads_read_the_same(folder):
    found = RecordSet([folder])
    expected = [found[i]["samples"].sum() for i in range(8)]
    results = [None] * 8

    def read(number):
        results[number] = [found[(number + i) % 8]["samples"].sum() for i in range(16)]

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[expected[(n + i) % 8] for i in range(16)] for n in range(8)]


def test_several_folders_are_one_set(folder, tmp_path):
    other = toy_records.write(tmp_path / "other", clips=3, persons=4, frames=20, seed=5)
    both = RecordSet([folder, other])
    assert len(both) == 11
    assert both[9].info == both.clips[9] and both.clips[9].frames == 20


def test_folders_that_do_not_belong_together(folder, tmp_path):
    other = toy_records.write(tmp_path / "other", clips=3, persons=3, frames=20, size=32)
    with pytest.raises(RecordsError, match="differ in picture size"):
        RecordSet([folder, other])


def test_a_person_in_two_splits_is_refused(folder, tmp_path):
    """The last of three persons is held out, the third of four is not."""
    other = toy_records.write(tmp_path / "other", clips=3, persons=3, frames=20)
    assert len(RecordSet([other])) == 3
    with pytest.raises(RecordsError, match=r"other: persons in more than one split: person2 \(train, val\)"):
        RecordSet([folder, other])


def test_the_held_out_split_is_one_with_clips_that_are_long_enough():
    clips = [
        ClipInfo(str(i), str(i), split, frames)
        for i, (split, frames) in enumerate([("train", 90), ("val", 20), ("test", 60), ("test", 10), ("val", 30)])
    ]
    assert records.in_split(clips, records.HELD_OUT, 20).tolist() == [1, 4]
    assert records.in_split(clips, records.HELD_OUT, 40).tolist() == [2]
    with pytest.raises(RecordsError, match="no clip of split 'val' with at least 70 frames"):
        records.in_split(clips, records.HELD_OUT, 70)
    with pytest.raises(RecordsError, match="no clip of split 'test' with at least 70 frames"):
        records.in_split(clips[2:4], records.HELD_OUT, 70)


def edit_manifest(folder, **changes):
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_refusals(folder, copy, tmp_path):
    with pytest.raises(RecordsError, match=r"no records there.*prepare\.py"):
        RecordSet([tmp_path / "nothing"])
    with pytest.raises(RecordsError, match="no records given"):
        RecordSet([])
    found = RecordSet([folder])
    found.require(hubert=None)
    found.require(hubert="toy")
    with pytest.raises(RecordsError, match="hubert features were made by other weights"):
        found.require(hubert="another")
    with pytest.raises(RecordsError, match="records without renderer features"):
        found.require(renderer=None)
    with pytest.raises(RecordsError, match=r"no clip of split 'test'.*train, val"):
        found.of_split("test")
    with pytest.raises(RecordsError, match="at least 31 frames"):
        found.of_split("train", min_frames=31)
    edit_manifest(copy, schema=99)
    with pytest.raises(RecordsError, match="records of schema 99, this ctjax reads 1"):
        RecordSet([copy])


def test_damage_is_named(copy):
    shard = copy / "shards" / "b.arrayrecord"
    content = shard.read_bytes()
    shard.unlink()
    with pytest.raises(RecordsError, match=r"shard b\.arrayrecord is missing"):
        RecordSet([copy])
    shard.write_bytes(content)
    index = copy / "clips.jsonl"
    index.write_text(index.read_text().replace("person3", "person4"))
    with pytest.raises(RecordsError, match=r"clips\.jsonl was changed"):
        RecordSet([copy])
    (copy / "manifest.json").write_text("{")
    with pytest.raises(RecordsError, match="damaged manifest"):
        RecordSet([copy])


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("left", [0, 1 << 16, 0.5])
def test_a_shard_that_is_empty_or_half_copied_is_named(copy, name, left):
    shard = copy / "shards" / f"{name}.arrayrecord"
    content = shard.read_bytes()
    shard.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
    with pytest.raises(RecordsError, match=rf"shards/{name}\.arrayrecord: damaged or cut off \(.+\): copy it again"):
        RecordSet([copy])


def test_a_flipped_byte_in_a_record_is_an_error(copy):
    shard = copy / "shards" / "a.arrayrecord"
    content = bytearray(shard.read_bytes())
    whole = bytes(content)
    position = whole.find(b"samples.npy") + 2000
    content[position] ^= 0xFF
    shard.write_bytes(bytes(content))
    damaged = RecordSet([copy])
    with pytest.raises(RecordsError, match="clip000 cannot be read"):
        _ = damaged[0]["samples"]


def test_lengths_must_agree():
    info = records.ClipInfo("x", "p", "train", 4)
    with pytest.raises(ValueError, match="landmarks has 3 entries where 4 belong"):
        records.encode_clip(info, {"landmarks": np.zeros((3, 68, 2))})
