"""From clips to training examples: which frames, whose sound, at which offset. All choices are drawn from the example's
own random stream, so they depend on its number and the seed alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import grain
import numpy as np

from ctjax.data.mouths import Mouths, read_mouths, read_sound, sound_windows
from ctjax.data.records import (
    FIELDS,
    FPS,
    HUBERT,
    RENDERER,
    SAMPLE_RATE_HZ,
    SAMPLES_PER_FRAME,
    Clip,
    RecordSet,
)
from ctjax.faces.mouth import lower_face_boxes, mouth_boxes
from ctjax.features.silence import frame_levels, silent_frames
from ctjax.losses.sync_expert import Sound
from ctjax.types import UserError

Example = dict[str, np.ndarray]
IN_SYNC, SAME_CLIP, SAME_PERSON, OTHER_PERSON = range(4)
PAIRINGS = ("in_sync", "same_clip", "same_person", "other_person")


@dataclass(frozen=True)
class PairingConfig:
    """Shares of where the driving sound comes from: the source frames' own moment, another moment of the same clip,
    another clip of the same person, another person. They need not add up to 1. min_shift: frames between the source and
    another moment of its clip. A clip that offers no such partner takes the next kind."""

    in_sync: float = 0.25
    same_clip: float = 0.25
    same_person: float = 0.25
    other_person: float = 0.25
    min_shift: int = 10

    def __post_init__(self) -> None:
        shares = self.shares
        if min(shares) < 0 or sum(shares) <= 0:
            raise ValueError(f"the shares {shares} must not be negative, nor all zero")

    @property
    def shares(self) -> tuple[float, float, float, float]:
        return self.in_sync, self.same_clip, self.same_person, self.other_person


def sound_of(clip: Clip, frames: np.ndarray) -> np.ndarray:
    """int16 samples under the given consecutive frames."""
    return clip["samples"][frames[0] * SAMPLES_PER_FRAME : (frames[-1] + 1) * SAMPLES_PER_FRAME]


class SyncWindows(grain.transforms.RandomMap):
    """`windows` short windows of one clip, each with its own sound, far enough apart to be negatives of each other.

    mouths_u8 "n t s s 3" and boxes "n t 4" as in `mouths.Mouths`; sound "n l c" (the window that begins with the first
    frame); start "n" (first frame); clip: its number. With `whole_frames` also frames_u8 "n t h w 3", frame_boxes
    "n t 4" (the mouth in them) and what the renderer's estimators say of each frame, as in `DrivenFrames`.
    """

    def __init__(
        self,
        records: RecordSet,
        clips: np.ndarray,
        *,
        frames: int,
        windows: int,
        gap: int,
        crop: int,
        sound: Sound = HUBERT,
        spread: bool = False,
        whole_frames: bool = False,
        remember: bool = False,
    ):
        """gap: frames between the starts of two windows, at least. crop: pixels of a mouth. spread: evenly instead of
        at random. remember: keep every clip that was read once in memory."""
        self._records, self._clips = records, clips
        self._frames, self._windows, self._gap = frames, windows, gap
        self._crop, self._sound = crop, sound
        self._spread, self._whole_frames = spread, whole_frames
        self._remembered: dict[int, tuple[Mouths, np.ndarray]] | None = {} if remember else None

    @staticmethod
    def frames_needed(frames: int, windows: int, gap: int) -> int:
        return (windows - 1) * gap + frames

    def random_map(self, index: int, rng: np.random.Generator) -> Example:
        number = int(self._clips[index])
        frames = self._records.clips[number].frames
        slack = frames - self.frames_needed(self._frames, self._windows, self._gap)
        if self._spread:
            extra = np.linspace(0, slack, self._windows).astype(int)
        else:
            extra = np.sort(rng.integers(0, slack + 1, self._windows))
        return self.cut(number, np.arange(self._windows) * self._gap + extra)

    def cut(self, number: int, starts: np.ndarray) -> Example:
        shown = starts[:, None] + np.arange(self._frames)
        mouths, sound = self._read(number, shown)
        example = {
            "mouths_u8": mouths.pictures_u8,
            "boxes": mouths.boxes,
            "sound": sound_windows(sound, self._sound, starts),
            "start": starts.astype(np.int32),
            "clip": np.int32(number),
        }
        return example | (self._whole(self._records[number], shown) if self._whole_frames else {})

    def _read(self, number: int, shown: np.ndarray) -> tuple[Mouths, np.ndarray]:
        """The mouths "n t ..." of the frames `shown` "n t", and the whole clip's sound."""
        if self._remembered is None:
            clip = self._records[number]
            mouths = read_mouths(clip, shown.reshape(-1), self._crop)
            return Mouths(*(x.reshape(*shown.shape, *x.shape[1:]) for x in mouths)), read_sound(clip, self._sound)
        if number not in self._remembered:
            clip = self._records[number]
            everything = read_mouths(clip, np.arange(clip.info.frames), self._crop)
            # A copy: features are views of the record, which would stay in memory with all its pictures.
            self._remembered[number] = everything, np.array(read_sound(clip, self._sound))
        mouths, sound = self._remembered[number]
        return Mouths(*(x[shown] for x in mouths)), sound

    @staticmethod
    def _whole(clip: Clip, shown: np.ndarray) -> Example:
        images = clip.images(shown.reshape(-1))
        return {
            "frames_u8": images.reshape(*shown.shape, *images.shape[1:]),
            "frame_boxes": mouth_boxes(clip["landmarks"])[shown],
            **{name: clip[name][shown] for name in FIELDS[RENDERER]},
        }


