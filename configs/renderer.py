"""The renderer (face-vid2vid) at full size, from scratch or from a converted bundle.

Needs --config.records='("FOLDER",)' made by prepare.py, or for a folder of face crops, one sub-folder a clip,
--config.records='()' --config.crops='("FOLDER",)'; --config.vgg19=BUNDLE; and a source of head
poses: --config.hopenet=BUNDLE, or --config.poses=truth for synthetic records, or --config.poses=estimated for what
prepare.py --renderer wrote down.

Fine-tuning on one person: --config.start=BUNDLE --config.freeze='("kp_detector",)' --config.optimizer.lr=2e-5.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    adam = {
        "lr": 2e-4,
        "b1": 0.5,
        "b2": 0.999,
        "clip": 0.0,
        "decay": "milestones",
        "milestones": (180_000, 270_000),
        "milestone_factor": 0.1,
    }
    return ConfigDict(
        {
            "task": "renderer",
            "records": ("records",),
            "crops": (),
            "poses": "none",
            "size": 0,  # side that pictures are scaled to; 0: as they are
            "mirror": True,
            "jitter": {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1},
            "vgg19": "bundles/vgg19",
            "hopenet": "bundles/hopenet",
            "start": "",  # a facevid2vid bundle; its architecture is taken over
            "start_discriminator": "",
            "start_scale": 1.0,
            "freeze": (),
            "drawn_by": "estimates",
            "closing": 0.0,
            "opening": 0.0,
            "renderer": {"generator": {"copy_source": False, "painter": 0, "dense_motion": {"mask_kernel": 7}}},
            "discriminator": {"scales": (1.0,), "block_expansion": 32, "max_features": 512, "num_blocks": 4},
            "losses": {
                "weights": {
                    "perceptual": (10.0,) * 5,
                    "generator_gan": 1.0,
                    "discriminator_gan": 1.0,
                    "feature_matching": (10.0,) * 4,
                    "equivariance_value": 10.0,
                    "equivariance_jacobian": 0.0,
                    "keypoint": 10.0,
                    "head_pose": 20.0,
                    "expression": 5.0,
                    "pixel": 0.0,
                    "mouth_pixel": 0.0,
                    "mouth_drawn": 0.0,
                    "inner_mouth": 0.0,
                    "landmark": 0.0,
                    "lips": 0.0,
                    "turned": 0.0,
                    "closed": 0.0,
                    "depth": 0.0,
                },
                "gan_mode": "hinge",
                "mouth": True,
                "perceptual_scales": (1.0, 0.5, 0.25, 0.125),
                "warp": {"sigma_affine": 0.05, "sigma_tps": 0.005, "points_tps": 5},
            },
            "compute": "bfloat16",
            "remat": False,
            "split": "train",
            "held_out": "held_out",
            "held_out_frames": 4,
            "loop": {
                "steps": 300_000,
                "batch": 32,
                "seed": 0,
                "log_every": 50,
                "save_every": 2000,
                "keep": 3,
                "evaluate_every": 5000,
                "pictures_every": 2000,
            },
            "optimizer": {**adam, "ema": 0.999},
            "discriminator_optimizer": adam,
            "reading": {"threads": 16, "prefetch": 128, "workers": 0},
        }
    )
