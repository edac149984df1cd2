"""Checkpoint files in upstream's layouts, made of rule weights and written without torch."""

from __future__ import annotations

import pathlib
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

from convert import write_torch
from convert.read_torch import LEGACY_MAGIC, LEGACY_PROTOCOL

SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def save_legacy(tree: Any, path: pathlib.Path) -> pathlib.Path:
    """The form PyTorch wrote before version 1.6 (five pickles, then the storages)."""
    body, arrays = write_torch.encode(tree, legacy=True)
    with path.open("wb") as stream:
        for header in (LEGACY_MAGIC, LEGACY_PROTOCOL, SYSTEM):
            pickle.dump(header, stream, protocol=2)
        stream.write(body)
        pickle.dump([str(i) for i in range(len(arrays))], stream, protocol=2)
        for array in arrays:
            stream.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def save_zip(tree: Any, path: pathlib.Path) -> pathlib.Path:
    """The zip form of PyTorch 1.6 and later."""
    write_torch.save(tree, path)
    return path


def save_pickle(body: bytes, path: pathlib.Path) -> pathlib.Path:
    """A zip checkpoint whose pickle is `body`, with one storage of four floats."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
        archive.writestr("archive/version", "3\n")
    return path
