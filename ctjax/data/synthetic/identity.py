"""Who a synthetic head is: every choice drawn from a seed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

HAIR_STYLES = ("bald", "short", "side", "fringe", "long", "curly", "bun")
BACKGROUNDS = ("plain", "gradient", "room")
Colour = tuple[float, float, float]

# Skin from light to dark, hair from black to white, as seen under white light (RGB in [0, 1]).
_SKINS = np.array(
    [
        (0.98, 0.83, 0.74),
        (0.94, 0.76, 0.64),
        (0.86, 0.66, 0.51),
        (0.72, 0.51, 0.37),
        (0.55, 0.37, 0.26),
        (0.38, 0.25, 0.18),
    ]
)
_HAIRS = np.array(
    [
        (0.09, 0.07, 0.06),
        (0.23, 0.14, 0.09),
        (0.42, 0.26, 0.14),
        (0.78, 0.60, 0.34),
        (0.60, 0.25, 0.10),
        (0.72, 0.71, 0.70),
    ]
)
_IRISES = np.array([(0.30, 0.19, 0.10), (0.20, 0.12, 0.08), (0.30, 0.45, 0.62), (0.33, 0.46, 0.30), (0.45, 0.40, 0.30)])
_CLOTHES = np.array(
    [
        (0.16, 0.20, 0.30),
        (0.75, 0.75, 0.78),
        (0.45, 0.12, 0.14),
        (0.14, 0.33, 0.27),
        (0.30, 0.28, 0.26),
        (0.62, 0.48, 0.22),
    ]
)


class Identity(NamedTuple):
    """Shape factors are around 1 (or 0 for offsets); colours RGB in [0, 1]; see `draw_identity`."""

    seed: int
    skull_width: float
    skull_height: float
    jaw_width: float
    chin: float
    nose_length: float
    nose_width: float
    brow_ridge: float
    cheeks: float
    eye_size: float
    eye_distance: float
    eye_tilt: float
    lip_fullness: float
    mouth_width: float
    mouth_height: float
    smile: float
    ears: float
    skin: Colour
    lips: Colour
    hair: Colour
    brows: Colour
    iris: Colour
    clothes: Colour
    collar: float
    stripes: bool
    backdrop: tuple[Colour, Colour]
    hair_style: str
    hairline: float
    brow_thickness: float
    beard: float
    moustache: float
    glasses: bool
    freckles: float
    flush: float
    light_azimuth: float
    light_warmth: float
    background: str


def draw_identity(seed: int) -> Identity:
    """The person of `seed`; the same on every machine."""
    rng = np.random.default_rng([seed, 0x5EED])
    around = lambda spread, mean=1.0: float(np.clip(rng.normal(mean, spread), mean - 2 * spread, mean + 2 * spread))  # noqa: E731
    skin = _between(_SKINS, rng)
    # Dark skin mostly goes with dark hair and eyes; anybody may be grey or dye the hair.
    dark = skin.mean() < 0.55
    hair = _between(_HAIRS[:3] if dark else _HAIRS[:5], rng)
    if rng.random() < 0.12:
        hair = _HAIRS[rng.integers(len(_HAIRS))]
    iris = _IRISES[rng.integers(2) if dark and rng.random() < 0.8 else rng.integers(len(_IRISES))]
    bearded = rng.random() < 0.28
    style = HAIR_STYLES[rng.choice(len(HAIR_STYLES), p=(0.06, 0.22, 0.20, 0.14, 0.18, 0.12, 0.08))]
    if style in ("fringe", "long", "bun"):
        bearded = False
    redness = np.array((0.80, 0.34, 0.36)) * rng.uniform(0.75, 1.05)
    hue = rng.uniform(0.35, 0.95, 3)
    backdrop = (hue.mean() + (hue - hue.mean()) * rng.uniform(0.2, 0.75)) * rng.uniform(0.6, 1.0)
    return Identity(
        seed=seed,
        skull_width=around(0.045),
        skull_height=around(0.035),
        jaw_width=around(0.12, 1.08),
        chin=around(0.2),
        nose_length=around(0.16),
        nose_width=around(0.16),
        brow_ridge=around(0.35),
        cheeks=around(0.35),
        eye_size=around(0.09),
        eye_distance=around(0.05),
        eye_tilt=around(0.10, 0.05),
        lip_fullness=around(0.2),
        mouth_width=around(0.09),
        mouth_height=around(0.02, 0.0),
        smile=float(rng.uniform(0.1, 1.0)),
        ears=around(0.12),
        skin=tuple(skin),
        lips=tuple(np.clip(0.32 * skin + 0.68 * redness * skin.mean() / 0.66, 0, 1)),
        hair=tuple(hair),
        brows=tuple(np.clip(hair * 0.75, 0, 1)),
        iris=tuple(iris * rng.uniform(0.85, 1.15)),
        clothes=tuple(np.clip(_CLOTHES[rng.integers(len(_CLOTHES))] * rng.uniform(0.8, 1.2, 3), 0, 1)),
        collar=float(rng.choice((0.75, 1.35, 1.8))),
        stripes=bool(rng.random() < 0.2),
        backdrop=(
            tuple(backdrop),
            tuple(np.clip(backdrop * rng.uniform(0.6, 0.95) + rng.uniform(-0.06, 0.06, 3), 0, 1)),
        ),
        hair_style=style,
        hairline=around(0.05, 0.06),
        brow_thickness=around(0.25),
        beard=float(rng.uniform(0.35, 0.95)) if bearded else 0.0,
        moustache=float(rng.uniform(0.4, 0.95)) if bearded and rng.random() < 0.7 else 0.0,
        glasses=bool(rng.random() < 0.22),
        freckles=float(rng.uniform(0, 1) ** 3),
        flush=float(rng.uniform(0.4, 1.2)),
        light_azimuth=float(rng.uniform(-0.9, 0.9)),
        light_warmth=float(rng.uniform(-1, 1)),
        background=BACKGROUNDS[rng.integers(len(BACKGROUNDS))],
    )


def _between(palette: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A colour on the line between two neighbours of the palette."""
    place = rng.uniform(0, len(palette) - 1.001)
    low = int(place)
    return palette[low] + (place - low) * (palette[low + 1] - palette[low])
