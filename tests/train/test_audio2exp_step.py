"""Training Audio2Exp through tiny frozen networks: what moves, what must not, and what is written down."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import drawn_params
import jax
import jax.numpy as jnp
import numpy as np
import parity
import portpicker
import pytest
import tiny_renderer

from ctjax import config, parallel, weights
from ctjax.data.records import RecordsError
from ctjax.data.transforms import PAIRINGS
from ctjax.losses import vgg19, wav2lip_syncnet
from ctjax.losses.sync_expert import MelTowerConfig, SyncExpert, SyncExpertConfig
from ctjax.losses.total import Audio2ExpWeights
from ctjax.losses.wav2lip_syncnet import Wav2LipSyncNetConfig
from ctjax.motion.alpha import Ramp
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.render.renderer import ESTIMATORS, Renderer
from ctjax.train import frozen, loop, metrics, sync_expert_step
from ctjax.train.audio2exp_step import Audio2ExpTask, Audio2ExpTraining, ExpertChoice
from ctjax.train.optim import OptimizerConfig
from ctjax.train.sync_expert_step import SyncExpertTask, SyncExpertTraining
from ctjax.types import UserError

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "data"))
import toy_records  # noqa: E402

AUDIO = Audio2ExpConfig(channels=toy_records.CHANNELS, widths=(32, 24, 16, 24), num_kp=tiny_renderer.KEYPOINTS)
EXPERT = SyncExpertConfig(frames=3, crop=16, widths=(8, 16), audio=AUDIO)
GOOD = {"chance": 0.1, "rank1_within_clip": 0.6}


def features_of(renderer, params):
    """What prepare.py adds to a record from the renderer."""

    @jax.jit
    def estimate(images_01):
        pose = renderer.head_pose(params, images_01)
        return {"canonical": renderer.canonical_keypoints(params, images_01), **pose._asdict()}

    return lambda images_01: jax.tree.map(np.asarray, estimate(images_01))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of records and bundles that belong together."""
    folder = tmp_path_factory.mktemp("world")
    renderer = Renderer(tiny_renderer.RENDERER)
    params = drawn_params.draw(renderer.abstract, 0, {"conv_img": 0.2, "mask": 0.3})
    manifest = weights.save_bundle(
        folder / "renderer", network="facevid2vid", config=tiny_renderer.RENDERER, params=params
    )
    made_by = {"renderer": weights.fingerprint(manifest, ESTIMATORS)}
    toy_records.write(
        folder / "records",
        clips=9,
        persons=6,
        frames=24,
        size=tiny_renderer.SIZE,
        add=features_of(renderer, params),
        features=made_by,
    )
    expert = SyncExpert(EXPERT)
    report = {"hubert": "toy", "report": {"real": GOOD, "reconstructed": GOOD}}
    parameters = drawn_params.draw(expert.abstract, 1)
    for name, provenance in (("expert", report), ("unmeasured", {"hubert": "toy"})):
        weights.save_bundle(
            folder / name, network="sync_expert", config=EXPERT, params=parameters, provenance=provenance
        )
    vgg = vgg19.network(tiny_renderer.VGG)
    weights.save_bundle(
        folder / "vgg19", network="vgg19", config=tiny_renderer.VGG, params=drawn_params.draw(vgg.abstract, 2)
    )
    return folder


def recipe(world, **changes):
    settings = {
        "records": (str(world / "records"),),
        "renderer": str(world / "renderer"),
        "expert": ExpertChoice(str(world / "expert")),
        "vgg19": str(world / "vgg19"),
        "frames": 4,
        "evaluation_batches": 1,
        "alpha": Ramp(steps=10, start=0.5),
        "weights": Audio2ExpWeights(perceptual=0.1, sync=1.0),
        "optimizer": OptimizerConfig(lr=2e-3, warmup=2, ema=0.9),
        "loop": loop.LoopConfig(steps=12, batch=8, log_every=1, save_every=6, evaluate_every=12, pictures_every=12),
    }
    return Audio2ExpTraining(**(settings | changes))


@pytest.fixture(scope="module")
def task(world):
    return Audio2ExpTask(recipe(world))


@pytest.fixture(scope="module")
def batch(task):
    return next(iter(task.training_data(parallel.Rows(8, 0, 8))))


