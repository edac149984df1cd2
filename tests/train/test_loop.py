"""The loop on a toy task: kills, stops, damage, disks, not-a-number, and one device against eight and two processes."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import portpicker
import pytest

from ctjax import parallel
from ctjax.train import checkpoint, loop, metrics, state
from ctjax.types import UserError

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from toy_task import ToyTask  # noqa: E402


def start(folder, *arguments, devices=1):
    """The toy task as a separate program training in `folder`."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(HERE / "toy_task.py"), str(folder), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, *, status=0):
    output, _ = process.communicate(timeout=400)
    assert process.returncode == status, output
    return output


def logged_step(folder):
    lines = metrics.read(folder / "metrics.jsonl")
    return lines[-1]["step"] if lines else 0


def wait_until(condition, *, seconds=400):  # a busy machine is slow, not wrong
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def losses(folder):
    return {line["step"]: line["loss"] for line in metrics.read(folder / "metrics.jsonl") if "loss" in line}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    finish(start(folder))
    return folder


def test_killed_runs_end_with_the_bits_of_an_unbroken_one(unbroken, tmp_path):
    """SIGKILL at three moments drawn at random, saves under way included; the fourth start finishes."""
    draw = random.Random(time.time())
    kills = 0
    while kills < 3:
        process = start(tmp_path, "--pause_s", 0.03)
        begin = logged_step(tmp_path)
        goal = begin + draw.randint(4, 8)
        wait_until(lambda goal=goal, process=process: logged_step(tmp_path) >= goal or process.poll() is not None)
        time.sleep(draw.random() * 0.05)
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
        kills += 1
    finish(start(tmp_path))
    assert json.loads((tmp_path / "params.json").read_text()) == json.loads((unbroken / "params.json").read_text())
    assert losses(tmp_path) == losses(unbroken), "the log has every step once, with the same losses"


def test_what_was_trained_is_saved_before_an_evaluation(tmp_path):
    """It may take longer than a scheduler waits after it has asked for the end."""

    class Interrupted(ToyTask):
        def evaluate(self, current, frozen, batches):
            if current["step"] > 0:
                raise KeyboardInterrupt
            return {}

    settings = loop.LoopConfig(steps=8, batch=4, save_every=1000, evaluate_every=4, pictures_every=0)
    with pytest.raises(KeyboardInterrupt):
        loop.run(Interrupted(), settings, folder=tmp_path)
    with checkpoint.Checkpoints(tmp_path, keep=3) as kept:
        assert kept.latest == 4


def test_records_made_anew_are_said_aloud(tmp_path, caplog):
    for digest, steps in (("a", 2), ("b", 4)):
        task = ToyTask()
        task.data_digests = {"records": digest}
        settings = loop.LoopConfig(steps=steps, batch=4, evaluate_every=0, pictures_every=0)
        loop.run(task, settings, folder=tmp_path)
    assert "config.data.records was 'a' when the checkpoint was saved and is 'b' now" in caplog.text


def test_sigterm_saves_and_ends_cleanly(unbroken, tmp_path):
    process = start(tmp_path, "--pause_s", 0.03, "--save_every", 1000)
    wait_until(lambda: logged_step(tmp_path) >= 7)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    stopped = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit())
    assert "stopping after this step" in output and f"saved at step {stopped} of 30" in output
    assert not (tmp_path / "export").exists()
    finish(start(tmp_path))
    assert json.loads((tmp_path / "params.json").read_text()) == json.loads((unbroken / "params.json").read_text())


def train(folder, task=None, *, mesh=None, steps=12, batch=16, **options):
    settings = {"log_every": 1, "save_every": 4, "evaluate_every": 0, "pictures_every": 0, **options}
    return loop.run(
        task or ToyTask(), loop.LoopConfig(steps=steps, batch=batch, **settings), folder=folder, mesh=mesh, about={}
    )


def damage(path, how):
    if how == "truncated":
        largest = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif how == "bit flipped":
        for file in (path / "state").rglob("d/*"):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    elif how == "position lost":
        next((path / "data").glob("process_*")).write_text("")
    elif how == "state lost":
        shutil.rmtree(path / "state")


