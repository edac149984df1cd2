"""What `infer.py` shows without any flag: a talking head, a portrait and a sentence that come with the package.

The portrait is a procedural head, the sentence is synthesised speech, and the networks were trained on such heads and
voices alone (`configs/demo/`): no person's picture or voice is in the package. They know these heads, not photographs.
"""

from __future__ import annotations

import pathlib
from importlib import resources
from typing import NamedTuple

NOTICE = (
    "Demo: small networks that were trained on drawn heads and know no others. For photographs convert weights "
    "(python -m convert --help) and give --bundle."
)
ALPHA = 1.0  # this head opens its mouth less far than it should: benchmarks/learning.md


class Example(NamedTuple):
    """Files of the package that make a clip together."""

    source: pathlib.Path
    audio: pathlib.Path


def example() -> Example:
    """The bundled portrait and sentence."""
    return Example(_asset("portrait.png"), _asset("speech.wav"))


def bundle() -> pathlib.Path:
    """Folder of the bundled talking head, for `TalkingHead.from_bundle`; its MODEL_CARD.md says what it is."""
    return _asset("demo_head")


def _asset(name: str) -> pathlib.Path:
    return pathlib.Path(str(resources.files("ctjax.infer") / "assets" / name))


def next_steps() -> str:
    """What to try after the demo, as flags that can be copied."""
    return f"""Try next:
  --alpha 0.2, --alpha 1.4      the mouth's opening
  --yaw 20                      the head's angle; also --pitch and --roll
  --audio {_asset("speech_french.wav")}      another language, or any voice
  --driving {_asset("driving.mp4")}      the pose of another (drawn) head"""
