"""Bundles: a network's converted or trained parameters on disk, written atomically and opened strictly.

A bundle is a folder:

    manifest.json        network, config, provenance, versions, and shape, dtype and SHA-256 of every parameter
    params/              the parameters, saved by Orbax as a nested dict (list indices as strings), or
    params.safetensors   the compact form: one file, optionally in half precision (small bundles that travel)

A talking-head folder holds the bundles `renderer/`, `hubert/` and `audio2exp/`.

`open_bundle` compares everything with the manifest and refuses what differs. It returns host numpy arrays: put them
on devices once, before the first `jax.jit` call.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ctjax import __version__
from ctjax.types import UserError

Params = dict[Any, Any]
PathLike = str | os.PathLike[str]

FORMAT = "ctjax-bundle"
SCHEMA = 1
MANIFEST = "manifest.json"
ORBAX_FOLDER = "params"
COMPACT_FILE = "params.safetensors"
COMPACT_PRECISIONS = ("float32", "bfloat16", "float16")
_TENSOR = re.compile(r"(?P<dtype>\w+)\[(?P<shape>[\d,]*)\] (?P<sha256>[0-9a-f]{64})")
_SHOWN = 10


class BundleError(UserError):
    """A bundle that cannot be written, or that is missing, damaged, of another network or of another shape."""


class Bundle(NamedTuple):
    """An opened bundle. `config`: JSON values (`ctjax.config.from_mapping` makes the network's dataclass of it);
    `params`: the nested dict of numpy arrays that `ctjax.nn.module.Network.bind` takes."""

    network: str
    config: dict[str, Any]
    params: Params
    manifest: dict[str, Any]


def leaves(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict flattened to {dotted path: leaf}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            flat.update(leaves(value, path))
        else:
            flat[path] = value
    return flat


def nest(flat: Mapping[str, Any]) -> Params:
    """The inverse of `leaves`: components made of digits become ints (list indices)."""
    tree: Params = {}
    for path, leaf in flat.items():
        *parents, last = (int(p) if p.isdigit() else p for p in path.split("."))
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def read_manifest(path: PathLike, network: str | tuple[str, ...] | None = None) -> dict[str, Any]:
    """The manifest of the bundle at `path`, without its parameters.

    Raises `BundleError` if there is no bundle, if its manifest is damaged or of a newer schema, or if it holds another
    network than `network` (a name, or several of which one must match).
    """
    folder = pathlib.Path(path)
    file = folder / MANIFEST
    if not folder.exists():
        raise BundleError(f"{folder}: no such bundle (make one with `python -m convert`)")
    if not file.is_file():
        inside = [p.name for p in sorted(folder.iterdir()) if (p / MANIFEST).is_file()] if folder.is_dir() else []
        hint = f"it holds the bundles {', '.join(inside)}" if inside else "make one with `python -m convert`"
        raise BundleError(f"{folder}: not a bundle, it has no {MANIFEST} ({hint})")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{file}: the manifest cannot be read: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{file}: not the manifest of a ctjax bundle")
    if manifest.get("schema") != SCHEMA:
        raise BundleError(
            f"{file}: schema {manifest.get('schema')} cannot be read by this ctjax, which reads {SCHEMA}: "
            "update ctjax or convert the checkpoint again"
        )
    missing = [key for key in ("network", "config", "provenance", "parameters") if key not in manifest]
    if missing:
        raise BundleError(f"{file}: the manifest lacks {', '.join(missing)}")
    wanted = (network,) if isinstance(network, str) else network
    if wanted is not None and manifest["network"] not in wanted:
        raise BundleError(f"{folder}: a bundle of {manifest['network']}; one of {' or '.join(wanted)} is needed here")
    return manifest


def open_bundle(
    path: PathLike,
    *,
    network: str | tuple[str, ...] | None = None,
    abstract: Mapping[Any, Any] | Callable[[dict[str, Any]], Mapping[Any, Any]] | None = None,
    verify: bool = True,
) -> Bundle:
    """Opens the bundle at `path` and checks it.

    network: the name (or names) the bundle must have. abstract: the parameter tree the caller wants (leaves with
    `.shape` and `.dtype`, as `Network.abstract`), or a function that makes it from the bundle's config; names, shapes
    and dtypes must agree exactly. verify: also compare the SHA-256 of every parameter with the manifest's. Raises
    `BundleError`.
    """
    folder = pathlib.Path(path)
    manifest = read_manifest(folder, network)
    tensors = _tensors(folder, manifest)
    if abstract is not None:
        tree = abstract(manifest["config"]) if callable(abstract) else abstract
        wanted = {k: _described(v.dtype, v.shape) for k, v in leaves(tree).items()}
        _compare(f"{folder}: the {manifest['network']} bundle does not fit the network", wanted, tensors)
    try:
        stored = _read_params(folder, manifest["parameters"].get("storage"), tensors)
    except Exception as error:  # Orbax, tensorstore and safetensors raise many kinds of error for a damaged file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BundleError(
            f"{folder}: damaged or truncated bundle, convert again; reading failed with: {reason}"
        ) from error
    params = {k: np.asarray(v).astype(tensors[k].dtype, copy=False) for k, v in stored.items() if k in tensors}
    found = {k: _described(v.dtype, v.shape) for k, v in params.items()}
    _compare(f"{folder}: damaged bundle, convert again", found, tensors)
    if verify:
        changed = [k for k, digest in _digests(params).items() if digest != tensors[k].sha256]
        if changed:
            raise BundleError(f"{folder}: damaged bundle, convert again; other values than recorded: {_some(changed)}")
    return Bundle(manifest["network"], manifest["config"], nest(params), manifest)


def save_bundle(
    path: PathLike,
    *,
    network: str,
    config: Any,
    params: Mapping[Any, Any],
    provenance: Mapping[str, Any] | None = None,
    compact: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a bundle to the folder `path` and returns its manifest.

    config: the network's frozen dataclass, or JSON values. params: nested dict of numpy or jax arrays. provenance:
    JSON values about where the parameters come from. compact: None for Orbax, or the precision ("float32",
    "bfloat16", "float16") of one `params.safetensors`; the true dtypes come back on opening. overwrite: replace an
    earlier bundle at `path`; nothing but a bundle is ever replaced.

    Everything is written to a temporary folder next to `path` and renamed at the end. Raises `BundleError`.
    """
    folder = pathlib.Path(path)
    flat = {k: np.asarray(v) for k, v in sorted(leaves(jax.device_get(dict(params))).items())}
    stored = _in_precision(flat, compact)
    flat = {k: v.astype(flat[k].dtype, copy=False) for k, v in stored.items()}  # the values that opening will give
    tensors = {k: f"{_described(flat[k].dtype, flat[k].shape)} {digest}" for k, digest in _digests(flat).items()}
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "orbax-checkpoint")}
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "network": network,
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config),
        "provenance": dict(provenance or {}),
        "versions": {"ctjax": __version__, **versions},
        "parameters": {
            "count": sum(v.size for v in flat.values()),
            "storage": "safetensors" if compact else "orbax",
            "precision": compact or "full",
            "sha256": _digest_of_all(tensors),
            "tensors": tensors,
        },
    }
    with replacing(folder, overwrite=overwrite) as aside:
        _write_params(aside, stored, compact)
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return json.loads(json.dumps(manifest))