@pytest.mark.parametrize("how", ["truncated", "bit flipped", "position lost", "state lost"])
def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, how, caplog):
    whole = train(tmp_path)
    expected = np.asarray(whole.state["params"]["a"])
    shutil.rmtree(tmp_path / "checkpoints" / "12")
    damage(tmp_path / "checkpoints" / "8", how)
    again = train(tmp_path)
    assert "checkpoint 8 is damaged" in caplog.text
    assert np.array_equal(np.asarray(again.state["params"]["a"]), expected)
    assert (tmp_path / "damaged_checkpoints" / "8").is_dir()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["12", "4", "8"]


def saved_steps(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def test_all_checkpoints_damaged_is_an_error_however_often_it_is_started(tmp_path):
    train(tmp_path, steps=8)
    damage(tmp_path / "checkpoints" / "4", "state lost")
    damage(tmp_path / "checkpoints" / "8", "bit flipped")
    log = (tmp_path / "metrics.jsonl").read_text()
    for _ in range(2):
        with pytest.raises(UserError, match=r"none of the checkpoints .*step 8: \w+"):
            train(tmp_path)
    assert saved_steps(tmp_path) == [4, 8] and not (tmp_path / "damaged_checkpoints").exists()
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_a_run_is_not_begun_anew_over_damaged_checkpoints(tmp_path):
    train(tmp_path, steps=4)
    log = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "checkpoints").rename(tmp_path / "damaged_checkpoints")
    with pytest.raises(UserError, match="holds no checkpoint, but damaged ones are in"):
        train(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == log


def test_a_file_that_cannot_be_opened_is_an_error_and_no_damage(tmp_path):
    train(tmp_path, steps=8)
    file = next((tmp_path / "checkpoints" / "8" / "state").rglob("d/*"))
    content = file.read_bytes()
    file.unlink()
    file.symlink_to(file)
    with pytest.raises(UserError, match=f"cannot read {file}: Too many levels") as caught:
        train(tmp_path)
    assert "\n" not in str(caught.value)
    assert saved_steps(tmp_path) == [4, 8]
    file.unlink()
    file.write_bytes(content)
    train(tmp_path)
    assert not (tmp_path / "damaged_checkpoints").exists()


@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied", "/mnt/a/file"), MemoryError()])
def test_what_is_no_fault_of_the_checkpoint_is_no_damage(tmp_path, monkeypatch, fault):
    train(tmp_path, steps=8)

    def restore(self, directory, **_):
        if directory.parent.name == "8":
            raise fault
        raise AssertionError("an older checkpoint was tried")

    monkeypatch.setattr(checkpoint.ocp.StandardCheckpointHandler, "restore", restore)
    said = "/mnt/a/file: Permission denied" if fault.args else f"{tmp_path}/checkpoints/8: MemoryError"
    with pytest.raises(UserError, match=f"cannot read {said}; no checkpoint was put aside"):
        train(tmp_path)
    assert saved_steps(tmp_path) == [4, 8]


def test_what_another_process_cannot_read_ends_this_one_too(tmp_path, monkeypatch):
    train(tmp_path, steps=4)
    monkeypatch.setattr(parallel, "everywhere", lambda flag: False)
    with pytest.raises(UserError, match="another process cannot go on from step 4 of"):
        train(tmp_path)


def test_checkpoint_of_another_network_is_an_error_and_leaves_the_run_as_it_was(tmp_path):
    settings = loop.LoopConfig(steps=2, batch=16, evaluate_every=0, pictures_every=0)
    loop.run(ToyTask(), settings, folder=tmp_path, about={"width": 64})
    with pytest.raises(UserError, match=r"does not fit this configuration.*params/a is \(24, 64\)"):
        loop.run(ToyTask(width=32), settings, folder=tmp_path, about={"width": 32})
    assert saved_steps(tmp_path) == [2]
    assert json.loads((tmp_path / "config.json").read_text()) == {"width": 64}


def test_a_run_goes_on_only_with_the_bundles_it_began_with(tmp_path):
    """The paths in the configuration stay the same when a bundle is written anew."""
    settings = loop.LoopConfig(steps=2, batch=16, evaluate_every=0, pictures_every=0)

    def start(steps, **fingerprints):
        task = ToyTask()
        task.fingerprints = fingerprints
        loop.run(task, dataclasses.replace(settings, steps=steps), folder=tmp_path, about={"vgg19": "bundles/vgg19"})

    start(2, vgg19="a" * 64)
    with pytest.raises(UserError, match=r"made with other weights of config\.vgg19 \(a{12}, now b{12}\): bring those"):
        start(4, vgg19="b" * 64)
    assert saved_steps(tmp_path) == [2]
    start(4, vgg19="a" * 64, hopenet="c" * 64)  # one that is new was no part of it


def test_not_finite_stops_with_the_batch_saved(tmp_path):
    with pytest.raises(UserError, match="step 7: loss is not finite") as error:
        train(tmp_path, ToyTask(poison_at=6))
    assert "the last checkpoint is of step 4" in str(error.value)
    saved = np.load(tmp_path / "not_finite" / "step_00000007" / "process_0.npz")
    stream = iter(ToyTask().training_data(parallel.Rows(16, 0, 16)))
    batches = [next(stream) for _ in range(7)]
    assert np.array_equal(saved["index"], batches[6]["index"])
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]


