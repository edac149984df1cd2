"""Frozen features for records that exist already: pictures, sound and truth stay, only the networks' arrays are new.

Every finished shard is complete under its name, so the work may be killed and started again.
"""

from __future__ import annotations

import os
import pathlib
import shutil

import numpy as np

from ctjax import __version__
from ctjax.data import records, untrained
from ctjax.data.cutting import CutVideo, Piece
from ctjax.data.frozen_features import FrozenFeatures
from ctjax.data.records import FIELDS, HUBERT, Clip, Manifest, RecordSet
from ctjax.progress import progress_bar
from ctjax.types import UserError
from ctjax.whole_files import remove_leftovers, write_text, written_whole


def refeature(
    source: str | os.PathLike, output: str | os.PathLike, *, hubert: str | None, renderer: str | None
) -> Manifest:
    """Copies the records `source` to the folder `output` with the features of the given bundles (or "untrained").

    Features of a network that is not given are kept. A clip of footage is heard by itself, without the sound that
    followed it in its video, so its last quarter of a second may differ from what prepare.py makes of the video.
    Raises `UserError` if there is nothing to do, `output` cannot be written, or was made of other records or bundles.
    """
    source, output = pathlib.Path(source), pathlib.Path(output)
    if not (hubert or renderer):
        raise UserError("records need no second pass without --hubert or --renderer: give one of them")
    if source.resolve() == output.resolve():
        raise UserError(f"{output}: give another folder than the records that are read")
    clips, manifest = RecordSet([source]), records.read_manifest(source)
    try:
        (output / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot write there: {error.strerror}") from error
    features = FrozenFeatures(*untrained.stand_ins(output / "bundles", hubert, renderer))
    fingerprints = manifest.features | features.fingerprints
    _begin(output, manifest, fingerprints)
    number = 0
    with progress_bar(total=len(clips), unit="clip", desc="features") as bar:
        for name, count in manifest.shards.items():
            if (output / "shards" / name).is_file():
                bar.update(count)
            else:
                new = []
                for i in range(number, number + count):
                    new.append(_encoded(clips[i], features))
                    bar.update()
                records.write_shard(output / "shards" / name, new)
            number += count
    if features.silence is not None:
        records.write_silence(output, features.silence)
    elif HUBERT in manifest.features:
        records.write_silence(output, clips.silence)
    for name in ("report.json", "report.html", "list.tsv"):
        if (source / name).is_file():
            with written_whole(output / name) as temporary:
                shutil.copyfile(source / name, temporary)
    made = records.write_index(
        output,
        clips.clips,
        manifest.shards,
        image_size=manifest.image_size,
        features=fingerprints,
        kind=manifest.kind,
        made_by=__version__,
    )
    remove_leftovers(output, output / "shards")
    return made


def _begin(output: pathlib.Path, manifest: Manifest, fingerprints: dict[str, str]) -> None:
    """Notes what the output is made of, or compares it with what was begun there."""
    note = output / "features.txt"
    about = "".join(f"{name}\t{value}\n" for name, value in {"clips": manifest.clips_sha256, **fingerprints}.items())
    if not note.is_file():
        write_text(note, about)
    elif note.read_text(encoding="utf-8") != about:
        raise UserError(f"{output} was begun with other records or bundles: give the same ones or another folder")


def _encoded(clip: Clip, features: FrozenFeatures) -> bytes:
    """The clip with its new features."""
    replaced = {name for network in features.fingerprints for name in FIELDS[network]}
    arrays = {name: clip[name] for name in clip.names if name not in replaced}
    samples = arrays["samples"].astype(np.float32) / 32767
    ((_, more),) = features.of(CutVideo([Piece(clip.info, 0, arrays, b"")], [], samples))
    return records.encode_clip(clip.info, arrays | more)