def fingerprint(manifest: Mapping[str, Any], parts: Collection[str] = ()) -> str:
    """SHA-256 that stands for a bundle's parameters, or for those of the named top-level `parts` alone."""
    tensors = manifest["parameters"]["tensors"]
    return _digest_of_all({k: v for k, v in tensors.items() if not parts or k.partition(".")[0] in parts})


def is_named(manifest: Mapping[str, Any], name: str | None) -> bool:
    """Whether `name`, the fingerprint by which another bundle knows this one, is its own or that of the bundle it was
    packed from; true where none was written down."""
    return name is None or name in (fingerprint(manifest), manifest["provenance"].get("packed_from"))


class _Tensor(NamedTuple):
    """What a manifest says of one parameter."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    sha256: str


def _tensors(folder: pathlib.Path, manifest: Mapping[str, Any]) -> dict[str, _Tensor]:
    recorded = manifest["parameters"].get("tensors") or {}
    if not recorded or _digest_of_all(recorded) != manifest["parameters"].get("sha256"):
        raise BundleError(f"{folder / MANIFEST}: the list of parameters is damaged, convert again")
    found = {}
    for key, text in recorded.items():
        match = _TENSOR.fullmatch(text)
        if match is None:
            raise BundleError(f"{folder / MANIFEST}: cannot read what it says of {key}: {text!r}")
        shape = tuple(int(n) for n in match["shape"].split(",") if n)
        found[key] = _Tensor(np.dtype(match["dtype"]), shape, match["sha256"])
    return found


def _described(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{np.dtype(dtype).name}[{','.join(map(str, shape))}]"


def _compare(what: str, wanted: Mapping[str, str], tensors: Mapping[str, _Tensor]) -> None:
    """Raises `BundleError` where the names, dtypes or shapes of `wanted` and of the manifest differ."""
    bundle = {k: _described(t.dtype, t.shape) for k, t in tensors.items()}
    problems = [f"missing: {k} {wanted[k]}" for k in wanted if k not in bundle]
    problems += [f"unexpected: {k} {bundle[k]}" for k in bundle if k not in wanted]
    problems += [f"{k} is {bundle[k]}, not {wanted[k]}" for k in wanted if k in bundle and wanted[k] != bundle[k]]
    if problems:
        raise BundleError(f"{what}: {_some(problems, '; ')}")


def _some(items: list[str], separator: str = ", ") -> str:
    more = f"{separator}and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return separator.join(items[:_SHOWN]) + more


def _digests(flat: Mapping[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of every array's bytes (C order, little-endian); hashlib lets threads run side by side."""

    def digest(array: np.ndarray) -> str:
        return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8)).hexdigest()

    with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(flat, pool.map(digest, flat.values()), strict=True))


