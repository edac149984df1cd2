"""Frozen networks for training: opened from bundles, cast once to the dtype they compute in."""

from __future__ import annotations

import pathlib
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ctjax import config, weights
from ctjax.losses import vgg19
from ctjax.losses.experts import KINDS, Expert
from ctjax.losses.vgg19 import Vgg19Config
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.nn.module import Params
from ctjax.render.renderer import ESTIMATORS, Renderer, RendererConfig

Compute = Literal["float32", "bfloat16"]


class Frozen(NamedTuple):
    """network: its functions. params: numpy arrays. fingerprint: of all parameters. made_features: of those that
    features in records depend on, a renderer's two estimators."""

    network: Any
    params: Params
    fingerprint: str
    made_features: str
    provenance: dict[str, Any]


def open_renderer(path: str | pathlib.Path, compute: Compute = "float32") -> Frozen:
    """The renderer of a `facevid2vid` bundle."""
    return _open(path, "facevid2vid", RendererConfig, Renderer, compute, ESTIMATORS)


def open_audio2exp(path: str | pathlib.Path, compute: Compute = "float32") -> Frozen:
    """Audio2Exp, with its audio encoder."""
    return _open(path, "audio2exp", Audio2ExpConfig, Audio2Exp, compute)


def open_expert(path: str | pathlib.Path, compute: Compute = "float32") -> tuple[Expert, Frozen]:
    """A sync expert, our own or Wav2Lip's, and its opened bundle."""
    name = weights.read_manifest(path, tuple(KINDS))["network"]
    opened = _open(path, name, KINDS[name].config, KINDS[name].network, compute)
    return KINDS[name].expert(opened.network), opened


def open_own_expert(path: str | pathlib.Path) -> Frozen:
    """A sync expert that was trained here, to go on with."""
    return _open(path, "sync_expert", KINDS["sync_expert"].config, KINDS["sync_expert"].network, "float32")


def open_vgg19(path: str | pathlib.Path, compute: Compute = "float32") -> Frozen:
    """VGG-19's feature stack."""
    return _open(path, "vgg19", Vgg19Config, vgg19.network, compute)


def cast(params: Params, compute: Compute) -> Params:
    """Floating-point leaves in the dtype `compute`, others as they are."""
    dtype = jnp.dtype(compute)
    return jax.tree.map(lambda x: np.asarray(x).astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def _open(
    path: str | pathlib.Path,
    name: str,
    config_type: type,
    build: Any,
    compute: Compute,
    features_from: tuple[str, ...] = (),
) -> Frozen:
    manifest = weights.read_manifest(path, name)
    network = build(config.from_mapping(config_type, manifest["config"]))
    bundle = weights.open_bundle(path, network=name, abstract=network.abstract)
    whole, for_features = (weights.fingerprint(bundle.manifest, parts) for parts in ((), features_from))
    return Frozen(network, cast(bundle.params, compute), whole, for_features, manifest["provenance"])
