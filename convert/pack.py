"""`python -m convert pack`: a talking head in one file a network and reduced precision, to travel."""

from __future__ import annotations

import pathlib

from ctjax.types import UserError
from ctjax.weights import MANIFEST, open_bundle, replacing, save_bundle

PRECISIONS = ("bfloat16", "float16", "float32")


def pack(folder: pathlib.Path, output: pathlib.Path, *, precision: str = "bfloat16", overwrite: bool = False) -> str:
    """Writes the bundles in `folder` to `output`, each as one safetensors file, and says how large they are.

    Their numbers are rounded to `precision`; opening gives their true dtypes back. What bundles say of the bundles
    they belong to (`provenance`) is kept as it is. Raises `UserError`.
    """
    names = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))
    if not names:
        raise UserError(f"{folder}: holds no bundles: give a talking head's folder, as train.py exports it")
    with replacing(output, overwrite=overwrite) as aside:
        for name in names:
            bundle = open_bundle(folder / name)
            save_bundle(
                aside / name,
                network=bundle.network,
                config=bundle.config,
                params=bundle.params,
                provenance={**bundle.manifest["provenance"], "packed_from": bundle.manifest["parameters"]["sha256"]},
                compact=precision,
            )
        sizes = {name: _bytes(aside / name) for name in names}
    parts = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items())
    return f"{output}: {parts}; {sum(sizes.values()) / 1e6:.1f} MB in all"


def _bytes(folder: pathlib.Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
