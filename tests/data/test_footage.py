"""Footage: which videos there are, whose they are, and which split a person belongs to, whoever else is there."""

import pytest

from ctjax.data import footage
from ctjax.data.footage import Video
from ctjax.types import UserError


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    return folder


def test_persons_and_splits_of_the_layouts(tmp_path):
    names = ("RD_Radio12_000", "RD_Radio13_000", "WDA_BernieSanders0_001", "WDA_BernieSanders_000")
    found = footage.find(touch(tmp_path / "hdtf", *(f"{name}.mp4" for name in names)), "hdtf")
    assert {video.person for video in found} == {"RD_Radio12", "RD_Radio13", "WDA_BernieSanders"}
    assert sorted({(v.person, v.split) for v in found}) == sorted({v.person: v.split for v in found}.items())
    mead = touch(
        tmp_path / "mead",
        "M003/video/front/happy/level_1/001.mp4",
        "M003/audio/happy/level_1/001.m4a",
        "W011/video/front/sad/level_2/002.mp4",
        "W011/video/left_30/003.mp4",
    )
    assert footage.find(mead, "mead") == [
        Video("M003/video/front/happy/level_1/001.mp4", "M003", "test", "M003/audio/happy/level_1/001.m4a"),
        Video("W011/video/front/sad/level_2/002.mp4", "W011", "train"),
    ]


@pytest.mark.parametrize(
    ("stem", "person"),
    [
        ("RD_Radio10_000", "RD_Radio10"),
        ("RD_Radio10_000_1", "RD_Radio10"),
        ("RD_Radio10_000_crop", "RD_Radio10"),
        ("RD_Radio10_000-2", "RD_Radio10"),
        ("WDA_BarackObama_000_012", "WDA_BarackObama"),
        ("WRA_AdamKinzinger0_000_crop", "WRA_AdamKinzinger"),
        ("WRA_AdamKinzinger1_000", "WRA_AdamKinzinger"),
        ("WDA_JoeBiden_1", "WDA_JoeBiden"),
        ("WDA_JoeBiden", "WDA_JoeBiden"),
    ],
)
def test_a_person_of_hdtf_however_the_videos_were_cut(tmp_path, stem, person):
    assert [video.person for video in footage.find(touch(tmp_path, f"{stem}.mp4"), "hdtf")] == [person]


PERSONS = [f"person{i}" for i in range(300)]


def test_a_split_is_nine_to_one():
    held_out = sum(value == "test" for value in footage.split_by_person(PERSONS).values())
    assert 20 <= held_out <= 40


@pytest.mark.parametrize("there", [PERSONS[::-1], PERSONS[:240], PERSONS[60:], PERSONS[::7]])
def test_a_person_has_the_same_split_whoever_else_is_there(there):
    whole = footage.split_by_person(PERSONS)
    assert footage.split_by_person(there) == {person: whole[person] for person in there}


def test_no_side_of_a_small_split_is_empty():
    whole = footage.split_by_person(PERSONS)
    train, held_out = ([p for p in PERSONS if whole[p] == split] for split in ("train", "test"))
    for persons in (train[:2], train[:5], held_out[:2], held_out[:5]):
        split = footage.split_by_person(persons)
        assert sorted(split) == sorted(persons) and set(split.values()) == {"train", "test"}
        assert split == footage.split_by_person(persons[::-1])
    assert list(footage.split_by_person(train[:5]).values()).count("test") == 1
    assert list(footage.split_by_person(held_out[:5]).values()).count("train") == 1
    assert footage.split_by_person(held_out[:1]) == {held_out[0]: "train"} and footage.split_by_person([]) == {}


def test_links_to_folders_are_followed_and_no_folder_is_entered_twice(tmp_path):
    elsewhere = touch(tmp_path / "elsewhere", "bert/2.mp4")
    videos = touch(tmp_path / "videos", "b_anna/1.mp4", "a_link/.keep")
    (videos / "bert").symlink_to(elsewhere / "bert", target_is_directory=True)
    (elsewhere / "bert" / "back").symlink_to(videos, target_is_directory=True)  # a circle
    (videos / "a_link" / "again").symlink_to(videos / "b_anna", target_is_directory=True)  # a second name
    assert [(video.file, video.person) for video in footage.find(videos, "folder")] == [
        ("b_anna/1.mp4", "b_anna"),
        ("bert/2.mp4", "bert"),
    ]


def test_list_files_go_in_and_out(tmp_path):
    found = footage.find(touch(tmp_path / "videos", "anna/1.mp4", "anna/2.mp4", "bert_1.mp4"), "folder")
    footage.write_list(tmp_path / "list.tsv", found)
    assert footage.find(tmp_path / "videos", "folder", tmp_path / "list.tsv") == sorted(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\tperson\tsplit\nnone.mp4\tp\ttrain\n", r"bad\.tsv, line 2: none\.mp4 is not under"),
        ("file\tperson\tsplit\na.mp4\tp\tlearn\n", "line 2: split is 'learn'"),
        ("name\nx\n", "heading with file, person and split"),
        ("", "heading with file, person and split"),
        ("file\tperson\tsplit\n", r"bad\.tsv: no video is listed"),
        ("person\tsplit\tfile\np\ttrain\n", r"bad\.tsv, line 2: no file: a line has file, person and split"),
        ("file\tsplit\tperson\na.mp4\ttrain\n", r"bad\.tsv, line 2: no person"),
        ("file\tperson\tsplit\na.mp4\tp\ttrain\n\nb.mp4\t \n", r"line 4: no person and no split"),
        ("file\tperson\tsplit\na.mp4\tp\ttrain\na.mp4\tp\ttrain\n", "a file is listed twice"),
        (
            "file\tperson\tsplit\na.mp4\tp\ttrain\nb.mp4\tp\ttest\n",
            r"bad\.tsv: persons in more than one split: p \(test, train\)",
        ),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, text, message):
    touch(tmp_path / "videos", "a.mp4", "b.mp4")
    (tmp_path / "bad.tsv").write_text(text)
    with pytest.raises(UserError, match=message):
        footage.find(tmp_path / "videos", "folder", tmp_path / "bad.tsv")


def test_few_of_many_persons_are_named():
    entries = [(f"p{i}", split) for i in range(8) for split in ("train", "val")]
    words = footage.in_several_splits(entries)
    assert words.startswith("p0 (train, val), p1 (train, val)") and words.endswith("and 3 more") and "p5" not in words
    assert footage.in_several_splits([("p", "train"), ("p", "train"), ("q", "val")]) == ""
