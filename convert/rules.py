"""Conversion as data: which source key fills which target leaf, through which transform.

A network's table is a sequence of `Rule` and `Ignore`. `apply` places every source tensor and reports all
problems together: keys that no rule takes, keys that two rules take, targets left unfilled, shapes that differ.
`invert` walks the same table backwards for export.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convert.tensors import IDENTITY, KERNEL, Transform
from ctjax.types import UserError
from ctjax.weights import leaves, nest


@dataclass(frozen=True)
class Rule:
    """`pattern` must match a whole source key (regular expression); `target` is the dotted path of the leaf it fills
    (groups as `\\1`). `ranks`: the array ranks the rule is for, None for any."""

    pattern: str
    target: str
    transform: Transform = IDENTITY
    ranks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Ignore:
    """Source keys that are deliberately not converted, and why. It wins over any rule that would match too."""

    pattern: str
    reason: str


# Attributes of our modules are named after the checkpoint's keys, so suffixes are all that differs.
STANDARD: tuple[Rule | Ignore, ...] = (
    Rule(r"(.+)\.weight", r"\1.kernel", KERNEL, ranks=(2, 3, 4, 5)),
    Rule(r"(.+)\.weight", r"\1.scale", ranks=(1,)),
    Rule(r"(.+)\.bias", r"\1.bias"),
    Rule(r"(.+)\.running_mean", r"\1.mean"),
    Rule(r"(.+)\.running_var", r"\1.var"),
    Ignore(r"(.+)\.num_batches_tracked", "batch counter, unused in evaluation"),
)


class ConversionError(UserError):
    """A checkpoint does not fit the network; the message lists every key that is wrong."""


@dataclass
class Report:
    """What became of each source key."""

    placed: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def _candidates(table: Sequence[Rule | Ignore], key: str, rank: int) -> list[tuple[Rule | Ignore, re.Match[str]]]:
    found: list[tuple[Rule | Ignore, re.Match[str]]] = []
    for entry in table:
        match = re.fullmatch(entry.pattern, key)
        if match and isinstance(entry, Ignore):
            return [(entry, match)]
        if match and (entry.ranks is None or rank in entry.ranks):
            found.append((entry, match))
    return found


def keys_for(table: Sequence[Rule | Ignore], path: str) -> list[str]:
    """The source keys that would fill `path`, by every rule whose pattern is plain but for one group at most."""
    keys = []
    for entry in table:
        groups = re.findall(r"\(.*?\)", entry.pattern)
        if isinstance(entry, Ignore) or len(groups) > 1:
            continue
        group = groups[0] if groups else ""
        match = re.fullmatch(re.escape(entry.target).replace(re.escape("\\1"), group), path)
        if match:
            keys.append((entry.pattern.replace(group, match[1]) if group else entry.pattern).replace("\\.", "."))
    return keys


def apply(
    table: Sequence[Rule | Ignore], source: Mapping[str, np.ndarray], target: Mapping[Any, Any], *, name: str
) -> tuple[dict[Any, Any], Report]:
    """Fills the tree `target` (leaves with `.shape` and `.dtype`) from `source` by `table`.

    Returns the filled tree (numpy, target dtypes) and the report. Raises `ConversionError` naming `name` and all
    keys that are unknown, ambiguous, missing or mis-shaped.
    """
    wanted = leaves(target)
    filled: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    report = Report()
    problems: list[str] = []
    for key, array in source.items():
        found = _candidates(table, key, np.ndim(array))
        if not found:
            problems.append(f"unexpected key: {key} {tuple(np.shape(array))}")
            continue
        if len(found) > 1:
            problems.append(f"ambiguous key: {key} is taken by {' and '.join(e.pattern for e, _ in found)}")
            continue
        entry, match = found[0]
        if isinstance(entry, Ignore):
            report.ignored[key] = entry.reason
            continue
        path = match.expand(entry.target)
        if path not in wanted:
            problems.append(f"unexpected key: {key} {tuple(np.shape(array))} (the network has no {path})")
            continue
        if path in filled:
            problems.append(f"ambiguous target: {path} is filled by {origin[path]} and {key}")
            continue
        value = entry.transform.forward(np.asarray(array))
        origin[path] = key
        filled[path] = value
        if value.shape != tuple(wanted[path].shape):
            problems.append(
                f"wrong shape: {key} gives {path} {value.shape}, the network wants {tuple(wanted[path].shape)}"
            )
            continue
        filled[path] = np.ascontiguousarray(value, dtype=wanted[path].dtype).reshape(value.shape)
        report.placed[key] = path
    for path in wanted:
        if path not in origin:
            keys = keys_for(table, path)
            problems.append(f"missing key: {' or '.join(keys)} (fills {path})" if keys else f"nothing fills {path}")
    if problems:
        shown = problems[:40] + ([f"... and {len(problems) - 40} more"] if len(problems) > 40 else [])
        raise ConversionError(f"{name}: the checkpoint does not fit the network:\n  " + "\n  ".join(shown))
    return nest(filled), report


def invert(
    table: Sequence[Rule | Ignore], params: Mapping[Any, Any], keys: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The state dict with the given `keys` (name -> shape) that `apply` would turn into `params`.

    Keys that the table ignores are left out; the caller supplies them if its format wants them.
    """
    flat = leaves(params)
    state: dict[str, np.ndarray] = {}
    for key, shape in keys.items():
        for entry, match in _candidates(table, key, len(shape)):
            if isinstance(entry, Rule):
                value = entry.transform.backward(np.asarray(flat[match.expand(entry.target)]))
                state[key] = np.ascontiguousarray(value).reshape(shape)
    return state
