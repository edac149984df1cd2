"""`python -m convert pack`: a talking head in one file a network and reduced precision, to travel."""

from __future__ import annotations

import pathlib

from ctjax.types import UserError
from ctjax.weights import MANIFEST, Bundle, open_bundle, replacing, save_bundle

PRECISIONS = ("bfloat16", "float16", "float32")


def pack(folder: pathlib.Path, output: pathlib.Path, *, precision: str = "bfloat16", overwrite: bool = False) -> str:
    """Writes the bundles in `folder` to `output`, each as one safetensors file, and says how large they are.

    Their numbers are rounded to `precision`; opening gives their true dtypes back. Where a bundle names another one
    of them that it belongs to (`provenance`: the speech network that an expert hears), the packed one is named instead,
    so that records made with the packed networks go with it. Raises `UserError`.
    """
    names = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if not names:
        raise UserError(f"{folder}: holds no bundles: give a talking head's folder, as train.py exports it")
    bundles = {name: open_bundle(folder / name) for name in names}
    packed: dict[str, str] = {}  # fingerprints by those that they replace
    known = {fingerprint for bundle in bundles.values() for fingerprint in _fingerprints(bundle)}
    with replacing(output, overwrite=overwrite) as aside:
        for name in sorted(names, key=lambda name: len(known & _named(bundles[name]))):  # those that name none first
            bundle = bundles[name]
            provenance = {
                key: packed.get(value, value) if isinstance(value, str) else value
                for key, value in bundle.manifest["provenance"].items()
            }
            manifest = save_bundle(
                aside / name,
                network=bundle.network,
                config=bundle.config,
                params=bundle.params,
                provenance={**provenance, "packed_from": bundle.manifest["parameters"]["sha256"]},
                compact=precision,
            )
            packed |= dict.fromkeys(_fingerprints(bundle), manifest["parameters"]["sha256"])
        sizes = {name: _bytes(aside / name) for name in names}
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    return f"{output}: {parts}; {sum(sizes.values()) / 1e6:.1f} MB in all"


def _fingerprints(bundle: Bundle) -> set[str]:
    """What others call the bundle: its own SHA-256, and that of what it was packed from."""
    manifest = bundle.manifest
    return {manifest["parameters"]["sha256"]} | {manifest["provenance"].get("packed_from")} - {None}


def _named(bundle: Bundle) -> set[str]:
    """What the bundle's provenance says of others, as far as it is text."""
    provenance = bundle.manifest["provenance"]
    return {value for key, value in provenance.items() if key != "packed_from" and isinstance(value, str)}


def _bytes(folder: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
