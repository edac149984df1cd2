"""The demo's Audio2Exp, in two steps: first towards the expressions that were filmed, where nothing needs to be
rendered, then through the demo's renderer and sync expert.

python train.py --config=configs/demo/audio2exp.py:expression --workdir=runs/demo/audio2exp_expression
python train.py --config=configs/demo/audio2exp.py:sync --workdir=runs/demo/audio2exp
"""

from ml_collections import ConfigDict

STAGES = {
    "expression": {
        "steps": 4_000,
        "batch": 16,
        "lr": 1e-3,
        "evaluate_every": 1_000,
        "weights": {"perceptual": 0.0, "sync": 0.0, "expression": 1.0},
        "pairing": {"in_sync": 0.5, "same_clip": 0.5, "same_person": 0.0, "other_person": 0.0},
        "alpha": {"kind": "linear", "begin": 0, "steps": 0, "start": 1.0, "end": 1.0},
    },
    "sync": {
        "steps": 200,
        "batch": 4,
        "lr": 1e-4,
        "evaluate_every": 100,
        "weights": {"perceptual": 1.0, "sync": 0.3, "expression": 10.0},
        "pairing": {"in_sync": 0.25, "same_clip": 0.5, "same_person": 0.0, "other_person": 0.25},
        "alpha": {"kind": "linear", "begin": 0, "steps": 100, "start": 0.0, "end": 1.0},
        "audio2exp": "runs/demo/audio2exp_expression/export/audio2exp",
    },
}


def get_config(stage: str = "sync") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"configs/demo/audio2exp.py:{stage}: one of {', '.join(STAGES)} is needed")
    chosen = STAGES[stage]
    steps = chosen["steps"]
    return ConfigDict(
        {
            "task": "audio2exp",
            "records": ("runs/demo/records",),
            "renderer": "runs/demo/renderer/export/renderer",
            "hubert": "runs/demo/phonemes/export/hubert",
            "audio2exp": chosen.get("audio2exp", ""),
            "train_audio_encoder": True,  # begins as the sync expert's
            "vgg19": "",  # there are no weights of VGG-19 that could be shipped: pixels are compared
            "expert": {
                "bundle": "runs/demo/sync_expert/export/sync_expert",
                "form": "cosine",
                "least_rank1": 3.0,
                "unchecked": False,
            },
            "model": {"channels": 160, "widths": (384, 256, 128, 128)},  # where the expert hears no HuBERT
            "frames": 5,
            "pairing": chosen["pairing"],
            "weights": chosen["weights"],
            "alpha": chosen["alpha"],
            "expression_keypoints": (0, 1, 2, 3, 4, 5),  # lips and chin, see ctjax/losses/landmark.py
            "expression_pairs": ((0, 1), (2, 3), (0, 4)),
            "silent_share": 0.5,
            "silent_alpha": "one",
            "evaluation_batches": 4,
            "loop": {
                "steps": steps,
                "batch": chosen["batch"],
                "seed": 0,
                "log_every": 20,
                "save_every": 100,
                "keep": 2,
                "evaluate_every": chosen["evaluate_every"],
                "pictures_every": steps,
            },
            "optimizer": {
                "lr": chosen["lr"],
                "warmup": 20,
                "decay": "cosine",
                "decay_steps": steps - 20,
                "ema": 0.99,
            },
            "reading": {"threads": 2, "prefetch": 16, "workers": 0},
        }
    )