class DrivenFrames(grain.transforms.RandomMap):
    """Source frames of one clip and driving sound by `PairingConfig`: an example of Audio2Exp's training.

    source_u8 "t h w 3", unless without `pictures`; boxes "t 4"; canonical, expression "t k 3"; yaw_deg, pitch_deg,
    roll_deg "t"; translation "t 3"; hubert "t 18 c" (one window a frame, of the driving sound); pairing: one of
    `PAIRINGS`; samples int16 "s" (the driving sound, for clips with sound); clip, driver: numbers of the two clips.
    `extras`, for experts that need them: mel "t 16 80", windows of the driving sound; lower_faces "t 4", further boxes.
    With `expressions` also what the clip's own expression is where the sound is from, spoken_expression "t k 3", and
    where the clip is silent, silent_expression "k 3" (its mean); each with spoken_known, silent_known (0 or 1), since
    another person's sound, and a clip without silence, have none.
    """

    def __init__(
        self,
        records: RecordSet,
        clips: np.ndarray,
        *,
        frames: int,
        pairing: PairingConfig,
        extras: Collection[str] = (),
        expressions: bool = False,
        pictures: bool = True,
    ):
        self._expressions, self._pictures = expressions, pictures
        self._records, self._clips, self._frames, self._pairing = records, clips, frames, pairing
        self._extras = extras
        self._of_person: dict[str, list[int]] = defaultdict(list)
        for number in clips:
            self._of_person[records.clips[int(number)].person].append(int(number))
        lonely = all(len(numbers) == 1 for numbers in self._of_person.values())
        self._possible = np.array([True, True, not lonely, len(self._of_person) > 1])
        if not (self._possible & (np.array(pairing.shares) > 0)).any():
            raise UserError("the pairing asks only for partners that these records do not hold: raise other shares")

    def random_map(self, index: int, rng: np.random.Generator) -> Example:
        number = int(self._clips[index])
        clip = self._records[number]
        frames = int(rng.integers(0, clip.info.frames - self._frames + 1)) + np.arange(self._frames)
        kind, driver, driving = self._partner(number, int(frames[0]), rng)
        driving_clip = clip if driver == number else self._records[driver]
        example = {
            "boxes": mouth_boxes(clip["landmarks"])[frames],
            "hubert": sound_windows(driving_clip["hubert"], "hubert", driving),
            "samples": sound_of(driving_clip, driving),
            "pairing": np.int32(kind),
            "clip": np.int32(number),
            "driver": np.int32(driver),
        }
        if self._pictures:
            example["source_u8"] = clip.images(frames)
        if "mel" in self._extras:
            example["mel"] = sound_windows(read_sound(driving_clip, "mel"), "mel", driving)
        if "lower_faces" in self._extras:
            example["lower_faces"] = lower_face_boxes(clip["landmarks"])[frames]
        if self._expressions:
            example |= _filmed_expressions(clip, driving, own_sound=driver == number)
        return example | {name: clip[name][frames] for name in FIELDS[RENDERER]}

    def _partner(self, number: int, start: int, rng: np.random.Generator) -> tuple[int, int, np.ndarray]:
        """(kind of pairing, number of the driving clip, its frames)."""
        shares = np.array(self._pairing.shares) * self._possible
        kinds = rng.choice(len(shares), p=shares / shares.sum())
        info = self._records.clips[number]
        own = [n for n in self._of_person[info.person] if n != number]
        shifted = self._shifted_starts(info.frames, start)
        if kinds == SAME_PERSON and not own:
            kinds = SAME_CLIP
        if kinds == SAME_CLIP and not len(shifted):
            kinds = OTHER_PERSON if self._possible[OTHER_PERSON] else IN_SYNC
        if kinds == OTHER_PERSON:
            driver = number
            while self._records.clips[driver].person == info.person:
                driver = int(rng.choice(self._clips))
        else:
            driver = int(rng.choice(own)) if kinds == SAME_PERSON else number
        if kinds == IN_SYNC:
            first = start
        elif kinds == SAME_CLIP:
            first = int(rng.choice(shifted))
        else:
            first = int(rng.integers(0, self._records.clips[driver].frames - self._frames + 1))
        return int(kinds), driver, first + np.arange(self._frames)

    def _shifted_starts(self, frames: int, start: int) -> np.ndarray:
        starts = np.arange(frames - self._frames + 1)
        return starts[np.abs(starts - start) >= self._pairing.min_shift]


