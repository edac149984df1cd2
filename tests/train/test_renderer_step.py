"""Training the renderer: what a step changes, on one device and on eight; what it refuses; and that it learns."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import tiny_renderer as tiny
from jax.extend.core import jaxprs_in_params

from ctjax import parallel, weights
from ctjax.losses import discriminator
from ctjax.losses.discriminator import DiscriminatorConfig, Verdict
from ctjax.losses.landmark import LANDMARKS
from ctjax.losses.renderer_total import (
    LossWeights,
    Posed,
    Reconstruction,
    RendererLossConfig,
    discriminator_terms,
    generator_terms,
)
from ctjax.motion.keypoints import transform_keypoints
from ctjax.render.renderer import Renderer
from ctjax.train import loop, metrics, partition, renderer_step
from ctjax.train.optim import OptimizerConfig
from ctjax.train.renderer_step import RendererTask, RendererTraining
from ctjax.train.renderer_update import Outcome, RendererUpdate, _moved_to
from ctjax.types import UserError

HERE = pathlib.Path(__file__).parent

TERMS = {
    "perceptual",
    "generator_gan",
    "feature_matching",
    "equivariance_value",
    "keypoint",
    "head_pose",
    "expression",
    "discriminator_gan",
}


@pytest.fixture(scope="module")
def start():
    update = RendererUpdate(tiny.update_config())
    return (update, *tiny.start(update))


def two_steps(devices: int, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Metrics and state of two steps on so many devices."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)])}
    command = [sys.executable, str(HERE / "renderer_devices.py"), str(devices), str(folder / f"{devices}.npz")]
    subprocess.run(command, check=True, env=environment)
    with np.load(folder / f"{devices}.npz") as data:
        return dict(data)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    return two_steps(1, tmp_path_factory.mktemp("devices"))


# --- what a step does ---


def test_every_loss_is_reported_and_finite(after):
    for number in range(2):
        named = {name.split("/")[1]: value for name, value in after.items() if name.startswith(f"{number}/")}
        assert named.keys() == TERMS | {"loss", "gradient_norm", "discriminator_gradient_norm"}
        assert all(np.isfinite(value) for value in named.values())
        generator_side = sum(named[term] for term in TERMS - {"discriminator_gan"})
        np.testing.assert_allclose(named["loss"], generator_side, rtol=1e-5)


def test_a_step_moves_parameters_statistics_and_both_opponents(start, after):
    _, state, _ = start
    assert after["state['step']"] == after["state['discriminator']['step']"] == 2
    for part in ("['params']['generator']", "['statistics']['he_estimator']", "['discriminator']['params']"):
        assert [name for name in after if name.startswith(f"state{part}")], part
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = f"state{jax.tree_util.keystr(path)}"
        if "['params']" in name and name.endswith("['kernel']") and "jacobian" not in name:
            assert not np.array_equal(after[name], leaf), name
    mean = "['generator']['first']['norm']['mean']"
    assert not np.array_equal(
        after[f"state['statistics']{mean}"], state["statistics"]["generator"]["first"]["norm"]["mean"]
    )


def test_the_average_lies_between_start_and_present(start, after):
    path = "['generator']['fourth']['kernel']"
    begin = np.asarray(start[1]["params"]["generator"]["fourth"]["kernel"])
    now, average = after[f"state['params']{path}"], after[f"state['ema']{path}"]
    assert 0 < abs(average - begin).sum() < abs(now - begin).sum()


def test_the_average_covers_the_norms_moments_and_nothing_that_has_a_length(start, after):
    update, state, _ = start
    first = "['generator']['first']['norm']['mean']"
    began = state["statistics"]["generator"]["first"]["norm"]["mean"]
    averaged, now = after[f"state['ema_moments']{first}"], after[f"state['statistics']{first}"]
    assert np.abs(averaged - began).max() > 0 and np.abs(averaged - now).max() > 0
    assert {path[-1] for path, _ in partition.leaves(state["ema_moments"])} == {"mean", "var"}

    moved = {**state, "ema_moments": jax.tree.map(lambda leaf: leaf + 1, state["ema_moments"])}
    by_path = [dict(partition.leaves(update.renderer_params(moved, {}, averaged=chosen))) for chosen in (True, False)]
    for path, leaf in partition.leaves(state["statistics"]):
        np.testing.assert_array_equal(by_path[0][path], leaf + (path[-1] in ("mean", "var")))
        np.testing.assert_array_equal(by_path[1][path], leaf)


@pytest.mark.full
def test_eight_devices_do_what_one_does(after, tmp_path):
    """Batch statistics, losses, gradients and both updates are those of the whole batch."""
    eight = two_steps(8, tmp_path)
    assert eight.keys() == after.keys()
    for name, value in eight.items():
        scale = max(1e-3, float(abs(after[name]).max(initial=0)))
        assert abs(value - after[name]).max(initial=0) <= 1e-6 * scale, name


def _count(jaxpr, primitive: str) -> int:
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name == primitive
        found += sum(_count(inner, primitive) for inner in jaxprs_in_params(equation.params))
    return found


def test_the_generator_runs_once_a_step(start):
    """The picture and the occlusion map are the only sigmoids there are."""
    update, state, frozen = start
    whole = jax.make_jaxpr(update.step)(state, frozen, tiny.batch(0, 2))
    assert _count(whole.jaxpr, "logistic") == 2


def test_half_precision_reaches_the_heavy_networks_and_nothing_that_is_kept(start):
    update = RendererUpdate(tiny.update_config(compute="bfloat16"))
    _, state, frozen = start
    new, found = jax.eval_shape(update.step, state, frozen, tiny.batch(0, 2))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}
    assert jax.tree.map(lambda a: a.dtype, new) == jax.tree.map(lambda a: a.dtype, state)
    text = str(jax.make_jaxpr(update.step)(state, frozen, tiny.batch(0, 2)))
    assert text.count("bf16") > 1000


def _convolved_in(function, *arguments) -> set[str]:
    """The dtypes of what goes through convolutions."""
    found = set()

    def look(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "conv_general_dilated":
                found.add(str(equation.invars[0].aval.dtype))
            for inner in jaxprs_in_params(equation.params):
                look(inner)

    look(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def test_both_judges_look_in_half_precision(start):
    update = RendererUpdate(tiny.update_config(compute="bfloat16"))
    _, state, frozen = start
    batch = tiny.batch(0, 2)
    judge, picture = state["discriminator"], np.float32(batch["driving_u8"] / 255)
    judging = (judge["params"], judge["statistics"], picture, batch)
    assert _convolved_in(update.discriminator_objective, *judging) == {"bfloat16"}
    assert _convolved_in(lambda image: update._bind_vgg(frozen)(image), picture) == {"bfloat16"}


NO_TERM = LossWeights(
    **{f.name: (0.0,) * n if (n := np.size(f.default)) > 1 else 0.0 for f in dataclasses.fields(LossWeights)}
)


def test_half_precision_compares_the_pictures_as_they_are(start, monkeypatch):
    """A thousandth everywhere: between pictures rounded to bfloat16 it would be nothing here and a 128th there."""
    asked = ("pixel", "mouth_pixel", "mouth_drawn", "inner_mouth")
    losses = RendererLossConfig(weights=dataclasses.replace(NO_TERM, **dict.fromkeys(asked, 1.0)))
    update = RendererUpdate(tiny.update_config(compute="bfloat16", losses=losses))
    _, state, _ = start
    batch = tiny.batch(0, 2)
    landmarks = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 68, 2)).astype(np.float32)
    batch |= {"source_landmarks": landmarks, "driving_landmarks": landmarks}
    batch["driving_inner_mouth"] = np.ones((2, tiny.SIZE, tiny.SIZE), bool)
    target = jnp.float32(batch["driving_u8"]) / 255
    made = Reconstruction(target + 1e-3, target, None, None, None, drawn_01=target + 1e-3)
    monkeypatch.setattr(update, "reconstruct", lambda *_, **__: Outcome(made, None, {}))
    judge = update.discriminator_params(state)
    _, (means, *_) = update.generator_objective(state["params"], state["statistics"], judge, {}, batch, None)
    assert means.keys() == set(asked)
    for name, value in means.items():
        assert float(value) == pytest.approx(2e-3 if name == "inner_mouth" else 1e-3, rel=1e-3), name


def test_what_the_discriminator_says_in_half_precision_is_taken_on_in_float32():
    """A thousandth is lost beside 1 in bfloat16."""

    def says(image_01):
        return (Verdict((), image_01[..., :1].astype(jnp.bfloat16)),)

    shape = (2, 8, 8, 3)
    fake, real = jnp.full(shape, -0.5), jnp.full(shape, 1e-3)
    config = RendererLossConfig(weights=dataclasses.replace(NO_TERM, generator_gan=1.0, discriminator_gan=1.0))
    found = discriminator_terms(fake, real, config, discriminator=says)["discriminator_gan"]
    np.testing.assert_allclose(found, 0.5 + (1 - 1e-3), rtol=1e-5)
    made = Reconstruction(real, real, None, None, None)
    found = generator_terms(made, config, vgg=None, discriminator=says, target_deg=None)["generator_gan"]
    np.testing.assert_allclose(found, 1 - 1e-3, rtol=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("change, tolerance", [({"remat": True}, 1e-5), ({"compute": "bfloat16"}, 0.05)])
def test_saving_memory_or_time_gives_the_same_losses(start, change, tolerance):
    plain, state, frozen = start  # not `after`: its process draws its warps in float64, which are others

    def losses(update: RendererUpdate):
        step = parity.AS_WRITTEN(update.step)
        return step(state, frozen, tiny.batch(0, 8))[1]

    found, expected = losses(RendererUpdate(tiny.update_config(**change))), losses(plain)
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_landmarks_take_the_places_of_the_keypoints_drawn_to_them():
    keypoints = jnp.arange(2 * 16 * 3.0).reshape(2, 16, 3)
    landmarks = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 68, 2)))
    moved = _moved_to(Posed(keypoints), landmarks).keypoints
    np.testing.assert_array_equal(moved[:, :15, :2], landmarks[:, jnp.array(LANDMARKS)])
    np.testing.assert_array_equal(moved[..., 2], keypoints[..., 2])
    np.testing.assert_array_equal(moved[:, 15], keypoints[:, 15])


@pytest.mark.parametrize(
    "drawn_by, places",
    [("estimates", (None, None)), ("landmarks", ("source's", "driving's")), ("driving_landmarks", (None, "driving's"))],
)
def test_which_frames_are_drawn_by_landmarks(drawn_by, places):
    update = RendererUpdate(tiny.update_config(drawn_by=drawn_by))
    assert update.config.needs_landmarks == (drawn_by != "estimates")
    assert update._places("source's", "driving's") == places


# --- fine-tuning ---


def test_frozen_parts_neither_learn_nor_move(start):
    _, state, _ = start
    update = RendererUpdate(tiny.update_config(freeze=("kp_detector", "generator.first", "generator.down_blocks.0")))
    params = partition.merge(state["params"], state["statistics"])
    learned, statistics, frozen = update.split(params)
    assert partition.merge(learned, statistics, frozen).keys() == params.keys()
    for tree in (learned, statistics):
        assert "kp_detector" not in tree
        assert "first" not in tree["generator"]
        assert 0 not in tree["generator"].get("down_blocks", {})
    model = update.bind(params, train=True)
    assert not model.kp_detector.predictor.down_blocks.down0.norm.training
    assert not model.generator.first.norm.training
    assert not model.generator.down_blocks[0].norm.training
    assert model.generator.down_blocks[1].norm.training
    assert model.he_estimator.norm1.training


def test_an_unknown_frozen_part_is_named():
    with pytest.raises(UserError, match="called generator.fifth: it has .*generator.fourth"):
        RendererUpdate(tiny.update_config(freeze=("generator.fifth",)))


# --- what it refuses ---


@pytest.mark.parametrize(
    "drop, message",
    [("driving_pose_deg", r"config\.hopenet.*config\.poses.*head_pose to 0"), ("vgg19", r"config\.vgg19")],
)
def test_a_loss_without_what_it_needs_says_what_supplies_it(start, drop, message):
    update, state, frozen = start
    batch = {name: value for name, value in tiny.batch(0, 2).items() if name != drop}
    frozen = {name: value for name, value in frozen.items() if name != drop}
    with pytest.raises(UserError, match=message):
        jax.eval_shape(update.step, state, frozen, batch)


def test_pictures_of_two_sizes_are_refused(start):
    update, state, frozen = start
    batch = tiny.batch(0, 2)
    batch["source_u8"] = batch["source_u8"][:, :16, :16]
    with pytest.raises(UserError, match=r"source frames are \(16, 16, 3\), driving frames \(32, 32, 3\)"):
        jax.eval_shape(update.step, state, frozen, batch)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({}, "either records"),
        ({"records": ("a",), "crops": ("b",)}, "either records"),
        ({"crops": ("b",), "poses": "truth"}, "knows no poses"),
        ({"crops": ("b",), "closing": 0.5}, "knows none: use records"),
        ({"crops": ("b",), "drawn_by": "landmarks"}, "knows none: use records"),
        ({"crops": ("b",), "opening": 0.5}, "knows none: use records"),
        ({"records": ("a",), "closing": 1.5}, "closing and opening are shares of the pairs"),
        ({"records": ("a",), "closing": 0.6, "opening": 0.6}, "closing and opening are shares of the pairs"),
        ({"records": ("a",), "opening": -0.1}, "closing and opening are shares of the pairs"),
        ({"crops": ("b",), "freeze": ("kp_detector",)}, "no start"),
        ({"crops": ("b",), "losses": RendererLossConfig(clip_length=5)}, "make no clips"),
        ({"crops": ("b",), "size": -64}, "size is a side in pixels"),
        ({"crops": ("b",), "held_out_frames": 0}, "held_out_frames must be at least 1, not 0"),
        *(
            ({"crops": ("b",), "start": "s", "start_scale": scale}, f"start_scale must be 1, 1/2, .* not {scale}")
            for scale in (0.0, -1.0, 2.0, 0.75)
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RendererTraining(**changes)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 1 / 3])
def test_estimators_may_take_every_nth_pixel(scale):
    assert RendererTraining(crops=("b",), start="s", start_scale=scale).start_scale == scale


def test_losses_that_cannot_be_computed_are_refused():
    with pytest.raises(ValueError, match="perceptual has 4 weights, VGG-19 gives 5 layers"):
        LossWeights(perceptual=(1.0,) * 4)
    for alone in ({"closed": 1.0}, {"depth": 1.0}):
        with pytest.raises(ValueError, match="closed and depth are about keypoints on landmarks"):
            LossWeights(**alone)
    for scales in ((), (1.0, 0.75), (2.0,), (0.0,)):
        with pytest.raises(ValueError, match="perceptual_scales must be some of 1, 1/2, 1/3"):
            RendererLossConfig(perceptual_scales=scales)


def _trying(folder: pathlib.Path, **changes) -> RendererTraining:
    """The tiny networks on pictures, with every loss that needs no known pose."""
    tiny.write_crops(folder, clips=2, frames=2)
    losses = dataclasses.replace(tiny.ALL_LOSSES, weights=LossWeights(head_pose=0.0))
    config = RendererTraining(
        crops=(str(folder),),
        renderer=tiny.RENDERER,
        discriminator=tiny.DISCRIMINATOR,
        losses=losses,
        vgg19="untrained",
        vgg19_model=tiny.VGG,
    )
    return dataclasses.replace(config, **changes)


def _weighted(**changes) -> RendererLossConfig:
    return dataclasses.replace(tiny.ALL_LOSSES, weights=LossWeights(head_pose=0.0, **changes))


def _narrower_motion():
    motion = dataclasses.replace(tiny.RENDERER.generator.dense_motion, feature_channel=4)
    return dataclasses.replace(
        tiny.RENDERER, generator=dataclasses.replace(tiny.RENDERER.generator, dense_motion=motion)
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimizer": OptimizerConfig(micro_batches=2)}, "does not fit: optimizer.micro_batches and .* must be 1"),
        ({"discriminator": DiscriminatorConfig(channels=4)}, "does not fit: discriminator.channels is 4"),
        ({"discriminator": DiscriminatorConfig(scales=(0.75,))}, "does not fit: discriminator.scales must be"),
        ({"renderer": _narrower_motion()}, "does not fit: dense_motion.feature_channel is 4, must be 8"),
        ({"renderer": dataclasses.replace(tiny.RENDERER, he_estimator=None)}, "does not fit: .*he_estimator is None"),
        ({"losses": _weighted(equivariance_jacobian=1.0)}, "does not fit: .*kp_detector.estimate_jacobian"),
        ({"losses": _weighted(feature_matching=(10.0,))}, "feature_matching has 1 weights, the discriminator 2 blocks"),
        (
            {"losses": dataclasses.replace(_weighted(), perceptual_scales=(1.0, 0.25))},
            "perceptual_scales: 0.25 of 32 px leaves 8, VGG-19 needs 16",
        ),
        ({"discriminator": DiscriminatorConfig(num_blocks=4)}, "last map of 32 px is 0 cells wide, its losses need 4"),
    ],
)
def test_networks_and_losses_that_do_not_fit_are_refused_before_any_work(tmp_path, changes, message):
    config = _trying(tmp_path)
    RendererTask(config)  # it is the change that is refused
    with pytest.raises(UserError, match=message):
        RendererTask(dataclasses.replace(config, **changes))


@pytest.mark.parametrize(
    "blocks, scales, size", [(2, (1.0, 0.5), 32), (3, (1.0,), 50), (4, (1.0,), 64), (1, (1.0,), 9)]
)
def test_the_discriminators_last_map_is_known_beforehand(blocks, scales, size):
    config = DiscriminatorConfig(scales=scales, block_expansion=2, num_blocks=blocks)
    network = discriminator.network(config)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    verdicts = jax.eval_shape(lambda params, x: network.bind(params)(x), network.abstract, image)
    assert min(v.prediction.shape[1] for v in verdicts) == renderer_step._last_map(config, size)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_start_without_a_head_estimator_is_named(tmp_path, scale):
    """SadTalker's renderer has none unless it is converted with one."""
    config = dataclasses.replace(tiny.RENDERER, he_estimator=None)
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), Renderer(config).abstract)
    weights.save_bundle(tmp_path / "start", network="facevid2vid", config=config, params=params)
    config = _trying(tmp_path / "crops", start=str(tmp_path / "start"), start_scale=scale)
    with pytest.raises(UserError, match=f"{tmp_path}/start: this renderer has no he_estimator.*convert sadtalker"):
        RendererTask(config)


