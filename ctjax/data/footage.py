"""Which videos there are, who is in them, and which part of the data they belong to.

A list file is a table with tabs: a heading with `file`, `person` and `split`, and one line a video (further columns are
left alone); paths are relative to the footage folder, and a person stands in one split only. `prepare.py` takes one
and writes the one it used, so that a split is fixed once and can be kept under version control.
"""

from __future__ import annotations

import csv
import hashlib
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ctjax.types import UserError
from ctjax.whole_files import written_whole

SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts"}
SPLITS = ("train", "val", "test")
LAYOUTS = ("folder", "hdtf", "mead")
LIST_COLUMNS = ("file", "person", "split")
HELD_OUT_SHARE = 0.1  # HDTF as the paper has it: 9:1, by person
# The four speakers that MEAD's users hold out, two men and two women.
MEAD_TEST_PERSONS = ("M003", "M030", "W009", "W015")
MEAD_SOUNDS = (".m4a", ".wav", ".mp3")
_SHOWN = 5


class Video(NamedTuple):
    """file: relative to the footage folder, which names the video. sound: another file that holds its sound."""

    file: str
    person: str
    split: str
    sound: str | None = None


def find(folder: str | os.PathLike, layout: str, listing: str | os.PathLike | None = None) -> list[Video]:
    """The videos under `folder`, sorted by name, persons and splits by `layout` or from the list file `listing`.

    folder: any nesting; the person is the folder a video lies in, or the name up to a trailing number. hdtf:
    `WDA_BernieSanders_000.mp4`, anywhere. mead: `M003/video/front/happy/level_1/001.mp4`, its sound beside it under
    `M003/audio/`. Links to folders are followed. Raises `UserError` for a folder without videos and a list that does
    not fit.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of videos")
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is not known: one of {', '.join(LAYOUTS)}")
    files = sorted(_videos_under(root))
    if not files:
        raise UserError(f"{root}: no videos there (looked for {', '.join(sorted(SUFFIXES))} in all its folders)")
    if listing is not None:
        return _listed(root, pathlib.Path(listing))
    if layout == "mead":
        return _mead(root, files)
    persons = {file: _hdtf_person(file) if layout == "hdtf" else _folder_person(file) for file in files}
    split = split_by_person(sorted(set(persons.values())))
    return [Video(file.as_posix(), persons[file], split[persons[file]]) for file in files]


def split_by_person(persons: Sequence[str], share: float = HELD_OUT_SHARE, name: str = "test") -> dict[str, str]:
    """{person: "train" or `name`}, `share` of them held out on average.

    The hash of the name decides, so that a person goes to the same split on every machine and whoever else is there.
    Only where it would leave one side empty does the company count: of two persons or more the one with the smallest
    hash is held out, and the one with the largest trains; a single person trains.
    """
    drawn = {person: int.from_bytes(hashlib.sha256(person.encode()).digest()[:8]) / 2**64 for person in persons}
    order = sorted(drawn, key=drawn.__getitem__)
    count = sum(value < share for value in drawn.values())
    count = min(max(count, 1), len(order) - 1)
    return {person: name if i < count else "train" for i, person in enumerate(order)}


def in_several_splits(entries: Iterable[tuple[str, str]]) -> str:
    """The persons of (person, split) `entries` that stand in more than one split, in words; "" if there are none."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for person, split in entries:
        splits[person].add(split)
    mixed = [f"{person} ({', '.join(sorted(there))})" for person, there in sorted(splits.items()) if len(there) > 1]
    more = f" and {len(mixed) - _SHOWN} more" if len(mixed) > _SHOWN else ""
    return ", ".join(mixed[:_SHOWN]) + more


def write_list(path: pathlib.Path, videos: Sequence[Video]) -> None:
    """The list file of `videos`."""
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(LIST_COLUMNS)
        writer.writerows([video.file, video.person, video.split] for video in videos)