@pytest.fixture(scope="module")
def trained(world, task, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    before = jax.tree.map(np.copy, task.frozen)
    outcome = loop.run(task, task.config.loop, folder=run)
    return run, outcome, before


def test_zero_layer_gives_the_reconstruction_to_the_bit(task, batch):
    params = task.init(jax.random.key(0))["params"]
    encoded, run = task.encode(params, task.frozen, batch), jax.jit(task.terms.edited)
    plain, none = run(params, task.frozen, encoded, batch, 0.0, 0.0)
    edited, delta = run(params, task.frozen, encoded, batch, 1.0, 1.0)
    assert np.array_equal(plain, edited)
    assert not np.any(delta) and not np.any(none)
    assert plain.shape == (8, 4, 32, 32, 3)


def test_what_is_frozen_is_heard_once(world, task, batch, tmp_path):
    """The expert's own encoder is there once, has silence behind it, and what it hears serves both."""
    expert = weights.open_bundle(world / "expert", network="sync_expert").params
    windows = np.asarray(batch["hubert"][:, :2]).reshape(16, *batch["hubert"].shape[2:])
    params = task.init(jax.random.key(0))["params"]
    told = task.expert.embed_sound(expert, windows).reshape(8, 2, -1)
    assert "audio_encoder" not in task.frozen
    silence = task.audio2exp.embed(expert, task.records.silence[None])
    np.testing.assert_allclose(task.frozen["silence"], silence, atol=1e-5)
    np.testing.assert_allclose(task.encode(params, task.frozen, batch).sounds, told, atol=1e-6)

    model = drawn_params.draw(Audio2Exp(AUDIO).abstract, 3)
    weights.save_bundle(tmp_path / "other", network="audio2exp", config=AUDIO, params=model)
    other = Audio2ExpTask(recipe(world, audio2exp=str(tmp_path / "other")))
    encoded = other.encode({"out_fc": model["out_fc"]}, other.frozen, batch)
    own = other.audio2exp.embed(model, windows).reshape(8, 2, -1)
    np.testing.assert_allclose(encoded.heard.speech[:, :2], own, atol=1e-5)
    np.testing.assert_allclose(encoded.sounds, told, atol=1e-6)


def test_nothing_frozen_changes_by_a_bit(trained, task, world):
    run, outcome, before = trained
    assert set(outcome.state["params"]) == {"out_fc"}
    assert jax.tree.all(jax.tree.map(np.array_equal, before, task.frozen))
    exported = weights.open_bundle(run / "export" / "audio2exp", network="audio2exp").params
    expert = weights.open_bundle(world / "expert", network="sync_expert").params
    assert jax.tree.all(jax.tree.map(np.array_equal, exported["audio_encoder"], expert["audio_encoder"]))
    assert np.any(exported["out_fc"]["kernel"]), "while the trained layer has moved"
    assert jax.tree.all(
        jax.tree.map(np.array_equal, exported["out_fc"], parallel.fetch(outcome.state["ema"]["out_fc"]))
    )


def test_held_out_figures_start_unedited_and_move_with_alpha(trained):
    run, _, _ = trained
    lines = [line for line in metrics.read(run / "metrics.jsonl") if "held_out/sync/alpha_1" in line]
    first, last = lines[0], lines[-1]
    assert first["held_out/sync/alpha_1"] == first["held_out/sync/unedited"], "zero layer: nothing is edited yet"
    assert last["held_out/sync/unedited"] == first["held_out/sync/unedited"], "nothing frozen has moved"
    assert last["held_out/sync/alpha_1"] != last["held_out/sync/alpha_0"]
    changes = [last[f"held_out/expression_change/alpha_{alpha}"] for alpha in ("0", "0.5", "1")]
    assert first["held_out/expression_change/alpha_1"] == 0 < min(changes), "at alpha 0 the silent pass remains"
    assert last["held_out/expression_change/unedited"] == 0


def test_every_term_is_logged_by_group_and_alpha_rises(trained):
    run, _, _ = trained
    steps = [line for line in metrics.read(run / "metrics.jsonl") if "loss" in line]
    assert [line["alpha"] for line in steps] == pytest.approx([0.5 + 0.05 * min(i, 10) for i in range(12)])
    seen = set().union(*steps)
    assert {f"{term}/{group}" for term in ("sync", "perceptual") for group in (*PAIRINGS, "silent_pass")} <= seen
    for line in steps:
        assert line["loss"] == pytest.approx(0.1 * line["perceptual"] + line["sync"], rel=1e-4)


def test_pictures_and_a_clip_with_sound(trained):
    from ctjax.media.container import probe

    run, _, _ = trained
    import cv2

    sheet = cv2.imread(str(run / "pictures" / "sheet" / "00000012.png"))
    assert sheet.shape == (4 * 32, 8 * 32, 3)
    info = probe(run / "pictures" / "clip" / "00000012.mp4")
    assert info.audio is not None and (info.video.width, info.video.height) == (4 * 32, 32)
    assert info.duration_s == pytest.approx(24 / 25, abs=0.1)


PARAMS = {"out_fc": {"kernel": jnp.full((3 * 4 + 24, 12), 0.01), "bias": jnp.zeros(12)}}


def terms_of(world, batch, **changes):
    """Compiled params -> ((sum of the terms' means, terms), gradient for the output layer)."""
    task = Audio2ExpTask(recipe(world, weights=Audio2ExpWeights(anchor=1.0, smoothness=1.0), **changes))

    def loss(params, frozen):
        values = task.terms.of_batch(params, frozen, batch, 0.8, jnp.linspace(0, 1, 8))
        return sum(jnp.mean(value) for value in values.values()), values

    compiled = parity.AS_WRITTEN(jax.value_and_grad(loss, has_aux=True))
    return lambda params: compiled(params, task.frozen)


@pytest.mark.full
def test_gradient_is_the_slope_and_remat_changes_nothing_and_bfloat16_little(world, batch):
    run = terms_of(world, batch)
    (_, plain), gradient = run(PARAMS)
    assert set(plain) == {"perceptual", "sync", "anchor", "smoothness"}
    norm = float(jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))))
    move = 1e-4 / norm
    ahead, behind = (
        float(run(jax.tree.map(lambda p, g, s=sign: p + s * move * g, PARAMS, gradient))[0][0]) for sign in (1, -1)
    )
    assert (ahead - behind) / 2e-4 == pytest.approx(norm, rel=0.1)
    (_, again), gradient_again = terms_of(world, batch, remat="everything")(PARAMS)
    for name, value in plain.items():
        np.testing.assert_allclose(value, again[name], rtol=1e-5)
    kernel, kernel_again = gradient["out_fc"]["kernel"], gradient_again["out_fc"]["kernel"]
    np.testing.assert_allclose(kernel, kernel_again, rtol=1e-3, atol=1e-4 * np.abs(kernel).max())
    (_, half), half_gradient = terms_of(world, batch, compute="bfloat16")(PARAMS)
    assert {str(value.dtype) for value in half.values()} == {"float32"}
    assert half_gradient["out_fc"]["kernel"].dtype == jnp.float32
    np.testing.assert_allclose(plain["sync"], half["sync"], atol=0.1)
    np.testing.assert_allclose(plain["perceptual"], half["perceptual"], rtol=0.1)


