"""Checkpoints of a run: the state, the position in the data and the configuration, saved by Orbax in one step.

A step's folder appears under its final name only when it is complete, so a killed run leaves whole checkpoints. Each
also carries a checksum per array: where one was damaged afterwards, the one before it is taken, and the damaged one is
put aside with a warning. Where none is sound all stay where they are, and no run begins anew by itself.
"""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
import tempfile
import zlib
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp

from ctjax import parallel
from ctjax.types import UserError

log = logging.getLogger(__name__)

State = dict[str, Any]
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged_checkpoints"
FREE_SPACE_MARGIN = 64 << 20  # for logs, pictures and the checkpoint's own bookkeeping


class Restored(NamedTuple):
    """What a checkpoint holds: step, state as numpy arrays, and the configuration it was made with."""

    step: int
    state: State
    config: dict[str, Any]


def to_host(state: State) -> dict[str, np.ndarray]:
    """A copy of `state` as {path: numpy array}, safe against later donation. Random keys must be raw words.

    Flat, because Orbax does not keep the types of a tree's nodes and keys (list indices come back as strings).
    """
    return {path: np.array(parallel.fetch(leaf)) for path, leaf in _paths(state).items()}


def from_host(host: dict[str, np.ndarray], abstract: State) -> State:
    """The inverse of `to_host`, with the structure of `abstract`."""
    return jax.tree.unflatten(jax.tree.structure(abstract), [host[path] for path in _paths(abstract)])


def _paths(tree: State) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def prepare_folder(folder: pathlib.Path, *, state_bytes: int, keep: int) -> None:
    """Makes `folder` and shows that it can be written and has room for the checkpoints still to come: `keep` and the
    one being written, each of `state_bytes`, less those that are there and will make way. Raises `UserError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"\0" * 4096)
            probe.flush()
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {folder}: {error.strerror}") from error
    there = sum(saved.name.isdigit() for saved in (folder / CHECKPOINTS).glob("*"))
    bytes_needed = max(keep + 1 - there, 1) * state_bytes
    free = shutil.disk_usage(folder).free
    if free < bytes_needed + FREE_SPACE_MARGIN:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.2f} GB free; the checkpoints still to come need "
            f"{bytes_needed / 1e9:.2f} GB: free some space, or keep fewer (--config.loop.keep)"
        )


class Checkpoints:
    """The checkpoints in `folder`/checkpoints; at most `keep` of them remain. Use as a context manager."""

    def __init__(self, folder: pathlib.Path, *, keep: int):
        self._folder = pathlib.Path(folder).absolute() / CHECKPOINTS
        self._aside = self._folder.parent / DAMAGED
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            # Grain's handler writes at once, on every process: the folder must be there before any process goes on.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._manager.close()

    @property
    def latest(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: State, data: grain.DatasetIterator, config: dict[str, Any]) -> None:
        """Starts saving in the background; `state` may be overwritten at once. Raises `UserError` if the disk fails."""
        host = to_host(state)
        about = {"config": config, "arrays": _describe(host), "processes": jax.process_count()}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(host),
                    about=ocp.args.JsonSave(about),
                    data=grain.checkpoint.CheckpointSave(data),
                ),
            )
        except (OSError, ValueError) as error:
            raise _disk_error(self._folder, step, error) from error

    def wait(self) -> None:
        """Returns when everything saved is on disk. Raises `UserError` if that failed."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise _disk_error(self._folder, self.latest or 0, error) from error

    def restore(self, abstract: State, data: grain.DatasetIterator, config: dict[str, Any]) -> Restored | None:
        """The newest sound checkpoint, with `data` moved to its position; None if the run has made none yet.

        `abstract`: the state as `jax.eval_shape` gives it. config: the run's, as `save` takes it. Raises `UserError` if
        the checkpoint belongs to another network, optimizer, number of processes or of reading workers, or to bundles
        with other weights (config["fingerprints"]), if it cannot be read for a reason that is not its own, and if none
        is sound, now or when the run was last started.
        """
        damaged: list[tuple[int, str]] = []
        for step in sorted(self._manager.all_steps(), reverse=True):
            restored, problem = self._read_together(step, abstract, data, config)
            if restored is not None:
                for each in damaged:  # only now: where nothing can be read the fault may lie elsewhere
                    self._put_aside(*each)
                return restored
            damaged.append((step, problem))
        if damaged:
            step, problem = damaged[0]
            raise UserError(
                f"none of the checkpoints in {self._folder} is sound (that of step {step}: {problem}); all are where "
                "they were: bring a sound one back, or start in a new folder"
            )
        if self._aside.is_dir() and any(self._aside.iterdir()):
            raise UserError(
                f"{self._folder} holds no checkpoint, but damaged ones are in {self._aside}, and the run is not begun "
                f"anew over them: move a sound one back, or start in a new folder (or delete {self._aside.name})"
            )
        return None

    def _read_together(
        self, step: int, abstract: State, data: grain.DatasetIterator, config: dict[str, Any]
    ) -> tuple[Restored | None, str]:
        """The checkpoint of `step` on every process, or on every one None and what is wrong with it.

        Each process reads for itself, without waiting for another, and they compare only how it went: what one of them
        cannot read leaves none waiting for it.
        """
        position = data.get_state()
        restored: Restored | None = None
        problem, refusal = "damaged for another process", None
        try:
            restored = self._read(step, abstract, data, config)
        except UserError as error:
            refusal = error
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            problem = _first_line(error)
        except (OSError, MemoryError) as error:  # of the disk, the network or the machine, not of the checkpoint
            refusal = UserError(
                f"cannot read {getattr(error, 'filename', None) or self._folder / str(step)}: "
                f"{getattr(error, 'strerror', None) or _first_line(error)}; no checkpoint was put aside: "
                "repair this and run the same command again"
            )
            refusal.__cause__ = error
        except Exception as error:  # whatever a damaged file provokes in the readers
            problem = _first_line(error)
        if not parallel.everywhere(refusal is None):
            raise refusal or UserError(
                f"another process cannot go on from step {step} of {self._folder}: its output says why"
            )
        if not parallel.everywhere(restored is not None):
            data.set_state(position)
            return None, problem
        return restored, ""

    def _read(self, step: int, abstract: State, data: grain.DatasetIterator, config: dict[str, Any]) -> Restored:
        """The checkpoint of `step`, read by this process alone: the manager's own `restore` waits for all of them."""
        folder = self._manager.directory / str(step)
        _open_every_file(folder)
        about = ocp.JsonCheckpointHandler().restore(folder / "about")
        expected = {path: np.zeros(leaf.shape, leaf.dtype) for path, leaf in _paths(abstract).items()}
        differences = _differences(about["arrays"], _describe(expected, checksums=False))
        if differences:
            raise UserError(
                f"the checkpoint of step {step} in {self._folder.parent} does not fit this configuration: "
                + "; ".join(differences[:5])
            )
        if about["processes"] != jax.process_count():
            raise UserError(
                f"the checkpoint of step {step} in {self._folder.parent} was saved by {about['processes']} "
                f"processes and keeps a data position for each; this run has {jax.process_count()}: "
                "start as many as before"
            )
        workers, wanted = (_workers(found) for found in (about["config"], config))
        if workers != wanted:
            raise UserError(
                f"the checkpoint of step {step} in {self._folder.parent} was saved with reading.workers={workers} "
                f"and keeps a data position for each; this run has {wanted}: set it as before"
            )
        for name, now in config.get("fingerprints", {}).items():
            before = about["config"].get("fingerprints", {}).get(name, now)
            if before != now:
                raise UserError(
                    f"the checkpoint of step {step} in {self._folder.parent} was made with other weights of "
                    f"config.{name} ({before[:12]}, now {now[:12]}): bring those back, or start in a new folder"
                )
        host = ocp.StandardCheckpointHandler().restore(folder / "state", args=ocp.args.StandardRestore(expected))
        wrong = [path for path, entry in _describe(host).items() if entry != about["arrays"][path]]
        if wrong:
            raise ValueError(f"checksum of {wrong[0]} differs")
        grain.checkpoint.CheckpointHandler().restore(folder / "data", data)
        return Restored(step, from_host(host, abstract), about["config"])

    def _put_aside(self, step: int, problem: str) -> None:
        log.warning("checkpoint %d is damaged (%s): put aside in %s", step, problem, self._aside)
        parallel.wait_for_all(f"damaged {step}")
        if parallel.is_main_process():
            self._aside.mkdir(exist_ok=True)
            target = self._aside / str(step)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self._folder / str(step), target)
        parallel.wait_for_all(f"aside {step}")
        self._manager.reload()


