"""Small records of drawn faces whose mouths follow a known curve that the features tell: for tests of the training."""

import cv2
import numpy as np

from ctjax.data import records
from ctjax.data.records import SAMPLES_PER_FRAME, ClipInfo
from ctjax.features.windows import WINDOW_STEPS

SIZE = 64
CHANNELS = 8


def opening_curve(steps, rng):
    """A smooth curve in [0, 1] at 50 Hz with the pace of speech."""
    noise = rng.normal(size=steps + 24)
    smooth = np.convolve(noise, np.hanning(9) / np.hanning(9).sum(), "same")[12 : 12 + steps]
    return np.clip(0.5 + smooth * 1.1, 0, 1)


def draw_face(opening, look, size=SIZE):
    """RGB uint8 face with a mouth open by `opening` (0..1), and its 68 landmarks in pixels."""
    scale = size / 64
    image = np.full((256, 256, 3), look["background"], np.uint8)
    cv2.ellipse(image, (128, 128), (72, 96), 0, 0, 360, look["skin"], -1, cv2.LINE_AA)
    for x in (100, 156):
        cv2.circle(image, (x, 100), 9, (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(image, (x, 100), 4, (30, 30, 60), -1, cv2.LINE_AA)
    cv2.line(image, (128, 112), (128, 140), (90, 60, 50), 4, cv2.LINE_AA)
    height = int(3 + 22 * opening)
    cv2.ellipse(image, (128, 172), (30, height), 0, 0, 360, look["lips"], -1, cv2.LINE_AA)
    cv2.ellipse(image, (128, 172), (24, max(height - 5, 1)), 0, 0, 360, (30, 5, 5), -1, cv2.LINE_AA)
    points = np.zeros((68, 2), np.float32)
    angles = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([128 + 72 * np.cos(angles), 128 + 96 * np.sin(angles) + 4 * opening], 1)
    points[17:27] = np.stack([np.linspace(84, 172, 10), np.full(10, 84)], 1)
    points[27:31] = np.stack([np.full(4, 128), np.linspace(112, 140, 4)], 1)
    points[31:36] = np.stack([np.linspace(114, 142, 5), np.full(5, 146)], 1)
    for first, x in ((36, 100), (42, 156)):
        around = np.linspace(0, 2 * np.pi, 6, endpoint=False)
        points[first : first + 6] = np.stack([x - 9 * np.cos(around), 100 - 9 * np.sin(around)], 1)
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack([128 - 30 * np.cos(around), 172 - height * np.sin(around)], 1)
    around = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    points[60:68] = np.stack([128 - 24 * np.cos(around), 172 - max(height - 5, 1) * np.sin(around)], 1)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), points * scale / 4


def make_clip(number, person, split, frames, rng, size=SIZE):
    """(ClipInfo, arrays, opening at each frame)."""
    look = {
        "skin": tuple(int(v) for v in rng.integers(120, 230, 3)),
        "lips": tuple(int(v) for v in rng.integers(60, 200, 3)),
        "background": tuple(int(v) for v in rng.integers(0, 255, 3)),
    }
    steps = 2 * (frames - 1) + WINDOW_STEPS
    curve = opening_curve(steps, rng)
    # the window of frame i begins at its own moment: step 2 i
    openings = curve[: 2 * frames : 2]
    drawn = [draw_face(opening, look, size) for opening in openings]
    mixing = np.random.default_rng(1).normal(size=(3, CHANNELS))
    signals = np.stack([curve, np.gradient(curve) * 4, rng.normal(size=steps) * 0.1], 1)
    arrays = {
        **records.encode_images([image for image, _ in drawn]),
        "landmarks": np.stack([points for _, points in drawn]).astype(np.float32),
        "samples": (np.repeat(openings, SAMPLES_PER_FRAME) * rng.normal(size=frames * SAMPLES_PER_FRAME) * 3000)
        .clip(-32768, 32767)
        .astype(np.int16),
        "hubert": (signals @ mixing).astype(np.float16),
        "truth_opening": openings.astype(np.float32),
    }
    return ClipInfo(f"clip{number:03d}", person, split, frames), arrays, openings


def write(folder, *, clips=12, persons=6, frames=60, size=SIZE, seed=0, add=None, features=None):
    """A complete record set; the last third of the persons are held out ("val"). `add(images_01)` gives more arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shards").mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    infos, encoded = [], []
    for number in range(clips):
        person = number % persons
        split = "val" if person >= persons - max(persons // 3, 1) else "train"
        info, arrays, _ = make_clip(number, f"person{person}", split, frames, rng, size)
        if add is not None:
            images = np.stack([cv2.imdecode(j, cv2.IMREAD_COLOR)[..., ::-1] for j in _split(arrays)])
            arrays |= add(images.astype(np.float32) / 255)
        infos.append(info)
        encoded.append(records.encode_clip(info, arrays))
    half = len(encoded) // 2
    for name, part in (("a.arrayrecord", encoded[:half]), ("b.arrayrecord", encoded[half:])):
        records.write_shard(folder / "shards" / name, part)
    shards = {"a.arrayrecord": half, "b.arrayrecord": len(encoded) - half}
    silent = np.stack([np.zeros(WINDOW_STEPS), np.zeros(WINDOW_STEPS), np.zeros(WINDOW_STEPS)], 1)
    records.write_silence(folder, silent @ np.random.default_rng(1).normal(size=(3, CHANNELS)))
    found = {"hubert": "toy", **(features or {})}
    records.write_index(folder, infos, shards, image_size=size, features=found)
    return folder


def _split(arrays):
    return np.split(arrays["jpeg"], arrays["jpeg_ends"][:-1])