@pytest.mark.full
@pytest.mark.parametrize("name", ["sync_expert", "wav2lip_syncnet"])
def test_experts_that_hear_mel_teach_an_encoder_of_its_own(world, name, tmp_path):
    if name == "sync_expert":
        model = SyncExpertConfig(frames=3, crop=16, widths=(8,), mel=MelTowerConfig(widths=(8, 8), embedding=16))
        network, looks_at = SyncExpert(model), "boxes"
    else:
        model = Wav2LipSyncNetConfig((8,) * 5, (8,) * 5)
        network, looks_at = wav2lip_syncnet.network(model), "lower_faces"
    params = drawn_params.draw(network.abstract, 5)
    weights.save_bundle(tmp_path / name, network=name, config=model, params=params)
    choice = {"expert": ExpertChoice(str(tmp_path / name), form="bce", unchecked=True), "frames": 5, "model": AUDIO}
    with pytest.raises(UserError, match=r"hears mel .* train a fresh one \(train_audio_encoder=True\)"):
        Audio2ExpTask(recipe(world, **choice))
    task = Audio2ExpTask(recipe(world, **choice, train_audio_encoder=True, vgg19=None))
    batch = next(iter(task.training_data(parallel.Rows(2, 0, 2))))
    assert batch["mel"].shape == (2, 5, 16, 80) and batch[looks_at].shape == (2, 5, 4)
    start = {**task.init(jax.random.key(0))["params"], **PARAMS}

    def sync(params):
        return jnp.sum(task.terms.of_batch(params, task.frozen, batch, 1.0, 1.0)["sync"])

    value, gradient = jax.jit(jax.value_and_grad(sync))(start)
    assert np.isfinite(value)
    for part in ("audio_encoder", "out_fc"):
        assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient[part])) > 0


