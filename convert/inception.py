"""pytorch-fid's InceptionV3 (`pt_inception-2015-12-05-6726825d.pth`) to `ctjax.evaluate.inception`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from convert.rules import STANDARD, Ignore
from ctjax.evaluate.inception import InceptionConfig

_CLASSIFIER = r"(?:fc|AuxLogits)\..+"
_STEM_WIDTH = 32
TABLE = (
    *STANDARD,
    Ignore(_CLASSIFIER, "the classifiers after the features, which the Frechet distance does not read"),
)


def infer_config(state: Mapping[str, np.ndarray]) -> InceptionConfig:
    """The network's width from its first kernel. Raises KeyError without `Conv2d_1a_3x3.conv.weight`."""
    return InceptionConfig(divisor=_STEM_WIDTH // int(state["Conv2d_1a_3x3.conv.weight"].shape[0]))
