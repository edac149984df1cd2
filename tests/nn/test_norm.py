"""Batch and instance norm: evaluation, training, moved statistics, against torch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from ctjax.nn.module import Network
from ctjax.nn.norm import BatchNorm, InstanceNorm, instance_norm

FEATURES = 6
NETWORK = Network(lambda rngs: BatchNorm(FEATURES, rngs=rngs))


def _params() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    draw = {name: random.standard_normal(FEATURES).astype(np.float32) for name in ("scale", "bias", "mean")}
    return draw | {"var": random.uniform(0.5, 2, FEATURES).astype(np.float32)}


def _input() -> np.ndarray:
    return np.random.default_rng(1).normal(2, 3, (3, 4, 5, FEATURES)).astype(np.float32)


def _torch_norm(torch, params):
    norm = torch.nn.BatchNorm2d(FEATURES)
    names = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
    norm.load_state_dict({ours: torch.tensor(params[name]) for ours, name in names.items()}, strict=False)
    return norm


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_equals_torch(train):
    torch = pytest.importorskip("torch")
    params, x = _params(), _input()
    norm = _torch_norm(torch, params).train(train)
    x_t = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    want = norm(x_t)
    (want**3).sum().backward()

    def total(x):
        module = NETWORK.bind(params, train=train)
        y = module(x)
        return jnp.sum(y**3), (y, NETWORK.unbind(module))

    (_, (got, moved)), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(x)
    np.testing.assert_allclose(np.moveaxis(got, -1, 1), want.detach(), atol=1e-5)
    np.testing.assert_allclose(np.moveaxis(slope, -1, 1), x_t.grad, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(moved["mean"], norm.running_mean, rtol=1e-6)
    np.testing.assert_allclose(moved["var"], norm.running_var, rtol=1e-6)


def test_running_variance_is_the_unbiased_one():
    x = _input()
    module = NETWORK.bind(_params(), train=True)
    module(x)
    flat = x.reshape(-1, FEATURES)
    want = 0.9 * _params()["var"] + 0.1 * flat.var(axis=0, ddof=1)
    np.testing.assert_allclose(NETWORK.unbind(module)["var"], want, rtol=1e-5)


def test_statistics_move_once_per_call():
    module = NETWORK.bind(_params(), train=True)
    module(_input())
    once = np.asarray(NETWORK.unbind(module)["mean"])
    module(_input())
    batch = _input().reshape(-1, FEATURES).mean(0)
    np.testing.assert_allclose(NETWORK.unbind(module)["mean"], 0.9 * once + 0.1 * batch, rtol=1e-5)


def test_evaluation_moves_nothing_and_bindings_do_not_share():
    params = _params()
    NETWORK.bind(params, train=True)(_input())
    module = NETWORK.bind(params)
    module(_input())
    for name, array in NETWORK.unbind(module).items():
        np.testing.assert_array_equal(array, params[name])


def test_bfloat16_input_keeps_float32_statistics():
    module = NETWORK.bind(_params(), train=True)
    assert module(jnp.asarray(_input(), jnp.bfloat16)).dtype == jnp.bfloat16
    assert NETWORK.unbind(module)["mean"].dtype == jnp.float32


def test_one_value_per_channel_cannot_train():
    with pytest.raises(ValueError, match="more than one value"):
        NETWORK.bind(_params(), train=True)(np.zeros((1, 1, 1, FEATURES), np.float32))


def test_instance_norm_equals_torch():
    torch = pytest.importorskip("torch")
    x = _input()
    want = torch.nn.functional.instance_norm(torch.tensor(np.moveaxis(x, -1, 1)))
    np.testing.assert_allclose(np.moveaxis(instance_norm(x), -1, 1), want, atol=1e-5)


def test_affine_instance_norm():
    network = Network(lambda rngs: InstanceNorm(FEATURES, rngs=rngs))
    params = {"scale": _params()["scale"], "bias": _params()["bias"]}
    got = network.bind(params)(_input())
    np.testing.assert_allclose(got, instance_norm(_input()) * params["scale"] + params["bias"], atol=1e-6)
    assert isinstance(network.bind(params).scale, nnx.Param)
