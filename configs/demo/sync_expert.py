"""The demo's sync expert: small towers over the demo's speech features, on synthetic heads.

python train.py --config=configs/demo/sync_expert.py --workdir=runs/demo/sync_expert
"""

from ml_collections import ConfigDict

STEPS = 1_200


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "sync_expert",
            "records": ("runs/demo/records",),
            "start": "",
            "renderer": "runs/demo/renderer/export/renderer",
            "model": {
                "frames": 5,
                "crop": 48,
                "widths": (24, 48, 96, 128),
                "audio": {"channels": 160, "widths": (384, 256, 128, 128)},
            },
            "loss": "info_nce",
            "windows": 8,
            "gap": 4,
            "candidates": 10,
            "in_memory": True,
            "loop": {
                "steps": STEPS,
                "batch": 8,
                "seed": 0,
                "log_every": 50,
                "save_every": 250,
                "keep": 2,
                "evaluate_every": 500,
                "pictures_every": 1000,
            },
            "optimizer": {
                "lr": 1e-3,
                "warmup": 100,
                "decay": "cosine",
                "decay_steps": STEPS - 100,
                "weight_decay": 0.05,
                "ema": 0.995,
            },
            "reading": {"threads": 1, "prefetch": 8, "workers": 0},
        }
    )