def _digest_of_all(tensors: Mapping[str, str]) -> str:
    lines = "".join(f"{key} {tensors[key]}\n" for key in sorted(tensors))
    return hashlib.sha256(lines.encode()).hexdigest()


def _in_precision(flat: Mapping[str, np.ndarray], precision: str | None) -> dict[str, np.ndarray]:
    """Floating-point arrays cast to `precision`, others as they are."""
    if precision is None:
        return dict(flat)
    if precision not in COMPACT_PRECISIONS:
        raise BundleError(f"precision {precision!r} is not one of {', '.join(COMPACT_PRECISIONS)}")
    with np.errstate(over="ignore"):
        stored = {k: v.astype(precision) if jax.numpy.issubdtype(v.dtype, np.floating) else v for k, v in flat.items()}
    lost = [k for k, v in stored.items() if not np.isfinite(v).all() and np.isfinite(flat[k]).all()]
    if lost:
        raise BundleError(f"values too large for {precision}: {_some(lost)}; choose bfloat16 or float32")
    return stored


def _write_params(folder: pathlib.Path, stored: Mapping[str, np.ndarray], precision: str | None) -> None:
    if precision:
        import safetensors.numpy

        file = folder / COMPACT_FILE
        safetensors.numpy.save_file({k: np.ascontiguousarray(v).reshape(v.shape) for k, v in stored.items()}, file)
        file.chmod(0o666 & ~_umask())  # safetensors makes files that only their owner can read
        return
    with _checkpointer() as checkpointer:
        checkpointer.save((folder / ORBAX_FOLDER).absolute(), _string_keys(nest(stored)))
        checkpointer.wait_until_finished()


def _read_params(folder: pathlib.Path, storage: str, tensors: Mapping[str, _Tensor]) -> dict[str, np.ndarray]:
    if storage == "safetensors":
        import safetensors.numpy

        return safetensors.numpy.load_file(folder / COMPACT_FILE)
    target = nest({k: np.broadcast_to(np.zeros((), t.dtype), t.shape) for k, t in tensors.items()})
    with _checkpointer() as checkpointer:
        return leaves(checkpointer.restore((folder / ORBAX_FOLDER).absolute(), _string_keys(target)))


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp  # imported here because it takes seconds that reading a manifest need not spend

    # A bundle is one process's business: without this Orbax would wait for the others, which are not here.
    here = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"bundle_{here}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=alone)


def _string_keys(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Orbax keeps list indices as strings, so they are written as strings to begin with."""
    return {str(k): _string_keys(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


@contextlib.contextmanager
def replacing(folder: pathlib.Path, *, overwrite: bool) -> Iterator[pathlib.Path]:
    """A temporary folder next to `folder` that takes its place when the block ends well, and vanishes otherwise.

    An existing folder is only ever replaced with `overwrite`, and only if it is empty, a bundle, or holds nothing but
    bundles. Raises `BundleError`, also where nothing can be written.
    """
    if folder.exists() and not overwrite:
        raise BundleError(f"{folder}: exists already: give another output, or overwrite it (--overwrite)")
    if folder.exists() and not _replaceable(folder):
        raise BundleError(
            f"{folder}: exists and holds more than bundles, so it is not overwritten: give another output"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        yield aside
        aside.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
        old = aside.with_suffix(".replaced")
        if folder.exists():
            folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise BundleError(f"{folder}: writing failed: {error.strerror or error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replaceable(folder: pathlib.Path) -> bool:
    return folder.is_dir() and (_is_bundle(folder) or all(_is_bundle(inside) for inside in folder.iterdir()))


def _is_bundle(folder: pathlib.Path) -> bool:
    """A bundle of any schema, and nothing besides: other things have files called manifest.json too."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    return ours and {entry.name for entry in folder.iterdir()} <= {MANIFEST, ORBAX_FOLDER, COMPACT_FILE}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
