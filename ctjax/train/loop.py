"""The training loop, the only one: any `Task` on any mesh, with checkpoints, logs, pictures and a clean stop.

records -> batch -> step(state, frozen, batch) -> state -> checkpoint
"""

from __future__ import annotations

import json
import logging
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, Protocol

import grain
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from ctjax import parallel
from ctjax.progress import progress_bar
from ctjax.train import checkpoint, metrics
from ctjax.types import UserError

log = logging.getLogger(__name__)

State = dict[str, Any]
Batch = Mapping[str, Any]


@dataclass(frozen=True)
class LoopConfig:
    """steps: length of the run; 0 measures and exports what it starts from. batch: examples per step over all devices.
    The intervals are in steps; of evaluations and pictures 0 means never. Saved is before every evaluation as well, and
    after the last step. keep: checkpoints kept."""

    steps: int = 100_000
    batch: int = 8
    seed: int = 0
    log_every: int = 50
    save_every: int = 1000
    keep: int = 3
    evaluate_every: int = 1000
    pictures_every: int = 1000

    def __post_init__(self) -> None:
        for name, least in (("steps", 0), ("batch", 1), ("log_every", 1), ("save_every", 1), ("keep", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


class Task(Protocol):
    """What is trained. Everything but `init` and `step` runs outside jit and may compile what it needs."""

    @property
    def frozen(self) -> Any:
        """Parameters of frozen networks and constants (any pytree); placed on every device once."""

    def init(self, key: jax.Array) -> State:
        """The first state: a plain dict with at least `step` (int32) and `params`. Traced."""

    def step(self, state: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any]]:
        """One update. Pure and traced; `state` is donated. Metrics are scalars or `metrics.Mean`."""

    def training_data(self, rows: parallel.Rows) -> grain.IterDataset:
        """Endless host batches (dicts of numpy arrays): this process's rows of each global batch."""

    def evaluation_data(self, rows: parallel.Rows) -> Iterable[Batch]:
        """A fixed, finite series of held-out host batches, the same at every call; may be empty."""

    def evaluate(self, state: State, frozen: Any, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures on held-out batches, which come placed on the devices."""

    def pictures(self, state: State, frozen: Any, batch: Batch, folder: MediaFolder) -> dict[str, np.ndarray]:
        """{name: RGB uint8 "h w 3"} for one placed batch. `folder(name, suffix)` gives a path for any other file."""

    def export(self, state: State, frozen: Any, folder: pathlib.Path) -> None:
        """Writes what the run has learned into `folder`. Called on every process; only the main one may write."""


class MediaFolder(Protocol):
    def __call__(self, name: str, suffix: str) -> pathlib.Path: ...


class Outcome(NamedTuple):
    """state: the last state. finished: False after a requested stop (SIGTERM, Ctrl-C)."""

    state: State
    step: int
    finished: bool


class _StopRequest:
    """Remembers SIGTERM and Ctrl-C until the step is over. With several processes jax listens to SIGTERM and agrees on
    the step, so Ctrl-C is passed on to it as one."""

    def __init__(self) -> None:
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> _StopRequest:
        numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
        for number in numbers:
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(number, self._previous[number])  # the second one ends at once
        # The step may be the first, which compiles for minutes. Printing could interrupt itself here.
        os.write(2, b"\nstopping after this step; once more ends at once, without saving\n")
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)

    def reached(self, step: int) -> bool:
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked


class _Window:
    """Metrics and times since the last log line."""

    def __init__(self, batch: int):
        self._batch = batch
        self.clear()

    def clear(self) -> None:
        self._metrics: list[Any] = []
        self.start_clock()

    def start_clock(self) -> None:
        """Times from here on; the steps that are in the window already count for its metrics alone."""
        self._untimed = len(self._metrics)
        self._start = time.perf_counter()
        self._waited = 0.0

    def skip(self, seconds: float) -> None:
        """Leaves out time that was spent on something else than training."""
        self._start += seconds

    def fetch(self, source: Iterator[Batch]) -> Batch:
        start = time.perf_counter()
        batch = next(source)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, step_metrics: Any) -> None:
        self._metrics.append(step_metrics)

    def summary(self) -> dict[str, float]:
        """The metrics' means and, if any step was timed, the speed."""
        values = metrics.average(parallel.fetch(self._metrics))
        timed = len(self._metrics) - self._untimed
        if not timed:
            return values
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rate = timed / seconds
        speed = {"steps_per_s": rate, "samples_per_s": rate * self._batch, "data_wait_share": self._waited / seconds}
        return {**values, **{f"speed/{name}": value for name, value in speed.items()}}


def run(
    task: Task,
    config: LoopConfig,
    *,
    folder: pathlib.Path,
    mesh: Mesh | None = None,
    about: dict[str, Any] | None = None,
) -> Outcome:
    """Trains `task` in `folder` until `config.steps`, going on from the newest sound checkpoint there.

    `about`: the run's whole configuration, JSON-able, kept with every checkpoint. Raises `UserError` for a folder
    that cannot be used, a batch that does not divide, a checkpoint of another network, and a loss that is not finite.

    With `about` are kept the `fingerprints` of a task that has them, {field of the configuration: SHA-256 of the bundle
    it names}: a checkpoint made with other weights is refused, since the path alone does not tell. Of its
    `data_digests`, {folder: SHA-256 of what lies there}, a change is said aloud.
    """
    mesh = parallel.make_mesh() if mesh is None else mesh
    folder = pathlib.Path(folder).absolute()
    rows = parallel.rows_of_process(mesh, config.batch)
    key = jax.random.key(config.seed)
    abstract = jax.eval_shape(task.init, key)
    checkpoint.prepare_folder(folder, state_bytes=_bytes(abstract), keep=config.keep)
    about = {**(about or {})}
    if fingerprints := getattr(task, "fingerprints", None):
        about["fingerprints"] = fingerprints
    if digests := getattr(task, "data_digests", None):
        about["data"] = digests
    data = iter(task.training_data(rows))
    with checkpoint.Checkpoints(folder, keep=config.keep) as checkpoints:
        restored = checkpoints.restore(abstract, data, about)
        _write_config(folder, about)  # not before: a start that is refused leaves the run as it was
        if restored is None:
            state = _first_state(task, mesh, key)
        else:
            _warn_of_changes(restored.config, about)
            state = parallel.replicate(mesh, restored.state)
        start = restored.step if restored else 0
        frozen = parallel.replicate(mesh, task.frozen)
        with metrics.MetricLog(folder, resumed_step=start) as record:
            trainer = _Trainer(task, config, mesh, rows, folder, frozen, checkpoints, record, about)
            outcome = trainer.run(state, start, data)
        if outcome.finished:
            task.export(outcome.state, frozen, folder / "export")
    return outcome


class _Trainer:
    """The parts of one run, so that its stages need no long argument lists."""

    def __init__(
        self,
        task: Task,
        config: LoopConfig,
        mesh: Mesh,
        rows: parallel.Rows,
        folder: pathlib.Path,
        frozen: Any,
        checkpoints: checkpoint.Checkpoints,
        record: metrics.MetricLog,
        about: dict[str, Any],
    ):
        self.task, self.config, self.mesh, self.rows, self.folder = task, config, mesh, rows, folder
        self.frozen, self.checkpoints, self.record, self.about = frozen, checkpoints, record, about
        everywhere = parallel.replicated(mesh)
        self._step = jax.jit(self._guarded_step, donate_argnums=0, out_shardings=(everywhere, everywhere, everywhere))
        self._window = _Window(config.batch)

    def _guarded_step(self, state: State, frozen: Any, batch: Batch) -> tuple[State, dict[str, Any], jax.Array]:
        state, step_metrics = self.task.step(state, frozen, batch)
        return state, step_metrics, metrics.all_finite(step_metrics)

    def run(self, state: State, start: int, data: Iterator[Batch]) -> Outcome:
        config, step = self.config, start
        before: tuple[int, Batch, jax.Array, dict[str, Any]] | None = None
        bar = progress_bar(total=config.steps, initial=start, unit="step", disable=not parallel.is_main_process())
        bar.set_description("compiling")
        with _StopRequest() as stop, bar:
            if start == 0:
                self._look(state, 0)
            self._window.clear()
            while step < config.steps:
                batch = self._window.fetch(data)
                state, step_metrics, finite = self._step(state, self.frozen, parallel.place_batch(self.mesh, batch))
                step += 1
                # the verdict on a step is read while the next one runs, so that the device never waits for it
                if before:
                    self._check_finite(*before)
                before = (step, batch, finite, step_metrics)
                self._window.add(step_metrics)
                if step == start + 1:  # most of its time went into compiling
                    jax.block_until_ready(finite)
                    self._window.start_clock()
                stopping = stop.reached(step)
                last = step == config.steps
                # Before a look as well: it takes its time, and a scheduler may not wait for its end.
                if last or stopping or _due(step, config.save_every) or _due(step, config.evaluate_every):
                    self._check_finite(*before)
                    self.checkpoints.save(step, state, data, self.about)
                if last or stopping or _due(step, config.log_every):
                    self._log(step, bar)
                if not stopping:
                    self._look(state, step)
                bar.set_description("training", refresh=False)
                bar.update()
                if stopping:
                    break
            self.checkpoints.wait()
        if step < config.steps and parallel.is_main_process():
            print(
                f"stopped and saved at step {step} of {config.steps}: the same command goes on from there", flush=True
            )
        return Outcome(state, step, step >= config.steps)

    def _log(self, step: int, bar: Any) -> None:
        values = self._window.summary()
        self.record.write(step, values)
        shown = {name: f"{values[name]:.4g}" for name in ("loss",) if name in values}
        if "speed/samples_per_s" in values:
            shown["samples/s"] = f"{values['speed/samples_per_s']:.1f}"
            shown["waiting for data"] = f"{values['speed/data_wait_share']:.0%}"
        bar.set_postfix(shown)
        self._window.clear()

    def _look(self, state: State, step: int) -> None:
        """Held-out figures and pictures where they are due, outside the timed window."""
        evaluating, drawing = (_due(step, n) for n in (self.config.evaluate_every, self.config.pictures_every))
        last = step == self.config.steps
        evaluating |= last and self.config.evaluate_every > 0
        drawing |= last and self.config.pictures_every > 0
        if not (evaluating or drawing):
            return
        begin = time.perf_counter()
        if evaluating:
            figures = self.task.evaluate(state, self.frozen, self._held_out())
            if figures:
                self.record.write(step, {f"held_out/{name}": value for name, value in figures.items()})
                if parallel.is_main_process():
                    shown = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
                    tqdm.write(f"step {step}, held out: {shown}", file=sys.stderr)
        if drawing and (batch := next(iter(self._held_out()), None)) is not None:

            def path(name: str, suffix: str) -> pathlib.Path:
                return self.record.picture_path(step, name, suffix)

            self.record.pictures(step, self.task.pictures(state, self.frozen, batch, path))
        self._window.skip(time.perf_counter() - begin)

    def _held_out(self) -> Iterator[Batch]:
        for batch in self.task.evaluation_data(self.rows):
            yield parallel.place_batch(self.mesh, batch)

    def _check_finite(self, step: int, batch: Batch, finite: jax.Array, step_metrics: dict[str, Any]) -> None:
        if bool(parallel.fetch(finite)):
            return
        values = metrics.average([parallel.fetch(step_metrics)])
        target = self.folder / "not_finite" / f"step_{step:08d}"
        target.mkdir(parents=True, exist_ok=True)
        name = f"process_{jax.process_index()}"
        np.savez(target / f"{name}.npz", **{k: np.asarray(v) for k, v in batch.items()})
        (target / f"{name}.json").write_text(json.dumps({k: repr(v) for k, v in values.items()}, indent=1))
        self.checkpoints.wait()
        bad = ", ".join(sorted(k for k, v in values.items() if not np.isfinite(v)))
        raise UserError(
            f"step {step}: {bad} is not finite; the batch is in {target}, the last checkpoint is of step "
            f"{self.checkpoints.latest}: look at the batch, lower the learning rate or the clipping, and run again"
        )


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def _first_state(task: Task, mesh: Mesh, key: jax.Array) -> State:
    """`task.init`, compiled. A task with `eager_init` runs it outside of any program: weights that it starts from would
    end up there as constants, and the draws of a large network take minutes to compile."""
    everywhere = parallel.replicated(mesh)
    if getattr(task, "eager_init", False):
        return jax.jit(lambda state: state, out_shardings=everywhere)(task.init(key))
    return jax.jit(task.init, out_shardings=everywhere)(key)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _write_config(folder: pathlib.Path, about: dict[str, Any]) -> None:
    if parallel.is_main_process():
        temporary = folder / "config.json.tmp"
        temporary.write_text(json.dumps(about, indent=1) + "\n")
        temporary.replace(folder / "config.json")


def _warn_of_changes(before: Any, now: Any, path: str = "config") -> None:
    """Says what differs from the configuration that made the checkpoint; some changes are meant, none is silent."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            _warn_of_changes(before.get(name), now.get(name), f"{path}.{name}")
    elif before != now:
        log.warning("%s was %r when the checkpoint was saved and is %r now", path, before, now)
