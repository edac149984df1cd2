"""What a generated clip shows beside its reference: frame i of one against frame i of the other, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np

from ctjax.evaluate import mouth
from ctjax.evaluate.batching import Batcher, joined, known_mean
from ctjax.evaluate.catalogue import Settings
from ctjax.evaluate.faces import FaceSeries
from ctjax.evaluate.identity import aligned_face
from ctjax.evaluate.instruments import Instruments
from ctjax.evaluate.landmark_distance import landmark_distance
from ctjax.evaluate.results import Scores
from ctjax.types import UserError

ASPECT_TOLERANCE = 0.02
LENGTH_TOLERANCE_FRAMES = 1

Size = tuple[int, int]  # width, height
View = Callable[[np.ndarray], np.ndarray]  # a frame as the picture metrics see it


def score_pair(
    generated: Iterable[np.ndarray],
    reference: Iterable[np.ndarray],
    generated_faces: FaceSeries,
    reference_faces: FaceSeries,
    settings: Settings,
    instruments: Instruments,
) -> Scores:
    """All scores of a generated clip against its reference, both as frames at 25 fps, over their common length.

    Raises `UserError` where the two cannot be compared: frames of another shape, or no face for `region="face"`.
    """
    lengths = [len(faces.found) for faces in (generated_faces, reference_faces)]
    notes = []
    if abs(lengths[0] - lengths[1]) > LENGTH_TOLERANCE_FRAMES:
        notes.append(f"{lengths[0]} generated and {lengths[1]} reference frames: the first {min(lengths)} are compared")
    pairs = zip(generated, reference, strict=False)
    sizes, pairs = _sizes(pairs)
    views, faces, remark = _views(sizes, generated_faces, reference_faces, settings)
    scores = landmark_scores(*faces, settings)._replace(notes=(*notes, *remark))
    probes: list = [_Pictures(views, instruments)]
    if instruments.identity is not None:
        probes.append(_Identity(generated_faces, reference_faces, instruments))
    for index, (ours, theirs) in enumerate(pairs):
        for probe in probes:
            probe.add(index, ours, theirs)
    for probe in probes:
        scores = scores.merged(probe.finish())
    return scores


def fit_to_reference(size: Size, reference: Size) -> tuple[float, float]:
    """The factors that bring frames of `size` to the reference's.

    Raises `UserError` where the shapes differ: then the two do not show the same picture.
    """
    factors = reference[0] / size[0], reference[1] / size[1]
    if abs(factors[0] / factors[1] - 1) > ASPECT_TOLERANCE:
        raise UserError(
            f"the generated frames are {size[0]}x{size[1]}, the reference's {reference[0]}x{reference[1]}: not the "
            "same picture; --region=face compares the face crops"
        )
    return factors


def landmark_scores(generated: np.ndarray, reference: np.ndarray, settings: Settings) -> Scores:
    """Landmark distances and the mouth's motion from landmarks "t 68 2" of both clips in px of a 256 px crop."""
    length = min(len(generated), len(reference))
    generated, reference = generated[:length], reference[:length]
    if not np.isfinite(generated + reference).all((1, 2)).any():
        return Scores({}, {}, ("no frame has a face in both clips: no landmark distances",))
    values = {}
    for definition in settings.lmd:
        m_lmd, f_lmd = landmark_distance(generated, reference, definition)
        values |= {f"m_lmd_{definition}": known_mean(m_lmd), f"f_lmd_{definition}": known_mean(f_lmd)}
    ours, theirs = mouth.aperture(generated), mouth.aperture(reference)
    values["aperture_correlation"] = mouth.correlation(ours, theirs)
    values["aperture_lag"] = mouth.best_lag(ours, theirs)
    return Scores(values, {})


def _sizes(pairs: Iterator) -> tuple[tuple[Size, Size], Iterator]:
    """Both frame sizes, and all pairs again."""
    first = next(pairs)

    def all_pairs() -> Iterator:
        yield first
        yield from pairs

    ours, theirs = ((frame.shape[1], frame.shape[0]) for frame in first)
    return (ours, theirs), all_pairs()


