"""A small talking head, a drawn head filmed for a second, and sounds: everything the clips of these tests need."""

import pathlib

import numpy as np
import pytest
import small_head

from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.head import Gesture, Head
from ctjax.data.synthetic.identity import draw_identity
from ctjax.infer import demo
from ctjax.infer.talking_head import TalkingHead
from ctjax.media.image import write_image
from ctjax.media.mux import VideoWriter

SIZE = 128


def filmed(seed: int = 5, frames: int = 25, turn_deg: float = 12.0) -> list[np.ndarray]:
    """A head that turns and speaks, uint8 RGB frames."""
    head = Head(draw_identity(seed), SIZE)
    turns = np.sin(np.linspace(0, 2 * np.pi, frames))
    jaw = 0.5 + 0.5 * np.sin(np.arange(frames))
    return [
        head.draw(Mouth(float(j), 0.0, 0.0, 0.0, 0.0, 0.0, 0.2), Gesture(yaw_deg=float(turn_deg * t)))[0]
        for t, j in zip(turns, jaw, strict=True)
    ]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> pathlib.Path:
    return small_head.save(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def head(bundle, face_finder) -> TalkingHead:
    return TalkingHead.from_bundle(bundle)


@pytest.fixture(scope="session")
def media(tmp_path_factory) -> pathlib.Path:
    """portrait.png, head.mp4 (1 s, 25 fps, silent film), speech.wav (1.3 s)."""
    folder = tmp_path_factory.mktemp("media")
    frames = filmed()
    write_image(folder / "portrait.png", frames[0])
    with VideoWriter(folder / "head.mp4", (SIZE, SIZE), 25) as writer:
        for frame in frames:
            writer.write(frame)
    speech = demo.example().audio.read_bytes()
    (folder / "speech.wav").write_bytes(with_length(speech, 1.3))
    return folder


def with_length(wav: bytes, seconds: float, rate_hz: int = 16_000) -> bytes:
    """The first seconds of a mono 16-bit wav with the usual 44-byte header."""
    samples = wav[44 : 44 + 2 * int(seconds * rate_hz)]
    return (
        wav[:4] + (36 + len(samples)).to_bytes(4, "little") + wav[8:40] + len(samples).to_bytes(4, "little") + samples
    )
