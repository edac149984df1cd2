"""How each kind of source becomes a `Plan`: which state dicts it holds, which config, which network they fill.

Most checkpoints are one state dict of one network (`single`); the rest have a function of their own. The modules with
tables and networks are imported when a recipe runs, so that the command line starts at once.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from convert import sources
from convert.plan import Piece, Plan
from convert.read_torch import CheckpointError, Tensor
from convert.sources import HF_CONFIG, HF_PREPROCESSOR, Source

DEFAULT_IMAGE_SIZE = 256  # what every published renderer but SadTalker's 512 was trained at

Options = Mapping[str, Any]
Recipe = Callable[[Source, Options], Plan]


def single(table_module: str, network: str, *, infer: str = "infer_config") -> Recipe:
    """One flat state dict of one network. table_module: has `TABLE` and the function `infer(state)` to the config;
    network: "package.module:Class" of an `nnx.Module` that takes `(config, rngs=...)`."""

    def recipe(source: Source, options: Options) -> Plan:
        from ctjax.nn.module import Network

        tables = importlib.import_module(table_module)
        module, name = network.split(":")
        cls = getattr(importlib.import_module(module), name)
        found = sources.state_dict(source)
        state = found.read()
        config = getattr(tables, infer)(state)
        abstract = Network(lambda rngs: cls(config, rngs=rngs)).abstract
        return Plan(config, [Piece("", tables.TABLE, state, abstract)], source.files, skipped=found.skipped)

    return recipe


def renderer(source: Source, options: Options) -> Plan:
    """ControlTalk's and the unofficial repository's `.pth.tar`: generator, kp_detector, he_estimator."""
    from convert import facevid2vid

    found, skipped = sources.parts(source, facevid2vid.PARTS)
    missing = [part for part in facevid2vid.PARTS if part not in found]
    if missing:
        raise CheckpointError(f"{source.path}: the parts {', '.join(missing)} are missing, it has {', '.join(found)}")
    states = {part: state.read() for part, state in found.items()}
    inner = {f"{part}.{key}": why for part, state in found.items() for key, why in state.skipped.items()}
    plan = _renderer(facevid2vid.infer_config(states), states, options, DEFAULT_IMAGE_SIZE)
    return dataclasses.replace(plan, files=source.files, skipped={**skipped, **inner})


def sadtalker(source: Source, options: Options) -> Plan:
    """SadTalker's renderer: its `.pth.tar`, laid out as ControlTalk's, or one of its flat `.safetensors` files.

    `mapping` and `he_estimator` among the options: files with those parts.
    """
    from convert import facevid2vid
    from convert import sadtalker as tables

    files, notes = list(source.files), []
    tree = source.tree
    of_parts = isinstance(tree, dict) and any(isinstance(tree.get(part), dict) for part in facevid2vid.PARTS)
    if isinstance(tree, dict) and not of_parts and any(isinstance(value, Tensor) for value in tree.values()):
        parts, skipped = tables.split_flat(tree)
    else:
        found, skipped = sources.parts(source, facevid2vid.PARTS)
        parts = {part: dict(state.tensors) for part, state in found.items()}
    for part in ("he_estimator", "mapping"):
        if options.get(part):
            other = sources.open_source(options[part])
            found, left = sources.parts(other, (part,))
            parts[part] = dict(found[part].tensors)
            skipped.update({f"{other.path.name}: {key}": "not asked for" for key in left})
            files += other.files
    if "he_estimator" not in parts:
        notes.append("no he_estimator: head pose cannot be read off pictures (--he_estimator=facevid2vid_*.pth.tar)")
    states = {part: {key: tensor.numpy() for key, tensor in state.items()} for part, state in parts.items()}
    size = 512 if "512" in source.path.name else DEFAULT_IMAGE_SIZE
    plan = _renderer(tables.infer_config(states), states, options, size)
    return dataclasses.replace(plan, files=files, skipped=skipped, notes=plan.notes + notes)


def _renderer(config: Any, states: Mapping[str, Mapping[str, np.ndarray]], options: Options, size: int) -> Plan:
    """The plan of a renderer's parts; `image_size` is what the shapes do not tell and inference wants to know."""
    from convert.sadtalker import TABLES
    from ctjax.render.renderer import Renderer

    abstract = Renderer(config).abstract
    pieces = [Piece(part, TABLES[part], states[part], abstract[part]) for part in states]
    size = options.get("image_size") or size
    notes = [f"made for pictures of {size} px (--image_size if not)"]
    return Plan(config, pieces, files=[], notes=notes, extra={"image_size": size})


def discriminator(source: Source, options: Options) -> Plan:
    """The discriminator that face-vid2vid training keeps beside the renderer."""
    from convert import discriminator as tables
    from ctjax.losses.discriminator import Discriminator
    from ctjax.nn.module import Network

    found, _ = sources.parts(source, ("discriminator",))
    state = found["discriminator"].read()
    config = tables.infer_config(state)
    abstract = Network(lambda rngs: Discriminator(config, rngs=rngs)).abstract
    others = {str(key): "another part" for key in source.tree if key != "discriminator"}
    return Plan(config, [Piece("", tables.TABLE, state, abstract)], source.files, skipped=others)


