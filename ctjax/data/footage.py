"""Which videos there are, who is in them, and which part of the data they belong to.

A list file is a table with tabs: a heading with `file`, `person` and `split`, and one line a video (further columns are
left alone); paths are relative to the footage folder. `prepare.py` takes one and writes the one it used, so that a
split is fixed once and can be kept under version control.
"""

from __future__ import annotations

import csv
import hashlib
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from ctjax.types import UserError

SUFFIXES = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts"}
SPLITS = ("train", "val", "test")
LAYOUTS = ("folder", "hdtf", "mead")
HELD_OUT_SHARE = 0.1  # HDTF as the paper has it: 9:1, by person
# The four speakers that MEAD's users hold out, two men and two women.
MEAD_TEST_PERSONS = ("M003", "M030", "W009", "W015")
MEAD_SOUNDS = (".m4a", ".wav", ".mp3")


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
    `M003/audio/`. Raises `UserError` for a folder without videos and a list that does not fit.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of videos")
    if layout not in LAYOUTS:
        raise UserError(f"layout {layout!r} is not known: one of {', '.join(LAYOUTS)}")
    files = sorted(p.relative_to(root) for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
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
    """{person: "train" or `name`}: the same for the same persons on every machine, drawn by hash; one is held out at
    least, where there are two."""
    order = sorted(persons, key=lambda person: hashlib.sha256(person.encode()).hexdigest())
    count = max(1, round(share * len(order))) if len(order) > 1 else 0
    return {person: name if i < count else "train" for i, person in enumerate(order)}


def write_list(path: pathlib.Path, videos: Sequence[Video]) -> None:
    """The list file of `videos`."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["file", "person", "split"])
        writer.writerows([video.file, video.person, video.split] for video in videos)
    os.replace(temporary, path)


def _listed(root: pathlib.Path, listing: pathlib.Path) -> list[Video]:
    try:
        with listing.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{listing}: the list cannot be read ({error})") from error
    if not rows or not {"file", "person", "split"} <= set(rows[0]):
        raise UserError(f"{listing}: a list has a heading with file, person and split, separated by tabs")
    videos = []
    for number, row in enumerate(rows, 2):
        if row["split"] not in SPLITS:
            raise UserError(
                f"{listing}, line {number}: split is {row['split']!r}, one of {', '.join(SPLITS)} is needed"
            )
        if not (root / row["file"]).is_file():
            raise UserError(f"{listing}, line {number}: {row['file']} is not under {root}")
        videos.append(Video(row["file"], row["person"], row["split"], _mead_sound(root, pathlib.Path(row["file"]))))
    if len({video.file for video in videos}) != len(videos):
        raise UserError(f"{listing}: a file is listed twice")
    return sorted(videos)


def _folder_person(file: pathlib.Path) -> str:
    """The folder a video lies in, or its name without a trailing number: speaker_07_2.mp4 -> speaker_07."""
    if len(file.parts) > 1:
        return file.parent.as_posix()
    return re.sub(r"[_\- ]\d+$", "", file.stem) or file.stem


def _hdtf_person(file: pathlib.Path) -> str:
    """WDA_BernieSanders0_001 -> WDA_BernieSanders; RD_Radio12_000 -> RD_Radio12, where the number is the speaker."""
    name = re.sub(r"_\d+$", "", file.stem)
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