def test_not_finite_at_a_save_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="step 8: loss"):
        train(tmp_path, ToyTask(poison_at=7))
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["4"]


def test_unwritable_folder_is_an_error_before_training(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(UserError, match="cannot write to the run's folder"):
        train(blocker / "run")


def test_full_disk_is_an_error_before_training(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="GB free"):
        train(tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_room_is_asked_for_checkpoints_still_to_come(tmp_path, monkeypatch):
    """Of four of 1 GB three are there: the fourth must fit beside them, and one gigabyte is enough for it."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=int(gigabytes * 1e9)))
    gigabytes = 1.5
    with pytest.raises(UserError, match="1.50 GB free; the checkpoints still to come need 4.00 GB"):
        checkpoint.prepare_folder(tmp_path, state_bytes=10**9, keep=3)
    for step in (4, 8, 12):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    checkpoint.prepare_folder(tmp_path, state_bytes=10**9, keep=3)
    checkpoint.prepare_folder(tmp_path, state_bytes=10**9, keep=1)
    gigabytes = 0.5
    with pytest.raises(UserError, match="need 1.00 GB"):
        checkpoint.prepare_folder(tmp_path, state_bytes=10**9, keep=1)


def test_the_probe_of_another_host_is_left_alone(tmp_path):
    """Containers that share a folder may have the same process id."""
    other = tmp_path / f".probe-{os.getpid()}"
    other.write_text("of another host")
    checkpoint.prepare_folder(tmp_path, state_bytes=1, keep=1)
    assert other.read_text() == "of another host"
    assert list(tmp_path.iterdir()) == [other], "its own is gone"


def test_disk_that_fills_while_training_is_one_line(tmp_path):
    """Files may not grow beyond a few kB: the parameters of the first save do not fit."""
    code = (
        "import resource, sys, signal; sys.path.insert(0, sys.argv[1]); import toy_task, absl.flags\n"
        "absl.flags.FLAGS.mark_as_parsed(); from ctjax.types import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))\n"
        "try: toy_task.main([sys.argv[2], '--steps', '10'])\n"
        "except UserError as error: print('USER ERROR', error)\n"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", code, str(HERE), str(tmp_path / "run")], env=environment, capture_output=True, text=True
    )
    assert "USER ERROR saving step" in result.stdout, result.stdout + result.stderr


def test_batch_must_divide_by_the_devices(tmp_path):
    result = finish_with_error(start(tmp_path, devices=3))
    assert "a batch of 16 does not divide by 3 devices; 15 would" in result


def finish_with_error(process):
    output, _ = process.communicate(timeout=400)
    assert process.returncode != 0
    return output


def test_one_and_eight_devices_give_the_same_losses(unbroken, tmp_path):
    finish(start(tmp_path, devices=8))
    one, eight = losses(unbroken), losses(tmp_path)
    assert one.keys() == eight.keys()
    np.testing.assert_allclose(list(one.values()), list(eight.values()), rtol=2e-5)


@pytest.mark.full
def test_two_processes_of_four_devices_give_the_same_losses_and_stop_together(unbroken, tmp_path):
    port = portpicker.pick_unused_port()
    together = ["--coordinator", f"127.0.0.1:{port}", "--num_processes", 2]

    def both(*extra):
        return [start(tmp_path, *together, "--process_id", i, *extra, devices=4) for i in (0, 1)]

    processes = both("--pause_s", 0.05, "--save_every", 1000)
    wait_until(lambda: logged_step(tmp_path) >= 6 or any(p.poll() is not None for p in processes))
    processes[1].send_signal(signal.SIGTERM)  # one host is told, both save the same step
    outputs = [finish(process) for process in processes]
    assert "stopped and saved at step" in outputs[0]
    port = portpicker.pick_unused_port()
    together[1] = f"127.0.0.1:{port}"
    for process in both():
        finish(process)
    one, two = losses(unbroken), losses(tmp_path)
    alone = finish_with_error(start(tmp_path, "--steps", 40))
    assert "was saved by 2 processes" in alone and not (tmp_path / "damaged_checkpoints").exists()
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=2e-5)


@pytest.mark.full
def test_ctrl_c_stops_two_processes_and_what_one_cannot_read_both_leave_out(unbroken, tmp_path):
    def both(*extra):
        address = f"127.0.0.1:{portpicker.pick_unused_port()}"
        together = ["--coordinator", address, "--num_processes", 2, *extra]
        return [start(tmp_path, *together, "--process_id", i) for i in (0, 1)]

    processes = both("--pause_s", 0.05, "--save_every", 4)
    wait_until(lambda: logged_step(tmp_path) >= 6 or any(p.poll() is not None for p in processes))
    processes[0].send_signal(signal.SIGINT)
    outputs = [finish(process) for process in processes]
    assert "stopped and saved at step" in outputs[0]
    newest = saved_steps(tmp_path)[-1]
    (tmp_path / "checkpoints" / str(newest) / "data" / "process_1-of-2.json").write_text("")
    outputs = [finish(process) for process in both()]
    assert all(f"checkpoint {newest} is damaged" in output for output in outputs)
    assert (tmp_path / "damaged_checkpoints" / str(newest)).is_dir()
    one, two = losses(unbroken), losses(tmp_path)
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=2e-5)


JOINED = {"cluster_detection_method": "slurm"}


@pytest.mark.parametrize(
    ("step", "joined"),
    [
        ({"NUM_TASKS": "2"}, [{"local_device_ids": None, **JOINED}]),
        ({"NUM_TASKS": "2", "TASKS_PER_NODE": "1(x2)"}, [{"local_device_ids": [], **JOINED}]),
        ({"NUM_TASKS": "3", "TASKS_PER_NODE": "2,1"}, [{"local_device_ids": [], **JOINED}]),
        ({"NUM_TASKS": "16", "TASKS_PER_NODE": "8(x2)"}, [{"local_device_ids": None, **JOINED}]),
        ({"NUM_TASKS": "16", "TASKS_PER_NODE": "8(x2)", "DEVICE": "0"}, [{"local_device_ids": [], **JOINED}]),
        ({"NUM_TASKS": "1"}, []),
        ({}, []),
    ],
)
def test_the_tasks_of_a_slurm_step_are_joined(monkeypatch, step, joined):
    """JAX by itself gives each task the one device of its number on the node, on the second node here. A task that has
    a node, or a device, to itself takes all that it sees."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    for name in ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NODEID", "1")
    for name, value in step.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES" if name == "DEVICE" else f"SLURM_STEP_{name}", value)
    parallel.connect()
    assert calls == joined


def test_compiling_is_left_out_of_the_speed(monkeypatch):
    now = 0.0
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: now))

    def batches():
        nonlocal now
        while True:
            now += 0.5
            yield {}

    window, source = loop._Window(batch=8), batches()
    window.fetch(source)
    now += 1000.0
    window.add({"loss": np.float32(7)})
    window.start_clock()
    assert window.summary() == {"loss": 7}, "no step was timed, so there is no speed"
    for _ in range(3):
        window.fetch(source)
        now += 1.5
        window.add({"loss": np.float32(3)})
    assert window.summary() == {
        "loss": 4,
        "speed/steps_per_s": 0.5,
        "speed/samples_per_s": 4.0,
        "speed/data_wait_share": 0.25,
    }


