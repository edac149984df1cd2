"""Samples per second of a training step: the whole, its terms, memory, and what the data pipeline alone can feed.

    python benchmarks/train_step.py --config=configs/audio2exp.py --config.records=records/ ... --steps=20

Give --devices=N to split a CPU into N devices. The floor beside it is arithmetic: 11.5 TFLOP for a five-frame sample at
256 px with the full-size renderer, at the accelerator's dense bfloat16 ceiling.
"""

import os
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from absl import app, flags
from ml_collections import config_flags

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The recipe.")
flags.DEFINE_integer("steps", 20, "Steps timed, after two to warm up.")
flags.DEFINE_integer("devices", 0, "Split a CPU into so many devices; 0 leaves the devices as they are.")
flags.DEFINE_float("ceiling_tflops", 790.0, "Dense bfloat16 ceiling of one device, for the floor (790: one H200).")
flags.mark_flag_as_required("config")

TFLOP_PER_SAMPLE = 11.5  # Audio2Exp, five frames, 256 px, full-size networks


def main(argv: list[str]) -> None:
    if FLAGS.devices:
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={FLAGS.devices}"
    import jax

    from ctjax import parallel
    from ctjax.train import tasks

    recipe = tasks.read(FLAGS.config.to_dict())
    task, batch_size = recipe.build(), recipe.config.loop.batch
    mesh = parallel.make_mesh()
    rows = parallel.rows_of_process(mesh, batch_size)
    everywhere = parallel.replicated(mesh)
    state = jax.jit(task.init, out_shardings=everywhere)(jax.random.key(0))
    frozen = parallel.replicate(mesh, task.frozen)
    data = iter(task.training_data(rows))
    batch = parallel.place_batch(mesh, next(data))
    step = jax.jit(task.step, donate_argnums=0, out_shardings=(everywhere, everywhere))
    begin = time.perf_counter()
    compiled = step.lower(state, frozen, batch).compile()
    print(f"devices {mesh.size} x {jax.devices()[0].device_kind}; compiled in {time.perf_counter() - begin:.1f} s")
    for _ in range(2):
        state, _ = compiled(state, frozen, batch)
    jax.block_until_ready(state)
    begin = time.perf_counter()
    for _ in range(FLAGS.steps):
        state, _ = compiled(state, frozen, batch)
    jax.block_until_ready(state)
    rate = FLAGS.steps * batch_size / (time.perf_counter() - begin)
    print(f"step alone            {rate:10.2f} samples/s")
    if recipe.config.task == "audio2exp":
        print(f"floor (full size)     {mesh.size * FLAGS.ceiling_tflops / TFLOP_PER_SAMPLE:10.2f} samples/s")
        report_terms(task, state, frozen, batch, batch_size)
    report_pipeline(task, rows, rate)
    report_memory(compiled)


def report_terms(task, state, frozen, batch, batch_size: int) -> None:
    """Forward passes only: rendering, then everything up to the loss."""
    import jax

    parts = {
        "rendering, forward": jax.jit(lambda p, f, b: task.edited(f, p, b, 0.7, 1.0)[0]),
        "all terms, forward": jax.jit(lambda p, f, b: task.terms(p, f, b, 0.7, 1.0)),
    }
    for name, function in parts.items():
        jax.block_until_ready(function(state["params"], frozen, batch))
        begin = time.perf_counter()
        for _ in range(3):
            jax.block_until_ready(function(state["params"], frozen, batch))
        print(f"{name:<22}{3 * batch_size / (time.perf_counter() - begin):10.2f} samples/s")


def report_pipeline(task, rows, rate: float) -> None:
    data = iter(task.training_data(rows))
    for _ in range(10):  # more than is read ahead, so that reading itself is timed
        next(data)
    begin = time.perf_counter()
    for _ in range(FLAGS.steps):
        next(data)
    fed = FLAGS.steps * rows.count / (time.perf_counter() - begin)
    print(f"data pipeline alone   {fed:10.2f} samples/s, {fed / rate:.1f} times what the step takes")


def report_memory(compiled) -> None:
    import jax

    found = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in found:
        print(f"peak memory           {found['peak_bytes_in_use'] / 1e9:10.2f} GB a device")
    else:
        analysis = compiled.memory_analysis()
        print(f"temporaries           {analysis.temp_size_in_bytes / 1e9:10.2f} GB a device, by the compiler")


if __name__ == "__main__":
    app.run(main)
