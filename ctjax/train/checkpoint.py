"""Checkpoints of a run: the state, the position in the data and the configuration, saved by Orbax in one step.

A step's folder appears under its final name only when it is complete, so a killed run leaves whole checkpoints. Each
also carries a checksum per array: one that was damaged afterwards is put aside with a warning, and the one before it
is taken.
"""

from __future__ import annotations

import logging
import os
import pathlib
import shutil
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


def prepare_folder(folder: pathlib.Path, bytes_needed: int) -> None:
    """Makes `folder` and shows that it can be written and holds `bytes_needed`; raises `UserError` otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {folder}: {error.strerror}") from error
    free = shutil.disk_usage(folder).free
    if free < bytes_needed + FREE_SPACE_MARGIN:
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.2f} GB free; the run's checkpoints need "
            f"{bytes_needed / 1e9:.2f} GB: free some space, or keep fewer (--config.loop.keep)"
        )


class Checkpoints:
    """The checkpoints in `folder`/checkpoints; at most `keep` of them remain. Use as a context manager."""

    def __init__(self, folder: pathlib.Path, *, keep: int):
        self._folder = pathlib.Path(folder).absolute() / "checkpoints"
        self._aside = self._folder.parent / "damaged_checkpoints"
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
        """The newest sound checkpoint, with `data` moved to its position; None if there is none.

        `abstract`: the state as `jax.eval_shape` gives it. config: the run's, as `save` takes it. Raises `UserError` if
        the checkpoint belongs to another network, optimizer, number of processes or of reading workers, or if none is
        sound.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            restored, problem = self._read(step, abstract, data, config)
            if parallel.everywhere(restored is not None):
                return restored
            self._put_aside(step, problem or "damaged for another process")
        if steps:
            raise UserError(f"none of the checkpoints in {self._folder.parent} is sound; start in a new folder")
        return None

    def _read(
        self, step: int, abstract: State, data: grain.DatasetIterator, config: dict[str, Any]
    ) -> tuple[Restored | None, str]:
        """The checkpoint of `step`, or None and what is wrong with it."""
        keep_position = data.get_state()
        try:
            about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
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
            host = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(expected), data=grain.checkpoint.CheckpointRestore(data)
                ),
            ).state
            wrong = [path for path, entry in _describe(host).items() if entry != about["arrays"][path]]
            if wrong:
                raise ValueError(f"checksum of {wrong[0]} differs")
        except UserError:
            raise
        except Exception as error:  # whatever a damaged file provokes in the readers
            data.set_state(keep_position)
            return None, str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return Restored(step, from_host(host, abstract), about["config"]), ""

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
        f"saving step {step} to {folder} failed ({str(error).splitlines()[0][:200]}): "
        "make room or repair the disk and run the same command again"
    )
