"""Every metric that can be in a table, under the settings in force: titles that name the protocol, and definitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctjax.evaluate.image import SSIM_DEFINITIONS, SsimWindow
from ctjax.evaluate.landmark_distance import LMD_DEFINITIONS, LMD_UNITS, LmdDefinition
from ctjax.evaluate.results import Metric
from ctjax.evaluate.sync import PROTOCOLS

Region = Literal["full", "face"]
REGION_TITLES: dict[str, str] = {"full": "whole frame", "face": "face crop 256 px"}
REGION_DEFINITIONS: dict[str, str] = {
    "full": "whole frames at the reference's size",
    "face": "one square face crop per clip, each clip by its own landmarks, brought to 256 px",
}
LANDMARK_SOURCE = "MediaPipe face mesh mapped to 68 points"


@dataclass(frozen=True)
class Settings:
    """What decides the numbers. ssim: its window. lmd: one or more definitions. region: what SSIM, PSNR, the
    perceptual distances and FID look at. fid_frames: frames per clip for FID, 0 for all. sync_sound: whose sound the
    generated clips are judged by."""

    ssim: SsimWindow = "gaussian11"
    lmd: tuple[LmdDefinition, ...] = ("aligned",)
    region: Region = "full"
    fid_frames: int = 0
    sync_sound: Literal["own", "reference"] = "own"


def catalogue(settings: Settings) -> list[Metric]:
    """All metrics in the order of the table."""
    return [*_picture(settings), *_sync(), *_landmarks(settings), *_motion()]


def _picture(settings: Settings) -> list[Metric]:
    region, seen = REGION_TITLES[settings.region], REGION_DEFINITIONS[settings.region]
    window = {"gaussian11": "11x11 Gaussian", "uniform7": "7x7 uniform"}[settings.ssim]
    count = f"{settings.fid_frames} frames a clip" if settings.fid_frames else "all frames"
    return [
        Metric("ssim", f"SSIM, {window}, {region}", "", "higher", f"{SSIM_DEFINITIONS[settings.ssim]}; {seen}.", 4),
        Metric("psnr", f"PSNR, {region}", "dB", "higher",
               f"10 log10(255^2 / MSE) over RGB, mean over frames, infinite for identical frames; {seen}.", 2),
        Metric("lpips", f"LPIPS, VGG-16 v0.1, {region}", "", "lower",
               f"LPIPS version 0.1 on VGG-16 with its learned weights (richzhang/PerceptualSimilarity); {seen}.", 4),
        Metric("vgg_distance", f"VGG-19 distance (not LPIPS), {region}", "", "lower",
               "Mean over relu1_1 .. relu5_1 and pixels of the squared distance between unit feature vectors of "
               f"VGG-19, without learned weights (0 .. 4). Not LPIPS and not comparable with it; {seen}.", 4),
        Metric("fid", f"FID, pytorch-fid Inception, {count}, {region}", "", "lower",
               "Frechet distance between the 2048 pooled features of pytorch-fid's InceptionV3 (frames brought to "
               "299 px bilinearly) of all generated and all reference frames. Biased upwards for few frames, by far "
               f"below 2048 of them: compare only equal counts; {seen}.", 2),
        Metric("csim", "CSIM, ArcFace", "", "higher",
               "Cosine similarity of ArcFace embeddings of frame i of both clips, faces aligned by five points to "
               "112 px, mean over frames with a face in both. Depends on the network given."),
    ]  # fmt: skip


def _sync() -> list[Metric]:
    metrics = []
    for protocol in PROTOCOLS:
        how = {
            "uncropped": "on whole frames brought to 224 px (Wav2Lip evaluation/scores_LSE, calculate_scores_LRS.py)",
            "tracked": "on the face track's crop (joonson/syncnet_python run_pipeline.py), found with this project's "
            "face detector in place of S3FD; the longest track counts",
        }[protocol]
        chain = "25 fps, 5-frame windows against 20 MFCC steps of 10 ms, offsets of +-15 frames"
        metrics += [
            Metric(f"lse_d_{protocol}", f"LSE-D, {protocol}", "", "lower",
                   f"Smallest mean distance of SyncNet's lip and sound embeddings over the offsets, {how}; {chain}."),
            Metric(f"lse_c_{protocol}", f"LSE-C, {protocol}", "", "higher",
                   f"Median minus smallest of the mean distances over the offsets, {how}; {chain}."),
            Metric(f"offset_{protocol}", f"AV offset, {protocol}", "frames", "reference",
                   f"Offset of the smallest mean distance, {how}; negative where the sound comes late; {chain}.", 2),
        ]  # fmt: skip
    return [
        *metrics,
        Metric("wav2lip_expert_loss", "Wav2Lip expert loss", "", "lower",
               "Mean of -log(cosine) between Wav2Lip's SyncNet_color embeddings of 5-frame windows (lower half of the "
               "face box at 96 px) and of their 16 mel steps, one window per frame. Methods trained against this "
               "expert score better than their sync looks."),
        Metric("expert_distance", "Sync distance, own expert", "", "lower",
               "Mean of 1 - cosine between the embeddings that this project's sync expert gives mouth crops and "
               "windows of sound (HuBERT or mel), one window per frame. Comparable only under one expert bundle."),
        Metric("expert_offset", "AV offset, own expert", "frames", "reference",
               "Offset of the smallest such distance within +-15 frames, over the frames that have a partner at every "
               "offset; negative where the sound comes late.", 2),
    ]  # fmt: skip


def _landmarks(settings: Settings) -> list[Metric]:
    metrics = []
    where = {"full": "both in the reference's crop", "face": "each clip in its own crop"}[settings.region]
    for definition in settings.lmd:
        for key, name, points in (("m_lmd", "M-LMD", "mouth, 20 points"), ("f_lmd", "F-LMD", "face, 68 points")):
            meaning = (
                f"{LMD_DEFINITIONS[definition]}; {points}; {LANDMARK_SOURCE}; {where}; mean over frames with a face in "
                "both."
            )
            metrics.append(
                Metric(f"{key}_{definition}", f"{name}, {definition}", LMD_UNITS[definition], "lower", meaning)
            )
    return metrics


def _motion() -> list[Metric]:
    aperture = "gap between the inner lips over the distance of the outer eye corners"
    return [
        Metric("aperture_correlation", "mouth aperture, correlation", "", "higher",
               f"Pearson's r with the reference over time of the {aperture}."),
        Metric("aperture_lag", "mouth aperture, lag", "frames", "reference",
               "Shift (25 fps, within +-15) at which the aperture correlates best with the reference's; positive where "
               "the generated mouth is late.", 2),
        Metric("aperture_mean", "mouth aperture, mean", "of the eye distance", "reference", f"Mean {aperture}.", 4),
        Metric("aperture_silence", "mouth aperture in silence", "of the eye distance", "lower",
               f"Mean {aperture} over stretches of at least 0.2 s quieter than -40 dB below the clip's loud parts "
               "(95th percentile) or than -60 dBFS.", 4),
        Metric("jitter_landmarks", "jitter of brows, nose, eyes", "px@256", "reference",
               "Mean length of the second difference in time of landmarks 17-47 in px of a 256 px face crop; includes "
               "the landmark network's own noise."),
        Metric("jitter_pixels", "jitter of pixels outside the mouth", "grey levels", "reference",
               "Mean absolute second difference in time of luma outside the mouth's box (widened by half its width)."),
        Metric("sharpness", "sharpness, Laplacian variance", "", "reference",
               "Variance of the Laplacian of luma in the face crop brought to 256 px; noise counts as sharpness.", 1),
        Metric("faces_missed", "frames without a face", "%", "lower",
               "Share of the clip's frames in which no face was found; those frames are left out of the landmark "
               "metrics, CSIM and the tracked protocol.", 2),
    ]  # fmt: skip