def test_the_filmed_expression_alone_teaches_without_rendering(world, tmp_path):
    chosen = recipe(
        world,
        weights=Audio2ExpWeights(perceptual=0.0, sync=0.0, expression=1.0),
        optimizer=OptimizerConfig(lr=3e-3),
        loop=loop.LoopConfig(steps=60, batch=8, log_every=20, evaluate_every=60, pictures_every=0),
    )
    task = Audio2ExpTask(chosen)
    batch = next(iter(task.training_data(parallel.Rows(8, 0, 8))))
    params = task.init(jax.random.key(0))["params"]
    program = str(jax.make_jaxpr(task.terms.of_batch)(params, task.frozen, batch, 1.0, 1.0))
    assert list(task.terms.of_batch(params, task.frozen, batch, 1.0, 1.0)) == ["expression"]
    assert "gather" not in program, "the renderer's warp is not in the program"
    assert "source_u8" not in batch, "no picture is decoded for it"
    assert "source_u8" in next(iter(task.evaluation_data(parallel.Rows(8, 0, 8)))), "sheets show some"
    spoken, silent = batch["spoken_expression"], batch["silent_expression"][:, None]
    expected = np.abs(spoken - batch["expression"]).mean((1, 2, 3)) * batch["spoken_known"]
    expected += np.abs(silent - batch["expression"]).mean((1, 2, 3)) * batch["silent_known"]
    np.testing.assert_allclose(
        task.terms.of_batch(params, task.frozen, batch, 1.0, 1.0)["expression"], expected, rtol=1e-5
    )
    loop.run(task, chosen.loop, folder=tmp_path)
    lines = list(metrics.read(tmp_path / "metrics.jsonl"))
    learned = [line["expression"] for line in lines if "expression" in line]
    held_out = [line["held_out/expression"] for line in lines if "held_out/expression" in line]
    assert learned[-1] < 0.8 * learned[0]
    assert len(held_out) == 2 and np.isfinite(held_out).all()


def test_an_expert_must_have_shown_its_accuracy(world):
    with pytest.raises(UserError, match=r"unmeasured: the sync expert has no report.*expert\.unchecked=True"):
        Audio2ExpTask(recipe(world, expert=ExpertChoice(str(world / "unmeasured"))))
    with pytest.raises(UserError, match="60% of cases, 90% are asked for"):
        Audio2ExpTask(recipe(world, expert=ExpertChoice(str(world / "expert"), least_rank1=9.0)))
    Audio2ExpTask(recipe(world, expert=ExpertChoice(str(world / "unmeasured"), unchecked=True)))


def test_a_threshold_that_was_never_learned_is_not_used(world, tmp_path):
    provenance = {"hubert": "toy", "loss": "info_nce", "report": {"real": GOOD, "reconstructed": GOOD}}
    params = weights.open_bundle(world / "expert", network="sync_expert").params
    weights.save_bundle(tmp_path / "x", network="sync_expert", config=EXPERT, params=params, provenance=provenance)
    with pytest.raises(UserError, match="has learned no threshold"):
        Audio2ExpTask(recipe(world, expert=ExpertChoice(str(tmp_path / "x"), form="bce")))


def test_a_renderer_that_was_written_anew_is_not_exported(world, task, tmp_path, monkeypatch):
    monkeypatch.setitem(task.fingerprints, "renderer", "what it was when the run began")
    state = {**task.init(jax.random.key(0)), "step": np.int32(3)}
    with pytest.raises(UserError, match="renderer was written anew while Audio2Exp was trained"):
        task.export({**state, "ema": state["params"]}, task.frozen, tmp_path)
    assert (tmp_path / "audio2exp").is_dir() and not (tmp_path / "renderer").exists()


