"""What one video shows by itself: sync with its sound, mouth, jitter, sharpness. One pass over its frames."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from ctjax.evaluate import experts, mouth, stability, sync
from ctjax.evaluate.batching import Batcher, joined, known_mean
from ctjax.evaluate.clips import FPS
from ctjax.evaluate.faces import Crop, FaceSeries
from ctjax.evaluate.instruments import Instruments
from ctjax.evaluate.mfcc import SAMPLE_RATE_HZ
from ctjax.evaluate.results import Scores
from ctjax.evaluate.sharpness import laplacian_variance
from ctjax.features.silence import frame_levels, silent_frames

LEVEL_FRAMES = 1000  # of which the loudness is measured at a time


class Probe(Protocol):
    """Takes every frame of a clip in order, then gives its scores."""

    def add(self, index: int, frame_u8: np.ndarray) -> None: ...

    def finish(self) -> Scores: ...


def score_alone(
    frames: Iterable[np.ndarray], faces: FaceSeries, pcm16: np.ndarray | None, instruments: Instruments
) -> Scores:
    """All scores of one clip: `frames` at 25 fps, their `faces`, and int16 16 kHz sound from the first frame on."""
    scores = _from_landmarks(faces, pcm16)
    probes: list[Probe] = [_PixelJitter(faces, instruments.batch)]
    if faces.found.any():
        probes.append(_Sharpness(faces.crop(), instruments))
    if pcm16 is not None:
        probes += _sync_probes(faces, pcm16, instruments)
    for index, frame in enumerate(frames):
        for probe in probes:
            probe.add(index, frame)
    for probe in probes:
        scores = scores.merged(probe.finish())
    return scores


def _from_landmarks(faces: FaceSeries, pcm16: np.ndarray | None) -> Scores:
    values = {"faces_missed": 100.0 * float(1 - faces.found.mean())}
    if not faces.found.any():
        return Scores(values, {}, ("no face was found: no landmark metrics, no tracked protocol",))
    aperture = mouth.aperture(faces.landmarks)
    values["aperture_mean"] = known_mean(aperture)
    values["jitter_landmarks"] = known_mean(stability.landmark_jitter(faces.crop().place(faces.landmarks)))
    curves = {"aperture": aperture.astype(np.float32)}
    if pcm16 is None:
        return Scores(values, curves, ("no sound: nothing about sync or silence",))
    silent = silent_frames(_levels(pcm16, len(aperture)), FPS)
    values["aperture_silence"] = known_mean(aperture[silent])
    return Scores(values, {**curves, "silent": silent.astype(np.float32)})


def _levels(pcm16: np.ndarray, frames: int) -> np.ndarray:
    """`frame_levels` of so many frames, a stretch at a time, for it takes ten times the memory of its sound."""
    levels = []
    for start in range(0, frames, LEVEL_FRAMES):
        part = pcm16[start * sync.SAMPLES_PER_FRAME :][: LEVEL_FRAMES * sync.SAMPLES_PER_FRAME]
        levels.append(frame_levels(part / experts.FULL_SCALE, SAMPLE_RATE_HZ, FPS, min(LEVEL_FRAMES, frames - start)))
    return np.concatenate(levels)


class _PixelJitter:
    def __init__(self, faces: FaceSeries, batch: int):
        self._boxes = stability.mouth_box(faces.landmarks)
        self._found: list[np.ndarray] = []
        self._batcher = Batcher(self._run, batch, overlap=2)

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        self._batcher.add(frame_u8, self._boxes[index])

    def _run(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        self._found.append(stability.pixel_jitter(*stacks)[:count])

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"jitter_pixels": known_mean(joined(self._found))}, {})


class _Sharpness:
    def __init__(self, crop: Crop, instruments: Instruments):
        self._crop = crop
        self._found: list[np.ndarray] = []
        self._batcher = Batcher(self._run, instruments.batch)

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        self._batcher.add(self._crop.cut(frame_u8))

    def _run(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        self._found.append(laplacian_variance(*stacks)[:count])

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"sharpness": known_mean(joined(self._found))}, {})


class _Uncropped:
    def __init__(self, probe: sync.LseProbe):
        self._probe = probe

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        self._probe.add(sync.whole_frame(frame_u8))

    def finish(self) -> Scores:
        return self._probe.finish()


class _Tracked:
    """Feeds the frames of one track, `start` .. `stop` - 1."""

    def __init__(self, probe: sync.LseProbe, boxes: np.ndarray, start: int, stop: int):
        self._probe, self._start, self._stop = probe, start, stop
        self._track = sync.smoothed_track(boxes[start:stop])

    def add(self, index: int, frame_u8: np.ndarray) -> None:
        if self._start <= index < self._stop:
            self._probe.add(sync.tracked_face(frame_u8, *self._track[index - self._start]))

    def finish(self) -> Scores:
        return self._probe.finish()


def _sync_probes(faces: FaceSeries, pcm16: np.ndarray, instruments: Instruments) -> list[Probe]:
    """Everything that listens; what looks at faces only where there is a track of them."""
    batch, networks = instruments.batch, (instruments.lips, instruments.sound)
    track = sync.longest_track(faces.boxes)
    probes: list[Probe] = []
    if instruments.lips is not None:
        probes.append(_Uncropped(sync.LseProbe("uncropped", *networks, pcm16, len(faces.found), batch)))
    if track is None:
        return probes
    if instruments.lips is not None:
        start, stop = track
        part = pcm16[start * sync.SAMPLES_PER_FRAME : stop * sync.SAMPLES_PER_FRAME]
        probe = sync.LseProbe("tracked", *networks, part, stop - start, batch)
        probes.append(_Tracked(probe, faces.boxes, start, stop))
    if instruments.wav2lip is not None:
        probes.append(experts.Wav2LipProbe(instruments.wav2lip, faces, track, pcm16, batch))
    if (expert := instruments.expert) is not None:
        probes.append(experts.ExpertProbe(expert.run, expert.hear, expert.frames, faces, track, pcm16, batch))
    return probes
