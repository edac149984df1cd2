"""Source files on disk: PyTorch files, safetensors, Hugging Face folders; their tensors, settings and digests."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert import read_torch
from convert.read_torch import CheckpointError, Opaque, Tensor

# Names under which training scripts keep the state dict, most specific first.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params_ema", "params")
HF_CONFIG = "config.json"
HF_PREPROCESSOR = "preprocessor_config.json"
HF_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TRAINING = "training state (optimizer, counters, settings)"


@dataclass
class Source:
    """An opened source. `tree`: what the file holds, tensors lazy; `files`: every file it was read from;
    `settings`: the JSON files that Hugging Face keeps beside the weights."""

    path: pathlib.Path
    tree: Any
    files: list[pathlib.Path]
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def tensor_keys(self) -> list[str]:
        """Dotted names of all tensors in the file, at any depth."""
        return list(_tensors(self.tree))


@dataclass
class StateDict:
    """The tensors of one network, by the name they have after wrappers and prefixes are off."""

    tensors: dict[str, Tensor]
    skipped: dict[str, str]  # what else the file holds -> why it is left out

    def read(self) -> dict[str, np.ndarray]:
        return {key: tensor.numpy() for key, tensor in self.tensors.items()}


def open_source(path: str | pathlib.Path) -> Source:
    """Opens a checkpoint file of any supported format, or a Hugging Face folder. Raises `CheckpointError`."""
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            return _open_folder(path)
        return Source(path, _load_file(path), [path], _settings_beside(path))
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def state_dict(source: Source, *, rename: Callable[[str], str] | None = None) -> StateDict:
    """The one state dict of a source, wherever its author wrapped it.

    rename: from a key of the file to the network's own; by default a leading `module.` (data parallel) is cut. Raises
    `CheckpointError` where there is no state dict, or two keys become one.
    """
    tree, skipped = source.tree, {}
    if not isinstance(tree, dict):
        raise CheckpointError(f"{source.path}: holds a {_kind(tree)} instead of a state dict")
    while wrapper := next((w for w in WRAPPERS if isinstance(tree.get(w), dict) and any(_tensors(tree[w]))), None):
        skipped |= {str(key): _TRAINING for key in tree if key != wrapper}  # a loss perhaps, kept as a tensor
        tree = tree[wrapper]
    if not _holds_tensors(tree):
        raise CheckpointError(f"{source.path}: holds no state dict, its top level is: {_listed(source.tree)}")
    return _select(source.path, tree, skipped, rename or _without_module)


def parts(source: Source, names: Sequence[str]) -> tuple[dict[str, StateDict], dict[str, str]]:
    """({part: state dict}, what was skipped) of a file that holds several networks by name (`names`, where present)."""
    tree = source.tree
    if isinstance(tree, dict) and not any(n in tree for n in names):
        tree = next((tree[w] for w in WRAPPERS if isinstance(tree.get(w), dict)), tree)
    if not isinstance(tree, dict) or not any(_holds_tensors(tree.get(n)) for n in names):
        raise CheckpointError(
            f"{source.path}: none of the parts {', '.join(names)} is in it, its top level is: {_listed(source.tree)}"
        )
    found = {n: _select(source.path, tree[n], {}, _without_module) for n in names if _holds_tensors(tree.get(n))}
    return found, {str(key): _TRAINING for key in tree if key not in found}


def plain_settings(value: Any) -> Any:
    """Settings that a training framework saved as objects (argparse.Namespace, omegaconf), as far as plain values."""
    if isinstance(value, Opaque):
        state = value.state
        if isinstance(state, Mapping) and "_content" in state:  # omegaconf's DictConfig and ListConfig
            return plain_settings(state["_content"])
        if isinstance(state, Mapping) and "_val" in state:  # omegaconf's nodes
            return plain_settings(state["_val"])
        return plain_settings(state) if isinstance(state, Mapping) else None
    if isinstance(value, Mapping):
        return {key: plain_settings(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_settings(v) for v in value]
    return value


def digests(files: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of every file, for the manifest."""
    found = []
    for file in files:
        with file.open("rb") as stream:
            found.append(
                {
                    "file": file.name,
                    "bytes": file.stat().st_size,
                    "sha256": hashlib.file_digest(stream, "sha256").hexdigest(),
                }
            )
    return found