def test_pictures_that_the_renderer_cannot_take_are_refused(tmp_path):
    tiny.write_crops(tmp_path, clips=2, frames=2)
    with pytest.raises(UserError, match="have 32 px, this renderer takes multiples of 128"):
        RendererTask(RendererTraining(crops=(str(tmp_path),), losses=tiny.PIXELS_ONLY))


def test_a_missing_teacher_is_seen_before_any_work(tmp_path):
    tiny.write_crops(tmp_path, clips=2, frames=2)
    config = RendererTraining(crops=(str(tmp_path),), renderer=tiny.RENDERER, vgg19="untrained", vgg19_model=tiny.VGG)
    with pytest.raises(UserError, match=r"head-pose loss has no target: set config\.hopenet"):
        RendererTask(config)
    only_pose = RendererLossConfig(weights=LossWeights(head_pose=0.0))
    with pytest.raises(UserError, match=r"set config\.vgg19"):
        RendererTask(RendererTraining(crops=(str(tmp_path),), renderer=tiny.RENDERER, losses=only_pose))


def test_a_start_on_pictures_half_as_large_sees_the_same(tmp_path):
    """The estimators of a renderer that goes on at twice the size see about what they saw before."""
    small = dataclasses.replace(
        tiny.RENDERER,
        kp_detector=dataclasses.replace(tiny.RENDERER.kp_detector, scale_factor=1.0),
    )
    params = tiny.drawn(Renderer(small).abstract, np.random.default_rng(1))
    weights.save_bundle(tmp_path / "small", network="facevid2vid", config=small, params=params)
    tiny.write_crops(tmp_path / "crops", clips=2, frames=2)
    config = RendererTraining(
        crops=(str(tmp_path / "crops"),), start=str(tmp_path / "small"), start_scale=0.5, losses=tiny.PIXELS_ONLY
    )
    task = RendererTask(config)
    large = task.update.config.renderer
    assert (large.kp_detector.scale_factor, large.he_estimator.scale_factor) == (0.5, 0.5)
    started = task.update.renderer_params(task.init(jax.random.key(0)), task.frozen)
    smooth = np.linspace(0, 1, 32, dtype=np.float32)
    image = np.stack(np.broadcast_arrays(smooth[:, None], smooth[None], np.float32(0.5)), -1)[None]
    twice = image.repeat(2, 1).repeat(2, 2)
    before = Renderer(small).head_pose(params, image)
    after = Renderer(large).head_pose(started, twice)
    shuffled = Renderer(large).head_pose(started, twice[:, ::-1])
    distance = [float(np.abs(before.expression - other.expression).max()) for other in (after, shuffled)]
    assert distance[0] < 0.25 * distance[1]