def hubert(source: Source, options: Options) -> Plan:
    """Hugging Face folders and files, with or without a CTC head, and fairseq's files."""
    from convert import hubert as tables
    from ctjax.features.hubert import HubertConfig, network

    found = sources.state_dict(source)
    normalised = tables.normalise_state_dict(found.read())
    notes, asked = [], options.get("normalize_waveform")
    settings = _fairseq_settings(source)
    if HF_CONFIG in source.settings:
        config = HubertConfig.from_huggingface(source.settings[HF_CONFIG], source.settings.get(HF_PREPROCESSOR))
        notes.append(f"architecture from {HF_CONFIG}")
        if HF_PREPROCESSOR not in source.settings and asked is None:
            notes.append(f"no {HF_PREPROCESSOR}: the waveform will be normalised (--normalize_waveform=no if not)")
    else:
        config = tables.infer_config(normalised.state, heads=settings.get("heads"))
        normalize = settings.get("normalize")
        if normalize is None and asked is None:
            raise CheckpointError(
                f"{source.path}: does not say whether the waveform is to be normalised: add --normalize_waveform=yes "
                "(HuBERT large and extra large) or --normalize_waveform=no (fairseq's base)"
            )
        config = dataclasses.replace(config, normalize_waveform=bool(normalize))
        notes.append(f"no {HF_CONFIG}: architecture from the shapes, {config.heads} attention heads")
    if asked is not None:
        config = dataclasses.replace(config, normalize_waveform=asked)
    piece = Piece("", tables.TABLE, normalised.state, network(config).abstract)
    return Plan(config, [piece], source.files, folded=normalised.folded, skipped=found.skipped, notes=notes)


def _fairseq_settings(source: Source) -> dict[str, Any]:
    """`heads` and `normalize` as far as a fairseq file says them (key `cfg`, in older files `args`)."""
    tree = source.tree if isinstance(source.tree, dict) else {}
    settings = sources.plain_settings(tree.get("cfg") or tree.get("args"))
    if not isinstance(settings, dict):
        return {}
    groups = [settings, *(settings[g] for g in ("model", "task") if isinstance(settings.get(g), dict))]
    merged = {key: value for group in groups for key, value in group.items()}
    heads, normalize = merged.get("encoder_attention_heads"), merged.get("normalize")
    return {
        "heads": heads if isinstance(heads, int) else None,
        "normalize": normalize if isinstance(normalize, bool) else None,
    }


def audio2exp(source: Source, options: Options) -> Plan:
    """`lipControlNet.pt`, or `audio_encoder.pt` alone with the zero output layer that training starts from."""
    from convert import audio2exp as tables
    from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig

    found = sources.state_dict(source, rename=lambda key: key.replace("module.", ""))
    state = tables.normalise_state_dict(found.read())
    notes = []
    if not any(key.startswith("out_fc.") for key in state) and any("audio_encoder" in key for key in state):
        encoder = tables.audio_encoder_state_dict(found.read())
        left = {key: "not of the audio encoder" for key in found.tensors if "audio_encoder" not in key}
        found.skipped.update(left)
        widths = tuple(int(encoder[f"fc{i}.projection.weight"].shape[0]) for i in (1, 2, 3, 4))
        shape = Audio2Exp(Audio2ExpConfig(widths=widths)).abstract["out_fc"]["kernel"].shape
        zeros = {"out_fc.weight": np.zeros(shape[::-1], np.float32), "out_fc.bias": np.zeros(shape[1], np.float32)}
        state = {**{f"audio_encoder.{key}": value for key, value in encoder.items()}, **zeros}
        notes.append("the file holds no out_fc: set to zero, as at the start of training")
    config = tables.infer_config(state, channels=options.get("channels") or tables.HUBERT_LARGE_CHANNELS)
    piece = Piece("", tables.TABLE, state, Audio2Exp(config).abstract)
    return Plan(config, [piece], source.files, skipped=found.skipped, notes=notes)


def lpips(source: Source, options: Options) -> Plan:
    """The state dict of `lpips.LPIPS(net="vgg")`, or torchvision's VGG-16 and the learned weights (`linear`)."""
    from convert import lpips as tables
    from ctjax.evaluate.perceptual import Lpips
    from ctjax.nn.module import Network

    found = sources.state_dict(source)
    state, files = found.read(), list(source.files)
    if options.get("linear"):
        linear = sources.open_source(options["linear"])
        state |= sources.state_dict(linear).read()
        files += linear.files
    elif not any(key.startswith("lin0.") for key in state):
        raise CheckpointError(f"{source.path}: holds no lin0 .. lin4: add --linear with lpips' weights/v0.1/vgg.pth")
    config = tables.infer_config(state)
    abstract = Network(lambda rngs: Lpips(config, rngs=rngs)).abstract
    return Plan(config, [Piece("", tables.TABLE, state, abstract)], files, skipped=found.skipped)
