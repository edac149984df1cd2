"""Files that are whole under their names or not there, also where several hosts write the same one at once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

from ctjax.types import UserError


@contextlib.contextmanager
def written_whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name beside `path` that nobody else writes to. What is written there takes the place of `path` when the block
    ends well, and is removed otherwise; only a process that is killed leaves it (see `remove_leftovers`).

    Raises `UserError` where the disk does not take it.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}): put that right and run the same command again, "
            "what is done stays done"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> pathlib.Path:
    """`text` at `path`, as `written_whole`; returns the path. Bytes of file names that are no text become escapes."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path


def remove_leftovers(*folders: pathlib.Path) -> None:
    """Removes what killed processes left in `folders`, once everything in them is finished."""
    for folder in folders:
        for leftover in folder.glob(".*.partial"):
            with contextlib.suppress(OSError):
                leftover.unlink()