def _videos_under(root: pathlib.Path) -> list[pathlib.Path]:
    """The videos in all folders under `root`, relative to it. Links to folders are followed, but no folder is entered
    twice: neither endlessly nor under two names, of which its own comes before a link's."""
    found, entered = [], set()
    waiting = [str(root)]
    while waiting:
        links = []
        for start in waiting:
            for place, folders, files in os.walk(start):
                real = os.path.realpath(place)
                if real in entered:
                    folders.clear()
                    continue
                entered.add(real)
                folders.sort()
                links += [link for name in folders if os.path.islink(link := os.path.join(place, name))]
                found += [pathlib.Path(place, name) for name in files]
        waiting = links
    return [file.relative_to(root) for file in found if file.suffix.lower() in SUFFIXES and file.is_file()]


def _listed(root: pathlib.Path, listing: pathlib.Path) -> list[Video]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            columns = set(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{listing}: the list cannot be read ({error})") from error
    if not set(LIST_COLUMNS) <= columns:
        raise UserError(f"{listing}: a list has a heading with file, person and split, separated by tabs")
    if not rows:
        raise UserError(f"{listing}: no video is listed: give each a line with file, person and split")
    videos = []
    for number, row in rows:
        missing = [name for name in LIST_COLUMNS if not (row[name] or "").strip()]
        if missing:
            raise UserError(
                f"{listing}, line {number}: no {' and no '.join(missing)}: a line has file, person and split, "
                "separated by tabs"
            )
        if row["split"] not in SPLITS:
            raise UserError(
                f"{listing}, line {number}: split is {row['split']!r}, one of {', '.join(SPLITS)} is needed"
            )
        if not (root / row["file"]).is_file():
            raise UserError(f"{listing}, line {number}: {row['file']} is not under {root}")
        videos.append(Video(row["file"], row["person"], row["split"], _mead_sound(root, pathlib.Path(row["file"]))))
    if len({video.file for video in videos}) != len(videos):
        raise UserError(f"{listing}: a file is listed twice")
    if mixed := in_several_splits((video.person, video.split) for video in videos):
        raise UserError(
            f"{listing}: persons in more than one split: {mixed}: training would be judged on faces it has seen; put "
            "each in one split, or give the person another name in each if that is meant"
        )
    return sorted(videos)


def _folder_person(file: pathlib.Path) -> str:
    """The folder a video lies in, or its name without a trailing number: speaker_07_2.mp4 -> speaker_07."""
    if len(file.parts) > 1:
        return file.parent.as_posix()
    return re.sub(r"[_\- ]\d+$", "", file.stem) or file.stem


def _hdtf_person(file: pathlib.Path) -> str:
    """WDA_BernieSanders0_001 -> WDA_BernieSanders; RD_Radio12_000 -> RD_Radio12, where the number is the speaker.

    What people append when they cut a video further (RD_Radio12_000_1, RD_Radio12_000_crop) says nothing of the person.
    """
    numbered = re.match(r"(.+?)_\d{3}(?!\d)", file.stem)
    name = numbered[1] if numbered else re.sub(r"_\d+$", "", file.stem)
    return name if name.startswith("RD_") else re.sub(r"\d+$", "", name)


def _mead(root: pathlib.Path, files: Sequence[pathlib.Path]) -> list[Video]:
    videos = []
    for file in files:
        person = next((part for part in file.parts if re.fullmatch(r"[MW]\d{3}", part)), None)
        if person is None or "front" not in file.parts:  # six side views exist, of no use here
            continue
        split = "test" if person in MEAD_TEST_PERSONS else "train"
        videos.append(Video(file.as_posix(), person, split, _mead_sound(root, file)))
    if not videos:
        raise UserError(f"{root}: no video there lies as MEAD's do (M003/video/front/happy/level_1/001.mp4)")
    return videos


def _mead_sound(root: pathlib.Path, file: pathlib.Path) -> str | None:
    """M003/audio/happy/level_1/001.m4a for M003/video/front/happy/level_1/001.mp4, where it exists."""
    parts = list(file.parts)
    if "video" not in parts or "front" not in parts:
        return None
    parts[parts.index("video")] = "audio"
    parts.remove("front")
    for suffix in MEAD_SOUNDS:
        sound = pathlib.Path(*parts).with_suffix(suffix)
        if (root / sound).is_file():
            return sound.as_posix()
    return None
