"""The FID network against a plain PyTorch twin with rule-made weights, and its conversion."""

import functools

import jax
import numpy as np
import pytest
import rule_weights

from convert import inception as conversion
from convert import rules
from ctjax.evaluate import inception

torch = pytest.importorskip("torch")
F = torch.nn.functional


class Twin:
    """pytorch-fid's forward pass as plain functional calls on a state dict, in float64."""

    def __init__(self, state):
        self.state = {k: torch.as_tensor(v).double() for k, v in state.items()}

    def conv(self, x, name, stride=1, padding=0):
        get = self.state.get
        x = F.conv2d(x, get(f"{name}.conv.weight"), stride=stride, padding=padding)
        mean, var, scale, bias = (get(f"{name}.bn.{p}") for p in ("running_mean", "running_var", "weight", "bias"))
        return F.relu(F.batch_norm(x, mean, var, scale, bias, eps=1e-3))

    def chain(self, x, block, *layers):
        """Layers as (name, padding) or (name, padding, stride)."""
        for name, padding, *stride in layers:
            x = self.conv(x, f"{block}.{name}", *(stride or [1]), padding=padding)
        return x

    def pool(self, x, block, average=True):
        if average:
            x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        else:
            x = F.max_pool2d(x, 3, stride=1, padding=1)
        return self.conv(x, f"{block}.branch_pool")

    def block_a(self, x, n):
        five = self.chain(x, n, ("branch5x5_1", 0), ("branch5x5_2", 2))
        double = self.chain(x, n, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 1))
        return torch.cat([self.conv(x, f"{n}.branch1x1"), five, double, self.pool(x, n)], 1)

    def block_b(self, x, n):
        double = self.chain(x, n, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1), ("branch3x3dbl_3", 0, 2))
        return torch.cat([self.conv(x, f"{n}.branch3x3", 2), double, F.max_pool2d(x, 3, stride=2)], 1)

    def block_c(self, x, n):
        row, column = (0, 3), (3, 0)
        single = self.chain(x, n, ("branch7x7_1", 0), ("branch7x7_2", row), ("branch7x7_3", column))
        pads = (0, column, row, column, row)
        double = self.chain(x, n, *((f"branch7x7dbl_{i + 1}", p) for i, p in enumerate(pads)))
        return torch.cat([self.conv(x, f"{n}.branch1x1"), single, double, self.pool(x, n)], 1)

    def block_d(self, x, n):
        small = self.chain(x, n, ("branch3x3_1", 0), ("branch3x3_2", 0, 2))
        names = (("branch7x7x3_1", 0), ("branch7x7x3_2", (0, 3)), ("branch7x7x3_3", (3, 0)), ("branch7x7x3_4", 0, 2))
        return torch.cat([small, self.chain(x, n, *names), F.max_pool2d(x, 3, stride=2)], 1)

    def block_e(self, x, n, average):
        single = self.conv(x, f"{n}.branch3x3_1")
        double = self.chain(x, n, ("branch3x3dbl_1", 0), ("branch3x3dbl_2", 1))
        parts = [self.conv(x, f"{n}.branch1x1")]
        for tensor, name in ((single, "branch3x3_2"), (double, "branch3x3dbl_3")):
            parts.append(self.conv(tensor, f"{n}.{name}a", padding=(0, 1)))
            parts.append(self.conv(tensor, f"{n}.{name}b", padding=(1, 0)))
        return torch.cat([*parts, self.pool(x, n, average)], 1)

    def __call__(self, image_u8):
        x = torch.as_tensor(np.moveaxis(image_u8, -1, 1) / 255.0)
        x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", 2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", padding=1), 3, stride=2)
        x = F.max_pool2d(self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, stride=2)
        for letter in "bcd":
            x = self.block_a(x, f"Mixed_5{letter}")
        x = self.block_b(x, "Mixed_6a")
        for letter in "bcde":
            x = self.block_c(x, f"Mixed_6{letter}")
        x = self.block_d(x, "Mixed_7a")
        x = self.block_e(self.block_e(x, "Mixed_7b", True), "Mixed_7c", False)
        return x.mean((2, 3)).numpy()


SUFFIXES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


@functools.cache
def _published(divisor):
    """(rule-made state dict under pytorch-fid's keys, features function, parameters)."""
    shapes = {"fc.weight": (1008, 2048 // divisor), "fc.bias": (1008,)}
    for path, leaf in rules.leaves(inception.network(inception.InceptionConfig(divisor)).abstract).items():
        parent, suffix = path.rsplit(".", 1)
        *size, inputs, outputs = leaf.shape if suffix == "kernel" else (None, None)
        shapes[f"{parent}.{SUFFIXES[suffix]}"] = (outputs, inputs, *size) if suffix == "kernel" else leaf.shape
        if suffix == "mean":
            shapes[f"{parent}.num_batches_tracked"] = ()
    state = {key: rule_weights.entry("inception", key, shape) for key, shape in shapes.items()}
    config = conversion.infer_config(state)
    assert config == inception.InceptionConfig(divisor)
    network = inception.network(config)
    params, report = rules.apply(conversion.TABLE, state, network.abstract, name="inception")
    assert "fc.weight" in report.ignored
    return state, jax.jit(lambda p, x: network.bind(p)(x)), params


@pytest.mark.parametrize(
    "divisor", [16, pytest.param(1, marks=pytest.mark.full)], ids=["a sixteenth of the width", "full width"]
)
@pytest.mark.parametrize("size", [(120, 97), (320, 310)], ids=["enlarged", "shrunk"])
def test_features_equal_the_twin(divisor, size):
    image_u8 = np.random.default_rng(3).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    state, features, params = _published(divisor)
    got, want = np.asarray(features(params, inception.resize_for_inception(image_u8))), Twin(state)(image_u8)
    assert got.shape == (2, 2048 // divisor)
    assert np.abs(want[0] - want[1]).max() > 1e-3 * np.abs(want).max(), "the twin does not see the picture"
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
