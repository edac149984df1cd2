"""Softmax attention over keys that come block by block, exact, with memory that does not grow with their number.

For every query three things are carried along: the largest score so far, the sum of exp(score - largest), and the
values weighted by it. A new block of keys rescales the old sums to the new largest score.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

KEYS_AT_ONCE = 512
QUERIES_AT_ONCE = 512
MASKED = -1e30  # finite, so that a block without any valid key changes nothing and makes no NaN


class RunningAttention(NamedTuple):
    """float32. `largest`, `total`: "b h q"; `weighted`: "b h q d"."""

    largest: Float[Array, "b h q"]
    total: Float[Array, "b h q"]
    weighted: Float[Array, "b h q d"]


def start(queries: Float[Array, "b q h d"]) -> RunningAttention:
    """Before any key."""
    batch, length, heads, width = queries.shape
    scalar = jnp.full((batch, heads, length), MASKED, jnp.float32)
    return RunningAttention(scalar, jnp.zeros_like(scalar), jnp.zeros((batch, heads, length, width), jnp.float32))


def attend(
    state: RunningAttention,
    queries: Float[Array, "b q h d"],
    keys: Float[Array, "b k h d"],
    values: Float[Array, "b k h d"],
    count: int | Array,
) -> RunningAttention:
    """`state` after the first `count` of these keys. `queries` are scaled already.

    Lengths beyond `QUERIES_AT_ONCE` and `KEYS_AT_ONCE` must be multiples of them.
    """
    queries_at_once = min(QUERIES_AT_ONCE, queries.shape[1])
    keys_at_once = min(KEYS_AT_ONCE, keys.shape[1])

    def one_query_block(block):
        state, queries = block

        def one_key_block(index, state):
            first = index * keys_at_once
            k, v = (jax.lax.dynamic_slice_in_dim(x, first, keys_at_once, axis=1) for x in (keys, values))
            return _update(state, queries, k, v, count - first)

        return jax.lax.fori_loop(0, keys.shape[1] // keys_at_once, one_key_block, state)

    blocks = queries.shape[1] // queries_at_once
    split = (_split(state.largest, 2, blocks), _split(state.total, 2, blocks), _split(state.weighted, 2, blocks))
    states = jax.lax.map(one_query_block, (RunningAttention(*split), _split(queries, 1, blocks)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1, *x.shape[4:]), states)


def _split(x: jax.Array, axis: int, blocks: int) -> jax.Array:
    """`axis` cut into `blocks`, whose number becomes the first axis."""
    return jnp.moveaxis(x.reshape(*x.shape[:axis], blocks, -1, *x.shape[axis + 1 :]), axis, 0)


def finish(state: RunningAttention) -> Float[Array, "b q h d"]:
    """The attention's output after all keys."""
    return jnp.moveaxis(state.weighted / state.total[..., None], 1, 2)


def _update(state: RunningAttention, queries, keys, values, count) -> RunningAttention:
    scores = jnp.einsum("bqhd,bkhd->bhqk", queries, keys, preferred_element_type=jnp.float32)
    valid = jnp.arange(keys.shape[1]) < count
    scores = jnp.where(valid, scores, MASKED)
    largest = jnp.maximum(state.largest, scores.max(axis=-1))
    weights = jnp.where(valid, jnp.exp(scores - largest[..., None]), 0.0)
    kept = jnp.exp(state.largest - largest)
    added = jnp.einsum("bhqk,bkhd->bhqd", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return RunningAttention(
        largest, kept * state.total + weights.sum(axis=-1), kept[..., None] * state.weighted + added
    )
