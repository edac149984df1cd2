"""The only owner of mesh, axis names, shardings and host -> device placement.

One mesh with one axis over all devices of all processes: batches are split along their first axis, everything
else is replicated. The same code serves one device, the devices of a host, and several hosts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from ctjax.types import UserError

BATCH_AXIS = "batch"

PyTree = Any


class Rows(NamedTuple):
    """The rows of every global batch that this process feeds: `start` to `stop` of `batch`."""

    batch: int
    start: int
    stop: int

    @property
    def count(self) -> int:
        return self.stop - self.start


def connect(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Joins the processes of one job; does nothing for a single process.

    With `coordinator` ("host:port" of process 0) the other two must be given as well. Without it a SLURM step of
    several tasks is recognised by its environment. Call it before anything else touches a device. Raises `UserError`
    if only some of the three are given or they make no sense.
    """
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            jax.distributed.initialize(local_device_ids=_slurm_devices(), cluster_detection_method="slurm")
        return
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given too: several processes need all of {', '.join(given)}")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id} must be between 0 and {num_processes - 1}")
    if ":" not in coordinator:
        raise UserError(f"--coordinator={coordinator} must be host:port of process 0")
    jax.distributed.initialize(coordinator, num_processes, process_id, _slurm_devices())


def _slurm_devices() -> list[int] | None:
    """Which of the devices it sees a process takes: [] is all of them, None leaves it to JAX.

    Under SLURM that gives each task the one device of the task's number on its node: right for a task a device that all
    see all of them, but a task that has the node, or its device, to itself would leave the others idle or find none.
    """
    if len([name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]) == 1:
        return []
    per_node = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    tasks = [int(count) for count, times in per_node for _ in range(int(times or 1))]
    node = int(os.environ.get("SLURM_NODEID", "0"))
    return [] if node < len(tasks) and tasks[node] == 1 else None


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (all of them by default), along `BATCH_AXIS`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (BATCH_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXIS))


def on_each_device(mesh: Mesh, function: Callable[..., PyTree], *split: bool) -> Callable[..., PyTree]:
    """`function` compiled for each device to run by itself, for what is done row by row: of the arguments for which
    `split` is true it gets its own rows, the others whole, and its results are rows again.

    Left to the compiler a loop over rows would be run in whole on every device.
    """
    specs = tuple(PartitionSpec(BATCH_AXIS) if of_rows else PartitionSpec() for of_rows in split)
    rows = PartitionSpec(BATCH_AXIS)
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=rows, check_vma=False))


def rows_of_process(mesh: Mesh, batch: int) -> Rows:
    """Which rows of a global batch of `batch` examples this process has to supply.

    Raises `UserError` if the batch does not divide by the devices.
    """
    if batch < 1 or batch % mesh.size:
        near = max(1, round(batch / mesh.size)) * mesh.size
        raise UserError(f"a batch of {batch} does not divide by {mesh.size} devices; {near} would")
    per_process = batch // jax.process_count()
    start = jax.process_index() * per_process
    return Rows(batch, start, start + per_process)


def place_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """The global batch on the devices, from this process's rows (numpy arrays, in the order of `rows_of_process`)."""
    sharding = batched(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """`tree` (the same on every process) on every device."""
    sharding = replicated(mesh)

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and jax.process_count() == 1:
            return jax.device_put(x, sharding)
        x = np.asarray(x)
        return jax.make_array_from_process_local_data(sharding, x, x.shape)

    return jax.tree.map(place, tree)


def fetch(tree: PyTree) -> PyTree:
    """`tree` as numpy arrays on every process, whatever its sharding. Every process must call it."""

    def read(x: Any) -> np.ndarray:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            if x.is_fully_replicated:
                return np.asarray(x.addressable_data(0))
            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
        return np.asarray(x)

    return jax.tree.map(read, tree)


def is_main_process() -> bool:
    """True on the one process that writes logs, pictures and exports."""
    return jax.process_index() == 0


def everywhere(flag: bool) -> bool:
    """True if `flag` is true on every process. Every process must call it."""
    if jax.process_count() == 1:
        return flag
    return bool(np.all(multihost_utils.process_allgather(np.asarray(flag))))


def wait_for_all(name: str) -> None:
    """A barrier over the processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