def _filmed_expressions(clip: Clip, driving: np.ndarray, *, own_sound: bool) -> Example:
    """The expressions that a clip has under its own sound and in its silence; see `DrivenFrames`."""
    expression = clip["expression"]
    samples = clip["samples"].astype(np.float32) / 32768
    silent = silent_frames(frame_levels(samples, SAMPLE_RATE_HZ, FPS, len(expression)), FPS)
    spoken = expression[driving] if own_sound else np.zeros((len(driving), *expression.shape[1:]), np.float32)
    quiet = expression[silent].mean(0) if silent.any() else np.zeros(expression.shape[1:], np.float32)
    return {
        "spoken_expression": spoken.astype(np.float32),
        "spoken_known": np.float32(own_sound),
        "silent_expression": quiet.astype(np.float32),
        "silent_known": np.float32(silent.any()),
    }


def endless(clips: np.ndarray, transform: grain.transforms.RandomMap, seed: int) -> grain.MapDataset:
    """The stream of examples: the clips in a new order every epoch, each turned into an example by `transform`."""
    return grain.MapDataset.range(len(clips)).seed(seed).shuffle().repeat().random_map(transform)


def spread_first(clips: np.ndarray, count: int) -> np.ndarray:
    """The same clips with `count` of them, evenly chosen, at the front."""
    if count >= len(clips):
        return clips
    chosen = np.linspace(0, len(clips) - 1, count).round().astype(int)
    return np.concatenate([clips[chosen], np.delete(clips, chosen)])


def in_order(clips: np.ndarray, transform: grain.transforms.RandomMap, seed: int) -> grain.MapDataset:
    """The same, every clip in turn, for evaluation."""
    return grain.MapDataset.range(len(clips)).seed(seed).repeat().random_map(transform)
