"""The demo on speakers and sentences that its networks never met: the table of `benchmarks/learning.md`.

    python benchmarks/demo_figures.py --clips=12

Clips come from a synthetic world of their own (another seed than the training's), whose truth is known. The mouth's
aperture is read off the rendered frames by the face mesh, which has nothing to do with the networks that it judges. It
reads a closed mouth as slightly open, and more so on some faces than on others, so each clip's readings are brought to
pixels by the rising curve that fits the mesh's readings on the clip's own, filmed frames to their truth.
"""

import json
import pathlib
import sys
import tempfile
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from scipy.optimize import isotonic_regression

from ctjax import cli, weights
from ctjax.config import from_mapping
from ctjax.data.records import decode_images
from ctjax.data.synthetic import clips as synthetic
from ctjax.evaluate.image import psnr
from ctjax.evaluate.mouth import aperture, correlation
from ctjax.faces.find import FaceFinder
from ctjax.faces.landmarks import to_68
from ctjax.faces.mouth import mouth_boxes
from ctjax.features.extract import SAMPLE_RATE_HZ
from ctjax.infer import demo
from ctjax.infer.chunks import chunked, stack_padded
from ctjax.infer.sound import Sound
from ctjax.infer.speaking import Chunk
from ctjax.infer.talking_head import TalkingHead
from ctjax.losses.mouth import mouth_mask
from ctjax.media.audio import write_wav
from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.renderer import Renderer, RendererConfig

FLAGS = flags.FLAGS

WORLD = 20  # seed of the clips; the demo is trained on the worlds 0 and 1
FPS = 25
MESH_SIDE = 256  # the face mesh was made for faces of about 200 pixels
ALPHAS = (0.0, 0.25, 0.5, 1.0, 1.5)
SPREAD = 5  # where means over a clip are enough, every fifth frame is rendered
CLOSED_PX, CLOSED_FRAMES = 0.5, 8
ANGLES = ("yaw_deg", "pitch_deg", "roll_deg")


class Filmed(NamedTuple):
    """A clip with its truth. frames_u8: RGB "t h w 3"; pose_deg: yaw, pitch and roll "t 3"; windows: the feature
    windows of its sound "t 18 c"."""

    person: str
    frames_u8: np.ndarray
    landmarks: np.ndarray
    aperture_px: np.ndarray
    pose_deg: np.ndarray
    windows: np.ndarray


def held_out(head: TalkingHead, count: int, world: int = WORLD) -> list[Filmed]:
    """Clips of `count` speakers, each saying a held-out sentence."""
    found = []
    number = 0
    while len(found) < count:
        (video,) = synthetic.listing(number + 1, world)[number:]
        number += 1
        if video.split == "train" or any(video.person == clip.person for clip in found):
            continue
        (piece,) = synthetic.draw(video, head.size).pieces
        arrays = piece.arrays
        frames = len(arrays["landmarks"])
        found.append(
            Filmed(
                video.person,
                decode_images(arrays, range(frames)),
                arrays["landmarks"],
                arrays["truth_aperture_px"],
                np.stack([arrays[f"truth_{angle}"] for angle in ANGLES], axis=1),
                windows_of(head, arrays["samples"], frames),
            )
        )
    return found


def windows_of(head: TalkingHead, samples: np.ndarray, frames: int) -> np.ndarray:
    """The feature window of every frame, as `infer.py` hears int16 samples of a sound file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "speech.wav"
        write_wav(path, samples, SAMPLE_RATE_HZ)
        return np.stack(list(Sound(path).windows(head.features, fps=FPS, frames=frames)))


def rendered(head: TalkingHead, speak, windows: np.ndarray, alpha: float, pictures_u8=None) -> np.ndarray:
    """Frames of one of `Speaking`'s methods, chunk by chunk; `speak(pictures or None, chunk, silence)`."""
    frames = []
    silence = head.speaking.embed(head.silence())
    for some in chunked(list(range(len(windows))), head.chunk):
        alphas, own_pose = (np.full(head.chunk, value, np.float32) for value in (alpha, np.nan))
        chunk = Chunk(stack_padded([windows[i] for i in some], head.chunk), alphas, own_pose, own_pose, own_pose)
        pictures = None if pictures_u8 is None else stack_padded([pictures_u8[i] for i in some], head.chunk)
        frames.append(np.asarray(speak(pictures, chunk, silence))[: len(some)])
    return np.concatenate(frames)


