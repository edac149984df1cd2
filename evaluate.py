"""Scores clips against their references: `evaluate.py --generated DIR --reference DIR --output out/`.

Prints a table and leaves it in the output folder as Markdown, CSV, JSON and an HTML report. Exit status 1 if a clip
failed. docs/metrics.md says what each number is.
"""

from __future__ import annotations

import functools
import pathlib
import sys

from absl import flags

from ctjax import cli
from ctjax.types import UserError

_GENERATED = flags.DEFINE_string("generated", None, "Folder of clips to score, or one clip.")
_REFERENCE = flags.DEFINE_string("reference", None, "Folder of true clips with the same file names, or one clip.")
_OUTPUT = flags.DEFINE_string("output", "out/evaluation", "Folder for tables, report and rendered rows.")
_BUNDLES = {
    "sync": "Oxford SyncNet (oxford_syncnet): LSE-D, LSE-C and the audio-visual offset.",
    "wav2lip": "Wav2Lip's expert (wav2lip_syncnet): its loss.",
    "expert": "This project's sync expert (sync_expert), with --hubert_bundle: the sync distance.",
    "hubert": "HuBERT (hubert), for --expert_bundle.",
    "vgg": "VGG-19 (vgg19): the unweighted VGG distance.",
    "lpips": "LPIPS on VGG-16 with its learned weights (lpips).",
    "inception": "pytorch-fid's Inception (inception_fid): FID.",
    "identity": "ArcFace network (arcface): CSIM.",
}
for _name, _help in _BUNDLES.items():
    flags.DEFINE_string(f"{_name}_bundle", None, _help)
_RENDERER = flags.DEFINE_string("renderer", None, "Renderer bundle (facevid2vid): adds the no-edit row.")
_BUNDLE = flags.DEFINE_string("bundle", None, "Talking-head folder for --sweep_alpha.")
_SWEEP = flags.DEFINE_list("sweep_alpha", [], "Alphas (0,0.25,0.5): speaks the references at each and draws curves.")
_SSIM = flags.DEFINE_enum("ssim", "gaussian11", ["gaussian11", "uniform7"], "SSIM's window.")
_LMD = flags.DEFINE_multi_enum("lmd", ["aligned"], ["aligned", "absolute", "sum", "interocular"], "LMD definitions.")
_REGION = flags.DEFINE_enum("region", "full", ["full", "face"], "Compare whole frames or 256 px face crops.")
_FID_FRAMES = flags.DEFINE_string("fid_frames", "all", "Frames per clip for FID: all, or a number spread evenly.")
_SOUND = flags.DEFINE_enum("sync_sound", "own", ["own", "reference"], "Whose sound generated clips are judged by.")
_MISSING = flags.DEFINE_bool("allow_missing", False, "A reference without a generated clip is no failure.")
_PLAYERS = flags.DEFINE_bool("players", True, "Copy the clips beside the report so that it plays them.")
_BATCH = flags.DEFINE_integer("batch", 16, "Frames per call of a network at most.", lower_bound=1)
_CACHE = flags.DEFINE_bool("cache", True, "Keep results by content in the user's cache folder and reuse them.")
_DEBUG = flags.DEFINE_bool("debug", False, "Stop at the first error and show its traceback.")


def main() -> None:
    """Flags to one library call."""
    cli.enable_compilation_cache()
    from ctjax.evaluate import command
    from ctjax.evaluate.catalogue import Settings
    from ctjax.evaluate.instruments import BundlePaths

    if _REFERENCE.value is None or not (_GENERATED.value or _RENDERER.value or _SWEEP.value):
        raise UserError("give --reference and --generated (or --renderer, or --sweep_alpha with --bundle)")
    if bool(_SWEEP.value) != bool(_BUNDLE.value):
        raise UserError("--sweep_alpha and --bundle belong together")
    fid_frames = command.frame_number(_FID_FRAMES.value)
    request = command.Request(
        generated=_GENERATED.value,
        reference=_REFERENCE.value,
        output=pathlib.Path(_OUTPUT.value),
        settings=Settings(_SSIM.value, tuple(dict.fromkeys(_LMD.value)), _REGION.value, fid_frames, _SOUND.value),
        bundles=BundlePaths(**{name: flags.FLAGS[f"{name}_bundle"].value for name in _BUNDLES}),
        renderer=_RENDERER.value,
        alphas=command.alphas(_SWEEP.value),
        talking_head=_BUNDLE.value,
        batch=_BATCH.value,
        cache=cli.cache_dir() / "evaluate" if _CACHE.value else None,
        allow_missing=_MISSING.value,
        players=_PLAYERS.value,
        debug=_DEBUG.value,
    )
    sys.exit(cli.EXIT_USER_ERROR if command.run(request, _at_alpha).failures else 0)


@functools.cache
def _talking_head():
    from ctjax.infer.talking_head import TalkingHead

    return TalkingHead.from_bundle(_BUNDLE.value)


def _at_alpha(alpha: float):
    """A function from a reference clip to its frames, spoken anew from its own sound at `alpha`."""
    head = _talking_head()  # now: what is wrong with it is wrong for every clip
    return lambda clip: iter(head.animate(source=clip, audio=clip, alpha=alpha))


if __name__ == "__main__":
    cli.run(main, debug=lambda: _DEBUG.value)
