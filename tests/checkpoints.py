"""Checkpoint files in upstream's layouts, made of rule weights and written without torch."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import parity
import rule_weights
import safetensors.numpy

from convert import write_torch
from convert.read_torch import LEGACY_MAGIC, LEGACY_PROTOCOL

SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


def save_legacy(tree: Any, path: pathlib.Path) -> pathlib.Path:
    """The form PyTorch wrote before version 1.6 (five pickles, then the storages)."""
    body, arrays = write_torch.encode(tree, legacy=True)
    with path.open("wb") as stream:
        for header in (LEGACY_MAGIC, LEGACY_PROTOCOL, SYSTEM):
            pickle.dump(header, stream, protocol=2)
        stream.write(body)
        pickle.dump([str(i) for i in range(len(arrays))], stream, protocol=2)
        for array in arrays:
            stream.write(struct.pack("<q", array.size) + array.tobytes())
    return path


def save_zip(tree: Any, path: pathlib.Path) -> pathlib.Path:
    """The zip form of PyTorch 1.6 and later."""
    write_torch.save(tree, path)
    return path


def save_pickle(body: bytes, path: pathlib.Path) -> pathlib.Path:
    """A zip checkpoint whose pickle is `body`, with one storage of four floats."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def small_head_estimator() -> dict[str, np.ndarray]:
    """The head estimator's keys with an eighth of the reference's channels (the head's own outputs kept)."""
    part = parity.record("facevid2vid_small").manifest["weights"]["he_estimator"]
    state = {}
    for entry in part["entries"]:
        kept = 1 if entry["key"].startswith("fc_") else 0  # outputs of the heads
        shape = (n if i < kept or n < 16 or i > 1 else n // 8 for i, n in enumerate(entry["shape"]))
        state[entry["key"]] = rule_weights.entry("small_head", entry["key"], tuple(shape))
    return state


def controltalk_renderer(**extra: Any) -> dict[str, Any]:
    """A renderer's `.pth.tar` with what training adds to it: the recorded small one, its head estimator smaller yet."""
    weights = parity.record("facevid2vid_small").weights
    parts = {"generator": dict(weights["generator"]), "kp_detector": dict(weights["kp_detector"])}
    moments = {"state": {0: {"step": 3, "exp_avg": np.zeros((2, 2), np.float32)}}, "param_groups": [{"lr": 2e-4}]}
    return {**parts, "he_estimator": small_head_estimator(), "optimizer_generator": moments, "epoch": 362, **extra}


def small_lip_control_net(channels: int = 48, widths: tuple[int, ...] = (24, 16, 12, 16)) -> dict[str, np.ndarray]:
    """A lipControlNet state dict with the reference's keys at a reduced size, by the recorded rule."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 18 * channels
    for index, width in enumerate(widths, 1):
        stem = f"audio_encoder.fc{index}"
        for layer, taken in (("projection", inputs), ("fc", width)):
            shapes |= {f"{stem}.{layer}.weight": (width, taken), f"{stem}.{layer}.bias": (width,)}
        shapes |= {f"{stem}.layer_norm.weight": (width,), f"{stem}.layer_norm.bias": (width,)}
        inputs = width
    shapes |= {"out_fc.weight": (45, 45 + widths[-1]), "out_fc.bias": (45,)}
    return {key: rule_weights.entry("small_audio2exp", key, shape) for key, shape in shapes.items()}


def hubert_folder(record: Any, folder: pathlib.Path, file: str = "pytorch_model.bin") -> pathlib.Path:
    """A Hugging Face folder of a recorded HuBERT: config, preprocessor and weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "hubert", **record.config}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True, "sampling_rate": 16000}))
    state = record.weights["hubert"]
    if file.endswith(".safetensors"):
        safetensors.numpy.save_file(state, folder / file)
    else:
        save_zip(state, folder / file)
    return folder


def controltalk_folder(folder: pathlib.Path) -> pathlib.Path:
    """`checkpoints/` as ControlTalk's README lays it out, with small networks."""
    state = small_lip_control_net()
    folder.mkdir()
    save_legacy({"state_dict": {f"module.{k}": v for k, v in state.items()}}, folder / "lipControlNet.pt")
    encoder = {f"model.{k}": v for k, v in state.items() if k.startswith("audio_encoder.")}
    save_zip(encoder, folder / "audio_encoder.pt")
    save_zip(controltalk_renderer(), folder / "20231128_210236_337a_e0362-checkpoint.pth.tar")
    hubert_folder(parity.record("hubert_tiny_stable"), folder / "TencentGameMate" / "chinese-hubert-large")
    return folder


# Hugging Face name -> fairseq name, by the longest fitting prefix
FAIRSEQ = {
    "feature_projection.layer_norm": "layer_norm",
    "feature_projection.projection": "post_extract_proj",
    "encoder.pos_conv_embed.conv": "encoder.pos_conv.0",
    "masked_spec_embed": "mask_emb",
}


def fairseq_names(rec):
    """The record's state dict as fairseq's HubertModel writes it."""
    norm = "2.1" if rec.config["feat_extract_norm"] == "layer" else "2"
    state = {}
    for key, value in rec.weights["hubert"].items():
        name = key
        for theirs, ours in FAIRSEQ.items():
            if name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
        if name.startswith("feature_extractor"):
            name = name.replace(".conv.", ".0.").replace(".layer_norm.", f".{norm}.")
        name = name.replace(".attention.", ".self_attn.").replace(".feed_forward.intermediate_dense.", ".fc1.")
        name = name.replace(".feed_forward.output_dense.", ".fc2.")
        if name.startswith("encoder.layers."):
            name = name.replace(".layer_norm.", ".self_attn_layer_norm.")
        state[name] = value
    state["final_proj.weight"] = np.zeros((4, 48), np.float32)
    state["label_embs_concat"] = np.zeros((5, 4), np.float32)
    return state


def save_fairseq(record: Any, path: pathlib.Path, **settings: Any) -> pathlib.Path:
    """As fairseq saves: the settings as an argparse.Namespace, numpy scalars among the counters."""
    arrays: list[np.ndarray] = []

    def value(thing: Any) -> bytes:
        return write_torch._value(thing, arrays, False)

    def foreign(thing: Any) -> bytes:
        return pickle.dumps(thing, protocol=2)[2:-1]

    body = value("args") + foreign(argparse.Namespace(**settings)) + value("cfg") + value(None)
    body += value("model") + value(fairseq_names(record))
    body += value("extra_state") + value({"epoch": 3}) + value("best") + foreign(np.float64(1.5))
    body = b"\x80\x02" + pickle.EMPTY_DICT + pickle.MARK + body + pickle.SETITEMS + b"."
    write_torch.write(body, arrays, path)
    return path
