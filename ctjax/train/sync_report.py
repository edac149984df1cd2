"""How well a sync expert tells sounds apart on held-out clips; the figures that a bundle carries with it."""

from __future__ import annotations

import numpy as np

from ctjax.types import UserError

REPORT = "report"  # where a sync expert's bundle keeps the figures, in its provenance
REAL, RECONSTRUCTED = "real", "reconstructed"
RECONSTRUCTED_BY = "reconstructed_by"  # and the fingerprint of the renderer, all of it, that made the second kind
REQUIRED_FIGURE = "rank1_within_clip"


def figures(
    mouths: np.ndarray, sounds: np.ndarray, logit_scale: float, logit_bias: float | None = None
) -> dict[str, float]:
    """Accuracies of unit embeddings "c n e": n windows in each of c clips, mouths[i, j] belonging to sounds[i, j].

    cosine_accuracy: share of true pairs with cosine above 0.5 and of as many false pairs (the clip's next window) with
    at most 0.5. logit_accuracy: the same with the expert's own threshold, of one that learned a bias.
    rank1_within_clip: the true sound is the nearest of the clip's n. rank1_across_clips: the nearest of n where the
    n - 1 others come from other clips. chance: 1 / n, of both.
    """
    clips, windows, _ = mouths.shape
    within = np.einsum("cne,cme->cnm", mouths, sounds)
    true = np.diagonal(within, axis1=1, axis2=2)
    false = np.take_along_axis(within, ((np.arange(windows) + 1) % windows)[None, :, None].repeat(clips, 0), 2)[..., 0]
    result = {
        "cosine_accuracy": float((np.mean(true > 0.5) + np.mean(false <= 0.5)) / 2),
        "rank1_within_clip": float(np.mean(within.argmax(2) == np.arange(windows))),
        "cosine_true": float(true.mean()),
        "cosine_false": float(false.mean()),
        "chance": 1.0 / windows,
        "clips": float(clips),
    }
    if logit_bias is not None:
        logits_true, logits_false = (logit_scale * x + logit_bias for x in (true, false))
        result["logit_accuracy"] = float((np.mean(logits_true > 0) + np.mean(logits_false <= 0)) / 2)
    if clips > 1:
        result["rank1_across_clips"] = _across(mouths, sounds)
    return result


def _across(mouths: np.ndarray, sounds: np.ndarray) -> float:
    """Rank-1 among the own sound and n - 1 sounds of other clips, the same ones at every call."""
    clips, windows, _ = mouths.shape
    rng = np.random.default_rng(0)
    hits = 0
    for clip in range(clips):
        others = np.delete(np.arange(clips), clip)
        for window in range(windows):
            chosen = rng.choice(others, windows - 1, replace=len(others) < windows - 1)
            wrong = sounds[chosen, rng.integers(0, windows, windows - 1)]
            own = mouths[clip, window] @ sounds[clip, window]
            hits += bool(own > (wrong @ mouths[clip, window]).max())
    return hits / (clips * windows)


def check_report(provenance: dict, *, path: str, least: float, reconstructed_by: str) -> None:
    """Raises `UserError` if the expert's report is missing, below `least` times chance within clips on real or on
    reconstructed frames, or of another renderer than that with the fingerprint `reconstructed_by`."""
    report = provenance.get(REPORT)
    advice = "train it longer or on more speakers, or set expert.unchecked=True to use it all the same"
    if not report:
        raise UserError(f"{path}: the sync expert has no report of its accuracy: {advice}")
    for frames in (REAL, RECONSTRUCTED):
        found = report.get(frames)
        if not found or REQUIRED_FIGURE not in found:
            raise UserError(f"{path}: the sync expert was not measured on {frames} frames: {advice}")
        value, floor = found[REQUIRED_FIGURE], least * found["chance"]
        if value < floor:
            raise UserError(
                f"{path}: on {frames} frames the sync expert finds the true sound of a clip in {value:.0%} of cases, "
                f"{floor:.0%} are asked for (chance is {found['chance']:.0%}): {advice}"
            )
    measured = provenance.get(RECONSTRUCTED_BY, reconstructed_by)
    if measured != reconstructed_by:
        raise UserError(
            f"{path}: the sync expert was measured on frames of another renderer ({measured[:12]}, this run uses "
            f"{reconstructed_by[:12]}): measure it again (task sync_expert, start={path}, loop.steps=0), or set "
            "expert.unchecked=True"
        )