def test_turned_keypoints_keep_their_own_expression(start):
    update, state, frozen = start
    params = update.renderer_params(state, frozen)
    source, driving = np.random.default_rng(0).uniform(0, 1, (2, 2, tiny.SIZE, tiny.SIZE, 3)).astype(np.float32)
    made = update.reconstruct(params, source, driving, None, train=False, draw=False).made
    pose = [Renderer(tiny.RENDERER).head_pose(params, frames) for frames in (source, driving)]
    change = pose[0].expression - pose[1].expression
    assert np.abs(change).max() > 1e-3
    np.testing.assert_allclose(made.turned - made.driving.keypoints, change, atol=1e-5)
    canonical = Renderer(tiny.RENDERER).canonical_keypoints(params, source)
    np.testing.assert_allclose(made.canonical, canonical, atol=1e-6)
    known = [np.float32([angle, -angle]) for angle in (30.0, -10.0, 5.0)]
    made = update.reconstruct(params, source, driving, None, train=False, draw=False, turn_to=known).made
    angles = dict(zip(("yaw_deg", "pitch_deg", "roll_deg"), known, strict=True))
    as_known = pose[1]._replace(expression=pose[0].expression, **angles)
    np.testing.assert_allclose(made.turned, transform_keypoints(canonical, as_known), atol=1e-5)


