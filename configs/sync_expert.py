"""The sync expert: mouths against their sound, contrastive over the global batch.

configs/sync_expert.py         HuBERT windows, full size; needs records made with --hubert
configs/sync_expert.py:mel     Wav2Lip's mel spectrogram instead, full size; needs no speech network
configs/sync_expert.py:small   mel and narrow towers, for minutes of footage: ten minutes on two CPU cores

Needs --config.records=FOLDER and, for the figures that Audio2Exp's training asks for, --config.renderer=BUNDLE.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "hubert") -> ConfigDict:
    recipes = {"hubert": full_size, "mel": mel, "small": small}
    if variant not in recipes:
        raise ValueError(f"configs/sync_expert.py:{variant}: one of {', '.join(recipes)} is needed")
    return ConfigDict(recipes[variant]())


def full_size() -> dict:
    return {
        "task": "sync_expert",
        "records": ("records",),
        "renderer": "bundles/renderer",
        "start": "",  # a sync expert's bundle, to go on from
        "audio_encoder": "",  # an Audio2Exp bundle, to start from the released audio half
        "freeze_audio": False,
        "model": {"frames": 5, "crop": 96, "widths": (32, 64, 128, 256, 512)},
        "loss": "info_nce",
        "windows": 4,
        "gap": 5,
        "candidates": 10,
        "augment": {"shift": 0.06, "scale": 0.08, "light": 0.15, "mirror": True, "drop_features": 0.0},
        "split": "train",
        "held_out": "held_out",
        "in_memory": False,
        "compute": "bfloat16",
        "loop": {
            "steps": 60_000,
            "batch": 64,
            "seed": 0,
            "log_every": 50,
            "save_every": 1000,
            "keep": 3,
            "evaluate_every": 2000,
            "pictures_every": 5000,
        },
        "optimizer": {
            "lr": 1e-4,
            "warmup": 1000,
            "decay": "cosine",
            "decay_steps": 59_000,
            "weight_decay": 0.01,
            "clip": 1.0,
            "micro_batches": 1,
            "ema": 0.999,
        },
        "reading": {"threads": 16, "prefetch": 128, "workers": 0},
    }


def mel() -> dict:
    recipe = full_size()
    recipe["model"]["mel"] = {"steps": 16, "widths": (32, 64, 128, 256), "embedding": 512}
    return recipe


def small() -> dict:
    recipe = full_size()
    loop = {"steps": 2500, "batch": 8, "save_every": 500, "evaluate_every": 250, "pictures_every": 2500}
    optimizer = {"lr": 1e-3, "warmup": 200, "decay_steps": 4800, "weight_decay": 0.05, "ema": 0.995}
    return recipe | {
        "renderer": "",
        "model": {
            "frames": 5,
            "crop": 48,
            "widths": (24, 48, 96, 128),
            "mel": {"steps": 16, "widths": (24, 48, 96, 128), "embedding": 256},
        },
        "windows": 8,
        "in_memory": True,
        "compute": "float32",
        "loop": recipe["loop"] | loop,
        "optimizer": recipe["optimizer"] | optimizer,
        "reading": {"threads": 1, "prefetch": 8, "workers": 0},
    }
