"""Progress bars that fit terminals and log files alike."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LOG_FILE_S = 10.0  # a log file keeps every state of the bar: one of them each so many seconds is enough


def progress_bar(*args: Any, **options: Any) -> tqdm:
    """`tqdm.tqdm(*args, **options)` on standard error, drawn seldom where that is no terminal."""
    if not sys.stderr.isatty():
        options = {"mininterval": LOG_FILE_S, "maxinterval": LOG_FILE_S, **options}
    return tqdm(*args, **options)
