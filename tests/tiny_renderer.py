"""A renderer small enough to train in seconds, and a world of moving blobs whose motion it has to find."""

import dataclasses

import cv2
import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from ctjax.losses import vgg19
from ctjax.losses.discriminator import DiscriminatorConfig
from ctjax.losses.renderer_total import LossWeights, RendererLossConfig
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.nn.resize import low_pass_kernel
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import RendererConfig
from ctjax.train import partition
from ctjax.train.optim import OptimizerConfig
from ctjax.train.renderer_update import RendererUpdate, RendererUpdateConfig

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


def start(update: RendererUpdate, seed: int = 0):
    """(state, frozen) of an update, its weights drawn on the host: compiling jax's draws takes longer than training."""
    rng = np.random.default_rng(seed)
    networks = (update.renderer, update.discriminator)
    state = update.init(jax.random.key(seed), *(drawn(network.abstract, rng) for network in networks))
    return state, {"vgg19": vgg19.untrained(update.config.vgg19, seed)}


def drawn(abstract, rng: np.random.Generator):
    """Parameters of PyTorch's default spread for a network's abstract tree."""

    def draw(path, leaf):
        name = path[-1]
        if name in ("mean", "bias", "scale", "var"):
            return np.full(leaf.shape, float(name in ("scale", "var")), np.float32)
        if path[-2] == "down":
            return low_pass_kernel(0.25, leaf.shape[-1])
        values = rng.standard_normal(leaf.shape).astype(np.float32)
        return values / (np.linalg.norm(values) if name in ("u", "v") else (3 * np.prod(leaf.shape[:-1])) ** 0.5)

    paths = dict(partition.leaves(abstract))
    return unflatten_dict({path: np.float32(draw(path, leaf)) for path, leaf in paths.items()})


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


def write_crops(folder, clips: int = 12, frames: int = 6) -> None:
    """The same world as folders of pictures, one blob a clip."""
    for clip in range(clips):
        rng = np.random.default_rng(clip)
        look, ground = rng.uniform(0.2, 1.0, (2, 3)), rng.uniform(0.0, 0.3, 3)
        inside = folder / f"blob{clip:02d}"
        inside.mkdir(parents=True)
        for frame in range(frames):
            image = picture(look, ground, rng.uniform(-0.45, 0.45, 2))
            cv2.imwrite(str(inside / f"{frame}.png"), image[..., ::-1])
