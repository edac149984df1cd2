"""Reads `torch.save` files (zip and legacy form) without torch and without running anything they contain.

A checkpoint is a pickle, and a pickle is a program that may call any function it can name. The reader here resolves
names only through a closed table: tensors and plain containers become inert classes of this file, and objects that
some training frameworks leave in their checkpoints (`argparse.Namespace`, `omegaconf.*`, `fairseq.*`, ...) become
empty stand-ins that keep their recorded state and can do nothing. Every other name is refused. Nothing is imported.

Tensors are lazy: their bytes are read when `Tensor.numpy` is called, so optimizer states cost nothing.
"""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from ctjax.types import UserError

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
STORAGE_DTYPES: dict[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Objects of these modules carry settings next to the weights. Their names become stand-ins, never the real thing.
OPAQUE_MODULES = ("argparse", "fairseq", "numpy", "omegaconf", "pathlib", "typing")
OPAQUE_NAMES = {
    "builtins": {
        "bool",
        "bytearray",
        "bytes",
        "complex",
        "dict",
        "float",
        "frozenset",
        "int",
        "list",
        "set",
        "str",
        "tuple",
    },
    "torch": {
        "bfloat16",
        "bool",
        "device",
        "float16",
        "float32",
        "float64",
        "int16",
        "int32",
        "int64",
        "int8",
        "uint8",
    },
    "_codecs": {"encode"},  # how protocol 2 writes bytes, inside numpy scalars
    "copyreg": {"_reconstructor"},
}
_PYTHON_2_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class CheckpointError(UserError):
    """A source file that cannot be read, or that asks for something other than weights."""


class Tensor:
    """A tensor whose bytes are still in the file. `shape`, `dtype`; `numpy()` reads it (a read-only array)."""

    __slots__ = ("_read", "dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Callable[[], np.ndarray]):
        self.shape, self.dtype, self._read = tuple(shape), np.dtype(dtype), read

    def numpy(self) -> np.ndarray:
        return self._read()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a tensor has no state to set")


class Opaque:
    """Stand-in for an object the reader does not build; `state` is what the file recorded of it."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> Opaque:
        self = super().__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __init__(self, *arguments: Any, **keywords: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


def load(path: str | os.PathLike[str]) -> Any:
    """The object saved in the file: nested dicts, lists and scalars with `Tensor` and `Opaque` leaves.

    Raises `CheckpointError` naming the file: missing, empty, truncated, of another kind, or with forbidden contents.
    """
    file = pathlib.Path(path)
    head = sniff(file)
    try:
        if head.startswith(ZIP_MAGIC):
            return _load_zip(file)
        return _load_legacy(file)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # a damaged pickle may fail in any way, and none of them is ours to explain
        raise CheckpointError(f"{file}: truncated, damaged, or not a PyTorch checkpoint ({_reason(error)})") from error


def sniff(file: pathlib.Path) -> bytes:
    """The first bytes of a file that may be a checkpoint; raises `CheckpointError` for what certainly is none."""
    if not file.exists():
        raise CheckpointError(f"{file}: no such file")
    if not file.is_file():
        raise CheckpointError(f"{file}: is not a file")
    with file.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise CheckpointError(f"{file}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file}: a Git LFS pointer, not the checkpoint itself: fetch it with `git lfs pull`")
    if head.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
        raise CheckpointError(f"{file}: a web page, not a checkpoint: the download went wrong, repeat it")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{file}: a tar archive (PyTorch before 0.2?): load and save it again with PyTorch")
    return head


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:160] if text else type(error).__name__


class _Storage:
    """The bytes that one or more tensors look into."""

    def __init__(self, dtype: Any, numel: int, read: Callable[[], bytes]):
        self.dtype, self.numel, self._read = np.dtype(dtype), numel, read
        self._data: bytes | None = None

    def array(self) -> np.ndarray:
        if self._data is None:
            self._data = self._read()
        return np.frombuffer(self._data, self.dtype, self.numel)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a storage has no state to set")


class _StorageType:
    dtype: Any = None

    def __new__(cls, *_: Any) -> Any:
        raise pickle.UnpicklingError("a storage cannot be made inside the pickle")

    __setstate__ = _Storage.__setstate__


class _RebuiltTensor(Tensor):
    """`torch._utils._rebuild_tensor[_v2](storage, offset, size, stride, ...)` is a tensor."""

    __slots__ = ()

    def __new__(cls, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Any:
        if not isinstance(storage, _Storage) or len(size) != len(stride):
            raise pickle.UnpicklingError("a tensor without a storage")
        if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
            raise pickle.UnpicklingError("a tensor with a negative size")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else offset - 1
        if last >= storage.numel:
            raise pickle.UnpicklingError("a tensor reaches outside its storage")
        steps = [step * storage.dtype.itemsize for step in stride]

        def read() -> np.ndarray:
            return np.lib.stride_tricks.as_strided(storage.array()[offset:], size, steps, writeable=False)

        return Tensor(size, storage.dtype, read)


class _Parameter:
    """`torch._utils._rebuild_parameter(tensor, ...)` is the tensor."""

    def __new__(cls, data: Any, *_: Any) -> Any:
        return data

    __setstate__ = _Storage.__setstate__


class _Dict(dict):
    """OrderedDict, defaultdict and Counter; attributes such as a state dict's `_metadata` are dropped."""

    def __init__(self, items: Any = ()):
        super().__init__(items if isinstance(items, (dict, list, tuple)) else ())

    def __setstate__(self, state: Any) -> None:
        pass


# Only classes that define __setstate__ (or are immutable) stand here: a pickle can then change no class or function.
_KNOWN: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "defaultdict"): _Dict,
    ("collections", "Counter"): _Dict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _RebuiltTensor,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuiltTensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _Parameter,
}
for _name, _dtype in STORAGE_DTYPES.items():
    for _module in ("torch", "torch.cuda", "torch.storage"):
        _KNOWN[_module, _name] = type(_name, (_StorageType,), {"dtype": _dtype})


