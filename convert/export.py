"""`python -m convert export`: a bundle back to the file that the reference's PyTorch code loads."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from convert import write_torch
from convert.rules import apply, invert, keys_for
from ctjax.config import from_mapping, to_mapping
from ctjax.motion.audio2exp import Audio2ExpConfig
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.renderer import RendererConfig
from ctjax.types import UserError
from ctjax.weights import Bundle, leaves, open_bundle

MIDDLE_BLOCKS = (2, 6)  # G_mid_full off and on (ControlTalk modules/generator.py:120, 204)


class NotInReference(UserError):
    """A network that the reference's code does not have: with parts of ours, or with widths that are literals there."""


def export(bundle: pathlib.Path, output: pathlib.Path, *, overwrite: bool = False) -> str:
    """Writes `bundle` to the file `output` and says what was written. Raises `UserError` (`NotInReference` where there
    is no such file)."""
    opened = open_bundle(bundle)
    if opened.network == "facevid2vid":
        check_known(from_mapping(RendererConfig, opened.config), bundle)
    tree = reference_tree(opened, bundle)
    if output.is_dir():
        raise UserError(f"{output}: is a folder, the export is a file")
    if output.exists() and not overwrite:
        raise UserError(f"{output}: exists already: give another output, or overwrite it (--overwrite)")
    with _whole(output) as aside:
        write_torch.save(tree, aside)
    count = sum(1 for value in leaves(tree).values() if isinstance(value, np.ndarray))
    said = f"{output}: {opened.network}, {count} tensors, for torch.load(..., weights_only=True)"
    if opened.network == "audio2exp" and (others := _other_widths(from_mapping(Audio2ExpConfig, opened.config))):
        said += f"; ControlTalk's model.py builds it with its own numbers changed to {others}"
    return said


def reference_tree(opened: Bundle, name: pathlib.Path) -> dict[str, Any]:
    """What the reference saves: {part: state dict} of a renderer, {"state_dict": ...} of a lipControlNet."""
    if opened.network == "facevid2vid":
        from convert.sadtalker import TABLES

        return {part: _state_dict(TABLES[part], params) for part, params in opened.params.items()}
    if opened.network == "audio2exp":
        from convert.audio2exp import TABLE

        return {"state_dict": _state_dict(TABLE, opened.params)}
    raise UserError(
        f"{name}: a bundle of {opened.network}; only audio2exp and facevid2vid, which are trained here, are exported"
    )


def _other_widths(config: Audio2ExpConfig) -> str:
    """What differs from the numbers that are literals in the reference's code (ControlTalk model.py:31-48, 75-90)."""
    ours, theirs = to_mapping(config), to_mapping(Audio2ExpConfig())
    return ", ".join(f"{name} {value}" for name, value in ours.items() if value != theirs[name])


def check_known(renderer: RendererConfig, name: pathlib.Path) -> None:
    """Raises `NotInReference` for a renderer that the reference's code could not build, whatever its yaml says."""
    literals: list[tuple[str, Any, Any, tuple[str, ...]]] = [
        ("generator", renderer.generator, GeneratorConfig(), ("copy_source", "painter")),
        ("generator.dense_motion", renderer.generator.dense_motion, DenseMotionConfig(), ("mask_kernel",)),
        ("generator.spade", renderer.generator.spade, SpadeDecoderConfig(), ("ic", "oc", "label_nc", "hidden")),
        ("he_estimator", renderer.he_estimator, HeadEstimatorConfig(), ("widths", "bottlenecks", "scale_factor")),
    ]
    others = [
        f"{part}.{field}"
        for part, ours, theirs, fields in literals
        for field in fields
        if ours is not None and getattr(ours, field) != getattr(theirs, field)
    ]
    spade = renderer.generator.spade
    if spade is not None and spade.middle_blocks not in MIDDLE_BLOCKS:
        others.append("generator.spade.middle_blocks")
    if others:
        raise NotInReference(
            f"{name}: the reference's code cannot load this renderer: {', '.join(others)} differ from what is fixed "
            "there"
        )


def _state_dict(table: Any, params: Mapping[Any, Any]) -> dict[str, np.ndarray]:
    """The state dict that fills `params`; batch norms get the counter that PyTorch keeps."""
    flat = leaves(params)
    shapes = {_key(table, path, flat): _shape(path, array) for path, array in flat.items()}
    state = {k: np.asarray(v, np.float32) for k, v in invert(table, params, shapes).items()}
    again, _ = apply(table, state, params, name="export")
    for path, array in leaves(again).items():
        if not np.array_equal(array, flat[path]):
            raise UserError(f"{path} does not survive the way to PyTorch and back: this is a bug, please report it")
    counters = {k.replace("running_var", "num_batches_tracked"): np.zeros((), np.int64) for k in state}
    return {**state, **{k: v for k, v in counters.items() if k.endswith("num_batches_tracked")}}


def _key(table: Any, path: str, flat: Mapping[str, Any]) -> str:
    """The state dict's key for a parameter; of `weight` and `weight_orig`, the second where there is spectral norm."""
    *_, key = [k for k in keys_for(table, path) if not k.endswith("_orig") or f"{path.rpartition('.')[0]}.u" in flat]
    return key


def _shape(path: str, array: Any) -> tuple[int, ...]:
    shape = tuple(array.shape)
    return (shape[-1], shape[-2], *shape[:-2]) if path.endswith(".kernel") else shape


@contextlib.contextmanager
def _whole(output: pathlib.Path) -> Any:
    """A temporary file next to `output` that takes its name when the block ends well."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{output.name}.", suffix=".partial", dir=output.parent)
        os.close(handle)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror or error}") from error
    aside = pathlib.Path(name)
    try:
        yield aside
        mask = os.umask(0)
        os.umask(mask)
        aside.chmod(0o666 & ~mask)
        aside.rename(output)
    except OSError as error:
        raise UserError(f"{output}: writing failed: {error.strerror or error}") from error
    finally:
        aside.unlink(missing_ok=True)
