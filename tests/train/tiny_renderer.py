"""A renderer small enough to train in seconds, and a world of moving blobs whose motion it has to find."""

import dataclasses

import numpy as np

from ctjax.data.records import ClipInfo
from ctjax.losses.discriminator import DiscriminatorConfig
from ctjax.losses.renderer_total import LossWeights, RendererLossConfig
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import RendererConfig
from ctjax.train.optim import OptimizerConfig
from ctjax.train.renderer_update import RendererUpdateConfig

SIZE = 32
KEYPOINTS = 4

RENDERER = RendererConfig(
    generator=GeneratorConfig(
        block_expansion=8,
        max_features=32,
        reshape_channel=8,
        reshape_depth=4,
        num_resblocks=1,
        dense_motion=DenseMotionConfig(
            num_kp=KEYPOINTS,
            feature_channel=8,
            block_expansion=8,
            max_features=16,
            num_blocks=1,
            reshape_depth=4,
            compress=2,
        ),
        spade=SpadeDecoderConfig(ic=32, oc=8, label_nc=32, hidden=8, middle_blocks=0),
    ),
    kp_detector=KeypointDetectorConfig(
        num_kp=KEYPOINTS, block_expansion=8, max_features=16, num_blocks=1, reshape_channel=32, reshape_depth=4
    ),
    he_estimator=HeadEstimatorConfig(
        num_kp=KEYPOINTS, block_expansion=8, num_bins=66, widths=(8, 16), bottlenecks=(0, 0)
    ),
)
DISCRIMINATOR = DiscriminatorConfig(block_expansion=4, max_features=8, num_blocks=2)
VGG = Vgg19Config(widths=(4, 4, 8, 8, 8))
ALL_LOSSES = RendererLossConfig(perceptual_scales=(1.0, 0.5))
ADAM = OptimizerConfig(lr=2e-3, b1=0.5, clip=0.0)


def update_config(**changes) -> RendererUpdateConfig:
    """Every loss of the field, on the tiny networks; `changes` replace fields."""
    config = RendererUpdateConfig(
        renderer=RENDERER,
        discriminator=DISCRIMINATOR,
        losses=ALL_LOSSES,
        optimizer=dataclasses.replace(ADAM, ema=0.5),
        discriminator_optimizer=ADAM,
        vgg19=VGG,
    )
    return dataclasses.replace(config, **changes)


PIXELS_ONLY = RendererLossConfig(
    weights=LossWeights(
        perceptual=(0.0,) * 5,
        generator_gan=0.0,
        discriminator_gan=0.0,
        feature_matching=(0.0,) * 4,
        equivariance_value=1.0,
        keypoint=0.1,
        head_pose=0.0,
        expression=0.1,
        pixel=20.0,
    )
)


def batch(seed: int, count: int = 8) -> dict[str, np.ndarray]:
    """Pairs of pictures of one blob each, with a pose that is proportional to the driving blob's place."""
    rng = np.random.default_rng(seed)
    pairs = [_pair(rng) for _ in range(count)]
    return {name: np.stack([pair[name] for pair in pairs]) for name in pairs[0]}


def _pair(rng: np.random.Generator) -> dict[str, np.ndarray]:
    look = rng.uniform(0.2, 1.0, (2, 3))  # colours of the two halves of the blob
    ground = rng.uniform(0.0, 0.3, 3)
    places = rng.uniform(-0.45, 0.45, (2, 2))
    source, driving = (picture(look, ground, place) for place in places)
    pose = np.array([30 * places[1, 0], 30 * places[1, 1], 0.0], np.float32)
    return {"source_u8": source, "driving_u8": driving, "driving_pose_deg": pose}


def picture(look: np.ndarray, ground: np.ndarray, place: np.ndarray) -> np.ndarray:
    """uint8 "SIZE SIZE 3": a soft disc of two colours at `place` in [-1, 1]."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    disc = 1 / (1 + np.exp(((x - place[0]) ** 2 + (y - place[1]) ** 2 - 0.16) * 30))
    colour = np.where((y > place[1])[..., None], look[0], look[1])
    return np.round(255 * (disc[..., None] * colour + (1 - disc[..., None]) * ground)).astype(np.uint8)


class BlobClips:
    """The same world as clips, for `frame_pairs.FramePairs`."""

    image_size = SIZE

    def __init__(self, count: int = 12, frames: int = 6):
        self.clips = [ClipInfo(f"blob{i}", f"blob{i}", "val" if i < 2 else "train", frames) for i in range(count)]

    def of_split(self, split, *, min_frames=1):
        return np.array([i for i, clip in enumerate(self.clips) if clip.split == split])

    def __getitem__(self, index):
        return _BlobClip(index, self.clips[index].frames)


class _BlobClip:
    def __init__(self, index, frames):
        rng = np.random.default_rng(index)
        self._look, self._ground = rng.uniform(0.2, 1.0, (2, 3)), rng.uniform(0.0, 0.3, 3)
        self._places = rng.uniform(-0.45, 0.45, (frames, 2)).astype(np.float32)
        self._truth = {
            "truth_yaw_deg": 30 * self._places[:, 0],
            "truth_pitch_deg": 30 * self._places[:, 1],
            "truth_roll_deg": np.zeros(frames, np.float32),
        }

    def __contains__(self, name):
        return name in self._truth

    def __getitem__(self, name):
        return self._truth[name]

    def images(self, frames):
        return np.stack([picture(self._look, self._ground, self._places[f]) for f in frames])
