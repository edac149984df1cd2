"""The pictures of the README, made by the demo: `python benchmarks/demo_strips.py docs/pictures`."""

import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

from ctjax import cli
from ctjax.features.extract import SAMPLE_RATE_HZ
from ctjax.infer import demo
from ctjax.infer.talking_head import TalkingHead
from ctjax.media.audio import write_wav
from ctjax.media.image import write_image

SPEECH_FRAMES = 8
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
YAWS = (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0)
PAUSE_S = 0.16  # a few frames are enough to see where the head looks


def main() -> None:
    cli.enable_compilation_cache()
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    head = TalkingHead.from_bundle(demo.bundle())
    portrait, speech = demo.example()
    clip = list(head.animate(source=portrait, audio=speech, alpha=demo.ALPHA))
    spread = np.linspace(0, len(clip) - 1, SPEECH_FRAMES + 2).astype(int)[1:-1]
    write_image(folder / "speaking.png", np.concatenate([clip[i] for i in spread], axis=1))
    by_alpha = np.stack([list(head.animate(source=portrait, audio=speech, alpha=alpha)) for alpha in ALPHAS])
    moved = np.abs(by_alpha[-1].astype(float) - by_alpha[0]).mean((1, 2, 3))  # a still has one pose
    write_image(folder / "alpha.png", np.concatenate(by_alpha[:, moved.argmax()], axis=1))
    with tempfile.TemporaryDirectory() as scratch:
        pause = pathlib.Path(scratch) / "pause.wav"
        write_wav(pause, np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ)))
        turned = [list(head.animate(source=portrait, audio=pause, yaw=yaw))[-1] for yaw in YAWS]
    write_image(folder / "yaw.png", np.concatenate(turned, axis=1))


if __name__ == "__main__":
    main()