def speaking(head: TalkingHead, picture_u8: np.ndarray, windows: np.ndarray, alpha: float) -> np.ndarray:
    """A picture that speaks, "t h w 3"."""
    still = head.speaking.still(picture_u8)
    return rendered(head, lambda _, chunk, silence: head.speaking.speak(still, chunk, silence), windows, alpha)


def dubbed(head: TalkingHead, frames_u8: np.ndarray, windows: np.ndarray, alpha: float) -> np.ndarray:
    """A video that speaks, every frame its own source."""
    return rendered(head, head.speaking.speak_video, windows, alpha, frames_u8)


class Unedited:
    """The talking head's renderer without Audio2Exp, for batches of any size up to a fixed one."""

    BATCH = 8

    def __init__(self, bundle: pathlib.Path):
        opened = weights.open_bundle(bundle / "renderer", network="facevid2vid")
        self._renderer = Renderer(from_mapping(RendererConfig, opened.config))
        self._params = jax.device_put(opened.params)
        self._reconstruct, self._pose = jax.jit(self._reconstruction), jax.jit(self._renderer.head_pose)

    def reconstruct(self, sources_u8: np.ndarray, driving_u8: np.ndarray) -> np.ndarray:
        """Each source with the pose and expression of its driving frame, "t h w 3"."""
        parts = []
        for some in chunked(list(zip(sources_u8, driving_u8, strict=True)), self.BATCH):
            sources, driving = stack_padded(some, self.BATCH)
            parts.append(np.asarray(self._reconstruct(self._params, sources, driving))[: len(some)])
        return np.concatenate(parts)

    def angles(self, frames_u8: np.ndarray) -> np.ndarray:
        """Estimated yaw, pitch and roll, degrees "t 3"."""
        parts = []
        for some in chunked(list(frames_u8), self.BATCH):
            pose = self._pose(self._params, stack_padded(some, self.BATCH).astype(np.float32) / 255)
            parts.append(np.stack([getattr(pose, angle) for angle in ANGLES], axis=1)[: len(some)])
        return np.concatenate(parts)

    def _reconstruction(self, params, sources_u8, driving_u8):
        sources_01, driving_01 = (frames.astype(jnp.float32) / 255 for frames in (sources_u8, driving_u8))
        canonical = self._renderer.canonical_keypoints(params, sources_01)
        of_source, of_driving = (
            transform_keypoints(canonical, self._renderer.head_pose(params, frames))
            for frames in (sources_01, driving_01)
        )
        image_01 = self._renderer.drive(params, self._renderer.encode_source(params, sources_01, of_source), of_driving)
        return jnp.round(jnp.clip(image_01, 0, 1) * 255).astype(jnp.uint8)


class Aperture:
    """The mouth's aperture by the face mesh, in pixels after `calibrate`; NaN where no face is found."""

    def __init__(self):
        self._finder = FaceFinder()
        self._readings, self._pixels, self._slope = np.zeros(1), np.zeros(1), 1.0

    def read(self, frames_u8: np.ndarray) -> np.ndarray:
        """The mesh's reading, in distances of the eyes, "t": the mean of the frame's and of its mirror image's, which
        is nearer to the truth by a third than either."""
        found = []
        for frame in frames_u8:
            large = cv2.resize(frame, (MESH_SIDE, MESH_SIDE), interpolation=cv2.INTER_CUBIC)
            faces = [faces[0] for x in (large, np.ascontiguousarray(large[:, ::-1])) if (faces := self._finder.find(x))]
            found.append(np.mean([aperture(to_68(face.points)[None])[0] for face in faces]) if faces else np.nan)
        return np.array(found)

    def calibrate(self, clip: Filmed, every: int = 2) -> None:
        """Fits the curve from readings to pixels on the clip's filmed frames: isotonic, with a line's slope beyond."""
        read = self.read(clip.frames_u8[::every])
        order = [i for i in np.argsort(read) if np.isfinite(read[i])]
        self._readings = read[order]
        self._pixels = isotonic_regression(clip.aperture_px[::every][order]).x
        self._slope = np.polyfit(self._readings, self._pixels, 1)[0]

    def __call__(self, frames_u8: np.ndarray) -> np.ndarray:
        """Pixels "t"; never less than none."""
        read = self.read(frames_u8)
        beyond = read - np.clip(read, self._readings[0], self._readings[-1])
        return np.maximum(np.interp(read, self._readings, self._pixels) + self._slope * beyond, 0.0)


