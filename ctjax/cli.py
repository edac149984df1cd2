"""What every command shares: one clear line for a user's mistake, a status, and the compilation cache."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
from collections.abc import Callable

from absl import app, logging

from ctjax.types import UserError

EXIT_USER_ERROR = 1
EXIT_INTERRUPTED = 130  # what shells report for a program ended by Ctrl-C
EXIT_TERMINATED = 143  # and by `kill`


def cache_dir() -> pathlib.Path:
    """The user's cache folder: `CTJAX_CACHE_DIR`, else `ctjax` inside `XDG_CACHE_HOME` or `~/.cache`."""
    if explicit := os.environ.get("CTJAX_CACHE_DIR"):
        return pathlib.Path(explicit).expanduser()
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ctjax"


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, so that a second run of the same size does not compile."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def run(main: Callable[[], None], *, debug: Callable[[], bool] = lambda: False) -> None:
    """Parses flags and calls `main()`.

    A `UserError` becomes one line on standard error and exit status 1, unless `debug()` is true: then it is raised
    with its traceback; so does an error of the operating system that names a file. Ctrl-C exits with status 130,
    SIGTERM and a closed terminal with 143, after cleaning up.
    """

    def guarded(argv: list[str]) -> None:
        if logging.get_verbosity() == logging.INFO:  # absl's own default: libraries report every file they open
            logging.set_verbosity(logging.WARNING)
        try:
            if len(argv) > 1:
                raise UserError(f"unexpected argument {argv[1]!r}: options are given as --name=value (see --help)")
            main()
        except UserError as error:
            if debug():
                raise
            print(f"{pathlib.Path(argv[0]).name}: error: {error}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except OSError as error:  # a full disk, a folder that may not be entered: nothing of it is our mistake
            if debug() or error.filename is None:
                raise
            print(f"{pathlib.Path(argv[0]).name}: error: {error.filename}: {error.strerror}", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)):  # a terminal that is closed
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` has it
            signal.signal(number, lambda *_: sys.exit(EXIT_TERMINATED))  # so that half-written files are removed
    app.run(guarded)
