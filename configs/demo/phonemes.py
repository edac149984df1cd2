"""The demo's speech network: a small HuBERT told the phonemes of synthetic speech. Needs the extra `synthetic`.

python train.py --config=configs/demo/phonemes.py --workdir=runs/demo/phonemes
"""

from ml_collections import ConfigDict

STEPS = 1000


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
                "batch": 16,
                "seed": 0,
                "log_every": 25,
                "save_every": 200,
                "keep": 2,
                "evaluate_every": 250,
                "pictures_every": 1000,
            },
            "optimizer": {"lr": 1e-3, "warmup": 100, "decay": "cosine", "decay_steps": STEPS - 100, "ema": 0.995},
            "reading": {"threads": 2, "prefetch": 32, "workers": 0},
        }
    )
