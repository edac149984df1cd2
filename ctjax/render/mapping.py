"""SadTalker's MappingNet: head pose and expression from a window of 3DMM coefficients instead of from an image."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from ctjax.nn.conv import BlockwiseLinear, conv
from ctjax.render.head_estimator import HeadEstimate

SLOPE = 0.1  # of the leaky ReLU before each dilated convolution
FIRST_KERNEL = 7
DILATION = 3  # three taps, three steps apart: each layer eats three steps at either end


@dataclass(frozen=True)
class MappingConfig:
    """Names as in SadTalker's yaml. `coeff_nc`: 70, or 73 for the `full` preprocessing's checkpoint."""

    coeff_nc: int = 70
    descriptor_nc: int = 1024
    layer: int = 3
    num_kp: int = 15
    num_bins: int = 66


class MappingNet(nnx.Module):
    """Convolutions over time with residuals cut to fit, mean over time, five heads (SadTalker modules/mapping.py)."""

    def __init__(self, config: MappingConfig, *, rngs: nnx.Rngs):
        self.config = config
        width = config.descriptor_nc
        self.first = conv(config.coeff_nc, width, (FIRST_KERNEL,), rngs=rngs)
        for i in range(config.layer):
            setattr(self, f"encoder{i}", conv(width, width, (3,), dilation=DILATION, rngs=rngs))
        self.fc_roll = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_pitch = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_yaw = BlockwiseLinear(width, config.num_bins, rngs=rngs)
        self.fc_t = BlockwiseLinear(width, 3, rngs=rngs)
        self.fc_exp = BlockwiseLinear(width, 3 * config.num_kp, rngs=rngs)

    def __call__(self, coefficients: jax.Array) -> HeadEstimate:
        """coefficients: "b t coeff_nc", t = 27 in SadTalker (13 frames on either side)."""
        shortest = FIRST_KERNEL + 2 * DILATION * self.config.layer
        if coefficients.shape[1] < shortest:
            raise ValueError(f"a window of {coefficients.shape[1]} steps is too short, need at least {shortest}")
        x = self.first(coefficients.astype(self.first.kernel[...].dtype))
        for i in range(self.config.layer):
            x = getattr(self, f"encoder{i}")(jax.nn.leaky_relu(x, SLOPE)) + x[:, DILATION:-DILATION]
        x = jnp.mean(x, axis=1, dtype=jnp.promote_types(x.dtype, jnp.float32))
        return HeadEstimate(
            yaw_bins=self.fc_yaw(x),  # not swapped here, unlike the head estimator's
            pitch_bins=self.fc_pitch(x),
            roll_bins=self.fc_roll(x),
            translation=self.fc_t(x),
            expression=self.fc_exp(x).reshape(-1, self.config.num_kp, 3),
        )
