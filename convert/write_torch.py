"""Writes state dicts in PyTorch's zip format without torch, for `torch.load(..., weights_only=True)` to read.

Only what a checkpoint needs: nested dicts, lists, numbers, strings and numpy arrays. The pickle is written opcode by
opcode, since the standard pickler would have to import torch to name its functions.
"""

from __future__ import annotations

import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import numpy as np

from convert.read_torch import STORAGE_DTYPES

_STORAGE_OF = {np.dtype(dtype): name for name, dtype in STORAGE_DTYPES.items()}
_ROOT = "archive"


def save(tree: Any, path: str | os.PathLike[str]) -> None:
    """Writes `tree` to the file `path` (the caller sees to temporary names and overwriting)."""
    write(*encode(tree), path)


def write(body: bytes, arrays: list[np.ndarray], path: str | os.PathLike[str]) -> None:
    """The zip archive of a pickle and its storages."""
    with zipfile.ZipFile(pathlib.Path(path), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:

        def add(name: str, data: Any) -> None:
            archive.writestr(zipfile.ZipInfo(f"{_ROOT}/{name}"), data)  # a fixed date: equal content, equal file

        add("data.pkl", body)
        add("byteorder", b"little")
        for index, array in enumerate(arrays):
            add(f"data/{index}", array.tobytes())
        add("version", b"3\n")


def encode(tree: Any, *, legacy: bool = False) -> tuple[bytes, list[np.ndarray]]:
    """(pickle, arrays): protocol 2, storage number i holding arrays[i]. legacy: references as before PyTorch 1.6."""
    arrays: list[np.ndarray] = []
    return b"\x80\x02" + _value(tree, arrays, legacy) + b".", arrays


def _value(value: Any, arrays: list[np.ndarray], legacy: bool) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_value(k, arrays, legacy) + _value(v, arrays, legacy) for k, v in value.items())
        return pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS
    if isinstance(value, (list, tuple)):
        items = b"".join(_value(v, arrays, legacy) for v in value)
        if isinstance(value, list):
            return pickle.EMPTY_LIST + pickle.MARK + items + pickle.APPENDS
        return pickle.MARK + items + pickle.TUPLE
    if isinstance(value, np.ndarray):
        return _tensor(value, arrays, legacy)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value]
    if isinstance(value, int):
        if -(2**31) <= value < 2**31:
            return pickle.BININT + struct.pack("<i", value)
        data = pickle.encode_long(value)
        return pickle.LONG1 + struct.pack("<B", len(data)) + data
    if isinstance(value, float):
        return pickle.BINFLOAT + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return pickle.BINUNICODE + struct.pack("<I", len(data)) + data
    raise TypeError(f"cannot write a {type(value).__name__} to a PyTorch checkpoint")


def _tensor(array: np.ndarray, arrays: list[np.ndarray], legacy: bool) -> bytes:
    """`_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())` with the storage by reference."""
    kind = _STORAGE_OF.get(array.dtype)
    if kind is None:
        raise TypeError(f"PyTorch has no tensor of {array.dtype}")
    strides = [1] * array.ndim
    for axis in range(array.ndim - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(array.shape[axis + 1], 1)

    def plain(value: Any) -> bytes:
        return _value(value, arrays, legacy)

    reference = plain("storage") + _global("torch", kind) + plain(str(len(arrays))) + plain("cpu") + plain(array.size)
    if legacy:
        reference += pickle.NONE
    arguments = pickle.MARK + reference + pickle.TUPLE + pickle.BINPERSID
    arguments += plain(0) + plain(tuple(array.shape)) + plain(tuple(strides)) + pickle.NEWFALSE
    arguments += _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    arrays.append(array)
    return _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK + arguments + pickle.TUPLE + pickle.REDUCE


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
