"""A whole `checkpoints/` folder, as ControlTalk lays it out, to the talking-head folder that `infer.py` takes.

Files are recognised by what they hold, not by their names: one renderer, one HuBERT, one lipControlNet.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from convert import sources
from convert.catalogue import entry_named, identify
from convert.read_torch import CheckpointError
from convert.sources import HF_CONFIG, HF_WEIGHTS
from ctjax.types import UserError

SUFFIXES = (".pt", ".pth", ".tar", ".bin", ".safetensors")
DEPTH = 3  # checkpoints/TencentGameMate/chinese-hubert-large/pytorch_model.bin
ROLES = {"renderer": "facevid2vid", "hubert": "hubert", "audio2exp": "audio2exp"}  # bundle's folder -> command


@dataclass
class Found:
    """The file or folder for every role, and what was passed over with the reason."""

    chosen: dict[str, pathlib.Path] = field(default_factory=dict)
    left: dict[pathlib.Path, str] = field(default_factory=dict)


def scan(folder: pathlib.Path, given: Mapping[str, pathlib.Path | None]) -> Found:
    """Finds the three sources below `folder`; `given` settles a role beforehand. Raises `UserError` where one is
    missing or two files claim it."""
    if not folder.is_dir():
        raise UserError(f"{folder}: {'is not a folder' if folder.exists() else 'no such folder'}")
    found = Found({role: path for role, path in given.items() if path})
    claims: dict[str, list[pathlib.Path]] = {role: [] for role in ROLES}
    for path in _candidates(folder):
        try:
            role, reason = _role(path)
        except CheckpointError as error:
            role, reason = None, str(error)
        if role is None:
            found.left[path] = reason
        elif role not in found.chosen:
            claims[role].append(path)
    problems = []
    for role, paths in claims.items():
        if role in found.chosen:
            continue
        paths, title = _preferred(paths, found), entry_named(ROLES[role]).title
        if len(paths) == 1:
            found.chosen[role] = paths[0]
        elif paths:
            names = ", ".join(str(p) for p in paths)
            problems.append(f"several files for {role} ({title}): {names}; choose with --{role}")
        else:
            problems.append(f"no {role} ({title}) found; name it with --{role}")
    if problems:
        seen = [f"{path}: {reason}" for path, reason in found.left.items()] or ["no checkpoint files at all"]
        raise UserError("\n  ".join([f"{folder}: not complete", *problems, "seen besides:", *seen]))
    return found


def fit_together(configs: Mapping[str, Any]) -> None:
    """Raises `UserError` where the three networks are not of one system."""
    drawn, moved = configs["renderer"].kp_detector.num_kp, configs["audio2exp"].num_kp
    if drawn != moved:
        raise UserError(f"the renderer has {drawn} keypoints, lipControlNet moves {moved}: they do not belong together")


def _candidates(folder: pathlib.Path) -> list[pathlib.Path]:
    """Hugging Face folders as a whole, and every other checkpoint file, not deeper than `DEPTH`."""
    found: list[pathlib.Path] = []
    whole: set[pathlib.Path] = set()
    for path in sorted(folder.rglob("*")):
        if len(path.relative_to(folder).parts) > DEPTH or not path.is_file():
            continue
        if path.name in HF_WEIGHTS and (path.parent / HF_CONFIG).is_file():
            if path.parent not in whole:
                found.append(path.parent)
            whole.add(path.parent)
        elif path.suffix in SUFFIXES:
            found.append(path)
    return found


def _role(path: pathlib.Path) -> tuple[str | None, str]:
    keys = sources.open_source(path).tensor_keys()
    entries = identify(keys)
    role = next((r for r in ROLES if entry_named(ROLES[r]) in entries), None)
    if role == "audio2exp" and not any("out_fc." in key for key in keys):
        return None, "an audio encoder alone; lipControlNet.pt holds it too"
    if role is None:
        names = ", ".join(e.title for e in entries)
        return None, f"{names}, which a talking head does not need" if names else "no network that is known here"
    return role, ""


def _preferred(paths: list[pathlib.Path], found: Found) -> list[pathlib.Path]:
    """Of a HuBERT that lies there in both forms, the Hugging Face folder: it brings its config."""
    folders = [p for p in paths if p.is_dir()]
    if not folders:
        return paths
    for path in paths:
        if path not in folders:
            found.left[path] = f"the same network is taken from {folders[0]}"
    return folders