@pytest.mark.parametrize("installed", [False, True])
def test_without_tensorboard_the_run_says_so(tmp_path, monkeypatch, capsys, installed):
    writer = types.SimpleNamespace(close=lambda: None)
    module = types.SimpleNamespace(SummaryWriter=lambda *_, **__: writer) if installed else None
    monkeypatch.setitem(sys.modules, "tensorboardX", module)
    with metrics.MetricLog(tmp_path):
        pass
    said = capsys.readouterr().out
    assert said == "" if installed else "ctjax[tensorboard]" in said and said.count("\n") == 1


def test_logs_pictures_and_export(tmp_path):
    train(tmp_path, evaluate_every=6, pictures_every=6)
    lines = metrics.read(tmp_path / "metrics.jsonl")
    held_out = {line["step"]: line["held_out/error"] for line in lines if "held_out/error" in line}
    assert sorted(held_out) == [0, 6, 12]
    assert held_out[12] < held_out[0]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert not any(name.startswith("speed/") for name in steps[0]), "the first step compiles"
    assert all(line["speed/samples_per_s"] > 0 and 0 <= line["speed/data_wait_share"] <= 1 for line in steps[1:])
    assert (tmp_path / "pictures" / "weights" / "00000012.png").stat().st_size > 100
    assert (tmp_path / "pictures" / "note" / "00000006.txt").is_file()
    assert (tmp_path / "export" / "params.npz").is_file()


