"""Results on disk by the content of the files they came from, so that a second run computes only what changed.

The key of an entry is everything that its numbers depend on: SHA-256 of the videos, settings, digests of the
bundles, and of this package's own sources. Entries are .npz files, written aside and renamed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ctjax.types import UserError
from ctjax.whole_files import written_whole

PACKAGE = pathlib.Path(__file__).parents[1]
DECIDE_NO_NUMBER = {"data", "train"}  # the rest of the package makes, reads or scores clips


@functools.cache
def software_digest() -> str:
    """SHA-256 of the sources that numbers and rendered clips come from: whoever changes arithmetic changes the key."""
    return sources_digest(PACKAGE)


def sources_digest(package: pathlib.Path) -> str:
    """SHA-256 of the names and contents of a package's sources, but for `DECIDE_NO_NUMBER`."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] not in DECIDE_NO_NUMBER:
            digest.update(f"{place.as_posix()} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ResultCache:
    """`folder`: where entries live, made on first use; None keeps nothing."""

    def __init__(self, folder: str | os.PathLike[str] | None):
        self.folder = None if folder is None else pathlib.Path(folder)
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{self.folder}: the cache folder cannot be made: {error.strerror}") from error

    def get(self, key: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """The arrays stored under `key` (JSON values), or those of `compute()`, which are then stored.

        An entry that cannot be read counts as missing.
        """
        if self.folder is None:
            return compute()
        text = json.dumps({"software": software_digest(), **key}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.npz"
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
        arrays = dict(compute())
        self._store(path, arrays)
        return arrays

    @staticmethod
    def _store(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
        """A cache that cannot be written costs time, not the results."""
        with contextlib.suppress(OSError, UserError):
            path.parent.mkdir(exist_ok=True)
            with written_whole(path) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
