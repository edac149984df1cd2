"""The state of a run as a plain dict, and one update of it.

Keys: step (int32), key (the run's random key as raw words; a step draws from `step_key`), params, opt_state, and ema
where the optimizer's configuration asks for it. A task may add its own (batch statistics, a second network's
parameters).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ctjax.train.metrics import Mean
from ctjax.train.optim import OptimizerConfig

PyTree = Any
State = dict[str, Any]
LossFunction = Callable[[PyTree, PyTree, jax.Array], tuple[jax.Array, dict[str, Any]]]


def new_state(params: PyTree, optimizer: optax.GradientTransformation, key: jax.Array, *, ema: bool) -> State:
    """The state before the first step."""
    words = jax.random.key_data(key)
    state = {"step": jnp.zeros((), jnp.int32), "key": words, "params": params, "opt_state": optimizer.init(params)}
    if ema:
        state["ema"] = jax.tree.map(jnp.array, params)
    return state


def drawing_key(key: jax.Array) -> jax.Array:
    """`key` for drawing first parameters: XLA's own generator, which compiles several times faster than threefry.

    Its numbers may differ between kinds of devices, which does not matter for a draw that is made once.
    """
    words = jax.random.key_data(key)
    return jax.random.wrap_key_data(jnp.concatenate([words, words]), impl="unsafe_rbg")


def step_key(state: State) -> jax.Array:
    """The random key of the step to come: the same after a resume as in an unbroken run."""
    return jax.random.fold_in(jax.random.wrap_key_data(state["key"]), state["step"])


def follow(average: PyTree, now: PyTree, step: jax.Array, decay: float) -> PyTree:
    """The moving average after `now`. It follows quickly while the run is young, as the usual (1 + t) / (10 + t) ramp
    does."""
    step = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), average, now)


def update(
    state: State, gradients: PyTree, optimizer: optax.GradientTransformation, config: OptimizerConfig
) -> tuple[State, dict[str, jax.Array]]:
    """`state` after one optimizer step, and the gradient's global norm."""
    changes, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
    params = optax.apply_updates(state["params"], changes)
    new = {**state, "step": state["step"] + 1, "params": params, "opt_state": opt_state}
    if "ema" in state:
        new["ema"] = follow(state["ema"], params, state["step"], config.ema)
    return new, {"gradient_norm": optax.tree.norm(gradients)}


def averaged(state: State) -> PyTree:
    """The parameters to evaluate and export: the moving average where there is one."""
    return state.get("ema", state["params"])


def gradients(
    loss: LossFunction, params: PyTree, batch: PyTree, key: jax.Array, micro_batches: int
) -> tuple[PyTree, dict[str, Any]]:
    """Gradient of the mean of `loss(params, batch, key)` over the batch, and its metrics.

    With `micro_batches` above 1 the batch is taken in that many parts one after the other, which needs less memory
    and gives the same gradient for a loss that is a mean over examples. Part i holds every `micro_batches`-th row, so
    that each device cuts its own rows. Each part draws from its own key.
    """
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    if micro_batches == 1:
        (_, metrics), gradient = value_and_gradient(params, batch, key)
        return gradient, metrics

    def split(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(x.shape[0] // micro_batches, micro_batches, *x.shape[1:]), 0, 1)

    def one(carry: PyTree, part: PyTree) -> tuple[PyTree, dict[str, Any]]:
        part_batch, part_key = part
        (_, metrics), gradient = value_and_gradient(params, part_batch, part_key)
        return jax.tree.map(jnp.add, carry, gradient), metrics

    zeros = jax.tree.map(jnp.zeros_like, params)
    parts = (jax.tree.map(split, batch), jax.random.split(key, micro_batches))
    total, metrics = jax.lax.scan(one, zeros, parts)
    return jax.tree.map(lambda g: g / micro_batches, total), {k: _merge(v) for k, v in metrics.items()}


def _merge(stacked: Any) -> Any:
    if isinstance(stacked, Mean):
        return Mean(jnp.sum(stacked.total), jnp.sum(stacked.count))
    return jnp.mean(stacked, axis=0)
