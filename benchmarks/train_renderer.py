"""Samples per second and memory of the renderer's training step, by number of devices, precision and remat.

    python benchmarks/train_renderer.py --size=256 --batch=8 --compute=bfloat16
    python benchmarks/train_renderer.py --small --host_devices=1,2,4,8   (CPU devices: correctness, not speed)

The step is the whole one: both updates, every loss, VGG-19 and Hopenet with random weights. One JSON line a case.
"""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import host_devices
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("size", 256, "Side of the pictures in pixels.")
flags.DEFINE_integer("batch", 8, "Examples per step over all devices.")
flags.DEFINE_integer("steps", 10, "Steps that are timed, after the first two.")
flags.DEFINE_enum("compute", "float32", ["float32", "bfloat16"], "Dtype of generator, discriminator and VGG-19.")
flags.DEFINE_boolean("remat", False, "Recompute activations in the backward pass.")
flags.DEFINE_boolean("small", False, "An eighth of the width, for machines without an accelerator.")
flags.DEFINE_list("host_devices", [], "CPU device counts to run one after the other, each in a process of its own.")


def networks(small: bool):
    """(renderer, discriminator, VGG-19, Hopenet) configurations."""
    from ctjax.losses.discriminator import DiscriminatorConfig
    from ctjax.losses.hopenet import HopenetConfig
    from ctjax.losses.vgg19 import Vgg19Config
    from ctjax.render.dense_motion import DenseMotionConfig
    from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig
    from ctjax.render.head_estimator import HeadEstimatorConfig
    from ctjax.render.keypoint_detector import KeypointDetectorConfig
    from ctjax.render.renderer import RendererConfig

    if not small:
        return RendererConfig(), DiscriminatorConfig(), Vgg19Config(), HopenetConfig()
    motion = DenseMotionConfig(feature_channel=8, block_expansion=8, max_features=32, num_blocks=2, reshape_depth=8)
    generator = GeneratorConfig(
        block_expansion=8,
        max_features=64,
        reshape_channel=8,
        reshape_depth=8,
        num_resblocks=2,
        dense_motion=motion,
        spade=SpadeDecoderConfig(ic=32, oc=8, label_nc=32, hidden=16, middle_blocks=2),
    )
    detector = KeypointDetectorConfig(
        block_expansion=8, max_features=64, num_blocks=2, reshape_channel=256, reshape_depth=8
    )
    head = HeadEstimatorConfig(block_expansion=8, widths=(16, 32, 64), bottlenecks=(1, 1, 1))
    renderer = RendererConfig(generator, detector, head)
    return (
        renderer,
        DiscriminatorConfig(block_expansion=8, max_features=32, num_blocks=3),
        Vgg19Config(widths=(8, 16, 16, 32, 32)),
        HopenetConfig(layers=(1, 1), width=8),
    )


def measure() -> dict[str, object]:
    """One case on all devices of this process."""
    import jax
    import numpy as np

    from ctjax import parallel
    from ctjax.losses import vgg19
    from ctjax.losses.renderer_total import RendererLossConfig
    from ctjax.train.renderer_update import RendererUpdate, RendererUpdateConfig

    renderer, judge, vgg, pose = networks(FLAGS.small)
    scales = tuple(s for s in (1.0, 0.5, 0.25, 0.125) if FLAGS.size * s >= vgg19.MIN_SIDE)
    update = RendererUpdate(
        RendererUpdateConfig(
            renderer=renderer,
            discriminator=judge,
            losses=RendererLossConfig(perceptual_scales=scales),
            vgg19=vgg,
            hopenet=pose,
            compute=FLAGS.compute,
            remat=FLAGS.remat,
        )
    )
    mesh = parallel.make_mesh()
    key = jax.random.key(0)
    state = parallel.replicate(mesh, update.init(key))
    frozen = parallel.replicate(mesh, {"vgg19": vgg19.untrained(vgg, 0), "hopenet": update.hopenet.init(key)})
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, FLAGS.batch, FLAGS.size, FLAGS.size, 3), dtype=np.uint8)
    batch = parallel.place_batch(mesh, {"source_u8": pictures[0], "driving_u8": pictures[1]})
    everywhere = parallel.replicated(mesh)
    step = jax.jit(update.step, donate_argnums=0, out_shardings=(everywhere, everywhere))
    begin = time.perf_counter()
    compiled = step.lower(state, frozen, batch).compile()
    compile_s = time.perf_counter() - begin
    memory = compiled.memory_analysis()
    losses, times = run_steps(compiled, state, frozen, batch)
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    median = sorted(times[2:])[len(times[2:]) // 2]
    return {
        "device": device.device_kind,
        "devices": mesh.size,
        "size": FLAGS.size,
        "batch": FLAGS.batch,
        "small": FLAGS.small,
        "compute": FLAGS.compute,
        "remat": FLAGS.remat,
        "step_s": round(median, 4),
        "samples_per_s": round(FLAGS.batch / median, 3),
        "temporaries_gb": round(memory.temp_size_in_bytes / 1e9, 3) if memory else None,
        "peak_gb": round(stats["peak_bytes_in_use"] / 1e9, 3) if "peak_bytes_in_use" in stats else None,
        "compile_s": round(compile_s, 1),
        "first_losses": [round(loss, 4) for loss in losses[:2]],
    }


def run_steps(compiled, state, frozen, batch) -> tuple[list[float], list[float]]:
    """Losses and seconds of `--steps` steps and the two before them."""
    losses, times = [], []
    for _ in range(FLAGS.steps + 2):
        begin = time.perf_counter()
        state, metrics = compiled(state, frozen, batch)
        losses.append(float(metrics["loss"]))
        times.append(time.perf_counter() - begin)
    return losses, times


def main(argv: list[str]) -> None:
    if not FLAGS.host_devices:
        print(json.dumps(measure()), flush=True)
        return
    host_devices.run_each(FLAGS.host_devices)


if __name__ == "__main__":
    app.run(main)
