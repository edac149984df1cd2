"""Flax NNX in its functional subset: a network is a graph definition plus a plain nested dict of arrays.

Everything outside a network's own file handles parameters as plain dicts (`{"conv": {"kernel": ...}}`, list
indices as ints), so that `jax.jit`, `jax.value_and_grad`, optax and Orbax see ordinary pytrees.

Training mode is explicit and belongs to one binding: `bind(params, train=True)` gives a module whose batch norms
use the batch and whose spectral norms iterate; both write what moved into their own copy, and `unbind` reads it:

    def loss(params):
        module = network.bind(params, train=True)
        ...
        return value, network.unbind(module)   # aux: the same tree with moved statistics
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Params = dict[Any, Any]


class Buffer(nnx.Variable):
    """A stored array that no gradient step touches: a fixed filter, a vector of the power iteration."""


class _SameKey:
    """Stands in for `nnx.Rngs` where only shapes matter: one key, for every stream and call.

    A true `nnx.Rngs` counts its calls, and counting traced values is quadratic in their number (flax 0.12.8 asks every
    tracer for its sharding, whose refusal lists all operations so far): five seconds instead of half a second for the
    full-size renderer.
    """

    def __init__(self) -> None:
        self._key = jax.random.key(0)

    def __call__(self) -> jax.Array:
        return self._key

    def __getattr__(self, stream: str) -> _SameKey:
        return self


class Network:
    """A network's structure without its numbers.

    `build` takes `nnx.Rngs` and returns the module. Nothing is allocated until `init`.
    """

    def __init__(self, build: Callable[[nnx.Rngs], nnx.Module]):
        self._build = build
        module = nnx.eval_shape(lambda: build(_SameKey()))
        self._graph, self._state = nnx.split(module)

    @property
    def abstract(self) -> Params:
        """The parameter tree as `jax.ShapeDtypeStruct` leaves (batch statistics included)."""
        return nnx.to_pure_dict(self._state)

    @property
    def trainable(self) -> Params:
        """The tree of `abstract` with True at learned parameters, False at statistics and buffers."""
        is_param = lambda variable: variable.replace(isinstance(variable, nnx.Param))  # noqa: E731
        return nnx.to_pure_dict(jax.tree.map(is_param, self._state, is_leaf=lambda v: isinstance(v, nnx.Variable)))

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters, drawn one by one: compiling the draws of a whole network together takes minutes."""
        return nnx.to_pure_dict(nnx.state(self._build(nnx.Rngs(key))))

    def bind(self, params: Params, *, train: bool = False) -> nnx.Module:
        """The module holding `params`; call it inside `jax.jit` as often as needed, it costs nothing at run time.

        `train`: see the module docstring; False leaves every statistic as it is.
        """
        state = jax.tree.map(lambda leaf: leaf, self._state)
        nnx.replace_by_pure_dict(state, params)
        module = nnx.merge(self._graph, state, copy=True)
        if train:
            module.set_attributes(training=True, raise_if_not_found=False)
        return module

    def unbind(self, module: nnx.Module) -> Params:
        """The parameter tree of a bound module, for instance after its batch statistics moved."""
        return nnx.to_pure_dict(nnx.state(module))
