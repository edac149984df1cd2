"""The direction of imports, read from the source: who may import whom (docs/architecture.md)."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
HOST_ONLY = {"media", "faces"}  # these packages run without jax

# package or top-level module of ctjax -> what else of ctjax it may import
ALLOWED: dict[str, set[str]] = {
    "types": set(),
    "progress": set(),
    "whole_files": {"types"},
    "cli": {"types"},
    "config": {"types"},
    "parallel": {"types"},
    "nn": set(),
    "weights": {"types", "nn"},
    "media": {"types"},
    "faces": {"types"},
    "features": {"types", "nn"},
    "motion": {"types", "nn"},
    "render": {"types", "nn"},
    "losses": {"types", "nn", "motion"},  # the sync expert's audio half is Audio2Exp's encoder
    "animate": {"types", "nn", "motion", "render"},
    # of losses: what a sync expert sees and hears, and the expert that finds clips out of sync
    "data": {
        "types",
        "progress",
        "whole_files",
        "config",
        "media",
        "faces",
        "features",
        "render",
        "losses",
        "weights",
        "parallel",
        "nn",
    },
    "train": {
        "types",
        "progress",
        "config",
        "data",
        "animate",
        "motion",
        "render",
        "features",
        "losses",
        "weights",
        "parallel",
        "nn",
        "media",  # clips with sound, written while training
        "evaluate",  # PSNR and SSIM of held-out clips, as the table computes them
    },
    "infer": {
        "types",
        "progress",
        "config",
        "media",
        "faces",
        "features",
        "animate",
        "motion",
        "render",
        "weights",
        "parallel",
        "nn",
    },
    "evaluate": {
        "types",
        "whole_files",
        "config",
        "media",
        "faces",
        "features",
        "losses",
        "motion",  # with render, for the no-edit row: what the renderer alone makes of the reference clips
        "render",
        "weights",
        "parallel",
        "nn",
    },
}
FORBIDDEN_IN_CTJAX = {"torch", "convert", "configs"}


def _modules():
    for path in sorted((ROOT / "ctjax").rglob("*.py")):
        yield pytest.param(path, id=str(path.relative_to(ROOT)))


def _imports(path: pathlib.Path) -> list[str]:
    """Dotted names of everything a file imports, at any depth (imports inside functions count)."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", list(_modules()))
def test_imports_run_one_way(path):
    relative = path.relative_to(ROOT / "ctjax")
    package = relative.parts[0].removesuffix(".py")
    if package == "__init__":
        return
    assert package in ALLOWED, f"ctjax/{relative} belongs to no known package: add it to ALLOWED on purpose"
    for name in _imports(path):
        top, *rest = name.split(".")
        assert top not in FORBIDDEN_IN_CTJAX, f"ctjax/{relative} imports {name}"
        assert not name.startswith("absl.flags"), f"ctjax/{relative} reads flags; only root scripts do"
        if package in HOST_ONLY:
            assert top not in {"jax", "flax", "optax", "orbax"}, f"ctjax/{relative} is host only but imports {name}"
        if top == "ctjax" and rest and rest[0] != package:
            assert rest[0] in ALLOWED[package] | {"__version__"}, f"ctjax/{relative} may not import ctjax.{rest[0]}"


def test_one_network_does_not_import_another_family():
    for path in (ROOT / "ctjax" / "motion").rglob("*.py"):
        assert not any(name.startswith("ctjax.render") for name in _imports(path)), path
