"""The optimizer chain from its configuration: clipping, Adam or AdamW, warm-up and decay of the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import optax


@dataclass(frozen=True)
class OptimizerConfig:
    """lr: peak learning rate. warmup: steps from 0 to `lr`. decay: what follows, over `decay_steps` down to
    `final_fraction` of `lr` (cosine, linear) or by `milestone_factor` at each of `milestones`.
    clip: global gradient norm, 0 for none. micro_batches: gradient accumulation, parts of one batch;
    each part should still divide by the devices.
    ema: decay of the averaged parameters, 0 for none."""

    lr: float = 1e-5
    warmup: int = 0
    decay: Literal["constant", "cosine", "linear", "milestones"] = "constant"
    decay_steps: int = 0
    final_fraction: float = 0.0
    milestones: tuple[int, ...] = ()
    milestone_factor: float = 0.1
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    clip: float = 1.0
    micro_batches: int = 1
    ema: float = 0.0

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")
        if self.micro_batches < 1:
            raise ValueError(f"micro_batches must be at least 1, not {self.micro_batches}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and below 1, not {self.ema}")
        if self.decay in ("cosine", "linear") and self.decay_steps < 1:
            raise ValueError(f"decay={self.decay!r} needs decay_steps")
        if self.decay == "milestones" and not self.milestones:
            raise ValueError("decay='milestones' needs milestones")

    def check_parts(self, batch: int) -> None:
        """Raises ValueError where `micro_batches` does not divide the batch."""
        if batch % self.micro_batches:
            raise ValueError(f"micro_batches={self.micro_batches} does not divide the batch of {batch}")


def schedule(config: OptimizerConfig) -> optax.Schedule:
    """Learning rate by step."""
    final = config.lr * config.final_fraction
    if config.decay == "cosine":
        after = optax.cosine_decay_schedule(config.lr, config.decay_steps, config.final_fraction)
    elif config.decay == "linear":
        after = optax.linear_schedule(config.lr, final, config.decay_steps)
    elif config.decay == "milestones":
        # milestones count from the start of the run, what follows the warm-up from its end
        drops = {max(step - config.warmup, 0): config.milestone_factor for step in config.milestones}
        after = optax.piecewise_constant_schedule(config.lr, drops)
    else:
        after = optax.constant_schedule(config.lr)
    if config.warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.lr, config.warmup), after], [config.warmup])


def build(config: OptimizerConfig) -> optax.GradientTransformation:
    """The chain: clip, Adam (AdamW with weight decay), learning rate."""
    parts = [optax.clip_by_global_norm(config.clip)] if config.clip > 0 else []
    parts.append(optax.scale_by_adam(config.b1, config.b2, config.eps))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay))
    parts.append(optax.scale_by_learning_rate(schedule(config)))
    return optax.chain(*parts)
