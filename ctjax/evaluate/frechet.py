"""Frechet distance between two sets of feature vectors, each summed up by mean and covariance in float64.

The sets are streamed: `Moments` holds count, mean and scatter and is all that is kept. Definition and estimator
(unbiased covariance) are pytorch-fid's fid_score.py; the trace of the matrix square root comes from two symmetric
eigenvalue problems, which stays exact where a covariance is singular (fewer frames than features).
"""

from __future__ import annotations

import numpy as np
from scipy import linalg


class Moments:
    """Count, mean and scatter matrix of float64 vectors of length `size`, updated batch by batch (Chan et al. 1983)."""

    def __init__(self, size: int):
        self.count = 0
        self.mean = np.zeros(size)
        self.scatter = np.zeros((size, size))

    def update(self, features: np.ndarray) -> None:
        """Adds "b size" vectors."""
        if not len(features):
            return
        features = np.asarray(features, np.float64)
        batch_mean = features.mean(0)
        centred = features - batch_mean
        self._combine(len(features), batch_mean, centred.T @ centred)

    def merge(self, other: Moments) -> None:
        """Adds everything that `other` has seen."""
        if other.count:
            self._combine(other.count, other.mean, other.scatter)

    def _combine(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(delta, delta * (self.count * count / total))
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased estimate, as `numpy.cov(rowvar=False)`. Raises ValueError for fewer than two vectors."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least two frames, got {self.count}")
        return self.scatter / (self.count - 1)


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """|m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)) (Dowson and Landau 1982), at least 0."""
    values, vectors = linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    # C_a C_b has the eigenvalues of the symmetric root_a C_b root_a
    product = root_a @ covariance_b @ root_a
    shared = np.sqrt(np.maximum(linalg.eigvalsh((product + product.T) / 2), 0.0)).sum()
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * shared
    return max(float(distance), 0.0)


def distance(a: Moments, b: Moments) -> float:
    """The Frechet distance of two streamed sets."""
    return frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
