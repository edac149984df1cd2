"""The demo's speech network: a small HuBERT told the phonemes of synthetic speech. Needs the extra `synthetic`.

python train.py --config=configs/demo/phonemes.py --workdir=runs/demo/phonemes
"""

from ml_collections import ConfigDict

STEPS = 700


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "phonemes",
            "corpus": "runs/demo/speech",
            "sentences": 2000,
            "held_out_sentences": 100,
            "steps_per_example": 160,
            "evaluation_batches": 4,
            "loop": {
                "steps": STEPS,
                "batch": 10,
                "seed": 0,
                "log_every": 25,
                "save_every": 100,
                "keep": 2,
                "evaluate_every": 350,
                "pictures_every": 700,
            },
            "optimizer": {"lr": 1e-3, "warmup": 50, "decay": "cosine", "decay_steps": STEPS - 50, "ema": 0.995},
            "reading": {"threads": 2, "prefetch": 32, "workers": 0},
        }
    )
