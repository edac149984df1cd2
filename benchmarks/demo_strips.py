"""The pictures of the README, made by the demo: `python benchmarks/demo_strips.py docs/pictures`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import numpy as np

from ctjax import cli
from ctjax.infer import demo
from ctjax.infer.talking_head import TalkingHead
from ctjax.media.image import write_image

SPEECH_FRAMES = 8
ALPHAS = (0.0, 0.25, 0.5, 0.7, 1.0, 1.4)
YAWS = (-25.0, -15.0, -5.0, 5.0, 15.0, 25.0)


def frames(head: TalkingHead, **options) -> list[np.ndarray]:
    portrait, speech = demo.example()
    return list(head.animate(source=portrait, audio=speech, **options))


def main() -> None:
    cli.enable_compilation_cache()
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    head = TalkingHead.from_bundle(demo.bundle())
    by_alpha = {alpha: frames(head, alpha=alpha) for alpha in ALPHAS}
    clip = by_alpha[0.7]
    # where the mouth is widest the pictures of the largest and the smallest alpha differ most
    differences = [np.abs(a.astype(int) - b).sum() for a, b in zip(by_alpha[1.4], by_alpha[0.0], strict=True)]
    widest = int(np.argmax(differences))
    spread = np.linspace(0, len(clip) - 1, SPEECH_FRAMES + 2).astype(int)[1:-1]
    turned = [frames(head, yaw=yaw)[widest] for yaw in YAWS]
    write_image(folder / "speaking.png", np.concatenate([clip[i] for i in spread], axis=1))
    write_image(folder / "alpha.png", np.concatenate([by_alpha[alpha][widest] for alpha in ALPHAS], axis=1))
    write_image(folder / "yaw.png", np.concatenate(turned, axis=1))


if __name__ == "__main__":
    main()
