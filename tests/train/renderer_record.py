"""The recorded training cases of the renderer, computed by our networks; run as a program it does so in float64.

    python renderer_record.py CASE OUTPUT.npz

Results are named as in the record and laid out as PyTorch does.
"""

import copy
import sys

import jax
import numpy as np
import parity

from convert import discriminator as discriminator_tables
from convert import facevid2vid, rules
from convert import hopenet as hopenet_tables
from convert import vgg19 as vgg19_tables
from ctjax.losses.equivariance import Warp
from ctjax.losses.renderer_total import LossWeights, RendererLossConfig
from ctjax.render.renderer import config_from_reference
from ctjax.train import partition
from ctjax.train.renderer_update import RendererUpdate, RendererUpdateConfig

CASES = ("eval", "train", "ls", "jacobian", "clip")
LOSS_NAMES = {"generator_gan": "gen_gan", "head_pose": "headpose", "discriminator_gan": "disc_gan"}
BUFFERS = ("running_", "num_batches", "weight_u", "weight_v", "down.weight")


def compute(case: str, dtype=np.float32) -> dict[str, np.ndarray]:
    """Everything the record holds of `case`, whole tensors, without the case's prefix."""
    record = parity.record("renderer_losses")
    judge_part = "discriminator_clip" if case == "clip" else "discriminator"
    detector_part = "kp_detector_jacobian" if case == "jacobian" else "kp_detector"
    update = RendererUpdate(_config(record, case, judge_part))

    def converted(table, part, abstract):
        params = rules.apply(table, record.weights[part], abstract, name=part)[0]
        return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)

    parts = {"generator": "generator", "kp_detector": detector_part, "he_estimator": "he_estimator"}
    renderer = {
        name: converted(facevid2vid.TABLE, part, update.renderer.abstract[name]) for name, part in parts.items()
    }
    judge = converted(discriminator_tables.TABLE, judge_part, update.discriminator.abstract)
    frozen = {
        "vgg19": converted(vgg19_tables.TABLE, "vgg19", update.vgg19.abstract),
        "hopenet": converted(hopenet_tables.TABLE, "hopenet", update.hopenet.abstract),
    }
    suffix = f"_{case}" if case in ("train", "clip") else ""
    batch = {f"{name}_u8": np.moveaxis(record.inputs[f"{name}_u8{suffix}"], 1, -1) for name in ("source", "driving")}
    warp = Warp(
        record.inputs[f"theta{suffix}"].astype(dtype), record.inputs[f"control_params{suffix}"][:, 0].astype(dtype)
    )
    made = parity.AS_WRITTEN(_both_passes(update, train=case == "train"))(renderer, judge, frozen, batch, warp)
    return _named(record, case, jax.tree.map(np.asarray, made), judge_part)


def _config(record, case, judge_part) -> RendererUpdateConfig:
    reference = copy.deepcopy(record.config)
    reference["model_params"]["common_params"]["estimate_jacobian"] = case == "jacobian"
    scales = record.config["train_case_scales"] if case == "train" else record.config["train_params"]["scales"]
    return RendererUpdateConfig(
        renderer=config_from_reference(reference),
        discriminator=discriminator_tables.infer_config(record.weights[judge_part]),
        losses=RendererLossConfig(
            weights=LossWeights(equivariance_jacobian=10.0 if case == "jacobian" else 0.0),
            gan_mode="ls" if case == "ls" else "hinge",
            perceptual_scales=tuple(scales),
            clip_length=5 if case == "clip" else 1,
        ),
    )


def _both_passes(update: RendererUpdate, *, train: bool):
    """The renderer's objective with its gradient, then the discriminator's on the same picture and weights."""

    def run(renderer, judge, frozen, batch, warp):
        learned, others, _ = update.split(renderer)
        objective = jax.value_and_grad(update.generator_objective, has_aux=True)
        (total, (means, outcome, judge)), gradient = objective(learned, others, judge, frozen, batch, warp, train=train)
        learned_judge = partition.select(judge, update.discriminator_learns)
        vectors = partition.select(judge, lambda path: not update.discriminator_learns(path))
        objective = jax.value_and_grad(update.discriminator_objective, has_aux=True)
        (_, (judge_means, judge)), judge_gradient = objective(
            learned_judge, vectors, outcome.made.prediction_01, batch, train=train
        )
        return {
            "losses": {**means, **judge_means, "total": total},
            "made": outcome.made,
            "moved": outcome.moved,
            "judge": judge,
            "gradient": gradient,
            "judge_gradient": judge_gradient,
        }

    return run


def _named(record, case, made, judge_part) -> dict[str, np.ndarray]:
    results = {f"loss_{LOSS_NAMES.get(k, k)}": np.asarray(v)[None] for k, v in made["losses"].items()}
    outcome = made["made"]
    results["prediction"] = parity.channels_first(outcome.prediction_01)
    results["kp_driving"], results["transformed_kp"] = outcome.driving.keypoints, outcome.warped.keypoints
    entries = {part: _parameters(record, part) for part in (*facevid2vid.PARTS, judge_part)}
    for part in facevid2vid.PARTS:
        if case == "jacobian":
            continue  # the record has gradients of the renderer in the eval and train cases only
        gradient = rules.invert(facevid2vid.TABLE, made["gradient"][part], entries[part])
        results |= {f"grad/{part}.{key}": value for key, value in gradient.items()}
        norms = [np.linalg.norm(gradient[key].astype(np.float64)) for key in entries[part]]
        results[f"grad_l2/{part}"] = np.array(norms)
    gradient = rules.invert(discriminator_tables.TABLE, made["judge_gradient"], entries[judge_part])
    results |= {f"grad/{key.replace('discs.1', 'disc')}": value for key, value in gradient.items()}
    results |= {f"after/{key}": value for key, value in _moved(made).items()}
    return {f"{case}/{name}": value for name, value in results.items()}


def _parameters(record, part) -> dict[str, tuple[int, ...]]:
    """The part's learned parameters in the reference's order."""
    entries = record.manifest["weights"][part]["entries"]
    return {e["key"]: tuple(e["shape"]) for e in entries if not any(name in e["key"] for name in BUFFERS)}


def _moved(made) -> dict[str, np.ndarray]:
    """The buffers after the step, by the reference's names."""
    generator, head = made["moved"]["generator"], made["moved"]["he_estimator"]
    return {
        "generator.first.norm.running_mean": generator["first"]["norm"]["mean"],
        "generator.first.norm.running_var": generator["first"]["norm"]["var"],
        "he_estimator.norm1.running_mean": head["norm1"]["mean"],
        "generator.decoder.up_0.conv_0.weight_u": generator["decoder"]["up_0"]["conv_0"]["u"],
        "disc.down_blocks.0.conv.weight_u": made["judge"]["discs"]["scale_1"]["down_blocks"][0]["conv"]["u"],
    }


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    recorded = parity.record("renderer_losses_f64").outputs
    computed = compute(sys.argv[1], np.float64)
    np.savez(sys.argv[2], **{name: value for name, value in computed.items() if name in recorded})