def _load_file(path: pathlib.Path) -> Any:
    head = read_torch.sniff(path)
    length = int.from_bytes(head[:8], "little")
    if path.suffix == ".safetensors" or (head[8:9] == b"{" and length < path.stat().st_size):
        return _load_safetensors(path)
    return read_torch.load(path)


def _load_safetensors(path: pathlib.Path) -> dict[str, Tensor]:
    import safetensors

    try:
        file = safetensors.safe_open(path, framework="numpy")
        # No "with": the lazy tensors keep the file open.
        return {key: _safetensor(file, key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: truncated, damaged, or not a safetensors file ({error})") from error


def _safetensor(file: Any, key: str) -> Tensor:
    view = file.get_slice(key)
    dtype = {"BF16": "bfloat16", "BOOL": "bool"}.get(view.get_dtype())
    dtype = dtype or view.get_dtype().replace("F", "float").replace("U", "uint").replace("I", "int")
    return Tensor(tuple(view.get_shape()), dtype, lambda: file.get_tensor(key))


def _open_folder(folder: pathlib.Path) -> Source:
    name = next((n for n in HF_WEIGHTS if (folder / n).is_file()), None)
    if name is None:
        inside = sorted(p.name for p in folder.iterdir())
        what = f"it holds {', '.join(inside[:8])}{', ...' if len(inside) > 8 else ''}" if inside else "it is empty"
        raise CheckpointError(f"{folder}: none of {', '.join(HF_WEIGHTS)} is in this folder ({what})")
    if name.endswith(".index.json"):
        tree, files = _load_shards(folder / name)
    else:
        tree, files = _load_file(folder / name), [folder / name]
    settings = _settings_beside(folder / name)
    return Source(folder, tree, files + [folder / n for n in settings], settings)


def _load_shards(index: pathlib.Path) -> tuple[dict[str, Any], list[pathlib.Path]]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: has no weight_map, so the shards cannot be found")
    trees = {name: _load_file(index.parent / name) for name in sorted(set(places.values()))}
    lost = [f"{key} ({name})" for key, name in places.items() if key not in trees[name]]
    if lost:
        raise CheckpointError(f"{index}: {len(lost)} tensors are not in the shards it names: {', '.join(lost[:10])}")
    return {key: trees[name][key] for key, name in places.items()}, [index, *(index.parent / n for n in trees)]


def _settings_beside(file: pathlib.Path) -> dict[str, dict[str, Any]]:
    return {n: _read_json(file.parent / n) for n in (HF_CONFIG, HF_PREPROCESSOR) if (file.parent / n).is_file()}


def _read_json(file: pathlib.Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file}: holds a {_kind(value)} instead of a JSON object")
    return value


def _select(
    path: pathlib.Path, tree: Mapping[Any, Any], skipped: Mapping[str, str], rename: Callable[[str], str]
) -> StateDict:
    tensors: dict[str, Tensor] = {}
    left_out = dict(skipped)
    for key, value in tree.items():
        if not isinstance(value, Tensor):
            left_out[str(key)] = "not a tensor"
            continue
        name = rename(str(key))
        if name in tensors:
            raise CheckpointError(f"{path}: {key} and another key both mean {name}")
        tensors[name] = value
    return StateDict(tensors, left_out)


def _without_module(key: str) -> str:
    return key.removeprefix("module.")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())


def _tensors(tree: Any, prefix: str = "") -> Iterable[str]:
    if isinstance(tree, Tensor):
        yield prefix
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from _tensors(value, f"{prefix}.{key}" if prefix else str(key))


def _listed(tree: Any) -> str:
    if not isinstance(tree, dict):
        return f"a {_kind(tree)}"
    keys = [str(k) for k in tree]
    return ", ".join(keys[:8]) + (f", and {len(keys) - 8} more" if len(keys) > 8 else "") if keys else "empty"


def _kind(value: Any) -> str:
    return "single tensor" if isinstance(value, Tensor) else type(value).__name__
