"""One source to one bundle: recognise, fill, account for every key, write."""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert import sources
from convert.catalogue import Entry, identify
from convert.plan import Outcome, Plan, fill
from convert.sources import Source
from ctjax.types import UserError
from ctjax.weights import save_bundle


@dataclass
class Converted:
    """A source in memory, ready to be written."""

    entry: Entry
    source: Source
    plan: Plan
    outcome: Outcome
    digests: list[dict[str, Any]]


def convert(entry: Entry, path: pathlib.Path, options: Mapping[str, Any]) -> Converted:
    """Reads and converts `path`. Raises `UserError` that names the file, the keys, and, where the file is another
    network's, that network's command."""
    source = sources.open_source(path)
    try:
        plan = entry.recipe(source, options)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:  # the digests are taken while the arrays are laid out
            digests = pool.submit(sources.digests, plan.files)
            outcome = fill(plan, name=f"{path} ({entry.title})")
            return Converted(entry, source, plan, outcome, digests.result())
    except UserError as error:
        raise _explained(entry, source, str(error)) from error
    except (KeyError, IndexError, ValueError) as error:  # how a table's infer_config says that a key is not there
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise _explained(entry, source, f"{path}: not a checkpoint of {entry.title}: {what}") from error


def write(converted: Converted, output: pathlib.Path, *, licence: str | None = None, overwrite: bool = False) -> None:
    """Writes the bundle; its manifest tells the sources, what was left out of them, and their licence."""
    entry, plan, outcome = converted.entry, converted.plan, converted.outcome
    provenance = {
        "converter": f"python -m convert {entry.command}",
        "sources": converted.digests,
        "licence": licence or entry.licence,
        "published": [p.where for p in entry.published],
        "folded": plan.folded,
        "ignored": outcome.ignored,
        "notes": plan.notes,
        **plan.extra,
    }
    save_bundle(
        output,
        network=entry.network,
        config=plan.config,
        params=outcome.params,
        provenance=provenance,
        overwrite=overwrite,
    )


def _explained(entry: Entry, source: Source, message: str) -> UserError:
    """The error with the file's name and a pointer where the file looks like another network's."""
    if str(source.path) not in message:
        message = f"{source.path}: {message}"
    likely = [e for e in identify(source.tensor_keys()) if e.command != entry.command]
    if likely and entry not in identify(source.tensor_keys()):
        commands = " or ".join(f"`python -m convert {e.command}` ({e.title})" for e in likely)
        message += f"\nIt looks like the file for {commands}."
    return UserError(message)
