"""Training the sync expert on drawn faces: it learns, reports, and hands over its audio half."""

import functools
import pathlib
import sys

import jax
import numpy as np
import pytest

from ctjax import parallel, weights
from ctjax.losses.sync_expert import MelTowerConfig, SyncExpertConfig
from ctjax.motion.audio2exp import Audio2Exp, Audio2ExpConfig
from ctjax.train import frozen, loop, metrics, sync_report
from ctjax.train.optim import OptimizerConfig
from ctjax.train.sync_expert_step import AugmentConfig, SyncExpertTask, SyncExpertTraining
from ctjax.types import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "data"))
import toy_records

AUDIO = Audio2ExpConfig(channels=toy_records.CHANNELS, widths=(64, 48, 32, 32), num_kp=5)
MODEL = SyncExpertConfig(frames=5, crop=32, widths=(16, 24), audio=AUDIO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return toy_records.write(tmp_path_factory.mktemp("records") / "set", clips=24, persons=12, frames=100)


def recipe(folder, **changes):
    settings = {
        "records": (str(folder),),
        "model": MODEL,
        "windows": 4,
        "gap": 8,
        "optimizer": OptimizerConfig(lr=2e-3, warmup=10),
        "loop": loop.LoopConfig(
            steps=120, batch=8, log_every=1, save_every=200, evaluate_every=120, pictures_every=120
        ),
    }
    return SyncExpertTraining(**(settings | changes))


@pytest.fixture(scope="module")
def contrastive(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("contrastive")
    config = recipe(folder)
    return run, loop.run(SyncExpertTask(config), config.loop, folder=run)


@pytest.fixture(scope="module")
def given_audio(tmp_path_factory):
    """An Audio2Exp bundle and its parameters."""
    params = Audio2Exp(AUDIO).init(jax.random.key(7))
    bundle = tmp_path_factory.mktemp("bundle") / "audio2exp"
    weights.save_bundle(bundle, network="audio2exp", config=AUDIO, params=params)
    return bundle, params


@pytest.fixture(scope="module")
def paired(folder, given_audio, tmp_path_factory):
    """Paired loss, bfloat16, micro-batches, and a given audio encoder that is kept: a second way through everything."""
    run = tmp_path_factory.mktemp("paired")
    config = recipe(
        folder,
        loss="bce",
        compute="bfloat16",
        audio_encoder=str(given_audio[0]),
        freeze_audio=True,
        optimizer=OptimizerConfig(lr=2e-3, warmup=10, micro_batches=2, ema=0.95),
    )
    return run, loop.run(SyncExpertTask(config), config.loop, folder=run)


def held_out(run):
    return [line for line in metrics.read(run / "metrics.jsonl") if "held_out/real/rank1_within_clip" in line]


def test_contrastive_training_beats_chance_on_held_out_people(contrastive):
    run, _ = contrastive
    first, *_, last = held_out(run)
    assert first["step"] == 0 and last["step"] == 120
    assert first["held_out/real/rank1_within_clip"] < 0.3
    assert last["held_out/real/rank1_within_clip"] > 0.6
    assert last["held_out/real/rank1_across_clips"] > 0.6


@pytest.mark.full
def test_paired_training_beats_chance_on_held_out_people(paired):
    run, _ = paired
    last = held_out(run)[-1]
    assert last["held_out/real/logit_accuracy"] > 0.7
    assert last["held_out/real/rank1_within_clip"] > 0.3


def test_the_bundle_opens_with_its_report(contrastive):
    run, outcome = contrastive
    _, opened = frozen.open_expert(run / "export" / "sync_expert")
    assert opened.network.config == MODEL
    report = opened.provenance[sync_report.REPORT]
    last = metrics.read(run / "metrics.jsonl")[-1]
    assert report["real"]["rank1_within_clip"] == last["held_out/real/rank1_within_clip"]
    assert opened.provenance["hubert"] == "toy"
    assert opened.provenance["loss"] == "info_nce" and "logit_accuracy" not in report["real"]  # its bias stood still
    check = functools.partial(sync_report.check_report, path="expert", reconstructed_by="a renderer")
    with pytest.raises(UserError, match="not measured on reconstructed frames"):
        check(opened.provenance, least=2.0)
    with pytest.raises(UserError, match=r"finds the true sound .* in .*% of cases"):
        check(opened.provenance, least=20.0)
    with pytest.raises(UserError, match="has no report"):
        check({}, least=2.0)
    both = {**opened.provenance, sync_report.REPORT: {**report, "reconstructed": report["real"]}}
    check(both, least=2.0)
    with pytest.raises(UserError, match="measured on frames of another renderer"):
        check({**both, sync_report.RECONSTRUCTED_BY: "another"}, least=2.0)
    assert jax.tree.all(
        jax.tree.map(np.array_equal, opened.params, parallel.fetch(outcome.state["params"])),
    )
    assert list((run / "pictures" / "mouths").glob("*.png"))


def test_an_expert_is_measured_without_training_it(contrastive, folder, tmp_path):
    """Zero steps from its own bundle: the same weights, the same report, its own architecture."""
    exported = contrastive[0] / "export" / "sync_expert"
    measure = loop.LoopConfig(steps=0, batch=8, evaluate_every=0, pictures_every=0)
    config = recipe(folder, start=str(exported), model=SyncExpertConfig(), loop=measure)
    loop.run(SyncExpertTask(config), config.loop, folder=tmp_path)
    before, after = (
        weights.open_bundle(bundle, network="sync_expert") for bundle in (exported, tmp_path / "export" / "sync_expert")
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, before.params, after.params))
    assert after.config == before.config
    assert after.manifest["provenance"]["started_from"] == weights.fingerprint(before.manifest)
    reports = [opened.manifest["provenance"][sync_report.REPORT]["real"] for opened in (before, after)]
    assert reports[0] == pytest.approx(reports[1], abs=1e-4)


@pytest.mark.full
def test_a_given_audio_encoder_is_kept_to_the_bit(paired, given_audio):
    run, outcome = paired
    assert "audio_encoder" not in outcome.state["params"]
    kept = weights.open_bundle(run / "export" / "sync_expert", network="sync_expert").params["audio_encoder"]
    assert jax.tree.all(jax.tree.map(np.array_equal, kept, parallel.fetch(given_audio[1]["audio_encoder"])))


@pytest.mark.full
def test_parameters_and_losses_stay_float32_under_bfloat16(paired):
    _, outcome = paired
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(outcome.state["params"])} == {"float32"}


