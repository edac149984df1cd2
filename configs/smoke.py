"""The whole path with tiny networks: seconds on a CPU, and nothing that could be called a result.

python prepare.py --source=VIDEOS --output=runs/smoke/records --size=64 --hubert=untrained --renderer=untrained
python train.py --config=configs/smoke.py:sync_expert --workdir=runs/smoke/sync_expert
python train.py --config=configs/smoke.py:audio2exp --workdir=runs/smoke/audio2exp
python infer.py --bundle=runs/smoke/audio2exp/export --size=64 --source=PORTRAIT --audio=SPEECH --output=out.mp4
"""

from ml_collections import ConfigDict

RECORDS = "runs/smoke/records"
LOOP = {"seed": 0, "log_every": 5, "keep": 2, "pictures_every": 1000}
READING = {"threads": 2, "prefetch": 16, "workers": 0}


def get_config(task: str = "audio2exp") -> ConfigDict:
    recipes = {"sync_expert": sync_expert, "audio2exp": audio2exp}
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
        "held_out": "val",
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
        "held_out": "val",
        "loop": {**LOOP, "steps": 40, "batch": 4, "save_every": 20, "evaluate_every": 40},
        "optimizer": {"lr": 1e-3, "warmup": 5, "ema": 0.9, "micro_batches": 1},
        "reading": READING,
    }