def test_changed_configuration_is_said_aloud(tmp_path, caplog):
    def with_lr(lr, steps):
        settings = loop.LoopConfig(steps=steps, batch=16, log_every=1, evaluate_every=0, pictures_every=0)
        loop.run(ToyTask(), settings, folder=tmp_path, about={"optimizer": {"lr": lr}})

    with_lr(0.1, 2)
    with_lr(0.2, 4)
    assert "config.optimizer.lr was 0.1 when the checkpoint was saved and is 0.2 now" in caplog.text


def test_another_number_of_reading_workers_is_named_and_costs_no_checkpoint(tmp_path):
    def with_workers(workers, steps):
        settings = loop.LoopConfig(steps=steps, batch=16, log_every=1, evaluate_every=0, pictures_every=0)
        loop.run(ToyTask(), settings, folder=tmp_path, about={"reading": {"workers": workers}})

    with_workers(0, 2)
    with pytest.raises(UserError, match=r"reading\.workers=0 .* this run has 2"):
        with_workers(2, 4)
    assert not (tmp_path / "damaged_checkpoints").exists()
    with_workers(0, 4)


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    def loss(params, batch, key):
        error = (batch["x"] @ params - batch["y"]) ** 2
        return error.mean(), {"loss": error.mean(), "some": metrics.mean_where(error, batch["y"] > 0)}

    rng = np.random.default_rng(0)
    batch = {"x": rng.normal(size=(12, 3)).astype(np.float32), "y": rng.normal(size=12).astype(np.float32)}
    params = np.ones(3, np.float32)
    whole, whole_metrics = state.gradients(loss, params, batch, jax.random.key(0), 1)
    parts, parts_metrics = state.gradients(loss, params, batch, jax.random.key(0), 4)
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    assert metrics.average([whole_metrics]) == pytest.approx(metrics.average([parts_metrics]), rel=1e-5)


def test_lists_and_tuples_of_a_state_come_back_as_they_were():
    before = {"params": {"layers": {0: np.ones(2), 1: np.zeros(3)}}, "opt": ((np.ones(1),), {}), "step": np.int32(3)}
    abstract = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, before))
    again = checkpoint.from_host(checkpoint.to_host(before), abstract)
    assert jax.tree.structure(again) == jax.tree.structure(before)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, before))
