"""Which generated clip belongs to which reference clip, and their frames and sound in the form the metrics take."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ctjax.evaluate.mfcc import SAMPLE_RATE_HZ, to_pcm16
from ctjax.evaluate.results import Failure
from ctjax.media.audio import AudioFile
from ctjax.media.container import probe
from ctjax.media.video import VideoSource
from ctjax.types import UserError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".gif")
FPS = 25.0  # every clip is resampled in time to it: the rate of the published sync chains


class Pair(NamedTuple):
    """A generated clip and the reference it is compared with. name: their common file name without suffix."""

    name: str
    generated: pathlib.Path
    reference: pathlib.Path


def videos(place: str | pathlib.Path, flag: str) -> dict[str, list[pathlib.Path]]:
    """The videos of a folder (or the one file `place` is) by name without suffix; hidden files are left out.

    Raises `UserError` naming `flag` if there is nothing to evaluate.
    """
    place = pathlib.Path(place)
    if place.is_file():
        return {place.stem: [place]}
    if not place.is_dir():
        raise UserError(f"{flag}={place}: no such folder or file")
    found: dict[str, list[pathlib.Path]] = {}
    for path in sorted(place.iterdir()):
        if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path)
    if not found:
        raise UserError(f"{flag}={place}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    return found


def match(
    generated: str | pathlib.Path, reference: str | pathlib.Path, row: str = "generated", allow_missing: bool = False
) -> tuple[list[Pair], list[Failure]]:
    """Pairs of clips of equal name, and a failure for every clip without a partner.

    A reference without a generated clip is a failure too, unless `allow_missing`: leaving hard clips out flatters a
    mean. Two files (not folders) belong together whatever their names. Raises `UserError` if nothing matches.
    """
    made, real = videos(generated, f"--{row}"), videos(reference, "--reference")
    if pathlib.Path(generated).is_file() and pathlib.Path(reference).is_file():
        (name,) = made
        return [Pair(name, made[name][0], next(iter(real.values()))[0])], []
    pairs, failures = [], []
    for name in sorted(made.keys() | real.keys()):
        ours, theirs = made.get(name, []), real.get(name, [])
        if len(ours) == 1 and len(theirs) == 1:
            pairs.append(Pair(name, ours[0], theirs[0]))
        elif len(ours) > 1 or len(theirs) > 1:
            failures.append(_several(row, name, ours if len(ours) > 1 else theirs))
        elif not theirs:
            failures.append(Failure(row, name, f"{ours[0].name} has no clip of that name in {reference}"))
        elif not allow_missing:
            failures.append(Failure(row, name, f"nothing generated for it in {generated} (--allow_missing to accept)"))
    if not pairs:
        raise UserError(f"no file name of {generated} (such as {next(iter(made))}) occurs in {reference}")
    return pairs, failures


def alone(reference: str | pathlib.Path, row: str = "reference") -> tuple[list[Pair], list[Failure]]:
    """Every reference clip beside itself, and a failure for every name that several files have."""
    real = videos(reference, "--reference")
    pairs = [Pair(name, paths[0], paths[0]) for name, paths in real.items() if len(paths) == 1]
    return pairs, [_several(row, name, paths) for name, paths in real.items() if len(paths) > 1]


def _several(row: str, name: str, paths: Sequence[pathlib.Path]) -> Failure:
    return Failure(row, name, f"several files have this name: {', '.join(path.name for path in paths)}")


def frames(path: pathlib.Path) -> Iterator[np.ndarray]:
    """uint8 RGB "h w 3" at 25 frames a second, upright."""
    return VideoSource(path).resampled(FPS)


def sound(path: pathlib.Path) -> np.ndarray | None:
    """int16 mono at 16 kHz, or None for a clip without sound. Half a megabyte for each quarter of a minute."""
    if probe(path).audio is None:
        return None
    blocks = [to_pcm16(block) for block in AudioFile(path, SAMPLE_RATE_HZ).blocks(SAMPLE_RATE_HZ)]
    return np.concatenate(blocks) if blocks else None
