"""Convolutions and their spectral norm, against torch where it is installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.nn.conv import BlockwiseLinear, SpectralConv, conv, linear
from ctjax.nn.module import Network

IN, OUT, KERNEL = 3, 5, 3
SPECTRAL = Network(lambda rngs: SpectralConv(IN, OUT, KERNEL, padding=1, rngs=rngs))


def _params() -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, SPECTRAL.init(jax.random.key(3)))


def _input() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 6, 7, IN)).astype(np.float32)


def _torch_twin(torch, params):
    layer = torch.nn.utils.spectral_norm(torch.nn.Conv2d(IN, OUT, KERNEL, padding=1))
    state = {"bias": "bias", "weight_u": "u", "weight_v": "v"}
    tensors = {name: torch.tensor(params[ours]) for name, ours in state.items()}
    weight = torch.tensor(np.ascontiguousarray(np.transpose(params["kernel"], (3, 2, 0, 1))))
    layer.load_state_dict(tensors | {"weight_orig": weight})
    return layer


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_spectral_conv_equals_torch(train):
    torch = pytest.importorskip("torch")
    params, x = _params(), _input()
    layer = _torch_twin(torch, params).train(train)
    x_t = torch.tensor(np.moveaxis(x, -1, 1))
    calls = 2  # in training every call iterates once
    (sum((layer(x_t) ** 2).sum() for _ in range(calls))).backward()
    want = layer(x_t) if not train else None

    def total(params):
        module = SPECTRAL.bind(params, train=train)
        value = sum(jnp.sum(module(x) ** 2) for _ in range(calls))
        return value, SPECTRAL.unbind(module)

    slope, moved = jax.jit(jax.grad(total, has_aux=True))(params)
    np.testing.assert_allclose(
        np.transpose(slope["kernel"], (3, 2, 0, 1)), layer.weight_orig.grad, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(slope["bias"], layer.bias.grad, rtol=1e-3, atol=1e-3)
    assert not np.any(slope["u"])  # constants to the gradient
    assert not np.any(slope["v"])
    if train:
        np.testing.assert_allclose(moved["u"], layer.weight_u, atol=1e-5)
        np.testing.assert_allclose(moved["v"], layer.weight_v, atol=1e-5)
    else:
        np.testing.assert_allclose(np.moveaxis(SPECTRAL.bind(params)(x), -1, 1), want.detach(), atol=1e-5)
        np.testing.assert_array_equal(moved["u"], params["u"])


def test_spectral_norm_settles_at_one():
    params = _params()
    for _ in range(50):
        module = SPECTRAL.bind(params, train=True)
        kernel = module.normalised_kernel()
        params = SPECTRAL.unbind(module)
    matrix = np.transpose(kernel, (3, 2, 0, 1)).reshape(OUT, -1)
    np.testing.assert_allclose(np.linalg.norm(matrix, ord=2), 1.0, rtol=1e-4)


def test_stored_vectors_decide_in_evaluation():
    params = _params()
    sigma = params["u"] @ np.transpose(params["kernel"], (3, 2, 0, 1)).reshape(OUT, -1) @ params["v"]
    np.testing.assert_allclose(SPECTRAL.bind(params).normalised_kernel(), params["kernel"] / sigma, rtol=1e-4)


def test_bfloat16_input_gives_bfloat16():
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), _params())
    assert SPECTRAL.bind(params)(jnp.asarray(_input(), jnp.bfloat16)).dtype == jnp.bfloat16


def test_trainable_leaves_are_the_learned_ones():
    assert SPECTRAL.trainable == {"kernel": True, "bias": True, "u": False, "v": False}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_fresh_weights_have_torch_bounds(rank):
    network = Network(lambda rngs: conv(4, 8, (3,) * rank, rngs=rngs))
    params = network.init(jax.random.key(0))
    bound = 1 / np.sqrt(4 * 3**rank)
    for leaf in params.values():
        assert np.abs(leaf).max() <= bound
    assert np.abs(params["kernel"]).max() > 0.9 * bound
    assert np.abs(params["bias"]).max() > 0.3 * bound


def test_fresh_linear_layer_has_torch_bounds():
    params = Network(lambda rngs: linear(16, 64, rngs=rngs)).init(jax.random.key(0))
    assert 0.2 < np.abs(params["kernel"]).max() <= 0.25
    assert 0.2 < np.abs(params["bias"]).max() <= 0.25


@pytest.mark.parametrize("in_features", [64, 100, 2048])
def test_blockwise_linear_is_a_linear_layer_with_less_rounding(in_features):
    network = Network(lambda rngs: BlockwiseLinear(in_features, 7, rngs=rngs))
    random = np.random.default_rng(0)
    kernel = random.standard_normal((in_features, 7)).astype(np.float32)
    params = {"kernel": kernel, "bias": random.standard_normal(7).astype(np.float32)}
    x = random.standard_normal((2, in_features)).astype(np.float32)
    want = x.astype(np.float64) @ kernel + params["bias"]
    np.testing.assert_allclose(network.bind(params)(x), want, atol=2e-7 * in_features**0.5 * np.abs(want).max())
