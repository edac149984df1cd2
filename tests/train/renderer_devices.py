"""Two steps of the tiny renderer on as many CPU devices as asked for; a program, because jax fixes them at its start.

python renderer_devices.py DEVICES OUTPUT.npz
"""

import os
import sys

if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={sys.argv[1]}"
    os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tiny_renderer

from ctjax import parallel
from ctjax.train.renderer_update import RendererUpdate

QUICK = {"xla_backend_optimization_level": 0}  # halves the time to compile; two steps need no speed

# A bias before a batch norm has no gradient but rounding, which Adam would blow up to the size of the learning rate.
ADAM = dataclasses.replace(tiny_renderer.ADAM, eps=1e-3)


def two_steps() -> dict[str, np.ndarray]:
    """The metrics of both steps and the state after them, flattened; all losses, batch split over all devices."""
    update = RendererUpdate(
        tiny_renderer.update_config(optimizer=dataclasses.replace(ADAM, ema=0.5), discriminator_optimizer=ADAM)
    )
    mesh = parallel.make_mesh()
    state, frozen = (parallel.replicate(mesh, _wide(tree)) for tree in tiny_renderer.start(update))
    step = jax.jit(update.step, out_shardings=parallel.replicated(mesh), compiler_options=QUICK)
    found = {}
    for number in range(2):
        batch = parallel.place_batch(mesh, tiny_renderer.batch(number, 8))
        state, metrics = step(state, frozen, batch)
        found |= {f"{number}/{name}": np.asarray(value) for name, value in metrics.items()}
    del state["key"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        found[f"state{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def _wide(tree):
    return jax.tree.map(lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    assert len(jax.devices()) == int(sys.argv[1])
    np.savez(sys.argv[2], **two_steps())
