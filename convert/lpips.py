"""LPIPS v0.1 on VGG-16 to `ctjax.evaluate.perceptual`.

The source is either the state dict of `lpips.LPIPS(net="vgg")`, or torchvision's `vgg16-*.pth` together with the
package's `weights/v0.1/vgg.pth` (the learned weights, `lin0 .. lin4`), merged into one mapping.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.rules import Ignore, Rule
from convert.tensors import KERNEL
from ctjax.evaluate.perceptual import VGG16_CONVOLUTIONS, LpipsConfig

_FEATURES = r"(?:net\.slice\d|features)"
TABLE = (
    Rule(_FEATURES + r"\.(\d+)\.weight", r"features.\1.kernel", KERNEL),
    Rule(_FEATURES + r"\.(\d+)\.bias", r"features.\1.bias"),
    Rule(r"lin(\d)\.model\.\d\.weight", r"lins.\1.kernel", KERNEL),
    Ignore(r"lins\..+", "the same tensors as lin0 .. lin4, listed a second time"),
    Ignore(r"scaling_layer\..+", "constants of the method, which the network holds itself"),
    Ignore(r"classifier\..+", "the ImageNet classifier, which the distance does not read"),
)


def infer_config(state: Mapping[str, np.ndarray]) -> LpipsConfig:
    """Channel counts from the kernels of either layout. Raises KeyError where a block has no first convolution."""
    kernels = {}
    for key, value in state.items():
        if key.startswith(("net.slice", "features.")) and key.endswith(".weight"):
            kernels[int(key.split(".")[-2])] = value
    widths = []
    index = 0
    for count in VGG16_CONVOLUTIONS:
        widths.append(int(kernels[index].shape[0]))
        index += 2 * count + 1
    return LpipsConfig(widths=tuple(widths))
