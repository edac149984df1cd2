"""The demo's renderer: a small face-vid2vid that knows the synthetic heads only.

First on small pictures, where a step costs a quarter, then on large ones:

python train.py --config=configs/demo/renderer.py:64 --workdir=runs/demo/renderer64
python train.py --config=configs/demo/renderer.py:128 --workdir=runs/demo/renderer
"""

from ml_collections import ConfigDict

SIZES = {"64": (4_000, 1e-3), "128": (2_500, 5e-4)}  # steps, learning rate
FEATURES, DEPTH = 96, 4  # channels behind the encoder, of which the volume has a layer each for so many depths


def get_config(size: str = "128") -> ConfigDict:
    if size not in SIZES:
        raise ValueError(f"configs/demo/renderer.py:{size}: one of {', '.join(SIZES)} is needed")
    steps, lr = SIZES[size]
    adam = {"lr": lr, "b1": 0.9, "b2": 0.999, "clip": 1.0, "warmup": 100, "decay": "cosine", "final_fraction": 0.05}
    adam["decay_steps"] = steps - adam["warmup"]
    motion = {
        "feature_channel": FEATURES // DEPTH,
        "block_expansion": 12,
        "max_features": 64,
        "num_blocks": 3,
        "reshape_depth": DEPTH,
        "compress": 2,
        "mask_kernel": 3,  # the reference's 7 would be a third of the work
    }
    return ConfigDict(
        {
            "task": "renderer",
            "records": ("runs/demo/records128",) if size == "64" else ("runs/demo/records128", "runs/demo/records128b"),
            "size": int(size),
            "poses": "truth",
            "mirror": True,
            "start": "" if size == "64" else "runs/demo/renderer64/export/renderer",
            "start_scale": 1.0 if size == "64" else 0.5,
            "renderer": {
                "generator": {
                    "block_expansion": FEATURES // 4,
                    "max_features": FEATURES,
                    "reshape_channel": FEATURES // DEPTH,
                    "reshape_depth": DEPTH,
                    "num_resblocks": 2,
                    "dense_motion": motion,
                    "spade": None,  # the plain decoder, a third of the work
                },
                "kp_detector": {
                    "block_expansion": 16,
                    "max_features": 96,
                    "num_blocks": 3,
                    "reshape_channel": 48 * DEPTH,
                    "reshape_depth": DEPTH,
                    "scale_factor": 0.5,
                },
                "he_estimator": {"block_expansion": 32, "widths": (48, 64, 96, 128), "bottlenecks": (1, 1, 1, 1)},
            },
            "losses": {
                # Landmarks and poses are known, so keypoints need no prior and no equivariance; and there is no VGG-19
                # that could be shipped, so pixels are compared.
                "weights": {
                    "perceptual": (0.0,) * 5,
                    "generator_gan": 0.0,
                    "discriminator_gan": 0.0,
                    "feature_matching": (0.0,) * 4,
                    "equivariance_value": 0.0,
                    "keypoint": 0.0,
                    "head_pose": 0.02,
                    "expression": 0.1,
                    "pixel": 20.0,
                    "mouth_pixel": 5.0,
                    "landmark": 5.0,
                },
            },
            "held_out_frames": 2,
            "loop": {
                "steps": steps,
                "batch": 8,
                "seed": 0,
                "log_every": 50,
                "save_every": 500,
                "keep": 2,
                "evaluate_every": 1000,
                "pictures_every": 1000,
            },
            "optimizer": {**adam, "ema": 0.999},
            "reading": {"threads": 2, "prefetch": 32, "workers": 0},
        }
    )
