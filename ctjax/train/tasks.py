"""Which tasks there are, and a task from its configuration as plain values."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from ctjax import config as configs
from ctjax.train.loop import Task
from ctjax.types import UserError

# The module of a task has the dataclass `Config` and `build(config) -> Task`.
MODULES = {
    "sync_expert": "ctjax.train.sync_expert_step",
    "audio2exp": "ctjax.train.audio2exp_step",
    "renderer": "ctjax.train.renderer_step",
    "phonemes": "ctjax.train.phoneme_step",
}


class Recipe(NamedTuple):
    """A task's validated configuration (a frozen dataclass with a field `loop`) and how to build the task."""

    config: Any
    module: Any

    def build(self) -> Task:
        return self.module.build(self.config)


def read(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `values`, nested mappings with a key `task`, describe. Raises `UserError` with every mistake."""
    name = values.get("task")
    if name not in MODULES:
        raise UserError(f"the config's task is {name!r}; it must be one of {', '.join(MODULES)}")
    module = importlib.import_module(MODULES[name])
    try:
        return Recipe(configs.from_mapping(module.Config, values), module)
    except ValueError as error:
        raise UserError(f"the config does not fit: {error}") from error
