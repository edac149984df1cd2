"""The jitted functions behind the metrics, opened once: each on all local devices, in batches of one size.

A metric whose network was not given has None here and a line in `missing` that says which flag would supply it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctjax import parallel
from ctjax.config import from_mapping
from ctjax.evaluate import experts, identity, image, inception, perceptual
from ctjax.features import hubert
from ctjax.features.extract import SpeechFeatures
from ctjax.features.hubert import HubertConfig
from ctjax.losses import oxford_syncnet, vgg19, wav2lip_syncnet
from ctjax.losses.oxford_syncnet import OxfordSyncNetConfig
from ctjax.losses.sync_expert import SyncExpert, SyncExpertConfig
from ctjax.losses.wav2lip_syncnet import Wav2LipSyncNetConfig
from ctjax.nn.module import Network
from ctjax.types import UserError
from ctjax.weights import Bundle, is_named, open_bundle

DEFAULT_BATCH = 16
# On each device: one frame of 1080p. Temporaries take 0.4 kB a pixel for SSIM and 1.6 kB for LPIPS.
PIXELS_PER_CALL = 2**21

BatchFunction = Callable[..., Any]  # numpy arrays of `batch` rows -> arrays of as many rows


class Devices:
    """Batches split over the local devices, parameters on each of them."""

    def __init__(self, batch: int = DEFAULT_BATCH):
        self.mesh = parallel.make_mesh(jax.local_devices())
        self.batch = -(-batch // self.mesh.size) * self.mesh.size  # a whole number of rows for every device

    def batch_of(self, pixels: int) -> int:
        """`batch`, or as few rows of this many pixels as keep each device within PIXELS_PER_CALL, at least one."""
        return min(self.batch, max(1, PIXELS_PER_CALL // pixels) * self.mesh.size)

    def compiled(self, function: Callable[..., Any], params: Any = None) -> BatchFunction:
        """`function(params, *batch arrays)`, which goes row by row, in full float32 (no TF32: its error would show)."""
        placed = parallel.replicate(self.mesh, params)
        run = parallel.on_each_device(self.mesh, lambda params, rows: function(params, *rows), False, True)

        def call(*arrays: np.ndarray) -> Any:
            with jax.default_matmul_precision("highest"):
                return run(placed, parallel.place_batch(self.mesh, arrays))

        return call


@dataclass(frozen=True)
class Expert:
    """This project's sync expert: run, hear and frames as in `experts.ExpertProbe`."""

    run: BatchFunction
    hear: experts.Hearing
    frames: int


@dataclass
class Instruments:
    """compare: two uint8 "b h w 3" -> (SSIM "b", PSNR "b"). perceptual: the same -> "b" per metric key.
    features: uint8 "b h w 3" -> Inception features. identity: two uint8 faces "b 112 112 3" -> cosines.
    lips, sound: SyncNet's towers (see `sync`). wav2lip, expert: see `experts`. digests: what the bundles hold, for
    the cache.
    """

    devices: Devices
    compare: BatchFunction
    perceptual: dict[str, BatchFunction] = field(default_factory=dict)
    features: BatchFunction | None = None
    identity: BatchFunction | None = None
    lips: BatchFunction | None = None
    sound: BatchFunction | None = None
    wav2lip: BatchFunction | None = None
    expert: Expert | None = None
    digests: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return self.devices.batch

    def batch_of(self, frame_u8: np.ndarray) -> int:
        """How many whole frames of this size one call may take."""
        return self.devices.batch_of(frame_u8.shape[0] * frame_u8.shape[1])


@dataclass(frozen=True)
class BundlePaths:
    """Where the networks are; None leaves their metrics out."""

    sync: str | None = None
    wav2lip: str | None = None
    expert: str | None = None
    hubert: str | None = None
    vgg: str | None = None
    lpips: str | None = None
    inception: str | None = None
    identity: str | None = None


def open_instruments(paths: BundlePaths, ssim_window: image.SsimWindow, batch: int = DEFAULT_BATCH) -> Instruments:
    """Opens every bundle that is given. Raises `ctjax.weights.BundleError` for one that does not fit."""
    devices = Devices(batch)
    made = Instruments(devices, devices.compiled(lambda _, a, b: image.compare_frames(a, b, ssim_window)))
    for opener in (_open_perceptual, _open_inception, _open_identity, _open_sync, _open_wav2lip, _open_expert):
        opener(made, paths)
    return made


def _opened(made: Instruments, path: str, name: str, config_class: type, network: Callable[[Any], Network]) -> Bundle:
    """The bundle at `path`, checked against the network its own config describes; its digest is noted.

    The config is part of the digest: bundles of equal parameters may still compute something else.
    """
    bundle = open_bundle(
        path, network=name, abstract=lambda config: network(from_mapping(config_class, config)).abstract
    )
    content = json.dumps([bundle.config, bundle.manifest["parameters"]["sha256"]], sort_keys=True)
    made.digests[name] = hashlib.sha256(content.encode()).hexdigest()
    return bundle


