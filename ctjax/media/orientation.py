"""Which way up: one notation for the display matrix of videos and the EXIF orientation of pictures.

A turn is a 2 x 2 matrix of -1, 0, 1, as nested tuples: (x', y') = (x, y) @ turn, up to the offset that keeps the
picture in view.
"""

from __future__ import annotations

import numpy as np

Turn = tuple[tuple[int, int], tuple[int, int]]

UPRIGHT: Turn = ((1, 0), (0, 1))
# EXIF tag 0x0112: where the stored first row and column are to be seen (TIFF 6.0, section 8, "Orientation").
EXIF_TURNS: dict[int, Turn] = {
    1: UPRIGHT,
    2: ((-1, 0), (0, 1)),
    3: ((-1, 0), (0, -1)),
    4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)),
    6: ((0, 1), (-1, 0)),
    7: ((0, -1), (-1, 0)),
    8: ((0, -1), (1, 0)),
}
_EXIF_ORIENTATION_TAG = 0x0112
_MAX_IFD_ENTRIES = 200


def from_display_matrix(data: bytes) -> Turn:
    """The turn in a container's display matrix: 32-bit numbers a b u c d v ..., x' = a x + c y, y' = b x + d y."""
    a, b, _, c, d = (int(v) for v in np.frombuffer(data, np.int32, count=5))
    # Pictures are turned by right angles only: the larger entry decides.
    if abs(a) >= abs(b):
        return ((_sign(a), 0), (0, _sign(d)))
    return ((0, _sign(b)), (_sign(c), 0))


def from_exif(data: bytes) -> Turn:
    """The turn in an EXIF block (a TIFF structure, with or without the leading "Exif" mark); upright if it has none."""
    data = data.removeprefix(b"Exif\x00\x00")
    order = {b"II": "little", b"MM": "big"}.get(data[:2])
    if order is None or len(data) < 10:
        return UPRIGHT
    directory = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[directory : directory + 2], order)
    for i in range(min(count, _MAX_IFD_ENTRIES)):
        entry = data[directory + 2 + 12 * i :][:12]
        if int.from_bytes(entry[:2], order) == _EXIF_ORIENTATION_TAG:
            return EXIF_TURNS.get(int.from_bytes(entry[8:10], order), UPRIGHT)
    return UPRIGHT


def swaps_axes(turn: Turn) -> bool:
    return turn[0][0] == 0


def turned(image: np.ndarray, turn: Turn) -> np.ndarray:
    """`image` "h w ..." after `turn`, contiguous in memory."""
    (xx, xy), (yx, yy) = turn
    # Where x and y change places, each new axis may run backwards besides.
    image = image.swapaxes(0, 1)[::xy, ::yx] if swaps_axes(turn) else image[::yy, ::xx]
    return np.ascontiguousarray(image)


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