def closed_reading(measure: Aperture, clip: Filmed) -> float:
    """What `measure` says, in pixels, of filmed frames whose mouth is closed: below that it cannot tell."""
    return float(np.nanmean(measure(clip.frames_u8[clip.aperture_px < CLOSED_PX][:CLOSED_FRAMES])))


def mouth(head: TalkingHead, measure: Aperture, clip: Filmed, other: Filmed, every: int = 1) -> dict[str, float]:
    """A still picture of the clip's speaker under the clip's sound, under `other`'s, and by alpha; and silenced. Of
    the frames every so many are looked at."""
    measure.calibrate(clip, max(every, 2))
    picture = clip.frames_u8[0]
    length = min(len(clip.windows), len(other.windows))
    own = measure(speaking(head, picture, clip.windows[::every], 0.7))
    foreign = measure(speaking(head, picture, other.windows[:length:every], 0.7))
    spread = slice(None, None, max(every, SPREAD))
    by_alpha = {
        f"aperture_alpha_{alpha:g}": np.nanmean(measure(speaking(head, picture, clip.windows[spread], alpha)))
        for alpha in ALPHAS
    }
    widest = int(np.argmax(clip.aperture_px))
    silence = np.repeat(head.silence()[None], head.chunk, axis=0)
    silenced = np.nanmean(measure(dubbed(head, clip.frames_u8[[widest] * head.chunk], silence, 0.7)[:1]))
    return {
        "correlation": correlation(own, clip.aperture_px[::every]),
        "correlation_control": correlation(foreign, clip.aperture_px[:length:every]),
        "aperture_truth": float(clip.aperture_px.mean()),
        "aperture_closed": closed_reading(measure, clip),
        **by_alpha,
        "aperture_silenced": float(silenced),
        "aperture_before_silence": float(clip.aperture_px[widest]),
    }


def pictures(head: TalkingHead, renderer: Unedited, clip: Filmed) -> dict[str, float]:
    """Decibels: frames through the renderer as they are, the first frame driven by the others, beside the first frame
    as it is; and what is outside of the mouth after editing."""
    spread = slice(None, None, SPREAD)
    frames = clip.frames_u8[spread]
    first = np.broadcast_to(clip.frames_u8[:1], frames.shape)
    edited = dubbed(head, frames, clip.windows[spread], 0.7)
    mask = np.asarray(mouth_mask(mouth_boxes(clip.landmarks)[spread], *frames.shape[1:3]))
    weight = np.broadcast_to(1.0 - mask, frames.shape)
    squares = weight * (edited.astype(np.float64) - frames) ** 2
    outside = 10 * np.log10(255**2 * weight.sum((1, 2, 3)) / squares.sum((1, 2, 3)))
    return {
        "psnr_self": float(np.mean(psnr(renderer.reconstruct(frames, frames), frames))),
        "psnr_from_first": float(np.mean(psnr(renderer.reconstruct(first[1:], frames[1:]), frames[1:]))),
        "psnr_copy": float(np.mean(psnr(first[1:], frames[1:]))),
        "psnr_outside_mouth": float(outside.mean()),
    }


def pose(head: TalkingHead, renderer: Unedited, clip: Filmed, driving: Filmed) -> dict[str, float]:
    """Degrees, mean over yaw, pitch and roll: the speaker's picture driven by another's clip, against that clip's
    truth. What pose the rendered frames have is our own estimator's word; its error on filmed frames stands beside."""
    frames, truth = driving.frames_u8[::SPREAD], driving.pose_deg[::SPREAD]
    still = head.speaking.still(clip.frames_u8[0])
    driven = rendered(
        head,
        lambda shown, chunk, silence: head.speaking.speak_driven(still, shown, chunk, silence),
        driving.windows[::SPREAD],
        0.7,
        frames,
    )
    return {
        f"pose_error_{name}": float(np.abs(renderer.angles(shown) - truth).mean())
        for name, shown in (("driven", driven), ("filmed", frames))
    }