def _views(
    sizes: tuple[Size, Size], generated: FaceSeries, reference: FaceSeries, settings: Settings
) -> tuple[tuple[View, View], tuple[np.ndarray, np.ndarray], list[str]]:
    """How each clip's frames are looked at, each clip's landmarks in px of the 256 px crop, and remarks."""
    if settings.region == "face":
        crops = generated.crop(), reference.crop()
        places = [crop.place(faces.landmarks) for crop, faces in zip(crops, (generated, reference), strict=True)]
        return (crops[0].cut, crops[1].cut), tuple(places), []
    factors, remarks = (1.0, 1.0), []
    view: View = np.asarray
    (our_width, our_height), (width, height) = sizes
    if sizes[0] == sizes[1]:
        pass
    elif sizes[0] == (width + width % 2, height + height % 2):
        # H.264 wants even sides, so an odd one gets a row or column more; resizing would shift all the others
        remarks.append(f"generated frames cut from {our_width}x{our_height} to {width}x{height}: padding of odd sides")

        def view(frame: np.ndarray) -> np.ndarray:
            return frame[:height, :width]

    else:
        factors = fit_to_reference(*sizes)
        remarks.append(f"generated frames resized from {our_width}x{our_height} to {width}x{height}")
        method = cv2.INTER_AREA if factors[0] < 1 else cv2.INTER_CUBIC

        def view(frame: np.ndarray) -> np.ndarray:
            return cv2.resize(frame, sizes[1], interpolation=method)

    landmarks = generated.landmarks * np.float32(factors), reference.landmarks
    if reference.found.any():  # without a face there is nothing to place
        crop = reference.crop()  # the same window on both
        landmarks = crop.place(landmarks[0]), crop.place(landmarks[1])
    return (view, np.asarray), landmarks, remarks


class _Pictures:
    """SSIM, PSNR and the perceptual distances of all frames; of large ones few at a time, to bound memory."""

    def __init__(self, views: tuple[View, View], instruments: Instruments):
        self._views, self._batch_of = views, instruments.batch_of
        self._functions = {("ssim", "psnr"): instruments.compare}
        self._functions |= {(key,): function for key, function in instruments.perceptual.items()}
        self._found: dict[str, list[np.ndarray]] = {key: [] for keys in self._functions for key in keys}
        self._batcher: Batcher | None = None

    def add(self, index: int, ours: np.ndarray, theirs: np.ndarray) -> None:
        shown = self._views[0](ours), self._views[1](theirs)
        self._batcher = self._batcher or Batcher(self._run, self._batch_of(shown[1]))
        self._batcher.add(*shown)

    def _run(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        for keys, function in self._functions.items():
            results = function(*stacks)
            for key, result in zip(keys, results if len(keys) > 1 else (results,), strict=True):
                self._found[key].append(result[:count])

    def finish(self) -> Scores:
        if self._batcher is not None:
            self._batcher.finish()
        return Scores({key: known_mean(joined(parts)) for key, parts in self._found.items()}, {})


class _Identity:
    """CSIM of the frames that have a face in both clips."""

    def __init__(self, generated: FaceSeries, reference: FaceSeries, instruments: Instruments):
        self._faces = generated, reference
        self._function = instruments.identity
        self._found: list[np.ndarray] = []
        self._batcher = Batcher(self._run, instruments.batch)

    def add(self, index: int, ours: np.ndarray, theirs: np.ndarray) -> None:
        if all(faces.found[index] for faces in self._faces):
            aligned = (
                aligned_face(f, faces.landmarks[index]) for f, faces in zip((ours, theirs), self._faces, strict=True)
            )
            self._batcher.add(*aligned)

    def _run(self, stacks: tuple[np.ndarray, ...], count: int) -> None:
        self._found.append(self._function(*stacks)[:count])

    def finish(self) -> Scores:
        self._batcher.finish()
        return Scores({"csim": known_mean(joined(self._found))}, {})
