"""One evaluation from a request to files: what `evaluate.py` calls, and what a program may call instead."""

from __future__ import annotations

import hashlib
import pathlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ctjax.evaluate import clips, output, sweep, table
from ctjax.evaluate.cache import ResultCache
from ctjax.evaluate.catalogue import Settings
from ctjax.evaluate.clips import Pair
from ctjax.evaluate.faces import MainFace
from ctjax.evaluate.instruments import DEFAULT_BATCH, BundlePaths, open_instruments
from ctjax.evaluate.pipeline import Evaluator
from ctjax.evaluate.renders import Reconstruction, Render, rendered_row
from ctjax.evaluate.results import Evaluation, Failure
from ctjax.types import UserError

GENERATED_ROW, NO_EDIT_ROW = "generated", "no-edit"
RENDERS = "renders"
SWEEP_PICTURE = "sweep.svg"


@dataclass(frozen=True)
class Request:
    """generated, reference: folders of clips with equal names, or two clips. renderer: its bundle, for the no-edit
    row. alphas, talking_head: a sweep over alpha with that folder of bundles. cache: folder for results, or None."""

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
    find: Callable = field(default_factory=MainFace)


def run(request: Request, at_alpha: Callable[[float], Render] | None = None) -> Evaluation:
    """Scores everything, prints the table, writes the output folder.

    at_alpha: makes the function that renders a reference clip anew at one alpha (only for a sweep; inference is not
    this package's business). Raises `UserError` before any work for a request that cannot be met; a clip that fails
    later is in the result's `failures`.
    """
    folder = output.make_folder(request.output)
    pairs, failures = _pairs(request)
    instruments = open_instruments(request.bundles, request.settings.ssim, request.batch)
    evaluator = Evaluator(
        request.settings, instruments, request.find, ResultCache(request.cache), progress=_say, debug=request.debug
    )
    rows = {GENERATED_ROW: pairs} if request.generated else {}
    for name, (made_by, render) in _rendered(request, at_alpha).items():
        place = folder / RENDERS
        rows[name] = rendered_row(name, pairs, place, made_by, render(), failures, progress=_say, debug=request.debug)
    evaluation = evaluator.evaluate(rows, failures)
    pictures = []
    if request.alphas:
        pictures = sweep.curves(evaluation, {sweep.row_name(alpha): alpha for alpha in request.alphas})
        output.write_text(folder / SWEEP_PICTURE, sweep.picture(pictures))
    written = output.write(evaluation, folder, players=request.players, pictures=pictures)
    print(table.terminal(evaluation))
    print("\nWritten: " + ", ".join(str(path) for path in written))
    return evaluation


def frame_number(text: str) -> int:
    """`--fid_frames`: "all" as 0, or a number. Raises `UserError`."""
    if text == "all":
        return 0
    if not text.isdigit() or int(text) < 2:
        raise UserError(f"--fid_frames={text}: give all, or a number of frames per clip of at least 2")
    return int(text)


def alphas(items: Sequence[str]) -> tuple[float, ...]:
    """`--sweep_alpha`: numbers in rising order, each once. Raises `UserError`."""
    try:
        return tuple(sorted({float(item) for item in items}))
    except ValueError as error:
        raise UserError(f"--sweep_alpha={','.join(items)}: give numbers such as 0,0.25,0.5,1") from error


def _pairs(request: Request) -> tuple[list[Pair], list[Failure]]:
    if request.generated:
        return clips.match(request.generated, request.reference, GENERATED_ROW, request.allow_missing)
    found = clips.videos(request.reference, "--reference")
    return [Pair(name, paths[0], paths[0]) for name, paths in found.items()], []


def _rendered(
    request: Request, at_alpha: Callable[[float], Render] | None
) -> dict[str, tuple[dict, Callable[[], Render]]]:
    """Row name -> (what makes it, how to open that)."""
    rows: dict[str, tuple[dict, Callable[[], Render]]] = {}
    if request.renderer:
        made_by = {"bundle": bundle_digest(request.renderer)}
        rows[NO_EDIT_ROW] = made_by, lambda: Reconstruction(request.renderer, request.find)
    for alpha in request.alphas:
        made_by = {"bundle": bundle_digest(request.talking_head), "alpha": alpha}
        rows[sweep.row_name(alpha)] = made_by, lambda alpha=alpha: at_alpha(alpha)
    return rows


def bundle_digest(folder: str) -> str:
    """SHA-256 over the manifests in a folder of bundles (or of one bundle). Raises `UserError` if there is none."""
    manifests = sorted(pathlib.Path(folder).rglob("manifest.json"))
    if not manifests:
        raise UserError(f"{folder}: holds no bundle (make one with `python -m convert`)")
    return hashlib.sha256(b"".join(path.read_bytes() for path in manifests)).hexdigest()


def _say(text: str) -> None:
    """Progress goes to standard error, the table to standard output."""
    print(text, file=sys.stderr, flush=True)