def _open_every_file(folder: os.PathLike[str]) -> None:
    """Raises the `OSError` of a file that cannot be opened; TensorStore's for it looks like one of damage."""

    def fail(error: OSError) -> None:
        raise error

    for place, _, names in os.walk(folder, onerror=fail):
        for name in names:
            with open(os.path.join(place, name), "rb") as file:
                file.read(1)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _workers(config: dict[str, Any]) -> int:
    return config.get("reading", {}).get("workers", 0)


def _describe(host: dict[str, np.ndarray], *, checksums: bool = True) -> dict[str, list[Any]]:
    """{path: [shape, dtype, CRC-32]} of the arrays of `host`."""
    described: dict[str, list[Any]] = {}
    for path, leaf in host.items():
        described[path] = [list(leaf.shape), str(leaf.dtype)]
        if checksums:
            described[path].append(zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data))
    return described


def _differences(saved: dict[str, list[Any]], wanted: dict[str, list[Any]]) -> list[str]:
    """In words, how the arrays of a checkpoint differ from those that are wanted."""
    problems = [f"{path} is missing" for path in wanted if path not in saved]
    problems += [f"{path} is not known here" for path in saved if path not in wanted]
    for path in saved.keys() & wanted.keys():
        if saved[path][:2] != wanted[path]:
            problems.append(f"{path} is {tuple(saved[path][0])} {saved[path][1]}, wanted {tuple(wanted[path][0])}")
    return sorted(problems, key=lambda text: (not text.startswith("params"), text))


def _disk_error(folder: pathlib.Path, step: int, error: Exception) -> UserError:
    return UserError(
        f"saving step {step} to {folder} failed ({_first_line(error)}): "
        "make room or repair the disk and run the same command again"
    )
