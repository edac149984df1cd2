"""Training the small speech network: it learns, and leaves a bundle that `infer.py` takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ctjax.data.synthetic.spoken import STRIDE
from ctjax.features import hubert
from ctjax.parallel import Rows
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


def test_pictures_show_the_average_that_is_measured_and_exported(run):
    task, outcome, _ = run
    batch = next(iter(task.evaluation_data(Rows(8, 0, 8))))
    learned = outcome.state["params"]
    nothing = jax.tree.map(jnp.zeros_like, learned)

    def drawn(**state):
        return task.pictures(state, {}, batch, None)["phonemes"]

    averaged = drawn(params=nothing, ema=learned)
    np.testing.assert_array_equal(averaged, drawn(params=learned))
    assert not np.array_equal(averaged, drawn(params=nothing))


@pytest.mark.parametrize("name", ["sentences", "held_out_sentences", "steps_per_example", "evaluation_batches"])
def test_nothing_to_learn_from_or_to_measure_on_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, not 0"):
        PhonemeTraining(corpus="c", **{name: 0})
