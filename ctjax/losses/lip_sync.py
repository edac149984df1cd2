"""Lip-sync loss (paper, eq. 5): the generated mouth against the driving sound, as a frozen sync expert sees them."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SyncForm = Literal["cosine", "bce"]
COSINE_MARGIN = 1e-6  # keeps the logarithm finite where a cosine serves as a probability


def cosine_loss(cosine: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """1 - cosine: eq. 5 prints the similarity itself, which is to be maximised."""
    return 1.0 - cosine


def bce_of_logit(logit: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """-log p for an expert that gives log-odds."""
    return jax.nn.softplus(-logit)


def bce_of_cosine(cosine: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """-log(cosine) for an expert whose embeddings are non-negative, so that the cosine is a probability
    (Wav2Lip color_syncnet_train.py:138-143)."""
    return -jnp.log(jnp.clip(cosine, COSINE_MARGIN, 1.0))
