"""Alpha over training steps and over a clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.motion.alpha import Ramp
from ctjax.types import UserError


@pytest.mark.parametrize("kind", ["linear", "cosine", "staged"])
def test_ramps_rise_from_start_to_end(kind):
    ramp = jax.jit(jax.vmap(Ramp(kind, steps=100, begin=10, start=0.1, end=0.9)))
    values = ramp(jnp.arange(200))
    np.testing.assert_allclose(values[:11], 0.1, atol=1e-6)
    np.testing.assert_allclose(values[110:], 0.9, atol=1e-6)
    assert (jnp.diff(values) >= 0).all()


def test_shapes_of_the_ramps():
    assert Ramp("linear", steps=100)(25) == pytest.approx(0.25)
    assert Ramp("cosine", steps=100)(25) == pytest.approx((1 - np.cos(np.pi / 4)) / 2)
    assert Ramp("cosine", steps=100)(50) == pytest.approx(0.5)
    staged = [float(Ramp("staged", steps=100, stages=4)(step)) for step in range(100)]
    assert sorted(set(staged)) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [staged.count(value) for value in (0.0, 0.25, 0.5, 0.75, 1.0)] == [20] * 5


def test_no_steps_is_a_jump():
    assert [float(Ramp("linear", steps=0, begin=3)(step)) for step in (2, 3, 4)] == [0.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "wrong", [{"kind": "wavy"}, {"steps": -1}, {"begin": -1}, {"stages": 0}, {"end": float("nan")}]
)
def test_senseless_ramps_are_refused(wrong):
    with pytest.raises(UserError, match="alpha ramp"):
        Ramp(**wrong)
