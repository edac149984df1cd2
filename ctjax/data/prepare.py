"""Footage to records: every video once, on all cores, over several hosts, to be killed and started again at will.

A video's clips go through files in `work/` one at a time, so that memory does not grow with their pictures, to a folder
of the video's records; beside it is a file, once all of them are there, that says what they are and what was dropped.
A host that has done all of its videos packs them into its shards; the last host to finish writes the manifest, which
makes the set complete, and then removes `work/` and what killed processes left half-written.
"""

from __future__ import annotations

import base64
import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctjax import __version__, config
from ctjax.data import cutting, footage, prepare_report, records, untrained
from ctjax.data.cutting import CutConfig, CutVideo, Piece, cut_video
from ctjax.data.footage import Video
from ctjax.data.frozen_features import FrozenFeatures
from ctjax.data.records import HUBERT, Clip, ClipInfo
from ctjax.data.sync_offset import SyncGate
from ctjax.data.synthetic import clips as synthetic_clips
from ctjax.data.worker_pool import WorkerPool
from ctjax.progress import progress_bar
from ctjax.types import UserError
from ctjax.whole_files import remove_leftovers, write_text, written_whole

CLIPS_PER_SHARD = 64
CRASHED = "reading it crashed the process"
OUT_OF_SYNC = "out of sync"
_PIECES = ".pieces"


@dataclass(frozen=True)
class PrepareConfig:
    """source: folder of videos; or synthetic: a number of clips of synthetic speakers, drawn from `seed`. output:
    folder of the records. layout, listing: see `footage.find`. hubert, renderer: bundles whose features to add, or
    "untrained". sync_expert: a bundle that says which clips are out of sync by more than `max_offset` frames; they are
    left out. shard: (i, n), the i-th of n hosts, counting from 0. workers: processes that read videos; 0 reads in this
    one."""

    source: str | None
    output: str
    synthetic: int = 0
    seed: int = 0
    layout: str = "folder"
    listing: str | None = None
    hubert: str | None = None
    renderer: str | None = None
    sync_expert: str | None = None
    max_offset: int = 1
    cut: CutConfig = field(default_factory=CutConfig)
    shard: tuple[int, int] = (0, 1)
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)

    def __post_init__(self) -> None:
        index, count = self.shard
        if not 0 <= index < count:
            raise ValueError(f"shard {index}/{count}: the first number counts from 0 to {count - 1}")
        if self.max_offset < 0:
            raise ValueError(f"max_offset is a number of frames, not {self.max_offset}")
        if bool(self.source) == bool(self.synthetic) or self.synthetic < 0:
            raise ValueError("give either source, a folder of videos, or synthetic, a number of clips above 0")


def prepare(settings: PrepareConfig) -> prepare_report.Summary | None:
    """Makes the records of this host's share; returns the summary if the whole set is now complete, else None.

    Raises `UserError` for a folder without videos, an output that cannot be written or was begun with other settings.
    """
    if settings.synthetic:
        videos = synthetic_clips.listing(settings.synthetic, settings.seed)
    else:
        videos = footage.find(settings.source, settings.layout, settings.listing)
    output = pathlib.Path(settings.output)
    features = FrozenFeatures(*untrained.stand_ins(output / "bundles", settings.hubert, settings.renderer))
    gate = _gate(settings, features)
    _begin(output, settings, videos, features, gate)
    if _is_complete(output):
        print(f"{output} is complete already; remove it, or give another folder, to prepare again")
    else:
        try:
            _prepare_share(output, settings, videos, features, gate)
        except (OSError, UserError):
            # Another host may have completed the set and removed work/ under this one, which was started again late.
            if not _is_complete(output):
                raise
    if not _is_complete(output):
        return None
    shutil.rmtree(output / "work", ignore_errors=True)
    remove_leftovers(output, output / "shards")
    return prepare_report.read(output)


def _is_complete(output: pathlib.Path) -> bool:
    return (output / "manifest.json").is_file()


def _prepare_share(
    output: pathlib.Path,
    settings: PrepareConfig,
    videos: Sequence[Video],
    features: FrozenFeatures,
    gate: SyncGate | None,
) -> None:
    """This host's videos to its shards; the whole set's manifest, if it was the last."""
    index, count = settings.shard
    mine = videos[index::count]
    work = output / "work" / f"{index}-of-{count}"
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob(f"*{_PIECES}"):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    waiting = [video for video in mine if not _done_file(work, video).is_file()]
    bar = progress_bar(total=len(mine), initial=len(mine) - len(waiting), unit="video", desc="prepare")
    with bar:
        for video, result in _cut_all(settings, work, waiting):
            _write_video(work, video, result, features, gate)
            bar.update()
    _pack(output, work, mine, f"{index:04d}-of-{count:04d}")
    _finish(output, settings, features, count)


