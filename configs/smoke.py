"""The whole path with tiny networks: seconds on a CPU, and nothing that could be called a result.

python prepare.py --source=VIDEOS --output=runs/smoke/records --size=64 --hubert=untrained --renderer=untrained
python train.py --config=configs/smoke.py:sync_expert --workdir=runs/smoke/sync_expert
python train.py --config=configs/smoke.py:audio2exp --workdir=runs/smoke/audio2exp
python train.py --config=configs/smoke.py:renderer --workdir=runs/smoke/renderer
python infer.py --bundle=runs/smoke/audio2exp/export --size=64 --source=PORTRAIT --audio=SPEECH --output=out.mp4
"""

from ml_collections import ConfigDict

RECORDS = "runs/smoke/records"
LOOP = {"seed": 0, "log_every": 5, "keep": 2, "pictures_every": 1000}
READING = {"threads": 2, "prefetch": 16, "workers": 0}


def get_config(task: str = "audio2exp") -> ConfigDict:
    recipes = {"sync_expert": sync_expert, "audio2exp": audio2exp, "renderer": renderer}
    if task not in recipes:
        raise ValueError(f"configs/smoke.py:{task}: one of {', '.join(recipes)} is needed")
    return ConfigDict(recipes[task]())


def sync_expert() -> dict:
    return {
        "task": "sync_expert",
        "records": (RECORDS,),
        "renderer": f"{RECORDS}/bundles/renderer",
        "model": {"frames": 5, "crop": 32, "widths": (16, 32), "audio": {"channels": 32, "widths": (64, 64, 32, 64)}},
        "loss": "info_nce",
        "windows": 2,
        "gap": 5,
        "candidates": 5,
        "split": "train",
        "held_out": "held_out",
        "loop": {**LOOP, "steps": 60, "batch": 8, "save_every": 30, "evaluate_every": 60},
        "optimizer": {"lr": 1e-3, "warmup": 10, "weight_decay": 0.01, "ema": 0.0, "micro_batches": 1},
        "reading": READING,
    }


def audio2exp() -> dict:
    return {
        "task": "audio2exp",
        "records": (RECORDS,),
        "renderer": f"{RECORDS}/bundles/renderer",
        "hubert": f"{RECORDS}/bundles/hubert",
        "vgg19": "",
        "audio2exp": "",
        "train_audio_encoder": False,
        # an expert trained for a minute has no accuracy to speak of
        "expert": {"bundle": "runs/smoke/sync_expert/export/sync_expert", "form": "cosine", "unchecked": True},
        "frames": 5,
        "pairing": {"in_sync": 0.25, "same_clip": 0.25, "same_person": 0.25, "other_person": 0.25},
        "weights": {"perceptual": 1.0, "sync": 0.3, "anchor": 0.0, "smoothness": 0.0},
        "alpha": {"kind": "linear", "steps": 20, "start": 0.0, "end": 1.0},
        "silent_share": 0.5,
        "evaluation_batches": 1,
        "compute": "float32",
        "remat": "nothing",
        "split": "train",
        "held_out": "held_out",
        "loop": {**LOOP, "steps": 40, "batch": 4, "save_every": 20, "evaluate_every": 40},
        "optimizer": {"lr": 1e-3, "warmup": 5, "ema": 0.9, "micro_batches": 1},
        "reading": READING,
    }


def renderer() -> dict:
    motion = {"feature_channel": 8, "block_expansion": 8, "max_features": 16, "num_blocks": 1, "reshape_depth": 4}
    return {
        "task": "renderer",
        "records": (RECORDS,),
        "poses": "estimated",
        "vgg19": "untrained",
        "vgg19_model": {"widths": (4, 4, 8, 8, 8)},
        "renderer": {
            "generator": {
                "block_expansion": 8,
                "max_features": 32,
                "reshape_channel": 8,
                "reshape_depth": 4,
                "num_resblocks": 1,
                "dense_motion": {**motion, "compress": 2},
                "spade": {"ic": 32, "oc": 8, "label_nc": 32, "hidden": 8, "middle_blocks": 1},
            },
            "kp_detector": {
                "block_expansion": 8,
                "max_features": 16,
                "num_blocks": 1,
                "reshape_channel": 32,
                "reshape_depth": 4,
            },
            "he_estimator": {"block_expansion": 8, "widths": (8, 16), "bottlenecks": (1, 1)},
        },
        "discriminator": {"block_expansion": 4, "max_features": 16, "num_blocks": 2},
        "losses": {"weights": {"pixel": 10.0}, "perceptual_scales": (1.0, 0.5)},
        "held_out_frames": 2,
        "loop": {**LOOP, "steps": 20, "batch": 4, "save_every": 10, "evaluate_every": 20},
        "optimizer": {"lr": 1e-3, "b1": 0.5, "clip": 0.0, "ema": 0.99},
        "discriminator_optimizer": {"lr": 1e-3, "b1": 0.5, "clip": 0.0},
        "reading": READING,
    }
