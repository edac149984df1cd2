"""Flax NNX in its functional subset: a network is a graph definition plus a plain nested dict of arrays.

Everything outside a network's own file handles parameters as plain dicts (`{"conv": {"kernel": ...}}`, list
indices as ints), so that `jax.jit`, `jax.value_and_grad`, optax and Orbax see ordinary pytrees.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[Any, Any]


class Network:
    """A network's structure without its numbers.

    `build` takes `nnx.Rngs` and returns the module. Nothing is allocated until `init`.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        module = nnx.eval_shape(lambda: build(nnx.Rngs(0)))
        self._graph, self._state = nnx.split(module)

    @property
    def abstract(self) -> Params:
        """The parameter tree as `jax.ShapeDtypeStruct` leaves (batch statistics included)."""
        return nnx.to_pure_dict(self._state)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, drawn in one compiled call."""
        return jax.jit(lambda k: nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(k)))))(key)

    def bind(self, params: Params) -> nnx.Module:
        """The module holding `params`; call it inside `jax.jit` as often as needed, it costs nothing at run time."""
        state = jax.tree.map(lambda leaf: leaf, self._state)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self._graph, state, copy=True)

    def unbind(self, module: nnx.Module) -> Params:
        """The parameter tree of a bound module, for instance after its batch statistics moved."""
        return nnx.to_pure_dict(nnx.state(module))
