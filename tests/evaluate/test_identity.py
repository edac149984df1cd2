"""ArcFace against a plain PyTorch twin with rule-made weights; alignment on a face of known pose."""

import cv2
import jax
import numpy as np
import pytest
import rule_weights

from convert import arcface as conversion
from convert import rules
from ctjax.evaluate import identity

torch = pytest.importorskip("torch")
F = torch.nn.functional
LAYERS, WIDTHS, EMBEDDING = (1, 2, 1, 1), (4, 6, 8, 10), 12


def _shapes():
    """arcface_torch's keys and shapes for a small IResNet."""

    def norm(name, channels):
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (channels,)
        yield f"{name}.num_batches_tracked", ()

    yield "conv1.weight", (WIDTHS[0], 3, 3, 3)
    yield from norm("bn1", WIDTHS[0])
    yield "prelu.weight", (WIDTHS[0],)
    channels = WIDTHS[0]
    for stage, (count, width) in enumerate(zip(LAYERS, WIDTHS, strict=True), start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            yield from norm(f"{name}.bn1", channels)
            yield f"{name}.conv1.weight", (width, channels, 3, 3)
            yield from norm(f"{name}.bn2", width)
            yield f"{name}.prelu.weight", (width,)
            yield f"{name}.conv2.weight", (width, width, 3, 3)
            yield from norm(f"{name}.bn3", width)
            if not block:
                yield f"{name}.downsample.0.weight", (width, channels, 1, 1)
                yield from norm(f"{name}.downsample.1", width)
            channels = width
    yield from norm("bn2", channels)
    yield "fc.weight", (EMBEDDING, channels * 49)
    yield "fc.bias", (EMBEDDING,)
    yield from norm("features", EMBEDDING)


@pytest.fixture(scope="module")
def state():
    state = {key: rule_weights.entry("arcface", key, shape) for key, shape in _shapes()}
    return {key: value / 4 if "prelu" in key else value for key, value in state.items()}  # slopes far from 1


def _twin(state, image_u8):
    s = {k: torch.as_tensor(v).double() for k, v in state.items()}

    def norm(x, name):
        parts = (s[f"{name}.{p}"] for p in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-5)

    x = (torch.as_tensor(np.moveaxis(image_u8, -1, 1)).double() / 255 - 0.5) / 0.5
    x = F.prelu(norm(F.conv2d(x, s["conv1.weight"], padding=1), "bn1"), s["prelu.weight"])
    for stage, count in enumerate(LAYERS, start=1):
        for block in range(count):
            n = f"layer{stage}.{block}"
            stride = 1 if block else 2
            y = norm(F.conv2d(norm(x, f"{n}.bn1"), s[f"{n}.conv1.weight"], padding=1), f"{n}.bn2")
            y = F.conv2d(F.prelu(y, s[f"{n}.prelu.weight"]), s[f"{n}.conv2.weight"], stride=stride, padding=1)
            if not block:
                x = norm(F.conv2d(x, s[f"{n}.downsample.0.weight"], stride=stride), f"{n}.downsample.1")
            x = x + norm(y, f"{n}.bn3")
    x = F.linear(norm(x, "bn2").flatten(1), s["fc.weight"], s["fc.bias"])
    return norm(x, "features").numpy()


def test_embeddings_equal_the_twin(state):
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3)).astype(np.uint8)
    config = conversion.infer_config(state)
    assert (config.layers, config.widths, config.embedding) == (LAYERS, WIDTHS, EMBEDDING)
    network = identity.network(config)
    params, _ = rules.apply(conversion.TABLE, state, network.abstract, name="arcface")
    got = jax.jit(lambda p, x: network.bind(p)(x))(params, faces)
    want = _twin(state, faces)
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    assert np.abs(want[0] - want[1]).max() > 1e-3


def test_a_turned_and_scaled_face_lands_on_the_template():
    landmarks = np.zeros((68, 2))
    angle, scale, shift = np.deg2rad(25), 1.7, np.array([90.0, 40.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = identity.TEMPLATE @ rotation.T * scale + shift
    landmarks[36:42], landmarks[42:48] = points[0], points[1]
    landmarks[30], landmarks[48], landmarks[54] = points[2:]
    frame = np.zeros((300, 320, 3), np.uint8)
    nose = tuple(round(v) for v in points[2])
    cv2.circle(frame, nose, 3, (255, 255, 255), -1)
    face = identity.aligned_face(frame, landmarks)
    centre = np.argwhere(face[..., 0] > 128).mean(0)[::-1]
    np.testing.assert_allclose(centre, identity.TEMPLATE[2], atol=0.6)


def test_cosine_similarity():
    a, b = np.array([[3.0, 0], [1, 1]]), np.array([[2.0, 0], [1, -1]])
    np.testing.assert_allclose(identity.cosine_similarity(a, b), [1, 0], atol=1e-7)
