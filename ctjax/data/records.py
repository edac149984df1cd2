"""Records: prepared clips on disk, as ArrayRecord shards with a schema version and the hashes of the networks used.

    manifest.json     schema, picture size, which features there are and the SHA-256 of the bundles that made them
    silence.npy       float32 "18 c": the feature window of silence, where there are hubert features
    clips.jsonl       one line a clip, in the order of the records: id, person, split, frames
    shards/*.arrayrecord

One record is one clip: a .npz in memory (JPEG pictures, landmarks, sound, frozen features). Arrays of a record:

    jpeg, jpeg_ends     uint8 "n", int64 "t": the frames' JPEG files end to end, and where each ends
    landmarks           float32 "t 68 2": (x, y) in pixels of the frame
    samples             int16 "s": mono sound at 16 kHz, exactly as long as the frames
    hubert              float16 "l c": feature steps from the first frame's to the end of the last frame's window
    canonical           float32 "t k 3"; yaw_deg, pitch_deg, roll_deg float32 "t"; translation float32 "t 3";
                        expression float32 "t k 3": what the renderer's frozen estimators say of each frame
    truth_*             what a synthetic world knows of each frame; see docs/synthetic.md
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import pathlib
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import cv2
import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from ctjax import config
from ctjax.data.footage import in_several_splits
from ctjax.types import UserError
from ctjax.whole_files import write_text, written_whole

SCHEMA = 1
FORMAT = "ctjax-records"
FPS = 25
SAMPLE_RATE_HZ = 16_000
SAMPLES_PER_FRAME = SAMPLE_RATE_HZ // FPS
JPEG_QUALITY = 95
HUBERT, RENDERER = "hubert", "renderer"
HELD_OUT = "held_out"  # stands for the split that a run is judged on
FIELDS = {
    "pictures": ("jpeg", "jpeg_ends", "landmarks", "samples"),
    HUBERT: ("hubert",),
    RENDERER: ("canonical", "yaw_deg", "pitch_deg", "roll_deg", "translation", "expression"),
}


# How numpy.savez lays an array down: a zip entry's header, a name, an extra field, then an .npy of version 1.
_ZIP_HEADER, _ZIP_LENGTHS = 30, 26
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00.."
    rb"\{'descr': '(?P<dtype>[<>|=]\w+)', 'fortran_order': (?P<fortran>True|False), "
    rb"'shape': \((?P<shape>[\d, ]*)\), \} *\n",
    re.DOTALL,
)


class RecordsError(UserError):
    """Records that are missing, damaged, of another schema, or made with other networks."""


@dataclass(frozen=True)
class ClipInfo:
    """What the index knows of a clip. person: the same for everything of one speaker. split: "train", "val", "test"."""

    id: str
    person: str
    split: str
    frames: int


@dataclass(frozen=True)
class Manifest:
    """features: {"hubert" or "renderer": SHA-256 of the bundle's parameters}. shards: {file name: records in it}."""

    image_size: int
    clips_sha256: str
    shards: dict[str, int]
    features: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT
    schema: int = SCHEMA
    fps: int = FPS
    sample_rate_hz: int = SAMPLE_RATE_HZ
    kind: str = "footage"  # or "synthetic", which has truth_* arrays
    made_by: str = ""  # version of ctjax


class _Arrays(Mapping[str, np.ndarray]):
    """The arrays of an uncompressed .npz in memory, each a read-only view into it, from any thread.

    numpy's own reader parses headers with `ast`, which early releases of CPython 3.11 and 3.12 cannot do in several
    threads at once ("AST constructor recursion depth mismatch"), and copies and checks every byte, which ArrayRecord
    has done already.
    """

    def __init__(self, data: bytes):
        self._data = data
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            self._places = {entry.filename.removesuffix(".npy"): entry for entry in file.infolist()}

    def __getitem__(self, name: str) -> np.ndarray:
        entry = self._places[name]
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        name_and_extra = sum(struct.unpack_from("<HH", self._data, entry.header_offset + _ZIP_LENGTHS))
        start = entry.header_offset + _ZIP_HEADER + name_and_extra
        header = _NPY_HEADER.match(self._data, start)
        if header is None:
            raise ValueError(f"{name} is not an array")
        shape = tuple(int(n) for n in header["shape"].split(b",") if n.strip())
        order: Literal["C", "F"] = "F" if header["fortran"] == b"True" else "C"
        dtype = np.dtype(header["dtype"].decode())
        return np.frombuffer(self._data, dtype, math.prod(shape), header.end()).reshape(shape, order=order)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Clip:
    """One record, its arrays read when asked for."""

    def __init__(self, data: bytes):
        self._arrays = _Arrays(data)
        self.info = ClipInfo(**json.loads(self._arrays["info"].tobytes()))

    def __contains__(self, name: str) -> bool:
        return name in self._arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    @property
    def names(self) -> list[str]:
        """Of all arrays."""
        return [name for name in self._arrays if name != "info"]

    @property
    def truth_names(self) -> list[str]:
        return [name for name in self._arrays if name.startswith("truth_")]

    def images(self, frames: Sequence[int]) -> np.ndarray:
        """RGB uint8 "n h w 3" of the given frames."""
        return decode_images(self._arrays, frames)


def encode_images(images_u8: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays `jpeg` and `jpeg_ends` of RGB uint8 "h w 3" frames."""
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    files = [cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1] for image in images_u8]
    return {"jpeg": np.concatenate(files), "jpeg_ends": np.cumsum([len(file) for file in files], dtype=np.int64)}


def decode_images(arrays: Mapping[str, np.ndarray], frames: Sequence[int]) -> np.ndarray:
    """RGB uint8 "n h w 3" of the given frames of `jpeg` and `jpeg_ends`."""
    jpeg, ends = arrays["jpeg"], arrays["jpeg_ends"]
    pictures = []
    for frame in frames:
        begin = ends[frame - 1] if frame else 0
        bgr = cv2.imdecode(jpeg[begin : ends[frame]], cv2.IMREAD_COLOR)
        pictures.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    return np.stack(pictures)


def encode_clip(info: ClipInfo, arrays: Mapping[str, np.ndarray]) -> bytes:
    """A record of `arrays` (names and shapes as in the module's text). Raises ValueError if their lengths disagree."""
    _check_lengths(info, arrays)
    text = np.frombuffer(json.dumps(config.to_mapping(info)).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, info=text, **arrays)
    return buffer.getvalue()


def _check_lengths(info: ClipInfo, arrays: Mapping[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if name in ("jpeg", "hubert"):
            continue
        expected = info.frames * SAMPLES_PER_FRAME if name == "samples" else info.frames
        if len(array) != expected:
            raise ValueError(f"{info.id}: {name} has {len(array)} entries where {expected} belong to its frames")


def write_shard(path: pathlib.Path, records: Sequence[bytes]) -> None:
    """An ArrayRecord file of `records`, each readable by itself; complete under its name or not there.

    Raises `UserError` where the disk does not take it.
    """
    with written_whole(path) as temporary:
        try:
            # group_size 1: each record is found and read alone. JPEG does not compress further.
            writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
            try:
                for record in records:
                    writer.write(record)
            finally:
                writer.close()
        except RuntimeError as error:  # what ArrayRecord makes of every error of the disk, mostly when it is closed
            raise OSError(_first_clause(error)) from error


def write_index(folder: pathlib.Path, clips: Sequence[ClipInfo], shards: Mapping[str, int], **about: Any) -> Manifest:
    """Writes clips.jsonl, then manifest.json, which makes the set complete. `about`: the manifest's other fields."""
    text = "".join(json.dumps(config.to_mapping(clip)) + "\n" for clip in clips)
    manifest = Manifest(clips_sha256=hashlib.sha256(text.encode()).hexdigest(), shards=dict(shards), **about)
    write_text(folder / "clips.jsonl", text)
    write_text(folder / "manifest.json", json.dumps(config.to_mapping(manifest), indent=1) + "\n")
    return manifest


def write_silence(folder: pathlib.Path, window: np.ndarray) -> None:
    """Writes the feature window of silence, "18 c"."""
    with written_whole(folder / "silence.npy") as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(window, np.float32))


def read_manifest(folder: pathlib.Path) -> Manifest:
    """The manifest of a record set. Raises `RecordsError` if there is none or it is of another schema."""
    file = folder / "manifest.json"
    if not file.is_file():
        raise RecordsError(
            f"{folder}: no records there (no manifest.json): make them with prepare.py, or let it finish"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise RecordsError(f"{file}: not the manifest of ctjax records")
        if content.get("schema") != SCHEMA:
            raise RecordsError(
                f"{folder}: records of schema {content.get('schema')}, this ctjax reads {SCHEMA}: run prepare.py again"
            )
        return config.from_mapping(Manifest, content)
    except (ValueError, AttributeError) as error:
        raise RecordsError(f"{file}: damaged manifest ({error}): run prepare.py again") from error


class RecordSet:
    """The clips of one or several record folders, addressed by number. Safe to read from several threads.

    digests: {folder: SHA-256 of its list of clips}.

    Raises `RecordsError` if a folder is not a complete record set, the folders do not belong together, or a person
    stands in more than one split.
    """

    def __init__(self, folders: Sequence[str | os.PathLike]):
        if not folders:
            raise RecordsError("no records given: name at least one folder made by prepare.py")
        self.folders = [pathlib.Path(folder) for folder in folders]
        manifests = [read_manifest(folder) for folder in self.folders]
        self.image_size, self.features = manifests[0].image_size, manifests[0].features
        self.digests = {str(f): manifest.clips_sha256 for f, manifest in zip(self.folders, manifests, strict=True)}
        self.clips: list[ClipInfo] = []
        paths: list[str] = []
        for folder, manifest in zip(self.folders, manifests, strict=True):
            if manifest.image_size != self.image_size or manifest.features != self.features:
                raise RecordsError(
                    f"{folder} and {self.folders[0]} differ in picture size or in the networks that made them: "
                    "prepare them alike"
                )
            self.clips += _read_index(folder, manifest)
            for name in manifest.shards:
                if not (folder / "shards" / name).is_file():
                    raise RecordsError(f"{folder}: its shard {name} is missing: copy it again or run prepare.py")
                paths.append(str(folder / "shards" / name))
        if not self.clips:
            raise RecordsError(f"{self.folders[0]}: the record set is empty; its report.json says what was dropped")
        if mixed := in_several_splits((clip.person, clip.split) for clip in self.clips):
            raise RecordsError(
                f"{', '.join(map(str, self.folders))}: persons in more than one split: {mixed}: training would be "
                "judged on faces it has seen; prepare them with lists that agree (prepare.py --list), or under other "
                "names where they are different persons"
            )
        self._source = _opened(paths)
        if len(self._source) != len(self.clips):
            raise RecordsError(
                f"{self.folders[0]}: the shards hold {len(self._source)} clips and the index {len(self.clips)}: "
                "run prepare.py again"
            )

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        try:
            return Clip(self._source[int(index)])
        except (ValueError, KeyError, OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise RecordsError(f"clip {self.clips[index].id} cannot be read ({error}): run prepare.py again") from error

    @property
    def silence(self) -> np.ndarray:
        """The feature window of silence, float32 "18 c", made by the same bundle as the clips' features."""
        self.require(hubert=None)
        file = self.folders[0] / "silence.npy"
        if not file.is_file():
            raise RecordsError(f"{self.folders[0]}: silence.npy is missing: run prepare.py again")
        return np.load(file, allow_pickle=False)

    def of_split(self, split: str, *, min_frames: int = 1) -> np.ndarray:
        """Numbers of the clips of `split`, as `in_split`."""
        return in_split(self.clips, split, min_frames)

    def require(self, **bundles: str | None) -> None:
        """Checks that the records hold the features made by the given bundles: hubert=SHA-256, renderer=SHA-256.

        None asks for the features whatever made them. Raises `RecordsError` otherwise.
        """
        for name, fingerprint in bundles.items():
            if name not in self.features:
                raise RecordsError(f"{self.folders[0]}: records without {name} features: run prepare.py with --{name}")
            if fingerprint is not None and self.features[name] != fingerprint:
                raise RecordsError(
                    f"{self.folders[0]}: the {name} features were made by other weights "
                    f"({self.features[name][:12]}, this run uses {fingerprint[:12]}): run prepare.py with this bundle, "
                    "or train with the one that made them"
                )


def in_split(clips: Sequence[ClipInfo], split: str, min_frames: int) -> np.ndarray:
    """Numbers of the clips of `split` with `min_frames` frames or more; `HELD_OUT` is "val" where there is such a clip,
    else "test". Raises `RecordsError` if there are none."""
    there = sorted({clip.split for clip in clips})
    long_enough = [i for i, clip in enumerate(clips) if clip.frames >= min_frames]
    if split == HELD_OUT:
        usable = {clips[i].split for i in long_enough}
        split = next((name for found in (usable, there) for name in ("val", "test") if name in found), "val")
    chosen = [i for i in long_enough if clips[i].split == split]
    if not chosen:
        raise RecordsError(
            f"no clip of split {split!r} with at least {min_frames} frames among {len(clips)} "
            f"(splits there: {', '.join(there)}; prepare.py --list assigns them, --config.held_out names another)"
        )
    return np.asarray(chosen)


def _read_index(folder: pathlib.Path, manifest: Manifest) -> list[ClipInfo]:
    try:
        text = (folder / "clips.jsonl").read_text(encoding="utf-8")
    except OSError as error:
        raise RecordsError(f"{folder}: clips.jsonl cannot be read ({error.strerror}): run prepare.py again") from error
    if hashlib.sha256(text.encode()).hexdigest() != manifest.clips_sha256:
        raise RecordsError(f"{folder}: clips.jsonl was changed after it was made: run prepare.py again")
    return [config.from_mapping(ClipInfo, json.loads(line)) for line in text.splitlines()]


def _opened(shards: Sequence[str]) -> grain.sources.ArrayRecordDataSource:
    """The records of all shards. Raises `RecordsError` that names a shard that is empty or cut off."""
    try:
        return grain.sources.ArrayRecordDataSource(shards)
    except RuntimeError as error:  # it does not say which one
        raise RecordsError(
            f"{_first_damaged(shards)}: damaged or cut off ({_first_clause(error)}): copy it again, or remove the set "
            "and prepare it again"
        ) from error


def _first_damaged(shards: Sequence[str]) -> str:
    """Of shards that do not open together."""
    for shard in shards[:-1]:
        try:
            grain.sources.ArrayRecordDataSource([shard])
        except RuntimeError:
            return shard
    return shards[-1]


def _first_clause(error: RuntimeError) -> str:
    """Of an ArrayRecord error, which may have several, or none."""
    return str(error).split(";")[0] or "no records in it"
