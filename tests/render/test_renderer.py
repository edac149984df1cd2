"""The renderer's public methods, its training mode and its refusals, on a network of toy size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import Record

from convert import facevid2vid, rules
from ctjax.motion.keypoints import transform_keypoints
from ctjax.nn.module import Network
from ctjax.render.dense_motion import DenseMotionConfig
from ctjax.render.generator import GeneratorConfig, SpadeDecoderConfig, build_generator
from ctjax.render.head_estimator import HeadEstimatorConfig
from ctjax.render.keypoint_detector import KeypointDetectorConfig
from ctjax.render.renderer import Renderer, RendererConfig, config_from_reference, seen_at
from ctjax.types import UserError

KEYPOINTS, SIZE = 5, 32
TINY = RendererConfig(
    generator=GeneratorConfig(
        block_expansion=4,
        max_features=16,
        reshape_channel=4,
        reshape_depth=4,
        num_resblocks=1,
        dense_motion=DenseMotionConfig(
            num_kp=KEYPOINTS,
            feature_channel=4,
            block_expansion=4,
            max_features=8,
            num_blocks=2,
            reshape_depth=4,
            compress=2,
        ),
        spade=SpadeDecoderConfig(ic=16, oc=4, label_nc=16, hidden=8, middle_blocks=2),
    ),
    kp_detector=KeypointDetectorConfig(
        num_kp=KEYPOINTS, block_expansion=4, max_features=8, num_blocks=2, reshape_channel=32, reshape_depth=4
    ),
    he_estimator=HeadEstimatorConfig(num_kp=KEYPOINTS, block_expansion=4, widths=(16, 32), bottlenecks=(1, 1)),
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(TINY)


@pytest.fixture(scope="module")
def params(renderer):
    return renderer.init(jax.random.key(0))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(3, SIZE, SIZE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def keypoints() -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.7, 0.7, (3, KEYPOINTS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def render(renderer):
    return jax.jit(
        lambda params, image, source, driving: renderer.render(
            params, renderer.encode_source(params, image, source), driving
        )
    )


def test_parts_are_named_as_in_the_checkpoints(renderer):
    assert set(renderer.abstract) == {"generator", "kp_detector", "he_estimator"}


def test_image_to_keypoints_to_image(renderer, params, images):
    @jax.jit
    def run(params, image):
        canonical, pose = renderer.canonical_keypoints(params, image), renderer.head_pose(params, image)
        posed = transform_keypoints(canonical, pose)
        return posed, renderer.drive(params, renderer.encode_source(params, image, posed), posed)

    posed, image_01 = run(params, images)
    assert posed.shape == (3, KEYPOINTS, 3)
    assert image_01.shape == images.shape
    assert image_01.dtype == jnp.float32
    assert 0 < image_01.min() < image_01.max() < 1


def test_one_source_serves_many_driving_keypoints(params, images, keypoints, render):
    together = render(params, images[:1], keypoints[:1], keypoints)
    repeated = render(params, images[[0, 0, 0]], keypoints[[0, 0, 0]], keypoints)
    np.testing.assert_allclose(together.image_01, repeated.image_01, atol=1e-5)
    assert np.abs(together.image_01[0] - together.image_01[1]).max() > 1e-3


def test_intermediates_say_what_was_done(params, images, keypoints, render):
    rendering = render(params, images, keypoints, keypoints[::-1])
    cells = SIZE // 4
    assert rendering.mask.shape == (3, 4, cells, cells, KEYPOINTS + 1)
    np.testing.assert_allclose(rendering.mask.sum(-1), 1, atol=1e-5)
    assert rendering.deformation.shape == (3, 4, cells, cells, 3)
    assert rendering.occlusion.shape == (3, cells, cells, 1)
    assert rendering.occlusion.min() >= 0 and rendering.occlusion.max() <= 1


def test_bfloat16_parameters_give_a_close_float32_image(params, images, keypoints, render):
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    got = render(half, images, keypoints, keypoints[::-1])
    want = render(params, images, keypoints, keypoints[::-1])
    assert got.image_01.dtype == got.mask.dtype == got.deformation.dtype == jnp.float32
    assert 1e-5 < np.sqrt(np.mean((got.image_01 - want.image_01) ** 2)) < 0.03  # it did compute in bfloat16


def test_training_moves_every_statistic_and_evaluation_none(renderer, params, images):
    @jax.jit
    def train(params):
        net = renderer.bind(params, train=True)
        posed = transform_keypoints(net.kp_detector(images).keypoints, net.he_estimator(images).head_pose)
        net.generator(net.generator.encode(images), posed, posed[::-1])
        return renderer.unbind(net)

    moved = train(params)
    fixed_filter = moved["kp_detector"].pop("down")
    np.testing.assert_array_equal(fixed_filter["kernel"], params["kp_detector"]["down"]["kernel"])
    trainable = dict(renderer.trainable)
    trainable["kp_detector"] = {k: v for k, v in trainable["kp_detector"].items() if k != "down"}
    before = params | {"kp_detector": {k: v for k, v in params["kp_detector"].items() if k != "down"}}
    stays = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), before, moved)
    assert stays == trainable  # learned leaves stay, all others moved


def test_training_differs_from_evaluation(renderer, params, images, keypoints, render):
    @jax.jit
    def train(params):
        net = renderer.bind(params, train=True)
        return net.generator(net.generator.encode(images), keypoints, keypoints[::-1]).image_01

    assert np.abs(train(params) - render(params, images, keypoints, keypoints[::-1]).image_01).max() > 0.01


@pytest.mark.full
def test_gradients_reach_every_learned_parameter_of_the_generator(renderer, params, images, keypoints):
    @jax.jit
    def slopes(params):
        def loss(params):
            net = renderer.bind(params, train=True)
            image_01 = net.generator(net.generator.encode(images), keypoints, keypoints[::-1]).image_01
            return jnp.mean((image_01 - images) ** 2)

        return jax.grad(loss)(params)["generator"]

    nonzero = jax.tree.map(lambda slope: bool(np.any(slope)), slopes(params))
    learned = rules.leaves(renderer.trainable["generator"])
    for path, moved in rules.leaves(nonzero).items():
        assert moved or not learned[path], path


def test_recorded_statistics_after_one_training_pass():
    """The released training code's buffers after its first step, those that one forward pass decides."""
    record = Record("renderer_losses")
    config = config_from_reference(record.config).generator
    network = Network(lambda rngs: build_generator(config, rngs=rngs))
    params = rules.apply(facevid2vid.TABLE, record.weights["generator"], network.abstract, name="generator")[0]

    @jax.jit
    def run(params, image):
        net = network.bind(params, train=True)
        net.encode(image)
        net.decoder.up_0.conv_0.normalised_kernel()
        return network.unbind(net)

    moved = run(params, record.image("source_u8_train"))
    record.check("train/after/generator.first.norm.running_mean", moved["first"]["norm"]["mean"])
    record.check("train/after/generator.first.norm.running_var", moved["first"]["norm"]["var"])
    record.check("train/after/generator.decoder.up_0.conv_0.weight_u", moved["decoder"]["up_0"]["conv_0"]["u"])


