"""Training Audio2Exp: gradients for its output layer only, through the frozen renderer, sync expert and VGG-19.

params: `out_fc`, and `audio_encoder` where it is trained too. frozen: `renderer`, `expert`, `vgg19` where it is used,
`audio_encoder` unless it is trained or the expert's own, and `silence`: its embedding, or, for an encoder that is
trained, its feature window.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import grain
import jax
import jax.numpy as jnp
import numpy as np

from ctjax import animate, parallel, weights
from ctjax.data import pipeline, transforms
from ctjax.data.pipeline import ReadingConfig
from ctjax.data.records import HELD_OUT, HUBERT, RecordSet
from ctjax.data.transforms import PAIRINGS, PairingConfig
from ctjax.losses import total
from ctjax.losses.lip_sync import SyncForm
from ctjax.losses.total import Audio2ExpWeights
from ctjax.motion.alpha import Ramp
from ctjax.motion.audio2exp import Audio2ExpConfig
from ctjax.train import audio2exp_show, optim, state, sync_report
from ctjax.train import frozen as frozen_networks
from ctjax.train.audio2exp_terms import Audio2ExpTerms, Batch, Encoded
from ctjax.train.frozen import Compute
from ctjax.train.loop import LoopConfig, MediaFolder
from ctjax.train.metrics import mean_where
from ctjax.train.optim import OptimizerConfig
from ctjax.types import UserError

State = dict[str, Any]
EVALUATED_ALPHAS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class ExpertChoice:
    """bundle: the sync expert, our own or Wav2Lip's. form: of the lip-sync loss. least_rank1: its report must show at
    least this many times chance in finding the true sound within a clip, on real frames and on frames from the
    renderer; `unchecked` takes it whatever its report says."""

    bundle: str
    form: SyncForm = "cosine"
    least_rank1: float = 3.0
    unchecked: bool = False


@dataclass(frozen=True)
class Audio2ExpTraining:
    """records: folders made by prepare.py with `--renderer` and `--hubert`. audio2exp: a bundle to take the audio
    encoder from (and to go on from); without it the encoder is the expert's. model: of a fresh encoder, which must be
    trained, where the expert hears mel and there is no bundle. vgg19: a bundle; without it differences
    of pixels stand in for features. hubert: a bundle to put beside the export, so that infer.py takes it as it is.
    silent_share: how often the mouth is closed by silence first; silent_alpha: with which strength, "same" as the
    speech's (ControlTalk model.py:111-115) or 1 as at inference. expression_keypoints, expression_pairs: `moving` and
    `pairs` of `ctjax.losses.total.known_expression`. remat: what is computed again in the backward pass
    instead of kept."""

    records: tuple[str, ...]
    renderer: str
    expert: ExpertChoice
    task: Literal["audio2exp"] = "audio2exp"
    audio2exp: str | None = None
    model: Audio2ExpConfig = field(default_factory=Audio2ExpConfig)
    vgg19: str | None = None
    hubert: str | None = None
    frames: int = 5
    pairing: PairingConfig = field(default_factory=PairingConfig)
    weights: Audio2ExpWeights = field(default_factory=Audio2ExpWeights)
    alpha: Ramp = field(default_factory=Ramp)
    expression_keypoints: tuple[int, ...] = ()
    expression_pairs: tuple[tuple[int, int], ...] = ()
    silent_share: float = 0.5
    silent_alpha: Literal["same", "one"] = "same"
    train_audio_encoder: bool = False
    split: str = "train"
    held_out: str = HELD_OUT
    evaluation_batches: int = 4
    compute: Compute = "float32"
    remat: Literal["nothing", "renderer", "everything"] = "nothing"
    loop: LoopConfig = field(default_factory=LoopConfig)
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-5, warmup=500, ema=0.999))
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.silent_share <= 1:
            raise ValueError(f"silent_share is a probability, not {self.silent_share}")
        self.optimizer.check_parts(self.loop.batch)


class Audio2ExpTask:
    """A `loop.Task`."""

    eager_init = True  # what it begins with is read, not drawn

    def __init__(self, config: Audio2ExpTraining):
        self.config = config
        self.optimizer = optim.build(config.optimizer)
        self.records = RecordSet(config.records)
        self.data_digests = self.records.digests
        if config.hubert:  # it is not read before the export: a wrong one must not wait until then
            self.records.require(hubert=weights.fingerprint(weights.read_manifest(config.hubert, "hubert")))
        renderer = frozen_networks.open_renderer(config.renderer, config.compute)
        self.expert, expert = frozen_networks.open_expert(config.expert.bundle)
        self._check_expert(expert, renderer)
        self.records.require(hubert=expert.provenance.get("hubert"), renderer=renderer.made_features)
        self.fingerprints = {"renderer": renderer.fingerprint, "expert.bundle": expert.fingerprint}
        if config.frames < self.expert.frames:
            raise UserError(f"frames is {config.frames}, the sync expert needs at least {self.expert.frames}")
        self.audio2exp, self._start = self._first_audio2exp(expert)
        silence = self.records.silence.astype(jnp.dtype(config.compute))[None]
        self.frozen: dict[str, Any] = {
            "renderer": renderer.params,
            "expert": frozen_networks.cast(expert.params, config.compute),
            "silence": silence,
        }
        self._encoder = None  # where it is frozen: in full precision, to be exported as it came
        hears_as_expert = False
        if not config.train_audio_encoder:
            self._encoder = self._start.pop("audio_encoder")
            encoder = {"audio_encoder": frozen_networks.cast(self._encoder, config.compute)}
            self.frozen["silence"] = np.asarray(jax.jit(self.audio2exp.embed)(encoder, silence))
            hears_as_expert = _same(self._encoder, expert.params.get("audio_encoder"))
            self.frozen |= {} if hears_as_expert else encoder
        vgg19 = None
        if config.vgg19:
            opened = frozen_networks.open_vgg19(config.vgg19, config.compute)
            vgg19, self.frozen["vgg19"] = opened.network, opened.params
            self.fingerprints["vgg19"] = opened.fingerprint
        self.terms = Audio2ExpTerms(
            config,
            renderer=renderer.network,
            audio2exp=self.audio2exp,
            expert=self.expert,
            vgg19=vgg19,
            hears_as_expert=hears_as_expert,
        )
        self._clips = self.records.of_split(config.split, min_frames=config.frames)
        self._held_out = self.records.of_split(config.held_out, min_frames=config.frames)

    def _check_expert(self, expert: frozen_networks.Frozen, renderer: frozen_networks.Frozen) -> None:
        choice = self.config.expert
        if choice.form == "bce" and expert.provenance.get("loss") == "info_nce":
            raise UserError(
                f"{choice.bundle}: an expert trained with info_nce has learned no threshold: expert.form must be cosine"
            )
        if not choice.unchecked:
            sync_report.check_report(
                expert.provenance,
                path=choice.bundle,
                least=choice.least_rank1,
                reconstructed_by=renderer.fingerprint,
            )

    def _first_audio2exp(self, expert: frozen_networks.Frozen) -> tuple[Any, dict[str, Any]]:
        """Audio2Exp and the parameters to begin with: a bundle's, or a zero layer on the expert's audio half."""
        keypoints = self.records[0]["canonical"].shape[1]
        if self.config.audio2exp:
            opened = frozen_networks.open_audio2exp(self.config.audio2exp)
            self.records.require(hubert=opened.provenance.get(HUBERT))
            network, params = opened.network, dict(opened.params)
            self.fingerprints["audio2exp"] = opened.fingerprint
        elif self.expert.hears == HUBERT:
            network = animate.Audio2Exp(dataclasses.replace(expert.network.config.audio, num_kp=keypoints))
            params = {"audio_encoder": expert.params["audio_encoder"], "out_fc": _zeros(network.abstract["out_fc"])}
        elif self.config.train_audio_encoder:
            network = animate.Audio2Exp(dataclasses.replace(self.config.model, num_kp=keypoints))
            params = jax.device_get(network.init(jax.random.key(self.config.loop.seed)))
        else:
            raise UserError(
                f"{self.config.expert.bundle}: this expert hears mel and has no audio encoder for Audio2Exp: give one "
                "(audio2exp=BUNDLE), or train a fresh one (train_audio_encoder=True)"
            )
        found = (self.records[0]["hubert"].shape[1], keypoints)
        if found != (network.config.channels, network.config.num_kp):
            raise UserError(
                f"the records have {found[0]} feature channels and {found[1]} keypoints, Audio2Exp has "
                f"{network.config.channels} and {network.config.num_kp}: prepare them with the networks used here"
            )
        return network, params

    def init(self, key: jax.Array) -> State:
        params = jax.tree.map(jnp.asarray, self._start)
        return state.new_state(params, self.optimizer, key, ema=self.config.optimizer.ema > 0)

    def step(self, current: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
        settings = self.config.optimizer
        alpha = self.config.alpha(current["step"])
        loss = functools.partial(self._loss, frozen, alpha)
        gradient, metrics = state.gradients(
            loss, current["params"], batch, state.step_key(current), settings.micro_batches
        )
        new, more = state.update(current, gradient, self.optimizer, settings)
        return new, {**metrics, **more, "alpha": alpha}

    def _loss(
        self, frozen: Any, alpha: jax.Array, params: Any, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, dict[str, Any]]:
        config = self.config
        silent = jax.random.bernoulli(key, config.silent_share, batch["pairing"].shape)
        silent_alpha = jnp.where(silent, alpha if config.silent_alpha == "same" else 1.0, 0.0)
        terms = self.terms.of_batch(params, frozen, batch, alpha, silent_alpha)
        losses = total.weighted(terms, config.weights)
        loss = jnp.mean(losses)
        metrics: dict[str, Any] = {"loss": loss, **{name: jnp.mean(value) for name, value in terms.items()}}
        for number, name in enumerate(PAIRINGS):
            chosen = batch["pairing"] == number
            metrics |= {f"{term}/{name}": mean_where(value, chosen) for term, value in terms.items()}
        metrics |= {f"{term}/silent_pass": mean_where(value, silent) for term, value in terms.items()}
        return loss, metrics

    def training_data(self, rows: parallel.Rows) -> grain.IterDataset:
        # what nothing looks at need not be decoded
        examples = self._examples(self._clips, pictures=self.config.weights.looks_at_pictures)
        stream = transforms.endless(self._clips, examples, self.config.loop.seed)
        return pipeline.batches(stream, rows, self.config.reading)

    def evaluation_data(self, rows: parallel.Rows) -> Iterable[Batch]:
        # All over the held-out clips: the first of them are one person's.
        clips = transforms.spread_first(self._held_out, self.config.evaluation_batches * rows.batch)
        stream = transforms.in_order(clips, self._examples(clips), 0)
        return pipeline.first_batches(stream, rows, self.config.evaluation_batches, self.config.reading)

    def _examples(self, clips: np.ndarray, *, pictures: bool = True) -> transforms.DrivenFrames:
        config = self.config
        return transforms.DrivenFrames(
            self.records,
            clips,
            frames=config.frames,
            pairing=config.pairing,
            extras=self.extras,
            expressions=config.weights.expression != 0,
            pictures=pictures,
        )

    @property
    def extras(self) -> tuple[str, str]:
        """What the expert needs of an example, by name."""
        return self.expert.hears, self.expert.looks_at

    def evaluate(self, current: State, frozen: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Losses on held-out examples, by alpha after the silent pass, and of the unedited reconstruction; those that
        look at pictures only where they are trained on, since rendering takes most of the time."""
        params = state.averaged(current)
        found: dict[str, list[np.ndarray]] = {}
        for batch in batches:
            if self.config.weights.looks_at_pictures:
                encoded = self.encode(params, frozen, batch)
                for name, *alphas in EVALUATED:
                    terms = parallel.fetch(self._evaluate_terms(params, frozen, encoded, batch, *alphas))
                    for term, value in terms.items():
                        found.setdefault(f"{term}/{name}", []).append(value)
            if self.config.weights.expression:
                found.setdefault("expression", []).append(
                    parallel.fetch(self._evaluate_expression(params, frozen, batch))
                )
        return {name: float(np.concatenate(values).mean()) for name, values in found.items()}

    @functools.cached_property
    def _evaluate_terms(self) -> Any:
        def evaluate(
            params: Any, frozen: Any, encoded: Encoded, batch: Batch, alpha: float, silent: float
        ) -> dict[str, jax.Array]:
            output_01, delta = self.terms.edited(params, frozen, encoded, batch, alpha, silent)
            terms = self.terms.judge(frozen, output_01, encoded.sounds, batch)
            return {**terms, "expression_change": jnp.sqrt(total.anchor(delta))}

        return jax.jit(evaluate)

    @functools.cached_property
    def _evaluate_expression(self) -> Any:
        def evaluate(params: Any, frozen: Any, batch: Batch) -> jax.Array:
            heard = self.terms.heard(params, frozen, batch)
            return self.terms.expression_distance(params, frozen, heard, batch)

        return jax.jit(evaluate)

    @functools.cached_property
    def encode(self) -> Any:
        """Compiled (params, frozen, batch) -> `Encoded`."""

        def encode(params: Any, frozen: Any, batch: Batch) -> Encoded:
            return self.terms.encoded(frozen, self.terms.heard(params, frozen, batch), batch)

        return jax.jit(encode)

    @functools.cached_property
    def render(self) -> Any:
        """Compiled (params, frozen, encoded, batch, alpha, silent alpha) -> frames "b t h w 3"."""
        return jax.jit(lambda params, frozen, *what: self.terms.edited(params, frozen, *what)[0])

    def pictures(self, current: State, frozen: Any, batch: Batch, path: MediaFolder) -> dict[str, np.ndarray]:
        audio2exp_show.write_clip(self, current, frozen, self._held_out, path)
        return {"sheet": audio2exp_show.sheet(self, current, frozen, batch)}

    def export(self, current: State, frozen: Any, folder: pathlib.Path) -> None:
        params = parallel.fetch(state.averaged(current))
        if self._encoder is not None:
            params = {"audio_encoder": self._encoder, **params}
        if parallel.is_main_process():
            audio2exp_show.export(self, params, int(current["step"]), folder)


def _same(one: Any, other: Any) -> bool:
    """Whether two parameter trees are equal to the bit."""
    return jax.tree.structure(one) == jax.tree.structure(other) and jax.tree.all(
        jax.tree.map(np.array_equal, one, other)
    )


def _zeros(abstract: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract)


EVALUATED = (("unedited", 0.0, 0.0), *((f"alpha_{alpha:g}", alpha, 1.0) for alpha in EVALUATED_ALPHAS))

Config = Audio2ExpTraining


def build(config: Audio2ExpTraining) -> Audio2ExpTask:
    return Audio2ExpTask(config)
