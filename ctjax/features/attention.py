"""Softmax attention over keys that come block by block, exact, with memory that does not grow with their number.

For every query three things are carried along: the largest score so far, the sum of exp(score - largest), and the
values weighted by it. A new block of keys rescales the old sums to the new largest score.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

KEYS_AT_ONCE = 512
QUERIES_AT_ONCE = 1024
MASKED = -1e30  # finite, so that no difference of two of them is a NaN


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
    queries, keys, values = (jnp.moveaxis(x, 2, 1) for x in (queries, keys, values))  # "b h l d"
    queries_at_once = min(QUERIES_AT_ONCE, queries.shape[2])
    keys_at_once = min(KEYS_AT_ONCE, keys.shape[2])
    whole, some = count // keys_at_once, -(-count // keys_at_once)

    def one_query_block(block):
        state, queries = block

        def one_key_block(index, state, *, masked):
            first = index * keys_at_once
            k, v = (jax.lax.dynamic_slice_in_dim(x, first, keys_at_once, axis=2) for x in (keys, values))
            return _update(state, queries, k, v, count - first if masked else None)

        # Masks cost a quarter of the time, and only the clip's last keys need one.
        state = jax.lax.fori_loop(0, whole, functools.partial(one_key_block, masked=False), state)
        return jax.lax.fori_loop(whole, some, functools.partial(one_key_block, masked=True), state)

    blocks = queries.shape[2] // queries_at_once
    states = jax.lax.map(one_query_block, jax.tree.map(lambda x: _split(x, blocks), (state, queries)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2).reshape(*x.shape[1:3], -1, *x.shape[4:]), states)


def _split(x: jax.Array, blocks: int) -> jax.Array:
    """ "b h q ..." as "blocks b h q/blocks ..."."""
    return jnp.moveaxis(x.reshape(*x.shape[:2], blocks, -1, *x.shape[3:]), 2, 0)


def finish(state: RunningAttention) -> Float[Array, "b q h d"]:
    """The attention's output after all keys."""
    return jnp.moveaxis(state.weighted / state.total[..., None], 1, 2)


def _update(state: RunningAttention, queries, keys, values, count) -> RunningAttention:
    """After a block of keys, all of "b h l d"; count: how many of the keys count, None for all."""
    scores = jnp.einsum("bhqd,bhkd->bhqk", queries, keys, preferred_element_type=jnp.float32)
    if count is not None:
        scores = jnp.where(jnp.arange(keys.shape[2]) < count, scores, MASKED)
    largest = jnp.maximum(state.largest, scores.max(axis=-1))
    weights = jnp.exp(scores - largest[..., None])
    kept = jnp.exp(state.largest - largest)
    added = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(values.dtype), values, preferred_element_type=jnp.float32)
    return RunningAttention(
        largest, kept * state.total + weights.sum(axis=-1), kept[..., None] * state.weighted + added
    )