def test_a_speech_network_that_is_not_there_is_said_before_training(world):
    with pytest.raises(weights.BundleError, match="nowhere: no such bundle"):
        Audio2ExpTask(recipe(world, hubert=str(world / "nowhere")))


@pytest.mark.parametrize("which", ["hubert", "audio2exp"])
def test_networks_that_belong_to_other_features_are_refused(world, tmp_path, which):
    made = {
        "hubert": ({}, {"x": np.zeros(1, np.float32)}),
        "audio2exp": (AUDIO, drawn_params.draw(Audio2Exp(AUDIO).abstract, 3)),
    }
    config, params = made[which]
    weights.save_bundle(
        tmp_path / which, network=which, config=config, params=params, provenance={"hubert": "another network"}
    )
    with pytest.raises(RecordsError, match="the hubert features were made by other weights"):
        Audio2ExpTask(recipe(world, **{which: str(tmp_path / which)}))


def test_in_bfloat16_nothing_that_is_exported_is_rounded(world, tmp_path):
    task = Audio2ExpTask(recipe(world, compute="bfloat16"))
    current = task.init(jax.random.key(0))
    trained = {"out_fc": drawn_params.draw(task.audio2exp.abstract["out_fc"], 4)}
    task.export({**current, "ema": trained}, task.frozen, tmp_path)
    exported = weights.open_bundle(tmp_path / "audio2exp", network="audio2exp").params
    expert = weights.open_bundle(world / "expert", network="sync_expert").params
    wanted = {"audio_encoder": expert["audio_encoder"], **trained}
    assert jax.tree.all(jax.tree.map(np.array_equal, exported, wanted))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(task.frozen["expert"])} == {"bfloat16"}


@pytest.mark.full
def test_an_expert_is_measured_on_frames_of_the_renderer_and_belongs_to_it(world, tmp_path):
    measure = loop.LoopConfig(steps=0, batch=8, evaluate_every=0, pictures_every=0)
    config = SyncExpertTraining(
        records=(str(world / "records"),),
        start=str(world / "expert"),
        renderer=str(world / "renderer"),
        candidates=3,
        loop=measure,
    )
    expert = SyncExpertTask(config)
    loop.run(expert, measure, folder=tmp_path)
    bundle = tmp_path / "export" / "sync_expert"
    provenance = weights.read_manifest(bundle)["provenance"]
    assert provenance["report"]["reconstructed"]["clips"] == provenance["report"]["real"]["clips"]
    renderer = weights.open_bundle(world / "renderer")
    assert provenance["reconstructed_by"] == weights.fingerprint(renderer.manifest)

    batch = next(expert.evaluation_data(parallel.Rows(4, 0, 4)))
    fields = {name: batch[name] for name in sync_expert_step.RENDERED_FIELDS}
    whole, in_parts = (expert._reconstruct(expert.frozen["renderer"], fields, parts) for parts in (1, 2))
    assert whole.shape == fields["frames_u8"].shape
    assert np.abs(np.asarray(whole, int) - np.asarray(in_parts, int)).max() <= 1

    other = jax.tree.map(np.copy, renderer.params)
    other["generator"] = jax.tree.map(lambda x: x * np.float32(1.01), other["generator"])
    weights.save_bundle(tmp_path / "other", network="facevid2vid", config=renderer.config, params=other)
    choice = ExpertChoice(str(bundle), least_rank1=0.0)
    Audio2ExpTask(recipe(world, expert=choice))
    with pytest.raises(UserError, match="measured on frames of another renderer"):
        Audio2ExpTask(recipe(world, expert=choice, renderer=str(tmp_path / "other")))


@pytest.mark.parametrize(("clips", "parts"), [(1, 1), (4, 1), (8, 2), (64, 16), (7, 7)])
def test_no_more_frames_are_rendered_at_once_than_fit(clips, parts):
    assert sync_expert_step._parts(clips, 1, 5) == parts
    assert sync_expert_step._parts(8 * clips, 8, 5) == parts


def test_what_needs_no_picture_is_learned_without_one(world, batch):
    task = Audio2ExpTask(recipe(world, weights=Audio2ExpWeights(perceptual=0, sync=0, anchor=1.0, smoothness=1.0)))
    terms = task.terms.of_batch(PARAMS, task.frozen, batch, 0.8, 1.0)
    assert set(terms) == {"anchor", "smoothness"} and all(np.all(np.asarray(x) > 0) for x in terms.values())
    with pytest.raises(ValueError, match="all weights are 0"):
        Audio2ExpWeights(perceptual=0, sync=0)
    with pytest.raises(ValueError, match="micro_batches=3 does not divide the batch of 8"):
        recipe(world, optimizer=OptimizerConfig(micro_batches=3))