def _gate(settings: PrepareConfig, features: FrozenFeatures) -> SyncGate | None:
    """The expert that finds clips out of sync, if there is to be one."""
    if not settings.sync_expert:
        return None
    gate = SyncGate(settings.sync_expert, settings.max_offset)
    wanted, found = gate.made_with.get(HUBERT), features.fingerprints.get(HUBERT)
    if gate.expert.hears == HUBERT and (found is None or wanted not in (None, found)):
        raise UserError(f"{settings.sync_expert}: this expert hears HuBERT: give the --hubert it was trained with")
    return gate


def _begin(
    output: pathlib.Path,
    settings: PrepareConfig,
    videos: Sequence[Video],
    features: FrozenFeatures,
    gate: SyncGate | None,
) -> None:
    """Writes what the set is made with, or compares it with what was begun there."""
    about = {
        "cut": config.to_mapping(settings.cut),
        "features": features.fingerprints,
        "sync": [gate.fingerprint, settings.max_offset] if gate else [],
        "hosts": settings.shard[1],
        "videos": hashlib.sha256(json.dumps(videos).encode()).hexdigest(),
        "schema": records.SCHEMA,
    }
    file = output / "settings.json"
    try:
        (output / "shards").mkdir(parents=True, exist_ok=True)
        if not file.exists():
            footage.write_list(output / "list.tsv", videos)
            if features.silence is not None:
                records.write_silence(output, features.silence)
            write_text(file, json.dumps(about, indent=1))
    except OSError as error:
        raise UserError(f"{output}: cannot write there: {error.strerror}") from error
    begun = json.loads(file.read_text())
    changed = sorted(name for name in about if begun.get(name) != about[name])
    if changed:
        raise UserError(
            f"{output} was begun with other settings ({', '.join(changed)}): give the same ones or another folder"
        )


@dataclass(frozen=True)
class _Stored:
    """Pieces in files of a folder, read one at a time and removed once they were used."""

    folder: pathlib.Path
    count: int

    def __iter__(self) -> Iterator[Piece]:
        for number in range(self.count):
            file = self.folder / f"{number}.piece"
            with np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
            about = json.loads(arrays.pop("about").tobytes())
            thumbnails = arrays.pop("thumbnails").tobytes()
            yield Piece(config.from_mapping(ClipInfo, about["info"]), about["start"], arrays, thumbnails)
            file.unlink()
        self.folder.rmdir()


class _CannotStore(UserError):
    """The disk does not take it: no fault of the video that is read."""


def _stored(pieces: Iterable[Piece], folder: pathlib.Path) -> _Stored:
    """Writes the pieces to the folder as they come."""
    count = 0
    for count, piece in enumerate(pieces, 1):
        about = json.dumps({"info": config.to_mapping(piece.info), "start": piece.start}).encode()
        texts = {"about": np.frombuffer(about, np.uint8), "thumbnails": np.frombuffer(piece.thumbnails, np.uint8)}
        try:
            with written_whole(folder / f"{count - 1}.piece") as temporary, temporary.open("wb") as file:
                np.savez(file, **texts, **piece.arrays)
        except UserError as error:
            raise _CannotStore(str(error)) from error
    return _Stored(folder, count)


def _cut_all(
    settings: PrepareConfig, work: pathlib.Path, videos: Sequence[Video]
) -> Iterator[tuple[Video, CutVideo | str]]:
    """Every video with its clips, or why there are none, in the order they are done."""
    root = pathlib.Path(settings.source) if settings.source else None
    if settings.workers == 0:
        for video in videos:
            yield video, _cut_one(root, video, settings.cut, work)
        return
    waiting = list(videos)
    while waiting:
        try:
            for video, result in _cut_in_pool(root, waiting, settings, work):
                waiting.remove(video)
                yield video, result
        except BrokenProcessPool:
            # One of the files killed its process. The next ones go one at a time, so that the culprit is known.
            suspects, waiting = waiting[: 2 * settings.workers], waiting[2 * settings.workers :]
            for video in suspects:
                yield video, _cut_alone(root, video, settings.cut, work)


def _cut_in_pool(
    root: pathlib.Path | None, videos: Sequence[Video], settings: PrepareConfig, work: pathlib.Path
) -> Iterator[tuple[Video, CutVideo | str]]:
    """As many videos under way as twice the processes: their pictures wait on the disk."""
    queue = iter(videos)
    with WorkerPool(settings.workers) as pool:
        running: dict[concurrent.futures.Future, Video] = {}
        while True:
            while len(running) < 2 * settings.workers and (video := next(queue, None)) is not None:
                running[pool.submit(_cut_one, root, video, settings.cut, work)] = video
            if not running:
                return
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                result = future.result()
                yield running.pop(future), result


def _cut_alone(root: pathlib.Path | None, video: Video, cut: CutConfig, work: pathlib.Path) -> CutVideo | str:
    try:
        with WorkerPool(1) as pool:
            return pool.submit(_cut_one, root, video, cut, work).result()
    except BrokenProcessPool:
        return CRASHED


