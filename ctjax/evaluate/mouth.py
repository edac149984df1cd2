"""How far the mouth opens: aperture from landmarks, and its correlation with the reference."""

from __future__ import annotations

import numpy as np

INNER_LIPS = ((61, 67), (62, 66), (63, 65))  # upper and lower points of the inner lip contour, of 68
OUTER_EYE_CORNERS = (36, 45)
MIN_CORRELATED_FRAMES = 10
MAX_LAG_FRAMES = 15


def aperture(landmarks: np.ndarray) -> np.ndarray:
    """Gap between the inner lips over the distance of the outer eye corners, "t"; 0 is closed, NaN where no face.

    landmarks: "t 68 2" in pixels. The gap is the mean over three pairs of points.
    """
    gaps = [np.linalg.norm(landmarks[:, upper] - landmarks[:, lower], axis=-1) for upper, lower in INNER_LIPS]
    right, left = (landmarks[:, corner] for corner in OUTER_EYE_CORNERS)
    return np.mean(gaps, axis=0) / np.linalg.norm(right - left, axis=-1)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two series over the frames where both are numbers.

    NaN for fewer than ten common frames or a series that does not move.
    """
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < MIN_CORRELATED_FRAMES or min(np.std(a[both]), np.std(b[both])) < 1e-9:
        return float("nan")
    return float(np.corrcoef(a[both], b[both])[0, 1])


def best_lag(a: np.ndarray, b: np.ndarray, limit: int = MAX_LAG_FRAMES) -> float:
    """The shift in frames, within +-`limit`, at which `a` correlates best with `b`; positive where `a` is late.

    NaN where no shift has a correlation.
    """
    found = {}
    for lag in range(-limit, limit + 1):
        early, late = (b, a) if lag >= 0 else (a, b)
        count = len(a) - abs(lag)
        if count >= MIN_CORRELATED_FRAMES:
            found[lag] = correlation(early[:count], late[abs(lag) :])
    found = {lag: r for lag, r in found.items() if np.isfinite(r)}
    return float(max(found, key=lambda lag: (found[lag], -abs(lag)))) if found else float("nan")
