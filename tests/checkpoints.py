"""Checkpoint files in upstream's layouts, made of rule weights and written without torch."""

from __future__ import annotations

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


def controltalk_renderer(record: Any, **extra: Any) -> dict[str, Any]:
    """A renderer's `.pth.tar` with what training adds to it."""
    parts = {part: dict(record.weights[part]) for part in ("generator", "kp_detector", "he_estimator")}
    moments = {"state": {0: {"step": 3, "exp_avg": np.zeros((2, 2), np.float32)}}, "param_groups": [{"lr": 2e-4}]}
    return {**parts, "optimizer_generator": moments, "epoch": 362, **extra}


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
    save_zip(
        controltalk_renderer(parity.record("facevid2vid_small")),
        folder / "20231128_210236_337a_e0362-checkpoint.pth.tar",
    )
    hubert_folder(parity.record("hubert_tiny_stable"), folder / "TencentGameMate" / "chinese-hubert-large")
    return folder
