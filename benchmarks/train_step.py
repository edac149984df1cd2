"""Samples per second of a training step of Audio2Exp (and its terms) or of the sync expert, memory, and what the data
pipeline alone can feed.

    python benchmarks/train_step.py --config=configs/audio2exp.py --config.records='("records",)' ... --steps=20
    python benchmarks/train_step.py --config=configs/smoke.py:audio2exp --host_devices=1,2,4,8

The second splits a CPU into devices, one process for each number: it shows that the losses are the same, not speed.
`benchmarks/full_size.py` makes networks and records for the first where there are none. One JSON line a case. The
floor beside Audio2Exp's is arithmetic: 11.5 TFLOP for a five-frame sample at 256 px with the full-size networks, at the
accelerator's dense bfloat16 ceiling.
"""

import json
import pathlib
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import host_devices
from absl import flags
from ml_collections import config_flags

from ctjax import cli
from ctjax.types import UserError

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The recipe.")
flags.DEFINE_integer("steps", 20, "Steps timed, after two to warm up.")
flags.DEFINE_list("host_devices", [], "CPU device counts to run one after the other, each in a process of its own.")
flags.DEFINE_float("ceiling_tflops", 790.0, "Dense bfloat16 ceiling of one device, for the floor (790: one H200).")
flags.mark_flag_as_required("config")

TASKS = ("audio2exp", "sync_expert")
TFLOP_PER_SAMPLE = 11.5  # Audio2Exp, five frames, 256 px, full-size networks


def measure() -> dict[str, object]:
    """One case on all devices of this process. Times in seconds, rates in samples per second."""
    import jax

    from ctjax import parallel
    from ctjax.train import tasks

    recipe = tasks.read(FLAGS.config.to_dict())
    if recipe.config.task not in TASKS:
        raise UserError(
            f"--config: a recipe of {recipe.config.task}; {' and '.join(TASKS)} are measured here, the renderer by "
            "benchmarks/train_renderer.py"
        )
    is_audio2exp = recipe.config.task == "audio2exp"
    task, size = recipe.build(), recipe.config.loop.batch
    mesh = parallel.make_mesh()
    rows = parallel.rows_of_process(mesh, size)
    everywhere = parallel.replicated(mesh)
    state = parallel.replicate(mesh, task.init(jax.random.key(0)))  # not jitted: bundles would be compiled in
    frozen = parallel.replicate(mesh, task.frozen)
    data = iter(task.training_data(rows))
    batch = parallel.place_batch(mesh, next(data))
    begin = time.perf_counter()
    whole = jax.jit(task.step, donate_argnums=0, out_shardings=(everywhere, everywhere)).lower(state, frozen, batch)
    with ThreadPoolExecutor() as pool:
        compiling = pool.submit(whole.compile)
        draws = is_audio2exp and task.config.weights.looks_at_pictures
        parts = terms(task, state["params"], frozen, batch) if draws else {}
        compiled = dict(zip(parts, pool.map(lambda part: part.compile(), parts.values()), strict=True))
        step = compiling.result()
    compile_s = time.perf_counter() - begin
    seconds = {name: term_seconds(term, state["params"], frozen, batch) for name, term in compiled.items()}
    state, metrics = step(state, frozen, batch)
    loss = float(metrics["loss"])
    state, step_s = timed_steps(step, state, frozen, lambda: batch)
    waited = Waiting(data, mesh)
    state, fed_s = timed_steps(step, state, frozen, waited)
    pipeline = pipeline_rate(task, rows)
    return {
        "device": f"{mesh.size} x {jax.devices()[0].device_kind}",
        "batch": size,
        "picture_px": task.records.image_size,
        "first_loss": loss,
        "compile_s": compile_s,
        "step_s": step_s,
        "samples_per_s": size / step_s,
        **({"floor_samples_per_s": mesh.size * FLAGS.ceiling_tflops / TFLOP_PER_SAMPLE} if is_audio2exp else {}),
        "samples_per_s_with_data": size / fed_s,
        "data_wait_share": waited.seconds / (fed_s * FLAGS.steps),
        "pipeline_alone_samples_per_s": pipeline,
        "pipeline_times_step": pipeline * step_s / rows.count,
        **seconds,
        **memory(step),
    }


def timed_steps(step, state, frozen, next_batch) -> tuple[object, float]:
    """The state after `--steps` steps, and the seconds of one."""
    import jax

    state, _ = step(state, frozen, next_batch())
    jax.block_until_ready(state)
    begin = time.perf_counter()
    for _ in range(FLAGS.steps):
        state, _ = step(state, frozen, next_batch())
        jax.block_until_ready(state)
    return state, (time.perf_counter() - begin) / FLAGS.steps


class Waiting:
    """Batches as the loop takes them, and the time spent waiting for them."""

    def __init__(self, data, mesh):
        self._data, self._mesh, self.seconds = data, mesh, 0.0

    def __call__(self):
        from ctjax import parallel

        begin = time.perf_counter()
        batch = next(self._data)
        self.seconds += time.perf_counter() - begin
        return parallel.place_batch(self._mesh, batch)


def terms(task, params, frozen, batch) -> dict[str, object]:
    """Forward passes by themselves, and the gradient of the rendering alone, traced."""
    import jax
    import jax.numpy as jnp

    def pictures(b):
        return b["source_u8"].astype(jnp.float32) / 255.0

    def rendered(p, f, b):
        return task.terms.edited(p, f, task.encode(p, f, b), b, 0.7, 1.0)[0]

    parts = {
        "rendering_s": rendered,
        "rendering_and_gradient_s": jax.grad(lambda p, f, b: jnp.mean(rendered(p, f, b))),
        "sync_s": lambda p, f, b: task.terms.cosine(f, pictures(b), task.encode(p, f, b).sounds, b),
        "sync_and_perceptual_s": lambda p, f, b: task.terms.judge(f, pictures(b), task.encode(p, f, b).sounds, b),
    }
    return {name: jax.jit(part).lower(params, frozen, batch) for name, part in parts.items()}


def term_seconds(term, params, frozen, batch) -> float:
    """Seconds of one call, the mean of three after one to warm up."""
    import jax

    jax.block_until_ready(term(params, frozen, batch))
    begin = time.perf_counter()
    for _ in range(3):
        jax.block_until_ready(term(params, frozen, batch))
    return (time.perf_counter() - begin) / 3


def pipeline_rate(task, rows) -> float:
    """Samples per second of the data pipeline with nothing else running, over two seconds at least."""
    data = iter(task.training_data(rows))
    for _ in range(10):  # more than is read ahead, so that reading itself is timed
        next(data)
    begin, batches = time.perf_counter(), 0
    while batches < FLAGS.steps or time.perf_counter() - begin < 2:
        next(data)
        batches += 1
    return batches * rows.count / (time.perf_counter() - begin)


def memory(step) -> dict[str, float]:
    """Peak memory in GB: of a device where it keeps count, else of this process."""
    import jax

    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return {"peak_gb": stats["peak_bytes_in_use"] / 1e9}
    return {
        "process_peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "temporaries_gb": step.memory_analysis().temp_size_in_bytes / 1e9,
    }


def main() -> None:
    if not FLAGS.host_devices:
        rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in measure().items()}
        print(json.dumps(rounded), flush=True)
        return
    host_devices.run_each(FLAGS.host_devices)


if __name__ == "__main__":
    cli.run(main)
