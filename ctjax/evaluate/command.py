"""One evaluation from a request to files: what `evaluate.py` calls, and what a program may call instead."""

from __future__ import annotations

import hashlib
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from ctjax.evaluate import clips, output, sweep, table
from ctjax.evaluate.cache import ResultCache
from ctjax.evaluate.catalogue import Settings
from ctjax.evaluate.clips import Pair
from ctjax.evaluate.faces import FindFaces, MainFace
from ctjax.evaluate.instruments import DEFAULT_BATCH, BundlePaths, open_instruments
from ctjax.evaluate.pipeline import REFERENCE_ROW, Evaluator
from ctjax.evaluate.renders import Reconstruction, Render, rendered_row
from ctjax.evaluate.results import Evaluation, Failure
from ctjax.faces.find import FaceFinder
from ctjax.types import UserError
from ctjax.whole_files import write_text

GENERATED_ROW, NO_EDIT_ROW = "generated", "no-edit"
RENDERS = "renders"
SWEEP_PICTURE = "sweep.svg"
ALPHA_LIMITS = (-5, 5)  # what inference takes


@dataclass(frozen=True)
class Request:
    """generated, reference: folders of clips with equal names, or two clips. renderer: its bundle, for the no-edit
    row. alphas, talking_head: a sweep over alpha with that folder of bundles. cache: folder for results, or None. find:
    None for this project's finder."""

    generated: str | None
    reference: str
    output: pathlib.Path
    settings: Settings = field(default_factory=Settings)
    bundles: BundlePaths = field(default_factory=BundlePaths)
    renderer: str | None = None
    alphas: tuple[float, ...] = ()
    talking_head: str | None = None
    batch: int = DEFAULT_BATCH
    cache: pathlib.Path | None = None
    allow_missing: bool = False
    players: bool = True
    debug: bool = False
    find: FindFaces | None = None


def run(request: Request, at_alpha: Callable[[float], Render] | None = None) -> Evaluation:
    """Scores everything, prints the table, writes the output folder.

    at_alpha: opens the talking head and makes the function that renders a reference clip anew at one alpha (only for
    a sweep; inference is not this package's business). Raises `UserError` before any work for a request that cannot
    be met; a clip that fails later is in the result's `failures`.
    """
    pairs, failures = _pairs(request)
    folder = output.make_folder(request.output)
    instruments = open_instruments(request.bundles, request.settings.ssim, request.batch)
    renders = _rendered(request, at_alpha)  # all are open before the first renders
    find = request.find or MainFace()
    evaluator = Evaluator(
        request.settings, instruments, find, ResultCache(request.cache), progress=_say, debug=request.debug
    )
    rows = {GENERATED_ROW: pairs} if request.generated else {}
    for name, (made_by, render) in renders.items():
        place = folder / RENDERS
        rows[name] = rendered_row(name, pairs, place, made_by, render, failures, progress=_say, debug=request.debug)
    evaluation = evaluator.evaluate(rows, failures)
    # the numbers first: what they took hours for must not depend on a copy of a film
    written = output.write_tables(evaluation, folder)
    _show(table.terminal(evaluation))
    pictures = []
    if request.alphas:
        pictures = sweep.curves(evaluation, {sweep.row_name(alpha): alpha for alpha in request.alphas})
        written.append(write_text(folder / SWEEP_PICTURE, sweep.picture(pictures)))
    written.append(output.write_report(evaluation, folder, players=request.players, pictures=pictures))
    _show("\nWritten: " + ", ".join(str(path) for path in written))
    return evaluation


def frame_number(text: str) -> int:
    """`--fid_frames`: "all" as 0, or a number. Raises `UserError`."""
    if text == "all":
        return 0
    if not text.isdecimal() or int(text) < 2:
        raise UserError(f"--fid_frames={text}: give all, or a number of frames per clip of at least 2")
    return int(text)


def alphas(items: Sequence[str]) -> tuple[float, ...]:
    """`--sweep_alpha`: numbers in rising order, each once. Raises `UserError`."""
    try:
        numbers = {float(item) + 0.0 for item in items}  # -0 becomes 0
    except ValueError:
        numbers = {math.nan}
    low, high = ALPHA_LIMITS
    if not all(low <= number <= high for number in numbers):
        raise UserError(f"--sweep_alpha={','.join(items)}: give numbers from {low} to {high}, such as 0,0.25,0.5,1")
    return tuple(sorted(numbers))


def _pairs(request: Request) -> tuple[list[Pair], list[Failure]]:
    if request.generated:
        return clips.match(request.generated, request.reference, GENERATED_ROW, request.allow_missing)
    return clips.alone(request.reference, REFERENCE_ROW)


def _rendered(request: Request, at_alpha: Callable[[float], Render] | None) -> dict[str, tuple[dict, Render]]:
    """Row name -> (what makes it, how, opened)."""
    rows: dict[str, tuple[dict, Render]] = {}
    if request.renderer:
        made_by = {"bundle": bundle_digest(request.renderer)}
        rows[NO_EDIT_ROW] = made_by, Reconstruction(request.renderer, FaceFinder())
    for alpha in request.alphas:
        made_by = {"bundle": bundle_digest(request.talking_head), "alpha": alpha}
        rows[sweep.row_name(alpha)] = made_by, at_alpha(alpha)
    return rows


def bundle_digest(folder: str) -> str:
    """SHA-256 over the manifests in a folder of bundles (or of one bundle). Raises `UserError` if there is none."""
    manifests = sorted(pathlib.Path(folder).rglob("manifest.json"))
    if not manifests:
        raise UserError(f"{folder}: holds no bundle (make one with `python -m convert`)")
    return hashlib.sha256(b"".join(path.read_bytes() for path in manifests)).hexdigest()


def _show(text: str, stream: TextIO | None = None) -> None:
    """Prints to standard output; what cannot be written there (a file's name may be no text) as escapes."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def _say(text: str) -> None:
    """Progress goes to standard error, the table to standard output."""
    _show(text, sys.stderr)
