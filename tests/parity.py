"""Harness for the recorded reference runs in `tests/goldens/` (see `tests/goldens/README.md`).

A record holds inputs, outputs and the rule that makes its weights. Everything recorded is in PyTorch's layout;
tests turn their own results into that layout before `Record.check`.
"""

from __future__ import annotations

import functools
import json
import pathlib
import re

import jax
import numpy as np
import rule_weights

GOLDENS = pathlib.Path(__file__).parent / "goldens"
NOISE_FACTOR = 10.0  # times the reference's own float32-against-float64 difference on the same values
SCALE_TOLERANCE = 1e-5  # times the largest absolute value of the reference tensor

# Without LLVM's regrouping of sums, which follows the processor's vector width: sampling bends at every cell, so that a
# gradient makes much of the last digit. It compiles in half the time too, for what runs once.
AS_WRITTEN = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Record:
    """One recorded case: `inputs` and `outputs` by name, `config`, and state dicts by part."""

    def __init__(self, name: str):
        self.name = name
        self.manifest = json.loads((GOLDENS / f"{name}.manifest.json").read_text())
        self.config = self.manifest.get("config", {})
        with np.load(GOLDENS / f"{name}.npz") as data:
            self.inputs = {k.removeprefix("in/"): data[k] for k in data.files if k.startswith("in/")}
            self.outputs = {k.removeprefix("out/"): data[k] for k in data.files if k.startswith("out/")}

    @functools.cached_property
    def weights(self) -> dict[str, dict[str, np.ndarray]]:
        """{part: state dict} built by the rule and confirmed by the manifest's probes."""
        parts = rule_weights.build(self.manifest)
        rule_weights.check(self.manifest, parts)
        return parts

    def image(self, name: str) -> np.ndarray:
        """A recorded NCHW uint8 input as NHWC float32 in [0, 1]."""
        return np.moveaxis(self.inputs[name], 1, -1).astype(np.float32) / np.float32(255)

    def tolerance(self, name: str) -> float:
        """The allowed absolute difference: 10 x the reference's rounding noise + 1e-5 x its scale."""
        entry = self.manifest["outputs"][name]
        scale = entry.get("max_abs", float(np.abs(self.outputs[name]).max(initial=0.0)))
        return NOISE_FACTOR * self.noise(name) + SCALE_TOLERANCE * scale

    def noise(self, name: str) -> float:
        return float(self.manifest["outputs"][name].get("f32_vs_f64_max_abs") or 0.0)

    def stored_part(self, name: str, full: np.ndarray) -> np.ndarray:
        """The slice of a full result (PyTorch layout) that the record keeps."""
        entry = self.manifest["outputs"][name]
        full = np.asarray(full)
        if "full_shape" in entry:
            assert list(full.shape) == entry["full_shape"], f"{name}: {full.shape} is not {entry['full_shape']}"
        spec = entry.get("slice")
        if not spec:
            return full
        if spec.startswith("flat:"):
            count = min(int(spec[5:]), full.size)
            return full.reshape(-1)[np.linspace(0, full.size - 1, count).astype(np.int64)]
        return full[_parse_slice(spec)]

    def check(self, name: str, full: np.ndarray, tolerance: float | None = None) -> float:
        """Asserts that `full` (PyTorch layout, whole tensor) agrees with the record; returns the largest difference."""
        got = self.stored_part(name, full)
        want = self.outputs[name]
        assert got.shape == want.shape, f"{self.name}/{name}: shape {got.shape}, recorded {want.shape}"
        assert np.isfinite(got).all(), f"{self.name}/{name}: not finite"
        worst = float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max(initial=0.0))
        bound = self.tolerance(name) if tolerance is None else tolerance
        assert worst <= bound, f"{self.name}/{name}: off by {worst:.3g}, allowed {bound:.3g}"
        return worst


def _parse_slice(spec: str) -> tuple[slice | int, ...]:
    parts: list[slice | int] = []
    for item in spec.strip("[]").split(","):
        item = item.strip()
        if re.fullmatch(r"-?\d+", item):
            parts.append(int(item))
        else:
            parts.append(slice(*(int(p) if p else None for p in item.split(":"))))
    return tuple(parts)


@functools.lru_cache(maxsize=4)
def record(name: str) -> Record:
    return Record(name)


def channels_first(array) -> np.ndarray:
    """(B, *spatial, C) -> (B, C, *spatial)."""
    return np.moveaxis(np.asarray(array), -1, 1)
