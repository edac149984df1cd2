"""torchvision's VGG-19 (`vgg19-*.pth`) to `ctjax.losses.vgg19`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD, Ignore
from ctjax.losses.vgg19 import CONVOLUTIONS_PER_BLOCK, Vgg19Config

_DEEPER = r"features\.(?:29|[3-9][0-9])\..+"  # features.28 is the convolution of relu5_1
_CLASSIFIER = r"classifier\..+"
TABLE = (
    *STANDARD,
    Ignore(_DEEPER, "layers after relu5_1, which no loss reads"),
    Ignore(_CLASSIFIER, "the ImageNet classifier, which no loss reads"),
)


def infer_config(state: Mapping[str, np.ndarray]) -> Vgg19Config:
    """Channel counts from the kernels. Raises KeyError where a convolution is missing."""
    widths = []
    index = 0
    for count in CONVOLUTIONS_PER_BLOCK:
        widths.append(int(state[f"features.{index}.weight"].shape[0]))
        index += 2 * count + 1
    return Vgg19Config(widths=tuple(widths))
