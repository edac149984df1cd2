"""Reading pictures of any kind as upright RGB, 8 bits a channel; writing them for a look."""

from __future__ import annotations

import os
import pathlib

import cv2
import numpy as np

from ctjax.media.container import MediaError, existing_file
from ctjax.media.orientation import UPRIGHT, from_exif, turned

NEUTRAL_GREY = (127, 127, 127)  # what shows through where a picture is transparent


def is_picture(path: str | os.PathLike) -> bool:
    """True for a file that begins like a still picture. A GIF is a video (of one frame perhaps)."""
    path = existing_file(path)
    with path.open("rb") as file:
        if file.read(4) == b"GIF8":
            return False
    try:
        str(path).encode()
    except UnicodeEncodeError as error:  # OpenCV would end the process
        raise MediaError(f"{path}: its name is not UTF-8 text and cannot be opened; rename the file") from error
    return cv2.haveImageReader(str(path))


def read_image(path: str | os.PathLike, background: tuple[int, int, int] = NEUTRAL_GREY) -> np.ndarray:
    """A picture as uint8 "h w 3" RGB, turned upright after its EXIF orientation.

    Grayscale, palette, 16-bit and float pictures (floats in [0, 1]) are converted; transparent parts show `background`.
    Raises: MediaError if the file is missing or not a picture that can be read.
    """
    data = np.fromfile(existing_file(path), np.uint8)
    level = cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # OpenCV would print its own complaint beside ours
    try:
        image, kinds, metadata = cv2.imdecodeWithMetadata(data, flags=cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MediaError(f"{path}: is not a picture that can be read") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if image is None or image.size == 0:
        raise MediaError(f"{path}: is not a picture that can be read, or it is cut off")
    # IMREAD_UNCHANGED keeps the transparency but leaves the turning to us.
    exif = [bytes(block) for kind, block in zip(kinds, metadata, strict=True) if kind == cv2.IMAGE_METADATA_EXIF]
    return turned(_to_rgb(_to_u8(image), background), from_exif(exif[0]) if exif else UPRIGHT)


def write_image(path: str | os.PathLike, image_u8: np.ndarray) -> None:
    """Writes uint8 "h w 3" RGB; the kind of file follows from the name. Raises: MediaError."""
    path = pathlib.Path(path)
    ok, data = cv2.imencode(path.suffix or ".png", np.ascontiguousarray(image_u8[..., ::-1]))
    if not ok:
        raise MediaError(f"{path}: cannot be written as a picture")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise MediaError(f"{path}: cannot be written: {error.strerror}") from error


def _to_u8(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 -> 255, rounded
    if np.issubdtype(image.dtype, np.floating):
        return np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    raise MediaError(f"pictures of {image.dtype} are not supported; convert it to 8 or 16 bits a channel")


def _to_rgb(image: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    """OpenCV's gray, BGR or BGRA to RGB."""
    if image.ndim == 2 or image.shape[2] == 1:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    alpha = image[..., 3:].astype(np.float32) / 255
    rgb = image[..., 2::-1] * alpha + np.float32(background) * (1 - alpha)
    return np.rint(rgb).astype(np.uint8)