# --- it learns, through the loop, and what it learned can be used ---

STEPS = 200


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    crops = folder / "blobs"  # by whose name clips are held out
    tiny.write_crops(crops, clips=60)
    rng = np.random.default_rng(0)
    renderer = tiny.drawn(RendererUpdate(tiny.update_config()).renderer.abstract, rng)
    weights.save_bundle(folder / "start", network="facevid2vid", config=tiny.RENDERER, params=renderer)
    config = RendererTraining(
        crops=(str(crops),),
        start=str(folder / "start"),
        discriminator=tiny.DISCRIMINATOR,
        losses=tiny.PIXELS_ONLY,
        optimizer=tiny.ADAM,
        discriminator_optimizer=tiny.ADAM,
        loop=loop.LoopConfig(steps=STEPS, batch=8, log_every=50, evaluate_every=STEPS, pictures_every=STEPS),
    )
    task = RendererTask(config)
    outcome = loop.run(task, config.loop, folder=folder / "run")
    return task, outcome, folder / "run"


@pytest.mark.full
def test_it_learns_to_move_blobs(trained):
    """On held-out clips the reconstruction is nearer to the driving frame than the source frame is, by 1 dB or more."""
    _, _, folder = trained
    figures = [line for line in metrics.read(folder / "metrics.jsonl") if "held_out/psnr_db" in line]
    first, last = figures[0], figures[-1]
    assert (first["step"], last["step"]) == (0, STEPS)
    assert first["held_out/copy_psnr_db"] == pytest.approx(last["held_out/copy_psnr_db"])
    assert first["held_out/psnr_db"] < first["held_out/copy_psnr_db"]
    assert last["held_out/psnr_db"] > last["held_out/copy_psnr_db"] + 1
    assert {name.split("/")[1] for name in last if name.startswith("held_out/")} == {
        "l1",
        "psnr_db",
        "copy_psnr_db",
        "ssim",
        "keypoint_distance_px",
        "copy_keypoint_distance_px",
        "pose_error_deg",
    }