def _open_perceptual(made: Instruments, paths: BundlePaths) -> None:
    if paths.lpips is None:
        made.missing["LPIPS"] = "needs --lpips_bundle (python -m convert lpips)"
    else:
        bundle = _opened(made, paths.lpips, "lpips", perceptual.LpipsConfig, perceptual.network)
        lpips = perceptual.network(from_mapping(perceptual.LpipsConfig, bundle.config))
        made.perceptual["lpips"] = made.devices.compiled(
            lambda params, a, b: lpips.bind(params)(_unit(a), _unit(b)), bundle.params
        )
    if paths.vgg is None:
        made.missing["VGG-19 distance"] = "needs --vgg_bundle (python -m convert vgg19)"
        return
    bundle = _opened(made, paths.vgg, "vgg19", vgg19.Vgg19Config, vgg19.network)
    vgg = vgg19.network(from_mapping(vgg19.Vgg19Config, bundle.config))

    def distance(params, a, b):
        net = vgg.bind(params)
        return perceptual.unweighted_distance(net(_unit(a)), net(_unit(b)))

    made.perceptual["vgg_distance"] = made.devices.compiled(distance, bundle.params)


def _open_inception(made: Instruments, paths: BundlePaths) -> None:
    if paths.inception is None:
        made.missing["FID"] = "needs --inception_bundle (python -m convert inception_fid)"
        return
    bundle = _opened(made, paths.inception, "inception_fid", inception.InceptionConfig, inception.network)
    network = inception.network(from_mapping(inception.InceptionConfig, bundle.config))
    # two programs: only the cheap resize is compiled anew for a new frame size
    resize = made.devices.compiled(lambda _, frames: inception.resize_for_inception(frames))
    run = made.devices.compiled(lambda params, x: network.bind(params)(x), bundle.params)
    made.features = lambda frames: run(resize(frames))


def _open_identity(made: Instruments, paths: BundlePaths) -> None:
    if paths.identity is None:
        made.missing["CSIM"] = "needs --identity_bundle, an ArcFace network (python -m convert arcface)"
        return
    bundle = _opened(made, paths.identity, "arcface", identity.ArcFaceConfig, identity.network)
    network = identity.network(from_mapping(identity.ArcFaceConfig, bundle.config))
    made.identity = made.devices.compiled(
        lambda params, a, b: identity.cosine_similarity(network.bind(params)(a), network.bind(params)(b)), bundle.params
    )


def _open_sync(made: Instruments, paths: BundlePaths) -> None:
    if paths.sync is None:
        made.missing["LSE-D, LSE-C, AV offset"] = "needs --sync_bundle (python -m convert oxford_syncnet)"
        return
    bundle = _opened(made, paths.sync, "oxford_syncnet", OxfordSyncNetConfig, oxford_syncnet.network)
    syncnet = oxford_syncnet.network(from_mapping(OxfordSyncNetConfig, bundle.config))
    made.lips = made.devices.compiled(
        lambda params, windows_u8: syncnet.bind(params).embed_lips(_unit(windows_u8)), bundle.params
    )
    made.sound = made.devices.compiled(
        lambda params, steps: syncnet.bind(params).embed_audio(jnp.swapaxes(steps, 1, 2)), bundle.params
    )


def _open_wav2lip(made: Instruments, paths: BundlePaths) -> None:
    if paths.wav2lip is None:
        made.missing["Wav2Lip expert loss"] = "needs --wav2lip_bundle (python -m convert wav2lip_syncnet)"
        return
    bundle = _opened(made, paths.wav2lip, "wav2lip_syncnet", Wav2LipSyncNetConfig, wav2lip_syncnet.network)
    expert = wav2lip_syncnet.network(from_mapping(Wav2LipSyncNetConfig, bundle.config))
    made.wav2lip = made.devices.compiled(
        lambda params, faces, mel: experts.wav2lip_loss(expert.bind(params), faces, mel), bundle.params
    )


def _open_expert(made: Instruments, paths: BundlePaths) -> None:
    title = "sync distance and AV offset, own expert"
    if paths.expert is None:
        made.missing[title] = "needs --expert_bundle (train.py), and --hubert_bundle for one that hears HuBERT"
        return
    bundle = _opened(made, paths.expert, "sync_expert", SyncExpertConfig, SyncExpert)
    expert = SyncExpert(from_mapping(SyncExpertConfig, bundle.config))
    if expert.config.hears == "mel":
        hear = experts.hears_mel
    elif paths.hubert is None:
        made.missing[title] = f"needs --hubert_bundle, the HuBERT that the expert in {paths.expert} hears"
        return
    else:
        sound = _opened(made, paths.hubert, "hubert", HubertConfig, hubert.network)
        config = from_mapping(HubertConfig, sound.config)
        if config.hidden_size != expert.config.audio.channels:
            raise UserError(
                f"--hubert_bundle={paths.hubert} gives {config.hidden_size} channels, the expert in {paths.expert} was "
                f"trained on {expert.config.audio.channels}: give the HuBERT it was trained with"
            )
        if not is_named(sound.manifest, bundle.manifest["provenance"].get("hubert")):
            raise UserError(
                f"--hubert_bundle={paths.hubert} is another HuBERT than the one that the expert in {paths.expert} was "
                "trained with: its distances would mean nothing; give that one"
            )
        hear = experts.hears_hubert(SpeechFeatures(config, sound.params))

    def embeddings(params, faces_u8, boxes, windows):
        return experts.expert_embeddings(expert, params, faces_u8, boxes, windows)

    made.expert = Expert(made.devices.compiled(embeddings, bundle.params), hear, expert.config.frames)


def _unit(image_u8: jax.Array) -> jax.Array:
    return image_u8.astype(jnp.float32) / 255.0
