"""What a run writes down: JSON lines always, TensorBoard scalars where tensorboardX is installed, pictures as PNG.

A task's step returns {name: scalar} or {name: Mean}; the loop collects them and one line a window is written.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from ctjax import parallel

Array = Any


class Mean(NamedTuple):
    """A mean in two parts, so that steps of unequal weight add up (a group may be absent from a batch).

    total: sum of the values; count: how many there were. Both scalar float32.
    """

    total: Array
    count: Array


def mean_where(values: Array, chosen: Array) -> Mean:
    """The mean of `values` "b" over the examples where `chosen` "b" (bool) is true."""
    weight = chosen.astype(jnp.float32)
    return Mean(jnp.sum(jnp.where(chosen, values.astype(jnp.float32), 0.0)), jnp.sum(weight))


def all_finite(metrics: Mapping[str, Any]) -> Array:
    """True if no metric is NaN or infinite (inside jit)."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(dict(metrics))]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.asarray(True)


def average(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The metrics of several steps as one float each; a `Mean` without any example is left out."""
    result: dict[str, float] = {}
    for name in steps[0] if steps else ():
        values = [step[name] for step in steps]
        if isinstance(values[0], Mean):
            total, count = (float(sum(np.float64(v[i]) for v in values)) for i in (0, 1))
            if count > 0:
                result[name] = total / count
        else:
            result[name] = float(np.mean([np.float64(v) for v in values]))
    return result


class MetricLog:
    """Writes metrics.jsonl, tensorboard and pictures in `folder`; does nothing but on the main process."""

    def __init__(self, folder: pathlib.Path, *, resumed_step: int = 0):
        self._folder = folder
        self._active = parallel.is_main_process()
        self._board = None
        if not self._active:
            return
        path = folder / "metrics.jsonl"
        _drop_lines_after(path, resumed_step)
        self._file = path.open("a", encoding="utf-8")
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            print("scalars go to metrics.jsonl alone; TensorBoard needs: pip install 'ctjax[tensorboard]'", flush=True)
            return
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1 if resumed_step else None)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._active:
            self._file.close()
        if self._board:
            self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of JSON and the same numbers as scalars."""
        if not self._active:
            return
        # JSON knows no NaN; null says "there was a value and it was not a number"
        clean = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **clean}) + "\n")
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """{name: RGB uint8 "h w 3"} as pictures/NAME/STEP.png."""
        if not self._active:
            return
        for name, image in images.items():
            path = self.picture_path(step, name, ".png")
            cv2.imwrite(str(path), cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))

    def picture_path(self, step: int, name: str, suffix: str) -> pathlib.Path:
        """Where the picture or clip `name` of `step` goes; its folder exists."""
        path = self._folder / "pictures" / name / f"{step:08d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a kill is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _drop_lines_after(path: pathlib.Path, step: int) -> None:
    """Takes out what an interrupted run logged after the checkpoint it goes on from."""
    if not path.exists():
        return
    kept = [line for line in read(path) if line["step"] <= step]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)
