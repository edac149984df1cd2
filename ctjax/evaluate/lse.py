"""LSE-D, LSE-C and the audio-visual offset from the distances between lip and sound embeddings.

The arithmetic is joonson/syncnet_python SyncNetInstance.py's `calc_pdist` and `evaluate`; Wav2Lip's
evaluation/scores_LSE averages distance and confidence over videos. Sound outside the clip counts as zero vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import signal

MAX_SHIFT_FRAMES = 15
PAIRWISE_EPSILON = 1e-6  # torch.nn.functional.pairwise_distance adds it to every difference
CONFIDENCE_FILTER_FRAMES = 9


class Lse(NamedTuple):
    """distance: LSE-D, the smallest mean distance over the shifts. confidence: LSE-C, median minus smallest.

    offset_frames: the reference's "AV offset", positive where the sound runs ahead of the lips and negative where it
    comes late. frame_confidence: "t", the confidence of each frame at the found offset, median-filtered over 9 frames.
    """

    distance: float
    confidence: float
    offset_frames: int
    frame_confidence: np.ndarray


def shift_distances(
    lips: Float[Array, "t c"], sound: Float[Array, "t_and_twice_the_shift c"]
) -> Float[Array, "t shifts"]:
    """Euclidean distance of lip vector i to sound vectors i - 15 .. i + 15.

    `sound` holds 15 more vectors on either side than `lips` (zeros outside the clip).
    """
    shifts = sound.shape[0] - lips.shape[0] + 1
    columns = [
        jnp.sqrt(jnp.sum((lips - sound[k : k + lips.shape[0]] + PAIRWISE_EPSILON) ** 2, axis=-1)) for k in range(shifts)
    ]
    return jnp.stack(columns, axis=1)


shift_distances_jit = jax.jit(shift_distances)


def summarise(distances: np.ndarray) -> Lse:
    """LSE of a clip from its "t 31" distances. Raises ValueError for a clip without a single window."""
    distances = np.asarray(distances, np.float64)
    if not len(distances):
        raise ValueError("no window of five frames with sound in the clip")
    means = distances.mean(0)
    best = int(np.argmin(means))
    median = float(np.sort(means)[(len(means) - 1) // 2])  # torch.median: the lower of two middle values
    frame_confidence = signal.medfilt(median - distances[:, best], CONFIDENCE_FILTER_FRAMES)
    return Lse(
        distance=float(means[best]),
        confidence=median - float(means[best]),
        offset_frames=(len(means) - 1) // 2 - best,
        frame_confidence=frame_confidence.astype(np.float32),
    )
