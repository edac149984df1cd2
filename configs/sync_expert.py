"""The sync expert at full size: mouths against HuBERT windows, contrastive over the global batch.

Needs --config.records=FOLDER and, for the figures that Audio2Exp's training asks for, --config.renderer=BUNDLE.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "sync_expert",
            "records": ("records",),
            "renderer": "bundles/renderer",
            "audio_encoder": "",  # an Audio2Exp bundle, to start from the released audio half
            "freeze_audio": False,
            "model": {"frames": 5, "crop": 96, "widths": (32, 64, 128, 256, 512)},
            "loss": "info_nce",
            "windows": 4,
            "gap": 5,
            "candidates": 10,
            "split": "train",
            "held_out": "test",
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
                "ema": 0.999,
            },
            "reading": {"threads": 16, "prefetch": 128, "workers": 0},
        }
    )
