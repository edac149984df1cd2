"""Configuration as frozen dataclasses, read strictly from plain mappings (JSON, a bundle's manifest, a ConfigDict).

`to_mapping` turns a dataclass into JSON-able values and `from_mapping` reads it back: an unknown key, a missing
value or a wrong type is an error that names the place (`HubertConfig.layers[2].width`) and the nearest known key.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ctjax.types import UserError

T = TypeVar("T")


class ConfigError(UserError):
    """A mapping does not fit the dataclass; the message lists every problem."""


def to_mapping(config: Any) -> dict[str, Any]:
    """The dataclass `config` as a dict of JSON-able values (tuples become lists)."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config) if f.init}


def from_mapping(cls: type[T], mapping: Mapping[str, Any]) -> T:
    """The dataclass `cls` filled from `mapping`, nested dataclasses and tuples included.

    Fields with defaults may be absent. Raises `ConfigError` with all problems at once: keys that `cls` does not have
    (with the nearest one it has), fields without a value, values of another type. An int is accepted for a float.
    """
    problems: list[str] = []
    value = _dataclass(cls, mapping, cls.__name__, problems)
    if problems:
        raise ConfigError("; ".join(problems))
    return value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _dataclass(cls: type, mapping: Any, where: str, problems: list[str]) -> Any:
    if isinstance(mapping, cls):
        return mapping
    if not isinstance(mapping, Mapping):
        problems.append(f"{where}: expected a mapping of {cls.__name__}'s fields, got {mapping!r}")
        return None
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    hints = typing.get_type_hints(cls)
    for key in mapping:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f", did you mean {near[0]}?" if near else f" (it has {', '.join(fields)})"
            problems.append(f"{where}: unknown key {key}{hint}")
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _value(hints[name], mapping[name], f"{where}.{name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}: {name} is missing")
    if problems:
        return None
    try:
        return cls(**values)
    except (ValueError, UserError) as error:  # the dataclass's own __post_init__ checks
        problems.append(f"{where}: {error}")
        return None


def _value(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """`value` as the type `hint` asks for; what does not fit is added to `problems`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _first_fitting(arguments, value, where, problems)
    if origin is typing.Literal:
        if value not in arguments:
            problems.append(f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}")
        return value
    if dataclasses.is_dataclass(hint):
        return _dataclass(typing.cast(type, hint), value, where, problems)
    if origin is tuple or hint is tuple:
        return _tuple(arguments, value, where, problems)
    if origin is dict or hint is dict:
        if isinstance(value, Mapping):
            inner = arguments[1] if arguments else Any
            return {k: _value(inner, v, f"{where}[{k!r}]", problems) for k, v in value.items()}
    elif hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    elif hint is type(None) or hint is None:
        if value is None:
            return None
    elif isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    problems.append(f"{where}: expected {getattr(hint, '__name__', hint)}, got {value!r}")
    return None


def _first_fitting(alternatives: Sequence[Any], value: Any, where: str, problems: list[str]) -> Any:
    trouble: list[str] = []
    for alternative in alternatives:
        attempt: list[str] = []
        result = _value(alternative, value, where, attempt)
        if not attempt:
            return result
        trouble = trouble or attempt
    problems.extend(trouble)
    return None


def _tuple(arguments: Sequence[Any], value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        problems.append(f"{where}: expected a list, got {value!r}")
        return None
    if not arguments:
        return tuple(value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds: Sequence[Any] = [arguments[0]] * len(value)
    else:
        kinds = arguments
    if len(kinds) != len(value):
        problems.append(f"{where}: expected {len(kinds)} values, got {len(value)}")
        return None
    return tuple(
        _value(kind, v, f"{where}[{i}]", problems) for i, (kind, v) in enumerate(zip(kinds, value, strict=True))
    )
