"""What commands share: one line for a user's mistake, statuses, quiet libraries."""

import subprocess
import sys

import pytest

from ctjax import cli

PROGRAM = """
import sys
from absl import logging
from ctjax import cli
from ctjax.types import UserError

def main():
    logging.info("a library reports")
    {body}

cli.run(main, debug=lambda: {debug})
"""


def run(body, *arguments, debug=False):
    program = PROGRAM.format(body=body, debug=debug)
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("body", "arguments", "status", "line"),
    [
        ("print('done')", (), 0, ""),
        ("raise UserError('x.wav: no such file')", (), 1, "-c: error: x.wav: no such file"),
        ("print('done')", ("x.wav",), 1, "-c: error: unexpected argument 'x.wav': options are given as --name=value"),
        ("raise KeyboardInterrupt", (), 130, ""),
    ],
)
def test_statuses_and_lines(body, arguments, status, line):
    done = run(body, *arguments)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == (1 if line else 0)


def test_debug_shows_the_traceback():
    done = run("raise UserError('x.wav: no such file')", debug=True)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_ends_it_after_cleaning_up(name, ignored):
    """A temporary file is removed on the way out; what was started with `nohup` goes on."""
    before = f"import signal; signal.signal(signal.{name}, signal.SIG_{'IGN' if ignored else 'DFL'})"
    body = f"""
    import os, signal
    try:
        os.kill(os.getpid(), signal.{name})
        print('went on')
    finally:
        print('cleaned up')
"""
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM.format(body=body, debug=False)], capture_output=True, text=True
    )
    assert done.returncode == (0 if ignored else 143), done.stderr
    assert done.stdout.split("\n")[:-1] == (["went on", "cleaned up"] if ignored else ["cleaned up"])


def test_the_cache_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CTJAX_CACHE_DIR", raising=False)
    assert cli.cache_dir() == tmp_path / "ctjax"
    monkeypatch.setenv("CTJAX_CACHE_DIR", str(tmp_path / "own"))
    assert cli.cache_dir() == tmp_path / "own"
