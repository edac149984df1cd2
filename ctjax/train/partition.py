"""Parameter trees cut into parts and put together again: what learns, what merely moves along, what is frozen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ctjax.types import UserError

Tree = dict[Any, Any]
Path = tuple[Any, ...]


def leaves(tree: Tree, prefix: Path = ()) -> Iterable[tuple[Path, Any]]:
    """(path, leaf) of a nested dict, in its order."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def select(tree: Tree, wanted: Callable[[Path], bool], prefix: Path = ()) -> Tree:
    """The part of a nested dict whose leaves' paths are wanted; dicts left empty are dropped."""
    chosen: Tree = {}
    for key, value in tree.items():
        path = (*prefix, key)
        if isinstance(value, dict):
            if part := select(value, wanted, path):
                chosen[key] = part
        elif wanted(path):
            chosen[key] = value
    return chosen


def merge(*trees: Tree) -> Tree:
    """The union of nested dicts that share no leaf."""
    merged: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            if isinstance(value, dict):
                merged[key] = merge(merged.get(key, {}), value)
            elif key in merged:
                raise ValueError(f"{key} is in two of the trees")
            else:
                merged[key] = value
    return merged


def under(prefixes: Sequence[str], paths: Iterable[Path]) -> Callable[[Path], bool]:
    """Whether a path lies under one of the dotted `prefixes`. Raises UserError for a prefix that no path has."""
    names = [tuple(int(p) if p.isdigit() else p for p in prefix.split(".")) for prefix in prefixes]
    known = list(paths)
    for prefix, name in zip(prefixes, names, strict=True):
        if not any(path[: len(name)] == name for path in known):
            raise UserError(f"no part of the network is called {prefix}: it has {', '.join(_nearby(name, known))}")
    return lambda path: any(path[: len(name)] == name for name in names)


def _nearby(name: Path, paths: Sequence[Path]) -> list[str]:
    """The parts that exist at the place where `name` leaves the tree."""
    depth = 0
    while any(path[: depth + 1] == name[: depth + 1] for path in paths) and depth < len(name):
        depth += 1
    inside = (path for path in paths if path[:depth] == name[:depth])
    return list(dict.fromkeys(".".join(map(str, path[: depth + 1])) for path in inside))
