"""Audio2Exp at full size, by the paper: lr 1e-5, sync ratio 0.3, alpha from 0 to 1, silent pass half of the time.

Needs --config.records=FOLDER, --config.renderer=BUNDLE, --config.expert.bundle=BUNDLE and --config.vgg19=BUNDLE.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "audio2exp",
            "records": ("records",),
            "renderer": "bundles/renderer",
            "expert": {
                "bundle": "runs/sync_expert/export/sync_expert",
                "form": "cosine",
                "least_rank1": 3.0,
                "unchecked": False,
            },
            "audio2exp": "",  # a bundle to take the audio encoder from and to go on from; else the expert's audio half
            "vgg19": "bundles/vgg19",
            "hubert": "",  # a bundle to put beside the export for infer.py
            "frames": 5,
            "pairing": {
                "in_sync": 0.25,
                "same_clip": 0.25,
                "same_person": 0.25,
                "other_person": 0.25,
                "min_shift": 10,
            },
            "weights": {"perceptual": 1.0, "sync": 0.3, "anchor": 0.0, "smoothness": 0.0, "expression": 0.0},
            "alpha": {"kind": "linear", "begin": 0, "steps": 20_000, "start": 0.0, "end": 1.0, "stages": 4},
            "expression_keypoints": (),
            "expression_pairs": (),
            "silent_share": 0.5,
            "silent_alpha": "same",
            "train_audio_encoder": False,
            "split": "train",
            "held_out": "held_out",
            "evaluation_batches": 8,
            "compute": "bfloat16",
            "remat": "nothing",
            "loop": {
                "steps": 100_000,
                "batch": 8,
                "seed": 0,
                "log_every": 50,
                "save_every": 1000,
                "keep": 3,
                "evaluate_every": 2000,
                "pictures_every": 5000,
            },
            "optimizer": {
                "lr": 1e-5,
                "warmup": 500,
                "decay": "constant",
                "clip": 1.0,
                "micro_batches": 1,
                "ema": 0.999,
            },
            "reading": {"threads": 16, "prefetch": 64, "workers": 0},
        }
    )
