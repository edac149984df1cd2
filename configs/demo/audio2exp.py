"""The demo's Audio2Exp, through the demo's renderer and sync expert.

python train.py --config=configs/demo/audio2exp.py --workdir=runs/demo/audio2exp
"""

from ml_collections import ConfigDict

STEPS = 600


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "audio2exp",
            "records": ("runs/demo/records",),
            "renderer": "runs/demo/renderer/export/renderer",
            "hubert": "runs/demo/phonemes/export/hubert",
            "vgg19": "",  # there are no weights of VGG-19 that could be shipped: pixels are compared
            "expert": {"bundle": "runs/demo/sync_expert/export/sync_expert", "form": "cosine", "least_rank1": 3.0},
            "frames": 5,
            "pairing": {"in_sync": 0.25, "same_clip": 0.25, "same_person": 0.0, "other_person": 0.5},
            "weights": {"perceptual": 1.0, "sync": 0.3, "anchor": 0.0, "smoothness": 0.0},
            "alpha": {"kind": "linear", "begin": 0, "steps": 100, "start": 0.0, "end": 1.0},
            "silent_share": 0.5,
            "silent_alpha": "one",
            "evaluation_batches": 4,
            "loop": {
                "steps": STEPS,
                "batch": 4,
                "seed": 0,
                "log_every": 10,
                "save_every": 50,
                "keep": 2,
                "evaluate_every": 100,
                "pictures_every": 100,
            },
            "optimizer": {"lr": 2e-3, "warmup": 20, "decay": "cosine", "decay_steps": STEPS - 20, "ema": 0.98},
            "reading": {"threads": 2, "prefetch": 16, "workers": 0},
        }
    )