class _Unpickler(pickle.Unpickler):
    """Resolves names through `_KNOWN` and the opaque list only, and storages through `storage(pid)`."""

    def __init__(self, stream: BinaryIO, file: pathlib.Path, storage: Callable[[tuple[Any, ...]], _Storage] | None):
        # Python 2 strings are bytes of unknown encoding; what cannot be decoded is never a parameter's name.
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._file, self._storage = file, storage

    def find_class(self, module: str, name: str) -> type:
        module = _PYTHON_2_NAMES.get(module, module)
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module.split(".")[0] in OPAQUE_MODULES or name in OPAQUE_NAMES.get(module, ()):
            return type(name, (Opaque,), {"__module__": module})
        raise CheckpointError(
            f"{self._file}: refused, the file asks for {module}.{name}, and a checkpoint may hold nothing but tensors "
            "and plain settings. If you trust it, load it with PyTorch and save its state_dict() alone"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise pickle.UnpicklingError("an unknown kind of reference")
        kind, numel = pid[1], pid[4]
        if not (isinstance(kind, type) and issubclass(kind, _StorageType)) or not isinstance(numel, int) or numel < 0:
            raise pickle.UnpicklingError("a damaged storage reference")
        return self._storage(pid)


def _load_zip(file: pathlib.Path) -> Any:
    archive = zipfile.ZipFile(file)  # stays open for the lazy tensors; closed when the last of them is gone
    names = set(archive.namelist())
    root = next((n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("/data.pkl")), None)
    if root is None:
        raise CheckpointError(f"{file}: a zip archive, but not one that PyTorch wrote")
    if f"{root}constants.pkl" in names:
        raise CheckpointError(f"{file}: a TorchScript program; the converter needs a state dict (torch.save)")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise CheckpointError(f"{file}: written on a big-endian machine, which is not supported")
    storages: dict[str, _Storage] = {}

    def storage(pid: tuple[Any, ...]) -> _Storage:
        _, kind, key, _, numel, *_ = pid
        if key not in storages:
            entry = archive.getinfo(f"{root}data/{key}")
            if entry.file_size < numel * np.dtype(kind.dtype).itemsize:
                raise CheckpointError(f"{file}: storage {key} is shorter than its tensors: damaged file")
            storages[key] = _Storage(kind.dtype, numel, lambda: _read_entry(archive, entry, file))
        return storages[key]

    return _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), file, storage).load()


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file: pathlib.Path) -> bytes:
    try:
        return archive.read(entry)  # compares the CRC
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise CheckpointError(f"{file}: damaged file ({_reason(error)})") from error


def _load_legacy(file: pathlib.Path) -> Any:
    """Five pickles in a row (magic, protocol, system, object, storage keys), then each storage's length and bytes."""
    stream = file.open("rb")  # stays open for the lazy tensors
    if _Unpickler(stream, file, None).load() != LEGACY_MAGIC:
        raise CheckpointError(f"{file}: a pickle, but not one that PyTorch wrote")
    if _Unpickler(stream, file, None).load() != LEGACY_PROTOCOL:
        raise CheckpointError(f"{file}: a version of PyTorch's format that is not supported")
    if not _Unpickler(stream, file, None).load().get("little_endian", True):
        raise CheckpointError(f"{file}: written on a big-endian machine, which is not supported")
    storages: dict[str, _Storage] = {}
    offsets: dict[str, int] = {}

    def storage(pid: tuple[Any, ...]) -> _Storage:
        _, kind, key, _, numel, *view = pid
        if any(v is not None for v in view):
            raise CheckpointError(f"{file}: storage views of a very old PyTorch: load and save it again with PyTorch")
        if key not in storages:
            size = numel * np.dtype(kind.dtype).itemsize
            storages[key] = _Storage(kind.dtype, numel, lambda: _read_at(stream, offsets[key], size, file))
        return storages[key]

    saved = _Unpickler(stream, file, storage).load()
    end = file.stat().st_size
    for key in _Unpickler(stream, file, None).load():
        (numel,) = struct.unpack("<q", stream.read(8))
        known = storages[key]
        if numel != known.numel:
            raise CheckpointError(f"{file}: storage {key} has another length than its tensors: damaged file")
        offsets[key] = stream.tell()
        if stream.seek(offsets[key] + numel * known.dtype.itemsize) > end:
            raise CheckpointError(f"{file}: truncated file, storage {key} ends after the file's end")
    if missing := storages.keys() - offsets.keys():
        raise CheckpointError(f"{file}: damaged file, {len(missing)} storages are missing")
    return saved


def _read_at(stream: BinaryIO, offset: int, size: int, file: pathlib.Path) -> bytes:
    stream.seek(offset)
    data = stream.read(size)
    if len(data) != size:
        raise CheckpointError(f"{file}: truncated file")
    return data