@pytest.mark.full
def test_pictures_are_drawn(trained):
    _, _, folder = trained
    assert (folder / "pictures" / "pairs" / f"{STEPS:08d}.png").stat().st_size > 1000


@pytest.mark.full
def test_the_export_is_the_trained_renderer(trained):
    task, outcome, folder = trained
    want = task.update.renderer_params(outcome.state, task.frozen)
    found = weights.open_bundle(
        folder / "export" / "renderer", network="facevid2vid", abstract=task.update.renderer.abstract
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, jax.tree.map(np.asarray, want))
    judge = weights.open_bundle(folder / "export" / "discriminator", network="discriminator")
    assert judge.config["num_blocks"] == tiny.DISCRIMINATOR.num_blocks


@pytest.mark.full
def test_each_row_of_the_sheet_has_another_persons_motion(trained, monkeypatch):
    """There are four pairs of each held-out clip; the first batch takes one of each clip before a second."""
    task, outcome, _ = trained
    mesh = parallel.make_mesh()
    batch = next(iter(task.evaluation_data(parallel.rows_of_process(mesh, 8))))
    drawn = []
    monkeypatch.setattr(renderer_step, "sheet", drawn.append)
    task.pictures(outcome.state, task.frozen, parallel.place_batch(mesh, batch), None)
    (shown,) = drawn
    clips = list(batch["clip"][: len(shown.other_01)])
    assert len(set(clips)) == renderer_step.PICTURE_ROWS
    for clip, other in zip(clips, shown.other_01, strict=True):
        whose = [n for n, one in zip(batch["clip"], batch["driving_u8"], strict=True) if np.allclose(one / 255, other)]
        assert whose and clip not in whose


