"""A regression small enough to train in milliseconds, as a task for the loop; run as a program it trains in a folder.

The tests start it as a separate process, kill it, and compare what it leaves behind.
"""

import argparse
import json
import os
import pathlib
import sys
import time

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ctjax import parallel
from ctjax.data import pipeline
from ctjax.train import optim, state
from ctjax.train.loop import LoopConfig, run

WIDTH = 24
READING = pipeline.ReadingConfig(threads=2, prefetch=8)


class _Draw(grain.transforms.RandomMap):
    def random_map(self, index, rng):
        x = rng.normal(size=WIDTH).astype(np.float32)
        return {"x": x, "y": np.float32(np.sin(x).sum()), "index": np.int32(index)}


class ToyTask:
    """Fits y = sum(sin(x)) with a two-layer network, gradient noise drawn from the step's key, and a moving average."""

    def __init__(self, *, poison_at=-1, micro_batches=1, pause_s=0.0, width=64):
        self.optimizer_config = optim.OptimizerConfig(
            lr=1e-2, warmup=5, decay="cosine", decay_steps=200, ema=0.9, micro_batches=micro_batches
        )
        self.optimizer = optim.build(self.optimizer_config)
        self.frozen = {"scale": np.float32(0.5)}
        self.poison_at, self.pause_s, self.width = poison_at, pause_s, width

    def init(self, key):
        a, b = jax.random.split(key)
        params = {
            "a": jax.random.normal(a, (WIDTH, self.width)) / WIDTH**0.5,
            "b": jax.random.normal(b, (self.width,)) / self.width**0.5,
        }
        return state.new_state(params, self.optimizer, key, ema=True)

    def step(self, current, frozen, batch):
        def loss(params, batch, key):
            guess = jnp.tanh(batch["x"] @ params["a"]) @ params["b"] * frozen["scale"]
            noise = 0.01 * jax.random.normal(key, guess.shape)
            error = (guess + noise - batch["y"]) ** 2
            return jnp.mean(error), {"loss": jnp.mean(error)}

        gradient, metrics = state.gradients(
            loss, current["params"], batch, state.step_key(current), self.optimizer_config.micro_batches
        )
        metrics["loss"] = jnp.where(current["step"] == self.poison_at, jnp.nan, metrics["loss"])
        new, more = state.update(current, gradient, self.optimizer, self.optimizer_config)
        return new, {**metrics, **more}

    def examples(self, seed):
        return grain.MapDataset.range(200).seed(seed).shuffle().repeat().random_map(_Draw())

    def training_data(self, rows):
        stream = pipeline.batches(self.examples(3), rows, READING)
        return stream.map(self._slowly) if self.pause_s else stream

    def _slowly(self, batch):
        time.sleep(self.pause_s)
        return batch

    def evaluation_data(self, rows):
        return pipeline.first_batches(self.examples(4), rows, 2, READING)

    def evaluate(self, current, frozen, batches):
        errors = []
        for batch in batches:
            params = state.averaged(current)
            guess = jnp.tanh(batch["x"] @ params["a"]) @ params["b"] * frozen["scale"]
            errors.append(float(jnp.mean((guess - batch["y"]) ** 2)))
        return {"error": float(np.mean(errors))}

    def pictures(self, current, frozen, batch, path):
        weights = parallel.fetch(current["params"]["a"])
        path("note", ".txt").write_text("a file of another kind")
        return {"weights": np.uint8(np.clip(weights[..., None].repeat(3, -1) * 64 + 128, 0, 255))}

    def export(self, current, frozen, folder):
        if parallel.is_main_process():
            folder.mkdir(exist_ok=True)
            np.savez(folder / "params.npz", **parallel.fetch(state.averaged(current)))


def main(argv):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--save_every", type=int, default=5)
    parser.add_argument("--pause_s", type=float, default=0.0)
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    flags = parser.parse_args(argv)
    parallel.connect(flags.coordinator, flags.num_processes, flags.process_id)
    task = ToyTask(pause_s=flags.pause_s)
    config = LoopConfig(
        steps=flags.steps,
        batch=16,
        log_every=1,
        save_every=flags.save_every,
        keep=3,
        evaluate_every=10,
        pictures_every=0,
    )
    outcome = run(task, config, folder=flags.folder, about={"save_every": flags.save_every})
    if parallel.is_main_process():
        leaves = jax.tree_util.tree_leaves_with_path(parallel.fetch(outcome.state["params"]))
        digest = {jax.tree_util.keystr(path): leaf.tobytes().hex() for path, leaf in leaves}
        (flags.folder / "params.json").write_text(json.dumps({"step": outcome.step, "params": digest}))
    if jax.process_count() > 1:
        jax.distributed.shutdown()


if __name__ == "__main__":
    from absl import flags as absl_flags

    absl_flags.FLAGS.mark_as_parsed()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(sys.argv[1:])
