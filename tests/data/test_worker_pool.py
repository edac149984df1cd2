"""Processes that an interrupt ends at once, without a word of theirs."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from ctjax.data.worker_pool import WorkerPool

BUSY = """
import os, signal, sys, time
from ctjax.data.worker_pool import WorkerPool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background is born ignoring it
    try:
        with WorkerPool(2) as pool:
            pool.submit(os.getpid).result()
            waiting = [pool.submit(time.sleep, 600) for _ in range(2)]
            print("busy", flush=True)
            waiting[0].result()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("pause", [0.0, 1.0])  # the second worker may be starting, or at work
def test_ctrl_c_ends_all_of_them_in_silence(tmp_path, pause):
    (tmp_path / "busy.py").write_text(BUSY)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "busy.py"], stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "busy\n"
        time.sleep(pause)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=120)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert (process.returncode, errors) == (130, "")


def test_what_was_submitted_is_finished_where_the_block_ends_well():
    with WorkerPool(1) as pool:
        results = [pool.submit(abs, -number) for number in range(3)]
    assert [result.result(timeout=0) for result in results] == [0, 1, 2]


def test_an_error_does_not_wait_for_the_others():
    with pytest.raises(ZeroDivisionError), WorkerPool(1) as pool:
        waiting = pool.submit(time.sleep, 600)
        raise ZeroDivisionError
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        waiting.result(timeout=60)
    assert not multiprocessing.active_children()