@pytest.mark.full
def test_all_held_out_pairs_are_looked_at(trained):
    task, _, _ = trained
    batches = list(task.evaluation_data(parallel.rows_of_process(parallel.make_mesh(), 8)))
    pairs = np.concatenate([batch["pair"] for batch in batches])
    assert set(pairs) == set(range(len(task._held_out) * task.config.held_out_frames))


def test_persons_take_turns_and_stand_beside_another():
    np.testing.assert_array_equal(renderer_step._in_turn(["a", "a", "b", "a", "c", "b"]), [0, 2, 4, 1, 5, 3])
    np.testing.assert_array_equal(renderer_step._others(["a", "a", "b", "a"]), [2, 2, 3, 2])
    np.testing.assert_array_equal(renderer_step._others(["a", "a", "a"]), [1, 2, 0])
    np.testing.assert_array_equal(renderer_step._others(["a"]), [0])


@pytest.mark.full
def test_the_export_names_the_start_that_was_read(trained, tmp_path):
    """Whatever has been written under its path since."""
    task, outcome, _ = trained
    read = weights.read_manifest(task.config.start)["parameters"]["sha256"]
    assert task.fingerprints == {"start": read}
    params = tiny.drawn(task.update.renderer.abstract, np.random.default_rng(7))
    weights.save_bundle(task.config.start, network="facevid2vid", config=tiny.RENDERER, params=params, overwrite=True)
    task.export(outcome.state, task.frozen, tmp_path)
    assert weights.read_manifest(tmp_path / "renderer")["provenance"]["started_from"] == read