def _cut_one(root: pathlib.Path | None, video: Video, cut: CutConfig, work: pathlib.Path) -> CutVideo | str:
    """The video's clips, stored in a folder in `work`, or in one line why it gives none. root: None for clips of
    synthetic speakers."""
    try:
        # Of its own: a worker outlives a parent that was killed, and may still be writing when the next run cuts this.
        folder = pathlib.Path(tempfile.mkdtemp(suffix=_PIECES, dir=work))
    except OSError as error:
        raise _CannotStore(f"{work}: cannot write there ({error.strerror})") from error
    if root is None:
        drawn = synthetic_clips.draw(video, cut.size)
        return drawn._replace(pieces=_stored(drawn.pieces, folder))
    try:
        found = cut_video(root, video, cut)
        return found._replace(pieces=_stored(found.pieces, folder))
    except _CannotStore:
        raise
    except UserError as error:
        reason = str(error).replace(f"{root / video.file}: ", "")
    except Exception as error:  # a broken file may raise anything inside the decoders; the others must go on
        reason = f"cannot be read ({type(error).__name__}: {error})"
    shutil.rmtree(folder, ignore_errors=True)
    return reason


def _folder(work: pathlib.Path, video: Video) -> pathlib.Path:
    return work / hashlib.sha256(video.file.encode()).hexdigest()[:24]


def _done_file(work: pathlib.Path, video: Video) -> pathlib.Path:
    return _folder(work, video).with_suffix(".json")


def _record_file(work: pathlib.Path, video: Video, number: int) -> pathlib.Path:
    return _folder(work, video) / f"{number}.record"


def _write_video(
    work: pathlib.Path, video: Video, result: CutVideo | str, features: FrozenFeatures, gate: SyncGate | None
) -> None:
    """Leaves the video's clips as records in its folder, and then the file that says that they are there."""
    about: dict[str, Any] = {"video": video.file, "reason": "", "drops": [], "clips": [], "offsets": {}}
    about["thumbnails"] = []
    if isinstance(result, str):
        about["reason"] = result
    else:
        about["drops"] = [drop._asdict() for drop in result.drops]
        _folder(work, video).mkdir(exist_ok=True)
        for piece, more in features.of(result):
            record = records.encode_clip(piece.info, {**piece.arrays, **more})
            if gate and (offset := gate.offset(Clip(record))):
                about["offsets"][piece.info.id] = offset._asdict()
                if gate.out_of_sync(offset):
                    about["drops"].append(cutting.drop(piece.start, piece.info.frames, OUT_OF_SYNC)._asdict())
                    continue
            with written_whole(_record_file(work, video, len(about["clips"]))) as temporary:
                temporary.write_bytes(record)
            about["clips"].append(config.to_mapping(piece.info))
            about["thumbnails"].append(base64.b64encode(piece.thumbnails).decode())
    write_text(_done_file(work, video), json.dumps(about))


def _pack(output: pathlib.Path, work: pathlib.Path, videos: Sequence[Video], name: str) -> None:
    """This host's finished videos as shards, and its part of the index and of the report."""
    clips: list[dict[str, Any]] = []
    shards: dict[str, int] = {}
    parts: list[dict[str, Any]] = []
    pending: list[bytes] = []

    def flush() -> None:
        if pending:
            shard = f"{name}-{len(shards):05d}.arrayrecord"
            records.write_shard(output / "shards" / shard, pending)
            shards[shard] = len(pending)
            pending.clear()

    for video in videos:
        about = json.loads(_done_file(work, video).read_text(encoding="utf-8"))
        clips += about["clips"]
        parts.append(about)
        for number in range(len(about["clips"])):
            pending.append(_record_file(work, video, number).read_bytes())
            if len(pending) == CLIPS_PER_SHARD:
                flush()
    flush()
    part = {"clips": clips, "shards": shards, "videos": parts}
    write_text(work.parent / f"{name}.json", json.dumps(part))


def _finish(output: pathlib.Path, settings: PrepareConfig, features: FrozenFeatures, hosts: int) -> None:
    """The manifest, if every host's part is there; several hosts may come here at once and write the same."""
    parts = [output / "work" / f"{i:04d}-of-{hosts:04d}.json" for i in range(hosts)]
    missing = [i for i, part in enumerate(parts) if not part.is_file()]
    if missing:
        if not _is_complete(output):  # else another host has finished the set just now, and removed the parts
            print(f"{output}: this share is done; still to come: {', '.join(f'{i}/{hosts}' for i in missing)}")
        return
    found = [json.loads(part.read_text()) for part in parts]
    videos = [video for part in found for video in part["videos"]]
    clips = [config.from_mapping(ClipInfo, clip) for part in found for clip in part["clips"]]
    shards = {name: count for part in found for name, count in part["shards"].items()}
    prepare_report.write(output, videos)
    records.write_index(
        output,
        clips,
        shards,
        image_size=settings.cut.size,
        features=features.fingerprints,
        kind="synthetic" if settings.synthetic else "footage",
        made_by=__version__,
    )
