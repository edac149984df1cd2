"""From folders to an `Evaluation`: results cached by content, a clip that fails listed and the others done.

For each file: faces (one pass), scores of the video alone (one pass). For each pair: comparison (one pass over both).
For each set: Inception features for FID (one pass over its clips). Memory does not grow with a clip's length but for
its sound, what the experts hear of it, its landmarks and its curves: about 6 kB a frame.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from ctjax.evaluate import clips
from ctjax.evaluate.alone import score_alone
from ctjax.evaluate.batching import Batcher
from ctjax.evaluate.cache import ResultCache, file_digest
from ctjax.evaluate.catalogue import LANDMARK_SOURCE, Settings, catalogue
from ctjax.evaluate.clips import FPS, Pair
from ctjax.evaluate.compare import score_pair
from ctjax.evaluate.faces import FaceSeries, FindFaces, find_series
from ctjax.evaluate.frechet import Moments, distance
from ctjax.evaluate.instruments import Instruments
from ctjax.evaluate.results import ClipScores, Evaluation, Failure, Row, Scores
from ctjax.types import UserError

REFERENCE_ROW = "reference"
FEW_FRAMES_FOR_FID = 2048  # with fewer the covariance of 2048 features is singular

Progress = Callable[[str], None]


class Evaluator:
    """Scores pairs of clips. finder: gives the main face of each frame. debug: let a clip's error through.

    Without an `identity` of the finder nothing is cached: another finder may find other faces.
    """

    def __init__(
        self,
        settings: Settings,
        instruments: Instruments,
        finder: FindFaces,
        cache: ResultCache,
        *,
        progress: Progress = lambda text: None,
        debug: bool = False,
    ):
        self.settings, self.instruments, self.finder = settings, instruments, finder
        self._finds = getattr(finder, "identity", None)
        self.cache = cache if self._finds else ResultCache(None)
        self.progress, self.debug = progress, debug
        self._digests: dict[pathlib.Path, str] = {}
        self._faces: tuple[pathlib.Path | None, FaceSeries | None] = (None, None)

    def evaluate(self, rows: Mapping[str, Sequence[Pair]], failures: Iterable[Failure] = ()) -> Evaluation:
        """Every row's pairs, then the reference clips of all rows against themselves."""
        failed = list(failures)
        references = {pair.reference: pair for pairs in rows.values() for pair in pairs}
        own = [Pair(pair.name, path, path) for path, pair in references.items()]
        done = [self.row(name, pairs, failed) for name, pairs in [*rows.items(), (REFERENCE_ROW, own)]]
        settings = {**asdict(self.settings), "fps": FPS, "landmarks": LANDMARK_SOURCE, **self.instruments.digests}
        return Evaluation(settings, catalogue(self.settings), done, failed, dict(self.instruments.missing))

    def row(self, name: str, pairs: Sequence[Pair], failures: list[Failure]) -> Row:
        """One set of clips. Clips that fail are added to `failures`."""
        row = Row(name)
        for number, pair in enumerate(pairs, start=1):
            began = time.monotonic()
            try:
                scores = self.clip(pair)
            except Exception as error:  # whatever is wrong with one clip must not cost the others
                if self.debug:
                    raise
                failures.append(Failure(name, pair.name, reason_of(error)))
                self.progress(f"{name} {number}/{len(pairs)} {pair.name}: failed: {reason_of(error)}")
                continue
            row.clips.append(ClipScores(pair.name, str(pair.generated), str(pair.reference), scores))
            self.progress(f"{name} {number}/{len(pairs)} {pair.name}: {time.monotonic() - began:.1f} s")
        if self.instruments.features is not None and row.clips:
            self._add_fid(row, failures)
        return row

    def clip(self, pair: Pair) -> Scores:
        """The scores of one pair: the generated clip alone, and beside its reference."""
        reference_sound = self.settings.sync_sound == "reference"
        alone = self._alone(pair.generated, pair.reference if reference_sound else pair.generated)
        key = {"pair": [self._digest(pair.generated), self._digest(pair.reference)], **self._key()}
        return alone.merged(self._cached(key, lambda: self._compared(pair)))

    def _compared(self, pair: Pair) -> Scores:
        faces = self._faces_of(pair.generated), self._faces_of(pair.reference)
        frames = clips.frames(pair.generated), clips.frames(pair.reference)
        return score_pair(*frames, *faces, self.settings, self.instruments)

    def _alone(self, path: pathlib.Path, sound_of: pathlib.Path) -> Scores:
        key = {"alone": self._digest(path), "sound": self._digest(sound_of), **self._key()}

        def compute() -> Scores:
            return score_alone(clips.frames(path), self._faces_of(path), clips.sound(sound_of), self.instruments)

        return self._cached(key, compute)

    def _faces_of(self, path: pathlib.Path) -> FaceSeries:
        def compute() -> dict[str, np.ndarray]:
            return find_series(clips.frames(path), self.finder)._asdict()

        key = {"faces": self._digest(path), "finder": self._finds}
        if self._faces[0] != path:  # the last one is kept: it is asked for twice in a row
            self._faces = path, FaceSeries(**self.cache.get(key, compute))
        return self._faces[1]

    def _add_fid(self, row: Row, failures: list[Failure]) -> None:
        """FID of a row's clips against their references; both sets hold the same clips."""
        try:
            sets = [[pathlib.Path(getattr(c, side)) for c in row.clips] for side in ("generated", "reference")]
            made, real = (self._moments(paths) for paths in sets)
            row.whole["fid"] = distance(made, real)
        except Exception as error:
            if self.debug:
                raise
            failures.append(Failure(row.name, "all clips, FID", reason_of(error)))
            return
        if min(made.count, real.count) < FEW_FRAMES_FOR_FID:
            row.notes.append(
                f"FID from {made.count} and {real.count} frames: biased upwards, do not compare with published values"
            )

    def _moments(self, paths: Sequence[pathlib.Path]) -> Moments:
        def compute() -> dict[str, np.ndarray]:
            moments = None
            for path in paths:
                part = self._features_of(path)
                moments = part if moments is None else moments
                if part is not moments:
                    moments.merge(part)
                self.progress(f"FID features of {path.name}")
            return {"count": np.array(moments.count), "mean": moments.mean, "scatter": moments.scatter}

        key = {"moments": sorted(map(self._digest, paths)), **self._key()}
        stored = self.cache.get(key, compute)
        moments = Moments(len(stored["mean"]))
        moments.count, moments.mean, moments.scatter = int(stored["count"]), stored["mean"], stored["scatter"]
        return moments

    def _features_of(self, path: pathlib.Path) -> Moments:
        faces = self._faces_of(path)
        view = faces.crop().cut if self.settings.region == "face" else np.asarray
        wanted = chosen_frames(len(faces.found), self.settings.fid_frames)
        moments: list[Moments] = []

        def run(stacks: tuple[np.ndarray, ...], count: int) -> None:
            features = np.asarray(self.instruments.features(*stacks))[:count]
            if not moments:
                moments.append(Moments(features.shape[1]))
            moments[0].update(features)

        batcher = Batcher(run, self.instruments.batch)
        for index, frame in enumerate(clips.frames(path)):
            if index in wanted:
                batcher.add(view(frame))
        batcher.finish()
        return moments[0]

    def _cached(self, key: Mapping[str, object], compute: Callable[[], Scores]) -> Scores:
        return Scores.from_arrays(self.cache.get(key, lambda: compute().to_arrays()))

    def _key(self) -> dict[str, object]:
        return {"settings": asdict(self.settings), "bundles": self.instruments.digests, "finder": self._finds}

    def _digest(self, path: pathlib.Path) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]


def chosen_frames(count: int, wanted: int) -> set[int]:
    """Indices of `wanted` frames spread evenly over `count`; all of them if `wanted` is 0 or too large."""
    if not wanted or wanted >= count:
        return set(range(count))
    return set(np.round(np.linspace(0, count - 1, wanted)).astype(int).tolist())


def reason_of(error: Exception) -> str:
    """One line for a list of failures; the kind of error where the message is not meant for users."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