@pytest.mark.full
def test_an_expert_that_hears_mel_needs_no_features(folder, tmp_path):
    """The drawn sound is as loud as the mouth is open: a few steps are enough to see it learn."""
    model = SyncExpertConfig(crop=16, widths=(16, 16), mel=MelTowerConfig(widths=(16, 16), embedding=32))
    settings = loop.LoopConfig(steps=60, batch=8, log_every=1, evaluate_every=60, pictures_every=0)
    config = recipe(folder, model=model, in_memory=True, loop=settings)
    loop.run(SyncExpertTask(config), config.loop, folder=tmp_path)
    first, last = held_out(tmp_path)
    assert first["held_out/real/rank1_within_clip"] < 0.3 < last["held_out/real/rank1_within_clip"]
    _, opened = frozen.open_expert(tmp_path / "export" / "sync_expert")
    assert opened.network.config == model and "hubert" not in opened.provenance


@pytest.mark.parametrize("clips", [(0, 1, 2, 3), (0, 0, 1, 1), (5, 5, 5, 5)])
def test_a_false_sound_is_never_the_true_one(folder, clips):
    task = SyncExpertTask(recipe(folder, loss="bce", optimizer=OptimizerConfig(lr=1e-3)))
    windows = task.config.windows
    sounds = np.arange(len(clips) * windows)  # which sound it is, in place of an embedding
    of_clip = dict(zip(sounds.tolist(), np.repeat(clips, windows).tolist(), strict=True))
    for seed in range(8):
        drawn = task._wrong_sounds(sounds[:, None], np.array(clips), jax.random.key(seed))[:, 0]
        for true, false in zip(sounds.tolist(), drawn.tolist(), strict=True):
            assert false != true
            # two rows of one clip may have cut the same window: a false one is of the row's own windows then
            assert of_clip[false] != of_clip[true] or false // windows == true // windows


def test_mistakes_are_named(folder):
    with pytest.raises(ValueError, match="micro_batches=3 does not divide the batch of 8"):
        recipe(folder, loss="bce", optimizer=OptimizerConfig(lr=1e-3, micro_batches=3))
    with pytest.raises(ValueError, match="each of micro_batches needs two clips"):
        recipe(folder, loss="bce", optimizer=OptimizerConfig(lr=1e-3, micro_batches=8))
    with pytest.raises(ValueError, match="audio_encoder is for an expert that hears HuBERT"):
        recipe(folder, model=SyncExpertConfig(mel=MelTowerConfig()), audio_encoder="bundle")
    with pytest.raises(ValueError, match="start brings an audio encoder of its own"):
        recipe(folder, start="expert", audio_encoder="bundle")
    with pytest.raises(UserError, match=r"features have 8 channels, model\.audio\.channels says 4"):
        wrong = Audio2ExpConfig(channels=4, widths=(8, 8, 8, 8))
        SyncExpertTask(recipe(folder, model=SyncExpertConfig(crop=32, widths=(8,), audio=wrong)))
    with pytest.raises(UserError, match=r"no clip of split 'val' with at least 149 frames"):
        SyncExpertTask(recipe(folder, gap=16))
    with pytest.raises(ValueError, match="freeze_audio needs audio_encoder"):
        recipe(folder, freeze_audio=True)
    with pytest.raises(ValueError, match="gap must be at least 1 frame"):
        recipe(folder, gap=0)
    with pytest.raises(ValueError, match="drop_features is a share below 1, not 1"):
        AugmentConfig(drop_features=1.0)
