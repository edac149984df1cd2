"""Parameters drawn with numpy for any network, so that a test does not wait for the compiler to initialise one."""

import jax
import numpy as np


def draw(abstract, seed=0, gains=None):
    """Kernels normal with variance gain^2 / fan-in, scales and variances 1, biases and means 0, others small normal.

    gains: {part of a dotted path: gain}, 1 elsewhere.
    """
    rng = np.random.default_rng(seed)

    def leaf(path, like):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        gain = next((g for part, g in (gains or {}).items() if part in name), 1.0)
        last = name.rsplit(".", 1)[-1]
        if last in ("scale", "var"):
            return np.ones(like.shape, like.dtype)
        if last in ("bias", "mean"):
            return np.zeros(like.shape, like.dtype)
        fan_in = np.prod(like.shape[:-1]) if len(like.shape) > 1 else 100.0
        return (gain * rng.normal(size=like.shape) / np.sqrt(fan_in)).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, abstract)