def test_jacobian_starts_at_the_identity(images):
    config = dataclasses.replace(TINY, kp_detector=dataclasses.replace(TINY.kp_detector, estimate_jacobian=True))
    renderer = Renderer(config)
    params = renderer.init(jax.random.key(0))
    jacobian = jax.jit(lambda params: renderer.bind(params).kp_detector(images).jacobian)(params)
    np.testing.assert_allclose(jacobian, np.broadcast_to(np.eye(3), (3, KEYPOINTS, 3, 3)), atol=1e-5)


def test_size_that_does_not_halve_is_refused(renderer, keypoints):
    image = jax.ShapeDtypeStruct((3, 40, 40, 3), jnp.float32)
    with pytest.raises(ValueError, match="multiples of 16 pixels"):
        jax.eval_shape(
            lambda p, i: renderer.drive(p, renderer.encode_source(p, i, keypoints), keypoints), renderer.abstract, image
        )


def test_renderer_without_head_estimator_says_so(images):
    renderer = Renderer(dataclasses.replace(TINY, he_estimator=None))
    assert "he_estimator" not in renderer.abstract
    with pytest.raises(ValueError, match="no head estimator"):
        renderer.head_pose({}, images)


def test_depth_that_does_not_divide_the_channels_is_refused():
    generator = dataclasses.replace(TINY.generator, reshape_depth=3)
    with pytest.raises(ValueError, match="should equal max_features = 16"):
        Renderer(dataclasses.replace(TINY, generator=generator))


@pytest.mark.parametrize("name, value", [("ic", 8), ("label_nc", 32)])
def test_widths_of_the_decoder_that_do_not_fit_are_refused(name, value):
    spade = dataclasses.replace(TINY.generator.spade, **{name: value})
    generator = dataclasses.replace(TINY.generator, spade=spade)
    with pytest.raises(ValueError, match=f"spade.{name} is {value}, must be 16"):
        Renderer(dataclasses.replace(TINY, generator=generator))


def test_dense_motion_of_another_volume_is_refused():
    motion = dataclasses.replace(TINY.generator.dense_motion, feature_channel=8)
    generator = dataclasses.replace(TINY.generator, dense_motion=motion)
    with pytest.raises(ValueError, match="dense_motion.feature_channel is 8, must be 4"):
        Renderer(dataclasses.replace(TINY, generator=generator))


def test_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match="'spade' or 'original'"):
        config_from_reference({}, decoder="plain")


def test_parts_of_different_keypoints_are_no_renderer():
    other = dataclasses.replace(TINY.kp_detector, num_kp=KEYPOINTS + 1)
    with pytest.raises(UserError, match="numbers of keypoints: generator 5, kp_detector 6, he_estimator 5"):
        dataclasses.replace(TINY, kp_detector=other)


@pytest.mark.parametrize(
    "scale, strides", [(1.0, (4, 1)), (0.5, (8, 2)), (0.25, (16, 4)), (2.0, (2, 1)), (0.4, (10, 2))]
)
def test_estimators_may_see_pictures_scaled(params, scale, strides):
    """Filters of the new scale, everything else as it was; the picture may have so many more pixels then."""
    config, seen = seen_at(TINY, params, scale)
    assert (config.kp_detector.stride, config.he_estimator.stride) == strides
    scaled = Renderer(config)
    assert jax.tree.map(jnp.shape, seen) == jax.tree.map(jnp.shape, scaled.abstract)
    for part in params:
        kept = {name: value for name, value in seen[part].items() if name != "down"}
        assert all(value is params[part][name] for name, value in kept.items())
    image = np.random.default_rng(0).uniform(size=(1, 16 * strides[0], 16 * strides[0], 3)).astype(np.float32)
    assert scaled.canonical_keypoints(seen, image).shape == (1, KEYPOINTS, 3)
    assert scaled.head_pose(seen, image).expression.shape == (1, KEYPOINTS, 3)
