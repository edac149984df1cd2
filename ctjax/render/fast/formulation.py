"""Which of several equal ways each kind of convolution is computed, and in which precision."""

from __future__ import annotations

from dataclasses import dataclass

import jax

DTYPES = ("float32", "bfloat16", "float64")
FRAMES = ("together", "one_by_one")
WIDE = 256  # channels; Winograd's transforms cost narrower renderers more than they save


@dataclass(frozen=True)
class Formulation:
    """images: 3 x 3 convolutions of the decoder and of the appearance encoder ("direct", "winograd2", "winograd4");
    volumes: 3 x 3 x 3 ones ("direct", "depth_taps", "winograd2", "winograd4"); mask: the 7 x 7 x 7 one ("direct",
    "depth_taps", "dft"); frames: whether a batch is computed "together", or "one_by_one" in one compiled loop, which
    keeps the intermediate results of a frame in a CPU's cache; dtype: of weights and maps. Statistics, softmax,
    keypoints and sampling grids are float32 in any case.
    """

    images: str = "direct"
    volumes: str = "direct"
    mask: str = "direct"
    frames: str = "together"
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}, should be one of {', '.join(DTYPES)}")
        if self.frames not in FRAMES:
            raise ValueError(f"frames is {self.frames!r}, should be one of {', '.join(FRAMES)}")


def default_formulation(platform: str | None = None, *, dtype: str = "float32", channels: int = WIDE) -> Formulation:
    """What is fastest on `platform` ("cpu", "gpu", "tpu"; by default jax's own) for a generator of so many `channels`
    (`max_features`).

    Winograd and DFT trade products for additions and memory traffic. That pays on a CPU in float32; matrix units
    multiply faster than they can be fed, and bfloat16 has too few digits for it. On a GPU cuDNN's 3-D convolutions are
    slower than as many 2-D ones (H200, bfloat16, 8 frames of 256 px: 3.8 ms a frame with them, 2.8 without).
    """
    platform = platform or jax.default_backend()
    if platform == "gpu":
        return Formulation(volumes="depth_taps", mask="depth_taps", dtype=dtype)
    if platform != "cpu":
        return Formulation(dtype=dtype)
    if dtype == "bfloat16" or channels < WIDE:
        return Formulation(volumes="depth_taps", mask="depth_taps", frames="one_by_one", dtype=dtype)
    return Formulation(images="winograd4", volumes="winograd4", mask="dft", frames="one_by_one", dtype=dtype)
