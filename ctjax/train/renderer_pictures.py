"""What the renderer's training looks like: one sheet, a row for each pair of frames."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

COLUMNS = ("source", "driving", "reconstruction", "other", "from other", "keypoints", "motion", "occlusion")
CAPTION_PX = 18
FULL_MOTION = 0.5  # displacement, in the unit of keypoints, that is drawn in full colour


class Shown(NamedTuple):
    """numpy arrays of one batch. Pictures float32 "b h w 3" in [0, 1]; keypoints "b k 3"; deformation "b d h w 3";
    occlusion "b h w 1" or None. other: whose motion drives `from_other`, which keeps the source's person."""

    source_01: np.ndarray
    driving_01: np.ndarray
    reconstruction_01: np.ndarray
    other_01: np.ndarray
    from_other_01: np.ndarray
    keypoints: np.ndarray
    deformation: np.ndarray
    occlusion: np.ndarray | None


def sheet(shown: Shown) -> np.ndarray:
    """RGB uint8 "h w 3": a caption, then per example the columns of `COLUMNS`."""
    size = shown.source_01.shape[1]
    rows = [_caption(size)]
    for i in range(len(shown.source_01)):
        occlusion = np.ones((1, 1, 1)) if shown.occlusion is None else shown.occlusion[i]
        cells = [
            *map(_u8, (shown.source_01[i], shown.driving_01[i], shown.reconstruction_01[i])),
            *map(_u8, (shown.other_01[i], shown.from_other_01[i])),
            draw_keypoints(_u8(shown.driving_01[i]), shown.keypoints[i]),
            _enlarged(motion_colours(shown.deformation[i]), size),
            _enlarged(_u8(np.repeat(occlusion, 3, -1)), size),
        ]
        rows.append(np.concatenate(cells, axis=1))
    return np.concatenate(rows)


def draw_keypoints(image_u8: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """The picture with a dot at each keypoint "k 3", its hue the keypoint's number."""
    image, size = image_u8.copy(), image_u8.shape[0]
    hues = np.linspace(0, 179, len(keypoints), endpoint=False).astype(np.uint8)
    colours = cv2.cvtColor(
        np.stack([hues, np.full_like(hues, 255), np.full_like(hues, 255)], -1)[None], cv2.COLOR_HSV2RGB
    )
    for (x, y, _), colour in zip(keypoints, colours[0], strict=True):
        centre = tuple(round((v + 1) / 2 * (size - 1)) for v in np.clip((x, y), -1, 1))
        cv2.circle(image, centre, max(1, size // 64), colour.tolist(), -1, cv2.LINE_AA)
    return image


def motion_colours(deformation: np.ndarray) -> np.ndarray:
    """Deformation "d h w 3" as RGB uint8 "h w 3": hue is the direction in x and y, brightness its length, mean over
    depth of where each cell is fetched from."""
    _, height, width, _ = deformation.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    offset = deformation[..., :2].mean(0) - np.stack([x, y], -1)
    length = np.clip(np.linalg.norm(offset, axis=-1) / FULL_MOTION, 0, 1)
    hue = (np.arctan2(offset[..., 1], offset[..., 0]) / (2 * np.pi) % 1.0) * 179
    hsv = np.stack([hue, np.full_like(hue, 255), length * 255], -1).round().astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _u8(image_01: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image_01, 0, 1) * 255).astype(np.uint8)


def _enlarged(image_u8: np.ndarray, size: int) -> np.ndarray:
    return cv2.resize(image_u8, (size, size), interpolation=cv2.INTER_NEAREST)


def _caption(size: int) -> np.ndarray:
    strip = np.full((CAPTION_PX, size * len(COLUMNS), 3), 255, np.uint8)
    for column, name in enumerate(COLUMNS):
        cv2.putText(
            strip, name, (column * size + 2, CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (0, 0, 0), 1, cv2.LINE_AA
        )
    return strip