def measure(bundle: pathlib.Path, count: int) -> list[dict[str, float]]:
    """All figures of each clip."""
    head, renderer, aperture_px = TalkingHead.from_bundle(bundle), Unedited(bundle), Aperture()
    clips = held_out(head, count)
    found = []
    for clip, other in zip(clips, clips[1:] + clips[:1], strict=True):
        found.append(
            {
                **mouth(head, aperture_px, clip, other),
                **pictures(head, renderer, clip),
                **pose(head, renderer, clip, other),
            }
        )
        print(clip.person, ", ".join(f"{name} {value:.3g}" for name, value in found[-1].items()), flush=True)
    return found


def table(found: list[dict[str, float]], expert: dict[str, float]) -> str:
    """Markdown: the figure, what it should be, and mean and standard error over clips."""

    def mean(name: str) -> float:
        return float(np.nanmean([clip[name] for clip in found]))

    def shown(name: str, digits: int = 2) -> str:
        values = np.array([clip[name] for clip in found])
        return f"{mean(name):.{digits}f} ± {np.nanstd(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"

    truth = mean("aperture_truth")
    by_alpha = [mean(f"aperture_alpha_{alpha:g}") for alpha in ALPHAS]
    rising = all(np.diff(by_alpha) > 0)
    left = mean("aperture_silenced") / mean("aperture_before_silence")
    rank1 = expert.get("rank1_within_clip", float("nan"))
    rows = [
        (
            "correlation of the aperture with the truth, alpha 0.7",
            "0.8",
            shown("correlation"),
            mean("correlation") >= 0.8,
        ),
        (
            "the same under another speaker's sound",
            "under 0.3",
            shown("correlation_control"),
            mean("correlation_control") < 0.3,
        ),
        (
            f"mean aperture at alpha {', '.join(f'{alpha:g}' for alpha in ALPHAS)} (truth {truth:.2f} px)",
            "strictly rising",
            ", ".join(f"{value:.2f}" for value in by_alpha) + " px",
            rising,
        ),
        (
            "aperture at alpha 0, of the truth's mean",
            "under 10 %",
            f"{by_alpha[0] / truth:.0%}",
            by_alpha[0] < 0.1 * truth,
        ),
        ("aperture of the widest frame after silence, of what it was", "under 10 %", f"{left:.0%}", left < 0.1),
        ("sync expert: rank-1 of 10 within a clip", "60 %", f"{rank1:.0%}", rank1 >= 0.6),
        ("PSNR of self-reconstruction", "26 dB", shown("psnr_self", 1), mean("psnr_self") >= 26),
        (
            "PSNR outside the mouth after editing",
            "30 dB",
            shown("psnr_outside_mouth", 1),
            mean("psnr_outside_mouth") >= 30,
        ),
        (
            "pose error where a driving clip sets the pose",
            "5 degrees",
            shown("pose_error_driven"),
            mean("pose_error_driven") <= 5,
        ),
    ]
    beside = [
        ("what the ruler reads on filmed, closed mouths, px", shown("aperture_closed")),
        ("PSNR of a clip's frames from its first frame", shown("psnr_from_first", 1)),
        ("the first frame itself against them", shown("psnr_copy", 1)),
        ("pose error of the estimator on filmed frames", shown("pose_error_filmed")),
    ]
    lines = ["| figure | at least | measured | reached |", "|---|---|---|---|"]
    lines += [f"| {name} | {bound} | {value} | {'yes' if good else '**no**'} |" for name, bound, value, good in rows]
    lines += [f"| {name} | | {value} | |" for name, value in beside]
    return "\n".join(lines)


def expert_report(bundle: pathlib.Path) -> dict[str, float]:
    """The sync expert's own report on held-out clips, real frames, where it is part of the bundle."""
    if not (bundle / "sync_expert" / weights.MANIFEST).is_file():
        return {}
    return weights.read_manifest(bundle / "sync_expert")["provenance"]["report"]["real"]


def main() -> None:
    cli.enable_compilation_cache()
    bundle = pathlib.Path(FLAGS.bundle) if FLAGS.bundle else demo.bundle()
    found = measure(bundle, FLAGS.clips)
    print(table(found, expert_report(bundle)))
    if FLAGS.output:
        pathlib.Path(FLAGS.output).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("bundle", None, "Talking head to measure; the demo's if not given.")
    flags.DEFINE_integer("clips", 12, "Held-out clips.", lower_bound=3)
    flags.DEFINE_string("output", None, "File for the figures, JSON.")
    cli.run(main)