def test_records_of_other_weights_are_refused(world, tmp_path):
    renderer = Renderer(tiny_renderer.RENDERER)
    weights.save_bundle(
        tmp_path / "other",
        network="facevid2vid",
        config=tiny_renderer.RENDERER,
        params=drawn_params.draw(renderer.abstract, 9),
    )
    with pytest.raises(RecordsError, match=r"the renderer features were made by other weights.*prepare\.py"):
        Audio2ExpTask(recipe(world, renderer=str(tmp_path / "other")))


@pytest.mark.full
def test_the_other_choices_pixels_bce_and_going_on_with_the_encoder_trained_too(world, trained, tmp_path):
    run, _, _ = trained
    chosen = recipe(
        world,
        audio2exp=str(run / "export" / "audio2exp"),
        train_audio_encoder=True,
        vgg19=None,
        expert=ExpertChoice(str(world / "expert"), form="bce"),
        loop=loop.LoopConfig(steps=1, batch=8, evaluate_every=0, pictures_every=0),
    )
    task = Audio2ExpTask(dataclasses.replace(chosen, optimizer=OptimizerConfig(lr=1e-2, ema=0.0)))
    outcome = loop.run(task, chosen.loop, folder=tmp_path)
    start = frozen.open_audio2exp(run / "export" / "audio2exp").params
    moved = parallel.fetch(outcome.state["params"])
    for part in ("audio_encoder", "out_fc"):
        assert not jax.tree.all(jax.tree.map(np.array_equal, start[part], moved[part])), part


LAYOUTS = {"one": (1, 1), "eight": (8, 1), "two_processes": (4, 2)}  # devices of each process, processes


@pytest.fixture(scope="module")
def runs(world, tmp_path_factory):
    """Audio2Exp and a contrastive sync expert, two steps of the same batches each, on three layouts of CPU devices."""
    folder = tmp_path_factory.mktemp("layouts")
    settings = {"steps": 2, "batch": 8, "log_every": 1, "evaluate_every": 0, "pictures_every": 0}
    expert = SyncExpertTraining(
        records=(str(world / "records"),),
        model=EXPERT,
        windows=2,
        gap=4,
        candidates=3,
        optimizer=OptimizerConfig(lr=1e-4),
        loop=loop.LoopConfig(**settings),
    )
    audio2exp = recipe(world, vgg19=None, optimizer=OptimizerConfig(lr=1e-4), loop=loop.LoopConfig(**settings))
    recipes = {name: config.to_mapping(value) for name, value in (("expert", expert), ("audio2exp", audio2exp))}
    (folder / "recipes.json").write_text(json.dumps(recipes))
    started = []
    for name, (devices, processes) in LAYOUTS.items():
        flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
        together = (f"127.0.0.1:{portpicker.pick_unused_port()}", processes) if processes > 1 else ()
        for index in range(processes):
            more = [str(x) for x in (*together, index)] if together else []
            command = [
                sys.executable,
                str(HERE / "devices.py"),
                str(folder / "recipes.json"),
                str(folder / name),
                *more,
            ]
            started.append(subprocess.Popen(command, env=environment, stdout=-1, stderr=subprocess.STDOUT, text=True))
    for process in started:
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output[-4000:]
    return folder


@pytest.mark.full
@pytest.mark.parametrize("layout", ["eight", "two_processes"])
@pytest.mark.parametrize("name", ["expert", "audio2exp"])
def test_the_same_losses_on_any_number_of_devices_and_processes(runs, name, layout):
    one, other = (metrics.read(runs / which / name / "metrics.jsonl") for which in ("one", layout))
    assert len(one) == len(other) == 2
    for first, second in zip(one, other, strict=True):
        names = [key for key in first if not key.startswith(("speed/", "time"))]
        assert "loss" in names and sorted(names) == sorted(k for k in second if not k.startswith(("speed/", "time")))
        np.testing.assert_allclose([first[key] for key in names], [second[key] for key in names], rtol=2e-4, atol=1e-6)
