"""M-LMD and F-LMD: how far generated landmarks lie from the reference's, in the definitions that papers use.

All take 68 landmarks per frame and compare frame i with frame i. M-LMD is over the 20 points of the mouth (48-67),
F-LMD over all 68. Coordinates are those of a face crop of 256 px, one crop per clip, so that the size of the video
does not matter.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

LmdDefinition = Literal["aligned", "absolute", "sum", "interocular"]
CROP_SIDE = 256.0
MOUTH = slice(48, 68)
FACE = slice(0, 68)
OUTER_EYE_CORNERS = (36, 45)

LMD_DEFINITIONS: dict[str, str] = {
    "aligned": "each set of points is moved to its own centroid; mean distance per point in px of a 256 px face crop "
    "(the definition of yuangan/evaluation_eat, test_lmd.py)",
    "absolute": "no alignment, so head motion counts as well; mean distance per point in px of a 256 px face crop",
    "sum": "each set of points is moved to its own centroid; distances summed over the points, px of a 256 px face "
    "crop (lelechen63/ATVGnet, evaluation_matrix.py, which has the mouth only)",
    "interocular": "no alignment; mean distance per point in percent of the reference's distance between the outer "
    "eye corners (the normalised mean error of landmark papers)",
}
LMD_UNITS: dict[str, str] = {"aligned": "px@256", "absolute": "px@256", "sum": "px@256, summed", "interocular": "% IOD"}


def point_distances(a: np.ndarray, b: np.ndarray, centred: bool) -> np.ndarray:
    """Euclidean distances "t k" of "t k 2" points, after moving each frame's points to their centroid if `centred`."""
    if centred:
        a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return np.linalg.norm(a - b, axis=-1)


def landmark_distance(
    generated: np.ndarray, reference: np.ndarray, definition: LmdDefinition = "aligned"
) -> tuple[np.ndarray, np.ndarray]:
    """(M-LMD, F-LMD) of each frame, "t" each, NaN where either face was not found.

    generated, reference: "t 68 2" in pixels of a 256 px face crop, NaN rows where no face was found.
    """
    scale = np.ones(1)
    if definition == "interocular":
        right, left = (reference[:, index] for index in OUTER_EYE_CORNERS)
        scale = 100.0 / np.linalg.norm(right - left, axis=-1)[:, None]
    results = []
    for points in (MOUTH, FACE):
        distances = scale * point_distances(
            generated[:, points], reference[:, points], definition in ("aligned", "sum")
        )
        results.append(distances.sum(1) if definition == "sum" else distances.mean(1))
    return results[0], results[1]
