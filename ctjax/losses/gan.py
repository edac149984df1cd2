"""Adversarial and feature-matching losses over the maps of a patch discriminator.

Every term counts the whole map and, again, the mouth: the middle half of its columns, the middle to lower
rows (ControlTalk modules/model.py:280-306, 436-450). `mouth=False` gives the plain terms for faces that are not
centred crops, or for other domains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from jaxtyping import Array, Float

from ctjax.losses.perceptual import mean_per_example

WHOLE_WEIGHT = 0.333  # as the reference writes them: they do not sum to one
MOUTH_WEIGHT = 0.667
MODES = ("hinge", "ls")


def mouth_region(maps: Float[Array, "b h w c"]) -> Float[Array, "b _ _ c"]:
    """Rows h//2 .. h//2 + 4h//8, columns w//2 -+ w//4 of a discriminator map (for odd h the last row is left out).

    Raises ValueError where the crop would be empty.
    """
    height, width = maps.shape[1:3]
    if height < 2 or width < 4:
        raise ValueError(
            f"a discriminator map of {height}x{width} has no mouth region: use larger images, fewer discriminator "
            "blocks or scales, or switch the mouth terms off (mouth=False)"
        )
    return maps[:, height // 2 : height // 2 + 4 * height // 8, width // 2 - width // 4 : width // 2 + width // 4]


def _mean(
    term: Callable[..., Float[Array, "b h w c"]], *maps: Float[Array, "b h w c"], mouth: bool
) -> Float[Array, " b"]:
    """Mean of an elementwise term, with the mouth counted again if asked for."""
    values = term(*maps)
    whole = mean_per_example(values)
    return WHOLE_WEIGHT * whole + MOUTH_WEIGHT * mean_per_example(mouth_region(values)) if mouth else whole


def _check(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"gan_mode {mode!r} is not one of {', '.join(MODES)}")


def generator_loss(fake: Sequence[Float[Array, "b _ _ 1"]], *, mode: str, mouth: bool = True) -> Float[Array, " b"]:
    """The generator's side: mean over the discriminator's scales. hinge: 1 - D(fake); ls: (1 - D(fake))^2.

    The hinge form keeps the reference's constant 1, which moves the number and no gradient.
    """
    _check(mode)
    term = (lambda d: 1 - d) if mode == "hinge" else (lambda d: (1 - d) ** 2)
    return sum(_mean(term, maps, mouth=mouth) for maps in fake) / len(fake)


def discriminator_loss(
    real: Sequence[Float[Array, "b _ _ 1"]],
    fake: Sequence[Float[Array, "b _ _ 1"]],
    *,
    mode: str,
    mouth: bool = True,
) -> Float[Array, " b"]:
    """The discriminator's side: mean over its scales. hinge: max(0, 1 - D(real)) + max(0, 1 + D(fake));
    ls: (1 - D(real))^2 + D(fake)^2."""
    _check(mode)
    if mode == "hinge":
        term = lambda r, f: jax.nn.relu(1 - r) + jax.nn.relu(1 + f)  # noqa: E731
    else:
        term = lambda r, f: (1 - r) ** 2 + f**2  # noqa: E731
    return sum(_mean(term, r, f, mouth=mouth) for r, f in zip(real, fake, strict=True)) / len(real)


def feature_matching(
    real: Sequence[Sequence[Float[Array, "b _ _ _"]]],
    fake: Sequence[Sequence[Float[Array, "b _ _ _"]]],
    *,
    weights: Sequence[float],
    mouth: bool = True,
) -> Float[Array, " b"]:
    """Weighted mean |difference| of the discriminator's inner maps, mean over its scales.

    `real`, `fake`: scale -> block -> maps. `weights`: at least one per block; more are not read.
    """
    if len(weights) < len(real[0]):
        raise ValueError(f"feature matching: {len(weights)} weights for a discriminator of {len(real[0])} blocks")
    total = sum(
        weight * _mean(lambda a, b: abs(a - b), f, r, mouth=mouth)
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for weight, r, f in zip(weights, real_maps, fake_maps, strict=False)
    )
    return total / len(real)
