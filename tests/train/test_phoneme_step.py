"""Training the small speech network: it learns, and leaves a bundle that `infer.py` takes."""

import dataclasses

import numpy as np
import pytest

from ctjax.data.synthetic.spoken import STRIDE
from ctjax.features import hubert
from ctjax.train import loop
from ctjax.train.loop import LoopConfig
from ctjax.train.optim import OptimizerConfig
from ctjax.train.phoneme_step import PhonemeTask, PhonemeTraining, small_hubert
from ctjax.weights import open_bundle

TINY = dataclasses.replace(
    small_hubert(),
    hidden_size=16,
    layers=1,
    heads=2,
    intermediate_size=32,
    conv_channels=(8,) * 7,
    position_kernel=8,
    position_groups=2,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run on sentences of two pure tones, and its folder."""
    folder = tmp_path_factory.mktemp("phonemes")
    labels = np.tile(np.repeat(np.array([2, 3], np.int16), 5), 40)
    time = np.arange(len(labels) * STRIDE) / 16_000
    tone = np.where(np.repeat(labels, STRIDE) == 3, np.sin(2 * np.pi * 3000 * time), np.sin(2 * np.pi * 300 * time))
    corpus = {"samples": (8000 * tone).astype(np.int16), "labels": labels, "ends": np.arange(100, 401, 100)}
    for name in ("train", "held_out"):
        np.savez(folder / f"{name}-4.npz", **corpus)
    config = PhonemeTraining(
        corpus=str(folder),
        model=TINY,
        sentences=4,
        held_out_sentences=4,
        steps_per_example=40,
        evaluation_batches=1,
        loop=LoopConfig(steps=60, batch=8, log_every=20, save_every=60, evaluate_every=60, pictures_every=60),
        optimizer=OptimizerConfig(lr=1e-2, warmup=5),
    )
    task = PhonemeTask(config)
    outcome = loop.run(task, config.loop, folder=folder / "run")
    return task, outcome, folder / "run"


def test_tones_are_told_apart(run):
    bundle = open_bundle(run[2] / "export" / "hubert", network="hubert", abstract=hubert.network(TINY).abstract)
    assert bundle.manifest["provenance"]["held_out"]["accuracy_spoken"] > 0.8
    assert bundle.manifest["provenance"]["steps"] == 60
    assert "head" not in bundle.params


def test_pictures_show_what_is_heard(run):
    assert list((run[2] / "pictures").rglob("*.png"))
