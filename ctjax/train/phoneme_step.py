"""Training a small HuBERT on phoneme labels of synthetic speech: the demo's speech network.

The published HuBERTs learned from recordings alone and take many GPUs to make. A synthesiser knows its phonemes, so a
small network of the same architecture can simply be told them. params: the network and a linear `head` over its last
hidden states; the head is dropped at export.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ctjax import parallel, weights
from ctjax.data import pipeline, transforms
from ctjax.data.pipeline import ReadingConfig
from ctjax.data.synthetic.phones import SYMBOLS
from ctjax.data.synthetic.spoken import SpokenSentences, open_corpus
from ctjax.features import hubert
from ctjax.features.hubert_config import HubertConfig
from ctjax.nn.conv import linear
from ctjax.nn.module import Network
from ctjax.train import optim, state
from ctjax.train.loop import LoopConfig, MediaFolder
from ctjax.train.optim import OptimizerConfig

Batch = Mapping[str, Any]
State = dict[str, Any]
HELD_OUT_SEED = 1


def small_hubert() -> HubertConfig:
    """HuBERT-large's build, 2.0 million parameters."""
    return HubertConfig.large_build(
        hidden_size=160,
        layers=4,
        heads=4,
        intermediate_size=480,
        conv_channels=(32, 64, 96, 96, 128, 128, 128),
        position_kernel=32,
        position_groups=16,
    )


@dataclass(frozen=True)
class PhonemeTraining:
    """corpus: folder of spoken sentences, made where it is not there; sentences, held_out_sentences: how many.
    steps_per_example: feature steps (50 a second) of one example. evaluation_batches: of held-out sentences."""

    corpus: str
    task: Literal["phonemes"] = "phonemes"
    sentences: int = 2000
    held_out_sentences: int = 100
    model: HubertConfig = field(default_factory=small_hubert)
    steps_per_example: int = 160
    evaluation_batches: int = 4
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3, warmup=200))
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        for name in ("sentences", "held_out_sentences", "steps_per_example", "evaluation_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        self.optimizer.check_parts(self.loop.batch)


class PhonemeTask:
    """A `loop.Task`."""

    def __init__(self, config: PhonemeTraining):
        self.config = config
        self.network = hubert.network(config.model)
        self.head = Network(lambda rngs: linear(config.model.hidden_size, len(SYMBOLS), rngs=rngs))
        self.optimizer = optim.build(config.optimizer)
        self.frozen: dict[str, Any] = {}

    def init(self, key: jax.Array) -> State:
        for_network, for_head = jax.random.split(state.drawing_key(key))
        params = {"network": self.network.init(for_network), "head": self.head.init(for_head)}
        return state.new_state(params, self.optimizer, key, ema=self.config.optimizer.ema > 0)

    def step(self, current: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
        settings = self.config.optimizer
        gradient, metrics = state.gradients(
            self._loss, current["params"], batch, state.step_key(current), settings.micro_batches
        )
        new, more = state.update(current, gradient, self.optimizer, settings)
        return new, {**metrics, **more}

    def _loss(self, params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        logits = self._logits(params, batch["waveform"])
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"]))
        return loss, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["labels"])}

    def _logits(self, params: Any, waveform: jax.Array) -> jax.Array:
        features = self.network.bind(params["network"])(waveform).last_hidden_state
        return self.head.bind(params["head"])(features)

    def training_data(self, rows: parallel.Rows) -> grain.IterDataset:
        config = self.config
        corpus = open_corpus(config.corpus, config.sentences, held_out=False)
        spoken = SpokenSentences(corpus, steps=config.steps_per_example)
        stream = transforms.endless(np.arange(config.sentences), spoken, config.loop.seed)
        return pipeline.batches(stream, rows, config.reading)

    def evaluation_data(self, rows: parallel.Rows) -> Iterable[Batch]:
        config = self.config
        corpus = open_corpus(config.corpus, config.held_out_sentences, held_out=True)
        spoken = SpokenSentences(corpus, steps=config.steps_per_example)
        stream = transforms.in_order(np.arange(config.held_out_sentences), spoken, HELD_OUT_SEED)
        return pipeline.first_batches(stream, rows, config.evaluation_batches, config.reading)

    def evaluate(self, current: State, frozen: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """loss; accuracy of all steps, and accuracy_spoken of those that are no pause."""
        params = state.averaged(current)
        found = [parallel.fetch(self._judge(params, batch)) for batch in batches]
        loss, right, spoken = (np.concatenate([part[i].reshape(-1) for part in found]) for i in range(3))
        return {
            "loss": float(loss.mean()),
            "accuracy": float(right.mean()),
            "accuracy_spoken": float(right[spoken].mean()),
        }

    @functools.cached_property
    def _judge(self) -> Any:
        def judge(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
            logits, labels = self._logits(params, batch["waveform"]), batch["labels"]
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return loss, jnp.argmax(logits, -1) == labels, labels > 0

        return jax.jit(judge)

    @functools.cached_property
    def _heard(self) -> Any:
        return jax.jit(lambda params, waveform: jax.nn.softmax(self._logits(params, waveform)))

    def pictures(self, current: State, frozen: Any, batch: Batch, path: MediaFolder) -> dict[str, np.ndarray]:
        """Phonemes over time, one below the other for the first examples: the labels above what is heard."""
        chance = parallel.fetch(self._heard(state.averaged(current), batch["waveform"]))
        labels = parallel.fetch(batch["labels"])
        rows = []
        for guessed, spoken in zip(chance[:4], labels[:4], strict=True):
            truth = np.eye(len(SYMBOLS))[spoken]
            rows += [truth.T, np.ones((2, len(spoken))), guessed.T, np.zeros((4, len(spoken)))]
        gray = np.round(255 * np.clip(np.concatenate(rows), 0, 1)).astype(np.uint8)
        return {"phonemes": np.repeat(np.repeat(gray, 2, 0), 4, 1)[..., None].repeat(3, -1)}

    def export(self, current: State, frozen: Any, folder: pathlib.Path) -> None:
        """The bundle `folder`/hubert, with the accuracies on held-out sentences."""
        mesh = current["step"].sharding.mesh
        rows = parallel.rows_of_process(mesh, self.config.loop.batch)
        placed = (parallel.place_batch(mesh, batch) for batch in self.evaluation_data(rows))
        report = self.evaluate(current, frozen, placed)
        params = parallel.fetch(state.averaged(current)["network"])
        if parallel.is_main_process():
            provenance = {"trained_by": "ctjax", "steps": int(current["step"]), "held_out": report}
            weights.save_bundle(
                folder / "hubert",
                network="hubert",
                config=self.config.model,
                params=params,
                provenance=provenance,
                overwrite=True,
            )


Config = PhonemeTraining


def build(config: PhonemeTraining) -> PhonemeTask:
    return PhonemeTask(config)
