"""The demo's renderer: a small face-vid2vid that knows the synthetic heads only.

Landmarks and poses of the synthetic heads are known, so the two estimators are trained first, on them alone: then no
picture needs to be drawn. Where the landmarks lie is learned before how far the lips are apart, which is a small
difference of two places. After that the generator learns behind estimators that stay as they are, on small pictures
first, where a step costs a quarter, and then at the demo's size; then, alone, the painter of what the lips part; and
last all of it once more from estimated sources, which the estimators take for less open than they are, and then mostly
on mouths that open and close:

python train.py --config=configs/demo/renderer.py:estimators --workdir=runs/demo/estimators
python train.py --config=configs/demo/renderer.py:lips --workdir=runs/demo/lips
python train.py --config=configs/demo/renderer.py:generator64 --workdir=runs/demo/renderer64
python train.py --config=configs/demo/renderer.py:generator128 --workdir=runs/demo/renderer128
python train.py --config=configs/demo/renderer.py:painter --workdir=runs/demo/painter
python train.py --config=configs/demo/renderer.py:estimated_sources --workdir=runs/demo/estimated_sources
python train.py --config=configs/demo/renderer.py:mouths --workdir=runs/demo/renderer
"""

from ml_collections import ConfigDict

FEATURES, DEPTH = 96, 4  # channels behind the encoder, of which the volume has a layer each for so many depths
ESTIMATORS = ("kp_detector", "he_estimator")
GENERATOR = ("first", "down_blocks", "second", "resblocks_3d", "dense_motion_network", "third", "fourth")
GENERATOR += ("resblocks_2d", "up_blocks", "final")
WHERE = {"head_pose": 0.2, "landmark": 10.0, "closed": 5.0, "depth": 10.0}
DRAWING = {"pixel": 20.0, "mouth_pixel": 15.0, "mouth_drawn": 5.0, "inner_mouth": 20.0}
FROM_ESTIMATES = {"weights": {**DRAWING, "mouth_pixel": 40.0, "mouth_drawn": 10.0}, "drawn_by": "driving_landmarks"}
# There are 160 persons to learn from: estimators that saw their colours only go wild before others.
COLOURS = {"brightness": 0.15, "contrast": 0.15, "saturation": 0.3, "hue": 0.08}
A_LITTLE = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.03}
STAGES = {
    "estimators": {
        "jitter": COLOURS,
        "size": 64,
        "batch": 8,
        "steps": 3_200,
        "lr": 2e-3,
        "weights": {**WHERE, "expression": 0.05, "turned": 20.0},
    },
    "lips": {
        "jitter": COLOURS,
        "size": 64,
        "batch": 8,
        "steps": 3_900,
        "lr": 1.5e-3,
        "weights": {**WHERE, "expression": 0.01, "lips": 60.0, "turned": 15.0},
        "start": "runs/demo/estimators/export/renderer",
    },
    "generator64": {
        "jitter": A_LITTLE,
        "size": 64,
        "batch": 8,
        "steps": 600,
        "lr": 1e-3,
        "weights": DRAWING,
        "drawn_by": "landmarks",
        "start": "runs/demo/lips/export/renderer",
        "freeze": ESTIMATORS,
    },
    "generator128": {
        "jitter": A_LITTLE,
        "size": 128,
        "batch": 4,
        "steps": 1_500,
        "lr": 1e-3,
        "weights": DRAWING,
        "drawn_by": "landmarks",
        "start": "runs/demo/renderer64/export/renderer",
        "start_scale": 0.5,  # the estimators go on seeing pictures of 64 px
        "freeze": ESTIMATORS,
    },
    "painter": {
        "jitter": A_LITTLE,
        "size": 128,
        "batch": 8,
        "steps": 800,
        "lr": 1e-2,
        "weights": DRAWING,
        "drawn_by": "landmarks",
        "start": "runs/demo/renderer128/export/renderer",
        "freeze": (*ESTIMATORS, *(f"generator.{part}" for part in GENERATOR)),
    },
    "estimated_sources": {
        "jitter": A_LITTLE,
        "size": 128,
        "batch": 4,
        "steps": 1_500,
        "lr": 7e-4,
        "ema": 0.99,
        **FROM_ESTIMATES,
        "closing": 0.25,
        "start": "runs/demo/painter/export/renderer",
        "freeze": ESTIMATORS,
    },
    "mouths": {
        "jitter": A_LITTLE,
        "size": 128,
        "batch": 4,
        "steps": 900,
        "lr": 7e-4,
        "ema": 0.99,
        **FROM_ESTIMATES,
        "closing": 0.25,
        "opening": 0.35,
        "start": "runs/demo/estimated_sources/export/renderer",
        "freeze": ESTIMATORS,
    },
}
NO_LOSS = {
    "perceptual": (0.0,) * 5,  # there are no weights of VGG-19 that could be shipped
    "generator_gan": 0.0,
    "discriminator_gan": 0.0,
    "feature_matching": (0.0,) * 4,
    "equivariance_value": 0.0,
    "keypoint": 0.0,
    "head_pose": 0.0,
    "expression": 0.0,
}


def get_config(stage: str = "generator128") -> ConfigDict:
    if stage not in STAGES:
        raise ValueError(f"configs/demo/renderer.py:{stage}: one of {', '.join(STAGES)} is needed")
    chosen = STAGES[stage]
    steps = chosen["steps"]
    adam = {"lr": chosen["lr"], "b1": 0.9, "b2": 0.99, "clip": 1.0, "warmup": 100, "decay": "cosine"}
    adam |= {"decay_steps": steps - 100, "final_fraction": 0.02, "ema": chosen.get("ema", 0.998)}
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
            "records": ("runs/demo/records128",),
            "size": chosen["size"],
            "poses": "truth",
            "mirror": True,
            "jitter": chosen["jitter"],
            "start": chosen.get("start", ""),
            "start_scale": chosen.get("start_scale", 1.0),
            "freeze": chosen.get("freeze", ()),
            "drawn_by": chosen.get("drawn_by", "estimates"),
            "closing": chosen.get("closing", 0.0),
            "opening": chosen.get("opening", 0.0),
            "renderer": {
                "generator": {
                    "block_expansion": FEATURES // 4,
                    "max_features": FEATURES,
                    "reshape_channel": FEATURES // DEPTH,
                    "reshape_depth": DEPTH,
                    "num_resblocks": 2,
                    "dense_motion": motion,
                    "spade": None,  # the plain decoder, a third of the work
                    "copy_source": True,  # a small decoder draws only what motion does not explain
                    "painter": 32,  # what lies behind parted lips no motion explains
                },
                "kp_detector": {
                    "block_expansion": 16,
                    "max_features": 96,
                    "num_blocks": 3,
                    "reshape_channel": 48 * DEPTH,
                    "reshape_depth": DEPTH,
                    "scale_factor": 0.5,
                    # At the reference's 0.1 heatmaps settle on one of their four layers, where depth has no gradient.
                    "temperature": 1.0,
                },
                "he_estimator": {"block_expansion": 32, "widths": (48, 64, 96, 128), "bottlenecks": (1, 1, 1, 1)},
            },
            "losses": {"weights": {**NO_LOSS, **chosen["weights"]}},
            "held_out_frames": 2,
            "loop": {
                "steps": steps,
                "batch": chosen["batch"],
                "seed": 0,
                "log_every": 50,
                "save_every": 100,
                "keep": 2,
                "evaluate_every": 250,
                "pictures_every": 250,
            },
            "optimizer": adam,
            "reading": {"threads": 2, "prefetch": 32, "workers": 0},
        }
    )
