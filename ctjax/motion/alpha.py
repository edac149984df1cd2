"""Alpha, the strength of Audio2Exp's change, and its ramp over training steps.

At inference 0 keeps the mouth closed, about 0.5 is natural, more exaggerates; the release's default is 0.7. In
training alpha rises from 0 to 1 (paper, section 3); nobody has published by which curve, so it is a choice here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from ctjax.types import UserError

DEFAULT_ALPHA = 0.7  # ControlTalk inference.py's default
SILENCE_ALPHA = 1.0  # ControlTalk inference.py:345
RAMPS = ("linear", "cosine", "staged")


@dataclass(frozen=True)
class Ramp:
    """Alpha from `start` to `end` between the steps `begin` and `begin + steps`, constant outside.

    kind: "linear"; "cosine" (flat at both ends); "staged" (`stages` equal jumps, the first after
    steps / (stages + 1), so that every value, start and end included, is held for equally long on the way).
    """

    kind: str = "linear"
    steps: int = 10_000
    begin: int = 0
    start: float = 0.0
    end: float = 1.0
    stages: int = 4

    def __post_init__(self) -> None:
        if self.kind not in RAMPS:
            raise UserError(f"alpha ramp {self.kind!r} is not known: one of {', '.join(RAMPS)}")
        if self.steps < 0 or self.begin < 0 or self.stages < 1:
            raise UserError(f"alpha ramp needs steps >= 0, begin >= 0 and stages >= 1: {self}")
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            raise UserError(f"alpha ramp goes from {self.start} to {self.end}; both must be numbers")

    def __call__(self, step: int | jax.Array) -> jax.Array:
        """Alpha at a training step (an int or a traced integer): float32 scalar."""
        done = jnp.clip((jnp.asarray(step, jnp.float32) - self.begin) / max(self.steps, 1), 0.0, 1.0)
        if self.steps == 0:
            done = jnp.where(jnp.asarray(step) >= self.begin, 1.0, 0.0)
        if self.kind == "cosine":
            done = (1 - jnp.cos(jnp.pi * done)) / 2
        elif self.kind == "staged":
            done = jnp.minimum(jnp.floor(done * (self.stages + 1)), self.stages) / self.stages
        return self.start + (self.end - self.start) * done
