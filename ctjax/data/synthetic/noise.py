"""Smooth random fields over grids."""

from __future__ import annotations

import cv2
import numpy as np


def noise(rng: np.random.Generator, shape: tuple[int, int], rows: float, columns: float) -> np.ndarray:
    """Smooth noise of unit variance, float32 "v u"; rows, columns: its scale in grid steps."""
    field = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), sigmaX=columns, sigmaY=rows)
    return field / max(float(field.std()), 1e-6)
