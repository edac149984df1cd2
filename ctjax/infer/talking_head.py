"""The Python interface: networks from a folder of bundles, and the clips they make.

head = TalkingHead.from_bundle("bundles/controltalk")
animation = head.animate(source="portrait.jpg", audio="speech.wav", alpha=0.7)
animation.save("out.mp4")          # or: for frame_u8 in animation: ...
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ctjax.config import from_mapping
from ctjax.faces.find import FaceFinder
from ctjax.features.extract import SpeechFeatures
from ctjax.features.hubert import HubertConfig
from ctjax.features.hubert import network as hubert_network
from ctjax.features.windows import WINDOW_STEPS
from ctjax.infer.animation import Animation
from ctjax.infer.options import AnimateOptions, PathLike
from ctjax.infer.sound import silence_window
from ctjax.infer.speaking import Speaking
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.nn.module import Params
from ctjax.render.fast.formulation import default_formulation
from ctjax.render.fast.renderer import FastRenderer
from ctjax.render.renderer import Renderer, RendererConfig, seen_at
from ctjax.types import UserError
from ctjax.weights import Bundle, fingerprint, is_named, open_bundle, read_manifest

DEFAULT_SIZE = 256
DTYPES = ("float32", "bfloat16")
PARTS = {"renderer": "facevid2vid", "audio2exp": "audio2exp", "hubert": "hubert"}  # folder -> network
CHUNK_ON_CPU, CHUNK_PER_ACCELERATOR = 4, 16
LARGEST_SIZE, LARGEST_CHUNK = 2048, 1024  # beyond is a slip of the keyboard, which would fill the memory


class TalkingHead:
    """A renderer, Audio2Exp and HuBERT, ready on the local devices.

    params: {"renderer", "audio2exp", "hubert"} as their networks' `abstract` trees. size: side of the rendered
    square in pixels. dtype: arithmetic of the networks, "float32" or "bfloat16" (keypoints, statistics and pictures
    are float32 in any case). chunk: frames per call of the devices.
    """

    def __init__(
        self,
        renderer: RendererConfig,
        audio2exp: Audio2ExpConfig,
        hubert: HubertConfig,
        params: Params,
        *,
        size: int = DEFAULT_SIZE,
        dtype: str = "float32",
        chunk: int | None = None,
    ):
        if dtype not in DTYPES:
            raise UserError(f"dtype {dtype!r} is not one of {', '.join(DTYPES)}")
        if chunk is not None and not (isinstance(chunk, int) and 1 <= chunk <= LARGEST_CHUNK):
            raise UserError(f"chunk {chunk}: choose 1 to {LARGEST_CHUNK} frames")
        _check_size(renderer, size)
        _check_parts(renderer, audio2exp, hubert)
        self.size = size
        structure, renderer_params = _renderer(renderer, params["renderer"], dtype)
        self.speaking = Speaking(
            structure,
            Audio2Exp(audio2exp),
            {"renderer": renderer_params, "audio2exp": _cast(params["audio2exp"], "float32")},
            chunk=chunk or _default_chunk(),
        )
        self.features = SpeechFeatures(hubert, params["hubert"], dtype=jnp.dtype(dtype))
        self._silences: dict[pathlib.Path | None, np.ndarray] = {}

    @classmethod
    def from_bundle(
        cls, path: PathLike, *, size: int | None = None, dtype: str = "float32", chunk: int | None = None
    ) -> TalkingHead:
        """Opens the bundles `renderer/`, `audio2exp/` and `hubert/` inside `path`.

        size: by default what the renderer's bundle says it was made for, else 256; at another one a renderer that was
        trained here goes on seeing faces at the size that it knows. Raises: UserError.
        """
        folder = pathlib.Path(path)
        for part, network in PARTS.items():  # all manifests first: they are quick to read
            read_manifest(folder / part, network)
        renderer = open_bundle(folder / "renderer", network="facevid2vid", abstract=_abstract_renderer)
        audio2exp = open_bundle(folder / "audio2exp", network="audio2exp", abstract=_abstract_audio2exp)
        hubert = open_bundle(folder / "hubert", network="hubert", abstract=_abstract_hubert)
        _check_speech(folder, audio2exp, hubert)
        config, renderer_params = from_mapping(RendererConfig, renderer.config), renderer.params
        made_for = renderer.manifest["provenance"].get("image_size", DEFAULT_SIZE)
        size = made_for if size is None else size
        _check_size(config, size)
        # The reference shows its estimators pictures of any size as they are, so what was converted stays so.
        if size != made_for and renderer.manifest["provenance"].get("trained_by") == "ctjax":
            config, renderer_params = _seen_as_trained(config, renderer_params, made_for, size)
        return cls(
            config,
            from_mapping(Audio2ExpConfig, audio2exp.config),
            from_mapping(HubertConfig, hubert.config),
            {"renderer": renderer_params, "audio2exp": audio2exp.params, "hubert": hubert.params},
            size=size,
            dtype=dtype,
            chunk=chunk,
        )

    @property
    def chunk(self) -> int:
        """Frames per call of the devices."""
        return self.speaking.chunk

    def animate(
        self,
        *,
        source: PathLike,
        audio: PathLike,
        driving: PathLike | None = None,
        options: AnimateOptions | None = None,
        **changes: Any,
    ) -> Animation:
        """A clip of `source` (picture or video) speaking `audio` (sound, or a video's); see `Animation`.

        driving: a video whose head pose and expression move a source picture. options, or single settings by name
        (`alpha=0.5, layout="crop"`): see `AnimateOptions`. Raises: UserError for anything wrong with the inputs.
        """
        names = {field.name for field in dataclasses.fields(AnimateOptions)}
        if unknown := sorted(set(changes) - names):
            raise UserError(f"unknown option {', '.join(unknown)}; there are {', '.join(sorted(names))}")
        options = dataclasses.replace(options or AnimateOptions(), **changes)
        return Animation(self, source, audio, driving, options)

    def silence(self, recording: PathLike | None = None) -> np.ndarray:
        """The feature window of silence, float32 "18 c", computed once.

        From the beginning of `recording` (ControlTalk inference.py:196-220), else of faint computed noise.
        """
        key = None if recording is None else pathlib.Path(recording)
        if key not in self._silences:
            self._silences[key] = silence_window(self.features, key)
        return self._silences[key]

    @functools.cached_property
    def face_finder(self) -> FaceFinder:
        """Opened when first needed: with a box given by hand the face networks are not."""
        return FaceFinder()


def _check_speech(folder: pathlib.Path, audio2exp: Bundle, hubert: Bundle) -> None:
    """An Audio2Exp that was trained here names its speech network; behind another one it would babble."""
    named = audio2exp.manifest["provenance"].get("hubert")
    if not is_named(hubert.manifest, named):
        raise UserError(
            f"{folder}: audio2exp was trained on features of another speech network ({named[:12]}, in hubert/ is "
            f"{fingerprint(hubert.manifest)[:12]}): put that one there"
        )


def _renderer(config: RendererConfig, params: Params, dtype: str) -> tuple[Any, Params]:
    """The fast renderer where it serves the config, else the plain one; and the parameters it takes."""
    if config.kp_detector.estimate_jacobian:
        return Renderer(config), _cast(params, dtype)
    fast = FastRenderer(config, default_formulation(dtype=dtype, channels=config.generator.max_features))
    return fast, fast.prepare(params)


def _cast(params: Params, dtype: str) -> Params:
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(jnp.dtype(dtype), copy=False), params)


def _default_chunk() -> int:
    devices = jax.local_devices()
    return CHUNK_ON_CPU if devices[0].platform == "cpu" else CHUNK_PER_ACCELERATOR * len(devices)


def _abstract_hubert(config: dict[str, Any]) -> Params:
    return hubert_network(from_mapping(HubertConfig, config)).abstract


def _abstract_renderer(config: dict[str, Any]) -> Params:
    return Renderer(from_mapping(RendererConfig, config)).abstract


def _abstract_audio2exp(config: dict[str, Any]) -> Params:
    return Audio2Exp(from_mapping(Audio2ExpConfig, config)).abstract


def _check_size(renderer: RendererConfig, size: int) -> None:
    generator = renderer.generator
    step = 2 ** (generator.num_down_blocks + generator.dense_motion.num_blocks)
    if not isinstance(size, int) or not step <= size <= LARGEST_SIZE or size % step:
        raise UserError(
            f"size {size}: this renderer takes multiples of {step} up to {LARGEST_SIZE}, for instance {max(step, 256)}"
        )


def _seen_as_trained(config: RendererConfig, params: Params, made_for: int, size: int) -> tuple[RendererConfig, Params]:
    """The renderer with estimators that scale pictures of `size` to about the `made_for` that they were trained on."""
    for times in (size / made_for, *range(size // made_for, 0, -1)):
        seen = seen_at(config, params, 1 / times)
        detector = seen[0].kp_detector
        if size % (detector.stride * 2**detector.num_blocks) == 0:
            return seen
    return config, params


def _check_parts(renderer: RendererConfig, audio2exp: Audio2ExpConfig, hubert: HubertConfig) -> None:
    if renderer.he_estimator is None:
        raise UserError(
            "this renderer has no head pose and expression estimator (he_estimator), which Audio2Exp needs; "
            "convert a checkpoint that holds one, or give one (python -m convert sadtalker ... --he_estimator FILE)"
        )
    keypoints = renderer.generator.dense_motion.num_kp
    if audio2exp.num_kp != keypoints:
        raise UserError(f"Audio2Exp moves {audio2exp.num_kp} keypoints, the renderer has {keypoints}: they do not fit")
    if (audio2exp.steps, audio2exp.channels) != (WINDOW_STEPS, hubert.hidden_size):
        raise UserError(
            f"Audio2Exp takes windows of {audio2exp.steps} x {audio2exp.channels} features, "
            f"HuBERT gives {WINDOW_STEPS} x {hubert.hidden_size}: they do not fit"
        )
